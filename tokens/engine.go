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

// engine takes attempts through the hot path in three stages that overlap, each
// one goroutine: gather and load, compute and decide, commit. A stage takes what
// the one before has for it as soon as it is free: a slow disk makes larger
// commits, not idle processors. From gathering to commit a user belongs to one
// batch; further attempts on the user wait, so that no decision is taken on state
// that is about to move.
type engine struct {
	s     *Service
	queue chan *pending

	mu     sync.RWMutex // guards closed; held for reading while submitting
	closed bool

	// The fields below belong to the gathering goroutine.
	waiting  []*pending   // taken from the queue, their user being worked on
	inflight map[Ref]bool // whose attempts are being worked on
	under    int          // batches being worked on

	loaded chan *loaded // from gathering to computing
	ready  pile[*decided]
	back   pile[ended] // from computing and committing to gathering

	took time.Duration // what a commit usually takes; belongs to the committing goroutine
}

// loaded is a batch with what it will be judged on.
type loaded struct {
	attempts []*pending
	subjects []*Subject // parallel to attempts, nil for unknown users
	deadline time.Time  // for the HMACs
}

// ended is a batch that the engine is done with, but for what must be decided
// anew.
type ended struct {
	batches  int        // how many were joined into it
	attempts []*pending // all that were gathered
	again    []*pending // of them, what met a conflict
}

// pile hands things from some goroutines to one, which is never waited for.
type pile[T any] struct {
	mu   sync.Mutex
	list []T
	some chan struct{} // holds a token when list may be other than empty
}

func newPile[T any]() pile[T] { return pile[T]{some: make(chan struct{}, 1)} }

func (p *pile[T]) put(x ...T) {
	p.mu.Lock()
	p.list = append(p.list, x...)
	p.mu.Unlock()
	select {
	case p.some <- struct{}{}:
	default:
	}
}

// take answers all there is.
func (p *pile[T]) take() []T {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.list
	p.list = nil
	return list
}

func newEngine(s *Service) *engine {
	return &engine{
		s:        s,
		queue:    make(chan *pending, s.cfg.Queue),
		inflight: map[Ref]bool{},
		loaded:   make(chan *loaded),
		ready:    newPile[*decided](),
		back:     newPile[ended](),
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
	ctx = context.WithoutCancel(ctx) // close ends it, not the context
	var stages sync.WaitGroup
	stages.Go(func() { e.judge(ctx) })
	stages.Go(func() { e.conclude(ctx) })
	open := true
	for {
		var batch []*pending
		batch, open = e.gather(open)
		if len(batch) == 0 {
			break
		}
		for _, x := range batch {
			e.inflight[x.ref] = true
		}
		e.under++
		deadline := time.Now().Add(computeTimeout)
		subjects, err := e.s.load(ctx, batch)
		if err != nil {
			for _, x := range batch {
				x.fail(err)
			}
			e.back.put(ended{batches: 1, attempts: batch})
			continue
		}
		e.loaded <- &loaded{batch, subjects, deadline}
	}
	close(e.loaded)
	stages.Wait()
}

// judge is the computing goroutine.
func (e *engine) judge(ctx context.Context) {
	defer close(e.ready.some)
	for l := range e.loaded {
		if d := e.decide(ctx, l); d != nil {
			e.ready.put(d)
		} else {
			e.back.put(ended{batches: 1, attempts: l.attempts})
		}
	}
}

// conclude is the committing goroutine: it commits in one all that was decided
// meanwhile.
func (e *engine) conclude(ctx context.Context) {
	for range e.ready.some {
		list := e.ready.take()
		for len(list) > 0 {
			d := list[0]
			n := 1
			for n < len(list) && len(d.attempts)+len(list[n].attempts) <= e.s.cfg.BatchSize && d.join(list[n]) {
				n++
			}
			list = list[n:]
			gathered := d.gathered
			e.back.put(ended{batches: n, attempts: gathered, again: e.commit(ctx, d)})
		}
	}
}

// gather makes the next batch: at least one attempt, or none at the end. It
// does not wait for more than are there.
func (e *engine) gather(open bool) ([]*pending, bool) {
	var batch []*pending
	for {
		e.done(e.back.take())
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
		if len(batch) > 0 || (!open && e.under == 0 && len(e.waiting) == 0) {
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
		case <-e.back.some:
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

// done frees the users of batches that ended. What is to be decided anew comes
// before all that came later.
func (e *engine) done(list []ended) {
	var again []*pending
	for _, b := range list {
		e.under -= b.batches
		for _, x := range b.attempts {
			delete(e.inflight, x.ref)
		}
		again = append(again, b.again...)
	}
	if len(again) > 0 {
		e.waiting = append(again, e.waiting...)
	}
}

// decided is a batch with its outcome, not yet durable.
type decided struct {
	gathered []*pending // all of the batch, also those that were answered already
	attempts []*pending
	verdicts []verdict     // parallel to attempts
	events   []audit.Event // parallel to attempts; Action is empty where the crowd keeps the event
	subjects []*Subject    // parallel to attempts, nil for unknown users
	writes   []*write      // one for each subject that moves

	users map[int64]bool // whom writes are for; nil until a batch joins
}

// write is one subject's change.
type write struct {
	subject  *Subject
	expect   int64
	standing Standing
	moved    []int64 // tokens, by ID
}

// join adds another batch, unless both write the same user: that one was decided
// on state that the first will have moved.
func (d *decided) join(o *decided) bool {
	if d.users == nil {
		d.users = make(map[int64]bool, len(d.writes)+len(o.writes))
		for _, w := range d.writes {
			d.users[w.subject.User.ID] = true
		}
	}
	for _, w := range o.writes {
		if d.users[w.subject.User.ID] {
			return false
		}
	}
	for _, w := range o.writes {
		d.users[w.subject.User.ID] = true
	}
	d.gathered = append(d.gathered, o.gathered...)
	d.attempts = append(d.attempts, o.attempts...)
	d.verdicts = append(d.verdicts, o.verdicts...)
	d.events = append(d.events, o.events...)
	d.subjects = append(d.subjects, o.subjects...)
	d.writes = append(d.writes, o.writes...)
	return true
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
