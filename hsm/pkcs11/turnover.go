package pkcs11

/*
#include "cryptoki.h"
*/
import "C"

import (
	"context"
	"errors"
	"time"

	"watchword/hsm"
)

// SoftHSM 2.6.1 keeps the empty shell of every session object until C_Finalize;
// closing sessions, or all of them, frees nothing. Wrapping a seed makes one such
// object and evicting a handle leaves one. A turnover gives the memory back: it
// ends a generation that is well and puts a new one in its place. Unlike after a
// loss nothing is in doubt, so nobody is told: calls under way finish first,
// what they computed counts, and later ones wait and go on in the new generation.

const (
	// turnoverAfter is Config.Turnover for SoftHSM: ten megabytes.
	turnoverAfter = 50_000

	// turnoverShare is how many times more destroyed keys than cached handles
	// there must be. A turnover unwraps every seed in use again, so with many it
	// must be rare, and what leaks is little beside the handles themselves, at
	// 9 KB each. But C_Finalize takes nearly a microsecond for each destroyed key
	// while everybody waits: with 100,000 handles, 300,000 of them by then take a
	// quarter of a second, and with four times as many keys it were near half.
	turnoverShare = 2

	// turnoverThin is how many handles are left to C_Finalize, which takes 6
	// microseconds for each and lets everybody wait; more are destroyed before,
	// beside other work.
	turnoverThin = 2000

	// turnoverSlice is how many are destroyed in one go: a millisecond's work.
	turnoverSlice = 256

	// turnoverRounds is how often what was unwrapped again is destroyed again.
	turnoverRounds = 4

	// turnoverTries is how often passing errors are met, such as SoftHSM's while
	// another process logs in to the token, before the generation counts as lost.
	turnoverTries = 3

	// turnoverPause is how long a turnover is put off by what hinders it.
	turnoverPause = 10 * time.Second
)

// turnoverDue says whether g has used up so many session objects that it should
// end. module.inside is held for reading.
func (k *Keystore) turnoverDue(g *generation) bool {
	m, after := k.m, int64(k.config.Turnover)
	if after == 0 && m.leaks {
		after = turnoverAfter
	}
	made := m.made.Load()
	if after <= 0 || made < after || g.keys == nil || m.users != 1 || m.foreign {
		return false
	}
	cached := int64(g.cache.len())
	return made-cached >= max(after, turnoverShare*cached)
}

// startTurnover starts a turnover, unless g ended or one is under way.
func (k *Keystore) startTurnover(g *generation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || k.turning || k.gen.Load() != g || time.Now().Before(k.putOff) {
		return
	}
	k.turning = true
	// closed is false under mu, so Close has not begun to wait.
	k.wg.Go(func() {
		err := k.turnOver(g)
		k.mu.Lock()
		k.turning = false
		if err != nil {
			k.putOff = time.Now().Add(turnoverPause)
		}
		k.mu.Unlock()
		if err != nil {
			k.log.Warn("hsm: the module could not be started anew to free memory; later again", "cause", err)
		}
	})
}

// turnOver does everything that can be done while calls go on, and then renews
// g. It fails if the turnover had to be put off; a loss is no error of its.
func (k *Keystore) turnOver(g *generation) error {
	if err := k.thin(g); err != nil {
		return nil // g was lost, or the keystore is closed
	}
	if k.config.Turning != nil {
		turned, err := k.config.Turning()
		if err != nil {
			return err
		}
		defer turned()
	}
	if k.renew(g) {
		// The allocator would keep what was freed below something that was not.
		C.ck_trim()
	}
	return nil
}

// thin destroys most of the cached handles, the least recently used first, in
// slices that give way to all other work. That work unwraps some of them again
// meanwhile, so it goes round more than once.
func (k *Keystore) thin(g *generation) error {
	ctx := hsm.Bulk(context.Background())
	for range turnoverRounds {
		for n := g.cache.len() - turnoverThin; n > 0; n -= turnoverSlice {
			if _, err := k.do(ctx, g, func(c conn, g *generation) error {
				for _, h := range g.cache.thin(min(n, turnoverSlice)) {
					if err := c.destroy(h); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				return err
			}
		}
	}
	return nil
}

// renew puts a new generation in the place of g, and says whether it did. It has
// the module for itself meanwhile: it begins when the last call under way has
// returned, and those that come wait for it in exec. If it fails half-way g is
// lost, and the recovery goes on from there.
func (k *Keystore) renew(g *generation) bool {
	began := time.Now()
	m := k.m
	m.inside.Lock()
	defer m.inside.Unlock()
	if k.gen.Load() != g || m.epoch != g.epoch || m.users != 1 || m.foreign {
		return false
	}
	alone := time.Now()
	made := m.made.Load()
	var next *generation
	var err error
	for try := 1; ; try++ {
		if err = m.reset(); err == nil {
			next, err = k.build(g)
		}
		if err == nil {
			break
		}
		if errors.Is(err, hsm.ErrPIN) {
			k.refused(g, err)
			return false
		}
		// The watchdog may have ended g, because this took too long.
		if try == turnoverTries || k.gen.Load() != g {
			k.lost(g, err)
			return false
		}
		time.Sleep(time.Duration(try) * firstRetry / 2)
	}
	next.down = g.down
	k.mu.Lock()
	current := k.gen.Load() == g
	if current {
		k.gen.Store(next)
	}
	k.mu.Unlock()
	if !current {
		next.close()
		return false
	}
	k.log.Info("hsm: module started anew to free memory", "generation", next.number, "session_keys", made,
		"calls_waited", time.Since(alone), "after", time.Since(began))
	return true
}
