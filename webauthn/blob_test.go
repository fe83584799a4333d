package webauthn

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestASignedBlobIsRead(t *testing.T) {
	a := newAuthority(t, nil)
	token := mdsCert(t, nil, func(*x509.Certificate) {})
	raw := a.sign(t, mdsPayload(77, "2026-04-01", mdsEntry(mdsAAGUID(1), "Key One", a.root.cert, "FIDO_CERTIFIED", "FIDO_CERTIFIED_L2"),
		mdsU2F("Old One", token.cert, "FIDO_CERTIFIED")), map[string]any{"iat": mdsNow.Unix()})
	b, err := openBlob(append(raw, '\n'), a.anchors(), mdsNow)
	if err != nil {
		t.Fatal(err)
	}
	if b.number != 77 || b.nextUpdate.Format(time.DateOnly) != "2026-04-01" || !b.issued.Equal(mdsNow) || len(b.models.all) != 2 || len(b.models.unread) != 0 {
		t.Errorf("it says %+v", b)
	}
	if k := b.models.find([16]byte{}, strings.ToUpper(mdsKeyID(token.cert))); k == nil || k.Name != "Old One" || k.Protocol != "u2f" {
		t.Errorf("by its attestation key: %+v", k)
	}
}

func TestABlobThatIsNotWhatFIDOSignedIsRefused(t *testing.T) {
	a, other := newAuthority(t, nil), newAuthority(t, nil)
	entry := mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED")
	good := mdsPayload(77, "2026-04-01", entry)
	parts := func(b []byte) []string { return strings.Split(string(b), ".") }
	swapped := func() []byte { // the payload of another blob under this one's signature
		p := parts(a.sign(t, good, nil))
		p[1] = mdsPart(t, mdsPayload(78, "2026-04-01", entry))
		return []byte(strings.Join(p, "."))
	}
	flipped := func(part int) []byte {
		p := parts(a.sign(t, good, nil))
		raw, err := base64.RawURLEncoding.DecodeString(p[part])
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 1
		p[part] = base64.RawURLEncoding.EncodeToString(raw)
		return []byte(strings.Join(p, "."))
	}
	late := newAuthority(t, func(c *x509.Certificate) { c.NotAfter = mdsNow.Add(-time.Hour) })
	early := newAuthority(t, func(c *x509.Certificate) { c.NotBefore = mdsNow.Add(time.Hour) })
	mute := newAuthority(t, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement })
	lent := &mdsAuthority{root: a.root, middle: other.middle, leaf: other.leaf} // its chain ends nowhere
	resigned := func(edit func(sig []byte) []byte) []byte {
		p := parts(a.sign(t, good, nil))
		sig, err := base64.RawURLEncoding.DecodeString(p[2])
		if err != nil {
			t.Fatal(err)
		}
		p[2] = base64.RawURLEncoding.EncodeToString(edit(sig))
		return []byte(strings.Join(p, "."))
	}
	padded := func(sig []byte) []byte { return append(append(sig[:32:32], 0), sig[32:]...) }
	headless := func() []byte {
		unsigned := mdsPart(t, map[string]any{"alg": "none", "x5c": a.chain()}) + "." + mdsPart(t, good) + "."
		return []byte(unsigned)
	}
	for name, c := range map[string]struct {
		raw  []byte
		with *mdsAuthority
		say  string
	}{
		"payload swapped":           {swapped(), a, "signature"},
		"payload altered":           {flipped(1), a, "signature"},
		"signature altered":         {flipped(2), a, "signature"},
		"signature cut off":         {a.sign(t, good, nil)[:len(a.sign(t, good, nil))-8], a, "signature"},
		"an empty signature":        {resigned(func([]byte) []byte { return nil }), a, "signature"},
		"half a signature":          {resigned(func(sig []byte) []byte { return sig[:32] }), a, "signature"},
		"a number written longer":   {resigned(padded), a, "signature"},
		"no signature":              {headless(), a, "algorithm \"none\""},
		"a shared secret":           {a.sign(t, good, map[string]any{"alg": "HS256"}), a, "algorithm \"HS256\""},
		"an RSA algorithm claimed":  {a.sign(t, good, map[string]any{"alg": "RS256"}), a, "elliptic curve key"},
		"another curve claimed":     {a.sign(t, good, map[string]any{"alg": "ES384"}), a, "elliptic curve key of 256 bits"},
		"another's root":            {other.sign(t, good, nil), a, "chains to no trusted root"},
		"a chain that ends nowhere": {lent.sign(t, good, nil), a, "chains to no trusted root"},
		"chain without its middle":  {a.sign(t, good, map[string]any{"x5c": a.chain()[:1]}), a, "chains to no trusted root"},
		"signed by the middle":      {a.sign(t, good, map[string]any{"x5c": a.chain()[1:]}), a, "may not sign"},
		"signer expired":            {late.sign(t, good, nil), late, "expired"},
		"signer not valid yet":      {early.sign(t, good, nil), early, "not yet valid"},
		"signer may not sign":       {mute.sign(t, good, nil), mute, "may not sign"},
		"certificates by URL":       {a.sign(t, good, map[string]any{"x5u": "https://mds.fidoalliance.org/x"}), a, "x5u"},
		"no certificates":           {a.sign(t, good, map[string]any{"x5c": nil}), a, "no certificates"},
		"a certificate that is not": {a.sign(t, good, map[string]any{"x5c": []string{"AAAA"}}), a, "certificate 1"},
		"a huge key in its chain":   {a.sign(t, good, map[string]any{"x5c": append(a.chain(), hugeCA(t, a.root))}), a, "certificate 3 of its chain has an RSA key of 9000 bits"},
		"critical extensions":       {a.sign(t, good, map[string]any{"crit": []string{"exp"}}), a, "critical"},
		"no dates":                  {a.sign(t, map[string]any{"no": 1, "entries": []any{entry}}, nil), a, "age cannot be judged"},
		"no number":                 {a.sign(t, map[string]any{"nextUpdate": "2026-04-01", "entries": []any{entry}}, nil), a, "lacks a number"},
		"a number below one":        {a.sign(t, mdsPayload(0, "2026-04-01", entry), nil), a, "lacks a number"},
		"a date that is none":       {a.sign(t, mdsPayload(1, "April", entry), nil), a, "nextUpdate"},
		"entries that are none":     {a.sign(t, map[string]any{"no": 1, "nextUpdate": "2026-04-01", "entries": map[string]any{}}, nil), a, "entries"},
		"a web page":                {[]byte("<html><body>Sign in to the hotel's network...</body></html>"), a, "three parts"},
		"nothing":                   {nil, a, "three parts"},
		"five parts, encrypted":     {[]byte("e30.e30.e30.e30.e30"), a, "three parts"},
		"line breaks":               {bytes.Replace(a.sign(t, good, nil), []byte("."), []byte("\n."), 1), a, "line break"},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := openBlob(c.raw, c.with.anchors(), mdsNow)
			if err == nil || !strings.Contains(err.Error(), c.say) {
				t.Errorf("it is %v, %v; the reason should say %q", b, err, c.say)
			}
		})
	}
	if _, err := openBlob(a.sign(t, good, nil), a.anchors(), mdsNow); err != nil {
		t.Errorf("the blob that all of these are made from: %v", err)
	}
}

// A public authority certifies everybody: who else has a certificate of the same
// one cannot sign metadata.
// hugeCA is a certificate, in base64, by whose key to verify a signature takes long.
func hugeCA(t testing.TB, by *mdsCA) string {
	t.Helper()
	n := new(big.Int).SetBit(big.NewInt(1), 8999, 1)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "huge"}, NotBefore: by.cert.NotBefore, NotAfter: by.cert.NotAfter,
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
	}, by.cert, &rsa.PublicKey{N: n, E: 1<<31 - 1}, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func TestACertificateOfTheSameAuthorityForAnotherNameSignsNothing(t *testing.T) {
	payload := mdsPayload(1, "2026-04-01", mdsEntry(mdsAAGUID(1), "Key", nil, "FIDO_CERTIFIED"))
	for name, want := range map[string]bool{"mds.fidoalliance.org": true, "fidoalliance.org": false, "mds.fidoalliance.org.example.net": false, "*.example.org": false} {
		a := newAuthority(t, func(c *x509.Certificate) { c.DNSNames = []string{name} })
		_, err := openBlob(a.sign(t, payload, nil), blobAnchors{roots: a.pool(), name: fidoSigner}, mdsNow)
		if want != (err == nil) || !want && !strings.Contains(err.Error(), "not made out to") {
			t.Errorf("signed in the name of %s: %v", name, err)
		}
	}
	named := newAuthority(t, func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, fidoSigner })
	if _, err := openBlob(named.sign(t, payload, nil), blobAnchors{roots: named.pool(), name: fidoSigner}, mdsNow); err == nil {
		t.Error("a name that stands only where nobody checks it is believed")
	}
}

// jose signs, and proves what Go signed: an implementation that shares nothing
// with this one.
func TestAnotherImplementationAgreesOnSignatures(t *testing.T) {
	jose, err := exec.LookPath("jose")
	if err != nil {
		t.Fatal("this test needs the program jose (Debian package jose)")
	}
	a := newAuthority(t, nil)
	payload := mdsPayload(5, "2026-04-01", mdsEntry(mdsAAGUID(1), "Key", nil, "FIDO_CERTIFIED"))
	dir := t.TempDir()
	for _, alg := range []string{"ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
		t.Run(alg, func(t *testing.T) {
			private := filepath.Join(dir, alg+".jwk")
			mdsRun(t, nil, jose, "jwk", "gen", "-i", `{"alg":"`+alg+`"}`, "-o", private)
			public := mdsRun(t, nil, jose, "jwk", "pub", "-i", private)
			leaf := mdsCertFor(t, a.middle, public)
			header, err := json.Marshal(map[string]any{"protected": map[string]any{"alg": alg, "x5c": []string{mdsBase64(leaf), mdsBase64(a.middle.cert)}}})
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(payload)
			if err != nil {
				t.Fatal(err)
			}
			raw := mdsRun(t, text, jose, "jws", "sig", "-I", "-", "-k", private, "-s", string(header), "-c")
			if b, err := openBlob(raw, a.anchors(), mdsNow); err != nil || b.number != 5 {
				t.Errorf("what jose signed with %s: %+v, %v", alg, b, err)
			}
			i := bytes.IndexByte(raw, '.') + 40
			raw[i] ^= 1
			if _, err := openBlob(raw, a.anchors(), mdsNow); err == nil {
				t.Errorf("what jose signed with %s is accepted after it was altered", alg)
			}
		})
	}
	t.Run("jose proves ours", func(t *testing.T) {
		raw := a.sign(t, payload, nil)
		jwk, err := json.Marshal(mdsJWK(t, a.leaf))
		if err != nil {
			t.Fatal(err)
		}
		key := filepath.Join(dir, "leaf.jwk")
		if err := os.WriteFile(key, jwk, 0o600); err != nil {
			t.Fatal(err)
		}
		if out := mdsRun(t, raw, jose, "jws", "ver", "-i", "-", "-k", key, "-O", "-"); !bytes.Contains(out, []byte(`"no":5`)) {
			t.Errorf("jose reads %.80q", out)
		}
	})
}

// openssl makes the authority and the signature, as an operator's own metadata
// would be made.
func TestABlobSignedWithOpenSSLIsRead(t *testing.T) {
	ssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("this test needs the program openssl (Debian package openssl)")
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	mdsRun(t, nil, ssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", at("root.key"), "-out", at("root.pem"), "-days", "3650",
		"-subj", "/O=Test/CN=Root", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
	mdsRun(t, nil, ssl, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", at("leaf.key"), "-out", at("leaf.csr"), "-subj", "/O=Test/CN=Metadata")
	if err := os.WriteFile(at("ext"), []byte("keyUsage=critical,digitalSignature\nsubjectAltName=DNS:mds.fidoalliance.org\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mdsRun(t, nil, ssl, "x509", "-req", "-in", at("leaf.csr"), "-CA", at("root.pem"), "-CAkey", at("root.key"), "-CAcreateserial", "-days", "30", "-extfile", at("ext"), "-out", at("leaf.pem"))
	pemText, err := os.ReadFile(at("root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pemText)
	leaf := base64.StdEncoding.EncodeToString(mdsRun(t, nil, ssl, "x509", "-in", at("leaf.pem"), "-outform", "DER"))
	now := time.Now()
	signed := mdsPart(t, map[string]any{"alg": "RS256", "x5c": []string{leaf}}) + "." +
		mdsPart(t, mdsPayload(9, now.AddDate(0, 1, 0).Format(time.DateOnly), mdsEntry(mdsAAGUID(1), "Key", nil, "FIDO_CERTIFIED")))
	sig := mdsRun(t, []byte(signed), ssl, "dgst", "-sha256", "-sign", at("leaf.key"))
	raw := []byte(signed + "." + base64.RawURLEncoding.EncodeToString(sig))
	if b, err := openBlob(raw, blobAnchors{roots: pool, name: fidoSigner}, now); err != nil || b.number != 9 {
		t.Errorf("it is %+v, %v", b, err)
	}
	if _, err := openBlob(raw, blobAnchors{roots: pool, name: fidoSigner}, now.AddDate(0, 2, 0)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("two months later, when its certificate has expired: %v", err)
	}
}

// A blob as large as FIDO's costs little more than itself to read, and what stays
// of it is a small part.
func TestABlobOfRealSizeNeedsLittleMemory(t *testing.T) {
	a := newAuthority(t, nil)
	var entries []map[string]any
	for i := range 400 {
		var id [16]byte
		copy(id[:], fmt.Sprintf("real size %06d", i))
		e := mdsEntry(id, fmt.Sprintf("Security Key Model %d with a name of usual length", i), a.root.cert, "FIDO_CERTIFIED", "FIDO_CERTIFIED_L1")
		icon := make([]byte, 12<<10)
		if _, err := rand.Read(icon); err != nil {
			t.Fatal(err)
		}
		st := e["metadataStatement"].(map[string]any)
		st["icon"] = "data:image/png;base64," + base64.StdEncoding.EncodeToString(icon)
		st["attestationRootCertificates"] = []string{mdsBase64(a.root.cert), mdsBase64(a.middle.cert), mdsBase64(a.leaf.cert)}
		entries = append(entries, e)
	}
	raw := a.sign(t, mdsPayload(1, "2026-04-01", entries...), nil)
	entries = nil
	if len(raw) < 8<<20 {
		t.Fatalf("the test's blob has only %d bytes", len(raw))
	}
	if _, err := openBlob(raw, a.anchors(), mdsNow); err != nil { // what is made once is not counted
		t.Fatal(err)
	}
	var before, read, kept runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b, err := openBlob(raw, a.anchors(), mdsNow)
	runtime.ReadMemStats(&read)
	runtime.GC()
	runtime.ReadMemStats(&kept)
	if err != nil || len(b.models.all) != 400 {
		t.Fatalf("%d models, %v", len(b.models.all), err)
	}
	made, stays := int64(read.TotalAlloc-before.TotalAlloc), int64(kept.HeapAlloc)-int64(before.HeapAlloc)
	t.Logf("a blob of %d bytes: %d allocated, %d stay", len(raw), made, stays)
	if made > 3*int64(len(raw)) || stays > int64(len(raw))/2 {
		t.Errorf("reading a blob of %d bytes allocates %d and keeps %d", len(raw), made, stays)
	}
	runtime.KeepAlive(raw)
	runtime.KeepAlive(b)
}

// Whatever is sent, only what was signed is accepted, byte for byte.
func FuzzMetadataBlob(f *testing.F) {
	a := newAuthority(f, nil)
	good := a.sign(f, mdsPayload(7, "2026-04-01", mdsEntry(mdsAAGUID(1), "Key", nil, "REVOKED")), nil)
	f.Add(good)
	f.Add(append([]byte(" "), good...))
	f.Add(bytes.Replace(good, []byte("."), []byte(".."), 1))
	f.Add([]byte("e30.e30.e30"))
	f.Add([]byte(`eyJhbGciOiJub25lIn0.e30.`))
	anchors := a.anchors()
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := openBlob(raw, anchors, mdsNow)
		if err == nil && !bytes.Equal(bytes.TrimSpace(raw), good) {
			// ECDSA signatures are not unique, but nobody finds another by chance.
			t.Errorf("accepted what was not signed: %q, %+v", raw, b)
		}
	})
}

// Whatever FIDO may sign, reading it ends, and every model that comes of it can be
// found, named and judged.
func FuzzMetadataPayload(f *testing.F) {
	token := mdsCert(f, nil, func(*x509.Certificate) {})
	for _, p := range []map[string]any{
		mdsPayload(7, "2026-04-01", mdsEntry(mdsAAGUID(1), "Key", token.cert, "REVOKED"), mdsU2F("Old", token.cert, "FIDO_CERTIFIED")),
		mdsPayload(7, "2026-04-01", mdsEntry(mdsAAGUID(1), "Key", nil), mdsEntry(mdsAAGUID(1), "Key", nil)),
		{"no": "x"}, {"entries": []any{map[string]any{"aaguid": 5, "attestationCertificateKeyIdentifiers": []string{"AB"}}}, "no": 1},
	} {
		text, err := json.Marshal(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := readBlobPayload(bytes.NewReader(text))
		if err != nil {
			return
		}
		for _, k := range b.models.all {
			if k.Name == "" || b.models.named(k.id()) != k {
				t.Errorf("model %+v is not found by its own id", k.Model)
			}
			k.at(mdsNow)
		}
	})
}

// mdsRun runs a program, and answers what it writes.
func mdsRun(t testing.TB, input []byte, name string, args ...string) []byte {
	t.Helper()
	c := exec.Command(name, args...)
	var problem bytes.Buffer
	c.Stdin, c.Stderr = bytes.NewReader(input), &problem
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, problem.String())
	}
	return out
}
