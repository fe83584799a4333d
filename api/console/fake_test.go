package console

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/policy"
	"watchword/webauthn"
)

const (
	code = "wi_0011223344556677_c2VjcmV0"
	seed = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
	uri  = "otpauth://totp/Example%20%26%20Co:alice?secret=" + seed + "&issuer=Example%20%26%20Co&algorithm=SHA1&digits=6&period=30"
)

var expires = time.Date(2025, 11, 4, 9, 12, 0, 0, time.UTC)

// core is the core and webauthn's service as a test wants them. It remembers what
// it was asked.
type core struct {
	mu    sync.Mutex
	asked []string
	as    tokens.Principal
	uri   []byte // what EnrolSoft answered last
	arg   any

	invite tokens.Invitation
	err    error // of everything but Invited
	reject bool
}

func newCore() *core {
	return &core{invite: tokens.Invitation{
		ID: "0011223344556677", Realm: tokens.DefaultRealm, UserID: 1, User: "alice", Kinds: []string{"fido", "totp"}, Expires: expires,
	}}
}

func (c *core) ask(what string, p tokens.Principal, arg any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked, c.as, c.arg = append(c.asked, what), p, arg
	return c.err
}

func (c *core) Invited(_ context.Context, given string) (tokens.Principal, tokens.Invitation, error) {
	if given != code {
		return tokens.Principal{}, tokens.Invitation{}, tokens.ErrUnknownKey
	}
	return tokens.Principal{Kind: tokens.KindInvitation, ID: c.invite.ID, User: c.invite.User, Realm: c.invite.Realm, Scope: policy.ScopeInvite}, c.invite, nil
}

func (c *core) EnrolSoft(_ context.Context, p tokens.Principal, n tokens.NewSoft) (tokens.Token, []byte, error) {
	c.uri = []byte(uri)
	return tokens.Token{Serial: "S-1", Type: tokens.TOTP}, c.uri, c.ask("enrol", p, n)
}

func (c *core) Activate(_ context.Context, p tokens.Principal, realm, serial, first, second string) (tokens.Token, error) {
	return tokens.Token{Serial: serial, Type: tokens.TOTP}, c.ask("activate", p, realm+" "+serial+" "+first+" "+second)
}

func (c *core) Parties() []webauthn.Party {
	return []webauthn.Party{
		{ID: "example.com", Name: "Example & Co", Origins: []string{"https://example.com", "https://login.example.com:8443"}},
		{ID: "localhost", Name: "Here", Origins: []string{"http://localhost:8080"}},
	}
}

var begun = webauthn.Ceremony{Options: json.RawMessage(`{"publicKey":{"challenge":"AAAA"}}`), Session: "session", Expires: expires}

func (c *core) BeginRegistration(_ context.Context, p tokens.Principal, r webauthn.RegistrationRequest) (webauthn.Ceremony, error) {
	return begun, c.ask("begin registration", p, r)
}

func (c *core) FinishRegistration(_ context.Context, p tokens.Principal, session string, response []byte) (tokens.Token, error) {
	return tokens.Token{Serial: "F-1", Type: tokens.FIDO}, c.ask("finish registration", p, session+" "+string(response))
}

func (c *core) BeginLogin(_ context.Context, p tokens.Principal, r webauthn.LoginRequest) (webauthn.Ceremony, error) {
	return begun, c.ask("begin login", p, r)
}

func (c *core) FinishLogin(_ context.Context, p tokens.Principal, session string, response []byte, transport string) (tokens.KeyResult, error) {
	if err := c.ask("finish login", p, session+" "+string(response)+" "+transport); err != nil || c.reject {
		return tokens.KeyResult{}, err
	}
	t := tokens.Token{Serial: "F-1", Type: tokens.FIDO, Model: "Example Key 5", Credential: &tokens.Credential{
		AAGUID: [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8}, Attestation: "basic", Format: "packed",
	}}
	return tokens.KeyResult{Result: tokens.Result{Accept: true, Serial: "F-1"}, Token: t, User: "alice", Realm: "default", At: expires, UserVerified: true}, nil
}

// site is a console under test, with what it wrote to its log.
type site struct {
	*Console
	core *core
	log  *bytes.Buffer
}

func newSite(t testing.TB, change ...func(*Config)) *site {
	t.Helper()
	s := &site{core: newCore(), log: &bytes.Buffer{}}
	cfg := Config{Core: s.core, Keys: s.core, Log: slog.New(slog.NewTextHandler(s.log, nil))}
	for _, f := range change {
		f(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Console = c
	return s
}

// send makes a request as a browser does from a page of ours at
// https://example.com: a form, or JSON for what is under /console/.
func (s *site) send(method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "https://example.com"+path, strings.NewReader(body))
	switch {
	case strings.HasPrefix(path, "/console/"):
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", "https://example.com")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	case method == "POST":
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", "null") // as browsers say under no-referrer
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		} else if header[i+1] == "" {
			r.Header.Del(header[i])
		} else {
			r.Header.Set(header[i], header[i+1])
		}
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

var _ http.Handler = (*Console)(nil)
