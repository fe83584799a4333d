package tokens_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
)

func TestAPINThatIsDueIsChangedInADialogue(t *testing.T) {
	h := newHouse(t)
	d, other := totp("T1"), hotp("H1")
	h.give("alice", d, other)
	h.pin("alice", "4711", true)
	h.ends("alice", "4711"+d.code(h, 0), false, tokens.ReasonPINDue)
	s := h.stage(tokens.DialogueNewPIN)
	s.ended("alice", "0000"+d.code(h, 0), nil, false, tokens.ReasonWrongPIN)
	s.failures("alice", 1)

	state := s.asked("alice", "4711"+d.code(h, 0), nil, tokens.QuestionNewPIN, tokens.ReasonPINDue)
	if last := h.last(); last.Serial != "T1" || detail(last, "factor") == "" {
		t.Errorf("%+v", last)
	}
	s.failures("alice", 1) // neither a failure nor an accept
	// The code is used up: it opens no other dialogue.
	s.ended("alice", "4711"+d.code(h, 0), nil, false, tokens.ReasonReplay)

	state = s.asked("alice", "1234", state, tokens.QuestionBadPIN, tokens.ReasonPINDue)
	state = s.asked("alice", "4711", state, tokens.QuestionBadPIN, tokens.ReasonPINDue) // the one that there is
	again := s.asked("alice", "8051", state, tokens.QuestionNewPINAgain, tokens.ReasonPINDue)
	s.ended("alice", "8052", state, false, tokens.ReasonDialogueSpent)
	again = s.asked("alice", "8050", again, tokens.QuestionNewPIN, tokens.ReasonPINDue) // a slip
	again = s.asked("alice", "8051", again, tokens.QuestionNewPINAgain, tokens.ReasonPINDue)
	before := h.standing("alice").Version
	s.ended("alice", "8051", again, true, tokens.ReasonAccepted)
	if got := h.standing("alice"); got.Version != before+1 || got.Failures != 0 {
		t.Errorf("%+v after %d", got, before)
	}
	s.ended("alice", "8051", again, false, tokens.ReasonDialogueSpent)
	list := h.records("user.pin.change", "ok")
	if len(list) != 1 || list[0].User != "alice" || list[0].Serial != "T1" {
		t.Errorf("%+v", list)
	}
	accepts := h.records("verify", "accept")
	if len(accepts) != 1 || detail(accepts[0], "dialogue") != "new_pin" || detail(accepts[0], "factor") != "" {
		t.Errorf("%+v", accepts)
	}
	for _, secret := range []string{"4711", "8051", "8050", "1234"} {
		records, _, err := h.mem.Records(ctx, tokens.RecordQuery{Limit: 1000})
		if err != nil || strings.Contains(fmt.Sprint(records), secret) {
			t.Errorf("the audit holds a PIN, %v", err)
		}
	}
	// All tokens follow the new PIN.
	h.ends("alice", "8051"+d.code(h, 1), true, tokens.ReasonAccepted)
	h.ends("alice", "8051"+other.at(0), true, tokens.ReasonAccepted)
	h.ends("alice", "4711"+other.at(1), false, tokens.ReasonWrongPIN)
	h.intact()
}

func TestADialogueForANewPINEnds(t *testing.T) {
	forbids := func(action string) tokens.PolicyEdit {
		return puts(item("gate", `forbid (principal, action == Watchword::Action::"`+action+`", resource);`))
	}
	for name, c := range map[string]struct {
		act    func(s *stage)
		answer string
		reason tokens.Reason
		accept bool
	}{
		"well":                          {answer: "8051", accept: true, reason: tokens.ReasonAccepted},
		"not while locked":              {act: func(s *stage) { s.must(s.SetUserState(ctx, s.admin, "", "alice", tokens.UserDisabled)) }, answer: "8051", reason: tokens.ReasonDisabled},
		"not by a token that is lost":   {act: func(s *stage) { s.must(s.MarkLost(ctx, s.admin, "", "T1", "")) }, answer: "8051", reason: tokens.ReasonLost},
		"not by one that was taken":     {act: func(s *stage) { s.must(s.Unassign(ctx, s.admin, "", "T1", "")) }, answer: "8051", reason: tokens.ReasonNoToken},
		"not if the PIN was set anew":   {act: func(s *stage) { s.pin("alice", "4711", true) }, answer: "8051", reason: tokens.ReasonDialogueSpent},
		"not if it is no longer due":    {act: func(s *stage) { s.pin("alice", "4711", false) }, answer: "8051", reason: tokens.ReasonDialogueSpent},
		"not if there is none":          {act: func(s *stage) { s.must(s.SetPIN(ctx, s.admin, "", "alice", "", false)) }, answer: "8051", reason: tokens.ReasonDialogueSpent},
		"not too late":                  {act: func(s *stage) { s.clock.forward(2 * time.Minute) }, answer: "8051", reason: tokens.ReasonDialogueExpired},
		"not while throttled":           {act: func(s *stage) { s.throttle("alice") }, answer: "8051", reason: tokens.ReasonThrottled},
		"not where verify is forbidden": {act: func(s *stage) { s.put(forbids("verify")) }, answer: "8051", reason: tokens.ReasonForbidden},
		"not where the act is":          {act: func(s *stage) { s.put(forbids("user.pin.change")) }, answer: "8051", reason: tokens.ReasonForbidden},
		"on another node":               {act: func(s *stage) { s.at = s.node(&firsts{}) }, answer: "8051", accept: true, reason: tokens.ReasonAccepted},
		"with another token meanwhile":  {act: func(s *stage) { s.give("alice", hotp("H9")) }, answer: "8051", accept: true, reason: tokens.ReasonAccepted},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			d := totp("T1")
			h.give("alice", d)
			h.pin("alice", "4711", true)
			s := h.stage(tokens.DialogueNewPIN)
			state := s.asked("alice", "4711"+d.code(h, 0), nil, tokens.QuestionNewPIN, tokens.ReasonPINDue)
			state = s.asked("alice", "8051", state, tokens.QuestionNewPINAgain, tokens.ReasonPINDue)
			if c.act != nil {
				c.act(s)
			}
			s.ended("alice", c.answer, state, c.accept, c.reason)
			if u, _, err := h.ShowUser(ctx, h.admin, "", "alice"); err != nil || c.accept == u.PINDue && c.accept {
				t.Errorf("%+v, %v", u, err)
			}
			if n := len(h.records("user.pin.change", "ok")); (n == 1) != c.accept {
				t.Errorf("the PIN was changed %d times", n)
			}
			h.intact()
		})
	}
}

// throttle has a user fail until there is a wait.
func (h *house) throttle(user string) {
	for range 9 {
		h.try(user, "4711000000")
	}
}

func TestNewPINsThatAreNoGoodAreAskedForThreeTimes(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.pin("alice", "4711", true)
	s := h.stage(tokens.DialogueNewPIN)
	state := s.asked("alice", "4711"+d.code(h, 0), nil, tokens.QuestionNewPIN, tokens.ReasonPINDue)
	for _, bad := range []string{"", "1111", strings.Repeat("x", 97)} {
		state = s.asked("alice", bad, state, tokens.QuestionBadPIN, tokens.ReasonPINDue)
	}
	s.ended("alice", "4711", state, false, tokens.ReasonPINSame)
	s.ended("alice", "8051", state, false, tokens.ReasonDialogueSpent)
	s.failures("alice", 0)

	h.clock.forward(time.Minute)
	state = s.asked("alice", "4711"+d.code(h, 0), nil, tokens.QuestionNewPIN, tokens.ReasonPINDue)
	for range 3 {
		state = s.asked("alice", "8051", state, tokens.QuestionNewPINAgain, tokens.ReasonPINDue)
		state = s.asked("alice", "8052", state, tokens.QuestionNewPIN, tokens.ReasonPINDue)
	}
	state = s.asked("alice", "8051", state, tokens.QuestionNewPINAgain, tokens.ReasonPINDue)
	s.ended("alice", "8052", state, false, tokens.ReasonPINDiffers)
}

// The questions follow one another: the PIN, the code far ahead, the next one; or the
// PIN, the code, and a new PIN.
func TestOneDialogueLeadsToAnother(t *testing.T) {
	h := newHouse(t)
	d := hotp("H1")
	h.give("alice", d)
	h.pin("alice", "4711", false)
	s := h.stage(everyDialogue...)
	state := s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	state = s.asked("alice", d.at(30), state, tokens.QuestionNextCode, tokens.ReasonNextCode)
	s.ended("alice", d.at(31), state, true, tokens.ReasonAccepted)

	h.pin("alice", "4711", true)
	state = s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	state = s.asked("alice", d.at(32), state, tokens.QuestionNewPIN, tokens.ReasonPINDue)
	state = s.asked("alice", "8051", state, tokens.QuestionNewPINAgain, tokens.ReasonPINDue)
	s.ended("alice", "8051", state, true, tokens.ReasonAccepted)
	h.ends("alice", "8051"+d.at(33), true, tokens.ReasonAccepted)

	// Where the policies forbid it, everybody is asked for the code, and then turned away.
	h.put(puts(item("gate", `forbid (principal, action == Watchword::Action::"verify", resource);`)))
	state = s.asked("alice", "8051"+d.at(34), nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	if first := detail(h.last(), "first"); first != "forbidden" {
		t.Errorf("%+v", h.last())
	}
	s.ended("alice", "8051"+d.at(34), state, false, tokens.ReasonForbidden)
	s.failures("alice", 0)
	h.put(tokens.PolicyEdit{Delete: []string{"gate"}})
	h.ends("alice", "8051"+d.at(34), true, tokens.ReasonAccepted)
	h.intact()
}

// A PIN is changed by what is typed at once, where the client cannot ask.
func TestANewPINAtOnce(t *testing.T) {
	h := newHouse(t)
	d, free := hotp("H1"), hotp("H2")
	h.give("alice", d)
	h.give("bob", free)
	h.pin("alice", "4711", true)
	s := h.join(tokens.DialogueNewPIN)
	s.ended("alice", "4711"+d.at(0), nil, false, tokens.ReasonPINDue)
	s.ended("alice", "4712"+d.at(0)+"80518051", nil, false, tokens.ReasonWrongCode)
	s.ended("alice", "4711"+d.at(0)+"80518052", nil, false, tokens.ReasonWrongCode)
	s.ended("alice", "4711"+d.at(0)+"8051", nil, false, tokens.ReasonWrongCode)
	s.failures("alice", 3)
	s.ended("alice", "4711"+d.at(0)+"12341234", nil, false, tokens.ReasonRule)
	s.ended("alice", "4711"+d.at(0)+"47114711", nil, false, tokens.ReasonPINSame)
	s.failures("alice", 3)
	s.ended("alice", "4711"+d.at(0)+"80518051", nil, true, tokens.ReasonAccepted)
	s.failures("alice", 0)
	if r := h.records("verify", "accept"); len(r) != 1 || detail(r[0], "joined") != "new_pin" || detail(r[0], "factor") != "0" {
		t.Errorf("%+v", r)
	}
	s.ended("alice", "4711"+d.at(0)+"80518051", nil, false, tokens.ReasonWrongCode)
	s.ended("alice", "8051"+d.at(0), nil, false, tokens.ReasonReplay)
	s.ended("alice", "8051"+d.at(1), nil, true, tokens.ReasonAccepted)
	// It need not be due; and one whose halves are the same, and a long one.
	r := tokens.DefaultRules()
	r.PIN.Sequences = true
	h.must(h.SetRules(ctx, h.admin, "", -1, r))
	s.ended("alice", "8051"+d.at(2)+"4821482148214821", nil, true, tokens.ReasonAccepted)
	long := strings.Repeat("äöü€", 8)
	pin := "4821"
	if s.says("alice", pin+d.at(3), nil).Accept {
		// The shorter of the two PINs that it could mean was taken: PIN and code were right for that alone.
		t.Log("4821 was taken")
	} else {
		pin = "48214821"
		s.ended("alice", pin+d.at(3), nil, true, tokens.ReasonAccepted)
	}
	s.ended("alice", pin+d.at(4)+long+long, nil, true, tokens.ReasonAccepted)
	h.ends("alice", long+d.at(5), true, tokens.ReasonAccepted)

	s.ended("bob", free.at(0)+"80518051", nil, false, tokens.ReasonWrongCode) // there is none to change
	h.intact()
}
