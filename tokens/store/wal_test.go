package store

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// journalled is a new SQLite database with the head of a chain of its own.
func journalled(t *testing.T) (*DB, audit.Head) {
	t.Helper()
	ctx := context.Background()
	db, err := Open(ctx, "sqlite:"+filepath.Join(t.TempDir(), "w.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if err := db.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	chain, _, err := db.MintChain(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return db, audit.Head{Chain: chain}
}

func attempt(head *audit.Head) *tokens.Change {
	c := &tokens.Change{}
	c.Records, *head = audit.Append(*head, []audit.Event{{Time: time.Now(), Action: "x"}})
	return c
}

func TestACommitFollowsAnotherThatWaitsForTheDisk(t *testing.T) {
	db, head := journalled(t)
	ctx := context.Background()
	log := db.engine.(*sqliteDB).log
	// The disk is busy: nothing becomes durable until it is let go.
	log.mu.Lock()
	log.flushing = true
	log.mu.Unlock()

	done := make(chan error, 2)
	for range 2 {
		c := attempt(&head)
		made := make(chan struct{})
		c.Made = func() { close(made) }
		go func() { done <- db.Commit(ctx, c) }()
		<-made
	}
	heads, err := db.Heads(ctx)
	if err != nil || len(heads) != 1 || heads[0] != head {
		t.Errorf("what was made is not seen: %v, %v", heads, err)
	}
	select {
	case err := <-done:
		t.Fatalf("it was called durable (%v) while the disk was busy", err)
	case <-time.After(50 * time.Millisecond):
	}
	log.mu.Lock()
	log.flushing = false
	log.change.Broadcast()
	log.mu.Unlock()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if log.durable != log.written {
		t.Errorf("%d of %d commits are durable", log.durable, log.written)
	}
}

func TestAfterAWriteThatDidNotReachTheDiskNothingIsWritten(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, log *wal){
		"the disk fails": func(t *testing.T, log *wal) {
			// What cannot be flushed stands for a disk that fails.
			var ends [2]int
			if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(unix.Dup3(ends[0], log.fd, unix.O_CLOEXEC), unix.Close(ends[0]), unix.Close(ends[1])); err != nil {
				t.Fatal(err)
			}
		},
		"the log was removed": func(t *testing.T, log *wal) {
			if err := os.Remove(log.path); err != nil {
				t.Fatal(err)
			}
		},
		"the log was replaced": func(t *testing.T, log *wal) {
			if err := os.WriteFile(log.path+"2", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(log.path+"2", log.path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, head := journalled(t)
			ctx := context.Background()
			if err := db.Commit(ctx, attempt(&head)); err != nil {
				t.Fatal(err)
			}
			before := head
			spoil(t, db.engine.(*sqliteDB).log)
			err := db.Commit(ctx, attempt(&head))
			if !errors.Is(err, tokens.ErrUnavailable) || !strings.Contains(err.Error(), "could not be made durable") {
				t.Errorf("the commit ended with %v", err)
			}
			made := 0
			again := attempt(&head)
			again.Made = func() { made++ }
			if err := db.Commit(ctx, again); !errors.Is(err, tokens.ErrUnavailable) || made != 0 {
				t.Errorf("a further one ended with %v, made %d times", err, made)
			}
			if _, err := db.Load(ctx, nil); !errors.Is(err, tokens.ErrUnavailable) {
				t.Errorf("a database that takes no writes passes for well: %v", err)
			}
			if heads, err := db.Heads(ctx); err == nil && (len(heads) != 1 || heads[0].Seq > before.Seq+1) {
				t.Errorf("the further one is there: %v", heads)
			}
		})
	}
}

// What the log holds at start may be in the system's memory alone, as it is after
// a failure of the disk: nothing is to be written behind it.
func TestAtStartTheLogIsMovedIntoTheDatabase(t *testing.T) {
	db, head := journalled(t)
	ctx := context.Background()
	if err := db.Commit(ctx, attempt(&head)); err != nil {
		t.Fatal(err)
	}
	path := db.engine.(*sqliteDB).path
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() == 0 {
		t.Fatalf("the log is empty: %v, %v", info, err)
	}
	again, err := Open(ctx, "sqlite:"+path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path + "-wal"); err != nil || info.Size() != 0 {
		t.Errorf("the log was left as it was: %d bytes, %v", info.Size(), err)
	}
	if heads, err := again.Heads(ctx); err != nil || len(heads) != 1 || heads[0] != head {
		t.Errorf("heads: %v, %v", heads, err)
	}
	if err := db.Commit(ctx, attempt(&head)); err != nil {
		t.Errorf("the other handle: %v", err)
	}
}

func TestTheLogOfADatabaseBehindALinkIsTheOneThatIsMadeDurable(t *testing.T) {
	ctx := context.Background()
	far, near := t.TempDir(), t.TempDir()
	link := filepath.Join(near, "w.db")
	if err := os.Symlink(filepath.Join(far, "w.db"), link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(link+"-wal", nil, 0o600); err != nil { // left behind by a move
		t.Fatal(err)
	}
	db, err := Open(ctx, "sqlite:"+link, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(ctx); err != nil {
		t.Fatal(err)
	}
	var flushed unix.Stat_t
	if err := unix.Stat(filepath.Join(far, "w.db-wal"), &flushed); err != nil {
		t.Fatal(err)
	}
	if log := db.engine.(*sqliteDB).log; log.file.Ino != flushed.Ino {
		t.Errorf("%s is flushed", log.path)
	}
}

func TestADatabaseMayBeClosedWhileOthersCommit(t *testing.T) {
	for range 10 {
		db, _ := journalled(t)
		var all sync.WaitGroup
		begun := make(chan struct{})
		var once sync.Once
		for range 3 {
			all.Go(func() {
				for {
					_, _, err := db.MintChain(context.Background())
					once.Do(func() { close(begun) })
					if err != nil {
						return
					}
				}
			})
		}
		<-begun
		_ = db.Close()
		all.Wait()
	}
}

func TestADetailIsKeptAsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var fields []audit.Field
		for range rapid.IntRange(1, 4).Draw(t, "fields") {
			fields = append(fields, audit.Field{Name: rapid.String().Draw(t, "name"), Value: rapid.String().Draw(t, "value")})
		}
		want, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		if got := encodeDetail(fields); got != string(want) {
			t.Errorf("%s instead of %s", got, want)
		}
	})
}
