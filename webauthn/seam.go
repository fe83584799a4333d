package webauthn

import (
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"
)

// What ceremonies and metadata know of each other: a ceremony asks lookup for a
// model, metadata answers with modelFacts.

// Model is a model of authenticator as the FIDO metadata describes it (FIDO
// Metadata Service 3.1.1, Metadata Statement 3.1.1).
type Model struct {
	AAGUID    string   `json:"aaguid,omitempty"`    // 8-4-4-4-12, lower case; empty for a model that has none (U2F)
	Attesters []string `json:"attesters,omitempty"` // attestation certificate key identifiers, lower case hex: how a model without AAGUID is found
	Name      string   `json:"name"`                // the statement's description
	Protocol  string   `json:"protocol"`            // fido2, u2f, uaf

	Certification    string         `json:"certification,omitempty"` // certification(Status, now): FIDO_CERTIFIED, FIDO_CERTIFIED_L1, ...; empty: none
	Status           []StatusReport `json:"status,omitempty"`        // as they stand in the metadata, oldest first
	Changed          time.Time      `json:"changed"`                 // when the status was last changed
	AttestationTypes []string       `json:"attestation,omitempty"`   // basic_full, basic_surrogate, attca, anonca, none
	Algorithms       []string       `json:"algorithms,omitempty"`    // FIDO registry names
	Verification     []string       `json:"verification,omitempty"`  // how it verifies its user: fingerprint_internal, passcode_external, ...
	KeyProtection    []string       `json:"key_protection,omitempty"`
	Transports       []string       `json:"transports,omitempty"`
	MultiDevice      string         `json:"multi_device,omitempty"` // unsupported (also if empty), explicit, implicit

	Ours int `json:"ours"` // how many of the keys that were enrolled are of this model; filled in by Models only
}

// StatusReport is one entry of a model's history (FIDO Metadata Service 3.1.1,
// section 3.1.3).
type StatusReport struct {
	Status      string    `json:"status"`                // REVOKED, FIDO_CERTIFIED_L1, ...
	Since       time.Time `json:"since,omitzero"`        // effective date; zero: always
	Until       time.Time `json:"until,omitzero"`        // sunset date; zero: none
	Version     uint32    `json:"version,omitempty"`     // authenticator version that it is about; zero: any
	Certificate []byte    `json:"certificate,omitempty"` // DER; if set, it concerns only authenticators whose attestation path has this certificate
	URL         string    `json:"url,omitempty"`
}

// modelFacts is what metadata knows of an authenticator that wants to enrol.
// Nothing in it may be changed: it is shared.
type modelFacts struct {
	// entry is the model, nil if no metadata has it.
	entry *Model
	// roots are the trust anchors of the model's entry; empty if it is unknown.
	// An anchor may be a root, an intermediate or the attestation certificate itself.
	roots []*x509.Certificate
	// own are the operator's own roots (document fido.roots), always. They are
	// used for models that no metadata has, and only for those.
	own []*x509.Certificate
	// status is what of entry.Status is in effect.
	status []StatusReport
	// algorithms are the COSE algorithm identifiers that the model signs with;
	// empty if the metadata does not say, or names one that has none.
	algorithms []int64
	// formats are the attestation statement formats that it produces
	// (authenticatorGetInfo); empty if the metadata does not say.
	formats []string
}

// The statuses after which a model is not to be trusted any more. Whatever is
// reported later does not heal them: an update is for the vendor to ship under a
// new AAGUID.
var untrusted = []string{
	"REVOKED",
	"USER_VERIFICATION_BYPASS",
	"ATTESTATION_KEY_COMPROMISE",
	"USER_KEY_REMOTE_COMPROMISE",
	"USER_KEY_PHYSICAL_COMPROMISE",
	"RETIRED",
}

// concerns lists those reports that say that the model, or an authenticator with
// this attestation path, is not to be trusted. A report about one certificate
// counts only if path has it, or if path is nil (it is not known).
func concerns(reports []StatusReport, path []*x509.Certificate) []StatusReport {
	var found []StatusReport
	for _, r := range reports {
		if !slices.Contains(untrusted, r.Status) {
			continue
		}
		if len(r.Certificate) > 0 && path != nil && !slices.ContainsFunc(path, func(c *x509.Certificate) bool {
			return string(c.Raw) == string(r.Certificate)
		}) {
			continue
		}
		found = append(found, r)
	}
	return found
}

// levels are the certification levels, least first (FIDO Metadata Service
// 3.1.1, section 3.1.4). FIDO_CERTIFIED is from before there were levels.
var levels = []string{
	"FIDO_CERTIFIED",
	"FIDO_CERTIFIED_L1",
	"FIDO_CERTIFIED_L1plus",
	"FIDO_CERTIFIED_L2",
	"FIDO_CERTIFIED_L2plus",
	"FIDO_CERTIFIED_L3",
	"FIDO_CERTIFIED_L3plus",
}

// level is where a certification stands in levels, counted from 1; 0 for none,
// -1 for one that there is not.
func level(certification string) int {
	if certification == "" {
		return 0
	}
	if i := slices.Index(levels, certification); i >= 0 {
		return i + 1
	}
	return -1
}

// certification is the highest level that the reports grant at the time. A
// withdrawal (NOT_FIDO_CERTIFIED) ends what was granted before it.
func certification(reports []StatusReport, now time.Time) string {
	best := ""
	for _, r := range reports {
		if r.Since.After(now) || !r.Until.IsZero() && !r.Until.After(now) {
			continue
		}
		if r.Status == "NOT_FIDO_CERTIFIED" {
			best = ""
		} else if level(r.Status) > level(best) {
			best = r.Status
		}
	}
	return best
}

// parseAAGUID reads an AAGUID with or without dashes, in either case.
func parseAAGUID(s string) (id [16]byte, ok bool) {
	plain := s
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		plain = s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	}
	b, err := hex.DecodeString(plain)
	if err != nil || len(b) != len(id) {
		return id, false
	}
	return [16]byte(b), true
}
