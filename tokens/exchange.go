package tokens

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Reasons of attempts that end in a question, and of answers to one that is not open.
const (
	ReasonPINFirst        Reason = "pin_first" // the code is asked for; whatever was typed before
	ReasonNextCode        Reason = "next_code" // the code was far ahead of the window: the next one is asked for
	ReasonDialogueExpired Reason = "dialogue_expired"
	ReasonDialogueInvalid Reason = "dialogue_invalid" // altered, or of another user, client or server; or switched off since
	ReasonDialogueSpent   Reason = "dialogue_spent"   // answered before, or something else was done to the user since
)

// The details that the audit has of dialogues.
const (
	fieldDialogue = "dialogue" // the dialogue that an answer belongs to
	fieldJoined   = "joined"   // the dialogue whose answers were typed at once
	fieldQuestion = "question" // what was asked
	fieldFirst    = "first"    // why what was typed before the question was not accepted
)

// talk is what an attempt brings of dialogues. Most have none.
type talk struct {
	dialogues []Dialogue
	joined    []Dialogue
	state     []byte
}

// talk takes over what the attempt may do in dialogues.
func (x *pending) talks(a *Attempt) {
	x.groups = a.Groups
	if len(a.Dialogues)+len(a.Joined) == 0 || a.Proof != nil { // proofs take part in none
		return
	}
	x.talk = &talk{dialogues: a.Dialogues, joined: a.Joined}
	if len(a.Dialogues) > 0 {
		x.talk.state = a.State
	}
	x.code = a.Code[:min(len(a.Code), x.talk.maxJoined())]
}

// typed says whether something was typed, or need not be: where the PIN is asked for
// first, and in an answer.
func (a *Attempt) typed() bool {
	return a.Code != "" || a.Proof != nil || a.State != nil && len(a.Dialogues) > 0 || slices.Contains(a.Dialogues, DialoguePIN)
}

func (k *talk) may(d Dialogue) bool { return slices.Contains(k.dialogues, d) }

// asks says whether the attempt may end in a question.
func (k *talk) asks() bool { return len(k.dialogues) > 0 }

// exchange is an attempt's part in a dialogue while its batch is being decided.
type exchange struct {
	next  stateMaker // of the State of a question
	from  stateMaker // of the State that is answered
	kind  stateKind  // of that; zero if there is none, or none that opens
	said  dialogueState
	spend Spend  // what the answer uses up
	bad   Reason // why the State is no good; empty if it is, or if there is none
	err   error  // why nothing can be said
	mute  bool   // no dialogue begins or goes on now

	exact bool // what was typed before is the user's PIN
	ahead []aheadOf
	spelt []*spelling
}

// question is what a verdict asks in the place of a reject.
type question struct {
	ask   Question
	state dialogueState
}

// turns opens the States of a batch, and makes the keys of the next ones, in one call
// to the HSM. It answers nil if there are neither.
func (s *Service) turns(ctx context.Context, batch []*pending, subjects []*Subject, now time.Time) []*exchange {
	var list []*exchange
	var makers []*stateMaker
	for i, x := range batch {
		if x.talk == nil {
			continue
		}
		if list == nil {
			list = make([]*exchange, len(batch))
		}
		t := &exchange{mute: s.skewed.Load()}
		list[i] = t
		if !x.talk.asks() {
			continue
		}
		if t.next, t.err = s.newState(); t.err != nil {
			continue
		}
		makers = append(makers, &t.next)
		if x.talk.state != nil {
			t.from = madeBefore(x.talk.state)
			makers = append(makers, &t.from)
		}
	}
	if len(makers) == 0 {
		return list
	}
	err := s.makeKeys(ctx, makers)
	for i, t := range list {
		switch {
		case t == nil || !batch[i].talk.asks() || t.err != nil:
		case err != nil:
			t.err = err
		case batch[i].talk.state != nil && t.mute: // it might have expired, and be forgotten as spent
			t.err = fmt.Errorf("%w: the clocks of server and database differ", ErrUnavailable)
		case batch[i].talk.state != nil:
			s.hear(t, batch[i], subjects[i], now)
		}
	}
	return list
}

// hear opens the State that an attempt answers, and says what is wrong with it.
func (s *Service) hear(t *exchange, x *pending, sub *Subject, now time.Time) {
	if !t.from.open(&t.said, x.talk.state, x.boundState()) || !x.talk.may(t.said.kind.dialogue()) {
		t.bad = ReasonDialogueInvalid
		return
	}
	t.kind, t.spend = t.said.kind, t.from.spends(t.said.expires)
	var user User
	var version int64
	if sub != nil && sub.User != nil {
		user, version = *sub.User, sub.Version
	}
	switch {
	case user.ID != t.said.user:
		t.bad = ReasonDialogueInvalid
	case s.stale(t.spend, now):
		t.bad = ReasonDialogueExpired
	case x.spent || s.spent.has(t.spend.Hash):
		t.bad = ReasonDialogueSpent
	case t.kind == stateNextCode && version != t.said.version:
		t.bad = ReasonDialogueSpent
	}
	if t.bad != "" && t.kind != stateNextCode {
		t.kind = 0 // it costs what any attempt does
	}
}

// answers says whether it is an answer of a kind to a question that is open.
func (t *exchange) answers(kind stateKind) bool { return t != nil && t.bad == "" && t.kind == kind }

// carriesPIN says whether the user's PIN was typed before the question, so that it
// need not go before the code.
func (t *exchange) carriesPIN(u *User) bool {
	return t != nil && t.bad == "" && (t.kind == stateCode || t.kind == stateNextCode) && t.said.pinOK && t.said.pin == pinDigest(u)
}

// first says whether it is the beginning of the dialogue that asks for the PIN first.
func (t *trial) first() bool {
	return t.turn != nil && t.talk.state == nil && t.talk.may(DialoguePIN)
}

// barOf is barred for an attempt. A next code is looked at whatever wait begins with
// the failure that asking for it was: as the user's version is the one that asking left,
// no other failure can have begun one. Only one code is looked at then.
func (s *Service) barOf(x *pending, t *exchange, sub *Subject, now time.Time) Reason {
	bar := barred(sub.User, &sub.Standing, &s.cfg.Throttle, x.client, now)
	if bar == ReasonThrottled && t.answers(stateNextCode) {
		return ""
	}
	return bar
}

// said holds the verdict on an attempt against the State that it came with.
func (t *trial) said(v *verdict, spends map[[sha256.Size]byte]bool) {
	x := t.turn
	if x.bad == "" && x.kind != 0 && spends[x.spend.Hash] {
		x.bad = ReasonDialogueSpent
	}
	switch {
	case x.err != nil:
		*v = verdict{reason: ReasonUnavailable, err: unavailable(x.err), counted: v.counted}
	case x.bad != "" && v.err != nil:
		v.counted = false
	case x.bad != "":
		*v = verdict{reason: x.bad}
		if t.subject == nil {
			v.reason = ReasonUnknownUser
		}
	}
}

// idleTalk says whether the attempt shows nothing that anybody might not show, as fast as
// the network carries it: a State that is no good, or nothing at all where the PIN is
// asked for first.
func (t *trial) idleTalk() bool {
	return t.turn != nil && (t.turn.bad != "" || t.first() && t.code == "")
}

// take gives an attempt its turn. What was done to the user in this batch has not raised
// the version yet, and ends what must not go on after it all the same.
func (t *trial) take(x *exchange, writes map[*Subject]*write) {
	t.turn = x
	if x != nil && x.bad == "" && x.kind == stateNextCode && writes[t.subject] != nil {
		x.bad = ReasonDialogueSpent
	}
}

// uses is what is used up with the verdict, whether or not it is an accept: the
// challenge of a key, or the State of a question that was open. A State for a user whom
// there is not may be sent again: it is never good for anything.
func (t *trial) uses() (*Spend, bool) {
	switch {
	case t.answer != nil:
		return &t.key.Spend, t.v.spends()
	case t.turn == nil || t.turn.bad != "" || t.turn.kind == 0 || t.subject == nil || t.v.err != nil:
		return nil, false
	}
	return &t.turn.spend, true
}

// spend notes in the verdict what is used up with it.
func (t *trial) spend() {
	if x, ok := t.uses(); ok {
		t.v.spend = x
		if t.turn != nil {
			t.v.answered = t.turn.kind.dialogue()
		}
	}
}

// putOff leaves to the next batch what else is there for users who were asked for the
// next code: the question must be the last that is done to them at their version.
func (e *engine) putOff(batch []*pending, subjects []*Subject, trials []trial, rest []int) []int {
	if len(rest) == 0 {
		return rest
	}
	var off []*pending
	for i := range trials {
		t := &trials[i]
		if t.v.challenge == nil || t.v.challenge.Question != QuestionNextCode {
			continue
		}
		rest = slices.DeleteFunc(rest, func(k int) bool {
			if subjects[k] != t.subject {
				return false
			}
			off = append(off, batch[k])
			return true
		})
	}
	e.waiting = append(off, e.waiting...)
	return rest
}

// nameGroups reads the groups of a user who is accepted, where they were asked for. They
// are those of the user's version, which the commit depends on. Where they cannot be
// read there is no verdict.
func (e *engine) nameGroups(ctx context.Context, t *trial) {
	if !t.groups || !t.v.accept {
		return
	}
	groups, err := e.groupsOf(ctx, &t.ref, t.subject)
	if err != nil {
		t.v = verdict{reason: ReasonUnavailable, err: unavailable(err)}
		return
	}
	t.v.groups = slices.Clip(groups)
}

// converse makes questions of verdicts, where the attempts' clients let it.
func (e *engine) converse(ctx context.Context, trials []trial, now time.Time) {
	e.s.lookAhead(ctx, trials, now)
	for i := range trials {
		t := &trials[i]
		if t.turn == nil {
			continue
		}
		e.joined(ctx, t)
		e.pinDue(ctx, t)
		e.choosePIN(ctx, t, now)
		e.nextCode(ctx, t, now)
		t.askCode()
		if q := t.v.asks; q != nil {
			e.s.seal(t, q, now)
		}
		clear(t.turn.next.key)
	}
}

// askCode asks for the code, everybody whose attempt begins so and was not accepted as
// it is. What was typed counts as a failure, as it does elsewhere, unless it was
// nothing, or the PIN and nothing else.
func (t *trial) askCode() {
	v := &t.v
	if !t.first() || v.accept || v.asks != nil {
		return
	}
	no := t.code == "" || t.turn.exact // it was no attempt at a code
	switch {
	case v.err != nil:
		v.counted = v.counted && !no
		return // who asked hears that, and is not asked
	case t.turn.mute:
		*v = verdict{reason: ReasonUnavailable, err: fmt.Errorf("%w: the clocks of server and database differ", ErrUnavailable), counted: v.counted && !no}
		return
	}
	first, counted := v.reason, v.counted
	if no {
		counted = false
		if first == ReasonWrongCode || first == ReasonWrongPIN || first == ReasonNoPIN {
			first = ""
		}
	}
	*v = verdict{reason: ReasonPINFirst, first: first, token: v.token, counted: counted, asks: &question{
		ask:   QuestionCode,
		state: dialogueState{kind: stateCode, typed: t.code != "", pinOK: t.turn.exact},
	}}
	if first == "" {
		v.token = nil
	}
}

// seal makes the Challenge of a question.
func (s *Service) seal(t *trial, q *question, now time.Time) {
	d := &q.state
	d.expires, d.pin = now.Add(s.cfg.Answer), pinDigest(t.user)
	if t.subject != nil {
		d.user = t.user.ID
	}
	state, err := t.turn.next.seal(d, t.boundState())
	if err != nil {
		t.v = verdict{reason: ReasonUnavailable, err: err, counted: t.v.counted}
		return
	}
	t.v.challenge = &Challenge{Question: q.ask, State: state}
}

// detail is what the audit has of an attempt's part in a dialogue.
func (k *talk) detail(list []audit.Field, v *verdict) []audit.Field {
	if v.asks != nil {
		list = append(list, audit.Field{Name: fieldQuestion, Value: string(v.asks.ask)})
		if v.first != "" {
			list = append(list, audit.Field{Name: fieldFirst, Value: string(v.first)})
		}
	}
	if v.answered != "" {
		list = append(list, audit.Field{Name: fieldDialogue, Value: string(v.answered)})
	}
	if v.joined != "" {
		list = append(list, audit.Field{Name: fieldJoined, Value: string(v.joined)})
	}
	return list
}

// mayChangePIN asks the policies whether the user may, in a dialogue.
func (e *engine) mayChangePIN(ctx context.Context, t *trial, v *verdict) (bool, error) {
	set, err := e.s.gatekeepers()
	if err != nil {
		return false, err
	}
	d, err := e.asks(ctx, set, policy.UserPINChange, t, v)
	if err != nil {
		return false, err
	}
	if !d.Allow {
		t.policy = determining(&d)
	}
	return d.Allow, nil
}
