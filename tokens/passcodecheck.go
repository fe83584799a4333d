package tokens

import (
	"context"
	"crypto/hmac"
	"crypto/subtle"

	"watchword/hsm"
)

// passcode is what was typed, held against one Recovery or Temporary token.
type passcode struct {
	factor uint64 // Recovery: which code of the sheet, from 0; Temporary: how often it was used before
	right  bool   // it is the token's
}

// asPasscode adds to the candidates of a trial what is held against what ends like a
// passcode: of the user's recovery sheets and temporary passcodes each, or else a
// decoy. Everybody costs the same then: two MACs for the sheet and two for the
// temporary one, and two more for the PIN if something was typed before it. Who has
// two sheets costs more, but that nobody has: a new one ends the old.
func (s *Service) asPasscode(t *trial) {
	if len(t.code) < passChars {
		return
	}
	if _, _, ok := splitPasscode(t.code); !ok {
		return
	}
	for i := range s.decoyPass {
		decoy, found := &s.decoyPass[i], false
		if t.subject != nil {
			for k := range t.subject.Tokens {
				if x := &t.subject.Tokens[k]; x.Type == decoy.Type {
					t.cands, found = append(t.cands, candidate{token: x, pass: &passcode{}}), true
				}
			}
		}
		if !found {
			t.cands = append(t.cands, candidate{token: decoy, pass: &passcode{}, decoy: true})
		}
	}
}

// passBatch proves what was typed as passcodes in a batch.
type passBatch struct {
	asked    []*candidate
	messages [][]byte // of the passcode
	rows     [][]byte // of the token's binding
}

func (b *passBatch) add(c *candidate, userID int64, p *passText, pinMAC []byte) {
	b.asked = append(b.asked, c)
	b.messages = append(b.messages, passcodeMessage(userID, c.token.Serial, p))
	b.rows = append(b.rows, c.token.Sealed(pinMAC).Message())
}

// run judges all of them. Each costs one MAC of the passcode and one of the row,
// whatever was typed.
func (b *passBatch) run(ctx context.Context, custody Custody) {
	if len(b.asked) == 0 {
		return
	}
	codes, err := custody.MAC(ctx, hsm.KeyPIN, b.messages...)
	for _, m := range b.messages {
		clear(m)
	}
	var rows [][]byte
	if err == nil {
		rows, err = custody.MAC(ctx, hsm.KeyBinding, b.rows...)
	}
	for i, c := range b.asked {
		switch {
		case c.err != nil: // the PIN's MAC could not be computed
		case err != nil:
			c.err = translate(err)
		case !hmac.Equal(rows[i], c.token.Binding) || c.token.Valid() != nil:
			c.err = hsm.ErrTampered
		default:
			c.pass.judge(c.token, codes[i])
		}
	}
}

// judge finds a passcode's MAC among the token's. It looks at all of them.
func (p *passcode) judge(t *Token, mac []byte) {
	at := -1
	for i, known := range t.Passcodes {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(mac, known), i, at)
	}
	if p.right = at >= 0; !p.right {
		return
	}
	p.factor = uint64(at)
	if t.Type == Temporary {
		p.factor = uint64(t.Last)
	}
}
