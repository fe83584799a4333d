package tokens_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// office is where the people of the tests sit.
const office = "198.51.100.7"

// person gives a user of the default realm a PIN, a token, and roles, each
// ROLE or ROLE@REALM.
func (h *house) person(name string, roles ...string) *device {
	h.Helper()
	d := totp("T-" + name)
	h.give(name, d)
	h.must(h.SetPIN(ctx, h.admin, "", name, "4711", false))
	for _, r := range roles {
		h.grants(name, r)
	}
	return d
}

func (h *house) grants(name, role string) {
	h.Helper()
	role, in, ok := strings.Cut(role, "@")
	if !ok {
		in = tokens.AnyRealm
	}
	h.must(h.GrantRole(ctx, h.admin, tokens.RoleRequest{User: name, Role: role, In: in}))
}

// signs is an attempt to sign in without a key, from the office.
func (h *house) signs(name, code string) *tokens.SignedIn {
	h.Helper()
	v, err := h.SignIn(ctx, tokens.SignInPrincipal(office), tokens.SignInRequest{User: name, Code: code, Transport: "http"})
	if err != nil {
		h.Fatalf("%s signs in: %v", name, err)
	}
	return v
}

// opens is signs where that must go well; a minute passes first, so that the code is a
// new one, and there are tries left.
func (h *house) opens(name string, d *device) *tokens.SignedIn {
	h.Helper()
	h.clock.forward(time.Minute)
	v := h.signs(name, "4711"+d.code(h, 0))
	if v == nil {
		h.Fatalf("%s cannot sign in: %s", name, h.last().Reason)
	}
	return v
}

// is says whether a session is admitted.
func (h *house) is(v *tokens.SignedIn) bool {
	h.Helper()
	return h.on(h.Service, v, office)
}

func (h *house) on(s *tokens.Service, v *tokens.SignedIn, source string) bool {
	h.Helper()
	p, err := s.Admit(ctx, v.Text, source)
	if err == nil {
		_, err = s.Me(ctx, p)
	}
	if err != nil && !errors.Is(err, tokens.ErrUnknownKey) {
		h.Fatalf("a session is refused otherwise than an unknown key: %v", err)
	}
	return err == nil
}

func (h *house) by(v *tokens.SignedIn) tokens.Principal {
	h.Helper()
	p, err := h.Admit(ctx, v.Text, office)
	if err != nil {
		h.Fatal(err)
	}
	return p
}

func TestASessionIsOpenedWithPINAndCode(t *testing.T) {
	h := newHouse(t)
	d := h.person("Alice", "helpdesk", "auditor")
	v := h.opens("alice", d)
	if !strings.HasPrefix(v.Text, "wsn_"+v.ID+"_") || len(v.Text) < 60 {
		t.Errorf("the session's text is %d characters long, or not of its ID", len(v.Text))
	}
	now := h.clock.now()
	if v.Home != "default" || v.User != "alice" || v.Realm != "" || v.Serial != d.Serial || v.Method != "otp,pin,mfa" || v.Bound != office ||
		v.Through != "" || !v.Authenticated.Equal(now) || !v.Expires.Equal(now.Add(8*time.Hour)) || v.MAC != [32]byte{} {
		t.Errorf("the session: %+v", v.Session)
	}
	if !slices.Equal(v.Roles, []policy.Role{policy.Auditor, policy.Helpdesk}) {
		t.Errorf("roles: %v", v.Roles)
	}
	p := h.by(v)
	if p.Kind != tokens.KindAdmin || p.Actor() != "admin:default/alice" || p.Name != "Alice" || p.Realm != "" || p.Source != office || !p.MFA.Equal(now) {
		t.Errorf("the principal: %+v", p)
	}
	me, err := h.Me(ctx, p)
	if err != nil || me.ID != v.ID || !slices.Equal(me.Roles, v.Roles) || me.Text != "" {
		t.Errorf("who am I: %+v, %v", me, err)
	}
	if r := h.records("verify", "accept"); len(r) != 1 || r[0].User != "alice" || !slices.Contains(r[0].Detail, audit.Field{Name: "for", Value: "session.start"}) {
		t.Errorf("the verification: %+v", r)
	}
	if r := h.records("session.start", "ok"); len(r) != 1 || r[0].User != "alice" || r[0].Serial != d.Serial || r[0].Source != office {
		t.Errorf("the session's beginning: %+v", r)
	}
	if all := fmt.Sprintf("%+v", h.records("", "")); strings.Contains(all, v.Text) || strings.Contains(all, v.Text[20:]) || strings.Contains(h.log.String(), v.Text) {
		t.Error("the session's text is in the audit or in the log")
	}
	h.intact()
}

func TestACodeOpensOneSession(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "helpdesk")
	h.opens("alice", d)
	if h.signs("alice", "4711"+d.code(h, 0)) != nil {
		t.Error("a code opened a second session")
	}
	if got := h.last(); got.Reason != string(tokens.ReasonReplay) {
		t.Errorf("audited as %s", got.Reason)
	}
	if h.try("alice", "4711"+d.code(h, 0)) {
		t.Error("a code that opened a session was accepted by RADIUS")
	}
}

func TestWhoHasNoRoleLooksLikeAWrongCode(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.person("alice", "helpdesk"), h.person("bob")
	for what, try := range map[string]func() *tokens.SignedIn{
		"a wrong code":          func() *tokens.SignedIn { return h.signs("alice", "4711"+alice.wrong(1)) },
		"nobody":                func() *tokens.SignedIn { return h.signs("nobody", "4711"+bob.code(h, 0)) },
		"nobody can be":         func() *tokens.SignedIn { return h.signs("a\x00b", "4711"+bob.code(h, 0)) },
		"no role, a right code": func() *tokens.SignedIn { return h.signs("bob", "4711"+bob.code(h, 0)) },
		"no role, a wrong code": func() *tokens.SignedIn { return h.signs("bob", "4711"+bob.wrong(1)) },
	} {
		h.keys.factors.Store(0)
		h.keys.pins.Store(0)
		if try() != nil {
			t.Errorf("%s opens a session", what)
		}
		// A TOTP token's window is three steps, and one PIN is looked at.
		if f, p := h.keys.factors.Load(), h.keys.pins.Load(); f != 3 || p != 1 {
			t.Errorf("%s costs %d codes and %d PINs", what, f, p)
		}
		if r := h.last(); r.Outcome != "reject" || r.Action != "verify" {
			t.Errorf("%s is audited as %+v", what, r)
		}
	}
	if s := h.standing("bob"); s.Failures != 0 {
		t.Errorf("whoever has no role has %d failures by strangers", s.Failures)
	}
	if s := h.standing("alice"); s.Failures != 1 {
		t.Errorf("whoever has one has %d failures", s.Failures)
	}
	if !h.try("bob", "4711"+bob.code(h, 0)) {
		t.Error("a code was used up by somebody who could not sign in")
	}
	none := 0
	for _, r := range h.records("verify", "reject") {
		if r.Reason == string(tokens.ReasonNoRole) && r.User == "bob" {
			none++
		}
	}
	if none != 2 {
		t.Errorf("%d attempts without a role are audited as such", none)
	}
}

func TestARoleTakesTwoFactors(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.grants("alice", "helpdesk")
	_, err := h.SignIn(ctx, tokens.SignInPrincipal(office), tokens.SignInRequest{User: "alice", Code: d.code(h, 0)})
	if !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "watchword user pin alice") {
		t.Errorf("a code alone: %v", err)
	}
	if r := h.last(); r.Action != "session.start" || r.Outcome != "refused" || r.Reason != "state" {
		t.Errorf("audited as %+v", r)
	}

	k := newSeckey("alice's")
	h.enrol("alice", k)
	for _, verified := range []bool{false, true} {
		a := h.shows("alice", k)
		check := a.Check
		a.Check = func(c *tokens.Credential, u *tokens.User) (tokens.Assertion, error) {
			said, err := check(c, u)
			said.UserVerified = verified
			return said, err
		}
		p := tokens.SignInPrincipal(office)
		got, err := h.VerifyKey(ctx, p, a)
		if err != nil || !got.Accept {
			t.Fatalf("the key: %+v, %v", got, err)
		}
		v, err := h.SignInKey(ctx, p, tokens.SignInRequest{}, got)
		if verified && (err != nil || v.Serial != k.serial || v.Method != "hwk,user,mfa" || !h.is(v)) || !verified && !errors.Is(err, tokens.ErrState) {
			t.Errorf("a key that verified its user (%v): %+v, %v", verified, v, err)
		}
		if verified {
			if _, err := h.SignInKey(ctx, p, tokens.SignInRequest{}, got); !errors.Is(err, tokens.ErrState) {
				t.Errorf("one answer opens two sessions: %v", err)
			}
		}
	}
	if _, err := h.SignInKey(ctx, tokens.SignInPrincipal(office), tokens.SignInRequest{}, tokens.KeyResult{
		Result: tokens.Result{Accept: true, Serial: k.serial}, User: "alice", Realm: "default", At: h.clock.now(), UserVerified: true,
	}); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("an accept that was made up: %v", err)
	}
}

func TestWhereASessionActs(t *testing.T) {
	h := newHouse(t)
	for i, tt := range []struct {
		roles, in string
		err       error
		realm     string
		want      string
	}{
		{"helpdesk", "", nil, "", "helpdesk"},
		{"helpdesk", "*", nil, "", "helpdesk"},
		{"helpdesk", "corp", nil, "corp", "helpdesk"},
		{"auditor helpdesk@corp", "", nil, "", "auditor"},
		{"auditor helpdesk@corp", "Corp", nil, "corp", "auditor helpdesk"},
		{"auditor helpdesk@corp", "lab", nil, "lab", "auditor"},
		{"helpdesk@corp", "", nil, "corp", "helpdesk"},
		{"helpdesk@corp auditor@corp", "", nil, "corp", "auditor helpdesk"},
		{"helpdesk@corp auditor@lab", "", tokens.ErrInvalid, "", ""},
		{"helpdesk@corp auditor@lab", "lab", nil, "lab", "auditor"},
		{"helpdesk@corp", "default", tokens.ErrForbidden, "", ""},
		{"helpdesk@corp", "*", tokens.ErrForbidden, "", ""},
	} {
		name := fmt.Sprint("u", i)
		d := h.person(name, strings.Fields(tt.roles)...)
		h.clock.forward(time.Minute)
		v, err := h.SignIn(ctx, tokens.SignInPrincipal(office), tokens.SignInRequest{User: name, Code: "4711" + d.code(h, 0), In: tt.in})
		if !errors.Is(err, tt.err) || (err == nil) != (v != nil) {
			t.Errorf("%s in %q: %v", tt.roles, tt.in, err)
			continue
		}
		if err == nil {
			var roles []string
			for _, r := range v.Roles {
				roles = append(roles, string(r))
			}
			if v.Realm != tt.realm || strings.Join(roles, " ") != tt.want || h.by(v).Realm != tt.realm {
				t.Errorf("%s in %q acts in %q by %q; want %q by %q", tt.roles, tt.in, v.Realm, roles, tt.realm, tt.want)
			}
		}
	}
}

func TestWhatEndsASession(t *testing.T) {
	for what, end := range map[string]func(h *house, v *tokens.SignedIn){
		"signing out":       func(h *house, v *tokens.SignedIn) { h.must(nil, h.SignOut(ctx, h.by(v))) },
		"an administrator":  func(h *house, v *tokens.SignedIn) { h.must(nil, h.EndSession(ctx, h.admin, v.ID)) },
		"the lost token":    func(h *house, v *tokens.SignedIn) { h.must(h.MarkLost(ctx, h.admin, "", v.Serial, "")) },
		"a suspended token": func(h *house, v *tokens.SignedIn) { h.must(h.Suspend(ctx, h.admin, "", v.Serial, "")) },
		"a revoked token":   func(h *house, v *tokens.SignedIn) { h.must(h.Revoke(ctx, h.admin, "", v.Serial, "")) },
		"a token taken":     func(h *house, v *tokens.SignedIn) { h.must(h.Unassign(ctx, h.admin, "", v.Serial, "")) },
		"a token expired": func(h *house, v *tokens.SignedIn) {
			h.must(h.SetExpiry(ctx, h.admin, "", v.Serial, h.clock.now().Add(time.Hour)))
			h.clock.forward(time.Hour)
		},
		"a disabled user": func(h *house, v *tokens.SignedIn) {
			h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled))
		},
		"the role's end": func(h *house, v *tokens.SignedIn) {
			h.must(nil, h.RevokeRole(ctx, h.admin, tokens.RoleRequest{User: "alice", Role: "helpdesk", In: "*"}))
		},
		"time": func(h *house, v *tokens.SignedIn) { h.clock.forward(8 * time.Hour) },
		"a row set back": func(h *house, v *tokens.SignedIn) {
			h.db.edit(func(d *editor) { d.session = func(s *tokens.Session) { s.Expires = s.Expires.Add(time.Hour) } })
		},
		"another realm": func(h *house, v *tokens.SignedIn) {
			h.db.edit(func(d *editor) { d.session = func(s *tokens.Session) { s.Realm = "corp" } })
		},
		"another address": func(h *house, v *tokens.SignedIn) {
			h.db.edit(func(d *editor) { d.session = func(s *tokens.Session) { s.Bound = "" } })
		},
		"another user": func(h *house, v *tokens.SignedIn) {
			h.db.edit(func(d *editor) { d.session = func(s *tokens.Session) { s.User = "bob" } })
		},
		"an older proof": func(h *house, v *tokens.SignedIn) {
			h.db.edit(func(d *editor) {
				d.session = func(s *tokens.Session) { s.Authenticated = s.Authenticated.Add(time.Minute) }
			})
		},
		"an edited grant": func(h *house, v *tokens.SignedIn) {
			h.db.edit(func(d *editor) { d.grant = func(g *tokens.Grant) { g.Realm = "corp" } })
			h.grants("bob", "auditor")
		},
		"an edited token": func(h *house, v *tokens.SignedIn) {
			h.must(h.MarkLost(ctx, h.admin, "", v.Serial, ""))
			h.db.edit(func(d *editor) { d.token = func(t *tokens.Token) { t.State = tokens.Active } })
		},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHouse(t)
			d := h.person("alice", "helpdesk")
			h.user("bob")
			v := h.opens("alice", d)
			p := h.by(v) // of a request that is under way
			if !h.is(v) {
				t.Fatal("the session is not good from the beginning")
			}
			end(h, v)
			if h.is(v) {
				t.Error("the session is still good")
			}
			if _, err := h.Me(ctx, p); !errors.Is(err, tokens.ErrUnknownKey) {
				t.Errorf("a request that was under way: %v", err)
			}
			if _, err := h.StepUp(ctx, p, "4711"+d.code(h, 1), "http"); !errors.Is(err, tokens.ErrUnknownKey) {
				t.Errorf("renewing it: %v", err)
			}
		})
	}
}

func TestASessionThatEndedOnOneNodeIsRefusedOnAnotherAtOnce(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "helpdesk")
	other := h.node(&firsts{})
	v := h.opens("alice", d)
	if !h.on(other, v, office) {
		t.Fatal("the other node does not know the session")
	}
	p, err := other.Admit(ctx, v.Text, office)
	h.must(p, err)
	h.must(nil, h.SignOut(ctx, h.by(v)))
	if h.on(other, v, office) {
		t.Error("the other node still admits the session")
	}
	if _, err := other.Me(ctx, p); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("a request under way on the other node: %v", err)
	}
	w := h.opens("alice", d)
	if !h.on(other, w, office) {
		t.Fatal("the other node does not know the second session")
	}
	h.must(nil, h.RevokeRole(ctx, h.admin, tokens.RoleRequest{User: "alice", Role: "helpdesk", In: "*"}))
	if h.on(other, w, office) {
		t.Error("the other node admits who has no role any more")
	}
}

func TestASessionIsGoodFromWhereItBegan(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "helpdesk")
	v := h.opens("alice", d)
	if h.on(h.Service, v, "198.51.100.8") || h.on(h.Service, v, "") {
		t.Error("the session is good from elsewhere")
	}
	if r := h.last(); r.Action != "key.use" || r.Outcome != "denied" || r.Reason != "other_address" || r.User != "alice" {
		t.Errorf("audited as %+v", r)
	}
	for range 100 {
		h.on(h.Service, v, "198.51.100.8")
	}
	if n := len(h.records("key.use", "denied")); n > 20 {
		t.Errorf("%d records of what somebody tries over and over", n)
	}
	if !h.is(v) {
		t.Error("the session ended because it was shown from elsewhere")
	}

	free := newHouse(t, func(c *tokens.Config) { c.Sessions = tokens.SessionRules{Unbound: true, LifeAdmin: time.Hour} })
	v = free.opens("alice", free.person("alice", "helpdesk"))
	if !free.on(free.Service, v, "203.0.113.1") || !v.Expires.Equal(free.clock.now().Add(time.Hour)) {
		t.Errorf("a session that is bound to no address: %+v", v.Session)
	}
}

func TestRenewingProvesTheHolderAnew(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "superuser")
	v := h.opens("alice", d)
	p := h.by(v)
	h.clock.forward(10 * time.Minute)
	for _, code := range []string{"4711" + d.wrong(h.clock.now().Unix()/30), d.code(h, 0)} {
		if got, err := h.StepUp(ctx, p, code, "http"); got != nil || err != nil {
			t.Errorf("a wrong code renews: %+v, %v", got, err)
		}
	}
	if got := h.by(v).MFA; !got.Equal(v.Authenticated) {
		t.Errorf("a wrong code moved the proof to %v", got)
	}
	code := "4711" + d.code(h, 0)
	got, err := h.StepUp(ctx, p, code, "http")
	if err != nil || got == nil || !got.Authenticated.Equal(h.clock.now()) || !got.Expires.Equal(v.Expires) {
		t.Fatalf("renewing: %+v, %v", got, err)
	}
	if mfa := h.by(v).MFA; !mfa.Equal(h.clock.now()) {
		t.Errorf("the proof is of %v", mfa)
	}
	if got, err := h.StepUp(ctx, p, code, "http"); got != nil || err != nil {
		t.Errorf("a code renews twice: %+v, %v", got, err)
	}
	if r := h.records("session.renew", "ok"); len(r) != 1 || r[0].Actor != "admin:default/alice" {
		t.Errorf("renewals: %+v", r)
	}

	mine, theirs := newSeckey("alice's"), newSeckey("bob's")
	h.person("bob", "superuser")
	h.enrol("alice", mine)
	h.enrol("bob", theirs)
	h.clock.forward(time.Minute)
	for _, k := range []*seckey{theirs, mine} {
		user := map[*seckey]string{theirs: "bob", mine: "alice"}[k]
		shown, err := h.VerifyKey(ctx, tokens.SignInPrincipal(office), h.shows(user, k))
		if err != nil || !shown.Accept {
			t.Fatalf("the key: %+v, %v", shown, err)
		}
		got, err := h.StepUpKey(ctx, h.by(v), shown)
		if k == mine && (err != nil || got.Serial != mine.serial) || k == theirs && !errors.Is(err, tokens.ErrState) {
			t.Errorf("the key of %s renews alice's session: %+v, %v", user, got, err)
		}
	}
	// From now on it is the key that must not be lost.
	h.must(h.MarkLost(ctx, h.admin, "", d.Serial, ""))
	if !h.is(v) {
		t.Error("a token that was used before ended the session")
	}
	h.must(h.MarkLost(ctx, h.admin, "", mine.serial, ""))
	if h.is(v) {
		t.Error("the session is good without its key")
	}
}

func TestStrangersTryFewCodes(t *testing.T) {
	h := newHouse(t)
	h.person("alice", "helpdesk")
	try := func(source string) error {
		_, err := h.SignIn(ctx, tokens.SignInPrincipal(source), tokens.SignInRequest{User: "nobody", Code: "000000"})
		return err
	}
	for i := range 12 {
		if err := try("203.0.113.5"); (err == nil) != (i < 10) || err != nil && !errors.Is(err, tokens.ErrOverloaded) {
			t.Errorf("try %d: %v", i, err)
		}
	}
	if err := try("203.0.113.6"); err != nil {
		t.Errorf("from another address: %v", err)
	}
	for i := range 12 { // of one network
		if err := try(fmt.Sprintf("2001:db8::%x", i)); (err == nil) != (i < 10) {
			t.Errorf("try %d of an IPv6 network: %v", i, err)
		}
	}
	h.clock.forward(6 * time.Second)
	if err := try("203.0.113.5"); err != nil {
		t.Errorf("after six seconds: %v", err)
	}
	if err := try("203.0.113.5"); !errors.Is(err, tokens.ErrOverloaded) {
		t.Errorf("and once more: %v", err)
	}
	if r := h.records("session.start", "refused"); len(r) == 0 || r[len(r)-1].Reason != "throttled" {
		t.Errorf("audited as %+v", r)
	}
}

func TestAnApplicationsSessionLetsDoNothing(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "superuser")
	key := func(scope, realm string) tokens.Principal {
		_, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "app", Scope: scope, Realm: realm})
		h.must(nil, err)
		p, err := h.Admit(ctx, text, "192.0.2.50")
		h.must(nil, err)
		return p
	}
	app, abroad, everywhere := key("verify", "default"), key("verify", "corp"), key("verify", "")
	v, err := h.SignIn(ctx, app, tokens.SignInRequest{User: "alice", Code: "4711" + d.code(h, 0), For: 30 * time.Minute})
	if err != nil || v == nil || len(v.Roles) != 0 || v.Through != app.Actor() || v.Bound != "" || !v.Expires.Equal(h.clock.now().Add(30*time.Minute)) {
		t.Fatalf("signing in: %+v, %v", v, err)
	}
	if v, err := h.SignIn(ctx, app, tokens.SignInRequest{User: "alice", Code: "4711" + d.code(h, 0)}); v != nil || err != nil {
		t.Errorf("the same code: %+v, %v", v, err)
	}
	check := func(p tokens.Principal, text string) tokens.Checked {
		t.Helper()
		c, err := h.CheckSession(ctx, p, text)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for what, p := range map[string]tokens.Principal{"the key": app, "a key of all realms": everywhere} {
		if c := check(p, v.Text); !c.Active || c.User != "alice" || c.Realm != "default" || c.Serial != d.Serial || !c.Authenticated.Equal(v.Authenticated) ||
			!c.Expires.Equal(v.Expires) || !slices.Equal(c.Methods, []string{"otp", "pin", "mfa"}) {
			t.Errorf("%s is told %+v", what, c)
		}
	}
	own := h.opens("alice", d)
	for what, c := range map[string]tokens.Checked{
		"another realm":          check(abroad, v.Text),
		"another text":           check(app, v.Text[:len(v.Text)-1]+"x"),
		"nothing":                check(app, ""),
		"an API key":             check(app, "ww_0123456789abcdef_x"),
		"who may act here":       check(app, own.Text),
		"a session that is none": check(app, "wsn_0123456789abcdef_x"),
	} {
		if c.Active || c.User != "" {
			t.Errorf("%s is told %+v", what, c)
		}
	}
	// Whatever roles the user has: the application has none by it.
	p := h.by(v)
	if _, _, err := h.ShowUser(ctx, p, "", "alice"); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("showing a user by an application's session: %v", err)
	}
	if _, err := h.GrantRole(ctx, p, tokens.RoleRequest{User: "alice", Role: "superuser"}); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("granting a role by an application's session: %v", err)
	}
	if _, err := h.SignIn(ctx, app, tokens.SignInRequest{User: "alice", Code: "4711" + d.code(h, 1), In: "*"}); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("a session of an application that acts in all realms: %v", err)
	}
	for _, scope := range []string{"read", "provision"} {
		if _, err := h.SignIn(ctx, key(scope, ""), tokens.SignInRequest{User: "alice", Code: "x"}); !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("a key of scope %s signs somebody in: %v", scope, err)
		}
	}
	if _, err := h.SignIn(ctx, abroad, tokens.SignInRequest{User: "alice", Realm: "default", Code: "x"}); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("a key of another realm signs somebody in: %v", err)
	}
	h.must(h.MarkLost(ctx, h.admin, "", d.Serial, ""))
	if check(app, v.Text).Active {
		t.Error("the session of a lost token is active")
	}
	h.intact()
}

func TestALifeIsBounded(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "helpdesk")
	for life, ok := range map[time.Duration]bool{15 * time.Minute: true, 36 * time.Hour: true, 15*time.Minute - 1: false, 36*time.Hour + 1: false, -1: false} {
		h.clock.forward(time.Minute)
		v, err := h.SignIn(ctx, tokens.SignInPrincipal(office), tokens.SignInRequest{User: "alice", Code: "4711" + d.code(h, 0), For: life})
		if ok != (err == nil) || ok && !v.Expires.Equal(h.clock.now().Add(life)) || !ok && !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("a session of %s: %+v, %v", life, v, err)
		}
	}
	if _, err := tokens.New(ctx, tokens.Config{Database: h.db, Custody: h.keys, Sessions: tokens.SessionRules{LifeUser: time.Minute}}); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("a setting that is too short: %v", err)
	}
}

func TestSessionsAreListedAndEnded(t *testing.T) {
	h := newHouse(t)
	alice, bob := h.opens("alice", h.person("alice", "helpdesk")), h.opens("bob", h.person("bob", "auditor@default"))
	list := func(p tokens.Principal, realm, user string) (ids []string) {
		t.Helper()
		found, err := h.Sessions(ctx, p, realm, user)
		h.must(nil, err)
		for _, v := range found {
			if ids = append(ids, v.ID); v.MAC != [32]byte{} {
				t.Error("a MAC is listed")
			}
		}
		return ids
	}
	for _, tt := range []struct {
		realm, user string
		want        []string
	}{
		{"", "", []string{bob.ID, alice.ID}}, {"default", "", []string{bob.ID, alice.ID}}, {"corp", "", nil}, {"", "Alice", []string{alice.ID}},
	} {
		if got := list(h.admin, tt.realm, tt.user); !slices.Equal(got, tt.want) {
			t.Errorf("sessions of %q in %q: %v, not %v", tt.user, tt.realm, got, tt.want)
		}
	}
	if _, err := h.Sessions(ctx, h.admin, "", "nobody"); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("sessions of nobody: %v", err)
	}
	_, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "corp", Scope: "admin", Realm: "corp"})
	h.must(nil, err)
	corp, err := h.Admit(ctx, text, office)
	h.must(nil, err)
	if got := list(corp, "", ""); got != nil {
		t.Errorf("an administrator of another realm sees %v", got)
	}
	for _, id := range []string{alice.ID, "0123456789abcdef", alice.Text, ""} {
		if err := h.EndSession(ctx, corp, id); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("ending %q from another realm: %v", id, err)
		}
	}
	h.must(nil, h.EndSession(ctx, h.admin, alice.ID))
	if err := h.EndSession(ctx, h.admin, alice.ID); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("ending it twice: %v", err)
	}
	if h.is(alice) || !h.is(bob) {
		t.Error("another session ended than the one that was named")
	}
	if got := list(h.admin, "", ""); !slices.Equal(got, []string{bob.ID}) {
		t.Errorf("sessions: %v", got)
	}
}

// What becomes of a session, whatever happens in whatever order, is what a model says.
func TestALifeOfASession(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		h := newHouse(t)
		d := h.person("alice", "helpdesk@default")
		other := h.node(&firsts{})
		type open struct {
			v              *tokens.SignedIn
			ended          bool
			expires, proof time.Time
		}
		var all []*open
		enabled, lost, role := true, false, true
		pick := func() *open {
			if len(all) == 0 {
				rt.Skip("nobody signed in yet")
			}
			return rapid.SampledFrom(all).Draw(rt, "session")
		}
		good := func(o *open) bool {
			return !o.ended && enabled && !lost && role && h.clock.now().Before(o.expires)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"sign in": func(rt *rapid.T) {
				h.clock.forward(time.Minute)
				v := h.signs("alice", "4711"+d.code(h, 0))
				if (v != nil) != (enabled && !lost && role) {
					rt.Fatalf("alice signs in: %v; enabled %v, lost %v, role %v", v != nil, enabled, lost, role)
				}
				if v != nil {
					all = append(all, &open{v: v, expires: h.clock.now().Add(8 * time.Hour), proof: h.clock.now()})
				}
			},
			"renew": func(rt *rapid.T) {
				o := pick()
				h.clock.forward(time.Minute)
				p, err := other.Admit(ctx, o.v.Text, office)
				if (err == nil) != good(o) {
					rt.Fatalf("admitted: %v; it is good: %v", err, good(o))
				}
				if err == nil {
					if v, err := other.StepUp(ctx, p, "4711"+d.code(h, 0), "http"); err != nil || v == nil {
						rt.Fatalf("renewing: %v, %v", v, err)
					}
					o.proof = h.clock.now()
				}
			},
			"sign out": func(rt *rapid.T) {
				o := pick()
				if p, err := h.Admit(ctx, o.v.Text, office); err == nil {
					h.must(nil, h.SignOut(ctx, p))
					o.ended = true
				}
			},
			"end": func(rt *rapid.T) {
				o := pick()
				there := !o.ended && h.clock.now().Before(o.expires)
				if err := other.EndSession(ctx, h.admin, o.v.ID); (err == nil) != there {
					rt.Fatalf("ending: %v; it is there: %v", err, there)
				}
				o.ended = true
			},
			"disable or enable": func(rt *rapid.T) {
				enabled = !enabled
				state := map[bool]tokens.UserState{true: tokens.UserEnabled, false: tokens.UserDisabled}[enabled]
				h.must(h.SetUserState(ctx, h.admin, "", "alice", state))
			},
			"lose or find": func(rt *rapid.T) {
				if lost = !lost; lost {
					h.must(h.MarkLost(ctx, h.admin, "", d.Serial, ""))
				} else {
					h.must(h.Resume(ctx, h.admin, "", d.Serial, "found"))
				}
			},
			"give or take the role": func(rt *rapid.T) {
				r := tokens.RoleRequest{User: "alice", Role: "helpdesk", In: "default"}
				if role = !role; role {
					h.must(other.GrantRole(ctx, h.admin, r))
				} else {
					h.must(nil, other.RevokeRole(ctx, h.admin, r))
				}
			},
			"time": func(rt *rapid.T) {
				h.clock.forward(time.Duration(rapid.IntRange(1, 300).Draw(rt, "minutes")) * time.Minute)
			},
			"": func(rt *rapid.T) {
				for _, o := range all {
					for _, s := range []*tokens.Service{h.Service, other} {
						p, err := s.Admit(ctx, o.v.Text, office)
						if (err == nil) != good(o) || err == nil && !p.MFA.Equal(o.proof) {
							rt.Fatalf("session %s is admitted: %v, proven at %v; in the model it is good: %v, proven at %v", o.v.ID, err, p.MFA, good(o), o.proof)
						}
					}
				}
			},
		})
	})
}

func TestWhatIsProtectedTakesAFreshProof(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "superuser")
	h.person("bob")
	v := h.opens("alice", d)
	r := tokens.RoleRequest{User: "bob", Role: "helpdesk"}
	h.must(h.GrantRole(ctx, h.by(v), r))
	h.clock.forward(5 * time.Minute)
	if err := h.RevokeRole(ctx, h.by(v), r); !errors.Is(err, tokens.ErrMFARequired) || !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("five minutes after the code: %v", err)
	}
	if last := h.last(); last.Action != "role.revoke" || last.Outcome != "denied" || last.Actor != "admin:default/alice" {
		t.Errorf("audited as %+v", last)
	}
	h.must(h.Suspend(ctx, h.by(v), "", "T-bob", "")) // which is not protected
	if got, err := h.StepUp(ctx, h.by(v), "4711"+d.code(h, 0), "http"); err != nil || got == nil {
		t.Fatalf("renewing: %+v, %v", got, err)
	}
	h.must(nil, h.RevokeRole(ctx, h.by(v), r))
}

func TestAHelpdesksSessionCannotRaiseItsRights(t *testing.T) {
	h := newHouse(t)
	d := h.person("desk", "helpdesk@default")
	h.person("boss", "superuser")
	h.user("eve")
	h.must(h.AddUser(ctx, h.admin, "corp", "carol"))
	h.ship("", totp("S1"))
	v := h.opens("desk", d)
	p := h.by(v)
	if _, err := h.SetPIN(ctx, p, "", "eve", "4711", false); err != nil {
		t.Errorf("its daily work: %v", err)
	}
	for what, do := range map[string]func() error{
		"a role for itself": func() error { return second(h.GrantRole(ctx, p, tokens.RoleRequest{User: "desk", Role: "superuser"})) },
		"its role elsewhere": func() error {
			return second(h.GrantRole(ctx, p, tokens.RoleRequest{User: "desk", Role: "helpdesk", In: "*"}))
		},
		"a role for others": func() error { return second(h.GrantRole(ctx, p, tokens.RoleRequest{User: "eve", Role: "helpdesk"})) },
		"another's role": func() error {
			return h.RevokeRole(ctx, p, tokens.RoleRequest{User: "boss", Role: "superuser", In: "*"})
		},
		"an API key": func() error { return third(h.AddKey(ctx, p, tokens.NewKey{Name: "k", Scope: "admin"})) },
		"a key of its own": func() error {
			return third(h.AddKey(ctx, p, tokens.NewKey{Name: "k", Scope: "helpdesk", Realm: "default"}))
		},
		"a rotated key":        func() error { return third(h.RotateKey(ctx, p, h.admin.ID, time.Hour)) },
		"the boss's PIN":       func() error { return second(h.SetPIN(ctx, p, "", "boss", "0815", false)) },
		"a token for the boss": func() error { return second(h.Assign(ctx, p, "", "S1", "boss")) },
		"its own PIN":          func() error { return second(h.SetPIN(ctx, p, "", "desk", "0815", false)) },
		"another realm's user": func() error { _, _, err := h.ShowUser(ctx, p, "corp", "carol"); return err },
		"a wider realm":        func() error { q := p; q.Realm = ""; _, _, err := h.ShowUser(ctx, q, "corp", "carol"); return err },
		"more roles": func() error {
			q := p
			q.Roles = []policy.Role{policy.Superuser}
			return second(h.GrantRole(ctx, q, tokens.RoleRequest{User: "desk", Role: "superuser"}))
		},
		"a later proof": func() error {
			q := p
			q.MFA = q.MFA.Add(time.Hour)
			_, _, err := h.ShowUser(ctx, q, "", "eve")
			return err
		},
		"somebody else": func() error {
			q := p
			q.ID, q.User = "default/boss", "boss"
			_, _, err := h.ShowUser(ctx, q, "", "eve")
			return err
		},
	} {
		if err := do(); !errors.Is(err, tokens.ErrForbidden) && !errors.Is(err, tokens.ErrUnknownKey) {
			t.Errorf("a helpdesk gets %s: %v", what, err)
		}
	}
	h.intact()
}
