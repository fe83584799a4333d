package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/store"
	"watchword/tokens/storetest"
)

// childEnv tells the test binary to be a server's process instead.
const childEnv = "WATCHWORD_STORE_CHILD"

func TestMain(m *testing.M) {
	if role, url, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		if err := child(role, url); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func command(t *testing.T, role, url string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+role+" "+url)
	cmd.Stderr = os.Stderr
	return cmd
}

// child starts as a server does, and then, as "writer", accepts until killed,
// saying each step that was confirmed, or, as "desk", replaces passcodes.
func child(role, url string) error {
	ctx := context.Background()
	db, err := store.Open(ctx, url, store.Options{})
	if err != nil {
		return err
	}
	unlock, err := db.Lock(ctx)
	if err != nil {
		return err
	}
	if err := db.Migrate(ctx); err != nil {
		return err
	}
	if err := unlock(); err != nil {
		return err
	}
	w, err := newWriter(db)
	act := w.accept
	switch role {
	case "writer":
	case "desk":
		act = w.replace
	default:
		return err
	}
	if err != nil {
		return err
	}
	for {
		step, err := act(ctx)
		if err != nil {
			return err
		}
		fmt.Println(step)
	}
}

// writer accepts one step after another for alice.
type writer struct {
	db   *store.DB
	head audit.Head
}

func newWriter(db *store.DB) (*writer, error) {
	chain, _, err := db.MintChain(context.Background())
	return &writer{db: db, head: audit.Head{Chain: chain}}, err
}

func (w *writer) commit(ctx context.Context, c *tokens.Change, e audit.Event) error {
	e.Time = time.Now()
	var next audit.Head
	c.Records, next = audit.Append(w.head, []audit.Event{e})
	err := w.db.Commit(ctx, c)
	if err == nil {
		w.head = next
	}
	return err
}

func (w *writer) accept(ctx context.Context) (int64, error) {
	view, err := w.db.Load(ctx, []tokens.Ref{{Realm: "default", User: "alice"}})
	if err != nil {
		return 0, err
	}
	s := view.Subjects[0]
	next := s.Standing
	next.Version++
	step := s.Tokens[0].Last + 1
	return step, w.commit(ctx, &tokens.Change{
		Standings: []tokens.StandingWrite{{UserID: s.User.ID, Expect: s.Version, Next: next}},
		Motions:   []tokens.MotionWrite{{TokenID: s.Tokens[0].ID, UserID: s.User.ID, Last: step}},
	}, audit.Event{Action: "verify", Outcome: "accept", Realm: "default", User: "alice", Detail: []audit.Field{{Name: "step", Value: strconv.FormatInt(step, 10)}}})
}

// alice gives alice a token.
func alice(t *testing.T, db *store.DB) *writer {
	t.Helper()
	ctx := context.Background()
	w, err := newWriter(db)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	u := &tokens.User{Realm: "default", Name: "alice", Key: "alice", State: tokens.UserEnabled}
	must(w.commit(ctx, &tokens.Change{NewUsers: []tokens.NewUser{{User: u}}}, audit.Event{}))
	batch, err := db.Begin(ctx, tokens.Batch{Realm: "default"})
	must(err)
	_, err = db.Stage(ctx, batch, []tokens.Token{sampleToken("A1")})
	must(err)
	must(w.commit(ctx, &tokens.Change{Publish: []tokens.Batch{{ID: batch}}}, audit.Event{}))
	list, _, err := db.Tokens(ctx, tokens.TokenQuery{Limit: 1})
	must(err)
	list[0].OwnerID, list[0].State = u.ID, tokens.Active
	must(w.commit(ctx, &tokens.Change{
		Standings: []tokens.StandingWrite{{UserID: u.ID, Expect: 1, Next: tokens.Standing{Version: 2}}},
		Tokens:    []tokens.TokenWrite{{Token: list[0], Expect: 1}},
	}, audit.Event{}))
	return w
}

// audited checks each chain's hashes, and answers the steps that were accepted.
func audited(t *testing.T, db *store.DB) map[int64]bool {
	t.Helper()
	ctx := context.Background()
	steps := make(map[int64]bool)
	chains, err := db.Chains(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range chains {
		var head audit.Head
		if err := db.Walk(ctx, chain, func(r *audit.Record) error {
			if r.Seq != head.Seq+1 || audit.Sum(head.Hash, r.Chain, r.Seq, &r.Event) != r.Hash {
				return fmt.Errorf("chain %d is broken at %d", chain, r.Seq)
			}
			head = audit.Head{Chain: chain, Seq: r.Seq, Hash: r.Hash}
			if r.Action == "verify" {
				step, err := strconv.ParseInt(r.Detail[0].Value, 10, 64)
				if steps[step] {
					return fmt.Errorf("step %d was accepted twice", step)
				}
				steps[step] = true
				return err
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	return steps
}

func TestProcessesMigrateAtOnce(t *testing.T) {
	for name, url := range map[string]string{"sqlite": sqliteURL(t), "postgres": storetest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			const n = 4
			var wg sync.WaitGroup
			for range n {
				cmd := command(t, "starter", url)
				wg.Go(func() {
					if err := cmd.Run(); err != nil {
						t.Errorf("a process did not start: %v", err)
					}
				})
			}
			wg.Wait()
			chains, err := openMigrated(t, url).Chains(context.Background())
			if err != nil || len(chains) != n {
				t.Errorf("%d processes minted %d chains, %v", n, len(chains), err)
			}
		})
	}
}

func TestHandlesMigrateAtOnceWithoutBeingAsked(t *testing.T) {
	for name, url := range map[string]string{"sqlite": sqliteURL(t), "postgres": storetest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() { // Migrate takes the lock by itself
					db, err := store.Open(context.Background(), url, store.Options{})
					if err != nil {
						t.Error(err)
						return
					}
					defer db.Close()
					if err := db.Migrate(context.Background()); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestANewerSchemaIsRefused(t *testing.T) {
	for name, url := range map[string]string{"sqlite": sqliteURL(t), "postgres": storetest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			db := openMigrated(t, url)
			raw := rawDatabase(t, url)
			if _, err := raw.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)`); err != nil {
				t.Fatal(err)
			}
			if err := db.Migrate(context.Background()); !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "newer Watchword") {
				t.Errorf("Migrate: %v", err)
			}
		})
	}
}

func TestSQLiteSurvivesKill(t *testing.T) {
	url := sqliteURL(t)
	alice(t, openMigrated(t, url))
	confirmed := int64(-1)
	for range 8 {
		cmd := command(t, "writer", url)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(400*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			step, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil || step <= confirmed {
				t.Fatalf("step %q was confirmed after %d", lines.Text(), confirmed)
			}
			confirmed = step
		}
		kill.Stop()
		_ = cmd.Wait()

		db := openMigrated(t, url)
		steps := audited(t, db)
		for step := range confirmed + 1 {
			if !steps[step] {
				t.Fatalf("step %d, confirmed up to %d, is not in the audit", step, confirmed)
			}
		}
		view, err := db.Load(context.Background(), []tokens.Ref{{Realm: "default", User: "alice"}})
		if err != nil {
			t.Fatal(err)
		}
		if last := view.Subjects[0].Tokens[0].Last; last < confirmed {
			t.Fatalf("step %d was confirmed, and the token is at %d", confirmed, last)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if confirmed < 20 {
		t.Errorf("only %d steps were confirmed in all", confirmed+1)
	}
}

func TestPostgresSurvivesKill(t *testing.T) {
	c := storetest.NewCluster(t)
	db := openMigrated(t, c.Database())
	w := alice(t, db)
	confirmed := int64(-1)
	for range 3 {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		killed := time.AfterFunc(500*time.Millisecond, c.Kill)
		for {
			step, err := w.accept(ctx)
			if err != nil {
				if !errors.Is(err, tokens.ErrUnavailable) {
					t.Fatalf("while the server was killed: %v", err)
				}
				break
			}
			confirmed = step
		}
		killed.Stop()
		begun := time.Now()
		if _, err := w.accept(ctx); !errors.Is(err, tokens.ErrUnavailable) {
			t.Errorf("without a server: %v", err)
		}
		if waited := time.Since(begun); waited > 10*time.Second {
			t.Errorf("without a server, the answer took %v", waited)
		}
		c.Start()
		heads, err := db.Heads(ctx) // the outcome of the last commit is unknown
		if err != nil {
			t.Fatalf("after the server's return: %v", err)
		}
		w.head = heads[0]
		steps := audited(t, db)
		for step := range confirmed + 1 {
			if !steps[step] {
				t.Fatalf("step %d, confirmed up to %d, is not in the audit", step, confirmed)
			}
		}
		if confirmed, err = w.accept(ctx); err != nil {
			t.Fatalf("after the server's return: %v", err)
		}
		cancel()
	}
}

func TestDurabilityWarns(t *testing.T) {
	c := storetest.NewCluster(t)
	url := c.Database()
	db := openMigrated(t, url)
	ctx := context.Background()
	if warnings, sync, err := db.Durability(ctx); err != nil || sync || len(warnings) != 0 {
		t.Errorf("a server as it comes: %q, %v, %v", warnings, sync, err)
	}
	c.Exec(url, "ALTER SYSTEM SET fsync = off")
	c.Exec(url, "ALTER SYSTEM SET full_page_writes = off")
	c.Exec(url, "ALTER SYSTEM SET synchronous_commit = off")
	c.Restart()
	warnings, sync, err := db.Durability(ctx)
	if err != nil || sync || len(warnings) != 3 {
		t.Fatalf("a server that promises nothing: %q, %v, %v", warnings, sync, err)
	}
	for i, word := range []string{"fsync", "full_page_writes", "synchronous_commit"} {
		if !strings.Contains(warnings[i], word) {
			t.Errorf("warning %d does not name %s: %s", i, word, warnings[i])
		}
	}
	c.Exec(url, "ALTER SYSTEM RESET ALL")
	c.Exec(url, "ALTER SYSTEM SET synchronous_standby_names = '*'")
	c.Exec(url, "ALTER SYSTEM SET synchronous_commit = 'remote_write'")
	c.Restart()
	if warnings, sync, err := db.Durability(ctx); err != nil || sync || len(warnings) != 1 {
		t.Errorf("a standby that only receives: %q, %v, %v", warnings, sync, err)
	}
}

func TestRefusedURLs(t *testing.T) {
	for _, url := range []string{
		"mysql://x", "", "sqlite:", "postgres://u:geheim@127.0.0.1:bad/x", "postgres://u:geheim@%zz/x", "postgres://u:geheim@h/x?sslmode=never",
		"postgres://u:geheim@h/x?connect_timeout=soon",
	} {
		db, err := store.Open(context.Background(), url, store.Options{})
		if err == nil {
			db.Close()
		}
		if !errors.Is(err, tokens.ErrInvalid) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("Open(%q): %v", url, err)
		}
	}
	notOne := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(notOne, []byte(strings.Repeat("this is no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	if db, err := store.Open(context.Background(), "sqlite:"+notOne, store.Options{}); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("Open of a file that is no database: %v", err)
		db.Close()
	}
	begun := time.Now()
	if db, err := store.Open(context.Background(), "postgres://u:geheim@127.0.0.1:1/x?sslmode=disable", store.Options{}); !errors.Is(err, tokens.ErrUnavailable) ||
		strings.Contains(err.Error(), "geheim") || time.Since(begun) > 5*time.Second {
		t.Errorf("Open where nobody listens: %v", err)
		db.Close()
	}
}

func TestTheDatabaseFileIsPrivate(t *testing.T) {
	url := sqliteURL(t)
	db := openMigrated(t, url)
	alice(t, db)
	path := strings.TrimPrefix(url, "sqlite:")
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		info, err := os.Stat(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o600 {
			t.Errorf("%s has mode %o", path+suffix, mode)
		}
	}
}

func TestManyTokensAreDiscarded(t *testing.T) {
	for name, url := range map[string]string{"sqlite": sqliteURL(t), "postgres": storetest.Postgres(t)} {
		t.Run(name, func(t *testing.T) {
			db, ctx := openMigrated(t, url), context.Background()
			batch, err := db.Begin(ctx, tokens.Batch{Realm: "default"})
			if err != nil {
				t.Fatal(err)
			}
			for from := 0; from < 11_000; from += 1000 {
				var list []tokens.Token
				for i := range 1000 {
					list = append(list, sampleToken(fmt.Sprintf("S%d", from+i)))
				}
				if _, err := db.Stage(ctx, batch, list); err != nil {
					t.Fatal(err)
				}
			}
			if n, err := db.Sweep(ctx, time.Now().Add(time.Minute)); err != nil || n != 1 {
				t.Fatalf("Sweep: %d, %v", n, err)
			}
			var left int
			if err := rawDatabase(t, url).QueryRow(`SELECT (SELECT count(*) FROM tokens) + (SELECT count(*) FROM batches WHERE id > 0)`).Scan(&left); err != nil || left != 0 {
				t.Errorf("%d rows are left, %v", left, err)
			}
		})
	}
}
