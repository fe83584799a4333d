package api

import (
	"fmt"
	"net/netip"
	"net/url"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// ListClients is GET /v1/clients.
func (s *Server) ListClients(c echo.Context, params ListClientsParams) error {
	list, err := s.cfg.Core.Clients(c.Request().Context(), who(c))
	if err != nil {
		return err
	}
	list, err = inRealm(list, params.Realm, func(c *tokens.Client) string { return c.Realm })
	return reply(c, ClientPage{Items: views(list, clientView)}, err)
}

// AddClient is POST /v1/clients.
func (s *Server) AddClient(c echo.Context, params AddClientParams) error {
	in, err := decode[NewClient](c, "name", "prefix", "secret")
	if err != nil {
		return err
	}
	n, err := newClient(in, params.Realm)
	if err != nil {
		return err
	}
	made, err := s.cfg.Core.PutClient(c.Request().Context(), who(c), n, false)
	return created(c, "/v1/clients/"+url.PathEscape(made.Name), clientView(&made), err)
}

// PutClient is PUT /v1/clients/{name}.
func (s *Server) PutClient(c echo.Context, name string, params PutClientParams) error {
	in, err := decode[ClientSettings](c, "prefix")
	if err != nil {
		return err
	}
	if in.Secret != nil && *in.Secret == "" {
		return fmt.Errorf("%w: secret is empty; leave it out to keep the one that there is", tokens.ErrInvalid)
	}
	n, err := newClient(NewClient{
		Name: name, Prefix: in.Prefix, Secret: value(in.Secret), Realm: in.Realm,
		RequireMessageAuthenticator: in.RequireMessageAuthenticator, NameRule: in.NameRule,
		Methods: in.Methods, AllowUnsignedProxyState: in.AllowUnsignedProxyState,
		Dialogues: in.Dialogues, Joined: in.Joined, Rate: in.Rate, Replies: in.Replies, Messages: in.Messages,
	}, params.Realm)
	if err != nil {
		return err
	}
	if !value(params.DryRun) {
		made, err := s.cfg.Core.PutClient(c.Request().Context(), who(c), n, true)
		return reply(c, clientView(&made), err)
	}
	would, changes, err := s.cfg.Core.CompareClient(c.Request().Context(), who(c), n)
	v := clientView(&would)
	list := views(changes, func(name *string) ClientChanges { return ClientChanges(*name) })
	v.Changes = &list
	return reply(c, v, err)
}

// DeleteClient is DELETE /v1/clients/{name}.
func (s *Server) DeleteClient(c echo.Context, name string) error {
	return gone(c, s.cfg.Core.DeleteClient(c.Request().Context(), who(c), name))
}

func newClient(in NewClient, query *string) (tokens.NewClient, error) {
	realm, err := oneRealm(query, in.Realm)
	if err != nil {
		return tokens.NewClient{}, err
	}
	prefix, err := parsePrefix(in.Prefix)
	if err != nil {
		return tokens.NewClient{}, err
	}
	n := tokens.NewClient{
		Name: in.Name, Prefix: prefix, Realm: realm, Secret: []byte(in.Secret),
		RequireMA: true, NameRule: tokens.NameRule(value(in.NameRule)),
	}
	n.Options = tokens.ClientOptions{
		Methods: named[tokens.Method](value(in.Methods)), UnsignedProxyState: value(in.AllowUnsignedProxyState),
		Dialogues: named[tokens.Dialogue](value(in.Dialogues)), Joined: named[tokens.Dialogue](value(in.Joined)),
		Rate: value(in.Rate), Messages: value(in.Messages),
	}
	for _, r := range value(in.Replies) {
		held := tokens.Reply{Group: value(r.Group)}
		for _, a := range r.Attributes {
			held.Attributes = append(held.Attributes, tokens.ReplyAttribute(a))
		}
		n.Options.Replies = append(n.Options.Replies, held)
	}
	if in.RequireMessageAuthenticator != nil {
		n.RequireMA = *in.RequireMessageAuthenticator
	}
	return n, nil
}

// named makes names of one kind of names of another.
func named[To, From ~string](list []From) []To {
	out := make([]To, len(list))
	for i, name := range list {
		out[i] = To(name)
	}
	return out
}

// parsePrefix reads an address or a prefix. One with bits behind its length is
// refused: it is more likely a mistake than a wish for the whole network.
func parsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%w: prefix is neither an address nor a prefix such as 192.0.2.0/24", tokens.ErrInvalid)
	}
	if prefix != prefix.Masked() {
		return netip.Prefix{}, fmt.Errorf("%w: prefix has bits behind its length; did you mean %s or %s?", tokens.ErrInvalid, prefix.Addr(), prefix.Masked())
	}
	return prefix, nil
}

// clientView shows a client. Options that cannot be read show as none: the server
// ignores the client then, and says so in its log.
func clientView(c *tokens.Client) Client {
	options, _ := tokens.ParseClientOptions(c.Options)
	methods := named[string](options.Methods)
	if len(methods) == 0 {
		methods = RadiusMethods{string(tokens.MethodPAP)}
	}
	v := Client{
		Name: c.Name, Prefix: c.Prefix.String(), Realm: c.Realm, RequireMessageAuthenticator: c.RequireMA,
		NameRule: NameRule(c.NameRule), SecretLength: c.SecretSize, Created: instant(c.Created),
		Methods: methods, AllowUnsignedProxyState: options.UnsignedProxyState,
		Dialogues: named[string](options.Dialogues), Joined: named[string](options.Joined), Rate: options.Rate,
		Replies: RadiusReplies{}, Messages: options.Messages,
	}
	if v.Messages == nil {
		v.Messages = RadiusMessages{}
	}
	for _, r := range options.Replies {
		shown := RadiusReply{Group: unlessEmpty(r.Group), Attributes: make([]RadiusAttribute, len(r.Attributes))}
		for i, a := range r.Attributes {
			shown.Attributes[i] = RadiusAttribute(a)
		}
		v.Replies = append(v.Replies, shown)
	}
	return v
}
