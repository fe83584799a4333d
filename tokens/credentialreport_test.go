package tokens_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/tokens"
)

// report is the credential report, one line for each row: who, what, and findings.
func (h *house) report(p tokens.Principal, q tokens.ReportQuery) []string {
	h.Helper()
	var lines []string
	err := h.Report(ctx, p, q, func(r tokens.ReportRow) error {
		line := fmt.Sprintf("%s/%s %s", r.Realm, r.User, r.Serial)
		for _, f := range r.Findings {
			line += " " + string(f)
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		h.Fatal(err)
	}
	return lines
}

func TestTheReportSaysWhatSomebodyShouldLookAt(t *testing.T) {
	h := newHouse(t)
	strong := totp("T3")
	strong.Algorithm = hsm.SHA256
	h.give("alice", totp("T1"))
	h.give("bob", hotp("H1"), strong)
	h.user("carol")
	h.user("dave")
	h.give("erin", totp("T4"))
	h.ship("", totp("T5"))
	h.must(h.Suspend(ctx, h.admin, "", "T4", ""))
	h.must(h.SetUserState(ctx, h.admin, "", "dave", tokens.UserDisabled))
	got := h.report(h.admin, tokens.ReportQuery{Unowned: true})
	want := []string{
		"default/alice T1 sha1 never_used", "default/bob H1 sha1 never_used", "default/bob T3 never_used",
		"default/carol  no_second_factor", "default/dave ", "default/erin T4 no_second_factor sha1", "default/ T5 sha1",
	}
	if !slices.Equal(got, want) {
		t.Fatalf("the report:\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := h.report(h.admin, tokens.ReportQuery{Find: tokens.FindNoSecondFactor, Unowned: true}); !slices.Equal(got, []string{want[3], want[5]}) {
		t.Errorf("users without a second factor: %q", got)
	}
	if got := h.report(h.admin, tokens.ReportQuery{}); !slices.Equal(got, want[:6]) {
		t.Errorf("without what nobody holds: %q", got)
	}

	h.pin("carol", "73951482", true)
	h.clock.forward(91 * 24 * time.Hour)
	h.must(h.SetExpiry(ctx, h.admin, "", "T3", h.clock.now().Add(time.Second)))
	h.clock.forward(time.Second)
	want = []string{
		"default/alice T1 sha1 unused never_used", "default/bob H1 sha1 unused never_used", "default/bob T3 unused never_used expired",
		"default/carol  pin_due no_second_factor", "default/dave ", "default/erin T4 no_second_factor sha1",
	}
	if got := h.report(h.admin, tokens.ReportQuery{}); !slices.Equal(got, want) {
		t.Errorf("after 91 days:\n%s", strings.Join(got, "\n"))
	}
	if got := h.report(h.admin, tokens.ReportQuery{Unused: 92 * 24 * time.Hour, Find: tokens.FindUnused}); len(got) != 0 {
		t.Errorf("unused for 92 days: %q", got)
	}

	sum, err := h.Summary(ctx, h.admin, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[tokens.Finding]int{}
	for _, f := range sum.Findings {
		found[f.Finding] = f.Count
	}
	for f, n := range map[tokens.Finding]int{
		tokens.FindNoSecondFactor: 2, tokens.FindUnused: 3, tokens.FindSHA1: 4, tokens.FindExpired: 1,
		tokens.FindLocked: 0, tokens.FindPINDue: 1, tokens.FindNeverUsed: 3, tokens.FindDrift: 0,
	} {
		if got, ok := found[f]; !ok || got != n {
			t.Errorf("%s: %d, not %d", f, got, n)
		}
	}
	kinds := []tokens.TokenCount{
		{Type: tokens.HOTP, State: tokens.Active, Count: 1}, {Type: tokens.TOTP, State: tokens.Active, Count: 2},
		{Type: tokens.TOTP, State: tokens.Imported, Count: 1}, {Type: tokens.TOTP, State: tokens.Suspended, Count: 1},
	}
	if sum.Users != 5 || sum.Disabled != 1 || sum.Unowned != 1 || !slices.Equal(sum.Tokens, kinds) {
		t.Errorf("%+v", sum)
	}
}

func TestTheReportSaysWhatATokenDid(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	err := h.Report(ctx, h.admin, tokens.ReportQuery{}, func(r tokens.ReportRow) error {
		if r.User != "alice" || r.UserState != tokens.UserEnabled || r.PIN != "none" || r.Serial != "T1" || r.Type != tokens.TOTP ||
			r.Algorithm != "sha1" || r.Digits != 6 || r.Period != 30 || r.State != tokens.Active || r.Batch == 0 ||
			r.Assigned.IsZero() || r.LastUsed.Unix() != h.clock.now().Unix() || !r.Expires.IsZero() || r.DriftSeconds == nil || *r.DriftSeconds != 0 {
			t.Errorf("%+v", r)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "73951482", false))
	if err := h.Report(ctx, h.admin, tokens.ReportQuery{}, func(r tokens.ReportRow) error {
		if r.PIN != "set" {
			t.Errorf("the PIN is %s", r.PIN)
		}
		return errors.New("enough")
	}); err == nil || err.Error() != "enough" {
		t.Errorf("the report ended with %v", err)
	}
}

// What a token has not is not said of it: a clock, for one, and an import.
func TestTheReportSaysNothingOfWhatATokenHasNot(t *testing.T) {
	h := newHouse(t)
	h.allow()
	d, counted := totp("T1"), hotp("H1")
	h.give("alice", d, counted)
	h.ship("", totp("T2"))
	k := newSeckey("alice's")
	h.enrol("alice", k)
	sheet, _ := h.recovery("alice")
	h.ends("alice", counted.at(0), true, tokens.ReasonAccepted)
	clocks := func() map[string]bool {
		list := make(map[string]bool)
		if err := h.Report(ctx, h.admin, tokens.ReportQuery{Unowned: true}, func(r tokens.ReportRow) error {
			if r.DriftSeconds != nil {
				list[r.Serial] = true
			}
			if enrolled := r.Serial == k.serial || r.Serial == sheet.Serial; enrolled != (r.Batch == 0) {
				t.Errorf("%s came with import %d", r.Serial, r.Batch)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got := clocks(); len(got) != 0 {
		t.Errorf("before any was used there are clocks of %v", got)
	}
	h.ends("alice", d.code(h, 0), true, tokens.ReasonAccepted)
	if got := clocks(); len(got) != 1 || !got["T1"] {
		t.Errorf("there are clocks of %v", got)
	}
}

// More users than a page has, and tokens that nobody holds, none twice.
func TestTheReportGoesThroughAllPages(t *testing.T) {
	h := newHouse(t)
	var spare []*device
	for i := range 1201 {
		h.user(fmt.Sprintf("user%d", i))
		if i < 701 {
			spare = append(spare, totp(fmt.Sprintf("S%d", i)))
		}
	}
	h.ship("", spare...)
	seen := map[string]bool{}
	for _, line := range h.report(h.admin, tokens.ReportQuery{Unowned: true}) {
		if seen[line] {
			t.Fatalf("%s comes twice", line)
		}
		seen[line] = true
	}
	if len(seen) != 1902 {
		t.Errorf("%d rows", len(seen))
	}
}

func TestTheReportNamesImportsWithManyResyncs(t *testing.T) {
	h := newHouse(t)
	good, bad := []*device{}, []*device{}
	for i := range 8 {
		good = append(good, totp(fmt.Sprintf("G%d", i)))
		bad = append(bad, totp(fmt.Sprintf("B%d", i)))
	}
	h.ship("", good...)
	h.ship("", bad...)
	h.user("alice")
	resync := func(d *device) {
		h.must(h.Assign(ctx, h.admin, "", d.Serial, "alice"))
		h.must(h.Resync(ctx, h.admin, "", d.Serial, d.code(h, 40), d.code(h, 41)))
		h.must(h.Unassign(ctx, h.admin, "", d.Serial, ""))
	}
	for _, d := range []*device{good[0], good[1], bad[0], bad[1], bad[2]} {
		resync(d)
	}
	sum, err := h.Summary(ctx, h.admin, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(sum.Resyncs) != 1 || sum.Resyncs[0].Resyncs != 3 || sum.Resyncs[0].Tokens != 8 || sum.Resyncs[0].Batch != h.token("B0").Batch {
		t.Errorf("%+v", sum.Resyncs)
	}
	h.clock.forward(91 * 24 * time.Hour)
	if sum, err = h.Summary(ctx, h.admin, "", 0); err != nil || len(sum.Resyncs) != 0 {
		t.Errorf("after 91 days: %+v, %v", sum.Resyncs, err)
	}
}

func TestTheReportOfARealmKnowsNoOther(t *testing.T) {
	h := newHouse(t)
	h.give("alice", totp("T1"))
	h.must(h.AddUser(ctx, h.admin, "corp", "carol"))
	h.ship("corp", totp("C1"))
	corp := h.key("corp", "helpdesk")
	if got := h.report(corp, tokens.ReportQuery{Unowned: true}); !slices.Equal(got, []string{"corp/carol  no_second_factor", "corp/ C1 sha1"}) {
		t.Errorf("%q", got)
	}
	if sum, err := h.Summary(ctx, corp, "", 0); err != nil || sum.Users != 1 || sum.Unowned != 1 || len(sum.Tokens) != 1 {
		t.Errorf("%+v, %v", sum, err)
	}
	none := func(tokens.ReportRow) error { t.Error("a row"); return nil }
	for _, err := range []error{
		h.Report(ctx, corp, tokens.ReportQuery{Realm: "default"}, none),
		h.Report(ctx, h.key("", "verify"), tokens.ReportQuery{}, none),
		second(h.Summary(ctx, corp, "default", 0)),
	} {
		if !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("refused with %v", err)
		}
	}
	for _, q := range []tokens.ReportQuery{{Find: "gold"}, {Unused: -1}} {
		if err := h.Report(ctx, h.admin, q, none); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
