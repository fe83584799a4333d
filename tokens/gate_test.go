package tokens_test

import (
	"net/netip"
	"testing"
	"time"

	"watchword/tokens"
)

// tries is an attempt through the RADIUS client, from somewhere.
func (h *house) tries(user, code string, from tokens.Origin) (bool, tokens.Reason, string) {
	h.Helper()
	r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: user, Code: code, Transport: "radius", Origin: from})
	h.must(r, err)
	last := h.last()
	return r.Accept, tokens.Reason(last.Reason), last.Policy
}

func TestPoliciesForbidAttempts(t *testing.T) {
	office := netip.MustParseAddr("198.51.100.7")
	// That of the clock that the house has.
	weekday := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}[start.Weekday()]
	for _, c := range []struct {
		name, policy string
		from         tokens.Origin
		accept       bool
	}{
		{"whoever is in a group", `forbid (principal, action == Watchword::Action::"verify", resource in Watchword::Group::"default/guests");`, tokens.Origin{}, false},
		{"whoever is in another group", `forbid (principal, action == Watchword::Action::"verify", resource in Watchword::Group::"default/board");`, tokens.Origin{}, true},
		{"one user", `forbid (principal, action == Watchword::Action::"verify", resource in Watchword::User::"default/alice");`, tokens.Origin{}, false},
		{"another user", `forbid (principal, action == Watchword::Action::"verify", resource in Watchword::User::"default/bob");`, tokens.Origin{}, true},
		{"a type of token", `forbid (principal, action == Watchword::Action::"verify", resource is Watchword::Token) when { resource.type == "hotp" };`, tokens.Origin{}, false},
		{"all other types", `forbid (principal, action == Watchword::Action::"verify", resource is Watchword::Token) unless { resource.type == "hotp" };`, tokens.Origin{}, true},
		{"keys without attestation", `forbid (principal, action == Watchword::Action::"verify", resource is Watchword::Token) unless { resource.attested };`, tokens.Origin{}, false},
		{"a gateway", `forbid (principal == Watchword::Client::"localhost", action == Watchword::Action::"verify", resource);`, tokens.Origin{}, false},
		{"another gateway", `forbid (principal == Watchword::Client::"vpn", action == Watchword::Action::"verify", resource);`, tokens.Origin{}, true},
		{"a NAS", `forbid (principal, action == Watchword::Action::"verify", resource) when { context has nas && context.nas == "wlan" };`, tokens.Origin{NAS: "wlan"}, false},
		{"another NAS", `forbid (principal, action == Watchword::Action::"verify", resource) when { context has nas && context.nas == "wlan" };`, tokens.Origin{NAS: "vpn"}, true},
		{"callers from elsewhere", `forbid (principal, action == Watchword::Action::"verify", resource) unless { context has caller && context.caller.isInRange(ip("198.51.100.0/24")) };`, tokens.Origin{}, false},
		{"callers from elsewhere, and one from here", `forbid (principal, action == Watchword::Action::"verify", resource) unless { context has caller && context.caller.isInRange(ip("198.51.100.0/24")) };`, tokens.Origin{Caller: office}, true},
		{"a day of the week", `forbid (principal, action == Watchword::Action::"verify", resource) when { context.weekday == "` + weekday + `" };`, tokens.Origin{}, false},
		{"an hour that is not", `forbid (principal, action == Watchword::Action::"verify", resource) when { context.hour > 23 };`, tokens.Origin{}, true},
		{"what was not used for 90 days", `forbid (principal, action == Watchword::Action::"verify", resource is Watchword::Token) when { resource.unused_days >= 90 };`, tokens.Origin{}, true},
		{"what overflows", `forbid (principal, action == Watchword::Action::"verify", resource is Watchword::Token) when { resource.unused_days + 9223372036854775807 > 0 && resource.unused_days + 9223372036854775807 + 9223372036854775807 > 0 };`, tokens.Origin{}, false},
	} {
		h := newHouse(t)
		d := hotp("H1")
		h.give("alice", d)
		h.must(h.SetGroups(ctx, h.admin, "", "alice", []string{"guests"}))
		h.put(puts(item("gate", c.policy)))
		accept, why, by := h.tries("alice", d.at(0), c.from)
		if accept != c.accept {
			t.Errorf("%s: accepted: %v (%s by %s)", c.name, accept, why, by)
			continue
		}
		if accept {
			continue
		}
		if why != tokens.ReasonForbidden || by != "gate" && c.name != "what overflows" {
			t.Errorf("%s: audited as %s by %s", c.name, why, by)
		}
		if s := h.standing("alice"); s.Failures != 0 {
			t.Errorf("%s: %d failures are counted", c.name, s.Failures)
		}
		// The code was not used up, and a wrong one is what it always was.
		if accept, why, _ := h.tries("alice", "000000", c.from); accept || why != tokens.ReasonWrongCode {
			t.Errorf("%s: a wrong code: %v, %s", c.name, accept, why)
		}
		h.put(tokens.PolicyEdit{Delete: []string{"gate"}})
		if accept, why, by := h.tries("alice", d.at(0), c.from); !accept || by != "builtin.verifier" {
			t.Errorf("%s, taken back: %v, %s by %s", c.name, accept, why, by)
		}
		h.intact()
	}
}

// A user who leaves a group, or joins one, is judged by that with the next attempt,
// though groups are remembered.
func TestGroupsCountFromTheNextAttemptOn(t *testing.T) {
	h := newHouse(t)
	d := hotp("H1")
	h.give("alice", d)
	h.put(puts(item("gate", `forbid (principal, action == Watchword::Action::"verify", resource in Watchword::Group::"default/guests");`)))
	for i := range int64(6) {
		guest := i%2 == 1
		groups := []string{"staff"}
		if guest {
			groups = append(groups, "guests")
		}
		h.must(h.SetGroups(ctx, h.admin, "", "alice", groups))
		for range 2 {
			if accept, _, _ := h.tries("alice", d.at(2*i), tokens.Origin{}); accept == guest {
				t.Fatalf("%d: accepted: %v", i, accept)
			}
			if !guest { // the next is none that was used
				break
			}
		}
		h.clock.forward(time.Minute)
	}
}

// The PIN cannot be changed from where nobody is let in.
func TestPoliciesForbidChangingThePINToo(t *testing.T) {
	h := newHouse(t)
	d := hotp("H1")
	h.give("alice", d)
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	h.put(puts(item("gate", `forbid (principal, action in Watchword::Action::"verifying", resource in Watchword::Group::"default/guests");`)))
	h.must(h.SetGroups(ctx, h.admin, "", "alice", []string{"guests"}))
	if h.changes(h.Service, "alice", "4711"+d.at(0), "2807") {
		t.Error("it was changed")
	}
	h.must(h.SetGroups(ctx, h.admin, "", "alice", nil))
	if !h.changes(h.Service, "alice", "4711"+d.at(0), "2807") {
		t.Error("it was not changed")
	}
}
