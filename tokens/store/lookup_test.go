package store

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"watchword/tokens/storetest"
)

// A login by a passkey names a credential and nothing else: it must not cost a
// look at every token.
func TestCredentialsAreFoundByTheirIndex(t *testing.T) {
	ctx := context.Background()
	for name, url := range map[string]string{
		"SQLite": "sqlite:" + filepath.Join(t.TempDir(), "w.db"), "PostgreSQL": storetest.Postgres(t),
	} {
		t.Run(name, func(t *testing.T) {
			db, err := Open(ctx, url, Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if err := db.Migrate(ctx); err != nil {
				t.Fatal(err)
			}
			var plan string
			if err := db.engine.read(ctx, func(s *session) error {
				query, args := "EXPLAIN QUERY PLAN "+findCredential, []any{[]byte{1}, "default"}
				if s.dollar {
					// As on a connection for batches of attempts.
					for _, statement := range []string{
						"SET plan_cache_mode = force_generic_plan", "SET enable_seqscan = off", "SET enable_hashjoin = off",
						"SET enable_mergejoin = off", "SET enable_bitmapscan = off", "PREPARE mixed AS " + loadMixed,
					} {
						if _, err := s.exec(statement); err != nil {
							return err
						}
					}
					query, args = "EXPLAIN EXECUTE mixed ('{}', '{}', '{}', '{}')", nil
				}
				rows, err := s.query(query, args...)
				if err != nil {
					return err
				}
				defer rows.Close()
				columns, err := rows.Columns()
				if err != nil {
					return err
				}
				for rows.Next() {
					f := newFields(len(columns))
					if err := f.scan(rows); err != nil {
						return err
					}
					f.next = len(columns) - 1
					plan += f.str() + "\n"
				}
				return rows.Err()
			}); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(plan, "tokens_credential") || strings.Contains(plan, "SCAN t") || strings.Contains(plan, "Seq Scan on tokens") {
				t.Errorf("the plan is\n%s", plan)
			}
		})
	}
}
