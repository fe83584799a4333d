package seeds

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
)

// After an import out of a container no piece of a seed is left in the process:
// not in the buffers of decompressors, ciphers and hashes either. The import
// runs in a process of its own, which never sees the file in the clear.
func TestContainersLeaveNoSeedInMemory(t *testing.T) {
	if dir := os.Getenv("WATCHWORD_TEST_RESIDUE"); dir != "" {
		leaveResidue(t, dir)
		return
	}
	const seed = "c0ffee15900d4b1badf00ddeadbea7ca5cade5b1"
	g := newGnuPG(t)
	dir := t.TempDir()
	var csv strings.Builder
	for range 2000 {
		csv.WriteString("A" + hex.EncodeToString([]byte{byte(csv.Len()), byte(csv.Len() >> 8), byte(csv.Len() >> 16)}) + "," + seed + ",totp\n")
	}
	file := csv.String()
	messages := map[string][]byte{
		"plain":      []byte(file),
		"message":    g.make(t, file, "-s", "-e", "-u", "signer@example.org", "-r", "curve@example.org"),
		"armoured":   g.make(t, file, "-a", "-e", "-z", "0", "-r", "curve@example.org"),
		"not-hidden": g.make(t, file, "-a", "-s", "-z", "0", "-u", "signer@example.org"),
		"archive":    packed(t, map[string]string{"a.csv": file}, "7zz", "a", "-tzip", "-mem=AES256", "-ppw", "a.zip", "a.csv"),
		"weak":       packed(t, map[string]string{"a.csv": file}, "zip", "-0", "-P", "pw", "a.zip", "a.csv"),
	}
	for name, message := range messages {
		if err := os.WriteFile(filepath.Join(dir, name), message, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "key"), g.curve, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "signer"), g.signer, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestContainersLeaveNoSeedInMemory$", "-test.count=1")
	// As the server runs: a preempted goroutine leaves its registers on a signal stack.
	cmd.Env = append(os.Environ(), "WATCHWORD_TEST_RESIDUE="+dir, "GODEBUG=asyncpreemptoff=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	raw, _ := hex.DecodeString(seed)
	for name := range messages {
		dump, err := os.ReadFile(filepath.Join(dir, name+".heap"))
		if err != nil {
			t.Fatal(err)
		}
		for what, needle := range map[string][]byte{"in hex": []byte(seed[4:28]), "in the clear": raw[2:14]} {
			if at := bytes.Index(dump, needle); at >= 0 {
				t.Errorf("%s: a seed %s is left behind: %q", name, what, dump[max(0, at-200):min(len(dump), at+200)])
			}
		}
	}
}

// leaveResidue imports each file, and writes down what is in memory then.
func leaveResidue(t *testing.T, dir string) {
	key, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := os.ReadFile(filepath.Join(dir, "signer"))
	if err != nil {
		t.Fatal(err)
	}
	debug.SetGCPercent(-1) // nothing is cleared by chance
	for _, name := range []string{"plain", "weak", "archive", "not-hidden", "armoured", "message"} {
		in, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		o := Options{PGPKey: key, Password: []byte("pw")}
		if name == "message" || name == "not-hidden" {
			o.PGPSigner = signer
		}
		r, err := NewImporter(newShelf(t)).Import(t.Context(), admin, o, in)
		in.Close()
		if err != nil || r.Created != 2000 {
			t.Fatalf("%s: %+v, %v", name, r, err)
		}
		out, err := os.Create(filepath.Join(dir, name+".heap"))
		if err != nil {
			t.Fatal(err)
		}
		debug.WriteHeapDump(out.Fd())
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
