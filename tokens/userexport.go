package tokens

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// ExportUsers calls f for each user of a realm, with profile and groups, in order
// of key, and stops at f's first error, which it returns. It reads in pages: who
// changes meanwhile is as before or after.
func (s *Service) ExportUsers(ctx context.Context, p Principal, realm string, f func(UserEntry) error) error {
	e, err := s.exports(ctx, p, realm)
	if err != nil {
		return err
	}
	n := 0
	err = s.eachUser(ctx, e.Realm, func(u *UserEntry) error {
		n++
		return f(*u)
	})
	return s.exported(ctx, p, e, n, err)
}

// ExportUsersCSV writes the users of a realm as ImportUsers reads them. What a
// spreadsheet might take for a formula begins with an apostrophe, which ImportUsers
// takes off. Nothing is written where it is refused.
func (s *Service) ExportUsersCSV(ctx context.Context, p Principal, realm string, w io.Writer) error {
	e, err := s.exports(ctx, p, realm)
	if err != nil {
		return err
	}
	n := 0
	err = s.exportCSV(ctx, e.Realm, w, &n)
	return s.exported(ctx, p, e, n, err)
}

func (s *Service) exportCSV(ctx context.Context, realm string, w io.Writer, n *int) error {
	names := map[string]bool{} // of attributes: which columns there are must be known first
	err := s.eachUser(ctx, realm, func(u *UserEntry) error {
		for name := range u.Profile.Attributes {
			names[name] = true
		}
		if most := maxUserColumns - 5; len(names) > most {
			return fmt.Errorf("%w: the users of the realm have more than %d different attributes, which are more columns than a file can have", ErrState, most)
		}
		return nil
	})
	if err != nil {
		return err
	}
	out, err := writeUsers(w, slices.Sorted(maps.Keys(names)))
	if err != nil {
		return err
	}
	err = s.eachUser(ctx, realm, func(u *UserEntry) error {
		*n++
		return out.write(u)
	})
	if err != nil {
		return err
	}
	return out.end()
}

// exports authorises an export, and answers what its record begins with.
func (s *Service) exports(ctx context.Context, p Principal, realm string) (audit.Event, error) {
	realm, err := p.realm(realm)
	if err != nil {
		return audit.Event{}, err
	}
	e := audit.Event{Realm: realm}
	return e, s.authorise(ctx, p, policy.UserExport, &e)
}

// exported audits an export, also one that was cut off.
func (s *Service) exported(ctx context.Context, p Principal, e audit.Event, n int, why error) error {
	e.Detail = []audit.Field{{Name: "users", Value: itoa(int64(n))}}
	if why != nil {
		e.Outcome, e.Reason = "refused", refusal(why)
	}
	if err := s.record(ctx, p, policy.UserExport, e); err != nil {
		return err
	}
	return why
}

// exportPage is how many users are read at once.
const exportPage = 1000

// eachUser calls f for each user of a realm.
func (s *Service) eachUser(ctx context.Context, realm string, f func(*UserEntry) error) error {
	for q := (UserQuery{Realm: realm, Limit: exportPage}); ; {
		page, next, err := s.db.Users(ctx, q)
		if err != nil {
			return unavailable(err)
		}
		for i := range page {
			if err := f(&page[i]); err != nil {
				return err
			}
		}
		if next == 0 {
			return nil
		}
		q.After = next
	}
}
