package station

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"watchword/webauthn/softkey"
)

// refusing is a server that says no to what it is asked.
func refusing(t *testing.T, say func(path string) (int, any)) *Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, body := say(r.URL.Path)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(body)
	}))
	t.Cleanup(s.Close)
	return &Server{URL: s.URL, Key: "k", HTTP: s.Client()}
}

// A server that enrols no keys, or an API key that is no good, ends the batch before a
// key is touched, and skips nobody.
func TestABatchEndsBeforeAKeyIsTouchedWhereNoneCanBeEnrolled(t *testing.T) {
	for _, status := range []int{401, 403, 409} {
		dir := t.TempDir()
		j, err := OpenJournal(filepath.Join(dir, "journal"), "users")
		if err != nil {
			t.Fatal(err)
		}
		defer j.Close()
		s := &Station{
			Server:  refusing(t, func(string) (int, any) { return status, Problem{Status: status, Detail: "not here"} }),
			Order:   Order{Users: []string{"alice"}, PINs: PINNone},
			Journal: j, Tell: func(Event) {},
		}
		err = s.Run(t.Context(), &Watcher{Dir: dir})
		var stopped *Stopped
		if !errors.As(err, &stopped) || !strings.Contains(err.Error(), "not here") || len(j.Aside) != 0 {
			t.Errorf("%d: %v, %+v", status, err, j.Aside)
		}
	}
}

// A key whose credential the server refuses keeps nothing of it: a PIN that is known
// stays, a credential does not.
func TestARefusedKeyWithAKnownPINLosesItsCredential(t *testing.T) {
	k, err := softkey.New(softkey.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := softkey.Plug(k)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := errors.Join(os.Mkdir(keys, 0o700), os.Symlink(p.Path(), filepath.Join(keys, "one"))); err != nil {
		t.Fatal(err)
	}
	j, err := OpenJournal(filepath.Join(dir, "journal"), "stock")
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var aside Event
	s := &Station{
		Server: refusing(t, func(path string) (int, any) {
			switch {
			case strings.HasSuffix(path, "/allowed"):
				return 200, Verdict{Allowed: true}
			case strings.HasSuffix(path, "/begin"):
				return 200, ceremony{Session: "s", Options: json.RawMessage(`{"publicKey":{"rp":{"id":"example.org","name":"E"},"user":{"id":"AQI","name":"a","displayName":"A"},"challenge":"AQIDBA","pubKeyCredParams":[{"alg":-7}],"authenticatorSelection":{"residentKey":"required"}}}`)}
			case strings.HasSuffix(path, "/webauthn"):
				return 200, map[string]any{"origins": []string{"https://login.example.org"}}
			}
			return 400, Problem{Status: 400, Detail: "nobody vouches for it"}
		}),
		Order: Order{Stock: 1, PINs: PINGiven, Passkey: true}, Given: secret(t, "271828"), Journal: j,
		Tell: func(e Event) {
			if e.Event == "aside" {
				aside = e
				cancel()
			}
		},
	}
	if err := s.Run(ctx, &Watcher{Dir: keys}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(aside.Reason, "nobody vouches for it") || !strings.Contains(aside.Left, "credential was deleted") || !strings.Contains(aside.Left, "PIN that was given") {
		t.Errorf("%+v", aside)
	}
	d, err := Open(p.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if held, err := d.Credentials(secret(t, "271828"), ""); err != nil || len(held) != 0 {
		t.Errorf("the key holds %d credentials, %v", len(held), err)
	}
	if j.Open != nil || len(j.Aside) != 1 {
		t.Errorf("the journal: %+v, %+v", j.Open, j.Aside)
	}
}
