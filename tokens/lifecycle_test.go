package tokens_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
)

func TestATokenMovesOnlyAlongItsLife(t *testing.T) {
	acts := map[string]func(h *house) (tokens.Token, error){
		"assign":              func(h *house) (tokens.Token, error) { return h.Assign(ctx, h.admin, "", "T1", "alice") },
		"unassign":            func(h *house) (tokens.Token, error) { return h.Unassign(ctx, h.admin, "", "T1", "") },
		"suspend":             func(h *house) (tokens.Token, error) { return h.Suspend(ctx, h.admin, "", "T1", "") },
		"resume":              func(h *house) (tokens.Token, error) { return h.Resume(ctx, h.admin, "", "T1", "") },
		"resume, with blanks": func(h *house) (tokens.Token, error) { return h.Resume(ctx, h.admin, "", "T1", " \t") },
		"resume, with reason": func(h *house) (tokens.Token, error) { return h.Resume(ctx, h.admin, "", "T1", "found in a coat") },
		"lost":                func(h *house) (tokens.Token, error) { return h.MarkLost(ctx, h.admin, "", "T1", "") },
		"revoke":              func(h *house) (tokens.Token, error) { return h.Revoke(ctx, h.admin, "", "T1", "") },
	}
	const (
		state   = 0 // ErrState
		invalid = 1 // ErrInvalid
	)
	want := map[tokens.State]map[string]any{
		tokens.Imported: {
			"assign": tokens.Active, "unassign": tokens.Imported, "suspend": state, "resume": state, "resume, with blanks": state, "resume, with reason": state,
			"lost": state, "revoke": tokens.Revoked,
		},
		tokens.Active: {
			"assign": tokens.Active, "unassign": tokens.Imported, "suspend": tokens.Suspended, "resume": tokens.Active,
			"resume, with blanks": tokens.Active, "resume, with reason": tokens.Active, "lost": tokens.Lost, "revoke": tokens.Revoked,
		},
		tokens.Suspended: {
			"assign": tokens.Suspended, "unassign": tokens.Imported, "suspend": tokens.Suspended, "resume": tokens.Active,
			"resume, with blanks": tokens.Active, "resume, with reason": tokens.Active, "lost": tokens.Lost, "revoke": tokens.Revoked,
		},
		tokens.Lost: {
			"assign": tokens.Lost, "unassign": tokens.Imported, "suspend": state, "resume": invalid,
			"resume, with blanks": invalid, "resume, with reason": tokens.Active,
			"lost": tokens.Lost, "revoke": tokens.Revoked,
		},
		tokens.Revoked: {
			"assign": state, "unassign": state, "suspend": state, "resume": state,
			"resume, with blanks": state, "resume, with reason": state, "lost": state, "revoke": tokens.Revoked,
		},
	}
	for from, row := range want {
		for name, to := range row {
			t.Run(string(from)+", "+name, func(t *testing.T) {
				h := newHouse(t)
				d := totp("T1")
				if from == tokens.Imported {
					h.ship("", d)
					h.user("alice")
				} else {
					h.give("alice", d)
				}
				switch from {
				case tokens.Suspended:
					h.must(acts["suspend"](h))
				case tokens.Lost:
					h.must(acts["lost"](h))
				case tokens.Revoked:
					h.must(acts["revoke"](h))
				}
				got, err := acts[name](h)
				now := h.token("T1")
				switch to := to.(type) {
				case tokens.State:
					if err != nil || got.State != to || now.State != to {
						t.Fatalf("%v, %v, stored %v; want %v", got.State, err, now.State, to)
					}
					if owned := to == tokens.Active || to == tokens.Suspended || to == tokens.Lost; owned != (now.OwnerID != 0) || owned != (now.Owner == "alice") {
						t.Errorf("%s and owned by %q", to, now.Owner)
					}
					if accepted := to == tokens.Active; h.try("alice", d.code(h, 0)) != accepted {
						t.Errorf("%s: accepted %v", to, !accepted)
					}
					if to == tokens.Revoked && (len(now.Wrapped.Blob) != 0 || len(got.Wrapped.Blob) != 0) {
						t.Error("the wrapped seed of a revoked token is still there")
					}
				case int:
					if kind := []error{tokens.ErrState, tokens.ErrInvalid}[to]; !errors.Is(err, kind) || now.State != from {
						t.Fatalf("%v, stored %v; want %v", err, now.State, kind)
					}
					if r := h.last(); r.Outcome != "refused" || r.Serial != "T1" {
						t.Errorf("the refusal is audited as %+v", r)
					}
				}
				h.intact()
			})
		}
	}
}

func TestSingleUseOutlivesTheOwner(t *testing.T) {
	h := newHouse(t)
	d, e := totp("T1"), hotp("H1")
	h.give("alice", d, e)
	h.user("bob")
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	code, counter := d.code(h, 0), e.at(3)
	h.ends("alice", "4711"+code, true, tokens.ReasonAccepted)
	h.ends("alice", "4711"+counter, true, tokens.ReasonAccepted)
	for range 7 {
		h.try("alice", "4711"+d.wrong(h.clock.now().Unix()/30))
	}
	for _, serial := range []string{"T1", "H1"} {
		h.must(h.Unassign(ctx, h.admin, "", serial, ""))
		h.must(h.Assign(ctx, h.admin, "", serial, "bob"))
	}
	// Neither PIN nor failures come along; what was used stays used.
	h.ends("bob", code, false, tokens.ReasonReplay)
	h.ends("bob", counter, false, tokens.ReasonReplay)
	h.ends("bob", d.code(h, 1), true, tokens.ReasonAccepted)
	h.ends("bob", e.at(4), true, tokens.ReasonAccepted)
	h.ends("alice", "4711"+d.code(h, 1), false, tokens.ReasonThrottled)
	h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
	h.ends("alice", "4711"+d.code(h, 1), false, tokens.ReasonNoToken)
}

func TestUseCasesOnWhatIsNotThereSayNotFound(t *testing.T) {
	h := newHouse(t)
	h.ship("", totp("T1"))
	h.user("alice")
	long := strings.Repeat("x", 300)
	for _, serial := range []string{"T2", "t1", "", "a b", "T1\x00", "\xff", long, "decoy", "' OR 1=1 --"} {
		for name, err := range map[string]error{
			"assign":   second(h.Assign(ctx, h.admin, "", serial, "alice")),
			"unassign": second(h.Unassign(ctx, h.admin, "", serial, "")),
			"suspend":  second(h.Suspend(ctx, h.admin, "", serial, "")),
			"revoke":   second(h.Revoke(ctx, h.admin, "", serial, "")),
			"resync":   second(h.Resync(ctx, h.admin, "", serial, "000000", "111111")),
			"show":     second(h.ShowToken(ctx, h.admin, "", serial)),
			"unlock":   second(h.UnlockOwner(ctx, h.admin, "", serial)),
			"realm":    second(h.ShowToken(ctx, h.admin, "nowhere", serial)),
		} {
			if !errors.Is(err, tokens.ErrNotFound) {
				t.Errorf("%s %q: %v", name, serial, err)
			}
		}
	}
	for name, err := range map[string]error{
		"assign": second(h.Assign(ctx, h.admin, "", "T1", "bob")),
		"pin":    second(h.SetPIN(ctx, h.admin, "", "bob", "4711", false)),
		"unlock": second(h.UnlockUser(ctx, h.admin, "", "bob")),
		"why":    second(h.Why(ctx, h.admin, "", "carol", 0)),
		"state":  second(h.SetUserState(ctx, h.admin, "", "bob", tokens.UserDisabled)),
	} {
		if !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"user":        second(h.AddUser(ctx, h.admin, "", "a\x00")),
		"realm":       second(h.AddUser(ctx, h.admin, "\xff", "carol")),
		"users, q":    third(h.Users(ctx, h.admin, tokens.UserQuery{Q: "\x00"})),
		"tokens, q":   third(h.Tokens(ctx, h.admin, tokens.TokenQuery{Q: "\xff"})),
		"records":     third(h.Records(ctx, h.admin, tokens.RecordQuery{Action: long})),
		"long reason": second(h.Suspend(ctx, h.admin, "", "T1", strings.Repeat("x", 501))),
	} {
		if !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.AddUser(ctx, h.admin, "", "ALICE"); !errors.Is(err, tokens.ErrExists) {
		t.Errorf("alice again: %v", err)
	}
	if p := h.Ready(); len(p) != 0 {
		t.Errorf("after all this the server is not ready: %v", p)
	}
	h.intact()
}

func second[T any](_ T, err error) error { return err }

func TestAReasonThatIsNoTextDoesNotBreakTheAudit(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"))
	h.must(h.MarkLost(ctx, h.admin, "", "T1", "left in a \xff\x00 taxi"))
	if r := h.last(); len(r.Detail) == 0 || r.Detail[0].Value != "left in a \uFFFD\uFFFD taxi" {
		t.Errorf("audited as %+v", r)
	}
	h.intact()
}

func TestResynchronisationTakesTwoCodesInARow(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	for range 7 {
		h.try("alice", d.code(h, 100))
	}
	if h.standing("alice").Failures != 6 {
		t.Fatalf("%+v", h.standing("alice"))
	}
	// Through the admin's key, who has no failures.
	before := h.standing("alice")
	for what, codes := range map[string][2]string{
		"not in a row":        {d.code(h, 100), d.code(h, 102)},
		"the wrong way round": {d.code(h, 101), d.code(h, 100)},
		"one twice":           {d.code(h, 100), d.code(h, 100)},
		"too far":             {d.code(h, 121), d.code(h, 122)},
		"too far behind":      {d.code(h, -122), d.code(h, -121)},
	} {
		if _, err := h.Resync(ctx, h.admin, "", "T1", codes[0], codes[1]); !errors.Is(err, tokens.ErrWrongCode) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := h.standing("alice"); got.Failures != before.Failures+5 || got.Version != before.Version+5 {
		t.Errorf("five failures, and %+v became %+v", before, got)
	}
	if _, err := h.Resync(ctx, h.admin, "", "T1", "12345", "123456"); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("a short code: %v", err)
	}
	got, err := h.Resync(ctx, h.admin, "", "T1", d.code(h, 120), d.code(h, 121))
	if err != nil || got.Drift != 121 || h.token("T1").Drift != 121 {
		t.Fatalf("%v: drift %d", err, got.Drift)
	}
	if s := h.standing("alice"); s.Failures != 0 || len(s.Throttle) != 0 {
		t.Errorf("the failures stay: %+v", s)
	}
	h.ends("alice", d.code(h, 120), false, tokens.ReasonReplay)
	h.ends("alice", d.code(h, 121), false, tokens.ReasonReplay)
	h.ends("alice", d.code(h, 122), true, tokens.ReasonAccepted)
	// Never at or before what was used.
	if _, err := h.Resync(ctx, h.admin, "", "T1", d.code(h, 120), d.code(h, 121)); !errors.Is(err, tokens.ErrWrongCode) {
		t.Errorf("used codes: %v", err)
	}
	if _, err := h.Resync(ctx, h.admin, "", "T1", d.code(h, 122), d.code(h, 123)); !errors.Is(err, tokens.ErrWrongCode) {
		t.Errorf("a used code and the next: %v", err)
	}
	if _, err := h.Resync(ctx, h.admin, "", "T1", d.code(h, 123), d.code(h, 124)); err != nil {
		t.Errorf("the next two: %v", err)
	}
	h.intact()
}

func TestResynchronisationOfHOTPLooksAThousandAhead(t *testing.T) {
	h := newHouse(t)
	d, e := hotp("H1"), hotp("H2")
	d.Counter, e.Counter = 10, 10
	h.give("alice", d)
	h.ship("", e) // unassigned tokens can be resynchronised too
	for _, token := range []*device{d, e} {
		for what, codes := range map[string][2]string{
			"behind":       {token.at(8), token.at(9)},
			"half behind":  {token.at(9), token.at(10)},
			"too far":      {token.at(1010), token.at(1011)},
			"not in a row": {token.at(20), token.at(22)},
		} {
			if _, err := h.Resync(ctx, h.admin, "", token.Serial, codes[0], codes[1]); !errors.Is(err, tokens.ErrWrongCode) {
				t.Errorf("%s, %s: %v", token.Serial, what, err)
			}
			h.clock.forward(time.Hour)
		}
		got, err := h.Resync(ctx, h.admin, "", token.Serial, token.at(1009), token.at(1010))
		if err != nil || got.Last != 1011 || h.token(token.Serial).Last != 1011 {
			t.Errorf("%s: %v, next counter %d", token.Serial, err, got.Last)
		}
	}
	h.ends("alice", d.at(1010), false, tokens.ReasonReplay)
	h.ends("alice", d.at(1011), true, tokens.ReasonAccepted)
	h.intact()
}

func TestResynchronisationIsThrottledLikeVerifying(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	for range 6 {
		if _, err := h.Resync(ctx, h.admin, "", "T1", "000000", "000000"); !errors.Is(err, tokens.ErrWrongCode) {
			t.Fatal(err)
		}
	}
	if _, err := h.Resync(ctx, h.admin, "", "T1", d.code(h, 0), d.code(h, 1)); !errors.Is(err, tokens.ErrState) {
		t.Errorf("in the wait: %v", err)
	}
	if got := h.standing("alice").Failures; got != 6 {
		t.Errorf("%d failures", got)
	}
	h.clock.forward(2 * time.Second)
	h.must(h.Resync(ctx, h.admin, "", "T1", d.code(h, 0), d.code(h, 1)))
	for _, state := range []string{"lost", "revoked"} {
		switch state {
		case "lost":
			h.must(h.MarkLost(ctx, h.admin, "", "T1", ""))
		case "revoked":
			h.must(h.Revoke(ctx, h.admin, "", "T1", ""))
		}
		if _, err := h.Resync(ctx, h.admin, "", "T1", d.code(h, 5), d.code(h, 6)); !errors.Is(err, tokens.ErrState) {
			t.Errorf("a %s token: %v", state, err)
		}
	}
}

func TestTurningOffWorksOnAnAlteredRowAndNothingTurnsItOn(t *testing.T) {
	for name, act := range map[string]func(h *house) error{
		"suspend": func(h *house) error { return second(h.Suspend(ctx, h.admin, "", "T1", "")) },
		"lost":    func(h *house) error { return second(h.MarkLost(ctx, h.admin, "", "T1", "")) },
		"revoke":  func(h *house) error { return second(h.Revoke(ctx, h.admin, "", "T1", "")) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			d := totp("T1")
			h.give("alice", d)
			h.db.edit(func(e *editor) {
				e.token = func(t *tokens.Token) {
					if len(t.Wrapped.Blob) > 0 {
						t.Wrapped.Blob[0] ^= 1
					}
				}
			})
			if err := act(h); err != nil {
				t.Fatal(err)
			}
			if r := h.last(); r.Reason != string(tokens.ReasonTampered) {
				t.Errorf("audited as %+v", r)
			}
			if _, err := h.Resume(ctx, h.admin, "", "T1", "all is well"); err == nil {
				t.Error("resumed")
			}
			h.db.edit(func(e *editor) { e.token = nil })
			if _, err := h.Resume(ctx, h.admin, "", "T1", "all is well"); err == nil {
				t.Error("resumed once the edit was taken back")
			}
			if h.try("alice", d.code(h, 0)) {
				t.Error("accepted")
			}
		})
	}
}

func TestWhyExplainsEachReason(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.try("alice", d.wrong(h.clock.now().Unix()/30))
	h.try("alice", d.code(h, 0))
	h.try("alice", d.code(h, 0))
	list, err := h.Why(ctx, h.admin, "", "ALICE", 3)
	if err != nil || len(list) != 3 {
		t.Fatalf("%d explanations, %v", len(list), err)
	}
	for i, want := range []tokens.Reason{tokens.ReasonReplay, tokens.ReasonAccepted, tokens.ReasonWrongCode} {
		if x := list[i]; x.Record.Reason != string(want) || x.Words == "" || (x.Advice == "") != (want == tokens.ReasonAccepted) {
			t.Errorf("%d: %+v, want %s", i, x, want)
		}
	}
	if _, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Transport: "radius"}); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("an attempt without a code: %v", err)
	}
	if last, err := h.Why(ctx, h.admin, "", "alice", 1); err != nil || len(last) != 1 || last[0].Record.Reason != string(tokens.ReasonMalformed) {
		t.Errorf("an attempt without a code is not explained: %+v, %v", last, err)
	}
	if list, err = h.Why(ctx, h.admin, "", "alice", 3); err != nil {
		t.Fatal(err)
	}
	for range 12 {
		if _, err := h.ShowToken(ctx, h.admin, "", "T1"); err != nil {
			t.Fatal(err)
		}
	}
	again, err := h.Why(ctx, h.admin, "", "alice", 3)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(list) {
		t.Errorf("asking changes the answer: %v, %v", again, err)
	}
}
