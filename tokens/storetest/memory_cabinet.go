package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"watchword/tokens"
)

// senseOfCabinet looks by themselves at the writes of what is neither a user nor
// a token, and at what is spent.
func (m *Memory) senseOfCabinet(c *tokens.Change) error {
	spent := make(map[[32]byte]bool)
	for _, s := range c.Spends {
		if spent[s.Hash] || s.Expires.IsZero() {
			return m.nonsense("something spent twice, or without a time when it expires")
		}
		spent[s.Hash] = true
	}
	seen := make(map[string]bool)
	for _, w := range c.Documents {
		if w.Name == "" || !clean(w.Name) || w.Expect < 0 || seen[w.Name] || w.Data == nil && w.Expect == 0 {
			return m.nonsense("document %q without a name, twice, or deleted where there is none", w.Name)
		}
		seen[w.Name] = true
	}
	users := make(map[int64]bool)
	for _, w := range c.Groups {
		if users[w.UserID] || standingOf(c, w.UserID) == nil {
			return m.nonsense("groups of user %d twice, or without a standing", w.UserID)
		}
		users[w.UserID] = true
		if !sensibleGroups(w.Groups) {
			return m.nonsense("groups of user %d that are not sorted, each once, or not UTF-8", w.UserID)
		}
	}
	for _, w := range c.NewUsers {
		if !sensibleGroups(w.Groups) {
			return m.nonsense("groups of a new user that are not sorted, each once, or not UTF-8")
		}
	}
	ids := make(map[string]bool)
	for i := range c.Invites {
		w := &c.Invites[i]
		v := &w.Invitation
		if v.ID == "" || !clean(v.ID, v.Serial) || ids[v.ID] || w.Use && w.Delete || w.Use && v.Used.IsZero() {
			return m.nonsense("invitation %q without an ID, twice, or used at no time", v.ID)
		}
		ids[v.ID] = true
		if w.Use || w.Delete {
			continue
		}
		if !v.Used.IsZero() || v.Serial != "" || v.Expires.IsZero() || !clean(v.Realm, v.User, v.Actor) {
			return m.nonsense("new invitation %q that was used, never expires, or holds a text that is not UTF-8", v.ID)
		}
		for _, kind := range v.Kinds {
			if kind == "" || !clean(kind) || strings.Contains(kind, ",") {
				return m.nonsense("invitation %q to something that is no kind of token", v.ID)
			}
		}
	}
	return nil
}

func (m *Memory) checkSpends(c *tokens.Change) error {
	var used [][32]byte
	for _, s := range c.Spends {
		if _, ok := m.spent[s.Hash]; ok {
			used = append(used, s.Hash)
		}
	}
	if used != nil {
		return &tokens.SpentError{Hashes: used}
	}
	return nil
}

func (m *Memory) checkDocuments(c *tokens.Change) error {
	for _, w := range c.Documents {
		if m.documents[w.Name].Version != w.Expect {
			return fmt.Errorf("document %q: %w", w.Name, &tokens.ConflictError{})
		}
	}
	return nil
}

func (m *Memory) checkInvites(c *tokens.Change) error {
	for i := range c.Invites {
		w := &c.Invites[i]
		have, known := m.invitations[w.Invitation.ID]
		switch {
		case w.Use && (!known || !have.Used.IsZero()):
			return fmt.Errorf("%w: invitation %q", tokens.ErrSpent, w.Invitation.ID)
		case w.Delete && !known:
			return fmt.Errorf("%w: invitation %q", tokens.ErrNotFound, w.Invitation.ID)
		case w.Use || w.Delete:
		case known:
			return exists("invitation %q", w.Invitation.ID)
		case m.users[w.Invitation.UserID] == nil:
			return m.nonsense("invitation %q for user %d, whom there is not", w.Invitation.ID, w.Invitation.UserID)
		}
	}
	return nil
}

// applyCabinet makes what was found good of a change.
func (m *Memory) applyCabinet(c *tokens.Change) {
	for _, s := range c.Spends {
		m.spent[s.Hash] = stored(s.Expires)
	}
	for _, w := range c.Documents {
		if w.Data == nil {
			delete(m.documents, w.Name)
			continue
		}
		m.documents[w.Name] = tokens.Document{
			Name: w.Name, Version: w.Expect + 1, Updated: stored(w.Updated), Data: append([]byte{}, w.Data...),
		}
	}
	m.generation += int64(len(c.Documents))
	for _, w := range c.Groups {
		m.groups[w.UserID] = slices.Clone(w.Groups)
	}
	for i := range c.Invites {
		w := &c.Invites[i]
		v := w.Invitation
		switch {
		case w.Delete:
			delete(m.invitations, v.ID)
		case w.Use:
			have := m.invitations[v.ID]
			have.Used, have.Serial = stored(v.Used), v.Serial
			m.invitations[v.ID] = have
		default:
			v.Created, v.Expires = stored(v.Created), stored(v.Expires)
			m.invitations[v.ID] = cloneInvitation(v)
		}
	}
}

func cloneInvitation(v tokens.Invitation) tokens.Invitation {
	if len(v.Kinds) == 0 {
		v.Kinds = nil
	}
	v.Kinds = slices.Clone(v.Kinds)
	return v
}

// Document implements tokens.Cabinet.
func (m *Memory) Document(_ context.Context, name string) (tokens.Document, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.documents[name]
	if !ok {
		return tokens.Document{}, fmt.Errorf("%w: document %q", tokens.ErrNotFound, name)
	}
	d.Data = append([]byte{}, d.Data...)
	return d, nil
}

// Invitation implements tokens.Cabinet.
func (m *Memory) Invitation(_ context.Context, id string) (tokens.Invitation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.invitations[id]
	if !ok {
		return tokens.Invitation{}, fmt.Errorf("%w: invitation", tokens.ErrNotFound)
	}
	return cloneInvitation(v), nil
}

// Invitations implements tokens.Cabinet.
func (m *Memory) Invitations(_ context.Context, realm, user string, limit int) ([]tokens.Invitation, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []tokens.Invitation
	for _, v := range m.invitations {
		if v.Realm == realm && (user == "" || v.User == user) {
			list = append(list, cloneInvitation(v))
		}
	}
	slices.SortFunc(list, func(a, b tokens.Invitation) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID))
	})
	return page(list, limit), nil
}

// Groups implements tokens.Cabinet.
func (m *Memory) Groups(_ context.Context, userID int64) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.groups[userID]...), nil
}

// Expire implements tokens.Cabinet.
func (m *Memory) Expire(_ context.Context, before time.Time) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := len(m.spent) + len(m.invitations)
	maps.DeleteFunc(m.spent, func(_ [32]byte, expires time.Time) bool { return expires.Before(before) })
	maps.DeleteFunc(m.invitations, func(_ string, v tokens.Invitation) bool {
		return v.Expires.Before(before.AddDate(0, 0, -30))
	})
	return all - len(m.spent) - len(m.invitations), nil
}

// sensibleGroups says whether groups are sorted, each once.
func sensibleGroups(groups []string) bool {
	for i, g := range groups {
		if g == "" || !clean(g) || i > 0 && g <= groups[i-1] {
			return false
		}
	}
	return true
}
