package tokens

import "time"

// Throttle slows guessing down.
type Throttle struct {
	Free   int           // consecutive failures through one client that cost nothing
	Wait   time.Duration // the unit: after n failures the wait is Wait * 2^(n-Free)
	Max    time.Duration // the longest wait
	LockAt int           // consecutive failures over all clients that lock the user
}

// DefaultThrottle is five free failures, then 2, 4, 8, ... seconds up to 15
// minutes, and a lock at a hundred.
func DefaultThrottle() Throttle {
	return Throttle{Free: 5, Wait: time.Second, Max: 15 * time.Minute, LockAt: 100}
}

// maxThrottled bounds the clients remembered for one user; the one that failed
// longest ago is forgotten first. The total of failures forgets nothing.
const maxThrottled = 32

// wait is the time to wait after n consecutive failures.
func (t *Throttle) wait(n int) time.Duration {
	if n <= t.Free {
		return 0
	}
	double := n - t.Free
	if double > 62 || t.Wait > t.Max>>double { // Wait<<double might not fit
		return t.Max
	}
	return t.Wait << double
}

// throttled says whether attempts through a client are turned away at a moment.
// A failure may lie in the future, when another node noted it or the clock was
// set back: where none is to be waited for that costs nothing, and it never
// makes the wait longer than the longest there is.
func (t *Throttle) throttled(s *Standing, client string, now time.Time) bool {
	for _, c := range s.Throttle {
		if c.Client == client {
			wait := t.wait(c.Failures)
			left := time.UnixMilli(c.Last).Add(wait).Sub(now)
			return wait > 0 && left > 0 && left <= t.Max
		}
	}
	return false
}

// fail is the standing after one more failure through a client. The version is
// left alone.
func (t *Throttle) fail(s Standing, client string, now time.Time) Standing {
	s.Failures++
	if s.Failures >= t.LockAt {
		s.Locked = true
	}
	list := make([]ClientFailures, 0, len(s.Throttle)+1)
	n := 1
	for _, c := range s.Throttle {
		if c.Client == client {
			n = c.Failures + 1
			continue
		}
		list = append(list, c)
	}
	if len(list) >= maxThrottled {
		oldest := 0
		for i, c := range list {
			if c.Last < list[oldest].Last {
				oldest = i
			}
		}
		list = append(list[:oldest], list[oldest+1:]...)
	}
	s.Throttle = append(list, ClientFailures{Client: client, Failures: n, Last: now.UnixMilli()})
	return s
}

// clear is the standing after an accept, a resynchronisation or an unlock. The
// version is left alone.
func (s Standing) clear() Standing {
	return Standing{Version: s.Version}
}
