package main

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"
	"time"

	"watchword/webauthn/softkey"
)

// TestKillNineNeverMakesAnAssertionGoodAgain kills the server while keys are used,
// and sends everything again that was sent before.
func TestKillNineNeverMakesAnAssertionGoodAgain(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		killKeyRounds(t, startNode(t, nodeOptions{env: keySettings}))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		killKeyRounds(t, startNode(t, nodeOptions{database: newDatabase(t), env: keySettings}))
	})
}

func killKeyRounds(t *testing.T, n *node) {
	n.trustKeys()
	var users []string
	for i := range 16 {
		users = append(users, fmt.Sprintf("crash%02d", i))
	}
	// Half of the keys count; with the others nothing but the challenge tells a
	// replay.
	keys := append(n.equipKeys(softkey.Options{}, users[:8]...), n.equipKeys(softkey.Options{ZeroCounter: true}, users[8:]...)...)
	accepts, unseen := 0, 0
	for round := range 6 {
		type shown struct {
			a   *assertion
			saw sight
		}
		var (
			mu   sync.Mutex
			all  []shown
			good int
			done sync.WaitGroup
		)
		stop := make(chan struct{})
		for _, k := range keys {
			done.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					a, err := n.touch(k)
					if err != nil { // nobody answers
						time.Sleep(20 * time.Millisecond)
						continue
					}
					s := shown{a, n.show(a)}
					mu.Lock()
					all = append(all, s)
					if s.saw == sawAccept {
						good++
					}
					mu.Unlock()
				}
			})
		}
		eventually(t, 60*time.Second, "accepts under load", func() bool { mu.Lock(); defer mu.Unlock(); return good >= 40 })
		time.Sleep(rand.N(200 * time.Millisecond))
		n.kill()
		close(stop)
		done.Wait()
		n.start()
		n.waitReady()
		before := len(acceptedChallenges(t, n))
		accepts += good
		if before < accepts {
			t.Errorf("round %d: clients saw %d accepts, and the audit has %d", round, accepts, before)
		}
		// What was accepted is spent. What was not answered may have been accepted or
		// not: sent again, it is accepted if it was not.
		for _, s := range all {
			got := n.show(s.a)
			switch {
			case s.saw == sawAccept && got != sawReject:
				t.Errorf("round %d: an assertion of %s, accepted before the crash, was answered by %q after it", round, s.a.k.user, got)
			case s.saw == sawReject:
				t.Errorf("round %d: a right assertion of %s was rejected", round, s.a.k.user)
			case s.saw != sawAccept && got == sawAccept:
				accepts++
			case s.saw != sawAccept:
				unseen++
			}
		}
		acceptedChallenges(t, n) // each of them once
		for _, k := range keys[:4] {
			if got := n.show(n.mustTouch(k)); got != sawAccept {
				t.Errorf("round %d: the next assertion of %s: %s (%s)", round, k.user, got, n.lastAttempt(k.user).Reason)
			} else {
				accepts++
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d accepts were seen; %d assertions were not answered and not good afterwards", accepts, unseen)
	n.wantIntactAudit()
}

// acceptedChallenges are the challenges whose answer the audit says was accepted.
// Each may be there once.
func acceptedChallenges(t testing.TB, n *node) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, r := range n.audit(url.Values{"action": {"verify"}, "outcome": {"accept"}}) {
		c := r.field("challenge")
		if c == "" || found[c] {
			t.Errorf("the audit says %d times that challenge %q was answered", 2, c)
		}
		found[c] = true
	}
	return found
}
