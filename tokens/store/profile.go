package store

import (
	"encoding/json"
	"fmt"
	"slices"

	"watchword/tokens"
)

// checkProfiles looks at the profiles to write by themselves.
func (p *plan) checkProfiles() error {
	for i := range p.Profiles {
		w := &p.Profiles[i]
		switch {
		case !p.moves(w.UserID):
			return refused("the profile of user %d changes without a standing", w.UserID)
		case slices.ContainsFunc(p.Profiles[:i], func(o tokens.ProfileWrite) bool { return o.UserID == w.UserID }):
			return refused("the profile of user %d is written twice", w.UserID)
		}
		if err := checkProfile(&w.Profile); err != nil {
			return err
		}
	}
	return nil
}

func checkProfile(p *tokens.Profile) error {
	for name, value := range p.Attributes {
		if err := text(name, value); err != nil {
			return err
		}
	}
	return text(p.Display, p.Mail, p.External)
}

// writeProfiles replaces profiles. External ids are given up first, so that users
// can exchange theirs in one change.
func (p *plan) writeProfiles(s *session) error {
	if len(p.Profiles) > 1 {
		for i := range p.Profiles {
			w := &p.Profiles[i]
			if _, err := s.exec(`UPDATE users SET external = '' WHERE id = ? AND external <> '' AND external <> ?`,
				w.UserID, w.Profile.External); err != nil {
				return err
			}
		}
	}
	for i := range p.Profiles {
		w := &p.Profiles[i]
		_, err := s.exec(`UPDATE users SET display = ?, mail = ?, external = ?, attributes = ? WHERE id = ?`,
			w.Profile.Display, w.Profile.Mail, w.Profile.External, encodeAttributes(w.Profile.Attributes), w.UserID)
		if takenExternal(err) {
			return externalTaken(&w.Profile)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// externalTaken says that another user of the realm has the external id.
func externalTaken(p *tokens.Profile) error {
	return fmt.Errorf("%w: another user of the realm has the external id %q", tokens.ErrExists, p.External)
}

// encodeAttributes writes a JSON object, its names in order.
func encodeAttributes(attributes map[string]string) string {
	if len(attributes) == 0 {
		return ""
	}
	b, err := json.Marshal(attributes)
	if err != nil {
		panic("store: " + err.Error()) // texts always encode
	}
	return string(b)
}

// profileColumns are what profile reads of the user u.
const (
	profileColumns = `u.display, u.mail, u.external, u.attributes`
	profileWidth   = 4
)

func (f *fields) profile() tokens.Profile {
	p := tokens.Profile{Display: f.str(), Mail: f.str(), External: f.str()}
	if s := f.str(); s != "" {
		if err := json.Unmarshal([]byte(s), &p.Attributes); err != nil && f.err == nil {
			f.err = fmt.Errorf("a user's attributes are not a readable JSON object of texts")
		}
	}
	return p
}
