package store

import (
	"context"
	"database/sql"
	"errors"
	"net/netip"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/storetest"
)

// peer is one of several on a PostgreSQL database, with a chain of its own.
type peer struct {
	t    *testing.T
	db   *DB
	head audit.Head
	view tokens.View // of the last recall
}

func newPeer(t *testing.T, url string) *peer {
	t.Helper()
	db, err := Open(t.Context(), url, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	chain, _, err := db.MintChain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &peer{t: t, db: db, head: audit.Head{Chain: chain}}
}

func (n *peer) try(c tokens.Change) error {
	var next audit.Head
	c.Records, next = audit.Append(n.head, []audit.Event{{Time: time.Now(), Action: "verify", Realm: "default", User: "alice"}})
	err := n.db.Commit(context.Background(), &c)
	if err == nil {
		n.head = next
	}
	return err
}

func (n *peer) must(c tokens.Change) {
	n.t.Helper()
	if err := n.try(c); err != nil {
		n.t.Fatal(err)
	}
}

func (n *peer) user(name string) {
	n.t.Helper()
	n.must(tokens.Change{NewUsers: []tokens.NewUser{{User: &tokens.User{Realm: "default", Name: name, Key: name, State: tokens.UserEnabled}}}})
}

// recall answers alice as attempts see her; "nobody" is asked for beside.
func (n *peer) recall() *tokens.Subject {
	n.t.Helper()
	var err error
	if n.view, err = n.db.Recall(n.t.Context(), []tokens.Ref{{Realm: "default", User: "alice"}, {Realm: "default", User: "nobody"}}); err != nil {
		n.t.Fatal(err)
	}
	return n.view.Subjects[0]
}

// warm has a node remember alice and that nobody is nobody.
func (n *peer) warm() *tokens.Subject {
	n.t.Helper()
	n.db.engine.(*postgresDB).brake = brake{}
	for range 4 { // a new connection has everything forgotten
		if s := n.recall(); n.view.Recalled != 0 {
			return s
		}
	}
	n.t.Fatal("what was read just now is not remembered")
	return nil
}

// basis is what the last recall was.
func (n *peer) basis() tokens.Change {
	return tokens.Change{Recalled: n.view.Recalled, Basis: tokens.Basis{
		Generation: n.view.Generation, From: time.Now().Add(-5 * time.Second), Until: time.Now().Add(5 * time.Second),
	}}
}

// moves is the write of one failure more, decided on what was recalled.
func (n *peer) moves(s *tokens.Subject) tokens.Change {
	c := n.basis()
	next := s.Standing
	next.Version++
	next.Failures++
	c.Standings = []tokens.StandingWrite{{UserID: s.User.ID, Expect: s.Version, Next: next}}
	return c
}

// TestNothingIsDecidedOnWhatIsNotSoAnyMore: between what a node recalls and its commit
// somebody else changes what it rests on. Nothing is made of it, and the next
// reading shows the change.
func TestNothingIsDecidedOnWhatIsNotSoAnyMore(t *testing.T) {
	url := storetest.Postgres(t)
	a, b := newPeer(t, url), newPeer(t, url)
	raw, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	a.user("alice")
	token := &tokens.Token{Realm: "default", Serial: "A1", Type: tokens.HOTP, Algorithm: 1, Digits: 6, State: tokens.Active}
	token.OwnerID = a.recall().User.ID
	give := a.moves(a.recall())
	give.Recalled, give.NewTokens = 0, []*tokens.Token{token}
	a.must(give)
	edit := func(statement string) func() {
		return func() {
			t.Helper()
			if _, err := raw.Exec(statement); err != nil {
				t.Fatal(err)
			}
		}
	}
	elsewhere := func() {
		t.Helper()
		view, err := b.db.Load(t.Context(), []tokens.Ref{{Realm: "default", User: "alice"}})
		if err != nil {
			t.Fatal(err)
		}
		c := b.moves(view.Subjects[0])
		c.Recalled = 0
		b.must(c)
	}
	written := func(s *tokens.Subject) tokens.Change { return a.moves(s) }
	seen := func(s *tokens.Subject) tokens.Change {
		c := a.basis()
		c.Basis.Users = []tokens.Seen{{UserID: s.User.ID, Version: s.Version}}
		return c
	}
	nobody := func(*tokens.Subject) tokens.Change {
		c := a.basis()
		c.Basis.Strangers = []tokens.Ref{{Realm: "default", User: "nobody"}}
		return c
	}
	for _, x := range []struct {
		what    string
		between func()
		decided func(*tokens.Subject) tokens.Change
		confirm bool // shows in what is not written, too
	}{
		{"an act on the user on another node, who fails", elsewhere, written, false},
		{"an act on the user on another node, who is turned away", elsewhere, seen, true},
		{"a user disabled by hand", edit("UPDATE users SET state = 'disabled'"), written, true},
		{"a user enabled by hand", edit("UPDATE users SET state = 'enabled'"), seen, true},
		{"a token edited by hand", edit("UPDATE tokens SET digits = 8"), written, true},
		{"a token deleted by hand", edit("DELETE FROM motions; DELETE FROM tokens"), seen, true},
		{"a client made on another node", func() {
			b.must(tokens.Change{Clients: []tokens.ClientWrite{{Client: tokens.Client{Name: "vpn", Prefix: netip.MustParsePrefix("192.0.2.0/24")}}}})
		}, written, true},
		{"a stranger who becomes a user on another node", func() { b.user("nobody") }, nobody, true},
		{"another clock", func() {}, func(s *tokens.Subject) tokens.Change {
			c := a.moves(s)
			c.Basis.From, c.Basis.Until = time.Now().Add(time.Minute), time.Now().Add(2*time.Minute)
			return c
		}, true},
		{"a restart of the database", func() {
			edit("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()")()
			for range 8 { // some connection fails first
				if _, err := a.db.Load(t.Context(), nil); err == nil {
					return
				}
			}
			t.Fatal("no connection works")
		}, written, true},
	} {
		before := a.warm()
		c := x.decided(before)
		x.between()
		if x.confirm {
			if err := a.db.Confirm(t.Context(), &c); !errors.Is(err, tokens.ErrConflict) {
				t.Errorf("%s: confirmed: %v", x.what, err)
			}
		}
		if err := a.try(c); !errors.Is(err, tokens.ErrConflict) {
			t.Errorf("%s: committed: %v", x.what, err)
		}
		stored, err := a.db.Load(t.Context(), []tokens.Ref{{Realm: "default", User: "alice"}})
		if err != nil {
			t.Fatal(err)
		}
		was, now := stored.Subjects[0], a.recall()
		if now.Version != was.Version || now.User.State != was.User.State || len(now.Tokens) != len(was.Tokens) ||
			len(now.Tokens) > 0 && now.Tokens[0].Digits != was.Tokens[0].Digits || a.view.Generation != stored.Generation {
			t.Errorf("%s: recalled %+v, stored %+v", x.what, now, was)
		}
		a.must(a.moves(now))
	}
	if a.recall(); a.view.Subjects[1] == nil {
		t.Error("who was a stranger is one still")
	}
}

// TestWhatWasReadBeforeACrashIsNotDecidedOn: what a node read of another one's batch may
// have been lost with the server, as it was not durable yet, and the version be given
// again to something else.
func TestWhatWasReadBeforeACrashIsNotDecidedOn(t *testing.T) {
	url := storetest.Postgres(t)
	a := newPeer(t, url)
	raw, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	a.user("alice")
	refs := []tokens.Ref{{Realm: "default", User: "alice"}}
	decided := func() tokens.Change {
		t.Helper()
		view, err := a.db.Load(t.Context(), refs)
		if err != nil {
			t.Fatal(err)
		}
		a.view = tokens.View{}
		c := a.moves(view.Subjects[0])
		c.Read = view.Read
		return c
	}
	a.warm() // there is a connection
	a.must(decided())
	c := decided()
	if _, err := raw.Exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ { // some connection fails first
		if _, err := a.db.Load(t.Context(), nil); err == nil {
			break
		} else if n == 8 {
			t.Fatal(err)
		}
	}
	if err := a.try(c); !errors.Is(err, tokens.ErrConflict) {
		t.Errorf("what was read on a connection that broke: committed: %v", err)
	}
	a.must(decided())
}

// TestWhatIsSoIsDecidedOn: nothing else than what a batch rests on keeps it from being
// made, and what it leaves is remembered.
func TestWhatIsSoIsDecidedOn(t *testing.T) {
	url := storetest.Postgres(t)
	a, b := newPeer(t, url), newPeer(t, url)
	a.user("alice")
	a.warm()
	for i := range 5 {
		s := a.recall()
		if a.view.Recalled == 0 || s.Failures != i {
			t.Fatalf("round %d: recalled in era %d with %d failures", i, a.view.Recalled, s.Failures)
		}
		c := a.moves(s)
		c.Basis.Strangers = []tokens.Ref{{Realm: "default", User: "nobody"}}
		b.must(tokens.Change{}) // another node's record
		if err := a.db.Confirm(t.Context(), &c); err != nil {
			t.Fatal(err)
		}
		a.must(c)
	}
}

// TestNodesThatTakeTurnsReadRatherThanRemember: with the same user on two nodes, what
// each remembers is wrong each time. That costs a few conflicts, and not half of all
// commits.
func TestNodesThatTakeTurnsReadRatherThanRemember(t *testing.T) {
	url := storetest.Postgres(t)
	a, b := newPeer(t, url), newPeer(t, url)
	a.user("alice")
	conflicts := 0
	for range 100 {
		for _, n := range []*peer{a, b} {
			for {
				err := n.try(n.moves(n.recall()))
				if err == nil {
					break
				}
				if !errors.Is(err, tokens.ErrConflict) {
					t.Fatal(err)
				}
				conflicts++
			}
		}
	}
	if conflicts > 20 {
		t.Errorf("%d conflicts in 200 commits", conflicts)
	}
	if s := a.recall(); s.Failures != 200 && b.recall().Failures != 200 {
		t.Errorf("%d of 200 commits were made", s.Failures)
	}
}

// TestACommitIsDurableAfterItWasMade: the next may follow when it is made, and nobody
// is told that it is durable where the server went away between.
func TestACommitIsDurableAfterItWasMade(t *testing.T) {
	url := storetest.Postgres(t)
	a := newPeer(t, url)
	a.user("alice")
	s := a.warm()
	made := 0
	c := a.moves(s)
	c.Made = func() {
		made++
		stored, err := a.db.Load(t.Context(), []tokens.Ref{{Realm: "default", User: "alice"}})
		if err != nil || stored.Subjects[0].Version != s.Version+1 {
			t.Errorf("made, and stored is %+v: %v", stored.Subjects, err)
		}
	}
	a.must(c)
	if made != 1 {
		t.Errorf("made %d times", made)
	}

	raw, err := sql.Open("postgres", url)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c = a.moves(a.warm())
	// The connection that the change was made on does not live to flush it.
	if _, err := raw.Exec(`CREATE FUNCTION slow(boolean, text, text) RETURNS pg_lsn LANGUAGE sql AS $$ SELECT pg_sleep(60); SELECT '0/0'::pg_lsn $$`); err != nil {
		t.Fatal(err)
	}
	e := a.db.engine.(*postgresDB)
	e.flush = "SELECT slow(true, 'watchword', '')"
	c.Made = func() {
		made++
		for {
			var gone int
			if err := raw.QueryRow(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'SELECT slow%' AND state = 'active' AND pid <> pg_backend_pid()`).Scan(&gone); err != nil {
				t.Error(err)
				return
			}
			if gone > 0 {
				return
			}
		}
	}
	if err := a.try(c); !errors.Is(err, tokens.ErrUnavailable) || made != 2 {
		t.Errorf("the server went away before the change was durable: %v, made %d times", err, made)
	}
}
