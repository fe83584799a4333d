package store

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"time"

	"watchword/tokens"
)

// Each query answers at least one row for each ref, with the generation and
// the clock, in one round trip and on one snapshot.
const (
	loadHead = `SELECT g.generation, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint`

	loadNames = loadHead + `, r.n, ` + loadOwned + `
		FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS r(realm, key, n)
		CROSS JOIN meta g
		LEFT JOIN users u ON u.realm = r.realm AND u.key = r.key
		LEFT JOIN standings s ON s.user_id = u.id
		LEFT JOIN tokens t ON t.owner_id = u.id AND t.state <> 'revoked'
		LEFT JOIN motions m ON m.token_id = t.id
		ORDER BY r.n, t.id`

	// A serial or a credential stands for the user who holds the token, or for the
	// token alone; a revoked one is nobody's. A serial goes before a credential, and
	// that before a key.
	loadMixed = loadHead + `, r.n, ` + loadColumns + `
		FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[]) WITH ORDINALITY AS r(realm, key, serial, credential, n)
		CROSS JOIN meta g
		LEFT JOIN LATERAL (
			SELECT k.id, CASE WHEN k.state = 'revoked' THEN NULL ELSE k.owner_id END AS holder
			FROM tokens k JOIN batches b ON b.id = k.batch AND b.state = 'published'
			WHERE r.serial <> '' AND k.realm = r.realm AND k.serial = r.serial
			UNION ALL
			SELECT k.id, CASE WHEN k.state = 'revoked' THEN NULL ELSE k.owner_id END
			FROM tokens k JOIN batches b ON b.id = k.batch AND b.state = 'published'
			WHERE r.serial = '' AND r.credential IS NOT NULL AND k.credential_key = r.credential AND k.realm = r.realm
		) k ON true
		LEFT JOIN LATERAL (
			SELECT id FROM users WHERE r.serial = '' AND r.credential IS NULL AND realm = r.realm AND key = r.key
			UNION ALL
			SELECT k.holder WHERE k.holder IS NOT NULL
		) w ON true
		LEFT JOIN users u ON u.id = w.id
		LEFT JOIN standings s ON s.user_id = u.id
		LEFT JOIN LATERAL (
			SELECT id FROM tokens WHERE owner_id = u.id AND state <> 'revoked'
			UNION ALL
			SELECT k.id WHERE u.id IS NULL AND k.id IS NOT NULL
		) x ON true
		LEFT JOIN tokens t ON t.id = x.id
		LEFT JOIN users o ON o.id = t.owner_id
		LEFT JOIN motions m ON m.token_id = t.id
		ORDER BY r.n, t.id`

	loadNone = loadHead + ` FROM meta g`
)

func (db *postgresDB) load(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	query := loadNone
	var columns arrays
	if len(refs) > 0 {
		query = loadNames
		realm := func(i int) any { return refs[i].Realm }
		user := func(i int) any { return refs[i].User }
		serial := func(i int) any { return refs[i].Serial }
		credential := func(i int) any { return nullBytes([]byte(refs[i].Credential)) }
		for i := range refs {
			if refs[i].Serial != "" || refs[i].Credential != "" {
				query = loadMixed
			}
			if !sound(refs[i].Realm, refs[i].User, refs[i].Serial) {
				return tokens.View{}, fmt.Errorf("%w: a name or serial to look for is not UTF-8, or holds a NUL", tokens.ErrInvalid)
			}
		}
		columns.of(len(refs), realm, user)
		if query == loadMixed {
			columns.of(len(refs), serial, credential)
		}
	}
	args := make([]driver.NamedValue, len(columns.values))
	for i, v := range columns.values {
		args[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	read := func(c *hotConn) (tokens.View, error) {
		era := db.known.now() // after a new connection has begun one
		rows, err := c.query(query, args)
		if err != nil {
			return tokens.View{}, err
		}
		view, err := readView(rows, len(refs))
		view.Read = era
		return view, err
	}
	view, err := onHot(ctx, db, read)
	if lost(err) && ctx.Err() == nil {
		// The connection may have been broken for long. Reading twice is no harm.
		view, err = onHot(ctx, db, read)
	}
	return view, err
}

func readView(rows driver.Rows, refs int) (view tokens.View, err error) {
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	subjects := newSubjects(refs)
	f := &fields{values: make([]driver.Value, len(rows.Columns()))}
	for {
		err := rows.Next(f.values)
		if err == io.EOF {
			return subjects.view, nil
		}
		if err != nil {
			return view, err
		}
		for i, v := range f.values {
			if b, ok := v.([]byte); ok {
				f.values[i] = append([]byte(nil), b...) // the driver's own, until the next row
			}
		}
		f.next = 0
		subjects.view.Generation = f.int()
		subjects.view.Clock = time.UnixMicro(f.int()).UTC()
		if refs > 0 {
			n := f.int()
			subjects.add(int(n)-1, f)
		}
		if f.err != nil {
			return view, f.err
		}
	}
}
