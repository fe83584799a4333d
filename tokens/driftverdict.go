package tokens

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// judge gives the verdict on the points, which are in order of time, and says it.
// failed is how many resynchronisations failed since the last accepted code.
func (h *DriftHistory) judge(failed int) {
	h.PPM, h.Verdict = 0, DriftNone
	if len(h.Points) == 0 {
		h.Says = "No code of it was ever accepted, so nothing is known of its clock."
		if failed > 0 {
			h.Says = fmt.Sprintf("No code of it was ever accepted, and %s failed: its clock may be far off, or it was imported with another seed, hash, period or number of digits.", count(failed, "resynchronisation"))
		}
		return
	}
	period := float64(h.Token.Period)
	points := clockPoints(h.Points)
	if rate, ok := otherPace(points, period); ok {
		h.PPM, h.Verdict = rate*1e6, DriftPeriod
		h.Says = sayPeriod(h.Token.Period, period/(1+rate))
		return
	}
	cuts := jumps(points, period)
	a := assess(points, cuts, period)
	h.Verdict = a.verdict
	switch a.verdict {
	case DriftBattery:
		h.PPM = a.late.rate * 1e6
		h.Says = fmt.Sprintf("Its clock is off by ever more: %s at first, %s now. So the end of a battery looks: replace the token soon.", sayRate(a.early.rate), sayRate(a.late.rate))
	case DriftGood:
		h.PPM = a.rate * 1e6
		h.Says = fmt.Sprintf("Its clock keeps time: %s, as quartz does.", sayRate(a.rate))
	case DriftFast, DriftSlow:
		h.PPM = a.rate * 1e6
		h.Says = fmt.Sprintf("Its clock is off, but steadily: %s, or %s a month. Its codes are found as long as it is used often; after weeks without use it must be resynchronised. Replace it when there is an occasion.", sayRate(a.rate), saySpan(math.Abs(a.rate)*30*86400))
	default:
		n, span := len(points), points[len(points)-1].x
		if h.Says = fmt.Sprintf("%s in %s say too little about how its clock runs.", count(n, "accepted code"), saySpan(span)); n == 1 {
			h.Says = "One accepted code says too little about how its clock runs."
		}
	}
	h.Says += sayJumps(h.Points, cuts)
	if failed > 0 {
		h.Says += fmt.Sprintf(" Since the last accepted code %s failed.", count(failed, "resynchronisation"))
	}
}

// compare changes the verdict on a clock that is off to that on its import, if at
// least five other tokens of that are known and half of them are off alike.
func (h *DriftHistory) compare(others []DriftSample) {
	if len(h.Points) == 0 {
		return
	}
	last := h.Points[len(h.Points)-1]
	own, age := last.Seconds, last.Time.Sub(h.Token.Created).Seconds()
	if math.Abs(own) < 3*float64(h.Token.Period) || age <= 0 || (own > 0) != (h.PPM > 0) {
		return
	}
	known, alike := 0, 0
	for _, o := range others {
		if o.Serial == h.Token.Serial || o.UsedAt == 0 {
			continue
		}
		known++
		// Two clocks that are off alike are off by as much, if they have run since the
		// vendor set them, or by as much for their time here, if they were set for us.
		off := float64(o.Drift*o.Period) / own
		share := time.Unix(o.UsedAt, 0).Sub(o.Created).Seconds() / age
		if off > min(1, share)/2 && off < max(1, share)*2 && math.Abs(float64(o.Drift)) >= 2 {
			alike++
		}
	}
	if known < 5 || alike*2 < known {
		return
	}
	h.Verdict = DriftBatch
	h.Says = fmt.Sprintf("Its clock is off: %s. So are %d of %d others of its import: it is the batch and not this token. Tell the vendor. ", sayRate(h.PPM/1e6), alike, known) +
		"Their codes are found as long as they are used often."
}

func sayPeriod(is int, fits float64) string {
	s := fmt.Sprintf("Its codes move on at another pace than every %d s, as its import said: ", is)
	for _, p := range []int{15, 30, 60, 90, 120} {
		if r := fits / float64(p); p != is && r > 0.8 && r < 1.25 {
			return s + fmt.Sprintf("a period of %d s fits. Revoke it, and import it with that period under a new serial, or undo its import and repeat it.", p)
		}
	}
	return s + fmt.Sprintf("a period of about %.0f s would fit. Ask its vendor, and import it with the right one.", fits)
}

// sayJumps tells of the last jump.
func sayJumps(points []DriftPoint, cuts []int) string {
	if len(cuts) == 0 {
		return ""
	}
	at := cuts[len(cuts)-1]
	by := points[at].Seconds - points[at-1].Seconds
	way := "ahead"
	if by < 0 {
		way = "back"
	}
	s := fmt.Sprintf(" Between %s and %s it jumped %s by %s", sayTime(points[at-1].Time), sayTime(points[at].Time), way, saySpan(math.Abs(by)))
	if len(cuts) > 1 {
		s += fmt.Sprintf(", the last of %d jumps", len(cuts))
	}
	return s + "."
}

// sayRate is a rate in words: 20 ppm fast.
func sayRate(rate float64) string {
	ppm := math.Round(rate * 1e6)
	switch {
	case ppm > 0:
		return fmt.Sprintf("%.0f ppm fast", ppm)
	case ppm < 0:
		return fmt.Sprintf("%.0f ppm slow", -ppm)
	}
	return "0 ppm off"
}

// saySpan is a time in words, in the unit in which it is a number of two digits or
// so.
func saySpan(seconds float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{86400, "days"}, {3600, "hours"}, {60, "minutes"}} {
		if seconds >= 2*u.size {
			text := fmt.Sprintf("%.1f", seconds/u.size)
			if seconds >= 10*u.size {
				text = fmt.Sprintf("%.0f", seconds/u.size)
			}
			return strings.TrimSuffix(text, ".0") + " " + u.name
		}
	}
	return fmt.Sprintf("%.0f s", seconds)
}

// sayTime is a moment as the helpdesk's sentences have it.
func sayTime(t time.Time) string { return t.UTC().Format("2 January 2006 15:04") + " UTC" }

// count is a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
