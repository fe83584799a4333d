package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"watchword/tokens"
)

// invitationsKept is how long an invitation is kept after it expired.
const invitationsKept = 30 // days

// expireChunk is how many rows one transaction of Expire removes.
const expireChunk = 5000

// checkCabinet looks by themselves at the writes of what is neither a user nor a
// token.
func (p *plan) checkCabinet() error {
	for i, w := range p.Documents {
		switch {
		case w.Name == "" || w.Expect < 0:
			return refused("document %q has no name, or a version below zero", w.Name)
		case w.Data == nil && w.Expect == 0:
			return refused("document %q is deleted where there is none", w.Name)
		case slices.ContainsFunc(p.Documents[:i], func(o tokens.DocumentWrite) bool { return o.Name == w.Name }):
			return refused("document %q is written twice", w.Name)
		}
		if err := text(w.Name); err != nil {
			return err
		}
	}
	for i, w := range p.Groups {
		switch {
		case !p.moves(w.UserID):
			return refused("the groups of user %d change without a standing", w.UserID)
		case slices.ContainsFunc(p.Groups[:i], func(o tokens.GroupsWrite) bool { return o.UserID == w.UserID }):
			return refused("the groups of user %d are written twice", w.UserID)
		}
		if err := checkGroups(w.Groups); err != nil {
			return err
		}
	}
	for i := range p.Invites {
		if err := checkInvite(&p.Invites[i], p.Invites[:i]); err != nil {
			return err
		}
	}
	return nil
}

func checkInvite(w *tokens.InvitationWrite, before []tokens.InvitationWrite) error {
	v := &w.Invitation
	switch {
	case v.ID == "":
		return refused("an invitation has no ID")
	case slices.ContainsFunc(before, func(o tokens.InvitationWrite) bool { return o.Invitation.ID == v.ID }):
		return refused("invitation %q is written twice", v.ID)
	case w.Use && w.Delete:
		return refused("invitation %q is used and deleted", v.ID)
	case w.Use && v.Used.IsZero():
		return refused("invitation %q is used at no time", v.ID)
	}
	if err := text(v.ID, v.Serial); err != nil {
		return err
	}
	if w.Use || w.Delete {
		return nil
	}
	if !v.Used.IsZero() || v.Serial != "" || v.Expires.IsZero() {
		return refused("new invitation %q was used, or never expires", v.ID)
	}
	for _, kind := range v.Kinds {
		if kind == "" || strings.Contains(kind, ",") {
			return refused("invitation %q is to something that is no kind of token", v.ID)
		}
	}
	return text(append([]string{v.Realm, v.User, v.Actor}, v.Kinds...)...)
}

func (p *plan) writeDocuments(s *session) error {
	for i := range p.Documents {
		w := &p.Documents[i]
		var (
			n   int64
			err error
		)
		switch {
		case w.Data == nil:
			n, err = s.exec(`DELETE FROM documents WHERE name = ? AND version = ?`, w.Name, w.Expect)
		case w.Expect == 0:
			n, err = s.exec(`INSERT INTO documents (name, version, updated, data) VALUES (?, 1, ?, ?)
				ON CONFLICT (name) DO NOTHING`, w.Name, micros(w.Updated), w.Data)
		default:
			n, err = s.exec(`UPDATE documents SET version = version + 1, updated = ?, data = ? WHERE name = ? AND version = ?`,
				micros(w.Updated), w.Data, w.Name, w.Expect)
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("document %q: %w", w.Name, &tokens.ConflictError{})
		}
	}
	return raise(s, len(p.Documents))
}

func checkGroups(groups []string) error {
	for i, g := range groups {
		if g == "" || i > 0 && g <= groups[i-1] {
			return refused("the groups of a user are not sorted, each once")
		}
	}
	return text(groups...)
}

func (p *plan) writeGroups(s *session) error {
	for i := range p.Groups {
		w := &p.Groups[i]
		if _, err := s.exec(`DELETE FROM memberships WHERE user_id = ?`, w.UserID); err != nil {
			return err
		}
		if err := join(s, w.UserID, w.Groups); err != nil {
			return err
		}
	}
	return nil
}

// join has a user who belongs to no group belong to some.
func join(s *session, user int64, groups []string) error {
	for _, g := range groups {
		if _, err := s.exec(`INSERT INTO memberships (user_id, group_name) VALUES (?, ?)`, user, g); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) writeInvites(s *session) error {
	for i := range p.Invites {
		w := &p.Invites[i]
		v := &w.Invitation
		switch {
		case w.Use:
			n, err := s.exec(`UPDATE invitations SET used = ?, serial = ? WHERE id = ? AND used = 0`, micros(v.Used), v.Serial, v.ID)
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%w: invitation %q", tokens.ErrSpent, v.ID)
			}
		case w.Delete:
			n, err := s.exec(`DELETE FROM invitations WHERE id = ?`, v.ID)
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%w: invitation %q", tokens.ErrNotFound, v.ID)
			}
		default:
			n, err := s.exec(`INSERT INTO invitations (id, realm, user_id, user_key, kinds, mac, actor, created, expires)
				VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`, v.ID, v.Realm, v.UserID, v.User,
				strings.Join(v.Kinds, ","), v.MAC[:], v.Actor, micros(v.Created), micros(v.Expires))
			if orphan(err) {
				return refused("invitation %q is for user %d, whom there is not", v.ID, v.UserID)
			}
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%w: there is an invitation %q", tokens.ErrExists, v.ID)
			}
		}
	}
	return nil
}

// Document implements tokens.Cabinet.
func (db *DB) Document(ctx context.Context, name string) (tokens.Document, error) {
	d := tokens.Document{Name: name}
	none := fmt.Errorf("%w: document %q", tokens.ErrNotFound, name)
	if !sound(name) {
		return tokens.Document{}, none
	}
	err := db.read(ctx, "reading a document", func(s *session) error {
		var updated int64
		err := s.one(`SELECT version, updated, data FROM documents WHERE name = ?`, []any{name}, &d.Version, &updated, &d.Data)
		if errors.Is(err, sql.ErrNoRows) {
			return none
		}
		d.Updated = fromMicros(updated)
		return err
	})
	if err != nil {
		return tokens.Document{}, err
	}
	if d.Data == nil {
		d.Data = []byte{} // nil would delete it when it is written back
	}
	return d, nil
}

const (
	invitationColumns = `id, realm, user_id, user_key, kinds, mac, actor, created, expires, used, serial`
	invitationWidth   = 11
)

func (f *fields) invitation() tokens.Invitation {
	v := tokens.Invitation{ID: f.str(), Realm: f.str(), UserID: f.int(), User: f.str()}
	if kinds := f.str(); kinds != "" {
		v.Kinds = strings.Split(kinds, ",")
	}
	v.MAC, v.Actor, v.Created, v.Expires, v.Used, v.Serial = f.digest(), f.str(), f.time(), f.time(), f.time(), f.str()
	return v
}

// Invitation implements tokens.Cabinet.
func (db *DB) Invitation(ctx context.Context, id string) (tokens.Invitation, error) {
	var found []tokens.Invitation
	if sound(id) {
		err := db.read(ctx, "reading an invitation", func(s *session) error {
			rows, err := s.query(`SELECT `+invitationColumns+` FROM invitations WHERE id = ?`, id)
			found, err = list(rows, err, invitationWidth, (*fields).invitation)
			return err
		})
		if err != nil {
			return tokens.Invitation{}, err
		}
	}
	if len(found) == 0 {
		return tokens.Invitation{}, fmt.Errorf("%w: invitation", tokens.ErrNotFound)
	}
	return found[0], nil
}

// Invitations implements tokens.Cabinet.
func (db *DB) Invitations(ctx context.Context, realm, user string, limit int) ([]tokens.Invitation, error) {
	if !sound(realm, user) {
		return nil, nil
	}
	var found []tokens.Invitation
	err := db.read(ctx, "listing invitations", func(s *session) error {
		var f filter
		f.where("realm = ?", realm)
		f.equal("user_key", user)
		rows, err := s.query(`SELECT `+invitationColumns+` FROM invitations`+f.String()+`
			ORDER BY created DESC, id DESC LIMIT ?`, append(f.args, limited(limit))...)
		found, err = list(rows, err, invitationWidth, (*fields).invitation)
		return err
	})
	return found, err
}

// Groups implements tokens.Cabinet.
func (db *DB) Groups(ctx context.Context, userID int64) ([]string, error) {
	var groups []string
	err := db.read(ctx, "reading a user's groups", func(s *session) error {
		rows, err := s.query(`SELECT group_name FROM memberships WHERE user_id = ? ORDER BY group_name`, userID)
		groups, err = list(rows, err, 1, (*fields).str)
		return err
	})
	return groups, err
}

// Expire implements tokens.Cabinet.
func (db *DB) Expire(ctx context.Context, before time.Time) (int, error) {
	total := 0
	for _, t := range []struct {
		table, key string
		before     time.Time
	}{
		{"spent", "hash", before},
		{"invitations", "id", before.AddDate(0, 0, -invitationsKept)},
	} {
		n, err := db.drop(ctx, t.table, t.key, t.before)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// drop removes from a table what expired before, some rows at a time.
func (db *DB) drop(ctx context.Context, table, key string, before time.Time) (total int, err error) {
	for {
		var n int64
		err := again(ctx, func() error {
			return db.engine.write(ctx, true, func(s *session) (err error) {
				lock := ""
				if s.dollar { // another node does the same
					lock = " FOR UPDATE SKIP LOCKED"
				}
				n, err = s.exec(`DELETE FROM `+table+` WHERE `+key+` IN (SELECT `+key+` FROM `+table+`
					WHERE expires < ? ORDER BY expires LIMIT ?`+lock+`)`, micros(before), int64(expireChunk))
				return err
			})
		})
		total += int(n)
		if err != nil {
			return total, failed("forgetting what expired", err)
		}
		if n < expireChunk {
			return total, nil
		}
	}
}
