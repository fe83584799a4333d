package tokens_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
	"watchword/tokens/storetest"
)

// allow lets the default realm's users have temporary passcodes, five uses a day.
func (h *house) allow() {
	h.Helper()
	r := tokens.DefaultRules()
	r.Temporary.Allow = true
	h.must(h.SetRules(ctx, h.admin, "", -1, r))
}

// recovery makes a recovery sheet.
func (h *house) recovery(user string) (tokens.Token, []string) {
	h.Helper()
	t, codes, err := h.IssueRecovery(ctx, h.admin, "", user)
	if err != nil {
		h.Fatal(err)
	}
	var list []string
	for _, c := range codes {
		list = append(list, string(c))
	}
	return t, list
}

// temporary makes a temporary passcode.
func (h *house) temporary(user string, r tokens.TemporaryRequest) (tokens.Token, string) {
	h.Helper()
	t, code, err := h.IssueTemporary(ctx, h.admin, "", user, r)
	if err != nil {
		h.Fatal(err)
	}
	return t, string(code)
}

// pin sets a user's PIN, which is due or not.
func (h *house) pin(user, pin string, due bool) {
	h.Helper()
	h.must(h.SetPIN(ctx, h.admin, "", user, pin, due))
}

// left is how much is left of a passcode.
func (h *house) left(serial string) int {
	h.Helper()
	t := h.token(serial)
	return t.Left()
}

func detail(r audit.Record, name string) string {
	for _, f := range r.Detail {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// noPasscode is one that nobody has.
const noPasscode = "wxyz-0000-qqqq"

func TestEachCodeOfARecoverySheetIsAcceptedOnce(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	sheet, codes := h.recovery("alice")
	if sheet.Type != tokens.Recovery || sheet.State != tokens.Active || !strings.HasPrefix(sheet.Serial, "R-") || len(sheet.Serial) != 18 ||
		sheet.Left() != 10 || len(codes) != 10 || sheet.Assigned.IsZero() || !sheet.Expires.IsZero() || len(sheet.Wrapped.Blob) != 0 {
		t.Fatalf("%+v, %d codes", sheet, len(codes))
	}
	h.ends("alice", codes[3], true, tokens.ReasonAccepted)
	if r := h.last(); r.Serial != sheet.Serial || detail(r, "number") != "4" || detail(r, "factor") != "" {
		t.Errorf("the audit of it: %+v", r)
	}
	h.ends("alice", codes[3], false, tokens.ReasonReplay)
	h.ends("alice", strings.ToUpper(strings.ReplaceAll(codes[3], "-", " ")), false, tokens.ReasonReplay)
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	if s := h.standing("alice"); s.Failures != 0 {
		t.Errorf("a replay is counted: %+v", s)
	}
	h.ends("alice", strings.ReplaceAll(codes[9], "-", ""), true, tokens.ReasonAccepted)
	h.ends("alice", strings.ReplaceAll(codes[0], "0", "O"), true, tokens.ReasonAccepted)
	h.ends("alice", codes[3], false, tokens.ReasonReplay)
	h.ends("alice", noPasscode, false, tokens.ReasonWrongCode)
	if s := h.standing("alice"); s.Failures != 1 {
		t.Errorf("a wrong passcode is counted %d times", s.Failures)
	}
	if got := h.token(sheet.Serial); got.Left() != 7 || got.Last != 1<<0|1<<3|1<<9 {
		t.Errorf("after three codes: %+v", got.Motion)
	}
	h.user("bob")
	h.ends("bob", codes[1], false, tokens.ReasonNoToken)
	h.recovery("bob")
	h.ends("bob", codes[1], false, tokens.ReasonWrongCode)
	for i, c := range codes {
		h.ends("alice", c, i != 0 && i != 3 && i != 9, map[bool]tokens.Reason{true: tokens.ReasonAccepted, false: tokens.ReasonReplay}[i != 0 && i != 3 && i != 9])
	}
	if got := h.token(sheet.Serial); got.Left() != 0 {
		t.Errorf("%d are left of none", got.Left())
	}
	if n := h.acceptedOnce(); n != 11 {
		t.Errorf("%d accepts in the audit", n)
	}
	h.intact()
}

func TestANewSheetEndsTheOldOne(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	old, before := h.recovery("alice")
	h.ends("alice", before[0], true, tokens.ReasonAccepted)
	now, codes := h.recovery("alice")
	h.ends("alice", before[1], false, tokens.ReasonWrongCode)
	h.ends("alice", before[0], false, tokens.ReasonWrongCode)
	h.ends("alice", codes[0], true, tokens.ReasonAccepted)
	if got := h.token(old.Serial); got.State != tokens.Revoked || len(got.Passcodes) != 0 || got.OwnerID != 0 || got.Left() != 0 || got.Last != 1 {
		t.Errorf("the old sheet: %+v", got)
	}
	_, held, err := h.ShowUser(ctx, h.admin, "", "alice")
	if err != nil || len(held) != 1 || held[0].Serial != now.Serial {
		t.Errorf("%v, %v", held, err)
	}
	made, ended := h.records(string(policy.RecoveryAdd), "ok"), h.records(string(policy.TokenRevoke), "ok")
	if len(made) != 2 || made[0].Serial != now.Serial || made[0].User != "alice" || detail(made[0], "codes") != "10" {
		t.Errorf("the audit of the new sheet: %+v", made)
	}
	if len(ended) != 1 || ended[0].Serial != old.Serial || ended[0].User != "alice" || !strings.Contains(detail(ended[0], "reason"), now.Serial) {
		t.Errorf("the audit of the old sheet: %+v", ended)
	}
	for _, r := range append(made, ended...) {
		for _, c := range append(before, codes...) {
			if s := fmt.Sprint(r); strings.Contains(s, c) || strings.Contains(s, strings.ReplaceAll(c, "-", "")) {
				t.Fatal("a code is in the audit")
			}
		}
	}
	h.intact()
}

func TestThePINGoesBeforeAPasscode(t *testing.T) {
	h := newHouse(t)
	h.allow()
	h.user("alice")
	sheet, codes := h.recovery("alice")
	_, temporary := h.temporary("alice", tokens.TemporaryRequest{})
	h.pin("alice", "4715", false)
	h.ends("alice", codes[0], false, tokens.ReasonNoPIN)
	h.ends("alice", "4716"+codes[0], false, tokens.ReasonWrongPIN)
	h.ends("alice", "4715 "+codes[0], false, tokens.ReasonWrongPIN)
	h.ends("alice", "4716"+temporary, false, tokens.ReasonWrongPIN)
	if s := h.standing("alice"); s.Failures != 4 {
		t.Errorf("%d failures are counted, want 4", s.Failures)
	}
	h.ends("alice", "4715"+codes[0], true, tokens.ReasonAccepted)
	h.ends("alice", "4715"+strings.ToUpper(strings.ReplaceAll(codes[1], "-", "")), true, tokens.ReasonAccepted)
	h.ends("alice", "4715"+codes[0], false, tokens.ReasonReplay)
	h.ends("alice", "4715"+temporary, true, tokens.ReasonAccepted)
	// A passcode that somebody saw is no way to try PINs.
	h.ends("alice", "4716"+codes[0], false, tokens.ReasonWrongPIN)
	if s := h.standing("alice"); s.Failures != 1 {
		t.Errorf("%d failures are counted, want 1", s.Failures)
	}
	// A PIN that anybody else chose must be changed before anything is accepted.
	h.pin("alice", "päss wörd", true)
	h.ends("alice", "päss wörd"+codes[2], false, tokens.ReasonPINDue)
	h.ends("alice", "päss wörd"+temporary, false, tokens.ReasonPINDue)
	if s := h.standing("alice"); s.Failures != 1 {
		t.Errorf("a PIN that is due is counted: %d", s.Failures)
	}
	if got := h.token(sheet.Serial); got.Left() != 8 {
		t.Errorf("%d are left, want 8: nothing is used up while the PIN is due", got.Left())
	}
	h.pin("alice", "", false)
	h.ends("alice", codes[2], true, tokens.ReasonAccepted)
	h.intact()
}

// The letters of a PIN and the digits of an OTP together may end like a passcode:
// then both are tried.
func TestAPINAndACodeThatEndLikeAPasscode(t *testing.T) {
	h := newHouse(t)
	six, eight := totp("T1"), hotp("H1")
	eight.Digits = 8
	h.give("alice", six, eight)
	h.pin("alice", "zebra2x", false)
	_, codes := h.recovery("alice")
	before := h.keys.bindings.Load()
	h.ends("alice", "zebra2x"+six.code(h, 0), true, tokens.ReasonAccepted)
	h.ends("alice", "zebra2x"+eight.at(0), true, tokens.ReasonAccepted)
	if n := h.keys.bindings.Load() - before; n != 4 {
		t.Errorf("%d rows of passcodes were looked at, want 2 each time: the test tries what does not end like one", n)
	}
	h.ends("alice", "zebra2x"+codes[0], true, tokens.ReasonAccepted)
	h.ends("alice", "zebra2x"+codes[0], false, tokens.ReasonReplay)
	h.ends("alice", "zebra2x"+six.code(h, 0), false, tokens.ReasonReplay)
	h.ends("alice", "zebra2x"+six.wrong(h.clock.now().Unix()/30), false, tokens.ReasonWrongCode)
	h.intact()
}

func TestATemporaryPasscodeIsGoodSoOftenAndSoLong(t *testing.T) {
	h := newHouse(t)
	h.allow()
	h.user("alice")
	short, code := h.temporary("alice", tokens.TemporaryRequest{Valid: time.Hour, Uses: 3})
	if short.Type != tokens.Temporary || !strings.HasPrefix(short.Serial, "T-") || short.Left() != 3 || !short.Expires.Equal(start.Add(time.Hour)) {
		t.Fatalf("%+v", short)
	}
	for i := range 3 {
		h.ends("alice", code, true, tokens.ReasonAccepted)
		if r := h.last(); detail(r, "number") != fmt.Sprint(i+1) || r.Serial != short.Serial {
			t.Errorf("use %d: %+v", i+1, r)
		}
	}
	h.ends("alice", code, false, tokens.ReasonUsedUp)
	if s := h.standing("alice"); s.Failures != 0 || h.left(short.Serial) != 0 {
		t.Errorf("after the last use: %+v", s)
	}
	again, next := h.temporary("alice", tokens.TemporaryRequest{})
	h.ends("alice", code, false, tokens.ReasonWrongCode)
	if got := h.token(short.Serial); got.State != tokens.Revoked || len(got.Passcodes) != 0 {
		t.Errorf("the one before: %+v", got)
	}
	h.clock.set(again.Expires.Add(-time.Nanosecond))
	h.ends("alice", next, true, tokens.ReasonAccepted)
	h.clock.set(again.Expires)
	h.ends("alice", next, false, tokens.ReasonExpiredUsed)
	h.ends("alice", noPasscode, false, tokens.ReasonExpiredToken)
	h.ends("alice", "123456", false, tokens.ReasonNoToken)
	h.clock.forward(1000 * time.Hour)
	h.ends("alice", next, false, tokens.ReasonExpiredUsed)
	if n := h.acceptedOnce(); n != 4 {
		t.Errorf("%d accepts in the audit", n)
	}
	h.intact()
}

func TestWhoMayHaveWhichPasscodes(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"))
	_, _, err := h.IssueTemporary(ctx, h.admin, "", "alice", tokens.TemporaryRequest{})
	if !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "temporary.allow") {
		t.Errorf("without a rule: %v", err)
	}
	if _, temporary, code, err := h.Lose(ctx, h.admin, "", "T1", "", &tokens.TemporaryRequest{}); !errors.Is(err, tokens.ErrState) || temporary != nil || code != nil {
		t.Errorf("lost, without a rule: %v", err)
	}
	if got := h.token("T1"); got.State != tokens.Active {
		t.Errorf("the token is %s, and the act was refused", got.State)
	}
	if n := len(h.records(string(policy.TokenLost), "refused")); n != 1 {
		t.Errorf("%d refusals in the audit", n)
	}
	rules := tokens.DefaultRules()
	rules.Temporary, rules.Recovery = tokens.TemporaryRules{Allow: true, Valid: 2 * time.Hour, Uses: 2}, tokens.RecoveryRules{Codes: 32}
	h.must(h.SetRules(ctx, h.admin, "", -1, rules))
	if _, _, err := h.IssueRecovery(ctx, h.admin, "", "alice"); !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "recovery.allow") {
		t.Errorf("recovery codes that are not allowed: %v", err)
	}
	for _, r := range []tokens.TemporaryRequest{{Valid: 3 * time.Hour}, {Uses: 3}, {Valid: time.Second}} {
		if _, _, err := h.IssueTemporary(ctx, h.admin, "", "alice", r); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	rules.Recovery.Allow = true
	h.must(h.SetRules(ctx, h.admin, "", -1, rules))
	sheet, codes := h.recovery("alice")
	if len(codes) != 32 {
		t.Errorf("%d codes", len(codes))
	}
	h.ends("alice", codes[31], true, tokens.ReasonAccepted)
	h.ends("alice", codes[31], false, tokens.ReasonReplay)
	h.ends("alice", codes[0], true, tokens.ReasonAccepted)
	if got := h.token(sheet.Serial); got.Last != 1<<31|1 {
		t.Errorf("%b", got.Last)
	}
	h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled))
	if _, _, err := h.IssueRecovery(ctx, h.admin, "", "alice"); !errors.Is(err, tokens.ErrState) {
		t.Errorf("for a disabled user: %v", err)
	}
	for _, user := range []string{"nobody", "a\x00"} {
		_, _, err1 := h.IssueRecovery(ctx, h.admin, "", user)
		_, _, err2 := h.IssueTemporary(ctx, h.admin, "", user, tokens.TemporaryRequest{})
		if err1 == nil || err2 == nil {
			t.Errorf("for %q: %v, %v", user, err1, err2)
		}
	}
	if _, _, err := h.IssueRecovery(ctx, h.vpn, "", "alice"); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("by a RADIUS client: %v", err)
	}
	other := h.admin
	other.Realm, other.Scope = "corp", policy.ScopeHelpdesk
	if _, _, err := h.IssueTemporary(ctx, other, "default", "alice", tokens.TemporaryRequest{}); err == nil {
		t.Error("by another realm's helpdesk")
	}
	h.intact()
}

// Where it is a rule of the realm that refuses, the audit, the helpdesk's why and the
// story say which, and not that of a token or of what was asked.
func TestARefusalByARuleNamesTheRule(t *testing.T) {
	for rule, c := range map[string]struct {
		edit func(*tokens.Rules)
		do   func(h *house) error
		want error
	}{
		"temporary.allow": {nil, func(h *house) error {
			_, _, err := h.IssueTemporary(ctx, h.admin, "", "alice", tokens.TemporaryRequest{})
			return err
		}, tokens.ErrState},
		"temporary.uses": {func(r *tokens.Rules) { r.Temporary.Allow, r.Temporary.Uses = true, 2 }, func(h *house) error {
			_, _, _, err := h.Lose(ctx, h.admin, "", "T1", "", &tokens.TemporaryRequest{Uses: 3})
			return err
		}, tokens.ErrInvalid},
		"temporary.valid_hours": {func(r *tokens.Rules) { r.Temporary.Allow, r.Temporary.Valid = true, time.Hour }, func(h *house) error {
			_, _, err := h.IssueTemporary(ctx, h.admin, "", "alice", tokens.TemporaryRequest{Valid: 2 * time.Hour})
			return err
		}, tokens.ErrInvalid},
		"recovery.allow": {func(r *tokens.Rules) { r.Recovery.Allow = false }, func(h *house) error {
			_, _, err := h.IssueRecovery(ctx, h.admin, "", "alice")
			return err
		}, tokens.ErrState},
		"max_tokens": {func(r *tokens.Rules) { r.MaxTokens = 1 }, func(h *house) error {
			_, err := h.Assign(ctx, h.admin, "", "T2", "alice")
			return err
		}, tokens.ErrState},
		"pin.min": {func(r *tokens.Rules) { r.PIN.Min = 6 }, func(h *house) error {
			_, err := h.SetPIN(ctx, h.admin, "", "alice", "7395", false)
			return err
		}, tokens.ErrInvalid},
		"pin.sequences": {nil, func(h *house) error {
			_, err := h.SetPIN(ctx, h.admin, "", "alice", "1234", false)
			return err
		}, tokens.ErrInvalid},
	} {
		t.Run(rule, func(t *testing.T) {
			h := newHouse(t)
			h.give("alice", totp("T1"))
			h.ship("", totp("T2"))
			rules := tokens.DefaultRules()
			if c.edit != nil {
				c.edit(&rules)
			}
			h.must(h.SetRules(ctx, h.admin, "", -1, rules))
			if err := c.do(h); !errors.Is(err, c.want) {
				t.Fatalf("it answers %v", err)
			}
			if r := h.last(); r.Outcome != "refused" || r.Reason != string(tokens.ReasonRule) || detail(r, "rule") != rule {
				t.Errorf("audited as %+v", r)
			}
			why, err := h.Why(ctx, h.admin, "", "alice", 1)
			if err != nil || len(why) != 1 || !strings.Contains(why[0].Words, "The realm's rule "+rule+" does not allow it.") || !strings.Contains(why[0].Advice, "realm rules") {
				t.Errorf("why says %+v, %v", why, err)
			}
			story, _, err := h.UserStory(ctx, h.admin, "", "alice", 0, 1)
			if err != nil || len(story) != 1 || !strings.Contains(story[0].Text, "for the realm's rule "+rule+" did not allow it.") {
				t.Errorf("the story says %+v, %v", story, err)
			}
		})
	}
}

func TestALostTokenAndTheTemporaryPasscodeInItsPlace(t *testing.T) {
	h := newHouse(t)
	h.allow()
	d := totp("T1")
	h.give("alice", d)
	lost, temporary, code, err := h.Lose(ctx, h.admin, "", "T1", "left in a taxi", &tokens.TemporaryRequest{Uses: 2})
	if err != nil || lost.State != tokens.Lost || temporary == nil || temporary.Uses != 2 || temporary.Owner != "alice" {
		t.Fatalf("%+v, %+v, %v", lost, temporary, err)
	}
	h.ends("alice", d.code(h, 0), false, tokens.ReasonLostUsed)
	h.ends("alice", string(code), true, tokens.ReasonAccepted)
	gone, made := h.records(string(policy.TokenLost), "ok"), h.records(string(policy.TemporaryAdd), "ok")
	if len(gone) != 1 || gone[0].Serial != "T1" || len(made) != 1 || made[0].Serial != temporary.Serial || made[0].User != "alice" ||
		made[0].Seq != gone[0].Seq+1 || detail(made[0], "uses") != "2" || detail(made[0], "expires") == "" {
		t.Errorf("the audit: %+v, %+v", gone, made)
	}
	// Whoever did not hear the answer asks again, and gets another one.
	_, next, code2, err := h.Lose(ctx, h.admin, "", "T1", "", &tokens.TemporaryRequest{Uses: 2})
	if err != nil || next.Serial == temporary.Serial {
		t.Fatalf("asked again: %+v, %v", next, err)
	}
	h.ends("alice", string(code), false, tokens.ReasonWrongCode)
	h.ends("alice", string(code2), true, tokens.ReasonAccepted)
	// The token is found: what stood in for it ends.
	h.must(h.Resume(ctx, h.admin, "", "T1", "found"))
	h.ends("alice", string(code2), false, tokens.ReasonWrongCode)
	if got := h.token(next.Serial); got.State != tokens.Revoked || len(got.Passcodes) != 0 {
		t.Errorf("after the token was found: %+v", got)
	}
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	// A token that nobody has gives nobody a passcode.
	h.ship("", totp("T2"))
	if _, _, _, err := h.Lose(ctx, h.admin, "", "T2", "", &tokens.TemporaryRequest{}); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a token of nobody's: %v", err)
	}
	if _, _, _, err := h.Lose(ctx, h.admin, "", "T3", "", &tokens.TemporaryRequest{}); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("no token: %v", err)
	}
	h.intact()
}

// A user whose token is lost, and who gets another one, has a token again that works,
// whether that was called replacing or not.
func TestAnotherTokenEndsTheTemporaryPasscode(t *testing.T) {
	h := newHouse(t)
	h.allow()
	h.give("alice", totp("T1"))
	h.ship("", totp("T2"), totp("T3"), hotp("H1"))
	k := newSeckey("alice's")
	h.enrol("alice", k)
	h.must(h.Unassign(ctx, h.admin, "", k.serial, ""))
	lose := func() (tokens.Token, string) {
		t.Helper()
		_, made, code, err := h.Lose(ctx, h.admin, "", "T1", "", &tokens.TemporaryRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return *made, string(code)
	}
	made, code := lose()

	// A key is no use where codes are asked for, and a token that has expired nowhere.
	for _, serial := range []string{k.serial, "T3"} {
		if serial == "T3" {
			h.must(h.SetExpiry(ctx, h.admin, "", serial, start.Add(-time.Hour)))
		}
		got, err := h.Assign(ctx, h.admin, "", serial, "alice")
		if err != nil || len(got.Ended) != 0 {
			t.Fatalf("%s: ended %v, %v", serial, got.Ended, err)
		}
		h.ends("alice", code, true, tokens.ReasonAccepted)
	}

	got, err := h.Assign(ctx, h.admin, "", "T2", "alice")
	if err != nil || !slices.Equal(got.Ended, []string{made.Serial}) {
		t.Fatalf("ended %v, %v", got.Ended, err)
	}
	if say := tokens.Say(policy.TokenAssign, &got, nil, nil); !strings.HasSuffix(say, " Your temporary passcode no longer works.") {
		t.Errorf("the helpdesk says %q", say)
	}
	h.ends("alice", code, false, tokens.ReasonWrongCode)
	if r := h.records(string(policy.TokenRevoke), "ok"); len(r) != 1 || r[0].Serial != made.Serial || detail(r[0], "reason") != "token T2 was assigned" {
		t.Errorf("audited as %+v", r)
	}
	// Asked again, nothing changes: there may be another passcode by now.
	made, code = lose()
	if got, err = h.Assign(ctx, h.admin, "", "T2", "alice"); err != nil || len(got.Ended) != 0 {
		t.Fatalf("asked again: ended %v, %v", got.Ended, err)
	}
	h.ends("alice", code, true, tokens.ReasonAccepted)

	// Where two codes are asked first, the passcode is good until they are shown.
	rules := tokens.DefaultRules()
	rules.Temporary.Allow, rules.Activation = true, tokens.ActivateByCode
	if _, err := h.SetRules(ctx, h.admin, "", -1, rules); err != nil {
		t.Fatal(err)
	}
	if got, err = h.Assign(ctx, h.admin, "", "H1", "alice"); err != nil || got.State != tokens.Pending || len(got.Ended) != 0 {
		t.Fatalf("%s, ended %v, %v", got.State, got.Ended, err)
	}
	if h.token(made.Serial).State != tokens.Active {
		t.Error("a token that waits for its codes ended the passcode")
	}
	h.intact()
}

func TestTheLifeOfAPasscode(t *testing.T) {
	h := newHouse(t)
	h.allow()
	h.user("alice")
	h.user("bob")
	sheet, codes := h.recovery("alice")
	temporary, code := h.temporary("alice", tokens.TemporaryRequest{})
	for _, serial := range []string{sheet.Serial, temporary.Serial} {
		if _, err := h.Unassign(ctx, h.admin, "", serial, ""); !errors.Is(err, tokens.ErrState) {
			t.Errorf("unassign: %v", err)
		}
		if _, err := h.Assign(ctx, h.admin, "", serial, "bob"); !errors.Is(err, tokens.ErrState) {
			t.Errorf("assign to another: %v", err)
		}
		if _, err := h.Resync(ctx, h.admin, "", serial, codes[0], codes[1]); !errors.Is(err, tokens.ErrState) || strings.Contains(err.Error(), codes[0]) {
			t.Errorf("resync: %v", err)
		}
	}
	h.must(h.Suspend(ctx, h.admin, "", sheet.Serial, ""))
	h.ends("alice", codes[0], false, tokens.ReasonSuspendedUsed)
	h.ends("alice", code, true, tokens.ReasonAccepted)
	h.must(h.Resume(ctx, h.admin, "", sheet.Serial, ""))
	h.ends("alice", codes[0], true, tokens.ReasonAccepted)
	h.ends("alice", code, true, tokens.ReasonAccepted) // a sheet is no token that works again
	h.must(h.MarkLost(ctx, h.admin, "", sheet.Serial, ""))
	h.ends("alice", codes[1], false, tokens.ReasonLostUsed)
	if _, err := h.Resume(ctx, h.admin, "", sheet.Serial, "found"); !errors.Is(err, tokens.ErrState) {
		t.Errorf("resuming a sheet that was lost: %v", err)
	}
	h.must(h.Revoke(ctx, h.admin, "", sheet.Serial, ""))
	h.ends("alice", codes[1], false, tokens.ReasonWrongCode)
	if got := h.token(sheet.Serial); len(got.Passcodes) != 0 || got.State != tokens.Revoked {
		t.Errorf("revoked: %+v", got)
	}
	// Passcodes are not counted among the tokens that a user may hold.
	var list []*device
	for i := range tokens.MaxTokensPerUser {
		list = append(list, totp(fmt.Sprintf("T%d", i)))
	}
	h.recovery("alice")
	h.give("alice", list...)
	h.recovery("alice")
	h.intact()
}

func TestAnAlteredRowOfAPasscodeIsTampering(t *testing.T) {
	h := newHouse(t)
	h.allow()
	h.user("alice")
	h.user("bob")
	sheet, codes := h.recovery("alice")
	stopgap, code := h.temporary("alice", tokens.TemporaryRequest{Uses: 2})
	other, theirs := h.recovery("bob")
	h.ends("alice", codes[0], true, tokens.ReasonAccepted)
	for name, c := range map[string]struct {
		serial, typed string
		edit          func(*tokens.Token)
	}{
		"another's codes":         {sheet.Serial, theirs[0], func(t *tokens.Token) { t.Passcodes = other.Passcodes }},
		"one of another's codes":  {sheet.Serial, codes[1], func(t *tokens.Token) { t.Passcodes[9] = other.Passcodes[9] }},
		"one more":                {sheet.Serial, codes[1], func(t *tokens.Token) { t.Passcodes = append(t.Passcodes, other.Passcodes[0]) }},
		"one less":                {sheet.Serial, codes[1], func(t *tokens.Token) { t.Passcodes = t.Passcodes[:9] }},
		"another order":           {sheet.Serial, codes[0], func(t *tokens.Token) { t.Passcodes[0], t.Passcodes[1] = t.Passcodes[1], t.Passcodes[0] }},
		"none":                    {sheet.Serial, codes[1], func(t *tokens.Token) { t.Passcodes = nil }},
		"a bit out of range":      {sheet.Serial, codes[1], func(t *tokens.Token) { t.Last = 1 << 40 }},
		"a negative mask":         {sheet.Serial, codes[1], func(t *tokens.Token) { t.Last = -1 << 63 }},
		"negative digits":         {sheet.Serial, codes[1], func(t *tokens.Token) { t.Digits = -6 }},
		"another owner":           {sheet.Serial, codes[1], func(t *tokens.Token) { t.OwnerID++ }},
		"an expiry":               {sheet.Serial, codes[1], func(t *tokens.Token) { t.Expires = start.Add(time.Hour) }},
		"temporary, for ever":     {stopgap.Serial, code, func(t *tokens.Token) { t.Expires = time.Time{} }},
		"temporary, longer":       {stopgap.Serial, code, func(t *tokens.Token) { t.Expires = t.Expires.Add(time.Microsecond) }},
		"temporary, more uses":    {stopgap.Serial, code, func(t *tokens.Token) { t.Uses++ }},
		"temporary, less uses":    {stopgap.Serial, code, func(t *tokens.Token) { t.Uses-- }},
		"a sheet of one code":     {stopgap.Serial, code, func(t *tokens.Token) { t.Type, t.Uses = tokens.Recovery, 0 }},
		"no binding":              {stopgap.Serial, code, func(t *tokens.Token) { t.Binding = nil }},
		"used more than possible": {stopgap.Serial, code, func(t *tokens.Token) { t.Last = 3 }},
	} {
		h.db.edit(func(d *editor) {
			d.token = func(t *tokens.Token) {
				if t.Serial == c.serial {
					edit := *t
					edit.Passcodes = append([][]byte(nil), t.Passcodes...)
					c.edit(&edit)
					*t = edit
				}
			}
		})
		if h.try("alice", c.typed) {
			t.Errorf("%s: accepted", name)
		}
		if r := h.last(); r.Reason != string(tokens.ReasonTampered) {
			t.Errorf("%s: %s", name, r.Reason)
		}
		if s := h.standing("alice"); s.Failures > 5 {
			h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
		}
	}
	// It can be ended all the same.
	h.db.edit(func(d *editor) {
		d.token = func(t *tokens.Token) {
			if t.Serial == sheet.Serial {
				t.Uses = 7
			}
		}
	})
	h.recovery("alice")
	h.db.edit(func(d *editor) { d.token = nil })
	if got := h.token(sheet.Serial); got.State != tokens.Revoked || len(got.Binding) != 0 {
		t.Errorf("an altered sheet that was replaced: %+v", got)
	}
	h.ends("alice", code, true, tokens.ReasonAccepted)
	h.intact()
}

// What ends like a passcode costs two MACs of passcodes and two of rows, and for
// what goes before it as many of PINs, for everybody: whoever has passcodes, has
// none, is barred, or is unknown. What does not end like one costs nothing more.
func TestAPasscodeCostsTheSameForEverybody(t *testing.T) {
	h := newHouse(t)
	h.allow()
	h.give("both", totp("T1"))
	h.give("sheet", totp("T2"))
	h.give("stopgap", totp("T3"))
	h.give("none", totp("T4"))
	h.give("locked", totp("T5"))
	h.give("due", totp("T6"))
	h.give("lost", totp("T7"))
	h.user("only")
	h.user("tokenless")
	codes := map[string][]string{}
	for _, user := range []string{"both", "sheet", "locked", "due", "only", "lost"} {
		_, codes[user] = h.recovery(user)
	}
	_, stopgap := h.temporary("stopgap", tokens.TemporaryRequest{})
	_, both := h.temporary("both", tokens.TemporaryRequest{Valid: time.Minute, Uses: 1})
	h.must(h.SetUserState(ctx, h.admin, "", "locked", tokens.UserDisabled))
	h.pin("due", "4715", true)
	for _, token := range h.held("lost") {
		h.must(h.MarkLost(ctx, h.admin, "", token.Serial, ""))
	}
	h.ends("both", both, true, tokens.ReasonAccepted)
	h.ends("both", codes["both"][0], true, tokens.ReasonAccepted)
	for _, c := range []struct {
		user, typed string
		reason      tokens.Reason
		pins        int64 // MACs under KeyPIN, of PINs and passcodes
		rows        int64
	}{
		// For the TOTP token's reading something is typed before the code: a MAC of a PIN.
		{"both", codes["both"][1], tokens.ReasonAccepted, 3, 2},
		{"both", codes["both"][0], tokens.ReasonReplay, 3, 2},
		{"both", both, tokens.ReasonUsedUp, 3, 2},
		{"both", noPasscode, tokens.ReasonWrongCode, 3, 2},
		{"sheet", codes["sheet"][0], tokens.ReasonAccepted, 3, 2},
		{"sheet", noPasscode, tokens.ReasonWrongCode, 3, 2},
		{"stopgap", stopgap, tokens.ReasonAccepted, 3, 2},
		{"stopgap", noPasscode, tokens.ReasonWrongCode, 3, 2},
		{"only", codes["only"][0], tokens.ReasonAccepted, 3, 2},
		{"only", noPasscode, tokens.ReasonWrongCode, 3, 2},
		{"none", noPasscode, tokens.ReasonWrongCode, 3, 2},
		{"locked", codes["locked"][0], tokens.ReasonDisabled, 3, 2},
		{"lost", codes["lost"][0], tokens.ReasonLostUsed, 3, 2},
		{"tokenless", noPasscode, tokens.ReasonNoToken, 3, 2},
		{"nobody", noPasscode, tokens.ReasonUnknownUser, 3, 2},
		{strings.Repeat("x", 1000), noPasscode, tokens.ReasonUnknownUser, 3, 2},
		{"due", "4715" + codes["due"][0], tokens.ReasonPINDue, 5, 2},
		{"both", "4715" + noPasscode, tokens.ReasonWrongCode, 5, 2},
		{"none", "4715" + noPasscode, tokens.ReasonWrongCode, 5, 2},
		{"tokenless", "4715" + noPasscode, tokens.ReasonNoToken, 5, 2},
		{"nobody", "4715" + noPasscode, tokens.ReasonUnknownUser, 5, 2},
		// No passcodes:
		{"both", "000000", tokens.ReasonWrongCode, 0, 0},
		{"only", "000000", tokens.ReasonNoToken, 0, 0},
		{"both", "123456000000", tokens.ReasonWrongCode, 1, 0},
		{"only", "123456000000", tokens.ReasonNoToken, 1, 0},
		{"nobody", "123456000000", tokens.ReasonUnknownUser, 1, 0},
	} {
		pins, rows, factors, blocks := h.keys.pins.Load(), h.keys.bindings.Load(), h.keys.factors.Load(), h.keys.blocks.Load()
		h.ends(c.user, c.typed, c.reason == tokens.ReasonAccepted, c.reason)
		p, r, f, b := h.keys.pins.Load()-pins, h.keys.bindings.Load()-rows, h.keys.factors.Load()-factors, h.keys.blocks.Load()-blocks
		if p != c.pins || r != c.rows || f != 3 || b != 0 {
			t.Errorf("%.10s, %.4s..., %s: %d MACs of PINs and passcodes, %d of rows, %d HMACs, %d decryptions; want %d, %d, 3, 0", c.user, c.typed, c.reason, p, r, f, b, c.pins, c.rows)
		}
	}
}

// held are the tokens that a user has.
func (h *house) held(user string) []tokens.Token {
	h.Helper()
	_, list, err := h.ShowUser(ctx, h.admin, "", user)
	if err != nil {
		h.Fatal(err)
	}
	return list
}

// useAtOnce has so many clients use one code at once, on two nodes, and says how
// many were let in.
func (h *house) useAtOnce(services []*tokens.Service, user, code string, clients int) int64 {
	h.Helper()
	var a answers
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() { h.ask(&a, services[i%len(services)], h.vpn, user, code) })
	}
	all.Wait()
	if a.accepted.Load()+a.rejected.Load() != int64(clients) {
		h.Errorf("%v of %d", &a, clients)
	}
	return a.accepted.Load()
}

func TestOnePasscodeManyTimesAtOnce(t *testing.T) {
	h := newHouse(t)
	h.allow()
	services := []*tokens.Service{h.Service, h.node(&firsts{})}
	h.usePasscodesAtOnce(services)
}

// The same on a real HSM, behind a driver with sessions.
func TestOnSoftHSMOnePasscodeManyTimesAtOnce(t *testing.T) {
	softhsm, _ := hsmtest.SoftHSM(t)
	mem := storetest.NewMemory(t)
	h := &house{TB: t, mem: mem, db: &editor{Memory: mem}, keys: &meter{Keystore: softhsm}, clock: &clock{}, log: &lockedBuffer{}}
	h.clock.set(start)
	h.open()
	h.allow()
	h.usePasscodesAtOnce([]*tokens.Service{h.Service})
}

func (h *house) usePasscodesAtOnce(services []*tokens.Service) {
	h.Helper()
	h.give("alice", totp("T1"))
	h.pin("alice", "4715", false)
	sheet, codes := h.recovery("alice")
	temporary, code := h.temporary("alice", tokens.TemporaryRequest{Uses: 3})
	for i := range 3 {
		if n := h.useAtOnce(services, "alice", "4715"+codes[i], 64); n != 1 {
			h.Errorf("recovery code %d was accepted %d times", i+1, n)
		}
	}
	if n := h.useAtOnce(services, "alice", "4715"+code, 64); n != 3 {
		h.Errorf("the temporary passcode was accepted %d times, want 3", n)
	}
	// All the others of the sheet at once.
	var a answers
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() { h.ask(&a, services[i%len(services)], h.vpn, "alice", "4715"+codes[3+i%7]) })
	}
	all.Wait()
	if a.accepted.Load() != 7 {
		h.Errorf("seven codes at once: %v", &a)
	}
	if h.left(sheet.Serial) != 0 || h.left(temporary.Serial) != 0 {
		h.Errorf("something is left: %+v, %+v", h.token(sheet.Serial).Motion, h.token(temporary.Serial).Motion)
	}
	if n := h.acceptedOnce(); n != 13 {
		h.Errorf("%d accepts in the audit, want 13", n)
	}
	h.intact()
}

// Whatever is told of commits that fail, or fail after they were made, no code of a
// sheet is accepted twice.
func TestNoPasscodeIsAcceptedTwiceByCommitsThatFail(t *testing.T) {
	h := newHouse(t)
	other := h.node(&firsts{})
	h.user("alice")
	_, codes := h.recovery("alice")
	for i := range 60 {
		h.mem.Inject([]storetest.Fault{storetest.None, storetest.Failed, storetest.FailedButPersisted, storetest.Conflict}[i%4])
	}
	for _, c := range codes {
		n := 0
		for try := range 6 {
			var a answers
			if h.ask(&a, []*tokens.Service{h.Service, other}[try%2], h.vpn, "alice", c) {
				n++
			}
		}
		if n > 1 {
			t.Errorf("a code was accepted %d times", n)
		}
	}
	h.acceptedOnce()
	h.intact()
}

func TestNothingIsAcceptedAfterAPasscodeEnded(t *testing.T) {
	h := newHouse(t)
	h.allow()
	rules := tokens.DefaultRules()
	rules.Temporary = tokens.TemporaryRules{Allow: true, Valid: time.Hour, Uses: 100}
	h.must(h.SetRules(ctx, h.admin, "", -1, rules))
	h.give("alice", totp("T1"))
	h.must(h.MarkLost(ctx, h.admin, "", "T1", ""))
	_, code := h.temporary("alice", tokens.TemporaryRequest{})
	var all sync.WaitGroup
	var mu sync.Mutex
	returned := false
	for range 4 {
		all.Go(func() {
			for range 25 {
				mu.Lock()
				late := returned
				mu.Unlock()
				var a answers
				if h.ask(&a, h.Service, h.vpn, "alice", code) && late {
					t.Error("accepted after the token was there again")
				}
			}
		})
	}
	h.must(h.Resume(ctx, h.admin, "", "T1", "found"))
	mu.Lock()
	returned = true
	mu.Unlock()
	all.Wait()
	h.nothingAfter(string(policy.TokenResume), "alice")
	h.acceptedOnce()
	h.intact()
}

func TestAFaultNeverAcceptsAPasscode(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	_, codes := h.recovery("alice")
	h.keys.memory().Fail(errors.New("unplugged"))
	for _, user := range []string{"alice", "nobody"} {
		if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: user, Code: codes[0]}); r.Accept || !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("%s: %+v, %v", user, r, err)
		}
	}
	if _, _, err := h.IssueRecovery(ctx, h.admin, "", "alice"); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("a new sheet: %v", err)
	}
	h.keys.memory().Heal()
	h.ends("alice", codes[0], true, tokens.ReasonAccepted)
}

// rowsFail is an HSM that answers all but the MACs of rows.
type rowsFail struct{ tokens.Custody }

func (r rowsFail) MAC(ctx context.Context, key hsm.KeyName, messages ...[]byte) ([][]byte, error) {
	if key == hsm.KeyBinding && bytes.Contains(messages[0], []byte("recovery")) && len(messages) == 2 {
		return nil, fmt.Errorf("%w: busy", hsm.ErrUnavailable)
	}
	return r.Custody.MAC(ctx, key, messages...)
}

func TestAPasscodeWhoseRowCannotBeProvenIsNotAccepted(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	_, codes := h.recovery("alice")
	broken := h.node(&firsts{}, func(c *tokens.Config) { c.Custody = rowsFail{c.Custody} })
	for _, user := range []string{"alice", "nobody"} {
		if r, err := broken.Verify(ctx, h.vpn, tokens.Attempt{User: user, Code: codes[0]}); r.Accept || !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("%s: %+v, %v", user, r, err)
		}
	}
	h.ends("alice", codes[0], true, tokens.ReasonAccepted)
}

// While the clocks differ nobody knows what has expired.
func TestNothingThatExpiresIsAcceptedWhileClocksDiffer(t *testing.T) {
	h := newHouse(t)
	h.allow()
	d := hotp("H1")
	h.give("alice", d)
	h.user("bob2")
	_, code := h.temporary("bob2", tokens.TemporaryRequest{})
	h.must(h.SetExpiry(ctx, h.admin, "", "H1", start.Add(time.Hour)))
	h.db.edit(func(e *editor) { e.clock = func() time.Time { return h.clock.now().Add(time.Minute) } })
	for user, typed := range map[string]string{"alice": d.at(0), "bob2": code, "nobody": code} {
		if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: user, Code: typed}); !errors.Is(err, tokens.ErrUnavailable) || r.Accept {
			t.Errorf("%s: %+v, %v", user, r, err)
		}
	}
	h.db.edit(func(e *editor) { e.clock = h.clock.now })
	h.ends("alice", d.at(0), true, tokens.ReasonAccepted)
	h.ends("bob2", code, true, tokens.ReasonAccepted)
}

// What is not bound can be set back in the database; the audit shows it, also where
// the two accepts are in the chains of two nodes.
func TestTheAuditShowsThatAPasscodeWasSetBack(t *testing.T) {
	for name, twoNodes := range map[string]bool{"one node": false, "two nodes": true} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.allow()
			h.user("alice")
			sheet, codes := h.recovery("alice")
			temporary, code := h.temporary("alice", tokens.TemporaryRequest{Uses: 3})
			h.ends("alice", codes[4], true, tokens.ReasonAccepted)
			h.ends("alice", code, true, tokens.ReasonAccepted)
			h.ends("alice", code, true, tokens.ReasonAccepted)
			h.ends("alice", codes[1], true, tokens.ReasonAccepted)
			h.intact()
			s := h.Service
			if twoNodes {
				s = h.node(&firsts{})
			}
			h.db.edit(func(d *editor) {
				d.token = func(t *tokens.Token) { t.Last &^= 1 << 4 }
			})
			again := func(code string) {
				t.Helper()
				if r, err := s.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: code}); err != nil || !r.Accept {
					t.Fatalf("%+v, %v: the row is as it was before, and nothing shows that it was not", r, err)
				}
			}
			again(codes[4])
			h.db.edit(func(d *editor) {
				d.token = func(t *tokens.Token) {
					if t.Type == tokens.Temporary {
						t.Last = 1
					}
				}
			})
			again(code)
			h.db.edit(func(d *editor) { d.token = nil })
			report, err := h.VerifyAudit(ctx, h.admin)
			all := strings.Join(report.Problems, "\n")
			if err != nil || report.Intact || len(report.Problems) != 2 || !strings.Contains(all, "number 5 of passcode "+sheet.Serial) ||
				!strings.Contains(all, "number 2 of passcode "+temporary.Serial) {
				t.Errorf("%v, %s", err, all)
			}
		})
	}
}
