package tokens

import (
	"strconv"
	"sync"
	"time"

	"watchword/tokens/audit"
)

// What of the attempts that no user answers for is recorded one by one, for
// each client and reason: the rest is counted and recorded as a number, so
// that the audit is no way to fill the disk.
const (
	crowdWindow = time.Minute
	crowdEach   = 10
	crowdMost   = 1024 // clients and reasons counted apart at once
)

// crowd counts attempts for unknown users, and attempts that ended in a fault.
type crowd struct {
	mu    sync.Mutex
	seen  map[crowdKey]*crowdCount
	again []audit.Event // aggregated before, but not written
}

type crowdKey struct{ client, reason, action string }

type crowdCount struct {
	since   time.Time
	single  int
	counted int
	last    audit.Event
}

func newCrowd() *crowd { return &crowd{seen: map[crowdKey]*crowdCount{}} }

// admit says whether the event is recorded by itself; if not, it was counted.
func (c *crowd) admit(e *audit.Event, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := crowdKey{e.Client, e.Reason, e.Action}
	n := c.seen[k]
	if n == nil {
		if len(c.seen) >= crowdMost {
			k = crowdKey{reason: e.Reason, action: e.Action} // the rest together
			n = c.seen[k]
		}
		if n == nil {
			n = &crowdCount{since: now}
			c.seen[k] = n
		}
	}
	if now.Sub(n.since) >= crowdWindow && n.counted == 0 {
		n.since, n.single = now, 0
	}
	if n.single < crowdEach {
		n.single++
		return true
	}
	n.counted++
	n.last = *e
	return false
}

// flush answers one event for each client and reason that was counted in a
// window that has ended; with all, also in windows that have not.
func (c *crowd) flush(now time.Time, all bool) []audit.Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	events := c.again
	c.again = nil
	for k, n := range c.seen {
		if !all && now.Sub(n.since) < crowdWindow {
			continue
		}
		delete(c.seen, k)
		if n.counted == 0 {
			continue
		}
		e := n.last
		e.Time, e.User, e.Serial, e.Source, e.Policy = now, "", "", "", ""
		e.Detail = []audit.Field{
			{Name: "attempts", Value: strconv.Itoa(n.counted)},
			{Name: "since", Value: n.since.UTC().Format(time.RFC3339)},
		}
		events = append(events, e)
	}
	return events
}

// restore takes back events that could not be written.
func (c *crowd) restore(events []audit.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.again = append(c.again, events...)
}
