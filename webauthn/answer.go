package webauthn

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/go-webauthn/webauthn/protocol"

	"watchword/tokens"
)

// MaxAnswer bounds a browser's answer, in bytes. The longest real ones, with a
// TPM's or a telephone's certificates, have some 10 KB.
const MaxAnswer = 64 << 10

// The reasons of refusals, as the audit has them.
const (
	reasonMalformed   = tokens.ReasonMalformed
	reasonExpired     = tokens.ReasonExpired
	reasonOrigin      = tokens.ReasonWrongOrigin
	reasonSignature   = tokens.ReasonBadSignature
	reasonUnverified  = tokens.ReasonNotVerified
	reasonUnknown     = tokens.ReasonUnknownCredential
	reasonAttestation = tokens.Reason("attestation")     // the statement proves nothing
	reasonModel       = tokens.Reason("model_forbidden") // rules or status reports forbid the model
)

// refusal is why an answer is not good enough. It holds no secret.
type refusal struct {
	reason tokens.Reason
	why    string
}

func (r *refusal) Error() string { return r.why }

func refuse(reason tokens.Reason, format string, args ...any) error {
	return &refusal{reason, fmt.Sprintf(format, args...)}
}

// answer is what a browser's PublicKeyCredential says, as its toJSON writes it
// (RegistrationResponseJSON and AuthenticationResponseJSON, section 5.1).
type answer struct {
	id         []byte
	clientData []byte
	hash       [sha256.Size]byte // of clientData
	extensions object

	attestation []byte   // registration: the attestation object
	transports  []string // registration: only those that are known

	authData  []byte // login: authenticator data
	signature []byte // login
	handle    []byte // login: the user handle; empty if the authenticator does not say
}

// transports are those that section 5.8.4 names. They are hints, so others are
// left out rather than refused.
var transports = []string{"usb", "nfc", "ble", "smart-card", "hybrid", "internal"}

// parseAnswer reads the JSON of an answer of the kind. Members that nobody asks
// for are passed over (browsers add some), but not copies that contradict what is
// signed.
func parseAnswer(raw []byte, kind string) (*answer, error) {
	if len(raw) > MaxAnswer {
		return nil, refuse(reasonMalformed, "the answer is longer than %d bytes", MaxAnswer)
	}
	top, err := members(raw, "the answer")
	if err != nil {
		return nil, err
	}
	if typ, err := text(top, "type"); err != nil || typ != "public-key" {
		return nil, refuse(reasonMalformed, "the answer is not of type public-key")
	}
	a := new(answer)
	if a.id, err = binary(top, "rawId"); err != nil {
		return nil, err
	}
	if id, err := binary(top, "id"); err != nil || !bytes.Equal(id, a.id) {
		return nil, refuse(reasonMalformed, "the answer's id and rawId differ")
	}
	if len(a.id) < 1 || len(a.id) > 1023 {
		return nil, refuse(reasonMalformed, "a credential id of %d bytes; 1 to 1023 are possible", len(a.id))
	}
	if out := top.get("clientExtensionResults"); out != nil {
		if a.extensions, err = members(out, "clientExtensionResults"); err != nil {
			return nil, err
		}
	}
	response, err := members(top.get("response"), "the answer's response")
	if err != nil {
		return nil, err
	}
	if a.clientData, err = binary(response, "clientDataJSON"); err != nil {
		return nil, err
	}
	a.hash = sha256.Sum256(a.clientData)
	if kind == kindRegister {
		if a.attestation, err = binary(response, "attestationObject"); err != nil {
			return nil, err
		}
		return a, a.readTransports(response.get("transports"))
	}
	if a.authData, err = binary(response, "authenticatorData"); err != nil {
		return nil, err
	}
	if a.signature, err = binary(response, "signature"); err != nil {
		return nil, err
	}
	if h := response.get("userHandle"); h != nil && string(h) != "null" {
		if a.handle, err = binary(response, "userHandle"); err != nil {
			return nil, err
		}
		if len(a.handle) < 1 || len(a.handle) > 64 {
			return nil, refuse(reasonMalformed, "a user handle of %d bytes; 1 to 64 are possible", len(a.handle))
		}
	}
	return a, nil
}

func (a *answer) readTransports(raw json.RawMessage) error {
	if raw == nil {
		return nil
	}
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		return refuse(reasonMalformed, "the answer's transports are not a list of words")
	}
	for _, t := range transports {
		if slices.Contains(list, t) {
			a.transports = append(a.transports, t)
		}
	}
	return nil
}

// checkClient looks at the client data: what the browser says about where and
// for what it asked (section 5.8.1). It is JSON that browsers may add to.
func (a *answer) checkClient(st *session, party *Party) error {
	data, err := members(a.clientData, "the client data")
	if err != nil {
		return err
	}
	if typ, err := text(data, "type"); err != nil {
		return err
	} else if typ != st.Kind {
		return refuse(reasonMalformed, "the client data is of type %s where %s is expected", printable(typ), st.Kind)
	}
	challenge, err := binary(data, "challenge")
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(challenge, st.challenge) != 1 {
		return refuse(reasonSignature, "the answer is to another challenge than that of this session")
	}
	origin, err := text(data, "origin")
	if err != nil {
		return err
	}
	if !slices.Contains(party.Origins, origin) {
		return refuse(reasonOrigin, "the page was at %s, which is not an origin of relying party %s", printable(origin), party.ID)
	}
	var cross bool
	if raw := data.get("crossOrigin"); raw != nil {
		if err := json.Unmarshal(raw, &cross); err != nil {
			return refuse(reasonMalformed, "crossOrigin in the client data is neither true nor false")
		}
	}
	if data.get("topOrigin") != nil || cross {
		return refuse(reasonOrigin, "the page was shown within a page of another origin")
	}
	if raw := data.get("tokenBinding"); raw != nil {
		binding, err := members(raw, "tokenBinding in the client data")
		if err != nil {
			return err
		}
		if status, err := text(binding, "status"); err != nil || status != "supported" {
			return refuse(reasonOrigin, "the answer is bound to a TLS connection by token binding, which cannot be checked here")
		}
	}
	return nil
}

// checkExtensions wants outputs only of client extensions that were asked for.
func (a *answer) checkExtensions(asked ...string) error {
	for _, x := range a.extensions {
		if !slices.Contains(asked, x.name) {
			return refuse(reasonMalformed, "the answer has an output of client extension %s, which was not asked for", printable(x.name))
		}
	}
	return nil
}

// authenticator is authenticator data (section 6.1) that is whole and whose flags
// do not contradict each other.
type authenticator struct {
	protocol.AuthenticatorData
	raw        []byte
	key        *publicKey // registration: of the credential
	verified   bool       // the user, by PIN or biometrics
	synced     bool       // backup eligible
	backedUp   bool
	extensions map[string]any // outputs of authenticator extensions
}

// parseAuthenticator reads authenticator data and makes the checks that both
// kinds of ceremonies have in common.
func parseAuthenticator(raw []byte, st *session) (*authenticator, error) {
	a := &authenticator{raw: raw}
	if err := a.Unmarshal(raw); err != nil {
		return nil, refuse(reasonMalformed, "the authenticator data cannot be read: %s", libraryError(err))
	}
	f := a.Flags
	a.verified, a.synced, a.backedUp = f.HasUserVerified(), f.HasBackupEligible(), f.HasBackupState()
	if a.ExtData != nil {
		if err := strict.Unmarshal(a.ExtData, &a.extensions); err != nil {
			return nil, refuse(reasonMalformed, "the outputs of the authenticator's extensions are not a map of names")
		}
	}
	want := sha256.Sum256([]byte(st.RPID))
	switch {
	case subtle.ConstantTimeCompare(a.RPIDHash, want[:]) != 1:
		return nil, refuse(reasonOrigin, "the authenticator answered for another relying party than %s", st.RPID)
	case !f.HasUserPresent():
		return nil, refuse(reasonUnverified, "the authenticator does not say that somebody was there (user presence)")
	case a.backedUp && !a.synced:
		return nil, refuse(reasonMalformed, "the authenticator says that its key is backed up, and that it cannot be")
	case st.Verification == "required" && !a.verified:
		return nil, refuse(reasonUnverified, "the authenticator did not verify its user by PIN or biometrics")
	}
	return a, nil
}

// checkExtensions wants outputs only of authenticator extensions that were asked for.
func (a *authenticator) checkExtensions(asked ...string) error {
	for name := range a.extensions {
		if !slices.Contains(asked, name) {
			return refuse(reasonMalformed, "the authenticator has an output of extension %s, which was not asked for", printable(name))
		}
	}
	return nil
}
