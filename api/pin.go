package api

import (
	"github.com/labstack/echo/v4"

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
