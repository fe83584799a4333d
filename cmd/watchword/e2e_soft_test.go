package main

import (
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// madeToken is what POST /v1/users/{user}/tokens answers.
type madeToken struct {
	Token           struct{ Serial, State, Algorithm, User string }
	URI, Secret, QR string
}

// TestAnAuthenticatorAppIsSetUpByItsPicture makes software tokens, reads their
// pictures as an app's camera does, and computes their codes by other programs. The
// seed is in that one answer, and nowhere else from then on.
func TestAnAuthenticatorAppIsSetUpByItsPicture(t *testing.T) {
	n := startNode(t, nodeOptions{plain: true})
	for _, x := range []struct {
		user, hash     string
		digits, period int
		body           map[string]any // what is asked for; the rest is left to the server
	}{
		{"alice-liddell", "sha1", 6, 30, map[string]any{"type": "totp", "issuer": "Example Ltd"}},
		{"bob-the-builder", "sha256", 8, 60, map[string]any{"algorithm": "sha256", "digits": 8, "period": 60}},
		{"carol-and-hash", "sha512", 7, 30, map[string]any{"algorithm": "sha512", "digits": 7}},
	} {
		t.Run(x.hash, func(t *testing.T) {
			n.must(http.MethodPost, "/v1/users", map[string]string{"name": x.user}, nil)
			var made madeToken
			n.must(http.MethodPost, "/v1/users/"+x.user+"/tokens", x.body, &made)
			uri := readPicture(t, made.QR)
			if uri != made.URI {
				t.Fatal("the picture and the key URI differ")
			}
			parsed, err := url.Parse(uri)
			if err != nil || parsed.Scheme != "otpauth" || parsed.Host != "totp" || !strings.HasSuffix(parsed.Path, x.user) {
				t.Fatalf("it is no key URI for %s: %v", x.user, err)
			}
			q := parsed.Query()
			for name, want := range map[string]string{
				"algorithm": strings.ToUpper(x.hash), "digits": fmt.Sprint(x.digits), "period": fmt.Sprint(x.period), "secret": made.Secret,
			} {
				if got := q.Get(name); got != want && name != "secret" {
					t.Errorf("the key URI says %s=%s; want %s", name, got, want)
				} else if got != want {
					t.Error("the secret to type is not the picture's")
				}
			}
			if made.Token.State != "pending" || made.Token.Algorithm != x.hash || made.Token.User != x.user {
				t.Errorf("the token is %+v", made.Token)
			}

			// Three codes in a row, from half of the first one's step on.
			for time.Now().Unix()%int64(x.period) > int64(x.period)-15 {
				time.Sleep(200 * time.Millisecond)
			}
			codes := oathtoolCodes(t, q.Get("secret"), x.hash, x.digits, x.period, 3)
			if got := n.verify(x.user, codes[0]); got != sawReject {
				t.Errorf("a right code of a token that waits for two: %s", got)
			}
			path := "/v1/tokens/" + made.Token.Serial
			if _, err := n.call(n.key, http.MethodPost, path+"/activate", map[string]string{"code1": codes[1], "code2": codes[0]}, nil); err == nil {
				t.Error("two codes in the wrong order turned it on")
			}
			n.must(http.MethodPost, path+"/activate", map[string]string{"code1": codes[0], "code2": codes[1]}, &made.Token)
			if made.Token.State != "active" {
				t.Errorf("after two codes it is %s", made.Token.State)
			}
			for _, code := range codes[:2] {
				if got := n.verify(x.user, code); got != sawReject {
					t.Errorf("a code that activated it, again: %s", got)
				}
			}
			ask := func() sight { return radclient(t, n, "auth", n.secret, papAttributes(x.user, codes[2])+withMA) }
			if got := ask(); got != sawAccept {
				t.Errorf("the next code, by RADIUS: %s (%s)", got, n.lastAttempt(x.user).Reason)
			}
			if got := ask(); got != sawReject {
				t.Errorf("the same again: %s", got)
			}
			if got := n.verify(x.user, codes[2]); got != sawReject || n.lastAttempt(x.user).Reason != "replay" {
				t.Errorf("the same by HTTP: %s (%s)", got, n.lastAttempt(x.user).Reason)
			}
			wantSeedGone(t, n, &made)
		})
	}
	n.wantIntactAudit()
}

// TestANewTokenIsShownOnATerminal reads the terminal as the app's camera does.
func TestANewTokenIsShownOnATerminal(t *testing.T) {
	n := startNode(t, nodeOptions{plain: true})
	n.must(http.MethodPost, "/v1/users", map[string]string{"name": "alice"}, nil)
	out := n.onTerminal("", "token", "new", "alice", "--issuer", "Example Ltd")
	var drawn, typed string
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "\x1b[30;107m") {
			drawn += line + "\n"
		}
		if rest, found := strings.CutPrefix(line, "To type instead: "); found {
			typed = strings.ReplaceAll(rest, " ", "")
		}
	}
	uri, err := url.Parse(readDrawn(t, drawn))
	if err != nil || uri.Query().Get("issuer") != "Example Ltd" || uri.Query().Get("secret") == "" {
		t.Fatalf("what the terminal draws is no key URI of Example Ltd: %v", err)
	}
	if typed != uri.Query().Get("secret") {
		t.Error("what is to be typed is not what is drawn")
	}
	if strings.Contains(out, "otpauth") {
		t.Error("the key URI is printed, too")
	}
}

// onTerminal runs a command on a terminal of its own against the node.
func (n *node) onTerminal(typed string, args ...string) string {
	n.t.Helper()
	key := filepath.Join(n.t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(n.key), 0o600); err != nil {
		n.t.Fatal(err)
	}
	return runOnTerminal(n.t, "http://"+n.http, key, typed, args...)
}

// readPicture reads the QR code of a PNG in a data URI by zbarimg.
func readPicture(t *testing.T, qr string) string {
	t.Helper()
	text, found := strings.CutPrefix(qr, "data:image/png;base64,")
	picture, err := base64.StdEncoding.DecodeString(text)
	if !found || err != nil {
		t.Fatalf("the QR code is no PNG in a data URI: %v", err)
	}
	file := filepath.Join(t.TempDir(), "qr.png")
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("zbarimg", "--quiet", "--raw", file).Output()
	if err != nil {
		t.Fatalf("zbarimg (package zbar-tools): %v", err)
	}
	return strings.TrimSpace(string(out))
}

// oathtoolCodes are n codes in a row from now on, by oathtool.
func oathtoolCodes(t *testing.T, secret, hash string, digits, period, n int) []string {
	t.Helper()
	out, err := exec.Command("oathtool", "--base32", "--totp="+hash, "--digits="+fmt.Sprint(digits),
		fmt.Sprintf("--time-step-size=%ds", period), "--window="+fmt.Sprint(n-1), secret).CombinedOutput()
	codes := strings.Fields(string(out))
	if err != nil || len(codes) != n {
		t.Fatalf("oathtool: %v, %d codes", err, len(codes))
	}
	return codes
}

// wantSeedGone asks the server everything that can be asked by GET, and looks into
// all its files: nothing of the seed may be there. That what is looked for can be
// found is seen in the answer that made the token.
func wantSeedGone(t *testing.T, n *node, made *madeToken) {
	t.Helper()
	seed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(made.Secret)
	if err != nil || len(seed) < 20 {
		t.Fatalf("the secret is not base32 of 20 bytes or more: %v", err)
	}
	s := newScanner()
	s.addSeed("the seed", seed)
	s.add("known user", []byte(made.Token.User))
	in := func(text []byte) (found int) {
		s.look(text, func(what string, _ int) {
			if what != "known user" {
				found++
			}
		})
		return found
	}
	if in([]byte(made.URI)) == 0 {
		t.Fatal("the seed is not found where it is")
	}

	asked, answered := 0, 0
	_, contract := n.get("/openapi.yaml")
	path := ""
	for line := range strings.Lines(string(contract)) {
		if p, found := strings.CutPrefix(strings.TrimRight(line, "\n"), "  /v1/"); found && strings.HasSuffix(p, ":") {
			path = "/v1/" + strings.TrimSuffix(p, ":")
		}
		if line != "    get:\n" || path == "" || path == "/v1/radius/watch" { // which does not end
			continue
		}
		filled := strings.NewReplacer("{name}", made.Token.User, "{user}", made.Token.User, "{serial}", made.Token.Serial, "{realm}", "default", "{id}", "1").Replace(path)
		for _, query := range []string{"", "?format=csv", "?format=svg", "?format=text", "?user=" + made.Token.User} {
			asked++
			status, body := n.read(filled + query)
			if status == http.StatusOK {
				answered++
			}
			if in(body) > 0 {
				t.Errorf("GET %s%s answers the seed", filled, query)
			}
		}
	}
	if asked < 80 || answered < 20 {
		t.Errorf("%d GETs, %d of them answered: too few to prove anything", asked, answered)
	}
	files := s.files(t, filepath.Dir(n.dir))
	if len(files["known user"]) == 0 {
		t.Error("the scan of the files did not find the user, who is there: it proves nothing")
	}
	delete(files, "known user")
	if len(files) > 0 {
		t.Errorf("the seed is on disk:\n%s", describe(files))
	}
	memory, scanned := s.memory(t, n.pid())
	delete(memory, "known user")
	if len(memory) > 0 {
		t.Errorf("the seed is in the server's memory (%d MB scanned):\n%s", scanned>>20, describe(memory))
	}
}

// read asks as the administrator, and answers whatever comes.
func (n *node) read(path string) (status int, body []byte) {
	n.t.Helper()
	r, err := http.NewRequest(http.MethodGet, "http://"+n.http+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+n.key)
	a, err := n.web.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer a.Body.Close()
	if body, err = io.ReadAll(a.Body); err != nil {
		n.t.Fatalf("GET %s: %v", path, err)
	}
	return a.StatusCode, body
}
