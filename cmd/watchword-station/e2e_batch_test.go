package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"watchword/webauthn/softkey"
)

func TestBatches(t *testing.T) {
	s := newServer(t)
	for _, name := range []string{"alice", "bob", "carol", "dora"} {
		s.call("POST", "/v1/users", map[string]any{"name": name}, 201)
	}

	// The station is killed when the server has enrolled a key, and before it has heard of
	// it. Whoever goes on with the batch finds the key enrolled, and its PIN on the label.
	t.Run("killed", func(t *testing.T) {
		s := s.in(t)
		target, _ := url.Parse(s.url)
		forward := httputil.NewSingleHostReverseProxy(target)
		var d *desk
		var lost atomic.Bool
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/register/finish") && !lost.Swap(true) {
				forward.ServeHTTP(httptest.NewRecorder(), r)
				_ = d.cmd.Process.Kill()
				panic(http.ErrAbortHandler)
			}
			forward.ServeHTTP(w, r)
		}))
		defer front.Close()
		d = newDesk(s, "--user", "alice", "--user", "bob")
		d.args = append(d.args, "--labels", d.labels, "--server", front.URL)
		d.start()
		d.wait("next")
		p := d.plug(d.newKey(softkey.Options{}))
		if code := d.end(); code != -1 {
			t.Errorf("it ended with %d", code)
		}
		p.put()
		if list := d.allLabels(); len(list) != 0 {
			t.Errorf("there are labels: %d", len(list))
		}
		d.start()
		e := d.wait("resumed")
		if e.User != "alice" || e.Token.State != "active" {
			t.Errorf("resumed: %+v", e)
		}
		l := d.label(1)
		if r, err := d.signIn(p, "alice", l["pin"]); err != nil || r["result"] != "accept" || r["serial"] != l["serial"] {
			t.Errorf("alice signs in: %v, %v", r, err)
		}
		if next := d.wait("next"); next.User != "bob" || next.Number != 2 {
			t.Errorf("next: %+v", next)
		}
		d.plug(d.newKey(softkey.Options{}))
		d.wait("enrolled")
		if code := d.end(); code != exitOK {
			t.Errorf("it ended with %d: %s", code, d.stderr.String())
		}
		if len(d.allLabels()) != 2 {
			t.Errorf("%d labels", len(d.allLabels()))
		}
		if _, err := os.Stat(d.labels + ".pending"); !os.IsNotExist(err) {
			t.Errorf("a PIN waits: %v", err)
		}
		d.start() // there is nothing left to do
		if code := d.end(); code != exitOK || len(d.allLabels()) != 2 {
			t.Errorf("once more: %d", code)
		}
	})

	// A station that is killed before it told the server leaves nothing there, and
	// nothing that waits here; its key is not new any more.
	t.Run("killed before", func(t *testing.T) {
		s := s.in(t)
		before := len(s.tokens())
		d := newDesk(s, "--user", "carol")
		d.args = append(d.args, "--labels", d.labels)
		d.start()
		d.wait("next")
		touched := make(chan struct{})
		p := d.plug(d.newKey(softkey.Options{Touch: func(ctx context.Context) bool {
			select {
			case <-touched:
				return true
			default:
			}
			_ = d.cmd.Process.Kill()
			select {
			case <-touched:
			case <-ctx.Done():
			}
			return false
		}}))
		d.end()
		close(touched)
		if n := len(s.tokens()); n != before {
			t.Errorf("the server has %d tokens, had %d", n, before)
		}
		d.start()
		if e := d.wait("aside", "enrolled"); e.Event != "aside" || !strings.Contains(e.Reason, "has a PIN already") {
			t.Errorf("the same key again: %+v", e)
		}
		p.pull()
		d.start2("--reset")
		p2 := d.plug(p.Key)
		if e := d.wait("aside", "enrolled"); e.Event != "enrolled" || e.User != "carol" {
			t.Errorf("after a reset: %+v", e)
		}
		if r, err := d.signIn(p2, "carol", d.label(d.lastNumber())["pin"]); err != nil || r["result"] != "accept" {
			t.Errorf("carol signs in: %v, %v", r, err)
		}
	})

	// Keys of stock name their serial number by enterprise attestation, are assigned
	// later, and are turned on by their owner's first sign-in.
	t.Run("stock", func(t *testing.T) {
		s := s.in(t)
		d := newDesk(s, "--stock", "1", "--passkey", "--attestation", "enterprise", "--min-pin", "6", "--pin-length", "9", "--always-uv")
		d.args = append(d.args, "--labels", d.labels)
		d.start()
		d.wait("next")
		p := d.plug(d.newKey(softkey.Options{Serial: "SN-000777"}))
		e := d.wait("enrolled", "aside")
		if e.Event != "enrolled" || e.Token.Serial != "SN-000777" || e.Token.State != "imported" || e.Token.User != "" || len(e.Notes) != 0 {
			t.Fatalf("%+v", e)
		}
		if code := d.end(); code != exitOK {
			t.Errorf("it ended with %d: %s", code, d.stderr.String())
		}
		l := d.label(1)
		if len(l["pin"]) != 9 || l["serial"] != "SN-000777" || l["user"] != "" {
			t.Errorf("the label: %s, %d digits", l["serial"], len(l["pin"]))
		}
		if info := p.info(t); !strings.Contains(info, "minpinlen: 6") || !strings.Contains(info, " alwaysUv") {
			t.Errorf("the key says\n%s", info)
		}
		if r, err := d.signIn(p, "", l["pin"]); err != nil || r["result"] != "reject" {
			t.Errorf("nobody's key: %v, %v", r, err)
		}
		if given := s.call("POST", "/v1/tokens/SN-000777/assign", map[string]any{"user": "dora"}, 200); given["state"] != "pending" {
			t.Errorf("given: %v", given)
		}
		if r, err := d.signIn(p, "", l["pin"]); err != nil || r["result"] != "accept" || r["user"] != "dora" {
			t.Errorf("dora signs in: %v, %v", r, err)
		}
		if shown := s.call("GET", "/v1/tokens/SN-000777", nil, 200); shown["state"] != "active" {
			t.Errorf("it is %v", shown["state"])
		}
	})

	// A PIN that must be changed is good for nothing else.
	t.Run("forced change", func(t *testing.T) {
		s := s.in(t)
		d := newDesk(s, "--user", "dora", "--passkey", "--force-pin-change")
		d.args = append(d.args, "--labels", d.labels)
		d.start()
		d.wait("next")
		p := d.plug(d.newKey(softkey.Options{}))
		if e := d.wait("enrolled", "aside"); e.Event != "enrolled" || len(e.Notes) != 0 {
			t.Fatalf("%+v", e)
		}
		d.end()
		p.put()
		l := d.label(1)
		if l["pin_change"] != "first use" {
			t.Errorf("the label says %q", l["pin_change"])
		}
		pin := filepath.Join(t.TempDir(), "old")
		if err := os.WriteFile(pin, []byte(l["pin"]+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.station("", "credentials", "list", "--device", p.port.Path(), "--pin-file", pin); err == nil {
			t.Error("the PIN lists credentials before it was changed")
		}
		if out, err := d.station("93847561\n", "pin", "change", p.port.Path(), "--old-pin-file", pin, "--pin-file", "-"); err != nil || !strings.Contains(out, "The PIN is set") {
			t.Errorf("%q, %v", out, err)
		}
		if _, err := tool(t, "93847561\n", "fido2-token", "-L", "-r", p.port.Path()); err != nil {
			t.Error(err)
		}
	})

	// An older key cannot do all of it, and is enrolled without; it has a PIN that is kept.
	t.Run("older", func(t *testing.T) {
		s := s.in(t)
		k := s.newOldKey()
		d := newDesk(s, "--user", "nobody", "--user", "bob", "--pin", "kept", "--force-pin-change", "--attestation", "enterprise")
		pin := filepath.Join(t.TempDir(), "pin")
		if err := os.WriteFile(pin, []byte("271828\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		d.start("--pin-file", pin)
		d.wait("next")
		p := d.plug(k)
		e := d.wait("skipped")
		if e.User != "nobody" {
			t.Errorf("skipped: %+v", e)
		}
		e = d.wait("enrolled", "aside")
		if e.Event != "aside" || !strings.Contains(e.Reason, "no PIN") {
			t.Errorf("%+v", e)
		}
		p.put()
		if out, err := d.station("271828\n", "pin", "set", p.port.Path(), "--pin-file", "-"); err != nil {
			t.Errorf("%q, %v", out, err)
		}
		p.pull()
		d.wait("next")
		p = d.plug(k)
		if e := d.wait("enrolled", "aside"); e.Event != "enrolled" || e.User != "bob" || len(e.Notes) != 2 {
			t.Errorf("%+v", e)
		}
		p.put()
		if code := d.end(); code != exitNo {
			t.Errorf("it ended with %d", code)
		}
	})

	// What else a station does with one key.
	t.Run("one key", func(t *testing.T) {
		s := s.in(t)
		d := newDesk(s)
		p := d.plug(d.newKey(softkey.Options{}))
		out, err := d.station("", "list", "--json", "--no-usb", "--keys", d.place, "--server", s.url, "--api-key-file", s.stationKey)
		var l struct {
			Info    struct{ AAGUID string }
			Verdict struct {
				Allowed bool
				Model   struct{ Name, Certification string }
			}
		}
		if err != nil || json.Unmarshal([]byte(out), &l) != nil || l.Info.AAGUID != softkey.DefaultAAGUID || !l.Verdict.Allowed || l.Verdict.Model.Name != "Software Key 1" || l.Verdict.Model.Certification != "FIDO_CERTIFIED_L1" {
			t.Errorf("%s, %v", out, err)
		}
		if out, err := d.station("", "list", "--offline", "--no-usb", "--keys", d.place); err != nil || !strings.Contains(out, "no PIN") || !strings.Contains(out, softkey.DefaultAAGUID) {
			t.Errorf("%s, %v", out, err)
		}
		dev := p.port.Path()
		for _, x := range []struct {
			in, want, fails string
			args            []string
		}{
			{"", "", "no PIN", []string{"pin", "retries", dev}},
			{"271828\n", "The PIN is set", "", []string{"pin", "set", dev, "--pin-file", "-"}},
			{"314159\n", "", "PIN is wrong", []string{"credentials", "list", "--device", dev, "--pin-file", "-"}},
			{"", "7\n", "", []string{"pin", "retries", dev}},
			{"271828\n", "[]\n", "", []string{"credentials", "list", "--json", "--device", dev, "--pin-file", "-"}},
			{"271828\n", "", "no such credential", []string{"credentials", "delete", "00ff", "--device", dev, "--pin-file", "-"}},
			{"", "", "--yes", []string{"reset", dev}},
			{"", "left the factory", "", []string{"reset", dev, "--yes"}},
			{"", "", "no PIN", []string{"pin", "retries", "--no-usb", "--keys", d.place}},
			{"", "", "there is no key", []string{"pin", "retries", "--no-usb"}},
			{"", "", "in clear", []string{"list", "--server", "http://login.example.org"}},
			{"", "", "say for whom", []string{"enrol", "--stock", "1", "--user", "alice"}},
			{"", "", "name a file", []string{"enrol", "--stock", "1"}},
		} {
			out, err := d.station(x.in, x.args...)
			if x.fails != "" && (err == nil || !strings.Contains(err.Error(), x.fails)) || x.fails == "" && (err != nil || !strings.Contains(out, x.want)) {
				t.Errorf("%s: %q, %v", strings.Join(x.args, " "), out, err)
			}
		}
	})
}

// in is the server in a test of its own.
func (s *server) in(t *testing.T) *server {
	c := *s
	c.TB = t
	return &c
}

func (s *server) newOldKey() *softkey.Key {
	s.Helper()
	k, err := softkey.New(softkey.Options{Vendor: s.vendor, CTAP20: true})
	if err != nil {
		s.Fatal(err)
	}
	return k
}

// station runs another command of the station's.
func (d *desk) station(stdin string, args ...string) (string, error) {
	d.Helper()
	bin, err := programs()
	if err != nil {
		d.Fatal(err)
	}
	return tool(d, stdin, append([]string{filepath.Join(bin, "watchword-station")}, args...)...)
}

// start2 ends the station, and starts it anew with more flags.
func (d *desk) start2(more ...string) {
	d.Helper()
	_ = d.cmd.Process.Signal(os.Interrupt)
	d.end()
	d.start(more...)
	d.wait("next")
}

// lastNumber is that of the newest label.
func (d *desk) lastNumber() int {
	n := 0
	for _, l := range d.allLabels() {
		if l["number"] != "" {
			n = max(n, atoi(l["number"]))
		}
	}
	return n
}

func atoi(s string) (n int) {
	for _, c := range s {
		n = n*10 + int(c-'0')
	}
	return n
}
