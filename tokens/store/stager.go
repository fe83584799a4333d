package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"watchword/tokens"
)

// discardChunk is how many tokens one transaction removes.
const discardChunk = 5000

// Begin implements tokens.Stager.
func (db *DB) Begin(ctx context.Context, b tokens.Batch) (int64, error) {
	if err := text(b.Realm, b.Name, b.Format, b.SHA256, b.Actor); err != nil {
		return 0, err
	}
	var id int64
	err := db.engine.write(ctx, true, func(s *session) error {
		return s.one(`INSERT INTO batches (state, realm, name, format, sha256, actor, created, touched)
			VALUES ('staging', ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
			[]any{b.Realm, b.Name, b.Format, b.SHA256, b.Actor, micros(b.Created), micros(time.Now())}, &id)
	})
	return id, failed("beginning an import", err)
}

// Stage implements tokens.Stager.
func (db *DB) Stage(ctx context.Context, batch int64, list []tokens.Token) ([]bool, error) {
	for i := range list {
		t := &list[i]
		if t.OwnerID != 0 || t.State != tokens.Imported {
			return nil, fmt.Errorf("%w: token %q cannot be staged in state %s or with an owner", tokens.ErrInvalid, t.Serial, t.State)
		}
		if len(t.Passcodes) > 0 || t.Uses != 0 {
			return nil, fmt.Errorf("%w: token %q cannot be staged: passcodes are enrolled", tokens.ErrInvalid, t.Serial)
		}
		if err := text(t.Realm, t.Serial, t.Model, t.Hint, string(t.Type), t.Wrapped.Mechanism); err != nil {
			return nil, err
		}
	}
	var created []bool
	err := again(ctx, func() error {
		return db.engine.write(ctx, true, func(s *session) error {
			n, err := s.exec(`UPDATE batches SET touched = ? WHERE id = ? AND state = 'staging'`, micros(time.Now()), batch)
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%w: import %d is no longer staging", tokens.ErrState, batch)
			}
			if s.dollar {
				created, err = stagePostgres(s, batch, list)
			} else {
				created, err = stageSQLite(s, batch, list)
			}
			return err
		})
	})
	if err != nil {
		return nil, failed("staging tokens", err)
	}
	return created, nil
}

// again repeats a transaction that PostgreSQL undid because of another.
func again(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		if !collided(err) || try == 5 || ctx.Err() != nil {
			return err
		}
		time.Sleep(time.Duration(try) * 10 * time.Millisecond)
	}
}

const stageColumns = `batch, realm, serial, type, algorithm, digits, period, state, model, created, mechanism, kek,
	hash, seed_len, blob, binding, last0, drift0, hint, public_id, private_mac, expires`

// stagedIn is the batch that a token is in, as long as that is not published.
const stagedIn = `coalesce((SELECT b.id FROM batches b WHERE b.id = t.batch AND b.state <> 'published'), 0)`

// Present implements tokens.Stager.
func (db *DB) Present(ctx context.Context, realm string, serials []string) ([]tokens.Presence, error) {
	if len(serials) == 0 {
		return nil, nil
	}
	var present []tokens.Presence
	err := db.read(ctx, "looking for serials", func(s *session) error {
		var err error
		if s.dollar {
			present, err = presentPostgres(s, realm, serials)
		} else {
			present, err = presentSQLite(s, realm, serials)
		}
		return err
	})
	return present, err
}

// Discard implements tokens.Stager.
func (db *DB) Discard(ctx context.Context, batch int64) error {
	err := db.engine.write(ctx, true, func(s *session) error {
		var state string
		err := s.one(`UPDATE batches SET state = 'discarding' WHERE id = ? AND state <> 'published' RETURNING state`,
			[]any{batch}, &state)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		err = s.one(`SELECT state FROM batches WHERE id = ? AND id > 0`, []any{batch}, &state)
		if errors.Is(err, sql.ErrNoRows) {
			return fmt.Errorf("%w: import %d", tokens.ErrNotFound, batch)
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("%w: import %d is published", tokens.ErrState, batch)
	})
	if err == nil {
		err = db.remove(ctx, batch)
	}
	return failed("discarding an import", err)
}

// remove deletes a batch that is being discarded.
func (db *DB) remove(ctx context.Context, batch int64) error {
	if err := db.engine.write(ctx, true, func(s *session) error { return ungrant(s, batch) }); err != nil {
		return err
	}
	for {
		var n int64
		err := db.engine.write(ctx, true, func(s *session) (err error) {
			n, err = s.exec(`DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE batch = ? LIMIT ?)`,
				batch, int64(discardChunk))
			if err != nil || n == discardChunk {
				return err
			}
			_, err = s.exec(`DELETE FROM batches WHERE id = ? AND state = 'discarding'`, batch)
			return err
		})
		if err != nil || n < discardChunk {
			return err
		}
	}
}

// Sweep implements tokens.Stager. It also finishes what a Discard that was
// interrupted has left.
func (db *DB) Sweep(ctx context.Context, before time.Time) (int, error) {
	var stale []int64
	err := db.engine.read(ctx, func(s *session) error {
		rows, err := s.query(`SELECT id FROM batches WHERE state <> 'published' AND touched < ? ORDER BY id`, micros(before))
		stale, err = list(rows, err, 1, (*fields).int)
		return err
	})
	swept := 0
	for _, batch := range stale {
		if err != nil {
			break
		}
		var n int64
		err = db.engine.write(ctx, true, func(s *session) (err error) {
			// It may have been staged into since, or published.
			n, err = s.exec(`UPDATE batches SET state = 'discarding' WHERE id = ? AND state <> 'published' AND touched < ?`,
				batch, micros(before))
			return err
		})
		if err == nil && n > 0 {
			swept++
			err = db.remove(ctx, batch)
		}
	}
	return swept, failed("sweeping abandoned imports", err)
}
