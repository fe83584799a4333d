package tokens

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

// keepSpent is how long what was spent is remembered after it has expired: much
// longer than the clocks of two nodes may differ, since one node's clock says that
// it has expired, and another's must not say that it has not when it is forgotten.
const keepSpent = time.Hour

// forget removes what was spent and has expired. Not while our clock is not to be
// trusted.
func (s *Service) forget(ctx context.Context, now time.Time) error {
	if s.skewed.Load() {
		return nil
	}
	before := now.Add(-keepSpent)
	if last := s.forgot.Load(); before.UnixNano() > last {
		s.forgot.Store(before.UnixNano()) // first, so that nothing forgotten is taken for new
	}
	_, err := s.db.Expire(ctx, before)
	return err
}

// stale says that something has expired, or did before what is forgotten, if the
// clock was set back since.
func (s *Service) stale(x Spend, now time.Time) bool {
	return !now.Before(x.Expires) || x.Expires.UnixNano() <= s.forgot.Load()
}

// maxSpent bounds what a node remembers as spent.
const maxSpent = 1 << 14

// spent remembers what was spent lately, as far as this node knows: to commit it
// would fail. What it does not know, the database does.
type spent struct {
	mu   sync.Mutex
	at   map[[sha256.Size]byte]int // place in ring
	ring [][sha256.Size]byte
	next int // place to be taken next, once the ring is full
}

func (m *spent) has(hash [sha256.Size]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.at[hash]
	return ok
}

func (m *spent) add(hash [sha256.Size]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.at[hash]; ok {
		return
	}
	if m.at == nil {
		m.at = map[[sha256.Size]byte]int{}
	}
	if len(m.ring) < maxSpent {
		m.at[hash] = len(m.ring)
		m.ring = append(m.ring, hash)
		return
	}
	delete(m.at, m.ring[m.next])
	m.ring[m.next], m.at[hash] = hash, m.next
	m.next = (m.next + 1) % maxSpent
}

// note remembers what a batch spent, now that it is durable.
func (m *spent) note(d *decided) {
	for i := range d.list {
		if x := d.list[i].verdict.spend; x != nil {
			m.add(x.Hash)
		}
	}
}
