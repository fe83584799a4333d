package pkcs11

import (
	"crypto/sha256"
	"testing"

	"pgregory.net/rapid"
)

func TestADigestIsContinuedOnlyFromItsLength(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		message := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "message")
		more := append(shaPadding(len(message)), 'x')
		sum := sha256.Sum256(message)
		want := sha256.Sum256(append(message[:len(message):len(message)], more...))
		got, err := continued(sum, len(message), more)
		if err != nil || got != want {
			t.Fatalf("a message of %d bytes: another digest (%v)", len(message), err)
		}
		n := rapid.IntRange(0, 300).Filter(func(n int) bool { return n != len(message) }).Draw(t, "another length")
		other := append(shaPadding(n), 'x')
		want = sha256.Sum256(append(message[:len(message):len(message)], other...))
		if got, err := continued(sum, n, other); err != nil || got == want {
			t.Fatalf("a message of %d bytes passes for %d (%v)", len(message), n, err)
		}
	})
}
