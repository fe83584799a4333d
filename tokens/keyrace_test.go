package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/storetest"
)

// askKey makes an attempt with a key and counts its answer, which must come within
// a minute.
func (h *house) askKey(a *answers, s *tokens.Service, attempt tokens.KeyAttempt) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	r, err := s.VerifyKey(ctx, h.vpn, attempt)
	switch {
	case ctx.Err() != nil:
		h.Errorf("%s: no answer", attempt.User)
	case err != nil && !errors.Is(err, tokens.ErrUnavailable) && !errors.Is(err, tokens.ErrOverloaded):
		h.Errorf("%s: %v", attempt.User, err)
	case err != nil:
		a.failed.Add(1)
	case r.Accept:
		a.accepted.Add(1)
	default:
		a.rejected.Add(1)
	}
	return err == nil && r.Accept
}

func TestOneAnswerManyTimesAtOnceIsAcceptedOnce(t *testing.T) {
	for _, nodes := range []int{1, 2, 3} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			h := newHouse(t)
			services := []*tokens.Service{h.Service}
			for range nodes - 1 {
				services = append(services, h.node(&firsts{}))
			}
			counts, other := newSeckey("counts"), newSeckey("does not")
			counts.count = 1
			h.enrol("alice", counts)
			h.enrol("bob", other)
			for range 3 {
				var a, b answers
				var all sync.WaitGroup
				// By name and as a passkey: it is the same answer.
				one, two := h.shows("alice", counts), h.shows("bob", other)
				for i := range 200 {
					s := services[i%nodes]
					all.Go(func() {
						x := one
						if i%3 == 0 {
							x.User = ""
						}
						h.askKey(&a, s, x)
					})
					all.Go(func() {
						x := two
						if i%3 == 0 {
							x.User = ""
						}
						h.askKey(&b, s, x)
					})
				}
				all.Wait()
				if a.accepted.Load() != 1 || a.rejected.Load() != 199 || b.accepted.Load() != 1 || b.rejected.Load() != 199 {
					t.Errorf("one that counts: %s; one that does not: %s", &a, &b)
				}
			}
			if n := h.acceptedOnce(); n != 6 {
				t.Errorf("%d accepts are in the audit, want 6", n)
			}
			for _, k := range []*seckey{counts, other} {
				if got := h.token(k.serial); got.State != tokens.Active {
					t.Errorf("replays made a key %s", got.State)
				}
			}
			h.intact()
		})
	}
}

// One challenge without a user's name, which two answer with their own keys.
func TestOneChallengeIsAnsweredByOne(t *testing.T) {
	h := newHouse(t)
	services := []*tokens.Service{h.Service, h.node(&firsts{})}
	var keys []*seckey
	for i := range 20 {
		k := newSeckey(fmt.Sprint("key", i))
		keys = append(keys, k)
		h.enrol(fmt.Sprint("user", i), k)
	}
	for round := range 5 {
		c := h.challenge()
		var a answers
		var all sync.WaitGroup
		for i, k := range keys {
			x := h.attempt("", k, c, k.answers(c.Hash))
			all.Go(func() { h.askKey(&a, services[i%2], x) })
		}
		all.Wait()
		if a.accepted.Load() != 1 || a.rejected.Load() != int64(len(keys)-1) {
			t.Errorf("round %d: %s", round, &a)
		}
	}
	h.acceptedOnce()
	h.intact()
}

// A copy and the key itself at once: one of two answers with the same count is
// accepted at most, and then the token is suspended.
func TestAKeyAndItsCopyAtOnceAreNoticed(t *testing.T) {
	for round := range 10 {
		h := newHouse(t)
		services := []*tokens.Service{h.Service, h.node(&firsts{})}
		k := newSeckey("one")
		k.count = 5
		h.enrol("alice", k)
		copied := *k
		var a answers
		var all sync.WaitGroup
		for i, x := range []tokens.KeyAttempt{h.shows("alice", k), h.shows("", &copied)} {
			all.Go(func() { h.askKey(&a, services[(i+round)%2], x) })
		}
		all.Wait()
		if got := h.token(k.serial); a.accepted.Load() != 1 || a.rejected.Load() != 1 || got.State != tokens.Suspended || got.Last != 6 {
			t.Errorf("%s, and the token is %s at %d", &a, got.State, got.Last)
		}
		if n := len(h.records("token.suspend", "ok")); n != 1 {
			t.Errorf("%d suspensions are in the audit", n)
		}
		h.intact()
	}
}

// What commits do not say, or say too late, makes no second accept; and what was
// told is in the audit.
func TestNoAnswerIsAcceptedTwiceByCommitsThatFail(t *testing.T) {
	h := newHouse(t)
	services := []*tokens.Service{h.Service, h.node(&firsts{})}
	d := hotp("H1")
	h.give("user0", d)
	var keys []*seckey
	for i := range 8 {
		k := newSeckey(fmt.Sprint("key", i))
		k.count = uint32(i % 2)
		keys = append(keys, k)
		h.enrol(fmt.Sprint("user", i), k)
	}
	var all sync.WaitGroup
	var told answers
	for i, k := range keys {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 25 {
				if i == 0 {
					h.ask(&answers{}, services[0], h.vpn, "user0", "000000")
				}
				x := h.shows(fmt.Sprint("user", i), k)
				accepted := 0
				for range 3 { // until somebody says something
					h.mem.Inject([]storetest.Fault{storetest.Failed, storetest.FailedButPersisted, storetest.Conflict, storetest.None, storetest.None}[r.IntN(5)])
					var a answers
					if h.askKey(&a, services[r.IntN(2)], x) {
						accepted++
					}
				}
				if accepted > 1 {
					t.Errorf("one answer was accepted %d times", accepted)
				}
				told.accepted.Add(int64(accepted))
			}
		})
	}
	all.Wait()
	h.mem.Mend() // an attempt that the audit only counts commits nothing
	if n := int64(h.acceptedOnce()); told.accepted.Load() == 0 || n < told.accepted.Load() {
		t.Errorf("%d accepts were told, %d are in the audit", told.accepted.Load(), n)
	}
	for _, k := range keys {
		if got := h.token(k.serial); got.State != tokens.Active {
			t.Errorf("%s is %s: an answer that was tried again was taken for a copy's", k.serial, got.State)
		}
	}
	h.intact()
}

// A lost key is refused at once, on every node.
func TestNoKeyIsAcceptedAfterAnActReturned(t *testing.T) {
	for action, act := range map[string]func(h *house, serial string) error{
		"token.lost":     func(h *house, serial string) error { return second(h.MarkLost(ctx, h.admin, "", serial, "")) },
		"token.suspend":  func(h *house, serial string) error { return second(h.SuspendKey(ctx, serial, "", "")) },
		"token.revoke":   func(h *house, serial string) error { return second(h.Revoke(ctx, h.admin, "", serial, "")) },
		"token.unassign": func(h *house, serial string) error { return second(h.Unassign(ctx, h.admin, "", serial, "")) },
		"user.disable": func(h *house, _ string) error {
			return second(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled))
		},
	} {
		t.Run(action, func(t *testing.T) {
			h := newHouse(t)
			other := h.node(&firsts{})
			k := newSeckey("one")
			h.enrol("alice", k)
			stop := make(chan struct{})
			var returned atomic.Bool
			var accepted atomic.Int64
			var all sync.WaitGroup
			for i := range 4 {
				s := []*tokens.Service{h.Service, other}[i%2]
				user := []string{"alice", ""}[i/2]
				all.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						var a answers
						late := returned.Load()
						if h.askKey(&a, s, h.shows(user, k)) {
							accepted.Add(1)
							if late {
								t.Errorf("accepted, and %s had returned before it was asked", action)
							}
						}
					}
				})
			}
			for end := time.Now().Add(10 * time.Second); accepted.Load() < 10 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if err := act(h, k.serial); err != nil {
				t.Error(err)
			}
			returned.Store(true)
			time.Sleep(20 * time.Millisecond)
			close(stop)
			all.Wait()
			if accepted.Load() < 10 {
				t.Errorf("only %d were accepted before", accepted.Load())
			}
			h.nothingAfter(action, "alice")
			h.acceptedOnce()
			h.intact()
		})
	}
}

// Codes, keys and tokens that wait count together, and no ninth slips in.
func TestNoNinthTokenOfAnyKindSlipsIn(t *testing.T) {
	h := newHouse(t)
	services := []*tokens.Service{h.Service, h.node(&firsts{})}
	var list []*device
	for i := range 10 {
		list = append(list, totp(fmt.Sprintf("T%d", i)))
	}
	h.ship("", list...)
	h.user("alice")
	softly, _ := h.invited("alice", tokens.InviteTOTP)
	var all sync.WaitGroup
	var given, refused atomic.Int64
	count := func(err error) {
		switch {
		case err == nil:
			given.Add(1)
		case errors.Is(err, tokens.ErrState):
			refused.Add(1)
		default:
			t.Error(err)
		}
	}
	for i, d := range list {
		registration := h.newFIDO("alice", newSeckey(fmt.Sprint("key", i)))
		all.Go(func() { count(second(services[i%2].Assign(ctx, h.admin, "", d.Serial, "alice"))) })
		all.Go(func() { count(second(services[i%2].EnrolKey(ctx, h.admin, registration))) })
	}
	all.Go(func() {
		count(third(services[0].EnrolSoft(ctx, softly, tokens.NewSoft{User: "alice"})))
	})
	all.Wait()
	_, held, err := h.ShowUser(ctx, h.admin, "", "alice")
	if err != nil || len(held) != tokens.MaxTokensPerUser || given.Load() != tokens.MaxTokensPerUser || refused.Load() != 13 {
		t.Errorf("%d given, %d refused, %d held, %v", given.Load(), refused.Load(), len(held), err)
	}
	for what, err := range map[string]error{
		"a key":             second(h.EnrolKey(ctx, h.admin, h.newFIDO("alice", newSeckey("ninth")))),
		"a key's beginning": second(h.KeyHolder(ctx, h.admin, "", "alice", rp)),
		"an invitation":     third(h.Invite(ctx, h.admin, tokens.NewInvitation{User: "alice"})),
	} {
		if !errors.Is(err, tokens.ErrState) {
			t.Errorf("%s as the ninth: %v", what, err)
		}
	}
	h.intact()
}

// A credential is enrolled once, whoever tries.
func TestACredentialIsEnrolledOnceByManyAtOnce(t *testing.T) {
	h := newHouse(t)
	services := []*tokens.Service{h.Service, h.node(&firsts{})}
	k := newSeckey("one")
	var all sync.WaitGroup
	var made atomic.Int64
	for i := range 12 {
		user := fmt.Sprint("user", i%6)
		h.user(user)
		n := h.newFIDO(user, k)
		all.Go(func() {
			if _, err := services[i%2].EnrolKey(ctx, h.admin, n); err == nil {
				made.Add(1)
			} else if !errors.Is(err, tokens.ErrExists) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made.Load() != 1 {
		t.Errorf("enrolled %d times", made.Load())
	}
	h.intact()
}
