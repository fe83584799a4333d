package tokens

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// ReasonNoRole is why nobody signs in whom there is nothing to do for here.
const ReasonNoRole Reason = "no_role"

// SignInPrincipal is who asks to be signed in and shows no key: anybody, from this
// network address.
func SignInPrincipal(source string) Principal { return ConsolePrincipal(source) }

// SignInRequest asks for a session.
type SignInRequest struct {
	Realm, User string        // whose; an empty Realm is the principal's, or the default one
	Code        string        // the PIN, followed by a code; not for SignInKey
	In          string        // the realm to act in, or AnyRealm; empty: all, or the only one
	For         time.Duration // how long it lasts; zero: as SessionRules say
	Transport   string        // http, console
}

// SignedIn is a session that began, with its text, which is shown this once: what is
// stored is a MAC.
type SignedIn struct {
	Session
	Roles []policy.Role // that it lets its user act by; sorted
	Text  string
}

// signing is what an attempt is for that is to open or renew a session.
type signing struct {
	action policy.Action
	user   string // the name, for the audit, where nobody is looked for
}

// proof says of an accept who proved to be whom, with what. Only the engine makes
// one, and one session is made of it.
type proof struct {
	user    User
	serial  string
	method  string // authentication methods (RFC 8176, section 2), divided by commas
	factors int
	at      time.Time
	policy  string // what let the attempt through, as the audit names it
	spent   atomic.Bool
}

// proofOf is the proof of an accept.
func proofOf(t *Token, owner *User, key *KeyResult, now time.Time) *proof {
	p := &proof{user: *owner, serial: t.Serial, factors: 1, at: now.UTC().Truncate(time.Microsecond)}
	methods := t.methods(owner)
	if key != nil {
		methods = key.Verified().Methods
	}
	if slices.Contains(methods, "mfa") {
		p.factors = 2
	}
	p.method = strings.Join(methods, ",")
	return p
}

// SignIn opens a session for whoever knows PIN and code. Whoever asks without a key
// gets one if they have a role, and can act by it; who asks with a key that may
// verify gets one for a user of the key's realm, whatever roles the user has, which
// lets do nothing but be checked: see CheckSession.
//
// The code is judged, counted, throttled, audited and used up as Verify would, and
// the answer is nil where Verify would reject. It is nil for who has no role as well,
// after the same work. A session for one who has takes two things to prove, so a
// code without a PIN is not enough: that is ErrState, and told to who knows the code.
// ErrForbidden says that there is no role in the realm asked for, and ErrOverloaded
// that too many were tried from one address.
func (s *Service) SignIn(ctx context.Context, p Principal, r SignInRequest) (*SignedIn, error) {
	home, err := p.realm(r.Realm)
	if r.User == "" || r.Code == "" || err != nil {
		return nil, s.malformed(ctx, p, home, r.User, r.Transport, "a user and a code are needed", err)
	}
	by, err := s.maySign(ctx, p, home, &r)
	if err != nil {
		return nil, err
	}
	x := s.attempt(p, home, Attempt{User: r.User, Code: r.Code, Transport: r.Transport})
	x.signing, x.policy = &signing{action: policy.SessionStart}, by
	if p.anybody() {
		x.client = "signin:" + network(p.Source)
		if len(s.reg.Load().roles[x.ref]) == 0 {
			x.signing.user, x.ref.User, x.impossible = x.ref.User, "", true
		}
	}
	got, err := s.await(ctx, x)
	if err != nil || !got.result.Accept || got.proof == nil {
		return nil, err
	}
	return s.open(ctx, p, &r, got.proof, by)
}

// SignInKey is SignIn for who showed a FIDO key: what VerifyKey answered. The key
// must have verified its user where two things are needed.
func (s *Service) SignInKey(ctx context.Context, p Principal, r SignInRequest, k KeyResult) (*SignedIn, error) {
	if !k.Accept || k.proof == nil {
		return nil, fmt.Errorf("%w: there is no accept to sign in with", ErrInvalid)
	}
	by, err := s.maySign(ctx, p, k.Realm, &r)
	if err != nil {
		return nil, err
	}
	if p.anybody() && len(s.reg.Load().roles[Ref{Realm: k.Realm, User: k.User}]) == 0 {
		e := audit.Event{Realm: k.Realm, User: k.User, Serial: k.Serial, Outcome: "refused", Reason: string(ReasonNoRole)}
		return nil, s.record(ctx, p, policy.SessionStart, e)
	}
	return s.open(ctx, p, &r, k.proof, by)
}

// maySign says whether one more may try to sign in from where the principal is, before
// a key is asked for, and by which policies. For who comes without a key there are none:
// the attempt, and the role, are what lets them in.
func (s *Service) maySign(ctx context.Context, p Principal, home string, r *SignInRequest) (by string, err error) {
	if r.For != 0 {
		if err := validLife(r.For); err != nil {
			return "", err
		}
	}
	if r.In != "" && r.In != AnyRealm {
		if _, err := ParseRealm(r.In); err != nil {
			return "", err
		}
	}
	if p.anybody() {
		if !s.signins.take(network(p.Source), s.cfg.Now()) {
			e := s.event(p, policy.SessionStart, audit.Event{Realm: home, Outcome: "refused", Reason: string(ReasonThrottled)})
			e.Client = "signin:" + network(p.Source)
			if s.crowd.admit(&e, e.Time) {
				if err := s.ledger.commit(ctx, &Change{}, []audit.Event{e}); err != nil {
					return "", err
				}
			}
			return "", fmt.Errorf("%w: there were too many tries to sign in from here; wait a minute", ErrOverloaded)
		}
		_, err := s.current(ctx, p, nil) // so that roles are those of now
		return "", err
	}
	if p.Kind == KindAdmin {
		return "", fmt.Errorf("%w: you are signed in; renew the session, or sign in without one", ErrInvalid)
	}
	if r.In != "" {
		return "", fmt.Errorf("%w: a session that an application asks for acts in no realm", ErrInvalid)
	}
	e := audit.Event{Realm: home}
	err = s.authorise(ctx, p, policy.SessionStart, &e)
	return e.Policy, err
}

// network is what attempts are counted by: an address, of IPv6 the network that one
// site has.
func network(source string) string {
	addr, err := netip.ParseAddr(source)
	if err != nil {
		return source
	}
	if addr = addr.Unmap(); addr.Is6() {
		if p, err := addr.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

// open makes the session of a proof. What permitted it are the policies that are named,
// or if none are, those that let the attempt through.
func (s *Service) open(ctx context.Context, p Principal, r *SignInRequest, by *proof, permitted string) (*SignedIn, error) {
	u := &by.user
	e := audit.Event{Realm: u.Realm, User: u.Key, Serial: by.serial, Policy: cmp.Or(permitted, by.policy)}
	if by.spent.Swap(true) {
		return nil, s.refuse(ctx, p, policy.SessionStart, e, fmt.Errorf("%w: a session was opened with this already", ErrState))
	}
	now := s.cfg.Now().UTC().Truncate(time.Microsecond)
	out := &SignedIn{Session: Session{
		UserID: u.ID, Home: u.Realm, User: u.Key, Realm: u.Realm, Serial: by.serial, Method: by.method, Created: now, Authenticated: by.at,
	}}
	v := &out.Session
	life := r.For
	if p.anybody() {
		in, err := s.actsIn(u, r.In)
		if err == nil && by.factors < 2 {
			err = needsTwo(u)
		}
		if err != nil {
			return nil, s.refuse(ctx, p, policy.SessionStart, e, err)
		}
		v.Realm = in
		out.Roles = s.reg.Load().roles.of(u.Realm, u.Key, in)
		if !s.cfg.Sessions.Unbound {
			v.Bound = p.Source
		}
		if life == 0 {
			life = s.cfg.Sessions.LifeAdmin
		}
	} else {
		v.Through = p.Actor()
		if life == 0 {
			life = s.cfg.Sessions.LifeUser
		}
	}
	v.Expires = now.Add(life)
	var err error
	if v.ID, out.Text, err = s.newSessionText(); err != nil {
		return nil, err
	}
	if err := s.sealSession(ctx, v, sha256.Sum256([]byte(out.Text))); err != nil {
		return nil, err
	}
	e.Detail = append(v.detail(), audit.Field{Name: "expires", Value: v.Expires.Format(time.RFC3339)})
	c := Change{Sessions: []SessionWrite{{Session: *v}}}
	if err := s.ledger.commit(ctx, &c, []audit.Event{s.event(p, policy.SessionStart, e)}); err != nil {
		return nil, unavailable(err)
	}
	v.MAC = [sha256.Size]byte{}
	return out, nil
}

// detail says in the audit what is opened or renewed.
func (v *Session) detail() []audit.Field {
	list := []audit.Field{{Name: "session", Value: v.ID}, {Name: "methods", Value: v.Method}}
	if !v.plain() {
		in := v.Realm
		if in == "" {
			in = AnyRealm
		}
		list = append(list, audit.Field{Name: "in", Value: in})
	}
	return list
}

// needsTwo is what is told to somebody with a role who proved one thing.
func needsTwo(u *User) error {
	if u.HasPIN() {
		return fmt.Errorf("%w: who has a role signs in with two things: a PIN and a code, or a FIDO key that asks for its own PIN or finger", ErrState)
	}
	return fmt.Errorf("%w: who has a role signs in with two things, and %s has no PIN: have one set (watchword user pin %s), or use a FIDO key that asks for its own PIN or finger", ErrState, u.Name, u.Name)
}

// actsIn is the realm where a person's session acts, empty for all: the one asked for,
// all if there is a role for all, or else the only one.
func (s *Service) actsIn(u *User, asked string) (string, error) {
	grants := s.reg.Load().roles[Ref{Realm: u.Realm, User: u.Key}]
	var realms []string
	for _, g := range grants {
		realms = append(realms, g.Realm)
	}
	slices.Sort(realms)
	realms = slices.Compact(realms)
	all := slices.Contains(realms, "")
	switch {
	case len(realms) == 0:
		return "", fmt.Errorf("%w: there is no role for %s any more", ErrForbidden, u.Name)
	case asked == AnyRealm && !all:
		return "", fmt.Errorf("%w: no role of %s is for all realms; name one of: %s", ErrForbidden, u.Name, strings.Join(realms, ", "))
	case asked == AnyRealm, asked == "" && all:
		return "", nil
	case asked == "" && len(realms) == 1:
		return realms[0], nil
	case asked == "":
		return "", fmt.Errorf("%w: %s has roles in several realms; name one to act in, of: %s", ErrInvalid, u.Name, strings.Join(realms, ", "))
	}
	in, err := ParseRealm(asked)
	if err != nil {
		return "", err
	}
	if !all && !slices.Contains(realms, in) {
		return "", fmt.Errorf("%w: %s has no role in realm %s", ErrForbidden, u.Name, in)
	}
	return in, nil
}

// StepUp proves the holder of a session anew, with PIN and code, so that what is
// protected can be done again for a while. It answers the session as it then is, which
// lasts no longer than before, or nil where Verify would reject.
func (s *Service) StepUp(ctx context.Context, p Principal, code, transport string) (*SignedIn, error) {
	if p.Kind != KindAdmin {
		return nil, fmt.Errorf("%w: only a session is renewed", ErrInvalid)
	}
	if code == "" {
		return nil, fmt.Errorf("%w: a code is needed", ErrInvalid)
	}
	if _, err := s.current(ctx, p, nil); err != nil {
		return nil, err
	}
	me := p.self()
	x := s.attempt(p, me.Realm, Attempt{User: me.User, Code: code, Transport: transport})
	x.signing = &signing{action: policy.SessionRenew}
	got, err := s.await(ctx, x)
	if err != nil || !got.result.Accept || got.proof == nil {
		return nil, err
	}
	return s.renew(ctx, p, got.proof)
}

// StepUpKey is StepUp for who showed a FIDO key: what VerifyKey answered. A key of
// somebody else renews nothing.
func (s *Service) StepUpKey(ctx context.Context, p Principal, k KeyResult) (*SignedIn, error) {
	if p.Kind != KindAdmin || !k.Accept || k.proof == nil {
		return nil, fmt.Errorf("%w: only a session is renewed, by an accept", ErrInvalid)
	}
	return s.renew(ctx, p, k.proof)
}

// renew notes in a session what proved its holder anew.
func (s *Service) renew(ctx context.Context, p Principal, by *proof) (*SignedIn, error) {
	me := p.self()
	e := audit.Event{Realm: me.Realm, User: me.User, Serial: by.serial, Policy: by.policy}
	view, err := s.current(ctx, p, []Ref{me})
	if err != nil {
		return nil, err
	}
	b, err := s.stays(ctx, &p, view.Subjects[0])
	if err != nil {
		return nil, err
	}
	switch {
	case by.user.ID != b.UserID:
		return nil, s.refuse(ctx, p, policy.SessionRenew, e, fmt.Errorf("%w: this key is not of who signed in", ErrState))
	case by.spent.Swap(true):
		return nil, s.refuse(ctx, p, policy.SessionRenew, e, fmt.Errorf("%w: a session was renewed with this already", ErrState))
	case !b.plain() && by.factors < 2:
		return nil, s.refuse(ctx, p, policy.SessionRenew, e, needsTwo(&by.user))
	}
	next := b.Session
	next.Serial, next.Method = by.serial, by.method
	if by.at.After(next.Authenticated) {
		next.Authenticated = by.at
	}
	if err := s.sealSession(ctx, &next, p.code); err != nil {
		return nil, err
	}
	e.Detail = next.detail()
	if err := s.write(ctx, p, policy.SessionRenew, e, next); err != nil {
		return nil, err
	}
	return &SignedIn{Session: next, Roles: b.roles}, nil
}

// write commits what became of a session. One that ended meanwhile stays so.
func (s *Service) write(ctx context.Context, p Principal, action policy.Action, e audit.Event, v Session) error {
	c := Change{Sessions: []SessionWrite{{Session: v, Replace: true}}}
	err := s.ledger.commit(ctx, &c, []audit.Event{s.event(p, action, e)})
	if errors.Is(err, ErrNotFound) {
		return s.refuse(ctx, p, action, e, fmt.Errorf("%w: no such session, or it has ended", ErrNotFound))
	}
	return unavailable(err)
}

// signins bounds how often a code is tried from one network without a key.
type signins struct {
	mu   sync.Mutex
	left map[string]*bucket
}

type bucket struct {
	tries float64
	at    time.Time
}

// From each network ten may be tried at once, and one more each six seconds.
const (
	signinBurst = 10
	signinEvery = 6 * time.Second
	signinMost  = 4096 // networks counted apart
)

// take says whether one more may be tried.
func (l *signins) take(from string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left == nil {
		l.left = make(map[string]*bucket)
	}
	b := l.left[from]
	if b == nil && len(l.left) >= signinMost {
		for name, old := range l.left {
			if d := now.Sub(old.at); d < 0 || d >= signinBurst*signinEvery {
				delete(l.left, name) // it is full again
			}
		}
		if len(l.left) >= signinMost {
			from = "" // the rest together
			b = l.left[from]
		}
	}
	if b == nil {
		b = &bucket{tries: signinBurst, at: now}
		l.left[from] = b
	}
	if d := now.Sub(b.at); d > 0 {
		b.tries = min(signinBurst, b.tries+float64(d)/float64(signinEvery))
	}
	b.at = now
	if b.tries < 1 {
		return false
	}
	b.tries--
	return true
}
