package pkcs11

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

const (
	// slice is how many operations a task does at most where its work can be
	// divided: between two of them other work gets its turn.
	slice = 32

	// patience is how long bulk work waits for a moment without other work
	// before it does one slice anyway, so that an import crawls on under a load
	// that never pauses.
	patience = 10 * time.Millisecond
)

// A task is work for one worker in one generation.
type task struct {
	g     *generation // the current one, or one that it came from by turnovers
	run   func(c conn, g *generation) error
	state atomic.Int32 // queued, then running or abandoned
	err   error
	done  chan struct{}
}

const (
	queued = iota
	running
	abandoned
)

// do runs f on one of g's sessions and waits for it. If a turnover put another
// generation in g's place before f began, f runs in that one: all handles that f
// uses must be those of the generation that it is given. do waits while a
// turnover is under way. It fails with hsm.ErrUnavailable if g was lost
// meanwhile, even if f went well. It leaves when ctx is done; f may then still be
// running, or run on, and started says so: f must touch nothing that the caller
// owns. If not started, f was not run and will not be.
func (k *Keystore) do(ctx context.Context, g *generation, f func(c conn, g *generation) error) (started bool, err error) {
	select {
	case <-k.stop:
		return false, errClosed
	default:
	}
	t := &task{g: g, run: f, done: make(chan struct{})}
	lane := k.urgent
	if hsm.IsBulk(ctx) {
		lane = k.bulk
	} else {
		k.waiting.Add(1)
		defer func() {
			if k.waiting.Add(-1) == 0 {
				select {
				case k.idle <- struct{}{}:
				default:
				}
			}
		}()
	}
	select {
	case lane <- t:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case <-g.down:
		return false, k.why()
	case <-k.stop:
		return false, errClosed
	}
	select {
	case <-t.done:
	case <-ctx.Done():
		return !t.state.CompareAndSwap(queued, abandoned), context.Cause(ctx)
	case <-g.down:
		return !t.state.CompareAndSwap(queued, abandoned), k.why()
	}
	if t.err == nil && !k.gen.Load().follows(g) {
		t.err = k.why()
	}
	return t.state.Load() == running, t.err
}

// follows says whether g is before or came from it by turnovers alone. A nil g
// follows nothing.
func (g *generation) follows(before *generation) bool {
	return g != nil && g.down == before.down
}

// current is the generation to work in, with keys.
func (k *Keystore) current(ctx context.Context) (*generation, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	g := k.gen.Load()
	if g == nil {
		return nil, k.why()
	}
	if g.keys == nil {
		return nil, unavailable(errNotAttached)
	}
	return g, nil
}

// A worker owns session number index of whatever generation is current.
type worker struct {
	k      *Keystore
	index  int
	urgent chan *task // k.urgent, or nil for a worker that does bulk work only
	bulk   chan *task // k.bulk, or nil

	calls atomic.Uint64 // calls begun, for the watchdog
	busy  atomic.Pointer[generation]
}

func (w *worker) work() {
	var last time.Time // when this worker's last bulk slice ended
	for {
		select {
		case t := <-w.urgent:
			w.exec(t)
			continue
		default:
		}
		select {
		case t := <-w.urgent:
			w.exec(t)
		case t := <-w.bulk:
			w.giveWay(last.Add(patience))
			w.exec(t)
			last = time.Now()
		case <-w.k.stop:
			return
		}
	}
}

// giveWay returns once no urgent work is waiting or running, at the latest at
// the given time, and helps with it meanwhile if it may.
func (w *worker) giveWay(until time.Time) {
	k := w.k
	for k.waiting.Load() > 0 {
		d := time.Until(until)
		if d <= 0 {
			return
		}
		timer := time.NewTimer(d)
		select {
		case t := <-w.urgent:
			w.exec(t)
		case <-k.idle:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// exec runs a task, unless its generation was lost or its caller left.
func (w *worker) exec(t *task) {
	defer close(t.done)
	w.busy.Store(t.g)
	defer w.busy.Store(nil)
	m := w.k.m
	// A turnover is waited out here, and the task still counts as queued: its
	// caller may leave.
	m.inside.RLock()
	g, stale, due := w.k.gen.Load(), false, false
	switch {
	case !g.follows(t.g):
		// g may be nil, or another that is well: it is not to blame.
		g, t.err = t.g, w.k.why()
	case m.epoch != g.epoch:
		stale = true
		t.err = unavailable(fmt.Errorf("the PKCS#11 module was started anew"))
	case t.state.CompareAndSwap(queued, running):
		w.busy.Store(g)
		c := g.sessions[w.index]
		c.w = w
		t.err = t.run(c, g)
		due = t.err == nil && w.k.turnoverDue(g)
	}
	m.inside.RUnlock()
	if stale || isLost(t.err) {
		w.k.lost(g, t.err)
		t.err = unavailable(t.err)
	} else if due {
		w.k.startTurnover(g)
	}
}

// watch ends the generation of a call that hangs, so that nobody waits for it.
// The recovery that this starts begins when the call returns.
func (k *Keystore) watch() {
	type seen struct {
		calls uint64
		since time.Time
	}
	last := make([]seen, len(k.workers))
	ticker := time.NewTicker(max(k.config.StuckAfter/8, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-k.stop:
			return
		case now := <-ticker.C:
			for i, w := range k.workers {
				g, calls := w.busy.Load(), w.calls.Load()
				if g == nil || calls != last[i].calls {
					last[i] = seen{calls, now}
				} else if now.Sub(last[i].since) >= k.config.StuckAfter {
					k.lost(g, fmt.Errorf("a call into the HSM has not returned for %v", k.config.StuckAfter))
				}
			}
		}
	}
}

// probe asks the HSM for a MAC when nothing else was asked for a while. What
// follows from its failure is up to exec.
func (k *Keystore) probe() {
	ticker := time.NewTicker(k.config.Probe)
	defer ticker.Stop()
	var last uint64
	for {
		select {
		case <-k.stop:
			return
		case <-ticker.C:
			var calls uint64
			for _, w := range k.workers {
				calls += w.calls.Load()
			}
			if calls == last {
				ctx, cancel := context.WithTimeout(context.Background(), k.config.Probe)
				_, _ = k.MAC(ctx, hsm.KeyBinding, []byte("watchword probe"))
				cancel()
				calls++
			}
			last = calls
		}
	}
}

// openSessions opens the anchor and the workers' sessions on slot and logs in.
// module.inside is held for writing.
func (k *Keystore) openSessions(slot uint) (anchor conn, sessions []conn, err error) {
	var open []conn
	defer func() {
		if err != nil {
			for _, c := range open {
				_ = k.m.p11.CloseSession(c.h)
			}
		}
	}()
	for range k.config.Sessions + 1 {
		h, err := k.m.p11.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		if err != nil {
			return conn{}, nil, opError("C_OpenSession", err)
		}
		open = append(open, conn{m: k.m, h: h})
		if len(open) > 1 || k.config.PIN == nil {
			continue
		}
		pin, err := k.config.PIN()
		if err != nil {
			return conn{}, nil, fmt.Errorf("read the HSM's PIN: %w", err)
		}
		err = open[0].login(pin)
		clear(pin)
		if isPIN(err) {
			return conn{}, nil, fmt.Errorf("%w: %w; correct it and start again (it is not tried twice, because that locks the token)", hsm.ErrPIN, err)
		}
		if err != nil {
			return conn{}, nil, err
		}
	}
	return open[0], open[1:], nil
}

// close closes g's sessions, and with them all session keys. module.inside is
// held for writing, and the module's epoch is g's.
func (g *generation) close() {
	for _, c := range g.sessions {
		_ = c.m.p11.CloseSession(c.h)
	}
	_ = g.anchor.m.p11.CloseSession(g.anchor.h)
}
