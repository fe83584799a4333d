package store_test

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/storetest"
)

// What somebody wrote into the audit is looked at by whoever verifies it,
// wherever it was put: what a listing shows, a walk finds.
func TestRecordsPutIntoTheAuditAreFound(t *testing.T) {
	ctx := context.Background()
	for _, c := range []struct {
		name string
		open func(t *testing.T) (url string, raw *sql.DB)
	}{
		{"SQLite", func(t *testing.T) (string, *sql.DB) {
			url := sqliteURL(t)
			raw, err := sql.Open("sqlite3", "file:"+strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(strings.TrimPrefix(url, "sqlite:")))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { raw.Close() })
			return url, raw
		}},
		{"PostgreSQL", func(t *testing.T) (string, *sql.DB) {
			url := storetest.Postgres(t)
			empty(t, url)
			return url, rawPostgres(t, url)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			url, raw := c.open(t)
			db := openMigrated(t, url)
			chain, _, err := db.MintChain(ctx)
			if err != nil {
				t.Fatal(err)
			}
			records, _ := audit.Append(audit.Head{Chain: chain}, []audit.Event{{Time: time.Now(), Action: "x", User: "alice"}})
			if err := db.Commit(ctx, &tokens.Change{Records: records}); err != nil {
				t.Fatal(err)
			}
			const put = `INSERT INTO audit (chain, seq, time, action, outcome, realm, user_key, serial, actor, client, source, reason, detail, hash)
				SELECT $1, $2, time, action, outcome, realm, user_key, serial, actor, client, source, reason, detail, hash FROM audit WHERE seq = 1 AND chain = $3`
			for _, place := range [][2]int64{{chain, 0}, {chain, -7}, {chain + 99, 1}} {
				if _, err := raw.Exec(put, place[0], place[1], chain); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := raw.Exec("DELETE FROM chains"); err != nil {
				t.Fatal(err)
			}
			listed, _, err := db.Records(ctx, tokens.RecordQuery{User: "alice"})
			if err != nil || len(listed) != 4 {
				t.Fatalf("%d records are listed, %v", len(listed), err)
			}
			chains, err := db.Chains(ctx)
			if err != nil || !slices.Equal(chains, []int64{chain, chain + 99}) {
				t.Errorf("the chains are %v, %v", chains, err)
			}
			var seen []int64
			for _, id := range []int64{chain, chain + 99} {
				if err := db.Walk(ctx, id, func(r *audit.Record) error {
					seen = append(seen, r.Seq)
					return nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			if !slices.Equal(seen, []int64{-7, 0, 1, 1}) {
				t.Errorf("a walk finds the places %v", seen)
			}
		})
	}
}
