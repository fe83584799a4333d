package store

import (
	"watchword/tokens"
)

// passcodeSize is the length of a passcode's MAC. They are stored one after
// another.
const passcodeSize = 32

// checkPasscodes refuses passcodes that would not come back as they are, or are
// not the token's to have.
func checkPasscodes(t *tokens.Token) error {
	if (len(t.Passcodes) > 0 || t.Uses != 0) && t.Type != tokens.Recovery && t.Type != tokens.Temporary {
		return refused("token %q of type %s has passcodes", t.Serial, t.Type)
	}
	for _, mac := range t.Passcodes {
		if len(mac) != passcodeSize {
			return refused("a passcode of token %q is not a MAC of %d bytes", t.Serial, passcodeSize)
		}
	}
	return nil
}

// encodePasscodes is what is stored of a token's passcodes: nothing once it is
// revoked.
func encodePasscodes(t *tokens.Token) any {
	if len(t.Passcodes) == 0 || t.State == tokens.Revoked {
		return nil
	}
	b := make([]byte, 0, len(t.Passcodes)*passcodeSize)
	for _, mac := range t.Passcodes {
		b = append(b, mac...)
	}
	return b
}

// passcodes are a token's. Damaged ones are none: the token's binding tells that
// the row was altered, and it is no other token's concern.
func (f *fields) passcodes() [][]byte {
	b := f.bytes()
	if len(b) == 0 || len(b)%passcodeSize != 0 {
		return nil
	}
	list := make([][]byte, 0, len(b)/passcodeSize)
	for ; len(b) > 0; b = b[passcodeSize:] {
		list = append(list, b[:passcodeSize:passcodeSize])
	}
	return list
}
