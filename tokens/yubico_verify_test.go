package tokens_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"watchword/hsm"
	"watchword/tokens"
	"watchword/tokens/policy"
)

func TestAYubicoOTPIsAcceptedOnce(t *testing.T) {
	h := newHouse(t)
	y := yubico("7654321")
	h.give("alice", y)
	h.ends("alice", y.types(1, 0, 0), true, tokens.ReasonAccepted)
	h.ends("alice", y.types(1, 0, 0), false, tokens.ReasonReplay)
	h.ends("alice", y.types(1, 1, 0), true, tokens.ReasonAccepted)
	h.ends("alice", y.types(9, 200, 0), true, tokens.ReasonAccepted) // sessions may be skipped
	h.ends("alice", y.types(9, 199, 0), false, tokens.ReasonReplay)
	h.ends("alice", y.types(8, 255, 0), false, tokens.ReasonReplay)
	h.ends("alice", y.types(1, 1, 0), false, tokens.ReasonReplay)
	h.ends("alice", y.types(0x7fff, 255, 0), true, tokens.ReasonAccepted) // the last one that there is
	h.ends("alice", y.types(0x7fff, 255, 0), false, tokens.ReasonReplay)
	if got := h.token("7654321"); got.Last != 0x800000 || got.Drift != 0 {
		t.Errorf("next %#x, drift %d", got.Last, got.Drift)
	}
	if s := h.standing("alice"); s.Failures != 0 {
		t.Errorf("replays count as %d failures", s.Failures)
	}
	h.intact()
}

// The highest bit of the session counter says that the caps lock key set the OTP
// off; it makes it neither another OTP nor a later one.
func TestTheCapsLockBitIsNoCounter(t *testing.T) {
	h := newHouse(t)
	y := yubico("7654321")
	h.give("alice", y)
	h.ends("alice", y.types(0x8005, 0, 0), true, tokens.ReasonAccepted)
	h.ends("alice", y.types(5, 0, 0), false, tokens.ReasonReplay)
	h.ends("alice", y.types(0x8004, 255, 0), false, tokens.ReasonReplay)
	h.ends("alice", y.types(5, 1, 0), true, tokens.ReasonAccepted)
}

func TestOTPsThatAreNotTheTokens(t *testing.T) {
	h := newHouse(t)
	y, other := yubico("7654321"), yubico("1234567")
	h.give("alice", y)
	h.give("bob", other)
	right := y.types(3, 0, 0)
	stranger := *y
	stranger.private = []byte("stolen")
	renamed := *y
	renamed.PublicID = "vvhvcccccccb"
	n := 0
	for name, typed := range map[string]string{
		"a damaged CRC":         y.types(3, 0, 1),
		"another private id":    stranger.types(3, 0, 0),
		"another public id":     renamed.types(3, 0, 0),
		"no public id":          right[12:],
		"another token's":       other.types(3, 0, 0),
		"capital letters":       strings.ToUpper(right),
		"a letter more":         right + "c",
		"a letter less":         right[:43],
		"an altered last block": right[:43] + map[bool]string{true: "b", false: "c"}[right[43] == 'c'],
		"six digits":            "123456",
		"something long":        strings.Repeat("c", 500),
	} {
		if n++; n%4 == 0 {
			h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
		}
		before := h.standing("alice").Failures
		h.ends("alice", typed, false, tokens.ReasonWrongCode)
		if h.standing("alice").Failures != before+1 {
			t.Errorf("%s is not counted", name)
		}
	}
	h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
	h.ends("alice", right, true, tokens.ReasonAccepted)
	if strings.Contains(h.log.String(), right[12:]) {
		t.Error("the log holds an OTP")
	}
	for _, r := range h.records("verify", "") {
		if s := fmt.Sprintf("%+v", r); strings.Contains(s, right[12:]) || strings.Contains(s, y.PublicID) || strings.Contains(s, string(y.private)) {
			t.Errorf("the audit holds an OTP or a part of one: %s", s)
		}
	}
}

func TestThePINGoesBeforeTheOTP(t *testing.T) {
	for _, id := range []string{"", "vv", "vvhvcccccccd", strings.Repeat("uv", 16)} {
		h := newHouse(t)
		y := yubico("7654321")
		y.PublicID = id
		h.give("alice", y)
		h.must(h.SetPIN(ctx, h.admin, "", "alice", "vcvr", false))
		h.ends("alice", y.types(1, 0, 0), false, tokens.ReasonNoPIN)
		h.ends("alice", "vvvb"+y.types(1, 0, 0), false, tokens.ReasonWrongPIN)
		h.ends("alice", "vcvr"+y.types(1, 0, 0), true, tokens.ReasonAccepted)
		h.ends("alice", "vcvr"+y.types(1, 0, 0), false, tokens.ReasonReplay)
	}
}

// The longest PIN and the longest OTP fit, and nothing more.
func TestTheLongestPINAndOTP(t *testing.T) {
	h := newHouse(t)
	y, k := yubico("7654321"), hotp("H1")
	y.PublicID = strings.Repeat("uv", 16)
	h.give("alice", y, k)
	pin := strings.Repeat("€", 31) + "₤"
	h.must(h.SetPIN(ctx, h.admin, "", "alice", pin, false))
	for use, more := range []string{"c", "0", strings.Repeat("c", 1000)} {
		if h.try("alice", pin+y.types(1, byte(use), 0)+more) || h.try("alice", pin+k.at(int64(use))+strings.Repeat("0", 200)) {
			t.Error("a right PIN and code are accepted with something behind them")
		}
		h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
		h.ends("alice", pin+y.types(1, byte(use), 0), true, tokens.ReasonAccepted)
	}
}

func TestAYubiKeyBesideOtherTokens(t *testing.T) {
	h := newHouse(t)
	y, k := yubico("7654321"), totp("T1")
	h.give("alice", y, k)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	h.ends("alice", "4711"+y.types(1, 0, 0), true, tokens.ReasonAccepted)
	h.ends("alice", "4711"+k.code(h, 0), true, tokens.ReasonAccepted)
	h.ends("alice", "4711"+y.types(1, 1, 0), true, tokens.ReasonAccepted)
	h.ends("alice", "4711"+y.types(1, 0, 0), false, tokens.ReasonReplay)
}

// Whoever gets the token next cannot use codes that were made before the last one
// accepted, and its life is that of other tokens.
func TestTheLifeOfAYubiKey(t *testing.T) {
	h := newHouse(t)
	y := yubico("7654321")
	y.Counter = 5 << 8
	h.give("alice", y)
	h.ends("alice", y.types(4, 255, 0), false, tokens.ReasonReplay) // the file says what was used
	h.ends("alice", y.types(5, 0, 0), true, tokens.ReasonAccepted)
	h.must(h.Suspend(ctx, h.admin, "", "7654321", ""))
	h.ends("alice", y.types(5, 1, 0), false, tokens.ReasonSuspendedUsed)
	h.must(h.Resume(ctx, h.admin, "", "7654321", ""))
	h.ends("alice", y.types(5, 1, 0), true, tokens.ReasonAccepted)
	h.must(h.MarkLost(ctx, h.admin, "", "7654321", ""))
	h.ends("alice", y.types(5, 2, 0), false, tokens.ReasonLostUsed)
	h.ends("alice", "123456", false, tokens.ReasonLost)
	h.must(h.Resume(ctx, h.admin, "", "7654321", "found"))
	h.must(h.Unassign(ctx, h.admin, "", "7654321", ""))
	h.user("bob")
	h.must(h.Assign(ctx, h.admin, "", "7654321", "bob"))
	h.ends("bob", y.types(5, 1, 0), false, tokens.ReasonReplay)
	h.ends("bob", y.types(5, 2, 0), true, tokens.ReasonAccepted)
	_, err := h.Resync(ctx, h.admin, "", "7654321", y.types(6, 0, 0), y.types(6, 1, 0))
	if !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "needs no resynchronisation") || strings.Contains(err.Error(), y.types(6, 0, 0)[12:]) {
		t.Errorf("resync: %v", err)
	}
	if r := h.last(); r.Action != string(policy.TokenResync) || r.Outcome == "ok" {
		t.Errorf("the audit of it: %+v", r)
	}
	h.ends("bob", y.types(6, 0, 0), true, tokens.ReasonAccepted)
	h.must(h.Revoke(ctx, h.admin, "", "7654321", ""))
	if got := h.token("7654321"); len(got.Wrapped.Blob) != 0 || got.PublicID != y.PublicID {
		t.Errorf("after revoking: %+v", got)
	}
	h.ends("bob", y.types(7, 0, 0), false, tokens.ReasonNoToken)
	h.intact()
}

func TestAnAlteredRowOfAYubiKeyIsTampering(t *testing.T) {
	h := newHouse(t)
	y, other := yubico("7654321"), yubico("1234567")
	h.give("alice", y)
	h.give("bob", other)
	twin := h.token("1234567")
	h.ends("alice", y.types(1, 0, 0), true, tokens.ReasonAccepted) // its key is cached
	renamed := *y
	renamed.PublicID = "vvhvcccccccb"
	for name, edit := range map[string]func(*tokens.Token){
		"public id":           func(t *tokens.Token) { t.PublicID = renamed.PublicID },
		"no public id":        func(t *tokens.Token) { t.PublicID = "" },
		"private MAC":         func(t *tokens.Token) { t.PrivateMAC = append([]byte{1}, t.PrivateMAC[1:]...) },
		"another private MAC": func(t *tokens.Token) { t.PrivateMAC = twin.PrivateMAC },
		"no private MAC":      func(t *tokens.Token) { t.PrivateMAC = nil },
		"another key":         func(t *tokens.Token) { t.Wrapped = twin.Wrapped },
		"another key, bound": func(t *tokens.Token) {
			t.Wrapped, t.Binding, t.PrivateMAC = twin.Wrapped, twin.Binding, twin.PrivateMAC
		},
		"a TOTP token":          func(t *tokens.Token) { t.Type, t.Digits, t.Period = tokens.TOTP, 6, 30 },
		"counters out of range": func(t *tokens.Token) { t.Last = 1 << 40 },
	} {
		h.db.edit(func(d *editor) {
			d.token = func(t *tokens.Token) {
				if t.Serial == "7654321" {
					edit(t)
				}
			}
		})
		typed := y.types(2, 0, 0)
		if strings.Contains(name, "public id") {
			typed = renamed.types(2, 0, 0)
		}
		if got := h.try("alice", typed); got {
			t.Errorf("%s: accepted", name)
		}
		if r := h.last(); r.Reason != string(tokens.ReasonTampered) {
			t.Errorf("%s: %s", name, r.Reason)
		}
	}
	h.db.edit(func(d *editor) { d.token = nil })
	h.ends("alice", y.types(2, 0, 0), true, tokens.ReasonAccepted)
}

// A Yubico OTP costs one decryption and one MAC: right, wrong, replayed, barred, of
// a user whom there is not, or who has no token.
func TestAnOTPCostsTheSameForEverybody(t *testing.T) {
	h := newHouse(t)
	y, lost := yubico("7654321"), yubico("1234567")
	h.give("alice", y)
	h.give("bob", lost)
	h.must(h.MarkLost(ctx, h.admin, "", "1234567", ""))
	h.user("carol")
	h.give("dave", yubico("2222222"))
	h.must(h.SetUserState(ctx, h.admin, "", "dave", tokens.UserDisabled))
	for _, c := range []struct {
		user, typed string
		reason      tokens.Reason
	}{
		{"alice", y.types(1, 0, 0), tokens.ReasonAccepted},
		{"alice", y.types(1, 0, 0), tokens.ReasonReplay},
		{"alice", y.types(1, 1, 1), tokens.ReasonWrongCode},
		{"alice", lost.types(1, 1, 0), tokens.ReasonWrongCode},
		{"bob", lost.types(1, 1, 0), tokens.ReasonLostUsed},
		{"carol", y.types(1, 1, 0), tokens.ReasonNoToken},
		{"dave", y.types(1, 1, 0), tokens.ReasonDisabled},
		{"nobody", y.types(1, 1, 0), tokens.ReasonUnknownUser},
		{strings.Repeat("x", 1000), y.types(1, 1, 0), tokens.ReasonUnknownUser},
	} {
		blocks, macs, factors := h.keys.blocks.Load(), h.keys.pins.Load(), h.keys.factors.Load()
		h.ends(c.user, c.typed, c.reason == tokens.ReasonAccepted, c.reason)
		if b, m, f := h.keys.blocks.Load()-blocks, h.keys.pins.Load()-macs, h.keys.factors.Load()-factors; b != 1 || m != 1 || f != 0 {
			t.Errorf("%.10s, %s: %d decryptions, %d MACs, %d HMACs", c.user, c.reason, b, m, f)
		}
	}
}

func TestAFaultNeverAcceptsAnOTP(t *testing.T) {
	h := newHouse(t)
	y := yubico("7654321")
	h.give("alice", y)
	h.keys.memory().Fail(errors.New("unplugged"))
	for range 3 {
		if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: y.types(1, 0, 0)}); r.Accept || !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	h.keys.memory().Heal()
	h.must(h.UnlockUser(ctx, h.admin, "", "alice"))
	h.ends("alice", y.types(1, 0, 0), true, tokens.ReasonAccepted)
}

// Two nodes, many clients at once, the same OTPs: each is accepted at most once,
// and none after a later one.
func TestAnOTPIsAcceptedOnceByTwoNodes(t *testing.T) {
	h := newHouse(t)
	y := yubico("7654321")
	h.give("alice", y)
	other := h.node(&firsts{})
	var accepted [8]atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			s := h.Service
			if w%2 == 1 {
				s = other
			}
			for use := range accepted {
				r, err := s.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: y.types(1, byte(use), 0)})
				if err != nil {
					t.Error(err)
				}
				if r.Accept {
					accepted[use].Add(1)
				}
			}
		})
	}
	wg.Wait()
	total := int64(0)
	for use := range accepted {
		n := accepted[use].Load()
		if total += n; n > 1 {
			t.Errorf("use %d was accepted %d times", use, n)
		}
	}
	if total == 0 {
		t.Error("nothing was accepted")
	}
	if h.acceptedOnce(); h.token("7654321").Last > 0x108 {
		t.Error("the counter ran ahead")
	}
	h.intact()
}

// Whatever the order, an OTP is accepted if and only if it is later than all that
// were.
func TestCountersNeverGoBack(t *testing.T) {
	h := newHouse(t)
	i := 0
	rapid.Check(t, func(rt *rapid.T) {
		i++
		y := yubico(fmt.Sprint("Y", i))
		user := fmt.Sprint("user", i)
		h.give(user, y)
		last := int64(-1)
		for _, f := range rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(250, 270), rapid.Int64Range(0, 0x7fffff)), 1, 12).Draw(rt, "factors") {
			if got := h.try(user, y.at(f)); got != (f > last) {
				rt.Fatalf("factor %d after %d: accepted %v", f, last, got)
			}
			last = max(last, f)
			if got := h.token(y.Serial).Last; got != last+1 {
				rt.Fatalf("next is %d after %d", got, last)
			}
		}
	})
}

func TestYubiKeysThatAreNotImported(t *testing.T) {
	h := newHouse(t)
	good := func() tokens.NewToken {
		n := yubico("1").NewToken
		n.Seed, n.PrivateID = []byte("0123456789abcdef"), []byte("secret")
		return n
	}
	var list []tokens.NewToken
	var says []string
	for _, c := range []struct {
		edit func(*tokens.NewToken)
		says string
	}{
		{func(n *tokens.NewToken) { n.Seed = n.Seed[:15] }, "an AES key of 15 bytes"},
		{func(n *tokens.NewToken) { n.Seed = make([]byte, 20) }, "an AES key of 20 bytes"},
		{func(n *tokens.NewToken) { n.PrivateID = n.PrivateID[:5] }, "a private id of 5 bytes"},
		{func(n *tokens.NewToken) { n.PrivateID = nil }, "a private id of 0 bytes"},
		{func(n *tokens.NewToken) { n.PublicID = "VV" }, "not modhex in small letters"},
		{func(n *tokens.NewToken) { n.Counter = 1 << 40 }, "out of range"},
		{func(n *tokens.NewToken) { n.Digits = 6 }, "neither digits nor time steps"},
		{func(n *tokens.NewToken) { n.Algorithm = 1 }, "not of aes128"},
		{func(n *tokens.NewToken) { n.Seed, n.Transported = nil, &hsm.Transported{Hash: hsm.AES128} }, "encrypted to a public key"},
	} {
		n := good()
		c.edit(&n)
		list, says = append(list, n), append(says, c.says)
	}
	list = append(list, good())
	i := h.begin(tokens.NewImport{Name: "x", Format: "yubico"})
	added, err := i.Add(ctx, list)
	if err != nil {
		t.Fatal(err)
	}
	for k, says := range says {
		if added[k].Outcome != tokens.OutcomeRejected || !strings.Contains(added[k].Reason, says) {
			t.Errorf("%+v, want %s", added[k], says)
		}
	}
	if added[len(says)].Outcome != tokens.OutcomeCreated {
		t.Errorf("the good one: %+v", added[len(says)])
	}
	for k := range list {
		if strings.Trim(string(list[k].PrivateID)+string(list[k].Seed), "\x00") != "" {
			t.Errorf("record %d: the key or the private id is not wiped", k)
		}
	}
}
