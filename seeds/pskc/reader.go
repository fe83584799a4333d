package pskc

import (
	"bytes"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
)

// Options is what it takes to read a container.
type Options struct {
	Key      []byte    // pre-shared key of 16, 24 or 32 bytes; nil if there is none
	Password []byte    // nil if there is none
	Now      time.Time // what validity periods are judged by

	// What is taken for the length of codes and for TOTP's time step where the
	// file does not say. Zero: 6 digits, which Notes tells, and 30 s.
	Digits, Interval int

	// Signer is whose signature the container must carry. With it the file is
	// read whole before any key, into a buffer that is wiped, and may have 8 MB;
	// without it a signature is not checked, which Notes tells.
	Signer *x509.Certificate

	AllowExpired bool // read keys whose validity period is over; Notes tells of them
	AllowRSA15   bool // read secrets that are encrypted by RSAES-PKCS1-v1_5
}

// Error is what is wrong with a container as a whole.
type Error struct {
	Line   int    // from 1
	Reason string // a sentence without any secret
}

// Error says the place and the reason.
func (e *Error) Error() string { return "line " + strconv.Itoa(e.Line) + ": " + e.Reason }

// Reader reads the key packages of one container.
type Reader struct {
	source io.Reader
	p      *parser
	vault  vault
	key    Key
	number int              // of the key package
	line   int              // that it begins on
	pack   *node            // the key package
	queue  []*node          // its keys that are still to be judged
	common map[string]*node // KeyProperties of some drafts, by their id
	begun  bool
	signed bool
	signer string // whose signature was checked, and is right
	whole  []byte // the file, if it was read whole to check the signature
	err    error

	// What Notes tells.
	lengths      int // keys that name no length of their codes
	digests      int // seeds in clear with a digest
	expired      int
	firstExpired string
	ends         int // keys whose validity period is still to end
	firstEnd     time.Time
	pins         []string
	morePINs     int
	pinOwners    map[string]string // keys by the id of their PIN
}

// NewReader begins to read a container; nothing is read from r yet. The keys
// of o are used until Close and not wiped.
func NewReader(r io.Reader, o Options) *Reader {
	return &Reader{source: r, p: newParser(r), vault: vault{given: o}}
}

// Next answers the next key package, or io.EOF after the container's end. The
// key is valid until the next call, which wipes its secret. Any other error
// ends the file: an *Error, or what r failed with.
func (r *Reader) Next() (*Key, error) {
	r.key.wipe()
	if r.err == nil {
		r.err = r.next()
	}
	if r.err != nil {
		return nil, r.err
	}
	return &r.key, nil
}

// Close wipes what the reader still holds of seeds and keys.
func (r *Reader) Close() {
	r.key.wipe()
	r.p.wipe()
	r.p.in.wipe()
	r.vault.wipe()
	clear(r.whole)
	for _, n := range r.common {
		n.wipe()
	}
	if r.err == nil {
		r.err = io.EOF
	}
}

// Recipient is what the container says of the public key that its secrets are
// encrypted to; nil if they are not, or no key was read yet.
func (r *Reader) Recipient() *Recipient { return r.vault.recipient }

// Notes says what else is worth knowing, once Next has answered io.EOF.
func (r *Reader) Notes() []string {
	var notes []string
	add := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	if r.signer != "" {
		add("The file carries the right signature of %s.", r.signer)
	} else if r.signed {
		add("The file carries a signature, which was not checked; to have it checked give the signer's certificate.")
	}
	if r.lengths > 0 {
		add("Keys that do not say how long their codes are, and were taken for 6 digits: %d.", r.lengths)
	}
	for _, pin := range r.pins {
		add("%s", pin)
	}
	if r.morePINs > 0 {
		add("Further key packages that are PINs of other keys and were left out: %d.", r.morePINs)
	}
	if r.expired > 0 {
		add("Keys whose validity period is over, read all the same: %d, the first of them of %s. Their tokens get no expiry: revoke what should not be used.", r.expired, r.firstExpired)
	}
	if r.ends > 0 {
		add("Keys whose validity period ends: %d, the first of them on %s. Their tokens expire then, and are refused from then on; where the file means something else by it, such as the warranty, set another expiry or none.", r.ends, r.firstEnd.Format("2006-01-02"))
	}
	if r.vault.overPlain > 0 {
		add("Values whose MAC is over the plaintext, as in drafts of RFC 6030, instead of the ciphertext: %d. Each was right.", r.vault.overPlain)
	}
	if r.digests > 0 {
		add("Seeds in clear with a digest, which was not checked for want of a key: %d.", r.digests)
	}
	return notes
}

// maxPINs is how many PINs the notes name.
const maxPINs = 10

// pinOf remembers that the key under way is protected by a PIN.
func (r *Reader) pinOf(id string) {
	if r.pinOwners == nil {
		r.pinOwners = make(map[string]string)
	}
	if len(r.pinOwners) < maxPINs {
		r.pinOwners[id] = r.key.ID
	}
}

// pin notes that the key under way is a PIN.
func (r *Reader) pin() {
	if len(r.pins) == maxPINs {
		r.morePINs++
		return
	}
	of := "another key"
	if owner := r.pinOwners[r.key.ID]; owner != "" {
		of = "key " + quoted(owner)
	}
	r.pins = append(r.pins, fmt.Sprintf("Key package %d, key %s, is the PIN of %s, not a token; it was left out.", r.number, quoted(r.key.ID), of))
}

func (r *Reader) next() error {
	if !r.begun {
		if r.vault.given.Signer != nil {
			if err := r.verify(); err != nil {
				return err
			}
		}
		if err := r.begin(); err != nil {
			return err
		}
		r.begun = true
	}
	for {
		for len(r.queue) > 0 {
			n := r.queue[0]
			r.queue = r.queue[1:]
			if found, err := r.take(n); found || err != nil {
				return err
			}
		}
		r.p.wipe()
		t, err := r.p.token()
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.CharData:
			blank := len(bytes.TrimSpace(t)) == 0
			clear(t)
			if !blank {
				return r.p.errorf("there is text between the key packages")
			}
		case xml.EndElement:
			return r.end()
		case xml.StartElement:
			if err := r.element(t); err != nil {
				return err
			}
		}
	}
}

// take judges one key of the package under way, and says whether it is one to
// answer with: a PIN is not.
func (r *Reader) take(n *node) (found bool, err error) {
	err = r.judge(r.pack, n)
	r.key.Line, r.key.Number = r.line, r.number
	var stop fatal
	switch {
	case errors.As(err, &stop):
		place := fmt.Sprintf("key package %d", r.number)
		if r.key.Serial != "" {
			place += ", serial " + quoted(r.key.Serial)
		}
		return false, &Error{Line: r.line, Reason: place + ": " + stop.Error()}
	case err == errPIN:
		r.pin()
		return false, nil
	case err != nil:
		r.key.wipe()
		r.key.Secret, r.key.Encrypted = r.key.Secret[:0], nil
		r.key.Err = err
	case !r.key.Expires.IsZero():
		if r.ends++; r.ends == 1 || r.key.Expires.Before(r.firstEnd) {
			r.firstEnd = r.key.Expires
		}
	}
	return true, nil
}

// begin reads up to the root element, and judges it.
func (r *Reader) begin() error {
	for {
		t, err := r.p.token()
		if err == io.EOF {
			return r.p.errorf("there is no KeyContainer element in the file")
		}
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return r.p.errorf("this is not XML")
			}
		case xml.StartElement:
			root := node{name: t.Name, attrs: t.Attr}
			if root.name.Local != "KeyContainer" && root.name.Local != "SecretContainer" {
				return r.p.errorf("the root element is %s, not KeyContainer", quoted(root.name.Local))
			}
			if root.name.Space != nsPSKC {
				return r.p.errorf("the KeyContainer is in the namespace %s, neither in that of RFC 6030 (%s) nor in one of its drafts", quoted(root.name.Space), nsPSKC)
			}
			if v := root.attr("Version"); v != "" && v != "1.0" && v != "1" && !r.p.draft {
				return r.p.errorf("the container is of version %s; 1.0 is the one of RFC 6030", quoted(v))
			}
			return nil
		}
	}
}

// element reads one child of the container. The keys of a package are then in
// the queue.
func (r *Reader) element(start xml.StartElement) error {
	n := node{name: start.Name}
	v := &r.vault
	switch {
	case n.is("KeyPackage", nsPSKC), n.is("Device", nsPSKC):
		r.number++
		r.line = r.p.line()
		tree, err := r.p.tree(start)
		if err != nil {
			return err
		}
		r.pack, r.queue = tree, r.queue[:0]
		for _, k := range tree.kids {
			if k.is("Key", nsPSKC) || k.is("Secret", nsPSKC) && n.name.Local == "Device" {
				r.queue = append(r.queue, k)
			}
		}
		if len(r.queue) == 0 {
			r.queue = append(r.queue, nil)
		}
		return nil
	case n.is("EncryptionKey", nsPSKC):
		return r.header(start, v.declared || v.mac != nil, v.readEncryptionKey)
	case n.is("EncryptionMethod", nsPSKC): // of a draft
		return r.header(start, v.legacy != nil || v.mac != nil, v.readEncryptionMethod)
	case n.is("MACMethod", nsPSKC), n.is("DigestMethod", nsPSKC), n.is("MACAlgorithm", nsPSKC):
		return r.header(start, v.mac != nil, v.readMACMethod)
	case n.is("KeyProperties", nsPSKC):
		return r.header(start, false, r.properties)
	case n.is("Signature", nsDS, nsPSKC): // RFC 6030's figure 9 has it in either; see erratum 3418
		r.signed = true
		return r.p.skip()
	case n.is("Extensions", nsPSKC), n.name.Space != nsPSKC:
		return r.p.skip()
	}
	return r.p.errorf("the container has a %s element, which RFC 6030 does not know", quoted(n.name.Local))
}

// maxProperties is how many KeyProperties a container can have.
const maxProperties = 16

// properties keeps what several keys have in common, in some drafts.
func (r *Reader) properties(n *node) error {
	id := n.attr("KeyPropertiesId", "Id", "id")
	switch {
	case id == "":
		return errors.New("there are KeyProperties without an id")
	case r.common[id] != nil:
		return fmt.Errorf("there are two KeyProperties %s", quoted(id))
	case len(r.common) == maxProperties:
		return fmt.Errorf("there are more than %d KeyProperties", maxProperties)
	}
	if r.common == nil {
		r.common = make(map[string]*node)
	}
	r.common[id] = n.clone()
	return nil
}

// header reads an element that says how the values are protected. It stands
// once, before any key package (RFC 6030, section 4).
func (r *Reader) header(start xml.StartElement, late bool, read func(*node) error) error {
	if late || r.number > 0 {
		return r.p.errorf("the %s element is not where it belongs: once, EncryptionKey before MACMethod, and both before the first KeyPackage", start.Name.Local)
	}
	line := r.p.line()
	n, err := r.p.tree(start)
	if err != nil {
		return err
	}
	defer r.p.wipe()
	if err := read(n); err != nil {
		return &Error{Line: line, Reason: err.Error()}
	}
	return nil
}

// end reads what follows the container: nothing but white space and comments.
func (r *Reader) end() error {
	for {
		t, err := r.p.token()
		if err != nil {
			return err // io.EOF, if all is well
		}
		switch t := t.(type) {
		case xml.CharData:
			blank := len(bytes.TrimSpace(t)) == 0
			clear(t)
			if blank {
				continue
			}
		case xml.Comment, xml.ProcInst:
			continue
		}
		return r.p.errorf("something follows the end of the KeyContainer")
	}
}
