package seeds_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
	"watchword/seeds"
	"watchword/tokens"
	"watchword/tokens/store"
)

// newTransportCore is newCore with a transport key in SoftHSM.
func newTransportCore(t *testing.T) (*tokens.Service, tokens.Principal, *rsa.PublicKey) {
	t.Helper()
	ctx := context.Background()
	db, err := store.Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "watchword.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	keys, err := pkcs11.Open(ctx, hsmtest.Token(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { keys.Close() })
	var first firsts
	core, err := tokens.Open(ctx, tokens.Config{Database: db, Custody: keys, Exclusive: true}, keys, &first)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { core.Close(ctx) })
	if _, err := core.MakeTransportKey(ctx, keys, hsm.MinTransportBits); err != nil {
		t.Fatal(err)
	}
	admin, err := core.Authenticate(ctx, first.key)
	if err != nil {
		t.Fatal(err)
	}
	return core, admin, keys.TransportKeys()[0].Public
}

// maker writes containers by xmlsec1 and OpenSSL: seeds and MAC key encrypted to a
// public key, and MACs over the former.
type maker struct {
	t      *testing.T
	public *rsa.PublicKey
	pem    string // file with it
	method string // URI of the encryption
}

func newMaker(t *testing.T, public *rsa.PublicKey, method string) *maker {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "public.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &maker{t, public, file, method}
}

// encrypt is what xmlsec1 makes of plain: what stands in an EncryptedData, as XML
// and the octets of its CipherValue.
func (m *maker) encrypt(plain []byte) (inside string, value []byte) {
	m.t.Helper()
	dir := m.t.TempDir()
	template := `<xenc:EncryptedData xmlns:xenc="http://www.w3.org/2001/04/xmlenc#"><xenc:EncryptionMethod Algorithm="` + m.method + `"/><xenc:CipherData><xenc:CipherValue/></xenc:CipherData></xenc:EncryptedData>`
	for name, text := range map[string][]byte{"plain": plain, "template": []byte(template)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	cmd := exec.Command("xmlsec1", "--encrypt", "--pubkey-pem", m.pem, "--binary-data", filepath.Join(dir, "plain"), filepath.Join(dir, "template"))
	out, err := cmd.Output()
	if err != nil {
		m.t.Fatalf("xmlsec1 (package xmlsec1): %v", err)
	}
	_, inside, _ = strings.Cut(string(out), `xmlenc#">`)
	inside, _, _ = strings.Cut(inside, "</xenc:EncryptedData>")
	_, text, _ := strings.Cut(inside, "<xenc:CipherValue>")
	text, _, _ = strings.Cut(text, "</xenc:CipherValue>")
	if value, err = base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\n", "")); err != nil || len(value) != m.public.Size() {
		m.t.Fatalf("xmlsec1 made %d octets (%v):\n%s", len(value), err, out)
	}
	return inside, value
}

// A keyPack is a key package, and what of it tests exchange.
type keyPack struct{ serial, sealed, mac string }

func (k keyPack) String() string {
	return `<KeyPackage><DeviceInfo><SerialNo>` + k.serial + `</SerialNo></DeviceInfo>
<Key Id="` + k.serial + `" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp"><AlgorithmParameters><ResponseFormat Length="6" Encoding="DECIMAL"/></AlgorithmParameters>
<Data><Secret><EncryptedValue>` + k.sealed + `</EncryptedValue><ValueMAC>` + k.mac + `</ValueMAC></Secret><Counter><PlainValue>0</PlainValue></Counter></Data></Key></KeyPackage>
`
}

func (m *maker) pack(serial string, hash crypto.Hash, macKey, seed []byte) keyPack {
	sealed, value := m.encrypt(seed)
	return keyPack{serial, sealed, base64.StdEncoding.EncodeToString(hsmtest.OpenSSLMAC(m.t, hash, macKey, value))}
}

// container writes a file whose MAC key is as encrypt left it.
func (m *maker) container(hash crypto.Hash, macKey string, packs ...keyPack) string {
	var b strings.Builder
	space := "http://www.w3.org/2001/04/xmldsig-more#"
	if hash == crypto.SHA1 {
		space = "http://www.w3.org/2000/09/xmldsig#"
	}
	fmt.Fprintf(&b, `<?xml version="1.0" encoding="UTF-8"?>
<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:xenc="http://www.w3.org/2001/04/xmlenc#">
<EncryptionKey><ds:KeyValue><ds:RSAKeyValue><ds:Modulus>%s</ds:Modulus><ds:Exponent>AQAB</ds:Exponent></ds:RSAKeyValue></ds:KeyValue></EncryptionKey>
<MACMethod Algorithm="%shmac-%s"><MACKey>%s</MACKey></MACMethod>
`, base64.StdEncoding.EncodeToString(m.public.N.Bytes()), space, strings.ReplaceAll(strings.ToLower(hash.String()), "-", ""), macKey)
	for _, k := range packs {
		b.WriteString(k.String())
	}
	b.WriteString("</KeyContainer>\n")
	return b.String()
}

const (
	byOAEP  = "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p"
	byPKCS1 = "http://www.w3.org/2001/04/xmlenc#rsa-1_5"
)

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// Seeds and MAC key are encrypted to the transport key. The seeds come in by the
// HSM alone, for each digest of the MAC, and make oathtool's codes.
func TestPSKCWithItsMACKeyUnderTheTransportKeyIsImported(t *testing.T) {
	core, admin, public := newTransportCore(t)
	im := seeds.NewImporter(seeds.Service(core))
	n := 0
	for method, o := range map[string]seeds.Options{byOAEP: {}, byPKCS1: {AllowRSA15: true}} {
		m := newMaker(t, public, method)
		for _, hash := range []crypto.Hash{crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512} {
			macKey := random(hash.Size())
			sealed, _ := m.encrypt(macKey)
			var packs []keyPack
			seedOf := map[string]string{}
			for range 2 {
				seed := random(20)
				serial := fmt.Sprint("K", n)
				n++
				packs = append(packs, m.pack(serial, hash, macKey, seed))
				seedOf[serial] = hex.EncodeToString(seed)
			}
			o.All = true
			r, err := im.Import(context.Background(), admin, o, strings.NewReader(m.container(hash, sealed, packs...)))
			if err != nil || !r.Published || r.Created != 2 || r.ThroughHSM != 2 || r.ThroughHost != 0 || len(r.Notes) != 0 {
				t.Errorf("%s, %v: %+v, %v", method, hash, r, err)
				continue
			}
			for serial, seed := range seedOf {
				accepts(t, core, admin, serial, "-c0", "-d6", seed)
			}
		}
	}
}

// A MAC key that is shorter than the digest is none for SoftHSM: its record is
// refused, or its MAC computed in memory where that is allowed, and the report
// says so.
func TestPSKCWithAShortMACKeyNeedsPermission(t *testing.T) {
	core, admin, public := newTransportCore(t)
	im := seeds.NewImporter(seeds.Service(core))
	m := newMaker(t, public, byOAEP)
	macKey, seed := random(16), random(20)
	sealed, _ := m.encrypt(macKey)
	file := m.container(crypto.SHA256, sealed, m.pack("S1", crypto.SHA256, macKey, seed))
	r, err := im.Import(context.Background(), admin, seeds.Options{}, strings.NewReader(file))
	if err != nil || r.Published || r.Rejected != 1 || !strings.Contains(r.Records[0].Reason, "shorter than the digest") || !strings.HasSuffix(r.Records[0].Reason, "(--allow-host-unwrap)") {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = im.Import(context.Background(), admin, seeds.Options{AllowHost: true}, strings.NewReader(file))
	if err != nil || !r.Published || r.Created != 1 || r.ThroughHSM != 0 || r.ThroughHost != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	accepts(t, core, admin, "S1", "-c0", "-d6", hex.EncodeToString(seed))
}

// Whatever is wrong with a MAC, nothing of its record is imported, and without
// --partial nothing of the file.
func TestPSKCWhoseMACUnderTheTransportKeyIsWrongLeavesNothing(t *testing.T) {
	core, admin, public := newTransportCore(t)
	im := seeds.NewImporter(seeds.Service(core))
	stranger, err := rsa.GenerateKey(rand.Reader, hsm.MinTransportBits)
	if err != nil {
		t.Fatal(err)
	}
	const hash = crypto.SHA256
	for method, c := range map[string]struct {
		o    seeds.Options
		says error
	}{byOAEP: {seeds.Options{}, hsm.ErrTransportMAC}, byPKCS1: {seeds.Options{AllowRSA15: true}, hsm.ErrTransport}} {
		m := newMaker(t, public, method)
		macKey := random(32)
		sealed, _ := m.encrypt(macKey)
		toStranger, _ := newMaker(t, stranger.Public().(*rsa.PublicKey), method).encrypt(macKey)
		otherKey, _ := m.encrypt(random(32))
		one, two := m.pack("W1", hash, macKey, random(20)), m.pack("W2", hash, macKey, random(20))
		oneWithMACOf2, twoWithMACOf1, oneWithSeedOf2 := one, two, one
		oneWithMACOf2.mac, twoWithMACOf1.mac, oneWithSeedOf2.sealed = two.mac, one.mac, two.sealed
		short := one
		value, err := base64.StdEncoding.DecodeString(one.mac)
		if err != nil {
			t.Fatal(err)
		}
		short.mac = base64.StdEncoding.EncodeToString(value[:16])
		whole := m.container(hash, sealed, one, two)
		for name, wrong := range map[string]struct {
			file     string
			rejected int // zero: the file is refused as a whole
			says     string
		}{
			"swapped MACs":            {m.container(hash, sealed, oneWithMACOf2, twoWithMACOf1), 2, c.says.Error()},
			"another's seed":          {m.container(hash, sealed, oneWithSeedOf2), 1, c.says.Error()},
			"a MAC cut short":         {m.container(hash, sealed, short), 1, "has 16 bytes; HMAC-SHA256 makes 32"},
			"another MAC key":         {m.container(hash, otherKey, one, two), 2, c.says.Error()},
			"a MAC key to a stranger": {m.container(hash, toStranger, one, two), 2, c.says.Error()},
			"another digest":          {strings.Replace(whole, "hmac-sha256", "hmac-sha512", 1), 2, "has 32 bytes; HMAC-SHA512 makes 64"},
			"cut in a key":            {whole[:strings.LastIndex(whole, "<ValueMAC>")], 0, "the file ends in the middle of an element"},
			"cut in the MAC key":      {whole[:strings.Index(whole, "</MACKey>")-20], 0, "the file ends in the middle of an element"},
			"no MACKey":               {strings.Replace(whole, "<MACKey>"+sealed+"</MACKey>", "", 1), 0, "but no MACKey in it"},
			"no MACs":                 {strings.ReplaceAll(strings.ReplaceAll(whole, "<ValueMAC>"+one.mac+"</ValueMAC>", ""), "<ValueMAC>"+two.mac+"</ValueMAC>", ""), 2, "the seed has no ValueMAC"},
		} {
			r, err := im.Import(context.Background(), admin, c.o, strings.NewReader(wrong.file))
			said := fmt.Sprint(err)
			switch {
			case wrong.rejected == 0 && !errors.Is(err, tokens.ErrInvalid):
				t.Errorf("%s, %s: %+v, %v", method, name, r, err)
			case wrong.rejected > 0 && (err != nil || r.Published || r.Created != 0 || len(r.Records) != wrong.rejected):
				t.Errorf("%s, %s: %+v, %v", method, name, r, err)
			case err == nil:
				said = r.Records[0].Reason
			}
			if !strings.Contains(said, wrong.says) {
				t.Errorf("%s, %s: it says %s; want %s", method, name, said, wrong.says)
			}
		}
		if list, _, err := core.Tokens(context.Background(), admin, tokens.TokenQuery{Limit: 10}); err != nil || len(list) != 0 {
			t.Errorf("%s: %d tokens are left, %v", method, len(list), err)
		}
		// The good ones of a file are imported all the same, if that is asked for.
		o := c.o
		o.Partial = true
		fine := m.pack("G"+fmt.Sprint(len(method)), hash, macKey, random(20))
		r, err := im.Import(context.Background(), admin, o, strings.NewReader(m.container(hash, sealed, oneWithMACOf2, fine)))
		if err != nil || !r.Published || r.Created != 1 || r.Rejected != 1 || r.ThroughHSM != 1 {
			t.Errorf("%s: %+v, %v", method, r, err)
		}
		i, err := core.Batches(context.Background(), admin, tokens.BatchQuery{Limit: 1})
		if err != nil || len(i) != 1 {
			t.Fatal(i, err)
		}
		if _, _, err := core.Undo(context.Background(), admin, i[0].ID); err != nil {
			t.Fatal(err)
		}
	}
}
