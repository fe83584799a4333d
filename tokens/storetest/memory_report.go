package storetest

import (
	"context"
	"maps"
	"slices"
	"strings"

	"watchword/tokens"
)

// Credentials implements tokens.Reporter.
func (m *Memory) Credentials(_ context.Context, q tokens.CredentialQuery) ([]tokens.CredentialRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var rows []tokens.CredentialRow
	if q.Unowned {
		for _, id := range slices.Sorted(maps.Keys(m.tokens)) {
			t := m.tokens[id]
			if id > q.After && m.visible(t) && t.OwnerID == 0 && t.State == tokens.Imported && (q.Realm == "" || t.Realm == q.Realm) {
				rows = append(rows, tokens.CredentialRow{Tokens: []tokens.Token{cloneToken(t)}})
			}
		}
		return page(rows, q.Limit), nil
	}
	for _, id := range slices.Sorted(maps.Keys(m.users)) {
		p := m.users[id]
		if id <= q.After || q.Realm != "" && p.Realm != q.Realm {
			continue
		}
		u := m.entry(p)
		row := tokens.CredentialRow{User: &u}
		for _, t := range m.held(id) {
			row.Tokens = append(row.Tokens, cloneToken(t))
		}
		rows = append(rows, row)
	}
	return page(rows, q.Limit), nil
}

// Realms implements tokens.Reporter.
func (m *Memory) Realms(_ context.Context, realm string) ([]tokens.RealmEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	realms := make(map[string]*tokens.RealmEntry)
	count := func(name string, add func(*tokens.RealmEntry)) {
		if name == "" || realm != "" && name != realm {
			return
		}
		if realms[name] == nil {
			realms[name] = &tokens.RealmEntry{Name: name}
		}
		add(realms[name])
	}
	for _, p := range m.users {
		count(p.Realm, func(e *tokens.RealmEntry) { e.Users++ })
	}
	for _, t := range m.tokens {
		if m.visible(t) && t.State != tokens.Revoked {
			count(t.Realm, func(e *tokens.RealmEntry) { e.Tokens++ })
		}
	}
	for _, c := range m.clients {
		count(c.Realm, func(e *tokens.RealmEntry) { e.Clients++ })
	}
	for _, k := range m.keys {
		count(k.Realm, func(e *tokens.RealmEntry) { e.Keys++ })
	}
	for document := range m.documents {
		if name, ok := strings.CutPrefix(document, "rules/"); ok {
			count(name, func(*tokens.RealmEntry) {})
		}
	}
	var list []tokens.RealmEntry
	for _, name := range slices.Sorted(maps.Keys(realms)) {
		list = append(list, *realms[name])
	}
	return page(list, 1000), nil
}

// Drifts implements tokens.Reporter.
func (m *Memory) Drifts(_ context.Context, batch int64, limit int) ([]tokens.DriftSample, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []tokens.DriftSample
	for _, id := range slices.Sorted(maps.Keys(m.tokens)) {
		t := m.tokens[id]
		if t.Batch == batch && m.visible(t) && t.Type == tokens.TOTP && t.UsedAt != 0 {
			list = append(list, tokens.DriftSample{
				TokenID: t.ID, Serial: t.Serial, Period: t.Period, Drift: t.Drift, Created: t.Created, UsedAt: t.UsedAt,
			})
		}
	}
	return page(list, limit), nil
}
