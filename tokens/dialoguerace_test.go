package tokens_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"watchword/tokens"
	"watchword/tokens/storetest"
)

// One State answered many times at once, by two nodes and with codes that are each right
// by themselves, is accepted once.
func TestOneStateManyTimesAtOnceIsAcceptedOnce(t *testing.T) {
	h := newHouse(t)
	d, e := hotp("H1"), totp("T1")
	h.give("alice", d, e)
	h.pin("alice", "4711", false)
	s := h.stage(everyDialogue...)
	nodes := []*tokens.Service{h.Service, h.node(&firsts{})}
	for round := range int64(20) {
		next := h.token("H1").Last
		state, codes := []byte(nil), []string{d.at(next), d.at(next + 1), d.at(next + 2), d.at(next + 3)}
		switch round % 3 {
		case 0:
			state = s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
		case 1:
			state = s.asked("alice", "4711"+d.at(next+30), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
			codes = []string{d.at(next + 31)}
		case 2:
			h.pin("alice", "4711", true)
			state = s.asked("alice", "4711"+d.at(next), nil, tokens.QuestionNewPIN, tokens.ReasonPINDue)
			state = s.asked("alice", "8051", state, tokens.QuestionNewPINAgain, tokens.ReasonPINDue)
			codes = []string{"8051"}
		}
		var accepted, asked atomic.Int64
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				r, err := nodes[i%2].Verify(ctx, h.vpn, s.attempt("alice", codes[i/2%len(codes)], state))
				if err != nil {
					t.Error(err)
				}
				if r.Accept {
					accepted.Add(1)
				}
				if r.Challenge != nil {
					asked.Add(1)
				}
			})
		}
		all.Wait()
		if accepted.Load() != 1 || asked.Load() != 0 {
			t.Errorf("round %d: one State was accepted %d times, and asked %d questions", round, accepted.Load(), asked.Load())
		}
		h.pin("alice", "4711", false)
	}
	h.acceptedOnce()
	h.intact()
}

// Of many codes far ahead at once one question stays open at most, and it is the last
// thing that was done to the user.
func TestOneQuestionForTheNextCodeIsOpen(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Throttle = tokens.Throttle{Free: 1 << 30, LockAt: 1 << 30} })
	d := hotp("H1")
	h.give("alice", d)
	s := h.stage(tokens.DialogueNextCode)
	nodes := []*tokens.Service{h.Service, h.node(&firsts{}, func(c *tokens.Config) { c.Throttle = tokens.Throttle{Free: 1 << 30, LockAt: 1 << 30} })}
	for range 10 {
		next := h.token("H1").Last
		var mu sync.Mutex
		states := map[int64][]byte{}
		var all sync.WaitGroup
		for i := range int64(24) {
			all.Go(func() {
				code := d.at(next + 12 + 2*(i/2))
				if i%6 == 5 {
					code = "000000"
				}
				r, err := nodes[i%2].Verify(ctx, h.vpn, s.attempt("alice", code, nil))
				if err != nil || r.Accept {
					t.Errorf("%+v, %v", r, err)
				}
				if r.Challenge != nil {
					mu.Lock()
					states[next+12+2*(i/2)+i<<32] = r.Challenge.State
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if len(states) < 2 {
			t.Errorf("%d questions were asked", len(states))
		}
		accepted := 0
		for key, state := range states {
			if s.says("alice", d.at(key&(1<<32-1)+1), state).Accept {
				accepted++
			}
		}
		if accepted > 1 {
			t.Errorf("%d questions for one user were open", accepted)
		}
		h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
	}
	h.intact()
}

// Commits that fail leave no question that works twice, and no code that is accepted
// twice, though whoever hears nothing asks again.
func TestCommitsThatFailLeaveNoQuestionThatWorksTwice(t *testing.T) {
	h := newHouse(t)
	nodes := []*tokens.Service{h.Service, h.node(&firsts{})}
	s := h.stage(everyDialogue...)
	var all sync.WaitGroup
	var total atomic.Int64
	var over atomic.Bool
	var devices []*device
	for i := range 6 {
		devices = append(devices, hotp(fmt.Sprint("H", i)))
		h.give(fmt.Sprint("user", i), devices[i])
		h.pin(fmt.Sprint("user", i), "4711", false)
	}
	for i, d := range devices {
		user := fmt.Sprint("user", i)
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			// ask asks until it is told something.
			ask := func(code string, state []byte) (tokens.Result, int) {
				accepted := 0
				var got tokens.Result
				for range 4 {
					fault := []storetest.Fault{storetest.Failed, storetest.FailedButPersisted, storetest.Conflict, storetest.None, storetest.None}[r.IntN(5)]
					h.mem.InjectFunc(func(*tokens.Change) storetest.Fault {
						if over.Load() {
							return storetest.None
						}
						return fault
					})
					x, err := nodes[r.IntN(2)].Verify(ctx, h.vpn, s.attempt(user, code, state))
					if err != nil && !errors.Is(err, tokens.ErrUnavailable) {
						t.Error(err)
					}
					if err == nil && x.Accept {
						accepted++
					}
					if err == nil && x.Challenge != nil {
						got = x
					}
				}
				return got, accepted
			}
			next := int64(0)
			for n := range 20 {
				first, code := "4711", d.at(next)
				if n%2 == 1 {
					first, code = "4711"+d.at(next+20), d.at(next+21)
				}
				x, accepted := ask(first, nil)
				if accepted != 0 {
					t.Errorf("%s: %q was accepted", user, first)
				}
				if x.Challenge == nil {
					continue
				}
				_, accepted = ask(code, x.Challenge.State)
				if accepted > 1 {
					t.Errorf("%s: one State was accepted %d times", user, accepted)
				}
				total.Add(int64(accepted))
				next = h.token(d.Serial).Last
				h.UnlockUser(ctx, h.admin, "", user) // or not: that commit may fail as well
			}
		})
	}
	all.Wait()
	over.Store(true)
	if n := int64(h.acceptedOnce()); total.Load() == 0 || n < total.Load() {
		t.Errorf("%d accepts were told, %d are in the audit", total.Load(), n)
	}
	h.intact()
}
