package api

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"watchword/seeds"
	"watchword/tokens"
)

// serve serves a server on a free port of this machine, until the test ends.
func serve(t testing.TB, s *Server) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr().String()
}

// elsewhere is a listener that says it is reachable from elsewhere.
type elsewhere struct {
	net.Listener
	ip string
}

func (l elsewhere) Addr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(l.ip), Port: 80} }

func TestPlainHTTPIsForThisMachineOnly(t *testing.T) {
	for ip, local := range map[string]bool{"127.0.0.1": true, "::1": true, "127.1.2.3": true, "0.0.0.0": false, "::": false, "192.0.2.1": false, "2001:db8::1": false} {
		for _, allow := range []bool{false, true} {
			inner, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			s := newServer(t, &scripted{}, func(c *Config) { c.AllowPlaintext = allow })
			done := make(chan error, 1)
			go func() { done <- s.Serve(ctx, elsewhere{inner, ip}) }()
			if local || allow {
				answer, err := http.Get("http://" + inner.Addr().String() + "/healthz")
				if err != nil {
					t.Errorf("%s, allowed %v: %v", ip, allow, err)
				} else {
					answer.Body.Close()
				}
				cancel()
				if err := <-done; err != nil {
					t.Errorf("%s, allowed %v: %v", ip, allow, err)
				}
				continue
			}
			if err := <-done; err == nil || !strings.Contains(err.Error(), "http.allow_plaintext") {
				t.Errorf("%s: %v", ip, err)
			}
			if conn, err := net.Dial("tcp", inner.Addr().String()); err == nil {
				conn.Close()
				t.Errorf("%s: the listener is still open", ip)
			}
			cancel()
		}
	}
}

func TestServeAnswersWhatItTookOnBeforeItEnds(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	core := &scripted{verifying: func(ctx context.Context, a tokens.Attempt) (tokens.Result, error) {
		close(entered)
		<-release
		return tokens.Result{Accept: true, Serial: "A1"}, ctx.Err()
	}}
	s := newServer(t, core)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	answered := make(chan string, 1)
	go func() {
		r, _ := http.NewRequest("POST", "http://"+l.Addr().String()+"/v1/verify", strings.NewReader(`{"user":"alice","code":"1"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+testKey)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			answered <- err.Error()
			return
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		answered <- string(body)
	}()
	<-entered
	cancel()
	for {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			break // no new work
		}
		conn.Close()
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-served:
		t.Fatalf("Serve ended with a request under way: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if got := <-answered; got != `{"result":"accept","serial":"A1"}` {
		t.Errorf("the request under way was answered %s", got)
	}
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestDrainHasAnEnd(t *testing.T) {
	entered := make(chan struct{})
	core := &scripted{importing: func(ctx context.Context, _ seeds.Options, _ io.Reader) (*seeds.Report, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	s := newServer(t, core, func(c *Config) { c.Drain = 100 * time.Millisecond })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	dial(t, l.Addr().String(), importHead(1)+"x")
	<-entered
	cancel()
	select {
	case err := <-served:
		if err == nil || !strings.Contains(err.Error(), "1 requests were broken off") {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("Serve does not end")
	}
}

func TestCoreThatHangsIsGivenUp(t *testing.T) {
	core := &scripted{verifying: func(ctx context.Context, _ tokens.Attempt) (tokens.Result, error) {
		<-ctx.Done()
		return tokens.Result{}, fmt.Errorf("waiting for the HSM: %w", ctx.Err())
	}}
	s := newServer(t, core, func(c *Config) { c.Timeout = 50 * time.Millisecond })
	if w := do(s.Handler(), "POST", "/v1/verify", `{"user":"alice","code":"1"}`); w.Code != 503 || strings.Contains(w.Body.String(), "accept") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAnswersCarrySecurityHeaders(t *testing.T) {
	h := newServer(t, &scripted{err: tokens.ErrForbidden}).Handler()
	for path, stored := range map[string]bool{"/v1/users": false, "/v1/nothing": false, "/healthz": true, "/openapi.yaml": true} {
		w := do(h, "GET", path, "", "Origin", "https://evil.example")
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Access-Control-Allow-Origin": "",
			"Cache-Control": map[bool]string{true: "", false: "no-store"}[stored],
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%s: %s %q, want %q", path, name, got, want)
			}
		}
	}
}

func TestSourceIsTheConnectionsAddress(t *testing.T) {
	core := &scripted{}
	addr := serve(t, newServer(t, core))
	r, err := http.NewRequest("GET", "http://"+addr+"/v1/users", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+testKey)
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-Ip"} {
		r.Header.Set(name, "203.0.113.7")
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if core.principal.Source != "127.0.0.1" {
		t.Errorf("source %q", core.principal.Source)
	}
	for remote, want := range map[string]string{"192.0.2.1:7": "192.0.2.1", "[2001:db8::1]:7": "2001:db8::1", "[::ffff:192.0.2.1]:7": "192.0.2.1", "@": "@"} {
		if got := source(&http.Request{RemoteAddr: remote}); got != want {
			t.Errorf("%s: %s", remote, got)
		}
	}
}

func TestReadinessSaysWhatIsWrong(t *testing.T) {
	var problems []tokens.Problem
	h := newServer(t, &scripted{}, func(c *Config) { c.Ready = func() []tokens.Problem { return problems } }).Handler()
	if w := do(h, "GET", "/readyz", "", "Authorization", ""); w.Code != 200 || w.Body.String() != `{"problems":[],"ready":true}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	problems = []tokens.Problem{{Part: "hsm", Says: "CKR_DEVICE_ERROR"}}
	w := do(h, "GET", "/readyz", "", "Authorization", "")
	if w.Code != 503 || w.Body.String() != `{"problems":[{"part":"hsm","says":"CKR_DEVICE_ERROR"}],"ready":false}` || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := do(h, "GET", "/healthz", "", "Authorization", ""); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestMetricsCountRoutesAndStatus(t *testing.T) {
	reg := prometheus.NewRegistry()
	h := newServer(t, &scripted{}, func(c *Config) { c.Metrics = reg }).Handler()
	do(h, "POST", "/v1/verify", `{"user":"alice","code":"755224"}`)
	do(h, "POST", "/v1/verify", `{"user":"alice"}`)
	do(h, "GET", "/v1/users/alice", "")
	do(h, "GET", "/v1/users/bob", "")
	do(h, "GET", "/nowhere/1", "")
	do(h, "BREW", "/v1/users", "")
	text := do(h, "GET", "/metrics", "", "Authorization", "").Body.String()
	for _, want := range []string{
		`watchword_http_requests_total{method="POST",route="/v1/verify",status="200"} 1`,
		`watchword_http_requests_total{method="POST",route="/v1/verify",status="400"} 1`,
		`watchword_http_requests_total{method="GET",route="/v1/users/:name",status="200"} 2`,
		`watchword_http_requests_total{method="other",route="other",status="404"} 1`,
		`watchword_http_requests_total{method="other",route="other",status="405"} 1`,
		`watchword_http_request_seconds_count{method="POST",route="/v1/verify"} 2`,
		`watchword_http_requests_open 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if _, err := New(Config{Core: &scripted{}, Importer: &scripted{}, Metrics: reg}); err == nil {
		t.Error("two servers count in the same metrics")
	}
}

func TestVerifyAnswersAcceptOrReject(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	if w := do(h, "POST", "/v1/verify", `{"user":"alice","code":"755224"}`); w.Code != 200 || w.Body.String() != `{"result":"accept","serial":"24680017"}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if a := core.arg.(tokens.Attempt); !reflect.DeepEqual(a, tokens.Attempt{User: "alice", Code: "755224", Transport: "http"}) {
		t.Errorf("%+v", a)
	}
	// A reject tells nothing, not even what the core says by mistake.
	if w := do(h, "POST", "/v1/verify", `{"user":"alice","code":"000000"}`); w.Code != 200 || w.Body.String() != `{"result":"reject"}` {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	// An error is never an accept.
	core.verifying = func(context.Context, tokens.Attempt) (tokens.Result, error) {
		return tokens.Result{Accept: true, Serial: "A1"}, tokens.ErrUnavailable
	}
	if w := do(h, "POST", "/v1/verify", `{"user":"alice","code":"755224"}`); w.Code != 503 || strings.Contains(w.Body.String(), "accept") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestAnswersHoldNoSecret(t *testing.T) {
	h := newServer(t, &scripted{}).Handler()
	for _, c := range calls {
		if c.body != "" {
			continue
		}
		w := do(h, c.method, c.path, "")
		for _, secret := range []string{"sealed-secret", "wrapped-seed", "c2VjcmV0"} {
			if strings.Contains(w.Body.String(), secret) {
				t.Errorf("%s %s tells %s", c.method, c.path, secret)
			}
		}
	}
}

func TestPrefixesOfClients(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "192.0.2.0/24": "192.0.2.0/24", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8::1": "2001:db8::1/128",
		"2001:db8::/32": "2001:db8::/32", "0.0.0.0/0": "0.0.0.0/0",
	} {
		if got, err := parsePrefix(in); err != nil || got != netip.MustParsePrefix(want) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"192.0.2.1/24", "192.0.2.256", "vpn.example", "fe80::1%eth0", "192.0.2.1/33", " 192.0.2.1"} {
		if got, err := parsePrefix(in); err == nil {
			t.Errorf("%s: %v", in, got)
		}
	}
}

func TestClientsAndKeysReachTheCore(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core).Handler()
	do(h, "POST", "/v1/clients", `{"name":"vpn","prefix":"192.0.2.10","secret":"geheim"}`)
	if c := core.arg.(tokens.NewClient); c.Name != "vpn" || !c.RequireMA || string(c.Secret) != "geheim" {
		t.Errorf("%+v", c)
	}
	do(h, "PUT", "/v1/clients/vpn", `{"prefix":"192.0.2.0/28","secret":"geheim","require_message_authenticator":false,"name_rule":"realm"}`)
	if c := core.arg.(tokens.NewClient); c.Name != "vpn" || c.RequireMA || c.NameRule != tokens.NameRealm || c.Prefix.Bits() != 28 {
		t.Errorf("%+v", c)
	}
	w := do(h, "POST", "/v1/keys", `{"name":"desk","scope":"helpdesk","expires":"2027-01-01T00:00:00Z"}`)
	if k := core.arg.(tokens.NewKey); k.Name != "desk" || k.Scope != "helpdesk" || !k.Expires.Equal(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%+v", k)
	}
	if !strings.Contains(w.Body.String(), `"key":"ww_k3_shown-once"`) || w.Header().Get("Location") != "/v1/keys/k3" {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	if w := do(h, "GET", "/v1/keys", ""); strings.Contains(w.Body.String(), `"key"`) {
		t.Errorf("keys are shown again: %s", w.Body)
	}
	for _, act := range []string{"unassign", "suspend", "resume", "lost", "revoke"} {
		do(h, "POST", "/v1/tokens/A1/"+act, `{"reason":"it is so"}`)
		if core.arg != act+" A1 it is so" {
			t.Errorf("%s: %v", act, core.arg)
		}
	}
	do(h, "POST", "/v1/tokens/A1/resync", `{"code1":"1","code2":"2"}`)
	if core.arg != "resync A1 1 2" {
		t.Errorf("%v", core.arg)
	}
	do(h, "PUT", "/v1/users/alice/pin", `{"pin":"4711"}`)
	if core.arg != "4711" {
		t.Errorf("%v", core.arg)
	}
	do(h, "DELETE", "/v1/users/alice/pin", "")
	if core.arg != "" {
		t.Errorf("%v", core.arg)
	}
	do(h, "POST", "/v1/users/alice/disable", "")
	if core.arg != tokens.UserDisabled {
		t.Errorf("%v", core.arg)
	}
	if w := do(h, "GET", "/v1/tokens?state=stolen", ""); w.Code != 400 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
