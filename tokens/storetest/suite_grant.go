package storetest

import (
	"net/netip"
	"time"

	"watchword/tokens"
)

func newGrant(u *tokens.User, name, realm string) tokens.Grant {
	return tokens.Grant{
		UserID: u.ID, User: u.Key, Home: u.Realm, Role: name, Realm: realm, MAC: [32]byte{3, 0, 31: 8}, Actor: "key:admin é", Created: now(),
	}
}

func give(list ...tokens.Grant) tokens.Change {
	var c tokens.Change
	for _, g := range list {
		c.Grants = append(c.Grants, tokens.GrantWrite{Grant: g})
	}
	return c
}

func take(g tokens.Grant) tokens.Change {
	return tokens.Change{Grants: []tokens.GrantWrite{{Grant: tokens.Grant{UserID: g.UserID, Role: g.Role, Realm: g.Realm}, Delete: true}}}
}

var grantTests = []test{
	{"RolesComeAndGo", func(k *kit) {
		alice, bob := k.user("alice"), k.user("bob")
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("abroad", "Alice")}}})
		cyd := *k.load(tokens.Ref{Realm: "abroad", User: "alice"}).Subjects[0].User
		k.same("no roles", k.registry().Grants, []tokens.Grant(nil))
		start := k.registry().Generation

		everywhere, desk, audits, abroad := newGrant(&alice, "helpdesk", ""), newGrant(&alice, "helpdesk", "default"),
			newGrant(&bob, "auditor", "default"), newGrant(&cyd, "night-shift", "abroad")
		k.must(give(abroad, audits, desk, everywhere))
		r := k.registry()
		k.same("roles, by user, role and realm", r.Grants, []tokens.Grant{everywhere, desk, audits, abroad})
		if r.Generation <= start {
			k.Errorf("the generation went from %d to %d", start, r.Generation)
		}

		k.refuses(tokens.ErrExists, give(newGrant(&bob, "helpdesk", ""), desk))
		none := newGrant(&bob, "helpdesk", "abroad")
		k.refuses(tokens.ErrNotFound, take(none))
		for _, other := range []tokens.Grant{newGrant(&bob, "auditor", ""), newGrant(&alice, "auditor", "default")} {
			k.refuses(tokens.ErrNotFound, take(other))
		}
		k.same("the registry after refusals", k.registry(), r)

		k.must(take(desk))
		after := k.registry()
		k.same("roles", after.Grants, []tokens.Grant{everywhere, audits, abroad})
		if after.Generation <= r.Generation {
			k.Errorf("the generation went from %d to %d", r.Generation, after.Generation)
		}
		again := desk
		again.Actor, again.MAC = "admin:default/bob", [32]byte{7}
		k.must(give(again))
		k.must(tokens.Change{Grants: []tokens.GrantWrite{{Grant: again, Delete: true}, {Grant: desk}}})
		k.same("roles that were given anew", k.registry().Grants, []tokens.Grant{everywhere, desk, audits, abroad})
	}},
	{"ARoleThatCannotBeIsRefused", func(k *kit) {
		alice := k.user("alice")
		start := k.registry()
		for what, edit := range map[string]func(*tokens.Grant){
			"nobody's":  func(g *tokens.Grant) { g.UserID = 1 << 40 },
			"no name":   func(g *tokens.Grant) { g.Role = "" },
			"a NUL":     func(g *tokens.Grant) { g.Role = "a\x00b" },
			"not UTF-8": func(g *tokens.Grant) { g.Realm = "\xff" },
			"an actor":  func(g *tokens.Grant) { g.Actor = "\xff" },
		} {
			g := newGrant(&alice, "helpdesk", "")
			edit(&g)
			k.Log(what)
			k.refuses(tokens.ErrInvalid, give(newGrant(&alice, "auditor", ""), g))
		}
		k.same("registry", k.registry(), start)
	}},
	{"KeysAreGoodFromNetworks", func(k *kit) {
		key := tokens.APIKey{
			ID: "k1", Name: "vpn", Scope: "role:night-shift", MAC: [32]byte{1}, Created: now(),
			Sources: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/48"), netip.MustParsePrefix("10.1.2.3/32")},
		}
		k.must(tokens.Change{Keys: []tokens.KeyWrite{{Key: key}}})
		k.same("keys", k.registry().Keys, []tokens.APIKey{key})
		bad := key
		bad.ID, bad.Sources = "k2", []netip.Prefix{{}}
		k.refuses(tokens.ErrInvalid, tokens.Change{Keys: []tokens.KeyWrite{{Key: bad}}})
		k.same("keys", k.registry().Keys, []tokens.APIKey{key})
	}},
	{"AKeyIsSucceededOnce", func(k *kit) {
		old := tokens.APIKey{ID: "k1", Name: "vpn", Scope: "verify", Realm: "default", MAC: [32]byte{1}, Created: now(), Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		k.must(tokens.Change{Keys: []tokens.KeyWrite{{Key: old}}})
		used := now().Truncate(time.Minute)
		if err := k.TouchKeys(k.ctx, map[string]time.Time{"k1": used}); err != nil {
			k.Fatal(err)
		}
		start := k.registry()
		old.LastUsed = used
		rotate := func(to string) tokens.Change {
			ends, next := old, old
			ends.Expires, ends.Successor, ends.MAC, ends.LastUsed = now().Add(time.Hour), to, [32]byte{9}, time.Time{}
			next.ID, next.MAC, next.LastUsed = to, [32]byte{2}, time.Time{}
			return tokens.Change{Keys: []tokens.KeyWrite{{Key: ends, Replace: true}, {Key: next}}}
		}
		first := rotate("k2")
		k.must(first)
		r := k.registry()
		if r.Generation <= start.Generation {
			k.Errorf("the generation went from %d to %d", start.Generation, r.Generation)
		}
		ends := first.Keys[0].Key
		ends.LastUsed = used
		k.same("keys", r.Keys, []tokens.APIKey{ends, first.Keys[1].Key})
		k.refuses(tokens.ErrNotFound, rotate("k3"))
		gone := rotate("k3")
		gone.Keys[0].Key.ID = "none"
		k.refuses(tokens.ErrNotFound, gone)
		k.same("the registry after refusals", k.registry(), r)
	}},
}
