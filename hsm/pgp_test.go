package hsm_test

import (
	"testing"
	"time"

	"watchword/hsm"
)

func TestNoTwoPGPKeysHaveTheSameTime(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 5e8, time.UTC)
	var older []hsm.PGPKey
	for i, want := range []time.Time{now.Add(-time.Hour), now.Add(-time.Hour + time.Second), now.Add(-time.Hour + 2*time.Second)} {
		id := make([]byte, 16)
		hsm.DatePGP(id, now, older)
		got := hsm.PGPMade(id)
		if !got.Equal(want.Truncate(time.Second)) {
			t.Errorf("key %d was made at %v, want %v", i, got, want)
		}
		older = append([]hsm.PGPKey{{Version: uint32(i + 1), Made: got}}, older...)
	}
	id := make([]byte, 16)
	if hsm.DatePGP(id, now.Add(time.Hour), older); !hsm.PGPMade(id).Equal(now.Truncate(time.Second)) {
		t.Errorf("an hour later: %v", hsm.PGPMade(id))
	}
}

func TestWhatIsASessionKey(t *testing.T) {
	// RFC 9580, section 5.1.3: the sum of the key's octets, modulo 65536.
	key := func(cipher int, n int, fill byte) []byte {
		var b []byte
		if cipher >= 0 {
			b = append(b, byte(cipher))
		}
		for range n {
			b = append(b, fill)
		}
		sum := n * int(fill)
		return append(b, byte(sum>>8), byte(sum))
	}
	wrong := key(9, 32, 1)
	wrong[34]++
	for _, c := range []struct {
		plain []byte
		want  bool
	}{
		{key(9, 32, 0xff), true}, {key(8, 24, 0xff), true}, {key(7, 16, 1), true}, {key(2, 24, 1), true},
		{key(-1, 32, 0xff), true}, {key(-1, 16, 3), true},
		{key(7, 32, 1), false}, {key(9, 16, 1), false}, {key(1, 16, 1), false}, {key(0, 16, 1), false}, {key(99, 16, 1), false},
		{key(9, 31, 1), false}, {key(-1, 17, 2), false}, {wrong, false}, {nil, false}, {[]byte{7}, false}, {make([]byte, 200), false},
	} {
		if got := hsm.IsPGPSession(c.plain); got != c.want {
			t.Errorf("%x: %v", c.plain, got)
		}
	}
}
