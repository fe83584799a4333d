package tokens_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"watchword/tokens"
	"watchword/tokens/policy"
)

const (
	nobodyRevokes = `forbid (principal, action == Watchword::Action::"token.revoke", resource);`
	nightShift    = `permit (principal in Watchword::Role::"night-shift", action == Watchword::Action::"token.lost", resource);`
	ofGroup       = `forbid (principal in Watchword::Role::"helpdesk", action, resource in Watchword::Group::"default/board");`
	resyncers     = `permit (principal in ?principal, action == Watchword::Action::"token.resync", resource in ?resource);`
)

func item(id, text string) policy.Item { return policy.Item{ID: id, Text: text} }

func puts(list ...policy.Item) tokens.PolicyEdit { return tokens.PolicyEdit{Put: list} }

// put changes the policies, whatever they are.
func (h *house) put(edit tokens.PolicyEdit) tokens.PolicySet {
	h.Helper()
	set, err := h.PutPolicies(ctx, h.admin, -1, edit)
	if err != nil {
		h.Fatal(err)
	}
	return set
}

func TestPoliciesAreOneWholeWithVersions(t *testing.T) {
	h := newHouse(t)
	got, err := h.Policies(ctx, h.admin)
	if err != nil || got.Version != 0 || len(got.Source.Policies) != 0 {
		t.Fatalf("at first: %+v, %v", got, err)
	}
	one, err := h.PutPolicies(ctx, h.admin, 0, puts(item("no-revoking", nobodyRevokes)))
	if err != nil || one.Version != 1 || one.Policies != 1 || one.Actor != h.admin.Actor() || !one.Time.Equal(start) {
		t.Fatalf("%+v, %v", one, err)
	}
	if r := h.last(); r.Action != "policy.put" || r.Outcome != "ok" || r.Policy != "builtin.superuser" ||
		fmt.Sprint(r.Detail) != fmt.Sprintf("[{ids no-revoking} {version 0 -> 1} {sha256 %s}]", one.Sum) {
		t.Errorf("audited as %+v", r)
	}
	if _, err := h.PutPolicies(ctx, h.admin, 0, puts(item("other", nightShift))); !errors.Is(err, tokens.ErrState) {
		t.Errorf("who expects another version: %v", err)
	}
	if again, err := h.PutPolicies(ctx, h.admin, 0, puts(item("no-revoking", nobodyRevokes))); err != nil || again.Version != 1 {
		t.Errorf("who did not hear the answer and asks again: %+v, %v", again, err)
	}
	if r := h.last(); r.Reason != "unchanged" {
		t.Errorf("asked again, it is audited as %+v", r)
	}
	two := h.put(tokens.PolicyEdit{
		PutTemplates: []policy.Item{item("resync", resyncers)},
		PutLinks:     []policy.Link{{ID: "resync.corp", Template: "resync", Principal: `Watchword::Role::"resyncers"`, Resource: `Watchword::Realm::"corp"`}},
		Put:          []policy.Item{item("night", nightShift)},
	})
	if two.Version != 2 || two.Policies != 2 || two.Templates != 1 || two.Links != 1 || two.Source.Policies[0].ID != "night" {
		t.Errorf("%+v", two)
	}
	if _, err := h.PutPolicies(ctx, h.admin, 2, tokens.PolicyEdit{DeleteTemplates: []string{"resync"}}); !errors.Is(err, tokens.ErrState) {
		t.Errorf("a template with a link is deleted: %v", err)
	}
	three := h.put(tokens.PolicyEdit{DeleteTemplates: []string{"resync"}, DeleteLinks: []string{"resync.corp"}, Delete: []string{"night"}})
	if three.Version != 3 || !slices.Equal(three.Source.Policies, one.Source.Policies) {
		t.Errorf("%+v", three)
	}
	back, err := h.RollBackPolicies(ctx, h.admin, 2)
	if err != nil || back.Version != 4 || back.From != 2 || fmt.Sprint(back.Source) != fmt.Sprint(two.Source) {
		t.Errorf("%+v, %v", back, err)
	}
	if again, err := h.RollBackPolicies(ctx, h.admin, 2); err != nil || again.Version != 4 {
		t.Errorf("gone back twice: %+v, %v", again, err)
	}
	if _, err := h.RollBackPolicies(ctx, h.admin, 9); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("to a version that there was not: %v", err)
	}
	list, err := h.PolicyVersions(ctx, h.admin, 3)
	if err != nil || len(list) != 3 || list[0].Version != 4 || list[0].From != 2 || list[2].Version != 2 || list[2].Sum != two.Sum {
		t.Errorf("%+v, %v", list, err)
	}
	h.intact()
}

func TestWrongPoliciesAreRefusedWithTheirPlaceAndNothingIsStored(t *testing.T) {
	h := newHouse(t)
	h.put(puts(item("right", nightShift)))
	for what, edit := range map[string]tokens.PolicyEdit{
		"no Cedar":        puts(item("wrong", "permit (")),
		"an unknown name": puts(item("wrong", `permit (principal, action == Watchword::Action::"token.loose", resource);`)),
		"a type":          puts(item("wrong", `permit (principal, action == Watchword::Action::"verify", resource) when { context.hour == "9" };`)),
		"a bad id":        puts(item("Wrong!", nightShift)),
		"a built-in id":   puts(item("builtin.mfa", nightShift)),
		"no template":     {PutLinks: []policy.Link{{ID: "wrong", Template: "none", Principal: `Watchword::Role::"x"`}}},
		"an id twice":     {PutTemplates: []policy.Item{item("right", resyncers)}},
	} {
		edit.Put = append(edit.Put, item("another", nobodyRevokes))
		_, err := h.PutPolicies(ctx, h.admin, 1, edit)
		var wrong *policy.Errors
		if !errors.Is(err, tokens.ErrInvalid) || !errors.As(err, &wrong) || len(wrong.Problems) == 0 || wrong.Problems[0].Says == "" {
			t.Errorf("%s: %v", what, err)
		}
		if r := h.last(); r.Outcome != "refused" || r.Reason != "invalid" {
			t.Errorf("%s is audited as %+v", what, r)
		}
	}
	for what, edit := range map[string]tokens.PolicyEdit{
		"nothing": {}, "twice": puts(item("a", nightShift), item("a", nightShift)),
		"put and deleted": {Put: []policy.Item{item("right", nobodyRevokes)}, Delete: []string{"right"}},
		"long":            puts(item("long", nightShift+strings.Repeat(" ", 64<<10))),
		"many":            {PutLinks: make([]policy.Link, 20_000)},
	} {
		for i := range edit.PutLinks {
			edit.PutLinks[i].ID = fmt.Sprint(i)
		}
		if _, err := h.PutPolicies(ctx, h.admin, 1, edit); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := h.PutPolicies(ctx, h.admin, 1, tokens.PolicyEdit{Delete: []string{"nobody"}}); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("one that there is not is deleted: %v", err)
	}
	got, err := h.Policies(ctx, h.admin)
	if err != nil || got.Version != 1 || len(got.Source.Policies) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestPoliciesDecideOnEachNodeWithItsNextAct(t *testing.T) {
	h := newHouse(t)
	other := h.node(&firsts{})
	d := totp("T1")
	h.give("alice", d)
	h.must(h.SetGroups(ctx, h.admin, "", "alice", []string{"Board"}))
	desk, night := h.key("", "helpdesk"), h.key("", "read")
	if _, err := other.Suspend(ctx, desk, "", "T1", "lost"); err != nil {
		t.Fatal(err)
	}
	h.put(puts(item("board", ofGroup), item("no-revoking", nobodyRevokes)))
	if _, err := other.Resume(ctx, desk, "", "T1", "found"); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("on the other node helpdesk touches the board's token: %v", err)
	}
	if r := h.last(); r.Action != "token.resume" || r.Outcome != "denied" || r.Policy != "board" || r.User != "" || r.Reason != "forbidden" {
		t.Errorf("audited as %+v", r)
	}
	if _, _, err := other.ShowUser(ctx, desk, "", "alice"); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("nor shows the user: %v", err)
	}
	if _, err := other.Revoke(ctx, h.admin, "", "T1", "gone"); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("a superuser's key is forbidden it too: %v", err)
	}
	if r := h.last(); r.Policy != "no-revoking" {
		t.Errorf("audited as %+v", r)
	}
	if _, err := other.Resume(ctx, night, "", "T1", "found"); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("%v", err)
	}
	if r := h.last(); r.Policy != "" || r.Outcome != "denied" {
		t.Errorf("what nothing permits is audited as %+v", r)
	}
	h.put(puts(item("auditors-too", `permit (principal in Watchword::Role::"auditor", action == Watchword::Action::"token.resume", resource);`)))
	if _, err := other.Resume(ctx, night, "", "T1", "found"); err != nil {
		t.Errorf("what a policy permits: %v", err)
	}
	if r := h.last(); r.Policy != "auditors-too" || r.Outcome != "ok" {
		t.Errorf("audited as %+v", r)
	}
	h.intact()
}

// No policy keeps those out who could take it away.
func TestNobodyIsLockedOutOfThePolicies(t *testing.T) {
	h := newHouse(t)
	h.put(puts(item("nothing", `forbid (principal, action, resource);`)))
	if _, _, err := h.Users(ctx, h.admin, tokens.UserQuery{}); !errors.Is(err, tokens.ErrForbidden) {
		t.Errorf("a policy that forbids all forbids nothing: %v", err)
	}
	if _, err := h.PutPolicies(ctx, h.admin, 1, tokens.PolicyEdit{Delete: []string{"nothing"}}); err != nil {
		t.Errorf("it forbids its own removal: %v", err)
	}
	h.must2(h.Users(ctx, h.admin, tokens.UserQuery{}))
}

func (h *house) must2(_, _ any, err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func TestWhoActsInOneRealmNeitherSeesNorChangesPolicies(t *testing.T) {
	h := newHouse(t)
	h.put(puts(item("all", `permit (principal, action, resource);`)))
	p := h.key("corp", "admin")
	for what, do := range map[string]func() error{
		"Policies":         func() error { _, err := h.Policies(ctx, p); return err },
		"PutPolicies":      func() error { _, err := h.PutPolicies(ctx, p, -1, puts(item("x", nightShift))); return err },
		"PolicyVersions":   func() error { _, err := h.PolicyVersions(ctx, p, 0); return err },
		"RollBackPolicies": func() error { _, err := h.RollBackPolicies(ctx, p, 0); return err },
		"CheckPolicies":    func() error { return h.CheckPolicies(ctx, p, policy.Source{}) },
	} {
		if err := do(); !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestOfTwoEditorsOneIsToldOfTheOther(t *testing.T) {
	h := newHouse(t)
	other := h.node(&firsts{})
	var all sync.WaitGroup
	var mu sync.Mutex
	won, lost := 0, 0
	for i := range 8 {
		node := []*tokens.Service{h.Service, other}[i%2]
		all.Go(func() {
			_, err := node.PutPolicies(ctx, h.admin, 0, puts(item(fmt.Sprintf("p%d", i), nightShift)))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case errors.Is(err, tokens.ErrState):
				lost++
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won != 1 || lost != 7 {
		t.Errorf("%d edited version 0, %d were told", won, lost)
	}
	// Without an expectation all of them come in, one after another.
	for i := range 6 {
		node := []*tokens.Service{h.Service, other}[i%2]
		all.Go(func() {
			if _, err := node.PutPolicies(ctx, h.admin, -1, puts(item(fmt.Sprintf("q%d", i), nightShift))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got, err := other.Policies(ctx, h.admin); err != nil || got.Version != 7 || len(got.Source.Policies) != 7 {
		t.Errorf("%+v, %v", got, err)
	}
	h.intact()
}

// tamper has the document of a name read as edit leaves it, by a node that starts now.
func (h *house) tamper(name string, edit func(data []byte) []byte) *tokens.Service {
	h.Helper()
	h.db.edit(func(e *editor) {
		e.document = func(d *tokens.Document) {
			if d.Name == name {
				d.Data = edit(slices.Clone(d.Data))
			}
		}
	})
	return h.node(&firsts{})
}

func TestAlteredPoliciesStopEverythingButPuttingThemRight(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[(at+len(b))%len(b)] ^= 1; return b }
	}
	for name, c := range map[string]struct {
		document string
		edit     func([]byte) []byte
	}{
		"the list of versions": {"policies", flip(-3)},
		"its seal":             {"policies", flip(5)},
		"emptied":              {"policies", func([]byte) []byte { return []byte{} }},
		"the policies":         {"policies/2", flip(-1)},
		"their head":           {"policies/2", flip(80)},
		"the seal of the head": {"policies/2", flip(0)},
		"cut off":              {"policies/2", func(b []byte) []byte { return b[:len(b)-1] }},
		"no policies":          {"policies/2", func(b []byte) []byte { return b[:10] }},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			d := totp("T1")
			h.give("alice", d)
			h.put(puts(item("night", nightShift)))
			h.put(puts(item("no-revoking", nobodyRevokes)))
			key := h.key("", "admin")
			s := h.tamper(c.document, c.edit)

			if list := s.Ready(); len(list) != 1 || list[0].Part != "policies" {
				t.Errorf("readiness says %+v", list)
			}
			if !strings.Contains(h.log.String(), "the policies cannot be read") {
				t.Error("the log says nothing")
			}
			if r, err := s.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.code(h, 0)}); !errors.Is(err, tokens.ErrUnavailable) || r.Accept {
				t.Errorf("verify: %+v, %v", r, err)
			}
			if _, _, err := s.Users(ctx, h.admin, tokens.UserQuery{}); !errors.Is(err, tokens.ErrUnavailable) {
				t.Errorf("an act: %v", err)
			}
			corp := h.key("corp", "admin")
			if _, err := s.PolicyVersions(ctx, corp, 0); !errors.Is(err, tokens.ErrUnavailable) {
				t.Errorf("who acts in one realm: %v", err)
			}
			if _, err := s.Policies(ctx, key); !errors.Is(err, tokens.ErrTampered) && !errors.Is(err, tokens.ErrNotFound) {
				t.Errorf("they are shown: %v", err)
			}
			list, err := s.PolicyVersions(ctx, key, 0)
			if err != nil || len(list) == 0 || list[len(list)-1].Version != 1 {
				t.Fatalf("the versions: %+v, %v", list, err)
			}
			set, err := s.RollBackPolicies(ctx, key, 1)
			if err != nil || set.Version != 3 || set.From != 1 || len(set.Source.Policies) != 1 {
				t.Fatalf("gone back: %+v, %v", set, err)
			}
			if r := h.last(); !strings.Contains(fmt.Sprint(r.Detail), "altered outside Watchword") {
				t.Errorf("audited as %+v", r)
			}
			h.db.edit(func(e *editor) { e.document = nil })
			h.clock.forward(1)
			if list := s.Ready(); len(list) != 0 && c.document != "policies" {
				t.Errorf("readiness still says %+v", list)
			}
			if set, err := h.Policies(ctx, key); err != nil || set.Version != 3 {
				t.Errorf("%+v, %v", set, err)
			}
			if _, _, err := h.Users(ctx, h.admin, tokens.UserQuery{}); err != nil {
				t.Errorf("an act on another node: %v", err)
			}
			if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.code(h, 1)}); err != nil || !r.Accept {
				t.Errorf("verify: %+v, %v", r, err)
			}
			h.intact()
		})
	}
}

// A version in the place of another says another number.
func TestNoVersionStandsInForAnother(t *testing.T) {
	h := newHouse(t)
	h.put(puts(item("night", nightShift)))
	old, err := h.mem.Document(ctx, "policies/1")
	if err != nil {
		t.Fatal(err)
	}
	h.put(puts(item("no-revoking", nobodyRevokes)))
	s := h.tamper("policies/2", func([]byte) []byte { return old.Data })
	if list := s.Ready(); len(list) != 1 {
		t.Errorf("readiness says %+v", list)
	}
}

// Policies that are right today may be wrong to a later program.
func TestPoliciesThatCannotBeReadArePutRightByAnEdit(t *testing.T) {
	h := newHouse(t)
	h.put(puts(item("night", nightShift)))
	h.put(puts(item("no-revoking", nobodyRevokes)))
	s := h.tamper("policies", func(b []byte) []byte { b[0] ^= 1; return b })
	set, err := s.PutPolicies(ctx, h.admin, 2, tokens.PolicyEdit{Delete: []string{"night"}})
	if err != nil || set.Version != 3 || len(set.Source.Policies) != 1 || set.Source.Policies[0].ID != "no-revoking" {
		t.Errorf("%+v, %v", set, err)
	}
}

func TestAHundredVersionsAreKept(t *testing.T) {
	h := newHouse(t)
	for i := range 103 {
		h.put(puts(item("p", nightShift+strings.Repeat("\n", i))))
	}
	list, err := h.PolicyVersions(ctx, h.admin, 1000)
	if err != nil || len(list) != 100 || list[99].Version != 4 {
		t.Fatalf("%d, %v", len(list), err)
	}
	for v, want := range map[int64]error{3: tokens.ErrNotFound, 4: nil} {
		if _, err := h.RollBackPolicies(ctx, h.admin, v); !errors.Is(err, want) {
			t.Errorf("back to version %d: %v", v, err)
		}
	}
}

func TestPoliciesAreTriedOutBeforeTheyCount(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.must(h.SetGroups(ctx, h.admin, "", "alice", []string{"board"}))
	desk := h.key("", "helpdesk")
	draft := &policy.Source{Policies: []policy.Item{item("board", ofGroup)}}
	ask := []tokens.SimQuery{
		{Principal: "key:" + desk.ID, Action: "token.lost", Serial: "T1"},
		{Principal: "key:" + desk.ID, Action: "token.lost", Serial: "T1", Groups: []string{"staff"}},
		{Roles: []policy.Role{policy.Helpdesk}, In: "corp", Action: "token.lost", Realm: "default", Serial: "T1"},
		{Principal: "client:localhost", Action: "verify", User: "alice"},
		{Principal: "admin:default/alice", Roles: []policy.Role{policy.Superuser}, Action: "token.revoke", Serial: "T1"},
	}
	want := []struct {
		live, draft bool
		by          string
	}{{true, false, "board"}, {true, true, "builtin.helpdesk"}, {false, false, ""}, {true, true, "builtin.verifier"}, {false, false, "builtin.mfa"}}
	for _, src := range []*policy.Source{nil, draft} {
		got, err := h.Simulate(ctx, h.admin, ask, src)
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range want {
			allow := w.live
			if src != nil {
				allow = w.draft
			}
			if got[i].Allow != allow || src != nil && strings.Join(got[i].Policies, ",") != w.by {
				t.Errorf("question %d, draft %v: %+v", i+1, src != nil, got[i].Decision)
			}
		}
		if !got[4].MFA {
			t.Errorf("what a fresh proof would lift: %+v", got[4].Decision)
		}
	}
	for what, bad := range map[string]tokens.SimQuery{
		"nobody": {Action: "verify"}, "no kind": {Principal: "root", Action: "verify"}, "a bad role": {Roles: []policy.Role{"A b"}, Action: "verify"},
	} {
		if _, err := h.Simulate(ctx, h.admin, []tokens.SimQuery{bad}, nil); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := h.Simulate(ctx, h.admin, make([]tokens.SimQuery, 31), nil); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("31 at once: %v", err)
	}
	if _, err := h.Simulate(ctx, h.admin, []tokens.SimQuery{{Principal: "key:0000000000000000", Action: "verify"}}, nil); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("a key that there is not: %v", err)
	}
}

// What an administrator tries in a gateway's place is decided as the gateway's request
// is, then and in a replay.
func TestATrialIsHeldAgainstADraftAsAnAttempt(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	for i, transport := range []string{"radius", "radius-test"} {
		if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.code(h, int64(i)), Transport: transport}); err != nil || !r.Accept {
			t.Fatalf("%s: %+v, %v", transport, r, err)
		}
	}
	draft := policy.Source{Policies: []policy.Item{
		item("gateways", `forbid (principal, action == Watchword::Action::"verify", resource) when { context.path == "radius" };`),
	}}
	r, err := h.Replay(ctx, h.admin, draft, 1000)
	if err != nil || r.Changed != 2 || r.Denied != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestADraftIsHeldAgainstWhatWasDecided(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.must(h.SetGroups(ctx, h.admin, "", "alice", []string{"board"}))
	desk, gone := h.key("", "helpdesk"), h.key("", "helpdesk")
	h.must(h.Suspend(ctx, desk, "", "T1", "away"))
	suspended := h.last()
	h.must(h.Resume(ctx, gone, "", "T1", "back"))
	if _, err := h.Clients(ctx, desk); !errors.Is(err, tokens.ErrForbidden) {
		t.Fatal(err)
	}
	denied := h.last()
	if err := h.DeleteKey(ctx, h.admin, gone.ID); err != nil {
		t.Fatal(err)
	}
	h.try("alice", d.code(h, 0))
	draft := policy.Source{Policies: []policy.Item{
		item("board", ofGroup),
		item("clients", `permit (principal in Watchword::Role::"helpdesk", action == Watchword::Action::"client.list", resource);`),
	}}
	r, err := h.Replay(ctx, h.admin, draft, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if r.Changed != 2 || r.Allowed != 1 || r.Denied != 1 || len(r.Changes) != 2 {
		t.Fatalf("%+v", r)
	}
	if c := r.Changes[0]; c.Record != denied.ID || c.Was || !c.Now || c.Action != "client.list" || fmt.Sprint(c.NowPolicies) != "[clients]" {
		t.Errorf("%+v", c)
	}
	if c := r.Changes[1]; c.Record != suspended.ID || !c.Was || c.Now || c.User != "alice" || c.Serial != "T1" || c.Actor != desk.Actor() ||
		fmt.Sprint(c.WasPolicies, c.NowPolicies) != "[builtin.helpdesk] [board]" {
		t.Errorf("%+v", c)
	}
	if len(r.Left) != 1 || r.Left[0].Why != "who asked is not there any more" || r.Left[0].Count != 1 {
		t.Errorf("left out: %+v", r.Left)
	}
	if same, err := h.Replay(ctx, h.admin, policy.Source{}, 1000); err != nil || same.Changed != 0 || same.Compared < r.Compared {
		t.Errorf("the same policies: %+v, %v", same, err)
	}
	if few, err := h.Replay(ctx, h.admin, draft, 3); err != nil || few.Read != 3 {
		t.Errorf("%+v, %v", few, err)
	}
	for _, n := range []int{0, -1, 100_001} {
		if _, err := h.Replay(ctx, h.admin, draft, n); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("the last %d: %v", n, err)
		}
	}
}

func TestWhichPoliciesApply(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"))
	h.must(h.SetGroups(ctx, h.admin, "", "alice", []string{"board"}))
	h.put(puts(item("board", ofGroup), item("night", nightShift)))
	ids := func(principal, resource string) string {
		t.Helper()
		list, err := h.ApplyingPolicies(ctx, h.admin, principal, resource)
		if err != nil {
			t.Fatalf("%s, %s: %v", principal, resource, err)
		}
		var ids []string
		for _, a := range list {
			if !a.BuiltIn {
				ids = append(ids, a.ID)
			}
		}
		return strings.Join(ids, " ")
	}
	for _, c := range [][3]string{
		{"", "", "board night"}, {"role:helpdesk", "", "board"}, {"role:night-shift", "", "night"}, {"role:auditor", "", ""},
		{"", "user:default/alice", "board night"}, {"", "token:T1", "board night"}, {"", "user:default/bob", "night"},
		{"role:helpdesk", "token:default/T1", "board"}, {"role:helpdesk", "user:bob", ""}, {"client:localhost", "", ""}, {"", "installation", "night"}, {"", "realm:corp", "night"},
	} {
		if got := ids(c[0], c[1]); got != c[2] {
			t.Errorf("to %q and %q apply %q, want %q", c[0], c[1], got, c[2])
		}
	}
	for _, c := range [][2]string{{"root", ""}, {"", "group:x"}, {"role:No", ""}, {"", "user:"}} {
		if _, err := h.ApplyingPolicies(ctx, h.admin, c[0], c[1]); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%q: %v", c, err)
		}
	}
}
