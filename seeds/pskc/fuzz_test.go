package pskc

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// metered reads a file in small pieces and fails the test when the memory that
// is in use at any piece goes beyond ten times the file and 1 MB.
type metered struct {
	t      testing.TB
	r      io.Reader
	before uint64
	most   uint64
}

func meter(t testing.TB, file string) *metered {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return &metered{t: t, r: strings.NewReader(file), before: m.HeapAlloc, most: uint64(10*len(file)) + 1<<20}
}

func (m *metered) Read(p []byte) (int, error) {
	m.check()
	return m.r.Read(p[:min(len(p), 4096)])
}

func (m *metered) check() {
	var s runtime.MemStats
	if runtime.ReadMemStats(&s); s.HeapAlloc > m.before+m.most {
		runtime.GC() // garbage does not count
		if runtime.ReadMemStats(&s); s.HeapAlloc > m.before+m.most {
			m.t.Fatalf("%d KB in use, %d are allowed", (s.HeapAlloc-m.before)>>10, m.most>>10)
		}
	}
}

func FuzzPSKC(f *testing.F) {
	before := maxIterations
	maxIterations = 1000 // PBKDF2 takes as long as it is asked to
	defer func() { maxIterations = before }()
	good := keyPackage("A1", totpURI, eight, plainSeed+"<Time><PlainValue>0</PlainValue></Time><TimeDrift><PlainValue>-1</PlainValue></TimeDrift>")
	for _, file := range []string{
		"", "<", "text", figure6, figure7, wrapXML("", good, keyPackage("A2", hotpURI, eight, plainSeed+counter0)),
		wrapXML(figure6Header, keyPackage("A1", hotpURI, "<Policy><KeyUsage>OTP</KeyUsage></Policy>", figure6Seed+strings.Replace(figure6Seed, "Secret", "Counter", 2))),
		"<?xml version='0'?>", "<!DOCTYPE a [<!ENTITY b 'c'>]>" + wrapXML("", good), "<?xml version='1.0' encoding='latin1'?>" + wrapXML("", good),
		wrapXML("<Extensions><a><b/></a></Extensions>", "<![CDATA[x]]><!-- x -->&#65;"), strings.Repeat("<a>", 100), figure8, figure9, figure10,
		older("SecretContainer", "http://www.openauthentication.org/OATH/2006/08/PSKC", `<EncryptionMethod algorithm="PBE-AES128-CBC"><PBESalt>c2FsdA==</PBESalt><PBEIterationCount>1</PBEIterationCount></EncryptionMethod><DigestMethod algorithm="HMAC-SHA1"/>`,
			device("A1", `<Secret SecretAlgorithm="HOTP" SecretId="1"></Secret>`, named("SECRET", strings.Repeat("AAAA", 16), "AAAA")+named("COUNTER", "AAAAAAAAACo=", ""))),
		older("KeyContainer", nsPSKC+":1.0", `<KeyProperties KeyPropertiesId="p" KeyAlgorithm="HOTP"><Data><Counter><PlainValue>42</PlainValue></Counter></Data></KeyProperties>`,
			`<Device><Key KeyId="1" KeyPropertiesId="p"><Data>`+plainSeed+`</Data><UserId>CN=a\,b+UID="c"</UserId></Key></Device>`),
		wrapXML("<EncryptionKey><ds:KeyName>k</ds:KeyName></EncryptionKey>", keyPackage("A1", totpURI, "", strings.ReplaceAll(figure6Seed, "aes128-cbc", "kw-aes128"))),
		wrapXML("<EncryptionKey><ds:KeyName>k</ds:KeyName></EncryptionKey>", keyPackage("A1", totpURI, "", toKey(rsaMethod(nsXEnc11+"rsa-oaep", ""), figure8Value))),
		wrapXML(macHeader(nsDS+"hmac-sha1", rsaMethod(nsXEnc11+"rsa-oaep", ""), figure8Value), keyPackage("A1", totpURI, "", withMAC(toKey(rsaMethod(nsXEnc11+"rsa-oaep", ""), figure8Value), make([]byte, 20)))),
		wrapXML("", keyPackage("A1", "http://www.yubico.com/#yubikey-aes", "<UserId>CN=ekhgjhbctrgn, UID=ca62baca62ba</UserId>", plainSeed)),
	} {
		f.Add(file)
	}
	f.Fuzz(func(t *testing.T, file string) {
		in := meter(t, file)
		rd := NewReader(in, Options{Key: mustHex(figureKey), Password: []byte("qwerty"), Now: time.Unix(1_800_000_000, 0), AllowExpired: len(file)%2 == 0, AllowRSA15: len(file)%3 == 0})
		defer rd.Close()
		for n := 0; ; {
			k, err := rd.Next()
			if err != nil {
				var bad *Error
				if err != io.EOF && (!errors.As(err, &bad) || bad.Line < 1 || bad.Reason == "") {
					t.Fatalf("%v", err)
				}
				break
			}
			if k.Number < n || k.Err != nil && (len(k.Secret) > 0 || k.Encrypted != nil || k.PrivateID != [6]byte{}) {
				t.Fatalf("key package %d: %+v", n, k)
			}
			n = k.Number
			if k.Err == nil && (len(k.Secret) == 0 && k.Encrypted == nil || k.Algorithm != HOTP && k.Algorithm != TOTP && k.Algorithm != YubiKeyAES || k.Algorithm != YubiKeyAES && k.Digits < 1) {
				t.Fatalf("key package %d is good: %+v", n, k)
			}
			if e := k.Encrypted; e != nil && e.MAC != nil && (len(e.MAC.Value) != e.MAC.Hash.Size() || e.MAC.Key.PKCS1 != e.PKCS1 || len(e.MAC.Key.Ciphertext) < 128) {
				t.Fatalf("key package %d has a MAC that nobody can check: %+v", n, e.MAC)
			}
		}
		if _, err := rd.Next(); err == nil {
			t.Fatal("Next goes on after the end")
		}
		in.check()
	})
}

// No file is taken for one that the vendor signed, unless it is the signed one
// in other octets of the same meaning.
func FuzzSigned(f *testing.F) {
	signer, err := x509.ParseCertificate(mustBase64(signerCert))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signedFile)
	f.Add(odd)
	f.Add(figure9)
	f.Fuzz(func(t *testing.T, file string) {
		in := meter(t, file)
		rd := NewReader(in, Options{Signer: signer})
		defer rd.Close()
		for {
			k, err := rd.Next()
			if err != nil {
				var bad *Error
				if err != io.EOF && (!errors.As(err, &bad) || bad.Line < 1 || bad.Reason == "") {
					t.Fatalf("%v", err)
				}
				break
			}
			if k.Err != nil || string(k.Secret) != figureSeed || k.Serial != "A1" {
				t.Fatalf("the vendor did not sign %+v", k)
			}
		}
		in.check()
	})
}

// packages is a container of n encrypted keys that is never in memory.
type packages struct {
	n    int
	left string
	end  bool
}

func (p *packages) Read(b []byte) (n int, err error) {
	for n < len(b) {
		if p.left == "" {
			switch {
			case p.n > 0:
				p.left = encryptedPackage
				p.n--
			case !p.end:
				p.left, p.end = "</KeyContainer>", true
			default:
				return n, io.EOF
			}
		}
		k := copy(b[n:], p.left)
		p.left = p.left[k:]
		n += k
	}
	return n, nil
}

var encryptedPackage = keyPackage("A1", hotpURI, eight, figure6Seed+counter0)

func BenchmarkEncryptedKeys(b *testing.B) {
	head := wrapXML(figure6Header)
	rd := NewReader(&packages{n: b.N, left: head[:strings.Index(head, "</KeyContainer>")]}, figure6Options)
	b.ReportAllocs()
	b.SetBytes(int64(len(encryptedPackage)))
	for range b.N {
		if k, err := rd.Next(); err == io.EOF {
			rd = NewReader(&packages{n: b.N, left: head[:strings.Index(head, "</KeyContainer>")]}, figure6Options)
		} else if err != nil || k.Err != nil {
			b.Fatal(k.Err, err)
		}
	}
}

func mustBase64(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// A container that xmlsec1 signed, and the signer's certificate; the key is
// gone.
const (
	signerCert = `MIIBGTCBv6ADAgECAgEHMAoGCCqGSM49BAMCMBUxEzARBgNVBAMTCkFDTUUgc2VlZHMwIBgPMDAwMTAxMDEwMDAwMDBaFw0zMDAxMDEwMDAwMDBaMBUxEzARBgNVBAMTCkFDTUUgc2VlZHMwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASGfWxjPG4CpxS5nZ8JF5d2tR797YVJJWMIGOzy/lEKNs+MXUQrb8dEnBexY76f2+1fLjJyq3h7CGJxyFvNvb1/MAoGCCqGSM49BAMCA0kAMEYCIQDY188TIty03tgnjktlNTrzhUUTY9iJP7dsHonSTm/WcwIhAJVNl4elY5/7NyyJ5IWOVoSUQ1T7H439rsBsQpmXnpi2`
	signedFile = `<?xml version="1.0" encoding="UTF-8"?>
<KeyContainer xmlns="urn:ietf:params:xml:ns:keyprov:pskc" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:xenc="http://www.w3.org/2001/04/xmlenc#" Version="1.0">
<KeyPackage>
 <DeviceInfo><Manufacturer>Manufacturer</Manufacturer><SerialNo>A1</SerialNo></DeviceInfo>
 <CryptoModuleInfo><Id>CM_ID_001</Id></CryptoModuleInfo>
 <Key Id="12345678" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp">
  <Issuer>Issuer</Issuer><AlgorithmParameters><ResponseFormat Length="8" Encoding="DECIMAL"/></AlgorithmParameters>
  <Data><Secret><PlainValue>MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=
   </PlainValue></Secret><Counter><PlainValue>0</PlainValue></Counter></Data>
 </Key>
</KeyPackage>
<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">
  <ds:SignedInfo>
    <ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>
    <ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"/>
    <ds:Reference URI=""><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"/><ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/></ds:Transforms>
      <ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"/><ds:DigestValue>UU863XTCyn30/htH+mDtw8C0tRrrl/zjhSJsUC38vcs=</ds:DigestValue></ds:Reference>
  </ds:SignedInfo><ds:SignatureValue>rzGyKdWvkANBDMZypD4WHaXtpCOdexVP+TkvfuzK6T/6+mWqn5GOGRrwLdBZgoI+
S+4vlSnWCZm7CKQEabY7Cg==</ds:SignatureValue>
</ds:Signature></KeyContainer>
`
)
