package store

import (
	"context"
	"math"
	"time"

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
