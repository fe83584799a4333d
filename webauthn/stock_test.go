package webauthn

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/webauthn/softkey"
)

// stocked begins a registration for nobody, and has the key answer.
func (h *mdsHouse) stocked(k *softkey.Key, edits ...func(*RegistrationRequest)) (session string, answer []byte) {
	h.Helper()
	r := RegistrationRequest{Stock: true, Discoverable: true, UserVerification: "required", Attestation: "enterprise"}
	for _, edit := range edits {
		edit(&r)
	}
	c, err := h.BeginRegistration(h.Context(), h.admin, r)
	if err != nil {
		h.Fatal(err)
	}
	if answer, err = k.Register(c.Options, here); err != nil {
		h.Fatal(err)
	}
	return c.Session, answer
}

func TestAKeyOfStockSignsItsOwnerInOnceItIsGiven(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{UserVerification: true, Serial: "SN-0012345"})
	h.publish(1, keyModel(k, "Soft One"))
	session, answer := h.stocked(k)
	made, err := h.other.FinishRegistration(t.Context(), h.admin, session, answer)
	if err != nil || made.State != tokens.Imported || made.Serial != "SN-0012345" || made.Model != "Soft One" || !made.Credential.UserVerified {
		t.Fatalf("%+v, %v", made, err)
	}
	if r := h.records("key.stock", "ok"); len(r) != 1 || detail(r[0], "attestation") != "basic" || r[0].User != "" {
		t.Errorf("the audit has %+v", r)
	}
	passkey := func() tokens.KeyResult { return h.finish(h.asserted(k, LoginRequest{})) }
	if res := passkey(); res.Accept {
		t.Error("nobody's key signs somebody in")
	}
	if _, err := h.cores[0].Assign(t.Context(), h.admin, "", made.Serial, "bob"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if res := passkey(); !res.Accept || res.User != "bob" || res.Token.State != tokens.Active {
			t.Errorf("%+v; %s", res, why(h.lastReject()))
		}
	}
	if res := h.signIn(k, "bob"); !res.Accept {
		t.Errorf("by name: %s", why(h.lastReject()))
	}
}

// A reply that was lost is asked for again, on any node, and long after.
func TestARegistrationThatIsFinishedAgainIsAnsweredWithItsToken(t *testing.T) {
	h := newKeyHouse(t)
	verifies := softkey.Options{UserVerification: true}
	mine, stock, never := newKey(t, verifies), newKey(t, verifies), newKey(t, verifies)
	h.govern(RuleSet{Default: Rules{RequiredAttestation: "self", AllowUnknown: true}})
	type finish struct {
		session string
		answer  []byte
	}
	var all []finish
	for _, begin := range []func() (string, []byte){
		func() (string, []byte) { return h.answered(mine, "alice") },
		func() (string, []byte) { return h.stocked(stock) },
	} {
		session, answer := begin()
		all = append(all, finish{session, answer})
	}
	lost, unheard := h.stocked(never)
	var made []tokens.Token
	for _, f := range all {
		token, err := h.FinishRegistration(t.Context(), h.admin, f.session, f.answer)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, token)
	}
	// Whatever has become of them, or of the rules, since.
	h.govern(RuleSet{Default: Rules{RequiredAttestation: "basic"}})
	if _, err := h.cores[0].Assign(t.Context(), h.admin, "", made[1].Serial, "bob"); err != nil {
		t.Fatal(err)
	}
	for _, wait := range []time.Duration{0, time.Hour} {
		h.forward(wait)
		for i, f := range all {
			got, err := h.other.FinishRegistration(t.Context(), h.admin, f.session, f.answer)
			if err != nil || got.Serial != made[i].Serial {
				t.Errorf("after %s: %+v, %v", wait, got, err)
			}
		}
	}
	if _, err := h.FinishRegistration(t.Context(), h.admin, lost, unheard); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("one that was never finished: %v", err)
	}
	if n := len(h.records("key.stock", "ok")); n == 0 {
		t.Error("nothing is audited")
	}
}

func TestARegistrationIsForAUserOrForStock(t *testing.T) {
	h := newKeyHouse(t)
	for name, r := range map[string]RegistrationRequest{
		"nobody":                 {},
		"both":                   {User: "alice", Stock: true},
		"weaker verification":    {Stock: true, UserVerification: "discouraged"},
		"unknown verification":   {Stock: true, UserVerification: "Required"},
		"an unknown attestation": {Stock: true, Attestation: "indirect"},
	} {
		if _, err := h.BeginRegistration(t.Context(), h.admin, r); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for asked, want := range map[string]string{"": "direct", "none": "direct", "direct": "direct", "enterprise": "enterprise"} {
		c, err := h.BeginRegistration(t.Context(), h.admin, RegistrationRequest{Stock: true, Attestation: asked})
		if err != nil {
			t.Fatal(err)
		}
		var o struct {
			PublicKey struct {
				Attestation string
				User        struct{ ID, Name string }
			}
		}
		if err := json.Unmarshal(c.Options, &o); err != nil || o.PublicKey.Attestation != want {
			t.Errorf("asked for %q: %s, %v", asked, c.Options, err)
		}
		if id, ok := decodeBase64(o.PublicKey.User.ID); !ok || len(id) != 32 || !strings.HasPrefix(o.PublicKey.User.Name, "Key ") {
			t.Errorf("the user is %+v", o.PublicKey.User)
		}
	}
}

// What was begun for one is not finished for the other.
func TestStockIsRefusedAsUsersKeysAre(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{UserVerification: true})
	session, answer := h.stocked(k)
	if _, err := h.FinishRegistration(t.Context(), h.admin, session, answer); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("a key that nobody vouches for: %v", err)
	}
	if r := h.records("key.stock", "refused"); len(r) != 1 || r[0].User != "" {
		t.Errorf("the audit has %+v", r)
	}
	desk := h.admin
	desk.Scope = "helpdesk"
	if _, err := h.BeginRegistration(t.Context(), desk, RegistrationRequest{Stock: true}); err == nil {
		t.Error("the helpdesk makes stock")
	}
}
