package tokens_test

import (
	"errors"
	"strings"
	"testing"

	"watchword/tokens"
)

func TestAPINKeepsToTheRulesOfItsRealm(t *testing.T) {
	h := newHouse(t)
	h.user("karl")
	h.user("Åsa-Lena")
	set := func(user, pin string) error { return second(h.SetPIN(ctx, h.admin, "", user, pin, false)) }
	for _, pin := range []string{
		"4711", "0815", "1235", "1324", "9081", "abce", "1112", "2211", "12125", "1231234", "päss wörd", "a1a2", "karl1", "l-rak", "1a2b3c",
		"acegikmo", "1357", "🔑🗝🔒🔓", strings.Repeat("€", 31) + "₤",
	} {
		if err := set("karl", pin); err != nil {
			t.Errorf("%q: %v", pin, err)
		}
	}
	for pin, say := range map[string]string{
		"1234": "follow one another", "98765": "follow one another", "1111": "all the same", "7890": "follow one another", "3210987": "follow one another",
		"abcd": "follow one another", "DCBA": "follow one another", "aAaA": "all the same", "€€€€": "all the same", "aBcDeF": "follow one another",
		"абвг": "follow one another", "٣٤٥٦": "follow one another", "６５４３": "follow one another",
		"1212": "repeated", "123123": "repeated", "abAB": "repeated", "4711471147114711": "repeated", "ßxSSx": "repeated",
		"karl": "name is no PIN", "KARL": "name is no PIN", "lrak": "backwards", "Lrak": "backwards",
		"471": "4 to 32 characters", strings.Repeat("47", 17): "4 to 32 characters", "47\x0011": "control", "47\xff11": "4 to 32",
	} {
		if err := set("karl", pin); !errors.Is(err, tokens.ErrInvalid) || !strings.Contains(err.Error(), say) || strings.Contains(err.Error(), pin) && !strings.Contains("1111 1234 dcba 1212 123123", pin) {
			t.Errorf("%q: %v, want %q", pin, err, say)
		}
	}
	if err := set("Åsa-Lena", "åSA-lena"); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("her name: %v", err)
	}
	if err := set("åsa-lena", "anel-asÅ"); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("her name backwards: %v", err)
	}

	h.must(h.SetRules(ctx, h.admin, "", 0, rules(func(r *tokens.Rules) { r.PIN.Min, r.PIN.Max, r.PIN.Sequences = 6, 8, true })))
	for pin, ok := range map[string]bool{"12345": false, "123456": true, "111111": true, "12121212": true, "123456789": false, "€€€€€€€€": true} {
		if err := set("karl", pin); (err == nil) != ok || !ok && !strings.Contains(err.Error(), "6 to 8 characters here") {
			t.Errorf("%q where 6 to 8 are asked for: %v", pin, err)
		}
	}
	// The rules say what PINs can be, not that there must be one.
	if err := set("karl", ""); err != nil {
		t.Errorf("none: %v", err)
	}
	h.intact()
}

func TestAPINThatSomebodyElseHasSetIsDueWhereTheRulesSaySo(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("A1"))
	due := func(pin string, ask, want bool) {
		t.Helper()
		u, err := h.SetPIN(ctx, h.admin, "", "alice", pin, ask)
		if err != nil || u.PINDue != want || u.HasPIN() != (pin != "") {
			t.Errorf("%+v, %v; want due %v", u, err, want)
		}
		r := h.last()
		said := false
		for _, f := range r.Detail {
			said = said || f.Name == "due" && f.Value == "true"
		}
		if said != want {
			t.Errorf("audited as %+v", r)
		}
		if shown, _, err := h.ShowUser(ctx, h.admin, "", "alice"); err != nil || shown.PINDue != want {
			t.Errorf("shown %+v, %v", shown, err)
		}
	}
	due("4711", false, false)
	due("4712", true, true)
	due("4711", false, false)
	h.must(h.SetRules(ctx, h.admin, "", 0, rules(func(r *tokens.Rules) { r.PIN.Change = true })))
	due("4712", false, true)
	due("", true, false) // there is nothing to change
	h.intact()
}
