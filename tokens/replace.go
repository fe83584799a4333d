package tokens

import (
	"context"
	"fmt"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// fieldBy names the detail that says by which token another was replaced.
const fieldBy = "by"

// Replace revokes a token and gives its owner another, imported one in its place, in
// one commit: there is no moment at which the owner has both or neither. The old one
// may be lost, suspended or broken; next is pending where the rules ask for two codes
// first, and then a temporary passcode of the owner's is good until it is activated,
// while otherwise it ends here, unless next has expired. Asking again for a replacement that was made answers
// the two tokens and changes nothing. It wraps ErrState where the old token is nobody's
// or was altered, or the new one is not to be given to its owner.
func (s *Service) Replace(ctx context.Context, p Principal, realm, serial, by, reason string) (old, next Token, err error) {
	realm, err = p.token(realm, serial)
	if err != nil {
		return Token{}, Token{}, err
	}
	if ValidSerial(by) != nil {
		return Token{}, Token{}, errNoToken
	}
	if by == serial {
		return Token{}, Token{}, fmt.Errorf("%w: token %s cannot replace itself", ErrInvalid, serial)
	}
	if err := validReason(reason); err != nil {
		return Token{}, Token{}, err
	}
	a := act{
		action: policy.TokenReplace,
		event:  audit.Event{Realm: realm, Serial: serial, Detail: []audit.Field{{Name: fieldBy, Value: by}}},
		refs:   []Ref{{Realm: realm, Serial: serial}, {Realm: realm, Serial: by}},
	}
	if reason != "" {
		a.event.Detail = append(a.event.Detail, audit.Field{Name: "reason", Value: reason})
	}
	a.decide = func(ctx context.Context, d *deed) (err error) {
		next, err = s.replace(ctx, d, realm, serial, by)
		return err
	}
	d, err := s.perform(ctx, p, a)
	if err != nil {
		return Token{}, Token{}, err
	}
	s.listing(ctx, &next)
	next.Ended = d.ended
	return d.token, next, nil
}

func (s *Service) replace(ctx context.Context, d *deed, realm, serial, by string) (Token, error) {
	owner, t, err := tokenOf(d.found[0], serial)
	if err != nil {
		return Token{}, err
	}
	if owner.User != nil {
		d.event.User = owner.User.Key
	}
	holder, spare, err := tokenOf(d.found[1], by)
	if err != nil {
		return Token{}, fmt.Errorf("%w: no token %s to replace it by", ErrNotFound, by)
	}
	switch {
	case t.State == Revoked:
		user, err := s.replaced(ctx, realm, serial, by)
		if err != nil {
			return Token{}, err
		}
		if user != "" && holder.User != nil && holder.User.Key == user {
			d.event.User = user
			d.unchanged(t)
			return *spare, nil
		}
		return Token{}, fmt.Errorf("%w: token %s is revoked, and nobody's: assign the other one", ErrState, serial)
	case owner.User == nil:
		return Token{}, fmt.Errorf("%w: token %s is %s, and nobody's: assign the other one", ErrState, serial, t.State)
	case t.passcode():
		return Token{}, fmt.Errorf("%w: token %s is a passcode: make another one, which ends this", ErrState, serial)
	case holder.User != nil:
		return Token{}, saying(sayTaken, fmt.Errorf("%w: token %s belongs to %s; unassign it first", ErrState, by, holder.User.Name))
	}
	rules, err := s.rulesOf(ctx, realm)
	if err != nil {
		return Token{}, err
	}
	next, err := s.handOver(ctx, spare, owner, &rules, d)
	if err != nil {
		return Token{}, err
	}
	// One that was altered is refused, and can be revoked by itself: whoever gives
	// another token in its place is to know.
	gone := t.revoked()
	if err := s.rebind(ctx, t, owner.User.PINMAC, &gone, nil); err != nil {
		return Token{}, err
	}
	d.change.Tokens = append(d.change.Tokens, TokenWrite{Token: gone, Expect: t.Version})
	d.change.Standings = []StandingWrite{owner.touch()}
	d.moves(t.State, gone.State)
	d.beside = append(d.beside, s.event(d.principal, policy.TokenAssign, audit.Event{
		Realm: realm, User: owner.User.Key, Serial: by,
		Detail: []audit.Field{{Name: "replaces", Value: serial}, {Name: "from", Value: string(spare.State)}, {Name: "to", Value: string(next.State)}},
	}))
	d.token = gone
	if next.State == Active && !next.expired(s.cfg.Now()) {
		return next, s.endTemporary(ctx, owner, d, "token "+serial+" was replaced")
	}
	return next, nil
}

// replaced answers whose token was replaced by another, as the audit says, or "".
func (s *Service) replaced(ctx context.Context, realm, serial, by string) (user string, err error) {
	q := RecordQuery{Realm: realm, Serial: serial, Action: string(policy.TokenReplace), Outcome: "ok", Limit: 100}
	for {
		list, next, err := s.db.Records(ctx, q)
		if err != nil {
			return "", unavailable(err)
		}
		for i := range list {
			for _, f := range list[i].Detail {
				if f.Name == fieldBy && f.Value == by && list[i].Reason != string(ReasonUnchanged) {
					return list[i].User, nil
				}
			}
		}
		if next == 0 {
			return "", nil
		}
		q.Before = next
	}
}
