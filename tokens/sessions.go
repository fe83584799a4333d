package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Me answers the session that a request is made by, with the roles that it lets act
// by. It writes nothing.
func (s *Service) Me(ctx context.Context, p Principal) (*SignedIn, error) {
	if p.Kind != KindAdmin {
		return nil, fmt.Errorf("%w: this is no session", ErrNotFound)
	}
	b, err := s.mine(ctx, p)
	if err != nil {
		return nil, err
	}
	v := b.Session
	v.MAC = [sha256.Size]byte{}
	return &SignedIn{Session: v, Roles: b.roles}, nil
}

// mine is the session of a principal, as it is now.
func (s *Service) mine(ctx context.Context, p Principal) (*bearer, error) {
	view, err := s.current(ctx, p, []Ref{p.self()})
	if err != nil {
		return nil, err
	}
	return s.stays(ctx, &p, view.Subjects[0])
}

// SignOut ends the session that a request is made by.
func (s *Service) SignOut(ctx context.Context, p Principal) error {
	if p.Kind != KindAdmin {
		return fmt.Errorf("%w: this is no session", ErrNotFound)
	}
	b, err := s.mine(ctx, p)
	if err != nil {
		return err
	}
	return s.end(ctx, p, b.Session, "")
}

// end writes that a session has ended, and by which policies: none where it is one's own.
func (s *Service) end(ctx context.Context, p Principal, v Session, by string) error {
	e := audit.Event{Realm: v.Home, User: v.User, Policy: by, Detail: []audit.Field{{Name: "session", Value: v.ID}}}
	v.Ended = s.cfg.Now().UTC()
	return s.write(ctx, p, policy.SessionEnd, e, v)
}

// Sessions lists those that are open, newest first, 1000 at most: of a user, if one is
// named, else of everybody whose home is the realm. A principal of one realm sees
// those of its users.
func (s *Service) Sessions(ctx context.Context, p Principal, realm, user string) ([]Session, error) {
	realm, err := p.listed(realm)
	if err != nil {
		return nil, err
	}
	if user != "" {
		if realm, user, err = p.names(realm, user); err != nil {
			return nil, err
		}
	}
	e := audit.Event{Realm: realm, User: user}
	if err := s.authorise(ctx, p, policy.SessionList, &e); err != nil {
		return nil, err
	}
	var id int64
	if user != "" {
		view, err := s.db.Load(ctx, []Ref{{Realm: realm, User: user}})
		if err != nil {
			return nil, unavailable(err)
		}
		if view.Subjects[0] == nil {
			return nil, s.refuse(ctx, p, policy.SessionList, e, noUser(realm, user))
		}
		id = view.Subjects[0].User.ID
	}
	list, err := s.db.OpenSessions(ctx, realm, id, s.cfg.Now(), 1000)
	if err != nil {
		return nil, unavailable(err)
	}
	for i := range list {
		list[i].MAC = [sha256.Size]byte{}
	}
	return list, s.record(ctx, p, policy.SessionList, e)
}

// EndSession ends somebody's session: what is shown of it opens nothing from then on,
// on any node.
func (s *Service) EndSession(ctx context.Context, p Principal, id string) error {
	e := audit.Event{Realm: p.Realm}
	var found Session
	missing := fmt.Errorf("%w: no open session with this id", ErrNotFound)
	if b, err := hex.DecodeString(id); err == nil && len(b) == sessionIDSize { // and not a whole session, taken for an id
		e.Detail = []audit.Field{{Name: "session", Value: id}}
		v, err := s.db.Session(ctx, id)
		switch {
		case err == nil && (p.Realm == "" || p.Realm == v.Home):
			e.Realm, e.User = v.Home, v.User
			if v.Ended.IsZero() && s.cfg.Now().Before(v.Expires) {
				found, missing = v, nil
			}
		case err != nil && !errors.Is(err, ErrNotFound):
			return unavailable(err)
		}
	}
	if err := s.authorise(ctx, p, policy.SessionEnd, &e); err != nil {
		return err
	}
	if missing != nil {
		return s.refuse(ctx, p, policy.SessionEnd, e, missing)
	}
	return s.end(ctx, p, found, e.Policy)
}

// Checked is what an application is told of a session that was shown to it.
type Checked struct {
	Active        bool // nothing else is set if not
	User, Realm   string
	Serial        string    // of the token
	Methods       []string  // authentication methods (RFC 8176, section 2)
	Authenticated time.Time // when the token last proved its holder
	Expires       time.Time
}

// CheckSession says, for an application, whose session was shown to it, if that was
// opened through a key, by a user of the principal's realm, and is good now. Why not
// is nobody told. Sessions that let act here are not shown to applications, and are
// none for them.
func (s *Service) CheckSession(ctx context.Context, p Principal, text string) (Checked, error) {
	e := audit.Event{Realm: p.Realm}
	if err := s.authorise(ctx, p, policy.SessionCheck, &e); err != nil {
		return Checked{}, err
	}
	b, err := s.checked(ctx, p, text)
	switch {
	case err == nil:
		e.Realm, e.User, e.Serial = b.Home, b.User, b.Serial
		e.Detail = []audit.Field{{Name: "session", Value: b.ID}}
		return Checked{
			Active: true, User: b.User, Realm: b.Home, Serial: b.Serial, Methods: strings.Split(b.Method, ","),
			Authenticated: b.Authenticated, Expires: b.Expires,
		}, s.record(ctx, p, policy.SessionCheck, e)
	case !errors.Is(err, ErrUnknownKey):
		return Checked{}, err
	}
	e = s.event(p, policy.SessionCheck, e)
	e.Outcome, e.Reason = "refused", "unknown"
	if s.crowd.admit(&e, e.Time) {
		if err := s.ledger.commit(ctx, &Change{}, []audit.Event{e}); err != nil {
			return Checked{}, err
		}
	}
	return Checked{}, nil
}

func (s *Service) checked(ctx context.Context, p Principal, text string) (*bearer, error) {
	id, _, _ := strings.Cut(strings.TrimPrefix(text, sessionPrefix), "_")
	if b, err := hex.DecodeString(id); !strings.HasPrefix(text, sessionPrefix) || err != nil || len(b) != sessionIDSize || len(text) > 256 {
		return nil, errSession
	}
	v, err := s.session(ctx, id, sha256.Sum256([]byte(text)))
	if err != nil {
		return nil, err
	}
	if !v.plain() || p.Realm != "" && p.Realm != v.Home {
		return nil, errSession
	}
	view, err := s.db.Load(ctx, []Ref{{Realm: v.Home, User: v.User}})
	if err != nil {
		return nil, unavailable(err)
	}
	return s.holder(ctx, &v, view.Subjects[0])
}

// dropSessions forgets the sessions that expired long ago. Not while our clock is not
// to be trusted.
func (s *Service) dropSessions(ctx context.Context, now time.Time) error {
	if s.skewed.Load() {
		return nil
	}
	_, err := s.db.DropSessions(ctx, now.Add(-sessionsKept))
	return err
}
