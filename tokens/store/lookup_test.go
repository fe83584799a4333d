package store

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"watchword/tokens/storetest"
)

// planned is how each kind of database goes about a query of Load, which differs
// between the two.
func planned(t *testing.T, sqlite string, args []any, postgres, call string) map[string]string {
	t.Helper()
	ctx := context.Background()
	plans := make(map[string]string)
	for name, url := range map[string]string{
		"SQLite": "sqlite:" + filepath.Join(t.TempDir(), "w.db"), "PostgreSQL": storetest.Postgres(t),
	} {
		db, err := Open(ctx, url, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.Migrate(ctx); err != nil {
			t.Fatal(err)
		}
		if err := db.engine.read(ctx, func(s *session) error {
			query, args := "EXPLAIN QUERY PLAN "+sqlite, args
			if s.dollar {
				// As on a connection for batches of attempts.
				for _, statement := range []string{
					"SET plan_cache_mode = force_generic_plan", "SET enable_seqscan = off", "SET enable_hashjoin = off",
					"SET enable_mergejoin = off", "SET enable_bitmapscan = off", "PREPARE load AS " + postgres,
				} {
					if _, err := s.exec(statement); err != nil {
						return err
					}
				}
				query, args = "EXPLAIN EXECUTE load "+call, nil
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
				plans[name] += f.str() + "\n"
			}
			return rows.Err()
		}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return plans
}

// A login by a passkey names a credential and nothing else: it must not cost a
// look at every token.
func TestCredentialsAreFoundByTheirIndex(t *testing.T) {
	for name, plan := range planned(t, findCredential, []any{[]byte{1}, "default"}, loadMixed, "('{}', '{}', '{}', '{}')") {
		if !strings.Contains(plan, "tokens_credential") || strings.Contains(plan, "SCAN t") || strings.Contains(plan, "Seq Scan on tokens") {
			t.Errorf("the plan of %s is\n%s", name, plan)
		}
	}
}

// Whoever was given temporary passcodes for years is verified as quickly as others:
// the tokens that were revoked are not looked at.
func TestRevokedTokensAreNotReadWithTheirOwner(t *testing.T) {
	for name, plan := range planned(t, loadByName, []any{"default", "alice"}, loadNames, "('{}', '{}')") {
		if !strings.Contains(plan, "tokens_held") || strings.Contains(plan, "tokens_owner") || strings.Contains(plan, "SCAN t") {
			t.Errorf("the plan of %s is\n%s", name, plan)
		}
	}
	for name, plan := range planned(t, loadByUser, []any{int64(1)}, loadMixed, "('{}', '{}', '{}', '{}')") {
		if !strings.Contains(plan, "tokens_held") || strings.Contains(plan, "tokens_owner") {
			t.Errorf("the plan of %s is\n%s", name, plan)
		}
	}
}
