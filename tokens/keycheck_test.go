package tokens

import (
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// Web Authentication, section 6.1.1: if either counter is not zero, the new one
// must be greater.
func TestASignatureCounterThatDoesNotRiseIsAClones(t *testing.T) {
	for _, c := range []struct {
		last int64
		now  uint32
		want bool
	}{
		{0, 0, false}, {0, 1, false}, {0, math.MaxUint32, false},
		{1, 0, true}, {1, 1, true}, {1, 2, false},
		{7, 6, true}, {7, 7, true}, {7, 8, false}, {7, 0, true},
		{math.MaxUint32 - 1, math.MaxUint32, false}, {math.MaxUint32, math.MaxUint32, true}, {math.MaxUint32, 0, true}, {math.MaxUint32, 1, true},
		{math.MaxInt32, math.MaxInt32 + 1, false}, {math.MaxInt32 + 1, math.MaxInt32, true},
	} {
		if got := cloned(c.last, c.now); got != c.want {
			t.Errorf("%d after %d: cloned %v, want %v", c.now, c.last, got, c.want)
		}
	}
}

// fidoToken is an active key of user 7's, whose counter stands at last.
func fidoToken(last int64) *Token {
	return &Token{
		ID: 1, Realm: "default", Serial: "F-1", Type: FIDO, State: Active, OwnerID: 7, Owner: "alice",
		Credential: &Credential{ID: []byte{1}, RPID: "example.org", UserID: 7, PublicKey: []byte{2}},
		Motion:     Motion{Version: 1, Last: last},
	}
}

// good is an answer with which all is well.
func good(t *Token) keyAnswer {
	return keyAnswer{token: t, known: true, intact: true, handle: true, said: Assertion{SignCount: uint32(t.Last) + 1, UserVerified: true}}
}

func TestEachAnswerOfAKeyIsDecidedForOneReason(t *testing.T) {
	owner := &User{ID: 7, Realm: "default", Key: "alice", State: UserEnabled}
	fault := errors.New("the HSM is away")
	bad := &CheckError{Reason: ReasonBadSignature, Why: "the signature is wrong"}
	for _, c := range []struct {
		name   string
		bar    Reason
		state  State
		edit   func(k *keyAnswer)
		accept bool
		clone  bool
		fault  bool
		reason Reason
	}{
		{name: "all is well", accept: true, reason: ReasonAccepted},
		{name: "no counter at all", edit: func(k *keyAnswer) { k.token.Last, k.said.SignCount = 0, 0 }, accept: true, reason: ReasonAccepted},
		{name: "not verified, which only webauthn judges", edit: func(k *keyAnswer) { k.said.UserVerified = false }, accept: true, reason: ReasonAccepted},

		{name: "the counter stands", edit: func(k *keyAnswer) { k.said.SignCount-- }, clone: true, reason: ReasonCloned},
		{name: "the counter falls to zero", edit: func(k *keyAnswer) { k.said.SignCount = 0 }, clone: true, reason: ReasonCloned},
		{name: "synced, enrolled as not", edit: func(k *keyAnswer) { k.said.Synced = true }, reason: ReasonBackupChanged},
		{name: "not synced, enrolled as synced", edit: func(k *keyAnswer) { k.token.Credential.Synced = true }, reason: ReasonBackupChanged},
		{name: "synced, and the counter stands", edit: func(k *keyAnswer) { k.said.SignCount--; k.said.Synced = true }, reason: ReasonBackupChanged},

		{name: "no such credential", edit: func(k *keyAnswer) { k.known = false }, reason: ReasonUnknownCredential},
		{name: "no such credential, barred", bar: ReasonLocked, edit: func(k *keyAnswer) { k.known = false }, reason: ReasonLocked},
		{name: "a wrong signature", edit: func(k *keyAnswer) { k.refused = bad }, reason: ReasonBadSignature},
		{name: "a wrong origin", edit: func(k *keyAnswer) { k.refused = &CheckError{Reason: ReasonWrongOrigin} }, reason: ReasonWrongOrigin},
		{name: "an altered row", edit: func(k *keyAnswer) { k.intact = false }, reason: ReasonTampered},
		{name: "an altered row and a wrong signature", edit: func(k *keyAnswer) { k.intact = false; k.refused = bad }, reason: ReasonTampered},
		{name: "an altered row, and the counter stands", edit: func(k *keyAnswer) { k.intact = false; k.said.SignCount-- }, reason: ReasonTampered},
		{name: "a counter out of range", edit: func(k *keyAnswer) { k.token.Last = math.MaxUint32 + 1 }, reason: ReasonTampered},
		{name: "made for another user", edit: func(k *keyAnswer) { k.token.Credential.UserID = 8 }, reason: ReasonTampered},
		{name: "another's user handle", edit: func(k *keyAnswer) { k.handle = false }, reason: ReasonUnknownCredential},
		{name: "expired", edit: func(k *keyAnswer) { k.expired = true }, reason: ReasonExpired},
		{name: "the token has expired", edit: func(k *keyAnswer) { k.ended = true }, reason: ReasonExpiredUsed},
		{name: "the token has expired, and the counter stands", edit: func(k *keyAnswer) { k.ended = true; k.said.SignCount-- }, reason: ReasonExpiredUsed},
		{name: "the token has expired, wrong signature", edit: func(k *keyAnswer) { k.ended = true; k.refused = bad }, reason: ReasonBadSignature},
		{name: "the token has expired, and is lost", state: Lost, edit: func(k *keyAnswer) { k.ended = true }, reason: ReasonLostUsed},
		{name: "answered before", edit: func(k *keyAnswer) { k.replay = true }, reason: ReasonReplay},

		{name: "suspended", state: Suspended, reason: ReasonSuspendedUsed},
		{name: "suspended, and the counter stands", state: Suspended, edit: func(k *keyAnswer) { k.said.SignCount-- }, reason: ReasonSuspendedUsed},
		{name: "lost", state: Lost, reason: ReasonLostUsed},
		{name: "lost, wrong signature", state: Lost, edit: func(k *keyAnswer) { k.refused = bad }, reason: ReasonBadSignature},
		{name: "pending", state: Pending, reason: ReasonUnknownCredential},
		{name: "imported", state: Imported, reason: ReasonUnknownCredential},
		{name: "revoked", state: Revoked, reason: ReasonUnknownCredential},
		{name: "in no state", state: "?", reason: ReasonUnknownCredential},

		{name: "disabled", bar: ReasonDisabled, reason: ReasonDisabled},
		{name: "locked", bar: ReasonLocked, reason: ReasonLocked},
		{name: "throttled, and the counter stands", bar: ReasonThrottled, edit: func(k *keyAnswer) { k.said.SignCount-- }, reason: ReasonThrottled},

		{name: "a fault", edit: func(k *keyAnswer) { k.err = fault }, fault: true, reason: ReasonUnavailable},
		{name: "a fault, barred", bar: ReasonLocked, edit: func(k *keyAnswer) { k.err = fault }, fault: true, reason: ReasonUnavailable},
		{name: "a fault at the decoy", edit: func(k *keyAnswer) { k.known = false; k.err = fault }, fault: true, reason: ReasonUnavailable},
	} {
		token := fidoToken(5)
		if c.state != "" {
			token.State = c.state
		}
		k := good(token)
		k.suspend = inState(token, "F-1", Suspended)
		if c.edit != nil {
			c.edit(&k)
		}
		v := decideKey(owner, c.bar, &k)
		if v.accept != c.accept || v.reason != c.reason || (v.suspend != nil) != c.clone || (v.err != nil) != c.fault || v.counted {
			t.Errorf("%s: accept %v, %s, suspends %v, %v, counted %v", c.name, v.accept, v.reason, v.suspend != nil, v.err, v.counted)
		}
		if v.spends() != (c.accept || c.clone) {
			t.Errorf("%s: uses its challenge up: %v", c.name, v.spends())
		}
		if (v.token == token) != (k.known && !c.fault) {
			t.Errorf("%s: the token is %v", c.name, v.token)
		}
		if c.accept && (v.factor != uint64(k.said.SignCount) || v.verified != k.said.UserVerified) {
			t.Errorf("%s: %d, verified %v", c.name, v.factor, v.verified)
		}
	}
}

// Whatever is wrong, alone or with anything else: it is not accepted.
func TestAKeyIsAcceptedOnlyIfNothingIsWrong(t *testing.T) {
	owner := &User{ID: 7, State: UserEnabled}
	rapid.Check(t, func(t *rapid.T) {
		token := fidoToken(rapid.Int64Range(0, 3).Draw(t, "last"))
		token.State = rapid.SampledFrom([]State{Active, Active, Active, Suspended, Lost, Pending, Imported, Revoked}).Draw(t, "state")
		token.Credential.Synced = rapid.Bool().Draw(t, "enrolled as synced")
		token.Credential.UserID = rapid.SampledFrom([]int64{7, 7, 7, 8}).Draw(t, "made for")
		mostly := func(name string) bool { return rapid.IntRange(0, 5).Draw(t, name) > 0 }
		k := keyAnswer{
			token: token, known: mostly("known"), expired: !mostly("in time"), ended: !mostly("not expired"), replay: !mostly("new"), intact: mostly("intact"), handle: mostly("handle"),
			said: Assertion{SignCount: rapid.Uint32Range(0, 4).Draw(t, "count"), Synced: rapid.Bool().Draw(t, "synced")},
		}
		if !mostly("signature") {
			k.refused = &CheckError{Reason: ReasonBadSignature}
		}
		if !mostly("answer of the HSM") {
			k.err = errors.New("away")
		}
		bar := rapid.SampledFrom([]Reason{"", "", "", ReasonLocked}).Draw(t, "bar")
		v := decideKey(owner, bar, &k)
		rises := token.Last == 0 && k.said.SignCount == 0 || int64(k.said.SignCount) > token.Last
		want := k.known && !k.expired && !k.ended && !k.replay && k.intact && k.handle && k.refused == nil && k.err == nil && bar == "" &&
			token.State == Active && token.Credential.UserID == 7 && k.said.Synced == token.Credential.Synced && rises
		if v.accept != want {
			t.Fatalf("accept %v, %s; want %v", v.accept, v.reason, want)
		}
		if v.accept && v.err != nil || (v.err != nil) != (k.err != nil) {
			t.Fatalf("accept %v, %v", v.accept, v.err)
		}
	})
}

func TestWhatWasSpentIsRememberedWithinBounds(t *testing.T) {
	var m spent
	hash := func(i int) (h [32]byte) {
		h[0], h[1], h[2] = byte(i), byte(i>>8), byte(i>>16)
		return h
	}
	for i := range 3 * maxSpent {
		m.add(hash(i))
		m.add(hash(i))
		if !m.has(hash(i)) || len(m.at) > maxSpent || len(m.ring) > maxSpent {
			t.Fatalf("after %d: known %v, %d remembered in %d places", i, m.has(hash(i)), len(m.at), len(m.ring))
		}
	}
	for i := range 3 * maxSpent {
		if m.has(hash(i)) != (i >= 2*maxSpent) {
			t.Fatalf("%d of %d is remembered: %v", i, 3*maxSpent, m.has(hash(i)))
		}
	}
}

func TestEachReasonOfAKeyIsExplained(t *testing.T) {
	for _, r := range []Reason{
		ReasonCloned, ReasonBadSignature, ReasonUnknownCredential, ReasonExpired, ReasonNotVerified, ReasonBackupChanged, ReasonWrongOrigin,
		ReasonReplay, ReasonSuspendedUsed, ReasonLostUsed, ReasonExpiredUsed, ReasonTampered,
	} {
		if x := explanations[r]; x.words == "" || x.advice == "" {
			t.Errorf("%s: %q, %q", r, x.words, x.advice)
		}
	}
}
