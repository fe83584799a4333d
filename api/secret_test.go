package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"watchword/api/console"
	"watchword/tokens"
)

// secretCalls are the requests whose answers hold a secret.
var secretCalls = []struct{ path, body string }{
	{"/v1/users/alice/tokens", ""},
	{"/v1/users/alice/recovery", ""},
	{"/v1/users/alice/temporary", ""},
	{"/v1/tokens/24680017/lost", `{"temporary":{}}`},
}

func TestSecretsAreWipedWhenTheyWereAnswered(t *testing.T) {
	for _, c := range secretCalls {
		core := &scripted{}
		w := do(newServer(t, core).Handler(), "POST", c.path, c.body)
		if w.Code >= 300 || w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
			t.Fatalf("%s: %d %v %s", c.path, w.Code, w.Header(), w.Body)
		}
		if !json.Valid(w.Body.Bytes()) || !strings.HasSuffix(w.Body.String(), "}\n"+strings.Repeat("\r", console.Padding)) {
			t.Errorf("%s: %q", c.path, w.Body)
		}
		if len(core.secrets) == 0 {
			t.Errorf("%s: no secret was answered", c.path)
		}
		for _, secret := range core.secrets {
			if left := bytes.Trim(secret, "\x00"); len(left) > 0 {
				t.Errorf("%s: a secret was not wiped", c.path)
			}
		}
	}
}

func TestANewTokenIsAnsweredWithItsSeed(t *testing.T) {
	core := &scripted{}
	w := do(newServer(t, core, func(c *Config) { c.Name = "Example & Co" }).Handler(), "POST", "/v1/users/alice/tokens", `{"algorithm":"sha256","digits":8,"period":60}`)
	var got MadeToken
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Header().Get("Location") != "/v1/tokens/S-1" {
		t.Fatalf("%v %d %s", err, w.Code, w.Body)
	}
	if got.Token.Serial != "S-1" || got.Uri != "otpauth://totp/W:alice?secret=GEZDGNBVGY3TQOJQ&issuer=W" || got.Secret != "GEZDGNBVGY3TQOJQ" {
		t.Errorf("%+v", got)
	}
	if n := core.arg.(tokens.NewSoft); n.Algorithm.String() != "sha256" || n.Digits != 8 || n.Period != 60 || n.Issuer != "Example & Co" || core.user != "alice" {
		t.Errorf("%+v", n)
	}
	text, found := strings.CutPrefix(got.Qr, "data:image/png;base64,")
	picture, err := base64.StdEncoding.DecodeString(text)
	if err != nil || !found {
		t.Fatalf("%v %.60s", err, got.Qr)
	}
	if _, err := png.Decode(bytes.NewReader(picture)); err != nil {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "qr.png")
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("zbarimg", "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", file).Output()
	if err != nil {
		t.Fatalf("zbarimg (package zbar-tools): %v", err)
	}
	if strings.TrimSpace(string(out)) != got.Uri {
		t.Errorf("the QR code says %q", out)
	}
}

func TestPasscodesAreAnsweredWithTheirCodes(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	answer := func(path, body string, into any) {
		t.Helper()
		w := do(h, "POST", path, body)
		if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
			t.Fatalf("%v %d %s", err, w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), "sealed-passcode") {
			t.Errorf("%s", w.Body)
		}
	}
	var sheet RecoverySheet
	answer("/v1/users/alice/recovery", "", &sheet)
	if fmt.Sprint(sheet.Codes) != "[aaaa-bbbb-cccc dddd-eeee-ffff]" || value(sheet.Token.Left) != 1 || sheet.Token.Uses != nil || sheet.Token.Period != nil || sheet.Token.Algorithm != "" {
		t.Errorf("%+v", sheet)
	}
	var one TemporaryPasscode
	answer("/v1/users/alice/temporary", `{"valid_minutes":90,"uses":3}`, &one)
	if one.Code != "aaaa-bbbb-cccc" || value(one.Token.Left) != 2 || value(one.Token.Uses) != 3 || one.Token.Expires == nil {
		t.Errorf("%+v", one)
	}
	if r := core.arg.(tokens.TemporaryRequest); r.Uses != 3 || r.Valid.Minutes() != 90 {
		t.Errorf("%+v", r)
	}
	var lost Token
	answer("/v1/tokens/24680017/lost", `{"reason":"train","temporary":{}}`, &lost)
	if lost.Serial != "24680017" || lost.Temporary == nil || lost.Temporary.Code != "aaaa-bbbb-cccc" || lost.Temporary.Token.Type != TokenTypeTemporary {
		t.Errorf("%+v", lost)
	}
	lost = Token{}
	answer("/v1/tokens/24680017/lost", "", &lost)
	if lost.Temporary != nil || core.arg != "lost 24680017 " {
		t.Errorf("%+v, %v", lost, core.arg)
	}
}

// When it was answered, no piece of a seed or a passcode is left in the process: not
// in what net/http writes through either. The server runs in a process of its own,
// in which no client reads it.
func TestAnswersLeaveNoSecretInMemory(t *testing.T) {
	if file := os.Getenv("WATCHWORD_TEST_RESIDUE"); file != "" {
		serveSecrets(t, file)
		return
	}
	file := filepath.Join(t.TempDir(), "heap")
	cmd := exec.Command(os.Args[0], "-test.run=^TestAnswersLeaveNoSecretInMemory$", "-test.count=1")
	// As the server runs: a preempted goroutine leaves its registers on a signal stack.
	cmd.Env = append(os.Environ(), "WATCHWORD_TEST_RESIDUE="+file, "GODEBUG=asyncpreemptoff=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewScanner(stdout)
	said.Scan()
	addr := said.Text()
	needles := map[string][]byte{}
	for i, c := range secretCalls {
		r, err := http.NewRequest("POST", "http://"+addr+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+testKey)
		if c.body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		answer, err := http.DefaultClient.Do(r) // one connection, kept open
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		secret := madeSecret(i)
		if err != nil || answer.StatusCode >= 300 || !bytes.Contains(body, secret) {
			t.Fatalf("%s: %v %d %s", c.path, err, answer.StatusCode, body)
		}
		needles[c.path] = secret[4:16]
		if _, text, found := bytes.Cut(body, []byte("base64,")); found {
			needles["the picture in base64"] = text[8000:8064]
		}
	}
	stdin.Close()
	rest, _ := io.ReadAll(stdout)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, rest)
	}
	dump, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(dump, []byte(`"serial":"S-1"`)) {
		t.Error("the dump of the memory does not even hold what surrounds a secret")
	}
	for what, needle := range needles {
		if at := bytes.Index(dump, needle); at >= 0 {
			t.Errorf("%s: a secret is left behind: %q", what, dump[max(0, at-200):min(len(dump), at+100)])
		}
	}
}

// madeSecret is the secret that the server in a process of its own answers to a
// call: nothing in that process holds it before.
func madeSecret(call int) []byte {
	sum := sha256.Sum256([]byte{byte(call), 42})
	defer clear(sum[:])
	out := make([]byte, base32.StdEncoding.EncodedLen(20))
	base32.StdEncoding.Encode(out, sum[:20])
	return out
}

// secretive is a core that makes such secrets.
type secretive struct{ *scripted }

func (s secretive) EnrolSoft(context.Context, tokens.Principal, tokens.NewSoft) (tokens.Token, []byte, error) {
	secret := madeSecret(0)
	defer clear(secret)
	uri := append(make([]byte, 0, 200), "otpauth://totp/W:alice?secret="...)
	return token(1, "S-1", tokens.TOTP), append(uri, secret...), nil
}

func (s secretive) IssueRecovery(context.Context, tokens.Principal, string, string) (tokens.Token, [][]byte, error) {
	return passcode(1, "R-1", tokens.Recovery), [][]byte{madeSecret(1), madeSecret(1)}, nil
}

func (s secretive) IssueTemporary(context.Context, tokens.Principal, string, string, tokens.TemporaryRequest) (tokens.Token, []byte, error) {
	return passcode(1, "T-1", tokens.Temporary), madeSecret(2), nil
}

func (s secretive) Lose(_ context.Context, _ tokens.Principal, _, serial, _ string, _ *tokens.TemporaryRequest) (tokens.Token, *tokens.Token, []byte, error) {
	temporary := passcode(2, "T-1", tokens.Temporary)
	return token(1, serial, tokens.TOTP), &temporary, madeSecret(3), nil
}

// serveSecrets serves until its input ends, and writes down what is in memory then.
func serveSecrets(t *testing.T, file string) {
	debug.SetGCPercent(-1) // nothing is cleared by chance
	core := secretive{&scripted{}}
	s, err := New(Config{Core: core, Importer: core})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(serve(t, s))
	_, _ = io.Copy(io.Discard, os.Stdin)
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	debug.WriteHeapDump(out.Fd())
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
