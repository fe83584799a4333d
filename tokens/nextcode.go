package tokens

import (
	"context"
	"time"

	"watchword/hsm"
)

// How far ahead of the window a code may lie that is asked to be followed by the next
// one: far enough for a clock that ran away, or a button that was played with; not so
// far that guessing is worth it. Somebody who guesses has 20 codes more out of a
// million, each attempt costs a failure, and what it earns is a question.
const (
	aheadSteps    = 20
	aheadCounters = 50
)

// aheadOf are the codes ahead of the window of one of a trial's candidates.
type aheadOf struct {
	c       *candidate
	factors []uint64
	job     hsm.Job
}

// ahead are the factors ahead of the window, in rising order, all of them fresh; and
// with next one more, for the code that follows.
func (w *Windows) ahead(t *Token, now time.Time, next bool) []uint64 {
	first, n := uint64(t.Last)+uint64(w.LookAhead), aheadCounters
	if t.Type == TOTP {
		from := max(step(now, t.Period)+int64(t.Drift)+int64(w.reach(t, now)), t.Last) + 1
		first, n = uint64(max(from, 0)), aheadSteps
	}
	if next {
		n++
	}
	list := make([]uint64, n)
	for i := range list {
		list[i] = first + uint64(i)
	}
	return list
}

// looksAhead says whether codes ahead of the window are looked at: of everybody who was
// not accepted, so that what it takes tells nothing.
func (t *trial) looksAhead() bool {
	x := t.turn
	if x == nil || x.mute || t.v.accept || t.v.err != nil || x.kind >= stateNextCode {
		return false
	}
	return t.talk.may(DialogueNextCode) || t.talk.join(DialogueNextCode)
}

// lookAhead computes the codes ahead of the windows, in one call to the HSM. Where that
// fails there is no verdict.
func (s *Service) lookAhead(ctx context.Context, trials []trial, now time.Time) {
	var jobs []*hsm.Job
	for i := range trials {
		t := &trials[i]
		if !t.looksAhead() {
			continue
		}
		joined := t.talk.join(DialogueNextCode)
		t.turn.ahead = make([]aheadOf, 0, len(t.cands))
		for k := range t.cands {
			c := &t.cands[k]
			if c.err != nil || c.factors == nil { // it has none
				continue
			}
			a := aheadOf{c: c, factors: s.cfg.Windows.ahead(c.token, now, joined)}
			a.job = hsm.Job{Key: c.token.Sealed(t.boundTo(c)), Factors: a.factors}
			t.turn.ahead = append(t.turn.ahead, a)
		}
		for k := range t.turn.ahead {
			jobs = append(jobs, &t.turn.ahead[k].job)
		}
	}
	if len(jobs) == 0 {
		return
	}
	err := s.custody.HMAC(ctx, jobs)
	for i := range trials {
		t := &trials[i]
		if t.turn == nil {
			continue
		}
		for k := range t.turn.ahead {
			fault := t.turn.ahead[k].job.Err
			if fault == nil {
				fault = err
			}
			if fault != nil {
				t.v = verdict{reason: ReasonUnavailable, err: unavailable(fault), counted: t.v.counted}
			}
		}
	}
}

// nextCode asks for the next code where nothing but the place of the code was wrong: it
// lies ahead of the window. That costs a failure. Nobody is asked who is turned away
// whatever was typed, or whom this failure locks, or whose next code would be of no use.
func (e *engine) nextCode(ctx context.Context, t *trial, now time.Time) {
	x, v := t.turn, &t.v
	if len(x.ahead) == 0 || !t.talk.may(DialogueNextCode) || v.reason != ReasonWrongCode || !v.counted ||
		t.subject == nil || t.bar != "" || t.user.mustChangePIN() {
		return
	}
	var found []pair
	var token *Token
	for k := range x.ahead {
		a := &x.ahead[k]
		c := a.c
		for i, mac := range a.job.MACs {
			if !c.shows(i, mac) || c.decoy || !c.pinOK || c.expired || c.token.State != Active || !c.token.fresh(a.factors[i]) || len(found) == maxPairs {
				continue
			}
			found = append(found, pair{c.token.ID, a.factors[i]})
			if token == nil {
				token = c.token
			}
		}
	}
	if len(found) == 0 {
		return
	}
	allowed := *v
	allowed.accept, allowed.token = true, token
	e.gate(ctx, t, &allowed)
	switch after := e.s.cfg.Throttle.fail(t.subject.Standing, t.client, now); {
	case allowed.err != nil:
		*v = verdict{reason: ReasonUnavailable, err: allowed.err, counted: true}
	case !allowed.accept:
		*v = verdict{reason: ReasonForbidden, token: token, counted: true}
	case after.Locked:
	default:
		*v = verdict{reason: ReasonNextCode, token: token, counted: true, asks: &question{
			ask:   QuestionNextCode,
			state: dialogueState{kind: stateNextCode, typed: true, pinOK: true, pairs: found, version: t.subject.Version + 1},
		}}
	}
}

// nextCandidates are the tokens that a next code can be of, with the only factors that
// are looked at.
func (t *trial) nextCandidates() (list []candidate) {
	if t.subject == nil {
		return nil
	}
	for i := range t.subject.Tokens {
		x := &t.subject.Tokens[i]
		var factors []uint64
		for _, p := range t.turn.said.pairs {
			if p.token == x.ID && (x.Type == TOTP || x.Type == HOTP) {
				factors = append(factors, p.factor+1)
			}
		}
		if len(factors) > 0 {
			list = append(list, candidate{token: x, factors: factors})
		}
	}
	return list
}
