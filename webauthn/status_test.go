package webauthn

import (
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/tokens"
)

func (h *mdsHouse) state(k tokens.Token) tokens.State {
	h.Helper()
	t, err := h.cores[0].ShowToken(h.Context(), h.admin, k.Realm, k.Serial)
	if err != nil {
		h.Fatal(err)
	}
	return t.State
}

// reported counts the audit's events about status reports for a serial.
func (h *mdsHouse) reported(k tokens.Token) int {
	n := 0
	for _, r := range h.records("fido.show", "ok") {
		if r.Serial == k.Serial && strings.Contains(r.Reason, "reports its model as") {
			n++
		}
	}
	return n
}

func (h *mdsHouse) concerned() []Concern {
	h.Helper()
	h.forward(2 * time.Minute)
	list, err := h.Concerns(h.Context(), h.admin)
	if err != nil {
		h.Fatal(err)
	}
	return list
}

func TestAReportSuspendsKeysThatWereEnrolledBefore(t *testing.T) {
	h := newMDSHouse(t, func(c *Config) { c.SuspendOnStatus = true })
	fine := []map[string]any{mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED"), mdsEntry(mdsAAGUID(2), "Key Two", nil, "FIDO_CERTIFIED")}
	bad := func(more ...string) map[string]any {
		return mdsEntry(mdsAAGUID(1), "Key One", nil, append([]string{"FIDO_CERTIFIED"}, more...)...)
	}
	h.publish(1, fine...)
	one, two := h.enrol("", "alice", mdsAAGUID(1), ""), h.enrol("", "bob", mdsAAGUID(2), "")
	unknown, lost := h.enrol("", "carol", mdsAAGUID(9), ""), h.enrol("", "dave", mdsAAGUID(1), "")
	if _, err := h.cores[0].MarkLost(t.Context(), h.admin, "", lost.Serial, "left in a taxi"); err != nil {
		t.Fatal(err)
	}
	h.look(t.Context())
	if list := h.concerned(); len(list) != 0 || h.state(one) != tokens.Active {
		t.Fatalf("before any report: %+v", list)
	}

	h.publish(2, bad("USER_KEY_PHYSICAL_COMPROMISE", "REVOKED"), fine[1])
	for range 3 { // again and again, on both nodes
		h.look(t.Context())
		if _, err := h.other.Metadata(t.Context(), h.admin); err != nil {
			t.Fatal(err)
		}
		h.other.look(t.Context())
		h.forward(25 * time.Hour)
	}
	if h.state(one) != tokens.Suspended || h.state(two) != tokens.Active || h.state(unknown) != tokens.Active || h.state(lost) != tokens.Lost {
		t.Errorf("states: %s, %s, %s, %s", h.state(one), h.state(two), h.state(unknown), h.state(lost))
	}
	list := h.concerned()
	if len(list) != 2 || list[0].Serial != one.Serial || list[0].Status != "REVOKED" || !slices.Equal(list[0].Others, []string{"USER_KEY_PHYSICAL_COMPROMISE"}) ||
		!list[0].Suspended || list[1].Suspended || list[1].State != "lost" || list[0].Model != "Key One" || list[0].User != "alice" {
		t.Errorf("concerns: %+v", list)
	}
	if n := len(h.records("token.suspend", "ok")); n != 1 || h.reported(one) != 1 || h.reported(lost) != 1 || h.reported(two) != 0 {
		t.Errorf("the audit has %d suspensions, and %d, %d and %d reports", n, h.reported(one), h.reported(lost), h.reported(two))
	}
	if n := h.MetadataNumbers().Concerned; n != 2 {
		t.Errorf("to be measured: %v concerned", n)
	}

	// Who resumes it knowingly is not overruled by the same report each day...
	if _, err := h.cores[0].Resume(t.Context(), h.admin, "", one.Serial, "until the new one comes"); err != nil {
		t.Fatal(err)
	}
	h.forward(25 * time.Hour)
	h.look(t.Context())
	if h.state(one) != tokens.Active {
		t.Error("a key that was resumed is suspended by the same report again")
	}
	// ...but by another one, and a key that was lost then is once it is back.
	if _, err := h.cores[0].Resume(t.Context(), h.admin, "", lost.Serial, "it was in the other coat"); err != nil {
		t.Fatal(err)
	}
	h.publish(3, bad("USER_KEY_PHYSICAL_COMPROMISE", "REVOKED", "ATTESTATION_KEY_COMPROMISE"), fine[1])
	h.look(t.Context())
	if h.state(one) != tokens.Suspended || h.state(lost) != tokens.Suspended {
		t.Errorf("after a further report: %s, %s", h.state(one), h.state(lost))
	}

	// A report that is taken back concerns nobody; what was done stays done.
	h.publish(4, fine...)
	h.look(t.Context())
	if list := h.concerned(); len(list) != 0 || h.state(one) != tokens.Suspended || h.MetadataNumbers().Concerned != 0 {
		t.Errorf("after it was taken back: %+v, %s", list, h.state(one))
	}
}

// A key that was suspended for another reason is not let in by who resumes it for
// that reason.
func TestAKeyThatWasSuspendedAnywayIsSuspendedByTheReportOnceResumed(t *testing.T) {
	h := newMDSHouse(t, func(c *Config) { c.SuspendOnStatus = true })
	h.publish(1, mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED"))
	one := h.enrol("", "alice", mdsAAGUID(1), "")
	if _, err := h.cores[0].Suspend(t.Context(), h.admin, "", one.Serial, "on leave"); err != nil {
		t.Fatal(err)
	}
	h.publish(2, mdsEntry(mdsAAGUID(1), "Key One", nil, "REVOKED"))
	h.look(t.Context())
	if _, err := h.cores[0].Resume(t.Context(), h.admin, "", one.Serial, "back from leave"); err != nil {
		t.Fatal(err)
	}
	h.forward(25 * time.Hour)
	h.look(t.Context())
	if h.state(one) != tokens.Suspended {
		t.Errorf("it is %s", h.state(one))
	}
}

func TestTwoNodesThatWalkAtOnceReportOnce(t *testing.T) {
	h := newMDSHouse(t, func(c *Config) { c.SuspendOnStatus = true })
	var all []tokens.Token
	for round := range 8 {
		h.publish(2*round+1, mdsEntry(mdsAAGUID(round), "Key", nil, "FIDO_CERTIFIED"))
		one := h.enrol("", "user"+string(rune('a'+round)), mdsAAGUID(round), "")
		all = append(all, one)
		h.publish(2*round+2, mdsEntry(mdsAAGUID(round), "Key", nil, "REVOKED"))
		if _, err := h.other.Metadata(t.Context(), h.admin); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for _, node := range []*Service{h.Service, h.other} {
			wg.Go(func() { node.look(t.Context()) })
		}
		wg.Wait()
	}
	for i, one := range all {
		if h.state(one) != tokens.Suspended || h.reported(one) != 1 {
			t.Errorf("round %d: it is %s, reported %d times", i, h.state(one), h.reported(one))
		}
	}
	if n := h.log.count("not all acted on"); n != 0 {
		t.Errorf("%d walks failed", n)
	}
}

func TestWithoutTheSettingReportsAreOnlyReported(t *testing.T) {
	h := newMDSHouse(t)
	h.publish(1, mdsEntry(mdsAAGUID(1), "Key One", nil, "REVOKED"))
	one := h.enrol("", "alice", mdsAAGUID(1), "")
	h.look(t.Context())
	if list := h.concerned(); len(list) != 1 || list[0].Suspended || h.state(one) != tokens.Active || h.reported(one) != 1 {
		t.Errorf("%+v, %s, reported %d times", list, h.state(one), h.reported(one))
	}
	// Turning it on later acts on what is known.
	strict := h.node(h.cores[0], func(c *Config) { c.SuspendOnStatus = true })
	strict.look(t.Context())
	if h.state(one) != tokens.Suspended {
		t.Error("after the setting was turned on the key is not suspended")
	}
}

func TestAReportCountsOnlyWhileItIsInEffect(t *testing.T) {
	h := newMDSHouse(t)
	entry := mdsEntry(mdsAAGUID(1), "Key One", nil)
	entry["statusReports"] = []any{
		map[string]any{"status": "FIDO_CERTIFIED_L1", "effectiveDate": "2025-01-01"},
		map[string]any{"status": "REVOKED", "effectiveDate": "2026-03-10", "sunsetDate": "2026-03-20"},
	}
	h.publish(1, entry)
	h.enrol("", "alice", mdsAAGUID(1), "")
	for _, c := range []struct {
		day  string
		want int
	}{{"2026-03-09", 0}, {"2026-03-10", 1}, {"2026-03-19", 1}, {"2026-03-20", 0}} {
		at, err := time.Parse(time.DateOnly, c.day)
		if err != nil {
			t.Fatal(err)
		}
		h.clock.Store(at.UnixNano())
		if list := h.concerned(); len(list) != c.want {
			t.Errorf("on %s: %+v", c.day, list)
		}
		facts, known, err := h.lookup(t.Context(), mdsAAGUID(1), "")
		if err != nil || !known || len(concerns(facts.status, nil)) != c.want || facts.entry.Certification != "FIDO_CERTIFIED_L1" || len(facts.entry.Status) != 2 {
			t.Errorf("on %s a ceremony sees %+v, %v, %v", c.day, facts, known, err)
		}
	}
}

// A report about one attestation certificate suspends only keys that are known to
// have it.
func TestAReportAboutACertificateIsAboutItsKeysOnly(t *testing.T) {
	h := newMDSHouse(t, func(c *Config) { c.SuspendOnStatus = true })
	batch, other := mdsCert(t, nil, func(*certTemplate) {}), mdsCert(t, nil, func(*certTemplate) {})
	entry := mdsU2F("Old One", batch.cert, "FIDO_CERTIFIED")
	entry["attestationCertificateKeyIdentifiers"] = []string{mdsKeyID(batch.cert), mdsKeyID(other.cert)}
	entry["statusReports"] = []any{map[string]any{"status": "ATTESTATION_KEY_COMPROMISE", "effectiveDate": "2026-02-01", "batchCertificate": mdsBase64(batch.cert)}}
	modern := mdsEntry(mdsAAGUID(1), "Key One", nil)
	modern["statusReports"] = []any{map[string]any{"status": "ATTESTATION_KEY_COMPROMISE", "certificate": mdsBase64(batch.cert)}}
	h.publish(1, entry, modern)
	hit := h.enrol("", "alice", [16]byte{}, mdsKeyID(batch.cert))
	missed := h.enrol("", "bob", [16]byte{}, mdsKeyID(other.cert))
	perhaps := h.enrol("", "carol", mdsAAGUID(1), "")
	h.look(t.Context())
	if h.state(hit) != tokens.Suspended || h.state(missed) != tokens.Active || h.state(perhaps) != tokens.Active {
		t.Errorf("states: %s, %s, %s", h.state(hit), h.state(missed), h.state(perhaps))
	}
	list := h.concerned()
	if len(list) != 2 || list[0].Serial != hit.Serial || list[0].Note != "" || list[1].Serial != perhaps.Serial || !strings.Contains(list[1].Note, "one attestation certificate") {
		t.Errorf("concerns: %+v", list)
	}
}

func TestConcernsAndCountsAreOfOnesOwnRealm(t *testing.T) {
	h := newMDSHouse(t)
	h.publish(1, mdsEntry(mdsAAGUID(1), "Key One", nil, "RETIRED"))
	h.enrol("", "alice", mdsAAGUID(1), "")
	h.enrol("branch", "alice", mdsAAGUID(1), "")
	h.enrol("branch", "bob", mdsAAGUID(1), "")
	_, text, err := h.cores[0].AddKey(t.Context(), h.admin, tokens.NewKey{Name: "branch", Scope: "helpdesk", Realm: "branch"})
	if err != nil {
		t.Fatal(err)
	}
	desk, err := h.cores[0].Authenticate(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	for _, of := range []struct {
		p    tokens.Principal
		want int
	}{{h.admin, 3}, {desk, 2}} {
		p, want := of.p, of.want
		list, err := h.Concerns(t.Context(), p)
		if err != nil || len(list) != want {
			t.Errorf("%s sees %+v, %v", p.Name, list, err)
		}
		models, err := h.Models(t.Context(), p, ModelQuery{})
		if err != nil || len(models) != 1 || models[0].Ours != want {
			t.Errorf("%s sees models %+v, %v", p.Name, models, err)
		}
	}
}

// More keys than are noted in one event are each found by their serial.
func TestManyKeysOfAModelAreEachReported(t *testing.T) {
	h := newMDSHouse(t)
	h.publish(1, mdsEntry(mdsAAGUID(1), "Key One", nil, "REVOKED"))
	var last tokens.Token
	for i := range actAtOnce + 5 {
		last = h.enrol("", "user"+string(rune('a'+i/26))+string(rune('a'+i%26)), mdsAAGUID(1), "")
	}
	h.look(t.Context())
	if n := h.reported(last); n != 1 {
		t.Errorf("the last key is reported %d times", n)
	}
	noted := h.records("fido.mds.import", "ok")
	if d := noted[len(noted)-1].Detail; d[len(d)-2].Value != "5 more, an event each" {
		t.Errorf("the event of the walk ends with %+v", d)
	}
}

// A walk that the HSM interrupts is made up for.
func TestAWalkThatFailsIsTriedAgain(t *testing.T) {
	h := newMDSHouse(t, func(c *Config) { c.SuspendOnStatus = true })
	h.publish(1, mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED"))
	one := h.enrol("", "alice", mdsAAGUID(1), "")
	h.look(t.Context())
	h.publish(2, mdsEntry(mdsAAGUID(1), "Key One", nil, "REVOKED"))
	h.keys.Fail(errors.New("pulled out"))
	h.look(t.Context())
	h.keys.Heal()
	if h.state(one) != tokens.Active || h.reported(one) != 0 {
		t.Fatalf("without an HSM the key is %s", h.state(one))
	}
	h.forward(11 * time.Minute)
	h.look(t.Context())
	if h.state(one) != tokens.Suspended || h.reported(one) != 1 {
		t.Errorf("afterwards the key is %s, reported %d times", h.state(one), h.reported(one))
	}
}

// What was acted on cannot be claimed by who writes to the database.
func TestAForgedNoteOfWhatWasActedOnHidesNothing(t *testing.T) {
	h := newMDSHouse(t, func(c *Config) { c.SuspendOnStatus = true })
	h.publish(1, mdsEntry(mdsAAGUID(1), "Key One", nil, "REVOKED"))
	one := h.enrol("", "alice", mdsAAGUID(1), "")
	forged := []byte(`[{"realm":"` + one.Realm + `","serial":"` + one.Serial + `","status":["REVOKED"],"suspended":true}]`)
	for i, data := range [][]byte{append(make([]byte, 0, 200), append([]byte(strings.Repeat("0", 64)+"\n"), forged...)...), forged} {
		if _, err := h.cores[0].PutDocument(t.Context(), system, actImport, "", tokens.DocumentWrite{Name: concernsDocument, Expect: int64(i), Data: data}, nil); err != nil {
			t.Fatal(err)
		}
	}
	h.look(t.Context())
	if h.state(one) != tokens.Suspended {
		t.Error("the key is not suspended")
	}
}

func TestKeyIdentifiersAreWhatStandsInTheCertificateAndItsHash(t *testing.T) {
	c := mdsCert(t, nil, func(c *x509.Certificate) { c.SubjectKeyId = []byte{1, 2, 3} }).cert
	if got := keyIdentifiers(c); !slices.Equal(got, []string{"010203", mdsKeyID(c)}) {
		t.Errorf("they are %v", got)
	}
}
