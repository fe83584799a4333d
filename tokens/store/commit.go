package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// plan is a change that was looked at and put in the order in which rows are
// locked.
type plan struct {
	*tokens.Change
	standings []tokens.StandingWrite // by user
	owned     []tokens.MotionWrite   // of owned tokens, by token
	unowned   []tokens.MotionWrite   // of others, by token
	tokens    []tokens.TokenWrite    // by token
	links     []link                 // by chain
	spends    []tokens.Spend         // by hash

	userIDs, tokenIDs []int64 // of what was inserted
}

// link is what a change adds to one audit chain.
type link struct {
	chain, first, last int64
	hash               [32]byte
}

// hot says whether the change holds nothing but what a batch of attempts does.
func (p *plan) hot() bool {
	return len(p.NewUsers)+len(p.NewTokens)+len(p.Users)+len(p.Tokens)+len(p.Clients)+len(p.Keys)+len(p.Documents)+
		len(p.Groups)+len(p.Invites)+len(p.Publish)+len(p.unowned) == 0
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: refused to commit: "+format, append([]any{tokens.ErrInvalid}, args...)...)
}

// makePlan refuses a change that contradicts itself.
func makePlan(c *tokens.Change) (*plan, error) {
	p := &plan{Change: c, standings: c.Standings, tokens: c.Tokens}
	if len(c.Records) == 0 {
		return nil, refused("a change without an audit record")
	}

	byUser := func(a, b tokens.StandingWrite) int { return cmp.Compare(a.UserID, b.UserID) }
	if !slices.IsSortedFunc(p.standings, byUser) {
		p.standings = slices.SortedStableFunc(slices.Values(p.standings), byUser)
	}
	for i, w := range p.standings {
		switch {
		case w.Expect < 1 || w.Next.Version != w.Expect+1:
			return nil, refused("the standing of user %d goes from version %d to %d", w.UserID, w.Expect, w.Next.Version)
		case i > 0 && w.UserID == p.standings[i-1].UserID:
			return nil, refused("the standing of user %d is written twice", w.UserID)
		}
	}
	for i, u := range c.Users {
		if !p.moves(u.ID) {
			return nil, refused("user %d changes without a standing", u.ID)
		}
		if slices.ContainsFunc(c.Users[:i], func(v tokens.User) bool { return v.ID == u.ID }) {
			return nil, refused("user %d is written twice", u.ID)
		}
	}
	for i, n := range c.NewUsers {
		if n.User == nil || n.User.ID != 0 {
			return nil, refused("new user %d is nil or has an ID already", i)
		}
		if err := text(n.User.Realm, n.User.Key, n.User.Name); err != nil {
			return nil, err
		}
	}

	byToken := func(a, b tokens.TokenWrite) int { return cmp.Compare(a.Token.ID, b.Token.ID) }
	if !slices.IsSortedFunc(p.tokens, byToken) {
		p.tokens = slices.SortedStableFunc(slices.Values(p.tokens), byToken)
	}
	for i, w := range p.tokens {
		switch {
		case w.Expect < 1:
			return nil, refused("token %d is written without a version", w.Token.ID)
		case i > 0 && w.Token.ID == p.tokens[i-1].Token.ID:
			return nil, refused("token %d is written twice", w.Token.ID)
		}
	}
	for _, check := range []func() error{p.splitMotions, p.checkNewTokens, p.sortSpends, p.checkCabinet} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	return p, p.linkRecords()
}

// moves says whether the change moves the user's standing.
func (p *plan) moves(user int64) bool {
	_, found := slices.BinarySearchFunc(p.standings, user, func(w tokens.StandingWrite, id int64) int {
		return cmp.Compare(w.UserID, id)
	})
	return found
}

// guarded says whether the change is conditional on the token's own version.
func (p *plan) guarded(token int64) bool {
	_, found := slices.BinarySearchFunc(p.tokens, token, func(w tokens.TokenWrite, id int64) int {
		return cmp.Compare(w.Token.ID, id)
	})
	return found
}

func (p *plan) splitMotions() error {
	byToken := func(a, b tokens.MotionWrite) int { return cmp.Compare(a.TokenID, b.TokenID) }
	motions := p.Motions
	if !slices.IsSortedFunc(motions, byToken) {
		motions = slices.SortedStableFunc(slices.Values(motions), byToken)
	}
	p.owned = make([]tokens.MotionWrite, 0, len(motions))
	for i, w := range motions {
		switch {
		case i > 0 && w.TokenID == motions[i-1].TokenID:
			return refused("token %d moves twice", w.TokenID)
		case w.UserID != 0 && !p.moves(w.UserID):
			return refused("token %d moves without a standing of its owner", w.TokenID)
		case w.UserID == 0 && w.Expect < 1 && !p.guarded(w.TokenID):
			return refused("token %d, which has no owner, moves without a version", w.TokenID)
		case w.UserID == 0:
			p.unowned = append(p.unowned, w)
		default:
			p.owned = append(p.owned, w)
		}
	}
	return nil
}

// linkRecords finds what the records add to each chain. A gap among them is
// as good as one in the database.
func (p *plan) linkRecords() error {
	for i := range p.Records {
		r := &p.Records[i]
		if err := text(r.Action, r.Outcome, r.Realm, r.User, r.Serial, r.Actor, r.Client, r.Source, r.Reason); err != nil {
			return err
		}
		for _, f := range r.Detail {
			if err := text(f.Name, f.Value); err != nil {
				return err
			}
		}
		j := slices.IndexFunc(p.links, func(l link) bool { return l.chain == r.Chain })
		if j < 0 {
			p.links = append(p.links, link{chain: r.Chain, first: r.Seq, last: r.Seq - 1})
			j = len(p.links) - 1
		}
		l := &p.links[j]
		if r.Seq != l.last+1 || r.Seq < 1 {
			return moved(r.Chain)
		}
		l.last, l.hash = r.Seq, r.Hash
	}
	slices.SortFunc(p.links, func(a, b link) int { return cmp.Compare(a.chain, b.chain) })
	return nil
}

// moved says that a chain has another head.
func moved(chain int64) error {
	return fmt.Errorf("%w: chain %d", tokens.ErrChainMoved, chain)
}

// text refuses what not every database can keep as text.
func text(values ...string) error {
	for _, s := range values {
		if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
			return refused("a text that is not UTF-8, or holds a NUL")
		}
	}
	return nil
}

// Commit implements tokens.Store.
func (db *DB) Commit(ctx context.Context, c *tokens.Change) error {
	p, err := makePlan(c)
	if err != nil {
		return err
	}
	if p.hot() {
		return failed("a commit", db.engine.commitHot(ctx, p))
	}
	err = db.engine.write(ctx, false, func(s *session) error { return p.apply(db.engine, s) })
	if err != nil {
		if collided(err) {
			return &tokens.ConflictError{}
		}
		return failed("a commit", err)
	}
	for i, id := range p.userIDs {
		c.NewUsers[i].User.ID = id
	}
	for i, id := range p.tokenIDs {
		c.NewTokens[i].ID = id
	}
	return nil
}

// apply makes the whole change in a transaction, and notes what ids are new.
// The audit chain is looked at first: when a commit had been made although its
// answer was lost, that is what it must say, and not that the versions moved.
func (p *plan) apply(e engine, s *session) error {
	p.userIDs, p.tokenIDs = nil, nil
	for _, w := range p.tokens {
		if err := begin(s, w.Token.ID); err != nil {
			return err
		}
	}
	for _, w := range p.unowned {
		if err := begin(s, w.TokenID); err != nil {
			return err
		}
	}
	if err := e.core(s, p); err != nil {
		return err
	}
	for _, step := range []func(*session) error{
		p.writeTokens, p.writeUnowned, p.writeUsers, p.writeClients, p.writeKeys, p.writeDocuments, p.writeGroups,
		p.writeInvites, p.publish, p.insertTokens, p.insertUsers,
	} {
		if err := step(s); err != nil {
			return err
		}
	}
	return nil
}

// begin makes a token's motion, from what it came with, if there is none yet.
func begin(s *session, token int64) error {
	_, err := s.exec(`INSERT INTO motions (token_id, version, last, drift, used_at)
		SELECT id, 1, last0, drift0, 0 FROM tokens
		WHERE id = ? AND batch IN (SELECT id FROM batches WHERE state = 'published')
		ON CONFLICT (token_id) DO NOTHING`, token)
	return err
}

func (p *plan) writeTokens(s *session) error {
	var behind []int64
	for _, w := range p.tokens {
		n, err := s.exec(`UPDATE motions SET version = version + 1 WHERE token_id = ? AND version = ?`, w.Token.ID, w.Expect)
		if err != nil {
			return err
		}
		if n == 0 {
			behind = append(behind, w.Token.ID)
			continue
		}
		// Now the row is ours: nobody else can change the owner.
		if err := p.ownerMoves(s, &w.Token); err != nil {
			return err
		}
		t := &w.Token
		_, err = s.exec(`UPDATE tokens SET state = ?, owner_id = ?, mechanism = ?, kek = ?, hash = ?, seed_len = ?,
			blob = ?, binding = ? WHERE id = ?`,
			string(t.State), nullID(t.OwnerID), t.Wrapped.Mechanism, int64(t.Wrapped.KEK), int64(t.Wrapped.Hash),
			int64(t.Wrapped.SeedLen), nullBytes(t.Wrapped.Blob), nullBytes(t.Binding), t.ID)
		if orphan(err) {
			return refused("token %d is to belong to user %d, whom there is not", t.ID, t.OwnerID)
		}
		if err != nil {
			return err
		}
	}
	if behind != nil {
		return &tokens.ConflictError{TokenIDs: behind}
	}
	return nil
}

// ownerMoves refuses to give or take a token behind its owner's back: what the
// user's version guards includes the user's tokens.
func (p *plan) ownerMoves(s *session, t *tokens.Token) error {
	var (
		owner sql.NullInt64
		state string
	)
	if err := s.one(`SELECT owner_id, state FROM tokens WHERE id = ?`, []any{t.ID}, &owner, &state); err != nil {
		return err
	}
	if owner.Valid && tokens.State(state) != tokens.Revoked && !p.moves(owner.Int64) {
		return refused("token %d changes without a standing of its owner", t.ID)
	}
	if t.OwnerID != 0 && t.State != tokens.Revoked && !p.moves(t.OwnerID) {
		return refused("token %d changes without a standing of its new owner", t.ID)
	}
	return nil
}

func (p *plan) writeUnowned(s *session) error {
	var behind []int64
	for _, w := range p.unowned {
		// A TokenWrite in the same change has looked at the version, and moved it.
		query := `UPDATE motions SET last = ?, drift = ?, used_at = ?, version = version + 1
			WHERE token_id = ? AND last <= ? AND version = ?`
		args := []any{w.Last, int64(w.Drift), w.UsedAt, w.TokenID, w.Last, w.Expect}
		if p.guarded(w.TokenID) {
			query = `UPDATE motions SET last = ?, drift = ?, used_at = ? WHERE token_id = ? AND last <= ?`
			args = args[:5]
		}
		n, err := s.exec(query, args...)
		if err != nil {
			return err
		}
		if n == 0 {
			behind = append(behind, w.TokenID)
		}
	}
	if behind != nil {
		return &tokens.ConflictError{TokenIDs: behind}
	}
	return nil
}

func (p *plan) writeUsers(s *session) error {
	for i := range p.Users {
		u := &p.Users[i]
		_, err := s.exec(`UPDATE users SET state = ?, pin_salt = ?, pin_mac = ? WHERE id = ?`,
			string(u.State), nullBytes(u.PINSalt), nullBytes(u.PINMAC), u.ID)
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) insertUsers(s *session) error {
	for _, w := range p.NewUsers {
		u := w.User
		var id int64
		err := s.one(`INSERT INTO users (realm, key, name, state, pin_salt, pin_mac, created)
			VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id`,
			[]any{u.Realm, u.Key, u.Name, string(u.State), nullBytes(u.PINSalt), nullBytes(u.PINMAC), micros(u.Created)}, &id)
		if taken(err) {
			return fmt.Errorf("%w: there is a user %q in realm %q", tokens.ErrExists, u.Name, u.Realm)
		}
		if err != nil {
			return err
		}
		if _, err := s.exec(`INSERT INTO standings (user_id, version) VALUES (?, 1)`, id); err != nil {
			return err
		}
		p.userIDs = append(p.userIDs, id)
	}
	return nil
}

// publish makes whole batches visible. It costs one row each, however many
// tokens they hold.
func (p *plan) publish(s *session) error {
	for i := range p.Publish {
		b := &p.Publish[i]
		published := b.Published
		if published.IsZero() {
			published = time.Now()
		}
		if err := text(b.SHA256); err != nil {
			return err
		}
		n, err := s.exec(`UPDATE batches SET state = 'published', published = ?, sha256 = ?, tokens = ?, rejected = ?,
			duplicate = ? WHERE id = ? AND state = 'staging'`,
			micros(published), b.SHA256, int64(b.Tokens), int64(b.Rejected), int64(b.Duplicate), b.ID)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%w: import %d is no longer staging", tokens.ErrState, b.ID)
		}
	}
	return nil
}

func (p *plan) writeClients(s *session) error {
	for i := range p.Clients {
		w := &p.Clients[i]
		c := &w.Client
		if w.Delete || w.Replace {
			n, err := s.exec(`DELETE FROM clients WHERE name = ?`, c.Name)
			if err != nil {
				return err
			}
			if w.Delete && n == 0 {
				return fmt.Errorf("%w: client %q", tokens.ErrNotFound, c.Name)
			}
		}
		if w.Delete {
			continue
		}
		if err := text(c.Name, c.Realm); err != nil {
			return err
		}
		if !c.Prefix.IsValid() {
			return refused("client %q has no addresses", c.Name)
		}
		var other string
		err := s.one(`SELECT name FROM clients WHERE name = ? OR prefix = ?`, []any{c.Name, prefixText(c)}, &other)
		switch {
		case err == nil && other == c.Name:
			return fmt.Errorf("%w: there is a client %q", tokens.ErrExists, c.Name)
		case err == nil:
			return fmt.Errorf("%w: client %q has the addresses %s", tokens.ErrExists, other, c.Prefix)
		case !errors.Is(err, sql.ErrNoRows):
			return err
		}
		_, err = s.exec(`INSERT INTO clients (name, prefix, realm, secret, secret_size, require_ma, name_rule, created)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, c.Name, prefixText(c), c.Realm, nullBytes(c.Secret), int64(c.SecretSize),
			c.RequireMA, string(c.NameRule), micros(c.Created))
		if taken(err) { // another node's, since we looked
			return fmt.Errorf("%w: there is a client %q, or one with its addresses", tokens.ErrExists, c.Name)
		}
		if err != nil {
			return err
		}
	}
	return raise(s, len(p.Clients))
}

// prefixText is the prefix as it is compared: without what the mask hides.
func prefixText(c *tokens.Client) string { return c.Prefix.Masked().String() }

func (p *plan) writeKeys(s *session) error {
	for i := range p.Keys {
		k := &p.Keys[i].Key
		if p.Keys[i].Delete {
			n, err := s.exec(`DELETE FROM api_keys WHERE id = ?`, k.ID)
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%w: API key %q", tokens.ErrNotFound, k.ID)
			}
			continue
		}
		if err := text(k.ID, k.Name, k.Realm); err != nil {
			return err
		}
		_, err := s.exec(`INSERT INTO api_keys (id, name, realm, scope, mac, created, expires, last_used)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, k.ID, k.Name, k.Realm, k.Scope, k.MAC[:], micros(k.Created),
			micros(k.Expires), micros(k.LastUsed))
		if taken(err) {
			return fmt.Errorf("%w: there is an API key %q", tokens.ErrExists, k.ID)
		}
		if err != nil {
			return err
		}
	}
	return raise(s, len(p.Keys))
}

// raise moves the generation of what nodes cache.
func raise(s *session, writes int) error {
	if writes == 0 {
		return nil
	}
	_, err := s.exec(`UPDATE meta SET generation = generation + ?`, int64(writes))
	return err
}

// values are a record's columns in the order of insertRecord.
func recordValues(r *audit.Record) [14]any {
	return [14]any{
		r.Chain, r.Seq, r.Time.UnixMicro(), r.Action, r.Outcome, r.Realm, r.User, r.Serial, r.Actor, r.Client,
		r.Source, r.Reason, encodeDetail(r.Detail), r.Hash[:],
	}
}
