package store

import (
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
		if q.User != "" && !s.dollar {
			page, last, err = threaded(s, q)
		} else {
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

// walked lists records, one more than a page has, along the index that leads to
// the fewest; and the last one that was looked at, if there are others after that.
// Verifications have no index but the users': they are looked at one by one, as
// far as a page looks.
func walked(s *session, q tokens.RecordQuery) (found []audit.Record, last int64, err error) {
	limit := limited(q.Limit) + 1
	var base, rest filter
	act := q.Action != "" && q.Action != "verify"
	switch {
	case q.User != "":
		base.where("user_key = ? AND user_key <> ''", q.User) // the index leaves out records of nobody
		base.equal("realm", q.Realm)
	case act && q.Serial != "":
		base.where("serial = ? AND serial <> '' AND action <> 'verify'", q.Serial)
	case act:
		base.where("action = ? AND action <> 'verify'", q.Action)
	}
	if q.Before != 0 {
		base.where("id < ?", q.Before)
	}
	rest.equal("realm", q.Realm)
	rest.equal("serial", q.Serial)
	rest.equal("action", q.Action)
	rest.equal("outcome", q.Outcome)
	if len(rest.args) > 0 {
		rows, err := s.query(`SELECT id FROM audit`+base.String()+` ORDER BY id DESC LIMIT 1 OFFSET ?`,
			append(slices.Clone(base.args), int64(allRead-1))...)
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
	rows, err := s.query(`SELECT `+recordColumns+` FROM audit`+base.String()+` ORDER BY id DESC LIMIT ?`, append(base.args, limit)...)
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
