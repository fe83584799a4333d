package store_test

import (
	"context"
	"database/sql"
	neturl "net/url"
	"path/filepath"
	"strings"
	"testing"

	"watchword/tokens"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

func openMigrated(t testing.TB, url string) *store.DB {
	t.Helper()
	ctx := context.Background()
	db, err := store.Open(ctx, url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	if err := db.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	return db
}

func sqliteURL(t testing.TB) string {
	return "sqlite:" + filepath.Join(t.TempDir(), "watch word?#%41.db")
}

func TestSQLiteKeepsThePromises(t *testing.T) {
	storetest.Run(t, func(t *testing.T) tokens.Database { return openMigrated(t, sqliteURL(t)) })
}

func TestPostgresKeepsThePromises(t *testing.T) {
	url := storetest.Postgres(t)
	storetest.Run(t, func(t *testing.T) tokens.Database {
		empty(t, url)
		return openMigrated(t, url)
	})
}

// empty takes everything out of a PostgreSQL database, which is quicker than
// making another.
func empty(t testing.TB, url string) {
	t.Helper()
	raw := rawPostgres(t, url)
	for _, statement := range []string{"DROP SCHEMA public CASCADE", "CREATE SCHEMA public"} {
		if _, err := raw.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
}

// rawPostgres is the database without the store.
func rawPostgres(t testing.TB, url string) *sql.DB {
	t.Helper()
	raw, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return raw
}

// rawDatabase is either database without the store.
func rawDatabase(t testing.TB, url string) *sql.DB {
	t.Helper()
	path, ok := strings.CutPrefix(url, "sqlite:")
	if !ok {
		return rawPostgres(t, url)
	}
	raw, err := sql.Open("sqlite3", (&neturl.URL{Scheme: "file", Opaque: (&neturl.URL{Path: path}).EscapedPath()}).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() })
	return raw
}
