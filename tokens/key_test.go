package tokens_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
)

func TestAKeysAnswerIsAcceptedOnce(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("one")
	k.count = 4
	h.enrol("alice", k)
	a := h.shows("Alice", k)
	r := h.concludes(a, true, tokens.ReasonAccepted)
	if r.Serial != k.serial || r.User != "alice" || r.Realm != "default" || !r.UserVerified || !r.At.Equal(h.clock.now()) ||
		r.Token.Serial != k.serial || r.Token.Last != 5 || r.Token.UsedAt != h.clock.now().Unix() || r.Token.Credential.AAGUID != [16]byte{1, 2, 3, 4} {
		t.Errorf("the answer is %+v", r)
	}
	if got := h.token(k.serial); got.Last != 5 || got.UsedAt != h.clock.now().Unix() || got.State != tokens.Active {
		t.Errorf("the token is %+v", got)
	}
	if r := h.concludes(a, false, tokens.ReasonReplay); r.Serial != "" || r.User != "" || r.Token.Serial != "" {
		t.Errorf("a reject says %+v", r)
	}
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	if s := h.standing("alice"); s.Failures != 0 {
		t.Errorf("replays were counted: %+v", s)
	}
	h.acceptedOnce()
	h.intact()
}

// Who started anew, or never saw the answer, knows of it from the database.
func TestAnAnswerIsReplayedOnAnotherNode(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("one") // which does not count
	h.enrol("alice", k)
	a, passkey := h.shows("alice", k), h.shows("", k)
	h.concludes(a, true, tokens.ReasonAccepted)
	h.concludes(passkey, true, tokens.ReasonAccepted)
	h.Service = h.node(&firsts{})
	h.concludes(a, false, tokens.ReasonReplay)
	h.concludes(passkey, false, tokens.ReasonReplay)
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	h.intact()
}

func TestAPasskeySaysWhoseItIs(t *testing.T) {
	h := newHouse(t)
	mine, yours := newSeckey("mine"), newSeckey("yours")
	h.enrol("alice", mine)
	h.enrol("bob", yours)
	if r := h.concludes(h.shows("", mine), true, tokens.ReasonAccepted); r.User != "alice" {
		t.Errorf("it is %s's", r.User)
	}
	if r := h.last(); r.User != "alice" || r.Serial != mine.serial {
		t.Errorf("audited as %s's %s", r.User, r.Serial)
	}
	handle := func(user string) []byte {
		b, err := h.UserHandle(ctx, h.userID(user))
		if err != nil || len(b) != 32 {
			t.Fatalf("%d bytes, %v", len(b), err)
		}
		return b
	}
	for _, c := range []struct {
		user   string
		handle []byte
		accept bool
		reason tokens.Reason
	}{
		{"", handle("bob"), true, tokens.ReasonAccepted},
		{"bob", handle("bob"), true, tokens.ReasonAccepted},
		{"bob", nil, true, tokens.ReasonAccepted},
		{"", handle("alice"), false, tokens.ReasonUnknownCredential},
		{"bob", handle("alice"), false, tokens.ReasonUnknownCredential},
		{"", handle("bob")[:31], false, tokens.ReasonUnknownCredential},
		{"alice", handle("bob"), false, tokens.ReasonUnknownCredential}, // bob's key, named as alice's
		{"alice", nil, false, tokens.ReasonUnknownCredential},
	} {
		a := h.shows(c.user, yours)
		a.Handle = c.handle
		h.concludes(a, c.accept, c.reason)
	}
	other := h.shows("bob", yours)
	other.RPID = "other.example.org"
	h.concludes(other, false, tokens.ReasonUnknownCredential)
	realm := h.shows("", yours)
	realm.Realm = "corp"
	corp := h.key("corp", "verify")
	if r, err := h.VerifyKey(ctx, corp, realm); err != nil || r.Accept {
		t.Errorf("in another realm: %+v, %v", r, err)
	}
	h.intact()
}

func TestEachRefusalOfAKeyHasItsReason(t *testing.T) {
	h := newHouse(t)
	k, stranger := newSeckey("one"), newSeckey("none")
	k.count = 10
	h.enrol("alice", k)
	h.user("bob")
	sign := func(edit func(a *assertion)) tokens.KeyAttempt {
		c := h.challenge()
		a := k.answers(c.Hash)
		edit(a)
		a.sign(k)
		return h.attempt("alice", k, c, a)
	}
	for name, c := range map[string]struct {
		attempt func() tokens.KeyAttempt
		reason  tokens.Reason
	}{
		"unknown user":       {func() tokens.KeyAttempt { return h.shows("nobody", k) }, tokens.ReasonUnknownUser},
		"no name of a user":  {func() tokens.KeyAttempt { return h.shows("a\x00b", k) }, tokens.ReasonUnknownUser},
		"another user":       {func() tokens.KeyAttempt { return h.shows("bob", k) }, tokens.ReasonUnknownCredential},
		"unknown credential": {func() tokens.KeyAttempt { return h.shows("alice", stranger) }, tokens.ReasonUnknownCredential},
		"unknown passkey":    {func() tokens.KeyAttempt { return h.shows("", stranger) }, tokens.ReasonUnknownCredential},
		"another's signature": {func() tokens.KeyAttempt {
			c := h.challenge()
			return h.attempt("alice", k, c, stranger.answers(c.Hash))
		}, tokens.ReasonBadSignature},
		"altered after it was signed": {func() tokens.KeyAttempt {
			c := h.challenge()
			a := k.answers(c.Hash)
			a.said.SignCount += 100
			return h.attempt("alice", k, c, a)
		}, tokens.ReasonBadSignature},
		"synced now": {func() tokens.KeyAttempt { return sign(func(a *assertion) { a.said.Synced = true }) }, tokens.ReasonBackupChanged},
		"expired": {func() tokens.KeyAttempt {
			a := h.shows("alice", k)
			a.Expires = h.clock.now()
			return a
		}, tokens.ReasonExpired},
		"refused without a reason": {func() tokens.KeyAttempt {
			a := h.shows("alice", k)
			a.Check = func(*tokens.Credential, *tokens.User) (tokens.Assertion, error) {
				return tokens.Assertion{SignCount: 99}, fmt.Errorf("webauthn: %w", &tokens.CheckError{})
			}
			return a
		}, tokens.ReasonBadSignature},
		"not verified": {func() tokens.KeyAttempt {
			a := h.shows("alice", k)
			a.Check = func(*tokens.Credential, *tokens.User) (tokens.Assertion, error) {
				return tokens.Assertion{}, &tokens.CheckError{Reason: tokens.ReasonNotVerified, Why: "no\x00\xff text"}
			}
			return a
		}, tokens.ReasonNotVerified},
	} {
		t.Run(name, func(t *testing.T) {
			h.concludes(c.attempt(), false, c.reason)
		})
	}
	if got := h.token(k.serial); got.Last != 10 || got.State != tokens.Active {
		t.Errorf("the token moved: %+v", got)
	}
	if s := h.standing("alice"); s.Failures != 0 || s.Version != 2 {
		t.Errorf("refusals were counted, or changed something: %+v", s)
	}
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	h.intact()
}

func TestAKeyIsTurnedAwayLikeACode(t *testing.T) {
	h := newHouse(t)
	k, d := newSeckey("one"), totp("T1")
	h.enrol("alice", k)
	h.give("alice", d)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted) // without the PIN

	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled))
	h.concludes(h.shows("alice", k), false, tokens.ReasonDisabled)
	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserEnabled))

	for range 6 {
		h.try("alice", "000000")
	}
	h.concludes(h.shows("alice", k), false, tokens.ReasonThrottled)
	h.concludes(h.shows("", k), false, tokens.ReasonThrottled)
	h.clock.forward(time.Minute)
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	if s := h.standing("alice"); s.Failures != 0 || len(s.Throttle) != 0 {
		t.Errorf("an accept leaves failures: %+v", s)
	}
	for range 100 {
		h.clock.forward(16 * time.Minute)
		h.try("alice", "000000")
	}
	h.concludes(h.shows("alice", k), false, tokens.ReasonLocked)
	h.must(h.UnlockUser(ctx, h.admin, "", "alice"))

	h.must(h.Suspend(ctx, h.admin, "", k.serial, ""))
	h.concludes(h.shows("alice", k), false, tokens.ReasonSuspendedUsed)
	h.must(h.MarkLost(ctx, h.admin, "", k.serial, ""))
	h.concludes(h.shows("alice", k), false, tokens.ReasonLostUsed)
	h.concludes(h.shows("", k), false, tokens.ReasonLostUsed)
	h.must(h.Resume(ctx, h.admin, "", k.serial, "found"))
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	h.must(h.Unassign(ctx, h.admin, "", k.serial, ""))
	h.concludes(h.shows("alice", k), false, tokens.ReasonUnknownCredential)
	h.concludes(h.shows("", k), false, tokens.ReasonUnknownCredential)
	h.must(h.Assign(ctx, h.admin, "", k.serial, "alice"))
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	h.must(h.Revoke(ctx, h.admin, "", k.serial, ""))
	h.concludes(h.shows("alice", k), false, tokens.ReasonUnknownCredential)
	h.intact()
}

func TestAClonedKeyIsSuspendedAndSaysSo(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("one")
	k.count = 5
	h.enrol("alice", k)
	copied := *k
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted) // 6
	a := h.shows("alice", &copied)                                // 6 again
	h.concludes(a, false, tokens.ReasonCloned)
	if got := h.token(k.serial); got.State != tokens.Suspended || got.Last != 6 || got.Owner != "alice" {
		t.Fatalf("the token is %s at %d", got.State, got.Last)
	}
	r := h.last()
	if r.Action != "token.suspend" || r.Outcome != "ok" || r.Reason != "cloned" || r.Actor != "system" || r.User != "alice" || r.Serial != k.serial {
		t.Errorf("the suspension is audited as %+v", r)
	}
	h.concludes(a, false, tokens.ReasonReplay)
	h.concludes(h.shows("alice", k), false, tokens.ReasonSuspendedUsed)
	list, err := h.Why(ctx, h.admin, "", "alice", 4)
	if err != nil || len(list) != 4 || !strings.Contains(list[2].Words, "copy") || !strings.Contains(list[3].Words, "copy") {
		t.Errorf("why: %+v, %v", list, err)
	}
	// The helpdesk may turn it on again, and what was counted stays.
	h.must(h.Resume(ctx, h.admin, "", k.serial, "the owner has it"))
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	if s := h.standing("alice"); s.Failures != 0 {
		t.Errorf("it was counted: %+v", s)
	}
	h.intact()
}

// A fault is no verdict, and no accept.
func TestAnAnswerThatCannotBeCheckedGetsNoVerdict(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("one")
	h.enrol("alice", k)
	for name, check := range map[string]func(*tokens.Credential, *tokens.User) (tokens.Assertion, error){
		"an error": func(*tokens.Credential, *tokens.User) (tokens.Assertion, error) {
			return tokens.Assertion{}, errors.New("x")
		},
		"a panic": func(*tokens.Credential, *tokens.User) (tokens.Assertion, error) { panic("index out of range") },
		"nil panic": func(*tokens.Credential, *tokens.User) (tokens.Assertion, error) {
			var c *tokens.Credential
			return tokens.Assertion{}, errors.New(c.RPID)
		},
	} {
		a := h.shows("alice", k)
		check, right := check, a.Check
		a.Check = check
		if r, err := h.VerifyKey(ctx, h.vpn, a); !errors.Is(err, tokens.ErrUnavailable) || r.Accept {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if last := h.last(); last.Outcome != "error" || last.Reason != string(tokens.ReasonUnavailable) {
			t.Errorf("%s is audited as %s, %s", name, last.Outcome, last.Reason)
		}
		a.Check = right // it was not used up
		h.concludes(a, true, tokens.ReasonAccepted)
	}
	if !strings.Contains(h.log.String(), "panicked") {
		t.Error("the panic is not in the log")
	}
	h.keys.memory().Fail(errors.New("away"))
	if r, err := h.VerifyKey(ctx, h.vpn, h.shows("alice", k)); !errors.Is(err, tokens.ErrUnavailable) || r.Accept {
		t.Errorf("without the HSM: %+v, %v", r, err)
	}
	h.keys.memory().Heal()
	h.db.edit(func(d *editor) { d.clock = func() time.Time { return h.clock.now().Add(time.Minute) } })
	if r, err := h.VerifyKey(ctx, h.vpn, h.shows("alice", k)); !errors.Is(err, tokens.ErrUnavailable) || r.Accept {
		t.Errorf("with clocks that differ: %+v, %v", r, err)
	}
	h.db.edit(func(d *editor) { d.clock = nil })
}

func TestAKeyAttemptWithoutWhatIsNeededIsMalformed(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("one")
	h.enrol("alice", k)
	for name, edit := range map[string]func(a *tokens.KeyAttempt){
		"no credential":      func(a *tokens.KeyAttempt) { a.Credential = nil },
		"a long credential":  func(a *tokens.KeyAttempt) { a.Credential = make([]byte, 1024) },
		"no relying party":   func(a *tokens.KeyAttempt) { a.RPID = "" },
		"no check":           func(a *tokens.KeyAttempt) { a.Check = nil },
		"a realm that is no": func(a *tokens.KeyAttempt) { a.Realm = "\x00" },
	} {
		a := h.shows("alice", k)
		edit(&a)
		if _, err := h.VerifyKey(ctx, h.vpn, a); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if r := h.last(); r.Reason != string(tokens.ReasonMalformed) || r.Outcome != "reject" {
			t.Errorf("%s is audited as %s, %s", name, r.Outcome, r.Reason)
		}
	}
}

// A key's row that was edited, or a credential that was moved to another row, is
// refused, and the audit says so: also where the row was proven before, and that
// is remembered.
func TestAKeysRowThatWasEditedIsRefused(t *testing.T) {
	thief := newSeckey("thief")
	for name, edit := range map[string]func(t, other *tokens.Token){
		"public key":        func(t, _ *tokens.Token) { t.Credential.PublicKey = thief.credential(1).PublicKey },
		"made for":          func(t, other *tokens.Token) { t.Credential.UserID++ },
		"state":             func(t, _ *tokens.Token) { t.State = tokens.Suspended },
		"synced":            func(t, _ *tokens.Token) { t.Credential.Synced = true },
		"model":             func(t, _ *tokens.Token) { t.Credential.AAGUID[0]++ },
		"attestation":       func(t, _ *tokens.Token) { t.Credential.Attestation = "none" },
		"serial":            func(t, _ *tokens.Token) { t.Serial = "F-0000000000000000" },
		"binding":           func(t, _ *tokens.Token) { t.Binding[0] ^= 1 },
		"no binding":        func(t, _ *tokens.Token) { t.Binding = nil },
		"another's binding": func(t, other *tokens.Token) { t.Binding = other.Binding },
		"a seed":            func(t, _ *tokens.Token) { t.Wrapped.Blob = []byte{1} },
		"counter":           func(t, _ *tokens.Token) { t.Last = -1 },
		"another's credential": func(t, other *tokens.Token) {
			t.Credential, other.Credential = other.Credential, t.Credential
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			k, second := newSeckey("one"), newSeckey("two")
			h.enrol("alice", k, second)
			h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
			h.concludes(h.shows("alice", second), true, tokens.ReasonAccepted)
			h.db.edit(func(d *editor) {
				d.subject = func(s *tokens.Subject) {
					if s.User == nil || s.User.Key != "alice" || len(s.Tokens) != 2 {
						return
					}
					for i := range s.Tokens {
						c := *s.Tokens[i].Credential
						s.Tokens[i].Credential = &c
						s.Tokens[i].Binding = slices.Clone(s.Tokens[i].Binding)
					}
					edit(&s.Tokens[0], &s.Tokens[1])
				}
			})
			a := h.shows("alice", k)
			if name == "public key" {
				c := h.challenge()
				a = h.attempt("alice", k, c, thief.answers(c.Hash))
			}
			h.concludes(a, false, tokens.ReasonTampered)
			if name == "another's credential" {
				h.concludes(h.shows("alice", second), false, tokens.ReasonTampered)
			} else {
				h.concludes(h.shows("alice", second), true, tokens.ReasonAccepted)
			}
			// Nothing turns it on again, or binds it anew.
			if _, err := h.SetPIN(ctx, h.admin, "", "alice", "4711", false); !errors.Is(err, tokens.ErrTampered) && name != "counter" {
				t.Errorf("a PIN is set over it: %v", err)
			}
			h.db.edit(func(d *editor) { d.subject = nil })
		})
	}
}

// A lost key whose row is set back is refused: its state is bound.
func TestALostKeySetBackInTheDatabaseIsRefused(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("one")
	h.enrol("alice", k)
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	h.must(h.MarkLost(ctx, h.admin, "", k.serial, ""))
	h.db.edit(func(d *editor) { d.token = func(t *tokens.Token) { t.State = tokens.Active } })
	h.concludes(h.shows("alice", k), false, tokens.ReasonTampered)
}

// Whoever has keys verifies by codes as before, and who has nothing else is told
// apart from nobody.
func TestKeysDoNotDisturbCodes(t *testing.T) {
	h := newHouse(t)
	d, k, broken := totp("T1"), newSeckey("one"), newSeckey("two")
	h.enrol("alice", k, broken)
	h.give("alice", d)
	h.enrol("bob", newSeckey("three"))
	_, uri, err := h.EnrolSoft(ctx, h.admin, tokens.NewSoft{User: "bob"})
	if err != nil {
		t.Fatal(err)
	}
	h.db.edit(func(e *editor) {
		e.token = func(t *tokens.Token) {
			if t.Serial == broken.serial {
				t.Credential, t.Binding = nil, nil
			}
		}
	})
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	h.ends("alice", d.wrong(h.clock.now().Unix()/30), false, tokens.ReasonWrongCode)
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	h.concludes(h.shows("alice", broken), false, tokens.ReasonUnknownCredential)
	work := func(user, code string) [3]int64 {
		before := [3]int64{h.keys.factors.Load(), h.keys.pins.Load(), h.keys.blocks.Load()}
		h.try(user, code)
		return [3]int64{h.keys.factors.Load() - before[0], h.keys.pins.Load() - before[1], h.keys.blocks.Load() - before[2]}
	}
	for _, code := range []string{"000000", "1234000000", strings.Repeat("c", 44)} {
		if known, unknown := work("bob", code), work("nobody", code); known != unknown {
			t.Errorf("%q costs %v for one who has keys and a token that waits, %v for nobody", code, known, unknown)
		}
	}
	// The token that waits accepts nothing, not even its own code.
	soft := softDevice(t, uri)
	h.ends("bob", soft.code(h, 0), false, tokens.ReasonNoToken)
	if s := h.standing("bob"); s.Failures != 0 {
		t.Errorf("%+v", s)
	}
}

func TestAKeyIsEnrolledOnce(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("one")
	h.user("alice")
	h.user("bob")
	n := h.newFIDO("alice", k)
	n.SignCount = 3
	made, err := h.EnrolKey(ctx, h.admin, n)
	if err != nil || made.ID == 0 || made.State != tokens.Active || made.Owner != "alice" || made.Serial != tokens.CredentialSerial(k.id) || made.Last != 3 || made.Model != "Test key" {
		t.Fatalf("%+v, %v", made, err)
	}
	if r := h.last(); r.Action != "key.enrol" || r.Outcome != "ok" || r.User != "alice" || r.Serial != made.Serial || r.Detail[0].Name != "aaguid" {
		t.Errorf("audited as %+v", r)
	}
	refuses := func(what string, err, kind error, reason string) {
		t.Helper()
		if !errors.Is(err, kind) {
			t.Errorf("%s: %v", what, err)
		}
		if r := h.last(); r.Action != "key.enrol" || r.Outcome != "refused" || r.Reason != reason {
			t.Errorf("%s is audited as %s, %s, %s", what, r.Action, r.Outcome, r.Reason)
		}
	}
	for _, user := range []string{"alice", "bob"} {
		refuses("the same credential", second(h.EnrolKey(ctx, h.admin, h.newFIDO(user, k))), tokens.ErrExists, "exists")
	}
	again := h.newFIDO("bob", newSeckey("two"))
	again.Serial = made.Serial
	refuses("the same serial", second(h.EnrolKey(ctx, h.admin, again)), tokens.ErrExists, "exists")
	spent := h.newFIDO("bob", newSeckey("two"))
	spent.Spend = n.Spend
	refuses("the same challenge", second(h.EnrolKey(ctx, h.admin, spent)), tokens.ErrState, "replay")
	late := h.newFIDO("bob", newSeckey("two"))
	late.Spend.Expires = h.clock.now()
	refuses("too late", second(h.EnrolKey(ctx, h.admin, late)), tokens.ErrState, "expired")
	swapped := h.newFIDO("bob", newSeckey("two"))
	swapped.User = "alice"
	refuses("begun for another", second(h.EnrolKey(ctx, h.admin, swapped)), tokens.ErrState, "state")
	nobody := h.newFIDO("bob", newSeckey("two"))
	nobody.User = "nobody"
	refuses("nobody", second(h.EnrolKey(ctx, h.admin, nobody)), tokens.ErrNotFound, "not_found")
	broken := h.newFIDO("bob", newSeckey("two"))
	broken.Credential.PublicKey = nil
	refuses("no public key", second(h.EnrolKey(ctx, h.admin, broken)), tokens.ErrInvalid, "invalid")
	h.must(h.SetUserState(ctx, h.admin, "", "bob", tokens.UserDisabled))
	refuses("a disabled user", second(h.EnrolKey(ctx, h.admin, h.newFIDO("bob", newSeckey("two")))), tokens.ErrState, "state")
	refuses("a disabled user, at the beginning", second(h.KeyHolder(ctx, h.admin, "", "bob", rp)), tokens.ErrState, "state")

	// A challenge that was answered by enrolling is no use for signing in.
	a := h.shows("alice", k)
	a.Spend = n.Spend
	h.concludes(a, false, tokens.ReasonReplay)

	h.must(h.Revoke(ctx, h.admin, "", made.Serial, ""))
	refuses("a revoked key's credential", second(h.EnrolKey(ctx, h.admin, h.newFIDO("alice", k))), tokens.ErrExists, "exists")
	if err := h.RefuseKey(ctx, h.admin, "", "alice", "prohibited", "the model\x00 is prohibited", nil); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("refused: %v", err)
	}
	list, err := h.Why(ctx, h.admin, "", "alice", 1)
	if err != nil || len(list) != 1 || !strings.Contains(list[0].Words, "is prohibited") {
		t.Errorf("why: %+v, %v", list, err)
	}
	h.intact()
}

func TestAKeyIsForOneUser(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("one")
	h.enrol("alice", k)
	h.user("bob")
	h.must(h.Unassign(ctx, h.admin, "", k.serial, ""))
	if _, err := h.Assign(ctx, h.admin, "", k.serial, "bob"); !errors.Is(err, tokens.ErrState) {
		t.Errorf("assigned to another: %v", err)
	}
	h.must(h.Assign(ctx, h.admin, "", k.serial, "alice"))
	if _, err := h.Resync(ctx, h.admin, "", k.serial, "000000", "111111"); !errors.Is(err, tokens.ErrState) {
		t.Errorf("resynchronised: %v", err)
	}
	held, err := h.KeyHolder(ctx, h.admin, "", "alice", rp)
	if err != nil || len(held.Credentials) != 1 || !bytes.Equal(held.Credentials[0].ID, k.id) || held.UserID != h.userID("alice") || held.User != "alice" || len(held.Handle) != 32 {
		t.Errorf("%+v, %v", held, err)
	}
	if held, err = h.KeyHolder(ctx, h.admin, "", "alice", "other.example.org"); err != nil || len(held.Credentials) != 0 {
		t.Errorf("for another relying party: %+v, %v", held, err)
	}
}

func TestTheServerSuspendsAKeyByItself(t *testing.T) {
	h := newHouse(t)
	k, d := newSeckey("one"), totp("T1")
	h.enrol("alice", k)
	h.give("alice", d)
	got, err := h.SuspendKey(ctx, k.serial, "", "the model was revoked")
	if err != nil || got.State != tokens.Suspended {
		t.Fatalf("%s, %v", got.State, err)
	}
	if r := h.last(); r.Actor != "system" || r.Action != "token.suspend" || r.User != "alice" || r.Detail[0].Value != "the model was revoked" {
		t.Errorf("audited as %+v", r)
	}
	h.concludes(h.shows("alice", k), false, tokens.ReasonSuspendedUsed)
	h.must(h.SuspendKey(ctx, k.serial, "", "again"))
	if _, err := h.SuspendKey(ctx, "T1", "", "x"); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a token that is no key: %v", err)
	}
	var seen []string
	for i := range 3 {
		h.enrol("bob", newSeckey(fmt.Sprint("more", i)))
	}
	if err := h.EachKey(ctx, func(t *tokens.Token) error { seen = append(seen, string(t.Type)); return nil }); err != nil || len(seen) != 4 || slices.Contains(seen, "totp") {
		t.Errorf("%v, %v", seen, err)
	}
	enough := errors.New("enough")
	if err := h.EachKey(ctx, func(*tokens.Token) error { return enough }); err != enough {
		t.Error(err)
	}
}
