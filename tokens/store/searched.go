package store

import (
	"context"
	"database/sql"
	"errors"
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

// published begins to catch up. One goroutine does that at a time; what fails is
// done after the next import, or at the next start.
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
			_ = db.catchUp(db.life) // searches are right without it
		}
	}()
}

// settleDown ends the catching up.
func (db *sqliteDB) settleDown() {
	db.catching.Lock()
	db.ending = true
	db.catching.Unlock()
	db.end()
	db.work.Wait()
}
