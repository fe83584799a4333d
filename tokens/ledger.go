package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"watchword/tokens/audit"
)

// commitTimeout bounds one commit. It is generous: cutting a commit off leaves
// its outcome unknown.
const commitTimeout = 15 * time.Second

// ledger owns this server's audit chain. Every change goes through it and is made
// one at a time, so that the hashes are those of what was committed; several may
// wait for the disk.
type ledger struct {
	store   Store
	journal Journal
	wake    chan struct{} // rung after each commit; nil: nobody listens

	mu    sync.Mutex
	head  audit.Head   // of what was made
	sure  audit.Head   // of what is durable
	stale bool         // the outcome of a commit is unknown: ask the journal first
	tried []audit.Head // where the chain ends if a commit of unknown outcome was made, or one that is not durable yet
}

// commit gives the events their places in the chain and commits the change
// with them. It is not cut off when the caller goes away. It returns what
// Store.Commit does, but never ErrChainMoved.
func (l *ledger) commit(ctx context.Context, c *Change, events []audit.Event) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	l.mu.Lock()
	passed := false // the mutex went to others
	defer func() {
		if !passed {
			l.mu.Unlock()
		}
	}()
	// A commit that was given up may still arrive and take our place in the
	// chain; it can do so once for each such commit.
	made := c.Made
	for range 3 {
		if l.stale {
			if err := l.reread(ctx); err != nil {
				return err
			}
		}
		var next audit.Head
		c.Records, next = audit.Append(l.head, events)
		c.Made = func() {
			passed = true
			l.head, l.tried = next, append(l.tried, next)
			l.mu.Unlock()
			if made != nil {
				made()
			}
		}
		err := l.store.Commit(ctx, c)
		switch {
		case err == nil && passed:
			// Others went on meanwhile, and need not be waited for.
			l.mu.Lock()
			l.settle(next)
			l.mu.Unlock()
			ring(l.wake)
			return nil
		case err == nil:
			l.head = next
			l.settle(next)
			ring(l.wake)
			return nil
		case passed:
			// It was seen, and perhaps built upon; nobody knows whether it stays.
			l.mu.Lock()
			l.stale = true
			l.mu.Unlock()
			return unavailable(err)
		case errors.Is(err, ErrChainMoved):
			l.stale = true
		case errors.Is(err, ErrConflict), errors.Is(err, ErrExists), errors.Is(err, ErrInvalid), errors.Is(err, ErrState), errors.Is(err, ErrNotFound), errors.Is(err, ErrSpent):
			return err
		default:
			l.stale = true
			l.tried = append(l.tried, next)
			return unavailable(err)
		}
	}
	return fmt.Errorf("%w: the audit chain moves by itself; is another server writing to chain %d?", ErrUnavailable, l.head.Chain)
}

// settle notes that the chain is durable up to there, and all that was tried before.
func (l *ledger) settle(head audit.Head) {
	if head.Seq > l.sure.Seq {
		l.sure = head
		l.tried = slices.DeleteFunc(l.tried, func(h audit.Head) bool { return h.Seq <= head.Seq })
	}
}

// reread finds the chain's head after a commit whose outcome is unknown.
func (l *ledger) reread(ctx context.Context) error {
	heads, err := l.journal.Heads(ctx)
	if err != nil {
		return unavailable(err)
	}
	head := audit.Head{Chain: l.head.Chain}
	for _, h := range heads {
		if h.Chain == head.Chain {
			head = h
		}
	}
	if head.Seq < l.sure.Seq {
		return fmt.Errorf("%w: the audit chain %d ends at record %d, but %d were durable", ErrUnavailable, head.Chain, head.Seq, l.sure.Seq)
	}
	if head != l.sure && head != l.head && !slices.Contains(l.tried, head) {
		return fmt.Errorf("%w: the audit chain %d holds records that this server did not write, up to %d; keep the database as it is and find out who wrote them", ErrUnavailable, head.Chain, head.Seq)
	}
	l.head, l.stale = head, false
	return nil
}

// end is the chain's head as last known.
func (l *ledger) end() audit.Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// unavailable makes an error one that says "try again later", once.
func unavailable(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}
