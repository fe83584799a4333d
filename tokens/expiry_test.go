package tokens_test

import (
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/policy"
)

// expire says when a token expires.
func (h *house) expire(serial string, at time.Time) {
	h.Helper()
	h.must(h.SetExpiry(ctx, h.admin, "", serial, at))
}

func TestNothingOfATokenIsAcceptedOnceItHasExpired(t *testing.T) {
	h := newHouse(t)
	d, c, y := totp("T1"), hotp("H1"), yubico("7654321")
	h.give("alice", d)
	h.give("bob", c)
	h.give("carol", y)
	end := start.Add(time.Hour)
	for _, serial := range []string{"T1", "H1", "7654321"} {
		h.expire(serial, end)
	}
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	h.ends("bob", c.at(0), true, tokens.ReasonAccepted)
	h.ends("carol", y.types(1, 0, 0), true, tokens.ReasonAccepted)
	h.clock.set(end)
	h.ends("alice", d.code(h, 0), false, tokens.ReasonExpiredUsed)
	h.ends("alice", d.wrong(h.clock.now().Unix()/30), false, tokens.ReasonExpiredToken)
	h.ends("bob", c.at(1), false, tokens.ReasonExpiredUsed)
	h.ends("bob", c.at(0), false, tokens.ReasonExpiredUsed) // it is of no use to say that it was used before
	h.ends("carol", y.types(1, 1, 0), false, tokens.ReasonExpiredUsed)
	if s := h.standing("alice"); s.Failures != 0 {
		t.Errorf("what was typed for a token that has expired is counted: %+v", s)
	}
	// Nothing was used up, and it can be good again.
	h.expire("H1", end.Add(time.Hour))
	h.expire("T1", time.Time{})
	h.ends("bob", c.at(1), true, tokens.ReasonAccepted)
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	h.clock.forward(1000 * time.Hour)
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	h.ends("bob", c.at(2), false, tokens.ReasonExpiredUsed)
	// To a token that is good the codes of one that has expired are guesses.
	h.give("bob", totp("T2"))
	h.ends("bob", c.at(2), false, tokens.ReasonExpiredUsed)
	if s := h.standing("bob"); s.Failures != 1 {
		t.Errorf("%d failures are counted, want 1", s.Failures)
	}
	h.intact()
}

func TestAnExpiredKeyIsNotAccepted(t *testing.T) {
	h := newHouse(t)
	k := newSeckey("one")
	h.enrol("alice", k)
	h.expire(k.serial, start.Add(time.Minute))
	if r, err := h.VerifyKey(ctx, h.vpn, h.shows("alice", k)); err != nil || !r.Accept {
		t.Fatalf("%+v, %v", r, err)
	}
	holder, err := h.LoginHolder(ctx, h.vpn, "", "alice", rp)
	if err != nil || len(holder.Credentials) != 1 || string(holder.Credentials[0].ID) != string(k.id) {
		t.Fatalf("%+v, %v", holder, err)
	}
	h.clock.forward(time.Minute)
	if r, err := h.VerifyKey(ctx, h.vpn, h.shows("alice", k)); err != nil || r.Accept {
		t.Errorf("%+v, %v", r, err)
	}
	if r := h.last(); r.Reason != string(tokens.ReasonExpiredUsed) || r.Serial != k.serial {
		t.Errorf("the audit: %+v", r)
	}
	// Nor is it asked for: made-up ones are, as for anybody without a key.
	if holder, err = h.LoginHolder(ctx, h.vpn, "", "alice", rp); err != nil || len(holder.Credentials) == 0 || string(holder.Credentials[0].ID) == string(k.id) {
		t.Errorf("%+v, %v", holder, err)
	}
	h.expire(k.serial, time.Time{})
	if r, err := h.VerifyKey(ctx, h.vpn, h.shows("alice", k)); err != nil || !r.Accept {
		t.Errorf("good again: %+v, %v", r, err)
	}
	h.intact()
}

// An expiry cannot be edited, taken away or given in the database.
func TestAnAlteredExpiryIsTampering(t *testing.T) {
	h := newHouse(t)
	c := hotp("H1")
	h.give("alice", c)
	for _, was := range []time.Time{{}, start.Add(time.Hour)} {
		h.expire("H1", was)
		for _, is := range []time.Time{{}, start.Add(time.Hour), start.Add(time.Hour + time.Microsecond), start.Add(-time.Hour)} {
			if is.Equal(was) {
				continue
			}
			h.db.edit(func(d *editor) { d.token = func(t *tokens.Token) { t.Expires = is } })
			h.ends("alice", c.at(0), false, tokens.ReasonTampered)
		}
		h.db.edit(func(d *editor) { d.token = nil })
	}
	h.ends("alice", c.at(0), true, tokens.ReasonAccepted)
}

// What cannot be accepted costs as much as a wrong code, and looks the same.
func TestExpiredTokensAndPINsThatAreDueCostWhatWrongCodesDo(t *testing.T) {
	h := newHouse(t)
	old, due := totp("T1"), totp("T2")
	h.give("old", old)
	h.give("due", due)
	h.expire("T1", start)
	for _, pin := range []string{"", "4715"} {
		h.pin("old", pin, false)
		h.pin("due", pin, pin != "")
		want := tokens.ReasonPINDue
		if pin == "" {
			want = tokens.ReasonWrongCode
		}
		for _, c := range []struct {
			user, code string
			reason     tokens.Reason
		}{
			{"old", old.code(h, 0), tokens.ReasonExpiredUsed},
			{"old", old.wrong(h.clock.now().Unix() / 30), tokens.ReasonExpiredToken},
			{"due", due.code(h, 0), want},
			{"due", due.wrong(h.clock.now().Unix() / 30), tokens.ReasonWrongCode},
			{"nobody", "000000", tokens.ReasonUnknownUser},
		} {
			if pin == "" && c.user == "due" {
				continue
			}
			factors, pins, rows := h.keys.factors.Load(), h.keys.pins.Load(), h.keys.bindings.Load()
			h.ends(c.user, pin+c.code, false, c.reason)
			if f, p, r := h.keys.factors.Load()-factors, h.keys.pins.Load()-pins, h.keys.bindings.Load()-rows; f != 3 || p != int64(len(pin)/4) || r != 0 {
				t.Errorf("%s, %s: %d HMACs, %d MACs of PINs, %d of rows", c.user, c.reason, f, p, r)
			}
		}
	}
}

// A code is not used up while the PIN is due: with the next PIN it is still good.
func TestWhileThePINIsDueNothingIsUsedUp(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.pin("alice", "4715", true)
	for range 10 {
		h.ends("alice", "4715"+d.code(h, 0), false, tokens.ReasonPINDue)
	}
	if s := h.standing("alice"); s.Failures != 0 || h.token("T1").Last != -1 {
		t.Errorf("%+v, %+v", s, h.token("T1").Motion)
	}
	h.ends("alice", "4716"+d.code(h, 0), false, tokens.ReasonWrongPIN)
	h.pin("alice", "5826", false)
	h.ends("alice", "5826"+d.code(h, 0), true, tokens.ReasonAccepted)
	h.ends("alice", "5826"+d.code(h, 0), false, tokens.ReasonReplay)
}

func TestWhyTellsCodesKeysAndPasscodesApart(t *testing.T) {
	h := newHouse(t)
	h.allow()
	d, k := totp("T1"), newSeckey("one")
	h.give("alice", d)
	h.enrol("alice", k)
	_, codes := h.recovery("alice")
	_, temporary := h.temporary("alice", tokens.TemporaryRequest{Uses: 1})
	says := func(want string) {
		t.Helper()
		list, err := h.Why(ctx, h.admin, "", "alice", 1)
		if err != nil || len(list) != 1 || list[0].Words != want {
			t.Errorf("%+v, %v; want %q", list, err, want)
		}
	}
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	says("The code was right.")
	h.ends("alice", d.code(h, 0), false, tokens.ReasonReplay)
	says("This code was used before.")
	answer := h.shows("alice", k)
	if r, err := h.VerifyKey(ctx, h.vpn, answer); err != nil || !r.Accept {
		t.Fatalf("%+v, %v", r, err)
	}
	says("The key was right.")
	if r, err := h.VerifyKey(ctx, h.vpn, answer); err != nil || r.Accept {
		t.Fatalf("%+v, %v", r, err)
	}
	says("This answer of the key was used before.")
	h.ends("alice", codes[6], true, tokens.ReasonAccepted)
	says("The recovery code was right; it was number 7 of the sheet.")
	h.ends("alice", temporary, true, tokens.ReasonAccepted)
	says("The temporary passcode was right; it was use 1 of it.")
	h.ends("alice", temporary, false, tokens.ReasonUsedUp)
	says("The temporary passcode was right, but it was used as often as it may be.")
	h.expire("T1", start)
	h.ends("alice", d.code(h, 1), false, tokens.ReasonExpiredUsed)
	says("The code was that of a token that has expired.")
	h.expire(k.serial, start)
	if r, err := h.VerifyKey(ctx, h.vpn, h.shows("alice", k)); err != nil || r.Accept {
		t.Fatalf("%+v, %v", r, err)
	}
	says("The key has expired.")
	if n := len(h.records(string(policy.Verify), "accept")); n != 4 {
		t.Errorf("%d accepts", n)
	}
}
