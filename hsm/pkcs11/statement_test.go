package pkcs11_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

// signed has a version sign something new, and says whether it did. Whatever is
// answered is a signature that verifies, or that the HSM does not answer.
func signed(t *testing.T, k *pkcs11.Keystore, key hsm.StatementKey, what string) bool {
	t.Helper()
	digest := sha256.Sum256(random(16))
	signature, err := k.SignStatement(t.Context(), key.Version, digest[:])
	switch {
	case err != nil && !errors.Is(err, hsm.ErrUnavailable):
		t.Errorf("%s: %v", what, err)
	case err == nil && !ecdsa.Verify(key.Public, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])):
		t.Errorf("%s: a signature that does not verify", what)
	}
	return err == nil
}

// tool runs pkcs11-tool on the token, logged in: another process with the PIN.
func tool(t *testing.T, config pkcs11.Config, args ...string) (string, error) {
	t.Helper()
	pin, err := config.PIN()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("pkcs11-tool", append([]string{
		"--module", config.Module, "--token-label", config.TokenLabel, "--login", "--pin", string(pin),
	}, args...)...).CombinedOutput()
	return string(out), err
}

// Another program, logged in with the PIN, sees what a statement key is, and that
// it is gone when it was destroyed; OpenSSL verifies what it signed.
func TestAStatementKeyOnlySigns(t *testing.T) {
	config := hsmtest.Token(t)
	k, _ := hsmtest.OpenNew(t, config)
	records := hsmtest.Statement(t, k, 1, 2)
	list := func() string {
		out, err := tool(t, config, "--list-objects")
		if err != nil {
			t.Fatalf("pkcs11-tool (of the package opensc): %v\n%s", err, out)
		}
		return out
	}
	private, err := tool(t, config, "--list-objects", "--type", "privkey")
	_, about, found := strings.Cut(private, "watchword statement 1")
	if err != nil || !found {
		t.Fatalf("there is no statement key: %v\n%s", err, private)
	}
	about, _, _ = strings.Cut(about, "Private Key Object")
	for _, want := range []string{"Usage:      sign\n", "sensitive", "always sensitive", "never extractable"} {
		if !strings.Contains(about, want) {
			t.Errorf("the statement key is not said to be %q:\n%s", want, about)
		}
	}

	dir := t.TempDir()
	message := []byte("eyJhbGciOiJFUzI1NiJ9.e30")
	digest := sha256.Sum256(message)
	signature, err := k.SignStatement(t.Context(), 1, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(k.StatementKeys()[1].Public)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "key"), public)
	write(t, filepath.Join(dir, "signature"), derSignature(t, signature))
	verify := func(message []byte) (string, error) {
		write(t, filepath.Join(dir, "message"), message)
		out, err := exec.Command("openssl", "dgst", "-sha256", "-keyform", "DER", "-verify", filepath.Join(dir, "key"),
			"-signature", filepath.Join(dir, "signature"), filepath.Join(dir, "message")).CombinedOutput()
		return string(out), err
	}
	if out, err := verify(message); err != nil || !strings.Contains(out, "Verified OK") {
		t.Errorf("OpenSSL: %v\n%s", err, out)
	}
	if out, err := verify(append(message, 'x')); err == nil {
		t.Errorf("OpenSSL verifies another message:\n%s", out)
	}

	if err := k.DestroyStatement(t.Context(), records[0]); err != nil {
		t.Fatal(err)
	}
	if left := list(); strings.Contains(left, "watchword statement 1") || strings.Count(left, "watchword statement 2") != 2 || strings.Count(left, "watchword audit 1") != 2 {
		t.Errorf("after version 1 was destroyed:\n%s", left)
	}
}

// derSignature is r and s as OpenSSL wants them (RFC 3279, section 2.2.3).
func derSignature(t *testing.T, signature []byte) []byte {
	t.Helper()
	integer := func(b []byte) []byte {
		b = new(big.Int).SetBytes(b).Bytes()
		if len(b) == 0 || b[0] >= 0x80 {
			b = append([]byte{0}, b...)
		}
		return append([]byte{2, byte(len(b))}, b...)
	}
	body := append(integer(signature[:32]), integer(signature[32:])...)
	return append([]byte{0x30, byte(len(body))}, body...)
}

// Each node has a process of its own on the token: what one makes the others find,
// without being started anew, and what one destroys is of no use to them.
func TestAStatementKeyOfAnotherProcessIsFound(t *testing.T) {
	config := hsmtest.Token(t)
	config.Logger = slog.New(slog.DiscardHandler) // it complains about the key that is gone
	k, _ := hsmtest.OpenNew(t, config)
	hsmtest.Statement(t, k, 1)
	if !signed(t, k, k.StatementKeys()[0], "the first key") {
		t.Fatal("it does not sign")
	}
	const id = "0123456789abcdef0123456789abcdef"
	if out, err := tool(t, config, "--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign", "--sensitive", "--id", id, "--label", "watchword statement 2"); err != nil {
		t.Fatalf("pkcs11-tool: %v\n%s", err, out)
	}
	file := filepath.Join(t.TempDir(), "public")
	if out, err := tool(t, config, "--read-object", "--type", "pubkey", "--id", id, "--output-file", file); err != nil {
		t.Fatalf("pkcs11-tool: %v\n%s", err, out)
	}
	der, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	point, err := parsed.(*ecdsa.PublicKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	check := sha256.Sum256(append([]byte("watchword check statement\x00"), point...))
	r := hsm.KeyRecord{Name: hsm.KeyStatement, Version: 2, ID: bytes.Repeat([]byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}, 2), Check: check[:16]}
	before := k.Generation()
	if err := k.AttachStatement(t.Context(), []hsm.KeyRecord{r}); err != nil {
		t.Fatal(err)
	}
	key := k.StatementKeys()[0]
	if !key.Public.Equal(parsed) || !signed(t, k, key, "the other process's key") {
		t.Error("another key is attached")
	}
	if k.Generation() != before {
		t.Error("attaching a key began a new generation")
	}
	if out, err := tool(t, config, "--delete-object", "--type", "privkey", "--id", id); err != nil {
		t.Fatalf("pkcs11-tool: %v\n%s", err, out)
	}
	if signed(t, k, key, "a key that another process destroyed") {
		t.Error("a key that another process destroyed signs")
	}
	// The keystore does without it.
	deadline := time.Now().Add(time.Minute)
	for k.Ready() != nil && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	if _, err := k.MAC(t.Context(), hsm.KeyBinding, []byte("x")); err != nil {
		t.Errorf("after a statement key is gone: %v", err)
	}
	if _, err := k.SignStatement(t.Context(), 2, make([]byte, 32)); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("the key that is gone: %v", err)
	}
	if err := k.DestroyStatement(t.Context(), r); err != nil {
		t.Error(err)
	}
}

// Whatever the module answers: a signature that verifies, or that the HSM does not
// answer; and when it is back, the same keys are there.
func TestFaultsWhileStatementsAreSigned(t *testing.T) {
	k, control := open(t, nil)
	records := hsmtest.Statement(t, k, 1, 2)
	keys := k.StatementKeys()
	back := func(what string) {
		t.Helper()
		control.Clear()
		for deadline := time.Now().Add(time.Minute); !signed(t, k, keys[0], what) || !signed(t, k, keys[1], what); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the HSM is not back: %v", what, k.Ready())
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for name, rv := range map[string]uint{
		"CKR_GENERAL_ERROR":          p11.CKR_GENERAL_ERROR,
		"CKR_SESSION_HANDLE_INVALID": p11.CKR_SESSION_HANDLE_INVALID,
		"CKR_KEY_HANDLE_INVALID":     p11.CKR_KEY_HANDLE_INVALID,
		"a vendor's":                 0x80000123,
	} {
		for _, function := range []string{"C_SignInit", "C_Sign", "C_FindObjectsInit", "C_GetAttributeValue"} {
			what := fmt.Sprintf("every second %s is %s", function, name)
			control.FailEvery(2, rv, function)
			for i := range 4 {
				signed(t, k, keys[i%2], what)
				if err := k.AttachStatement(t.Context(), records); err != nil && !errors.Is(err, hsm.ErrUnavailable) {
					t.Errorf("%s: attach: %v", what, err)
				}
				if len(k.StatementKeys()) != 2 {
					t.Fatalf("%s: %d keys are attached", what, len(k.StatementKeys()))
				}
			}
			back(what)
		}
	}
	for range 3 {
		control.Restart()
		signed(t, k, keys[0], "after a restart")
		back("after a restart")
	}
}

// A module that is started anew to free memory keeps the statement keys, and
// nobody who signs notices.
func TestStatementsAreSignedAcrossTurnovers(t *testing.T) {
	k, _ := open(t, func(c *pkcs11.Config) { c.Turnover, c.Handles = 50, 10 })
	hsmtest.Statement(t, k, 1)
	key := k.StatementKeys()[0]
	before := k.Generation()
	for deadline := time.Now().Add(time.Minute); k.Generation() < before+3; {
		if time.Now().After(deadline) {
			t.Fatal("there were no turnovers")
		}
		if _, err := k.Wrap(context.Background(), seeds(20)); err != nil {
			t.Fatal(err)
		}
		if !signed(t, k, key, "during turnovers") {
			t.Fatal("a signature failed")
		}
	}
}
