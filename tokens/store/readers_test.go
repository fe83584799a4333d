package store_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/store"
)

// Listings and verifications of the audit may take long, and be many. Attempts
// do not wait for them.
func TestAttemptsDoNotWaitForListings(t *testing.T) {
	ctx := context.Background()
	url := sqliteURL(t)
	openMigrated(t, url)
	db, err := store.Open(ctx, url, store.Options{Readers: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	chain, _, err := db.MintChain(ctx)
	if err != nil {
		t.Fatal(err)
	}
	head := audit.Head{Chain: chain}
	for range 30 {
		events := make([]audit.Event, 10_000)
		for i := range events {
			events[i] = audit.Event{Time: time.Now(), Action: "verify", Serial: "T1"}
		}
		var records []audit.Record
		records, head = audit.Append(head, events)
		if err := db.Commit(ctx, &tokens.Change{Records: records}); err != nil {
			t.Fatal(err)
		}
	}
	stop, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for stop.Err() == nil {
				_, _, _ = db.Records(ctx, tokens.RecordQuery{Serial: "T2"}) // looks at all of them
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	begin := time.Now()
	for range 10 {
		if _, err := db.Load(ctx, []tokens.Ref{{Realm: "default", User: "alice"}}); err != nil {
			t.Error(err)
		}
	}
	took := time.Since(begin)
	cancel()
	wg.Wait()
	t.Logf("ten loads took %v", took)
	if took > 500*time.Millisecond {
		t.Errorf("ten loads took %v while there were listings", took)
	}
}
