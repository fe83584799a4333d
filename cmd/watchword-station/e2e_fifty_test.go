package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"watchword/webauthn/softkey"
)

// Fifty keys are enrolled, unattended, each with a PIN of its own; in between come a
// key of a model that is revoked, one whose root is not the model's, and one that is
// pulled out while it makes its credential.
func TestFiftyKeysAreEnrolledAndThreeAreSetAside(t *testing.T) {
	s := newServer(t)
	d := newDesk(s, "--users", filepath.Join(t.TempDir(), "users"), "--passkey")
	d.args = append(d.args, "--labels", d.labels)
	const count = 50
	var names []string
	for i := range count + 1 { // the last one's key never comes
		names = append(names, fmt.Sprintf("user%02d", i+1))
		s.call("POST", "/v1/users", map[string]any{"name": names[i]}, 201)
	}
	for i, a := range d.args {
		if a == "--users" {
			if err := os.WriteFile(d.args[i+1], []byte(strings.Join(names, "\n")), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	stranger, err := softkey.NewVendor("Strangers")
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	d.start()
	enrolled := map[string]*plugged{} // by user
	var bad []*plugged
	try := func(o softkey.Options) (*plugged, string, string) {
		t.Helper()
		d.wait("next")
		p := d.plug(d.newKey(o))
		e := d.wait("enrolled", "aside")
		p.put()
		if e.Event == "enrolled" {
			enrolled[e.User] = p
			if e.Token.User != e.User || e.Token.State != "active" || e.Token.Model != "Software Key 1" || len(e.Notes) > 0 {
				t.Errorf("%s: %+v", e.User, e)
			}
		} else {
			bad = append(bad, p)
		}
		return p, e.Reason, e.Left
	}
	for i := range count {
		switch i {
		case 10:
			if p, why, left := try(softkey.Options{AAGUID: revoked}); !strings.Contains(why, "REVOKED") || left != "" || !strings.Contains(p.info(t), "noclientPin") {
				t.Errorf("a revoked model: %q, %q", why, left)
			}
		case 20:
			p, why, left := try(softkey.Options{Vendor: stranger})
			if !strings.Contains(why, "leads to no root") || !strings.Contains(left, "was reset") {
				t.Errorf("a wrong root: %q, %q", why, left)
			}
			if info := p.info(t); !strings.Contains(info, "noclientPin") || !strings.Contains(info, "remaining rk(s): 100") {
				t.Errorf("it is not as it was:\n%s", info)
			}
		case 30:
			var out *plugged
			ready := make(chan struct{})
			pulled := make(chan struct{})
			d.wait("next")
			out = d.plug(d.newKey(softkey.Options{Touch: func(ctx context.Context) bool {
				<-ready
				go func() { out.pull(); close(pulled) }()
				<-ctx.Done()
				return false
			}}))
			close(ready)
			e := d.wait("aside", "enrolled")
			<-pulled
			if e.Event != "aside" || !strings.Contains(e.Reason, "pulled out") || !strings.Contains(e.Left, "a PIN that nobody knows") {
				t.Errorf("pulled out: %+v", e)
			}
		}
		try(softkey.Options{})
	}
	t.Logf("53 keys in %s", time.Since(begin).Round(time.Millisecond))
	if next := d.wait("next"); next.User != names[count] {
		t.Errorf("the next user is %s", next.User)
	}
	list := d.allLabels()
	if len(list) != count || len(enrolled) != count || len(bad) != 2 {
		t.Fatalf("%d labels, %d enrolled, %d set aside", len(list), len(enrolled), len(bad))
	}

	// No PIN that was set is in the station's memory; its API key is, so we do look.
	key, err := os.ReadFile(s.stationKey)
	if err != nil {
		t.Fatal(err)
	}
	found, pins, read := false, map[string]bool{}, 0
	for _, l := range list {
		pins[l["pin"]] = true
	}
	memory(t, d.cmd.Process.Pid, func(piece []byte) {
		read += len(piece)
		found = found || bytes.Contains(piece, bytes.TrimSpace(key))
		digits := 0
		for i, c := range piece {
			if digits++; c < '0' || c > '9' {
				digits = 0
			}
			if digits >= 8 && pins[string(piece[i-7:i+1])] {
				t.Errorf("a PIN is in the station's memory, in %q", piece[max(0, i-39):min(len(piece), i+32)])
			}
		}
	})
	t.Logf("%d MB of memory read, after %s", read>>20, time.Since(begin).Round(time.Millisecond))
	if !found {
		t.Error("the memory was not read: the API key is not in it")
	}

	// Nothing half-enrolled is at the server, and all that is enrolled works.
	tokens := s.tokens()
	serials := map[string]string{}
	for _, x := range tokens {
		serials[x["user"].(string)] = x["serial"].(string)
	}
	if len(tokens) != count {
		t.Errorf("the server has %d tokens", len(tokens))
	}
	seen := map[string]bool{}
	for _, l := range list {
		if serials[l["user"]] != l["serial"] || l["aaguid"] != softkey.DefaultAAGUID || l["model"] != "Software Key 1" || len(l["pin"]) != 8 || seen[l["pin"]] {
			t.Errorf("the label of %s is not its key's: %s", l["user"], l["serial"])
		}
		seen[l["pin"]] = true
		p := enrolled[l["user"]]
		r, err := d.signIn(p, l["user"], l["pin"])
		if err != nil || r["result"] != "accept" || r["serial"] != l["serial"] || r["user_verified"] != true {
			t.Errorf("%s signs in: %v, %v", l["user"], r, err)
		}
	}
	if _, err := os.Stat(d.labels + ".pending"); !os.IsNotExist(err) {
		t.Errorf("a PIN waits: %v", err)
	}
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := d.end(); code != exitNo {
		t.Errorf("exit code %d: %s", code, d.stderr.String())
	}
	t.Logf("all in %s", time.Since(begin).Round(time.Millisecond))
}
