package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/store"
)

// scribe commits to a chain of its own.
type scribe struct {
	t    testing.TB
	db   *store.DB
	head audit.Head

	recalled uint64 // of what recall answered last
}

func newScribe(t testing.TB, db *store.DB) *scribe {
	t.Helper()
	chain, _, err := db.MintChain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &scribe{t: t, db: db, head: audit.Head{Chain: chain}}
}

func (s *scribe) try(c tokens.Change) error {
	var next audit.Head
	c.Records, next = audit.Append(s.head, []audit.Event{{Time: time.Now(), Action: "verify", Realm: "default"}})
	err := s.db.Commit(context.Background(), &c)
	if err == nil {
		s.head = next
	}
	return err
}

func (s *scribe) must(c tokens.Change) {
	s.t.Helper()
	if err := s.try(c); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scribe) user(name string) {
	s.t.Helper()
	s.must(tokens.Change{NewUsers: []tokens.NewUser{{User: &tokens.User{Realm: "default", Name: name, Key: name, State: tokens.UserEnabled}}}})
}

// recall answers a user as attempts see it.
func (s *scribe) recall(name string) *tokens.Subject {
	s.t.Helper()
	view, err := s.db.Recall(s.t.Context(), []tokens.Ref{{Realm: "default", User: name}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.recalled = view.Recalled
	return view.Subjects[0]
}

// fails is the write of one failure more, decided on what recall answered last.
func (s *scribe) fails(x *tokens.Subject) tokens.Change {
	c := fails(x)
	c.Recalled = s.recalled
	return c
}

func fails(s *tokens.Subject) tokens.Change {
	next := s.Standing
	next.Version++
	next.Failures++
	return tokens.Change{Standings: []tokens.StandingWrite{{UserID: s.User.ID, Expect: s.Version, Next: next}}}
}

// TestWhatAnotherProgramWroteIsNoticed: somebody edits the database while the
// server remembers what it held. Nothing that was decided on the memory is
// committed, and the next reading shows the edit.
func TestWhatAnotherProgramWroteIsNoticed(t *testing.T) {
	url := sqliteURL(t)
	s := newScribe(t, openMigrated(t, url))
	s.user("alice")
	s.must(s.fails(s.recall("alice")))
	s.must(s.fails(s.recall("alice")))
	if s.recall("nobody") != nil {
		t.Fatal("a user whom there is not")
	}
	raw, err := sql.Open("sqlite3", "file:"+strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23").Replace(strings.TrimPrefix(url, "sqlite:")))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	for _, edit := range []string{
		"UPDATE users SET state = 'disabled'", // no version moves with it
		"UPDATE users SET state = 'enabled'",
	} {
		before := s.recall("alice")
		if _, err := raw.Exec(edit); err != nil {
			t.Fatal(err)
		}
		if err := s.try(s.fails(before)); !errors.Is(err, tokens.ErrConflict) {
			t.Errorf("decided before %q, and committed after it: %v", edit, err)
		}
		after := s.recall("alice")
		if after.User.State == before.User.State || after.Failures != before.Failures {
			t.Errorf("after %q: %+v, failures %d", edit, after.User, after.Failures)
		}
		s.must(s.fails(after))
		if got := s.recall("alice"); got.Failures != after.Failures+1 || got.User.State != after.User.State {
			t.Errorf("after the next commit: %+v", got)
		}
	}
	// Every batch that was decided before it, and not only the first to be written.
	s.user("bob")
	for range 2 {
		s.must(s.fails(s.recall("alice")))
		s.must(s.fails(s.recall("bob")))
	}
	one, other := s.recall("alice"), s.recall("bob")
	if _, err := raw.Exec("UPDATE users SET state = 'disabled'"); err != nil {
		t.Fatal(err)
	}
	s.must(tokens.Change{}) // not a batch of attempts
	for _, x := range []*tokens.Subject{one, other} {
		if err := s.try(s.fails(x)); !errors.Is(err, tokens.ErrConflict) {
			t.Errorf("%s: decided before an edit, and committed after another commit: %v", x.User.Name, err)
		}
	}
	// Nor does an act between, which has everything forgotten, hide it.
	s.must(s.fails(s.recall("alice")))
	one = s.recall("alice")
	if _, err := raw.Exec("UPDATE users SET state = 'enabled'"); err != nil {
		t.Fatal(err)
	}
	s.user("carol")
	if err := s.try(s.fails(one)); !errors.Is(err, tokens.ErrConflict) {
		t.Errorf("decided before an edit, and committed after an act: %v", err)
	}
	// What was not decided on the memory is no concern of its.
	if _, err := raw.Exec("UPDATE users SET state = 'disabled'"); err != nil {
		t.Fatal(err)
	}
	s.must(tokens.Change{})
	if got := s.recall("alice"); got.User.State != tokens.UserDisabled {
		t.Errorf("after a commit that only records: %+v", got.User)
	}
}

// TestAProgramThatWritesAllTheTimeHoldsNobodyUp: it comes between each reading and
// each commit. What was read, and not recalled, is committed all the same.
func TestAProgramThatWritesAllTheTimeHoldsNobodyUp(t *testing.T) {
	url := sqliteURL(t)
	s := newScribe(t, openMigrated(t, url))
	s.user("alice")
	s.user("bob")
	s.must(s.fails(s.recall("alice")))
	s.must(s.fails(s.recall("alice")))
	raw := rawDatabase(t, url)
	for n := range 10 {
		for tries := 0; ; tries++ {
			x := s.recall("alice")
			if _, err := raw.Exec("UPDATE users SET display = $1 WHERE key = 'bob'", fmt.Sprint(n, tries)); err != nil {
				t.Fatal(err)
			}
			err := s.try(s.fails(x))
			if err == nil {
				break
			}
			if !errors.Is(err, tokens.ErrConflict) || tries == 2 {
				t.Fatalf("try %d: %v", tries, err)
			}
		}
	}
}

// TestAUserIsOneSubjectHoweverNamed: one of a batch names the user, who is
// remembered, and another one a credential of the user's.
func TestAUserIsOneSubjectHoweverNamed(t *testing.T) {
	db := openMigrated(t, sqliteURL(t))
	w := alice(t, db)
	key := sampleKey("K1", subject(t, db, tokens.Ref{Realm: "default", User: "alice"}).User)
	enrol(t, w, &key)
	refs := []tokens.Ref{{Realm: "default", User: "alice"}, {Realm: "default", Credential: key.Credential.Key()}, {Realm: "default", Serial: "K1"}, {Realm: "default", User: "alice"}}
	for range 3 {
		if _, err := w.accept(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Recall(t.Context(), refs[:1]); err != nil {
			t.Fatal(err)
		}
		view, err := db.Recall(t.Context(), refs)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range view.Subjects {
			if s == nil || s != view.Subjects[0] {
				t.Errorf("ref %d: another subject than the first", i)
			}
		}
	}
}

// TestWhatIsRememberedIsWhatIsStored has users change in every way at once while
// they are recalled; at each pause memory and database agree.
func TestWhatIsRememberedIsWhatIsStored(t *testing.T) {
	db := openMigrated(t, sqliteURL(t))
	first := newScribe(t, db)
	const users = 12
	var refs []tokens.Ref
	for i := range users {
		first.user(fmt.Sprintf("u%d", i))
		refs = append(refs, tokens.Ref{Realm: "default", User: fmt.Sprintf("u%d", i)})
	}
	for i := range 3 {
		refs = append(refs, tokens.Ref{Realm: "default", User: fmt.Sprintf("late%d", i)})
	}
	scribes := []*scribe{newScribe(t, db), newScribe(t, db), newScribe(t, db)}
	for round := range 12 {
		var wg sync.WaitGroup
		for n, s := range scribes {
			wg.Go(func() {
				for range 60 {
					view, err := db.Recall(context.Background(), refs)
					if err != nil {
						t.Error(err)
						return
					}
					x := view.Subjects[rand.IntN(users)]
					c := fails(x)
					c.Recalled = view.Recalled
					if n == 0 && rand.IntN(4) == 0 { // an act
						u := *x.User
						u.State = tokens.UserDisabled
						if x.User.State == tokens.UserDisabled {
							u.State = tokens.UserEnabled
						}
						c.Users = []tokens.User{u}
					}
					if err := s.try(c); err != nil && !errors.Is(err, tokens.ErrConflict) {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if round%4 == 3 {
			first.user(refs[users+round/4].User)
		}
		for range 3 {
			// What lags behind is noticed when it is decided on.
			for i := range users {
				for tries := 0; first.try(first.fails(first.recall(refs[i].User))) != nil; tries++ {
					if tries == 2 {
						t.Fatalf("%s is remembered wrongly for good", refs[i].User)
					}
				}
			}
			stored, err := db.Load(t.Context(), refs)
			if err != nil {
				t.Fatal(err)
			}
			got, err := db.Recall(t.Context(), refs)
			got.Recalled = 0
			if err != nil || !reflect.DeepEqual(got, stored) {
				t.Fatalf("remembered %+v, stored %+v: %v", got, stored, err)
			}
		}
	}
}

// TestStrangersDoNotFillTheMemory: names that are nobody's leave what is known of
// users where it is.
func TestStrangersDoNotFillTheMemory(t *testing.T) {
	s := newScribe(t, openMigrated(t, sqliteURL(t)))
	s.user("alice")
	s.must(s.fails(s.recall("alice")))
	for i := range 20_000 {
		if s.recall(fmt.Sprintf("stranger%d", i)) != nil {
			t.Fatal("somebody")
		}
	}
	before := s.recall("alice")
	s.must(s.fails(before))
	if got := s.recall("alice"); got.Failures != before.Failures+1 {
		t.Errorf("%+v", got)
	}
	s.user("stranger7") // and who was one need not stay one
	if s.recall("stranger7") == nil {
		t.Error("a new user is still taken for a stranger")
	}
}
