package main

import (
	"crypto/rand"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

// shimModule asks newToken for the module that fails on command.
const shimModule = "shim"

// A softToken is a SoftHSM token outside any data directory, as an HSM is.
type softToken struct {
	module string
	conf   string
	label  string
	pin    string
	shim   *hsmtest.ShimControl // nil unless it is behind the shim
}

// newToken makes an empty token, for use through SoftHSM or the shim.
func newToken(t testing.TB, module string) *softToken {
	t.Helper()
	dir := t.TempDir()
	k := &softToken{conf: filepath.Join(dir, "softhsm2.conf"), label: "company", pin: randomDigits()}
	var err error
	if module == shimModule {
		k.module, k.shim = hsmtest.Shim(t)
	} else if k.module, err = pkcs11.FindSoftHSM(); err != nil {
		t.Fatal(err)
	}
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	text := "directories.tokendir = " + tokens + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	if err := os.WriteFile(k.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k.run(t, "softhsm2-util", "--init-token", "--free", "--label", k.label, "--so-pin", randomDigits(), "--pin", k.pin)
	return k
}

// env makes a node use the token.
func (k *softToken) env() []string {
	return []string{
		"SOFTHSM2_CONF=" + k.conf, "WATCHWORD_HSM_MODULE=" + k.module,
		"WATCHWORD_HSM_TOKEN_LABEL=" + k.label, "WATCHWORD_HSM_PIN=" + k.pin,
	}
}

// objects counts the objects in the token.
func (k *softToken) objects(t testing.TB) int {
	t.Helper()
	real, err := pkcs11.FindSoftHSM()
	if err != nil {
		t.Fatal(err)
	}
	out := k.run(t, "pkcs11-tool", "--module", real, "--token-label", k.label, "--login", "--pin", k.pin, "--list-objects")
	return strings.Count(out, " Object; ")
}

func (k *softToken) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+k.conf)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

func randomDigits() string {
	b := make([]byte, 8)
	rand.Read(b)
	return hex.EncodeToString(b)
}
