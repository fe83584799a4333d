package storetest

import (
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"time"

	"watchword/tokens"
)

// newKey is a FIDO token as it is enrolled for a user.
func newKey(serial string, owner *tokens.User) tokens.Token {
	id := sha256.Sum256([]byte(serial))
	return tokens.Token{
		Realm: "default", Serial: serial, Type: tokens.FIDO, State: tokens.Active, Model: "Key É", Created: now(),
		OwnerID: owner.ID, Owner: owner.Key,
		Credential: &tokens.Credential{
			ID: id[:], RPID: "login.example", UserID: owner.ID, PublicKey: slices.Repeat([]byte{0, 0xA5, 0xFF}, 26),
			AAGUID: [16]byte{1, 0, 15: 0xEE}, Format: "packed", Attestation: "basic", Attester: "00ff",
			Transports: []string{"usb", "nfc"}, Discoverable: true, UserVerified: true,
		},
		Binding: slices.Repeat([]byte{0x5A, 2}, 16),
		Motion:  tokens.Motion{Last: 7},
	}
}

// enrol stores a token in its owner's hand and answers it as listed.
func (k *kit) enrol(t tokens.Token) tokens.Token {
	k.Helper()
	c := tokens.Change{NewTokens: []*tokens.Token{&t}}
	if t.OwnerID != 0 {
		c.Standings = []tokens.StandingWrite{next(k.subject(t.Owner))}
	}
	k.must(c)
	if t.ID == 0 {
		k.Fatal("Commit gave the new token no ID")
	}
	got := k.token(t.Serial)
	k.same("the new token's ID", t.ID, got.ID)
	return got
}

func byKey(realm string, t *tokens.Token) tokens.Ref {
	return tokens.Ref{Realm: realm, Credential: t.Credential.Key()}
}

var enrolTests = []test{
	{"AnEnrolledKeyComesWithAllColumns", func(k *kit) {
		alice := k.user("alice")
		plain := newKey("K2", &alice) // all that may be empty is
		plain.Model, plain.Binding, plain.Last = "", nil, 0
		plain.Credential = &tokens.Credential{ID: []byte{0}, RPID: "x", UserID: alice.ID, PublicKey: []byte{1}}
		for _, want := range []tokens.Token{newKey("K1", &alice), plain} {
			got := k.enrol(want)
			want.ID, want.Version, want.Assigned = got.ID, 1, want.Created
			k.same("the key as listed", got, want)
			want.Assigned = time.Time{}
			list := k.subject("alice").Tokens
			k.same("the key in its owner's hand", list[len(list)-1], want)
			for _, ref := range []tokens.Ref{byKey("default", &want), {Realm: "default", Serial: want.Serial}} {
				k.same("the owner by the key", k.load(ref).Subjects[0], k.subject("alice"))
			}
		}
	}},
	{"AnEnrolledSoftTokenComesWithAllColumns", func(k *kit) {
		alice := k.user("alice")
		want := newToken("S1")
		want.State, want.OwnerID, want.Owner, want.Hint = tokens.Pending, alice.ID, "alice", "a hint"
		want.Last, want.Drift, want.UsedAt = 57, -2, 1_700_000_000
		want.Assigned, want.Expires = want.Created.Add(-time.Hour), want.Created.Add(time.Hour)
		got := k.enrol(want)
		want.ID, want.Version = got.ID, 1
		k.same("the token as listed", got, want)
		want.Hint, want.Assigned = "", time.Time{}
		k.same("the token in its owner's hand", k.subject("alice").Tokens, []tokens.Token{want})
	}},
	{"AnEnrolledTokenLivesLikeOthers", func(k *kit) {
		alice := k.user("alice")
		key := k.enrol(newKey("K1", &alice))
		if err := k.accept("alice", "K1", 9); err != nil {
			k.Fatal(err)
		}
		if err := k.accept("alice", "K1", 8); !errors.Is(err, tokens.ErrConflict) {
			k.Errorf("a signature counter went back: %v", err)
		}
		s := k.subject("alice")
		w := s.Tokens[0]
		w.State, w.Binding = tokens.Suspended, []byte("another")
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Tokens: []tokens.TokenWrite{{Token: w, Expect: 1}}})
		w.Version = 2
		k.same("the suspended key", k.subject("alice").Tokens, []tokens.Token{w})
		s = k.subject("alice")
		w.State, w.Binding = tokens.Revoked, nil // and the owner and the credential stay in its row
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Tokens: []tokens.TokenWrite{{Token: w, Expect: 2}}})
		if list := k.subject("alice").Tokens; len(list) != 0 {
			k.Errorf("alice holds the revoked key: %+v", list)
		}
		w.Version = 3
		alone := &tokens.Subject{Tokens: []tokens.Token{w}}
		k.same("the revoked key by its credential", k.load(byKey("default", &key)).Subjects[0], alone)
		again := newKey("K2", &alice)
		again.Credential = key.Credential
		k.refuses(tokens.ErrExists, tokens.Change{
			Standings: []tokens.StandingWrite{next(k.subject("alice"))}, NewTokens: []*tokens.Token{&again},
		})
	}},
	{"ACredentialIsFoundInItsRealmOnly", func(k *kit) {
		alice := k.user("alice")
		k.ship("A1")
		k.give("alice", "A1")
		mine := k.enrol(newKey("K1", &alice))
		free := newKey("K2", &tokens.User{})
		free.State = tokens.Imported
		free = k.enrol(free)
		unknown := newKey("K3", &alice)
		s := k.load(
			byKey("default", &mine), byKey("elsewhere", &mine), byKey("", &mine), byKey("default", &unknown), byKey("default", &free),
			tokens.Ref{Realm: "default", User: "alice"}, tokens.Ref{Realm: "default", Serial: "A1"}, byKey("default", &free),
			tokens.Ref{Realm: "default", Credential: "K1"}, tokens.Ref{Realm: "default", Credential: "\xff\x00"}, byKey("default", &mine),
		).Subjects
		if s[0] == nil || s[0].User == nil || s[0] != s[5] || s[0] != s[6] || s[0] != s[10] || len(s[0].Tokens) != 2 {
			k.Errorf("alice, by her name and her tokens, is not one subject: %+v", s)
		}
		for _, i := range []int{1, 2, 3, 8, 9} {
			if s[i] != nil {
				k.Errorf("ref %d, which is of no credential in its realm, was found", i)
			}
		}
		if s[4] == nil || s[4] != s[7] {
			k.Error("a key without an owner is two subjects, or none")
		}
		k.same("a key without an owner", s[4], &tokens.Subject{Tokens: []tokens.Token{free}})
	}},
	{"ATakenSerialOrCredentialExists", func(k *kit) {
		alice := k.user("alice")
		k.ship("P1")
		k.stage(k.begin(), newToken("S1"))
		k.enrol(newKey("K1", &alice))
		before := k.subject("alice")
		clone := newKey("K9", &alice)
		clone.Realm, clone.Credential = "elsewhere", newKey("K1", &alice).Credential
		half := newKey("K8", &alice)
		half.Credential = newKey("K7", &alice).Credential
		for _, c := range []struct {
			list []tokens.Token
			says string
		}{
			{[]tokens.Token{newKey("P1", &alice)}, "serial P1"},
			{[]tokens.Token{newKey("S1", &alice)}, "serial S1"},
			{[]tokens.Token{newKey("K1", &alice)}, "serial K1"},
			{[]tokens.Token{newKey("K7", &alice), newKey("K7", &alice)}, "serial K7"},
			{[]tokens.Token{newKey("K7", &alice), clone}, "credential"},
			{[]tokens.Token{newKey("K7", &alice), half}, "credential"},
		} {
			change := tokens.Change{Standings: []tokens.StandingWrite{next(before)}}
			for i := range c.list {
				change.NewTokens = append(change.NewTokens, &c.list[i])
			}
			err := k.try(change)
			if !errors.Is(err, tokens.ErrExists) || !strings.Contains(err.Error(), c.says) {
				k.Errorf("%v, which does not say that the %s is taken", err, c.says)
			}
		}
		k.same("alice", k.subject("alice"), before)
		k.same("tokens", k.serials(tokens.TokenQuery{}), []string{"P1", "K1"})
		abroad := newKey("P1", &alice)
		abroad.Realm = "elsewhere"
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(before)}, NewTokens: []*tokens.Token{&abroad}})
	}},
	{"ANewTokenThatContradictsItselfIsRefused", func(k *kit) {
		alice, bob := k.user("alice"), k.user("bob")
		s := k.subject("alice")
		for what, edit := range map[string]func(*tokens.Token){
			"an ID":                       func(t *tokens.Token) { t.ID = 5 },
			"an import":                   func(t *tokens.Token) { t.Batch = 1 },
			"another's":                   func(t *tokens.Token) { t.OwnerID = bob.ID },
			"no credential":               func(t *tokens.Token) { t.Credential = nil },
			"a credential that signs not": func(t *tokens.Token) { t.Type = tokens.TOTP },
			"a NUL":                       func(t *tokens.Token) { t.Model = "a\x00b" },
		} {
			t := newKey("K1", &alice)
			edit(&t)
			if err := k.try(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, NewTokens: []*tokens.Token{&t}}); !errors.Is(err, tokens.ErrInvalid) {
				k.Errorf("%s: %v", what, err)
			}
		}
		t := newKey("K1", &alice)
		k.refuses(tokens.ErrInvalid, tokens.Change{NewTokens: []*tokens.Token{&t}})
		k.refuses(tokens.ErrInvalid, tokens.Change{NewTokens: []*tokens.Token{nil}})
		k.same("alice", k.subject("alice"), s)
		k.same("tokens", k.serials(tokens.TokenQuery{}), []string(nil))
	}},
	{"EnrollingIsConditionalOnTheOwner", func(k *kit) {
		alice := k.user("alice")
		t := newKey("K1", &alice)
		stale := next(k.subject("alice"))
		k.must(tokens.Change{Standings: []tokens.StandingWrite{stale}})
		change := tokens.Change{Standings: []tokens.StandingWrite{stale}, NewTokens: []*tokens.Token{&t}}
		k.refuses(tokens.ErrConflict, change)
		head := k.head
		k.head.Seq--
		k.refuses(tokens.ErrChainMoved, change)
		k.head = head
		k.same("tokens", k.serials(tokens.TokenQuery{}), []string(nil))
		if t.ID != 0 {
			k.Error("a token that was not stored has an ID")
		}
	}},
	{"EnrolledTokensAreOfNoImport", func(k *kit) {
		alice := k.user("alice")
		free := newKey("K2", &tokens.User{})
		free.State = tokens.Imported
		k.enrol(newKey("K1", &alice))
		k.enrol(free)
		if list, err := k.Batches(k.ctx, tokens.BatchQuery{Limit: 10}); err != nil || len(list) != 0 {
			k.Errorf("imports: %+v, %v", list, err)
		}
		if list, err := k.Batches(k.ctx, tokens.BatchQuery{Before: 1 << 40, Realm: "", Limit: 10}); err != nil || len(list) != 0 {
			k.Errorf("imports: %+v, %v", list, err)
		}
		k.same("tally", k.tally(0), tokens.Tally{States: map[tokens.State]int{}})
		if n, last, err := k.Remove(k.ctx, 0, 0, 10, now()); !errors.Is(err, tokens.ErrNotFound) || n != 0 || last != 0 {
			k.Errorf("Remove: %d, %d, %v", n, last, err)
		}
		if err := k.Discard(k.ctx, 0); !errors.Is(err, tokens.ErrNotFound) {
			k.Errorf("Discard: %v", err)
		}
		if _, err := k.Stage(k.ctx, 0, []tokens.Token{newToken("S1")}); !errors.Is(err, tokens.ErrState) {
			k.Errorf("Stage: %v", err)
		}
		if err := k.Grant(k.ctx, 0, nil, nil); !errors.Is(err, tokens.ErrState) {
			k.Errorf("Grant: %v", err)
		}
		k.refuses(tokens.ErrState, tokens.Change{Publish: []tokens.Batch{{ID: 0}}})
		if n, err := k.Sweep(k.ctx, time.Now().Add(time.Hour)); err != nil || n != 0 {
			k.Errorf("Sweep: %d, %v", n, err)
		}
		present, err := k.Present(k.ctx, "default", []string{"K1", "K3"})
		if err != nil {
			k.Fatal(err)
		}
		k.same("present", present, []tokens.Presence{{There: true}, {}})
		k.same("created", k.stage(k.begin(), newToken("K1"), newToken("K3")), []bool{false, true})
		k.same("tokens", k.serials(tokens.TokenQuery{}), []string{"K1", "K2"})
	}},
	{"TokensByType", func(k *kit) {
		alice := k.user("alice")
		k.ship("A1")
		k.enrol(newKey("K1", &alice))
		k.ship("A2")
		k.enrol(newKey("K2", &alice))
		for kind, want := range map[tokens.Type][]string{
			"": {"A1", "K1", "A2", "K2"}, tokens.FIDO: {"K1", "K2"}, tokens.TOTP: {"A1", "A2"}, tokens.HOTP: nil, "\xff": nil,
		} {
			for _, limit := range []int{1, 2, 10} {
				k.same("tokens of type "+string(kind), k.serials(tokens.TokenQuery{Type: kind, Limit: limit}), want)
			}
		}
		k.same("both", k.serials(tokens.TokenQuery{Type: tokens.FIDO, Owner: "alice", Q: "k2"}), []string{"K2"})
	}},
}

func spend(thing string, in time.Duration) tokens.Spend {
	return tokens.Spend{Hash: sha256.Sum256([]byte(thing)), Expires: now().Add(in)}
}

// spent says that the change is refused because just these were spent before.
func (k *kit) spent(c tokens.Change, things ...string) {
	k.Helper()
	err := k.try(c)
	var e *tokens.SpentError
	if !errors.As(err, &e) || !errors.Is(err, tokens.ErrSpent) {
		k.Fatalf("Commit: %v, and not that something was spent", err)
	}
	want := make(map[[32]byte]bool)
	for _, thing := range things {
		want[sha256.Sum256([]byte(thing))] = true
	}
	got := make(map[[32]byte]bool)
	for _, h := range e.Hashes {
		got[h] = true
	}
	k.same("spent before", got, want)
}

var spendTests = []test{
	{"EachIsSpentOnce", func(k *kit) {
		k.user("alice")
		k.ship("A1")
		k.give("alice", "A1")
		accept := func(step int64, s ...tokens.Spend) tokens.Change {
			s0 := k.subject("alice")
			return tokens.Change{
				Standings: []tokens.StandingWrite{next(s0)},
				Motions:   []tokens.MotionWrite{{TokenID: s0.Tokens[0].ID, UserID: s0.User.ID, Last: step}},
				Spends:    s,
			}
		}
		k.must(accept(5, spend("one", time.Hour)))
		before := k.subject("alice")
		k.same("step", before.Tokens[0].Last, int64(5))
		k.spent(accept(6, spend("one", time.Hour)), "one")
		k.spent(accept(6, spend("one", 2*time.Hour), spend("two", time.Hour)), "one")
		k.same("alice", k.subject("alice"), before)
		k.must(accept(6, spend("two", time.Hour))) // which the refused change has not spent
		k.must(tokens.Change{Spends: []tokens.Spend{spend("three", -time.Hour)}})
		k.spent(tokens.Change{Spends: []tokens.Spend{spend("three", time.Hour)}}, "three") // expired or not
	}},
	{"AllThatWereSpentAreNamed", func(k *kit) {
		var all []tokens.Spend
		var names []string
		for i := range 300 {
			names = append(names, serialName(i))
			all = append(all, spend(names[i], time.Hour))
		}
		k.must(tokens.Change{Spends: all[:200]})
		slices.Reverse(all)
		k.spent(tokens.Change{Spends: all}, names[:200]...)
		k.spent(tokens.Change{Spends: all, NewUsers: []tokens.NewUser{{User: newUser("default", "alice")}}}, names[:200]...)
		k.must(tokens.Change{Spends: all[:100]})
		if k.load(tokens.Ref{Realm: "default", User: "alice"}).Subjects[0] != nil {
			k.Error("alice was made by a commit that was refused")
		}
	}},
	{"WhateverTheChangeHolds", func(k *kit) {
		alice := k.user("alice")
		t := newKey("K1", &alice)
		enrol := tokens.Change{
			Standings: []tokens.StandingWrite{next(k.subject("alice"))}, NewTokens: []*tokens.Token{&t},
			Spends: []tokens.Spend{spend("one", time.Hour)},
		}
		k.must(enrol)
		k.spent(tokens.Change{Spends: enrol.Spends}, "one")
		other := newKey("K2", &alice)
		k.spent(tokens.Change{
			Standings: []tokens.StandingWrite{next(k.subject("alice"))}, NewTokens: []*tokens.Token{&other},
			Spends: []tokens.Spend{spend("one", time.Hour)},
		}, "one")
		k.same("tokens", k.serials(tokens.TokenQuery{}), []string{"K1"})
	}},
	{"SpendingTwiceAtOnceIsRefused", func(k *kit) {
		k.refuses(tokens.ErrInvalid, tokens.Change{Spends: []tokens.Spend{spend("a", time.Hour), spend("b", time.Hour), spend("a", time.Hour)}})
		k.refuses(tokens.ErrInvalid, tokens.Change{Spends: []tokens.Spend{{Hash: sha256.Sum256([]byte("a"))}}}) // for ever
		k.must(tokens.Change{Spends: []tokens.Spend{spend("a", time.Hour)}})
	}},
	{"ALostAcknowledgementIsNoReplay", func(k *kit) {
		// The commit was made, but its caller was not told, and makes it again.
		k.user("alice")
		s := k.subject("alice")
		for i, c := range []tokens.Change{
			{Spends: []tokens.Spend{spend("hot", time.Hour)}, Standings: []tokens.StandingWrite{next(s)}},
			{Spends: []tokens.Spend{spend("rare", time.Hour)}, NewUsers: []tokens.NewUser{{User: newUser("default", "bob")}}},
		} {
			old := k.head
			k.must(c)
			k.head, old = old, k.head
			if i == 1 {
				c.NewUsers = []tokens.NewUser{{User: newUser("default", "bob")}}
			}
			k.refuses(tokens.ErrChainMoved, c)
			k.head = old
		}
	}},
	{"WhatExpiredIsForgotten", func(k *kit) {
		at := now()
		for i, in := range []time.Duration{-time.Hour, -time.Microsecond, 0, time.Hour} {
			s := spend(serialName(i), 0)
			s.Expires = at.Add(in)
			k.must(tokens.Change{Spends: []tokens.Spend{s}})
		}
		if n, err := k.Expire(k.ctx, at); err != nil || n != 2 {
			k.Errorf("Expire: %d, %v", n, err)
		}
		if n, err := k.Expire(k.ctx, at); err != nil || n != 0 {
			k.Errorf("Expire again: %d, %v", n, err)
		}
		k.spent(tokens.Change{Spends: []tokens.Spend{spend(serialName(2), time.Hour), spend(serialName(3), time.Hour), spend(serialName(1), time.Hour)}},
			serialName(2), serialName(3))
		k.must(tokens.Change{Spends: []tokens.Spend{spend(serialName(0), time.Hour), spend(serialName(1), time.Hour)}})
	}},
}
