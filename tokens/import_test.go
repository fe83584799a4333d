package tokens_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/storetest"
)

func record(serial string) tokens.NewToken {
	d := totp(serial)
	d.Seed = []byte("0123456789" + fmt.Sprintf("%10s", serial))
	return d.NewToken
}

func wiped(list []tokens.NewToken) bool {
	for _, n := range list {
		if !bytes.Equal(n.Seed, make([]byte, len(n.Seed))) {
			return false
		}
	}
	return true
}

func (h *house) begin(in tokens.NewImport) *tokens.Import {
	h.Helper()
	i, err := h.BeginImport(ctx, h.admin, in)
	if err != nil {
		h.Fatal(err)
	}
	return i
}

// visible are the serials that can be seen.
func (h *house) visible() []string {
	h.Helper()
	list, _, err := h.Tokens(ctx, h.admin, tokens.TokenQuery{})
	if err != nil {
		h.Fatal(err)
	}
	var serials []string
	for _, t := range list {
		serials = append(serials, t.Serial)
	}
	return serials
}

func TestAnImportIsInvisibleUntilItIsPublished(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	i := h.begin(tokens.NewImport{Name: "a.csv", Format: "oath-csv"})
	list := []tokens.NewToken{record("T1"), record("T2")}
	for _, n := range list {
		h.mem.Watch(n.Seed)
	}
	added, err := i.Add(ctx, list)
	if err != nil || added[0].Outcome != tokens.OutcomeCreated || added[1].Outcome != tokens.OutcomeCreated {
		t.Fatalf("%v, %v", added, err)
	}
	if !wiped(list) {
		t.Error("seeds stay in the caller's memory")
	}
	hidden := func(when string) {
		t.Helper()
		if got := h.visible(); len(got) != 0 {
			t.Errorf("%s: %v can be seen", when, got)
		}
		if _, err := h.ShowToken(ctx, h.admin, "", "T1"); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("%s: show: %v", when, err)
		}
		if _, err := h.Assign(ctx, h.admin, "", "T1", "alice"); !errors.Is(err, tokens.ErrNotFound) {
			t.Errorf("%s: assign: %v", when, err)
		}
		if list, err := h.Batches(ctx, h.admin, tokens.BatchQuery{}); err != nil || len(list) != 0 {
			t.Errorf("%s: batches %v, %v", when, list, err)
		}
	}
	hidden("staged")
	b, err := i.Publish(ctx, strings.Repeat("ab", 32), 2, 1, 3)
	if err != nil || b.Tokens != 2 || b.Duplicate != 1 || b.Rejected != 3 {
		t.Fatalf("%+v, %v", b, err)
	}
	if r := h.last(); r.Action != "import.publish" || r.Outcome != "ok" || !strings.Contains(fmt.Sprint(r.Detail), strings.Repeat("ab", 32)) {
		t.Errorf("audited as %+v", r)
	}
	if n := len(h.records("import.publish", "")); n != 1 {
		t.Errorf("%d records for one import", n)
	}
	if got := h.visible(); !slices.Equal(got, []string{"T1", "T2"}) {
		t.Errorf("published: %v", got)
	}
	if batches, err := h.Batches(ctx, h.admin, tokens.BatchQuery{}); err != nil || len(batches) != 1 || batches[0].Name != "a.csv" || batches[0].SHA256 != strings.Repeat("ab", 32) {
		t.Errorf("%+v, %v", batches, err)
	}
	// It has ended.
	if _, err := i.Publish(ctx, "00", 2, 0, 0); !errors.Is(err, tokens.ErrState) {
		t.Errorf("published twice: %v", err)
	}
	late := []tokens.NewToken{record("T3")}
	if _, err := i.Add(ctx, late); !errors.Is(err, tokens.ErrState) || !wiped(late) {
		t.Errorf("added after the end: %v, wiped %v", err, wiped(late))
	}
	if err := i.Discard(ctx, "too late"); err != nil || len(h.visible()) != 2 {
		t.Errorf("discarded after the end: %v, %v", err, h.visible())
	}
	h.intact()
}

func TestADiscardedImportLeavesNothingButARecord(t *testing.T) {
	h := newHouse(t)
	i := h.begin(tokens.NewImport{Name: "a.csv"})
	if _, err := i.Add(ctx, []tokens.NewToken{record("T1")}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := i.Discard(ctx, "line 17: bad"); err != nil {
			t.Fatal(err)
		}
	}
	if r := h.last(); r.Action != "import.discard" || !strings.Contains(fmt.Sprint(r.Detail), "line 17") {
		t.Errorf("audited as %+v", r)
	}
	if n := len(h.records("import.discard", "")); n != 1 {
		t.Errorf("%d records", n)
	}
	if got := h.visible(); len(got) != 0 {
		t.Errorf("%v are there", got)
	}
	h.ship("", totp("T1")) // the serial is free
	h.intact()
}

func TestExistingTokensAreNeverTouchedByAnImport(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	before := h.token("T1")
	i := h.begin(tokens.NewImport{Name: "a.csv"})
	list := []tokens.NewToken{record("T1"), record("T2"), record("T2"), record("t1")}
	added, err := i.Add(ctx, list)
	if err != nil {
		t.Fatal(err)
	}
	want := []tokens.Outcome{tokens.OutcomeDuplicate, tokens.OutcomeCreated, tokens.OutcomeDuplicate, tokens.OutcomeCreated}
	for k := range added {
		if added[k].Outcome != want[k] || (added[k].Reason == "") != (want[k] == tokens.OutcomeCreated) {
			t.Errorf("record %d: %+v, want %s", k, added[k], want[k])
		}
	}
	// Also what came in one of the chunks before is a duplicate.
	if added, err := i.Add(ctx, []tokens.NewToken{record("T2")}); err != nil || added[0].Outcome != tokens.OutcomeDuplicate {
		t.Errorf("%v, %v", added, err)
	}
	h.must(i.Publish(ctx, "00", 2, 2, 0))
	if after := h.token("T1"); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%+v became %+v", before, after)
	}
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	h.intact()
}

// If it were called a duplicate, and the other import failed, it would be said to
// exist, and nobody would have it.
func TestASerialOfAnotherImportUnderWayIsNotSaidToExist(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	first := h.begin(tokens.NewImport{Name: "a.csv"})
	if _, err := first.Add(ctx, []tokens.NewToken{record("T1"), record("T2")}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for k, in := range []tokens.NewImport{{Name: "b.csv"}, {Name: "b.csv", DryRun: true}, {Name: "b.csv", Assign: true}} {
		wg.Go(func() {
			i := h.begin(in)
			list := []tokens.NewToken{record(fmt.Sprint("T", 3+k)), record("T2")}
			if _, err := i.Add(ctx, list[:1]); err != nil {
				t.Errorf("%+v: another serial: %v", in, err)
			}
			added, err := i.Add(ctx, list[1:])
			if !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "T2") || !wiped(list) {
				t.Errorf("%+v: %+v, %v, wiped %v", in, added, err, wiped(list))
			}
			if _, err := i.Publish(ctx, "00", 1, 1, 0); !errors.Is(err, tokens.ErrState) {
				t.Errorf("%+v: published: %v", in, err)
			}
			if err := i.Discard(ctx, "the import failed"); err != nil {
				t.Errorf("%+v: %v", in, err)
			}
		})
	}
	wg.Wait()
	if err := first.Discard(ctx, "the client has gone"); err != nil {
		t.Fatal(err)
	}
	h.ship("", totp("T1"), totp("T2"), totp("T3"), totp("T4")) // all of them are free
	h.intact()
}

// Whoever interrupts an import and begins it again at once gets all tokens.
func TestAnImportWaitsForOneThatIsBeingRemoved(t *testing.T) {
	for _, published := range []bool{false, true} {
		h := newHouse(t)
		first, second := h.begin(tokens.NewImport{Name: "a.csv"}), h.begin(tokens.NewImport{Name: "a.csv"})
		if _, err := first.Add(ctx, []tokens.NewToken{record("T1"), record("T2")}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(200 * time.Millisecond)
			if published {
				h.must(first.Publish(ctx, "00", 2, 0, 0))
			} else if err := first.Discard(ctx, "the client has gone"); err != nil {
				t.Error(err)
			}
		})
		added, err := second.Add(ctx, []tokens.NewToken{record("T0"), record("T1"), record("T2")})
		wg.Wait()
		want := tokens.OutcomeCreated
		if published {
			want = tokens.OutcomeDuplicate
		}
		if err != nil || added[0].Outcome != tokens.OutcomeCreated || added[1].Outcome != want || added[2].Outcome != want {
			t.Fatalf("published %v: %+v, %v", published, added, err)
		}
		h.must(second.Publish(ctx, "00", 3, 0, 0))
		if got := h.visible(); len(got) != 3 {
			t.Errorf("published %v: %v are there", published, got)
		}
		h.intact()
	}
}

func TestADryRunWritesNothing(t *testing.T) {
	h := newHouse(t)
	h.ship("", totp("T1"))
	before := h.snapshot("")
	wraps := &wrapCounter{Keystore: h.keys.Keystore}
	h.keys.Keystore = wraps
	i := h.begin(tokens.NewImport{Name: "a.csv", DryRun: true})
	list := []tokens.NewToken{record("T1"), record("T2"), record("T2"), {Serial: "bad"}}
	added, err := i.Add(ctx, list)
	if err != nil || !wiped(list) {
		t.Fatalf("%v, wiped %v", err, wiped(list))
	}
	more := []tokens.NewToken{record("T2"), record("T4")}
	again, err := i.Add(ctx, more)
	if err != nil {
		t.Fatal(err)
	}
	want := []tokens.Outcome{tokens.OutcomeDuplicate, tokens.OutcomeCreated, tokens.OutcomeDuplicate, tokens.OutcomeRejected, tokens.OutcomeDuplicate, tokens.OutcomeCreated}
	for k, a := range append(added, again...) {
		if a.Outcome != want[k] {
			t.Errorf("record %d: %+v, want %s", k, a, want[k])
		}
	}
	if _, err := i.Publish(ctx, "00", 1, 0, 0); !errors.Is(err, tokens.ErrState) {
		t.Errorf("published: %v", err)
	}
	if err := i.Discard(ctx, ""); err != nil {
		t.Error(err)
	}
	if after := h.snapshot(""); after != before || wraps.n != 0 {
		t.Errorf("%d seeds were wrapped;\n%s\n%s", wraps.n, before, after)
	}
	if n, err := h.mem.Sweep(ctx, start.AddDate(1, 0, 0)); n != 0 || err != nil {
		t.Errorf("%d batches were staged, %v", n, err)
	}
}

// wrapCounter counts the seeds that are wrapped.
type wrapCounter struct {
	hsmtest.Keystore
	n int
}

func (w *wrapCounter) Wrap(ctx context.Context, seeds []hsm.Seed) ([]hsm.Wrapped, error) {
	w.n += len(seeds)
	return w.Keystore.Wrap(ctx, seeds)
}

func TestSeedsAreWipedAlsoWhereTheImportFails(t *testing.T) {
	for name, c := range map[string]struct {
		fail func(h *house)
		heal func(h *house)
		err  error
	}{
		"HSM":      {func(h *house) { h.keys.memory().Fail(errors.New("unplugged")) }, func(h *house) { h.keys.memory().Heal() }, tokens.ErrUnavailable},
		"too many": {nil, nil, tokens.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			i := h.begin(tokens.NewImport{Name: "a.csv"})
			if _, err := i.Add(ctx, []tokens.NewToken{record("T0")}); err != nil {
				t.Fatal(err)
			}
			n := 3
			if c.fail == nil {
				n = 1001
			} else {
				c.fail(h)
			}
			var list []tokens.NewToken
			for k := range n {
				list = append(list, record(fmt.Sprintf("T%d", k+1)))
			}
			list = append(list, tokens.NewToken{Serial: "bad", Seed: []byte("rejected, and a secret all the same")})
			if _, err := i.Add(ctx, list); !errors.Is(err, c.err) {
				t.Errorf("%v, want %v", err, c.err)
			}
			if !wiped(list) {
				t.Error("seeds stay in memory")
			}
			if c.heal != nil {
				c.heal(h)
				if _, err := i.Publish(ctx, "00", 1, 0, 0); !errors.Is(err, tokens.ErrState) {
					t.Errorf("a part of it was published: %v", err)
				}
			}
			if err := i.Discard(ctx, "failed"); err != nil {
				t.Error(err)
			}
			if got := h.visible(); len(got) != 0 {
				t.Errorf("%v are there", got)
			}
		})
	}
}

func TestBadRecordsAreRejectedOneByOneWithTheirReason(t *testing.T) {
	h := newHouse(t)
	edit := func(f func(n *tokens.NewToken)) tokens.NewToken {
		n := record("T")
		f(&n)
		return n
	}
	for name, n := range map[string]tokens.NewToken{
		"no serial":       edit(func(n *tokens.NewToken) { n.Serial = "" }),
		"serial, space":   edit(func(n *tokens.NewToken) { n.Serial = "a b" }),
		"short seed":      edit(func(n *tokens.NewToken) { n.Seed = n.Seed[:9] }),
		"no seed":         edit(func(n *tokens.NewToken) { n.Seed = nil }),
		"long seed":       edit(func(n *tokens.NewToken) { n.Seed = bytes.Repeat([]byte("x"), 129) }),
		"five digits":     edit(func(n *tokens.NewToken) { n.Digits = 5 }),
		"no digits":       edit(func(n *tokens.NewToken) { n.Digits = 0 }),
		"no period":       edit(func(n *tokens.NewToken) { n.Period = 0 }),
		"no type":         edit(func(n *tokens.NewToken) { n.Type = "" }),
		"no algorithm":    edit(func(n *tokens.NewToken) { n.Algorithm = 0 }),
		"counter":         edit(func(n *tokens.NewToken) { n.Type, n.Counter = tokens.HOTP, 1<<63 }),
		"drift":           edit(func(n *tokens.NewToken) { n.Drift = 1 << 40 }),
		"model, not text": edit(func(n *tokens.NewToken) { n.Model = "\xff" }),
		"model, NUL":      edit(func(n *tokens.NewToken) { n.Model = "a\x00" }),
		"long model":      edit(func(n *tokens.NewToken) { n.Model = strings.Repeat("x", 256) }),
	} {
		i := h.begin(tokens.NewImport{Name: "a.csv"})
		list := []tokens.NewToken{n, record("good")}
		seed := string(n.Seed)
		added, err := i.Add(ctx, list)
		if err != nil || added[0].Outcome != tokens.OutcomeRejected || added[0].Reason == "" || added[1].Outcome != tokens.OutcomeCreated {
			t.Errorf("%s: %+v, %v", name, added, err)
			continue
		}
		if len(seed) > 0 && strings.Contains(added[0].Reason, seed) || !wiped(list) {
			t.Errorf("%s: the seed is told or kept: %s", name, added[0].Reason)
		}
		if err := i.Discard(ctx, ""); err != nil {
			t.Error(err)
		}
	}
}

func TestSeedsOfAllLengthsGiveTheirCodes(t *testing.T) {
	h := newHouse(t)
	n := 0
	for digest := range digests {
		for _, length := range []int{10, 16, 19, 20, 32, 33, 64, 65, 128} {
			n++
			d := totp(fmt.Sprintf("T%d", n))
			d.Algorithm = digest
			d.seed = bytes.Repeat([]byte{byte(n), 7, byte(length)}, 50)[:length]
			i := h.begin(tokens.NewImport{Name: "a.csv"})
			nt := d.NewToken
			nt.Seed = slices.Clone(d.seed)
			if added, err := i.Add(ctx, []tokens.NewToken{nt}); err != nil || added[0].Outcome != tokens.OutcomeCreated {
				t.Fatalf("%v, %v", added, err)
			}
			h.must(i.Publish(ctx, "00", 1, 0, 0))
			user := fmt.Sprintf("user%d", n)
			h.user(user)
			h.must(h.Assign(ctx, h.admin, "", d.Serial, user))
			h.ends(user, d.code(h, 0), true, tokens.ReasonAccepted)
		}
	}
}

func TestAFileNameIsKeptAsText(t *testing.T) {
	h := newHouse(t)
	for _, name := range []string{strings.Repeat("ä", 200), "a\x00b\n.csv", "\xff\xfe.csv", strings.Repeat("x", 254) + "€", ""} {
		i := h.begin(tokens.NewImport{Name: name})
		if _, err := i.Add(ctx, []tokens.NewToken{record(fmt.Sprintf("T%d", len(name)))}); err != nil {
			t.Fatal(err)
		}
		b, err := i.Publish(ctx, "00", 1, 0, 0)
		if err != nil || !utf8.ValidString(b.Name) || len(b.Name) > 255 || strings.ContainsAny(b.Name, "\x00\n") {
			t.Errorf("%q: %q, %v", name, b.Name, err)
		}
	}
	h.intact()
}

// A key deleted, or a realm's key, cannot publish what it began.
func TestWhoMayNoLongerImportPublishesNothing(t *testing.T) {
	h := newHouse(t)
	p := h.key("", "admin")
	i, err := h.BeginImport(ctx, p, tokens.NewImport{Name: "a.csv"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.Add(ctx, []tokens.NewToken{record("T1")}); err != nil {
		t.Fatal(err)
	}
	if err := h.DeleteKey(ctx, h.admin, p.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Publish(ctx, "00", 1, 0, 0); !errors.Is(err, tokens.ErrUnknownKey) {
		t.Errorf("%v", err)
	}
	if err := i.Discard(ctx, "no longer allowed"); err != nil {
		t.Error(err)
	}
	if got := h.visible(); len(got) != 0 {
		t.Errorf("%v are there", got)
	}
}

// Whoever is told that publishing failed, and discards, must not take away what
// was published all the same.
func TestDiscardingAfterADoubtfulPublishTakesNothingAway(t *testing.T) {
	for name, c := range map[string]struct {
		fault storetest.Fault
		want  int
	}{"failed": {storetest.Failed, 0}, "failed, but persisted": {storetest.FailedButPersisted, 1}} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			i := h.begin(tokens.NewImport{Name: "a.csv"})
			if _, err := i.Add(ctx, []tokens.NewToken{record("T1")}); err != nil {
				t.Fatal(err)
			}
			h.mem.Inject(c.fault)
			if _, err := i.Publish(ctx, "00", 1, 0, 0); !errors.Is(err, tokens.ErrUnavailable) {
				t.Fatalf("%v", err)
			}
			if err := i.Discard(ctx, "it failed"); err != nil && !errors.Is(err, tokens.ErrState) {
				t.Error(err)
			}
			if got := h.visible(); len(got) != c.want {
				t.Errorf("%v can be seen, want %d", got, c.want)
			}
			h.intact()
		})
	}
}
