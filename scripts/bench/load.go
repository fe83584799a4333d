package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

// rate is what one measurement found.
type rate struct {
	perSecond float64
	p50, p99  time.Duration
	took      time.Duration // the whole measurement
}

// worker answers a function that does one request, for one goroutine.
type worker func() (op func() error, done func(), err error)

// drive keeps n requests under way until total were made (zero: no limit) or
// the time is up, and fails on the first request that fails.
func drive(ctx context.Context, n, total int, limit time.Duration, w worker) (rate, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg    sync.WaitGroup
		made  atomic.Int64
		mu    sync.Mutex
		all   []time.Duration
		first error
	)
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
		}
		cancel()
	}
	ops := make([]func() error, n)
	for i := range ops {
		op, done, err := w()
		if err != nil {
			return rate{}, err
		}
		defer done()
		ops[i] = op
	}
	start := time.Now()
	end := start.Add(limit)
	for i := range n {
		wg.Go(func() {
			times := make([]time.Duration, 0, 1<<14)
			for ctx.Err() == nil && time.Now().Before(end) {
				if m := made.Add(1); total > 0 && m > int64(total) {
					break
				}
				t := time.Now()
				if err := ops[i](); err != nil {
					fail(err)
					break
				}
				times = append(times, time.Since(t))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, times...)
		})
	}
	wg.Wait()
	took := time.Since(start)
	if first != nil {
		return rate{}, first
	}
	if err := context.Cause(ctx); err != nil {
		return rate{}, err
	}
	if len(all) == 0 {
		return rate{}, fmt.Errorf("no request was made")
	}
	slices.Sort(all)
	return rate{
		perSecond: float64(len(all)) / took.Seconds(),
		p50:       all[len(all)/2],
		p99:       all[len(all)*99/100],
		took:      took,
	}, nil
}

// table collects the rows to print at the end.
type table struct {
	title  string
	beside []string // the yardsticks
	rows   []string
	notes  []string
}

// add notes a measurement, and what it is of each of the yardsticks.
func (t *table) add(what string, n int, r rate, beside ...*rate) {
	ratio := func(to *rate) string {
		if to == nil {
			return "-"
		}
		return fmt.Sprintf("%.2f", r.perSecond/to.perSecond)
	}
	row := fmt.Sprintf("%s\t%d\t%.0f\t%s\t%s\t", what, n, r.perSecond, millis(r.p50), millis(r.p99))
	for _, b := range beside {
		row += ratio(b) + "\t"
	}
	t.rows = append(t.rows, row)
	say("  %s: %.0f/s", what, r.perSecond)
}

func (t *table) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
	say("  "+format, args...)
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f", float64(d)/float64(time.Millisecond)) }

// printed prints the table to standard output.
func (t *table) printed() error {
	t.print(os.Stdout)
	return nil
}

func (t *table) print(w io.Writer) {
	fmt.Fprintln(w, t.title)
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "what\toutstanding\trequests/s\tp50 ms\tp99 ms\t"+strings.Join(t.beside, "\t")+"\t")
	for _, r := range t.rows {
		fmt.Fprintln(tw, r)
	}
	tw.Flush()
	fmt.Fprintln(w)
	for _, n := range t.notes {
		fmt.Fprintln(w, n)
	}
}
