package storetest

import (
	"errors"
	"slices"
	"strings"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

var commitTests = []test{
	{"StandingIsReplacedWhole", func(k *kit) {
		k.user("alice")
		want := tokens.Standing{
			Version: 2, Failures: 7, Locked: true,
			Throttle: []tokens.ClientFailures{{Client: `vpn "é"`, Failures: 3, Last: 1_700_000_000_123}, {Client: "web", Failures: 4, Last: 5}},
		}
		id := k.subject("alice").User.ID
		k.must(tokens.Change{Standings: []tokens.StandingWrite{{UserID: id, Expect: 1, Next: want}}})
		k.same("standing", k.subject("alice").Standing, want)
		want = tokens.Standing{Version: 3}
		k.must(tokens.Change{Standings: []tokens.StandingWrite{{UserID: id, Expect: 2, Next: want}}})
		k.same("standing", k.subject("alice").Standing, want)
	}},
	{"AMovedVersionIsAConflictAndNothingChanges", func(k *kit) {
		k.user("alice")
		k.user("bob")
		k.ship("B1")
		k.give("bob", "B1")
		alice, bob := k.subject("alice"), k.subject("bob")
		stale := next(alice)
		stale.Expect, stale.Next.Version = 5, 6
		good := next(bob)
		good.Next.Failures = 3
		err := k.try(tokens.Change{
			Standings: []tokens.StandingWrite{good, stale},
			Motions:   []tokens.MotionWrite{{TokenID: bob.Tokens[0].ID, UserID: bob.User.ID, Last: 99}},
			NewUsers:  []tokens.NewUser{{User: newUser("default", "carol")}},
		})
		var conflict *tokens.ConflictError
		if !errors.As(err, &conflict) || !errors.Is(err, tokens.ErrConflict) {
			k.Fatalf("Commit: %v, not a conflict", err)
		}
		if !slices.Equal(conflict.UserIDs, []int64{alice.User.ID}) {
			k.Errorf("the conflict names users %v, not alice (%d)", conflict.UserIDs, alice.User.ID)
		}
		k.same("bob", k.subject("bob"), bob)
		k.same("alice", k.subject("alice"), alice)
		if k.load(tokens.Ref{Realm: "default", User: "carol"}).Subjects[0] != nil {
			k.Error("carol was made by a commit that was refused")
		}
		k.must(tokens.Change{Standings: []tokens.StandingWrite{good}}) // the chain has not moved either
	}},
	{"OnlyStandingsConflictToo", func(k *kit) {
		k.user("alice")
		k.user("bob")
		alice, bob := k.subject("alice"), k.subject("bob")
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(alice)}})
		err := k.try(tokens.Change{Standings: []tokens.StandingWrite{next(bob), next(alice)}})
		var conflict *tokens.ConflictError
		if !errors.As(err, &conflict) || !slices.Equal(conflict.UserIDs, []int64{alice.User.ID}) {
			k.Fatalf("Commit: %v, not a conflict on alice", err)
		}
		k.same("bob", k.subject("bob"), bob)
	}},
	{"MotionMovesForward", func(k *kit) {
		k.user("alice")
		k.ship("A1")
		k.give("alice", "A1")
		s := k.subject("alice")
		want := s.Tokens[0].Motion
		want.Last, want.Drift, want.UsedAt = 57_000_000, -2, 1_700_000_001
		k.must(tokens.Change{
			Standings: []tokens.StandingWrite{next(s)},
			Motions:   []tokens.MotionWrite{{TokenID: s.Tokens[0].ID, UserID: s.User.ID, Last: want.Last, Drift: -2, UsedAt: want.UsedAt}},
		})
		k.same("motion", k.subject("alice").Tokens[0].Motion, want)
		k.same("motion as listed", k.token("A1").Motion, want)
	}},
	{"MotionNeverMovesBackWhateverTheVersionsSay", func(k *kit) {
		k.user("alice")
		k.ship("A1")
		k.give("alice", "A1")
		if err := k.accept("alice", "A1", 100); err != nil {
			k.Fatal(err)
		}
		before := k.subject("alice")
		err := k.accept("alice", "A1", 99)
		var conflict *tokens.ConflictError
		if !errors.As(err, &conflict) || !slices.Contains(conflict.TokenIDs, before.Tokens[0].ID) {
			k.Fatalf("going back: %v, not a conflict on the token", err)
		}
		k.same("alice", k.subject("alice"), before)
		if err := k.accept("alice", "A1", 100); err != nil { // staying is not going back
			k.Fatal(err)
		}
	}},
	{"MotionNeverMovesBackByUnassigning", func(k *kit) {
		k.user("alice")
		k.user("bob")
		k.ship("A1")
		k.give("alice", "A1")
		if err := k.accept("alice", "A1", 100); err != nil {
			k.Fatal(err)
		}
		s := k.subject("alice")
		t := s.Tokens[0]
		t.OwnerID, t.Owner, t.State = 0, "", tokens.Imported
		t.Last, t.UsedAt = -1, 0 // what a TokenWrite says of the motion does not count
		k.must(tokens.Change{
			Standings: []tokens.StandingWrite{next(s)},
			Tokens:    []tokens.TokenWrite{{Token: t, Expect: t.Version}},
		})
		k.give("bob", "A1")
		if got := k.subject("bob").Tokens[0].Motion; got.Last != 100 || got.UsedAt != 1_700_000_000 {
			k.Errorf("the next owner has the token at %+v", got)
		}
		if err := k.accept("bob", "A1", 99); !errors.Is(err, tokens.ErrConflict) {
			k.Errorf("the next owner used step 99 again: %v", err)
		}
	}},
	{"AStagedCounterIsTheFirstToGuard", func(k *kit) {
		k.user("alice")
		hotp := newToken("H1")
		hotp.Type, hotp.Period, hotp.Last = tokens.HOTP, 0, 500
		batch := k.begin()
		k.stage(batch, hotp)
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch}}})
		k.give("alice", "H1")
		if err := k.accept("alice", "H1", 499); !errors.Is(err, tokens.ErrConflict) {
			k.Errorf("a counter before the first: %v", err)
		}
		if err := k.accept("alice", "H1", 501); err != nil {
			k.Error(err)
		}
	}},
	{"AnUnownedTokensMotionIsConditionalOnItsVersion", func(k *kit) {
		t := k.ship("U1")[0]
		move := func(expect, last int64) tokens.Change {
			return tokens.Change{Motions: []tokens.MotionWrite{{TokenID: t.ID, Expect: expect, Last: last, Drift: 1, UsedAt: 9}}}
		}
		k.must(move(1, 40))
		k.same("motion", k.token("U1").Motion, tokens.Motion{Version: 2, Last: 40, Drift: 1, UsedAt: 9})
		err := k.try(move(1, 41))
		var conflict *tokens.ConflictError
		if !errors.As(err, &conflict) || !slices.Contains(conflict.TokenIDs, t.ID) {
			k.Errorf("a moved version: %v, not a conflict on the token", err)
		}
		k.refuses(tokens.ErrConflict, move(2, 39))
		k.refuses(tokens.ErrInvalid, move(0, 50))
		k.same("motion", k.token("U1").Motion, tokens.Motion{Version: 2, Last: 40, Drift: 1, UsedAt: 9})

		t = k.token("U1") // a TokenWrite beside it is the condition, and moves the version once
		c := move(0, 60)
		c.Tokens = []tokens.TokenWrite{{Token: t, Expect: 2}}
		k.must(c)
		k.same("motion", k.token("U1").Motion, tokens.Motion{Version: 3, Last: 60, Drift: 1, UsedAt: 9})
	}},
	{"TokenWriteLeavesTheMotionAndMovesTheVersion", func(k *kit) {
		t := k.ship("A1")[0]
		k.user("alice")
		k.give("alice", "A1")
		if err := k.accept("alice", "A1", 7); err != nil {
			k.Fatal(err)
		}
		s := k.subject("alice")
		w := s.Tokens[0]
		w.State = tokens.Lost
		w.Last, w.Drift, w.UsedAt = 9999, 9, 9
		w.Wrapped.Blob, w.Binding, w.Wrapped.KEK = []byte("another"), []byte("another"), 2
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Tokens: []tokens.TokenWrite{{Token: w, Expect: w.Version}}})
		got := k.token("A1")
		k.same("motion", got.Motion, tokens.Motion{Version: 3, Last: 7, UsedAt: 1_700_000_000})
		w.Motion = got.Motion
		k.same("token", got, w)
		if got.Created != t.Created {
			k.Error("the token's age has changed")
		}
	}},
	{"AMovedTokenVersionIsAConflict", func(k *kit) {
		k.user("alice")
		k.user("bob")
		t := k.ship("A1")[0]
		k.give("alice", "A1")
		bob := k.subject("bob")
		t.OwnerID, t.State = bob.User.ID, tokens.Active
		err := k.try(tokens.Change{ // bob was to have it, by what was read before
			Standings: []tokens.StandingWrite{next(bob)},
			Tokens:    []tokens.TokenWrite{{Token: t, Expect: t.Version}},
		})
		var conflict *tokens.ConflictError
		if !errors.As(err, &conflict) || !slices.Equal(conflict.TokenIDs, []int64{t.ID}) {
			k.Fatalf("Commit: %v, not a conflict on the token", err)
		}
		k.same("bob", k.subject("bob"), bob)
	}},
	{"NobodysTokensChangeBehindTheOwner", func(k *kit) {
		k.user("alice")
		k.user("bob")
		k.ship("A1", "U1")
		k.give("alice", "A1")
		taken := k.token("A1")
		taken.OwnerID, taken.State = 0, tokens.Imported
		k.refuses(tokens.ErrInvalid, tokens.Change{Tokens: []tokens.TokenWrite{{Token: taken, Expect: taken.Version}}})
		given := k.token("U1")
		given.OwnerID, given.State = k.subject("alice").User.ID, tokens.Active
		k.refuses(tokens.ErrInvalid, tokens.Change{Tokens: []tokens.TokenWrite{{Token: given, Expect: 1}}})
		k.refuses(tokens.ErrInvalid, tokens.Change{
			Standings: []tokens.StandingWrite{next(k.subject("bob"))},
			Tokens:    []tokens.TokenWrite{{Token: given, Expect: 1}},
		})
		k.refuses(tokens.ErrInvalid, tokens.Change{Motions: []tokens.MotionWrite{
			{TokenID: taken.ID, UserID: k.subject("alice").User.ID, Last: 5},
		}})
		if len(k.subject("alice").Tokens) != 1 || k.token("U1").OwnerID != 0 {
			k.Error("a refused change was made")
		}
	}},
	{"AChangeWithoutARecordIsRefused", func(k *kit) {
		k.user("alice")
		before := k.subject("alice")
		err := k.Commit(k.ctx, &tokens.Change{Standings: []tokens.StandingWrite{next(before)}})
		if !errors.Is(err, tokens.ErrInvalid) {
			k.Fatalf("Commit: %v", err)
		}
		k.same("alice", k.subject("alice"), before)
	}},
	{"AUserTwiceIsRefused", func(k *kit) {
		k.user("alice")
		s := k.subject("alice")
		k.refuses(tokens.ErrInvalid, tokens.Change{Standings: []tokens.StandingWrite{next(s), next(s)}})
		skip := next(s)
		skip.Next.Version++
		k.refuses(tokens.ErrInvalid, tokens.Change{Standings: []tokens.StandingWrite{skip}})
		k.refuses(tokens.ErrInvalid, tokens.Change{Users: []tokens.User{*s.User}})
		k.same("alice", k.subject("alice"), s)
	}},
	{"UnstorableTextIsRefused", func(k *kit) {
		for _, bad := range []string{"\xff", "a\x00b"} {
			inUser, inDetail := event(bad, ""), event("", "")
			inDetail.Detail = []audit.Field{{Name: "why", Value: bad}}
			for _, e := range []audit.Event{inUser, inDetail} { // audit.Append would clean them
				r := audit.Record{Chain: k.head.Chain, Seq: k.head.Seq + 1, Event: e}
				r.Hash = audit.Sum(k.head.Hash, r.Chain, r.Seq, &e)
				if err := k.Commit(k.ctx, &tokens.Change{Records: []audit.Record{r}}); !errors.Is(err, tokens.ErrInvalid) {
					k.Errorf("Commit: %v", err)
				}
			}
			u := newUser("default", "alice")
			u.Name = bad
			k.refuses(tokens.ErrInvalid, tokens.Change{NewUsers: []tokens.NewUser{{User: u}}})
		}
	}},
	{"UserRowsChange", func(k *kit) {
		k.user("alice")
		s := k.subject("alice")
		u := *s.User
		u.State, u.PINSalt, u.PINMAC = tokens.UserDisabled, []byte("salt"), []byte{0, 0xFF}
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Users: []tokens.User{u}})
		k.same("alice", *k.subject("alice").User, u)
		s = k.subject("alice")
		u.PINSalt, u.PINMAC = nil, nil
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Users: []tokens.User{u}})
		k.same("alice without a PIN", *k.subject("alice").User, u)
	}},
	{"ATakenNameExists", func(k *kit) {
		k.user("alice")
		u := newUser("default", "ALICE")
		err := k.try(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("default", "bob")}, {User: u}}})
		if !errors.Is(err, tokens.ErrExists) || !strings.Contains(err.Error(), "ALICE") {
			k.Errorf("a taken name: %v", err)
		}
		if k.load(tokens.Ref{Realm: "default", User: "bob"}).Subjects[0] != nil {
			k.Error("bob was made by a commit that was refused")
		}
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("elsewhere", "alice")}}})
	}},
	{"ATokenForAnUnknownUserIsRefused", func(k *kit) {
		t := k.ship("A1")[0]
		t.OwnerID = 1 << 40
		ghost := tokens.StandingWrite{UserID: t.OwnerID, Expect: 1, Next: tokens.Standing{Version: 2}}
		k.refuses(tokens.ErrConflict, tokens.Change{
			Standings: []tokens.StandingWrite{ghost}, Tokens: []tokens.TokenWrite{{Token: t, Expect: 1}},
		})
	}},
	{"LostAcknowledgement", func(k *kit) {
		// The commit was made, but its caller was not told, and makes it again:
		// what it must hear is that the chain moved, not that a version did.
		k.user("alice")
		k.ship("A1")
		k.give("alice", "A1")
		s := k.subject("alice")
		change := tokens.Change{
			Standings: []tokens.StandingWrite{next(s)},
			Motions:   []tokens.MotionWrite{{TokenID: s.Tokens[0].ID, UserID: s.User.ID, Last: 10}},
		}
		old := k.head
		k.must(change)
		k.head, old = old, k.head
		k.refuses(tokens.ErrChainMoved, change)
		t := k.token("A1")
		rare := change
		rare.Motions = nil
		rare.Tokens = []tokens.TokenWrite{{Token: t, Expect: 1}}
		k.refuses(tokens.ErrChainMoved, rare)
		k.refuses(tokens.ErrChainMoved, tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("default", "alice")}}})
		heads, err := k.Heads(k.ctx)
		if err != nil || len(heads) != 1 || heads[0] != old {
			k.Errorf("the head is %+v, %v", heads, err)
		}
		k.head = old
		k.refuses(tokens.ErrConflict, change)
	}},
	{"TimesAreKept", func(k *kit) {
		at := time.Date(2031, 2, 3, 4, 5, 6, 789_123_456, time.FixedZone("", 3600))
		u := newUser("default", "alice")
		u.Created = at
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: u}}})
		if got := k.subject("alice").User.Created; !got.Equal(at.Truncate(time.Microsecond)) || got.Location() != time.UTC {
			k.Errorf("a time came back as %v", got)
		}
	}},
}

var chainTests = []test{
	{"RecordsContinueTheirChain", func(k *kit) {
		k.user("alice")
		s := k.subject("alice")
		change := tokens.Change{Standings: []tokens.StandingWrite{next(s)}}
		head := k.head
		for name, at := range map[string]audit.Head{
			"again":   {Chain: head.Chain, Seq: head.Seq - 1},
			"a gap":   {Chain: head.Chain, Seq: head.Seq + 1},
			"unknown": {Chain: head.Chain + 1000},
		} {
			k.head = at
			if err := k.try(change); !errors.Is(err, tokens.ErrChainMoved) {
				k.Errorf("%s: %v", name, err)
			}
			rare := change
			rare.Users = []tokens.User{*s.User}
			if err := k.try(rare); !errors.Is(err, tokens.ErrChainMoved) {
				k.Errorf("%s, in a rare change: %v", name, err)
			}
		}
		k.head = head
		k.same("alice", k.subject("alice"), s)
		k.must(change, event("alice", ""), event("alice", ""), event("alice", ""))
	}},
	{"AGapAmongTheRecordsIsRefused", func(k *kit) {
		records, _ := audit.Append(k.head, []audit.Event{event("a", ""), event("b", ""), event("c", "")})
		for _, list := range [][]audit.Record{{records[0], records[2]}, {records[0], records[0]}, {records[1], records[0]}} {
			if err := k.Commit(k.ctx, &tokens.Change{Records: list}); !errors.Is(err, tokens.ErrChainMoved) {
				k.Errorf("records %d and %d: %v", list[0].Seq, list[1].Seq, err)
			}
		}
		if heads, err := k.Heads(k.ctx); err != nil || len(heads) != 0 {
			k.Errorf("the heads are %v, %v", heads, err)
		}
	}},
	{"ChainsAreApart", func(k *kit) {
		other := newKit(k.TB, k.Database)
		a, headA := audit.Append(k.head, []audit.Event{event("a", ""), event("b", "")})
		b, headB := audit.Append(other.head, []audit.Event{event("c", "")})
		if err := k.Commit(k.ctx, &tokens.Change{Records: []audit.Record{a[0], b[0], a[1]}}); err != nil {
			k.Fatal(err)
		}
		heads, err := k.Heads(k.ctx)
		if err != nil {
			k.Fatal(err)
		}
		k.same("heads", heads, []audit.Head{headA, headB})
		k.head, other.head = headA, headB
		k.must(tokens.Change{})
		other.must(tokens.Change{})
	}},
}
