package tokens

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Profile says who a user is, for people and for other systems. Nothing is decided
// by it.
type Profile struct {
	Display    string            // full name; may be empty
	Mail       string            // address; may be empty
	External   string            // id in another directory; unique in the realm, unless it is empty
	Attributes map[string]string // whatever else is to be kept; names are ASCII
}

// ProfileWrite replaces a user's profile. It goes with the user's StandingWrite.
type ProfileWrite struct {
	UserID  int64
	Profile Profile
}

// NoteWrite changes what the helpdesk notes on a token. It needs no version: what
// two people note at once is kept of both, but for the text itself, of which the
// later one stays. Undoing an import leaves a token that was noted on.
type NoteWrite struct {
	TokenID int64
	Note    *string  // nil: leave it
	Add     []string // tags, without commas; one that the token has already does no harm
	Drop    []string // tags, none of Add; nor does one that it has not
	Most    int      // tags that the token may have then, if any are added: else the write is a conflict; zero: any number
}

// The bounds of a profile. All but maxAttributes are in bytes.
const (
	maxDisplay    = 255
	maxMail       = 254 // RFC 5321, section 4.5.3.1.3, less the angle brackets
	maxExternal   = 255
	maxAttributes = 32
	maxAttribute  = 64 // the name
	maxValue      = 1024
)

// clean is the profile without attributes that are empty: to have none and to have
// one that says nothing is the same. It shares nothing with p.
func (p Profile) clean() Profile {
	p.Attributes = maps.Clone(p.Attributes)
	maps.DeleteFunc(p.Attributes, func(_, value string) bool { return value == "" })
	if len(p.Attributes) == 0 {
		p.Attributes = nil
	}
	return p
}

// check says what is wrong with a profile, or nil.
func (p *Profile) check() error {
	if err := profileText("display", p.Display, maxDisplay); err != nil {
		return err
	}
	if err := checkMail(p.Mail); err != nil {
		return err
	}
	if err := profileText("external_id", p.External, maxExternal); err != nil {
		return err
	}
	if n := len(p.Attributes); n > maxAttributes {
		return fmt.Errorf("%w: %d attributes; a user has %d at most", ErrInvalid, n, maxAttributes)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Attributes)) {
		if err := checkAttribute(name, p.Attributes[name]); err != nil {
			return err
		}
	}
	return nil
}

// profileText refuses what is no text of up to most bytes.
func profileText(name, value string, most int) error {
	switch {
	case len(value) > most:
		return fmt.Errorf("%w: %s is longer than %d bytes", ErrInvalid, name, most)
	case !utf8.ValidString(value):
		return fmt.Errorf("%w: %s is not valid UTF-8", ErrInvalid, name)
	case strings.ContainsFunc(value, unicode.IsControl):
		return fmt.Errorf("%w: %s holds a control character", ErrInvalid, name)
	}
	return nil
}

func checkMail(mail string) error {
	if mail == "" {
		return nil
	}
	if err := profileText("mail", mail, maxMail); err != nil {
		return err
	}
	local, domain, _ := strings.Cut(mail, "@")
	if local == "" || domain == "" || strings.Contains(domain, "@") || strings.ContainsFunc(mail, unicode.IsSpace) {
		return fmt.Errorf("%w: mail is no address: it has one @, something on both sides, and no space", ErrInvalid)
	}
	return nil
}

func checkAttribute(name, value string) error {
	if err := checkAttributeName(name); err != nil {
		return err
	}
	return profileText("attribute "+name, value, maxValue)
}

func checkAttributeName(name string) error {
	if name == "" || len(name) > maxAttribute || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	}) {
		return fmt.Errorf("%w: the name of an attribute has 1 to %d letters of A-Z, digits, dots, underscores and hyphens", ErrInvalid, maxAttribute)
	}
	return nil
}

// differs names what is other in two profiles, for the audit, which is for ever: it
// is not told what it says.
func (p *Profile) differs(next *Profile) []string {
	var list []string
	for _, f := range []struct{ name, was, is string }{
		{"display", p.Display, next.Display}, {"mail", p.Mail, next.Mail}, {"external_id", p.External, next.External},
	} {
		if f.was != f.is {
			list = append(list, f.name)
		}
	}
	names := maps.Clone(p.Attributes)
	if names == nil {
		names = map[string]string{}
	}
	maps.Copy(names, next.Attributes)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if p.Attributes[name] != next.Attributes[name] {
			list = append(list, "attr:"+name)
		}
	}
	return list
}

// ProfileEdit changes some of a profile.
type ProfileEdit struct {
	Display, Mail, External *string            // nil: leave it; empty: none
	Attributes              map[string]*string // those that are not named stay; nil, or an empty text: remove it
}

// apply is the profile after the edit.
func (e *ProfileEdit) apply(p Profile) Profile {
	for _, f := range []struct {
		to   *string
		from *string
	}{{&p.Display, e.Display}, {&p.Mail, e.Mail}, {&p.External, e.External}} {
		if f.from != nil {
			*f.to = *f.from
		}
	}
	attributes := maps.Clone(p.Attributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	for name, value := range e.Attributes {
		if value == nil {
			delete(attributes, name)
			continue
		}
		attributes[name] = *value
	}
	p.Attributes = attributes
	return p.clean()
}

// EditUser changes a user's profile. An external id that another user of the realm
// has is refused with ErrExists.
func (s *Service) EditUser(ctx context.Context, p Principal, realm, name string, e ProfileEdit) (UserEntry, error) {
	for attribute := range e.Attributes { // also of those that are removed: it may be a slip
		if err := checkAttributeName(attribute); err != nil {
			return UserEntry{}, err
		}
	}
	alone := e.apply(Profile{})
	if err := alone.check(); err != nil {
		return UserEntry{}, err
	}
	return s.changeUser(ctx, p, policy.UserEdit, realm, name, func(sub *Subject, c *Change, ev *audit.Event) error {
		// Read after the user was: if the profile changes meanwhile, so does the
		// user's version, and it is tried again.
		u := sub.entry()
		if err := s.describe(ctx, &u); err != nil {
			return err
		}
		next := e.apply(u.Profile)
		if err := next.check(); err != nil {
			return err
		}
		changed := u.Profile.differs(&next)
		if len(changed) == 0 {
			ev.Reason = string(ReasonUnchanged)
			return nil
		}
		ev.Detail = []audit.Field{{Name: "changed", Value: strings.Join(changed, ",")}}
		c.Profiles = []ProfileWrite{{UserID: sub.User.ID, Profile: next}}
		c.Standings = []StandingWrite{sub.touch()}
		return nil
	})
}

// describe fills in what only listings have.
func (s *Service) describe(ctx context.Context, u *UserEntry) error {
	list, _, err := s.db.Users(ctx, UserQuery{Realm: u.Realm, Key: u.Key, Limit: 1})
	if err != nil {
		return unavailable(err)
	}
	if len(list) > 0 && list[0].ID == u.ID {
		u.Profile, u.Groups = list[0].Profile, list[0].Groups
	}
	return nil
}

// described is describe for an act that is done, unless err says that it is not:
// where it cannot be read any more, the answer goes without.
func (s *Service) described(ctx context.Context, u *UserEntry, err error) {
	if err == nil {
		_ = s.describe(ctx, u)
	}
}
