package radius

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	layeh "layeh.com/radius"
	"pgregory.net/rapid"

	"watchword/tokens"
)

func TestABurstOfASecondIsTakenAndNoMore(t *testing.T) {
	for _, rate := range []int{1, 2, 7, 1000, 1_000_000} {
		var b bucket
		now := time.Hour
		taken := 0
		for range rate + 1000 {
			if b.take(now, rate) {
				taken++
			}
		}
		// A rate that does not divide a second into whole nanoseconds may give one more.
		if taken < rate || taken > rate+1 {
			t.Errorf("rate %d: %d at once", rate, taken)
		}
		if now += time.Second / time.Duration(rate); !b.take(now, rate) {
			t.Errorf("rate %d: none is taken after the time of one", rate)
		}
		if b.take(now, rate) && taken == rate {
			t.Errorf("rate %d: two are taken after the time of one", rate)
		}
		b.back(rate)
		if !b.take(now, rate) {
			t.Errorf("rate %d: what was given back cannot be taken", rate)
		}
	}
}

func TestNoSpanOfTimeTakesMoreThanItsRate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b bucket
		rate := rapid.IntRange(1, 50).Draw(t, "rate")
		var taken []time.Duration
		now := time.Duration(0)
		for _, pause := range rapid.SliceOfN(rapid.IntRange(0, 400), 1, 200).Draw(t, "pauses in ms") {
			now += time.Duration(pause) * time.Millisecond
			if b.take(now, rate) {
				taken = append(taken, now)
			} else if len(taken) == 0 || taken[len(taken)-1]+2*time.Second < now {
				t.Fatalf("nothing is taken at %v after %v", now, taken)
			}
		}
		for i := range taken {
			for j := i; j < len(taken); j++ {
				if most := rate + 1 + int((taken[j]-taken[i])*time.Duration(rate)/time.Second); j-i+1 > most {
					t.Fatalf("rate %d: %d between %v and %v", rate, j-i+1, taken[i], taken[j])
				}
			}
		}
	})
}

func TestManyReadersTakeNoMoreThanOne(t *testing.T) {
	var b bucket
	var taken atomic.Int64
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				if b.take(time.Second, 500) {
					taken.Add(1)
				}
			}
		})
	}
	all.Wait()
	if taken.Load() != 500 {
		t.Errorf("%d were taken", taken.Load())
	}
}

// limited is a core whose client may send so many requests a second.
func limited(rate int, sign bool) *fakeCore {
	c := newClient("vpn", "127.0.0.0/8", secret, sign)
	c.Rate = rate
	return &fakeCore{clients: []*tokens.RADIUSClient{c}}
}

func TestAClientBeyondItsRateIsDroppedAndOthersAreNot(t *testing.T) {
	core := limited(1, true)
	core.clients = append(core.clients, newClient("other", "127.0.0.9/32", secret, true))
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	first := accessRequest(t, "alice", goodCode, secret)
	if p := n.exchange(first, secret); p.Code != layeh.CodeAccessAccept {
		t.Fatalf("the first: %v", p.Code)
	}
	for range 9 {
		n.send(accessRequest(t, "alice", "000000", secret))
	}
	h.awaitDropped(t, rateLimited, 9)
	// What is sent again is no new request.
	if p := n.exchange(first, secret); p.Code != layeh.CodeAccessAccept {
		t.Errorf("the first again: %v", p.Code)
	}
	other := gateway(t, "127.0.0.9:0", h.address())
	if p := other.exchange(accessRequest(t, "bob", goodCode, secret), secret); p.Code != layeh.CodeAccessAccept {
		t.Errorf("another client: %v", p.Code)
	}
	n.silence()
	if asked := len(core.asked()); asked != 2 {
		t.Errorf("the core was asked %d times", asked)
	}
	if h.log.lines("WARN", "more requests a second", "client=vpn") != 1 {
		t.Errorf("the log:\n%s", h.log)
	}
	time.Sleep(1100 * time.Millisecond)
	if p := n.exchange(accessRequest(t, "alice", goodCode, secret), secret); p.Code != layeh.CodeAccessAccept {
		t.Errorf("a second later: %v", p.Code)
	}
}

func TestForgedRequestsDoNotUseUpTheRateOfWhoSigns(t *testing.T) {
	for _, sign := range []bool{true, false} {
		core := limited(1, sign)
		h := serve(t, core, Config{})
		n := gateway(t, "", h.address())
		for range 20 {
			n.send(accessRequest(t, "forged", goodCode, "another secret")) // signed under another secret
			n.send(encoded(t, unsigned(t, "forged", strings.Repeat("0", 6), secret)))
		}
		h.awaitDropped(t, wrongMA, 20)
		if sign {
			h.awaitDropped(t, missingMA, 20)
		} else {
			eventually(t, "what is not signed is limited too", func() bool { return h.dropped(t, rateLimited) >= 15 })
		}
		real := gateway(t, "", h.address())
		if p := real.exchange(accessRequest(t, "alice", goodCode, secret), secret); p.Code != layeh.CodeAccessAccept {
			t.Errorf("the gateway that signs: %v", p.Code)
		}
	}
}
