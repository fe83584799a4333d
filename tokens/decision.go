package tokens

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// authorise is the first line of each use case but Verify: may p do this in
// this realm, now, to what e names? A refusal is audited; if it is none, e says which
// policies decided, and so does every record that is made of e. What nodes cache is
// brought up to date first, so that a key deleted on another node does nothing here.
func (s *Service) authorise(ctx context.Context, p Principal, action policy.Action, e *audit.Event) error {
	view, err := s.current(ctx, p, about(e))
	if err != nil {
		return err
	}
	return s.allow(ctx, p, action, e, view.Subjects)
}

// allow is authorise once p was looked at, and what e names was read: found holds it,
// if there is such a thing.
func (s *Service) allow(ctx context.Context, p Principal, action policy.Action, e *audit.Event, found []*Subject) error {
	if p.Kind == KindAdmin && found == nil { // who verifies: the engine looks at keys and clients, and at no sessions
		if _, err := s.current(ctx, p, nil); err != nil {
			return err
		}
	}
	d, err := s.decide(ctx, p, action, e, found)
	if err != nil {
		return err
	}
	e.Policy = determining(&d)
	if !d.Allow {
		return s.deny(ctx, p, action, *e, d)
	}
	if why := s.guarded(p, action, found); why != "" {
		return s.deny(ctx, p, action, *e, denial(why))
	}
	if s.unproven(p, action, found) {
		d := denial("the user has a role: what the user signs in with takes a token that was proved a moment ago")
		d.MFA = true
		return s.deny(ctx, p, action, *e, d)
	}
	if p.Kind == KindInvitation {
		return s.invites(ctx, p, action, *e)
	}
	return nil
}

// decide answers whether p may do something to what e names, and by which policies.
// It fails with ErrUnavailable where that cannot be said. Attempts to verify are
// decided by the built-in policies here: by the others where it is known whose they
// are, and of which token.
func (s *Service) decide(ctx context.Context, p Principal, action policy.Action, e *audit.Event, found []*Subject) (policy.Decision, error) {
	set, err := s.policies(p, action)
	if err != nil {
		return policy.Decision{}, err
	}
	now := s.cfg.Now()
	q := policy.Query{Principal: p.asks(), Action: action, Context: s.context(p, now)}
	var user int64
	if q.Resource, user = resource(e, found, now); set.Groups() {
		if q.Resource.Groups, err = s.groupsFor(ctx, &q.Resource, user); err != nil {
			return policy.Decision{}, err
		}
	}
	if p.plain() {
		// What policies permit to people is for those who signed in here, with two things.
		if d := policy.Builtin().Decide(&q); !d.Allow {
			return d, nil
		}
	}
	return set.Decide(&q), nil
}

// groupsFor answers the groups of a resource's user, whose ID may not be known. Of
// somebody whom there is not it asks, too.
func (s *Service) groupsFor(ctx context.Context, r *policy.Resource, id int64) ([]string, error) {
	if r.User == "" {
		return nil, nil
	}
	if id == 0 {
		view, err := s.db.Load(ctx, []Ref{{Realm: r.Realm, User: r.User}})
		if err != nil {
			return nil, unavailable(err)
		}
		if sub := view.Subjects[0]; sub != nil && sub.User != nil {
			id = sub.User.ID
		}
	}
	groups, err := s.db.Groups(ctx, id)
	if err != nil {
		return nil, unavailable(err)
	}
	return groups, nil
}

// determining is how the audit names the policies that decided.
func determining(d *policy.Decision) string {
	if len(d.Policies) == 1 {
		return d.Policies[0]
	}
	return strings.Join(d.Policies, ",")
}

// splitPolicies is the other way.
func splitPolicies(ids string) []string { return strings.Split(ids, ",") }

// kinds are what principals are to policies.
var kinds = map[PrincipalKind]policy.Kind{
	KindAdmin: policy.KindAdmin, KindKey: policy.KindKey, KindClient: policy.KindClient,
	KindInvitation: policy.KindInvitation, KindSystem: policy.KindSystem,
}

// serverID names the server itself to policies.
const serverID = "server"

var serverRoles = []policy.Role{policy.Superuser}

// asks is the principal as policies see it.
func (p Principal) asks() policy.Principal {
	q := policy.Principal{Kind: kinds[p.Kind], ID: p.ID, Realm: p.Realm, Roles: p.roles()}
	if p.Kind == KindSystem && p.Scope == policy.ScopeSystem {
		q.ID, q.Roles = serverID, serverRoles
	}
	return q
}

// The ways on which what is asked for comes here.
const (
	pathRADIUS  = "radius"
	pathHTTP    = "http"
	pathConsole = "console"
)

// trialTransport is what the transport of an attempt has behind its path in the audit,
// where an administrator made it in the place of a client: policies see no difference.
const trialTransport = "-test"

// context is what else is known of who asks.
func (s *Service) context(p Principal, now time.Time) policy.Context {
	c := policy.Context{Now: now.In(s.cfg.Location), Source: p.address(), Path: pathHTTP}
	switch {
	case p.Kind == KindClient:
		c.Path = pathRADIUS
	case p.Kind == KindInvitation || p.anybody():
		c.Path = pathConsole
	}
	// Another node may have noted it, whose clock is ahead of ours. But when a clock is
	// set back, what was proved before is not young again.
	if age := now.Sub(p.MFA); !p.MFA.IsZero() && age >= -clocksApart {
		c.MFA, c.MFAAge = true, max(age, 0)
	}
	return c
}

const (
	clocksApart = 30 * time.Second // more than two nodes' clocks are that verify codes
	youngProof  = 5 * time.Minute  // builtin.mfa says the same
)

// address is the network address that the principal came from, if it is known.
func (p Principal) address() netip.Addr {
	if at, err := netip.ParseAddrPort(p.Source); err == nil {
		return at.Addr().Unmap().WithZone("")
	}
	addr, err := netip.ParseAddr(p.Source)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// about is what is to be read for a decision about what e names.
func about(e *audit.Event) []Ref {
	switch {
	case e.Serial != "" && ValidSerial(e.Serial) == nil:
		list := []Ref{{Realm: e.Realm, Serial: e.Serial}}
		if e.User != "" {
			list = append(list, Ref{Realm: e.Realm, User: e.User}) // who is to get it
		}
		return list
	case e.User != "":
		return []Ref{{Realm: e.Realm, User: e.User}}
	}
	return nil
}

// covers says whether refs ask for all that list asks for.
func covers(refs, list []Ref) bool {
	for _, r := range list {
		if !slices.Contains(refs, r) {
			return false
		}
	}
	return true
}

// resource is what e names, as policies see it, and the ID of its user; zero if there
// is none. A token that has no owner belongs to whom it is to be given to.
func resource(e *audit.Event, found []*Subject, now time.Time) (r policy.Resource, owner int64) {
	r = policy.Resource{Type: policy.Installation, Realm: e.Realm, User: e.User, Serial: e.Serial}
	switch {
	case e.Serial != "":
		r.Type = policy.Token
		for _, sub := range found {
			if sub == nil {
				continue
			}
			for i := range sub.Tokens {
				if t := &sub.Tokens[i]; t.Serial == e.Serial && t.Realm == e.Realm {
					t.describe(&r, now)
					if sub.User != nil {
						r.User = sub.User.Key
						return r, sub.User.ID
					}
				}
			}
		}
	case e.User != "":
		r.Type = policy.User
	case e.Realm != "":
		r.Type = policy.Realm
	}
	for _, sub := range found {
		if sub != nil && sub.User != nil && sub.User.Realm == e.Realm && sub.User.Key == e.User {
			return r, sub.User.ID
		}
	}
	return r, 0
}

// describe says what policies may know of a token.
func (t *Token) describe(r *policy.Resource, now time.Time) {
	r.Serial, r.Kind, r.Model = t.Serial, string(t.Type), t.Model
	if c := t.Credential; c != nil {
		if c.AAGUID != [16]byte{} {
			r.AAGUID = FormatAAGUID(c.AAGUID)
		}
		switch c.Attestation {
		case "basic", "attca", "anonca":
			r.Attested = true
		}
	}
	used := t.Created
	if t.UsedAt != 0 {
		used = time.Unix(t.UsedAt, 0)
	}
	r.Unused = int64(max(now.Sub(used), 0) / (24 * time.Hour))
}

// deny writes the refusal to the audit and answers the error for the caller.
func (s *Service) deny(ctx context.Context, p Principal, action policy.Action, e audit.Event, d policy.Decision) error {
	e = s.event(p, action, e)
	e.Outcome, e.Policy = "denied", determining(&d) // and not those that permitted what the core does not
	e.Detail = append(e.Detail[:len(e.Detail):len(e.Detail)], audit.Field{Name: fieldWhy, Value: d.Reason})
	e.Reason = string(ReasonForbidden)
	if s.crowd.admit(&e, e.Time) {
		if err := s.ledger.commit(ctx, &Change{}, []audit.Event{e}); err != nil {
			return err
		}
	}
	if d.MFA {
		return fmt.Errorf("%w: %s (%s)", ErrMFARequired, action, d.Reason)
	}
	return fmt.Errorf("%w: %s needs another scope, role or realm (%s)", ErrForbidden, action, d.Reason)
}

// denial is a refusal for a reason that is no policy's.
func denial(why string) policy.Decision { return policy.Decision{Reason: why} }
