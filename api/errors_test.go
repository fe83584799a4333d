package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"watchword/tokens"
)

func problemOf(t *testing.T, w *httptest.ResponseRecorder) Problem {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("Content-Type %q of %s", got, w.Body)
	}
	var p Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if p.Status != w.Code || p.Title == "" || !strings.HasPrefix(p.Type, "urn:watchword:problem:") || !strings.HasPrefix(p.Instance, "urn:watchword:request:") {
		t.Fatalf("status %d, problem %+v", w.Code, p)
	}
	return p
}

func detail(p Problem) string { return value(p.Detail) }

func TestEachKindOfErrorHasItsStatus(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		kind   string
		detail string
	}{
		{fmt.Errorf("%w: a serial is empty", tokens.ErrInvalid), 400, "invalid", "a serial is empty"},
		{tokens.ErrUnknownKey, 401, "unknown-key", "send a valid API key as 'Authorization: Bearer KEY', or sign in again"},
		{fmt.Errorf("%w: token.revoke", tokens.ErrMFARequired), 403, "mfa-required", "this takes a token that was proved in the last five minutes: renew the session with a fresh code (POST /v1/session/renew, or sign in with the FIDO key again), and ask once more"},
		{fmt.Errorf("%w: the scope does not allow it", tokens.ErrForbidden), 403, "forbidden", "the scope does not allow it"},
		{fmt.Errorf("%w: no token X", tokens.ErrNotFound), 404, "not-found", "no token X"},
		{fmt.Errorf("%w: alice", tokens.ErrExists), 409, "exists", "alice"},
		{fmt.Errorf("%w: it is revoked", tokens.ErrState), 409, "state", "it is revoked"},
		{fmt.Errorf("%w: binding of row 17", tokens.ErrTampered), 409, "tampered", "the database row was altered outside Watchword and is refused; see the audit"},
		{tokens.ErrWrongCode, 422, "wrong-code", "the codes do not match"},
		{fmt.Errorf("%w: dial db.internal:5432", tokens.ErrUnavailable), 503, "unavailable", "the HSM or the database cannot answer now; try again"},
		{fmt.Errorf("%w: 8192 wait", tokens.ErrOverloaded), 503, "overloaded", "there is too much to do at once; try again"},
		{fmt.Errorf("query: %w", context.DeadlineExceeded), 503, "unavailable", "no answer in time; try again"},
		{errors.New("disk of db.internal is full"), 500, "internal", ""},
		{errors.Join(tokens.ErrConflict), 500, "internal", ""},
	} {
		t.Run(tt.kind, func(t *testing.T) {
			var logged bytes.Buffer
			s := newServer(t, &scripted{err: tt.err}, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
			w := do(s.Handler(), "GET", "/v1/tokens/X", "")
			p := problemOf(t, w)
			if w.Code != tt.status || p.Type != "urn:watchword:problem:"+tt.kind || detail(p) != tt.detail {
				t.Errorf("%v: %d %+v %q", tt.err, w.Code, p, detail(p))
			}
			if (w.Header().Get("Retry-After") != "") != (tt.status == 503) {
				t.Errorf("%v: Retry-After %q", tt.err, w.Header().Get("Retry-After"))
			}
			if strings.Contains(w.Body.String(), "db.internal") {
				t.Errorf("the client learns of our insides: %s", w.Body)
			}
			if tt.status >= 500 && (!strings.Contains(logged.String(), p.Instance) || !strings.Contains(logged.String(), "error=")) {
				t.Errorf("the log does not explain %s: %s", p.Instance, &logged)
			}
		})
	}
}

func TestPanicIsAnInternalErrorAndTellsNothing(t *testing.T) {
	var logged bytes.Buffer
	core := &scripted{verifying: func(context.Context, tokens.Attempt) (tokens.Result, error) { panic("the PIN is 4711") }}
	s := newServer(t, core, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
	w := do(s.Handler(), "POST", "/v1/verify", `{"user":"alice","code":"4711755224"}`)
	if p := problemOf(t, w); w.Code != 500 || p.Detail != nil {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if strings.Contains(w.Body.String()+logged.String(), "4711") {
		t.Errorf("what was thrown is told: %s %s", w.Body, &logged)
	}
	if !strings.Contains(logged.String(), "core_test.go") && !strings.Contains(logged.String(), "errors_test.go") {
		t.Errorf("the log does not say where: %s", &logged)
	}
}

func TestOverloadDoesNotFloodTheLog(t *testing.T) {
	var logged bytes.Buffer
	s := newServer(t, &scripted{err: tokens.ErrOverloaded}, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
	for range 100 {
		if w := do(s.Handler(), "POST", "/v1/verify", `{"user":"alice","code":"1"}`); w.Code != 503 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	if n := strings.Count(logged.String(), "\n"); n < 1 || n > 3 {
		t.Errorf("%d lines of log for 100 failures of a kind", n)
	}
}

func TestKeyIsNeeded(t *testing.T) {
	h := newServer(t, &scripted{}).Handler()
	for _, tt := range []struct {
		header, challenge string
	}{
		{"", `Bearer realm="watchword"`},
		{"Bearer", `Bearer realm="watchword", error="invalid_token"`},
		{"Bearer wrong", `Bearer realm="watchword", error="invalid_token"`},
		{"Basic " + testKey, `Bearer realm="watchword", error="invalid_token"`},
		{testKey, `Bearer realm="watchword", error="invalid_token"`},
	} {
		for path, method := range map[string]string{"/v1/users": "GET", "/v1/verify": "POST", "/v1/audit/verify": "GET", "/v1/imports": "POST"} {
			w := do(h, method, path, "", "Authorization", tt.header)
			if p := problemOf(t, w); w.Code != 401 || w.Header().Get("WWW-Authenticate") != tt.challenge || strings.Contains(detail(p), "wrong") {
				t.Errorf("%q: %d %q %s", tt.header, w.Code, w.Header().Get("WWW-Authenticate"), w.Body)
			}
		}
	}
	for _, header := range []string{"Bearer " + testKey, "bearer " + testKey, "BEARER  " + testKey} {
		if w := do(h, "GET", "/v1/users", "", "Authorization", header); w.Code != 200 {
			t.Errorf("%q: %d %s", header, w.Code, w.Body)
		}
	}
}

func TestTwoAuthorizationHeadersAreRefused(t *testing.T) {
	r := httptest.NewRequest("GET", "/v1/users", nil)
	r.Header.Add("Authorization", "Bearer "+testKey)
	r.Header.Add("Authorization", "Bearer other")
	w := httptest.NewRecorder()
	newServer(t, &scripted{}).Handler().ServeHTTP(w, r)
	if w.Code != 401 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Every route under /v1 asks for a key, whatever else changes.
func TestNoRouteIsOpenByAccident(t *testing.T) {
	s := newServer(t, &scripted{})
	open := map[string]bool{
		"/openapi.yaml": true, "/healthz": true, "/readyz": true, "/metrics": true, "/.well-known/jwks.json": true, "/.well-known/webauthn": true,
	}
	signing := map[string]bool{"/v1/session": true, "/v1/webauthn/login/begin": true, "/v1/webauthn/login/finish": true} // by people, who have none yet
	pages := map[string]bool{"/signin": true, "/enrol/*": true, "/console/*": true, "/assets/*": true}                   // for people, who have none
	for _, r := range s.echo.Routes() {
		if pages[r.Path] {
			continue
		}
		w := do(s.Handler(), r.Method, strings.NewReplacer(":name", "x", ":serial", "x", ":id", "x").Replace(r.Path), "", "Authorization", "")
		want := map[bool]int{true: 200, false: 401}[open[r.Path]]
		if r.Method == "POST" && signing[r.Path] {
			want = 400 // there is no body
		}
		if w.Code != want {
			t.Errorf("%s %s without a key: %d, want %d", r.Method, r.Path, w.Code, want)
		}
	}
}

func TestUnknownResourcesAndMethods(t *testing.T) {
	h := newServer(t, &scripted{}).Handler()
	if w := do(h, "GET", "/v1/nothing", ""); w.Code != 404 || problemOf(t, w).Type != "urn:watchword:problem:not-found" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := do(h, "GET", "/v1/verify", ""); w.Code != 405 || !strings.Contains(w.Header().Get("Allow"), http.MethodPost) {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
	if w := do(h, "GET", "/v1/users/", ""); w.Code == 200 {
		t.Errorf("a user without a name: %d %s", w.Code, w.Body)
	}
}
