package tokens_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

func TestADocumentIsReplacedByWhoHasSeenIt(t *testing.T) {
	h := newHouse(t)
	other := h.node(&firsts{})
	if _, err := h.Document(ctx, "fido.rules"); !errors.Is(err, tokens.ErrNotFound) {
		t.Fatal(err)
	}
	if _, err := other.Document(ctx, "fido.rules"); !errors.Is(err, tokens.ErrNotFound) {
		t.Fatal(err)
	}
	put := func(s *tokens.Service, expect int64, data string) (tokens.Document, error) {
		w := tokens.DocumentWrite{Name: "fido.rules", Expect: expect}
		if data != "" {
			w.Data = []byte(data)
		}
		return s.PutDocument(ctx, h.admin, policy.FIDORules, "", w, []audit.Field{{Name: "changed", Value: "default\x00"}})
	}
	d, err := put(h.Service, 0, "one")
	if err != nil || d.Version != 1 || !d.Updated.Equal(h.clock.now()) {
		t.Fatalf("%+v, %v", d, err)
	}
	if r := h.last(); r.Action != "fido.rules.put" || r.Outcome != "ok" || r.Detail[0].Value != "fido.rules" || strings.Contains(r.Detail[1].Value, "\x00") {
		t.Errorf("audited as %+v", r)
	}
	if d, err := h.Document(ctx, "fido.rules"); err != nil || string(d.Data) != "one" || d.Version != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	// The other node knows with its next act.
	if _, _, err := other.Users(ctx, h.admin, tokens.UserQuery{}); err != nil {
		t.Fatal(err)
	}
	if d, err := other.Document(ctx, "fido.rules"); err != nil || string(d.Data) != "one" {
		t.Errorf("another node: %+v, %v", d, err)
	}
	for _, stale := range []int64{0, 2, 7} {
		if _, err := put(other, stale, "two"); !errors.Is(err, tokens.ErrState) {
			t.Errorf("over version %d: %v", stale, err)
		}
		if r := h.last(); r.Outcome != "refused" || r.Reason != "state" {
			t.Errorf("audited as %+v", r)
		}
	}
	if d, err = put(other, 1, "two"); err != nil || d.Version != 2 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestADocumentIsReadOnceUntilSomethingChanges(t *testing.T) {
	h := newHouse(t)
	h.must(h.PutDocument(ctx, h.admin, policy.FIDOImport, "", tokens.DocumentWrite{Name: "fido.mds", Data: []byte("blob")}, nil))
	read := func(name string) {
		t.Helper()
		if _, err := h.Document(ctx, name); err != nil && !errors.Is(err, tokens.ErrNotFound) {
			t.Fatal(err)
		}
	}
	read("fido.mds")
	read("fido.roots")
	before := h.db.documents.Load()
	for range 10 {
		read("fido.mds")
		read("fido.roots")
	}
	if n := h.db.documents.Load() - before; n != 0 {
		t.Errorf("read %d times more", n)
	}
	h.must(h.PutDocument(ctx, h.admin, policy.FIDOImport, "", tokens.DocumentWrite{Name: "fido.mds", Expect: 1}, nil))
	if _, err := h.Document(ctx, "fido.mds"); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
	for _, name := range []string{"", "a\x00b", strings.Repeat("x", 256)} {
		if _, err := h.PutDocument(ctx, h.admin, policy.FIDOImport, "", tokens.DocumentWrite{Name: name, Data: []byte("x")}, nil); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("a name of %d bytes: %v", len(name), err)
		}
	}
}

func TestGroupsAreFoldedAndReplaced(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	set := func(groups ...string) string {
		t.Helper()
		got, err := h.SetGroups(ctx, h.admin, "", "Alice", groups)
		if err != nil {
			t.Fatal(err)
		}
		stored, err := h.UserGroups(ctx, h.admin, "", "alice")
		if err != nil || fmt.Sprint(stored) != fmt.Sprint(got) {
			t.Errorf("%v is stored as %v, %v", got, stored, err)
		}
		held, err := h.KeyHolder(ctx, h.admin, "", "alice", rp)
		if err != nil || fmt.Sprint(held.Groups) != fmt.Sprint(got) {
			t.Errorf("a ceremony sees %v, %v", held.Groups, err)
		}
		return fmt.Sprint(got)
	}
	if got := set("Staff", "admins", "STAFF", "Ärzte"); got != "[admins staff ärzte]" {
		t.Error(got)
	}
	before := h.standing("alice").Version
	set("staff", "Admins", "ärzte")
	if h.standing("alice").Version != before || h.records("user.groups", "ok")[0].Reason != string(tokens.ReasonUnchanged) {
		t.Error("the same groups are a change")
	}
	if got := set(); got != "[]" {
		t.Error(got)
	}
	many := make([]string, 65)
	for i := range many {
		many[i] = fmt.Sprint("g", i)
	}
	for name, groups := range map[string][]string{"too many": many, "an empty one": {""}, "a NUL": {"a\x00"}} {
		if _, err := h.SetGroups(ctx, h.admin, "", "alice", groups); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := h.SetGroups(ctx, h.admin, "", "nobody", nil); !errors.Is(err, tokens.ErrNotFound) {
		t.Error(err)
	}
	if _, err := h.UserGroups(ctx, h.admin, "", "nobody"); !errors.Is(err, tokens.ErrNotFound) {
		t.Error(err)
	}
}

// What was spent is forgotten an hour after it has expired, and what is forgotten
// is refused all the same, should the clock be set back.
func TestWhatWasSpentIsForgottenWhenItIsOfNoUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var back atomic.Int64
		h := newHouse(t, func(c *tokens.Config) {
			c.Now = func() time.Time { return time.Now().Add(-time.Duration(back.Load())) }
		})
		k := newSeckey("one") // which does not count
		h.clock.set(time.Now())
		h.enrol("alice", k)
		a := h.shows("alice", k)
		h.concludes(a, true, tokens.ReasonAccepted)
		chain, _, err := h.mem.MintChain(ctx)
		if err != nil {
			t.Fatal(err)
		}
		// A change that is refused in any case, as spent if it is remembered.
		remembered := func() bool {
			synctest.Wait()
			records, _ := audit.Append(audit.Head{Chain: chain}, []audit.Event{{Time: time.Now(), Action: "server.start"}})
			c := tokens.Change{Records: records, Spends: []tokens.Spend{a.Spend}, Documents: []tokens.DocumentWrite{{Name: "x", Expect: 7, Data: []byte("x")}}}
			err := h.mem.Commit(ctx, &c)
			if err == nil {
				t.Fatal("the change was made")
			}
			return errors.Is(err, tokens.ErrSpent)
		}
		time.Sleep(64 * time.Minute)
		if !remembered() {
			t.Error("forgotten before the hour is over")
		}
		time.Sleep(4 * time.Minute)
		if remembered() {
			t.Error("it is never forgotten")
		}
		back.Store(int64(68 * time.Minute))
		h.concludes(a, false, tokens.ReasonExpired)
		h.Service = h.node(&firsts{}, func(c *tokens.Config) { c.Now = time.Now })
		h.concludes(a, false, tokens.ReasonExpired)
	})
}
