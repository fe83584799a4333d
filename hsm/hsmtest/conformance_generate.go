package hsmtest

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"testing"

	"watchword/hsm"
)

// made has a seed generated, looks at what was answered, and binds it to row.
func made(t testing.TB, k KeystoreUnderTest, hash hsm.Hash, row []byte) (*hsm.Sealed, []byte) {
	t.Helper()
	w, seed, err := k.Generate(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	if len(seed) != hash.Size() || int(w.SeedLen) != len(seed) || w.Hash != hash || w.KEK != 1 || w.Mechanism == "" {
		t.Errorf("a seed of %d bytes for %v is recorded as %d bytes for %v, wrapped by %q under KEK %d",
			len(seed), hash, w.SeedLen, w.Hash, w.Mechanism, w.KEK)
	}
	if bytes.Contains(w.Blob, seed[:8]) || bytes.Contains(w.Blob, seed[len(seed)-8:]) {
		t.Error("the wrapped seed contains the seed")
	}
	return bound(t, k, w, row), seed
}

func bound(t testing.TB, k KeystoreUnderTest, w hsm.Wrapped, row []byte) *hsm.Sealed {
	t.Helper()
	s := &hsm.Sealed{Wrapped: w, Row: row}
	macs, err := k.MAC(t.Context(), hsm.KeyBinding, s.Message())
	if err != nil {
		t.Fatal(err)
	}
	s.Binding = macs[0]
	return s
}

func testGenerate(t *testing.T, k KeystoreUnderTest) {
	for _, h := range hashes {
		seen := map[string]bool{}
		for i := range 12 {
			row := fmt.Appendf(nil, "%v %d", h, i)
			s, seed := made(t, k, h, row)
			if seen[hex.EncodeToString(seed)] {
				t.Fatalf("two seeds for %v are the same", h)
			}
			seen[hex.EncodeToString(seed)] = true
			again := Seal(t, k, h, seed, row)
			if s.Mechanism == "aes-kwp" && (again.Mechanism != s.Mechanism || !bytes.Equal(again.Blob, s.Blob)) {
				t.Errorf("a generated seed for %v is wrapped otherwise than by Wrap", h)
			}
			var want [][]byte
			factors := []uint64{0, 1, 59_000_000, 1<<64 - 1}
			for _, f := range factors {
				want = append(want, True(h, seed, f))
			}
			// The caller wipes its seed; what is wrapped is no part of it.
			clear(seed)
			macs, err := one(t, k, s, factors...)
			if err != nil || len(macs) != len(want) {
				t.Fatalf("%s: %d HMACs, %v", row, len(macs), err)
			}
			for n := range want {
				if !bytes.Equal(macs[n], want[n]) {
					t.Errorf("%s: factor %d: another HMAC than that of the seed that was answered", row, factors[n])
				}
			}
		}
	}
	s, _ := made(t, k, hsm.SHA1, []byte("row"))
	s.Row = []byte("other")
	if _, err := one(t, k, s, 1); !errors.Is(err, hsm.ErrTampered) {
		t.Errorf("a generated seed moved to another row: %v", err)
	}
}

func testGenerateRefuses(t *testing.T, k KeystoreUnderTest) {
	for _, h := range []hsm.Hash{0, 4, 9, hsm.AES128, 255} {
		w, seed, err := k.Generate(t.Context(), h)
		if err == nil || errors.Is(err, hsm.ErrUnavailable) || seed != nil || w.Blob != nil {
			t.Errorf("digest %d: a seed of %d bytes, %v", h, len(seed), err)
		}
	}
	if err := k.Ready(); err != nil {
		t.Errorf("Ready after that: %v", err)
	}
}

func testGenerateConcurrent(t *testing.T, k KeystoreUnderTest) {
	type answer struct {
		w    hsm.Wrapped
		seed []byte
	}
	const callers, each = 6, 8
	var mu sync.Mutex
	var all []answer
	other := Seal(t, k, hsm.SHA256, []byte("12345678901234567890123456789012"), []byte("other"))
	var wg sync.WaitGroup
	for n := range callers {
		wg.Go(func() {
			ctx := t.Context()
			if n%2 == 0 {
				ctx = hsm.Bulk(ctx)
			}
			for i := range each {
				w, seed, err := k.Generate(ctx, hashes[(n+i)%3])
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				all = append(all, answer{w, seed})
				mu.Unlock()
				j := &hsm.Job{Key: other, Factors: []uint64{uint64(i)}}
				if err := k.HMAC(ctx, []*hsm.Job{j}); err != nil || j.Err != nil || !bytes.Equal(j.MACs[0], True(hsm.SHA256, []byte("12345678901234567890123456789012"), uint64(i))) {
					t.Errorf("another seed's HMAC meanwhile: %v, %v", err, j.Err)
				}
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for i, a := range all {
		if seen[string(a.seed)] {
			t.Error("two callers got the same seed")
		}
		seen[string(a.seed)] = true
		macs, err := one(t, k, bound(t, k, a.w, fmt.Append(nil, i)), 7)
		if err != nil || !bytes.Equal(macs[0], True(a.w.Hash, a.seed, 7)) {
			t.Errorf("a seed made beside others has another HMAC (%v)", err)
		}
	}
	if len(seen) != callers*each {
		t.Errorf("%d seeds of %d", len(seen), callers*each)
	}
}

func testGenerateEnds(t *testing.T, k KeystoreUnderTest) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if w, seed, err := k.Generate(ctx, hsm.SHA1); !errors.Is(err, context.Canceled) || seed != nil || w.Blob != nil {
		t.Errorf("cancelled: a seed of %d bytes, %v", len(seed), err)
	}
	// Cancelled at any moment: the answer is whole or an error.
	for i := range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range i * 20 {
				_, _ = k.Ready(), ctx.Err()
			}
			cancel()
		}()
		w, seed, err := k.Generate(ctx, hsm.SHA1)
		<-done
		switch {
		case err != nil && (!errors.Is(err, context.Canceled) || seed != nil || w.Blob != nil):
			t.Fatalf("cancelled meanwhile: a seed of %d bytes, %v", len(seed), err)
		case err == nil:
			if macs, err := one(t, k, bound(t, k, w, fmt.Append(nil, i)), 1); err != nil || !bytes.Equal(macs[0], True(hsm.SHA1, seed, 1)) {
				t.Fatalf("a seed that was answered in spite of cancelling has another HMAC (%v)", err)
			}
		}
	}
	if err := k.Ready(); err != nil {
		t.Errorf("Ready after cancelled calls: %v", err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if _, seed, err := k.Generate(t.Context(), hsm.SHA1); !errors.Is(err, hsm.ErrUnavailable) || seed != nil {
		t.Errorf("after Close: a seed of %d bytes, %v", len(seed), err)
	}
}
