package softkey_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-webauthn/webauthn/protocol"

	"watchword/webauthn/softkey"
)

func TestEachFormatWithEachAlgorithmIsVerifiedByGoWebauthn(t *testing.T) {
	names := map[softkey.Format]string{softkey.Self: "packed"}
	conveys := map[softkey.Format]string{softkey.Packed: "basic_full", softkey.Self: "basic_surrogate", softkey.U2F: "basic_full",
		softkey.TPM: "attca", softkey.AndroidKey: "basic_full", softkey.Apple: "anonca", softkey.None: "none"}
	for format, want := range conveys {
		for _, alg := range []softkey.Algorithm{softkey.ES256, softkey.EdDSA, softkey.ES384, softkey.RS256} {
			if format == softkey.U2F && alg != softkey.ES256 || format == softkey.TPM && alg == softkey.EdDSA {
				if _, err := softkey.New(softkey.Options{Format: format, Algorithm: alg}); err == nil {
					t.Errorf("a key is made that attests %v as %s", alg, format)
				}
				continue
			}
			t.Run(fmt.Sprintf("%s %v", format, alg), func(t *testing.T) {
				k := newKey(t, softkey.Options{Format: format, Algorithm: alg})
				p := register(t, k, `,"attestation":"direct"`)
				object := p.Response.AttestationObject
				name := names[format]
				if name == "" {
					name = string(format)
				}
				if object.Format != name || object.Type != want {
					t.Errorf("the format is %s and conveys %s, want %s and %s", object.Format, object.Type, name, want)
				}
				if got := p.Raw.AttestationResponse.PublicKeyAlgorithm; got != int64(alg) {
					t.Errorf("the algorithm is %d, want %d", got, alg)
				}
				if object.AttStatement["x5c"] != nil {
					chain(t, object.AttStatement, k.Root())
				}
				if format != softkey.U2F && !bytes.Equal(object.AuthData.AttData.AAGUID, []byte("watchwordsoftkey")) {
					t.Errorf("the AAGUID is %x", object.AuthData.AttData.AAGUID)
				}
				a := assert(t, k, allow(p.RawID), publicKey(p))
				if a.Response.AuthenticatorData.Counter != 2 {
					t.Errorf("the second signature counts %d", a.Response.AuthenticatorData.Counter)
				}
			})
		}
	}
}

func TestTheRootIsGivenAsACertificateAndInPEM(t *testing.T) {
	k := newKey(t, softkey.Options{})
	block, rest := pem.Decode(k.RootPEM())
	if block == nil || len(rest) != 0 || !bytes.Equal(block.Bytes, k.Root().Raw) || !k.Root().IsCA {
		t.Error("the PEM is not the root certificate")
	}
}

func TestAttestationIsLeftOutUnlessAskedFor(t *testing.T) {
	k := newKey(t, softkey.Options{})
	for _, more := range []string{``, `,"attestation":"none"`} {
		if p := register(t, k, more); p.Response.AttestationObject.Format != "none" {
			t.Errorf("%s: the format is %s", more, p.Response.AttestationObject.Format)
		}
	}
}

func TestEnterpriseAttestationTellsTheSerialOnlyWhenAsked(t *testing.T) {
	k := newKey(t, softkey.Options{Serial: "WW-000017"})
	serial := func(more string) string {
		for _, ext := range chain(t, register(t, k, more).Response.AttestationObject.AttStatement, k.Root())[0].Extensions {
			if ext.Id.String() == "1.3.6.1.4.1.45724.1.1.2" {
				return string(ext.Value[2:])
			}
		}
		return ""
	}
	if got := serial(`,"attestation":"enterprise"`); got != "WW-000017" {
		t.Errorf("enterprise attestation tells the serial %q", got)
	}
	if got := serial(`,"attestation":"direct"`); got != "" {
		t.Errorf("direct attestation tells the serial %q", got)
	}
}

func TestUserVerificationFollowsTheRequest(t *testing.T) {
	able, unable := newKey(t, softkey.Options{UserVerification: true}), newKey(t, softkey.Options{})
	for _, c := range []struct {
		k    *softkey.Key
		want string
		uv   bool
		err  error
	}{
		{able, "required", true, nil}, {able, "preferred", true, nil}, {able, "discouraged", false, nil},
		{unable, "required", false, softkey.ErrConstraint}, {unable, "preferred", false, nil}, {unable, "discouraged", false, nil},
	} {
		_, err := c.k.Register(creation(newChallenge(), `,"authenticatorSelection":{"userVerification":"`+c.want+`"}`), origin)
		if !errors.Is(err, c.err) {
			t.Errorf("register, %s: %v, want %v", c.want, err, c.err)
		}
		if err != nil {
			continue
		}
		p := register(t, c.k, `,"authenticatorSelection":{"userVerification":"`+c.want+`"}`)
		if got := p.Response.AttestationObject.AuthData.Flags.HasUserVerified(); got != c.uv {
			t.Errorf("register, %s: UV is %v, want %v", c.want, got, c.uv)
		}
		a := assert(t, c.k, allow(p.RawID)+`,"userVerification":"`+c.want+`"`, publicKey(p))
		if got := a.Response.AuthenticatorData.Flags.HasUserVerified(); got != c.uv {
			t.Errorf("assert, %s: UV is %v, want %v", c.want, got, c.uv)
		}
	}
	p := register(t, unable, "")
	if _, err := unable.Assert(request(newChallenge(), allow(p.RawID)+`,"userVerification":"required"`), origin); !errors.Is(err, softkey.ErrNotAllowed) {
		t.Errorf("assert, required but impossible: %v", err)
	}
}

func TestResidentCredentialsNeedNoAllowList(t *testing.T) {
	k := newKey(t, softkey.Options{Capacity: 1})
	if _, err := k.Assert(request(newChallenge(), ""), origin); !errors.Is(err, softkey.ErrNotAllowed) {
		t.Errorf("a passkey is found on an empty key: %v", err)
	}
	plain := register(t, k, "")
	resident := register(t, k, `,"authenticatorSelection":{"residentKey":"required"},"extensions":{"credProps":true}`)
	if got := resident.ClientExtensionResults.CredProps; got == nil || got.RK == nil || !*got.RK {
		t.Errorf("credProps is %+v", got)
	}
	a := assert(t, k, "", publicKey(resident))
	if !bytes.Equal(a.RawID, resident.RawID) || string(a.Response.UserHandle) != "user-1" {
		t.Errorf("the passkey answers with credential %x and user %q", a.RawID, a.Response.UserHandle)
	}
	if a := assert(t, k, allow(plain.RawID), publicKey(plain)); a.Response.UserHandle != nil {
		t.Errorf("a credential that is not resident knows its user %q", a.Response.UserHandle)
	}
	// The same user's new one takes the place of the old one; another's has no room.
	again := register(t, k, `,"authenticatorSelection":{"requireResidentKey":true}`)
	if _, err := k.Assert(request(newChallenge(), allow(resident.RawID)), origin); !errors.Is(err, softkey.ErrNotAllowed) {
		t.Errorf("the replaced passkey still answers: %v", err)
	}
	assert(t, k, allow(resident.RawID, again.RawID), publicKey(again))
	other := bytes.Replace(creation(newChallenge(), `,"authenticatorSelection":{"residentKey":"required"}`), []byte(b64([]byte("user-1"))), []byte(b64([]byte("user-2"))), 1)
	if _, err := k.Register(other, origin); !errors.Is(err, softkey.ErrConstraint) {
		t.Errorf("a full key makes another passkey: %v", err)
	}
}

func TestABrowserRefusesWhatIsNotItsOrigins(t *testing.T) {
	k := newKey(t, softkey.Options{Related: []string{"https://example.org"}})
	p := register(t, k, "")
	for origin, fine := range map[string]bool{
		"https://login.example.com": true, "https://a.login.example.com": true, "https://login.example.com:8443": true, "https://example.org": true,
		"https://example.com": false, "https://xlogin.example.com": false, "http://login.example.com": false, "https://evil.example": false, "": false,
	} {
		_, err := k.Assert(request(newChallenge(), allow(p.RawID)), origin)
		if fine && err != nil || !fine && !errors.Is(err, softkey.ErrSecurity) {
			t.Errorf("origin %q: %v", origin, err)
		}
	}
}

func TestAnExcludedCredentialStopsARegistration(t *testing.T) {
	k, other := newKey(t, softkey.Options{}), newKey(t, softkey.Options{})
	p := register(t, k, "")
	exclude := strings.Replace(allow(p.RawID), "allow", "exclude", 1)
	if _, err := k.Register(creation(newChallenge(), exclude), origin); !errors.Is(err, softkey.ErrInvalidState) {
		t.Errorf("the same key registers twice: %v", err)
	}
	register(t, other, exclude)
}

func TestACloneCountsOnItsOwn(t *testing.T) {
	k := newKey(t, softkey.Options{})
	p := register(t, k, "")
	clone := k.Clone()
	counter := func(k *softkey.Key) uint32 {
		return assert(t, k, allow(p.RawID), publicKey(p)).Response.AuthenticatorData.Counter
	}
	for want := uint32(2); want < 5; want++ {
		if got := counter(k); got != want {
			t.Errorf("the key counts %d, want %d", got, want)
		}
	}
	if got := counter(clone); got != 2 {
		t.Errorf("the clone counts %d, want 2", got)
	}
	k.SetCounter(1)
	if got := counter(k); got != 1 {
		t.Errorf("a counter set to 1 answers %d", got)
	}
	zero := newKey(t, softkey.Options{ZeroCounter: true})
	p = register(t, zero, "")
	if got := counter(zero); got != 0 {
		t.Errorf("a key that does not count answers %d", got)
	}
}

func TestBackupFlagsAreAnsweredAsSet(t *testing.T) {
	k := newKey(t, softkey.Options{BackupEligible: true})
	p := register(t, k, "")
	if f := p.Response.AttestationObject.AuthData.Flags; !f.HasBackupEligible() || f.HasBackupState() {
		t.Errorf("registered with flags %08b, want BE without BS", f)
	}
	k.SetBackedUp(true)
	if f := assert(t, k, allow(p.RawID), publicKey(p)).Response.AuthenticatorData.Flags; !f.HasBackupEligible() || !f.HasBackupState() {
		t.Errorf("asserted with flags %08b, want BE and BS", f)
	}
}

func TestMalformedOptionsAreRefused(t *testing.T) {
	k := newKey(t, softkey.Options{})
	for _, bad := range []string{``, `null`, `[]`, `{}`, `{"publicKey":null}`, `{"publicKey":{"rp":{"id":"login.example.com"},"challenge":"AAAA"}}`,
		`{"publicKey":{"challenge":"not base64!"}}`, `{"publicKey":{"challenge":"AA=="}}`} {
		if _, err := k.Register([]byte(bad), origin); err == nil {
			t.Errorf("registers with %s", bad)
		}
		if _, err := k.Assert([]byte(bad), origin); err == nil {
			t.Errorf("asserts with %s", bad)
		}
	}
	none := bytes.ReplaceAll(creation(newChallenge(), ""), []byte(`"alg":-`), []byte(`"alg":-99`))
	if _, err := k.Register(none, origin); !errors.Is(err, softkey.ErrNotSupported) {
		t.Errorf("an unknown algorithm: %v", err)
	}
	for _, o := range []softkey.Options{{AAGUID: "1234"}, {AAGUID: "zz617463-6877-6f72-6473-6f66746b6579"}, {Format: "wax-seal"},
		{Algorithm: -999}, {Serial: "1", Format: softkey.Self}} {
		if _, err := softkey.New(o); err == nil {
			t.Errorf("a key is made of %+v", o)
		}
	}
}

func TestOneKeyServesManyGoroutines(t *testing.T) {
	k := newKey(t, softkey.Options{})
	p := register(t, k, "")
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[uint32]bool{}
	for range 8 {
		wg.Go(func() {
			for range 25 {
				register(t, k, `,"attestation":"direct"`)
				if got := k.Command(t.Context(), []byte{0x04}); got[0] != 0 {
					t.Errorf("getInfo answers 0x%02x", got[0])
				}
				k.Clone()
				n := assert(t, k, allow(p.RawID), publicKey(p)).Response.AuthenticatorData.Counter
				mu.Lock()
				if seen[n] {
					t.Errorf("the counter %d is answered twice", n)
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestTheResponseIsTheJSONOfABrowser(t *testing.T) {
	k := newKey(t, softkey.Options{Transports: []string{"internal"}})
	response, err := k.Register(creation(newChallenge(), `,"attestation":"direct"`), origin)
	if err != nil {
		t.Fatal(err)
	}
	var r map[string]any
	if err := json.Unmarshal(response, &r); err != nil {
		t.Fatal(err)
	}
	inner := r["response"].(map[string]any)
	spki, err := base64.RawURLEncoding.DecodeString(inner["publicKey"].(string))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x509.ParsePKIXPublicKey(spki); err != nil {
		t.Errorf("publicKey is no SubjectPublicKeyInfo: %v", err)
	}
	if r["authenticatorAttachment"] != "platform" || r["id"] != r["rawId"] || fmt.Sprint(inner["transports"]) != "[internal]" {
		t.Errorf("the response is %s", response)
	}
	f := softkey.Faults{Origin: "https://\"quoted\\\x01"}
	k.Misbehave(&f)
	response, err = k.Register(creation(newChallenge(), ""), origin)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil || parsed.Response.CollectedClientData.Origin != f.Origin {
		t.Errorf("an odd origin arrives as %q, %v", parsed.Response.CollectedClientData.Origin, err)
	}
}

func BenchmarkAssert(b *testing.B) {
	k := newKey(b, softkey.Options{})
	p := register(b, k, "")
	r := request(newChallenge(), allow(p.RawID))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Assert(r, origin); err != nil {
			b.Fatal(err)
		}
	}
}
