package tokens_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"watchword/tokens"
	"watchword/tokens/policy"
	"watchword/tokens/storetest"
)

// changes asks for another PIN through an application.
func (h *house) changes(s *tokens.Service, user, code, pin string) bool {
	h.Helper()
	r, err := s.ChangePIN(ctx, h.admin, tokens.Attempt{User: user, Code: code, Transport: "http"}, pin)
	if err != nil {
		h.Fatalf("change the PIN of %s: %v", user, err)
	}
	if r.Accept != (r.Serial != "") {
		h.Errorf("change the PIN of %s: %+v", user, r)
	}
	return r.Accept
}

func TestAUserChangesThePINByWhatVerifyWouldAccept(t *testing.T) {
	h := newHouse(t)
	a, b, y, k := totp("A1"), totp("A2"), yubico("7654321"), newSeckey("alice")
	h.give("alice", a, b, y)
	h.enrol("alice", k)
	h.must(h.Suspend(ctx, h.admin, "", "A2", ""))
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", true))
	before := h.standing("alice").Version

	// The PIN is due: nothing is accepted, and the code stays good.
	h.ends("alice", "4711"+a.code(h, 0), false, tokens.ReasonPINDue)
	h.ends("alice", "4711"+y.types(1, 0, 0), false, tokens.ReasonPINDue)
	if !h.changes(h.Service, "Alice", "4711"+a.code(h, 0), "0815") {
		t.Fatal("rejected")
	}
	records, _, err := h.mem.Records(ctx, tokens.RecordQuery{Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if len(records) != 2 || records[0].Action != "user.pin.change" || records[0].Outcome != "ok" || records[0].User != "alice" || records[0].Actor != h.admin.Actor() || records[0].Serial != "A1" ||
		records[1].Action != "verify" || records[1].Outcome != "accept" || records[1].Serial != "A1" || records[1].Reason != "accepted" {
		t.Errorf("audited as %+v", records)
	}
	if strings.Contains(fmt.Sprint(records), "4711") || strings.Contains(fmt.Sprint(records), "0815") {
		t.Error("the audit holds a PIN")
	}
	if got := h.standing("alice").Version; got != before+1 {
		t.Errorf("the version went from %d to %d: it was no single act", before, got)
	}
	u, _, err := h.ShowUser(ctx, h.admin, "", "alice")
	if err != nil || u.PINDue || !u.HasPIN() {
		t.Errorf("%+v, %v", u, err)
	}

	// The code is used up, and every token follows the new PIN.
	h.ends("alice", "0815"+a.code(h, 0), false, tokens.ReasonReplay)
	h.ends("alice", "4711"+a.code(h, 1), false, tokens.ReasonWrongPIN)
	h.ends("alice", "0815"+a.code(h, 1), true, tokens.ReasonAccepted)
	h.ends("alice", "0815"+y.types(1, 0, 0), true, tokens.ReasonAccepted)
	h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
	h.must(h.Resume(ctx, h.admin, "", "A2", ""))
	h.ends("alice", "0815"+b.code(h, 0), true, tokens.ReasonAccepted)

	// It need not be due.
	h.clock.forward(time.Minute)
	if !h.changes(h.Service, "alice", "0815"+b.code(h, 0), "4711") {
		t.Error("rejected")
	}
	// The answer was lost, and it is asked again.
	if h.changes(h.Service, "alice", "0815"+b.code(h, 0), "4711") {
		t.Error("one code changed the PIN twice")
	}
	h.ends("alice", "4711"+a.code(h, 0), true, tokens.ReasonAccepted)
	h.intact()
}

// Whoever asks must learn nothing: what Verify rejects is rejected, counted and
// audited alike, and costs the same.
func TestAPINIsNotChangedByWhatVerifyRejects(t *testing.T) {
	h := newHouse(t)
	fill := func(user, pin string) *device {
		d := totp("T-" + user)
		h.give(user, d)
		h.must(h.SetPIN(ctx, h.admin, "", user, pin, false))
		return d
	}
	wrong, due := fill("wrong", "4711"), fill("due", "4711")
	h.must(h.SetPIN(ctx, h.admin, "", "due", "4711", true))
	spent, locked, waiting := fill("spent", "4711"), fill("locked", "4711"), fill("waiting", "4711")
	disabled, suspended, lost, without := fill("disabled", "4711"), fill("suspended", "4711"), fill("lost", "4711"), fill("without", "")
	h.user("tokenless")
	h.must(h.SetPIN(ctx, h.admin, "", "tokenless", "4711", false))
	if !h.try("spent", "4711"+spent.code(h, -1)) { // so that its window is narrow
		t.Fatal("rejected")
	}
	now := h.clock.now().Unix() / 30
	for h.standing("locked").Failures < 100 {
		h.clock.forward(time.Hour)
		h.changes(h.Service, "locked", "4711"+locked.wrong(h.clock.now().Unix()/30), "0815")
	}
	h.clock.set(start)
	for range 6 {
		h.changes(h.Service, "waiting", "4711"+waiting.wrong(now), "0815")
	}
	h.must(h.SetUserState(ctx, h.admin, "", "disabled", tokens.UserDisabled))
	h.must(h.Suspend(ctx, h.admin, "", suspended.Serial, ""))
	h.must(h.MarkLost(ctx, h.admin, "", lost.Serial, ""))
	h.ends("spent", "4711"+spent.code(h, 0), true, tokens.ReasonAccepted)
	for _, c := range []struct {
		user, code string
		reason     tokens.Reason
		counted    bool
	}{
		{"wrong", "4711" + wrong.wrong(now), tokens.ReasonWrongCode, true},
		{"wrong", "0815" + wrong.code(h, 0), tokens.ReasonWrongPIN, true},
		{"due", "0815" + due.code(h, 0), tokens.ReasonWrongPIN, true},
		{"spent", "4711" + spent.code(h, 0), tokens.ReasonReplay, false},
		{"locked", "4711" + locked.code(h, 0), tokens.ReasonLocked, false},
		{"waiting", "4711" + waiting.code(h, 0), tokens.ReasonThrottled, false},
		{"disabled", "4711" + disabled.code(h, 0), tokens.ReasonDisabled, false},
		{"suspended", "4711" + suspended.code(h, 0), tokens.ReasonSuspendedUsed, false},
		{"lost", "4711" + lost.code(h, 0), tokens.ReasonLostUsed, false},
		{"tokenless", "4711000000", tokens.ReasonNoToken, false},
		{"nobody", "4711000000", tokens.ReasonUnknownUser, false},
		{"no\x00body", "4711000000", tokens.ReasonUnknownUser, false},
		{"without", without.code(h, 0), tokens.ReasonNoPIN, true},
		{"without", without.wrong(now), tokens.ReasonWrongCode, true},
	} {
		type cost struct{ factors, pins, bindings, loads int64 }
		spent := func(f func()) cost {
			before := cost{h.keys.factors.Load(), h.keys.pins.Load(), h.keys.bindings.Load(), h.db.loads.Load()}
			f()
			return cost{h.keys.factors.Load() - before.factors, h.keys.pins.Load() - before.pins, h.keys.bindings.Load() - before.bindings, h.db.loads.Load() - before.loads}
		}
		failures := func() int {
			if c.reason == tokens.ReasonUnknownUser {
				return 0
			}
			return h.standing(c.user).Failures
		}
		if c.reason != tokens.ReasonNoPIN { // which Verify accepts
			changing := spent(func() { h.changes(h.Service, c.user, c.code, "0815") })
			if verifying := spent(func() { second(h.Verify(ctx, h.admin, tokens.Attempt{User: c.user, Code: c.code})) }); changing != verifying {
				t.Errorf("%s with %q costs %+v, and to be verified %+v", c.user, c.code, changing, verifying)
			}
			if r := h.last(); r.Reason != string(c.reason) {
				t.Errorf("%s with %q is verified as %s", c.user, c.code, r.Reason)
			}
		}
		if c.counted { // and so it is never in the wait
			h.must(h.UnlockUser(ctx, h.admin, "", c.user))
		}
		was := failures()
		if h.changes(h.Service, c.user, c.code, "0815") {
			t.Errorf("%s with %q: the PIN was changed", c.user, c.code)
		}
		r := h.last()
		if r.Action != "verify" || r.Outcome != "reject" || r.Reason != string(c.reason) || fmt.Sprint(r.Detail) != "[{transport http} {for user.pin.change}]" {
			t.Errorf("%s is audited as %+v, want %s", c.user, r, c.reason)
		}
		if got := failures() - was; got != map[bool]int{true: 1}[c.counted] {
			t.Errorf("%s with %q: %d more failures", c.user, c.code, got)
		}
	}
	// Nobody's PIN is another one.
	h.clock.forward(time.Hour)
	for _, user := range []string{"locked", "wrong", "waiting", "without"} {
		h.must(h.UnlockUser(ctx, h.admin, "", user))
	}
	for user, d := range map[string]*device{"wrong": wrong, "spent": spent, "locked": locked, "waiting": waiting} {
		h.ends(user, "4711"+d.code(h, 0), true, tokens.ReasonAccepted)
	}
	h.ends("without", without.code(h, 0), true, tokens.ReasonAccepted)
	h.intact()
}

// A right code of a user who has no PIN is rejected without being used up: it must
// cost what a wrong one costs, or it could be told from one.
func TestARightCodeThatChangesNoPINCostsWhatAWrongOneDoes(t *testing.T) {
	for _, pin := range []string{"", "4711"} {
		h := newHouse(t)
		d := totp("T1")
		h.give("alice", d)
		h.must(h.SetPIN(ctx, h.admin, "", "alice", pin, true))
		try := func(code string) int64 {
			before := h.keys.factors.Load()
			if pin == "" {
				h.changes(h.Service, "alice", code, "0815")
			} else {
				h.try("alice", pin+code)
			}
			return h.keys.factors.Load() - before
		}
		right, wrong := try(d.code(h, 0)), try(d.wrong(h.clock.now().Unix()/30))
		if right != wrong {
			t.Errorf("with PIN %q a right code costs %d HMACs, a wrong one %d", pin, right, wrong)
		}
	}
}

func TestANewPINThatIsNoneIsRefusedBeforeAnythingIsLookedAt(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	h.must(h.SetRules(ctx, h.admin, "", 0, rules(func(r *tokens.Rules) { r.PIN.Max = 8 })))
	loads, records := h.db.loads.Load(), len(h.records("", ""))
	for _, user := range []string{"alice", "nobody", "no\x00body"} {
		for _, pin := range []string{"", "123", "1234", "1212", "471147114", "47\x0011"} {
			_, err := h.ChangePIN(ctx, h.admin, tokens.Attempt{User: user, Code: "4711" + d.code(h, 0)}, pin)
			if !errors.Is(err, tokens.ErrInvalid) || pin != "" && strings.Contains(err.Error(), "alice") {
				t.Errorf("%s, %q: %v", user, pin, err)
			}
		}
	}
	if _, err := h.ChangePIN(ctx, h.admin, tokens.Attempt{User: "alice", Code: "4711" + d.code(h, 0)}, "Ecila"); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("the name backwards: %v", err)
	}
	if h.db.loads.Load() != loads || len(h.records("", "")) != records {
		t.Error("something was looked at, or audited")
	}
	// The old one is none, and only who knows it is told.
	change := func(code string) error {
		r, err := h.ChangePIN(ctx, h.admin, tokens.Attempt{User: "alice", Code: code}, "4711")
		if r.Accept {
			t.Error("accepted")
		}
		return err
	}
	if err := change("4711" + d.wrong(h.clock.now().Unix()/30)); err != nil {
		t.Errorf("with a wrong code: %v", err)
	}
	if err := change("4711" + d.code(h, 0)); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("the same PIN: %v", err)
	}
	if r := h.last(); r.Action != "verify" || r.Outcome != "reject" || r.Reason != "pin_same" || h.standing("alice").Failures != 1 {
		t.Errorf("audited as %+v", r)
	}
	h.ends("alice", "4711"+d.code(h, 0), true, tokens.ReasonAccepted) // it was not used up
	for _, a := range []tokens.Attempt{{}, {User: "alice"}, {Code: "4711"}, {User: "alice", Code: "1", Realm: "a\x00"}} {
		if _, err := h.ChangePIN(ctx, h.admin, a, "0815"); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%+v: %v", a, err)
		}
	}
	h.intact()
}

func TestStrangersWhoChangePINsFillNoDisk(t *testing.T) {
	h := newHouse(t)
	before := len(h.records("", ""))
	for i := range 300 {
		if h.changes(h.Service, fmt.Sprint("nobody", i), "4711000000", "0815") {
			t.Fatal("accepted")
		}
	}
	if n := len(h.records("", "")) - before; n != 10 {
		t.Errorf("%d attempts for users whom there are not are recorded one by one", n)
	}
}

func TestWhoMayChangeAPINForItsUser(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	for _, c := range []struct {
		realm, scope string
		ok           bool
	}{{"", "helpdesk", false}, {"", "read", false}, {"lab", "verify", false}, {"lab", "admin", false}, {"default", "verify", true}} {
		p := h.key(c.realm, c.scope)
		r, err := h.ChangePIN(ctx, p, tokens.Attempt{Realm: "default", User: "alice", Code: "4711" + d.code(h, 0)}, "0815")
		if r.Accept != c.ok || (err == nil) != c.ok || !c.ok && !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("scope %s in realm %q: %+v, %v", c.scope, c.realm, r, err)
		}
		if r := h.last(); !c.ok && (r.Action != string(policy.UserPINChange) || r.Outcome != "denied") {
			t.Errorf("audited as %+v", r)
		}
	}
}

// Attempts on one user in one batch are judged one after another, each on what the
// one before left, and all of it is one commit.
func TestPINsChangeWithinABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		a, b, k := hotp("H1"), totp("T1"), newSeckey("alice")
		h.give("alice", a, b)
		k.count = 5
		h.enrol("alice", k)
		copied := *k
		h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
		h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
		before := h.standing("alice").Version
		heal := h.keys.hang()
		var all sync.WaitGroup
		inTurn := func(f func()) {
			all.Go(f)
			synctest.Wait()
		}
		// It keeps the engine busy, so that the others become one batch.
		inTurn(func() { h.Verify(ctx, h.vpn, tokens.Attempt{User: "nobody", Code: "000000"}) })
		verify := func(code string, want bool) {
			inTurn(func() {
				if got := h.try("alice", code); got != want {
					t.Errorf("%q: %v, want %v", code, got, want)
				}
			})
		}
		change := func(code, pin string, want bool) {
			inTurn(func() {
				if got := h.changes(h.Service, "alice", code, pin); got != want {
					t.Errorf("%q to %q: %v, want %v", code, pin, got, want)
				}
			})
		}
		verify("4711"+a.at(0), true)
		change("4711"+a.at(1), "0815", true)
		verify("4711"+a.at(2), false)
		verify("0815"+a.at(1), false)
		change("0815"+a.at(2), "4712", true)
		change("0815"+a.at(3), "4713", false)
		verify("4712"+a.at(3), true)
		verify("4712"+b.code(h, 0), true)
		inTurn(func() { // a copy of the key shows up meanwhile, and it is suspended
			if r, err := h.VerifyKey(ctx, h.vpn, h.shows("alice", &copied)); r.Accept || err != nil {
				t.Errorf("the copy: %+v, %v", r, err)
			}
		})
		change("4712"+a.at(4), "4714", true)
		time.Sleep(2 * time.Second) // after which the next batch takes all
		heal()
		all.Wait()
		if got := h.standing("alice").Version; got != before+1 {
			t.Errorf("the version went from %d to %d: it was no single commit", before, got)
		}
		h.ends("alice", "4714"+a.at(5), true, tokens.ReasonAccepted)
		h.clock.forward(time.Minute)
		h.ends("alice", "4714"+b.code(h, 0), true, tokens.ReasonAccepted)
		if n := len(h.records("token.suspend", "ok")); n != 1 {
			t.Errorf("%d suspensions", n)
		}
		h.must(h.Resume(ctx, h.admin, "", k.serial, "")) // its row is bound to the last PIN
		h.concludes(h.shows("alice", k), true, tokens.ReasonAccepted)
		h.intact()
	})
}

// Many who know PIN and code, on two nodes: one changes the PIN.
func TestOneCodeChangesThePINOnce(t *testing.T) {
	h := newHouse(t)
	nodes := []*tokens.Service{h.Service, h.node(&firsts{})}
	d := hotp("H1")
	h.give("alice", d, totp("T2"))
	pin := "4711"
	h.must(h.SetPIN(ctx, h.admin, "", "alice", pin, true))
	for round := range int64(12) {
		var all sync.WaitGroup
		var accepted atomic.Int64
		var won atomic.Value
		for i := range 6 {
			next := fmt.Sprintf("pin-%d-%d", round, i)
			all.Go(func() {
				if h.changes(nodes[i%2], "alice", pin+d.at(round), next) {
					accepted.Add(1)
					won.Store(next)
				}
			})
		}
		all.Wait()
		if accepted.Load() != 1 {
			t.Fatalf("round %d: %d changed the PIN", round, accepted.Load())
		}
		pin = won.Load().(string)
		h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
	}
	h.ends("alice", pin+d.at(12), true, tokens.ReasonAccepted)
	h.acceptedOnce()
	h.intact()
}

// The power goes, or the answer is lost, just then.
func TestAPINIsChangedWithItsCodeOrNotAtAll(t *testing.T) {
	for fault, changed := range map[storetest.Fault]bool{storetest.Failed: false, storetest.FailedButPersisted: true, storetest.Conflict: true} {
		h := newHouse(t)
		d := totp("T1")
		h.give("alice", d)
		h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", true))
		h.mem.Inject(fault)
		r, err := h.ChangePIN(ctx, h.admin, tokens.Attempt{User: "alice", Code: "4711" + d.code(h, 0)}, "0815")
		if (fault == storetest.Conflict) != (err == nil && r.Accept) || err != nil && !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("%v: %+v, %v", fault, r, err)
		}
		if changed {
			h.ends("alice", "4711"+d.code(h, 0), false, tokens.ReasonWrongPIN)
			h.ends("alice", "0815"+d.code(h, 0), false, tokens.ReasonReplay)
			h.ends("alice", "0815"+d.code(h, 1), true, tokens.ReasonAccepted)
		} else if !h.changes(h.Service, "alice", "4711"+d.code(h, 0), "0815") {
			t.Errorf("%v: the code is used up, and the PIN is the old one", fault)
		}
		h.intact()
	}
}

// A fault of the HSM after the code was found right uses nothing up.
func TestAnHSMThatFailsWhileAPINIsChangedUsesNoCodeUp(t *testing.T) {
	for n := range 5 {
		h := newHouse(t)
		d := totp("T1")
		h.give("alice", d)
		h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", true))
		h.keys.after(int64(n))
		r, err := h.ChangePIN(ctx, h.admin, tokens.Attempt{User: "alice", Code: "4711" + d.code(h, 0)}, "0815")
		if !errors.Is(err, tokens.ErrUnavailable) || r.Accept {
			t.Errorf("after %d MACs: %+v, %v", n, r, err)
		}
		if r := h.last(); r.Action != "verify" || r.Outcome != "error" || r.Reason != "unavailable" {
			t.Errorf("after %d MACs audited as %+v", n, r)
		}
		h.keys.after(-1)
		if !h.changes(h.Service, "alice", "4711"+d.code(h, 0), "0815") {
			t.Errorf("after %d MACs the code is used up", n)
		}
		h.intact()
	}
}

// A row that was altered is never bound anew.
func TestAnAlteredTokenKeepsItsOwnersPIN(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d, totp("T2"))
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	h.db.edit(func(e *editor) {
		e.token = func(t *tokens.Token) {
			if t.Serial == "T2" {
				t.Digits = 8
			}
		}
	})
	if h.changes(h.Service, "alice", "4711"+d.code(h, 0), "0815") {
		t.Error("accepted")
	}
	if r := h.last(); r.Reason != "tampered" || r.Serial != "T2" {
		t.Errorf("audited as %+v", r)
	}
	h.ends("alice", "4711"+d.code(h, 0), true, tokens.ReasonAccepted)
	h.db.edit(func(e *editor) { e.token = nil })
	h.intact()
}
