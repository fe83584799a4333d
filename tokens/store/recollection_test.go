package store

import (
	"path/filepath"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// TestWhoLoggedInIsRemembered: the second attempt on a user, or on a name that is
// nobody's, reads nothing; and after a second without a commit everything is read
// again.
func TestWhoLoggedInIsRemembered(t *testing.T) {
	db, err := Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	chain, _, err := db.MintChain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head := audit.Head{Chain: chain}
	commit := func(c tokens.Change) {
		t.Helper()
		c.Records, head = audit.Append(head, []audit.Event{{Time: time.Now(), Action: "verify"}})
		if err := db.Commit(t.Context(), &c); err != nil {
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
	commit(tokens.Change{Recalled: true, Standings: []tokens.StandingWrite{{UserID: view.Subjects[0].User.ID, Expect: 1, Next: next}}})
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
