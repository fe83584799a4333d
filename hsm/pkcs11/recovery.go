package pkcs11

import (
	"errors"
	"fmt"
	"time"

	"watchword/hsm"
)

const (
	firstRetry = 20 * time.Millisecond
	lastRetry  = 400 * time.Millisecond
)

// lost ends generation g because of cause and starts the recovery, unless that
// happened already. From here on callers get hsm.ErrUnavailable at once.
func (k *Keystore) lost(g *generation, cause error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.end(g, cause) {
		return
	}
	k.log.Warn("hsm: lost; reconnecting", "cause", cause, "generation", g.number)
	wait := time.Duration(0)
	if time.Since(k.rebuilt) < time.Second {
		// Lost again right after a recovery: not in a tight circle.
		wait = lastRetry / 4
	}
	// closed is false under mu, so Close has not begun to wait.
	k.wg.Go(func() { k.recover(g, wait) })
}

// refused ends generation g because the HSM refused the PIN in a turnover, for
// good: the PIN is not tried again.
func (k *Keystore) refused(g *generation, cause error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.end(g, cause) && !k.closed && k.gen.Load() == nil {
		// g is lost already and a recovery waits for the module: this stops it.
		k.cause = cause
	}
	k.log.Error(goneForGood, "cause", cause)
}

const goneForGood = "hsm: gone until the PIN is corrected and the server restarted"

// end takes generation g out of use, unless that happened already. k.mu is held.
func (k *Keystore) end(g *generation, cause error) bool {
	if k.closed || k.gen.Load() != g {
		return false
	}
	k.cause = cause
	k.gen.Store(nil)
	close(g.down)
	return true
}

// recover makes the next generation, trying until it succeeds, the keystore is
// closed or the HSM refuses the PIN. Each attempt takes the module for itself,
// so the first begins when the last call of g has returned.
func (k *Keystore) recover(g *generation, wait time.Duration) {
	began := time.Now()
	for attempt := 1; ; attempt++ {
		select {
		case <-k.stop:
			return
		case <-time.After(wait):
		}
		next, err := k.rebuild(g, attempt)
		if err == nil {
			k.mu.Lock()
			k.rebuilt = time.Now()
			k.cause = nil
			k.gen.Store(next)
			k.mu.Unlock()
			k.log.Info("hsm: back", "generation", next.number, "after", time.Since(began), "attempts", attempt)
			return
		}
		k.mu.Lock()
		k.cause = err
		k.mu.Unlock()
		if errors.Is(err, hsm.ErrPIN) {
			k.log.Error(goneForGood, "cause", err)
			return
		}
		k.log.Warn("hsm: still lost", "cause", err, "attempt", attempt)
		wait = min(max(2*wait, firstRetry), lastRetry)
	}
}

// rebuild is one attempt at a new generation after g. It first makes do with
// new sessions; if that fails, or was tried before, the module is finalised and
// initialised anew.
func (k *Keystore) rebuild(g *generation, attempt int) (*generation, error) {
	k.m.inside.Lock()
	defer k.m.inside.Unlock()
	k.mu.Lock()
	cause := k.cause
	k.mu.Unlock()
	if errors.Is(cause, hsm.ErrPIN) {
		return nil, cause
	}
	if k.m.invalidate(g.epoch) && !k.m.foreign {
		// All Keystores on the module are told by the epoch that their
		// handles are void, so closing their sessions on this slot too harms
		// nothing: the numbers of sessions that the HSM has forgotten must
		// not come back to life in other hands.
		_ = k.m.p11.CloseAllSessions(g.slot)
	}
	if attempt == 1 {
		next, err := k.build(g)
		if err == nil || errors.Is(err, hsm.ErrPIN) {
			return next, err
		}
	}
	if err := k.m.reset(); err != nil {
		return nil, err
	}
	return k.build(g)
}

// build makes a generation: finds the slot, opens sessions, logs in, and, if
// there was a generation before, finds its keys again and proves them. It
// leaves nothing open if it fails. module.inside is held for writing.
func (k *Keystore) build(before *generation) (*generation, error) {
	slot, err := k.findSlot()
	if err != nil {
		return nil, err
	}
	g := &generation{epoch: k.m.epoch, slot: slot, down: make(chan struct{})}
	if g.anchor, g.sessions, err = k.openSessions(slot); err != nil {
		return nil, err
	}
	if err := k.fill(g, before); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

func (k *Keystore) fill(g, before *generation) (err error) {
	k.mu.Lock()
	k.number++
	g.number = k.number
	records := k.records
	k.mu.Unlock()
	g.cache = newCache(k.config.Handles)
	if before != nil {
		g.profile = before.profile
	} else if g.profile, err = findProfile(g.anchor, g.slot, k.config.Mechanism, k.log); err != nil {
		return err
	}
	if len(records) == 0 {
		return nil
	}
	if g.keys, err = attach(g.anchor, g.profile, records); err != nil {
		return fmt.Errorf("find the keys again: %w", err)
	}
	return nil
}
