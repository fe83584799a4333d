package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pressly/goose/v3"

	"watchword/hsm"
	"watchword/migrations"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// furnished fills a database with one of everything that the first version knew.
func furnished(t *testing.T, db *store.DB) (*writer, int64) {
	t.Helper()
	ctx := context.Background()
	w := alice(t, db) // with A1
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		_, err := w.accept(ctx)
		must(err)
	}
	u := &tokens.User{Realm: "elsewhere", Name: "Ünal", Key: "ünal", State: tokens.UserDisabled, PINSalt: []byte{1}, PINMAC: []byte{2, 0xFF}, Created: time.Now()}
	must(w.commit(ctx, &tokens.Change{NewUsers: []tokens.NewUser{{User: u}}}, event("user.add")))
	must(w.commit(ctx, &tokens.Change{Standings: []tokens.StandingWrite{{UserID: u.ID, Expect: 1, Next: tokens.Standing{
		Version: 2, Failures: 100, Locked: true, Throttle: []tokens.ClientFailures{{Client: "vpn", Failures: 100, Last: 7}},
	}}}}, event("user.lock")))

	batch, err := db.Begin(ctx, tokens.Batch{Realm: "default", Name: "b.csv", Format: "oath-csv", Actor: "key:admin", Created: time.Now()})
	must(err)
	hinted, yubico, moved := sampleToken("T1"), sampleToken("T2"), sampleToken("T3")
	hinted.Hint = "bob"
	yubico.Type, yubico.PublicID, yubico.PrivateMAC = tokens.YubicoOTP, "vvcc", []byte{1, 2}
	_, err = db.Stage(ctx, batch, []tokens.Token{hinted, yubico, moved})
	must(err)
	must(w.commit(ctx, &tokens.Change{Publish: []tokens.Batch{{ID: batch, SHA256: "00ff", Tokens: 3, Rejected: 1}}}, event("import.publish")))
	list, _, err := db.Tokens(ctx, tokens.TokenQuery{Serial: "T3", Limit: 1})
	must(err)
	must(w.commit(ctx, &tokens.Change{Motions: []tokens.MotionWrite{{TokenID: list[0].ID, Expect: 1, Last: 50, UsedAt: 9}}}, event("token.resync")))
	must(w.commit(ctx, &tokens.Change{
		Clients: []tokens.ClientWrite{{Client: tokens.Client{Name: "vpn", Prefix: prefixes[0], Secret: []byte{1}, Created: time.Now()}}},
		Keys:    []tokens.KeyWrite{{Key: tokens.APIKey{ID: "k1", Scope: "admin", MAC: [32]byte{9}, Created: time.Now()}}},
	}, event("client.put")))
	must(db.AddHSMKeys(ctx, []hsm.KeyRecord{{Name: "kek", Version: 1, ID: []byte{1}, Check: []byte{2}}}))

	staging, err := db.Begin(ctx, tokens.Batch{Realm: "default", Created: time.Now()})
	must(err)
	granted := sampleToken("G1")
	_, err = db.Stage(ctx, staging, []tokens.Token{granted})
	must(err)
	ids, err := db.Reserve(ctx, 1)
	must(err)
	granted.OwnerID, granted.State = ids[0], tokens.Active
	must(db.Grant(ctx, staging, []tokens.User{{ID: ids[0], Realm: "default", Name: "carol", Key: "carol", Created: time.Now()}}, []tokens.Token{granted}))
	return w, staging
}

// picture is everything that a database shows.
func picture(t *testing.T, db *store.DB) string {
	t.Helper()
	ctx := context.Background()
	var b strings.Builder
	show := func(v any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%+v\n", v)
	}
	users, _, err := db.Users(ctx, tokens.UserQuery{Limit: 100})
	show(users, err)
	list, _, err := db.Tokens(ctx, tokens.TokenQuery{Limit: 100})
	show(list, err)
	view, err := db.Load(ctx, []tokens.Ref{
		{Realm: "default", User: "alice"}, {Realm: "elsewhere", User: "ünal"}, {Realm: "default", User: "carol"},
		{Realm: "default", Serial: "A1"}, {Realm: "default", Serial: "T2"}, {Realm: "default", Serial: "T3"}, {Realm: "default", Serial: "G1"},
	})
	show(view.Generation, err)
	for _, s := range view.Subjects {
		if s == nil {
			show("nobody", nil)
			continue
		}
		show(s.Standing, nil)
		show(s.Tokens, nil)
		if s.User != nil {
			show(*s.User, nil)
		}
	}
	batches, err := db.Batches(ctx, tokens.BatchQuery{Limit: 100})
	show(batches, err)
	for _, batch := range batches {
		tally, err := db.Tally(ctx, batch.ID)
		show(tally, err)
	}
	registry, err := db.Registry(ctx)
	show(registry, err)
	keys, err := db.HSMKeys(ctx)
	show(keys, err)
	heads, err := db.Heads(ctx)
	show(heads, err)
	for _, q := range []tokens.RecordQuery{{Limit: 100}, {User: "alice", Limit: 100}} {
		records, _, err := db.Records(ctx, q)
		show(records, err)
	}
	present, err := db.Present(ctx, "default", []string{"A1", "G1", "none"})
	show(present, err)
	return b.String()
}

// transfer copies a table's rows to a database of the first version, which may
// have fewer columns.
func transfer(t *testing.T, from, to *sql.DB, table string) {
	t.Helper()
	empty, err := to.Query(`SELECT * FROM ` + table + ` LIMIT 0`)
	if err != nil {
		t.Fatal(err)
	}
	columns, err := empty.Columns()
	empty.Close()
	if err != nil {
		t.Fatal(err)
	}
	places := make([]string, len(columns))
	for i := range columns {
		places[i] = fmt.Sprintf("$%d", i+1)
		columns[i] = `"` + columns[i] + `"`
	}
	override := ""
	if _, err := to.Exec(`SELECT pg_backend_pid()`); err == nil {
		override = " OVERRIDING SYSTEM VALUE"
	}
	where := ""
	if table == "batches" {
		where = " WHERE id > 0" // the first version has no other
	}
	names := strings.Join(columns, ", ")
	rows, err := from.Query(`SELECT ` + names + ` FROM ` + table + where)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	for ; rows.Next(); n++ {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Exec(`INSERT INTO `+table+` (`+names+`)`+override+` VALUES (`+strings.Join(places, ", ")+`)`, values...); err != nil {
			t.Fatalf("%s: %v", table, err)
		}
	}
	if err := rows.Err(); err != nil || n == 0 {
		t.Fatalf("%d rows of %s were transferred, %v", n, table, err)
	}
	if override != "" {
		if _, err := to.Exec(`SELECT setval(s, (SELECT count(*) + 1000 FROM ` + table + `)) FROM pg_get_serial_sequence('` + table + `', '` +
			strings.Trim(columns[0], `"`) + `') AS s WHERE s IS NOT NULL`); err != nil {
			t.Fatalf("%s: %v", table, err)
		}
	}
}

// What the first version of the schema holds is there after the upgrade, and all
// of it goes on: accepting, publishing what was staged, and what is new.
func TestADatabaseOfTheFirstVersionIsUpgraded(t *testing.T) {
	ctx := context.Background()
	for name, urls := range map[string][2]string{
		"SQLite": {sqliteURL(t), sqliteURL(t)}, "PostgreSQL": {storetest.Postgres(t), storetest.Postgres(t)},
	} {
		t.Run(name, func(t *testing.T) {
			template := openMigrated(t, urls[0])
			w, staging := furnished(t, template)
			want := picture(t, template)

			db, err := store.Open(ctx, urls[1], store.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			old, dialect, files := rawDatabase(t, urls[1]), goose.DialectSQLite3, migrations.SQLite()
			if name == "PostgreSQL" {
				dialect, files = goose.DialectPostgres, migrations.Postgres()
			}
			provider, err := goose.NewProvider(dialect, old, files, goose.WithDisableGlobalRegistry(true))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := provider.UpTo(ctx, 1); err != nil {
				t.Fatal(err)
			}
			if _, err := old.Exec(`DELETE FROM meta`); err != nil {
				t.Fatal(err)
			}
			for _, table := range []string{
				"meta", "users", "standings", "batches", "tokens", "motions", "newcomers", "grants", "chains", "audit", "clients", "api_keys", "hsm_keys",
			} {
				transfer(t, rawDatabase(t, urls[0]), old, table)
			}

			if err := db.Migrate(ctx); err != nil {
				t.Fatalf("Migrate: %v", err)
			}
			if got := picture(t, db); got != want {
				t.Fatalf("after the upgrade\n%s\nbefore it\n%s", got, want)
			}
			if name == "SQLite" {
				var sound string
				if err := old.QueryRow(`PRAGMA integrity_check`).Scan(&sound); err != nil || sound != "ok" {
					t.Errorf("integrity: %s, %v", sound, err)
				}
				var orphans int
				if err := old.QueryRow(`SELECT count(*) FROM pragma_foreign_key_check`).Scan(&orphans); err != nil || orphans != 0 {
					t.Errorf("%d rows refer to none, %v", orphans, err)
				}
			}

			w.db = db
			if _, err := w.accept(ctx); err != nil {
				t.Errorf("accepting: %v", err)
			}
			if err := w.commit(ctx, &tokens.Change{Publish: []tokens.Batch{{ID: staging, Tokens: 1}}}, event("import.publish")); err != nil {
				t.Errorf("publishing: %v", err)
			}
			carol := subject(t, db, tokens.Ref{Realm: "default", User: "carol"})
			if len(carol.Tokens) != 1 || carol.Tokens[0].Batch != staging {
				t.Errorf("carol holds %+v", carol.Tokens)
			}
			key := sampleKey("K1", carol.User)
			enrol(t, w, &key)
			if got := subject(t, db, tokens.Ref{Realm: "default", Credential: key.Credential.Key()}); got.User == nil || len(got.Tokens) != 2 {
				t.Errorf("carol by her key is %+v", got)
			}
			batches, err := db.Batches(ctx, tokens.BatchQuery{Limit: 100})
			if err != nil || len(batches) != 3 {
				t.Errorf("%d imports, %v", len(batches), err)
			}
			if steps := audited(t, db); len(steps) != 4 {
				t.Errorf("the audit has the steps %v", steps)
			}
		})
	}
}

// A node of the version before is not stopped while another upgrades: what it
// calls is there, and does the same.
func TestANodeOfTheFirstVersionGoesOn(t *testing.T) {
	ctx := context.Background()
	url := storetest.Postgres(t)
	db := openMigrated(t, url)
	w := alice(t, db)
	s := subject(t, db, tokens.Ref{Realm: "default", User: "alice"})
	records, head := audit.Append(w.head, []audit.Event{{Time: time.Now(), Action: "verify", Realm: "default", User: "alice",
		Detail: []audit.Field{{Name: "step", Value: "5"}}}})
	r := &records[0]
	one := func(v any) string { return fmt.Sprintf(`{"%v"}`, v) }
	hash := func(h [32]byte) string { return fmt.Sprintf(`{"\\x%x"}`, h) }
	if _, err := rawPostgres(t, url).ExecContext(ctx, `SELECT watchword_commit(
		$1, $2, $3, $4, $5, $6, '{0}', '{f}', '{""}', $7, '{5}', '{0}', '{9}',
		$8, $9, $10, '{verify}', '{""}', '{default}', '{alice}', '{""}', '{""}', '{""}', '{""}', '{""}', $11, $12)`,
		one(head.Chain), one(r.Seq), one(r.Seq), hash(head.Hash), one(s.User.ID), one(s.Version), one(s.Tokens[0].ID),
		one(r.Chain), one(r.Seq), one(r.Time.UnixMicro()), `{"[{\"name\":\"step\",\"value\":\"5\"}]"}`, hash(r.Hash)); err != nil {
		t.Fatal(err)
	}
	if last := subject(t, db, tokens.Ref{Realm: "default", User: "alice"}).Tokens[0].Last; last != 5 || !audited(t, db)[5] {
		t.Errorf("the token is at %d", last)
	}
}
