package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// longestCarry bounds for how long one Carry holds a sink. What seems to be held for
// longer was taken before the clock was set back.
const longestCarry = time.Hour

// postgresNow is PostgreSQL's clock, read anew each time.
const postgresNow = `(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`

// Carry implements tokens.Courier.
func (db *DB) Carry(ctx context.Context, sink, holder string, until time.Duration) (bool, error) {
	if sink == "" || holder == "" || until < 0 || until > longestCarry {
		return false, fmt.Errorf("%w: nobody carries for nobody, for less than nothing, or for more than an hour", tokens.ErrInvalid)
	}
	if err := text(sink, holder); err != nil {
		return false, err
	}
	var n int64
	err := again(ctx, func() error {
		return db.engine.write(ctx, true, func(s *session) (err error) {
			now, args := postgresNow, []any{sink, holder, until.Microseconds(), holder, longestCarry.Microseconds()}
			if !s.dollar {
				now = `?`
				at := micros(time.Now())
				args = []any{sink, holder, at, until.Microseconds(), holder, at, at, longestCarry.Microseconds()}
			}
			n, err = s.exec(`INSERT INTO couriers (sink, holder, until) VALUES (?, ?, `+now+` + ?)
				ON CONFLICT (sink) DO UPDATE SET holder = excluded.holder, until = excluded.until
				WHERE couriers.holder = ? OR couriers.until <= `+now+` OR couriers.until > `+now+` + ?`, args...)
			return err
		})
	})
	return n > 0, failed("finding out who tells a sink", err)
}

// Told implements tokens.Courier.
func (db *DB) Told(ctx context.Context, sink string) (map[int64]int64, error) {
	told := map[int64]int64{}
	if !sound(sink) {
		return told, nil
	}
	err := db.read(ctx, "reading what a sink was told", func(s *session) error {
		rows, err := s.query(`SELECT chain, seq FROM told WHERE sink = ?`, sink)
		places, err := list(rows, err, 2, func(f *fields) [2]int64 { return [2]int64{f.int(), f.int()} })
		for _, p := range places {
			told[p[0]] = p[1]
		}
		return err
	})
	return told, err
}

// Tell implements tokens.Courier.
func (db *DB) Tell(ctx context.Context, sink, holder string, told map[int64]int64) error {
	if err := text(sink, holder); err != nil {
		return err
	}
	chains := slices.Sorted(maps.Keys(told)) // in one order, so that no two wait for each other
	err := again(ctx, func() error {
		return db.engine.write(ctx, true, func(s *session) error {
			lock := ""
			if s.dollar {
				lock = " FOR UPDATE" // until it is noted nobody else takes over
			}
			var carries string
			err := s.one(`SELECT holder FROM couriers WHERE sink = ?`+lock, []any{sink}, &carries)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
			if carries != holder || err != nil {
				return fmt.Errorf("%w: another server tells the sink by now, or nobody", tokens.ErrState)
			}
			for _, chain := range chains {
				if _, err := s.exec(`INSERT INTO told (sink, chain, seq) VALUES (?, ?, ?)
					ON CONFLICT (sink, chain) DO UPDATE SET seq = excluded.seq WHERE told.seq < excluded.seq`, sink, chain, told[chain]); err != nil {
					return err
				}
			}
			return nil
		})
	})
	return failed("noting what a sink was told", err)
}

// After implements tokens.Courier.
func (db *DB) After(ctx context.Context, chain, seq int64, limit int) ([]audit.Record, error) {
	var page []audit.Record
	err := db.read(ctx, "reading an audit chain", func(s *session) error {
		rows, err := s.query(`SELECT `+recordColumns+` FROM audit WHERE chain = ? AND seq > ? ORDER BY seq LIMIT ?`, chain, seq, limited(limit))
		page, err = list(rows, err, recordWidth, (*fields).record)
		return err
	})
	if err != nil || len(page) == 0 {
		return nil, err
	}
	return page, db.onDisk(ctx)
}

// onDisk answers when all that was read before is durable: both databases show what
// the disk may not have yet.
func (db *DB) onDisk(ctx context.Context) error {
	if err := db.engine.settled(ctx); err != nil {
		return failed("waiting for the disk", err)
	}
	return nil
}

// settled answers when all that a reader has seen before is durable.
func (db *postgresDB) settled(ctx context.Context) error {
	return db.write(ctx, true, func(s *session) error {
		_, err := s.exec(flush)
		return err
	})
}

// settled answers when all that a reader has seen before is durable.
func (db *sqliteDB) settled(ctx context.Context) error {
	// A commit is counted before its writer leaves the gate.
	if err := db.gate.enter(ctx, true); err != nil {
		return err
	}
	n := db.log.last()
	db.gate.leave()
	return db.log.wait(n)
}

// Forget implements tokens.Courier.
func (db *DB) Forget(ctx context.Context, sink string) error {
	if !sound(sink) {
		return nil
	}
	err := again(ctx, func() error {
		return db.engine.write(ctx, true, func(s *session) error {
			if _, err := s.exec(`DELETE FROM couriers WHERE sink = ?`, sink); err != nil {
				return err
			}
			_, err := s.exec(`DELETE FROM told WHERE sink = ?`, sink)
			return err
		})
	})
	return failed("forgetting a sink", err)
}
