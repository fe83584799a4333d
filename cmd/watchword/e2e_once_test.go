package main

import (
	"bytes"
	"fmt"
	"net/url"
	"sync"
	"testing"
	"time"
)

// TestACodeSentTwoHundredTimesAtOnceIsAcceptedOnce is the second promise: a
// code is accepted at most once, whatever way it comes and on whatever node.
func TestACodeSentTwoHundredTimesAtOnceIsAcceptedOnce(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		onceOn(t, startNode(t, nodeOptions{}))
	})
	t.Run("two nodes on PostgreSQL with data directories of their own", func(t *testing.T) {
		a, b := twoNodes(t, false)
		onceOn(t, a, b)
	})
	t.Run("two nodes on PostgreSQL with one data directory", func(t *testing.T) {
		a, b := twoNodes(t, true)
		onceOn(t, a, b)
	})
}

// twoNodes starts two nodes on one new PostgreSQL database and one SoftHSM
// token: that of the data directory that they share, or one that both are told
// of. env is what both get besides.
func twoNodes(t *testing.T, sharedDir bool, env ...string) (a, b *node) {
	t.Helper()
	o := nodeOptions{database: newDatabase(t), env: env}
	if sharedDir {
		o.dir = t.TempDir()
	} else {
		o.env = append(o.env, newToken(t, "").env()...)
	}
	a = startNode(t, o)
	o.keysFrom = a
	return a, startNode(t, o)
}

func onceOn(t *testing.T, nodes ...*node) {
	const rounds = 3
	totp := newTokens("T", rounds, false)
	hotp := newTokens("H", rounds, true)
	nodes[0].equip(append(totp, hotp...)...)
	for i := range rounds {
		soonInStep(t, 10*time.Second)
		code, _ := totp[i].shown()
		sendAtOnce(t, totp[i], code, nodes...)
		sendAtOnce(t, hotp[i], hotp[i].press(), nodes...)
	}
	nodes[0].wantIntactAudit()
}

// atOnce does the same many times at the same moment, and counts what came of it.
// f gets numbers from zero.
func atOnce(times int, f func(i int) sight) map[sight]int {
	var (
		ready, done sync.WaitGroup
		fire        = make(chan struct{})
		mu          sync.Mutex
		seen        = map[sight]int{}
	)
	for i := range times {
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-fire
			s := f(i)
			mu.Lock()
			defer mu.Unlock()
			seen[s]++
		})
	}
	ready.Wait()
	close(fire)
	done.Wait()
	return seen
}

// sendAtOnce sends one code 200 times: half by RADIUS, each from a socket of
// its own, and half by HTTP, each on a connection of its own, to all nodes
// in turn. Exactly one may be accepted, and all must be answered.
func sendAtOnce(t *testing.T, k *hardToken, code string, nodes ...*node) {
	t.Helper()
	const half = 100
	var attempts []func() sight
	for i := range half {
		n := nodes[i%len(nodes)]
		g := n.newGateway(t, "")
		request := g.request(k.user, code, true)
		attempts = append(attempts, func() sight {
			if err := g.send(request); err != nil {
				return sight(err.Error())
			}
			return g.await(request, 20*time.Second)
		}, func() sight { return n.verify(k.user, code) })
	}
	seen := atOnce(len(attempts), func(i int) sight { return attempts[i]() })
	if seen[sawAccept] != 1 || seen[sawReject] != 2*half-1 {
		t.Errorf("token %s: %v; want one accept and %d rejects", k.serial, seen, 2*half-1)
	}
	// The audit says the same.
	accepts := nodes[0].audit(url.Values{"action": {"verify"}, "outcome": {"accept"}, "user": {k.user}})
	rejects := nodes[0].audit(url.Values{"action": {"verify"}, "outcome": {"reject"}, "user": {k.user}})
	if len(accepts) != 1 || len(rejects) != 2*half-1 {
		t.Errorf("token %s: the audit has %d accepts and %d rejects", k.serial, len(accepts), len(rejects))
	}
	for _, r := range rejects {
		if r.Reason != "replay" {
			t.Errorf("token %s: a reject for %q; want replay", k.serial, r.Reason)
			break
		}
	}
}

// TestARetransmissionGetsTheSameReply: a gateway that lost the reply sends the
// same bytes from the same socket and must be told the same, while the same code
// in a new request is a replay.
func TestARetransmissionGetsTheSameReply(t *testing.T) {
	token := newToken(t, shimModule)
	n := startNode(t, nodeOptions{env: token.env()})
	list := newTokens("R", 12, true)
	n.equip(list...)
	// The HSM is slow, so that retransmissions come while the first is in work.
	token.shim.Delay(60*time.Millisecond, "C_Sign")
	for i, k := range list {
		if i == len(list)/2 {
			token.shim.Clear()
		}
		t.Run(fmt.Sprint(k.serial), func(t *testing.T) {
			g := n.newGateway(t, "")
			code := k.press()
			request := g.request(k.user, code, true)
			var replies [][]byte
			take := func() {
				reply, err := g.receive(request, 10*time.Second)
				if err != nil || reply == nil {
					t.Fatalf("no right reply: %v", err)
				}
				replies = append(replies, reply)
			}
			for range 3 { // before there can be an answer
				if err := g.send(request); err != nil {
					t.Fatal(err)
				}
			}
			take()
			// Retransmissions that came during the work are answered together with
			// the first, or were taken from the cache; either way the same bytes.
			for range 3 {
				if err := g.send(request); err != nil {
					t.Fatal(err)
				}
				take()
			}
			for {
				reply, err := g.receive(request, 200*time.Millisecond)
				if err != nil {
					t.Fatal(err)
				}
				if reply == nil {
					break
				}
				replies = append(replies, reply)
			}
			if replies[0][0] != accessAccept {
				t.Fatalf("the code was not accepted: RADIUS code %d", replies[0][0])
			}
			for _, r := range replies[1:] {
				if !bytes.Equal(r, replies[0]) {
					t.Fatalf("a retransmission was answered by %x; the first reply was %x", r, replies[0])
				}
			}
			if got := g.login(k.user, code, 10*time.Second); got != sawReject {
				t.Errorf("the same code in a new request: %s", got)
			}
			if accepts := n.audit(url.Values{"user": {k.user}, "action": {"verify"}, "outcome": {"accept"}}); len(accepts) != 1 {
				t.Errorf("the audit has %d accepts", len(accepts))
			}
		})
	}
}
