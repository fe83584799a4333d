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
	p, ids, err := best(s, q.After, tokenPaths(&imported))
	var found []tokens.CredentialRow
	for n := int(limited(q.Limit)); len(found) < n; {
		if err != nil || len(ids) == 0 {
			return found, err
		}
		these := filter{slices.Clone(f.conditions), slices.Clone(f.args)}
		these.where(s.among("t.id", ids))
		var list []tokens.Token
		if list, err = s.tokens(these, "ORDER BY t.id LIMIT ?", int64(n-len(found))); err != nil {
			return nil, err
		}
		for i := range list {
			found = append(found, tokens.CredentialRow{Tokens: list[i : i+1 : i+1]})
		}
		ids, _, err = p(s, ids[len(ids)-1], aWay)
	}
	return found, nil
}

// holders lists users with their tokens.
func holders(s *session, q tokens.CredentialQuery) ([]tokens.CredentialRow, error) {
	var f filter
	f.equal("realm", q.Realm)
	f.where("id > ?", q.After)
	rows, err := s.query(`SELECT id FROM users`+f.String()+` ORDER BY id LIMIT ?`, append(f.args, limited(q.Limit))...)
	page, err := list(rows, err, 1, (*fields).int)
	if err != nil || len(page) == 0 {
		return nil, err
	}
	// By their ids: else PostgreSQL may join from the first standing on.
	var these filter
	these.where(s.among("u.id", page))
	users, err := s.users(these, "ORDER BY u.id")
	if err != nil {
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
	entry := func(realm string) *tokens.RealmEntry {
		if realms[realm] == nil {
			realms[realm] = &tokens.RealmEntry{Name: realm}
		}
		return realms[realm]
	}
	err := db.read(ctx, "counting what realms hold", func(s *session) error {
		clear(realms) // it may be the second try
		// Clients and keys are few: each node holds all of them in memory.
		for query, into := range map[string]func(*tokens.RealmEntry) *int{
			`SELECT realm, count(*) FROM clients GROUP BY realm`:  func(e *tokens.RealmEntry) *int { return &e.Clients },
			`SELECT realm, count(*) FROM api_keys GROUP BY realm`: func(e *tokens.RealmEntry) *int { return &e.Keys },
		} {
			type counted struct {
				realm string
				n     int64
			}
			rows, err := s.query(query)
			all, err := list(rows, err, 2, func(f *fields) counted { return counted{f.str(), f.int()} })
			if err != nil {
				return err
			}
			for _, c := range all {
				if c.realm != "" && (realm == "" || c.realm == realm) { // a key of no realm is one for all
					*into(entry(c.realm)) = int(c.n)
				}
			}
		}
		rows, err := s.query(`SELECT substr(name, 7) FROM documents WHERE name > 'rules/' AND name < 'rules0' ORDER BY name LIMIT 1000`)
		ruled, err := list(rows, err, 1, func(f *fields) string { return f.str() })
		if err != nil {
			return err
		}
		for _, name := range ruled {
			if realm == "" || name == realm {
				entry(name)
			}
		}
		for _, table := range []string{"users", "tokens"} {
			names := []string{realm}
			if realm == "" {
				var err error
				if names, err = s.realms(table); err != nil {
					return err
				}
			}
			for _, name := range names {
				if err := s.count(table, name, entry); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []tokens.RealmEntry
	for _, e := range realms {
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b tokens.RealmEntry) int { return strings.Compare(a.Name, b.Name) })
	return all[:min(len(all), 1000)], nil
}

// count adds up what a realm has in a table, one row more than MostCounted having
// been looked at.
func (s *session) count(table, realm string, entry func(realm string) *tokens.RealmEntry) error {
	query := `SELECT count(*), count(*) FROM (SELECT 1 FROM users WHERE realm = ? ORDER BY key LIMIT ?) AS u`
	if table == "tokens" {
		query = `SELECT count(*), coalesce(sum(CASE WHEN t.state <> 'revoked' AND b.state = 'published' THEN 1 ELSE 0 END), 0)
			FROM (SELECT batch, state FROM tokens WHERE realm = ? ORDER BY serial LIMIT ?) AS t JOIN batches b ON b.id = t.batch`
	}
	var seen, n int
	if err := s.one(query, []any{realm, int64(tokens.MostCounted + 1)}, &seen, &n); err != nil {
		return err
	}
	if n == 0 && seen <= tokens.MostCounted {
		return nil
	}
	e := entry(realm)
	if table == "tokens" {
		e.Tokens, e.MoreTokens = min(n, tokens.MostCounted), seen > tokens.MostCounted
	} else {
		e.Users, e.MoreUsers = min(n, tokens.MostCounted), seen > tokens.MostCounted
	}
	return nil
}

// Drifts implements tokens.Reporter.
func (db *DB) Drifts(ctx context.Context, batch int64, limit int) ([]tokens.DriftSample, error) {
	var samples []tokens.DriftSample
	err := db.read(ctx, "reading the clocks of an import", func(s *session) error {
		rows, err := s.query(`SELECT t.id, t.serial, t.period, m.drift, t.created, m.used_at
			FROM (SELECT id FROM tokens WHERE batch = ? ORDER BY id LIMIT ?) AS p
			JOIN tokens t ON t.id = p.id JOIN batches b ON b.id = t.batch JOIN motions m ON m.token_id = t.id
			WHERE b.state = 'published' AND t.type = 'totp' AND m.used_at <> 0
			ORDER BY t.id LIMIT ?`, batch, int64(tokens.MostCounted), limited(limit))
		samples, err = list(rows, err, 6, func(f *fields) tokens.DriftSample {
			return tokens.DriftSample{
				TokenID: f.int(), Serial: f.str(), Period: int(f.int()), Drift: int(f.int()), Created: f.time(), UsedAt: f.int(),
			}
		})
		return err
	})
	return samples, err
}
