package tokens

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"watchword/tokens/policy"
)

// gate holds the verdict on an attempt against the policies of the installation, where
// there are any on attempts: which group the user is in, with which token, through
// which gateway, from where and when. What they forbid is rejected like anything else,
// and leaves the code as it was: it is not used up, and no failure is counted.
//
// It looks at each attempt, whatever the verdict is, so that a right code that is
// forbidden costs what a wrong one does. A policy that cannot be read or evaluated lets
// nobody in.
func (e *engine) gate(ctx context.Context, t *trial, v *verdict) {
	action := policy.Verify
	if t.pin != nil {
		action = policy.UserPINChange
	}
	set, err := e.s.gatekeepers()
	if err == nil && !set.Verifies() {
		return
	}
	var d policy.Decision
	if err == nil {
		d, err = e.asks(ctx, set, action, t, v)
	}
	switch {
	case v.err != nil: // there is no verdict anyway
	case err != nil:
		*v = verdict{reason: ReasonUnavailable, err: unavailable(err), counted: v.counted}
	case !d.Allow && v.accept:
		*v = verdict{reason: ReasonForbidden, token: v.token}
	}
	if err == nil {
		t.policy = determining(&d)
	}
}

// gatekeepers are the policies that attempts are held against: the live ones, whoever
// asks.
func (s *Service) gatekeepers() (*policy.Set, error) {
	live := s.reg.Load().policies
	if live.fault != nil {
		return nil, fmt.Errorf("%w: the installation's policies cannot be read: look at /readyz", ErrUnavailable)
	}
	return live.set, nil
}

// asks is the question whether an attempt may be let in with the token that it showed;
// where it showed none, with any of the user's.
func (e *engine) asks(ctx context.Context, set *policy.Set, action policy.Action, t *trial, v *verdict) (policy.Decision, error) {
	now, p := e.s.cfg.Now(), t.principal
	if p.Kind == KindAdmin && t.signing != nil {
		// Who renews a session proves who they are, as when they signed in; what their
		// roles let them do to others has nothing to do with it.
		p = SignInPrincipal(p.Source)
	}
	q := policy.Query{Principal: p.asks(), Action: action, Context: e.s.context(p, now)}
	q.Context.NAS, q.Context.Caller = t.nas, t.caller
	q.Resource = policy.Resource{Type: policy.User, Realm: t.ref.Realm, User: t.ref.User}
	token := v.token
	if t.subject != nil && t.subject.User != nil {
		q.Resource.User = t.subject.User.Key // a passkey names none
		if token == nil && len(t.subject.Tokens) > 0 {
			token = &t.subject.Tokens[0]
		}
	}
	if token == nil {
		token = &e.s.decoy
	}
	q.Resource.Type = policy.Token
	token.describe(&q.Resource, now)
	if set.Groups() {
		groups, err := e.groupsOf(ctx, &t.ref, t.subject)
		if err != nil {
			return policy.Decision{}, err
		}
		q.Resource.Groups = groups
	}
	return set.Decide(&q), nil
}

// heldGroups are the groups of a user at a version. They change with it only, unless
// somebody edits them by hand.
type heldGroups struct {
	version int64
	groups  []string
}

const (
	// maxHeldGroups bounds of how many users the groups are remembered, and of how many
	// names that are no user's.
	maxHeldGroups = 1 << 16
	// holdGroups is how long they are: what somebody edited by hand shows by then.
	holdGroups = time.Minute
)

// groupsOf answers the groups of a subject's user, as of the version that the attempt is
// decided on. Who is no user has none, and costs a reading as often as a user does.
func (e *engine) groupsOf(ctx context.Context, ref *Ref, sub *Subject) ([]string, error) {
	if time.Since(e.held) >= holdGroups || len(e.groups) >= maxHeldGroups || len(e.nobody) >= maxHeldGroups {
		e.held, e.groups, e.nobody = time.Now(), map[int64]heldGroups{}, map[Ref]bool{}
	}
	if sub == nil || sub.User == nil {
		if e.nobody[*ref] {
			return nil, nil
		}
		_, err := e.s.db.Groups(ctx, 0)
		e.nobody[*ref] = err == nil
		return nil, err
	}
	id := sub.User.ID
	if held, ok := e.groups[id]; ok && held.version == sub.Version {
		return held.groups, nil
	}
	groups, err := e.s.db.Groups(ctx, id)
	if err != nil {
		return nil, err
	}
	e.groups[id] = heldGroups{sub.Version, groups}
	return groups, nil
}

// moved takes over the versions that a batch left: attempts change no groups.
func (e *engine) moved(writes []*write) {
	if len(e.groups) == 0 {
		return
	}
	for _, w := range writes {
		if held, ok := e.groups[w.subject.User.ID]; ok && held.version == w.expect {
			held.version = w.standing.Version
			e.groups[w.subject.User.ID] = held
		}
	}
}

// Origin says where an attempt came from, beside the principal that asks.
type Origin struct {
	NAS    string     // NAS-Identifier, or the name of the application; may be empty
	Caller netip.Addr // where the person is, as the gateway or the application says; invalid if unknown
}

// maxNAS bounds the name of a gateway or an application.
const maxNAS = 253

// origin takes what is known of where an attempt came from.
func (x *pending) origin(o Origin) {
	if len(o.NAS) <= maxNAS {
		x.nas = fileName(o.NAS)
	}
	if o.Caller.IsValid() {
		x.caller = o.Caller.Unmap().WithZone("")
	}
}
