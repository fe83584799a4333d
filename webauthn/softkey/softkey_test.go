package softkey_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	_ "unsafe" // for the roots of the library below

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"

	"watchword/webauthn/softkey"
)

// go-webauthn holds the chains of these two formats against roots that it was
// built with; the tests add a softkey's own.
var (
	//go:linkname androidRoots github.com/go-webauthn/webauthn/protocol.attAndroidKeyHardwareRootsCertPool
	androidRoots *x509.CertPool
	//go:linkname appleRoots github.com/go-webauthn/webauthn/protocol.attAppleHardwareRootsCertPool
	appleRoots *x509.CertPool
)

const (
	rpID   = "login.example.com"
	origin = "https://login.example.com"
)

// maker is the vendor of the tests' keys.
var maker = sync.OnceValue(func() *softkey.Vendor {
	v, err := softkey.NewVendor("Test Keys")
	if err != nil {
		panic(err)
	}
	androidRoots.AddCert(v.Root())
	appleRoots.AddCert(v.Root())
	return v
})

func newKey(t testing.TB, o softkey.Options) *softkey.Key {
	t.Helper()
	if o.Vendor == nil {
		o.Vendor = maker()
	}
	k, err := softkey.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newChallenge() string {
	c := make([]byte, 32)
	rand.Read(c)
	return base64.RawURLEncoding.EncodeToString(c)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// creation are creation options; more holds further members of publicKey.
func creation(challenge, more string) []byte {
	return fmt.Appendf(nil, `{"publicKey":{"rp":{"id":%q,"name":"Example"},"user":{"id":%q,"name":"alice","displayName":"Alice"},
		"challenge":%q,"pubKeyCredParams":[{"type":"public-key","alg":-7},{"type":"public-key","alg":-8},
		{"type":"public-key","alg":-35},{"type":"public-key","alg":-257}]%s}}`, rpID, b64([]byte("user-1")), challenge, more)
}

func request(challenge, more string) []byte {
	return fmt.Appendf(nil, `{"publicKey":{"rpId":%q,"challenge":%q%s}}`, rpID, challenge, more)
}

func allow(ids ...[]byte) string {
	var list []string
	for _, id := range ids {
		list = append(list, fmt.Sprintf(`{"type":"public-key","id":%q}`, b64(id)))
	}
	return `,"allowCredentials":[` + strings.Join(list, ",") + `]`
}

var everyAlgorithm = []protocol.CredentialParameter{{Type: "public-key", Algorithm: webauthncose.AlgES256},
	{Type: "public-key", Algorithm: webauthncose.AlgEdDSA}, {Type: "public-key", Algorithm: webauthncose.AlgES384},
	{Type: "public-key", Algorithm: webauthncose.AlgRS256}}

// verifyRegistration has go-webauthn judge a registration.
func verifyRegistration(response []byte, challenge string, verified bool) (*protocol.ParsedCredentialCreationData, error) {
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return nil, err
	}
	_, err = parsed.Verify(challenge, rpID, []string{origin}, nil, nil, protocol.TopOriginExplicitVerificationMode, false,
		verified, true, nil, everyAlgorithm, protocol.AttestationPolicy{}, protocol.SignaturePolicy{})
	return parsed, err
}

func verifyAssertion(response []byte, challenge string, verified bool, public []byte) (*protocol.ParsedCredentialAssertionData, error) {
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return nil, err
	}
	return parsed, parsed.Verify(challenge, rpID, "", []string{origin}, nil, nil, protocol.TopOriginExplicitVerificationMode, false,
		verified, true, public, protocol.SignaturePolicy{})
}

// register registers with the key and has it verified.
func register(t testing.TB, k *softkey.Key, more string) *protocol.ParsedCredentialCreationData {
	t.Helper()
	challenge := newChallenge()
	response, err := k.Register(creation(challenge, more), origin)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := verifyRegistration(response, challenge, false)
	if err != nil {
		t.Fatalf("go-webauthn refuses the registration: %v: %+v", err, errors.Unwrap(err))
	}
	return parsed
}

func assert(t testing.TB, k *softkey.Key, more string, public []byte) *protocol.ParsedCredentialAssertionData {
	t.Helper()
	challenge := newChallenge()
	response, err := k.Assert(request(challenge, more), origin)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := verifyAssertion(response, challenge, false, public)
	if err != nil {
		t.Fatalf("go-webauthn refuses the assertion: %v", err)
	}
	return parsed
}

func publicKey(p *protocol.ParsedCredentialCreationData) []byte {
	return p.Response.AttestationObject.AuthData.AttData.CredentialPublicKey
}

// chain checks that a statement's certificates lead to the root.
func chain(t *testing.T, statement map[string]any, root *x509.Certificate) []*x509.Certificate {
	t.Helper()
	var certs []*x509.Certificate
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for i, der := range statement["x5c"].([]any) {
		c, err := x509.ParseCertificate(der.([]byte))
		if err != nil {
			t.Fatal(err)
		}
		c.UnhandledCriticalExtensions = nil // a TPM's name, which crypto/x509 does not know
		certs = append(certs, c)
		if i > 0 {
			between.AddCert(c)
		}
	}
	if _, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Fatalf("the attestation's chain does not lead to the vendor's root: %v", err)
	}
	return certs
}
