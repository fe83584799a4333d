package webauthn

import (
	"bufio"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
)

// vectors are the test vectors of Web Authentication Level 3, section 16, by
// section and name.
func vectors(t testing.TB) map[string]map[string][]byte {
	t.Helper()
	f, err := os.Open("testdata/webauthn-level-3.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := make(map[string]map[string][]byte)
	var at map[string][]byte
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<10)
	for lines.Scan() {
		line := lines.Text()
		if name, ok := strings.CutPrefix(line, "["); ok {
			at = make(map[string][]byte)
			all[strings.TrimSuffix(name, "]")] = at
		} else if name, text, ok := strings.Cut(line, " = "); ok {
			if at[name], err = hex.DecodeString(text); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if lines.Err() != nil || len(all) != 16 {
		t.Fatalf("%d sections, %v", len(all), lines.Err())
	}
	return all
}

func registrationJSON(t testing.TB, id, clientData, object []byte) []byte {
	t.Helper()
	text := sessionEncoding.EncodeToString
	raw, err := json.Marshal(map[string]any{
		"id": text(id), "rawId": text(id), "type": "public-key", "response": map[string]any{"clientDataJSON": text(clientData), "attestationObject": text(object)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func assertionJSON(t testing.TB, id, clientData, authData, signature []byte) []byte {
	t.Helper()
	text := sessionEncoding.EncodeToString
	raw, err := json.Marshal(map[string]any{
		"id": text(id), "rawId": text(id), "type": "public-key",
		"response": map[string]any{"clientDataJSON": text(clientData), "authenticatorData": text(authData), "signature": text(signature)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// vectorID takes the credential id out of an attestation object, whose last
// member is the authenticator data (CTAP 2.1, section 8: keys sorted).
func vectorID(t testing.TB, object []byte) []byte {
	t.Helper()
	var o struct {
		AuthData []byte         `cbor:"authData"`
		Format   string         `cbor:"fmt"`
		Stmt     map[string]any `cbor:"attStmt"`
	}
	if err := strict.Unmarshal(object, &o); err != nil {
		t.Fatal(err)
	}
	n := int(o.AuthData[53])<<8 | int(o.AuthData[54])
	return o.AuthData[55 : 55+n]
}

func vectorParty() *Party { return &Party{ID: "example.org", Origins: []string{"https://example.org"}} }

func vectorSession(kind string, challenge []byte) *session {
	return &session{Kind: kind, RPID: "example.org", User: "alice", Verification: "preferred", challenge: challenge}
}

// TestTheVectorsOfTheStandardGiveTheirOutcomes registers and logs in with each of
// them. A cross-origin page, Ed448, a TPM of no manufacturer and an Android key
// whose authorizations are empty are refused, as their own sections want or as
// this relying party offers.
func TestTheVectorsOfTheStandardGiveTheirOutcomes(t *testing.T) {
	all := vectors(t)
	root, err := x509.ParseCertificate(all["root"]["certificate"])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, format, kind string
		chained            bool
		reason             tokens.Reason
		say                string // of the registration's refusal
		login              string // of the login's
	}{
		{name: "none-es256", format: "none", kind: attestedNone},
		{name: "packed-self-es256", format: "packed", kind: attestedSelf},
		{name: "none-es256-crossOrigin", reason: reasonOrigin, say: "page of another origin", login: "page of another origin"},
		{name: "none-es256-topOrigin", reason: reasonOrigin, say: "page of another origin", login: "page of another origin"},
		{name: "none-es256-long-credential-id", format: "none", kind: attestedNone},
		{name: "packed-es256", format: "packed", kind: attestedBasic, chained: true},
		{name: "packed-es384", format: "packed", kind: attestedBasic, chained: true},
		{name: "packed-es512", format: "packed", kind: attestedBasic, chained: true},
		{name: "packed-rs256", format: "packed", kind: attestedBasic, chained: true},
		{name: "packed-eddsa", format: "packed", kind: attestedBasic, chained: true},
		{name: "packed-ed448", reason: reasonAttestation, say: "was not offered", login: "was not offered"},
		{name: "tpm-es256", reason: reasonAttestation, say: "TPM manufacturer"},
		{name: "android-key-es256", reason: reasonAttestation, say: "made within the trusted execution environment"},
		{name: "apple-es256", format: "apple", kind: attestedAnonCA, chained: true},
		{name: "fido-u2f-es256", format: "fido-u2f", kind: attestedBasic, chained: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := all[c.name]
			id := vectorID(t, v["register.attestationObject"])
			st := vectorSession(kindRegister, v["register.challenge"])
			a, err := parseAnswer(registrationJSON(t, id, v["register.clientDataJSON"], v["register.attestationObject"]), kindRegister)
			if err != nil {
				t.Fatal(err)
			}
			var proven *statement
			if err = a.checkClient(st, vectorParty()); err == nil {
				proven, err = attest(a, st, time.Now())
			}
			var r *refusal
			switch {
			case c.say == "" && err != nil:
				t.Fatalf("registration: %v", err)
			case c.say != "" && (!errors.As(err, &r) || r.reason != c.reason || !strings.Contains(r.why, c.say)):
				t.Fatalf("registration: %v; it should be refused as %s with %q", err, c.reason, c.say)
			case c.say == "" && (proven.format != c.format || proven.kind != c.kind || (proven.chain != nil) != c.chained):
				t.Errorf("registration proves %s by %s with %d certificates", proven.kind, proven.format, len(proven.chain))
			}
			if c.chained {
				if err := proven.vouch([]*x509.Certificate{root}, time.Now()); err != nil || !proven.trusted.Equal(root) {
					t.Errorf("the chain: %v", err)
				}
				if _, err := attest(a, st, time.Date(2023, 12, 31, 0, 0, 0, 0, time.UTC)); err == nil || !strings.Contains(err.Error(), "valid only from 2024-01-01 on") {
					t.Errorf("the chain before it was valid: %v", err)
				}
				if err := proven.vouch(nil, time.Now()); err == nil || !strings.Contains(err.Error(), "leads to no root") {
					t.Errorf("the chain without roots: %v", err)
				}
			}

			auth := rawAuthData(t, v["register.attestationObject"])
			st = vectorSession(kindLogin, v["login.challenge"])
			st.Allowed = [][]byte{allowDigest(id)}
			login, err := parseAnswer(assertionJSON(t, id, v["login.clientDataJSON"], v["login.authenticatorData"], v["login.signature"]), kindLogin)
			if err != nil {
				t.Fatal(err)
			}
			s := &Service{parties: map[string]*Party{"example.org": vectorParty()}}
			credential := &tokens.Credential{ID: id, RPID: "example.org", UserID: 1, PublicKey: auth[55+len(id):]}
			says, err := s.login(st, login).check(credential, nil)
			switch {
			case c.login == "" && err != nil:
				t.Errorf("login: %v", err)
			case c.login != "" && (err == nil || !strings.Contains(err.Error(), c.login)):
				t.Errorf("login: %v; it should say %q", err, c.login)
			case c.login == "" && says.Synced != (auth[32]&8 != 0):
				t.Error("backup eligibility changed between registration and login")
			}
			// The answer to one challenge is none to another.
			st.challenge = append([]byte{st.challenge[0] ^ 1}, st.challenge[1:]...)
			if _, err := s.login(st, login).check(credential, nil); err == nil {
				t.Error("a login with another challenge is accepted")
			}
		})
	}
}

func rawAuthData(t testing.TB, object []byte) []byte {
	t.Helper()
	var o struct {
		AuthData []byte         `cbor:"authData"`
		Format   string         `cbor:"fmt"`
		Stmt     map[string]any `cbor:"attStmt"`
	}
	if err := strict.Unmarshal(object, &o); err != nil {
		t.Fatal(err)
	}
	return o.AuthData
}
