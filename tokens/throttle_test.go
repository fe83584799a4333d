package tokens

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTheWaitDoublesAfterFiveFreeFailures(t *testing.T) {
	throttle := DefaultThrottle()
	want := map[int]time.Duration{
		0: 0, 1: 0, 2: 0, 3: 0, 4: 0, 5: 0,
		6: 2 * time.Second, 7: 4 * time.Second, 8: 8 * time.Second, 9: 16 * time.Second, 10: 32 * time.Second,
		11: 64 * time.Second, 12: 128 * time.Second, 13: 256 * time.Second, 14: 512 * time.Second,
	}
	for n := 15; n <= 200; n++ { // 1024 s are more than 15 minutes
		want[n] = 15 * time.Minute
	}
	want[math.MaxInt] = 15 * time.Minute
	for n, wait := range want {
		if got := throttle.wait(n); got != wait {
			t.Errorf("after %d failures the wait is %v, want %v", n, got, wait)
		}
	}
}

func TestTheWaitNeverShrinksWithMoreFailures(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		throttle := Throttle{
			Free:   rapid.IntRange(0, 50).Draw(t, "free"),
			Wait:   time.Duration(rapid.Int64Range(1, int64(24*time.Hour)).Draw(t, "unit")),
			Max:    time.Duration(rapid.Int64Range(1, math.MaxInt64).Draw(t, "max")),
			LockAt: 100,
		}
		n := rapid.IntRange(0, 300).Draw(t, "n")
		a, b := throttle.wait(n), throttle.wait(n+1)
		switch {
		case a < 0 || a > throttle.Max:
			t.Fatalf("the wait after %d failures is %v, beyond 0 and %v", n, a, throttle.Max)
		case b < a:
			t.Fatalf("the wait after %d failures is %v, after %d it is %v", n, a, n+1, b)
		case n <= throttle.Free && a != 0:
			t.Fatalf("failure %d of %d free ones costs %v", n, throttle.Free, a)
		case n > throttle.Free && a == 0:
			t.Fatalf("failure %d costs nothing; %d are free", n, throttle.Free)
		}
	})
}

// at is a moment of the tests, with a fraction so that rounding shows.
var at = time.Unix(1_700_000_000, 123_456_789)

func TestFailuresAreThrottledForEachClientAndLockOverAll(t *testing.T) {
	throttle := DefaultThrottle()
	var s Standing
	for n := 1; n <= 99; n++ {
		s = throttle.fail(s, fmt.Sprintf("client %d", n%3), at)
		if s.Failures != n || s.Locked {
			t.Fatalf("after %d failures: %d counted, locked %v", n, s.Failures, s.Locked)
		}
	}
	for i := range 3 {
		if got := failuresOf(s, fmt.Sprintf("client %d", i)); got != 33 {
			t.Errorf("client %d has %d failures, want 33", i, got)
		}
	}
	if throttle.throttled(&s, "client 7", at) {
		t.Error("a client without failures has to wait")
	}
	if !throttle.throttled(&s, "client 1", at) {
		t.Error("a client with 33 failures need not wait")
	}
	s = throttle.fail(s, "client 7", at)
	if !s.Locked || s.Failures != 100 {
		t.Errorf("after 100 failures: %d counted, locked %v", s.Failures, s.Locked)
	}
	if c := s.clear(); c.Locked || c.Failures != 0 || len(c.Throttle) != 0 || c.Version != s.Version {
		t.Errorf("cleared, the standing is %+v", c)
	}
}

func failuresOf(s Standing, client string) int {
	for _, c := range s.Throttle {
		if c.Client == client {
			return c.Failures
		}
	}
	return 0
}

func TestAttemptsAreTurnedAwayExactlyAsLongAsTheWait(t *testing.T) {
	throttle := DefaultThrottle()
	var s Standing
	now := at.Truncate(time.Millisecond)
	for n := 1; n <= 60; n++ {
		s = throttle.fail(s, "vpn", now)
		wait := throttle.wait(n)
		for _, c := range []struct {
			after time.Duration
			want  bool
		}{
			{0, wait > 0}, {wait - time.Millisecond, wait > 0}, {wait, false}, {wait + time.Hour, false},
		} {
			if got := throttle.throttled(&s, "vpn", now.Add(c.after)); c.after >= 0 && got != c.want {
				t.Errorf("after %d failures, %v later: throttled %v, want %v", n, c.after, got, c.want)
			}
		}
	}
}

// Nodes may be five seconds apart, and a clock may be set back: free failures
// cost nothing even so, and no wait is longer than the longest.
func TestAFailureInTheFutureCostsNoMoreThanTheLongestWait(t *testing.T) {
	throttle := DefaultThrottle()
	var s Standing
	for range 5 {
		s = throttle.fail(s, "vpn", at.Add(4*time.Second))
	}
	if throttle.throttled(&s, "vpn", at) {
		t.Error("five free failures, noted by a clock 4 s ahead, make the client wait")
	}
	for range 50 {
		s = throttle.fail(s, "vpn", at.Add(48*time.Hour))
	}
	if throttle.throttled(&s, "vpn", at) {
		t.Error("the clock was set back two days, and the client has to wait them again")
	}
	if !throttle.throttled(&s, "vpn", at.Add(48*time.Hour)) {
		t.Error("with the clock right, 55 failures cost nothing")
	}
}

func TestThrottledClientsAreBoundedAndTheOldestIsForgotten(t *testing.T) {
	throttle := DefaultThrottle()
	throttle.LockAt = math.MaxInt
	var s Standing
	for n := range 10 * maxThrottled {
		s = throttle.fail(s, fmt.Sprint(n), at.Add(time.Duration(n)*time.Second))
		s = throttle.fail(s, "always", at.Add(time.Duration(n)*time.Second))
		if len(s.Throttle) > maxThrottled {
			t.Fatalf("%d clients are remembered", len(s.Throttle))
		}
	}
	if got := failuresOf(s, "always"); got != 10*maxThrottled {
		t.Errorf("the busiest client has %d failures, want %d", got, 10*maxThrottled)
	}
	if s.Failures != 20*maxThrottled {
		t.Errorf("%d failures in all, want %d", s.Failures, 20*maxThrottled)
	}
	if failuresOf(s, "0") != 0 || failuresOf(s, fmt.Sprint(10*maxThrottled-1)) != 1 {
		t.Error("not the oldest was forgotten")
	}
}

func TestFailLeavesTheStandingBeforeAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		throttle := DefaultThrottle()
		s := Standing{Version: rapid.Int64().Draw(t, "version")}
		for range rapid.IntRange(0, 2*maxThrottled).Draw(t, "failures") {
			s = throttle.fail(s, rapid.StringMatching(`[a-e][0-9]`).Draw(t, "client"), at)
		}
		before := fmt.Sprint(s)
		client := rapid.StringMatching(`[a-e][0-9]`).Draw(t, "last")
		next := throttle.fail(s, client, at.Add(time.Hour))
		if fmt.Sprint(s) != before {
			t.Fatalf("fail changed the standing that it was given: %s is now %v", before, s)
		}
		if next.Version != s.Version || next.Failures != s.Failures+1 || failuresOf(next, client) != failuresOf(s, client)+1 {
			t.Fatalf("%v became %v by a failure of %s", s, next, client)
		}
		seen := map[string]bool{}
		for _, c := range next.Throttle {
			if seen[c.Client] {
				t.Fatalf("client %s is there twice: %v", c.Client, next.Throttle)
			}
			seen[c.Client] = true
		}
	})
}
