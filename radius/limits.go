package radius

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// gate bounds how many requests are in work at once.
type gate struct {
	max int64
	in  atomic.Int64
}

// enter answers false when there is no room.
func (g *gate) enter() bool {
	if g.in.Add(1) > g.max {
		g.in.Add(-1)
		return false
	}
	return true
}

func (g *gate) leave() { g.in.Add(-1) }

// deadlines bounds how long requests are in work. One deadline is shared by all
// that begin in the same second, which costs less than one each.
type deadlines struct {
	base    context.Context
	timeout time.Duration
	giveUp  func(*request, error) // what becomes of who waits at the end, and why
	current atomic.Pointer[deadline]
}

// deadline is the end that some requests have in common.
type deadline struct {
	ctx   context.Context
	until time.Time // when another one begins

	mu      sync.Mutex
	over    bool
	waiting *request // the first of those whose answers are waited for
}

// at answers the deadline of a request that begins now: it ends between timeout and
// timeout plus one second from now.
func (d *deadlines) at(now time.Time) *deadline {
	for {
		old := d.current.Load()
		if old != nil && now.Before(old.until) {
			return old
		}
		ctx, cancel := context.WithTimeout(d.base, d.timeout+time.Second)
		next := &deadline{ctx: ctx, until: now.Add(time.Second)}
		if d.current.CompareAndSwap(old, next) {
			time.AfterFunc(d.timeout+time.Second, cancel)
			context.AfterFunc(ctx, func() { next.end(d.giveUp) })
			return next
		}
		cancel()
	}
}

// enter notes that r's answer is waited for, unless it is too late for one.
func (d *deadline) enter(r *request) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return false
	}
	r.before, r.after = nil, d.waiting
	if r.after != nil {
		r.after.before = r
	}
	d.waiting = r
	return true
}

// leave ends the waiting for r's answer, and answers false if that was given up.
func (d *deadline) leave(r *request) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return false
	}
	if r.before != nil {
		r.before.after = r.after
	} else {
		d.waiting = r.after
	}
	if r.after != nil {
		r.after.before = r.before
	}
	r.before, r.after = nil, nil
	return true
}

// end gives up all that still wait.
func (d *deadline) end(giveUp func(*request, error)) {
	d.mu.Lock()
	d.over = true
	r := d.waiting
	d.waiting = nil
	d.mu.Unlock()
	for r != nil {
		next := r.after
		r.before, r.after = nil, nil
		giveUp(r, d.ctx.Err())
		r = next
	}
}

// quiet lets something be said at most once per period about each subject, and
// remembers a bounded number of subjects.
type quiet[K comparable] struct {
	period time.Duration
	max    int

	mu      sync.Mutex
	said    map[K]*saying
	cleaned time.Time
}

type saying struct {
	at     time.Time
	unsaid int64 // times since then that nothing was said
}

// may answers whether to speak about the subject now, and how often it was not
// spoken about since the last time. With too many subjects at once a new one
// waits until another's period is over.
func (q *quiet[K]) may(subject K, now time.Time) (speak bool, unsaid int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.said[subject]; s != nil {
		if now.Sub(s.at) < q.period {
			s.unsaid++
			return false, 0
		}
		unsaid, s.at, s.unsaid = s.unsaid, now, 0
		return true, unsaid
	}
	// A flood of subjects must not pay for a look at all of them each time.
	if len(q.said) >= q.max && now.Sub(q.cleaned) >= q.period/60 {
		q.cleaned = now
		for k, s := range q.said {
			if now.Sub(s.at) >= q.period {
				delete(q.said, k)
			}
		}
	}
	if len(q.said) >= q.max {
		return false, 0
	}
	if q.said == nil {
		q.said = make(map[K]*saying)
	}
	q.said[subject] = &saying{at: now}
	return true, 0
}
