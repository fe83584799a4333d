package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"watchword/webauthn/softkey"
)

// The commands of scripts about FIDO keys:
//
//	vendor FILE                       write the root of the scripts' keys, in PEM
//	enrolkey VAR USER                 enrol a key, and put its serial into a variable; ! enrolkey must be refused
//	mdsroot FILE                      write the root that signs the scripts' metadata, in PEM
//	mds FILE NUMBER DAYS [STATUS...]  write metadata that knows the scripts' keys, with these statuses
var fidoCommands = map[string]func(*testscript.TestScript, bool, []string){
	"vendor": func(ts *testscript.TestScript, neg bool, args []string) {
		v, err := vendor()
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), v.RootPEM(), 0o600))
	},
	"enrolkey": scriptEnrol,
	"mdsroot": func(ts *testscript.TestScript, neg bool, args []string) {
		a, err := scriptAuthority()
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw}), 0o600))
	},
	"mds": scriptMDS,
}

func scriptEnrol(ts *testscript.TestScript, neg bool, args []string) {
	n := running(ts)
	k := newHeldKey(n.t, args[1], softkey.Options{})
	_, err := n.enrolKey(k)
	switch {
	case neg && err == nil:
		ts.Fatalf("the key was enrolled")
	case neg:
		ts.Logf("%v", err)
	case err != nil:
		ts.Fatalf("%v", err)
	}
	ts.Setenv(args[0], k.serial)
}

// mdsSigner signs metadata, as the FIDO Alliance does.
type mdsSigner struct {
	root, leaf *x509.Certificate
	key        *ecdsa.PrivateKey
}

var scriptAuthority = sync.OnceValues(func() (*mdsSigner, error) {
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &mdsSigner{}
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
			BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		}
	}
	certify := func(c, parent *x509.Certificate, public *ecdsa.PublicKey) (*x509.Certificate, error) {
		der, err := x509.CreateCertificate(rand.Reader, c, parent, public, rootKey)
		if err != nil {
			return nil, err
		}
		return x509.ParseCertificate(der)
	}
	root := template("Metadata Root")
	root.IsCA, root.KeyUsage = true, x509.KeyUsageCertSign
	if a.root, err = certify(root, root, &rootKey.PublicKey); err != nil {
		return nil, err
	}
	leaf := template("mds.fidoalliance.org")
	leaf.DNSNames = []string{"mds.fidoalliance.org"}
	a.leaf, err = certify(leaf, a.root, &a.key.PublicKey)
	return a, err
})

func scriptMDS(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: mds FILE NUMBER DAYS [STATUS...]")
	}
	number, err := strconv.Atoi(args[1])
	ts.Check(err)
	days, err := strconv.Atoi(args[2])
	ts.Check(err)
	a, err := scriptAuthority()
	ts.Check(err)
	v, err := vendor()
	ts.Check(err)
	statuses := []any{}
	for _, s := range args[3:] {
		statuses = append(statuses, map[string]any{"status": s, "effectiveDate": "2026-01-01"})
	}
	blob, err := a.sign(map[string]any{
		"legalHeader": "of a test", "no": number, "nextUpdate": time.Now().AddDate(0, 0, days).UTC().Format(time.DateOnly),
		"entries": []any{map[string]any{
			"aaguid": softkey.DefaultAAGUID, "statusReports": statuses, "timeOfLastStatusChange": "2026-01-01",
			"metadataStatement": map[string]any{
				"aaguid": softkey.DefaultAAGUID, "description": "Software Key 1", "protocolFamily": "fido2", "schema": 3, "authenticatorVersion": 1,
				"attestationTypes": []string{"basic_full"}, "authenticationAlgorithms": []string{"secp256r1_ecdsa_sha256_raw"},
				"keyProtection": []string{"software"}, "attestationRootCertificates": []string{base64.StdEncoding.EncodeToString(v.Root().Raw)},
				"authenticatorGetInfo": map[string]any{"versions": []string{"FIDO_2_1"}, "aaguid": strings.ReplaceAll(softkey.DefaultAAGUID, "-", ""), "transports": []string{"usb"}},
			},
		}},
	})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), blob, 0o600))
}

func (a *mdsSigner) sign(payload any) ([]byte, error) {
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err) // it is made of what can be marshalled
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := part(map[string]any{"alg": "ES256", "typ": "JWT", "x5c": []string{base64.StdEncoding.EncodeToString(a.leaf.Raw)}}) + "." + part(payload)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, a.key, digest[:])
	if err != nil {
		return nil, err
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return fmt.Appendf(nil, "%s.%s", signed, base64.RawURLEncoding.EncodeToString(signature)), nil
}

// TestATerminalShowsTheLinkAsAQRCode has Debian's zbar read what a terminal shows.
func TestATerminalShowsTheLinkAsAQRCode(t *testing.T) {
	const link = "https://login.example.org/enrol/wi_0123456789abcdef_Fn551NxCVd6MNVjdKVBfGcFUcU-re2OvZ1q7IY3n3IA"
	var b strings.Builder
	if err := printQR(&b, link); err != nil {
		t.Fatal(err)
	}
	if got := readDrawn(t, b.String()); got != link {
		t.Errorf("it reads %q", got)
	}
}

// readDrawn reads the QR code that is drawn on a terminal by zbarimg.
func readDrawn(t testing.TB, drawn string) string {
	t.Helper()
	var rows [][]bool
	for line := range strings.Lines(drawn) {
		line, framed := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "\x1b[30;107m")
		line, ended := strings.CutSuffix(line, "\x1b[0m")
		if !framed || !ended {
			t.Fatalf("a line leaves the terminal's colours changed: %q", line)
		}
		var upper, lower []bool
		for _, r := range line {
			upper = append(upper, r == '█' || r == '▀')
			lower = append(lower, r == '█' || r == '▄')
		}
		rows = append(rows, upper, lower)
	}
	const scale = 4
	image := fmt.Appendf(nil, "P5 %d %d 255\n", len(rows[0])*scale, len(rows)*scale)
	for _, row := range rows {
		for range scale {
			for _, black := range row {
				for range scale {
					if black {
						image = append(image, 0)
					} else {
						image = append(image, 255)
					}
				}
			}
		}
	}
	file := t.TempDir() + "/qr.pgm"
	if err := os.WriteFile(file, image, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("zbarimg", "--quiet", "--raw", file).Output()
	if err != nil {
		t.Fatalf("zbarimg (package zbar-tools): %v", err)
	}
	return strings.TrimSpace(string(out))
}
