package tokens_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// site is an installation on a real database: one or more servers, tokens and users.
type site struct {
	testing.TB
	nodes  []*tokens.Service
	db     *store.DB
	admin  tokens.Principal
	tokens []*siteToken
	users  []string
}

// siteToken is a token with the next counter that its owner would show.
type siteToken struct {
	*device
	next atomic.Int64
	lost atomic.Bool // marking it lost has returned, and nobody resumes it
}

// newSite opens so many servers on a database, each with connections of its own.
func newSite(t testing.TB, url string, nodes, users, list int) *site {
	t.Helper()
	x := &site{TB: t}
	keys := hsmtest.NewMemory(t)
	var first firsts
	for range nodes {
		db, err := store.Open(ctx, url, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		s, err := tokens.Open(ctx, tokens.Config{
			Database: db, Custody: keys, Exclusive: nodes == 1,
			// Nobody is to be turned away for the codes of lost tokens.
			Throttle: tokens.Throttle{Free: 1 << 30, LockAt: 1 << 30},
		}, keys, &first)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(ctx); err != nil {
				t.Error(err)
			}
		})
		x.nodes, x.db = append(x.nodes, s), db
	}
	var err error
	if x.admin, err = x.nodes[0].Authenticate(ctx, first.key); err != nil {
		t.Fatal(err)
	}
	i, err := x.nodes[0].BeginImport(ctx, x.admin, tokens.NewImport{Name: "shipment.csv"})
	if err != nil {
		t.Fatal(err)
	}
	var records []tokens.NewToken
	for n := range list {
		d := &siteToken{device: hotp(fmt.Sprintf("H%02d", n))}
		sum := sha256.Sum256([]byte(d.Serial))
		d.seed = sum[:20]
		record := d.NewToken
		record.Seed = slices.Clone(d.seed)
		x.tokens, records = append(x.tokens, d), append(records, record)
	}
	if _, err := i.Add(ctx, records); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Publish(ctx, "00", list, 0, 0); err != nil {
		t.Fatal(err)
	}
	for n := range users {
		x.users = append(x.users, fmt.Sprint("user", n))
		if _, err := x.nodes[0].AddUser(ctx, x.admin, "", x.users[n]); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// verify shows the next code of a token as a user's, and says whether it was accepted.
func (x *site) verify(s *tokens.Service, d *siteToken, user string) bool {
	r, err := s.Verify(ctx, x.admin, tokens.Attempt{User: user, Code: d.at(d.next.Load()), Transport: "http"})
	if err != nil && !errors.Is(err, tokens.ErrUnavailable) {
		x.Errorf("verify %s: %v", d.Serial, err)
	}
	if err == nil && r.Accept {
		d.next.Add(1)
		if r.Serial != d.Serial {
			x.Errorf("a code of %s was accepted as one of %s", d.Serial, r.Serial)
		}
	}
	return err == nil && r.Accept
}

// records are all of the audit, oldest first.
func (x *site) records() []audit.Record {
	x.Helper()
	var all []audit.Record
	q := tokens.RecordQuery{Limit: 1000}
	for {
		page, next, err := x.db.Records(ctx, q)
		if err != nil {
			x.Fatal(err)
		}
		all = append(all, page...)
		if next == 0 {
			slices.Reverse(all)
			return all
		}
		q.Before = next
	}
}

// replay goes through the audit, whose order is that of the commits for each token and
// user, and says what could not have been. It compares what it ends with with what is
// stored, and answers how many codes were accepted.
func (x *site) replay(most int) (accepted int) {
	x.Helper()
	type state struct {
		tokens.State
		owner string
	}
	now := map[string]state{}
	for _, d := range x.tokens {
		now[d.Serial] = state{State: tokens.Imported}
	}
	held, factors := map[string]int{}, map[string]bool{}
	for _, r := range x.records() {
		was, ours := now[r.Serial]
		if !ours || r.Reason == string(tokens.ReasonUnchanged) {
			continue
		}
		bad := ""
		switch r.Action + " " + r.Outcome {
		case "verify accept":
			accepted++
			for _, f := range r.Detail {
				if f.Name == "factor" {
					k := r.Serial + ":" + f.Value
					if factors[k] {
						bad = "a code was accepted twice"
					}
					factors[k] = true
				}
			}
			if was.State != tokens.Active || was.owner != r.User {
				bad = "a code was accepted of a token that is not the user's, or is off"
			}
		case "token.assign ok":
			if was.State != tokens.Imported {
				bad = "a token that somebody has was assigned"
			}
			if held[r.User]++; held[r.User] > most {
				bad = fmt.Sprintf("%s got token number %d", r.User, held[r.User])
			}
			now[r.Serial] = state{tokens.Active, r.User}
		case "token.unassign ok":
			if was.owner != r.User {
				bad = "a token was taken from another than its owner"
			}
			held[r.User]--
			now[r.Serial] = state{State: tokens.Imported}
		case "token.lost ok":
			now[r.Serial] = state{tokens.Lost, was.owner}
		case "token.resume ok":
			now[r.Serial] = state{tokens.Active, was.owner}
		}
		if bad != "" {
			x.Errorf("record %d, %s of %s by %s while it was %s, of %q: %s", r.ID, r.Action, r.Serial, r.User, was.State, was.owner, bad)
		}
	}
	for _, d := range x.tokens {
		got, err := x.nodes[0].ShowToken(ctx, x.admin, "", d.Serial)
		if want := now[d.Serial]; err != nil || got.State != want.State || got.Owner != want.owner {
			x.Errorf("%s is %s, of %q, and the audit says %s, of %q (%v)", d.Serial, got.State, got.Owner, want.State, want.owner, err)
		}
	}
	for _, user := range x.users {
		u, list, err := x.nodes[0].ShowUser(ctx, x.admin, "", user)
		if err != nil || len(list) > most || u.Tokens != held[user] {
			x.Errorf("%s holds %d tokens, and the audit says %d (%v)", user, len(list), held[user], err)
		}
	}
	report, err := x.nodes[0].VerifyAudit(ctx, x.admin)
	if err != nil || !report.Intact {
		x.Errorf("the audit: %v, %q", err, report.Problems)
	}
	return accepted
}

// 64 clients assign, unassign, lose, resume and verify the same tokens at once: no
// token has two owners, nobody gets a ninth one, and nothing is accepted of a token
// after it was lost.
func TestManyClientsActOnTheSameTokensAtOnce(t *testing.T) {
	const clients, acts = 64, 16
	for name, c := range map[string]struct {
		url   func(testing.TB) string
		nodes int
	}{
		"SQLite":                {func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "w.db") }, 1},
		"two nodes, PostgreSQL": {storetest.Postgres, 2},
	} {
		t.Run(name, func(t *testing.T) {
			x := newSite(t, c.url(t), c.nodes, 3, 30)
			var all sync.WaitGroup
			var done, refused, busy, accepted atomic.Int64
			for client := range clients {
				all.Go(func() {
					r := rand.New(rand.NewPCG(7, uint64(client)))
					for range acts {
						s, d, user := x.nodes[r.IntN(c.nodes)], x.tokens[r.IntN(len(x.tokens))], x.users[r.IntN(len(x.users))]
						var err error
						switch r.IntN(12) {
						case 0, 1, 2, 3:
							_, err = s.Assign(ctx, x.admin, "", d.Serial, user)
						case 4:
							_, err = s.Unassign(ctx, x.admin, "", d.Serial, "")
						case 5:
							_, err = s.MarkLost(ctx, x.admin, "", d.Serial, "")
						case 6:
							_, err = s.Resume(ctx, x.admin, "", d.Serial, "found")
						default:
							for _, user := range x.users {
								if x.verify(s, d, user) {
									accepted.Add(1)
								}
							}
							continue
						}
						switch {
						case err == nil:
							done.Add(1)
						case errors.Is(err, tokens.ErrState):
							refused.Add(1)
						case errors.Is(err, tokens.ErrUnavailable): // it was in others' way for too long
							busy.Add(1)
						default:
							t.Error(err)
						}
					}
				})
			}
			all.Wait()
			t.Logf("%d acts were done, %d refused, %d gave up; %d codes were accepted", done.Load(), refused.Load(), busy.Load(), accepted.Load())
			if n := x.replay(tokens.MaxTokensPerUser); accepted.Load() == 0 || done.Load() == 0 || refused.Load() == 0 || busy.Load() > done.Load()/10 || int64(n) < accepted.Load() {
				t.Errorf("%d accepts are in the audit", n)
			}
			x.loseAll(c.nodes)
			x.replay(tokens.MaxTokensPerUser)
		})
	}
}

// loseAll marks all tokens lost, each on some node, while others verify them: no code
// that is asked about after that is accepted, on any node.
func (x *site) loseAll(nodes int) {
	var owners []string
	for n, d := range x.tokens { // each has an owner and works
		for _, user := range slices.Concat(x.users[n%3:], x.users) {
			got, err := x.nodes[0].ShowToken(ctx, x.admin, "", d.Serial)
			if err != nil {
				x.Fatal(err)
			}
			if got.State == tokens.Imported {
				if _, err := x.nodes[0].Assign(ctx, x.admin, "", d.Serial, user); err != nil && !errors.Is(err, tokens.ErrState) {
					x.Fatal(err)
				}
				continue
			}
			if _, err := x.nodes[0].Resume(ctx, x.admin, "", d.Serial, "found"); err != nil {
				x.Fatal(err)
			}
		}
		got, err := x.nodes[0].ShowToken(ctx, x.admin, "", d.Serial)
		if err != nil {
			x.Fatal(err)
		}
		owners = append(owners, got.Owner) // "" where all three hold eight
	}
	for _, user := range x.users { // whoever was barred tries again
		if _, err := x.nodes[0].UnlockUser(ctx, x.admin, "", user); err != nil {
			x.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var all sync.WaitGroup
	var before, late atomic.Int64
	for client := range 63 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(8, uint64(client)))
			for {
				select {
				case <-stop:
					return
				default:
				}
				n := r.IntN(len(x.tokens))
				d := x.tokens[n]
				gone := d.lost.Load()
				if owners[n] == "" {
					continue
				}
				if x.verify(x.nodes[r.IntN(nodes)], d, owners[n]) {
					before.Add(1)
					if gone {
						x.Errorf("a code of %s was accepted, and marking it lost had returned before it was asked about", d.Serial)
					}
				} else if gone {
					late.Add(1)
				}
			}
		})
	}
	for begin := time.Now(); before.Load() < 10 && time.Since(begin) < 20*time.Second; {
		time.Sleep(time.Millisecond)
	}
	for n, d := range x.tokens {
		if owners[n] == "" {
			continue
		}
		if _, err := x.nodes[n%nodes].MarkLost(ctx, x.admin, "", d.Serial, "stolen"); err != nil {
			x.Error(err)
		}
		d.lost.Store(true)
	}
	for was := late.Load(); late.Load() < was+100; { // each node has heard of codes of lost tokens
		if x.Failed() {
			break
		}
		x.verify(x.nodes[0], x.tokens[0], x.users[0])
	}
	close(stop)
	all.Wait()
	if before.Load() == 0 {
		x.Error("no code was accepted before the tokens were lost: it says nothing")
	}
}
