package tokens_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"watchword/tokens"
	"watchword/tokens/policy"
)

// clockOff is a device whose clock is off: what it shows now.
func clockOff(h *house, d *device, ahead time.Duration) (factor int64, code string) {
	factor = h.clock.now().Add(ahead).Unix() / int64(d.Period)
	return factor, d.at(factor)
}

func TestDriftTellsHowATokensClockRan(t *testing.T) {
	h := newHouse(t)
	good, fast, counter := totp("T1"), totp("T2"), hotp("H1")
	h.give("alice", good, fast, counter)
	ahead := func(ppm float64) time.Duration {
		return time.Duration(float64(h.clock.now().Sub(start)) * ppm * 1e-6)
	}
	resyncs := 0
	for day := range 60 {
		h.clock.forward(24*time.Hour + time.Duration(day*397%1000)*time.Second)
		if _, code := clockOff(h, good, ahead(15)); !h.try("alice", code) {
			t.Fatalf("day %d: the good clock's code is refused", day)
		}
		f, code := clockOff(h, fast, ahead(250))
		if !h.try("alice", code) { // two steps off since yesterday
			h.must(h.Resync(ctx, h.admin, "", "T2", code, fast.at(f+1)))
			resyncs++
		}
		h.try("alice", "000000")
	}
	if resyncs == 0 {
		t.Error("no resynchronisation was needed, so none was seen")
	}
	for serial, want := range map[string]struct {
		verdict tokens.DriftVerdict
		ppm     float64
		resyncs int
	}{"T1": {tokens.DriftGood, 15, 0}, "T2": {tokens.DriftFast, 250, resyncs}} {
		got, err := h.Drift(ctx, h.admin, "", serial)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for i, p := range got.Points {
			if p.Resync {
				n++
			}
			if i > 0 && p.Time.Before(got.Points[i-1].Time) {
				t.Error("the points are not in order of time")
			}
			if off := p.Seconds - want.ppm*1e-6*p.Time.Sub(start).Seconds(); math.Abs(off) > 46 || math.Abs(p.Seconds-float64(p.Steps*30)) > 16 {
				t.Errorf("%s at %v: %.1f s ahead, %d steps", serial, p.Time, p.Seconds, p.Steps)
			}
		}
		if got.Verdict != want.verdict || math.Abs(got.PPM-want.ppm) > 10 || len(got.Points) != 60 || n != want.resyncs || got.Token.Serial != serial || got.Says == "" {
			t.Errorf("%s: %s, %.0f ppm, %d points, %d resynchronisations: %s", serial, got.Verdict, got.PPM, len(got.Points), n, got.Says)
		}
		if r := h.last(); r.Action != string(policy.TokenDrift) || r.Serial != serial || r.User != "alice" || r.Outcome != "ok" {
			t.Errorf("audited as %+v", r)
		}
	}
	// A clock is what only one kind of token has.
	if _, err := h.Drift(ctx, h.admin, "", "H1"); !errors.Is(err, tokens.ErrState) || !strings.Contains(err.Error(), "clock") || h.last().Outcome != "refused" {
		t.Errorf("of an HOTP token: %v", err)
	}
	if _, err := h.Drift(ctx, h.admin, "", "T9"); !errors.Is(err, tokens.ErrNotFound) {
		t.Errorf("of no token: %v", err)
	}
	// What became of it since does not matter, nor who has it.
	h.must(h.Unassign(ctx, h.admin, "", "T2", ""))
	h.user("bob")
	h.must(h.Assign(ctx, h.admin, "", "T2", "bob"))
	h.clock.forward(24 * time.Hour)
	f, code := clockOff(h, fast, ahead(250))
	h.must(h.Resync(ctx, h.admin, "", "T2", code, fast.at(f+1))) // the next owner inherits no drift
	if got, err := h.Drift(ctx, h.admin, "", "T2"); err != nil || len(got.Points) != 61 || got.Verdict != tokens.DriftFast {
		t.Errorf("with another owner: %d points, %s, %v", len(got.Points), got.Verdict, err)
	}
	h.must(h.Revoke(ctx, h.admin, "", "T2", "its clock"))
	if got, err := h.Drift(ctx, h.admin, "", "T2"); err != nil || len(got.Points) != 61 {
		t.Errorf("revoked: %d points, %v", len(got.Points), err)
	}
	h.intact()
}

// A token of which all of its import are off alike is not to blame.
func TestAnImportWhoseClocksAreAllOffIsTold(t *testing.T) {
	for _, c := range []struct {
		name  string
		ppm   func(token int) float64
		batch bool
	}{
		{"all fast", func(n int) float64 { return 200 + float64(n*10) }, true},
		{"one fast", func(n int) float64 {
			if n == 0 {
				return 200
			}
			return float64(n*5 - 20)
		}, false},
		{"half of them slow", func(n int) float64 {
			if n%2 == 1 || n == 2 || n == 4 {
				return -200
			}
			return 200
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			var list []*device
			for n := range 8 {
				list = append(list, totp(fmt.Sprintf("T%d", n)))
			}
			h.ship("", list...)
			for n, d := range list {
				user := fmt.Sprintf("user%d", n)
				h.user(user)
				h.must(h.Assign(ctx, h.admin, "", d.Serial, user))
			}
			for range 30 {
				h.clock.forward(25*time.Hour + 7*time.Minute)
				for n, d := range list {
					_, code := clockOff(h, d, time.Duration(float64(h.clock.now().Sub(start))*c.ppm(n)*1e-6))
					if !h.try(fmt.Sprintf("user%d", n), code) {
						t.Fatalf("token %d: its code is refused", n)
					}
				}
			}
			got, err := h.Drift(ctx, h.admin, "", "T0")
			if err != nil {
				t.Fatal(err)
			}
			want := tokens.DriftFast
			if c.batch {
				want = tokens.DriftBatch
			}
			if got.Verdict != want || math.Abs(got.PPM-200) > 15 {
				t.Errorf("%s, %.0f ppm: %s; want %s", got.Verdict, got.PPM, got.Says, want)
			}
		})
	}
}

func TestAnUnusedTokenHasNoDrift(t *testing.T) {
	h := newHouse(t)
	d := totp("T1")
	h.give("alice", d)
	got, err := h.Drift(ctx, h.admin, "", "T1")
	if err != nil || got.Verdict != tokens.DriftNone || len(got.Points) != 0 || got.PPM != 0 || !strings.Contains(got.Says, "No code") {
		t.Errorf("%+v, %v", got, err)
	}
	for range 2 {
		if _, err := h.Resync(ctx, h.admin, "", "T1", "000000", "000001"); !errors.Is(err, tokens.ErrWrongCode) {
			t.Fatal(err)
		}
	}
	got, err = h.Drift(ctx, h.admin, "", "T1")
	if err != nil || got.Verdict != tokens.DriftNone || !strings.Contains(got.Says, "2 resynchronisations failed") {
		t.Errorf("%+v, %v", got, err)
	}
	var b bytes.Buffer
	if err := got.SVG(&b); err != nil || !strings.Contains(got.Text(80), "resynchronisations failed") {
		t.Errorf("the drawings: %v, %s", err, got.Text(80))
	}
}
