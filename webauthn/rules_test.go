package webauthn

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens"
	"watchword/webauthn/softkey"
)

func model(certification string) *Model {
	return &Model{Name: "Key One", Certification: certification}
}

func TestRulesSayWhyAModelIsNotAllowed(t *testing.T) {
	one, two, zero := mdsAAGUID(1), mdsAAGUID(2), [16]byte{}
	yes, no := true, false
	proven := candidate{aaguid: one, model: model("FIDO_CERTIFIED_L1"), attestation: attestedBasic, vouched: true}
	with := func(edit func(*candidate)) candidate {
		c := proven
		edit(&c)
		return c
	}
	for name, c := range map[string]struct {
		r      Rules
		c      candidate
		synced bool   // the setting
		say    string // empty: allowed
	}{
		"no rules":                       {c: proven},
		"no rules, no metadata":          {c: with(func(c *candidate) { c.model, c.vouched, c.attestation = nil, false, attestedSelf }), say: "in no metadata"},
		"own root":                       {c: with(func(c *candidate) { c.model = nil })},
		"self":                           {c: with(func(c *candidate) { c.attestation, c.vouched = attestedSelf, false }), say: "self where the rules require basic"},
		"none":                           {c: with(func(c *candidate) { c.attestation, c.vouched = attestedNone, false }), say: "none where the rules require basic"},
		"attca is worth basic":           {c: with(func(c *candidate) { c.attestation = attestedAttCA })},
		"anonca is worth basic":          {c: with(func(c *candidate) { c.attestation = attestedAnonCA })},
		"self is enough":                 {r: Rules{RequiredAttestation: "self"}, c: with(func(c *candidate) { c.attestation, c.vouched = attestedSelf, false })},
		"none is less than self":         {r: Rules{RequiredAttestation: "self"}, c: with(func(c *candidate) { c.attestation, c.vouched = attestedNone, false }), say: "none where the rules require self"},
		"none is enough":                 {r: Rules{RequiredAttestation: "none"}, c: with(func(c *candidate) { c.attestation, c.vouched = attestedNone, false })},
		"unknown and allowed":            {r: Rules{RequiredAttestation: "none", AllowUnknown: true}, c: candidate{aaguid: one, attestation: attestedNone}},
		"unknown":                        {r: Rules{RequiredAttestation: "none"}, c: candidate{aaguid: one, attestation: attestedNone}, say: "in no metadata"},
		"zero":                           {c: with(func(c *candidate) { c.aaguid = zero }), say: "all zeros"},
		"zero where all is unknown":      {r: Rules{RequiredAttestation: "none", AllowUnknown: true}, c: candidate{attestation: attestedNone}, say: "all zeros"},
		"zero and allowed":               {r: Rules{AllowZeroAAGUID: true}, c: with(func(c *candidate) { c.aaguid = zero })},
		"zero against a list":            {r: Rules{AllowZeroAAGUID: true, PermittedAAGUIDs: []string{tokens.FormatAAGUID(one)}}, c: with(func(c *candidate) { c.aaguid = zero }), say: "none of those that the rules permit"},
		"zero in the list":               {r: Rules{AllowZeroAAGUID: true, PermittedAAGUIDs: []string{tokens.FormatAAGUID(zero)}}, c: with(func(c *candidate) { c.aaguid = zero })},
		"zero in the list, not allowed":  {r: Rules{PermittedAAGUIDs: []string{tokens.FormatAAGUID(zero)}}, c: with(func(c *candidate) { c.aaguid = zero }), say: "all zeros"},
		"permitted":                      {r: Rules{PermittedAAGUIDs: []string{tokens.FormatAAGUID(two), tokens.FormatAAGUID(one)}}, c: proven},
		"not permitted":                  {r: Rules{PermittedAAGUIDs: []string{tokens.FormatAAGUID(two)}}, c: proven, say: "none of those that the rules permit"},
		"permitted by its own word":      {r: Rules{PermittedAAGUIDs: []string{tokens.FormatAAGUID(one)}, RequiredAttestation: "none"}, c: with(func(c *candidate) { c.attestation = attestedSelf }), say: "self where the rules require basic"},
		"prohibited":                     {r: Rules{ProhibitedAAGUIDs: []string{strings.ToUpper(tokens.FormatAAGUID(one))}}, c: proven, say: "prohibit this model"},
		"prohibited and permitted":       {r: Rules{PermittedAAGUIDs: []string{tokens.FormatAAGUID(one)}, ProhibitedAAGUIDs: []string{tokens.FormatAAGUID(one)}}, c: proven, say: "prohibit this model"},
		"certified":                      {r: Rules{LeastCertification: "FIDO_CERTIFIED_L1"}, c: proven},
		"certified before there were L":  {r: Rules{LeastCertification: "FIDO_CERTIFIED"}, c: proven},
		"certified to less":              {r: Rules{LeastCertification: "FIDO_CERTIFIED_L1plus"}, c: proven, say: "FIDO_CERTIFIED_L1 where the rules require FIDO_CERTIFIED_L1plus"},
		"not certified":                  {r: Rules{LeastCertification: "FIDO_CERTIFIED"}, c: with(func(c *candidate) { c.model = model("") }), say: "not certified"},
		"certification of an own root's": {r: Rules{LeastCertification: "FIDO_CERTIFIED"}, c: with(func(c *candidate) { c.model = nil }), say: "not certified"},
		"certified by its own word":      {r: Rules{LeastCertification: "FIDO_CERTIFIED", RequiredAttestation: "self"}, c: with(func(c *candidate) { c.attestation = attestedSelf }), say: "require basic"},
		"synced":                         {c: with(func(c *candidate) { c.synced = true }), say: "other devices"},
		"synced by setting":              {c: with(func(c *candidate) { c.synced = true }), synced: true},
		"synced by rule":                 {r: Rules{Synced: &yes}, c: with(func(c *candidate) { c.synced = true })},
		"not synced by rule":             {r: Rules{Synced: &no}, c: with(func(c *candidate) { c.synced = true }), synced: true, say: "other devices"},
	} {
		rs := RuleSet{Default: c.r}
		why := rs.judge("default", nil, &c.c, c.synced)
		if (len(why) == 0) != (c.say == "") || c.say != "" && !slices.ContainsFunc(why, func(s string) bool { return strings.Contains(s, c.say) }) {
			t.Errorf("%s: %q; it should say %q", name, why, c.say)
		}
	}
}

func TestWhichRulesCountForWhom(t *testing.T) {
	one := tokens.FormatAAGUID(mdsAAGUID(1))
	two := tokens.FormatAAGUID(mdsAAGUID(2))
	all := Rules{}
	rs := RuleSet{
		Default: Rules{PermittedAAGUIDs: []string{one}},
		Realms: map[string]RealmRules{
			"works": {Rules: all, Groups: map[string]Rules{
				"ones": {PermittedAAGUIDs: []string{one}},
				"twos": {PermittedAAGUIDs: []string{two}},
				"free": {},
				"ban":  {ProhibitedAAGUIDs: []string{two}},
			}},
			"strict": {Rules: Rules{PermittedAAGUIDs: []string{one}, ProhibitedAAGUIDs: []string{two}}, Groups: map[string]Rules{"free": {}}},
		},
	}
	if err := rs.check(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		realm    string
		groups   string
		one, two bool
	}{
		{"default", "", true, false},
		{"default", "free", true, false}, // a group of another realm
		{"works", "", true, true},
		{"works", "unheard-of", true, true},
		{"works", "ones", true, false},
		{"works", "twos", false, true},
		{"works", "ones free", true, false},
		{"works", "free ones", true, false},
		{"works", "ones twos", false, false},
		{"works", "ban", true, false},
		{"works", "ban free", true, false},
		{"strict", "", true, false},
		{"strict", "free", true, false}, // two is prohibited for all of the realm
	} {
		for id, want := range map[[16]byte]bool{mdsAAGUID(1): c.one, mdsAAGUID(2): c.two} {
			cand := candidate{aaguid: id, model: model("FIDO_CERTIFIED"), attestation: attestedBasic, vouched: true}
			if why := rs.judge(c.realm, strings.Fields(c.groups), &cand, false); (len(why) == 0) != want {
				t.Errorf("realm %s, groups %q, model %x: %q", c.realm, c.groups, id[15], why)
			}
		}
	}
}

func drawRules(t *rapid.T) Rules {
	ids := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{tokens.FormatAAGUID([16]byte{}), tokens.FormatAAGUID(mdsAAGUID(1)), tokens.FormatAAGUID(mdsAAGUID(2))}), 0, 3, rapid.ID[string])
	r := Rules{
		PermittedAAGUIDs: ids.Draw(t, "permitted"), ProhibitedAAGUIDs: ids.Draw(t, "prohibited"),
		LeastCertification:  rapid.SampledFrom(append([]string{""}, levels...)).Draw(t, "least"),
		RequiredAttestation: rapid.SampledFrom([]string{"", "none", "self", "basic"}).Draw(t, "required"),
		AllowUnknown:        rapid.Bool().Draw(t, "unknown"), AllowZeroAAGUID: rapid.Bool().Draw(t, "zero"),
	}
	if rapid.Bool().Draw(t, "says synced") {
		v := rapid.Bool().Draw(t, "synced")
		r.Synced = &v
	}
	return r
}

// TestAnotherGroupNeverAllowsMore holds for all rules and keys: to be in one group
// more, to attest less, or to be in less metadata, allows nothing that was not.
func TestAnotherGroupNeverAllowsMore(t *testing.T) {
	kinds := []string{attestedNone, attestedSelf, attestedBasic}
	rapid.Check(t, func(t *rapid.T) {
		rs := RuleSet{Default: drawRules(t), Realms: map[string]RealmRules{"r": {Rules: drawRules(t), Groups: map[string]Rules{"a": drawRules(t), "b": drawRules(t)}}}}
		at := rapid.IntRange(0, 2).Draw(t, "attestation")
		c := candidate{
			aaguid:      rapid.SampledFrom([][16]byte{{}, mdsAAGUID(1), mdsAAGUID(2)}).Draw(t, "aaguid"),
			attestation: kinds[at], vouched: at == 2, synced: rapid.Bool().Draw(t, "key synced"),
		}
		if rapid.Bool().Draw(t, "known") {
			c.model = model(rapid.SampledFrom(append([]string{""}, levels...)).Draw(t, "certification"))
		}
		setting := rapid.Bool().Draw(t, "setting")
		allowed := func(c candidate, groups ...string) bool { return len(rs.judge("r", groups, &c, setting)) == 0 }
		if allowed(c, "a", "b") != (allowed(c, "a") && allowed(c, "b")) && allowed(c, "a", "b") {
			t.Fatal("two groups allow what one of them does not")
		}
		if allowed(c, "a") && !allowed(c, "a", "unheard-of") {
			t.Fatal("a group without rules counts")
		}
		for _, groups := range [][]string{nil, {"a"}, {"a", "b"}} {
			if at > 0 {
				less := c
				less.attestation, less.vouched = kinds[at-1], false
				if allowed(less, groups...) && !allowed(c, groups...) {
					t.Fatalf("%v: less attestation allows more", groups)
				}
			}
			unknown := c
			unknown.model = nil
			if allowed(unknown, groups...) && !allowed(c, groups...) {
				t.Fatalf("%v: less metadata allows more", groups)
			}
			single := c
			single.synced = false
			if allowed(c, groups...) && !allowed(single, groups...) {
				t.Fatalf("%v: a synced key is allowed where one that is not is forbidden", groups)
			}
			counting, prohibited := rs.of("r", groups)
			if allowed(c, groups...) && (named(prohibited, c.aaguid) || slices.ContainsFunc(counting, func(r Rules) bool {
				return len(r.PermittedAAGUIDs) > 0 && c.attestation != attestedBasic || c.aaguid == [16]byte{} && !r.AllowZeroAAGUID
			})) {
				t.Fatalf("%v: allowed %+v", groups, c)
			}
		}
	})
}

func TestRulesThatCannotBeMeantAreRefused(t *testing.T) {
	h := newKeyHouse(t)
	one := tokens.FormatAAGUID(mdsAAGUID(1))
	for name, rs := range map[string]RuleSet{
		"no AAGUID":              {Default: Rules{PermittedAAGUIDs: []string{"YubiKey"}}},
		"part of an AAGUID":      {Default: Rules{ProhibitedAAGUIDs: []string{one[:35]}}},
		"dashes in wrong places": {Default: Rules{ProhibitedAAGUIDs: []string{"77617463-6877-6f72-6473-6f66746b657-9"}}},
		"no level":               {Default: Rules{LeastCertification: "L2"}},
		"no attestation":         {Default: Rules{RequiredAttestation: "full"}},
		"a list without proof":   {Default: Rules{PermittedAAGUIDs: []string{one}, RequiredAttestation: "self"}},
		"a level without proof":  {Default: Rules{LeastCertification: "FIDO_CERTIFIED", RequiredAttestation: "none"}},
		"unknown and proven":     {Default: Rules{AllowUnknown: true}},
		"in a realm":             {Realms: map[string]RealmRules{"r": {Rules: Rules{RequiredAttestation: "x"}}}},
		"in a group":             {Realms: map[string]RealmRules{"r": {Groups: map[string]Rules{"g": {RequiredAttestation: "x"}}}}},
		"a realm without a name": {Realms: map[string]RealmRules{"": {}}},
		"a group without a name": {Realms: map[string]RealmRules{"r": {Groups: map[string]Rules{"": {}}}}},
		"a realm twice":          {Realms: map[string]RealmRules{"r": {}, "R": {}}},
		"a group twice":          {Realms: map[string]RealmRules{"r": {Groups: map[string]Rules{"g": {}, "G": {}}}}},
	} {
		if err := h.SetRules(t.Context(), h.admin, rs, 0); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"a misspelt member": `{"default":{"permited_aaguids":[]}}`,
		"two documents":     `{}{}`,
		"a list":            `[]`,
		"nothing":           ``,
		"too long":          `{"default":{"permitted_aaguids":["` + strings.Repeat("0", maxRules) + `"]}}`,
	} {
		if _, err := ParseRules([]byte(text)); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	rs, version, err := h.Rules(t.Context(), h.admin)
	if err != nil || version != 0 || rs.Realms != nil {
		t.Errorf("rules are %+v, version %d, %v", rs, version, err)
	}
}

func TestRulesAreForEveryNodeAndReplacedByVersion(t *testing.T) {
	h := newKeyHouse(t)
	one := mdsAAGUID(1)
	rs := RuleSet{Realms: map[string]RealmRules{"Works": {Groups: map[string]Rules{"Board": {PermittedAAGUIDs: []string{strings.ToUpper(strings.ReplaceAll(tokens.FormatAAGUID(one), "-", ""))}}}}}}
	if err := h.SetRules(t.Context(), h.admin, rs, 0); err != nil {
		t.Fatal(err)
	}
	if _, kept := rs.Realms["Works"]; !kept {
		t.Error("the caller's rules were changed")
	}
	got, version, err := h.other.Rules(t.Context(), h.admin)
	if err != nil || version != 1 || !slices.Equal(got.Realms["works"].Groups["board"].PermittedAAGUIDs, []string{tokens.FormatAAGUID(one)}) {
		t.Errorf("%+v, version %d, %v", got, version, err)
	}
	for _, expect := range []int64{0, 2} {
		if err := h.SetRules(t.Context(), h.admin, RuleSet{}, expect); !errors.Is(err, tokens.ErrState) {
			t.Errorf("version %d expected: %v", expect, err)
		}
	}
	nobody := tokens.Principal{Kind: tokens.KindKey, ID: "x", Scope: "helpdesk"}
	if err := h.SetRules(t.Context(), nobody, RuleSet{}, 1); err == nil {
		t.Error("the helpdesk sets rules")
	}
	if done := h.records("fido.rules.put", "ok"); len(done) != 1 || detail(done[0], "document") != rulesDocument {
		t.Errorf("the audit has %+v", done)
	}
}

// Rules that somebody wrote into the database are nobody's: nothing is allowed by
// them, nor by any others, until they are set anew.
func TestRulesAlteredInTheDatabaseAllowNothing(t *testing.T) {
	h := newKeyHouse(t)
	h.govern(RuleSet{})
	forged := []byte(`{"default":{"allow_unknown":true,"allow_zero_aaguid":true,"required_attestation":"none"}}`)
	for i, data := range [][]byte{forged, append([]byte(strings.Repeat("0", 64)+"\n"), forged...)} {
		if _, err := h.cores[0].PutDocument(t.Context(), system, actRules, "", tokens.DocumentWrite{Name: rulesDocument, Expect: int64(i + 1), Data: data}, nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := h.rules(t.Context()); !errors.Is(err, tokens.ErrTampered) {
			t.Errorf("forged rules: %v", err)
		}
		if v, err := h.Allowed(t.Context(), h.admin, "", nil, tokens.FormatAAGUID(mdsAAGUID(1))); err == nil && v.Allowed {
			t.Error("a model is allowed by forged rules")
		}
	}
	if err := h.SetRules(t.Context(), h.admin, RuleSet{}, 3); err != nil {
		t.Fatal(err)
	}
	if _, version, err := h.rules(t.Context()); err != nil || version != 4 {
		t.Errorf("set anew: version %d, %v", version, err)
	}
}

// TestWhatAllowedSaysIsWhatHappens asks first, then enrols.
func TestWhatAllowedSaysIsWhatHappens(t *testing.T) {
	h := newKeyHouse(t)
	vendor, err := softkey.NewVendor("Works")
	if err != nil {
		t.Fatal(err)
	}
	keys := make([]*softkey.Key, 5)
	for i := range keys {
		o := softkey.Options{Vendor: vendor, AAGUID: tokens.FormatAAGUID(mdsAAGUID(i))}
		if i == 2 {
			o.Format = softkey.Self
		}
		keys[i] = newKey(t, o)
	}
	entries := []map[string]any{keyModel(keys[0], "Good"), keyModel(keys[1], "Revoked"), keyModel(keys[2], "Plain", func(st map[string]any) {
		st["attestationTypes"] = []string{"basic_surrogate"}
	}), keyModel(keys[3], "Uncertified")}
	entries[1]["statusReports"] = []any{map[string]any{"status": "FIDO_CERTIFIED_L1", "effectiveDate": "2025-01-01"}, map[string]any{"status": "REVOKED", "effectiveDate": "2025-06-01"}}
	entries[3]["statusReports"] = []any{map[string]any{"status": "NOT_FIDO_CERTIFIED", "effectiveDate": "2025-01-01"}}
	h.publish(1, entries...)
	h.govern(RuleSet{Default: Rules{LeastCertification: "FIDO_CERTIFIED"}, Realms: map[string]RealmRules{
		"default": {Rules: Rules{LeastCertification: "FIDO_CERTIFIED"}, Groups: map[string]Rules{"guests": {RequiredAttestation: "self", AllowUnknown: true}}},
	}})
	if _, err := h.cores[0].SetGroups(t.Context(), h.admin, "", "bob", []string{"Guests"}); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		alice, bob string // empty: allowed
		model      string
	}{
		{"", "", "Good"},
		{"REVOKED for this model since 2025-06-01", "REVOKED", "Revoked"},
		{"self where the rules require basic", "", "Plain"},
		{"not certified where the rules require FIDO_CERTIFIED", "", "Uncertified"},
		{"in no metadata", "", ""},
	} {
		for user, say := range map[string]string{"alice": c.alice, "bob": c.bob} {
			groups := map[string][]string{"bob": {"guests"}}[user]
			v, err := h.Allowed(t.Context(), h.admin, "", groups, keys[i].AAGUID())
			if err != nil {
				t.Fatal(err)
			}
			if (v.Model != nil) != (c.model != "") || v.Model != nil && v.Model.Name != c.model {
				t.Errorf("model %d: %+v", i, v.Model)
			}
			if _, err = h.register(keys[i], user); (err == nil) != (say == "") || err != nil && !strings.Contains(err.Error(), say) {
				t.Errorf("model %d for %s: enrolling: %v; it should say %q", i, user, err, say)
			}
			if v.Allowed != (say == "") || v.Allowed != (len(v.Reasons) == 0) || say != "" && !strings.Contains(strings.Join(v.Reasons, "; "), say) {
				t.Errorf("model %d for %s: %+v; it should say %q", i, user, v, say)
			}
		}
	}
	for _, bad := range []string{"", "x", "7761746368776f7264206d6f64656c0", keys[0].AAGUID() + "0"} {
		if _, err := h.Allowed(t.Context(), h.admin, "", nil, bad); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("AAGUID %q: %v", bad, err)
		}
	}
	if _, err := h.Allowed(t.Context(), tokens.Principal{Kind: tokens.KindKey, ID: "x", Scope: "verify"}, "", nil, keys[0].AAGUID()); err == nil {
		t.Error("an application asks for rules")
	}
}

func TestEachBadStatusForbidsEnrolment(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	number := 0
	for _, status := range []string{"REVOKED", "USER_VERIFICATION_BYPASS", "ATTESTATION_KEY_COMPROMISE", "USER_KEY_REMOTE_COMPROMISE", "USER_KEY_PHYSICAL_COMPROMISE", "RETIRED"} {
		number++
		e := keyModel(k, "Soft One")
		e["statusReports"] = []any{
			map[string]any{"status": "FIDO_CERTIFIED_L2", "effectiveDate": "2025-01-01"},
			map[string]any{"status": status, "effectiveDate": "2025-06-01"},
			map[string]any{"status": "UPDATE_AVAILABLE", "effectiveDate": "2025-07-01"},
		}
		h.publish(number, e)
		if _, err := h.register(k, "alice"); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), status) {
			t.Errorf("%s: %v", status, err)
		}
		if r := h.lastRefusal(); r.Reason != string(reasonModel) || !strings.Contains(why(r), status) || detail(r, "model") != "Soft One" || detail(r, "aaguid") != k.AAGUID() {
			t.Errorf("%s: the audit has %+v", status, r)
		}
	}
	// About a certificate that this key's path does not have; then about its own.
	for _, own := range []bool{false, true} {
		number++
		cert := mdsCert(t, nil, isCA).cert
		if own {
			cert = k.Vendor().Intermediate()
		}
		e := keyModel(k, "Soft One")
		e["statusReports"] = []any{map[string]any{"status": "ATTESTATION_KEY_COMPROMISE", "effectiveDate": "2025-06-01", "certificate": mdsBase64(cert)}}
		h.publish(number, e)
		if _, err := h.register(newKey(t, softkey.Options{Vendor: k.Vendor()}), "alice"); (err != nil) != own {
			t.Errorf("about its own certificate %v: %v", own, err)
		}
	}
}

func TestMetadataThatExpiredEnrolsNobody(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	h.forward(100 * 24 * time.Hour)
	if _, err := h.register(k, "alice"); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "metadata") {
		t.Errorf("%v", err)
	}
	if r := h.lastRefusal(); r.Reason != string(reasonModel) || !strings.Contains(why(r), "metadata") {
		t.Errorf("the audit has %+v", r)
	}
}

// TestAnAnswerContraryToTheMetadataIsRefused: what the model cannot do, it did not.
func TestAnAnswerContraryToTheMetadataIsRefused(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{UserVerification: true})
	number := 0
	for say, change := range map[string]map[string]any{
		"does not attest in format packed":           {"authenticatorGetInfo": map[string]any{"attestationFormats": []string{"tpm"}}},
		"does not give attestation of type basic":    {"attestationTypes": []string{"basic_surrogate"}},
		"does not sign with algorithm -7":            {"authenticationAlgorithms": []string{"ed25519_eddsa_sha512_raw"}},
		"cannot verify its user":                     {"userVerificationDetails": []any{[]any{map[string]any{"userVerificationMethod": "presence_internal"}}}},
		"leads to no root that is trusted for this ": {"attestationRootCertificates": []string{mdsBase64(mdsCert(t, nil, isCA).cert)}},
		"": {},
	} {
		number++
		h.publish(number, keyModel(k, "Soft One", func(st map[string]any) { maps.Copy(st, change) }))
		_, err := h.register(newKey(t, softkey.Options{UserVerification: true, Vendor: k.Vendor()}), "alice")
		if (err == nil) != (say == "") || err != nil && (!strings.Contains(err.Error(), say) || h.lastRefusal().Reason != string(reasonAttestation)) {
			t.Errorf("%v; it should say %q", err, say)
		}
	}
}

// TestAU2FKeyIsFoundByItsAttestationKey, and by no AAGUID that it claims.
func TestAU2FKeyIsFoundByItsAttestationKey(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{Format: softkey.U2F})
	h.govern(RuleSet{Default: Rules{AllowZeroAAGUID: true}})
	if _, err := h.register(k, "alice"); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "in no metadata") {
		t.Errorf("before the metadata knows it: %v", err)
	}
	_, raw := h.answered(k, "alice")
	a, err := parseAnswer(raw, kindRegister)
	if err != nil {
		t.Fatal(err)
	}
	clientless := *vectorSession(kindRegister, nil)
	proven, err := attest(a, &clientless, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	e := mdsU2F("Old One", proven.chain[0], "FIDO_CERTIFIED")
	e["metadataStatement"].(map[string]any)["attestationRootCertificates"] = []string{mdsBase64(k.Root())}
	h.publish(1, e)
	token := h.mustRegister(k, "alice")
	if token.Model != "Old One" || token.Credential.Attester != mdsKeyID(proven.chain[0]) || (token.Credential.AAGUID != [16]byte{}) {
		t.Errorf("%+v, %+v", token, token.Credential)
	}
	// Another format by the same attestation key, as far as it goes, is not U2F.
	packed := newKey(t, softkey.Options{Vendor: k.Vendor(), AAGUID: tokens.FormatAAGUID([16]byte{})})
	packed.Misbehave(&softkey.Faults{Leaf: func(c *x509.Certificate) { c.ExtraExtensions = nil }})
	_, raw = h.answered(packed, "bob")
	if a, err = parseAnswer(raw, kindRegister); err != nil {
		t.Fatal(err)
	}
	if proven, err = attest(a, &clientless, time.Now()); err != nil {
		t.Fatal(err)
	}
	facts, _, err := h.lookup(t.Context(), [16]byte{}, token.Credential.Attester)
	if err != nil {
		t.Fatal(err)
	}
	if err := proven.suits(&facts); err == nil || !strings.Contains(err.Error(), "does not attest in format packed") {
		t.Errorf("packed by a U2F model: %v", err)
	}
	// The same with the AAGUID of a better model: a U2F signature does not cover it.
	better := newKey(t, softkey.Options{Format: softkey.U2F, Vendor: k.Vendor()})
	claimed := mdsAAGUID(5)
	better.Misbehave(&softkey.Faults{AuthData: func(b []byte) []byte {
		copy(b[37:], claimed[:])
		return b
	}})
	if token := h.mustRegister(better, "bob"); token.Credential.AAGUID != [16]byte{} {
		t.Errorf("an AAGUID that nothing proves is believed: %+v", token.Credential)
	}
}

// TestAKnownModelsChainMustHold also where rules ask for no proof: who names a known
// model and has a certificate for it that does not hold is an impostor.
func TestAKnownModelsChainMustHold(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	h.govern(RuleSet{Default: Rules{RequiredAttestation: "none", AllowUnknown: true}})
	impostor := newKey(t, softkey.Options{})
	if _, err := h.register(impostor, "alice"); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "leads to no root") {
		t.Errorf("an impostor: %v", err)
	}
	// An own root does not vouch for a model that the metadata knows.
	if err := h.SetRoots(t.Context(), h.admin, impostor.RootPEM()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.register(impostor, "alice"); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "leads to no root") {
		t.Errorf("an impostor with an own root: %v", err)
	}
	own := newKey(t, softkey.Options{Vendor: impostor.Vendor(), AAGUID: tokens.FormatAAGUID(mdsAAGUID(9))})
	if token := h.mustRegister(own, "alice"); token.Credential.Attestation != "basic" || token.Model != "" {
		t.Errorf("a model of an own root: %+v", token)
	}
	unknown := newKey(t, softkey.Options{AAGUID: tokens.FormatAAGUID(mdsAAGUID(9))})
	if token := h.mustRegister(unknown, "bob"); token.Credential.Attestation != "self" {
		t.Errorf("a model of nobody: %+v", token.Credential)
	}
	if done := h.records("key.enrol", "ok"); !strings.Contains(detail(done[len(done)-1], "unvouched"), "leads to no root") {
		t.Errorf("the audit has %+v", done[len(done)-1])
	}
}

func TestSyncedKeysAreForbiddenUnlessAllowed(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{BackupEligible: true, BackedUp: true})
	h.publish(1, keyModel(k, "Soft One", func(st map[string]any) { st["multiDeviceCredentialSupport"] = "explicit" }))
	if _, err := h.register(k, "alice"); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "backup eligible") {
		t.Errorf("by setting: %v", err)
	}
	yes := true
	h.govern(RuleSet{Default: Rules{Synced: &yes}})
	if token := h.mustRegister(k, "alice"); !token.Credential.Synced {
		t.Error("the token does not say that it is synced")
	}
	if !h.signIn(k, "alice").Accept {
		t.Error("it does not sign in")
	}
	k.SetBackedUp(false) // comes and goes; eligibility does not
	if !h.signIn(k, "alice").Accept {
		t.Error("it does not sign in while it is not backed up")
	}
}

func TestLevelsAreGrantedWithdrawnAndEnd(t *testing.T) {
	day := func(n int) time.Time { return mdsNow.AddDate(0, 0, n) }
	l1, l2, none := "FIDO_CERTIFIED_L1", "FIDO_CERTIFIED_L2", "NOT_FIDO_CERTIFIED"
	for i, c := range []struct {
		reports []StatusReport
		want    string
	}{
		{nil, ""},
		{[]StatusReport{{Status: l1}}, l1},
		{[]StatusReport{{Status: l2}, {Status: l1}}, l2},
		{[]StatusReport{{Status: l1}, {Status: l2, Since: day(1)}}, l1},
		{[]StatusReport{{Status: l2, Until: day(0)}, {Status: l1}}, l1},
		{[]StatusReport{{Status: l2, Until: day(1)}}, l2},
		{[]StatusReport{{Status: l2}, {Status: none}}, ""},
		{[]StatusReport{{Status: l2}, {Status: none}, {Status: l1}}, l1},
		{[]StatusReport{{Status: l1}, {Status: "UPDATE_AVAILABLE"}, {Status: "WHATEVER"}}, l1},
	} {
		if got := certification(c.reports, mdsNow); got != c.want {
			t.Errorf("%d: %q; want %q", i, got, c.want)
		}
	}
	if level("FIDO_CERTIFIED_L3plus") <= level("FIDO_CERTIFIED_L3") || level("") != 0 || level("L1") != -1 {
		t.Error("levels are out of order")
	}
}

func TestAAGUIDsAreReadInEitherForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id"))
		text := tokens.FormatAAGUID(id)
		for _, form := range []string{text, strings.ToUpper(text), strings.ReplaceAll(text, "-", "")} {
			if got, ok := parseAAGUID(form); !ok || got != id {
				t.Fatalf("%s is read as %x", form, got)
			}
		}
		if _, ok := parseAAGUID(text[:len(text)-1]); ok {
			t.Fatal("a part is read")
		}
	})
	for _, bad := range []string{"", "-", strings.Repeat("-", 36), fmt.Sprintf("{%s}", tokens.FormatAAGUID([16]byte{})), strings.Repeat("0", 36)} {
		if _, ok := parseAAGUID(bad); ok {
			t.Errorf("%q is read", bad)
		}
	}
}
