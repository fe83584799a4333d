package softkey_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"watchword/webauthn/softkey"
)

// Debian's fido2-tools are the platform of these tests, and their judge.

func plug(t *testing.T, k *softkey.Key) *softkey.Port {
	t.Helper()
	p, err := softkey.Plug(k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("pull out: %v", err)
		}
	})
	return p
}

// tool runs one of the tools; the lines of stdin are what it asks for. Without a
// terminal it asks there, and it must not lead a session, or the key's
// pseudo-terminal would become its terminal.
func tool(t *testing.T, stdin string, command ...string) (stdout string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", append([]string{"-c", `"$@"; exit $?`, "sh"}, command...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.Stdin = strings.NewReader(stdin)
	var out, problems bytes.Buffer
	c.Stdout, c.Stderr = &out, &problems
	err = c.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
	case errors.As(err, &exit) && exit.ExitCode() == 127:
		t.Fatalf("%s is not installed (package fido2-tools)", command[0])
	default:
		err = fmt.Errorf("%s: %w: %s", strings.Join(command, " "), err, problems.String())
	}
	return out.String(), err
}

// must is tool where it has to work.
func must(t *testing.T, stdin string, command ...string) string {
	t.Helper()
	out, err := tool(t, stdin, command...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// refused is tool where the key has to refuse, for a reason in libfido2's words.
func refused(t *testing.T, reason, stdin string, command ...string) {
	t.Helper()
	_, err := tool(t, stdin, command...)
	if err == nil {
		t.Errorf("%s works, want %s", strings.Join(command, " "), reason)
	} else if !strings.Contains(err.Error(), reason) {
		t.Errorf("%v, want %s", err, reason)
	}
}

// write makes a file with the lines.
func write(t *testing.T, lines ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "input")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func random64() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.StdEncoding.EncodeToString(b)
}

func newCredential(t *testing.T, user string) string {
	return write(t, random64(), rpID, user, base64.StdEncoding.EncodeToString([]byte(user)))
}

// make64 makes a credential and has it verified: its ID, and the file of its
// public key. Where a PIN is typed, the user has to be verified.
func make64(t *testing.T, stdin, user string, p *softkey.Port, algorithm string, flags ...string) (id, public string) {
	t.Helper()
	command := append([]string{"fido2-cred", "-M", "-i", newCredential(t, user)}, flags...)
	made := must(t, stdin, append(command, p.Path(), algorithm)...)
	verify := []string{"fido2-cred", "-V"}
	if stdin != "" {
		verify = append(verify, "-v")
	}
	for i, f := range flags {
		switch f {
		case "-h":
			verify = append(verify, f)
		case "-c":
			verify = append(verify, f, flags[i+1])
		}
	}
	out := must(t, made, append(verify, algorithm)...)
	id, key, _ := strings.Cut(out, "\n")
	return id, write(t, strings.TrimSpace(key))
}

// assert64 asserts with a credential and has it verified; it answers the lines
// of fido2-assert.
func assert64(t *testing.T, stdin, id, public string, p *softkey.Port, algorithm string, flags ...string) []string {
	t.Helper()
	input := []string{random64(), rpID}
	if id != "" {
		input = append(input, id)
	}
	verify := []string{"fido2-assert", "-V", "-p"}
	for _, f := range flags {
		if f == "-h" {
			input = append(input, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("salt"), 8)))
		}
		if f == "-h" || f == "-v" {
			verify = append(verify, f)
		}
	}
	command := append([]string{"fido2-assert", "-G", "-p", "-i", write(t, input...)}, flags...)
	out := must(t, stdin, append(command, p.Path())...)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	must(t, strings.Join(lines[:4], "\n")+"\n", append(verify, public, algorithm)...)
	return lines
}

func TestLibfido2MakesAndVerifiesCredentials(t *testing.T) {
	for _, format := range []softkey.Format{softkey.Packed, softkey.Self, softkey.U2F} {
		for _, algorithm := range []string{"es256", "eddsa", "es384", "rs256"} {
			if format == softkey.U2F && algorithm != "es256" {
				continue
			}
			t.Run(string(format)+" "+algorithm, func(t *testing.T) {
				p := plug(t, newKey(t, softkey.Options{Format: format}))
				id, public := make64(t, "", "alice", p, algorithm)
				assert64(t, "", id, public, p, algorithm)
				other := plug(t, newKey(t, softkey.Options{Format: format}))
				refused(t, "FIDO_ERR_NO_CREDENTIALS", "", "fido2-assert", "-G", "-i", write(t, random64(), rpID, id), other.Path())
			})
		}
	}
}

func TestTheKeySaysWhatItIs(t *testing.T) {
	p := plug(t, newKey(t, softkey.Options{Serial: "WW-1"}))
	out := must(t, "", "fido2-token", "-I", p.Path())
	for _, want := range []string{"aaguid: 7761746368776f7264736f66746b6579", "FIDO_2_1", "noclientPin", "noep", "pin protocols: 2, 1", "pin retries: 8", "remaining rk(s): 100"} {
		if !strings.Contains(out, want) {
			t.Errorf("fido2-token -I does not say %q:\n%s", want, out)
		}
	}
	old := plug(t, newKey(t, softkey.Options{CTAP20: true, UserVerification: true}))
	out = must(t, "", "fido2-token", "-I", old.Path())
	for _, want := range []string{"version strings: FIDO_2_0\n", "pin protocols: 1\n", "options: rk, up, uv, noplat"} {
		if !strings.Contains(out, want) {
			t.Errorf("fido2-token -I does not say %q:\n%s", want, out)
		}
	}
}

// TestAPINIsSetChangedAndAsked goes through the life of a key with a PIN, in both
// protocols: libfido2 takes protocol 2 and tokens with permissions where the key
// knows them.
func TestAPINIsSetChangedAndAsked(t *testing.T) {
	for name, o := range map[string]softkey.Options{"CTAP 2.1": {}, "CTAP 2.0": {CTAP20: true}} {
		t.Run(name, func(t *testing.T) {
			p := plug(t, newKey(t, o))
			refused(t, "FIDO_ERR_PIN_REQUIRED", "0000\n", "fido2-token", "-L", "-r", p.Path())
			refused(t, "FIDO_ERR_PIN_POLICY_VIOLATION", "ÄÖÜ\nÄÖÜ\n", "fido2-token", "-S", p.Path()) // six bytes, three characters
			must(t, "1234\n1234\n", "fido2-token", "-S", p.Path())
			must(t, "1234\n98765\n98765\n", "fido2-token", "-C", p.Path())
			if out := must(t, "", "fido2-token", "-I", p.Path()); !strings.Contains(out, " clientPin") {
				t.Errorf("a PIN is set, fido2-token -I says:\n%s", out)
			}
			refused(t, "FIDO_ERR_PIN_INVALID", "1234\n", "fido2-token", "-L", "-r", p.Path())

			flags := []string{"-r"}
			if !o.CTAP20 { // in CTAP 2.0, verification that is asked for is the key's own
				flags = append(flags, "-v", "-c", "2")
			}
			first, public := make64(t, "98765\n", "alice", p, "es256", flags...)
			assert64(t, "98765\n", first, public, p, "es256", "-v")
			second, _ := make64(t, "98765\n", "bob", p, "eddsa", "-r")
			if out := must(t, "98765\n", "fido2-token", "-L", "-r", p.Path()); !strings.Contains(out, rpID) {
				t.Errorf("fido2-token -L -r does not name %s:\n%s", rpID, out)
			}
			out := must(t, "98765\n", "fido2-token", "-L", "-k", rpID, p.Path())
			for _, want := range []string{first, second, "YWxpY2U=", "Ym9i", "es256", "eddsa"} {
				if !strings.Contains(out, want) {
					t.Errorf("fido2-token -L -k does not name %q:\n%s", want, out)
				}
			}
			out = must(t, "98765\n", "fido2-token", "-I", "-c", p.Path())
			if !strings.Contains(out, "existing rk(s): 2") || !strings.Contains(out, "remaining rk(s): 98") {
				t.Errorf("fido2-token -I -c says:\n%s", out)
			}
			// Both passkeys answer, the newest first.
			out = must(t, "98765\n", "fido2-assert", "-G", "-r", "-v", "-i", write(t, random64(), rpID), p.Path())
			if got := strings.Split(strings.TrimSpace(out), "\n"); len(got) != 10 || got[4] != base64.StdEncoding.EncodeToString([]byte("bob")) {
				t.Errorf("two passkeys answer:\n%s", out)
			}
			if !o.CTAP20 { // the first is protected: without a PIN only the second is found
				out = must(t, "", "fido2-assert", "-G", "-r", "-i", write(t, random64(), rpID), p.Path())
				if got := strings.Split(strings.TrimSpace(out), "\n"); len(got) != 5 {
					t.Errorf("one passkey answers without a PIN:\n%s", out)
				}
				must(t, "98765\n", "fido2-token", "-S", "-c", "-i", first, "-k", base64.StdEncoding.EncodeToString([]byte("alice")), "-n", "Alicia", "-p", "Alicia A.", p.Path())
				if out := must(t, "98765\n", "fido2-token", "-L", "-k", rpID, p.Path()); !strings.Contains(out, "Alicia A.") {
					t.Errorf("the new name is not listed:\n%s", out)
				}
			}
			must(t, "98765\n", "fido2-token", "-D", "-i", first, p.Path())
			refused(t, "FIDO_ERR_NO_CREDENTIALS", "", "fido2-assert", "-G", "-i", write(t, random64(), rpID, first), p.Path())
			must(t, "", "fido2-token", "-R", p.Path())
			refused(t, "FIDO_ERR_NO_CREDENTIALS", "", "fido2-assert", "-G", "-i", write(t, random64(), rpID, second), p.Path())
			if out := must(t, "", "fido2-token", "-I", p.Path()); !strings.Contains(out, "noclientPin") {
				t.Errorf("after a reset fido2-token -I says:\n%s", out)
			}
		})
	}
}

func TestWrongPINsLock(t *testing.T) {
	k := newKey(t, softkey.Options{})
	p := plug(t, k)
	must(t, "1234\n1234\n", "fido2-token", "-S", p.Path())
	guess := func(pin, want string) {
		t.Helper()
		refused(t, want, pin+"\n", "fido2-token", "-L", "-r", p.Path())
	}
	retries := func(want string) {
		t.Helper()
		if out := must(t, "", "fido2-token", "-I", p.Path()); !strings.Contains(out, "pin retries: "+want+"\n") {
			t.Errorf("want %s retries, fido2-token -I says:\n%s", want, out)
		}
	}
	replug := func() {
		t.Helper()
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		p = plug(t, k)
	}
	guess("0000", "FIDO_ERR_PIN_INVALID")
	guess("0000", "FIDO_ERR_PIN_INVALID")
	retries("6")
	must(t, "1234\n", "fido2-token", "-I", "-c", p.Path())
	retries("8")
	for range 2 {
		guess("0000", "FIDO_ERR_PIN_INVALID")
	}
	guess("0000", "FIDO_ERR_PIN_AUTH_BLOCKED")
	guess("1234", "FIDO_ERR_PIN_AUTH_BLOCKED") // the right one does not help until it is plugged in anew
	retries("5")
	replug()
	for range 2 {
		guess("0000", "FIDO_ERR_PIN_INVALID")
	}
	guess("0000", "FIDO_ERR_PIN_AUTH_BLOCKED")
	replug()
	guess("0000", "FIDO_ERR_PIN_INVALID")
	guess("0000", "FIDO_ERR_PIN_BLOCKED")
	replug()
	guess("1234", "FIDO_ERR_PIN_BLOCKED") // for good, but for a reset
	must(t, "", "fido2-token", "-R", p.Path())
	retries("8")
}

func TestSettingsOfTheKey(t *testing.T) {
	p := plug(t, newKey(t, softkey.Options{Serial: "WW-000018"}))
	must(t, "123456\n123456\n", "fido2-token", "-S", p.Path())
	must(t, "123456\n", "fido2-token", "-S", "-a", p.Path())
	must(t, "123456\n", "fido2-token", "-S", "-l", "6", p.Path())
	refused(t, "FIDO_ERR_PIN_POLICY_VIOLATION", "123456\n", "fido2-token", "-S", "-l", "5", p.Path())
	must(t, "123456\n", "fido2-token", "-S", "-m", rpID, p.Path())
	must(t, "123456\n", "fido2-token", "-S", "-u", p.Path())
	out := must(t, "", "fido2-token", "-I", p.Path())
	for _, want := range []string{"options: ep,", " alwaysUv", "minpinlen: 6", "minPinLength", "pin change required: false"} {
		if !strings.Contains(out, want) {
			t.Errorf("fido2-token -I does not say %q:\n%s", want, out)
		}
	}
	refused(t, "FIDO_ERR_PIN_REQUIRED", "", "fido2-cred", "-M", "-q", "-i", newCredential(t, "alice"), p.Path())
	must(t, "123456\n", "fido2-token", "-D", "-u", p.Path())
	make64(t, "", "alice", p, "es256")
	must(t, "123456\n", "fido2-token", "-S", "-f", p.Path())
	if out := must(t, "", "fido2-token", "-I", p.Path()); !strings.Contains(out, "pin change required: true") {
		t.Errorf("a new PIN is demanded, fido2-token -I says:\n%s", out)
	}
	refused(t, "FIDO_ERR_PIN_POLICY_VIOLATION", "123456\n", "fido2-token", "-L", "-r", p.Path())
	refused(t, "FIDO_ERR_PIN_POLICY_VIOLATION", "123456\n123456\n123456\n", "fido2-token", "-C", p.Path())
	must(t, "123456\n654321\n654321\n", "fido2-token", "-C", p.Path())
	must(t, "654321\n", "fido2-token", "-I", "-c", p.Path())
}

func TestHMACSecretIsTheSameForTheSameSalt(t *testing.T) {
	for name, o := range map[string]softkey.Options{"protocol 2": {}, "protocol 1": {CTAP20: true}} {
		t.Run(name, func(t *testing.T) {
			p := plug(t, newKey(t, o))
			id, public := make64(t, "", "alice", p, "es256", "-h")
			other, otherPublic := make64(t, "", "bob", p, "es256", "-h")
			secret := func(id, public string) string {
				lines := assert64(t, "", id, public, p, "es256", "-h")
				s, err := base64.StdEncoding.DecodeString(lines[len(lines)-1])
				if err != nil || len(s) != 32 || len(lines) != 5 {
					t.Fatalf("no secret of 32 bytes in %q", lines)
				}
				return string(s)
			}
			one, two, three := secret(id, public), secret(id, public), secret(other, otherPublic)
			if one != two {
				t.Error("the secret changes from one assertion to the next")
			}
			if one == three {
				t.Error("two credentials have the same secret")
			}
		})
	}
}

func TestABuiltInVerificationNeedsNoPIN(t *testing.T) {
	p := plug(t, newKey(t, softkey.Options{UserVerification: true}))
	id, public := make64(t, "", "alice", p, "es256", "-v")
	out := must(t, "", "fido2-assert", "-G", "-p", "-t", "uv=true", "-i", write(t, random64(), rpID, id), p.Path())
	must(t, out, "fido2-assert", "-V", "-p", "-v", public, "es256")
}

// TestTheKeyWaitsForATouch has a tool wait for the user, who touches, declines,
// or pulls the key out.
func TestTheKeyWaitsForATouch(t *testing.T) {
	asked := make(chan struct{})
	answer := make(chan bool)
	k := newKey(t, softkey.Options{Touch: func(ctx context.Context) bool {
		asked <- struct{}{}
		select {
		case yes := <-answer:
			return yes
		case <-ctx.Done():
			return false
		}
	}})
	p := plug(t, k)
	make1 := func() chan error {
		input := newCredential(t, "alice")
		done := make(chan error, 1)
		go func() {
			_, err := tool(t, "", "fido2-cred", "-M", "-i", input, p.Path())
			done <- err
		}()
		<-asked
		return done
	}
	done := make1()
	select {
	case err := <-done:
		t.Fatalf("the tool did not wait for the touch: %v", err)
	case <-time.After(300 * time.Millisecond): // three times a keep-alive
	}
	answer <- true
	if err := <-done; err != nil {
		t.Error(err)
	}
	done = make1()
	answer <- false
	if err := <-done; err == nil || !strings.Contains(err.Error(), "FIDO_ERR_OPERATION_DENIED") {
		t.Errorf("the user declined: %v", err)
	}
	done = make1()
	begun := time.Now()
	if err := p.Close(); err != nil {
		t.Errorf("pull out: %v", err)
	}
	if err := <-done; err == nil || !regexp.MustCompile(`FIDO_ERR_(RX|TX)`).MatchString(err.Error()) {
		t.Errorf("the key was pulled out: %v", err)
	}
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("it took %v to notice that the key was pulled out", took)
	}
}

func TestATamperedCredentialIsFoundByLibfido2(t *testing.T) {
	k := newKey(t, softkey.Options{})
	p := plug(t, k)
	k.Misbehave(&softkey.Faults{Statement: func(f string, s map[string]any) (string, map[string]any) {
		sig := bytes.Clone(s["sig"].([]byte))
		sig[len(sig)-1] ^= 1
		s["sig"] = sig
		return f, s
	}})
	made := must(t, "", "fido2-cred", "-M", "-i", newCredential(t, "alice"), p.Path())
	if _, err := tool(t, made, "fido2-cred", "-V"); err == nil {
		t.Error("fido2-cred -V accepts a tampered signature")
	}
	k.Misbehave(&softkey.Faults{RPID: "evil.example"})
	if made, err := tool(t, "", "fido2-cred", "-M", "-i", newCredential(t, "alice"), p.Path()); err == nil {
		if _, err := tool(t, made, "fido2-cred", "-V"); err == nil {
			t.Error("fido2-cred accepts another relying party's hash")
		}
	}
}

// TestAClientThatBreaksOffLeavesTheKeyUsable writes without reading, and ends
// within a report: the next client finds a key that works.
func TestAClientThatBreaksOffLeavesTheKeyUsable(t *testing.T) {
	p := plug(t, newKey(t, softkey.Options{}))
	client, err := os.OpenFile(p.Path(), os.O_RDWR|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	put := func(report []byte) {
		t.Helper()
		if _, err := client.Write(append([]byte{0}, report...)); err != nil {
			t.Fatal(err)
		}
	}
	put(first(broadcast, initialise, 8, []byte("12345678")))
	for range 12 { // 90 kB come back, more than there is room for
		put(first(1, ping, 7609, nil))
		for s := range byte(128) {
			put(further(1, s, nil))
		}
	}
	// Some of it was lost, but not the key: it answers what comes after that.
	last := []byte("the last one")
	for answered := false; !answered; {
		put(first(1, ping, len(last), last))
		time.Sleep(50 * time.Millisecond)
		for !answered {
			report := make([]byte, 64)
			if err := client.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(client, report); errors.Is(err, os.ErrDeadlineExceeded) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			answered = bytes.Equal(report, first(1, ping, len(last), last))
		}
	}
	put(first(1, ping, len(last), last)) // its answer is left unread
	if _, err := client.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	id, public := make64(t, "", "alice", p, "es256")
	assert64(t, "", id, public, p, "es256")
}
