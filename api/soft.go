package api

import (
	"fmt"
	"net/url"

	"github.com/labstack/echo/v4"

	"watchword/api/console"
	"watchword/seeds"
	"watchword/tokens"
	"watchword/tokens/policy"
)

// NewToken is POST /v1/users/{name}/tokens. Its answer is the only place where the
// seed is shown.
func (s *Server) NewToken(c echo.Context, name UserName, params NewTokenParams) error {
	in, err := decodeOptional[NewToken](c)
	if err != nil {
		return err
	}
	if in == nil {
		in = &NewToken{}
	}
	realm, err := oneRealm(params.Realm, in.Realm)
	if err != nil {
		return err
	}
	n, err := s.softWanted(in)
	if err != nil {
		return err
	}
	n.Realm, n.User = realm, name
	t, uri, err := s.cfg.Core.EnrolSoft(c.Request().Context(), who(c), n)
	if err != nil {
		return unsaid(policy.TokenEnrol, err)
	}
	defer clear(uri)
	body, err := madeToken(&t, uri)
	if err != nil {
		return err
	}
	return createdSecret(c, "/v1/tokens/"+url.PathEscape(t.Serial), body)
}

// softWanted is the software token that a request asks for.
func (s *Server) softWanted(in *NewToken) (n tokens.NewSoft, err error) {
	if in.Type != nil && !in.Type.Valid() {
		return n, fmt.Errorf("%w: type is totp", tokens.ErrInvalid)
	}
	if in.Algorithm != nil && !in.Algorithm.Valid() {
		return n, fmt.Errorf("%w: algorithm is sha1, sha256 or sha512", tokens.ErrInvalid)
	}
	if n.Algorithm, err = seeds.ParseHash(string(value(in.Algorithm))); err != nil {
		return n, err
	}
	if n.Digits = value(in.Digits); in.Digits != nil && (n.Digits < 6 || n.Digits > 8) {
		return n, fmt.Errorf("%w: digits is 6, 7 or 8", tokens.ErrInvalid)
	}
	if n.Period = value(in.Period); in.Period != nil && n.Period != 30 && n.Period != 60 {
		return n, fmt.Errorf("%w: period is 30 or 60 seconds", tokens.ErrInvalid)
	}
	if n.Issuer = value(in.Issuer); n.Issuer == "" {
		n.Issuer = s.name
	}
	return n, nil
}

// madeToken is the answer with a new token's seed: as key URI, as text and as
// picture. The caller wipes it.
func madeToken(t *tokens.Token, uri []byte) ([]byte, error) {
	key, err := console.Key(uri)
	if err != nil {
		return nil, err
	}
	secret := quoted(key)
	defer clear(secret)
	link := quoted(uri)
	defer clear(link)
	qr, err := pngURI(uri)
	if err != nil {
		return nil, err
	}
	defer clear(qr)
	return withSecrets(issuedView(policy.TokenEnrol, t), secretField{"uri", link}, secretField{"secret", secret}, secretField{"qr", qr})
}
