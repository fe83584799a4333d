package tokens_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens"
	"watchword/tokens/storetest"
)

// model is what the core should do, in the plainest words: one user at a time,
// no batches, no versions, no HSM.
type model struct {
	h      *house
	t      *rapid.T
	users  map[string]*modelUser
	tokens map[string]*modelToken
	keys   []string // the serials of those that are FIDO keys
}

type modelUser struct {
	disabled, locked bool
	pin              string
	failures         int
	by               map[string]int // failures by client
	last             map[string]time.Time
}

type modelToken struct {
	*device
	state   tokens.State
	owner   string
	next    int64 // the lowest factor never consumed
	drift   int64
	used    time.Time
	shipped time.Time        // what counts as used while it never was
	shown   map[string]int64 // a YubiKey's codes that were made, and their factors

	key   *seckey // a FIDO key; next is the last count then
	maker string  // whom it was enrolled for
	past  []*modelAnswer
}

// modelAnswer is an answer of a key that was made.
type modelAnswer struct {
	tokens.KeyAttempt
	count uint32
	spent bool
}

// at is device.at, and remembers what it made.
func (k *modelToken) at(factor int64) string {
	code := k.device.at(factor)
	if k.shown != nil {
		k.shown[code] = factor
	}
	return code
}

func (m *model) now() time.Time { return m.h.clock.now() }

// window is the lowest and highest factor that a code may have.
func (m *model) window(k *modelToken) (low, high int64) {
	switch k.Type {
	case tokens.HOTP:
		return k.next, k.next + 9
	case tokens.YubicoOTP:
		return k.next, 0x7fffff
	}
	centre := m.now().Unix()/int64(k.Period) + k.drift
	reach := min(1+int64(m.now().Sub(k.used)/(30*24*time.Hour)), 5)
	return centre - reach, centre + reach
}

// known are the factors of which a code is recognised, though it is consumed.
func (m *model) known(k *modelToken) (low, high int64) {
	low, high = m.window(k)
	if k.Type == tokens.HOTP {
		low = max(k.next-1, 0)
	}
	return low, high
}

func (u *modelUser) wait(client string, now time.Time) bool {
	n := u.by[client] - 5
	if n <= 0 {
		return false
	}
	wait := 15 * time.Minute
	if n < 10 {
		wait = time.Duration(1<<n) * time.Second
	}
	return now.Before(u.last[client].Add(min(wait, 15*time.Minute)))
}

func (u *modelUser) fail(client string, now time.Time) {
	u.failures++
	u.by[client]++
	u.last[client] = now.Truncate(time.Millisecond)
	u.locked = u.locked || u.failures >= 100
}

func (u *modelUser) clear() {
	u.failures, u.locked = 0, false
	u.by, u.last = map[string]int{}, map[string]time.Time{}
}

// verify says whether an attempt is to be accepted, and does what follows.
func (m *model) verify(user, typed string) bool {
	u := m.users[user]
	if u == nil || u.disabled || u.locked || u.wait("localhost", m.now()) {
		return false
	}
	guess, excused := false, false
	for _, k := range m.tokens {
		if k.owner != user || k.key != nil {
			continue
		}
		low, high := m.known(k)
		if k.shown != nil {
			// All of its codes are known, by what they hold.
			low, high = 0, -1
			if at := len(typed) - 44; at >= 0 && typed[:at] == u.pin {
				if f, ok := k.shown[typed[at:]]; ok {
					low, high = f, f
				}
			}
		}
		for f := max(low, 0); f <= high; f++ {
			if typed != u.pin+k.at(f) {
				continue
			}
			if fresh, _ := m.window(k); k.state == tokens.Active && f >= k.next && f >= fresh {
				k.consume(f, m.now())
				u.clear()
				return true
			}
			excused = excused || k.state == tokens.Active // a replay
		}
		guess = guess || k.state == tokens.Active
	}
	if guess && !excused {
		u.fail("localhost", m.now())
	}
	return false
}

// verifyKey says whether a key's answer is to be accepted, and does what follows.
func (m *model) verifyKey(user string, k *modelToken, a *modelAnswer) bool {
	if user == "" {
		user = k.owner
	}
	u := m.users[user]
	switch {
	case u == nil || k.owner != user || u.disabled || u.locked || u.wait("localhost", m.now()):
	case !m.now().Before(a.Expires) || a.spent || k.state != tokens.Active:
	case (k.next != 0 || a.count != 0) && int64(a.count) <= k.next:
		k.state, a.spent = tokens.Suspended, true
	default:
		k.next, k.used, a.spent = int64(a.count), m.now(), true
		u.clear()
		return true
	}
	return false
}

func (k *modelToken) consume(f int64, now time.Time) {
	k.next, k.used = f+1, now.Truncate(time.Second)
	if k.Type == tokens.TOTP {
		k.drift = f - now.Unix()/int64(k.Period)
	}
}

// check compares the database with the model.
func (m *model) check() {
	for name, u := range m.users {
		s := m.h.standing(name)
		if s.Failures != u.failures || s.Locked != u.locked {
			m.t.Fatalf("%s has %d failures, locked %v; want %d, %v", name, s.Failures, s.Locked, u.failures, u.locked)
		}
	}
	for serial, k := range m.tokens {
		got := m.h.token(serial)
		next := got.Last
		if k.Type == tokens.TOTP {
			next++
		}
		if got.State != k.state || got.Owner != k.owner || next != k.next || int64(got.Drift) != k.drift {
			m.t.Fatalf("token %s is %s, of %q, next %d, drift %d; want %s, %q, %d, %d", serial, got.State, got.Owner, next, got.Drift, k.state, k.owner, k.next, k.drift)
		}
	}
}

func (m *model) pick() *modelToken {
	return m.tokens[rapid.SampledFrom(append([]string{"T1", "T2", "H1", "H2", "Y1"}, m.keys...)).Draw(m.t, "token")]
}

// pickKey is one of the FIDO keys.
func (m *model) pickKey() *modelToken { return m.tokens[rapid.SampledFrom(m.keys).Draw(m.t, "key")] }

func (m *model) name() string { return rapid.SampledFrom([]string{"alice", "bob"}).Draw(m.t, "user") }

// does compares an act's outcome with what it should be: nil, or an error of
// that kind.
func (m *model) does(err, want error) bool {
	if (err == nil) != (want == nil) || want != nil && !errors.Is(err, want) {
		m.t.Fatalf("%v, want %v", err, want)
	}
	return want == nil
}

// Any sequence of acts and attempts ends as the plain model says, also when the
// server is started anew, another node answers, and commits meet conflicts.
func TestAnySequenceOfActsDoesWhatTheModelSays(t *testing.T) {
	accepted, keyed := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		var over atomic.Bool
		h := newHouse(t)
		m := &model{h: h, t: rt, users: map[string]*modelUser{}, tokens: map[string]*modelToken{}}
		for _, name := range []string{"alice", "bob"} {
			h.user(name)
			m.users[name] = &modelUser{}
			m.users[name].clear()
		}
		for _, d := range []*device{totp("T1"), totp("T2"), hotp("H1"), hotp("H2"), yubico("Y1")} {
			if d.Type != tokens.YubicoOTP {
				d.Digits = 8
			}
			if d.Serial == "T2" {
				d.Period, d.Drift = 60, 3
			}
			h.ship("", d)
			m.tokens[d.Serial] = &modelToken{device: d, state: tokens.Imported, drift: int64(d.Drift), used: h.clock.now(), shipped: h.clock.now()}
			if d.Type == tokens.YubicoOTP {
				m.tokens[d.Serial].shown = map[string]int64{}
			}
		}
		for _, name := range []string{"alice", "alice's second", "bob"} {
			key := newSeckey(name)
			if name != "bob" {
				key.count = 3 // bob's does not count
			}
			owner, _, _ := strings.Cut(name, "'")
			h.enrol(owner, key)
			m.keys = append(m.keys, key.serial)
			m.tokens[key.serial] = &modelToken{
				device: &device{NewToken: tokens.NewToken{Serial: key.serial, Type: tokens.FIDO}},
				state:  tokens.Active, owner: owner, maker: owner, key: key, next: int64(key.count), used: h.clock.now(), shipped: h.clock.now(),
			}
		}
		service := h.Service
		other := h.node(&firsts{})
		adminClient := h.admin.Actor()

		move := func(act func(k *modelToken) error, to tokens.State, from ...tokens.State) {
			k := m.pick()
			want := tokens.ErrState
			for _, f := range from {
				if k.state == f {
					want = nil
				}
			}
			if m.does(act(k), want) {
				k.state = to
				if to == tokens.Imported || to == tokens.Revoked {
					k.owner = ""
				}
			}
		}
		// Most sequences need owners to be of interest.
		for _, serial := range []string{"T1", "H1", "Y1"} {
			h.must(h.Assign(ctx, h.admin, "", serial, "alice"))
			m.tokens[serial].state, m.tokens[serial].owner = tokens.Active, "alice"
		}
		attempt := func() {
			rt := m.t
			k := m.pick()
			for range 3 {
				if k.state != tokens.Active {
					k = m.pick()
				}
			}
			if k.key != nil {
				k = m.tokens["T1"]
			}
			user := k.owner
			if user == "" || rapid.IntRange(0, 9).Draw(rt, "anyone") == 0 {
				user = m.name()
			}
			low, high := m.known(k)
			low, high = low-2, high+2
			if k.Type == tokens.YubicoOTP { // it may skip sessions; far enough is far
				low, high = low-600, min(high, low+600)
			}
			if fresh, last := m.window(k); rapid.IntRange(0, 2).Draw(rt, "right") > 0 && max(fresh, k.next) <= last {
				low, high = max(fresh, k.next), min(last, max(fresh, k.next)+600)
			}
			typed := k.at(max(rapid.Int64Range(low, high).Draw(rt, "factor"), 0))
			switch rapid.IntRange(0, 9).Draw(rt, "typed") {
			case 0:
				typed = "0000" + typed
			case 1:
			case 2:
				typed = m.users[user].pin + "00000000"
			default:
				typed = m.users[user].pin + typed
			}
			r, err := service.Verify(ctx, h.vpn, tokens.Attempt{User: user, Code: typed})
			want := m.verify(user, typed)
			if err != nil || r.Accept != want {
				rt.Fatalf("%s with %s: %+v, %v; want accept %v", user, typed, r, err, want)
			}
		}
		verify := func(rt *rapid.T) {
			m.t = rt
			for range rapid.IntRange(1, 8).Draw(rt, "attempts") {
				attempt()
				m.check()
				h.clock.forward(time.Duration(rapid.IntRange(0, 40).Draw(rt, "seconds")) * time.Second)
			}
		}
		answer := func() {
			rt := m.t
			k := m.pickKey()
			if k.state != tokens.Active {
				k = m.pickKey()
			}
			var a *modelAnswer
			if len(k.past) > 0 && rapid.IntRange(0, 3).Draw(rt, "again") == 0 {
				a = rapid.SampledFrom(k.past).Draw(rt, "answer")
			} else {
				key := *k.key
				if key.count > 0 && rapid.IntRange(0, 7).Draw(rt, "copy") == 0 {
					key.count = rapid.Uint32Range(0, key.count+1).Draw(rt, "count")
				}
				c := h.challenge()
				signed := key.answers(c.Hash)
				k.key.count = max(k.key.count, key.count)
				a = &modelAnswer{KeyAttempt: h.attempt("", &key, c, signed), count: signed.said.SignCount}
				k.past = append(k.past, a)
			}
			x := a.KeyAttempt
			x.User = rapid.SampledFrom([]string{k.maker, k.maker, k.maker, "", "", "alice", "bob", "nobody"}).Draw(rt, "by")
			r, err := service.VerifyKey(ctx, h.vpn, x)
			want := m.verifyKey(x.User, k, a)
			if err != nil || r.Accept != want || want && (r.Serial != k.Serial || r.User != k.owner) {
				rt.Fatalf("%s of %q by %q: %+v, %v; want accept %v", k.Serial, k.owner, x.User, r, err, want)
			}
			if want {
				keyed++
			}
		}
		answers := func(rt *rapid.T) {
			m.t = rt
			for range rapid.IntRange(1, 6).Draw(rt, "answers") {
				answer()
				m.check()
				h.clock.forward(time.Duration(rapid.IntRange(0, 100).Draw(rt, "seconds")) * time.Second)
			}
		}
		resync := func(rt *rapid.T) {
			m.t = rt
			k := m.pick()
			if k.key != nil {
				m.does(second(service.Resync(ctx, h.admin, "", k.Serial, "00000000", "11111111")), tokens.ErrState)
				return
			}
			low, high := k.next, k.next+1000
			if k.Type == tokens.TOTP {
				centre := m.now().Unix()/int64(k.Period) + k.drift
				low, high = max(k.next, centre-120, 0), centre+121
			}
			f := max(rapid.OneOf(rapid.Int64Range(low-3, low+3), rapid.Int64Range(high-3, high+3), rapid.Int64Range(low-3, max(high, low)+3)).Draw(rt, "factor"), 0)
			gap := rapid.SampledFrom([]int64{1, 1, 1, 2, 0, -1}).Draw(rt, "gap")
			_, err := service.Resync(ctx, h.admin, "", k.Serial, k.at(f), k.at(max(f+gap, 0)))
			u := m.users[k.owner]
			switch {
			case k.Type == tokens.YubicoOTP:
				m.does(err, tokens.ErrState)
			case k.state == tokens.Lost || k.state == tokens.Revoked || u != nil && (u.locked || u.wait(adminClient, m.now())):
				m.does(err, tokens.ErrState)
			case gap == 1 && f >= low && f+1 <= high:
				m.does(err, nil)
				k.consume(f+1, m.now())
				if u != nil {
					u.clear()
				}
			default:
				m.does(err, tokens.ErrWrongCode)
				if u != nil {
					u.fail(adminClient, m.now())
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"":        func(rt *rapid.T) { m.t = rt; m.check() },
			"verify":  verify,
			"verify2": verify,
			"verify3": verify,
			"resync":  resync,
			"answer":  answers,
			"answer2": answers,
			"clock": func(rt *rapid.T) {
				h.clock.forward(rapid.OneOf(
					rapid.SampledFrom([]time.Duration{time.Second, 30 * time.Second, time.Minute, 15 * time.Minute, 24 * time.Hour, 45 * 24 * time.Hour}),
					rapid.Custom(func(t *rapid.T) time.Duration {
						return time.Duration(rapid.Int64Range(0, int64(2*time.Minute)).Draw(t, "ns"))
					}),
				).Draw(rt, "for"))
			},
			"suspend": func(rt *rapid.T) {
				m.t = rt
				move(func(k *modelToken) error { return second(service.Suspend(ctx, h.admin, "", k.Serial, "")) }, tokens.Suspended, tokens.Active, tokens.Suspended)
			},
			"resume": func(rt *rapid.T) {
				m.t = rt
				move(func(k *modelToken) error { return second(service.Resume(ctx, h.admin, "", k.Serial, "found")) }, tokens.Active, tokens.Active, tokens.Suspended, tokens.Lost)
			},
			"lost": func(rt *rapid.T) {
				m.t = rt
				move(func(k *modelToken) error { return second(service.MarkLost(ctx, h.admin, "", k.Serial, "")) }, tokens.Lost, tokens.Active, tokens.Suspended, tokens.Lost)
			},
			"unassign": func(rt *rapid.T) {
				m.t = rt
				move(func(k *modelToken) error {
					err := second(service.Unassign(ctx, h.admin, "", k.Serial, ""))
					if err == nil && k.state != tokens.Imported { // the next owner inherits nothing
						k.drift, k.used = 0, k.shipped
					}
					return err
				}, tokens.Imported, tokens.Imported, tokens.Active, tokens.Suspended, tokens.Lost)
			},
			"revoke": func(rt *rapid.T) {
				m.t = rt
				if rapid.IntRange(0, 4).Draw(rt, "really") != 0 {
					return
				}
				move(func(k *modelToken) error { return second(service.Revoke(ctx, h.admin, "", k.Serial, "")) }, tokens.Revoked,
					tokens.Imported, tokens.Active, tokens.Suspended, tokens.Lost, tokens.Revoked)
			},
			"assign": func(rt *rapid.T) {
				m.t = rt
				k, user := m.pick(), m.name()
				var want error
				if k.owner != user && (k.state != tokens.Imported || k.key != nil && k.maker != user) {
					want = tokens.ErrState
				}
				if m.does(second(service.Assign(ctx, h.admin, "", k.Serial, user)), want) && k.owner != user {
					k.state, k.owner = tokens.Active, user
				}
			},
			"pin": func(rt *rapid.T) {
				m.t = rt
				user, pin := m.name(), rapid.SampledFrom([]string{"", "4711", "0815", "pässword"}).Draw(rt, "PIN")
				m.does(second(service.SetPIN(ctx, h.admin, "", user, pin, false)), nil)
				m.users[user].pin = pin
			},
			"enable": func(rt *rapid.T) {
				m.t = rt
				user := m.name()
				off := rapid.IntRange(0, 3).Draw(rt, "disable") == 0
				state := map[bool]tokens.UserState{true: tokens.UserDisabled, false: tokens.UserEnabled}[off]
				m.does(second(service.SetUserState(ctx, h.admin, "", user, state)), nil)
				m.users[user].disabled = off
			},
			"unlock": func(rt *rapid.T) {
				m.t = rt
				user := m.name()
				m.does(second(service.UnlockUser(ctx, h.admin, "", user)), nil)
				m.users[user].clear()
			},
			"guess": func(rt *rapid.T) { // until the user is locked, or nearly
				m.t = rt
				user := m.name()
				for range rapid.IntRange(1, 60).Draw(rt, "times") {
					h.clock.forward(16 * time.Minute)
					if r, err := service.Verify(ctx, h.vpn, tokens.Attempt{User: user, Code: "letmein"}); err != nil || r.Accept {
						rt.Fatalf("%+v, %v", r, err)
					}
					m.verify(user, "letmein")
				}
			},
			"conflict": func(*rapid.T) {
				h.mem.InjectFunc(func(*tokens.Change) storetest.Fault {
					if over.Load() {
						return storetest.None
					}
					return storetest.Conflict
				})
			},
			"node": func(*rapid.T) { service, other = other, service },
		})
		over.Store(true)
		accepted += h.acceptedOnce()
		h.intact()
	})
	t.Logf("%d attempts were accepted in all sequences, %d of them by a key", accepted, keyed)
	if accepted == keyed || keyed == 0 {
		t.Error("the sequences say nothing: no attempt was ever accepted")
	}
}
