package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"testing"

	"pgregory.net/rapid"
)

func TestTheHMACThatIsWipedIsHMAC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		hash := rapid.SampledFrom([]crypto.Hash{crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512}).Draw(t, "hash")
		key := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "key")
		message := rapid.SliceOfN(rapid.Byte(), 0, 600).Draw(t, "message")
		given := bytes.Clone(key)
		want := hmac.New(hash.New, key)
		want.Write(message)
		if got := wipedHMAC(hash, key, message); !bytes.Equal(got, want.Sum(nil)) || !bytes.Equal(key, given) {
			t.Fatalf("HMAC-%v with %d bytes over %d is another", hash, len(key), len(message))
		}
	})
}
