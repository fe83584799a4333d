package tokens_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
)

// bulk does an act in bulk and answers its report and what it said of each token.
func (h *house) bulk(r tokens.BulkRequest) (tokens.BulkReport, map[string]tokens.BulkItem) {
	h.Helper()
	met := map[string]tokens.BulkItem{}
	report, err := h.Bulk(ctx, h.admin, r, func(i tokens.BulkItem) error {
		if _, twice := met[i.Serial]; twice {
			h.Errorf("%s is met twice", i.Serial)
		}
		met[i.Serial] = i
		return nil
	})
	if err != nil || report.Matched != len(met) || report.Matched != report.Done+report.Unchanged+report.Refused {
		h.Fatalf("%+v of %d, %v", report, len(met), err)
	}
	return report, met
}

// fleet is a realm with tokens in many states: T0 to T2 are alice's, T3 is bob's and
// suspended, T4 bob's and lost, T5 was revoked, T6 to T8 are nobody's; alice has an app.
func (h *house) fleet() (soft string) {
	h.Helper()
	h.give("alice", totp("T0"), totp("T1"), totp("T2"))
	h.give("bob", totp("T3"), totp("T4"))
	h.ship("", totp("T5"), totp("T6"), totp("T7"), totp("T8"))
	h.must(h.Suspend(ctx, h.admin, "", "T3", ""))
	h.must(h.MarkLost(ctx, h.admin, "", "T4", ""))
	h.must(h.Revoke(ctx, h.admin, "", "T5", ""))
	t, _ := h.soft(h.admin, "alice")
	return t.Serial
}

func TestADryRunSaysWhatTheBulkThenDoes(t *testing.T) {
	for _, r := range []tokens.BulkRequest{
		{Act: "suspend", Reason: "audit"}, {Act: "resume", Reason: "found"}, {Act: "resume"}, {Act: "lost"}, {Act: "revoke"}, {Act: "unassign"},
		{Act: "expire", Expires: start.AddDate(1, 0, 0)}, {Act: "expire"}, {Act: "tag", Tags: []string{"blue"}}, {Act: "untag", Tags: []string{"red"}}, {Act: "note", Note: "box 7"},
	} {
		t.Run(r.Act+" "+r.Reason, func(t *testing.T) {
			h := newHouse(t)
			soft := h.fleet()
			h.must(h.Annotate(ctx, h.admin, "", "T1", tokens.NoteEdit{Add: []string{"red"}}))
			h.must(h.SetExpiry(ctx, h.admin, "", "T2", start.AddDate(1, 0, 0)))
			r.Serials = []string{"T0", "T1", "T2", "T3", "T4", "T5", "T6", "T1", soft, "T99", "no serial"}
			r.DryRun = true
			before, records := h.snapshot(""), len(h.records("", ""))
			dry, would := h.bulk(r)
			if after := h.snapshot(""); after != before {
				t.Errorf("a dry run changed:\n%s\n%s", before, after)
			}
			if n := len(h.records("", "")) - records; n != 1 || h.last().Action != "token.bulk" {
				t.Errorf("a dry run wrote %d records, the last of them %s", n, h.last().Action)
			}
			r.DryRun = false
			records = len(h.records("", ""))
			real, did := h.bulk(r)
			if real != dry || dry.Matched != 10 {
				t.Errorf("the dry run said %+v, and it became %+v", dry, real)
			}
			for serial, w := range would {
				if w.Outcome == tokens.BulkWould {
					w.Outcome = tokens.BulkDone
				}
				if d := did[serial]; d != w {
					t.Errorf("the dry run said %+v, and it became %+v", w, d)
				}
			}
			// Each token has its own record, and the bulk two; what is no serial has none.
			if n := len(h.records("", "")) - records; n != 2+9 {
				t.Errorf("%d records", n)
			}
			if real.Done == 0 && r.Reason+r.Act != "expire" {
				t.Errorf("nothing was done: %+v", did)
			}
			again, items := h.bulk(r)
			if again.Done != 0 || again.Unchanged != real.Done+real.Unchanged {
				t.Errorf("again: %+v after %+v: %+v", again, real, items)
			}
			h.intact()
		})
	}
}

func TestABulkIsToldWhoHeldTheTokensAndWhyItWasRefused(t *testing.T) {
	h := newHouse(t)
	h.fleet()
	_, met := h.bulk(tokens.BulkRequest{Act: "suspend", Serials: []string{"T0", "T4", "T6", "T99"}})
	for serial, want := range map[string]tokens.BulkItem{
		"T0":  {User: "alice", Outcome: "done"},
		"T4":  {User: "bob", Outcome: "refused", Reason: "token T4 is lost; only an active token can be suspended"},
		"T6":  {Outcome: "refused", Reason: "token T6 is imported; only an active token can be suspended"},
		"T99": {Outcome: "refused", Reason: "no token with this serial"},
	} {
		if want.Serial = serial; met[serial] != want {
			t.Errorf("%+v, want %+v", met[serial], want)
		}
	}
	list := h.records("token.bulk", "ok")
	if len(list) != 2 || !strings.Contains(fmt.Sprint(list[0].Detail), "{matched 4} {done 1} {unchanged 0} {refused 3}") {
		t.Errorf("audited as %+v", list)
	}
	id := list[0].Detail[0]
	if id.Name != "bulk" || list[1].Detail[0] != id {
		t.Errorf("the records of one bulk: %v, %v", id, list[1].Detail)
	}
	if r := h.records("token.suspend", "ok"); !slices.Contains(r[0].Detail, id) || r[0].Serial != "T0" {
		t.Errorf("the token's own record: %+v", r[0])
	}
}

// What an act takes out of a selection neither hides the next one nor shows one twice.
func TestASelectionIsGoneThroughWhole(t *testing.T) {
	h := newHouse(t)
	var list []*device
	for i := range 250 {
		list = append(list, totp(fmt.Sprintf("T%03d", i)))
	}
	h.give("alice", totp("A1"))
	h.ship("", list...)
	h.must(h.Annotate(ctx, h.admin, "", "T007", tokens.NoteEdit{Add: []string{"blue"}}))
	report, _ := h.bulk(tokens.BulkRequest{Act: "tag", Tags: []string{"blue"}, Select: tokens.TokenQuery{State: tokens.Imported, Realm: "corp", Limit: 1, After: 1 << 40}})
	if report != (tokens.BulkReport{Matched: 250, Done: 249, Unchanged: 1}) {
		t.Errorf("tagged: %+v", report)
	}
	report, _ = h.bulk(tokens.BulkRequest{Act: "untag", Tags: []string{"blue"}, Select: tokens.TokenQuery{Tag: "Blue", Q: "t1"}})
	if report != (tokens.BulkReport{Matched: 100, Done: 100}) {
		t.Errorf("untagged: %+v", report)
	}
	report, _ = h.bulk(tokens.BulkRequest{Act: "revoke", Select: tokens.TokenQuery{Tag: "blue"}})
	if report != (tokens.BulkReport{Matched: 150, Done: 150}) {
		t.Errorf("revoked: %+v", report)
	}
	report, met := h.bulk(tokens.BulkRequest{Act: "suspend", Select: tokens.TokenQuery{Owner: "ALICE"}})
	if report != (tokens.BulkReport{Matched: 1, Done: 1}) || met["A1"].User != "alice" {
		t.Errorf("suspended: %+v, %+v", report, met)
	}
	h.intact()
}

// Between the reading of a selection and the act somebody may give a token away: it is
// left to its new owner.
func TestATokenThatChangedSinceItWasSelectedIsLeft(t *testing.T) {
	h := newHouse(t)
	h.ship("", totp("T1"), totp("T2"), totp("T3"))
	h.user("alice")
	var met []tokens.BulkItem
	report, err := h.Bulk(ctx, h.admin, tokens.BulkRequest{Act: "revoke", Select: tokens.TokenQuery{State: tokens.Imported}}, func(i tokens.BulkItem) error {
		if len(met) == 0 {
			h.must(h.Assign(ctx, h.admin, "", "T2", "alice"))
		}
		met = append(met, i)
		return nil
	})
	if err != nil || report != (tokens.BulkReport{Matched: 3, Done: 2, Refused: 1}) || met[1].Serial != "T2" || met[1].Outcome != "refused" || met[1].User != "alice" {
		t.Errorf("%+v, %+v, %v", report, met, err)
	}
	if got := h.token("T2"); got.State != tokens.Active {
		t.Errorf("alice's token is %s", got.State)
	}
}

func TestABulkThatIsInterruptedIsAuditedAndGoesOnWhenAskedAgain(t *testing.T) {
	gone := errors.New("the client has gone")
	for name, interrupt := range map[string]func(h *house, cancel func()) error{
		"the context is over": func(_ *house, cancel func()) error { cancel(); return nil },
		"nobody listens":      func(*house, func()) error { return gone },
		"the HSM is away": func(h *house, _ func()) error {
			h.keys.memory().Fail(errors.New("unplugged"))
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.fleet()
			r := tokens.BulkRequest{Act: "lost", Serials: []string{"T0", "T1", "T2", "T3"}}
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			n := 0
			report, err := h.Bulk(ctx, h.admin, r, func(tokens.BulkItem) error {
				if n++; n == 2 {
					return interrupt(h, cancel)
				}
				return nil
			})
			if err == nil || report != (tokens.BulkReport{Matched: 2, Done: 2}) || name == "nobody listens" != errors.Is(err, gone) {
				t.Fatalf("%+v, %v", report, err)
			}
			h.keys.memory().Heal()
			if got := h.records("token.lost", "ok"); len(got) != 3 { // and T4's before
				t.Errorf("%d records of what was done", len(got))
			}
			if end := h.last(); end.Action != "token.bulk" || end.Outcome != "error" || !strings.Contains(fmt.Sprint(end.Detail), "{done 2}") {
				t.Errorf("its end is audited as %+v", end)
			}
			again, _ := h.bulk(r)
			if again != (tokens.BulkReport{Matched: 4, Done: 2, Unchanged: 2}) {
				t.Errorf("asked again: %+v", again)
			}
			h.intact()
		})
	}
}

func TestABulkThatMakesNoSenseIsRefusedBeforeAnything(t *testing.T) {
	h := newHouse(t)
	h.fleet()
	for what, r := range map[string]tokens.BulkRequest{
		"no act":         {Serials: []string{"T1"}},
		"another act":    {Act: "assign", Serials: []string{"T1"}},
		"no tokens":      {Act: "suspend"},
		"no condition":   {Act: "suspend", Select: tokens.TokenQuery{Realm: "default", After: 3, Limit: 5}},
		"both":           {Act: "suspend", Serials: []string{"T1"}, Select: tokens.TokenQuery{Owner: "alice"}},
		"too many":       {Act: "suspend", Serials: make([]string, 10_001)},
		"no tags":        {Act: "tag", Serials: []string{"T1"}},
		"a bad tag":      {Act: "untag", Serials: []string{"T1"}, Tags: []string{"a b"}},
		"a long note":    {Act: "note", Serials: []string{"T1"}, Note: strings.Repeat("x", 1001)},
		"a long reason":  {Act: "lost", Serials: []string{"T1"}, Reason: strings.Repeat("x", 501)},
		"1960":           {Act: "expire", Serials: []string{"T1"}, Expires: time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)},
		"a name with ␀":  {Act: "lost", Select: tokens.TokenQuery{Q: "\x00"}},
		"no user's name": {Act: "lost", Select: tokens.TokenQuery{Owner: " "}},
	} {
		if report, err := h.Bulk(ctx, h.admin, r, func(tokens.BulkItem) error { return nil }); !errors.Is(err, tokens.ErrInvalid) || report != (tokens.BulkReport{}) {
			t.Errorf("%s: %+v, %v", what, report, err)
		}
	}
	for _, scope := range []string{"read", "verify"} {
		p := h.key("", scope)
		if _, err := h.Bulk(ctx, p, tokens.BulkRequest{Act: "lost", Serials: []string{"T1"}, DryRun: true}, nil); !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("scope %s: %v", scope, err)
		}
	}
	if n := len(h.records("token.bulk", "ok")); n != 0 {
		t.Errorf("%d records of bulks", n)
	}
}

// Another realm's tokens are like those that there are not.
func TestABulkSeesOneRealm(t *testing.T) {
	h := newHouse(t)
	h.ship("corp", totp("C1"))
	h.ship("lab", totp("L1"))
	lab := h.key("lab", "helpdesk")
	var met []tokens.BulkItem
	collect := func(i tokens.BulkItem) error { met = append(met, i); return nil }
	if _, err := h.Bulk(ctx, lab, tokens.BulkRequest{Act: "revoke", Serials: []string{"C1", "X1"}}, collect); err != nil {
		t.Fatal(err)
	}
	if len(met) != 2 || met[0].Reason != met[1].Reason || met[0].Outcome != met[1].Outcome {
		t.Errorf("%+v", met)
	}
	met = nil
	if r, err := h.Bulk(ctx, lab, tokens.BulkRequest{Act: "revoke", Select: tokens.TokenQuery{Realm: "corp", State: tokens.Imported}}, collect); err != nil || r.Matched != 1 || met[0].Serial != "L1" {
		t.Errorf("%+v, %+v, %v", r, met, err)
	}
}
