package webauthn

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/webauthn/softkey"
)

func certificates(k *softkey.Key) []*x509.Certificate { return []*x509.Certificate{k.Root()} }

// isRefusal fails unless an error is a refusal with a reason and a sentence that
// can be shown.
func isRefusal(t *testing.T, err error) {
	t.Helper()
	if r := (*refusal)(nil); err != nil && (!errors.As(err, &r) || r.reason == "" || r.why == "") {
		t.Fatalf("refused without a reason: %v", err)
	}
}

// registrations are real ones of each format.
func registrations(f *testing.F) (answers []*answer) {
	f.Helper()
	for _, v := range vectors(f) {
		if object := v["register.attestationObject"]; object != nil {
			answers = append(answers, &answer{id: vectorID(f, object), clientData: v["register.clientDataJSON"], attestation: object})
		}
	}
	st := vectorSession(kindRegister, []byte("a challenge of thirty-two bytes!"))
	for _, format := range []softkey.Format{softkey.Packed, softkey.Self, softkey.TPM, softkey.AndroidKey, softkey.Apple, softkey.U2F, softkey.None} {
		raw, err := newKey(f, softkey.Options{Format: format}).Register(creation(st.challenge), here)
		if err != nil {
			f.Fatal(err)
		}
		a, err := parseAnswer(raw, kindRegister)
		if err != nil {
			f.Fatal(err)
		}
		answers = append(answers, a)
	}
	return answers
}

func FuzzAttestationObject(f *testing.F) {
	for _, a := range registrations(f) {
		f.Add(a.attestation, a.id, a.clientData)
	}
	st := vectorSession(kindRegister, nil)
	f.Fuzz(func(t *testing.T, object, id, clientData []byte) {
		a := &answer{id: id, clientData: clientData, attestation: object}
		s, err := attest(a, st, mdsNow)
		isRefusal(t, err)
		if err != nil {
			return
		}
		// What was accepted is whole: it can be enrolled, and is about this credential.
		if !bytes.Equal(s.auth.AttData.CredentialID, id) || s.kind == "" || s.auth.key == nil || formats[s.format] == nil {
			t.Fatalf("accepted: %+v", s)
		}
		if _, err := parseKey(s.auth.AttData.CredentialPublicKey); err != nil {
			t.Fatalf("the key that was accepted: %v", err)
		}
		if s.chain != nil && s.vouch(nil, time.Now()) == nil {
			t.Fatal("nobody vouches, and it is trusted")
		}
	})
}

func FuzzAuthenticatorData(f *testing.F) {
	for _, v := range vectors(f) {
		if v["login.authenticatorData"] != nil {
			f.Add(v["login.authenticatorData"])
			f.Add(rawAuthData(f, v["register.attestationObject"]))
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := parseAuthenticator(raw, vectorSession(kindLogin, nil))
		isRefusal(t, err)
		if err == nil && (!a.Flags.HasUserPresent() || a.backedUp && !a.synced || len(raw) < 37) {
			t.Fatalf("accepted: %x", raw)
		}
	})
}

func FuzzCredentialKey(f *testing.F) {
	for _, v := range vectors(f) {
		if object := v["register.attestationObject"]; object != nil {
			f.Add(rawAuthData(f, object)[55+len(vectorID(f, object)):])
		}
	}
	f.Fuzz(func(t *testing.T, encoded []byte) {
		k, err := parseKey(encoded)
		isRefusal(t, err)
		if err == nil && (k.verify([]byte("message"), encoded) || !k.equal(k.public(t))) {
			t.Fatalf("accepted: %x", encoded)
		}
	})
}

// public is the key as a certificate has it.
func (k *publicKey) public(t *testing.T) any {
	der, err := x509.MarshalPKIXPublicKey(k.standard())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func FuzzAnswer(f *testing.F) {
	for _, v := range vectors(f) {
		if object := v["register.attestationObject"]; object != nil {
			f.Add(registrationJSON(f, vectorID(f, object), v["register.clientDataJSON"], object))
			f.Add(assertionJSON(f, vectorID(f, object), v["login.clientDataJSON"], v["login.authenticatorData"], v["login.signature"]))
		}
	}
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{"clientDataJSON":"e30","authenticatorData":"AA","signature":"AA","userHandle":null},"clientExtensionResults":{}}`))
	s := &Service{parties: map[string]*Party{"example.org": vectorParty()}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, kind := range []string{kindRegister, kindLogin} {
			a, err := parseAnswer(raw, kind)
			isRefusal(t, err)
			if err != nil {
				continue
			}
			if len(a.id) < 1 || len(a.id) > 1023 || !json.Valid(raw) {
				t.Fatalf("accepted: %q", raw)
			}
			st := vectorSession(kind, []byte("a challenge that nobody was given"))
			if err := a.checkClient(st, vectorParty()); err == nil {
				t.Fatalf("client data that answer no challenge are accepted: %q", a.clientData)
			}
			if kind == kindLogin && s.login(st, a).refused == nil {
				t.Fatalf("accepted: %q", raw)
			}
		}
	})
}

func FuzzSession(f *testing.F) {
	for _, st := range []*session{
		{Version: 1, Kind: kindLogin, Realm: "default", User: "alice", RPID: "example.org", Verification: "preferred", Allowed: [][]byte{allowDigest([]byte("x"))}, Expires: 1 << 31},
		{Version: 1, Kind: kindRegister, Realm: "default", User: "bob", UserID: 7, RPID: "example.org", Verification: "required", Discoverable: true, Expires: 1 << 31},
	} {
		raw, err := canonical.Marshal(st)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sessionEncoding.EncodeToString(raw))
	}
	f.Fuzz(func(t *testing.T, text string) {
		st, err := parseSession(text)
		if err != nil {
			if !errors.Is(err, tokens.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if st.text() != text {
			t.Fatalf("%q is read as %q: there are two texts for one session", text, st.text())
		}
	})
}

func FuzzRules(f *testing.F) {
	f.Add([]byte(`{"default":{"required_attestation":"self","allow_unknown":true},"realms":{"R":{"synced":true,"groups":{"G":{"least_certification":"FIDO_CERTIFIED_L2"}}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		rs, err := ParseRules(data)
		if err != nil {
			if !errors.Is(err, tokens.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		again, err := json.Marshal(rs)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRules(again); err != nil {
			t.Fatalf("%s is not read again: %v", again, err)
		}
	})
}
