package pskc

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The names of the algorithms that Key.Algorithm can be (RFC 6030, sections
// 10.1 and 10.2, the profile of TOTP, and draft-josefsson-keyprov-pskc-yubikey).
const (
	HOTP       = "hotp"
	TOTP       = "totp"
	YubiKeyAES = "yubikey-aes"
)

// MaxSecret is the longest secret that is read, in bytes.
const MaxSecret = 1024

// Key is one key of a key package.
type Key struct {
	Number int // of the package in the container, from 1
	Line   int // that its element begins on, from 1

	ID           string // of the key
	Serial       string // of the device; the key's ID if the device has none
	Manufacturer string
	Model        string
	User         string // whom the file names as the owner; empty if nobody

	Algorithm string // HOTP, TOTP or YubiKeyAES
	Suite     string // names the hash; empty if the file does not say
	Digits    int    // length of the code; 6 if the file does not say; zero for YubiKeyAES
	Counter   uint64 // HOTP: the next counter; zero if the file does not say
	Interval  int    // TOTP: seconds; 30 if the file does not say
	Drift     int    // TOTP: time steps that the device's clock is ahead

	PublicID  string  // YubiKeyAES: in modhex
	PrivateID [6]byte // YubiKeyAES

	Secret    []byte     // in the clear; empty if Encrypted is set
	Encrypted *Encrypted // the secret, if it is encrypted to a public key

	// Err says why the key cannot be used, without any secret; the other fields
	// then hold what could be read.
	Err error

	// Expires is the end of the key's validity period, or of its device's if that
	// comes before: from then on nobody may use it. It is zero if the file says none,
	// and for one that is over already and was read all the same.
	Expires time.Time

	expired bool
}

// wipe clears what of k is secret.
func (k *Key) wipe() {
	clear(k.Secret)
	clear(k.PrivateID[:])
}

// element is a key and the properties that it shares with others (KeyProperties
// in some drafts; nil otherwise).
type element struct{ own, common *node }

// one answers the key's own child with a name in RFC 6030's namespace, or else
// the common one.
func (e element) one(local string) (*node, error) {
	n, err := e.own.one(local, nsPSKC)
	if n == nil && err == nil {
		n, err = e.common.one(local, nsPSKC)
	}
	return n, err
}

// attr is node.attr, of the key or else of the common properties.
func (e element) attr(locals ...string) string {
	if v := e.own.attr(locals...); v != "" {
		return v
	}
	return e.common.attr(locals...)
}

// errPIN is no error: the key is a PIN, which is left out.
var errPIN = errors.New("this is a PIN that belongs to another key, not a token")

// judge reads one key of a package into r.key. An error that is fatal is for
// the file, any other for this key.
func (r *Reader) judge(pack, n *node) error {
	k := &r.key
	*k = Key{Secret: k.Secret[:0]}
	info, err := pack.one("DeviceInfo", nsPSKC)
	if err != nil {
		return err
	}
	if info == nil {
		if info, err = pack.one("DeviceId", nsPSKC); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		to    *string
		local string
	}{{&k.Serial, "SerialNo"}, {&k.Manufacturer, "Manufacturer"}, {&k.Model, "Model"}} {
		if *f.to, err = info.value(f.local); err != nil {
			return err
		}
	}
	if n == nil {
		return errors.New("the key package has no key in it")
	}
	key := element{own: n}
	k.ID = n.attr("Id", "KeyId", "SecretId")
	if k.Serial == "" {
		k.Serial = k.ID
	}
	if ref := n.attr("KeyPropertiesId", "KeyProperties"); ref != "" {
		if key.common = r.common[ref]; key.common == nil {
			return fmt.Errorf("it refers to KeyProperties %s, which are not in the file", quoted(ref))
		}
	}
	if err := k.algorithm(key); err != nil {
		return err
	}
	if err := k.owner(info, key); err != nil {
		return err
	}
	if err := r.valid(info, "the device"); err != nil {
		return err
	}
	if err := r.policy(key); err != nil {
		return err
	}
	return r.data(key)
}

// Where the drafts and products have the names of algorithms, before the bare
// name; in lower case.
var algorithmSpaces = []string{
	nsPSKC + ":1.0:", nsPSKC + ":1.0#", nsPSKC + ":", nsPSKC + "#", "http://www.ietf.org/keyprov/pskc#",
	"http://www.openauthentication.org/oath/2006/08/pskc#", "http://www.openauthentication.org/oath/2006/10/pskc#",
	"http://www.yubico.com/#",
}

// algorithm reads what the key computes: its profile, hash and form of code.
func (k *Key) algorithm(key element) error {
	uri := key.attr("Algorithm", "KeyAlgorithm", "SecretAlgorithm")
	name := strings.ToLower(uri)
	for _, space := range algorithmSpaces {
		if rest, ok := strings.CutPrefix(name, space); ok {
			name = rest
			break
		}
	}
	switch name {
	case HOTP, TOTP, YubiKeyAES:
		k.Algorithm = name
	case "pin":
		return errPIN
	case "":
		return errors.New("the key names no algorithm")
	default:
		return fmt.Errorf("the key is for %s, which is neither HOTP nor TOTP", quoted(uri))
	}
	params, err := key.one("AlgorithmParameters")
	if err != nil {
		return err
	}
	usage, err := key.one("Usage")
	if err != nil {
		return err
	}
	if k.Suite, err = suite(key.own, params, usage); err != nil {
		return err
	}
	for _, n := range []*node{params, usage} {
		format, err := n.one("ResponseFormat", nsPSKC)
		if err != nil {
			return err
		}
		if format == nil || k.Algorithm == YubiKeyAES {
			continue
		}
		if err := k.format(format); err != nil {
			return err
		}
	}
	return nil
}

// format reads a ResponseFormat.
func (k *Key) format(n *node) (err error) {
	if e := n.attr("Encoding", "Format", "format"); e != "" && !strings.EqualFold(e, "DECIMAL") {
		return fmt.Errorf("its codes are %s, not decimal digits", quoted(e))
	}
	switch n.attr("CheckDigits", "CheckDigit") {
	case "", "false", "0":
	default:
		return errors.New("its codes have a check digit, which cannot be verified")
	}
	if length := n.attr("Length", "length"); length != "" {
		if k.Digits, err = strconv.Atoi(length); err != nil || k.Digits < 1 {
			return errors.New("the length of its codes is not a number")
		}
	}
	return nil
}

// suite finds what names the hash: the Suite element of RFC 6030, or the
// attribute that some products have for it, on one of three elements. What else
// may change the codes is refused, so that no other hash is taken for SHA-1.
func suite(key, params, usage *node) (string, error) {
	var found []string
	add := func(s string) {
		if s = strings.TrimSpace(s); !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	for _, n := range []*node{key, params, usage} {
		if n == nil {
			continue
		}
		for _, a := range n.attrs {
			switch {
			case a.Name.Space != "":
			case strings.EqualFold(a.Name.Local, "Suite"), strings.EqualFold(a.Name.Local, "AlgorithmSuite"):
				add(a.Value)
			case n == params && a.Name.Local != "xmlns":
				return "", fmt.Errorf("its algorithm has the parameter %s, which is not understood", quoted(a.Name.Local))
			}
		}
		if n == key {
			continue
		}
		for _, k := range n.kids {
			switch {
			case k.is("Suite", nsPSKC):
				text, err := k.content()
				if err != nil {
					return "", err
				}
				if text == "" {
					text = k.attr("Algorithm", "Name", "Value")
				}
				add(text)
			case k.is("ResponseFormat", nsPSKC), k.is("ChallengeFormat", nsPSKC), k.is("Extensions", nsPSKC):
			case n == usage && k.is("AppProfileId", nsPSKC):
			default:
				return "", fmt.Errorf("its algorithm has the parameter %s, which is not understood", quoted(k.name.Local))
			}
		}
	}
	switch {
	case len(found) > 1:
		return "", errors.New("the key names two suites")
	case len(found) == 1 && found[0] == "":
		return "", errors.New("the key has a suite, but without a name; which hash it uses is not known")
	case len(found) == 1:
		return found[0], nil
	}
	return "", nil
}

// owner reads the UserId of the key or else of the device. YubiKeys have their
// identities there.
func (k *Key) owner(info *node, key element) error {
	n, err := key.one("UserId")
	if err != nil {
		return err
	}
	if n == nil {
		if n, err = info.one("UserId", nsPSKC); n == nil || err != nil {
			return k.yubiKey(nil)
		}
	}
	if k.Algorithm == YubiKeyAES {
		return k.yubiKey(n)
	}
	text, err := n.content()
	if err != nil {
		return err
	}
	if k.User = userOf(text); k.User == "" {
		if n, err = info.one("UserId", nsPSKC); n == nil || err != nil {
			return err
		}
		if text, err = n.content(); err != nil {
			return err
		}
		k.User = userOf(text)
	}
	return nil
}

// yubiKey reads CN=public id, UID=private id, the latter in hex.
func (k *Key) yubiKey(n *node) error {
	if k.Algorithm != YubiKeyAES {
		return nil
	}
	const what = "the key is for a YubiKey, but its UserId is not CN=public id, UID=private id"
	if n == nil || len(n.kids) > 0 {
		return errors.New(what)
	}
	var public, private []byte
	for _, part := range bytes.Split(n.text, []byte(",")) {
		name, value, _ := bytes.Cut(part, []byte("="))
		switch strings.ToUpper(string(bytes.TrimSpace(name))) {
		case "CN":
			public = bytes.TrimSpace(value)
		case "UID":
			private = bytes.TrimSpace(value)
		}
	}
	if len(private) != 2*len(k.PrivateID) || len(public) > 32 {
		return errors.New(what)
	}
	if _, err := hex.Decode(k.PrivateID[:], private); err != nil {
		clear(k.PrivateID[:])
		return errors.New(what)
	}
	k.PublicID = string(public)
	return nil
}
