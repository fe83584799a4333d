package hsmtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"watchword/hsm"
)

// TransportKeystore is a Keystore that takes over seeds from vendors.
type TransportKeystore interface {
	Keystore
	hsm.Transporter
}

// TransporterUnderTest is a keystore with its keys attached, but no transport
// key, and what its HSM can do.
type TransporterUnderTest struct {
	TransportKeystore
	Records []hsm.KeyRecord

	// Inside says whether a seed of n bytes travels inside the HSM.
	Inside func(hash hsm.Hash, n int) bool
	// OAEP says whether it unwraps by OAEP with these parameters.
	OAEP func(hash, mgf crypto.Hash, labelled bool) bool
	// Resists says that it answers a wrong RSA-1_5 ciphertext with random bytes.
	Resists bool
}

// LikeSoftHSM says what SoftHSM 2.6 can do inside.
func LikeSoftHSM(hash hsm.Hash, n int) bool {
	return n >= hash.Size() && (n <= hash.BlockSize() || n%8 == 0)
}

// RunTransporter checks that a Transporter does what package hsm says. Each test
// gets a keystore of its own from open.
func RunTransporter(t *testing.T, open func(t *testing.T) TransporterUnderTest) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, TransporterUnderTest)
	}{
		{"WithoutATransportKeyNothingIsTakenOver", testNoTransport},
		{"SeedsOfEveryLengthTravel", testTransportLengths},
		{"WhatCannotTravelInsideNeedsPermission", testTransportHost},
		{"OAEPInEveryForm", testTransportOAEP},
		{"RSA15OnlyIfAllowed", testTransportPKCS1},
		{"EveryWrongCiphertextIsTheSameError", testTransportWrong},
		{"WrongRSA15IsLimited", testTransportLimit},
		{"TheKeyIsChosenByItsPublicHalf", testTransportRotation},
		{"AttachProvesTheTransportKey", testTransportAttach},
		{"SeedsGoUnderTheNewestKEK", testTransportKEK},
		{"OtherWorkGoesOn", testTransportConcurrent},
		{"CancelledAndClosed", testTransportEnd},
		{"SizesOfTheKey", testTransportSizes},
		{"MACsOfEachDigestAreChecked", testTransportMACs},
		{"MACKeysByOAEPInEveryForm", testTransportMACOAEP},
		{"NoSeedIsTakenOverWhoseMACIsWrong", testTransportMACWrong},
		{"WrongMACsOfRSA15AreLimited", testTransportMACLimit},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// Transport makes a transport key of the smallest size and attaches it beside
// records. It answers its public key and all records.
func Transport(t testing.TB, k TransportKeystore, records []hsm.KeyRecord) (*rsa.PublicKey, []hsm.KeyRecord) {
	t.Helper()
	r, err := k.CreateTransport(context.Background(), 1, hsm.MinTransportBits)
	if err != nil {
		t.Fatal(err)
	}
	records = append(slices.Clone(records), r)
	if err := k.Attach(context.Background(), records); err != nil {
		t.Fatal(err)
	}
	keys := k.TransportKeys()
	if len(keys) != 1 || keys[0].Version != 1 || keys[0].Public.Size() != hsm.MinTransportBits/8 {
		t.Fatalf("attached as %+v", keys)
	}
	return keys[0].Public, records
}

// oaep is a seed encrypted in the way of XML Encryption.
func oaep(t testing.TB, public *rsa.PublicKey, hash hsm.Hash, seed []byte) hsm.Transported {
	t.Helper()
	return EncryptTo(t, public, hsm.Transported{Mechanism: hsm.TransportOAEP, Hash: hash}, seed)
}

func pkcs1(t testing.TB, public *rsa.PublicKey, hash hsm.Hash, seed []byte) hsm.Transported {
	t.Helper()
	return EncryptTo(t, public, hsm.Transported{Mechanism: hsm.TransportPKCS1, Hash: hash}, seed)
}

// rewrap takes over one seed.
func rewrap(t testing.TB, k TransportKeystore, item hsm.Transported, o hsm.TransportOptions) hsm.Rewrapped {
	t.Helper()
	all, err := k.Rewrap(t.Context(), []hsm.Transported{item}, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 {
		t.Fatalf("%d answers to one seed", len(all))
	}
	if r := all[0]; r.Err != nil && (r.Path != "" || r.Blob != nil || r.SeedLen != 0) {
		t.Fatalf("a seed has both an error (%v) and an answer", r.Err)
	}
	return all[0]
}

// is checks that what was taken over computes as seed does, and looks like what
// Wrap makes of it.
func is(t testing.TB, k TransportKeystore, r hsm.Rewrapped, hash hsm.Hash, seed []byte) {
	t.Helper()
	if r.Err != nil {
		t.Errorf("a seed of %d bytes for %v: %v", len(seed), hash, r.Err)
		return
	}
	if int(r.SeedLen) != len(seed) || r.Hash != hash {
		t.Errorf("a seed of %d bytes for %v is recorded as %d bytes for %v", len(seed), hash, r.SeedLen, r.Hash)
	}
	same, err := k.Wrap(t.Context(), []hsm.Seed{{Hash: hash, Bytes: seed}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Mechanism != same[0].Mechanism || r.KEK != same[0].KEK {
		t.Errorf("wrapped by %q under KEK %d, and by Wrap %q under %d", r.Mechanism, r.KEK, same[0].Mechanism, same[0].KEK)
	}
	if len(seed) <= hash.BlockSize() && !bytes.Equal(r.Blob, same[0].Blob) {
		// KWP is deterministic, so it is the same padded key.
		t.Errorf("a seed of %d bytes for %v is wrapped to other bytes than by Wrap", len(seed), hash)
	}
	s := &hsm.Sealed{Wrapped: r.Wrapped, Row: []byte("row")}
	mac, err := k.MAC(t.Context(), hsm.KeyBinding, s.Message())
	if err != nil {
		t.Fatal(err)
	}
	s.Binding = mac[0]
	got, err := one(t, k, s, 0, 7)
	if err != nil || !bytes.Equal(got[0], True(hash, seed, 0)) || !bytes.Equal(got[1], True(hash, seed, 7)) {
		t.Errorf("a seed of %d bytes for %v: another HMAC (%v)", len(seed), hash, err)
	}
}

func testNoTransport(t *testing.T, k TransporterUnderTest) {
	if keys := k.TransportKeys(); len(keys) != 0 {
		t.Errorf("attached: %+v", keys)
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	item := oaep(t, &stranger.PublicKey, hsm.SHA1, random(20))
	for _, to := range []*rsa.PublicKey{nil, &stranger.PublicKey} {
		if all, err := k.Rewrap(t.Context(), []hsm.Transported{item}, hsm.TransportOptions{To: to}); !errors.Is(err, hsm.ErrNoTransportKey) || all != nil {
			t.Errorf("without a transport key: %v, %v", all, err)
		}
	}
}

var transportLens = []int{1, 10, 16, 20, 21, 24, 32, 33, 63, 64, 65, 72, 100, 128, 129, 136, 200}

func testTransportLengths(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	var items []hsm.Transported
	var seeds [][]byte
	for _, h := range hashes {
		for _, n := range transportLens {
			seed := random(n)
			items, seeds = append(items, oaep(t, public, h, seed)), append(seeds, seed)
		}
	}
	all, err := k.Rewrap(hsm.Bulk(t.Context()), items, hsm.TransportOptions{AllowHost: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(items) {
		t.Fatalf("%d answers to %d seeds", len(all), len(items))
	}
	for i, r := range all {
		is(t, k, r, items[i].Hash, seeds[i])
		want := hsm.PathHost
		if k.Inside(items[i].Hash, len(seeds[i])) {
			want = hsm.PathHSM
		}
		if r.Err == nil && r.Path != want {
			t.Errorf("a seed of %d bytes for %v travelled by %q", len(seeds[i]), items[i].Hash, r.Path)
		}
	}
	if all, err := k.Rewrap(t.Context(), nil, hsm.TransportOptions{}); err != nil || len(all) != 0 {
		t.Errorf("Rewrap of nothing: %v, %v", all, err)
	}
}

func testTransportHost(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	for _, h := range hashes {
		for _, n := range []int{10, 20, 65} {
			seed := random(n)
			r := rewrap(t, k, oaep(t, public, h, seed), hsm.TransportOptions{})
			if k.Inside(h, n) {
				is(t, k, r, h, seed)
				if r.Path != hsm.PathHSM {
					t.Errorf("a seed of %d bytes for %v travelled by %q without permission", n, h, r.Path)
				}
			} else if !errors.Is(r.Err, hsm.ErrUnsupported) || errors.Is(r.Err, hsm.ErrTransport) {
				t.Errorf("a seed of %d bytes for %v, which cannot travel inside: %v", n, h, r.Err)
			}
		}
	}
}

func testTransportOAEP(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	digests := []crypto.Hash{0, crypto.SHA1, crypto.SHA256, crypto.SHA384, crypto.SHA512}
	for _, h := range digests {
		for _, mgf := range digests {
			for _, label := range []string{"", "vendor"} {
				name := fmt.Sprintf("OAEP %d, MGF1 %d, label %q", h, mgf, label)
				seed := random(32)
				r := rewrap(t, k, EncryptTo(t, public, hsm.Transported{
					Mechanism: hsm.TransportOAEP, OAEPHash: h, MGFHash: mgf, Label: []byte(label), Hash: hsm.SHA256,
				}, seed), hsm.TransportOptions{AllowHost: true})
				switch {
				case k.OAEP(max(h, crypto.SHA1), max(mgf, crypto.SHA1), label != ""):
					is(t, k, r, hsm.SHA256, seed)
					if r.Path != hsm.PathHSM {
						t.Errorf("%s: travelled by %q", name, r.Path)
					}
				case !errors.Is(r.Err, hsm.ErrUnsupported):
					t.Errorf("%s: %v", name, r.Err)
				}
			}
		}
	}
	// Parameters other than those that it was encrypted with are an error.
	item := oaep(t, public, hsm.SHA1, random(20))
	for name, change := range map[string]func(*hsm.Transported){
		"another digest":    func(i *hsm.Transported) { i.OAEPHash = crypto.SHA256 },
		"another MGF1":      func(i *hsm.Transported) { i.MGFHash = crypto.SHA256 },
		"another label":     func(i *hsm.Transported) { i.Label = []byte("x") },
		"a strange digest":  func(i *hsm.Transported) { i.OAEPHash = crypto.MD5SHA1 },
		"no such mechanism": func(i *hsm.Transported) { i.Mechanism = "rsa-raw" },
		"no mechanism":      func(i *hsm.Transported) { i.Mechanism = "" },
		"no HMAC digest":    func(i *hsm.Transported) { i.Hash = 0 },
		"no such digest":    func(i *hsm.Transported) { i.Hash = 9 },
	} {
		other := item
		change(&other)
		if r := rewrap(t, k, other, hsm.TransportOptions{AllowHost: true, AllowPKCS1: true}); r.Err == nil {
			t.Errorf("%s was taken over", name)
		}
	}
}

func testTransportPKCS1(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	seed := random(20)
	item := pkcs1(t, public, hsm.SHA1, seed)
	if r := rewrap(t, k, item, hsm.TransportOptions{AllowHost: true}); !errors.Is(r.Err, hsm.ErrPKCS1) {
		t.Errorf("RSA-1_5 without permission: %v", r.Err)
	}
	r := rewrap(t, k, item, hsm.TransportOptions{AllowPKCS1: true})
	is(t, k, r, hsm.SHA1, seed)
	if r.Path != hsm.PathHSM {
		t.Errorf("travelled by %q", r.Path)
	}
	short := random(16)
	item = pkcs1(t, public, hsm.SHA1, short)
	is(t, k, rewrap(t, k, item, hsm.TransportOptions{AllowPKCS1: true, AllowHost: true}), hsm.SHA1, short)
	if r := rewrap(t, k, item, hsm.TransportOptions{AllowPKCS1: true}); k.Inside(hsm.SHA1, 16) {
		is(t, k, r, hsm.SHA1, short)
	} else if r.Err != hsm.ErrTransport {
		t.Errorf("a short seed by RSA-1_5 has an error of its own: %v", r.Err)
	}
}

func testTransportWrong(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	stranger, err := rsa.GenerateKey(rand.Reader, hsm.MinTransportBits)
	if err != nil {
		t.Fatal(err)
	}
	for _, encrypt := range []func(testing.TB, *rsa.PublicKey, hsm.Hash, []byte) hsm.Transported{oaep, pkcs1} {
		seed := random(20)
		good := encrypt(t, public, hsm.SHA1, seed)
		with := func(ciphertext []byte) hsm.Transported {
			i := good
			i.Ciphertext = ciphertext
			return i
		}
		altered := bytes.Clone(good.Ciphertext)
		altered[100] ^= 4
		wrong := map[string]hsm.Transported{
			"encrypted to another key": encrypt(t, &stranger.PublicKey, hsm.SHA1, seed),
			"altered":                  with(altered),
			"empty":                    with(nil),
			"zero":                     with(make([]byte, len(good.Ciphertext))),
			"too short":                with(good.Ciphertext[:255]),
			"too long":                 with(append(bytes.Clone(good.Ciphertext), 0)),
			"not below the modulus":    with(bytes.Repeat([]byte{0xFF}, len(good.Ciphertext))),
			"the modulus":              with(public.N.Bytes()),
			"no seed in it":            encrypt(t, public, hsm.SHA1, nil),
		}
		if good.Mechanism == hsm.TransportPKCS1 {
			wrong["a seed of a strange length"] = encrypt(t, public, hsm.SHA1, random(23))
		}
		items, names := []hsm.Transported{good}, []string{""}
		for name, item := range wrong {
			items, names = append(items, item, good), append(names, name, "")
		}
		all, err := k.Rewrap(t.Context(), items, hsm.TransportOptions{AllowPKCS1: true, AllowHost: true})
		if err != nil {
			t.Fatal(err)
		}
		mistaken := 0
		for i, r := range all {
			switch {
			case names[i] == "":
				is(t, k, r, hsm.SHA1, seed)
			case r.Err == hsm.ErrTransport:
			case r.Err == nil && k.Resists && good.Mechanism == hsm.TransportPKCS1:
				mistaken++ // random bytes that could be a seed
			default:
				t.Errorf("%s, %s: %v", good.Mechanism, names[i], r.Err)
			}
		}
		// At most three of them reach the HSM with no padding that is right, and
		// one in fifty of these is mistaken.
		if mistaken > 2 {
			t.Errorf("%d wrong ciphertexts were taken for seeds", mistaken)
		}
	}
	if err := k.Ready(); err != nil {
		t.Errorf("after wrong ciphertexts: %v", err)
	}
}

func testTransportLimit(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	seed := random(20)
	good, fine := pkcs1(t, public, hsm.SHA1, seed), oaep(t, public, hsm.SHA1, seed)
	allowed := hsm.TransportOptions{AllowPKCS1: true}
	for range 3 {
		is(t, k, rewrap(t, k, good, allowed), hsm.SHA1, seed)
	}
	bad := good
	bad.Ciphertext = bad.Ciphertext[1:]
	all, err := k.Rewrap(t.Context(), slices.Repeat([]hsm.Transported{bad}, hsm.WrongAttempts+3), allowed)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range all {
		if i < hsm.WrongAttempts && r.Err != hsm.ErrTransport || i >= hsm.WrongAttempts && !errors.Is(r.Err, hsm.ErrTransportLimit) {
			t.Errorf("wrong ciphertext %d: %v", i, r.Err)
		}
	}
	if r := rewrap(t, k, good, allowed); !errors.Is(r.Err, hsm.ErrTransportLimit) {
		t.Errorf("RSA-1_5 after the limit: %v", r.Err)
	}
	is(t, k, rewrap(t, k, fine, allowed), hsm.SHA1, seed)
}

func testTransportRotation(t *testing.T, k TransporterUnderTest) {
	ctx := t.Context()
	old, records := Transport(t, k, k.Records)
	next, err := k.CreateTransport(ctx, 2, hsm.MinTransportBits)
	if err != nil {
		t.Fatal(err)
	}
	if len(k.TransportKeys()) != 1 {
		t.Error("a key that was made but not attached is in use")
	}
	if err := k.Attach(ctx, append([]hsm.KeyRecord{next}, records...)); err != nil {
		t.Fatal(err)
	}
	keys := k.TransportKeys()
	if len(keys) != 2 || keys[0].Version != 2 || keys[1].Version != 1 || !keys[1].Public.Equal(old) || keys[0].Public.Equal(old) {
		t.Fatalf("two keys are attached as %+v", keys)
	}
	seed := random(20)
	toOld, toNew := oaep(t, old, hsm.SHA1, seed), oaep(t, keys[0].Public, hsm.SHA1, seed)
	is(t, k, rewrap(t, k, toNew, hsm.TransportOptions{}), hsm.SHA1, seed)
	is(t, k, rewrap(t, k, toNew, hsm.TransportOptions{To: keys[0].Public}), hsm.SHA1, seed)
	is(t, k, rewrap(t, k, toOld, hsm.TransportOptions{To: old}), hsm.SHA1, seed)
	if r := rewrap(t, k, toOld, hsm.TransportOptions{}); r.Err != hsm.ErrTransport {
		t.Errorf("encrypted to another version: %v", r.Err)
	}
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Rewrap(ctx, []hsm.Transported{toNew}, hsm.TransportOptions{To: &stranger.PublicKey}); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("said to be encrypted to a stranger's key: %v", err)
	}
}

func testTransportAttach(t *testing.T, k TransporterUnderTest) {
	ctx := t.Context()
	public, records := Transport(t, k, k.Records)
	transport := records[len(records)-1]
	check, id, elsewhere := transport, transport, transport
	check.Check = bytes.Clone(check.Check)
	check.Check[0] ^= 1
	id.ID = random(16)
	elsewhere.ID = k.Records[len(k.Records)-1].ID
	for what, r := range map[string]hsm.KeyRecord{
		"another check value": check, "an unknown CKA_ID": id, "another key's CKA_ID": elsewhere,
	} {
		if err := k.Attach(ctx, append(slices.Clone(k.Records), r)); !errors.Is(err, hsm.ErrKeyMismatch) {
			t.Errorf("%s: %v", what, err)
		} else if !strings.Contains(err.Error(), string(hsm.KeyTransport)) {
			t.Errorf("%s: the error does not name the key: %v", what, err)
		}
	}
	// That it is there does not make up for another that is not.
	for i := range k.Records {
		if err := k.Attach(ctx, slices.Delete(slices.Clone(records), i, i+1)); !errors.Is(err, hsm.ErrKeyMismatch) {
			t.Errorf("without key %s: %v", k.Records[i].Name, err)
		}
	}
	seed := random(20)
	is(t, k, rewrap(t, k, oaep(t, public, hsm.SHA1, seed), hsm.TransportOptions{}), hsm.SHA1, seed)
	if err := k.Attach(ctx, k.Records); err != nil {
		t.Errorf("without the transport key: %v", err)
	}
	if len(k.TransportKeys()) != 0 {
		t.Error("a transport key that is attached no more is still in use")
	}
	if err := k.Attach(ctx, records); err != nil {
		t.Error(err)
	}
}

func testTransportKEK(t *testing.T, k TransporterUnderTest) {
	ctx := t.Context()
	public, records := Transport(t, k, k.Records)
	kek, err := k.Create(ctx, hsm.KeyKEK, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Attach(ctx, append(slices.Clone(records), kek)); err != nil {
		t.Fatal(err)
	}
	seed := random(32)
	r := rewrap(t, k, oaep(t, public, hsm.SHA256, seed), hsm.TransportOptions{})
	is(t, k, r, hsm.SHA256, seed)
	if r.KEK != 2 {
		t.Errorf("taken over under KEK %d", r.KEK)
	}
}

func testTransportConcurrent(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	seed := random(20)
	sealed := Seal(t, k, hsm.SHA1, seed, []byte("row"))
	item := oaep(t, public, hsm.SHA1, seed)
	want := rewrap(t, k, item, hsm.TransportOptions{})
	is(t, k, want, hsm.SHA1, seed)
	var wg sync.WaitGroup
	for i := range 4 {
		ctx := t.Context()
		if i%2 == 0 {
			ctx = hsm.Bulk(ctx)
		}
		wg.Go(func() {
			all, err := k.Rewrap(ctx, slices.Repeat([]hsm.Transported{item}, 10), hsm.TransportOptions{})
			if err != nil {
				t.Error(err)
			}
			for _, r := range all {
				if r.Err != nil || !bytes.Equal(r.Blob, want.Blob) {
					t.Errorf("another answer: %v", r.Err)
				}
			}
		})
		wg.Go(func() {
			for f := range uint64(50) {
				j := &hsm.Job{Key: sealed, Factors: []uint64{f}}
				if err := k.HMAC(ctx, []*hsm.Job{j}); err != nil || j.Err != nil || !bytes.Equal(j.MACs[0], True(hsm.SHA1, seed, f)) {
					t.Errorf("another HMAC: %v, %v", err, j.Err)
				}
			}
		})
	}
	wg.Wait()
}

func testTransportEnd(t *testing.T, k TransporterUnderTest) {
	public, _ := Transport(t, k, k.Records)
	items := []hsm.Transported{oaep(t, public, hsm.SHA1, random(20))}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if all, err := k.Rewrap(ctx, items, hsm.TransportOptions{}); !errors.Is(err, context.Canceled) || all != nil {
		t.Errorf("cancelled: %v", err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	if all, err := k.Rewrap(t.Context(), items, hsm.TransportOptions{}); !errors.Is(err, hsm.ErrUnavailable) || all != nil {
		t.Errorf("after Close: %v", err)
	}
}

func testTransportSizes(t *testing.T, k TransporterUnderTest) {
	for _, bits := range []int{-1, 1, 512, 1024, 2047, 2049, 2560, 5120, 8192, 16384} {
		if _, err := k.CreateTransport(t.Context(), 1, bits); err == nil {
			t.Errorf("a transport key of %d bits was made", bits)
		}
	}
	r, err := k.CreateTransport(t.Context(), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Attach(t.Context(), append(slices.Clone(k.Records), r)); err != nil {
		t.Fatal(err)
	}
	if got := k.TransportKeys()[0].Public.N.BitLen(); got != hsm.TransportBits {
		t.Errorf("where no size is asked for, %d bits are made", got)
	}
}
