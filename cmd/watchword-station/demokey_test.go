package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// notebook is what a command writes while a test reads it.
type notebook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (n *notebook) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.Write(b)
}

func (n *notebook) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.text.String()
}

// await waits until the words were written so often.
func (n *notebook) await(t *testing.T, words string, times int) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); strings.Count(n.String(), words) < times; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%q was not written %d times: %q", words, times, n.String())
		}
	}
}

// demonstration are demo keys that are plugged in, until pull is called.
type demonstration struct {
	paths      []string
	out, notes notebook
	pull       func() error
}

func demonstrate(t *testing.T, in io.Reader, args ...string) *demonstration {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	p := &demonstration{}
	done := make(chan error, 1)
	cmd := demoKeyCommand()
	cmd.SetArgs(args)
	cmd.SetIn(in)
	cmd.SetOut(&p.out)
	cmd.SetErr(&p.notes)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	p.pull = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := p.pull(); err != nil {
			t.Errorf("demo-key: %v", err)
		}
	})
	p.notes.await(t, "Ctrl-C", 1)
	p.paths = strings.Fields(p.out.String())
	return p
}

// fido2 runs one of Debian's fido2-tools, which must not lead a session: the
// key's pseudo-terminal would become its terminal.
func fido2(t *testing.T, stdin string, command ...string) (string, error) {
	t.Helper()
	if _, err := exec.LookPath(command[0]); err != nil {
		t.Fatalf("%v (package fido2-tools)", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", append([]string{"-c", `"$@"; exit $?`, "sh"}, command...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.Stdin = strings.NewReader(stdin)
	out, err := c.Output()
	return string(out), err
}

// newCredential is the input of fido2-cred -M: a hash, the relying party, the
// user's name and ID.
func newCredential() string {
	hash := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	return strings.Join([]string{hash, "login.example.com", "alice", base64.StdEncoding.EncodeToString([]byte("alice"))}, "\n") + "\n"
}

func TestTheDemoKeyIsAKeyToLibfido2AndSaysWhatItIs(t *testing.T) {
	root := filepath.Join(t.TempDir(), "root.pem")
	p := demonstrate(t, strings.NewReader(""), "--root", root, "--serial", "DEMO")
	if len(p.paths) != 1 {
		t.Fatalf("one key is %q", p.paths)
	}
	out, err := fido2(t, "", "fido2-token", "-I", p.paths[0])
	if err != nil || !strings.Contains(out, "aaguid: 7761746368776f7264736f66746b6579") || !strings.Contains(out, "noep") {
		t.Errorf("fido2-token -I: %v:\n%s", err, out)
	}
	if !strings.Contains(p.notes.String(), "protects nothing") {
		t.Errorf("it does not say what it is: %q", p.notes.String())
	}
	text, err := os.ReadFile(root)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("the root is %q", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !cert.IsCA || cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
		t.Errorf("the root certificate: %v, %v", cert.Subject, err)
	}
	sum := sha256.Sum256(block.Bytes)
	if !strings.Contains(p.notes.String(), hex.EncodeToString(sum[:])) {
		t.Errorf("it does not tell its root's SHA-256: %q", p.notes.String())
	}
	made, err := fido2(t, newCredential(), "fido2-cred", "-M", p.paths[0])
	if err != nil {
		t.Fatal(err)
	}
	if out, err := fido2(t, made, "fido2-cred", "-V"); err != nil {
		t.Errorf("fido2-cred -V: %v: %s", err, out)
	}
	if err := p.pull(); err != nil {
		t.Error(err)
	}
	if _, err := fido2(t, "", "fido2-token", "-I", p.paths[0]); err == nil {
		t.Error("it answers after it was pulled out")
	}
}

// TestDemoKeysArePluggedIntoADirectory has two commands share one in which there
// are also a file of a key's name and the link of a key that is no more.
func TestDemoKeysArePluggedIntoADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "key-002"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/pts/999999999", filepath.Join(dir, "key-003")); err != nil {
		t.Fatal(err)
	}
	links := func() map[string]string {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]string{}
		for _, e := range entries {
			there[e.Name()], _ = os.Readlink(filepath.Join(dir, e.Name()))
		}
		return there
	}
	one := demonstrate(t, strings.NewReader(""), "--keys", dir, "--count", "2")
	t.Setenv("WATCHWORD_STATION_KEYS", dir)
	other := demonstrate(t, strings.NewReader(""), "--count", "1", "--serial", "DEMO")
	want := map[string]string{"key-001": one.paths[0], "key-002": "", "key-003": one.paths[1], "key-004": other.paths[0]}
	if got := links(); !maps.Equal(got, want) {
		t.Errorf("the links are %v, want %v", got, want)
	}
	for name := range want {
		if name == "key-002" {
			continue
		}
		if _, err := fido2(t, newCredential(), "fido2-cred", "-M", filepath.Join(dir, name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := one.pull(); err != nil {
		t.Error(err)
	}
	want = map[string]string{"key-002": "", "key-004": other.paths[0]}
	if got := links(); !maps.Equal(got, want) {
		t.Errorf("after some were pulled out the links are %v, want %v", got, want)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "key-002")); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q now: %v", text, err)
	}
}

func TestTheDemoKeyWaitsForEnter(t *testing.T) {
	in, typed := io.Pipe()
	p := demonstrate(t, in, "--touch", "--ctap20")
	ask := func(times int, line string) error {
		t.Helper()
		done := make(chan error, 1)
		go func() {
			_, err := fido2(t, newCredential(), "fido2-cred", "-M", p.paths[0])
			done <- err
		}()
		p.notes.await(t, "waits for a touch", times)
		select {
		case err := <-done:
			t.Fatalf("the key did not wait: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		if line == "" {
			typed.Close()
		} else if _, err := io.WriteString(typed, line); err != nil {
			t.Fatal(err)
		}
		return <-done
	}
	if _, err := io.WriteString(typed, "\n\n\n"); err != nil { // before it waits
		t.Fatal(err)
	}
	if err := ask(1, "\n"); err != nil {
		t.Errorf("after Enter: %v", err)
	}
	if err := ask(2, "no\n"); err == nil {
		t.Error("the user declined, and there is a credential")
	}
	if err := ask(3, ""); err == nil {
		t.Error("nobody can touch the key any more, and there is a credential")
	}
}

func TestDemoKeysThatCannotBeAreRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]demoKeys{
		"none":           {},
		"too many":       {count: mostDemoKeys + 1},
		"a root nowhere": {count: 1, root: filepath.Join(file, "root.pem")},
		"no directory":   {count: 1, dir: file},
	} {
		if err := d.run(t.Context(), nil, io.Discard, io.Discard); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
