package store

import (
	"context"
	"database/sql"

	"watchword/tokens"
)

const (
	loadByName = `SELECT ` + loadColumns + `
		FROM users u JOIN standings s ON s.user_id = u.id
		LEFT JOIN tokens t ON t.owner_id = u.id AND t.state <> 'revoked'
		LEFT JOIN users o ON o.id = t.owner_id
		LEFT JOIN motions m ON m.token_id = t.id
		WHERE u.realm = ? AND u.key = ? ORDER BY t.id`
	// Who holds the token, or zero; a revoked one is nobody's.
	findSerial = `SELECT t.id, CASE WHEN t.state = 'revoked' THEN 0 ELSE coalesce(t.owner_id, 0) END
		FROM tokens t JOIN batches b ON b.id = t.batch
		WHERE t.realm = ? AND t.serial = ? AND b.state = 'published'`
	loadByUser = `SELECT ` + loadColumns + `
		FROM users u JOIN standings s ON s.user_id = u.id
		LEFT JOIN tokens t ON t.owner_id = u.id AND t.state <> 'revoked'
		LEFT JOIN users o ON o.id = t.owner_id
		LEFT JOIN motions m ON m.token_id = t.id
		WHERE u.id = ? ORDER BY t.id`
	loadByToken = `SELECT ` + loadColumns + `
		FROM tokens t LEFT JOIN users u ON u.id = 0 LEFT JOIN standings s ON s.user_id = 0
		LEFT JOIN users o ON o.id = t.owner_id
		LEFT JOIN motions m ON m.token_id = t.id
		WHERE t.id = ?`
)

func (db *sqliteDB) load(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	if err := ctx.Err(); err != nil {
		return tokens.View{}, err
	}
	subjects := newSubjects(len(refs))
	// Once begun it is a matter of microseconds: watching ctx would cost more.
	err := db.read(context.WithoutCancel(ctx), func(s *session) error {
		if err := s.one(`SELECT generation FROM meta`, nil, &subjects.view.Generation); err != nil {
			return err
		}
		f := newFields(loadWidth)
		for n, ref := range refs {
			var (
				rows *sql.Rows
				err  error
			)
			if ref.Serial == "" {
				rows, err = s.query(loadByName, ref.Realm, ref.User)
			} else {
				var token, owner int64
				switch err := s.one(findSerial, []any{ref.Realm, ref.Serial}, &token, &owner); {
				case err == sql.ErrNoRows:
					continue
				case err != nil:
					return err
				}
				if owner == 0 {
					rows, err = s.query(loadByToken, token)
				} else {
					rows, err = s.query(loadByUser, owner)
				}
			}
			if err != nil {
				return err
			}
			if err := subjects.addAll(n, f, rows); err != nil {
				return err
			}
		}
		return nil
	})
	return subjects.view, err
}

func (s *subjects) addAll(n int, f *fields, rows *sql.Rows) error {
	defer rows.Close()
	for rows.Next() {
		if err := f.scan(rows); err != nil {
			return err
		}
		s.add(n, f)
		if f.err != nil {
			return f.err
		}
	}
	return rows.Err()
}
