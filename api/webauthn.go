package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/webauthn"
)

// errNoParty is what every operation about FIDO keys answers where there are none.
var errNoParty = fmt.Errorf("%w: this server is no relying party; name one in its configuration, under fido.parties", tokens.ErrState)

// fido is the service for FIDO keys, if there is one.
func (s *Server) fido() (FIDO, error) {
	if s.cfg.FIDO == nil {
		return nil, errNoParty
	}
	return s.cfg.FIDO, nil
}

// BeginRegistration is POST /v1/webauthn/register/begin.
func (s *Server) BeginRegistration(c echo.Context, params BeginRegistrationParams) error {
	in, err := decode[RegistrationRequest](c)
	if err != nil {
		return err
	}
	if err := bounded("user", in.User, 255); err != nil {
		return err
	}
	if in.User != nil && *in.User == "" || (in.User == nil) != value(in.Stock) {
		return fmt.Errorf("%w: name the user, or say that it is for stock", tokens.ErrInvalid)
	}
	if in.UserVerification != nil && !in.UserVerification.Valid() {
		return fmt.Errorf("%w: user_verification is required, preferred or discouraged", tokens.ErrInvalid)
	}
	if in.Attestation != nil && !in.Attestation.Valid() {
		return fmt.Errorf("%w: attestation is direct or enterprise", tokens.ErrInvalid)
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	keys, err := s.fido()
	if err != nil {
		return err
	}
	begun, err := keys.BeginRegistration(c.Request().Context(), who(c), webauthn.RegistrationRequest{
		Realm: realm, User: value(in.User), Stock: value(in.Stock), RPID: value(in.RpId), Discoverable: value(in.Discoverable),
		UserVerification: string(value(in.UserVerification)), Attestation: string(value(in.Attestation)),
	})
	return reply(c, ceremonyView(&begun), err)
}

// FinishRegistration is POST /v1/webauthn/register/finish.
func (s *Server) FinishRegistration(c echo.Context) error {
	in, err := decode[RegistrationResponse](c, "session", "response")
	if err != nil {
		return err
	}
	if err := isObject("response", in.Response); err != nil {
		return err
	}
	keys, err := s.fido()
	if err != nil {
		return err
	}
	t, err := keys.FinishRegistration(c.Request().Context(), who(c), in.Session, in.Response)
	return created(c, "/v1/tokens/"+url.PathEscape(t.Serial), tokenView(&t), err)
}

// BeginLogin is POST /v1/webauthn/login/begin.
func (s *Server) BeginLogin(c echo.Context, params BeginLoginParams) error {
	in, err := decode[LoginRequest](c)
	if err != nil {
		return err
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	if err := bounded("user", in.User, 255); err != nil {
		return err
	}
	if in.UserVerification != nil && !in.UserVerification.Valid() {
		return fmt.Errorf("%w: user_verification is required, preferred or discouraged", tokens.ErrInvalid)
	}
	keys, err := s.fido()
	if err != nil {
		return err
	}
	p, uv := who(c), string(value(in.UserVerification))
	if p.Kind != tokens.KindKey { // a person signs in, or renews the session
		p, uv = tokens.SignInPrincipal(p.Source), string(LoginRequestUserVerificationRequired)
	}
	begun, err := keys.BeginLogin(c.Request().Context(), p, webauthn.LoginRequest{
		Realm: realm, User: value(in.User), RPID: value(in.RpId), UserVerification: uv,
	})
	return reply(c, ceremonyView(&begun), err)
}

// FinishLogin is POST /v1/webauthn/login/finish.
func (s *Server) FinishLogin(c echo.Context) error {
	in, err := decode[LoginResponse](c, "session", "response")
	if err != nil {
		return err
	}
	if err := isObject("response", in.Response); err != nil {
		return err
	}
	wanted, err := statementWanted(in.Statement)
	if err != nil {
		return err
	}
	keys, err := s.fido()
	if err != nil {
		return err
	}
	p := who(c)
	if in.SignIn != nil {
		return s.signInByKey(c, keys, p, &in)
	}
	if p.Kind == tokens.KindSystem { // who signs in wants a session, and nothing else
		return errNoKey
	}
	got, err := keys.FinishLogin(c.Request().Context(), p, in.Session, in.Response, "http")
	if err != nil || !got.Accept {
		return reply(c, LoginResult{Result: VerdictReject}, err)
	}
	out := LoginResult{
		Result: VerdictAccept, Serial: &got.Token.Serial, User: &got.User, Realm: &got.Realm, UserVerified: &got.UserVerified,
	}
	out.Statement, err = s.statement(c, wanted, got.Verified())
	if errors.Is(err, errMoved) {
		return reply(c, LoginResult{Result: VerdictReject}, nil)
	}
	return reply(c, out, err)
}

// signInByKey opens a session for who showed a FIDO key, or renews the one that the
// request carries.
func (s *Server) signInByKey(c echo.Context, keys FIDO, p tokens.Principal, in *LoginResponse) error {
	if in.Statement != nil {
		return fmt.Errorf("%w: statement and sign_in exclude each other", tokens.ErrInvalid)
	}
	r, err := sessionWanted(in.SignIn.In, in.SignIn.DurationSeconds)
	if err != nil {
		return err
	}
	ctx, asks := c.Request().Context(), p
	if p.Kind != tokens.KindKey {
		asks = tokens.SignInPrincipal(p.Source)
	}
	got, err := keys.FinishLogin(ctx, asks, in.Session, in.Response, "http")
	if err != nil || !got.Accept {
		return reply(c, LoginResult{Result: VerdictReject}, err)
	}
	var v *tokens.SignedIn
	if p.Kind == tokens.KindAdmin {
		v, err = s.cfg.Core.StepUpKey(ctx, p, got)
	} else {
		v, err = s.cfg.Core.SignInKey(ctx, p, r, got)
	}
	if err != nil || v == nil {
		return reply(c, LoginResult{Result: VerdictReject}, err)
	}
	info := sessionView(v)
	return reply(c, LoginResult{
		Result: VerdictAccept, Serial: &got.Token.Serial, User: &got.User, Realm: &got.Realm, UserVerified: &got.UserVerified,
		Session: unlessEmpty(v.Text), Info: &info,
	}, nil)
}

func ceremonyView(b *webauthn.Ceremony) Ceremony {
	return Ceremony{Options: b.Options, Session: b.Session, Expires: instant(b.Expires)}
}

// isObject refuses a field that holds anything but an object.
func isObject(name string, text json.RawMessage) error {
	if len(text) == 0 || text[0] != '{' {
		return fmt.Errorf("%w: the field %q is no object", tokens.ErrInvalid, name)
	}
	return nil
}

// RelatedOrigins is GET /.well-known/webauthn (WebAuthn Level 3, section 5.11.1).
func (s *Server) RelatedOrigins(c echo.Context, params RelatedOriginsParams) error {
	id := value(params.RpId)
	if id == "" {
		id = c.Request().Host
		if host, _, err := net.SplitHostPort(id); err == nil {
			id = host
		}
	}
	if s.cfg.FIDO != nil {
		for _, p := range s.cfg.FIDO.Parties() {
			if p.ID == strings.ToLower(id) {
				c.Response().Header().Set("Cache-Control", "public, max-age=300")
				return reply(c, struct {
					Origins []string `json:"origins"`
				}{p.Origins}, nil)
			}
		}
	}
	return fmt.Errorf("%w: no relying party of this name", tokens.ErrNotFound)
}

// fidoView shows what a FIDO token has beside what all have.
func fidoView(v *Token, t *tokens.Token) {
	k := t.Credential
	if k == nil {
		return
	}
	model := tokens.FormatAAGUID(k.AAGUID)
	v.Counter, v.RpId, v.Aaguid, v.Attestation, v.Format = &t.Last, &k.RPID, &model, &k.Attestation, &k.Format
	v.Discoverable, v.UserVerified, v.Synced = &k.Discoverable, &k.UserVerified, &k.Synced
	if len(k.Transports) > 0 {
		v.Transports = &k.Transports
	}
}
