package store

import (
	"context"
	"sync"
	"time"
)

// patience is how long bulk work waits at the gate before it is let through
// once, however much other work is waiting.
const patience = 250 * time.Millisecond

// gate lets one writer at a time through. Bulk work waits while other work
// does, so that an import gives way to verifying; but not for ever.
type gate struct {
	mu    sync.Mutex
	busy  bool
	first []*waiter
	bulk  []*waiter
}

type waiter struct {
	ready chan struct{}
	since time.Time
}

// enter waits for its turn. Every nil must be followed by one leave.
func (g *gate) enter(ctx context.Context, bulk bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g.mu.Lock()
	if !g.busy {
		g.busy = true
		g.mu.Unlock()
		return nil
	}
	w := &waiter{ready: make(chan struct{}), since: time.Now()}
	queue := &g.first
	if bulk {
		queue = &g.bulk
	}
	*queue = append(*queue, w)
	g.mu.Unlock()

	select {
	case <-w.ready:
		return nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	for i, other := range *queue {
		if other == w {
			*queue = append((*queue)[:i], (*queue)[i+1:]...)
			g.mu.Unlock()
			return ctx.Err()
		}
	}
	g.mu.Unlock()
	g.leave() // our turn came at the same moment: pass it on
	return ctx.Err()
}

// leave hands the turn to the next one waiting.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	queue := &g.first
	if len(g.bulk) > 0 && (len(g.first) == 0 || time.Since(g.bulk[0].since) > patience) {
		queue = &g.bulk
	}
	if len(*queue) == 0 {
		g.busy = false
		return
	}
	w := (*queue)[0]
	*queue = (*queue)[1:]
	close(w.ready)
}
