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
	// Beyond 2^40 units every Max is reached, and nothing overflows before.
	if n-t.Free > 40 {
		return t.Max
	}
	return min(t.Wait<<(n-t.Free), t.Max)
}

// until is the moment before which attempts through a client are turned away;
// it is in the past if there is no wait.
func (t *Throttle) until(s *Standing, client string) time.Time {
	for _, c := range s.Throttle {
		if c.Client == client {
			return time.UnixMilli(c.Last).Add(t.wait(c.Failures))
		}
	}
	return time.Time{}
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
