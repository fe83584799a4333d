package store

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"time"
)

// searchChunk is how many tokens get their trigrams in one transaction: short, so
// that no attempt waits for it.
const searchChunk = 500

// catchUp makes the trigrams of what was published, until there is nothing left.
// Meanwhile searches look at those tokens one by one.
func (db *sqliteDB) catchUp(ctx context.Context) error {
	for more := true; more; {
		err := db.write(ctx, true, func(s *session) error {
			var batch, searched int64
			err := s.one(`SELECT b.id, b.searched FROM unsearched w JOIN batches b ON b.id = w.batch ORDER BY w.batch LIMIT 1`, nil, &batch, &searched)
			if errors.Is(err, sql.ErrNoRows) {
				more = false
				return nil
			}
			if err != nil {
				return err
			}
			var last int64
			err = s.one(`SELECT coalesce(max(id), 0) FROM (SELECT id FROM tokens WHERE batch = ? AND id > ? ORDER BY id LIMIT ?)`,
				[]any{batch, searched, int64(searchChunk)}, &last)
			if err != nil {
				return err
			}
			if last == 0 {
				_, err = s.exec(`DELETE FROM unsearched WHERE batch = ?`, batch)
				return err
			}
			if _, err = s.exec(`INSERT INTO token_search (rowid, serial) SELECT id, serial FROM tokens WHERE batch = ? AND id > ? AND id <= ?`,
				batch, searched, last); err != nil {
				return err
			}
			_, err = s.exec(`UPDATE batches SET searched = ? WHERE id = ?`, last, batch)
			return err
		})
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// catchAgain is how long after a failure it is tried again.
var catchAgain = time.Minute

// published begins to catch up. One goroutine does that at a time; what fails is
// tried again until it is done.
func (db *sqliteDB) published() {
	db.catching.Lock()
	defer db.catching.Unlock()
	if db.ending {
		return
	}
	db.again = true
	if db.busy {
		return
	}
	db.busy = true
	db.work.Add(1)
	go func() {
		defer db.work.Done()
		for {
			db.catching.Lock()
			if !db.again || db.ending {
				db.busy = false
				db.catching.Unlock()
				return
			}
			db.again = false
			db.catching.Unlock()
			if err := db.catchUp(db.life); err != nil && db.life.Err() == nil {
				db.behind.Store(true)
				slog.Error("what was imported cannot be prepared for searches, which look at each token of it meanwhile; it is tried again",
					"error", err, "after", catchAgain)
				select {
				case <-db.life.Done():
				case <-time.After(catchAgain):
				}
				db.catching.Lock()
				db.again = true
				db.catching.Unlock()
				continue
			}
			db.behind.Store(false)
		}
	}()
}

// SearchBehind says whether imports could not be prepared for searches: those are
// right, and slower than they should be. It is tried again every minute.
func (db *DB) SearchBehind() bool {
	e, ok := db.engine.(*sqliteDB)
	return ok && e.behind.Load()
}

// settleDown ends the catching up.
func (db *sqliteDB) settleDown() {
	db.catching.Lock()
	db.ending = true
	db.catching.Unlock()
	db.end()
	db.work.Wait()
}
