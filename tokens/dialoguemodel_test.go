package tokens_test

import (
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens"
	"watchword/tokens/storetest"
)

// talks is what dialogues should do, in the plainest words.
type talks struct {
	*model
	due     map[string]bool
	pinned  map[string]int // how often the PIN was set
	states  []*modelState
	accepts map[string]int // by State
}

// modelState is a question that was asked.
type modelState struct {
	user    string
	state   []byte
	ask     tokens.Question
	until   time.Time
	spent   bool
	pinOK   bool  // the PIN was typed before
	pinned  int   // and which one it was
	version int64 // of the user, after the question
	next    []modelPair
	token   *modelToken // whose code was used up
	pin     string      // the new one, typed once
	bad     int
	chain   *modelState // the question that it came from
}

type modelPair struct {
	k      *modelToken
	factor int64
}

// outcome is what becomes of an attempt.
type outcome struct {
	accept bool
	asks   *modelState
}

// codes says what a text is among the codes of a user's tokens: fresh in the window,
// consumed, or ahead of it.
func (m *talks) codes(user string, is func(code string) bool) (fresh *modelPair, replay bool, ahead []modelPair, guess bool) {
	for _, serial := range []string{"T1", "H1", "H2"} {
		k := m.tokens[serial]
		if k.owner != user || k.state != tokens.Active {
			continue
		}
		guess = true
		low, high := m.known(k)
		for f := max(low, 0); f <= high; f++ {
			switch {
			case !is(k.at(f)):
			case f < k.next:
				replay = true
			case fresh == nil:
				fresh = &modelPair{k, f}
			}
		}
		first, n := max(high, k.next-1)+1, int64(20)
		if k.Type == tokens.HOTP {
			first, n = k.next+10, 50
		}
		for f := first; f < first+n; f++ {
			if is(k.at(f)) {
				ahead = append(ahead, modelPair{k, f})
			}
		}
	}
	return fresh, replay, ahead, guess
}

// goes is what should become of what was typed, by itself or as the answer to a State.
// It does what follows to the model.
func (m *talks) goes(user, typed string, st *modelState) outcome {
	u, now := m.users[user], m.now()
	ask := func(x modelState) outcome {
		x.user, x.until, x.chain = user, now.Add(2*time.Minute), st
		x.pinned = m.pinned[user]
		return outcome{asks: &x}
	}
	first := func(right bool) outcome {
		if st != nil {
			return outcome{}
		}
		return ask(modelState{ask: tokens.QuestionCode, pinOK: right})
	}
	if u == nil {
		return first(false)
	}
	barred := u.disabled || u.wait("localhost", now)
	carried := false
	if st != nil {
		if st.user != user || st.spent || !now.Before(st.until) || st.ask == tokens.QuestionNextCode && st.version != m.h.standing(user).Version {
			return outcome{}
		}
		st.spent = true
		switch st.ask {
		case tokens.QuestionCode:
			carried = st.pinOK && st.pinned == m.pinned[user]
		case tokens.QuestionNextCode:
			if u.disabled {
				return outcome{}
			}
			for _, p := range st.next {
				if code := p.k.at(p.factor + 1); p.k.state == tokens.Active && (typed == code || typed == u.pin+code) {
					p.k.consume(p.factor+1, now)
					u.clear()
					return outcome{accept: true}
				}
			}
			u.fail("localhost", now)
			return outcome{}
		default:
			return m.newPIN(u, typed, st, barred, ask)
		}
	}
	exact := u.pin != "" && typed == u.pin
	if barred {
		return first(exact)
	}
	fresh, replay, ahead, guess := m.codes(user, func(code string) bool { return typed == u.pin+code || carried && typed == code })
	switch {
	case fresh != nil && m.due[user] && u.pin != "":
		fresh.k.consume(fresh.factor, now)
		return ask(modelState{ask: tokens.QuestionNewPIN, token: fresh.k})
	case fresh != nil:
		fresh.k.consume(fresh.factor, now)
		u.clear()
		return outcome{accept: true}
	case !replay && len(ahead) > 0 && !(m.due[user] && u.pin != ""):
		u.fail("localhost", now)
		return ask(modelState{ask: tokens.QuestionNextCode, next: ahead})
	case guess && !replay && (st != nil || typed != "" && !exact):
		u.fail("localhost", now)
	}
	return first(exact)
}

// newPIN is goes for a new PIN.
func (m *talks) newPIN(u *modelUser, typed string, st *modelState, barred bool, ask func(modelState) outcome) outcome {
	if barred || !m.due[st.user] || u.pin == "" || st.pinned != m.pinned[st.user] || st.token.state != tokens.Active {
		return outcome{}
	}
	differs := st.ask == tokens.QuestionNewPINAgain && typed != st.pin
	bad := !differs && (typed == "" || typed == "1234" || typed == u.pin)
	if !bad && st.ask != tokens.QuestionNewPINAgain {
		return ask(modelState{ask: tokens.QuestionNewPINAgain, token: st.token, pin: typed, bad: st.bad})
	}
	if !bad && !differs {
		u.pin, m.due[st.user] = typed, false
		m.pinned[st.user]++
		u.clear()
		return outcome{accept: true}
	}
	switch {
	case st.bad == 3:
		return outcome{}
	case !differs:
		return ask(modelState{ask: tokens.QuestionBadPIN, token: st.token, bad: st.bad + 1})
	}
	return ask(modelState{ask: tokens.QuestionNewPIN, token: st.token, bad: st.bad + 1})
}

// typed draws what somebody types: mostly something that is right, or nearly.
func (m *talks) typed(user string, st *modelState) string {
	u := m.users[user]
	pin := ""
	if u != nil {
		pin = u.pin
	}
	if st != nil && st.ask == tokens.QuestionNextCode && rapid.IntRange(0, 3).Draw(m.t, "next") > 0 {
		return st.next[0].k.at(st.next[0].factor + 1)
	}
	if st != nil && st.ask == tokens.QuestionNewPINAgain && rapid.IntRange(0, 3).Draw(m.t, "again") > 0 {
		return st.pin
	}
	if st != nil && (st.ask == tokens.QuestionNewPIN || st.ask == tokens.QuestionBadPIN) {
		return rapid.SampledFrom([]string{"8051", "8052", "1234", "", pin}).Draw(m.t, "new PIN")
	}
	k := m.tokens[rapid.SampledFrom([]string{"T1", "H1", "H2"}).Draw(m.t, "of")]
	low, high := m.window(k)
	f := rapid.OneOf(
		rapid.Int64Range(max(low, k.next), max(high, k.next)), rapid.Int64Range(max(low, k.next), max(high, k.next)),
		rapid.Int64Range(high+1, high+20), rapid.Int64Range(high+1, high+60), rapid.Int64Range(max(low-3, 0), high),
	).Draw(m.t, "factor")
	switch rapid.IntRange(0, 9).Draw(m.t, "typed") {
	case 0:
		return ""
	case 1:
		return "00000000"
	case 2:
		return "4712" + k.at(f)
	case 3, 4:
		return pin
	case 5, 6:
		return k.at(f)
	}
	return pin + k.at(f)
}

// Whatever is typed, to whichever question, on whichever node, whatever the helpdesk
// does between and however often it is sent again, dialogues end as the plain model says.
// So no State and no code is accepted twice, nothing without a PIN and a code, and no
// token goes back.
func TestDialoguesDoWhatTheModelSays(t *testing.T) {
	counts := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		var calm atomic.Bool // nothing conflicts
		h := newHouse(t)
		m := &talks{model: &model{h: h, t: rt, users: map[string]*modelUser{}, tokens: map[string]*modelToken{}},
			due: map[string]bool{}, pinned: map[string]int{}, accepts: map[string]int{}}
		for serial, owner := range map[string]string{"T1": "alice", "H1": "alice", "H2": "bob"} {
			d := hotp(serial)
			if serial == "T1" {
				d = totp(serial)
			}
			d.Digits = 8
			h.give(owner, d)
			m.tokens[serial] = &modelToken{device: d, state: tokens.Active, owner: owner, used: h.clock.now()}
			if m.users[owner] == nil {
				m.users[owner] = &modelUser{}
				m.users[owner].clear()
			}
		}
		h.pin("alice", "4711", false)
		m.users["alice"].pin = "4711"
		nodes := []*tokens.Service{h.Service, h.node(&firsts{})}
		s := h.stage(everyDialogue...)
		type sent struct {
			user, typed string
			st          *modelState
		}
		var last *sent
		var try func(rt *rapid.T, x *sent) *modelState
		attempt := func(rt *rapid.T) {
			x := &sent{}
			switch n := rapid.IntRange(0, 9).Draw(rt, "what"); {
			case last != nil && n == 0: // nobody heard the answer, and it is sent again
				x = last
			case len(m.states) > 0 && n < 7:
				at := len(m.states) - 1
				if n == 6 {
					at = rapid.IntRange(0, at).Draw(rt, "state")
				}
				x.st = m.states[at]
				x.user = x.st.user
				if n == 5 && rapid.IntRange(0, 3).Draw(rt, "of another") == 0 {
					x.user = m.name()
				}
				x.typed = m.typed(x.user, x.st)
			default:
				x.user = rapid.SampledFrom([]string{"alice", "alice", "alice", "bob", "nobody"}).Draw(rt, "user")
				x.typed = m.typed(x.user, nil)
			}
			try(rt, x)
		}
		try = func(rt *rapid.T, x *sent) *modelState {
			last = x
			var state []byte
			if x.st != nil {
				state = x.st.state
			}
			s.at = rapid.SampledFrom(nodes).Draw(rt, "node")
			want := m.goes(x.user, x.typed, x.st)
			r, err := s.at.Verify(ctx, s.by, s.attempt(x.user, x.typed, state))
			asks := tokens.Question("")
			if want.asks != nil {
				asks = want.asks.ask
			}
			got := tokens.Question("")
			if r.Challenge != nil {
				got = r.Challenge.Question
			}
			if err != nil || r.Accept != want.accept || got != asks {
				rt.Fatalf("%s with %q to %+v: %+v, asked %q, %v (%+v); want accept %v, asked %q", x.user, x.typed, x.st, r, got, err, h.last(), want.accept, asks)
			}
			if r.Accept && x.st != nil {
				if m.accepts[string(state)]++; m.accepts[string(state)] > 1 {
					rt.Fatalf("a State was accepted twice")
				}
				counts["accepted after "+string(x.st.ask)]++
			}
			if r.Challenge != nil {
				want.asks.state = r.Challenge.State
				if x.user != "nobody" {
					want.asks.version = h.standing(x.user).Version
				}
				m.states = append(m.states, want.asks)
				counts["asked "+string(asks)]++
			}
			return want.asks
		}
		// Somebody who answers what is asked, mostly rightly.
		well := func(rt *rapid.T) {
			m.t = rt
			user := rapid.SampledFrom([]string{"alice", "alice", "bob"}).Draw(rt, "who")
			k := m.tokens[map[string]string{"alice": "H1", "bob": "H2"}[user]]
			if rapid.IntRange(0, 2).Draw(rt, "due") == 0 && m.users[user].pin != "" {
				m.does(second(h.SetPIN(ctx, h.admin, "", user, m.users[user].pin, true)), nil)
				m.due[user] = true
				m.pinned[user]++
			}
			first := m.users[user].pin
			if rapid.IntRange(0, 1).Draw(rt, "all at once") == 0 {
				first += k.at(k.next + rapid.SampledFrom([]int64{0, 3, 30}).Draw(rt, "ahead"))
			}
			for st := try(rt, &sent{user: user, typed: first}); st != nil; {
				typed := ""
				switch st.ask {
				case tokens.QuestionCode:
					typed = k.at(k.next + rapid.SampledFrom([]int64{0, 5, 40}).Draw(rt, "ahead"))
				case tokens.QuestionNextCode:
					typed = st.next[0].k.at(st.next[0].factor + 1)
				case tokens.QuestionNewPINAgain:
					typed = st.pin
				default:
					typed = rapid.SampledFrom([]string{"8051", "8052", "8051", "8052", "1234"}).Draw(rt, "new PIN")
				}
				m.check()
				h.clock.forward(time.Duration(rapid.IntRange(0, 20).Draw(rt, "seconds")) * time.Second)
				if rapid.IntRange(0, 9).Draw(rt, "another goes between") == 0 {
					attempt(rt)
				}
				st = try(rt, &sent{user: user, typed: typed, st: st})
			}
		}
		several := func(rt *rapid.T) {
			m.t = rt
			for range rapid.IntRange(1, 6).Draw(rt, "attempts") {
				attempt(rt)
				m.check()
				h.clock.forward(time.Duration(rapid.IntRange(0, 40).Draw(rt, "seconds")) * time.Second)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"":         func(rt *rapid.T) { m.t = rt; m.check() },
			"attempt":  several,
			"attempt2": several,
			"attempt3": several,
			"attempt4": several,
			"well":     well,
			"well2":    well,
			"clock": func(rt *rapid.T) {
				h.clock.forward(rapid.SampledFrom([]time.Duration{time.Second, 90 * time.Second, 2 * time.Minute, 20 * time.Minute}).Draw(rt, "for"))
			},
			"token": func(rt *rapid.T) {
				m.t = rt
				k := m.tokens[rapid.SampledFrom([]string{"T1", "H1", "H2"}).Draw(rt, "token")]
				if rapid.IntRange(0, 2).Draw(rt, "suspend") == 0 && k.state == tokens.Active {
					m.does(second(h.Suspend(ctx, h.admin, "", k.Serial, "")), nil)
					k.state = tokens.Suspended
				} else if k.state == tokens.Suspended {
					m.does(second(h.Resume(ctx, h.admin, "", k.Serial, "found")), nil)
					k.state = tokens.Active
				}
			},
			"pin": func(rt *rapid.T) {
				m.t = rt
				user, pin := m.name(), rapid.SampledFrom([]string{"", "4711", "4711", "0815"}).Draw(rt, "PIN")
				due := pin != "" && rapid.IntRange(0, 1).Draw(rt, "due") == 0
				m.does(second(h.SetPIN(ctx, h.admin, "", user, pin, due)), nil)
				m.users[user].pin, m.due[user] = pin, due
				m.pinned[user]++
			},
			"enable": func(rt *rapid.T) {
				m.t = rt
				user := m.name()
				off := rapid.IntRange(0, 3).Draw(rt, "disable") == 0
				state := map[bool]tokens.UserState{true: tokens.UserDisabled, false: tokens.UserEnabled}[off]
				m.does(second(h.SetUserState(ctx, h.admin, "", user, state)), nil)
				m.users[user].disabled = off
			},
			"unlock": func(rt *rapid.T) {
				m.t = rt
				user := m.name()
				m.does(second(h.UnlockUser(ctx, h.admin, "", user)), nil)
				m.users[user].clear()
			},
			"restart": func(rt *rapid.T) {
				calm.Store(true)
				nodes[rapid.IntRange(0, 1).Draw(rt, "which")] = h.node(&firsts{})
				calm.Store(false)
			},
			"conflict": func(*rapid.T) {
				h.mem.InjectFunc(func(*tokens.Change) storetest.Fault {
					if calm.Load() {
						return storetest.None
					}
					return storetest.Conflict
				})
			},
		})
		calm.Store(true)
		counts["codes accepted"] += h.acceptedOnce()
		h.intact()
	})
	t.Log(counts)
	for _, what := range []string{"asked code", "asked next_code", "asked new_pin", "asked bad_pin", "asked new_pin_again", "accepted after code", "accepted after next_code", "accepted after new_pin_again"} {
		if counts[what] == 0 {
			t.Errorf("the sequences say nothing: never %s", what)
		}
	}
}
