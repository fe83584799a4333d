package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// verifyQuery is what a gateway asks about a code.
func verifyQuery() *Query {
	return &Query{
		Principal: Principal{Kind: KindClient, ID: "vpn5000", Realm: "corp", Roles: []Role{Verifier, "role5000"}}, Action: Verify,
		Resource: Resource{Type: Token, Realm: "corp", User: "user5000", Serial: "T5000", Groups: []string{"staff", "group5000"}, Kind: "totp", Model: "c200", Unused: 3},
		Context:  Context{Now: time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC), Path: "radius", MFA: true, NAS: "vpn1", Source: netip.MustParseAddr("10.1.2.3")},
	}
}

// tenPolicies are such as an installation has.
func tenPolicies() (src Source) {
	for i, text := range []string{
		`forbid (principal, action == Watchword::Action::"verify", resource) when { context.hour < 6 };`,
		`forbid (principal, action == Watchword::Action::"verify", resource in Watchword::Group::"corp/externals") unless { context.weekday != "sat" && context.weekday != "sun" };`,
		`forbid (principal, action == Watchword::Action::"verify", resource is Watchword::Token) when { resource.unused_days > 90 };`,
		`forbid (principal, action == Watchword::Action::"verify", resource is Watchword::Token in Watchword::Group::"corp/admins") unless { resource.attested };`,
		`forbid (principal == Watchword::Client::"wifi", action == Watchword::Action::"verify", resource) unless { context has caller };`,
		`permit (principal in Watchword::Role::"night", action == Watchword::Action::"user.unlock", resource);`,
		`forbid (principal is Watchword::Admin, action in Watchword::Action::"protected", resource) unless { context has source && context.source.isInRange(ip("10.0.0.0/8")) };`,
		`permit (principal in Watchword::Role::"import", action in Watchword::Action::"provision", resource);`,
		`forbid (principal, action == Watchword::Action::"verify", resource) when { context has nas && context.nas like "lab*" };`,
		`permit (principal in Watchword::Role::"report", action in Watchword::Action::"read", resource);`,
	} {
		src.Policies = append(src.Policies, Item{ID: fmt.Sprintf("p%d", i), Text: text})
	}
	return src
}

// tenThousandLinks are links of one template, each for a principal or resource of its own.
func tenThousandLinks(template, principal, resource string) Source {
	src := Source{Templates: []Item{{ID: "t", Text: template}}}
	for i := range 10_000 {
		l := Link{ID: fmt.Sprintf("l%05d", i), Template: "t"}
		if principal != "" {
			l.Principal = numbered(principal, i)
		}
		if resource != "" {
			l.Resource = numbered(resource, i)
		}
		src.Links = append(src.Links, l)
	}
	return src
}

func sets() map[string]Source {
	const when = ` when { context.hour >= 8 && context.hour < 18 };`
	return map[string]Source{
		"builtin":         {},
		"10 policies":     tenPolicies(),
		"links/principal": tenThousandLinks(`permit (principal == ?principal, action == Watchword::Action::"verify", resource)`+when, `Watchword::Client::"vpn%d"`, ""),
		"links/role":      tenThousandLinks(`permit (principal in ?principal, action, resource)`+when, `Watchword::Role::"role%d"`, ""),
		"links/group":     tenThousandLinks(`permit (principal, action == Watchword::Action::"verify", resource in ?resource)`+when, "", `Watchword::Group::"corp/group%d"`),
		"links/user":      tenThousandLinks(`permit (principal, action == Watchword::Action::"verify", resource in ?resource)`+when, "", `Watchword::User::"corp/user%d"`),
		"links/both":      tenThousandLinks(`permit (principal in ?principal, action == Watchword::Action::"verify", resource in ?resource)`+when, `Watchword::Role::"verifier"`, `Watchword::User::"corp/user%d"`),
	}
}

func BenchmarkDecide(b *testing.B) {
	for name, src := range sets() {
		b.Run(name, func(b *testing.B) {
			set, err := Compile(src)
			if err != nil {
				b.Fatal(err)
			}
			q := verifyQuery()
			b.ReportAllocs()
			for b.Loop() {
				if d := set.Decide(q); !d.Allow {
					b.Fatal(d)
				}
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	for name, src := range sets() {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Compile(src); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func numbered(format string, i int) string {
	if !strings.Contains(format, "%") {
		return format
	}
	return fmt.Sprintf(format, i)
}

// A verification that only built-in policies decide costs nothing that must be
// collected.
func TestVerifyingByBuiltInPoliciesAllocatesNothing(t *testing.T) {
	set, q := Builtin(), verifyQuery()
	if n := testing.AllocsPerRun(100, func() { set.Decide(q) }); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}

// Ten thousand links are looked up, not gone through: what is not about a question
// costs it next to nothing.
func TestOfTenThousandLinksTheFewThatMatterAreAsked(t *testing.T) {
	for name, src := range sets() {
		set, err := Compile(src)
		if err != nil {
			t.Fatal(name, err)
		}
		q := verifyQuery()
		rule := words().actions[q.Action]
		ask := question{action: rule.index, kind: bit(kinds, q.Principal.Kind)}
		// What is looked at is what would hold if every scope did.
		x := set.index
		looked := len(x.actions[ask.action]) + len(x.principals[asker{ask.kind, q.Principal.ID}])
		for _, r := range q.Principal.Roles {
			looked += len(x.principals[asker{id: string(r)}])
		}
		r := q.Resource
		looked += len(x.resources[place{typ: Realm, realm: r.Realm}]) + len(x.resources[place{User, r.Realm, r.User}]) + len(x.resources[place{Token, r.Realm, r.Serial}])
		for _, g := range r.Groups {
			looked += len(x.resources[place{group, r.Realm, g}])
		}
		if want := 20; looked > want {
			t.Errorf("%s: %d policies are looked at", name, looked)
		}
		if d := set.Decide(q); !d.Allow || len(src.Links) > 0 && len(d.Policies) != 2 {
			t.Errorf("%s: %+v", name, d)
		}
	}
}
