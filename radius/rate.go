package radius

import (
	"sync/atomic"
	"time"
)

// bucket bounds how many requests a second are taken, over a burst of as many as of one
// second (generic cell rate algorithm): it holds the time at which all that were taken
// would have come if they had come evenly. The zero value is full. All methods may be
// called concurrently, and none allocates or blocks.
type bucket struct {
	even atomic.Int64 // nanoseconds since the server was made
}

// take takes one request at now, since the server was made, unless it is too many.
func (b *bucket) take(now time.Duration, rate int) bool {
	interval := int64(time.Second) / int64(rate)
	for {
		even := b.even.Load()
		next := max(even, int64(now)) + interval
		if next-int64(now) > int64(time.Second) {
			return false
		}
		if b.even.CompareAndSwap(even, next) {
			return true
		}
	}
}

// back gives back what was taken: it was no new request.
func (b *bucket) back(rate int) { b.even.Add(-int64(time.Second) / int64(rate)) }

// bucket is what r's client may send: what is proven to be its own is counted apart
// from what anybody may have sent in its name, so that no forger can keep a gateway out
// that signs. Nil: there is no limit.
func (r *request) bucket() *bucket {
	if r.client.Rate <= 0 {
		return nil
	}
	if r.packet.ma == 0 {
		return &r.tally.unsigned
	}
	return &r.tally.signed
}
