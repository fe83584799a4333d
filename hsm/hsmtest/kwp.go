package hsmtest

import (
	"crypto/aes"
	"crypto/subtle"
	"encoding/binary"
)

// kwpWrap is AES Key Wrap with Padding (RFC 5649, section 4.1) of more than
// eight bytes.
func kwpWrap(kek, key []byte) []byte {
	block, err := aes.NewCipher(kek)
	if err != nil {
		panic(err)
	}
	// The alternative initial value, section 3, then the padded key.
	out := binary.BigEndian.AppendUint32([]byte{0xA6, 0x59, 0x59, 0xA6}, uint32(len(key)))
	out = append(out, key...)
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	n := len(out)/8 - 1
	// RFC 3394, section 2.2.1; out[:8] is A, the rest R[1] to R[n].
	var b [16]byte
	for j := range 6 {
		for i := 1; i <= n; i++ {
			copy(b[:8], out[:8])
			copy(b[8:], out[8*i:8*i+8])
			block.Encrypt(b[:], b[:])
			a := binary.BigEndian.Uint64(b[:8]) ^ uint64(n*j+i)
			binary.BigEndian.PutUint64(out[:8], a)
			copy(out[8*i:], b[8:])
		}
	}
	return out
}

// kwpUnwrap is its inverse, section 4.2.
func kwpUnwrap(kek, blob []byte) (key []byte, ok bool) {
	if len(blob) < 24 || len(blob)%8 != 0 {
		return nil, false
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		panic(err)
	}
	out := append([]byte(nil), blob...)
	n := len(out)/8 - 1
	var b [16]byte
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(out[:8])^uint64(n*j+i))
			copy(b[8:], out[8*i:8*i+8])
			block.Decrypt(b[:], b[:])
			copy(out[:8], b[:8])
			copy(out[8*i:], b[8:])
		}
	}
	length := int(binary.BigEndian.Uint32(out[4:8]))
	if subtle.ConstantTimeCompare(out[:4], []byte{0xA6, 0x59, 0x59, 0xA6}) != 1 ||
		length > 8*n || length <= 8*(n-1) {
		return nil, false
	}
	for _, x := range out[8+length:] {
		if x != 0 {
			return nil, false
		}
	}
	return out[8 : 8+length], true
}
