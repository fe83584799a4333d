package main

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"testing"
	"time"

	"watchword/tokens/storetest"
)

// A spent code is one that was sent to a server.
type spent struct {
	k      *hardToken
	factor uint64
	saw    sight
}

func (s *spent) key() string { return fmt.Sprintf("%s/%d", s.k.serial, s.factor) }

// workload sends right codes to nodes, over HTTP and RADIUS in turn, one after
// another for each token, and keeps what came of them.
type workload struct {
	t      testing.TB
	nodes  []*node
	stop   chan struct{}
	done   sync.WaitGroup
	mu     sync.Mutex
	spent  []*spent
	accept int
}

func newWorkload(t testing.TB, nodes ...*node) *workload {
	return &workload{t: t, nodes: nodes, stop: make(chan struct{})}
}

func (w *workload) note(s *spent) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spent = append(w.spent, s)
	if s.saw == sawAccept {
		w.accept++
	}
}

func (w *workload) accepts() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.accept
}

// press has somebody press the button of each HOTP token over and over.
func (w *workload) press(list []*hardToken) {
	for i, k := range list {
		n := w.nodes[i%len(w.nodes)]
		g := n.newGateway(w.t, "")
		w.done.Go(func() {
			// Whoever is not let in presses again a few times, and no more: what is
			// further ahead than the look-ahead would need a resynchronisation.
			for j, tries := i, 0; tries < 4; j++ {
				select {
				case <-w.stop:
					return
				default:
				}
				s := &spent{k: k, factor: k.next}
				if code := k.press(); j%2 == 0 {
					s.saw = n.verify(k.user, code)
				} else {
					s.saw = g.login(k.user, code, time.Second)
				}
				w.note(s)
				if s.saw == sawAccept || s.saw == sawReject {
					tries = 0
					continue
				}
				tries++
				select {
				case <-w.stop:
					return
				case <-time.After(150 * time.Millisecond):
				}
			}
		})
	}
}

// show has somebody type the code of each TOTP token once, at some moment
// within the time.
func (w *workload) show(list []*hardToken, within time.Duration) {
	for i, k := range list {
		n := w.nodes[i%len(w.nodes)]
		g := n.newGateway(w.t, "")
		at := rand.N(within)
		w.done.Go(func() {
			select {
			case <-w.stop:
				return
			case <-time.After(at):
			}
			code, step := k.shown()
			s := &spent{k: k, factor: step}
			if i%2 == 0 {
				s.saw = n.verify(k.user, code)
			} else {
				s.saw = g.login(k.user, code, time.Second)
			}
			w.note(s)
		})
	}
}

// end stops the workload and answers what it sent.
func (w *workload) end() []*spent {
	close(w.stop)
	w.done.Wait()
	return w.spent
}

// killed is how the twenty rounds are spent on one database.
type killed struct {
	t        *testing.T
	nodes    []*node
	hotp     []*hardToken
	totp     []*hardToken // some for each round: a code of 30 s is good once
	accepted map[string]bool
	unseen   int // accepts in the audit that no client saw
}

const (
	killRounds    = 10
	totpsPerRound = 12
)

// TestKillNineNeverMakesACodeGoodAgain kills the server under load, ten times
// on each database.
func TestKillNineNeverMakesACodeGoodAgain(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		killRound(t, func(k *killed) { k.nodes = []*node{startNode(t, nodeOptions{})} }, func(k *killed) {
			k.nodes[0].kill()
			k.nodes[0].start()
			k.nodes[0].waitReady()
		}, killRounds)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		killRound(t, func(k *killed) { k.nodes = []*node{startNode(t, nodeOptions{database: newDatabase(t)})} }, func(k *killed) {
			k.nodes[0].kill()
			k.nodes[0].start()
			k.nodes[0].waitReady()
		}, killRounds)
	})
	t.Run("PostgreSQL itself", func(t *testing.T) {
		pg := storetest.NewCluster(t)
		killRound(t, func(k *killed) { k.nodes = []*node{startNode(t, nodeOptions{database: pg.Database()})} }, func(k *killed) {
			pg.Kill()
			time.Sleep(500 * time.Millisecond) // nobody may be let in meanwhile
			pg.Start()
			n := k.nodes[0]
			eventually(t, 20*time.Second, "ready after PostgreSQL came back, without a restart", func() bool {
				status, _ := n.get("/readyz")
				return status == 200
			})
		}, 2)
	})
}

func killRound(t *testing.T, begin, crash func(*killed), rounds int) {
	k := &killed{t: t, accepted: map[string]bool{}}
	begin(k)
	k.hotp = newTokens("H", 16, true)
	k.totp = newTokens("T", rounds*totpsPerRound, false)
	k.nodes[0].equip(append(append([]*hardToken(nil), k.hotp...), k.totp...)...)
	for round := range rounds {
		k.round(round, crash)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d accepts were seen over %d crashes; %d more were durable and nobody heard of them", len(k.accepted), rounds, k.unseen)
	if k.nodes[0].wantIntactAudit(); len(k.accepted) < 20*rounds {
		t.Errorf("only %d accepts in %d rounds: too little load to prove anything", len(k.accepted), rounds)
	}
}

func (k *killed) round(round int, crash func(*killed)) {
	t, n := k.t, k.nodes[0]
	soonInStep(t, 12*time.Second)
	totp := k.totp[round*totpsPerRound : (round+1)*totpsPerRound]
	load := newWorkload(t, k.nodes...)
	load.press(k.hotp)
	load.show(totp, 400*time.Millisecond)
	// Under way, and then at any moment.
	eventually(t, 20*time.Second, "accepts under load", func() bool { return load.accepts() >= 30 })
	time.Sleep(rand.N(200 * time.Millisecond))
	crash(k)
	sent := load.end()

	// What was in the clients' hands is in the audit, once.
	durable := acceptedIn(t, n)
	last := map[*hardToken]*spent{}
	for _, s := range sent {
		if s.saw == sawAccept {
			k.accepted[s.key()] = true
			last[s.k] = s
		}
	}
	for key := range k.accepted {
		if !durable[key] {
			t.Errorf("round %d: the accept of %s was seen by its client and is not in the audit", round, key)
		}
	}
	// None of it is good again: neither each token's last code, nor one whose
	// answer was lost although it was taken.
	var lost []*spent
	for _, s := range sent {
		if s.saw != sawAccept && durable[s.key()] {
			k.unseen++
			lost = append(lost, s)
		}
	}
	for _, s := range last {
		lost = append(lost, s)
	}
	for i, s := range lost {
		got := sawNothing
		if i%2 == 0 {
			got = n.verify(s.k.user, s.k.code(s.factor))
		} else {
			got = n.newGateway(t, "").login(s.k.user, s.k.code(s.factor), 5*time.Second)
		}
		if got != sawReject {
			t.Errorf("round %d: the code of %s, accepted before the crash, was answered by %q after it", round, s.key(), got)
		}
	}
	// The tokens are none the worse for it.
	for _, h := range k.hotp[:4] {
		if got := n.verify(h.user, h.press()); got != sawAccept {
			t.Errorf("round %d: the next code of %s: %s (%s)", round, h.serial, got, n.lastAttempt(h.user).Reason)
		} else {
			k.accepted[fmt.Sprintf("%s/%d", h.serial, h.next-1)] = true
		}
	}
}

// acceptedIn is every accept in the audit, by serial and moving factor. Each
// may be there once.
func acceptedIn(t testing.TB, n *node) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, r := range n.audit(url.Values{"action": {"verify"}, "outcome": {"accept"}}) {
		key := r.Serial + "/" + r.field("factor")
		if found[key] {
			t.Errorf("the code of %s was accepted twice", key)
		}
		found[key] = true
	}
	return found
}
