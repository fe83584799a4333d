package policy

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func compiled(t *testing.T, texts ...string) *Set {
	t.Helper()
	var src Source
	for i, text := range texts {
		src.Policies = append(src.Policies, Item{ID: "p" + string(rune('0'+i)), Text: text})
	}
	set, err := Compile(src)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

const (
	permitAll = `permit (principal, action, resource);`
	forbidAll = `forbid (principal, action, resource);`
)

// Whatever the roles and the policies, one realm's principal acts in no other, and not
// on what belongs to no realm.
func TestWhateverPoliciesSayNothingCrossesRealms(t *testing.T) {
	set := compiled(t, permitAll, `permit (principal in Watchword::Role::"night", action, resource in Watchword::Realm::"corp2");`)
	rapid.Check(t, func(t *rapid.T) {
		q := drawQuery(t)
		q.Principal.Realm = rapid.SampledFrom([]string{"corp", "corp2", "default"}).Draw(t, "own")
		q.Resource.Realm = rapid.SampledFrom([]string{"", "corp", "corp2", "default", "CORP"}).Draw(t, "in")
		q.Context.MFA, q.Context.MFAAge = true, 0
		if d := set.Decide(&q); d.Allow != (q.Principal.Realm == q.Resource.Realm) || !d.Allow && !strings.Contains(d.Reason, "another realm") {
			t.Fatalf("%+v: %+v", q, d)
		}
	})
}

func TestNobodyIsLockedOutOfThePolicies(t *testing.T) {
	set := compiled(t, forbidAll, `forbid (principal, action, resource) when { context.hour * 9000000000000000000 > 3 };`)
	for action := range everything {
		key := at(KindKey, action, Superuser)
		key.Principal.Realm, key.Resource = "", Resource{Type: Installation}
		if d := set.Decide(key); d.Allow != strings.HasPrefix(string(action), "policy.") {
			t.Errorf("a superuser's key for all realms, %s: %+v", action, d)
		}
		for name, q := range map[string]*Query{"of one realm": at(KindKey, action, Superuser), "with another role": at(KindKey, action, Auditor), "a person": at(KindAdmin, action, Superuser)} {
			if name != "of one realm" {
				q.Principal.Realm = ""
			}
			q.Context.MFA = true
			if d := set.Decide(q); d.Allow {
				t.Errorf("a key %s, %s: %+v", name, action, d)
			}
		}
		if d := set.Decide(at(KindSystem, action, Superuser)); !d.Allow {
			t.Errorf("the server itself, %s: %+v", action, d)
		}
		if d := set.Decide(at(KindSystem, action, Verifier)); d.Allow {
			t.Errorf("the console, %s: %+v", action, d)
		}
	}
}

func TestForbidBeatsPermitAndBothAreNamed(t *testing.T) {
	set := compiled(t, permitAll, `permit (principal in Watchword::Role::"night", action, resource);`, `forbid (principal, action == Watchword::Action::"token.lost", resource);`,
		`forbid (principal, action in Watchword::Action::"helpdesk", resource in Watchword::Group::"default/chiefs");`)
	chief := at(KindKey, TokenLost, "night")
	chief.Resource = Resource{Type: User, Realm: "default", User: "ann", Groups: []string{"staff", "chiefs"}}
	for _, c := range []struct {
		q        *Query
		allow    bool
		policies []string
		reason   string
	}{
		{at(KindKey, UserShow), true, []string{"p0"}, ""},
		{at(KindKey, UserShow, "night"), true, []string{"p0", "p1"}, ""},
		{at(KindKey, UserShow, "night", Helpdesk), true, []string{"builtin.helpdesk", "p0", "p1"}, ""},
		{at(KindKey, TokenLost, "night"), false, []string{"p2"}, "policy p2 forbids it"},
		{chief, false, []string{"p2", "p3"}, "policies p2, p3 forbid it"},
	} {
		if d := set.Decide(c.q); d.Allow != c.allow || !slices.Equal(d.Policies, c.policies) || d.Reason != c.reason {
			t.Errorf("%+v: %+v, want %+v", c.q, d, c)
		}
	}
}

func TestWhatCannotBeEvaluatedDenies(t *testing.T) {
	for _, text := range []string{
		`permit (principal, action, resource) when { context.hour * 9000000000000000000 > context.hour };`,
		`forbid (principal, action, resource) when { context.hour * 9000000000000000000 > context.hour };`,
		`forbid (principal, action == Watchword::Action::"verify", resource is Watchword::Token) unless { resource.attested };`,
	} {
		set := compiled(t, text, permitAll)
		q := verifyQuery()
		q.Resource.Kind = "" // it is not known which token it is
		d := set.Decide(q)
		if d.Allow || len(d.Faults) != 1 || !strings.HasPrefix(d.Faults[0], "p0: ") || !slices.Equal(d.Policies, []string{"p0"}) || !strings.Contains(d.Reason, d.Faults[0]) || d.MFA {
			t.Errorf("%s: %+v", text, d)
		}
	}
}

// A question is brought to what it can be, so that it is always one that the schema
// knows.
func TestAQuestionIsAboutTheNarrowestThatIsNamed(t *testing.T) {
	all := uint8(everyType)
	place := bit(types, Installation) | bit(types, Realm)
	groups := []string{"a"}
	for _, c := range []struct {
		in   Resource
		can  uint8
		want Resource
	}{
		{Resource{}, all, Resource{Type: Installation}},
		{Resource{Type: "Group", Realm: "r"}, all, Resource{Type: Realm, Realm: "r"}},
		{Resource{Type: Token, User: "u", Serial: "s"}, all, Resource{Type: Installation}},
		{Resource{Type: Realm, Realm: "r", User: "u", Serial: "s", Groups: groups}, all, Resource{Type: Realm, Realm: "r"}},
		{Resource{Type: User, Realm: "r", User: "u", Serial: "s", Groups: groups}, all, Resource{Type: User, Realm: "r", User: "u", Groups: groups}},
		{Resource{Type: User, Realm: "r"}, all, Resource{Type: Realm, Realm: "r"}},
		{Resource{Type: Token, Realm: "r", User: "u", Serial: "s", Groups: groups}, all, Resource{Type: Token, Realm: "r", User: "u", Serial: "s", Groups: groups}},
		{Resource{Type: Token, Realm: "r", Serial: "s", Groups: groups}, all, Resource{Type: Token, Realm: "r", Serial: "s"}},
		{Resource{Type: Token, Realm: "r", User: "u", Groups: groups}, all, Resource{Type: User, Realm: "r", User: "u", Groups: groups}},
		{Resource{Type: Token, Realm: "r", User: "u", Serial: "s"}, place, Resource{Type: Realm, Realm: "r"}},
		{Resource{Type: User, Realm: "r", User: "u"}, place, Resource{Type: Realm, Realm: "r"}},
	} {
		got := c.in
		got.settle(c.can)
		if got.Type != c.want.Type || got.Realm != c.want.Realm || got.User != c.want.User || got.Serial != c.want.Serial || !slices.Equal(got.Groups, c.want.Groups) {
			t.Errorf("%+v: %+v, want %+v", c.in, got, c.want)
		}
	}
}

func TestNoTwoThingsHaveOneID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringOfN(rapid.SampledFrom([]rune("ab/%2F5ä")), 0, 6, -1)
		r1, n1, r2, n2 := name.Draw(t, "realm"), name.Draw(t, "name"), name.Draw(t, "another realm"), name.Draw(t, "another name")
		if ID(r1, n1) == ID(r2, n2) && (r1 != r2 || n1 != n2) {
			t.Fatalf("%q is that of %q in %q and of %q in %q", ID(r1, n1), n1, r1, n2, r2)
		}
		if r, n, ok := parseID(ID(r1, n1)); !ok || r != r1 || n != n1 {
			t.Fatalf("%q in %q is read as %q in %q, %v", n1, r1, n, r, ok)
		}
		any := name.Draw(t, "any")
		if r, n, ok := parseID(any); ok && ID(r, n) != any {
			t.Fatalf("%q is read, and is not written so", any)
		}
	})
}

func TestPoliciesThatApplyAreListed(t *testing.T) {
	set, err := Compile(Source{
		Policies: []Item{
			{ID: "hours", Text: `forbid (principal is Watchword::Client, action == Watchword::Action::"verify", resource) when { context.hour < 6 };`},
			{ID: "lab", Text: `permit (principal in Watchword::Role::"night", action in [Watchword::Action::"client.put", Watchword::Action::"user.show"], resource in Watchword::Realm::"lab");`},
		},
		Templates: []Item{{ID: "t", Text: `permit (principal, action == Watchword::Action::"user.unlock", resource in ?resource);`}},
		Links:     []Link{{ID: "staff", Template: "t", Resource: `Watchword::Group::"lab/staff"`}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ids := func(p *Principal, r *Resource) string {
		var list []string
		for _, a := range set.Applying(p, r) {
			if !a.BuiltIn {
				list = append(list, a.ID)
			}
		}
		return strings.Join(list, " ")
	}
	night := &Principal{Kind: KindKey, ID: "1", Roles: []Role{"night"}}
	ann := &Resource{Type: User, Realm: "lab", User: "ann", Groups: []string{"staff"}}
	for _, c := range []struct {
		p    *Principal
		r    *Resource
		want string
	}{
		{nil, nil, "hours lab staff"},
		{night, nil, "lab staff"},
		{&Principal{Kind: KindClient, ID: "nas"}, nil, "hours staff"},
		{nil, ann, "hours lab staff"},
		{nil, &Resource{Type: User, Realm: "lab", User: "ben"}, "hours lab"},
		{nil, &Resource{Type: Realm, Realm: "corp"}, "hours"},
		{night, ann, "lab staff"},
		{&Principal{Kind: KindKey, ID: "1", Realm: "corp", Roles: []Role{"night"}}, ann, ""},
		{&Principal{Kind: KindSystem, Roles: []Role{Superuser}}, nil, ""},
	} {
		if got := ids(c.p, c.r); got != c.want {
			t.Errorf("%+v, %+v: %s, want %s", c.p, c.r, got, c.want)
		}
	}
	list := set.Applying(night, ann)
	if len(list) != 2 || list[0].Effect != "permit" || list[0].Conditional || !slices.Equal(list[0].Actions, []string{"user.show"}) || list[1].Template != "t" {
		t.Errorf("%+v", list)
	}
	list = set.Applying(&Principal{Kind: KindAdmin, ID: "lab/ann", Roles: []Role{Superuser}}, &Resource{Type: Installation})
	if len(list) != 2 || list[0].ID != "builtin.mfa" || list[0].Effect != "forbid" || !list[0].Conditional || list[1].ID != "builtin.superuser" || list[1].Actions != nil {
		t.Errorf("%+v", list)
	}
}
