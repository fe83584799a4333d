package pskc

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// older is a container as the drafts before RFC 6030 had it.
func older(root, namespace, header string, devices ...string) string {
	return fmt.Sprintf("<%s xmlns=%q xmlns:ds=%q xmlns:xenc=%q version=\"1.2\">%s%s</%[1]s>", root, namespace, nsDS, nsXEnc, header, strings.Join(devices, ""))
}

// device is one of the first drafts, with values that each stand in a Data.
func device(serial, key, data string) string {
	return `<Device><DeviceId><Manufacturer>ACME</Manufacturer><SerialNo>` + serial + `</SerialNo></DeviceId>` +
		strings.Replace(key, ">", `><Issuer>Issuer</Issuer><Usage OTP="true"><ResponseFormat format="DECIMAL" length="8"/></Usage>`+data, 1) + `</Device>`
}

func named(name, value, digest string) string {
	if digest != "" {
		digest = "<ValueDigest>" + digest + "</ValueDigest>"
	}
	return `<Data Name="` + name + `"><Value>` + value + "</Value>" + digest + "</Data>"
}

// seal encrypts in CBC and makes the MAC over the plaintext, as they had it.
func seal(block cipher.Block, macKey, iv, plain []byte) (value, mac string) {
	size := block.BlockSize()
	pad := size - len(plain)%size
	text := append(bytes.Clone(plain), bytes.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(text, text)
	h := hmac.New(sha1.New, macKey)
	h.Write(plain)
	return base64.StdEncoding.EncodeToString(text), base64.StdEncoding.EncodeToString(h.Sum(nil))
}

func TestDraftsAreRead(t *testing.T) {
	seed64 := base64.StdEncoding.EncodeToString([]byte(figureSeed))
	counter := binary.BigEndian.AppendUint64(nil, 42)
	counter64 := base64.StdEncoding.EncodeToString(counter)
	key := mustHex(figureKey)
	aesBlock, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	iv := []byte("0123456789abcdef")
	seedValue, seedMAC := seal(aesBlock, key, iv, []byte(figureSeed))

	salt := []byte("saltsalt")
	derived, err := pbkdf2.Key(sha1.New, "qwerty", salt, 999, 16)
	if err != nil {
		t.Fatal(err)
	}
	desBlock, err := des.NewTripleDESCipher(append(bytes.Clone(derived), derived[:8]...))
	if err != nil {
		t.Fatal(err)
	}
	own := func(plain []byte) (value, mac string) { // with an IV of its own
		value, mac = seal(desBlock, derived, iv[:8], plain)
		octets, _ := base64.StdEncoding.DecodeString(value)
		return base64.StdEncoding.EncodeToString(append(bytes.Clone(iv[:8]), octets...)), mac
	}
	pbeSeed, pbeMAC := own([]byte(figureSeed))
	pbeCounter, pbeCounterMAC := own(counter)

	rfcDevice := `<Device><DeviceInfo><Manufacturer>ACME</Manufacturer><SerialNo>A1</SerialNo></DeviceInfo>
 <Key KeyId="1" KeyAlgorithm="` + nsPSKC + `#hotp"><Usage OTP="1"><ResponseFormat Length="8" Format="DECIMAL"/></Usage>` + `<Data>` + plainSeed + `<Counter><PlainValue>42</PlainValue></Counter></Data>
 <ExpiryDate>2030-01-01</ExpiryDate></Key></Device>`
	for _, c := range []struct {
		name, file string
		o          Options
	}{
		{"draft-hoyer-keyprov-portable-symmetric-key-container-00", older("SecretContainer", "http://www.openauthentication.org/OATH/2006/08/PSKC",
			`<EncryptionMethod algorithm="NONE"/><DigestMethod algorithm="HMAC-SHA1"></DigestMethod>`,
			device("A1", `<Secret SecretAlgorithm="HOTP" SecretId="1"></Secret>`, named("SECRET", seed64, "c29tZQ==")+named("COUNTER", counter64, "c29tZQ=="))), Options{}},
		{"the same under a password", older("SecretContainer", "http://www.openauthentication.org/OATH/2006/08/PSKC",
			`<EncryptionMethod algorithm="PBE-3DES112-CBC"><PBESalt>`+base64.StdEncoding.EncodeToString(salt)+`</PBESalt><PBEIterationCount>999</PBEIterationCount></EncryptionMethod><DigestMethod algorithm="HMAC-SHA1"/>`,
			device("A1", `<Secret SecretAlgorithm="HOTP" SecretId="1"></Secret>`, named("SECRET", pbeSeed, pbeMAC)+named("COUNTER", pbeCounter, pbeCounterMAC))), Options{Password: []byte("qwerty")}},
		{"draft-hoyer-keyprov-portable-symmetric-key-container-01", older("KeyContainer", "urn:ietf:params:xml:ns:keyprov:container",
			`<EncryptionMethod algorithm="NONE"/>`, device("A1", `<Key KeyAlgorithm="HOTP" KeyId="1"></Key>`, named("SECRET", seed64, "")+named("COUNTER", counter64, ""))), Options{}},
		{"ActivIdentity's, with one IV for all", older("KeyContainer", "urn:ietf:params:xml:ns:keyprov:container:1.0",
			`<EncryptionMethod Algorithm="`+nsXEnc+`aes128-cbc"><IV>`+base64.StdEncoding.EncodeToString(iv)+`</IV></EncryptionMethod><DigestMethod Algorithm="`+nsDS+`hmac-sha1"/>`,
			device("A1", `<Key KeyAlgorithm="http://www.ietf.org/keyprov/pskc#hotp" KeyId="1"></Key>`, named("SECRET", seedValue, seedMAC)+named("COUNTER", counter64, ""))), Options{Key: key}},
		{"draft-hoyer-keyprov-pskc-algorithm-profiles", strings.Replace(older("KeyContainer", nsPSKC+":1.0", "", rfcDevice), `version="1.2"`, `Version="1.0"`, 1), Options{}},
		{"draft-ietf-keyprov-pskc", strings.Replace(older("KeyContainer", nsPSKC, "", rfcDevice), `version="1.2"`, `Version="1"`, 1), Options{}},
		{"KeyProperties", older("KeyContainer", nsPSKC+":1.0",
			`<KeyProperties KeyPropertiesId="p" KeyAlgorithm="HOTP"><Issuer>I</Issuer><Usage OTP="true"><ResponseFormat Length="8" Format="DECIMAL"/></Usage><Data><Counter><PlainValue>42</PlainValue></Counter></Data><PINPolicy PINUsageMode="Local"/></KeyProperties>`,
			`<Device><DeviceInfo><Manufacturer>ACME</Manufacturer><SerialNo>A1</SerialNo></DeviceInfo><Key KeyId="1" KeyPropertiesId="p"><Data>`+plainSeed+`</Data></Key></Device>`), Options{}},
		{"prefixed", strings.NewReplacer("<ds:", "<ds:", "xmlns=", "xmlns:k=", "</", "</k:", "<", "<k:").Replace(older("KeyContainer", nsPSKC+":1.0", "", rfcDevice)), Options{}},
	} {
		keys, err := readAll(strings.NewReader(c.file), c.o)
		if err != nil || len(keys) != 1 {
			t.Errorf("%s: %d keys, %v", c.name, len(keys), err)
			continue
		}
		if k := keys[0]; k.Err != nil || string(k.Secret) != figureSeed || k.Serial != "A1" || k.ID != "1" || k.Algorithm != HOTP || k.Digits != 8 || k.Counter != 42 || k.Manufacturer != "ACME" {
			t.Errorf("%s: %+v", c.name, k)
		}
	}
}

func TestDraftsAreRefusedWhereTheyAreNotUnderstood(t *testing.T) {
	seed64 := base64.StdEncoding.EncodeToString([]byte(figureSeed))
	const space = "urn:ietf:params:xml:ns:keyprov:container"
	key := `<Key KeyAlgorithm="HOTP" KeyId="1"></Key>`
	aesCBC := `<EncryptionMethod Algorithm="` + nsXEnc + `aes128-cbc"/>`
	digest := `<DigestMethod algorithm="HMAC-SHA1"/>`
	for _, c := range []struct{ name, file, says string }{
		{"cipher", older("KeyContainer", space, `<EncryptionMethod algorithm="RC4"/>`), "encrypted by \"RC4\""},
		{"parameter", older("KeyContainer", space, `<EncryptionMethod algorithm="AES128-CBC"><Tweak>1</Tweak></EncryptionMethod>`), `a parameter "Tweak"`},
		{"iterations", older("KeyContainer", space, `<EncryptionMethod algorithm="PBE-AES128-CBC"><PBESalt>c2FsdA==</PBESalt><PBEIterationCount>0</PBEIterationCount></EncryptionMethod>`), "iterations; 1 to"},
		{"no salt", older("KeyContainer", space, `<EncryptionMethod algorithm="PBE-AES128-CBC"><PBEIterationCount>10</PBEIterationCount></EncryptionMethod>`), "no salt"},
		{"no digest of a seed", older("KeyContainer", space, aesCBC+digest, device("A1", key, named("SECRET", strings.Repeat("AAAA", 16), ""))), "has no ValueMAC"},
		{"no DigestMethod", older("KeyContainer", space, aesCBC, device("A1", key, named("SECRET", strings.Repeat("AAAA", 16), "AAAA"))), "there is no MACMethod"},
		{"wrong digest", older("KeyContainer", space, aesCBC+digest, device("A1", key, named("SECRET", strings.Repeat("AAAA", 16), "AAAA"))), "the key or password is not the one"},
		{"unknown data", older("KeyContainer", space, "", device("A1", key, named("SECRET", seed64, "")+named("OFFSET", "AAAA", ""))), `data named "OFFSET"`},
		{"two seeds", older("KeyContainer", space, "", device("A1", key, named("SECRET", seed64, "")+named("SECRET", seed64, ""))), "two Secret elements"},
		{"not for codes", older("KeyContainer", space, "", strings.Replace(device("A1", key, named("SECRET", seed64, "")), `OTP="true"`, `CR="true"`, 1)), "does not allow the key to be used for one-time passwords"},
		{"said not to be for codes", older("KeyContainer", space, "", strings.Replace(device("A1", key, named("SECRET", seed64, "")), `OTP="true"`, `OTP="false"`, 1)), "does not allow the key to be used for one-time passwords"},
		{"unknown usage", older("KeyContainer", space, "", strings.Replace(device("A1", key, named("SECRET", seed64, "")), `<ResponseFormat`, `<Hash>SHA256</Hash><ResponseFormat`, 1)), `the parameter "Hash"`},
		{"expiry that can be read in two ways", older("KeyContainer", space, "", strings.Replace(device("A1", key, named("SECRET", seed64, "")), `</DeviceId>`, `<Expiry>01/12/2026</Expiry></DeviceId>`, 1)), "expired on 2026-01-12"},
		{"no KeyProperties", older("KeyContainer", space, "", device("A1", `<Key KeyPropertiesId="q"></Key>`, named("SECRET", seed64, ""))), `refers to KeyProperties "q"`},
		{"KeyProperties without id", older("KeyContainer", space, "<KeyProperties/>"), "without an id"},
		{"KeyProperties twice", older("KeyContainer", space, `<KeyProperties Id="a"/><KeyProperties Id="a"/>`), "two KeyProperties"},
		{"a seed for all", older("KeyContainer", space, `<KeyProperties Id="a" KeyAlgorithm="HOTP"><Data>`+plainSeed+`</Data></KeyProperties>`, device("A1", `<Key KeyPropertiesId="a"></Key>`, "")), "that of several tokens"},
		{"policy in KeyProperties", older("KeyContainer", space, `<KeyProperties Id="a" KeyAlgorithm="HOTP"><PINPolicy PINUsageMode="Append"/></KeyProperties>`, device("A1", `<Key KeyPropertiesId="a"></Key>`, named("SECRET", seed64, ""))), "a PIN checked by the server"},
	} {
		keys, err := readAll(strings.NewReader(c.file), Options{Key: mustHex(figureKey), Password: []byte("qwerty")})
		for _, k := range keys {
			if err == nil {
				err = k.Err
			}
			if len(k.Secret) > 0 {
				t.Errorf("%s: a seed is read", c.name)
			}
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %s", c.name, err, c.says)
			continue
		}
		noSecret(t, err)
	}
}

// The drafts allow a device several keys; each is read, with the same serial.
func TestDeviceWithSeveralKeysIsReadWhole(t *testing.T) {
	key := `<Key KeyAlgorithm="HOTP" KeyId="%d"><Data>` + plainSeed + `<Counter><PlainValue>%[1]d</PlainValue></Counter></Data></Key>`
	file := older("KeyContainer", nsPSKC+":1.0", "", "<Device><DeviceInfo><SerialNo>A1</SerialNo></DeviceInfo>"+
		fmt.Sprintf(key, 1)+`<Key KeyAlgorithm="OCRA" KeyId="2"/>`+fmt.Sprintf(key, 3)+"</Device>", "<Device><DeviceInfo><SerialNo>A2</SerialNo></DeviceInfo>"+fmt.Sprintf(key, 4)+"</Device>")
	keys, err := readAll(strings.NewReader(file), Options{})
	if err != nil || len(keys) != 4 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	for i, want := range []string{"1 A1 1 1", "2 A1 1 0", "3 A1 1 3", "4 A2 2 4"} {
		k := keys[i]
		if got := fmt.Sprint(k.ID, " ", k.Serial, " ", k.Number, " ", k.Counter); got != want || (k.Err != nil) != (i == 1) {
			t.Errorf("key %d: %s, %v; want %s", i, got, k.Err, want)
		}
	}
}

func TestMACOverThePlaintextCountsOnlyIfItIsRight(t *testing.T) {
	block, err := aes.NewCipher(mustHex(figureKey))
	if err != nil {
		t.Fatal(err)
	}
	iv := make([]byte, 16)
	value, mac := seal(block, mustHex("1122334455667788990011223344556677889900"), iv, []byte(figureSeed))
	octets, _ := base64.StdEncoding.DecodeString(value)
	secret := `<Secret><EncryptedValue><xenc:EncryptionMethod Algorithm="` + nsXEnc + `aes128-cbc"/><xenc:CipherData><xenc:CipherValue>` +
		base64.StdEncoding.EncodeToString(append(iv, octets...)) + `</xenc:CipherValue></xenc:CipherData></EncryptedValue><ValueMAC>` + mac + `</ValueMAC></Secret>`
	good := keyPackage("A1", hotpURI, eight, secret)
	r := NewReader(strings.NewReader(wrapXML(figure6Header, good, edit(t, good, "<ValueMAC>"+mac[:4], "<ValueMAC>AAAA"), good)), figure6Options)
	defer r.Close()
	for i := range 3 {
		k, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if (k.Err == nil) != (i != 1) || i != 1 && string(k.Secret) != figureSeed || i == 1 && len(k.Secret) > 0 {
			t.Errorf("key %d: %v", i, k.Err)
		}
	}
	if r.Next(); !strings.Contains(fmt.Sprint(r.Notes()), "over the plaintext, as in drafts of RFC 6030, instead of the ciphertext: 2") {
		t.Errorf("notes: %q", r.Notes())
	}
}

func TestPBKDF2IsThatOfTheStandardLibrary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom([]string{"hmac-sha1", "HMAC-SHA224", "x#hmac-sha256", "hmac-sha-384", "hmac-sha512"}).Draw(t, "prf")
		d := kdf{prf: hashNamed(name), salt: rapid.SliceOf(rapid.Byte()).Draw(t, "salt"), iterations: rapid.IntRange(1, 50).Draw(t, "iterations")}
		password, n := rapid.SliceOf(rapid.Byte()).Draw(t, "password"), rapid.SampledFrom([]int{16, 24, 32}).Draw(t, "length")
		want, err := pbkdf2.Key(d.prf, string(password), d.salt, d.iterations, n)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.key(password, n); !bytes.Equal(got, want) {
			t.Fatalf("%x, want %x", got, want)
		}
	})
}

func TestDatesAreReadAsTheyAreMeant(t *testing.T) {
	for text, want := range map[string][2]string{ // as a start and as an end
		"2026-05-31T10:00:00Z":      {"2026-05-31T10:00:00Z", "2026-05-31T10:00:00Z"},
		"2026-05-31T10:00:00+02:00": {"2026-05-31T08:00:00Z", "2026-05-31T08:00:00Z"},
		"2026-05-31T10:00:00":       {"2026-05-31T10:00:00Z", "2026-05-31T10:00:00Z"},
		"2026-05-31":                {"2026-05-31T00:00:00Z", "2026-05-31T23:59:59Z"},
		"2026-05-31+02:00":          {"2026-05-30T22:00:00Z", "2026-05-31T21:59:59Z"},
		"31/05/2026":                {"", ""},
		"soon":                      {"", ""},
	} {
		n := &node{kids: []*node{{text: []byte(text)}}}
		n.kids[0].name.Local, n.kids[0].name.Space = "ExpiryDate", nsPSKC
		for i, end := range []bool{false, true} {
			got, err := n.time("ExpiryDate", end)
			if want[i] == "" {
				if err == nil {
					t.Errorf("%s is read", text)
				}
			} else if err != nil || got.Truncate(time.Second).Format(time.RFC3339) != want[i] {
				t.Errorf("%s: %v, %v; want %s", text, got, err, want[i])
			}
		}
	}
}
