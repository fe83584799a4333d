package store_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

const benchUsers = 100_000

// populated is a database with 100,000 users who hold one token each.
func populated(b *testing.B, url string) (*store.DB, *[]tokens.Subject, *audit.Head) {
	b.Helper()
	ctx := context.Background()
	db := openMigrated(b, url)
	chain, _, err := db.MintChain(ctx)
	if err != nil {
		b.Fatal(err)
	}
	head := audit.Head{Chain: chain}
	commit := func(c *tokens.Change) {
		b.Helper()
		var next audit.Head
		c.Records, next = audit.Append(head, []audit.Event{{Time: time.Now(), Action: "setup"}})
		if err := db.Commit(ctx, c); err != nil {
			b.Fatal(err)
		}
		head = next
	}
	batch, err := db.Begin(ctx, tokens.Batch{Realm: "default"})
	if err != nil {
		b.Fatal(err)
	}
	begun := time.Now()
	for from := 0; from < benchUsers; from += 1000 {
		list := make([]tokens.Token, 1000)
		for i := range list {
			list[i] = sampleToken(fmt.Sprintf("S%08d", (from+i)*7919%100_000_007))
		}
		if _, err := db.Stage(ctx, batch, list); err != nil {
			b.Fatal(err)
		}
	}
	b.Logf("staged %.0f tokens/s", benchUsers/time.Since(begun).Seconds())
	commit(&tokens.Change{Publish: []tokens.Batch{{ID: batch}}})

	subjects := make([]tokens.Subject, 0, benchUsers)
	after := int64(0)
	for from := 0; from < benchUsers; from += 1000 {
		list, _, err := db.Tokens(ctx, tokens.TokenQuery{After: after, Limit: 1000})
		if err != nil || len(list) != 1000 {
			b.Fatal(len(list), err)
		}
		after = list[999].ID
		c := &tokens.Change{}
		for i := range list {
			c.NewUsers = append(c.NewUsers, tokens.NewUser{User: &tokens.User{Realm: "default", Name: key(from + i), Key: key(from + i), State: tokens.UserEnabled}})
		}
		commit(c)
		give := &tokens.Change{}
		for i := range list {
			u := c.NewUsers[i].User
			list[i].OwnerID, list[i].State = u.ID, tokens.Active
			give.Tokens = append(give.Tokens, tokens.TokenWrite{Token: list[i], Expect: 1})
			give.Standings = append(give.Standings, tokens.StandingWrite{UserID: u.ID, Expect: 1, Next: tokens.Standing{Version: 2}})
			subjects = append(subjects, tokens.Subject{User: u, Standing: tokens.Standing{Version: 2}, Tokens: list[i : i+1]})
		}
		commit(give)
	}
	return db, &subjects, &head
}

func key(i int) string { return fmt.Sprintf("user%06d", i*7919%1_000_003) }

// batchOf picks n different users.
func batchOf(subjects []tokens.Subject, n int) []*tokens.Subject {
	picked := make([]*tokens.Subject, 0, n)
	seen := make(map[int64]bool, n)
	for len(picked) < n {
		s := &subjects[rand.IntN(len(subjects))]
		if !seen[s.User.ID] {
			seen[s.User.ID] = true
			picked = append(picked, s)
		}
	}
	return picked
}

func benchmark(b *testing.B, url string) {
	db, all, head := populated(b, url)
	ctx := context.Background()
	for _, size := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("Load/%d", size), func(b *testing.B) {
			used := cpu()
			for b.Loop() {
				refs := make([]tokens.Ref, size)
				for i, s := range batchOf(*all, size) {
					refs[i] = tokens.Ref{Realm: "default", User: s.User.Key}
				}
				if view, err := db.Load(ctx, refs); err != nil || view.Subjects[size-1] == nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "users/s")
			b.ReportMetric(float64((cpu()-used).Nanoseconds())/float64(b.N*size), "cpu-ns/user")
		})
		b.Run(fmt.Sprintf("Commit/%d", size), func(b *testing.B) {
			used := cpu()
			for b.Loop() {
				c := &tokens.Change{}
				events := make([]audit.Event, 0, size)
				picked := batchOf(*all, size)
				for _, s := range picked {
					t := &s.Tokens[0]
					next := s.Standing
					next.Version++
					c.Standings = append(c.Standings, tokens.StandingWrite{UserID: s.User.ID, Expect: s.Version, Next: next})
					c.Motions = append(c.Motions, tokens.MotionWrite{TokenID: t.ID, UserID: s.User.ID, Last: t.Last + 1, UsedAt: 1_700_000_000})
					events = append(events, audit.Event{
						Time: time.Now(), Action: "verify", Outcome: "accept", Realm: "default", User: s.User.Key, Serial: t.Serial,
						Actor: "client:vpn", Client: "vpn", Source: "192.0.2.1:49152", Reason: "code accepted",
						Detail: []audit.Field{{Name: "step", Value: "57000000"}},
					})
				}
				var next audit.Head
				c.Records, next = audit.Append(*head, events)
				if err := db.Commit(ctx, c); err != nil {
					b.Fatal(err)
				}
				*head = next
				for _, s := range picked {
					s.Version++
					s.Tokens[0].Last++
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "users/s")
			b.ReportMetric(float64((cpu()-used).Nanoseconds())/float64(b.N*size), "cpu-ns/user")
		})
	}
}

func BenchmarkSQLite(b *testing.B)   { benchmark(b, sqliteURL(b)) }
func BenchmarkPostgres(b *testing.B) { benchmark(b, storetest.Postgres(b)) }

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
