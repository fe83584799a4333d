package storetest

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"watchword/tokens"
)

var stageTests = []test{
	{"NothingElseSeesAStagingBatch", func(k *kit) {
		k.user("alice")
		batch := k.begin()
		k.stage(batch, newToken("S1"), newToken("S2"))
		list, _, err := k.Tokens(k.ctx, tokens.TokenQuery{Limit: 10})
		if err != nil || len(list) != 0 {
			k.Errorf("staging tokens are listed: %d, %v", len(list), err)
		}
		if list, _, err = k.Tokens(k.ctx, tokens.TokenQuery{Batch: batch, Serial: "S1", Limit: 10}); err != nil || len(list) != 0 {
			k.Errorf("staging tokens are found: %d, %v", len(list), err)
		}
		if k.load(tokens.Ref{Realm: "default", Serial: "S1"}).Subjects[0] != nil {
			k.Error("a staging token is loaded")
		}
		if batches, err := k.Batches(k.ctx, tokens.BatchQuery{Limit: 10}); err != nil || len(batches) != 0 {
			k.Errorf("a staging batch is listed: %v, %v", batches, err)
		}
		if batches, err := k.Batches(k.ctx, tokens.BatchQuery{ID: batch, Limit: 10}); err != nil || len(batches) != 0 {
			k.Errorf("a staging batch is found: %v, %v", batches, err)
		}
	}},
	{"AStagingTokenCannotChange", func(k *kit) {
		k.user("alice")
		first := k.ship("S0")[0]
		batch := k.begin()
		k.stage(batch, newToken("S1"))
		s := k.subject("alice")
		for id := first.ID + 1; id < first.ID+10; id++ { // one of them is S1's
			t := newToken("S1")
			t.ID, t.Batch, t.OwnerID, t.State = id, batch, s.User.ID, tokens.Active
			k.refuses(tokens.ErrConflict, tokens.Change{
				Standings: []tokens.StandingWrite{next(s)}, Tokens: []tokens.TokenWrite{{Token: t, Expect: 1}},
			})
			k.refuses(tokens.ErrConflict, tokens.Change{Motions: []tokens.MotionWrite{{TokenID: id, Expect: 1, Last: 5}}})
		}
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch}}})
		k.same("motion", k.token("S1").Motion, tokens.Motion{Version: 1, Last: -1})
	}},
	{"PublishingShowsAllAtOnce", func(k *kit) {
		batch := k.begin()
		for i := range 3 {
			k.stage(batch, newToken(serialName(2*i)), newToken(serialName(2*i+1)))
		}
		at := now()
		k.must(tokens.Change{Publish: []tokens.Batch{{
			ID: batch, SHA256: "abcdef", Published: at, Tokens: 6, Rejected: 2, Duplicate: 1,
		}}})
		list, _, err := k.Tokens(k.ctx, tokens.TokenQuery{Batch: batch, Limit: 100})
		if err != nil || len(list) != 6 {
			k.Fatalf("%d tokens are listed, %v", len(list), err)
		}
		for i := range 6 {
			if list[i].Serial != serialName(i) || list[i].Batch != batch {
				k.Errorf("token %d is %+v", i, list[i])
			}
		}
		batches, err := k.Batches(k.ctx, tokens.BatchQuery{ID: batch, Limit: 1})
		if err != nil || len(batches) != 1 {
			k.Fatalf("the batch: %v, %v", batches, err)
		}
		if batches[0].Created.IsZero() {
			k.Error("the batch has no time of its beginning")
		}
		batches[0].Created = time.Time{}
		k.same("batch", batches[0], tokens.Batch{
			ID: batch, Realm: "default", Name: "shipment.csv", Format: "oath-csv", Actor: "key:admin", SHA256: "abcdef",
			Published: at, Tokens: 6, Rejected: 2, Duplicate: 1,
		})
	}},
	{"ASerialIsUniqueInItsRealm", func(k *kit) {
		k.ship("P1")
		other := k.begin()
		k.stage(other, newToken("O1"))
		batch := k.begin()
		abroad := newToken("P1")
		abroad.Realm = "elsewhere"
		got := k.stage(batch, newToken("N1"), newToken("P1"), newToken("O1"), abroad, newToken("N1"), newToken("p1"))
		k.same("created", got, []bool{true, false, false, true, false, true})
		k.same("created again", k.stage(batch, newToken("N1"), newToken("N2")), []bool{false, true})
		present, err := k.Present(k.ctx, "default", []string{"P1", "nothing", "N1", "O1", "P1", "n2"})
		if err != nil {
			k.Fatal(err)
		}
		k.same("present", present, []tokens.Presence{{There: true}, {}, {There: true, Staging: batch}, {There: true, Staging: other}, {There: true}, {}})
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: other}}})
		if present, err = k.Present(k.ctx, "default", []string{"O1", "N1"}); err != nil {
			k.Fatal(err)
		}
		k.same("present, when one was published", present, []tokens.Presence{{There: true}, {There: true, Staging: batch}})
		if present, err = k.Present(k.ctx, "default", nil); err != nil || len(present) != 0 {
			k.Errorf("Present of nothing: %v, %v", present, err)
		}
		if created := k.stage(batch); len(created) != 0 {
			k.Errorf("Stage of nothing: %v", created)
		}
	}},
	{"AnExistingTokenIsNotTouched", func(k *kit) {
		want := k.ship("P1")[0]
		double := newToken("P1")
		double.Wrapped.Blob, double.Digits = []byte("another seed"), 8
		k.stage(k.begin(), double)
		k.same("token", k.token("P1"), want)
	}},
	{"OnlyAStagingBatchTakesTokens", func(k *kit) {
		batch := k.begin()
		k.stage(batch, newToken("S1"))
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batch}}})
		for _, id := range []int64{batch, batch + 1000} {
			if _, err := k.Stage(k.ctx, id, []tokens.Token{newToken("S2")}); !errors.Is(err, tokens.ErrState) {
				k.Errorf("Stage into a batch that is not staging: %v", err)
			}
			k.refuses(tokens.ErrState, tokens.Change{Publish: []tokens.Batch{{ID: id}}})
		}
		if err := k.Discard(k.ctx, batch); !errors.Is(err, tokens.ErrState) {
			k.Errorf("Discard of a published batch: %v", err)
		}
		k.token("S1")
	}},
	{"OnlyImportedTokensAreStaged", func(k *kit) {
		owned, active, text := newToken("S1"), newToken("S1"), newToken("S1")
		owned.OwnerID = k.user("alice").ID
		active.State = tokens.Active
		text.Model = "a\x00b"
		for _, t := range []tokens.Token{owned, active, text} {
			if _, err := k.Stage(k.ctx, k.begin(), []tokens.Token{newToken("S0"), t}); !errors.Is(err, tokens.ErrInvalid) {
				k.Errorf("Stage: %v", err)
			}
		}
		if present, err := k.Present(k.ctx, "default", []string{"S0", "S1"}); err != nil || !slices.Equal(there(present), []bool{false, false}) {
			k.Errorf("a refused Stage left something: %v, %v", present, err)
		}
	}},
	{"DiscardingLeavesNothing", func(k *kit) {
		k.ship("P1")
		batch := k.begin()
		var list []tokens.Token
		for i := range 1200 {
			list = append(list, newToken(serialName(i)))
		}
		k.stage(batch, list...)
		if err := k.Discard(k.ctx, batch); err != nil {
			k.Fatalf("Discard: %v", err)
		}
		if present, err := k.Present(k.ctx, "default", []string{serialName(0), serialName(1199), "P1"}); err != nil ||
			!slices.Equal(there(present), []bool{false, false, true}) {
			k.Errorf("after Discard: %v, %v", present, err)
		}
		if _, err := k.Stage(k.ctx, batch, list[:1]); !errors.Is(err, tokens.ErrState) {
			k.Errorf("Stage into a discarded batch: %v", err)
		}
		if err := k.Discard(k.ctx, batch); !errors.Is(err, tokens.ErrNotFound) {
			k.Errorf("Discard again: %v", err)
		}
		k.refuses(tokens.ErrState, tokens.Change{Publish: []tokens.Batch{{ID: batch}}})
		if again := k.begin(); again == batch {
			k.Error("a batch's number was given again")
		}
	}},
	{"SweepTakesOnlyWhatIsAbandoned", func(k *kit) {
		k.ship("P1")
		abandoned, empty := k.begin(), k.begin()
		k.stage(abandoned, newToken("S1"))
		time.Sleep(30 * time.Millisecond)
		busy := k.begin()
		revived := k.begin()
		line := time.Now()
		time.Sleep(30 * time.Millisecond)
		k.stage(busy, newToken("S2"))
		k.stage(revived, newToken("S3"))
		if n, err := k.Sweep(k.ctx, line); err != nil || n != 2 {
			k.Errorf("Sweep: %d, %v", n, err)
		}
		if err := k.Discard(k.ctx, empty); !errors.Is(err, tokens.ErrNotFound) {
			k.Errorf("the empty batch is still there: %v", err)
		}
		if present, err := k.Present(k.ctx, "default", []string{"P1", "S1", "S2", "S3"}); err != nil ||
			!slices.Equal(there(present), []bool{true, false, true, true}) {
			k.Errorf("after Sweep: %v, %v", present, err)
		}
		if n, err := k.Sweep(k.ctx, line); err != nil || n != 0 {
			k.Errorf("Sweep again: %d, %v", n, err)
		}
		k.stage(busy, newToken("S4"))
	}},
	{"TwoImportsOfTheSameFile", func(k *kit) {
		// Each serial goes to exactly one of them, whatever the order.
		const tokensEach, chunk = 400, 50
		batches := []int64{k.begin(), k.begin(), k.begin()}
		var created atomic.Int32
		var wg sync.WaitGroup
		for w, batch := range batches {
			wg.Go(func() {
				for from := 0; from < tokensEach; from += chunk {
					var list []tokens.Token
					for i := from; i < from+chunk; i++ {
						list = append(list, newToken(serialName(i)))
					}
					if w%2 == 1 {
						slices.Reverse(list)
					}
					got, err := k.Stage(k.ctx, batch, list)
					if err != nil {
						k.Errorf("Stage: %v", err)
						return
					}
					for _, ok := range got {
						if ok {
							created.Add(1)
						}
					}
				}
			})
		}
		wg.Wait()
		if n := created.Load(); n != tokensEach {
			k.Errorf("%d tokens were created of %d", n, tokensEach)
		}
		k.must(tokens.Change{Publish: []tokens.Batch{{ID: batches[0]}, {ID: batches[1]}, {ID: batches[2]}}})
		list, _, err := k.Tokens(k.ctx, tokens.TokenQuery{Limit: 1000})
		if err != nil || len(list) != tokensEach {
			k.Errorf("%d tokens are listed, %v", len(list), err)
		}
	}},
	{"PublishRacesDiscard", func(k *kit) {
		for i := range 5 {
			batch := k.begin()
			k.stage(batch, newToken(serialName(i)))
			var published, discarded error
			var wg sync.WaitGroup
			worker := newKit(k.TB, k.Database)
			wg.Go(func() { published = worker.try(tokens.Change{Publish: []tokens.Batch{{ID: batch}}}) })
			wg.Go(func() { discarded = k.Discard(k.ctx, batch) })
			wg.Wait()
			if (published == nil) == (discarded == nil) {
				k.Fatalf("published: %v, discarded: %v", published, discarded)
			}
			present, err := k.Present(k.ctx, "default", []string{serialName(i)})
			if err != nil || present[0].There != (published == nil) {
				k.Fatalf("published: %v, but present: %v, %v", published, present, err)
			}
		}
	}},
}

// there says which serials a realm has.
func there(present []tokens.Presence) []bool {
	var all []bool
	for _, p := range present {
		all = append(all, p.There)
	}
	return all
}
