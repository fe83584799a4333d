package tokens

import (
	"context"
	"fmt"
	"net/netip"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// NewClient is a RADIUS client to make or to replace.
type NewClient struct {
	Name      string
	Prefix    netip.Prefix
	Realm     string // empty: the principal's, or the default one
	Secret    []byte // wiped by PutClient
	RequireMA bool
	NameRule  NameRule // empty: plain
	Options   ClientOptions
}

// Clients lists the RADIUS clients by name, without their secrets.
func (s *Service) Clients(ctx context.Context, p Principal) ([]Client, error) {
	e := audit.Event{Realm: p.Realm}
	if err := s.authorise(ctx, p, policy.ClientList, &e); err != nil {
		return nil, err
	}
	read, err := s.db.Registry(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	list := make([]Client, 0, len(read.Clients))
	for _, c := range read.Clients {
		if p.Realm == "" || c.Realm == p.Realm {
			c.Secret = nil
			list = append(list, c)
		}
	}
	return list, s.record(ctx, p, policy.ClientList, e)
}

// maxSecret bounds a shared secret; nothing in RFC 2865 does.
const maxSecret = 256

// PutClient makes a RADIUS client, or replaces the one of that name. All nodes
// use it before they decide their next batch.
func (s *Service) PutClient(ctx context.Context, p Principal, n NewClient, replace bool) (Client, error) {
	defer clear(n.Secret)
	realm, err := p.realm(n.Realm)
	if err != nil {
		return Client{}, err
	}
	name, err := FoldName(n.Name)
	if err != nil {
		return Client{}, err
	}
	if n.NameRule == "" {
		n.NameRule = NamePlain
	}
	switch {
	case !n.Prefix.IsValid():
		return Client{}, fmt.Errorf("%w: the address of client %s is missing; it is an address or a prefix such as 192.0.2.0/24", ErrInvalid, name)
	case len(n.Secret) == 0:
		return Client{}, fmt.Errorf("%w: client %s has no shared secret", ErrInvalid, name)
	case len(n.Secret) > maxSecret:
		return Client{}, fmt.Errorf("%w: the shared secret of client %s is longer than %d bytes", ErrInvalid, name, maxSecret)
	case n.NameRule != NamePlain && n.NameRule != NameStrip && n.NameRule != NameRealm:
		return Client{}, fmt.Errorf("%w: name rule %q; it is plain, strip or realm", ErrInvalid, n.NameRule)
	}
	options, err := n.Options.text()
	if err != nil {
		return Client{}, err
	}
	prefix := n.Prefix.Masked()
	if a := prefix.Addr(); a.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
	}
	e := audit.Event{Realm: realm, Detail: []audit.Field{
		{Name: "client", Value: name}, {Name: "address", Value: prefix.String()},
		{Name: "require_message_authenticator", Value: fmt.Sprint(n.RequireMA)},
	}}
	if options != "" {
		e.Detail = append(e.Detail, audit.Field{Name: "options", Value: options})
	}
	if err := s.authorise(ctx, p, policy.ClientPut, &e); err != nil {
		return Client{}, err
	}
	// A principal of one realm neither takes a client from another, nor makes one
	// whose users' names say the realm.
	if p.Realm != "" {
		read, err := s.db.Registry(ctx)
		if err != nil {
			return Client{}, unavailable(err)
		}
		foreign := n.NameRule == NameRealm
		for _, c := range read.Clients {
			foreign = foreign || c.Name == name && c.Realm != p.Realm
		}
		if foreign {
			return Client{}, s.deny(ctx, p, policy.ClientPut, e, denial("the client is for another realm"))
		}
	}
	c := Client{
		Name: name, Prefix: prefix, Realm: realm, RequireMA: n.RequireMA, NameRule: n.NameRule,
		Created: s.cfg.Now().UTC(), SecretSize: len(n.Secret),
		Options: options,
	}
	if c.Secret, err = s.custody.Seal(ctx, n.Secret, clientContext(&c)); err != nil {
		return Client{}, translate(err)
	}
	w := Change{Clients: []ClientWrite{{Client: c, Replace: replace}}}
	if err := s.ledger.commit(ctx, &w, []audit.Event{s.event(p, policy.ClientPut, e)}); err != nil {
		return Client{}, s.refuse(ctx, p, policy.ClientPut, e, err)
	}
	s.takeUp(ctx)
	c.Secret = nil
	return c, nil
}

// DeleteClient removes a RADIUS client: its packets are dropped from then on.
func (s *Service) DeleteClient(ctx context.Context, p Principal, name string) error {
	key, err := FoldName(name)
	if err != nil {
		return err
	}
	read, err := s.db.Registry(ctx)
	if err != nil {
		return unavailable(err)
	}
	e := audit.Event{Realm: p.Realm, Detail: []audit.Field{{Name: "client", Value: key}}}
	var found *Client
	for i := range read.Clients {
		if read.Clients[i].Name == key {
			found = &read.Clients[i]
			e.Realm = found.Realm
		}
	}
	if err := s.authorise(ctx, p, policy.ClientDelete, &e); err != nil {
		return err
	}
	if found == nil {
		return s.refuse(ctx, p, policy.ClientDelete, e, fmt.Errorf("%w: no RADIUS client %q", ErrNotFound, key))
	}
	w := Change{Clients: []ClientWrite{{Client: *found, Delete: true}}}
	if err := s.ledger.commit(ctx, &w, []audit.Event{s.event(p, policy.ClientDelete, e)}); err != nil {
		return s.refuse(ctx, p, policy.ClientDelete, e, err)
	}
	s.takeUp(ctx)
	return nil
}

// takeUp reads anew what this node caches, after a change to it was committed.
// The change stands, so a failure is no answer to whoever made it; nothing is
// decided on what is out of date, since each batch asks for the generation.
func (s *Service) takeUp(ctx context.Context) {
	if err := s.reloadRegistry(ctx); err != nil {
		s.log.Warn("clients and API keys could not be read anew; it is tried again with the next request", "error", err)
	}
}
