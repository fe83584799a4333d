package pskc

import (
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// 100,000 encrypted keys go through in memory that does not grow, far faster
// than an HSM takes them.
func TestHundredThousandEncryptedKeysAreStreamed(t *testing.T) {
	n, least := 100_000, 3000.0
	if raceDetector {
		n, least = 5_000, 0
	}
	head := wrapXML(figure6Header)
	r := NewReader(&packages{n: n, left: head[:strings.Index(head, "</KeyContainer>")]}, figure6Options)
	defer r.Close()
	var before, now runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	for i := 0; ; i++ {
		k, err := r.Next()
		if err == io.EOF {
			if i != n {
				t.Errorf("%d keys, want %d", i, n)
			}
			break
		}
		if err != nil || k.Err != nil || string(k.Secret) != figureSeed {
			t.Fatal(err, k.Err)
		}
		if i%(n/10) == 0 {
			runtime.GC()
			if runtime.ReadMemStats(&now); now.HeapAlloc > before.HeapAlloc+(1<<20) {
				t.Fatalf("after %d keys %d KB more are in use", i, (now.HeapAlloc-before.HeapAlloc)>>10)
			}
		}
	}
	rate := float64(n) / time.Since(start).Seconds()
	t.Logf("%.0f keys a second", rate)
	if rate < least {
		t.Errorf("%.0f keys a second, want %.0f or more", rate, least)
	}
}
