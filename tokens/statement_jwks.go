package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"watchword/tokens/policy"
)

// jwk is a public key as JSON Web Key (RFC 7517; RFC 7518, section 6.2). The fields
// that RFC 7638 hashes come first, in its order.
type jwk struct {
	Curve string `json:"crv"`
	Type  string `json:"kty"`
	X     string `json:"x"`
	Y     string `json:"y"`
	KID   string `json:"kid,omitempty"`
	Use   string `json:"use,omitempty"`
	Alg   string `json:"alg,omitempty"`
}

func (k *statementKey) jwk() *jwk {
	return &jwk{
		Curve: "P-256", Type: "EC",
		X: base64.RawURLEncoding.EncodeToString(k.Point[1:33]), Y: base64.RawURLEncoding.EncodeToString(k.Point[33:]),
	}
}

// thumbprint names a key by what it is (RFC 7638, section 3).
func (j *jwk) thumbprint() string {
	// None of the four values has a character that JSON would escape.
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"%s","kty":"%s","x":"%s","y":"%s"}`, j.Curve, j.Type, j.X, j.Y))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// JWKS is the JWK set (RFC 7517, section 5) of the keys that are published: by it
// anybody can verify statements, and may keep it for JWKSMaxAge. It tells nothing
// that is secret and asks nobody who they are.
func (s *Service) JWKS(ctx context.Context) ([]byte, error) {
	if now, last := time.Since(s.regEpoch), s.statements.looked.Load(); last == 0 || now > time.Duration(last)+jwksLook {
		if _, err := s.current(ctx, Principal{Kind: KindSystem, Scope: policy.ScopeSystem}, nil); err != nil {
			return nil, err
		}
		s.statements.looked.Store(int64(now))
	}
	state, err := s.statementState(ctx)
	if err != nil {
		return nil, err
	}
	set := struct {
		Keys []*jwk `json:"keys"`
	}{Keys: []*jwk{}}
	now := s.cfg.Now()
	for i := range state.Keys {
		if k := &state.Keys[i]; k.live(now) {
			j := k.jwk()
			j.KID, j.Use, j.Alg = k.KID, "sig", "ES256"
			set.Keys = append(set.Keys, j)
		}
	}
	return json.Marshal(set)
}
