package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// queue waits until so many wait at the gate.
func queued(t *testing.T, g *gate, first, bulk int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		g.mu.Lock()
		reached := len(g.first) == first && len(g.bulk) == bulk
		g.mu.Unlock()
		if reached {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are not %d and %d waiting", first, bulk)
		}
	}
}

func TestBulkWorkGivesWay(t *testing.T) {
	var (
		g     gate
		order []string
		wg    sync.WaitGroup
		ctx   = context.Background()
	)
	if err := g.enter(ctx, true); err != nil {
		t.Fatal(err)
	}
	come := func(name string, bulk bool) {
		wg.Go(func() {
			if err := g.enter(ctx, bulk); err != nil {
				t.Error(err)
			}
			order = append(order, name) // the gate lets one in at a time
			g.leave()
		})
	}
	come("import", true)
	queued(t, &g, 0, 1)
	come("verify 1", false)
	queued(t, &g, 1, 1)
	come("verify 2", false)
	queued(t, &g, 2, 1)
	g.leave()
	wg.Wait()
	if len(order) != 3 || order[0] != "verify 1" || order[1] != "verify 2" || order[2] != "import" {
		t.Errorf("the order was %v", order)
	}
}

func TestBulkWorkIsNotKeptOutForEver(t *testing.T) {
	var g gate
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for range 3 { // there is always someone waiting
		wg.Go(func() {
			for g.enter(ctx, false) == nil {
				time.Sleep(time.Millisecond)
				g.leave()
			}
		})
	}
	queued(t, &g, 2, 0)
	begun := time.Now()
	if err := g.enter(context.Background(), true); err != nil {
		t.Fatal(err)
	}
	if waited := time.Since(begun); waited < patience/2 || waited > 20*patience {
		t.Errorf("bulk work waited %v", waited)
	}
	g.leave()
	cancel()
	wg.Wait()
}

func TestTheGatePassesOnATurnThatNobodyTakes(t *testing.T) {
	var g gate
	for range 200 {
		if err := g.enter(context.Background(), false); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		given := make(chan error)
		go func() {
			err := g.enter(ctx, false)
			if err == nil {
				g.leave()
			}
			given <- err
		}()
		queued(t, &g, 1, 0)
		go cancel() // against the turn
		g.leave()
		if err := <-given; err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy || len(g.first)+len(g.bulk) > 0 {
		t.Error("the gate is left shut")
	}
}
