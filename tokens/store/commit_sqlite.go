package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"

	"watchword/tokens"
)

const (
	moveChain    = `UPDATE chains SET seq = ?, hash = ? WHERE id = ? AND seq = ? RETURNING 1`
	moveStanding = `UPDATE standings SET version = ?, failures = ?, locked = ?, throttle = ?
		WHERE user_id = ? AND version = ? RETURNING 1`
	moveMotion   = `UPDATE motions SET last = ?, drift = ?, used_at = ? WHERE token_id = ? AND last <= ? RETURNING 1`
	insertRecord = `INSERT INTO audit (chain, seq, time, action, outcome, realm, user_key, serial, actor, client, source,
		reason, detail, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
)

func (db *sqliteDB) commitHot(ctx context.Context, p *plan) error {
	return db.transaction(ctx, false, func(conn *sql.Conn) error {
		return commitCoreConn(conn, p)
	})
}

func commitCoreSQLite(s *session, p *plan) error {
	return commitCoreConn(s.conn.(*sql.Conn), p)
}

// commitCoreConn moves chains, standings and motions and writes the records, in the
// transaction that conn is in. It speaks to the driver itself: what
// database/sql adds to each statement is as much as the statement.
func commitCoreConn(conn *sql.Conn, p *plan) error {
	return conn.Raw(func(dc any) error {
		c := &sqliteConn{conn: dc.(driver.QueryerContext)}
		for _, l := range p.links {
			ok, err := c.changed(moveChain, l.last, l.hash[:], l.chain, l.first-1)
			if err != nil {
				return err
			}
			if !ok {
				return moved(l.chain)
			}
		}
		conflict := tokens.ConflictError{}
		for i := range p.standings {
			w := &p.standings[i]
			ok, err := c.changed(moveStanding, w.Next.Version, int64(w.Next.Failures), w.Next.Locked,
				encodeThrottle(w.Next.Throttle), w.UserID, w.Expect)
			if err != nil {
				return err
			}
			if !ok {
				conflict.UserIDs = append(conflict.UserIDs, w.UserID)
			}
		}
		if conflict.UserIDs != nil {
			return &conflict
		}
		for i := range p.owned {
			w := &p.owned[i]
			ok, err := c.changed(moveMotion, w.Last, int64(w.Drift), w.UsedAt, w.TokenID, w.Last)
			if err != nil {
				return err
			}
			if !ok {
				conflict.TokenIDs = append(conflict.TokenIDs, w.TokenID)
			}
		}
		if conflict.TokenIDs != nil {
			return &conflict
		}
		for i := range p.Records {
			values := recordValues(&p.Records[i])
			if _, err := c.changed(insertRecord, values[:]...); err != nil {
				return err
			}
		}
		return nil
	})
}

// sqliteConn runs statements on a connection that keeps them prepared.
type sqliteConn struct {
	conn driver.QueryerContext
	args []driver.NamedValue
	row  [1]driver.Value
}

// changed runs a statement and says whether it answered a row. It goes by way
// of Query since that binds and runs in one call into C.
func (c *sqliteConn) changed(query string, args ...any) (bool, error) {
	c.args = c.args[:0]
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	rows, err := c.conn.QueryContext(context.Background(), query, c.args)
	if err != nil {
		return false, err
	}
	answered := false
	if len(rows.Columns()) > 0 {
		err = rows.Next(c.row[:])
		answered = err == nil
		if err == io.EOF {
			err = nil
		}
	}
	if cerr := rows.Close(); err == nil {
		err = cerr
	}
	return answered, err
}
