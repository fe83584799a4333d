package store

import (
	"context"
	"slices"
	"strings"

	"watchword/tokens"
)

// Credentials implements tokens.Reporter.
func (db *DB) Credentials(ctx context.Context, q tokens.CredentialQuery) ([]tokens.CredentialRow, error) {
	if !sound(q.Realm) {
		return nil, nil
	}
	var found []tokens.CredentialRow
	err := db.read(ctx, "reading the credential report", func(s *session) (err error) {
		if q.Unowned {
			found, err = unowned(s, q)
		} else {
			found, err = holders(s, q)
		}
		return err
	})
	return found, err
}

// unowned lists tokens that nobody holds: all of them are imported.
func unowned(s *session, q tokens.CredentialQuery) ([]tokens.CredentialRow, error) {
	imported := tokens.TokenQuery{Realm: q.Realm, State: tokens.Imported}
	f := s.tokenFilter(&imported)
	f.where("o.id IS NULL")
	p, err := best(s, q.After, tokenPaths(&imported))
	if err != nil {
		return nil, err
	}
	var found []tokens.CredentialRow
	for at, n := q.After, int(limited(q.Limit)); len(found) < n; {
		ids, _, err := p(s, at, aWay)
		if err != nil || len(ids) == 0 {
			return found, err
		}
		these := filter{slices.Clone(f.conditions), slices.Clone(f.args)}
		these.where(s.among("t.id", ids))
		list, err := s.tokens(these, "ORDER BY t.id LIMIT ?", int64(n-len(found)))
		if err != nil {
			return nil, err
		}
		for i := range list {
			found = append(found, tokens.CredentialRow{Tokens: list[i : i+1 : i+1]})
		}
		at = ids[len(ids)-1]
	}
	return found, nil
}

// holders lists users with their tokens.
func holders(s *session, q tokens.CredentialQuery) ([]tokens.CredentialRow, error) {
	var f filter
	f.where("u.id > ?", q.After)
	f.equal("u.realm", q.Realm)
	users, err := s.users(f, "ORDER BY u.id LIMIT ?", limited(q.Limit))
	if err != nil || len(users) == 0 {
		return nil, err
	}
	found := make([]tokens.CredentialRow, len(users))
	ids := make([]any, len(users))
	for i := range users {
		found[i].User, ids[i] = &users[i], users[i].User.ID
	}
	// In chunks of one length: each length is a statement of its own to prepare.
	const chunk = 100
	for rest := found; len(rest) > 0; {
		n := min(chunk, len(rest))
		var held filter
		held.where("t.owner_id IN (?"+strings.Repeat(", ?", n-1)+") AND t.state <> 'revoked' AND b.state = 'published'", ids[:n]...)
		list, err := s.tokens(held, "ORDER BY t.owner_id, t.id")
		if err != nil {
			return nil, err
		}
		for i := range rest[:n] {
			mine := 0
			for mine < len(list) && list[mine].OwnerID == rest[i].User.User.ID {
				mine++
			}
			rest[i].Tokens, list = slices.Clip(list[:mine]), list[mine:]
			rest[i].User.Tokens = mine
		}
		rest, ids = rest[n:], ids[n:]
	}
	return found, nil
}

// Realms implements tokens.Reporter.
func (db *DB) Realms(ctx context.Context, realm string) ([]tokens.RealmEntry, error) {
	if !sound(realm) {
		return nil, nil
	}
	realms := make(map[string]*tokens.RealmEntry)
	err := db.read(ctx, "counting what realms hold", func(s *session) error {
		for _, count := range []struct {
			query string
			into  func(*tokens.RealmEntry) *int
		}{
			{`SELECT r.realm, count(*) FROM users r`, func(e *tokens.RealmEntry) *int { return &e.Users }},
			{`SELECT r.realm, count(*) FROM clients r`, func(e *tokens.RealmEntry) *int { return &e.Clients }},
			{`SELECT r.realm, count(*) FROM api_keys r`, func(e *tokens.RealmEntry) *int { return &e.Keys }},
			// Tokens that are staging are imported: they are counted, and taken off.
			{`SELECT r.realm, count(*) - (SELECT count(*) FROM tokens t JOIN batches b ON b.id = t.batch
				WHERE b.state <> 'published' AND t.realm = r.realm) FROM tokens r`, func(e *tokens.RealmEntry) *int { return &e.Tokens }},
		} {
			var f filter
			f.equal("r.realm", realm)
			if strings.HasSuffix(count.query, "FROM tokens r") {
				f.where("r.state <> 'revoked'")
			}
			rows, err := s.query(count.query+f.String()+` GROUP BY r.realm`, f.args...)
			type counted struct {
				realm string
				n     int64
			}
			all, err := list(rows, err, 2, func(f *fields) counted { return counted{f.str(), f.int()} })
			if err != nil {
				return err
			}
			for _, c := range all {
				if c.realm == "" || c.n == 0 {
					continue // of no realm: a key for all of them
				}
				if realms[c.realm] == nil {
					realms[c.realm] = &tokens.RealmEntry{Name: c.realm}
				}
				*count.into(realms[c.realm]) = int(c.n)
			}
		}
		return nil
	})
	var all []tokens.RealmEntry
	for _, e := range realms {
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b tokens.RealmEntry) int { return strings.Compare(a.Name, b.Name) })
	return all[:min(len(all), 1000)], err
}

// Drifts implements tokens.Reporter.
func (db *DB) Drifts(ctx context.Context, batch int64, limit int) ([]tokens.DriftSample, error) {
	var samples []tokens.DriftSample
	err := db.read(ctx, "reading the clocks of an import", func(s *session) error {
		rows, err := s.query(`SELECT t.id, t.serial, t.period, m.drift, t.created, m.used_at
			FROM tokens t JOIN batches b ON b.id = t.batch JOIN motions m ON m.token_id = t.id
			WHERE t.batch = ? AND b.state = 'published' AND t.type = 'totp' AND m.used_at <> 0
			ORDER BY t.id LIMIT ?`, batch, limited(limit))
		samples, err = list(rows, err, 6, func(f *fields) tokens.DriftSample {
			return tokens.DriftSample{
				TokenID: f.int(), Serial: f.str(), Period: int(f.int()), Drift: int(f.int()), Created: f.time(), UsedAt: f.int(),
			}
		})
		return err
	})
	return samples, err
}
