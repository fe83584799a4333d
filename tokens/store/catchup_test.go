package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/tokens"
	"watchword/tokens/audit"
)

// brief is a context that ends after it was asked whether it has a few times.
type brief struct {
	context.Context
	left int
}

func (c *brief) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

// afterPowerCut opens what a power cut would leave of a database now.
func afterPowerCut(t *testing.T, db *DB) *DB {
	t.Helper()
	from, to := db.engine.(*sqliteDB).path, filepath.Join(t.TempDir(), "w.db")
	for _, part := range []string{"", "-wal"} {
		b, err := os.ReadFile(from + part)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to+part, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	next, err := Open(context.Background(), "sqlite:"+to, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := next.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return next
}

// indexed counts the tokens that have theirs, and the imports that do not.
func indexed(t *testing.T, db *DB) (tokens, imports int) {
	t.Helper()
	if err := db.engine.read(context.Background(), func(s *session) error {
		return errors.Join(
			s.one(`SELECT count(*) FROM token_search_docsize`, nil, &tokens),
			s.one(`SELECT count(*) FROM unsearched`, nil, &imports))
	}); err != nil {
		t.Fatal(err)
	}
	return tokens, imports
}

// However far the trigrams of an import had come when the power went, searches find
// its tokens, before the next start has caught up and after.
func TestTrigramsAreCaughtUpAfterAPowerCut(t *testing.T) {
	const n = 2*searchChunk + 200
	ctx := context.Background()
	for name, c := range map[string]struct {
		chunks  int // that were made before
		publish bool
		undo    bool // the import is undone before the next start has caught up
	}{
		"staged": {}, "published": {publish: true}, "one chunk": {chunks: 1, publish: true}, "all but one": {chunks: 2, publish: true},
		"all": {chunks: 3, publish: true}, "undone": {chunks: 1, publish: true, undo: true},
	} {
		t.Run(name, func(t *testing.T) {
			db, head := journalled(t)
			e := db.engine.(*sqliteDB)
			e.catching.Lock()
			e.busy = true // nobody catches up but we
			e.catching.Unlock()

			list := make([]tokens.Token, n)
			for i := range list {
				list[i] = tokens.Token{
					Realm: "default", Serial: fmt.Sprintf("Tok%05d", i), Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: 30, State: tokens.Imported,
					Created: time.Now(), Wrapped: hsm.Wrapped{Mechanism: "aes-kwp", KEK: 1, Hash: hsm.SHA1, SeedLen: 20, Blob: bytes.Repeat([]byte{1}, 32)},
					Binding: bytes.Repeat([]byte{7}, 32), Motion: tokens.Motion{Last: -1},
				}
			}
			batch, err := db.Begin(ctx, tokens.Batch{Realm: "default"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Stage(ctx, batch, list); err != nil {
				t.Fatal(err)
			}
			publish := func(db *DB) {
				t.Helper()
				change := &tokens.Change{Publish: []tokens.Batch{{ID: batch, Tokens: n, Published: time.Now()}}}
				change.Records, head = audit.Append(head, []audit.Event{{Time: time.Now(), Action: "import.publish"}})
				if err := db.Commit(ctx, change); err != nil {
					t.Fatal(err)
				}
			}
			if c.publish {
				publish(db)
			}
			if c.chunks > 0 {
				// It asks before each chunk and after.
				if err := e.catchUp(&brief{ctx, 2*c.chunks - 1}); !errors.Is(err, context.Canceled) {
					t.Fatalf("catching up ended with %v", err)
				}
			}
			if made, imports := indexed(t, db); made != min(c.chunks*searchChunk, n) || (imports == 1) != c.publish {
				t.Fatalf("%d tokens have trigrams, and %d imports do not", made, imports)
			}

			after := afterPowerCut(t, db)
			finds := func(want bool) {
				t.Helper()
				for part, count := range map[string]int{"tok00000": 1, "OK0049": 10, "0119": 11, "k0": 0, "to": n, "00": 0} {
					if !want {
						count = 0
					}
					found := 0
					for q := (tokens.TokenQuery{Q: part, Limit: 1000}); ; {
						page, next, err := after.Tokens(ctx, q)
						if err != nil {
							t.Fatal(err)
						}
						found += len(page)
						if q.After = next; next == 0 {
							break
						}
					}
					if found != count {
						t.Errorf("a search for %q finds %d tokens, not %d", part, found, count)
					}
				}
			}
			finds(c.publish)
			left := n
			if c.undo {
				for last := int64(-1); last != 0; {
					if _, last, err = after.Remove(ctx, batch, max(last, 0), 500, time.Now()); err != nil {
						t.Fatal(err)
					}
				}
				left = 0
			}
			if err := after.Migrate(ctx); err != nil {
				t.Fatal(err)
			}
			if !c.publish {
				if made, imports := indexed(t, after); made != 0 || imports != 0 {
					t.Errorf("%d tokens that are not published have trigrams, %d imports want them", made, imports)
				}
				finds(false)
				publish(after)
				if err := after.Migrate(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if made, imports := indexed(t, after); made != left || imports != 0 {
				t.Errorf("%d of %d tokens have trigrams, and %d imports do not", made, left, imports)
			}
			finds(left > 0)
		})
	}
}

// What cannot be prepared for searches is said, and tried again until it is done.
func TestAFailureToCatchUpIsSaidAndTriedAgain(t *testing.T) {
	ctx := context.Background()
	wait := catchAgain
	catchAgain = 10 * time.Millisecond
	var log bytes.Buffer
	var mu sync.Mutex
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return log.Write(b)
	}), nil)))
	db, head := journalled(t)
	t.Cleanup(func() { // before the database is closed
		db.engine.(*sqliteDB).settleDown()
		slog.SetDefault(before)
		catchAgain = wait
	})
	rename := func(from, to string) {
		t.Helper()
		if err := db.engine.write(ctx, true, func(s *session) error {
			_, err := s.exec(`ALTER TABLE ` + from + ` RENAME TO ` + to)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	becomes := func(behind bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); db.SearchBehind() != behind; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("behind is %v", !behind)
			}
		}
	}
	rename("unsearched", "hidden")
	batch, err := db.Begin(ctx, tokens.Batch{Realm: "default"})
	if err != nil {
		t.Fatal(err)
	}
	if db.SearchBehind() {
		t.Error("behind before anything was published")
	}
	change := &tokens.Change{Publish: []tokens.Batch{{ID: batch, Published: time.Now()}}}
	change.Records, _ = audit.Append(head, []audit.Event{{Time: time.Now(), Action: "import.publish"}})
	if err := db.Commit(ctx, change); err != nil {
		t.Fatal(err)
	}
	becomes(true)
	mu.Lock()
	if !strings.Contains(log.String(), "cannot be prepared for searches") {
		t.Errorf("the log says %q", log.String())
	}
	mu.Unlock()
	rename("hidden", "unsearched")
	becomes(false)
	if _, imports := indexed(t, db); imports != 0 {
		t.Errorf("%d imports wait for trigrams", imports)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }
