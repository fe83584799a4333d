package policy

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// page is the document for administrators.
func page(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var fence = regexp.MustCompile("(?s)\n```cedar\n(.*?)```\n")

// examples are the policies and templates of the document.
func examples(t *testing.T) (src Source) {
	t.Helper()
	for i, m := range fence.FindAllStringSubmatch(page(t), -1) {
		item := Item{ID: fmt.Sprintf("example%d", i), Text: m[1]}
		if strings.Contains(m[1], "?") {
			src.Templates = append(src.Templates, item)
		} else {
			src.Policies = append(src.Policies, item)
		}
	}
	if len(src.Policies) < 6 || len(src.Templates) < 1 {
		t.Fatalf("the document has %d policies and %d templates", len(src.Policies), len(src.Templates))
	}
	return src
}

func TestEachExampleOfTheDocumentDoesWhatItSays(t *testing.T) {
	src := examples(t)
	link := Link{ID: "desk", Template: src.Templates[0].ID}
	for _, m := range regexp.MustCompile("\\| `\\?(principal|resource)` \\| `([^`]*)` \\|").FindAllStringSubmatch(page(t), -1) {
		if m[1] == "principal" {
			link.Principal = m[2]
		} else {
			link.Resource = m[2]
		}
	}
	src.Links = []Link{link}
	set, err := Compile(src)
	if err != nil {
		t.Fatal(err)
	}
	monday := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	verify := func(change func(*Query)) *Query {
		q := verifyQuery()
		q.Principal.ID, q.Context.Now = "vpn", monday
		change(q)
		return q
	}
	admin := func(action Action, change func(*Query)) *Query {
		q := at(KindAdmin, action, Superuser)
		q.Context.Now, q.Context.MFA, q.Context.MFAAge, q.Context.Source = monday, true, 30*time.Second, verifyQuery().Context.Source
		change(q)
		return q
	}
	for _, c := range []struct {
		name string
		q    *Query
		want string
	}{
		{"in working hours", verify(func(*Query) {}), ""},
		{"at night", verify(func(q *Query) { q.Context.Now = monday.Add(-5 * time.Hour) }), "example0"},
		{"on Sunday", verify(func(q *Query) { q.Context.Now = monday.AddDate(0, 0, -1) }), "example0"},
		{"on Sunday, on call", verify(func(q *Query) { q.Context.Now, q.Resource.Groups = monday.AddDate(0, 0, -1), []string{"on-call"} }), ""},
		{"from another network", admin(TokenRevoke, func(*Query) {}), "example1"},
		{"from nowhere", admin(TokenRevoke, func(q *Query) { q.Context.Source = q.Context.Caller }), "example1"},
		{"from the administrators' network", admin(TokenRevoke, func(q *Query) { q.Context.Source = netip.MustParseAddr("10.20.1.2") }), ""},
		{"not protected", admin(UserShow, func(*Query) {}), ""},
		{"the lab's helpdesk", admin(UserUnlock, func(q *Query) {
			q.Principal.Realm, q.Principal.Roles = "corp", []Role{"lab-desk"}
			q.Resource = Resource{Type: User, Realm: "corp", User: "ann", Groups: []string{"lab"}}
		}), ""},
		{"the lab's helpdesk, for another", admin(UserUnlock, func(q *Query) {
			q.Principal.Realm, q.Principal.Roles = "corp", []Role{"lab-desk"}
			q.Resource = Resource{Type: User, Realm: "corp", User: "ann", Groups: []string{"sales"}}
		}), "none"},
		{"a code in the data centre", verify(func(q *Query) { q.Resource.Groups = []string{"datacentre"} }), "example3"},
		{"an attested key", verify(func(q *Query) {
			q.Resource.Groups, q.Resource.Attested, q.Resource.AAGUID = []string{"datacentre"}, true, "2fc0579f-8113-47ea-b116-bb5a8db9202a"
		}), ""},
		{"an attested key of another model", verify(func(q *Query) {
			q.Resource.Groups, q.Resource.Attested, q.Resource.AAGUID = []string{"datacentre"}, true, "00000000-8113-47ea-b116-bb5a8db9202a"
		}), "example3"},
		{"after 90 days", verify(func(q *Query) { q.Resource.Unused = 90 }), ""},
		{"after 91 days", verify(func(q *Query) { q.Resource.Unused = 91 }), "example4"},
		{"after 91 days, elsewhere", verify(func(q *Query) { q.Resource.Unused, q.Principal.ID = 91, "wifi" }), ""},
		{"lost, proved now", admin(TokenLost, func(*Query) {}), ""},
		{"lost, proved a minute ago", admin(TokenLost, func(q *Query) { q.Context.MFAAge = time.Minute }), "example5"},
		{"the link", admin(TokenResync, func(q *Query) {
			q.Principal.Realm, q.Principal.Roles = "corp", []Role{"corp-desk"}
			q.Resource = Resource{Type: Token, Realm: "corp", Serial: "T1"}
		}), ""},
	} {
		d := set.Decide(c.q)
		if d.Allow != (c.want == "") || c.want == "none" && len(d.Policies) > 0 || strings.HasPrefix(c.want, "ex") && !slices.Equal(d.Policies, []string{c.want}) {
			t.Errorf("%s: %+v, want %q", c.name, d, c.want)
		}
	}
}

// The document names each attribute, type, role and group of actions that there is,
// and none that there is not.
func TestTheDocumentHasTheWordsOfTheSchema(t *testing.T) {
	text := page(t)
	v := words()
	for name, e := range v.schema.Entities {
		if name != typeRole && !strings.Contains(text, "| `"+string(name)+"` |") {
			t.Errorf("it does not have %s", name)
		}
		for a := range e.Shape {
			if !strings.Contains(text, "`"+string(a)+"`") {
				t.Errorf("it does not have the attribute %s of %s", a, name)
			}
		}
	}
	for a := range v.schema.Actions[actionUID(Verify)].AppliesTo.Context {
		if !strings.Contains(text, "`context."+string(a)) {
			t.Errorf("it does not have context.%s", a)
		}
	}
	for name := range v.members {
		if v.actions[Action(name)] == nil && !strings.Contains(text, "| `"+name+"` |") {
			t.Errorf("it does not have the group %s", name)
		}
	}
	for _, m := range regexp.MustCompile(`Watchword::(\w+)(?:::"([^"]*)")?`).FindAllStringSubmatch(text, -1) {
		if !known(namespace + m[1]) {
			t.Errorf("there is no %s", m[0])
		}
		if _, ok := v.members[m[2]]; m[1] == "Action" && !ok {
			t.Errorf("there is no %s", m[0])
		}
	}
	for _, r := range roleOf {
		if !strings.Contains(text, "| `"+string(r)+"` |") {
			t.Errorf("it does not have the role %s", r)
		}
	}
}
