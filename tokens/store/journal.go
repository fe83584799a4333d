package store

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// walkPage is how many records Walk reads at once.
const walkPage = 1000

const readHeads = `SELECT id, seq, hash FROM chains WHERE seq > 0 ORDER BY id`

func (f *fields) head() audit.Head {
	return audit.Head{Chain: f.int(), Seq: f.int(), Hash: f.digest()}
}

// MintChain implements tokens.Journal.
func (db *DB) MintChain(ctx context.Context) (int64, []audit.Head, error) {
	var (
		id    int64
		heads []audit.Head
	)
	err := db.engine.write(ctx, false, func(s *session) error {
		err := s.one(`INSERT INTO chains (minted) VALUES (?) RETURNING id`, []any{micros(time.Now())}, &id)
		if err != nil {
			return err
		}
		rows, err := s.query(readHeads)
		heads, err = list(rows, err, 3, (*fields).head)
		return err
	})
	return id, heads, failed("beginning an audit chain", err)
}

// Heads implements tokens.Journal.
func (db *DB) Heads(ctx context.Context) ([]audit.Head, error) {
	var heads []audit.Head
	err := db.read(ctx, "reading the heads of the audit", func(s *session) error {
		rows, err := s.query(readHeads)
		heads, err = list(rows, err, 3, (*fields).head)
		return err
	})
	return heads, err
}

// Chains implements tokens.Journal.
func (db *DB) Chains(ctx context.Context) ([]int64, error) {
	var chains []int64
	err := db.read(ctx, "reading the audit chains", func(s *session) error {
		// Also those that were put into the audit, or taken from the chains: from
		// each chain in the index to the next, without a look at every record.
		rows, err := s.query(`WITH RECURSIVE used (chain) AS (
				SELECT min(chain) FROM audit
				UNION ALL
				SELECT (SELECT min(a.chain) FROM audit a WHERE a.chain > used.chain) FROM used WHERE used.chain IS NOT NULL
			)
			SELECT id FROM chains UNION SELECT chain FROM used WHERE chain IS NOT NULL ORDER BY 1`)
		chains, err = list(rows, err, 1, (*fields).int)
		return err
	})
	return chains, err
}

// Records implements tokens.Journal.
func (db *DB) Records(ctx context.Context, q tokens.RecordQuery) (page []audit.Record, next int64, err error) {
	if !sound(q.Realm, q.User, q.Serial, q.Action, q.Outcome) {
		return nil, 0, nil
	}
	var last int64
	err = db.read(ctx, "listing the audit", func(s *session) (err error) {
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

// everywhere lists the records of a name in all realms as walked does: the index is
// in order of time within a realm only.
func everywhere(s *session, q tokens.RecordQuery) (found []audit.Record, last int64, err error) {
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
func walked(s *session, q tokens.RecordQuery) (found []audit.Record, last int64, err error) {
	act := q.Action != "" && q.Action != "verify"
	switch {
	case q.User != "":
		return s.trail(q, "realm", q.Realm)
	case act && q.Serial != "":
		return s.trail(q, "serial", q.Serial)
	case act:
		return s.trail(q, "action", q.Action)
	}
	return s.trail(q, "", "")
}

// trail lists the records of a query along the index of a column, in which they are
// in order of id where it has one value, or along that of ids if column is empty.
func (s *session) trail(q tokens.RecordQuery, column, value string) (found []audit.Record, last int64, err error) {
	var base, rest filter
	order := ` ORDER BY id DESC`
	switch column { // what the index leaves out
	case "realm":
		base.where("user_key = ? AND user_key <> ''", q.User)
	case "serial":
		base.where("serial <> '' AND action <> 'verify'")
	case "action":
		base.where("action <> 'verify'")
	}
	switch {
	case column == "" || !s.dollar:
		base.equal(column, value)
		if q.Before != 0 {
			base.where("id < ?", q.Before)
		}
	default:
		// PostgreSQL would rather go through all ids, where it takes the value for a
		// frequent one. In this order it cannot.
		before := q.Before
		if before == 0 {
			before = math.MaxInt64
		}
		base.where(column+" >= ? AND ("+column+", id) < (?, ?)", value, value, before)
		order = ` ORDER BY ` + column + ` DESC, id DESC`
	}
	as := ""
	if !s.dollar {
		as = "+" // SQLite must not follow another index
	}
	for _, other := range []struct{ column, value string }{
		{"realm", q.Realm}, {"serial", q.Serial}, {"action", q.Action}, {"outcome", q.Outcome},
	} {
		if other.column != column {
			rest.equal(as+other.column, other.value)
		}
	}
	if len(rest.args) > 0 {
		rows, err := s.query(`SELECT id FROM audit`+base.String()+order+` LIMIT 1 OFFSET ?`, append(slices.Clone(base.args), int64(allRead-1))...)
		end, err := list(rows, err, 1, (*fields).int)
		if err != nil {
			return nil, 0, err
		}
		if len(end) > 0 {
			last = end[0]
			base.where("id >= ?", last)
		}
	}
	base.conditions = append(base.conditions, rest.conditions...)
	base.args = append(base.args, rest.args...)
	rows, err := s.query(`SELECT `+recordColumns+` FROM audit`+base.String()+order+` LIMIT ?`, append(base.args, limited(q.Limit)+1)...)
	found, err = list(rows, err, recordWidth, (*fields).record)
	return found, last, err
}

// allRead is how many records a page looks at, where no index leads to them.
const allRead = 20_000

// Walk implements tokens.Journal.
func (db *DB) Walk(ctx context.Context, chain int64, f func(*audit.Record) error) error {
	after := int64(math.MinInt64) // no record has a place before the first, unless it was put there
	for {
		var page []audit.Record
		err := db.read(ctx, "reading an audit chain", func(s *session) error {
			rows, err := s.query(`SELECT `+recordColumns+` FROM audit WHERE chain = ? AND seq > ? ORDER BY seq LIMIT ?`,
				chain, after, int64(walkPage))
			page, err = list(rows, err, recordWidth, (*fields).record)
			return err
		})
		if err != nil {
			return err
		}
		for i := range page {
			if err := f(&page[i]); err != nil {
				return err
			}
		}
		if len(page) < walkPage {
			return nil
		}
		after = page[len(page)-1].Seq
	}
}
