package tokens_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
	"watchword/tokens/storetest"
)

// receiver is a Deliverer whose sinks remember what they were told, and fail as a
// test has them.
type receiver struct {
	mu      sync.Mutex
	told    map[string][]audit.Record // by sink's ID
	ids     map[string]string         // by sink's name, of the last of it
	secrets map[string]string         // by sink's name
	fault   func(records []audit.Record) (int, error)
	refuses error // what Open says
}

func newReceiver() *receiver {
	return &receiver{told: map[string][]audit.Record{}, ids: map[string]string{}, secrets: map[string]string{}}
}

func (r *receiver) Open(k *tokens.Sink, secrets *tokens.SinkSecrets) (tokens.Delivery, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets[k.Name] = string(secrets.Webhook)
	if len(secrets.Key) > 0 {
		r.secrets[k.Name] = string(secrets.Key)
	}
	r.ids[k.Name] = k.ID
	return &way{r, k.ID, map[int64]int64{}}, r.refuses
}

// set changes how the receiver behaves.
func (r *receiver) set(f func(r *receiver)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
}

type way struct {
	r    *receiver
	id   string
	safe map[int64]int64
}

func (w *way) Safe() (map[int64]int64, error) { return w.safe, nil }

func (w *way) Send(_ context.Context, records []audit.Record) (int, error) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	n, err := len(records), error(nil)
	if w.r.fault != nil {
		n, err = w.r.fault(records)
	}
	w.r.told[w.id] = append(w.r.told[w.id], records[:n]...)
	if err != nil && errors.Is(err, errAfter) { // told, and yet it failed
		n = 0
	}
	if n > 0 {
		w.safe[records[n-1].Chain] = records[n-1].Seq
	}
	return n, err
}

func (w *way) Test(context.Context) error {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if w.r.fault != nil {
		_, err := w.r.fault(nil)
		return err
	}
	return nil
}

func (w *way) Close() error { return nil }

var (
	errBefore = errors.New("the receiver is away")
	errAfter  = errors.New("the receiver's answer was lost")
)

// follows checks what a sink was told: each chain whole and in order, with nothing
// but repeats beside.
func (r *receiver) follows(name string) (map[int64]audit.Head, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var f audit.Follower
	told := r.told[r.ids[name]]
	for i := range told {
		if _, err := f.Next(&told[i]); err != nil {
			return nil, err
		}
	}
	return f.Heads(), nil
}

// quick is a node that tells its sinks without much waiting.
func quick(d tokens.Deliverer) func(*tokens.Config) {
	return func(c *tokens.Config) {
		c.Deliver, c.SinkPause, c.SinkLease, c.SinkAlarm = d, 5*time.Millisecond, 2*time.Second, 50*time.Millisecond
	}
}

// eventually waits until something is so.
func eventually(t interface {
	Helper()
	Fatalf(string, ...any)
}, what string, so func() error,
) {
	t.Helper()
	var err error
	for begin := time.Now(); time.Since(begin) < 30*time.Second; time.Sleep(5 * time.Millisecond) {
		if err = so(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// allTold says whether a sink has all that there is.
func allTold(db tokens.Journal, r *receiver, name string) func() error {
	return func() error {
		heads, err := db.Heads(ctx)
		if err != nil {
			return err
		}
		told, err := r.follows(name)
		if err != nil {
			return err
		}
		for _, h := range heads {
			if told[h.Chain] != h {
				return fmt.Errorf("chain %d ends at %d, and was told up to %d", h.Chain, h.Seq, told[h.Chain].Seq)
			}
		}
		return nil
	}
}

func TestEveryRecordIsTold(t *testing.T) {
	r := newReceiver()
	h := newHouse(t, quick(r))
	h.must(h.AddUser(ctx, h.admin, "", "alice"))
	h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
	h.must(h.AddUser(ctx, h.admin, "", "bob"))
	eventually(t, "all is told", allTold(h.mem, r, "siem"))
	h.must(h.AddUser(ctx, h.admin, "", "carol"))
	eventually(t, "what comes is told", allTold(h.mem, r, "siem"))
	state, err := h.Sink(ctx, h.admin, "siem")
	if err != nil || state.Kind != tokens.SinkFile || !state.Telling || state.Failures != 0 || len(state.Key)+len(state.Secret) > 0 {
		t.Errorf("%+v, %v", state, err)
	}
}

// mustSink puts a sink, and answers its secret.
func (h *house) mustSink(n tokens.NewSink) string {
	h.Helper()
	_, secret, err := h.PutSink(ctx, h.admin, n)
	if err != nil {
		h.Fatal(err)
	}
	return secret
}

// faulty is a database whose courier fails as a test has it, before or after the
// deed.
type faulty struct {
	*storetest.Memory
	mu    sync.Mutex
	fault func() storetest.Fault
}

func (d *faulty) fail(do func() error) error {
	d.mu.Lock()
	f := storetest.None
	if d.fault != nil {
		f = d.fault()
	}
	d.mu.Unlock()
	switch f {
	case storetest.Failed:
		return fmt.Errorf("%w: injected", tokens.ErrUnavailable)
	case storetest.FailedButPersisted:
		return errors.Join(do(), fmt.Errorf("%w: injected", tokens.ErrUnavailable))
	}
	return do()
}

func (d *faulty) Tell(ctx context.Context, sink, holder string, told map[int64]int64) error {
	return d.fail(func() error { return d.Memory.Tell(ctx, sink, holder, told) })
}

func (d *faulty) Carry(ctx context.Context, sink, holder string, until time.Duration) (ok bool, err error) {
	err = d.fail(func() (err error) { ok, err = d.Memory.Carry(ctx, sink, holder, until); return err })
	return ok, err
}

func (d *faulty) After(ctx context.Context, chain, seq int64, limit int) (page []audit.Record, err error) {
	err = d.fail(func() (err error) { page, err = d.Memory.After(ctx, chain, seq, min(limit, 3)); return err })
	return page, err
}

// scoped is a test whose cleanups run before it ends.
type scoped struct {
	testing.TB
	ends []func()
}

func (s *scoped) Cleanup(f func()) { s.ends = append(s.ends, f) }

func (s *scoped) end() {
	for _, f := range slices.Backward(s.ends) {
		f()
	}
}

// Whatever fails between reading, sending and noting, and whenever a node ends: what
// is told is each chain in order, with repeats, and nothing left out.
func TestNothingIsLeftOutWhateverFails(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		once := &scoped{TB: t}
		defer once.end()
		r := newReceiver()
		db := &faulty{Memory: storetest.NewMemory(t)}
		h := newHouse(once, quick(r), func(c *tokens.Config) { c.Database = db })
		faults := rapid.SliceOfN(rapid.SampledFrom([]storetest.Fault{storetest.None, storetest.None, storetest.Failed, storetest.FailedButPersisted}), 1, 40).Draw(rt, "faults of the database")
		sends := rapid.SliceOfN(rapid.IntRange(0, 5), 1, 20).Draw(rt, "faults of the receiver")
		db.mu.Lock()
		db.fault = func() storetest.Fault {
			if len(faults) == 0 {
				return storetest.None
			}
			f := faults[0]
			faults = faults[1:]
			return f
		}
		db.mu.Unlock()
		r.set(func(r *receiver) {
			r.fault = func(records []audit.Record) (int, error) {
				if len(sends) == 0 || records == nil {
					return len(records), nil
				}
				n := sends[0]
				sends = sends[1:]
				switch {
				case n == 0:
					return 0, errBefore
				case n == 1:
					return len(records), errAfter
				case n < len(records):
					return n, errBefore
				}
				return len(records), nil
			}
		})
		h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
		var f firsts
		second := h.node(&f, quick(r), func(c *tokens.Config) { c.Database = db })
		for i := range rapid.IntRange(1, 6).Draw(rt, "users") {
			core := []*tokens.Service{h.Service, second}[rapid.IntRange(0, 1).Draw(rt, "node")]
			if _, err := core.AddUser(ctx, h.admin, "", fmt.Sprint("user", i)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(rt, "all is told in the end", allTold(db.Memory, r, "siem"))
	})
}

func TestAnotherNodeTellsWhereOneIsGone(t *testing.T) {
	r := newReceiver()
	h := newHouse(t, quick(r))
	r.set(func(r *receiver) { r.fault = func([]audit.Record) (int, error) { return 0, errBefore } })
	h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
	states, err := h.SinkStates(ctx)
	if err != nil || len(states) != 1 {
		t.Fatalf("%v, %v", states, err)
	}
	// Whoever fails lets others try. This one is gone without a word, as after kill -9.
	eventually(t, "the lease is had", func() error {
		ok, err := h.mem.Carry(ctx, states[0].ID, "dead", 300*time.Millisecond)
		if !ok && err == nil {
			err = errors.New("another has it")
		}
		return err
	})
	r.set(func(r *receiver) { r.fault = nil })
	h.must(h.AddUser(ctx, h.admin, "", "alice"))
	eventually(t, "all is told again", allTold(h.mem, r, "siem"))
}

func TestASinkOfOnesOwnSecretIsShownOnce(t *testing.T) {
	r := newReceiver()
	h := newHouse(t, quick(r))
	hook := tokens.NewSink{Name: "hook", Kind: tokens.SinkWebhook, URL: "https://example.org/in", Events: []string{"user.locked", "token.lost", "token.lost"}}
	secret := h.mustSink(hook)
	text, ok := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) != 32 {
		t.Fatalf("the secret is no whsec_ of 32 bytes: %v", err)
	}
	held := func() string {
		var held string
		r.set(func(r *receiver) { held = r.secrets["hook"] })
		return held
	}
	if held() != string(key) {
		t.Error("the sender has another secret than the receiver")
	}
	if again := h.mustSink(hook); again != "" || held() != string(key) {
		t.Error("putting a webhook again shows or changes its secret")
	}
	hook.NewSecret = true
	if next := h.mustSink(hook); next == secret || next == "" || held() == string(key) {
		t.Error("the secret was to be another one")
	}
	list, err := h.Sinks(ctx, h.admin)
	if err != nil || len(list) != 1 || list[0].Secret != nil || fmt.Sprint(list[0].Events) != "[token.lost user.locked]" {
		t.Errorf("%+v, %v", list, err)
	}
	h.secretless(secret, string(key))
}

// secretless says that neither database nor log holds any of the secrets.
func (h *house) secretless(secrets ...string) {
	h.Helper()
	d, err := h.mem.Document(ctx, "sinks")
	if err != nil {
		h.Fatal(err)
	}
	for _, secret := range secrets {
		for _, form := range []string{secret, strings.TrimPrefix(secret, "whsec_"), base64.StdEncoding.EncodeToString([]byte(secret))} {
			if strings.Contains(string(d.Data), form) || strings.Contains(h.log.String(), form) {
				h.Errorf("a secret is in the database or in the log")
			}
		}
	}
}

func TestWhatIsNoSinkIsRefused(t *testing.T) {
	h := newHouse(t, quick(newReceiver()))
	for _, n := range []tokens.NewSink{
		{}, {Name: "a"}, {Name: "A", Kind: "file"}, {Name: "a/b", Kind: "file"}, {Name: strings.Repeat("a", 65), Kind: "file"}, {Name: "a", Kind: "pigeon"},
		{Name: "a", Kind: "file", Format: "xml"}, {Name: "a", Kind: "file", MaxBytes: 5}, {Name: "a", Kind: "file", Keep: -1}, {Name: "a", Kind: "file", URL: "https://x"},
		{Name: "a", Kind: "syslog"}, {Name: "a", Kind: "syslog", Address: "host:514"}, {Name: "a", Kind: "syslog", Address: "tls://host"},
		{Name: "a", Kind: "syslog", Address: "tcp://host:514"}, {Name: "a", Kind: "syslog", Address: "udp://host:514"}, {Name: "a", Kind: "syslog", Address: "http://host:514"},
		{Name: "a", Kind: "syslog", Address: "tls://host:1", AllowPlaintext: true}, {Name: "a", Kind: "syslog", Address: "tcp://host:1", AllowPlaintext: true, CA: "x"},
		{Name: "a", Kind: "syslog", Address: "tls://host:1", CA: "-----BEGIN RSA PRIVATE KEY-----\n"}, {Name: "a", Kind: "webhook", URL: "https://host/", CA: "x\n-----BEGIN PRIVATE KEY-----"},
		{Name: "a", Kind: "syslog", Address: "tls://host:1", Certificate: "-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n", Key: []byte("x")},
		{Name: "a", Kind: "syslog", Address: "tls://host:1", Certificate: "x"}, {Name: "a", Kind: "syslog", Address: "tls://host:1", Key: []byte("x")},
		{Name: "a", Kind: "syslog", Address: "tls://host:1/x"}, {Name: "a", Kind: "syslog", Address: "tls://u:p@host:1"},
		{Name: "a", Kind: "webhook"}, {Name: "a", Kind: "webhook", URL: "http://example.org/"}, {Name: "a", Kind: "webhook", URL: "http://10.0.0.1/"},
		{Name: "a", Kind: "webhook", URL: "https://u:p@example.org/"}, {Name: "a", Kind: "webhook", URL: "ftp://example.org/"}, {Name: "a", Kind: "webhook", URL: "https:///x"},
		{Name: "a", Kind: "webhook", URL: "https://example.org/", Events: []string{"everything"}}, {Name: "a", Kind: "webhook", URL: "https://example.org/", Format: "json"},
		{Name: "a", Kind: "webhook", URL: "https://example.org/", Secret: []byte("correct-horse")}, {Name: "a", Kind: "webhook", URL: "https://example.org/", Secret: []byte("whsec_Y29ycmVjdA==")},
		{Name: "a", Kind: "webhook", URL: "https://example.org/", Secret: []byte("whsec_" + strings.Repeat("QUJD", 22))}, {Name: "a", Kind: "webhook", URL: "https://example.org/", Secret: []byte("whsec_" + strings.Repeat("QUJD", 9999))},
		{Name: "a", Kind: "webhook", URL: "https://example.org/", Secret: []byte("whsec_" + strings.Repeat("QUJD", 8)), NewSecret: true}, {Name: "a", Kind: "file", Secret: []byte("whsec_" + strings.Repeat("QUJD", 8))},
	} {
		if _, _, err := h.PutSink(ctx, h.admin, n); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%+v: %v", n, err)
		}
	}
	h.mustSink(tokens.NewSink{Name: "a", Kind: tokens.SinkWebhook, URL: "http://127.0.0.1:1/"})
	if _, _, err := h.PutSink(ctx, h.admin, tokens.NewSink{Name: "a", Kind: tokens.SinkFile}); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a webhook becomes a file: %v", err)
	}
	for i := range 15 {
		h.mustSink(tokens.NewSink{Name: fmt.Sprint("file", i), Kind: tokens.SinkFile})
	}
	if _, _, err := h.PutSink(ctx, h.admin, tokens.NewSink{Name: "one-more", Kind: tokens.SinkFile}); !errors.Is(err, tokens.ErrState) {
		t.Errorf("the seventeenth: %v", err)
	}
	for what, err := range map[string]error{
		"delete": h.DeleteSink(ctx, h.admin, "nobody"), "test": h.TestSink(ctx, h.admin, "nobody"),
		"show": func() error { _, err := h.Sink(ctx, h.admin, "nobody"); return err }(),
	} {
		if !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("%s of no sink: %v", what, err)
		}
	}
}

// TestASinkIsComparedWithoutBeingTouched: what would change is named, secrets among it,
// and nothing of a secret is answered or changed.
func TestASinkIsComparedWithoutBeingTouched(t *testing.T) {
	r := newReceiver()
	h := newHouse(t, quick(r))
	own, other := "whsec_"+base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32)), "whsec_"+base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{8}, 24))
	hook := func(edit func(*tokens.NewSink)) tokens.NewSink {
		n := tokens.NewSink{Name: "pager", Kind: tokens.SinkWebhook, URL: "https://example.org/in", Events: []string{"tampering"}}
		if edit != nil {
			edit(&n)
		}
		return n
	}
	compare := func(n tokens.NewSink, want ...string) {
		t.Helper()
		k, changes, err := h.CompareSink(ctx, h.admin, n)
		if err != nil || !slices.Equal(changes, want) || k.Name != n.Name || len(k.Secret)+len(k.Key) > 0 {
			t.Errorf("%s: %v, %+v, %v", n.Name, changes, k, err)
		}
	}
	compare(hook(nil), "sink")
	if states, err := h.Sinks(ctx, h.admin); err != nil || len(states) != 0 {
		t.Fatalf("the comparison made it: %+v, %v", states, err)
	}
	if shown := h.mustSink(hook(func(n *tokens.NewSink) { n.Secret = []byte(own) })); shown != "" {
		t.Errorf("a secret that was brought is answered")
	}
	eventually(t, "the receiver has the secret", func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.secrets["pager"] != string(bytes.Repeat([]byte{7}, 32)) {
			return fmt.Errorf("it is %q", r.secrets["pager"])
		}
		return nil
	})
	compare(hook(nil))
	compare(hook(func(n *tokens.NewSink) { n.Secret = []byte(own) }))
	compare(hook(func(n *tokens.NewSink) { n.Secret = []byte(other) }), "secret")
	compare(hook(func(n *tokens.NewSink) { n.NewSecret = true }), "secret")
	compare(hook(func(n *tokens.NewSink) { n.URL, n.Events, n.CA = "https://example.org/out", nil, "x" }), "ca", "url", "events")
	h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkSyslog, Address: "tls://a:1", Certificate: "pem", Key: []byte("key")})
	compare(tokens.NewSink{Name: "siem", Kind: tokens.SinkSyslog, Address: "tls://a:1", Certificate: "pem"})
	compare(tokens.NewSink{Name: "siem", Kind: tokens.SinkSyslog, Address: "tls://a:1", Certificate: "pem", Key: []byte("key")})
	compare(tokens.NewSink{Name: "siem", Kind: tokens.SinkSyslog, Address: "tls://a:2", ServerName: "b", Certificate: "pem", Key: []byte("another")}, "address", "server_name", "key")
	h.mustSink(tokens.NewSink{Name: "archive", Kind: tokens.SinkFile})
	compare(tokens.NewSink{Name: "archive", Kind: tokens.SinkFile, Format: "json", MaxBytes: 100 << 20})
	compare(tokens.NewSink{Name: "archive", Kind: tokens.SinkFile, Format: "ocsf", MaxBytes: 1 << 20, Keep: 3}, "format", "max_bytes", "keep")
	if _, _, err := h.CompareSink(ctx, h.admin, tokens.NewSink{Name: "archive", Kind: tokens.SinkWebhook, URL: "https://example.org/"}); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a file becomes a webhook: %v", err)
	}
	// What is left out stays: the secret is as it was.
	h.mustSink(hook(func(n *tokens.NewSink) { n.Events = nil }))
	tells := func(want bool) {
		t.Helper()
		if r := h.records("sink.put", "ok")[0]; slices.Contains(r.Detail, audit.Field{Name: "secret", Value: "new"}) != want {
			t.Errorf("of a new secret (%v) the audit says %+v", want, r.Detail)
		}
	}
	tells(false)
	h.mustSink(hook(func(n *tokens.NewSink) { n.Secret = []byte(other) }))
	tells(true)
	compare(hook(func(n *tokens.NewSink) { n.Secret = []byte(own) }), "secret")
	h.mustSink(hook(func(n *tokens.NewSink) { n.Secret, n.Events = []byte(own), nil }))
	compare(hook(func(n *tokens.NewSink) { n.Secret, n.Events = []byte(own), nil }))
	for _, x := range h.records("sink.put", "ok") {
		if text := fmt.Sprint(x); strings.Contains(text, own) || strings.Contains(text, other) {
			t.Errorf("the audit holds a secret: %s", text)
		}
	}
}

func TestWhoIsOfOneRealmHasNoSinks(t *testing.T) {
	h := newHouse(t, quick(newReceiver()))
	h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
	_, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "theirs", Realm: "corp", Scope: "admin"})
	if err != nil {
		t.Fatal(err)
	}
	p, err := h.Authenticate(ctx, text)
	if err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func() error{
		"list": func() error { _, err := h.Sinks(ctx, p); return err },
		"show": func() error { _, err := h.Sink(ctx, p, "siem"); return err },
		"put": func() error {
			_, _, err := h.PutSink(ctx, p, tokens.NewSink{Name: "theirs", Kind: tokens.SinkFile})
			return err
		},
		"compare": func() error {
			_, _, err := h.CompareSink(ctx, p, tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
			return err
		},
		"delete": func() error { return h.DeleteSink(ctx, p, "siem") },
		"test":   func() error { return h.TestSink(ctx, p, "siem") },
	} {
		if err := do(); !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestASinkThatWantsNoMoreIsToldNothing(t *testing.T) {
	r := newReceiver()
	h := newHouse(t, quick(r))
	r.set(func(r *receiver) {
		r.fault = func([]audit.Record) (int, error) { return 0, fmt.Errorf("410: %w", tokens.ErrSinkGone) }
	})
	n := tokens.NewSink{Name: "hook", Kind: tokens.SinkWebhook, URL: "https://example.org/"}
	h.mustSink(n)
	eventually(t, "it is stopped", func() error {
		state, err := h.Sink(ctx, h.admin, "hook")
		if err == nil && state.Stopped == "" {
			err = errors.New("it is not")
		}
		return err
	})
	if len(h.records(string(policy.SinkStop), "")) != 1 {
		t.Error("the audit does not say once that it was stopped")
	}
	// Put anew it goes on.
	r.set(func(r *receiver) { r.fault = nil })
	h.mustSink(n)
	eventually(t, "it is told again", func() error {
		state, err := h.Sink(ctx, h.admin, "hook")
		if err == nil && (state.Stopped != "" || state.Lag > 1) {
			err = fmt.Errorf("%+v", state)
		}
		return err
	})
}

func TestASinkThatFailsIsSaidToOnce(t *testing.T) {
	r := newReceiver()
	h := newHouse(t, quick(r))
	r.set(func(r *receiver) { r.fault = func([]audit.Record) (int, error) { return 0, errBefore } })
	h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
	failing := func(n int) func() error {
		return func() error {
			if got := len(h.records(string(policy.SinkFailing), "")); got != n {
				return fmt.Errorf("%d records say that it fails", got)
			}
			return nil
		}
	}
	eventually(t, "the audit says that it fails", failing(1))
	if err := h.TestSink(ctx, h.admin, "siem"); !errors.Is(err, tokens.ErrState) {
		t.Errorf("testing it: %v", err)
	}
	state, err := h.Sink(ctx, h.admin, "siem")
	if err != nil || state.Failures == 0 || !strings.Contains(state.LastError, "away") || state.Lag == 0 || state.Behind.IsZero() {
		t.Errorf("%+v, %v", state, err)
	}
	r.set(func(r *receiver) { r.fault = nil })
	if err := h.TestSink(ctx, h.admin, "siem"); err != nil {
		t.Errorf("testing it: %v", err)
	}
	eventually(t, "all is told", allTold(h.mem, r, "siem"))
	eventually(t, "the audit says that it works again", failing(2))
}

func TestASinkBegunAnewBeginsAnew(t *testing.T) {
	r := newReceiver()
	h := newHouse(t, quick(r))
	now := true
	h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile, FromNow: &now})
	h.must(h.AddUser(ctx, h.admin, "", "alice"))
	eventually(t, "what comes is told", func() error {
		var n int
		r.set(func(r *receiver) {
			for _, told := range r.told[r.ids["siem"]] {
				if told.Seq < 3 {
					t.Errorf("record %d was told, which was before", told.Seq)
				}
				if told.User == "alice" {
					n++
				}
			}
		})
		if n == 0 {
			return errors.New("it is not")
		}
		return nil
	})
	if err := h.DeleteSink(ctx, h.admin, "siem"); err != nil {
		t.Fatal(err)
	}
	h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
	eventually(t, "all is told", allTold(h.mem, r, "siem"))
}

func TestASpoiledListStopsNoSink(t *testing.T) {
	r := newReceiver()
	h := newHouse(t, quick(r))
	h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
	eventually(t, "all is told", allTold(h.mem, r, "siem"))
	d, err := h.mem.Document(ctx, "sinks")
	if err != nil {
		t.Fatal(err)
	}
	d.Data = append([]byte(nil), d.Data...)
	d.Data[len(d.Data)-3] ^= 1
	h.must(h.PutDocument(ctx, h.admin, policy.SinkPut, "", tokens.DocumentWrite{Name: "sinks", Expect: d.Version, Data: d.Data}, nil))
	h.must(h.AddUser(ctx, h.admin, "", "alice"))
	eventually(t, "all is told still", allTold(h.mem, r, "siem"))
	if _, err := h.Sinks(ctx, h.admin); !errors.Is(err, tokens.ErrTampered) {
		t.Errorf("listing: %v", err)
	}
	eventually(t, "the log says so", func() error {
		if !strings.Contains(h.log.String(), "list of sinks was altered") {
			return errors.New("it does not")
		}
		return nil
	})
}

func TestARemovedListStopsNoSink(t *testing.T) {
	r := newReceiver()
	h := newHouse(t, quick(r))
	h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
	eventually(t, "all is told", allTold(h.mem, r, "siem"))
	d, err := h.mem.Document(ctx, "sinks")
	if err != nil {
		t.Fatal(err)
	}
	h.must(h.PutDocument(ctx, h.admin, policy.SinkPut, "", tokens.DocumentWrite{Name: "sinks", Expect: d.Version}, nil))
	eventually(t, "the log says so", func() error {
		if !strings.Contains(h.log.String(), "it was removed") {
			return errors.New("it does not")
		}
		return nil
	})
	h.must(h.AddUser(ctx, h.admin, "", "alice"))
	eventually(t, "all is told still", allTold(h.mem, r, "siem"))
}

func TestWhatASinkWaitsForIsNotToBeCut(t *testing.T) {
	r := newReceiver()
	h := newHouse(t, quick(r))
	heads, err := h.mem.Heads(ctx)
	if err != nil || len(heads) != 1 {
		t.Fatalf("%v, %v", heads, err)
	}
	chain := heads[0].Chain
	waiting := func(seq int64) string {
		list, err := tokens.Untold(h.Service, ctx, chain, seq)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(list)
	}
	if got := waiting(1); got != "[]" {
		t.Errorf("without sinks %s wait", got)
	}
	h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
	eventually(t, "all is told", allTold(h.mem, r, "siem"))
	if got := waiting(2); got != "[]" {
		t.Errorf("of what was told %s wait", got)
	}
	r.set(func(r *receiver) { r.fault = func([]audit.Record) (int, error) { return 0, errBefore } })
	h.mustSink(tokens.NewSink{Name: "other", Kind: tokens.SinkFile})
	now := true
	h.mustSink(tokens.NewSink{Name: "young", Kind: tokens.SinkFile, FromNow: &now})
	if got := waiting(2); got != "[other]" {
		t.Errorf("%s wait for what one was not told", got)
	}
	if got := waiting(1 << 40); got != "[other siem young]" {
		t.Errorf("%s wait for what is to come", got)
	}
	r.set(func(r *receiver) { r.fault = nil })
}
