package store

import (
	"context"
	"database/sql"

	"watchword/tokens"
)

const (
	moveChain    = `UPDATE chains SET seq = ?, hash = ? WHERE id = ? AND seq = ?`
	moveStanding = `UPDATE standings SET version = ?, failures = ?, locked = ?, throttle = ?
		WHERE user_id = ? AND version = ?`
	moveMotion   = `UPDATE motions SET last = ?, drift = ?, used_at = ? WHERE token_id = ? AND last <= ?`
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
		c := &sqliteConn{conn: dc.(sqliteDriver)}
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
