package tokens

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/hsm"
)

func totpToken(period int, motion Motion) *Token {
	return &Token{
		ID: 1, Realm: DefaultRealm, Serial: "T1", Type: TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: period,
		State: Active, Created: at, Motion: motion,
	}
}

func hotpToken(counter int64) *Token {
	return &Token{
		ID: 2, Realm: DefaultRealm, Serial: "H1", Type: HOTP, Algorithm: hsm.SHA1, Digits: 6,
		State: Active, Created: at, Motion: Motion{Last: counter},
	}
}

// used is the motion of a token that was used just now.
func used(last int64, drift int) Motion { return Motion{Last: last, Drift: drift, UsedAt: at.Unix()} }

func TestTheWindowIsOneStepToEachSideLikeliestFirst(t *testing.T) {
	w := DefaultWindows()
	s := step(at, 30)
	for _, c := range []struct {
		name  string
		token *Token
		want  []int64
	}{
		{"no drift", totpToken(30, used(-1, 0)), []int64{s, s - 1, s + 1}},
		{"drift ahead", totpToken(30, used(-1, 7)), []int64{s + 7, s + 6, s + 8}},
		{"drift behind", totpToken(30, used(-1, -7)), []int64{s - 7, s - 8, s - 6}},
		{"consumed steps stay in it", totpToken(30, used(s, 0)), []int64{s, s - 1, s + 1}},
		{"new HOTP token", hotpToken(0), []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{"HOTP: the last one consumed is in it", hotpToken(5), []int64{5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 4}},
	} {
		got := w.factors(nil, c.token, at)
		if !slices.EqualFunc(got, c.want, func(a uint64, b int64) bool { return a == uint64(b) }) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestTheWindowWidensWithDisuseUpToFiveSteps(t *testing.T) {
	w := DefaultWindows()
	const day = 24 * time.Hour
	for _, c := range []struct {
		idle time.Duration
		want int
	}{
		{0, 1}, {29 * day, 1}, {30*day - time.Second, 1}, {30 * day, 2}, {60 * day, 3}, {90 * day, 4}, {120 * day, 5},
		{150 * day, 5}, {100 * 365 * day, 5}, {-day, 1}, {-100 * 365 * day, 1},
	} {
		token := totpToken(30, Motion{UsedAt: at.Unix()})
		if got := w.reach(token, time.Unix(at.Unix(), 0).Add(c.idle)); got != c.want {
			t.Errorf("idle for %v: %d steps, want %d", c.idle, got, c.want)
		}
		token = totpToken(30, Motion{}) // never used: since it came
		if got := w.reach(token, at.Add(c.idle)); got != c.want {
			t.Errorf("unused for %v: %d steps, want %d", c.idle, got, c.want)
		}
	}
	w.Widen = 0
	if got := w.reach(totpToken(30, Motion{}), at.Add(1000*day)); got != w.Steps {
		t.Errorf("with widening off, %d steps", got)
	}
	w = Windows{Steps: 3, MaxSteps: 1, Widen: day}
	if got := w.reach(totpToken(30, Motion{}), at); got != 3 {
		t.Errorf("a MaxSteps below Steps: %d steps, want 3", got)
	}
}

func TestTheFirstStepsOfTimeHaveNoFactorsBefore(t *testing.T) {
	w := DefaultWindows()
	for _, c := range []struct {
		now   int64
		drift int
		want  []uint64
	}{
		{0, 0, []uint64{0, 1}},
		{29, 0, []uint64{0, 1}},
		{30, 0, []uint64{1, 0, 2}},
		{0, -1, []uint64{0}},
		{0, -2, nil},
		{-86400, 0, nil},
		{-86400 * 365 * 200, 0, nil},
	} {
		now := time.Unix(c.now, 0)
		if got := w.factors(nil, totpToken(30, Motion{Last: -1, Drift: c.drift, UsedAt: 1}), now); !slices.Equal(got, c.want) {
			t.Errorf("at %d with drift %d: %v, want %v", c.now, c.drift, got, c.want)
		}
		w.resyncFactors(totpToken(30, Motion{Last: -1, Drift: c.drift}), now) // must not panic
	}
}

// drawToken is any token with any motion that can come about.
func drawToken(t *rapid.T) *Token {
	if rapid.Bool().Draw(t, "hotp") {
		return hotpToken(rapid.Int64Range(0, maxFactor).Draw(t, "counter"))
	}
	token := totpToken(rapid.IntRange(1, 86400).Draw(t, "period"), Motion{})
	token.Drift = rapid.OneOf(rapid.IntRange(-300, 300), rapid.IntRange(-maxFactor, maxFactor)).Draw(t, "drift")
	token.UsedAt = rapid.Int64Range(0, 1<<33).Draw(t, "used")
	token.Last = rapid.Int64Range(-1, 1<<33).Draw(t, "last")
	return token
}

func drawTime(t *rapid.T) time.Time {
	return time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "now"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns"))
}

func TestMotionNeverMovesBackAndConsumesWhatWasAccepted(t *testing.T) {
	w := DefaultWindows()
	rapid.Check(t, func(t *rapid.T) {
		token, now := drawToken(t), drawTime(t)
		for _, f := range w.factors(nil, token, now) {
			if !token.fresh(f) {
				continue
			}
			next := *token
			next.Motion = token.consume(f, now)
			switch {
			case token.Type == HOTP && next.Last <= token.Last, token.Type == TOTP && next.Last <= token.Last:
				t.Fatalf("accepting %d moved the token from %d to %d", f, token.Last, next.Last)
			case next.fresh(f):
				t.Fatalf("factor %d is fresh after it was accepted", f)
			case next.UsedAt != now.Unix():
				t.Fatalf("used at %d, not %d", next.UsedAt, now.Unix())
			case token.Type == HOTP && next.Drift != 0:
				t.Fatal("an HOTP token got a drift")
			case token.Type == TOTP && step(now, token.Period)+int64(next.Drift) != int64(f):
				t.Fatalf("at the same moment the window is around %d, not around %d, which was accepted", step(now, token.Period)+int64(next.Drift), f)
			}
			if moved := next.Drift - token.Drift; moved > w.MaxSteps || moved < -w.MaxSteps {
				t.Fatalf("one accept moved the drift by %d steps", moved)
			}
			for g := range f { // all before it are consumed as well; looking at a few is enough
				if g > 3 {
					break
				}
				if next.fresh(f - g) {
					t.Fatalf("factor %d is fresh after %d was accepted", f-g, f)
				}
			}
		}
	})
}

func TestTheWindowHoldsEachFactorOnceAndNoOther(t *testing.T) {
	w := DefaultWindows()
	rapid.Check(t, func(t *rapid.T) {
		token, now := drawToken(t), drawTime(t)
		got := w.factors(nil, token, now)
		seen := map[uint64]bool{}
		for _, f := range got {
			if seen[f] {
				t.Fatalf("factor %d is there twice: %v", f, got)
			}
			seen[f] = true
			if token.Type == HOTP {
				if d := int64(f) - token.Last; d < -1 || d >= int64(w.LookAhead) {
					t.Fatalf("counter %d at %d lies outside the look-ahead window", f, token.Last)
				}
				continue
			}
			centre := step(now, token.Period) + int64(token.Drift)
			if d := int64(f) - centre; d > int64(w.MaxSteps) || d < -int64(w.MaxSteps) {
				t.Fatalf("step %d lies %d from the centre", f, d)
			}
		}
		if token.Type == HOTP {
			for i := range w.LookAhead {
				if !seen[uint64(token.Last)+uint64(i)] {
					t.Fatalf("counter %d is missing", token.Last+int64(i))
				}
			}
		}
		if len(got) > 12 {
			t.Fatalf("%d factors", len(got))
		}
	})
}

// An observer who keeps sending the oldest code that is accepted cannot draw
// the window after it: single use stands before drift.
func TestDriftFollowsTheTokenAndNothingIsAcceptedTwice(t *testing.T) {
	w := DefaultWindows()
	rapid.Check(t, func(t *rapid.T) {
		token := totpToken(30, Motion{Last: -1, UsedAt: at.Unix()})
		now := at
		accepted := map[uint64]bool{}
		for range 50 {
			now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second)
			window := w.factors(nil, token, now)
			f := rapid.SampledFrom(window).Draw(t, "factor")
			if !token.fresh(f) {
				continue
			}
			if accepted[f] {
				t.Fatalf("step %d is accepted twice", f)
			}
			accepted[f] = true
			token.Motion = token.consume(f, now)
			if d := int64(f) - step(now, 30); int64(token.Drift) != d {
				t.Fatalf("drift %d after a code %d steps away", token.Drift, d)
			}
		}
	})
}

func TestResynchronisationLooksAtNothingConsumed(t *testing.T) {
	w := DefaultWindows()
	rapid.Check(t, func(t *rapid.T) {
		token, now := drawToken(t), drawTime(t)
		got := w.resyncFactors(token, now)
		for i, f := range got {
			if !token.fresh(f) {
				t.Fatalf("factor %d was consumed: the last is %d", f, token.Last)
			}
			if i > 0 && f != got[i-1]+1 {
				t.Fatalf("%d follows %d", f, got[i-1])
			}
		}
		if token.Type == HOTP {
			if len(got) != w.ResyncCounters+1 || got[0] != uint64(token.Last) {
				t.Fatalf("%d counters from %d on, at %d", len(got), got[0], token.Last)
			}
			return
		}
		centre := step(now, token.Period) + int64(token.Drift)
		first := max(centre-int64(w.ResyncSteps), token.Last+1, 0)
		if n := max(0, centre+int64(w.ResyncSteps)+1-first+1); int64(len(got)) != n || n > 0 && got[0] != uint64(first) {
			t.Fatalf("%d steps, want %d from %d on", len(got), n, first)
		}
	})
}

func TestResynchronisationFindsTwoConsecutiveCodesNearestFirst(t *testing.T) {
	// MACs of which the code is chosen: offset 0, the value in the first four
	// bytes.
	macOf := func(code uint32) []byte {
		m := make([]byte, 20)
		m[0], m[1], m[2], m[3] = byte(code>>24), byte(code>>16), byte(code>>8), byte(code)
		return m
	}
	macs := func(codes ...uint32) [][]byte {
		var out [][]byte
		for _, c := range codes {
			out = append(out, macOf(c))
		}
		return out
	}
	for _, c := range []struct {
		name          string
		macs          [][]byte
		first, second uint32
		near          int
		want          int
		found         bool
	}{
		{"the only place", macs(1, 2, 3, 4), 2, 3, 0, 1, true},
		{"the first pair", macs(1, 2, 3, 4), 1, 2, 3, 0, true},
		{"the last pair", macs(1, 2, 3, 4), 3, 4, 0, 2, true},
		{"the wrong way round", macs(1, 2, 3, 4), 3, 2, 0, 0, false},
		{"not consecutive", macs(1, 2, 3, 4), 1, 3, 0, 0, false},
		{"one code twice", macs(1, 2, 3, 4), 2, 2, 0, 0, false},
		{"a token that shows the same code twice", macs(1, 2, 2, 4), 2, 2, 0, 1, true},
		{"of two places the nearer, behind", macs(5, 6, 0, 0, 0, 5, 6), 5, 6, 1, 0, true},
		{"of two places the nearer, ahead", macs(5, 6, 0, 0, 0, 5, 6), 5, 6, 4, 5, true},
		{"nothing to look at", nil, 5, 6, 0, 0, false},
		{"one MAC is no pair", macs(5), 5, 5, 0, 0, false},
		{"near lies outside", macs(5, 6, 5, 6), 5, 6, 99, 2, true},
		{"near lies before", macs(5, 6, 5, 6), 5, 6, -99, 0, true},
		{"no code matches nothing", macs(1, 2), noCode, noCode, 0, 0, false},
	} {
		at, found := findPair(c.macs, 6, c.first, c.second, c.near)
		if found != c.found || found && at != c.want {
			t.Errorf("%s: %d, %v, want %d, %v", c.name, at, found, c.want, c.found)
		}
	}
}
