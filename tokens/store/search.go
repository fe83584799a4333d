package store

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"

	"watchword/tokens"
)

// A listing goes along a path: an index that leads to the rows of one of its
// conditions. Of the paths that it could take it looks a little way along each, and
// takes the one on which the fewest rows lie; the other conditions are looked at
// row by row. However few rows meet them all, no page looks at more than so many.
const (
	aWay    = 1000 // rows that are looked at along each path to choose one
	allSeen = 3000 // rows that a page looks at
	allHits = 2000 // hits of a search that are put in order; more are so many that any path meets them
)

// path answers the ids of up to limit rows after one, in order. ok is false where
// the path cannot be taken.
type path func(s *session, after int64, limit int) (ids []int64, ok bool, err error)

// along is a path along an index in order of id.
func along(query string, args ...any) path {
	return func(s *session, after int64, limit int) ([]int64, bool, error) {
		rows, err := s.query(query+` ORDER BY id LIMIT ?`, append(slices.Clone(args), after, int64(limit))...)
		ids, err := list(rows, err, 1, (*fields).int)
		return ids, true, err
	}
}

// merged is a path along several.
func merged(paths ...path) path {
	return func(s *session, after int64, limit int) ([]int64, bool, error) {
		var all []int64
		for _, p := range paths {
			ids, ok, err := p(s, after, limit)
			if err != nil || !ok {
				return nil, ok, err
			}
			all = append(all, ids...)
		}
		slices.Sort(all)
		all = slices.Compact(all)
		return all[:min(len(all), limit)], true, nil
	}
}

// best is the path with the fewest rows: one that ends soon, or one whose rows are
// the farthest apart. Where there is none it is that to every token. With it come the
// first ids on it.
func best(s *session, after int64, paths []path) (chosen path, first []int64, err error) {
	for _, p := range paths {
		ids, ok, err := p(s, after, aWay)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			continue
		}
		n := len(ids)
		fewer := n < aWay && n < len(first)
		farther := n == aWay && len(first) == aWay && ids[n-1] > first[n-1]
		if chosen == nil || fewer || farther {
			chosen, first = p, ids
		}
		if n == 0 {
			break
		}
	}
	if chosen == nil {
		chosen = everyToken
		first, _, err = chosen(s, after, aWay)
	}
	return chosen, first, err
}

// everyToken is the path that meets every condition in time.
var everyToken = along(`SELECT id FROM tokens WHERE id > ?`)

// among is the condition that column is one of the ids, with its parameter.
func (s *session) among(column string, ids []int64) (string, any) {
	if s.dollar {
		var a arrays
		a.of(len(ids), func(i int) any { return ids[i] })
		return column + " = ANY (?::bigint[])", a.values[0]
	}
	b, err := json.Marshal(ids)
	if err != nil {
		panic("store: " + err.Error()) // numbers always encode
	}
	return column + " IN (SELECT value FROM json_each(?))", string(b)
}

// The states and types that the index of tokens is gone through by.
var (
	states = []tokens.State{tokens.Imported, tokens.Pending, tokens.Active, tokens.Suspended, tokens.Lost, tokens.Revoked}
	types  = []tokens.Type{tokens.TOTP, tokens.HOTP, tokens.YubicoOTP, tokens.FIDO, tokens.Recovery, tokens.Temporary}
)

// tokenPaths are the paths to the tokens of a query.
func tokenPaths(q *tokens.TokenQuery) []path {
	if q.Serial != "" {
		return []path{hits(func(s *session) ([]int64, error) { return s.named("tokens", "serial", q.Realm, q.Serial) })}
	}
	if q.Owner != "" {
		return []path{hits(func(s *session) ([]int64, error) {
			owners, err := s.named("users", "key", q.Realm, q.Owner)
			if err != nil {
				return nil, err
			}
			condition, ids := s.among("owner_id", owners)
			rows, err := s.query(`SELECT id FROM tokens WHERE `+condition+` AND owner_id IS NOT NULL`, ids)
			return list(rows, err, 1, (*fields).int)
		})}
	}
	var paths []path
	if q.Realm != "" { // a small one, that is
		paths = append(paths, hits(func(s *session) ([]int64, error) {
			rows, err := s.query(`SELECT id FROM tokens WHERE realm = ? ORDER BY serial LIMIT ?`, q.Realm, int64(allHits+1))
			return list(rows, err, 1, (*fields).int)
		}))
	}
	if q.State != "" || q.Type != "" {
		var legs []path
		for _, state := range states {
			for _, kind := range types {
				if (q.State == "" || q.State == state) && (q.Type == "" || q.Type == kind) {
					legs = append(legs, along(`SELECT id FROM tokens WHERE state = ? AND type = ? AND id > ?`, string(state), string(kind)))
				}
			}
		}
		paths = append(paths, merged(legs...))
	}
	if q.Batch != 0 {
		paths = append(paths, along(`SELECT id FROM tokens WHERE batch = ? AND id > ?`, q.Batch))
	}
	if q.Tag != "" {
		paths = append(paths, func(s *session, after int64, limit int) ([]int64, bool, error) {
			rows, err := s.query(`SELECT token_id FROM token_tags WHERE tag = ? AND token_id > ? ORDER BY token_id LIMIT ?`, q.Tag, after, int64(limit))
			ids, err := list(rows, err, 1, (*fields).int)
			return ids, true, err
		})
	}
	if q.Q != "" {
		serial := asciiLower(strings.TrimSpace(q.Q))
		search := []path{serialsWith(serial)}
		if key, ok := folded(q.Q); ok {
			search = append(search, ownersWith(key))
		}
		paths = append(paths, merged(search...))
	}
	return paths
}

// hits is a path to what a search hits, if that is not too much to put in order.
func hits(find func(s *session) ([]int64, error)) path {
	var (
		all  []int64
		done bool
	)
	return func(s *session, after int64, limit int) ([]int64, bool, error) {
		if !done {
			var err error
			if all, err = find(s); err != nil {
				return nil, false, err
			}
			slices.Sort(all)
			done = true
		}
		if len(all) > allHits {
			return nil, false, nil
		}
		from, _ := slices.BinarySearch(all, after+1)
		ids := all[from:]
		return ids[:min(len(ids), limit)], true, nil
	}
}

// serialsWith is the path to the tokens whose serial has the part, in lower case,
// or begins with it.
func serialsWith(part string) path {
	if utf8.RuneCountInString(part) < 3 {
		return hits(func(s *session) ([]int64, error) { return s.serialsFrom(part) })
	}
	like := hits(func(s *session) ([]int64, error) { return s.parted("tokens", "lower(serial)", part) })
	return func(s *session, after int64, limit int) ([]int64, bool, error) {
		if s.dollar {
			return like(s, after, limit)
		}
		return merged(
			along(`SELECT rowid AS id FROM token_search WHERE token_search MATCH ? AND rowid > ?`, trigrams(part)),
			// What was imported just now. SQLite joins in this order: by another it would
			// look at every token there is.
			along(`SELECT t.id AS id FROM unsearched w CROSS JOIN batches b ON b.id = w.batch
				CROSS JOIN tokens t ON t.batch = b.id AND t.id > b.searched WHERE instr(lower(t.serial), ?) > 0 AND t.id > ?`, part),
		)(s, after, limit)
	}
}

// named are the rows of a table whose column has a value, in one realm, or in all.
func (s *session) named(table, column, realm, value string) ([]int64, error) {
	realms := []string{realm}
	if realm == "" {
		var err error
		if realms, err = s.realms(table); err != nil {
			return nil, err
		}
	}
	var all []int64
	for _, realm := range realms {
		rows, err := s.query(`SELECT id FROM `+table+` WHERE realm = ? AND `+column+` = ?`, realm, value)
		ids, err := list(rows, err, 1, (*fields).int)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
	}
	return all, nil
}

// serialsFrom are tokens whose serials begin with one or two characters, in either
// case. Serials are ordered by realm: each realm is gone to.
func (s *session) serialsFrom(part string) ([]int64, error) {
	realms, err := s.realms("tokens")
	if err != nil {
		return nil, err
	}
	starts := []string{""}
	for _, c := range part {
		var longer []string
		for _, start := range starts {
			longer = append(longer, start+string(c))
			if 'a' <= c && c <= 'z' {
				longer = append(longer, start+string(c-'a'+'A'))
			}
		}
		starts = longer
	}
	var all []int64
	for _, realm := range realms {
		for _, start := range starts {
			rows, err := s.query(`SELECT id FROM tokens WHERE realm = ? AND serial >= ? AND serial < ? ORDER BY serial LIMIT ?`,
				realm, start, after(start), int64(allHits+1-len(all)))
			ids, err := list(rows, err, 1, (*fields).int)
			if err != nil {
				return nil, err
			}
			if all = append(all, ids...); len(all) > allHits {
				return all, nil
			}
		}
	}
	return all, nil
}

// after is the least text after all that begin with start.
func after(start string) string {
	r, size := utf8.DecodeLastRuneInString(start)
	if r == utf8.MaxRune {
		return start + start // no name has it
	}
	if r++; r == 0xD800 {
		r = 0xE000 // surrogates are no characters
	}
	return start[:len(start)-size] + string(r)
}

// realms are the realms that a table has, from each to the next in its index.
func (s *session) realms(table string) ([]string, error) {
	rows, err := s.query(`WITH RECURSIVE used (realm) AS (
			SELECT (SELECT r.realm FROM ` + table + ` r ORDER BY r.realm LIMIT 1)
			UNION ALL
			SELECT (SELECT r.realm FROM ` + table + ` r WHERE r.realm > used.realm ORDER BY r.realm LIMIT 1) FROM used WHERE used.realm IS NOT NULL
		)
		SELECT realm FROM used WHERE realm IS NOT NULL`)
	return list(rows, err, 1, (*fields).str)
}

// ownersWith is the path to the tokens whose owner's key has the part, or begins
// with it.
func ownersWith(part string) path {
	return hits(func(s *session) ([]int64, error) {
		owners, err := s.keysWith(part)
		if err != nil || len(owners) > allHits {
			return owners, err
		}
		condition, ids := s.among("owner_id", owners)
		rows, err := s.query(`SELECT id FROM tokens WHERE `+condition+` AND owner_id IS NOT NULL LIMIT ?`, ids, int64(allHits+1))
		return list(rows, err, 1, (*fields).int)
	})
}

// keysWith are users whose key has the part, or begins with it: one more than
// allHits at most.
func (s *session) keysWith(part string) ([]int64, error) {
	switch {
	case utf8.RuneCountInString(part) < 3:
		realms, err := s.realms("users")
		if err != nil {
			return nil, err
		}
		var all []int64
		for _, realm := range realms {
			rows, err := s.query(`SELECT id FROM users WHERE realm = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?`,
				realm, part, after(part), int64(allHits+1-len(all)))
			ids, err := list(rows, err, 1, (*fields).int)
			if err != nil {
				return nil, err
			}
			if all = append(all, ids...); len(all) > allHits {
				break
			}
		}
		return all, nil
	case s.dollar:
		return s.parted("users", "key", part)
	}
	rows, err := s.query(`SELECT rowid FROM user_search WHERE user_search MATCH ? ORDER BY rowid LIMIT ?`, trigrams(part), int64(allHits+1))
	return list(rows, err, 1, (*fields).int)
}

// trigrams is the full-text query for all rows that have every trigram of a part.
// Few of a long one will do: what is found is looked at.
func trigrams(part string) string {
	runes := []rune(part)
	var b strings.Builder
	for i := 0; i+3 <= len(runes) && i < 16; i++ {
		if i > 0 {
			b.WriteString(" AND ")
		}
		b.WriteString(`"` + strings.ReplaceAll(string(runes[i:i+3]), `"`, `""`) + `"`)
	}
	return b.String()
}
