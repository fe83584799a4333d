package radius

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"watchword/tokens"
)

const secret = "correct horse battery staple"

// goodCode is the code that fakeCore accepts.
const goodCode = "1234755224"

// fakeCore stands for the core: what it answers is the test's choice, so that
// its faults and slowness are too. The real one is under the whole server's tests.
type fakeCore struct {
	clients []*tokens.RADIUSClient
	verify  func(context.Context, tokens.Attempt) (tokens.Result, error) // nil: goodCode is right
	unready atomic.Bool
	silent  bool                                // attempts are not kept
	changed atomic.Pointer[tokens.RADIUSClient] // that all addresses are, once it is there

	mu       sync.Mutex
	attempts []tokens.Attempt
	sources  []string
}

func (f *fakeCore) ClientFor(addr netip.Addr) (*tokens.RADIUSClient, bool) {
	best := f.changed.Load()
	if best != nil {
		return best, true
	}
	for _, c := range f.clients {
		if c.Prefix.Contains(addr) && (best == nil || c.Prefix.Bits() > best.Prefix.Bits()) {
			best = c
		}
	}
	return best, best != nil
}

func (f *fakeCore) Ask(ctx context.Context, p tokens.Principal, a tokens.Attempt, done func(tokens.Result, error)) {
	if f.silent {
		done(f.decide(ctx, p, a))
		return
	}
	go func() { done(f.decide(ctx, p, a)) }()
}

func (f *fakeCore) decide(ctx context.Context, p tokens.Principal, a tokens.Attempt) (tokens.Result, error) {
	if !f.silent {
		f.mu.Lock()
		f.attempts = append(f.attempts, a)
		f.sources = append(f.sources, p.Source)
		f.mu.Unlock()
	}
	if f.verify != nil {
		return f.verify(ctx, a)
	}
	return tokens.Result{Accept: a.Code == goodCode}, nil
}

func (f *fakeCore) Ready() []tokens.Problem {
	if f.unready.Load() {
		return []tokens.Problem{{Part: "hsm", Says: "the module does not answer"}}
	}
	return nil
}

// asked is the attempts that reached the core.
func (f *fakeCore) asked() []tokens.Attempt {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]tokens.Attempt(nil), f.attempts...)
}

var errFault = errors.New("the HSM does not answer")

// oneClient is a core that knows 127.0.0.0/8 as one client that must sign.
func oneClient() *fakeCore {
	return &fakeCore{clients: []*tokens.RADIUSClient{newClient("vpn", "127.0.0.0/8", secret, true)}}
}

// laxClient is a core whose client needs not sign.
func laxClient() *fakeCore {
	return &fakeCore{clients: []*tokens.RADIUSClient{newClient("vpn", "127.0.0.0/8", secret, false)}}
}

// house is a server under test.
type house struct {
	*Server
	core     *fakeCore
	registry *prometheus.Registry
	log      *logBook
	served   chan error
}

// serve starts a server on free ports and stops it at the test's end.
func serve(t testing.TB, core *fakeCore, config Config) *house {
	t.Helper()
	h := &house{core: core, registry: prometheus.NewRegistry(), log: &logBook{}, served: make(chan error, 1)}
	if len(config.Listen) == 0 {
		config.Listen = []string{"127.0.0.1:0"}
	}
	config.Registerer = h.registry
	config.Logger = slog.New(slog.NewTextHandler(h.log, nil))
	s, err := New(core, config)
	if err != nil {
		t.Fatal(err)
	}
	h.Server = s
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	go func() { h.served <- s.Serve(context.Background()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if log := h.log.String(); strings.Contains(log, goodCode) || strings.Contains(log, secret) {
			t.Errorf("a code or a shared secret was logged:\n%s", log)
		}
	})
	return h
}

func (h *house) address() netip.AddrPort { return h.Listening()[0] }

// metric sums the samples of a metric whose labels include those given as
// name=value. For a histogram it answers the number of observations.
func (h *house) metric(t testing.TB, name string, labels ...string) float64 {
	t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	samples:
		for _, m := range f.GetMetric() {
			has := map[string]bool{}
			for _, l := range m.GetLabel() {
				has[l.GetName()+"="+l.GetValue()] = true
			}
			for _, l := range labels {
				if !has[l] {
					continue samples
				}
			}
			sum += value(m)
		}
	}
	return sum
}

func value(m *dto.Metric) float64 {
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	default:
		return float64(m.Histogram.GetSampleCount())
	}
}

func (h *house) dropped(t testing.TB, c cause) float64 {
	t.Helper()
	return h.metric(t, "watchword_radius_dropped_total", "cause="+remedies[c].label)
}

// awaitDropped waits until so many packets were dropped for a cause.
func (h *house) awaitDropped(t testing.TB, c cause, n float64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v packets dropped as %s", n, remedies[c].label), func() bool { return h.dropped(t, c) == n })
}

// logBook keeps what was logged.
type logBook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// lines counts the lines that hold all of the words.
func (l *logBook) lines(words ...string) (n int) {
lines:
	for _, line := range strings.Split(l.String(), "\n") {
		for _, w := range words {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		n++
	}
	return n
}

// eventually waits until something becomes true.
func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if true() {
			return
		}
	}
	t.Fatalf("it never came to be: %s", what)
}
