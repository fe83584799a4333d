package tokens

import "time"

// Windows says how far from the expected moving factor a code may lie.
type Windows struct {
	Steps          int           // TOTP: time steps to each side of the drift, at least
	MaxSteps       int           // TOTP: to each side, at most, after long disuse
	Widen          time.Duration // TOTP: disuse that adds one step to each side
	LookAhead      int           // HOTP: counters from the next expected one on
	ResyncSteps    int           // resynchronisation: time steps to each side
	ResyncCounters int           // resynchronisation: counters ahead
}

// DefaultWindows are one step to each side, one more for each 30 days without
// use up to five; ten counters; and for resynchronisation 120 steps or 1,000
// counters.
func DefaultWindows() Windows {
	return Windows{
		Steps: 1, MaxSteps: 5, Widen: 30 * 24 * time.Hour,
		LookAhead:   10,
		ResyncSteps: 120, ResyncCounters: 1000,
	}
}

// step is the time step of a moment (RFC 6238, section 4.2, T0 = 0).
func step(now time.Time, period int) int64 {
	return now.Unix() / int64(period)
}

// reach is how many steps to each side of the drift a TOTP code may lie.
func (w *Windows) reach(t *Token, now time.Time) int {
	since := time.Unix(t.UsedAt, 0)
	if t.UsedAt == 0 {
		since = t.Created
	}
	reach := w.Steps
	if idle := now.Sub(since); idle > 0 && w.Widen > 0 {
		reach += int(min(idle/w.Widen, 1000))
	}
	return max(min(reach, w.MaxSteps), w.Steps)
}

// factors are the moving factors whose codes are looked at in a verification,
// likeliest first, appended to buf. They include ones that were consumed
// before, so that a replay is known as one.
func (w *Windows) factors(buf []uint64, t *Token, now time.Time) []uint64 {
	if t.Type == HOTP {
		for i := range w.LookAhead {
			buf = append(buf, uint64(t.Last)+uint64(i))
		}
		if t.Last > 0 {
			buf = append(buf, uint64(t.Last)-1)
		}
		return buf
	}
	return around(buf, step(now, t.Period)+int64(t.Drift), w.reach(t, now))
}

// around appends centre, and then the steps to both sides, nearest first.
func around(buf []uint64, centre int64, reach int) []uint64 {
	if centre >= 0 {
		buf = append(buf, uint64(centre))
	}
	for i := int64(1); i <= int64(reach); i++ {
		if centre-i >= 0 {
			buf = append(buf, uint64(centre-i))
		}
		if centre+i >= 0 {
			buf = append(buf, uint64(centre+i))
		}
	}
	return buf
}

// fresh says whether a moving factor was never consumed.
func (t *Token) fresh(factor uint64) bool {
	switch t.Type {
	case TOTP:
		return int64(factor) > t.Last
	case Recovery:
		return factor < maxPasscodes && t.Last>>factor&1 == 0
	case Temporary:
		return factor >= uint64(t.Last) && t.Last < int64(t.Uses)
	}
	return factor >= uint64(t.Last)
}

// consume is the token's motion after a factor was accepted at a moment.
func (t *Token) consume(factor uint64, now time.Time) Motion {
	m := t.Motion
	m.UsedAt = now.Unix()
	switch t.Type {
	case TOTP:
	case FIDO:
		m.Last = int64(factor)
		return m
	case Recovery:
		m.Last |= 1 << factor
		return m
	default:
		m.Last = int64(factor) + 1
		return m
	}
	m.Last = int64(factor)
	m.Drift = int(int64(factor) - step(now, t.Period))
	return m
}

// resyncFactors are the moving factors that a resynchronisation looks at, in
// rising order: none of them consumed, and one more than the window at its end
// for the second code.
func (w *Windows) resyncFactors(t *Token, now time.Time) []uint64 {
	var first, last int64
	if t.Type == HOTP {
		first = t.Last
		last = t.Last + int64(w.ResyncCounters)
	} else {
		centre := step(now, t.Period) + int64(t.Drift)
		first = max(centre-int64(w.ResyncSteps), t.Last+1, 0)
		last = centre + int64(w.ResyncSteps) + 1
	}
	var factors []uint64
	for f := first; f <= last; f++ {
		factors = append(factors, uint64(f))
	}
	return factors
}

// findPair answers the index of the first of two consecutive MACs that have
// the two codes: of several such places the one nearest to index near. It
// looks at all of them.
func findPair(macs [][]byte, digits int, code1, code2 uint32, near int) (int, bool) {
	best, found := 0, false
	for i := 0; i+1 < len(macs); i++ {
		first, second := matches(macs[i], digits, code1), matches(macs[i+1], digits, code2)
		if first && second && (!found || distance(i, near) < distance(best, near)) {
			best, found = i, true
		}
	}
	return best, found
}

func distance(a, b int) int { return max(a-b, b-a) }
