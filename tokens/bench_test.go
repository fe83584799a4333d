package tokens_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/storetest"
)

// BenchmarkVerify is the engine's own cost: the database is a map, and the HSM
// shows the moving factor itself as the code. Codes are of HOTP tokens, so that
// each is accepted.
func BenchmarkVerify(b *testing.B) {
	for _, outstanding := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("outstanding=%d", outstanding), func(b *testing.B) {
			const users = 16384 // so many that no two outstanding attempts are on one
			mem := storetest.NewMemory(b)
			h := &house{TB: b, mem: mem, db: &editor{Memory: mem}, keys: &meter{Keystore: hsmtest.NewMemory(b)}, clock: &clock{}, log: &lockedBuffer{}}
			h.clock.set(start)
			quick := &quickDatabase{Database: mem, subjects: map[tokens.Ref]*tokens.Subject{}, byID: map[int64]*tokens.Subject{}}
			var f firsts
			h.Service = h.node(&f, func(c *tokens.Config) { c.Database, c.Custody = quick, &quickHSM{h.keys.Keystore} })
			local, ok := h.ClientFor(h.prefix("127.0.0.1/32").Addr())
			if !ok {
				b.Fatal("no client")
			}
			p := local.Principal()
			names := make([]string, users)
			for i := range names {
				names[i] = fmt.Sprintf("user%d", i)
				u := &tokens.User{ID: int64(i + 1), Realm: tokens.DefaultRealm, Name: names[i], Key: names[i], State: tokens.UserEnabled}
				t := tokens.Token{
					ID: int64(i + 1), Realm: tokens.DefaultRealm, Serial: fmt.Sprintf("H%d", i), Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 6,
					State: tokens.Active, OwnerID: u.ID, Owner: u.Key, Created: start,
					Wrapped: hsm.Wrapped{Mechanism: "aes-kwp", KEK: 1, Hash: hsm.SHA1, SeedLen: 20, Blob: make([]byte, 32)}, Binding: make([]byte, 32),
				}
				s := &tokens.Subject{User: u, Standing: tokens.Standing{Version: 1}, Tokens: []tokens.Token{t}}
				quick.subjects[tokens.Ref{Realm: u.Realm, User: u.Key}], quick.byID[u.ID] = s, s
			}
			quick.on.Store(true)

			work := make(chan int, outstanding)
			var all sync.WaitGroup
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			b.ResetTimer()
			for range outstanding {
				all.Go(func() {
					for n := range work {
						code := []byte("000000")
						for c, i := n/users, 5; c > 0; c, i = c/10, i-1 {
							code[i] += byte(c % 10)
						}
						r, err := h.Verify(ctx, p, tokens.Attempt{User: names[n%users], Code: string(code), Transport: "radius"})
						if err != nil || !r.Accept {
							b.Errorf("attempt %d: %v, %v", n, r, err)
						}
					}
				})
			}
			for n := range b.N {
				work <- n
			}
			close(work)
			all.Wait()
			b.StopTimer()
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N), "allocs/attempt")
			b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/float64(b.N), "B/attempt")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "attempts/s")
		})
	}
}

// quickHSM shows the moving factor as the code.
type quickHSM struct{ hsmtest.Keystore }

func (q *quickHSM) HMAC(_ context.Context, jobs []*hsm.Job) error {
	for _, j := range jobs {
		macs := make([]byte, 20*len(j.Factors))
		for i, f := range j.Factors {
			mac := macs[20*i : 20*i+20 : 20*i+20]
			binary.BigEndian.PutUint32(mac, uint32(f))
			j.MACs = append(j.MACs, mac)
			if j.Stop != nil && j.Stop(i, mac) {
				break
			}
		}
	}
	return nil
}

// quickDatabase keeps users in a map and throws the audit away, once it is on.
type quickDatabase struct {
	tokens.Database
	on       atomic.Bool
	mu       sync.Mutex
	subjects map[tokens.Ref]*tokens.Subject
	byID     map[int64]*tokens.Subject
}

func (q *quickDatabase) Recall(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	return q.Load(ctx, refs)
}

func (q *quickDatabase) Load(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	if !q.on.Load() {
		return q.Database.Load(ctx, refs)
	}
	v, err := q.Database.Load(ctx, nil)
	v.Subjects = make([]*tokens.Subject, len(refs))
	q.mu.Lock()
	defer q.mu.Unlock()
	same := make(map[tokens.Ref]*tokens.Subject, len(refs))
	for i, r := range refs {
		if same[r] == nil {
			s := *q.subjects[r]
			s.Tokens = slices.Clone(s.Tokens)
			same[r] = &s
		}
		v.Subjects[i] = same[r]
	}
	return v, err
}

func (q *quickDatabase) Commit(ctx context.Context, c *tokens.Change) error {
	if !q.on.Load() {
		return q.Database.Commit(ctx, c)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range c.Standings {
		if s := q.byID[w.UserID]; s.Version != w.Expect {
			return &tokens.ConflictError{UserIDs: []int64{w.UserID}}
		}
		q.byID[w.UserID].Standing = w.Next
	}
	for _, w := range c.Motions {
		t := &q.byID[w.UserID].Tokens[0]
		t.Last, t.Drift, t.UsedAt = w.Last, w.Drift, w.UsedAt
	}
	return nil
}

// Heads answers none: nothing was kept that could be named.
func (q *quickDatabase) Heads(context.Context) ([]audit.Head, error) { return nil, nil }
