package tokens

import (
	"bytes"
	"context"
	"crypto/hmac"
	"fmt"
	"io"
	"time"

	"watchword/hsm"
)

// ReasonPINDiffers: a new PIN was typed twice, and not the same.
const ReasonPINDiffers Reason = "pin_differs"

// maxNewPINs is how often another new PIN is asked for in one dialogue.
const maxNewPINs = 3

// pinDue asks for a new PIN where PIN and code were right, and nothing but the age of
// the PIN was wrong. The code is used up by that: the accept that may follow is the only
// one that it earns.
func (e *engine) pinDue(ctx context.Context, t *trial) {
	v := &t.v
	if v.reason != ReasonPINDue || v.accept || v.err != nil || t.turn.mute || t.choosesPIN() || !t.talk.may(DialogueNewPIN) || t.subject == nil || t.bar != "" ||
		!v.token.fresh(v.factor) {
		return
	}
	due := *v
	due.accept, due.still = true, true
	if e.letsChange(ctx, t, &due); !due.accept {
		*v = due
		return
	}
	*v = verdict{reason: ReasonPINDue, token: v.token, factor: v.factor, opens: true, joined: v.joined, asks: &question{
		ask:   QuestionNewPIN,
		state: dialogueState{kind: stateNewPIN, token: v.token.ID},
	}}
}

// letsChange holds a verdict that is an accept, and another PIN, against the policies.
// Where they do not let it, it is none.
func (e *engine) letsChange(ctx context.Context, t *trial, v *verdict) {
	if e.gate(ctx, t, v); !v.accept {
		return
	}
	switch ok, err := e.mayChangePIN(ctx, t, v); {
	case err != nil:
		*v = verdict{reason: ReasonUnavailable, err: unavailable(err)}
	case !ok:
		*v = verdict{reason: ReasonForbidden, token: v.token}
	}
}

// choosesPIN says whether the attempt is the answer to a question for a new PIN: no
// code is held against it.
func (t *trial) choosesPIN() bool {
	return t.turn.answers(stateNewPIN) || t.turn.answers(stateAgain)
}

// dueToken is the token whose code opened the dialogue for a new PIN, if the dialogue may
// still go on, and else why not: the PIN is another one by now, or no longer due, or the
// token is of no use any more.
func (t *trial) dueToken(now time.Time) (*Token, Reason) {
	said := &t.turn.said
	switch {
	case t.bar != "":
		return nil, t.bar
	case t.subject == nil || !t.user.mustChangePIN() || said.pin != pinDigest(t.user):
		return nil, ReasonDialogueSpent
	}
	for i := range t.subject.Tokens {
		x := &t.subject.Tokens[i]
		if x.ID != said.token {
			continue
		}
		c := candidate{token: x, expired: x.expired(now)}
		if _, idle := c.useless(); idle != "" {
			return x, idle
		}
		if x.State == Active {
			return x, ""
		}
	}
	return nil, ReasonNoToken
}

// choosePIN takes a new PIN: once, and once more. The second time, if it is the same, the
// PIN is replaced and the attempt accepted. No PIN is in a State: the MAC of it is, with
// its salt.
func (e *engine) choosePIN(ctx context.Context, t *trial, now time.Time) {
	s, v, said := e.s, &t.v, &t.turn.said
	if !t.choosesPIN() || v.err != nil {
		return
	}
	token, why := t.dueToken(now)
	if why != "" {
		*v = verdict{reason: why, token: token}
		return
	}
	next := *t.user
	next.PINDue = false
	bad, err := s.holdPIN(ctx, &next, t)
	ask := func(q Question, d dialogueState) {
		d.token = token.ID
		*v = verdict{reason: ReasonPINDue, token: token, asks: &question{ask: q, state: d}}
	}
	switch {
	case err != nil:
		*v = verdict{reason: ReasonUnavailable, err: unavailable(err)}
		return
	case bad == "" && said.kind == stateNewPIN:
		d := dialogueState{kind: stateAgain, tries: said.tries}
		copy(d.salt[:], next.PINSalt)
		copy(d.mac[:], next.PINMAC)
		ask(QuestionNewPINAgain, d)
		return
	}
	switch again := (dialogueState{kind: stateNewPIN, tries: said.tries + 1}); {
	case bad != "" && again.tries > maxNewPINs:
		*v = verdict{reason: bad, token: token}
	case bad == ReasonPINDiffers:
		ask(QuestionNewPIN, again)
	case bad != "":
		ask(QuestionBadPIN, again)
	default:
		*v = verdict{accept: true, still: true, reason: ReasonAccepted, token: token}
		if e.letsChange(ctx, t, v); v.accept {
			s.rekey(ctx, t, v, &next)
		}
	}
}

// holdPIN gives a user the PIN that was typed: with a new salt, or, the second time, with
// that of the State, and only if it is the same. It says why it cannot be, if so.
func (s *Service) holdPIN(ctx context.Context, next *User, t *trial) (bad Reason, err error) {
	said := &t.turn.said
	next.PINSalt = bytes.Clone(said.salt[:])
	if said.kind == stateNewPIN {
		if _, err := io.ReadFull(s.cfg.Rand, next.PINSalt); err != nil {
			return "", fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
		}
	}
	if next.PINMAC, err = s.pinMAC(ctx, next, t.code); err != nil {
		return "", err
	}
	if said.kind == stateAgain && !hmac.Equal(next.PINMAC, said.mac[:]) {
		return ReasonPINDiffers, nil
	}
	return s.badPIN(ctx, t.user, t.code)
}

// badPIN says why a PIN cannot be a user's next one, if so: the rules of the realm
// forbid it, or the user has it.
func (s *Service) badPIN(ctx context.Context, u *User, pin string) (Reason, error) {
	rules, err := s.rulesOf(ctx, u.Realm)
	if err != nil {
		return "", err
	}
	if rules.PIN.check(pin, u.Key) != nil {
		return ReasonRule, nil
	}
	same, err := s.samePIN(ctx, u, pin)
	if same {
		return ReasonPINSame, nil
	}
	return "", err
}

// pinMAC is the MAC of a PIN with the user's salt.
func (s *Service) pinMAC(ctx context.Context, u *User, pin string) ([]byte, error) {
	m := pinMessage(u, pin)
	macs, err := s.custody.MAC(ctx, hsm.KeyPIN, m)
	clear(m)
	if err != nil {
		return nil, translate(err)
	}
	return macs[0], nil
}
