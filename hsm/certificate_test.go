package hsm_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
)

var from = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func openssl(t *testing.T, in []byte, args ...string) (string, error) {
	t.Helper()
	c := exec.Command("openssl", args...)
	c.Stdin = bytes.NewReader(in)
	out, err := c.CombinedOutput()
	return string(out), err
}

// The certificate is one that a vendor's tools take: OpenSSL checks it, and what
// it encrypts to it is taken over.
func TestVendorsCanUseTheCertificate(t *testing.T) {
	k, records := hsmtest.SoftHSM(t)
	hsmtest.Transport(t, k, records)
	c, err := hsm.IssueTransport(t.Context(), k, k.TransportKeys()[0], "Example Corp", from, from.AddDate(5, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	leaf, issuer := filepath.Join(dir, "leaf.pem"), filepath.Join(dir, "issuer.pem")
	for file, der := range map[string][]byte{leaf: c.Certificate, issuer: c.Issuer} {
		if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := fmt.Sprint(from.AddDate(1, 0, 0).Unix())
	if out, err := openssl(t, nil, "verify", "-x509_strict", "-attime", at, "-CAfile", issuer, leaf); err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
	for _, when := range []time.Time{from.Add(-time.Second), from.AddDate(5, 0, 0).Add(time.Second)} {
		if out, err := openssl(t, nil, "verify", "-attime", fmt.Sprint(when.Unix()), "-CAfile", issuer, leaf); err == nil {
			t.Errorf("openssl takes it on %v\n%s", when, out)
		}
	}
	if out, err := openssl(t, nil, "verify", "-attime", at, "-CAfile", leaf, "-partial_chain", issuer); err == nil {
		t.Errorf("the transport key passes for an issuer:\n%s", out)
	}
	out, err := openssl(t, nil, "x509", "-in", leaf, "-noout", "-text")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"Subject: CN = Example Corp transport key 1\n", "Issuer: CN = Example Corp audit key\n", "Key Usage: critical\n                Key Encipherment\n",
		"CA:FALSE", "Not Before: Mar  1 12:00:00 2026 GMT", "Not After : Mar  1 12:00:00 2031 GMT", "ecdsa-with-SHA256", "Public-Key: (2048 bit)",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("openssl does not read %q in it:\n%s", want, out)
		}
	}
	spki, err := openssl(t, nil, "x509", "-in", leaf, "-noout", "-pubkey")
	if err != nil {
		t.Fatal(err)
	}
	if sum, err := openssl(t, []byte(spki), "pkey", "-pubin", "-outform", "DER", "-out", filepath.Join(dir, "spki")); err != nil {
		t.Fatalf("%v\n%s", err, sum)
	}
	if sum, err := openssl(t, nil, "dgst", "-sha256", "-r", filepath.Join(dir, "spki")); err != nil || !strings.HasPrefix(sum, fmt.Sprintf("%x ", c.Fingerprint)) {
		t.Errorf("openssl computes another fingerprint: %s (%v)", sum, err)
	}
	seed := "12345678901234567890"
	ciphertext, err := openssl(t, []byte(seed), "pkeyutl", "-encrypt", "-certin", "-inkey", leaf, "-pkeyopt", "rsa_padding_mode:oaep")
	if err != nil {
		t.Fatalf("%v\n%s", err, ciphertext)
	}
	all, err := k.Rewrap(t.Context(), []hsm.Transported{{Mechanism: hsm.TransportOAEP, Hash: hsm.SHA1, Ciphertext: []byte(ciphertext)}}, hsm.TransportOptions{})
	if err != nil || all[0].Err != nil || all[0].Path != hsm.PathHSM || all[0].SeedLen != 20 {
		t.Errorf("a seed encrypted to the certificate: %+v, %v", all, err)
	}
}

func TestEachCertificateIsAnotherOfTheSameKey(t *testing.T) {
	k := hsmtest.NewMemory(t)
	public, _ := hsmtest.Transport(t, k, k.Records())
	var all []*x509.Certificate
	for range 2 {
		c, err := hsm.IssueTransport(t.Context(), k, k.TransportKeys()[0], "W", from, from.AddDate(1, 0, 0))
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(c.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		issuer, err := x509.ParseCertificate(c.Issuer)
		if err != nil {
			t.Fatal(err)
		}
		if err := leaf.CheckSignatureFrom(issuer); err != nil {
			t.Error(err)
		}
		if !public.Equal(leaf.PublicKey) {
			t.Error("it is of another key")
		}
		all = append(all, leaf, issuer)
	}
	for i := range all {
		for j := range i {
			if all[i].SerialNumber.Cmp(all[j].SerialNumber) == 0 {
				t.Error("two certificates have the same serial number")
			}
		}
	}
	// Either issuer's certificate proves either.
	if err := all[0].CheckSignatureFrom(all[3]); err != nil {
		t.Error(err)
	}
}

func TestCertificatesThatAreNotIssued(t *testing.T) {
	k := hsmtest.NewMemory(t)
	hsmtest.Transport(t, k, k.Records())
	key := k.TransportKeys()[0]
	for name, f := range map[string]func() error{
		"no name": func() error {
			_, err := hsm.IssueTransport(t.Context(), k, key, "", from, from.AddDate(1, 0, 0))
			return err
		},
		"a long name": func() error {
			_, err := hsm.IssueTransport(t.Context(), k, key, strings.Repeat("x", 41), from, from.AddDate(1, 0, 0))
			return err
		},
		"a strange one": func() error {
			_, err := hsm.IssueTransport(t.Context(), k, key, "a\nb", from, from.AddDate(1, 0, 0))
			return err
		},
		"no time": func() error { _, err := hsm.IssueTransport(t.Context(), k, key, "x", from, from); return err },
	} {
		if err := f(); err == nil {
			t.Errorf("%s: a certificate was made", name)
		}
	}
}
