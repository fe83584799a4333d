package storetest

import (
	"bytes"
	"slices"
	"time"

	"watchword/tokens"
)

// visible says whether a token is of no import, or of one that was published.
func (m *Memory) visible(t *tokens.Token) bool {
	return t.Batch == 0 || m.batches[t.Batch].published
}

// sameCredential says whether two tokens have the same credential, or none.
func sameCredential(a, b *tokens.Token) bool {
	if a.Credential == nil || b.Credential == nil {
		return a.Credential == b.Credential
	}
	return bytes.Equal(a.Credential.Encode(), b.Credential.Encode())
}

func cloneCredential(c *tokens.Credential) *tokens.Credential {
	if c == nil {
		return nil
	}
	d := *c
	d.ID, d.PublicKey, d.Transports = bytesOrNil(c.ID), bytesOrNil(c.PublicKey), slices.Clone(c.Transports)
	if len(d.Transports) == 0 {
		d.Transports = nil
	}
	return &d
}

// senseOfNewTokens looks at the tokens to insert by themselves.
func (m *Memory) senseOfNewTokens(c *tokens.Change) error {
	for _, t := range c.NewTokens {
		switch {
		case t == nil || t.ID != 0 || t.Batch != 0:
			return m.nonsense("a new token that is nil, has an ID, or a batch")
		case !clean(t.Realm, t.Serial, string(t.Type), string(t.State), t.Model, t.Hint, t.Wrapped.Mechanism, t.PublicID):
			return m.nonsense("a new token with a text that is not UTF-8")
		case (t.Type == tokens.FIDO) != (t.Credential != nil):
			return m.nonsense("new token %s, a FIDO token without a credential, or another with one", t.Serial)
		case t.OwnerID != 0 && standingOf(c, t.OwnerID) == nil:
			return m.nonsense("new token %s without a standing of its owner", t.Serial)
		case !m.sensiblePasscodes(t):
			return m.nonsense("new token %s with passcodes that are not MACs, or not its to have", t.Serial)
		}
	}
	return nil
}

func (m *Memory) checkNewTokens(c *tokens.Change) error {
	serials, credentials := make(map[name]bool), make(map[string]bool)
	for _, t := range c.NewTokens {
		n := name{t.Realm, t.Serial}
		if serials[n] || m.serials[n] != nil {
			return exists("a token with the serial %s", t.Serial)
		}
		serials[n] = true
		if t.Credential != nil {
			key := t.Credential.Key()
			if credentials[key] || m.credentials[key] != nil {
				return exists("a token with this credential")
			}
			credentials[key] = true
			if t.Credential.UserID != t.OwnerID {
				m.accuse("token %s is given to user %d, and was made for user %d", t.Serial, t.OwnerID, t.Credential.UserID)
			}
		}
	}
	return nil
}

// insertToken stores a token under a new ID. Its own version begins with 1.
func (m *Memory) insertToken(t tokens.Token) int64 {
	t.ID, t.Owner, t.Created, t.Version = m.id(), "", stored(t.Created), 1
	t.Expires, t.Note, t.Tags = stored(t.Expires), "", nil
	if t.Assigned = stored(t.Assigned); t.Assigned.IsZero() {
		t.Assigned = t.Created
	}
	if t.OwnerID == 0 {
		t.Assigned = time.Time{}
	}
	m.tokens[t.ID] = &t
	m.serials[name{t.Realm, t.Serial}] = &t
	if t.Credential != nil {
		m.credentials[t.Credential.Key()] = &t
	}
	if p := m.users[t.OwnerID]; p != nil {
		t.Owner = p.Key
		if m.holds[p.ID] == nil {
			m.holds[p.ID] = make(map[int64]bool)
		}
		m.holds[p.ID][t.ID] = true
	}
	return t.ID
}
