package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"watchword/tokens"
)

// entry answers a user of a realm as listed.
func (k *kit) entry(realm, key string) tokens.UserEntry {
	k.Helper()
	found, _, err := k.Users(k.ctx, tokens.UserQuery{Realm: realm, Key: key, Limit: 2})
	if err != nil || len(found) != 1 {
		k.Fatalf("Users of key %s: %d, %v", key, len(found), err)
	}
	return found[0]
}

func newProfile(external string) tokens.Profile {
	return tokens.Profile{
		Display: "Ünal Öz 龍", Mail: "unal@mail.example", External: external,
		Attributes: map[string]string{"phone": `+49 "30"`, "dept": "<R&D>\n", "empty": ""},
	}
}

// profile is a write of a user's profile with all that goes with it.
func (k *kit) profile(name string, p tokens.Profile) tokens.Change {
	k.Helper()
	s := k.subject(name)
	return tokens.Change{
		Standings: []tokens.StandingWrite{next(s)}, Profiles: []tokens.ProfileWrite{{UserID: s.User.ID, Profile: p}},
	}
}

// with adds the writes of another change of profiles.
func with(c, other tokens.Change) tokens.Change {
	c.Standings = append(c.Standings, other.Standings...)
	c.Profiles = append(c.Profiles, other.Profiles...)
	return c
}

func newcomer(realm, name, external string) *tokens.User {
	u := newUser(realm, name)
	u.Profile.External = external
	return u
}

// takenID says that the change is refused since an external id is taken, which it
// says.
func (k *kit) takenID(id string, c tokens.Change) {
	k.Helper()
	err := k.try(c)
	if !errors.Is(err, tokens.ErrExists) || !strings.Contains(err.Error(), "external id") || !strings.Contains(err.Error(), id) {
		k.Fatalf("a taken external id: %v", err)
	}
}

var profileTests = []test{
	{"AUserIsListedWithProfileAndLoadedWithout", func(k *kit) {
		u := newUser("default", "Ünal")
		u.Profile = newProfile("id-1")
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: u}}})
		k.same("the user as listed", k.entry("default", u.Key).User, *u)
		loaded := *u
		loaded.Profile = tokens.Profile{}
		k.same("the user as loaded", *k.subject(u.Key).User, loaded)
		k.user("bob")
		k.same("a user without", k.entry("default", "bob").Profile, tokens.Profile{})
	}},
	{"AProfileIsReplacedWhole", func(k *kit) {
		k.user("alice")
		before := k.subject("alice")
		for _, want := range []tokens.Profile{
			newProfile("id-1"), newProfile("id-1"), {Mail: "a@b.example"}, {Attributes: map[string]string{"x": "y"}}, {},
		} {
			k.must(k.profile("alice", want))
			k.same("profile", k.entry("default", "alice").Profile, want)
		}
		k.must(k.profile("alice", tokens.Profile{Attributes: map[string]string{}})) // none is one thing
		k.same("profile", k.entry("default", "alice").Profile, tokens.Profile{})
		after := k.subject("alice")
		k.same("version", after.Version, before.Version+6)
		k.same("alice", *after.User, *before.User)
	}},
	{"AProfileIsNotKeptWithWhatItComesWith", func(k *kit) {
		// Whoever commits may go on to use the maps.
		u := newUser("default", "alice")
		u.Profile = newProfile("")
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: u}}})
		u.Profile.Attributes["phone"] = "another"
		k.same("profile", k.entry("default", "alice").Profile, newProfile(""))
		k.entry("default", "alice").Profile.Attributes["phone"] = "another"
		k.same("profile", k.entry("default", "alice").Profile, newProfile(""))
	}},
	{"AProfileChangesWithItsUserOnly", func(k *kit) {
		k.user("alice")
		s := k.subject("alice")
		c := k.profile("alice", newProfile(""))
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}})
		k.refuses(tokens.ErrConflict, c) // what it was made from has moved
		c = k.profile("alice", newProfile(""))
		c.Standings = nil
		k.refuses(tokens.ErrInvalid, c)
		c = k.profile("alice", newProfile(""))
		c.Profiles = append(c.Profiles, c.Profiles[0])
		k.refuses(tokens.ErrInvalid, c)
		for _, bad := range []string{"\xff", "a\x00b"} {
			for _, p := range []tokens.Profile{
				{Display: bad}, {Mail: bad}, {External: bad}, {Attributes: map[string]string{bad: ""}}, {Attributes: map[string]string{"a": bad}},
			} {
				k.refuses(tokens.ErrInvalid, k.profile("alice", p))
				u := newUser("default", "bob")
				u.Profile = p
				k.refuses(tokens.ErrInvalid, tokens.Change{NewUsers: []tokens.NewUser{{User: u}}})
			}
		}
		k.same("profile", k.entry("default", "alice").Profile, tokens.Profile{})
		k.same("version", k.subject("alice").Version, s.Version+1)
	}},
	{"AnExternalIDIsUniqueInItsRealm", func(k *kit) {
		k.must(tokens.Change{NewUsers: []tokens.NewUser{
			{User: newcomer("default", "alice", "id-1")}, {User: newcomer("default", "bob", "")}, {User: newcomer("default", "carol", "")},
			{User: newcomer("elsewhere", "alice", "id-1")}, {User: newcomer("default", "dora", "ID-1")}, // compared as it stands
		}})
		k.takenID("id-1", tokens.Change{NewUsers: []tokens.NewUser{{User: newcomer("default", "emil", "id-2")}, {User: newcomer("default", "frida", "id-1")}}})
		k.takenID("id-2", tokens.Change{NewUsers: []tokens.NewUser{{User: newcomer("default", "emil", "id-2")}, {User: newcomer("default", "frida", "id-2")}}})
		k.takenID("id-1", k.profile("bob", tokens.Profile{External: "id-1", Display: "Bob"}))
		k.takenID("id-3", with(k.profile("bob", newProfile("id-3")), k.profile("carol", newProfile("id-3"))))
		for _, name := range []string{"bob", "carol"} {
			k.same(name, k.entry("default", name).Profile, tokens.Profile{})
		}
		for _, name := range []string{"emil", "frida"} {
			if k.load(tokens.Ref{Realm: "default", User: name}).Subjects[0] != nil {
				k.Errorf("%s was made by a commit that was refused", name)
			}
		}
		err := k.try(tokens.Change{NewUsers: []tokens.NewUser{{User: newcomer("default", "alice", "id-9")}}})
		if !errors.Is(err, tokens.ErrExists) || strings.Contains(err.Error(), "external id") || !strings.Contains(err.Error(), "alice") {
			k.Errorf("a taken name: %v", err)
		}
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newcomer("default", "emil", "id-9")}}})
	}},
	{"AnExternalIDThatIsGivenUpIsFree", func(k *kit) {
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newcomer("default", "alice", "id-1")}, {User: newcomer("default", "bob", "id-2")}}})
		externals := func(alice, bob string) {
			k.Helper()
			k.same("alice", k.entry("default", "alice").Profile.External, alice)
			k.same("bob", k.entry("default", "bob").Profile.External, bob)
		}
		k.must(k.profile("alice", tokens.Profile{External: "id-1", Mail: "a@b.example"})) // it is alice's own
		k.must(with(k.profile("alice", tokens.Profile{External: "id-2"}), k.profile("bob", tokens.Profile{External: "id-1"})))
		externals("id-2", "id-1")
		k.takenID("id-1", with(k.profile("alice", tokens.Profile{External: "id-1"}), k.profile("bob", tokens.Profile{External: "id-1"})))
		externals("id-2", "id-1")
		c := k.profile("bob", tokens.Profile{})
		c.NewUsers = []tokens.NewUser{{User: newcomer("default", "carol", "id-1")}}
		k.must(c)
		externals("id-2", "")
		k.takenID("id-1", k.profile("bob", tokens.Profile{External: "id-1"}))
		k.must(with(k.profile("alice", tokens.Profile{External: "id-3"}), k.profile("bob", tokens.Profile{External: "id-2"})))
		externals("id-3", "id-2")
	}},
	{"WhetherAPINIsDueIsKept", func(k *kit) {
		k.user("alice")
		for _, due := range []bool{true, true, false} {
			s := k.subject("alice")
			u := *s.User
			u.PINSalt, u.PINMAC, u.PINDue = []byte("salt"), []byte("mac"), due
			u.Profile = newProfile("id-1") // what a Users write says of the profile does not count
			k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Users: []tokens.User{u}})
			u.Profile = tokens.Profile{}
			k.same("alice", *k.subject("alice").User, u)
			k.same("alice as listed", k.entry("default", "alice").User, u)
		}
	}},
	{"AProfileStaysWhenItsUserChanges", func(k *kit) {
		k.user("alice")
		k.must(k.profile("alice", newProfile("id-1")))
		s := k.subject("alice")
		u := *s.User
		u.State = tokens.UserDisabled
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Users: []tokens.User{u}})
		u.Profile = newProfile("id-1")
		k.same("alice", k.entry("default", "alice").User, u)
	}},
	{"AUserThatAnImportMakesHasNoProfile", func(k *kit) {
		batch := k.begin()
		k.stage(batch, newToken("G1"))
		ids, err := k.Reserve(k.ctx, 1)
		if err != nil {
			k.Fatal(err)
		}
		u := newUser("default", "carol")
		u.ID, u.Profile, u.PINDue = ids[0], newProfile("id-1"), true
		k.grant(batch, []tokens.User{*u}, granted("G1", u.ID))
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch, Published: now()}}})
		u.Profile, u.PINDue = tokens.Profile{}, false
		k.same("carol", k.entry("default", "carol").User, *u)
	}},
	{"OneOfManyTakesAnExternalID", func(k *kit) {
		var won, wg = atomic.Int32{}, sync.WaitGroup{}
		for i := range 8 {
			worker, name := newKit(k.TB, k.Database), serialNameFolded(i)
			if i%2 == 0 {
				k.user(name)
			}
			wg.Go(func() {
				c := tokens.Change{NewUsers: []tokens.NewUser{{User: newcomer("default", name, "id-1")}}}
				if i%2 == 0 {
					c = worker.profile(name, tokens.Profile{External: "id-1"})
				}
				err := worker.try(c)
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, tokens.ErrExists) {
					k.Errorf("Commit: %v", err)
				}
			})
		}
		wg.Wait()
		if n := won.Load(); n != 1 {
			k.Errorf("%d users have the external id", n)
		}
	}},
	{"ExternalIDsMeetCrosswise", func(k *kit) {
		// Two at a time make users with the same ids in opposite order: one of them
		// has them all, or each is told.
		const rounds, each = 4, 20
		for r := range rounds {
			var won, wg = atomic.Int32{}, sync.WaitGroup{}
			for side := range 2 {
				worker := newKit(k.TB, k.Database)
				wg.Go(func() {
					var c tokens.Change
					for i := range each {
						if side == 1 {
							i = each - 1 - i
						}
						c.NewUsers = append(c.NewUsers, tokens.NewUser{User: newcomer("default", fmt.Sprint("u", r, side, i), fmt.Sprint(r, "-", i))})
					}
					for { // as the core does
						err := worker.try(c)
						if errors.Is(err, tokens.ErrConflict) {
							continue
						}
						if err == nil {
							won.Add(1)
						} else if !errors.Is(err, tokens.ErrExists) {
							k.Errorf("Commit: %v", err)
						}
						return
					}
				})
			}
			wg.Wait()
			if n := won.Load(); n != 1 {
				k.Errorf("round %d: %d have the ids", r, n)
			}
		}
	}},
}
