package tokens

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
)

// A passcode is a code that is written down: one of a recovery sheet, or a temporary
// one in the place of a lost token. It is 12 characters of Crockford's base32, 60
// random bits, shown as xxxx-xxxx-xxxx. Who types it may leave the hyphens out, take
// spaces for them, use capitals, and take o for 0, and i and l for 1. Where the user
// has a PIN, it goes before the passcode as before any code.
//
// Passcodes have at least one letter, and at least one character that is no digit of
// modhex. So neither a PIN and an OTP, where both are digits, nor a Yubico OTP ever
// ends like one, and costs what passcodes cost. Other PINs and OTPs may: then what was
// typed is held against both.
//
// What is stored is the MAC of each, under KeyPIN. The token's row binds them, how
// many there are, and how often a temporary one is good. Which were used is motion
// and not bound, as the counters of other tokens are not: whoever can write to the
// database can clear it, and nothing but the audit shows that a code was accepted
// again; VerifyAudit looks for that.
const (
	passChars = 12
	passGroup = 4

	maxPasscodes = 32 // on a sheet: Motion.Last has a bit for each
	maxUses      = 100
)

// crockford are the digits 0 to 31.
const crockford = "0123456789abcdefghjkmnpqrstvwxyz"

// passForm is the character that each typed one stands for; zero for those that no
// passcode has.
var passForm = func() (form [256]byte) {
	for _, c := range []byte(crockford) {
		form[c] = c
		if c >= 'a' {
			form[c-'a'+'A'] = c
		}
	}
	for like, c := range map[byte]byte{'o': '0', 'O': '0', 'i': '1', 'I': '1', 'l': '1', 'L': '1'} {
		form[like] = c
	}
	return form
}()

// passKind says of a character what a passcode must have of: a letter, and what is
// no modhex, however it was typed.
var passKind = func() (kind [256]byte) {
	for _, c := range []byte(crockford) {
		if c >= 'a' {
			kind[c] |= passLetter
		}
		kind[c] |= passPlain
	}
	for _, c := range []byte(modhex) {
		kind[passForm[c]] &^= passPlain
	}
	return kind
}()

const (
	passLetter = 1 << iota
	passPlain  // not of modhex
)

// passText is a passcode without hyphens, in small letters.
type passText [passChars]byte

// sound says whether a text has what every passcode has.
func (p *passText) sound() bool {
	var kinds byte
	for _, c := range p {
		kinds |= passKind[c]
	}
	return kinds == passLetter|passPlain
}

// splitPasscode takes what was typed apart: a PIN, then a passcode. It says whether
// it ends like one.
func splitPasscode(typed string) (pin string, p passText, ok bool) {
	i := len(typed)
	if i < passChars {
		return "", p, false
	}
	between := false // one hyphen or space may stand between two characters
	for n := passChars; n > 0; {
		if i--; i < 0 {
			return "", p, false
		}
		switch c := passForm[typed[i]]; {
		case c != 0:
			n--
			p[n], between = c, true
		case between && (typed[i] == '-' || typed[i] == ' '):
			between = false
		default:
			return "", p, false
		}
	}
	return typed[:i], p, p.sound()
}

// shown is a passcode as people read it. The caller wipes it.
func (p *passText) shown() []byte {
	b := make([]byte, 0, passChars+passChars/passGroup-1)
	for i, c := range p {
		if i > 0 && i%passGroup == 0 {
			b = append(b, '-')
		}
		b = append(b, c)
	}
	return b
}

// newPasscodes fills list with passcodes, each another.
func newPasscodes(random io.Reader, list []passText) error {
	for i := range list {
		for tries := 0; ; tries++ {
			if tries == 100 {
				return fmt.Errorf("%w: the random bytes are none", ErrUnavailable)
			}
			p := &list[i]
			if _, err := io.ReadFull(random, p[:]); err != nil {
				return fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
			}
			for k := range p {
				p[k] = crockford[p[k]%32]
			}
			again := !p.sound()
			for k := range i {
				again = again || list[k] == *p
			}
			if !again {
				break
			}
		}
	}
	return nil
}

// passcodeMessage is what a passcode's MAC is computed over, under KeyPIN: whose it
// is and of which token, so that it can be moved nowhere, and the passcode.
func passcodeMessage(userID int64, serial string, p *passText) []byte {
	m := make([]byte, 0, 48+len(serial)+passChars)
	m = append(m, "watchword-passcode-1\x00"...)
	m = binary.BigEndian.AppendUint64(m, uint64(userID))
	m = binary.BigEndian.AppendUint32(m, uint32(len(serial)))
	m = append(m, serial...)
	return append(m, p[:]...)
}

// validPasscodes is Valid for a Recovery or Temporary token.
func (t *Token) validPasscodes() error {
	most := maxPasscodes
	if t.Type == Temporary {
		most = 1
	}
	n := len(t.Passcodes)
	switch {
	case t.Algorithm != 0 || t.Digits != 0 || t.Period != 0 || t.Drift != 0 || len(t.Wrapped.Blob) != 0 || t.Credential != nil:
		return fmt.Errorf("%w: a passcode has neither a seed nor what belongs to one", ErrInvalid)
	case n > most || n == 0 && t.State != Revoked || n != 0 && t.State == Revoked:
		return fmt.Errorf("%w: a %s token of %d codes", ErrInvalid, t.Type, n)
	case t.Type == Recovery && (t.Uses != 0 || t.Last < 0 || t.State != Revoked && t.Last>>n != 0):
		return fmt.Errorf("%w: what a sheet of recovery codes says of their use is out of range", ErrInvalid)
	case t.Type == Temporary && (t.Uses < 1 || t.Uses > maxUses || t.Last < 0 || t.Last > int64(t.Uses)):
		return fmt.Errorf("%w: how often a temporary passcode may be used, or was, is out of range", ErrInvalid)
	case t.Type == Temporary && t.Expires.IsZero():
		return fmt.Errorf("%w: a temporary passcode that never expires", ErrInvalid)
	}
	for _, mac := range t.Passcodes {
		if len(mac) != macSize {
			return fmt.Errorf("%w: the MAC of a passcode has %d bytes", ErrInvalid, len(mac))
		}
	}
	return nil
}

// macSize is the length of an HMAC-SHA256.
const macSize = 32

// Left is how many codes of a recovery sheet are not used yet, or how often a
// temporary passcode may still be used, if it has not expired; zero for any other
// token, and for one that is revoked.
func (t *Token) Left() int {
	switch {
	case t.State == Revoked:
		return 0
	case t.Type == Recovery:
		return max(len(t.Passcodes)-bits.OnesCount64(uint64(t.Last)), 0)
	case t.Type == Temporary:
		return int(max(int64(t.Uses)-t.Last, 0))
	}
	return 0
}
