package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"watchword/tokens"
	"watchword/tokens/audit"
)

func page[T any](list []T, limit int) []T {
	if limit < 1 || limit > 1000 {
		limit = 1000
	}
	if len(list) > limit {
		list = list[:limit]
	}
	return list
}

// following is page, with the ID of its last element if the list goes on.
func following[T any](list []T, limit int, id func(*T) int64) ([]T, int64, error) {
	cut := page(list, limit)
	if len(cut) == len(list) {
		return cut, 0, nil
	}
	return cut, id(&cut[len(cut)-1]), nil
}

// Users implements tokens.Directory.
func (m *Memory) Users(_ context.Context, q tokens.UserQuery) ([]tokens.UserEntry, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := func(a, b *person) int {
		return cmp.Or(strings.Compare(a.Realm, b.Realm), strings.Compare(a.Key, b.Key))
	}
	part, err := tokens.FoldName(strings.TrimSpace(q.Q))
	if q.Q != "" && err != nil {
		return nil, 0, nil
	}
	after := m.users[q.After]
	if q.After != 0 && (after == nil || q.Realm != "" && after.Realm != q.Realm) {
		return nil, 0, nil
	}
	var list []tokens.UserEntry
	for _, p := range slices.SortedFunc(maps.Values(m.users), before) {
		switch {
		case q.Realm != "" && p.Realm != q.Realm:
		case q.Key != "" && p.Key != q.Key:
		case q.Q != "" && !hasPart(p.Key, part):
		case q.External != "" && p.Profile.External != q.External:
		case q.Group != "" && !slices.Contains(m.groups[p.ID], q.Group):
		case after != nil && before(p, after) <= 0:
		default:
			list = append(list, m.entry(p))
		}
	}
	return following(list, q.Limit, func(u *tokens.UserEntry) int64 { return u.ID })
}

// entry is a user as listed.
func (m *Memory) entry(p *person) tokens.UserEntry {
	return tokens.UserEntry{
		User: cloneUser(&p.User), Standing: cloneStanding(p.Standing), Tokens: len(m.held(p.ID)), Groups: slices.Clone(m.groups[p.ID]),
	}
}

// hasPart says whether a search finds a text: by a part of it, or by its beginning
// if the part has fewer than three characters.
func hasPart(s, part string) bool {
	if utf8.RuneCountInString(part) < 3 {
		return strings.HasPrefix(s, part)
	}
	return strings.Contains(s, part)
}

// Tokens implements tokens.Directory.
func (m *Memory) Tokens(_ context.Context, q tokens.TokenQuery) ([]tokens.Token, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	part := strings.ToLower(strings.TrimSpace(q.Q))
	key, err := tokens.FoldName(strings.TrimSpace(q.Q))
	var list []tokens.Token
	for _, id := range slices.Sorted(maps.Keys(m.tokens)) {
		t := m.tokens[id]
		switch {
		case !m.visible(t) || id <= q.After:
		case q.Realm != "" && t.Realm != q.Realm:
		case q.Serial != "" && t.Serial != q.Serial:
		case q.Owner != "" && (t.Owner != q.Owner || q.Realm != "" && m.users[t.OwnerID].Realm != q.Realm):
		case q.State != "" && t.State != q.State:
		case q.Type != "" && t.Type != q.Type:
		case q.Batch != 0 && t.Batch != q.Batch:
		case q.Tag != "" && !slices.Contains(t.Tags, q.Tag):
		case q.Q != "" && !hasPart(strings.ToLower(t.Serial), part) && (err != nil || !hasPart(t.Owner, key)):
		default:
			list = append(list, cloneToken(t))
		}
	}
	return following(list, q.Limit, func(t *tokens.Token) int64 { return t.ID })
}

// Batches implements tokens.Directory.
func (m *Memory) Batches(_ context.Context, q tokens.BatchQuery) ([]tokens.Batch, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []tokens.Batch
	for _, b := range m.batches {
		if b.published && (q.ID == 0 || b.ID == q.ID) && (q.Realm == "" || b.Realm == q.Realm) && (q.Before == 0 || b.ID < q.Before) {
			list = append(list, b.Batch)
		}
	}
	slices.SortFunc(list, func(a, b tokens.Batch) int { return cmp.Compare(b.ID, a.ID) })
	return page(list, q.Limit), nil
}

// Registry implements tokens.Directory.
func (m *Memory) Registry(context.Context) (tokens.Registry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := tokens.Registry{Generation: m.generation}
	for _, id := range slices.Sorted(maps.Keys(m.clients)) {
		c := m.clients[id]
		c.Secret = bytesOrNil(c.Secret)
		r.Clients = append(r.Clients, c)
	}
	for _, id := range slices.Sorted(maps.Keys(m.keys)) {
		r.Keys = append(r.Keys, cloneKey(m.keys[id]))
	}
	r.Grants = m.grants()
	return r, nil
}

// TouchKeys implements tokens.Directory.
func (m *Memory) TouchKeys(_ context.Context, used map[string]time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, at := range used {
		if k, ok := m.keys[id]; ok && stored(at).After(k.LastUsed) {
			k.LastUsed = stored(at)
			m.keys[id] = k
		}
	}
	return nil
}

// Begin implements tokens.Stager.
func (m *Memory) Begin(_ context.Context, b tokens.Batch) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leak(&b) {
		m.accuse("a plaintext seed is in a batch")
	}
	if !clean(b.Realm, b.Name, b.Format, b.SHA256, b.Actor) {
		return 0, m.nonsense("a batch with a text that is not UTF-8")
	}
	b.ID, b.Created, b.Published = m.id(), stored(b.Created), time.Time{}
	b.Tokens, b.Rejected, b.Duplicate = 0, 0, 0
	m.batches[b.ID] = &batch{Batch: b, touched: time.Now()}
	return b.ID, nil
}

// Stage implements tokens.Stager.
func (m *Memory) Stage(_ context.Context, id int64, list []tokens.Token) ([]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range list {
		t := &list[i]
		if m.leak(t) {
			m.accuse("the plaintext seed of token %s is staged", t.Serial)
		}
		if t.OwnerID != 0 || t.State != tokens.Imported {
			return nil, m.nonsense("token %s staged in state %s or with an owner", t.Serial, t.State)
		}
		if len(t.Passcodes) > 0 || t.Uses != 0 {
			return nil, m.nonsense("token %s staged with passcodes, which are enrolled", t.Serial)
		}
		if !clean(t.Realm, t.Serial, t.Model, t.Hint, t.Wrapped.Mechanism, t.PublicID) {
			return nil, m.nonsense("a token with a text that is not UTF-8")
		}
	}
	b := m.batches[id]
	if b == nil || b.published {
		return nil, fmt.Errorf("%w: import %d is no longer staging", tokens.ErrState, id)
	}
	b.touched = time.Now()
	created := make([]bool, len(list))
	for i := range list {
		if m.bySerial(list[i].Realm, list[i].Serial) != nil {
			continue
		}
		t := cloneToken(&list[i])
		t.ID, t.Batch, t.Owner, t.Created = m.id(), id, "", stored(t.Created)
		t.Version, t.UsedAt = 1, 0
		t.Expires, t.Assigned, t.Note, t.Tags = stored(t.Expires), time.Time{}, "", nil
		m.tokens[t.ID] = &t
		m.serials[name{t.Realm, t.Serial}] = &t
		created[i] = true
	}
	return created, nil
}

// Present implements tokens.Stager.
func (m *Memory) Present(_ context.Context, realm string, serials []string) ([]tokens.Presence, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var present []tokens.Presence
	for _, serial := range serials {
		var p tokens.Presence
		if t := m.bySerial(realm, serial); t != nil {
			p.There = true
			if b := m.batches[t.Batch]; b != nil && !b.published {
				p.Staging = t.Batch
			}
		}
		present = append(present, p)
	}
	return present, nil
}

// Discard implements tokens.Stager.
func (m *Memory) Discard(_ context.Context, id int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.batches[id]
	if b == nil {
		return fmt.Errorf("%w: import %d", tokens.ErrNotFound, id)
	}
	if b.published {
		return fmt.Errorf("%w: import %d is published", tokens.ErrState, id)
	}
	m.remove(id)
	return nil
}

func (m *Memory) remove(id int64) {
	maps.DeleteFunc(m.tokens, func(_ int64, t *tokens.Token) bool {
		if t.Batch == id {
			delete(m.serials, name{t.Realm, t.Serial})
		}
		return t.Batch == id
	})
	delete(m.batches, id)
}

// Sweep implements tokens.Stager.
func (m *Memory) Sweep(_ context.Context, before time.Time) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	swept := 0
	for id, b := range m.batches {
		if !b.published && b.touched.Before(before) {
			m.remove(id)
			swept++
		}
	}
	return swept, nil
}

// MintChain implements tokens.Journal.
func (m *Memory) MintChain(context.Context) (int64, []audit.Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := m.id()
	heads := m.ends()
	m.heads[id] = audit.Head{Chain: id}
	return id, heads, nil
}

func (m *Memory) ends() []audit.Head {
	var heads []audit.Head
	for _, id := range slices.Sorted(maps.Keys(m.heads)) {
		if h := m.heads[id]; h.Seq > 0 {
			heads = append(heads, h)
		}
	}
	return heads
}

// Heads implements tokens.Journal.
func (m *Memory) Heads(context.Context) ([]audit.Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ends(), nil
}

// Chains implements tokens.Journal.
func (m *Memory) Chains(context.Context) ([]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.heads)), nil
}

// Records implements tokens.Journal.
func (m *Memory) Records(_ context.Context, q tokens.RecordQuery) ([]audit.Record, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []audit.Record
	for i := len(m.records) - 1; i >= 0; i-- {
		r := m.records[i]
		if q.Selects(&r) && (q.Before == 0 || r.ID < q.Before) {
			list = append(list, cloneRecord(r))
		}
	}
	return following(list, q.Limit, func(r *audit.Record) int64 { return r.ID })
}

// Onward implements tokens.Archive.
func (m *Memory) Onward(_ context.Context, q tokens.RecordQuery, after int64) ([]audit.Record, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []audit.Record
	for _, r := range m.records {
		if q.Selects(&r) && r.ID > after && (q.Before == 0 || r.ID < q.Before) {
			list = append(list, cloneRecord(r))
		}
	}
	return following(list, q.Limit, func(r *audit.Record) int64 { return r.ID })
}

// Cut implements tokens.Archive.
func (m *Memory) Cut(_ context.Context, heads []audit.Head, after, last int64, limit int) (removed int, end int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var kept []audit.Record
	looked := 0
	for _, r := range m.records {
		if r.ID <= after || r.ID > last || looked == limit {
			kept = append(kept, r)
			continue
		}
		looked++
		end = r.ID
		if slices.ContainsFunc(heads, func(h audit.Head) bool { return h.Chain == r.Chain && r.Seq <= h.Seq }) {
			removed++
			continue
		}
		kept = append(kept, r)
	}
	m.records = kept
	return removed, end, nil
}

// Walk implements tokens.Journal.
func (m *Memory) Walk(_ context.Context, chain int64, f func(*audit.Record) error) error {
	m.mu.Lock()
	var list []audit.Record
	for _, r := range m.records {
		if r.Chain == chain {
			list = append(list, cloneRecord(r))
		}
	}
	m.mu.Unlock()
	for i := range list {
		if err := f(&list[i]); err != nil {
			return err
		}
	}
	return nil
}
