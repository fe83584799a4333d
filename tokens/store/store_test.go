package store_test

import (
	"context"
	"path/filepath"
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
	storetest.Run(t, func(t *testing.T) tokens.Database { return openMigrated(t, storetest.Postgres(t)) })
}
