package hsmtest

import (
	"bytes"
	"context"
	"crypto/aes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"watchword/hsm"
)

// TrueBlock is the block that a keystore must decrypt to plain under key, by the
// standard library.
func TrueBlock(key []byte, plain [16]byte) (block [16]byte) {
	c, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	c.Encrypt(block[:], plain[:])
	return block
}

// plain decrypts one block.
func plain(t testing.TB, k hsm.Decrypter, s *hsm.Sealed, block [16]byte) ([16]byte, error) {
	t.Helper()
	j := &hsm.DecryptJob{Key: s, Block: block, Plain: [16]byte{1}, Err: errors.New("of last time")}
	if err := k.Decrypt(t.Context(), []*hsm.DecryptJob{j}); err != nil {
		t.Fatal(err)
	}
	if j.Err != nil && j.Plain != [16]byte{} {
		t.Fatal("a job has both an error and a plaintext")
	}
	return j.Plain, j.Err
}

func testDecrypt(t *testing.T, k KeystoreUnderTest) {
	// FIPS 197, appendix B and C.1.
	for _, v := range []struct{ key, plain, block string }{
		{"2b7e151628aed2a6abf7158809cf4f3c", "3243f6a8885a308d313198a2e0370734", "3925841d02dc09fbdc118597196a0b32"},
		{"000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff", "69c4e0d86a7b0430d8cdb78070b4c55a"},
	} {
		key, _ := hex.DecodeString(v.key)
		block, _ := hex.DecodeString(v.block)
		given := bytes.Clone(key)
		s := Seal(t, k, hsm.AES128, given, []byte("row"))
		if s.Hash != hsm.AES128 || s.SeedLen != 16 || bytes.Contains(s.Blob, key[:8]) || !bytes.Equal(given, key) {
			t.Errorf("an AES key is recorded as %d bytes for %v, or shows, or was changed", s.SeedLen, s.Hash)
		}
		for range 2 { // unwrapped, then from the cache
			if got, err := plain(t, k, s, [16]byte(block)); err != nil || hex.EncodeToString(got[:]) != v.plain {
				t.Errorf("FIPS 197: another plaintext, %v", err)
			}
		}
	}
	good := hsm.Seed{Hash: hsm.AES128, Bytes: random(16)}
	for _, n := range []int{0, 1, 15, 17, 24, 32} {
		bad := hsm.Seed{Hash: hsm.AES128, Bytes: random(n)}
		if got, err := k.Wrap(t.Context(), []hsm.Seed{good, bad}); err == nil || got != nil || errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("an AES-128 key of %d bytes: %v", n, err)
		}
	}
	if err := k.Decrypt(t.Context(), nil); err != nil {
		t.Errorf("Decrypt of nothing: %v", err)
	}
	// More than any slice, in order, of mixed keys.
	var jobs []*hsm.DecryptJob
	var want [][16]byte
	for i := range 10 {
		key := random(16)
		s := Seal(t, k, hsm.AES128, key, fmt.Appendf(nil, "row %d", i))
		for range 9 {
			p := [16]byte(random(16))
			want = append(want, p)
			jobs = append(jobs, &hsm.DecryptJob{Key: s, Block: TrueBlock(key, p)})
		}
	}
	for _, ctx := range []context.Context{t.Context(), hsm.Bulk(t.Context())} {
		if err := k.Decrypt(ctx, jobs); err != nil {
			t.Fatal(err)
		}
		for i, j := range jobs {
			if j.Err != nil || j.Plain != want[i] {
				t.Errorf("block %d of %d: another plaintext (%v)", i, len(jobs), j.Err)
			}
		}
	}
}

func testDecryptOwnError(t *testing.T, k KeystoreUnderTest) {
	key, p := random(16), [16]byte(random(16))
	s := Seal(t, k, hsm.AES128, key, []byte("row"))
	bad := *s
	bad.Binding = random(32)
	jobs := []*hsm.DecryptJob{{Key: s, Block: TrueBlock(key, p)}, {Key: &bad}, {Key: s, Block: TrueBlock(key, p)}}
	if err := k.Decrypt(t.Context(), jobs); err != nil {
		t.Fatalf("one bad job failed the call: %v", err)
	}
	if jobs[0].Err != nil || jobs[2].Err != nil || !errors.Is(jobs[1].Err, hsm.ErrTampered) || jobs[1].Plain != [16]byte{} {
		t.Fatalf("errors %v, %v, %v", jobs[0].Err, jobs[1].Err, jobs[2].Err)
	}
	if jobs[0].Plain != p || jobs[2].Plain != p {
		t.Error("the jobs around the bad one have another plaintext")
	}
}

func testDecryptTampering(t *testing.T, k KeystoreUnderTest) {
	key, p := random(16), [16]byte(random(16))
	s := Seal(t, k, hsm.AES128, key, []byte("realm|serial|yubico"))
	other := Seal(t, k, hsm.AES128, random(16), []byte("realm|other|yubico"))
	edits := map[string]func(*hsm.Sealed){
		"Mechanism":       func(s *hsm.Sealed) { s.Mechanism += "x" },
		"KEK":             func(s *hsm.Sealed) { s.KEK++ },
		"Hash":            func(s *hsm.Sealed) { s.Hash = hsm.SHA1 },
		"SeedLen":         func(s *hsm.Sealed) { s.SeedLen = 24 },
		"other Blob":      func(s *hsm.Sealed) { s.Blob = other.Blob },
		"other Row":       func(s *hsm.Sealed) { s.Row = other.Row },
		"other Binding":   func(s *hsm.Sealed) { s.Binding = other.Binding },
		"no Binding":      func(s *hsm.Sealed) { s.Binding = nil },
		"longer Binding":  func(s *hsm.Sealed) { s.Binding = append(slices.Clone(s.Binding), 1) },
		"moved as a pair": func(s *hsm.Sealed) { s.Blob, s.Binding = other.Blob, other.Binding },
	}
	for i := range s.Blob {
		edits[fmt.Sprintf("Blob byte %d", i)] = func(s *hsm.Sealed) { s.Blob = bytes.Clone(s.Blob); s.Blob[i] ^= 1 }
	}
	for _, cached := range []bool{false, true} {
		for name, edit := range edits {
			bad := *s
			edit(&bad)
			if got, err := plain(t, k, &bad, TrueBlock(key, p)); !errors.Is(err, hsm.ErrTampered) || got != [16]byte{} {
				t.Errorf("%s edited, cached before %v: error %v", name, cached, err)
			}
		}
		if got, err := plain(t, k, s, TrueBlock(key, p)); err != nil || got != p {
			t.Errorf("the row as it was: %v", err)
		}
	}
	if err := k.Ready(); err != nil {
		t.Errorf("edited rows made the keystore unready: %v", err)
	}
}

// A key that was wrapped for HMAC decrypts nothing, and the reverse, whatever the
// cache holds.
func testPurpose(t *testing.T, k KeystoreUnderTest) {
	seed := random(16)
	mac := Seal(t, k, hsm.SHA1, seed, []byte("row"))
	key := Seal(t, k, hsm.AES128, seed, []byte("row"))
	p := [16]byte(random(16))
	for range 3 {
		if got, err := plain(t, k, mac, TrueBlock(seed, p)); err == nil || errors.Is(err, hsm.ErrUnavailable) || errors.Is(err, hsm.ErrTampered) || got != [16]byte{} {
			t.Errorf("an HMAC seed decrypts: %v", err)
		}
		if macs, err := one(t, k, key, 1); err == nil || errors.Is(err, hsm.ErrUnavailable) || errors.Is(err, hsm.ErrTampered) || macs != nil {
			t.Errorf("an AES key makes %d HMACs: %v", len(macs), err)
		}
		if got, err := plain(t, k, key, TrueBlock(seed, p)); err != nil || got != p {
			t.Errorf("the AES key: %v", err)
		}
		if macs, err := one(t, k, mac, 1); err != nil || !bytes.Equal(macs[0], True(hsm.SHA1, seed, 1)) {
			t.Errorf("the HMAC seed: %v", err)
		}
	}
	if err := k.Ready(); err != nil {
		t.Errorf("keys used for the other purpose made the keystore unready: %v", err)
	}
}

func testDecryptConcurrent(t *testing.T, k KeystoreUnderTest) {
	const tokens = 40
	keys, sealed, macs := make([][]byte, tokens), make([]*hsm.Sealed, tokens), make([]*hsm.Sealed, tokens)
	for i := range tokens {
		keys[i] = random(16)
		sealed[i] = Seal(t, k, hsm.AES128, keys[i], fmt.Appendf(nil, "aes %d", i))
		macs[i] = Seal(t, k, hsm.SHA1, keys[i], fmt.Appendf(nil, "mac %d", i))
	}
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			for n := range 30 {
				var jobs []*hsm.DecryptJob
				var want [][16]byte
				for i := range 8 {
					x := (w*31 + n*7 + i) % tokens
					p := [16]byte(random(16))
					want = append(want, p)
					jobs = append(jobs, &hsm.DecryptJob{Key: sealed[x], Block: TrueBlock(keys[x], p)})
				}
				if err := k.Decrypt(t.Context(), jobs); err != nil {
					t.Error(err)
					return
				}
				for i, j := range jobs {
					if j.Err != nil || j.Plain != want[i] {
						t.Errorf("another plaintext (%v)", j.Err)
					}
				}
				x := (w + n) % tokens
				j := &hsm.Job{Key: macs[x], Factors: []uint64{uint64(n)}}
				if err := k.HMAC(t.Context(), []*hsm.Job{j}); err != nil || j.Err != nil || !bytes.Equal(j.MACs[0], True(hsm.SHA1, keys[x], uint64(n))) {
					t.Errorf("an HMAC between: %v, %v", err, j.Err)
				}
			}
		})
	}
	wg.Wait()
}

func testDecryptEnds(t *testing.T, k KeystoreUnderTest) {
	s := Seal(t, k, hsm.AES128, random(16), []byte("row"))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	j := &hsm.DecryptJob{Key: s, Plain: [16]byte{1}}
	if err := k.Decrypt(cancelled, []*hsm.DecryptJob{j}); !errors.Is(err, context.Canceled) || !errors.Is(j.Err, context.Canceled) || j.Plain != [16]byte{} {
		t.Errorf("cancelled: %v, %v", err, j.Err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if err := k.Decrypt(t.Context(), []*hsm.DecryptJob{j}); !errors.Is(err, hsm.ErrUnavailable) || !errors.Is(j.Err, hsm.ErrUnavailable) {
		t.Errorf("closed: %v, %v", err, j.Err)
	}
}
