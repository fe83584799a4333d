package tokens

import (
	"bytes"
	"context"
	"crypto/hmac"
	"fmt"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// ReasonPINSame: all was right, but the new PIN is the one that the user has.
const ReasonPINSame Reason = "pin_same"

// errPINSame is what whoever knew PIN and code is told.
var errPINSame = fmt.Errorf("%w: the new PIN is the one that is to be changed; choose another one", ErrInvalid)

// ChangePIN replaces a user's PIN on the user's own behalf: a.Code is the PIN that
// the user has, followed by a code, as for Verify. If Verify would accept it, but
// for a PIN that is due, the code is used up, the PIN replaced and no longer due,
// in one commit: at most once for a code, whatever happens. Otherwise it is
// rejected, counted, throttled and audited as Verify would, at the same cost; so is
// a user who has no PIN. Errors are those of Verify, and ErrInvalid for a new PIN
// that breaks the rules of the realm, which is found before anything is looked at,
// or that is the old one, which only who knows that and a code is told.
//
// Whoever does not hear the answer and asks again is rejected, since the code was
// used and the PIN is another one; Verify with the new PIN tells which. A PIN that
// was forgotten is for the helpdesk to set.
//
// It is for applications that have asked their user for both, so with a key of scope
// verify, which knows whom it may try codes for; and not for the helpdesk, who has
// no business with a user's code and has SetPIN.
func (s *Service) ChangePIN(ctx context.Context, p Principal, a Attempt, newPIN string) (Result, error) {
	realm, err := p.realm(a.Realm)
	if a.User == "" || a.Code == "" || err != nil {
		return Result{}, s.malformed(ctx, p, realm, a.User, a.Transport, "a user and a code are needed", err)
	}
	x := s.attempt(p, realm, a)
	e := audit.Event{Realm: realm, User: x.ref.User}
	if err := s.allow(ctx, p, policy.UserPINChange, &e, nil); err != nil { // the engine looks at p again
		return Result{}, err
	}
	x.policy = e.Policy
	rules, err := s.rulesOf(ctx, realm)
	if err != nil {
		return Result{}, err
	}
	if err := rules.PIN.check(newPIN, x.ref.User); err != nil {
		return Result{}, err
	}
	x.pin = &pinChange{pin: newPIN}
	got, err := s.await(ctx, x)
	return got.result, err
}

// pinChange is what an attempt does beside if it is accepted.
type pinChange struct{ pin string }

// rekeyed is a user with another PIN.
type rekeyed struct {
	user   User
	tokens []TokenWrite // all of the user's, bound to it
}

// judgePIN is decide for an attempt that is to change the PIN: one that is due
// stands in no way, but there must be one.
func (t *trial) judgePIN() verdict {
	user := *t.user
	user.PINDue = false
	v := decide(&user, t.bar, t.cands)
	if v.accept && !user.HasPIN() {
		return verdict{reason: ReasonNoPIN, token: v.token, counted: true}
	}
	return v
}

// changePIN makes what is written beside for an attempt that is to change the PIN
// and would be accepted, and the state that the next one on the same user is judged
// on. Where it cannot, the verdict is no accept.
func (s *Service) changePIN(ctx context.Context, t *trial, v *verdict, pin string) {
	next := *t.subject.User
	next.PINDue = false
	same, err := s.samePIN(ctx, t.subject.User, pin)
	if err == nil && !same {
		err = s.newPIN(ctx, &next, pin)
	}
	switch {
	case same:
		*v = verdict{reason: ReasonPINSame, token: v.token}
	case err != nil:
		*v = verdict{reason: ReasonUnavailable, err: unavailable(err)}
	default:
		s.rekey(ctx, t, v, &next)
	}
}

// rekey binds the user's tokens to the PIN that the user has next.
func (s *Service) rekey(ctx context.Context, t *trial, v *verdict, user *User) {
	next := &rekeyed{user: *user}
	var tampered *Token
	var err error
	next.tokens, tampered, err = s.bindAll(ctx, t.subject, user.PINMAC)
	switch {
	case err != nil:
		*v = verdict{reason: ReasonUnavailable, err: unavailable(err)}
	case tampered != nil:
		*v = verdict{reason: ReasonTampered, token: tampered}
	default:
		v.rekeyed = next
	}
}

// samePIN says whether a PIN is the one that the user has.
func (s *Service) samePIN(ctx context.Context, u *User, pin string) (bool, error) {
	mac, err := s.pinMAC(ctx, u, pin)
	return err == nil && hmac.Equal(mac, u.PINMAC), err
}

// bindAll binds all of a user's tokens to another PIN MAC, in two calls to the HSM,
// or answers the first whose row was altered, which is never bound anew.
func (s *Service) bindAll(ctx context.Context, sub *Subject, pinMAC []byte) (list []TokenWrite, tampered *Token, err error) {
	if len(sub.Tokens) == 0 {
		return nil, nil, nil
	}
	messages := make([][]byte, len(sub.Tokens))
	list = make([]TokenWrite, len(sub.Tokens))
	next := make([]*Token, len(sub.Tokens))
	for i := range sub.Tokens {
		t := &sub.Tokens[i]
		messages[i] = t.Sealed(sub.User.PINMAC).Message()
		list[i] = TokenWrite{Token: *t, Expect: t.Version}
		next[i] = &list[i].Token
	}
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, messages...)
	if err != nil {
		return nil, nil, translate(err)
	}
	for i := range sub.Tokens {
		if !hmac.Equal(macs[i], sub.Tokens[i].Binding) {
			return nil, &sub.Tokens[i], nil
		}
	}
	return list, nil, s.bind(ctx, next, pinMAC)
}

// rebound takes over what changePIN made, into the change and into the state.
func (s *Service) rebound(w *write, this *judged, t *trial, v *verdict, now time.Time) {
	w.user = &v.rekeyed.user
	t.subject.User = &v.rekeyed.user // not in its place: what Recall answered is others', too
	for _, b := range v.rekeyed.tokens {
		w.put(b)
		for i := range t.subject.Tokens {
			if o := &t.subject.Tokens[i]; o.ID == b.Token.ID {
				o.Binding = bytes.Clone(b.Token.Binding)
			}
		}
	}
	e := s.event(t.principal, policy.UserPINChange, audit.Event{
		Realm: t.ref.Realm, User: t.ref.User, Serial: v.token.Serial,
		Detail: []audit.Field{{Name: "pin", Value: "changed"}, {Name: "transport", Value: t.transport}}, Policy: t.policy,
	})
	e.Time = now
	this.beside = &e
}

// put adds a token to the change, or replaces what is in it of the same one.
func (w *write) put(t TokenWrite) {
	for i := range w.tokens {
		if o := &w.tokens[i]; o.Token.ID == t.Token.ID {
			o.Token = t.Token
			return
		}
	}
	w.tokens = append(w.tokens, t)
}
