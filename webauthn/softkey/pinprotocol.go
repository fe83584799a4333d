package softkey

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
)

// agreement is a key agreement of one PIN/UV auth protocol (CTAP 2.1 §6.5.6 and
// §6.5.7).
type agreement struct {
	protocol int // 1 or 2
	key      *ecdh.PrivateKey
}

func newAgreement(protocol int) (*agreement, error) {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	return &agreement{protocol, key}, err
}

// publicCOSE is the key agreement key in COSE form.
func (a *agreement) publicCOSE() map[int]any {
	point := a.key.PublicKey().Bytes() // 0x04 || x || y
	return map[int]any{1: 2, 3: coseECDH, -1: 1, -2: point[1:33], -3: point[33:]}
}

// coseECDH is ECDH-ES+HKDF-256, which CTAP2 names without meaning it.
const coseECDH = -25

// coseAgreement is the platform's half.
type coseAgreement struct {
	Type  int    `cbor:"1,keyasint"`
	Curve int    `cbor:"-1,keyasint"`
	X     []byte `cbor:"-2,keyasint"`
	Y     []byte `cbor:"-3,keyasint"`
}

// shared are the keys that both sides of an agreement have.
type shared struct {
	protocol int
	aes      []byte
	mac      []byte
}

// agree makes the shared keys with the platform's public key.
func (a *agreement) agree(with *coseAgreement) (*shared, error) {
	if with.Type != 2 || with.Curve != 1 || len(with.X) != 32 || len(with.Y) != 32 {
		return nil, statusInvalidParameter
	}
	public, err := ecdh.P256().NewPublicKey(append(append([]byte{4}, with.X...), with.Y...))
	if err != nil {
		return nil, statusInvalidParameter // not on the curve
	}
	z, err := a.key.ECDH(public)
	if err != nil {
		return nil, statusInvalidParameter
	}
	if a.protocol == 1 {
		secret := sha256.Sum256(z)
		return &shared{protocol: 1, aes: secret[:], mac: secret[:]}, nil
	}
	salt := make([]byte, 32)
	s := &shared{protocol: 2}
	if s.mac, err = hkdf.Key(sha256.New, z, salt, "CTAP2 HMAC key", 32); err != nil {
		return nil, err
	}
	s.aes, err = hkdf.Key(sha256.New, z, salt, "CTAP2 AES key", 32)
	return s, err
}

// encrypt is AES-256-CBC without padding: under a zero IV with protocol 1,
// behind a random one with protocol 2.
func (s *shared) encrypt(plain []byte) ([]byte, error) {
	block, err := aes.NewCipher(s.aes)
	if err != nil {
		return nil, err
	}
	iv := make([]byte, aes.BlockSize)
	var out []byte
	if s.protocol == 2 {
		rand.Read(iv)
		out = append(out, iv...)
	}
	body := make([]byte, len(plain))
	cipher.NewCBCEncrypter(block, iv).CryptBlocks(body, plain)
	return append(out, body...), nil
}

func (s *shared) decrypt(data []byte) ([]byte, error) {
	iv := make([]byte, aes.BlockSize)
	if s.protocol == 2 {
		if len(data) < aes.BlockSize {
			return nil, statusInvalidParameter
		}
		iv, data = data[:aes.BlockSize], data[aes.BlockSize:]
	}
	if len(data) == 0 || len(data)%aes.BlockSize != 0 {
		return nil, statusInvalidParameter
	}
	block, err := aes.NewCipher(s.aes)
	if err != nil {
		return nil, err
	}
	out := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, data)
	return out, nil
}

// verify checks a pinUvAuthParam under the shared key.
func (s *shared) verify(param []byte, parts ...[]byte) bool {
	return authenticated(s.protocol, s.mac, param, parts...)
}

// authenticated checks an HMAC, of which protocol 1 has the first half only.
func authenticated(protocol int, key, param []byte, parts ...[]byte) bool {
	mac := hmac.New(sha256.New, key)
	for _, p := range parts {
		mac.Write(p)
	}
	sum := mac.Sum(nil)
	if protocol == 1 {
		sum = sum[:16]
	}
	return hmac.Equal(sum, param)
}

// unpad takes the zeros off the end of a PIN of 64 bytes (CTAP 2.1 §6.5.5.5).
func unpad(padded []byte) ([]byte, error) {
	if len(padded) != 64 {
		return nil, statusInvalidParameter
	}
	pin := bytes.TrimRight(padded, "\x00")
	if len(pin) == len(padded) {
		return nil, statusPINPolicyViolation // at most 63 bytes
	}
	return pin, nil
}
