package station

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
)

// The station is what a browser is otherwise: it writes the client data, and puts the
// key's attestation into the form that WebAuthn has for it (Level 3, sections 5.8.1
// and 6.5).

// options are what of PublicKeyCredentialCreationOptionsJSON matters here.
type options struct {
	RP struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"rp"`
	User struct {
		ID      octetText `json:"id"`
		Name    string    `json:"name"`
		Display string    `json:"displayName"`
	} `json:"user"`
	Challenge octetText `json:"challenge"`
	Params    []struct {
		Alg int `json:"alg"`
	} `json:"pubKeyCredParams"`
	Exclude []struct {
		ID octetText `json:"id"`
	} `json:"excludeCredentials"`
	Selection struct {
		Resident string `json:"residentKey"`
	} `json:"authenticatorSelection"`
	Attestation string `json:"attestation"`
	Extensions  struct {
		Protect string `json:"credentialProtectionPolicy"`
	} `json:"extensions"`
}

// octetText is bytes in base64url.
type octetText []byte

func (o *octetText) UnmarshalJSON(text []byte) error {
	var s string
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	*o = b
	return err
}

func (o octetText) MarshalJSON() ([]byte, error) {
	return json.Marshal(base64.RawURLEncoding.EncodeToString(o))
}

func readOptions(text json.RawMessage) (*options, error) {
	var o struct {
		PublicKey *options `json:"publicKey"`
	}
	if err := json.Unmarshal(text, &o); err != nil || o.PublicKey == nil || len(o.PublicKey.Challenge) == 0 || len(o.PublicKey.User.ID) == 0 {
		return nil, errors.New("what the server wants of the key is not understood")
	}
	return o.PublicKey, nil
}

// protections are the levels of credProtect (CTAP 2.1, section 12.1).
var protections = []string{"", "userVerificationOptional", "userVerificationOptionalWithCredentialIDList", "userVerificationRequired"}

// creation is what a key is asked for.
func (o *options) creation(i *Info, clientData []byte) *Creation {
	m := &Creation{
		RPID: o.RP.ID, RPName: o.RP.Name, UserID: o.User.ID, UserName: o.User.Name, Display: o.User.Display,
		ClientDataHash: sha256.Sum256(clientData), Resident: o.Selection.Resident == "required",
		Enterprise: o.Attestation == "enterprise" && i.Has("ep"),
	}
	for _, p := range o.Params {
		m.Algorithms = append(m.Algorithms, p.Alg)
	}
	for _, e := range o.Exclude {
		m.Exclude = append(m.Exclude, e.ID)
	}
	if slices.Contains(i.Extensions, "credProtect") {
		m.Protect = max(slices.Index(protections, o.Extensions.Protect), 0)
	}
	return m
}

func (o *options) clientData(origin string) ([]byte, error) {
	return json.Marshal(struct {
		Type      string    `json:"type"`
		Challenge octetText `json:"challenge"`
		Origin    string    `json:"origin"`
		Cross     bool      `json:"crossOrigin"`
	}{"webauthn.create", o.Challenge, origin, false})
}

// response is the key's answer as PublicKeyCredential.toJSON writes it.
func (c *Created) response(clientData []byte, resident bool, transports []string) (json.RawMessage, error) {
	if len(transports) == 0 {
		transports = []string{"usb"}
	}
	type attested struct {
		ClientData octetText `json:"clientDataJSON"`
		Object     octetText `json:"attestationObject"`
		Transports []string  `json:"transports"`
	}
	type properties struct {
		RK bool `json:"rk"`
	}
	return json.Marshal(struct {
		ID         octetText `json:"id"`
		RawID      octetText `json:"rawId"`
		Type       string    `json:"type"`
		Attachment string    `json:"authenticatorAttachment"`
		Response   attested  `json:"response"`
		Extensions struct {
			Properties properties `json:"credProps"`
		} `json:"clientExtensionResults"`
	}{
		ID: c.ID, RawID: c.ID, Type: "public-key", Attachment: "cross-platform",
		Response: attested{clientData, c.object(), transports},
		Extensions: struct {
			Properties properties `json:"credProps"`
		}{properties{resident}},
	})
}

// object is the attestation object: the statement stays, byte for byte, as the key made
// it, with all certificates.
func (c *Created) object() []byte {
	b := []byte{0xa3}
	b = append(append(cborHead(b, 3, 3), "fmt"...), append(cborHead(nil, 3, len(c.Format)), c.Format...)...)
	b = append(append(cborHead(b, 3, 7), "attStmt"...), c.Statement...)
	b = append(append(cborHead(b, 3, 8), "authData"...), append(cborHead(nil, 2, len(c.AuthData)), c.AuthData...)...)
	return b
}

// cborHead begins an item of CBOR (RFC 8949, section 3).
func cborHead(b []byte, major byte, n int) []byte {
	switch {
	case n < 24:
		return append(b, major<<5|byte(n))
	case n < 1<<8:
		return append(b, major<<5|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major<<5|25), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, major<<5|26), uint32(n))
}
