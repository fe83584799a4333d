package hsmtest

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"watchword/hsm/pkcs11"
)

// NSSToken makes a key database of NSS and answers how to open it with NSS's
// softokn, a second PKCS#11 module that every Debian has.
func NSSToken(t testing.TB) pkcs11.Config {
	t.Helper()
	module := ""
	for _, p := range []string{
		"/usr/lib/x86_64-linux-gnu/libsoftokn3.so",
		"/usr/lib/x86_64-linux-gnu/nss/libsoftokn3.so",
		"/usr/lib/aarch64-linux-gnu/libsoftokn3.so",
		"/usr/lib/aarch64-linux-gnu/nss/libsoftokn3.so",
	} {
		if _, err := os.Stat(p); err == nil {
			module = p
		}
	}
	if module == "" {
		t.Fatal("NSS's libsoftokn3.so is not installed: install the package libnss3")
	}
	// NSS derives a key from the PIN for each use of a stored key; as many
	// rounds as for real people make the tests slow.
	t.Setenv("NSS_MAX_MP_PBE_ITERATION_COUNT", "2")
	dir := t.TempDir()
	pin := randomHex(8)
	file := filepath.Join(dir, "pin")
	if err := os.WriteFile(file, []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("certutil", "-N", "-d", "sql:"+dir, "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("make an NSS database (certutil is in the package libnss3-tools): %v\n%s", err, out)
	}
	return pkcs11.Config{
		Module:     module,
		InitArgs:   "configdir='sql:" + dir + "' certPrefix='' keyPrefix='' secmod='secmod.db' flags=",
		TokenLabel: "NSS Certificate DB",
		PIN:        pkcs11.FixedPIN([]byte(pin)),
		Logger:     slog.New(accuser{t}),
	}
}
