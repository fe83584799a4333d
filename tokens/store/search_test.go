package store_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// odd are the pieces of names and serials that quoting, folding and full-text
// queries could stumble over.
var (
	oddNames   = []string{"a", "b", "AB", "ab", "é", "E\u0301", "ß", "ẞ", "ſ", "İ", "ı", "Σ", "ς", "龍", "𝒜", "Ꭰ", "ꭰ", `"`, "'", "%", "_", "*", "-", `\`, "^", "+", "(", ")", ":", "AND", "OR", "NOT", "NEAR", "{", " x", "?", "$1", "\u0301"}
	oddSerials = []string{"a", "A", "b", "AB", "0", "1", "%", "_", "*", "-", "^", "+", "(", ")", ":", "AND", "OR", "NEAR", "{", "?", "$1", "#", ";", "--"}
)

func oddText(pieces []string, min, max int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		s := ""
		for _, p := range rapid.SliceOfN(rapid.SampledFrom(pieces), min, max).Draw(t, "pieces") {
			s += p
		}
		return s
	})
}

// Both databases find what the memory store finds by comparing, page by page.
func searchesLikeMemory(t *testing.T, db *store.DB) {
	ctx := t.Context()
	mem := storetest.NewMemory(t)
	both := []tokens.Database{mem, db}
	heads := make([]audit.Head, len(both))
	for i, d := range both {
		chain, _, err := d.MintChain(ctx)
		if err != nil {
			t.Fatal(err)
		}
		heads[i].Chain = chain
	}
	commit := func(i int, c *tokens.Change) error {
		var next audit.Head
		c.Records, next = audit.Append(heads[i], []audit.Event{{Time: time.Now(), Action: "setup"}})
		err := both[i].Commit(ctx, c)
		if err == nil {
			heads[i] = next
		}
		return err
	}
	round := 0
	rapid.Check(t, func(r *rapid.T) {
		round++
		names := rapid.SliceOfN(oddText(oddNames, 1, 6), 1, 4).Draw(r, "names")
		serials := rapid.SliceOfN(oddText(oddSerials, 1, 8), 1, 6).Draw(r, "serials")
		enrolled := rapid.Bool().Draw(r, "enrolled")
		for i, d := range both {
			var owner *tokens.User
			for _, name := range names {
				key, err := tokens.FoldName(name)
				if err != nil {
					continue
				}
				u := &tokens.User{Realm: "default", Name: name, Key: key, State: tokens.UserEnabled}
				if commit(i, &tokens.Change{NewUsers: []tokens.NewUser{{User: u}}}) == nil {
					owner = u
				}
			}
			var list []tokens.Token
			for _, serial := range serials {
				list = append(list, sampleToken(serial))
			}
			switch {
			case enrolled && owner != nil:
				t := list[0]
				t.OwnerID, t.Owner, t.State, t.Batch = owner.ID, owner.Key, tokens.Active, 0
				_ = commit(i, &tokens.Change{
					NewTokens: []*tokens.Token{&t},
					Standings: []tokens.StandingWrite{{UserID: owner.ID, Expect: 1, Next: tokens.Standing{Version: 2}}},
				})
			default:
				batch, err := d.Begin(ctx, tokens.Batch{Realm: "default"})
				if err != nil {
					r.Fatal(err)
				}
				if _, err := d.Stage(ctx, batch, list); err != nil {
					r.Fatal(err)
				}
				switch round % 4 {
				case 0: // stays staging
				case 1:
					if err := d.Discard(ctx, batch); err != nil {
						r.Fatal(err)
					}
				case 2:
					if err := commit(i, &tokens.Change{Publish: []tokens.Batch{{ID: batch, Published: time.Now()}}}); err != nil {
						r.Fatal(err)
					}
					if _, _, err := d.Remove(ctx, batch, 0, 1000, time.Now()); err != nil {
						r.Fatal(err)
					}
				default:
					if err := commit(i, &tokens.Change{Publish: []tokens.Batch{{ID: batch, Published: time.Now()}}}); err != nil {
						r.Fatal(err)
					}
				}
			}
		}
		for range 8 {
			q := oddText(rapid.SampledFrom([][]string{oddNames, oddSerials}).Draw(r, "kind"), 1, 5).Draw(r, "q")
			limit := rapid.IntRange(1, 5).Draw(r, "limit")
			state := rapid.SampledFrom([]tokens.State{"", "", tokens.Imported, tokens.Active}).Draw(r, "state")
			var answers [2]string
			for i, d := range both {
				var found []string
				for uq := (tokens.UserQuery{Q: q, Limit: limit}); ; {
					page, next, err := d.Users(ctx, uq)
					if err != nil {
						r.Fatal(err)
					}
					for _, u := range page {
						found = append(found, u.Key)
					}
					if uq.After = next; next == 0 {
						break
					}
				}
				found = append(found, "/")
				held := len(found)
				for tq := (tokens.TokenQuery{Q: q, State: state, Limit: limit}); ; {
					page, next, err := d.Tokens(ctx, tq)
					if err != nil {
						r.Fatal(err)
					}
					for _, t := range page {
						found = append(found, t.Serial)
					}
					if tq.After = next; next == 0 {
						break
					}
				}
				slices.Sort(found[held:])
				answers[i] = fmt.Sprintf("%q", found)
			}
			if answers[0] != answers[1] {
				r.Fatalf("a search for %q finds\n%s\nnot\n%s", q, answers[1], answers[0])
			}
		}
	})
}

func TestSQLiteFindsWhatComparingFinds(t *testing.T) {
	searchesLikeMemory(t, openMigrated(t, sqliteURL(t)))
}

func TestPostgresFindsWhatComparingFinds(t *testing.T) {
	searchesLikeMemory(t, openMigrated(t, storetest.Postgres(t)))
}
