package storetest

import (
	"maps"

	"watchword/tokens"
)

// holdings are the types of the tokens that a user holds, by ID; those that are
// yet to get one have negative numbers.
type holdings map[int64]tokens.Type

// count says how many tokens there are that count, and how many of a type of
// passcodes, which do not.
func (h holdings) count() (counted, sheets, temporary int) {
	for _, typ := range h {
		switch typ {
		case tokens.Recovery:
			sheets++
		case tokens.Temporary:
			temporary++
		default:
			counted++
		}
	}
	return counted, sheets, temporary
}

// checkHoldings accuses who gives a user more tokens than one may hold, or passcodes
// beside others that they replace. It never refuses: the databases do not.
func (m *Memory) checkHoldings(c *tokens.Change) error {
	after, before := make(map[int64]holdings), make(map[int64]holdings)
	of := func(user int64) holdings {
		if after[user] == nil {
			h := make(holdings)
			for _, t := range m.held(user) {
				h[t.ID] = t.Type
			}
			before[user], after[user] = h, maps.Clone(h)
		}
		return after[user]
	}
	for i := range c.Tokens {
		n := &c.Tokens[i].Token
		t := m.tokens[n.ID]
		if t.OwnerID != 0 && t.State != tokens.Revoked {
			delete(of(t.OwnerID), t.ID)
		}
		if n.OwnerID != 0 && n.State != tokens.Revoked {
			of(n.OwnerID)[t.ID] = t.Type
		}
	}
	coming := int64(0)
	add := func(t *tokens.Token) {
		if t.OwnerID != 0 && t.State != tokens.Revoked {
			coming--
			of(t.OwnerID)[coming] = t.Type
		}
	}
	for _, t := range c.NewTokens {
		add(t)
	}
	for _, b := range c.Publish {
		for i := range m.batches[b.ID].grants {
			add(&m.batches[b.ID].grants[i])
		}
	}
	for user := range after {
		counted, sheets, temporary := after[user].count()
		had, hadSheets, hadTemporary := before[user].count()
		if counted > m.most && counted > had {
			m.accuse("user %d gets more than %d tokens", user, m.most)
		}
		if sheets > 1 && sheets > hadSheets {
			m.accuse("user %d gets a second recovery sheet", user)
		}
		if temporary > 1 && temporary > hadTemporary {
			m.accuse("user %d gets a second temporary passcode", user)
		}
	}
	return nil
}
