package pskc

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// What RFC 6030 publishes: the figures' values, put into containers of the same
// structure.
const (
	figureSeed = "12345678901234567890" // ASCII; the OTP secret of figures 3, 5, 6, 7 and 10
	figureKey  = "12345678901234567890123456789012"
)

func wrapXML(header string, packages ...string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc"
 xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:xenc="http://www.w3.org/2001/04/xmlenc#">
` + header + strings.Join(packages, "\n") + "\n</KeyContainer>\n"
}

// keyPackage is a key package with the given serial, attributes of the key,
// elements before Data and elements of Data.
func keyPackage(serial, algorithm, before, data string) string {
	return `<KeyPackage>
 <DeviceInfo><Manufacturer>Manufacturer</Manufacturer><SerialNo>` + serial + `</SerialNo></DeviceInfo>
 <CryptoModuleInfo><Id>CM_ID_001</Id></CryptoModuleInfo>
 <Key Id="12345678" Algorithm="` + algorithm + `">
  <Issuer>Issuer</Issuer>` + before + `
  <Data>` + data + `</Data>
 </Key>
</KeyPackage>`
}

const (
	hotpURI   = "urn:ietf:params:xml:ns:keyprov:pskc:hotp"
	totpURI   = "urn:ietf:params:xml:ns:keyprov:pskc:totp"
	eight     = `<AlgorithmParameters><ResponseFormat Length="8" Encoding="DECIMAL"/></AlgorithmParameters>`
	plainSeed = "<Secret><PlainValue>MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=\n   </PlainValue></Secret>"
	counter0  = "<Counter><PlainValue>0</PlainValue></Counter>"

	figure6Header = `<EncryptionKey><ds:KeyName>Pre-shared-key</ds:KeyName></EncryptionKey>
<MACMethod Algorithm="http://www.w3.org/2000/09/xmldsig#hmac-sha1"><MACKey>
 <xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
 <xenc:CipherData><xenc:CipherValue>
    ESIzRFVmd4iZABEiM0RVZgKn6WjLaTC1sbeBMSvIhRejN9vJa2BOlSaMrR7I5wSX
 </xenc:CipherValue></xenc:CipherData></MACKey></MACMethod>
`
	figure6Seed = `<Secret><EncryptedValue>
  <xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
  <xenc:CipherData><xenc:CipherValue>
    AAECAwQFBgcICQoLDA0OD+cIHItlB3Wra1DUpxVvOx2lef1VmNPCMl8jwZqIUqGv
  </xenc:CipherValue></xenc:CipherData></EncryptedValue>
  <ValueMAC>Su+NvtQfmvfJzF6bmQiJqoLRExc=
  </ValueMAC></Secret>`
)

var figure6 = wrapXML(figure6Header, keyPackage("987654321", hotpURI, eight, figure6Seed+counter0))

const figure7 = `<?xml version="1.0" encoding="UTF-8"?>
<pskc:KeyContainer xmlns:pskc="urn:ietf:params:xml:ns:keyprov:pskc" xmlns:xenc11="http://www.w3.org/2009/xmlenc11#"
 xmlns:pkcs5="http://www.rsasecurity.com/rsalabs/pkcs/schemas/pkcs-5v2-0#" xmlns:xenc="http://www.w3.org/2001/04/xmlenc#" Version="1.0">
 <pskc:EncryptionKey><xenc11:DerivedKey>
  <xenc11:KeyDerivationMethod Algorithm="http://www.rsasecurity.com/rsalabs/pkcs/schemas/pkcs-5v2-0#pbkdf2">
   <pkcs5:PBKDF2-params>
    <Salt><Specified>Ej7/PEpyEpw=</Specified></Salt>
    <IterationCount>1000</IterationCount><KeyLength>16</KeyLength><PRF/>
   </pkcs5:PBKDF2-params>
  </xenc11:KeyDerivationMethod>
  <xenc:ReferenceList><xenc:DataReference URI="#ED"/></xenc:ReferenceList>
  <xenc11:MasterKeyName>My Password 1</xenc11:MasterKeyName>
 </xenc11:DerivedKey></pskc:EncryptionKey>
 <pskc:MACMethod Algorithm="http://www.w3.org/2000/09/xmldsig#hmac-sha1"><pskc:MACKey>
  <xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
  <xenc:CipherData><xenc:CipherValue>
2GTTnLwM3I4e5IO5FkufoOEiOhNj91fhKRQBtBJYluUDsPOLTfUvoU2dStyOwYZx
  </xenc:CipherValue></xenc:CipherData></pskc:MACKey></pskc:MACMethod>
 <pskc:KeyPackage>
  <pskc:DeviceInfo><pskc:Manufacturer>TokenVendorAcme</pskc:Manufacturer><pskc:SerialNo>987654321</pskc:SerialNo></pskc:DeviceInfo>
  <pskc:CryptoModuleInfo><pskc:Id>CM_ID_001</pskc:Id></pskc:CryptoModuleInfo>
  <pskc:Key Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp" Id="123456">
   <pskc:Issuer>Example-Issuer</pskc:Issuer>
   <pskc:AlgorithmParameters><pskc:ResponseFormat Length="8" Encoding="DECIMAL"/></pskc:AlgorithmParameters>
   <pskc:Data><pskc:Secret>
    <pskc:EncryptedValue Id="ED">
     <xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/>
     <xenc:CipherData><xenc:CipherValue>
      oTvo+S22nsmS2Z/RtcoF8Hfh+jzMe0RkiafpoDpnoZTjPYZu6V+A4aEn032yCr4f
     </xenc:CipherValue></xenc:CipherData>
    </pskc:EncryptedValue>
    <pskc:ValueMAC>LP6xMvjtypbfT9PdkJhBZ+D6O4w=
    </pskc:ValueMAC>
   </pskc:Secret></pskc:Data>
  </pskc:Key>
 </pskc:KeyPackage>
</pskc:KeyContainer>`

// readAll reads a container and answers copies of its keys.
func readAll(r io.Reader, o Options) ([]Key, error) {
	if o.Now.IsZero() {
		o.Now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	}
	rd := NewReader(r, o)
	defer rd.Close()
	var all []Key
	for {
		k, err := rd.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		c := *k
		c.Secret = bytes.Clone(k.Secret)
		all = append(all, c)
	}
}

func mustHex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

func TestRFC6030FiguresHaveThePublishedValues(t *testing.T) {
	figure3 := wrapXML("", keyPackage("987654321", hotpURI, eight, plainSeed+counter0))
	pin := `<Policy><PINPolicy MinLength="4" MaxLength="4" PINKeyId="123456781" PINEncoding="DECIMAL" PINUsageMode="Local"/><KeyUsage>OTP</KeyUsage></Policy>`
	figure5 := wrapXML("", strings.Replace(keyPackage("987654321", hotpURI, eight, plainSeed+counter0), "</Data>", "</Data>"+pin, 1),
		keyPackage("987654321", "urn:ietf:params:xml:ns:keyprov:pskc:pin", `<AlgorithmParameters><ResponseFormat Length="4" Encoding="DECIMAL"/></AlgorithmParameters>`, `<Secret><PlainValue>MTIzNA==</PlainValue></Secret>`))
	for _, c := range []struct {
		name, file string
		o          Options
		keys       int
	}{
		{"figure 3", figure3, Options{}, 1},
		{"figure 5", figure5, Options{}, 1},
		{"figure 6", figure6, Options{Key: mustHex(figureKey)}, 1},
		{"figure 7", figure7, Options{Password: []byte("qwerty")}, 1},
	} {
		keys, err := readAll(strings.NewReader(c.file), c.o)
		if err != nil || len(keys) != c.keys {
			t.Errorf("%s: %d keys, %v", c.name, len(keys), err)
			continue
		}
		k := keys[0]
		if k.Err != nil || string(k.Secret) != figureSeed || k.Serial != "987654321" || k.Algorithm != HOTP || k.Digits != 8 || k.Counter != 0 || k.Number != 1 {
			t.Errorf("%s: %+v", c.name, k)
		}
	}
}

func TestRFC6030Figure6HasThePublishedMACKey(t *testing.T) {
	r := NewReader(strings.NewReader(figure6), Options{Key: mustHex(figureKey)})
	defer r.Close()
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(r.vault.macKey); got != "1122334455667788990011223344556677889900" {
		t.Errorf("MAC key %s", got)
	}
}

func TestRFC6030Figure7HasThePublishedDerivedKey(t *testing.T) {
	r := NewReader(strings.NewReader(figure7), Options{Password: []byte("qwerty")})
	defer r.Close()
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(r.vault.key); got != "651e63cd57008476af1ff6422cd02e41" {
		t.Errorf("derived key %s", got)
	}
}

// figure 10: two tokens, and two keys of a third for two months.
var figure10 = func() string {
	period := func(from, to string) string {
		return "</Data><Policy><StartDate>2006-" + from + "T00:00:00Z</StartDate><ExpiryDate>2006-" + to + "T00:00:00Z</ExpiryDate></Policy>"
	}
	var list []string
	for _, p := range [][3]string{{"654321", "05-01", "05-31"}, {"123456", "05-01", "05-31"}, {"9999999", "03-01", "03-31"}, {"9999999", "04-01", "04-30"}} {
		list = append(list, strings.Replace(keyPackage(p[0], hotpURI, eight, plainSeed+counter0), "</Data>", period(p[1], p[2]), 1))
	}
	return wrapXML("", list...)
}()

// Figure 10 provisions in bulk; its keys were valid for a month each.
func TestRFC6030Figure10IsJudgedByValidity(t *testing.T) {
	for when, want := range map[string]string{
		"2006-05-15": "[good good expired expired]",
		"2006-04-02": "[early early expired good]",
		"2026-11-21": "[expired expired expired expired]",
	} {
		now, _ := time.Parse("2006-01-02", when)
		keys, err := readAll(strings.NewReader(figure10), Options{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range keys {
			switch {
			case k.Err == nil && string(k.Secret) == figureSeed:
				got = append(got, "good")
			case strings.Contains(k.Err.Error(), "expired on 2006-0"):
				got = append(got, "expired")
			case strings.Contains(k.Err.Error(), "may not be used before 2006-05-01"):
				got = append(got, "early")
			}
		}
		if fmt.Sprint(got) != want {
			t.Errorf("on %s: %v, want %s", when, got, want)
		}
	}
}

// A reader holds no seed and no key once it is closed, however far it was read.
func TestReaderWipesSeedsAndKeys(t *testing.T) {
	plain := wrapXML("", keyPackage("A1", hotpURI, eight, plainSeed), keyPackage("A2", hotpURI, eight, plainSeed))
	for name, c := range map[string]struct {
		file string
		o    Options
		end  bool
	}{
		"plain":     {plain, Options{}, true},
		"abandoned": {plain, Options{}, false},
		"encrypted": {figure6, figure6Options, true},
		"cut off":   {plain[:strings.LastIndex(plain, "</Data>")], Options{}, true},
	} {
		r := NewReader(strings.NewReader(c.file), c.o)
		k, err := r.Next()
		if err != nil || string(k.Secret) != figureSeed {
			t.Fatalf("%s: %v", name, err)
		}
		secret := k.Secret
		for c.end && err == nil {
			_, err = r.Next()
		}
		r.Close()
		for _, held := range [][]byte{r.p.in.buf, r.p.text[:cap(r.p.text)], r.vault.scratch[:], r.vault.trial[:], r.vault.key, r.vault.macKey, secret} {
			for _, text := range []string{figureSeed, "MTIzNDU2", string(mustHex(figureKey)), string(mustHex("1122334455667788990011223344556677889900"))} {
				if bytes.Contains(held, []byte(text)) {
					t.Errorf("%s: a seed or key stays behind", name)
				}
			}
		}
	}
}
