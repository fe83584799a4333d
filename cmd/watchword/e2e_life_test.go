package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// setRules changes the rules of the default realm.
func (n *node) setRules(change func(rules map[string]any)) {
	n.t.Helper()
	var now struct {
		Version int64
		Rules   map[string]any
	}
	n.must(http.MethodGet, "/v1/realms/default/rules", nil, &now)
	change(now.Rules)
	n.must(http.MethodPut, "/v1/realms/default/rules", map[string]any{"version": now.Version, "rules": now.Rules}, nil)
}

// gatewaysTo opens n sockets, to the nodes in turn.
func gatewaysTo(t *testing.T, n int, nodes ...*node) []*gateway {
	t.Helper()
	list := make([]*gateway, n)
	for i := range list {
		list[i] = nodes[i%len(nodes)].newGateway(t, "")
	}
	return list
}

// TestTheLifeOfUsersOnTwoNodes is the helpdesk's day on two nodes over PostgreSQL.
func TestTheLifeOfUsersOnTwoNodes(t *testing.T) {
	a, b := twoNodes(t, true)
	a.setRules(func(r map[string]any) {
		r["temporary"] = map[string]any{"allow": true, "valid_hours": 24, "uses": 10}
	})
	t.Run("a temporary passcode takes the place of a lost token", func(t *testing.T) { temporaryOn(t, a, b) })
	t.Run("a recovery code is accepted once", func(t *testing.T) { recoveryOn(t, a, b) })
	t.Run("a PIN that is due lets nobody in", func(t *testing.T) { pinDueOn(t, a, b) })
	a.wantIntactAudit()
}

// loseWithPasscode marks a token as lost, and answers its owner's passcode.
func (n *node) loseWithPasscode(serial string, uses int) (passcode, passSerial string) {
	n.t.Helper()
	var lost struct {
		State     string
		Temporary struct {
			Code  string
			Token struct{ Serial, State string }
		}
	}
	n.must(http.MethodPost, "/v1/tokens/"+serial+"/lost", map[string]any{"temporary": map[string]int{"uses": uses, "valid_minutes": 60}}, &lost)
	if lost.State != "lost" || lost.Temporary.Token.State != "active" || len(lost.Temporary.Code) != 14 {
		n.t.Fatalf("%s is %s, and the passcode %s of %d characters", serial, lost.State, lost.Temporary.Token.State, len(lost.Temporary.Code))
	}
	return lost.Temporary.Code, lost.Temporary.Token.Serial
}

func temporaryOn(t *testing.T, a, b *node) {
	const uses = 3
	nodes := []*node{a, b}
	list := newTokens("TMP", 8, true)
	a.equip(list...)
	for i, k := range list {
		// Somebody has the token and is quick, while it is marked as lost.
		var mu sync.Mutex // guards the button, lost and accepts
		var done sync.WaitGroup
		lost, accepts := false, 0
		enough := make(chan struct{})
		for j := range 4 {
			n := nodes[j%2]
			done.Go(func() {
				for range 300 {
					mu.Lock()
					code, after := k.press(), lost
					mu.Unlock()
					got := n.verify(k.user, code)
					if after {
						if got != sawReject {
							t.Errorf("%s: an attempt that began after it was lost: %s", k.serial, got)
						}
						return
					}
					if got == sawAccept {
						mu.Lock()
						if accepts++; accepts == 2 {
							close(enough)
						}
						mu.Unlock()
					}
				}
			})
		}
		select {
		case <-enough:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: too few accepts", k.serial)
		}
		code, serial := nodes[i%2].loseWithPasscode(k.serial, uses)
		mu.Lock()
		lost = true
		mu.Unlock()
		done.Wait()
		a.must(http.MethodPost, "/v1/users/"+k.user+"/unlock", nil, nil) // whatever the thief's failures were

		if i%2 == 0 {
			// It is good so many times in all, however it is typed and wherever.
			typed := []string{code, strings.ReplaceAll(code, "-", ""), strings.ToUpper(code)}
			gateways := gatewaysTo(t, 16, a, b)
			seen := atOnce(16, func(i int) sight {
				if i%4 < 2 {
					return gateways[i].login(k.user, typed[i%3], 20*time.Second)
				}
				return nodes[i%2].verify(k.user, typed[i%3])
			})
			if seen[sawAccept] != uses || seen[sawReject] != 16-uses {
				t.Errorf("%s: %v; want %d accepts", serial, seen, uses)
			}
			continue
		}
		for j := range uses - 1 {
			if got := nodes[(i+j)%2].verify(k.user, code); got != sawAccept {
				t.Fatalf("%s: use %d: %s (%s)", serial, j+1, got, a.lastAttempt(k.user).Reason)
			}
		}
		// The token comes back: the passcode ends with uses left, on both nodes.
		nodes[i/2%2].must(http.MethodPost, "/v1/tokens/"+k.serial+"/resume", map[string]string{"reason": "it was in the car"}, nil)
		for _, n := range nodes {
			if got := n.verify(k.user, code); got != sawReject {
				t.Errorf("%s: after the token was resumed: %s", serial, got)
			}
		}
		var ended struct{ State string }
		b.must(http.MethodGet, "/v1/tokens/"+serial, nil, &ended)
		if ended.State != "revoked" {
			t.Errorf("%s is %s after the token was resumed", serial, ended.State)
		}
	}
	// What the loss ended stays ended in the audit's order too.
	for _, k := range list {
		over := false
		records := a.audit(url.Values{"serial": {k.serial}})
		for i := len(records) - 1; i >= 0; i-- {
			r := &records[i]
			if r.Action == "token.lost" && r.Outcome == "ok" {
				over = true
			}
			if over && r.Action == "token.resume" && r.Outcome == "ok" {
				break
			}
			if over && r.Action == "verify" && r.Outcome == "accept" {
				t.Errorf("%s was accepted behind its loss", k.serial)
			}
		}
		if !over {
			t.Errorf("the audit does not say that %s was lost", k.serial)
		}
	}
}

func recoveryOn(t *testing.T, a, b *node) {
	nodes := []*node{a, b}
	const user = "rosa-recovers"
	a.must(http.MethodPost, "/v1/users", map[string]string{"name": user}, nil)
	var old, sheet struct {
		Token struct{ Serial, State string }
		Codes []string
	}
	a.must(http.MethodPost, "/v1/users/"+user+"/recovery", nil, &old)
	b.must(http.MethodPost, "/v1/users/"+user+"/recovery", nil, &sheet)
	if len(sheet.Codes) != 10 || sheet.Token.State != "active" {
		t.Fatalf("a sheet with %d codes, %s", len(sheet.Codes), sheet.Token.State)
	}
	if got := a.verify(user, old.Codes[0]); got != sawReject {
		t.Errorf("a code of the sheet before: %s", got)
	}
	const times = 64
	gateways := gatewaysTo(t, times, b, a)
	for _, code := range sheet.Codes[:4] {
		seen := atOnce(times, func(i int) sight {
			if i%4 < 2 {
				return gateways[i].login(user, code, 20*time.Second)
			}
			return nodes[i%2].verify(user, code)
		})
		if seen[sawAccept] != 1 || seen[sawReject] != times-1 {
			t.Errorf("one code %d times at once: %v; want one accept", times, seen)
		}
	}
	if accepts := a.audit(url.Values{"action": {"verify"}, "outcome": {"accept"}, "user": {user}}); len(accepts) != 4 {
		t.Errorf("the audit has %d accepts; want 4", len(accepts))
	}
	for _, r := range a.audit(url.Values{"action": {"verify"}, "outcome": {"reject"}, "serial": {sheet.Token.Serial}}) {
		if r.Reason != "replay" {
			t.Errorf("a reject of a used code for %q; want replay", r.Reason)
			break
		}
	}
	// The others are as good as before.
	if got := b.verify(user, sheet.Codes[9]); got != sawAccept {
		t.Errorf("another code of the sheet: %s (%s)", got, a.lastAttempt(user).Reason)
	}
}

func pinDueOn(t *testing.T, a, b *node) {
	k := newTokens("DUE", 1, true)[0]
	a.equip(k)
	change := func(n *node, key, code, pin string) (result string, status int) {
		var got struct{ Result string }
		status, _ = n.call(key, http.MethodPost, "/v1/pin", map[string]string{"user": k.user, "code": code, "new_pin": pin}, &got)
		return got.Result, status
	}
	var portal struct{ Key string }
	a.must(http.MethodPost, "/v1/keys", map[string]string{"name": "portal", "scope": "verify"}, &portal)
	if result, _ := change(a, portal.Key, k.code(k.next), "73914"); result != "reject" {
		t.Errorf("a first PIN for who has none: %q; want a reject", result)
	}
	a.must(http.MethodPut, "/v1/users/"+k.user+"/pin", map[string]any{"pin": "82905", "change": true}, nil)
	code := k.press()
	for _, way := range []func() sight{
		func() sight { return a.verify(k.user, "82905"+code) },
		func() sight { return b.newGateway(t, "").login(k.user, "82905"+code, 10*time.Second) },
	} {
		if got := way(); got != sawReject {
			t.Errorf("a PIN that is due, and the right code: %s", got)
		}
		if last := a.lastAttempt(k.user); last.Reason != "pin_change_due" {
			t.Errorf("the audit says %s; want pin_change_due", last.Reason)
		}
	}
	show := func() (failures int, due bool) {
		var shown struct {
			Failures int
			PinDue   bool `json:"pin_due"`
		}
		a.must(http.MethodGet, "/v1/users/"+k.user, nil, &shown)
		return shown.Failures, shown.PinDue
	}
	before, due := show()
	if !due {
		t.Error("the user is not shown as one whose PIN is due")
	}
	if result, status := change(a, portal.Key, "82905"+code, "1234"); status != http.StatusBadRequest {
		t.Errorf("a PIN that the rules do not allow: %d %q", status, result)
	}
	if result, _ := change(b, portal.Key, "82906"+code, "73914"); result != "reject" {
		t.Errorf("a wrong PIN: %q", result)
	}
	if failures, due := show(); failures != before+1 || !due {
		t.Errorf("after a wrong PIN: %d failures, due: %v; want one more than %d", failures, due, before)
	}
	// One of many that change it at once does; its code is spent.
	nodes := []*node{a, b}
	seen := atOnce(12, func(i int) sight {
		result, status := change(nodes[i%2], portal.Key, "82905"+code, fmt.Sprintf("7391%d", i%10))
		if status != http.StatusOK {
			return sight(fmt.Sprint("HTTP ", status))
		}
		return sight(result)
	})
	if seen[sawAccept] != 1 || seen[sawReject] != 11 {
		t.Errorf("twelve that change the PIN by one code: %v; want one accept", seen)
	}
	if _, due := show(); due {
		t.Error("the PIN is still due")
	}
	a.must(http.MethodPost, "/v1/users/"+k.user+"/unlock", nil, nil)
	// The PIN of that one, and no other, is right now.
	code, accepted := k.press(), 0
	for i := range 10 {
		if nodes[i%2].verify(k.user, fmt.Sprintf("7391%d", i)+code) == sawAccept {
			accepted++
		}
		a.must(http.MethodPost, "/v1/users/"+k.user+"/unlock", nil, nil)
	}
	if accepted != 1 {
		t.Errorf("%d of the new PINs are right", accepted)
	}
	if got := b.verify(k.user, "82905"+k.press()); got != sawReject {
		t.Errorf("the PIN that was: %s", got)
	}
}
