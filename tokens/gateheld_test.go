package tokens

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// shelf is a database that holds groups and nothing else.
type shelf struct {
	Database
	groups map[int64][]string
	read   int
}

func (s *shelf) Groups(_ context.Context, user int64) ([]string, error) {
	s.read++
	return s.groups[user], nil
}

// Groups that somebody edits by hand, which moves no version, count after a while,
// though each attempt carries on what is remembered.
func TestGroupsEditedByHandCountSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &shelf{groups: map[int64][]string{7: {"staff"}}}
		e := newEngine(&Service{db: db})
		alice := &Subject{User: &User{ID: 7}, Standing: Standing{Version: 1}}
		ref := Ref{User: "alice"}
		for range 3 {
			if got, err := e.groupsOf(t.Context(), &ref, alice); err != nil || !slices.Equal(got, []string{"staff"}) {
				t.Fatal(got, err)
			}
			alice.Version++
			e.moved([]*write{{subject: alice, expect: alice.Version - 1, standing: alice.Standing}})
		}
		if db.read != 1 {
			t.Errorf("the groups were read %d times", db.read)
		}
		db.groups[7] = nil
		time.Sleep(time.Minute)
		if got, err := e.groupsOf(t.Context(), &ref, alice); err != nil || len(got) != 0 {
			t.Errorf("a minute after they were taken by hand: %v, %v", got, err)
		}
	})
}

// A name that is no user's costs as many readings of groups as a user's: one.
func TestGroupsOfStrangersAreAskedForAsOften(t *testing.T) {
	db := &shelf{}
	e := newEngine(&Service{db: db})
	ref := Ref{User: "nobody"}
	for range 3 {
		if got, err := e.groupsOf(t.Context(), &ref, nil); err != nil || len(got) != 0 {
			t.Fatal(got, err)
		}
	}
	if db.read != 1 {
		t.Errorf("asked %d times", db.read)
	}
}

// crowded notes whether two ask it at once.
type crowded struct {
	in      atomic.Int32
	crowded atomic.Bool
}

func (c *crowded) Proves([]byte) bool {
	if c.in.Add(1) > 1 {
		c.crowded.Store(true)
	}
	time.Sleep(time.Millisecond)
	c.in.Add(-1)
	return false
}

// With several tokens and an HSM whose sessions share the work, a proof is still asked by
// one goroutine at a time: it may remember what it proves.
func TestAProofIsAskedByOneGoroutineAtATime(t *testing.T) {
	asked := &crowded{}
	x := (&Service{}).attempt(Principal{}, "default", Attempt{User: "alice", Proof: asked})
	var wg sync.WaitGroup
	for range 4 {
		c := &candidate{token: &Token{Digits: 6}, proof: x.proof}
		wg.Go(func() {
			for i := range 8 {
				c.shows(i, make([]byte, 20))
			}
		})
	}
	wg.Wait()
	if asked.crowded.Load() {
		t.Error("two asked at once")
	}
}
