package api

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// Invite is POST /v1/users/{name}/invitations. Its answer is the only place where
// the code is shown.
func (s *Server) Invite(c echo.Context, name UserName, params InviteParams) error {
	in, err := decodeOptional[NewInvitation](c)
	if err != nil {
		return err
	}
	if in == nil {
		in = &NewInvitation{}
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	if in.Valid != nil && *in.Valid <= 0 {
		return fmt.Errorf("%w: valid is a number of seconds, from 60 on", tokens.ErrInvalid)
	}
	n := tokens.NewInvitation{Realm: realm, User: name, For: seconds(in.Valid)}
	for _, k := range value(in.Kinds) {
		n.Kinds = append(n.Kinds, string(k))
	}
	if s.cfg.FIDO == nil {
		if slices.Contains(n.Kinds, tokens.InviteFIDO) {
			return errNoParty
		}
		n.Kinds = []string{tokens.InviteTOTP}
	}
	i, code, err := s.cfg.Core.Invite(c.Request().Context(), who(c), n)
	out := invitationView(&i)
	path := "/enrol/" + url.PathEscape(code)
	out.Code, out.Path = &code, &path
	if base := s.pagesAt(); base != "" {
		address := base + path
		out.Url = &address
	}
	return created(c, "/v1/invitations/"+url.PathEscape(i.ID), out, err)
}

// seconds is a duration, bounded so that it cannot overflow.
func seconds(n *int) time.Duration {
	return time.Duration(min(max(value(n), -1), 1<<30)) * time.Second
}

// pagesAt is where people reach the pages, as far as it is known: the first origin
// of the first relying party, unless the configuration says another.
func (s *Server) pagesAt() string {
	if s.cfg.Address != "" {
		return strings.TrimSuffix(s.cfg.Address, "/")
	}
	if s.cfg.FIDO == nil {
		return ""
	}
	for _, p := range s.cfg.FIDO.Parties() {
		return p.Origins[0]
	}
	return ""
}

// ListInvitations is GET /v1/users/{name}/invitations.
func (s *Server) ListInvitations(c echo.Context, name UserName, params ListInvitationsParams) error {
	list, err := s.cfg.Core.Invitations(c.Request().Context(), who(c), value(params.Realm), name)
	return reply(c, InvitationPage{Items: views(list, invitationView)}, err)
}

// Uninvite is DELETE /v1/invitations/{id}.
func (s *Server) Uninvite(c echo.Context, id string) error {
	return gone(c, s.cfg.Core.Uninvite(c.Request().Context(), who(c), id))
}

func invitationView(i *tokens.Invitation) Invitation {
	v := Invitation{
		Id: i.ID, Realm: i.Realm, User: i.User, Kinds: i.Kinds, Actor: i.Actor,
		Created: instant(i.Created), Expires: instant(i.Expires), Used: unlessZero(i.Used),
	}
	if v.Kinds == nil {
		v.Kinds = []string{}
	}
	if i.Serial != "" {
		v.Serial = &i.Serial
	}
	return v
}

// ShowGroups is GET /v1/users/{name}/groups.
func (s *Server) ShowGroups(c echo.Context, name UserName, params ShowGroupsParams) error {
	list, err := s.cfg.Core.UserGroups(c.Request().Context(), who(c), value(params.Realm), name)
	return reply(c, groupsView(list), err)
}

// SetGroups is PUT /v1/users/{name}/groups.
func (s *Server) SetGroups(c echo.Context, name UserName, params SetGroupsParams) error {
	in, err := decode[NewGroups](c, "groups")
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	list, err := s.cfg.Core.SetGroups(c.Request().Context(), who(c), realm, name, in.Groups)
	return reply(c, groupsView(list), err)
}

func groupsView(list []string) Groups {
	if list == nil {
		list = []string{}
	}
	return Groups{Groups: list}
}
