package seeds

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"watchword/hsm"
	"watchword/tokens"
)

// toTransport is a container with a seed of 20 bytes for each serial, encrypted to
// a key by RSA-OAEP.
func toTransport(t *testing.T, to *rsa.PublicKey, serials ...string) (file string, ciphertexts [][]byte) {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `<KeyContainer Version="1.0" xmlns="urn:ietf:params:xml:ns:keyprov:pskc" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" xmlns:xenc="http://www.w3.org/2001/04/xmlenc#">
<EncryptionKey><ds:KeyValue><ds:RSAKeyValue><ds:Modulus>%s</ds:Modulus><ds:Exponent>AQAB</ds:Exponent></ds:RSAKeyValue></ds:KeyValue></EncryptionKey>`,
		base64.StdEncoding.EncodeToString(to.N.Bytes()))
	for _, serial := range serials {
		sealed, err := rsa.EncryptOAEPWithOptions(rand.Reader, to, []byte("12345678901234567890"), &rsa.OAEPOptions{Hash: crypto.SHA1})
		if err != nil {
			t.Fatal(err)
		}
		ciphertexts = append(ciphertexts, sealed)
		fmt.Fprintf(&b, `<KeyPackage><DeviceInfo><Manufacturer>ACME</Manufacturer><SerialNo>%s</SerialNo></DeviceInfo>
<Key Id="%[1]s" Algorithm="urn:ietf:params:xml:ns:keyprov:pskc:hotp"><AlgorithmParameters><ResponseFormat Length="6" Encoding="DECIMAL"/></AlgorithmParameters>
<Data><Secret><EncryptedValue><xenc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p"/><xenc:CipherData><xenc:CipherValue>%[2]s</xenc:CipherValue></xenc:CipherData></EncryptedValue></Secret>
<Counter><PlainValue>0</PlainValue></Counter></Data><UserId>user-%[1]s</UserId></Key></KeyPackage>`, serial, base64.StdEncoding.EncodeToString(sealed))
	}
	b.WriteString("</KeyContainer>")
	return b.String(), ciphertexts
}

func TestSeedsEncryptedToTheTransportKeyReachTheCoreAsTheyAre(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var serials []string
	for i := range chunkSize + 3 {
		serials = append(serials, fmt.Sprint("A", i))
	}
	file, want := toTransport(t, &key.PublicKey, serials...)
	shelf := newShelf(t)
	shelf.transports = true
	r, err := importText(shelf, file, Options{All: true, AllowHost: true, AllowRSA15: true})
	if err != nil || !r.Published || r.ThroughHSM != len(want) || r.ThroughHost != 0 || !strings.Contains(r.Message, "503 seeds went from the file into the HSM and nowhere else") {
		t.Fatalf("%+v, %v", r, err)
	}
	for i, n := range shelf.got {
		if n.Seed != nil || n.Transported.Mechanism != hsm.TransportOAEP || n.Transported.Hash != hsm.SHA1 || !key.PublicKey.Equal(n.TransportKey) || !bytes.Equal(n.Transported.Ciphertext, want[i]) {
			t.Fatalf("record %d came as %+v", i, n)
		}
	}
	for _, o := range r.Records {
		if o.Path != hsm.PathHSM {
			t.Fatalf("%+v", o)
		}
	}
	if !shelf.in.AllowHost || !shelf.in.AllowPKCS1 {
		t.Errorf("the core was told %+v", shelf.in)
	}

	r, err = importText(shelf, strings.ReplaceAll(file, ">A", ">B"), Options{DryRun: true})
	if err != nil || len(r.Notes) == 0 || !strings.Contains(r.Notes[len(r.Notes)-1], "shows only when they are imported") || r.ThroughHSM != 0 {
		t.Errorf("dry run: %+v, %v", r, err)
	}
	shelf.transports = false
	r, err = importText(shelf, file, Options{})
	if err != nil || r.Published || !strings.Contains(r.Records[0].Reason, "there is no transport key here") {
		t.Errorf("without a transport key: %+v, %v", r, err)
	}
}

func TestUsersOfTheFileReachTheCore(t *testing.T) {
	file := "# version: 2\nalice,ldap,corp,A1,3132333435363738393031323334353637383930,hotp\n"
	shelf := newShelf(t)
	r, err := importText(shelf, file, Options{Assign: true, Create: true})
	if err != nil || !r.Published {
		t.Fatalf("%+v, %v", r, err)
	}
	if n := shelf.got[0]; n.User != "alice" || n.UserRealm != "corp" || !shelf.in.Assign || !shelf.in.Create {
		t.Errorf("%+v, %+v", n, shelf.in)
	}
}

// Where the file is refused, nothing has travelled.
func TestARefusedFileTellsNoPath(t *testing.T) {
	y := tally{all: true}
	y.add(Outcome{Outcome: tokens.OutcomeCreated, Path: hsm.PathHost})
	y.add(Outcome{Outcome: tokens.OutcomeRejected})
	var r Report
	y.fill(&r, true)
	if r.ThroughHost != 0 || r.Records[1].Path != "" {
		t.Errorf("%+v", r)
	}
	y.fill(&r, false)
	if r.ThroughHost != 1 || !strings.Contains(r.Message, "1 seed travelled through the server's memory") {
		t.Errorf("%+v", r)
	}
}
