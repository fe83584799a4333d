package tokens

import (
	"context"
	"fmt"
	"slices"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// DriftPoint is what one accepted code said about a token's clock.
type DriftPoint struct {
	Time    time.Time // when it was accepted
	Seconds float64   // how far the token's clock was ahead of ours, to half a period: the middle of the code's time step, less Time
	Steps   int       // the same in whole time steps, as Token.Drift has it
	Resync  bool      // by a resynchronisation
}

// DriftVerdict says what is the matter with a token's clock.
type DriftVerdict string

// The verdicts.
const (
	DriftNone    DriftVerdict = "none"    // too little is known
	DriftGood    DriftVerdict = "good"    // as quartz runs
	DriftFast    DriftVerdict = "fast"    // its crystal is off, but steady
	DriftSlow    DriftVerdict = "slow"    // the same, the other way
	DriftBattery DriftVerdict = "battery" // it is off by ever more, as at the end of a battery
	DriftBatch   DriftVerdict = "batch"   // it is off, and so are many of its import
	DriftPeriod  DriftVerdict = "period"  // its codes move on at another pace than the import said
)

// DriftHistory is how a token's clock ran.
type DriftHistory struct {
	Token   Token
	Points  []DriftPoint // oldest first
	PPM     float64      // how fast its clock runs now, in millionths; negative: slow; zero if that is not known
	Verdict DriftVerdict
	Says    string // the verdict in words, and what to do about it
}

// driftRecords is how many of a token's audit records, newest first, Drift reads.
const driftRecords = 5000

// driftSamples is how many tokens of an import a token is compared with.
const driftSamples = 500

// Drift answers how the clock of a TOTP token ran, by the codes of it that were
// accepted, as the audit has them. ErrState for a token without a clock.
func (s *Service) Drift(ctx context.Context, p Principal, realm, serial string) (DriftHistory, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return DriftHistory{}, err
	}
	e := audit.Event{Realm: realm, Serial: serial}
	if err := s.authorise(ctx, p, policy.TokenDrift, &e); err != nil {
		return DriftHistory{}, err
	}
	fail := func(err error) (DriftHistory, error) {
		return DriftHistory{}, s.refuse(ctx, p, policy.TokenDrift, e, err)
	}
	view, err := s.db.Load(ctx, []Ref{{Realm: realm, Serial: serial}})
	if err != nil {
		return DriftHistory{}, unavailable(err)
	}
	sub, t, err := tokenOf(view.Subjects[0], serial)
	if err != nil {
		return fail(err)
	}
	if sub.User != nil {
		e.User = sub.User.Key
	}
	if t.Type != TOTP || t.Period < 1 {
		return fail(fmt.Errorf("%w: token %s has no clock (its type is %s): only the clock of a TOTP token can drift", ErrState, serial, t.Type))
	}
	h := DriftHistory{Token: *t}
	failed := 0 // resynchronisations whose codes were wrong, since the last that was accepted
	err = s.eachRecord(ctx, RecordQuery{Realm: realm, Serial: serial}, driftRecords, func(r *audit.Record) {
		if r.Time.Before(t.Created) {
			return // of another token, which had this serial before
		}
		if point, ok := driftPoint(r, t.Period); ok {
			h.Points = append(h.Points, point)
		} else if len(h.Points) == 0 && r.Action == string(policy.TokenResync) && r.Reason == refusal(ErrWrongCode) {
			failed++
		}
	})
	if err != nil {
		return DriftHistory{}, err
	}
	slices.SortStableFunc(h.Points, func(a, b DriftPoint) int { return a.Time.Compare(b.Time) })
	h.judge(failed)
	if (h.Verdict == DriftFast || h.Verdict == DriftSlow) && t.Batch != 0 {
		others, err := s.db.Drifts(ctx, t.Batch, driftSamples)
		if err != nil {
			return DriftHistory{}, unavailable(err)
		}
		h.compare(others)
	}
	return h, s.record(ctx, p, policy.TokenDrift, e)
}

// twoCodes says whether a login took two codes in a row, and found the token by them.
func twoCodes(r *audit.Record) bool {
	next := string(DialogueNextCode)
	return r.Action == string(policy.Verify) && r.Outcome == "accept" && (detail(r, fieldDialogue) == next || detail(r, fieldJoined) == next)
}

// driftPoint is what a record says about the clock of its token.
func driftPoint(r *audit.Record, period int) (DriftPoint, bool) {
	switch policy.Action(r.Action) {
	case policy.Verify:
		if r.Outcome != "accept" && r.Outcome != "challenge" { // a question may use a code up

			return DriftPoint{}, false
		}
	case policy.TokenResync, policy.TokenActivate, policy.TokenConfirm:
		if r.Outcome != "ok" {
			return DriftPoint{}, false
		}
	default:
		return DriftPoint{}, false
	}
	factor, ok := detailNumber(r, "factor")
	if !ok || factor < 0 || factor > maxFactor {
		return DriftPoint{}, false
	}
	// The difference of whole seconds first: a float64 keeps every digit of that.
	now := r.Time.Unix()
	ahead := float64(factor*int64(period)-now) + float64(period)/2 - float64(r.Time.Nanosecond())/1e9
	return DriftPoint{
		Time: r.Time, Seconds: ahead, Steps: int(factor - step(r.Time, period)),
		Resync: r.Action == string(policy.TokenResync) || twoCodes(r),
	}, true
}
