package tokens

import (
	"context"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// NewUserRequest is a user to make.
type NewUserRequest struct {
	Realm, Name string
	Profile     Profile
	Groups      []string // folded like names of users
}

// CreateUser makes a user without tokens. A name that exists, however written, or
// an external id that another user of the realm has, is refused with ErrExists.
func (s *Service) CreateUser(ctx context.Context, p Principal, r NewUserRequest) (UserEntry, error) {
	realm, err := p.realm(r.Realm)
	if err != nil {
		return UserEntry{}, err
	}
	w, err := newUser(realm, r)
	if err != nil {
		return UserEntry{}, err
	}
	w.User.Created = s.cfg.Now().UTC()
	e := audit.Event{Realm: realm, User: w.User.Key, Detail: w.detail()}
	if err := s.authorise(ctx, p, policy.UserAdd, &e); err != nil {
		return UserEntry{}, err
	}
	c := Change{NewUsers: []NewUser{w}}
	if err := s.ledger.commit(ctx, &c, []audit.Event{s.event(p, policy.UserAdd, e)}); err != nil {
		return UserEntry{}, s.refuse(ctx, p, policy.UserAdd, e, err)
	}
	return UserEntry{User: *w.User, Standing: Standing{Version: 1}, Groups: w.Groups}, nil
}

// AddUser is CreateUser without a profile and groups.
func (s *Service) AddUser(ctx context.Context, p Principal, realm, name string) (UserEntry, error) {
	return s.CreateUser(ctx, p, NewUserRequest{Realm: realm, Name: name})
}

// newUser checks and folds what a user is made of.
func newUser(realm string, r NewUserRequest) (NewUser, error) {
	key, err := FoldName(r.Name)
	if err != nil {
		return NewUser{}, err
	}
	profile := r.Profile.clean()
	if err := profile.check(); err != nil {
		return NewUser{}, err
	}
	groups, err := foldGroups(r.Groups)
	if err != nil {
		return NewUser{}, err
	}
	u := &User{Realm: realm, Name: norm.NFC.String(r.Name), Key: key, State: UserEnabled, Profile: profile}
	return NewUser{User: u, Groups: groups}, nil
}

// detail says for the audit with what a user is made.
func (w *NewUser) detail() []audit.Field {
	var list []audit.Field
	if set := w.User.Profile.differs(&Profile{}); len(set) > 0 {
		list = append(list, audit.Field{Name: "set", Value: strings.Join(set, ",")})
	}
	if len(w.Groups) > 0 {
		list = append(list, audit.Field{Name: "groups", Value: strings.Join(w.Groups, ",")})
	}
	return list
}

// ShowUser answers a user, with profile and groups, and the tokens the user holds.
func (s *Service) ShowUser(ctx context.Context, p Principal, realm, name string) (UserEntry, []Token, error) {
	realm, key, err := p.names(realm, name)
	if err != nil {
		return UserEntry{}, nil, err
	}
	e := audit.Event{Realm: realm, User: key}
	if err := s.authorise(ctx, p, policy.UserShow, &e); err != nil {
		return UserEntry{}, nil, err
	}
	view, err := s.db.Load(ctx, []Ref{{Realm: realm, User: key}})
	if err != nil {
		return UserEntry{}, nil, unavailable(err)
	}
	sub := view.Subjects[0]
	if sub == nil {
		return UserEntry{}, nil, s.refuse(ctx, p, policy.UserShow, e, noUser(realm, name))
	}
	u := sub.entry()
	if err := s.describe(ctx, &u); err != nil {
		return UserEntry{}, nil, err
	}
	if err := s.describeHeld(ctx, &u, sub.Tokens); err != nil {
		return UserEntry{}, nil, err
	}
	if err := s.record(ctx, p, policy.UserShow, e); err != nil {
		return UserEntry{}, nil, err
	}
	return u, sub.Tokens, nil
}

// describeHeld fills in what only listings have of the tokens that a user holds.
func (s *Service) describeHeld(ctx context.Context, u *UserEntry, held []Token) error {
	if len(held) == 0 {
		return nil
	}
	q := TokenQuery{Realm: u.Realm, Owner: u.Key, Limit: 1000}
	for {
		page, next, err := s.db.Tokens(ctx, q)
		if err != nil {
			return unavailable(err)
		}
		for _, listed := range page {
			for i := range held {
				if t := &held[i]; t.ID == listed.ID {
					t.Hint, t.Note, t.Tags, t.Assigned = listed.Hint, listed.Note, listed.Tags, listed.Assigned
				}
			}
		}
		if next == 0 {
			return nil
		}
		q.After = next
	}
}

// Users lists users. next is q.After of the next page, zero where there is none;
// a page may be short though there is another.
func (s *Service) Users(ctx context.Context, p Principal, q UserQuery) (page []UserEntry, next int64, err error) {
	realm, err := p.listed(q.Realm)
	if err != nil {
		return nil, 0, err
	}
	if q.Group != "" {
		if q.Group, err = FoldName(q.Group); err != nil {
			return nil, 0, err
		}
	}
	for _, check := range []func(...string) error{askable, searchable} {
		if err := check(q.Key, q.Q, q.External, q.Group); err != nil {
			return nil, 0, err
		}
	}
	q.Realm, q.Limit = realm, limit(q.Limit)
	e := audit.Event{Realm: realm}
	if err := s.authorise(ctx, p, policy.UserList, &e); err != nil {
		return nil, 0, err
	}
	page, next, err = s.db.Users(ctx, q)
	if err != nil {
		return nil, 0, unavailable(err)
	}
	return page, next, s.record(ctx, p, policy.UserList, e)
}

// SetUserState enables or disables a user. A disabled one is rejected whatever
// is typed.
func (s *Service) SetUserState(ctx context.Context, p Principal, realm, name string, state UserState) (UserEntry, error) {
	action := policy.UserEnable
	if state == UserDisabled {
		action = policy.UserDisable
	}
	return s.changeUser(ctx, p, action, realm, name, func(sub *Subject, c *Change, e *audit.Event) error {
		if sub.User.State == state {
			e.Reason = string(ReasonUnchanged)
			return nil
		}
		next := *sub.User // a database may remember what it has loaded
		next.State = state
		sub.User = &next
		c.Users = []User{next}
		c.Standings = []StandingWrite{sub.touch()}
		return nil
	})
}

// UnlockUser forgets a user's failures, and unlocks.
func (s *Service) UnlockUser(ctx context.Context, p Principal, realm, name string) (UserEntry, error) {
	return s.changeUser(ctx, p, policy.UserUnlock, realm, name, unlock)
}

func unlock(sub *Subject, c *Change, e *audit.Event) error {
	if !sub.Locked && sub.Failures == 0 && len(sub.Throttle) == 0 {
		e.Reason = string(ReasonUnchanged)
		return nil
	}
	w := sub.touch()
	w.Next = w.Next.clear()
	sub.Standing = w.Next
	sub.Version = w.Expect
	c.Standings = []StandingWrite{w}
	return nil
}

// UnlockOwner does the same for whoever holds a token.
func (s *Service) UnlockOwner(ctx context.Context, p Principal, realm, serial string) (UserEntry, error) {
	realm, err := p.token(realm, serial)
	if err != nil {
		return UserEntry{}, err
	}
	var out UserEntry
	err = s.change(ctx, p, policy.UserUnlock, audit.Event{Realm: realm, Serial: serial}, []Ref{{Realm: realm, Serial: serial}},
		func(found []*Subject, c *Change, e *audit.Event) error {
			sub, _, err := tokenOf(found[0], serial)
			if err != nil {
				return saying(sayWhich, err)
			}
			if sub.User == nil {
				return saying(sayOther, fmt.Errorf("%w: token %s belongs to nobody", ErrState, serial))
			}
			e.User = sub.User.Key
			err = unlock(sub, c, e)
			out = sub.entry()
			return err
		})
	s.described(ctx, &out, err)
	return out, err
}

// changeUser runs a use case on one user and answers the user as it then is.
func (s *Service) changeUser(ctx context.Context, p Principal, action policy.Action, realm, name string,
	decide func(sub *Subject, c *Change, e *audit.Event) error,
) (UserEntry, error) {
	realm, key, err := p.names(realm, name)
	if err != nil {
		return UserEntry{}, err
	}
	var out UserEntry
	err = s.change(ctx, p, action, audit.Event{Realm: realm, User: key}, []Ref{{Realm: realm, User: key}},
		func(found []*Subject, c *Change, e *audit.Event) error {
			if found[0] == nil {
				return noUser(realm, name)
			}
			if err := decide(found[0], c, e); err != nil {
				return err
			}
			out = found[0].entry()
			return nil
		})
	s.described(ctx, &out, err)
	return out, err
}

func noUser(realm, name string) error {
	return fmt.Errorf("%w: no user %q in realm %s", ErrNotFound, name, realm)
}

func (s *Subject) entry() UserEntry {
	return UserEntry{User: *s.User, Standing: s.Standing, Tokens: len(s.Tokens)}
}

// names folds a realm and a user name for a principal.
func (p Principal) names(realm, name string) (string, string, error) {
	realm, err := p.realm(realm)
	if err != nil {
		return "", "", err
	}
	key, err := FoldName(name)
	return realm, key, err
}

// listed is the realm that a listing is limited to: the one asked for, else
// the principal's own, else all of them (empty).
func (p Principal) listed(asked string) (string, error) {
	if asked == "" {
		return p.Realm, nil
	}
	return FoldName(asked)
}

// askable refuses what no database row can hold, and a database might take for
// an error.
func askable(values ...string) error {
	for _, v := range values {
		if !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl) || len(v) > 255 {
			return fmt.Errorf("%w: a search for what is not text, or is longer than 255 bytes", ErrInvalid)
		}
	}
	return nil
}

// searchable refuses texts to search for that no database holds.
func searchable(texts ...string) error {
	for _, text := range texts {
		if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
			return fmt.Errorf("%w: a text to search for is not valid UTF-8, or holds a NUL", ErrInvalid)
		}
	}
	return nil
}

// limit brings the length of a page into its bounds.
func limit(n int) int {
	if n <= 0 {
		return 100
	}
	return min(n, 1000)
}
