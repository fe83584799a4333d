package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
)

func TestReplacingGivesTheOwnerTheOtherTokenInOneCommit(t *testing.T) {
	for _, state := range []tokens.State{tokens.Active, tokens.Suspended, tokens.Lost} {
		t.Run(string(state), func(t *testing.T) {
			h := newHouse(t)
			a, b := totp("T1"), hotp("H1")
			h.give("alice", a)
			h.ship("", b)
			h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
			switch state {
			case tokens.Suspended:
				h.must(h.Suspend(ctx, h.admin, "", "T1", ""))
			case tokens.Lost:
				h.must(h.MarkLost(ctx, h.admin, "", "T1", ""))
			}
			before := len(h.records("", ""))
			old, next, err := h.Replace(ctx, h.admin, "", "T1", "H1", "the display is broken")
			if err != nil {
				t.Fatal(err)
			}
			if old.Serial != "T1" || old.State != tokens.Revoked || old.Owner != "" || len(old.Wrapped.Blob) > 0 {
				t.Errorf("the old one is %+v", old)
			}
			if next.Serial != "H1" || next.State != tokens.Active || next.Owner != "alice" || !next.Assigned.Equal(h.clock.now()) {
				t.Errorf("the other one is %+v", next)
			}
			stored := h.token("H1")
			if got := h.token("T1"); got.State != tokens.Revoked || stored.Owner != "alice" || stored.State != tokens.Active {
				t.Errorf("stored are %s and %s of %q", got.State, stored.State, stored.Owner)
			}
			// The story of each is complete.
			list := h.records("", "")
			if len(list) != before+2 || list[1].Action != "token.replace" || list[1].Serial != "T1" || list[1].User != "alice" ||
				list[0].Action != "token.assign" || list[0].Serial != "H1" || list[0].User != "alice" {
				t.Errorf("audited as %+v", list[:2])
			}
			h.ends("alice", "4711"+a.code(h, 0), false, tokens.ReasonWrongCode)
			h.ends("alice", "4711"+b.at(0), true, tokens.ReasonAccepted)

			// The answer was lost, and somebody asks again.
			version := h.standing("alice").Version
			old, next, err = h.Replace(ctx, h.admin, "", "T1", "H1", "the display is broken")
			if err != nil || old.State != tokens.Revoked || next.Owner != "alice" || h.last().Reason != string(tokens.ReasonUnchanged) || h.standing("alice").Version != version {
				t.Errorf("asked again: %s, %q, %v, %s", old.State, next.Owner, err, h.last().Reason)
			}
			// Since then it went to somebody else.
			h.must(h.Unassign(ctx, h.admin, "", "H1", ""))
			h.user("bob")
			h.must(h.Assign(ctx, h.admin, "", "H1", "bob"))
			if _, _, err := h.Replace(ctx, h.admin, "", "T1", "H1", ""); !errors.Is(err, tokens.ErrState) {
				t.Errorf("when it is another's: %v", err)
			}
			h.intact()
		})
	}
}

func TestWhatCannotReplaceOrBeReplacedIsRefusedAndNothingChanges(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"), totp("T2"))
	h.give("bob", totp("T3"))
	h.ship("", totp("T4"), totp("T5"), totp("T6"))
	k := newSeckey("bob's")
	h.enrol("bob", k)
	h.must(h.Unassign(ctx, h.admin, "", k.serial, ""))
	h.must(h.Revoke(ctx, h.admin, "", "T6", ""))
	before := h.snapshot("")
	for what, c := range map[string]struct {
		old, by string
		want    error
	}{
		"by itself":            {"T1", "T1", tokens.ErrInvalid},
		"by one's own":         {"T1", "T2", tokens.ErrState},
		"by another's":         {"T1", "T3", tokens.ErrState},
		"by another's key":     {"T1", k.serial, tokens.ErrState},
		"by a revoked one":     {"T1", "T6", tokens.ErrState},
		"by none":              {"T1", "T9", tokens.ErrNotFound},
		"by no serial":         {"T1", "a b", tokens.ErrNotFound},
		"nobody's":             {"T4", "T5", tokens.ErrState},
		"one that was revoked": {"T6", "T5", tokens.ErrState},
		"none":                 {"T9", "T5", tokens.ErrNotFound},
		"no serial":            {"", "T5", tokens.ErrNotFound},
	} {
		if _, _, err := h.Replace(ctx, h.admin, "", c.old, c.by, ""); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
	}
	if _, _, err := h.Replace(ctx, h.admin, "", "T1", "T4", strings.Repeat("x", 501)); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("a long reason: %v", err)
	}
	for what, serial := range map[string]string{"the old one": "T1", "the other one": "T4"} {
		h.db.edit(func(e *editor) {
			e.token = func(t *tokens.Token) {
				if t.Serial == serial {
					t.Wrapped.Blob[0] ^= 1
				}
			}
		})
		if _, _, err := h.Replace(ctx, h.admin, "", "T1", "T4", ""); !errors.Is(err, tokens.ErrTampered) {
			t.Errorf("%s was altered: %v", what, err)
		}
		h.db.edit(func(e *editor) { e.token = nil })
	}
	if after := h.snapshot(""); after != before {
		t.Errorf("changed:\n%s\n%s", before, after)
	}
	h.intact()
}

func TestAReplacementWaitsForItsCodesWhereTheRulesSaySo(t *testing.T) {
	h := newHouse(t)
	h.must(h.SetRules(ctx, h.admin, "", -1, rules(func(r *tokens.Rules) { r.MaxTokens = 1 })))
	a, b := totp("T1"), totp("T2")
	h.give("alice", a)
	h.ship("", b)
	h.must(h.SetRules(ctx, h.admin, "", -1, rules(func(r *tokens.Rules) { r.MaxTokens, r.Activation = 1, tokens.ActivateByCode })))
	_, next, err := h.Replace(ctx, h.admin, "", "T1", "T2", "")
	if err != nil || next.State != tokens.Pending {
		t.Fatalf("%+v, %v", next, err)
	}
	h.ends("alice", b.code(h, 0), false, tokens.ReasonNoToken)
	h.must(h.Activate(ctx, h.admin, "", "T2", b.code(h, 0), b.code(h, 1)))
	h.ends("alice", b.code(h, 1), false, tokens.ReasonReplay)
	h.ends("alice", b.code(h, 2), true, tokens.ReasonAccepted)
	h.intact()
}

func TestTheNextOwnerInheritsNothing(t *testing.T) {
	h := newHouse(t)
	clock, count, far := totp("T1"), hotp("H1"), totp("T2")
	far.Drift = -31_556_160 // it counts from the year 2000
	h.give("alice", clock, count, far)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	h.must(h.Resync(ctx, h.admin, "", "T1", clock.code(h, 40), clock.code(h, 41)))
	h.ends("alice", "4711"+count.at(5), true, tokens.ReasonAccepted)
	h.ends("alice", "4711"+far.code(h, -31_556_159), true, tokens.ReasonAccepted)
	h.try("alice", "4711000000")
	h.user("bob")
	for _, serial := range []string{"T1", "H1", "T2"} {
		was := h.token(serial)
		got, err := h.Unassign(ctx, h.admin, "", serial, "left")
		if err != nil || !got.Assigned.IsZero() {
			t.Fatalf("%+v, %v", got, err)
		}
		h.must(h.Assign(ctx, h.admin, "", serial, "bob"))
		if now := h.token(serial); now.UsedAt != 0 || now.Last != was.Last || serial == "T1" && now.Drift != 0 {
			t.Errorf("%s: %+v became %+v", serial, was.Motion, now.Motion)
		}
	}
	if s := h.standing("bob"); s.Failures != 0 || len(s.Throttle) != 0 {
		t.Errorf("bob has %+v", s)
	}
	if s := h.standing("alice"); s.Failures != 1 {
		t.Errorf("alice has %+v", s)
	}
	// What was consumed stays consumed, and no PIN is asked for.
	h.ends("bob", count.at(5), false, tokens.ReasonReplay)
	h.ends("bob", count.at(6), true, tokens.ReasonAccepted)
	// The clock stands where it stood; it is looked for again.
	h.ends("bob", clock.code(h, 42), false, tokens.ReasonWrongCode)
	h.must(h.Resync(ctx, h.admin, "", "T1", clock.code(h, 42), clock.code(h, 43)))
	h.ends("bob", far.code(h, -31_556_158), true, tokens.ReasonAccepted)
	h.intact()
}

func TestAnExpiryIsSetTakenBackAndKept(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"))
	h.ship("", totp("T2"))
	at := h.clock.now().Add(time.Hour + 1234*time.Nanosecond)
	for _, serial := range []string{"T1", "T2"} {
		got, err := h.SetExpiry(ctx, h.admin, "", serial, at)
		if want := at.UTC().Truncate(time.Microsecond); err != nil || got.Expires != want || !h.token(serial).Expires.Equal(want) {
			t.Errorf("%s: %v, %v", serial, got.Expires, err)
		}
		if _, err := h.SetExpiry(ctx, h.admin, "", serial, at); err != nil || h.last().Reason != string(tokens.ReasonUnchanged) {
			t.Errorf("%s, again: %v", serial, err)
		}
	}
	for what, bad := range map[string]time.Time{"1969": time.Date(1969, 1, 1, 0, 0, 0, 0, time.UTC), "10000": time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if _, err := h.SetExpiry(ctx, h.admin, "", "T1", bad); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.must(h.Suspend(ctx, h.admin, "", "T1", ""))
	h.must(h.Unassign(ctx, h.admin, "", "T1", ""))
	h.user("bob")
	if got, err := h.Assign(ctx, h.admin, "", "T1", "bob"); err != nil || !got.Expires.Equal(at.Truncate(time.Microsecond)) {
		t.Errorf("the expiry is %v, %v", got.Expires, err)
	}
	if got, err := h.SetExpiry(ctx, h.admin, "", "T1", time.Time{}); err != nil || !got.Expires.IsZero() || !h.token("T1").Expires.IsZero() {
		t.Errorf("taken back: %v, %v", got.Expires, err)
	}
	h.must(h.Revoke(ctx, h.admin, "", "T1", ""))
	if _, err := h.SetExpiry(ctx, h.admin, "", "T1", at); !errors.Is(err, tokens.ErrState) {
		t.Errorf("of a revoked token: %v", err)
	}
	h.db.edit(func(e *editor) { e.token = func(t *tokens.Token) { t.Wrapped.Blob[0] ^= 1 } })
	if _, err := h.SetExpiry(ctx, h.admin, "", "T2", time.Time{}); !errors.Is(err, tokens.ErrTampered) {
		t.Errorf("of an altered row: %v", err)
	}
	h.intact()
}

func TestNotesAndTagsStayWithTheToken(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"))
	text := "box 7\r\nscratched "
	got, err := h.Annotate(ctx, h.admin, "", "T1", tokens.NoteEdit{Note: &text, Add: []string{"Blue", "spare", "blue"}})
	if err != nil || got.Note != "box 7\nscratched" || !slices.Equal(got.Tags, []string{"blue", "spare"}) {
		t.Fatalf("%q, %q, %v", got.Note, got.Tags, err)
	}
	if r := h.last(); r.Action != "token.note" || r.Serial != "T1" || r.User != "alice" {
		t.Errorf("audited as %+v", r)
	}
	if _, err := h.Annotate(ctx, h.admin, "", "T1", tokens.NoteEdit{Note: &text, Add: []string{"blue"}, Drop: []string{"red"}}); err != nil || h.last().Reason != string(tokens.ReasonUnchanged) {
		t.Errorf("again: %v", err)
	}
	got, err = h.Annotate(ctx, h.admin, "", "T1", tokens.NoteEdit{Drop: []string{"SPARE"}})
	if err != nil || got.Note != "box 7\nscratched" || !slices.Equal(got.Tags, []string{"blue"}) {
		t.Fatalf("%q, %q, %v", got.Note, got.Tags, err)
	}
	// They stay, whatever becomes of the token, and each act answers with them.
	for _, act := range []struct {
		name string
		do   func(ctx context.Context, p tokens.Principal, realm, serial, reason string) (tokens.Token, error)
	}{{"suspend", h.Suspend}, {"revoke", h.Revoke}} {
		if got, err := act.do(ctx, h.admin, "", "T1", ""); err != nil || got.Note == "" || !slices.Equal(got.Tags, []string{"blue"}) {
			t.Errorf("%s: %q, %q, %v", act.name, got.Note, got.Tags, err)
		}
	}
	if got, err := h.ShowToken(ctx, h.admin, "", "T1"); err != nil || got.Note == "" || len(got.Tags) != 1 {
		t.Errorf("shown: %q, %q, %v", got.Note, got.Tags, err)
	}
	var many []string
	for i := range 31 {
		many = append(many, fmt.Sprint("n", i))
	}
	h.must(h.Annotate(ctx, h.admin, "", "T1", tokens.NoteEdit{Add: many}))
	if _, err := h.Annotate(ctx, h.admin, "", "T1", tokens.NoteEdit{Add: []string{"onemore"}}); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a 33rd tag: %v", err)
	}
	long, control := strings.Repeat("x", 1001), "a\tb"
	for what, bad := range map[string]tokens.NoteEdit{
		"nothing":        {},
		"a long note":    {Note: &long},
		"a control":      {Note: &control},
		"an empty tag":   {Add: []string{""}},
		"a space":        {Add: []string{"a b"}},
		"a long tag":     {Add: []string{strings.Repeat("x", 33)}},
		"another letter": {Drop: []string{"grün"}},
		"both":           {Add: []string{"a"}, Drop: []string{"A"}},
	} {
		if _, err := h.Annotate(ctx, h.admin, "", "T1", bad); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.intact()
}

// A temporary passcode stands in for the lost token until its owner has another one
// that works, and not longer.
func TestATemporaryPasscodeLivesUntilTheReplacementWorks(t *testing.T) {
	for _, activation := range []tokens.Activation{tokens.ActivateAtOnce, tokens.ActivateByCode} {
		t.Run(string(activation), func(t *testing.T) {
			h := newHouse(t)
			a, b := totp("T1"), totp("T2")
			h.give("alice", a)
			h.ship("", b)
			h.must(h.SetRules(ctx, h.admin, "", -1, rules(func(r *tokens.Rules) { r.Temporary.Allow, r.Activation = true, activation })))
			_, temporary, code, err := h.Lose(ctx, h.admin, "", "T1", "left in a taxi", &tokens.TemporaryRequest{})
			if err != nil {
				t.Fatal(err)
			}
			h.ends("alice", string(code), true, tokens.ReasonAccepted)
			old, next, err := h.Replace(ctx, h.admin, "", "T1", "T2", "left in a taxi")
			if err != nil || old.State != tokens.Revoked {
				t.Fatalf("%s, %v", old.State, err)
			}
			if activation == tokens.ActivateByCode {
				if next.State != tokens.Pending {
					t.Errorf("the other one is %s", next.State)
				}
				h.ends("alice", string(code), true, tokens.ReasonAccepted)
				h.must(h.Activate(ctx, h.admin, "", "T2", b.code(h, -1), b.code(h, 0)))
			}
			if h.try("alice", string(code)) {
				t.Error("the passcode is accepted beside a token that works")
			}
			if gone := h.token(temporary.Serial); gone.State != tokens.Revoked || len(gone.Passcodes) > 0 {
				t.Errorf("the passcode is %s, with %d MACs", gone.State, len(gone.Passcodes))
			}
			if r := h.records("token.revoke", "ok"); len(r) != 1 || r[0].Serial != temporary.Serial || r[0].User != "alice" {
				t.Errorf("its end is audited as %+v", r)
			}
			h.ends("alice", b.code(h, 1), true, tokens.ReasonAccepted)
			h.intact()
		})
	}
	// The same where the lost token is found again.
	h := newHouse(t)
	h.give("alice", totp("T1"))
	h.must(h.SetRules(ctx, h.admin, "", -1, rules(func(r *tokens.Rules) { r.Temporary.Allow = true })))
	_, temporary, code, err := h.Lose(ctx, h.admin, "", "T1", "", &tokens.TemporaryRequest{})
	if err != nil {
		t.Fatal(err)
	}
	h.must(h.Resume(ctx, h.admin, "", "T1", "it was in the other coat"))
	if h.try("alice", string(code)) || h.token(temporary.Serial).State != tokens.Revoked {
		t.Error("the passcode outlives the token's return")
	}
	h.intact()
}

// A temporary passcode ends also where the token that works again had expired, and
// stays where the one in its place has.
func TestATemporaryPasscodeEndsOnlyWithATokenThatHasNotExpired(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"))
	h.ship("", totp("T2"))
	h.must(h.SetRules(ctx, h.admin, "", -1, rules(func(r *tokens.Rules) { r.Temporary.Allow = true })))
	h.must(h.SetExpiry(ctx, h.admin, "", "T1", h.clock.now().Add(-time.Hour)))
	h.must(h.SetExpiry(ctx, h.admin, "", "T2", h.clock.now().Add(-time.Hour)))
	_, temporary, code, err := h.Lose(ctx, h.admin, "", "T1", "", &tokens.TemporaryRequest{})
	if err != nil {
		t.Fatal(err)
	}
	h.must(h.Resume(ctx, h.admin, "", "T1", "found"))
	h.ends("alice", string(code), true, tokens.ReasonAccepted)
	if _, _, err := h.Replace(ctx, h.admin, "", "T1", "T2", ""); err != nil {
		t.Fatal(err)
	}
	if got := h.token(temporary.Serial); got.State != tokens.Active {
		t.Errorf("beside a token that has expired the passcode is %s", got.State)
	}
	h.ends("alice", string(code), true, tokens.ReasonAccepted)
	h.must(h.SetExpiry(ctx, h.admin, "", "T2", time.Time{}))
	if got := h.token(temporary.Serial); got.State != tokens.Revoked || len(got.Passcodes) > 0 {
		t.Errorf("beside a token that works again the passcode is %s", got.State)
	}
	if h.try("alice", string(code)) {
		t.Error("the passcode is accepted")
	}
	if r := h.records("token.revoke", "ok"); len(r) != 1 || r[0].Serial != temporary.Serial {
		t.Errorf("audited as %+v", r)
	}
	h.intact()
}
