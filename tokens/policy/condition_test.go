package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/x/exp/ast"
	"pgregory.net/rapid"
)

// unchecked is a set of conditions as policies that nothing was checked of: so they also
// hold what Cedar can only fail at.
func unchecked(t interface{ Fatal(...any) }, conditions ...string) *Set {
	all := slices.Clone(Builtin().entries)
	for i, c := range conditions {
		var p cedar.Policy
		effect := []string{"permit", "forbid"}[i%2]
		if err := p.UnmarshalCedar([]byte(effect + " (principal, action, resource) " + c + ";")); err != nil {
			t.Fatal(c, err)
		}
		all = append(all, newEntry(fmt.Sprintf("p%02d", i), (*ast.Policy)(p.AST())))
	}
	s := newSet(all)
	s.builtin = Builtin()
	return s
}

// Pieces of conditions, by their type. Of those with errors among them that only Cedar
// can evaluate, and those of a kind that is not read.
var (
	numbers = []string{"0", "3", "23", "90", "-1", "299", "context.hour", "context.minute", "context.mfa.age", "resource.unused_days", "context[\"hour\"]",
		"(context.hour + 1)", "(context.mfa.age * 9000000000000000000)", "context.nothing", "\"3\""}
	texts = []string{`"corp"`, `"ann"`, `"sun"`, `"radius"`, `"vpn1"`, `"fido"`, `"T1"`, `""`, "context.weekday", "context.path", "context.nas", "principal.realm", "principal.name", "principal.home",
		"resource.realm", "resource.name", "resource.serial", "resource.type", "resource.model", "resource.aaguid", "principal[\"name\"]", "principal.nothing", "7"}
	moments = []string{"context.now", `datetime("2026-01-01")`, `datetime("2026-11-22T12:30:00Z")`, `context.now.offset(duration("-1h"))`, `datetime("nonsense")`, "5"}
	ips     = []string{"context.source", "context.caller", `ip("10.0.0.0/8")`, `ip("10.1.2.3")`, `ip("::1")`, `ip("2001:db8::/32")`, `ip("::ffff:10.1.2.3")`, `ip("nonsense")`, `ip("10.1.2.3/8")`, `ip("::ffff:0:0/96")`, `ip("0.0.0.0/0")`, `ip("::/0")`}
	uids    = []string{
		`Watchword::Role::"helpdesk"`, `Watchword::Role::"night"`, `Watchword::Admin::"corp/ann"`, `Watchword::Key::"k1"`, `Watchword::Client::"nas"`, `Watchword::User::"corp/ann"`, `Watchword::Token::"corp/T1"`,
		`Watchword::Group::"corp/vpn"`, `Watchword::Realm::"corp"`, `Watchword::Installation::"this"`, `Watchword::Installation::"that"`, `Watchword::Action::"verify"`, `Watchword::Action::"read"`, `Watchword::User::"nonsense"`,
		`Admin::"corp/ann"`, `Role::"helpdesk"`, `User::"corp/ann"`, `Realm::"corp"`, `Group::"corp/vpn"`, `Action::"verify"`, // not of the namespace: nobody's, nothing's
	}
	bools = []string{
		"true", "false", "context.mfa.present", "resource.attested", "context has nas", "context has source", "context has caller", "resource has aaguid", "context has hour", "principal has home", "resource has name",
		"context has nothing", "context.mfa has age", "context.hour", "context.source.isLoopback()",
	}
	kindsOf = []string{"Watchword::Admin", "Watchword::Key", "Watchword::User", "Watchword::Token", "Watchword::Realm", "Watchword::Action", "Admin", "User"}
)

func drawCondition(t *rapid.T, depth int) string {
	of := func(name string, list []string) string { return rapid.SampledFrom(list).Draw(t, name) }
	pick := rapid.IntRange(0, 17).Draw(t, "shape")
	if depth == 0 {
		pick = max(pick, 6)
	}
	switch pick {
	case 0, 1:
		return "(" + drawCondition(t, depth-1) + " && " + drawCondition(t, depth-1) + ")"
	case 2, 3:
		return "(" + drawCondition(t, depth-1) + " || " + drawCondition(t, depth-1) + ")"
	case 4:
		return "!" + drawCondition(t, depth-1)
	case 5:
		return "(if " + drawCondition(t, depth-1) + " then " + drawCondition(t, depth-1) + " else " + drawCondition(t, depth-1) + ")"
	case 6, 7:
		return of("bool", bools)
	case 8:
		return "(" + of("number", numbers) + of("compare", []string{" < ", " <= ", " > ", " >= ", " == ", " != "}) + of("number", numbers) + ")"
	case 9, 10:
		return "(" + of("text", texts) + of("same", []string{" == ", " != "}) + of("text", texts) + ")"
	case 11:
		return "(" + of("text", texts) + " like " + of("pattern", []string{`"*"`, `"v*"`, `"*n"`, `"c*p"`, `""`, `"vpn1"`, `"\*"`, `"***"`, `"*r*"`}) + ")"
	case 12:
		list := rapid.SliceOfN(rapid.SampledFrom(texts[:8]), 0, 3).Draw(t, "list")
		return "[" + strings.Join(list, ", ") + "].contains(" + of("text", texts) + ")"
	case 13:
		list := rapid.SliceOfN(rapid.SampledFrom(numbers[:6]), 1, 3).Draw(t, "list")
		return "[" + strings.Join(list, ", ") + "].contains(" + of("number", numbers) + ")"
	case 14:
		return "(" + of("moment", moments) + of("compare", []string{" < ", " <= ", " > ", " >= ", " == "}) + of("moment", moments) + ")"
	case 15:
		a, b := of("address", ips), of("address", ips)
		return rapid.SampledFrom([]string{a + ".isInRange(" + b + ")", "(" + a + " == " + b + ")", a + ".isIpv4()", a + ".isIpv6()"}).Draw(t, "about")
	case 16:
		list := rapid.SliceOfN(rapid.SampledFrom(uids), 1, 3).Draw(t, "list")
		return "(" + of("variable", []string{"principal", "resource", "action"}) + " in [" + strings.Join(list, ", ") + "])"
	}
	v, uid := of("variable", []string{"principal", "resource", "action"}), of("entity", uids)
	switch rapid.IntRange(0, 5).Draw(t, "relation") {
	case 0:
		return "(" + v + " == " + uid + ")"
	case 1:
		return "(" + uid + " != " + v + ")"
	case 2:
		return "(" + v + " is " + of("type", kindsOf) + ")"
	case 3:
		return "(" + v + " is " + of("type", kindsOf) + " in " + uid + ")"
	case 4:
		return rapid.SampledFrom([]string{"(principal == resource)", "(resource == resource)", "(principal == principal)"}).Draw(t, "two")
	}
	return "(" + v + " in " + uid + ")"
}

// Whatever a condition says, evaluating it without Cedar answers what Cedar does; and
// where Cedar fails at it, so does Decide, in the same words.
func TestConditionsComeToWhatCedarSays(t *testing.T) {
	var sure, left, faults int
	rapid.Check(t, func(t *rapid.T) {
		var conditions []string
		for range rapid.IntRange(1, 3).Draw(t, "policies") {
			c := ""
			for range rapid.IntRange(1, 2).Draw(t, "conditions") {
				c += rapid.SampledFrom([]string{" when { ", " unless { "}).Draw(t, "kind") + drawCondition(t, rapid.IntRange(0, 3).Draw(t, "depth")) + " }"
			}
			conditions = append(conditions, c)
		}
		set := unchecked(t, conditions...)
		for range 10 {
			q := drawQuery(t)
			got, want := set.Decide(&q), plain(set, q)
			if got.Allow != want.Allow || !slices.Equal(got.Policies, want.Policies) || !slices.Equal(got.Faults, want.Faults) {
				t.Fatalf("%+v\n%+v\n Cedar says %+v\n by %s", q, got, want, conditions)
			}
			ask := q.asked()
			for _, e := range set.entries {
				switch is := e.conditional(ask); {
				case e.builtin:
				case is == unsure:
					left++
				default:
					sure++
				}
			}
			faults += len(got.Faults)
		}
	})
	if min(sure, left, faults) < 100 {
		t.Errorf("%d conditions were told, %d left to Cedar, %d faults: too few of a kind to tell", sure, left, faults)
	}
}

// asked is the question that a query is.
func (query *Query) asked() *question {
	q := &question{query: query, resource: query.Resource, kind: bit(kinds, query.Principal.Kind)}
	rule := words().actions[query.Action]
	q.resource.settle(rule.types)
	q.action, q.typ = rule.index, bit(types, q.resource.Type)
	return q
}

// What installations write is told without Cedar, and costs no allocation.
func TestOrdinaryPoliciesAreToldWithoutCedar(t *testing.T) {
	set, err := Compile(tenPolicies())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range set.entries {
		if !e.always && e.test == nil {
			t.Errorf("policy %s is Cedar's", e.id)
		}
	}
	q := verifyQuery()
	if n := testing.AllocsPerRun(100, func() { set.Decide(q) }); n != 0 {
		t.Errorf("it allocates %v times", n)
	}
}

// A type that only reads like one of ours is none: what it names is nobody and nothing.
func TestTypesOutsideTheNamespaceAreNotOurs(t *testing.T) {
	q := *verifyQuery()
	q.Principal = Principal{Kind: KindAdmin, ID: "corp/ann", Roles: []Role{Superuser}}
	q.Action, q.Resource = UserEdit, Resource{Type: User, Realm: "corp", User: "ann"}
	for _, c := range []string{
		`principal is Admin`, `principal == Admin::"corp/ann"`, `principal in Admin::"corp/ann"`, `principal in Role::"superuser"`,
		`resource is User`, `resource == User::"corp/ann"`, `resource in Realm::"corp"`, `action == Action::"user.edit"`, `action in Action::"all"`,
	} {
		for _, form := range []string{" when { " + c + " }", " unless { " + c + " }"} {
			set := unchecked(t, form, form)
			if got, want := set.Decide(&q), plain(set, q); got.Allow != want.Allow || !slices.Equal(got.Policies, want.Policies) {
				t.Errorf("%s: %+v; Cedar says %+v", form, got, want)
			}
		}
	}
}
