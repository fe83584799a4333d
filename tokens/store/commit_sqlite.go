package store

import (
	"context"
	"database/sql"
	"errors"

	"watchword/tokens"
)

const (
	moveChain    = `UPDATE chains SET seq = ?, hash = ? WHERE id = ? AND seq = ?`
	moveStanding = `UPDATE standings SET version = ?, failures = ?, locked = ?, throttle = ?, tail = max(tail, ?)
		WHERE user_id = ? AND version = ?`
	moveTail   = `UPDATE standings SET tail = ? WHERE user_id = ?`
	moveMotion = `UPDATE motions SET last = ?, drift = ?, used_at = ? WHERE token_id = ? AND last <= ?`

	spend = `INSERT INTO spent (hash, expires) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING`

	dataVersion  = `PRAGMA data_version`
	findUser     = `SELECT id FROM users WHERE realm = ? AND key = ?`
	lastRecord   = `SELECT max(id) FROM audit`
	insertRecord = `INSERT INTO audit (prev, id, chain, seq, time, action, outcome, realm, user_key, serial, actor, client,
		source, reason, detail, hash)
		VALUES (coalesce(?, (SELECT tail FROM standings WHERE user_id = ?)), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
)

func (db *sqliteDB) commitHot(ctx context.Context, p *plan) error {
	made := func() {
		db.known.follow(p)
		if p.Made != nil {
			p.Made()
		}
	}
	err := db.transaction(ctx, false, made, func(conn *sql.Conn) error {
		return db.commitCore(conn, p)
	})
	var conflict *tokens.ConflictError
	switch {
	case err == nil:
	case errors.As(err, &conflict) && conflict.UserIDs != nil:
		db.known.forget(conflict.UserIDs)
	default:
		db.known.empty()
	}
	return err
}

func (db *sqliteDB) core(s *session, p *plan) error {
	return db.commitCore(s.conn.(*sql.Conn), p)
}

// commitCore moves chains, standings and motions, writes the records and spends,
// in the transaction that conn is in.
func (db *sqliteDB) commitCore(conn *sql.Conn, p *plan) error {
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
		var version int64
		if err := c.each(dataVersion, func(f *fields) { version = f.int() }); err != nil {
			return err
		}
		if db.known.check(dc, version, p.Recalled) {
			return &tokens.ConflictError{} // to be decided anew
		}
		tails, err := db.record(c, p)
		if err != nil {
			return err
		}
		conflict := tokens.ConflictError{}
		for i := range p.standings {
			w := &p.standings[i]
			ok, err := c.changed(moveStanding, w.Next.Version, int64(w.Next.Failures), w.Next.Locked,
				encodeThrottle(w.Next.Throttle), tails[w.UserID], w.UserID, w.Expect)
			if err != nil {
				return err
			}
			if !ok {
				conflict.UserIDs = append(conflict.UserIDs, w.UserID)
			}
			delete(tails, w.UserID)
		}
		if conflict.UserIDs != nil {
			return &conflict
		}
		for user, tail := range tails {
			if _, err := c.changed(moveTail, tail, user); err != nil {
				return err
			}
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
		var before tokens.SpentError
		for i := range p.spends {
			w := &p.spends[i]
			ok, err := c.changed(spend, w.Hash[:], micros(w.Expires))
			if err != nil {
				return err
			}
			if !ok {
				before.Hashes = append(before.Hashes, w.Hash)
			}
		}
		if before.Hashes != nil {
			return &before
		}
		return nil
	})
}

// record writes the audit records, each with the id of the one before it of
// the same user, and answers the newest of each user, which is to go to the
// user's standing.
func (db *sqliteDB) record(c *sqliteConn, p *plan) (map[int64]int64, error) {
	var id int64
	if err := c.each(lastRecord, func(f *fields) { id = f.int() }); err != nil {
		return nil, err
	}
	tails := make(map[int64]int64, len(p.Records))
	args := make([]any, 0, 17)
	for i := range p.Records {
		r := &p.Records[i]
		user, err := db.userID(c, r.Realm, r.User)
		if err != nil {
			return nil, err
		}
		var prev any // nil: as the standing says, and there is none for user zero
		if tail, ok := tails[user]; ok {
			prev = tail
		}
		id++
		if user != 0 {
			tails[user] = id
		}
		args = append(args[:0], prev, user, id)
		values := recordValues(r)
		if _, err := c.changed(insertRecord, append(args, values[:]...)...); err != nil {
			return nil, err
		}
	}
	return tails, nil
}

// maxUserIDs is how many users' ids are remembered.
const maxUserIDs = 200_000

// userID finds the id of a user by name, or zero. A user's name and id never
// change, so what was found once is remembered. It is called in the write
// transaction, before anything is inserted into users, so that it never sees what
// is rolled back.
func (db *sqliteDB) userID(c *sqliteConn, realm, key string) (int64, error) {
	if key == "" {
		return 0, nil
	}
	n := name{realm, key}
	if id, ok := db.userIDs[n]; ok {
		return id, nil
	}
	var id int64
	if err := c.each(findUser, func(f *fields) { id = f.int() }, realm, key); err != nil || id == 0 {
		return 0, err
	}
	if db.userIDs == nil || len(db.userIDs) >= maxUserIDs {
		db.userIDs = make(map[name]int64)
	}
	db.userIDs[n] = id
	return id, nil
}
