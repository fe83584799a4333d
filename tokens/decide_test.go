package tokens

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/hsm"
)

// held makes a candidate as compute does: a token, what was typed, and the
// MACs of the token's window.
func held(user *User, token *Token, typed, pin string) candidate {
	seed := []byte(fmt.Sprintf("seed of %s, and twenty bytes more", token.Serial))
	c := candidate{token: token, expired: token.expired(at)}
	var typedPIN string
	typedPIN, c.code = split(typed, token.Digits)
	c.bare = typedPIN == ""
	c.pinOK = c.bare && !user.HasPIN() || user.HasPIN() && typedPIN == pin
	w := DefaultWindows()
	c.factors = w.factors(nil, token, at)
	for _, f := range c.factors {
		c.macs = append(c.macs, factorMAC(token.Algorithm, seed, f))
	}
	return c
}

func shows(token *Token, factor int64) string {
	return codeText(token.Algorithm, []byte(fmt.Sprintf("seed of %s, and twenty bytes more", token.Serial)), token.Digits, uint64(factor))
}

func inState(token *Token, serial string, state State) *Token {
	c := *token
	c.Serial, c.State = serial, state
	return &c
}

func TestEachAttemptIsDecidedForOneReason(t *testing.T) {
	plain := &User{State: UserEnabled}
	withPIN := &User{State: UserEnabled, PINSalt: make([]byte, 16), PINMAC: make([]byte, 32)}
	s := step(at, 30)
	fresh := totpToken(30, used(s-5, 0)) // T1
	spent := totpToken(30, used(s, 0))   // T1
	eight := inState(fresh, "T8", Active)
	eight.Digits = 8
	counter := hotpToken(5)
	old := inState(fresh, "T1", Active)
	old.Expires = at // at that moment it has
	last := inState(fresh, "T1", Active)
	last.Expires = at.Add(1)
	oldSpent := inState(spent, "T1", Active)
	oldSpent.Expires = at.Add(-time.Hour)
	oldLost := inState(old, "T1", Lost)
	due := &User{State: UserEnabled, PINSalt: make([]byte, 16), PINMAC: make([]byte, 32), PINDue: true}
	dueNone := &User{State: UserEnabled, PINDue: true}
	right, next := shows(fresh, s), shows(fresh, s+1)
	wrong := "000000"
	for right == wrong || next == wrong || shows(fresh, s-1) == wrong {
		t.Fatal("choose another wrong code")
	}
	fault := errors.New("the HSM is away")

	type one struct {
		token *Token
		err   error
	}
	all := func(list ...*Token) (out []one) {
		for _, token := range list {
			out = append(out, one{token: token})
		}
		return out
	}
	for _, c := range []struct {
		name    string
		user    *User
		bar     Reason
		tokens  []one
		typed   string
		accept  bool
		counted bool
		reason  Reason
		serial  string
		fault   bool
	}{
		{name: "the right code", user: plain, tokens: all(fresh), typed: right, accept: true, reason: ReasonAccepted, serial: "T1"},
		{name: "the next step's code", user: plain, tokens: all(fresh), typed: next, accept: true, reason: ReasonAccepted, serial: "T1"},
		{name: "a wrong code", user: plain, tokens: all(fresh), typed: wrong, counted: true, reason: ReasonWrongCode},
		{name: "a code two steps off", user: plain, tokens: all(fresh), typed: shows(fresh, s+2), counted: true, reason: ReasonWrongCode},
		{name: "a replay", user: plain, tokens: all(spent), typed: right, reason: ReasonReplay, serial: "T1"},
		{name: "a code before the last", user: plain, tokens: all(spent), typed: shows(spent, s-1), reason: ReasonReplay, serial: "T1"},
		{name: "the code after the last", user: plain, tokens: all(spent), typed: next, accept: true, reason: ReasonAccepted, serial: "T1"},
		{name: "HOTP: the counter expected", user: plain, tokens: all(counter), typed: shows(counter, 5), accept: true, reason: ReasonAccepted, serial: "H1"},
		{name: "HOTP: the end of the look-ahead", user: plain, tokens: all(counter), typed: shows(counter, 14), accept: true, reason: ReasonAccepted, serial: "H1"},
		{name: "HOTP: beyond the look-ahead", user: plain, tokens: all(counter), typed: shows(counter, 15), counted: true, reason: ReasonWrongCode},
		{name: "HOTP: the last one used", user: plain, tokens: all(counter), typed: shows(counter, 4), reason: ReasonReplay, serial: "H1"},
		{name: "HOTP: used long before", user: plain, tokens: all(counter), typed: shows(counter, 3), counted: true, reason: ReasonWrongCode},

		{name: "text for a code", user: plain, tokens: all(fresh), typed: "letmein", counted: true, reason: ReasonWrongCode},
		{name: "a code too short", user: plain, tokens: all(fresh), typed: right[:5], counted: true, reason: ReasonWrongCode},
		{name: "a code with a space behind", user: plain, tokens: all(fresh), typed: right + " ", counted: true, reason: ReasonWrongCode},
		{name: "something before the code, no PIN set", user: plain, tokens: all(fresh), typed: "1234" + right, counted: true, reason: ReasonWrongCode},
		{name: "something before a replay, no PIN set", user: plain, tokens: all(spent), typed: "1234" + right, counted: true, reason: ReasonWrongCode},

		{name: "PIN and code", user: withPIN, tokens: all(fresh), typed: "1234" + right, accept: true, reason: ReasonAccepted, serial: "T1"},
		{name: "PIN set, bare code", user: withPIN, tokens: all(fresh), typed: right, counted: true, reason: ReasonNoPIN, serial: "T1"},
		{name: "wrong PIN, right code", user: withPIN, tokens: all(fresh), typed: "1235" + right, counted: true, reason: ReasonWrongPIN, serial: "T1"},
		{name: "right PIN, wrong code", user: withPIN, tokens: all(fresh), typed: "1234" + wrong, counted: true, reason: ReasonWrongCode},
		{name: "wrong PIN, wrong code", user: withPIN, tokens: all(fresh), typed: "1235" + wrong, counted: true, reason: ReasonWrongCode},
		{name: "PIN and replay", user: withPIN, tokens: all(spent), typed: "1234" + right, reason: ReasonReplay, serial: "T1"},
		{name: "wrong PIN and replay", user: withPIN, tokens: all(spent), typed: "1235" + right, counted: true, reason: ReasonWrongPIN, serial: "T1"},
		{name: "no PIN and replay", user: withPIN, tokens: all(spent), typed: right, counted: true, reason: ReasonNoPIN, serial: "T1"},
		{name: "the PIN alone", user: withPIN, tokens: all(fresh), typed: "1234", counted: true, reason: ReasonWrongCode},
		{name: "PIN of digits, token of 8 digits", user: withPIN, tokens: all(eight), typed: "1234" + shows(eight, s), accept: true, reason: ReasonAccepted, serial: "T8"},
		{name: "PIN behind the code", user: withPIN, tokens: all(fresh), typed: right + "1234", counted: true, reason: ReasonWrongCode},

		{name: "the second of two tokens", user: plain, tokens: all(counter, fresh), typed: right, accept: true, reason: ReasonAccepted, serial: "T1"},
		{name: "tokens of other lengths: the short one", user: plain, tokens: all(eight, fresh), typed: right, accept: true, reason: ReasonAccepted, serial: "T1"},
		{name: "tokens of other lengths: the long one", user: plain, tokens: all(fresh, eight), typed: shows(eight, s), accept: true, reason: ReasonAccepted, serial: "T8"},
		{name: "PIN and tokens of other lengths", user: withPIN, tokens: all(eight, fresh), typed: "1234" + right, accept: true, reason: ReasonAccepted, serial: "T1"},
		{name: "one token's replay, nothing of the other", user: plain, tokens: all(counter, spent), typed: right, reason: ReasonReplay, serial: "T1"},

		{name: "no token", user: plain, typed: right, reason: ReasonNoToken},
		{name: "a suspended token's code", user: plain, tokens: all(inState(fresh, "T1", Suspended)), typed: right, reason: ReasonSuspendedUsed, serial: "T1"},
		{name: "a suspended token, wrong code", user: plain, tokens: all(inState(fresh, "T1", Suspended)), typed: wrong, reason: ReasonSuspended, serial: "T1"},
		{name: "a lost token's code", user: plain, tokens: all(inState(fresh, "T1", Lost)), typed: right, reason: ReasonLostUsed, serial: "T1"},
		{name: "a lost token's replay", user: plain, tokens: all(inState(spent, "T1", Lost)), typed: right, reason: ReasonLostUsed, serial: "T1"},
		{name: "a lost token, wrong code", user: plain, tokens: all(inState(fresh, "T1", Lost)), typed: wrong, reason: ReasonLost, serial: "T1"},
		{name: "a lost token's code without the PIN", user: withPIN, tokens: all(inState(fresh, "T1", Lost)), typed: right, reason: ReasonLost, serial: "T1"},
		{name: "a lost token's code beside an active token", user: plain, tokens: all(counter, inState(fresh, "T1", Lost)), typed: right, counted: true, reason: ReasonLostUsed, serial: "T1"},
		{name: "a wrong code beside a lost token", user: plain, tokens: all(inState(fresh, "T2", Lost), counter), typed: wrong, counted: true, reason: ReasonWrongCode},
		{name: "the active token beside a lost one", user: plain, tokens: all(inState(fresh, "T2", Lost), fresh), typed: right, accept: true, reason: ReasonAccepted, serial: "T1"},
		{name: "an imported token belongs to nobody", user: plain, tokens: all(inState(fresh, "T1", Imported)), typed: right, reason: ReasonNoToken},
		{name: "a revoked token", user: plain, tokens: all(inState(fresh, "T1", Revoked)), typed: right, reason: ReasonNoToken},
		{name: "a state that nobody knows", user: plain, tokens: all(inState(fresh, "T1", "actife")), typed: right, reason: ReasonNoToken},

		{name: "an expired token's code", user: plain, tokens: all(old), typed: right, reason: ReasonExpiredUsed, serial: "T1"},
		{name: "an expired token's replay", user: plain, tokens: all(oldSpent), typed: right, reason: ReasonExpiredUsed, serial: "T1"},
		{name: "an expired token, wrong code", user: plain, tokens: all(old), typed: wrong, reason: ReasonExpiredToken, serial: "T1"},
		{name: "an expired token's code without the PIN", user: withPIN, tokens: all(old), typed: right, reason: ReasonExpiredToken, serial: "T1"},
		{name: "the moment before", user: plain, tokens: all(last), typed: right, accept: true, reason: ReasonAccepted, serial: "T1"},
		{name: "lost, and expired since", user: plain, tokens: all(oldLost), typed: right, reason: ReasonLostUsed, serial: "T1"},
		{name: "an expired token's code beside an active token", user: plain, tokens: all(counter, old), typed: right, counted: true, reason: ReasonExpiredUsed, serial: "T1"},
		{name: "a wrong code beside an expired token", user: plain, tokens: all(inState(old, "T2", Active), counter), typed: wrong, counted: true, reason: ReasonWrongCode},
		{name: "the active token beside an expired one", user: plain, tokens: all(inState(old, "T2", Active), fresh), typed: right, accept: true, reason: ReasonAccepted, serial: "T1"},
		{name: "an expired token's code, locked", user: plain, bar: ReasonLocked, tokens: all(old), typed: right, reason: ReasonLocked, serial: "T1"},
		{name: "an imported token that has expired", user: plain, tokens: all(inState(old, "T1", Imported)), typed: right, reason: ReasonNoToken},

		{name: "PIN due, PIN and code", user: due, tokens: all(fresh), typed: "1234" + right, reason: ReasonPINDue, serial: "T1"},
		{name: "PIN due, wrong PIN", user: due, tokens: all(fresh), typed: "1235" + right, counted: true, reason: ReasonWrongPIN, serial: "T1"},
		{name: "PIN due, wrong code", user: due, tokens: all(fresh), typed: "1234" + wrong, counted: true, reason: ReasonWrongCode},
		{name: "PIN due, bare code", user: due, tokens: all(fresh), typed: right, counted: true, reason: ReasonNoPIN, serial: "T1"},
		{name: "PIN due, a replay", user: due, tokens: all(spent), typed: "1234" + right, reason: ReasonReplay, serial: "T1"},
		{name: "PIN due, locked", user: due, bar: ReasonLocked, tokens: all(fresh), typed: "1234" + right, reason: ReasonLocked},
		{name: "PIN due, a lost token", user: due, tokens: all(inState(fresh, "T1", Lost)), typed: "1234" + right, reason: ReasonLostUsed, serial: "T1"},
		{name: "PIN due, an expired token", user: due, tokens: all(old), typed: "1234" + right, reason: ReasonExpiredUsed, serial: "T1"},
		{name: "PIN due, and a fault of another token", user: due, tokens: []one{{counter, fault}, {token: fresh}}, typed: "1234" + right, reason: ReasonPINDue, serial: "T1"},
		{name: "PIN due, and a fault", user: due, tokens: []one{{fresh, fault}}, typed: "1234" + right, reason: ReasonUnavailable, fault: true},
		{name: "PIN due of a user without one", user: dueNone, tokens: all(fresh), typed: right, accept: true, reason: ReasonAccepted, serial: "T1"},

		{name: "locked, right code", user: plain, bar: ReasonLocked, tokens: all(fresh), typed: right, reason: ReasonLocked},
		{name: "throttled, right code", user: plain, bar: ReasonThrottled, tokens: all(fresh), typed: right, reason: ReasonThrottled},
		{name: "throttled, wrong code", user: plain, bar: ReasonThrottled, tokens: all(fresh), typed: wrong, reason: ReasonThrottled},
		{name: "disabled, replay", user: plain, bar: ReasonDisabled, tokens: all(spent), typed: right, reason: ReasonDisabled, serial: "T1"},
		{name: "disabled, no token", user: plain, bar: ReasonDisabled, typed: right, reason: ReasonDisabled},

		{name: "a tampered row", user: plain, tokens: []one{{fresh, hsm.ErrTampered}}, typed: right, reason: ReasonTampered, serial: "T1"},
		{name: "a tampered row beside a good one", user: plain, tokens: []one{{fresh, hsm.ErrTampered}, {token: counter}}, typed: shows(counter, 5), accept: true, reason: ReasonAccepted, serial: "H1"},
		{name: "a tampered row beside a wrong code", user: plain, tokens: []one{{fresh, hsm.ErrTampered}, {token: counter}}, typed: wrong, counted: true, reason: ReasonTampered, serial: "T1"},
		{name: "a fault", user: plain, tokens: []one{{fresh, fault}}, typed: right, reason: ReasonUnavailable, fault: true},
		{name: "a fault that may hide the match", user: plain, tokens: []one{{token: counter}, {fresh, fault}}, typed: wrong, counted: true, reason: ReasonUnavailable, fault: true},
		{name: "a match in spite of another token's fault", user: plain, tokens: []one{{fresh, fault}, {token: counter}}, typed: shows(counter, 5), accept: true, reason: ReasonAccepted, serial: "H1"},
		{name: "a fault while locked", user: plain, bar: ReasonLocked, tokens: []one{{fresh, fault}}, typed: right, reason: ReasonUnavailable, fault: true},
	} {
		var candidates []candidate
		for _, o := range c.tokens {
			h := held(c.user, o.token, c.typed, "1234")
			if o.err != nil {
				h.err, h.macs = o.err, nil
			}
			candidates = append(candidates, h)
		}
		v := decide(c.user, c.bar, candidates)
		serial := ""
		if v.token != nil {
			serial = v.token.Serial
		}
		if v.accept != c.accept || v.counted != c.counted || v.reason != c.reason || serial != c.serial || (v.err != nil) != c.fault {
			t.Errorf("%s: accept %v, counted %v, reason %s, token %q, error %v;\nwant accept %v, counted %v, reason %s, token %q, a fault %v",
				c.name, v.accept, v.counted, v.reason, serial, v.err, c.accept, c.counted, c.reason, c.serial, c.fault)
		}
	}
}

// heldPass makes a candidate as compute does of a passcode's token and the code that
// was typed: one of the sheet, from 0, or none.
func heldPass(token *Token, which int, pinOK, bare bool) candidate {
	c := candidate{token: token, pass: &passcode{}, pinOK: pinOK, bare: bare, expired: token.expired(at)}
	mac := make([]byte, macSize)
	if which >= 0 {
		mac = token.Passcodes[which]
	}
	c.pass.judge(token, mac)
	return c
}

func TestEachPasscodeIsDecidedForOneReason(t *testing.T) {
	plain := &User{State: UserEnabled}
	withPIN := &User{State: UserEnabled, PINSalt: make([]byte, 16), PINMAC: make([]byte, 32)}
	due := &User{State: UserEnabled, PINSalt: make([]byte, 16), PINMAC: make([]byte, 32), PINDue: true}
	fresh := sheet(10, 1<<3)
	temporary, usedUp, over := stopgap(3, 2), stopgap(3, 3), stopgap(3, 0)
	over.Expires = at
	wrongOTP := held(plain, hotpToken(5), "w0rds3a19xyz", "")
	decoy := func(err error) candidate {
		c := heldPass(sheet(1, 0), -1, true, true)
		c.decoy, c.err = true, err
		return c
	}
	failing := func(token *Token, err error) candidate {
		c := heldPass(token, -1, true, true)
		c.err = err
		return c
	}
	fault := errors.New("the HSM is away")
	for _, c := range []struct {
		name    string
		user    *User
		bar     Reason
		cands   []candidate
		accept  bool
		counted bool
		reason  Reason
		serial  string
		factor  uint64
		fault   bool
	}{
		{name: "a code of the sheet", user: plain, cands: []candidate{heldPass(fresh, 7, true, true)}, accept: true, reason: ReasonAccepted, serial: "R", factor: 7},
		{name: "the first", user: plain, cands: []candidate{heldPass(fresh, 0, true, true)}, accept: true, reason: ReasonAccepted, serial: "R", factor: 0},
		{name: "one that was used", user: plain, cands: []candidate{heldPass(fresh, 3, true, true)}, reason: ReasonReplay, serial: "R"},
		{name: "none of them", user: plain, cands: []candidate{heldPass(fresh, -1, true, true)}, counted: true, reason: ReasonWrongCode},
		{name: "something before it, no PIN set", user: plain, cands: []candidate{heldPass(fresh, 7, false, false)}, counted: true, reason: ReasonWrongCode},
		{name: "PIN and code", user: withPIN, cands: []candidate{heldPass(fresh, 7, true, false)}, accept: true, reason: ReasonAccepted, serial: "R", factor: 7},
		{name: "a wrong PIN", user: withPIN, cands: []candidate{heldPass(fresh, 7, false, false)}, counted: true, reason: ReasonWrongPIN, serial: "R"},
		{name: "no PIN", user: withPIN, cands: []candidate{heldPass(fresh, 7, false, true)}, counted: true, reason: ReasonNoPIN, serial: "R"},
		{name: "a wrong PIN before a used one", user: withPIN, cands: []candidate{heldPass(fresh, 3, false, false)}, counted: true, reason: ReasonWrongPIN, serial: "R"},
		{name: "PIN due", user: due, cands: []candidate{heldPass(fresh, 7, true, false)}, reason: ReasonPINDue, serial: "R", factor: 7},
		{name: "suspended", user: plain, cands: []candidate{heldPass(inState(fresh, "R", Suspended), 7, true, true)}, reason: ReasonSuspendedUsed, serial: "R"},
		{name: "lost", user: plain, cands: []candidate{heldPass(inState(fresh, "R", Lost), 7, true, true)}, reason: ReasonLostUsed, serial: "R"},
		{name: "revoked", user: plain, cands: []candidate{heldPass(inState(fresh, "R", Revoked), 7, true, true)}, reason: ReasonNoToken},
		{name: "locked", user: plain, bar: ReasonLocked, cands: []candidate{heldPass(fresh, 7, true, true)}, reason: ReasonLocked},
		{name: "throttled, and wrong", user: plain, bar: ReasonThrottled, cands: []candidate{heldPass(fresh, -1, true, true)}, reason: ReasonThrottled},
		{name: "an altered row", user: plain, cands: []candidate{failing(fresh, hsm.ErrTampered)}, reason: ReasonTampered, serial: "R"},
		{name: "a fault", user: plain, cands: []candidate{failing(fresh, fault)}, reason: ReasonUnavailable, fault: true},

		{name: "temporary", user: plain, cands: []candidate{heldPass(temporary, 0, true, true)}, accept: true, reason: ReasonAccepted, serial: "T", factor: 2},
		{name: "temporary, used up", user: plain, cands: []candidate{heldPass(usedUp, 0, true, true)}, reason: ReasonUsedUp, serial: "T"},
		{name: "temporary, used up, a wrong one", user: plain, cands: []candidate{heldPass(usedUp, -1, true, true)}, counted: true, reason: ReasonWrongCode},
		{name: "temporary, expired", user: plain, cands: []candidate{heldPass(over, 0, true, true)}, reason: ReasonExpiredUsed, serial: "T"},
		{name: "temporary, expired, a wrong one", user: plain, cands: []candidate{heldPass(over, -1, true, true)}, reason: ReasonExpiredToken, serial: "T"},

		{name: "wrong for the OTP token, right for the sheet", user: plain, cands: []candidate{wrongOTP, heldPass(fresh, 1, true, true), heldPass(temporary, -1, true, true)}, accept: true, reason: ReasonAccepted, serial: "R", factor: 1},
		{name: "wrong for all", user: plain, cands: []candidate{wrongOTP, heldPass(fresh, -1, true, true), heldPass(temporary, -1, true, true)}, counted: true, reason: ReasonWrongCode},
		{name: "wrong for the OTP token, used of the sheet", user: plain, cands: []candidate{wrongOTP, heldPass(fresh, 3, true, true)}, reason: ReasonReplay, serial: "R"},
		{name: "wrong for the OTP token, and decoys", user: plain, cands: []candidate{wrongOTP, decoy(nil), decoy(nil)}, counted: true, reason: ReasonWrongCode},
		{name: "decoys alone", user: plain, cands: []candidate{decoy(nil), decoy(nil)}, reason: ReasonNoToken},
		{name: "decoys alone, locked", user: plain, bar: ReasonLocked, cands: []candidate{decoy(nil)}, reason: ReasonLocked},
		{name: "an altered decoy", user: plain, cands: []candidate{decoy(hsm.ErrTampered)}, reason: ReasonNoToken},
		{name: "a fault of a decoy", user: plain, cands: []candidate{decoy(fault)}, reason: ReasonUnavailable, fault: true},
		{name: "a fault of a decoy beside a guess", user: plain, cands: []candidate{wrongOTP, decoy(fault)}, counted: true, reason: ReasonUnavailable, fault: true},
		{name: "right, in spite of a decoy's fault", user: plain, cands: []candidate{decoy(fault), heldPass(fresh, 1, true, true)}, accept: true, reason: ReasonAccepted, serial: "R", factor: 1},
	} {
		v := decide(c.user, c.bar, c.cands)
		serial := ""
		if v.token != nil {
			serial = v.token.Serial[:1]
		}
		if v.accept != c.accept || v.counted != c.counted || v.reason != c.reason || serial != c.serial || v.factor != c.factor || (v.err != nil) != c.fault {
			t.Errorf("%s: accept %v, counted %v, reason %s, token %q, factor %d, error %v;\nwant accept %v, counted %v, reason %s, token %q, factor %d, a fault %v",
				c.name, v.accept, v.counted, v.reason, serial, v.factor, v.err, c.accept, c.counted, c.reason, c.serial, c.factor, c.fault)
		}
	}
}

func TestWhoIsBarredIsBarredForTheGravestReason(t *testing.T) {
	throttle := DefaultThrottle()
	on, off := &User{State: UserEnabled}, &User{State: UserDisabled}
	var waiting Standing
	for range 6 {
		waiting = throttle.fail(waiting, "vpn", at)
	}
	locked := waiting
	locked.Locked = true
	for _, c := range []struct {
		user   *User
		s      *Standing
		client string
		want   Reason
	}{
		{on, &Standing{}, "vpn", ""},
		{on, &waiting, "vpn", ReasonThrottled},
		{on, &waiting, "other", ""},
		{on, &locked, "other", ReasonLocked},
		{on, &locked, "vpn", ReasonLocked},
		{off, &locked, "vpn", ReasonDisabled},
		{off, &Standing{}, "vpn", ReasonDisabled},
		{&User{}, &Standing{}, "vpn", ReasonDisabled},
		{&User{State: "enabled "}, &Standing{}, "vpn", ReasonDisabled},
	} {
		if got := barred(c.user, c.s, &throttle, c.client, at); got != c.want {
			t.Errorf("%q with %+v through %s is barred by %q, want %q", c.user.State, *c.s, c.client, got, c.want)
		}
	}
}

// The promises, on any tokens, any faults and anything typed.
func TestPromisesOfDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		user := &User{State: UserEnabled}
		pin := ""
		if rapid.Bool().Draw(t, "has PIN") {
			user.PINMAC, pin = bytes.Repeat([]byte{1}, 32), rapid.SampledFrom([]string{"1234", "12", "pin"}).Draw(t, "PIN")
		}
		user.PINDue = rapid.IntRange(0, 3).Draw(t, "PIN due") == 0
		bar := rapid.SampledFrom([]Reason{"", "", ReasonLocked, ReasonThrottled, ReasonDisabled}).Draw(t, "bar")
		var list []*Token
		for i := range rapid.IntRange(0, 4).Draw(t, "tokens") {
			token := totpToken(30, used(step(at, 30)+rapid.Int64Range(-3, 3).Draw(t, "last"), rapid.IntRange(-2, 2).Draw(t, "drift")))
			if rapid.Bool().Draw(t, "hotp") {
				token = hotpToken(rapid.Int64Range(0, 20).Draw(t, "counter"))
			}
			token.Digits = rapid.IntRange(6, 8).Draw(t, "digits")
			token.State = rapid.SampledFrom([]State{Active, Active, Suspended, Lost, Imported}).Draw(t, "state")
			token.Serial = fmt.Sprint(i)
			token.Expires = rapid.SampledFrom([]time.Time{{}, {}, at, at.Add(1), at.Add(-time.Hour)}).Draw(t, "expires")
			list = append(list, token)
		}
		typed := rapid.SampledFrom([]string{"000000", "", "12", "1234000000", "x"}).Draw(t, "guess")
		if len(list) > 0 && rapid.IntRange(0, 3).Draw(t, "guessing") > 0 {
			of := rapid.SampledFrom(list).Draw(t, "token")
			w := DefaultWindows()
			f := rapid.SampledFrom(w.factors(nil, of, at)).Draw(t, "factor")
			typed = rapid.SampledFrom([]string{pin, pin, "", "9999"}).Draw(t, "typed PIN") + shows(of, int64(f))
		}
		var candidates []candidate
		faults := 0
		for _, token := range list {
			c := held(user, token, typed, pin)
			switch rapid.IntRange(0, 5).Draw(t, "fault") {
			case 0:
				c.err = fmt.Errorf("tried: %w", hsm.ErrTampered)
			case 1:
				c.err = ErrUnavailable
				faults++
			}
			candidates = append(candidates, c)
		}
		v := decide(user, bar, candidates)

		var possible []*candidate // what the plain words of the promises allow
		anyActive, isReplay := false, false
		for i := range candidates {
			c := &candidates[i]
			if c.err != nil || c.token.State != Active || !c.token.Expires.IsZero() && !at.Before(c.token.Expires) {
				continue
			}
			anyActive = true
			if !c.pinOK {
				continue
			}
			for k, f := range c.factors {
				if !matches(c.macs[k], c.token.Digits, c.code) {
					continue
				}
				if c.token.fresh(f) {
					possible = append(possible, c)
				} else {
					isReplay = true
				}
			}
		}
		switch {
		case v.accept && (bar != "" || len(possible) == 0):
			t.Fatal("accepted, and nothing allows it")
		case v.accept && user.PINDue && user.HasPIN():
			t.Fatal("accepted, and the PIN is due")
		case !v.accept && bar == "" && len(possible) > 0 && user.PINDue && user.HasPIN():
			if v.reason != ReasonPINDue || v.counted || v.err != nil {
				t.Fatalf("nothing but the PIN's age is wrong, and the verdict is %+v", v)
			}
		case v.reason == ReasonPINDue:
			t.Fatal("the PIN is due, and more is wrong")
		case v.accept && (v.counted || v.err != nil || !v.token.fresh(v.factor) || v.token.State != Active):
			t.Fatalf("an accept with %+v", v)
		case !v.accept && bar == "" && len(possible) > 0:
			t.Fatalf("rejected with %+v, and nothing forbids it", v)
		case bar != "" && v.counted:
			t.Fatal("a barred attempt is counted")
		case v.counted && !anyActive:
			t.Fatal("counted, and held against no active token")
		case v.counted && isReplay:
			t.Fatal("a replay is counted")
		case bar == "" && !v.accept && v.err != nil && anyActive && !isReplay && !v.counted:
			t.Fatal("a guess without a verdict is not counted")
		case !v.accept && faults > 0 && v.err == nil:
			t.Fatalf("%d faults, and a verdict: %+v", faults, v)
		case v.err != nil && faults == 0:
			t.Fatalf("no fault, and no verdict: %v", v.err)
		case bar != "" && v.err == nil && v.reason != bar:
			t.Fatalf("barred for %s, told %s", bar, v.reason)
		}
		if v.accept {
			next := *v.token
			next.Motion = v.token.consume(v.factor, at)
			if next.fresh(v.factor) || next.Last < v.token.Last {
				t.Fatalf("accepting %d moved %d to %d", v.factor, v.token.Last, next.Last)
			}
			// The same again, on the state that it left.
			*v.token = next
			for i := range candidates {
				candidates[i] = held(user, candidates[i].token, typed, pin)
			}
			if again := decide(user, bar, candidates); again.accept && again.token == v.token && again.factor == v.factor {
				t.Fatal("accepted twice")
			}
		}
	})
}
