package store

import (
	"database/sql"

	"watchword/tokens"
)

const stageToken = `INSERT INTO tokens (` + stageColumns + `)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
	ON CONFLICT (realm, serial) DO NOTHING`

func stageSQLite(s *session, batch int64, list []tokens.Token) ([]bool, error) {
	created := make([]bool, len(list))
	err := s.conn.(*sql.Conn).Raw(func(dc any) error {
		c := &sqliteConn{conn: dc.(sqliteDriver)}
		for i := range list {
			t := &list[i]
			var err error
			created[i], err = c.changed(stageToken, batch, t.Realm, t.Serial, string(t.Type), int64(t.Algorithm),
				int64(t.Digits), int64(t.Period), string(t.State), t.Model, micros(t.Created), t.Wrapped.Mechanism,
				int64(t.Wrapped.KEK), int64(t.Wrapped.Hash), int64(t.Wrapped.SeedLen), nullBytes(t.Wrapped.Blob),
				nullBytes(t.Binding), t.Last, int64(t.Drift), t.Hint, nullText(t.PublicID), nullBytes(t.PrivateMAC), micros(t.Expires))
			if err != nil {
				return err
			}
		}
		return nil
	})
	return created, err
}

func presentSQLite(s *session, realm string, serials []string) ([]tokens.Presence, error) {
	present := make([]tokens.Presence, len(serials))
	for i, serial := range serials {
		switch err := s.one(`SELECT `+stagedIn+` FROM tokens t WHERE t.realm = ? AND t.serial = ?`, []any{realm, serial}, &present[i].Staging); err {
		case nil:
			present[i].There = true
		case sql.ErrNoRows:
		default:
			return nil, err
		}
	}
	return present, nil
}
