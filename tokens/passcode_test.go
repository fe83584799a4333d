package tokens

import (
	"bytes"
	"crypto/rand"
	"errors"
	"math/bits"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWhatEndsLikeAPasscodeAndWhatDoesNot(t *testing.T) {
	for _, c := range []struct {
		typed, pin, code string // no code: it does not
	}{
		{"w0rd-s3a1-9xyz", "", "w0rds3a19xyz"},
		{"w0rds3a19xyz", "", "w0rds3a19xyz"},
		{"W0RD S3A1 9XYZ", "", "w0rds3a19xyz"},
		{"WoRd-s3AI-9xyz", "", "w0rds3a19xyz"},
		{"WOrd-s3al-9xyz", "", "w0rds3a19xyz"},
		{"w0-rd s3a19-xyz", "", "w0rds3a19xyz"},
		{"4711w0rd-s3a1-9xyz", "4711", "w0rds3a19xyz"},
		{"4711w0rds3a19xyz", "4711", "w0rds3a19xyz"},
		{"päss wörd w0rd-s3a1-9xyz", "päss wörd ", "w0rds3a19xyz"},
		{"4711-w0rd-s3a1-9xyz", "4711-", "w0rds3a19xyz"},
		{"€w0rds3a19xyz", "€", "w0rds3a19xyz"},

		{typed: ""}, {typed: "123456"}, {typed: "w0rds3a19xy"}, {typed: "-0rds3a19xyz"},
		{typed: "w0rd-s3a1-9xyz "}, {typed: "w0rd-s3a1-9xyz-"}, {typed: "w0rd--s3a1-9xyz"}, {typed: "w0rd- s3a1-9xyz"}, {typed: "w0rd_s3a1_9xyz"},
		{typed: "w0rd-s3a1-9xyu"}, {typed: "w0rd-s3a1-9xy€"}, {typed: "w0rd–s3a1–9xyz"}, {typed: "w0rds3a19xyz\n"}, {typed: "w0rds3a19xy\x00"},
		// Digits alone are a PIN and an OTP, modhex alone is a Yubico OTP.
		{typed: "123456789012"}, {typed: "4711" + "12345678"}, {typed: "12345678-654321"}, {typed: "OO12345678lI"},
		{typed: "cbdefghjknrt"}, {typed: "vvhvcccccccddtgkbbgjutcktugfgvcrfkdlkbdiinvh"}, {typed: "CBDEFGHIJKLN"}, {typed: "1bdefghjknrt"},
	} {
		pin, p, ok := splitPasscode(c.typed)
		if ok != (c.code != "") || ok && (pin != c.pin || string(p[:]) != c.code) {
			t.Errorf("%q: %v, PIN %q, code %q; want %q, %q", c.typed, ok, pin, p[:], c.pin, c.code)
		}
	}
}

// However a passcode is typed, and whatever goes before it, it is the one that was
// shown, and what went before.
func TestAPasscodeIsReadAsItWasShown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list [1]passText
		if err := newPasscodes(rand.Reader, list[:]); err != nil {
			t.Fatal(err)
		}
		pin := rapid.StringN(0, 32, 96).Draw(t, "PIN")
		shown := list[0].shown()
		if len(shown) != 14 || shown[4] != '-' || shown[9] != '-' {
			t.Fatalf("it is shown as %q", shown)
		}
		var typed []byte
		for _, c := range shown {
			like := map[byte]string{'0': "0oO", '1': "1iIlL", '-': "- "}[c]
			switch {
			case c == '-' && rapid.Bool().Draw(t, "left out"):
				continue
			case like == "":
				like = string(c) + strings.ToUpper(string(c))
			}
			typed = append(typed, rapid.SampledFrom([]byte(like)).Draw(t, "typed"))
		}
		got, p, ok := splitPasscode(pin + string(typed))
		if !ok || got != pin || p != list[0] {
			t.Fatalf("%q is read as %q and %q, %v", pin+string(typed), got, p[:], ok)
		}
		if len(pin) <= 96 && len(pin)+2*passChars-1 >= maxCode {
			t.Fatal("what may be typed is cut off")
		}
	})
}

func TestNoPINAndOTPInDigitsAndNoYubicoOTPEndsLikeAPasscode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		typed := rapid.StringMatching(`[0-9]{4,32}[ -]?[0-9]{6,8}`).Draw(t, "digits")
		if rapid.Bool().Draw(t, "YubiKey") {
			typed = rapid.StringMatching(`([0-9a-zA-Z]{0,8})[cbdefghijklnrtuv]{32}`).Draw(t, "OTP")
		}
		if _, _, ok := splitPasscode(typed); ok {
			t.Fatalf("%q does", typed)
		}
	})
}

func TestPasscodesAreRandomAndEachAnother(t *testing.T) {
	list := make([]passText, 2000)
	if err := newPasscodes(rand.Reader, list); err != nil {
		t.Fatal(err)
	}
	seen, used := map[passText]bool{}, map[byte]int{}
	for i := range list {
		if seen[list[i]] || !list[i].sound() {
			t.Fatalf("passcode %d is %q", i, list[i][:])
		}
		seen[list[i]] = true
		for _, c := range list[i] {
			used[c]++
		}
	}
	for _, c := range []byte(crockford) {
		if n := used[c]; n < 500 || n > 1000 { // 750 of 24000 are expected, give or take 27
			t.Errorf("%c is there %d times", c, n)
		}
	}
	if len(used) != 32 {
		t.Errorf("%d different characters", len(used))
	}
	// What is not random makes none, rather than weak ones.
	for name, random := range map[string]string{"zeros": strings.Repeat("\x00", 1<<12), "the same": strings.Repeat("abcdefghijkl", 1<<9), "too few": "abcdefghijklabc"} {
		if err := newPasscodes(strings.NewReader(random), make([]passText, 2)); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func sheet(codes int, used uint64) *Token {
	t := &Token{
		ID: 1, Realm: "default", Serial: "R-0011223344556677", Type: Recovery, State: Active, OwnerID: 7, Owner: "alice",
		Motion: Motion{Version: 1, Last: int64(used)},
	}
	for i := range codes {
		t.Passcodes = append(t.Passcodes, bytes.Repeat([]byte{byte(i + 1)}, macSize))
	}
	return t
}

func stopgap(uses int, used int64) *Token {
	t := sheet(1, 0)
	t.Serial, t.Type, t.Uses, t.Expires, t.Last = "T-0011223344556677", Temporary, uses, at.Add(time.Hour), used
	return t
}

func TestPasscodesThatNoTokenHas(t *testing.T) {
	for name, c := range map[string]struct {
		token *Token
		edit  func(*Token)
		ok    bool
	}{
		"a sheet":              {sheet(10, 0), nil, true},
		"a sheet used up":      {sheet(32, 1<<32-1), nil, true},
		"a sheet of one":       {sheet(1, 1), nil, true},
		"a bit too many":       {sheet(10, 1<<10), nil, false},
		"a bit of no sheet":    {sheet(32, 1<<32), nil, false},
		"the highest bit":      {sheet(10, 1<<63), nil, false},
		"no codes":             {sheet(0, 0), nil, false},
		"33 codes":             {sheet(33, 0), nil, false},
		"a sheet with uses":    {sheet(10, 0), func(t *Token) { t.Uses = 1 }, false},
		"a sheet that expires": {sheet(10, 0), func(t *Token) { t.Expires = at }, true},
		"a revoked sheet":      {sheet(10, 5), func(t *Token) { t.State, t.Passcodes = Revoked, nil }, true},
		"revoked with codes":   {sheet(10, 5), func(t *Token) { t.State = Revoked }, false},
		"a short MAC":          {sheet(10, 0), func(t *Token) { t.Passcodes[3] = t.Passcodes[3][:31] }, false},
		"digits":               {sheet(10, 0), func(t *Token) { t.Digits = 6 }, false},
		"a period":             {sheet(10, 0), func(t *Token) { t.Period = 30 }, false},
		"an algorithm":         {sheet(10, 0), func(t *Token) { t.Algorithm = 1 }, false},
		"a drift":              {sheet(10, 0), func(t *Token) { t.Drift = 1 }, false},
		"a seed":               {sheet(10, 0), func(t *Token) { t.Wrapped.Blob = []byte{1} }, false},
		"no serial":            {sheet(10, 0), func(t *Token) { t.Serial = "" }, false},
		"temporary":            {stopgap(5, 0), nil, true},
		"temporary, used up":   {stopgap(5, 5), nil, true},
		"used too often":       {stopgap(5, 6), nil, false},
		"used less than never": {stopgap(5, -1), nil, false},
		"no use":               {stopgap(0, 0), nil, false},
		"101 uses":             {stopgap(101, 0), nil, false},
		"for ever":             {stopgap(5, 0), func(t *Token) { t.Expires = time.Time{} }, false},
		"two codes":            {stopgap(5, 0), func(t *Token) { t.Passcodes = sheet(2, 0).Passcodes }, false},
		"temporary, revoked":   {stopgap(5, 2), func(t *Token) { t.State, t.Passcodes = Revoked, nil }, true},
	} {
		if c.edit != nil {
			c.edit(c.token)
		}
		if err := c.token.Valid(); c.ok != (err == nil) || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHowMuchOfAPasscodeIsLeft(t *testing.T) {
	gone := sheet(10, 3)
	gone.State, gone.Passcodes = Revoked, nil
	for name, c := range map[string]struct {
		token *Token
		want  int
	}{
		"a new sheet": {sheet(10, 0), 10}, "the second and the last used": {sheet(10, 1<<1|1<<9), 8}, "all used": {sheet(32, 1<<32-1), 0},
		"temporary": {stopgap(5, 0), 5}, "used twice": {stopgap(5, 2), 3}, "used up": {stopgap(5, 5), 0}, "altered": {stopgap(5, 9), 0},
		"revoked": {gone, 0}, "a TOTP token": {totpToken(30, Motion{Last: 9}), 0},
	} {
		if got := c.token.Left(); got != c.want {
			t.Errorf("%s: %d are left, want %d", name, got, c.want)
		}
	}
}

// Whatever is used in whatever order: each code of a sheet once, a temporary one so
// many times, and Last never falls.
func TestPasscodesAreConsumed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 32).Draw(t, "codes")
		token := sheet(n, 0)
		if rapid.Bool().Draw(t, "temporary") {
			token = stopgap(n, 0)
		}
		accepted := map[uint64]bool{}
		total := 0
		for range rapid.IntRange(0, 80).Draw(t, "tries") {
			p := passcode{}
			which := 0
			if token.Type == Recovery {
				which = rapid.IntRange(0, n-1).Draw(t, "which")
			}
			p.judge(token, token.Passcodes[which])
			if !p.right {
				t.Fatal("a right code is not recognised")
			}
			c := candidate{token: token, pass: &p, pinOK: true, bare: true}
			factor, fresh, replay := c.hit()
			if fresh == replay {
				t.Fatalf("factor %d is fresh and a replay, or neither", factor)
			}
			if !fresh {
				if token.Type == Recovery && !accepted[factor] || token.Type == Temporary && total < n {
					t.Fatalf("factor %d of %+v is not fresh", factor, token.Motion)
				}
				continue
			}
			if accepted[factor] {
				t.Fatalf("factor %d is accepted twice", factor)
			}
			accepted[factor] = true
			total++
			before := token.Motion
			token.Motion = token.consume(factor, at)
			if token.Last <= before.Last || token.UsedAt != at.Unix() || token.Drift != 0 || token.Valid() != nil {
				t.Fatalf("from %+v to %+v: %v", before, token.Motion, token.Valid())
			}
			if token.Left() != n-total {
				t.Fatalf("%d are left of %d after %d", token.Left(), n, total)
			}
		}
		if token.Type == Recovery && bits.OnesCount64(uint64(token.Last)) != total {
			t.Fatalf("%b after %d codes", token.Last, total)
		}
		var wrong passcode
		if wrong.judge(token, make([]byte, macSize)); wrong.right {
			t.Fatal("a wrong code is recognised")
		}
	})
}

// A code is worth nothing for another user, another token or another code.
func TestThePasscodesMessageNamesUserTokenAndCode(t *testing.T) {
	var p, q passText
	copy(p[:], "w0rds3a19xyz")
	copy(q[:], "w0rds3a19xyy")
	seen := map[string]bool{}
	for _, m := range [][]byte{
		passcodeMessage(1, "R-1", &p), passcodeMessage(2, "R-1", &p), passcodeMessage(1, "R-2", &p), passcodeMessage(1, "R-1", &q),
		passcodeMessage(1, "R-1w", &p), passcodeMessage(1, "", &p), passcodeMessage(-1, "R-1", &p),
		pinMessage(&User{ID: 1}, string(p[:])), privateMessage(&Token{Serial: "R-1"}, p[:6]),
	} {
		if seen[string(m)] {
			t.Errorf("%q is there twice", m)
		}
		seen[string(m)] = true
	}
}

func TestEachReasonOfPasscodesExpiryAndPINsIsExplained(t *testing.T) {
	for _, r := range []Reason{ReasonExpiredToken, ReasonExpiredUsed, ReasonUsedUp, ReasonPINDue} {
		if x := explanations[r]; x.words == "" || x.advice == "" {
			t.Errorf("%s: %q, %q", r, x.words, x.advice)
		}
		if _, ranked := order[r]; !ranked && r != ReasonPINDue { // which ends it
			t.Errorf("%s has no rank", r)
		}
	}
	for r := range keyExplanations {
		if explanations[r].words == "" || explanations[r].words == keyExplanations[r].words {
			t.Errorf("%s is explained for keys, and for codes as %q", r, explanations[r].words)
		}
	}
}

func TestTemporaryPasscodesWithinTheRules(t *testing.T) {
	rules := TemporaryRules{Allow: true, Valid: 24 * time.Hour, Uses: 5}
	for _, c := range []struct {
		asked, want TemporaryRequest
		err         error
	}{
		{TemporaryRequest{}, TemporaryRequest{24 * time.Hour, 5}, nil},
		{TemporaryRequest{Valid: time.Hour}, TemporaryRequest{time.Hour, 5}, nil},
		{TemporaryRequest{Uses: 1}, TemporaryRequest{24 * time.Hour, 1}, nil},
		{TemporaryRequest{24 * time.Hour, 5}, TemporaryRequest{24 * time.Hour, 5}, nil},
		{TemporaryRequest{time.Minute, 1}, TemporaryRequest{time.Minute, 1}, nil},
		{TemporaryRequest{Valid: 24*time.Hour + 1}, TemporaryRequest{}, ErrInvalid},
		{TemporaryRequest{Valid: time.Minute - 1}, TemporaryRequest{}, ErrInvalid},
		{TemporaryRequest{Valid: -time.Hour}, TemporaryRequest{}, ErrInvalid},
		{TemporaryRequest{Uses: 6}, TemporaryRequest{}, ErrInvalid},
		{TemporaryRequest{Uses: -1}, TemporaryRequest{}, ErrInvalid},
	} {
		got, err := c.asked.within(rules)
		if !errors.Is(err, c.err) || err == nil && got != c.want {
			t.Errorf("%+v: %+v, %v; want %+v, %v", c.asked, got, err, c.want, c.err)
		}
	}
	rules.Allow = false
	if _, err := (TemporaryRequest{}).within(rules); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "temporary.allow") {
		t.Errorf("not allowed: %v", err)
	}
}
