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

// engine takes attempts through the hot path: gather, load, compute, decide,
// commit. Two goroutines overlap: while one batch is committed, the next is
// gathered and computed. A user whose change is being committed waits for the
// batch after, so that no decision is taken on state that is about to move.
type engine struct {
	s     *Service
	queue chan *pending

	mu     sync.RWMutex // guards closed; held for reading while submitting
	closed bool

	// The fields below belong to the gathering goroutine.
	waiting  []*pending      // taken from the queue, their user being committed
	inflight map[Ref]bool    // whose attempts are being committed
	busy     bool            // a batch is being committed
	work     chan *decided   // to the committing goroutine
	back     chan []*pending // from it: done, and what must be decided anew

	took time.Duration // what a commit usually takes; belongs to the committing goroutine
}

func newEngine(s *Service) *engine {
	return &engine{
		s:        s,
		queue:    make(chan *pending, s.cfg.Queue),
		inflight: map[Ref]bool{},
		work:     make(chan *decided),
		back:     make(chan []*pending, 1),
	}
}

// submit queues an attempt, or sheds it.
func (e *engine) submit(x *pending) error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.closed {
		return fmt.Errorf("%w: the server is stopping", ErrUnavailable)
	}
	select {
	case e.queue <- x:
		return nil
	default:
		return fmt.Errorf("%w: %d attempts are waiting", ErrOverloaded, cap(e.queue))
	}
}

// close takes no more attempts; run returns once all it has are answered.
func (e *engine) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.closed = true
		close(e.queue)
	}
}

// run is the gathering goroutine. It ends after close, when every attempt has
// its answer.
func (e *engine) run(ctx context.Context) {
	var committer sync.WaitGroup
	ctx = context.WithoutCancel(ctx) // close ends it, not the context
	committer.Go(func() {
		for d := range e.work {
			e.back <- e.commit(ctx, d)
		}
	})
	open := true
	for {
		var batch []*pending
		batch, open = e.gather(open)
		if len(batch) == 0 {
			break
		}
		d := e.decide(ctx, batch)
		if d == nil {
			continue
		}
		if e.busy {
			e.done(<-e.back)
		}
		for _, x := range d.attempts {
			e.inflight[x.ref] = true
		}
		e.busy = true
		e.work <- d
	}
	close(e.work)
	committer.Wait()
}

// gather makes the next batch: at least one attempt, or none at the end. It
// does not wait for more than are there.
func (e *engine) gather(open bool) ([]*pending, bool) {
	var batch []*pending
	for {
		still := e.waiting[:0]
		for _, x := range e.waiting {
			if len(batch) < e.s.cfg.BatchSize && !e.inflight[x.ref] {
				batch = append(batch, x)
			} else {
				still = append(still, x)
			}
		}
		clear(e.waiting[len(still):])
		e.waiting = still
		for open && len(batch) < e.s.cfg.BatchSize && len(e.waiting) < e.s.cfg.BatchSize {
			select {
			case x, more := <-e.queue:
				if !more {
					open = false
				} else {
					batch = e.place(batch, x)
				}
				continue
			default:
			}
			break
		}
		if len(batch) > 0 || (!open && !e.busy && len(e.waiting) == 0) {
			return batch, open
		}
		// Nothing can go now: wait for whatever comes first. With too many
		// waiting for their users, the queue stays closed to us.
		queue := e.queue
		if !open || len(e.waiting) >= e.s.cfg.BatchSize {
			queue = nil
		}
		select {
		case x, more := <-queue:
			if !more {
				open = false
			} else {
				batch = e.place(batch, x)
			}
		case again := <-e.back:
			e.done(again)
		}
	}
}

func (e *engine) place(batch []*pending, x *pending) []*pending {
	if e.inflight[x.ref] {
		e.waiting = append(e.waiting, x)
		return batch
	}
	return append(batch, x)
}

// done notes that the batch was committed; again are those of its attempts
// that met a conflict. They come before all that came later.
func (e *engine) done(again []*pending) {
	e.busy = false
	clear(e.inflight)
	e.waiting = append(again, e.waiting...)
}

// decided is a batch with its outcome, not yet durable.
type decided struct {
	attempts []*pending
	verdicts []verdict     // parallel to attempts
	events   []audit.Event // parallel to attempts; Action is empty where the crowd keeps the event
	subjects []*Subject    // parallel to attempts, nil for unknown users
	writes   []*write      // one for each subject that moves
}

// write is one subject's change.
type write struct {
	subject  *Subject
	expect   int64
	standing Standing
	moved    []int64 // tokens, by ID
}

// maxPretence bounds how long an answer without a commit is held back.
const maxPretence = 50 * time.Millisecond

// commit makes a batch durable and answers its attempts; what met a conflict
// is handed back. The rest of the batch goes again unchanged.
func (e *engine) commit(ctx context.Context, d *decided) (again []*pending) {
	for {
		c, events := d.change()
		if len(events) == 0 {
			// Only strangers, of whom enough is recorded. Nobody is to know
			// that by a quicker answer.
			time.Sleep(e.took)
			break
		}
		begin := time.Now()
		err := e.s.ledger.commit(ctx, c, events)
		if err == nil {
			e.took = min((7*e.took+time.Since(begin))/8, maxPretence)
			e.s.noteDatabase(nil)
			break
		}
		var conflict *ConflictError
		if !errors.As(err, &conflict) {
			e.s.noteDatabase(err)
			for _, x := range d.attempts {
				x.fail(err)
			}
			return again
		}
		again = append(again, d.withdraw(conflict)...)
		if len(d.attempts) == 0 {
			break
		}
	}
	for i, x := range d.attempts {
		v := &d.verdicts[i]
		switch {
		case v.err != nil:
			x.fail(unavailable(v.err))
		case v.accept:
			x.answer <- answer{result: Result{Accept: true, Serial: v.token.Serial}}
		default:
			x.answer <- answer{}
		}
	}
	return again
}

// maxTries bounds how often an attempt is decided anew. Each time some other
// node made progress with the same user.
const maxTries = 300

// withdraw takes the attempts of the users in conflict out of the batch.
func (d *decided) withdraw(conflict *ConflictError) (again []*pending) {
	moved := map[int64]bool{}
	for _, id := range conflict.UserIDs {
		moved[id] = true
	}
	hit := func(s *Subject) bool { return s != nil && s.User != nil && moved[s.User.ID] }
	named := false
	for _, w := range d.writes {
		named = named || hit(w.subject)
	}
	if !named { // it does not say which: all go again
		hit = func(*Subject) bool { return true }
	}
	var rest decided
	for i, x := range d.attempts {
		if !hit(d.subjects[i]) {
			rest.attempts = append(rest.attempts, x)
			rest.verdicts = append(rest.verdicts, d.verdicts[i])
			rest.events = append(rest.events, d.events[i])
			rest.subjects = append(rest.subjects, d.subjects[i])
			continue
		}
		if x.tries++; x.tries > maxTries {
			x.fail(fmt.Errorf("%w: the user is changed elsewhere all the time", ErrUnavailable))
			continue
		}
		again = append(again, x)
	}
	for _, w := range d.writes {
		if !hit(w.subject) {
			rest.writes = append(rest.writes, w)
		}
	}
	*d = rest
	return again
}

// change is what the batch writes.
func (d *decided) change() (*Change, []audit.Event) {
	c := &Change{Standings: make([]StandingWrite, 0, len(d.writes))}
	for _, w := range d.writes {
		c.Standings = append(c.Standings, StandingWrite{UserID: w.subject.User.ID, Expect: w.expect, Next: w.standing})
		for i := range w.subject.Tokens {
			if t := &w.subject.Tokens[i]; slices.Contains(w.moved, t.ID) {
				c.Motions = append(c.Motions, MotionWrite{TokenID: t.ID, UserID: w.subject.User.ID, Last: t.Last, Drift: t.Drift, UsedAt: t.UsedAt})
			}
		}
	}
	events := make([]audit.Event, 0, len(d.events))
	for i := range d.events {
		if d.events[i].Action != "" {
			events = append(events, d.events[i])
		}
	}
	return c, events
}
