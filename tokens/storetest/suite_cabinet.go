package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"watchword/tokens"
)

func (k *kit) document(name string) tokens.Document {
	k.Helper()
	d, err := k.Document(k.ctx, name)
	if err != nil {
		k.Fatalf("Document: %v", err)
	}
	return d
}

func (k *kit) groups(user int64) []string {
	k.Helper()
	groups, err := k.Groups(k.ctx, user)
	if err != nil {
		k.Fatalf("Groups: %v", err)
	}
	return groups
}

func newInvitation(id string, u *tokens.User) tokens.Invitation {
	return tokens.Invitation{
		ID: id, Realm: u.Realm, UserID: u.ID, User: u.Key, Kinds: []string{"fido", "totp"}, MAC: [32]byte{1, 0, 31: 9},
		Actor: "key:helpdesk é", Created: now(), Expires: now().Add(time.Hour),
	}
}

func (k *kit) invitation(id string) tokens.Invitation {
	k.Helper()
	v, err := k.Invitation(k.ctx, id)
	if err != nil {
		k.Fatalf("Invitation: %v", err)
	}
	return v
}

func invite(list ...tokens.Invitation) tokens.Change {
	var c tokens.Change
	for _, v := range list {
		c.Invites = append(c.Invites, tokens.InvitationWrite{Invitation: v})
	}
	return c
}

func use(id, serial string, at time.Time) tokens.InvitationWrite {
	return tokens.InvitationWrite{Use: true, Invitation: tokens.Invitation{ID: id, Used: at, Serial: serial}}
}

var documentTests = []test{
	{"DocumentsAreReplacedByVersion", func(k *kit) {
		if _, err := k.Document(k.ctx, "fido.mds"); !errors.Is(err, tokens.ErrNotFound) {
			k.Errorf("a document that is not there: %v", err)
		}
		put := func(name string, expect int64, data []byte) tokens.Change {
			return tokens.Change{Documents: []tokens.DocumentWrite{{Name: name, Expect: expect, Updated: now(), Data: data}}}
		}
		first := put("fido.mds", 0, []byte{0, 0xFF, 'a'})
		k.refuses(tokens.ErrConflict, put("fido.mds", 1, []byte("x")))
		k.refuses(tokens.ErrConflict, put("fido.mds", 1, nil))
		k.must(first)
		want := tokens.Document{Name: "fido.mds", Version: 1, Updated: first.Documents[0].Updated, Data: []byte{0, 0xFF, 'a'}}
		k.same("document", k.document("fido.mds"), want)
		for _, expect := range []int64{0, 2} {
			k.refuses(tokens.ErrConflict, put("fido.mds", expect, []byte("x")))
		}
		k.refuses(tokens.ErrConflict, put("fido.mds", 2, nil))
		k.same("document", k.document("fido.mds"), want)
		second := put("fido.mds", 1, []byte{})
		k.must(second)
		k.same("an empty document", k.document("fido.mds"),
			tokens.Document{Name: "fido.mds", Version: 2, Updated: second.Documents[0].Updated, Data: []byte{}})
		k.must(put("fido.rules é", 0, []byte("{}")))
		k.must(put("fido.mds", 2, nil))
		if _, err := k.Document(k.ctx, "fido.mds"); !errors.Is(err, tokens.ErrNotFound) {
			k.Errorf("a deleted document: %v", err)
		}
		k.same("another document", k.document("fido.rules é").Data, []byte("{}"))
		k.must(put("fido.mds", 0, []byte("again")))
		k.same("document again", k.document("fido.mds").Version, int64(1))
		for _, name := range []string{"", "none", "a\x00b", "\xff"} {
			if _, err := k.Document(k.ctx, name); !errors.Is(err, tokens.ErrNotFound) {
				k.Errorf("document %q: %v", name, err)
			}
		}
	}},
	{"DocumentsRaiseTheGeneration", func(k *kit) {
		start := k.registry().Generation
		w := tokens.DocumentWrite{Name: "a", Updated: now(), Data: []byte("1")}
		k.must(tokens.Change{Documents: []tokens.DocumentWrite{w}})
		made := k.registry().Generation
		if made <= start {
			k.Errorf("the generation went from %d to %d", start, made)
		}
		k.refuses(tokens.ErrConflict, tokens.Change{Documents: []tokens.DocumentWrite{w}})
		k.same("the generation after a refusal", k.registry().Generation, made)
		k.must(tokens.Change{Documents: []tokens.DocumentWrite{{Name: "a", Expect: 1}}})
		if gone := k.registry().Generation; gone <= made {
			k.Errorf("the generation went from %d to %d", made, gone)
		}
	}},
	{"AllDocumentsOrNone", func(k *kit) {
		k.refuses(tokens.ErrConflict, tokens.Change{
			Documents: []tokens.DocumentWrite{{Name: "a", Data: []byte("1")}, {Name: "b", Expect: 1, Data: []byte("1")}},
			NewUsers:  []tokens.NewUser{{User: newUser("default", "alice")}},
		})
		if _, err := k.Document(k.ctx, "a"); !errors.Is(err, tokens.ErrNotFound) {
			k.Errorf("a refused change left a document: %v", err)
		}
		for what, list := range map[string][]tokens.DocumentWrite{
			"no name":          {{Data: []byte("1")}},
			"a NUL":            {{Name: "a\x00", Data: []byte("1")}},
			"below zero":       {{Name: "a", Expect: -1, Data: []byte("1")}},
			"nothing deleted":  {{Name: "a"}},
			"twice":            {{Name: "a", Data: []byte("1")}, {Name: "a", Expect: 1, Data: []byte("2")}},
			"twice, not first": {{Name: "b", Data: []byte("1")}, {Name: "a", Data: []byte("1")}, {Name: "a", Data: []byte("2")}},
		} {
			if err := k.try(tokens.Change{Documents: list}); !errors.Is(err, tokens.ErrInvalid) {
				k.Errorf("%s: %v", what, err)
			}
		}
	}},
	{"ALargeDocumentIsKept", func(k *kit) {
		data := bytes.Repeat([]byte("metadata \x00\xff\r\n"), 500_000)
		k.must(tokens.Change{Documents: []tokens.DocumentWrite{{Name: "fido.mds", Updated: now(), Data: data}}})
		if !bytes.Equal(k.document("fido.mds").Data, data) {
			k.Error("a document of six megabytes came back as another")
		}
	}},
}

var groupTests = []test{
	{"GroupsAreReplacedWhole", func(k *kit) {
		alice, bob := k.user("alice"), k.user("bob")
		put := func(name string, groups ...string) tokens.Change {
			s := k.subject(name)
			return tokens.Change{
				Standings: []tokens.StandingWrite{next(s)}, Groups: []tokens.GroupsWrite{{UserID: s.User.ID, Groups: groups}},
			}
		}
		k.same("no groups", k.groups(alice.ID), []string(nil))
		k.same("groups of nobody", k.groups(1<<40), []string(nil))
		k.must(put("alice", "a b", "staff", "Ünal", "é"))
		k.must(put("bob", "staff"))
		k.same("groups", k.groups(alice.ID), []string{"a b", "staff", "Ünal", "é"})
		k.must(put("alice", "admins", "staff"))
		k.same("groups", k.groups(alice.ID), []string{"admins", "staff"})
		k.must(put("alice"))
		k.same("no more groups", k.groups(alice.ID), []string(nil))
		k.same("another's groups", k.groups(bob.ID), []string{"staff"})
	}},
	{"ANewUserBelongsToGroupsAtOnce", func(k *kit) {
		u := newUser("default", "alice")
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: u, Groups: []string{"admins", "staff"}}, {User: newUser("default", "bob")}}})
		k.same("groups", k.groups(u.ID), []string{"admins", "staff"})
		k.same("another's groups", k.groups(k.subject("bob").User.ID), []string(nil))
		for _, groups := range [][]string{{"b", "a"}, {"a", "a"}, {""}, {"\xff"}, {"a\x00"}} {
			k.refuses(tokens.ErrInvalid, tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("default", "carol"), Groups: groups}}})
		}
		k.refuses(tokens.ErrExists, tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("default", "alice"), Groups: []string{"other"}}}})
		k.same("groups", k.groups(u.ID), []string{"admins", "staff"})
	}},
	{"GroupsGoWithAStanding", func(k *kit) {
		alice := k.user("alice")
		s := k.subject("alice")
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Groups: []tokens.GroupsWrite{{UserID: alice.ID, Groups: []string{"a"}}}})
		k.refuses(tokens.ErrInvalid, tokens.Change{Groups: []tokens.GroupsWrite{{UserID: alice.ID, Groups: []string{"b"}}}})
		k.refuses(tokens.ErrConflict, tokens.Change{
			Standings: []tokens.StandingWrite{next(s)}, Groups: []tokens.GroupsWrite{{UserID: alice.ID, Groups: []string{"b"}}},
		})
		s = k.subject("alice")
		for _, groups := range [][]string{{"b", "a"}, {"a", "a"}, {""}, {"\xff"}, {"a\x00"}} {
			k.refuses(tokens.ErrInvalid, tokens.Change{
				Standings: []tokens.StandingWrite{next(s)}, Groups: []tokens.GroupsWrite{{UserID: alice.ID, Groups: groups}},
			})
		}
		k.refuses(tokens.ErrInvalid, tokens.Change{
			Standings: []tokens.StandingWrite{next(s)}, Groups: []tokens.GroupsWrite{{UserID: alice.ID}, {UserID: alice.ID}},
		})
		k.same("groups", k.groups(alice.ID), []string{"a"})
	}},
}

var invitationTests = []test{
	{"AnInvitationIsUsedOnce", func(k *kit) {
		alice := k.user("alice")
		want := newInvitation("i1", &alice)
		k.must(invite(want))
		k.same("invitation", k.invitation("i1"), want)
		k.refuses(tokens.ErrExists, invite(newInvitation("i1", &alice)))

		at := now()
		k.must(tokens.Change{Invites: []tokens.InvitationWrite{use("i1", "K1", at)}})
		want.Used, want.Serial = at, "K1"
		k.same("the used invitation", k.invitation("i1"), want)
		for _, id := range []string{"i1", "none"} {
			err := k.try(tokens.Change{
				Invites: []tokens.InvitationWrite{use(id, "K2", now())}, NewUsers: []tokens.NewUser{{User: newUser("default", "bob")}},
			})
			var spends *tokens.SpentError
			if !errors.Is(err, tokens.ErrSpent) || errors.As(err, &spends) {
				k.Errorf("using invitation %s: %v", id, err)
			}
		}
		k.same("the used invitation", k.invitation("i1"), want)
		if k.load(tokens.Ref{Realm: "default", User: "bob"}).Subjects[0] != nil {
			k.Error("bob was made by a commit that was refused")
		}
	}},
	{"InvitationsAreDeletedAndReplaced", func(k *kit) {
		alice := k.user("alice")
		k.must(invite(newInvitation("i1", &alice), newInvitation("i2", &alice)))
		remove := func(id string) tokens.InvitationWrite {
			return tokens.InvitationWrite{Delete: true, Invitation: tokens.Invitation{ID: id}}
		}
		k.refuses(tokens.ErrNotFound, tokens.Change{Invites: []tokens.InvitationWrite{remove("i1"), remove("none")}})
		k.invitation("i1")
		k.must(tokens.Change{Invites: []tokens.InvitationWrite{remove("i1"), {Invitation: newInvitation("i3", &alice)}, use("i2", "K1", now())}})
		for _, id := range []string{"i1", "none", "", "\xff", "a\x00b"} {
			if _, err := k.Invitation(k.ctx, id); !errors.Is(err, tokens.ErrNotFound) {
				k.Errorf("invitation %q: %v", id, err)
			}
		}
		k.must(tokens.Change{Invites: []tokens.InvitationWrite{remove("i2")}}) // used or not
		k.invitation("i3")
	}},
	{"AnInvitationThatContradictsItselfIsRefused", func(k *kit) {
		alice := k.user("alice")
		k.must(invite(newInvitation("i1", &alice)))
		for what, edit := range map[string]func(*tokens.InvitationWrite){
			"no ID":              func(w *tokens.InvitationWrite) { w.Invitation.ID = "" },
			"used before":        func(w *tokens.InvitationWrite) { w.Invitation.Used = now() },
			"with a serial":      func(w *tokens.InvitationWrite) { w.Invitation.Serial = "K1" },
			"for ever":           func(w *tokens.InvitationWrite) { w.Invitation.Expires = time.Time{} },
			"for nobody":         func(w *tokens.InvitationWrite) { w.Invitation.UserID = 1 << 40 },
			"a kind of nothing":  func(w *tokens.InvitationWrite) { w.Invitation.Kinds = []string{""} },
			"kinds in one":       func(w *tokens.InvitationWrite) { w.Invitation.Kinds = []string{"a,b"} },
			"a NUL":              func(w *tokens.InvitationWrite) { w.Invitation.Actor = "a\x00b" },
			"used at no time":    func(w *tokens.InvitationWrite) { *w = use("i1", "K1", time.Time{}) },
			"used and deleted":   func(w *tokens.InvitationWrite) { *w = use("i1", "K1", now()); w.Delete = true },
			"used, with a NUL":   func(w *tokens.InvitationWrite) { *w = use("i1", "\x00", now()) },
			"a kind that is NUL": func(w *tokens.InvitationWrite) { w.Invitation.Kinds = []string{"\x00"} },
		} {
			w := tokens.InvitationWrite{Invitation: newInvitation("i2", &alice)}
			edit(&w)
			if err := k.try(tokens.Change{Invites: []tokens.InvitationWrite{w}}); !errors.Is(err, tokens.ErrInvalid) {
				k.Errorf("%s: %v", what, err)
			}
		}
		k.refuses(tokens.ErrInvalid, tokens.Change{Invites: []tokens.InvitationWrite{use("i1", "K1", now()), use("i1", "K2", now())}})
		k.same("invitation", k.invitation("i1").Used, time.Time{})
	}},
	{"InvitationsNewestFirst", func(k *kit) {
		alice, bob := k.user("alice"), k.user("bob")
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("abroad", "alice")}}})
		cyd := *k.load(tokens.Ref{Realm: "abroad", User: "alice"}).Subjects[0].User
		at := now()
		for i, u := range []*tokens.User{&alice, &bob, &alice, &cyd, &alice, &alice} {
			v := newInvitation(fmt.Sprint("i", i), u)
			v.Created = at.Add(time.Duration(i%5) * time.Minute) // the last is as old as the first
			v.Kinds = v.Kinds[:i%3]
			if len(v.Kinds) == 0 {
				v.Kinds = nil
			}
			k.must(invite(v))
			k.same("invitation", k.invitation(v.ID), v)
		}
		k.must(tokens.Change{Invites: []tokens.InvitationWrite{use("i2", "K1", now())}})
		for _, c := range []struct {
			realm, user string
			limit       int
			want        []string
		}{
			{"default", "", 10, []string{"i4", "i2", "i1", "i5", "i0"}},
			{"default", "alice", 10, []string{"i4", "i2", "i5", "i0"}},
			{"default", "alice", 3, []string{"i4", "i2", "i5"}},
			{"default", "bob", 10, []string{"i1"}},
			{"abroad", "alice", 10, []string{"i3"}},
			{"default", "Alice", 10, nil},
			{"", "", 10, nil},
			{"default", "\xff", 10, nil},
		} {
			list, err := k.Invitations(k.ctx, c.realm, c.user, c.limit)
			if err != nil {
				k.Fatalf("Invitations: %v", err)
			}
			var got []string
			for _, v := range list {
				got = append(got, v.ID)
				k.same("invitation as listed", v, k.invitation(v.ID))
			}
			k.same("invitations of "+c.user+" in "+c.realm, got, c.want)
		}
	}},
	{"InvitationsAreForgottenThirtyDaysAfterTheyExpire", func(k *kit) {
		alice := k.user("alice")
		at := now()
		for i, ago := range []time.Duration{31 * 24 * time.Hour, 30 * 24 * time.Hour, 29 * 24 * time.Hour, -time.Hour} {
			v := newInvitation(fmt.Sprint("i", i), &alice)
			v.Expires = at.Add(-ago)
			k.must(invite(v))
		}
		k.must(tokens.Change{Invites: []tokens.InvitationWrite{use("i0", "K1", now())}, Spends: []tokens.Spend{spend("a", -time.Hour)}})
		if n, err := k.Expire(k.ctx, at); err != nil || n != 2 {
			k.Errorf("Expire: %d, %v", n, err)
		}
		list, err := k.Invitations(k.ctx, "default", "", 10)
		if err != nil || len(list) != 3 || slices.ContainsFunc(list, func(v tokens.Invitation) bool { return v.ID == "i0" }) {
			k.Errorf("after Expire: %v, %v", list, err)
		}
	}},
	{"InvitationsAndGroupsLeaveTheGeneration", func(k *kit) {
		start := k.registry().Generation
		alice := k.user("alice")
		k.must(invite(newInvitation("i1", &alice)))
		k.must(tokens.Change{
			Standings: []tokens.StandingWrite{next(k.subject("alice"))}, Groups: []tokens.GroupsWrite{{UserID: alice.ID, Groups: []string{"a"}}},
			Spends: []tokens.Spend{spend("a", time.Hour)}, Invites: []tokens.InvitationWrite{use("i1", "K1", now())},
		})
		k.enrol(newKey("K1", &alice))
		k.same("generation", k.registry().Generation, start)
	}},
}
