package tokens_test

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

var everyDialogue = []tokens.Dialogue{tokens.DialoguePIN, tokens.DialogueNextCode, tokens.DialogueNewPIN}

// stage is a house whose RADIUS client has dialogues.
type stage struct {
	*house
	by        tokens.Principal
	dialogues []tokens.Dialogue
	joined    []tokens.Dialogue
	at        *tokens.Service // the node that is asked
}

func (h *house) stage(dialogues ...tokens.Dialogue) *stage {
	return &stage{house: h, by: h.vpn, dialogues: dialogues, at: h.Service}
}

// join is a house whose RADIUS client has answers joined.
func (h *house) join(joined ...tokens.Dialogue) *stage {
	return &stage{house: h, by: h.vpn, joined: joined, at: h.Service}
}

func (s *stage) attempt(user, code string, state []byte) tokens.Attempt {
	return tokens.Attempt{User: user, Code: code, Transport: "radius", State: state, Dialogues: s.dialogues, Joined: s.joined}
}

// says is an attempt, or the answer to a State.
func (s *stage) says(user, code string, state []byte) tokens.Result {
	s.Helper()
	r, err := s.at.Verify(ctx, s.by, s.attempt(user, code, state))
	if err != nil {
		s.Fatalf("%s with %q: %v", user, code, err)
	}
	if r.Challenge != nil && (r.Accept || r.Serial != "" || len(r.Challenge.State) == 0 || len(r.Challenge.State) > 253) {
		s.Fatalf("%s with %q: %+v, %+v", user, code, r, r.Challenge)
	}
	if r.Challenge != nil && !onlyLetters.Match(r.Challenge.State) {
		s.Fatalf("%s with %q: the State has other characters than gateways give back: %q", user, code, r.Challenge.State)
	}
	return r
}

var onlyLetters = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// asked says that an attempt ends in a question, and answers its State.
func (s *stage) asked(user, code string, state []byte, q tokens.Question, reason tokens.Reason) []byte {
	s.Helper()
	r := s.says(user, code, state)
	last := s.last()
	if r.Accept || r.Challenge == nil || r.Challenge.Question != q {
		s.Fatalf("%s with %q: %+v, audited as %+v; want the question %s", user, code, r, last, q)
	}
	if last.Outcome != "challenge" || last.Reason != string(reason) || detail(last, "question") != string(q) {
		s.Errorf("%s with %q is audited as %+v; want %s", user, code, last, reason)
	}
	return r.Challenge.State
}

// ended says that an attempt is accepted or rejected, and why.
func (s *stage) ended(user, code string, state []byte, accept bool, reason tokens.Reason) {
	s.Helper()
	r := s.says(user, code, state)
	outcome := map[bool]string{true: "accept", false: "reject"}[accept]
	list, _, err := s.mem.Records(ctx, tokens.RecordQuery{Action: "verify", Limit: 10})
	list = slices.DeleteFunc(list, func(r audit.Record) bool { return detail(r, "attempts") != "" }) // of a flood before
	if err != nil || len(list) == 0 {
		s.Fatal("no audit of it", err)
	}
	if r.Challenge != nil || r.Accept != accept || accept != (r.Serial != "") || list[0].Outcome != outcome || list[0].Reason != string(reason) {
		s.Errorf("%s with %q: %+v, audited as %+v; want %s, %s", user, code, r, list[0], outcome, reason)
	}
}

func (s *stage) failures(user string, want int) {
	s.Helper()
	if got := s.standing(user).Failures; got != want {
		s.Errorf("%s has %d failures, want %d", user, got, want)
	}
}

func TestThePINIsAskedForFirst(t *testing.T) {
	h := newHouse(t)
	d, free := totp("T1"), hotp("H1")
	h.give("alice", d)
	h.give("bob", free)
	h.pin("alice", "4711", false)
	s := h.stage(tokens.DialoguePIN)

	state := s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.failures("alice", 0)
	s.ended("alice", d.code(h, 0), state, true, tokens.ReasonAccepted)
	if detail(h.last(), "dialogue") != "pin" {
		t.Errorf("%+v", h.last())
	}
	s.ended("alice", d.code(h, 1), state, false, tokens.ReasonDialogueSpent)
	s.failures("alice", 0)

	// What was wrong before stays wrong, whatever follows, and counts twice: each was a guess.
	h.clock.forward(2 * time.Minute)
	state = s.asked("alice", "4712", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.failures("alice", 1)
	s.ended("alice", d.code(h, 0), state, false, tokens.ReasonWrongPIN)
	s.failures("alice", 2)

	// The whole at once, as elsewhere.
	s.ended("alice", "4711"+d.code(h, 0), nil, true, tokens.ReasonAccepted)
	s.failures("alice", 0)

	// Nothing before, and then both, or the code alone.
	h.clock.forward(2 * time.Minute)
	state = s.asked("alice", "", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.failures("alice", 0)
	s.ended("alice", d.code(h, 0), state, false, tokens.ReasonNoPIN)
	s.failures("alice", 1)
	state = s.asked("alice", "", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.ended("alice", "4711"+d.code(h, 0), state, true, tokens.ReasonAccepted)
	// The PIN may be typed again.
	state = s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.ended("alice", "4711"+d.code(h, 1), state, true, tokens.ReasonAccepted)
	state = s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.ended("alice", "4712"+d.code(h, 2), state, false, tokens.ReasonWrongPIN) // what was typed last counts

	// Without a PIN it matters to nobody what was typed before.
	state = s.asked("bob", "hunter2", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.ended("bob", free.at(0), state, true, tokens.ReasonAccepted)
	s.ended("bob", free.at(1), nil, true, tokens.ReasonAccepted)
	s.failures("bob", 0)

	// A code that was used, and one of a recovery sheet.
	state = s.asked("bob", "", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.ended("bob", free.at(1), state, false, tokens.ReasonReplay)
	_, codes := h.recovery("alice")
	state = s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.ended("alice", codes[0], state, true, tokens.ReasonAccepted)
	state = s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.ended("alice", "", state, false, tokens.ReasonWrongCode)
	h.intact()
}

// The PIN that a State says was typed is the one that the user had then.
func TestAPINThatWasChangedMeanwhileIsWrong(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.pin("alice", "4711", false)
	s := h.stage(tokens.DialoguePIN)
	state := s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	h.pin("alice", "0815", false)
	s.ended("alice", d.code(h, 0), state, false, tokens.ReasonWrongPIN)
	state = s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	h.pin("alice", "4711", false) // the same, but not as it was
	s.ended("alice", d.code(h, 0), state, false, tokens.ReasonWrongPIN)
	state = s.asked("alice", "", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "", false))
	s.ended("alice", d.code(h, 0), state, true, tokens.ReasonAccepted)
	state = s.asked("alice", "", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	h.pin("alice", "4711", false)
	s.ended("alice", d.code(h, 1), state, false, tokens.ReasonNoPIN)
}

// Everybody is asked, with a State that looks the same, whatever was typed and whoever
// it was; and what it costs the HSM and the database is the same.
func TestEverybodyIsAskedForACodeAtTheSameCost(t *testing.T) {
	h := newHouse(t)
	fill := func(user string) *device {
		d := totp("T-" + user)
		h.give(user, d)
		h.pin(user, "4711", false)
		return d
	}
	good, without := fill("good"), fill("without")
	h.must(h.SetPIN(ctx, h.admin, "", "without", "", false))
	for _, user := range []string{"locked", "waiting"} {
		fill(user)
		for range map[string]int{"locked": 100, "waiting": 9}[user] {
			h.try(user, "4711000000")
			if user == "locked" {
				h.clock.forward(time.Hour)
			}
		}
	}
	fill("disabled")
	h.must(h.SetUserState(ctx, h.admin, "", "disabled", tokens.UserDisabled))
	fill("suspended")
	h.must(h.Suspend(ctx, h.admin, "", "T-suspended", ""))
	h.user("tokenless")
	h.pin("tokenless", "4711", false)
	for range 2 {
		h.try("waiting", "4711000000")
	}
	s := h.stage(everyDialogue...)
	type cost struct{ factors, pins, bindings, loads int64 }
	costs := func(f func()) cost {
		a := cost{h.keys.factors.Load(), h.keys.pins.Load(), h.keys.bindings.Load(), h.db.loads.Load()}
		f()
		return cost{h.keys.factors.Load() - a.factors, h.keys.pins.Load() - a.pins, h.keys.bindings.Load() - a.bindings, h.db.loads.Load() - a.loads}
	}
	users := []string{"good", "without", "locked", "waiting", "disabled", "suspended", "tokenless", "nobody", "no\x00body", strings.Repeat("x", 500)}
	for _, typed := range []string{"4711", "4712", "", "4711000000", "000000", "47"} {
		var first, second *cost
		for _, user := range users {
			var state []byte
			got := costs(func() {
				r := s.says(user, typed, nil)
				if r.Challenge == nil || r.Challenge.Question != tokens.QuestionCode || len(r.Challenge.State) != 219 {
					t.Fatalf("%s with %q: %+v, %+v", user, typed, r, h.last())
				}
				state = r.Challenge.State
			})
			if asking := got; first == nil {
				first = &asking
			}
			if got != *first {
				t.Errorf("asking %s after %q costs %+v, the first %+v", user, typed, got, *first)
			}
			got = costs(func() {
				if r := s.says(user, "000000", state); r.Accept || r.Challenge != nil {
					t.Errorf("%s: %+v", user, r)
				}
			})
			if answering := got; second == nil {
				second = &answering
			}
			if got != *second {
				t.Errorf("the answer of %s after %q costs %+v, the first %+v", user, typed, got, *second)
			}
			got = costs(func() { // again: spent
				if r := s.says(user, "000000", state); r.Accept || r.Challenge != nil {
					t.Errorf("%s: %+v", user, r)
				}
			})
			if got != *second {
				t.Errorf("the second answer of %s after %q costs %+v, the first %+v", user, typed, got, *second)
			}
			if user != "locked" && user != "waiting" && !strings.ContainsAny(user, "\x00x") && user != "nobody" {
				h.must(h.UnlockUser(ctx, h.admin, "", user))
			}
		}
	}
	h.must(h.UnlockUser(ctx, h.admin, "", "good"))
	state := s.asked("good", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.ended("good", good.code(h, 0), state, true, tokens.ReasonAccepted)
	h.must(h.UnlockUser(ctx, h.admin, "", "without"))
	s.ended("without", without.code(h, 0), nil, true, tokens.ReasonAccepted)
	h.intact()
}

// A State is good for its user, through its client, in its realm, for two minutes, as it
// was made; on every node, and after a restart.
func TestAStateIsGoodOnceAndWhereItWasMade(t *testing.T) {
	h := newHouse(t)
	a, b := hotp("H1"), hotp("H2")
	h.give("alice", a)
	h.give("bob", b)
	s := h.stage(everyDialogue...)
	ask := func() []byte { return s.asked("alice", "", nil, tokens.QuestionCode, tokens.ReasonPINFirst) }
	before := h.standing("alice").Version

	state := ask()
	if other := ask(); len(other) != len(state) || bytes.Equal(other[:24], state[:24]) {
		t.Errorf("%x and %x", state, other)
	}
	for i := range state {
		altered := slices.Clone(state)
		altered[i] ^= 1 << (i % 8)
		if r := s.says("alice", a.at(0), altered); r.Accept || r.Challenge != nil {
			t.Errorf("byte %d: %+v", i, r)
		}
		if i == 5 && h.last().Reason != string(tokens.ReasonDialogueInvalid) { // the first ten are in the audit
			t.Errorf("%+v", h.last())
		}
	}
	h.clock.forward(2 * time.Minute)
	s.ended("alice", a.at(0), state, false, tokens.ReasonDialogueExpired)
	for _, junk := range [][]byte{{}, {1}, state[:218], append(slices.Clone(state), 0), bytes.Repeat([]byte{'A'}, 219), bytes.Repeat([]byte{'\n'}, 219), append(slices.Clone(state[:218]), '\n'), bytes.Repeat([]byte{7}, 5000)} {
		if r := s.says("alice", a.at(0), junk); r.Accept || r.Challenge != nil {
			t.Errorf("%d bytes: %+v", len(junk), r)
		}
	}
	state = ask()
	refused := func(s *stage, user, realm, code string) {
		t.Helper()
		x := s.attempt(user, code, state)
		x.Realm = realm
		if r, err := s.at.Verify(ctx, s.by, x); err != nil || r.Accept || r.Challenge != nil {
			t.Errorf("%s in %q: %+v, %v", user, realm, r, err)
		}
	}
	refused(s, "bob", "", b.at(0))
	elsewhere := *s
	elsewhere.by = h.admin
	refused(&elsewhere, "alice", "", a.at(0))
	h.must(h.AddUser(ctx, h.admin, "corp", "alice"))
	refused(&elsewhere, "alice", "corp", a.at(0))
	off := *s
	off.dialogues = []tokens.Dialogue{tokens.DialogueNextCode}
	refused(&off, "alice", "", a.at(0))
	if got := h.standing("alice"); got.Failures != 0 || got.Version != before {
		t.Errorf("a State that is no good counts: %+v", got)
	}
	// Another node, the user's name as somebody else types it, and the very end of it.
	s.at = h.node(&firsts{})
	h.clock.forward(2*time.Minute - 10*time.Second)
	s.ended("ALICE", a.at(0), state, true, tokens.ReasonAccepted)
	s.at = h.node(&firsts{}) // which has spent nothing itself
	s.ended("alice", a.at(1), state, false, tokens.ReasonDialogueSpent)
	s.at = h.Service
	s.ended("alice", a.at(1), state, false, tokens.ReasonDialogueSpent)
	s.failures("alice", 0)

	// Where no dialogue is on, there is no State: the attempt is what any is.
	none := h.stage()
	none.ended("alice", a.at(1), state, true, tokens.ReasonAccepted)
	h.intact()
}

// A State is spent by an answer that is rejected, too: one answer is looked at.
func TestAWrongAnswerSpendsTheQuestion(t *testing.T) {
	h := newHouse(t)
	d := hotp("H1")
	h.give("alice", d)
	s := h.stage(everyDialogue...)
	state := s.asked("alice", "", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.ended("alice", "000000", state, false, tokens.ReasonWrongCode)
	s.failures("alice", 1)
	s.ended("alice", d.at(0), state, false, tokens.ReasonDialogueSpent)
	s.failures("alice", 1)
	// Of who is turned away, too.
	state = s.asked("alice", "", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled))
	s.ended("alice", d.at(0), state, false, tokens.ReasonDisabled)
	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserEnabled))
	s.ended("alice", d.at(0), state, false, tokens.ReasonDialogueSpent)
	s.failures("alice", 1)
}

// Without the HSM, or while the clocks differ, nobody is asked and nothing is accepted;
// what was asked before may be answered when it is well again.
func TestAFaultInADialogueIsNoVerdict(t *testing.T) {
	h := newHouse(t)
	d, e := hotp("H1"), totp("T1")
	h.give("alice", d)
	h.give("bob", e)
	s := h.stage(everyDialogue...)
	state := s.asked("alice", "", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	fails := func(what, user, code string, state []byte) {
		t.Helper()
		if r, err := h.Verify(ctx, h.vpn, s.attempt(user, code, state)); !errors.Is(err, tokens.ErrUnavailable) || r.Accept || r.Challenge != nil {
			t.Errorf("%s: %+v, %v", what, r, err)
		}
	}
	for calls := range int64(4) { // whichever call it is that fails
		h.keys.after(calls)
		r, err := h.Verify(ctx, h.vpn, s.attempt("bob", "4711000000", nil))
		if err != nil && !errors.Is(err, tokens.ErrUnavailable) || r.Accept || err != nil && r.Challenge != nil {
			t.Errorf("after %d calls: %+v, %v", calls, r, err)
		}
		if calls == 0 && err == nil {
			t.Error("a State without a key")
		}
		h.keys.after(-1)
	}
	h.keys.memory().Fail(errors.New("unplugged"))
	fails("an attempt without the HSM", "alice", d.at(0), nil)
	fails("an answer without the HSM", "alice", d.at(0), state)
	fails("a stranger's without the HSM", "nobody", d.at(0), nil)
	h.keys.memory().Heal()
	h.db.edit(func(ed *editor) { ed.clock = func() time.Time { return h.clock.now().Add(6 * time.Second) } })
	fails("a question while the clocks differ", "alice", "", nil)
	fails("an answer while the clocks differ", "alice", d.at(0), state)
	s.ended("alice", d.at(0), nil, true, tokens.ReasonAccepted)
	s.dialogues = []tokens.Dialogue{tokens.DialogueNextCode}
	s.ended("alice", d.at(40), nil, false, tokens.ReasonWrongCode)
	s.dialogues = everyDialogue
	h.db.edit(func(ed *editor) { ed.clock = func() time.Time { return h.clock.now() } })
	s.asked("alice", d.at(40), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
	s.ended("alice", d.at(1), state, true, tokens.ReasonAccepted)
	h.intact()
}

// An empty code is one where it answers something, and else none at all.
func TestAnEmptyCodeBeginsOnlyWhereThePINIsFirst(t *testing.T) {
	h := newHouse(t)
	h.give("alice", hotp("H1"))
	for _, list := range [][]tokens.Dialogue{nil, {tokens.DialogueNextCode}, {tokens.DialogueNewPIN}} {
		if _, err := h.Verify(ctx, h.vpn, h.stage(list...).attempt("alice", "", nil)); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("with %v: %v", list, err)
		}
	}
	s := h.stage(everyDialogue...)
	if _, err := h.Verify(ctx, h.vpn, s.attempt("", "", nil)); !errors.Is(err, tokens.ErrInvalid) {
		t.Error(err)
	}
	state := s.asked("alice", "", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.ended("alice", "", state, false, tokens.ReasonWrongCode)
}

// What was computed from a code (CHAP, MS-CHAP) takes part in no dialogue.
func TestProofsTakePartInNoDialogue(t *testing.T) {
	h := newHouse(t)
	d := hotp("H1")
	h.give("alice", d)
	s := h.stage(everyDialogue...)
	s.joined = everyDialogue
	state := s.asked("alice", "", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	for _, c := range []struct {
		code   string
		accept bool
	}{{d.at(40), false}, {"000000", false}, {d.at(0), true}} {
		a := s.attempt("alice", "", state)
		a.Proof, a.Method = &shownCode{code: c.code}, "chap"
		r, err := h.Verify(ctx, h.vpn, a)
		if err != nil || r.Challenge != nil || r.Accept != c.accept {
			t.Errorf("%s: %+v, %v", c.code, r, err)
		}
	}
	s.ended("alice", d.at(1), state, true, tokens.ReasonAccepted) // it was not looked at
}

// shownCode is a proof that tells everything.
type shownCode struct{ code string }

func (p *shownCode) Proves(code []byte) bool { return string(code) == p.code }

// Who asks and does not wait is asked, too.
func TestWhoDoesNotWaitIsAskedToo(t *testing.T) {
	h := newHouse(t)
	d := hotp("H1")
	h.give("alice", d)
	s := h.stage(everyDialogue...)
	said := make(chan tokens.Result, 1)
	ask := func(code string, state []byte) tokens.Result {
		h.Ask(ctx, h.vpn, s.attempt("alice", code, state), func(r tokens.Result, err error) {
			if err != nil {
				t.Error(err)
			}
			said <- r
		})
		return <-said
	}
	r := ask("", nil)
	if r.Challenge == nil {
		t.Fatalf("%+v", r)
	}
	if r = ask(d.at(0), r.Challenge.State); !r.Accept {
		t.Errorf("%+v, %+v", r, h.last())
	}
}

// An accept names the user's groups where they are asked for, and where they cannot be
// read there is no accept.
func TestAnAcceptNamesTheGroups(t *testing.T) {
	h := newHouse(t)
	d := hotp("H1")
	h.give("alice", d)
	h.must(h.SetGroups(ctx, h.admin, "", "alice", []string{"staff", "guests"}))
	try := func(code string, groups bool) tokens.Result {
		t.Helper()
		r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: code, Groups: groups})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := try(d.at(0), false); !r.Accept || r.Groups != nil {
		t.Errorf("%+v", r)
	}
	if r := try("000000", true); r.Accept || r.Groups != nil {
		t.Errorf("%+v", r)
	}
	if r := try(d.at(1), true); !r.Accept || !slices.Equal(r.Groups, []string{"guests", "staff"}) {
		t.Errorf("%+v", r)
	}
	h.must(h.SetGroups(ctx, h.admin, "", "alice", []string{"board"}))
	if r := try(d.at(2), true); !r.Accept || !slices.Equal(r.Groups, []string{"board"}) {
		t.Errorf("%+v", r)
	}
	h.must(h.SetGroups(ctx, h.admin, "", "alice", nil))
	h.db.edit(func(ed *editor) { ed.groups = fmt.Errorf("%w: gone", tokens.ErrUnavailable) })
	if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.at(3), Groups: true}); err == nil || r.Accept {
		t.Errorf("%+v, %v", r, err)
	}
	h.db.edit(func(ed *editor) { ed.groups = nil })
	if r := try(d.at(3), true); !r.Accept || len(r.Groups) != 0 {
		t.Errorf("%+v", r)
	}
}
