package api

import (
	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/tokens/policy"
)

// AnnotateToken is PATCH /v1/tokens/{serial}.
func (s *Server) AnnotateToken(c echo.Context, serial Serial, params AnnotateTokenParams) error {
	in, err := decode[Annotation](c)
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	t, err := s.cfg.Core.Annotate(c.Request().Context(), who(c), realm, serial, tokens.NoteEdit{
		Note: in.Note, Add: value(in.AddTags), Drop: value(in.DropTags),
	})
	return acted(c, policy.TokenNote, &t, err)
}

// SetExpiry is PUT /v1/tokens/{serial}/expiry.
func (s *Server) SetExpiry(c echo.Context, serial Serial, params SetExpiryParams) error {
	in, err := decode[Expiry](c, "expires")
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	t, err := s.cfg.Core.SetExpiry(c.Request().Context(), who(c), realm, serial, in.Expires.time)
	return acted(c, policy.TokenExpire, &t, err)
}

// ReplaceToken is POST /v1/tokens/{serial}/replace.
func (s *Server) ReplaceToken(c echo.Context, serial Serial, params ReplaceTokenParams) error {
	in, err := decode[Replacement](c, "by")
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	was, next, err := s.cfg.Core.Replace(c.Request().Context(), who(c), realm, serial, in.By, value(in.Reason))
	if err != nil {
		return unsaid(policy.TokenReplace, err)
	}
	return reply(c, Replaced{Old: tokenView(&was), Token: tokenView(&next), Say: said(policy.TokenReplace, &next, nil)}, nil)
}
