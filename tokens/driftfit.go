package tokens

import (
	"cmp"
	"math"
	"slices"
)

// What is looked for in the points of a clock is told from their noise: a code says
// what the token's clock showed to half a period only, and it is typed some seconds
// after it was read.
const (
	driftQuartz = 60e-6 // what a clock may be off by and still be called good
	driftSure   = 8e-6  // how well its rate must be known for that (standard error)
	driftSigmas = 5     // how many standard errors a difference must be, to be told
	driftGrowth = 50e-6 // by how much a rate must have grown, to be a battery's end
	driftPace   = 0.02  // a clock that is off by more has not a bad crystal, but another period
	driftLeast  = 5     // how many points say something
)

// clockPoint is a DriftPoint in seconds since the first.
type clockPoint struct{ x, y float64 }

func clockPoints(points []DriftPoint) []clockPoint {
	out := make([]clockPoint, len(points))
	for i, p := range points {
		out[i] = clockPoint{p.Time.Sub(points[0].Time).Seconds(), p.Seconds}
	}
	return out
}

// line is a straight line through points, by least squares.
type line struct {
	rate   float64 // seconds a second
	err    float64 // its standard error; infinite if nothing is known of it
	spread float64 // what the points lie off it by (root of the mean square)
}

// fitLine fits one rate to points that belong to several segments, each of which
// begins at its own height. A segment begins at 0 and at each cut. noise is what
// each point may be off by in any case.
func fitLine(points []clockPoint, cuts []int, noise float64) line {
	var sxx, sxy, syy float64
	free := len(points) - 1
	for part := range segments(len(points), cuts) {
		seg := points[part.from:part.to]
		var mx, my float64
		for _, p := range seg {
			mx += p.x / float64(len(seg))
			my += p.y / float64(len(seg))
		}
		for _, p := range seg {
			sxx += (p.x - mx) * (p.x - mx)
			sxy += (p.x - mx) * (p.y - my)
			syy += (p.y - my) * (p.y - my)
		}
		free--
	}
	if sxx <= 0 || free < 1 {
		return line{err: math.Inf(1)}
	}
	l := line{rate: sxy / sxx}
	l.spread = math.Sqrt(max(syy-l.rate*sxy, 0) / float64(free))
	l.err = max(l.spread, noise) / math.Sqrt(sxx)
	return l
}

type segment struct{ from, to int }

// segments are the parts of n points between cuts, which rise.
func segments(n int, cuts []int) func(yield func(segment) bool) {
	return func(yield func(segment) bool) {
		from := 0
		for _, cut := range cuts {
			if cut <= from || cut >= n {
				continue
			}
			if !yield(segment{from, cut}) {
				return
			}
			from = cut
		}
		if from < n {
			yield(segment{from, n})
		}
	}
}

// within are the cuts of points[from:to], counted from its beginning.
func within(cuts []int, from, to int) []int {
	var out []int
	for _, c := range cuts {
		if c > from && c < to {
			out = append(out, c-from)
		}
	}
	return out
}

// middleRate is the median of the rates between all pairs of points (Theil and
// Sen), of which a few that lie anywhere move little; of at most so many points as
// make some ten thousand pairs.
func middleRate(points []clockPoint) float64 {
	const most = 150
	if len(points) > most {
		thin := make([]clockPoint, most)
		for i := range thin {
			thin[i] = points[i*(len(points)-1)/(most-1)]
		}
		points = thin
	}
	var rates []float64
	for i := range points {
		for j := range i {
			if d := points[i].x - points[j].x; d > 0 {
				rates = append(rates, (points[i].y-points[j].y)/d)
			}
		}
	}
	if len(rates) == 0 {
		return 0
	}
	slices.Sort(rates)
	return rates[len(rates)/2]
}

// otherPace answers the rate at which a clock gains, if its codes move on at
// another pace than they should: along one straight line that no crystal explains.
func otherPace(points []clockPoint, period float64) (rate float64, ok bool) {
	n := len(points)
	if n < driftLeast {
		return 0, false
	}
	rate = middleRate(points)
	if math.Abs(rate) < driftPace || rate <= -0.99 || math.Abs(rate)*(points[n-1].x-points[0].x) < 6*period {
		return 0, false
	}
	// One jump is steep, too, but none of its halves is.
	for _, half := range [][]clockPoint{points[:(n+1)/2], points[n/2:]} {
		if r := middleRate(half) / rate; r < 0.5 || r > 2 {
			return 0, false
		}
	}
	var height []float64
	for _, p := range points {
		height = append(height, p.y-rate*p.x)
	}
	slices.Sort(height)
	far, middle := 0, height[n/2]
	for _, h := range height {
		if math.Abs(h-middle) > period*max(1, 1+rate) {
			far++
		}
	}
	return rate, far*10 <= n
}

// jumps are the indexes of points before which the clock was set, or stood still
// for a while: where it moved as much as neither its rate before, nor after, nor
// that over all explains. One too many costs little: each segment has its own
// height. One too few would be taken for a rate.
func jumps(points []clockPoint, period float64) []int {
	var cuts []int
	overall := middleRate(points)
	for i := 1; i < len(points); i++ {
		moved, took := points[i].y-points[i-1].y, points[i].x-points[i-1].x
		explains := func(rate, over float64) bool {
			doubt := driftGrowth + 0.6*math.Abs(rate) + period/over
			return math.Abs(moved-rate*took) <= 1.5*period+doubt*took
		}
		same := explains(overall, math.Inf(1))
		// The rate over four times as long, if so much is known, and half as long at
		// least.
		if j := i - 2; j >= 0 && points[i-1].x-points[0].x >= took/2 {
			for ; j > 0 && points[i-1].x-points[j].x < 4*took; j-- {
			}
			over := points[i-1].x - points[j].x
			same = same || over > 0 && explains((points[i-1].y-points[j].y)/over, over)
		}
		if j, last := i+1, len(points)-1; j <= last && points[last].x-points[i].x >= took/2 {
			for ; j < last && points[j].x-points[i].x < 4*took; j++ {
			}
			over := points[j].x - points[i].x
			same = same || over > 0 && explains((points[j].y-points[i].y)/over, over)
		}
		if !same {
			cuts = append(cuts, i)
		}
	}
	return cuts
}

// growth looks for a time since which the clock is off by more than before, and
// answers both rates.
func growth(points []clockPoint, cuts []int, noise float64) (early, late line, ok bool) {
	span := points[len(points)-1].x
	best := 0.0
	for _, share := range []float64{0.25, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95} {
		at, _ := slices.BinarySearchFunc(points, share*span, func(p clockPoint, x float64) int { return cmp.Compare(p.x, x) })
		if at < driftLeast || len(points)-at < driftLeast {
			continue
		}
		a := fitLine(points[:at], within(cuts, 0, at), noise)
		b := fitLine(points[at:], within(cuts, at, len(points)), noise)
		grown := math.Abs(b.rate) - math.Abs(a.rate) - driftGrowth
		doubt := driftSigmas * math.Hypot(a.err, b.err)
		if math.IsInf(doubt, 0) || grown <= doubt || math.Abs(b.rate) < driftQuartz {
			continue
		}
		if sure := grown / doubt; sure > best {
			early, late, ok, best = a, b, true, sure
		}
	}
	if half, _ := slices.BinarySearchFunc(points, span/2, func(p clockPoint, x float64) int { return cmp.Compare(p.x, x) }); ok && half > driftLeast {
		if l := fitLine(points[:half], within(cuts, 0, half), noise); !math.IsInf(l.err, 0) {
			early = l // before it began, more likely than what the split has
		}
	}
	return early, late, ok
}

// assessment is what points say about a clock that has the pace it should have.
type assessment struct {
	verdict     DriftVerdict // none, good, fast, slow or battery
	line                     // over all points
	early, late line         // of a battery
}

// assess judges points with jumps at cuts. What a single jump more would explain as
// well is blamed on nothing.
func assess(points []clockPoint, cuts []int, period float64) assessment {
	noise := period / math.Sqrt(12) // of what lies anywhere in a period
	a := assessOnce(points, cuts, noise)
	for _, i := range moves(points, cuts) {
		if a.verdict == DriftNone || a.verdict == DriftGood {
			break
		}
		more := append(slices.Clone(cuts), i)
		slices.Sort(more)
		if b := assessOnce(points, more, noise); b.verdict != a.verdict {
			a, cuts = b, more
		}
	}
	return a
}

func assessOnce(points []clockPoint, cuts []int, noise float64) assessment {
	a := assessment{verdict: DriftNone, line: fitLine(points, cuts, noise)}
	if len(points) < driftLeast {
		return a
	}
	var worse bool
	off := math.Abs(a.rate)
	switch a.early, a.late, worse = growth(points, cuts, noise); {
	case worse:
		a.verdict = DriftBattery
	case off <= driftQuartz && a.err <= driftSure:
		a.verdict = DriftGood
	case off > driftQuartz && a.err <= driftSure || off > driftQuartz+driftSigmas*a.err:
		a.verdict = DriftFast
		if a.rate < 0 {
			a.verdict = DriftSlow
		}
	}
	return a
}

// moves are the few places without a cut at which the clock moved most.
func moves(points []clockPoint, cuts []int) []int {
	var at []int
	for i := 1; i < len(points); i++ {
		if !slices.Contains(cuts, i) {
			at = append(at, i)
		}
	}
	slices.SortFunc(at, func(i, j int) int {
		return cmp.Compare(math.Abs(points[j].y-points[j-1].y), math.Abs(points[i].y-points[i-1].y))
	})
	return at[:min(len(at), 3)]
}
