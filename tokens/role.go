package tokens

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// A person can do something here by a role, which a Grant gives: in one realm, or in
// all. Each grant's row is bound by a MAC, so that one that was made or changed in the
// database gives nothing; see honest.

// granted are the roles that people have, by who they are.
type granted map[Ref][]Grant

// of are the roles that a person has where a session acts: in one realm, or in all.
// They are sorted, each once.
func (g granted) of(home, user, in string) []policy.Role {
	var list []policy.Role
	for _, one := range g[Ref{Realm: home, User: user}] {
		if one.Realm == "" || one.Realm == in {
			list = append(list, policy.Role(one.Role))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// grantMessage is what a grant's MAC is over.
func grantMessage(g *Grant) []byte {
	return fmt.Appendf(nil, "watchword-grant-1\x00%d %q %q %q %q", g.UserID, g.Home, g.User, g.Role, g.Realm)
}

// honest are those grants that Watchword made, by who has them. One that was altered
// counts for nothing, and is told to the audit once. known are those that were looked
// at before.
func (s *Service) honest(ctx context.Context, list []Grant, known granted) (granted, error) {
	out := make(granted, len(list))
	var fresh []*Grant
	for i := range list {
		g := &list[i]
		if slices.Contains(known[Ref{Realm: g.Home, User: g.User}], *g) {
			out.add(g)
		} else {
			fresh = append(fresh, g)
		}
	}
	for page := range slices.Chunk(fresh, 500) {
		messages := make([][]byte, len(page))
		for i, g := range page {
			messages[i] = grantMessage(g)
		}
		macs, err := s.custody.MAC(ctx, hsm.KeyBinding, messages...)
		if err != nil {
			return nil, translate(err)
		}
		for i, g := range page {
			if subtle.ConstantTimeCompare(macs[i], g.MAC[:]) == 1 {
				out.add(g)
			} else {
				s.accuse(g)
			}
		}
	}
	return out, nil
}

func (g granted) add(one *Grant) {
	who := Ref{Realm: one.Home, User: one.User}
	g[who] = append(g[who], *one)
}

// accuse says, once, that a grant was altered. It is audited with what else waits for
// the next minute.
func (s *Service) accuse(g *Grant) {
	if _, said := s.accused.LoadOrStore(*g, true); said {
		return
	}
	s.log.Error("the row of a role was altered outside Watchword; it gives nothing", "user", g.User, "realm", g.Home, "role", g.Role)
	e := s.event(systemPrincipal(), policy.RoleGrant, audit.Event{
		Realm: g.Home, User: g.User, Outcome: "refused", Reason: string(ReasonTampered), Detail: g.detail(),
	})
	s.crowd.restore([]audit.Event{e})
}

func systemPrincipal() Principal { return Principal{Kind: KindSystem, Scope: policy.ScopeSystem} }

// detail says in the audit what is given or taken.
func (g *Grant) detail() []audit.Field {
	in := g.Realm
	if in == "" {
		in = AnyRealm
	}
	return []audit.Field{{Name: "role", Value: fileName(g.Role)}, {Name: "in", Value: fileName(in)}}
}

// RoleRequest names a role that a person has, or is to have.
type RoleRequest struct {
	Realm, User string // who; an empty Realm is the principal's, or the default one
	Role        string
	In          string // where the role counts: a realm; AnyRealm; empty: the user's own realm
}

// grant is the row of what is asked for, but for the user's ID.
func (p Principal) grant(r *RoleRequest) (Grant, error) {
	home, user, err := p.names(r.Realm, r.User)
	if err != nil {
		return Grant{}, err
	}
	if !policy.Role(r.Role).Valid() {
		return Grant{}, fmt.Errorf("%w: a role is named by 1 to 64 of a-z, 0-9 and -", ErrInvalid)
	}
	g := Grant{Home: home, User: user, Role: r.Role}
	switch r.In {
	case AnyRealm:
	case "":
		g.Realm = home
	default:
		if g.Realm, err = ParseRealm(r.In); err != nil {
			return Grant{}, err
		}
	}
	return g, nil
}

// Grants lists the roles that people have: whose home is the realm asked for, or who
// have them there. A principal of one realm sees the roles that its own users have,
// and those that count in it.
func (s *Service) Grants(ctx context.Context, p Principal, realm string) ([]Grant, error) {
	realm, err := p.listed(realm)
	if err != nil {
		return nil, err
	}
	e := audit.Event{Realm: realm}
	if err := s.authorise(ctx, p, policy.RoleList, &e); err != nil {
		return nil, err
	}
	read, err := s.db.Registry(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	var list []Grant
	honest, err := s.honest(ctx, read.Grants, nil)
	if err != nil {
		return nil, err
	}
	for _, g := range read.Grants {
		if (realm == "" || g.Home == realm || g.Realm == realm) && slices.Contains(honest[Ref{Realm: g.Home, User: g.User}], g) {
			g.MAC = [sha256.Size]byte{}
			list = append(list, g)
		}
	}
	return list, s.record(ctx, p, policy.RoleList, e)
}

// mayGive says why a principal cannot give a role, or take it, or "". Nobody gives
// what they do not have themselves, unless they may do everything where it counts; so
// nobody gets more by giving.
func (p Principal) mayGive(role policy.Role, realm string) string {
	mine := p.roles()
	switch {
	case p.Kind == KindSystem && !p.anybody():
		return ""
	case p.Realm != "" && realm != p.Realm:
		return "the role is for another realm, or for all"
	case !slices.Contains(mine, policy.Superuser) && !slices.Contains(mine, role):
		return "only a superuser gives a role that is not their own"
	}
	return ""
}

// GrantRole gives a person a role. A principal of one realm gives roles that count in
// it to its own users. Who has the role already keeps it as it is.
func (s *Service) GrantRole(ctx context.Context, p Principal, r RoleRequest) (Grant, error) {
	return s.setRole(ctx, p, policy.RoleGrant, r, func(g *Grant, sub *Subject) (GrantWrite, error) {
		g.UserID, g.Actor, g.Created = sub.User.ID, p.Actor(), s.cfg.Now().UTC().Truncate(time.Microsecond)
		macs, err := s.custody.MAC(ctx, hsm.KeyBinding, grantMessage(g))
		if err != nil {
			return GrantWrite{}, translate(err)
		}
		copy(g.MAC[:], macs[0])
		return GrantWrite{Grant: *g}, nil
	})
}

// RevokeRole takes a role back: whoever had it can do nothing by it from then on, on
// any node, signed in or not.
func (s *Service) RevokeRole(ctx context.Context, p Principal, r RoleRequest) error {
	_, err := s.setRole(ctx, p, policy.RoleRevoke, r, func(g *Grant, sub *Subject) (GrantWrite, error) {
		g.UserID = sub.User.ID
		return GrantWrite{Grant: *g, Delete: true}, nil
	})
	return err
}

func (s *Service) setRole(ctx context.Context, p Principal, action policy.Action, r RoleRequest,
	write func(*Grant, *Subject) (GrantWrite, error),
) (Grant, error) {
	g, err := p.grant(&r)
	if err != nil {
		return Grant{}, err
	}
	e := audit.Event{Realm: g.Home, User: g.User, Detail: g.detail()}
	if err := s.authorise(ctx, p, action, &e); err != nil {
		return Grant{}, err
	}
	if why := p.mayGive(policy.Role(g.Role), g.Realm); why != "" {
		return Grant{}, s.deny(ctx, p, action, e, denial(why))
	}
	view, err := s.db.Load(ctx, []Ref{{Realm: g.Home, User: g.User}})
	if err != nil {
		return Grant{}, unavailable(err)
	}
	sub := view.Subjects[0]
	if sub == nil {
		return Grant{}, s.refuse(ctx, p, action, e, noUser(g.Home, r.User))
	}
	if action == policy.RoleGrant {
		if old, ok := s.has(&g); ok { // and stays as it is
			e.Reason = string(ReasonUnchanged)
			return old, s.record(ctx, p, action, e)
		}
	}
	w, err := write(&g, sub)
	if err != nil {
		return Grant{}, err
	}
	if err := s.ledger.commit(ctx, &Change{Grants: []GrantWrite{w}}, []audit.Event{s.event(p, action, e)}); err != nil {
		return Grant{}, s.refuse(ctx, p, action, e, sayRole(err, &g))
	}
	s.takeUp(ctx)
	g.MAC = [sha256.Size]byte{}
	return g, nil
}

// has answers the grant of what is asked for, if there is one.
func (s *Service) has(g *Grant) (Grant, bool) {
	for _, old := range s.reg.Load().roles[Ref{Realm: g.Home, User: g.User}] {
		if old.Role == g.Role && old.Realm == g.Realm {
			old.MAC = [sha256.Size]byte{}
			return old, true
		}
	}
	return Grant{}, false
}

// sayRole says of a commit that found out what was wrong what it was.
func sayRole(err error, g *Grant) error {
	in := "realm " + g.Realm
	if g.Realm == "" {
		in = "all realms"
	}
	for _, k := range []struct {
		is   error
		says string
	}{{ErrExists, "has the role %s in %s already"}, {ErrNotFound, "does not have the role %s in %s"}} {
		if errors.Is(err, k.is) {
			return fmt.Errorf("%w: %s "+k.says, k.is, g.User, g.Role, in)
		}
	}
	return err
}

// lending are the operations by which whoever does them could sign in as somebody
// else.
var lending = map[policy.Action]bool{
	policy.UserPIN: true, policy.UserEnable: true, policy.TokenAssign: true, policy.TokenReplace: true, policy.TokenResume: true, policy.TokenExpire: true,
	policy.TokenEnrol: true, policy.KeyEnrol: true, policy.RecoveryAdd: true, policy.TemporaryAdd: true, policy.InviteAdd: true,
}

// guarded says why a principal must not do something to these users, or "". What
// somebody signs in with who has a role is for superusers to hand out, of everywhere
// where the role counts: a helpdesk that set a superuser's PIN would be one.
func (s *Service) guarded(p Principal, action policy.Action, found []*Subject) string {
	if !lending[action] || p.Kind == KindSystem && !p.anybody() {
		return ""
	}
	for _, sub := range found {
		if sub != nil && sub.User != nil && !s.mayLend(p, sub.User.Realm, sub.User.Key) {
			return "the user has a role: only a superuser of everywhere where it counts hands out what the user signs in with"
		}
	}
	return ""
}

// unproven says whether a session must be proven anew before its holder does something to
// these users: what somebody with a role signs in with would make any session young,
// the holder's own or another's.
func (s *Service) unproven(p Principal, action policy.Action, found []*Subject) bool {
	if p.Kind != KindAdmin || !lending[action] {
		return false
	}
	if c := s.context(p, s.cfg.Now()); c.MFA && c.MFAAge < youngProof {
		return false
	}
	roles := s.reg.Load().roles
	return slices.ContainsFunc(found, func(sub *Subject) bool {
		return sub != nil && sub.User != nil && len(roles[Ref{Realm: sub.User.Realm, User: sub.User.Key}]) > 0
	})
}

// mayLend says whether a principal may change what a person signs in with.
func (s *Service) mayLend(p Principal, realm, user string) bool {
	grants := s.reg.Load().roles[Ref{Realm: realm, User: user}]
	if len(grants) == 0 || p.Kind == KindInvitation {
		return true // an invitation was made by who may
	}
	for _, g := range grants {
		if !slices.Contains(p.roles(), policy.Superuser) || p.Realm != "" && g.Realm != p.Realm {
			return false
		}
	}
	return true
}
