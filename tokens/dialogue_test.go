package tokens_test

import (
	"testing"
	"time"

	"watchword/tokens"
)

var everyDialogue = []tokens.Dialogue{tokens.DialoguePIN, tokens.DialogueNextCode, tokens.DialogueNewPIN}

// stage is a house whose client has dialogues.
type stage struct {
	*house
	dialogues []tokens.Dialogue
	joined    []tokens.Dialogue
	node      *tokens.Service
}

func (h *house) stage(dialogues ...tokens.Dialogue) *stage {
	return &stage{house: h, dialogues: dialogues, node: h.Service}
}

// says is an attempt, or the answer to a State.
func (s *stage) says(user, code string, state []byte) tokens.Result {
	s.Helper()
	r, err := s.node.Verify(ctx, s.vpn, tokens.Attempt{User: user, Code: code, Transport: "radius", State: state, Dialogues: s.dialogues, Joined: s.joined})
	if err != nil {
		s.Fatalf("%s with %q: %v", user, code, err)
	}
	if r.Challenge != nil && (r.Accept || len(r.Challenge.State) == 0 || len(r.Challenge.State) > 253) {
		s.Fatalf("%s with %q: %+v, %+v", user, code, r, r.Challenge)
	}
	return r
}

// asked says that an attempt ends in a question, and answers its State.
func (s *stage) asked(user, code string, state []byte, q tokens.Question, reason tokens.Reason) []byte {
	s.Helper()
	r := s.says(user, code, state)
	if r.Accept || r.Challenge == nil || r.Challenge.Question != q {
		s.Fatalf("%s with %q: %+v, %+v; want the question %s", user, code, r, s.last(), q)
	}
	last := s.last()
	if last.Outcome != "challenge" || last.Reason != string(reason) || detail(last, "question") != string(q) {
		s.Errorf("%s with %q is audited as %+v; want %s", user, code, last, reason)
	}
	return r.Challenge.State
}

// ends says that an attempt is accepted or rejected, and why.
func (s *stage) ended(user, code string, state []byte, accept bool, reason tokens.Reason) {
	s.Helper()
	r := s.says(user, code, state)
	outcome := map[bool]string{true: "accept", false: "reject"}[accept]
	last := s.last()
	if r.Challenge != nil || r.Accept != accept || accept != (r.Serial != "") || last.Outcome != outcome || last.Reason != string(reason) {
		s.Errorf("%s with %q: %+v, audited as %+v; want %s, %s", user, code, r, last, outcome, reason)
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
	d := totp("T1")
	h.give("alice", d)
	h.pin("alice", "4711", false)
	s := h.stage(tokens.DialoguePIN)
	state := s.asked("alice", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.failures("alice", 0)
	s.ended("alice", d.code(h, 0), state, true, tokens.ReasonAccepted)
	s.ended("alice", d.code(h, 1), state, false, tokens.ReasonDialogueSpent)
	s.failures("alice", 0)

	h.clock.forward(2 * time.Minute)
	state = s.asked("alice", "4712", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	s.failures("alice", 1)
	s.ended("alice", d.code(h, 0), state, false, tokens.ReasonWrongPIN)
	s.failures("alice", 2)
	s.ended("alice", "4711"+d.code(h, 0), nil, true, tokens.ReasonAccepted)
	s.asked("nobody", "4711", nil, tokens.QuestionCode, tokens.ReasonPINFirst)
	h.intact()
}

func TestACodeFarAheadIsFollowedByTheNextOne(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	s := h.stage(tokens.DialogueNextCode)
	state := s.asked("alice", d.code(h, 15), nil, tokens.QuestionNextCode, tokens.ReasonNextCode)
	s.failures("alice", 1)
	s.ended("alice", d.code(h, 16), state, true, tokens.ReasonAccepted)
	s.failures("alice", 0)
	if got := h.token("T1"); got.Drift != 16 {
		t.Errorf("%+v", got.Motion)
	}
	s.ended("alice", d.code(h, 17), state, false, tokens.ReasonDialogueSpent)
	s.ended("alice", d.code(h, 17), nil, true, tokens.ReasonAccepted)
	h.intact()
}
