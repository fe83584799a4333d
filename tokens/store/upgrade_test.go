package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"slices"
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

// furnished fills a database with one of everything that a version of the schema
// knew.
func furnished(t *testing.T, db *store.DB, version int) (*writer, int64) {
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
	if version == 1 {
		return w, staging
	}

	alice := subject(t, db, tokens.Ref{Realm: "default", User: "alice"})
	key := sampleKey("K0", alice.User)
	must(w.commit(ctx, &tokens.Change{
		Standings: move(alice), NewTokens: []*tokens.Token{&key},
		Groups:    []tokens.GroupsWrite{{UserID: alice.User.ID, Groups: []string{"staff", "vpn"}}},
		Documents: []tokens.DocumentWrite{{Name: "fido.rules", Updated: time.Now(), Data: []byte{1, 0, 0xFF}}},
		Spends:    []tokens.Spend{{Hash: [32]byte{1}, Expires: time.Now().Add(time.Hour)}},
		Invites: []tokens.InvitationWrite{{Invitation: tokens.Invitation{
			ID: "i1", Realm: "default", UserID: alice.User.ID, User: "alice", Kinds: []string{"fido"}, MAC: [32]byte{2},
			Actor: "key:admin", Created: time.Now(), Expires: time.Now().Add(time.Hour),
		}}},
	}, event("key.enrol")))
	revoked := sampleKey("K00", alice.User)
	enrol(t, w, &revoked)
	revoked.State, revoked.Binding = tokens.Revoked, nil
	must(w.commit(ctx, &tokens.Change{
		Standings: move(subject(t, db, tokens.Ref{Realm: "default", User: "alice"})), Tokens: []tokens.TokenWrite{{Token: revoked, Expect: 1}},
	}, event("token.revoke")))
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
	show(spelt(list), err)
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
		show(spelt(s.Tokens), nil)
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
	for _, u := range users {
		groups, err := db.Groups(ctx, u.User.ID)
		show(groups, err)
	}
	document, err := db.Document(ctx, "fido.rules")
	if !errors.Is(err, tokens.ErrNotFound) {
		show(document, err)
	}
	invitations, err := db.Invitations(ctx, "default", "", 100)
	show(invitations, err)
	return b.String()
}

// spelt writes tokens out, their credentials too.
func spelt(list []tokens.Token) string {
	var b strings.Builder
	for i := range list {
		t := list[i]
		t.Credential = nil
		fmt.Fprintf(&b, "%+v %s\n", t, credentialOf(&list[i]))
	}
	return b.String()
}

// transfer copies a table's rows to a database of an earlier version, which may
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
		where = " WHERE id > 0" // the other comes with the schema, if the version has it
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

// What an earlier version of the schema holds is there after the upgrade, and all
// of it goes on: accepting, publishing what was staged, and what is new.
func TestADatabaseOfAnEarlierVersionIsUpgraded(t *testing.T) {
	tables := map[int][]string{1: {
		"meta", "users", "standings", "batches", "tokens", "motions", "newcomers", "grants", "chains", "audit", "clients", "api_keys", "hsm_keys",
	}}
	tables[2] = append(slices.Clone(tables[1]), "spent", "documents", "memberships", "invitations")
	for version := 1; version <= 2; version++ {
		for name, urls := range map[string][2]string{
			"SQLite": {sqliteURL(t), sqliteURL(t)}, "PostgreSQL": {storetest.Postgres(t), storetest.Postgres(t)},
		} {
			t.Run(fmt.Sprint(name, " ", version), func(t *testing.T) { upgrade(t, urls, version, tables[version]) })
		}
	}
}

// upgrade furnishes one database, brings what is in these tables to another of the
// earlier version, and upgrades that.
func upgrade(t *testing.T, urls [2]string, version int, tables []string) {
	ctx := context.Background()
	template := openMigrated(t, urls[0])
	w, staging := furnished(t, template, version)
	from := rawDatabase(t, urls[0])
	if _, err := from.Exec(`UPDATE tokens SET assigned = 0`); err != nil { // which no earlier version knows
		t.Fatal(err)
	}
	want := picture(t, template)

	db, err := store.Open(ctx, urls[1], store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	old, dialect, files := rawDatabase(t, urls[1]), goose.DialectSQLite3, migrations.SQLite()
	sqlite := strings.HasPrefix(urls[1], "sqlite:")
	if !sqlite {
		dialect, files = goose.DialectPostgres, migrations.Postgres()
	}
	provider, err := goose.NewProvider(dialect, old, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(ctx, int64(version)); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Exec(`DELETE FROM meta`); err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		transfer(t, from, old, table)
	}

	if err := db.Migrate(ctx); err != nil {
		t.Fatalf("Migrate: %v", err)
	}
	if got := picture(t, db); got != want {
		t.Fatalf("after the upgrade\n%s\nbefore it\n%s", got, want)
	}
	if sqlite {
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
	published := time.Now().UTC().Truncate(time.Microsecond)
	if err := w.commit(ctx, &tokens.Change{Publish: []tokens.Batch{{ID: staging, Tokens: 1, Published: published}}}, event("import.publish")); err != nil {
		t.Errorf("publishing: %v", err)
	}
	carol := subject(t, db, tokens.Ref{Realm: "default", User: "carol"})
	if len(carol.Tokens) != 1 || carol.Tokens[0].Batch != staging {
		t.Errorf("carol holds %+v", carol.Tokens)
	}
	if got := listed(t, db, "G1").Assigned; !got.Equal(published) {
		t.Errorf("carol's token was assigned at %v, not %v", got, published)
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
	if version >= 2 {
		var spent *tokens.SpentError
		if err := w.commit(ctx, &tokens.Change{Spends: []tokens.Spend{{Hash: [32]byte{1}, Expires: time.Now()}}}, event("verify")); !errors.As(err, &spent) {
			t.Errorf("spending what was spent: %v", err)
		}
		known := sampleKey("K0", subject(t, db, tokens.Ref{Realm: "default", User: "alice"}).User)
		if got := subject(t, db, tokens.Ref{Realm: "default", Credential: known.Credential.Key()}); got.User == nil || got.User.Key != "alice" {
			t.Errorf("alice by her key is %+v", got)
		}
	}
	lives(t, w)
}

// lives gives what was there before the third version everything that is new.
func lives(t *testing.T, w *writer) {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s := subject(t, w.db, tokens.Ref{Realm: "default", User: "alice"})
	profile := tokens.Profile{Display: "Alice", Mail: "a@mail.example", External: "id-1", Attributes: map[string]string{"dept": "R&D"}}
	u := *s.User
	u.PINDue = true
	expiring, text := s.Tokens[0], "an old one"
	expiring.Expires = time.Unix(2_000_000_000, 7000).UTC()
	sheet := tokens.Token{
		Realm: "default", Serial: "R-1", Type: tokens.Recovery, State: tokens.Active, OwnerID: u.ID, Owner: u.Key, Created: time.Now(),
		Passcodes: [][]byte{bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)}, Binding: []byte{7},
	}
	must(w.commit(ctx, &tokens.Change{
		Standings: move(s), Users: []tokens.User{u}, Profiles: []tokens.ProfileWrite{{UserID: u.ID, Profile: profile}},
		Tokens: []tokens.TokenWrite{{Token: expiring, Expect: expiring.Version}}, NewTokens: []*tokens.Token{&sheet},
		Notes: []tokens.NoteWrite{{TokenID: expiring.ID, Note: &text, Add: []string{"old"}}},
	}, event("token.expire")))

	users, _, err := w.db.Users(ctx, tokens.UserQuery{Realm: "default", Key: "alice", Limit: 1})
	must(err)
	if !reflect.DeepEqual(users[0].Profile, profile) || !users[0].PINDue {
		t.Errorf("alice is %+v", users[0])
	}
	got := subject(t, w.db, tokens.Ref{Realm: "default", User: "alice"})
	last := got.Tokens[len(got.Tokens)-1]
	if !got.User.PINDue || got.Tokens[0].Expires != expiring.Expires || !reflect.DeepEqual(last.Passcodes, sheet.Passcodes) {
		t.Errorf("alice is %+v and holds %+v", got.User, got.Tokens)
	}
	if noted := listed(t, w.db, expiring.Serial); noted.Note != text || !slices.Equal(noted.Tags, []string{"old"}) {
		t.Errorf("the token is listed as %+v", noted)
	}
	_, err = w.accept(ctx)
	must(err)
}

// listed is a token as listed.
func listed(t *testing.T, db *store.DB, serial string) tokens.Token {
	t.Helper()
	list, _, err := db.Tokens(context.Background(), tokens.TokenQuery{Realm: "default", Serial: serial, Limit: 2})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d tokens with the serial %s, %v", len(list), serial, err)
	}
	return list[0]
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

// Nor is one of the second version, whose statements know nothing of what is new:
// they leave it as it is.
func TestANodeOfTheSecondVersionGoesOn(t *testing.T) {
	ctx := context.Background()
	url := storetest.Postgres(t)
	db := openMigrated(t, url)
	w := alice(t, db)
	lives(t, w)
	before, noted := subject(t, db, tokens.Ref{Realm: "default", User: "alice"}), listed(t, db, "A1")
	raw := rawPostgres(t, url)
	for _, statement := range []string{
		`UPDATE tokens SET state = 'suspended', owner_id = owner_id, mechanism = 'aes-kwp', kek = 1, hash = 1, seed_len = 20, blob = blob, binding = '\x09'
			WHERE serial = 'A1'`,
		`UPDATE users SET state = 'enabled', pin_salt = NULL, pin_mac = NULL WHERE key = 'alice'`,
		`INSERT INTO users (realm, key, name, state, pin_salt, pin_mac, created) VALUES ('default', 'bob', 'bob', 'enabled', NULL, NULL, 1)`,
		`INSERT INTO standings (user_id, version) SELECT id, 1 FROM users WHERE key = 'bob'`,
		`INSERT INTO tokens (batch, realm, serial, type, algorithm, digits, period, state, model, created, mechanism, kek, hash, seed_len, blob,
				binding, last0, drift0, hint, public_id, private_mac, owner_id, credential, credential_key)
			SELECT 0, 'default', 'S1', 'totp', 1, 6, 30, 'pending', '', 1, 'aes-kwp', 1, 1, 20, '\x01', '\x01', -1, 0, '', NULL, NULL, id, NULL, NULL
			FROM users WHERE key = 'bob'`,
	} {
		if _, err := raw.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	after := subject(t, db, tokens.Ref{Realm: "default", User: "alice"})
	if !after.User.PINDue || after.Tokens[0].Expires != before.Tokens[0].Expires || !reflect.DeepEqual(after.Tokens[1].Passcodes, before.Tokens[1].Passcodes) {
		t.Errorf("alice is %+v and holds %+v", after.User, after.Tokens)
	}
	if got := listed(t, db, "A1"); got.State != tokens.Suspended || got.Note != noted.Note || !slices.Equal(got.Tags, noted.Tags) {
		t.Errorf("the token is listed as %+v", got)
	}
	bob := subject(t, db, tokens.Ref{Realm: "default", User: "bob"})
	if bob.User.PINDue || len(bob.Tokens) != 1 || !bob.Tokens[0].Expires.IsZero() || bob.Tokens[0].Passcodes != nil || bob.Tokens[0].Uses != 0 {
		t.Errorf("bob is %+v and holds %+v", bob.User, bob.Tokens)
	}
}
