package api

import (
	"net/netip"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// ListKeys is GET /v1/keys.
func (s *Server) ListKeys(c echo.Context, params ListKeysParams) error {
	list, err := s.cfg.Core.Keys(c.Request().Context(), who(c))
	if err != nil {
		return err
	}
	list, err = inRealm(list, params.Realm, func(k *tokens.APIKey) string { return k.Realm })
	return reply(c, KeyPage{Items: views(list, keyView)}, err)
}

// AddKey is POST /v1/keys. Its answer is the only place where a key is shown.
func (s *Server) AddKey(c echo.Context, params AddKeyParams) error {
	in, err := decode[NewKey](c, "name", "scope")
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	var sources []netip.Prefix
	for _, text := range value(in.Sources) {
		n, err := parsePrefix(text)
		if err != nil {
			return err
		}
		sources = append(sources, n)
	}
	k, text, err := s.cfg.Core.AddKey(c.Request().Context(), who(c), tokens.NewKey{
		Name: in.Name, Realm: realm, Scope: string(in.Scope), Expires: value(in.Expires), Sources: sources,
	})
	out := keyView(&k)
	out.Key = &text
	return created(c, "/v1/keys/"+url.PathEscape(k.ID), out, err)
}

// DeleteKey is DELETE /v1/keys/{id}.
func (s *Server) DeleteKey(c echo.Context, id string) error {
	return gone(c, s.cfg.Core.DeleteKey(c.Request().Context(), who(c), id))
}

// RotateKey is POST /v1/keys/{id}/rotate. Its answer is the only place where the new
// key is shown.
func (s *Server) RotateKey(c echo.Context, id string) error {
	in, err := decodeOptional[KeyRotation](c)
	if err != nil {
		return err
	}
	if in == nil {
		in = &KeyRotation{}
	}
	k, text, err := s.cfg.Core.RotateKey(c.Request().Context(), who(c), id, seconds(in.OverlapSeconds))
	out := keyView(&k)
	out.Key = &text
	return created(c, "/v1/keys/"+url.PathEscape(k.ID), out, err)
}

func keyView(k *tokens.APIKey) Key {
	v := Key{
		Id: k.ID, Name: k.Name, Scope: Scope(k.Scope), Created: instant(k.Created),
		Expires: unlessZero(k.Expires), LastUsed: unlessZero(k.LastUsed),
	}
	if len(k.Sources) > 0 {
		list := views(k.Sources, func(n *netip.Prefix) string { return n.String() })
		v.Sources = &list
	}
	v.Successor = unlessEmpty(k.Successor)
	if k.Realm != "" {
		v.Realm = &k.Realm
	}
	return v
}

// unlessZero is a time in UTC, or nothing for the zero time.
func unlessZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = instant(t)
	return &t
}
