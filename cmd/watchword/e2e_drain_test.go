package main

import (
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestDrainAnswersAllThatWasTaken ends the server by SIGTERM under load. What
// was taken on is answered: the audit has no accept of which no client heard.
func TestDrainAnswersAllThatWasTaken(t *testing.T) {
	for _, where := range []string{"SQLite", "PostgreSQL"} {
		t.Run(where, func(t *testing.T) {
			o := nodeOptions{}
			if where == "PostgreSQL" {
				o.database = newDatabase(t)
			}
			n := startNode(t, o)
			list := newTokens("D", 48, true)
			n.equip(list...)
			seen := map[string]bool{}
			for range 3 {
				load := newWorkload(t, n)
				load.press(list)
				eventually(t, 20*time.Second, "accepts under load", func() bool { return load.accepts() >= 100 })
				n.term()
				if n.code != 0 {
					t.Errorf("the server ended with exit code %d", n.code)
				}
				sent := load.end()
				n.start()
				n.waitReady()

				durable := acceptedIn(t, n)
				for _, s := range sent {
					switch {
					case s.saw == sawAccept:
						seen[s.key()] = true
						if !durable[s.key()] {
							t.Errorf("the accept of %s is not in the audit", s.key())
						}
					case durable[s.key()]:
						t.Errorf("the code of %s was accepted, and its client heard: %s", s.key(), s.saw)
					case s.saw != sawNothing && s.saw != sawFault && s.saw != sawReject:
						t.Errorf("%s: %s", s.key(), s.saw)
					}
				}
				for key := range durable {
					if !seen[key] {
						t.Errorf("the audit has an accept of %s that nobody heard of", key)
					}
				}
				if t.Failed() {
					return
				}
				// The next round begins within the look-ahead of each token.
				for _, s := range sent[len(sent)-min(len(sent), 20):] {
					if s.saw == sawAccept {
						if got := n.verify(s.k.user, s.k.code(s.factor)); got != sawReject {
							t.Errorf("the code of %s, accepted before, was answered by %s", s.key(), got)
						}
					}
				}
			}
			n.wantIntactAudit()
		})
	}
}

// TestOverloadShedsAndAcceptsNothingTwice sends more at once than the server
// takes on. What is shed is not judged: the same code is good later.
func TestOverloadShedsAndAcceptsNothingTwice(t *testing.T) {
	token := newToken(t, shimModule)
	n := startNode(t, nodeOptions{env: append(token.env(), "WATCHWORD_VERIFY_QUEUE=16", "WATCHWORD_RADIUS_MAX_IN_WORK=24")})
	list := newTokens("O", 200, true)
	n.equip(list...)
	// So slow that the queues are full.
	token.shim.Delay(5*time.Millisecond, "C_Sign")

	type outcome struct {
		g       *gateway
		request []byte
		code    string
		saw     sight
	}
	all := make([]outcome, len(list))
	var done sync.WaitGroup
	for i, k := range list {
		x := &all[i]
		x.code = k.press()
		if i%2 == 0 {
			done.Go(func() { x.saw = n.verify(k.user, x.code) })
			continue
		}
		x.g = n.newGateway(t, "")
		x.request = x.g.request(k.user, x.code, true)
		done.Go(func() {
			if err := x.g.send(x.request); err != nil {
				x.saw = sight(err.Error())
				return
			}
			x.saw = x.g.await(x.request, 8*time.Second)
		})
	}
	done.Wait()
	token.shim.Clear()
	if status, _ := n.get("/readyz"); status != http.StatusOK {
		t.Errorf("/readyz says %d after an overload", status)
	}
	seen := map[sight]int{}
	for i, k := range list {
		x := &all[i]
		seen[x.saw]++
		// Who was shed tries again, a gateway with the same bytes.
		again, want := sawNothing, sawReject
		if x.saw == sawFault || x.saw == sawNothing {
			want = sawAccept
		}
		switch {
		case x.g == nil:
			again = n.verify(k.user, x.code)
		case x.saw == sawNothing:
			if err := x.g.send(x.request); err != nil {
				t.Fatal(err)
			}
			again = x.g.await(x.request, 5*time.Second)
		default:
			again = x.g.login(k.user, x.code, 5*time.Second)
		}
		if again != want {
			t.Errorf("%s: first %s, then %s; want %s", k.serial, x.saw, again, want)
		}
		if x.g == nil && x.saw == sawNothing {
			t.Errorf("%s: an HTTP request was not answered", k.serial)
		}
	}
	t.Logf("at once: %v", seen)
	if seen[sawAccept] == 0 || seen[sawFault] == 0 || seen[sawNothing] == 0 {
		t.Errorf("at once: %v; want some accepted, some shed over HTTP and some over RADIUS", seen)
	}
	if got := len(acceptedIn(t, n)); got != len(list) {
		t.Errorf("%d accepts for %d codes", got, len(list))
	}
}
