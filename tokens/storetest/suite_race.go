package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
		records, _, err := k.Records(k.ctx, tokens.RecordQuery{User: "alice", Limit: 100})
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
	{"OneOfManySpends", func(k *kit) {
		// Each of several things is spent by one of two at a time, which meet
		// crosswise; who comes too late is told what was spent, and spends nothing.
		const workers, rounds, each = 8, 10, 6
		var won [rounds][each]atomic.Int32
		var wg sync.WaitGroup
		for w := range workers {
			worker := newKit(k.TB, k.Database)
			wg.Go(func() {
				for r := range rounds {
					list := []int{(w + r) % each, (w*5 + r + 1) % each}
					if list[0] == list[1] {
						list = list[:1]
					}
					for len(list) > 0 {
						var c tokens.Change
						for _, i := range list {
							c.Spends = append(c.Spends, spend(fmt.Sprint(r, i), time.Hour))
						}
						err := worker.try(c)
						var e *tokens.SpentError
						if err == nil {
							for _, i := range list {
								won[r][i].Add(1)
							}
							break
						}
						if !errors.As(err, &e) || len(e.Hashes) == 0 {
							k.Errorf("Commit: %v", err)
							return
						}
						list = slices.DeleteFunc(list, func(i int) bool {
							return slices.Contains(e.Hashes, spend(fmt.Sprint(r, i), 0).Hash)
						})
					}
				}
			})
		}
		wg.Wait()
		for r := range won {
			for i := range won[r] {
				if n := won[r][i].Load(); n != 1 {
					k.Errorf("thing %d of round %d was spent %d times", i, r, n)
				}
			}
		}
	}},
	{"OneOfManyUsesAnInvitation", func(k *kit) {
		alice := k.user("alice")
		k.must(invite(newInvitation("i1", &alice)))
		var won, wg = atomic.Int32{}, sync.WaitGroup{}
		for i := range 8 {
			u := k.user(serialName(i)) // of their own, so that nothing else is in the way
			worker := newKit(k.TB, k.Database)
			wg.Go(func() {
				t := newKey(serialName(i), &u)
				err := worker.try(tokens.Change{
					Standings: []tokens.StandingWrite{{UserID: u.ID, Expect: 1, Next: tokens.Standing{Version: 2}}},
					NewTokens: []*tokens.Token{&t},
					Invites:   []tokens.InvitationWrite{use("i1", t.Serial, now())},
				})
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, tokens.ErrSpent) {
					k.Errorf("Commit: %v", err)
				}
			})
		}
		wg.Wait()
		if n := won.Load(); n != 1 {
			k.Errorf("%d commits used the invitation", n)
		}
		k.same("tokens", k.serials(tokens.TokenQuery{}), []string{k.invitation("i1").Serial})
	}},
	{"OneOfManyEnrolsACredential", func(k *kit) {
		var won, wg = atomic.Int32{}, sync.WaitGroup{}
		for i := range 8 {
			u := k.user(serialName(i))
			worker := newKit(k.TB, k.Database)
			wg.Go(func() {
				t := newKey(serialName(i), &u)
				t.Credential = newKey("K1", &u).Credential
				err := worker.try(tokens.Change{
					Standings: []tokens.StandingWrite{{UserID: u.ID, Expect: 1, Next: tokens.Standing{Version: 2}}},
					NewTokens: []*tokens.Token{&t},
				})
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, tokens.ErrExists) {
					k.Errorf("Commit: %v", err)
				}
			})
		}
		wg.Wait()
		if n := won.Load(); n != 1 || len(k.serials(tokens.TokenQuery{})) != 1 {
			k.Errorf("%d commits enrolled the credential", n)
		}
	}},
	{"OneOfManyReplacesADocument", func(k *kit) {
		for expect := range int64(3) {
			var won, wg = atomic.Int32{}, sync.WaitGroup{}
			for i := range 8 {
				worker := newKit(k.TB, k.Database)
				wg.Go(func() {
					err := worker.try(tokens.Change{Documents: []tokens.DocumentWrite{{Name: "a", Expect: expect, Updated: now(), Data: []byte{byte(i)}}}})
					if err == nil {
						won.Add(1)
					} else if !errors.Is(err, tokens.ErrConflict) {
						k.Errorf("Commit: %v", err)
					}
				})
			}
			wg.Wait()
			if n := won.Load(); n != 1 || k.document("a").Version != expect+1 {
				k.Errorf("%d commits replaced version %d", n, expect)
			}
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
