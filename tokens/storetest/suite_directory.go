package storetest

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"watchword/tokens"
)

// keys are the users that a query finds, read page by page.
func (k *kit) keys(q tokens.UserQuery) []string {
	k.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	var all []string
	for {
		page, next, err := k.Users(k.ctx, q)
		if err != nil {
			k.Fatalf("Users: %v", err)
		}
		for _, u := range page {
			all = append(all, u.Realm+"/"+u.Key)
		}
		if next == 0 {
			return all
		}
		q.After = next
	}
}

// serials are the tokens that a query finds, read page by page.
func (k *kit) serials(q tokens.TokenQuery) []string {
	k.Helper()
	if q.Limit == 0 {
		q.Limit = 100
	}
	var all []string
	for {
		page, next, err := k.Tokens(k.ctx, q)
		if err != nil {
			k.Fatalf("Tokens: %v", err)
		}
		for _, t := range page {
			all = append(all, t.Serial)
		}
		if next == 0 {
			return all
		}
		q.After = next
	}
}

var directoryTests = []test{
	{"UsersInOrderOfRealmAndKey", func(k *kit) {
		for _, name := range []string{"zoë", "Adam", "émile", "bob", "Z", "龍", "a b", "_x"} {
			k.user(name)
		}
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("abroad", "yves")}, {User: newUser("zealand", "ann")}}})
		want := []string{"abroad/yves", "default/_x", "default/a b", "default/adam", "default/bob", "default/z",
			"default/zoë", "default/émile", "default/龍", "zealand/ann"}
		for _, limit := range []int{1, 2, 3, 10, 1000} {
			k.same("users", k.keys(tokens.UserQuery{Limit: limit}), want)
		}
		k.same("users of a realm", k.keys(tokens.UserQuery{Realm: "default", Limit: 3}), want[1:9])
		// A place in the list of another realm is none in this one's: whether there is
		// such a user does not show.
		list, _, err := k.Users(k.ctx, tokens.UserQuery{Realm: "abroad", Limit: 1})
		if err != nil || len(list) != 1 {
			k.Fatalf("%+v, %v", list, err)
		}
		for _, id := range []int64{list[0].ID, list[0].ID + 1000} {
			k.same("after another realm's", k.keys(tokens.UserQuery{Realm: "default", After: id}), []string(nil))
			k.same("after another realm's, by search", k.keys(tokens.UserQuery{Realm: "default", Q: "bob", After: id}), []string(nil))
		}
		k.same("one user", k.keys(tokens.UserQuery{Realm: "default", Key: "bob"}), []string{"default/bob"})
		k.same("nobody", k.keys(tokens.UserQuery{Realm: "default", Key: "Bob"}), []string(nil))
	}},
	{"UsersBySearch", func(k *kit) {
		for _, name := range []string{"Strauß", "STRAUSSER", "a%c", "abc", "a_c", `back\slash`, "Émile"} {
			k.user(name)
		}
		for q, want := range map[string][]string{
			"strauss":                {"default/strauss", "default/strausser"},
			"UẞE":                    {"default/strausser"},
			"%":                      nil,
			"A%":                     {"default/a%c"},
			"a%c":                    {"default/a%c"},
			"_":                      nil,
			"a_":                     {"default/a_c"},
			"A_C":                    {"default/a_c"},
			`k\s`:                    {`default/back\slash`},
			" BC ":                   nil,
			" AB ":                   {"default/abc"},
			"a":                      {"default/a%c", "default/a_c", "default/abc"},
			"émi":                    {"default/émile"},
			"E\u0301MI":              {"default/émile"},
			"nobody":                 nil,
			"\xff":                   nil,
			"a\x00":                  nil,
			strings.Repeat("x", 300): nil,
		} {
			k.same("search for "+q, k.keys(tokens.UserQuery{Q: q}), want)
		}
	}},
	{"UserEntriesSayAll", func(k *kit) {
		k.user("alice")
		k.ship("A1", "A2", "A3")
		k.give("alice", "A1")
		k.give("alice", "A2")
		s := k.subject("alice")
		w := next(s)
		w.Next.Failures, w.Next.Locked = 100, true
		gone := s.Tokens[0]
		gone.State, gone.Wrapped.Blob = tokens.Revoked, nil
		k.must(tokens.Change{Standings: []tokens.StandingWrite{w}, Tokens: []tokens.TokenWrite{{Token: gone, Expect: gone.Version}}})
		list, _, err := k.Users(k.ctx, tokens.UserQuery{Key: "alice", Limit: 1})
		if err != nil || len(list) != 1 {
			k.Fatalf("Users: %v, %v", list, err)
		}
		k.same("entry", list[0], tokens.UserEntry{User: *s.User, Standing: w.Next, Tokens: 1})
	}},
	{"TokensByQuery", func(k *kit) {
		k.user("alice")
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("abroad", "alice")}}})
		first := k.ship("FT-100", "ft-200", "FT-300")
		k.ship("GX%1", "GX_2", "GX33")
		k.give("alice", "ft-200")
		k.give("alice", "GX33")
		all := []string{"FT-100", "ft-200", "FT-300", "GX%1", "GX_2", "GX33"}
		for _, limit := range []int{1, 2, 6, 1000} {
			k.same("all tokens", k.serials(tokens.TokenQuery{Limit: limit}), all)
		}
		for what, c := range map[string]struct {
			q    tokens.TokenQuery
			want []string
		}{
			"realm":           {tokens.TokenQuery{Realm: "default"}, all},
			"another realm":   {tokens.TokenQuery{Realm: "abroad"}, nil},
			"serial":          {tokens.TokenQuery{Serial: "FT-100"}, []string{"FT-100"}},
			"serial exactly":  {tokens.TokenQuery{Serial: "ft-100"}, nil},
			"owner":           {tokens.TokenQuery{Owner: "alice"}, []string{"ft-200", "GX33"}},
			"owner in realm":  {tokens.TokenQuery{Owner: "alice", Realm: "default"}, []string{"ft-200", "GX33"}},
			"owner elsewhere": {tokens.TokenQuery{Owner: "alice", Realm: "abroad"}, nil},
			"nobody":          {tokens.TokenQuery{Owner: "bob"}, nil},
			"state":           {tokens.TokenQuery{State: tokens.Active}, []string{"ft-200", "GX33"}},
			"batch":           {tokens.TokenQuery{Batch: first[0].Batch}, []string{"FT-100", "ft-200", "FT-300"}},
			"search":          {tokens.TokenQuery{Q: "t-3"}, []string{"FT-300"}},
			"percent":         {tokens.TokenQuery{Q: "x%1"}, []string{"GX%1"}},
			"underscore":      {tokens.TokenQuery{Q: "x_2"}, []string{"GX_2"}},
			"beginning":       {tokens.TokenQuery{Q: "gX"}, []string{"GX%1", "GX_2", "GX33"}},
			"no beginning":    {tokens.TokenQuery{Q: "X_"}, nil},
			"owner's start":   {tokens.TokenQuery{Q: "Al"}, []string{"ft-200", "GX33"}},
			"owner's name":    {tokens.TokenQuery{Q: "LIC"}, []string{"ft-200", "GX33"}},
			"both":            {tokens.TokenQuery{Q: "gx", State: tokens.Active}, []string{"GX33"}},
			"nothing":         {tokens.TokenQuery{Q: "a\x00"}, nil},
		} {
			k.same("tokens by "+what, k.serials(c.q), c.want)
		}
	}},
	{"BatchesNewestFirst", func(k *kit) {
		var ids []int64
		for i := range 5 {
			ids = append(ids, k.ship(serialName(i))[0].Batch)
		}
		slices.Reverse(ids)
		var got []int64
		q := tokens.BatchQuery{Limit: 2}
		for {
			page, err := k.Batches(k.ctx, q)
			if err != nil {
				k.Fatal(err)
			}
			for _, b := range page {
				got = append(got, b.ID)
			}
			if len(page) < 2 {
				break
			}
			q.Before = page[1].ID
		}
		k.same("batches", got, ids)
		for realm, want := range map[string]int{"default": 5, "abroad": 0} {
			page, err := k.Batches(k.ctx, tokens.BatchQuery{Realm: realm, Limit: 10})
			if err != nil {
				k.Fatal(err)
			}
			k.same("batches of realm "+realm, len(page), want)
		}
	}},
}

func client(name, prefix string) tokens.Client {
	return tokens.Client{
		Name: name, Prefix: netip.MustParsePrefix(prefix), Realm: "default", Secret: []byte{1, 0, 0xFF}, RequireMA: true,
		NameRule: tokens.NameStrip, Created: now(), SecretSize: 22,
	}
}

func (k *kit) registry() tokens.Registry {
	k.Helper()
	r, err := k.Registry(k.ctx)
	if err != nil {
		k.Fatalf("Registry: %v", err)
	}
	if view := k.load(); view.Generation != r.Generation {
		k.Errorf("Load says generation %d and Registry %d", view.Generation, r.Generation)
	}
	return r
}

var registryTests = []test{
	{"ClientsComeAndGo", func(k *kit) {
		start := k.registry().Generation
		vpn, web := client("vpn", "192.0.2.0/24"), client("web é", "2001:db8::1/128")
		web.RequireMA, web.Secret = false, nil
		k.must(tokens.Change{Clients: []tokens.ClientWrite{{Client: web}, {Client: vpn}}})
		r := k.registry()
		k.same("clients", r.Clients, []tokens.Client{vpn, web})
		if r.Generation <= start {
			k.Errorf("the generation went from %d to %d", start, r.Generation)
		}
		k.refuses(tokens.ErrExists, tokens.Change{Clients: []tokens.ClientWrite{{Client: client("vpn", "198.51.100.0/24")}}})
		k.refuses(tokens.ErrExists, tokens.Change{Clients: []tokens.ClientWrite{{Client: client("other", "192.0.2.7/24")}}})
		k.refuses(tokens.ErrExists, tokens.Change{Clients: []tokens.ClientWrite{{Client: client("vpn", "2001:db8::1/128"), Replace: true}}})
		k.refuses(tokens.ErrNotFound, tokens.Change{Clients: []tokens.ClientWrite{{Client: client("none", "10.0.0.0/8"), Delete: true}}})
		bad := client("bad", "10.0.0.0/8")
		bad.Prefix = netip.Prefix{}
		k.refuses(tokens.ErrInvalid, tokens.Change{Clients: []tokens.ClientWrite{{Client: bad}}})
		k.same("the registry after refusals", k.registry(), r)

		vpn.Secret, vpn.Prefix = []byte("new"), netip.MustParsePrefix("192.0.2.0/25")
		k.must(tokens.Change{Clients: []tokens.ClientWrite{{Client: vpn, Replace: true}, {Client: web, Delete: true}}})
		k.same("clients", k.registry().Clients, []tokens.Client{vpn})
		k.must(tokens.Change{Clients: []tokens.ClientWrite{{Client: client("new", "10.0.0.0/8"), Replace: true}}})
		if got := k.registry().Clients; len(got) != 2 {
			k.Errorf("replacing what was not there left %+v", got)
		}

		// One that was changed meanwhile is not replaced by who expects another.
		r = k.registry()
		next := vpn
		next.Secret, next.RequireMA = []byte("newer"), !vpn.RequireMA
		k.refuses(tokens.ErrConflict, tokens.Change{Clients: []tokens.ClientWrite{{Client: next, Replace: true, Expect: []byte("old")}}})
		k.refuses(tokens.ErrConflict, tokens.Change{Clients: []tokens.ClientWrite{{Client: client("none", "10.9.0.0/16"), Replace: true, Expect: []byte("old")}}})
		k.same("the registry after conflicts", k.registry(), r)
		k.must(tokens.Change{Clients: []tokens.ClientWrite{{Client: next, Replace: true, Expect: []byte("new")}}})
		k.same("the client", k.registry().Clients[1], next)
	}},
	{"KeysComeAndGo", func(k *kit) {
		key := tokens.APIKey{
			ID: "k1", Name: "Helpdesk é", Realm: "default", Scope: "helpdesk", MAC: [32]byte{1, 2, 31: 9}, Created: now(),
			Expires: now().Add(time.Hour),
		}
		forever := tokens.APIKey{ID: "k0", Scope: "admin", Created: now()}
		start := k.registry().Generation
		k.must(tokens.Change{Keys: []tokens.KeyWrite{{Key: key}, {Key: forever}}})
		r := k.registry()
		k.same("keys", r.Keys, []tokens.APIKey{forever, key})
		if r.Generation <= start {
			k.Errorf("the generation went from %d to %d", start, r.Generation)
		}
		k.refuses(tokens.ErrExists, tokens.Change{Keys: []tokens.KeyWrite{{Key: tokens.APIKey{ID: "k1", Scope: "read"}}}})
		k.refuses(tokens.ErrNotFound, tokens.Change{Keys: []tokens.KeyWrite{{Key: tokens.APIKey{ID: "none"}, Delete: true}}})
		k.same("the registry after refusals", k.registry(), r)
		k.must(tokens.Change{Keys: []tokens.KeyWrite{{Key: tokens.APIKey{ID: "k0"}, Delete: true}}})
		after := k.registry()
		k.same("keys", after.Keys, []tokens.APIKey{key})
		if after.Generation <= r.Generation {
			k.Errorf("the generation went from %d to %d", r.Generation, after.Generation)
		}
	}},
	{"KeysAreTouchedWithoutAGeneration", func(k *kit) {
		k.must(tokens.Change{Keys: []tokens.KeyWrite{{Key: tokens.APIKey{ID: "k1", Scope: "read", Created: now()}}}})
		r := k.registry()
		at := now().Truncate(time.Minute)
		for _, used := range []map[string]time.Time{nil, {"k1": at, "none": at, "\xff": at}, {"k1": at.Add(-time.Hour)}} {
			if err := k.TouchKeys(k.ctx, used); err != nil {
				k.Fatalf("TouchKeys: %v", err)
			}
		}
		r.Keys[0].LastUsed = at
		k.same("registry", k.registry(), r)
	}},
	{"OtherChangesLeaveTheGeneration", func(k *kit) {
		start := k.registry().Generation
		k.user("alice")
		k.ship("A1")
		k.give("alice", "A1")
		if got := k.registry().Generation; got != start {
			k.Errorf("the generation went from %d to %d", start, got)
		}
		if err := k.Commit(k.ctx, &tokens.Change{Keys: []tokens.KeyWrite{{Key: tokens.APIKey{ID: "k"}}}}); !errors.Is(err, tokens.ErrInvalid) {
			k.Errorf("a key without a record: %v", err)
		}
		if got := k.registry().Generation; got != start {
			k.Errorf("a refused change moved the generation from %d to %d", start, got)
		}
	}},
}
