package api

import (
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
	k, text, err := s.cfg.Core.AddKey(c.Request().Context(), who(c), tokens.NewKey{
		Name: in.Name, Realm: realm, Scope: string(in.Scope), Expires: value(in.Expires),
	})
	out := keyView(&k)
	out.Key = &text
	return created(c, "/v1/keys/"+url.PathEscape(k.ID), out, err)
}

// DeleteKey is DELETE /v1/keys/{id}.
func (s *Server) DeleteKey(c echo.Context, id string) error {
	return gone(c, s.cfg.Core.DeleteKey(c.Request().Context(), who(c), id))
}

func keyView(k *tokens.APIKey) Key {
	v := Key{
		Id: k.ID, Name: k.Name, Scope: Scope(k.Scope), Created: instant(k.Created),
		Expires: unlessZero(k.Expires), LastUsed: unlessZero(k.LastUsed),
	}
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
