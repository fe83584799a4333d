package tokens_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/storetest"
)

func open(t *testing.T, mem *storetest.Memory, keys hsmtest.Keystore, f *firsts) (*tokens.Service, error) {
	t.Helper()
	s, err := tokens.Open(ctx, tokens.Config{Database: mem, Custody: keys}, keys, f)
	if err == nil {
		t.Cleanup(func() {
			if err := s.Close(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	return s, err
}

func TestTheFirstKeyIsMadeOnceAndWorks(t *testing.T) {
	mem, keys := storetest.NewMemory(t), hsmtest.NewMemory(t)
	var f, again firsts
	s, err := open(t, mem, keys, &f)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := s.Authenticate(ctx, f.key); err != nil || p.Scope != "admin" || p.Realm != "" {
		t.Errorf("%+v, %v", p, err)
	}
	if len(f.secret) < 32 || strings.Contains(f.key, f.secret) {
		t.Errorf("a shared secret of %d bytes, or part of the key", len(f.secret))
	}
	other, err := open(t, mem, keys, &again)
	if err != nil || again.key != "" {
		t.Fatalf("opened again: %v, another key %v", err, again.key != "")
	}
	if _, err := other.Authenticate(ctx, f.key); err != nil {
		t.Error(err)
	}
}

func TestManyNodesStartingTogetherMakeOneFirstKey(t *testing.T) {
	mem, keys := storetest.NewMemory(t), hsmtest.NewMemory(t)
	var all sync.WaitGroup
	list := make([]firsts, 6)
	for i := range list {
		all.Go(func() {
			if _, err := open(t, mem, keys, &list[i]); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	made := 0
	for _, f := range list {
		if f.key != "" {
			made++
		}
	}
	recorded, err := mem.HSMKeys(ctx)
	if made != 1 || len(recorded) != len(hsm.KeyNames()) || err != nil {
		t.Errorf("%d first keys, %d HSM keys, %v", made, len(recorded), err)
	}
}

// A key that nobody knows would lock everyone out.
func TestWhereTheFirstKeyCannotBeSavedNoneIsMade(t *testing.T) {
	mem, keys := storetest.NewMemory(t), hsmtest.NewMemory(t)
	full := errors.New("no space left")
	lost := firsts{err: full}
	if _, err := open(t, mem, keys, &lost); !errors.Is(err, full) {
		t.Fatalf("%v", err)
	}
	var f firsts
	s, err := open(t, mem, keys, &f)
	if err != nil || f.key == "" {
		t.Fatalf("the second time: %v", err)
	}
	if _, err := s.Authenticate(ctx, f.key); err != nil {
		t.Error(err)
	}
	if _, err := s.Authenticate(ctx, lost.key); err == nil {
		t.Error("the key that was not saved opens")
	}
}

func TestAFirstKeyWhoseCommitFailedIsMadeAnewOrKept(t *testing.T) {
	for name, fault := range map[string]storetest.Fault{"failed": storetest.Failed, "failed, but persisted": storetest.FailedButPersisted} {
		t.Run(name, func(t *testing.T) {
			mem, keys := storetest.NewMemory(t), hsmtest.NewMemory(t)
			mem.Inject(storetest.None, fault) // after the start record
			var f, again firsts
			if _, err := open(t, mem, keys, &f); !errors.Is(err, tokens.ErrUnavailable) || f.key == "" {
				t.Fatalf("%v", err)
			}
			s, err := open(t, mem, keys, &again)
			if err != nil {
				t.Fatal(err)
			}
			current := f.key
			if fault == storetest.Failed {
				current = again.key
			}
			if _, err := s.Authenticate(ctx, current); err != nil {
				t.Error(err)
			}
			if kept := again.key == ""; kept != (fault == storetest.FailedButPersisted) {
				t.Errorf("kept: %v", kept)
			}
		})
	}
}

func TestAnotherHSMIsRefused(t *testing.T) {
	mem := storetest.NewMemory(t)
	if _, err := open(t, mem, hsmtest.NewMemory(t), &firsts{}); err != nil {
		t.Fatal(err)
	}
	before, _ := mem.HSMKeys(ctx)
	if _, err := open(t, mem, hsmtest.NewMemory(t), &firsts{}); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("%v", err)
	}
	if after, _ := mem.HSMKeys(ctx); len(after) != len(before) {
		t.Error("keys were made")
	}
	if _, err := mem.Lock(ctx); err != nil {
		t.Errorf("the lock is still held: %v", err)
	}
}

type sick struct{ hsmtest.Keystore }

func (s *sick) SelfTest(context.Context) error { return errors.New("the HMAC is another") }

func TestAnHSMThatFailsItsSelfTestIsRefused(t *testing.T) {
	mem, keys := storetest.NewMemory(t), hsmtest.NewMemory(t)
	if _, err := open(t, mem, &sick{keys}, &firsts{}); err == nil || !strings.Contains(err.Error(), "self-test") {
		t.Errorf("%v", err)
	}
}

// A commit that was given up may arrive after the chain was asked for its head.
func TestACommitThatArrivesLateBreaksNothing(t *testing.T) {
	h := &house{TB: t, mem: storetest.NewMemory(t), keys: &meter{Keystore: hsmtest.NewMemory(t)}, clock: &clock{}, log: &lockedBuffer{}}
	h.clock.set(start)
	h.db = &editor{Memory: h.mem}
	late := &lateDatabase{Database: h.db}
	h.open(func(c *tokens.Config) { c.Database = late })
	d := totp("T1")
	h.give("alice", d)
	for when := range 4 { // after so many more calls it arrives
		h.clock.forward(90 * time.Second)
		late.next(when)
		code := d.code(h, 0)
		accepted := 0
		if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: code}); !errors.Is(err, tokens.ErrUnavailable) || r.Accept {
			t.Errorf("%+v, %v", r, err)
		}
		for range 3 {
			r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: code})
			if err != nil && !errors.Is(err, tokens.ErrUnavailable) {
				t.Error(err)
			}
			if r.Accept {
				accepted++
			}
		}
		late.arrive()
		if r, err := h.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: code}); err != nil || r.Accept {
			t.Errorf("at the end: %+v, %v", r, err)
		}
		if accepted > 1 {
			t.Errorf("%d accepts were told", accepted)
		}
	}
	if n := h.acceptedOnce(); n != 4 {
		t.Errorf("%d accepts in the audit, want 4", n)
	}
	h.intact()
}

// lateDatabase loses the answer of one commit, and makes it only some calls
// later.
type lateDatabase struct {
	tokens.Database
	mu    sync.Mutex
	armed bool
	after int
	late  *tokens.Change
}

func (l *lateDatabase) next(after int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed, l.after = true, after
}

func (l *lateDatabase) arrive() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.late != nil {
		_ = l.Database.Commit(ctx, l.late) // it may find that it is too late
		l.late = nil
	}
}

func (l *lateDatabase) call() {
	l.mu.Lock()
	l.after--
	now := l.after < 0
	l.mu.Unlock()
	if now {
		l.arrive()
	}
}

func (l *lateDatabase) Commit(ctx context.Context, c *tokens.Change) error {
	l.mu.Lock()
	if l.armed {
		l.armed = false
		late := *c
		late.Made = nil // the call has ended then
		l.late = &late
		l.mu.Unlock()
		return tokens.ErrUnavailable
	}
	l.mu.Unlock()
	err := l.Database.Commit(ctx, c)
	l.call()
	return err
}

func (l *lateDatabase) Recall(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	return l.Load(ctx, refs)
}

func (l *lateDatabase) Load(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	v, err := l.Database.Load(ctx, refs)
	l.call()
	return v, err
}

func (l *lateDatabase) Heads(ctx context.Context) ([]audit.Head, error) {
	heads, err := l.Database.Heads(ctx)
	l.call()
	return heads, err
}
