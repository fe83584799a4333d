package radius

import (
	"context"
	"testing"
	"time"
)

func TestSomethingIsSaidOncePerPeriod(t *testing.T) {
	q := quiet[string]{period: time.Minute, max: 2}
	start := time.Now()
	for _, step := range []struct {
		subject string
		after   time.Duration
		speak   bool
		unsaid  int64
	}{
		{"a", 0, true, 0},
		{"a", 1 * time.Second, false, 0},
		{"a", 59 * time.Second, false, 0},
		{"b", 59 * time.Second, true, 0},
		{"c", 59 * time.Second, false, 0}, // too many subjects
		{"a", 60 * time.Second, true, 2},
		{"a", 61 * time.Second, false, 0},
		{"c", 118 * time.Second, false, 0},
		{"c", 119 * time.Second, true, 0}, // b's period is over
		{"b", 119 * time.Second, false, 0},
		{"a", 120 * time.Second, true, 1},
	} {
		speak, unsaid := q.may(step.subject, start.Add(step.after))
		if speak != step.speak || unsaid != step.unsaid {
			t.Errorf("%s after %v: %v, %d", step.subject, step.after, speak, unsaid)
		}
		if len(q.said) > q.max {
			t.Errorf("%d subjects are remembered", len(q.said))
		}
	}
}

func TestDeadlinesAreSharedWithinASecond(t *testing.T) {
	d := deadlines{base: context.Background(), timeout: 10 * time.Second}
	now := time.Now()
	a, b := d.at(now), d.at(now.Add(999*time.Millisecond))
	if a != b {
		t.Error("two contexts in one second")
	}
	c := d.at(now.Add(time.Second))
	if a == c {
		t.Error("a context lasts longer than a second's requests")
	}
	end, ok := a.ctx.Deadline()
	if left := end.Sub(now); !ok || left < 10*time.Second || left > 12*time.Second {
		t.Errorf("it ends after %v", left)
	}
}

func TestADeadlineGivesUpThoseThatStillWait(t *testing.T) {
	base, cancel := context.WithCancel(context.Background())
	gone := make(chan *request, 9)
	d := deadlines{base: base, timeout: time.Hour, giveUp: func(r *request, err error) {
		if err != context.Canceled {
			t.Errorf("given up because of %v", err)
		}
		gone <- r
	}}
	all := make([]*request, 5)
	end := d.at(time.Now())
	for i := range all {
		all[i] = &request{}
		if !end.enter(all[i]) {
			t.Fatal("it is too late already")
		}
	}
	for _, i := range []int{4, 2, 0} { // the newest, one between and the oldest
		if !end.leave(all[i]) {
			t.Errorf("request %d was given up", i)
		}
	}
	cancel()
	if a, b := <-gone, <-gone; a != all[3] || b != all[1] {
		t.Error("others were given up than those that waited")
	}
	if end.leave(all[1]) || end.leave(all[3]) {
		t.Error("who was given up is still waited for")
	}
	if end.enter(all[0]) {
		t.Error("a request waits beyond the end")
	}
	if len(gone) != 0 {
		t.Errorf("%d more were given up", len(gone))
	}
}

func TestGateIsExact(t *testing.T) {
	g := gate{max: 2}
	entered := func(tries int) (n int) {
		for range tries {
			if g.enter() {
				n++
			}
		}
		return n
	}
	if n := entered(5); n != 2 {
		t.Errorf("%d entered where there was room for 2", n)
	}
	g.leave()
	if n := entered(5); n != 1 {
		t.Errorf("%d entered where there was room for 1", n)
	}
}
