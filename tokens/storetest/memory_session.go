package storetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"watchword/tokens"
)

// role is what a grant is known by.
type role struct {
	user       int64
	name, home string
}

func roleOf(g *tokens.Grant) role { return role{g.UserID, g.Role, g.Realm} }

// grants are the roles that people have, in order of user, role and realm.
func (m *Memory) grants() []tokens.Grant {
	var list []tokens.Grant
	for _, g := range m.roles {
		g.User, g.Home = m.users[g.UserID].Key, m.users[g.UserID].Realm
		list = append(list, g)
	}
	slices.SortFunc(list, func(a, b tokens.Grant) int {
		return cmp.Or(cmp.Compare(a.UserID, b.UserID), cmp.Compare(a.Role, b.Role), cmp.Compare(a.Realm, b.Realm))
	})
	return list
}

// senseOfSessions looks by themselves at the writes of roles and sessions.
func (m *Memory) senseOfSessions(c *tokens.Change) error {
	for i := range c.Grants {
		if g := &c.Grants[i].Grant; g.Role == "" || !clean(g.Role, g.Realm, g.Actor) {
			return m.nonsense("a role of user %d without a name, or with a text that is not UTF-8", g.UserID)
		}
	}
	seen := make(map[string]bool)
	for i := range c.Sessions {
		w := &c.Sessions[i]
		v := &w.Session
		if v.ID == "" || seen[v.ID] || !clean(v.ID, v.Home, v.User, v.Realm, v.Serial, v.Method, v.Bound, v.Through) {
			return m.nonsense("session %q without an ID, twice, or with a text that is not UTF-8", v.ID)
		}
		seen[v.ID] = true
		if v.Expires.IsZero() || v.Authenticated.IsZero() || !w.Replace && (!v.Ended.IsZero() || v.Created.IsZero()) {
			return m.nonsense("session %q that never expires, of nobody, or that ends before it begins", v.ID)
		}
	}
	return nil
}

func (m *Memory) checkRoles(c *tokens.Change) error {
	have := make(map[role]bool, len(m.roles))
	for r := range m.roles {
		have[r] = true
	}
	for i := range c.Grants {
		g, gone := &c.Grants[i].Grant, c.Grants[i].Delete
		switch r := roleOf(g); {
		case gone && !have[r]:
			return fmt.Errorf("%w: user %d does not have the role %s there", tokens.ErrNotFound, g.UserID, g.Role)
		case gone:
			delete(have, r)
		case have[r]:
			return exists("user %d with the role %s", g.UserID, g.Role)
		case m.users[g.UserID] == nil:
			return m.nonsense("a role for user %d, whom there is not", g.UserID)
		default:
			have[r] = true
		}
	}
	return nil
}

func (m *Memory) checkSessions(c *tokens.Change) error {
	for i := range c.Sessions {
		w := &c.Sessions[i]
		have, known := m.sessions[w.Session.ID]
		switch {
		case w.Replace && (!known || !have.Ended.IsZero()):
			return fmt.Errorf("%w: session %q, or it has ended", tokens.ErrNotFound, w.Session.ID)
		case w.Replace:
		case known:
			return exists("session %q", w.Session.ID)
		case m.users[w.Session.UserID] == nil:
			return m.nonsense("session %q of user %d, whom there is not", w.Session.ID, w.Session.UserID)
		}
	}
	return nil
}

func (m *Memory) applySessions(c *tokens.Change) {
	for i := range c.Grants {
		g := c.Grants[i].Grant
		g.User, g.Home, g.Created = "", "", stored(g.Created)
		if c.Grants[i].Delete {
			delete(m.roles, roleOf(&g))
		} else {
			m.roles[roleOf(&g)] = g
		}
	}
	m.generation += int64(len(c.Grants))
	for i := range c.Sessions {
		v := c.Sessions[i].Session
		if c.Sessions[i].Replace {
			next := m.sessions[v.ID]
			next.Serial, next.Method, next.MAC = v.Serial, v.Method, v.MAC
			next.Authenticated, next.Expires, next.Ended = v.Authenticated, v.Expires, v.Ended
			v = next
		}
		v.Created, v.Authenticated, v.Expires, v.Ended = stored(v.Created), stored(v.Authenticated), stored(v.Expires), stored(v.Ended)
		m.sessions[v.ID] = v
	}
}

// Session implements tokens.Sessions.
func (m *Memory) Session(ctx context.Context, id string) (tokens.Session, error) {
	if err := m.wait(ctx); err != nil {
		return tokens.Session{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.sessions[id]
	if !ok {
		return tokens.Session{}, fmt.Errorf("%w: session", tokens.ErrNotFound)
	}
	return v, nil
}

// OpenSessions implements tokens.Sessions.
func (m *Memory) OpenSessions(_ context.Context, home string, userID int64, at time.Time, limit int) ([]tokens.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []tokens.Session
	for _, v := range m.sessions {
		mine := v.UserID == userID
		if userID == 0 {
			mine = home == "" || v.Home == home
		}
		if mine && v.Ended.IsZero() && v.Expires.After(stored(at)) {
			list = append(list, v)
		}
	}
	slices.SortFunc(list, func(a, b tokens.Session) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID))
	})
	return page(list, limit), nil
}

// DropSessions implements tokens.Sessions.
func (m *Memory) DropSessions(_ context.Context, before time.Time) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := len(m.sessions)
	maps.DeleteFunc(m.sessions, func(_ string, v tokens.Session) bool { return v.Expires.Before(stored(before)) })
	return all - len(m.sessions), nil
}

func cloneKey(k tokens.APIKey) tokens.APIKey {
	k.Sources = append([]netip.Prefix(nil), k.Sources...)
	return k
}
