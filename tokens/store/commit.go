package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

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
	if e, ok := db.engine.(*postgresDB); ok {
		e.acted(p, err)
	}
	if err != nil {
		if collided(err) {
			return &tokens.ConflictError{}
		}
		return failed("a commit", err)
	}
	if e, ok := db.engine.(*sqliteDB); ok && len(p.Publish) > 0 {
		e.published()
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
	for _, w := range p.notes { // so that undoing an import leaves what somebody has noted on
		if err := begin(s, w.TokenID); err != nil {
			return err
		}
	}
	if err := e.core(s, p); err != nil {
		return err
	}
	for _, step := range []func(*session) error{
		p.writeTokens, p.writeUnowned, p.writeNotes, p.writeUsers, p.writeProfiles, p.writeClients, p.writeKeys,
		p.writeGrants, p.writeSessions, p.writeDocuments, p.writeGroups, p.writeInvites, p.publish, p.insertTokens, p.insertUsers,
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
			blob = ?, binding = ?, expires = ?, passcodes = ?, uses = ?, assigned = coalesce(?, assigned) WHERE id = ?`,
			string(t.State), nullID(t.OwnerID), t.Wrapped.Mechanism, int64(t.Wrapped.KEK), int64(t.Wrapped.Hash),
			int64(t.Wrapped.SeedLen), nullBytes(t.Wrapped.Blob), nullBytes(t.Binding), micros(t.Expires),
			encodePasscodes(t), int64(t.Uses), assigned(w), t.ID)
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

// assigned is the time to store with a token: nil leaves what there is. What
// nobody holds was handed over at no time.
func assigned(w tokens.TokenWrite) any {
	switch {
	case w.Token.OwnerID == 0:
		return int64(0)
	case w.Assigned == nil:
		return nil
	}
	return micros(*w.Assigned)
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
		_, err := s.exec(`UPDATE users SET state = ?, pin_salt = ?, pin_mac = ?, pin_due = ? WHERE id = ?`,
			string(u.State), nullBytes(u.PINSalt), nullBytes(u.PINMAC), u.PINDue, u.ID)
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
		err := s.one(`INSERT INTO users (realm, key, name, state, pin_salt, pin_mac, pin_due, created, display, mail, external, attributes)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
			[]any{u.Realm, u.Key, u.Name, string(u.State), nullBytes(u.PINSalt), nullBytes(u.PINMAC), u.PINDue, micros(u.Created),
				u.Profile.Display, u.Profile.Mail, u.Profile.External, encodeAttributes(u.Profile.Attributes)}, &id)
		if takenExternal(err) {
			return externalTaken(&u.Profile)
		}
		if taken(err) {
			return fmt.Errorf("%w: there is a user %q in realm %q", tokens.ErrExists, u.Name, u.Realm)
		}
		if err != nil {
			return err
		}
		if _, err := s.exec(`INSERT INTO standings (user_id, version) VALUES (?, 1)`, id); err != nil {
			return err
		}
		if err := join(s, id, w.Groups); err != nil {
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
			n, err := int64(0), error(nil)
			if w.Expect == nil {
				n, err = s.exec(`DELETE FROM clients WHERE name = ?`, c.Name)
			} else {
				n, err = s.exec(`DELETE FROM clients WHERE name = ? AND secret = ?`, c.Name, w.Expect)
			}
			if err != nil {
				return err
			}
			if w.Expect != nil && n == 0 {
				return fmt.Errorf("client %q: %w", c.Name, &tokens.ConflictError{})
			}
			if w.Delete && n == 0 {
				return fmt.Errorf("%w: client %q", tokens.ErrNotFound, c.Name)
			}
		}
		if w.Delete {
			continue
		}
		if err := text(c.Name, c.Realm, c.Options); err != nil {
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
		_, err = s.exec(`INSERT INTO clients (name, prefix, realm, secret, secret_size, require_ma, name_rule, created, options)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, c.Name, prefixText(c), c.Realm, nullBytes(c.Secret), int64(c.SecretSize),
			c.RequireMA, string(c.NameRule), micros(c.Created), c.Options)
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
		if err := text(k.ID, k.Name, k.Realm, k.Scope, k.Successor); err != nil {
			return err
		}
		if p.Keys[i].Replace {
			n, err := s.exec(`UPDATE api_keys SET mac = ?, expires = ?, successor = ? WHERE id = ? AND successor = ''`,
				k.MAC[:], micros(k.Expires), k.Successor, k.ID)
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%w: API key %q without a successor", tokens.ErrNotFound, k.ID)
			}
			continue
		}
		sources, err := sourcesText(k)
		if err != nil {
			return err
		}
		_, err = s.exec(`INSERT INTO api_keys (id, name, realm, scope, mac, created, expires, last_used, sources, successor)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, k.ID, k.Name, k.Realm, k.Scope, k.MAC[:], micros(k.Created),
			micros(k.Expires), micros(k.LastUsed), sources, k.Successor)
		if taken(err) {
			return fmt.Errorf("%w: there is an API key %q", tokens.ErrExists, k.ID)
		}
		if err != nil {
			return err
		}
	}
	return raise(s, len(p.Keys))
}

// sourcesText are the networks of a key as they are kept: as they are given, divided
// by commas.
func sourcesText(k *tokens.APIKey) (string, error) {
	list := make([]string, len(k.Sources))
	for i, p := range k.Sources {
		if !p.IsValid() {
			return "", refused("API key %q is good from something that is no network", k.ID)
		}
		list[i] = p.String()
	}
	return strings.Join(list, ","), nil
}

// sources are the networks of a key. What is none, in a row that was altered, stays
// one that holds no address: the key's MAC tells.
func (f *fields) sources() []netip.Prefix {
	all := f.str()
	if all == "" {
		return nil
	}
	var list []netip.Prefix
	for _, one := range strings.Split(all, ",") {
		p, _ := netip.ParsePrefix(one)
		list = append(list, p)
	}
	return list
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
