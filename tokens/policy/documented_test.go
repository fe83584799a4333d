package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
)

// What Cedar's documentation says of its operators, in expressions of this schema. An
// expression is true, false, or refused: wrong types, which the strict validation
// finds, those included that would evaluate.
func TestOperatorsDoWhatCedarsDocumentationSays(t *testing.T) {
	const (
		yes = "true"
		no  = "false"
		bad = "refused"
	)
	for _, c := range []struct{ expression, want string }{
		// like
		{`"eggs" like "ham*"`, no}, {`"eggs" like "*ham*"`, no}, {`"ham and eggs" like "ham*"`, yes}, {`"ham and eggs" like "*ham"`, no},
		{`"ham and eggs" like "*h*a*m*"`, yes}, {`"eggs and ham" like "ham*"`, no}, {`"eggs and ham" like "*ham"`, yes}, {`"eggs, ham, and spinach" like "*ham*"`, yes},
		{`"Gotham" like "ham*"`, no}, {`"Gotham" like "*ham"`, yes}, {`"ham" like "ham"`, yes}, {`"ham" like "*ham*"`, yes}, {`"ham" like "*ham and eggs*"`, no},
		{`"\\afterslash" like "\\*"`, yes}, {`"string*with*stars" like "string\*with\*stars"`, yes}, {`"stringXwithXstars" like "string\*with\*stars"`, no}, {`context.hour like "1*"`, bad},
		// == and !=
		{`1 == 1`, yes}, {`"something" == "something"`, yes}, {`"Something" == "something"`, no}, {`[1, -33, 707] == [1, -33]`, no}, {`[1, 2, 40] == [1, 40, 2]`, yes},
		{`[1, 1, 1, 2, 40] == [40, 1, 2]`, yes}, {`5 == "5"`, bad}, {`"alice" == Watchword::User::"corp/alice"`, bad}, {`Watchword::User::"corp/a" == Watchword::User::"corp/a"`, yes},
		{`Watchword::User::"corp/a" == Watchword::User::"corp/b"`, no}, {`Watchword::User::"corp/a" == Watchword::Admin::"corp/a"`, no}, {`context.path != "radius"`, yes}, {`context.path != 1`, bad},
		// < <= > >= of long, datetime, duration
		{`3 < 303`, yes}, {`3 <= 3`, yes}, {`3 > 303`, no}, {`3 >= 303`, no}, {`3 < "3"`, bad}, {`false < true`, bad}, {`"" <= "zzz"`, bad}, {`[1, 2] < [47, 0]`, bad},
		{`datetime("1970-01-01") < datetime("1970-01-02")`, yes}, {`context.now < datetime("2024-10-15T11:38:33Z")`, no}, {`context.now <= datetime("2024-10-15T11:38:33Z")`, yes},
		{`datetime("1970-01-01T01:00:00Z") < 3600000`, bad}, {`duration("3h30m") < duration("15000s")`, yes}, {`duration("3d") < duration("72h")`, no}, {`duration("3d") >= duration("72h")`, yes},
		{`duration("3h30m") > duration("10000s")`, yes}, {`duration("1h") >= 3600000`, bad}, {`context.now > duration("1h")`, bad}, {`context has nas && context.hour < 5 && context.now.toTime() > 4`, bad}, {`context.now.toTime() > duration("4h")`, yes},
		// datetime and duration
		{`datetime("2024-10-15T11:35:00+0100") == datetime("2024-10-15T10:35:00Z")`, yes}, {`datetime("2024-10-15") == datetime("2024-10-15T00:00:00.000Z")`, yes},
		{`datetime("00011-12-13") == context.now`, bad}, {`datetime("2022-10-10 ") == context.now`, bad}, {`datetime("2024-10-15Z") == context.now`, bad}, {`datetime("2024-10-15T11:38:02ZZ") == context.now`, bad},
		{`datetime("2024-01-01T01:02") == context.now`, bad}, {`datetime("2024-01-01T00:00:00") == context.now`, bad}, {`datetime("2016-12-31T23:59:60.000Z") == context.now`, bad}, {`datetime(context.path) == context.now`, bad},
		{`duration("-1d12h").toHours() == -36`, yes}, {`duration("1h30m45s").toSeconds() == 5445`, yes}, {`duration("1d2h3m4s5ms ").toDays() == 1`, bad}, {`duration("1d2h3m4s5ms6").toDays() == 1`, bad},
		{`duration("d").toDays() == 1`, bad}, {`duration("1s1d").toDays() == 1`, bad}, {`duration("1s1s").toDays() == 1`, bad}, {`duration("1d9223372036854775807ms").toDays() == 1`, bad},
		{`context.now.offset(duration("1d")).toDate() == datetime("2024-10-16")`, yes}, {`context.now.toTime() == duration("11h38m33s")`, yes}, {`context.now.durationSince(datetime("2024-10-14")).toHours() == 35`, yes},
		// decimal
		{`decimal("1.23").lessThan(decimal("1.24"))`, yes}, {`decimal("1.23").lessThan(decimal("1.23"))`, no}, {`decimal("1.23").lessThanOrEqual(decimal("1.23"))`, yes}, {`decimal("-1.23").lessThan(decimal("-1.24"))`, no},
		{`decimal("123.45").greaterThan(decimal("1.23"))`, yes}, {`decimal("-1.23").greaterThanOrEqual(decimal("1.23"))`, no}, {`decimal("1.1").lessThan(2)`, bad}, {`ip("1.1.2.3").lessThan(decimal("1.2"))`, bad},
		{`decimal("1234").lessThan(decimal("1.0"))`, bad}, {`decimal("1.").lessThan(decimal("1.0"))`, bad}, {`decimal(".1").lessThan(decimal("1.0"))`, bad}, {`decimal("1.a").lessThan(decimal("1.0"))`, bad},
		{`decimal("922337203685477.5808").lessThan(decimal("1.0"))`, bad}, {`decimal("0.12345").lessThan(decimal("1.0"))`, bad}, {`decimal("00.000") == decimal("0.0")`, yes},
		// ip
		{`ip("127.0.0.1") == ip("127.0.0.1")`, yes}, {`ip("192.168.0.1") == ip("8.8.8.8")`, no}, {`ip("192.168.0.1/24") == ip("192.168.0.8/24")`, no}, {`ip("127.0.0.1") == ip("::1")`, no},
		{`ip("127.0.0.1") == "127.0.0.1"`, bad}, {`ip("::1") == 1`, bad}, {`ip("380.0.0.1").isIpv4()`, bad}, {`ip("ab.ab.ab.ab").isIpv4()`, bad}, {`ip("127.0.0.1/8/24").isIpv4()`, bad}, {`ip("fzz::1").isIpv6()`, bad},
		{`ip([127, 0, 0, 1]).isIpv4()`, bad}, {`"127.0.0.1".ip() == ip("127.0.0.1")`, bad}, {`ip("127.0.0.1").isIpv4()`, yes}, {`ip("::1").isIpv4()`, no}, {`ip("::1").isIpv6()`, yes}, {`ip("127.0.0.2").isLoopback()`, yes},
		{`ip("::1").isLoopback()`, yes}, {`ip("192.0.2.1").isLoopback()`, no}, {`ip("224.0.0.1").isMulticast()`, yes}, {`ip("ff00::2").isMulticast()`, yes}, {`ip("127.0.0.1").isMulticast()`, no},
		{`ip("192.168.0.1").isInRange(ip("192.168.0.1/24"))`, yes}, {`ip("192.168.0.1").isInRange(ip("192.168.0.1/28"))`, yes}, {`ip("192.168.0.75").isInRange(ip("192.168.0.1/28"))`, no}, {`ip("1:2:3:4::").isInRange(ip("1:2:3:4::/48"))`, yes},
		{`ip("192.168.0.1").isInRange(ip("1:2:3:4::"))`, no}, {`ip("192.168.1.1").isInRange("192.168.0.0/24")`, bad}, {`context has source && context.source.isInRange(ip("10.0.0.0/8"))`, yes},
		// && || ! if
		{`3 && false`, bad}, {`false && 3`, no}, {`(3 == 4) && true`, no}, {`true && 3`, bad}, {`(false && 3) == 3`, bad}, {`3 || true`, bad}, {`true || 3`, yes}, {`false || 3`, bad}, {`!true`, no}, {`!false`, yes}, {`!8`, bad},
		{`(if 1 == 1 then "ok" else "wrong") == "ok"`, yes}, {`(if context.hour == 2 then Watchword::User::"corp/foo" else "ok") == "ok"`, bad}, {`(if 1 then "wrong" else "wrong") == "ok"`, bad},
		{`(if false then (1 && "hello") else "ok") == "ok"`, yes}, {`(if true then (1 && "hello") else "ok") == "ok"`, bad}, {`(if !true then "hello" else "goodbye") == "goodbye"`, yes},
		// + - *
		{`11 + 0 == 11`, yes}, {`-1 + 1 == 0`, yes}, {`7 + "3" == 10`, bad}, {`"lamp" + "la" == "lampla"`, bad}, {`44 - 31 == 13`, yes}, {`5 - (-3) == 8`, yes}, {`10 * 20 == 200`, yes}, {`3 * "ham" == 3`, bad},
		// in
		{`Watchword::User::"corp/ann" in Watchword::User::"corp/ann"`, yes}, {`resource in Watchword::Realm::"corp"`, yes}, {`resource in Watchword::Installation::"this"`, yes}, {`resource in Watchword::Group::"corp/staff"`, yes},
		{`resource in Watchword::Group::"corp/chiefs"`, no}, {`resource in [Watchword::Group::"corp/chiefs", Watchword::Group::"corp/staff"]`, yes}, {`Watchword::User::"corp/nobody" in Watchword::User::"corp/nobody"`, yes},
		{`Watchword::User::"corp/nobody" in Watchword::Group::"corp/staff"`, no}, {`Watchword::Realm::"corp" in resource`, no}, {`principal in Watchword::Role::"night"`, yes}, {`"some" in ["some", "thing"]`, bad},
		{`"os" in {"os": "Windows"}`, bad}, {`action in Watchword::Action::"read"`, yes}, {`action in [Watchword::Action::"verify", Watchword::Action::"user.show"]`, yes}, {`action in Watchword::Action::"protected"`, no},
		// has
		{`context has nas`, no}, {`context has source`, yes}, {`context has "source"`, yes}, {`context has nothing`, no}, {`context has nas && context.nas == "a"`, no}, {`context.nas == "a"`, bad}, {`context has mfa.present`, yes},
		{`context.mfa has age && context.mfa.age > 5`, yes}, {`context.path has a`, bad}, {`{"owner info": {"name": "Alice"}}["owner info"].name == "Alice"`, yes}, {`principal has name && principal.name == "k1"`, yes},
		// is
		{`Watchword::User::"corp/ann" is Watchword::User`, yes}, {`principal is Watchword::Key`, yes}, {`principal is Watchword::Key in Watchword::Role::"night"`, yes}, {`Watchword::Group::"corp/a" is Watchword::User`, no}, {`"alice" is Watchword::User`, bad},
		{`principal is Key`, bad},
		// contains, containsAll, containsAny, isEmpty
		{`[1, 2, 3].contains(1)`, yes}, {`[1, "something", 2].contains(1)`, bad}, {`["some", "useful", "tags"].contains("useful")`, yes}, {`[].contains(100)`, bad}, {`["sat", "sun"].contains(context.weekday)`, no},
		{`principal is Watchword::Key && [Watchword::Key::"k1"].contains(principal)`, yes}, {`[Watchword::Key::"k1"].contains(principal)`, bad}, {`"ham and ham".contains("ham")`, bad}, {`[1, -22, 34].containsAll([-22, 1])`, yes}, {`[43, 34].containsAll([34, 43])`, yes}, {`[1, 34].containsAll([1, 101, 34])`, no},
		{`[2, 43].containsAll([])`, bad}, {`[false, 3].containsAll("thing")`, bad}, {`[1, -22, 34].containsAny([1, -22])`, yes}, {`[1, -22, 34].containsAny([-22])`, yes}, {`[1, -2, 34].containsAny([1, -22])`, yes},
		{`[1, -2, 34].containsAny([3, 4])`, no}, {`{"2": "ham"}.containsAny({"2": "ham"})`, bad}, {`[1].isEmpty()`, no}, {`"ham".isEmpty()`, bad},
	} {
		// What never holds is refused here too, so that something beside it can.
		set, err := Compile(Source{Policies: []Item{{ID: "p", Text: "permit (principal, action == Watchword::Action::\"user.show\", resource is Watchword::User)\nwhen { (" + c.expression + ") || context.path == \"other\" };"}}})
		got := bad
		if err == nil {
			q := verifyQuery()
			q.Principal = Principal{Kind: KindKey, ID: "k1", Roles: []Role{"night"}}
			q.Action, q.Resource = UserShow, Resource{Type: User, Realm: "corp", User: "ann", Groups: []string{"staff"}}
			q.Context = Context{Now: time.Date(2024, 10, 15, 11, 38, 33, 0, time.UTC), Path: "http", Source: q.Context.Source, MFA: true, MFAAge: 10 * time.Second}
			d := set.Decide(q)
			got = no
			if d.Allow {
				got = yes
			}
			if len(d.Faults) > 0 {
				t.Errorf("%s: %v", c.expression, d.Faults)
			}
		} else if p := err.(*Errors).Problems[0]; p.Line != 2 || p.Column < 8 || p.Says == "" {
			t.Errorf("%s: %+v", c.expression, p)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s (%v)", c.expression, got, c.want, err)
		}
	}
}

// An overflow is no wrong type, but an error when it is evaluated. Cedar skips the
// policy then; here it denies.
func TestAnOverflowDenies(t *testing.T) {
	for _, expression := range []string{`9223372036854775807 + context.hour > 3`, `-9223372036854775807 - context.hour < 3`, `9223372036854775807 * context.hour > 3`} {
		set := compiled(t, permitAll, "forbid (principal, action, resource) when { "+expression+" };")
		q := verifyQuery()
		if d := set.Decide(q); d.Allow || len(d.Faults) != 1 || !strings.Contains(d.Reason, "overflow") {
			t.Errorf("%s: %+v", expression, d)
		}
	}
}

// The cases of the photo sharing and to-do list applications that Cedar's
// documentation tells its policies by, in a world of their own: they show that the
// engine under this package decides as documented.
func TestCedarsExampleApplicationsDecideAsDocumented(t *testing.T) {
	uid := func(text string) cedar.EntityUID {
		kind, id, _ := strings.Cut(text, ":")
		return cedar.NewEntityUID(cedar.EntityType(kind), cedar.String(id))
	}
	world := cedar.EntityMap{}
	put := func(name string, attributes cedar.RecordMap, parents ...string) {
		var in []cedar.EntityUID
		for _, p := range parents {
			in = append(in, uid(p))
		}
		world[uid(name)] = cedar.Entity{UID: uid(name), Attributes: cedar.NewRecord(attributes), Parents: cedar.NewEntityUIDSet(in...)}
	}
	text := func(s string) cedar.Value { return cedar.String(s) }
	put("User:alice", cedar.RecordMap{"department": text("HardwareEngineering"), "jobLevel": cedar.Long(5)}, "Group:alice_friends", "Team:staff")
	put("User:bob", cedar.RecordMap{"department": text("Sales"), "jobLevel": cedar.Long(7)}, "Team:interns")
	put("User:jane", nil, "Group:alice_friends")
	put("Team:interns", nil, "Team:staff")
	for _, a := range []string{"view", "listPhotos"} {
		put("Action:"+a, nil, "Action:readOnly", "Action:viewer")
	}
	put("Action:comment", nil, "Action:viewer")
	put("Account:jane", nil)
	put("Album:trips", nil, "Account:jane")
	put("Album:vacation", nil, "Album:trips")
	put("Photo:beach", cedar.RecordMap{"fileType": text("JPEG"), "private": cedar.False, "owner": uid("User:jane"), "admins": cedar.NewSet(uid("User:bob"))}, "Album:vacation")
	put("Photo:diary", cedar.RecordMap{"fileType": text("PNG"), "private": cedar.True, "owner": uid("User:jane"), "admins": cedar.NewSet()}, "Album:vacation")
	put("List:groceries", cedar.RecordMap{"owner": uid("User:alice"), "readers": uid("Team:staff"), "editors": uid("User:jane")}, "Application:TinyTodo")

	for _, c := range []struct {
		policies string
		allowed  string // principal action resource, each
		denied   string
	}{
		{`permit (principal == User::"alice", action == Action::"view", resource == Photo::"beach");`,
			"User:alice Action:view Photo:beach", "User:bob Action:view Photo:beach, User:alice Action:edit Photo:beach, User:alice Action:view Photo:diary"},
		{`permit (principal in Group::"alice_friends", action == Action::"view", resource == Photo::"beach");`,
			"User:alice Action:view Photo:beach, User:jane Action:view Photo:beach", "User:bob Action:view Photo:beach"},
		{`permit (principal == User::"alice", action in [Action::"view", Action::"edit", Action::"delete"], resource in Album::"vacation");`,
			"User:alice Action:edit Photo:beach, User:alice Action:delete Album:vacation", "User:alice Action:comment Photo:beach, User:alice Action:view Album:trips"},
		{`permit (principal == User::"alice", action in [Action::"viewer", Action::"edit"], resource in Album::"trips");`,
			"User:alice Action:view Photo:beach, User:alice Action:comment Photo:beach, User:alice Action:edit Photo:diary", "User:alice Action:delete Photo:beach"},
		{`permit (principal, action == Action::"view", resource in Account::"jane");`,
			"User:bob Action:view Photo:beach, User:unknown Action:view Album:trips", "User:bob Action:edit Photo:beach, User:bob Action:view Photo:unknown"},
		{`permit (principal == User::"alice", action, resource in Album::"trips");`,
			"User:alice Action:anything Photo:diary", "User:alice Action:anything Account:jane"},
		{`permit (principal, action in [Action::"listPhotos", Action::"view"], resource in Album::"trips") when { principal.department == "HardwareEngineering" && principal.jobLevel >= 5 };`,
			"User:alice Action:view Photo:beach", "User:bob Action:view Photo:beach, User:jane Action:view Photo:beach"},
		{`permit (principal == User::"alice", action == Action::"view", resource) when { resource.fileType == "JPEG" };`,
			"User:alice Action:view Photo:beach", "User:alice Action:view Photo:diary, User:alice Action:view Album:trips"},
		{`permit (principal, action, resource) when { principal == resource.owner || resource.admins.contains(principal) };`,
			"User:jane Action:edit Photo:diary, User:bob Action:edit Photo:beach", "User:bob Action:edit Photo:diary, User:alice Action:view Photo:beach"},
		{`permit (principal, action, resource); forbid (principal == User::"alice", action, resource) unless { action in Action::"readOnly" };`,
			"User:alice Action:view Photo:beach, User:bob Action:edit Photo:beach", "User:alice Action:edit Photo:beach"},
		{`permit (principal, action, resource); forbid (principal, action, resource) when { resource.private } unless { principal == resource.owner };`,
			"User:jane Action:view Photo:diary, User:bob Action:view Photo:beach", "User:bob Action:view Photo:diary"},
		{`permit (principal, action, resource) when { resource is List && resource.owner == principal }; permit (principal, action == Action::"GetList", resource) when { principal in resource.readers || principal in resource.editors };` +
			`permit (principal, action in [Action::"UpdateList", Action::"CreateTask"], resource) when { principal in resource.editors }; forbid (principal in Team::"interns", action == Action::"CreateList", resource == Application::"TinyTodo");` +
			`permit (principal, action in [Action::"CreateList", Action::"GetLists"], resource == Application::"TinyTodo");`,
			"User:alice Action:DeleteList List:groceries, User:bob Action:GetList List:groceries, User:jane Action:CreateTask List:groceries, User:alice Action:CreateList Application:TinyTodo, User:bob Action:GetLists Application:TinyTodo",
			"User:bob Action:CreateTask List:groceries, User:jane Action:DeleteList List:groceries, User:bob Action:CreateList Application:TinyTodo, User:alice Action:view Photo:beach"},
	} {
		set, err := cedar.NewPolicySetFromBytes("", []byte(c.policies))
		if err != nil {
			t.Fatalf("%s: %v", c.policies, err)
		}
		for want, list := range map[cedar.Decision]string{cedar.Allow: c.allowed, cedar.Deny: c.denied} {
			for _, ask := range strings.Split(list, ", ") {
				p := strings.Fields(ask)
				if got, _ := cedar.Authorize(set, world, cedar.Request{Principal: uid(p[0]), Action: uid(p[1]), Resource: uid(p[2])}); got != want {
					t.Errorf("%s\n  %s: %v", c.policies, ask, got)
				}
			}
		}
	}
}
