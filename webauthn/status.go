package webauthn

import (
	"cmp"
	"context"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// Concern is a key that was enrolled, and whose model the metadata reports as not
// to be trusted.
type Concern struct {
	Serial    string    `json:"serial"`
	Realm     string    `json:"realm"`
	User      string    `json:"user,omitempty"` // its owner's key
	Model     string    `json:"model"`
	AAGUID    string    `json:"aaguid,omitempty"`
	Status    string    `json:"status"`           // the gravest that is reported: REVOKED, ...
	Since     time.Time `json:"since,omitzero"`   // from when the report is in effect; zero: always
	Note      string    `json:"note,omitempty"`   // why it may not be this very key, or where there is more to read
	Suspended bool      `json:"suspended"`        // the token is suspended now, for whatever reason
	State     string    `json:"state"`            // the token's
	Others    []string  `json:"others,omitempty"` // further statuses in effect

	firm bool // it is about this key, not only about some of its model
}

// census is what a walk over all keys found: how many there are of each model,
// and which of them a report concerns.
type census struct {
	version  int64 // of the metadata
	taken    time.Time
	counts   map[*knownModel]map[string]int // by realm
	concerns []Concern
}

// of is how many keys there are of a model, in one realm or in all.
func (c *census) of(k *knownModel, realm string) int {
	if realm != "" {
		return c.counts[k][realm]
	}
	n := 0
	for _, in := range c.counts[k] {
		n += in
	}
	return n
}

// censusLife is how long a walk over all keys is remembered for who only looks.
const censusLife = time.Minute

// census answers a census under m that is not old.
func (s *Service) census(ctx context.Context, m *loadedMetadata) (*census, error) {
	now := s.cfg.Now()
	s.meta.mu.Lock()
	c := s.meta.census
	s.meta.mu.Unlock()
	if c != nil && c.version == m.version && now.Sub(c.taken) < censusLife && !now.Before(c.taken) {
		return c, nil
	}
	return s.takeCensus(ctx, m)
}

func (s *Service) takeCensus(ctx context.Context, m *loadedMetadata) (*census, error) {
	now := s.cfg.Now()
	c := &census{version: m.version, taken: now, counts: map[*knownModel]map[string]int{}}
	err := s.core.EachKey(ctx, func(t *tokens.Token) error {
		if t.Credential == nil || t.State == tokens.Revoked {
			return nil
		}
		k := m.models.find(t.Credential.AAGUID, t.Credential.Attester)
		if k == nil {
			return nil
		}
		if c.counts[k] == nil {
			c.counts[k] = map[string]int{}
		}
		c.counts[k][t.Realm]++
		if one, ok := k.concern(t, now); ok {
			c.concerns = append(c.concerns, one)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.meta.mu.Lock()
	s.meta.census, s.meta.concerned = c, len(c.concerns)
	s.meta.mu.Unlock()
	return c, nil
}

// concern says whether a report about the model concerns a token, and which.
func (k *knownModel) concern(t *tokens.Token, now time.Time) (Concern, bool) {
	one := Concern{
		Serial: t.Serial, Realm: t.Realm, User: t.Owner, Model: k.Name, AAGUID: k.AAGUID,
		State: string(t.State), Suspended: t.State == tokens.Suspended,
	}
	found := concerns(inEffect(k.Status, now), nil)
	found = slices.DeleteFunc(found, func(r StatusReport) bool { return scope(r, t.Credential) == otherKeys })
	if len(found) == 0 {
		return one, false
	}
	// The gravest first, and of those what is certainly about this key.
	slices.SortStableFunc(found, func(a, b StatusReport) int {
		return cmp.Or(cmp.Compare(scope(b, t.Credential), scope(a, t.Credential)),
			cmp.Compare(slices.Index(untrusted, a.Status), slices.Index(untrusted, b.Status)))
	})
	one.Status, one.Since = found[0].Status, found[0].Since
	one.firm = scope(found[0], t.Credential) == thisKey
	for _, r := range found[1:] {
		if r.Status != one.Status && !slices.Contains(one.Others, r.Status) {
			one.Others = append(one.Others, r.Status)
		}
	}
	if !one.firm {
		one.Note = "the report is about one attestation certificate; it was not noted whether this key has that one"
	} else if found[0].URL != "" {
		one.Note = "see " + found[0].URL
	}
	return one, true
}

// inEffect are the reports that are in effect at the time (section 3.1.3:
// effectiveDate, sunsetDate).
func inEffect(reports []StatusReport, now time.Time) []StatusReport {
	var list []StatusReport
	for _, r := range reports {
		if !r.Since.After(now) && (r.Until.IsZero() || r.Until.After(now)) {
			list = append(list, r)
		}
	}
	return list
}

// What a report can be about, seen from one key.
const (
	otherKeys = iota // not this one
	someKeys         // perhaps this one
	thisKey
)

// scope says whether a report is about a key. One about a certificate is about
// the keys that were attested with it, or below it.
func scope(r StatusReport, c *tokens.Credential) int {
	if len(r.Certificate) == 0 {
		return thisKey
	}
	cert, err := x509.ParseCertificate(r.Certificate)
	if err != nil || cert.IsCA || c.Attester == "" {
		return someKeys
	}
	if slices.Contains(keyIdentifiers(cert), strings.ToLower(c.Attester)) {
		return thisKey
	}
	return otherKeys
}

// keyIdentifiers are what a certificate's key goes by: what stands in it, and
// SHA-1 of the key (RFC 5280, section 4.2.1.2), which is the same in most.
func keyIdentifiers(c *x509.Certificate) []string {
	var ids []string
	if len(c.SubjectKeyId) > 0 {
		ids = append(ids, hex.EncodeToString(c.SubjectKeyId))
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err == nil {
		sum := sha1.Sum(info.Key.Bytes)
		ids = append(ids, hex.EncodeToString(sum[:]))
	}
	return ids
}

// Concerns lists the keys that a status report concerns; for a principal of one
// realm, its realm's.
func (s *Service) Concerns(ctx context.Context, p tokens.Principal) ([]Concern, error) {
	e := audit.Event{Realm: p.Realm, Detail: []audit.Field{{Name: "of", Value: "concerns"}}}
	if err := s.core.Allow(ctx, p, actShow, e); err != nil {
		return nil, err
	}
	m, err := s.metadata(ctx)
	if err != nil || m == nil {
		return nil, err
	}
	c, err := s.census(ctx, m)
	if err != nil {
		return nil, err
	}
	list := []Concern{}
	for _, one := range c.concerns {
		if p.Realm == "" || one.Realm == p.Realm {
			list = append(list, one)
		}
	}
	return list, nil
}

// actedOn is what was done about a key, in document fido.concerns: each report is
// acted on once, on whichever node, so that a key which somebody resumed knowingly
// stays so until something else is reported.
type actedOn struct {
	Realm     string   `json:"realm"`
	Serial    string   `json:"serial"`
	Status    []string `json:"status"`    // each with the date since when
	Suspended bool     `json:"suspended"` // rather than only reported
}

// actAtOnce is how many keys are noted in one write.
const actAtOnce = 100

// system is the server itself, which acts on reports and fetches metadata.
var system = tokens.Principal{Kind: tokens.KindSystem, Scope: "system"}

// walk looks at all keys, and acts on what the metadata reports of their models.
// It is idempotent: what was done is done once, by whichever node is first.
func (s *Service) walk(ctx context.Context) error {
	m, err := s.metadata(ctx)
	if err != nil || m == nil {
		return err
	}
	c, err := s.takeCensus(ctx, m)
	if err != nil {
		return err
	}
	acted, version, err := s.actedOn(ctx)
	if err != nil {
		return err
	}
	before := map[[2]string]actedOn{}
	for _, a := range acted {
		before[[2]string{a.Realm, a.Serial}] = a
	}
	now := map[[2]string]actedOn{} // what stays noted
	var news []Concern
	var failed error
	for _, one := range c.concerns {
		key := [2]string{one.Realm, one.Serial}
		was, known := before[key]
		is := actedOn{Realm: one.Realm, Serial: one.Serial, Status: one.statuses(), Suspended: was.Suspended}
		fresh := !known || slices.ContainsFunc(is.Status, func(st string) bool { return !slices.Contains(was.Status, st) })
		// One that somebody suspended is suspended by us once it is resumed.
		if s.cfg.SuspendOnStatus && one.firm && one.State == string(tokens.Active) && (fresh || !was.Suspended) {
			switch _, err := s.core.SuspendKey(ctx, one.Serial, one.Realm, one.reason(m)); {
			case err == nil:
				is.Suspended, fresh = true, true
			case errors.Is(err, tokens.ErrState), errors.Is(err, tokens.ErrNotFound): // it is not active any more
			default:
				// Not noted, so that the next walk tries again.
				failed = errors.Join(failed, fmt.Errorf("token %s: %w", one.Serial, err))
				if known {
					now[key] = was
				}
				continue
			}
		}
		now[key] = is
		if fresh {
			news = append(news, one)
		}
	}
	if len(news) == 0 && len(now) == len(before) {
		return failed
	}
	// What a node dies before noting is done again, and does nothing.
	return errors.Join(failed, s.noteActs(ctx, m, now, news, version))
}

// noteActs writes what was done, with the keys that it is new for in the audit;
// then an event for each of them, that is found by its serial.
func (s *Service) noteActs(ctx context.Context, m *loadedMetadata, now map[[2]string]actedOn, news []Concern, version int64) error {
	var list []actedOn
	for _, a := range now {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b actedOn) int {
		return cmp.Or(cmp.Compare(a.Realm, b.Realm), cmp.Compare(a.Serial, b.Serial))
	})
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	detail := []audit.Field{{Name: "number", Value: strconv.FormatInt(m.number, 10)}, {Name: "concerned", Value: strconv.Itoa(len(list))}}
	for i, one := range news {
		if i == actAtOnce {
			detail = append(detail, audit.Field{Name: "and", Value: strconv.Itoa(len(news)-i) + " more, an event each"})
			break
		}
		detail = append(detail, audit.Field{Name: "key", Value: one.Realm + "/" + one.Serial + " " + one.Status})
	}
	_, err = s.core.PutSealed(ctx, system, actImport, "", tokens.DocumentWrite{
		Name: concernsDocument, Expect: version, Updated: s.cfg.Now(), Data: data,
	}, detail)
	if moved(err) {
		return nil // another node was first; what it did not see, the next walk does
	}
	if err != nil {
		return err
	}
	for _, one := range news {
		e := audit.Event{
			Realm: one.Realm, Serial: one.Serial, User: one.User, Reason: one.reason(m),
			Detail: []audit.Field{{Name: "of", Value: "status report"}, {Name: "model", Value: one.Model}, {Name: "aaguid", Value: one.AAGUID}},
		}
		if err := s.core.Allow(ctx, system, actShow, e); err != nil {
			return err
		}
	}
	s.log.Warn("status reports in the FIDO metadata concern keys that are enrolled; 'fido concerns' lists them",
		"number", m.number, "new", len(news), "all", len(list))
	return nil
}

// actedOn reads what was done before. What cannot be believed is as nothing: at
// worst something is done again.
func (s *Service) actedOn(ctx context.Context) ([]actedOn, int64, error) {
	doc, err := s.core.SealedDocument(ctx, concernsDocument)
	switch {
	case errors.Is(err, tokens.ErrNotFound):
		return nil, 0, nil
	case err != nil && !errors.Is(err, tokens.ErrTampered):
		return nil, 0, err
	}
	var list []actedOn
	if err == nil {
		err = json.Unmarshal(doc.Data, &list)
	}
	if err != nil {
		s.log.Error("what was done about status reports is not readable; it is done anew", "reason", err)
		list = nil
	}
	return list, doc.Version, nil
}

// statuses are all that is reported of the key, each as it is noted once acted on.
func (c *Concern) statuses() []string {
	list := append([]string{c.Status}, c.Others...)
	slices.Sort(list)
	return list
}

// reason is the concern in a sentence, for the audit.
func (c *Concern) reason(m *loadedMetadata) string {
	since := ""
	if !c.Since.IsZero() {
		since = " since " + c.Since.Format(time.DateOnly)
	}
	return fmt.Sprintf("FIDO metadata %d reports its model as %s%s", m.number, c.Status, since)
}
