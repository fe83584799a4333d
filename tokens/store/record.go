package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"math"
	"slices"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// sought is a query of the audit with the ids between which its records lie.
type sought struct {
	tokens.RecordQuery
	low, high int64 // from, and before
}

// Records implements tokens.Journal.
func (db *DB) Records(ctx context.Context, q tokens.RecordQuery) (page []audit.Record, next int64, err error) {
	if !sound(q.Realm, q.User, q.Serial, q.Action, q.Outcome, q.Actor, q.Policy) {
		return nil, 0, nil
	}
	var last int64
	err = db.read(ctx, "listing the audit", func(s *session) (err error) {
		q := &sought{RecordQuery: q, low: math.MinInt64, high: math.MaxInt64}
		if err := q.narrow(s); err != nil || q.low >= q.high {
			return err
		}
		switch {
		case q.User != "" && !s.dollar:
			page, last, err = threaded(s, q)
		case q.User != "" && q.Realm == "":
			page, last, err = everywhere(s, q)
		default:
			page, last, err = walked(s, q)
		}
		return err
	})
	page, next = following(page, q.Limit, func(r *audit.Record) int64 { return r.ID })
	if next == 0 {
		next = last
	}
	return page, next, err
}

// narrow finds between which ids the records lie that a query selects by its place
// and by time.
func (q *sought) narrow(s *session) (err error) {
	if !q.Since.IsZero() {
		if q.low, err = s.reached(q.Since.Add(-tokens.ClockDisorder)); err != nil {
			return err
		}
	}
	if !q.Until.IsZero() {
		if q.high, err = s.reached(q.Until.Add(tokens.ClockDisorder)); err != nil {
			return err
		}
	}
	if q.Before != 0 {
		q.high = min(q.high, q.Before)
	}
	return nil
}

// reached answers an id from which on records are of that time or after it, and before
// which they are of before it. Ids ascend with time, so that half of them is left out
// at each step; where they are in disorder by so much, it answers one of those among
// which that is, so that who asks for so much less, or more, misses none.
func (s *session) reached(at time.Time) (int64, error) {
	var low, high int64
	err := s.one(`SELECT coalesce((SELECT min(id) FROM audit), 0), coalesce((SELECT max(id) FROM audit), -1) + 1`, nil, &low, &high)
	if err != nil {
		return 0, err
	}
	for low < high {
		middle := low + (high-low)/2
		var id, when int64
		err := s.one(`SELECT id, time FROM audit WHERE id >= ? ORDER BY id LIMIT 1`, []any{middle}, &id, &when)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			high = middle
		case err != nil:
			return 0, err
		case when >= at.UnixMicro():
			high = middle
		default:
			low = id + 1
		}
	}
	return low, nil
}

// Onward implements tokens.Archive.
func (db *DB) Onward(ctx context.Context, q tokens.RecordQuery, after int64) (page []audit.Record, next int64, err error) {
	if !sound(q.Realm, q.User, q.Serial, q.Action, q.Outcome, q.Actor, q.Policy) {
		return nil, 0, nil
	}
	var end int64
	err = db.read(ctx, "reading the audit", func(s *session) error {
		q := &sought{RecordQuery: q, low: math.MinInt64, high: math.MaxInt64}
		if err := q.narrow(s); err != nil {
			return err
		}
		if after >= q.low {
			q.low = after + 1
		}
		if q.low >= q.high {
			return nil
		}
		rest := s.others(q, "")
		rest.equal(map[bool]string{true: "user_key", false: "+user_key"}[s.dollar], q.User)
		if len(rest.conditions) > 0 {
			rows, err := s.query(`SELECT id FROM audit WHERE id >= ? AND id < ? ORDER BY id LIMIT 1 OFFSET ?`, q.low, q.high, int64(allRead-1))
			ends, err := list(rows, err, 1, (*fields).int)
			if err != nil {
				return err
			}
			if len(ends) > 0 {
				end = ends[0]
				q.high = end + 1
			}
		}
		var base filter
		base.where("id >= ? AND id < ?", q.low, q.high)
		base.conditions = append(base.conditions, rest.conditions...)
		rows, err := s.query(`SELECT `+recordColumns+` FROM audit`+base.String()+` ORDER BY id LIMIT ?`,
			append(append(base.args, rest.args...), limited(q.Limit))...)
		page, err = list(rows, err, recordWidth, (*fields).record)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if next = end; int64(len(page)) == limited(q.Limit) {
		next = page[len(page)-1].ID
	}
	return page, next, db.onDisk(ctx)
}

// Cut implements tokens.Archive.
func (db *DB) Cut(ctx context.Context, heads []audit.Head, after, last int64, limit int) (removed int, end int64, err error) {
	ends := make(map[int64]int64, len(heads))
	for _, h := range heads {
		ends[h.Chain] = h.Seq
	}
	err = again(ctx, func() error {
		removed, end = 0, 0
		return db.engine.write(ctx, true, func(s *session) error {
			rows, err := s.query(`SELECT id, chain, seq FROM audit WHERE id > ? AND id <= ? ORDER BY id LIMIT ?`, after, last, limited(limit))
			page, err := list(rows, err, 3, func(f *fields) [3]int64 { return [3]int64{f.int(), f.int(), f.int()} })
			if err != nil || len(page) == 0 {
				return err
			}
			var gone []int64
			for _, r := range page {
				if r[2] <= ends[r[1]] {
					gone = append(gone, r[0])
				}
			}
			end = page[len(page)-1][0]
			if len(gone) == 0 {
				return nil
			}
			condition, args := s.among("id", gone)
			n, err := s.exec(`DELETE FROM audit WHERE `+condition, args)
			removed = int(n)
			return err
		})
	})
	if err != nil {
		return 0, 0, failed("removing old audit records", err)
	}
	return removed, end, nil
}

// everywhere lists the records of a name in all realms as walked does: the index is
// in order of time within a realm only.
func everywhere(s *session, q *sought) (found []audit.Record, last int64, err error) {
	rows, err := s.query(`WITH RECURSIVE used (realm) AS (
			SELECT (SELECT a.realm FROM audit a WHERE a.user_key = ? AND a.user_key <> '' ORDER BY a.realm LIMIT 1)
			UNION ALL
			SELECT (SELECT a.realm FROM audit a WHERE a.user_key = ? AND a.user_key <> '' AND a.realm > used.realm ORDER BY a.realm LIMIT 1)
			FROM used WHERE used.realm IS NOT NULL
		)
		SELECT realm FROM used WHERE realm IS NOT NULL`, q.User, q.User)
	realms, err := list(rows, err, 1, (*fields).str)
	if err != nil {
		return nil, 0, err
	}
	for _, realm := range realms {
		some, end, err := s.trail(q, "realm", realm)
		if err != nil {
			return nil, 0, err
		}
		found, last = append(found, some...), max(last, end)
	}
	// What lies beyond where one of them ended is for the next page.
	found = slices.DeleteFunc(found, func(r audit.Record) bool { return r.ID < last })
	slices.SortFunc(found, func(a, b audit.Record) int { return cmp.Compare(b.ID, a.ID) })
	return found[:min(len(found), int(limited(q.Limit))+1)], last, nil
}

// walked lists records, one more than a page has, along the index that leads to
// the fewest; and the last one that was looked at, if there are others after that.
// Verifications have no index but the users': they are looked at one by one, as
// far as a page looks.
func walked(s *session, q *sought) (found []audit.Record, last int64, err error) {
	act := q.Action != "" && q.Action != "verify" || q.Action == "" && q.Actor != ""
	switch {
	case q.User != "":
		return s.trail(q, "realm", q.Realm)
	case act && q.Serial != "":
		return s.trail(q, "serial", q.Serial)
	case act && q.Actor != "":
		return s.trail(q, "actor", q.Actor)
	case act:
		return s.trail(q, "action", q.Action)
	}
	return s.trail(q, "", "")
}

// trail lists the records of a query along the index of a column, in which they are
// in order of id where it has one value, or along that of ids if column is empty.
func (s *session) trail(q *sought, column, value string) (found []audit.Record, last int64, err error) {
	order := ` ORDER BY id DESC`
	if column != "" && s.dollar {
		// PostgreSQL would rather go through all ids, where it takes the value for a
		// frequent one. In this order it cannot.
		order = ` ORDER BY ` + column + ` DESC, id DESC`
	}
	rest := s.others(q, column)
	low := q.low
	if len(rest.conditions) > 0 {
		base := s.stretch(q, column, value, q.low)
		rows, err := s.query(`SELECT id FROM audit`+base.String()+order+` LIMIT 1 OFFSET ?`, append(base.args, int64(allRead-1))...)
		end, err := list(rows, err, 1, (*fields).int)
		if err != nil {
			return nil, 0, err
		}
		if len(end) > 0 {
			last, low = end[0], end[0]
		}
	}
	base := s.stretch(q, column, value, low)
	base.conditions = append(base.conditions, rest.conditions...)
	base.args = append(base.args, rest.args...)
	rows, err := s.query(`SELECT `+recordColumns+` FROM audit`+base.String()+order+` LIMIT ?`, append(base.args, limited(q.Limit)+1)...)
	found, err = list(rows, err, recordWidth, (*fields).record)
	return found, last, err
}

// stretch are the conditions of a part of an index: the records from low on.
func (s *session) stretch(q *sought, column, value string, low int64) (base filter) {
	switch column { // what the index leaves out
	case "realm":
		base.where("user_key = ? AND user_key <> ''", q.User)
	case "serial":
		base.where("serial <> '' AND action <> 'verify'")
	case "actor", "action":
		base.where("action <> 'verify'")
	}
	if column != "" && s.dollar {
		base.where("("+column+", id) >= (?, ?) AND ("+column+", id) < (?, ?)", value, low, value, q.high)
		return base
	}
	base.equal(column, value)
	if q.high != math.MaxInt64 {
		base.where("id < ?", q.high)
	}
	if low != math.MinInt64 {
		base.where("id >= ?", low)
	}
	return base
}

// others are the conditions of a query beside the one that an index is followed by.
func (s *session) others(q *sought, column string) (rest filter) {
	as := ""
	if !s.dollar {
		as = "+" // SQLite must not follow another index
	}
	for _, other := range []struct{ column, value string }{
		{"realm", q.Realm}, {"serial", q.Serial}, {"action", q.Action}, {"outcome", q.Outcome}, {"actor", q.Actor},
	} {
		if other.column != column {
			rest.equal(as+other.column, other.value)
		}
	}
	if q.Actor != "" && q.Action == "" && column != "serial" && column != "actor" {
		rest.where(as + "action <> 'verify'")
	}
	s.unindexed(&rest, q)
	return rest
}

// unindexed adds the conditions that no index helps with.
func (s *session) unindexed(f *filter, q *sought) {
	if !q.Since.IsZero() {
		f.where("time >= ?", q.Since.UnixMicro())
	}
	if !q.Until.IsZero() {
		f.where("time < ?", q.Until.UnixMicro())
	}
	if q.Policy != "" {
		// [...,{"name":"policy","value":"ID,ID"}]: it is the last one.
		const field = `{"name":"` + audit.FieldPolicy + `","value":"`
		instr := "instr"
		if s.dollar {
			instr = "strpos"
		}
		f.where(instr+`(detail, ?) > 0 AND `+instr+`(',' || replace(substr(detail, `+instr+`(detail, ?) + ?), '"', ','), ?) > 0`,
			field, field, int64(len(field)), ","+q.Policy+",")
	}
}

// allRead is how many records a page looks at, where no index leads to them.
const allRead = 20_000
