package api

import (
	"context"
	"fmt"
	"math/bits"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/tokens/policy"
)

// ListTokens is GET /v1/tokens.
func (s *Server) ListTokens(c echo.Context, params ListTokensParams) error {
	p, err := pageOf(params.Cursor, params.Limit)
	if err != nil {
		return err
	}
	if params.State != nil && !params.State.Valid() {
		return fmt.Errorf("%w: state is imported, pending, active, suspended, lost or revoked", tokens.ErrInvalid)
	}
	if params.Type != nil && !params.Type.Valid() {
		return fmt.Errorf("%w: type is totp, hotp, yubico, fido, recovery or temporary", tokens.ErrInvalid)
	}
	if params.Batch != nil && *params.Batch < 1 {
		return fmt.Errorf("%w: batch is the number of an import, from 1 on", tokens.ErrInvalid)
	}
	rows, next, err := s.cfg.Core.Tokens(c.Request().Context(), who(c), tokens.TokenQuery{
		Realm: value(params.Realm), Owner: value(params.User), State: tokens.State(value(params.State)), Type: tokens.Type(value(params.Type)),
		Q: value(params.Q), Tag: value(params.Tag), Batch: value(params.Batch), After: p.mark, Limit: p.limit,
	})
	return reply(c, TokenPage{Items: views(rows, tokenView), Next: cursorOf(next)}, err)
}

// ShowToken is GET /v1/tokens/{serial}.
func (s *Server) ShowToken(c echo.Context, serial Serial, params ShowTokenParams) error {
	t, err := s.cfg.Core.ShowToken(c.Request().Context(), who(c), value(params.Realm), serial)
	return reply(c, tokenView(&t), err)
}

// AssignToken is POST /v1/tokens/{serial}/assign.
func (s *Server) AssignToken(c echo.Context, serial Serial, params AssignTokenParams) error {
	in, err := decode[Assignment](c, "user")
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	t, err := s.cfg.Core.Assign(c.Request().Context(), who(c), realm, serial, in.User)
	return acted(c, policy.TokenAssign, &t, err)
}

// ResyncToken is POST /v1/tokens/{serial}/resync.
func (s *Server) ResyncToken(c echo.Context, serial Serial, params ResyncTokenParams) error {
	return showsCodes(c, policy.TokenResync, serial, params.Realm, s.cfg.Core.Resync)
}

// ActivateToken is POST /v1/tokens/{serial}/activate.
func (s *Server) ActivateToken(c echo.Context, serial Serial, params ActivateTokenParams) error {
	return showsCodes(c, policy.TokenActivate, serial, params.Realm, s.cfg.Core.Activate)
}

// showsCodes does one of the acts that take two consecutive codes of a token.
func showsCodes(c echo.Context, action policy.Action, serial string, query *string,
	do func(ctx context.Context, p tokens.Principal, realm, serial, code1, code2 string) (tokens.Token, error),
) error {
	in, err := decode[Resync](c, "code1", "code2")
	if err != nil {
		return err
	}
	realm, err := oneRealm(query, in.Realm)
	if err != nil {
		return err
	}
	t, err := do(c.Request().Context(), who(c), realm, serial, in.Code1, in.Code2)
	return acted(c, action, &t, err)
}

// UnassignToken is POST /v1/tokens/{serial}/unassign.
func (s *Server) UnassignToken(c echo.Context, serial Serial, params UnassignTokenParams) error {
	return act(c, policy.TokenUnassign, serial, params.Realm, s.cfg.Core.Unassign)
}

// SuspendToken is POST /v1/tokens/{serial}/suspend.
func (s *Server) SuspendToken(c echo.Context, serial Serial, params SuspendTokenParams) error {
	return act(c, policy.TokenSuspend, serial, params.Realm, s.cfg.Core.Suspend)
}

// ResumeToken is POST /v1/tokens/{serial}/resume.
func (s *Server) ResumeToken(c echo.Context, serial Serial, params ResumeTokenParams) error {
	return act(c, policy.TokenResume, serial, params.Realm, s.cfg.Core.Resume)
}

// RevokeToken is POST /v1/tokens/{serial}/revoke.
func (s *Server) RevokeToken(c echo.Context, serial Serial, params RevokeTokenParams) error {
	return act(c, policy.TokenRevoke, serial, params.Realm, s.cfg.Core.Revoke)
}

// act does one of the acts on a token that take a reason.
func act(c echo.Context, action policy.Action, serial string, query *string,
	do func(ctx context.Context, p tokens.Principal, realm, serial, reason string) (tokens.Token, error),
) error {
	in, err := decodeOptional[Reason](c)
	if err != nil {
		return err
	}
	if in == nil {
		in = &Reason{}
	}
	realm, err := oneRealm(query, in.Realm)
	if err != nil {
		return err
	}
	t, err := do(c.Request().Context(), who(c), realm, serial, value(in.Reason))
	return acted(c, action, &t, err)
}

// tokenView shows a token; its wrapped seed and binding stay where they are.
func tokenView(t *tokens.Token) Token {
	v := Token{
		Serial: t.Serial, Realm: t.Realm, Type: TokenType(t.Type), Digits: t.Digits, State: TokenState(t.State), User: t.Owner, Model: t.Model, Batch: t.Batch, Created: instant(t.Created),
	}
	switch t.Type {
	case tokens.FIDO, tokens.Recovery, tokens.Temporary:
	default:
		v.Algorithm = TokenAlgorithm(t.Algorithm.String())
	}
	switch t.Type {
	case tokens.FIDO:
		fidoView(&v, t)
	case tokens.HOTP:
		v.Counter = &t.Last
	case tokens.YubicoOTP:
		v.Counter, v.PublicId = &t.Last, &t.PublicID
	case tokens.Recovery:
		left := max(0, len(t.Passcodes)-bits.OnesCount64(uint64(t.Last)))
		v.Left = &left
	case tokens.Temporary:
		left := max(0, t.Uses-int(t.Last))
		if len(t.Passcodes) == 0 { // it is revoked
			left = 0
		}
		v.Left, v.Uses = &left, &t.Uses
	default:
		v.Period, v.Drift = &t.Period, &t.Drift
	}
	v.Hint, v.Note = unlessEmpty(t.Hint), unlessEmpty(t.Note)
	v.Assigned, v.Expires = unlessZero(t.Assigned), unlessZero(t.Expires)
	if len(t.Tags) > 0 {
		v.Tags = &t.Tags
	}
	if t.UsedAt > 0 {
		used := time.Unix(t.UsedAt, 0).UTC()
		v.LastUsed = &used
	}
	return v
}
