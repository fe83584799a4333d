package tokens

import (
	"context"
	"fmt"
	"strings"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Assign gives an imported token to a user; it is then active. A user holds
// at most MaxTokensPerUser. Assigning again to the same user changes nothing. A
// FIDO key can be assigned to the user only for whom it was enrolled.
func (s *Service) Assign(ctx context.Context, p Principal, realm, serial, user string) (Token, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return Token{}, err
	}
	key, err := FoldName(user)
	if err != nil {
		return Token{}, err
	}
	var out Token
	refs := []Ref{{Realm: realm, Serial: serial}, {Realm: realm, User: key}}
	err = s.change(ctx, p, policy.TokenAssign, audit.Event{Realm: realm, User: key, Serial: serial}, refs,
		func(found []*Subject, c *Change, e *audit.Event) error {
			sub, t, err := tokenOf(found[0], serial)
			if err != nil {
				return err
			}
			owner := found[1]
			switch {
			case owner == nil:
				return fmt.Errorf("%w: no user %q in realm %s; add the user first", ErrNotFound, key, realm)
			case sub.User != nil && sub.User.Key == key:
				e.Reason = string(ReasonUnchanged)
				out = *t
				return nil
			case sub.User != nil:
				return fmt.Errorf("%w: token %s belongs to %s; unassign it first", ErrState, serial, sub.User.Name)
			case t.State != Imported:
				return fmt.Errorf("%w: token %s is %s; only an imported token can be assigned", ErrState, serial, t.State)
			case t.Type == FIDO && (t.Credential == nil || t.Credential.UserID != owner.User.ID):
				return fmt.Errorf("%w: token %s is a key that was made for another user, and can be nobody else's; revoke it, and have %s enrol a key", ErrState, serial, owner.User.Name)
			case len(owner.Tokens) >= MaxTokensPerUser:
				return fmt.Errorf("%w: %s holds %d tokens already, the most a user can", ErrState, owner.User.Name, len(owner.Tokens))
			}
			next := *t
			next.State, next.Owner, next.OwnerID = Active, owner.User.Key, owner.User.ID
			if err := s.rebind(ctx, t, nil, &next, owner.User.PINMAC); err != nil {
				return err
			}
			c.Tokens = []TokenWrite{{Token: next, Expect: t.Version}}
			c.Standings = []StandingWrite{owner.touch()}
			out = next
			return nil
		})
	return out, err
}

// Unassign takes a token from its owner; it is then imported, and keeps its
// counter: what was consumed stays consumed. A software token, whose seed stays in
// its owner's telephone, cannot be taken back, and so not given to anybody else.
func (s *Service) Unassign(ctx context.Context, p Principal, realm, serial, reason string) (Token, error) {
	return s.move(ctx, p, policy.TokenUnassign, realm, serial, reason, func(t, next *Token) error {
		if t.State == Imported {
			return nil
		}
		if t.State == Revoked {
			return fmt.Errorf("%w: token %s is revoked, which is final", ErrState, t.Serial)
		}
		if t.soft() {
			return fmt.Errorf("%w: token %s is a software token, whose seed %s keeps; revoke it", ErrState, t.Serial, t.Owner)
		}
		next.State, next.Owner, next.OwnerID = Imported, "", 0
		return nil
	})
}

// Suspend turns an active token off until Resume.
func (s *Service) Suspend(ctx context.Context, p Principal, realm, serial, reason string) (Token, error) {
	return s.move(ctx, p, policy.TokenSuspend, realm, serial, reason, func(t, next *Token) error {
		if t.State != Active && t.State != Suspended {
			return fmt.Errorf("%w: token %s is %s; only an active token can be suspended", ErrState, t.Serial, t.State)
		}
		next.State = Suspended
		return nil
	})
}

// Resume turns a suspended token on again; a lost one, which was found, only
// with a reason.
func (s *Service) Resume(ctx context.Context, p Principal, realm, serial, reason string) (Token, error) {
	return s.move(ctx, p, policy.TokenResume, realm, serial, reason, func(t, next *Token) error {
		switch t.State {
		case Active, Suspended:
		case Lost:
			if strings.TrimSpace(reason) == "" {
				return fmt.Errorf("%w: token %s was lost; say in a reason how it came back", ErrInvalid, t.Serial)
			}
		default:
			return fmt.Errorf("%w: token %s is %s; only a suspended or lost token can be resumed", ErrState, t.Serial, t.State)
		}
		next.State = Active
		return nil
	})
}

// MarkLost turns a token off because nobody knows who has it. No code of it is
// accepted after MarkLost has returned.
func (s *Service) MarkLost(ctx context.Context, p Principal, realm, serial, reason string) (Token, error) {
	return s.move(ctx, p, policy.TokenLost, realm, serial, reason, func(t, next *Token) error {
		if t.State != Active && t.State != Suspended && t.State != Lost {
			return fmt.Errorf("%w: token %s is %s; only a token that somebody has can be lost", ErrState, t.Serial, t.State)
		}
		next.State = Lost
		return nil
	})
}

// Revoke ends a token for good: the wrapped seed is destroyed, the owner
// loses it.
func (s *Service) Revoke(ctx context.Context, p Principal, realm, serial, reason string) (Token, error) {
	return s.move(ctx, p, policy.TokenRevoke, realm, serial, reason, func(t, next *Token) error {
		next.State, next.Owner, next.OwnerID = Revoked, "", 0
		next.Wrapped = hsm.Wrapped{Mechanism: t.Wrapped.Mechanism, KEK: t.Wrapped.KEK, Hash: t.Wrapped.Hash}
		return nil
	})
}

// move takes a token from one state of its life to another. What is asked for
// again is answered with the token and changes nothing.
func (s *Service) move(ctx context.Context, p Principal, action policy.Action, realm, serial, reason string, step func(t, next *Token) error) (Token, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return Token{}, err
	}
	if len(reason) > 500 {
		return Token{}, fmt.Errorf("%w: the reason is longer than 500 bytes", ErrInvalid)
	}
	var out Token
	event := audit.Event{Realm: realm, Serial: serial}
	if reason != "" {
		event.Detail = []audit.Field{{Name: "reason", Value: reason}}
	}
	err = s.change(ctx, p, action, event, []Ref{{Realm: realm, Serial: serial}},
		func(found []*Subject, c *Change, e *audit.Event) error {
			sub, t, err := tokenOf(found[0], serial)
			if err != nil {
				return err
			}
			if sub.User != nil {
				e.User = sub.User.Key
			}
			next := *t
			if err := step(t, &next); err != nil {
				return err
			}
			if next.State == t.State {
				e.Reason = string(ReasonUnchanged)
				out = *t
				return nil
			}
			e.Detail = append(e.Detail[:len(e.Detail):len(e.Detail)], audit.Field{Name: "from", Value: string(t.State)}, audit.Field{Name: "to", Value: string(next.State)})
			var old, pin []byte
			if sub.User != nil {
				old = sub.User.PINMAC
				if next.OwnerID != 0 {
					pin = old
				}
			}
			switch err := s.rebind(ctx, t, old, &next, pin); {
			case err == nil:
			case isTampered(err) && off(next.State):
				// Turning it off must work on an altered row too. Its binding
				// stays wrong, so that nothing turns it on again.
				next.Binding = t.Binding
				if next.State == Revoked {
					next.Binding = nil
				}
				e.Reason = string(ReasonTampered)
			default:
				return err
			}
			c.Tokens = []TokenWrite{{Token: next, Expect: t.Version}}
			if sub.User != nil {
				c.Standings = []StandingWrite{sub.touch()}
			}
			out = next
			return nil
		})
	return out, err
}

// off says whether a token in this state is of no use to whoever holds it.
func off(st State) bool { return st == Suspended || st == Lost || st == Revoked }

// rebind proves that the token's row is as Watchword left it, and binds its
// next form.
func (s *Service) rebind(ctx context.Context, t *Token, pinMAC []byte, next *Token, nextPIN []byte) error {
	ok, err := s.intact(ctx, t, pinMAC)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: token %s; restore the row from a backup, or revoke the token", ErrTampered, t.Serial)
	}
	return s.bind(ctx, []*Token{next}, nextPIN)
}

// errNoToken also answers what cannot be a serial: a database might take it for
// an error.
var errNoToken = fmt.Errorf("%w: no token with this serial", ErrNotFound)

// tokenOf finds the token with a serial in what was loaded for it.
func tokenOf(sub *Subject, serial string) (*Subject, *Token, error) {
	if sub != nil {
		for i := range sub.Tokens {
			if sub.Tokens[i].Serial == serial {
				return sub, &sub.Tokens[i], nil
			}
		}
	}
	return nil, nil, errNoToken
}

// touch is the standing with the next version: every act on a user or on one
// of the user's tokens raises it.
func (s *Subject) touch() StandingWrite {
	next := s.Standing
	next.Version++
	return StandingWrite{UserID: s.User.ID, Expect: s.Version, Next: next}
}
