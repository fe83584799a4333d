package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/storetest"
)

// The size of the site whose statements are explained: more of everything than a
// statement may look at.
const (
	planUsers   = 12_000
	planTokens  = 14_000
	planRecords = 25_000
)

// inhabited is a database of that size. raw is the same one without the store.
func inhabited(t *testing.T, url string) (db *DB, raw *sql.DB) {
	t.Helper()
	ctx := context.Background()
	db, err := Open(ctx, url, Options{Readers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := db.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	name, path, sqlite := "postgres", url, false
	if path, sqlite = strings.CutPrefix(url, "sqlite:"); sqlite {
		name = "sqlite3"
	}
	if raw, err = sql.Open(name, path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })

	series := func(n int) string {
		if sqlite {
			return fmt.Sprintf("(WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < %d) SELECT i FROM c) AS n", n)
		}
		return fmt.Sprintf("generate_series(1, %d) AS n(i)", n)
	}
	over, blob, off, thread, tail := "OVERRIDING SYSTEM VALUE", "decode(repeat('00', 32), 'hex')", "false", [2]string{}, [2]string{}
	if sqlite {
		over, blob, off = "", "zeroblob(32)", "0"
		// Each fifth record is user1's, and the others are of nobody.
		thread = [2]string{", prev", ", CASE WHEN i % 5 = 0 THEN i - 5 WHEN i % 1000 = 1 THEN NULL END"}
		tail = [2]string{", tail", fmt.Sprintf(", CASE WHEN i = 1 THEN %d ELSE 0 END", planRecords)}
	}
	statements := []string{
		`INSERT INTO users (id, realm, key, name, state, created, external) ` + over + ` SELECT i, CASE WHEN i % 100 = 0 THEN 'branch' ELSE 'default' END,
			'user' || i, 'User' || i, 'enabled', 1, 'x' || i FROM ` + series(planUsers),
		`INSERT INTO standings (user_id, version, failures, locked, throttle` + tail[0] + `) SELECT i, 1, 0, ` + off + `, ''` + tail[1] + ` FROM ` + series(planUsers),
		`INSERT INTO batches (id, state, realm, name, format, sha256, actor, created, touched) ` + over + `
			SELECT i, CASE WHEN i = 14 THEN 'staging' ELSE 'published' END, 'default', 'file', 'csv', '', '', 1, 1 FROM ` + series(14),
		`INSERT INTO tokens (id, batch, realm, serial, type, algorithm, digits, period, state, owner_id, model, created, mechanism, kek, hash, seed_len, blob, binding, last0, drift0) ` + over + `
			SELECT i, 1 + i * 13 / 14001, CASE WHEN i % 200 = 0 THEN 'branch' ELSE 'default' END, 'TOK' || (10000000 + i * 7), CASE WHEN i % 10 = 0 THEN 'hotp' ELSE 'totp' END, 1, 6, 30,
			CASE WHEN i > 10000 THEN 'imported' WHEN i % 1000 = 7 THEN 'lost' ELSE 'active' END,
			CASE WHEN i > 10000 THEN NULL ELSE i END, 'model', 1, 'aes', 1, 1, 20, ` + blob + `, ` + blob + `, -1, 0 FROM ` + series(planTokens),
		`INSERT INTO motions (token_id, version, last, drift, used_at) SELECT i, 1, 1, 0, i % 2 FROM ` + series(10_000),
		`INSERT INTO token_tags (token_id, tag) SELECT i, CASE WHEN i % 1000 = 0 THEN 'rare' ELSE 'often' END FROM ` + series(planTokens),
		`INSERT INTO memberships (user_id, group_name) SELECT i, CASE WHEN i % 500 = 0 THEN 'board' ELSE 'staff' END FROM ` + series(planUsers),
		`INSERT INTO audit (id, chain, seq, time, action, outcome, realm, user_key, serial, actor, client, source, reason, detail, hash` + thread[0] + `) ` + over + `
			SELECT i, 1, i, CAST(i AS bigint) * 1000000, CASE WHEN i % 1000 = 0 THEN 'token.resync' ELSE 'verify' END, CASE WHEN i % 5000 = 0 THEN 'denied' ELSE 'accept' END, 'default',
			CASE WHEN i % 5 = 0 THEN 'user1' WHEN i % 1000 = 1 THEN 'nobody' ELSE '' END, 'TOK' || (10000000 + i % 100 * 7), 'a', 'c', 's', 'r', '', ` + blob + thread[1] + ` FROM ` + series(planRecords),
	}
	if sqlite {
		statements = append(statements,
			`INSERT INTO token_search (rowid, serial) SELECT id, serial FROM tokens WHERE batch < 13`,
			`INSERT INTO unsearched (batch) VALUES (13)`) // which was imported just now
	} else {
		statements = append(statements, `VACUUM ANALYZE`) // as the server does by itself in time
	}
	for _, statement := range statements {
		if _, err := raw.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	return db, raw
}

// tap is a connection that shows each statement before it runs it.
type tap struct {
	conn interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
	see func(s *session, query string, args []any)
	s   *session
}

func (c tap) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	c.see(c.s, query, args)
	return c.conn.ExecContext(ctx, query, args...)
}

func (c tap) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	c.see(c.s, query, args)
	return c.conn.QueryContext(ctx, query, args...)
}

// tapped is an engine whose listings show their statements.
type tapped struct {
	engine
	see func(s *session, query string, args []any)
}

func (e tapped) read(ctx context.Context, f func(*session) error) error {
	return e.engine.read(ctx, func(s *session) error {
		return f(&session{conn: tap{s.conn, e.see, s}, ctx: s.ctx, dollar: s.dollar})
	})
}

// question is a way to ask the directory, the journal or the report for something.
type question struct {
	name string
	most int // rows of one table that one statement of it may look at
	ask  func(ctx context.Context, db *DB) error
}

// subsets calls f with every combination of filters.
func subsets(n int, f func(has func(i int) bool)) {
	for mask := range 1 << n {
		f(func(i int) bool { return mask&(1<<i) != 0 })
	}
}

func pick[T any](has bool, v T) (none T) {
	if has {
		return v
	}
	return none
}

// questions are all filters of all queries in every combination, with what many
// rows meet and with what few do.
func questions() []question {
	var all []question
	ask := func(most int, q any, f func(ctx context.Context, db *DB) error) {
		all = append(all, question{fmt.Sprintf("%T%+v", q, q), most, f})
	}
	for _, few := range []bool{false, true} {
		of := func(many, rare string) string {
			if few {
				return rare
			}
			return many
		}
		for _, part := range []string{"", of("user", "er1234"), of("us", "zz"), of("1111111", "9.-жж")} {
			subsets(5, func(has func(int) bool) {
				q := tokens.UserQuery{
					Realm: pick(has(0), of("default", "branch")), Key: pick(has(1), "user100"), External: pick(has(2), "x100"),
					Group: pick(has(3), of("staff", "board")), After: pick(has(4), int64(200)), Q: part, Limit: 10,
				}
				ask(allSeen+1, q, func(ctx context.Context, db *DB) error { _, _, err := db.Users(ctx, q); return err })
			})
		}
		for _, part := range []string{"", of("tok", "1000700"), of("user", "er1234"), of("to", "us"), of("0000000", "97.")} {
			subsets(8, func(has func(int) bool) {
				q := tokens.TokenQuery{
					Realm: pick(has(0), of("default", "branch")), Serial: pick(has(1), "TOK10000700"), Owner: pick(has(2), "user100"),
					State: pick(has(3), tokens.State(of("active", "lost"))), Type: pick(has(4), tokens.Type(of("totp", "hotp"))),
					Tag: pick(has(5), of("often", "rare")), Batch: pick(has(6), int64(3)), After: pick(has(7), int64(200)), Q: part, Limit: 10,
				}
				ask(allSeen+1, q, func(ctx context.Context, db *DB) error { _, _, err := db.Tokens(ctx, q); return err })
			})
		}
		at := func(many, rare int64) time.Time {
			if few {
				many = rare
			}
			return time.Unix(many, 0)
		}
		subsets(9, func(has func(int) bool) {
			q := tokens.RecordQuery{
				Realm: pick(has(0), "default"), User: pick(has(1), of("user1", "nobody")), Serial: pick(has(2), of("TOK10000000", "none")),
				Action: pick(has(3), of("verify", "token.resync")), Outcome: pick(has(4), of("accept", "denied")), Before: pick(has(5), int64(24_995)), Limit: 10,
				Actor: pick(has(6), of("a", "none")), Policy: pick(has(7), of("builtin.verifier", "none")),
				Since: pick(has(7), at(2_000, 22_000)), Until: pick(has(8), at(24_000, 23_000)),
			}
			ask(allRead+1, q, func(ctx context.Context, db *DB) error { _, _, err := db.Records(ctx, q); return err })
			ask(allRead+1, q, func(ctx context.Context, db *DB) error { _, _, err := db.Onward(ctx, q, 100); return err })
		})
		subsets(3, func(has func(int) bool) {
			q := tokens.CredentialQuery{Realm: pick(has(0), of("default", "branch")), Unowned: has(1), After: pick(has(2), int64(200)), Limit: 150}
			ask(allSeen+1, q, func(ctx context.Context, db *DB) error { _, err := db.Credentials(ctx, q); return err })
		})
		subsets(3, func(has func(int) bool) {
			q := tokens.BatchQuery{ID: pick(has(0), int64(3)), Realm: pick(has(1), "default"), Before: pick(has(2), int64(9)), Limit: 5}
			ask(100, q, func(ctx context.Context, db *DB) error { _, err := db.Batches(ctx, q); return err })
		})
	}
	for _, realm := range []string{"", "default", "none"} {
		ask(tokens.MostCounted+1, "realms of "+realm, func(ctx context.Context, db *DB) error { _, err := db.Realms(ctx, realm); return err })
	}
	for _, q := range []struct {
		name string
		most int
		ask  func(ctx context.Context, db *DB) error
	}{
		{"clocks of an import", tokens.MostCounted, func(ctx context.Context, db *DB) error { _, err := db.Drifts(ctx, 3, 100); return err }},
		{"registry", 100, func(ctx context.Context, db *DB) error { _, err := db.Registry(ctx); return err }},
		{"heads", 100, func(ctx context.Context, db *DB) error { _, err := db.Heads(ctx); return err }},
		{"chains", 100, func(ctx context.Context, db *DB) error { _, err := db.Chains(ctx); return err }},
		{"what is to be told", 1000, func(ctx context.Context, db *DB) error { _, err := db.After(ctx, 1, 20_000, 500); return err }},
		{"what was told", 1000, func(ctx context.Context, db *DB) error { _, err := db.Told(ctx, "siem"); return err }},
		{"groups", 100, func(ctx context.Context, db *DB) error { _, err := db.Groups(ctx, 5); return err }},
		{"a chain", walkPage, func(ctx context.Context, db *DB) error {
			n := 0
			err := db.Walk(ctx, 1, func(*audit.Record) error {
				if n++; n > 2*walkPage {
					return context.Canceled
				}
				return nil
			})
			if err != context.Canceled {
				return fmt.Errorf("walked %d records: %w", n, err)
			}
			return nil
		}},
	} {
		ask(q.most, q.name, q.ask)
	}
	return all
}

// What a large realm holds is counted as far as that is bounded, and said to be more.
func TestALargeRealmIsNotCountedToTheEnd(t *testing.T) {
	for name, url := range map[string]string{"SQLite": "sqlite:" + filepath.Join(t.TempDir(), "w.db"), "PostgreSQL": storetest.Postgres(t)} {
		db, _ := inhabited(t, url)
		want := []tokens.RealmEntry{
			{Name: "branch", Users: planUsers / 100, Tokens: planTokens / 200},
			{Name: "default", Users: tokens.MostCounted, Tokens: tokens.MostCounted, MoreUsers: true, MoreTokens: true},
		}
		if got, err := db.Realms(context.Background(), ""); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: the realms hold %+v, %v", name, got, err)
		}
	}
}

// explained asks a database everything, and calls explain once for each statement
// that it sends and each of its parameters; if that answers a reproach, the statement
// looks at too much.
func explained(t *testing.T, url string, explain func(s *session, most int, query string, args []any) (reproach string, err error)) {
	db, _ := inhabited(t, url)
	var (
		now      question
		seen     = make(map[string]bool)
		reproved = make(map[string]bool)
	)
	db.engine = tapped{db.engine, func(s *session, query string, args []any) {
		if strings.HasPrefix(query, explaining) {
			return
		}
		once := fmt.Sprint(now.most, query, args)
		if seen[once] {
			return
		}
		seen[once] = true
		reproach, err := explain(s, now.most, query, args)
		if err != nil {
			t.Fatalf("%s\n%s: %v", now.name, query, err)
		}
		if reproach != "" && !reproved[query] {
			reproved[query] = true
			t.Errorf("%s\nsends  %s\nwhich  %s", now.name, spaces.ReplaceAllString(query, " "), reproach)
		}
	}}
	for _, now = range questions() {
		if err := now.ask(context.Background(), db); err != nil {
			t.Fatalf("%s: %v", now.name, err)
		}
	}
	if len(seen) < 500 {
		t.Errorf("only %d statements were sent", len(seen))
	}
	t.Logf("%d statements", len(seen))
}

var spaces = regexp.MustCompile(`\s+`)

// small are the tables that may be looked at as a whole, and why.
var small = map[string]string{
	"meta":        "one row",
	"clients":     "each node holds all of them in memory",
	"api_keys":    "each node holds all of them in memory",
	"chains":      "one row for each start of a server",
	"batches":     "one row for each import",
	"unsearched":  "one row for each import that was published a moment ago",
	"role_grants": "each node holds all of them in memory",
}

// narrow are the conditions that an index of SQLite leads to few rows by, and why
// they are few.
var narrow = map[string]string{
	"rowid=?":                    "one row",
	"realm=? AND key=?":          "one user",
	"realm=? AND serial=?":       "one token",
	"external=?":                 "one user of each realm",
	"realm=? AND external=?":     "one user",
	"credential_key=?":           "one token",
	"owner_id=?":                 "what one user holds, or held",
	"user_id=?":                  "the groups of a user",
	"token_id=?":                 "the tags of a token",
	"token_id=? AND tag=?":       "one row",
	"user_id=? AND group_name=?": "one row",
	"realm>?":                    "the next realm: LIMIT 1 goes with it",
	"sink=?":                     "one row for each chain",
	"chain>?":                    "the next chain: min goes with it",
}

// end is what ends a way along an index.
type end struct {
	query *regexp.Regexp
	why   string
}

// ends are statements of SQLite that follow an index until something ends them, and
// what that is. Everything that they look at before that end meets their conditions.
var ends = []end{
	{regexp.MustCompile(`^SELECT substr\(name, 7\) FROM documents WHERE name > 'rules/' AND name < 'rules0' ORDER BY name LIMIT 1000$`),
		"LIMIT: nothing is left out on the way"},
	{regexp.MustCompile(`^SELECT u\.id FROM users u( WHERE (u\.realm = \?|u\.key > \?|\(u\.realm, u\.key\) > \(\?, \?\)| AND )+)? ORDER BY u\.realm, u\.key LIMIT (1 OFFSET )?\?$`),
		"LIMIT: nothing is left out on the way"},
	{regexp.MustCompile(`^SELECT u\.id FROM users u WHERE .*(\bu\.key <= \?|\(u\.realm, u\.key\) <= \(\?, \?\)).* ORDER BY u\.realm, u\.key LIMIT \?$`),
		"the last user that a page looks at"},
	{regexp.MustCompile(`^SELECT .* FROM audit( WHERE id (<|>=) \?)?( AND id >= \?)? ORDER BY id DESC LIMIT (1 OFFSET )?\?$`),
		"LIMIT: nothing is left out on the way"},
	{regexp.MustCompile(`^SELECT .* FROM audit WHERE (serial <> '' AND action <> 'verify' AND serial = \?|action <> 'verify' AND (action|actor) = \?)( AND id < \?)?( AND id >= \?)? ORDER BY id DESC LIMIT (1 OFFSET )?\?$`),
		"LIMIT: nothing is left out on the way"},
	{regexp.MustCompile(`^SELECT .* FROM audit WHERE .*\bid >= \?.* ORDER BY id DESC LIMIT \?$`),
		"the last record that a page looks at"},
	{regexp.MustCompile(`^SELECT .* FROM audit WHERE (serial <> '' AND action <> 'verify' AND serial = \?|action <> 'verify' AND (action|actor) = \?)( AND id < \?)? AND (\+|time|instr).* ORDER BY id DESC LIMIT \?$`),
		"there are fewer than a page looks at: else the last one would be named"},
	{regexp.MustCompile(`^SELECT .* FROM audit WHERE user_key = \? AND user_key <> '' AND prev IS NULL `),
		"the records of a name from when it was no user's, which are few: attempts of strangers are throttled, and not written one by one"},
	{regexp.MustCompile(`^SELECT .* FROM audit WHERE id >= \? AND id < \?.* ORDER BY id LIMIT (1 OFFSET )?\?$`), "the last record that a page looks at, or LIMIT"},
	{regexp.MustCompile(`^SELECT id, time FROM audit WHERE id >= \? ORDER BY id LIMIT 1$`), "LIMIT"},
	{regexp.MustCompile(`^SELECT coalesce\(\(SELECT min\(id\) FROM audit\), 0\), `), "the first and the last"},
	{regexp.MustCompile(`^SELECT .* FROM audit WHERE chain = \? AND seq > \? ORDER BY seq LIMIT \?$`), "LIMIT: nothing is left out on the way"},
	{regexp.MustCompile(`^SELECT id FROM tokens WHERE (batch = \? AND |state = \? AND type = \? AND )?id > \? ORDER BY id LIMIT \?$`), "LIMIT: nothing is left out on the way"},
	{regexp.MustCompile(`^SELECT id FROM tokens WHERE realm = \?( AND serial >= \? AND serial < \?)? ORDER BY serial LIMIT \?$`), "LIMIT: nothing is left out on the way"},
	{regexp.MustCompile(`^SELECT id FROM users WHERE realm = \? AND key >= \? AND key < \? ORDER BY key LIMIT \?$`), "LIMIT: nothing is left out on the way"},
	{regexp.MustCompile(`^SELECT token_id FROM token_tags WHERE tag = \? AND token_id > \? ORDER BY token_id LIMIT \?$`), "LIMIT: nothing is left out on the way"},
	{regexp.MustCompile(`^SELECT user_id FROM memberships WHERE group_name = \? ORDER BY user_id LIMIT \?$`), "LIMIT: nothing is left out on the way"},
	{regexp.MustCompile(`^SELECT id FROM users WHERE (realm = \? AND )?id > \? ORDER BY id LIMIT \?$`), "LIMIT: nothing is left out on the way"},
	{regexp.MustCompile(`^SELECT count\(\*\), .* FROM \(SELECT .* FROM (users|tokens) WHERE realm = \? ORDER BY (key|serial) LIMIT \?\) AS .`), "MostCounted"},
	{regexp.MustCompile(`^SELECT t\.id, t\.serial, .* FROM \(SELECT id FROM tokens WHERE batch = \? ORDER BY id LIMIT \?\) AS p `), "MostCounted"},
	{regexp.MustCompile(`^SELECT t\.id AS id FROM unsearched w CROSS JOIN batches b .* CROSS JOIN tokens t ON t\.batch = b\.id `),
		"the imports that were published a moment ago"},
	{regexp.MustCompile(`^WITH RECURSIVE used \((realm|chain)\) `), "LIMIT 1, or min, at each realm or chain"},
}

// Nothing that is listed, searched, reported or told makes SQLite look at a whole
// table, or sort one.
func TestSQLiteFollowsAnIndexWhateverIsAsked(t *testing.T) {
	explained(t, "sqlite:"+filepath.Join(t.TempDir(), "w.db"), func(s *session, _ int, query string, args []any) (string, error) {
		rows, err := s.query("EXPLAIN QUERY PLAN "+query, args...)
		steps, err := list(rows, err, 4, func(f *fields) string { f.next = 3; return f.str() })
		if err != nil {
			return "", err
		}
		return reproveSQLite(spaces.ReplaceAllString(query, " "), steps), nil
	})
}

var (
	sqliteScan   = regexp.MustCompile(`^SCAN (\w+)( .*)?$`)
	sqliteSearch = regexp.MustCompile(`^SEARCH (\w+) (?:EXISTS )?USING (.*?)(?: \((.*)\))?(?: LEFT-JOIN)?$`)
)

// reproveSQLite says what is wrong with the steps of a plan, or nothing.
func reproveSQLite(query string, steps []string) string {
	ended := slices.ContainsFunc(ends, func(e end) bool { return e.query.MatchString(query) })
	for _, step := range steps {
		if scan := sqliteScan.FindStringSubmatch(step); scan != nil {
			name, how := scan[1], scan[2]
			switch {
			case small[name] != "", name == "json_each", name == "CONSTANT", name == "used":
			case slices.ContainsFunc(steps, func(s string) bool { return s == "CO-ROUTINE "+name || s == "MATERIALIZE "+name }):
			case strings.Contains(how, "VIRTUAL TABLE") && strings.Contains(how, ":M"): // a full-text query
			case ended && (how == "" || strings.Contains(how, "COVERING INDEX")) && !slices.Contains(steps, "USE TEMP B-TREE FOR ORDER BY"):
			case name == "w" && strings.Contains(query, "FROM unsearched w"), name == "b" && strings.Contains(query, "JOIN batches b"), name == "g" && strings.Contains(query, "FROM role_grants g"):
			default:
				return "looks at a whole table: " + step
			}
			continue
		}
		if search := sqliteSearch.FindStringSubmatch(step); search != nil {
			condition := strings.TrimSuffix(search[3], " AND rowid=?")
			switch {
			case strings.Contains(search[2], "AUTOMATIC"):
				return "makes an index of a whole table: " + step
			case small[search[1]] != "", narrow[condition] != "", ended:
			default:
				return "follows an index to more rows than a page looks at, maybe: " + step
			}
			continue
		}
		if strings.HasPrefix(step, "USE TEMP B-TREE") {
			switch {
			case strings.Contains(query, "json_each(?)"): // the rows of one page, or the hits of a search
			case strings.Contains(query, " IN (?"): // what the users of one page hold
			case strings.Contains(query, " FROM clients "), strings.Contains(query, " FROM api_keys "), strings.Contains(query, " FROM chains "):
			case strings.Contains(query, "u.external = ?"): // one user of each realm
			case strings.Contains(query, "unsearched w"), strings.Contains(query, ") AS p "): // see ends
			default:
				return "sorts what it finds: " + step
			}
		}
	}
	return ""
}

// node is a step of a plan of PostgreSQL, as it was run.
type node struct {
	Type      string  `json:"Node Type"`
	Relation  string  `json:"Relation Name"`
	Index     string  `json:"Index Name"`
	Cond      string  `json:"Index Cond"`
	Filter    string  `json:"Filter"`
	Rows      float64 `json:"Actual Rows"`
	Loops     float64 `json:"Actual Loops"`
	Filtered  float64 `json:"Rows Removed by Filter"`
	Rechecked float64 `json:"Rows Removed by Index Recheck"`
	Plans     []node  `json:"Plans"`
}

// reprove says what is wrong with a plan of which no step is to look at more rows
// than most, or nothing.
func (n *node) reprove(most int) string {
	looked := n.Loops * (n.Rows + n.Filtered + n.Rechecked)
	step := fmt.Sprintf("%s on %s%s %s, %.0f rows", n.Type, n.Relation, n.Index, n.Cond, looked)
	switch {
	case small[n.Relation] != "":
	case n.Type == "Seq Scan":
		return "looks at a whole table: " + step
	case strings.HasPrefix(n.Type, "Index") && n.Cond == "" && n.Filter != "":
		return "looks at a whole index: " + step
	case n.Index == "users_search", n.Index == "tokens_search":
		// What is found by trigrams is counted where it is read: in the index it is
		// a list of a few bytes for each.
	case looked > float64(most) && n.Type != "Nested Loop" && n.Type != "Memoize":
		return fmt.Sprintf("looks at more than %d rows: %s", most, step)
	}
	for i := range n.Plans {
		if reproach := n.Plans[i].reprove(most); reproach != "" {
			return reproach
		}
	}
	return ""
}

// Nor PostgreSQL. Its tables are small here, where it might well read one as a whole;
// so it is told what it would find by itself where they are not.
func TestPostgresFollowsAnIndexWhateverIsAsked(t *testing.T) {
	explained(t, storetest.Postgres(t), func(s *session, most int, query string, args []any) (string, error) {
		for _, name := range []string{"seqscan", "hashjoin", "mergejoin"} {
			if _, err := s.exec("SET enable_" + name + " = off"); err != nil {
				return "", err
			}
		}
		var text []byte
		err := s.one("EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) "+query, args, &text)
		for _, name := range []string{"seqscan", "hashjoin", "mergejoin"} {
			if _, rerr := s.exec("RESET enable_" + name); err == nil {
				err = rerr
			}
		}
		if err != nil {
			return "", err
		}
		var plans []struct{ Plan node }
		if err := json.Unmarshal(text, &plans); err != nil {
			return "", err
		}
		return plans[0].Plan.reprove(most), nil
	})
}
