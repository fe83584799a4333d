package tokens

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/hsm"
)

func drawRow(t *rapid.T, label string) (Token, []byte) {
	text := rapid.SampledFrom([]string{"", "a", "aa", "a\x00", "\x00\x00\x00\x01a", "default", "watchword-row-1"})
	t0 := Token{
		Realm:     text.Draw(t, label+" realm"),
		Serial:    text.Draw(t, label+" serial"),
		Type:      Type(text.Draw(t, label+" type")),
		Algorithm: hsm.Hash(rapid.IntRange(0, 3).Draw(t, label+" hash")),
		Digits:    rapid.IntRange(0, 2).Draw(t, label+" digits"),
		Period:    rapid.IntRange(0, 2).Draw(t, label+" period"),
		State:     State(text.Draw(t, label+" state")),
		OwnerID:   rapid.Int64Range(0, 2).Draw(t, label+" owner id"),
		Owner:     text.Draw(t, label+" owner"),
		Expires:   rapid.SampledFrom([]time.Time{{}, {}, time.UnixMicro(1), time.UnixMicro(2)}).Draw(t, label+" expires"),
	}
	if rapid.Bool().Draw(t, label+" a passcode") {
		t0.Type = rapid.SampledFrom([]Type{Recovery, Temporary}).Draw(t, label+" kind")
		for range rapid.IntRange(0, 2).Draw(t, label+" codes") {
			t0.Passcodes = append(t0.Passcodes, []byte(text.Draw(t, label+" code")))
		}
		t0.Uses = rapid.IntRange(0, 2).Draw(t, label+" uses")
	}
	return t0, []byte(text.Draw(t, label+" PIN"))
}

// The binding's worth hangs on it: two rows that differ in any bound column
// never have the same bytes.
func TestRowsThatDifferHaveDifferentBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, pinA := drawRow(t, "a")
		b, pinB := drawRow(t, "b")
		same := a.Realm == b.Realm && a.Serial == b.Serial && a.Type == b.Type && a.Algorithm == b.Algorithm && a.Digits == b.Digits &&
			a.Period == b.Period && a.State == b.State && a.OwnerID == b.OwnerID && a.Owner == b.Owner && bytes.Equal(pinA, pinB) &&
			a.Expires.Equal(b.Expires) && a.Uses == b.Uses && slices.EqualFunc(a.Passcodes, b.Passcodes, bytes.Equal)
		if equal := bytes.Equal(a.Row(pinA), b.Row(pinB)); equal != same {
			t.Fatalf("rows %+v %q and %+v %q: same %v, same bytes %v", a, pinA, b, pinB, same, equal)
		}
	})
}

func TestEachBoundColumnChangesTheSealedMessage(t *testing.T) {
	base := Token{
		Realm: "r", Serial: "s", Type: TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: 30, State: Active, OwnerID: 7, Owner: "o",
		Wrapped: hsm.Wrapped{Mechanism: "aes-kwp", KEK: 1, Hash: hsm.SHA1, SeedLen: 20, Blob: []byte("blob")},
	}
	was := base.Sealed([]byte("pin")).Message()
	for name, edit := range map[string]func(*Token){
		"realm":            func(t *Token) { t.Realm = "q" },
		"serial":           func(t *Token) { t.Serial = "q" },
		"type":             func(t *Token) { t.Type = HOTP },
		"algorithm":        func(t *Token) { t.Algorithm = hsm.SHA256 },
		"digits":           func(t *Token) { t.Digits = 8 },
		"digits, overflow": func(t *Token) { t.Digits = 6 + 1<<8 },
		"period":           func(t *Token) { t.Period = 60 },
		"owner id":         func(t *Token) { t.OwnerID = 8 },
		"owner":            func(t *Token) { t.Owner = "q" },
		"state":            func(t *Token) { t.State = Lost },
		"mechanism":        func(t *Token) { t.Wrapped.Mechanism = "none" },
		"KEK":              func(t *Token) { t.Wrapped.KEK = 2 },
		"wrapped hash":     func(t *Token) { t.Wrapped.Hash = hsm.SHA512 },
		"seed length":      func(t *Token) { t.Wrapped.SeedLen = 19 },
		"wrapped bytes":    func(t *Token) { t.Wrapped.Blob = []byte("blob2") },
	} {
		edited := base
		edit(&edited)
		if bytes.Equal(edited.Sealed([]byte("pin")).Message(), was) {
			t.Errorf("an edited %s is not noticed", name)
		}
	}
	if bytes.Equal(base.Sealed(nil).Message(), was) || bytes.Equal(base.Sealed([]byte("pim")).Message(), was) {
		t.Error("another PIN is not noticed")
	}
	// What an accept moves is not bound: it would have to be bound anew each time.
	moved := base
	moved.Motion = Motion{Version: 9, Last: 9, Drift: 9, UsedAt: 9}
	if !bytes.Equal(moved.Sealed([]byte("pin")).Message(), was) {
		t.Error("an accept breaks the binding")
	}
}

func TestOnlyPossibleTokensAreValid(t *testing.T) {
	good := Token{Serial: "S-1", Type: TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: 30, Motion: Motion{Last: -1}}
	for name, c := range map[string]struct {
		edit func(*Token)
		ok   bool
	}{
		"as it is":          {func(*Token) {}, true},
		"7 digits":          {func(t *Token) { t.Digits = 7 }, true},
		"8 digits":          {func(t *Token) { t.Digits = 8 }, true},
		"5 digits":          {func(t *Token) { t.Digits = 5 }, false},
		"9 digits":          {func(t *Token) { t.Digits = 9 }, false},
		"-6 digits":         {func(t *Token) { t.Digits = -6 }, false},
		"1 s":               {func(t *Token) { t.Period = 1 }, true},
		"a day":             {func(t *Token) { t.Period = 86400 }, true},
		"0 s":               {func(t *Token) { t.Period = 0 }, false},
		"-30 s":             {func(t *Token) { t.Period = -30 }, false},
		"more than a day":   {func(t *Token) { t.Period = 86401 }, false},
		"sha512":            {func(t *Token) { t.Algorithm = hsm.SHA512 }, true},
		"no hash":           {func(t *Token) { t.Algorithm = 0 }, false},
		"unknown hash":      {func(t *Token) { t.Algorithm = 4 }, false},
		"no type":           {func(t *Token) { t.Type = "" }, false},
		"other type":        {func(t *Token) { t.Type = "TOTP" }, false},
		"HOTP":              {func(t *Token) { t.Type, t.Period, t.Last = HOTP, 0, 0 }, true},
		"HOTP with period":  {func(t *Token) { t.Type, t.Last = HOTP, 0 }, false},
		"HOTP below zero":   {func(t *Token) { t.Type, t.Period, t.Last = HOTP, 0, -1 }, false},
		"drift":             {func(t *Token) { t.Drift = -100 }, true},
		"counter too high":  {func(t *Token) { t.Type, t.Period, t.Last = HOTP, 0, maxFactor+1 }, false},
		"step too high":     {func(t *Token) { t.Last = math.MaxInt64 }, false},
		"step too low":      {func(t *Token) { t.Last = -2 }, false},
		"absurd drift":      {func(t *Token) { t.Drift = math.MaxInt }, false},
		"drift far behind":  {func(t *Token) { t.Drift = math.MinInt }, false},
		"no serial":         {func(t *Token) { t.Serial = "" }, false},
		"serial of 64":      {func(t *Token) { t.Serial = strings.Repeat("x", 64) }, true},
		"serial of 65":      {func(t *Token) { t.Serial = strings.Repeat("x", 65) }, false},
		"space":             {func(t *Token) { t.Serial = "a b" }, false},
		"slash":             {func(t *Token) { t.Serial = "a/b" }, false},
		"backslash":         {func(t *Token) { t.Serial = `a\b` }, false},
		"quote":             {func(t *Token) { t.Serial = `a"b` }, false},
		"apostrophe":        {func(t *Token) { t.Serial = "a'b" }, false},
		"newline":           {func(t *Token) { t.Serial = "a\nb" }, false},
		"NUL":               {func(t *Token) { t.Serial = "a\x00" }, false},
		"delete":            {func(t *Token) { t.Serial = "a\x7f" }, false},
		"not ASCII":         {func(t *Token) { t.Serial = "ä" }, false},
		"not UTF-8":         {func(t *Token) { t.Serial = "a\xff" }, false},
		"usual punctuation": {func(t *Token) { t.Serial = "F-12:34_5.6+7" }, true},
	} {
		token := good
		c.edit(&token)
		err := token.Valid()
		if c.ok != (err == nil) || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What was bound before tokens could expire is bound the same way still.
func TestARowWithoutAnExpiryIsAsItAlwaysWas(t *testing.T) {
	token := Token{
		Realm: "default", Serial: "T1", Type: TOTP, Algorithm: hsm.SHA256, Digits: 8, Period: 60, OwnerID: 258, Owner: "alice", State: Active,
		Passcodes: [][]byte{{1}}, Uses: 3, // not a TOTP token's
	}
	want := "\x00\x00\x00\x0fwatchword-row-1\x00\x00\x00\x07default\x00\x00\x00\x02T1\x00\x00\x00\x04totp" +
		"\x02\x00\x00\x00\x08\x00\x00\x00\x3c\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00\x05alice\x00\x00\x00\x06active\x00\x00\x00\x03pin"
	if got := string(token.Row([]byte("pin"))); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	token.Expires = time.UnixMicro(0x010203)
	if got := string(token.Row([]byte("pin"))); got != want+"\x00\x00\x00\x07expires\x00\x00\x00\x00\x00\x01\x02\x03" {
		t.Errorf("with an expiry: %q", got)
	}
}

func TestPasscodesAndUsesAreBoundInTheRow(t *testing.T) {
	token := stopgap(3, 0)
	seen := map[string]string{}
	for name, edit := range map[string]func(*Token){
		"as it is":       func(*Token) {},
		"uses":           func(t *Token) { t.Uses = 4 },
		"negative uses":  func(t *Token) { t.Uses = -3 },
		"expiry":         func(t *Token) { t.Expires = t.Expires.Add(time.Microsecond) },
		"none":           func(t *Token) { t.Expires = time.Time{} },
		"the code":       func(t *Token) { t.Passcodes = [][]byte{make([]byte, macSize)} },
		"no code":        func(t *Token) { t.Passcodes = nil },
		"an empty code":  func(t *Token) { t.Passcodes = append(t.Passcodes[:1:1], nil) },
		"two for one":    func(t *Token) { t.Passcodes = [][]byte{t.Passcodes[0][:16], t.Passcodes[0][16:]} },
		"the type":       func(t *Token) { t.Type = Recovery },
		"the other type": func(t *Token) { t.Type = TOTP },
	} {
		other := *token
		edit(&other)
		row := string(other.Row(nil))
		if same, ok := seen[row]; ok {
			t.Errorf("%s is bound like %s", name, same)
		}
		seen[row] = name
	}
	moved := *token
	moved.Last, moved.UsedAt = 2, 1
	if !bytes.Equal(moved.Row(nil), token.Row(nil)) {
		t.Error("motion is bound, and every accept would have to bind anew")
	}
}
