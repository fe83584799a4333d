package tokens

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// SimQuery is a question to policies that nobody asks in earnest. Who asks is named as
// the audit does; what is not said is as it is now.
type SimQuery struct {
	Principal string // key:ID, client:NAME, admin:REALM/USER; or empty, with Roles
	Roles     []policy.Role
	In        string // the one realm in which a person, or who is not named, acts; empty: all
	Action    string

	Realm, User, Serial string   // what it is done to; none: the installation
	Groups              []string // in the place of those that the user is in
	Token               *SimToken

	At     time.Time      // zero: now
	Source netip.Addr     // where the request comes from
	Path   string         // radius, http, console
	MFA    *time.Duration // since the token was proved; nil: it was not
	NAS    string
	Caller netip.Addr
}

// SimToken is what the token is assumed to be, in the place of what it is.
type SimToken struct {
	Type, Model, AAGUID string
	Attested            bool
	UnusedDays          int64
}

// SimResult is the answer to a SimQuery.
type SimResult struct {
	Query policy.Query // as it was decided
	policy.Decision
}

// maxSimulated is how many questions can be asked at once.
const maxSimulated = 30

// Simulate answers what policies would decide: the live ones, or a draft. Nothing is
// done. What it answers of verifying is whether a right code would be accepted.
func (s *Service) Simulate(ctx context.Context, p Principal, list []SimQuery, draft *policy.Source) ([]SimResult, error) {
	e := audit.Event{Detail: []audit.Field{{Name: "queries", Value: strconv.Itoa(len(list))}}}
	if err := s.authorise(ctx, p, policy.PolicySimulate, &e); err != nil {
		return nil, err
	}
	out, err := s.simulate(ctx, list, draft)
	if err != nil {
		return nil, s.refuse(ctx, p, policy.PolicySimulate, e, err)
	}
	return out, s.record(ctx, p, policy.PolicySimulate, e)
}

func (s *Service) simulate(ctx context.Context, list []SimQuery, draft *policy.Source) ([]SimResult, error) {
	if len(list) == 0 || len(list) > maxSimulated {
		return nil, fmt.Errorf("%w: %d questions; 1 to %d are possible at once", ErrInvalid, len(list), maxSimulated)
	}
	set, err := s.draftOr(draft)
	if err != nil {
		return nil, err
	}
	out := make([]SimResult, len(list))
	for i := range list {
		q, err := s.simulated(ctx, &list[i])
		if err != nil {
			return nil, fmt.Errorf("%w (question %d)", err, i+1)
		}
		out[i] = SimResult{*q, set.Decide(q)}
	}
	return out, nil
}

// draftOr is a draft, compiled, or the live set.
func (s *Service) draftOr(draft *policy.Source) (*policy.Set, error) {
	if draft != nil {
		return compileDraft(draft)
	}
	live := s.reg.Load().policies
	if live.fault != nil {
		return nil, fmt.Errorf("%w: the policies that count cannot be read", ErrTampered)
	}
	return live.set, nil
}

// simulated makes the question that policies are asked.
func (s *Service) simulated(ctx context.Context, in *SimQuery) (*policy.Query, error) {
	q := &policy.Query{Action: policy.Action(in.Action)}
	var err error
	if q.Principal, err = s.principalNamed(in.Principal, in.In); err != nil {
		return nil, err
	}
	if len(in.Roles) > 0 {
		q.Principal.Roles = in.Roles
	} else if in.Principal == "" {
		return nil, fmt.Errorf("%w: a question names who asks, or roles", ErrInvalid)
	}
	for _, r := range q.Principal.Roles {
		if !r.Valid() {
			return nil, fmt.Errorf("%w: no role is called %q", ErrInvalid, r)
		}
	}
	e := audit.Event{Serial: in.Serial}
	if in.Realm != "" || in.User != "" || in.Serial != "" {
		if e.Realm, err = ParseRealm(in.Realm); err != nil {
			return nil, err
		}
	}
	if in.User != "" {
		if e.User, err = FoldName(in.User); err != nil {
			return nil, err
		}
	}
	if in.Serial != "" {
		if err := ValidSerial(in.Serial); err != nil {
			return nil, err
		}
	}
	now := s.cfg.Now().In(s.cfg.Location)
	view, err := s.db.Load(ctx, about(&e))
	if err != nil {
		return nil, unavailable(err)
	}
	var user int64
	q.Resource, user = resource(&e, view.Subjects, now)
	if len(in.Groups) > 0 {
		for _, name := range in.Groups {
			folded, err := FoldName(name)
			if err != nil {
				return nil, err
			}
			q.Resource.Groups = append(q.Resource.Groups, folded)
		}
	} else if q.Resource.Groups, err = s.groupsFor(ctx, &q.Resource, user); err != nil {
		return nil, err
	}
	if t := in.Token; t != nil {
		q.Resource.Kind, q.Resource.Model, q.Resource.AAGUID, q.Resource.Attested, q.Resource.Unused = t.Type, t.Model, t.AAGUID, t.Attested, t.UnusedDays
	}
	c := policy.Context{Now: now, Source: in.Source, Path: in.Path, NAS: in.NAS, Caller: in.Caller}
	if !in.At.IsZero() {
		c.Now = in.At.In(s.cfg.Location)
	}
	if c.Path == "" {
		if c.Path = pathHTTP; q.Principal.Kind == policy.KindClient {
			c.Path = pathRADIUS
		}
	}
	if in.MFA != nil {
		c.MFA, c.MFAAge = true, max(*in.MFA, 0)
	}
	q.Context = c
	return q, nil
}

// principalNamed is who the audit names so, as policies see them now: in one realm, or
// all, where that is theirs to choose. Nobody is somebody without a name.
func (s *Service) principalNamed(actor, in string) (policy.Principal, error) {
	if in != "" {
		var err error
		if in, err = ParseRealm(in); err != nil {
			return policy.Principal{}, err
		}
	}
	kind, id, _ := strings.Cut(actor, ":")
	r := s.reg.Load()
	switch PrincipalKind(kind) {
	case "":
		return policy.Principal{Kind: policy.KindKey, Realm: in}, nil
	case KindKey:
		k := r.keys[id]
		if k == nil {
			return policy.Principal{}, fmt.Errorf("%w: there is no API key %s", ErrNotFound, strconv.Quote(fileName(id)))
		}
		return policy.Principal{Kind: policy.KindKey, ID: id, Realm: k.Realm, Roles: policy.Scope(k.Scope).Roles()}, nil
	case KindClient:
		c := r.names[id]
		if c == nil {
			return policy.Principal{}, fmt.Errorf("%w: there is no RADIUS client %s", ErrNotFound, strconv.Quote(fileName(id)))
		}
		return c.Principal().asks(), nil
	case KindAdmin:
		home, user, err := personNamed(id)
		if err != nil {
			return policy.Principal{}, err
		}
		return policy.Principal{Kind: policy.KindAdmin, ID: policy.ID(home, user), Realm: in, Roles: r.roles.of(home, user, in)}, nil
	case KindInvitation:
		return policy.Principal{Kind: policy.KindInvitation, ID: id, Realm: in}, nil
	}
	return policy.Principal{}, fmt.Errorf("%w: nobody is called %s; it is key:ID, client:NAME or admin:REALM/USER", ErrInvalid, strconv.Quote(fileName(actor)))
}

// personNamed is who REALM/USER is, or USER in the default realm.
func personNamed(id string) (home, user string, err error) {
	home, user, ok := strings.Cut(id, "/")
	if !ok {
		home, user = "", id
	}
	if home, err = ParseRealm(strings.NewReplacer("%25", "%", "%2F", "/").Replace(home)); err != nil {
		return "", "", err
	}
	user, err = FoldName(user)
	return home, user, err
}

// ApplyingPolicies answers the policies that can concern a principal, a resource, or
// both; empty stands for any. A principal is named as in SimQuery, or is role:NAME; a
// resource is installation, realm:REALM, user:REALM/USER or token:REALM/SERIAL.
func (s *Service) ApplyingPolicies(ctx context.Context, p Principal, principal, resource string) ([]policy.Applied, error) {
	e := audit.Event{Detail: []audit.Field{{Name: "for", Value: "applying"}}}
	if err := s.authorise(ctx, p, policy.PolicySimulate, &e); err != nil {
		return nil, err
	}
	list, err := s.applying(ctx, principal, resource)
	if err != nil {
		return nil, s.refuse(ctx, p, policy.PolicySimulate, e, err)
	}
	return list, s.record(ctx, p, policy.PolicySimulate, e)
}

func (s *Service) applying(ctx context.Context, principal, what string) ([]policy.Applied, error) {
	set, err := s.draftOr(nil)
	if err != nil {
		return nil, err
	}
	var where *policy.Resource
	if what != "" {
		if where, err = s.resourceNamed(ctx, what); err != nil {
			return nil, err
		}
	}
	role, isRole := strings.CutPrefix(principal, "role:")
	switch {
	case principal == "":
		return set.Applying(nil, where), nil
	case !isRole:
		who, err := s.principalNamed(principal, "")
		if err != nil {
			return nil, err
		}
		return set.Applying(&who, where), nil
	case !policy.Role(role).Valid():
		return nil, fmt.Errorf("%w: no role is called %s", ErrInvalid, strconv.Quote(fileName(role)))
	}
	// A role is a person's or a key's.
	var list []policy.Applied
	for _, kind := range []policy.Kind{policy.KindAdmin, policy.KindKey, policy.KindClient} {
		for _, a := range set.Applying(&policy.Principal{Kind: kind, Roles: []policy.Role{policy.Role(role)}}, where) {
			if !slices.ContainsFunc(list, func(b policy.Applied) bool { return a.ID == b.ID }) {
				list = append(list, a)
			}
		}
	}
	slices.SortFunc(list, func(a, b policy.Applied) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// resourceNamed is a resource as it is now, with its groups.
func (s *Service) resourceNamed(ctx context.Context, what string) (*policy.Resource, error) {
	kind, id, _ := strings.Cut(what, ":")
	var e audit.Event
	var err error
	switch kind {
	case "installation":
		return &policy.Resource{Type: policy.Installation}, nil
	case "realm":
		e.Realm, err = ParseRealm(id)
	case "user":
		e.Realm, e.User, err = personNamed(id)
	case "token":
		realm, serial, ok := strings.Cut(id, "/")
		if !ok {
			realm, serial = "", id
		}
		if e.Realm, err = ParseRealm(strings.NewReplacer("%25", "%", "%2F", "/").Replace(realm)); err == nil {
			e.Serial, err = serial, ValidSerial(serial)
		}
	default:
		err = fmt.Errorf("%w: nothing is called %s; it is installation, realm:REALM, user:REALM/USER or token:REALM/SERIAL", ErrInvalid, strconv.Quote(fileName(what)))
	}
	if err != nil {
		return nil, err
	}
	view, err := s.db.Load(ctx, about(&e))
	if err != nil {
		return nil, unavailable(err)
	}
	r, user := resource(&e, view.Subjects, s.cfg.Now())
	r.Groups, err = s.groupsFor(ctx, &r, user)
	return &r, err
}

// PolicySchema answers what policies can speak of, as a Cedar schema.
func (s *Service) PolicySchema(ctx context.Context, p Principal) (string, error) {
	e := audit.Event{Realm: p.Realm, Detail: []audit.Field{{Name: "for", Value: "schema"}}}
	if err := s.authorise(ctx, p, policy.PolicyShow, &e); err != nil {
		return "", err
	}
	return policy.Schema(), s.record(ctx, p, policy.PolicyShow, e)
}
