package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// carried is who tells a sink, until when, and how far it was told.
type carried struct {
	holder string
	until  time.Time
	told   map[int64]int64
}

func (m *Memory) carried(sink string) *carried {
	c := m.couriers[sink]
	if c == nil {
		c = &carried{told: map[int64]int64{}}
		m.couriers[sink] = c
	}
	return c
}

// Carry implements tokens.Courier.
func (m *Memory) Carry(_ context.Context, sink, holder string, until time.Duration) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if sink == "" || holder == "" || until < 0 || until > time.Hour || !clean(sink, holder) {
		return false, fmt.Errorf("%w: carrying %q by %q for %v", tokens.ErrInvalid, sink, holder, until)
	}
	c, at := m.carried(sink), time.Now()
	if c.holder != "" && c.holder != holder && c.until.After(at) {
		return false, nil
	}
	c.holder, c.until = holder, at.Add(until)
	return true, nil
}

// Told implements tokens.Courier.
func (m *Memory) Told(_ context.Context, sink string) (map[int64]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	told := map[int64]int64{}
	if c := m.couriers[sink]; c != nil {
		maps.Copy(told, c.told)
	}
	return told, nil
}

// Tell implements tokens.Courier. It accuses whoever claims to have told what there
// is not.
func (m *Memory) Tell(_ context.Context, sink, holder string, told map[int64]int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.couriers[sink]
	if c == nil || c.holder == "" || c.holder != holder {
		return fmt.Errorf("%w: %q does not tell %q", tokens.ErrState, holder, sink)
	}
	for chain, seq := range told {
		if head, known := m.heads[chain]; known && seq > head.Seq {
			m.accuse("sink %q was told record %d of chain %d, which ends at %d", sink, seq, chain, head.Seq)
		}
		c.told[chain] = max(c.told[chain], seq)
	}
	return nil
}

// After implements tokens.Courier.
func (m *Memory) After(_ context.Context, chain, seq int64, limit int) ([]audit.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var page []audit.Record
	for _, r := range m.records {
		if r.Chain == chain && r.Seq > seq {
			page = append(page, cloneRecord(r))
		}
	}
	slices.SortFunc(page, func(a, b audit.Record) int { return cmp.Compare(a.Seq, b.Seq) })
	return page[:min(len(page), limit)], nil
}

// Forget implements tokens.Courier.
func (m *Memory) Forget(_ context.Context, sink string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.couriers, sink)
	return nil
}
