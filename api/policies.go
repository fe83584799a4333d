package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/tokens/policy"
)

// maxPolicies is the size of the largest body with policies, in bytes; maxLinks how
// many links it can have.
const (
	maxPolicies = 16 << 20
	maxLinks    = 10_000
)

// decodePolicies is decode for a body with policies. Memory is taken for as much as is
// announced.
func decodePolicies[T any](c echo.Context, required ...string) (T, error) {
	size := int64(maxPolicies)
	if n := c.Request().ContentLength; n >= 0 && n < size {
		size = n
	}
	body, err := decodeIn[T](c, make([]byte, size+1), required)
	if err == nil && body == nil {
		err = errEmpty
	}
	if err != nil {
		var zero T
		return zero, err
	}
	return *body, nil
}

// ShowPolicies is GET /v1/policies.
func (s *Server) ShowPolicies(c echo.Context) error {
	set, err := s.cfg.Core.Policies(c.Request().Context(), who(c))
	v := versionView(&set.PolicyVersion)
	return reply(c, PolicySet{
		Version: v.Version, Time: v.Time, Actor: v.Actor, From: v.From, Sha256: v.Sha256,
		Policies: views(set.Source.Policies, textView), Templates: views(set.Source.Templates, textView), Links: views(set.Source.Links, linkView),
	}, err)
}

// EditPolicies is PUT /v1/policies.
func (s *Server) EditPolicies(c echo.Context) error {
	in, err := decodePolicies[PolicyEdit](c)
	if err != nil {
		return err
	}
	return s.edit(c, in.Version, tokens.PolicyEdit{
		Put: policyItems(in.Put), Delete: value(in.Delete), PutTemplates: policyItems(in.PutTemplates), DeleteTemplates: value(in.DeleteTemplates),
		PutLinks: policyLinks(in.PutLinks), DeleteLinks: value(in.DeleteLinks),
	})
}

// edit changes the policies and answers the version.
func (s *Server) edit(c echo.Context, version *int64, edit tokens.PolicyEdit) error {
	expect := int64(-1) // whatever there is
	if version != nil {
		if expect = *version; expect < 0 {
			return fmt.Errorf("%w: version is that of the policies to change; zero for none", tokens.ErrInvalid)
		}
	}
	set, err := s.cfg.Core.PutPolicies(c.Request().Context(), who(c), expect, edit)
	return reply(c, versionView(&set.PolicyVersion), wrong(err))
}

// ListPolicyVersions is GET /v1/policies/versions.
func (s *Server) ListPolicyVersions(c echo.Context) error {
	list, err := s.cfg.Core.PolicyVersions(c.Request().Context(), who(c), maxLimit)
	return reply(c, PolicyVersionPage{Items: views(list, versionView)}, err)
}

// RollBackPolicies is POST /v1/policies/rollback.
func (s *Server) RollBackPolicies(c echo.Context) error {
	in, err := decode[PolicyRollback](c, "version")
	if err != nil {
		return err
	}
	set, err := s.cfg.Core.RollBackPolicies(c.Request().Context(), who(c), in.Version)
	return reply(c, versionView(&set.PolicyVersion), wrong(err))
}

// CheckPolicies is POST /v1/policies/check.
func (s *Server) CheckPolicies(c echo.Context) error {
	in, err := decodePolicies[PolicySource](c)
	if err != nil {
		return err
	}
	return gone(c, wrong(s.cfg.Core.CheckPolicies(c.Request().Context(), who(c), policySource(&in))))
}

// SimulatePolicies is POST /v1/policies/simulate.
func (s *Server) SimulatePolicies(c echo.Context) error {
	in, err := decodePolicies[Simulation](c, "queries")
	if err != nil {
		return err
	}
	list := make([]tokens.SimQuery, len(in.Queries))
	for i := range in.Queries {
		if list[i], err = simQuery(&in.Queries[i]); err != nil {
			return fmt.Errorf("%w (question %d)", err, i+1)
		}
	}
	var draft *policy.Source
	if in.Draft != nil {
		src := policySource(in.Draft)
		draft = &src
	}
	got, err := s.cfg.Core.Simulate(c.Request().Context(), who(c), list, draft)
	return reply(c, SimulationPage{Items: views(got, simView)}, wrong(err))
}

func simQuery(in *SimulationQuery) (tokens.SimQuery, error) {
	q := tokens.SimQuery{
		Principal: value(in.Principal), In: value(in.In), Action: in.Action, Realm: value(in.Realm), User: value(in.User), Serial: value(in.Serial),
		Groups: value(in.Groups), At: value(in.At), Path: string(value(in.Path)), NAS: value(in.Nas),
	}
	for _, f := range []struct {
		name string
		text *string
	}{{"realm", in.Realm}, {"user", in.User}, {"serial", in.Serial}, {"nas", in.Nas}} {
		if err := bounded(f.name, f.text, 255); err != nil {
			return q, err
		}
	}
	if value(in.MfaAge) < 0 || in.Token != nil && value(in.Token.UnusedDays) < 0 {
		return q, fmt.Errorf("%w: mfa_age and unused_days are zero or more", tokens.ErrInvalid)
	}
	for _, r := range value(in.Roles) {
		q.Roles = append(q.Roles, policy.Role(r))
	}
	if t := in.Token; t != nil {
		q.Token = &tokens.SimToken{Type: t.Type, Model: value(t.Model), AAGUID: value(t.Aaguid), Attested: value(t.Attested), UnusedDays: value(t.UnusedDays)}
	}
	if in.MfaAge != nil {
		age := time.Duration(min(max(*in.MfaAge, 0), 1<<31)) * time.Second
		q.MFA = &age
	}
	for _, a := range []struct {
		name string
		from *string
		to   *netip.Addr
	}{{"source", in.Source, &q.Source}, {"caller", in.Caller, &q.Caller}} {
		if a.from == nil {
			continue
		}
		var err error
		if *a.to, err = netip.ParseAddr(*a.from); err != nil {
			return q, fmt.Errorf("%w: %s is no network address", tokens.ErrInvalid, a.name)
		}
	}
	if in.Path == nil {
		return q, nil
	}
	switch q.Path {
	case "radius", "http", "console":
	default:
		return q, fmt.Errorf("%w: path is radius, http or console", tokens.ErrInvalid)
	}
	return q, nil
}

func simView(r *tokens.SimResult) SimulationResult {
	q := &r.Query
	v := SimulationResult{
		Allow: r.Allow, Reason: unlessEmpty(r.Reason), Policies: slices.Clone(r.Policies), NeedsMfa: r.MFA,
		Principal: string(q.Principal.Kind) + ":" + q.Principal.ID, Action: string(q.Action), Resource: string(q.Resource.Type),
	}
	if v.Policies == nil {
		v.Policies = []string{}
	}
	if len(r.Faults) > 0 {
		v.Faults = &r.Faults
	}
	switch q.Resource.Type {
	case policy.Token:
		v.Resource += ":" + policy.ID(q.Resource.Realm, q.Resource.Serial)
	case policy.User:
		v.Resource += ":" + policy.ID(q.Resource.Realm, q.Resource.User)
	case policy.Realm:
		v.Resource += ":" + q.Resource.Realm
	}
	return v
}

// ReplayPolicies is POST /v1/policies/replay.
func (s *Server) ReplayPolicies(c echo.Context) error {
	in, err := decodePolicies[Replay](c, "draft", "last")
	if err != nil {
		return err
	}
	r, err := s.cfg.Core.Replay(c.Request().Context(), who(c), policySource(&in.Draft), in.Last)
	return reply(c, Replayed{
		Read: r.Read, Compared: r.Compared, Changed: r.Changed, Allowed: r.Allowed, Denied: r.Denied,
		Changes: views(r.Changes, func(x *tokens.ReplayChange) ReplayChange {
			v := ReplayChange{
				Record: x.Record, Time: instant(x.Time), Actor: x.Actor, Action: x.Action, Realm: unlessEmpty(x.Realm), User: unlessEmpty(x.User),
				Serial: unlessEmpty(x.Serial), Was: x.Was, Now: x.Now, Reason: unlessEmpty(x.Reason),
			}
			if len(x.WasPolicies) > 0 {
				v.WasPolicies = &x.WasPolicies
			}
			if len(x.NowPolicies) > 0 {
				v.NowPolicies = &x.NowPolicies
			}
			return v
		}),
		Left: views(r.Left, func(l *tokens.ReplayLeft) ReplayLeft {
			return ReplayLeft{Why: l.Why, Count: l.Count, Records: l.Records}
		}),
	}, wrong(err))
}

// ApplyingPolicies is GET /v1/policies/applying.
func (s *Server) ApplyingPolicies(c echo.Context, params ApplyingPoliciesParams) error {
	list, err := s.cfg.Core.ApplyingPolicies(c.Request().Context(), who(c), value(params.Principal), value(params.Resource))
	return reply(c, AppliedPage{Items: views(list, func(a *policy.Applied) AppliedPolicy {
		v := AppliedPolicy{Id: a.ID, Template: unlessEmpty(a.Template), BuiltIn: a.BuiltIn, Effect: AppliedPolicyEffect(a.Effect), Conditional: a.Conditional}
		if len(a.Actions) > 0 {
			v.Actions = &a.Actions
		}
		return v
	})}, err)
}

// ShowPolicySchema is GET /v1/policies/schema.
func (s *Server) ShowPolicySchema(c echo.Context) error {
	text, err := s.cfg.Core.PolicySchema(c.Request().Context(), who(c))
	if err != nil {
		return err
	}
	return c.Blob(http.StatusOK, "text/plain; charset=utf-8", []byte(text))
}

// one finds an item in a listing.
func one[T any](set *tokens.PolicySet, list []T, what, id string, idOf func(*T) string) (*T, error) {
	for i := range list {
		if idOf(&list[i]) == id {
			return &list[i], nil
		}
	}
	return nil, fmt.Errorf("%w: no %s has this id", tokens.ErrNotFound, what)
}

func itemID(i *policy.Item) string { return i.ID }

func itemView(set *tokens.PolicySet, i *policy.Item) PolicyItem {
	if i == nil {
		return PolicyItem{}
	}
	return PolicyItem{Version: set.Version, Id: i.ID, Text: i.Text, Note: unlessEmpty(i.Note)}
}

// ShowPolicy is GET /v1/policies/{id}.
func (s *Server) ShowPolicy(c echo.Context, id string) error {
	set, err := s.cfg.Core.Policies(c.Request().Context(), who(c))
	if err != nil {
		return err
	}
	i, err := one(&set, set.Source.Policies, "policy", id, itemID)
	return reply(c, itemView(&set, i), err)
}

// PutPolicy is PUT /v1/policies/{id}.
func (s *Server) PutPolicy(c echo.Context, id string) error {
	in, err := decodePolicies[NewPolicyItem](c, "text")
	if err != nil {
		return err
	}
	return s.edit(c, in.Version, tokens.PolicyEdit{Put: []policy.Item{{ID: id, Text: in.Text, Note: value(in.Note)}}})
}

// DeletePolicy is DELETE /v1/policies/{id}.
func (s *Server) DeletePolicy(c echo.Context, id string, params DeletePolicyParams) error {
	return s.edit(c, params.Version, tokens.PolicyEdit{Delete: []string{id}})
}

// ShowTemplate is GET /v1/policies/templates/{id}.
func (s *Server) ShowTemplate(c echo.Context, id string) error {
	set, err := s.cfg.Core.Policies(c.Request().Context(), who(c))
	if err != nil {
		return err
	}
	i, err := one(&set, set.Source.Templates, "template", id, itemID)
	return reply(c, itemView(&set, i), err)
}

// PutTemplate is PUT /v1/policies/templates/{id}.
func (s *Server) PutTemplate(c echo.Context, id string) error {
	in, err := decodePolicies[NewPolicyItem](c, "text")
	if err != nil {
		return err
	}
	return s.edit(c, in.Version, tokens.PolicyEdit{PutTemplates: []policy.Item{{ID: id, Text: in.Text, Note: value(in.Note)}}})
}

// DeleteTemplate is DELETE /v1/policies/templates/{id}.
func (s *Server) DeleteTemplate(c echo.Context, id string, params DeleteTemplateParams) error {
	return s.edit(c, params.Version, tokens.PolicyEdit{DeleteTemplates: []string{id}})
}

// PutLinks is POST /v1/policies/links.
func (s *Server) PutLinks(c echo.Context) error {
	in, err := decodePolicies[NewLinks](c, "links")
	if err != nil {
		return err
	}
	if len(in.Links) == 0 || len(in.Links) > maxLinks {
		return fmt.Errorf("%w: %d links; 1 to %d are possible at once", tokens.ErrInvalid, len(in.Links), maxLinks)
	}
	return s.edit(c, in.Version, tokens.PolicyEdit{PutLinks: policyLinks(&in.Links)})
}

// ShowLink is GET /v1/policies/links/{id}.
func (s *Server) ShowLink(c echo.Context, id string) error {
	set, err := s.cfg.Core.Policies(c.Request().Context(), who(c))
	if err != nil {
		return err
	}
	l, err := one(&set, set.Source.Links, "link", id, func(l *policy.Link) string { return l.ID })
	if err != nil {
		return err
	}
	return reply(c, VersionedLink{Version: set.Version, Id: l.ID, Template: l.Template, Principal: unlessEmpty(l.Principal), Resource: unlessEmpty(l.Resource)}, nil)
}

// PutLink is PUT /v1/policies/links/{id}.
func (s *Server) PutLink(c echo.Context, id string) error {
	in, err := decode[NewLink](c, "template")
	if err != nil {
		return err
	}
	l := policy.Link{ID: id, Template: in.Template, Principal: value(in.Principal), Resource: value(in.Resource)}
	return s.edit(c, in.Version, tokens.PolicyEdit{PutLinks: []policy.Link{l}})
}

// DeleteLink is DELETE /v1/policies/links/{id}.
func (s *Server) DeleteLink(c echo.Context, id string, params DeleteLinkParams) error {
	return s.edit(c, params.Version, tokens.PolicyEdit{DeleteLinks: []string{id}})
}

// policiesWrong is an error with what is wrong with policies.
type policiesWrong struct {
	error
	list []policy.Problem
}

func (e *policiesWrong) Unwrap() error { return e.error }

func (e *policiesWrong) problem(p Problem) any {
	faults := views(e.list, func(w *policy.Problem) PolicyFault {
		return PolicyFault{Id: unlessEmpty(w.ID), Line: placed(w.Line), Column: placed(w.Column), Expression: unlessEmpty(w.Expression), Says: w.Says}
	})
	return PolicyProblem{Type: p.Type, Title: p.Title, Status: p.Status, Detail: p.Detail, Instance: p.Instance, Problems: &faults}
}

// placed is a line or column, or nothing where there is no place.
func placed(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

// wrong adds to an error what is wrong with policies, if that is what it is about.
func wrong(err error) error {
	if list := (*policy.Errors)(nil); errors.As(err, &list) {
		return &policiesWrong{err, list.Problems}
	}
	return err
}

func policyItems(list *[]PolicyText) []policy.Item {
	return views(value(list), func(t *PolicyText) policy.Item { return policy.Item{ID: t.Id, Text: t.Text, Note: value(t.Note)} })
}

func policyLinks(list *[]PolicyLink) []policy.Link {
	return views(value(list), func(l *PolicyLink) policy.Link {
		return policy.Link{ID: l.Id, Template: l.Template, Principal: value(l.Principal), Resource: value(l.Resource)}
	})
}

func policySource(in *PolicySource) policy.Source {
	return policy.Source{Policies: policyItems(in.Policies), Templates: policyItems(in.Templates), Links: policyLinks(in.Links)}
}

func textView(i *policy.Item) PolicyText {
	return PolicyText{Id: i.ID, Text: i.Text, Note: unlessEmpty(i.Note)}
}

func linkView(l *policy.Link) PolicyLink {
	return PolicyLink{Id: l.ID, Template: l.Template, Principal: unlessEmpty(l.Principal), Resource: unlessEmpty(l.Resource)}
}

func versionView(p *tokens.PolicyVersion) PolicyVersion {
	v := PolicyVersion{
		Version: p.Version, Actor: unlessEmpty(p.Actor), Policies: p.Policies, Templates: p.Templates, Links: p.Links, Sha256: unlessEmpty(p.Sum),
		Time: unlessZero(p.Time),
	}
	if p.From != 0 {
		v.From = &p.From
	}
	return v
}
