package tokens

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// What begins the serials of passcodes; 16 hex digits follow.
const (
	recoveryPrefix  = "R-"
	temporaryPrefix = "T-"
)

// fieldNumber names the detail that says which code of a recovery sheet was used, or
// which use of a temporary passcode it was, from 1.
const fieldNumber = "number"

// TemporaryRequest says how long a temporary passcode is good, and how often. What
// is zero is as the realm's rules say, which are also the most.
type TemporaryRequest struct {
	Valid time.Duration // a minute at least
	Uses  int
}

// minTemporary is the shortest time for which a temporary passcode is good.
const minTemporary = time.Minute

// within fills in what is left to the rules, or says what they do not allow.
func (r TemporaryRequest) within(rules TemporaryRules) (TemporaryRequest, error) {
	if !rules.Allow {
		return r, saying(sayNoRelief, &ruled{fmt.Errorf("%w: the realm's rules allow no temporary passcodes (temporary.allow)", ErrState), "temporary.allow"})
	}
	if r.Valid == 0 {
		r.Valid = rules.Valid
	}
	if r.Uses == 0 {
		r.Uses = rules.Uses
	}
	switch {
	case r.Valid < minTemporary || r.Valid > rules.Valid:
		err := fmt.Errorf("%w: a temporary passcode is good for a minute to %d hours here", ErrInvalid, int64(rules.Valid/time.Hour))
		if r.Valid > rules.Valid {
			err = &ruled{err, "temporary.valid_hours"}
		}
		return r, err
	case r.Uses < 1 || r.Uses > rules.Uses:
		err := fmt.Errorf("%w: a temporary passcode is good for 1 to %d uses here", ErrInvalid, rules.Uses)
		if r.Uses > rules.Uses {
			err = &ruled{err, "temporary.uses"}
		}
		return r, err
	}
	return r, nil
}

// IssueRecovery makes a recovery sheet for a user: as many codes as the realm's rules
// say, each accepted once in the place of any other code, after the user's PIN if
// there is one. A sheet that the user had is revoked by it. The codes, as
// xxxx-xxxx-xxxx, are answered this once: what is stored is a MAC of each. The caller
// wipes them.
func (s *Service) IssueRecovery(ctx context.Context, p Principal, realm, user string) (Token, [][]byte, error) {
	realm, key, err := p.names(realm, user)
	if err != nil {
		return Token{}, nil, err
	}
	w := draft{kind: Recovery}
	defer w.wipe()
	made, err := s.perform(ctx, p, act{
		action: policy.RecoveryAdd, event: audit.Event{Realm: realm, User: key}, refs: []Ref{{Realm: realm, User: key}},
		decide: func(ctx context.Context, d *deed) error {
			sub := d.found[0]
			if sub == nil {
				return noUser(realm, user)
			}
			rules, err := s.rulesOf(ctx, realm)
			if err != nil {
				return err
			}
			if !rules.Recovery.Allow {
				return saying(sayNoSheet, &ruled{fmt.Errorf("%w: the realm's rules allow no recovery codes (recovery.allow)", ErrState), "recovery.allow"})
			}
			t, err := s.issue(ctx, sub, d, &w, rules.Recovery.Codes, nil)
			if err != nil {
				return err
			}
			d.token, d.event.Serial = *t, t.Serial
			d.note(audit.Field{Name: "codes", Value: itoa(int64(len(t.Passcodes)))})
			return nil
		},
	})
	if err != nil {
		return Token{}, nil, err
	}
	codes := make([][]byte, len(w.texts))
	for i := range w.texts {
		codes[i] = w.texts[i].shown()
	}
	return made.token, codes, nil
}

// IssueTemporary makes a temporary passcode for a user who has no token at hand. It
// is accepted in the place of any other code, after the user's PIN if there is one,
// as often and as long as was asked for. One that the user had is revoked by it. The
// code, as xxxx-xxxx-xxxx, is answered this once: what is stored is its MAC. The
// caller wipes it.
func (s *Service) IssueTemporary(ctx context.Context, p Principal, realm, user string, r TemporaryRequest) (Token, []byte, error) {
	realm, key, err := p.names(realm, user)
	if err != nil {
		return Token{}, nil, err
	}
	w := draft{kind: Temporary}
	defer w.wipe()
	made, err := s.perform(ctx, p, act{
		action: policy.TemporaryAdd, event: audit.Event{Realm: realm, User: key}, refs: []Ref{{Realm: realm, User: key}},
		decide: func(ctx context.Context, d *deed) error {
			sub := d.found[0]
			if sub == nil {
				return noUser(realm, user)
			}
			t, err := s.issueTemporary(ctx, sub, d, &w, r)
			if err != nil {
				return err
			}
			d.token, d.event.Serial = *t, t.Serial
			d.note(t.terms()...)
			return nil
		},
	})
	if err != nil {
		return Token{}, nil, err
	}
	return made.token, w.texts[0].shown(), nil
}

// Lose turns a token off because nobody knows who has it, and with t makes a
// temporary passcode for its owner in the same moment: both are done, or neither. No
// code of the token is accepted after Lose has returned. Asked again, it makes
// another passcode.
func (s *Service) Lose(ctx context.Context, p Principal, realm, serial, reason string, t *TemporaryRequest) (Token, *Token, []byte, error) {
	if t == nil {
		lost, err := s.move(ctx, p, policy.TokenLost, realm, serial, reason, lose)
		return lost, nil, nil, err
	}
	realm, err := p.token(realm, serial)
	if err != nil {
		return Token{}, nil, nil, err
	}
	if err := validReason(reason); err != nil {
		return Token{}, nil, nil, err
	}
	e := audit.Event{Realm: realm, Serial: serial}
	if err := s.authorise(ctx, p, policy.TemporaryAdd, &e); err != nil {
		return Token{}, nil, nil, err
	}
	w := draft{kind: Temporary, policy: e.Policy}
	defer w.wipe()
	var temporary *Token
	losing := s.moving(policy.TokenLost, realm, serial, reason, lose)
	both := losing
	both.decide = func(ctx context.Context, d *deed) error {
		if err := losing.decide(ctx, d); err != nil {
			return err
		}
		if err := s.standIn(ctx, d, &w, *t, &temporary); err != nil {
			*d.change = Change{} // neither is done
			return unrelieved(err)
		}
		return nil
	}
	made, err := s.perform(ctx, p, both)
	if err != nil {
		return Token{}, nil, nil, err
	}
	return made.token, temporary, w.texts[0].shown(), nil
}

// unrelieved is why no temporary passcode can be made, told to whoever wanted to mark a
// token as lost with it, and must not take that for done.
func unrelieved(err error) error {
	if errors.Is(err, ErrState) || errors.Is(err, ErrInvalid) {
		return saying(sayBlockOnly, fmt.Errorf("%w; so the token was not marked lost either: do it without a temporary passcode", err))
	}
	return err
}

// standIn adds to the deed that loses a token that its owner gets a temporary passcode.
func (s *Service) standIn(ctx context.Context, d *deed, w *draft, r TemporaryRequest, temporary **Token) error {
	sub := d.found[0]
	if sub.User == nil {
		return fmt.Errorf("%w: token %s belongs to nobody who could get a temporary passcode", ErrState, d.token.Serial)
	}
	if d.token.Type == Temporary {
		return fmt.Errorf("%w: token %s is a temporary passcode itself: make another one, which ends this", ErrState, d.token.Serial)
	}
	t, err := s.issueTemporary(ctx, sub, d, w, r)
	if err != nil {
		return err
	}
	d.beside = append(d.beside, s.event(d.principal, policy.TemporaryAdd, audit.Event{
		Realm: t.Realm, User: t.Owner, Serial: t.Serial, Policy: w.policy, Detail: t.terms(),
	}))
	*temporary = t
	return nil
}

// draft is a passcode token while it is made. Its codes are made once, also where
// the user is changed meanwhile.
type draft struct {
	kind   Type
	serial string
	policy string // what let it be made, as in audit.Event
	texts  []passText
	macs   [][]byte
}

func (w *draft) wipe() { clear(w.texts) }

// make fills in the serial, so many codes and their MACs, unless they are there.
func (w *draft) make(ctx context.Context, s *Service, userID int64, n int) error {
	if len(w.macs) == n {
		return nil
	}
	id := make([]byte, 8)
	if _, err := io.ReadFull(s.cfg.Rand, id); err != nil {
		return fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	prefix := recoveryPrefix
	if w.kind == Temporary {
		prefix = temporaryPrefix
	}
	w.serial = prefix + hex.EncodeToString(id)
	w.wipe()
	w.texts, w.macs = make([]passText, n), nil
	if err := newPasscodes(s.cfg.Rand, w.texts); err != nil {
		return err
	}
	messages := make([][]byte, n)
	for i := range w.texts {
		messages[i] = passcodeMessage(userID, w.serial, &w.texts[i])
	}
	macs, err := s.custody.MAC(ctx, hsm.KeyPIN, messages...)
	for _, m := range messages {
		clear(m)
	}
	if err != nil {
		return translate(err)
	}
	w.macs = macs
	return nil
}

// issueTemporary adds a temporary passcode of sub's to a deed.
func (s *Service) issueTemporary(ctx context.Context, sub *Subject, d *deed, w *draft, r TemporaryRequest) (*Token, error) {
	rules, err := s.rulesOf(ctx, sub.User.Realm)
	if err != nil {
		return nil, err
	}
	if r, err = r.within(rules.Temporary); err != nil {
		return nil, err
	}
	return s.issue(ctx, sub, d, w, 1, func(t *Token) {
		t.Uses, t.Expires = r.Uses, t.Created.Add(r.Valid).Truncate(time.Microsecond)
	})
}

// terms are what the audit says of a temporary passcode that was made.
func (t *Token) terms() []audit.Field {
	return []audit.Field{{Name: "uses", Value: itoa(int64(t.Uses))}, {Name: "expires", Value: expiryText(t.Expires)}}
}

// issue adds a passcode token of sub's to a deed, which takes the place of those of
// its kind that the user has.
func (s *Service) issue(ctx context.Context, sub *Subject, d *deed, w *draft, n int, edit func(*Token)) (*Token, error) {
	if sub.User.State != UserEnabled {
		return nil, saying(sayDisabled, fmt.Errorf("%w: user %s is disabled", ErrState, sub.User.Name))
	}
	if err := w.make(ctx, s, sub.User.ID, n); err != nil {
		return nil, err
	}
	if err := s.endPasscodes(ctx, sub, d, w.kind, "replaced by "+w.serial); err != nil {
		return nil, err
	}
	at := s.cfg.Now().UTC().Truncate(time.Microsecond) // as databases keep it
	t := &Token{
		Realm: sub.User.Realm, Serial: w.serial, Type: w.kind, State: Active, OwnerID: sub.User.ID, Owner: sub.User.Key,
		Model: passcodeModels[w.kind], Created: at, Assigned: at, Passcodes: w.macs, Motion: Motion{Version: 1},
	}
	if edit != nil {
		edit(t)
	}
	if err := s.bind(ctx, []*Token{t}, sub.User.PINMAC); err != nil {
		return nil, err
	}
	d.change.NewTokens = append(d.change.NewTokens, t)
	if len(d.change.Standings) == 0 {
		d.change.Standings = []StandingWrite{sub.touch()}
	}
	return t, nil
}

// passcodeModels is what listings show for a passcode's model.
var passcodeModels = map[Type]string{Recovery: "recovery codes", Temporary: "temporary passcode"}

// writes says whether the change has a TokenWrite for a token.
func (c *Change) writes(tokenID int64) bool {
	return slices.ContainsFunc(c.Tokens, func(w TokenWrite) bool { return w.Token.ID == tokenID })
}
