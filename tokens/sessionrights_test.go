package tokens_test

import (
	"errors"
	"testing"
	"time"

	"watchword/tokens"
)

// Whoever took over a session that is not fresh must not make it so by what they hand
// out to its user, or to somebody else with a role.
func TestWhatSomebodyWithARoleSignsInWithTakesAFreshProof(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "superuser")
	h.person("boss", "superuser")
	h.user("bob")
	h.ship("", totp("S1"))
	v := h.opens("alice", d)
	h.clock.forward(5 * time.Minute)
	p := h.by(v)
	for what, do := range map[string]func() error{
		"her own PIN":           func() error { return second(h.SetPIN(ctx, p, "", "alice", "0815", false)) },
		"a token for herself":   func() error { return second(h.Assign(ctx, p, "", "S1", "alice")) },
		"a software token":      func() error { return third(h.EnrolSoft(ctx, p, tokens.NewSoft{User: "alice"})) },
		"a FIDO key":            func() error { return second(h.EnrolKey(ctx, p, h.newFIDO("alice", newSeckey("planted")))) },
		"a sheet of codes":      func() error { return third(h.IssueRecovery(ctx, p, "", "alice")) },
		"an invitation":         func() error { return third(h.Invite(ctx, p, tokens.NewInvitation{User: "alice"})) },
		"another's PIN":         func() error { return second(h.SetPIN(ctx, p, "", "boss", "0815", false)) },
		"a token for the other": func() error { return second(h.Assign(ctx, p, "", "S1", "boss")) },
	} {
		if err := do(); !errors.Is(err, tokens.ErrMFARequired) {
			t.Errorf("by a session that was proven five minutes ago: %s: %v", what, err)
		}
	}
	if last := h.last(); last.Outcome != "denied" || last.Actor != "admin:default/alice" {
		t.Errorf("audited as %+v", last)
	}
	// Of those who have no role it is daily work.
	h.must(h.SetPIN(ctx, p, "", "bob", "4711", false))
	if got, err := h.StepUp(ctx, p, "4711"+d.code(h, 0), "http"); err != nil || got == nil {
		t.Fatalf("renewing: %+v, %v", got, err)
	}
	h.must(h.Assign(ctx, h.by(v), "", "S1", "boss"))
	h.intact()
}

// What an installation permits to people is for those who signed in here.
func TestNoPolicyMakesAnApplicationsSessionMore(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "auditor")
	h.user("bob")
	h.put(puts(
		item("people", `permit (principal is Watchword::Admin, action, resource);`),
		item("alice", `permit (principal == Watchword::Admin::"default/alice", action, resource);`),
	))
	_, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "app", Scope: "verify", Realm: "default"})
	h.must(nil, err)
	app, err := h.Admit(ctx, text, "192.0.2.50")
	h.must(nil, err)
	v, err := h.SignIn(ctx, app, tokens.SignInRequest{User: "alice", Code: "4711" + d.code(h, 0)})
	if err != nil || v == nil {
		t.Fatalf("signing in: %+v, %v", v, err)
	}
	p := h.by(v)
	for what, err := range map[string]error{
		"shows a user":           third(h.ShowUser(ctx, p, "", "bob")),
		"sets a PIN":             second(h.SetPIN(ctx, p, "", "bob", "0815", false)),
		"gives a role":           second(h.GrantRole(ctx, p, tokens.RoleRequest{User: "bob", Role: "helpdesk"})),
		"lists others' sessions": second(h.Sessions(ctx, p, "", "bob")),
	} {
		if !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("an application's session %s: %v", what, err)
		}
	}
	h.must(h.Sessions(ctx, p, "", "alice")) // which all may
	own := h.opens("alice", d)
	if _, _, err := h.ShowUser(ctx, h.by(own), "", "bob"); err != nil {
		t.Errorf("a session of her own: %v", err)
	}
}

// REALM/USER is the same text for two people, were it not for how policy.ID writes it.
func TestAnAdminIsNobodyElseToPolicies(t *testing.T) {
	h := newHouse(t)
	h.must(h.AddUser(ctx, h.admin, "corp/it", "alice"))
	d := totp("T-alice")
	h.ship("corp/it", d)
	h.must(h.Assign(ctx, h.admin, "corp/it", d.Serial, "alice"))
	h.must(h.SetPIN(ctx, h.admin, "corp/it", "alice", "4711", false))
	h.must(h.GrantRole(ctx, h.admin, tokens.RoleRequest{Realm: "corp/it", User: "alice", Role: "helpdesk", In: tokens.AnyRealm}))
	// Somebody else, of realm corp, may do a thing.
	h.put(puts(item("other", `permit (principal == Watchword::Admin::"corp/it/alice", action == Watchword::Action::"key.list", resource);`)))
	in := func() tokens.Principal {
		h.clock.forward(time.Minute)
		v, err := h.SignIn(ctx, tokens.SignInPrincipal(office), tokens.SignInRequest{Realm: "corp/it", User: "alice", Code: "4711" + d.code(h, 0), Transport: "http"})
		if err != nil || v == nil {
			t.Fatalf("signing in: %+v, %v", v, err)
		}
		return h.by(v)
	}
	if _, err := h.Keys(ctx, in()); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("alice of corp/it does what it/alice of corp may: %v", err)
	}
	h.put(puts(item("her", `permit (principal == Watchword::Admin::"corp%2Fit/alice", action == Watchword::Action::"key.list", resource);`)))
	p := in()
	h.must(h.Keys(ctx, p))
	if p.Actor() != "admin:corp%2Fit/alice" {
		t.Errorf("she is %s in the audit", p.Actor())
	}
	if _, err := h.Sessions(ctx, p, "corp/it", "alice"); err != nil {
		t.Errorf("she does not see her own sessions: %v", err)
	}
	if got, err := h.StepUp(ctx, p, "4711"+d.code(h, 1), "http"); err != nil || got == nil {
		t.Errorf("renewing: %+v, %v", got, err)
	}
	h.must(nil, h.SignOut(ctx, p))
}

// What people may do to others says nothing of whether they can prove who they are.
func TestWhoeverSignsInRenews(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "auditor")
	h.user("guest")
	h.put(puts(item("gate", `forbid (principal, action == Watchword::Action::"verify", resource in Watchword::User::"default/guest");`)))
	v := h.opens("alice", d)
	h.clock.forward(time.Minute)
	if got, err := h.StepUp(ctx, h.by(v), "4711"+d.code(h, 0), "http"); err != nil || got == nil {
		t.Errorf("an auditor who signed in cannot renew: %+v, %v, %s", got, err, h.last().Reason)
	}
	h.put(puts(item("gate", `forbid (principal, action == Watchword::Action::"verify", resource in Watchword::User::"default/alice");`)))
	h.clock.forward(time.Minute)
	if got, err := h.StepUp(ctx, h.by(v), "4711"+d.code(h, 0), "http"); err != nil || got != nil {
		t.Errorf("who is forbidden to verify renews: %+v, %v", got, err)
	}
}

// A clock that was set back makes no proof young.
func TestAProofOfTheFutureIsNone(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "superuser")
	v := h.opens("alice", d)
	h.clock.forward(-20 * time.Second) // as another node's may be
	h.must(h.Keys(ctx, h.by(v)))
	if _, _, err := h.AddKey(ctx, h.by(v), tokens.NewKey{Name: "a", Scope: "read"}); err != nil {
		t.Errorf("twenty seconds before the proof: %v", err)
	}
	h.clock.forward(-50 * time.Minute)
	if _, _, err := h.AddKey(ctx, h.by(v), tokens.NewKey{Name: "b", Scope: "read"}); !errors.Is(err, tokens.ErrMFARequired) {
		t.Errorf("an hour before the proof: %v", err)
	}
}

// Who deletes the list of policies wants to be rid of what they forbid.
func TestPoliciesThatWereDeletedStillForbid(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.put(puts(item("no-revoking", nobodyRevokes)))
	h.db.edit(func(e *editor) {
		e.document = func(d *tokens.Document) {
			if d.Name == "policies" {
				d.Version = 0
			}
		}
	})
	h.must(h.AddUser(ctx, h.admin, "", "bob"))                                                    // which has nothing read anew
	if _, _, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "k", Scope: "read"}); err != nil { // and this has
		t.Fatal(err)
	}
	for what, s := range map[string]*tokens.Service{"a node that knew them": h.Service, "one that starts now": h.node(&firsts{})} {
		if _, err := s.Revoke(ctx, h.admin, "", "T1", "gone"); !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("%s revokes: %v", what, err)
		}
		if r, err := s.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.code(h, 0)}); !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("%s verifies: %+v, %v", what, r, err)
		}
	}
	h.db.edit(func(e *editor) { e.document = nil })
	h.put(puts(item("night", nightShift)))
	if _, err := h.Revoke(ctx, h.admin, "", "T1", "gone"); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("when they are there again: %v", err)
	}
}

// An invitation that a helpdesk could not make for somebody with a role does not wait for
// the role; nor does one wait for who made it to be gone.
func TestAnInvitationIsWorthWhatWhoMadeItMay(t *testing.T) {
	h := newHouse(t)
	d := h.person("desk", "helpdesk@default")
	for _, name := range []string{"alice", "bob", "carol"} {
		h.user(name)
	}
	invite := func(p tokens.Principal, user string) (tokens.Principal, string) {
		t.Helper()
		_, code, err := h.Invite(ctx, p, tokens.NewInvitation{User: user})
		h.must(nil, err)
		guest, _, err := h.Invited(ctx, code)
		h.must(nil, err)
		return guest, code
	}
	desk := h.by(h.opens("desk", d))
	key := h.key("", "helpdesk")
	early, earlyCode := invite(desk, "alice")
	early2, _ := invite(key, "alice")
	boss, _ := invite(h.admin, "alice")
	left, leftCode := invite(desk, "bob")
	other, _ := invite(h.key("default", "admin"), "carol")
	h.grants("alice", "superuser")
	h.grants("carol", "helpdesk@default")
	for what, err := range map[string]error{
		"a session's": third(h.EnrolSoft(ctx, early, tokens.NewSoft{User: "alice"})),
		"a key's":     second(h.EnrolKey(ctx, early2, h.newFIDO("alice", newSeckey("planted")))),
		"shown again": third(h.Invited(ctx, earlyCode)),
	} {
		if !errors.Is(err, tokens.ErrUnknownKey) {
			t.Errorf("a helpdesk's invitation, %s, of who is a superuser since: %v", what, err)
		}
	}
	h.must(h.EnrolKey(ctx, boss, h.newFIDO("alice", newSeckey("hers"))))
	h.must(h.EnrolKey(ctx, other, h.newFIDO("carol", newSeckey("carol's"))))
	if _, _, err := h.Invited(ctx, leftCode); err != nil {
		t.Errorf("of who has no role: %v", err)
	}
	h.must(nil, h.RevokeRole(ctx, h.admin, tokens.RoleRequest{User: "desk", Role: "helpdesk", In: "default"}))
	if _, err := h.EnrolKey(ctx, left, h.newFIDO("bob", newSeckey("theirs"))); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("by who has no role any more: %v", err)
	}
}

// What may not be done to one token stops no other.
func TestABulkGoesOnPastWhatIsForbidden(t *testing.T) {
	h := newHouse(t)
	h.person("alice", "superuser")
	h.person("bob")
	for _, name := range []string{"alice", "bob"} {
		h.must(h.Suspend(ctx, h.admin, "", "T-"+name, ""))
	}
	desk := h.key("", "helpdesk")
	got := map[string]string{}
	r, err := h.Bulk(ctx, desk, tokens.BulkRequest{Act: "resume", Reason: "found", Serials: []string{"T-alice", "T-bob"}}, func(i tokens.BulkItem) error {
		got[i.Serial] = i.Outcome
		return nil
	})
	if err != nil || r.Done != 1 || r.Refused != 1 || got["T-alice"] != tokens.BulkRefused || got["T-bob"] != tokens.BulkDone {
		t.Errorf("%+v, %v, %v", r, got, err)
	}
	if last := h.records("token.resume", "denied"); len(last) != 1 || last[0].Serial != "T-alice" {
		t.Errorf("audited as %+v", last)
	}
}
