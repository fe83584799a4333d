package tokens

import (
	"context"
	"errors"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// act is one thing that is done to a token: perform does it, and rehearse says what
// it would do. Both run the same decide.
type act struct {
	action policy.Action
	event  audit.Event // realm and serial, and what else the audit is told
	refs   []Ref       // what decide is given; the token's first

	// decide looks at what was loaded and fills in the rest of the deed. It may run
	// several times, and changes nothing by itself. Of its change nothing is made if
	// it fails, unless with ErrWrongCode: that is counted.
	decide func(ctx context.Context, d *deed) error
}

// deed is an act while it is decided, and what became of it.
type deed struct {
	principal Principal
	found     []*Subject    // parallel to the act's refs
	change    *Change       // what is to be written
	event     *audit.Event  // its record
	beside    []audit.Event // records of what it does to other tokens, in the same commit
	token     Token         // as the act leaves it
	ended     []string      // serials of the temporary passcodes that it ends
}

// unchanged notes that what is asked for is so already.
func (d *deed) unchanged(t *Token) {
	d.event.Reason, d.token = string(ReasonUnchanged), *t
}

// same says whether the act changed nothing.
func (d *deed) same() bool { return d.event.Reason == string(ReasonUnchanged) }

// note adds to the act's record. The fields that were there belong to the act and
// are copied: it may be decided again.
func (d *deed) note(list ...audit.Field) {
	had := d.event.Detail
	d.event.Detail = append(had[:len(had):len(had)], list...)
}

// moves notes from which state to which a token went.
func (d *deed) moves(from, to State) {
	d.note(audit.Field{Name: "from", Value: string(from)}, audit.Field{Name: "to", Value: string(to)})
}

// perform authorises an act and does it, with its records. The deed's token has
// what listings have, too.
func (s *Service) perform(ctx context.Context, p Principal, a act) (deed, error) {
	d, err := s.enact(ctx, p, a)
	if err == nil {
		s.listing(ctx, &d.token)
		d.token.Ended = d.ended
	}
	return d, err
}

// enact is perform for whom the token itself does not interest.
func (s *Service) enact(ctx context.Context, p Principal, a act) (deed, error) {
	var d deed
	err := s.changes(ctx, p, a.action, a.event, a.refs, func(found []*Subject, c *Change, e *audit.Event) ([]audit.Event, error) {
		d = deed{principal: p, found: found, change: c, event: e}
		err := a.decide(ctx, &d)
		if err != nil && !errors.Is(err, ErrWrongCode) {
			*c = Change{} // it may be half of one
		}
		return d.beside, err
	})
	if err != nil {
		return deed{}, err
	}
	return d, nil
}

// rehearse decides an act that was authorised, and writes nothing.
func (s *Service) rehearse(ctx context.Context, p Principal, a act) (deed, error) {
	view, err := s.current(ctx, p, a.refs)
	if err != nil {
		return deed{}, err
	}
	e := s.event(p, a.action, a.event)
	d := deed{principal: p, found: view.Subjects, change: &Change{}, event: &e}
	err = a.decide(ctx, &d)
	return d, err
}

// listing fills in what only listings have. The act is done: where that cannot be
// read any more, the answer goes without.
func (s *Service) listing(ctx context.Context, t *Token) {
	list, _, err := s.db.Tokens(ctx, TokenQuery{Realm: t.Realm, Serial: t.Serial, Limit: 1})
	if err != nil || len(list) == 0 || list[0].ID != t.ID {
		return
	}
	t.listed(&list[0])
}

// listed takes over what only listings have.
func (t *Token) listed(as *Token) {
	t.Hint, t.Note, t.Tags, t.Assigned = as.Hint, as.Note, as.Tags, as.Assigned
}

// revoked is the token's last form: it is nobody's, and nothing that makes or
// proves codes is left of it.
func (t *Token) revoked() Token {
	next := *t
	next.State, next.Owner, next.OwnerID = Revoked, "", 0
	next.Wrapped = hsm.Wrapped{Mechanism: t.Wrapped.Mechanism, KEK: t.Wrapped.KEK, Hash: t.Wrapped.Hash}
	next.Passcodes = nil
	return next
}

// rebindOff is rebind for what turns a token off: that must work on an altered row
// too. Its binding stays wrong then, so that nothing turns the token on again.
func (s *Service) rebindOff(ctx context.Context, t *Token, pinMAC []byte, next *Token, nextPIN []byte) (tampered bool, err error) {
	err = s.rebind(ctx, t, pinMAC, next, nextPIN)
	if !isTampered(err) || !off(next.State) {
		return false, err
	}
	next.Binding = t.Binding
	if next.State == Revoked {
		next.Binding = nil
	}
	return true, nil
}

// endTemporary revokes the temporary passcodes of a user, who has a token again
// that works. It adds to the change, which holds the user's StandingWrite, and to
// the records.
func (s *Service) endTemporary(ctx context.Context, sub *Subject, d *deed, why string) error {
	had := len(d.change.Tokens)
	if err := s.endPasscodes(ctx, sub, d, Temporary, why); err != nil {
		return err
	}
	for i := range d.change.Tokens[had:] {
		d.ended = append(d.ended, d.change.Tokens[had+i].Token.Serial)
	}
	return nil
}

// endPasscodes does the same with one kind of passcodes, but for those that the
// change writes anyway.
func (s *Service) endPasscodes(ctx context.Context, sub *Subject, d *deed, kind Type, why string) error {
	for i := range sub.Tokens {
		t := &sub.Tokens[i]
		if t.Type != kind || t.State == Revoked || d.change.writes(t.ID) {
			continue
		}
		if err := s.revokeBeside(ctx, sub, t, d, why); err != nil {
			return err
		}
	}
	return nil
}

// revokeBeside adds to the change of a deed, which holds the user's StandingWrite, that
// one of the user's other tokens is revoked, and the record of it.
func (s *Service) revokeBeside(ctx context.Context, sub *Subject, t *Token, d *deed, why string) error {
	next := t.revoked()
	tampered, err := s.rebindOff(ctx, t, sub.User.PINMAC, &next, nil)
	if err != nil {
		return err
	}
	d.change.Tokens = append(d.change.Tokens, TokenWrite{Token: next, Expect: t.Version})
	e := s.event(d.principal, policy.TokenRevoke, audit.Event{Realm: t.Realm, User: sub.User.Key, Serial: t.Serial, Detail: []audit.Field{
		{Name: "reason", Value: why}, {Name: "from", Value: string(t.State)}, {Name: "to", Value: string(next.State)},
	}})
	if tampered {
		e.Reason = string(ReasonTampered)
	}
	d.beside = append(d.beside, e)
	return nil
}
