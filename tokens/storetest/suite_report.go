package storetest

import (
	"fmt"
	"slices"
	"time"

	"watchword/tokens"
)

// credentials are the rows of the credential report, read page by page: users with
// the serials of what they hold, or the serials of what nobody holds.
func (k *kit) credentials(q tokens.CredentialQuery) []string {
	k.Helper()
	var all []string
	for {
		rows, err := k.Credentials(k.ctx, q)
		if err != nil {
			k.Fatalf("Credentials: %v", err)
		}
		for _, r := range rows {
			line := "-"
			if r.User != nil {
				line, q.After = r.User.Realm+"/"+r.User.Key, r.User.User.ID
				if r.User.Tokens != len(r.Tokens) {
					k.Errorf("%s holds %d tokens and says %d", line, len(r.Tokens), r.User.Tokens)
				}
			}
			for _, t := range r.Tokens {
				line += " " + t.Serial
				if r.User == nil {
					q.After = t.ID
				}
			}
			all = append(all, line)
		}
		if len(rows) < q.Limit {
			return all
		}
	}
}

var reportTests = []test{
	{"CredentialsOfEachUser", func(k *kit) {
		for _, name := range []string{"zoë", "adam", "bob"} {
			k.user(name)
		}
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("abroad", "ann")}}})
		k.ship("A1", "A2", "A3", "A4", "A5", "A6")
		k.give("zoë", "A3")
		k.give("zoë", "A1")
		k.give("bob", "A2")
		k.give("bob", "A4")
		s := k.subject("bob")
		gone := s.Tokens[1]
		gone.State, gone.Wrapped.Blob = tokens.Revoked, nil
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Tokens: []tokens.TokenWrite{{Token: gone, Expect: gone.Version}}})
		spare := k.token("A5")
		spare.State, spare.Wrapped.Blob = tokens.Revoked, nil
		k.must(tokens.Change{Tokens: []tokens.TokenWrite{{Token: spare, Expect: spare.Version}}})
		k.stage(k.begin(), newToken("S1")) // nobody sees it

		users := []string{"default/zoë A1 A3", "default/adam", "default/bob A2", "abroad/ann"}
		for _, limit := range []int{1, 2, 3, 4, 1000} {
			k.same("users", k.credentials(tokens.CredentialQuery{Limit: limit}), users)
			k.same("users of a realm", k.credentials(tokens.CredentialQuery{Realm: "default", Limit: limit}), users[:3])
			k.same("what nobody holds", k.credentials(tokens.CredentialQuery{Unowned: true, Limit: limit}), []string{"- A6"})
		}
		k.same("users of no realm", k.credentials(tokens.CredentialQuery{Realm: "none", Limit: 10}), []string(nil))
		k.same("what nobody holds elsewhere", k.credentials(tokens.CredentialQuery{Realm: "abroad", Unowned: true, Limit: 10}), []string(nil))

		rows, err := k.Credentials(k.ctx, tokens.CredentialQuery{Limit: 10})
		if err != nil {
			k.Fatal(err)
		}
		for _, r := range rows {
			list, _, err := k.Users(k.ctx, tokens.UserQuery{Realm: r.User.Realm, Key: r.User.Key, Limit: 1})
			if err != nil || len(list) != 1 {
				k.Fatal(list, err)
			}
			k.same("the user", *r.User, list[0])
			for _, t := range r.Tokens {
				k.same("the token", t, k.token(t.Serial))
			}
		}
	}},
	{"CredentialsOfManyUsers", func(k *kit) {
		const users = 230
		var serials []string
		for i := range users {
			k.user(fmt.Sprintf("user%d", i))
			serials = append(serials, fmt.Sprintf("A%d", i), fmt.Sprintf("B%d", i))
		}
		k.ship(serials...)
		var want []string
		for i := range users {
			name := fmt.Sprintf("user%d", i)
			line := "default/" + name
			for j, serial := range serials[2*i : 2*i+2] {
				if i%3 > j {
					k.give(name, serial)
					line += " " + serial
				}
			}
			want = append(want, line)
		}
		for _, limit := range []int{99, 100, 101, 230, 1000} {
			k.same("the report", k.credentials(tokens.CredentialQuery{Limit: limit}), want)
		}
	}},
	{"RealmsWithWhatTheyHold", func(k *kit) {
		realms := func(realm string) []tokens.RealmEntry {
			list, err := k.Realms(k.ctx, realm)
			if err != nil {
				k.Fatalf("Realms: %v", err)
			}
			return list
		}
		k.same("an empty database", len(realms("")), 0)
		k.user("alice")
		k.user("bob")
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("abroad", "ann")}}})
		k.ship("A1", "A2", "A3")
		spare := k.token("A3")
		spare.State, spare.Wrapped.Blob = tokens.Revoked, nil
		k.must(tokens.Change{Tokens: []tokens.TokenWrite{{Token: spare, Expect: spare.Version}}})
		k.stage(k.begin(), newToken("S1"), newToken("S2"))
		elsewhere := newToken("S1")
		elsewhere.Realm = "staged"
		k.stage(k.begin(), elsewhere)
		vpn := client("vpn", "192.0.2.0/24")
		vpn.Realm = "lab"
		k.must(tokens.Change{Clients: []tokens.ClientWrite{{Client: vpn}}, Keys: []tokens.KeyWrite{
			{Key: tokens.APIKey{ID: "k1", Realm: "default", Scope: "read", Created: now()}},
			{Key: tokens.APIKey{ID: "k2", Realm: "lab", Scope: "read", Created: now()}},
			{Key: tokens.APIKey{ID: "k3", Scope: "admin", Created: now()}},
		}, Documents: []tokens.DocumentWrite{
			{Name: "rules/", Data: []byte{1}, Updated: now()}, {Name: "rules/ruled", Data: []byte{1}, Updated: now()}, {Name: "rules0", Data: []byte{1}, Updated: now()},
		}})
		all := []tokens.RealmEntry{
			{Name: "abroad", Users: 1},
			{Name: "default", Users: 2, Tokens: 2, Keys: 1},
			{Name: "lab", Clients: 1, Keys: 1},
			{Name: "ruled"},
		}
		k.same("all realms", realms(""), all)
		for _, e := range all {
			k.same("realm "+e.Name, realms(e.Name), []tokens.RealmEntry{e})
		}
		k.same("no realm", len(realms("none")), 0)
	}},
	{"DriftsOfAnImport", func(k *kit) {
		k.user("alice")
		other := newToken("H1")
		other.Type, other.Period, other.Last = tokens.HOTP, 0, 0
		batch := k.begin()
		list := []tokens.Token{newToken("A1"), newToken("A2"), newToken("A3"), other, newToken("A4")}
		k.stage(batch, list...)
		if found, err := k.Drifts(k.ctx, batch, 10); err != nil || len(found) != 0 {
			k.Fatalf("drifts of an import that is not published: %v, %v", found, err)
		}
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch, Tokens: len(list), Published: now()}}})
		k.ship("B1")
		want := make(map[string]tokens.DriftSample)
		for i, serial := range []string{"A3", "A1", "B1", "H1", "A4"} {
			k.give("alice", serial)
			s := k.subject("alice")
			j := slices.IndexFunc(s.Tokens, func(t tokens.Token) bool { return t.Serial == serial })
			at := time.Now().Unix() - int64(i)
			if serial == "A4" {
				at = 0 // it was never accepted
			}
			k.must(tokens.Change{
				Standings: []tokens.StandingWrite{next(s)},
				Motions: []tokens.MotionWrite{{
					TokenID: s.Tokens[j].ID, UserID: s.User.ID, Last: 100, Drift: i - 1, UsedAt: at,
				}},
			})
			t := k.token(serial)
			want[serial] = tokens.DriftSample{TokenID: t.ID, Serial: serial, Period: t.Period, Drift: i - 1, Created: t.Created, UsedAt: at}
		}
		found, err := k.Drifts(k.ctx, batch, 10)
		if err != nil {
			k.Fatal(err)
		}
		k.same("the clocks", found, []tokens.DriftSample{want["A1"], want["A3"]})
		if found, err = k.Drifts(k.ctx, batch, 1); err != nil {
			k.Fatal(err)
		}
		k.same("one clock", found, []tokens.DriftSample{want["A1"]})
	}},
}
