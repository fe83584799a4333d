package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"
)

// findSlot finds the slot of the configured token.
func (k *Keystore) findSlot() (uint, error) {
	c := &k.config
	slots, err := k.m.p11.GetSlotList(true)
	if err != nil {
		return 0, opError("C_GetSlotList", err)
	}
	var found []uint
	var seen []string
	var failed error
	for _, s := range slots {
		if c.Slot != nil && *c.Slot != s {
			continue
		}
		info, err := k.m.p11.GetTokenInfo(s)
		if err != nil {
			// Another slot's token may be broken without harm.
			failed = opError("C_GetTokenInfo", err)
			continue
		}
		// SoftHSM always offers one more slot, with an empty token to initialise.
		if info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 && c.Slot == nil && c.TokenLabel == "" && c.Serial == "" {
			continue
		}
		label := strings.TrimRight(info.Label, " \x00")
		serial := strings.TrimRight(info.SerialNumber, " \x00")
		seen = append(seen, fmt.Sprintf("%q", label))
		if c.TokenLabel != "" && c.TokenLabel != label || c.Serial != "" && c.Serial != serial {
			continue
		}
		found = append(found, s)
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return 0, fmt.Errorf("%d tokens of PKCS#11 module %s fit: set the serial number", len(found), k.m.path)
	}
	what := c.TokenLabel
	if what == "" {
		what = c.Serial
	}
	err = fmt.Errorf("PKCS#11 module %s has %w %q; it has %s", k.m.path, errNoToken, what, strings.Join(append(seen, "no other"), ", "))
	return 0, errors.Join(err, failed)
}

var errNoToken = errors.New("no token")

// Token says which token a Keystore uses, and how, for logs and for people.
type Token struct {
	Module       string // the library's path
	Label        string
	Serial       string
	Manufacturer string
	Model        string
	Slot         uint
	Wrapping     uint   // the number of the mechanism that wraps seeds
	WrappingName string // its name in hsm.Wrapped
}

// Token asks the HSM about itself.
func (k *Keystore) Token(ctx context.Context) (Token, error) {
	g := k.gen.Load()
	if g == nil {
		return Token{}, k.why()
	}
	var token Token
	_, err := k.do(ctx, g, func(c conn, g *generation) error {
		info, err := c.m.p11.GetTokenInfo(g.slot)
		if err != nil {
			return opError("C_GetTokenInfo", err)
		}
		token = Token{
			Module:       k.m.path,
			Label:        strings.TrimRight(info.Label, " \x00"),
			Serial:       strings.TrimRight(info.SerialNumber, " \x00"),
			Manufacturer: strings.TrimRight(info.ManufacturerID, " \x00"),
			Model:        strings.TrimRight(info.Model, " \x00"),
			Slot:         g.slot,
			Wrapping:     g.profile.wrap,
			WrappingName: g.profile.wrapName,
		}
		return nil
	})
	if err != nil {
		return Token{}, err
	}
	return token, nil
}
