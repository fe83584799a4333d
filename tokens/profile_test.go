package tokens_test

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"watchword/tokens"
)

func some(s string) *string { return &s }

func TestAUserIsMadeWithProfileAndGroups(t *testing.T) {
	h := newHouse(t)
	profile := tokens.Profile{Display: "Älice Example", Mail: "alice@example.com", External: "4711", Attributes: map[string]string{"site": "Berlin", "empty": ""}}
	u, err := h.CreateUser(ctx, h.admin, tokens.NewUserRequest{Name: "Alice", Profile: profile, Groups: []string{"Staff", "admins", "STAFF"}})
	if err != nil {
		t.Fatal(err)
	}
	kept := profile
	kept.Attributes = map[string]string{"site": "Berlin"}
	check := func(what string, u tokens.UserEntry) {
		t.Helper()
		if u.Name != "Alice" || u.Key != "alice" || !reflect.DeepEqual(u.Profile, kept) || fmt.Sprint(u.Groups) != "[admins staff]" {
			t.Errorf("%s: %+v", what, u)
		}
	}
	check("made", u)
	if r := h.last(); r.Action != "user.add" || fmt.Sprint(r.Detail) != "[{set display,mail,external_id,attr:site} {groups admins,staff}]" {
		t.Errorf("audited as %+v", r)
	}
	if len(profile.Attributes) != 2 {
		t.Error("what was given was changed")
	}
	shown, _, err := h.ShowUser(ctx, h.admin, "", "ALICE")
	if err != nil {
		t.Fatal(err)
	}
	check("shown", shown)
	// An act on the user answers all of the user, too.
	disabled, err := h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled)
	if err != nil {
		t.Fatal(err)
	}
	check("disabled", disabled)

	for what, r := range map[string]tokens.NewUserRequest{
		"name":        {Name: "ALICE"},
		"external id": {Name: "bob", Profile: tokens.Profile{External: "4711"}},
	} {
		if _, err := h.CreateUser(ctx, h.admin, r); !errors.Is(err, tokens.ErrExists) || !strings.Contains(err.Error(), what) && what != "name" {
			t.Errorf("a %s that is taken: %v", what, err)
		}
	}
	h.must(h.CreateUser(ctx, h.admin, tokens.NewUserRequest{Realm: "corp", Name: "bob", Profile: tokens.Profile{External: "4711"}}))
	h.intact()
}

func TestAnEditChangesWhatItNamesAndNothingElse(t *testing.T) {
	h := newHouse(t)
	h.must(h.CreateUser(ctx, h.admin, tokens.NewUserRequest{Name: "alice", Groups: []string{"staff"}, Profile: tokens.Profile{
		Display: "Alice", Mail: "alice@example.com", External: "1", Attributes: map[string]string{"site": "Berlin", "floor": "3"},
	}}))
	h.must(h.CreateUser(ctx, h.admin, tokens.NewUserRequest{Name: "bob", Profile: tokens.Profile{External: "2"}}))
	edit := func(e tokens.ProfileEdit, want tokens.Profile, detail string) {
		t.Helper()
		u, err := h.EditUser(ctx, h.admin, "", "Alice", e)
		if err != nil || !reflect.DeepEqual(u.Profile, want) || fmt.Sprint(u.Groups) != "[staff]" {
			t.Fatalf("%+v, %v; want %+v", u, err, want)
		}
		if r := h.last(); r.Action != "user.edit" || r.Outcome != "ok" || r.User != "alice" || fmt.Sprint(r.Reason, r.Detail) != detail {
			t.Errorf("audited as %+v, want %s", r, detail)
		}
	}
	edit(tokens.ProfileEdit{Mail: some("a@example.org"), Attributes: map[string]*string{"floor": nil, "room": some("12")}},
		tokens.Profile{Display: "Alice", Mail: "a@example.org", External: "1", Attributes: map[string]string{"site": "Berlin", "room": "12"}},
		"[{changed mail,attr:floor,attr:room}]")
	before := h.standing("alice").Version
	edit(tokens.ProfileEdit{Mail: some("a@example.org"), Attributes: map[string]*string{"floor": some("")}},
		tokens.Profile{Display: "Alice", Mail: "a@example.org", External: "1", Attributes: map[string]string{"site": "Berlin", "room": "12"}}, "unchanged[]")
	if h.standing("alice").Version != before {
		t.Error("the version moved although nothing changed")
	}
	edit(tokens.ProfileEdit{Display: some(""), Mail: some(""), External: some(""), Attributes: map[string]*string{"site": nil, "room": some("")}},
		tokens.Profile{}, "[{changed display,mail,external_id,attr:room,attr:site}]")
	if h.standing("alice").Version != before+1 {
		t.Error("the version did not move")
	}
	if _, err := h.EditUser(ctx, h.admin, "", "alice", tokens.ProfileEdit{External: some("2")}); !errors.Is(err, tokens.ErrExists) {
		t.Errorf("bob's external id: %v", err)
	}
	if _, err := h.EditUser(ctx, h.admin, "", "nobody", tokens.ProfileEdit{}); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	many := map[string]*string{}
	for i := range 32 {
		many[fmt.Sprint("a", i)] = some("x")
	}
	h.must(h.EditUser(ctx, h.admin, "", "alice", tokens.ProfileEdit{Attributes: many}))
	if _, err := h.EditUser(ctx, h.admin, "", "alice", tokens.ProfileEdit{Attributes: map[string]*string{"b": some("x")}}); !errors.Is(err, tokens.ErrInvalid) {
		t.Errorf("a 33rd attribute: %v", err)
	}
	h.intact()
}

func TestProfilesOutOfBoundsAreRefused(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	long := func(n int) string { return strings.Repeat("x", n) }
	attribute := func(name, value string) tokens.Profile {
		return tokens.Profile{Attributes: map[string]string{name: value}}
	}
	many := map[string]string{}
	for i := range 33 {
		many[fmt.Sprint("a", i)] = "x"
	}
	for name, c := range map[string]struct {
		p tokens.Profile
		e tokens.ProfileEdit
	}{
		"display too long":  {tokens.Profile{Display: long(256)}, tokens.ProfileEdit{Display: some(long(256))}},
		"display control":   {tokens.Profile{Display: "a\x1bb"}, tokens.ProfileEdit{Display: some("a\x1bb")}},
		"display not text":  {tokens.Profile{Display: "\xff"}, tokens.ProfileEdit{Display: some("\xff")}},
		"mail too long":     {tokens.Profile{Mail: "a@" + long(253)}, tokens.ProfileEdit{Mail: some("a@" + long(253))}},
		"mail without @":    {tokens.Profile{Mail: "alice"}, tokens.ProfileEdit{Mail: some("alice")}},
		"mail with two @":   {tokens.Profile{Mail: "a@b@c"}, tokens.ProfileEdit{Mail: some("a@b@c")}},
		"mail half":         {tokens.Profile{Mail: "a@"}, tokens.ProfileEdit{Mail: some("@b")}},
		"mail with a space": {tokens.Profile{Mail: "a b@c"}, tokens.ProfileEdit{Mail: some("a\u00a0b@c")}},
		"external too long": {tokens.Profile{External: long(256)}, tokens.ProfileEdit{External: some(long(256))}},
		"external control":  {tokens.Profile{External: "1\n"}, tokens.ProfileEdit{External: some("1\x00")}},
		"attribute value":   {attribute("a", long(1025)), tokens.ProfileEdit{Attributes: map[string]*string{"a": some(long(1025))}}},
		"attribute control": {attribute("a", "1\r2"), tokens.ProfileEdit{Attributes: map[string]*string{"a": some("\u0085")}}},
		"attribute name":    {attribute("a b", "1"), tokens.ProfileEdit{Attributes: map[string]*string{"ä": nil}}},
		"no name":           {attribute("", "1"), tokens.ProfileEdit{Attributes: map[string]*string{"": nil}}},
		"long name":         {attribute(long(65), "1"), tokens.ProfileEdit{Attributes: map[string]*string{long(65): nil}}},
		"many":              {tokens.Profile{Attributes: many}, tokens.ProfileEdit{Display: some(long(256))}},
	} {
		if _, err := h.CreateUser(ctx, h.admin, tokens.NewUserRequest{Name: "bob", Profile: c.p}); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s, made: %v", name, err)
		}
		if _, err := h.EditUser(ctx, h.admin, "", "alice", c.e); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s, edited: %v", name, err)
		}
	}
	for _, groups := range [][]string{{""}, {"a\x00"}, make([]string, 65)} {
		if _, err := h.CreateUser(ctx, h.admin, tokens.NewUserRequest{Name: "bob", Groups: groups}); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("groups %q: %v", groups, err)
		}
	}
	h.must(h.CreateUser(ctx, h.admin, tokens.NewUserRequest{Name: "bob", Profile: tokens.Profile{
		Display: long(255), Mail: "a@" + long(252), External: long(255), Attributes: map[string]string{long(64): long(1024)},
	}}))
	h.intact()
}

// Any edits, from two nodes at once, leave what they say, one after another.
func TestEditsFromTwoNodesAreAllThere(t *testing.T) {
	h := newHouse(t)
	nodes := []*tokens.Service{h.Service, h.node(&firsts{})}
	h.user("alice")
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			e := tokens.ProfileEdit{Attributes: map[string]*string{fmt.Sprint("a", i): some("x")}}
			if _, err := nodes[i%2].EditUser(ctx, h.admin, "", "alice", e); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if u, _, err := h.ShowUser(ctx, h.admin, "", "alice"); err != nil || len(u.Profile.Attributes) != 12 {
		t.Errorf("%+v, %v", u.Profile, err)
	}
	h.intact()
}

// After any sequence of edits the profile is what a map of texts would be.
func TestProfilesFollowTheirEdits(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	want := tokens.Profile{Attributes: map[string]string{}}
	text := rapid.Custom(func(t *rapid.T) *string {
		if rapid.Bool().Draw(t, "none") {
			return nil
		}
		return some(rapid.StringMatching(`[ -~äß']{0,8}`).Draw(t, "text"))
	})
	rapid.Check(t, func(t *rapid.T) {
		e := tokens.ProfileEdit{Display: text.Draw(t, "display"), External: text.Draw(t, "external")}
		e.Attributes = rapid.MapOfN(rapid.SampledFrom([]string{"a", "b", "C-1"}), text, 0, 3).Draw(t, "attributes")
		if e.Display != nil {
			want.Display = *e.Display
		}
		if e.External != nil {
			want.External = *e.External
		}
		for name, value := range e.Attributes {
			delete(want.Attributes, name)
			if value != nil && *value != "" {
				want.Attributes[name] = *value
			}
		}
		u, err := h.EditUser(ctx, h.admin, "", "alice", e)
		if err != nil || u.Profile.Display != want.Display || u.Profile.External != want.External || !maps.Equal(u.Profile.Attributes, want.Attributes) {
			t.Fatalf("%+v, %v; want %+v", u.Profile, err, want)
		}
	})
}
