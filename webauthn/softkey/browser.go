package softkey

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Errors of Register and Assert; each is what a browser's promise is rejected
// with, by its DOMException name (WebAuthn §5.1).
var (
	ErrNotAllowed   = errors.New("softkey: NotAllowedError")   // declined, no credential of this key, or no verification where it is required
	ErrInvalidState = errors.New("softkey: InvalidStateError") // the key holds an excluded credential
	ErrNotSupported = errors.New("softkey: NotSupportedError") // none of the algorithms
	ErrSecurity     = errors.New("softkey: SecurityError")     // the relying party is not the origin's
	ErrConstraint   = errors.New("softkey: ConstraintError")   // no resident credential or no verification, where required
)

// b64 is base64url without padding, as in WebAuthn's JSON (§5.1.8).
type b64 []byte

func (b *b64) UnmarshalText(text []byte) error {
	out := make([]byte, base64.RawURLEncoding.DecodedLen(len(text)))
	n, err := base64.RawURLEncoding.Strict().Decode(out, text)
	*b = out[:n]
	return err
}

func (b b64) String() string { return base64.RawURLEncoding.EncodeToString(b) }

func (b b64) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

type descriptor struct {
	Type string `json:"type"`
	ID   b64    `json:"id"`
}

type creationOptions struct {
	PublicKey *struct {
		RP struct {
			ID string `json:"id"`
		} `json:"rp"`
		User struct {
			ID          b64    `json:"id"`
			Name        string `json:"name"`
			DisplayName string `json:"displayName"`
		} `json:"user"`
		Challenge        b64 `json:"challenge"`
		PubKeyCredParams []struct {
			Type string    `json:"type"`
			Alg  Algorithm `json:"alg"`
		} `json:"pubKeyCredParams"`
		ExcludeCredentials     []descriptor `json:"excludeCredentials"`
		AuthenticatorSelection struct {
			ResidentKey        string `json:"residentKey"`
			RequireResidentKey bool   `json:"requireResidentKey"`
			UserVerification   string `json:"userVerification"`
		} `json:"authenticatorSelection"`
		Attestation string `json:"attestation"`
		Extensions  struct {
			CredProps bool `json:"credProps"`
		} `json:"extensions"`
	} `json:"publicKey"`
}

type requestOptions struct {
	PublicKey *struct {
		Challenge        b64          `json:"challenge"`
		RPID             string       `json:"rpId"`
		AllowCredentials []descriptor `json:"allowCredentials"`
		UserVerification string       `json:"userVerification"`
	} `json:"publicKey"`
}

// Register is navigator.credentials.create with this key: it takes
// {"publicKey": PublicKeyCredentialCreationOptionsJSON} from a page of the
// origin, and answers RegistrationResponseJSON (WebAuthn §5.1.3, §5.1.8).
func (k *Key) Register(optionsJSON []byte, origin string) (responseJSON []byte, err error) {
	var all creationOptions
	if err := json.Unmarshal(optionsJSON, &all); err != nil {
		return nil, fmt.Errorf("softkey: read the creation options: %w", err)
	}
	o := all.PublicKey
	if o == nil {
		return nil, errors.New("softkey: read the creation options: there is no publicKey")
	}
	if n := len(o.User.ID); n < 1 || n > 64 {
		return nil, fmt.Errorf("softkey: read the creation options: the user's ID has %d bytes, not 1 to 64", n)
	}
	rpID, err := k.partyOf(o.RP.ID, origin)
	if err != nil {
		return nil, err
	}
	selection := o.AuthenticatorSelection
	verified, err := k.verifies(selection.UserVerification)
	if err != nil {
		return nil, fmt.Errorf("%w: the key cannot verify its user", ErrConstraint)
	}
	offered := make([]Algorithm, 0, 8)
	for _, p := range o.PubKeyCredParams {
		if p.Type == "public-key" {
			offered = append(offered, p.Alg)
		}
	}
	if len(o.PubKeyCredParams) == 0 { // then these are meant (§5.1.3 step 10)
		offered = append(offered, ES256, RS256)
	}
	alg, ok := k.choose(offered)
	if !ok {
		return nil, fmt.Errorf("%w: none of the algorithms %v", ErrNotSupported, offered)
	}
	rpIDHash := sha256.Sum256([]byte(rpID))
	for _, d := range o.ExcludeCredentials {
		if c, err := k.find(d.ID, &rpIDHash); err != nil {
			return nil, err
		} else if c != nil {
			return nil, fmt.Errorf("%w: the key holds an excluded credential", ErrInvalidState)
		}
	}
	if !k.touched() {
		return nil, fmt.Errorf("%w: the user declined", ErrNotAllowed)
	}
	resident := selection.ResidentKey == "required" || selection.ResidentKey == "preferred" && k.o.Resident ||
		selection.ResidentKey == "" && selection.RequireResidentKey

	f := k.wrong()
	clientData := f.clientData("webauthn.create", o.Challenge, origin)
	hash := sha256.Sum256(clientData)
	made, err := k.create(creation{
		clientDataHash: hash[:],
		rpID:           rpID,
		user:           User{ID: o.User.ID, Name: o.User.Name, DisplayName: o.User.DisplayName},
		alg:            alg,
		resident:       resident,
		verified:       verified,
		enterprise:     o.Attestation == "enterprise",
	})
	if err != nil {
		return nil, err
	}
	if made == nil {
		return nil, fmt.Errorf("%w: the key has no room for another resident credential", ErrConstraint)
	}
	// Nothing was asked for: the browser takes the statement out (§5.1.3 step
	// 21), but for self attestation by a key of no model.
	if (o.Attestation == "" || o.Attestation == "none") && (k.o.Format != Self || k.aaguid != [16]byte{}) {
		made.format, made.statement = string(None), map[string]any{}
	}
	object, err := attestationObject(made.format, made.authData, made.statement)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(made.credential.signer.Public())
	if err != nil {
		return nil, fmt.Errorf("softkey: write a public key: %w", err)
	}
	return k.registration(made, clientData, object, spki, o.Extensions.CredProps)
}

// registration writes RegistrationResponseJSON.
func (k *Key) registration(made *created, clientData, object, spki []byte, credProps bool) ([]byte, error) {
	type properties struct {
		RK bool `json:"rk"`
	}
	var out struct {
		ID         b64    `json:"id"`
		RawID      b64    `json:"rawId"`
		Type       string `json:"type"`
		Attachment string `json:"authenticatorAttachment"`
		Extensions struct {
			CredProps *properties `json:"credProps,omitempty"`
		} `json:"clientExtensionResults"`
		Response struct {
			ClientData  b64       `json:"clientDataJSON"`
			AuthData    b64       `json:"authenticatorData"`
			Transports  []string  `json:"transports"`
			PublicKey   b64       `json:"publicKey"`
			Algorithm   Algorithm `json:"publicKeyAlgorithm"`
			Attestation b64       `json:"attestationObject"`
		} `json:"response"`
	}
	out.ID, out.RawID, out.Type = made.credential.id, made.credential.id, "public-key"
	out.Attachment = k.attachment()
	if credProps {
		out.Extensions.CredProps = &properties{RK: made.credential.resident}
	}
	out.Response.ClientData = clientData
	out.Response.AuthData = made.authData
	out.Response.Transports = k.o.Transports
	out.Response.PublicKey = spki
	out.Response.Algorithm = made.credential.alg
	out.Response.Attestation = object
	b, err := json.Marshal(out)
	if err != nil {
		return nil, fmt.Errorf("softkey: write a registration: %w", err)
	}
	return b, nil
}

// Assert is navigator.credentials.get with this key: it takes
// {"publicKey": PublicKeyCredentialRequestOptionsJSON} from a page of the
// origin, and answers AuthenticationResponseJSON (WebAuthn §5.1.4, §5.1.8).
// Without allowed credentials it uses the newest resident one.
func (k *Key) Assert(optionsJSON []byte, origin string) (responseJSON []byte, err error) {
	var all requestOptions
	if err := json.Unmarshal(optionsJSON, &all); err != nil {
		return nil, fmt.Errorf("softkey: read the request options: %w", err)
	}
	o := all.PublicKey
	if o == nil {
		return nil, errors.New("softkey: read the request options: there is no publicKey")
	}
	rpID, err := k.partyOf(o.RPID, origin)
	if err != nil {
		return nil, err
	}
	verified, err := k.verifies(o.UserVerification)
	if err != nil {
		return nil, fmt.Errorf("%w: the key cannot verify its user", ErrNotAllowed)
	}
	rpIDHash := sha256.Sum256([]byte(rpID))
	var c *credential
	for i := 0; i < len(o.AllowCredentials) && c == nil; i++ {
		if c, err = k.find(o.AllowCredentials[i].ID, &rpIDHash); err != nil {
			return nil, err
		}
	}
	if len(o.AllowCredentials) == 0 {
		if held := k.residents(&rpIDHash); len(held) > 0 {
			c = held[0]
		}
	}
	if c == nil {
		return nil, fmt.Errorf("%w: the key holds none of the credentials", ErrNotAllowed)
	}
	if !k.touched() {
		return nil, fmt.Errorf("%w: the user declined", ErrNotAllowed)
	}
	f := k.wrong()
	clientData := f.clientData("webauthn.get", o.Challenge, origin)
	hash := sha256.Sum256(clientData)
	authData, signature, err := k.assert(c, hash[:], true, verified, nil)
	if err != nil {
		return nil, err
	}
	handle := f.UserHandle
	if handle == nil && c.resident {
		handle = c.user.ID
	}
	return k.assertion(c.id, clientData, authData, signature, handle), nil
}

// assertion writes AuthenticationResponseJSON, by hand because benchmarks make
// thousands a second.
func (k *Key) assertion(id, clientData, authData, signature, handle []byte) []byte {
	const frame = 256
	e := base64.RawURLEncoding
	out := make([]byte, 0, frame+e.EncodedLen(2*len(id)+len(clientData)+len(authData)+len(signature)+len(handle)))
	out = append(out, `{"id":"`...)
	out = e.AppendEncode(out, id)
	out = append(out, `","rawId":"`...)
	out = e.AppendEncode(out, id)
	out = append(out, `","type":"public-key","authenticatorAttachment":"`...)
	out = append(out, k.attachment()...)
	out = append(out, `","clientExtensionResults":{},"response":{"clientDataJSON":"`...)
	out = e.AppendEncode(out, clientData)
	out = append(out, `","authenticatorData":"`...)
	out = e.AppendEncode(out, authData)
	out = append(out, `","signature":"`...)
	out = e.AppendEncode(out, signature)
	if handle != nil {
		out = append(out, `","userHandle":"`...)
		out = e.AppendEncode(out, handle)
	}
	return append(out, `"}}`...)
}

// clientData writes clientDataJSON (WebAuthn §5.8.1.1).
func (f *Faults) clientData(kind string, challenge []byte, origin string) []byte {
	if f.Type != "" {
		kind = f.Type
	}
	if f.Challenge != nil {
		challenge = f.Challenge
	}
	if f.Origin != "" {
		origin = f.Origin
	}
	out := make([]byte, 0, 128+len(origin)+base64.RawURLEncoding.EncodedLen(len(challenge)))
	out = append(out, `{"type":`...)
	out = appendQuoted(out, kind)
	out = append(out, `,"challenge":"`...)
	out = base64.RawURLEncoding.AppendEncode(out, challenge)
	out = append(out, `","origin":`...)
	out = appendQuoted(out, origin)
	if f.CrossOrigin || f.TopOrigin != "" {
		out = append(out, `,"crossOrigin":true`...)
	} else {
		out = append(out, `,"crossOrigin":false`...)
	}
	if f.TopOrigin != "" {
		out = appendQuoted(append(out, `,"topOrigin":`...), f.TopOrigin)
	}
	out = append(out, '}')
	if f.ClientData != nil {
		out = f.ClientData(out)
	}
	return out
}

// appendQuoted appends a JSON string as CCDToString does (WebAuthn §5.8.1.2).
func appendQuoted(out []byte, s string) []byte {
	out = append(out, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r < 0x20:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = append(out, string(r)...)
		}
	}
	return append(out, '"')
}

// partyOf is the relying party's ID: the one given, if it belongs to the
// origin, or the origin's host.
func (k *Key) partyOf(rpID, origin string) (string, error) {
	host, ok := strings.CutPrefix(origin, "https://")
	if ok && !strings.ContainsAny(host, ":/@?#") {
		// The likely case needs no parsing.
	} else if u, err := url.Parse(origin); err != nil || u.Scheme != "https" && (u.Scheme != "http" || u.Hostname() != "localhost") || u.Path != "" {
		return "", fmt.Errorf("%w: %q is no origin of a secure context", ErrSecurity, origin)
	} else {
		host = u.Hostname()
	}
	switch {
	case rpID == "":
		return host, nil
	case rpID == host, strings.HasSuffix(host, "."+rpID), slices.Contains(k.o.Related, origin):
		return rpID, nil
	}
	return "", fmt.Errorf("%w: %q is no relying party of %q", ErrSecurity, rpID, origin)
}

var errCannotVerify = errors.New("softkey: the key cannot verify its user")

// verifies says whether the user is verified under a userVerification
// requirement.
func (k *Key) verifies(requirement string) (bool, error) {
	switch requirement {
	case "discouraged":
		return false, nil
	case "required":
		if !k.o.UserVerification {
			return false, errCannotVerify
		}
	}
	return k.o.UserVerification, nil
}

// choose is the first offered algorithm that the key makes.
func (k *Key) choose(offered []Algorithm) (Algorithm, bool) {
	for _, a := range offered {
		if a == k.o.Algorithm || k.o.Algorithm == 0 && slices.Contains(algorithms, a) && (k.o.Format != TPM || a != EdDSA) {
			return a, true
		}
	}
	return 0, false
}

func (k *Key) touched() bool {
	return k.o.Touch == nil || k.o.Touch(context.Background())
}

func (k *Key) attachment() string {
	if slices.Contains(k.o.Transports, "internal") {
		return "platform"
	}
	return "cross-platform"
}
