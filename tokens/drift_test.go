package tokens

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A crystal is a token's clock and whoever types its codes.
type crystal struct {
	period  int     // of its codes
	assumed int     // the period that it was imported with; zero: period
	ahead   float64 // at the beginning, seconds
	ppm     func(days float64) float64
	jumps   map[int]float64 // before which login it jumps, and by how much
	slow    float64         // how many seconds typing may take
	rand    *rand.Rand
}

func steady(ppm float64) func(float64) float64 { return func(float64) float64 { return ppm } }

// logins simulates logins at moments: by the windows of a server that has no other
// tokens, with a resynchronisation where those do not suffice.
func (c *crystal) logins(moments []time.Time) []DriftPoint {
	assumed := c.assumed
	if assumed == 0 {
		assumed = c.period
	}
	w := DefaultWindows()
	begin := moments[0]
	t := Token{Type: TOTP, Period: assumed, Created: begin, Motion: Motion{Last: -1}}
	ahead, was := c.ahead, begin
	var points []DriftPoint
	for i, now := range moments {
		ahead += c.jumps[i]
		for was.Before(now) { // a day at a time
			next := now
			if d := was.Add(24 * time.Hour); d.Before(now) {
				next = d
			}
			ahead += c.ppm(was.Sub(begin).Hours()/24) * 1e-6 * next.Sub(was).Seconds()
			was = next
		}
		read := now.Add(-time.Duration(c.rand.Float64() * c.slow * 1e9))
		// Its counter began with ours, and moves on at its own pace.
		shows := float64(begin.Unix()) / float64(assumed)
		shows += (read.Sub(begin).Seconds() + ahead) / float64(c.period)
		factor := int64(math.Floor(shows))
		expected := step(now, assumed) + int64(t.Drift)
		far := max(factor-expected, expected-factor)
		if factor <= t.Last || far > int64(w.ResyncSteps) {
			continue
		}
		resync := far > int64(w.reach(&t, now))
		t.Motion = t.consume(uint64(factor), now)
		points = append(points, DriftPoint{
			Time:    now,
			Seconds: float64(factor*int64(assumed)) + float64(assumed)/2 - float64(now.UnixNano())/1e9,
			Steps:   t.Drift, Resync: resync,
		})
	}
	return points
}

// daily are moments in so many days, some a day, at any time of it.
func daily(r *rand.Rand, days int, perDay float64) []time.Time {
	begin := time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC)
	list := []time.Time{begin}
	for {
		next := list[len(list)-1].Add(time.Duration(r.ExpFloat64() / perDay * 24 * float64(time.Hour))).Truncate(time.Microsecond)
		if next.Sub(begin) > time.Duration(days)*24*time.Hour {
			return list
		}
		list = append(list, next)
	}
}

// busy are moments a few minutes apart, with pauses.
func busy(r *rand.Rand, n int, least, most, pause time.Duration) []time.Time {
	list := []time.Time{time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC)}
	for i := range n {
		d := least + time.Duration(r.Int64N(int64(most-least)))
		if pause > 0 && i%9 == 8 {
			d = pause
		}
		list = append(list, list[len(list)-1].Add(d))
	}
	return list
}

func verdictOn(period int, points []DriftPoint) *DriftHistory {
	h := &DriftHistory{Token: Token{Serial: "T1", Type: TOTP, Period: period}, Points: points}
	h.judge(0)
	return h
}

// dying is the rate of a clock whose battery ends after so many days.
func dying(base float64, end int) func(float64) float64 {
	return func(day float64) float64 { return base - 900*math.Exp2((day-float64(end))/12) }
}

func TestTheVerdictOnAClockIsRight(t *testing.T) {
	for _, c := range []struct {
		name    string
		crystal crystal
		moments func(r *rand.Rand) []time.Time
		verdict DriftVerdict
		low     float64
		high    float64
	}{
		{"20 ppm fast, daily for a quarter", crystal{period: 30, ppm: steady(20)}, func(r *rand.Rand) []time.Time { return daily(r, 90, 1) }, DriftGood, 10, 30},
		{"20 ppm slow, weekly for two years", crystal{period: 30, ppm: steady(-20), ahead: 40}, func(r *rand.Rand) []time.Time { return daily(r, 730, 1.0/7) }, DriftGood, -25, -15},
		{"20 ppm, a period of 60 s", crystal{period: 60, ppm: steady(20)}, func(r *rand.Rand) []time.Time { return daily(r, 90, 1) }, DriftGood, 5, 35},
		{"a telephone", crystal{period: 30, ppm: steady(0)}, func(r *rand.Rand) []time.Time { return daily(r, 60, 4) }, DriftGood, -8, 8},
		{"200 ppm fast, daily for a quarter", crystal{period: 30, ppm: steady(200)}, func(r *rand.Rand) []time.Time { return daily(r, 90, 1) }, DriftFast, 190, 210},
		{"200 ppm slow, daily for a quarter", crystal{period: 30, ppm: steady(-200)}, func(r *rand.Rand) []time.Time { return daily(r, 90, 1) }, DriftSlow, -210, -190},
		{"200 ppm fast, monthly, with a resynchronisation each time", crystal{period: 30, ppm: steady(200)}, func(r *rand.Rand) []time.Time { return daily(r, 700, 1.0/20) }, DriftFast, 195, 205},
		{"2000 ppm slow, for three weeks", crystal{period: 30, ppm: steady(-2000)}, func(r *rand.Rand) []time.Time { return daily(r, 21, 2) }, DriftSlow, -2030, -1970},
		{"a dying battery", crystal{period: 30, ppm: dying(10, 180)}, func(r *rand.Rand) []time.Time { return daily(r, 180, 1) }, DriftBattery, -1000, -100},
		{"a dying battery of a clock that was fast", crystal{period: 30, ppm: dying(40, 120)}, func(r *rand.Rand) []time.Time { return daily(r, 120, 2) }, DriftBattery, -1000, -100},
		{"a 60 s token imported as 30 s", crystal{period: 60, assumed: 30, ppm: steady(15)}, func(r *rand.Rand) []time.Time { return busy(r, 40, 45*time.Second, 150*time.Second, 25*time.Minute) }, DriftPeriod, -560_000, -440_000},
		{"a 30 s token imported as 60 s", crystal{period: 30, assumed: 60, ppm: steady(15)}, func(r *rand.Rand) []time.Time { return busy(r, 40, 45*time.Second, 110*time.Second, 25*time.Minute) }, DriftPeriod, 800_000, 1_200_000},
		{"a jump ahead found by a resynchronisation", crystal{period: 30, ppm: steady(20), jumps: map[int]float64{40: 1800}}, func(r *rand.Rand) []time.Time { return daily(r, 90, 1) }, DriftGood, 5, 35},
		{"three jumps back, one of them small", crystal{period: 30, ppm: steady(20), jumps: map[int]float64{20: -400, 45: -1500, 70: -90}}, func(r *rand.Rand) []time.Time { return daily(r, 90, 1) }, DriftGood, -20, 40},
		{"a jump of a clock that is 200 ppm fast", crystal{period: 30, ppm: steady(200), jumps: map[int]float64{60: -900}}, func(r *rand.Rand) []time.Time { return daily(r, 90, 1) }, DriftFast, 180, 220},
		{"three codes", crystal{period: 30, ppm: steady(20)}, func(r *rand.Rand) []time.Time { return daily(r, 90, 1)[:3] }, DriftNone, 0, 0},
		{"a morning's codes", crystal{period: 30, ppm: steady(20)}, func(r *rand.Rand) []time.Time { return busy(r, 40, time.Minute, 5*time.Minute, 0) }, DriftNone, 0, 0},
		{"a morning's codes, and a jump", crystal{period: 30, ppm: steady(20), jumps: map[int]float64{20: 1200}}, func(r *rand.Rand) []time.Time { return busy(r, 40, time.Minute, 5*time.Minute, 0) }, DriftNone, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(20) {
				x := c.crystal
				x.rand, x.slow = rand.New(rand.NewPCG(seed, 7)), 12
				points := x.logins(c.moments(x.rand))
				period := x.assumed
				if period == 0 {
					period = x.period
				}
				h := verdictOn(period, points)
				if h.Verdict != c.verdict || h.PPM < c.low || h.PPM > c.high {
					t.Errorf("seed %d, %d codes: %s, %.0f ppm, %q; want %s, %.0f to %.0f ppm", seed, len(points), h.Verdict, h.PPM, h.Says, c.verdict, c.low, c.high)
				}
			}
		})
	}
}

func drawnCrystal(t *rapid.T, ppm float64) *crystal {
	period := rapid.SampledFrom([]int{30, 60}).Draw(t, "period")
	return &crystal{
		period: period, ppm: steady(ppm),
		ahead: float64(rapid.IntRange(-20, 20).Draw(t, "ahead")),
		slow:  float64(rapid.IntRange(0, 20).Draw(t, "typing")),
		rand:  rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)),
	}
}

// Whatever crystal as it should be, and however often it is used: nobody is told
// that it is off.
func TestAGoodClockIsNeverBlamed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawnCrystal(t, rapid.Float64Range(-25, 25).Draw(t, "ppm"))
		days := rapid.IntRange(1, 500).Draw(t, "days")
		moments := daily(c.rand, days, rapid.SampledFrom([]float64{0.1, 0.5, 1, 3, 8}).Draw(t, "per day"))
		if rapid.Bool().Draw(t, "jumps") && len(moments) > 2 {
			by := float64(rapid.IntRange(8*c.period, 100*c.period).Draw(t, "by")) * float64(rapid.SampledFrom([]int{-1, 1}).Draw(t, "way"))
			c.jumps = map[int]float64{rapid.IntRange(1, len(moments)-1).Draw(t, "before login"): by}
		}
		h := verdictOn(c.period, c.logins(moments))
		if h.Verdict != DriftGood && h.Verdict != DriftNone {
			t.Fatalf("%s, %.0f ppm, of %d codes: %s", h.Verdict, h.PPM, len(h.Points), h.Says)
		}
		if days > 60 && len(h.Points) > 60 && c.jumps == nil && h.Verdict != DriftGood {
			t.Fatalf("%s after %d codes in %d days: %s", h.Verdict, len(h.Points), days, h.Says)
		}
	})
}

func TestAClockThatIsOffIsToldFromABattery(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ppm := rapid.Float64Range(120, 1500).Draw(t, "ppm")
		want := DriftFast
		if rapid.Bool().Draw(t, "slow") {
			ppm, want = -ppm, DriftSlow
		}
		c := drawnCrystal(t, ppm)
		h := verdictOn(c.period, c.logins(daily(c.rand, rapid.IntRange(40, 300).Draw(t, "days"), rapid.SampledFrom([]float64{1, 3}).Draw(t, "per day"))))
		if h.Verdict != want || math.Abs(h.PPM-ppm) > 30 {
			t.Fatalf("%s, %.0f ppm, of a clock that is off by %.0f: %s", h.Verdict, h.PPM, ppm, h.Says)
		}
	})
}

func TestADyingBatteryIsSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawnCrystal(t, 0)
		days := rapid.IntRange(90, 400).Draw(t, "days")
		c.ppm = dying(rapid.Float64Range(-25, 25).Draw(t, "ppm"), days)
		h := verdictOn(c.period, c.logins(daily(c.rand, days, rapid.SampledFrom([]float64{1, 2, 4}).Draw(t, "per day"))))
		if h.Verdict != DriftBattery || h.PPM > -60 {
			t.Fatalf("%s, %.0f ppm, of %d codes: %s", h.Verdict, h.PPM, len(h.Points), h.Says)
		}
	})
}

// Whatever the points are, there is a verdict, and no number that is none.
func TestAnyPointsHaveAVerdict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC)
		var points []DriftPoint
		for range rapid.IntRange(0, 60).Draw(t, "points") {
			at = at.Add(time.Duration(rapid.OneOf(rapid.Int64Range(0, 100), rapid.Int64Range(0, 1e16)).Draw(t, "later")))
			points = append(points, DriftPoint{Time: at, Seconds: rapid.OneOf(rapid.Float64Range(-40, 40), rapid.Float64Range(-1e18, 1e18)).Draw(t, "ahead"), Resync: rapid.Bool().Draw(t, "resync")})
		}
		h := verdictOn(rapid.SampledFrom([]int{1, 30, 60, 86400}).Draw(t, "period"), points)
		if math.IsNaN(h.PPM) || math.IsInf(h.PPM, 0) || h.Says == "" || h.Verdict == "" || h.Verdict == DriftNone && h.PPM != 0 {
			t.Fatalf("%+v", h)
		}
		drawn(t, h)
	})
}
