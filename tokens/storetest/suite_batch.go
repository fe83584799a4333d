package storetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"watchword/tokens"
)

// granted is a staged token as it is handed to a user.
func granted(serial string, owner int64) tokens.Token {
	t := newToken(serial)
	t.State, t.OwnerID, t.Binding = tokens.Active, owner, slices.Repeat([]byte{7, byte(owner)}, 16)
	return t
}

func (k *kit) grant(batch int64, users []tokens.User, list ...tokens.Token) {
	k.Helper()
	if err := k.Grant(k.ctx, batch, users, list); err != nil {
		k.Fatalf("Grant: %v", err)
	}
}

func (k *kit) tally(batch int64) tokens.Tally {
	k.Helper()
	tally, err := k.Tally(k.ctx, batch)
	if err != nil {
		k.Fatalf("Tally: %v", err)
	}
	return tally
}

func (k *kit) batch(id int64) tokens.Batch {
	k.Helper()
	list, err := k.Batches(k.ctx, tokens.BatchQuery{ID: id, Limit: 1})
	if err != nil || len(list) != 1 {
		k.Fatalf("batch %d: %v, %v", id, list, err)
	}
	return list[0]
}

var batchTests = []test{
	{"HintsAreListedAndNotLoaded", func(k *kit) {
		batch := k.begin()
		hinted := newToken("H1")
		hinted.Hint = `corp\é alice`
		k.stage(batch, hinted, newToken("H2"))
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch}}})
		k.same("hint", k.token("H1").Hint, hinted.Hint)
		k.same("no hint", k.token("H2").Hint, "")
		k.same("hint as loaded", k.load(tokens.Ref{Realm: "default", Serial: "H1"}).Subjects[0].Tokens[0].Hint, "")
		bad := newToken("H3")
		bad.Hint = "a\x00b"
		if _, err := k.Stage(k.ctx, k.begin(), []tokens.Token{bad}); !errors.Is(err, tokens.ErrInvalid) {
			k.Errorf("a hint that is no text: %v", err)
		}
	}},
	{"ReservedUsersAreNobodyElses", func(k *kit) {
		seen := map[int64]bool{}
		note := func(id int64) {
			k.Helper()
			if id < 1 || seen[id] {
				k.Errorf("ID %d is given twice, or is none", id)
			}
			seen[id] = true
		}
		for i := range 3 {
			note(k.user(fmt.Sprint("before", i)).ID)
			ids, err := k.Reserve(k.ctx, 3)
			if err != nil || len(ids) != 3 {
				k.Fatalf("Reserve: %v, %v", ids, err)
			}
			for _, id := range ids {
				note(id)
			}
		}
		if ids, err := k.Reserve(k.ctx, 0); err != nil || len(ids) != 0 {
			k.Errorf("Reserve of nothing: %v, %v", ids, err)
		}
	}},
	{"PublishingHandsOut", func(k *kit) {
		k.user("alice")
		s := k.subject("alice")
		batch := k.begin()
		k.stage(batch, newToken("G1"), newToken("G2"), newToken("G3"))
		ids, err := k.Reserve(k.ctx, 2)
		if err != nil {
			k.Fatal(err)
		}
		wrong, bob := *newUser("default", "wrong"), *newUser("default", "Bob")
		wrong.ID, bob.ID = ids[0], ids[1]
		// What was noted before is replaced.
		k.grant(batch, []tokens.User{wrong}, granted("G1", wrong.ID), granted("G3", wrong.ID))
		waits := granted("G2", bob.ID)
		waits.State = tokens.Pending
		k.grant(batch, []tokens.User{bob}, granted("G1", s.User.ID), waits)
		if k.load(tokens.Ref{Realm: "default", User: "bob"}).Subjects[0] != nil {
			k.Error("a user is there before the batch is published")
		}
		k.same("alice before", len(k.subject("alice").Tokens), 0)

		stale := next(s)
		stale.Expect, stale.Next.Version = s.Version+1, s.Version+2
		k.refuses(tokens.ErrConflict, tokens.Change{Standings: []tokens.StandingWrite{stale}, Publish: []tokens.Batch{{ID: batch}}})
		k.same("alice after a conflict", len(k.subject("alice").Tokens), 0)

		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(s)}, Publish: []tokens.Batch{{ID: batch, Tokens: 3}}})
		for name, serial := range map[string]string{"alice": "G1", "bob": "G2"} {
			owner := k.subject(name)
			if len(owner.Tokens) != 1 {
				k.Fatalf("%s holds %d tokens", name, len(owner.Tokens))
			}
			got := owner.Tokens[0]
			want := granted(serial, owner.User.ID)
			want.ID, want.Owner, want.Batch, want.Created = got.ID, name, batch, got.Created
			want.Version = 2
			if serial == waits.Serial {
				want.State = waits.State
			}
			k.same("token of "+name, got, want)
			if err := k.accept(name, serial, 77); err != nil {
				k.Errorf("%s cannot use the token: %v", name, err)
			}
		}
		k.same("bob", *k.subject("bob").User, bob)
		k.same("bob's version", k.subject("bob").Version, int64(2)) // 1, and one accept
		k.same("the other token", k.token("G3").State, tokens.Imported)
		if k.load(tokens.Ref{Realm: "default", User: "wrong"}).Subjects[0] != nil {
			k.Error("a user is there whom the last Grant did not name")
		}
	}},
	{"PublishingFailsWhereANameWasTaken", func(k *kit) {
		batch := k.begin()
		k.stage(batch, newToken("G1"))
		ids, err := k.Reserve(k.ctx, 1)
		if err != nil {
			k.Fatal(err)
		}
		bob := *newUser("default", "bob")
		bob.ID = ids[0]
		k.grant(batch, []tokens.User{bob}, granted("G1", bob.ID))
		k.user("bob")
		if err := k.try(tokens.Change{Publish: []tokens.Batch{{ID: batch}}}); !errors.Is(err, tokens.ErrUnavailable) {
			k.Fatalf("published over a name that was taken: %v", err)
		}
		k.same("bob", len(k.subject("bob").Tokens), 0)
		if list, _, err := k.Tokens(k.ctx, tokens.TokenQuery{Limit: 10}); err != nil || len(list) != 0 {
			k.Errorf("tokens are there: %v, %v", list, err)
		}
		if err := k.Discard(k.ctx, batch); err != nil {
			k.Errorf("Discard: %v", err)
		}
		k.user("carol") // the numbers go on
	}},
	{"DiscardingForgetsWhatWasGranted", func(k *kit) {
		alice := k.user("alice")
		batch := k.begin()
		k.stage(batch, newToken("G1"))
		k.grant(batch, nil, granted("G1", alice.ID))
		if err := k.Discard(k.ctx, batch); err != nil {
			k.Fatalf("Discard: %v", err)
		}
		k.same("alice", len(k.subject("alice").Tokens), 0)
		if err := k.Grant(k.ctx, batch, nil, nil); !errors.Is(err, tokens.ErrState) {
			k.Errorf("Grant after Discard: %v", err)
		}
	}},
	{"OnlyABatchesOwnTokensAreGranted", func(k *kit) {
		alice := k.user("alice")
		k.ship("P1")
		batch := k.begin()
		k.stage(batch, newToken("G1"))
		for _, serial := range []string{"P1", "none"} {
			if err := k.Grant(k.ctx, batch, nil, []tokens.Token{granted("G1", alice.ID), granted(serial, alice.ID)}); !errors.Is(err, tokens.ErrNotFound) {
				k.Errorf("Grant of %s: %v", serial, err)
			}
		}
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch}}})
		if err := k.Grant(k.ctx, batch, nil, nil); !errors.Is(err, tokens.ErrState) {
			k.Errorf("Grant after publishing: %v", err)
		}
	}},
	{"TallyCountsWhatIsThere", func(k *kit) {
		k.user("alice")
		batch := k.begin()
		var list []tokens.Token
		for i := range 5 {
			t := newToken(serialName(i))
			if i == 4 {
				t.Model = "another"
			}
			list = append(list, t)
		}
		k.stage(batch, list...)
		k.same("staging", k.tally(batch), tokens.Tally{States: map[tokens.State]int{}})
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch, Tokens: 5}}})
		k.ship("other")
		k.give("alice", serialName(1))
		t := k.token(serialName(2))
		k.must(tokens.Change{Motions: []tokens.MotionWrite{{TokenID: t.ID, Expect: 1, Last: 5}}}) // resynchronised
		k.same("tally", k.tally(batch), tokens.Tally{
			States: map[tokens.State]int{tokens.Imported: 4, tokens.Active: 1}, Fresh: 3,
			Models: []tokens.ModelCount{{Model: "Model É", Tokens: 4}, {Model: "another", Tokens: 1}},
		})
	}},
	{"UndoingTakesOnlyWhatNeverChanged", func(k *kit) {
		k.user("alice")
		first := k.ship("U1", "U2", "U3", "U4", "U5")
		k.ship("other")
		batch := first[0].Batch
		k.give("alice", "U1")
		k.give("alice", "U2")
		back := k.token("U2") // given back: its codes that were used stay used
		back.State, back.OwnerID, back.Owner = tokens.Imported, 0, ""
		k.must(tokens.Change{Standings: []tokens.StandingWrite{next(k.subject("alice"))}, Tokens: []tokens.TokenWrite{{Token: back, Expect: back.Version}}})
		revoked := k.token("U3")
		revoked.State, revoked.Wrapped.Blob = tokens.Revoked, nil
		k.must(tokens.Change{Tokens: []tokens.TokenWrite{{Token: revoked, Expect: 1}}})
		at := now()
		last := int64(0)
		for i, want := range []int{0, 1, 1, 0} { // U1 and U2, U3 and U4, U5, none
			n, upTo, err := k.Remove(k.ctx, batch, last, 2, at.Add(time.Duration(i)*time.Second))
			if err != nil || n != want || (upTo == 0) != (i == 3) || i < 2 && upTo != first[2*i+1].ID {
				k.Errorf("Remove: %d up to %d, %v, want %d", n, upTo, err, want)
			}
			last = upTo
		}
		k.same("left", k.serials(tokens.TokenQuery{}), []string{"U1", "U2", "U3", "other"})
		b := k.batch(batch)
		k.same("removed", b.Removed, 2)
		k.same("undone", b.Undone, at)
		k.same("tokens", b.Tokens, 5)
		if present, err := k.Present(k.ctx, "default", []string{"U4", "U1"}); err != nil || present[0].There || !present[1].There {
			k.Errorf("present: %v, %v", present, err)
		}
		for _, id := range []int64{batch + 1000, k.begin()} {
			if _, _, err := k.Remove(k.ctx, id, 0, 10, at); !errors.Is(err, tokens.ErrNotFound) {
				k.Errorf("Remove of a batch that is not published: %v", err)
			}
		}
	}},
	{"UndoingRacesAssigning", func(k *kit) {
		// A token is assigned or removed, never both, and whoever comes too late is
		// told: by a conflict, and not by a fault.
		const n = 60
		k.user("alice")
		var serials []string
		for i := range n {
			serials = append(serials, serialName(i))
		}
		list := k.ship(serials...)
		owner := k.subject("alice").User.ID
		var gone, given atomic.Int32
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				last := int64(0)
				for range 4 * n {
					m, upTo, err := k.Remove(k.ctx, list[0].Batch, last, 2, now())
					if err != nil {
						k.Errorf("Remove: %v", err)
						return
					}
					gone.Add(int32(m))
					last = upTo // zero begins anew
				}
			})
		}
		worker := newKit(k.TB, k.Database)
		wg.Go(func() {
			for i := n - 1; i >= 0; i-- {
				t := list[i]
				t.OwnerID, t.Owner, t.State = owner, "alice", tokens.Suspended
				// Without MaxTokensPerUser in the way: revoked at once by a second write.
				err := worker.try(tokens.Change{
					Standings: []tokens.StandingWrite{next(worker.subject("alice"))},
					Tokens:    []tokens.TokenWrite{{Token: t, Expect: 1}},
				})
				if errors.Is(err, tokens.ErrConflict) {
					continue
				}
				if err != nil {
					k.Errorf("assigning: %v", err)
					return
				}
				given.Add(1)
				t.State, t.OwnerID, t.Owner, t.Wrapped.Blob = tokens.Revoked, 0, "", nil
				worker.must(tokens.Change{
					Standings: []tokens.StandingWrite{next(worker.subject("alice"))},
					Tokens:    []tokens.TokenWrite{{Token: t, Expect: 2}},
				})
			}
		})
		wg.Wait()
		if gone.Load()+given.Load() != n {
			k.Errorf("%d tokens were removed and %d given, of %d", gone.Load(), given.Load(), n)
		}
		left := k.tally(list[0].Batch)
		if left.Fresh != 0 || left.States[tokens.Revoked] != int(given.Load()) {
			k.Errorf("%d were given, and there are %+v", given.Load(), left)
		}
		k.same("removed", k.batch(list[0].Batch).Removed, int(gone.Load()))
	}},
}
