package store

import (
	"fmt"

	"watchword/tokens"
)

// checkGrants looks at the roles to give and to take by themselves.
func (p *plan) checkGrants() error {
	for i := range p.Grants {
		g := &p.Grants[i].Grant
		if g.Role == "" {
			return refused("user %d is to have a role without a name", g.UserID)
		}
		if err := text(g.Role, g.Realm, g.Actor); err != nil {
			return err
		}
	}
	return nil
}

// writeGrants gives and takes roles, in their order.
func (p *plan) writeGrants(s *session) error {
	for i := range p.Grants {
		g := &p.Grants[i].Grant
		if p.Grants[i].Delete {
			n, err := s.exec(`DELETE FROM role_grants WHERE user_id = ? AND role = ? AND realm = ?`, g.UserID, g.Role, g.Realm)
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("%w: user %d does not have the role %s there", tokens.ErrNotFound, g.UserID, g.Role)
			}
			continue
		}
		n, err := s.exec(`INSERT INTO role_grants (user_id, role, realm, mac, actor, created) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (user_id, role, realm) DO NOTHING`, g.UserID, g.Role, g.Realm, g.MAC[:], g.Actor, micros(g.Created))
		if orphan(err) {
			return refused("user %d, whom there is not, is to have a role", g.UserID)
		}
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%w: user %d has the role %s there", tokens.ErrExists, g.UserID, g.Role)
		}
	}
	return raise(s, len(p.Grants))
}

// grants reads all roles that people have.
func (s *session) grants() ([]tokens.Grant, error) {
	rows, err := s.query(`SELECT g.user_id, u.key, u.realm, g.role, g.realm, g.mac, g.actor, g.created
		FROM role_grants g JOIN users u ON u.id = g.user_id ORDER BY g.user_id, g.role, g.realm`)
	return list(rows, err, 8, func(f *fields) tokens.Grant {
		return tokens.Grant{
			UserID: f.int(), User: f.str(), Home: f.str(), Role: f.str(), Realm: f.str(),
			MAC: f.digest(), Actor: f.str(), Created: f.time(),
		}
	})
}
