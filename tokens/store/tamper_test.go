package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/storetest"
)

// handed keeps the first administrator's key.
type handed struct{ key string }

func (h *handed) Save(key, _ string) error {
	h.key = key
	return nil
}

// tampered is an audit of three chains on a real database: two that ended, and that of
// the server that is asked.
type tampered struct {
	*tokens.Service
	testing.TB
	url   string
	admin tokens.Principal
	own   int64
	kept  []audit.Record
}

func newTampered(t *testing.T, url string, cut bool) *tampered {
	ctx := context.Background()
	db := openMigrated(t, url)
	keys := hsmtest.NewMemory(t)
	var now atomic.Int64
	now.Store(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	x := &tampered{TB: t, url: url}
	var first handed
	for start := range 3 {
		s, err := tokens.Open(ctx, tokens.Config{Database: db, Custody: keys, Now: func() time.Time { return time.Unix(0, now.Load()) }}, keys, &first)
		if err != nil {
			t.Fatal(err)
		}
		if x.admin, err = s.Authenticate(ctx, first.key); err != nil {
			t.Fatal(err)
		}
		for i := range 12 {
			if _, err := s.AddUser(ctx, x.admin, "", fmt.Sprintf("user-%d-%d", start, i)); err != nil {
				t.Fatal(err)
			}
			now.Add(int64(24 * time.Hour))
		}
		x.Service = s
		if start < 2 {
			if err := s.Close(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Cleanup(func() {
		if err := x.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	now.Add(int64(60 * 24 * time.Hour))
	x.export()
	if cut {
		done, err := x.CutAudit(ctx, x.admin, time.Date(2030, 1, 17, 0, 0, 0, 0, time.UTC), false)
		if err != nil || done.Removed == 0 || len(done.Heads) != 2 {
			t.Fatalf("%+v, %v", done, err)
		}
	}
	k, err := x.CheckpointAudit(ctx, x.admin)
	if err != nil {
		t.Fatal(err)
	}
	x.own = k.Record.Chain
	if report := x.compare(); !report.Intact || cut != (report.Removed > 0) {
		t.Fatalf("%+v", report)
	}
	return x
}

// export is what somebody keeps elsewhere.
func (x *tampered) export() {
	x.Helper()
	x.kept = nil
	err := x.ExportAudit(context.Background(), x.admin, tokens.RecordQuery{}, func(r *audit.Record) error {
		line, err := audit.ParseJSON(r.AppendJSON(nil))
		x.kept = append(x.kept, line)
		return err
	})
	if err != nil {
		x.Fatal(err)
	}
}

func (x *tampered) compare() tokens.AgainstReport {
	x.Helper()
	n := 0
	report, err := x.CompareAudit(context.Background(), x.admin, func() (*audit.Record, error) {
		if n == len(x.kept) {
			return nil, nil
		}
		n++
		return &x.kept[n-1], nil
	})
	if err != nil {
		x.Fatal(err)
	}
	return report
}

// Whatever somebody does to the records, on either database, with a cut before or
// without, is found and named; and nothing is, where nothing was done.
func TestWhateverIsDoneToTheAuditIsNamed(t *testing.T) {
	for _, cut := range []bool{false, true} {
		for name, url := range map[string]string{"SQLite": sqliteURL(t), "PostgreSQL": storetest.Postgres(t)} {
			t.Run(fmt.Sprintf("%s cut %v", name, cut), func(t *testing.T) {
				if name == "PostgreSQL" {
					empty(t, url)
				}
				x := newTampered(t, url, cut)
				raw := rawDatabase(t, url)
				raw.SetMaxOpenConns(1)
				if name == "SQLite" {
					if _, err := raw.Exec(`PRAGMA busy_timeout = 10000`); err != nil {
						t.Fatal(err)
					}
				}
				do := func(query string, args ...any) {
					t.Helper()
					if name == "PostgreSQL" {
						for i := 1; strings.Contains(query, "?"); i++ {
							query = strings.Replace(query, "?", fmt.Sprintf("$%d", i), 1)
						}
					}
					if _, err := raw.Exec(query, args...); err != nil {
						t.Fatalf("%s: %v", query, err)
					}
				}
				over := map[bool]string{true: "OVERRIDING SYSTEM VALUE"}[name == "PostgreSQL"]
				rapid.Check(t, func(r *rapid.T) {
					x.export()
					do(`CREATE TABLE audit_before AS SELECT * FROM audit`)
					do(`CREATE TABLE chains_before AS SELECT * FROM chains`)
					defer func() {
						do(`DELETE FROM audit WHERE id IN (SELECT id FROM audit_before) OR id < 0`)
						do(`INSERT INTO audit ` + over + ` SELECT * FROM audit_before`)
						do(`DELETE FROM chains WHERE id <> ?`, x.own)
						do(`INSERT INTO chains (id, seq, hash, minted) `+over+` SELECT id, seq, hash, minted FROM chains_before WHERE id <> ?`, x.own)
						do(`DROP TABLE audit_before`)
						do(`DROP TABLE chains_before`)
					}()
					chains := map[int64][2]int64{} // what there is of each
					for _, rec := range x.kept {
						p, ok := chains[rec.Chain]
						if !ok {
							p[0] = rec.Seq
						}
						p[1] = rec.Seq
						chains[rec.Chain] = p
					}
					what := rapid.SampledFrom([]string{"change", "remove", "reorder", "insert", "tail", "drop"}).Draw(r, "what")
					var ids []int64
					for id := range chains {
						if id != x.own || what == "change" || what == "remove" || what == "reorder" {
							ids = append(ids, id)
						}
					}
					chain := rapid.SampledFrom(sortedIDs(ids)).Draw(r, "chain")
					from, to := chains[chain][0], chains[chain][1]
					seq := rapid.Int64Range(from, to).Draw(r, "seq")
					switch what {
					case "change":
						column := rapid.SampledFrom([]string{"action", "outcome", "realm", "user_key", "serial", "actor", "client", "source", "reason"}).Draw(r, "column")
						do(`UPDATE audit SET `+column+` = `+column+` || 'x' WHERE chain = ? AND seq = ?`, chain, seq)
					case "remove":
						do(`DELETE FROM audit WHERE chain = ? AND seq = ?`, chain, seq)
					case "reorder":
						if seq == to {
							seq--
						}
						if seq < from {
							r.Skip("one record has no order")
						}
						do(`UPDATE audit SET seq = -1 WHERE chain = ? AND seq = ?`, chain, seq)
						do(`UPDATE audit SET seq = ? WHERE chain = ? AND seq = ?`, seq, chain, seq+1)
						do(`UPDATE audit SET seq = ? WHERE chain = ? AND seq = -1`, seq+1, chain)
					case "insert":
						do(`INSERT INTO audit (id, chain, seq, time, action, outcome, realm, user_key, serial, actor, client, source, reason, detail, hash) `+over+`
							SELECT -1, chain, ?, time, action, outcome, realm, '', serial, actor, client, source, reason, detail, hash FROM audit WHERE chain = ? AND seq = ?`, to+1, chain, seq)
					case "tail":
						do(`DELETE FROM audit WHERE chain = ? AND seq >= ?`, chain, seq)
						if seq > from {
							do(`UPDATE chains SET seq = ?, hash = (SELECT hash FROM audit WHERE chain = ? AND seq = ?) WHERE id = ?`, seq-1, chain, seq-1, chain)
						}
					case "drop":
						do(`DELETE FROM audit WHERE chain = ?`, chain)
						do(`DELETE FROM chains WHERE id = ?`, chain)
					}
					report := x.compare()
					named := strings.Join(report.Problems, "\n")
					if report.Intact || !strings.Contains(named, fmt.Sprintf("chain %d", chain)) {
						t.Errorf("%s of record %d of chain %d (%d to %d): %+v", what, seq, chain, from, to, report)
					}
					if what == "change" && !strings.Contains(named, fmt.Sprintf("chain %d: record %d was altered", chain, seq)) {
						t.Errorf("record %d of chain %d is not named: %s", seq, chain, named)
					}
				})
				if report := x.compare(); !report.Intact {
					t.Errorf("put right again: %+v", report)
				}
			})
		}
	}
}

func sortedIDs(ids []int64) []int64 {
	slices.Sort(ids)
	return ids
}
