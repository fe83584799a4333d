package tokens_test

import (
	"errors"
	"testing"
	"time"

	"watchword/tokens"
)

// waiting is a software token of a new user's that waits for its codes.
func (h *house) waiting(user string) *device {
	h.Helper()
	h.user(user)
	made, d := h.soft(h.admin, user)
	if made.State != tokens.Pending {
		h.Fatalf("it is %s", made.State)
	}
	return d
}

func TestTwoCodesInARowActivateATokenAndAreConsumed(t *testing.T) {
	h := newHouse(t)
	d := h.waiting("alice")
	h.ends("alice", d.code(h, 0), false, tokens.ReasonNoToken)
	for what, codes := range map[string][2]string{
		"not in a row":        {d.code(h, 0), d.code(h, 2)},
		"the wrong way round": {d.code(h, 1), d.code(h, 0)},
		"one twice":           {d.code(h, 0), d.code(h, 0)},
		"too far":             {d.code(h, 121), d.code(h, 122)},
	} {
		if _, err := h.Activate(ctx, h.admin, "", d.Serial, codes[0], codes[1]); !errors.Is(err, tokens.ErrWrongCode) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if s := h.standing("alice"); s.Failures != 4 {
		t.Errorf("%d failures are counted", s.Failures)
	}
	if _, err := h.Activate(ctx, h.admin, "", d.Serial, "12345", "123456"); !errors.Is(err, tokens.ErrInvalid) || h.standing("alice").Failures != 4 {
		t.Errorf("what is no code: %v", err)
	}
	one, two := d.code(h, 7), d.code(h, 8) // its clock is ahead
	got, err := h.Activate(ctx, h.admin, "", d.Serial, one, two)
	now := h.clock.now().Unix() / 30
	if err != nil || got.State != tokens.Active || got.Drift != 8 || got.Last != now+8 {
		t.Fatalf("%+v, %v", got, err)
	}
	if r := h.last(); r.Action != "token.activate" || r.Outcome != "ok" || r.User != "alice" || r.Serial != d.Serial {
		t.Errorf("audited as %+v", r)
	}
	h.ends("alice", one, false, tokens.ReasonReplay)
	h.ends("alice", two, false, tokens.ReasonReplay)
	// The answer was lost, and somebody asks again.
	before := h.standing("alice")
	again, err := h.Activate(ctx, h.admin, "", d.Serial, one, two)
	if err != nil || again.State != tokens.Active || h.last().Reason != string(tokens.ReasonUnchanged) || h.standing("alice").Version != before.Version {
		t.Errorf("asked again: %v, %s", err, h.last().Reason)
	}
	if _, err := h.Activate(ctx, h.admin, "", d.Serial, d.code(h, 9), d.code(h, 10)); !errors.Is(err, tokens.ErrState) {
		t.Errorf("with other codes: %v", err)
	}
	h.ends("alice", d.code(h, 9), true, tokens.ReasonAccepted)
	h.intact()
}

func TestActivatingIsThrottledLikeVerifying(t *testing.T) {
	h := newHouse(t)
	d := h.waiting("alice")
	activate := func() error {
		return second(h.Activate(ctx, h.admin, "", d.Serial, d.code(h, 0), d.code(h, 1)))
	}
	for range 6 {
		if _, err := h.Activate(ctx, h.admin, "", d.Serial, d.code(h, 0), d.code(h, 0)); !errors.Is(err, tokens.ErrWrongCode) {
			t.Fatal(err)
		}
	}
	if err := activate(); !errors.Is(err, tokens.ErrState) || h.last().Reason != string(tokens.ReasonThrottled) {
		t.Errorf("in the wait: %v, %s", err, h.last().Reason)
	}
	h.clock.forward(time.Minute)
	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled))
	if err := activate(); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a disabled user: %v", err)
	}
	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserEnabled))
	h.db.edit(func(e *editor) { e.token = func(t *tokens.Token) { t.Wrapped.Blob[0] ^= 1 } })
	if err := activate(); !errors.Is(err, tokens.ErrTampered) {
		t.Errorf("an altered row: %v", err)
	}
	h.db.edit(func(e *editor) { e.token = func(t *tokens.Token) { t.Binding[0] ^= 1 } })
	if err := activate(); !errors.Is(err, tokens.ErrTampered) {
		t.Errorf("an altered binding: %v", err)
	}
	h.db.edit(func(e *editor) { e.token = nil })
	h.keys.memory().Fail(errors.New("away"))
	if err := activate(); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("without the HSM: %v", err)
	}
	h.keys.memory().Heal()
	h.must(h.SetExpiry(ctx, h.admin, "", d.Serial, h.clock.now()))
	if err := activate(); !errors.Is(err, tokens.ErrState) {
		t.Errorf("one that has expired: %v", err)
	}
	h.must(h.SetExpiry(ctx, h.admin, "", d.Serial, h.clock.now().Add(time.Hour)))
	h.must(nil, activate())
	h.intact()
}

// A token that is handed out unseen shows that it works, whatever kind it is.
func TestATokenOfAnyKindIsActivatedByTwoOfItsCodes(t *testing.T) {
	h := newHouse(t)
	h.must(h.SetRules(ctx, h.admin, "", -1, byCode()))
	count, key, clock := hotp("H1"), yubico("Y1"), totp("T1")
	count.Counter = 10
	clock.Drift = 3
	h.give("alice", count, key, clock)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	for _, d := range []*device{count, key, clock} {
		if got := h.token(d.Serial); got.State != tokens.Pending || got.Owner != "alice" {
			t.Fatalf("%s is %s, of %q", d.Serial, got.State, got.Owner)
		}
	}
	at := map[string]int64{"H1": 700, "Y1": 0x0105, "T1": h.clock.now().Unix()/30 + 3}
	for _, d := range []*device{count, key, clock} {
		f := at[d.Serial]
		if h.try("alice", "4711"+d.at(f)) {
			t.Errorf("%s: a code of it is accepted before", d.Serial)
		}
		for what, codes := range map[string][2]string{
			"one code twice":         {d.at(f), d.at(f)},
			"the wrong way round":    {d.at(f + 1), d.at(f)},
			"another's second code":  {d.at(f), totpCode(f)},
			"with the PIN before it": {"4711" + d.at(f), "4711" + d.at(f+1)},
		} {
			_, err := h.Activate(ctx, h.admin, "", d.Serial, codes[0], codes[1])
			if !errors.Is(err, tokens.ErrWrongCode) && !errors.Is(err, tokens.ErrInvalid) {
				t.Errorf("%s, %s: %v", d.Serial, what, err)
			}
			h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
		}
		got, err := h.Activate(ctx, h.admin, "", d.Serial, d.at(f), d.at(f+1))
		if err != nil || got.State != tokens.Active {
			t.Fatalf("%s: %+v, %v", d.Serial, got, err)
		}
		if _, err := h.Activate(ctx, h.admin, "", d.Serial, d.at(f), d.at(f+1)); err != nil || h.last().Reason != string(tokens.ReasonUnchanged) {
			t.Errorf("%s, asked again: %v", d.Serial, err)
		}
		h.ends("alice", "4711"+d.at(f+1), false, tokens.ReasonReplay)
		h.ends("alice", "4711"+d.at(f+2), true, tokens.ReasonAccepted)
	}
	h.intact()
}

// totpCode is a code of no token's.
func totpCode(factor int64) string {
	d := totp("")
	d.seed = []byte("the seed of no token")
	return d.at(factor)
}

func TestWhatWaitsForCodesMovesOnlyOnOrBack(t *testing.T) {
	h := newHouse(t)
	h.must(h.SetRules(ctx, h.admin, "", -1, byCode()))
	d := totp("T1")
	h.give("alice", d)
	h.user("bob")
	for name, err := range map[string]error{
		"suspend": second(h.Suspend(ctx, h.admin, "", "T1", "")),
		"resume":  second(h.Resume(ctx, h.admin, "", "T1", "found")),
		"lost":    second(h.MarkLost(ctx, h.admin, "", "T1", "")),
		"assign":  second(h.Assign(ctx, h.admin, "", "T1", "bob")),
		"resync":  second(h.Resync(ctx, h.admin, "", "T1", d.code(h, 0), d.code(h, 1))),
	} {
		if !errors.Is(err, tokens.ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.Assign(ctx, h.admin, "", "T1", "alice"); err != nil || h.token("T1").State != tokens.Pending {
		t.Errorf("assigned again: %v, and it is %s", err, h.token("T1").State)
	}
	h.must(h.Unassign(ctx, h.admin, "", "T1", "never arrived"))
	if got := h.token("T1"); got.State != tokens.Imported || got.Owner != "" {
		t.Errorf("it is %s, of %q", got.State, got.Owner)
	}
	// A key showed that it works when it was enrolled.
	k := newSeckey("one")
	h.enrol("alice", k)
	h.must(h.Unassign(ctx, h.admin, "", k.serial, ""))
	if got, err := h.Assign(ctx, h.admin, "", k.serial, "alice"); err != nil || got.State != tokens.Active {
		t.Errorf("a key: %s, %v", got.State, err)
	}
	h.must(h.Revoke(ctx, h.admin, "", "T1", ""))
	if _, err := h.Activate(ctx, h.admin, "", "T1", d.code(h, 0), d.code(h, 1)); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a revoked one: %v", err)
	}
	if _, err := h.Activate(ctx, h.admin, "", k.serial, "000000", "111111"); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a key: %v", err)
	}
	h.intact()
}

// byCode are rules under which a token waits for two codes.
func byCode() tokens.Rules {
	return rules(func(r *tokens.Rules) { r.Activation = tokens.ActivateByCode })
}
