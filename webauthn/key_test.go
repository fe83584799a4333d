package webauthn

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"maps"
	"math/big"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"pgregory.net/rapid"

	"watchword/tokens"
)

func coseKey(t testing.TB, m map[any]any) []byte {
	t.Helper()
	raw, err := canonical.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func es256(t testing.TB) (map[any]any, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return map[any]any{1: 2, 3: -7, -1: 1, -2: raw[1:33], -3: raw[33:]}, key
}

func TestACredentialKeyThatIsNotSafeIsRefused(t *testing.T) {
	good, _ := es256(t)
	if _, err := parseKey(coseKey(t, good)); err != nil {
		t.Fatal(err)
	}
	modulus := new(big.Int).Lsh(big.NewInt(1), 2047)
	modulus.SetBit(modulus, 0, 1)
	rs256 := map[any]any{1: 3, 3: -257, -1: modulus.Bytes(), -2: []byte{1, 0, 1}}
	if _, err := parseKey(coseKey(t, rs256)); err != nil {
		t.Fatal(err)
	}
	okp := map[any]any{1: 1, 3: -8, -1: 6, -2: make([]byte, 32)}
	small := new(big.Int).Lsh(big.NewInt(1), 1023)
	small.SetBit(small, 0, 1)
	large := new(big.Int).Lsh(big.NewInt(1), 8192)
	large.SetBit(large, 0, 1)
	even := new(big.Int).Lsh(big.NewInt(1), 2047)
	for name, c := range map[string]struct {
		of  map[any]any
		set map[any]any
	}{
		"a private key with it":       {good, map[any]any{-4: make([]byte, 32)}},
		"an operation":                {good, map[any]any{4: []int{2}}},
		"no algorithm":                {good, map[any]any{3: nil}},
		"an algorithm in words":       {good, map[any]any{3: "ES256"}},
		"an algorithm not offered":    {good, map[any]any{3: -47}},
		"SHA-1":                       {rs256, map[any]any{3: -65535}},
		"PSS, which is not offered":   {rs256, map[any]any{3: -37}},
		"another curve":               {good, map[any]any{-1: 2}},
		"no curve":                    {good, map[any]any{-1: nil}},
		"a point off the curve":       {good, map[any]any{-2: make([]byte, 32)}},
		"the point at infinity":       {good, map[any]any{-2: make([]byte, 32), -3: make([]byte, 32)}},
		"a short coordinate":          {good, map[any]any{-2: []byte{1}}},
		"a compressed point":          {good, map[any]any{-3: true}},
		"another type":                {good, map[any]any{1: 3}},
		"a symmetric key":             {good, map[any]any{1: 4}},
		"RSA of 1024 bits":            {rs256, map[any]any{-1: small.Bytes()}},
		"RSA of 8193 bits":            {rs256, map[any]any{-1: large.Bytes()}},
		"an even modulus":             {rs256, map[any]any{-1: even.Bytes()}},
		"exponent 1":                  {rs256, map[any]any{-2: []byte{1}}},
		"exponent 2":                  {rs256, map[any]any{-2: []byte{2}}},
		"exponent 4":                  {rs256, map[any]any{-2: []byte{4}}},
		"an exponent beyond 31 bits":  {rs256, map[any]any{-2: []byte{1, 0, 0, 0, 1}}},
		"no exponent":                 {rs256, map[any]any{-2: nil}},
		"Ed448":                       {okp, map[any]any{-1: 7, -2: make([]byte, 57)}},
		"Ed25519 with a y coordinate": {okp, map[any]any{-3: make([]byte, 32)}},
		"labels in words":             {good, map[any]any{"x": 1}},
	} {
		m := maps.Clone(c.of)
		for label, value := range c.set {
			if m[label] = value; value == nil {
				delete(m, label)
			}
		}
		k, err := parseKey(coseKey(t, m))
		if r := (*refusal)(nil); !errors.As(err, &r) {
			t.Errorf("%s: %+v, %v", name, k, err)
		}
	}
	for name, raw := range map[string][]byte{
		"nothing": nil, "a list": {0x80}, "a map that ends early": {0xa5, 1}, "more behind": append(coseKey(t, good), 0),
		"a label twice":  {0xa2, 1, 2, 1, 2},
		"without an end": {0xbf, 1, 2, 0xff},
	} {
		if _, err := parseKey(raw); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

// TestSignaturesAreJudgedAsGoWebauthnJudgesThem: it is the oracle where the
// standard library is used instead.
func TestSignaturesAreJudgedAsGoWebauthnJudgesThem(t *testing.T) {
	m, key := es256(t)
	k, err := parseKey(coseKey(t, m))
	if err != nil {
		t.Fatal(err)
	}
	oracle := func(message, sig []byte) bool {
		ok, err := webauthncose.VerifySignature(k.cose, message, sig)
		return ok && err == nil
	}
	rapid.Check(t, func(t *rapid.T) {
		message := rapid.SliceOf(rapid.Byte()).Draw(t, "message")
		digest := sha256.Sum256(message)
		sig, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		if !k.verify(message, sig) {
			t.Fatal("a good signature is refused")
		}
		switch at := rapid.IntRange(0, len(sig)-1).Draw(t, "at"); rapid.IntRange(0, 3).Draw(t, "change") {
		case 0:
			sig[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 1:
			sig = append(sig, 0)
		case 2:
			sig = sig[:at]
		case 3: // r with a zero in front, which BER would allow
			sig = append([]byte{0x30, sig[1] + 1, 2, sig[3] + 1, 0}, sig[4:]...)
		}
		if k.verify(message, sig) || oracle(message, sig) {
			t.Fatalf("%x: here %v, go-webauthn %v", sig, k.verify(message, sig), oracle(message, sig))
		}
	})
}

func TestAConfigurationThatCannotWorkIsRefused(t *testing.T) {
	h := newMDSHouse(t)
	base := func() Config {
		return Config{Core: h.cores[0], Parties: []Party{{ID: "example.org", Origins: []string{here}}}}
	}
	origin := func(o ...string) func(*Config) {
		return func(c *Config) { c.Parties[0].Origins = o }
	}
	id := func(id string) func(*Config) { return func(c *Config) { c.Parties[0].ID = id } }
	for name, c := range map[string]struct {
		edit func(*Config)
		say  string // empty: it works
	}{
		"as it is":              {func(*Config) {}, ""},
		"localhost":             {func(c *Config) { c.Parties[0] = Party{ID: "localhost", Origins: []string{"http://localhost:8080"}} }, ""},
		"http on localhost":     {origin("http://localhost", "http://app.localhost:3000"), ""},
		"a port":                {origin("https://example.org:8443"), ""},
		"A-labels":              {id("xn--bcher-kva.example"), ""},
		"no core":               {func(c *Config) { c.Core = nil }, "core"},
		"no party":              {func(c *Config) { c.Parties = nil }, "at least one"},
		"a party twice":         {func(c *Config) { c.Parties = append(c.Parties, c.Parties[0]) }, "twice"},
		"no origins":            {origin(), "no origins"},
		"an origin twice":       {origin(here, here), "twice"},
		"a path":                {origin(here + "/"), "nothing after"},
		"a query":               {origin(here + "?x"), "nothing after"},
		"credentials":           {origin("https://me@example.org"), ""},
		"http":                  {origin("http://example.org"), "only https"},
		"the usual port":        {origin("https://example.org:443"), "usual port"},
		"a colon":               {origin("https://example.org:"), "usual port"},
		"capitals":              {origin("https://Example.org"), "lower case"},
		"an app":                {origin("android:apk-key-hash:x"), "scheme, host"},
		"an address":            {origin("https://192.0.2.1"), "address"},
		"no URL":                {origin("%zz"), "not a URL"},
		"id with scheme":        {id("https://example.org"), "lower case"},
		"id in capitals":        {id("Example.org"), "lower case"},
		"id of one label":       {id("example"), "two labels"},
		"an address as id":      {id("192.0.2.1"), "address"},
		"an id in Unicode":      {id("bücher.example"), "A-labels"},
		"no id":                 {id(""), "two labels"},
		"a dot at the end":      {id("example.org."), "lower case"},
		"a word for UV":         {func(c *Config) { c.UserVerification = "always" }, "user verification"},
		"a word for att.":       {func(c *Config) { c.Attestation = "indirect" }, "attestation"},
		"no time":               {func(c *Config) { c.TTL = time.Second }, "ceremony may take"},
		"too much time":         {func(c *Config) { c.TTL = 2 * time.Hour }, "ceremony may take"},
		"attestation by vendor": {func(c *Config) { c.Attestation = "enterprise" }, ""},
	} {
		cfg := base()
		c.edit(&cfg)
		_, err := New(t.Context(), cfg)
		if name == "credentials" {
			if err == nil {
				t.Error("an origin with a user name works")
			}
			continue
		}
		if (err == nil) != (c.say == "") || err != nil && !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v; it should say %q", name, err, c.say)
		}
	}
}

// TestWhatIsShownOfAStrangersTextIsHarmless: it goes into errors and the audit.
func TestWhatIsShownOfAStrangersTextIsHarmless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := printable(string(rapid.SliceOf(rapid.Byte()).Draw(t, "text")))
		if len(s) > 4*70 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Fatalf("shown as %s", s)
		}
	})
}

// TestTheChainIsReadInOrder: a certificate that a chain does not need could be
// anything.
func TestTheChainIsReadInOrder(t *testing.T) {
	root := mdsCert(t, nil, isCA)
	middle := mdsCert(t, root, isCA)
	leaf := mdsCert(t, middle, func(c *certTemplate) {})
	forged := *root.cert
	forged.Raw = append([]byte(nil), root.cert.Raw...)
	forged.Raw[len(forged.Raw)-1] ^= 1
	stranger := mdsCert(t, root, func(*certTemplate) {})
	wide := big.NewInt(1)
	wide.Lsh(wide, 9000).SetBit(wide, 0, 1)
	der, err := x509.CreateCertificate(rand.Reader, leaf.cert, middle.cert, &rsa.PublicKey{N: wide, E: 65537}, middle.key)
	if err != nil {
		t.Fatal(err)
	}
	huge, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		say   string
	}{
		"in order":               {[]*x509.Certificate{leaf.cert, middle.cert}, ""},
		"with the root":          {[]*x509.Certificate{leaf.cert, middle.cert, root.cert}, ""},
		"alone":                  {[]*x509.Certificate{leaf.cert}, ""},
		"out of order":           {[]*x509.Certificate{leaf.cert, root.cert, middle.cert}, "was not issued by"},
		"one left out":           {[]*x509.Certificate{leaf.cert, root.cert}, "was not issued by"},
		"one twice":              {[]*x509.Certificate{leaf.cert, leaf.cert}, "was not issued by"},
		"a stranger behind":      {[]*x509.Certificate{leaf.cert, middle.cert, stranger.cert}, "was not issued by"},
		"a key that is costly":   {[]*x509.Certificate{huge, middle.cert}, "RSA key of 9001 bits"},
		"a root that was forged": {[]*x509.Certificate{leaf.cert, middle.cert, &forged}, "last certificate"},
		"too many": {[]*x509.Certificate{leaf.cert, middle.cert, root.cert, root.cert, root.cert, root.cert, root.cert, root.cert, root.cert},
			"1 to 8 certificates"},
	} {
		list := []any{}
		for _, x := range c.chain {
			list = append(list, x.Raw)
		}
		s := &statement{format: "packed"}
		err := s.readChain(list)
		if r := (*refusal)(nil); (err == nil) != (c.say == "") || err != nil && (!errors.As(err, &r) || !strings.Contains(r.why, c.say)) {
			t.Errorf("%s: %v; it should say %q", name, err, c.say)
		}
	}
}

// TestNamesInCBORAreExact: fxamacker's decoder takes names in any case unless told
// otherwise, and passes over those it does not know.
func TestNamesInCBORAreExact(t *testing.T) {
	for _, m := range []map[string]any{
		{"Fmt": "none", "authData": []byte{1}, "attStmt": map[string]any{}},
		{"fmt": "none", "authData": []byte{1}, "attStmt": map[string]any{}, "epAtt": true},
		{"fmt": "none", "authData": []byte{1}},
		{"fmt": 1, "authData": []byte{1}, "attStmt": map[string]any{}},
		{"fmt": "none", "authData": "x", "attStmt": map[string]any{}},
	} {
		raw, err := cbor.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		_, err = attest(&answer{attestation: raw}, vectorSession(kindRegister, nil), mdsNow)
		if r := (*refusal)(nil); !errors.As(err, &r) || r.reason != tokens.ReasonMalformed || !strings.Contains(r.why, "attestation object") {
			t.Errorf("%v: %v", m, err)
		}
	}
}

func TestAStatementOfFormatNoneIsEmpty(t *testing.T) {
	for raw, ok := range map[string]bool{"\xa0": true, "\xb8\x00": false, "\xa1\x61a\x01": false, "\x80": false, "": false} {
		s := &statement{format: "none"}
		if _, err := s.members(cbor.RawMessage(raw)); (err == nil) != ok {
			t.Errorf("%x: %v", raw, err)
		}
	}
}

// TestKeysAreRememberedAsRead: by all their bytes, so many and no more.
func TestKeysAreRememberedAsRead(t *testing.T) {
	var r readKeys
	m, _ := es256(t)
	encoded := coseKey(t, m)
	first, err := r.parse(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.parse(bytes.Clone(encoded)); again != first || err != nil {
		t.Errorf("read again: %v", err)
	}
	for i := range encoded {
		altered := bytes.Clone(encoded)
		altered[i] ^= 1
		if k, err := r.parse(altered); k == first || err == nil && k.ec != nil && k.ec.Equal(first.ec) {
			t.Errorf("byte %d makes no difference", i)
		}
	}
	if len(r.young) != 1 {
		t.Errorf("%d keys are remembered, most of which are none", len(r.young))
	}
	for i := range 5 * maxRead {
		r.put(strconv.Itoa(i), first)
		if n := len(r.young) + len(r.old); n > 2*maxRead {
			t.Fatalf("%d keys are remembered", n)
		}
	}
}
