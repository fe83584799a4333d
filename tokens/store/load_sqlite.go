package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"slices"

	"watchword/tokens"
)

const (
	loadByName = `SELECT ` + loadOwned + `
		FROM users u JOIN standings s ON s.user_id = u.id
		LEFT JOIN tokens t ON t.owner_id = u.id AND t.state <> 'revoked'
		LEFT JOIN motions m ON m.token_id = t.id
		WHERE u.realm = +? AND u.key = +? ORDER BY t.id`
	// Who holds the token, or zero; a revoked one is nobody's.
	findSerial = `SELECT t.id, CASE WHEN t.state = 'revoked' THEN 0 ELSE coalesce(t.owner_id, 0) END
		FROM tokens t JOIN batches b ON b.id = t.batch
		WHERE t.realm = +? AND t.serial = +? AND b.state = 'published'`
	findCredential = `SELECT t.id, CASE WHEN t.state = 'revoked' THEN 0 ELSE coalesce(t.owner_id, 0) END
		FROM tokens t JOIN batches b ON b.id = t.batch
		WHERE t.credential_key = +? AND t.realm = +? AND b.state = 'published'`
	loadByUser = `SELECT ` + loadOwned + `
		FROM users u JOIN standings s ON s.user_id = u.id
		LEFT JOIN tokens t ON t.owner_id = u.id AND t.state <> 'revoked'
		LEFT JOIN motions m ON m.token_id = t.id
		WHERE u.id = +? ORDER BY t.id`
	loadByToken = `SELECT ` + loadColumns + `
		FROM tokens t LEFT JOIN users u ON u.id = 0 LEFT JOIN standings s ON s.user_id = 0
		LEFT JOIN users o ON o.id = t.owner_id
		LEFT JOIN motions m ON m.token_id = t.id
		WHERE t.id = +?`
)

func (db *sqliteDB) load(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	// What cannot be decided on need not be read, and a database that takes no
	// more writes is down for whoever asks.
	if err := db.log.sound(); err != nil {
		return tokens.View{}, err
	}
	conn, err := db.loader.Conn(ctx)
	if err != nil {
		return tokens.View{}, err
	}
	defer conn.Close()
	subjects := newSubjects(len(refs))
	// Once begun it is a matter of microseconds: watching ctx would cost more.
	err = conn.Raw(func(dc any) (err error) {
		c := &sqliteConn{conn: dc.(sqliteDriver)}
		if err := c.run("BEGIN"); err != nil {
			return err
		}
		defer func() {
			if rerr := c.run("ROLLBACK"); rerr != nil {
				err = errors.Join(err, rerr, driver.ErrBadConn)
			}
		}()
		return c.load(subjects, refs)
	})
	return subjects.view, err
}

// recall is load, but for what is remembered.
func (db *sqliteDB) recall(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	if err := db.log.sound(); err != nil {
		return tokens.View{}, err
	}
	view := tokens.View{Subjects: make([]*tokens.Subject, len(refs))}
	rest := db.known.recall(refs, &view)
	if len(rest) == 0 && len(refs) > 0 {
		return view, nil
	}
	ask := refs
	if len(rest) < len(refs) {
		ask = make([]tokens.Ref, len(rest))
		for i, n := range rest {
			ask[i] = refs[n]
		}
	}
	began := db.known.writing()
	read, err := db.load(ctx, ask)
	if err != nil {
		return tokens.View{}, err
	}
	db.known.note(began, ask, &read)
	if len(rest) == len(refs) {
		return read, nil
	}
	view.Generation = read.Generation
	for i, n := range rest {
		view.Subjects[n] = read.Subjects[i]
	}
	if slices.ContainsFunc(ask, func(r tokens.Ref) bool { return !byName(&r) }) {
		once(view.Subjects)
	}
	return view, nil
}

// confirm does nothing: what is remembered is not so any more, if another program
// has written, for a second at most.
func (db *sqliteDB) confirm(context.Context, *tokens.Change) error { return nil }

// once puts one subject in the place of those that are of the same user: one that
// was recalled by name and one that was read by a credential of the user's. Each of
// them was so a moment ago.
func once(subjects []*tokens.Subject) {
	of := make(map[int64]*tokens.Subject, len(subjects))
	for i, s := range subjects {
		if s == nil || s.User == nil {
			continue
		}
		if first := of[s.User.ID]; first != nil {
			subjects[i] = first
		} else {
			of[s.User.ID] = s
		}
	}
}

// load reads the refs' subjects on one snapshot.
func (c *sqliteConn) load(subjects *subjects, refs []tokens.Ref) error {
	err := c.each(`SELECT generation FROM meta`, func(f *fields) { subjects.view.Generation = f.int() })
	if err != nil {
		return err
	}
	for n, ref := range refs {
		add := func(f *fields) { subjects.add(n, f) }
		if ref.Serial == "" && ref.Credential == "" {
			if err := c.each(loadByName, add, ref.Realm, ref.User); err != nil {
				return err
			}
			continue
		}
		query, id := "", int64(0)
		found := func(f *fields) {
			token, owner := f.int(), f.int()
			query, id = loadByUser, owner
			if owner == 0 {
				query, id = loadByToken, token
			}
		}
		var err error
		if ref.Serial != "" {
			err = c.each(findSerial, found, ref.Realm, ref.Serial)
		} else {
			err = c.each(findCredential, found, []byte(ref.Credential), ref.Realm)
		}
		if err != nil {
			return err
		}
		if query != "" {
			if err := c.each(query, add, id); err != nil {
				return err
			}
		}
	}
	return nil
}
