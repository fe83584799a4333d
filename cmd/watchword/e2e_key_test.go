package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/webauthn/softkey"
)

// keyOrigin is where the browsers of these tests say that they are. Keys in
// software do not look who listens there.
const keyOrigin = "https://login.example.org"

// keySettings make a node a relying party at keyOrigin.
var keySettings = []string{`WATCHWORD_FIDO_PARTIES=[{id: example.org, name: Example Corp, origins: ["` + keyOrigin + `"]}]`}

// A heldKey is a FIDO key in software, in somebody's hands.
type heldKey struct {
	*softkey.Key
	user   string
	serial string // once it is enrolled
}

// vendor made the keys of these tests.
var vendor = sync.OnceValues(func() (*softkey.Vendor, error) { return softkey.NewVendor("Example Keys") })

func newHeldKey(t testing.TB, user string, o softkey.Options) *heldKey {
	t.Helper()
	var err error
	if o.Vendor == nil {
		if o.Vendor, err = vendor(); err != nil {
			t.Fatal(err)
		}
	}
	k := &heldKey{user: user}
	if k.Key, err = softkey.New(o); err != nil {
		t.Fatal(err)
	}
	return k
}

// trustKeys makes the root of the tests' keys one of the server's own.
func (n *node) trustKeys() {
	n.t.Helper()
	v, err := vendor()
	if err != nil {
		n.t.Fatal(err)
	}
	n.must(http.MethodPut, "/v1/fido/roots", map[string]string{"pem": string(v.RootPEM())}, nil)
}

// ceremony is what a server asks a key.
type ceremony struct {
	Options json.RawMessage `json:"options"`
	Session string          `json:"session"`
}

// enrolKey registers a key for its user, who must be there.
func (n *node) enrolKey(k *heldKey) (status int, err error) {
	var begun ceremony
	if status, err := n.call(n.key, http.MethodPost, "/v1/webauthn/register/begin", map[string]any{"user": k.user}, &begun); err != nil {
		return status, err
	}
	response, err := k.Register(begun.Options, keyOrigin)
	if err != nil {
		return 0, err
	}
	var made struct{ Serial, State, Type string }
	status, err = n.call(n.key, http.MethodPost, "/v1/webauthn/register/finish",
		map[string]any{"session": begun.Session, "response": json.RawMessage(response)}, &made)
	if err == nil && (made.Serial == "" || made.State != "active" || made.Type != "fido") {
		err = fmt.Errorf("what was enrolled is %+v", made)
	}
	k.serial = made.Serial
	return status, err
}

// equipKeys makes users of these names, each with a key of its own.
func (n *node) equipKeys(o softkey.Options, users ...string) []*heldKey {
	n.t.Helper()
	var list []*heldKey
	for _, user := range users {
		n.must(http.MethodPost, "/v1/users", map[string]string{"name": user}, nil)
		k := newHeldKey(n.t, user, o)
		if _, err := n.enrolKey(k); err != nil {
			n.t.Fatal(err)
		}
		list = append(list, k)
	}
	return list
}

// An assertion is a key's answer to a login, not yet sent.
type assertion struct {
	k    *heldKey
	body map[string]any
}

// touch begins a login on the node and has the key answer it.
func (n *node) touch(k *heldKey) (*assertion, error) {
	var begun ceremony
	if _, err := n.call(n.key, http.MethodPost, "/v1/webauthn/login/begin", map[string]string{"user": k.user}, &begun); err != nil {
		return nil, err
	}
	response, err := k.Assert(begun.Options, keyOrigin)
	if err != nil {
		return nil, err
	}
	return &assertion{k: k, body: map[string]any{"session": begun.Session, "response": json.RawMessage(response)}}, nil
}

// mustTouch is touch where nothing stands in the way.
func (n *node) mustTouch(k *heldKey) *assertion {
	n.t.Helper()
	a, err := n.touch(k)
	if err != nil {
		n.t.Fatal(err)
	}
	return a
}

// show sends an assertion.
func (n *node) show(a *assertion) sight {
	var got struct{ Result, Serial string }
	status, err := n.call(n.key, http.MethodPost, "/v1/webauthn/login/finish", a.body, &got)
	switch {
	case status == http.StatusOK && err == nil && got.Result == "accept" && got.Serial == a.k.serial:
		return sawAccept
	case status == http.StatusOK && err == nil && got.Result == "reject":
		return sawReject
	case status == http.StatusServiceUnavailable:
		return sawFault
	case status == 0:
		return sawNothing
	}
	return sight(fmt.Sprintf("HTTP %d, %s: %v", status, got.Serial, err))
}

// twoKeyNodes are two nodes on PostgreSQL that are the same relying party.
func twoKeyNodes(t *testing.T) (a, b *node) {
	t.Helper()
	o := nodeOptions{database: newDatabase(t), env: append(newToken(t, "").env(), keySettings...)}
	a = startNode(t, o)
	a.trustKeys()
	o.keysFrom = a
	return a, startNode(t, o)
}

func TestAKeyIsEnrolledAndSignsInOverHTTP(t *testing.T) {
	n := startNode(t, nodeOptions{env: keySettings})
	n.must(http.MethodPost, "/v1/users", map[string]string{"name": "alice"}, nil)
	k := newHeldKey(t, "alice", softkey.Options{})
	// Of a model that nobody vouches for it is refused, and the audit says why.
	if status, err := n.enrolKey(k); status < 400 || status > 499 || !strings.Contains(err.Error(), "no metadata") {
		t.Fatalf("a model that nobody vouches for: %d, %v", status, err)
	}
	refused := n.audit(url.Values{"user": {"alice"}, "action": {"key.enrol"}})
	if len(refused) != 1 || refused[0].Outcome == "ok" || !strings.Contains(refused[0].field("why"), "no metadata") {
		t.Errorf("the audit says %+v", refused)
	}
	n.trustKeys()
	if _, err := n.enrolKey(k); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		a := n.mustTouch(k)
		if got := n.show(a); got != sawAccept {
			t.Fatalf("its first assertion: %s (%+v)", got, n.lastAttempt("alice"))
		}
		if got := n.show(a); got != sawReject || n.lastAttempt("alice").Reason != "replay" {
			t.Errorf("the same again: %s (%s)", got, n.lastAttempt("alice").Reason)
		}
	}
	// A copy that was used less gives itself away, and with it the key.
	copied := &heldKey{Key: k.Clone(), user: k.user, serial: k.serial}
	if got := n.show(n.mustTouch(k)); got != sawAccept {
		t.Fatalf("before the copy is used: %s", got)
	}
	if got := n.show(n.mustTouch(copied)); got != sawReject || n.lastAttempt("alice").Reason != "cloned" {
		t.Errorf("a copy: %s (%s)", got, n.lastAttempt("alice").Reason)
	}
	var token struct{ State string }
	if n.must(http.MethodGet, "/v1/tokens/"+k.serial, nil, &token); token.State != "suspended" {
		t.Errorf("after a copy was used the key is %s", token.State)
	}
	n.wantIntactAudit()
}

// TestAnAssertionSentTwoHundredTimesAtOnceIsAcceptedOnce is the second promise,
// for keys.
func TestAnAssertionSentTwoHundredTimesAtOnceIsAcceptedOnce(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		n := startNode(t, nodeOptions{env: keySettings})
		n.trustKeys()
		assertOnceOn(t, n)
	})
	t.Run("two nodes on PostgreSQL", func(t *testing.T) {
		a, b := twoKeyNodes(t)
		assertOnceOn(t, a, b)
	})
}

func assertOnceOn(t *testing.T, nodes ...*node) {
	const at = 200
	counting := nodes[0].equipKeys(softkey.Options{}, "counts")[0]
	silent := nodes[0].equipKeys(softkey.Options{ZeroCounter: true}, "silent")[0] // nothing but the challenge tells a replay
	for round := range 3 {
		for _, k := range []*heldKey{counting, silent} {
			a := nodes[round%len(nodes)].mustTouch(k)
			seen := atOnce(at, func(i int) sight { return nodes[i%len(nodes)].show(a) })
			if seen[sawAccept] != 1 || seen[sawReject] != at-1 {
				t.Errorf("key of %s: %v; want one accept and %d rejects", k.user, seen, at-1)
			}
			accepts := nodes[0].audit(url.Values{"action": {"verify"}, "outcome": {"accept"}, "user": {k.user}})
			rejects := nodes[0].audit(url.Values{"action": {"verify"}, "outcome": {"reject"}, "user": {k.user}})
			if len(accepts) != round+1 || len(rejects) != (round+1)*(at-1) {
				t.Errorf("key of %s: the audit has %d accepts and %d rejects", k.user, len(accepts), len(rejects))
			}
			for _, r := range rejects {
				if r.Reason != "replay" {
					t.Errorf("key of %s: a reject for %q; want replay", k.user, r.Reason)
					break
				}
			}
		}
	}
	nodes[0].wantIntactAudit()
}

// TestNoKeyIsAcceptedAfterItWasLostOnAnotherNode: once `lost` has returned on one
// node, no node accepts an assertion of the key, neither one that was begun before
// nor a new one.
func TestNoKeyIsAcceptedAfterItWasLostOnAnotherNode(t *testing.T) {
	a, b := twoKeyNodes(t)
	for i := range 20 {
		user := fmt.Sprintf("lost%02d", i)
		k := a.equipKeys(softkey.Options{ZeroCounter: true}, user)[0]
		if got := b.show(b.mustTouch(k)); got != sawAccept {
			t.Fatalf("%s before: %s", user, got)
		}
		var (
			mu     sync.Mutex
			lost   bool
			used   int
			enough = make(chan struct{})
			done   sync.WaitGroup
		)
		for range 3 { // somebody has the key and is quick
			done.Go(func() {
				for range 200 {
					as, err := b.touch(k)
					mu.Lock()
					after := lost
					mu.Unlock()
					if err != nil { // it is lost: the server offers what the key does not know
						return
					}
					got := b.show(as)
					if after {
						if got != sawReject {
							t.Errorf("%s: an assertion sent after it was lost: %s", user, got)
						}
						return
					}
					mu.Lock()
					if got == sawAccept {
						if used++; used == 2+i%4 {
							close(enough)
						}
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-enough:
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: too few accepts", user)
		}
		before := b.mustTouch(k)
		a.must(http.MethodPost, "/v1/tokens/"+k.serial+"/lost", nil, nil)
		mu.Lock()
		lost = true
		mu.Unlock()
		if got := b.show(before); got != sawReject || b.lastAttempt(user).Reason != "lost_token_used" {
			t.Errorf("%s: a login that was begun before: %s (%s)", user, got, b.lastAttempt(user).Reason)
		}
		done.Wait()
		// Nor did any that was under way come through behind it.
		over := false
		records := a.audit(url.Values{"serial": {k.serial}})
		for i := len(records) - 1; i >= 0; i-- {
			r := &records[i]
			over = over || r.Action == "token.lost" && r.Outcome == "ok"
			if over && r.Action == "verify" && r.Outcome == "accept" {
				t.Errorf("%s was accepted behind its loss", k.serial)
			}
		}
		if !over {
			t.Errorf("the audit does not say that %s was lost", k.serial)
		}
	}
	b.wantIntactAudit()
}

// TestTheLimitOfTokensCountsKeysAndCodesTogether enrols more than a user can hold,
// of both kinds and on two nodes at once.
func TestTheLimitOfTokensCountsKeysAndCodesTogether(t *testing.T) {
	const limit = 8
	a, b := twoKeyNodes(t)
	codes := newTokens("M", limit, true)
	a.importFile(shipment(codes), len(codes))
	a.must(http.MethodPost, "/v1/users", map[string]string{"name": "magpie"}, nil)
	var (
		done sync.WaitGroup
		mu   sync.Mutex
		held int
	)
	count := func(status int, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil:
			held++
		case status != http.StatusConflict:
			t.Errorf("one too many was answered by %d: %v", status, err)
		}
	}
	fire := make(chan struct{})
	for i := range limit {
		k := newHeldKey(t, "magpie", softkey.Options{})
		done.Go(func() {
			<-fire
			count([]*node{a, b}[i%2].enrolKey(k))
		})
		done.Go(func() {
			<-fire
			count([]*node{b, a}[i%2].call(a.key, http.MethodPost, "/v1/tokens/"+codes[i].serial+"/assign", map[string]string{"user": "magpie"}, nil))
		})
	}
	close(fire)
	done.Wait()
	var has struct{ Items []struct{ Type string } }
	a.must(http.MethodGet, "/v1/tokens?user=magpie", nil, &has)
	kinds := map[string]int{}
	for _, k := range has.Items {
		kinds[k.Type]++
	}
	if held != limit || len(has.Items) != limit {
		t.Errorf("%d were handed out, and %d are held: %v; want %d", held, len(has.Items), kinds, limit)
	}
	if status, err := a.enrolKey(newHeldKey(t, "magpie", softkey.Options{})); status != http.StatusConflict {
		t.Errorf("one more key: %d, %v", status, err)
	}
	a.wantIntactAudit()
}
