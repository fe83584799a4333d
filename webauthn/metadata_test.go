package webauthn

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// mdsHouse is one installation of two nodes, on a database and an HSM in memory,
// with a clock of its own and its own metadata authority.
type mdsHouse struct {
	testing.TB
	*Service
	other *Service
	cores [2]*tokens.Service
	fido  *mdsAuthority
	admin tokens.Principal
	clock atomic.Int64
	log   mdsLog
	mem   *storetest.Memory
	keys  *hsmtest.Memory
	held  int // keys enrolled
}

type mdsLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *mdsLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *mdsLog) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

type mdsFirsts struct{ key string }

func (f *mdsFirsts) Save(key, _ string) error {
	f.key = key
	return nil
}

func newMDSHouse(t testing.TB, edits ...func(*Config)) *mdsHouse {
	t.Helper()
	h := &mdsHouse{TB: t, fido: newAuthority(t, nil), mem: storetest.NewMemory(t)}
	h.clock.Store(mdsNow.UnixNano())
	h.keys = hsmtest.NewMemory(t)
	keys := h.keys
	var f mdsFirsts
	for i := range h.cores {
		core, err := tokens.Open(t.Context(), tokens.Config{Database: h.mem, Custody: keys, Now: h.now}, keys, &f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := core.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
		h.cores[i] = core
	}
	var err error
	if h.admin, err = h.cores[0].Authenticate(t.Context(), f.key); err != nil {
		t.Fatal(err)
	}
	h.Service, h.other = h.node(h.cores[0], edits...), h.node(h.cores[1], edits...)
	return h
}

func (h *mdsHouse) now() time.Time { return time.Unix(0, h.clock.Load()).UTC() }

func (h *mdsHouse) forward(d time.Duration) { h.clock.Add(int64(d)) }

func (h *mdsHouse) node(core *tokens.Service, edits ...func(*Config)) *Service {
	h.Helper()
	cfg := Config{
		Core: core, Parties: []Party{{ID: "example.org", Origins: []string{"https://example.org"}}},
		MetadataRoots: h.fido.pool(), Now: h.now, Log: slog.New(slog.NewTextHandler(&h.log, nil)),
	}
	for _, edit := range edits {
		edit(&cfg)
	}
	s, err := New(h.Context(), cfg)
	if err != nil {
		h.Fatal(err)
	}
	return s
}

// publish imports metadata with the entries, which is current for 31 days.
func (h *mdsHouse) publish(number int, entries ...map[string]any) MetadataInfo {
	h.Helper()
	info, err := h.ImportMetadata(h.Context(), h.admin, h.fido.sign(h, mdsPayload(number, h.now().AddDate(0, 0, 31).Format(time.DateOnly), entries...), nil))
	if err != nil {
		h.Fatal(err)
	}
	return info
}

// records are the audit's with the action, oldest first.
func (h *mdsHouse) records(action, outcome string) []audit.Record {
	h.Helper()
	list, _, err := h.cores[0].Records(h.Context(), h.admin, tokens.RecordQuery{Action: action, Outcome: outcome, Limit: 1000})
	if err != nil {
		h.Fatal(err)
	}
	slices.Reverse(list)
	return list
}

// enrol gives a user of the realm a key of a model.
func (h *mdsHouse) enrol(realm, user string, aaguid [16]byte, attester string) tokens.Token {
	h.Helper()
	return mdsEnrol(h, h.cores[0], h.admin, realm, user, aaguid, attester, &h.held, h.now())
}

func mdsEnrol(t testing.TB, core *tokens.Service, admin tokens.Principal, realm, user string, aaguid [16]byte, attester string, n *int, now time.Time) tokens.Token {
	t.Helper()
	u, err := core.AddUser(t.Context(), admin, realm, user)
	if err != nil {
		t.Fatal(err)
	}
	*n++
	k, err := core.EnrolKey(t.Context(), admin, tokens.NewFIDO{
		Realm: realm, User: user,
		Credential: tokens.Credential{
			ID: fmt.Appendf(nil, "credential %d", *n), RPID: "example.org", UserID: u.ID, PublicKey: []byte{1},
			AAGUID: aaguid, Format: "packed", Attestation: "basic", Attester: attester,
		},
		Spend: tokens.Spend{Hash: sha256.Sum256(fmt.Append(nil, *n)), Expires: now.Add(time.Minute)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func why(r audit.Record) string {
	for _, f := range r.Detail {
		if f.Name == "why" {
			return f.Value
		}
	}
	return ""
}

func TestImportedMetadataIsTheSameOnEveryNode(t *testing.T) {
	h := newMDSHouse(t)
	if _, err := h.Metadata(t.Context(), h.admin); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("before any was imported: %v", err)
	}
	if facts, known, err := h.lookup(t.Context(), mdsAAGUID(1), ""); known || err != nil || facts.entry != nil {
		t.Errorf("a model before any metadata: %+v, %v, %v", facts, known, err)
	}
	old := mdsCert(t, nil, func(*certTemplate) {})
	info := h.publish(77, mdsEntry(mdsAAGUID(1), "Key One", h.fido.root.cert, "FIDO_CERTIFIED", "FIDO_CERTIFIED_L2"), mdsU2F("Old One", old.cert, "FIDO_CERTIFIED"))
	if info.Number != 77 || info.Entries != 2 || info.Stale || info.NextUpdate.Format(time.DateOnly) != "2026-04-01" || !info.Imported.Equal(h.now()) {
		t.Errorf("the import answers %+v", info)
	}
	for name, node := range map[string]*Service{"this": h.Service, "other": h.other} {
		got, err := node.Metadata(t.Context(), h.admin)
		if err != nil || got.Number != 77 || got.Entries != 2 || got.Refused != "" {
			t.Errorf("%s node has %+v, %v", name, got, err)
		}
		facts, known, err := node.lookup(t.Context(), mdsAAGUID(1), "")
		if err != nil || !known || facts.entry.Name != "Key One" || facts.entry.Certification != "FIDO_CERTIFIED_L2" || len(facts.roots) != 1 ||
			!slices.Equal(facts.algorithms, []int64{-7}) || !slices.Equal(facts.formats, []string{"packed"}) {
			t.Errorf("%s node knows %+v, %v, %v", name, facts, known, err)
		}
		if m := facts.entry; !slices.Equal(m.Verification, []string{"passcode_external", "presence_internal"}) || !slices.Equal(m.Transports, []string{"usb", "nfc"}) || m.AAGUID != tokens.FormatAAGUID(mdsAAGUID(1)) {
			t.Errorf("%s node's model is %+v", name, m)
		}
		facts, known, err = node.lookup(t.Context(), [16]byte{}, mdsKeyID(old.cert))
		if err != nil || !known || facts.entry.Name != "Old One" || !slices.Equal(facts.entry.Transports, []string{"usb", "nfc"}) {
			t.Errorf("%s node finds by the attestation key %+v, %v, %v", name, facts.entry, known, err)
		}
		if _, known, _ := node.lookup(t.Context(), mdsAAGUID(2), mdsKeyID(old.cert)); known {
			t.Error("a model with another AAGUID is found by an attestation key")
		}
		if _, known, _ := node.lookup(t.Context(), [16]byte{}, ""); known {
			t.Error("nothing is found by nothing")
		}
	}
	done := h.records("fido.mds.import", "ok")
	if len(done) != 1 || done[0].Actor != h.admin.Actor() || !slices.Contains(done[0].Detail, audit.Field{Name: "number", Value: "77"}) {
		t.Errorf("audit: %+v", done)
	}
}

func TestMetadataThatMustNotBeImportedLeavesWhatIsThere(t *testing.T) {
	h := newMDSHouse(t)
	entry := mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED")
	h.publish(77, entry)
	stranger := newAuthority(t, nil)
	good := h.fido.sign(t, mdsPayload(78, "2026-04-20", entry), nil)
	for name, c := range map[string]struct {
		raw []byte
		say string
	}{
		"lower number":            {h.fido.sign(t, mdsPayload(76, "2026-05-01", entry), nil), "never goes back"},
		"same number, less time":  {h.fido.sign(t, mdsPayload(77, "2026-03-20", entry), nil), "expires earlier"},
		"expired":                 {h.fido.sign(t, mdsPayload(78, "2026-02-28", entry), nil), "expired"},
		"expired, no next update": {h.fido.sign(t, map[string]any{"no": 78, "entries": []any{entry}}, map[string]any{"iat": h.now().AddDate(0, 0, -33).Unix()}), "expired"},
		"issued in days to come":  {h.fido.sign(t, mdsPayload(78, "2026-05-01", entry), map[string]any{"iat": h.now().AddDate(0, 0, 3).Unix()}), "clock"},
		"without models":          {h.fido.sign(t, mdsPayload(78, "2026-05-01"), nil), "not one model"},
		"another's signature":     {stranger.sign(t, mdsPayload(78, "2026-05-01", entry), nil), "chains to no trusted root"},
		"altered on the way":      {bytes.Replace(good, []byte("."), []byte(".A"), 1), "signature"},
		"cut off":                 {good[:len(good)/2], "three parts"},
		"more than is ever read":  {bytes.Repeat([]byte("a"), MaxMetadata+1), "up to"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := h.ImportMetadata(t.Context(), h.admin, c.raw)
			if !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("it is %v; it should say %q", err, c.say)
			}
			refused := h.records("fido.mds.import", "refused")
			if len(refused) == 0 || !strings.Contains(why(refused[len(refused)-1]), c.say) {
				t.Errorf("the audit's last refusal: %+v", refused)
			}
			if info, err := h.Metadata(t.Context(), h.admin); err != nil || info.Number != 77 {
				t.Errorf("in use is %+v, %v", info, err)
			}
		})
	}
	if info, err := h.ImportMetadata(t.Context(), h.admin, good); err != nil || info.Number != 78 {
		t.Errorf("the next one: %+v, %v", info, err)
	}
	version := h.version()
	if info, err := h.ImportMetadata(t.Context(), h.admin, good); err != nil || info.Number != 78 || h.version() != version {
		t.Errorf("the same again: %+v, %v, version %d and before %d", info, err, h.version(), version)
	}
	// FIDO signs the same number anew when its certificate changes.
	if info, err := h.ImportMetadata(t.Context(), h.admin, h.fido.sign(t, mdsPayload(78, "2026-04-20", entry), nil)); err != nil || h.version() != version+1 {
		t.Errorf("the same number, signed anew: %+v, %v", info, err)
	}
}

func (h *mdsHouse) version() int64 {
	h.Helper()
	d, err := h.cores[0].Document(h.Context(), metadataDocument)
	if err != nil {
		h.Fatal(err)
	}
	return d.Version
}

func TestOnlyWhoMayImportsMetadataOrSetsRoots(t *testing.T) {
	h := newMDSHouse(t)
	blob := h.fido.sign(t, mdsPayload(1, "2026-04-01", mdsEntry(mdsAAGUID(1), "Key", nil, "FIDO_CERTIFIED")), nil)
	for _, k := range []tokens.NewKey{{Name: "desk", Scope: "helpdesk"}, {Name: "reader", Scope: "read"}, {Name: "app", Scope: "verify"}, {Name: "branch", Scope: "admin", Realm: "branch"}} {
		_, text, err := h.cores[0].AddKey(t.Context(), h.admin, k)
		if err != nil {
			t.Fatal(err)
		}
		p, err := h.cores[0].Authenticate(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.ImportMetadata(t.Context(), p, blob); !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("%s imports metadata: %v", k.Name, err)
		}
		denied, _, err := h.cores[0].Records(t.Context(), h.admin, tokens.RecordQuery{Action: "fido.mds.import", Outcome: "denied", Limit: 1})
		if err != nil || len(denied) != 1 || denied[0].Actor != p.Actor() {
			t.Fatalf("%s: audited as %+v, %v", k.Name, denied, err)
		}
		if len(denied[0].Detail) != 1 { // why; to look at the blob is work
			t.Errorf("%s: the blob was looked at: %v", k.Name, denied[0].Detail)
		}
		if err := h.SetRoots(t.Context(), p, mdsPEM(h.fido.root.cert)); !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("%s sets roots: %v", k.Name, err)
		}
		if _, err := h.Models(t.Context(), p, ModelQuery{}); (k.Scope == "verify") != errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("%s lists models: %v", k.Name, err)
		}
		if _, err := h.Concerns(t.Context(), p); (k.Scope == "verify") != errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("%s lists concerns: %v", k.Name, err)
		}
	}
	if _, err := h.Metadata(t.Context(), h.admin); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("in the end there is metadata: %v", err)
	}
}

func TestMetadataThatExpiresInUseIsAlarmedAndInTheEndRefused(t *testing.T) {
	h := newMDSHouse(t)
	h.publish(77, mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED"))
	state := func() (MetadataInfo, bool, error) {
		info, err := h.Metadata(t.Context(), h.admin)
		if err != nil {
			t.Fatal(err)
		}
		_, known, err := h.lookup(t.Context(), mdsAAGUID(1), "")
		return info, known, err
	}
	h.forward(31*24*time.Hour + 11*time.Hour) // the evening of the day that it names
	if info, known, err := state(); info.Stale || !known || err != nil {
		t.Errorf("on its last day: %+v, %v, %v", info, known, err)
	}
	h.look(t.Context())
	if n := h.log.count("is stale"); n != 0 {
		t.Errorf("on its last day it is alarmed %d times", n)
	}
	h.forward(time.Hour)
	if info, known, err := state(); !info.Stale || info.Refused != "" || !known || err != nil || info.Age != "31 days" {
		t.Errorf("the day after: %+v, %v, %v", info, known, err)
	}
	if n := h.MetadataNumbers(); n.Stale != 1 || n.DueIn > 0 || n.Age < 31*86400 || n.Number != 77 || n.Entries != 1 {
		t.Errorf("to be measured: %+v", n)
	}
	for range 47 { // two days less an hour: on the first and on the second
		h.look(t.Context())
		h.forward(time.Hour)
	}
	if n := h.log.count("is stale"); n != 2 {
		t.Errorf("within two days it is alarmed %d times; once a day is right", n)
	}
	h.forward(27 * 24 * time.Hour)
	if _, known, err := state(); !known || err != nil {
		t.Errorf("on the last day of grace: %v, %v", known, err)
	}
	h.forward(25 * time.Hour)
	info, known, err := state()
	if !info.Stale || info.Refused == "" || known || !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "expired on 2026-04-01") {
		t.Errorf("after the grace: %+v, %v, %v", info, known, err)
	}
	h.publish(78, mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED"))
	if info, known, err := state(); info.Stale || info.Refused != "" || !known || err != nil {
		t.Errorf("with new metadata: %+v, %v, %v", info, known, err)
	}
}

func TestTheGraceOfExpiredMetadataIsASetting(t *testing.T) {
	for grace, want := range map[time.Duration]bool{-1: true, 24 * time.Hour: false, 90 * 24 * time.Hour: true} {
		h := newMDSHouse(t, func(c *Config) { c.MetadataGrace = grace })
		h.publish(77, mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED"))
		h.forward(75 * 24 * time.Hour)
		if _, known, err := h.lookup(t.Context(), mdsAAGUID(1), ""); known != want || want != (err == nil) {
			t.Errorf("with a grace of %v, 44 days late: %v, %v", grace, known, err)
		}
	}
}

// What somebody wrote into the database is nobody's metadata, and can be replaced.
func TestMetadataAlteredInTheDatabaseIsNotUsed(t *testing.T) {
	h := newMDSHouse(t)
	entry := mdsEntry(mdsAAGUID(1), "Key One", nil, "REVOKED")
	h.publish(77, entry)
	forged := newAuthority(t, nil).sign(t, mdsPayload(99, "2027-01-01", mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED_L3plus")), nil)
	if _, err := h.cores[0].PutDocument(t.Context(), system, actImport, "", tokens.DocumentWrite{Name: metadataDocument, Expect: 1, Data: forged}, nil); err != nil {
		t.Fatal(err)
	}
	if _, known, err := h.lookup(t.Context(), mdsAAGUID(1), ""); known || !errors.Is(err, tokens.ErrState) {
		t.Errorf("by forged metadata: %v, %v", known, err)
	}
	if _, err := h.Metadata(t.Context(), h.admin); !errors.Is(err, tokens.ErrState) {
		t.Errorf("it is shown: %v", err)
	}
	h.look(t.Context())
	if h.log.count("cannot be used: attested keys") != 1 || h.MetadataNumbers().Stale != 1 {
		t.Error("it is not alarmed")
	}
	h.publish(77, entry)
	if facts, known, err := h.lookup(t.Context(), mdsAAGUID(1), ""); !known || err != nil || facts.status[0].Status != "REVOKED" {
		t.Errorf("after it was imported anew: %+v, %v, %v", facts, known, err)
	}
}

// Older metadata is as well signed as newer, and lacks what was reported since.
func TestOlderMetadataPutBackIntoTheDatabaseIsNotUsed(t *testing.T) {
	h := newMDSHouse(t)
	fine, revoked := mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED"), mdsEntry(mdsAAGUID(1), "Key One", nil, "REVOKED")
	h.publish(77, fine)
	old, err := h.cores[0].Document(t.Context(), metadataDocument)
	if err != nil {
		t.Fatal(err)
	}
	h.publish(78, revoked)
	if _, known, err := h.lookup(t.Context(), mdsAAGUID(1), ""); !known || err != nil {
		t.Fatal(known, err)
	}
	if _, err := h.cores[0].PutDocument(t.Context(), system, actImport, "", tokens.DocumentWrite{Name: metadataDocument, Expect: 2, Updated: old.Updated, Data: old.Data}, nil); err != nil {
		t.Fatal(err)
	}
	if _, known, err := h.lookup(t.Context(), mdsAAGUID(1), ""); known || !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "never goes back") {
		t.Errorf("by the older: %v, %v", known, err)
	}
	if _, err := h.ImportMetadata(t.Context(), h.admin, old.Data); err == nil || !strings.Contains(err.Error(), "never goes back") {
		t.Errorf("importing the older: %v", err)
	}
	h.publish(78, revoked)
	if facts, known, err := h.lookup(t.Context(), mdsAAGUID(1), ""); !known || err != nil || facts.status[0].Status != "REVOKED" {
		t.Errorf("the current one again: %+v, %v, %v", facts, known, err)
	}
}

// The signing certificate may expire while its blob is in use, also for a node
// that starts then.
func TestABlobStaysInUseAfterItsCertificateExpired(t *testing.T) {
	h := newMDSHouse(t)
	short := mdsCert(t, h.fido.middle, func(c *certTemplate) { c.NotAfter = mdsNow.Add(time.Hour) })
	h.fido.leaf = short
	h.publish(77, mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED"))
	h.forward(48 * time.Hour)
	if _, err := h.other.Metadata(t.Context(), h.admin); err != nil {
		t.Errorf("another node, two days later: %v", err)
	}
	if _, err := h.ImportMetadata(t.Context(), h.admin, h.fido.sign(t, mdsPayload(78, "2026-04-20", mdsEntry(mdsAAGUID(1), "Key", nil)), nil)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("but a new one signed with it: %v", err)
	}
}

// Two nodes that import at once leave the newer one.
func TestTwoNodesThatImportAtOnceLeaveTheNewer(t *testing.T) {
	h := newMDSHouse(t)
	entry := mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED")
	for round := range 10 {
		var blobs [2][]byte
		for i := range blobs {
			blobs[i] = h.fido.sign(t, mdsPayload(10+2*round+i, "2026-04-01", entry), nil)
		}
		var wg sync.WaitGroup
		for i, node := range []*Service{h.Service, h.other} {
			wg.Go(func() {
				if _, err := node.ImportMetadata(t.Context(), h.admin, blobs[i]); err != nil && !strings.Contains(err.Error(), "never goes back") {
					t.Errorf("node %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		for i, node := range []*Service{h.Service, h.other} {
			if info, err := node.Metadata(t.Context(), h.admin); err != nil || info.Number != 11+2*round {
				t.Errorf("round %d, node %d has %+v, %v", round, i, info, err)
			}
		}
	}
}

// The same on the database and the HSM that Watchword starts with.
func TestMetadataOnSQLiteAndSoftHSM(t *testing.T) {
	db, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "watchword.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	keys := mdsSoftHSM(t)
	var f mdsFirsts
	core, err := tokens.Open(t.Context(), tokens.Config{Database: db, Custody: keys, Exclusive: true}, keys, &f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { core.Close(context.Background()) })
	admin, err := core.Authenticate(t.Context(), f.key)
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthority(t, func(c *certTemplate) { c.NotAfter = time.Now().AddDate(1, 0, 0) })
	a.root = mdsCert(t, nil, func(c *certTemplate) { c.IsCA = true; c.NotAfter = time.Now().AddDate(9, 0, 0) })
	a.middle = mdsCert(t, a.root, func(c *certTemplate) { c.IsCA = true; c.NotAfter = time.Now().AddDate(9, 0, 0) })
	a.leaf = mdsCert(t, a.middle, func(c *certTemplate) { c.NotAfter = time.Now().AddDate(9, 0, 0) })
	s, err := New(t.Context(), Config{Core: core, Parties: []Party{{ID: "localhost", Origins: []string{"http://localhost:8080"}}}, MetadataRoots: a.pool(), SuspendOnStatus: true})
	if err != nil {
		t.Fatal(err)
	}
	due := time.Now().AddDate(0, 0, 20).Format(time.DateOnly)
	blob := a.sign(t, mdsPayload(5, due, mdsEntry(mdsAAGUID(1), "Key One", a.root.cert, "FIDO_CERTIFIED"), mdsEntry(mdsAAGUID(2), "Key Two", a.root.cert, "FIDO_CERTIFIED")), nil)
	if _, err := s.ImportMetadata(t.Context(), admin, blob); err != nil {
		t.Fatal(err)
	}
	if err := s.SetRoots(t.Context(), admin, mdsPEM(a.root.cert)); err != nil {
		t.Fatal(err)
	}
	n := 0
	one := mdsEnrol(t, core, admin, "", "alice", mdsAAGUID(1), "", &n, time.Now())
	two := mdsEnrol(t, core, admin, "", "bob", mdsAAGUID(2), "", &n, time.Now())
	s.look(t.Context())
	if list, err := s.Concerns(t.Context(), admin); err != nil || len(list) != 0 {
		t.Errorf("before any report: %+v, %v", list, err)
	}
	if _, err := s.ImportMetadata(t.Context(), admin, a.sign(t, mdsPayload(6, due, mdsEntry(mdsAAGUID(1), "Key One", a.root.cert, "FIDO_CERTIFIED", "REVOKED"), mdsEntry(mdsAAGUID(2), "Key Two", a.root.cert, "FIDO_CERTIFIED")), nil)); err != nil {
		t.Fatal(err)
	}
	s.look(t.Context())
	s.meta.census = nil
	list, err := s.Concerns(t.Context(), admin)
	if err != nil || len(list) != 1 || list[0].Serial != one.Serial || list[0].Status != "REVOKED" || !list[0].Suspended || list[0].User != "alice" {
		t.Errorf("after the report: %+v, %v", list, err)
	}
	models, err := s.Models(t.Context(), admin, ModelQuery{})
	if err != nil || len(models) != 2 || models[0].Ours != 1 || models[1].Ours != 1 {
		t.Errorf("models: %+v, %v", models, err)
	}
	if facts, known, err := s.lookup(t.Context(), two.Credential.AAGUID, ""); err != nil || !known || len(facts.own) != 1 {
		t.Errorf("the other model: %+v, %v, %v", facts, known, err)
	}
	text, err := json.Marshal(list)
	if err != nil || !bytes.Contains(text, []byte(`"since":"2026-01-01T00:00:00Z"`)) {
		t.Errorf("in JSON: %s, %v", text, err)
	}
}
