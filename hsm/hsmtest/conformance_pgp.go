package hsmtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"watchword/hsm"
)

// PGPKeystore is a Keystore that opens PGP messages.
type PGPKeystore interface {
	Keystore
	hsm.PGPHolder
}

// PGPHolderUnderTest is a keystore with its keys attached, but no PGP key.
type PGPHolderUnderTest struct {
	PGPKeystore
	Records []hsm.KeyRecord
}

// RunPGPHolder checks that a PGPHolder does what package hsm says. Each test gets
// a keystore of its own from open.
func RunPGPHolder(t *testing.T, open func(t *testing.T) PGPHolderUnderTest) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, PGPHolderUnderTest)
	}{
		{"SessionKeysOfEveryCipherAreOpened", testPGPOpens},
		{"EveryWrongCiphertextIsTheSameError", testPGPWrong},
		{"WrongCiphertextsAreLimited", testPGPLimit},
		{"OlderVersionsStillOpen", testPGPVersions},
		{"AttachProvesThePGPKey", testPGPAttach},
		{"OtherWorkGoesOn", testPGPConcurrent},
		{"CancelledAndClosed", testPGPEnd},
		{"SizesOfTheKey", testPGPSizes},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// PGP makes a PGP key of the smallest size and attaches it beside records. It
// answers its public key and all records.
func PGP(t testing.TB, k PGPKeystore, records []hsm.KeyRecord) (*rsa.PublicKey, []hsm.KeyRecord) {
	t.Helper()
	r, err := k.CreatePGP(context.Background(), 1, hsm.MinTransportBits)
	if err != nil {
		t.Fatal(err)
	}
	records = append(slices.Clone(records), r)
	if err := k.Attach(context.Background(), records); err != nil {
		t.Fatal(err)
	}
	keys := k.PGPKeys()
	if len(keys) != 1 || keys[0].Version != 1 || keys[0].Public.Size() != hsm.MinTransportBits/8 {
		t.Fatalf("attached as %+v", keys)
	}
	if age := time.Since(keys[0].Made); age < 59*time.Minute || age > 70*time.Minute || !keys[0].Made.Equal(hsm.PGPMade(r.ID)) {
		t.Fatalf("made at %v", keys[0].Made)
	}
	return keys[0].Public, records
}

// PGPSession is a session key as OpenPGP encrypts it to RSA keys: cipher, which is
// left out if it is 0, n random bytes, and their sum.
func PGPSession(cipher byte, n int) []byte {
	key := random(n)
	var sum uint16
	for _, b := range key {
		sum += uint16(b)
	}
	var plain []byte
	if cipher != 0 {
		plain = []byte{cipher}
	}
	return binary.BigEndian.AppendUint16(append(plain, key...), sum)
}

// toPGP encrypts plain as RSA-1_5, by OpenSSL.
func toPGP(t testing.TB, public *rsa.PublicKey, plain []byte) []byte {
	t.Helper()
	return EncryptTo(t, public, hsm.Transported{Mechanism: hsm.TransportPKCS1}, plain).Ciphertext
}

func opensPGP(t testing.TB, k PGPKeystore, version uint32, ciphertext, want []byte) {
	t.Helper()
	if got, err := k.OpenPGP(t.Context(), version, ciphertext); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a session key of %d bytes is opened to %d bytes (%v)", len(want), len(got), err)
	}
}

func testPGPOpens(t *testing.T, k PGPHolderUnderTest) {
	if _, err := k.OpenPGP(t.Context(), 1, random(256)); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("without a PGP key: %v", err)
	}
	if keys := k.PGPKeys(); len(keys) != 0 {
		t.Errorf("attached: %+v", keys)
	}
	public, _ := PGP(t, k, k.Records)
	for cipher, n := range map[byte]int{2: 24, 3: 16, 4: 16, 7: 16, 8: 24, 9: 32, 10: 32, 11: 16, 12: 24, 13: 32} {
		plain := PGPSession(cipher, n)
		opensPGP(t, k, 1, toPGP(t, public, plain), plain)
	}
	for _, n := range []int{16, 24, 32} { // of version 6
		plain := PGPSession(0, n)
		opensPGP(t, k, 1, toPGP(t, public, plain), plain)
	}
}

// wrongPGP are ciphertexts that hold no session key, by what is wrong.
func wrongPGP(t testing.TB, public *rsa.PublicKey) map[string][]byte {
	t.Helper()
	stranger, err := rsa.GenerateKey(rand.Reader, hsm.MinTransportBits)
	if err != nil {
		t.Fatal(err)
	}
	good := PGPSession(9, 32)
	ciphertext := toPGP(t, public, good)
	altered, sum := bytes.Clone(ciphertext), bytes.Clone(good)
	altered[100] ^= 4
	sum[34] ^= 1
	return map[string][]byte{
		"encrypted to another key": toPGP(t, &stranger.PublicKey, good),
		"altered":                  altered,
		"empty":                    nil,
		"zero":                     make([]byte, len(ciphertext)),
		"too short":                ciphertext[1:],
		"too long":                 append(bytes.Clone(ciphertext), 0),
		"the modulus":              public.N.Bytes(),
		"nothing in it":            toPGP(t, public, nil),
		"a wrong sum":              toPGP(t, public, sum),
		"a key of another length":  toPGP(t, public, PGPSession(9, 16)),
		"an unknown cipher":        toPGP(t, public, PGPSession(99, 32)),
		"no cipher that encrypts":  toPGP(t, public, append([]byte{0}, PGPSession(0, 16)...)),
		"something longer":         toPGP(t, public, random(200)),
	}
}

func testPGPWrong(t *testing.T, k PGPHolderUnderTest) {
	public, _ := PGP(t, k, k.Records)
	plain := PGPSession(9, 32)
	good := toPGP(t, public, plain)
	var says string
	for what, ciphertext := range wrongPGP(t, public) {
		got, err := k.OpenPGP(t.Context(), 1, ciphertext)
		if !errors.Is(err, hsm.ErrPGPSession) || got != nil {
			t.Errorf("%s: %d bytes, %v", what, len(got), err)
			continue
		}
		if says == "" {
			says = err.Error()
		}
		if err.Error() != says {
			t.Errorf("%s: %q differs from %q", what, err, says)
		}
		opensPGP(t, k, 1, good, plain)
	}
	if err := k.Ready(); err != nil {
		t.Errorf("after wrong ciphertexts: %v", err)
	}
}

func testPGPLimit(t *testing.T, k PGPHolderUnderTest) {
	public, _ := PGP(t, k, k.Records)
	plain := PGPSession(7, 16)
	good := toPGP(t, public, plain)
	for range hsm.WrongAttempts + 5 {
		opensPGP(t, k, 1, good, plain)
	}
	var all sync.WaitGroup
	for range hsm.WrongAttempts {
		all.Go(func() {
			if _, err := k.OpenPGP(t.Context(), 1, good[1:]); !errors.Is(err, hsm.ErrPGPSession) {
				t.Errorf("a wrong ciphertext: %v", err)
			}
		})
	}
	all.Wait()
	for _, ciphertext := range [][]byte{good, good[1:]} {
		if got, err := k.OpenPGP(t.Context(), 1, ciphertext); !errors.Is(err, hsm.ErrTransportLimit) || got != nil {
			t.Errorf("after the limit: %v", err)
		}
	}
}

func testPGPVersions(t *testing.T, k PGPHolderUnderTest) {
	ctx := t.Context()
	old, records := PGP(t, k, k.Records)
	next, err := k.CreatePGP(ctx, 2, hsm.MinTransportBits)
	if err != nil {
		t.Fatal(err)
	}
	if len(k.PGPKeys()) != 1 {
		t.Error("a key that was made but not attached is in use")
	}
	if err := k.Attach(ctx, append([]hsm.KeyRecord{next}, records...)); err != nil {
		t.Fatal(err)
	}
	keys := k.PGPKeys()
	if len(keys) != 2 || keys[0].Version != 2 || keys[1].Version != 1 || !keys[1].Public.Equal(old) || keys[0].Public.Equal(old) {
		t.Fatalf("two keys are attached as %+v", keys)
	}
	if !keys[0].Made.After(keys[1].Made) {
		t.Errorf("version 1 was made at %v and version 2 at %v", keys[1].Made, keys[0].Made)
	}
	plain := PGPSession(9, 32)
	opensPGP(t, k, 1, toPGP(t, old, plain), plain)
	opensPGP(t, k, 2, toPGP(t, keys[0].Public, plain), plain)
	if _, err := k.OpenPGP(ctx, 2, toPGP(t, old, plain)); !errors.Is(err, hsm.ErrPGPSession) {
		t.Errorf("encrypted to another version: %v", err)
	}
	if _, err := k.OpenPGP(ctx, 3, toPGP(t, old, plain)); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("a version that there is not: %v", err)
	}
}

func testPGPAttach(t *testing.T, k PGPHolderUnderTest) {
	ctx := t.Context()
	public, records := PGP(t, k, k.Records)
	r := records[len(records)-1]
	check, id, elsewhere := r, r, r
	check.Check = bytes.Clone(check.Check)
	check.Check[0] ^= 1
	id.ID = random(16)
	elsewhere.ID = k.Records[len(k.Records)-1].ID
	for what, r := range map[string]hsm.KeyRecord{
		"another check value": check, "an unknown CKA_ID": id, "another key's CKA_ID": elsewhere,
	} {
		if err := k.Attach(ctx, append(slices.Clone(k.Records), r)); !errors.Is(err, hsm.ErrKeyMismatch) {
			t.Errorf("%s: %v", what, err)
		} else if !strings.Contains(err.Error(), string(hsm.KeyPGP)) {
			t.Errorf("%s: the error does not name the key: %v", what, err)
		}
	}
	plain := PGPSession(9, 32)
	opensPGP(t, k, 1, toPGP(t, public, plain), plain)
	// A key that unwraps is none that decrypts, and the other way round.
	for _, other := range []hsm.KeyName{hsm.KeyTransport, hsm.KeyPGP} {
		made, err := k.Create(ctx, other, 7)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []hsm.KeyName{hsm.KeyTransport, hsm.KeyPGP} {
			made.Name = name
			if err := k.Attach(ctx, append(slices.Clone(k.Records), made)); (err == nil) != (name == other) {
				t.Errorf("a key %s attached as %s: %v", other, name, err)
			}
		}
	}
	if err := k.Attach(ctx, k.Records); err != nil || len(k.PGPKeys()) != 0 {
		t.Errorf("without the PGP key %d are in use (%v)", len(k.PGPKeys()), err)
	}
}

func testPGPConcurrent(t *testing.T, k PGPHolderUnderTest) {
	public, _ := PGP(t, k, k.Records)
	seed := random(20)
	sealed := Seal(t, k, hsm.SHA1, seed, []byte("row"))
	var all sync.WaitGroup
	for i := range 4 {
		ctx := t.Context()
		if i%2 == 0 {
			ctx = hsm.Bulk(ctx)
		}
		plain := PGPSession(9, 32)
		ciphertext := toPGP(t, public, plain)
		all.Go(func() {
			for range 5 {
				if got, err := k.OpenPGP(ctx, 1, ciphertext); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("another session key (%v)", err)
				}
			}
		})
		all.Go(func() {
			for f := range uint64(50) {
				j := &hsm.Job{Key: sealed, Factors: []uint64{f}}
				if err := k.HMAC(ctx, []*hsm.Job{j}); err != nil || j.Err != nil || !bytes.Equal(j.MACs[0], True(hsm.SHA1, seed, f)) {
					t.Errorf("another HMAC: %v, %v", err, j.Err)
				}
			}
		})
	}
	all.Wait()
}

func testPGPEnd(t *testing.T, k PGPHolderUnderTest) {
	public, _ := PGP(t, k, k.Records)
	ciphertext := toPGP(t, public, PGPSession(9, 32))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := k.OpenPGP(ctx, 1, ciphertext); !errors.Is(err, context.Canceled) || got != nil {
		t.Errorf("cancelled: %v", err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := k.OpenPGP(t.Context(), 1, ciphertext); !errors.Is(err, hsm.ErrUnavailable) || got != nil {
		t.Errorf("after Close: %v", err)
	}
}

func testPGPSizes(t *testing.T, k PGPHolderUnderTest) {
	for _, bits := range []int{-1, 1, 512, 1024, 2047, 2049, 2560, 5120, 8192} {
		if _, err := k.CreatePGP(t.Context(), 1, bits); err == nil {
			t.Errorf("a PGP key of %d bits was made", bits)
		}
	}
	r, err := k.CreatePGP(t.Context(), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Attach(t.Context(), append(slices.Clone(k.Records), r)); err != nil {
		t.Fatal(err)
	}
	if got := k.PGPKeys()[0].Public.N.BitLen(); got != hsm.TransportBits {
		t.Errorf("where no size is asked for, %d bits are made", got)
	}
}
