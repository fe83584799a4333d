package store_test

import (
	"context"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// PostgreSQL answers a COMMIT that is cancelled while it waits for a standby as
// if it had been confirmed. So no commit is ever cancelled: who gives up
// waiting hears that the outcome is unknown.
func TestACommitThatNoStandbyConfirmsIsNotCalledDurable(t *testing.T) {
	cluster := storetest.NewCluster(t)
	url := cluster.Database()
	ctx := context.Background()
	openMigrated(t, url)
	db, err := store.Open(ctx, url, store.Options{Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	chain, _, err := db.MintChain(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cluster.Exec(url, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
	cluster.Exec(url, "SELECT pg_reload_conf()")
	raw := rawPostgres(t, url)
	for name := ""; name != "nobody"; {
		if err := raw.QueryRow("SHOW synchronous_standby_names").Scan(&name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	head := audit.Head{Chain: chain}
	for _, c := range []struct {
		name   string
		change tokens.Change
	}{
		{"of a new user", tokens.Change{NewUsers: []tokens.NewUser{{User: &tokens.User{Realm: "default", Key: "a", Name: "a", State: tokens.UserEnabled}}}}},
		{"of an attempt", tokens.Change{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			defer cancel()
			c.change.Records, _ = audit.Append(head, []audit.Event{{Time: time.Now(), Action: "x"}})
			if err := db.Commit(short, &c.change); err == nil {
				t.Error("a commit that no standby has confirmed was called durable")
			}
		})
	}
	cluster.Exec(url, "ALTER SYSTEM RESET synchronous_standby_names")
	cluster.Exec(url, "SELECT pg_reload_conf()")
}
