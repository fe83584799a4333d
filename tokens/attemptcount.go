package tokens

import (
	"cmp"
	"slices"
	"sync"
)

// AttemptCount is how many attempts ended in one way on this node since it started.
type AttemptCount struct {
	Kind    PrincipalKind // of who asked
	Client  string        // the RADIUS client; empty for other kinds, and for clients that are no more
	Outcome string        // as in the audit
	Reason  Reason
	Count   uint64
}

// attemptCounts counts attempts by how they ended. Nobody outside can make it grow: it
// tells apart RADIUS clients, kinds of principals, and reasons.
type attemptCounts struct {
	mu    sync.Mutex
	ended map[attemptKind]uint64
}

type attemptKind struct {
	kind    PrincipalKind
	client  string
	outcome string
	reason  Reason
}

func kindOf(p *Principal, outcome string, reason Reason) attemptKind {
	k := attemptKind{kind: p.Kind, outcome: outcome, reason: reason}
	if p.Kind == KindClient {
		k.client = p.ID
	}
	return k
}

// note counts a batch whose verdicts are durable.
func (c *attemptCounts) note(list []judged) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range list {
		x := &list[i]
		c.add(kindOf(&x.principal, x.outcome, x.verdict.reason))
	}
}

// failed counts attempts that have no verdict.
func (c *attemptCounts) failed(list []*pending) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range list {
		c.add(kindOf(&x.principal, "error", ReasonUnavailable))
	}
}

// refused counts an attempt that never came to be looked at.
func (c *attemptCounts) refused(p *Principal, outcome string, reason Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(kindOf(p, outcome, reason))
}

func (c *attemptCounts) add(k attemptKind) {
	if c.ended == nil {
		c.ended = map[attemptKind]uint64{}
	}
	c.ended[k]++
}

// AttemptCounts answers how attempts ended on this node since it started. What came
// from clients that are no more is one.
func (s *Service) AttemptCounts() []AttemptCount {
	names := s.reg.Load().names
	c := &s.counts
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, n := range c.ended {
		if k.client != "" && names[k.client] == nil {
			delete(c.ended, k)
			k.client = ""
			c.ended[k] += n
		}
	}
	all := make([]AttemptCount, 0, len(c.ended))
	for k, n := range c.ended {
		all = append(all, AttemptCount{k.kind, k.client, k.outcome, k.reason, n})
	}
	slices.SortFunc(all, func(a, b AttemptCount) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Client, b.Client), cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.Reason, b.Reason))
	})
	return all
}
