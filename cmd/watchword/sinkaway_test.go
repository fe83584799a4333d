package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"watchword/courier"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/store"
)

// steppedClock stands still until somebody takes a step: to the end of the wait that
// ends first.
type steppedClock struct {
	mu     sync.Mutex
	now    time.Time
	waits  []steppedWait
	waited []time.Duration // all that were asked for
}

type steppedWait struct {
	until time.Time
	bell  chan time.Time
}

func (c *steppedClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *steppedClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := steppedWait{c.now.Add(d), make(chan time.Time, 1)}
	c.waits, c.waited = append(c.waits, w), append(c.waited, d)
	return w.bell
}

// step ends the wait that ends first, and answers false if nobody waits.
func (c *steppedClock) step() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waits) == 0 {
		return false
	}
	slices.SortFunc(c.waits, func(a, b steppedWait) int { return a.until.Compare(b.until) })
	if c.waits[0].until.After(c.now) {
		c.now = c.waits[0].until
	}
	c.waits[0].bell <- c.now
	c.waits = c.waits[1:]
	return true
}

// tries are the waits that were asked for after the first n.
func (c *steppedClock) tries(n int) []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.waited[n:])
}

type nothingShown struct{ key string }

func (f *nothingShown) Save(key, _ string) error {
	f.key = key
	return nil
}

// TestAfterFiveMinutesOfFailuresNothingIsLost: rsyslogd over TLS dies in the middle of
// its work and is away for five minutes of the clock by which sinks are waited for. All
// that time it is tried, ever more seldom, and with the first try after it is back it
// has all that there is.
func TestAfterFiveMinutesOfFailuresNothingIsLost(t *testing.T) {
	db, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "watchword.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	clock := &steppedClock{now: time.Now()}
	keys := hsmtest.NewMemory(t)
	var first nothingShown
	s, err := tokens.Open(t.Context(), tokens.Config{
		Database: db, Custody: keys, Exclusive: true, SinkClock: clock,
		Deliver: &courier.Courier{Dir: t.TempDir(), Host: "watchword"},
	}, keys, &first)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	admin, err := s.Authenticate(t.Context(), first.key)
	if err != nil {
		t.Fatal(err)
	}
	users := 0
	work := func() {
		users++
		if _, err := s.AddUser(t.Context(), admin, "", fmt.Sprint("user", users)); err != nil {
			t.Fatal(err)
		}
	}
	r := newRsyslog(t)
	r.start()
	ca, err := os.ReadFile(r.ca)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.PutSink(t.Context(), admin, tokens.NewSink{Name: "siem", Kind: tokens.SinkSyslog, Address: "tls://" + r.at, CA: string(ca)}); err != nil {
		t.Fatal(err)
	}
	state := func() tokens.SinkState {
		list, err := s.SinkStates(t.Context())
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0]
	}
	work()
	all := func() map[place]audit.Record {
		list := map[place]audit.Record{}
		heads, err := db.Heads(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range heads {
			records, err := db.After(t.Context(), h.Chain, 0, int(h.Seq))
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range records {
				list[place{r.Chain, r.Seq}] = r
			}
		}
		return list
	}
	arrived := func(want map[place]audit.Record) bool {
		got := r.received()
		for at := range want {
			if _, ok := got[at]; !ok {
				return false
			}
		}
		return true
	}
	want := all()
	eventually(t, 60*time.Second, "what there is arrives", func() bool { clock.step(); return arrived(want) })

	// It dies with what was just sent still on the way.
	for range 50 {
		work()
	}
	clock.step()
	r.kill()
	away, begun := clock.Now(), len(clock.tries(0))
	eventually(t, 60*time.Second, "the sink fails", func() bool { clock.step(); return state().Failures > 0 })
	for clock.Now().Sub(away) < 5*time.Minute {
		before := state().Failures
		work()
		eventually(t, 60*time.Second, "it is tried again", func() bool {
			if state().Failures > before {
				return true
			}
			clock.step()
			return false
		})
	}
	failures := state().Failures
	tries := clock.tries(begun)
	if failures < 12 || failures > 25 {
		t.Errorf("in five minutes it was tried %d times: %v", failures, tries)
	}
	longest := slices.Max(tries)
	if longest < 26*time.Second || longest > 34*time.Second {
		t.Errorf("the longest wait was %s; 30 seconds, an eighth more or less, are right: %v", longest, tries)
	}
	alarms := 0
	for _, r := range all() {
		if r.Action == "sink.failing" && r.Outcome == "error" {
			alarms++
		}
	}
	if alarms != 1 {
		t.Errorf("the audit says %d times that the sink fails", alarms)
	}

	r.start()
	back := clock.Now()
	want = all()
	eventually(t, 60*time.Second, "somebody waits for the next try", clock.step)
	if waited := clock.Now().Sub(back); waited > 34*time.Second {
		t.Errorf("the next try is %s away", waited)
	}
	eventually(t, 60*time.Second, "all is there with the first try", func() bool { return arrived(want) })
	got := r.received()
	for at, record := range want {
		record.ID = 0 // where it stands in the database
		if !reflect.DeepEqual(record, got[at]) {
			t.Fatalf("it arrived as %+v, and is %+v", got[at], record)
		}
	}
	eventually(t, 60*time.Second, "the audit says that it is told again", func() bool {
		clock.step()
		return state().LastError == ""
	})
	t.Logf("tried %d times: %v", failures, tries)
}
