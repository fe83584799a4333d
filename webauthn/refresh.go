package webauthn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"watchword/tokens"
)

// How often the metadata is looked after.
const (
	lookEvery   = time.Minute    // whether another node has newer metadata
	fetchEvery  = 24 * time.Hour // while it is current
	fetchLate   = 4 * time.Hour  // from a day before the next one is due
	retryFirst  = time.Minute    // after a failure; doubled up to fetchLate
	walkEvery   = 24 * time.Hour
	alarmEvery  = 24 * time.Hour
	fetchAtMost = 5 * time.Minute
)

// refreshState is what the loop remembers. Only the loop uses it.
type refreshState struct {
	nextFetch time.Time
	failures  int
	walked    int64 // version of the metadata
	walkedAt  time.Time
	retryWalk time.Time
}

// Run fetches metadata where MetadataURL is set, acts on status reports, and
// logs once a day that metadata is stale, until ctx ends. Every node may run it.
func (s *Service) Run(ctx context.Context) {
	// The nodes of an installation that was started at once do not all fetch at
	// once.
	if s.wait(ctx, s.jitter(30*time.Second)) != nil {
		return
	}
	for {
		s.look(ctx)
		if s.wait(ctx, s.jitter(lookEvery)) != nil {
			return
		}
	}
}

// look does what is due.
func (s *Service) look(ctx context.Context) {
	now, r := s.cfg.Now(), &s.meta.refresh
	m, err := s.metadata(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil && (m == nil || m.err == nil) {
		s.log.Warn("the FIDO metadata cannot be read now", "reason", err)
		return
	}
	if s.cfg.MetadataURL != "" && s.fetchDue(m, now) {
		s.fetch(ctx, now)
		if m, err = s.metadata(ctx); err != nil && (m == nil || m.err == nil) {
			return
		}
	}
	s.alarm(m, now)
	if m == nil || m.err != nil || ctx.Err() != nil {
		return
	}
	due := m.version != r.walked || !now.Before(r.walkedAt.Add(walkEvery))
	if due && !now.Before(r.retryWalk) {
		if err := s.walk(ctx); err != nil {
			if ctx.Err() == nil {
				s.log.Error("status reports in the FIDO metadata were not all acted on; it is tried again", "reason", err)
			}
			r.retryWalk = now.Add(10 * time.Minute)
			return
		}
		r.walked, r.walkedAt = m.version, now
	}
}

// fetchDue says whether it is time to fetch: at once where there is none that can
// be used, else each day, and more often from a day before the next one is due.
func (s *Service) fetchDue(m *loadedMetadata, now time.Time) bool {
	r := &s.meta.refresh
	if !r.nextFetch.IsZero() {
		return !now.Before(r.nextFetch)
	}
	if m == nil || m.err != nil {
		return true
	}
	// The first time since the start: as if this node had fetched what is stored.
	r.nextFetch = m.imported.Add(s.jitter(s.interval(m, now)))
	return !now.Before(r.nextFetch)
}

func (s *Service) interval(m *loadedMetadata, now time.Time) time.Duration {
	if m == nil || m.err != nil || !now.Before(m.nextUpdate.Add(-24*time.Hour)) {
		return fetchLate
	}
	// Not later than a day before the next one is due.
	return max(fetchLate, min(fetchEvery, m.nextUpdate.Add(-24*time.Hour).Sub(now)))
}

// fetch gets the metadata and imports it. A failure is logged, and tried again
// ever later.
func (s *Service) fetch(ctx context.Context, now time.Time) {
	r := &s.meta.refresh
	info, err := s.fetchAndImport(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		wait := min(fetchLate, retryFirst<<min(r.failures, 20))
		r.failures++
		r.nextFetch = now.Add(s.jitter(wait))
		s.log.Warn("the FIDO metadata was not refreshed", "url", s.cfg.MetadataURL, "reason", err, "again", r.nextFetch.UTC().Format(time.RFC3339))
		return
	}
	m, _ := s.metadata(ctx)
	r.failures = 0
	r.nextFetch = now.Add(s.jitter(s.interval(m, now)))
	s.log.Info("the FIDO metadata was refreshed", "number", info.Number, "next_update", info.NextUpdate.Format(time.DateOnly))
}

func (s *Service) fetchAndImport(ctx context.Context) (MetadataInfo, error) {
	get := s.cfg.Fetch
	if get == nil {
		get = FetchHTTPS
	}
	if err := onlyHTTPS(s.cfg.MetadataURL); err != nil {
		return MetadataInfo{}, err
	}
	limited, cancel := context.WithTimeout(ctx, fetchAtMost)
	defer cancel()
	blob, err := get(limited, s.cfg.MetadataURL)
	if err != nil {
		return MetadataInfo{}, err
	}
	return s.ImportMetadata(ctx, system, blob)
}

// alarm logs, once a day, that the metadata is stale or cannot be used.
func (s *Service) alarm(m *loadedMetadata, now time.Time) {
	s.meta.mu.Lock()
	due := now.Sub(s.meta.alarmed) >= alarmEvery
	s.meta.mu.Unlock()
	if m == nil || !due {
		return
	}
	switch {
	case m.err != nil:
		s.log.Error("the FIDO metadata that is stored cannot be used: attested keys cannot be enrolled", "reason", m.err)
	case m.expired(now):
		end := "it is still used to enrol keys for a while"
		if err := s.usable(m, now); err != nil {
			end = err.Error()
		}
		s.log.Error("the FIDO metadata is stale: import a newer one, or see why it is not fetched",
			"number", m.number, "next_update", m.nextUpdate.Format(time.DateOnly), "age", inWords(m.age(now)), "meanwhile", end)
	default:
		return
	}
	s.meta.mu.Lock()
	s.meta.alarmed = now
	s.meta.mu.Unlock()
}

// jitter is d, give or take a tenth.
func (s *Service) jitter(d time.Duration) time.Duration {
	var b [2]byte
	if _, err := io.ReadFull(s.cfg.Rand, b[:]); err != nil {
		return d
	}
	part := float64(int(b[0])<<8|int(b[1]))/65535 - 0.5
	return d + time.Duration(part*float64(d)/5)
}

func (s *Service) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// FetchHTTPS gets a URL by HTTPS, and by nothing else on the way: the body of a
// 200, of at most MaxMetadata bytes. It follows HTTPS_PROXY.
func FetchHTTPS(ctx context.Context, where string) ([]byte, error) {
	return fetchWith(ctx, http.DefaultTransport, where)
}

func fetchWith(ctx context.Context, transport http.RoundTripper, where string) ([]byte, error) {
	if err := onlyHTTPS(where); err != nil {
		return nil, err
	}
	client := http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) >= 5 {
			return errors.New("it redirects too often")
		}
		return onlyHTTPS(r.URL.String())
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("User-Agent", "Watchword")
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", where, answer.Status)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, MaxMetadata+1))
	if err != nil {
		return nil, fmt.Errorf("%s: it broke off after %d bytes: %w", where, len(body), err)
	}
	if len(body) > MaxMetadata {
		return nil, fmt.Errorf("%s: more than %d bytes; metadata has some 7 million", where, MaxMetadata)
	}
	return body, nil
}

func onlyHTTPS(where string) error {
	u, err := url.Parse(where)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%w: metadata is fetched by https only, and %s is not that", tokens.ErrInvalid, printable(where))
	}
	return nil
}
