package webauthn

import (
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
	"time"

	"watchword/webauthn/softkey"
)

// description is an Android key description; its lists are tagged values.
type description struct {
	challenge     []byte
	software, tee []asn1.RawValue
}

func tagged(t testing.TB, tag int, value any, params string) asn1.RawValue {
	t.Helper()
	der, err := asn1.MarshalWithParams(value, params)
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: true, Bytes: der}
}

func (d *description) encode(t testing.TB) []byte {
	t.Helper()
	value, err := asn1.Marshal(struct {
		Version       int
		Security      asn1.Enumerated
		MintVersion   int
		MintSecurity  asn1.Enumerated
		Challenge     []byte
		UniqueID      []byte
		Software, TEE []asn1.RawValue
	}{300, 1, 300, 1, d.challenge, nil, d.software, d.tee})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// telephoneAnswer has a telephone register, and answers with what attest takes.
func telephoneAnswer(t testing.TB, format softkey.Format, f func(hash []byte) *softkey.Faults) (*answer, *session) {
	t.Helper()
	st := vectorSession(kindRegister, []byte("a challenge of thirty-two bytes!"))
	options := `{"publicKey":{"rp":{"id":"example.org","name":"x"},"user":{"id":"AAAA","name":"a","displayName":"a"},"challenge":"` +
		sessionEncoding.EncodeToString(st.challenge) + `","pubKeyCredParams":[{"type":"public-key","alg":-7}],"attestation":"direct"}}`
	k := newKey(t, softkey.Options{Format: format})
	// The client data are always the same; so the faults can know their hash.
	raw, err := k.Register([]byte(options), here)
	if err != nil {
		t.Fatal(err)
	}
	a, err := parseAnswer(raw, kindRegister)
	if err != nil {
		t.Fatal(err)
	}
	k.Misbehave(f(a.hash[:]))
	if raw, err = k.Register([]byte(options), here); err != nil {
		t.Fatal(err)
	}
	again, err := parseAnswer(raw, kindRegister)
	if err != nil || again.hash != a.hash {
		t.Fatalf("client data differ, %v", err)
	}
	return again, st
}

func TestAnAndroidKeyMustBeMadeForSigningWithinTheTrustedEnvironment(t *testing.T) {
	purpose := func(p ...int) asn1.RawValue { return tagged(t, 1, p, "set") }
	origin := func(o int) asn1.RawValue { return tagged(t, 702, o, "") }
	all := tagged(t, 600, asn1.NullRawValue, "")
	lists := func(l ...asn1.RawValue) []asn1.RawValue { return l }
	for _, c := range []struct {
		name string
		d    description
		say  string // empty: it is good
	}{
		{"as it must be", description{tee: lists(purpose(2), origin(0))}, ""},
		{"for verifying too", description{tee: lists(purpose(2, 3), origin(0))}, ""},
		{"with a tag of days to come", description{tee: lists(purpose(2), origin(0), tagged(t, 9999, 5, ""))}, ""},
		{"with a tag of days to come before", description{tee: lists(purpose(2), tagged(t, 77, 5, ""), origin(0))}, ""},
		{"nothing enforced", description{}, "trusted execution environment"},
		{"by software only", description{software: lists(purpose(2), origin(0))}, "trusted execution environment"},
		{"imported", description{tee: lists(purpose(2), origin(2))}, "trusted execution environment"},
		{"of no origin", description{tee: lists(purpose(2))}, "trusted execution environment"},
		{"origin by software", description{software: lists(origin(0)), tee: lists(purpose(2))}, "trusted execution environment"},
		{"for decrypting", description{tee: lists(purpose(1), origin(0))}, "signing alone"},
		{"for decrypting too", description{tee: lists(purpose(1, 2), origin(0))}, "signing alone"},
		{"for nothing", description{tee: lists(purpose(), origin(0))}, "signing alone"},
		{"of no purpose", description{tee: lists(origin(0))}, "signing alone"},
		{"for all applications", description{tee: lists(purpose(2), all, origin(0))}, "all applications"},
		{"for all applications by software", description{software: lists(all), tee: lists(purpose(2), origin(0))}, "all applications"},
		{"all applications behind an unknown tag", description{tee: lists(purpose(2), tagged(t, 77, 5, ""), all, origin(0))}, "all applications"},
		{"origin twice", description{tee: lists(purpose(2), origin(2), origin(0))}, "cannot be read"},
		{"an untagged value", description{tee: lists(asn1.RawValue{Tag: asn1.TagInteger, Bytes: []byte{2}})}, "cannot be read"},
		{"another challenge", description{challenge: make([]byte, 32), tee: lists(purpose(2), origin(0))}, "another registration"},
		{"part of the challenge", description{challenge: []byte{1}, tee: lists(purpose(2), origin(0))}, "another registration"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, st := telephoneAnswer(t, softkey.AndroidKey, func(hash []byte) *softkey.Faults {
				return &softkey.Faults{Leaf: func(cert *x509.Certificate) {
					if c.d.challenge == nil {
						c.d.challenge = hash
					}
					cert.ExtraExtensions = []pkix.Extension{{Id: oidAndroidKey, Value: c.d.encode(t)}}
				}}
			})
			refusedWith(t, a, st, c.say)
		})
	}
	for name, c := range map[string]struct {
		extensions []pkix.Extension
		say        string
	}{
		"no description":          {nil, "has no extension"},
		"an empty description":    {[]pkix.Extension{{Id: oidAndroidKey, Value: []byte{0x30, 0}}}, "cannot be read"},
		"a description of junk":   {[]pkix.Extension{{Id: oidAndroidKey, Value: []byte("junk")}}, "cannot be read"},
		"lists that are integers": {[]pkix.Extension{{Id: oidAndroidKey, Value: integers(t)}}, ""},
	} {
		a, st := telephoneAnswer(t, softkey.AndroidKey, func([]byte) *softkey.Faults {
			return &softkey.Faults{Leaf: func(cert *x509.Certificate) { cert.ExtraExtensions = c.extensions }}
		})
		if _, err := attest(a, st, time.Now()); err == nil || !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func integers(t testing.TB) []byte {
	value, err := asn1.Marshal([]int{1, 2, 3, 4, 5, 6, 7, 8})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// refusedWith attests, and wants a refusal that says so; none for an empty text.
func refusedWith(t *testing.T, a *answer, st *session, say string) {
	t.Helper()
	_, err := attest(a, st, time.Now())
	if r := (*refusal)(nil); (say == "") != (err == nil) || err != nil && (!errors.As(err, &r) || r.reason != reasonAttestation || !strings.Contains(r.why, say)) {
		t.Errorf("%v; it should say %q", err, say)
	}
}

// TestATelephonesCertificateIsForItsOwnKeyAndRegistration swaps what one
// telephone signed with what another one did.
func TestATelephonesCertificateIsForItsOwnKeyAndRegistration(t *testing.T) {
	for _, format := range []softkey.Format{softkey.AndroidKey, softkey.Apple} {
		var chain any
		telephoneAnswer(t, format, func([]byte) *softkey.Faults {
			return &softkey.Faults{Statement: func(f string, m map[string]any) (string, map[string]any) {
				chain = m["x5c"]
				return f, m
			}}
		})
		a, st := telephoneAnswer(t, format, func([]byte) *softkey.Faults {
			return &softkey.Faults{Statement: func(f string, m map[string]any) (string, map[string]any) {
				m["x5c"] = chain
				return f, m
			}}
		})
		say := "another registration"
		if format == softkey.AndroidKey {
			say = "signature"
		}
		refusedWith(t, a, st, say)
	}
	for name, nonce := range map[string][]byte{"zeros": make([]byte, 32), "short": {1}, "none": nil} {
		a, st := telephoneAnswer(t, softkey.Apple, func([]byte) *softkey.Faults {
			return &softkey.Faults{Leaf: func(c *x509.Certificate) {
				value, err := asn1.Marshal(struct {
					Nonce []byte `asn1:"tag:1,explicit"`
				}{nonce})
				if err != nil {
					t.Fatal(err)
				}
				c.ExtraExtensions = []pkix.Extension{{Id: oidAppleNonce, Value: value}}
			}}
		})
		t.Run(name, func(t *testing.T) { refusedWith(t, a, st, "another registration") })
	}
	for say, extensions := range map[string][]pkix.Extension{"has no extension": nil, "cannot be read": {{Id: oidAppleNonce, Value: []byte("junk")}}} {
		a, st := telephoneAnswer(t, softkey.Apple, func([]byte) *softkey.Faults {
			return &softkey.Faults{Leaf: func(c *x509.Certificate) { c.ExtraExtensions = extensions }}
		})
		t.Run(say, func(t *testing.T) { refusedWith(t, a, st, say) })
	}
}

// TestATelephonesCertificateForAnotherKeyIsRefused has all be right but the key.
func TestATelephonesCertificateForAnotherKeyIsRefused(t *testing.T) {
	a, st := telephoneAnswer(t, softkey.Apple, func([]byte) *softkey.Faults { return &softkey.Faults{} })
	proven, err := attest(a, st, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	other, _ := telephoneAnswer(t, softkey.Apple, func([]byte) *softkey.Faults { return &softkey.Faults{} })
	foreign, err := attest(other, st, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	mixed := *proven.auth
	mixed.key = foreign.auth.key
	proven.auth = &mixed
	if err := proven.proveApple(a.hash[:]); err == nil || !strings.Contains(err.Error(), "for another key") {
		t.Errorf("apple: %v", err)
	}
	hash := sha256.Sum256([]byte("other client data"))
	if err := proven.proveApple(hash[:]); err == nil || !strings.Contains(err.Error(), "another registration") {
		t.Errorf("apple, other client data: %v", err)
	}

	a, st = telephoneAnswer(t, softkey.AndroidKey, func([]byte) *softkey.Faults { return &softkey.Faults{} })
	if proven, err = attest(a, st, time.Now()); err != nil {
		t.Fatal(err)
	}
	mixed = *proven.auth
	mixed.key = foreign.auth.key
	proven.auth = &mixed
	members := androidMembers(t, a)
	if err := proven.proveAndroid(members, a.hash[:]); err == nil || !strings.Contains(err.Error(), "for another key") {
		t.Errorf("android-key: %v", err)
	}
	members["alg"] = int64(-35)
	if err := proven.proveAndroid(members, a.hash[:]); err == nil || !strings.Contains(err.Error(), "algorithm -35") {
		t.Errorf("android-key, another algorithm: %v", err)
	}
	members["alg"] = "ES256"
	if err := proven.proveAndroid(members, a.hash[:]); err == nil || !strings.Contains(err.Error(), "wrong type") {
		t.Errorf("android-key, an algorithm in words: %v", err)
	}
}

func androidMembers(t testing.TB, a *answer) map[string]any {
	t.Helper()
	var o struct {
		AuthData []byte         `cbor:"authData"`
		Format   string         `cbor:"fmt"`
		Stmt     map[string]any `cbor:"attStmt"`
	}
	if err := strict.Unmarshal(a.attestation, &o); err != nil {
		t.Fatal(err)
	}
	return o.Stmt
}
