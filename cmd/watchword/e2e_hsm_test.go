package main

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Return values of PKCS#11 v2.40.
const (
	ckrGeneralError         = 0x05
	ckrDeviceError          = 0x30
	ckrDeviceRemoved        = 0x32
	ckrSessionHandleInvalid = 0xB3
	ckrTokenNotPresent      = 0xE0
)

// outage is a load of right and wrong codes, and what came of each.
type outage struct {
	t     *testing.T
	n     *node
	stop  chan struct{}
	done  sync.WaitGroup
	mu    sync.Mutex
	tries []try
}

type try struct {
	began, ended  time.Time
	right, radius bool
	saw           sight
	what          string
}

// run lets each token's owner send codes, over HTTP or RADIUS: right ones, and
// between them wrong ones of the kind that wrong makes. A right code that was
// not answered is sent again until it is.
func (o *outage) run(list []*hardToken, wrong func(k *hardToken) string) {
	for i, k := range list {
		overRADIUS := i%2 == 1
		g := o.n.newGateway(o.t, "")
		o.done.Go(func() {
			for {
				for _, right := range []bool{true, false} {
					select {
					case <-o.stop:
						return
					case <-time.After(rand.N(40 * time.Millisecond)):
					}
					code := k.code(k.next)
					if !right {
						code = wrong(k)
					}
					x := try{began: time.Now(), right: right, radius: overRADIUS, what: k.serial}
					if overRADIUS {
						x.saw = g.login(k.user, code, 700*time.Millisecond)
					} else {
						x.saw = o.n.verify(k.user, code)
					}
					x.ended = time.Now()
					if right && x.saw == sawReject && overRADIUS && o.unanswered(k) {
						// An answer of before was lost on the way: it was taken.
						x.right = false
					}
					if right && (x.saw == sawAccept || x.saw == sawReject) {
						k.next++
					}
					o.mu.Lock()
					o.tries = append(o.tries, x)
					o.mu.Unlock()
				}
			}
		})
	}
}

// unanswered says whether the last try of a token over RADIUS had no answer.
func (o *outage) unanswered(k *hardToken) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := len(o.tries) - 1; i >= 0; i-- {
		if o.tries[i].what == k.serial && o.tries[i].right {
			return o.tries[i].saw == sawNothing
		}
	}
	return false
}

func (o *outage) end() []try {
	close(o.stop)
	o.done.Wait()
	return o.tries
}

// count counts the tries that lie wholly within a time.
func count(tries []try, from, to time.Time) (seen map[sight]int) {
	seen = map[sight]int{}
	for _, x := range tries {
		if x.began.After(from) && x.ended.Before(to) {
			seen[x.saw]++
		}
	}
	return seen
}

// TestAFailingHSMNeverAcceptsAndComesBackByItself has the HSM fail under load in
// each of the ways that HSMs do.
func TestAFailingHSMNeverAcceptsAndComesBackByItself(t *testing.T) {
	token := newToken(t, shimModule)
	n := startNode(t, nodeOptions{env: append(token.env(), "WATCHWORD_HSM_STUCK_AFTER=400ms", "WATCHWORD_HTTP_TIMEOUT=10s")})
	list := newTokens("F", 24, true)
	n.equip(list...)
	shim := token.shim
	for _, f := range []struct {
		name  string
		lasts time.Duration
		fail  func()
		after time.Duration // until it is felt
	}{
		{"a device error, ten seconds long", 10 * time.Second, func() { shim.Fail(ckrDeviceError) }, 300 * time.Millisecond},
		{"sessions lost", 1500 * time.Millisecond, func() { shim.Fail(ckrSessionHandleInvalid) }, 300 * time.Millisecond},
		{"the token taken out", 1500 * time.Millisecond, func() { shim.Fail(ckrTokenNotPresent) }, 300 * time.Millisecond},
		{"signing fails, all else works", 1500 * time.Millisecond, func() { shim.Fail(ckrDeviceRemoved, "C_Sign") }, 300 * time.Millisecond},
		{"a call that hangs", 4 * time.Second, func() { shim.Delay(time.Minute, "C_Sign", "C_SignInit") }, 1500 * time.Millisecond},
	} {
		t.Run(f.name, func(t *testing.T) {
			o := &outage{t: t, n: n, stop: make(chan struct{})}
			o.run(list, wrongCode)
			time.Sleep(500 * time.Millisecond)
			began := time.Now()
			f.fail()
			felt := began.Add(f.after)
			time.Sleep(time.Until(felt))
			for time.Since(began) < f.lasts {
				if status, body := n.get("/readyz"); status != http.StatusServiceUnavailable {
					t.Errorf("/readyz says %d, %s", status, body)
				}
				time.Sleep(100 * time.Millisecond)
			}
			back := time.Now()
			shim.Clear()
			took := eventually(t, 10*time.Second, "an accept after the HSM came back", func() bool {
				o.mu.Lock()
				defer o.mu.Unlock()
				for i := len(o.tries) - 1; i >= 0; i-- {
					if x := o.tries[i]; x.began.After(back) && x.saw == sawAccept {
						return true
					}
				}
				return false
			})
			if took > 2*time.Second {
				t.Errorf("it took %v from the HSM's return to the first accept; want two seconds at most", took)
			}
			eventually(t, 2*time.Second, "ready after the HSM came back", func() bool {
				status, _ := n.get("/readyz")
				return status == http.StatusOK
			})
			well := time.Now()
			time.Sleep(700 * time.Millisecond)
			tries := o.end()

			during := count(tries, felt, back)
			if during[sawAccept] > 0 || during[sawReject] > 0 || during[sawFault] == 0 || during[sawNothing] == 0 {
				t.Errorf("while the HSM failed: %v; want 503 over HTTP, silence over RADIUS, and nothing else", during)
			}
			for _, x := range tries {
				switch {
				case x.saw == sawAccept && !x.right:
					t.Errorf("a wrong code was accepted for %s", x.what)
				case x.saw == sawNothing && !x.radius:
					t.Errorf("an HTTP request for %s was not answered", x.what)
				case x.saw == sawFault && x.radius, x.saw != sawAccept && x.saw != sawReject && x.saw != sawFault && x.saw != sawNothing:
					t.Errorf("%s: %s", x.what, x.saw)
				case x.began.After(well) && x.right && x.saw != sawAccept:
					t.Errorf("after the HSM came back, a right code of %s: %s", x.what, x.saw)
				}
			}
			after := count(tries, well, time.Now())
			t.Logf("during: %v; first accept %v after the return; then %v", during, took.Round(time.Millisecond), after)
			if after[sawAccept] < 20 {
				t.Errorf("after the HSM came back: %v", after)
			}
		})
	}
	if v := shim.Violations(); len(v) > 0 {
		t.Errorf("the module was called as it must not be: %q", v[:min(5, len(v))])
	}
	acceptedIn(t, n)
	n.wantIntactAudit()
}

func wrongCode(k *hardToken) string { return k.code(k.next + 1<<40) }

// TestARenumberedHSMNeverAnswersWithAnotherTokensCodes restarts the HSM under
// load: its old handles then name other keys.
func TestARenumberedHSMNeverAnswersWithAnotherTokensCodes(t *testing.T) {
	token := newToken(t, shimModule)
	n := startNode(t, nodeOptions{env: token.env()})
	list := newTokens("N", 120, true)
	n.equip(list...)
	for _, k := range list { // warm: each seed has a handle
		if got := n.verify(k.user, k.press()); got != sawAccept {
			t.Fatalf("%s: %s", k.serial, got)
		}
	}
	// People who type the code of somebody else's token. Whoever uses a stale
	// handle takes the one for the other.
	busy := list[:24]
	o := &outage{t: t, n: n, stop: make(chan struct{})}
	o.run(busy, func(k *hardToken) string {
		other := list[24+rand.IntN(len(list)-24)]
		return other.code(other.next)
	})
	const restarts = 8
	for range restarts {
		time.Sleep(300*time.Millisecond + rand.N(200*time.Millisecond))
		token.shim.Restart()
	}
	well := time.Now().Add(2 * time.Second)
	time.Sleep(3 * time.Second)
	tries := o.end()
	for _, x := range tries {
		if x.saw == sawAccept && !x.right {
			t.Errorf("a code of another token was accepted for %s", x.what)
		}
		if x.began.After(well) && x.right && x.saw != sawAccept {
			t.Errorf("after the last restart, a right code of %s: %s", x.what, x.saw)
		}
	}
	// Every token of the lot, each with its own code and not with its neighbour's.
	for i, k := range list[24:] {
		if got := n.verify(k.user, list[24+(i+1)%(len(list)-24)].code(0)); got != sawReject {
			t.Errorf("the code of another token for %s: %s", k.serial, got)
		}
		if got := n.verify(k.user, k.press()); got != sawAccept {
			t.Errorf("%s: %s", k.serial, got)
		}
	}
	if v := token.shim.Violations(); len(v) > 0 {
		t.Errorf("the module was called as it must not be: %q", v[:min(5, len(v))])
	}
	if logins := token.shim.Logins(); logins < restarts {
		t.Errorf("%d logins for %d restarts: the HSM was not restarted in earnest", logins, restarts)
	}
	seen := count(tries, time.Time{}, time.Now())
	t.Logf("over %d restarts: %v", restarts, seen)
	if seen[sawAccept] < 100 || seen[sawReject] < 100 {
		t.Errorf("too little load to prove anything: %v", seen)
	}
	n.wantIntactAudit()
}
