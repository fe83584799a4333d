package tokens

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// How long a statement is valid: by default and at most.
const (
	StatementTTL    = 5 * time.Minute
	MaxStatementTTL = time.Hour
)

const (
	// statementWithin is how soon after an accept its statement must be asked for.
	statementWithin = 2 * time.Minute
	maxAudience     = 255 // bytes
	maxNonce        = 255 // bytes
)

// StatementRequest asks for a signed statement of an accept.
type StatementRequest struct {
	Audience string        // whom it is for: the application, as it names itself; 1 to 255 bytes
	TTL      time.Duration // how long it is valid, in whole seconds; zero: StatementTTL
	Nonce    string        // what the application wants to find in it again; up to 255 bytes
}

func (r *StatementRequest) valid() error {
	if r.TTL == 0 {
		r.TTL = StatementTTL
	}
	text := func(s string) bool { return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl) }
	switch {
	case r.Audience == "" || len(r.Audience) > maxAudience || !text(r.Audience):
		return fmt.Errorf("%w: the audience of a statement is 1 to %d bytes of text", ErrInvalid, maxAudience)
	case len(r.Nonce) > maxNonce || !text(r.Nonce):
		return fmt.Errorf("%w: the nonce of a statement is up to %d bytes of text", ErrInvalid, maxNonce)
	case r.TTL < time.Second || r.TTL > MaxStatementTTL || r.TTL%time.Second != 0:
		return fmt.Errorf("%w: a statement that is valid for %s; 1s to %s, in whole seconds, are possible", ErrInvalid, r.TTL, MaxStatementTTL)
	}
	return nil
}

// Verified says which accept a statement is asked for. What the statement says of
// the token is read from the token.
type Verified struct {
	Realm  string // empty: the principal's, or the default one
	User   string
	Serial string // of the token that was accepted
	At     time.Time
	// Methods are the authentication methods (RFC 8176, section 2). None: what the
	// type of token and the user's PIN say, which for a key leaves out whether it
	// verified its user.
	Methods []string
}

// Verified is the accept of a key, for Statement.
func (r *KeyResult) Verified() Verified {
	methods := r.Token.methods(nil)
	if r.UserVerified {
		methods = append(methods, "mfa")
	}
	return Verified{Realm: r.Realm, User: r.User, Serial: r.Serial, At: r.At, Methods: methods}
}

// methods are the authentication methods that an accept of the token shows (RFC
// 8176, section 2). The owner matters where codes are typed.
func (t *Token) methods(owner *User) []string {
	switch {
	case t.Type == FIDO && t.Credential.hardware():
		return []string{"hwk", "user"}
	case t.Type == FIDO:
		return []string{"pop", "user"}
	case t.Type == Temporary && owner != nil && owner.HasPIN(): // something known, twice
		return []string{"pwd", "pin"}
	case t.Type == Temporary:
		return []string{"pwd"}
	case owner != nil && owner.HasPIN():
		return []string{"otp", "pin", "mfa"}
	}
	return []string{"otp"}
}

// hardware says that an attestation proved what holds the key, and that it holds
// it alone.
func (c *Credential) hardware() bool {
	return !c.Synced && slices.Contains([]string{"basic", "attca", "anonca"}, c.Attestation)
}

// methodNames are the values of RFC 8176, section 2.
var methodNames = []string{
	"face", "fpt", "geo", "hwk", "iris", "kba", "mca", "mfa", "otp", "pin", "pop", "pwd",
	"rba", "retina", "sc", "sms", "swk", "tel", "user", "vbm", "wia",
}

// StatementClaims is what a statement says (RFC 7519, section 4). Times are Unix
// seconds.
type StatementClaims struct {
	Issuer   string         `json:"iss"` // Config.Issuer
	Subject  string         `json:"sub"` // see subjectOf
	Realm    string         `json:"realm"`
	Audience string         `json:"aud"`
	Party    string         `json:"azp"` // who asked for it, as the audit names them. Whoever may verify can name any audience (OpenID Connect Core, section 2)
	IssuedAt int64          `json:"iat"`
	Expires  int64          `json:"exp"`
	ID       string         `json:"jti"`
	AuthTime int64          `json:"auth_time"` // when the code or key was accepted (OpenID Connect Core, section 2)
	Methods  []string       `json:"amr"`       // RFC 8176
	Context  string         `json:"acr,omitempty"`
	Nonce    string         `json:"nonce,omitempty"`
	Token    StatementToken `json:"token"`
}

// StatementToken is what a statement says of the token.
type StatementToken struct {
	Serial      string `json:"serial"`
	Type        Type   `json:"type"`
	Model       string `json:"model,omitempty"`
	AAGUID      string `json:"aaguid,omitempty"`      // of a key that has one; as 8-4-4-4-12 hex digits
	Attestation string `json:"attestation,omitempty"` // of a key: basic, attca, anonca, self, none
}

// subjectOf names a user so that no two users of one issuer have the same name
// (RFC 7519, section 4.1.2), since applications may look at nothing else: the
// user's key in the default realm, REALM/KEY in any other. A slash or a percent
// sign that is part of either is percent-encoded.
func subjectOf(realm, key string) string {
	encode := strings.NewReplacer("%", "%25", "/", "%2F").Replace
	if realm == DefaultRealm {
		return encode(key)
	}
	return encode(realm) + "/" + encode(key)
}

// User is the realm and key of the user that the statement is about.
func (c *StatementClaims) User() (realm, key string) {
	key = c.Subject
	if _, in, ok := strings.Cut(c.Subject, "/"); ok {
		key = in
	}
	if plain, err := url.PathUnescape(key); err == nil {
		key = plain
	}
	return c.Realm, key
}

// The authentication context classes of OpenID Connect Extended Authentication
// Profile: a key that nobody between can use, and one that is held in hardware.
const (
	contextPhishingResistant = "phr"
	contextHardware          = "phrh"
)

// Statement answers a signed statement of an accept, for an application: a JWT
// (RFC 7519) signed with ES256 under a key in the HSM, see JWKS. Whoever may verify
// may have one, within two minutes of the accept. Whatever the caller says, it is
// given only if the token, as it stands now, is active, the user's, and was last
// accepted within that time. That it was given is audited before it is answered.
//
// It fails with ErrState if the token or the user is no longer what was accepted,
// and with ErrUnavailable if nothing can be signed.
func (s *Service) Statement(ctx context.Context, p Principal, req StatementRequest, v Verified) (string, error) {
	if err := req.valid(); err != nil {
		return "", err
	}
	for _, m := range v.Methods {
		if !slices.Contains(methodNames, m) {
			return "", fmt.Errorf("%w: an authentication method that RFC 8176 does not name", ErrInvalid)
		}
	}
	if err := ValidSerial(v.Serial); err != nil {
		return "", err
	}
	realm, user, err := p.names(v.Realm, v.User)
	if err != nil {
		return "", err
	}
	e := audit.Event{Realm: realm, User: user, Serial: v.Serial, Detail: []audit.Field{{Name: "audience", Value: req.Audience}}}
	view, err := s.current(ctx, p, []Ref{{Realm: realm, User: user}})
	if err != nil {
		return "", err
	}
	d, err := s.decide(ctx, p, policy.Verify, &e, view.Subjects)
	if err != nil {
		return "", err
	}
	if e.Policy = determining(&d); !d.Allow {
		return "", s.deny(ctx, p, policy.StatementGive, e, d)
	}
	if s.skewed.Load() {
		return "", fmt.Errorf("%w: our clock and the database's differ, and a statement says what time it is", ErrUnavailable)
	}
	now := s.cfg.Now()
	t, err := s.stated(ctx, view.Subjects[0], &v, now)
	if err != nil {
		return "", s.refuse(ctx, p, policy.StatementGive, e, err)
	}
	c, err := s.claims(p, req, view.Subjects[0].User, t, &v, now)
	if err != nil {
		return "", err
	}
	jwt, kid, err := s.signStatement(ctx, c, now)
	if err != nil {
		return "", err
	}
	e.Detail = append(e.Detail,
		audit.Field{Name: "jti", Value: c.ID}, audit.Field{Name: "kid", Value: kid},
		audit.Field{Name: "methods", Value: strings.Join(c.Methods, ",")},
		audit.Field{Name: "expires", Value: time.Unix(c.Expires, 0).UTC().Format(time.RFC3339)})
	if err := s.record(ctx, p, policy.StatementGive, e); err != nil {
		return "", err
	}
	return jwt, nil
}

// stated is the token that was accepted, if all is as it was.
func (s *Service) stated(ctx context.Context, sub *Subject, v *Verified, now time.Time) (*Token, error) {
	if sub == nil || sub.User == nil {
		return nil, fmt.Errorf("%w: there is no such user", ErrNotFound)
	}
	i := slices.IndexFunc(sub.Tokens, func(t Token) bool { return t.Serial == v.Serial })
	switch {
	case i < 0:
		return nil, fmt.Errorf("%w: the user has no token with this serial", ErrNotFound)
	case sub.User.State != UserEnabled || sub.Locked:
		return nil, fmt.Errorf("%w: the user was disabled or locked", ErrState)
	case sub.Tokens[i].State != Active:
		return nil, fmt.Errorf("%w: the token is %s", ErrState, sub.Tokens[i].State)
	case sub.Tokens[i].expired(now):
		return nil, fmt.Errorf("%w: the token has expired", ErrState)
	}
	t := &sub.Tokens[i]
	if used := time.Unix(t.UsedAt, 0); t.UsedAt == 0 || now.Sub(used) > statementWithin || used.Sub(now) > s.cfg.ClockSkew {
		return nil, fmt.Errorf("%w: the token was not accepted in the last %s; verify first", ErrState, statementWithin)
	}
	switch ok, err := s.intact(ctx, t, sub.User.PINMAC); {
	case err != nil:
		return nil, err
	case !ok:
		return nil, ErrTampered
	}
	return t, nil
}

// claims are what is said of an accept.
func (s *Service) claims(p Principal, req StatementRequest, user *User, t *Token, v *Verified, now time.Time) (*StatementClaims, error) {
	id := make([]byte, 16)
	if _, err := io.ReadFull(s.cfg.Rand, id); err != nil {
		return nil, fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	// Never later than the accept was, by anyone's clock.
	at := min(t.UsedAt, now.Unix())
	if !v.At.IsZero() {
		at = min(at, v.At.Unix())
	}
	c := &StatementClaims{
		Issuer: s.cfg.Issuer, Subject: subjectOf(user.Realm, user.Key), Realm: user.Realm, Audience: req.Audience,
		IssuedAt: now.Unix(), Expires: now.Add(req.TTL).Unix(), ID: base64.RawURLEncoding.EncodeToString(id),
		AuthTime: at, Methods: v.Methods, Nonce: req.Nonce, Party: p.Actor(),
		Token: StatementToken{Serial: t.Serial, Type: t.Type, Model: t.Model},
	}
	if len(c.Methods) == 0 {
		c.Methods = t.methods(user)
	}
	if k := t.Credential; t.Type == FIDO && k != nil {
		c.Token.Attestation = k.Attestation
		if k.AAGUID != [16]byte{} {
			c.Token.AAGUID = FormatAAGUID(k.AAGUID)
		}
		c.Context = contextPhishingResistant
		if slices.Contains(c.Methods, "hwk") {
			c.Context = contextHardware
		}
	}
	return c, nil
}

// statementHeader is the JOSE header of a statement (RFC 7515, section 4).
type statementHeader struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Type      string `json:"typ"`
}

// signStatement writes claims as a JWT and answers it with its key's name. What
// is answered verifies under the key that is published by that name.
func (s *Service) signStatement(ctx context.Context, c *StatementClaims, now time.Time) (jwt, kid string, err error) {
	state, err := s.statementState(ctx)
	if err != nil {
		return "", "", err
	}
	key := state.signing(now)
	if key == nil {
		return "", "", fmt.Errorf("%w: there is no key to sign statements with; rotate them", ErrUnavailable)
	}
	header, err := json.Marshal(statementHeader{"ES256", key.KID, "JWT"})
	if err != nil {
		return "", "", err
	}
	body, err := json.Marshal(c)
	if err != nil {
		return "", "", err
	}
	input := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(body)
	digest := sha256.Sum256([]byte(input))
	signature, err := s.custody.SignStatement(ctx, key.Version, digest[:])
	if errors.Is(err, hsm.ErrKeyMismatch) && s.attachAgain(ctx, state) {
		signature, err = s.custody.SignStatement(ctx, key.Version, digest[:])
	}
	switch {
	case errors.Is(err, hsm.ErrKeyMismatch):
		return "", "", fmt.Errorf("%w: the HSM has not got statement key version %d; if it is lost, rotate the keys at once: %w", ErrUnavailable, key.Version, err)
	case err != nil:
		return "", "", unavailable(err)
	case !key.verifies(digest[:], signature):
		return "", "", fmt.Errorf("%w: the HSM signed with another key than statement key version %d", ErrUnavailable, key.Version)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature), key.KID, nil
}

// verifies says whether signature, r and s of 32 bytes each (RFC 7518, section
// 3.4), is the key's over a digest.
func (k *statementKey) verifies(digest, signature []byte) bool {
	if len(signature) != 64 {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	return ecdsa.Verify(k.public, digest, r, s)
}
