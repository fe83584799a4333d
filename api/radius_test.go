package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"watchword/tokens"
)

// follow opens a watch on a server of its own, and answers its lines.
func follow(t *testing.T, core *scripted, r *scriptedRADIUS) (lines *bufio.Scanner, stop context.CancelFunc) {
	t.Helper()
	r.sights, r.closed = make(chan RadiusSight), make(chan struct{})
	s := newServer(t, core, func(c *Config) { c.RADIUS, c.Timeout = r, 50*time.Millisecond })
	h := httptest.NewServer(s.Handler())
	t.Cleanup(h.Close)
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(stop)
	q, err := http.NewRequestWithContext(ctx, "GET", h.URL+"/v1/radius/watch?client=vpn&user=alice&realm=corp", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+testKey)
	answer, err := http.DefaultClient.Do(q) // which comes back as soon as the server watches
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != 200 || answer.Header.Get("Content-Type") != jsonLines || answer.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v", answer.StatusCode, answer.Header)
	}
	return bufio.NewScanner(answer.Body), stop
}

func ended(t *testing.T, r *scriptedRADIUS) {
	t.Helper()
	select {
	case <-r.closed:
	case <-time.After(5 * time.Second):
		t.Fatal("nobody reads, and it is still watched")
	}
}

func TestWatchingShowsEachRequestAtOnceUntilTheReaderGoes(t *testing.T) {
	core, r := &scripted{}, &scriptedRADIUS{}
	lines, stop := follow(t, core, r)
	if w := core.arg.(tokens.Watching); w != (tokens.Watching{Realm: "corp", Client: "vpn", User: "alice"}) {
		t.Errorf("%+v", w)
	}
	for i := range 3 {
		r.sights <- RadiusSight{Time: testTime, Address: fmt.Sprint("192.0.2.", i), Outcome: "dropped", Cause: "malformed", Missed: int64(i)}
		for lines.Scan() && lines.Text() == "" {
		}
		var v RadiusSight
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil || v.Address != fmt.Sprint("192.0.2.", i) || v.Missed != int64(i) {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
	}
	if !lines.Scan() || lines.Text() != "" { // that it is still there
		t.Errorf("%q", lines.Text())
	}
	stop()
	ended(t, r)
}

func TestWatchingEndsWithTheRightToIt(t *testing.T) {
	for _, busy := range []bool{true, false} {
		core, r := &scripted{}, &scriptedRADIUS{}
		var gone atomic.Bool
		core.watching = func(tokens.Watching) error {
			if gone.Load() {
				return fmt.Errorf("%w: it was deleted", tokens.ErrUnknownKey)
			}
			return fmt.Errorf("%w: the database is away for a moment", tokens.ErrUnavailable)
		}
		lines, _ := follow(t, core, r)
		if busy {
			go func() {
				for {
					select {
					case r.sights <- RadiusSight{Outcome: "accept"}:
					case <-r.closed:
						return
					}
				}
			}()
		}
		for range 5 {
			if !lines.Scan() {
				t.Fatal("it ended while the right stands")
			}
		}
		gone.Store(true)
		for lines.Scan() {
		}
		if err := lines.Err(); err != nil {
			t.Errorf("it broke off: %v", err)
		}
		ended(t, r)
	}
}

func TestWatchingEndsWithTheServer(t *testing.T) {
	r := &scriptedRADIUS{}
	lines, _ := follow(t, &scripted{}, r)
	close(r.sights)
	for lines.Scan() {
	}
	if err := lines.Err(); err != nil {
		t.Errorf("it broke off: %v", err)
	}
	ended(t, r)
}

func TestWithoutRADIUSNothingIsWatchedOrTried(t *testing.T) {
	core := &scripted{}
	h := newServer(t, core, func(c *Config) { c.RADIUS = nil }).Handler()
	for _, w := range []*httptest.ResponseRecorder{do(h, "GET", "/v1/radius/watch", ""), do(h, "POST", "/v1/clients/vpn/test", "{}")} {
		if w.Code != 409 || !strings.Contains(w.Body.String(), "RADIUS is switched off") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	// Who may not is told that, and nothing of this server.
	core.err = tokens.ErrForbidden
	for _, w := range []*httptest.ResponseRecorder{do(h, "GET", "/v1/radius/watch", ""), do(h, "POST", "/v1/clients/vpn/test", "{}")} {
		if w.Code != 403 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

func TestATrialIsAuthorisedBeforeItIsMade(t *testing.T) {
	core, r := &scripted{err: tokens.ErrForbidden}, &scriptedRADIUS{answer: ClientTested{Outcome: "dropped", Attributes: []RadiusAttribute{}}}
	h := newServer(t, core, func(c *Config) { c.RADIUS = r }).Handler()
	if w := do(h, "POST", "/v1/clients/vpn/test", `{"user":"alice","code":"755224"}`); w.Code != 403 || r.client != "" {
		t.Errorf("%d %s, tried %q", w.Code, w.Body, r.client)
	}
	core.err = nil
	w := do(h, "POST", "/v1/clients/vpn/test", `{"user":"alice","code":"755224","method":"chap"}`)
	if w.Code != 200 || r.client != "vpn" || value(r.tried.Code) != "755224" || w.Header().Get("Connection") != "close" {
		t.Errorf("%d %v %s, tried %q %+v", w.Code, w.Header(), w.Body, r.client, r.tried)
	}
	if got := core.arg.(tokens.ClientTest); got != (tokens.ClientTest{Client: "vpn", User: "alice", Method: "chap"}) {
		t.Errorf("%+v", got)
	}
	for _, bad := range []string{`{"method":"eap"}`, `{"state":"?"}`, `{"password":"x"}`, ``} {
		if w := do(h, "POST", "/v1/clients/vpn/test", bad); w.Code != 400 {
			t.Errorf("%s: %d %s", bad, w.Code, w.Body)
		}
	}
}
