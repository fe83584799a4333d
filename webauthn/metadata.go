package webauthn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// The documents that all nodes share.
const (
	metadataDocument = "fido.mds"      // the blob as it came: what it says is proven anew by each node
	rootsDocument    = "fido.roots"    // own roots, sealed (roots.go)
	concernsDocument = "fido.concerns" // which keys a status report was acted on for (status.go)
)

// What is done with the metadata, as policy and audit name it.
const (
	actImport = "fido.mds.import"
	actShow   = "fido.show"
	actRules  = "fido.rules.put"
)

// defaultGrace is how long after its next update was due metadata is used.
const defaultGrace = 30 * 24 * time.Hour

// metadataState is what a Service holds of the metadata in memory.
type metadataState struct {
	mu      sync.Mutex
	current *loadedMetadata // of the newest version seen
	highest int64           // number that was in use since the start
	roots   *loadedRoots
	census  *census
	alarmed time.Time // when it was last logged that the metadata is stale

	concerned int // keys at the last walk
	refresh   refreshState
}

// loadedMetadata is one version of the metadata, proven and indexed.
type loadedMetadata struct {
	*blobPayload
	version  int64
	imported time.Time
	sum      [sha256.Size]byte // of the blob as it came
	err      error             // it is in the database, and cannot be used
}

// MetadataInfo is the state of the metadata.
type MetadataInfo struct {
	Number     int       `json:"number"`            // the blob's own, going up; zero: there is none
	Issued     time.Time `json:"issued,omitzero"`   // zero if the blob does not say
	NextUpdate time.Time `json:"next_update"`       // the day when the next one is due at latest
	Imported   time.Time `json:"imported"`          //
	Entries    int       `json:"entries"`           // models that can be looked up
	Stale      bool      `json:"stale"`             // the next one is overdue
	Refused    string    `json:"refused,omitempty"` // why nothing is enrolled by it; empty: it is in use
	Age        string    `json:"age"`               // since it was issued, or imported if it does not say; in words
	Unread     []string  `json:"unread,omitempty"`  // what in it was not understood
}

// metadata answers the metadata in use, nil if there is none. Each version is
// proven and read once.
func (s *Service) metadata(ctx context.Context) (*loadedMetadata, error) {
	doc, err := s.core.Document(ctx, metadataDocument)
	if errors.Is(err, tokens.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.meta.mu.Lock()
	defer s.meta.mu.Unlock()
	m := s.meta.current
	if m == nil || m.version != doc.Version {
		m = s.open(doc)
		if m.err == nil && m.number < s.meta.highest {
			// Signed, and older: only the database can have brought it back.
			m.err = fmt.Errorf("%w: the FIDO metadata that is stored has number %d, and number %d was in use: it never goes back; import a current one", tokens.ErrState, m.number, s.meta.highest)
		}
		if m.err != nil {
			s.log.Error("the stored FIDO metadata cannot be used", "version", doc.Version, "reason", m.err)
		} else {
			s.meta.highest = m.number
		}
		s.meta.current = m
	}
	return m, m.err
}

// highest is the highest number that was in use on this node since its start.
func (s *Service) highest() int64 {
	s.meta.mu.Lock()
	defer s.meta.mu.Unlock()
	return s.meta.highest
}

// open proves and reads a stored blob. Its certificates must have been valid when
// it was stored: they may expire while it is in use.
func (s *Service) open(doc tokens.Document) *loadedMetadata {
	m := &loadedMetadata{version: doc.Version, imported: doc.Updated, sum: sha256.Sum256(doc.Data)}
	anchors, err := fidoAnchors(s.cfg.MetadataRoots)
	if err == nil {
		m.blobPayload, err = openBlob(doc.Data, anchors, doc.Updated)
	}
	if err != nil {
		m.err = fmt.Errorf("%w: the FIDO metadata that is stored cannot be used: %w. It was altered, or the roots that are configured for it are others than when it was imported; import it anew", tokens.ErrState, err)
		return m
	}
	s.log.Info("FIDO metadata is in use", "number", m.number, "next_update", m.nextUpdate.Format(time.DateOnly),
		"models", len(m.models.all), "not_understood", len(m.models.unread))
	for i, text := range m.models.unread {
		if i == 20 {
			break
		}
		s.log.Warn("part of the FIDO metadata is not understood", "number", m.number, "what", text)
	}
	return m
}

// usable says why nothing may be enrolled by the metadata, if it expired too long
// ago.
func (s *Service) usable(m *loadedMetadata, now time.Time) error {
	grace := s.cfg.MetadataGrace
	if grace == 0 {
		grace = defaultGrace
	}
	if grace < 0 || !m.expired(now.Add(-grace)) {
		return nil
	}
	return fmt.Errorf("%w: the FIDO metadata (number %d) expired on %s, and the %d days for which it may still be used are over; import a newer one",
		tokens.ErrState, m.number, m.nextUpdate.Format(time.DateOnly), int(grace.Hours()/24))
}

// MayImportMetadata says whether p may import metadata, before anything of it is
// read. It leaves nothing behind but the audit record of a refusal.
func (s *Service) MayImportMetadata(ctx context.Context, p tokens.Principal) error {
	return s.core.May(ctx, p, actImport, "")
}

// ImportMetadata takes a metadata blob into use on all nodes. ErrInvalid says why
// one is refused: its signature or certificates are wrong, it expired, or its
// number is lower than that of the one in use. The one in use may be imported
// again; nothing happens then.
func (s *Service) ImportMetadata(ctx context.Context, p tokens.Principal, blob []byte) (MetadataInfo, error) {
	sum := sha256.Sum256(blob)
	detail := []audit.Field{{Name: "sha256", Value: hex.EncodeToString(sum[:])}, {Name: "bytes", Value: strconv.Itoa(len(blob))}}
	// To prove a blob is work, which is done for nobody else.
	if err := s.MayImportMetadata(ctx, p); err != nil {
		return MetadataInfo{}, err
	}
	now := s.cfg.Now()
	b, err := s.judge(blob, now)
	if err != nil {
		return MetadataInfo{}, s.refuseDocument(ctx, p, actImport, err, detail)
	}
	detail = append(detail, audit.Field{Name: "number", Value: strconv.FormatInt(b.number, 10)},
		audit.Field{Name: "next_update", Value: b.nextUpdate.Format(time.DateOnly)},
		audit.Field{Name: "models", Value: strconv.Itoa(len(b.models.all))})
	for range documentAttempts {
		expect := int64(0)
		// What is stored and cannot be used (m.err) is no reason to keep it.
		m, err := s.metadata(ctx)
		if err != nil && (m == nil || m.err == nil) {
			return MetadataInfo{}, err
		}
		if m != nil {
			expect = m.version
		}
		if highest := s.highest(); b.number < highest {
			err = fmt.Errorf("its number is %d, and number %d is in use: metadata never goes back", b.number, highest)
			return MetadataInfo{}, s.refuseDocument(ctx, p, actImport, err, detail)
		}
		if m != nil && m.err == nil {
			switch {
			case m.sum == sum:
				detail = append(detail, audit.Field{Name: "unchanged", Value: "true"})
				return s.info(m, now), s.core.Allow(ctx, p, actImport, audit.Event{Detail: detail})
			case b.number == m.number && b.nextUpdate.Before(m.nextUpdate):
				err = fmt.Errorf("it has the number that is in use (%d), and expires earlier", b.number)
				return MetadataInfo{}, s.refuseDocument(ctx, p, actImport, err, detail)
			}
		}
		doc, err := s.core.PutDocument(ctx, p, actImport, "", tokens.DocumentWrite{
			Name: metadataDocument, Expect: expect, Updated: now, Data: bytes.Clone(blob),
		}, detail)
		if moved(err) {
			continue
		}
		if err != nil {
			return MetadataInfo{}, err
		}
		return s.info(&loadedMetadata{blobPayload: b, version: doc.Version, imported: doc.Updated}, now), nil
	}
	return MetadataInfo{}, fmt.Errorf("%w: the metadata is changed elsewhere all the time", tokens.ErrUnavailable)
}

// documentAttempts bounds how often a write is tried again after another node
// wrote the same document.
const documentAttempts = 5

// judge proves a blob that is to be imported.
func (s *Service) judge(blob []byte, now time.Time) (*blobPayload, error) {
	anchors, err := fidoAnchors(s.cfg.MetadataRoots)
	if err != nil {
		return nil, err
	}
	b, err := openBlob(blob, anchors, now)
	if err != nil {
		return nil, err
	}
	switch {
	case b.expired(now):
		return nil, fmt.Errorf("it expired: the next one was due on %s; get a newer one", b.nextUpdate.Format(time.DateOnly))
	case b.issued.After(now.Add(24 * time.Hour)):
		return nil, fmt.Errorf("it was issued on %s, which is to come: this server's clock is wrong", b.issued.Format(time.DateOnly))
	case len(b.models.all) == 0:
		return nil, errors.New("it has not one model in it")
	}
	return b, nil
}

// refuseDocument audits that a document was refused, and why.
func (s *Service) refuseDocument(ctx context.Context, p tokens.Principal, action string, why error, detail []audit.Field) error {
	e := audit.Event{Outcome: "refused", Reason: "invalid", Detail: append(detail, audit.Field{Name: "why", Value: why.Error()})}
	var err error
	what := "the metadata"
	switch action { // the core's actions are a type of their own
	case actRules:
		what = "the roots"
		err = s.core.Allow(ctx, p, actRules, e)
	default:
		err = s.core.Allow(ctx, p, actImport, e)
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s: %w", tokens.ErrInvalid, what, why)
}

// Metadata says which metadata is in use. Without any the answer is ErrNotFound.
func (s *Service) Metadata(ctx context.Context, p tokens.Principal) (MetadataInfo, error) {
	e := audit.Event{Realm: p.Realm, Detail: []audit.Field{{Name: "of", Value: "metadata"}}}
	if err := s.core.Allow(ctx, p, actShow, e); err != nil {
		return MetadataInfo{}, err
	}
	m, err := s.metadata(ctx)
	if err != nil {
		return MetadataInfo{}, err
	}
	if m == nil {
		return MetadataInfo{}, errNoMetadata
	}
	return s.info(m, s.cfg.Now()), nil
}

// errNoMetadata is what there is to say without a blob.
var errNoMetadata = fmt.Errorf("%w: there is no FIDO metadata yet; import a blob, or let the server fetch it", tokens.ErrNotFound)

func (s *Service) info(m *loadedMetadata, now time.Time) MetadataInfo {
	i := MetadataInfo{
		Number: int(m.number), Issued: m.issued, NextUpdate: m.nextUpdate, Imported: m.imported,
		Entries: len(m.models.all), Stale: m.expired(now), Age: inWords(m.age(now)), Unread: m.models.unread,
	}
	if err := s.usable(m, now); err != nil {
		i.Refused = err.Error()
	}
	return i
}

// age is the time since the blob was issued, or imported if it does not say.
func (m *loadedMetadata) age(now time.Time) time.Duration {
	since := m.issued
	if since.IsZero() {
		since = m.imported
	}
	return max(0, now.Sub(since))
}

func inWords(d time.Duration) string {
	switch days := int(d.Hours() / 24); {
	case days == 1:
		return "1 day"
	case days > 1:
		return strconv.Itoa(days) + " days"
	case d >= 2*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " hours"
	default:
		return strconv.Itoa(int(d.Minutes())) + " minutes"
	}
}

// MetadataNumbers are what there is to measure of the metadata.
type MetadataNumbers struct {
	Number    float64 // of the blob in use; zero: there is none
	Age       float64 // seconds since it was issued, or imported if it does not say
	DueIn     float64 // seconds until the next one is overdue; negative once it is
	Entries   float64 // models that can be looked up
	Unread    float64 // entries and parts of entries that were not understood
	Concerned float64 // keys that a status report concerned when they were last walked
	Stale     float64 // 1 if the next one is overdue, or the one in the database cannot be used
}

// MetadataNumbers answers what is known in memory: it asks neither the database
// nor for permission.
func (s *Service) MetadataNumbers() MetadataNumbers {
	now := s.cfg.Now()
	s.meta.mu.Lock()
	defer s.meta.mu.Unlock()
	n := MetadataNumbers{Concerned: float64(s.meta.concerned)}
	m := s.meta.current
	if m == nil {
		return n
	}
	if m.err != nil {
		n.Stale = 1
		return n
	}
	n.Number, n.Entries, n.Unread = float64(m.number), float64(len(m.models.all)), float64(len(m.models.unread))
	n.Age, n.DueIn = m.age(now).Seconds(), m.nextUpdate.Add(24*time.Hour).Sub(now).Seconds()
	if m.expired(now) {
		n.Stale = 1
	}
	return n
}
