package webauthn

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"watchword/tokens"
)

// read reads a payload as if it had been signed.
func mdsRead(t *testing.T, entries ...map[string]any) *blobPayload {
	t.Helper()
	text, err := json.Marshal(mdsPayload(1, "2026-04-01", entries...))
	if err != nil {
		t.Fatal(err)
	}
	b, err := readBlobPayload(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// An entry that is not understood must not turn a known model, which may be a
// revoked one, into an unknown one.
func TestAModelWhoseEntryIsNotUnderstoodCannotBeEnrolled(t *testing.T) {
	statement := func(e map[string]any) map[string]any { return e["metadataStatement"].(map[string]any) }
	for name, c := range map[string]struct {
		break_ func(e map[string]any)
		say    string
	}{
		"reports of another type": {func(e map[string]any) { e["statusReports"] = "none" }, "not of the type"},
		"a date that is none": {func(e map[string]any) {
			e["statusReports"] = []any{map[string]any{"status": "FIDO_CERTIFIED", "effectiveDate": "soon"}}
		}, "no date"},
		"a report that is empty": {func(e map[string]any) { e["statusReports"] = []any{map[string]any{}} }, "says nothing"},
		"a root that is none":    {func(e map[string]any) { statement(e)["attestationRootCertificates"] = []string{"AAAA"} }, "root certificate 1"},
		"another AAGUID within":  {func(e map[string]any) { statement(e)["aaguid"] = tokens.FormatAAGUID(mdsAAGUID(3)) }, "another AAGUID"},
		"another within that":    {func(e map[string]any) { statement(e)["authenticatorGetInfo"] = map[string]any{"aaguid": "00"} }, "another AAGUID"},
		"a report's certificate": {func(e map[string]any) {
			e["statusReports"] = []any{map[string]any{"status": "REVOKED", "certificate": "?"}}
		}, "certificate of its report"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newMDSHouse(t)
			e := mdsEntry(mdsAAGUID(1), "Key One", h.fido.root.cert, "REVOKED")
			c.break_(e)
			info := h.publish(1, e, mdsEntry(mdsAAGUID(2), "Key Two", nil, "FIDO_CERTIFIED"))
			if info.Entries != 2 || len(info.Unread) != 1 || !strings.Contains(info.Unread[0], c.say) {
				t.Errorf("the import says %+v", info)
			}
			_, known, err := h.lookup(t.Context(), mdsAAGUID(1), "")
			if known || !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("lookup: %v, %v; it should say %q", known, err, c.say)
			}
			if _, known, err := h.lookup(t.Context(), mdsAAGUID(2), ""); !known || err != nil {
				t.Errorf("the other model: %v, %v", known, err)
			}
		})
	}
}

func TestAModelThatIsThereTwiceCannotBeEnrolledAndBothReportsCount(t *testing.T) {
	b := mdsRead(t, mdsEntry(mdsAAGUID(1), "Key One", nil, "FIDO_CERTIFIED"), mdsEntry(mdsAAGUID(1), "Key One", nil, "REVOKED"))
	k := b.models.find(mdsAAGUID(1), "")
	if len(b.models.all) != 1 || k.problem == "" || len(k.Status) != 2 || len(b.models.unread) != 1 {
		t.Errorf("it is %+v, %q", k, b.models.unread)
	}
}

func TestEntriesOfOtherProtocolsAndOfNobodyAreLeftOut(t *testing.T) {
	uaf := map[string]any{"aaid": "0001#0001", "statusReports": []any{map[string]any{"status": "FIDO_CERTIFIED"}}}
	zero := mdsEntry([16]byte{}, "Zero", nil, "FIDO_CERTIFIED")
	odd := mdsEntry(mdsAAGUID(1), "Odd", nil)
	odd["aaguid"] = "not-an-aaguid"
	b := mdsRead(t, uaf, zero, odd, mdsEntry(mdsAAGUID(2), "Key", nil))
	if len(b.models.all) != 1 || len(b.models.unread) != 3 { // odd: its AAGUID, and that nothing else names it
		t.Errorf("%d models, not understood %q", len(b.models.all), b.models.unread)
	}
	if b.models.find([16]byte{}, "") != nil {
		t.Error("the zero AAGUID is a model")
	}
}

func TestAlgorithmsAreKnownOnlyIfAllAre(t *testing.T) {
	for _, c := range []struct {
		names []string
		info  []any
		want  []int64
	}{
		{[]string{"secp256r1_ecdsa_sha256_raw", "ed25519_eddsa_sha512_raw"}, nil, []int64{-7, -8}},
		{[]string{"secp256r1_ecdsa_sha256_raw", "of_tomorrow"}, nil, nil},
		{[]string{"secp256r1_ecdsa_sha256_raw", "of_tomorrow"}, []any{map[string]any{"type": "public-key", "alg": -257}}, []int64{-257, -7}},
		{nil, nil, nil},
	} {
		e := mdsEntry(mdsAAGUID(1), "Key", nil)
		st := e["metadataStatement"].(map[string]any)
		st["authenticationAlgorithms"] = c.names
		st["authenticatorGetInfo"].(map[string]any)["algorithms"] = c.info
		if got := mdsRead(t, e).models.find(mdsAAGUID(1), "").facts.algorithms; !slices.Equal(got, c.want) {
			t.Errorf("%v and %v are %v, not %v", c.names, c.info, got, c.want)
		}
	}
}

func TestModelsAreFoundByNameAndAAGUIDAndPage(t *testing.T) {
	h := newMDSHouse(t)
	token := mdsCert(t, nil, func(*certTemplate) {})
	entries := []map[string]any{mdsU2F("Älterer Key", token.cert, "FIDO_CERTIFIED")}
	for i := range 7 {
		entries = append(entries, mdsEntry(mdsAAGUID(i), fmt.Sprintf("Key %d", 9-i), nil, "FIDO_CERTIFIED_L1"))
	}
	h.publish(1, entries...)
	ask := func(q ModelQuery) (names []string) {
		t.Helper()
		list, err := h.Models(t.Context(), h.admin, q)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			names = append(names, m.Name)
		}
		return names
	}
	if got := ask(ModelQuery{}); !slices.Equal(got, []string{"Key 3", "Key 4", "Key 5", "Key 6", "Key 7", "Key 8", "Key 9", "Älterer Key"}) {
		t.Errorf("all: %v", got)
	}
	if got := ask(ModelQuery{Q: "kEY 7"}); !slices.Equal(got, []string{"Key 7"}) {
		t.Errorf("by name: %v", got)
	}
	if got := ask(ModelQuery{AAGUID: strings.ToUpper(tokens.FormatAAGUID(mdsAAGUID(2)))}); !slices.Equal(got, []string{"Key 7"}) {
		t.Errorf("by AAGUID: %v", got)
	}
	if got := ask(ModelQuery{AAGUID: mdsKeyID(token.cert)}); !slices.Equal(got, []string{"Älterer Key"}) {
		t.Errorf("by attestation key: %v", got)
	}
	if got := ask(ModelQuery{AAGUID: tokens.FormatAAGUID(mdsAAGUID(99))}); len(got) != 0 {
		t.Errorf("by an AAGUID that is not there: %v", got)
	}
	var all []string
	q := ModelQuery{Limit: 3}
	for page := 0; page < 5; page++ {
		list, err := h.Models(t.Context(), h.admin, q)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		for _, m := range list {
			all = append(all, m.Name)
			q.After = m.AAGUID
			if q.After == "" {
				q.After = m.Attesters[0]
			}
		}
	}
	if !slices.Equal(all, ask(ModelQuery{})) {
		t.Errorf("in pages: %v", all)
	}
	for _, q := range []ModelQuery{{Limit: -1}, {Limit: 1001}, {After: "nothing"}, {Q: strings.Repeat("x", 257)}} {
		if _, err := h.Models(t.Context(), h.admin, q); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
