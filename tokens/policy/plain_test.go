package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
	public "github.com/cedar-policy/cedar-go/ast"
	ctypes "github.com/cedar-policy/cedar-go/types"
	"pgregory.net/rapid"
)

// plain decides as Cedar alone does: every policy is evaluated, on entities that are
// all there. It shares nothing with Decide but the policies.
func plain(s *Set, q Query) Decision {
	p := q.Principal
	if p.Realm != "" && q.Resource.Realm != p.Realm {
		return Decision{Reason: "realm"}
	}
	rule := words().actions[q.Action]
	q.Resource.settle(rule.types)
	r := q.Resource
	if p.Kind == KindSystem && slices.Contains(p.Roles, Superuser) ||
		p.Kind == KindKey && p.Realm == "" && slices.Contains(p.Roles, Superuser) && strings.HasPrefix(string(q.Action), "policy.") {
		s = Builtin()
	}
	uid := func(t, id string) cedar.EntityUID {
		return cedar.NewEntityUID(cedar.EntityType("Watchword::"+t), cedar.String(id))
	}
	all := cedar.EntityMap{}
	put := func(uid cedar.EntityUID, attributes cedar.RecordMap, parents ...cedar.EntityUID) cedar.EntityUID {
		all[uid] = cedar.Entity{UID: uid, Attributes: cedar.NewRecord(attributes), Parents: cedar.NewEntityUIDSet(parents...)}
		return uid
	}
	for u, a := range words().schema.Actions {
		all[u] = a.Entity
	}
	var roles []cedar.EntityUID
	for _, r := range p.Roles {
		roles = append(roles, put(uid("Role", string(r)), nil))
	}
	mine := cedar.RecordMap{"realm": cedar.String(p.Realm), "name": cedar.String(p.ID)}
	if p.Kind == KindAdmin {
		home, name, ok := strings.Cut(p.ID, "/")
		if !ok {
			home, name = "", p.ID
		}
		mine["home"], mine["name"] = cedar.String(home), cedar.String(name)
	}
	principal := put(uid(string(p.Kind), p.ID), mine, roles...)

	resource := put(uid("Installation", "this"), cedar.RecordMap{"realm": cedar.String("")})
	if r.Type != Installation {
		realm := put(uid("Realm", r.Realm), cedar.RecordMap{"realm": cedar.String(r.Realm)}, resource)
		resource = realm
		if r.User != "" {
			in := []cedar.EntityUID{realm}
			for _, g := range r.Groups {
				in = append(in, put(uid("Group", r.Realm+"/"+g), nil, realm))
			}
			resource = put(uid("User", r.Realm+"/"+r.User), cedar.RecordMap{"realm": cedar.String(r.Realm), "name": cedar.String(r.User)}, in...)
		}
		if r.Type == Token {
			m := cedar.RecordMap{"realm": cedar.String(r.Realm), "serial": cedar.String(r.Serial)}
			if r.Kind != "" {
				m["type"], m["model"], m["attested"], m["unused_days"] = cedar.String(r.Kind), cedar.String(r.Model), cedar.Boolean(r.Attested), cedar.Long(r.Unused)
				if r.AAGUID != "" {
					m["aaguid"] = cedar.String(r.AAGUID)
				}
			}
			resource = put(uid("Token", r.Realm+"/"+r.Serial), m, resource)
		}
	}
	c := q.Context
	age := cedar.Long(10_000_000_000)
	if c.MFA {
		age = cedar.Long(c.MFAAge / time.Second)
	}
	m := cedar.RecordMap{
		"now": cedar.NewDatetime(c.Now), "hour": cedar.Long(c.Now.Hour()), "minute": cedar.Long(c.Now.Minute()),
		"weekday": cedar.String(strings.ToLower(c.Now.Weekday().String()[:3])), "path": cedar.String(c.Path),
		"mfa": cedar.NewRecord(cedar.RecordMap{"present": cedar.Boolean(c.MFA), "age": age}),
	}
	if c.NAS != "" {
		m["nas"] = cedar.String(c.NAS)
	}
	for name, a := range map[string]netip.Addr{"source": c.Source, "caller": c.Caller} {
		if a.IsValid() {
			ip, err := ctypes.ParseIPAddr(a.Unmap().String())
			if err != nil {
				panic(err)
			}
			m[cedar.String(name)] = ip
		}
	}
	policies := cedar.NewPolicySet()
	for _, e := range s.entries {
		policies.Add(cedar.PolicyID(e.id), cedar.NewPolicyFromAST((*public.Policy)(e.tree)))
	}
	allow, diagnostic := cedar.Authorize(policies, all, cedar.Request{
		Principal: principal, Action: uid("Action", string(q.Action)), Resource: resource, Context: cedar.NewRecord(m),
	})
	d := Decision{Allow: allow == cedar.Allow && len(diagnostic.Errors) == 0}
	for _, r := range diagnostic.Reasons {
		if len(diagnostic.Errors) == 0 || allow != cedar.Allow {
			d.Policies = append(d.Policies, string(r.PolicyID))
		}
	}
	for _, e := range diagnostic.Errors {
		d.Policies = append(d.Policies, string(e.PolicyID))
		d.Faults = append(d.Faults, string(e.PolicyID)+": "+e.Message)
	}
	slices.Sort(d.Policies)
	slices.Sort(d.Faults)
	return d
}

var (
	askers = []string{
		"principal", "principal is Watchword::Admin", "principal is Watchword::Key", "principal == Watchword::Admin::\"corp/ann\"",
		"principal in Watchword::Admin::\"corp/ann\"", "principal == Watchword::Key::\"k1\"", "principal in Watchword::Role::\"helpdesk\"",
		"principal in Watchword::Role::\"night\"", "principal is Watchword::Client in Watchword::Role::\"verifier\"", "principal == Watchword::Client::\"nas\"",
		"principal is Watchword::Admin in Watchword::Role::\"superuser\"", "principal is Watchword::Invitation",
	}
	acts = []string{
		"action", "action == Watchword::Action::\"verify\"", "action in Watchword::Action::\"helpdesk\"", "action in Watchword::Action::\"verify\"",
		"action in [Watchword::Action::\"read\", Watchword::Action::\"token.lost\"]", "action == Watchword::Action::\"policy.put\"",
		"action in Watchword::Action::\"all\"", "action in Watchword::Action::\"protected\"", "action == Watchword::Action::\"client.put\"",
	}
	places = []string{
		"resource", "resource is Watchword::Token", "resource is Watchword::User", "resource in Watchword::Installation::\"this\"",
		"resource == Watchword::Installation::\"this\"", "resource in Watchword::Realm::\"corp\"", "resource == Watchword::Realm::\"corp\"",
		"resource in Watchword::Group::\"corp/vpn\"", "resource is Watchword::User in Watchword::Group::\"lab/vpn\"",
		"resource is Watchword::Token in Watchword::Group::\"corp/vpn\"", "resource == Watchword::User::\"corp/ann\"", "resource in Watchword::User::\"corp/ann\"",
		"resource is Watchword::Token in Watchword::User::\"lab/ben\"", "resource == Watchword::Token::\"corp/T1\"", "resource in Watchword::Token::\"corp/T1\"",
		"resource is Watchword::User in Watchword::Realm::\"lab\"",
	}
	conditions = []string{
		"", "", "", "when { context.hour >= 8 && context.hour < 18 }", "unless { context.weekday == \"sun\" }", "when { context has nas && context.nas like \"v*\" }",
		"unless { context has source && context.source.isInRange(ip(\"10.0.0.0/8\")) }", "when { context.mfa.present }", "when { context.mfa.age * 9000000000000000000 > 3 }", "unless { context.hour * 9000000000000000000 > 3 }",
		"when { resource.realm == \"corp\" }", "when { principal.realm == \"\" }", "when { principal.name == \"nas\" }", "when { resource in Watchword::Group::\"corp/vpn\" }",
		"when { resource.attested }", "unless { (if context.hour > 3 then resource else resource).attested }", "when { resource has aaguid && resource.aaguid == \"a\" }",
		"when { resource.unused_days > 90 }", "when { action == Watchword::Action::\"verify\" }", "when { principal in Watchword::Role::\"helpdesk\" }",
		"when { context.now > datetime(\"2026-01-01\") }", "when { context has caller && context.caller.isIpv6() }", "when { principal == Watchword::Key::\"k1\" } unless { context.path == \"http\" }",
	}
)

// pool are all policies that the pieces make and that are right.
func pool(t interface{ Fatal(...any) }) []string {
	var list []string
	n := 0
	for i, a := range askers {
		for k, b := range acts {
			for j, c := range places {
				if n++; n%2 == 0 {
					continue
				}
				text := fmt.Sprintf("%s (%s, %s, %s) %s;", []string{"permit", "forbid", "permit"}[n%3], a, b, c, conditions[(n*7+i+k+j)%len(conditions)])
				if _, problems := compilePolicy(Item{ID: "p", Text: text}); problems == nil {
					list = append(list, text)
				}
			}
		}
	}
	if len(list) < 300 {
		t.Fatal("only", len(list), "of", n, "policies are right")
	}
	return list
}

func drawQuery(t *rapid.T) Query {
	of := func(name string, list ...string) string { return rapid.SampledFrom(list).Draw(t, name) }
	var actions []Action
	for _, a := range words().ordered {
		actions = append(actions, a.action)
	}
	q := Query{
		Principal: Principal{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), ID: of("id", "corp/ann", "k1", "nas", "lab/ben"), Realm: of("asks in", "", "", "corp", "lab")},
		Action:    rapid.OneOf(rapid.SampledFrom(actions), rapid.SampledFrom([]Action{Verify, TokenLost, PolicyPut, UserExport})).Draw(t, "action"),
		Resource: Resource{
			Type: rapid.SampledFrom(types).Draw(t, "type"), Realm: of("realm", "", "corp", "corp", "lab"), User: of("user", "", "ann", "ann", "ben"),
			Serial: of("serial", "", "T1", "T2"), Groups: rapid.SliceOfN(rapid.SampledFrom([]string{"vpn", "staff", "vpn2"}), 0, 3).Draw(t, "groups"),
		},
		Context: Context{
			Now:  time.Date(2026, 11, 22, rapid.IntRange(0, 23).Draw(t, "hour"), rapid.IntRange(0, 59).Draw(t, "minute"), 0, 0, time.FixedZone("", 3600)).AddDate(0, 0, rapid.IntRange(-400, 6).Draw(t, "day")),
			Path: of("path", "http", "radius", "console"), MFA: rapid.Bool().Draw(t, "mfa"), NAS: of("nas", "", "vpn1", "wifi"),
			MFAAge: time.Duration(rapid.Int64Range(0, 600_000).Draw(t, "age")) * time.Millisecond,
		},
	}
	for _, r := range []Role{Superuser, Helpdesk, Provisioner, Auditor, Verifier, "night"} {
		if rapid.IntRange(0, 3).Draw(t, string(r)) == 0 {
			q.Principal.Roles = append(q.Principal.Roles, r, r)
		}
	}
	for _, a := range []*netip.Addr{&q.Context.Source, &q.Context.Caller} {
		if text := of("address", "", "10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1", "2001:db8::1"); text != "" {
			*a = netip.MustParseAddr(text)
		}
	}
	if q.Action == Verify && rapid.Bool().Draw(t, "known") {
		r := &q.Resource
		r.Kind, r.Model, r.AAGUID, r.Attested, r.Unused = "fido", "Key 5", of("aaguid", "", "a", "b"), rapid.Bool().Draw(t, "attested"), rapid.Int64Range(0, 200).Draw(t, "unused")
	}
	return q
}

func TestTheIndexAndTheShortcutsAnswerWhatCedarDoes(t *testing.T) {
	texts := pool(t)
	var allowed, denied, faulty, several int
	rapid.Check(t, func(t *rapid.T) {
		var src Source
		n := rapid.IntRange(0, 30).Draw(t, "policies")
		for i := range n {
			src.Policies = append(src.Policies, Item{ID: fmt.Sprintf("p%02d", i), Text: rapid.SampledFrom(texts).Draw(t, "policy")})
		}
		set, err := Compile(src)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			q := drawQuery(t)
			got, want := set.Decide(&q), plain(set, q)
			if got.Allow != want.Allow || !slices.Equal(got.Policies, want.Policies) || !slices.Equal(got.Faults, want.Faults) {
				t.Fatalf("%+v\n%+v\n Cedar says %+v\n by %+v", q, got, want, src)
			}
			if got.Allow == (got.Reason != "") || got.Allow && len(got.Policies) == 0 || got.MFA && got.Allow {
				t.Fatalf("%+v: %+v", q, got)
			}
			young := q
			young.Context.MFA, young.Context.MFAAge = true, 0
			if lacks := q.Principal.Kind == KindAdmin && !want.Allow && len(want.Faults) == 0 && plain(set, young).Allow; got.MFA != lacks {
				t.Fatalf("%+v: a younger proof lacks: %v, want %v", q, got.MFA, lacks)
			}
			switch {
			case got.Allow:
				allowed++
			default:
				denied++
			}
			if len(got.Faults) > 0 {
				faulty++
			}
			if len(got.Policies) > 1 {
				several++
			}
		}
	})
	if min(allowed, denied, faulty, several) < 5 {
		t.Errorf("%d allowed, %d denied, %d with faults, %d by several policies: too few of a kind to tell", allowed, denied, faulty, several)
	}
}
