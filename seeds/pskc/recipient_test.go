package pskc

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"strings"
	"testing"
)

// figure 8's certificate and encrypted secret.
const (
	figure8Cert = `MIIB5zCCAVCgAwIBAgIESZp/vDANBgkqhkiG9w0BAQUFADA4M
Q0wCwYDVQQKEwRJRVRGMRMwEQYDVQQLEwpLZXlQcm92IFdHMRIwEAYDVQQDEwlQU0tDIF
Rlc3QwHhcNMDkwMjE3MDkxMzMyWhcNMTEwMjE3MDkxMzMyWjA4MQ0wCwYDVQQKEwRJRVR
GMRMwEQYDVQQLEwpLZXlQcm92IFdHMRIwEAYDVQQDEwlQU0tDIFRlc3QwgZ8wDQYJKoZI
hvcNAQEBBQADgY0AMIGJAoGBALCWLDa2ItYJ6su80hd1gL4cggQYdyyKK17btt/aS6Q/e
DsKjsPyFIODsxeKVV/uA3wLT4jQJM5euKJXkDajzGGOy92+ypfzTX4zDJMkh61SZwlHNJ
xBKilAM5aW7C+BQ0RvCxvdYtzx2LTdB+X/KMEBA7uIYxLfXH2Mnub3WIh1AgMBAAEwDQY
JKoZIhvcNAQEFBQADgYEAe875m84sYUJ8qPeZ+NG7REgTvlHTmoCdoByU0LBBLotUKuqf
rnRuXJRMeZXaaEGmzY1kLonVjQGzjAkU4dJ+RPmiDlYuHLZS41Pg6VMwY+03lhk6I5A/w
4rnqdkmwZX/NgXg06alnc2pBsXWhL4O7nk0S2ZrLMsQZ6HcsXgdmHo=`
	figure8Value = `hJ+fvpoMPMO9BYpK2rdyQYGIxiATYHTHC7e/sPLKYo5/r1v+4
xTYG3gJolCWuVMydJ7Ta0GaiBPHcWa8ctCVYmHKfSz5fdeV5nqbZApe6dofTqhRwZK6
Yx4ufevi91cjN2vBpSxYafvN3c3+xIgk0EnTV4iVPRCR0rBwyfFrPc4=`
)

// toKey is a secret that is encrypted to a public key.
func toKey(method, value string) string {
	return `<Secret><EncryptedValue>` + method + `<xenc:CipherData><xenc:CipherValue>` + value + `</xenc:CipherValue></xenc:CipherData></EncryptedValue></Secret>`
}

func rsaMethod(uri, inside string) string {
	return `<xenc:EncryptionMethod Algorithm="` + uri + `">` + inside + `</xenc:EncryptionMethod>`
}

var figure8 = strings.Replace(wrapXML("<EncryptionKey><ds:X509Data><ds:X509Certificate>"+figure8Cert+"</ds:X509Certificate></ds:X509Data></EncryptionKey>",
	keyPackage("987654321", hotpURI, eight, toKey(rsaMethod(nsXEnc+"rsa_1_5", ""), figure8Value)+counter0)), "<KeyContainer", `<KeyContainer id="KC0001"`, 1)

func TestRFC6030Figure8IsReadOnlyIfItsCipherIsNamed(t *testing.T) {
	keys, err := readAll(strings.NewReader(figure8), Options{})
	if err == nil || len(keys) > 0 || !strings.Contains(err.Error(), "RSA-1_5 (PKCS #1 v1.5), which is off") {
		t.Errorf("%d keys, %v", len(keys), err)
	}
	r := NewReader(strings.NewReader(figure8), Options{AllowRSA15: true})
	defer r.Close()
	k, err := r.Next()
	if err != nil || k.Err != nil || k.Encrypted == nil || len(k.Secret) > 0 {
		t.Fatalf("%+v, %v", k, err)
	}
	want, _ := base64.StdEncoding.DecodeString(strings.ReplaceAll(figure8Value, "\n", ""))
	if e := k.Encrypted; !e.PKCS1 || !bytes.Equal(e.Ciphertext, want) || e.Label != nil {
		t.Errorf("%+v", e)
	}
	p := r.Recipient()
	if p == nil || p.Issuer != "CN=PSKC Test,OU=KeyProv WG,O=IETF" || p.Serial.Int64() != 0x499a7fbc || len(p.Thumbprint) != 32 || p.PublicKey.Size() != 128 {
		t.Errorf("%+v", p)
	}
}

// Each way to name OAEP's parameters gives those that the seed is encrypted with.
func TestSeedsEncryptedToAKeyKeepTheirParameters(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	digest := func(uri string) string { return `<ds:DigestMethod Algorithm="` + uri + `"/>` }
	mgf := func(name string) string {
		return `<x:MGF xmlns:x="` + nsXEnc11 + `" Algorithm="` + nsXEnc11 + name + `"/>`
	}
	label := `<xenc:OAEPparams>` + base64.StdEncoding.EncodeToString([]byte("label")) + `</xenc:OAEPparams>`
	value := `<EncryptionKey><ds:KeyName>ours</ds:KeyName><ds:KeyValue><ds:RSAKeyValue><ds:Modulus>` + base64.StdEncoding.EncodeToString(key.N.Bytes()) + `</ds:Modulus><ds:Exponent>AQAB</ds:Exponent></ds:RSAKeyValue></ds:KeyValue></EncryptionKey>`
	issuer := `<EncryptionKey><ds:KeyName>ours</ds:KeyName><ds:X509Data><ds:X509IssuerSerial><ds:X509IssuerName>CN=CA</ds:X509IssuerName><ds:X509SerialNumber>77</ds:X509SerialNumber></ds:X509IssuerSerial><ds:X509SKI>AQID</ds:X509SKI><ds:X509SubjectName>CN=us</ds:X509SubjectName>
 <d:X509Digest xmlns:d="` + nsDS11 + `" Algorithm="` + nsXEnc + `sha256">BAUG</d:X509Digest></ds:X509Data></EncryptionKey>`
	for _, c := range []struct {
		name, header, method string
		hash, mgf            crypto.Hash
		label                []byte
	}{
		{"mgf1p", value, rsaMethod(nsXEnc+"rsa-oaep-mgf1p", ""), crypto.SHA1, crypto.SHA1, nil},
		{"mgf1p, SHA-1 named", value, rsaMethod(nsXEnc+"rsa-oaep-mgf1p", digest(nsDS+"sha1")), crypto.SHA1, crypto.SHA1, nil},
		{"mgf1p, SHA-256", value, rsaMethod(nsXEnc+"rsa-oaep-mgf1p", digest(nsXEnc+"sha256")+label), crypto.SHA256, crypto.SHA1, []byte("label")},
		{"1.1", value, rsaMethod(nsXEnc11+"rsa-oaep", ""), crypto.SHA1, crypto.SHA1, nil},
		{"1.1, SHA-256 and 384", value, rsaMethod(nsXEnc11+"rsa-oaep", digest(nsXEnc+"sha256")+mgf("mgf1sha384")), crypto.SHA256, crypto.SHA384, nil},
		{"1.1, SHA-512", issuer, rsaMethod(nsXEnc11+"rsa-oaep", label+digest(nsXEnc+"sha512")+mgf("mgf1sha512")), crypto.SHA512, crypto.SHA512, []byte("label")},
		{"key only by name", "<EncryptionKey><ds:KeyName>ours</ds:KeyName></EncryptionKey>", rsaMethod(nsXEnc11+"rsa-oaep", digest(nsXEnc+"sha256")+mgf("mgf1sha256")), crypto.SHA256, crypto.SHA256, nil},
	} {
		sealed, err := rsa.EncryptOAEPWithOptions(rand.Reader, &key.PublicKey, []byte(figureSeed), &rsa.OAEPOptions{Hash: c.hash, MGFHash: c.mgf, Label: c.label})
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(strings.NewReader(wrapXML(c.header, keyPackage("A1", totpURI, eight, toKey(c.method, base64.StdEncoding.EncodeToString(sealed))))), Options{})
		k, err := r.Next()
		if err != nil || k.Err != nil || k.Encrypted == nil || k.Algorithm != TOTP || k.Digits != 8 {
			t.Errorf("%s: %+v, %v", c.name, k, err)
			continue
		}
		e := k.Encrypted
		opened, err := key.Decrypt(nil, e.Ciphertext, &rsa.OAEPOptions{Hash: e.OAEPHash, MGFHash: e.MGFHash, Label: e.Label})
		if err != nil || string(opened) != figureSeed || e.PKCS1 {
			t.Errorf("%s: %+v does not open it: %v", c.name, e, err)
		}
		p := r.Recipient()
		if p.KeyName != "ours" {
			t.Errorf("%s: %+v", c.name, p)
		}
		if c.header == value && !p.PublicKey.Equal(&key.PublicKey) {
			t.Errorf("%s: another key", c.name)
		}
		if c.header == issuer && (p.Issuer != "CN=CA" || p.Serial.Int64() != 77 || !bytes.Equal(p.SKI, []byte{1, 2, 3}) || p.Subject != "CN=us" || !bytes.Equal(p.Thumbprint, []byte{4, 5, 6})) {
			t.Errorf("%s: %+v", c.name, p)
		}
		r.Close()
	}
}

func TestSeedsEncryptedToAKeyThatAreRefused(t *testing.T) {
	oaep := rsaMethod(nsXEnc+"rsa-oaep-mgf1p", "")
	header := "<EncryptionKey><ds:X509Data><ds:X509Certificate>" + figure8Cert + "</ds:X509Certificate></ds:X509Data></EncryptionKey>"
	good := toKey(oaep, figure8Value)
	ec := newVendor(t, mustECDSA(t))
	for _, c := range []struct{ name, header, secret, says string }{
		{"length", header, toKey(oaep, strings.Repeat("AAAA", 64)), "into 192 bytes, which is not the length of the key"},
		{"short", "", toKey(oaep, "AAAA"), "into 3 bytes"},
		{"digest", header, toKey(rsaMethod(nsXEnc+"rsa-oaep-mgf1p", `<ds:DigestMethod Algorithm="x#md5"/>`), figure8Value), `with the digest "x#md5"`},
		{"MGF", header, toKey(rsaMethod(nsXEnc11+"rsa-oaep", `<x:MGF xmlns:x="`+nsXEnc11+`" Algorithm="x#sha256"/>`), figure8Value), "with the mask generation function"},
		{"MGF where there is none", header, toKey(rsaMethod(nsXEnc+"rsa-oaep-mgf1p", `<x:MGF xmlns:x="`+nsXEnc11+`" Algorithm="`+nsXEnc11+`mgf1sha256"/>`), figure8Value), `with a parameter "MGF"`},
		{"label", header, toKey(rsaMethod(nsXEnc+"rsa-oaep-mgf1p", `<xenc:OAEPparams>?</xenc:OAEPparams>`), figure8Value), "OAEPparams is not base64"},
		{"counter", header, good + strings.ReplaceAll(good, "Secret>", "Counter>"), "Counter is encrypted to a public key, which only a seed can be"},
		{"password", `<EncryptionKey><DerivedKey><KeyDerivationMethod Algorithm="` + nsXEnc11 + `pbkdf2"><PBKDF2-params><Salt><Specified>AAAA</Specified></Salt><IterationCount>1</IterationCount></PBKDF2-params></KeyDerivationMethod></DerivedKey></EncryptionKey>`, good, "whose key comes from a password"},
		{"certificate", strings.Replace(header, "MIIB5z", "MIIB6z", 1), good, "the X509Certificate of the key that the seeds are encrypted to cannot be read"},
		{"certificate for ECDSA", "<EncryptionKey><ds:X509Data><ds:X509Certificate>" + base64.StdEncoding.EncodeToString(ec.cert.Raw) + "</ds:X509Certificate></ds:X509Data></EncryptionKey>", good, "is not for an RSA key"},
		{"two keys", strings.Replace(header, "</EncryptionKey>", "<ds:KeyValue><ds:RSAKeyValue><ds:Modulus>AAAA</ds:Modulus><ds:Exponent>AQAB</ds:Exponent></ds:RSAKeyValue></ds:KeyValue></EncryptionKey>", 1), good, "the file names two keys"},
		{"session key", "<EncryptionKey><xenc:EncryptedKey/></EncryptionKey>", good, "given by EncryptedKey, which is not supported"},
		{"symmetric values", header, figure6Seed, "names a public key, but its values are encrypted by a symmetric cipher"},
	} {
		keys, err := readAll(strings.NewReader(wrapXML(c.header, keyPackage("A1", hotpURI, eight, c.secret))), Options{Password: []byte("x")})
		for _, k := range keys {
			if err == nil {
				err = k.Err
			}
			if k.Encrypted != nil {
				t.Errorf("%s: %+v", c.name, k.Encrypted)
			}
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %s", c.name, err, c.says)
		}
	}
}

// macHeader says that the seeds are encrypted to our key and have MACs, whose key
// is encrypted as method says.
func macHeader(hash, method, key string) string {
	return "<EncryptionKey><ds:KeyName>ours</ds:KeyName></EncryptionKey>" + `<MACMethod Algorithm="` + hash + `"><MACKey>` +
		method + `<xenc:CipherData><xenc:CipherValue>` + key + `</xenc:CipherValue></xenc:CipherData></MACKey></MACMethod>`
}

func withMAC(secret string, mac []byte) string {
	return strings.Replace(secret, "</Secret>", "<ValueMAC>"+base64.StdEncoding.EncodeToString(mac)+"</ValueMAC></Secret>", 1)
}

// A MAC whose key is encrypted to the certificate goes on with the seed, for
// whoever has the private key: nobody else can check it.
func TestMACsOfSeedsEncryptedToAKeyGoOnWithThem(t *testing.T) {
	macKey := bytes.Repeat([]byte{7}, 256)
	label := `<xenc:OAEPparams>` + base64.StdEncoding.EncodeToString([]byte("label")) + `</xenc:OAEPparams>`
	value, _ := base64.StdEncoding.DecodeString(strings.ReplaceAll(figure8Value, "\n", ""))
	for _, c := range []struct {
		uri, seed, key string // algorithms
		hash           crypto.Hash
		pkcs1          bool
	}{
		{nsDS + "hmac-sha1", nsXEnc + "rsa-oaep-mgf1p", nsXEnc + "rsa-oaep-mgf1p", crypto.SHA1, false},
		{"http://www.w3.org/2001/04/xmldsig-more#hmac-sha224", nsXEnc + "rsa-oaep-mgf1p", nsXEnc11 + "rsa-oaep", crypto.SHA224, false},
		{"http://www.w3.org/2001/04/xmldsig-more#hmac-sha256", nsXEnc + "rsa-1_5", nsXEnc + "rsa-1_5", crypto.SHA256, true},
		{"http://www.w3.org/2001/04/xmldsig-more#hmac-sha384", nsXEnc11 + "rsa-oaep", nsXEnc + "rsa-oaep-mgf1p", crypto.SHA384, false},
		{"http://www.w3.org/2001/04/xmldsig-more#HMAC-SHA-512", nsXEnc + "rsa_1_5", nsXEnc + "rsa-1_5", crypto.SHA512, true},
	} {
		inside := ""
		if !c.pkcs1 {
			inside = label + `<ds:DigestMethod Algorithm="` + nsXEnc + `sha256"/>`
		}
		mac := bytes.Repeat([]byte{9}, c.hash.Size())
		secret := withMAC(toKey(rsaMethod(c.seed, ""), figure8Value), mac)
		r := NewReader(strings.NewReader(wrapXML(macHeader(c.uri, rsaMethod(c.key, inside), base64.StdEncoding.EncodeToString(macKey)),
			keyPackage("A1", hotpURI, eight, secret), keyPackage("A2", hotpURI, eight, secret))), Options{AllowRSA15: true})
		var first *Encrypted
		for range 2 {
			k, err := r.Next()
			if err != nil || k.Err != nil || k.Encrypted == nil || k.Encrypted.MAC == nil {
				t.Fatalf("%s: %+v, %v", c.uri, k, err)
			}
			e := k.Encrypted
			m := e.MAC
			if e.PKCS1 != c.pkcs1 || !bytes.Equal(e.Ciphertext, value) || m.Hash != c.hash || !bytes.Equal(m.Value, mac) {
				t.Errorf("%s: %+v with %+v", c.uri, e, m)
			}
			if m.Key.PKCS1 != c.pkcs1 || !bytes.Equal(m.Key.Ciphertext, macKey) {
				t.Errorf("%s: MAC key %+v", c.uri, m.Key)
			}
			if !c.pkcs1 && (m.Key.OAEPHash != crypto.SHA256 || m.Key.MGFHash != crypto.SHA1 || string(m.Key.Label) != "label" || e.OAEPHash != crypto.SHA1 || e.Label != nil) {
				t.Errorf("%s: seed by %+v, MAC key by %+v", c.uri, e, m.Key)
			}
			if first == nil {
				first = e
			}
		}
		if p := r.Recipient(); p == nil || p.KeyName != "ours" {
			t.Errorf("%s: %+v", c.uri, p)
		}
		r.Close() // what was handed on is not the reader's any more
		if !bytes.Equal(first.MAC.Key.Ciphertext, macKey) || !bytes.Equal(first.MAC.Value, mac) || !bytes.Equal(first.Ciphertext, value) {
			t.Errorf("%s: wiped by Close", c.uri)
		}
		if notes := r.Notes(); len(notes) > 0 {
			t.Errorf("%s: noted %q", c.uri, notes)
		}
	}
}

func TestMACsBesideSeedsEncryptedToAKeyThatAreRefused(t *testing.T) {
	const hash = nsDS + "hmac-sha1"
	oaep, pkcs1 := rsaMethod(nsXEnc+"rsa-oaep-mgf1p", ""), rsaMethod(nsXEnc+"rsa-1_5", "")
	seed, plain := toKey(oaep, figure8Value), "<EncryptionKey><ds:KeyName>ours</ds:KeyName></EncryptionKey>"
	header, good := macHeader(hash, oaep, figure8Value), withMAC(seed, make([]byte, 20))
	_, symmetric, _ := strings.Cut(figure6Header, "<MACMethod")
	symmetric = "<MACMethod" + symmetric
	certificate := "<EncryptionKey><ds:X509Data><ds:X509Certificate>" + figure8Cert + "</ds:X509Certificate></ds:X509Data></EncryptionKey>"
	derived := `<EncryptionKey><DerivedKey><KeyDerivationMethod Algorithm="` + nsXEnc11 + `pbkdf2"><PBKDF2-params><Salt><Specified>AAAA</Specified></Salt><IterationCount>1</IterationCount></PBKDF2-params></KeyDerivationMethod></DerivedKey></EncryptionKey>`
	_, method, _ := strings.Cut(header, "</EncryptionKey>")
	for _, c := range []struct {
		name, header, secret string
		pkcs1                bool // allowed
		file                 bool // refused as a whole
		says                 string
	}{
		{"no MACMethod", plain, good, false, false, "the seed has a MAC, but no MACMethod says how to check it"},
		{"a MACMethod without a name", plain + "<MACMethod/>", good, false, false, "the seed has a MAC, but the MACMethod names no algorithm"},
		{"no MACKey", plain + `<MACMethod Algorithm="` + hash + `"/>`, good, false, true, "a MACMethod, but no MACKey in it"},
		{"a MAC key under a symmetric key", plain + symmetric, good, false, true, "the MAC key under a symmetric key"},
		{"seeds under a symmetric key", "<EncryptionKey><ds:KeyName>Pre-shared-key</ds:KeyName></EncryptionKey>" + method, figure6Seed, false, true, "the MAC key is encrypted to a public key, but the values under a symmetric key"},
		{"seeds under a symmetric key, certificate", certificate + method, figure6Seed, false, true, "the MAC key is encrypted to a public key, but the values under a symmetric key"},
		{"a password", derived + method, good, false, true, "the MAC key is encrypted to a public key in a file whose key comes from a password"},
		{"RSA-1_5 for the MAC key", macHeader(hash, pkcs1, figure8Value), good, false, true, "which is off"},
		{"RSA-1_5 for the MAC key only", macHeader(hash, pkcs1, figure8Value), good, true, true, "one is encrypted by RSA-1_5, the other by RSA-OAEP"},
		{"RSA-1_5 for the seed only", header, withMAC(toKey(pkcs1, figure8Value), make([]byte, 20)), true, true, "one is encrypted by RSA-1_5, the other by RSA-OAEP"},
		{"no MAC", header, seed, false, false, "the file has a MACMethod, but the seed has no ValueMAC"},
		{"a MAC cut short", header, withMAC(seed, make([]byte, 19)), false, false, "has 19 bytes; HMAC-SHA1 makes 20"},
		{"a MAC of one byte", header, withMAC(seed, make([]byte, 1)), false, false, "has 1 bytes; HMAC-SHA1 makes 20"},
		{"a MAC too long", header, withMAC(seed, make([]byte, 21)), false, false, "has 21 bytes; HMAC-SHA1 makes 20"},
		{"a MAC of a thousand bytes", header, withMAC(seed, make([]byte, 1000)), false, false, "the MAC of the seed "},
		{"an empty MAC", header, withMAC(seed, nil), false, false, "the MAC of the seed "},
		{"a MAC that is not base64", header, strings.Replace(seed, "</Secret>", "<ValueMAC>?</ValueMAC></Secret>", 1), false, false, "the MAC of the seed is not base64"},
		{"a MAC key cut short", macHeader(hash, oaep, "AAAA"), good, false, true, "the MAC key is encrypted by RSA into 3 bytes"},
		{"a MAC key of another length", certificate + strings.Replace(method, figure8Value, strings.Repeat("AAAA", 64), 1), good, false, true, "the MAC key is encrypted by RSA into 192 bytes"},
		{"a MAC key by a scheme within", macHeader(hash, strings.Replace(rsaMethod("x", "<EncryptionScheme/>"), "<EncryptionScheme", `<EncryptionScheme Algorithm="`+nsXEnc+`rsa-1_5"`, 1), figure8Value), figure6Seed, true, true, "in a way that is not understood"},
		{"a MAC key by a strange digest", macHeader(hash, rsaMethod(nsXEnc+"rsa-oaep-mgf1p", `<ds:DigestMethod Algorithm="x#md5"/>`), figure8Value), good, false, true, `the MAC key is encrypted by RSA-OAEP, with the digest "x#md5"`},
	} {
		keys, err := readAll(strings.NewReader(wrapXML(c.header, keyPackage("A1", hotpURI, eight, c.secret))), Options{AllowRSA15: c.pkcs1, Password: []byte("x"), Key: []byte("1234567890123456")})
		if (err != nil) != c.file {
			t.Errorf("%s: the file is refused: %v", c.name, err)
		}
		for _, k := range keys {
			if err == nil {
				err = k.Err
			}
			if k.Encrypted != nil {
				t.Errorf("%s: %+v", c.name, k.Encrypted)
			}
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %s", c.name, err, c.says)
		}
	}
}

func mustECDSA(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Yubico's containers (draft-josefsson-keyprov-pskc-yubikey).
func TestYubicosContainersAreRead(t *testing.T) {
	yubikey := func(user string) string {
		return wrapXML("", strings.Replace(keyPackage("283599", "http://www.yubico.com/#yubikey-aes", `<AlgorithmParameters><ResponseFormat Encoding="ALPHANUMERIC" Length="44"/></AlgorithmParameters>`,
			`<Secret><PlainValue> K34VFiiu0qar9xWICc9PPA== </PlainValue></Secret>`), "</Data>", "</Data>"+user+
			`<Extensions><YubiKey xmlns="http://www.yubico.com/#yubikey-aes-ext"><YubiKeyLock Code="98566d358630"/></YubiKey></Extensions>`, 1))
	}
	keys, err := readAll(strings.NewReader(yubikey("<UserId>CN=ekhgjhbctrgn, UID=ca62baca62ba</UserId>")), Options{})
	if err != nil || len(keys) != 1 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	k := keys[0]
	if k.Err != nil || k.Algorithm != YubiKeyAES || k.PublicID != "ekhgjhbctrgn" || !bytes.Equal(k.PrivateID[:], mustHex("ca62baca62ba")) ||
		!bytes.Equal(k.Secret, mustHex("2b7e151628aed2a6abf7158809cf4f3c")) || k.Digits != 0 || k.User != "" || k.Serial != "283599" {
		t.Errorf("%+v", k)
	}
	for _, user := range []string{"", "<UserId>jsmith</UserId>", "<UserId>CN=ekhgjhbctrgn, UID=ca62baca62</UserId>", "<UserId>CN=a,UID=zzzzzzzzzzzz</UserId>", "<UserId><x/></UserId>"} {
		keys, err := readAll(strings.NewReader(yubikey(user)), Options{})
		if err != nil || len(keys) != 1 || keys[0].Err == nil || keys[0].PrivateID != [6]byte{} || strings.Contains(keys[0].Err.Error(), "ca62") {
			t.Errorf("%s: %+v, %v", user, keys, err)
		}
	}
}
