package tokens

import (
	"context"
	"fmt"
	"strings"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Assign gives an imported token to a user; it is then active, or, where the rules
// of the realm ask for two codes first, pending. A user holds at most as many tokens
// as the rules say. Assigning again to the same user changes nothing. A FIDO key that
// was enrolled for a user can be assigned only to that user, and is active at once: it
// showed then that it works. One of stock can be assigned to anybody, and is pending
// until its owner signs in with it for the first time.
//
// With a token that makes codes, and is active at once, the user has no more need of a
// temporary passcode: it ends, whatever token it stood in for. A FIDO key ends none: it
// is no use where codes are asked for.
func (s *Service) Assign(ctx context.Context, p Principal, realm, serial, user string) (Token, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return Token{}, err
	}
	key, err := FoldName(user)
	if err != nil {
		return Token{}, err
	}
	d, err := s.perform(ctx, p, act{
		action: policy.TokenAssign,
		event:  audit.Event{Realm: realm, User: key, Serial: serial},
		refs:   []Ref{{Realm: realm, Serial: serial}, {Realm: realm, User: key}},
		decide: func(ctx context.Context, d *deed) error {
			sub, t, err := tokenOf(d.found[0], serial)
			if err != nil {
				return err
			}
			owner := d.found[1]
			switch {
			case owner == nil:
				return saying(sayWho, fmt.Errorf("%w: no user %q in realm %s; add the user first", ErrNotFound, key, realm))
			case sub.User != nil && sub.User.Key == key:
				d.unchanged(t)
				return nil
			case sub.User != nil:
				return saying(sayTaken, fmt.Errorf("%w: token %s belongs to %s; unassign it first", ErrState, serial, sub.User.Name))
			}
			rules, err := s.rulesOf(ctx, realm)
			if err != nil {
				return err
			}
			if err := owner.mayHold(&rules, 1); err != nil {
				return err
			}
			next, err := s.handOver(ctx, t, owner, &rules, d)
			if err != nil {
				return err
			}
			d.change.Standings = []StandingWrite{owner.touch()}
			d.token = next
			if next.State == Active && next.showsCodes() && !next.expired(s.cfg.Now()) {
				return s.endTemporary(ctx, owner, d, "token "+serial+" was assigned")
			}
			return nil
		},
	})
	return d.token, err
}

// handOver adds to the change of a deed that an imported token becomes a user's. The
// change holds the user's StandingWrite.
func (s *Service) handOver(ctx context.Context, t *Token, owner *Subject, rules *Rules, d *deed) (Token, error) {
	switch {
	case t.State != Imported:
		return Token{}, fmt.Errorf("%w: token %s is %s; only an imported token can be assigned", ErrState, t.Serial, t.State)
	case t.Type == FIDO && !t.Credential.stock() && (t.Credential == nil || t.Credential.UserID != owner.User.ID):
		return Token{}, fmt.Errorf("%w: token %s is a key that was made for another user, and can be nobody else's; revoke it, and have %s enrol a key", ErrState, t.Serial, owner.User.Name)
	}
	next := *t
	next.State, next.Owner, next.OwnerID = rules.Activation.state(t), owner.User.Key, owner.User.ID
	if err := s.rebind(ctx, t, nil, &next, owner.User.PINMAC); err != nil {
		return Token{}, err
	}
	now := s.cfg.Now().UTC().Truncate(time.Microsecond) // as databases keep it
	d.change.Tokens = append(d.change.Tokens, TokenWrite{Token: next, Expect: t.Version, Assigned: &now})
	next.Assigned = now
	return next, nil
}

// state is that of a token which just got an owner.
func (a Activation) state(t *Token) State {
	switch {
	case t.Type == FIDO && t.Credential.stock():
		return Pending // until its owner shows it
	case a == ActivateByCode && t.Type != FIDO:
		return Pending
	}
	return Active
}

// counted is how many of a user's tokens count for the most that a user can hold:
// passcodes do not.
func (s *Subject) counted() int {
	n := 0
	for i := range s.Tokens {
		if !s.Tokens[i].passcode() {
			n++
		}
	}
	return n
}

// mayHold says why a user can hold no n tokens more, or nil.
func (s *Subject) mayHold(rules *Rules, n int) error {
	if held := s.counted(); held+n > rules.MaxTokens {
		return saying(sayFull, &ruled{fmt.Errorf("%w: %s holds %d tokens already, the most a user can", ErrState, s.User.Name, held), "max_tokens"})
	}
	return nil
}

// passcode says whether a token is one that is written down.
func (t *Token) passcode() bool { return t.Type == Recovery || t.Type == Temporary }

// Unassign takes a token from its owner; it is then imported, and keeps its
// counter: what was consumed stays consumed. The next owner inherits nothing else,
// and Drift and UsedAt say nothing of the one before. A software token, whose seed
// stays in its owner's telephone, cannot be taken back, and so not given to anybody
// else; nor can what was written down for its owner.
func (s *Service) Unassign(ctx context.Context, p Principal, realm, serial, reason string) (Token, error) {
	return s.move(ctx, p, policy.TokenUnassign, realm, serial, reason, takeBack)
}

func takeBack(t, next *Token, _ string) error {
	switch {
	case t.State == Imported:
		return nil
	case t.State == Revoked:
		return saying(sayEnded, fmt.Errorf("%w: token %s is revoked, which is final", ErrState, t.Serial))
	case t.soft():
		return saying(sayAlone, fmt.Errorf("%w: token %s is a software token, whose seed %s keeps; revoke it", ErrState, t.Serial, t.Owner))
	case t.passcode():
		return saying(sayAlone, fmt.Errorf("%w: token %s is a passcode, which %s knows; revoke it", ErrState, t.Serial, t.Owner))
	}
	next.State, next.Owner, next.OwnerID = Imported, "", 0
	next.Motion = t.forgotten()
	return nil
}

// farthest is the largest drift, in time steps, that is taken for one of a clock:
// months. A token that is farther off counts its steps from another year than 1970,
// which its import said, and does so whoever holds it.
const farthest = 500_000

// forgotten is the token's motion when its owner no longer holds it. What was
// consumed stays consumed.
func (t *Token) forgotten() Motion {
	m := t.Motion
	if t.Valid() != nil { // altered: it is good for nothing, and stays as it is
		return m
	}
	m.UsedAt = 0
	if distance(m.Drift, 0) <= farthest {
		m.Drift = 0
	}
	return m
}

// Suspend turns an active token off until Resume.
func (s *Service) Suspend(ctx context.Context, p Principal, realm, serial, reason string) (Token, error) {
	return s.move(ctx, p, policy.TokenSuspend, realm, serial, reason, suspend)
}

func suspend(t, next *Token, _ string) error {
	if t.State != Active && t.State != Suspended {
		return fmt.Errorf("%w: token %s is %s; only an active token can be suspended", ErrState, t.Serial, t.State)
	}
	next.State = Suspended
	return nil
}

// Resume turns a suspended token on again; a lost one, which was found, only
// with a reason. A temporary passcode of its owner ends.
func (s *Service) Resume(ctx context.Context, p Principal, realm, serial, reason string) (Token, error) {
	return s.move(ctx, p, policy.TokenResume, realm, serial, reason, resume)
}

func resume(t, next *Token, reason string) error {
	switch t.State {
	case Active, Suspended:
	case Lost:
		if t.passcode() {
			return fmt.Errorf("%w: token %s is a passcode that was lost, which somebody may have copied; make another one", ErrState, t.Serial)
		}
		if strings.TrimSpace(reason) == "" {
			return saying(sayHow, fmt.Errorf("%w: token %s was lost; say in a reason how it came back", ErrInvalid, t.Serial))
		}
	case Revoked:
		return saying(sayEnded, fmt.Errorf("%w: token %s is revoked, which is final", ErrState, t.Serial))
	case Pending:
		if t.waits() {
			return saying(saySignIn, fmt.Errorf("%w: token %s is a key that waits for its owner to sign in with it", ErrState, t.Serial))
		}
		return saying(sayCodes, fmt.Errorf("%w: token %s waits for two codes: activate it with them", ErrState, t.Serial))
	default:
		return fmt.Errorf("%w: token %s is %s; only a suspended or lost token can be resumed", ErrState, t.Serial, t.State)
	}
	next.State = Active
	return nil
}

// MarkLost turns a token off because nobody knows who has it. No code of it is
// accepted after MarkLost has returned.
func (s *Service) MarkLost(ctx context.Context, p Principal, realm, serial, reason string) (Token, error) {
	t, _, _, err := s.Lose(ctx, p, realm, serial, reason, nil)
	return t, err
}

func lose(t, next *Token, _ string) error {
	if t.State != Active && t.State != Suspended && t.State != Lost {
		return fmt.Errorf("%w: token %s is %s; only a token that somebody has can be lost", ErrState, t.Serial, t.State)
	}
	next.State = Lost
	return nil
}

// Revoke ends a token for good: the wrapped seed and the MACs of passcodes are
// destroyed, the owner loses it. Its note and tags stay.
func (s *Service) Revoke(ctx context.Context, p Principal, realm, serial, reason string) (Token, error) {
	return s.move(ctx, p, policy.TokenRevoke, realm, serial, reason, revoke)
}

func revoke(t, next *Token, _ string) error {
	*next = t.revoked()
	return nil
}

// turn takes a token from one state of its life to another, or says why not. What
// is so already it leaves.
type turn func(t, next *Token, reason string) error

// move takes a token from one state of its life to another. What is asked for
// again is answered with the token and changes nothing.
func (s *Service) move(ctx context.Context, p Principal, action policy.Action, realm, serial, reason string, take turn) (Token, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return Token{}, err
	}
	if err := validReason(reason); err != nil {
		return Token{}, err
	}
	d, err := s.perform(ctx, p, s.moving(action, realm, serial, reason, take))
	return d.token, err
}

func validReason(reason string) error {
	if len(reason) > 500 {
		return fmt.Errorf("%w: the reason is longer than 500 bytes", ErrInvalid)
	}
	return nil
}

// moving is the act of move.
func (s *Service) moving(action policy.Action, realm, serial, reason string, take turn) act {
	a := act{action: action, event: audit.Event{Realm: realm, Serial: serial}, refs: []Ref{{Realm: realm, Serial: serial}}}
	if reason != "" {
		a.event.Detail = []audit.Field{{Name: "reason", Value: reason}}
	}
	a.decide = func(ctx context.Context, d *deed) error {
		sub, t, err := tokenOf(d.found[0], serial)
		if err != nil {
			return err
		}
		if sub.User != nil {
			d.event.User = sub.User.Key
		}
		next := *t
		if err := take(t, &next, reason); err != nil {
			return err
		}
		if next.State == t.State {
			d.unchanged(t)
			return nil
		}
		d.moves(t.State, next.State)
		return s.moved(ctx, sub, t, &next, d)
	}
	return a
}

// moved adds to the change of a deed that a token moves on.
func (s *Service) moved(ctx context.Context, sub *Subject, t, next *Token, d *deed) error {
	var old, pin []byte
	if sub.User != nil {
		old = sub.User.PINMAC
		if next.OwnerID != 0 {
			pin = old
		}
	}
	tampered, err := s.rebindOff(ctx, t, old, next, pin)
	if err != nil {
		return err
	}
	if tampered {
		d.event.Reason = string(ReasonTampered)
	}
	w := TokenWrite{Expect: t.Version}
	if next.State == Imported {
		w.Assigned = &time.Time{}
	}
	if next.Motion != t.Motion {
		d.change.Motions = append(d.change.Motions, MotionWrite{TokenID: t.ID, UserID: t.OwnerID, Last: next.Last, Drift: next.Drift, UsedAt: next.UsedAt})
	}
	w.Token = *next
	d.change.Tokens = append(d.change.Tokens, w)
	if sub.User != nil {
		d.change.Standings = []StandingWrite{sub.touch()}
	}
	d.token = *next
	if next.State == Active && sub.User != nil && !next.passcode() && !next.expired(s.cfg.Now()) {
		return s.endTemporary(ctx, sub, d, "token "+t.Serial+" works again")
	}
	return nil
}

// SetExpiry says when a token expires: from then on nothing of it is accepted. Zero
// is never. A time that has passed ends it now; SetExpiry can take it back, and a
// temporary passcode of its owner ends then. Such a passcode keeps the time that it was
// made with itself.
func (s *Service) SetExpiry(ctx context.Context, p Principal, realm, serial string, at time.Time) (Token, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return Token{}, err
	}
	if at, err = expiry(at); err != nil {
		return Token{}, err
	}
	d, err := s.perform(ctx, p, s.expiring(realm, serial, at))
	return d.token, err
}

// expiry is a time as a token has it: in UTC, and as exact as databases keep it.
func expiry(at time.Time) (time.Time, error) {
	if at.IsZero() {
		return time.Time{}, nil
	}
	at = at.UTC().Truncate(time.Microsecond)
	if at.UnixMicro() <= 0 || at.Year() > 9999 {
		return time.Time{}, fmt.Errorf("%w: a token can expire from 1970 to 9999", ErrInvalid)
	}
	return at, nil
}

// expired says whether a token has expired at a moment.
func (t *Token) expired(now time.Time) bool { return !t.Expires.IsZero() && !now.Before(t.Expires) }

// expiring is the act of SetExpiry.
func (s *Service) expiring(realm, serial string, at time.Time) act {
	return act{
		action: policy.TokenExpire,
		event:  audit.Event{Realm: realm, Serial: serial},
		refs:   []Ref{{Realm: realm, Serial: serial}},
		decide: func(ctx context.Context, d *deed) error {
			sub, t, err := tokenOf(d.found[0], serial)
			if err != nil {
				return err
			}
			var pin []byte
			if sub.User != nil {
				d.event.User, pin = sub.User.Key, sub.User.PINMAC
			}
			switch {
			case t.State == Revoked:
				return saying(sayEnded, fmt.Errorf("%w: token %s is revoked, which is final", ErrState, serial))
			case t.Type == Temporary:
				return fmt.Errorf("%w: token %s is a temporary passcode, which ends when it was made to; make another one", ErrState, serial)
			case t.Expires.Equal(at):
				d.unchanged(t)
				return nil
			}
			d.note(audit.Field{Name: "from", Value: expiryText(t.Expires)}, audit.Field{Name: "to", Value: expiryText(at)})
			next := *t
			next.Expires = at
			if err := s.rebind(ctx, t, pin, &next, pin); err != nil {
				return err
			}
			d.change.Tokens = []TokenWrite{{Token: next, Expect: t.Version}}
			if sub.User != nil {
				d.change.Standings = []StandingWrite{sub.touch()}
			}
			d.token = next
			now := s.cfg.Now()
			if next.State == Active && sub.User != nil && !next.passcode() && t.expired(now) && !next.expired(now) {
				return s.endTemporary(ctx, sub, d, "token "+serial+" works again")
			}
			return nil
		},
	}
}

// expiryText is when a token expires, for the audit.
func expiryText(at time.Time) string {
	if at.IsZero() {
		return "never"
	}
	return at.UTC().Format(time.RFC3339)
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
