package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"watchword/tokens"
)

// checkSessions looks by themselves at the sessions of people to write.
func (p *plan) checkSessions() error {
	for i := range p.Sessions {
		w := &p.Sessions[i]
		v := &w.Session
		switch {
		case v.ID == "":
			return refused("a session has no ID")
		case slices.ContainsFunc(p.Sessions[:i], func(o tokens.SessionWrite) bool { return o.Session.ID == v.ID }):
			return refused("session %q is written twice", v.ID)
		case v.Expires.IsZero() || v.Authenticated.IsZero():
			return refused("session %q never expires, or nobody proved who it is", v.ID)
		case !w.Replace && (!v.Ended.IsZero() || v.Created.IsZero()):
			return refused("session %q ends before it begins", v.ID)
		}
		if err := text(v.ID, v.Home, v.User, v.Realm, v.Serial, v.Method, v.Bound, v.Through); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) writeSessions(s *session) error {
	for i := range p.Sessions {
		w := &p.Sessions[i]
		v := &w.Session
		if w.Replace {
			n, err := s.exec(`UPDATE sessions SET serial = ?, method = ?, mac = ?, authenticated = ?, expires = ?, ended = ?
				WHERE id = ? AND ended = 0`, v.Serial, v.Method, v.MAC[:], micros(v.Authenticated), micros(v.Expires),
				micros(v.Ended), v.ID)
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%w: session %q, or it has ended", tokens.ErrNotFound, v.ID)
			}
			continue
		}
		n, err := s.exec(`INSERT INTO sessions (id, user_id, home, user_key, realm, serial, method, bound, through, mac,
			created, authenticated, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			v.ID, v.UserID, v.Home, v.User, v.Realm, v.Serial, v.Method, v.Bound, v.Through, v.MAC[:],
			micros(v.Created), micros(v.Authenticated), micros(v.Expires))
		if orphan(err) {
			return refused("session %q is of user %d, whom there is not", v.ID, v.UserID)
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%w: there is a session %q", tokens.ErrExists, v.ID)
		}
	}
	return nil
}

const (
	signinColumns = `id, user_id, home, user_key, realm, serial, method, bound, through, mac, created, authenticated, expires, ended`
	signinWidth   = 14
)

func (f *fields) signin() tokens.Session {
	return tokens.Session{
		ID: f.str(), UserID: f.int(), Home: f.str(), User: f.str(), Realm: f.str(), Serial: f.str(), Method: f.str(),
		Bound: f.str(), Through: f.str(), MAC: f.digest(), Created: f.time(), Authenticated: f.time(), Expires: f.time(),
		Ended: f.time(),
	}
}

// Session implements tokens.Sessions.
func (db *DB) Session(ctx context.Context, id string) (tokens.Session, error) {
	var found []tokens.Session
	if sound(id) {
		err := db.read(ctx, "reading a session", func(s *session) error {
			rows, err := s.query(`SELECT `+signinColumns+` FROM sessions WHERE id = ?`, id)
			found, err = list(rows, err, signinWidth, (*fields).signin)
			return err
		})
		if err != nil {
			return tokens.Session{}, err
		}
	}
	if len(found) == 0 {
		return tokens.Session{}, fmt.Errorf("%w: session", tokens.ErrNotFound)
	}
	return found[0], nil
}

// OpenSessions implements tokens.Sessions. It looks at no more than have not expired:
// of one user by the user, else by when they do.
func (db *DB) OpenSessions(ctx context.Context, home string, userID int64, at time.Time, limit int) ([]tokens.Session, error) {
	if !sound(home) {
		return nil, nil
	}
	var found []tokens.Session
	err := db.read(ctx, "listing sessions", func(s *session) error {
		var f filter
		f.where("expires > ? AND ended = 0", micros(at))
		if userID != 0 {
			f.where("user_id = ?", userID)
		} else {
			f.equal("home", home)
		}
		rows, err := s.query(`SELECT `+signinColumns+` FROM sessions`+f.String()+` ORDER BY created DESC, id DESC LIMIT ?`,
			append(f.args, limited(limit))...)
		found, err = list(rows, err, signinWidth, (*fields).signin)
		return err
	})
	return found, err
}

// DropSessions implements tokens.Sessions.
func (db *DB) DropSessions(ctx context.Context, before time.Time) (int, error) {
	return db.drop(ctx, "sessions", "id", before)
}
