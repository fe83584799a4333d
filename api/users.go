package api

import (
	"net/url"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/tokens/policy"
)

// ListUsers is GET /v1/users.
func (s *Server) ListUsers(c echo.Context, params ListUsersParams) error {
	p, err := pageOf(params.Cursor, params.Limit)
	if err != nil {
		return err
	}
	rows, next, err := s.cfg.Core.Users(c.Request().Context(), who(c), tokens.UserQuery{
		Realm: value(params.Realm), Q: value(params.Q), External: value(params.ExternalId), Group: value(params.Group),
		After: p.mark, Limit: p.limit,
	})
	return reply(c, UserPage{Items: views(rows, userView), Next: cursorOf(next)}, err)
}

// AddUser is POST /v1/users.
func (s *Server) AddUser(c echo.Context, params AddUserParams) error {
	in, err := decode[NewUser](c, "name")
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	u, err := s.cfg.Core.CreateUser(c.Request().Context(), who(c), tokens.NewUserRequest{
		Realm: realm, Name: in.Name, Groups: value(in.Groups),
		Profile: tokens.Profile{
			Display: value(in.Display), Mail: value(in.Mail), External: value(in.ExternalId), Attributes: value(in.Attributes),
		},
	})
	return created(c, "/v1/users/"+url.PathEscape(u.Name), userView(&u), err)
}

// ShowUser is GET /v1/users/{name}.
func (s *Server) ShowUser(c echo.Context, name UserName, params ShowUserParams) error {
	u, held, err := s.cfg.Core.ShowUser(c.Request().Context(), who(c), value(params.Realm), name)
	out := userView(&u)
	list := views(held, tokenView)
	out.Tokens = &list
	return reply(c, out, err)
}

// EditUser is PATCH /v1/users/{name}.
func (s *Server) EditUser(c echo.Context, name UserName, params EditUserParams) error {
	in, err := decode[UserEdit](c)
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	u, err := s.cfg.Core.EditUser(c.Request().Context(), who(c), realm, name, tokens.ProfileEdit{
		Display: in.Display, Mail: in.Mail, External: in.ExternalId, Attributes: value(in.Attributes),
	})
	return reply(c, userView(&u), err)
}

// EnableUser is POST /v1/users/{name}/enable.
func (s *Server) EnableUser(c echo.Context, name UserName, params EnableUserParams) error {
	return s.setUserState(c, policy.UserEnable, name, params.Realm, tokens.UserEnabled)
}

// DisableUser is POST /v1/users/{name}/disable.
func (s *Server) DisableUser(c echo.Context, name UserName, params DisableUserParams) error {
	return s.setUserState(c, policy.UserDisable, name, params.Realm, tokens.UserDisabled)
}

func (s *Server) setUserState(c echo.Context, action policy.Action, name string, query *string, state tokens.UserState) error {
	realm, err := bareRealm(c, query)
	if err != nil {
		return err
	}
	u, err := s.cfg.Core.SetUserState(c.Request().Context(), who(c), realm, name, state)
	return actedOnUser(c, action, &u, err)
}

// UnlockUser is POST /v1/users/{name}/unlock.
func (s *Server) UnlockUser(c echo.Context, name UserName, params UnlockUserParams) error {
	realm, err := bareRealm(c, params.Realm)
	if err != nil {
		return err
	}
	u, err := s.cfg.Core.UnlockUser(c.Request().Context(), who(c), realm, name)
	return actedOnUser(c, policy.UserUnlock, &u, err)
}

// UnlockOwner is POST /v1/tokens/{serial}/unlock.
func (s *Server) UnlockOwner(c echo.Context, serial Serial, params UnlockOwnerParams) error {
	realm, err := bareRealm(c, params.Realm)
	if err != nil {
		return err
	}
	u, err := s.cfg.Core.UnlockOwner(c.Request().Context(), who(c), realm, serial)
	return actedOnUser(c, policy.UserUnlock, &u, err)
}

// Why is GET /v1/users/{name}/why.
func (s *Server) Why(c echo.Context, name UserName, params WhyParams) error {
	p, err := pageOf(nil, params.Limit)
	if err != nil {
		return err
	}
	list, err := s.cfg.Core.Why(c.Request().Context(), who(c), value(params.Realm), name, p.limit)
	return reply(c, ExplanationPage{Items: views(list, explanationView)}, err)
}

// bareRealm is the realm of a request whose body, if there is one, says
// nothing else.
func bareRealm(c echo.Context, query *string) (string, error) {
	in, err := decodeOptional[Nothing](c)
	if err != nil || in == nil {
		return value(query), err
	}
	return oneRealm(query, in.Realm)
}

func userView(u *tokens.UserEntry) User {
	v := User{
		Name: u.Name, Realm: u.Realm, State: UserState(u.State), Locked: u.Locked, HasPin: u.HasPIN(), PinDue: u.PINDue,
		Failures: u.Failures, TokenCount: u.Tokens, Created: instant(u.Created),
		Display: unlessEmpty(u.Profile.Display), Mail: unlessEmpty(u.Profile.Mail), ExternalId: unlessEmpty(u.Profile.External),
	}
	if len(u.Profile.Attributes) > 0 {
		v.Attributes = &u.Profile.Attributes
	}
	if len(u.Groups) > 0 {
		v.Groups = &u.Groups
	}
	return v
}
