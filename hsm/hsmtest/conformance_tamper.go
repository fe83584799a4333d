package hsmtest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"watchword/hsm"
)

func testOwnError(t *testing.T, k KeystoreUnderTest) {
	seed := random(20)
	s := Seal(t, k, hsm.SHA1, seed, []byte("row"))
	bad := *s
	bad.Binding = random(32)
	jobs := []*hsm.Job{{Key: s, Factors: []uint64{1}}, {Key: &bad, Factors: []uint64{1}}, {Key: s, Factors: []uint64{2}}}
	if err := k.HMAC(t.Context(), jobs); err != nil {
		t.Fatalf("one bad job failed the call: %v", err)
	}
	if jobs[0].Err != nil || jobs[2].Err != nil || !errors.Is(jobs[1].Err, hsm.ErrTampered) || jobs[1].MACs != nil {
		t.Fatalf("errors %v, %v, %v", jobs[0].Err, jobs[1].Err, jobs[2].Err)
	}
	if !bytes.Equal(jobs[2].MACs[0], True(hsm.SHA1, seed, 2)) {
		t.Error("the job after the bad one has another HMAC")
	}
}

func testTampering(t *testing.T, k KeystoreUnderTest, cached bool) {
	s := Seal(t, k, hsm.SHA256, random(32), []byte("realm|serial|totp|30"))
	// Another row's, rightly bound.
	other := Seal(t, k, hsm.SHA256, random(32), []byte("realm|other|totp|30"))
	if cached {
		for _, x := range []*hsm.Sealed{s, other} {
			if _, err := one(t, k, x, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	flip := func(b []byte, i int) []byte {
		b = bytes.Clone(b)
		b[i] ^= 1
		return b
	}
	edits := map[string]func(*hsm.Sealed){
		"Mechanism":       func(s *hsm.Sealed) { s.Mechanism += "x" },
		"no Mechanism":    func(s *hsm.Sealed) { s.Mechanism = "" },
		"KEK":             func(s *hsm.Sealed) { s.KEK++ },
		"Hash":            func(s *hsm.Sealed) { s.Hash = hsm.SHA1 },
		"unknown Hash":    func(s *hsm.Sealed) { s.Hash = 77 },
		"SeedLen":         func(s *hsm.Sealed) { s.SeedLen-- },
		"no Row":          func(s *hsm.Sealed) { s.Row = nil },
		"longer Row":      func(s *hsm.Sealed) { s.Row = append(bytes.Clone(s.Row), 0) },
		"no Blob":         func(s *hsm.Sealed) { s.Blob = nil },
		"shorter Blob":    func(s *hsm.Sealed) { s.Blob = s.Blob[:len(s.Blob)-8] },
		"longer Blob":     func(s *hsm.Sealed) { s.Blob = append(bytes.Clone(s.Blob), make([]byte, 8)...) },
		"other Blob":      func(s *hsm.Sealed) { s.Blob = other.Blob },
		"other Row":       func(s *hsm.Sealed) { s.Row = other.Row },
		"other Binding":   func(s *hsm.Sealed) { s.Binding = other.Binding },
		"no Binding":      func(s *hsm.Sealed) { s.Binding = nil },
		"shorter Binding": func(s *hsm.Sealed) { s.Binding = s.Binding[:31] },
		"longer Binding":  func(s *hsm.Sealed) { s.Binding = append(bytes.Clone(s.Binding), 0) },
		"Row into Mechanism": func(s *hsm.Sealed) {
			s.Mechanism, s.Row = string(s.Row[len(s.Row)-1:])+s.Mechanism, s.Row[:len(s.Row)-1]
		},
		"Blob into Binding": func(s *hsm.Sealed) {
			n := len(s.Blob) - 1
			s.Binding, s.Blob = append([]byte{s.Blob[n]}, s.Binding...), s.Blob[:n]
		},
	}
	for i := range s.Row {
		edits[fmt.Sprintf("Row byte %d", i)] = func(s *hsm.Sealed) { s.Row = flip(s.Row, i) }
	}
	for i := range s.Blob {
		edits[fmt.Sprintf("Blob byte %d", i)] = func(s *hsm.Sealed) { s.Blob = flip(s.Blob, i) }
	}
	for i := range s.Binding {
		edits[fmt.Sprintf("Binding byte %d", i)] = func(s *hsm.Sealed) { s.Binding = flip(s.Binding, i) }
	}
	for name, edit := range edits {
		bad := *s
		edit(&bad)
		if macs, err := one(t, k, &bad, 1); !errors.Is(err, hsm.ErrTampered) || macs != nil {
			t.Errorf("%s edited: %d MACs, error %v", name, len(macs), err)
		}
	}
	if _, err := one(t, k, s, 1); err != nil {
		t.Errorf("the row as it was: %v", err)
	}
	if err := k.Ready(); err != nil {
		t.Errorf("edited rows made the keystore unready: %v", err)
	}
}

func testSwap(t *testing.T, k KeystoreUnderTest) {
	// An attacker with the database moves Alice's wrapped seed, with or
	// without its binding, into Bob's row.
	alice := Seal(t, k, hsm.SHA1, random(20), []byte("alice"))
	bob := Seal(t, k, hsm.SHA1, random(20), []byte("bob"))
	for range 2 {
		for name, bad := range map[string]hsm.Sealed{
			"seed":             {Wrapped: alice.Wrapped, Row: bob.Row, Binding: bob.Binding},
			"seed and binding": {Wrapped: alice.Wrapped, Row: bob.Row, Binding: alice.Binding},
		} {
			if _, err := one(t, k, &bad, 1); !errors.Is(err, hsm.ErrTampered) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, s := range []*hsm.Sealed{alice, bob} {
			if _, err := one(t, k, s, 1); err != nil {
				t.Error(err)
			}
		}
	}
}

func testSeal(t *testing.T, k KeystoreUnderTest) {
	ctx := t.Context()
	for _, n := range []int{0, 1, 15, 16, 17, 64, 1000} {
		plain := random(n)
		sealed, err := k.Seal(ctx, plain, []byte("client 7"))
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if n >= 15 && bytes.Contains(sealed, plain) {
			t.Errorf("%d bytes: sealed in plaintext", n)
		}
		got, err := k.Open(ctx, sealed, []byte("client 7"))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: opened to %d bytes, %v", n, len(got), err)
		}
		for _, other := range []string{"client 8", "", "client 7 "} {
			if got, err := k.Open(ctx, sealed, []byte(other)); !errors.Is(err, hsm.ErrTampered) || got != nil {
				t.Errorf("%d bytes: opened as %q: %v", n, other, err)
			}
		}
		if n > 64 {
			continue
		}
		for i := range sealed {
			bad := bytes.Clone(sealed)
			bad[i] ^= 0x80
			if _, err := k.Open(ctx, bad, []byte("client 7")); !errors.Is(err, hsm.ErrTampered) {
				t.Errorf("%d bytes: byte %d altered: %v", n, i, err)
			}
			if _, err := k.Open(ctx, sealed[:i], []byte("client 7")); !errors.Is(err, hsm.ErrTampered) {
				t.Errorf("%d bytes: cut to %d: %v", n, i, err)
			}
		}
	}
	a, err := k.Seal(ctx, []byte("same"), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.Seal(ctx, []byte("same"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a, b) {
		t.Error("a nonce was used twice")
	}
	if err := k.Ready(); err != nil {
		t.Errorf("altered secrets made the keystore unready: %v", err)
	}
}
