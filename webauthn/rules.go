package webauthn

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// rulesDocument is where the rules are kept.
const rulesDocument = "fido.rules"

// maxRules bounds the document, in bytes.
const maxRules = 1 << 20

// Rules say which authenticators may be enrolled. The zero value is the
// strictest: only models that the FIDO metadata knows (or own roots vouch for),
// proven by an attestation certificate. They count at enrolment; a key that was
// enrolled before stays, unless a status report is about its model.
type Rules struct {
	// PermittedAAGUIDs, if there are any, are the only models that are allowed. As
	// only a certificate proves the model, a list demands attestation basic.
	PermittedAAGUIDs []string `json:"permitted_aaguids,omitempty"`
	// ProhibitedAAGUIDs are models that are not allowed, also where the rest of
	// these rules is replaced by more particular ones.
	ProhibitedAAGUIDs []string `json:"prohibited_aaguids,omitempty"`
	// LeastCertification is the least that the model is certified to:
	// FIDO_CERTIFIED, FIDO_CERTIFIED_L1, FIDO_CERTIFIED_L1plus, ... to
	// FIDO_CERTIFIED_L3plus. Empty: nothing. It demands attestation basic.
	LeastCertification string `json:"least_certification,omitempty"`
	// RequiredAttestation is what must be proven at least. basic (or empty): by a
	// certificate that leads to a trusted root, what the model is. self: only that
	// the authenticator signs with the key; the model it names is its own word.
	// none: nothing.
	RequiredAttestation string `json:"required_attestation,omitempty"`
	// AllowUnknown allows models that no metadata knows and no own root vouches
	// for. Nobody can prove such a model: it takes required attestation self or none.
	AllowUnknown bool `json:"allow_unknown,omitempty"`
	// AllowZeroAAGUID allows authenticators that do not say what model they are:
	// those of U2F (the metadata knows them by their attestation keys), and those
	// whose browser conceals it. A permitted list must name the zeros as well.
	AllowZeroAAGUID bool `json:"allow_zero_aaguid,omitempty"`
	// Synced allows, or not, credentials that may live on several devices. Null:
	// as the configuration says.
	Synced *bool `json:"synced,omitempty"`
}

// RealmRules are the rules of a realm, and of its groups.
type RealmRules struct {
	Rules
	Groups map[string]Rules `json:"groups,omitempty"` // by group name, folded
}

// RuleSet is all rules there are. Which of them count for a user:
//
//   - a realm's rules replace the default ones for the realm's users;
//   - a group's rules replace its realm's for the group's members;
//   - where a user is in several groups that have rules, each of them must allow
//     the key: to be in one more group never allows more;
//   - what any level prohibits (ProhibitedAAGUIDs of the default, the realm and
//     each of the user's groups) is prohibited, whatever replaces the rest.
type RuleSet struct {
	Default Rules                 `json:"default"`
	Realms  map[string]RealmRules `json:"realms,omitempty"` // by realm, folded
}

// Verdict is whether a model would be allowed, and if not why: one sentence for
// each reason.
type Verdict struct {
	Allowed bool     `json:"allowed"`
	Reasons []string `json:"reasons,omitempty"`
	Model   *Model   `json:"model,omitempty"` // nil: the metadata does not know it
}

// attestationRanks are the words of RequiredAttestation, by what they demand.
var attestationRanks = map[string]int{"none": 0, "self": 1, "basic": 2, "": 2}

// attestationRank is what an attestation is worth; one that nobody vouches for is worth no
// more than self.
func attestationRank(kind string) int {
	switch kind {
	case attestedBasic, attestedAttCA, attestedAnonCA:
		return 2
	case attestedSelf:
		return 1
	}
	return 0
}

// of answers the rules that count for a user, and the AAGUIDs that any level
// prohibits for it.
func (rs *RuleSet) of(realm string, groups []string) (counting []Rules, prohibited []string) {
	prohibited = rs.Default.ProhibitedAAGUIDs
	r, ok := rs.Realms[realm]
	if !ok {
		return []Rules{rs.Default}, prohibited
	}
	prohibited = slices.Concat(prohibited, r.ProhibitedAAGUIDs)
	for _, g := range groups {
		if own, ok := r.Groups[g]; ok {
			counting = append(counting, own)
			prohibited = slices.Concat(prohibited, own.ProhibitedAAGUIDs)
		}
	}
	if counting == nil {
		counting = []Rules{r.Rules}
	}
	return counting, prohibited
}

// candidate is a key that wants to be enrolled, as far as rules look at it.
type candidate struct {
	aaguid      [16]byte
	model       *Model // nil: no metadata knows it
	attestation string // one of attested*; basic, attca and anonca only if vouched
	vouched     bool   // a root of the metadata, or an own one, vouches for the model
	synced      bool
}

// judge answers why the rules forbid the candidate: nothing if they allow it.
func (rs *RuleSet) judge(realm string, groups []string, c *candidate, synced bool) []string {
	var why []string
	say := func(format string, args ...any) {
		if s := fmt.Sprintf(format, args...); !slices.Contains(why, s) {
			why = append(why, s)
		}
	}
	counting, prohibited := rs.of(realm, groups)
	if named(prohibited, c.aaguid) {
		say("the rules prohibit this model (AAGUID %s)", tokens.FormatAAGUID(c.aaguid))
	}
	for i := range counting {
		counting[i].judge(c, synced, say)
	}
	return why
}

func (r *Rules) judge(c *candidate, synced bool, say func(string, ...any)) {
	zero := c.aaguid == [16]byte{}
	if zero && !r.AllowZeroAAGUID {
		say("the authenticator does not say what model it is (its AAGUID is all zeros), and the rules do not allow that")
	}
	if len(r.PermittedAAGUIDs) > 0 && !named(r.PermittedAAGUIDs, c.aaguid) {
		say("the model (AAGUID %s) is none of those that the rules permit", tokens.FormatAAGUID(c.aaguid))
	}
	if c.model == nil && !c.vouched && !r.AllowUnknown {
		say("the model (AAGUID %s) is in no metadata, and no own root vouches for it", tokens.FormatAAGUID(c.aaguid))
	}
	need := attestationRanks[r.RequiredAttestation]
	if len(r.PermittedAAGUIDs) > 0 || r.LeastCertification != "" {
		need = 2 // the model itself matters, so it must be proven
	}
	if have := attestationRank(c.attestation); have < need {
		say("the attestation is %s where the rules require %s", c.attestation, [...]string{"none", "self", "basic"}[need])
	}
	if r.LeastCertification != "" {
		have := ""
		if c.model != nil {
			have = c.model.Certification
		}
		if level(have) < level(r.LeastCertification) {
			if have == "" {
				have = "not certified"
			}
			say("the model is %s where the rules require %s at least", have, r.LeastCertification)
		}
	}
	if r.Synced != nil {
		synced = *r.Synced
	}
	if c.synced && !synced {
		say("the credential may be copied to other devices (backup eligible), which is not allowed here")
	}
}

// named says whether an AAGUID is in a list.
func named(list []string, aaguid [16]byte) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		id, ok := parseAAGUID(s)
		return ok && id == aaguid
	})
}

// check says what is wrong with the rules, and writes names as they are compared.
func (r *Rules) check(where string) error {
	for _, list := range [][]string{r.PermittedAAGUIDs, r.ProhibitedAAGUIDs} {
		for i, s := range list {
			id, ok := parseAAGUID(s)
			if !ok {
				return fmt.Errorf("%w: %s: %s is no AAGUID; one has 32 hex digits", tokens.ErrInvalid, where, printable(s))
			}
			list[i] = tokens.FormatAAGUID(id)
		}
	}
	if level(r.LeastCertification) < 0 {
		return fmt.Errorf("%w: %s: %s is no certification level; there are %s", tokens.ErrInvalid, where, printable(r.LeastCertification), strings.Join(levels, ", "))
	}
	need, known := attestationRanks[r.RequiredAttestation]
	switch {
	case !known:
		return fmt.Errorf("%w: %s: %s is no attestation that can be required; there are none, self and basic", tokens.ErrInvalid, where, printable(r.RequiredAttestation))
	case need < 2 && (len(r.PermittedAAGUIDs) > 0 || r.LeastCertification != ""):
		return fmt.Errorf("%w: %s: a permitted list or a certification level demands attestation basic, as nothing less proves the model; leave required_attestation out", tokens.ErrInvalid, where)
	case need == 2 && r.AllowUnknown:
		return fmt.Errorf("%w: %s: allow_unknown takes required_attestation self or none, as nobody can prove an unknown model", tokens.ErrInvalid, where)
	}
	return nil
}

// check is Rules.check for all of them, with realms and groups folded.
func (rs *RuleSet) check() error {
	if err := rs.Default.check("default"); err != nil {
		return err
	}
	realms := make(map[string]RealmRules, len(rs.Realms))
	for _, name := range slices.Sorted(maps.Keys(rs.Realms)) {
		r := rs.Realms[name]
		realm, err := tokens.FoldName(name)
		if err != nil {
			return fmt.Errorf("realm %s: %w", printable(name), err)
		}
		if _, twice := realms[realm]; twice {
			return fmt.Errorf("%w: realm %s has rules twice", tokens.ErrInvalid, printable(realm))
		}
		if err := r.Rules.check("realm " + realm); err != nil {
			return err
		}
		groups := make(map[string]Rules, len(r.Groups))
		for _, name := range slices.Sorted(maps.Keys(r.Groups)) {
			g := r.Groups[name]
			group, err := tokens.FoldName(name)
			if err != nil {
				return fmt.Errorf("group %s of realm %s: %w", printable(name), realm, err)
			}
			if _, twice := groups[group]; twice {
				return fmt.Errorf("%w: group %s of realm %s has rules twice", tokens.ErrInvalid, printable(group), realm)
			}
			if err := g.check("group " + group + " of realm " + realm); err != nil {
				return err
			}
			groups[group] = g
		}
		r.Groups = groups
		realms[realm] = r
	}
	rs.Realms = realms
	return nil
}

// ParseRules reads rules in JSON, as GET and PUT of the rules have them. Members
// that it does not know are refused: a misspelt one must not quietly allow.
func ParseRules(data []byte) (RuleSet, error) {
	var rs RuleSet
	if len(data) > maxRules {
		return rs, fmt.Errorf("%w: the rules are longer than %d bytes", tokens.ErrInvalid, maxRules)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rs); err != nil {
		return RuleSet{}, fmt.Errorf("%w: the rules cannot be read: %s", tokens.ErrInvalid, printable(err.Error()))
	}
	if _, err := dec.Token(); err != io.EOF {
		return RuleSet{}, fmt.Errorf("%w: something follows the rules", tokens.ErrInvalid)
	}
	return rs, rs.check()
}

// rules are the rules as they stand; version zero: nobody has made any.
func (s *Service) rules(ctx context.Context) (RuleSet, int64, error) {
	doc, err := s.core.SealedDocument(ctx, rulesDocument)
	switch {
	case errors.Is(err, tokens.ErrNotFound):
		return RuleSet{}, 0, nil
	case err != nil:
		return RuleSet{}, 0, err
	}
	rs, err := ParseRules(doc.Data)
	if err != nil {
		// Rules that cannot be read allow nothing.
		return RuleSet{}, 0, fmt.Errorf("%w: the FIDO rules in the database: %w", tokens.ErrTampered, err)
	}
	return rs, doc.Version, nil
}

// Rules answers the rules and their version; zero if nobody has made any yet, so
// that the strictest count.
func (s *Service) Rules(ctx context.Context, p tokens.Principal) (RuleSet, int64, error) {
	if err := s.core.Allow(ctx, p, actShow, audit.Event{Realm: p.Realm, Detail: []audit.Field{{Name: "of", Value: "rules"}}}); err != nil {
		return RuleSet{}, 0, err
	}
	rs, version, err := s.rules(ctx)
	if err != nil || p.Realm == "" {
		return rs, version, err
	}
	// A principal of one realm sees what counts there.
	own, ok := rs.Realms[p.Realm]
	rs.Realms = nil
	if ok {
		rs.Realms = map[string]RealmRules{p.Realm: own}
	}
	return rs, version, nil
}

// SetRules replaces the rules if their version is still expect, zero for none.
// It answers ErrState if it is not.
func (s *Service) SetRules(ctx context.Context, p tokens.Principal, rs RuleSet, expect int64) error {
	encoded, err := json.Marshal(rs)
	if err != nil {
		return fmt.Errorf("encode the rules: %w", err)
	}
	// What is checked, and folded, is a copy.
	if rs, err = ParseRules(encoded); err != nil {
		return err
	}
	if encoded, err = json.Marshal(rs); err != nil {
		return fmt.Errorf("encode the rules: %w", err)
	}
	detail := []audit.Field{{Name: "from_version", Value: strconv.FormatInt(expect, 10)}, {Name: "realms", Value: strconv.Itoa(len(rs.Realms))}}
	_, err = s.core.PutSealed(ctx, p, actRules, "", tokens.DocumentWrite{Name: rulesDocument, Expect: expect, Data: encoded}, detail)
	return err
}

// Allowed answers whether a key of the model could be enrolled by a user of the
// realm and the groups, if it attests as well as its model can.
func (s *Service) Allowed(ctx context.Context, p tokens.Principal, realm string, groups []string, aaguid string) (Verdict, error) {
	realm, err := tokens.FoldName(cmp.Or(realm, p.Realm, tokens.DefaultRealm))
	if err != nil {
		return Verdict{}, fmt.Errorf("realm: %w", err)
	}
	e := audit.Event{Realm: realm, Detail: []audit.Field{{Name: "of", Value: "allowed"}}}
	if err := s.core.Allow(ctx, p, actShow, e); err != nil {
		return Verdict{}, err
	}
	id, ok := parseAAGUID(aaguid)
	if !ok {
		return Verdict{}, fmt.Errorf("%w: %s is no AAGUID; one has 32 hex digits", tokens.ErrInvalid, printable(aaguid))
	}
	folded := make([]string, len(groups))
	for i, g := range groups {
		if folded[i], err = tokens.FoldName(g); err != nil {
			return Verdict{}, fmt.Errorf("group %d: %w", i+1, err)
		}
	}
	rs, _, err := s.rules(ctx)
	if err != nil {
		return Verdict{}, err
	}
	facts, known, err := s.lookup(ctx, id, "")
	if errors.Is(err, tokens.ErrState) {
		return Verdict{Reasons: []string{err.Error()}}, nil
	} else if err != nil {
		return Verdict{}, err
	}
	c := &candidate{aaguid: id, attestation: attestedBasic, vouched: len(facts.own) > 0, model: facts.entry}
	if known {
		c.attestation, c.vouched = best(facts.entry.AttestationTypes), true
		c.synced = facts.entry.MultiDevice == "implicit"
	} else if !c.vouched {
		c.attestation = attestedSelf
	}
	v := Verdict{Model: facts.entry}
	for _, r := range concerns(facts.status, nil) {
		v.Reasons = append(v.Reasons, reported(r))
	}
	v.Reasons = append(v.Reasons, rs.judge(realm, folded, c, s.cfg.Synced)...)
	v.Allowed = len(v.Reasons) == 0
	return v, nil
}

// best is the most that a model with these metadata attestation types proves.
func best(types []string) string {
	for _, t := range []struct{ name, kind string }{
		{"basic_full", attestedBasic}, {"attca", attestedAttCA}, {"anonca", attestedAnonCA}, {"basic_surrogate", attestedSelf},
	} {
		if slices.Contains(types, t.name) {
			return t.kind
		}
	}
	return attestedNone
}

// reported is a status report in words.
func reported(r StatusReport) string {
	since := ""
	if !r.Since.IsZero() {
		since = " since " + r.Since.Format("2006-01-02")
	}
	return fmt.Sprintf("the FIDO metadata reports %s for this model%s", r.Status, since)
}
