package softkey

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"pgregory.net/rapid"
)

func TestACredentialIDIsAllThatAKeyNeeds(t *testing.T) {
	w, err := newWrapping()
	if err != nil {
		t.Fatal(err)
	}
	hash, other := sha256.Sum256([]byte("login.example.com")), sha256.Sum256([]byte("example.org"))
	for _, alg := range algorithms {
		for _, resident := range []bool{false, true} {
			made, err := w.create(alg, hash, 2, resident)
			if err != nil {
				t.Fatal(err)
			}
			got, err := w.open(made.id, &hash)
			if err != nil || got == nil {
				t.Fatalf("%v: its own ID is unknown: %v", alg, err)
			}
			if got == made || !bytes.Equal(got.public, made.public) || got.alg != alg || got.protect != 2 || got.resident != resident || !bytes.Equal(got.id, made.id) {
				t.Errorf("%v: opened as %+v, made as %+v", alg, got, made)
			}
			if again, _ := w.open(made.id, &hash); again != got {
				t.Errorf("%v: what was opened is not remembered", alg)
			}
			for i := 0; i < 2; i++ { // remembered, and not
				if got, err := w.open(made.id, &other); got != nil || err != nil {
					t.Errorf("%v: another relying party gets %v, %v", alg, got, err)
				}
				clear(w.opened)
			}
			if alg != RS256 && len(made.id) > 80 || len(made.id) > maxIDLength {
				t.Errorf("%v: the ID has %d bytes", alg, len(made.id))
			}
		}
	}
}

func TestAnIDThatWasNotMadeHereIsUnknown(t *testing.T) {
	w, err := newWrapping()
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256([]byte("login.example.com"))
	made, err := w.create(ES256, hash, 1, false)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		id := bytes.Clone(made.id)
		if rapid.Bool().Draw(t, "flip") {
			id[rapid.IntRange(0, len(id)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		} else {
			id = id[:rapid.IntRange(0, len(id)-1).Draw(t, "length")]
		}
		if c, err := w.open(id, &hash); c != nil || err != nil {
			t.Fatalf("a changed ID is opened as %v, %v", c, err)
		}
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	w, err := newWrapping()
	if err != nil {
		t.Fatal(err)
	}
	for i := range mostOpened + 100 {
		w.remember(&credential{id: []byte{byte(i), byte(i >> 8)}})
	}
	if len(w.opened) != mostOpened {
		t.Errorf("%d credentials are remembered, want %d", len(w.opened), mostOpened)
	}
	v, err := NewVendor("Test Keys")
	if err != nil {
		t.Fatal(err)
	}
	for i := range mostBatches + 1 {
		v.batches[batch{aaguid: [16]byte{byte(i), byte(i >> 8)}}] = nil
	}
	if _, err := v.attester(batch{format: Packed}, nil); err != nil || len(v.batches) != 1 {
		t.Errorf("%d batches are remembered: %v", len(v.batches), err)
	}
}
