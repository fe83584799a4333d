package tokens

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// SessionRules say how long sessions last, and from where they are good.
type SessionRules struct {
	Unbound   bool          // good from any address, rather than the one where it began
	LifeAdmin time.Duration // of who has a role, if nothing else is asked for; zero: 8 h
	LifeUser  time.Duration // of others, likewise; zero: 1 h
}

// How long a session lasts, whoever asks.
const (
	ShortestSession = 15 * time.Minute
	LongestSession  = 36 * time.Hour
)

// Valid says whether the rules can be.
func (r SessionRules) Valid() error {
	for _, life := range []time.Duration{r.LifeAdmin, r.LifeUser} {
		if err := validLife(life); life != 0 && err != nil {
			return err
		}
	}
	return nil
}

func (r SessionRules) withDefaults() SessionRules {
	if r.LifeAdmin == 0 {
		r.LifeAdmin = 8 * time.Hour
	}
	if r.LifeUser == 0 {
		r.LifeUser = time.Hour
	}
	return r
}

func validLife(life time.Duration) error {
	if life < ShortestSession || life > LongestSession {
		return fmt.Errorf("%w: a session of %s; %s to %s are possible", ErrInvalid, life, ShortestSession, LongestSession)
	}
	return nil
}

const (
	// sessionPrefix begins every session's text, so that scanners for leaked secrets
	// know one.
	sessionPrefix = "wsn_"
	sessionIDSize = 8 // bytes; it is written in hex

	// sessionsKept is how long a session is kept after it expired.
	sessionsKept = 30 * 24 * time.Hour
)

// newSessionText makes what a new session is shown as: wsn_ID_SECRET.
func (s *Service) newSessionText() (id, text string, err error) {
	random := make([]byte, sessionIDSize+32)
	defer clear(random)
	if _, err := io.ReadFull(s.cfg.Rand, random); err != nil {
		return "", "", fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	id = hex.EncodeToString(random[:sessionIDSize])
	return id, sessionPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(random[sessionIDSize:]), nil
}

// sessionMessage is what a session's MAC is over: the SHA-256 of its text, and all but
// whether it has ended.
func sessionMessage(v *Session, sum [sha256.Size]byte) []byte {
	return fmt.Appendf(nil, "watchword-session-1\x00%q %d %q %q %q %q %q %q %q %d %d %d %x",
		v.ID, v.UserID, v.Home, v.User, v.Realm, v.Serial, v.Method, v.Bound, v.Through,
		v.Created.UnixMicro(), v.Authenticated.UnixMicro(), v.Expires.UnixMicro(), sum)
}

func (s *Service) sealSession(ctx context.Context, v *Session, sum [sha256.Size]byte) error {
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, sessionMessage(v, sum))
	if err != nil {
		return translate(err)
	}
	copy(v.MAC[:], macs[0])
	return nil
}

// plain says whether the session is an application's: of a user of its, and good for
// nothing here but to be looked at.
func (v *Session) plain() bool { return v.Through != "" }

// errSession is the same whatever is wrong with a session.
var errSession = fmt.Errorf("%w: no such session, or it has ended", ErrUnknownKey)

// ReasonOtherAddress is why a key or a session that was shown from elsewhere than it
// is good from was refused.
const ReasonOtherAddress Reason = "other_address"

// session reads a session anew, and says whether the text with this sum is good for
// it now and, but for checking it, from this address. What has nothing to do with
// where it is shown costs the same whatever is wrong.
func (s *Service) session(ctx context.Context, id string, sum [sha256.Size]byte) (Session, error) {
	v, err := s.db.Session(ctx, id)
	if errors.Is(err, ErrNotFound) {
		v = Session{ID: id, Home: DefaultRealm, User: "nobody", Ended: s.started} // held against one that cannot be
	} else if err != nil {
		return Session{}, unavailable(err)
	}
	right, err := s.genuine(ctx, sessionMessage(&v, sum), v.MAC[:])
	switch {
	case err != nil:
		return Session{}, err
	case !right || !v.Ended.IsZero() || !s.cfg.Now().Before(v.Expires):
		return Session{}, errSession
	}
	return v, nil
}

// bearer is a session, and what it lets do.
type bearer struct {
	Session
	user  *User
	token *Token
	roles []policy.Role
}

// holder says whose session it is, as all stands now: the user is enabled, and holds
// the token that it was opened with last, which is in use. sub is the user as just
// read.
func (s *Service) holder(ctx context.Context, v *Session, sub *Subject) (*bearer, error) {
	if sub == nil || sub.User == nil || sub.User.ID != v.UserID || sub.User.State != UserEnabled {
		return nil, errSession
	}
	i := slices.IndexFunc(sub.Tokens, func(t Token) bool { return t.Serial == v.Serial })
	if i < 0 || sub.Tokens[i].State != Active || sub.Tokens[i].expired(s.cfg.Now()) {
		return nil, errSession
	}
	t := &sub.Tokens[i]
	if right, err := s.genuine(ctx, t.Sealed(sub.User.PINMAC).Message(), t.Binding); err != nil {
		return nil, err
	} else if !right {
		return nil, errSession
	}
	b := &bearer{Session: *v, user: sub.User, token: t}
	if !v.plain() {
		b.roles = s.reg.Load().roles.of(v.Home, v.User, v.Realm)
		if len(b.roles) == 0 {
			return nil, errSession // whoever has no role any more has nothing to do here
		}
	}
	return b, nil
}

// self is where the user of a session is found.
func (p Principal) self() Ref {
	return Ref{Realm: p.home, User: p.User}
}

// principal is who does something by the session.
func (b *bearer) principal(sum [sha256.Size]byte) Principal {
	return Principal{
		Kind: KindAdmin, ID: policy.ID(b.Home, b.User), Name: b.user.Name, User: b.User, home: b.Home, Realm: b.Realm,
		Roles: b.roles, MFA: b.Authenticated, Session: b.ID, code: sum,
	}
}

// stays says whether the session of a principal is as good as it was when the request
// began: sub is its user as just read. It is asked for each act.
func (s *Service) stays(ctx context.Context, p *Principal, sub *Subject) (*bearer, error) {
	v, err := s.session(ctx, p.Session, p.code)
	if err != nil {
		return nil, err
	}
	b, err := s.holder(ctx, &v, sub)
	if err != nil {
		return nil, err
	}
	now := b.principal(p.code)
	if now.ID != p.ID || now.Realm != p.Realm || !slices.Equal(now.Roles, p.Roles) || now.MFA.Before(p.MFA) {
		return nil, errSession
	}
	if !s.goodFrom(ctx, &v, *p) {
		return nil, errSession
	}
	return b, nil
}

// goodFrom says whether a session is good from where the principal is, and has it
// audited if not.
func (s *Service) goodFrom(ctx context.Context, v *Session, p Principal) bool {
	if v.Bound == "" || v.Bound == p.Source {
		return true
	}
	s.elsewhere(ctx, p, audit.Event{Realm: v.Home, User: v.User, Detail: []audit.Field{{Name: "session", Value: v.ID}}})
	return false
}

// elsewhere audits that a key or a session was shown from an address that it is not
// good from. Whoever floods is counted.
func (s *Service) elsewhere(ctx context.Context, p Principal, e audit.Event) {
	e.Outcome, e.Reason = "denied", string(ReasonOtherAddress)
	e = s.event(p, policy.KeyUse, e)
	if !s.crowd.admit(&e, e.Time) {
		return
	}
	if err := s.ledger.commit(ctx, &Change{}, []audit.Event{e}); err != nil {
		s.log.Warn("the use of a key from another address could not be audited", "error", err)
	}
}

// opened answers the principal of a session's text that is shown from an address.
func (s *Service) opened(ctx context.Context, text, source string) (Principal, error) {
	id, _, _ := strings.Cut(strings.TrimPrefix(text, sessionPrefix), "_")
	if b, err := hex.DecodeString(id); err != nil || len(b) != sessionIDSize || len(text) > 256 {
		return Principal{}, errSession
	}
	sum := sha256.Sum256([]byte(text))
	v, err := s.session(ctx, id, sum)
	if err != nil {
		return Principal{}, err
	}
	view, err := s.current(ctx, systemPrincipal(), []Ref{{Realm: v.Home, User: v.User}})
	if err != nil {
		return Principal{}, err
	}
	b, err := s.holder(ctx, &v, view.Subjects[0])
	if err != nil {
		return Principal{}, err
	}
	p := b.principal(sum).From(source)
	if !s.goodFrom(ctx, &v, p) {
		return Principal{}, errSession
	}
	return p, nil
}

// Admit answers the principal of what a request from a network address shows: an API
// key, or a session. The error wraps ErrUnknownKey whatever was wrong.
func (s *Service) Admit(ctx context.Context, shown, source string) (Principal, error) {
	if strings.HasPrefix(shown, sessionPrefix) {
		return s.opened(ctx, shown, source)
	}
	p, err := s.Authenticate(ctx, shown)
	if err != nil {
		return Principal{}, err
	}
	p = p.From(source)
	if !s.fromItsNetwork(ctx, p) {
		return Principal{}, ErrUnknownKey
	}
	return p, nil
}

// fromItsNetwork says whether an API key is shown from a network that it is good from,
// and has it audited if not.
func (s *Service) fromItsNetwork(ctx context.Context, p Principal) bool {
	k := s.reg.Load().keys[p.ID]
	if k == nil || k.goodFrom(p.Source) {
		return k != nil
	}
	s.elsewhere(ctx, p, audit.Event{Realm: k.Realm, Detail: []audit.Field{{Name: "key", Value: k.ID}}})
	return false
}

// goodFrom says whether the key is good from an address.
func (k *APIKey) goodFrom(source string) bool {
	if len(k.Sources) == 0 {
		return true
	}
	addr, err := netip.ParseAddr(source)
	if err != nil {
		at, err := netip.ParseAddrPort(source)
		if err != nil {
			return false
		}
		addr = at.Addr()
	}
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(k.Sources, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// genuine says whether a MAC is that of a message, by the HSM the first time.
func (s *Service) genuine(ctx context.Context, message, mac []byte) (bool, error) {
	if len(mac) != sha256.Size {
		return false, nil
	}
	sum := rowProofOf(message, mac)
	if s.rowProofs.has(sum) {
		return true, nil
	}
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, message)
	if err != nil {
		return false, translate(err)
	}
	if !hmac.Equal(macs[0], mac) {
		return false, nil
	}
	s.rowProofs.add(sum)
	return true, nil
}
