package store

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"watchword/tokens/storetest"
)

// settle fills a database with a thousand users and their tokens, and has PostgreSQL
// look at them: to a table in which there is nothing every index leads as quickly, and
// which one it takes then depends on when it was last vacuumed.
func settle(s *session) error {
	for _, statement := range []string{
		`INSERT INTO users (realm, key, name, state, created) SELECT 'default', 'user' || g, 'user' || g, 'enabled', 0 FROM generate_series(1, 1000) g`,
		`INSERT INTO standings (user_id, version) SELECT id, 1 FROM users`,
		`INSERT INTO batches (state, realm, name, format, sha256, actor, created, touched) VALUES ('published', 'default', 'x', 'x', 'x', 'x', 0, 0)`,
		`INSERT INTO tokens (batch, created, last0, drift0, owner_id, kek, algorithm, digits, period, hash, seed_len, realm, serial, type, state, model, mechanism, blob, binding)
			SELECT (SELECT max(id) FROM batches), 0, -1, 0, id, 1, 1, 6, 0, 1, 20, 'default', 'S' || id, 'hotp', 'active', '', 'aes-kwp', '\x00', '\x00' FROM users`,
		`INSERT INTO motions (token_id, version, last, drift, used_at) SELECT id, 1, -1, 0, 0 FROM tokens`,
		`ANALYZE`,
	} {
		if _, err := s.exec(statement); err != nil {
			return err
		}
	}
	return nil
}

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
		if name == "PostgreSQL" {
			if err := db.engine.write(ctx, false, settle); err != nil {
				t.Fatal(err)
			}
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
