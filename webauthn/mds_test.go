package webauthn

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"testing"
	"time"

	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"

	"watchword/tokens"
)

// mdsNow is when the tests of the metadata take place.
var mdsNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// mdsCA is a certificate with its key.
type mdsCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// mdsCert makes a certificate; by is nil for a self-signed one.
func mdsCert(t testing.TB, by *mdsCA, edit func(c *x509.Certificate)) *mdsCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: fmt.Sprintf("test %d", serial)},
		NotBefore: mdsNow.AddDate(-1, 0, 0), NotAfter: mdsNow.AddDate(1, 0, 0),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	edit(c)
	if c.IsCA {
		c.KeyUsage = x509.KeyUsageCertSign
	}
	if by == nil {
		by = &mdsCA{cert: c, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &mdsCA{cert: parsed, key: key}
}

func isCA(c *x509.Certificate) { c.IsCA = true }

// mdsAuthority signs metadata as FIDO does: a root, an intermediate, and a signing
// certificate.
type mdsAuthority struct{ root, middle, leaf *mdsCA }

func newAuthority(t testing.TB, leaf func(c *x509.Certificate)) *mdsAuthority {
	t.Helper()
	a := &mdsAuthority{}
	a.root = mdsCert(t, nil, isCA)
	a.middle = mdsCert(t, a.root, isCA)
	a.leaf = mdsCert(t, a.middle, func(c *x509.Certificate) {
		c.DNSNames = []string{"mds.fidoalliance.org"}
		if leaf != nil {
			leaf(c)
		}
	})
	return a
}

func (a *mdsAuthority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.root.cert)
	return p
}

func (a *mdsAuthority) anchors() blobAnchors { return blobAnchors{roots: a.pool()} }

func (a *mdsAuthority) chain() []string {
	return []string{mdsBase64(a.leaf.cert), mdsBase64(a.middle.cert)}
}

func mdsBase64(c *x509.Certificate) string { return base64.StdEncoding.EncodeToString(c.Raw) }

// mdsPayload is a metadata blob's payload.
func mdsPayload(number int, nextUpdate string, entries ...map[string]any) map[string]any {
	if entries == nil {
		entries = []map[string]any{}
	}
	return map[string]any{"legalHeader": "of a test", "no": number, "nextUpdate": nextUpdate, "entries": entries}
}

// sign makes a blob; header is added to what stands in it usually.
func (a *mdsAuthority) sign(t testing.TB, payload, header map[string]any) []byte {
	t.Helper()
	h := map[string]any{"alg": "ES256", "typ": "JWT", "x5c": a.chain()}
	maps.Copy(h, header)
	maps.DeleteFunc(h, func(_ string, v any) bool { return v == nil })
	signed := mdsPart(t, h) + "." + mdsPart(t, payload)
	digest := crypto.SHA256.New()
	digest.Write([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, a.leaf.key, digest.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	sig := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return []byte(signed + "." + base64.RawURLEncoding.EncodeToString(sig))
}

func mdsPart(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// mdsAAGUID is the AAGUID of the tests' model n.
func mdsAAGUID(n int) (id [16]byte) {
	copy(id[:], "watchword model")
	id[15] = byte(n)
	return id
}

// mdsEntry is the entry of a FIDO2 model with the statuses, each in effect since
// 2026-01-01.
func mdsEntry(id [16]byte, name string, root *x509.Certificate, statuses ...string) map[string]any {
	reports := []any{}
	for _, s := range statuses {
		reports = append(reports, map[string]any{"status": s, "effectiveDate": "2026-01-01"})
	}
	text := tokens.FormatAAGUID(id)
	st := map[string]any{
		"aaguid": text, "description": name, "protocolFamily": "fido2", "schema": 3, "authenticatorVersion": 5,
		"attestationTypes": []string{"basic_full"}, "authenticationAlgorithms": []string{"secp256r1_ecdsa_sha256_raw"},
		"userVerificationDetails": []any{[]any{map[string]any{"userVerificationMethod": "passcode_external"}, map[string]any{"userVerificationMethod": "presence_internal"}}},
		"keyProtection":           []string{"hardware", "secure_element"},
		"icon":                    "data:image/png;base64,iVBORw0KGgo=",
		"authenticatorGetInfo":    map[string]any{"versions": []string{"FIDO_2_1"}, "aaguid": text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:], "transports": []string{"usb", "nfc"}, "attestationFormats": []string{"packed"}},
	}
	if root != nil {
		st["attestationRootCertificates"] = []string{mdsBase64(root)}
	}
	return map[string]any{"aaguid": text, "metadataStatement": st, "statusReports": reports, "timeOfLastStatusChange": "2026-01-01"}
}

// mdsU2F is the entry of a model without AAGUID, found by its attestation key.
func mdsU2F(name string, attester *x509.Certificate, statuses ...string) map[string]any {
	e := mdsEntry([16]byte{}, name, attester, statuses...)
	delete(e, "aaguid")
	st := e["metadataStatement"].(map[string]any)
	delete(st, "aaguid")
	delete(st, "authenticatorGetInfo")
	st["protocolFamily"] = "u2f"
	st["attachmentHint"] = []string{"external", "wired", "nfc"}
	e["attestationCertificateKeyIdentifiers"] = []string{mdsKeyID(attester)}
	return e
}

// mdsKeyID is SHA-1 of a certificate's P-256 key.
func mdsKeyID(c *x509.Certificate) string {
	raw, err := c.PublicKey.(*ecdsa.PublicKey).Bytes()
	if err != nil {
		panic(err)
	}
	sum := sha1.Sum(raw)
	return hex.EncodeToString(sum[:])
}

// mdsJWK is the public key of an authority's certificate as a JWK (RFC 7518,
// section 6.2).
func mdsJWK(t testing.TB, c *mdsCA) map[string]string {
	t.Helper()
	raw, err := c.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return map[string]string{"kty": "EC", "crv": "P-256", "alg": "ES256", "x": b64(raw[1:33]), "y": b64(raw[33:])}
}

// mdsCertFor certifies the key of a public JWK.
func mdsCertFor(t testing.TB, by *mdsCA, jwk []byte) *x509.Certificate {
	t.Helper()
	var k struct{ Kty, Crv, X, Y, N, E string }
	if err := json.Unmarshal(jwk, &k); err != nil {
		t.Fatal(err)
	}
	part := func(s string) []byte {
		raw, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	var public any
	if k.Kty == "RSA" {
		public = &rsa.PublicKey{N: new(big.Int).SetBytes(part(k.N)), E: int(new(big.Int).SetBytes(part(k.E)).Int64())}
	} else {
		curve := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[k.Crv]
		key, err := ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, part(k.X)...), part(k.Y)...))
		if err != nil {
			t.Fatal(err)
		}
		public = key
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: "jose"},
		NotBefore: mdsNow.AddDate(-1, 0, 0), NotAfter: mdsNow.AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by.cert, public, by.key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

type certTemplate = x509.Certificate

func mdsPEM(certs ...*x509.Certificate) []byte {
	var text []byte
	for _, c := range certs {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

func mdsSoftHSM(t testing.TB) *pkcs11.Keystore {
	t.Helper()
	k, err := pkcs11.Open(t.Context(), hsmtest.Token(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}
