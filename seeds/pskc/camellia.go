package pskc

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"math/bits"
)

// camellia is the block cipher of RFC 3713, which XML security knows (RFC 6931)
// and the standard library does not. It is for reading files: its table look-ups
// take a time that depends on the key.
type camellia struct {
	whiten [4]uint64    // kw1 to kw4
	rounds []uint64     // k1 to k18 or k24
	fl     [3][2]uint64 // ke1 to ke4 or ke6, in pairs
}

// newCamellia makes the cipher for a key of 16, 24 or 32 bytes.
func newCamellia(key []byte) (cipher.Block, error) {
	var l, r [2]uint64
	half := func(i int) uint64 { return binary.BigEndian.Uint64(key[8*i:]) }
	switch len(key) {
	case 16:
	case 24:
		r = [2]uint64{half(2), ^half(2)}
	case 32:
		r = [2]uint64{half(2), half(3)}
	default:
		return nil, aes.KeySizeError(len(key))
	}
	l = [2]uint64{half(0), half(1)}

	// RFC 3713, section 2.2.
	mix := func(x, y uint64, first int) (uint64, uint64) {
		y ^= feistel(x, camelliaSigma[first])
		x ^= feistel(y, camelliaSigma[first+1])
		return x, y
	}
	var a, b [2]uint64
	a[0], a[1] = mix(l[0]^r[0], l[1]^r[1], 0)
	a[0], a[1] = mix(a[0]^l[0], a[1]^l[1], 2)
	b[0], b[1] = mix(a[0]^r[0], a[1]^r[1], 4)

	c := new(camellia)
	c.whiten[0], c.whiten[1] = l[0], l[1]
	add := func(k [2]uint64, n int) {
		hi, lo := rotate(k, n)
		c.rounds = append(c.rounds, hi, lo)
	}
	layer := func(i int, k [2]uint64, n int) { c.fl[i][0], c.fl[i][1] = rotate(k, n) }
	if len(key) == 16 {
		add(a, 0)
		add(l, 15)
		add(a, 15)
		layer(0, a, 30)
		add(l, 45)
		k9, _ := rotate(a, 45)
		_, k10 := rotate(l, 60)
		c.rounds = append(c.rounds, k9, k10)
		add(a, 60)
		layer(1, l, 77)
		add(l, 94)
		add(a, 94)
		add(l, 111)
		c.whiten[2], c.whiten[3] = rotate(a, 111)
		return c, nil
	}
	add(b, 0)
	add(r, 15)
	add(a, 15)
	layer(0, r, 30)
	add(b, 30)
	add(l, 45)
	add(a, 45)
	layer(1, l, 60)
	add(r, 60)
	add(b, 60)
	add(l, 77)
	layer(2, a, 77)
	add(r, 94)
	add(a, 94)
	add(l, 111)
	c.whiten[2], c.whiten[3] = rotate(b, 111)
	return c, nil
}

// rotate answers the halves of k rotated left by n bits.
func rotate(k [2]uint64, n int) (hi, lo uint64) {
	if n >= 64 {
		k[0], k[1], n = k[1], k[0], n-64
	}
	return k[0]<<n | k[1]>>(64-n), k[1]<<n | k[0]>>(64-n)
}

// BlockSize is 16 bytes.
func (c *camellia) BlockSize() int { return 16 }

// Encrypt encrypts one block (RFC 3713, section 2.3).
func (c *camellia) Encrypt(dst, src []byte) {
	x := binary.BigEndian.Uint64(src) ^ c.whiten[0]
	y := binary.BigEndian.Uint64(src[8:]) ^ c.whiten[1]
	for i := 0; i < len(c.rounds); i += 2 {
		if i > 0 && i%6 == 0 {
			k := c.fl[i/6-1]
			x, y = fl(x, k[0]), flInverse(y, k[1])
		}
		y ^= feistel(x, c.rounds[i])
		x ^= feistel(y, c.rounds[i+1])
	}
	binary.BigEndian.PutUint64(dst, y^c.whiten[2])
	binary.BigEndian.PutUint64(dst[8:], x^c.whiten[3])
}

// Decrypt decrypts one block: the same with the keys in reverse.
func (c *camellia) Decrypt(dst, src []byte) {
	x := binary.BigEndian.Uint64(src) ^ c.whiten[2]
	y := binary.BigEndian.Uint64(src[8:]) ^ c.whiten[3]
	n := len(c.rounds)
	for i := 0; i < n; i += 2 {
		if i > 0 && i%6 == 0 {
			k := c.fl[(n-i)/6-1]
			x, y = fl(x, k[1]), flInverse(y, k[0])
		}
		y ^= feistel(x, c.rounds[n-1-i])
		x ^= feistel(y, c.rounds[n-2-i])
	}
	binary.BigEndian.PutUint64(dst, y^c.whiten[0])
	binary.BigEndian.PutUint64(dst[8:], x^c.whiten[1])
}

// feistel is the F-function (RFC 3713, section 2.4.1).
func feistel(in, key uint64) uint64 {
	var t [8]byte
	binary.BigEndian.PutUint64(t[:], in^key)
	s := &camelliaBox
	t1, t2, t3, t4 := s[t[0]], bits.RotateLeft8(s[t[1]], 1), bits.RotateLeft8(s[t[2]], 7), s[bits.RotateLeft8(t[3], 1)]
	t5, t6, t7, t8 := bits.RotateLeft8(s[t[4]], 1), bits.RotateLeft8(s[t[5]], 7), s[bits.RotateLeft8(t[6], 1)], s[t[7]]
	return binary.BigEndian.Uint64([]byte{
		t1 ^ t3 ^ t4 ^ t6 ^ t7 ^ t8,
		t1 ^ t2 ^ t4 ^ t5 ^ t7 ^ t8,
		t1 ^ t2 ^ t3 ^ t5 ^ t6 ^ t8,
		t2 ^ t3 ^ t4 ^ t5 ^ t6 ^ t7,
		t1 ^ t2 ^ t6 ^ t7 ^ t8,
		t2 ^ t3 ^ t5 ^ t7 ^ t8,
		t3 ^ t4 ^ t5 ^ t6 ^ t8,
		t1 ^ t4 ^ t5 ^ t6 ^ t7,
	})
}

// fl and flInverse are the functions of those names (sections 2.4.2 and 2.4.3).
func fl(in, key uint64) uint64 {
	x, y := uint32(in>>32), uint32(in)
	y ^= bits.RotateLeft32(x&uint32(key>>32), 1)
	x ^= y | uint32(key)
	return uint64(x)<<32 | uint64(y)
}

func flInverse(in, key uint64) uint64 {
	x, y := uint32(in>>32), uint32(in)
	x ^= y | uint32(key)
	y ^= bits.RotateLeft32(x&uint32(key>>32), 1)
	return uint64(x)<<32 | uint64(y)
}

// camelliaSigma are the constants of the key schedule (section 2.2).
var camelliaSigma = [6]uint64{
	0xa09e667f3bcc908b, 0xb67ae8584caa73b2, 0xc6ef372fe94f82be,
	0x54ff53a5f1d36f1c, 0x10e527fade682d1d, 0xb05688c2b3e6c1fd,
}

// camelliaBox is SBOX1 (section 2.4.1).
var camelliaBox = [256]byte{
	112, 130, 44, 236, 179, 39, 192, 229, 228, 133, 87, 53, 234, 12, 174, 65,
	35, 239, 107, 147, 69, 25, 165, 33, 237, 14, 79, 78, 29, 101, 146, 189,
	134, 184, 175, 143, 124, 235, 31, 206, 62, 48, 220, 95, 94, 197, 11, 26,
	166, 225, 57, 202, 213, 71, 93, 61, 217, 1, 90, 214, 81, 86, 108, 77,
	139, 13, 154, 102, 251, 204, 176, 45, 116, 18, 43, 32, 240, 177, 132, 153,
	223, 76, 203, 194, 52, 126, 118, 5, 109, 183, 169, 49, 209, 23, 4, 215,
	20, 88, 58, 97, 222, 27, 17, 28, 50, 15, 156, 22, 83, 24, 242, 34,
	254, 68, 207, 178, 195, 181, 122, 145, 36, 8, 232, 168, 96, 252, 105, 80,
	170, 208, 160, 125, 161, 137, 98, 151, 84, 91, 30, 149, 224, 255, 100, 210,
	16, 196, 0, 72, 163, 247, 117, 219, 138, 3, 230, 218, 9, 63, 221, 148,
	135, 92, 131, 2, 205, 74, 144, 51, 115, 103, 246, 243, 157, 127, 191, 226,
	82, 155, 216, 38, 200, 55, 198, 59, 129, 150, 111, 75, 19, 190, 99, 46,
	233, 121, 167, 140, 159, 110, 188, 142, 41, 245, 249, 182, 47, 253, 180, 89,
	120, 152, 6, 106, 231, 70, 113, 186, 212, 37, 171, 66, 136, 162, 141, 250,
	114, 7, 185, 85, 248, 238, 172, 10, 54, 73, 42, 104, 60, 56, 241, 164,
	64, 40, 211, 123, 187, 201, 67, 193, 21, 227, 173, 244, 119, 199, 128, 158,
}
