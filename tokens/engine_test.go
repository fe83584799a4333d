package tokens

import "testing"

// While some attempts are computed and others committed, the next batch leaves
// room for those that come back.
func TestABatchIsAShareOfWhatIsUnderWay(t *testing.T) {
	for _, c := range []struct{ queued, waiting, away, size int }{
		{0, 0, 0, smallBatch}, {1, 0, 0, smallBatch}, {12, 0, 0, 4}, {13, 0, 0, 5},
		{64, 0, 0, 22}, {22, 0, 42, 22}, {10, 12, 42, 22}, {256, 0, 0, 86}, {700, 0, 0, 234}, {8000, 0, 0, 256},
	} {
		s := &Service{cfg: Config{Queue: 8192, BatchSize: 256}}
		e := newEngine(s)
		for range c.queued {
			e.queue <- &pending{}
		}
		e.waiting, e.away = make([]*pending, c.waiting), c.away
		if got := e.size(); got != c.size {
			t.Errorf("%d queued, %d waiting, %d under way: a batch of %d, want %d", c.queued, c.waiting, c.away, got, c.size)
		}
	}
}

// What is taken into a batch, and only that, is no longer waited for.
func TestGatheringLeavesTheRestForTheNextBatch(t *testing.T) {
	e := newEngine(&Service{cfg: Config{Queue: 64, BatchSize: 256}})
	for i := range 30 {
		e.queue <- &pending{ref: Ref{User: itoa(int64(i))}}
	}
	seen := 0
	for _, want := range []int{10, 10, 10} {
		batch, open := e.gather(true)
		if len(batch) != want || !open {
			t.Fatalf("a batch of %d, want %d", len(batch), want)
		}
		for _, x := range batch {
			if x.ref.User != itoa(int64(seen)) {
				t.Fatalf("attempt %s came as number %d", x.ref.User, seen)
			}
			seen++
		}
		e.under++
		e.away += len(batch)
	}
}
