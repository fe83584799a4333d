package hsmtest

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"watchword/hsm"
)

// EncryptTo encrypts a seed to a public key as item says, as a vendor would: by
// OpenSSL. The answer is item with the ciphertext in it.
func EncryptTo(t testing.TB, public *rsa.PublicKey, item hsm.Transported, seed []byte) hsm.Transported {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "public.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"pkeyutl", "-encrypt", "-pubin", "-inkey", file}
	switch item.Mechanism {
	case hsm.TransportPKCS1:
		args = append(args, "-pkeyopt", "rsa_padding_mode:pkcs1")
	case hsm.TransportOAEP:
		args = append(args, "-pkeyopt", "rsa_padding_mode:oaep",
			"-pkeyopt", "rsa_oaep_md:"+opensslDigest(item.OAEPHash), "-pkeyopt", "rsa_mgf1_md:"+opensslDigest(item.MGFHash))
		if len(item.Label) > 0 {
			args = append(args, "-pkeyopt", "rsa_oaep_label:"+hex.EncodeToString(item.Label))
		}
	default:
		t.Fatalf("nobody encrypts by %q", item.Mechanism)
	}
	c := exec.Command("openssl", args...)
	c.Stdin = bytes.NewReader(seed)
	var out, said bytes.Buffer
	c.Stdout, c.Stderr = &out, &said
	if err := c.Run(); err != nil {
		t.Fatalf("openssl (of the package openssl): %v\n%s", err, said.Bytes())
	}
	item.Ciphertext = out.Bytes()
	return item
}

func opensslDigest(h crypto.Hash) string {
	if h == 0 {
		h = crypto.SHA1
	}
	return strings.ReplaceAll(strings.ToLower(fmt.Sprint(h)), "-", "")
}
