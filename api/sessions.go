package api

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/tokens/policy"
)

// SignIn is POST /v1/session. Its answer is the only place where a session is shown.
func (s *Server) SignIn(c echo.Context, params SignInParams) error {
	in, err := decode[SignIn](c, "user", "code")
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	r, err := sessionWanted(in.In, in.DurationSeconds)
	if err != nil {
		return err
	}
	r.Realm, r.User, r.Code, r.Transport = realm, in.User, in.Code, "http"
	v, err := s.cfg.Core.SignIn(c.Request().Context(), who(c), r)
	if err != nil || v == nil {
		return reply(c, SignedIn{Result: VerdictReject}, err)
	}
	info := sessionView(v)
	return created(c, "/v1/sessions/"+url.PathEscape(v.ID), SignedIn{Result: VerdictAccept, Session: &v.Text, Info: &info}, nil)
}

// sessionWanted is what was said of the session to open.
func sessionWanted(in *string, life *SessionLife) (tokens.SignInRequest, error) {
	r := tokens.SignInRequest{In: value(in)}
	if life != nil {
		if r.For = seconds(life); r.For <= 0 {
			return r, fmt.Errorf("%w: duration_seconds is %d; %d to %d are possible", tokens.ErrInvalid, *life,
				int(tokens.ShortestSession/time.Second), int(tokens.LongestSession/time.Second))
		}
	}
	return r, nil
}

// ShowSession is GET /v1/session.
func (s *Server) ShowSession(c echo.Context) error {
	v, err := s.cfg.Core.Me(c.Request().Context(), who(c))
	if err != nil {
		return err
	}
	return reply(c, sessionView(v), nil)
}

// SignOut is DELETE /v1/session.
func (s *Server) SignOut(c echo.Context) error {
	return gone(c, s.cfg.Core.SignOut(c.Request().Context(), who(c)))
}

// RenewSession is POST /v1/session/renew.
func (s *Server) RenewSession(c echo.Context) error {
	in, err := decode[Renewal](c, "code")
	if err != nil {
		return err
	}
	v, err := s.cfg.Core.StepUp(c.Request().Context(), who(c), in.Code, "http")
	if err != nil || v == nil {
		return reply(c, SignedIn{Result: VerdictReject}, err)
	}
	info := sessionView(v)
	return reply(c, SignedIn{Result: VerdictAccept, Info: &info}, nil)
}

// CheckSession is POST /v1/session/check.
func (s *Server) CheckSession(c echo.Context) error {
	in, err := decode[SessionCheck](c, "session")
	if err != nil {
		return err
	}
	got, err := s.cfg.Core.CheckSession(c.Request().Context(), who(c), in.Session)
	if err != nil || !got.Active {
		return reply(c, SessionVerdict{}, err)
	}
	return reply(c, SessionVerdict{
		Active: true, User: &got.User, Realm: &got.Realm, Serial: &got.Serial, Amr: &got.Methods,
		Authenticated: unlessZero(got.Authenticated), Expires: unlessZero(got.Expires),
	}, nil)
}

// ListSessions is GET /v1/sessions.
func (s *Server) ListSessions(c echo.Context, params ListSessionsParams) error {
	list, err := s.cfg.Core.Sessions(c.Request().Context(), who(c), value(params.Realm), value(params.User))
	return reply(c, SessionPage{Items: views(list, openView)}, err)
}

// EndSession is DELETE /v1/sessions/{id}.
func (s *Server) EndSession(c echo.Context, id string) error {
	return gone(c, s.cfg.Core.EndSession(c.Request().Context(), who(c), id))
}

// openView is a session as listed.
func openView(v *tokens.Session) Session {
	out := Session{
		Id: v.ID, User: v.User, Realm: v.Home, Serial: v.Serial, Amr: strings.Split(v.Method, ","),
		In: unlessEmpty(v.Realm), Source: unlessEmpty(v.Bound), Through: unlessEmpty(v.Through),
		Created: instant(v.Created), Authenticated: instant(v.Authenticated), Expires: instant(v.Expires),
	}
	return out
}

func sessionView(v *tokens.SignedIn) Session {
	out := openView(&v.Session)
	roles := views(v.Roles, func(r *policy.Role) string { return string(*r) })
	out.Roles = &roles
	return out
}
