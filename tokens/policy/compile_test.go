package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// refused are the problems of a source that must not compile.
func refused(t *testing.T, src Source) []Problem {
	t.Helper()
	set, err := Compile(src)
	var e *Errors
	if !errors.As(err, &e) || set != nil || len(e.Problems) == 0 {
		t.Fatalf("%+v: %v, %v", src, set, err)
	}
	return e.Problems
}

func TestAPolicyThatIsWrongIsRefusedWithItsPlace(t *testing.T) {
	for _, c := range []struct {
		text         string
		line, column int
		expression   string
		says         string
	}{
		{``, 0, 0, ``, `the text holds no policy`},
		{`// nothing`, 0, 0, ``, `the text holds no policy`},
		{`permit (principal, action, resource)`, 1, 37, ``, `";" must stand here, and the text ends`},
		{`permit (principal, action, resource);
forbid (principal, action, resource);`, 2, 1, ``, `a second policy begins here: each has an id of its own`},
		{`allow (principal, action, resource);`, 1, 1, `allow`, `a policy begins with permit or forbid, and before it may stand @annotations`},
		{`permit principal, action, resource);`, 1, 8, `principal`, `"(" must stand here`},
		{`permit (principal action, resource);`, 1, 19, `action`, `"," or the closing bracket must stand here`},
		{`permit (principal, action, resource) when { };`, 1, 45, `}`, `a value must stand here: principal, action, resource, context, a number, a text, an entity`},
		{`permit (principal, action, resource) when { context.hour = 3 };`, 1, 58, `=`, `"}" must stand here (equal is ==)`},
		{`permit (principal, action, resource) when { context.hour > 99999999999999999999 };`, 1, 60, `99999999999999999999`, `the number is too big`},
		{`permit (principal, action, resource) when { context.path == "\q" };`, 1, 61, ``, `invalid char escape`},
		{`permit (principal, action, resource) when { context.path == "abc };`, 1, 61, ``, `literal not terminated`},
		{`permit (principal, action, resource) when { context.path == "\u{110000}" };`, 1, 61, `"\u{110000}"`, `the text holds an escape that there is not`},
		{`permit (principal, action, resource)
when { foo };`, 2, 8, `foo`, `a value must stand here: principal, action, resource, context, a number, a text, an entity`},
		{`permit (principal, action, resource)
when { foo`, 2, 8, `foo`, `a value must stand here: principal, action, resource, context, a number, a text, an entity`},
		{`permit (principal, action, resource)
when { foo(3) };`, 2, 8, `foo`, "`foo` is not a function"},
		{`permit (principal, action, resource)
when { context.source.inRange(ip("10.0.0.0/8")) };`, 2, 23, `inRange`, "`inRange` is not a method"},
		{`permit (principal, action, resource)
when { [1,2].contains() };`, 2, 14, `contains`, `contains expects one argument`},
		{`permit (principal, action, resource)
when { {a: 1, a: 2} == {a: 1} };`, 2, 15, `a`, `duplicate key: a`},
		{`permit (principal, action, resource)
when { context.hour == 3 && (context.minute == 4 };`, 2, 50, `}`, `")" must stand here`},
		{`permit (principal == Watchword::Role, action, resource);`, 1, 37, `,`, `"::" must stand here`},
		{`permit (principal, action == Watchword::Action::"token.loose", resource);`, 1, 30, `Watchword::Action::"token.loose"`, "unrecognized action `Watchword::Action::\"token.loose\"`"},
		{`permit (principal, action == Action::"token.lost", resource);`, 1, 30, `Action::"token.lost"`, "unrecognized action `Action::\"token.lost\"` (write Watchword::Action::\"token.lost\")"},
		{`permit (principal in Role::"helpdesk", action, resource);`, 1, 22, `Role`, "unrecognized entity type `Role` (write Watchword::Role)"},
		{`permit (principal in Watchword::Roll::"helpdesk", action, resource);`, 1, 22, `Watchword::Roll`, "unrecognized entity type `Watchword::Roll`"},
		{`permit (principal is Key, action, resource);`, 1, 22, `Key`, "unrecognized entity type `Key` (write Watchword::Key)"},
		{`permit (principal, action == Watchword::Action::"client.put", resource is Watchword::Token);`, 1, 1, ``, `nobody of this kind does any of these actions to anything of this type: the policy would never apply`},
		{`permit (principal in Watchword::Group::"corp/vpn", action, resource);`, 1, 1, ``, `nobody of this kind does any of these actions to anything of this type: the policy would never apply`},
		{`permit (principal == Watchword::User::"corp/vpn", action, resource);`, 1, 1, ``, `nobody of this kind does any of these actions to anything of this type: the policy would never apply`},
		{`permit (principal, action, resource in Watchword::Group::"vpn");`, 1, 40, `Watchword::Group::"vpn"`, `the id is written REALM/GROUP`},
		{`permit (principal, action, resource in Watchword::Group::"corp/VPN");`, 1, 40, `Watchword::Group::"corp/VPN"`, `it is named in lower case here`},
		{`permit (principal in Watchword::Role::"Help", action, resource);`, 1, 22, `Watchword::Role::"Help"`, `a role is 1 to 64 of a to z, 0 to 9 and -`},
		{`permit (principal, action, resource) when { context.hours > 3 };`, 1, 45, `context.hours`, "attribute `hours` in context not found"},
		{`permit (principal, action, resource)
when { context.hour > 3 &&
  context.minute < "4" };`, 3, 3, `context.minute < "4"`, `unexpected type: expected datetime, or duration, or Long but saw String`},
		{`permit (principal, action, resource) when { context.source.isInRange(ip("10.0.0.0/8")) };`, 1, 45, `context.source`, "unable to guarantee safety of access to optional attribute `source` in context"},
		{`permit (principal, action, resource) when { context has source && context.source.isInRange(ip("10.0.0.0/99")) };`, 1, 92, `ip("10.0.0.0/99")`, "failed to parse as IP address: `\"10.0.0.0/99\"`"},
		{`permit (principal, action, resource) when { resource.name == "x" };`, 1, 45, `resource.name`, "attribute `name` on entity type `Watchword::Installation` not found; attribute `name` on entity type `Watchword::Realm` not found; attribute `name` on entity type `Watchword::Token` not found"},
		{`permit (principal, action, resource is Watchword::Token) when { resource.attested };`, 1, 65, `resource.attested`, `this is known of a token only where it is verified: limit the policy to action == Watchword::Action::"verify"`},
		{`permit (principal, action == Watchword::Action::"verify", resource) when { resource.attested };`, 1, 76, `resource.attested`, "attribute `attested` on entity type `Watchword::Installation` not found; attribute `attested` on entity type `Watchword::Realm` not found; attribute `attested` on entity type `Watchword::User` not found"},
		{`permit (principal, action == Watchword::Action::"verify", resource is Watchword::Token) when { resource.aaguid == "x" };`, 1, 96, `resource.aaguid`, "unable to guarantee safety of access to optional attribute `aaguid` on entity type `Watchword::Token`"},
		{`permit (principal, action, resource) when { principal is Watchword::Key && principal is Watchword::Admin };`, 1, 38, ``, `the conditions hold for no question that there can be: the policy would never apply`},
		{`permit (principal, action, resource) when { context.hour };`, 1, 45, `context.hour`, `unexpected type: expected Bool but saw Long`},
		{`permit (principal, action, resource) when { context.nas like "x*" && context has nas && context.nas like "x*" };`, 1, 45, `context.nas`, "unable to guarantee safety of access to optional attribute `nas` in context"},
		{`permit (principal, action, resource) when { if context has nas then context.nas == 3 else false };`, 1, 69, `context.nas == 3`, `the types Long and String are not compatible`},
		{`permit (principal, action, resource) when { (context.hour + "a") == 3 };`, 1, 46, `context.hour + "a"`, `unexpected type: expected Long but saw String`},
		{`permit (principal, action, resource) when { context.weekday in ["mon"] };`, 1, 45, `context.weekday in ["mon"]`, `unexpected type: expected a set of entities, or an entity but saw Set<String>; unexpected type: expected an entity but saw String`},
		{`permit (principal, action, resource) when { ["mon", 3].contains(context.weekday) };`, 1, 45, `["mon", 3]`, `the types Long and String are not compatible`},
		{`permit (principal, action, resource) when { ip(context.path).isLoopback() };`, 1, 45, `ip(context.path)`, `extension constructors may not be called with non-literal expressions`},
		{`permit (principal == ?principal, action, resource);`, 1, 22, `?principal`, `slots are for templates`},
	} {
		p := refused(t, Source{Policies: []Item{{ID: "p", Text: c.text}}})
		if want := (Problem{ID: "p", Line: c.line, Column: c.column, Expression: c.expression, Says: c.says}); len(p) != 1 || p[0] != want {
			t.Errorf("%s\n  %+v, want\n  %+v", c.text, p, want)
		}
	}
}

// The place is that in the installation's own text, whatever stands before it.
func TestPlacesCountCharactersOfTheTextAsItWasWritten(t *testing.T) {
	for _, c := range []struct {
		text         string
		line, column int
	}{
		{"/* one\n two */ permit (principal, action, resource) when { context.hours > 3 };", 2, 53},
		{"// näheres: ?nothing \"\n@note(\"grün ?principal // \\\"\") permit (principal, action, resource) when { context.hours > 3 };", 2, 76},
		{"permit (\n\tprincipal,\r\n\taction,\n\tresource\n)\nunless { \"ä ö\" == context.path }\nwhen { \"é\" == context.paths };", 7, 15},
		{"permit (principal, action, resource) when { context.hour > 3 && context.hours > 4 } unless { context.hours > 4 };", 1, 65},
		{"permit (principal, action, resource) when { (context has nas && context.nas == \"a\") || context.nas == \"a\" };", 1, 88},
		{"permit (principal, action, resource) when { context.mfa.old };", 1, 45},
		{"permit (principal, action, resource) when { context has mfa.old.er };", 1, 38},
	} {
		p := refused(t, Source{Policies: []Item{{ID: "p", Text: c.text}}})
		if p[0].Line != c.line || p[0].Column != c.column {
			t.Errorf("%s\n  %+v, want %d:%d", c.text, p, c.line, c.column)
		}
	}
}

func TestIdsAreUniqueAndNoneIsBuiltIn(t *testing.T) {
	item := func(id string) Item { return Item{ID: id, Text: "permit (principal, action, resource);"} }
	slot := func(id string) Item { return Item{ID: id, Text: "permit (principal == ?principal, action, resource);"} }
	for says, src := range map[string]Source{
		"there are two of this id":    {Policies: []Item{item("a"), item("a")}},
		"there are two of this id; n": {Policies: []Item{item("a")}, Templates: []Item{slot("a")}},
		"there are two of this id; ":  {Templates: []Item{slot("a")}, Links: []Link{{ID: "a", Template: "a", Principal: `Watchword::Key::"k"`}}},
		"ids that begin with builtin": {Policies: []Item{item("builtin.mfa")}},
		"an id is 1 to 128":           {Policies: []Item{item("")}},
		"an id is 1 to 128 of":        {Policies: []Item{item("A")}},
		"an id is 1 to 128 of a":      {Policies: []Item{item(strings.Repeat("a", 129))}},
		"there are 5001 policies":     {Policies: make([]Item, 5001)},
		"the text is longer than":     {Policies: []Item{{ID: "a", Text: strings.Repeat(" ", 16<<10+1)}}},
		"brackets stand more than":    {Policies: []Item{{ID: "a", Text: "permit (principal, action, resource) when { " + strings.Repeat("(", 100)}}},
	} {
		if p := refused(t, src); len(p) != 1 || !strings.HasPrefix(p[0].Says, says) {
			t.Errorf("%+v, want %s", p, says)
		}
	}
}

func TestEachProblemOfASourceIsTold(t *testing.T) {
	p := refused(t, Source{
		Policies:  []Item{{ID: "b", Text: "permit (principal, action, resource) when { context.a && context.b };"}, {ID: "a", Text: "x"}},
		Templates: []Item{{ID: "t", Text: "permit (principal, action, resource);"}},
		Links:     []Link{{ID: "l", Template: "none"}},
	})
	var ids []string
	for _, x := range p {
		ids = append(ids, fmt.Sprint(x.ID, " ", x.Line, ":", x.Column))
	}
	if want := []string{"a 1:1", "b 1:45", "b 1:58", "l 0:0", "t 0:0"}; !slices.Equal(ids, want) {
		t.Errorf("%q, want %q: %v", ids, want, p)
	}
}

func TestATemplateThatIsWrongIsRefusedWithItsPlace(t *testing.T) {
	for _, c := range []struct {
		text         string
		line, column int
		says         string
	}{
		{`permit (principal, action, resource);`, 0, 0, "a template has ?principal or ?resource in its scope"},
		{`permit (principal == ?resource, action, resource);`, 1, 22, "a slot stands once, in the scope"},
		{`permit (principal, action == ?principal, resource);`, 1, 30, "a slot stands once, in the scope"},
		{`permit (principal, action in [?principal], resource);`, 1, 31, "a slot stands once, in the scope"},
		{`permit (principal == ?principal, action, resource in ?principal);`, 1, 54, "a slot stands once, in the scope"},
		{`permit (principal == ?principal, action, resource in ?resource) when { resource in ?resource };`, 1, 84, "a slot stands once, in the scope"},
		{`permit (principal == ?who, action, resource);`, 1, 22, "there are the slots ?principal and ?resource"},
		{`permit (principal is ?principal, action, resource);`, 1, 22, "this cannot stand here"},
		{`permit (principal == ?principal, action, resource) whence { true };`, 1, 52, `";" must stand here`},
		{`permit (principal in ?principal, action, resource == ?resource) when { principal.realms == "a" };`, 1, 72, "attribute `realms`"},
		{`permit (principal == __slot::"principal", action, resource);`, 1, 22, "this name is reserved"},
		{`permit (principal == ?principal, action == Watchword::Action::"verify", resource in ?resource) when { resource.name == "a" };`, 1, 103, "attribute `name` on entity type `Watchword::Installation` not found"},
		{`permit (principal is Watchword::User in ?principal, action, resource);`, 1, 1, "nobody of this kind"},
	} {
		p := refused(t, Source{Templates: []Item{{ID: "t", Text: c.text}}})
		if len(p) != 1 || p[0].ID != "t" || p[0].Line != c.line || p[0].Column != c.column || !strings.HasPrefix(p[0].Says, c.says) {
			t.Errorf("%s\n  %+v, want %d:%d %s", c.text, p, c.line, c.column, c.says)
		}
	}
}

const deskTemplate = `// ?principal and "?resource" are whose desk it is
@note("the slot \"?principal\" is a role")
permit (
    principal in ?principal,
    action in [Watchword::Action::"token.resync", Watchword::Action::"user.unlock", Watchword::Action::"token.lost"],
    resource in ?resource
)
unless { context.path == "?resource" };`

func TestALinkIsItsTemplateWithTheSlotsFilled(t *testing.T) {
	src := Source{
		Templates: []Item{{ID: "desk", Text: deskTemplate}},
		Links: []Link{
			{ID: "desk.corp", Template: "desk", Principal: `Watchword::Role::"corp-desk"`, Resource: `Watchword::Realm::"corp"`},
			{ID: "desk.key", Template: "desk", Principal: `Watchword::Key::"0011"`, Resource: `Watchword::Group::"lab/staff"`},
		},
	}
	set, err := Compile(src)
	if err != nil {
		t.Fatal(err)
	}
	if !set.Groups() || set.Verifies() {
		t.Errorf("it looks at groups: %v; at verifying: %v", set.Groups(), set.Verifies())
	}
	ask := func(p Principal, a Action, r Resource) string {
		d := set.Decide(&Query{Principal: p, Action: a, Resource: r, Context: Context{Now: time.Now(), Path: "http"}})
		return strings.Join(append([]string{fmt.Sprint(d.Allow)}, d.Policies...), " ")
	}
	admin := Principal{Kind: KindAdmin, ID: "corp/bob", Realm: "corp", Roles: []Role{"corp-desk"}}
	key := Principal{Kind: KindKey, ID: "0011"}
	for _, c := range []struct {
		p    Principal
		a    Action
		r    Resource
		want string
	}{
		{admin, TokenLost, Resource{Type: Token, Realm: "corp", Serial: "T1"}, "true desk.corp"},
		{admin, TokenLost, Resource{Type: Token, Realm: "corp", Serial: "T1", User: "alice"}, "true desk.corp"},
		{admin, UserUnlock, Resource{Type: User, Realm: "corp", User: "alice"}, "true desk.corp"},
		{admin, UserExport, Resource{Type: Realm, Realm: "corp"}, "false builtin.mfa"},
		{admin, TokenRevoke, Resource{Type: Token, Realm: "corp", Serial: "T1"}, "false builtin.mfa"},
		{Principal{Kind: KindAdmin, ID: "corp/bob", Roles: []Role{"corp-desk"}}, TokenLost, Resource{Type: Token, Realm: "lab", Serial: "T1"}, "false"},
		{key, UserUnlock, Resource{Type: User, Realm: "lab", User: "alice", Groups: []string{"staff"}}, "true desk.key"},
		{key, TokenResync, Resource{Type: Token, Realm: "lab", User: "alice", Serial: "T", Groups: []string{"x", "staff"}}, "true desk.key"},
		{key, UserUnlock, Resource{Type: User, Realm: "lab", User: "alice", Groups: []string{"x"}}, "false"},
		{key, UserUnlock, Resource{Type: User, Realm: "corp", User: "alice", Groups: []string{"staff"}}, "false"},
	} {
		if got := ask(c.p, c.a, c.r); got != c.want {
			t.Errorf("%+v %s %+v: %s, want %s", c.p, c.a, c.r, got, c.want)
		}
	}
	// What is changed of a template is changed of each of its links.
	src.Templates[0].Text = strings.Replace(deskTemplate, "token.lost", "user.export", 1)
	if set, err = Compile(src); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		p    Principal
		a    Action
		r    Resource
		want string
	}{
		{admin, TokenLost, Resource{Type: Token, Realm: "corp", Serial: "T1"}, "false"},
		{admin, UserUnlock, Resource{Type: User, Realm: "corp", User: "alice"}, "true desk.corp"},
		{key, TokenLost, Resource{Type: Token, Realm: "lab", User: "alice", Serial: "T", Groups: []string{"staff"}}, "false"},
	} {
		if got := ask(c.p, c.a, c.r); got != c.want {
			t.Errorf("after the change, %+v %s %+v: %s, want %s", c.p, c.a, c.r, got, c.want)
		}
	}
}

func TestALinkThatIsWrongIsRefused(t *testing.T) {
	items := []Item{
		{ID: "both", Text: deskTemplate},
		{ID: "who", Text: `forbid (principal == ?principal, action == Watchword::Action::"verify", resource);`},
		{ID: "where", Text: `forbid (principal, action == Watchword::Action::"client.put", resource in ?resource);`},
		{ID: "person", Text: `forbid (principal is Watchword::Admin in ?principal, action, resource);`},
	}
	const role, realm = `Watchword::Role::"desk"`, `Watchword::Realm::"corp"`
	for _, c := range []struct {
		l    Link
		says string
	}{
		{Link{Template: "none"}, `there is no template "none"`},
		{Link{Template: "both", Principal: role}, "has the slot ?resource"},
		{Link{Template: "both", Resource: realm}, "has the slot ?principal"},
		{Link{Template: "who", Principal: `Watchword::Key::"1"`, Resource: realm}, "has no slot ?resource"},
		{Link{Template: "both", Principal: role, Resource: `Watchword::Realm::"Corp"`}, "in lower case"},
		{Link{Template: "both", Principal: role, Resource: `Watchword::Group::"corp"`}, "REALM/GROUP"},
		{Link{Template: "both", Principal: realm, Resource: realm}, "would never apply"},
		{Link{Template: "both", Principal: role, Resource: role}, "would never apply"},
		{Link{Template: "where", Resource: `Watchword::User::"corp/alice"`}, "would never apply"},
		{Link{Template: "who", Principal: role}, "would never apply"},
		{Link{Template: "both", Principal: role, Resource: "corp"}, "an entity is written like"},
		{Link{Template: "both", Principal: role, Resource: `Realm::"corp"`}, "an entity is written like"},
		{Link{Template: "both", Principal: role, Resource: `Watchword::Realm`}, "an entity is written like"},
		{Link{Template: "both", Principal: role, Resource: `Watchword::Realm::"corp" /* */`}, "an entity is written like"},
		{Link{Template: "both", Principal: role, Resource: `Watchword::/**/Realm::"corp"`}, "an entity is written like"},
		{Link{Template: "both", Principal: role, Resource: `__slot::"resource"`}, "an entity is written like"},
		{Link{Template: "both", Principal: role, Resource: `?resource`}, "an entity is written like"},
		{Link{Template: "both", Principal: role, Resource: `Watchword::Action::"verify"`}, "would never apply"},
		{Link{Template: "both", Principal: `Watchword::Role::"desk", action, resource) when { true }; permit (principal == Watchword::Role::"x"`, Resource: realm}, "an entity is written like"},
		{Link{Template: "both", Principal: role, Resource: realm + ` || true`}, "an entity is written like"},
	} {
		c.l.ID = "l"
		p := refused(t, Source{Templates: items, Links: []Link{c.l}})
		if len(p) != 1 || p[0].ID != "l" || !strings.Contains(p[0].Says, c.says) {
			t.Errorf("%+v:\n  %+v, want %s", c.l, p, c.says)
		}
	}
}

// However wrong a policy is, and however twisted, it takes seconds at most to say so.
func TestATwistedPolicyIsRefusedSoon(t *testing.T) {
	many := func(n int, each func(i int) string, between string) string {
		list := make([]string, n)
		for i := range list {
			list[i] = each(i)
		}
		return strings.Join(list, between)
	}
	for name, text := range map[string]string{
		"wrong all over":    many(400, func(i int) string { return fmt.Sprintf("context.a%d", i) }, " && "),
		"a wrong tail":      many(300, func(i int) string { return "context.hour > 3" }, " || ") + " || context.a",
		"times and numbers": many(100, func(i int) string { return fmt.Sprintf("context.now < %d", i) }, " && "),
		"negated":           strings.Repeat("!", 1900) + "context.a",
		"many ifs":          strings.Repeat("if context.hour == 3 then true else ", 150) + "context.a",
		"long chain":        "context" + strings.Repeat(".a", 900),
		"unknown actions":   many(200, func(i int) string { return "action == Watchword::Action::\"verify\"" }, " || ") + " || context.a",
	} {
		begin := time.Now()
		p := refused(t, Source{Policies: []Item{{ID: "p", Text: "permit (principal, action, resource) when { " + text + " };"}}})
		if took := time.Since(begin); took > time.Minute || p[0].Line != 1 {
			t.Errorf("%s: after %v: %+v", name, took, p[0])
		} else {
			t.Logf("%s: %v, %d problems, the first at %d", name, took, len(p), p[0].Column)
		}
	}
	for name, text := range map[string]string{
		"too many words": many(1000, func(i int) string { return "true" }, " && "),
		"too deep":       strings.Repeat("[", 100),
	} {
		if p := refused(t, Source{Policies: []Item{{ID: "p", Text: "permit (principal, action, resource) when { " + text + " };"}}}); len(p) != 1 || p[0].Column < 50 {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
