package storetest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

var courierTests = []test{
	{"OneCarriesAtATime", func(k *kit) {
		k.carries("siem", "one", time.Minute, true)
		k.carries("siem", "two", time.Minute, false)
		k.carries("siem", "one", time.Minute, true)
		k.carries("other", "two", time.Minute, true)
		// Who lets go is followed at once.
		k.carries("siem", "one", 0, true)
		k.carries("siem", "two", time.Minute, true)
		k.carries("siem", "one", time.Minute, false)
		k.carries("siem", "one", 0, false) // which takes nothing from two
		k.carries("siem", "three", time.Minute, false)
	}},
	{"WhoIsGoneIsFollowed", func(k *kit) {
		k.carries("siem", "one", 700*time.Millisecond, true)
		k.carries("siem", "two", time.Minute, false)
		begin := time.Now()
		for !k.carry("siem", "two", time.Minute) {
			if time.Since(begin) > 20*time.Second {
				k.Fatal("nobody follows who is gone")
			}
			time.Sleep(20 * time.Millisecond)
		}
		if waited := time.Since(begin); waited < 300*time.Millisecond {
			k.Errorf("it was followed after %v, while it still carried", waited)
		}
		k.carries("siem", "one", time.Minute, false)
	}},
	{"OfManyAtOnceOneCarries", func(k *kit) {
		var carrying atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				ok, err := k.Carry(k.ctx, "siem", fmt.Sprint("node", i), time.Minute)
				if err != nil {
					k.Errorf("Carry: %v", err)
				}
				if ok {
					carrying.Add(1)
				}
			})
		}
		wg.Wait()
		if n := carrying.Load(); n != 1 {
			k.Errorf("%d carry at once", n)
		}
	}},
	{"NobodyCarriesForEver", func(k *kit) {
		for _, c := range []struct {
			sink, holder string
			until        time.Duration
		}{{"", "one", 1}, {"siem", "", 1}, {"siem", "one", -1}, {"siem", "one", time.Hour + 1}, {"si\x00em", "one", 1}, {"siem", "\xff", 1}} {
			if ok, err := k.Carry(k.ctx, c.sink, c.holder, c.until); ok || !errors.Is(err, tokens.ErrInvalid) {
				k.Errorf("Carry %+v: %v, %v", c, ok, err)
			}
		}
	}},
	{"WhatWasToldNeverGoesBack", func(k *kit) {
		k.records(9)
		other := newKit(k.TB, k.Database)
		other.records(9)
		a, b := k.head.Chain, other.head.Chain
		k.told("siem", map[int64]int64{})
		k.carries("siem", "one", time.Minute, true)
		k.tells("siem", "one", map[int64]int64{a: 3})
		k.tells("siem", "one", map[int64]int64{a: 5, b: 1})
		k.told("siem", map[int64]int64{a: 5, b: 1})
		k.tells("siem", "one", map[int64]int64{a: 4, b: 2})
		k.tells("siem", "one", nil)
		k.told("siem", map[int64]int64{a: 5, b: 2})
		k.told("other", map[int64]int64{})

		if err := k.Forget(k.ctx, "siem"); err != nil {
			k.Fatal(err)
		}
		k.told("siem", map[int64]int64{})
		k.mayNotTell("siem", "one", map[int64]int64{a: 9})
		k.carries("siem", "two", time.Minute, true)
		k.tells("siem", "two", map[int64]int64{a: 1})
		k.told("siem", map[int64]int64{a: 1})
	}},
	{"OnlyWhoCarriesTells", func(k *kit) {
		k.records(5)
		told := map[int64]int64{k.head.Chain: 2}
		k.mayNotTell("siem", "one", told)
		k.carries("siem", "one", 0, true)
		k.tells("siem", "one", told) // late, but nobody took over
		k.carries("siem", "two", time.Minute, true)
		k.mayNotTell("siem", "one", map[int64]int64{k.head.Chain: 5})
		k.mayNotTell("siem", "", map[int64]int64{k.head.Chain: 5})
		k.told("siem", told)
		k.tells("siem", "two", map[int64]int64{k.head.Chain: 4})
		k.told("siem", map[int64]int64{k.head.Chain: 4})
	}},
	{"TellingIsOneStepWithTakingOver", func(k *kit) {
		// Two who take the sink from each other all the time: what is noted never
		// goes back, and each who is told that it noted did carry.
		k.records(40)
		var wg sync.WaitGroup
		for i := range 2 {
			holder := fmt.Sprint("node", i)
			wg.Go(func() {
				for n := int64(1); n <= 20; n++ {
					if _, err := k.Carry(k.ctx, "siem", holder, 0); err != nil {
						k.Errorf("Carry: %v", err)
					}
					before, err := k.Told(k.ctx, "siem")
					if err != nil {
						k.Errorf("Told: %v", err)
					}
					err = k.Tell(k.ctx, "siem", holder, map[int64]int64{k.head.Chain: n})
					if err != nil && !errors.Is(err, tokens.ErrState) {
						k.Errorf("Tell: %v", err)
					}
					after, err2 := k.Told(k.ctx, "siem")
					if err2 != nil {
						k.Errorf("Told: %v", err2)
					}
					at := after[k.head.Chain]
					if at < before[k.head.Chain] || err == nil && at < n {
						k.Errorf("told up to %d, then %d (%v), then %d", before[k.head.Chain], n, err, at)
					}
				}
			})
		}
		wg.Wait()
	}},
	{"AfterIsInOrderAndByChain", func(k *kit) {
		k.records(7)
		other := newKit(k.TB, k.Database)
		other.records(3)
		k.records(5)
		for _, c := range []struct {
			kit   *kit
			seq   int64
			limit int
			want  int
		}{
			{k, 0, 1000, 12}, {k, 0, 5, 5}, {k, 5, 5, 5}, {k, 10, 5, 2}, {k, 11, 1, 1}, {k, 12, 5, 0}, {k, 99, 5, 0},
			{other, 0, 5, 3}, {other, 2, 5, 1},
		} {
			page, err := k.After(k.ctx, c.kit.head.Chain, c.seq, c.limit)
			if err != nil || len(page) != c.want {
				k.Fatalf("After %d: %d records, not %d, %v", c.seq, len(page), c.want, err)
			}
			for i, r := range page {
				if r.Chain != c.kit.head.Chain || r.Seq != c.seq+int64(i)+1 {
					k.Errorf("After %d: record %d of chain %d is number %d", c.seq, r.Seq, r.Chain, i)
				}
			}
		}
		// As hashed: what is told can be checked by who is told.
		page, err := k.After(k.ctx, k.head.Chain, 0, 1000)
		if err != nil {
			k.Fatal(err)
		}
		var prev [32]byte
		for _, r := range page {
			if audit.Sum(prev, r.Chain, r.Seq, &r.Event) != r.Hash {
				k.Fatalf("record %d comes with another hash", r.Seq)
			}
			prev = r.Hash
		}
		if page, err := k.After(k.ctx, 1<<40, 0, 10); err != nil || len(page) != 0 {
			k.Errorf("After of no chain: %d records, %v", len(page), err)
		}
	}},
}

// records commits so many records, one after another.
func (k *kit) records(n int) {
	k.Helper()
	for range n {
		k.must(tokens.Change{}, event("alice", "A1"))
	}
}

func (k *kit) carry(sink, holder string, until time.Duration) bool {
	k.Helper()
	ok, err := k.Carry(k.ctx, sink, holder, until)
	if err != nil {
		k.Fatalf("Carry: %v", err)
	}
	return ok
}

func (k *kit) carries(sink, holder string, until time.Duration, want bool) {
	k.Helper()
	if k.carry(sink, holder, until) != want {
		k.Fatalf("%s carries %s for %v: %v", holder, sink, until, !want)
	}
}

func (k *kit) told(sink string, want map[int64]int64) {
	k.Helper()
	told, err := k.Told(k.ctx, sink)
	if err != nil {
		k.Fatalf("Told: %v", err)
	}
	k.same("told", told, want)
}

func (k *kit) tells(sink, holder string, told map[int64]int64) {
	k.Helper()
	if err := k.Tell(k.ctx, sink, holder, told); err != nil {
		k.Fatalf("Tell: %v", err)
	}
}

func (k *kit) mayNotTell(sink, holder string, told map[int64]int64) {
	k.Helper()
	if err := k.Tell(k.ctx, sink, holder, told); !errors.Is(err, tokens.ErrState) {
		k.Fatalf("%q tells %s: %v", holder, sink, err)
	}
}
