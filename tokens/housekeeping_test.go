package tokens_test

import (
	"testing"
	"testing/synctest"
	"time"

	"watchword/tokens"
)

// These tests run in a bubble where an hour passes at once.

func TestStrangersAreCountedAndRecordedAMinuteLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *tokens.Config) { c.Now = time.Now })
		for range 500 {
			if h.try("nobody", "000000") {
				t.Fatal("accepted")
			}
		}
		if got := len(h.records("verify", "reject")); got != 10 {
			t.Errorf("%d records for 500 attempts, want 10", got)
		}
		time.Sleep(70 * time.Second)
		synctest.Wait()
		list := h.records("verify", "reject")
		if len(list) != 11 || list[0].Detail[0].Value != "490" {
			t.Errorf("%d records a minute later, the last with %v", len(list), list[0].Detail)
		}
		h.intact()
	})
}

// Also where nothing is written any more, an unknown name takes as long as a
// known one.
func TestStrangersThatAreOnlyCountedWaitAsLongAsOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *tokens.Config) { c.Now = time.Now })
		d := totp("T1")
		h.give("alice", d)
		h.mem.Slow(4 * time.Millisecond)
		took := func(user string) time.Duration {
			begin := time.Now()
			if h.try(user, "000000") {
				t.Fatal("accepted")
			}
			return time.Since(begin)
		}
		for range 100 {
			took("nobody")
			took("alice")
		}
		records := len(h.records("verify", "reject"))
		known, unknown := took("alice"), took("nobody")
		if diff := known - unknown; diff < -time.Millisecond || diff > time.Millisecond {
			t.Errorf("a known user takes %v, an unknown one %v", known, unknown)
		}
		if len(h.records("verify", "reject")) != records+1 {
			t.Error("the test does not test it: the unknown user was recorded")
		}
	})
}

func TestFaultsAreCountedAndRecordedWhenTheDatabaseIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *tokens.Config) { c.Now = time.Now })
		for range 100 {
			h.try("nobody", "000000")
		}
		h.mem.FailLoads(100)
		h.mem.Slow(time.Minute) // longer than a commit may take
		time.Sleep(3 * time.Minute)
		h.mem.Slow(0)
		h.mem.FailLoads(0)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		counted := false
		for _, r := range h.records("verify", "reject") {
			counted = counted || len(r.Detail) > 0 && r.Detail[0].Value == "90"
		}
		if !counted {
			t.Error("90 attempts were counted and never recorded")
		}
		h.intact()
	})
}

func TestACheckpointIsSignedWhenSomethingHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *tokens.Config) { c.Now = time.Now })
		h.user("alice")
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if got := len(h.records("audit.checkpoint", "ok")); got != 1 {
			t.Errorf("%d checkpoints after six minutes, want 1", got)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if got := len(h.records("audit.checkpoint", "ok")); got != 1 {
			t.Errorf("%d checkpoints after an hour in which nothing happened, want 1", got)
		}
		h.user("bob")
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if got := len(h.records("audit.checkpoint", "ok")); got != 2 {
			t.Errorf("%d checkpoints, want 2", got)
		}
		h.intact()
	})
}

func TestTheLastUseOfAKeyIsNotedToTheMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *tokens.Config) { c.Now = time.Now })
		key, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "portal", Scope: "verify"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		at := time.Now()
		for range 10 {
			if _, err := h.Authenticate(ctx, text); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		list, err := h.Keys(ctx, h.admin)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range list {
			if k.ID == key.ID && !k.LastUsed.Equal(at.Truncate(time.Minute)) {
				t.Errorf("last used %v, want %v", k.LastUsed, at.Truncate(time.Minute))
			}
		}
	})
}

func TestAbandonedImportsAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *tokens.Config) { c.Now = time.Now })
		i, err := h.BeginImport(ctx, h.admin, tokens.NewImport{Name: "a.csv"})
		if err != nil {
			t.Fatal(err)
		}
		d := totp("T1")
		d.NewToken.Seed = []byte("12345678901234567890")
		if _, err := i.Add(ctx, []tokens.NewToken{d.NewToken}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		if _, err := i.Publish(ctx, "00", 1, 0, 0); err == nil {
			t.Error("published after it was removed")
		}
		h.ship("", totp("T1")) // its serial is free again
	})
}

func TestANodeThatIsNotUsedHearsOfChangesAndFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, func(c *tokens.Config) { c.Now = time.Now })
		other := h.node(&firsts{}, func(c *tokens.Config) { c.Now = time.Now })
		_, text, err := h.AddKey(ctx, h.admin, tokens.NewKey{Name: "portal", Scope: "verify"})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if _, err := other.Authenticate(ctx, text); err != nil {
			t.Errorf("seconds later the other node does not know the key: %v", err)
		}
		h.mem.FailLoads(1000)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if p := other.Ready(); len(p) != 1 || p[0].Part != "database" {
			t.Errorf("the database is away, and the other node says %v", p)
		}
		h.mem.FailLoads(0)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if p := other.Ready(); len(p) != 0 {
			t.Errorf("the database is back, and the other node says %v", p)
		}
	})
}
