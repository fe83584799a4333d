package pskc

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"slices"
	"strings"
)

// A mode is what is done with the block cipher.
type mode int

const (
	cbc     mode = iota // the IV before the ciphertext; needs a MAC
	keyWrap             // RFC 3394, or RFC 5649; has its own check
	desWrap             // RFC 3217; has its own check
	rsaWrap             // to a public key: RSAES-PKCS1-v1_5 or RSAES-OAEP
)

// algorithm is a way to encrypt a value under a symmetric key.
type algorithm struct {
	name  string // for people
	mode  mode
	block func(key []byte) (cipher.Block, error)
	keys  []int // key lengths, in bytes; the first is the usual one
}

var tripleKeys = []int{24, 16}

// algorithms are the ways to encrypt, by what follows the # of their URI in
// XML Encryption 1.0 and 1.1 and in RFC 6931, in lower case.
var algorithms = map[string]*algorithm{
	"aes128-cbc":      {"AES-128-CBC", cbc, aes.NewCipher, []int{16}},
	"aes192-cbc":      {"AES-192-CBC", cbc, aes.NewCipher, []int{24}},
	"aes256-cbc":      {"AES-256-CBC", cbc, aes.NewCipher, []int{32}},
	"tripledes-cbc":   {"3DES-CBC", cbc, newTripleDES, tripleKeys},
	"kw-aes128":       {"AES-128 key wrap", keyWrap, aes.NewCipher, []int{16}},
	"kw-aes192":       {"AES-192 key wrap", keyWrap, aes.NewCipher, []int{24}},
	"kw-aes256":       {"AES-256 key wrap", keyWrap, aes.NewCipher, []int{32}},
	"kw-aes-128-pad":  {"AES-128 key wrap", keyWrap, aes.NewCipher, []int{16}},
	"kw-aes-192-pad":  {"AES-192 key wrap", keyWrap, aes.NewCipher, []int{24}},
	"kw-aes-256-pad":  {"AES-256 key wrap", keyWrap, aes.NewCipher, []int{32}},
	"kw-tripledes":    {"3DES key wrap", desWrap, newTripleDES, tripleKeys},
	"camellia128-cbc": {"Camellia-128-CBC", cbc, newCamellia, []int{16}},
	"camellia192-cbc": {"Camellia-192-CBC", cbc, newCamellia, []int{24}},
	"camellia256-cbc": {"Camellia-256-CBC", cbc, newCamellia, []int{32}},
	"kw-camellia128":  {"Camellia-128 key wrap", keyWrap, newCamellia, []int{16}},
	"kw-camellia192":  {"Camellia-192 key wrap", keyWrap, newCamellia, []int{24}},
	"kw-camellia256":  {"Camellia-256 key wrap", keyWrap, newCamellia, []int{32}},

	"rsa-1_5":        {"RSA-1_5", rsaWrap, nil, nil},
	"rsa_1_5":        {"RSA-1_5", rsaWrap, nil, nil}, // as in RFC 6030's figure 8
	"rsa-oaep-mgf1p": {"RSA-OAEP", rsaWrap, nil, nil},
	"rsa-oaep":       {"RSA-OAEP", rsaWrap, nil, nil},

	// As the drafts of RFC 6030 name them.
	"3des112-cbc": {"3DES-CBC", cbc, newTripleDES, []int{16}},
	"3des168-cbc": {"3DES-CBC", cbc, newTripleDES, []int{24}},
	"3des-cbc":    {"3DES-CBC", cbc, newTripleDES, tripleKeys},
	"kw-3des":     {"3DES key wrap", desWrap, newTripleDES, tripleKeys},
}

// cipherSpaces are what an algorithm's URI may begin with.
var cipherSpaces = []string{
	nsXEnc, nsXEnc11, "http://www.w3.org/2001/04/xmldsig-more#",
}

// algorithmNamed finds an algorithm by its URI, or by its bare name as the
// drafts have it; nil if it is not known.
func algorithmNamed(uri string) *algorithm {
	name := strings.ToLower(uri)
	for _, space := range cipherSpaces {
		if rest, ok := strings.CutPrefix(name, space); ok {
			return algorithms[rest]
		}
	}
	return algorithms[name]
}

// fits says whether a key has a length that a can use.
func (a *algorithm) fits(key []byte) bool { return slices.Contains(a.keys, len(key)) }

// whole says whether n bytes can be what a makes, IV included.
func (a *algorithm) whole(n int) bool {
	switch {
	case a.mode == rsaWrap:
		return n > 0
	case a.mode == desWrap:
		return n >= 32 && n%8 == 0
	case a.mode == keyWrap:
		return n >= 16 && n%8 == 0
	case a.name == "3DES-CBC":
		return n >= 16 && n%8 == 0
	}
	return n >= 32 && n%16 == 0
}

// open decrypts value, which it writes over, under a key that fits. It says
// whether the padding or the check of the key wrap is right. The answer lies
// within value.
func (a *algorithm) open(block cipher.Block, value []byte) ([]byte, bool) {
	switch a.mode {
	case cbc:
		return openCBC(block, value)
	case keyWrap:
		return unwrapAES(block, value)
	case desWrap:
		return unwrapDES(block, value)
	}
	return nil, false
}

func newTripleDES(key []byte) (cipher.Block, error) {
	if len(key) == 16 { // two keys: the first one is also the third
		three := slices.Concat(key, key[:8])
		defer clear(three)
		return des.NewTripleDESCipher(three)
	}
	return des.NewTripleDESCipher(key)
}

// openCBC decrypts IV and ciphertext and takes the padding off: the last byte
// counts it, the others may be anything (XML Encryption 1.0, section 5.2).
func openCBC(block cipher.Block, value []byte) ([]byte, bool) {
	size := block.BlockSize()
	if len(value) < 2*size || len(value)%size != 0 {
		return nil, false
	}
	iv, text := value[:size], value[size:]
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(text, text)
	pad := int(text[len(text)-1])
	if pad < 1 || pad > size {
		return nil, false
	}
	return text[:len(text)-pad], true
}

// The initial values of key wrap: of RFC 3394, section 2.2.3.1, and the first
// half of RFC 5649's, section 3.
const (
	wrapIV    = 0xa6a6a6a6a6a6a6a6
	wrapIVPad = 0xa65959a6
)

// unwrapAES undoes the key wrap of RFC 3394 or, if the value says so, that with
// padding of RFC 5649. pskc-utils names the latter like the former.
func unwrapAES(block cipher.Block, value []byte) ([]byte, bool) {
	if len(value) < 16 || len(value)%8 != 0 {
		return nil, false
	}
	text := value[8:]
	n := uint64(len(text) / 8)
	var b [16]byte
	defer clear(b[:])
	copy(b[:8], value)
	if n == 1 { // RFC 5649, section 4.2, step 1: one block, without rounds
		copy(b[8:], text)
		block.Decrypt(b[:], b[:])
		copy(text, b[8:])
	} else {
		for t := 6 * n; t >= 1; t-- {
			i := (t - 1) % n * 8
			binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])^t)
			copy(b[8:], text[i:i+8])
			block.Decrypt(b[:], b[:])
			copy(text[i:i+8], b[8:])
		}
	}
	iv := binary.BigEndian.Uint64(b[:8])
	if iv == wrapIV && n > 1 {
		return text, true
	}
	length := iv & 0xffffffff
	if iv>>32 != wrapIVPad || length > 8*n || length <= 8*(n-1) {
		return nil, false
	}
	var padding byte
	for _, p := range text[length:] {
		padding |= p
	}
	return text[:length], padding == 0
}

// unwrapDES undoes the key wrap of RFC 3217, section 3.2: two rounds of CBC,
// the first over the octets in reverse, and eight octets of SHA-1 at the end.
func unwrapDES(block cipher.Block, value []byte) ([]byte, bool) {
	if len(value) < 32 || len(value)%8 != 0 {
		return nil, false
	}
	iv := []byte{0x4a, 0xdd, 0xa2, 0x2c, 0x79, 0xe8, 0x21, 0x05}
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(value, value)
	slices.Reverse(value)
	text := value[8:]
	cipher.NewCBCDecrypter(block, value[:8]).CryptBlocks(text, text)
	key, check := text[:len(text)-8], text[len(text)-8:]
	sum := sha1.Sum(key)
	return key, subtle.ConstantTimeCompare(sum[:8], check) == 1
}
