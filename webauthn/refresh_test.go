package webauthn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fidoSite stands for where FIDO publishes.
type fidoSite struct {
	mu    sync.Mutex
	blob  []byte
	err   error
	asked int
}

func (f *fidoSite) fetch(_ context.Context, url string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if url != "https://mds.example.org/" {
		return nil, fmt.Errorf("asked for %s", url)
	}
	f.asked++
	return f.blob, f.err
}

func (f *fidoSite) set(blob []byte, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blob, f.err = blob, err
}

func (f *fidoSite) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

func newFetchingHouse(t *testing.T) (*mdsHouse, *fidoSite) {
	site := &fidoSite{}
	h := newMDSHouse(t, func(c *Config) { c.MetadataURL, c.Fetch = "https://mds.example.org/", site.fetch })
	return h, site
}

// run looks once a minute for a while.
func (h *mdsHouse) run(d time.Duration) {
	for end := h.now().Add(d); h.now().Before(end); h.forward(time.Minute) {
		h.look(h.Context())
	}
}

func TestMetadataIsFetchedDailyAndMoreOftenTowardsItsEnd(t *testing.T) {
	h, site := newFetchingHouse(t)
	entry := mdsEntry(mdsAAGUID(1), "Key", nil, "FIDO_CERTIFIED")
	site.set(h.fido.sign(t, mdsPayload(1, "2026-03-11", entry), nil), nil)
	h.look(t.Context())
	if info, err := h.Metadata(t.Context(), h.admin); err != nil || info.Number != 1 {
		t.Fatalf("at once: %+v, %v", info, err)
	}
	h.run(5 * 24 * time.Hour)
	if n := site.count(); n < 5 || n > 7 {
		t.Errorf("in five days it was fetched %d times", n)
	}
	if n := len(h.records("fido.mds.import", "ok")); n > 8 {
		t.Errorf("the audit has %d imports of the same", n)
	}
	h.run(3*24*time.Hour + 12*time.Hour) // until the midnight before its last day
	before := site.count()
	h.run(24 * time.Hour)
	if n := site.count() - before; n < 5 || n > 8 {
		t.Errorf("on the day before its last it was fetched %d times", n)
	}
	site.set(h.fido.sign(t, mdsPayload(2, "2026-04-11", entry), nil), nil)
	h.run(5 * time.Hour)
	if info, err := h.Metadata(t.Context(), h.admin); err != nil || info.Number != 2 {
		t.Errorf("the next one: %+v, %v", info, err)
	}
}

func TestAFailedFetchIsTriedAgainEverLater(t *testing.T) {
	h, site := newFetchingHouse(t)
	site.set(nil, errors.New("no route to host"))
	h.run(time.Hour)
	if n := site.count(); n < 5 || n > 8 { // 0, 1, 3, 7, 15, 31 minutes
		t.Errorf("in the first hour it was tried %d times", n)
	}
	h.run(23 * time.Hour)
	if n := site.count(); n < 10 || n > 18 {
		t.Errorf("in the first day it was tried %d times", n)
	}
	// What a hotel's network answers is refused, with its reason in audit and log.
	site.set([]byte("<html>sign in</html>"), nil)
	h.run(5 * time.Hour)
	refused := h.records("fido.mds.import", "refused")
	if len(refused) == 0 || refused[0].Actor != "system" || !strings.Contains(why(refused[0]), "no signed metadata") || h.log.count("sign in") != 0 {
		t.Errorf("audit: %+v", refused)
	}
	site.set(h.fido.sign(t, mdsPayload(1, "2026-04-01", mdsEntry(mdsAAGUID(1), "Key", nil)), nil), nil)
	h.run(5 * time.Hour)
	if info, err := h.Metadata(t.Context(), h.admin); err != nil || info.Number != 1 {
		t.Errorf("once it works: %+v, %v", info, err)
	}
	if h.meta.refresh.failures != 0 {
		t.Errorf("%d failures are remembered", h.meta.refresh.failures)
	}
}

func TestANodeThatStartsDoesNotFetchWhatIsFresh(t *testing.T) {
	h, site := newFetchingHouse(t)
	site.set(h.fido.sign(t, mdsPayload(1, "2026-04-01", mdsEntry(mdsAAGUID(1), "Key", nil)), nil), nil)
	h.look(t.Context())
	h.forward(time.Hour)
	if _, err := h.other.Metadata(t.Context(), h.admin); err != nil {
		t.Fatal(err)
	}
	h.other.look(t.Context())
	if n := site.count(); n != 1 {
		t.Errorf("two nodes fetched %d times", n)
	}
}

func TestWithoutAURLNothingIsFetched(t *testing.T) {
	var asked atomic.Int64
	h := newMDSHouse(t, func(c *Config) {
		c.Fetch = func(context.Context, string) ([]byte, error) { asked.Add(1); return nil, io.EOF }
	})
	h.run(time.Hour)
	if asked.Load() != 0 {
		t.Error("something was fetched")
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	h, _ := newFetchingHouse(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { h.Run(ctx); close(done) }()
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
}

func TestMetadataIsFetchedByHTTPSOnlyAndBounded(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "by http") }))
	defer plain.Close()
	var site *httptest.Server
	site = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/blob":
			io.WriteString(w, "a.b.c")
		case "/moved":
			http.Redirect(w, r, site.URL+"/blob", http.StatusFound)
		case "/downgraded":
			http.Redirect(w, r, plain.URL, http.StatusFound)
		case "/round":
			http.Redirect(w, r, "/round", http.StatusFound)
		case "/endless":
			w.Header().Set("Content-Type", "application/jwt")
			for part := make([]byte, 1<<20); ; {
				if _, err := w.Write(part); err != nil {
					return
				}
			}
		default:
			http.Error(w, "no such thing", http.StatusNotFound)
		}
	}))
	defer site.Close()
	for _, c := range []struct{ url, want, say string }{
		{site.URL + "/blob", "a.b.c", ""},
		{site.URL + "/moved", "a.b.c", ""},
		{site.URL + "/downgraded", "", "https only"},
		{site.URL + "/round", "", "redirects too often"},
		{site.URL + "/endless", "", "more than 67108864 bytes"},
		{site.URL + "/missing", "", "404"},
		{plain.URL, "", "https only"},
		{"file:///etc/passwd", "", "https only"},
		{"", "", "https only"},
	} {
		body, err := fetchWith(t.Context(), site.Client().Transport, c.url)
		if string(body) != c.want || (c.say == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %d bytes, %v; it should say %q", c.url, len(body), err, c.say)
		}
	}
	// A site with a certificate that nobody vouches for is no site.
	var unknown *tls.CertificateVerificationError
	if _, err := FetchHTTPS(t.Context(), site.URL+"/blob"); !errors.As(err, &unknown) {
		t.Errorf("with an unknown certificate: %v", err)
	}
	h := newMDSHouse(t, func(c *Config) { c.MetadataURL = "http://mds.example.org/" })
	if _, err := h.fetchAndImport(t.Context()); err == nil || !strings.Contains(err.Error(), "https only") {
		t.Errorf("with http in the configuration: %v", err)
	}
}
