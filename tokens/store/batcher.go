package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"watchword/tokens"
)

// Reserve implements tokens.Batcher.
func (db *DB) Reserve(ctx context.Context, n int) ([]int64, error) {
	if n < 1 {
		return nil, nil
	}
	var ids []int64
	err := db.engine.write(ctx, true, func(s *session) error {
		if s.dollar {
			rows, err := s.query(`SELECT nextval(pg_get_serial_sequence('users', 'id')) FROM generate_series(1, ?)`, int64(n))
			ids, err = list(rows, err, 1, (*fields).int)
			return err
		}
		// A number that AUTOINCREMENT has passed is not given again.
		if _, err := s.exec(`INSERT INTO sqlite_sequence (name, seq) SELECT 'users', 0
			WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'users')`); err != nil {
			return err
		}
		if _, err := s.exec(`UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'users'`, int64(n)); err != nil {
			return err
		}
		var last int64
		if err := s.one(`SELECT seq FROM sqlite_sequence WHERE name = 'users'`, nil, &last); err != nil {
			return err
		}
		ids = make([]int64, n)
		for i := range ids {
			ids[i] = last - int64(n) + int64(i) + 1
		}
		return nil
	})
	return ids, failed("reserving users", err)
}

// Grant implements tokens.Batcher. What publishing does with it is in the schema,
// as a trigger of batches.
func (db *DB) Grant(ctx context.Context, batch int64, users []tokens.User, list []tokens.Token) error {
	for i := range users {
		if err := text(users[i].Realm, users[i].Key, users[i].Name); err != nil {
			return err
		}
	}
	for i := range list {
		if t := &list[i]; t.OwnerID == 0 || t.State != tokens.Active && t.State != tokens.Pending || len(t.Binding) == 0 {
			return refused("token %q is granted to nobody, or is neither active nor pending, or not bound", t.Serial)
		}
		if err := text(list[i].Realm, list[i].Serial); err != nil {
			return err
		}
	}
	err := again(ctx, func() error {
		return db.engine.write(ctx, true, func(s *session) error {
			n, err := s.exec(`UPDATE batches SET touched = ? WHERE id = ? AND state = 'staging'`, micros(time.Now()), batch)
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%w: import %d is no longer staging", tokens.ErrState, batch)
			}
			if err := ungrant(s, batch); err != nil {
				return err
			}
			if s.dollar {
				return grantPostgres(s, batch, users, list)
			}
			return grantSQLite(s, batch, users, list)
		})
	})
	return failed("noting the owners of an import", err)
}

// ungrant forgets what Grant noted.
func ungrant(s *session, batch int64) error {
	_, err := s.exec(`DELETE FROM grants WHERE batch = ?`, batch)
	if err == nil {
		_, err = s.exec(`DELETE FROM newcomers WHERE batch = ?`, batch)
	}
	return err
}

func notOfBatch(batch int64) error {
	return fmt.Errorf("%w: a token is not of import %d", tokens.ErrNotFound, batch)
}

func grantPostgres(s *session, batch int64, users []tokens.User, list []tokens.Token) error {
	if len(users) > 0 {
		a := arrays{values: []any{batch}}
		a.of(len(users),
			func(i int) any { return users[i].ID },
			func(i int) any { return micros(users[i].Created) },
			func(i int) any { return users[i].Realm },
			func(i int) any { return users[i].Key },
			func(i int) any { return users[i].Name })
		if _, err := s.exec(`INSERT INTO newcomers (batch, id, created, realm, key, name)
			SELECT $1::bigint, * FROM unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[])`, a.values...); err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return nil
	}
	a := arrays{values: []any{batch}}
	a.of(len(list),
		func(i int) any { return list[i].Realm },
		func(i int) any { return list[i].Serial },
		func(i int) any { return list[i].OwnerID },
		func(i int) any { return list[i].Binding },
		func(i int) any { return string(list[i].State) })
	n, err := s.exec(`INSERT INTO grants (batch, token_id, owner_id, binding, state)
		SELECT t.batch, t.id, g.owner, g.binding, g.state
		FROM unnest($2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::text[]) AS g(realm, serial, owner, binding, state)
		JOIN tokens t ON t.realm = g.realm AND t.serial = g.serial AND t.batch = $1::bigint`, a.values...)
	if err == nil && n != int64(len(list)) {
		err = notOfBatch(batch)
	}
	return err
}

func grantSQLite(s *session, batch int64, users []tokens.User, list []tokens.Token) error {
	return s.conn.(*sql.Conn).Raw(func(dc any) error {
		c := &sqliteConn{conn: dc.(sqliteDriver)}
		for i := range users {
			u := &users[i]
			if _, err := c.changed(`INSERT INTO newcomers (id, batch, realm, key, name, created) VALUES (?, ?, ?, ?, ?, ?)`,
				u.ID, batch, u.Realm, u.Key, u.Name, micros(u.Created)); err != nil {
				return err
			}
		}
		for i := range list {
			t := &list[i]
			ok, err := c.changed(`INSERT INTO grants (token_id, batch, owner_id, binding, state)
				SELECT id, batch, ?, ?, ? FROM tokens WHERE realm = ? AND serial = ? AND batch = ?`,
				t.OwnerID, t.Binding, string(t.State), t.Realm, t.Serial, batch)
			if err != nil {
				return err
			}
			if !ok {
				return notOfBatch(batch)
			}
		}
		return nil
	})
}

// fresh is the condition that a token is as it came. The first change of any
// kind gives it a motion.
const fresh = `t.state = 'imported' AND t.owner_id IS NULL AND NOT EXISTS (SELECT 1 FROM motions m WHERE m.token_id = t.id)`

// Tally implements tokens.Batcher.
func (db *DB) Tally(ctx context.Context, batch int64) (tokens.Tally, error) {
	var tally tokens.Tally
	err := db.read(ctx, "counting an import's tokens", func(s *session) error {
		tally = tokens.Tally{States: map[tokens.State]int{}}
		type counted struct {
			name string
			n    int
		}
		count := func(f *fields) counted { return counted{f.str(), int(f.int())} }
		const published = `t.batch IN (SELECT id FROM batches WHERE id = ? AND id > 0 AND state = 'published')`
		rows, err := s.query(`SELECT t.state, count(*) FROM tokens t WHERE `+published+` GROUP BY t.state`, batch)
		states, err := list(rows, err, 2, count)
		if err != nil {
			return err
		}
		for _, c := range states {
			tally.States[tokens.State(c.name)] = c.n
		}
		if rows, err = s.query(`SELECT t.model, count(*) FROM tokens t WHERE `+published+`
			GROUP BY t.model ORDER BY 2 DESC, 1 LIMIT 10`, batch); err != nil {
			return err
		}
		models, err := list(rows, err, 2, count)
		if err != nil {
			return err
		}
		for _, c := range models {
			tally.Models = append(tally.Models, tokens.ModelCount{Model: c.name, Tokens: c.n})
		}
		return s.one(`SELECT count(*) FROM tokens t WHERE `+published+` AND `+fresh, []any{batch}, &tally.Fresh)
	})
	return tally, err
}

// Remove implements tokens.Batcher. A token that is being changed is locked by
// its motion, and left alone; one that was changed since it was looked at makes
// the transaction fail, for its motion refers to it, and it is looked at anew.
func (db *DB) Remove(ctx context.Context, batch, after int64, limit int, at time.Time) (int, int64, error) {
	var removed, last int64
	err := again(ctx, func() error {
		return db.engine.write(ctx, true, func(s *session) error {
			var id int64
			err := s.one(`UPDATE batches SET undone = CASE WHEN undone = 0 THEN ? ELSE undone END
				WHERE id = ? AND id > 0 AND state = 'published' RETURNING id`, []any{micros(at), batch}, &id)
			if errors.Is(err, sql.ErrNoRows) {
				return fmt.Errorf("%w: import %d", tokens.ErrNotFound, batch)
			}
			if err != nil {
				return err
			}
			if err := s.one(`SELECT coalesce(max(id), 0) FROM (SELECT id FROM tokens WHERE batch = ? AND id > ? ORDER BY id LIMIT ?) AS page`,
				[]any{batch, after, int64(limit)}, &last); err != nil {
				return err
			}
			lock := ""
			if s.dollar {
				lock = " FOR UPDATE OF t SKIP LOCKED"
			}
			removed, err = s.exec(`DELETE FROM tokens WHERE id IN (SELECT t.id FROM tokens t
				WHERE t.batch = ? AND t.id > ? AND t.id <= ? AND `+fresh+` ORDER BY t.id`+lock+`)`, batch, after, last)
			if err != nil {
				return err
			}
			_, err = s.exec(`UPDATE batches SET removed = removed + ? WHERE id = ?`, removed, batch)
			return err
		})
	})
	return int(removed), last, failed("undoing an import", err)
}
