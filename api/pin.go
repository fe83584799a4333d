package api

import (
	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/tokens/policy"
)

// SetPin is PUT /v1/users/{name}/pin.
func (s *Server) SetPin(c echo.Context, name UserName, params SetPinParams) error {
	in, err := decode[NewPin](c, "pin")
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	u, err := s.cfg.Core.SetPIN(c.Request().Context(), who(c), realm, name, in.Pin, value(in.Change))
	return actedOnUser(c, policy.UserPIN, &u, err)
}

// RemovePin is DELETE /v1/users/{name}/pin.
func (s *Server) RemovePin(c echo.Context, name UserName, params RemovePinParams) error {
	u, err := s.cfg.Core.SetPIN(c.Request().Context(), who(c), value(params.Realm), name, "", false)
	return actedOnUser(c, policy.UserPIN, &u, err)
}

// ChangePin is POST /v1/pin, for users themselves.
func (s *Server) ChangePin(c echo.Context, params ChangePinParams) error {
	in, err := decode[PinChange](c, "user", "code", "new_pin")
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	got, err := s.cfg.Core.ChangePIN(c.Request().Context(), who(c), tokens.Attempt{
		Realm: realm, User: in.User, Code: in.Code, Transport: "http",
	}, in.NewPin)
	if err != nil || !got.Accept {
		return reply(c, PinChanged{Result: VerdictReject}, err)
	}
	return reply(c, PinChanged{Result: VerdictAccept}, nil)
}
