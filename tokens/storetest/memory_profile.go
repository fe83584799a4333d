package storetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"watchword/tokens"
)

func cloneProfile(p tokens.Profile) tokens.Profile {
	if len(p.Attributes) == 0 {
		p.Attributes = nil
	}
	p.Attributes = maps.Clone(p.Attributes)
	return p
}

func cleanProfile(p *tokens.Profile) bool {
	for name, value := range p.Attributes {
		if !clean(name, value) {
			return false
		}
	}
	return clean(p.Display, p.Mail, p.External)
}

// sensiblePasscodes says whether passcodes are those of a token that has some,
// each a MAC.
func (m *Memory) sensiblePasscodes(t *tokens.Token) bool {
	if t.State == tokens.Revoked && len(t.Passcodes) > 0 {
		m.accuse("token %s is revoked and keeps its passcodes", t.Serial)
	}
	if t.Type != tokens.Recovery && t.Type != tokens.Temporary {
		return len(t.Passcodes) == 0 && t.Uses == 0
	}
	return !slices.ContainsFunc(t.Passcodes, func(mac []byte) bool { return len(mac) != 32 })
}

// clonePasscodes are none once the token is revoked.
func clonePasscodes(t *tokens.Token) [][]byte {
	if t.State == tokens.Revoked {
		return nil
	}
	var list [][]byte
	for _, mac := range t.Passcodes {
		list = append(list, slices.Clone(mac))
	}
	return list
}

// senseOfProfiles looks by themselves at profiles and notes.
func (m *Memory) senseOfProfiles(c *tokens.Change) error {
	for _, w := range c.NewUsers {
		if !cleanProfile(&w.User.Profile) {
			return m.nonsense("a new user whose profile is not UTF-8")
		}
	}
	users := make(map[int64]bool)
	for i := range c.Profiles {
		w := &c.Profiles[i]
		if users[w.UserID] || standingOf(c, w.UserID) == nil || !cleanProfile(&w.Profile) {
			return m.nonsense("a profile of user %d twice, without a standing, or not UTF-8", w.UserID)
		}
		users[w.UserID] = true
	}
	noted := make(map[int64]bool)
	for _, w := range c.Notes {
		if noted[w.TokenID] || w.Note != nil && !clean(*w.Note) {
			return m.nonsense("a note on token %d twice, or not UTF-8", w.TokenID)
		}
		noted[w.TokenID] = true
		for _, tag := range slices.Concat(w.Add, w.Drop) {
			if tag == "" || strings.Contains(tag, ",") || !clean(tag) || slices.Contains(w.Add, tag) && slices.Contains(w.Drop, tag) {
				return m.nonsense("a tag of token %d that is empty, holds a comma, is not UTF-8, or is added and dropped", w.TokenID)
			}
		}
	}
	return nil
}

// checkExternals says whether the external ids stay unique, each in its realm.
func (m *Memory) checkExternals(c *tokens.Change) error {
	moved := make(map[name]int64) // who has an id after the change; zero for nobody
	holder := func(n name) int64 {
		if id, ok := moved[n]; ok {
			return id
		}
		return m.externals[n]
	}
	for _, w := range c.Profiles {
		p := m.users[w.UserID]
		moved[name{p.Realm, p.Profile.External}] = 0
	}
	for _, w := range c.Profiles {
		n := name{m.users[w.UserID].Realm, w.Profile.External}
		if n.name != "" && holder(n) != 0 {
			return exists("another user of the realm has the external id %q", n.name)
		}
		moved[n] = w.UserID
	}
	for _, w := range c.NewUsers {
		n := name{w.User.Realm, w.User.Profile.External}
		if n.name != "" && holder(n) != 0 {
			return exists("another user of the realm has the external id %q", n.name)
		}
		moved[n] = -1 // it has no ID yet
	}
	return nil
}

func (m *Memory) checkNotes(c *tokens.Change) error {
	for _, w := range c.Notes {
		if t := m.tokens[w.TokenID]; t == nil || !m.visible(t) {
			return fmt.Errorf("%w: token %d", tokens.ErrNotFound, w.TokenID)
		}
		if len(w.Add) > 0 && w.Most > 0 && len(tagged(m.tokens[w.TokenID].Tags, &w)) > w.Most {
			return &tokens.ConflictError{TokenIDs: []int64{w.TokenID}}
		}
	}
	return nil
}

// tagged are tags after a note was made.
func tagged(tags []string, w *tokens.NoteWrite) []string {
	tags = slices.DeleteFunc(slices.Concat(tags, w.Add), func(tag string) bool { return slices.Contains(w.Drop, tag) })
	slices.Sort(tags)
	return slices.Compact(tags)
}

// applyProfiles makes what was found good of a change, but for new users.
func (m *Memory) applyProfiles(c *tokens.Change) {
	for _, w := range c.Profiles {
		p := m.users[w.UserID]
		delete(m.externals, name{p.Realm, p.Profile.External})
	}
	for _, w := range c.Profiles {
		p := m.users[w.UserID]
		p.Profile = cloneProfile(w.Profile)
		m.keepExternal(&p.User)
	}
	for _, w := range c.Notes {
		t := m.tokens[w.TokenID]
		m.noted[t.ID] = true
		if w.Note != nil {
			t.Note = *w.Note
		}
		t.Tags = tagged(t.Tags, &w)
	}
}

func (m *Memory) keepExternal(u *tokens.User) {
	if u.Profile.External != "" {
		m.externals[name{u.Realm, u.Profile.External}] = u.ID
	}
}
