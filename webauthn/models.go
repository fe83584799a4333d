package webauthn

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-webauthn/webauthn/metadata"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// blobEntry is what is read of an entry of a metadata blob (FIDO Metadata Service
// 3.1.1, section 3.1.1, and Metadata Statement 3.1.1, section 4). The rest, icons
// above all, is passed over.
type blobEntry struct {
	AAID      string       `json:"aaid"`
	AAGUID    string       `json:"aaguid"`
	Attesters []string     `json:"attestationCertificateKeyIdentifiers"`
	Changed   string       `json:"timeOfLastStatusChange"`
	Status    []blobStatus `json:"statusReports"`
	Statement struct {
		AAGUID       string `json:"aaguid"`
		Description  string `json:"description"`
		Protocol     string `json:"protocolFamily"`
		MultiDevice  string `json:"multiDeviceCredentialSupport"`
		Verification [][]struct {
			Method string `json:"userVerificationMethod"`
		} `json:"userVerificationDetails"`
		Algorithms    []string `json:"authenticationAlgorithms"`
		Attestation   []string `json:"attestationTypes"`
		KeyProtection []string `json:"keyProtection"`
		Hints         []string `json:"attachmentHint"`
		Roots         []string `json:"attestationRootCertificates"`
		Info          struct {
			AAGUID     string   `json:"aaguid"`
			Transports []string `json:"transports"`
			Formats    []string `json:"attestationFormats"`
			Algorithms []struct {
				Algorithm int64 `json:"alg"`
			} `json:"algorithms"`
		} `json:"authenticatorGetInfo"`
	} `json:"metadataStatement"`
}

// blobStatus is a StatusReport as it comes (section 3.1.3).
type blobStatus struct {
	Status      string `json:"status"`
	Since       string `json:"effectiveDate"`
	Until       string `json:"sunsetDate"`
	Version     uint32 `json:"authenticatorVersion"`
	Batch       string `json:"batchCertificate"`
	Certificate string `json:"certificate"`
	URL         string `json:"url"`
}

// knownModel is a model with what a ceremony asks of it.
type knownModel struct {
	Model
	facts   modelFacts
	problem string // why nothing can be enrolled by this entry: it is not understood
}

// id is what a model is listed by: its AAGUID, or the first of its attesters.
func (k *knownModel) id() string {
	if k.AAGUID != "" {
		return k.AAGUID
	}
	return k.Attesters[0]
}

// modelIndex holds the models of one blob.
type modelIndex struct {
	all     []*knownModel // by name, then id, once it is finished
	aaguids map[[16]byte]*knownModel
	keys    map[string]*knownModel       // attestation certificate key identifier, lower case hex
	unread  []string                     // what could not be used, and why
	certs   map[string]*x509.Certificate // by DER, while it is filled: a vendor's models have the same roots
}

// find is the model with the AAGUID, or for one that has none, with the
// attestation key's identifier; nil if there is none.
func (x *modelIndex) find(aaguid [16]byte, attester string) *knownModel {
	if aaguid != [16]byte{} {
		return x.aaguids[aaguid]
	}
	return x.keys[strings.ToLower(attester)]
}

// finish orders the models for listing, and notes which are not understood.
func (x *modelIndex) finish() {
	slices.SortFunc(x.all, func(a, b *knownModel) int {
		return cmp.Or(cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)), cmp.Compare(a.id(), b.id()))
	})
	x.certs = nil
	for _, k := range x.all {
		if k.problem != "" {
			x.unread = append(x.unread, printable(k.Name)+": "+k.problem)
		}
	}
}

// add takes an entry into the index. One that is not understood, in part or as a
// whole (typed), stays in it if it says which model it is about: it then names a
// model that nothing can be enrolled of, not an unknown one.
func (x *modelIndex) add(e *blobEntry, typed *json.UnmarshalTypeError) error {
	if e.AAID != "" && e.AAGUID == "" && len(e.Attesters) == 0 {
		return nil // UAF, which browsers do not speak
	}
	if x.aaguids == nil {
		x.aaguids, x.keys, x.certs = map[[16]byte]*knownModel{}, map[string]*knownModel{}, map[string]*x509.Certificate{}
	}
	k := &knownModel{Model: Model{Name: e.Statement.Description, Protocol: e.Statement.Protocol}}
	if typed != nil {
		k.note("%s is not of the type that it should be", typed.Field)
	}
	var id [16]byte
	if e.AAGUID != "" {
		var ok bool
		if id, ok = parseAAGUID(e.AAGUID); !ok {
			x.unread = append(x.unread, fmt.Sprintf("%s: its AAGUID %s is none", printable(k.Name), printable(e.AAGUID)))
		} else if id != [16]byte{} {
			k.AAGUID = tokens.FormatAAGUID(id)
		}
	}
	for _, key := range e.Attesters {
		if raw, err := hex.DecodeString(key); err != nil || len(raw) == 0 || len(raw) > 64 {
			x.unread = append(x.unread, fmt.Sprintf("%s: its key identifier %s is none", printable(k.Name), printable(key)))
		} else if key = strings.ToLower(key); !slices.Contains(k.Attesters, key) {
			k.Attesters = append(k.Attesters, key)
		}
	}
	if k.AAGUID == "" && len(k.Attesters) == 0 {
		x.unread = append(x.unread, fmt.Sprintf("%s: nothing says which authenticators it is about", printable(k.Name)))
		return nil
	}
	k.fill(e, x.certs)
	if k.Name == "" {
		k.Name = k.id()
	}
	kept := false
	if k.AAGUID != "" {
		kept = keep(x.aaguids, id, k)
	} else {
		// A model with an AAGUID is found by that alone: its attestation key may be
		// shared with others of the vendor's.
		for _, key := range k.Attesters {
			kept = keep(x.keys, key, k) || kept
		}
	}
	if kept {
		x.all = append(x.all, k)
	}
	return nil
}

// keep puts a model under its key. Two entries for one model cannot both be
// right: nothing is enrolled by either, and the reports of both count.
func keep[K comparable](m map[K]*knownModel, key K, k *knownModel) bool {
	if first := m[key]; first != nil {
		first.note("it is in the metadata twice")
		first.Status = append(first.Status, k.Status...)
		first.facts.status = first.Status
		k.note("it is in the metadata twice")
		return false
	}
	m[key] = k
	return true
}

// note adds to what is not understood.
func (k *knownModel) note(format string, args ...any) {
	if k.problem != "" {
		k.problem += "; "
	}
	k.problem += fmt.Sprintf(format, args...)
}

// fill reads what is in the entry into the model.
func (k *knownModel) fill(e *blobEntry, certs map[string]*x509.Certificate) {
	st := &e.Statement
	for _, other := range []string{st.AAGUID, st.Info.AAGUID} {
		if id, ok := parseAAGUID(other); other != "" && (!ok || id != [16]byte{} && tokens.FormatAAGUID(id) != k.AAGUID) {
			k.note("within it another AAGUID (%s) is named", printable(other))
		}
	}
	k.AttestationTypes, k.Algorithms, k.KeyProtection = st.Attestation, st.Algorithms, st.KeyProtection
	k.MultiDevice = st.MultiDevice
	for _, all := range st.Verification {
		for _, one := range all {
			if one.Method != "" && !slices.Contains(k.Verification, one.Method) {
				k.Verification = append(k.Verification, one.Method)
			}
		}
	}
	k.Transports = st.Info.Transports
	if k.Transports == nil {
		for _, h := range []struct{ hint, transport string }{
			{"wired", "usb"}, {"nfc", "nfc"}, {"bluetooth", "ble"}, {"internal", "internal"},
		} {
			if slices.Contains(st.Hints, h.hint) {
				k.Transports = append(k.Transports, h.transport)
			}
		}
	}
	k.Changed = k.day("timeOfLastStatusChange", e.Changed)
	for i := range e.Status {
		k.Status = append(k.Status, k.report(&e.Status[i]))
	}
	for i, text := range st.Roots {
		c, err := certificateFromBase64(text)
		if err != nil {
			// Without it fewer are trusted, not more.
			k.note("its root certificate %d is not understood", i+1)
			continue
		}
		if same := certs[string(c.Raw)]; same != nil {
			c = same
		}
		certs[string(c.Raw)] = c
		k.facts.roots = append(k.facts.roots, c)
	}
	k.facts.status, k.facts.formats = k.Status, st.Info.Formats
	for _, a := range st.Info.Algorithms {
		k.facts.algorithms = append(k.facts.algorithms, a.Algorithm)
	}
	all := true
	for _, name := range st.Algorithms {
		id, known := metadata.AuthenticationAlgorithm(name).COSEAlgorithmIdentifier()
		if all = all && known; known && !slices.Contains(k.facts.algorithms, int64(id)) {
			k.facts.algorithms = append(k.facts.algorithms, int64(id))
		}
	}
	if !all && len(st.Info.Algorithms) == 0 {
		k.facts.algorithms = nil
	}
}

func (k *knownModel) report(s *blobStatus) StatusReport {
	r := StatusReport{
		Status: s.Status, Version: s.Version, URL: s.URL,
		Since: k.day("effectiveDate", s.Since), Until: k.day("sunsetDate", s.Until),
	}
	if text := cmp.Or(s.Certificate, s.Batch); text != "" {
		if c, err := certificateFromBase64(text); err != nil {
			k.note("the certificate of its report %s is not understood", printable(s.Status))
		} else {
			r.Certificate = c.Raw
		}
	}
	if s.Status == "" {
		k.note("a status report says nothing")
	}
	return r
}

func (k *knownModel) day(name, text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.DateOnly, text)
	if err != nil {
		k.note("its %s %s is no date", name, printable(text))
		return time.Time{}
	}
	return t
}

// certificateFromBase64 reads base64 of DER; real statements have line breaks and
// spaces in it.
func certificateFromBase64(text string) (*x509.Certificate, error) {
	der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// lookup answers what is known of an authenticator by its AAGUID, or for zeros
// by its attestation key (SHA-1 key identifier, hex). The error is ErrState if
// what the metadata says cannot be used: it expired too long ago, or is not
// understood.
func (s *Service) lookup(ctx context.Context, aaguid [16]byte, attester string) (modelFacts, bool, error) {
	own, err := s.ownRoots(ctx)
	if err != nil {
		return modelFacts{}, false, err
	}
	facts := modelFacts{own: own}
	m, err := s.metadata(ctx)
	if err != nil || m == nil {
		return facts, false, err
	}
	now := s.cfg.Now()
	if err := s.usable(m, now); err != nil {
		return facts, false, err
	}
	k := m.models.find(aaguid, attester)
	if k == nil {
		return facts, false, nil
	}
	if k.problem != "" {
		return facts, false, fmt.Errorf("%w: the metadata's entry for %s cannot be relied on: %s", tokens.ErrState, printable(k.Name), k.problem)
	}
	facts = k.facts
	facts.own, facts.entry, facts.status = own, k.at(now), inEffect(k.Status, now)
	return facts, true, nil
}

// at is the model with the certification that it has at the time.
func (k *knownModel) at(now time.Time) *Model {
	m := k.Model
	m.Certification = certification(m.Status, now)
	return &m
}

// ModelQuery selects models. Empty fields select all.
type ModelQuery struct {
	Q      string // part of the name, in either case
	AAGUID string // with or without dashes; for a model that has none, an attestation key identifier
	Limit  int    // 1 to 1000; zero: 100
	After  string // the AAGUID, or for a model without one the first attester, of the last model seen
}

// Models lists the models that the metadata knows, by name, and how many of the
// keys that were enrolled are of each. A principal of one realm has only its
// realm's keys counted. Without metadata there are none.
func (s *Service) Models(ctx context.Context, p tokens.Principal, q ModelQuery) ([]Model, error) {
	if err := s.core.Allow(ctx, p, actShow, audit.Event{Realm: p.Realm, Detail: []audit.Field{{Name: "of", Value: "models"}}}); err != nil {
		return nil, err
	}
	if q.Limit == 0 {
		q.Limit = 100
	}
	if q.Limit < 1 || q.Limit > 1000 || len(q.Q) > 256 {
		return nil, fmt.Errorf("%w: a limit of %d, and %d bytes to search for; 1 to 1000, and up to 256, are possible", tokens.ErrInvalid, q.Limit, len(q.Q))
	}
	m, err := s.metadata(ctx)
	if err != nil || m == nil {
		return nil, err
	}
	list := m.models.all
	if q.After != "" {
		last := m.models.named(q.After)
		if last == nil {
			return nil, fmt.Errorf("%w: no model %s to go on after; begin anew", tokens.ErrInvalid, printable(q.After))
		}
		list = list[slices.Index(list, last)+1:]
	}
	if q.AAGUID != "" {
		one := m.models.named(q.AAGUID)
		list = slices.DeleteFunc(slices.Clone(list), func(k *knownModel) bool { return k != one })
	}
	census, err := s.census(ctx, m)
	if err != nil {
		return nil, err
	}
	now, part := s.cfg.Now(), strings.ToLower(q.Q)
	found := []Model{}
	for _, k := range list {
		if len(found) == q.Limit {
			break
		}
		if strings.Contains(strings.ToLower(k.Name), part) {
			one := k.at(now)
			one.Ours = census.of(k, p.Realm)
			found = append(found, *one)
		}
	}
	return found, nil
}

// named is the model with this AAGUID or attestation key identifier.
func (x *modelIndex) named(text string) *knownModel {
	if id, ok := parseAAGUID(text); ok && x.aaguids[id] != nil {
		return x.aaguids[id]
	}
	return x.keys[strings.ToLower(text)]
}
