package webauthn

import (
	"bytes"
	be "encoding/binary"
	"testing"

	"watchword/tokens"
	"watchword/webauthn/softkey"
)

func TestAChallengeThatIsRememberedIsAnsweredOnceLikeAnyOther(t *testing.T) {
	h := newKeyHouse(t)
	k := newKey(t, softkey.Options{})
	h.publish(1, keyModel(k, "Soft One"))
	if err := h.SetRoots(t.Context(), h.admin, k.RootPEM()); err != nil {
		t.Fatal(err)
	}
	h.mustRegister(k, "alice")
	here := func(session string, answer []byte) bool {
		t.Helper()
		res, err := h.FinishLogin(t.Context(), h.admin, session, answer, "http")
		if err != nil {
			t.Fatal(err)
		}
		return res.Accept
	}

	session, answer := h.asserted(k, LoginRequest{User: "alice"})
	st, err := parseSession(session)
	if err != nil {
		t.Fatal(err)
	}
	mac, err := h.cores[0].CeremonyMAC(t.Context(), st.encoded)
	if err != nil {
		t.Fatal(err)
	}
	if c := h.begun.take(st.encoded); !bytes.Equal(c, mac[:]) {
		t.Errorf("the challenge is remembered as %x; it is %x", c, mac)
	}
	h.begun.put(st.encoded, mac[:])
	if !here(session, answer) {
		t.Error("the answer is rejected")
	}
	if c := h.begun.take(st.encoded); c != nil {
		t.Error("the challenge is still remembered")
	}
	if here(session, answer) || h.finish(session, answer).Accept {
		t.Error("the answer is accepted again")
	}
	if r := h.lastReject(); r.Reason != string(tokens.ReasonReplay) {
		t.Errorf("the audit has %+v", r)
	}

	// An altered state is none that is remembered.
	session, answer = h.asserted(k, LoginRequest{User: "alice"})
	if st, err = parseSession(session); err != nil {
		t.Fatal(err)
	}
	st.Expires += 3600
	if st.encoded, err = canonical.Marshal(st); err != nil {
		t.Fatal(err)
	}
	if here(st.text(), answer) {
		t.Error("an answer to another state is accepted")
	}
	if !here(session, answer) {
		t.Error("the state itself is of no use any more")
	}
}

func TestOfTheChallengesThatAreRememberedTheOldestGo(t *testing.T) {
	var b begun
	state := func(i int) []byte { return be.BigEndian.AppendUint32(nil, uint32(i)) }
	const n = 3*maxBegun + 10
	for i := range n {
		b.put(state(i), bytes.Repeat(state(i), 8))
	}
	if len(b.young) > maxBegun || len(b.old) > maxBegun {
		t.Fatalf("%d and %d are remembered", len(b.young), len(b.old))
	}
	for _, i := range []int{n - 1, n - maxBegun} {
		if c := b.take(state(i)); !bytes.Equal(c, bytes.Repeat(state(i), 8)) || b.take(state(i)) != nil {
			t.Errorf("challenge %d is %x", i, c)
		}
	}
	if b.take(state(0)) != nil {
		t.Error("the first one is still there")
	}
}

// parseSession reads a session that anybody may have written.
func parseSession(text string) (*session, error) {
	raw, ok := sessionBytes(text)
	if !ok {
		return nil, errSession
	}
	return readSession(raw, true)
}
