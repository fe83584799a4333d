package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"watchword/tokens"
)

// Reserve implements tokens.Batcher.
func (m *Memory) Reserve(_ context.Context, n int) ([]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []int64
	for range n {
		ids = append(ids, m.id())
	}
	return ids, nil
}

// Grant implements tokens.Batcher.
func (m *Memory) Grant(_ context.Context, id int64, users []tokens.User, list []tokens.Token) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range users {
		if !clean(users[i].Realm, users[i].Key, users[i].Name) || users[i].ID == 0 {
			return m.nonsense("a user to be made without an ID, or with a name that is not UTF-8")
		}
	}
	for i := range list {
		t := &list[i]
		if m.leak(t) {
			m.accuse("the plaintext seed of token %s is granted", t.Serial)
		}
		if t.OwnerID == 0 || t.State != tokens.Active && t.State != tokens.Pending || len(t.Binding) == 0 {
			return m.nonsense("token %s granted to nobody, or neither active nor pending, or not bound", t.Serial)
		}
	}
	b := m.batches[id]
	if b == nil || b.published {
		return fmt.Errorf("%w: import %d is no longer staging", tokens.ErrState, id)
	}
	b.touched = time.Now()
	b.newcomers, b.grants = nil, nil
	for i := range list {
		t := m.bySerial(list[i].Realm, list[i].Serial)
		if t == nil || t.Batch != id {
			return fmt.Errorf("%w: a token is not of import %d", tokens.ErrNotFound, id)
		}
	}
	for i := range users {
		b.newcomers = append(b.newcomers, cloneUser(&users[i]))
	}
	for i := range list {
		b.grants = append(b.grants, cloneToken(&list[i]))
	}
	return nil
}

// checkGrants looks at what publishing a batch does beside.
func (m *Memory) checkGrants(c *tokens.Change, b *batch) error {
	fresh := map[int64]*tokens.User{}
	for i := range b.newcomers {
		u := &b.newcomers[i]
		if m.find(u.Realm, u.Key) != nil || m.users[u.ID] != nil {
			return unavailable("a user's name or ID was taken")
		}
		fresh[u.ID] = u
	}
	for i := range b.grants {
		t := &b.grants[i]
		switch {
		case fresh[t.OwnerID] != nil:
		case m.users[t.OwnerID] == nil:
			return m.nonsense("token %s for user %d, whom there is not", t.Serial, t.OwnerID)
		case standingOf(c, t.OwnerID) == nil:
			return m.nonsense("token %s handed out without a standing of its owner", t.Serial)
		}
	}
	return nil
}

// handOut does what publishing a batch does beside.
func (m *Memory) handOut(b *batch) {
	for i := range b.newcomers {
		u := cloneUser(&b.newcomers[i])
		u.State, u.Created = tokens.UserEnabled, stored(u.Created)
		u.PINSalt, u.PINMAC, u.PINDue, u.Profile = nil, nil, false, tokens.Profile{}
		m.users[u.ID] = &person{User: u, Standing: tokens.Standing{Version: 1}}
		m.names[name{u.Realm, u.Key}] = m.users[u.ID]
	}
	for i := range b.grants {
		g := &b.grants[i]
		t := m.bySerial(g.Realm, g.Serial)
		t.State, t.OwnerID, t.Owner, t.Binding = g.State, g.OwnerID, m.users[g.OwnerID].Key, bytesOrNil(g.Binding)
		t.Assigned = b.Published
		t.Version++
		if m.holds[g.OwnerID] == nil {
			m.holds[g.OwnerID] = make(map[int64]bool)
		}
		m.holds[g.OwnerID][t.ID] = true
	}
	b.newcomers, b.grants = nil, nil
}

// pristine says whether a token is as it came: any change raises its version, but
// the moves of an owned one, and notes.
func (m *Memory) pristine(t *tokens.Token) bool {
	return t.State == tokens.Imported && t.Version == 1 && !m.noted[t.ID]
}

// Tally implements tokens.Batcher.
func (m *Memory) Tally(_ context.Context, id int64) (tokens.Tally, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	tally := tokens.Tally{States: map[tokens.State]int{}}
	if b := m.batches[id]; b == nil || !b.published {
		return tally, nil
	}
	models := map[string]int{}
	for _, t := range m.tokens {
		if t.Batch != id {
			continue
		}
		tally.States[t.State]++
		models[t.Model]++
		if m.pristine(t) {
			tally.Fresh++
		}
	}
	for model, n := range models {
		tally.Models = append(tally.Models, tokens.ModelCount{Model: model, Tokens: n})
	}
	slices.SortFunc(tally.Models, func(a, b tokens.ModelCount) int {
		return cmp.Or(cmp.Compare(b.Tokens, a.Tokens), cmp.Compare(a.Model, b.Model))
	})
	tally.Models = tally.Models[:min(len(tally.Models), 10)]
	return tally, nil
}

// Remove implements tokens.Batcher.
func (m *Memory) Remove(_ context.Context, id, after int64, limit int, at time.Time) (n int, last int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.batches[id]
	if b == nil || !b.published {
		return 0, 0, fmt.Errorf("%w: import %d", tokens.ErrNotFound, id)
	}
	if b.Undone.IsZero() {
		b.Undone = stored(at)
	}
	looked := 0
	for _, token := range slices.Sorted(maps.Keys(m.tokens)) {
		t := m.tokens[token]
		if t.Batch != id || token <= after || looked == limit {
			continue
		}
		looked, last = looked+1, token
		if m.pristine(t) {
			delete(m.tokens, token)
			delete(m.serials, name{t.Realm, t.Serial})
			n++
		}
	}
	b.Removed += n
	return n, last, nil
}
