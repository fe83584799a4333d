package api

import (
	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// ListRoles is GET /v1/roles.
func (s *Server) ListRoles(c echo.Context, params ListRolesParams) error {
	list, err := s.cfg.Core.Grants(c.Request().Context(), who(c), value(params.Realm))
	return reply(c, RolePage{Items: views(list, grantView)}, err)
}

// GrantRole is PUT /v1/roles/{role}/users/{name}.
func (s *Server) GrantRole(c echo.Context, role string, name UserName, params GrantRoleParams) error {
	g, err := s.cfg.Core.GrantRole(c.Request().Context(), who(c), tokens.RoleRequest{
		Realm: value(params.Realm), User: name, Role: role, In: value(params.In),
	})
	return reply(c, grantView(&g), err)
}

// RevokeRole is DELETE /v1/roles/{role}/users/{name}.
func (s *Server) RevokeRole(c echo.Context, role string, name UserName, params RevokeRoleParams) error {
	return gone(c, s.cfg.Core.RevokeRole(c.Request().Context(), who(c), tokens.RoleRequest{
		Realm: value(params.Realm), User: name, Role: role, In: value(params.In),
	}))
}

func grantView(g *tokens.Grant) RoleGrant {
	return RoleGrant{User: g.User, Realm: g.Home, Role: g.Role, In: unlessEmpty(g.Realm), Actor: g.Actor, Created: instant(g.Created)}
}
