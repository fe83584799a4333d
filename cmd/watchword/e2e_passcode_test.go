package main

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"
)

// allowPasscodes lets users have sheets of 32 recovery codes and temporary passcodes.
func (n *node) allowPasscodes() {
	n.t.Helper()
	var rules struct {
		Rules map[string]any `json:"rules"`
	}
	n.must(http.MethodGet, "/v1/realms/default/rules", nil, &rules)
	rules.Rules["recovery"] = map[string]any{"allow": true, "codes": 32}
	rules.Rules["temporary"] = map[string]any{"allow": true, "valid_hours": 1, "uses": 100}
	n.must(http.MethodPut, "/v1/realms/default/rules", rules, nil)
}

// sheet makes a user and a recovery sheet of theirs.
func (n *node) sheet(user string) (serial string, codes []string) {
	n.t.Helper()
	n.must(http.MethodPost, "/v1/users", map[string]string{"name": user}, nil)
	var made struct {
		Token struct{ Serial string }
		Codes []string
	}
	n.must(http.MethodPost, "/v1/users/"+user+"/recovery", nil, &made)
	if len(made.Codes) != 32 {
		n.t.Fatalf("%d recovery codes", len(made.Codes))
	}
	return made.Token.Serial, made.Codes
}

// left is how much is left of a passcode.
func (n *node) left(serial string) int {
	n.t.Helper()
	var t struct{ Left *int }
	n.must(http.MethodGet, "/v1/tokens/"+serial, nil, &t)
	if t.Left == nil {
		n.t.Fatalf("token %s does not say what is left of it", serial)
	}
	return *t.Left
}

// numbers says how often each number of a passcode was accepted, as the audit has it.
func (n *node) numbers(serial string) map[string]int {
	n.t.Helper()
	list := map[string]int{}
	for _, r := range n.audit(url.Values{"action": {"verify"}, "outcome": {"accept"}, "serial": {serial}}) {
		list[r.field("number")]++
	}
	return list
}

func TestAPasscodeSentSixtyFourTimesAtOnceIsAcceptedAsOftenAsItIsGood(t *testing.T) {
	passcodes := func(t *testing.T, nodes ...*node) {
		n := nodes[0]
		n.allowPasscodes()
		atOnce := func(user, code string) (accepted int) {
			var all sync.WaitGroup
			var mu sync.Mutex
			seen := map[sight]int{}
			for i := range 64 {
				all.Go(func() {
					s := nodes[i%len(nodes)].verify(user, code)
					mu.Lock()
					defer mu.Unlock()
					seen[s]++
				})
			}
			all.Wait()
			if seen[sawAccept]+seen[sawReject] != 64 {
				t.Errorf("%v; want 64 answers", seen)
			}
			return seen[sawAccept]
		}
		serial, codes := n.sheet("alice")
		for _, code := range codes[:3] {
			if got := atOnce("alice", code); got != 1 {
				t.Errorf("a recovery code was accepted %d times", got)
			}
		}
		if got := n.left(serial); got != 29 {
			t.Errorf("%d codes are left, want 29", got)
		}
		var made struct {
			Token struct{ Serial string }
			Code  string
		}
		n.must(http.MethodPost, "/v1/users/alice/temporary", map[string]int{"uses": 3, "valid_minutes": 30}, &made)
		if got := atOnce("alice", made.Code); got != 3 {
			t.Errorf("a temporary passcode that is good three times was accepted %d times", got)
		}
		if got := n.left(made.Token.Serial); got != 0 {
			t.Errorf("%d uses are left, want none", got)
		}
		if got := n.numbers(made.Token.Serial); len(got) != 3 || got["1"] != 1 || got["2"] != 1 || got["3"] != 1 {
			t.Errorf("the audit of the temporary passcode: %v", got)
		}
		n.wantIntactAudit()
	}
	t.Run("SQLite", func(t *testing.T) { passcodes(t, startNode(t, nodeOptions{})) })
	t.Run("two nodes on PostgreSQL", func(t *testing.T) {
		a, b := twoNodes(t, false)
		passcodes(t, a, b)
	})
}

// TestKillNineNeverMakesAPasscodeGoodAgain kills the server while sheets are being
// used: no code is accepted again after that, whether or not anybody heard that it
// was accepted before.
func TestKillNineNeverMakesAPasscodeGoodAgain(t *testing.T) {
	for name, database := range map[string]func(testing.TB) string{"SQLite": func(testing.TB) string { return "" }, "PostgreSQL": newDatabase} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, nodeOptions{database: database(t)})
			n.allowPasscodes()
			const users = 8
			serials, codes := make([]string, users), make([][]string, users)
			for i := range users {
				serials[i], codes[i] = n.sheet(fmt.Sprintf("user%d", i))
			}
			accepted := make([]map[int]bool, users) // by what was seen
			for i := range accepted {
				accepted[i] = map[int]bool{}
			}
			for range 3 {
				var all sync.WaitGroup
				for i := range users {
					first := len(accepted[i]) // the next ones; some were sent in vain before
					all.Go(func() {
						for k := first; k < len(codes[i]); k++ {
							switch n.verify(fmt.Sprintf("user%d", i), codes[i][k]) {
							case sawAccept:
								if accepted[i][k] {
									t.Errorf("user%d: code %d is accepted again", i, k+1)
								}
								accepted[i][k] = true
							case sawNothing, sawFault:
								return
							}
						}
					})
				}
				time.Sleep(50*time.Millisecond + rand.N(100*time.Millisecond))
				n.kill()
				all.Wait()
				n.start()
				n.waitReady()
			}
			seen := 0
			for i := range users {
				user := fmt.Sprintf("user%d", i)
				for k, code := range codes[i] {
					if n.verify(user, code) == sawAccept && accepted[i][k] {
						t.Errorf("%s: code %d is accepted again", user, k+1)
					}
				}
				numbers := n.numbers(serials[i])
				for number, times := range numbers {
					if times != 1 {
						t.Errorf("%s: the audit has %d accepts of code %s", user, times, number)
					}
				}
				for k := range accepted[i] {
					if seen++; numbers[fmt.Sprint(k+1)] != 1 {
						t.Errorf("%s: code %d was accepted, and the audit does not say so", user, k+1)
					}
				}
				if got := n.left(serials[i]); got != 0 || len(numbers) != len(codes[i]) {
					t.Errorf("%s: after all codes %d are left, %d were accepted", user, got, len(numbers))
				}
			}
			if n.wantIntactAudit(); seen < 3*users {
				t.Errorf("only %d accepts were seen: too few to prove anything", seen)
			}
		})
	}
}
