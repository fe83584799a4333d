package hsmtest

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"watchword/hsm"
)

func TestMemoryConforms(t *testing.T) {
	Run(t, func(t *testing.T) KeystoreUnderTest {
		m := NewMemory(t)
		return KeystoreUnderTest{m, m.Records()}
	})
}

func TestSoftHSMConforms(t *testing.T) {
	Run(t, func(t *testing.T) KeystoreUnderTest {
		k, records := SoftHSM(t)
		return KeystoreUnderTest{k, records}
	})
}

func TestMemoryTransportConforms(t *testing.T) {
	RunTransporter(t, func(t *testing.T) TransporterUnderTest {
		m := NewMemory(t)
		return TransporterUnderTest{
			TransportKeystore: m, Records: m.Records(), Inside: LikeSoftHSM,
			OAEP: func(crypto.Hash, crypto.Hash, bool) bool { return true },
		}
	})
}

func TestSoftHSMTransportConforms(t *testing.T) {
	RunTransporter(t, func(t *testing.T) TransporterUnderTest {
		k, records := SoftHSM(t)
		return TransporterUnderTest{
			TransportKeystore: k, Records: records, Inside: LikeSoftHSM,
			OAEP: func(hash, mgf crypto.Hash, labelled bool) bool {
				return hash == crypto.SHA1 && mgf == crypto.SHA1 && !labelled
			},
		}
	})
}

func TestKeyWrapIsRFC5649(t *testing.T) {
	// RFC 5649, section 6, the example of more than eight bytes.
	kek, _ := hex.DecodeString("5840df6e29b02af1ab493b705bf16ea1ae8338f4dcc176a8")
	key, _ := hex.DecodeString("c37b7e6492584340bed12207808941155068f738")
	want, _ := hex.DecodeString("138bdeaa9b8fa7fc61f97742e72248ee5ae6ae5360d1ae6a5f54f373fa543b6a")
	if got := kwpWrap(kek, key); !bytes.Equal(got, want) {
		t.Errorf("wrapped %x, want %x", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 9, 200).Draw(t, "key")
		blob := kwpWrap(kek, key)
		if got, ok := kwpUnwrap(kek, blob); !ok || !bytes.Equal(got, key) {
			t.Fatalf("a key of %d bytes does not come back", len(key))
		}
		blob[rapid.IntRange(0, len(blob)-1).Draw(t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if _, ok := kwpUnwrap(kek, blob); ok {
			t.Fatal("an altered blob was unwrapped")
		}
	})
}

// accused is a testing.TB that takes note of Errorf.
type accused struct {
	testing.TB
	errors int
}

func (a *accused) Errorf(string, ...any) { a.errors++ }

func TestMemoryAccuses(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(m *Memory, seed []byte, s *hsm.Sealed)
		want int
	}{
		{"an honest caller", func(m *Memory, _ []byte, s *hsm.Sealed) {
			m.HMAC(t.Context(), []*hsm.Job{{Key: s, Factors: []uint64{1}, Stop: func(int, []byte) bool { return true }}})
		}, 0},
		{"a seed in a message", func(m *Memory, seed []byte, _ *hsm.Sealed) {
			m.MAC(t.Context(), hsm.KeyBinding, append([]byte("x"), seed...))
		}, 1},
		{"a seed in hex in a secret", func(m *Memory, seed []byte, _ *hsm.Sealed) {
			m.Seal(t.Context(), []byte(hex.EncodeToString(seed)), nil)
		}, 1},
		{"a Stop that writes", func(m *Memory, _ []byte, s *hsm.Sealed) {
			m.HMAC(t.Context(), []*hsm.Job{{Key: s, Factors: []uint64{1}, Stop: func(_ int, mac []byte) bool { mac[0]++; return true }}})
		}, 1},
	} {
		a := &accused{TB: t}
		m := NewMemory(a)
		seed := random(20)
		test.do(m, seed, Seal(t, m, hsm.SHA1, seed, []byte("row")))
		if a.errors != test.want {
			t.Errorf("%s: accused %d times, want %d", test.name, a.errors, test.want)
		}
	}
}

func TestMemoryFailsOnCommand(t *testing.T) {
	m := NewMemory(t)
	s := Seal(t, m, hsm.SHA1, random(20), []byte("row"))
	m.Fail(errors.New("unplugged"))
	j := &hsm.Job{Key: s, Factors: []uint64{1}}
	if err := m.HMAC(t.Context(), []*hsm.Job{j}); !errors.Is(err, hsm.ErrUnavailable) || !errors.Is(j.Err, hsm.ErrUnavailable) {
		t.Errorf("while failing: %v, %v", err, j.Err)
	}
	if err := m.Ready(); !errors.Is(err, hsm.ErrUnavailable) {
		t.Errorf("Ready while failing: %v", err)
	}
	m.Heal()
	if _, err := one(t, m, s, 1); err != nil {
		t.Errorf("after Heal: %v", err)
	}
}
