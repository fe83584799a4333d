package main

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestManyHandsOnTheSameTokens has 64 clients hand out, take back, lose, resume and
// use the same tokens at once.
func TestManyHandsOnTheSameTokens(t *testing.T) {
	// Most attempts are wrong, which is not to slow the right ones down.
	env := []string{"WATCHWORD_THROTTLE_FREE=100", "WATCHWORD_THROTTLE_WAIT=1ms", "WATCHWORD_THROTTLE_MAX=1ms", "WATCHWORD_THROTTLE_LOCK_AT=10000"}
	t.Run("SQLite", func(t *testing.T) { manyHands(t, startNode(t, nodeOptions{env: env})) })
	t.Run("two nodes on PostgreSQL", func(t *testing.T) {
		a, b := twoNodes(t, true, env...)
		manyHands(t, a, b)
	})
}

// handled is a token that many hands are on. Whoever marks it as lost has it alone
// until it is resumed; all else is done to it by anybody at any time.
type handled struct {
	*hardToken
	alone sync.RWMutex
	used  atomic.Uint64 // the counter after the last that was accepted
	// lost is odd while it is lost for certain: from when `lost` has answered until
	// `resume` is asked.
	lost atomic.Int64
}

// hands are the clients and what they found.
type hands struct {
	t      *testing.T
	nodes  []*node
	users  []string
	tokens []*handled
	did    [6]atomic.Int64 // of each kind of act, how many were done
}

const (
	handClients = 64
	handActs    = 8  // of each client
	handTokens  = 12 // more than a user may hold
	mostTokens  = 8
)

func manyHands(t *testing.T, nodes ...*node) {
	h := &hands{t: t, nodes: nodes, users: []string{"hands-one", "hands-two"}}
	list := newTokens("MH", handTokens, true)
	nodes[0].importFile(shipment(list), len(list))
	for _, u := range h.users {
		nodes[0].must(http.MethodPost, "/v1/users", map[string]string{"name": u}, nil)
	}
	for _, k := range list {
		h.tokens = append(h.tokens, &handled{hardToken: k})
	}
	stop, watched := make(chan struct{}), sync.WaitGroup{}
	for i := range nodes {
		watched.Go(func() { h.watch(nodes[i], stop) })
	}
	var done sync.WaitGroup
	for i := range handClients {
		done.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 64))
			for range handActs {
				h.act(r)
			}
		})
	}
	done.Wait()
	close(stop)
	watched.Wait()

	counts := make([]int64, len(h.did))
	for i := range h.did {
		counts[i] = h.did[i].Load()
	}
	t.Logf("assigned, unassigned, lost, resumed, accepted, rejected: %v", counts)
	for i, n := range counts {
		if n < 5 {
			t.Errorf("only %d of act %d were done: too few to prove anything", n, i)
		}
	}
	h.wantOneOwnerEach()
	nodes[0].wantIntactAudit()
}

// The kinds of acts that are counted.
const (
	didAssign = iota
	didUnassign
	didLose
	didResume
	didAccept
	didReject
)

// act does something by chance.
func (h *hands) act(r *rand.Rand) {
	k, n, user := h.tokens[r.IntN(len(h.tokens))], h.nodes[r.IntN(len(h.nodes))], h.users[r.IntN(len(h.users))]
	switch x := r.IntN(10); {
	case x < 3:
		k.alone.RLock()
		defer k.alone.RUnlock()
		if h.do(n, k, "assign", map[string]string{"user": user}) {
			h.did[didAssign].Add(1)
		}
	case x < 4:
		k.alone.RLock()
		defer k.alone.RUnlock()
		if h.do(n, k, "unassign", nil) {
			h.did[didUnassign].Add(1)
		}
	case x < 6:
		if !k.alone.TryLock() {
			h.use(n, k, user)
			return
		}
		defer k.alone.Unlock()
		if !h.do(n, k, "lost", nil) {
			return // nobody holds it, or it is lost already
		}
		k.lost.Add(1)
		h.did[didLose].Add(1)
		for _, other := range h.nodes {
			for _, u := range h.users {
				if got := other.verify(u, k.code(k.used.Load())); got == sawAccept {
					h.t.Errorf("%s was accepted after it was lost", k.serial)
				}
			}
		}
		k.lost.Add(1)
		if h.do(n, k, "resume", map[string]string{"reason": "found"}) {
			h.did[didResume].Add(1)
		}
	default:
		h.use(n, k, user)
	}
}

// do does an act, and says whether it was done. What cannot be in the token's state
// is a conflict; all else is a fault.
func (h *hands) do(n *node, k *handled, act string, body any) bool {
	status, err := n.call(n.key, http.MethodPost, "/v1/tokens/"+k.serial+"/"+act, body, nil)
	if status != http.StatusOK && status != http.StatusConflict {
		h.t.Errorf("%s %s: %v", act, k.serial, err)
	}
	return status == http.StatusOK
}

// use has a user type the next code of a token, whoever holds it.
func (h *hands) use(n *node, k *handled, user string) {
	before, factor := k.lost.Load(), k.used.Load()
	switch got := n.verify(user, k.code(factor)); got {
	case sawAccept:
		if before%2 == 1 && k.lost.Load() == before {
			h.t.Errorf("%s was accepted while it was lost", k.serial)
		}
		k.used.CompareAndSwap(factor, factor+1)
		h.did[didAccept].Add(1)
	case sawReject:
		h.did[didReject].Add(1)
	default:
		h.t.Errorf("verify: %s", got)
	}
}

// watch looks how many tokens the users hold, over and over.
func (h *hands) watch(n *node, stop chan struct{}) {
	for {
		for _, u := range h.users {
			var shown struct {
				TokenCount int `json:"token_count"`
				Tokens     []struct{ Serial, User, State string }
			}
			if _, err := n.call(n.key, http.MethodGet, "/v1/users/"+u, nil, &shown); err != nil {
				h.t.Error(err)
				return
			}
			if shown.TokenCount > mostTokens || len(shown.Tokens) > mostTokens {
				h.t.Errorf("%s holds %d tokens, %d are shown", u, shown.TokenCount, len(shown.Tokens))
			}
			for _, k := range shown.Tokens {
				if k.User != u {
					h.t.Errorf("%s is shown with %s, and belongs to %q", u, k.Serial, k.User)
				}
			}
		}
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// wantOneOwnerEach reads the story of each token: it was handed out only when
// nobody held it, no more than eight to anybody, and it let nobody in but who held
// it while it was active.
func (h *hands) wantOneOwnerEach() {
	accepted := acceptedIn(h.t, h.nodes[0])
	if int64(len(accepted)) != h.did[didAccept].Load() {
		h.t.Errorf("clients saw %d accepts, the audit has %d", h.did[didAccept].Load(), len(accepted))
	}
	held := map[string]int{}
	for _, k := range h.tokens {
		records := h.nodes[0].audit(url.Values{"serial": {k.serial}})
		owner, active := "", false
		for i := len(records) - 1; i >= 0; i-- {
			r := &records[i]
			if r.Outcome != "ok" && r.Outcome != "accept" || r.Reason == "unchanged" {
				continue
			}
			switch r.Action {
			case "token.assign":
				if owner != "" {
					h.t.Errorf("%s was handed to %s while %s held it", k.serial, r.User, owner)
				}
				owner, active = r.User, true
			case "token.unassign":
				owner, active = "", false
			case "token.lost":
				active = false
			case "token.resume":
				active = true
			case "verify":
				if r.User != owner || !active {
					h.t.Errorf("%s let %s in while it belonged to %q, active: %v", k.serial, r.User, owner, active)
				}
			}
		}
		var now struct{ User, State string }
		h.nodes[0].must(http.MethodGet, "/v1/tokens/"+k.serial, nil, &now)
		if now.User != owner {
			h.t.Errorf("%s belongs to %q; by the audit, to %q", k.serial, now.User, owner)
		}
		if owner != "" {
			held[owner]++
		}
	}
	for user, n := range held {
		if n > mostTokens {
			h.t.Errorf("%s holds %d tokens", user, n)
		}
	}
}
