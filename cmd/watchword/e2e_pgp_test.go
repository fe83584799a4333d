package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestAnHSMThatFailsWhileAPGPMessageIsOpenedLeavesNothing imports a message that is
// encrypted to the key in the HSM, while the HSM does not decrypt: 503, nothing is
// imported, no attempt is counted, and the same file is imported afterwards.
func TestAnHSMThatFailsWhileAPGPMessageIsOpenedLeavesNothing(t *testing.T) {
	token := newToken(t, shimModule)
	n := startNode(t, nodeOptions{env: token.env()})
	n.term()
	cmd := exec.Command(program(t, false), "hsm", "pgp-key", "--bits", "2048", "--data-dir", n.dir, "--json")
	cmd.Env = append(os.Environ(), token.env()...)
	cmd.Env = append(cmd.Env, "WATCHWORD_DATABASE=sqlite:"+filepath.Join(n.dir, "watchword.db"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("hsm pgp-key: %v\n%s", err, out)
	}
	var made pgpResult
	if err := json.Unmarshal(out, &made); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	gpg := func(stdin string, args ...string) []byte {
		t.Helper()
		cmd := exec.Command("gpg", append([]string{"--homedir", home, "--batch", "--quiet", "--trust-model", "always"}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		var said bytes.Buffer
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("gpg (package gnupg): %v\n%s", err, said.Bytes())
		}
		return out
	}
	t.Cleanup(func() { exec.Command("gpgconf", "--homedir", home, "--kill", "gpg-agent").Run() })
	gpg("", "--import", made.PublicKey)
	file := gpg("10,3132333435363738393031323334353637383930,hotp\n", "-e", "-r", made.Fingerprint)

	n.start()
	n.waitReady()
	tokens := func() int {
		var page struct{ Items []struct{ Serial string } }
		n.must(http.MethodGet, "/v1/tokens", nil, &page)
		return len(page.Items)
	}
	upload := func() (int, error) { return n.call(n.key, http.MethodPost, "/v1/imports", bytes.NewReader(file), nil) }
	for range 3 {
		token.shim.Fail(ckrDeviceError, "C_Decrypt", "C_DecryptInit")
		for range 10 {
			if status, err := upload(); status != http.StatusServiceUnavailable {
				t.Errorf("while the HSM fails: %d, %v", status, err)
			}
		}
		token.shim.Clear()
		n.waitReady()
	}
	var batches struct{ Items []struct{ Id int } }
	n.must(http.MethodGet, "/v1/imports", nil, &batches)
	if got := tokens(); got != 0 || len(batches.Items) != 0 {
		t.Errorf("%d tokens and %d batches are there", got, len(batches.Items))
	}
	status := 0
	for deadline := time.Now().Add(30 * time.Second); status != http.StatusOK && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		var err error
		if status, err = upload(); status != http.StatusOK && status != http.StatusServiceUnavailable {
			t.Fatalf("when the HSM is back: %d, %v", status, err)
		}
	}
	if got := tokens(); status != http.StatusOK || got != 1 {
		t.Errorf("when the HSM is back: %d, and %d tokens are there", status, got)
	}
	n.wantIntactAudit()
}
