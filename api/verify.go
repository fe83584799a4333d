package api

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// Verify is POST /v1/verify.
func (s *Server) Verify(c echo.Context, params VerifyParams) error {
	in, err := decode[VerifyRequest](c, "user", "code")
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	wanted, err := statementWanted(in.Statement)
	if err != nil {
		return err
	}
	if err := bounded("application", in.Application, 253); err != nil {
		return err
	}
	origin := tokens.Origin{NAS: value(in.Application)}
	if in.Caller != nil {
		if origin.Caller, err = netip.ParseAddr(*in.Caller); err != nil {
			return fmt.Errorf("%w: caller is no network address, such as 192.0.2.7", tokens.ErrInvalid)
		}
	}
	got, err := s.cfg.Core.Verify(c.Request().Context(), who(c), tokens.Attempt{
		Realm: realm, User: in.User, Code: in.Code, Transport: "http", Origin: origin,
	})
	if err != nil || !got.Accept {
		return reply(c, VerifyResult{Result: VerdictReject}, err)
	}
	out := VerifyResult{Result: VerdictAccept, Serial: &got.Serial}
	out.Statement, err = s.statement(c, wanted, tokens.Verified{Realm: realm, User: in.User, Serial: got.Serial})
	if errors.Is(err, errMoved) {
		return reply(c, VerifyResult{Result: VerdictReject}, nil)
	}
	return reply(c, out, err)
}
