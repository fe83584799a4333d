package store_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// The size of a large site, and how long a search or a page may take there.
const (
	bigTokens = 1_000_000
	bigUsers  = 200_000
	bigEvents = 300_000
	bigLimit  = 50 * time.Millisecond
)

// filled puts a large site into a database: users who hold up to four tokens each,
// and tokens that nobody holds, of forty imports. n is the table of numbers.
func filled(t *testing.T, db *store.DB, url string, dollar bool) {
	t.Helper()
	raw := rawDatabase(t, url)
	series := func(n int) string {
		if dollar {
			return fmt.Sprintf("generate_series(1, %d) AS n(i)", n)
		}
		return fmt.Sprintf("(WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < %d) SELECT i FROM c) AS n", n)
	}
	over, blob, off := "", "zeroblob(32)", "0"
	if dollar {
		over, blob, off = "OVERRIDING SYSTEM VALUE", "decode(repeat('00', 32), 'hex')", "false"
	}
	for _, statement := range []string{
		`INSERT INTO users (id, realm, key, name, state, created) ` + over + `
			SELECT i, CASE WHEN i % 1000 = 0 THEN 'branch' ELSE 'default' END, 'user' || (i * 7919 % 1000003) || '.' || (i % 97),
			'User' || i, 'enabled', 1 FROM ` + series(bigUsers),
		`INSERT INTO standings (user_id, version, failures, locked, throttle) SELECT i, 1, 0, ` + off + `, '' FROM ` + series(bigUsers),
		`INSERT INTO batches (id, state, realm, name, format, sha256, actor, created, touched) ` + over + `
			SELECT i, 'staging', 'default', 'file', 'csv', '', '', 1, 1 FROM ` + series(40),
		`INSERT INTO tokens (id, batch, realm, serial, type, algorithm, digits, period, state, owner_id, model, created, mechanism, kek, hash, seed_len, blob, binding, last0, drift0) ` + over + `
			SELECT i, 1 + i * 39 / 1000001, CASE WHEN i % 5000 = 0 THEN 'branch' ELSE 'default' END, 'TOK' || (10000000 + i * 7), CASE WHEN i % 10 = 0 THEN 'hotp' ELSE 'totp' END, 1, 6, 30,
			CASE WHEN i > 800000 THEN 'imported' WHEN i % 1000 = 7 THEN 'lost' ELSE 'active' END,
			CASE WHEN i > 800000 THEN NULL ELSE 1 + i % 200000 END, 'model', 1, 'aes', 1, 1, 20, ` + blob + `, ` + blob + `, -1, 0 FROM ` + series(bigTokens),
		`UPDATE batches SET state = 'published', published = 1, tokens = 25000`,
		`INSERT INTO token_tags (token_id, tag) SELECT i * 5, CASE WHEN i % 2000 = 0 THEN 'rare' ELSE 'often' END FROM ` + series(bigTokens/5),
		`INSERT INTO memberships (user_id, group_name) SELECT i, CASE WHEN i % 500 = 0 THEN 'board' ELSE 'staff' END FROM ` + series(bigUsers),
	} {
		if _, err := raw.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	events := `INSERT INTO audit (chain, seq, time, action, outcome, realm, user_key, serial, actor, client, source, reason, detail, hash`
	row := `SELECT 1, i, i, CASE WHEN i % 5000 = 0 THEN 'token.resync' ELSE 'verify' END, CASE WHEN i % 50000 = 0 THEN 'denied' ELSE 'accept' END,
		'default', '', 'TOK' || (10000000 + i % 1000 * 7), 'a', 'c', 's', 'r', '', ` + blob
	if _, err := raw.Exec(events + `) ` + row + ` FROM ` + series(bigEvents)); err != nil {
		t.Fatal(err)
	}
	if dollar {
		if _, err := raw.Exec(`VACUUM ANALYZE`); err != nil { // as the server does by itself in time
			t.Fatal(err)
		}
	}
	begun := time.Now()
	if err := db.Migrate(t.Context()); err != nil { // as at the next start
		t.Fatal(err)
	}
	t.Logf("caught up in %v", time.Since(begun).Round(time.Millisecond))
}

// bigSite asks a large site for all that is searched and listed. It fills the database
// that url answers, or the one that the variable kept names unless that was filled by a
// run before: filling takes minutes, asking does not.
func bigSite(t *testing.T, kept string, url func(testing.TB) string, dollar bool) {
	if os.Getenv("WATCHWORD_BIG") == "" {
		t.Skip("WATCHWORD_BIG=1 fills a database with a million tokens; " + kept + " names one to keep for the next run")
	}
	where := os.Getenv(kept)
	if where == "" {
		where = url(t)
	}
	db := openMigrated(t, where)
	var events int
	if err := rawDatabase(t, where).QueryRow(`SELECT count(*) FROM audit`).Scan(&events); err != nil {
		t.Fatal(err)
	}
	if events != bigEvents { // they come last
		filled(t, db, where, dollar)
	}
	ctx := t.Context()
	user := func() string { i := 1 + rand.IntN(bigUsers); return fmt.Sprintf("user%d.%d", i*7919%1000003, i%97) }
	serial := func() string { return fmt.Sprintf("TOK%d", 10000000+(1+rand.IntN(bigTokens))*7) }
	part := func(s string, n int) string { at := rand.IntN(len(s) - n + 1); return s[at : at+n] }
	list := func(q tokens.TokenQuery) func() (int, error) {
		return func() (int, error) { page, _, err := db.Tokens(ctx, q); return len(page), err }
	}
	somewhere := func(q tokens.TokenQuery) func() (int, error) {
		return func() (int, error) {
			q.After = rand.Int64N(bigTokens)
			page, _, err := db.Tokens(ctx, q)
			return len(page), err
		}
	}
	people := func(q func() tokens.UserQuery) func() (int, error) {
		return func() (int, error) { page, _, err := db.Users(ctx, q()); return len(page), err }
	}
	records := func(q tokens.RecordQuery) func() (int, error) {
		return func() (int, error) { page, _, err := db.Records(ctx, q); return len(page), err }
	}
	const n, rounds = 100, 300
	for _, c := range []struct {
		name string
		ask  func() (int, error)
	}{
		{"part of a serial", func() (int, error) {
			page, _, err := db.Tokens(ctx, tokens.TokenQuery{Q: part(serial(), 3+rand.IntN(6)), Limit: n})
			return len(page), err
		}},
		{"part of a name", func() (int, error) {
			page, _, err := db.Tokens(ctx, tokens.TokenQuery{Q: part(user(), 3+rand.IntN(5)), Limit: n})
			return len(page), err
		}},
		{"part of a serial, lost", func() (int, error) {
			page, _, err := db.Tokens(ctx, tokens.TokenQuery{Q: part(serial(), 3+rand.IntN(4)), State: tokens.Lost, Limit: n})
			return len(page), err
		}},
		{"part of all serials", somewhere(tokens.TokenQuery{Q: "tok", Limit: n})},
		{"beginning of all serials", somewhere(tokens.TokenQuery{Q: "tO", Limit: n})},
		{"no serial", list(tokens.TokenQuery{Q: "nothing", Limit: n})},
		{"all tokens", somewhere(tokens.TokenQuery{Limit: n})},
		{"realm", somewhere(tokens.TokenQuery{Realm: "default", Limit: n})},
		{"small realm", list(tokens.TokenQuery{Realm: "branch", Limit: n})},
		{"imported", list(tokens.TokenQuery{State: tokens.Imported, Limit: n})},
		{"lost", somewhere(tokens.TokenQuery{State: tokens.Lost, Limit: n})},
		{"suspended", list(tokens.TokenQuery{State: tokens.Suspended, Limit: n})},
		{"hotp", somewhere(tokens.TokenQuery{Type: tokens.HOTP, Limit: n})},
		{"lost hotp", list(tokens.TokenQuery{Type: tokens.HOTP, State: tokens.Lost, Limit: n})},
		{"tag", somewhere(tokens.TokenQuery{Tag: "often", Limit: n})},
		{"rare tag", list(tokens.TokenQuery{Tag: "rare", Limit: n})},
		{"tag and state that never meet", list(tokens.TokenQuery{Tag: "often", State: tokens.Lost, Limit: n})},
		{"import", somewhere(tokens.TokenQuery{Batch: 7, Limit: n})},
		{"owner", func() (int, error) {
			page, _, err := db.Tokens(ctx, tokens.TokenQuery{Owner: user(), Realm: "default", Limit: n})
			return len(page), err
		}},
		{"user by part of the name", people(func() tokens.UserQuery { return tokens.UserQuery{Q: part(user(), 3+rand.IntN(5)), Limit: n} })},
		{"part of all names", people(func() tokens.UserQuery { return tokens.UserQuery{Q: "ser", After: rand.Int64N(bigUsers), Limit: n} })},
		{"beginning of a name", people(func() tokens.UserQuery { return tokens.UserQuery{Q: "us", Limit: n} })},
		{"users", people(func() tokens.UserQuery { return tokens.UserQuery{After: rand.Int64N(bigUsers), Limit: n} })},
		{"group", people(func() tokens.UserQuery { return tokens.UserQuery{Group: "board", Limit: n} })},
		{"large group", people(func() tokens.UserQuery {
			return tokens.UserQuery{Group: "staff", After: rand.Int64N(bigUsers), Limit: n}
		})},
		{"external id", people(func() tokens.UserQuery { return tokens.UserQuery{External: "none", Limit: n} })},
		{"audit", records(tokens.RecordQuery{Limit: n})},
		{"audit by action", records(tokens.RecordQuery{Action: "token.resync", Limit: n})},
		{"audit by rare outcome", records(tokens.RecordQuery{Outcome: "denied", Limit: n})},
		{"audit by serial", records(tokens.RecordQuery{Serial: "TOK10000007", Limit: n})},
		{"audit of nothing", records(tokens.RecordQuery{Serial: "none", Limit: n})},
		{"acts on a serial", records(tokens.RecordQuery{Serial: "TOK10000000", Action: "token.resync", Limit: n})},
		{"page of the report", func() (int, error) {
			rows, err := db.Credentials(ctx, tokens.CredentialQuery{After: rand.Int64N(bigUsers), Limit: n})
			return len(rows), err
		}},
		{"page of what nobody holds", func() (int, error) {
			rows, err := db.Credentials(ctx, tokens.CredentialQuery{Unowned: true, Limit: n})
			return len(rows), err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var took []time.Duration
			rows := 0
			for range rounds {
				begun := time.Now()
				found, err := c.ask()
				if err != nil {
					t.Fatal(err)
				}
				took = append(took, time.Since(begun))
				rows += found
			}
			slices.Sort(took)
			p99 := took[rounds*99/100-1]
			t.Logf("median %v, p99 %v, worst %v; %d rows", took[rounds/2].Round(10*time.Microsecond), p99.Round(10*time.Microsecond),
				took[rounds-1].Round(10*time.Microsecond), rows/rounds)
			if p99 > bigLimit {
				t.Errorf("p99 is %v", p99)
			}
		})
	}

	t.Run("the whole report, in little memory", func(t *testing.T) { wholeReport(t, db) })
}

func wholeReport(t *testing.T, db *store.DB) {
	var most runtime.MemStats
	begun, total := time.Now(), 0
	for _, unowned := range []bool{false, true} {
		for q := (tokens.CredentialQuery{Unowned: unowned, Limit: 500}); ; {
			rows, err := db.Credentials(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range rows {
				total += max(len(r.Tokens), 1)
				if q.After = r.Tokens[0].ID; r.User != nil {
					q.After = r.User.User.ID
				}
			}
			var now runtime.MemStats
			if runtime.ReadMemStats(&now); now.HeapInuse > most.HeapInuse {
				most = now
			}
			if len(rows) < q.Limit {
				break
			}
		}
	}
	t.Logf("the report: %d rows in %v, with %d MiB of heap at most", total, time.Since(begun).Round(time.Millisecond), most.HeapInuse>>20)
	if total != bigTokens || most.HeapInuse > 96<<20 {
		t.Errorf("%d rows, %d bytes of heap", total, most.HeapInuse)
	}
}

func TestALargeSiteIsSearchedQuicklyOnSQLite(t *testing.T) {
	bigSite(t, "WATCHWORD_BIG_SQLITE", sqliteURL, false)
}

func TestALargeSiteIsSearchedQuicklyOnPostgres(t *testing.T) {
	bigSite(t, "WATCHWORD_BIG_POSTGRES", storetest.Postgres, true)
}
