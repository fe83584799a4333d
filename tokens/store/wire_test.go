package store_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	neturl "net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// wire stands between the store and PostgreSQL.
type wire struct {
	url     string
	turns   atomic.Int64 // times that the talk went over to the client's side
	silent  atomic.Bool  // nothing passes any more
	deaf    atomic.Bool  // the next answer is lost, and the connection with it
	mu      sync.Mutex
	cutting []net.Conn
}

func newWire(t *testing.T, url string) *wire {
	t.Helper()
	u, err := neturl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{}
	u.Host = l.Addr().String()
	w.url = u.String()
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		w.mu.Lock()
		for _, c := range w.cutting {
			c.Close()
		}
		w.mu.Unlock()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			w.mu.Lock()
			w.cutting = append(w.cutting, client, upstream)
			w.mu.Unlock()
			var asking atomic.Bool
			wg.Go(func() { w.pass(upstream, client, &asking, true) })
			wg.Go(func() { w.pass(client, upstream, &asking, false) })
		}
	})
	return w
}

func (w *wire) pass(to, from net.Conn, asking *atomic.Bool, fromClient bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if fromClient && asking.CompareAndSwap(false, true) {
			w.turns.Add(1)
		}
		if !fromClient {
			asking.Store(false)
			if w.deaf.CompareAndSwap(true, false) {
				return
			}
		}
		for w.silent.Load() {
			time.Sleep(10 * time.Millisecond)
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func TestABatchIsTwoRoundTrips(t *testing.T) {
	w := newWire(t, storetest.Postgres(t))
	db := openMigrated(t, w.url)
	a := alice(t, db)
	ctx := context.Background()
	for range 3 {
		if _, err := a.accept(ctx); err != nil { // statements are prepared
			t.Fatal(err)
		}
	}
	before := w.turns.Load()
	for range 10 {
		if _, err := a.accept(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.turns.Load() - before; n != 20 {
		t.Errorf("ten batches took %d round trips, not 20", n)
	}
	refs := []tokens.Ref{{Realm: "default", User: "alice"}, {Realm: "default", Serial: "A1"}}
	if _, err := db.Load(ctx, refs); err != nil {
		t.Fatal(err)
	}
	before = w.turns.Load()
	if _, err := db.Load(ctx, refs); err != nil {
		t.Fatal(err)
	}
	if n := w.turns.Load() - before; n != 1 {
		t.Errorf("a Load by name and serial took %d round trips", n)
	}
}

func TestALostAnswerIsNotAConflict(t *testing.T) {
	w := newWire(t, storetest.Postgres(t))
	db := openMigrated(t, w.url)
	a := alice(t, db)
	ctx := context.Background()
	if _, err := a.accept(ctx); err != nil {
		t.Fatal(err)
	}
	view, err := db.Load(ctx, []tokens.Ref{{Realm: "default", User: "alice"}})
	if err != nil {
		t.Fatal(err)
	}
	s := view.Subjects[0]
	next := s.Standing
	next.Version++
	change := func() *tokens.Change {
		return &tokens.Change{
			Standings: []tokens.StandingWrite{{UserID: s.User.ID, Expect: s.Version, Next: next}},
			Motions:   []tokens.MotionWrite{{TokenID: s.Tokens[0].ID, UserID: s.User.ID, Last: 77}},
		}
	}
	seq := a.head.Seq
	w.deaf.Store(true)
	err = a.commit(ctx, change(), event("verify"))
	if !errors.Is(err, tokens.ErrUnavailable) || errors.Is(err, tokens.ErrConflict) || errors.Is(err, tokens.ErrChainMoved) {
		t.Fatalf("Commit whose answer was lost: %v", err)
	}
	heads, err := db.Heads(ctx)
	if err != nil || len(heads) != 1 || heads[0].Seq != seq+1 {
		t.Fatalf("the head is %+v, %v; the commit was made", heads, err)
	}
	if err := a.commit(ctx, change(), event("verify")); !errors.Is(err, tokens.ErrChainMoved) {
		t.Errorf("the same commit again: %v", err)
	}
}

func TestASilentDatabaseHangsNobody(t *testing.T) {
	w := newWire(t, storetest.Postgres(t))
	db, err := store.Open(context.Background(), w.url, store.Options{Timeout: time.Second, ConnectTimeout: time.Second, Connections: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(context.Background()); err != nil {
		t.Fatal(err)
	}
	a := alice(t, db)
	if _, err := a.accept(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.silent.Store(true)
	defer w.silent.Store(false)
	short := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.Background(), 200*time.Millisecond)
	}
	for what, do := range map[string]func(context.Context) error{
		"Load": func(ctx context.Context) error {
			_, err := db.Load(ctx, []tokens.Ref{{Realm: "default", User: "alice"}})
			return err
		},
		"Commit": func(ctx context.Context) error { return a.commit(ctx, &tokens.Change{}, event("verify")) },
	} {
		for range 4 { // more than there are connections
			ctx, cancel := short()
			begun := time.Now()
			err := do(ctx)
			cancel()
			if waited := time.Since(begun); !errors.Is(err, tokens.ErrUnavailable) || waited > 2*time.Second {
				t.Errorf("%s: %v after %v", what, err, waited)
			}
		}
	}
	begun := time.Now()
	if _, err := db.Heads(context.Background()); !errors.Is(err, tokens.ErrUnavailable) || time.Since(begun) > 20*time.Second {
		t.Errorf("Heads, whose caller would wait for ever: %v after %v", err, time.Since(begun))
	}
	w.silent.Store(false)
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := db.Load(context.Background(), nil)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("after its return: %v", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestNodesDoNotBlockEachOther commits crosswise over two handles.
func TestNodesDoNotBlockEachOther(t *testing.T) {
	url := storetest.Postgres(t)
	nodes := []*store.DB{openMigrated(t, url), openMigrated(t, url)}
	ctx := context.Background()
	setup, err := newWriter(nodes[0])
	if err != nil {
		t.Fatal(err)
	}
	var refs []tokens.Ref
	for i := range 20 {
		u := &tokens.User{Realm: "default", Name: fmt.Sprint("u", i), Key: fmt.Sprint("u", i)}
		if err := setup.commit(ctx, &tokens.Change{NewUsers: []tokens.NewUser{{User: u}}}, event("user.add")); err != nil {
			t.Fatal(err)
		}
		refs = append(refs, tokens.Ref{Realm: "default", User: u.Key})
	}
	var won, lost atomic.Int64
	var wg sync.WaitGroup
	for i, db := range nodes {
		w, err := newWriter(db)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for range 60 {
				view, err := db.Load(ctx, refs)
				if err != nil {
					t.Error(err)
					return
				}
				c := &tokens.Change{}
				for j := range view.Subjects {
					s := view.Subjects[j]
					if i == 1 {
						s = view.Subjects[len(view.Subjects)-1-j]
					}
					next := s.Standing
					next.Version++
					c.Standings = append(c.Standings, tokens.StandingWrite{UserID: s.User.ID, Expect: s.Version, Next: next})
				}
				switch err := w.commit(ctx, c, event("verify")); {
				case err == nil:
					won.Add(1)
				case errors.Is(err, tokens.ErrConflict):
					lost.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	view, err := nodes[0].Load(ctx, refs[:1])
	if err != nil || view.Subjects[0].Version != 1+won.Load() {
		t.Errorf("%d commits were made and the version is %d, %v", won.Load(), view.Subjects[0].Version, err)
	}
	t.Logf("%d commits were made, %d conflicted", won.Load(), lost.Load())
}
