package tokens

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// NewClient is a RADIUS client to make or to replace.
type NewClient struct {
	Name      string
	Prefix    netip.Prefix
	Realm     string // empty: the principal's, or the default one
	Secret    []byte // wiped by PutClient; none: the client that is replaced keeps its own
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

// PutClient makes a RADIUS client, or replaces the one of that name. Without a secret,
// the one that is replaced keeps its own; ErrInvalid if there is none. All nodes use it
// before they decide their next batch. What is as asked already stays as it is.
func (s *Service) PutClient(ctx context.Context, p Principal, n NewClient, replace bool) (Client, error) {
	defer clear(n.Secret)
	for range conflicts {
		next, err := s.plannedClient(ctx, p, &n, replace)
		if err != nil {
			return Client{}, err
		}
		c, err := s.writeClient(ctx, p, &n, next, replace)
		if errors.Is(err, ErrConflict) { // it was changed meanwhile
			continue
		}
		if err != nil {
			return Client{}, s.refuse(ctx, p, policy.ClientPut, next.event, err)
		}
		c.Secret = nil
		return c, nil
	}
	return Client{}, fmt.Errorf("%w: the client is changed elsewhere all the time", ErrUnavailable)
}

// CompareClient answers the client that PutClient would replace one by, and what would
// be other than it is now, "secret" among it: nothing, if PutClient would change
// nothing. Nothing is done.
func (s *Service) CompareClient(ctx context.Context, p Principal, n NewClient) (c Client, changes []string, err error) {
	defer clear(n.Secret)
	next, err := s.plannedClient(ctx, p, &n, true)
	if err != nil {
		return Client{}, nil, err
	}
	clear(next.plain)
	e := next.event
	e.Detail = append(e.Detail, audit.Field{Name: "dry_run", Value: "true"})
	e.Reason = string(ReasonUnchanged)
	next.client.Secret = nil
	return next.client, next.changes, s.record(ctx, p, policy.ClientPut, e)
}

// plannedClient is a client as it is asked for.
type plannedClient struct {
	client  Client // its secret not sealed yet
	was     *Client
	plain   []byte   // of was; nil if it cannot be opened
	changes []string // none: it is so already
	event   audit.Event
}

// plannedClient says what PutClient would do, after it saw that p may.
func (s *Service) plannedClient(ctx context.Context, p Principal, n *NewClient, replace bool) (*plannedClient, error) {
	realm, err := p.realm(n.Realm)
	if err != nil {
		return nil, err
	}
	name, err := FoldName(n.Name)
	if err != nil {
		return nil, err
	}
	rule := n.NameRule
	if rule == "" {
		rule = NamePlain
	}
	switch {
	case !n.Prefix.IsValid():
		return nil, fmt.Errorf("%w: the address of client %s is missing; it is an address or a prefix such as 192.0.2.0/24", ErrInvalid, name)
	case len(n.Secret) == 0 && !replace:
		return nil, fmt.Errorf("%w: client %s has no shared secret", ErrInvalid, name)
	case len(n.Secret) > maxSecret:
		return nil, fmt.Errorf("%w: the shared secret of client %s is longer than %d bytes", ErrInvalid, name, maxSecret)
	case rule != NamePlain && rule != NameStrip && rule != NameRealm:
		return nil, fmt.Errorf("%w: name rule %q; it is plain, strip or realm", ErrInvalid, rule)
	}
	options, err := n.Options.text()
	if err != nil {
		return nil, err
	}
	if err := s.checkReplies(n.Options.Replies); err != nil {
		return nil, err
	}
	// A group is a realm's own: who runs one of the realms would decide who gets what
	// was meant for a group of another.
	if i := slices.IndexFunc(n.Options.Replies, func(r Reply) bool { return r.Group != "" }); i >= 0 && rule == NameRealm {
		return nil, fmt.Errorf("%w: client %s has a reply for group %s, but its users' names say the realm, and each realm has groups of its own; have a client for each realm", ErrInvalid, name, n.Options.Replies[i].Group)
	}
	prefix := n.Prefix.Masked()
	if a := prefix.Addr(); a.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(a.Unmap(), prefix.Bits()-96)
	}
	next := &plannedClient{
		client: Client{
			Name: name, Prefix: prefix, Realm: realm, RequireMA: n.RequireMA, NameRule: rule,
			Created: s.cfg.Now().UTC(), SecretSize: len(n.Secret), Options: options,
		},
		event: audit.Event{Realm: realm, Detail: []audit.Field{
			{Name: "client", Value: name}, {Name: "address", Value: prefix.String()},
			{Name: "require_message_authenticator", Value: fmt.Sprint(n.RequireMA)},
		}},
	}
	e := &next.event
	if options != "" {
		e.Detail = append(e.Detail, audit.Field{Name: "options", Value: options})
	}
	if err := s.authorise(ctx, p, policy.ClientPut, e); err != nil {
		return nil, err
	}
	read, err := s.db.Registry(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	for i := range read.Clients {
		if read.Clients[i].Name == name {
			next.was = &read.Clients[i]
		}
	}
	// A principal of one realm neither takes a client from another, nor makes one
	// whose users' names say the realm.
	if p.Realm != "" && (rule == NameRealm || next.was != nil && next.was.Realm != p.Realm) {
		return nil, s.deny(ctx, p, policy.ClientPut, *e, denial("the client is for another realm"))
	}
	if err := s.compareClient(ctx, next, n.Secret); err != nil {
		return nil, s.refuse(ctx, p, policy.ClientPut, *e, err)
	}
	return next, nil
}

// checkReplies says what is wrong with reply attributes.
func (s *Service) checkReplies(replies []Reply) error {
	switch {
	case len(replies) == 0:
		return nil
	case s.cfg.CheckReplies == nil:
		return fmt.Errorf("%w: this server has no RADIUS, so no reply attributes", ErrInvalid)
	}
	return s.cfg.CheckReplies(replies)
}

// compareClient fills in what is other than it was.
func (s *Service) compareClient(ctx context.Context, next *plannedClient, secret []byte) error {
	if next.was == nil {
		if len(secret) == 0 {
			return fmt.Errorf("%w: client %s has no shared secret, and there is none to keep", ErrInvalid, next.client.Name)
		}
		next.changes = []string{"client"}
		return nil
	}
	c, was := &next.client, next.was
	plain, err := s.custody.Open(ctx, was.Secret, clientContext(was))
	if err != nil {
		err = translate(err)
		switch {
		case !isTampered(err):
			return err
		case len(secret) == 0:
			return fmt.Errorf("%w: the row of client %s; put the client with its secret", err, c.Name)
		}
		next.changes = []string{"secret"} // an altered row is written anew
		return nil
	}
	next.plain = plain
	for _, f := range []struct {
		name string
		same bool
	}{
		{"prefix", c.Prefix == was.Prefix}, {"realm", c.Realm == was.Realm},
		{"require_message_authenticator", c.RequireMA == was.RequireMA}, {"name_rule", c.NameRule == was.NameRule},
		{"options", c.Options == was.Options}, {"secret", len(secret) == 0 || subtle.ConstantTimeCompare(secret, plain) == 1},
	} {
		if !f.same {
			next.changes = append(next.changes, f.name)
		}
	}
	if len(secret) == 0 {
		c.SecretSize = was.SecretSize
	}
	return nil
}

// writeClient does what was planned.
func (s *Service) writeClient(ctx context.Context, p Principal, n *NewClient, next *plannedClient, replace bool) (Client, error) {
	defer clear(next.plain)
	e := next.event
	if replace && len(next.changes) == 0 {
		e.Reason = string(ReasonUnchanged)
		return *next.was, s.record(ctx, p, policy.ClientPut, e)
	}
	c := next.client
	w := ClientWrite{Replace: replace}
	secret := n.Secret
	if len(secret) == 0 { // what it is bound to changes: it is sealed anew
		secret, w.Expect = next.plain, next.was.Secret
		e.Detail = append(slices.Clone(e.Detail), audit.Field{Name: "secret", Value: "kept"})
	}
	var err error
	if c.Secret, err = s.custody.Seal(ctx, secret, clientContext(&c)); err != nil {
		return Client{}, translate(err)
	}
	w.Client = c
	if err := s.ledger.commit(ctx, &Change{Clients: []ClientWrite{w}}, []audit.Event{s.event(p, policy.ClientPut, e)}); err != nil {
		return Client{}, err
	}
	s.takeUp(ctx)
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
		if read.Clients[i].Name == key && p.reaches(read.Clients[i].Realm) {
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
