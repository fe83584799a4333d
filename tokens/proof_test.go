package tokens_test

import (
	"crypto/sha256"
	"net/netip"
	"sync/atomic"
	"testing"

	"watchword/tokens"
)

// hashed proves a code by its SHA-256: no method that there is, but all that the core
// sees of one.
type hashed struct {
	sum   [sha256.Size]byte
	asked atomic.Int64
}

func proofOf(code string) *hashed { return &hashed{sum: sha256.Sum256([]byte(code))} }

func (h *hashed) Proves(code []byte) bool {
	h.asked.Add(1)
	return sha256.Sum256(code) == h.sum
}

// proves tries to be let in by a proof, and answers whether it was, and for which
// reason.
func (h *house) proves(user string, proof tokens.Proof) (bool, tokens.Reason) {
	h.Helper()
	r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: user, Proof: proof, Method: "chap", Transport: "radius"})
	h.must(r, err)
	return r.Accept, tokens.Reason(h.last().Reason)
}

func TestACodeThatIsOnlyProvenIsAcceptedOnce(t *testing.T) {
	h := newHouse(t)
	d, e := totp("T1"), hotp("H1")
	e.Digits = 8
	h.give("alice", d, e)
	for i, c := range []struct {
		code   string
		accept bool
		reason tokens.Reason
	}{
		{d.code(h, 1), true, tokens.ReasonAccepted},
		{d.code(h, 1), false, tokens.ReasonReplay},
		{e.at(3), true, tokens.ReasonAccepted},
		{e.at(3), false, tokens.ReasonReplay},
		{e.at(4)[1:], false, tokens.ReasonWrongCode},
	} {
		if ok, why := h.proves("alice", proofOf(c.code)); ok != c.accept || why != c.reason {
			t.Errorf("%d: %v, %s; want %v, %s", i, ok, why, c.accept, c.reason)
		}
	}
	// What was proven cannot be typed any more, nor the other way round.
	h.ends("alice", e.at(3), false, tokens.ReasonReplay)
	h.ends("alice", e.at(4), true, tokens.ReasonAccepted)
	if ok, why := h.proves("alice", proofOf(e.at(4))); ok || why != tokens.ReasonReplay {
		t.Errorf("%v, %s", ok, why)
	}
}

func TestAUserWithAPINCannotBeProven(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	for _, c := range []struct {
		code   string
		reason tokens.Reason
	}{{d.code(h, 0), tokens.ReasonPINMethod}, {"4711" + d.code(h, 0), tokens.ReasonWrongCode}} {
		if ok, why := h.proves("alice", proofOf(c.code)); ok || why != c.reason {
			t.Errorf("%s: %v, %s; want %s", c.reason, ok, why, c.reason)
		}
	}
	h.ends("alice", "4711"+d.code(h, 0), true, tokens.ReasonAccepted)
}

// A proof is held against as many codes for a name that is nobody's, for a user who is
// disabled, and for a wrong code.
func TestAProofCostsStrangersAsMuch(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"))
	h.give("bob", totp("T2"))
	h.must(h.SetUserState(ctx, h.admin, "", "bob", tokens.UserDisabled))
	var asked []int64
	for _, user := range []string{"alice", "bob", "nobody"} {
		p := proofOf("none")
		h.proves(user, p)
		asked = append(asked, p.asked.Load())
	}
	if asked[0] == 0 || asked[1] != asked[0] || asked[2] != asked[0] {
		t.Errorf("it was asked %v times", asked)
	}
}

// The options of a client are as bound as the rest of its row.
func TestClientOptionsAreKeptAndBound(t *testing.T) {
	h := newHouse(t)
	put := func(o tokens.ClientOptions) error {
		_, err := h.PutClient(ctx, h.admin, tokens.NewClient{
			Name: "rras", Prefix: netip.MustParsePrefix("192.0.2.20/32"), Secret: []byte("a secret of some length"), Options: o,
		}, true)
		return err
	}
	h.must(nil, put(tokens.ClientOptions{Methods: []tokens.Method{tokens.MethodMSCHAPv2, tokens.MethodPAP}}))
	c, ok := h.ClientFor(netip.MustParseAddr("192.0.2.20"))
	if !ok || !c.Uses(tokens.MethodMSCHAPv2) || !c.Uses(tokens.MethodPAP) || c.Uses(tokens.MethodCHAP) || c.UnsignedProxyState {
		t.Fatalf("%+v", c)
	}
	for _, wrong := range []tokens.ClientOptions{
		{Methods: []tokens.Method{"md5"}}, {Methods: []tokens.Method{tokens.MethodCHAP, tokens.MethodCHAP}},
	} {
		if err := put(wrong); err == nil {
			t.Errorf("%+v was taken", wrong)
		}
	}
	h.must(nil, put(tokens.ClientOptions{Methods: []tokens.Method{tokens.MethodPAP}}))
	if c, _ := h.ClientFor(netip.MustParseAddr("192.0.2.20")); c.Options != "" || !c.Uses(tokens.MethodPAP) {
		t.Errorf("pap alone is not the default: %+v", c.Client)
	}
	for _, text := range []string{`{}`, `{"methods":["pap"]}`, `{"methods":["chap"]} `, `{"methods":["chap"],"later":1}`, `{"methods":["mschap","chap"]}`, `x`} {
		if _, err := tokens.ParseClientOptions(text); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}
