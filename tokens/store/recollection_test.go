package store

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// opened is a database, and what commits to a chain in it.
func opened(t *testing.T) (*DB, func(tokens.Change) error) {
	t.Helper()
	db, err := Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "db"), Options{})
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
	head := audit.Head{Chain: chain}
	return db, func(c tokens.Change) error {
		var next audit.Head
		c.Records, next = audit.Append(head, []audit.Event{{Time: time.Now(), Action: "verify"}})
		err := db.Commit(t.Context(), &c)
		if err == nil {
			head = next
		}
		return err
	}
}

// TestWhoLoggedInIsRemembered: the second attempt on a user, or on a name that is
// nobody's, reads nothing; and after a second without a commit everything is read
// again.
func TestWhoLoggedInIsRemembered(t *testing.T) {
	db, try := opened(t)
	commit := func(c tokens.Change) {
		t.Helper()
		if err := try(c); err != nil {
			t.Fatal(err)
		}
	}
	commit(tokens.Change{NewUsers: []tokens.NewUser{{User: &tokens.User{Realm: "default", Name: "alice", Key: "alice", State: tokens.UserEnabled}}}})
	refs := []tokens.Ref{{Realm: "default", User: "alice"}, {Realm: "default", User: "nobody"}}
	known := &db.engine.(*sqliteDB).known
	unknown := func() int {
		return len(known.recall(refs, &tokens.View{Subjects: make([]*tokens.Subject, len(refs))}))
	}
	if unknown() != 2 {
		t.Error("something is remembered before it was read")
	}
	commit(tokens.Change{})
	view, err := db.Recall(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	if n := unknown(); n != 0 {
		t.Errorf("%d of two are read again", n)
	}
	next := view.Subjects[0].Standing
	next.Version++
	commit(tokens.Change{Recalled: view.Recalled, Standings: []tokens.StandingWrite{{UserID: view.Subjects[0].User.ID, Expect: 1, Next: next}}})
	if n := unknown(); n != 0 {
		t.Errorf("after a login %d of two are read again", n)
	}
	known.mu.Lock()
	known.checked = known.checked.Add(-recallFor)
	known.mu.Unlock()
	if unknown() != 2 {
		t.Error("what nobody has looked after for a second is good still")
	}
}

// TestAnotherConnectionRemembersNothing: what SQLite says of edits is the writer's
// connection's own, and where that was replaced, nobody knows whether there was one.
func TestAnotherConnectionRemembersNothing(t *testing.T) {
	db, try := opened(t)
	if err := try(tokens.Change{NewUsers: []tokens.NewUser{{User: &tokens.User{Realm: "default", Name: "alice", Key: "alice", State: tokens.UserEnabled}}}}); err != nil {
		t.Fatal(err)
	}
	e := db.engine.(*sqliteDB)
	recalled := func() tokens.Change {
		t.Helper()
		var view tokens.View
		for range 2 { // read, and then recalled
			if err := try(tokens.Change{}); err != nil {
				t.Fatal(err)
			}
			var err error
			if view, err = db.Recall(t.Context(), []tokens.Ref{{Realm: "default", User: "alice"}}); err != nil {
				t.Fatal(err)
			}
		}
		if view.Recalled == 0 {
			t.Fatal("nothing was recalled")
		}
		next := view.Subjects[0].Standing
		next.Version++
		return tokens.Change{Recalled: view.Recalled, Standings: []tokens.StandingWrite{{UserID: 1, Expect: next.Version - 1, Next: next}}}
	}
	c := recalled()
	if _, err := e.turn(t.Context(), false, func(conn *sql.Conn) error {
		return errors.Join(bare(conn, "ROLLBACK"), driver.ErrBadConn) // so that the next ROLLBACK fails
	}); err == nil {
		t.Fatal("committed")
	}
	if err := try(c); !errors.Is(err, tokens.ErrConflict) {
		t.Errorf("decided before the connection was lost, and committed on another: %v", err)
	}
	if err := try(recalled()); err != nil {
		t.Errorf("the new connection has conflicts for good: %v", err)
	}
}

// TestAConflictThatNamesNobodyIsForgotten: a memory that is wrong, for whatever
// reason, must not be the reason for conflicts without end.
func TestAConflictThatNamesNobodyIsForgotten(t *testing.T) {
	db, try := opened(t)
	if err := try(tokens.Change{NewUsers: []tokens.NewUser{{User: &tokens.User{Realm: "default", Name: "alice", Key: "alice", State: tokens.UserEnabled}}}}); err != nil {
		t.Fatal(err)
	}
	refs := []tokens.Ref{{Realm: "default", User: "alice"}}
	known := &db.engine.(*sqliteDB).known
	if err := try(tokens.Change{}); err != nil {
		t.Fatal(err)
	}
	view, err := db.Recall(t.Context(), refs)
	if err != nil {
		t.Fatal(err)
	}
	next := view.Subjects[0].Standing
	next.Version++
	if err := try(tokens.Change{
		Standings: []tokens.StandingWrite{{UserID: 1, Expect: next.Version - 1, Next: next}},
		Motions:   []tokens.MotionWrite{{TokenID: 7, UserID: 1, Last: 1}}, // there is none
	}); !errors.Is(err, tokens.ErrConflict) {
		t.Fatal(err)
	}
	if rest := known.recall(refs, &tokens.View{Subjects: make([]*tokens.Subject, 1)}); len(rest) == 0 {
		t.Error("what led to the conflict is remembered still")
	}
}

// TestTheMemoryHasABound: it is one of users and of their tokens, whoever has how many.
func TestTheMemoryHasABound(t *testing.T) {
	var r recollection
	r.empty()
	weight := func() (n int) {
		for _, s := range r.users {
			n += 1 + len(s.Tokens)
		}
		return n
	}
	for i := range int64(4 * maxRecalled / 64) {
		ref := tokens.Ref{Realm: "default", User: strconv.FormatInt(i, 10)}
		s := &tokens.Subject{User: &tokens.User{ID: i + 1}, Tokens: make([]tokens.Token, i%65)}
		for range 2 { // a second time it takes the place of the first
			r.note(r.writing(), []tokens.Ref{ref}, &tokens.View{Subjects: []*tokens.Subject{s}})
		}
		if i%7 == 0 {
			r.forget([]int64{i + 1, i})
		}
	}
	n := weight()
	if n > maxRecalled || n < maxRecalled/2 || n != r.weight || len(r.users) != len(r.names) {
		t.Errorf("%d users, %d names, weight %d, counted as %d", len(r.users), len(r.names), n, r.weight)
	}
	r.empty()
	if r.weight != 0 {
		t.Errorf("nobody weighs %d", r.weight)
	}
}
