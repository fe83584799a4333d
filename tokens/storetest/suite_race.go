package storetest

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"watchword/tokens"
)

var raceTests = []test{
	{"OneWinsEachVersion", func(k *kit) {
		const users, workers, rounds = 5, 8, 25
		var ids []int64
		for i := range users {
			ids = append(ids, k.user(serialName(i)).ID)
		}
		var wins [users][workers * rounds * 2]atomic.Int32 // by user and version
		var wg sync.WaitGroup
		for w := range workers {
			worker := newKit(k.TB, k.Database)
			wg.Go(func() {
				for r := range rounds {
					// Three users in an order of the worker's own, so that two
					// workers meet crosswise.
					var refs []tokens.Ref
					for i := range 3 {
						refs = append(refs, tokens.Ref{Realm: "default", User: serialNameFolded((w*r + i*(w%2+1)) % users)})
					}
					view, err := worker.Load(worker.ctx, refs)
					if err != nil {
						k.Errorf("Load: %v", err)
						return
					}
					var change tokens.Change
					for _, s := range view.Subjects {
						if !slices.ContainsFunc(change.Standings, func(o tokens.StandingWrite) bool { return o.UserID == s.User.ID }) {
							change.Standings = append(change.Standings, next(s))
						}
					}
					switch err := worker.try(change); {
					case err == nil:
						for _, s := range change.Standings {
							wins[slices.Index(ids, s.UserID)][s.Expect].Add(1)
						}
					case !errors.Is(err, tokens.ErrConflict):
						k.Errorf("Commit: %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
		for u := range users {
			version := k.subject(serialNameFolded(u)).Version
			for v := range wins[u] {
				n := wins[u][v].Load()
				if int64(v) >= 1 && int64(v) < version && n != 1 || int64(v) >= version && n != 0 {
					k.Errorf("version %d of user %d was moved %d times; it is at %d", v, u, n, version)
				}
			}
		}
	}},
	{"OneOfManyConsumesAStep", func(k *kit) {
		k.user("alice")
		k.ship("A1")
		k.give("alice", "A1")
		s := k.subject("alice")
		var won, wg = atomic.Int32{}, sync.WaitGroup{}
		for range 12 {
			worker := newKit(k.TB, k.Database)
			wg.Go(func() {
				err := worker.try(tokens.Change{
					Standings: []tokens.StandingWrite{next(s)},
					Motions:   []tokens.MotionWrite{{TokenID: s.Tokens[0].ID, UserID: s.User.ID, Last: 42}},
				}, event("alice", "A1"))
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, tokens.ErrConflict) {
					k.Errorf("Commit: %v", err)
				}
			})
		}
		wg.Wait()
		if n := won.Load(); n != 1 {
			k.Errorf("%d commits consumed the step", n)
		}
		records, err := k.Records(k.ctx, tokens.RecordQuery{User: "alice", Limit: 100})
		if err != nil || len(records) != 1 {
			k.Errorf("%d accepts are in the audit, %v", len(records), err)
		}
	}},
	{"OneOfManyTakesAName", func(k *kit) {
		var won, wg = atomic.Int32{}, sync.WaitGroup{}
		for range 8 {
			worker := newKit(k.TB, k.Database)
			wg.Go(func() {
				err := worker.try(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("default", "alice")}}})
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, tokens.ErrExists) {
					k.Errorf("Commit: %v", err)
				}
			})
		}
		wg.Wait()
		if n := won.Load(); n != 1 {
			k.Errorf("%d commits made alice", n)
		}
	}},
	{"OneOfManyIsGivenAToken", func(k *kit) {
		t := k.ship("A1")[0]
		var won, wg = atomic.Int32{}, sync.WaitGroup{}
		for i := range 8 {
			u := k.user(serialName(i))
			worker := newKit(k.TB, k.Database)
			wg.Go(func() {
				mine := t
				mine.OwnerID, mine.State = u.ID, tokens.Active
				err := worker.try(tokens.Change{
					Standings: []tokens.StandingWrite{{UserID: u.ID, Expect: 1, Next: tokens.Standing{Version: 2}}},
					Tokens:    []tokens.TokenWrite{{Token: mine, Expect: 1}},
				})
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, tokens.ErrConflict) {
					k.Errorf("Commit: %v", err)
				}
			})
		}
		wg.Wait()
		if n := won.Load(); n != 1 {
			k.Errorf("%d users were given the token", n)
		}
	}},
	{"ReadersSeeWholeCommits", func(k *kit) {
		k.user("alice")
		k.ship("A1")
		k.give("alice", "A1")
		start := k.subject("alice").Version
		stop := make(chan struct{})
		var wg sync.WaitGroup
		reader := newKit(k.TB, k.Database)
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				view, err := reader.Load(reader.ctx, []tokens.Ref{{Realm: "default", User: "alice"}})
				if err != nil {
					k.Errorf("Load: %v", err)
					return
				}
				s := view.Subjects[0]
				if last := s.Tokens[0].Last; last >= 0 && s.Version != start+last+1 {
					k.Errorf("version %d was read with step %d", s.Version, last)
					return
				}
			}
		})
		for step := range int64(50) {
			if err := k.accept("alice", "A1", step); err != nil {
				k.Errorf("step %d: %v", step, err)
				break
			}
		}
		close(stop)
		wg.Wait()
	}},
}

// serialNameFolded is serialName as a user's key.
func serialNameFolded(i int) string {
	key, err := tokens.FoldName(serialName(i))
	if err != nil {
		panic(err)
	}
	return key
}
