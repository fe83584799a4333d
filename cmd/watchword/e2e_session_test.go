package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// appoint gives the token's user a PIN and a role for all realms.
func (n *node) appoint(k *hardToken, role string) {
	n.t.Helper()
	n.must(http.MethodPut, "/v1/users/"+k.user+"/pin", map[string]string{"pin": "4711"}, nil)
	n.must(http.MethodPut, "/v1/roles/"+role+"/users/"+k.user+"?in=*", nil, nil)
}

// signIn answers a session, which is empty where the server rejects.
func (n *node) signIn(user, code string) string {
	n.t.Helper()
	var got struct{ Result, Session string }
	if _, err := n.call("", http.MethodPost, "/v1/session", map[string]string{"user": user, "code": code}, &got); err != nil {
		n.t.Fatal(err)
	}
	return got.Session
}

// wantStatus says what a call with a session comes to.
func (n *node) wantStatus(session, method, path string, in any, want int) {
	n.t.Helper()
	if got, err := n.call(session, method, path, in, nil); got != want {
		n.t.Errorf("%s %s: %d (%v), want %d", method, path, got, err, want)
	}
}

func TestASessionEndsOnEveryNodeAtOnce(t *testing.T) {
	a, b := twoNodes(t, false)
	list := newTokens("S", 2, true)
	alice, bob := list[0], list[1]
	a.equip(list...)
	a.appoint(alice, "superuser")
	code := "4711" + alice.press()
	session := a.signIn(alice.user, code)
	if session == "" {
		t.Fatal("alice cannot sign in")
	}
	if b.signIn(alice.user, code) != "" {
		t.Error("a code opened a second session on another node")
	}
	b.wantStatus(session, http.MethodGet, "/v1/session", nil, 200)
	b.wantStatus(session, http.MethodPut, "/v1/roles/helpdesk/users/"+bob.user, nil, 200)
	a.wantStatus(session, http.MethodDelete, "/v1/session", nil, 204)
	b.wantStatus(session, http.MethodGet, "/v1/session", nil, 401)
	b.wantStatus(session, http.MethodDelete, "/v1/roles/helpdesk/users/"+bob.user, nil, 401)

	for what, end := range map[string]func(){
		"a role that was taken": func() {
			a.must(http.MethodDelete, "/v1/roles/superuser/users/"+alice.user+"?in=*", nil, nil)
		},
		"a lost token": func() { a.must(http.MethodPost, "/v1/tokens/"+alice.serial+"/lost", nil, nil) },
		"a disabled user": func() {
			a.must(http.MethodPost, "/v1/users/"+alice.user+"/disable", nil, nil)
		},
	} {
		a.must(http.MethodPost, "/v1/users/"+alice.user+"/enable", nil, nil)
		a.must(http.MethodPut, "/v1/roles/superuser/users/"+alice.user+"?in=*", nil, nil)
		if _, err := a.call(a.key, http.MethodPost, "/v1/tokens/"+alice.serial+"/resume", map[string]string{"reason": "found"}, nil); err != nil {
			t.Fatal(err)
		}
		if session = b.signIn(alice.user, "4711"+alice.press()); session == "" {
			t.Fatalf("alice cannot sign in on the other node (before %s)", what)
		}
		b.wantStatus(session, http.MethodGet, "/v1/users", nil, 200)
		end()
		b.wantStatus(session, http.MethodGet, "/v1/users", nil, 401)
	}
	a.wantIntactAudit()
}

func TestInChromiumAPersonSignsInByAKeyWithoutAnAPIKey(t *testing.T) {
	n, origin := startFIDO(t, "")
	b := newChromium(t).tab()
	n.must(http.MethodPost, "/v1/users", map[string]string{"name": "alice"}, nil)
	b.open(origin + "/signin")
	trustChromium(t, b, n)
	serial := b.enrol(n, "alice", origin)
	n.must(http.MethodPut, "/v1/roles/superuser/users/alice?in=*", nil, nil)
	b.open(origin + "/signin")
	begun := b.ask("/v1/webauthn/login/begin", map[string]string{"user": "alice"})
	response := b.answer("get", begun["options"])
	finish := map[string]any{"session": begun["session"], "response": response, "sign_in": map[string]any{}}
	got := b.ask("/v1/webauthn/login/finish", finish)
	var session string
	if err := json.Unmarshal(got["session"], &session); err != nil || string(got["result"]) != `"accept"` {
		t.Fatalf("signing in: %s", got)
	}
	if again := b.ask("/v1/webauthn/login/finish", finish); string(again["result"]) != `"reject"` {
		t.Errorf("the same answer again: %s", again)
	}
	n.wantStatus(session, http.MethodPost, "/v1/keys", map[string]string{"name": "portal", "scope": "verify"}, 201)
	n.wantStatus(session, http.MethodPost, "/v1/tokens/"+serial+"/lost", nil, 200)
	n.wantStatus(session, http.MethodGet, "/v1/keys", nil, 401)
	n.wantIntactAudit()
}

// At a terminal a command that takes a fresh code asks for one, shows it, and is tried
// once more: not twice.
func TestACommandAsksForAFreshCodeOnce(t *testing.T) {
	for _, lifted := range []bool{true, false} {
		var asked, renewed atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer wsn_0011223344556677_x" {
				t.Errorf("%s shows %q", r.URL.Path, r.Header.Get("Authorization"))
			}
			switch {
			case strings.HasSuffix(r.URL.Path, "/renew"):
				renewed.Add(1)
				var in struct{ Code string }
				if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Code != "4711755224" {
					t.Errorf("renewed with %q, %v", in.Code, err)
				}
				fmt.Fprint(w, `{"result":"accept"}`)
			case asked.Add(1) == 1 || !lifted:
				w.WriteHeader(http.StatusForbidden)
				fmt.Fprint(w, `{"type":"urn:watchword:problem:mfa-required","title":"A fresh proof is needed","status":403,"instance":"x"}`)
			default:
				w.WriteHeader(http.StatusNoContent)
			}
		}))
		dir := t.TempDir()
		held, err := json.Marshal(heldSession{URL: server.URL, Session: "wsn_0011223344556677_x", User: "alice", Expires: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "watchword.session"), held, 0o600); err != nil {
			t.Fatal(err)
		}
		// script(1) gives the command a terminal.
		cmd := exec.Command("script", "-qec", program(t, false)+" role revoke bob helpdesk", "/dev/null")
		cmd.Env = append(os.Environ(), "WATCHWORD_URL="+server.URL, "WATCHWORD_API_KEY_FILE="+filepath.Join(dir, "admin.key"))
		typed, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); asked.Load() == 0 && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(500 * time.Millisecond) // until it listens
		if _, err := typed.Write([]byte("4711755224\r")); err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		server.Close()
		if (err == nil) != lifted || asked.Load() != 2 || renewed.Load() != 1 || strings.Contains(out.String(), "4711") {
			t.Errorf("lifted %v: %v, asked %d times, renewed %d times:\n%s", lifted, err, asked.Load(), renewed.Load(), out.String())
		}
	}
}
