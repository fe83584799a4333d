package seeds_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/seeds"
	"watchword/tokens"
)

// figure is a figure of RFC 6030.
func figure(t *testing.T, n int) string {
	t.Helper()
	file, err := os.ReadFile(filepath.Join("testdata", "rfc6030", fmt.Sprintf("figure%d.xml", n)))
	if err != nil {
		t.Fatal(err)
	}
	return string(file)
}

// accepts fails the test unless a token, given to a new user, makes the codes
// that oathtool makes of the seed.
func accepts(t *testing.T, core *tokens.Service, admin tokens.Principal, serial string, args ...string) {
	t.Helper()
	ctx := context.Background()
	user := "owner-of-" + strings.ToLower(serial)
	if _, err := core.AddUser(ctx, admin, "", user); err != nil {
		t.Fatal(err)
	}
	if _, err := core.Assign(ctx, admin, "", serial, user); err != nil {
		t.Errorf("%s: %v", serial, err)
		return
	}
	code := strings.TrimSpace(output(t, "", "oathtool", args...))
	if r, err := core.Verify(ctx, admin, tokens.Attempt{User: user, Code: code, Transport: "http"}); err != nil || !r.Accept || r.Serial != serial {
		t.Errorf("%s: oathtool's code is answered %+v, %v", serial, r, err)
	}
}

// The end of a key's validity period is its token's expiry, also where the import
// hands the token out, and is bound.
func TestATokenIsRefusedFromTheEndOfItsValidityPeriodOn(t *testing.T) {
	ctx := context.Background()
	for _, assign := range []bool{false, true} {
		var ahead atomic.Int64
		core, admin := newCore(t, func(c *tokens.Config) {
			c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		})
		end := time.Now().Add(24 * time.Hour).UTC().Truncate(time.Second)
		file := strings.Replace(figure(t, 3), "<UserId>UID", "<Policy><ExpiryDate>"+end.Format(time.RFC3339)+"</ExpiryDate></Policy><UserId>UID", 1)
		r, err := seeds.NewImporter(seeds.Service(core)).Import(ctx, admin, seeds.Options{Assign: assign, Create: assign}, strings.NewReader(file))
		if err != nil || !r.Published || r.Created != 1 || !strings.Contains(fmt.Sprint(r.Notes), "validity period ends: 1, the first of them on "+end.Format("2006-01-02")) {
			t.Fatalf("%+v, %v", r, err)
		}
		got, err := core.ShowToken(ctx, admin, "", "987654321")
		if err != nil || !got.Expires.Equal(end) {
			t.Fatalf("it expires %v, %v", got.Expires, err)
		}
		user := got.Owner
		if !assign {
			user = "alice"
			if _, err := core.AddUser(ctx, admin, "", user); err != nil {
				t.Fatal(err)
			}
			if _, err := core.Assign(ctx, admin, "", got.Serial, user); err != nil {
				t.Fatal(err)
			}
		}
		for n, accept := range []bool{true, false} {
			code := strings.TrimSpace(output(t, "", "oathtool", "-d8", "-c"+fmt.Sprint(n), "3132333435363738393031323334353637383930"))
			if r, err := core.Verify(ctx, admin, tokens.Attempt{User: user, Code: code, Transport: "http"}); err != nil || r.Accept != accept {
				t.Errorf("code %d: %+v, %v; want accept %v", n, r, err, accept)
			}
			ahead.Store(int64(time.Until(end)))
		}
		why, err := core.Why(ctx, admin, "", user, 1)
		if err != nil || len(why) != 1 || why[0].Record.Reason != string(tokens.ReasonExpiredUsed) {
			t.Errorf("why: %+v, %v", why, err)
		}
	}
}

func TestRFC6030FiguresAreImportedAsFarAsTheyGo(t *testing.T) {
	const seed = "3132333435363738393031323334353637383930" // "12345678901234567890"
	key, password := []byte("12345678901234567890123456789012"), []byte("qwerty")
	for _, c := range []struct {
		n       int
		o       seeds.Options
		created []string // their serials
		digits  string
		says    string // the reason of what is not created, or a note
	}{
		{2, seeds.Options{}, nil, "", "a seed of 4 bytes; 10 are the least"},
		{3, seeds.Options{}, []string{"987654321"}, "-d8", ""},
		{4, seeds.Options{Partial: true}, nil, "", "only a reference to a key that the vendor holds"},
		{5, seeds.Options{}, []string{"987654321"}, "-d8", `Key package 2, key "123456781", is the PIN of key "12345678", not a token`},
		{6, seeds.Options{PSK: key}, []string{"987654321"}, "-d8", ""},
		{6, seeds.Options{}, nil, "", `pre-shared key, which the file calls "Pre-shared-key"; give it with --psk-file`},
		{7, seeds.Options{Password: password}, []string{"987654321"}, "-d8", ""},
		{7, seeds.Options{Password: []byte("qwertz")}, nil, "", "the key or password is not the one"},
		{8, seeds.Options{}, nil, "", "RSA-1_5 (PKCS #1 v1.5), which is off"},
		{8, seeds.Options{AllowRSA15: true, Partial: true}, nil, "", "there is no transport key here"},
		{9, seeds.Options{}, []string{"0755225266"}, "-d6", "a signature, which was not checked"},
		{9, seeds.Options{Signer: signer(t).certificate}, nil, "", "is made with SHA-1"},
		{10, seeds.Options{}, nil, "", "the key expired on 2006-05-31; --partial imports it all the same"},
		{10, seeds.Options{Partial: true}, []string{"654321", "123456", "9999999"}, "-d8", "the serial occurs already earlier in this file"},
	} {
		t.Run(fmt.Sprint("figure ", c.n, " ", c.says), func(t *testing.T) {
			core, admin := newCore(t)
			r, err := seeds.NewImporter(seeds.Service(core)).Import(context.Background(), admin, c.o, strings.NewReader(figure(t, c.n)))
			said := fmt.Sprint(err)
			if err == nil {
				said = fmt.Sprint(r.Message, r.Notes, r.Records)
				if r.Created != len(c.created) && r.Published {
					t.Errorf("%d tokens are created, want %d", r.Created, len(c.created))
				}
			} else if !errors.Is(err, tokens.ErrInvalid) {
				t.Errorf("%v", err)
			}
			if !strings.Contains(said, c.says) {
				t.Errorf("it says %s; want %s", said, c.says)
			}
			list, _, err := core.Tokens(context.Background(), admin, tokens.TokenQuery{Limit: 10})
			if err != nil || len(list) != len(c.created) {
				t.Fatalf("%d tokens, %v; it says %s", len(list), err, said)
			}
			for _, serial := range c.created {
				accepts(t, core, admin, serial, "-c0", c.digits, seed)
			}
		})
	}
}

// Whatever pskc-utils can write comes in, and the tokens' codes are those that
// oathtool makes of their seeds.
func TestCodesOfEachPSKCProtectionAreOathtools(t *testing.T) {
	dir := t.TempDir()
	const key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	type file struct {
		name, psk string
		seed      string
	}
	var files []file
	var script strings.Builder
	script.WriteString("from pskc import PSKC\n")
	add := func(setup, psk string, seed []byte) {
		i := len(files)
		files = append(files, file{filepath.Join(dir, fmt.Sprint(i)), psk, hex.EncodeToString(seed)})
		fmt.Fprintf(&script, `
p = PSKC()
p.add_key(serial='T%[1]d', secret=bytes.fromhex('%[2]x'), algorithm='urn:ietf:params:xml:ns:keyprov:pskc:totp', algorithm_suite='HMAC-SHA256', response_length=8, response_encoding='DECIMAL', time_interval=60)
p.add_key(serial='H%[1]d', secret=bytes.fromhex('%[2]x'), algorithm='urn:ietf:params:xml:ns:keyprov:pskc:hotp', response_length=6, response_encoding='DECIMAL', counter=%[3]d)
%[4]s
p.write('%[5]s')
`, i, seed, 1000+i, setup, files[i].name)
	}
	twenty, block := []byte("12345678901234567890"), []byte("123456789012345678901234")
	for algorithm, length := range map[string]int{
		"aes128-cbc": 16, "aes192-cbc": 24, "aes256-cbc": 32, "tripledes-cbc": 24, "camellia128-cbc": 16, "camellia192-cbc": 24, "camellia256-cbc": 32,
		"kw-aes128": 16, "kw-aes192": 24, "kw-aes256": 32, "kw-camellia128": 16, "kw-camellia192": 24, "kw-camellia256": 32, "kw-tripledes": 24,
	} {
		setup := fmt.Sprintf("p.encryption.setup_preshared_key(key=bytes.fromhex('%s'), algorithm='%s', fields=['secret'])", key[:2*length], algorithm)
		if !strings.HasPrefix(algorithm, "kw-") {
			for _, mac := range []string{"sha1", "sha224", "sha256", "sha384", "sha512"} {
				add("p.mac.setup(algorithm='hmac-"+mac+"')\n"+setup, key[:2*length], twenty)
			}
			continue
		}
		if algorithm != "kw-tripledes" {
			add(setup, key[:2*length], twenty) // RFC 5649
		}
		add(setup, key[:2*length], block)
	}
	for _, prf := range []string{"sha1", "sha224", "sha256", "sha384", "sha512"} {
		add("p.encryption.setup_pbkdf2('swordfish', algorithm='aes192-cbc', iterations=1000, prf='hmac-"+prf+"')", "", twenty)
	}
	output(t, script.String(), "/usr/bin/python3", "-")

	core, admin := newCore(t)
	im := seeds.NewImporter(seeds.Service(core))
	for i, f := range files {
		text, err := os.Open(f.name)
		if err != nil {
			t.Fatal(err)
		}
		o := seeds.Options{Password: []byte("swordfish")}
		if f.psk != "" {
			o = seeds.Options{PSK: []byte(f.psk)}
		}
		r, err := im.Import(context.Background(), admin, o, text)
		text.Close()
		if err != nil || r.Created != 2 || !r.Published {
			t.Errorf("file %d: %+v, %v", i, r, err)
			continue
		}
		accepts(t, core, admin, fmt.Sprint("T", i), "--totp=sha256", "-d8", "-s60", f.seed)
		accepts(t, core, admin, fmt.Sprint("H", i), "-d6", fmt.Sprint("-c", 1000+i), f.seed)
	}
}

// vendorKey is who signs a file, by xmlsec1.
type vendorKey struct {
	certificate []byte // PEM
	path        string // of the private key
}

func signer(t *testing.T) vendorKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ACME"}, NotAfter: time.Now().AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		t.Fatal(err)
	}
	return vendorKey{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), path}
}

// sign puts a signature into a container.
func (v vendorKey) sign(t *testing.T, file string) string {
	t.Helper()
	const ds, exc = "http://www.w3.org/2000/09/xmldsig#", "http://www.w3.org/2001/10/xml-exc-c14n#"
	end := strings.LastIndex(file, "</")
	path := filepath.Join(t.TempDir(), "file.xml")
	blank := `<ds:Signature xmlns:ds="` + ds + `"><ds:SignedInfo><ds:CanonicalizationMethod Algorithm="` + exc + `"/><ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"/>
<ds:Reference URI=""><ds:Transforms><ds:Transform Algorithm="` + ds + `enveloped-signature"/><ds:Transform Algorithm="` + exc + `"/></ds:Transforms><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue/></ds:Reference></ds:SignedInfo><ds:SignatureValue/></ds:Signature>`
	if err := os.WriteFile(path, []byte(file[:end]+blank+file[end:]), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("xmlsec1", "--sign", "--privkey-pem", v.path, path).Output()
	if err != nil {
		t.Fatalf("xmlsec1 (package xmlsec1): %v", err)
	}
	return string(out)
}

func TestSignedPSKCIsImportedOnlyAsItWasSigned(t *testing.T) {
	v := signer(t)
	core, admin := newCore(t)
	im := seeds.NewImporter(seeds.Service(core))
	signed := v.sign(t, figure(t, 3))
	o := seeds.Options{Signer: v.certificate, Partial: true}
	for name, file := range map[string]string{
		"unsigned":   figure(t, 3),
		"altered":    strings.Replace(signed, "MTIz", "MTIx", 1),
		"by another": signer(t).sign(t, figure(t, 3)),
	} {
		if r, err := im.Import(context.Background(), admin, o, strings.NewReader(file)); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	if _, err := im.Import(context.Background(), admin, seeds.Options{Signer: []byte("no certificate")}, strings.NewReader(signed)); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("no certificate: %v", err)
	}
	r, err := im.Import(context.Background(), admin, o, strings.NewReader(signed))
	if err != nil || r.Created != 1 || !strings.Contains(fmt.Sprint(r.Notes), `the right signature of "CN=ACME"`) {
		t.Errorf("%+v, %v", r, err)
	}
}

// What the person who imports chooses counts where the container is silent, and
// nowhere else.
func TestChoicesFillInWhatPSKCLeavesOpen(t *testing.T) {
	const open = `<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc"><KeyPackage><Key Id="A1" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:totp">%s<Data><Secret><PlainValue>MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=</PlainValue></Secret>%s</Data></Key></KeyPackage></KeyContainer>`
	silent := fmt.Sprintf(open, "", "")
	says := fmt.Sprintf(open, `<AlgorithmParameters Suite="HMAC-SHA256"><ResponseFormat Length="8" Encoding="DECIMAL"/></AlgorithmParameters>`, "<TimeInterval><PlainValue>60</PlainValue></TimeInterval>")
	format, err := seeds.FormatNamed("pskc")
	if err != nil {
		t.Fatal(err)
	}
	chosen := seeds.Choices{Hash: hsm.SHA512, Digits: 7, Period: 45}
	for _, c := range []struct {
		file   string
		chosen seeds.Choices
		want   string
	}{
		{silent, seeds.Choices{}, "sha1 6 30"},
		{silent, chosen, "sha512 7 45"},
		{says, seeds.Choices{}, "sha256 8 60"},
		{says, chosen, "sha256 8 60"},
	} {
		rd := format.Open(strings.NewReader(c.file), seeds.OpenOptions{Choices: c.chosen})
		rec, err := rd.Next()
		if err != nil || rec.Err != nil {
			t.Fatal(err, rec.Err)
		}
		if got := fmt.Sprint(rec.Algorithm, rec.Digits, rec.Period); got != c.want {
			t.Errorf("chosen %+v: %s, want %s", c.chosen, got, c.want)
		}
		rd.Close()
	}
}

// A seed that is encrypted to a public key goes on as it is, with all that the
// HSM needs to take it over; without a transport key the record is bad.
func TestPSKCSeedsEncryptedToAKeyGoOnAsTheyAre(t *testing.T) {
	file := strings.Replace(figure(t, 8), "rsa_1_5", "rsa-oaep-mgf1p", 1)
	format, err := seeds.FormatNamed("pskc")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []seeds.OpenOptions{{}, {Transported: true}} {
		rd := format.Open(strings.NewReader(file), o)
		rec, err := rd.Next()
		if err != nil || len(rec.Seed) > 0 {
			t.Fatalf("%+v, %v", rec, err)
		}
		if !o.Transported {
			if rec.Err == nil || rec.Transported != nil || !strings.Contains(rec.Err.Error(), "no transport key") {
				t.Errorf("%+v", rec)
			}
			continue
		}
		s := rec.Transported
		if rec.Err != nil || s == nil || s.Mechanism != hsm.TransportOAEP || s.OAEPHash != crypto.SHA1 || s.MGFHash != crypto.SHA1 || s.Hash != hsm.SHA1 || len(s.Ciphertext) != 128 {
			t.Errorf("%+v", rec)
		}
		named, ok := rd.(interface{ TransportKey() *rsa.PublicKey })
		if !ok || named.TransportKey().Size() != 128 {
			t.Error("the key that the file names is not told")
		}
		if _, err := rd.Next(); err != io.EOF {
			t.Error(err)
		}
		rd.Close()
	}
}
