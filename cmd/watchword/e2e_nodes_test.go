package main

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestNoAcceptAfterLostOnAnotherNode: once `lost` has returned on one node, no
// node accepts a code of the token, however many attempts are under way.
func TestNoAcceptAfterLostOnAnotherNode(t *testing.T) {
	a, b := twoNodes(t, true)
	list := newTokens("L", 50, true)
	a.equip(list...)
	var all sync.WaitGroup
	slots := make(chan struct{}, 10)
	for i, k := range list {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			var (
				mu   sync.Mutex // guards lost, and the button
				lost bool
				used int
				done sync.WaitGroup
			)
			enough := make(chan struct{})
			for j := range 3 { // somebody has the token and is quick
				g := b.newGateway(t, "")
				done.Go(func() {
					for range 400 {
						mu.Lock()
						code, after := k.press(), lost
						mu.Unlock()
						got := sawNothing
						if j == 0 {
							got = g.login(k.user, code, 10*time.Second)
						} else {
							got = b.verify(k.user, code)
						}
						if after {
							if got != sawReject {
								t.Errorf("%s: an attempt that began after it was lost: %s", k.serial, got)
							}
							return
						}
						mu.Lock()
						if got == sawAccept {
							if used++; used == 3+i%5 {
								close(enough)
							}
						}
						mu.Unlock()
					}
				})
			}
			select {
			case <-enough:
			case <-time.After(20 * time.Second):
				t.Errorf("%s: too few accepts", k.serial)
			}
			if _, err := a.call(a.key, http.MethodPost, "/v1/tokens/"+k.serial+"/lost", nil, nil); err != nil {
				t.Error(err)
			}
			mu.Lock()
			lost = true
			mu.Unlock()
			done.Wait()
		})
	}
	all.Wait()
	// Nor did any attempt that was under way come through behind it: the records
	// of one user stand in the order of their commits.
	for _, k := range list {
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
	acceptedIn(t, b)
	b.wantIntactAudit()
}

// TestADeletedKeyOrClientIsRefusedOnEveryNode: what nodes remember of API keys
// and RADIUS clients never outlives them.
func TestADeletedKeyOrClientIsRefusedOnEveryNode(t *testing.T) {
	a, b := twoNodes(t, true)
	k := newTokens("K", 1, true)[0]
	a.equip(k)
	// known has f let the token in on the other node, which notices what was made
	// elsewhere with its next batch.
	known := func(f func(code string) sight) {
		t.Helper()
		b.verify("nobody", "12345678")
		if got := f(k.press()); got != sawAccept {
			t.Fatalf("what was made on one node is not known on the other: %s", got)
		}
	}
	for range 10 {
		var made struct{ ID, Key string }
		a.must(http.MethodPost, "/v1/keys", map[string]string{"name": "application", "scope": "verify"}, &made)
		known(func(code string) sight { return b.ask(made.Key, k.user, code) })
		a.must(http.MethodDelete, "/v1/keys/"+made.ID, nil, nil)
		if got := b.ask(made.Key, k.user, k.press()); !strings.HasPrefix(string(got), "HTTP 401") {
			t.Errorf("a deleted key on the other node: %s", got)
		}
	}
	for range 10 {
		const from, secret = "127.0.0.7", "a shared secret of this client alone"
		a.must(http.MethodPost, "/v1/clients", map[string]string{"name": "vpn", "prefix": from, "secret": secret}, nil)
		g := dialGateway(t, b.radius, from, secret)
		known(func(code string) sight { return g.login(k.user, code, 5*time.Second) })
		a.must(http.MethodDelete, "/v1/clients/vpn", nil, nil)
		if got := g.login(k.user, k.press(), 400*time.Millisecond); got != sawNothing {
			t.Errorf("a deleted RADIUS client on the other node: %s", got)
		}
	}
	// The codes that were refused were not looked at: the token is well.
	if got := b.verify(k.user, k.press()); got != sawAccept {
		t.Errorf("afterwards: %s (%s)", got, b.lastAttempt(k.user).Reason)
	}
}

// TestTwoNodesStartOnANewDatabaseAtTheSameMoment: one of them makes schema,
// keys and the first administrator, the other finds them.
func TestTwoNodesStartOnANewDatabaseAtTheSameMoment(t *testing.T) {
	t.Run("with data directories of their own", func(t *testing.T) {
		token := newToken(t, "")
		url := newDatabase(t)
		a := newNode(t, nodeOptions{database: url, env: token.env()})
		b := newNode(t, nodeOptions{database: url, env: token.env()})
		startTogether(t, a, b, url)
		// Five keys, one of which is a pair, and two pairs that sign statements.
		if got := token.objects(t); got != 10 {
			t.Errorf("the HSM holds %d objects; want 10", got)
		}
	})
	t.Run("with one data directory", func(t *testing.T) {
		url, dir := newDatabase(t), t.TempDir()
		startTogether(t, newNode(t, nodeOptions{database: url, dir: dir}), newNode(t, nodeOptions{database: url, dir: dir}), url)
	})
}

func startTogether(t *testing.T, a, b *node, url string) {
	t.Helper()
	a.start()
	b.start()
	for _, n := range []*node{a, b} {
		eventually(t, 60*time.Second, "ready", func() bool {
			select {
			case <-n.ended:
				t.Fatalf("a node ended with exit code %d:\n%s", n.code, lastLines(n.log(), 20))
			default:
			}
			status, _ := n.get("/readyz")
			return status == http.StatusOK
		})
	}
	if got := psql(t, url, "SELECT count(*), count(DISTINCT name) FROM hsm_keys"); got != "5|5" {
		t.Errorf("the database records %s HSM keys; want 5|5", got)
	}
	if got := psql(t, url, "SELECT count(*) FROM api_keys WHERE scope = 'admin'"); got != "1" {
		t.Errorf("there are %s administrators; want 1", got)
	}
	// The key is with the one that made it, and is good on both.
	for _, n := range []*node{a, b} {
		if text, err := readLine(n.dir + "/" + adminKeyFile); err == nil {
			a.key, b.key = text, text
		}
	}
	if a.key == "" {
		t.Fatal("no admin.key was written")
	}
	k := newTokens("S", 1, true)[0]
	a.equip(k)
	if got := b.verify(k.user, k.press()); got != sawAccept {
		t.Errorf("a token of the one on the other: %s", got)
	}
	if got := a.verify(k.user, k.code(k.next-1)); got != sawReject {
		t.Errorf("and again on the one: %s", got)
	}
}

// TestANodeThatStartsDisturbsNobody starts and ends one node over and over while
// another one, on the same HSM token, is at work.
func TestANodeThatStartsDisturbsNobody(t *testing.T) {
	a, b := twoNodes(t, false)
	list := newTokens("Y", 12, true)
	a.equip(list...)
	load := newWorkload(t, a)
	load.press(list)
	for range 4 {
		b.term()
		b.start()
		b.waitReady()
	}
	sent := load.end()
	for _, s := range sent {
		if s.saw != sawAccept {
			t.Errorf("%s: %s", s.key(), s.saw)
		}
	}
	if len(sent) < 200 {
		t.Errorf("only %d attempts: too few to prove anything", len(sent))
	}
	b.wantIntactAudit()
}

// TestAnotherHSMIsRefused: a server whose module points elsewhere says so and
// makes no keys there.
func TestAnotherHSMIsRefused(t *testing.T) {
	url := newDatabase(t)
	right := newToken(t, "")
	n := startNode(t, nodeOptions{database: url, env: right.env()})
	k := newTokens("A", 1, true)[0]
	n.equip(k)
	n.term()

	wrong := newToken(t, "")
	other := newNode(t, nodeOptions{database: url, env: wrong.env()})
	other.start()
	select {
	case <-other.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("a server with another HSM runs")
	}
	log := other.log()
	if other.code == 0 || !strings.Contains(log, "does not hold the keys of this database") || !strings.Contains(log, "hsm.token_label") {
		t.Errorf("it ended with exit code %d and said:\n%s", other.code, log)
	}
	if got := wrong.objects(t); got != 0 {
		t.Errorf("%d objects were made in the wrong HSM", got)
	}
	if got := psql(t, url, "SELECT count(*) FROM hsm_keys"); got != "5" {
		t.Errorf("the database records %s HSM keys; want 5", got)
	}
	n.start()
	n.waitReady()
	if got := n.verify(k.user, k.press()); got != sawAccept {
		t.Errorf("with the right HSM again: %s", got)
	}
}
