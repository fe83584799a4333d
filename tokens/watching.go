package tokens

import (
	"context"
	"fmt"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Watching is which requests of RADIUS clients somebody wants to see as they come.
type Watching struct {
	Realm  string // of clients and users; empty: the principal's, and all if it has none
	Client string // empty: all
	User   string // empty: all
}

// WatchClients authorises and audits that somebody watches the requests of RADIUS
// clients from now on, and answers what they may be shown: nothing of another realm
// than the principal's.
func (s *Service) WatchClients(ctx context.Context, p Principal, w Watching) (Watching, error) {
	e := audit.Event{Realm: p.Realm}
	if w.Realm != "" {
		realm, err := p.realm(w.Realm)
		if err != nil {
			return Watching{}, err
		}
		e.Realm = realm
	}
	w.Realm = e.Realm
	for _, f := range []struct {
		name string
		at   *string
	}{{"client", &w.Client}, {"user", &w.User}} {
		if *f.at == "" {
			continue
		}
		key, err := FoldName(*f.at)
		if err != nil {
			return Watching{}, err
		}
		*f.at = key
		e.Detail = append(e.Detail, audit.Field{Name: f.name, Value: key})
	}
	if err := s.authorise(ctx, p, policy.ClientWatch, &e); err != nil {
		return Watching{}, err
	}
	if w.Client != "" {
		if c := s.reg.Load().names[w.Client]; c == nil || !p.reaches(c.Realm) {
			return Watching{}, s.refuse(ctx, p, policy.ClientWatch, e, noClient(w.Client))
		}
	}
	return w, s.record(ctx, p, policy.ClientWatch, e)
}

// MayWatch says whether who watches what WatchClients answered still may: whether key,
// session and rights stand.
func (s *Service) MayWatch(ctx context.Context, p Principal, w Watching) error {
	return s.May(ctx, p, policy.ClientWatch, w.Realm)
}

// ClientTest is an attempt that somebody makes in the place of a RADIUS client.
type ClientTest struct {
	Client string
	User   string // as the gateway would send it; empty: none, it is asked whether the server is there
	Method string // of the attempt, for the audit
}

// TestClient authorises and audits that somebody makes an attempt in the place of a
// RADIUS client, and answers the client as it is used. The attempt has a record of its
// own, as any.
func (s *Service) TestClient(ctx context.Context, p Principal, t ClientTest) (*RADIUSClient, error) {
	name, err := FoldName(t.Client)
	if err != nil {
		return nil, err
	}
	e := audit.Event{Realm: p.Realm, Detail: []audit.Field{{Name: "client", Value: name}}}
	if t.User != "" {
		e.Detail = append(e.Detail, audit.Field{Name: "user", Value: fileName(t.User)}, audit.Field{Name: "method", Value: fileName(t.Method)})
	}
	c := s.reg.Load().names[name]
	if c != nil && p.reaches(c.Realm) {
		e.Realm = c.Realm
	}
	if err := s.authorise(ctx, p, policy.ClientTest, &e); err != nil { // which reads the registry anew, if that is needed
		return nil, err
	}
	if c = s.reg.Load().names[name]; c == nil || !p.reaches(c.Realm) {
		return nil, s.refuse(ctx, p, policy.ClientTest, e, noClient(name))
	}
	if e.Realm != c.Realm && p.Realm == "" {
		e.Realm = c.Realm // it was made on another node a moment ago, or moved
		if err := s.authorise(ctx, p, policy.ClientTest, &e); err != nil {
			return nil, err
		}
	}
	// Its users' names would take the attempt to any realm.
	if p.Realm != "" && c.NameRule == NameRealm {
		return nil, s.deny(ctx, p, policy.ClientTest, e, denial("the client is for users of all realms"))
	}
	return c, s.record(ctx, p, policy.ClientTest, e)
}

func noClient(name string) error { return fmt.Errorf("%w: no RADIUS client %q", ErrNotFound, name) }
