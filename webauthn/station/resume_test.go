package station

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"watchword/webauthn/softkey"
)

// bench is where batches of one key are run, one after another.
type bench struct {
	*testing.T
	keys, labels string
	server       *Server
	finish       func() (int, any) // what the server says of a key
	aside        string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{T: t, keys: t.TempDir(), labels: filepath.Join(t.TempDir(), "labels.csv")}
	b.server = refusing(t, func(path string) (int, any) {
		switch {
		case strings.HasSuffix(path, "/allowed"):
			return 200, Verdict{Allowed: true}
		case strings.HasSuffix(path, "/begin"):
			return 200, ceremony{Session: "s", Options: json.RawMessage(`{"publicKey":{"rp":{"id":"example.org","name":"E"},"user":{"id":"AQI","name":"a","displayName":"A"},"challenge":"AQIDBA","pubKeyCredParams":[{"alg":-7}],"authenticatorSelection":{"residentKey":"required"}}}`)}
		case strings.HasSuffix(path, "/webauthn"):
			return 200, map[string]any{"origins": []string{"https://login.example.org"}}
		}
		return b.finish()
	})
	return b
}

// plug plugs in a new key, until the answer is called.
func (b *bench) plug() (pull func()) {
	b.Helper()
	k, err := softkey.New(softkey.Options{})
	if err != nil {
		b.Fatal(err)
	}
	p, err := softkey.Plug(k)
	if err != nil {
		b.Fatal(err)
	}
	link := filepath.Join(b.keys, filepath.Base(p.Path()))
	if err := os.Symlink(p.Path(), link); err != nil {
		b.Fatal(err)
	}
	return func() { _ = os.Remove(link); _ = p.Close() }
}

// run runs the batch of a journal until a key is enrolled, set aside, or it stops.
func (b *bench) run(journal, labels string, pins PINs) error {
	b.Helper()
	j, err := OpenJournal(journal, "stock")
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	s := &Station{Server: b.server, Order: Order{Stock: 1, PINs: pins}, Journal: j, Tell: func(e Event) {
		if e.Event == "aside" {
			b.aside = e.Reason
			cancel()
		}
	}}
	if pins == PINGiven {
		s.Given = secret(b, "271828")
		defer s.Given.Wipe()
	}
	if s.Labels, err = OpenLabels(labels, pins == PINRandom); err != nil {
		b.Fatal(err)
	}
	defer s.Labels.Close()
	return s.Run(ctx, &Watcher{Dir: b.keys})
}

func (b *bench) rows() [][]string {
	b.Helper()
	f, err := os.Open(b.labels)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		b.Fatal(err)
	}
	return rows[1:]
}

func enrolledAs(serial string) func() (int, any) {
	return func() (int, any) { return 200, Token{Serial: serial, State: "imported"} }
}

// The first keys of two batches have the same number, and a label each.
func TestBatchesShareAFileOfLabels(t *testing.T) {
	b := newBench(t)
	for _, serial := range []string{"F-1", "F-2"} {
		pull := b.plug()
		b.finish = enrolledAs(serial)
		if err := b.run(filepath.Join(t.TempDir(), "journal"), b.labels, PINRandom); err != nil {
			t.Fatal(err)
		}
		pull()
	}
	rows := b.rows()
	if len(rows) != 2 || rows[0][1] != "F-1" || rows[1][1] != "F-2" || rows[0][0] != "1" || rows[1][0] != "1" || len(rows[0][7]) != 8 || len(rows[1][7]) != 8 {
		t.Errorf("%d labels", len(rows))
	}
}

// A key that may be enrolled keeps its PIN, whatever is other when the batch goes on.
func TestThePINOfAKeyInDoubtIsKept(t *testing.T) {
	b := newBench(t)
	defer b.plug()()
	journal := filepath.Join(t.TempDir(), "journal")
	// It is enrolled, and the answer is lost: a proxy says that there is no such page.
	b.finish, b.server.HTTP = enrolledAs("F-1"), &http.Client{Transport: losing{}}
	var stopped *Stopped
	if err := b.run(journal, b.labels, PINRandom); !errors.As(err, &stopped) || !strings.Contains(err.Error(), "not known whether") {
		t.Fatalf("%v", err)
	}
	pin, err := os.ReadFile(b.labels + ".pending")
	if err != nil {
		t.Fatal(err)
	}
	b.server.HTTP = http.DefaultClient
	other := filepath.Join(t.TempDir(), "labels.csv")
	for _, x := range []struct {
		what, journal, labels, want string
		pins                        PINs
		finish                      func() (int, any)
	}{
		{"an API key that is no longer good", journal, b.labels, "not known whether", PINRandom, func() (int, any) { return 401, Problem{Status: 401, Title: "no such key"} }},
		{"an API key of another scope", journal, b.labels, "not known whether", PINRandom, func() (int, any) { return 403, Problem{Status: 403, Title: "forbidden"} }},
		{"something else at the address", journal, b.labels, "not known whether", PINRandom, func() (int, any) { return 404, "no such page" }},
		{"other PINs", journal, b.labels, "same file of labels", PINGiven, enrolledAs("F-1")},
		{"other labels", journal, other, "same file of labels", PINRandom, enrolledAs("F-1")},
		{"another batch", filepath.Join(t.TempDir(), "journal"), b.labels, "another batch", PINRandom, enrolledAs("F-9")},
	} {
		b.finish = x.finish
		if err := b.run(x.journal, x.labels, x.pins); !errors.As(err, &stopped) || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v", x.what, err)
		}
		if now, err := os.ReadFile(b.labels + ".pending"); err != nil || string(now) != string(pin) {
			t.Fatalf("%s: the PIN is lost: %v", x.what, err)
		}
	}
	b.finish = enrolledAs("F-1")
	if err := b.run(journal, b.labels, PINRandom); err != nil {
		t.Fatal(err)
	}
	if rows := b.rows(); len(rows) != 1 || rows[0][7] != strings.SplitN(string(pin), "\n", 2)[0] || b.aside != "" {
		t.Errorf("%d labels, aside: %s", len(rows), b.aside)
	}
	if _, err := os.Stat(b.labels + ".pending"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it waits still: %v", err)
	}
}

// losing is a way to the server on which the answers to finish are lost.
type losing struct{}

func (losing) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || !strings.HasSuffix(r.URL.Path, "/finish") {
		return answer, err
	}
	answer.Body.Close()
	w := httptest.NewRecorder()
	http.NotFound(w, r)
	return w.Result(), nil
}

// What is none of a journal is not cut off, and a line that found no room spoils none
// after it.
func TestAJournalKeepsWhatIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "station.key")
	const mine = "ww_somebody's own file, without an end of line"
	if err := os.WriteFile(path, []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenJournal(path, "stock"); err == nil || !strings.Contains(err.Error(), "--journal") {
		t.Errorf("it is taken for a journal: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != mine {
		t.Errorf("it holds %q", b)
	}

	path = filepath.Join(t.TempDir(), "journal")
	j, err := OpenJournal(path, "stock")
	if err != nil {
		t.Fatal(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(j.good) + 20, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	err = j.write(Record{What: whatMade, Number: 1, Finish: &finish{Session: "s", Response: json.RawMessage(`{}`)}})
	if err2 := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err2 != nil {
		t.Fatal(err2)
	}
	if err == nil || j.Open != nil {
		t.Fatalf("it was written: %v", err)
	}
	if err := errors.Join(j.write(Record{What: whatAside, Number: 1, Reason: "no room"}), j.Close()); err != nil {
		t.Fatal(err)
	}
	if j, err = OpenJournal(path, "stock"); err != nil || len(j.Aside) != 1 {
		t.Fatalf("%v", err)
	}
	j.Close()
}
