package tokens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"watchword/tokens/audit"
)

// engine takes attempts through the hot path: gather, load, compute, decide,
// commit. One goroutine makes batches and decides them; while one batch is being
// written, the next is gathered and computed, and where the Store lets it the ones
// before wait for the disk meanwhile. From gathering until it is durable a user
// belongs to one batch; further attempts on the user wait, so that no decision is
// taken on state that is about to move.
type engine struct {
	s     *Service
	queue chan *pending

	mu     sync.RWMutex // guards closed; held for reading while submitting
	closed bool

	// The fields below belong to the gathering goroutine.
	waiting  []*pending           // taken from the queue, their user being committed
	inflight map[Ref]bool         // whose attempts are being committed
	under    int                  // batches being committed
	away     int                  // the attempts in them
	groups   map[int64]heldGroups // of users whose attempts policies on groups were asked about, by ID
	nobody   map[Ref]bool         // whose attempts they were asked about, and who is no user
	held     time.Time            // since when these two are held
	slow     bool                 // the last batch took so long to compute that nobody is to wait for another turn

	turn chan struct{} // holds a token while a batch is being written
	work chan batch    // to whoever commits next
	back chan ended    // from committing to gathering; see newEngine

	took atomic.Int64 // nanoseconds that a commit usually takes
}

// maxUnderWay bounds how many batches are committed at once: one is written, the
// others wait for the disk.
const maxUnderWay = 3

// batch is a batch to commit.
type batch struct {
	attempts []*pending // all that were gathered
	decided  *decided
}

// ended is a batch that the engine is done with, but for what must be decided
// anew.
type ended struct {
	attempts []*pending // all that were gathered
	again    []*pending // of them, what met a conflict
	wrote    []*write   // what became durable
}

func newEngine(s *Service) *engine {
	return &engine{
		s:        s,
		queue:    make(chan *pending, s.cfg.Queue),
		inflight: map[Ref]bool{},
		turn:     make(chan struct{}, 1),
		work:     make(chan batch),
		// Between two looks at it one batch more is begun: none waits for room.
		back: make(chan ended, maxUnderWay+1),
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
	for range maxUnderWay {
		go e.commits(ctx)
	}
	defer close(e.work)
	open := true
	for {
		var attempts []*pending
		attempts, open = e.gather(open)
		if len(attempts) == 0 {
			return
		}
		begin := time.Now()
		d := e.decide(ctx, attempts)
		e.slow = time.Since(begin) > computeTimeout/5
		if d == nil {
			continue
		}
		for _, x := range attempts {
			e.inflight[x.ref] = true
			if x.also != nil {
				e.inflight[*x.also] = true
			}
		}
		e.under++
		e.away += len(attempts)
		e.turn <- struct{}{}
		e.work <- batch{attempts, d}
	}
}

// commits commits batches, one after another. The next may be written by another
// goroutine when this one has made its own.
func (e *engine) commits(ctx context.Context) {
	for b := range e.work {
		made := false
		follow := func() {
			if !made {
				made = true
				<-e.turn
			}
		}
		again := e.commit(ctx, b.decided, follow)
		follow()
		e.back <- ended{b.attempts, again, b.decided.made}
	}
}

// Clients that wait for their answers send again when they have them: a batch of
// all that is there would bring the next one of all that is there, and computing
// and committing would take turns. So a batch is a share of what is under way, as
// if one were computed, one written and one on the network; but no smaller than
// what a batch costs by itself is worth.
const (
	shares     = 3
	smallBatch = 4
)

// size is how many attempts the next batch may hold.
func (e *engine) size() int {
	if e.slow {
		return e.s.cfg.BatchSize
	}
	all := len(e.queue) + len(e.waiting) + e.away
	return min(max((all+shares-1)/shares, smallBatch), e.s.cfg.BatchSize)
}

// gather makes the next batch: at least one attempt, or none at the end. It
// does not wait for more than are there.
func (e *engine) gather(open bool) ([]*pending, bool) {
	var batch []*pending
	for {
		for more := true; more; {
			select {
			case b := <-e.back:
				e.done(b)
			default:
				more = false
			}
		}
		size := e.size()
		still := e.waiting[:0]
		for _, x := range e.waiting {
			if len(batch) < size && !e.busy(x) {
				batch = append(batch, x)
			} else {
				still = append(still, x)
			}
		}
		clear(e.waiting[len(still):])
		e.waiting = still
		for open && len(batch) < size && len(e.waiting) < e.s.cfg.BatchSize {
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
		case b := <-e.back:
			e.done(b)
		}
	}
}

func (e *engine) place(batch []*pending, x *pending) []*pending {
	if e.busy(x) {
		e.waiting = append(e.waiting, x)
		return batch
	}
	return append(batch, x)
}

// busy says whether an attempt on the same user is being committed, as far as is
// known: whose a passkey is shows when it is loaded. What is not known here is a
// conflict then.
func (e *engine) busy(x *pending) bool {
	return e.inflight[x.ref] || x.also != nil && e.inflight[*x.also]
}

// done frees the users of a batch that ended. What is to be decided anew comes
// before all that came later.
func (e *engine) done(b ended) {
	e.under--
	e.away -= len(b.attempts)
	e.moved(b.wrote)
	for _, x := range b.attempts {
		delete(e.inflight, x.ref)
		if x.also != nil {
			delete(e.inflight, *x.also)
		}
	}
	if len(b.again) > 0 {
		e.waiting = append(b.again, e.waiting...)
	}
}

// decided is a batch with its outcome, not yet durable.
type decided struct {
	list   []judged
	writes []*write // one for each subject that moves

	recalled    uint64 // View.Recalled
	read        uint64 // View.Read
	generation  int64  // View.Generation
	from, until time.Time

	made []*write // those that became durable
}

// judged is an attempt with its outcome.
type judged struct {
	*pending
	verdict verdict
	outcome string       // as the event has it
	event   audit.Event  // Action is empty where the crowd keeps the event
	subject *Subject     // nil for an unknown user
	result  *KeyResult   // of a key that is accepted
	proof   *proof       // of a code that is accepted, for a session
	beside  *audit.Event // of what was done beside
}

// write is one subject's change.
type write struct {
	subject  *Subject
	expect   int64
	standing Standing
	moved    []*Token
	tokens   []TokenWrite
	user     *User // nil: the row stays
}

// maxPretence bounds how long an answer without a commit is held back.
const maxPretence = 50 * time.Millisecond

// commit makes a batch durable and answers its attempts; what met a conflict
// is handed back. The rest of the batch goes again unchanged. made is called when
// the next batch may follow.
func (e *engine) commit(ctx context.Context, d *decided, made func()) (again []*pending) {
	for {
		c, events := d.change()
		c.Made = made
		if len(events) == 0 {
			// Only strangers, of whom enough is recorded. Nobody is to know
			// that by a quicker answer.
			made()
			begin := time.Now()
			if err := e.confirm(ctx, c); err == nil {
				time.Sleep(time.Duration(e.took.Load()) - time.Since(begin))
				break
			} else if conflict, ok := errors.AsType[*ConflictError](err); ok {
				again = append(again, d.withdraw(conflict)...)
			} else {
				e.fail(d, err)
				return again
			}
			if len(d.list) == 0 {
				break
			}
			continue
		}
		begin := time.Now()
		err := e.s.ledger.commit(ctx, c, events)
		if err == nil {
			e.s.spent.note(d)
			d.made = d.writes
			e.took.Store(min((7*e.took.Load()+int64(time.Since(begin)))/8, int64(maxPretence)))
			e.s.noteDatabase(nil)
			break
		}
		var conflict *ConflictError
		var used *SpentError
		if errors.As(err, &used) {
			conflict = d.replays(used)
		}
		if conflict == nil && !errors.As(err, &conflict) {
			if errors.Is(err, ErrSpent) { // and not by this batch, whatever it is
				err = unavailable(err)
			}
			e.fail(d, err)
			return again
		}
		again = append(again, d.withdraw(conflict)...)
		if len(d.list) == 0 {
			break
		}
	}
	e.s.counts.note(d.list)
	for i := range d.list {
		x, v := d.list[i].pending, &d.list[i].verdict
		switch {
		case v.err != nil:
			x.fail(unavailable(v.err))
		case v.reason == ReasonPINSame && x.pin != nil:
			x.fail(errPINSame)
		case v.accept:
			x.tell(answer{result: Result{Accept: true, Serial: v.token.Serial, Groups: v.groups}, key: d.list[i].result, proof: d.list[i].proof})
		case v.challenge != nil:
			x.tell(answer{result: Result{Challenge: v.challenge}})
		default:
			x.tell(answer{})
		}
	}
	return again
}

// confirm asks the Store whether what was recalled was right, where nothing is
// written that would tell.
func (e *engine) confirm(ctx context.Context, c *Change) error {
	if c.Recalled == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	err := e.s.db.Confirm(ctx, c)
	if errors.Is(err, ErrConflict) {
		return err
	}
	return unavailable(err)
}

// fail answers all of a batch that there is no verdict.
func (e *engine) fail(d *decided, err error) {
	e.s.noteDatabase(err)
	for i := range d.list {
		d.list[i].outcome, d.list[i].verdict.reason = "error", ReasonUnavailable
	}
	e.s.counts.note(d.list)
	for i := range d.list {
		d.list[i].fail(err)
	}
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
	named := slices.ContainsFunc(d.list, func(x judged) bool { return hit(x.subject) })
	if !named { // it does not say which: all go again
		hit = func(*Subject) bool { return true }
	}
	rest := *d
	rest.list, rest.writes = nil, nil
	for i := range d.list {
		x := &d.list[i]
		if !hit(x.subject) {
			rest.list = append(rest.list, *x)
			continue
		}
		if x.tries++; x.tries > maxTries {
			x.fail(fmt.Errorf("%w: the user is changed elsewhere all the time", ErrUnavailable))
			continue
		}
		again = append(again, x.pending)
	}
	for _, w := range d.writes {
		if !hit(w.subject) {
			rest.writes = append(rest.writes, w)
		}
	}
	*d = rest
	return again
}

// replays notes whose challenges and States had been answered before, on another node
// or before this one started, and answers the conflict that this is to their users; nil
// if it is none of ours.
func (d *decided) replays(used *SpentError) *ConflictError {
	var conflict *ConflictError
	for i := range d.list {
		x := &d.list[i]
		if x.verdict.spend == nil || !slices.Contains(used.Hashes, x.verdict.spend.Hash) {
			continue
		}
		x.spent = true
		if conflict == nil {
			conflict = &ConflictError{}
		}
		conflict.UserIDs = append(conflict.UserIDs, x.subject.User.ID)
	}
	return conflict
}

// change is what the batch writes, in the order in which a Store locks rows.
func (d *decided) change() (*Change, []audit.Event) {
	slices.SortFunc(d.writes, func(a, b *write) int { return cmp.Compare(a.subject.User.ID, b.subject.User.ID) })
	c := &Change{
		Standings: make([]StandingWrite, 0, len(d.writes)),
		Motions:   make([]MotionWrite, 0, len(d.writes)),
		Recalled:  d.recalled,
		Read:      d.read,
	}
	if d.recalled != 0 {
		c.Basis = d.basis()
	}
	for _, w := range d.writes {
		c.Standings = append(c.Standings, StandingWrite{UserID: w.subject.User.ID, Expect: w.expect, Next: w.standing})
		c.Tokens = append(c.Tokens, w.tokens...)
		if w.user != nil {
			c.Users = append(c.Users, *w.user)
		}
		for _, t := range w.moved {
			c.Motions = append(c.Motions, MotionWrite{TokenID: t.ID, UserID: w.subject.User.ID, Last: t.Last, Drift: t.Drift, UsedAt: t.UsedAt})
		}
	}
	slices.SortFunc(c.Motions, func(a, b MotionWrite) int { return cmp.Compare(a.TokenID, b.TokenID) })
	events := make([]audit.Event, 0, len(d.list))
	for i := range d.list {
		x := &d.list[i]
		if x.event.Action != "" {
			events = append(events, x.event)
		}
		if x.beside != nil {
			events = append(events, *x.beside)
		}
		if x.verdict.spend != nil {
			c.Spends = append(c.Spends, *x.verdict.spend)
		}
	}
	return c, events
}

// basis is what the batch was decided on besides what it writes.
func (d *decided) basis() Basis {
	b := Basis{Generation: d.generation, From: d.from, Until: d.until}
	met := make(map[*Subject]bool, len(d.list))
	for _, w := range d.writes {
		met[w.subject] = true
	}
	for i := range d.list {
		x := &d.list[i]
		switch {
		case x.subject == nil && x.ref.Serial == "" && x.ref.Credential == "":
			b.Strangers = append(b.Strangers, x.ref)
		case x.subject != nil && x.subject.User != nil && !met[x.subject]:
			met[x.subject] = true
			b.Users = append(b.Users, Seen{UserID: x.subject.User.ID, Version: x.subject.Version})
		}
	}
	return b
}
