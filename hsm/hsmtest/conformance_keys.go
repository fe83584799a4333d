package hsmtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"watchword/hsm"
)

func testMAC(t *testing.T, k KeystoreUnderTest) {
	messages := [][]byte{nil, {}, []byte("a"), random(100), random(5000)}
	for i := range 100 {
		messages = append(messages, random(i))
	}
	a, err := k.MAC(t.Context(), hsm.KeyBinding, messages...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.MAC(hsm.Bulk(t.Context()), hsm.KeyPIN, messages...)
	if err != nil {
		t.Fatal(err)
	}
	if len(a) != len(messages) || len(b) != len(messages) {
		t.Fatalf("%d and %d MACs of %d messages", len(a), len(b), len(messages))
	}
	for i, m := range messages {
		again, err := k.MAC(t.Context(), hsm.KeyBinding, m)
		if err != nil {
			t.Fatal(err)
		}
		if len(a[i]) != 32 || !bytes.Equal(a[i], again[0]) {
			t.Errorf("message %d alone has another MAC than in a batch", i)
		}
		if bytes.Equal(a[i], b[i]) {
			t.Errorf("message %d has the same MAC under two keys", i)
		}
	}
	if !bytes.Equal(a[0], a[1]) || bytes.Equal(a[1], a[2]) {
		t.Error("the MACs of nothing differ, or that of something is the same")
	}
	for _, name := range []hsm.KeyName{hsm.KeyKEK, hsm.KeySecrets, hsm.KeyAudit, "other"} {
		if _, err := k.MAC(t.Context(), name, []byte("x")); err == nil {
			t.Errorf("key %q made a MAC", name)
		}
	}
	if got, err := k.MAC(t.Context(), hsm.KeyPIN); err != nil || len(got) != 0 {
		t.Errorf("MAC of no message: %v, %v", got, err)
	}
}

func testSign(t *testing.T, k KeystoreUnderTest) {
	public, ok := k.PublicKey().(*ecdsa.PublicKey)
	if !ok {
		t.Fatalf("the public key is a %T", k.PublicKey())
	}
	digest := sha256.Sum256([]byte("checkpoint"))
	signature, err := k.Sign(t.Context(), digest[:])
	if err != nil {
		t.Fatal(err)
	}
	if len(signature) != 64 {
		t.Fatalf("the signature has %d bytes", len(signature))
	}
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	if !ecdsa.Verify(public, digest[:], r, s) {
		t.Error("the signature does not verify")
	}
	digest[0] ^= 1
	if ecdsa.Verify(public, digest[:], r, s) {
		t.Error("the signature verifies another digest")
	}
	for _, n := range []int{0, 20, 31, 33, 64} {
		if _, err := k.Sign(t.Context(), make([]byte, n)); err == nil {
			t.Errorf("a digest of %d bytes was signed", n)
		}
	}
}

func testAttach(t *testing.T, k KeystoreUnderTest) {
	ctx := t.Context()
	s := Seal(t, k, hsm.SHA1, random(20), []byte("row"))
	for i, r := range k.Records {
		var others []hsm.KeyRecord
		for j := range k.Records {
			if j != i {
				others = append(others, k.Records[j])
			}
		}
		check, id, elsewhere := r, r, r
		check.Check = bytes.Clone(r.Check)
		check.Check[0] ^= 1
		id.ID = random(16)
		elsewhere.ID = others[0].ID
		for what, set := range map[string][]hsm.KeyRecord{
			"missing record":       others,
			"another check value":  append(slices.Clone(others), check),
			"an unknown CKA_ID":    append(slices.Clone(others), id),
			"another key's CKA_ID": append(slices.Clone(others), elsewhere),
		} {
			err := k.Attach(ctx, set)
			if !errors.Is(err, hsm.ErrKeyMismatch) {
				t.Errorf("key %s with %s: %v", r.Name, what, err)
			} else if !strings.Contains(err.Error(), string(r.Name)) {
				t.Errorf("key %s with %s: the error does not name it: %v", r.Name, what, err)
			}
			for _, x := range k.Records {
				if err != nil && strings.Contains(err.Error(), hex.EncodeToString(x.Check)) {
					t.Errorf("key %s with %s: the error tells the check value", r.Name, what)
				}
			}
		}
	}
	if err := k.Attach(ctx, nil); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("no records: %v", err)
	}
	if _, err := one(t, k, s, 1); err != nil {
		t.Errorf("after failed attempts the keys attached before are gone: %v", err)
	}
	if err := k.Attach(ctx, k.Records); err != nil {
		t.Errorf("attach again: %v", err)
	}
	if _, err := one(t, k, s, 1); err != nil {
		t.Errorf("after attaching the same keys again: %v", err)
	}
	if _, err := k.Create(ctx, "other", 1); err == nil {
		t.Error("a key of an unknown name was made")
	}
}

func testRotation(t *testing.T, k KeystoreUnderTest) {
	ctx := t.Context()
	seed := random(20)
	old := Seal(t, k, hsm.SHA1, seed, []byte("row"))
	if _, err := one(t, k, old, 1); err != nil {
		t.Fatal(err)
	}
	next, err := k.Create(ctx, hsm.KeyKEK, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got := Seal(t, k, hsm.SHA1, seed, nil); got.KEK != 1 {
		t.Errorf("a key that was made but not attached is in use: KEK %d", got.KEK)
	}
	// The newest version wraps, in whatever order the records come.
	if err := k.Attach(ctx, append([]hsm.KeyRecord{next}, k.Records...)); err != nil {
		t.Fatal(err)
	}
	fresh := Seal(t, k, hsm.SHA1, seed, []byte("row"))
	if fresh.KEK != 2 {
		t.Errorf("after rotation seeds are wrapped under KEK %d", fresh.KEK)
	}
	for _, s := range []*hsm.Sealed{old, fresh} {
		macs, err := one(t, k, s, 1)
		if err != nil || !bytes.Equal(macs[0], True(hsm.SHA1, seed, 1)) {
			t.Errorf("KEK %d: %v", s.KEK, err)
		}
	}
	// Without version 1 its seeds cannot be used, not even from the cache.
	only := []hsm.KeyRecord{next}
	for _, r := range k.Records {
		if r.Name != hsm.KeyKEK {
			only = append(only, r)
		}
	}
	if err := k.Attach(ctx, only); err != nil {
		t.Fatal(err)
	}
	if macs, err := one(t, k, old, 1); !errors.Is(err, hsm.ErrKeyMismatch) || macs != nil {
		t.Errorf("a seed under a KEK that is not attached: %v", err)
	}
	if _, err := one(t, k, fresh, 1); err != nil {
		t.Error(err)
	}
}

func testConcurrent(t *testing.T, k KeystoreUnderTest) {
	const tokens = 40
	var sealed [tokens]*hsm.Sealed
	var seeds [tokens][]byte
	for i := range tokens {
		seeds[i] = random(10 + i)
		sealed[i] = Seal(t, k, hashes[i%3], seeds[i], fmt.Appendf(nil, "row %d", i))
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			ctx := t.Context()
			if g == 0 {
				ctx = hsm.Bulk(ctx)
			}
			for round := range uint64(15) {
				var jobs []*hsm.Job
				for i := range tokens / 2 {
					n := (i*(g+1) + int(round)) % tokens
					jobs = append(jobs, &hsm.Job{Key: sealed[n], Factors: []uint64{round, round + 1}})
				}
				bad := *sealed[g]
				bad.Binding = sealed[g+1].Binding
				jobs = append(jobs, &hsm.Job{Key: &bad, Factors: []uint64{round}})
				if err := k.HMAC(ctx, jobs); err != nil {
					t.Error(err)
					return
				}
				for _, j := range jobs[:len(jobs)-1] {
					n := slices.Index(sealed[:], j.Key)
					if j.Err != nil || !bytes.Equal(j.MACs[0], True(j.Key.Hash, seeds[n], round)) ||
						!bytes.Equal(j.MACs[1], True(j.Key.Hash, seeds[n], round+1)) {
						t.Errorf("token %d: another HMAC (%v)", n, j.Err)
					}
				}
				if !errors.Is(jobs[len(jobs)-1].Err, hsm.ErrTampered) {
					t.Errorf("an edited row: %v", jobs[len(jobs)-1].Err)
				}
				seed := random(20)
				if s, err := seal(ctx, k, hsm.SHA1, seed, seed[:4]); err != nil || s.SeedLen != 20 {
					t.Error(err)
				}
				if sealed, err := k.Seal(ctx, []byte("secret"), nil); err != nil {
					t.Error(err)
				} else if _, err := k.Open(ctx, sealed, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func testCancelled(t *testing.T, k KeystoreUnderTest) {
	s := Seal(t, k, hsm.SHA1, random(20), []byte("row"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	j := &hsm.Job{Key: s, Factors: []uint64{1}}
	if err := k.HMAC(ctx, []*hsm.Job{j}); !errors.Is(err, context.Canceled) || !errors.Is(j.Err, context.Canceled) || j.MACs != nil {
		t.Errorf("HMAC: %v, %v", err, j.Err)
	}
	if _, err := k.Wrap(ctx, []hsm.Seed{{Hash: hsm.SHA1, Bytes: random(20)}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Wrap: %v", err)
	}
	if _, err := k.MAC(ctx, hsm.KeyPIN, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("MAC: %v", err)
	}
	if _, err := k.Seal(ctx, []byte("x"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Seal: %v", err)
	}
	if _, err := k.Sign(ctx, make([]byte, 32)); !errors.Is(err, context.Canceled) {
		t.Errorf("Sign: %v", err)
	}
	if err := k.Ready(); err != nil {
		t.Errorf("Ready after cancelled calls: %v", err)
	}
	// Cancelled at any moment: the answer is whole or an error.
	for i := range 50 {
		ctx, cancel := context.WithCancel(t.Context())
		var jobs []*hsm.Job
		for range 20 {
			jobs = append(jobs, &hsm.Job{Key: s, Factors: []uint64{1, 2, 3}, Stop: func(n int, _ []byte) bool {
				if n == i%3 {
					cancel()
				}
				return false
			}})
		}
		err := k.HMAC(ctx, jobs)
		cancel()
		for _, j := range jobs {
			if err != nil && j.Err == nil || j.Err != nil && j.MACs != nil || j.Err == nil && len(j.MACs) != 3 {
				t.Fatalf("HMAC answered %v, a job %v and %d MACs", err, j.Err, len(j.MACs))
			}
		}
	}
}

func testClose(t *testing.T, k KeystoreUnderTest) {
	s := Seal(t, k, hsm.SHA1, random(20), []byte("row"))
	public, ok := k.PublicKey().(*ecdsa.PublicKey)
	if !ok {
		t.Fatalf("the public key is a %T", k.PublicKey())
	}
	// Calls under way at the same time end whole or with an error.
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				j := &hsm.Job{Key: s, Factors: []uint64{1, 2}}
				if err := k.HMAC(context.Background(), []*hsm.Job{j}); err != nil {
					if !errors.Is(err, hsm.ErrUnavailable) || j.MACs != nil {
						t.Errorf("HMAC while closing: %v, %d MACs", err, len(j.MACs))
					}
					return
				}
				if j.Err == nil && len(j.MACs) != 2 || j.Err != nil && !errors.Is(j.Err, hsm.ErrUnavailable) {
					t.Errorf("HMAC while closing: %v, %d MACs", j.Err, len(j.MACs))
				}
			}
		})
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if err := k.Ready(); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("Ready after Close: %v", err)
	}
	if _, err := k.Wrap(t.Context(), []hsm.Seed{{Hash: hsm.SHA1, Bytes: random(20)}}); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("Wrap after Close: %v", err)
	}
	if _, err := k.MAC(t.Context(), hsm.KeyPIN, nil); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("MAC after Close: %v", err)
	}
	if !public.Equal(k.PublicKey()) {
		t.Error("the public key is another after Close: nobody can verify what was signed")
	}
	if err := k.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}
