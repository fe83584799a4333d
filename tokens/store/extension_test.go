package store_test

import (
	"context"
	"crypto/rand"
	"errors"
	neturl "net/url"
	"strings"
	"testing"

	"watchword/tokens"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// Who may not make extensions is told what an administrator has to do, and can go
// on when that is done.
func TestWithoutTheRightToMakeTheExtensionAnAdministratorIsAskedFor(t *testing.T) {
	ctx := context.Background()
	admin := storetest.Postgres(t)
	raw := rawPostgres(t, admin)
	role := "watchword_" + strings.ToLower(rand.Text())
	u, err := neturl.Parse(admin)
	if err != nil {
		t.Fatal(err)
	}
	must := func(statement string) {
		t.Helper()
		if _, err := raw.ExecContext(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	// All that the documentation asks for but CREATE on the database.
	must("CREATE ROLE " + role + " LOGIN PASSWORD '" + role + "'")
	t.Cleanup(func() { must("DROP OWNED BY " + role + " CASCADE"); must("DROP ROLE " + role) })
	must("GRANT CREATE, USAGE ON SCHEMA public TO " + role)
	u.User = neturl.UserPassword(role, role)

	db, err := store.Open(ctx, u.String(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for range 2 { // it stays so at each start
		err = db.Migrate(ctx)
		if err == nil || !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "let an administrator run CREATE EXTENSION pg_trgm in this database") ||
			!strings.Contains(err.Error(), "the user may not do this") {
			t.Fatalf("Migrate: %v", err)
		}
	}
	must("CREATE EXTENSION pg_trgm")
	if err := db.Migrate(ctx); err != nil {
		t.Fatalf("Migrate with the extension: %v", err)
	}
	alice(t, db)
	if list, _, err := db.Tokens(ctx, tokens.TokenQuery{Q: "lic", Limit: 10}); err != nil || len(list) == 0 {
		t.Errorf("%d tokens are found, %v", len(list), err)
	}
}
