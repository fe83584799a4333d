package hsmtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"watchword/hsm"
)

// Statement makes the statement keys of some versions and attaches them alone. It
// answers their records in that order.
func Statement(t testing.TB, k hsm.StatementKeys, versions ...uint32) []hsm.KeyRecord {
	t.Helper()
	var records []hsm.KeyRecord
	for _, version := range versions {
		r, err := k.CreateStatement(context.Background(), version)
		if err != nil {
			t.Fatal(err)
		}
		if r.Name != hsm.KeyStatement || r.Version != version || len(r.ID) == 0 || len(r.Check) == 0 {
			t.Fatalf("version %d is recorded as %+v", version, r)
		}
		records = append(records, r)
	}
	if err := k.AttachStatement(context.Background(), records); err != nil {
		t.Fatal(err)
	}
	return records
}

// signsStatement has version sign, and proves the signature under public.
func signsStatement(t testing.TB, k hsm.StatementKeys, version uint32, public *ecdsa.PublicKey) {
	t.Helper()
	digest := sha256.Sum256(random(100))
	signature, err := k.SignStatement(t.Context(), version, digest[:])
	if err != nil || len(signature) != 64 {
		t.Fatalf("version %d: a signature of %d bytes, %v", version, len(signature), err)
	}
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	if !ecdsa.Verify(public, digest[:], r, s) {
		t.Errorf("version %d: the signature does not verify", version)
	}
	digest[0] ^= 1
	if ecdsa.Verify(public, digest[:], r, s) {
		t.Errorf("version %d: the signature verifies another digest", version)
	}
}

// signsNot says that version signs nothing, for a reason of this kind.
func signsNot(t testing.TB, k hsm.StatementKeys, version uint32, kind error) {
	t.Helper()
	if signature, err := k.SignStatement(t.Context(), version, make([]byte, 32)); !errors.Is(err, kind) || signature != nil {
		t.Errorf("version %d: a signature of %d bytes, %v", version, len(signature), err)
	}
}

// attached says which versions are, the newest first, and answers their keys.
func attached(t testing.TB, k hsm.StatementKeys, want ...uint32) []*ecdsa.PublicKey {
	t.Helper()
	var got []uint32
	var keys []*ecdsa.PublicKey
	for _, s := range k.StatementKeys() {
		if s.Public == nil || s.Public.Curve != elliptic.P256() {
			t.Fatalf("version %d is attached without a point of P-256", s.Version)
		}
		got, keys = append(got, s.Version), append(keys, s.Public)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("versions %v are attached, want %v", got, want)
	}
	return keys
}

func testStatement(t *testing.T, k KeystoreUnderTest) {
	attached(t, k)
	signsNot(t, k, 1, hsm.ErrKeyMismatch)
	Statement(t, k, 1)
	key := attached(t, k, 1)[0]
	signsStatement(t, k, 1, key)
	if key.Equal(k.PublicKey()) {
		t.Error("statements are signed with the audit key")
	}
	signsNot(t, k, 2, hsm.ErrKeyMismatch)
	for _, n := range []int{0, 20, 31, 33, 64} {
		if _, err := k.SignStatement(t.Context(), 1, make([]byte, n)); err == nil {
			t.Errorf("a digest of %d bytes was signed", n)
		}
	}
}

func testStatementLife(t *testing.T, k KeystoreUnderTest) {
	ctx := t.Context()
	records := Statement(t, k, 1, 2)
	keys := attached(t, k, 2, 1)
	if keys[0].Equal(keys[1]) {
		t.Fatal("two versions are the same key")
	}
	signsStatement(t, k, 2, keys[0])
	signsStatement(t, k, 1, keys[1])
	third, err := k.CreateStatement(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	attached(t, k, 2, 1)
	signsNot(t, k, 3, hsm.ErrKeyMismatch)
	if err := k.AttachStatement(ctx, []hsm.KeyRecord{third, records[1]}); err != nil {
		t.Fatal(err)
	}
	now := attached(t, k, 3, 2)
	if !now[1].Equal(keys[0]) {
		t.Error("version 2 became another key")
	}
	signsNot(t, k, 1, hsm.ErrKeyMismatch)
	signsStatement(t, k, 3, now[0])
	// The other keys may be attached again beside them.
	if err := k.Attach(ctx, k.Records); err != nil {
		t.Fatal(err)
	}
	signsStatement(t, k, 3, attached(t, k, 3, 2)[0])
	signsStatement(t, k, 2, keys[0])
	if err := k.Attach(ctx, append(slices.Clone(k.Records), third)); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("a statement key attached beside the audit key: %v", err)
	}
	// One that is destroyed signs nothing and is never found again.
	for range 2 {
		if err := k.DestroyStatement(ctx, records[1]); err != nil {
			t.Fatal(err)
		}
		attached(t, k, 3)
		signsNot(t, k, 2, hsm.ErrKeyMismatch)
	}
	if err := k.AttachStatement(ctx, []hsm.KeyRecord{third, records[1]}); !errors.Is(err, hsm.ErrKeyMismatch) {
		t.Errorf("a key that was destroyed: %v", err)
	}
	if err := k.AttachStatement(ctx, []hsm.KeyRecord{third, records[0]}); err != nil {
		t.Errorf("a key that was not destroyed: %v", err)
	}
	signsStatement(t, k, 1, keys[1])
	// Nothing else is.
	for _, r := range append(slices.Clone(k.Records), hsm.KeyRecord{Name: hsm.KeyStatement, Version: 3, ID: records[0].ID}) {
		name := r.Name
		for _, r.Name = range []hsm.KeyName{name, hsm.KeyStatement} {
			_ = k.DestroyStatement(ctx, r)
		}
	}
	attached(t, k, 3, 1)
	signsStatement(t, k, 1, keys[1])
	if err := k.Attach(ctx, k.Records); err != nil {
		t.Errorf("the keys of the server were destroyed: %v", err)
	}
	if err := k.AttachStatement(ctx, nil); err != nil {
		t.Error(err)
	}
	attached(t, k)
	signsNot(t, k, 3, hsm.ErrKeyMismatch)
}

func testStatementAttach(t *testing.T, k KeystoreUnderTest) {
	ctx := t.Context()
	records := Statement(t, k, 1, 2)
	key := attached(t, k, 2, 1)[0]
	check, id, elsewhere, audit, name := records[0], records[0], records[0], records[0], records[0]
	check.Check = bytes.Clone(check.Check)
	check.Check[0] ^= 1
	id.ID = random(16)
	elsewhere.ID = records[1].ID
	for _, r := range k.Records {
		if r.Name == hsm.KeyAudit {
			audit.ID, audit.Check = r.ID, r.Check
		}
	}
	for what, r := range map[string]hsm.KeyRecord{
		"another check value": check, "an unknown CKA_ID": id, "another version's CKA_ID": elsewhere, "the audit key": audit,
	} {
		err := k.AttachStatement(ctx, []hsm.KeyRecord{r, records[1]})
		if !errors.Is(err, hsm.ErrKeyMismatch) || errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if !strings.Contains(err.Error(), string(hsm.KeyStatement)+" version 1") || strings.Contains(err.Error(), "version 2") {
			t.Errorf("%s: the error does not name the key alone: %v", what, err)
		}
		if strings.Contains(err.Error(), hex.EncodeToString(records[0].Check)) {
			t.Errorf("%s: the error tells the check value", what)
		}
		if got := attached(t, k, 2)[0]; !got.Equal(key) {
			t.Errorf("%s: the other one is another key", what)
		}
		signsStatement(t, k, 2, key)
		signsNot(t, k, 1, hsm.ErrKeyMismatch)
	}
	name.Name = hsm.KeyAudit
	for what, set := range map[string][]hsm.KeyRecord{
		"a key of another name": {name, records[1]}, "a version twice": {records[1], records[1]},
	} {
		if err := k.AttachStatement(ctx, set); !errors.Is(err, hsm.ErrKeyMismatch) {
			t.Errorf("%s: %v", what, err)
		}
		attached(t, k, 2)
	}
	if err := k.Ready(); err != nil {
		t.Errorf("records that are wrong made the keystore unready: %v", err)
	}
}

// No call fails, and none has another answer, while statement keys come and go.
func testStatementConcurrent(t *testing.T, k KeystoreUnderTest) {
	ctx := t.Context()
	records := Statement(t, k, 1)
	key := attached(t, k, 1)[0]
	seed := random(20)
	sealed := Seal(t, k, hsm.SHA1, seed, []byte("row"))
	stop := make(chan struct{})
	var all sync.WaitGroup
	again := func(f func(i uint64)) {
		all.Go(func() {
			for i := uint64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
					f(i)
				}
			}
		})
	}
	for range 2 {
		again(func(i uint64) {
			j := &hsm.Job{Key: sealed, Factors: []uint64{i}}
			if err := k.HMAC(ctx, []*hsm.Job{j}); err != nil || j.Err != nil || !bytes.Equal(j.MACs[0], True(hsm.SHA1, seed, i)) {
				t.Errorf("another HMAC: %v, %v", err, j.Err)
			}
		})
		again(func(uint64) {
			digest := sha256.Sum256(random(10))
			signature, err := k.SignStatement(ctx, 1, digest[:])
			if err != nil || !ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
				t.Errorf("another signature: %v", err)
			}
		})
	}
	again(func(uint64) {
		if err := k.Ready(); err != nil {
			t.Errorf("unready: %v", err)
		}
	})
	for version := uint32(2); version < 10; version++ {
		r, err := k.CreateStatement(ctx, version)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.AttachStatement(ctx, []hsm.KeyRecord{records[0], r}); err != nil {
			t.Error(err)
		}
		signsStatement(t, k, version, attached(t, k, version, 1)[0])
		if err := k.DestroyStatement(ctx, r); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	all.Wait()
}

func testStatementEnd(t *testing.T, k KeystoreUnderTest) {
	records := Statement(t, k, 1)
	key := attached(t, k, 1)[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := func(ctx context.Context) map[string]error {
		errs := map[string]error{}
		_, errs["CreateStatement"] = k.CreateStatement(ctx, 2)
		errs["AttachStatement"] = k.AttachStatement(ctx, nil)
		_, errs["SignStatement"] = k.SignStatement(ctx, 1, make([]byte, 32))
		errs["DestroyStatement"] = k.DestroyStatement(ctx, hsm.KeyRecord{Name: hsm.KeyStatement, Version: 9, ID: random(16)})
		return errs
	}
	for what, err := range calls(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled: %v", what, err)
		}
	}
	if err := k.AttachStatement(t.Context(), records); err != nil {
		t.Error(err)
	}
	signsStatement(t, k, 1, key)
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	for what, err := range calls(t.Context()) {
		if !errors.Is(err, hsm.ErrUnavailable) {
			t.Errorf("%s after Close: %v", what, err)
		}
	}
	if got := attached(t, k, 1)[0]; !got.Equal(key) {
		t.Error("the public key is another after Close: nobody can verify what was signed")
	}
}
