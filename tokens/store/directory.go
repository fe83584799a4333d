package store

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"watchword/tokens"
)

// filter gathers the conditions of a listing.
type filter struct {
	conditions []string
	args       []any
}

func (f *filter) where(condition string, args ...any) {
	f.conditions = append(f.conditions, condition)
	f.args = append(f.args, args...)
}

// equal adds a condition unless value is empty.
func (f *filter) equal(column, value string) {
	if value != "" {
		f.where(column+" = ?", value)
	}
}

func (f *filter) String() string {
	if len(f.conditions) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(f.conditions, " AND ")
}

// limited brings a limit into what is allowed.
func limited(limit int) int64 {
	if limit < 1 || limit > 1000 {
		return 1000
	}
	return int64(limit)
}

// folded brings a search to the form of what is searched; false means that
// nothing can match it.
func folded(q string) (string, bool) {
	key, err := tokens.FoldName(strings.TrimSpace(q))
	return key, err == nil
}

// asciiLower lowers the letters A to Z and nothing else, as the databases do.
func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// holds is the condition that a search for part finds what column holds: as a
// part of it, or as its beginning if part has fewer than three characters. The
// parameter comes with it.
func (s *session) holds(column, part string) (string, any) {
	comparison := " > 0"
	if utf8.RuneCountInString(part) < 3 {
		comparison = " = 1"
	}
	if s.dollar {
		return "strpos(" + column + ", ?)" + comparison, part
	}
	return "instr(" + column + ", ?)" + comparison, part
}

// sound says whether the database can hold the strings at all; if not, they
// match nothing.
func sound(values ...string) bool { return text(values...) == nil }

// read is engine.read with its error in words for the caller.
func (db *DB) read(ctx context.Context, doing string, f func(*session) error) error {
	return failed(doing, db.engine.read(ctx, f))
}

// users lists users, with what only listings have.
func (s *session) users(f filter, rest string, args ...any) ([]tokens.UserEntry, error) {
	rows, err := s.query(`SELECT `+userColumns+`, `+profileColumns+`, `+standingColumns+`,
		(SELECT count(*) FROM tokens t WHERE t.owner_id = u.id AND t.state <> 'revoked')
		FROM users u JOIN standings s ON s.user_id = u.id`+f.String()+` `+rest, append(slices.Clip(f.args), args...)...)
	users, err := list(rows, err, userWidth+profileWidth+standingWidth+1, func(f *fields) tokens.UserEntry {
		u := f.user()
		u.Profile = f.profile()
		return tokens.UserEntry{User: u, Standing: f.standing(), Tokens: int(f.int())}
	})
	if err != nil || len(users) == 0 {
		return nil, err
	}
	place := make(map[int64]int, len(users))
	ids := make([]int64, len(users))
	for i := range users {
		ids[i] = users[i].User.ID
		place[ids[i]] = i
	}
	var these filter
	these.where(s.among("user_id", ids))
	type membership struct {
		user int64
		name string
	}
	rows, err = s.query(`SELECT user_id, group_name FROM memberships`+these.String()+` ORDER BY user_id, group_name`, these.args...)
	groups, err := list(rows, err, 2, func(f *fields) membership { return membership{f.int(), f.str()} })
	for _, g := range groups {
		u := &users[place[g.user]]
		u.Groups = append(u.Groups, g.name)
	}
	return users, err
}

// tokens lists tokens, with what only listings have.
func (s *session) tokens(f filter, rest string, args ...any) ([]tokens.Token, error) {
	rows, err := s.query(`SELECT `+tokenColumns+`, `+s.listedColumns()+`
		FROM tokens t JOIN batches b ON b.id = t.batch
		LEFT JOIN users o ON o.id = t.owner_id
		LEFT JOIN motions m ON m.token_id = t.id`+f.String()+` `+rest, append(slices.Clip(f.args), args...)...)
	return list(rows, err, tokenWidth+listedWidth, func(f *fields) tokens.Token {
		t := f.token()
		f.listed(&t)
		return t
	})
}

// following cuts what was read to a page, one more having been asked for, and
// answers with it the ID of its last element if the listing goes on.
func following[T any](read []T, limit int, id func(*T) int64) ([]T, int64) {
	n := int(limited(limit))
	if len(read) <= n {
		return read, 0
	}
	return read[:n], id(&read[n-1])
}

// Users implements tokens.Directory.
func (db *DB) Users(ctx context.Context, q tokens.UserQuery) (page []tokens.UserEntry, next int64, err error) {
	key, searchable := folded(q.Q)
	if q.Q != "" && !searchable || !sound(q.Realm, q.Key, q.External, q.Group) {
		return nil, 0, nil
	}
	err = db.read(ctx, "listing users", func(s *session) (err error) {
		page, next = nil, 0 // it may be the second try
		var f filter
		f.equal("u.realm", q.Realm)
		f.equal("u.key", q.Key)
		if q.Q != "" {
			f.where(s.holds("u.key", key))
		}
		if q.External != "" {
			f.where("u.external = ? AND u.external <> ''", q.External)
		}
		if q.Group != "" {
			f.where("EXISTS (SELECT 1 FROM memberships g WHERE g.group_name = ? AND g.user_id = u.id)", q.Group)
		}
		var found []int64
		switch {
		case q.Key != "":
			if found, err = s.named("users", "key", q.Realm, q.Key); err != nil {
				return err
			}
		case q.Q != "":
			if found, err = s.keysWith(key); err != nil {
				return err
			}
		case q.Group != "":
			rows, err := s.query(`SELECT user_id FROM memberships WHERE group_name = ? ORDER BY user_id LIMIT ?`, q.Group, int64(allHits+1))
			if found, err = list(rows, err, 1, (*fields).int); err != nil {
				return err
			}
		}
		ids, last, err := s.userIDs(q, f, found)
		if err != nil {
			return err
		}
		n := int(limited(q.Limit))
		if next = last; len(ids) > n {
			ids, next = ids[:n], ids[n-1]
		}
		if len(ids) == 0 {
			return nil
		}
		var these filter
		these.where(s.among("u.id", ids))
		page, err = s.users(these, `ORDER BY u.realm, u.key`)
		return err
	})
	return page, next, err
}

// userIDs answers the ids of users that meet the conditions, in order of realm and
// key, one more than a page has, and the last one that was looked at, if there
// are others after that. found, if not too many, are all that can meet them.
func (s *session) userIDs(q tokens.UserQuery, f filter, found []int64) (ids []int64, last int64, err error) {
	limit := limited(q.Limit) + 1
	var after filter
	if q.After != 0 {
		if err := s.beside(&after, ">", q.Realm, q.After); err != nil {
			return nil, 0, err
		}
	}
	after.equal("u.realm", q.Realm)
	looked := q.Key != "" || q.Q != "" || q.Group != ""
	few := looked && (len(found) <= allHits || q.Key != "")
	if few || q.External != "" {
		where := filter{slices.Clone(f.conditions), slices.Clone(f.args)}
		where.conditions = append(where.conditions, after.conditions...)
		where.args = append(where.args, after.args...)
		if looked && len(found) == 0 {
			return nil, 0, nil
		}
		from := `users u`
		if few {
			where.where(s.among("u.id", found))
			if !s.dollar {
				from += ` NOT INDEXED` // rather than by ids, SQLite would look through the realm
			}
		}
		rows, err := s.query(`SELECT u.id FROM `+from+where.String()+` ORDER BY u.realm, u.key LIMIT ?`, append(where.args, limit)...)
		ids, err = list(rows, err, 1, (*fields).int)
		return ids, 0, err
	}
	// In order, as far as a page looks.
	if looked {
		rows, err := s.query(`SELECT u.id FROM users u`+after.String()+` ORDER BY u.realm, u.key LIMIT 1 OFFSET ?`,
			append(slices.Clone(after.args), int64(allSeen-1))...)
		end, err := list(rows, err, 1, (*fields).int)
		if err != nil {
			return nil, 0, err
		}
		if len(end) > 0 {
			last = end[0]
			if err := s.beside(&after, "<=", q.Realm, last); err != nil {
				return nil, 0, err
			}
		}
	}
	after.conditions = append(after.conditions, f.conditions...)
	after.args = append(after.args, f.args...)
	rows, err := s.query(`SELECT u.id FROM users u`+after.String()+` ORDER BY u.realm, u.key LIMIT ?`, append(after.args, limit)...)
	ids, err = list(rows, err, 1, (*fields).int)
	return ids, last, err
}

// beside adds the condition that a user of the realm, or of all realms, comes after
// another, or not. One of another realm is as one whom there is not: whoever lists one
// realm learns nothing of others. SQLite follows its index by both columns only if it
// is given the values themselves.
func (s *session) beside(f *filter, than, realm string, user int64) error {
	rows, err := s.query(`SELECT realm, key FROM users WHERE id = ?`, user)
	at, err := list(rows, err, 2, func(f *fields) name { return name{f.str(), f.str()} })
	switch {
	case err != nil:
		return err
	case len(at) == 0, realm != "" && at[0].realm != realm:
		f.where("u.id = 0") // nobody's
	case realm != "":
		f.where("u.key "+than+" ?", at[0].key)
	default:
		f.where("(u.realm, u.key) "+than+" (?, ?)", at[0].realm, at[0].key)
	}
	return nil
}

// Tokens implements tokens.Directory.
func (db *DB) Tokens(ctx context.Context, q tokens.TokenQuery) (page []tokens.Token, next int64, err error) {
	if !sound(q.Realm, q.Serial, q.Owner, string(q.State), string(q.Type), q.Q, q.Tag) {
		return nil, 0, nil
	}
	err = db.read(ctx, "listing tokens", func(s *session) error {
		page, next = nil, 0 // it may be the second try
		f := s.tokenFilter(&q)
		n := int(limited(q.Limit))
		p, ids, err := best(s, q.After, tokenPaths(&q))
		for seen := 0; ; {
			if err != nil || len(ids) == 0 {
				return err
			}
			these := filter{slices.Clone(f.conditions), slices.Clone(f.args)}
			these.where(s.among("t.id", ids))
			var found []tokens.Token
			if found, err = s.tokens(these, `ORDER BY t.id LIMIT ?`, int64(n+1-len(page))); err != nil {
				return err
			}
			if page = append(page, found...); len(page) > n {
				page, next = following(page, q.Limit, func(t *tokens.Token) int64 { return t.ID })
				return nil
			}
			if len(ids) < aWay {
				return nil
			}
			at := ids[len(ids)-1]
			if seen += len(ids); seen >= allSeen {
				next = at
				return nil
			}
			ids, _, err = p(s, at, allSeen-seen) // few rows meet the conditions here
		}
	})
	return page, next, err
}

// tokenFilter are the conditions of a query, for rows that a path has led to.
func (s *session) tokenFilter(q *tokens.TokenQuery) filter {
	t := "t."
	if !s.dollar {
		t = "+t." // SQLite must not follow another index than that of the ids
	}
	var f filter
	f.where("b.state = 'published'")
	f.equal(t+"realm", q.Realm)
	f.equal(t+"serial", q.Serial)
	f.equal(t+"state", string(q.State))
	f.equal(t+"type", string(q.Type))
	f.equal("o.key", q.Owner)
	if q.Q != "" {
		condition, serial := s.holds("lower(t.serial)", asciiLower(strings.TrimSpace(q.Q)))
		if key, ok := folded(q.Q); ok {
			or, key := s.holds("o.key", key)
			f.where("("+condition+" OR "+or+")", serial, key)
		} else {
			f.where(condition, serial)
		}
	}
	if q.Batch != 0 {
		f.where(t+"batch = ?", q.Batch)
	}
	if q.Tag != "" {
		f.where("EXISTS (SELECT 1 FROM token_tags g WHERE g.tag = ? AND g.token_id = t.id)", q.Tag)
	}
	return f
}

// Batches implements tokens.Directory.
func (db *DB) Batches(ctx context.Context, q tokens.BatchQuery) ([]tokens.Batch, error) {
	var batches []tokens.Batch
	err := db.read(ctx, "listing imports", func(s *session) error {
		var f filter
		f.where("state = 'published' AND id > 0")
		if q.ID != 0 {
			f.where("id = ?", q.ID)
		}
		if q.Realm != "" {
			f.where("realm = ?", q.Realm)
		}
		if q.Before != 0 {
			f.where("id < ?", q.Before)
		}
		rows, err := s.query(`SELECT `+batchColumns+` FROM batches`+f.String()+` ORDER BY id DESC LIMIT ?`,
			append(f.args, limited(q.Limit))...)
		batches, err = list(rows, err, batchWidth, (*fields).batch)
		return err
	})
	return batches, err
}

// Registry implements tokens.Directory.
func (db *DB) Registry(ctx context.Context) (tokens.Registry, error) {
	var r tokens.Registry
	err := db.read(ctx, "reading clients and keys", func(s *session) error {
		// The generation first: if a change comes between, what is read is newer
		// than its generation says and is read again, rather than the reverse.
		if err := s.one(`SELECT generation FROM meta`, nil, &r.Generation); err != nil {
			return err
		}
		rows, err := s.query(`SELECT name, prefix, realm, secret, secret_size, require_ma, name_rule, created, options
			FROM clients ORDER BY name`)
		r.Clients, err = list(rows, err, 9, func(f *fields) tokens.Client {
			c := tokens.Client{Name: f.str()}
			prefix, err := netip.ParsePrefix(f.str())
			if err != nil {
				f.err = fmt.Errorf("client %q has addresses that are not a prefix", c.Name)
			}
			c.Prefix = prefix
			c.Realm, c.Secret, c.SecretSize = f.str(), f.bytes(), int(f.int())
			c.RequireMA, c.NameRule, c.Created = f.bool(), tokens.NameRule(f.str()), f.time()
			c.Options = f.str()
			return c
		})
		if err != nil {
			return err
		}
		rows, err = s.query(`SELECT id, name, realm, scope, mac, created, expires, last_used, sources, successor
			FROM api_keys ORDER BY id`)
		r.Keys, err = list(rows, err, 10, func(f *fields) tokens.APIKey {
			return tokens.APIKey{
				ID: f.str(), Name: f.str(), Realm: f.str(), Scope: f.str(), MAC: f.digest(),
				Created: f.time(), Expires: f.time(), LastUsed: f.time(), Sources: f.sources(), Successor: f.str(),
			}
		})
		if err != nil {
			return err
		}
		r.Grants, err = s.grants()
		return err
	})
	return r, err
}

// TouchKeys implements tokens.Directory.
func (db *DB) TouchKeys(ctx context.Context, used map[string]time.Time) error {
	if len(used) == 0 {
		return nil
	}
	err := db.engine.write(ctx, true, func(s *session) error {
		for _, id := range slices.Sorted(maps.Keys(used)) { // in one order: nodes must not block each other
			if !sound(id) {
				continue
			}
			at := micros(used[id])
			if _, err := s.exec(`UPDATE api_keys SET last_used = ? WHERE id = ? AND last_used < ?`, at, id, at); err != nil {
				return err
			}
		}
		return nil
	})
	return failed("noting the use of keys", err)
}
