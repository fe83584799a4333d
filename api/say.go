package api

import (
	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/tokens/policy"
)

// saying is an error of an act, with what the helpdesk tells the user of it.
type saying struct {
	error
	say string
}

func (s *saying) Unwrap() error { return s.error }

// unsaid is the error of an act, with what to say of it, if there is anything.
func unsaid(action policy.Action, err error) error {
	if say := tokens.Say(action, nil, nil, err); say != "" {
		return &saying{err, say}
	}
	return err
}

// said is what to say of an act that was done; nil if there is nothing.
func said(action policy.Action, t *tokens.Token, u *tokens.UserEntry) *string {
	if say := tokens.Say(action, t, u, nil); say != "" {
		return &say
	}
	return nil
}

// acted answers an act on a token.
func acted(c echo.Context, action policy.Action, t *tokens.Token, err error) error {
	if err != nil {
		return unsaid(action, err)
	}
	v := tokenView(t)
	v.Say = said(action, t, nil)
	return reply(c, v, nil)
}

// actedOnUser answers an act on a user.
func actedOnUser(c echo.Context, action policy.Action, u *tokens.UserEntry, err error) error {
	if err != nil {
		return unsaid(action, err)
	}
	v := userView(u)
	v.Say = said(action, nil, u)
	return reply(c, v, nil)
}
