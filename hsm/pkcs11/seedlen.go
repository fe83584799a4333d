package pkcs11

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// commonLens are tried first.
var commonLens = []int{20, 32, 64, 16, 10}

// seedLen is the length of a secret in the HSM, of at most limit bytes.
//
// SoftHSM says 0 of a key that it unwrapped, but it digests it. SHA-256 of the
// key, and SHA-256 of the key and then the padding that SHA-256 gave it (FIPS
// 180-4, section 5.1.1), which depends on the length, and a byte more, belong
// together: the second continues the first. So the length that makes them agree
// is the key's, and its bytes stay where they are.
func seedLen(c conn, object handle, limit int) (int, error) {
	n, err := c.valueLen(object)
	if err != nil && !unable(err) {
		return 0, ill(err)
	}
	if err == nil && n > 0 && n <= limit {
		return n, nil
	}
	var sum, got [32]byte
	defer clear(sum[:])
	defer clear(got[:])
	if err := c.digestKey(object, nil, &sum); err != nil {
		if !unable(err, pkcs11.CKR_FUNCTION_NOT_SUPPORTED, pkcs11.CKR_KEY_INDIGESTIBLE, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED) {
			return 0, ill(err)
		}
		return 0, fmt.Errorf("it does not tell how long an unwrapped seed is")
	}
	try := func(n int) (bool, error) {
		more := append(shaPadding(n), 'x')
		if err := c.digestKey(object, more, &got); err != nil {
			return false, ill(err) // it worked a moment ago
		}
		want, err := continued(sum, n, more)
		return want == got, err
	}
	tried := map[int]bool{}
	for _, n := range commonLens {
		tried[n] = true
		if ok, err := try(n); ok || err != nil {
			return n, err
		}
	}
	for n := range limit + 1 {
		if tried[n] {
			continue
		}
		if ok, err := try(n); ok || err != nil {
			return n, err
		}
	}
	return 0, fmt.Errorf("it does not tell how long an unwrapped seed is, and its digest says nothing")
}

// shaPadding is what SHA-256 appends to a message of n bytes.
func shaPadding(n int) []byte {
	pad := make([]byte, 1, 73)
	pad[0] = 0x80
	for (n+len(pad))%sha256.BlockSize != sha256.BlockSize-8 {
		pad = append(pad, 0)
	}
	return binary.BigEndian.AppendUint64(pad, uint64(n)*8)
}

// continued is SHA-256 of a message of n bytes whose SHA-256 is sum, and then of
// more, which begins with the message's padding.
func continued(sum [32]byte, n int, more []byte) (result [32]byte, err error) {
	h := sha256.New()
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return result, err
	}
	padding := len(shaPadding(n))
	// The state is a name of four bytes, the eight words, the bytes of a block
	// that is not full, and how many bytes were hashed.
	if len(state) != 4+sha256.Size+sha256.BlockSize+8 {
		return result, errors.New("crypto/sha256 keeps its state in another form")
	}
	copy(state[4:], sum[:])
	binary.BigEndian.PutUint64(state[len(state)-8:], uint64(n+padding))
	defer clear(state)
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		return result, err
	}
	h.Write(more[padding:])
	h.Sum(result[:0])
	return result, nil
}
