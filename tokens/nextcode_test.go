package tokens_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
)

func TestACodeFarAheadAndTheNextOneResynchronise(t *testing.T) {
	h := newHouse(t)
	d, e := totp("T1"), hotp("H1")
	h.give("alice", d)
	h.give("bob", e)
	h.pin("bob", "4711", false)
	s := h.stage(tokens.DialogueNextCode)

	// The window ends one step ahead: from then on twenty steps, and no more.
	h.clock.forward(15 * time.Second) // to the middle of a step
	for _, c := range []struct {
		ahead int64
		asks  bool
	}{{-22, false}, {-2, false}, {2, true}, {21, true}, {22, false}} {
		r := s.says("alice", d.code(h, c.ahead), nil)
		if (r.Challenge != nil) != c.asks || r.Accept {
			t.Errorf("%d steps ahead: %+v, %+v", c.ahead, r, h.last())
		}
		h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
	}
	state := s.asked("alice", d.code(h, 15), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
	if last := h.last(); last.Serial != "T1" || detail(last, "factor") != "" {
		t.Errorf("%+v", last)
	}
	s.failures("alice", 1)
	h.clock.forward(30 * time.Second)
	s.ended("alice", d.code(h, 15), state, true, tokens.ReasonAccepted)
	s.failures("alice", 0)
	if got := h.token("T1"); got.Drift != 15 || got.Last != h.clock.now().Unix()/30+15 {
		t.Errorf("%+v", got.Motion)
	}
	if last := h.last(); last.Serial != "T1" || detail(last, "dialogue") != "next_code" || detail(last, "factor") == "" {
		t.Errorf("%+v", last)
	}
	// Both codes are used up, and the window has moved.
	s.ended("alice", d.code(h, 15), nil, false, tokens.ReasonReplay)
	s.ended("alice", d.code(h, 14), nil, false, tokens.ReasonReplay)
	h.clock.forward(30 * time.Second)
	s.ended("alice", d.code(h, 16), nil, true, tokens.ReasonAccepted)

	// HOTP: ten counters, and fifty more. The PIN goes before the code, and not before
	// the next one, or before that as well.
	s.ended("bob", "4711"+e.at(60), nil, false, tokens.ReasonWrongCode)
	s.ended("bob", e.at(20), nil, false, tokens.ReasonWrongCode) // no PIN
	s.ended("bob", "4712"+e.at(20), nil, false, tokens.ReasonWrongCode)
	state = s.asked("bob", "4711"+e.at(59), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
	s.ended("bob", e.at(60), state, true, tokens.ReasonAccepted)
	state = s.asked("bob", "4711"+e.at(71), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
	s.ended("bob", "4711"+e.at(72), state, true, tokens.ReasonAccepted)
	state = s.asked("bob", "4711"+e.at(83), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
	s.ended("bob", "4712"+e.at(84), state, false, tokens.ReasonWrongPIN)
	s.ended("bob", "4711"+e.at(3), nil, false, tokens.ReasonWrongCode) // never back
	if got := h.token("H1"); got.Last != 73 {
		t.Errorf("%+v", got.Motion)
	}

	why, err := h.Why(ctx, h.admin, "", "alice", 20)
	if err != nil || !strings.Contains(fmt.Sprint(why), "resynchronised") {
		t.Errorf("%v, %v", why, err)
	}
	drift, err := h.Drift(ctx, h.admin, "", "T1")
	if err != nil || len(drift.Points) != 2 || !drift.Points[0].Resync || drift.Points[1].Resync {
		t.Errorf("%+v, %v", drift.Points, err)
	}
	story, _, err := h.TokenStory(ctx, h.admin, "", "T1", 0, 50)
	if err != nil || !strings.Contains(fmt.Sprint(story), "question") || !strings.Contains(fmt.Sprint(story), "by two codes in a row, which resynchronised it") {
		t.Errorf("%+v, %v", story, err)
	}
	h.intact()
}

// The question is for who typed a code that is right but for its place, and the answer is
// the very next code.
func TestTheNextCodeIsAskedForAndJudgedNarrowly(t *testing.T) {
	for name, c := range map[string]struct {
		before func(s *stage, d *device) // the attempt
		reason tokens.Reason             // of it; empty: it is asked
		after  func(s *stage, d *device, state []byte)
	}{
		"the one after the next": {after: func(s *stage, d *device, state []byte) {
			s.ended("alice", d.at(22), state, false, tokens.ReasonWrongCode)
			s.failures("alice", 2)
			s.ended("alice", d.at(21), state, false, tokens.ReasonDialogueSpent)
		}},
		"the same again": {after: func(s *stage, d *device, state []byte) {
			s.ended("alice", d.at(20), state, false, tokens.ReasonWrongCode)
		}},
		"one of the window": {after: func(s *stage, d *device, state []byte) {
			s.ended("alice", d.at(0), state, false, tokens.ReasonWrongCode)
			s.ended("alice", d.at(0), nil, true, tokens.ReasonAccepted)
		}},
		"nothing": {after: func(s *stage, d *device, state []byte) {
			s.ended("alice", "", state, false, tokens.ReasonWrongCode)
		}},
		"one far ahead asks nothing more": {after: func(s *stage, d *device, state []byte) {
			s.ended("alice", d.at(30), state, false, tokens.ReasonWrongCode)
		}},
		"two questions: the first is dead": {after: func(s *stage, d *device, state []byte) {
			second := s.asked("alice", d.at(30), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
			s.ended("alice", d.at(21), state, false, tokens.ReasonDialogueSpent)
			s.failures("alice", 2)
			s.ended("alice", d.at(31), second, true, tokens.ReasonAccepted)
		}},
		"a failure meanwhile": {after: func(s *stage, d *device, state []byte) {
			s.ended("alice", "000000", nil, false, tokens.ReasonWrongCode)
			s.ended("alice", d.at(21), state, false, tokens.ReasonDialogueSpent)
		}},
		"an accept meanwhile": {after: func(s *stage, d *device, state []byte) {
			s.ended("alice", d.at(1), nil, true, tokens.ReasonAccepted)
			s.ended("alice", d.at(21), state, false, tokens.ReasonDialogueSpent)
		}},
		"an act of the helpdesk's meanwhile": {after: func(s *stage, d *device, state []byte) {
			s.must(s.UnlockUser(ctx, s.admin, "", "alice"))
			s.ended("alice", d.at(21), state, false, tokens.ReasonDialogueSpent)
		}},
		"the token is suspended meanwhile": {after: func(s *stage, d *device, state []byte) {
			s.must(s.Suspend(ctx, s.admin, "", "H1", ""))
			s.ended("alice", d.at(21), state, false, tokens.ReasonDialogueSpent)
		}},
		"too late": {after: func(s *stage, d *device, state []byte) {
			s.clock.forward(2 * time.Minute)
			s.ended("alice", d.at(21), state, false, tokens.ReasonDialogueExpired)
			s.failures("alice", 1)
		}},
		"by another node": {after: func(s *stage, d *device, state []byte) {
			s.at = s.node(&firsts{})
			s.ended("alice", d.at(21), state, true, tokens.ReasonAccepted)
		}},
		"the sixth failure begins a wait that the answer need not keep": {
			before: func(s *stage, d *device) {
				for range 9 {
					s.says("alice", "000000", nil)
					s.clock.forward(20 * time.Second)
				}
			},
			after: func(s *stage, d *device, state []byte) {
				s.failures("alice", 10)
				s.ended("alice", d.at(21), state, true, tokens.ReasonAccepted)
				s.failures("alice", 0)
			},
		},
		"one answer, and the wait is kept by the next": {
			before: func(s *stage, d *device) {
				for range 9 {
					s.says("alice", "000000", nil)
					s.clock.forward(20 * time.Second)
				}
			},
			after: func(s *stage, d *device, state []byte) {
				s.ended("alice", "000000", state, false, tokens.ReasonWrongCode)
				s.failures("alice", 11)
				s.ended("alice", d.at(21), state, false, tokens.ReasonDialogueSpent)
				s.ended("alice", d.at(0), nil, false, tokens.ReasonThrottled)
			},
		},
		"never while throttled": {
			before: func(s *stage, d *device) {
				for range 9 {
					s.says("alice", "000000", nil)
					s.clock.forward(8 * time.Second)
				}
			},
			reason: tokens.ReasonThrottled,
		},
		"never when this failure locks": {
			before: func(s *stage, d *device) {
				for s.standing("alice").Failures < 99 {
					s.says("alice", "000000", nil)
					s.clock.forward(15 * time.Minute)
				}
			},
			reason: tokens.ReasonWrongCode,
		},
		"not of a disabled user": {
			before: func(s *stage, d *device) {
				s.must(s.SetUserState(ctx, s.admin, "", "alice", tokens.UserDisabled))
			},
			reason: tokens.ReasonDisabled,
		},
		"not with a suspended token": {
			before: func(s *stage, d *device) { s.must(s.Suspend(ctx, s.admin, "", "H1", "")) },
			reason: tokens.ReasonSuspended,
		},
		"not with a PIN that is due": {
			before: func(s *stage, d *device) { s.pin("alice", "4711", true) },
			reason: tokens.ReasonWrongCode,
		},
		"not where policies forbid it": {
			before: func(s *stage, d *device) {
				s.put(puts(item("gate", `forbid (principal, action == Watchword::Action::"verify", resource is Watchword::Token) when { resource.type == "hotp" };`)))
			},
			reason: tokens.ReasonForbidden,
		},
		"where policies forbid it meanwhile": {after: func(s *stage, d *device, state []byte) {
			s.put(puts(item("gate", `forbid (principal, action == Watchword::Action::"verify", resource is Watchword::Token) when { resource.type == "hotp" };`)))
			s.ended("alice", d.at(21), state, false, tokens.ReasonForbidden)
			s.put(tokens.PolicyEdit{Delete: []string{"gate"}})
			s.ended("alice", d.at(21), state, false, tokens.ReasonDialogueSpent)
			s.ended("alice", d.at(0), nil, true, tokens.ReasonAccepted)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			d := hotp("H1")
			h.give("alice", d)
			s := h.stage(tokens.DialogueNextCode)
			if c.before != nil {
				c.before(s, d)
			}
			typed := d.at(20)
			if u, _, err := h.ShowUser(ctx, h.admin, "", "alice"); err == nil && u.HasPIN() {
				typed = "4711" + typed
			}
			if c.reason != "" {
				s.ended("alice", typed, nil, false, c.reason)
			} else {
				c.after(s, d, s.asked("alice", typed, nil, tokens.QuestionNextCode, tokens.ReasonNextCode))
			}
			h.intact()
		})
	}
}

// Codes ahead are looked at of everybody who is not accepted, and of nobody whose client
// does not ask.
func TestLookingAheadCostsTheSameForEverybody(t *testing.T) {
	h := newHouse(t)
	d, locked := totp("T1"), totp("T2")
	h.give("alice", d)
	h.give("locked", locked)
	h.give("pinned", totp("T3"))
	h.pin("pinned", "4711", false)
	for h.standing("locked").Failures < 100 {
		h.try("locked", "000000")
		h.clock.forward(15 * time.Minute)
	}
	s := h.stage(tokens.DialogueNextCode)
	ahead := func(user, code string) int64 {
		before := h.keys.factors.Load()
		s.says(user, code, nil)
		return h.keys.factors.Load() - before
	}
	s.ended("alice", d.code(h, 0), nil, true, tokens.ReasonAccepted)
	for user, code := range map[string]string{
		"nobody": "000000", "locked": locked.code(h, 0), "alice": d.code(h, 0), "no\x00body": "000000", "pinned": "000000",
	} {
		if n := ahead(user, code); n != 23 {
			t.Errorf("%s costs %d HMACs", user, n)
		}
	}
	if n := ahead("alice", d.code(h, 15)); n != 23 {
		t.Errorf("the question costs %d HMACs", n)
	}
	s.dialogues = []tokens.Dialogue{tokens.DialoguePIN, tokens.DialogueNewPIN}
	if n := ahead("alice", d.code(h, 15)); n != 3 {
		t.Errorf("without the dialogue it costs %d HMACs", n)
	}
}

// Each of several tokens whose code it was can show the next one.
func TestTheNextCodeOfAnyTokenThatMatched(t *testing.T) {
	h := newHouse(t)
	// Two tokens with the same seed are not to be had, so the codes of two are searched
	// that are the same in the reach of both.
	found := false
	for i := 0; !found; i++ {
		a, b := hotp(fmt.Sprint("A", i)), hotp(fmt.Sprint("B", i))
		h.ship("", a, b)
		at := map[string]int64{}
		for f := int64(10); f < 60; f++ {
			at[a.at(f)] = f
		}
		for f := int64(10); f < 60 && !found; f++ {
			if _, ok := at[b.at(f)]; ok {
				found = true
				h.user("alice")
				h.must(h.Assign(ctx, h.admin, "", a.Serial, "alice"))
				h.must(h.Assign(ctx, h.admin, "", b.Serial, "alice"))
				s := h.stage(tokens.DialogueNextCode)
				state := s.asked("alice", b.at(f), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
				s.ended("alice", b.at(f+1), state, true, tokens.ReasonAccepted)
				if r := h.last(); r.Serial != b.Serial {
					t.Errorf("%+v", r)
				}
				if got := h.token(b.Serial); got.Last != f+2 {
					t.Errorf("%+v", got.Motion)
				}
				if got := h.token(a.Serial); got.Last != 0 {
					t.Errorf("the other token moved, too: %+v", got.Motion)
				}
			}
		}
		if i == 3000 {
			t.Fatal("no two tokens show the same code")
		}
	}
}

// Two codes of a token in a row do at one go what the question does, where the client
// cannot ask.
func TestTwoCodesAtOnce(t *testing.T) {
	h := newHouse(t)
	d, e, p := totp("T1"), hotp("H1"), totp("T2")
	d.Digits = 8
	h.give("alice", d)
	h.give("bob", e)
	h.give("carol", p)
	h.pin("carol", "4711", false)
	s := h.join(tokens.DialogueNextCode)
	s.ended("alice", d.code(h, 15), nil, false, tokens.ReasonWrongCode) // nobody is asked
	s.ended("alice", d.code(h, 15)+d.code(h, 17), nil, false, tokens.ReasonWrongCode)
	s.ended("alice", d.code(h, 16)+d.code(h, 15), nil, false, tokens.ReasonWrongCode)
	s.ended("alice", d.code(h, 22)+d.code(h, 23), nil, false, tokens.ReasonWrongCode)
	s.failures("alice", 4)
	s.ended("alice", d.code(h, 15)+d.code(h, 16), nil, true, tokens.ReasonAccepted)
	if last := h.last(); detail(last, "joined") != "next_code" || last.Serial != "T1" {
		t.Errorf("%+v", last)
	}
	if got := h.token("T1"); got.Drift != 16 {
		t.Errorf("%+v", got.Motion)
	}
	s.failures("alice", 0)
	s.ended("alice", d.code(h, 15)+d.code(h, 16), nil, false, tokens.ReasonReplay)
	s.failures("alice", 0)
	s.ended("alice", d.code(h, 17), nil, true, tokens.ReasonAccepted)

	s.ended("bob", e.at(59)+e.at(60), nil, true, tokens.ReasonAccepted)
	s.ended("bob", e.at(62)+e.at(63), nil, true, tokens.ReasonAccepted) // in the window
	s.ended("bob", e.at(70)+e.at(71), nil, true, tokens.ReasonAccepted)
	s.ended("bob", e.at(70)+e.at(71), nil, false, tokens.ReasonWrongCode)
	s.ended("bob", e.at(72), nil, true, tokens.ReasonAccepted)

	s.ended("carol", p.code(h, 9)+p.code(h, 10), nil, false, tokens.ReasonWrongCode)
	s.ended("carol", "4712"+p.code(h, 9)+p.code(h, 10), nil, false, tokens.ReasonWrongCode)
	s.ended("carol", "4711"+p.code(h, 9)+p.code(h, 10), nil, true, tokens.ReasonAccepted)
	h.intact()
	if asked := h.records("verify", "challenge"); len(asked) > 0 {
		t.Errorf("somebody was asked: %+v", asked)
	}
}
