package webauthn

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens"
	"watchword/webauthn/softkey"
)

// minimal keeps of a browser's answer what is needed: all of it is signed, or
// must agree with what is.
func minimal(t testing.TB, answer []byte, kind string) []byte {
	t.Helper()
	a, err := parseAnswer(answer, kind)
	if err != nil {
		t.Fatal(err)
	}
	if kind == kindLogin {
		return assertionJSON(t, a.id, a.clientData, a.authData, a.signature)
	}
	return registrationJSON(t, a.id, a.clientData, a.attestation)
}

// judged registers as FinishRegistration does, without the core and the metadata:
// attested by the root, for the session.
func judged(raw []byte, st *session, k *softkey.Key) (*statement, error) {
	a, err := parseAnswer(raw, kindRegister)
	if err != nil {
		return nil, err
	}
	if err := a.checkClient(st, vectorParty()); err != nil {
		return nil, err
	}
	if err := a.checkExtensions(extProperties); err != nil {
		return nil, err
	}
	s, err := attest(a, st, time.Now())
	if err != nil || s.chain == nil {
		return s, err
	}
	return s, s.vouch(certificates(k), time.Now())
}

// TestOneFlippedBitIsNeverAccepted flips each bit in turn at random, in the JSON of
// an answer and in what its base64 holds.
func TestOneFlippedBitIsNeverAccepted(t *testing.T) {
	st := vectorSession(kindRegister, []byte("a challenge of thirty-two bytes!"))
	for _, o := range []softkey.Options{
		{Format: softkey.Packed}, {Format: softkey.Self}, {Format: softkey.Packed, Algorithm: softkey.EdDSA},
		{Format: softkey.Packed, Algorithm: softkey.RS256}, {Format: softkey.TPM}, {Format: softkey.AndroidKey}, {Format: softkey.Apple},
	} {
		k := newKey(t, o)
		raw, err := k.Register(creation(st.challenge), here)
		if err != nil {
			t.Fatal(err)
		}
		raw = minimal(t, raw, kindRegister)
		if _, err := judged(raw, st, k); err != nil {
			t.Fatalf("%s: %v", o.Format, err)
		}
		t.Run(string(o.Format)+" registration", rapid.MakeCheck(func(t *rapid.T) {
			flipped := flip(t, raw, "clientDataJSON", "attestationObject", "id", "rawId")
			if _, err := judged(flipped, st, k); err == nil {
				t.Fatalf("accepted: %s", flipped)
			}
		}))
	}
	for _, alg := range []softkey.Algorithm{softkey.ES256, softkey.EdDSA, softkey.RS256} {
		k := newKey(t, softkey.Options{Algorithm: alg})
		st := vectorSession(kindLogin, []byte("a challenge of thirty-two bytes!"))
		c, raw := credentialOf(t, k, st)
		s := &Service{parties: map[string]*Party{"example.org": vectorParty()}}
		accepted := func(raw []byte) error {
			a, err := parseAnswer(raw, kindLogin)
			if err != nil {
				return err
			}
			_, err = s.login(st, a).check(c, nil)
			return err
		}
		if err := accepted(raw); err != nil {
			t.Fatal(err)
		}
		t.Run(alg.String()+" login", rapid.MakeCheck(func(t *rapid.T) {
			flipped := flip(t, raw, "clientDataJSON", "authenticatorData", "signature", "id", "rawId")
			if err := accepted(flipped); err == nil {
				t.Fatalf("accepted: %s", flipped)
			}
		}))
	}
}

// flip flips one bit of the JSON, or within what one of its members holds.
func flip(t *rapid.T, raw []byte, names ...string) []byte {
	out := bytes.Clone(raw)
	if rapid.Bool().Draw(t, "in the text") {
		bit := rapid.IntRange(0, len(out)*8-1).Draw(t, "bit")
		out[bit/8] ^= 1 << (bit % 8)
		return out
	}
	name := []byte(`"` + rapid.SampledFrom(names).Draw(t, "member") + `":"`)
	from := bytes.Index(out, name) + len(name)
	to := from + bytes.IndexByte(out[from:], '"')
	held, err := base64.RawURLEncoding.DecodeString(string(out[from:to]))
	if err != nil {
		t.Fatal(err)
	}
	bit := rapid.IntRange(0, len(held)*8-1).Draw(t, "bit")
	held[bit/8] ^= 1 << (bit % 8)
	base64.RawURLEncoding.Encode(out[from:to], held)
	return out
}

// TestEachBitOfAnAnswerIsCovered flips all bits, one after another, of one packed
// registration and one login.
func TestEachBitOfAnAnswerIsCovered(t *testing.T) {
	st := vectorSession(kindRegister, []byte("a challenge of thirty-two bytes!"))
	k := newKey(t, softkey.Options{Algorithm: softkey.EdDSA})
	raw, err := k.Register(creation(st.challenge), here)
	if err != nil {
		t.Fatal(err)
	}
	raw = minimal(t, raw, kindRegister)
	for bit := range len(raw) * 8 {
		raw[bit/8] ^= 1 << (bit % 8)
		if _, err := judged(raw, st, k); err == nil {
			t.Errorf("bit %d of character %d of the registration can be flipped", bit%8, bit/8)
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
	login := vectorSession(kindLogin, []byte("a challenge of thirty-two bytes!"))
	c, raw := credentialOf(t, k, login)
	s := &Service{parties: map[string]*Party{"example.org": vectorParty()}}
	for bit := range len(raw) * 8 {
		raw[bit/8] ^= 1 << (bit % 8)
		if a, err := parseAnswer(raw, kindLogin); err == nil {
			if _, err := s.login(login, a).check(c, nil); err == nil {
				t.Errorf("bit %d of character %d of the login can be flipped", bit%8, bit/8)
			}
		}
		raw[bit/8] ^= 1 << (bit % 8)
	}
}

// TestWhatIsOnlyAHintChangesNothingElse flips bits in all that a browser sends:
// what is accepted then is the same key, but perhaps for how it is reached.
func TestWhatIsOnlyAHintChangesNothingElse(t *testing.T) {
	st := vectorSession(kindRegister, []byte("a challenge of thirty-two bytes!"))
	k := newKey(t, softkey.Options{})
	raw, err := k.Register(creation(st.challenge), here)
	if err != nil {
		t.Fatal(err)
	}
	want, err := judged(raw, st, k)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		flipped := bytes.Clone(raw)
		bit := rapid.IntRange(0, len(raw)*8-1).Draw(t, "bit")
		flipped[bit/8] ^= 1 << (bit % 8)
		got, err := judged(flipped, st, k)
		if err == nil && (!bytes.Equal(got.auth.raw, want.auth.raw) || got.kind != want.kind || got.format != want.format || got.serial != want.serial) {
			t.Fatalf("another key is accepted: %s", flipped)
		}
		if r := (*refusal)(nil); err != nil && (!errors.As(err, &r) || r.why == "" || r.reason == "") {
			t.Fatalf("refused without a reason: %v", err)
		}
	})
}

func creation(challenge []byte) []byte {
	var o creationOptions
	o.RP.ID, o.RP.Name = "example.org", "Example"
	o.User.ID, o.User.Name, o.User.DisplayName = "AAAA", "alice", "Alice"
	o.Challenge = sessionEncoding.EncodeToString(challenge)
	for _, alg := range algorithms {
		o.Params = append(o.Params, parameter{"public-key", alg})
	}
	o.Exclude, o.Attestation, o.Extensions = []descriptor{}, "direct", map[string]any{extProperties: true}
	o.Selection.Verification, o.Selection.ResidentKey = "preferred", "discouraged"
	raw, err := json.Marshal(map[string]any{"publicKey": o})
	if err != nil {
		panic(err)
	}
	return raw
}

// credentialOf registers the key, and has it answer the session's challenge.
func credentialOf(t testing.TB, k *softkey.Key, st *session) (*tokens.Credential, []byte) {
	t.Helper()
	raw, err := k.Register(creation(st.challenge), here)
	if err != nil {
		t.Fatal(err)
	}
	a, err := parseAnswer(raw, kindRegister)
	if err != nil {
		t.Fatal(err)
	}
	proven, err := attest(a, vectorSession(kindRegister, st.challenge), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	o, err := json.Marshal(map[string]any{"publicKey": requestOptions{
		Challenge: sessionEncoding.EncodeToString(st.challenge), RPID: "example.org", Verification: "preferred",
		Allow: []descriptor{{"public-key", sessionEncoding.EncodeToString(a.id), nil}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if raw, err = k.Assert(o, here); err != nil {
		t.Fatal(err)
	}
	st.Allowed = [][]byte{allowDigest(a.id)}
	return &tokens.Credential{ID: a.id, RPID: "example.org", UserID: 1, PublicKey: proven.auth.AttData.CredentialPublicKey}, minimal(t, raw, kindLogin)
}

// BenchmarkCheck is what an assertion costs beside the database and the HSM.
func BenchmarkCheck(b *testing.B) {
	st := vectorSession(kindLogin, []byte("a challenge of thirty-two bytes!"))
	c, raw := credentialOf(b, newKey(b, softkey.Options{}), st)
	s := &Service{parties: map[string]*Party{"example.org": vectorParty()}}
	b.ReportAllocs()
	for b.Loop() {
		a, err := parseAnswer(raw, kindLogin)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.login(st, a).check(c, nil); err != nil {
			b.Fatal(err)
		}
	}
}
