package seeds

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"io"
)

var (
	errZipPassword = errors.New("the password is not the one that it was packed with")
	errZipAltered  = errors.New("its content does not fit its checksum: the password is wrong, or the archive was altered or damaged")
)

// zipCrypto is the cipher that zip archives have had since 1990. It is weak: who
// knows twelve bytes of the content can find the key.
type zipCrypto struct {
	r    io.ByteReader
	keys [3]uint32
}

// newZipCrypto reads the 12 bytes before the data, the last of which must
// decrypt to check.
func newZipCrypto(r io.ByteReader, password []byte, check byte) (*zipCrypto, error) {
	z := &zipCrypto{r: r, keys: [3]uint32{0x12345678, 0x23456789, 0x34567890}}
	for _, b := range password {
		z.update(b)
	}
	var last byte
	for range 12 {
		var err error
		if last, err = z.ReadByte(); err != nil {
			return nil, err
		}
	}
	if last != check {
		return nil, errZipPassword
	}
	return z, nil
}

func (z *zipCrypto) update(b byte) {
	k := &z.keys
	k[0] = crc32.IEEETable[byte(k[0])^b] ^ k[0]>>8
	k[1] = (k[1]+k[0]&0xff)*134775813 + 1
	k[2] = crc32.IEEETable[byte(k[2])^byte(k[1]>>24)] ^ k[2]>>8
}

func (z *zipCrypto) ReadByte() (byte, error) {
	c, err := z.r.ReadByte()
	if err != nil {
		return 0, err
	}
	t := uint16(z.keys[2]) | 2
	p := c ^ byte(t*(t^1)>>8)
	z.update(p)
	return p, nil
}

func (z *zipCrypto) wipe() { z.keys = [3]uint32{} }

// winzipAES is AES encryption as WinZip defined it (AE-1 and AE-2): counter mode
// with the counter in little-endian order from 1, and HMAC-SHA-1, cut to 10
// bytes, over what is encrypted.
type winzipAES struct {
	r       io.ByteReader
	block   cipher.Block
	mac     hash.Hash
	counter uint64
	stream  [aes.BlockSize]byte
	used    int
	pending []byte // encrypted bytes that the MAC has not seen
}

// newWinzipAES reads the salt and the check value before the data. keySize is in
// bytes.
func newWinzipAES(r io.ByteReader, password []byte, keySize int) (*winzipAES, error) {
	head := make([]byte, keySize/2+2)
	if _, err := io.ReadFull(bytewise{r}, head); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	keys := pbkdf2SHA1(password, head[:keySize/2], 1000, 2*keySize+2)
	defer clear(keys)
	if !hmac.Equal(keys[2*keySize:], head[keySize/2:]) {
		return nil, errZipPassword
	}
	block, err := aes.NewCipher(keys[:keySize])
	if err != nil {
		return nil, err
	}
	return &winzipAES{r: r, block: block, mac: hmac.New(sha1.New, keys[keySize:2*keySize]), used: aes.BlockSize, pending: make([]byte, 0, 512)}, nil
}

func (a *winzipAES) ReadByte() (byte, error) {
	c, err := a.r.ReadByte()
	if err != nil {
		return 0, err
	}
	if a.used == len(a.stream) {
		a.counter++
		clear(a.stream[:])
		binary.LittleEndian.PutUint64(a.stream[:], a.counter)
		a.block.Encrypt(a.stream[:], a.stream[:])
		a.used = 0
	}
	if a.pending = append(a.pending, c); len(a.pending) == cap(a.pending) {
		a.flush()
	}
	p := c ^ a.stream[a.used]
	a.used++
	return p, nil
}

func (a *winzipAES) flush() {
	a.mac.Write(a.pending)
	a.pending = a.pending[:0]
}

// verify checks the 10 bytes that follow the data.
func (a *winzipAES) verify(tag []byte) error {
	a.flush()
	if !hmac.Equal(a.mac.Sum(nil)[:10], tag) {
		return errZipAltered
	}
	return nil
}

func (a *winzipAES) wipe() { clear(a.stream[:]) }

// pbkdf2SHA1 derives n bytes from a password (RFC 8018, section 5.2). Unlike the
// standard library's it takes no string, which could not be wiped.
func pbkdf2SHA1(password, salt []byte, iterations, n int) []byte {
	mac := hmac.New(sha1.New, password)
	key := make([]byte, 0, n+sha1.Size)
	var u []byte
	for i := uint32(1); len(key) < n; i++ {
		mac.Reset()
		mac.Write(salt)
		mac.Write(binary.BigEndian.AppendUint32(nil, i))
		u = mac.Sum(u[:0])
		at := len(key)
		key = append(key, u...)
		for range iterations - 1 {
			mac.Reset()
			mac.Write(u)
			u = mac.Sum(u[:0])
			for k, b := range u {
				key[at+k] ^= b
			}
		}
	}
	clear(u)
	return key[:n]
}
