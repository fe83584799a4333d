package webauthn

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-webauthn/webauthn/metadata"

	"watchword/tokens"
)

// The fingerprints as GlobalSign publishes them. FIDO says on its metadata page
// which root is in use.
func TestTheFIDORootsAreThoseThatArePublished(t *testing.T) {
	certs, err := parseRoots(fidoRootsPEM)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"4fa3126d8d3a11d1c4855a4f807cbad6cf919d3a5a88b03bea2c6372d93c40c9", // GlobalSign Root R46
		"cbb522d7b7f127ad6a0113865bdf1cd4102e7d0759af635a7cf4720dc963c53b", // GlobalSign Root CA - R3
	}
	if len(certs) != len(want) {
		t.Fatalf("there are %d roots", len(certs))
	}
	for i, c := range certs {
		if sum := sha256.Sum256(c.Raw); hex.EncodeToString(sum[:]) != want[i] {
			t.Errorf("root %d, %s, has the fingerprint %x", i, c.Subject, sum)
		}
	}
	if base64.StdEncoding.EncodeToString(certs[0].Raw) != metadata.ProductionMDSRoot {
		t.Error("the library has another root")
	}
	anchors, err := fidoAnchors(nil)
	if err != nil || anchors.name != "mds.fidoalliance.org" {
		t.Errorf("FIDO's anchors are for %q, %v", anchors.name, err)
	}
}

func TestWithoutOwnMetadataRootsOnlyFIDOCounts(t *testing.T) {
	h := newMDSHouse(t, func(c *Config) { c.MetadataRoots = nil })
	_, err := h.ImportMetadata(t.Context(), h.admin, h.fido.sign(t, mdsPayload(1, "2026-04-01", mdsEntry(mdsAAGUID(1), "Key", nil)), nil))
	if !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "chains to no trusted root") {
		t.Errorf("what a stranger signed in FIDO's name: %v", err)
	}
}

func TestOwnRootsAreForEveryNodeAndListed(t *testing.T) {
	h := newMDSHouse(t)
	own := mdsCert(t, nil, isCA)
	for range 2 { // again is no mistake
		if err := h.SetRoots(t.Context(), h.admin, append([]byte("the vendor's root:\n"), append(mdsPEM(own.cert, own.cert), '\n')...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range []*Service{h.Service, h.other} {
		list, err := node.Roots(t.Context(), h.admin)
		sum := sha256.Sum256(own.cert.Raw)
		if err != nil || len(list) != 1 || list[0].SHA256 != hex.EncodeToString(sum[:]) || list[0].Subject != own.cert.Subject.String() {
			t.Errorf("roots: %+v, %v", list, err)
		}
		if facts, known, err := node.lookup(t.Context(), mdsAAGUID(1), ""); err != nil || known || len(facts.own) != 1 || !facts.own[0].Equal(own.cert) {
			t.Errorf("for a model that is unknown: %+v, %v, %v", facts, known, err)
		}
	}
	if err := h.SetRoots(t.Context(), h.admin, []byte(" \n")); err != nil {
		t.Fatal(err)
	}
	if list, err := h.other.Roots(t.Context(), h.admin); err != nil || len(list) != 0 {
		t.Errorf("after they were removed: %+v, %v", list, err)
	}
	if err := h.SetRoots(t.Context(), h.admin, nil); err != nil {
		t.Errorf("removed again: %v", err)
	}
}

func TestRootsThatAreNoneAreRefusedAndNotRepeated(t *testing.T) {
	h := newMDSHouse(t)
	good := mdsCert(t, nil, isCA)
	if err := h.SetRoots(t.Context(), h.admin, mdsPEM(good.cert)); err != nil {
		t.Fatal(err)
	}
	old := mdsCert(t, nil, func(c *certTemplate) { c.IsCA = true; c.NotAfter = mdsNow.Add(-time.Hour) })
	private := []byte("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHNlY3JldHNlY3JldHNlY3JldHNlY3JldHNlY3JldHNl\n-----END PRIVATE KEY-----\n")
	for name, c := range map[string]struct {
		text []byte
		say  string
	}{
		"expired":         {mdsPEM(good.cert, old.cert), "expired on"},
		"a private key":   {append(mdsPEM(good.cert), private...), "no certificate"},
		"damaged":         {mdsPEM(good.cert)[:200], "damaged"},
		"second damaged":  {append(mdsPEM(good.cert), mdsPEM(old.cert)[:200]...), "damaged"},
		"not a PEM":       {good.cert.Raw, "no certificate in PEM"},
		"more than fits":  {bytes.Repeat([]byte("x"), maxRootsSize+1), "more than roots have"},
		"a wrong content": {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "certificate 1 is not understood"},
	} {
		t.Run(name, func(t *testing.T) {
			err := h.SetRoots(t.Context(), h.admin, c.text)
			if !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), c.say) || strings.Contains(err.Error(), "MC4CAQ") {
				t.Errorf("it is %v; it should say %q", err, c.say)
			}
			if list, err := h.Roots(t.Context(), h.admin); err != nil || len(list) != 1 {
				t.Errorf("in use are %+v, %v", list, err)
			}
		})
	}
	if n := len(h.records("fido.rules.put", "refused")); n != 7 {
		t.Errorf("the audit has %d refusals", n)
	}
}

// Nobody signed the own roots but this installation.
func TestRootsWrittenIntoTheDatabaseAreNotTrusted(t *testing.T) {
	h := newMDSHouse(t)
	own, planted := mdsCert(t, nil, isCA), mdsCert(t, nil, isCA)
	if err := h.SetRoots(t.Context(), h.admin, mdsPEM(own.cert)); err != nil {
		t.Fatal(err)
	}
	doc, err := h.cores[0].Document(t.Context(), rootsDocument)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.cores[0].PutSealed(t.Context(), system, actImport, "", tokens.DocumentWrite{Name: concernsDocument, Data: mdsPEM(planted.cert)}, nil); err != nil {
		t.Fatal(err)
	}
	concerns, err := h.cores[0].Document(t.Context(), concernsDocument)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"added to":                   append(bytes.Clone(doc.Data), mdsPEM(planted.cert)...),
		"without a MAC":              mdsPEM(planted.cert),
		"with another document's":    concerns.Data,
		"with nothing but their MAC": doc.Data[:64],
		"empty":                      {},
	} {
		t.Run(name, func(t *testing.T) {
			now, err := h.cores[0].Document(t.Context(), rootsDocument)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.cores[0].PutDocument(t.Context(), system, actRules, "", tokens.DocumentWrite{Name: rootsDocument, Expect: now.Version, Data: data}, nil); err != nil {
				t.Fatal(err)
			}
			if list, err := h.Roots(t.Context(), h.admin); !errors.Is(err, tokens.ErrTampered) {
				t.Errorf("they are %+v, %v", list, err)
			}
			if _, _, err := h.lookup(t.Context(), mdsAAGUID(1), ""); !errors.Is(err, tokens.ErrTampered) {
				t.Errorf("lookup: %v", err)
			}
		})
	}
	if err := h.SetRoots(t.Context(), h.admin, mdsPEM(own.cert)); err != nil {
		t.Fatal(err)
	}
	if list, err := h.Roots(t.Context(), h.admin); err != nil || len(list) != 1 {
		t.Errorf("after they were set anew: %+v, %v", list, err)
	}
}

// The form of a sealed document has shipped: what was sealed is read for ever.
func TestRootsThatWereSealedBeforeAreTrusted(t *testing.T) {
	h := newMDSHouse(t)
	own := mdsCert(t, nil, isCA)
	plain := mdsPEM(own.cert)
	mac, err := h.cores[0].CeremonyMAC(t.Context(), append([]byte("watchword-document-1\x00fido.roots\x00"), plain...))
	if err != nil {
		t.Fatal(err)
	}
	data := append([]byte(hex.EncodeToString(mac[:])+"\n"), plain...)
	if _, err := h.cores[0].PutDocument(t.Context(), system, actRules, "", tokens.DocumentWrite{Name: rootsDocument, Data: data}, nil); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(own.cert.Raw)
	if list, err := h.Roots(t.Context(), h.admin); err != nil || len(list) != 1 || list[0].SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("they are %+v, %v", list, err)
	}
}
