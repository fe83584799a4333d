package hsmtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
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

// KeystoreUnderTest is a keystore with its keys attached, and their records.
type KeystoreUnderTest struct {
	Keystore
	Records []hsm.KeyRecord
}

// Run checks that a Keystore does what package hsm says. Each test gets a
// keystore of its own from open.
func Run(t *testing.T, open func(t *testing.T) KeystoreUnderTest) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, KeystoreUnderTest)
	}{
		{"SelfTestPasses", testSelfTest},
		{"CodesAreThoseOfTheRFCs", testVectors},
		{"SeedsOfEveryLengthGiveTheirHMAC", testSeedLengths},
		{"WrapIsAllOrNothing", testWrapAllOrNothing},
		{"WrappedSeedHidesTheSeed", testWrapHides},
		{"StopSkipsTheRemainingFactors", testStop},
		{"JobsMayBeReused", testReuse},
		{"EachJobHasItsOwnError", testOwnError},
		{"TamperingIsRefusedWhenNotSeenBefore", func(t *testing.T, k KeystoreUnderTest) { testTampering(t, k, false) }},
		{"TamperingIsRefusedWhenCachedBefore", func(t *testing.T, k KeystoreUnderTest) { testTampering(t, k, true) }},
		{"SwappedSeedsAreRefused", testSwap},
		{"MACs", testMAC},
		{"SealedSecretsOpenInTheirContextOnly", testSeal},
		{"SignaturesVerify", testSign},
		{"AttachRefusesOtherKeys", testAttach},
		{"OldSeedsOpenAfterKEKRotation", testRotation},
		{"ManyAtOnce", testConcurrent},
		{"CancelledContext", testCancelled},
		{"NothingAfterClose", testClose},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// True is the HMAC that a keystore must compute, by the standard library.
func True(hash hsm.Hash, seed []byte, factor uint64) []byte {
	return mac(hasher(hash), seed, binary.BigEndian.AppendUint64(nil, factor))
}

var hashes = []hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// one runs one job.
func one(t testing.TB, k hsm.Keystore, s *hsm.Sealed, factors ...uint64) ([][]byte, error) {
	t.Helper()
	j := &hsm.Job{Key: s, Factors: factors}
	if err := k.HMAC(t.Context(), []*hsm.Job{j}); err != nil {
		t.Fatal(err)
	}
	if j.Err != nil && j.MACs != nil {
		t.Fatalf("a job has both an error and %d MACs", len(j.MACs))
	}
	return j.MACs, j.Err
}

func testSelfTest(t *testing.T, k KeystoreUnderTest) {
	if err := k.Ready(); err != nil {
		t.Fatalf("Ready: %v", err)
	}
	if err := k.SelfTest(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func testVectors(t *testing.T, k KeystoreUnderTest) {
	for _, v := range []struct {
		name   string
		hash   hsm.Hash
		seed   string
		digits uint32
		codes  map[uint64]uint32
	}{
		{"RFC 4226 appendix D", hsm.SHA1, "12345678901234567890", 1e6, map[uint64]uint32{
			0: 755224, 1: 287082, 2: 359152, 3: 969429, 4: 338314, 5: 254676, 6: 287922, 7: 162583, 8: 399871, 9: 520489}},
		{"RFC 6238 SHA-1", hsm.SHA1, "12345678901234567890", 1e8, map[uint64]uint32{
			59 / 30: 94287082, 1111111109 / 30: 7081804, 1111111111 / 30: 14050471, 1234567890 / 30: 89005924, 2000000000 / 30: 69279037, 20000000000 / 30: 65353130}},
		{"RFC 6238 SHA-256", hsm.SHA256, "12345678901234567890123456789012", 1e8, map[uint64]uint32{
			59 / 30: 46119246, 1111111109 / 30: 68084774, 1111111111 / 30: 67062674, 1234567890 / 30: 91819424, 2000000000 / 30: 90698825, 20000000000 / 30: 77737706}},
		{"RFC 6238 SHA-512", hsm.SHA512, "1234567890123456789012345678901234567890123456789012345678901234", 1e8, map[uint64]uint32{
			59 / 30: 90693936, 1111111109 / 30: 25091201, 1111111111 / 30: 99943326, 1234567890 / 30: 93441116, 2000000000 / 30: 38618901, 20000000000 / 30: 47863826}},
	} {
		s := Seal(t, k, v.hash, []byte(v.seed), []byte(v.name))
		for factor, code := range v.codes {
			macs, err := one(t, k, s, factor)
			if err != nil {
				t.Fatalf("%s: %v", v.name, err)
			}
			m := macs[0]
			got := binary.BigEndian.Uint32(m[m[len(m)-1]&15:]) & 0x7fffffff % v.digits
			if got != code {
				t.Errorf("%s: factor %d: code %d, want %d", v.name, factor, got, code)
			}
		}
	}
}

func testSeedLengths(t *testing.T, k KeystoreUnderTest) {
	var jobs []*hsm.Job
	var seeds [][]byte
	for _, h := range hashes {
		for _, n := range []int{1, 7, 8, 10, 16, 19, 20, 21, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 1024} {
			seed := random(n)
			s := Seal(t, k, h, seed, fmt.Appendf(nil, "%v %d", h, n))
			if int(s.SeedLen) != n || s.Hash != h {
				t.Errorf("a seed of %d bytes for %v is recorded as %d bytes for %v", n, h, s.SeedLen, s.Hash)
			}
			jobs = append(jobs, &hsm.Job{Key: s, Factors: []uint64{0, 1, 1 << 40, 1<<64 - 1}})
			seeds = append(seeds, seed)
		}
	}
	// Twice: unwrapped, then from the cache.
	for range 2 {
		if err := k.HMAC(t.Context(), jobs); err != nil {
			t.Fatal(err)
		}
		for i, j := range jobs {
			if j.Err != nil {
				t.Errorf("%s: %v", j.Key.Row, j.Err)
				continue
			}
			for n, f := range j.Factors {
				if !bytes.Equal(j.MACs[n], True(j.Key.Hash, seeds[i], f)) {
					t.Errorf("%s: factor %d: another HMAC", j.Key.Row, f)
				}
			}
		}
	}
}

func testWrapAllOrNothing(t *testing.T, k KeystoreUnderTest) {
	good := hsm.Seed{Hash: hsm.SHA1, Bytes: random(20)}
	for name, bad := range map[string]hsm.Seed{
		"empty":          {Hash: hsm.SHA1},
		"too long":       {Hash: hsm.SHA1, Bytes: random(1025)},
		"unknown digest": {Hash: 9, Bytes: random(20)},
		"no digest":      {Bytes: random(20)},
	} {
		got, err := k.Wrap(t.Context(), []hsm.Seed{good, bad, good})
		if err == nil || got != nil {
			t.Errorf("%s: Wrap answered %d seeds and error %v", name, len(got), err)
		}
		if err != nil && errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%s: a bad seed is reported as an HSM that does not answer: %v", name, err)
		}
	}
	if got, err := k.Wrap(t.Context(), nil); err != nil || len(got) != 0 {
		t.Errorf("Wrap of nothing: %v, %v", got, err)
	}
	// More than any slice, in order.
	var seeds []hsm.Seed
	for i := range 150 {
		seeds = append(seeds, hsm.Seed{Hash: hashes[i%3], Bytes: random(10 + i)})
	}
	for _, ctx := range []context.Context{t.Context(), hsm.Bulk(t.Context())} {
		wrapped, err := k.Wrap(ctx, seeds)
		if err != nil {
			t.Fatal(err)
		}
		messages, sealed := [][]byte{}, []*hsm.Sealed{}
		for i, w := range wrapped {
			s := &hsm.Sealed{Wrapped: w, Row: fmt.Appendf(nil, "row %d", i)}
			sealed, messages = append(sealed, s), append(messages, s.Message())
		}
		macs, err := k.MAC(ctx, hsm.KeyBinding, messages...)
		if err != nil {
			t.Fatal(err)
		}
		var jobs []*hsm.Job
		for i, s := range sealed {
			s.Binding = macs[i]
			jobs = append(jobs, &hsm.Job{Key: s, Factors: []uint64{uint64(i)}})
		}
		if err := k.HMAC(ctx, jobs); err != nil {
			t.Fatal(err)
		}
		for i, j := range jobs {
			if j.Err != nil || !bytes.Equal(j.MACs[0], True(seeds[i].Hash, seeds[i].Bytes, uint64(i))) {
				t.Fatalf("seed %d of %d: another HMAC (%v)", i, len(jobs), j.Err)
			}
		}
	}
}

func testWrapHides(t *testing.T, k KeystoreUnderTest) {
	seed := random(20)
	given := bytes.Clone(seed)
	s := Seal(t, k, hsm.SHA1, given, []byte("row"))
	if bytes.Contains(s.Blob, seed) || bytes.Contains(s.Blob, seed[:8]) {
		t.Error("the wrapped seed contains the seed")
	}
	if !bytes.Equal(given, seed) {
		t.Error("Wrap changed the caller's seed")
	}
	if s.KEK != 1 || s.Mechanism == "" {
		t.Errorf("wrapped by %q under KEK %d", s.Mechanism, s.KEK)
	}
}

func testStop(t *testing.T, k KeystoreUnderTest) {
	seed := random(32)
	s := Seal(t, k, hsm.SHA256, seed, []byte("row"))
	for stopAt := range 4 {
		var asked []int
		j := &hsm.Job{Key: s, Factors: []uint64{5, 6, 7}, Stop: func(i int, mac []byte) bool {
			asked = append(asked, i)
			if !bytes.Equal(mac, True(hsm.SHA256, seed, 5+uint64(i))) {
				t.Errorf("Stop was shown another HMAC for factor %d", i)
			}
			return i == stopAt
		}}
		if err := k.HMAC(t.Context(), []*hsm.Job{j}); err != nil || j.Err != nil {
			t.Fatal(err, j.Err)
		}
		want := min(stopAt+1, 3)
		if len(j.MACs) != want || len(asked) != want {
			t.Errorf("stopped at %d: %d MACs, asked %v", stopAt, len(j.MACs), asked)
		}
		for i, m := range j.MACs {
			if !bytes.Equal(m, True(hsm.SHA256, seed, 5+uint64(i))) {
				t.Errorf("stopped at %d: MAC %d is another", stopAt, i)
			}
		}
	}
	if macs, err := one(t, k, s); err != nil || len(macs) != 0 {
		t.Errorf("a job without factors: %d MACs, %v", len(macs), err)
	}
	bad := *s
	bad.Row = []byte("other")
	if _, err := one(t, k, &bad); !errors.Is(err, hsm.ErrTampered) {
		t.Errorf("a job without factors on an edited row: %v", err)
	}
	if err := k.HMAC(t.Context(), nil); err != nil {
		t.Errorf("HMAC of nothing: %v", err)
	}
}

func testReuse(t *testing.T, k KeystoreUnderTest) {
	seed := random(20)
	s := Seal(t, k, hsm.SHA1, seed, []byte("row"))
	j := &hsm.Job{Key: s, Factors: []uint64{1}, Err: errors.New("of last time"), MACs: [][]byte{{1}, {2}}}
	for range 2 {
		if err := k.HMAC(t.Context(), []*hsm.Job{j}); err != nil || j.Err != nil || len(j.MACs) != 1 {
			t.Fatal(err, j.Err, len(j.MACs))
		}
	}
	first := bytes.Clone(j.MACs[0])
	kept := j.MACs[0]
	for f := range uint64(100) {
		j.Factors[0] = f
		if err := k.HMAC(t.Context(), []*hsm.Job{j}); err != nil || j.Err != nil {
			t.Fatal(err, j.Err)
		}
		j.MACs[0] = append(j.MACs[0], 0xFF) // must not run into a neighbour
	}
	if !bytes.Equal(kept, first) {
		t.Error("a MAC changed after it was answered")
	}
}

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
