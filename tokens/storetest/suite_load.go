package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/tokens"
)

var loadTests = []test{
	{"UnknownIsNil", func(k *kit) {
		k.user("alice")
		view := k.load(
			tokens.Ref{Realm: "default", User: "nobody"}, tokens.Ref{Realm: "other", User: "alice"},
			tokens.Ref{Realm: "default", User: "Alice"}, tokens.Ref{Realm: "default", Serial: "alice"}, tokens.Ref{})
		for i, s := range view.Subjects {
			if s != nil {
				k.Errorf("ref %d, which is of nobody, was found", i)
			}
		}
	}},
	{"NoRefsStillAnswerTheGeneration", func(k *kit) {
		if view := k.load(); view.Generation < 1 {
			k.Errorf("the generation is %d", view.Generation)
		}
	}},
	{"UserComesWithStandingAndAllColumns", func(k *kit) {
		u := newUser("default", "Ünïcode Ärger 龍")
		u.PINSalt, u.PINMAC = []byte("sixteen bytes..."), []byte{0, 1, 2, 0xFF}
		u.State, u.PINDue = tokens.UserDisabled, true
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: u}}})
		s := k.subject(u.Key)
		k.same("user", *s.User, *u)
		k.same("standing", s.Standing, tokens.Standing{Version: 1})
		if s.Tokens != nil {
			k.Errorf("a user without tokens has %d", len(s.Tokens))
		}
	}},
	{"TokenComesWithAllColumns", func(k *kit) {
		k.user("alice")
		want := newToken("HOTP-1")
		want.Type, want.Period, want.Digits, want.Last, want.Drift = tokens.HOTP, 0, 8, 1<<40, -3
		want.Expires = now().Add(time.Hour)
		batch := k.begin()
		k.stage(batch, want)
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch, Tokens: 1}}})
		want.ID, want.Batch, want.Version = k.token("HOTP-1").ID, batch, 1
		k.same("the token as listed", k.token("HOTP-1"), want)
		k.same("the token as loaded", k.load(tokens.Ref{Realm: "default", Serial: "HOTP-1"}).Subjects[0],
			&tokens.Subject{Tokens: []tokens.Token{want}})
		k.give("alice", "HOTP-1")
		want.OwnerID, want.Owner, want.State, want.Version = k.subject("alice").User.ID, "alice", tokens.Active, 2
		k.same("the token in its owner's hand", k.subject("alice").Tokens, []tokens.Token{want})
	}},
	{"TokenOfYubicoOTPsComesWithItsIDs", func(k *kit) {
		k.user("alice")
		want, other := newToken("YUBI-1"), newToken("YUBI-2")
		for _, t := range []*tokens.Token{&want, &other} {
			t.Type, t.Algorithm, t.Wrapped.Hash, t.Digits, t.Period, t.Last = tokens.YubicoOTP, hsm.AES128, hsm.AES128, 0, 0, 0x7fffff
			t.PrivateMAC = slices.Repeat([]byte{0, 0xC3}, 16)
		}
		want.PublicID = "vvhvcccccccd"
		batch := k.begin()
		k.stage(batch, want, other)
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch, Tokens: 2}}})
		want.ID, want.Batch, want.Version = k.token("YUBI-1").ID, batch, 1
		k.same("the token as listed", k.token("YUBI-1"), want)
		k.same("a public id of no bytes", k.token("YUBI-2").PublicID, "")
		k.give("alice", "YUBI-1")
		want.OwnerID, want.Owner, want.State, want.Version = k.subject("alice").User.ID, "alice", tokens.Active, 2
		k.same("the token in its owner's hand", k.subject("alice").Tokens, []tokens.Token{want})
		k.same("private MAC of another kind of token", k.ship("T1")[0].PrivateMAC, []byte(nil))
	}},
	{"TokensInOrderOfID", func(k *kit) {
		k.user("alice")
		k.ship("A1", "A2", "A3")
		for _, serial := range []string{"A3", "A1", "A2"} {
			k.give("alice", serial)
		}
		list := k.subject("alice").Tokens
		if len(list) != 3 {
			k.Fatalf("alice has %d tokens", len(list))
		}
		for i := 1; i < len(list); i++ {
			if list[i-1].ID >= list[i].ID {
				k.Errorf("token %d comes before %d", list[i-1].ID, list[i].ID)
			}
		}
	}},
	{"TheSameSubjectIsTheSamePointer", func(k *kit) {
		k.user("alice")
		k.user("bob")
		k.ship("A1", "A2", "B1", "U1")
		k.give("alice", "A1")
		k.give("alice", "A2")
		k.give("bob", "B1")
		ref := func(user, serial string) tokens.Ref { return tokens.Ref{Realm: "default", User: user, Serial: serial} }
		v := k.load(ref("alice", ""), ref("", "A2"), ref("bob", ""), ref("", "U1"), ref("alice", ""), ref("", "U1"), ref("", "A1"))
		s := v.Subjects
		if s[0] == nil || s[0] != s[1] || s[0] != s[4] || s[0] != s[6] {
			k.Error("alice and her tokens are not one subject")
		}
		if s[0] == s[2] || s[3] == nil || s[3] != s[5] {
			k.Error("bob is alice, or the unassigned token is two")
		}
		if len(s[0].Tokens) != 2 {
			k.Errorf("alice, asked for in four ways, has %d tokens", len(s[0].Tokens))
		}
		if s[3].User != nil || len(s[3].Tokens) != 1 || s[3].Version != 0 {
			k.Errorf("the unassigned token has a user or a standing: %+v", s[3])
		}
	}},
	{"RevokedTokensBelongToNobody", func(k *kit) {
		k.user("alice")
		k.ship("A1", "A2")
		k.give("alice", "A1")
		k.give("alice", "A2")
		s := k.subject("alice")
		gone := s.Tokens[0]
		gone.State, gone.Wrapped.Blob, gone.Binding = tokens.Revoked, nil, nil // and the owner stays in its row
		k.must(tokens.Change{
			Standings: []tokens.StandingWrite{next(s)},
			Tokens:    []tokens.TokenWrite{{Token: gone, Expect: gone.Version}},
		})
		if list := k.subject("alice").Tokens; len(list) != 1 || list[0].Serial != "A2" {
			k.Errorf("alice still holds the revoked token: %+v", list)
		}
		alone := k.load(tokens.Ref{Realm: "default", Serial: "A1"}).Subjects[0]
		if alone == nil || alone.User != nil || len(alone.Tokens) != 1 {
			k.Fatalf("the revoked token by itself: %+v", alone)
		}
		if alone.Tokens[0].State != tokens.Revoked || alone.Tokens[0].Wrapped.Blob != nil {
			k.Errorf("the revoked token kept its seed: %+v", alone.Tokens[0])
		}
	}},
	{"NamesAreExactBytes", func(k *kit) {
		names := []string{"strasse", "straße2", "a%", "a_", "ab", "a'b", `a"b`, `a\b`, "{a}", "a,b", "null", "NULL ", "é", "日本", "\u202eevil", "a?b", "🔑"}
		for _, n := range names {
			u := &tokens.User{Realm: "default", Name: n, Key: n, State: tokens.UserEnabled, Created: now()}
			k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: u}}})
		}
		var refs []tokens.Ref
		for _, n := range names {
			refs = append(refs, tokens.Ref{Realm: "default", User: n})
		}
		for i, s := range k.load(refs...).Subjects {
			if s == nil || s.User.Key != names[i] {
				k.Errorf("user %q: %+v", names[i], s)
			}
		}
	}},
	{"AnEndedContextIsHonoured", func(k *kit) {
		ctx, cancel := context.WithCancel(k.ctx)
		cancel()
		if _, err := k.Load(ctx, []tokens.Ref{{Realm: "default", User: "alice"}}); !errors.Is(err, tokens.ErrUnavailable) {
			k.Errorf("Load under an ended context: %v", err)
		}
	}},
	{"TheClockIsNear", func(k *kit) {
		if at := k.load(tokens.Ref{Realm: "default", User: "alice"}).Clock; !at.IsZero() && time.Since(at).Abs() > 5*time.Second {
			k.Errorf("the database's clock says %v", at)
		}
	}},
	{"ThousandRefs", func(k *kit) {
		var users []tokens.NewUser
		var refs []tokens.Ref
		for i := range 1000 {
			u := newUser("default", serialName(i))
			users = append(users, tokens.NewUser{User: u})
			refs = append(refs, tokens.Ref{Realm: "default", User: u.Key})
		}
		k.must(tokens.Change{NewUsers: users})
		for i, s := range k.load(refs...).Subjects {
			if s == nil || s.User.Key != refs[i].User {
				k.Fatalf("ref %d answered %+v", i, s)
			}
		}
	}},
}

var _ testing.TB = (*kit)(nil)
