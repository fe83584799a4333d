package api

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/tokens/policy"
)

// IssueRecovery is POST /v1/users/{name}/recovery. Its answer is the only place
// where the codes are shown.
func (s *Server) IssueRecovery(c echo.Context, name UserName, params IssueRecoveryParams) error {
	realm, err := bareRealm(c, params.Realm)
	if err != nil {
		return err
	}
	t, codes, err := s.cfg.Core.IssueRecovery(c.Request().Context(), who(c), realm, name)
	defer func() {
		for _, code := range codes {
			clear(code)
		}
	}()
	if err != nil {
		return unsaid(policy.RecoveryAdd, err)
	}
	list := quotedList(codes)
	defer clear(list)
	body, err := withSecrets(issuedView(policy.RecoveryAdd, &t), secretField{"codes", list})
	if err != nil {
		return err
	}
	return createdSecret(c, "/v1/tokens/"+url.PathEscape(t.Serial), body)
}

// IssueTemporary is POST /v1/users/{name}/temporary. Its answer is the only place
// where the code is shown.
func (s *Server) IssueTemporary(c echo.Context, name UserName, params IssueTemporaryParams) error {
	in, err := decodeOptional[NewTemporary](c)
	if err != nil {
		return err
	}
	if in == nil {
		in = &NewTemporary{}
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	wanted, err := temporaryWanted(in.ValidMinutes, in.Uses)
	if err != nil {
		return err
	}
	t, code, err := s.cfg.Core.IssueTemporary(c.Request().Context(), who(c), realm, name, wanted)
	defer clear(code)
	if err != nil {
		return unsaid(policy.TemporaryAdd, err)
	}
	body, err := temporaryJSON(&t, code)
	if err != nil {
		return err
	}
	return createdSecret(c, "/v1/tokens/"+url.PathEscape(t.Serial), body)
}

// LoseToken is POST /v1/tokens/{serial}/lost. With a temporary passcode its answer
// is the only place where that is shown.
func (s *Server) LoseToken(c echo.Context, serial Serial, params LoseTokenParams) error {
	in, err := decodeOptional[Loss](c)
	if err != nil {
		return err
	}
	if in == nil {
		in = &Loss{}
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	var wanted *tokens.TemporaryRequest
	if in.Temporary != nil {
		w, err := temporaryWanted(in.Temporary.ValidMinutes, in.Temporary.Uses)
		if err != nil {
			return err
		}
		wanted = &w
	}
	t, temporary, code, err := s.cfg.Core.Lose(c.Request().Context(), who(c), realm, serial, value(in.Reason), wanted)
	defer clear(code)
	if err != nil || temporary == nil {
		return acted(c, policy.TokenLost, &t, err)
	}
	passcode, err := temporaryJSON(temporary, code)
	if err != nil {
		return err
	}
	defer clear(passcode)
	v := tokenView(&t)
	v.Say = said(policy.TokenLost, &t, nil)
	body, err := withSecrets(v, secretField{"temporary", passcode})
	if err != nil {
		return err
	}
	return replySecret(c, http.StatusOK, body)
}

// temporaryWanted is the temporary passcode that a request asks for.
func temporaryWanted(minutes, uses *int) (t tokens.TemporaryRequest, err error) {
	if minutes != nil && *minutes < 1 || uses != nil && *uses < 1 {
		return t, fmt.Errorf("%w: valid_minutes and uses are 1 or more", tokens.ErrInvalid)
	}
	return tokens.TemporaryRequest{Valid: times(value(minutes), time.Minute), Uses: value(uses)}, nil
}

// temporaryJSON is a temporary passcode with its code. The caller wipes it.
func temporaryJSON(t *tokens.Token, code []byte) ([]byte, error) {
	text := quoted(code)
	defer clear(text)
	return withSecrets(issuedView(policy.TemporaryAdd, t), secretField{"code", text})
}
