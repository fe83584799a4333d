package pskc

import (
	"bytes"
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
	p       *parser
	vault   vault
	key     Key
	number  int // of the key package
	begun   bool
	signed  bool
	lengths int // keys that name no length of their codes
	err     error
}

// NewReader begins to read a container; nothing is read from r yet. The keys
// of o are used until Close and not wiped.
func NewReader(r io.Reader, o Options) *Reader {
	return &Reader{p: newParser(r), vault: vault{given: o}}
}

// Next answers the next key package, or io.EOF after the container's end. The
// key is valid until the next call, which wipes its secret. Any other error
// ends the file: an *Error, or what r failed with.
func (r *Reader) Next() (*Key, error) {
	clear(r.key.Secret)
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
	clear(r.key.Secret)
	r.p.wipe()
	r.p.in.wipe()
	r.vault.wipe()
	if r.err == nil {
		r.err = io.EOF
	}
}

// Notes says what else is worth knowing, once Next has answered io.EOF.
func (r *Reader) Notes() []string {
	var notes []string
	if r.signed {
		notes = append(notes, "The file carries a signature, which was not checked.")
	}
	if r.lengths > 0 {
		notes = append(notes, fmt.Sprintf("Keys that do not say how long their codes are, and were taken for 6 digits: %d.", r.lengths))
	}
	return notes
}

func (r *Reader) next() error {
	if !r.begun {
		if err := r.begin(); err != nil {
			return err
		}
		r.begun = true
	}
	for {
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
			if found, err := r.element(t); found || err != nil {
				return err
			}
		}
	}
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
			if root.name.Local != "KeyContainer" {
				return r.p.errorf("the root element is %s, not KeyContainer", quoted(root.name.Local))
			}
			if root.name.Space != nsPSKC {
				return r.p.errorf("the KeyContainer is in the namespace %s, not in that of RFC 6030 (%s); it may be of a draft of it", quoted(root.name.Space), nsPSKC)
			}
			if v := root.attr("Version"); v != "" && v != "1.0" && v != "1" {
				return r.p.errorf("the container is of version %s; 1.0 is the one of RFC 6030", quoted(v))
			}
			return nil
		}
	}
}

// element reads one child of the container, and says whether it was a key
// package.
func (r *Reader) element(start xml.StartElement) (found bool, err error) {
	n := node{name: start.Name}
	switch {
	case n.is("KeyPackage", nsPSKC):
		r.number++
		line := r.p.line()
		tree, err := r.p.tree(start)
		if err != nil {
			return false, err
		}
		err = r.judge(tree)
		r.p.wipe()
		r.key.Line, r.key.Number = line, r.number
		var stop fatal
		if errors.As(err, &stop) {
			place := fmt.Sprintf("key package %d", r.number)
			if r.key.Serial != "" {
				place += ", serial " + quoted(r.key.Serial)
			}
			return false, &Error{Line: line, Reason: place + ": " + stop.Error()}
		}
		if err != nil {
			clear(r.key.Secret)
			r.key.Secret = r.key.Secret[:0]
			r.key.Err = err
		}
		return true, nil

	case n.is("EncryptionKey", nsPSKC):
		return false, r.header(start, r.vault.declared || r.vault.mac != nil, r.vault.readEncryptionKey)
	case n.is("MACMethod", nsPSKC):
		return false, r.header(start, r.vault.mac != nil, r.vault.readMACMethod)
	case n.is("Signature", nsDS):
		r.signed = true
		return false, r.p.skip()
	case n.is("Extensions", nsPSKC), n.name.Space != nsPSKC:
		return false, r.p.skip()
	}
	return false, r.p.errorf("the container has a %s element, which RFC 6030 does not know", quoted(n.name.Local))
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
