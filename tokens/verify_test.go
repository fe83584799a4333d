package tokens_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/tokens"
)

func isExists(err error) bool { return errors.Is(err, tokens.ErrExists) }

func TestACodeIsAcceptedOnce(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	code := d.code(h, 0)
	h.ends("alice", code, true, tokens.ReasonAccepted)
	h.ends("alice", code, false, tokens.ReasonReplay)
	h.ends("Alice", code, false, tokens.ReasonReplay)
	h.ends("alice", d.code(h, -1), false, tokens.ReasonReplay)
	h.ends("alice", d.code(h, 1), true, tokens.ReasonAccepted)
	if s := h.standing("alice"); s.Failures != 0 {
		t.Errorf("replays were counted: %+v", s)
	}
	h.intact()
}

// Who does not wait hears what who waits would, once.
func TestWhoDoesNotWaitIsAnsweredOnce(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	type told struct {
		result tokens.Result
		err    error
	}
	ask := func(p tokens.Principal, a tokens.Attempt) told {
		t.Helper()
		answers := make(chan told, 2)
		h.Ask(ctx, p, a, func(r tokens.Result, err error) { answers <- told{r, err} })
		got := <-answers
		// Nothing that was asked before is under way once this is answered.
		if _, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: "x"}); err != nil {
			t.Error(err)
		}
		if len(answers) > 0 {
			t.Errorf("a second answer: %+v", <-answers)
		}
		return got
	}
	code := d.code(h, 0)
	if got := ask(h.vpn, tokens.Attempt{User: "alice", Code: code}); got.err != nil || !got.result.Accept || got.result.Serial != "T1" {
		t.Errorf("the right code: %+v", got)
	}
	if got := ask(h.vpn, tokens.Attempt{User: "alice", Code: code}); got.err != nil || !reflect.DeepEqual(got.result, tokens.Result{}) {
		t.Errorf("the same again: %+v", got)
	}
	for what, c := range map[string]struct {
		p    tokens.Principal
		a    tokens.Attempt
		want error
	}{
		"no code":          {h.vpn, tokens.Attempt{User: "alice"}, tokens.ErrInvalid},
		"no user":          {h.vpn, tokens.Attempt{Code: code}, tokens.ErrInvalid},
		"another realm":    {h.vpn, tokens.Attempt{Realm: "nowhere", User: "alice", Code: code}, tokens.ErrForbidden},
		"who may not":      {h.key("", "read"), tokens.Attempt{User: "alice", Code: code}, tokens.ErrForbidden},
		"who is no longer": {tokens.Principal{Kind: tokens.KindClient, ID: "gone", Scope: "verify"}, tokens.Attempt{User: "alice", Code: code}, tokens.ErrUnknownKey},
	} {
		_, want := h.Verify(ctx, c.p, c.a)
		if got := ask(c.p, c.a); fmt.Sprint(got.err) != fmt.Sprint(want) || !errors.Is(got.err, c.want) || got.result.Accept {
			t.Errorf("%s: %+v, want %v", what, got, want)
		}
	}
	if err := h.Close(ctx); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	h.Ask(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.code(h, 1)}, func(_ tokens.Result, err error) { stopped <- err })
	if err := <-stopped; !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("after the end: %v", err)
	}
}

func TestTOTPOfAnyPeriodDigestAndLength(t *testing.T) {
	h := newHouse(t)
	n := 0
	for _, period := range []int{1, 7, 30, 60, 3600, 86400} {
		for digest := range digests {
			for digits := 6; digits <= 8; digits++ {
				n++
				d := totp(fmt.Sprintf("T%d", n))
				d.Period, d.Algorithm, d.Digits = period, digest, digits
				user := fmt.Sprintf("user%d", n)
				h.give(user, d)
				now := h.clock.now().Unix() / int64(period)
				h.ends(user, d.wrong(now), false, tokens.ReasonWrongCode)
				h.ends(user, d.at(now+2), false, tokens.ReasonWrongCode)
				h.ends(user, d.at(now-2), false, tokens.ReasonWrongCode)
				h.ends(user, d.at(now-1), true, tokens.ReasonAccepted)
				h.ends(user, d.at(now), true, tokens.ReasonAccepted)
				h.ends(user, d.at(now+1), true, tokens.ReasonAccepted)
				h.ends(user, d.at(now+1), false, tokens.ReasonReplay)
			}
		}
	}
}

func TestHOTPLooksAheadTenCounters(t *testing.T) {
	h := newHouse(t)
	d := hotp("H1")
	d.Counter = 7
	h.give("alice", d)
	h.ends("alice", d.at(6), false, tokens.ReasonReplay)
	h.ends("alice", d.at(17), false, tokens.ReasonWrongCode)
	h.ends("alice", d.at(16), true, tokens.ReasonAccepted)
	h.ends("alice", d.at(16), false, tokens.ReasonReplay)
	h.ends("alice", d.at(9), false, tokens.ReasonWrongCode)
	h.ends("alice", d.at(26), true, tokens.ReasonAccepted)
	if got := h.token("H1").Last; got != 27 {
		t.Errorf("the next counter expected is %d, want 27", got)
	}
}

func TestHOTPAtTheEndOfItsCounters(t *testing.T) {
	h := newHouse(t)
	d := hotp("H1")
	d.Counter = 1 << 60
	h.give("alice", d)
	h.ends("alice", d.at(1<<60), true, tokens.ReasonAccepted)
	h.ends("alice", d.at(1<<60), false, tokens.ReasonTampered) // and no further: out of range
}

func TestTheWindowFollowsTheTokensClock(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	// A clock that is one step slower each day for forty days.
	for day := int64(1); day <= 40; day++ {
		h.clock.forward(24 * time.Hour)
		h.ends("alice", d.code(h, -day), true, tokens.ReasonAccepted)
	}
	if got := h.token("T1").Drift; got != -40 {
		t.Errorf("the drift is %d, want -40", got)
	}
	h.clock.forward(time.Hour)
	h.ends("alice", d.code(h, -36), false, tokens.ReasonWrongCode)
	h.ends("alice", d.code(h, 0), false, tokens.ReasonWrongCode)
}

func TestTheWindowWidensAfterMonthsAndIsNarrowAfterUse(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.clock.forward(91 * 24 * time.Hour)
	h.ends("alice", d.code(h, 5), false, tokens.ReasonWrongCode)
	h.ends("alice", d.code(h, 4), true, tokens.ReasonAccepted)
	h.clock.forward(time.Hour)
	h.ends("alice", d.code(h, 6), false, tokens.ReasonWrongCode)
	h.ends("alice", d.code(h, 5), true, tokens.ReasonAccepted)
}

func TestThePINGoesBeforeTheCode(t *testing.T) {
	h := newHouse(t)
	d, e := totp("T1"), hotp("H1")
	e.Digits = 8
	h.give("alice", d, e)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	h.ends("alice", d.code(h, 0), false, tokens.ReasonNoPIN)
	h.ends("alice", "4712"+d.code(h, 0), false, tokens.ReasonWrongPIN)
	h.ends("alice", "47110"+d.code(h, 0), false, tokens.ReasonWrongPIN)
	h.ends("alice", "4711", false, tokens.ReasonWrongCode)
	if s := h.standing("alice"); s.Failures != 4 {
		t.Errorf("%d failures are counted, want 4", s.Failures)
	}
	h.ends("alice", "4711"+d.code(h, 0), true, tokens.ReasonAccepted)
	h.ends("alice", "4711"+e.at(0), true, tokens.ReasonAccepted)
	h.ends("alice", "4711"+d.code(h, 0), false, tokens.ReasonReplay)
	if s := h.standing("alice"); s.Failures != 0 {
		t.Errorf("a replay with the right PIN is counted: %d", s.Failures)
	}
	// A code that somebody watched being typed must not be a way to try PINs.
	h.ends("alice", "1111"+d.code(h, 0), false, tokens.ReasonWrongPIN)
	if s := h.standing("alice"); s.Failures != 1 {
		t.Errorf("a replay with a wrong PIN is not counted: %d", s.Failures)
	}

	h.must(h.SetPIN(ctx, h.admin, "", "alice", "päss wörd", false))
	h.clock.forward(30 * time.Second)
	h.ends("alice", "4711"+d.code(h, 0), false, tokens.ReasonWrongPIN)
	h.ends("alice", "päss wörd"+d.code(h, 0), true, tokens.ReasonAccepted)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "", false))
	h.clock.forward(30 * time.Second)
	h.ends("alice", "päss wörd"+d.code(h, 0), false, tokens.ReasonWrongCode)
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	for _, bad := range []string{"123", strings.Repeat("1", 33), "12\x0034", "12\xff34"} {
		if _, err := h.SetPIN(ctx, h.admin, "", "alice", bad, false); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("the PIN %q: %v", bad, err)
		}
	}
}

func TestFailuresThrottleAndAHundredLock(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	now := func() int64 { return h.clock.now().Unix() / 30 }
	wrong := func() string { return d.wrong(now()) }
	for range 5 {
		h.ends("alice", wrong(), false, tokens.ReasonWrongCode)
	}
	h.ends("alice", wrong(), false, tokens.ReasonWrongCode) // the sixth: from now on it costs
	h.ends("alice", d.code(h, 0), false, tokens.ReasonThrottled)
	// Another client has no part in it.
	key, _, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "portal", Scope: "verify"})
	if err != nil {
		t.Fatal(err)
	}
	portal := tokens.Principal{Kind: tokens.KindKey, ID: key.ID, Scope: "verify"}
	if r, err := h.Verify(ctx, portal, tokens.Attempt{User: "alice", Code: wrong()}); err != nil || r.Accept {
		t.Fatalf("through another client: %v, %v", r, err)
	}
	if got := h.last().Reason; got != string(tokens.ReasonWrongCode) {
		t.Errorf("another client waits, too: %s", got)
	}
	h.clock.forward(1999 * time.Millisecond)
	h.ends("alice", wrong(), false, tokens.ReasonThrottled)
	h.clock.forward(2 * time.Millisecond)
	h.ends("alice", wrong(), false, tokens.ReasonWrongCode)
	if s := h.standing("alice"); s.Failures != 8 {
		t.Errorf("%d failures are counted, want 8: those in the wait are not", s.Failures)
	}
	for h.standing("alice").Failures < 99 {
		h.clock.forward(16 * time.Minute)
		h.ends("alice", wrong(), false, tokens.ReasonWrongCode)
		h.ends("alice", wrong(), false, tokens.ReasonThrottled)
	}
	h.clock.forward(16 * time.Minute)
	h.ends("alice", wrong(), false, tokens.ReasonWrongCode) // the hundredth
	h.clock.forward(24 * time.Hour)
	h.ends("alice", d.code(h, 0), false, tokens.ReasonLocked)
	if _, err := h.Resync(ctx, h.admin, "", "T1", d.code(h, 0), d.code(h, 1)); !errors.Is(err, tokens.ErrState) {
		t.Errorf("resynchronising a locked user's token: %v", err)
	}
	h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	if s := h.standing("alice"); s.Locked || s.Failures != 0 || len(s.Throttle) != 0 {
		t.Errorf("after an accept: %+v", s)
	}
}

// Whoever asks must learn nothing, neither from the answer nor from the work.
func TestAllRejectionsLookTheSame(t *testing.T) {
	h := newHouse(t)
	fill := func(user, pin string) *device {
		d := totp("T-" + user)
		h.give(user, d)
		if pin != "" {
			h.must(h.SetPIN(ctx, h.admin, "", user, pin, false))
		}
		return d
	}
	for _, pin := range []string{"", "4711"} {
		name := func(s string) string { return s + pin }
		wrong := fill(name("wrong"), pin)
		spent := fill(name("spent"), pin)
		locked := fill(name("locked"), pin)
		waiting := fill(name("waiting"), pin)
		disabled := fill(name("disabled"), pin)
		suspended := fill(name("suspended"), pin)
		lost := fill(name("lost"), pin)
		h.user(name("tokenless"))
		if pin != "" {
			h.must(h.SetPIN(ctx, h.admin, "", name("tokenless"), pin, false))
		}
		if !h.try(name("spent"), pin+spent.code(h, 0)) {
			t.Fatal("not accepted")
		}
		for range 6 {
			h.try(name("waiting"), pin+waiting.wrong(h.clock.now().Unix()/30))
		}
		for h.standing(name("locked")).Failures < 100 {
			h.clock.forward(time.Hour)
			h.try(name("locked"), pin+locked.wrong(h.clock.now().Unix()/30))
		}
		if !h.try(name("spent"), pin+spent.code(h, 0)) {
			t.Fatal("not accepted")
		}
		h.clock.forward(16 * time.Minute)
		h.try(name("waiting"), pin+waiting.wrong(h.clock.now().Unix()/30))
		h.must(h.SetUserState(ctx, h.admin, "", name("disabled"), tokens.UserDisabled))
		h.must(h.Suspend(ctx, h.admin, "", suspended.Serial, ""))
		h.must(h.MarkLost(ctx, h.admin, "", lost.Serial, ""))
		if !h.try(name("spent"), pin+spent.code(h, 0)) {
			t.Fatal("not accepted")
		}
		for _, c := range []struct {
			user, code string
			reason     tokens.Reason
		}{
			{"wrong", wrong.wrong(h.clock.now().Unix() / 30), tokens.ReasonWrongCode},
			{"spent", spent.code(h, 0), tokens.ReasonReplay},
			{"locked", locked.code(h, 0), tokens.ReasonLocked},
			{"waiting", waiting.code(h, 0), tokens.ReasonThrottled},
			{"disabled", disabled.code(h, 0), tokens.ReasonDisabled},
			{"suspended", suspended.code(h, 0), tokens.ReasonSuspendedUsed},
			{"suspended", suspended.wrong(h.clock.now().Unix() / 30), tokens.ReasonSuspended},
			{"lost", lost.code(h, 0), tokens.ReasonLostUsed},
			{"tokenless", "000000", tokens.ReasonNoToken},
			{"nobody", "000000", tokens.ReasonUnknownUser},
			{"no\x00body", "000000", tokens.ReasonUnknownUser},
			{strings.Repeat("x", 1000), "000000", tokens.ReasonUnknownUser},
		} {
			factors, pins := h.keys.factors.Load(), h.keys.pins.Load()
			loads := h.db.loads.Load()
			r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: name(c.user), Code: pin + c.code, Transport: "radius"})
			if !reflect.DeepEqual(r, tokens.Result{}) || err != nil {
				t.Errorf("%s: %+v, %v, want a plain reject", c.user, r, err)
			}
			if got := h.last().Reason; got != string(c.reason) {
				t.Errorf("%s is audited as %s, want %s", c.user, got, c.reason)
			}
			if n := h.keys.factors.Load() - factors; n != 3 {
				t.Errorf("%s, PIN %q: %d HMACs were computed, want 3", c.user, pin, n)
			}
			if n := h.keys.pins.Load() - pins; n != int64(len(pin)/4) {
				t.Errorf("%s, PIN %q: %d MACs of PINs were computed", c.user, pin, n)
			}
			if n := h.db.loads.Load() - loads; n != 1 {
				t.Errorf("%s: the database was asked %d times", c.user, n)
			}
		}
	}
}

func TestStrangersCostTheSameAfterAYear(t *testing.T) {
	h := newHouse(t)
	h.clock.forward(365 * 24 * time.Hour)
	before := h.keys.factors.Load()
	h.ends("nobody", "000000", false, tokens.ReasonUnknownUser)
	if n := h.keys.factors.Load() - before; n != 3 {
		t.Errorf("%d HMACs for an unknown user, want 3 as for a token in use", n)
	}
}

func TestWhatCannotBeACodeIsAWrongOne(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	code := d.code(h, 0)
	for i, typed := range []string{
		code[:5], code + "0", " " + code, code + "\n", "０" + code[:5], strings.Repeat("9", 4096), "\x00" + code,
		strings.Repeat("x", 4096) + code, strings.Repeat(code, 30), "-" + code, "\xff\xfe",
	} {
		h.clock.forward(20 * time.Minute) // out of any wait
		h.ends("alice", typed, false, tokens.ReasonWrongCode)
		if got := h.standing("alice").Failures; got != i+1 {
			t.Errorf("%q is not counted: %d failures, want %d", typed[:min(len(typed), 20)], got, i+1)
		}
	}
	for _, bad := range []tokens.Attempt{{}, {User: "alice"}, {Code: code}, {User: "alice", Code: code, Realm: "a\x00"}} {
		if r, err := h.Verify(ctx, h.vpn, bad); !errors.Is(err, tokens.ErrInvalid) || r.Accept {
			t.Errorf("%+v: %v, %v", bad, r, err)
		}
	}
}

func TestAClockBeforeItsTimeAcceptsNothingAndBreaksNothing(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	for _, now := range []time.Time{time.Unix(-1, 0), time.Unix(-86400*365, 0), time.Unix(-31, 0)} {
		h.clock.set(now)
		if h.try("alice", d.at(5)) {
			t.Errorf("accepted at %v", now)
		}
	}
	h.clock.set(time.Unix(0, 1))
	if !h.try("alice", d.at(0)) || h.try("alice", d.at(0)) {
		t.Error("the first step of time is not accepted exactly once")
	}
	h.clock.set(start)
	if !h.try("alice", d.code(h, 0)) {
		t.Error("not accepted with the clock right again")
	}
	h.clock.set(start.Add(-time.Hour)) // set back: what was accepted is over
	for ahead := int64(-5); ahead <= 5; ahead++ {
		if h.try("alice", d.code(h, ahead)) {
			t.Errorf("accepted with the clock set back, %d steps", ahead)
		}
	}
}

func TestOneOfEightTokensIsEnough(t *testing.T) {
	h := newHouse(t)
	var list []*device
	for i := range tokens.MaxTokensPerUser {
		d := totp(fmt.Sprintf("T%d", i))
		d.Digits, d.Algorithm = 6+i%3, hsm.Hash(1+i%3)
		if i%2 == 1 {
			d = hotp(fmt.Sprintf("T%d", i))
			d.Digits = 6 + i%3
		}
		list = append(list, d)
	}
	h.give("alice", list...)
	for i, d := range list {
		code := d.at(0)
		if d.Type == tokens.TOTP {
			code = d.code(h, 0)
		}
		h.ends("alice", code, true, tokens.ReasonAccepted)
		if got := h.last().Serial; got != d.Serial {
			t.Errorf("token %d: the audit names %s", i, got)
		}
		h.ends("alice", code, false, tokens.ReasonReplay)
	}
}

func TestAnAlteredRowIsRefusedAsTampering(t *testing.T) {
	for name, edit := range map[string]func(t *tokens.Token){
		"another period":       func(t *tokens.Token) { t.Period = 60 },
		"period zero":          func(t *tokens.Token) { t.Period = 0 },
		"a negative period":    func(t *tokens.Token) { t.Period = -30 },
		"nine digits":          func(t *tokens.Token) { t.Digits = 9 },
		"no digits":            func(t *tokens.Token) { t.Digits = 0 },
		"minus six digits":     func(t *tokens.Token) { t.Digits = -6 },
		"a thousand digits":    func(t *tokens.Token) { t.Digits = 1000 },
		"another algorithm":    func(t *tokens.Token) { t.Algorithm = hsm.SHA256 },
		"an unknown algorithm": func(t *tokens.Token) { t.Algorithm = 77 },
		"another type":         func(t *tokens.Token) { t.Type = tokens.HOTP },
		"an unknown type":      func(t *tokens.Token) { t.Type = "x" },
		"another owner":        func(t *tokens.Token) { t.OwnerID = 4711 },
		"another owner's name": func(t *tokens.Token) { t.Owner = "mallory" },
		"another realm":        func(t *tokens.Token) { t.Realm = "corp" },
		"another serial":       func(t *tokens.Token) { t.Serial = "T2" },
		"the wrapped seed":     func(t *tokens.Token) { t.Wrapped.Blob[0] ^= 1 },
		"the seed's length":    func(t *tokens.Token) { t.Wrapped.SeedLen-- },
		"no binding":           func(t *tokens.Token) { t.Binding = nil },
		"the binding":          func(t *tokens.Token) { t.Binding[3] ^= 4 },
		"a step out of range":  func(t *tokens.Token) { t.Last = -1 << 63 },
		"a drift out of range": func(t *tokens.Token) { t.Drift = -1 << 63 },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			d := totp("T1")
			h.give("alice", d)
			if !h.try("alice", d.code(h, 0)) { // any handle is cached
				t.Fatal("not accepted as it was")
			}
			h.clock.forward(time.Minute)
			h.db.edit(func(e *editor) { e.token = edit })
			h.ends("alice", d.code(h, 0), false, tokens.ReasonTampered)
			if _, err := h.Resync(ctx, h.admin, "", "T1", d.code(h, 0), d.code(h, 1)); err == nil {
				t.Error("resynchronised")
			}
			if _, err := h.Unassign(ctx, h.admin, "", "T1", ""); err == nil && !strings.HasSuffix(name, "out of range") {
				t.Error("unassigned: an altered row was bound anew")
			}
			h.db.edit(func(e *editor) { e.token = nil })
			if h.token("T1").State == tokens.Active { // counters and drift are not bound
				h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
			}
		})
	}
	t.Run("state and PIN", func(t *testing.T) {
		h := newHouse(t)
		d := totp("T1")
		h.give("alice", d)
		h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
		h.db.edit(func(e *editor) { e.user = func(u *tokens.User) { u.PINMAC, u.PINSalt = nil, nil } })
		h.ends("alice", d.code(h, 0), false, tokens.ReasonTampered)
		h.db.edit(func(e *editor) { e.user = nil })
		h.must(h.MarkLost(ctx, h.admin, "", "T1", "left in a taxi"))
		h.db.edit(func(e *editor) { e.token = func(t *tokens.Token) { t.State = tokens.Active } })
		h.ends("alice", "4711"+d.code(h, 0), false, tokens.ReasonTampered)
		if _, err := h.Resume(ctx, h.admin, "", "T1", "found"); err != nil && !errors.Is(err, tokens.ErrTampered) {
			t.Errorf("resume: %v", err)
		}
	})
}

func TestNoCodeIsLookedAtWhileClocksDiffer(t *testing.T) {
	h := newHouse(t)
	d, e := totp("T1"), hotp("H1")
	h.give("alice", d)
	h.give("bob", e)
	h.db.edit(func(ed *editor) { ed.clock = func() time.Time { return h.clock.now().Add(6 * time.Second) } })
	if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.code(h, 0)}); !errors.Is(err, tokens.ErrUnavailable) || r.Accept {
		t.Errorf("TOTP with clocks 6 s apart: %v, %v", r, err)
	}
	if p := h.Ready(); len(p) != 1 || p[0].Part != "clock" {
		t.Errorf("ready: %v", p)
	}
	h.ends("bob", e.at(0), true, tokens.ReasonAccepted)
	h.db.edit(func(ed *editor) { ed.clock = func() time.Time { return h.clock.now().Add(-4 * time.Second) } })
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	if p := h.Ready(); len(p) != 0 {
		t.Errorf("ready: %v", p)
	}
}

// asTyped brings what is typed for a passcode to one form, more generously than the
// product does.
func asTyped(code string) string {
	return strings.NewReplacer("-", "", " ", "", "o", "0", "i", "1", "l", "1").Replace(strings.ToLower(code))
}

func FuzzVerifyInput(f *testing.F) {
	h := newHouse(f)
	d, e := totp("T1"), hotp("H1")
	h.give("alice", d, e)
	h.give("bob", totp("T2"))
	h.must(h.SetPIN(ctx, h.admin, "", "bob", "4711", false))
	shown := map[string]bool{}
	for _, d := range []*device{d, e} {
		for i := int64(-6); i <= 30; i++ {
			shown[d.at(i)], shown[d.at(start.Unix()/30+i)] = true, true
		}
	}
	f.Add("alice", "000000", "")
	f.Add("ALICE", "4711000000", "default")
	f.Add("bob", "4711", "corp")
	f.Add("a\x00", "\xff", "\n")
	f.Add("", "", "")
	f.Add("nobody", strings.Repeat("1", 200), "DEFAULT")
	// What ends like passcodes, and nearly.
	_, codes := h.recovery("alice")
	for _, code := range codes {
		shown[code] = true
	}
	f.Add("alice", noPasscode, "")
	f.Add("alice", "4711"+codes[0], "")
	f.Add("bob", "4711"+noPasscode, "")
	f.Add("nobody", strings.Repeat("-", 200)+noPasscode, "")
	f.Add("nobody", "w-0 r-d s-3 a-1 9-x y-z", "")
	f.Fuzz(func(t *testing.T, user, code, realm string) {
		r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: user, Code: code, Realm: realm, Transport: "radius"})
		switch {
		case r.Accept && !shown[code] && !slices.ContainsFunc(codes, func(c string) bool { return asTyped(c) == asTyped(code) }):
			t.Fatalf("%q with %q was accepted", user, code)
		case err != nil && !errors.Is(err, tokens.ErrInvalid) && !errors.Is(err, tokens.ErrForbidden):
			t.Fatalf("%q with %q in %q: %v", user, code, realm, err)
		}
	})
}

// While one of a user's tokens cannot be looked at, wrong codes have no verdict.
// They were held against the others all the same, and guessing costs what it
// always does.
func TestAFaultOfOneTokenIsNoWayToGuessAnothersCode(t *testing.T) {
	h := newHouse(t)
	d := hotp("H1")
	h.give("alice", d, totp("T1"))
	h.db.edit(func(e *editor) { e.clock = func() time.Time { return h.clock.now().Add(time.Hour) } })
	for range 20 {
		if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.wrong(0)}); err == nil || r.Accept {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.at(0)}); err == nil && r.Accept {
		t.Error("accepted after twenty guesses in a row")
	}
	if got := h.standing("alice").Failures; got != 6 {
		t.Errorf("%d failures are counted", got)
	}
	h.db.edit(func(e *editor) { e.clock = h.clock.now })
	h.clock.forward(time.Hour)
	h.ends("alice", d.at(0), true, tokens.ReasonAccepted)
}

// The codes of a lost token are wrong codes for the one that replaced it: whoever
// found it could guess at one more in each time step, for ever.
func TestALostTokensCodesAreGuessesAtItsReplacement(t *testing.T) {
	h := newHouse(t)
	lost := totp("T1")
	h.give("alice", lost, totp("T2"))
	h.must(h.MarkLost(ctx, h.admin, "", "T1", ""))
	for range 6 {
		h.ends("alice", lost.code(h, 0), false, tokens.ReasonLostUsed)
		h.clock.forward(30 * time.Second)
	}
	h.clock.forward(-29 * time.Second)
	if n := h.standing("alice").Failures; n != 6 {
		t.Errorf("%d failures are counted after six guesses", n)
	}
	h.ends("alice", lost.code(h, 0), false, tokens.ReasonThrottled)
	// Where there is nothing to guess, nothing is counted.
	other := totp("T3")
	h.give("bob", other)
	h.must(h.MarkLost(ctx, h.admin, "", "T3", ""))
	h.ends("bob", other.code(h, 0), false, tokens.ReasonLostUsed)
	if n := h.standing("bob").Failures; n != 0 {
		t.Errorf("%d failures are counted of a user without an active token", n)
	}
}
