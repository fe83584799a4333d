package pskc

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// vendor is who signs files in tests, by xmlsec1, the independent signer.
type vendor struct {
	cert *x509.Certificate
	key  string // PEM file
}

func newVendor(t *testing.T, key crypto.Signer) vendor {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "ACME seeds"}, NotAfter: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
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
	return vendor{cert, path}
}

func rsaVendor(t *testing.T) vendor {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return newVendor(t, key)
}

const (
	c14n10    = "http://www.w3.org/TR/2001/REC-xml-c14n-20010315"
	c14n11    = "http://www.w3.org/2006/12/xml-c14n11"
	dsigMore  = "http://www.w3.org/2001/04/xmldsig-more#"
	digest256 = nsXEnc + "sha256"
	digest512 = nsXEnc + "sha512"
)

// blank is a signature that xmlsec1 fills in.
func blank(c14n, method, uri, transforms, digest string) string {
	return `<ds:Signature xmlns:ds="` + nsDS + `">
  <ds:SignedInfo>
    <ds:CanonicalizationMethod Algorithm="` + c14n + `"/>
    <ds:SignatureMethod Algorithm="` + method + `"/>
    <ds:Reference URI="` + uri + `"><ds:Transforms>` + transforms + `</ds:Transforms>
      <ds:DigestMethod Algorithm="` + digest + `"/><ds:DigestValue/></ds:Reference>
  </ds:SignedInfo><ds:SignatureValue/>
</ds:Signature>`
}

func transform(uris ...string) string {
	list := `<ds:Transform Algorithm="` + nsDS + `enveloped-signature"/>`
	for _, uri := range uris {
		list += `<ds:Transform Algorithm="` + uri + `"/>`
	}
	return list
}

// usual is a signature as most products make it.
var usual = blank(nsExcC14N, dsigMore+"rsa-sha256", "", transform(nsExcC14N), digest256)

// sign puts a signature at the end of a container.
func (v vendor) sign(t *testing.T, file, blank string) string {
	t.Helper()
	end := strings.LastIndex(file, "</")
	path := filepath.Join(t.TempDir(), "in.xml")
	if err := os.WriteFile(path, []byte(file[:end]+blank+file[end:]), 0o600); err != nil {
		t.Fatal(err)
	}
	return run(t, "", "xmlsec1", "--sign", "--privkey-pem", v.key, "--id-attr:Id", Namespace+":KeyContainer", path)
}

var signedPackage = keyPackage("A1", hotpURI, eight, plainSeed+counter0)

// odd is a container with all that a canonical form has rules for.
var odd = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<?style  sheet=\"x\" ?>\n<!-- before -->\n" +
	`<p:KeyContainer Version="1.0" xmlns:p="` + Namespace + `" Id = 'all'
  xmlns:unused="urn:unused" xmlns="urn:default" xmlns:xsi="urn:xsi" xsi:schemaLocation="urn:a
	a.xsd   &#10;&#9;b.xsd" b="2" a='quote" &amp; &lt; >' xml:lang="en">` + "\r\n" + `
  <!-- a comment --><?inside?>
  <p:Extensions xmlns:z="urn:z"><x:a xmlns:x="urn:x" z:b="1" x:b="2" b="3" xmlns="" ><c xmlns="urn:c"><d xmlns="urn:c"/></c><e/>&#13; &gt; ]] <![CDATA[<&]]></x:a></p:Extensions>
  <p:KeyPackage>
    <p:DeviceInfo><p:SerialNo>A1</p:SerialNo><p:UserId>gr` + "\u00fc" + `n</p:UserId></p:DeviceInfo>
    <Key xmlns="` + Namespace + `" Algorithm="` + hotpURI + `" Id="1"><AlgorithmParameters><ResponseFormat Encoding="DECIMAL" Length="8"></ResponseFormat></AlgorithmParameters>
     <Data><Secret><PlainValue>MTIzNDU2Nzg5MDEy<!-- split -->MzQ1Njc4OTA=</PlainValue></Secret></Data></Key>
  </p:KeyPackage>
</p:KeyContainer>
<?after?><!-- after -->
`

// What xmlsec1 signs is right here: each canonical form, digest and method.
func TestSignaturesOfXMLSecAreRight(t *testing.T) {
	vendors := map[string]vendor{"rsa": rsaVendor(t)}
	for name, curve := range map[string]elliptic.Curve{"P256": elliptic.P256(), "P384": elliptic.P384(), "P521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		vendors[name] = newVendor(t, key)
	}
	plain := wrapXML("", signedPackage)
	encrypted := figure6
	with := func(signature, element string) string {
		return strings.Replace(signature, `Algorithm="`+nsExcC14N+`"/>`, `Algorithm="`+nsExcC14N+`">`+element+"</ds:Transform>", 1)
	}
	inclusive := `<ec:InclusiveNamespaces xmlns:ec="` + nsExcC14N + `" PrefixList="#default unused xsi nowhere"/>`
	listed := blank(nsExcC14N, dsigMore+"rsa-sha256", "", transform(nsExcC14N), digest256)
	listed = listed[:strings.Index(listed, "<ds:Transforms>")] + with(listed[strings.Index(listed, "<ds:Transforms>"):], inclusive)
	for _, c := range []struct{ name, by, file, signature string }{
		{"usual", "rsa", plain, usual},
		{"encrypted", "rsa", encrypted, usual},
		{"rsa-sha384", "rsa", plain, blank(nsExcC14N, dsigMore+"rsa-sha384", "", transform(nsExcC14N), dsigMore+"sha384")},
		{"rsa-sha512", "rsa", plain, blank(nsExcC14N, dsigMore+"rsa-sha512", "", transform(nsExcC14N), digest512)},
		{"ecdsa-sha256", "P256", plain, blank(nsExcC14N, dsigMore+"ecdsa-sha256", "", transform(nsExcC14N), digest256)},
		{"ecdsa-sha384", "P384", plain, blank(nsExcC14N, dsigMore+"ecdsa-sha384", "", transform(nsExcC14N), digest256)},
		{"ecdsa-sha512", "P521", plain, blank(nsExcC14N, dsigMore+"ecdsa-sha512", "", transform(nsExcC14N), digest256)},
		{"inclusive", "rsa", plain, blank(c14n10, dsigMore+"rsa-sha256", "", transform(c14n10), digest256)},
		{"inclusive 1.1", "rsa", plain, blank(c14n11, dsigMore+"rsa-sha256", "", transform(c14n11), digest256)},
		{"no form named", "rsa", plain, blank(c14n10, dsigMore+"rsa-sha256", "", transform(), digest256)},
		{"with comments", "rsa", plain, blank(nsExcC14N+"WithComments", dsigMore+"rsa-sha256", "", transform(c14n10+"#WithComments"), digest256)},
		{"mixed", "rsa", plain, blank(c14n10, dsigMore+"rsa-sha256", "", transform(nsExcC14N), digest256)},
		{"odd", "rsa", odd, usual},
		{"odd, inclusive", "rsa", odd, blank(nsExcC14N, dsigMore+"rsa-sha256", "", transform(c14n10), digest256)},
		{"odd, inclusive 1.1", "rsa", odd, blank(nsExcC14N, dsigMore+"rsa-sha256", "", transform(c14n11), digest256)},
		{"odd, by id", "rsa", odd, blank(nsExcC14N, dsigMore+"rsa-sha256", "#all", transform(nsExcC14N), digest256)},
		{"odd, inclusive by id", "rsa", odd, blank(nsExcC14N, dsigMore+"rsa-sha256", "#all", transform(c14n10), digest256)},
		{"odd, prefix list", "rsa", odd, listed},
		{"SignedInfo in odd surroundings", "rsa", strings.Replace(odd, ` xml:lang="en"`, "", 1), blank(c14n10, dsigMore+"rsa-sha256", "", transform(c14n10), digest256)},
	} {
		v := vendors[c.by]
		file := v.sign(t, c.file, c.signature)
		o := Options{Key: mustHex(figureKey), Signer: v.cert}
		keys, err := readAll(strings.NewReader(file), o)
		if err != nil || len(keys) != 1 || string(keys[0].Secret) != figureSeed {
			t.Errorf("%s: %d keys, %v", c.name, len(keys), err)
		}
	}
}

// Whatever byte of a signed container is changed to mean something else, the
// file is refused as a whole.
func TestSignedFileThatWasAlteredIsRefused(t *testing.T) {
	v := rsaVendor(t)
	// The inclusive form: the exclusive one leaves out namespaces that are not used.
	file := v.sign(t, odd, blank(nsExcC14N, dsigMore+"rsa-sha256", "", transform(c14n10), digest256))
	o := Options{Signer: v.cert}
	refused := 0
	for i := 0; i < len(file); i++ {
		altered := []byte(file)
		altered[i] ^= 0x01
		keys, err := readAll(bytes.NewReader(altered), o)
		if err == nil {
			// Only what canonical XML leaves out may be changed.
			if !leftOut(file, i) {
				t.Fatalf("byte %d (%q) may be changed", i, file[max(0, i-20):min(len(file), i+20)])
			}
			continue
		}
		var bad *Error
		if !errors.As(err, &bad) || len(keys) > 0 || bad.Line < 1 {
			t.Fatalf("byte %d: %d keys, %v", i, len(keys), err)
		}
		noSecret(t, err)
		refused++
	}
	if refused < len(file)/2 {
		t.Errorf("%d of %d changes are refused", refused, len(file))
	}
}

// leftOut says whether the byte of a file is in what is not signed: a comment,
// the XML declaration, white space between attributes, or the parts of the
// Signature element other than the SignedInfo and the value.
func leftOut(file string, i int) bool {
	for _, span := range [][2]string{{"<!--", "-->"}, {"<?xml", "?>"}} {
		for from := 0; ; {
			j := strings.Index(file[from:], span[0])
			if j < 0 {
				break
			}
			end := from + j + strings.Index(file[from+j:], span[1]) + len(span[1])
			if i >= from+j && i < end {
				return true
			}
			from = end
		}
	}
	if signature := strings.Index(file, "<ds:Signature "); i > signature && i < strings.Index(file, "</ds:Signature>") {
		info, end := strings.Index(file, "<ds:SignedInfo>"), strings.Index(file, "</ds:SignedInfo>")
		return i < info || i > end
	}
	return strings.ContainsRune(" \n\r\t", rune(file[i])) // one for another, in a tag or an attribute
}

func TestSignaturesThatAreRefused(t *testing.T) {
	v, other := rsaVendor(t), rsaVendor(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak := newVendor(t, small)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve := newVendor(t, key)
	plain := wrapXML("", signedPackage)
	signed := v.sign(t, plain, usual)
	begin, end := strings.Index(signed, "<ds:Signature "), strings.Index(signed, "</ds:Signature>")+len("</ds:Signature>")
	signature := signed[begin:end]
	evil := strings.Replace(signedPackage, "MTIz", "MTIx", 1)
	body := signed[strings.Index(signed, "<KeyContainer") : strings.LastIndex(signed, "</KeyContainer>")+len("</KeyContainer>")]
	for _, c := range []struct {
		name, file string
		by         vendor
		says       string
	}{
		{"no signature", plain, v, "the file carries no XML signature"},
		{"another certificate", signed, other, "not made with the key of the given certificate"},
		{"certificate of another kind", signed, curve, "the signature is by RSA, but the key of the given certificate"},
		{"ECDSA for RSA", curve.sign(t, plain, strings.Replace(usual, "rsa-sha256", "ecdsa-sha256", 1)), v, "the signature is by ECDSA, but"},
		{"short key", weak.sign(t, plain, usual), weak, "has 1024 bits"},
		{"altered seed", edit(t, signed, "MTIz", "MTIx"), v, "does not fit the file"},
		{"key added", edit(t, signed, "<KeyPackage>", evil+"<KeyPackage>"), v, "does not fit the file"},
		{"key added after the signature", edit(t, signed, "</KeyContainer>", evil+"</KeyContainer>"), v, "does not fit the file"},
		{"twice", edit(t, signed, signature, signature+signature), v, "there are two signatures"},
		{"signed by SHA-1", v.sign(t, plain, blank(nsExcC14N, nsDS+"rsa-sha1", "", transform(nsExcC14N), digest256)), v, "is made with SHA-1"},
		{"digest by SHA-1", v.sign(t, plain, blank(nsExcC14N, dsigMore+"rsa-sha256", "", transform(nsExcC14N), nsDS+"sha1")), v, "is made with SHA-1"},
		{"HMAC", edit(t, signed, "rsa-sha256", "hmac-sha256"), v, "RSA (PKCS #1 v1.5) and ECDSA with SHA-2 can be checked"},
		{"part of the file", edit(t, signed, `URI=""`, `URI="#A1"`), v, `covers "#A1" and not the whole file`},
		{"another file", edit(t, signed, `URI=""`, `URI="http://127.0.0.1/"`), v, "not the whole file"},
		{"not enveloped", edit(t, signed, "#enveloped-signature", "#base64"), v, "that is not known here"},
		{"XPath", edit(t, signed, `"`+nsExcC14N+`"/></ds:Transforms>`, `"http://www.w3.org/TR/1999/REC-xpath-19991116"><ds:XPath>self::a</ds:XPath></ds:Transform></ds:Transforms>`), v, "that is not known here"},
		{"two references", edit(t, signed, "<ds:Reference ", `<ds:Reference URI=""/><ds:Reference `), v, "does not leave itself out"},
		{"second reference", edit(t, signed, "</ds:Reference>", `</ds:Reference><ds:Reference URI=""/>`), v, "has several references"},
		{"wrapped", `<KeyContainer Version="1.0" xmlns="` + Namespace + `">` + evil + `<Extensions>` + body + `</Extensions></KeyContainer>`, v, "carries no XML signature"},
		{"signature of another file inside", edit(t, edit(t, signed, signature, ""), "<KeyPackage>", signature+evil+"<KeyPackage>"), v, "does not fit the file"},
		{"no value", edit(t, signed, signature, signature[:strings.Index(signature, "<ds:SignatureValue>")]+"</ds:Signature>"), v, "no SignedInfo or no SignatureValue"},
		{"cut off", signed[:len(signed)-20], v, "cut off"},
		{"DTD", edit(t, signed, "<KeyContainer", "<!DOCTYPE KeyContainer><KeyContainer"), v, "document type declaration"},
		{"empty", "", v, "carries no XML signature"},
		{"large", plain + strings.Repeat(" ", maxSigned), v, "larger than 8 MB"},
	} {
		keys, err := readAll(strings.NewReader(c.file), Options{Signer: c.by.cert})
		var bad *Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), c.says) || len(keys) > 0 || bad.Line < 1 {
			t.Errorf("%s: %d keys, %v; want %s", c.name, len(keys), err, c.says)
			continue
		}
		noSecret(t, err)
	}
	// The published signature is of SHA-1, and over something that is not there.
	_, err = readAll(strings.NewReader(figure9), Options{Signer: v.cert})
	if err == nil || !strings.Contains(err.Error(), "SHA-1") {
		t.Errorf("figure 9: %v", err)
	}
}

func TestNotesTellOfTheSignature(t *testing.T) {
	v := rsaVendor(t)
	signed := v.sign(t, wrapXML("", signedPackage), usual)
	notes := func(o Options) string {
		r := NewReader(strings.NewReader(signed), o)
		defer r.Close()
		var err error
		for err == nil {
			_, err = r.Next()
		}
		return fmt.Sprint(err, r.Notes())
	}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if got := notes(Options{Now: now}); !strings.Contains(got, "EOF") || !strings.Contains(got, "signature, which was not checked") {
		t.Error(got)
	}
	if got := notes(Options{Now: now, Signer: v.cert}); !strings.Contains(got, `right signature of "CN=ACME seeds"`) || strings.Contains(got, "expired") {
		t.Error(got)
	}
	if got := notes(Options{Now: now.AddDate(10, 0, 0), Signer: v.cert}); !strings.Contains(got, "whose certificate expired on 2030-01-01") {
		t.Error(got)
	}
}

// A signed file is in memory as a whole, and is wiped.
func TestReaderWipesSignedFile(t *testing.T) {
	v := rsaVendor(t)
	r := NewReader(strings.NewReader("\xef\xbb\xbf"+v.sign(t, wrapXML("", signedPackage), usual)), Options{Signer: v.cert})
	if k, err := r.Next(); err != nil || string(k.Secret) != figureSeed {
		t.Fatal(err)
	}
	whole := r.whole[:cap(r.whole)]
	if !bytes.Contains(whole, []byte("MTIzNDU2")) {
		t.Fatal("the test looks at the wrong buffer")
	}
	r.Close()
	if bytes.Contains(whole, []byte("MTIzNDU2")) || bytes.Contains(r.p.in.buf, []byte("MTIzNDU2")) {
		t.Error("the file stays behind")
	}
}

const figure9 = `<KeyContainer xmlns="urn:ietf:params:xml:ns:keyprov:pskc" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" Version="1.0">
 <KeyPackage>
  <DeviceInfo><Manufacturer>TokenVendorAcme</Manufacturer><SerialNo>0755225266</SerialNo></DeviceInfo>
  <Key Id="123" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp">
   <Issuer>Example-Issuer</Issuer>
   <AlgorithmParameters><ResponseFormat Length="6" Encoding="DECIMAL"/></AlgorithmParameters>
   <Data><Secret><PlainValue>
      MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=
    </PlainValue></Secret><Counter><PlainValue>0</PlainValue></Counter></Data>
  </Key>
 </KeyPackage>
 <ds:Signature><ds:SignedInfo>
   <ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"/>
   <ds:SignatureMethod Algorithm="http://www.w3.org/2000/09/xmldsig#rsa-sha1"/>
   <ds:Reference URI="#Device"><ds:DigestMethod Algorithm="http://www.w3.org/2000/09/xmldsig#sha1"/>
    <ds:DigestValue>j6lwx3rvEPO0vKtMup4NbeVu8nk=</ds:DigestValue></ds:Reference>
  </ds:SignedInfo>
  <ds:SignatureValue>j6lwx3rvEPO0vKtMup4NbeVu8nk=</ds:SignatureValue>
  <ds:KeyInfo><ds:X509Data><ds:X509IssuerSerial><ds:X509IssuerName>CN=Example.com,C=US</ds:X509IssuerName>
   <ds:X509SerialNumber>12345678</ds:X509SerialNumber></ds:X509IssuerSerial></ds:X509Data></ds:KeyInfo>
 </ds:Signature>
</KeyContainer>`
