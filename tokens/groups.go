package tokens

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// maxGroups is how many groups a user may belong to.
const maxGroups = 64

// foldGroups folds the names of groups, and sorts them, each once.
func foldGroups(groups []string) ([]string, error) {
	if len(groups) > maxGroups {
		return nil, fmt.Errorf("%w: %d groups; a user belongs to %d at most", ErrInvalid, len(groups), maxGroups)
	}
	folded := make([]string, len(groups))
	for i, g := range groups {
		var err error
		if folded[i], err = FoldName(g); err != nil {
			return nil, fmt.Errorf("group %d: %w", i+1, err)
		}
	}
	slices.Sort(folded)
	return slices.Compact(folded), nil
}

// SetGroups replaces the groups that a user belongs to, by which the FIDO rules
// say what the user may enrol. Names are folded like those of users.
func (s *Service) SetGroups(ctx context.Context, p Principal, realm, user string, groups []string) ([]string, error) {
	realm, key, err := p.names(realm, user)
	if err != nil {
		return nil, err
	}
	next, err := foldGroups(groups)
	if err != nil {
		return nil, err
	}
	e := audit.Event{Realm: realm, User: key}
	err = s.change(ctx, p, policy.UserGroups, e, []Ref{{Realm: realm, User: key}},
		func(found []*Subject, c *Change, e *audit.Event) error {
			if found[0] == nil {
				return noUser(realm, user)
			}
			was, err := s.db.Groups(ctx, found[0].User.ID)
			if err != nil {
				return unavailable(err)
			}
			if slices.Equal(was, next) {
				e.Reason = string(ReasonUnchanged)
				return nil
			}
			e.Detail = []audit.Field{{Name: "from", Value: strings.Join(was, ",")}, {Name: "to", Value: strings.Join(next, ",")}}
			c.Groups = []GroupsWrite{{UserID: found[0].User.ID, Groups: next}}
			c.Standings = []StandingWrite{found[0].touch()}
			return nil
		})
	if err != nil {
		return nil, err
	}
	return next, nil
}

// UserGroups answers the groups that a user belongs to, sorted.
func (s *Service) UserGroups(ctx context.Context, p Principal, realm, user string) ([]string, error) {
	realm, key, err := p.names(realm, user)
	if err != nil {
		return nil, err
	}
	e := audit.Event{Realm: realm, User: key}
	if err := s.authorise(ctx, p, policy.UserShow, &e); err != nil {
		return nil, err
	}
	view, err := s.db.Load(ctx, []Ref{{Realm: realm, User: key}})
	if err != nil {
		return nil, unavailable(err)
	}
	if view.Subjects[0] == nil {
		return nil, s.refuse(ctx, p, policy.UserShow, e, noUser(realm, user))
	}
	groups, err := s.db.Groups(ctx, view.Subjects[0].User.ID)
	if err != nil {
		return nil, unavailable(err)
	}
	return groups, s.record(ctx, p, policy.UserShow, e)
}
