package console

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestABurstIsAnsweredAndThenSoManyASecond(t *testing.T) {
	var l limiter
	now := time.Unix(1_700_000_000, 0)
	for i := range limitBurst {
		if !l.take("192.0.2.1", now) {
			t.Fatalf("refused after %d", i)
		}
	}
	if l.take("192.0.2.1", now) {
		t.Error("more than a burst")
	}
	if !l.take("192.0.2.2", now) || !l.take("2001:db8::1", now) {
		t.Error("others wait for it, too")
	}
	answered := 0
	for i := range 100 {
		if l.take("192.0.2.1", now.Add(time.Duration(i)*10*time.Millisecond)) {
			answered++
		}
	}
	if answered != int(time.Second/limitEach)-1 {
		t.Errorf("%d answered within a second", answered)
	}
	if !l.take("192.0.2.1", now.Add(time.Hour)) {
		t.Error("refused for ever")
	}
}

func TestAddressesOfOneNetworkCountTogether(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.1:4711", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"2001:db8:0:1::1", "2001:db8:0:1:ffff::2", true},
		{"2001:db8:0:1::1", "2001:db8:0:2::1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
		{"@", "", true},
		{"@", "192.0.2.1", false},
	} {
		if got := prefixOf(tt.a) == prefixOf(tt.b); got != tt.same {
			t.Errorf("%q and %q: %v", tt.a, tt.b, got)
		}
	}
}

// However many addresses ask, the table stays as small as it is, and one that asks
// too much is not forgotten for those that ask little.
func TestTheTableOfAddressesIsBounded(t *testing.T) {
	var l limiter
	now := time.Unix(1_700_000_000, 0)
	for l.take("192.0.2.1", now) {
	}
	for i := range 3 * limitTable {
		if !l.take(fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff), now) {
			t.Fatalf("address %d is refused", i)
		}
		if len(l.full) > limitTable {
			t.Fatalf("%d addresses", len(l.full))
		}
	}
	if l.take("192.0.2.1", now) {
		t.Error("who asked too much was forgotten")
	}
}

func TestNobodyIsAnsweredMoreThanTheLimitAllows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l limiter
		now, start, answered := time.Unix(1_700_000_000, 0), time.Unix(1_700_000_000, 0), 0
		for range rapid.IntRange(1, 500).Draw(t, "requests") {
			now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "ms")) * time.Millisecond)
			if l.take("192.0.2.1", now) {
				answered++
			}
			if most := limitBurst + int(now.Sub(start)/limitEach); answered > most {
				t.Fatalf("%d answered in %v", answered, now.Sub(start))
			}
		}
	})
}
