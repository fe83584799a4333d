package tokens_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens"
)

// Two codes in a row whose PIN is due use up the second of them, and not one that the
// token left behind long ago.
func TestTwoCodesAtOnceWithAPINThatIsDueMoveTheTokenForward(t *testing.T) {
	h := newHouse(t)
	d, e := hotp("H1"), totp("T1")
	h.give("alice", d)
	h.give("bob", e)
	h.pin("alice", "4711", true)
	h.pin("bob", "4711", true)
	s := h.stage(tokens.DialogueNewPIN)
	s.joined = []tokens.Dialogue{tokens.DialogueNextCode}
	state := s.asked("alice", "4711"+d.at(30)+d.at(31), nil, tokens.QuestionNewPIN, tokens.ReasonPINDue)
	if got := h.token("H1"); got.Last != 32 {
		t.Errorf("%+v", got.Motion)
	}
	if last := h.last(); detail(last, "factor") != "31" || detail(last, "joined") != "next_code" {
		t.Errorf("%+v", last)
	}
	state = s.asked("alice", "8051", state, tokens.QuestionNewPINAgain, tokens.ReasonPINDue)
	s.ended("alice", "8051", state, true, tokens.ReasonAccepted)
	s.ended("alice", "8051"+d.at(31), nil, false, tokens.ReasonReplay)
	s.ended("alice", "8051"+d.at(32), nil, true, tokens.ReasonAccepted)

	s.asked("bob", "4711"+e.code(h, 9)+e.code(h, 10), nil, tokens.QuestionNewPIN, tokens.ReasonPINDue)
	if got := h.token("T1"); got.Drift != 10 || got.Last != h.clock.now().Unix()/30+10 {
		t.Errorf("%+v", got.Motion)
	}
	h.intact()
}

// Whoever types nothing, or the PIN alone, has not guessed, and that while the clocks
// differ nobody can be asked is no failure of theirs.
func TestNoFailureIsCountedOfWhoCouldNotBeAsked(t *testing.T) {
	h := newHouse(t)
	d := hotp("H1")
	h.give("alice", d)
	h.pin("alice", "4711", false)
	s := h.stage(everyDialogue...)
	h.db.edit(func(ed *editor) { ed.clock = func() time.Time { return h.clock.now().Add(6 * time.Second) } })
	for _, typed := range []string{"", "4711", "4711000000"} {
		if r, err := h.Verify(ctx, h.vpn, s.attempt("alice", typed, nil)); !errors.Is(err, tokens.ErrUnavailable) || r.Accept || r.Challenge != nil {
			t.Errorf("%q: %+v, %v", typed, r, err)
		}
	}
	s.failures("alice", 1) // of the last
}

// Whichever call to the HSM fails under an answer, nothing is accepted then; and the
// question is good for one accept at most, whoever asks again.
func TestAFaultUnderAnAnswerAcceptsNothing(t *testing.T) {
	for name, c := range map[string]struct {
		dialogues, joined []tokens.Dialogue
		due               bool
		begin             func(s *stage, d *device) []byte
		answer            func(d *device) string
	}{
		"a code": {
			dialogues: everyDialogue,
			begin: func(s *stage, d *device) []byte {
				return s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
			},
			answer: func(d *device) string { return d.at(0) },
		},
		"the next code": {
			dialogues: everyDialogue,
			begin: func(s *stage, d *device) []byte {
				return s.asked("alice", "4711"+d.at(30), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
			},
			answer: func(d *device) string { return d.at(31) },
		},
		"a new PIN": {
			dialogues: everyDialogue, due: true,
			begin: func(s *stage, d *device) []byte {
				state := s.asked("alice", "4711"+d.at(0), nil, tokens.QuestionNewPIN, tokens.ReasonPINDue)
				return s.asked("alice", "8051", state, tokens.QuestionNewPINAgain, tokens.ReasonPINDue)
			},
			answer: func(d *device) string { return "8051" },
		},
		"two codes at once": {
			joined: []tokens.Dialogue{tokens.DialogueNextCode},
			answer: func(d *device) string { return "4711" + d.at(30) + d.at(31) },
		},
		"a new PIN at once": {
			joined: []tokens.Dialogue{tokens.DialogueNewPIN}, due: true,
			answer: func(d *device) string { return "4711" + d.at(0) + "80518051" },
		},
	} {
		t.Run(name, func(t *testing.T) {
			for calls := int64(0); ; calls++ {
				h := newHouse(t)
				d := hotp("H1")
				h.give("alice", d)
				h.pin("alice", "4711", c.due)
				h.put(puts(item("gate", `forbid (principal, action == Watchword::Action::"verify", resource is Watchword::Token) when { resource.type == "totp" };`)))
				s := h.stage(c.dialogues...)
				s.joined = c.joined
				var state []byte
				if c.begin != nil {
					state = c.begin(s, d)
				}
				accepted := 0
				h.keys.after(calls)
				r, err := h.Verify(ctx, h.vpn, s.attempt("alice", c.answer(d), state))
				h.keys.after(-1)
				done := err == nil && r.Accept
				switch {
				case done:
					accepted++
				case err == nil:
					t.Errorf("after %d calls: %+v, %+v", calls, r, h.last())
				case !errors.Is(err, tokens.ErrUnavailable) || r.Accept || r.Challenge != nil:
					t.Errorf("after %d calls: %+v, %v", calls, r, err)
				}
				for range 3 {
					if r := s.says("alice", c.answer(d), state); r.Accept {
						accepted++
					}
				}
				if accepted > 1 {
					t.Errorf("after %d calls: %d accepts", calls, accepted)
				}
				h.acceptedOnce()
				h.intact()
				if done {
					if calls < 1 {
						t.Errorf("it takes %d calls", calls)
					}
					return
				}
			}
		})
	}
}

// Whatever is asked and whatever may be joined: no token goes back, no code is accepted
// twice, nobody is let in without the PIN, and nothing but an accept changes a PIN.
func TestNoMixtureOfDialoguesLetsATokenGoBack(t *testing.T) {
	accepts, asks := 0, map[tokens.Question]int{}
	rapid.Check(t, func(rt *rapid.T) {
		h := newHouse(t, func(c *tokens.Config) { c.Throttle = tokens.Throttle{Free: 1 << 30, LockAt: 1 << 30} })
		devices := []*device{hotp("H1"), totp("T1")}
		h.give("alice", devices...)
		pin := "4711"
		h.pin("alice", pin, false)
		s := h.stage()
		var states [][]byte
		for range rapid.IntRange(10, 60).Draw(rt, "attempts") {
			s.dialogues, s.joined = nil, nil
			for _, x := range everyDialogue {
				switch rapid.IntRange(0, 3).Draw(rt, "mode") {
				case 0:
					s.joined = append(s.joined, x)
				case 1, 2:
					s.dialogues = append(s.dialogues, x)
				}
			}
			if rapid.IntRange(0, 3).Draw(rt, "due") == 0 {
				h.pin("alice", pin, true)
			}
			d := rapid.SampledFrom(devices).Draw(rt, "device")
			was := h.token(d.Serial)
			base := was.Last
			if d.Type == tokens.TOTP {
				base = h.clock.now().Unix()/30 + int64(was.Drift)
			}
			f := base + int64(rapid.OneOf(rapid.IntRange(0, 1), rapid.IntRange(0, 25), rapid.IntRange(-3, 70)).Draw(rt, "ahead"))
			f = max(f, 0)
			typed, right := "", rapid.SampledFrom([]string{pin, pin, pin, "9999", ""}).Draw(rt, "PIN")
			next := rapid.SampledFrom([]string{"8051", "8052", pin, "1234"}).Draw(rt, "next")
			switch rapid.IntRange(0, 7).Draw(rt, "typed") {
			case 0:
				typed = right
			case 1, 2:
				typed = right + d.at(f)
			case 3:
				typed = d.at(f)
			case 4:
				typed = right + d.at(f) + d.at(f+1)
			case 5:
				typed = right + d.at(f) + next + next
			case 6:
				typed = next
			case 7:
				typed = d.at(f) + d.at(f+1)
			}
			var state []byte
			if len(states) > 0 && rapid.IntRange(0, 3).Draw(rt, "answers") > 0 {
				state = states[len(states)-1-rapid.IntRange(0, min(1, len(states)-1)).Draw(rt, "which")]
			}
			if typed == "" && !slices.Contains(s.dialogues, tokens.DialoguePIN) && (state == nil || len(s.dialogues) == 0) {
				continue
			}
			before := map[string]int64{"H1": h.token("H1").Last, "T1": h.token("T1").Last}
			pinned := len(h.records("user.pin.change", "ok"))
			r, err := h.Verify(ctx, h.vpn, s.attempt("alice", typed, state))
			if err != nil {
				rt.Fatalf("%q with %v, %v: %v", typed, s.dialogues, s.joined, err)
			}
			for serial, last := range before {
				now := h.token(serial).Last
				if now < last || now != last && !r.Accept && (r.Challenge == nil || r.Challenge.Question != tokens.QuestionNewPIN) {
					rt.Fatalf("%q with %v, %v moves %s from %d to %d: %+v, %+v", typed, s.dialogues, s.joined, serial, last, now, r, h.last())
				}
				if now > last+62 {
					if serial == "H1" || last > 0 {
						rt.Fatalf("%q moves %s from %d to %d", typed, serial, last, now)
					}
				}
			}
			if changed := len(h.records("user.pin.change", "ok")) > pinned; changed {
				if !r.Accept {
					rt.Fatalf("%q changes the PIN: %+v", typed, r)
				}
				for _, p := range []string{"8051", "8052"} {
					if len(typed) >= 4 && typed[len(typed)-4:] == p {
						pin = p
					}
				}
			}
			if r.Accept {
				accepts++
			}
			if r.Challenge != nil {
				states = append(states, r.Challenge.State)
				asks[r.Challenge.Question]++
			}
			h.clock.forward(time.Duration(rapid.IntRange(0, 40).Draw(rt, "seconds")) * time.Second)
		}
		h.acceptedOnce()
		h.intact()
	})
	if accepts == 0 || len(asks) < 5 {
		t.Errorf("the attempts say nothing: %d accepts, and asked were %v", accepts, asks)
	}
}

// What comes in one batch is judged one after another all the same: one answer to a
// State, and a next code only if nothing was done to the user since it was asked for.
func TestAnswersInOneBatchAreJudgedOneAfterAnother(t *testing.T) {
	type try struct {
		typed    string
		answers  bool
		accepted bool
		reason   tokens.Reason
	}
	for name, c := range map[string]struct {
		begin func(s *stage, d *device) []byte
		tries func(d *device) []try
	}{
		"one State with two codes that are right": {
			begin: func(s *stage, d *device) []byte {
				return s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
			},
			tries: func(d *device) []try {
				return []try{{d.at(0), true, true, tokens.ReasonAccepted}, {d.at(1), true, false, tokens.ReasonDialogueSpent}, {"4711" + d.at(1), false, true, tokens.ReasonAccepted}}
			},
		},
		"a wrong answer, and the right one": {
			begin: func(s *stage, d *device) []byte {
				return s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
			},
			tries: func(d *device) []try {
				return []try{{"000000", true, false, tokens.ReasonWrongCode}, {d.at(0), true, false, tokens.ReasonDialogueSpent}}
			},
		},
		"a next code after a failure": {
			begin: func(s *stage, d *device) []byte {
				return s.asked("alice", "4711"+d.at(30), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
			},
			tries: func(d *device) []try {
				return []try{{"4711000000", false, false, tokens.ReasonPINFirst}, {d.at(31), true, false, tokens.ReasonDialogueSpent}}
			},
		},
		"a next code after an accept": {
			begin: func(s *stage, d *device) []byte {
				return s.asked("alice", "4711"+d.at(30), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
			},
			tries: func(d *device) []try {
				return []try{{"4711" + d.at(0), false, true, tokens.ReasonAccepted}, {d.at(31), true, false, tokens.ReasonDialogueSpent}}
			},
		},
		"a next code, twice, and what was before it": {
			begin: func(s *stage, d *device) []byte {
				return s.asked("alice", "4711"+d.at(30), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
			},
			tries: func(d *device) []try {
				return []try{
					{"4711", false, false, tokens.ReasonPINFirst}, {d.at(31), true, true, tokens.ReasonAccepted},
					{d.at(31), true, false, tokens.ReasonDialogueSpent}, {"4711" + d.at(5), false, false, tokens.ReasonPINFirst},
				}
			},
		},
		"a question for the next code, and a code behind it": {
			tries: func(d *device) []try {
				return []try{{"4711" + d.at(30), false, false, tokens.ReasonNextCode}, {"4711" + d.at(0), false, true, tokens.ReasonAccepted}}
			},
		},
		"a new PIN twice, and the old one": {
			begin: func(s *stage, d *device) []byte {
				s.pin("alice", "4711", true)
				state := s.asked("alice", "4711"+d.at(0), nil, tokens.QuestionNewPIN, tokens.ReasonPINDue)
				return s.asked("alice", "8051", state, tokens.QuestionNewPINAgain, tokens.ReasonPINDue)
			},
			tries: func(d *device) []try {
				return []try{
					{"8051", true, true, tokens.ReasonAccepted}, {"8051", true, false, tokens.ReasonDialogueSpent},
					{"4711" + d.at(1), false, false, tokens.ReasonPINFirst}, {"8051" + d.at(1), false, true, tokens.ReasonAccepted},
				}
			},
		},
		"the PIN before the question is another one by then": {
			begin: func(s *stage, d *device) []byte {
				s.pin("alice", "4711", true)
				return s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
			},
			tries: func(d *device) []try {
				return []try{{"4711" + d.at(0) + "80518051", false, true, tokens.ReasonAccepted}, {d.at(1), true, false, tokens.ReasonWrongPIN}}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			d, other := hotp("H1"), hotp("H2")
			h.give("alice", d)
			h.give("bob", other)
			h.pin("alice", "4711", false)
			s := h.stage(everyDialogue...)
			var state []byte
			if c.begin != nil {
				state = c.begin(s, d)
			}
			s.joined = []tokens.Dialogue{tokens.DialogueNewPIN}
			tries := c.tries(d)
			heal := h.keys.hang()
			told := make(chan string, 1)
			h.Ask(ctx, h.vpn, tokens.Attempt{User: "bob", Code: other.at(0)}, func(r tokens.Result, err error) { told <- fmt.Sprint(r.Accept, err) })
			time.Sleep(20 * time.Millisecond) // it is being computed
			results := make([]chan tokens.Result, len(tries))
			for i, x := range tries {
				results[i] = make(chan tokens.Result, 1)
				var with []byte
				if x.answers {
					with = state
				}
				h.Ask(ctx, h.vpn, s.attempt("alice", x.typed, with), func(r tokens.Result, err error) {
					if err != nil {
						t.Error(err)
					}
					results[i] <- r
				})
			}
			heal()
			if got := <-told; got != "true <nil>" {
				t.Error(got)
			}
			for i, x := range tries {
				if r := <-results[i]; r.Accept != x.accepted {
					t.Errorf("attempt %d: %+v", i+1, r)
				}
			}
			var reasons []string
			list, _, err := h.mem.Records(ctx, tokens.RecordQuery{Action: "verify", User: "alice", Limit: len(tries)})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range slices.Backward(list) {
				reasons = append(reasons, r.Reason)
			}
			for i, x := range tries {
				if i >= len(reasons) || reasons[i] != string(x.reason) {
					t.Errorf("attempt %d: %v, want %s", i+1, reasons, x.reason)
				}
			}
			h.acceptedOnce()
			h.intact()
		})
	}
}

// What is typed at once costs the same whoever it is for, and whether the PIN is right.
func TestJoinedAnswersCostTheSameForEverybody(t *testing.T) {
	h := newHouse(t)
	for _, user := range []string{"alice", "without", "locked", "disabled", "suspended", "due"} {
		h.give(user, totp("T-"+user))
		h.pin(user, "4711", user == "due")
	}
	h.must(h.SetPIN(ctx, h.admin, "", "without", "", false))
	for h.standing("locked").Failures < 100 {
		h.try("locked", "4711000000")
		h.clock.forward(15 * time.Minute)
	}
	h.must(h.SetUserState(ctx, h.admin, "", "disabled", tokens.UserDisabled))
	h.must(h.Suspend(ctx, h.admin, "", "T-suspended", ""))
	h.user("tokenless")
	s := h.join(tokens.DialogueNextCode, tokens.DialogueNewPIN)
	type cost struct{ factors, pins, bindings, loads int64 }
	now := func() cost {
		return cost{h.keys.factors.Load(), h.keys.pins.Load(), h.keys.bindings.Load(), h.db.loads.Load()}
	}
	for _, typed := range []string{
		"000000", "4711000000", "4712000000", "4711000000000001", "000000000001", "471100000080518051", "471200000080518051",
		"47110000001111111111111111", "4711000000000000000000000000", "80518051", "0000",
	} {
		var first *cost
		for _, user := range []string{"alice", "nobody", "without", "locked", "disabled", "suspended", "due", "tokenless", "no\x00body"} {
			was := now()
			if r := s.says(user, typed, nil); r.Accept || r.Challenge != nil {
				t.Errorf("%s: %+v", user, r)
			}
			is := now()
			got := cost{is.factors - was.factors, is.pins - was.pins, is.bindings - was.bindings, is.loads - was.loads}
			if first == nil {
				first = &got
			}
			if got.factors != first.factors || got.pins != first.pins || got.bindings != first.bindings || got.loads != first.loads {
				t.Errorf("%q of %s costs %+v, and %+v the first", typed, user, got, *first)
			}
		}
		h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
		h.must(h.UnlockUser(ctx, h.admin, "", "without"))
		h.must(h.UnlockUser(ctx, h.admin, "", "due"))
	}
}

// A row that was altered is no way into a dialogue, whatever it says; and the attempt
// that met it tells security so, though it ended in a question.
func TestAnAlteredRowIsNoWayIntoADialogue(t *testing.T) {
	for name, edit := range map[string]func(t *tokens.Token){
		"period zero":       func(t *tokens.Token) { t.Period = 0 },
		"nine digits":       func(t *tokens.Token) { t.Digits = 9 },
		"no digits":         func(t *tokens.Token) { t.Digits = 0 },
		"minus six digits":  func(t *tokens.Token) { t.Digits = -6 },
		"a thousand digits": func(t *tokens.Token) { t.Digits = 1000 },
		"another type":      func(t *tokens.Token) { t.Type = tokens.HOTP },
		"another owner":     func(t *tokens.Token) { t.OwnerID = 4711 },
		"no binding":        func(t *tokens.Token) { t.Binding = nil },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			d := totp("T1")
			h.give("alice", d)
			h.pin("alice", "4711", false)
			s := h.stage(everyDialogue...)
			s.joined = everyDialogue
			h.db.edit(func(e *editor) { e.token = edit })
			for _, typed := range []string{"4711", "4711" + d.code(h, 0), "4711" + d.code(h, 9), "4711" + d.code(h, 9) + d.code(h, 10), "4711" + d.code(h, 0) + "80518051"} {
				state := s.asked("alice", typed, nil, tokens.QuestionCode, tokens.ReasonPINFirst)
				if last := h.last(); detail(last, "first") != "tampered" {
					t.Errorf("%+v", last)
				}
				s.ended("alice", typed, state, false, tokens.ReasonTampered)
			}
			s.dialogues = nil
			s.ended("alice", "4711"+d.code(h, 0)+"80518051", nil, false, tokens.ReasonTampered)
			s.failures("alice", 0)
		})
	}
}
