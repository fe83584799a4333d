package tokens_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// aged is a house whose first records are old, and whose last ones are not.
func aged(t *testing.T) (h *house, middle time.Time) {
	h = history(t)
	middle = h.clock.now().Add(time.Hour)
	h.clock.forward(2 * time.Hour)
	h.user("carol")
	h.try("carol", "000000")
	h.clock.forward(40 * 24 * time.Hour)
	h.try("carol", "000000")
	h.must(nil, checkpointed(h))
	return h, middle
}

func checkpointed(h *house) error { _, err := h.CheckpointAudit(ctx, h.admin); return err }

// kept is the audit as an export writes it.
func kept(h *house) (list []audit.Record) {
	h.Helper()
	h.must(nil, h.ExportAudit(ctx, h.admin, tokens.RecordQuery{}, func(r *audit.Record) error {
		line, err := audit.ParseJSON(r.AppendJSON(nil))
		list = append(list, line)
		return err
	}))
	return list
}

func against(h *house, list []audit.Record) tokens.AgainstReport {
	h.Helper()
	report, err := h.CompareAudit(ctx, h.admin, func() (*audit.Record, error) {
		if len(list) == 0 {
			return nil, nil
		}
		r := &list[0]
		list = list[1:]
		return r, nil
	})
	if err != nil {
		h.Fatal(err)
	}
	return report
}

func TestAnAuditThatWasCutIsProvenFromThereOn(t *testing.T) {
	h, middle := aged(t)
	before := kept(h)
	plan, err := h.CutAudit(ctx, h.admin, middle, true)
	if err != nil || plan.Records == 0 || plan.Removed != 0 || plan.Cut != nil {
		t.Fatalf("%+v, %v", plan, err)
	}
	if len(kept(h)) < len(before) {
		t.Fatal("a look removed something")
	}
	done, err := h.CutAudit(ctx, h.admin, middle, false)
	if err != nil || done.Removed != plan.Records || done.Records != plan.Records || done.Cut == nil || !slices.Equal(done.Heads, plan.Heads) {
		t.Fatalf("%+v, %v; planned %+v", done, err, plan)
	}
	for _, r := range kept(h) {
		if r.Time.Before(middle) {
			t.Errorf("record %d of chain %d is still there", r.Seq, r.Chain)
		}
	}
	h.intact()
	report := against(h, before)
	if !report.Intact || report.Removed != done.Removed || report.Compared != int64(len(before)) || report.Cuts != 1 || report.Unremoved != 0 {
		t.Errorf("%+v", report)
	}
	// Nothing is older any more, and the next cut names what this one did.
	if again, err := h.CutAudit(ctx, h.admin, middle, false); err != nil || again.Cut != nil || again.Removed != 0 {
		t.Errorf("%+v, %v", again, err)
	}
	h.clock.forward(40 * 24 * time.Hour)
	h.try("carol", "000000")
	second, err := h.CutAudit(ctx, h.admin, h.clock.now().Add(-31*24*time.Hour), false)
	if err != nil || second.Removed == 0 {
		t.Fatalf("%+v, %v", second, err)
	}
	h.intact()
	if report := against(h, before); !report.Intact || report.Removed < done.Removed {
		t.Errorf("%+v", report)
	}
}

func TestYoungRecordsAreNotCut(t *testing.T) {
	h, _ := aged(t)
	n := len(kept(h))
	if _, err := h.CutAudit(ctx, h.admin, h.clock.now().Add(-30*24*time.Hour+time.Second), false); !errors.Is(err, tokens.ErrInvalid) {
		t.Error(err)
	}
	if r := h.last(); r.Action != "audit.cut" || r.Outcome != "refused" {
		t.Errorf("%+v", r)
	}
	if len(kept(h)) < n {
		t.Error("something was removed")
	}
}

func TestWhatWasAlteredIsNotCut(t *testing.T) {
	h, middle := aged(t)
	h.db.edit(func(e *editor) {
		e.onward = func(l []audit.Record) []audit.Record {
			for i := range l {
				if l[i].Seq == 3 {
					l[i].Reason = "x"
				}
			}
			return l
		}
	})
	if _, err := h.CutAudit(ctx, h.admin, middle, false); !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "record 3 was altered") {
		t.Error(err)
	}
	h.db.edit(func(e *editor) { e.onward = nil })
	h.intact()
}

// The power goes after the cut was signed: the next one removes what it names.
func TestACutThatWasBrokenOffIsGoneOnWith(t *testing.T) {
	h, middle := aged(t)
	before := kept(h)
	h.db.edit(func(e *editor) { e.uncut = errors.New("the power is gone") })
	done, err := h.CutAudit(ctx, h.admin, middle, false)
	if err == nil || done.Cut == nil {
		t.Fatalf("%+v, %v", done, err)
	}
	report, err := h.VerifyAudit(ctx, h.admin)
	if err != nil || !report.Intact || report.Unremoved != done.Records {
		t.Errorf("%+v, %v", report, err)
	}
	h.db.edit(func(e *editor) { e.uncut = nil })
	again, err := h.CutAudit(ctx, h.admin, middle, false)
	if err != nil || again.Removed != done.Records {
		t.Errorf("%+v, %v", again, err)
	}
	if report := against(h, before); !report.Intact || report.Unremoved != 0 {
		t.Errorf("%+v", report)
	}
}

// What is done to an audit that was cut is found as in one that was not.
func TestACutAuditNoticesWhatWasDoneToIt(t *testing.T) {
	h, middle := aged(t)
	before := kept(h)
	done, err := h.CutAudit(ctx, h.admin, middle, false)
	if err != nil {
		t.Fatal(err)
	}
	own := done.Cut.Chain
	for _, c := range []struct {
		name string
		edit func(l []audit.Record) []audit.Record
		says string
	}{
		{"the first record that stayed", func(l []audit.Record) []audit.Record { l[0].Reason = "x"; return l }, "was altered"},
		{"the first record that stayed is gone", func(l []audit.Record) []audit.Record { return l[1:] }, "missing"},
		{"one that was removed is put back", func(l []audit.Record) []audit.Record {
			for _, r := range before {
				if r.Chain == l[0].Chain && r.Seq == l[0].Seq-1 {
					return slices.Insert(l, 0, r)
				}
			}
			return l
		}, "it was put there"},
		{"the cut names more", func(l []audit.Record) []audit.Record {
			for i := range l {
				if l[i].Action == "audit.cut" && l[i].Seq == done.Cut.Seq {
					setDetail(&l[i], "last", "99999")
				}
			}
			return l
		}, "the signature of the cut is wrong"},
	} {
		h.db.edit(func(e *editor) {
			e.chain = func(l []audit.Record) []audit.Record {
				if len(l) > 0 && l[0].Chain == own {
					return c.edit(slices.Clone(l))
				}
				return l
			}
		})
		report, err := h.VerifyAudit(ctx, h.admin)
		if err != nil || report.Intact || !strings.Contains(strings.Join(report.Problems, "\n"), c.says) {
			t.Errorf("%s: %v, %+v; want %q", c.name, err, report, c.says)
		}
		h.db.edit(func(e *editor) { e.chain = nil })
	}
	h.intact()
}

// Nothing in the database shows that the end of a chain was taken away before anybody
// named it. What was kept elsewhere does.
func TestTheEndOfAChainIsMissedByWhatWasKept(t *testing.T) {
	h := history(t)
	list := kept(h)
	if report := against(h, list); !report.Intact || report.Compared != int64(len(list)) {
		t.Fatalf("%+v", report)
	}
	slices.Reverse(list)
	if report := against(h, list); !report.Intact {
		t.Errorf("in another order: %+v", report)
	}
	extra := list[0]
	extra.Seq += 1000
	if report := against(h, []audit.Record{extra}); report.Intact || !strings.Contains(strings.Join(report.Problems, "\n"), "which the file holds, is missing") {
		t.Errorf("%+v", report)
	}
	other := list[3]
	other.Reason = "x"
	if report := against(h, []audit.Record{other}); report.Intact || !strings.Contains(strings.Join(report.Problems, "\n"), "one of them was altered") {
		t.Errorf("%+v", report)
	}
	other.Hash[0]++
	if report := against(h, []audit.Record{other}); report.Intact || !strings.Contains(strings.Join(report.Problems, "\n"), "is not the one that the file holds") {
		t.Errorf("%+v", report)
	}
}

// A checkpoint on demand names every chain, also those that did not move.
func TestACheckpointOnDemandNamesAllChains(t *testing.T) {
	h := history(t)
	for range 2 {
		heads, err := h.mem.Heads(ctx)
		if err != nil {
			t.Fatal(err)
		}
		k, err := h.CheckpointAudit(ctx, h.admin)
		if err != nil || len(k.Signature) != 64 || len(k.Key) == 0 || !slices.Equal(k.Heads, heads) {
			t.Errorf("%+v, %v; the chains end at %+v", k, err, heads)
		}
		if r := h.last(); r.Action != "audit.checkpoint" || r.Hash != k.Record.Hash || r.Actor == "system" {
			t.Errorf("%+v", r)
		}
	}
	h.intact()
}

// With a copy of a removed start, somebody makes up a chain: its signature is good, and
// is of another chain.
func TestAStartThatIsNotItsOwnIsNoticed(t *testing.T) {
	h := history(t)
	chains, err := h.mem.Chains(ctx)
	if err != nil {
		t.Fatal(err)
	}
	h.db.edit(func(e *editor) {
		e.chain = func(l []audit.Record) []audit.Record {
			if len(l) > 0 && l[0].Chain == chains[2] {
				list := slices.Clone(l)
				list[0].Detail = nil
				h.must(nil, h.mem.Walk(ctx, chains[1], func(r *audit.Record) error {
					if r.Seq == 1 {
						list[0].Detail = r.Detail
					}
					return nil
				}))
				return rehash(list)
			}
			return l
		}
	})
	report, err := h.VerifyAudit(ctx, h.admin)
	if err != nil || report.Intact || !strings.Contains(strings.Join(report.Problems, "\n"), "is the start of chain") {
		t.Errorf("%+v, %v", report, err)
	}
	h.db.edit(func(e *editor) { e.chain = nil })
}

// TestTheServerCutsWhatIsTooOld: with AuditExpire it does by itself what an administrator
// does, as soon as it starts; without a day's records to remove it does nothing; and not
// while a sink waits for them.
func TestTheServerCutsWhatIsTooOld(t *testing.T) {
	h, middle := aged(t)
	old := kept(h)
	oldest := func() time.Time { return kept(h)[0].Time }
	expiring := func(c *tokens.Config) { c.AuditExpire = true }
	second := h.node(&firsts{}, expiring, func(c *tokens.Config) { c.AuditKeep = 60 * 24 * time.Hour })
	h.must(nil, tokens.ExpireAudit(second, ctx))
	if len(kept(h)) < len(old) {
		t.Fatal("what is younger than AuditKeep went")
	}
	third := h.node(&firsts{}, expiring)
	eventually(t, "what is older than 30 days is removed", func() error {
		if at := oldest(); at.Before(h.clock.now().Add(-30 * 24 * time.Hour)) {
			return fmt.Errorf("the oldest is of %s", at)
		}
		return nil
	})
	var cuts int
	for _, r := range h.records("audit.cut", "ok") {
		if r.Actor != "system" {
			t.Errorf("%+v", r)
		}
		for _, f := range r.Detail {
			if f.Name == "heads" {
				cuts++
			}
		}
	}
	if cuts != 1 {
		t.Errorf("%d signed cuts", cuts)
	}
	if report, err := h.VerifyAudit(ctx, h.admin); err != nil || !report.Intact {
		t.Errorf("%+v, %v", report, err)
	}
	if report := against(h, old); !report.Intact || report.Removed == 0 {
		t.Errorf("%+v", report)
	}

	// There is nothing to remove until that is a day's records.
	quiet := len(h.records("audit.cut", ""))
	h.must(nil, tokens.ExpireAudit(third, ctx))
	h.clock.forward(23 * time.Hour)
	h.must(nil, tokens.ExpireAudit(third, ctx))
	if n := len(h.records("audit.cut", "")); n != quiet {
		t.Errorf("%d records of cuts that were none", n-quiet)
	}
	// Two nodes at once: the audit is whole all the same.
	h.clock.forward(31 * 24 * time.Hour)
	h.try("carol", "000000")
	fourth := h.node(&firsts{}, func(c *tokens.Config) { c.AuditKeep = 30 * 24 * time.Hour })
	var both sync.WaitGroup
	for _, s := range []*tokens.Service{third, fourth} {
		both.Go(func() {
			if err := tokens.ExpireAudit(s, ctx); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if report, err := h.VerifyAudit(ctx, h.admin); err != nil || !report.Intact || oldest().Before(middle.Add(30*24*time.Hour)) {
		t.Errorf("%+v, and the oldest is of %s", report, oldest())
	}
}

func TestTheServerCutsNothingThatASinkWaitsFor(t *testing.T) {
	r := newReceiver()
	r.fault = func([]audit.Record) (int, error) { return 0, errBefore }
	h := newHouse(t, quick(r))
	h.mustSink(tokens.NewSink{Name: "siem", Kind: tokens.SinkFile})
	h.clock.forward(40 * 24 * time.Hour)
	n := len(kept(h))
	if err := tokens.ExpireAudit(h.Service, ctx); !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "siem") {
		t.Errorf("%v", err)
	}
	if len(kept(h)) < n {
		t.Error("something was removed")
	}
	if list := h.records("audit.cut", "refused"); len(list) != 1 || list[0].Actor != "system" {
		t.Errorf("%+v", list)
	}
	r.set(func(r *receiver) { r.fault = nil })
	eventually(t, "it is cut once it was told", func() error { return tokens.ExpireAudit(h.Service, ctx) })
	if at := kept(h)[0].Time; at.Before(h.clock.now().Add(-30 * 24 * time.Hour)) {
		t.Errorf("the oldest is of %s", at)
	}
}

// A node whose clock runs years ahead removes nothing.
func TestAClockThatIsWrongCutsNothing(t *testing.T) {
	h := newHouse(t)
	h.user("alice")
	h.db.edit(func(e *editor) { e.clock = func() time.Time { return h.clock.now() } })
	ahead := h.node(&firsts{}, func(c *tokens.Config) {
		c.Now = func() time.Time { return h.clock.now().Add(10 * 365 * 24 * time.Hour) }
	})
	n := len(kept(h))
	if err := tokens.ExpireAudit(ahead, ctx); !errors.Is(err, tokens.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	if len(kept(h)) < n || len(h.records("audit.cut", "")) > 0 {
		t.Error("the audit was cut")
	}
}
