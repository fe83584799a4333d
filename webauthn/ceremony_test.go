package webauthn

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/webauthn/softkey"
)

const here = "https://example.org"

// keyModel is the metadata entry of a softkey's model.
func keyModel(k *softkey.Key, name string, edits ...func(statement map[string]any)) map[string]any {
	id, _ := parseAAGUID(k.AAGUID())
	e := mdsEntry(id, name, k.Root(), "FIDO_CERTIFIED_L1")
	st := e["metadataStatement"].(map[string]any)
	st["authenticationAlgorithms"] = []string{"secp256r1_ecdsa_sha256_raw", "ed25519_eddsa_sha512_raw", "secp384r1_ecdsa_sha384_raw", "secp521r1_ecdsa_sha512_raw", "rsassa_pkcsv15_sha256_raw"}
	st["attestationTypes"] = []string{"basic_full", "basic_surrogate", "attca", "anonca"}
	st["authenticatorGetInfo"].(map[string]any)["attestationFormats"] = []string{"packed", "tpm", "android-key", "apple"}
	for _, edit := range edits {
		edit(st)
	}
	return e
}

func newKey(t testing.TB, o softkey.Options) *softkey.Key {
	t.Helper()
	k, err := softkey.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (h *mdsHouse) users(names ...string) {
	h.Helper()
	for _, n := range names {
		if _, err := h.cores[0].AddUser(h.Context(), h.admin, "", n); err != nil {
			h.Fatal(err)
		}
	}
}

func (h *mdsHouse) govern(rs RuleSet) {
	h.Helper()
	_, version, err := h.Rules(h.Context(), h.admin)
	if err == nil {
		err = h.SetRules(h.Context(), h.admin, rs, version)
	}
	if err != nil {
		h.Fatal(err)
	}
}

// answered begins a registration at this node and has the key answer.
func (h *mdsHouse) answered(k *softkey.Key, user string) (session string, answer []byte) {
	h.Helper()
	c, err := h.BeginRegistration(h.Context(), h.admin, RegistrationRequest{User: user})
	if err != nil {
		h.Fatal(err)
	}
	if answer, err = k.Register(c.Options, here); err != nil {
		h.Fatal(err)
	}
	return c.Session, answer
}

// register ends at the other node what it begins at this one.
func (h *mdsHouse) register(k *softkey.Key, user string) (tokens.Token, error) {
	h.Helper()
	session, answer := h.answered(k, user)
	return h.other.FinishRegistration(h.Context(), h.admin, session, answer)
}

func (h *mdsHouse) mustRegister(k *softkey.Key, user string) tokens.Token {
	h.Helper()
	token, err := h.register(k, user)
	if err != nil {
		h.Fatal(err)
	}
	return token
}

func (h *mdsHouse) asserted(k *softkey.Key, r LoginRequest) (session string, answer []byte) {
	h.Helper()
	c, err := h.BeginLogin(h.Context(), h.admin, r)
	if err != nil {
		h.Fatal(err)
	}
	if answer, err = k.Assert(c.Options, here); err != nil {
		h.Fatal(err)
	}
	return c.Session, answer
}

func (h *mdsHouse) finish(session string, answer []byte) tokens.KeyResult {
	h.Helper()
	res, err := h.other.FinishLogin(h.Context(), h.admin, session, answer, "http")
	if err != nil {
		h.Fatal(err)
	}
	return res
}

func (h *mdsHouse) signIn(k *softkey.Key, user string) tokens.KeyResult {
	h.Helper()
	return h.finish(h.asserted(k, LoginRequest{User: user}))
}

// lastRefusal is the audit's last refusal of a registration.
func (h *mdsHouse) lastRefusal() audit.Record {
	h.Helper()
	list := h.records("key.enrol", "refused")
	if len(list) == 0 {
		h.Fatal("the audit has no refusal")
	}
	return list[len(list)-1]
}

func (h *mdsHouse) lastReject() audit.Record {
	h.Helper()
	list := h.records("verify", "reject")
	if len(list) == 0 {
		h.Fatal("the audit has no rejection")
	}
	return list[len(list)-1]
}

func detail(r audit.Record, name string) string {
	for _, f := range r.Detail {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// topOrigin names a top page in client data that say they are of no frame.
func topOrigin(clientData []byte) []byte {
	return append(clientData[:len(clientData)-1], `,"topOrigin":"https://example.org"}`...)
}

func newKeyHouse(t testing.TB, edits ...func(*Config)) *mdsHouse {
	t.Helper()
	h := newMDSHouse(t, edits...)
	h.users("alice", "bob")
	return h
}

func TestAKeyOfEachFormatIsRegisteredAtOneNodeAndSignsInAtTheOther(t *testing.T) {
	h := newKeyHouse(t)
	vendor, err := softkey.NewVendor("Works")
	if err != nil {
		t.Fatal(err)
	}
	u2f := newKey(t, softkey.Options{Format: softkey.U2F, Vendor: vendor})
	self := newKey(t, softkey.Options{Format: softkey.Self, Vendor: vendor})
	h.govern(RuleSet{Default: Rules{RequiredAttestation: "none", AllowZeroAAGUID: true, AllowUnknown: true}})
	h.publish(1, keyModel(self, "Soft One"))
	if err := h.SetRoots(t.Context(), h.admin, vendor.RootPEM()); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		o             softkey.Options
		format, kind  string
		model, rooted string
	}{
		{softkey.Options{Format: softkey.Packed}, "packed", "basic", "Soft One", "Software Authenticator Root"},
		{softkey.Options{Format: softkey.Packed, Algorithm: softkey.EdDSA}, "packed", "basic", "Soft One", "Software Authenticator Root"},
		{softkey.Options{Format: softkey.Packed, Algorithm: softkey.RS256}, "packed", "basic", "Soft One", "Software Authenticator Root"},
		{softkey.Options{Format: softkey.Self}, "packed", "self", "", ""},
		{softkey.Options{Format: softkey.TPM, Algorithm: softkey.RS256}, "tpm", "attca", "Soft One", "Software Authenticator Root"},
		{softkey.Options{Format: softkey.TPM}, "tpm", "attca", "Soft One", "Software Authenticator Root"},
		{softkey.Options{Format: softkey.AndroidKey}, "android-key", "basic", "Soft One", "Software Authenticator Root"},
		{softkey.Options{Format: softkey.Apple}, "apple", "anonca", "Soft One", "Software Authenticator Root"},
		{softkey.Options{Format: softkey.None}, "none", "none", "", ""},
		{softkey.Options{Format: softkey.U2F}, "fido-u2f", "basic", "", "Software Authenticator Root"},
	} {
		c.o.Vendor, c.o.UserVerification = vendor, true
		user := "user" + string(rune('a'+i))
		h.users(user)
		k := newKey(t, c.o)
		token := h.mustRegister(k, user)
		got := token.Credential
		if got.Format != c.format || got.Attestation != c.kind || token.Model != c.model || token.State != tokens.Active || token.Owner != user || got.RPID != "example.org" {
			t.Errorf("%s: registered as %+v, %+v", c.o.Format, token, got)
		}
		if token.Serial != tokens.CredentialSerial(got.ID) || !slices.Equal(got.Transports, []string{"usb"}) || got.Discoverable || got.Synced {
			t.Errorf("%s: %s, %+v", c.o.Format, token.Serial, got)
		}
		if u := c.o.Format == softkey.U2F; got.UserVerified == u || (got.AAGUID == [16]byte{}) != u || (got.Attester != "") != u {
			t.Errorf("%s: user verified %v, AAGUID %x, attester %s", c.o.Format, got.UserVerified, got.AAGUID, got.Attester)
		}
		done := h.records("key.enrol", "ok")
		if r := done[len(done)-1]; r.User != user || detail(r, "format") != c.format || detail(r, "attestation") != c.kind || !strings.Contains(detail(r, "root"), c.rooted) || detail(r, "rp") != "example.org" {
			t.Errorf("%s: the audit has %+v", c.o.Format, r)
		}
		for range 2 {
			if res := h.signIn(k, user); !res.Accept || res.Serial != token.Serial || res.User != user || !res.UserVerified {
				t.Errorf("%s: signing in: %+v; %s", c.o.Format, res, why(h.lastReject()))
			}
		}
	}
	if u2f.AAGUID() == self.AAGUID() {
		t.Error("the U2F key has an AAGUID")
	}
}

// TestAManipulatedRegistrationIsRefusedWithItsReason has a key and a browser do
// wrong one thing at a time. What is signed is signed after that.
func TestAManipulatedRegistrationIsRefusedWithItsReason(t *testing.T) {
	h := newKeyHouse(t)
	vendor, err := softkey.NewVendor("Works")
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := softkey.NewVendor("Strangers")
	if err != nil {
		t.Fatal(err)
	}
	k := newKey(t, softkey.Options{Vendor: vendor})
	h.publish(1, keyModel(k, "Soft One"))
	edit := func(name string, value any) func(string, map[string]any) (string, map[string]any) {
		return func(format string, m map[string]any) (string, map[string]any) {
			m[name] = value
			return format, m
		}
	}
	as := func(format string) func(string, map[string]any) (string, map[string]any) {
		return func(_ string, m map[string]any) (string, map[string]any) { return format, m }
	}
	flags := func(set, clear byte) func([]byte) []byte {
		return func(b []byte) []byte {
			b[32] = b[32]&^clear | set
			return b
		}
	}
	aaguid := func(id [16]byte) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			value, _ := asn1.Marshal(id[:])
			c.ExtraExtensions = []pkix.Extension{{Id: oidAAGUID, Value: value}}
		}
	}
	packed, self := softkey.Options{Vendor: vendor}, softkey.Options{Vendor: vendor, Format: softkey.Self}
	for _, c := range []struct {
		name   string
		o      softkey.Options
		f      softkey.Faults
		reason tokens.Reason
		say    string
	}{
		{"another origin", packed, softkey.Faults{Origin: "https://example.org.evil.test"}, reasonOrigin, "not an origin of relying party example.org"},
		{"the origin with a port", packed, softkey.Faults{Origin: "https://example.org:443"}, reasonOrigin, "not an origin"},
		{"the origin in capitals", packed, softkey.Faults{Origin: "https://EXAMPLE.org"}, reasonOrigin, "not an origin"},
		{"the origin with a path", packed, softkey.Faults{Origin: "https://example.org/"}, reasonOrigin, "not an origin"},
		{"http", packed, softkey.Faults{Origin: "http://example.org"}, reasonOrigin, "not an origin"},
		{"a page in another's frame", packed, softkey.Faults{CrossOrigin: true}, reasonOrigin, "page of another origin"},
		{"a page in a frame, and its top", packed, softkey.Faults{CrossOrigin: true, TopOrigin: here}, reasonOrigin, "page of another origin"},
		{"a top page, without a frame", packed, softkey.Faults{ClientData: topOrigin}, reasonOrigin, "page of another origin"},
		{"a login's client data", packed, softkey.Faults{Type: "webauthn.get"}, reasonMalformed, "of type"},
		{"another challenge", packed, softkey.Faults{Challenge: make([]byte, 32)}, reasonSignature, "another challenge"},
		{"part of a challenge", packed, softkey.Faults{Challenge: []byte{1}}, reasonSignature, "another challenge"},
		{"token binding", packed, softkey.Faults{ClientData: func(b []byte) []byte {
			return append(b[:len(b)-1], `,"tokenBinding":{"status":"present","id":"AAAA"}}`...)
		}}, reasonOrigin, "token binding"},
		{"an origin twice", packed, softkey.Faults{ClientData: func(b []byte) []byte {
			return append(b[:len(b)-1], `,"origin":"https://example.org"}`...)
		}}, reasonMalformed, "twice"},
		{"client data with more behind", packed, softkey.Faults{ClientData: func(b []byte) []byte { return append(b, '{', '}') }}, reasonMalformed, "not a JSON object"},
		{"another relying party", packed, softkey.Faults{RPID: "example.com"}, reasonOrigin, "another relying party"},
		{"nobody there", packed, softkey.Faults{Absent: true}, reasonUnverified, "user presence"},
		{"backed up and not eligible", packed, softkey.Faults{AuthData: flags(0x10, 0x08)}, reasonMalformed, "backed up, and that it cannot be"},
		{"no credential", packed, softkey.Faults{AuthData: func(b []byte) []byte { b[32] &^= 0x40; return b[:37] }}, reasonMalformed, "hold no credential"},
		{"a byte behind the authenticator data", packed, softkey.Faults{AuthData: func(b []byte) []byte { return append(b, 0) }}, reasonMalformed, "authenticator data"},
		{"an extension nobody asked for", packed, softkey.Faults{AuthData: func(b []byte) []byte {
			b[32] |= 0x80
			return append(b, "\xa1\x6bhmac-secret\xf5"...)
		}}, reasonMalformed, "hmac-secret"},
		{"credProtect of no level", packed, softkey.Faults{AuthData: func(b []byte) []byte {
			b[32] |= 0x80
			return append(b, "\xa1\x6bcredProtect\x04"...)
		}}, reasonMalformed, "credProtect"},
		{"extensions in a list", packed, softkey.Faults{AuthData: func(b []byte) []byte { b[32] |= 0x80; return append(b, 0x80) }}, reasonMalformed, "authenticator"},
		{"another credential id", packed, softkey.Faults{AuthData: func(b []byte) []byte { b[55] ^= 1; return b }}, reasonMalformed, "differs from the answer's"},
		{"synced", packed, softkey.Faults{AuthData: flags(0x08, 0)}, reasonAttestation, "may be copied"},
		{"a signature over something else", packed, softkey.Faults{Statement: func(f string, m map[string]any) (string, map[string]any) {
			m["sig"].([]byte)[20] ^= 1
			return f, m
		}}, reasonAttestation, "Signature validation error"},
		{"another algorithm in the statement", packed, softkey.Faults{Statement: edit("alg", int64(-257))}, reasonAttestation, "does not hold"},
		{"a member too many", packed, softkey.Faults{Statement: edit("ecdaaKeyId", []byte{1})}, reasonMalformed, "do not belong"},
		{"x5c that is no list", packed, softkey.Faults{Statement: edit("x5c", "none")}, reasonMalformed, "not a list"},
		{"x5c that is empty", packed, softkey.Faults{Statement: edit("x5c", []any{})}, reasonMalformed, "not a list"},
		{"a certificate that is none", packed, softkey.Faults{Statement: edit("x5c", []any{[]byte{0x30}})}, reasonAttestation, "cannot be read"},
		{"self attestation with an empty chain", self, softkey.Faults{Statement: edit("x5c", "")}, reasonMalformed, "not a list"},
		{"self attestation by another algorithm", self, softkey.Faults{Statement: edit("alg", int64(-8))}, reasonAttestation, "does not hold"},
		{"a chain of strangers behind it", packed, softkey.Faults{Statement: func(f string, m map[string]any) (string, map[string]any) {
			m["x5c"] = append(slices.Clone(m["x5c"].([][]byte)), stranger.Root().Raw)
			return f, m
		}}, reasonAttestation, "was not issued by certificate"},
		{"SafetyNet", packed, softkey.Faults{Statement: as("android-safetynet")}, reasonAttestation, "SafetyNet"},
		{"a format that there is not", packed, softkey.Faults{Statement: as("pack")}, reasonAttestation, "is not understood"},
		{"compound", packed, softkey.Faults{Statement: as("compound")}, reasonAttestation, "is not understood"},
		{"none, and a statement", packed, softkey.Faults{Statement: as("none")}, reasonMalformed, "do not belong"},
		{"the format in capitals", packed, softkey.Faults{Statement: as("Packed")}, reasonAttestation, "is not understood"},
		{"a certificate for another model", packed, softkey.Faults{Leaf: aaguid([16]byte{1})}, reasonAttestation, "for another model"},
		{"a certificate for no model", packed, softkey.Faults{Leaf: aaguid([16]byte{})}, reasonAttestation, "for another model"},
		{"an AAGUID extension that is critical", packed, softkey.Faults{Leaf: func(c *x509.Certificate) { c.ExtraExtensions[0].Critical = true }}, reasonAttestation, ""},
		{"an AAGUID extension with more behind", packed, softkey.Faults{Leaf: func(c *x509.Certificate) {
			c.ExtraExtensions[0].Value = append(slices.Clone(c.ExtraExtensions[0].Value), 5, 0)
		}}, reasonAttestation, "one OCTET STRING"},
		{"an empty AAGUID extension", packed, softkey.Faults{Leaf: func(c *x509.Certificate) { c.ExtraExtensions[0].Value = []byte{4, 0} }}, reasonAttestation, "for another model"},
		{"a TPM's for another model", softkey.Options{Vendor: vendor, Format: softkey.TPM}, softkey.Faults{Leaf: func(c *x509.Certificate) {
			value, _ := asn1.Marshal(make([]byte, 16))
			c.ExtraExtensions = append(slices.DeleteFunc(slices.Clone(c.ExtraExtensions), func(e pkix.Extension) bool { return e.Id.Equal(oidAAGUID) }), pkix.Extension{Id: oidAAGUID, Value: value})
		}}, reasonAttestation, "AAGUID"},
		{"an Android key's for another model", softkey.Options{Vendor: vendor, Format: softkey.AndroidKey}, softkey.Faults{Leaf: func(c *x509.Certificate) {
			value, _ := asn1.Marshal(make([]byte, 16))
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oidAAGUID, Value: value})
		}}, reasonAttestation, "for another model"},
		{"a TPM's key, altered", softkey.Options{Vendor: vendor, Format: softkey.TPM}, softkey.Faults{PubArea: func(b []byte) []byte { b[len(b)-1] ^= 1; return b }}, reasonAttestation, "does not hold"},
		{"a TPM that certifies something else", softkey.Options{Vendor: vendor, Format: softkey.TPM}, softkey.Faults{CertInfo: func(b []byte) []byte { b[5] ^= 1; return b }}, reasonAttestation, "does not hold"},
		{"a certificate that expired", packed, softkey.Faults{Leaf: func(c *x509.Certificate) { c.NotAfter = time.Date(2021, 5, 4, 0, 0, 0, 0, time.UTC) }}, reasonAttestation, "expired on 2021-05-04"},
		{"a certificate that is not valid yet", packed, softkey.Faults{Leaf: func(c *x509.Certificate) { c.NotBefore = time.Date(2048, 5, 4, 0, 0, 0, 0, time.UTC) }}, reasonAttestation, "valid only from 2048-05-04"},
		{"an Apple certificate that expired", softkey.Options{Vendor: vendor, Format: softkey.Apple}, softkey.Faults{Leaf: func(c *x509.Certificate) { c.NotAfter = time.Date(2021, 5, 4, 0, 0, 0, 0, time.UTC) }}, reasonAttestation, "expired on 2021-05-04"},
		{"an Apple certificate that is not valid yet", softkey.Options{Vendor: vendor, Format: softkey.Apple}, softkey.Faults{Leaf: func(c *x509.Certificate) { c.NotBefore = time.Date(2048, 5, 4, 0, 0, 0, 0, time.UTC) }}, reasonAttestation, "valid only from 2048-05-04"},
		{"a chain that ends nowhere", softkey.Options{Vendor: stranger}, softkey.Faults{}, reasonAttestation, "leads to no root that is trusted"},
		{"an Apple chain that ends nowhere", softkey.Options{Vendor: stranger, Format: softkey.Apple}, softkey.Faults{}, reasonAttestation, "leads to no root that is trusted"},
		{"an Android chain that ends nowhere", softkey.Options{Vendor: stranger, Format: softkey.AndroidKey}, softkey.Faults{}, reasonAttestation, "leads to no root that is trusted"},
		{"a TPM's chain that ends nowhere", softkey.Options{Vendor: stranger, Format: softkey.TPM}, softkey.Faults{}, reasonAttestation, "leads to no root that is trusted"},
		{"self attestation where basic is required", self, softkey.Faults{}, reasonModel, "self where the rules require basic"},
		{"no attestation where basic is required", softkey.Options{Vendor: vendor, Format: softkey.None}, softkey.Faults{}, reasonModel, "none where the rules require basic"},
		{"a model in no metadata", softkey.Options{Vendor: vendor, AAGUID: tokens.FormatAAGUID(mdsAAGUID(9))}, softkey.Faults{}, reasonAttestation, "in no metadata"},
		{"a zero AAGUID", softkey.Options{Vendor: vendor, AAGUID: tokens.FormatAAGUID([16]byte{})}, softkey.Faults{}, reasonAttestation, "all zeros"},
		{"a U2F key", softkey.Options{Vendor: vendor, Format: softkey.U2F}, softkey.Faults{}, reasonAttestation, "all zeros"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newKey(t, c.o)
			k.Misbehave(&c.f)
			before := len(h.records("key.enrol", "refused"))
			_, err := h.register(k, "alice")
			if !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), c.say) {
				t.Errorf("it is %v; it should say %q", err, c.say)
			}
			if n := len(h.records("key.enrol", "refused")); n != before+1 {
				t.Fatalf("%d refusals in the audit", n-before)
			}
			r := h.lastRefusal()
			if r.Reason != string(c.reason) || !strings.Contains(why(r), c.say) || r.User != "alice" || r.Actor != h.admin.Actor() || detail(r, "rp") != "example.org" {
				t.Errorf("the audit has %+v; the reason should be %s", r, c.reason)
			}
		})
	}
	if done := h.records("key.enrol", "ok"); len(done) != 0 {
		t.Errorf("%d keys are enrolled", len(done))
	}
	if token := h.mustRegister(k, "alice"); token.Credential.Attestation != "basic" {
		t.Errorf("the key that did nothing wrong: %+v", token)
	}
}

func TestAManipulatedLoginIsRejectedWithItsReason(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{UserVerification: true})
	h.publish(1, keyModel(k, "Soft One"))
	h.mustRegister(k, "alice")
	flags := func(set, clear byte) func([]byte) []byte {
		return func(b []byte) []byte {
			b[32] = b[32]&^clear | set
			return b
		}
	}
	verified := LoginRequest{User: "alice", UserVerification: "required"}
	m, _ := es256(t)
	key := coseKey(t, m)
	for _, c := range []struct {
		name   string
		r      LoginRequest
		f      softkey.Faults
		reason tokens.Reason
		say    string
	}{
		{"another origin", LoginRequest{User: "alice"}, softkey.Faults{Origin: "https://evil.test"}, reasonOrigin, "not an origin"},
		{"a page in a frame", LoginRequest{User: "alice"}, softkey.Faults{CrossOrigin: true, TopOrigin: "https://evil.test"}, reasonOrigin, "page of another origin"},
		{"a top page, without a frame", LoginRequest{User: "alice"}, softkey.Faults{ClientData: topOrigin}, reasonOrigin, "page of another origin"},
		{"a credential, as at registration", LoginRequest{User: "alice"}, softkey.Faults{AuthData: func(b []byte) []byte {
			b[32] |= 0x40
			b = append(append(b, make([]byte, 16)...), 0, 1, 7)
			return append(b, key...)
		}}, reasonMalformed, "those of a registration"},
		{"a registration's client data", LoginRequest{User: "alice"}, softkey.Faults{Type: "webauthn.create"}, reasonMalformed, "of type"},
		{"another challenge", LoginRequest{User: "alice"}, softkey.Faults{Challenge: bytes.Repeat([]byte{7}, 32)}, reasonSignature, "another challenge"},
		{"another relying party", LoginRequest{User: "alice"}, softkey.Faults{RPID: "example.com"}, reasonOrigin, "another relying party"},
		{"nobody there", LoginRequest{User: "alice"}, softkey.Faults{Absent: true}, reasonUnverified, "user presence"},
		{"user not verified", verified, softkey.Faults{Unverified: true}, reasonUnverified, "PIN or biometrics"},
		{"synced of a sudden", LoginRequest{User: "alice"}, softkey.Faults{AuthData: flags(0x08, 0)}, tokens.ReasonBackupChanged, ""},
		{"backed up and not eligible", LoginRequest{User: "alice"}, softkey.Faults{AuthData: flags(0x10, 0)}, reasonMalformed, "cannot be"},
		{"an extension nobody asked for", LoginRequest{User: "alice"}, softkey.Faults{AuthData: func(b []byte) []byte {
			b[32] |= 0x80
			return append(b, "\xa1\x63foo\xf5"...)
		}}, reasonMalformed, "foo"},
		{"authenticator data cut off", LoginRequest{User: "alice"}, softkey.Faults{AuthData: func(b []byte) []byte { return b[:36] }}, reasonMalformed, "authenticator data"},
		{"a wrong signature", LoginRequest{User: "alice"}, softkey.Faults{Signature: func(b []byte) []byte { b[len(b)-1] ^= 1; return b }}, reasonSignature, "signature"},
		{"no signature", LoginRequest{User: "alice"}, softkey.Faults{Signature: func([]byte) []byte { return []byte{} }}, reasonSignature, "signature"},
		{"a signature with more behind", LoginRequest{User: "alice"}, softkey.Faults{Signature: func(b []byte) []byte { return append(b, 0) }}, reasonSignature, "signature"},
		{"another user's handle", LoginRequest{User: "alice"}, softkey.Faults{UserHandle: make([]byte, 32)}, reasonUnknown, "another user"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k.Misbehave(&c.f)
			defer k.Misbehave(nil)
			if res := h.finish(h.asserted(k, c.r)); res.Accept || res.User != "" {
				t.Fatalf("accepted: %+v", res)
			}
			if r := h.lastReject(); r.Reason != string(c.reason) || !strings.Contains(why(r), c.say) || r.User != "alice" {
				t.Errorf("the audit has %+v; the reason should be %s, with %q", r, c.reason, c.say)
			}
		})
	}
	if res := h.signIn(k, "alice"); !res.Accept {
		t.Errorf("the key that does nothing wrong: %+v, %s", res, why(h.lastReject()))
	}
}

func TestAnAnswerIsAcceptedOnce(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	session, answer := h.answered(k, "alice")
	made, err := h.FinishRegistration(t.Context(), h.admin, session, answer)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range []*Service{h.Service, h.other} { // who asks again is told what was enrolled
		if got, err := node.FinishRegistration(t.Context(), h.admin, session, answer); err != nil || got.Serial != made.Serial {
			t.Errorf("the same registration again: %+v, %v", got, err)
		}
	}
	if n := len(h.records("key.enrol", "ok")); n != 3 || detail(h.records("key.enrol", "ok")[2], "aaguid") != "" {
		t.Errorf("%d records of it", n)
	}
	session, answer = h.asserted(k, LoginRequest{User: "alice"})
	if res := h.finish(session, answer); !res.Accept {
		t.Fatal("the first answer is not accepted")
	}
	for _, node := range []*Service{h.Service, h.other} {
		if res, err := node.FinishLogin(t.Context(), h.admin, session, answer, "http"); err != nil || res.Accept {
			t.Errorf("the same answer again: %+v, %v", res, err)
		}
		if r := h.lastReject(); r.Reason != string(tokens.ReasonReplay) {
			t.Errorf("the audit has %+v", r)
		}
	}
}

func TestAnAnswerBelongsToItsSession(t *testing.T) {
	h := newKeyHouse(t)
	k, other := newKey(t, softkey.Options{}), newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One", func(st map[string]any) {
		st["attestationRootCertificates"] = []string{mdsBase64(k.Root()), mdsBase64(other.Root())}
	}))
	// Registration: alice's answer with bob's session, and with a login's.
	alices, answer := h.answered(k, "alice")
	bobs, _ := h.answered(other, "bob")
	if _, err := h.FinishRegistration(t.Context(), h.admin, bobs, answer); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "another challenge") {
		t.Errorf("alice's answer in bob's session: %v", err)
	}
	if _, err := h.FinishLogin(t.Context(), h.admin, alices, answer, "http"); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "other kind") {
		t.Errorf("a registration's session at login: %v", err)
	}
	h.mustRegister(k, "alice")
	h.mustRegister(other, "bob")

	// Login: swapped users and swapped credentials.
	first, answer := h.asserted(k, LoginRequest{User: "alice"})
	second, others := h.asserted(other, LoginRequest{User: "bob"})
	for name, c := range map[string]struct {
		session string
		answer  []byte
		reason  tokens.Reason
	}{
		"alice's answer in bob's session": {second, answer, ""},
		"bob's answer in alice's session": {first, others, ""},
	} {
		if res := h.finish(c.session, c.answer); res.Accept {
			t.Errorf("%s is accepted: %+v", name, res)
		}
	}
	if _, err := h.FinishRegistration(t.Context(), h.admin, first, answer); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "other kind") {
		t.Errorf("a login's session at registration: %v", err)
	}
	if res := h.finish(first, answer); !res.Accept {
		t.Error("what was tried with it spoilt alice's session")
	}
	// bob's credential signs alice's challenge, which was not offered to it.
	c, err := h.BeginLogin(t.Context(), h.admin, LoginRequest{User: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	bobsOptions, err := h.BeginLogin(t.Context(), h.admin, LoginRequest{User: "bob"})
	if err != nil {
		t.Fatal(err)
	}
	var o, b struct {
		PublicKey map[string]any `json:"publicKey"`
	}
	if json.Unmarshal(c.Options, &o) != nil || json.Unmarshal(bobsOptions.Options, &b) != nil {
		t.Fatal("options cannot be read")
	}
	o.PublicKey["allowCredentials"] = b.PublicKey["allowCredentials"]
	options, _ := json.Marshal(o)
	if others, err = other.Assert(options, here); err != nil {
		t.Fatal(err)
	}
	if res := h.finish(c.Session, others); res.Accept {
		t.Error("bob's key signs in as alice")
	}
	if r := h.lastReject(); r.Reason != string(reasonUnknown) || r.User != "alice" {
		t.Errorf("the audit has %+v", r)
	}
	// A key that alice got after this login began, and was not offered to it.
	late := newKey(t, softkey.Options{Vendor: k.Vendor()})
	text, _ := h.asserted(k, LoginRequest{User: "alice"})
	h.mustRegister(late, "alice")
	st, err := parseSession(text)
	if err != nil {
		t.Fatal(err)
	}
	mac, err := h.cores[0].CeremonyMAC(t.Context(), st.encoded)
	if err != nil {
		t.Fatal(err)
	}
	late.Misbehave(&softkey.Faults{Challenge: mac[:]})
	_, answer = h.asserted(late, LoginRequest{User: "alice"})
	if res := h.finish(text, answer); res.Accept {
		t.Error("a credential that was not offered is accepted")
	}
	if r := h.lastReject(); r.Reason != string(reasonUnknown) || !strings.Contains(why(r), "none of those that were offered") {
		t.Errorf("the audit has %+v", r)
	}
	// Only the credential's name is swapped.
	c, err = h.BeginLogin(t.Context(), h.admin, LoginRequest{User: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err = k.Assert(c.Options, here); err != nil {
		t.Fatal(err)
	}
	a, err := parseAnswer(answer, kindLogin)
	if err != nil {
		t.Fatal(err)
	}
	bobsID, err := parseAnswer(others, kindLogin)
	if err != nil {
		t.Fatal(err)
	}
	swapped := bytes.ReplaceAll(answer, []byte(sessionEncoding.EncodeToString(a.id)), []byte(sessionEncoding.EncodeToString(bobsID.id)))
	if res := h.finish(c.Session, swapped); res.Accept {
		t.Error("an answer under another credential's id is accepted")
	}
}

func TestAStaleSessionIsRefused(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	session, answer := h.answered(k, "alice")
	h.forward(5*time.Minute + time.Second)
	if _, err := h.FinishRegistration(t.Context(), h.admin, session, answer); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("registration: %v", err)
	}
	if r := h.lastRefusal(); r.Reason != string(reasonExpired) {
		t.Errorf("the audit has %+v", r)
	}
	h.mustRegister(k, "alice")
	session, answer = h.asserted(k, LoginRequest{User: "alice"})
	h.forward(5*time.Minute + time.Second)
	if res := h.finish(session, answer); res.Accept {
		t.Error("login: accepted")
	}
	if r := h.lastReject(); r.Reason != string(reasonExpired) {
		t.Errorf("the audit has %+v", r)
	}
}

func TestACloneSuspendsTheKey(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	token := h.mustRegister(k, "alice")
	clone := k.Clone()
	for range 2 {
		if !h.signIn(k, "alice").Accept {
			t.Fatal("the key does not sign in")
		}
	}
	if h.signIn(clone, "alice").Accept {
		t.Error("the clone signs in")
	}
	if r := h.lastReject(); r.Reason != string(tokens.ReasonCloned) || r.Serial != token.Serial {
		t.Errorf("the audit has %+v", r)
	}
	if got := h.state(token); got != tokens.Suspended {
		t.Errorf("the token is %s", got)
	}
	c, err := h.BeginLogin(t.Context(), h.admin, LoginRequest{User: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Assert(c.Options, here); err == nil {
		t.Error("a suspended key is still offered")
	}
}

func TestAPasskeySignsInWithoutAName(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	c, err := h.BeginRegistration(t.Context(), h.admin, RegistrationRequest{User: "alice", Discoverable: true})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := k.Register(c.Options, here)
	if err != nil {
		t.Fatal(err)
	}
	token, err := h.other.FinishRegistration(t.Context(), h.admin, c.Session, answer)
	if err != nil || !token.Credential.Discoverable {
		t.Fatalf("%+v, %v", token, err)
	}
	session, answer := h.asserted(k, LoginRequest{})
	if res := h.finish(session, answer); !res.Accept || res.User != "alice" || res.Serial != token.Serial {
		t.Errorf("%+v; %s", res, why(h.lastReject()))
	}
	for name, handle := range map[string][]byte{"another's": make([]byte, 32)} {
		k.Misbehave(&softkey.Faults{UserHandle: handle})
		if res := h.finish(h.asserted(k, LoginRequest{})); res.Accept {
			t.Errorf("%s handle is accepted", name)
		}
		k.Misbehave(nil)
	}
	session, answer = h.asserted(k, LoginRequest{})
	var o map[string]any
	if err := json.Unmarshal(answer, &o); err != nil {
		t.Fatal(err)
	}
	delete(o["response"].(map[string]any), "userHandle")
	nameless, _ := json.Marshal(o)
	if res := h.finish(session, nameless); res.Accept {
		t.Error("a passkey's answer without a handle is accepted")
	}
	if r := h.lastReject(); r.Reason != string(reasonMalformed) || !strings.Contains(why(r), "whose passkey") {
		t.Errorf("the audit has %+v", r)
	}
	// A registration that asked for a passkey and got none.
	c, err = h.BeginRegistration(t.Context(), h.admin, RegistrationRequest{User: "bob", Discoverable: true})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err = newKey(t, softkey.Options{Vendor: k.Vendor()}).Register(c.Options, here); err != nil {
		t.Fatal(err)
	}
	answer = bytes.Replace(answer, []byte(`"rk":true`), []byte(`"rk":false`), 1)
	if _, err := h.FinishRegistration(t.Context(), h.admin, c.Session, answer); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "no passkey") {
		t.Errorf("no passkey: %v", err)
	}
}

func TestEnterpriseAttestationGivesTheTokenItsSerial(t *testing.T) {
	h := newKeyHouse(t, func(c *Config) { c.Attestation = "enterprise" })
	vendor, err := softkey.NewVendor("Works")
	if err != nil {
		t.Fatal(err)
	}
	k := newKey(t, softkey.Options{Vendor: vendor, Serial: "SN-0012345"})
	h.publish(1, keyModel(k, "Soft One"))
	if token := h.mustRegister(k, "alice"); token.Serial != "SN-0012345" {
		t.Errorf("the serial is %s", token.Serial)
	}
	for text, number := range map[string][]byte{"04b91a2b": {4, 0xb9, 0x1a, 0x2b}, "41424344": []byte("ABCD"), "4f6f7073202f21": []byte("Oops /!")} {
		k := newKey(t, softkey.Options{Vendor: vendor})
		value, _ := asn1.Marshal(number)
		k.Misbehave(&softkey.Faults{Leaf: func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oidSerialNumber, Value: value})
		}})
		if token, err := h.register(k, "bob"); err != nil || token.Serial != text {
			t.Errorf("serial number %x: %s, %v", number, token.Serial, err)
		}
	}
	for _, bad := range []pkix.Extension{
		{Id: oidSerialNumber, Value: []byte{4, 0}},
		{Id: oidSerialNumber, Value: []byte{2, 1, 5}},
		{Id: oidSerialNumber, Value: []byte{4, 1, 5}, Critical: true},
		{Id: oidSerialNumber, Value: append([]byte{4, 33}, make([]byte, 33)...)},
	} {
		k := newKey(t, softkey.Options{Vendor: vendor})
		k.Misbehave(&softkey.Faults{Leaf: func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, bad) }})
		if _, err := h.register(k, "bob"); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "serial number") {
			t.Errorf("extension %+v: %v", bad, err)
		}
	}
	// Only packed statements are enterprise attestation (section 8.2.2).
	android := newKey(t, softkey.Options{Vendor: vendor, Format: softkey.AndroidKey})
	value, _ := asn1.Marshal([]byte("SN-0099"))
	android.Misbehave(&softkey.Faults{Leaf: func(c *x509.Certificate) {
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oidSerialNumber, Value: value})
	}})
	if token := h.mustRegister(android, "bob"); token.Serial != tokens.CredentialSerial(token.Credential.ID) {
		t.Errorf("an Android key's serial: %s", token.Serial)
	}
	// Who vouches for nothing names no serial.
	h.govern(RuleSet{Default: Rules{RequiredAttestation: "self", AllowUnknown: true}})
	k = newKey(t, softkey.Options{Serial: "SN-0012345", AAGUID: tokens.FormatAAGUID(mdsAAGUID(7))})
	if token := h.mustRegister(k, "bob"); token.Serial != tokens.CredentialSerial(token.Credential.ID) || token.Credential.Attestation != "self" {
		t.Errorf("a key that nobody vouches for: %s, %+v", token.Serial, token.Credential)
	}
}

// TestUnknownUsersLookLikeOthers compares what a stranger sees.
func TestUnknownUsersLookLikeOthers(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	h.mustRegister(k, "alice")
	shape := func(user string) (names []string, allowed int, st *session) {
		c, err := h.BeginLogin(t.Context(), h.admin, LoginRequest{User: user})
		if err != nil {
			t.Fatal(err)
		}
		var o struct {
			PublicKey map[string]json.RawMessage `json:"publicKey"`
		}
		if err := json.Unmarshal(c.Options, &o); err != nil {
			t.Fatal(err)
		}
		for name := range o.PublicKey {
			names = append(names, name)
		}
		slices.Sort(names)
		var list []descriptor
		if err := json.Unmarshal(o.PublicKey["allowCredentials"], &list); err != nil {
			t.Fatal(err)
		}
		if st, err = parseSession(c.Session); err != nil {
			t.Fatal(err)
		}
		return names, len(list), st
	}
	real, n, st := shape("alice")
	for _, user := range []string{"bob", "nobody", "no\x01body"} {
		names, m, other := shape(user)
		if !slices.Equal(names, real) || m < 1 || n < 1 || other.UserID != st.UserID || len(other.Allowed) != m {
			t.Errorf("%q: %v and %d credentials, session %+v", user, names, m, other)
		}
	}
	// An answer for somebody whom there is not.
	c, err := h.BeginLogin(t.Context(), h.admin, LoginRequest{User: "nobody"})
	if err != nil {
		t.Fatal(err)
	}
	_, answer := h.asserted(k, LoginRequest{User: "alice"})
	if res := h.finish(c.Session, answer); res.Accept {
		t.Error("accepted")
	}
}

func TestAnAnswerThatCannotBeReadIsAnErrorAndAudited(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	h.mustRegister(k, "alice")
	session, good := h.asserted(k, LoginRequest{User: "alice"})
	for name, answer := range map[string][]byte{
		"nothing":           nil,
		"no JSON":           []byte("hello"),
		"a list":            []byte("[]"),
		"too long":          bytes.Repeat([]byte(" "), MaxAnswer+1),
		"more behind":       append(slices.Clone(good), "{}"...),
		"another type":      bytes.Replace(good, []byte("public-key"), []byte("public-kez"), 1),
		"no rawId":          bytes.Replace(good, []byte("rawId"), []byte("rawid"), 1),
		"id twice":          bytes.Replace(good, []byte(`{"id"`), []byte(`{"id":"AA","id"`), 1),
		"padding":           bytes.Replace(good, []byte(`","rawId"`), []byte(`=","rawId"`), 1),
		"invalid UTF-8":     bytes.Replace(good, []byte("public-key"), []byte("public-\xff"), 1),
		"no client data":    bytes.Replace(good, []byte("clientDataJSON"), []byte("clientDataJSoN"), 1),
		"signature of null": bytes.Replace(good, []byte(`"signature":"`), []byte(`"signature":null,"x":"`), 1),
	} {
		if _, err := h.FinishLogin(t.Context(), h.admin, session, answer, "http"); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if r := h.lastReject(); r.Reason != string(reasonMalformed) || r.User != "alice" || why(r) == "" {
			t.Errorf("%s: the audit has %+v", name, r)
		}
	}
	if res := h.finish(session, good); !res.Accept {
		t.Error("the answer as it was is not accepted")
	}
}

func TestASessionThatWasAlteredIsOfNoUse(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	h.mustRegister(k, "alice")
	text, answer := h.asserted(k, LoginRequest{User: "alice", UserVerification: "preferred"})
	st, err := parseSession(text)
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*session){
		"more time":        func(s *session) { s.Expires += 3600 },
		"another user":     func(s *session) { s.User = "bob" },
		"any user":         func(s *session) { s.User, s.Allowed = "", nil },
		"any credential":   func(s *session) { s.Allowed = nil },
		"another nonce":    func(s *session) { s.Nonce[0] ^= 1 },
		"less verified":    func(s *session) { s.Verification = "discouraged" },
		"a user id":        func(s *session) { s.UserID = 1 },
		"another realm":    func(s *session) { s.Realm = "elsewhere" },
		"for registration": func(s *session) { s.Kind = kindRegister },
	} {
		forged := *st
		forged.Allowed = slices.Clone(st.Allowed)
		edit(&forged)
		encoded, err := canonical.Marshal(&forged)
		if err != nil {
			t.Fatal(err)
		}
		if res, err := h.FinishLogin(t.Context(), h.admin, sessionEncoding.EncodeToString(encoded), answer, "http"); res.Accept || err != nil && !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
	}
	for i := range text {
		altered := []byte(text)
		altered[i] ^= 1
		if res, err := h.FinishLogin(t.Context(), h.admin, string(altered), answer, "http"); res.Accept || err != nil && !errors.Is(err, tokens.ErrInvalid) {
			t.Fatalf("character %d altered: %+v, %v", i, res, err)
		}
	}
	for _, bad := range []string{"", "AA", text + "A", text + "\n", text[:len(text)-1], strings.Repeat("A", maxSession+1)} {
		if _, err := h.FinishLogin(t.Context(), h.admin, bad, answer, "http"); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("session of %d characters: %v", len(bad), err)
		}
	}
	if res := h.finish(text, answer); !res.Accept {
		t.Error("the session as it was is of no use either")
	}
}

// TestAnotherInstallationsSessionIsOfNoUse: another one has another key.
func TestAnotherInstallationsSessionIsOfNoUse(t *testing.T) {
	h, foreign := newKeyHouse(t), newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	session, answer := foreign.answered(k, "alice")
	if _, err := h.FinishRegistration(t.Context(), h.admin, session, answer); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "another challenge") {
		t.Errorf("%v", err)
	}
}

func TestExtensionOutputsThatNobodyAskedForAreRefused(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	with := func(answer []byte, outputs string) []byte {
		var o map[string]any
		if err := json.Unmarshal(answer, &o); err != nil {
			t.Fatal(err)
		}
		o["clientExtensionResults"] = json.RawMessage(outputs)
		raw, err := json.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	session, answer := h.answered(k, "alice")
	for _, outputs := range []string{`{"appidExclude":true}`, `{"credProps":{"rk":1}}`, `{"credProps":true}`, `[]`, `{"credProps":{"rk":null}}`} {
		if _, err := h.FinishRegistration(t.Context(), h.admin, session, with(answer, outputs)); !errors.Is(err, tokens.ErrInvalid) || h.lastRefusal().Reason != string(reasonMalformed) {
			t.Errorf("%s at registration: %v", outputs, err)
		}
	}
	if _, err := h.FinishRegistration(t.Context(), h.admin, session, with(answer, `{"credProps":{}}`)); err != nil {
		t.Error(err)
	}
	session, answer = h.asserted(k, LoginRequest{User: "alice"})
	for _, outputs := range []string{`{"appid":true}`, `{"credProps":{"rk":true}}`} {
		if res := h.finish(session, with(answer, outputs)); res.Accept || h.lastReject().Reason != string(reasonMalformed) {
			t.Errorf("%s at login: %+v", outputs, res)
		}
	}
	if res := h.finish(session, with(answer, `{}`)); !res.Accept {
		t.Error("without outputs it is not accepted")
	}
}

// TestARegistrationIsForWhomItBegan: a name may have come to mean somebody else.
func TestARegistrationIsForWhomItBegan(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	text, answer := h.answered(k, "alice")
	st, err := h.resume(t.Context(), text, kindRegister)
	if err != nil {
		t.Fatal(err)
	}
	holder, err := h.cores[0].KeyHolder(t.Context(), h.admin, "", "alice", "example.org")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Service.register(t.Context(), st, &holder, answer, new(tokens.NewFIDO)); err != nil {
		t.Fatal(err)
	}
	holder.UserID++
	if err := h.Service.register(t.Context(), st, &holder, answer, new(tokens.NewFIDO)); err == nil || !strings.Contains(err.Error(), "another user") {
		t.Errorf("%v", err)
	}
}

func TestALoginThatOffersNothingAllowsNothing(t *testing.T) {
	named, passkey := session{User: "alice"}, session{}
	if named.allows([]byte("x")) || !passkey.allows([]byte("x")) {
		t.Error("a named login without credentials allows one, or a passkey's does not")
	}
	named.Allowed = [][]byte{allowDigest([]byte("x"))}
	if !named.allows([]byte("x")) || named.allows([]byte("y")) {
		t.Error("what was offered is not what is allowed")
	}
}

func TestBeginningWritesNothing(t *testing.T) {
	h := newKeyHouse(t)
	before := len(h.records("", ""))
	for range 3 {
		if _, err := h.BeginRegistration(t.Context(), h.admin, RegistrationRequest{User: "alice"}); err != nil {
			t.Fatal(err)
		}
		for _, user := range []string{"alice", "nobody", ""} {
			if _, err := h.BeginLogin(t.Context(), h.admin, LoginRequest{User: user}); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Looking at the audit is audited itself.
	if after := len(h.records("", "")); after-before > 1 {
		t.Errorf("%d records more", after-before)
	}
}

func TestAChallengeIsNeverTheSame(t *testing.T) {
	h := newKeyHouse(t)
	seen := make(map[[32]byte]bool)
	for range 50 {
		c, err := h.BeginLogin(t.Context(), h.admin, LoginRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var o struct {
			PublicKey requestOptions `json:"publicKey"`
		}
		if err := json.Unmarshal(c.Options, &o); err != nil {
			t.Fatal(err)
		}
		raw, ok := decodeBase64(o.PublicKey.Challenge)
		if sum := sha256.Sum256(raw); !ok || len(raw) != 32 || seen[sum] {
			t.Fatalf("challenge %s", o.PublicKey.Challenge)
		} else {
			seen[sum] = true
		}
		if o.PublicKey.RPID != "example.org" || o.PublicKey.Verification != "preferred" || o.PublicKey.Timeout != 300_000 {
			t.Fatalf("options %s", c.Options)
		}
	}
}

func TestUserVerificationCanOnlyBeMadeStricter(t *testing.T) {
	h := newKeyHouse(t)
	for word, ok := range map[string]bool{"": true, "preferred": true, "required": true, "discouraged": false, "Required": false} {
		_, err := h.BeginLogin(t.Context(), h.admin, LoginRequest{User: "alice", UserVerification: word})
		if (err == nil) != ok || err != nil && !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%q: %v", word, err)
		}
	}
	strict := newKeyHouse(t, func(c *Config) { c.UserVerification = "required" })
	k := newKey(t, softkey.Options{UserVerification: true})
	strict.publish(1, keyModel(k, "Soft One"))
	k.Misbehave(&softkey.Faults{Unverified: true})
	if _, err := strict.register(k, "alice"); !errors.Is(err, tokens.ErrInvalid) || strict.lastRefusal().Reason != string(reasonUnverified) {
		t.Errorf("a registration without verification: %v", err)
	}
	k.Misbehave(nil)
	if token := strict.mustRegister(k, "alice"); !token.Credential.UserVerified {
		t.Error("the token does not say that its user was verified")
	}
	u2f := newKey(t, softkey.Options{Format: softkey.U2F, UserVerification: true})
	if _, err := strict.register(u2f, "bob"); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "U2F key cannot verify") {
		t.Errorf("a U2F key that says it verified its user: %v", err)
	}
}

func TestRelatedOriginsArePartOfAParty(t *testing.T) {
	h := newKeyHouse(t, func(c *Config) {
		c.Parties = append(c.Parties, Party{ID: "corp.test", Name: "Corp", Origins: []string{"https://corp.test", "https://corp.example:8443"}})
	})
	k := newKey(t, softkey.Options{Related: []string{"https://corp.example:8443"}})
	h.publish(1, keyModel(k, "Soft One"))
	c, err := h.BeginRegistration(t.Context(), h.admin, RegistrationRequest{User: "alice", RPID: "corp.test"})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := k.Register(c.Options, "https://corp.example:8443")
	if err != nil {
		t.Fatal(err)
	}
	token, err := h.FinishRegistration(t.Context(), h.admin, c.Session, answer)
	if err != nil || token.Credential.RPID != "corp.test" {
		t.Fatalf("%+v, %v", token, err)
	}
	// To the other party alice has no key.
	if c, err = h.BeginLogin(t.Context(), h.admin, LoginRequest{User: "alice"}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Assert(c.Options, here); err == nil {
		t.Error("a key of one relying party is offered to another")
	}
	if _, err := h.BeginLogin(t.Context(), h.admin, LoginRequest{User: "alice", RPID: "evil.test"}); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("a party that there is not: %v", err)
	}
	parties := h.Parties()
	if len(parties) != 2 || parties[0].ID != "example.org" || parties[0].Name != "example.org" || parties[1].Name != "Corp" || len(parties[1].Origins) != 2 {
		t.Errorf("parties %+v", parties)
	}
}

func TestAKnownCredentialIsNotEnrolledAgain(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	token := h.mustRegister(k, "alice")
	c, err := h.BeginRegistration(t.Context(), h.admin, RegistrationRequest{User: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Register(c.Options, here); !errors.Is(err, softkey.ErrInvalidState) {
		t.Errorf("the key is not excluded: %v", err)
	}
	// bob's browser says that it is his.
	session, answer := h.answered(newKey(t, softkey.Options{Vendor: k.Vendor()}), "bob")
	a, err := parseAnswer(answer, kindRegister)
	if err != nil {
		t.Fatal(err)
	}
	stolen := bytes.ReplaceAll(answer, []byte(sessionEncoding.EncodeToString(a.id)), []byte(sessionEncoding.EncodeToString(token.Credential.ID)))
	if _, err := h.FinishRegistration(t.Context(), h.admin, session, stolen); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("another's credential id: %v", err)
	}
}

func TestOnlyWhoMayRegistersAndSignsIn(t *testing.T) {
	h := newKeyHouse(t)
	nobody := tokens.Principal{Kind: tokens.KindKey, ID: "x", Scope: "read"}
	if _, err := h.BeginRegistration(t.Context(), nobody, RegistrationRequest{User: "alice"}); err == nil {
		t.Error("begins a registration")
	}
	for _, user := range []string{"alice", ""} {
		if _, err := h.BeginLogin(t.Context(), nobody, LoginRequest{User: user}); err == nil {
			t.Errorf("begins a login of %q", user)
		}
	}
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	session, answer := h.answered(k, "alice")
	if _, err := h.FinishRegistration(t.Context(), nobody, session, answer); err == nil {
		t.Error("ends a registration")
	}
	h.mustRegister(k, "alice")
	session, answer = h.asserted(k, LoginRequest{User: "alice"})
	if res, err := h.FinishLogin(t.Context(), nobody, session, answer, "http"); err == nil || res.Accept {
		t.Errorf("signs in: %+v", res)
	}
	if _, err := h.BeginRegistration(t.Context(), h.admin, RegistrationRequest{User: "nobody"}); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("a user whom there is not: %v", err)
	}
}
