package store_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// sampleKey is a FIDO token as it is enrolled.
func sampleKey(serial string, owner *tokens.User) tokens.Token {
	return tokens.Token{
		Realm: "default", Serial: serial, Type: tokens.FIDO, State: tokens.Active, OwnerID: owner.ID, Owner: owner.Key, Created: time.Now(),
		Credential: &tokens.Credential{
			ID: []byte("credential of " + serial), RPID: "login.example", UserID: owner.ID, PublicKey: []byte{1, 0, 0xFF}, Format: "none", Attestation: "none",
		},
		Binding: []byte{7},
	}
}

func subject(t *testing.T, db *store.DB, ref tokens.Ref) *tokens.Subject {
	t.Helper()
	view, err := db.Load(context.Background(), []tokens.Ref{ref})
	if err != nil || view.Subjects[0] == nil {
		t.Fatalf("Load: %v", err)
	}
	return view.Subjects[0]
}

func move(s *tokens.Subject) []tokens.StandingWrite {
	next := s.Standing
	next.Version++
	return []tokens.StandingWrite{{UserID: s.User.ID, Expect: s.Version, Next: next}}
}

func enrol(t *testing.T, w *writer, key *tokens.Token) {
	t.Helper()
	s := subject(t, w.db, tokens.Ref{Realm: "default", User: key.Owner})
	if err := w.commit(context.Background(), &tokens.Change{Standings: move(s), NewTokens: []*tokens.Token{key}}, event("key.enrol")); err != nil {
		t.Fatal(err)
	}
}

// Somebody who alters a row in the database must not keep others out.
func TestADamagedCredentialHarmsNobodyElse(t *testing.T) {
	for name, url := range map[string]string{"sqlite": sqliteURL(t), "postgres": storetest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			db := openMigrated(t, url)
			w := alice(t, db)
			bob := &tokens.User{Realm: "default", Name: "bob", Key: "bob"}
			if err := w.commit(context.Background(), &tokens.Change{NewUsers: []tokens.NewUser{{User: bob}}}, event("user.add")); err != nil {
				t.Fatal(err)
			}
			ours := subject(t, db, tokens.Ref{Realm: "default", User: "alice"}).User
			damaged, whole := sampleKey("K1", ours), sampleKey("K2", bob)
			enrol(t, w, &damaged)
			enrol(t, w, &whole)
			encoded := damaged.Credential.Encode()
			for _, b := range [][]byte{{}, {9}, encoded[:len(encoded)-1], append(encoded, 0)} {
				if _, err := rawDatabase(t, url).Exec(`UPDATE tokens SET credential = $1 WHERE serial = 'K1'`, b); err != nil {
					t.Fatal(err)
				}
				view, err := db.Load(context.Background(), []tokens.Ref{
					{Realm: "default", User: "alice"}, {Realm: "default", Credential: damaged.Credential.Key()}, {Realm: "default", User: "bob"},
				})
				if err != nil {
					t.Fatalf("Load: %v", err)
				}
				s := view.Subjects
				if s[0] == nil || s[0] != s[1] || len(s[0].Tokens) != 2 || s[0].Tokens[1].Credential != nil || s[0].Tokens[1].Type != tokens.FIDO {
					t.Errorf("the owner of the damaged one: %+v", s[0])
				}
				if s[2] == nil || len(s[2].Tokens) != 1 || s[2].Tokens[0].Credential == nil {
					t.Errorf("another: %+v", s[2])
				}
			}
		})
	}
}

func TestASpendingBatchIsTwoRoundTrips(t *testing.T) {
	w := newWire(t, storetest.Postgres(t))
	db := openMigrated(t, w.url)
	a := alice(t, db)
	key := sampleKey("K1", subject(t, db, tokens.Ref{Realm: "default", User: "alice"}).User)
	enrol(t, a, &key)
	login := func(i int) {
		t.Helper()
		s := subject(t, db, tokens.Ref{Realm: "default", Credential: key.Credential.Key()})
		if err := a.commit(context.Background(), &tokens.Change{
			Standings: move(s),
			Motions:   []tokens.MotionWrite{{TokenID: s.Tokens[1].ID, UserID: s.User.ID, Last: int64(i)}},
			Spends:    []tokens.Spend{{Hash: sha256.Sum256([]byte{byte(i)}), Expires: time.Now()}},
		}, event("verify")); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 {
		login(i) // statements are prepared
	}
	before := w.turns.Load()
	for i := range 10 {
		login(3 + i)
	}
	if n := w.turns.Load() - before; n != 20 {
		t.Errorf("ten logins took %d round trips, not 20", n)
	}
}

// TestNodesSpendOnce answers the same challenges to two nodes at once, in opposite
// orders.
func TestNodesSpendOnce(t *testing.T) {
	const rounds, each = 20, 400 // so many that the two meet in the middle
	url := storetest.Postgres(t)
	ctx := context.Background()
	var won [rounds]atomic.Int32
	var wg sync.WaitGroup
	for node := range 2 {
		db := openMigrated(t, url)
		w, err := newWriter(db)
		if err != nil {
			t.Fatal(err)
		}
		u := &tokens.User{Realm: "default", Name: fmt.Sprint("u", node), Key: fmt.Sprint("u", node)}
		if err := w.commit(ctx, &tokens.Change{NewUsers: []tokens.NewUser{{User: u}}}, event("user.add")); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for round := range rounds {
				view, err := db.Load(ctx, []tokens.Ref{{Realm: "default", User: u.Key}})
				if err != nil {
					t.Error(err)
					return
				}
				c := &tokens.Change{Standings: move(view.Subjects[0])}
				for i := range each {
					if node == 1 {
						i = each - 1 - i
					}
					c.Spends = append(c.Spends, tokens.Spend{Hash: sha256.Sum256(fmt.Append(nil, round, i)), Expires: time.Now()})
				}
				err = w.commit(ctx, c, event("verify"))
				var spent *tokens.SpentError
				switch {
				case err == nil:
					won[round].Add(1)
				case !errors.As(err, &spent) || len(spent.Hashes) != each:
					t.Errorf("round %d: %v", round, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for round := range won {
		if n := won[round].Load(); n != 1 {
			t.Errorf("the challenges of round %d were spent %d times", round, n)
		}
	}
}

// Many things expire between two looks; they are forgotten in short transactions.
func TestManyThingsAreForgotten(t *testing.T) {
	for name, url := range map[string]string{"sqlite": sqliteURL(t), "postgres": storetest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			db, ctx := openMigrated(t, url), context.Background()
			w, err := newWriter(db)
			if err != nil {
				t.Fatal(err)
			}
			at := time.Now()
			const n = 12_000
			c := &tokens.Change{Spends: []tokens.Spend{{Hash: [32]byte{1}, Expires: at.Add(time.Hour)}}}
			for i := range n {
				c.Spends = append(c.Spends, tokens.Spend{Hash: sha256.Sum256(fmt.Append(nil, i)), Expires: at.Add(-time.Minute)})
			}
			if err := w.commit(ctx, c, event("verify")); err != nil {
				t.Fatal(err)
			}
			var gone atomic.Int64
			var wg sync.WaitGroup
			for range 3 { // as many nodes do at once
				wg.Go(func() {
					k, err := db.Expire(ctx, at)
					if err != nil {
						t.Errorf("Expire: %v", err)
					}
					gone.Add(int64(k))
				})
			}
			wg.Wait()
			if k, err := db.Expire(ctx, at); err != nil || gone.Load()+int64(k) != n {
				t.Errorf("%d and %d of %d were forgotten, %v", gone.Load(), k, n, err)
			}
			var left int
			if err := rawDatabase(t, url).QueryRow(`SELECT count(*) FROM spent`).Scan(&left); err != nil || left != 1 {
				t.Errorf("%d are left, %v", left, err)
			}
		})
	}
}
