package hsmtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
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
		{"AESKeysDecrypt", testDecrypt},
		{"EachBlockHasItsOwnError", testDecryptOwnError},
		{"TamperedAESKeysAreRefused", testDecryptTampering},
		{"AKeyServesOnePurpose", testPurpose},
		{"DecryptingManyAtOnce", testDecryptConcurrent},
		{"DecryptCancelledAndClosed", testDecryptEnds},
		{"GeneratedSeedsGiveTheirCodes", testGenerate},
		{"NoSeedIsGeneratedForNothing", testGenerateRefuses},
		{"GeneratingManyAtOnce", testGenerateConcurrent},
		{"GenerateCancelledAndClosed", testGenerateEnds},
		{"MACs", testMAC},
		{"SealedSecretsOpenInTheirContextOnly", testSeal},
		{"SignaturesVerify", testSign},
		{"StatementKeysSign", testStatement},
		{"StatementKeysComeAndGo", testStatementLife},
		{"AttachProvesStatementKeys", testStatementAttach},
		{"OtherWorkGoesOnWhileStatementKeysComeAndGo", testStatementConcurrent},
		{"StatementsCancelledAndClosed", testStatementEnd},
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
