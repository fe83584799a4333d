package main

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pageCache is what SQLite may take for pages of the database, in bytes.
const pageCache = 64 << 20

// TestAnImportsMemoryDoesNotGrowWithItsTokens imports shipments of two sizes
// while people log in. With WATCHWORD_BIG set, one has a million tokens.
func TestAnImportsMemoryDoesNotGrowWithItsTokens(t *testing.T) {
	const small = 20_000
	large := 100_000
	if os.Getenv("WATCHWORD_BIG") != "" {
		large = 1_000_000
	}
	one := importBeside(t, small)
	many := importBeside(t, large)
	for _, i := range []importRun{one, many} {
		t.Logf("%d tokens: %.0f a second; peak memory %d MB (%d MB before), of which Go %d MB; %d logins meanwhile, median %v, slowest %v",
			i.tokens, float64(i.tokens)/i.took.Seconds(), i.peak>>20, i.before>>20, i.heap>>20,
			len(i.logins), i.median().Round(time.Millisecond), i.slowest().Round(time.Millisecond))
		if limit := 100 << 20; i.peak > limit {
			t.Errorf("the server took %d MB for %d tokens; want %d MB at most", i.peak>>20, i.tokens, limit>>20)
		}
		if len(i.logins) < 5 {
			t.Errorf("%d logins during an import of %d tokens", len(i.logins), i.tokens)
		}
		if i.slowest() > 3*time.Second {
			t.Errorf("a login took %v during an import of %d tokens", i.slowest(), i.tokens)
		}
	}
	// All that we keep of each token is that its serial was seen.
	const keep, slack = 32, 16 << 20 // the heap is as the collector happened to leave it
	more := large - small
	if grown := many.heap - one.heap; grown > more*keep+slack {
		t.Errorf("%d tokens more took %d MB of Go's memory more", more, grown>>20)
	}
	if grown := many.peak - one.peak; grown > more*keep+slack+pageCache {
		t.Errorf("%d tokens more took %d MB more", more, grown>>20)
	}
}

type importRun struct {
	tokens       int
	took         time.Duration
	before, peak int // bytes
	heap         int // bytes that Go has asked the system for, at the end
	logins       []time.Duration
}

func (i *importRun) slowest() time.Duration { return slices.Max(append(i.logins, 0)) }

func (i *importRun) median() time.Duration {
	sorted := slices.Sorted(slices.Values(append(i.logins, 0)))
	return sorted[len(sorted)/2]
}

// importBeside imports so many tokens on a new server while one person after
// another logs in.
func importBeside(t *testing.T, tokens int) importRun {
	t.Helper()
	n := startNode(t, nodeOptions{plain: true})
	n.web.Timeout = 30 * time.Minute
	people := newTokens("P", 20, true)
	n.equip(people...)
	run := importRun{tokens: tokens, before: peakMemory(t, n.pid())}

	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			k := people[i%len(people)]
			began := time.Now()
			if got := n.verify(k.user, k.press()); got != sawAccept {
				t.Errorf("a login during the import: %s", got)
			}
			run.logins = append(run.logins, time.Since(began))
		}
	}()
	began := time.Now()
	n.importFile(bigShipment(tokens), tokens)
	run.took = time.Since(began)
	close(stop)
	<-stopped
	run.peak = peakMemory(t, n.pid())
	run.heap = goMemory(t, n)
	return run
}

// goMemory is what Go has asked the system for, in bytes.
func goMemory(t *testing.T, n *node) int {
	t.Helper()
	_, metrics := n.get("/metrics")
	for line := range strings.Lines(string(metrics)) {
		if value, ok := strings.CutPrefix(line, "go_memstats_sys_bytes "); ok {
			bytes, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(bytes)
		}
	}
	t.Fatal("/metrics does not say how much memory Go has")
	return 0
}

// bigShipment is an OATH CSV of so many tokens, made as it is read.
func bigShipment(tokens int) io.Reader {
	r, w := io.Pipe()
	go func() {
		b := bufio.NewWriterSize(w, 1<<16)
		seed := make([]byte, 20)
		for i := range tokens {
			rand.Read(seed)
			fmt.Fprintf(b, "BIG%08d,%s,totp,6,30\n", i, hex.EncodeToString(seed))
		}
		w.CloseWithError(b.Flush())
	}()
	return r
}

// peakMemory is the most memory that a process has had, in bytes.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatal("no VmHWM in the process's status")
	return 0
}

// TestABrokenImportLeavesNothing: an import whose connection breaks, whose
// server is killed, or that has a bad record, leaves no token behind.
func TestABrokenImportLeavesNothing(t *testing.T) {
	n := startNode(t, nodeOptions{})
	tokens := func() int {
		var page struct{ Items []struct{ Serial string } }
		n.must(http.MethodGet, "/v1/tokens?limit=500", nil, &page)
		return len(page.Items)
	}
	const lot = 3000

	t.Run("the connection breaks", func(t *testing.T) {
		r := io.MultiReader(io.LimitReader(bigShipment(lot), 100_000), &broken{})
		if status, err := n.call(n.key, http.MethodPost, "/v1/imports", r, nil); err == nil || status == http.StatusOK {
			t.Fatalf("half a file: %d", status)
		}
		if got := tokens(); got != 0 {
			t.Errorf("%d tokens are there", got)
		}
	})
	t.Run("a bad record at the end", func(t *testing.T) {
		r := io.MultiReader(bigShipment(lot), strings.NewReader("BAD1,not hex,totp\n"))
		if status, err := n.call(n.key, http.MethodPost, "/v1/imports", r, nil); err == nil || status != http.StatusUnprocessableEntity {
			t.Fatalf("a file with a bad record: %d, %v", status, err)
		}
		if got := tokens(); got != 0 {
			t.Errorf("%d tokens are there", got)
		}
	})
	t.Run("the server is killed", func(t *testing.T) {
		r, w := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			_, err := n.call(n.key, http.MethodPost, "/v1/imports", r, nil)
			ended <- err
		}()
		if _, err := io.Copy(w, bigShipment(lot)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond) // staged, and not published
		n.kill()
		w.Close()
		if err := <-ended; err == nil {
			t.Fatal("an import was answered by a server that was killed")
		}
		n.start()
		n.waitReady()
		if got := tokens(); got != 0 {
			t.Errorf("%d tokens are there", got)
		}
	})
	t.Run("again", func(t *testing.T) {
		n.importFile(bigShipment(lot), lot)
	})
	n.wantIntactAudit()
}

// broken is a file whose reading fails.
type broken struct{}

func (*broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
