package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"watchword/hsm"
	"watchword/tokens"
	"watchword/tokens/audit"
)

var journalTests = []test{
	{"ChainsAreNeverMintedTwice", func(k *kit) {
		var mu sync.Mutex
		minted := []int64{k.head.Chain}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				id, _, err := k.MintChain(k.ctx)
				if err != nil {
					k.Errorf("MintChain: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				minted = append(minted, id)
			})
		}
		wg.Wait()
		slices.Sort(minted)
		chains, err := k.Chains(k.ctx)
		if err != nil {
			k.Fatal(err)
		}
		k.same("chains", chains, minted)
		if len(slices.Compact(minted)) != 9 {
			k.Errorf("a chain was minted twice: %v", minted)
		}
	}},
	{"MintingAnswersTheOtherHeads", func(k *kit) {
		k.must(tokens.Change{}, event("a", ""), event("b", ""))
		empty := newKit(k.TB, k.Database)
		id, heads, err := k.MintChain(k.ctx)
		if err != nil || id == empty.head.Chain {
			k.Fatalf("MintChain: %d, %v", id, err)
		}
		k.same("heads", heads, []audit.Head{k.head})
		if heads, err = k.Heads(k.ctx); err != nil {
			k.Fatal(err)
		}
		k.same("heads", heads, []audit.Head{k.head})
	}},
	{"RecordsComeBackAsHashed", func(k *kit) {
		odd := audit.Event{
			Time: time.Unix(0, 0).UTC(), Action: "a", Outcome: "b", Realm: "réalm", User: "<ü>&\u2028", Serial: `"'\`, Actor: "{,}",
			Client: "NULL", Source: "[2001:db8::1]:1", Reason: "a\nb\tc 🔑 $1 ?", Detail: []audit.Field{{Name: "<é>", Value: `"\u0000"`}, {}, {Name: "n"}},
		}
		early := event("alice", "A1")
		early.Time = time.Date(1969, 1, 2, 3, 4, 5, 6000, time.UTC)
		k.must(tokens.Change{}, odd, event("alice", "A1"), early, audit.Event{Time: now()})
		var prev [32]byte
		n := int64(0)
		err := k.Walk(k.ctx, k.head.Chain, func(r *audit.Record) error {
			n++
			if r.Seq != n || r.Chain != k.head.Chain || r.ID == 0 {
				return fmt.Errorf("record %d is %+v", n, r)
			}
			if sum := audit.Sum(prev, r.Chain, r.Seq, &r.Event); sum != r.Hash {
				return fmt.Errorf("record %d has another hash than it was stored with: %+v", n, r)
			}
			prev = r.Hash
			return nil
		})
		if err != nil || n != 4 || prev != k.head.Hash {
			k.Errorf("Walk: %d records, %v", n, err)
		}
	}},
	{"RecordsByActorPolicyAndTime", func(k *kit) {
		from := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
		for i := range 120 {
			e := event([]string{"alice", "bob", ""}[i%3], "A1")
			e.Time = from.Add(time.Duration(i) * time.Hour)
			if i%10 == 7 {
				e.Time = e.Time.Add(-tokens.ClockDisorder + time.Microsecond) // of a node whose clock is behind
			}
			e.Actor = []string{"key:a", "key:b"}[i/3%2]
			if i%4 == 0 {
				e.Action = "token.assign"
			}
			e.Detail = []audit.Field{{Name: "note", Value: `p1,","value":"p_1,`}}
			e.Policy = []string{"", "p1", "p-1,p1,q", "p11", "xp1", "p_1"}[i%6]
			k.must(tokens.Change{}, e)
		}
		var all []audit.Record
		if err := k.Walk(k.ctx, k.head.Chain, func(r *audit.Record) error { all = append(all, *r); return nil }); err != nil {
			k.Fatal(err)
		}
		for mask := range 1 << 7 {
			pick := func(i int, s string) string {
				if mask&(1<<i) == 0 {
					return ""
				}
				return s
			}
			q := tokens.RecordQuery{Actor: pick(0, "key:a"), User: pick(2, "alice"), Action: pick(3, "verify"), Serial: pick(6, "A1"), Limit: 7}
			if mask&(1<<1) != 0 {
				q.Policy = []string{"p1", "p_1", "q", "value"}[mask%4]
			}
			if mask&(1<<4) != 0 {
				q.Since = from.Add(27 * time.Hour)
			}
			if mask&(1<<5) != 0 {
				q.Until = from.Add(67*time.Hour - tokens.ClockDisorder + time.Microsecond)
			}
			var want, got []int64
			for _, r := range slices.Backward(all) {
				if q.Selects(&r) {
					want = append(want, r.Seq)
				}
			}
			for asked := q; ; {
				page, next, err := k.Records(k.ctx, asked)
				if err != nil {
					k.Fatal(err)
				}
				for _, r := range page {
					got = append(got, r.Seq)
				}
				if asked.Before = next; next == 0 {
					break
				}
			}
			k.same(fmt.Sprintf("records of %+v", q), got, want)
			got = got[:0]
			for after, more := int64(0), true; more; more = after != 0 {
				page, next, err := k.Onward(k.ctx, q, after)
				if err != nil {
					k.Fatal(err)
				}
				for _, r := range page {
					got = append(got, r.Seq)
				}
				after = next
			}
			slices.Reverse(want)
			k.same(fmt.Sprintf("records from the first on of %+v", q), got, want)
		}
	}},
	{"ACutRemovesTheOldestAndLeavesTheRest", func(k *kit) {
		k.user("alice")
		for range 9 {
			k.must(tokens.Change{}, event("alice", "A1"), event("bob", ""))
		}
		var all []audit.Record
		if err := k.Walk(k.ctx, k.head.Chain, func(r *audit.Record) error { all = append(all, *r); return nil }); err != nil {
			k.Fatal(err)
		}
		of := func(user string) (seqs []int64) {
			for q := (tokens.RecordQuery{User: user, Limit: 3}); ; {
				page, next, err := k.Records(k.ctx, q)
				if err != nil {
					k.Fatal(err)
				}
				for _, r := range page {
					seqs = append(seqs, r.Seq)
				}
				if q.Before = next; next == 0 {
					return seqs
				}
			}
		}
		from := func(list []int64, seq int64) []int64 {
			return slices.DeleteFunc(slices.Clone(list), func(s int64) bool { return s <= seq })
		}
		alice, bob := of("alice"), of("bob")
		cut := all[len(all)-8]
		heads := []audit.Head{{Chain: cut.Chain, Seq: cut.Seq, Hash: cut.Hash}, {Chain: cut.Chain + 1000, Seq: 5}}
		removed, after := 0, int64(0)
		for {
			n, end, err := k.Cut(k.ctx, heads, after, all[len(all)-1].ID, 3)
			if err != nil {
				k.Fatal(err)
			}
			if n > 3 {
				k.Errorf("%d removed at once", n)
			}
			if removed += n; end == 0 {
				break
			}
			after = end
			of("alice") // half of it is as good as all of it
		}
		k.same("removed", int64(removed), cut.Seq)
		k.same("records of alice", of("alice"), from(alice, cut.Seq))
		k.same("records of bob", of("bob"), from(bob, cut.Seq))
		if heads, err := k.Heads(k.ctx); err != nil || !slices.Contains(heads, k.head) {
			k.Errorf("the heads are %v, %v", heads, err)
		}
		k.must(tokens.Change{}, event("alice", "A1"))
		k.same("records of alice", of("alice"), append([]int64{k.head.Seq}, from(alice, cut.Seq)...))
		if n, end, err := k.Cut(k.ctx, heads, 0, all[len(all)-1].ID, 1000); err != nil || n != 0 || end == 0 {
			k.Errorf("once more: %d, %d, %v", n, end, err)
		}
	}},
	{"RecordsNewestFirst", func(k *kit) {
		for i := range 4 {
			bob := event("bob", "B1")
			bob.Outcome, bob.Realm = "reject", "abroad"
			assign := event("alice", "A2")
			assign.Action = "token.assign"
			k.must(tokens.Change{}, event("alice", "A1"), bob, event("", ""), assign)
			_ = i
		}
		count := func(q tokens.RecordQuery) int {
			var last int64
			n := 0
			q.Limit = 3
			for {
				page, next, err := k.Records(k.ctx, q)
				if err != nil {
					k.Fatal(err)
				}
				for _, r := range page {
					if last != 0 && r.ID >= last {
						k.Errorf("record %d comes after %d", r.ID, last)
					}
					last = r.ID
					if q.User != "" && r.User != q.User || q.Realm != "" && r.Realm != q.Realm ||
						q.Serial != "" && r.Serial != q.Serial || q.Outcome != "" && r.Outcome != q.Outcome {
						k.Errorf("%+v found %+v", q, r)
					}
					n++
				}
				if next == 0 {
					return n
				}
				q.Before = next
			}
		}
		for _, c := range []struct {
			q    tokens.RecordQuery
			want int
		}{
			{tokens.RecordQuery{}, 16},
			{tokens.RecordQuery{User: "alice"}, 8},
			{tokens.RecordQuery{User: "Alice"}, 0},
			{tokens.RecordQuery{User: "bob", Realm: "abroad"}, 4},
			{tokens.RecordQuery{User: "bob", Realm: "default"}, 0},
			{tokens.RecordQuery{Realm: "default"}, 12},
			{tokens.RecordQuery{Serial: "A2"}, 4},
			{tokens.RecordQuery{Action: "token.assign"}, 4},
			{tokens.RecordQuery{Outcome: "reject"}, 4},
			{tokens.RecordQuery{User: "alice", Action: "verify", Outcome: "accept", Serial: "A1"}, 4},
			{tokens.RecordQuery{User: "\xff"}, 0},
		} {
			if n := count(c.q); n != c.want {
				k.Errorf("%+v finds %d records, not %d", c.q, n, c.want)
			}
		}
	}},
	{"AUsersHistoryIsWhole", func(k *kit) {
		// Also of before the user was made, of several realms, of records that
		// come with a standing or without one, several in a commit.
		abroad := event("alice", "X")
		abroad.Realm = "abroad"
		k.must(tokens.Change{}, event("alice", "1"), abroad)
		k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("default", "alice")}}}, event("alice", "2"))
		k.user("bob")
		for i := range 3 {
			k.must(tokens.Change{Standings: []tokens.StandingWrite{next(k.subject("alice")), next(k.subject("bob"))}},
				event("alice", "3"), event("bob", "B"), event("alice", "4"), event("nobody", ""))
			k.must(tokens.Change{}, event("bob", "B"), event("alice", "5"))
			k.must(tokens.Change{Standings: []tokens.StandingWrite{next(k.subject("alice"))}}, event("bob", "B"), abroad)
			if i == 1 {
				k.must(tokens.Change{NewUsers: []tokens.NewUser{{User: newUser("abroad", "alice")}}}, event("", ""))
				k.refuses(tokens.ErrConflict, tokens.Change{
					Standings: []tokens.StandingWrite{{UserID: k.subject("bob").User.ID, Expect: 99, Next: tokens.Standing{Version: 100}}},
				}, event("alice", "never"), abroad)
			}
		}
		history := func(q tokens.RecordQuery) string {
			var b strings.Builder
			for {
				page, next, err := k.Records(k.ctx, q)
				if err != nil {
					k.Fatal(err)
				}
				for _, r := range page {
					b.WriteString(r.Serial)
				}
				if next == 0 {
					return b.String()
				}
				q.Before = next
			}
		}
		for _, limit := range []int{1, 2, 3, 7, 100} {
			for _, c := range []struct {
				q    tokens.RecordQuery
				want string
			}{
				{tokens.RecordQuery{User: "alice"}, "X543X543X5432X1"},
				{tokens.RecordQuery{User: "alice", Realm: "default"}, "54354354321"},
				{tokens.RecordQuery{User: "alice", Realm: "abroad"}, "XXXX"},
				{tokens.RecordQuery{User: "alice", Serial: "4"}, "444"},
				{tokens.RecordQuery{User: "alice", Realm: "default", Serial: "1"}, "1"},
				{tokens.RecordQuery{User: "bob", Realm: "default"}, "BBBBBBBBB"},
				{tokens.RecordQuery{User: "nobody", Realm: "default", Action: "verify"}, ""},
				{tokens.RecordQuery{User: "nobody", Realm: "nowhere"}, ""},
			} {
				c.q.Limit = limit
				k.same(fmt.Sprintf("history %+v", c.q), history(c.q), c.want)
			}
		}
		if list, _, err := k.Records(k.ctx, tokens.RecordQuery{User: "nobody", Limit: 10}); err != nil || len(list) != 3 {
			k.Errorf("nobody has %d records, %v", len(list), err)
		}
	}},
	{"WalkPagesAndStops", func(k *kit) {
		const n = 2500
		for range n / 500 {
			var events []audit.Event
			for range 500 {
				events = append(events, event("alice", "A1"))
			}
			k.must(tokens.Change{}, events...)
		}
		other := newKit(k.TB, k.Database)
		other.must(tokens.Change{})
		walked := int64(0)
		if err := k.Walk(k.ctx, k.head.Chain, func(r *audit.Record) error {
			walked++
			if r.Seq != walked || r.Chain != k.head.Chain {
				return fmt.Errorf("record %d of chain %d is number %d", r.Seq, r.Chain, walked)
			}
			return nil
		}); err != nil || walked != n {
			k.Errorf("Walk: %d records, %v", walked, err)
		}
		stop := errors.New("enough")
		walked = 0
		if err := k.Walk(k.ctx, k.head.Chain, func(*audit.Record) error {
			walked++
			if walked == 1500 {
				return stop
			}
			return nil
		}); err != stop || walked != 1500 {
			k.Errorf("Walk that is stopped: %d records, %v", walked, err)
		}
		if err := k.Walk(k.ctx, 1<<40, func(*audit.Record) error { return stop }); err != nil {
			k.Errorf("Walk of no chain: %v", err)
		}
	}},
}

var setupTests = []test{
	{"OneHoldsTheLock", func(k *kit) {
		unlock, err := k.Lock(k.ctx)
		if err != nil {
			k.Fatalf("Lock: %v", err)
		}
		short, cancel := context.WithTimeout(k.ctx, 150*time.Millisecond)
		defer cancel()
		if again, err := k.Lock(short); err == nil {
			k.Errorf("the lock was taken twice: %v", again())
		} else if !errors.Is(err, tokens.ErrUnavailable) {
			k.Errorf("Lock: %v", err)
		}
		waited := make(chan error, 1)
		go func() {
			unlock, err := k.Lock(k.ctx)
			if err == nil {
				err = unlock()
			}
			waited <- err
		}()
		select {
		case err := <-waited:
			k.Fatalf("the lock was had while another held it: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		if err := unlock(); err != nil {
			k.Errorf("unlock: %v", err)
		}
		if err := unlock(); err != nil {
			k.Errorf("unlock again: %v", err)
		}
		if err := <-waited; err != nil {
			k.Errorf("the one that waited: %v", err)
		}
	}},
	{"MigratingAgainChangesNothing", func(k *kit) {
		k.user("alice")
		unlock, err := k.Lock(k.ctx)
		if err != nil {
			k.Fatal(err)
		}
		if err := k.Migrate(k.ctx); err != nil {
			k.Errorf("Migrate under the lock: %v", err)
		}
		if err := unlock(); err != nil {
			k.Fatal(err)
		}
		if err := k.Migrate(k.ctx); err != nil {
			k.Errorf("Migrate: %v", err)
		}
		k.subject("alice")
	}},
	{"HSMKeysAreRemembered", func(k *kit) {
		if keys, err := k.HSMKeys(k.ctx); err != nil || len(keys) != 0 {
			k.Fatalf("a new database records HSM keys: %v, %v", keys, err)
		}
		want := []hsm.KeyRecord{
			{Name: hsm.KeyAudit, Version: 1, ID: []byte{0, 1}, Check: []byte{0xFF}},
			{Name: hsm.KeyKEK, Version: 1, ID: []byte("kek"), Check: []byte("check")},
			{Name: hsm.KeyKEK, Version: 4_000_000_000, ID: []byte("kek2"), Check: []byte("check2")},
		}
		if err := k.AddHSMKeys(k.ctx, []hsm.KeyRecord{want[2], want[0], want[1]}); err != nil {
			k.Fatalf("AddHSMKeys: %v", err)
		}
		fresh := hsm.KeyRecord{Name: hsm.KeyPIN, Version: 1, ID: []byte("p"), Check: []byte("p")}
		if err := k.AddHSMKeys(k.ctx, []hsm.KeyRecord{fresh, want[0]}); !errors.Is(err, tokens.ErrExists) {
			k.Errorf("a key recorded again: %v", err)
		}
		keys, err := k.HSMKeys(k.ctx)
		if err != nil {
			k.Fatal(err)
		}
		k.same("keys", keys, want)
	}},
	{"DurabilityIsKnown", func(k *kit) {
		warnings, _, err := k.Durability(k.ctx)
		if err != nil {
			k.Fatalf("Durability: %v", err)
		}
		for _, w := range warnings {
			k.Logf("warning: %s", w)
		}
	}},
}
