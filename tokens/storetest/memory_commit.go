package storetest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// Commit implements tokens.Store. It looks at everything before it changes
// anything.
func (m *Memory) Commit(ctx context.Context, c *tokens.Change) error {
	if err := m.wait(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	fault := None
	if len(m.faults) > 0 {
		fault = m.faults[0](c)
		m.faults = m.faults[1:]
	}
	switch fault {
	case Failed:
		return unavailable("an injected fault")
	case Conflict:
		e := &tokens.ConflictError{}
		switch {
		case len(c.Standings) > 0:
			e.UserIDs = []int64{c.Standings[0].UserID}
		case len(c.Tokens) > 0:
			e.TokenIDs = []int64{c.Tokens[0].Token.ID}
		}
		return e
	}
	if m.leaks(c) {
		m.accuse("a plaintext seed is in a commit")
	}
	for _, check := range []func(*tokens.Change) error{
		m.checkSense, m.senseOfNewTokens, m.senseOfProfiles, m.senseOfCabinet, m.senseOfSessions,
		m.checkChains, m.checkStandings, m.checkOwned, m.checkSpends, m.checkTokens, m.checkUnowned, m.checkNotes,
		m.checkClients, m.checkKeys, m.checkRoles, m.checkSessions, m.checkDocuments, m.checkInvites, m.checkPublish, m.checkNewTokens, m.checkNewUsers,
		m.checkExternals, m.checkHoldings,
	} {
		if err := check(c); err != nil {
			return err
		}
	}
	m.apply(c)
	if fault == FailedButPersisted {
		return unavailable("an injected fault, after it was stored")
	}
	if c.Made != nil {
		// Others come first while this one waits to be durable.
		m.mu.Unlock()
		c.Made()
		runtime.Gosched()
		m.mu.Lock()
	}
	return nil
}

// nonsense accuses and refuses.
func (m *Memory) nonsense(format string, args ...any) error {
	m.accuse("a commit has "+format, args...)
	return fmt.Errorf("%w: the change has "+format, append([]any{tokens.ErrInvalid}, args...)...)
}

func standingOf(c *tokens.Change, user int64) *tokens.StandingWrite {
	for i := range c.Standings {
		if c.Standings[i].UserID == user {
			return &c.Standings[i]
		}
	}
	return nil
}

func writeOf(c *tokens.Change, token int64) *tokens.TokenWrite {
	for i := range c.Tokens {
		if c.Tokens[i].Token.ID == token {
			return &c.Tokens[i]
		}
	}
	return nil
}

func clean(values ...string) bool {
	for _, s := range values {
		if !utf8.ValidString(s) || strings.Contains(s, "\x00") {
			return false
		}
	}
	return true
}

func (m *Memory) checkSense(c *tokens.Change) error {
	if len(c.Records) == 0 {
		return m.nonsense("no audit record")
	}
	seen := make(map[[2]int64]bool)
	twice := func(kind, id int64) bool {
		k := [2]int64{kind, id}
		defer func() { seen[k] = true }()
		return seen[k]
	}
	for _, w := range c.Standings {
		if w.Expect < 1 || w.Next.Version != w.Expect+1 {
			return m.nonsense("a version that goes from %d to %d (user %d)", w.Expect, w.Next.Version, w.UserID)
		}
		if twice(1, w.UserID) {
			return m.nonsense("user %d twice", w.UserID)
		}
	}
	for _, u := range c.Users {
		if standingOf(c, u.ID) == nil || twice(2, u.ID) {
			return m.nonsense("user %d without a standing, or twice", u.ID)
		}
	}
	for _, n := range c.NewUsers {
		if n.User == nil || n.User.ID != 0 || !clean(n.User.Realm, n.User.Key, n.User.Name) {
			return m.nonsense("a new user that is nil, has an ID, or a name that is not UTF-8")
		}
	}
	for _, w := range c.Tokens {
		if w.Expect < 1 || twice(3, w.Token.ID) {
			return m.nonsense("token %d without a version, or twice", w.Token.ID)
		}
		if !m.sensiblePasscodes(&w.Token) {
			return m.nonsense("token %s with passcodes that are not MACs, or not its to have", w.Token.Serial)
		}
	}
	for _, w := range c.Motions {
		switch {
		case twice(4, w.TokenID):
			return m.nonsense("token %d moving twice", w.TokenID)
		case w.UserID != 0 && standingOf(c, w.UserID) == nil:
			return m.nonsense("token %d moving without a standing of user %d", w.TokenID, w.UserID)
		case w.UserID == 0 && w.Expect < 1 && writeOf(c, w.TokenID) == nil:
			return m.nonsense("token %d moving without a version", w.TokenID)
		}
	}
	for i := range c.Records {
		r := &c.Records[i]
		ok := clean(r.Action, r.Outcome, r.Realm, r.User, r.Serial, r.Actor, r.Client, r.Source, r.Reason)
		for _, f := range r.Detail {
			ok = ok && clean(f.Name, f.Value)
		}
		if !ok {
			return m.nonsense("an audit record with a text that is not UTF-8, or holds a NUL")
		}
	}
	return nil
}

func (m *Memory) checkChains(c *tokens.Change) error {
	heads := make(map[int64]audit.Head)
	for i := range c.Records {
		r := &c.Records[i]
		head, known := heads[r.Chain]
		if !known {
			if head, known = m.heads[r.Chain]; !known {
				return fmt.Errorf("%w: chain %d was never minted", tokens.ErrChainMoved, r.Chain)
			}
		}
		if r.Seq != head.Seq+1 {
			return fmt.Errorf("%w: chain %d is at %d, and a record says %d", tokens.ErrChainMoved, r.Chain, head.Seq, r.Seq)
		}
		if sum := audit.Sum(head.Hash, r.Chain, r.Seq, &r.Event); sum != r.Hash {
			m.accuse("record %d of chain %d does not continue the record before it", r.Seq, r.Chain)
		}
		if r.Time.Location() != time.UTC || r.Time.Truncate(time.Microsecond) != r.Time {
			m.accuse("record %d of chain %d has a time that is not UTC in whole microseconds", r.Seq, r.Chain)
		}
		heads[r.Chain] = audit.Head{Chain: r.Chain, Seq: r.Seq, Hash: r.Hash}
	}
	return nil
}

func (m *Memory) checkStandings(c *tokens.Change) error {
	var behind []int64
	for _, w := range c.Standings {
		if p := m.users[w.UserID]; p == nil || p.Version != w.Expect {
			behind = append(behind, w.UserID)
		}
	}
	if behind != nil {
		return &tokens.ConflictError{UserIDs: behind}
	}
	return nil
}

// back says whether a motion would go back, which nobody may even try who has
// seen the current version.
func (m *Memory) back(t *tokens.Token, w *tokens.MotionWrite) bool {
	if w.Last >= t.Last {
		if t.Type == tokens.Recovery && t.Last&^w.Last != 0 { // which no database sees
			m.accuse("sheet %s forgets a code that was used: %b after %b", t.Serial, w.Last, t.Last)
		}
		return false
	}
	m.accuse("token %s goes back from %d to %d", t.Serial, t.Last, w.Last)
	return true
}

func (m *Memory) checkOwned(c *tokens.Change) error {
	var behind []int64
	for i := range c.Motions {
		w := &c.Motions[i]
		if w.UserID == 0 {
			continue
		}
		t := m.tokens[w.TokenID]
		if t == nil || m.back(t, w) {
			behind = append(behind, w.TokenID)
			continue
		}
		owner := t.OwnerID
		if next := writeOf(c, t.ID); next != nil {
			owner = next.Token.OwnerID
		}
		if owner != w.UserID && t.OwnerID != w.UserID {
			return m.nonsense("token %s moving for user %d, who does not hold it", t.Serial, w.UserID)
		}
	}
	if behind != nil {
		return &tokens.ConflictError{TokenIDs: behind}
	}
	return nil
}

func (m *Memory) checkTokens(c *tokens.Change) error {
	var behind []int64
	for i := range c.Tokens {
		w := &c.Tokens[i]
		t := m.tokens[w.Token.ID]
		if t == nil || !m.visible(t) || t.Version != w.Expect {
			behind = append(behind, w.Token.ID)
			continue
		}
		n := &w.Token
		switch {
		case t.OwnerID != 0 && t.State != tokens.Revoked && standingOf(c, t.OwnerID) == nil,
			n.OwnerID != 0 && n.State != tokens.Revoked && standingOf(c, n.OwnerID) == nil:
			return m.nonsense("token %s changing without a standing of its owner", t.Serial)
		case n.OwnerID != 0 && m.users[n.OwnerID] == nil:
			return m.nonsense("token %s for user %d, whom there is not", t.Serial, n.OwnerID)
		}
		if n.Realm != t.Realm || n.Serial != t.Serial || n.Type != t.Type || n.Algorithm != t.Algorithm ||
			n.Digits != t.Digits || n.Period != t.Period || n.Batch != t.Batch ||
			n.PublicID != t.PublicID || !bytes.Equal(n.PrivateMAC, t.PrivateMAC) || !sameCredential(n, t) {
			m.accuse("token %s is written with what a token never changes", t.Serial)
		}
		if t.State == tokens.Revoked && n.State != tokens.Revoked {
			m.accuse("token %s comes back from revoked", t.Serial)
		}
		if n.State == tokens.Revoked && len(n.Wrapped.Blob) > 0 {
			m.accuse("token %s is revoked and keeps its seed", t.Serial)
		}
	}
	if behind != nil {
		return &tokens.ConflictError{TokenIDs: behind}
	}
	return nil
}

func (m *Memory) checkUnowned(c *tokens.Change) error {
	var behind []int64
	for i := range c.Motions {
		w := &c.Motions[i]
		if w.UserID != 0 {
			continue
		}
		t := m.tokens[w.TokenID]
		if t == nil || !m.visible(t) ||
			writeOf(c, w.TokenID) == nil && t.Version != w.Expect || m.back(t, w) {
			behind = append(behind, w.TokenID)
		}
	}
	if behind != nil {
		return &tokens.ConflictError{TokenIDs: behind}
	}
	return nil
}

func (m *Memory) checkPublish(c *tokens.Change) error {
	for _, b := range c.Publish {
		if have := m.batches[b.ID]; have == nil || have.published {
			return fmt.Errorf("%w: import %d is no longer staging", tokens.ErrState, b.ID)
		}
		if err := m.checkGrants(c, m.batches[b.ID]); err != nil {
			return err
		}
	}
	return nil
}

func (m *Memory) checkNewUsers(c *tokens.Change) error {
	fresh := make(map[name]bool)
	for _, w := range c.NewUsers {
		n := name{w.User.Realm, w.User.Key}
		if fresh[n] || m.names[n] != nil {
			return exists("user %q in realm %q", w.User.Name, w.User.Realm)
		}
		fresh[n] = true
	}
	return nil
}

func (m *Memory) checkClients(c *tokens.Change) error {
	have := make(map[string]tokens.Client, len(m.clients))
	for id, other := range m.clients {
		have[id] = other
	}
	for _, w := range c.Clients {
		id := w.Client.Name
		was, known := have[id]
		switch {
		case w.Expect != nil && (!known || !bytes.Equal(was.Secret, w.Expect)):
			return fmt.Errorf("client %q: %w", id, &tokens.ConflictError{})
		case w.Delete && !known:
			return fmt.Errorf("%w: client %q", tokens.ErrNotFound, id)
		case w.Delete:
			delete(have, id)
			continue
		case !w.Client.Prefix.IsValid() || !clean(id, w.Client.Realm):
			return m.nonsense("client %q with a name or addresses that are not valid", id)
		case known && !w.Replace:
			return exists("client %q", id)
		}
		for other, o := range have {
			if other != id && o.Prefix.Masked() == w.Client.Prefix.Masked() {
				return exists("client %q has the addresses %s", other, w.Client.Prefix)
			}
		}
		have[id] = w.Client
	}
	return nil
}

func (m *Memory) checkKeys(c *tokens.Change) error {
	have := make(map[string]tokens.APIKey, len(m.keys))
	maps.Copy(have, m.keys)
	for _, w := range c.Keys {
		was, known := have[w.Key.ID]
		switch {
		case w.Delete && !known:
			return fmt.Errorf("%w: API key %q", tokens.ErrNotFound, w.Key.ID)
		case w.Delete:
			delete(have, w.Key.ID)
			continue
		case !clean(w.Key.ID, w.Key.Name, w.Key.Realm, w.Key.Scope, w.Key.Successor):
			return m.nonsense("API key %q with a text that is not UTF-8", w.Key.ID)
		case w.Replace && (!known || was.Successor != ""):
			return fmt.Errorf("%w: API key %q without a successor", tokens.ErrNotFound, w.Key.ID)
		case !w.Replace && known:
			return exists("API key %q", w.Key.ID)
		case !w.Replace && slices.ContainsFunc(w.Key.Sources, func(p netip.Prefix) bool { return !p.IsValid() }):
			return m.nonsense("API key %q good from something that is no network", w.Key.ID)
		}
		have[w.Key.ID] = w.Key
	}
	return nil
}

// apply makes a change that was found good.
func (m *Memory) apply(c *tokens.Change) {
	for _, w := range c.Standings {
		m.users[w.UserID].Standing = cloneStanding(w.Next)
	}
	for i := range c.Users {
		u := cloneUser(&c.Users[i])
		p := m.users[u.ID]
		p.State, p.PINSalt, p.PINMAC, p.PINDue = u.State, u.PINSalt, u.PINMAC, u.PINDue
	}
	for i := range c.Tokens {
		n := cloneToken(&c.Tokens[i].Token)
		t := m.tokens[n.ID]
		delete(m.holds[t.OwnerID], t.ID)
		t.State, t.OwnerID, t.Wrapped, t.Binding = n.State, n.OwnerID, n.Wrapped, n.Binding
		t.Expires, t.Passcodes, t.Uses = stored(n.Expires), n.Passcodes, n.Uses
		if at := c.Tokens[i].Assigned; at != nil {
			t.Assigned = stored(*at)
		}
		if t.OwnerID == 0 {
			t.Assigned = time.Time{}
		}
		t.Owner = ""
		if p := m.users[n.OwnerID]; p != nil {
			t.Owner = p.Key
			if m.holds[p.ID] == nil {
				m.holds[p.ID] = make(map[int64]bool)
			}
			m.holds[p.ID][t.ID] = true
		}
		t.Version++
	}
	for i := range c.Motions {
		w := &c.Motions[i]
		t := m.tokens[w.TokenID]
		t.Last, t.Drift, t.UsedAt = w.Last, w.Drift, w.UsedAt
		if w.UserID == 0 && writeOf(c, w.TokenID) == nil {
			t.Version++
		}
	}
	for _, w := range c.Clients {
		if w.Delete {
			delete(m.clients, w.Client.Name)
			continue
		}
		w.Client.Prefix, w.Client.Created = w.Client.Prefix.Masked(), stored(w.Client.Created)
		w.Client.Secret = bytesOrNil(w.Client.Secret)
		m.clients[w.Client.Name] = w.Client
	}
	for _, w := range c.Keys {
		if w.Delete {
			delete(m.keys, w.Key.ID)
			continue
		}
		k := cloneKey(w.Key)
		if w.Replace {
			k = m.keys[k.ID]
			k.MAC, k.Expires, k.Successor = w.Key.MAC, w.Key.Expires, w.Key.Successor
		}
		k.Created, k.Expires, k.LastUsed = stored(k.Created), stored(k.Expires), stored(k.LastUsed)
		m.keys[k.ID] = k
	}
	m.applySessions(c)
	m.generation += int64(len(c.Clients) + len(c.Keys))
	for _, b := range c.Publish {
		have := m.batches[b.ID]
		have.published = true
		have.Published, have.SHA256 = stored(b.Published), b.SHA256
		if have.Published.IsZero() {
			have.Published = stored(time.Now())
		}
		have.Tokens, have.Rejected, have.Duplicate = b.Tokens, b.Rejected, b.Duplicate
		m.handOut(have)
	}
	for _, t := range c.NewTokens {
		t.ID = m.insertToken(cloneToken(t))
	}
	m.applyCabinet(c)
	m.applyProfiles(c)
	for _, w := range c.NewUsers {
		w.User.ID = m.id()
		u := cloneUser(w.User)
		u.Created = stored(u.Created)
		m.users[u.ID] = &person{User: u, Standing: tokens.Standing{Version: 1}}
		m.names[name{u.Realm, u.Key}] = m.users[u.ID]
		m.keepExternal(&u)
		m.groups[u.ID] = slices.Clone(w.Groups)
	}
	for _, r := range c.Records {
		r = cloneRecord(r)
		r.ID = m.id()
		m.records = append(m.records, r)
		m.heads[r.Chain] = audit.Head{Chain: r.Chain, Seq: r.Seq, Hash: r.Hash}
	}
}
