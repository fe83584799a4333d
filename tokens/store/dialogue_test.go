package store_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/storetest"
)

// One State, answered at the same moment on two servers of one database with codes that
// are each right, is accepted once; and of two that asked for the next code one is good
// at most.
func TestOneStateIsAcceptedOnceByTwoServers(t *testing.T) {
	for name, url := range map[string]string{"SQLite": sqliteURL(t), "PostgreSQL": storetest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			if name == "PostgreSQL" {
				empty(t, url)
			}
			answeredAtOnce(t, url)
		})
	}
}

func answeredAtOnce(t *testing.T, url string) {
	ctx := context.Background()
	keys := hsmtest.NewMemory(t)
	var f firstKey
	var servers []*tokens.Service
	for i := range 2 {
		db := openMigrated(t, url)
		s, err := tokens.Open(ctx, tokens.Config{Database: db, Custody: keys}, keys, &f)
		if err != nil {
			t.Fatalf("server %d: %v", i, err)
		}
		servers = append(servers, s)
		defer func() {
			if err := s.Close(ctx); err != nil {
				t.Error(err)
			}
		}()
	}
	s := servers[0]
	admin, err := s.Authenticate(ctx, f.key)
	if err != nil {
		t.Fatal(err)
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in, err := s.BeginImport(ctx, admin, tokens.NewImport{Name: "shipment.csv", Format: "oath-csv"})
	if err != nil {
		t.Fatal(err)
	}
	seed := []byte("12345678901234567890")
	must(in.Add(ctx, []tokens.NewToken{{Serial: "H1", Type: tokens.HOTP, Algorithm: hsm.SHA1, Digits: 8, Seed: append([]byte(nil), seed...)}}))
	must(in.Publish(ctx, "00", 1, 0, 0))
	must(s.AddUser(ctx, admin, "", "alice"))
	must(s.Assign(ctx, admin, "", "H1", "alice"))
	must(s.SetPIN(ctx, admin, "", "alice", "4711", false))
	code := func(factor int64) string {
		m := hmac.New(sha1.New, seed)
		binary.Write(m, binary.BigEndian, factor)
		sum := m.Sum(nil)
		return fmt.Sprintf("%08d", binary.BigEndian.Uint32(sum[sum[19]&15:])&0x7fffffff%1e8)
	}
	next := func() int64 {
		x, err := s.ShowToken(ctx, admin, "", "H1")
		if err != nil {
			t.Fatal(err)
		}
		return x.Last
	}
	attempt := func(on *tokens.Service, typed string, state []byte) tokens.Result {
		r, err := on.Verify(ctx, admin, tokens.Attempt{
			User: "alice", Code: typed, State: state,
			Dialogues: []tokens.Dialogue{tokens.DialoguePIN, tokens.DialogueNextCode, tokens.DialogueNewPIN},
		})
		if err != nil {
			t.Error(err)
		}
		return r
	}
	ask := func(typed string, state []byte) []byte {
		t.Helper()
		r := attempt(s, typed, state)
		if r.Challenge == nil {
			t.Fatalf("%q: %+v", typed, r)
		}
		return r.Challenge.State
	}
	once := func(what string, state []byte, codes ...string) {
		t.Helper()
		var accepted, asked atomic.Int64
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				r := attempt(servers[i%2], codes[i/2%len(codes)], state)
				if r.Accept {
					accepted.Add(1)
				}
				if r.Challenge != nil {
					asked.Add(1)
				}
			})
		}
		all.Wait()
		if accepted.Load() != 1 || asked.Load() != 0 {
			t.Errorf("%s: accepted %d times, asked %d times", what, accepted.Load(), asked.Load())
		}
	}
	for range 5 {
		n := next()
		once("the PIN first", ask("4711", nil), code(n), code(n+1), code(n+2), code(n+3))
		n = next()
		once("the next code", ask("4711"+code(n+30), nil), code(n+31))
		n = next()
		must(s.SetPIN(ctx, admin, "", "alice", "4711", true))
		once("a new PIN", ask("8051", ask("4711"+code(n), nil)), "8051")
		must(s.SetPIN(ctx, admin, "", "alice", "4711", false))

		n = next()
		var mu sync.Mutex
		states := map[int64][]byte{}
		var all sync.WaitGroup
		for i := range int64(4) {
			all.Go(func() {
				if r := attempt(servers[i%2], "4711"+code(n+20+2*i), nil); r.Challenge != nil && r.Challenge.Question == tokens.QuestionNextCode {
					mu.Lock()
					states[n+20+2*i] = r.Challenge.State
					mu.Unlock()
				}
			})
		}
		all.Wait()
		var accepted atomic.Int64
		for factor, state := range states {
			all.Go(func() {
				if attempt(servers[factor/2%2], code(factor+1), state).Accept {
					accepted.Add(1)
				}
			})
		}
		all.Wait()
		if accepted.Load() > 1 {
			t.Errorf("%d questions for the next code were open", accepted.Load())
		}
		must(s.UnlockUser(ctx, admin, "", "alice"))
	}
	report, err := s.VerifyAudit(ctx, admin)
	if err != nil || !report.Intact {
		t.Errorf("the audit: %+v, %v", report, err)
	}
}
