package store

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"watchword/tokens"
)

// What is remembered of users in a PostgreSQL database is what this node has read or
// written last: other nodes write, too. A batch that was decided on it says so, and
// the statement that commits it looks whether all of it is still so: the versions of
// the users, whom every act of any node moves; meta's generation, which the schema
// raises where somebody edits users or tokens by hand; the names that were nobody's;
// and the clock.
//
// Where nodes take turns with the same users, most of what is remembered is wrong, and
// finding that out costs more than reading: see brake.

// forgetAfter is how long anything is remembered without being read anew. Standings
// and motions that somebody edits by hand show by then.
const forgetAfter = time.Minute

// recall is load, but for what is remembered.
func (db *postgresDB) recall(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	view := tokens.View{Subjects: make([]*tokens.Subject, len(refs))}
	ask, rest := refs, []int(nil)
	if !db.brake.held() {
		db.known.age()
		rest = db.known.recall(refs, &view)
		if len(rest) == 0 && len(refs) > 0 {
			return view, nil
		}
		if len(rest) < len(refs) {
			ask = make([]tokens.Ref, len(rest))
			for i, n := range rest {
				ask[i] = refs[n]
			}
		}
	}
	began := db.known.writing()
	read, err := db.load(ctx, ask)
	if err != nil {
		return tokens.View{}, err
	}
	fresh := db.known.noteAt(began, ask, &read)
	if len(ask) == len(refs) {
		return read, nil
	}
	if !fresh { // nor is what was recalled
		return db.load(ctx, refs)
	}
	view.Generation, view.Clock, view.Read = read.Generation, read.Clock, read.Read
	for i, n := range rest {
		view.Subjects[n] = read.Subjects[i]
	}
	if slices.ContainsFunc(ask, func(r tokens.Ref) bool { return !byName(&r) }) {
		once(view.Subjects)
	}
	return view, nil
}

// noteAt is note for a reading that may have another generation than what is
// remembered, of which nothing is good then. It answers whether it has the same.
func (r *recollection) noteAt(writes uint64, refs []tokens.Ref, view *tokens.View) bool {
	r.mu.Lock()
	same := r.generation == view.Generation
	if !same {
		emptied := r.emptied
		r.clear()
		if emptied <= writes { // the reading itself saw what there was to see
			r.emptied = writes
		}
		r.generation = view.Generation
	}
	r.mu.Unlock()
	r.note(writes, refs, view)
	return same
}

// age has everything forgotten from time to time.
func (r *recollection) age() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.checked) >= r.lasts {
		r.clear()
	}
	if r.checked.IsZero() {
		r.checked = time.Now()
	}
}

// renew begins an era: there is a new connection, and perhaps it goes to a server that
// has not seen what another one had.
func (r *recollection) renew() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clear()
	r.era++
}

// now is the era.
func (r *recollection) now() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.era
}

// holds says whether what was recalled and read then may still be decided on. Also
// what was read may be so no more though no version tells: another node's batch can be
// seen before it is durable, and after a crash that lost it a version is given again.
// Who saw it then has no connection left that did.
func (r *recollection) holds(c *tokens.Change) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return (c.Recalled == 0 || c.Recalled == r.era) && (c.Read == 0 || c.Read == r.era)
}

// settle brings what is remembered to where a batch has brought it, or forgets what
// it was that kept it from being made.
func (db *postgresDB) settle(p *plan, err error) {
	var conflict *tokens.ConflictError
	switch {
	case err == nil:
		db.known.follow(p)
		if p.Recalled != 0 {
			db.brake.ease()
		}
		return
	case errors.As(err, &conflict) && conflict.UserIDs != nil:
		db.known.forget(conflict.UserIDs)
	default:
		db.known.empty()
	}
	if conflict != nil && p.Recalled != 0 {
		db.brake.press()
	}
}

// acted forgets what an act may have changed, however it ended, and everything where
// what it was decided on was perhaps wrong.
func (db *postgresDB) acted(p *plan, err error) {
	if err != nil && p.Recalled != 0 {
		db.known.empty()
		db.brake.press()
		return
	}
	db.known.acted(p)
}

func (r *recollection) acted(p *plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(p.Clients)+len(p.Keys)+len(p.Grants)+len(p.Documents)+len(p.Publish) > 0 {
		r.clear()
		return
	}
	r.writes++
	for i := range p.standings {
		r.move(p.standings[i].UserID)
		r.drop(p.standings[i].UserID)
	}
	if len(p.NewUsers) > 0 {
		clear(r.strangers)
	}
}

// A brake keeps a node from deciding on what it remembers while that is wrong too
// often: after each conflict twice as many batches are read in full as after the one
// before, and each batch that met none takes one back.
type brake struct {
	mu      sync.Mutex
	penalty int // batches after the next conflict
	left    int // batches still to be read
}

// maxPenalty bounds the batches that are read after one conflict.
const maxPenalty = 1024

func (b *brake) held() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 {
		return false
	}
	b.left--
	return true
}

func (b *brake) press() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.penalty = min(max(2*b.penalty, 2), maxPenalty)
	b.left = b.penalty
}

func (b *brake) ease() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.penalty = max(b.penalty-1, 0)
}
