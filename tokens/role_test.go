package tokens_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

func TestRolesAreGivenAndTaken(t *testing.T) {
	h := newHouse(t)
	h.user("Alice")
	r := tokens.RoleRequest{User: "ALICE", Role: "night-shift"}
	g, err := h.GrantRole(ctx, h.admin, r)
	if err != nil || g.User != "alice" || g.Home != "default" || g.Realm != "default" || g.Actor != h.admin.Actor() || g.MAC != [32]byte{} {
		t.Fatalf("granting: %+v, %v", g, err)
	}
	if r := h.last(); r.Action != "role.grant" || r.User != "alice" || r.Outcome != "ok" || len(r.Detail) != 2 {
		t.Errorf("audited as %+v", r)
	}
	if again, err := h.GrantRole(ctx, h.admin, r); err != nil || again != g || h.last().Reason != "unchanged" {
		t.Errorf("granting it again: %+v, %v", again, err)
	}
	list, err := h.Grants(ctx, h.admin, "")
	if err != nil || len(list) != 1 || list[0] != g {
		t.Errorf("roles: %+v, %v", list, err)
	}
	for what, bad := range map[string]tokens.RoleRequest{
		"nobody":        {User: "nobody", Role: "helpdesk"},
		"no name":       {User: "alice"},
		"capitals":      {User: "alice", Role: "Helpdesk"},
		"a colon":       {User: "alice", Role: "role:x"},
		"a long name":   {User: "alice", Role: strings.Repeat("x", 65)},
		"a realm":       {User: "alice", Role: "helpdesk", In: "a\x00b"},
		"a user's name": {User: "\x00", Role: "helpdesk"},
	} {
		want := tokens.ErrInvalid
		if what == "nobody" {
			want = tokens.ErrNotFound
		}
		if _, err := h.GrantRole(ctx, h.admin, bad); !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	h.must(nil, h.RevokeRole(ctx, h.admin, r))
	if err := h.RevokeRole(ctx, h.admin, r); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("taking it twice: %v", err)
	}
	if list, err := h.Grants(ctx, h.admin, ""); err != nil || len(list) != 0 {
		t.Errorf("roles: %+v, %v", list, err)
	}
	h.intact()
}

func TestNobodyGivesMoreThanTheyHave(t *testing.T) {
	h := newHouse(t)
	h.must(h.AddUser(ctx, h.admin, "corp", "carol"))
	h.user("bob")
	corp, desk := h.key("corp", "admin"), h.key("", "helpdesk")
	for _, tt := range []struct {
		who  string
		p    tokens.Principal
		r    tokens.RoleRequest
		want error
	}{
		{"corp's superuser, at home", corp, tokens.RoleRequest{User: "carol", Role: "superuser"}, nil},
		{"corp's superuser, for all", corp, tokens.RoleRequest{User: "carol", Role: "auditor", In: "*"}, tokens.ErrForbidden},
		{"corp's superuser, elsewhere", corp, tokens.RoleRequest{User: "carol", Role: "auditor", In: "default"}, tokens.ErrForbidden},
		{"corp's superuser, another's user", corp, tokens.RoleRequest{Realm: "default", User: "bob", Role: "auditor", In: "corp"}, tokens.ErrForbidden},
		{"a helpdesk", desk, tokens.RoleRequest{User: "bob", Role: "helpdesk"}, tokens.ErrForbidden},
		{"an administrator of all, for all", h.admin, tokens.RoleRequest{Realm: "corp", User: "carol", Role: "superuser", In: "*"}, nil},
	} {
		if _, err := h.GrantRole(ctx, tt.p, tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.who, err, tt.want)
		}
	}
	if err := h.RevokeRole(ctx, corp, tokens.RoleRequest{User: "carol", Role: "superuser", In: "*"}); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("corp's superuser takes a role for all: %v", err)
	}
	if list, err := h.Grants(ctx, corp, ""); err != nil || len(list) != 2 || list[0].User != "carol" {
		t.Errorf("corp's superuser sees %+v, %v", list, err)
	}
	// A key lets do no more than whoever makes it.
	for scope, want := range map[string]error{"admin": nil, "provision": nil, "role:night-shift": nil, "role:superuser": tokens.ErrInvalid, "role:": tokens.ErrInvalid, "system": tokens.ErrInvalid} {
		if _, _, err := h.AddKey(ctx, corp, tokens.NewKey{Name: "k", Scope: scope}); !errors.Is(err, want) {
			t.Errorf("a key of scope %s: %v", scope, err)
		}
	}
}

// Whoever could set a superuser's PIN, or hand them a token, would be one.
func TestWhatSomebodyWithARoleSignsInWithIsForSuperusers(t *testing.T) {
	acts := map[string]func(h *house, p tokens.Principal) error{
		"PIN":   func(h *house, p tokens.Principal) error { return second(h.SetPIN(ctx, p, "", "alice", "0815", false)) },
		"token": func(h *house, p tokens.Principal) error { return second(h.Assign(ctx, p, "", "S1", "alice")) },
		"software": func(h *house, p tokens.Principal) error {
			return third(h.EnrolSoft(ctx, p, tokens.NewSoft{User: "alice"}))
		},
		"recovery": func(h *house, p tokens.Principal) error { return third(h.IssueRecovery(ctx, p, "", "alice")) },
		"temporary": func(h *house, p tokens.Principal) error {
			return third(h.IssueTemporary(ctx, p, "", "alice", tokens.TemporaryRequest{}))
		},
		"lost, with a temporary": func(h *house, p tokens.Principal) error {
			_, _, _, err := h.Lose(ctx, p, "", "T-alice", "", &tokens.TemporaryRequest{})
			return err
		},
		"replaced": func(h *house, p tokens.Principal) error {
			return third(h.Replace(ctx, p, "", "T-alice", "S1", "broken"))
		},
		"resumed": func(h *house, p tokens.Principal) error {
			h.must(h.Suspend(ctx, h.admin, "", "T-alice", ""))
			return second(h.Resume(ctx, p, "", "T-alice", "found"))
		},
		"invited": func(h *house, p tokens.Principal) error {
			return third(h.Invite(ctx, p, tokens.NewInvitation{User: "alice"}))
		},
		"given more time": func(h *house, p tokens.Principal) error {
			return second(h.SetExpiry(ctx, p, "", "T-alice", h.clock.now().Add(24*time.Hour)))
		},
		"enabled": func(h *house, p tokens.Principal) error {
			return second(h.SetUserState(ctx, p, "", "alice", tokens.UserEnabled))
		},
		"a key": func(h *house, p tokens.Principal) error {
			return second(h.EnrolKey(ctx, p, h.newFIDO("alice", newSeckey("planted"))))
		},
	}
	for what, do := range acts {
		t.Run(what, func(t *testing.T) {
			for _, tt := range []struct {
				role  string
				scope string
				realm string
				may   bool
			}{
				{"", "helpdesk", "", true},
				{"superuser", "helpdesk", "", false},
				{"auditor@default", "helpdesk", "default", false},
				{"superuser", "admin", "default", false},
				{"superuser@default", "admin", "default", true},
				{"helpdesk@corp", "admin", "default", false},
				{"superuser", "admin", "", true},
			} {
				h := newHouse(t)
				h.ship("", totp("S1"))
				h.must(h.SetRules(ctx, h.admin, "default", -1, allowAll()))
				if tt.role == "" {
					h.person("alice")
				} else {
					h.person("alice", tt.role)
				}
				err := do(h, h.key(tt.realm, tt.scope))
				if tt.may && err != nil || !tt.may && !errors.Is(err, tokens.ErrForbidden) {
					t.Errorf("a key of scope %s in %q, of somebody who is %q: %v", tt.scope, tt.realm, tt.role, err)
				}
			}
		})
	}
}

func allowAll() tokens.Rules {
	r := tokens.DefaultRules()
	r.Temporary.Allow = true
	return r
}

func TestAGrantThatWasMadeInTheDatabaseGivesNothing(t *testing.T) {
	h := newHouse(t)
	d := h.person("alice", "auditor@default")
	h.user("bob")
	for what, edit := range map[string]func(*tokens.Grant){
		"another role":  func(g *tokens.Grant) { g.Role = "superuser" },
		"all realms":    func(g *tokens.Grant) { g.Realm = "" },
		"another user":  func(g *tokens.Grant) { g.User = "bob" },
		"another realm": func(g *tokens.Grant) { g.Home = "corp" },
		"another's row": func(g *tokens.Grant) { g.UserID++ },
		"another MAC":   func(g *tokens.Grant) { g.MAC[7]++ },
	} {
		h.db.edit(func(db *editor) { db.grant = edit })
		h.clock.forward(2 * time.Minute)
		node := h.node(&firsts{})
		v, err := node.SignIn(ctx, tokens.SignInPrincipal(office), tokens.SignInRequest{User: "alice", Code: "4711" + d.code(h, 0)})
		if err != nil || v != nil {
			t.Errorf("%s: %+v, %v", what, v, err)
		}
		if list, err := node.Grants(ctx, h.admin, ""); err != nil || len(list) != 0 {
			t.Errorf("%s is listed: %+v, %v", what, list, err)
		}
		h.must(nil, node.Close(ctx)) // which writes what is still to be audited
		found := slices.ContainsFunc(h.records("role.grant", "refused"), func(r audit.Record) bool { return r.Reason == string(tokens.ReasonTampered) })
		if !found || !strings.Contains(h.log.String(), "the row of a role was altered") {
			t.Errorf("%s is not told", what)
		}
	}
	h.db.edit(func(db *editor) { db.grant = nil })
	h.opens("alice", d)
}

func TestAKeyIsGoodFromItsNetworks(t *testing.T) {
	h := newHouse(t)
	k, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "vpn", Scope: "read", Sources: h.prefixes("192.0.2.130/25", "::ffff:10.1.2.3/128", "2001:db8::1/64", "192.0.2.128/25")})
	h.must(nil, err)
	if !slices.Equal(k.Sources, h.prefixes("192.0.2.128/25", "10.1.2.3/32", "2001:db8::/64")) {
		t.Errorf("networks: %v", k.Sources)
	}
	for source, good := range map[string]bool{
		"192.0.2.200": true, "192.0.2.1": false, "10.1.2.3": true, "::ffff:10.1.2.3": true, "10.1.2.4": false, "2001:db8::99": true,
		"2001:db8::99%eth0": true, "2001:db8:1::": false, "192.0.2.200:4711": true, "": false, "unix": false,
	} {
		p, err := h.Admit(ctx, text, source)
		if good != (err == nil) || err != nil && (!errors.Is(err, tokens.ErrUnknownKey) || err.Error() != tokens.ErrUnknownKey.Error()) {
			t.Errorf("from %q: %v", source, err)
		}
		if good {
			if _, err := h.Keys(ctx, p); err != nil {
				t.Errorf("an act from %q: %v", source, err)
			}
			if _, err := h.Keys(ctx, p.From("192.0.2.1")); !errors.Is(err, tokens.ErrUnknownKey) {
				t.Errorf("the same from elsewhere: %v", err)
			}
		}
	}
	if r := h.records("key.use", "denied"); len(r) == 0 || r[0].Reason != "other_address" || r[0].Actor != "key:"+k.ID {
		t.Errorf("audited as %+v", r)
	}
	for range 100 {
		_, _ = h.Admit(ctx, text, "192.0.2.1")
	}
	if n := len(h.records("key.use", "denied")); n > 20 {
		t.Errorf("%d records of a key that is shown from elsewhere over and over", n)
	}
	// Whoever edits the row opens nothing, nor does a program that knows no networks.
	for what, edit := range map[string]func(*tokens.APIKey){
		"no networks": func(k *tokens.APIKey) { k.Sources = nil },
		"more":        func(k *tokens.APIKey) { k.Sources = append(slices.Clone(k.Sources), h.prefix("0.0.0.0/0")) },
		"a successor": func(k *tokens.APIKey) { k.Successor = "0011223344556677@0" },
	} {
		h.db.edit(func(d *editor) {
			d.apiKey = func(k *tokens.APIKey) {
				if k.Name == "vpn" {
					edit(k)
				}
			}
		})
		if _, err := h.node(&firsts{}).Admit(ctx, text, "192.0.2.200"); !errors.Is(err, tokens.ErrUnknownKey) {
			t.Errorf("%s: %v", what, err)
		}
	}
	many := make([]string, 65)
	for i := range many {
		many[i] = "10.0.0.0/24"
	}
	if _, _, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "x", Scope: "read", Sources: h.prefixes(many...)}); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("65 networks: %v", err)
	}
}

func TestAKeyIsRotatedWithAnOverlap(t *testing.T) {
	h := newHouse(t)
	old, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{
		Name: "vpn", Realm: "default", Scope: "helpdesk", Sources: h.prefixes("192.0.2.0/24"), Expires: start.AddDate(0, 0, 100),
	})
	h.must(nil, err)
	opens := func(s *tokens.Service, text string) bool {
		p, err := s.Admit(ctx, text, "192.0.2.1")
		if err == nil {
			_, _, err = s.Users(ctx, p, tokens.UserQuery{})
		}
		return err == nil
	}
	h.clock.forward(90 * 24 * time.Hour)
	for _, overlap := range []time.Duration{-1, 30*24*time.Hour + 1} {
		if _, _, err := h.RotateKey(ctx, h.admin, old.ID, overlap); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("an overlap of %s: %v", overlap, err)
		}
	}
	next, fresh, err := h.RotateKey(ctx, h.admin, old.ID, 48*time.Hour)
	if err != nil || next.ID == old.ID || next.Name != old.Name || next.Scope != old.Scope || next.Realm != old.Realm ||
		!slices.Equal(next.Sources, old.Sources) || !next.Expires.Equal(h.clock.now().AddDate(0, 0, 100)) || next.Successor != "" {
		t.Fatalf("rotating: %+v, %v", next, err)
	}
	ends := h.clock.now().Add(48 * time.Hour)
	list, err := h.Keys(ctx, h.admin)
	h.must(nil, err)
	i := slices.IndexFunc(list, func(k tokens.APIKey) bool { return k.ID == old.ID })
	if list[i].Successor != next.ID || !list[i].Expires.Equal(ends) {
		t.Errorf("the old key: %+v", list[i])
	}
	if r := h.records("key.rotate", "ok"); len(r) != 1 || r[0].Realm != "default" {
		t.Errorf("audited as %+v", r)
	}
	if _, _, err := h.RotateKey(ctx, h.admin, old.ID, time.Hour); !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), next.ID) {
		t.Errorf("rotating twice: %v", err)
	}
	other := h.node(&firsts{}) // which never saw the old key's text
	for _, s := range []*tokens.Service{h.Service, other} {
		if !opens(s, text) || !opens(s, fresh) {
			t.Error("while they overlap, one of the keys is not good")
		}
	}
	for what, edit := range map[string]func(*tokens.APIKey){
		"longer":       func(k *tokens.APIKey) { k.Expires = k.Expires.AddDate(0, 0, 5) },
		"as before":    func(k *tokens.APIKey) { k.Successor, k.Expires = "", start.AddDate(0, 0, 100) },
		"more before":  func(k *tokens.APIKey) { k.Successor = next.ID + "@0" },
		"another next": func(k *tokens.APIKey) { k.Successor = strings.Replace(k.Successor, next.ID, old.ID, 1) },
	} {
		h.db.edit(func(d *editor) {
			d.apiKey = func(k *tokens.APIKey) {
				if k.ID == old.ID {
					edit(k)
				}
			}
		})
		if opens(h.node(&firsts{}), text) {
			t.Errorf("a row that was edited (%s) opens", what)
		}
	}
	h.db.edit(func(d *editor) { d.apiKey = nil })
	h.clock.forward(48 * time.Hour)
	if opens(h.Service, text) || opens(other, text) || !opens(other, fresh) {
		t.Error("after the overlap the old key is good, or the new one is not")
	}
	if _, _, err := h.RotateKey(ctx, h.admin, "0011223344556677", 0); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("rotating a key that there is not: %v", err)
	}
	newest, text2, err := h.RotateKey(ctx, h.admin, next.ID, 0)
	if err != nil || opens(h.Service, fresh) || !opens(h.Service, text2) {
		t.Errorf("rotating without overlap: %+v, %v", newest, err)
	}
	if _, _, err := h.RotateKey(ctx, h.key("", "helpdesk"), newest.ID, 0); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("a helpdesk rotates: %v", err)
	}
	h.intact()
}

func TestTwoRotationsAtOnceMakeOneSuccessor(t *testing.T) {
	h := newHouse(t)
	other := h.node(&firsts{})
	k, _, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "vpn", Scope: "verify"})
	h.must(nil, err)
	done := make(chan error)
	for _, s := range []*tokens.Service{h.Service, other} {
		go func() { _, _, err := s.RotateKey(ctx, h.admin, k.ID, time.Hour); done <- err }()
	}
	a, b := <-done, <-done
	if (a == nil) == (b == nil) || !errors.Is(errors.Join(a, b), tokens.ErrState) {
		t.Errorf("%v, and %v", a, b)
	}
}

func TestWhatKeysLet(t *testing.T) {
	h := newHouse(t)
	provision := h.key("", "provision")
	if !slices.Equal(provision.Scope.Roles(), []policy.Role{policy.Provisioner}) {
		t.Errorf("a provisioner's roles: %v", provision.Scope.Roles())
	}
	own := h.key("", "role:night-shift")
	if _, _, err := h.ShowUser(ctx, own, "", "alice"); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("a role without policies: %v", err)
	}
}
