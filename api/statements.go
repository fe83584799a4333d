package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// statementWanted is the statement that a request asks for, nil for none. It is
// looked at before anything is verified: nobody's code is used up for a statement
// that cannot be.
func statementWanted(in *StatementRequest) (*tokens.StatementRequest, error) {
	if in == nil {
		return nil, nil
	}
	switch {
	case in.Audience == "" || len(in.Audience) > 255 || !isText(in.Audience):
		return nil, fmt.Errorf("%w: the audience of a statement is 1 to 255 bytes of text in one line", tokens.ErrInvalid)
	case len(value(in.Nonce)) > 255 || !isText(value(in.Nonce)):
		return nil, fmt.Errorf("%w: the nonce of a statement is up to 255 bytes of text in one line", tokens.ErrInvalid)
	case in.Ttl != nil && (*in.Ttl < 1 || *in.Ttl > int(tokens.MaxStatementTTL/time.Second)):
		return nil, fmt.Errorf("%w: the ttl of a statement is 1 to %d seconds", tokens.ErrInvalid, int(tokens.MaxStatementTTL/time.Second))
	}
	return &tokens.StatementRequest{Audience: in.Audience, Nonce: value(in.Nonce), TTL: seconds(in.Ttl)}, nil
}

// errMoved is an accept whose token or user is no longer what was accepted when the
// statement was to be made.
var errMoved = errors.New("the token was taken out of use meanwhile")

// statement makes the statement of an accept, if one is wanted. Without it there is
// no answer of accept either: errMoved is a reject, anything else a fault.
func (s *Server) statement(c echo.Context, wanted *tokens.StatementRequest, v tokens.Verified) (*string, error) {
	if wanted == nil {
		return nil, nil
	}
	jwt, err := s.cfg.Core.Statement(c.Request().Context(), who(c), *wanted, v)
	for _, moved := range []error{tokens.ErrState, tokens.ErrNotFound, tokens.ErrTampered} {
		if errors.Is(err, moved) {
			return nil, errMoved
		}
	}
	return &jwt, err
}

// CheckStatement is POST /v1/statements/check.
func (s *Server) CheckStatement(c echo.Context) error {
	in, err := decode[StatementCheck](c, "statement", "audience")
	if err != nil {
		return err
	}
	if err := bounded("audience", &in.Audience, 255); err != nil {
		return err
	}
	if in.MaxAge != nil && *in.MaxAge < 1 {
		return fmt.Errorf("%w: max_age is 1 second or more", tokens.ErrInvalid)
	}
	claims, err := s.cfg.Core.CheckStatement(c.Request().Context(), who(c), in.Statement, in.Audience, seconds(in.MaxAge))
	if bad := new(tokens.StatementError); errors.As(err, &bad) {
		return reply(c, StatementVerdict{Active: false, Reason: &bad.Reason, Detail: &bad.Why}, nil)
	}
	if err != nil {
		return err
	}
	text, err := json.Marshal(claims)
	raw := json.RawMessage(text)
	return reply(c, StatementVerdict{Active: true, Claims: &raw}, err)
}

// ListStatementKeys is GET /v1/statements/keys.
func (s *Server) ListStatementKeys(c echo.Context) error {
	list, err := s.cfg.Core.StatementKeys(c.Request().Context(), who(c))
	return reply(c, StatementKeyPage{Items: views(list, statementKeyView)}, err)
}

// RotateStatementKey is POST /v1/statements/keys.
func (s *Server) RotateStatementKey(c echo.Context) error {
	in, err := decodeOptional[Rotation](c)
	if err != nil {
		return err
	}
	if in == nil {
		in = &Rotation{}
	}
	list, err := s.cfg.Core.RotateStatementKey(c.Request().Context(), who(c), value(in.Now))
	return reply(c, StatementKeyPage{Items: views(list, statementKeyView)}, err)
}

func statementKeyView(k *tokens.StatementKey) StatementKey {
	return StatementKey{
		Version: int64(k.Version), Kid: k.KID, State: StatementKeyState(k.State), Created: instant(k.Created),
		Signs: unlessZero(k.Signs), Until: unlessZero(k.Until),
	}
}

// Jwks is GET /.well-known/jwks.json.
func (s *Server) Jwks(c echo.Context) error {
	text, err := s.cfg.Core.JWKS(c.Request().Context())
	if err != nil { // whatever it is, applications can do nothing but wait
		return fmt.Errorf("%w: %v", tokens.ErrUnavailable, err)
	}
	c.Response().Header().Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(tokens.JWKSMaxAge/time.Second)))
	return c.Blob(http.StatusOK, "application/json", text)
}
