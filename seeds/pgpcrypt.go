package seeds

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/hkdf"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/ProtonMail/go-crypto/eax"
	"github.com/ProtonMail/go-crypto/ocb"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// pgpPlain is the inside of encrypted data. Read answers io.EOF only if the
// message is as it was made.
type pgpPlain interface {
	io.Reader
	wipe()
}

// blockCipher makes a session key's cipher (section 9.3).
func blockCipher(function packet.CipherFunction, key []byte) (cipher.Block, error) {
	switch function {
	case packet.CipherAES128, packet.CipherAES192, packet.CipherAES256:
		if len(key) != function.KeySize() {
			return nil, errPGPKey
		}
		return aes.NewCipher(key)
	case packet.Cipher3DES:
		if len(key) != 24 {
			return nil, errPGPKey
		}
		return des.NewTripleDESCipher(key)
	}
	return nil, fmt.Errorf("it is encrypted by a cipher (%d) that is not read; AES is", function)
}

// pgpMDC decrypts data that a hash at its end protects (section 5.13.1): cipher
// feedback, and SHA-1 over the plaintext in the last 22 bytes.
type pgpMDC struct {
	r          io.Reader
	block      cipher.Block
	last       []byte // the cipher's input: encrypted bytes
	stream     []byte // its output
	used       int
	hash       hash.Hash
	buf        []byte // plaintext
	start, end int
	err        error
}

// mdcSize is the length of the packet with the hash.
const mdcSize = 2 + sha1.Size

// newPGPMDC begins to decrypt with the first session key that fits the repeated
// bytes at the beginning.
func newPGPMDC(body *pgpBody, found []pgpSession) (pgpPlain, error) {
	head := make([]byte, aes.BlockSize+2)
	if _, err := io.ReadFull(body, head); err != nil {
		return nil, unexpected(err)
	}
	var why error = errPGPKey
	for _, s := range found {
		block, err := blockCipher(s.cipher, s.key)
		if err != nil {
			why = err
			continue
		}
		n := block.BlockSize()
		m := &pgpMDC{
			block: block, last: make([]byte, n), stream: make([]byte, n), used: n, hash: sha1.New(), buf: make([]byte, 8<<10),
			r: io.MultiReader(bytes.NewReader(head[n+2:]), body),
		}
		prefix := bytes.Clone(head[:n+2])
		m.decrypt(prefix)
		if !bytes.Equal(prefix[n-2:n], prefix[n:]) {
			continue
		}
		m.hash.Write(prefix)
		return m, nil
	}
	return nil, why
}

// decrypt decrypts in place.
func (m *pgpMDC) decrypt(b []byte) {
	for i, c := range b {
		if m.used == len(m.stream) {
			m.block.Encrypt(m.stream, m.last)
			m.used = 0
		}
		b[i] = c ^ m.stream[m.used]
		m.last[m.used] = c
		m.used++
	}
}

func (m *pgpMDC) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for m.end-m.start <= mdcSize {
		if m.err != nil {
			return 0, m.err
		}
		copy(m.buf, m.buf[m.start:m.end])
		clear(m.buf[m.end-m.start : m.end])
		m.start, m.end = 0, m.end-m.start
		n, err := m.r.Read(m.buf[m.end:])
		m.decrypt(m.buf[m.end : m.end+n])
		m.end += n
		if err == io.EOF && m.end <= mdcSize {
			err = m.verify()
			m.err = err
		} else if err != nil && err != io.EOF {
			m.err = err
		}
	}
	n := copy(p, m.buf[m.start:m.end-mdcSize])
	m.hash.Write(p[:n])
	clear(m.buf[m.start : m.start+n])
	m.start += n
	return n, nil
}

// verify checks the hash that is left at the end.
func (m *pgpMDC) verify() error {
	if m.end-m.start != mdcSize {
		return errPGPAltered
	}
	tail := m.buf[m.start:m.end]
	m.hash.Write(tail[:2])
	if tail[0] != 0xd3 || tail[1] != sha1.Size || subtle.ConstantTimeCompare(m.hash.Sum(nil), tail[2:]) != 1 {
		return errPGPAltered
	}
	return io.EOF
}

func (m *pgpMDC) wipe() {
	clear(m.buf)
	clear(m.stream)
	wipeHash(m.hash)
	m.start, m.end, m.err = 0, 0, io.EOF
}

// pgpAEAD decrypts data in chunks that each are protected, with one more mark at
// the end (section 5.13.2), and GnuPG's older kind of the same.
type pgpAEAD struct {
	r      io.Reader
	aead   cipher.AEAD
	nonce  []byte
	data   []byte // associated with each chunk
	old    bool   // GnuPG's kind
	index  uint64 // of the chunk
	total  uint64 // plaintext so far
	size   int    // of a chunk
	buf    []byte // one chunk, its tag, and the tag after it
	filled int    // of buf: encrypted bytes that were read already
	start  int    // of the plaintext in buf that is not handed out
	end    int
	err    error
}

// aeadTag is the length of a tag in bytes.
const aeadTag = 16

func newPGPAEAD(tag int, body *pgpBody, found []pgpSession) (pgpPlain, error) {
	var head [3]byte // cipher, mode, chunk size
	if _, err := io.ReadFull(body, head[:]); err != nil {
		return nil, unexpected(err)
	}
	function, mode := packet.CipherFunction(head[0]), packet.AEADMode(head[1])
	if head[2] > 16 {
		return nil, errors.New("its data is in chunks of more than 4 MB, which is refused")
	}
	nonceSize := map[packet.AEADMode]int{packet.AEADModeEAX: 16, packet.AEADModeOCB: 15, packet.AEADModeGCM: 12}[mode]
	if nonceSize == 0 || tag == pgpAEADOld && mode == packet.AEADModeGCM {
		return nil, fmt.Errorf("it is encrypted in a mode (%d) that is not known", mode)
	}
	// A salt for the key, or, in GnuPG's kind, the nonce.
	salt := make([]byte, 32)
	if tag == pgpAEADOld {
		salt = salt[:nonceSize]
	}
	if _, err := io.ReadFull(body, salt); err != nil {
		return nil, unexpected(err)
	}
	a := &pgpAEAD{r: body, old: tag == pgpAEADOld, size: 1 << (head[2] + 6)}
	var first []byte // of the data: what proves a session key right
	var why error = errPGPKey
	for _, s := range found {
		key := s.key
		if a.old {
			a.nonce, a.data = bytes.Clone(salt), []byte{0xc0 | pgpAEADOld, 1, head[0], head[1], head[2]}
		} else {
			a.data = []byte{0xc0 | pgpEncrypted, 2, head[0], head[1], head[2]}
			derived, err := hkdf.Key(sha256.New, s.key, salt, string(a.data), function.KeySize()+nonceSize-8)
			if err != nil {
				return nil, err
			}
			key = derived[:function.KeySize()]
			a.nonce = append(bytes.Clone(derived[function.KeySize():]), make([]byte, 8)...)
			defer clear(derived)
		}
		if s.cipher != 0 && s.cipher != function && !a.old {
			continue
		}
		block, err := blockCipher(function, key)
		if err == nil && block.BlockSize() != aes.BlockSize {
			err = errors.New("its cipher does not go with its mode")
		}
		if err != nil {
			why = err
			continue
		}
		switch mode {
		case packet.AEADModeEAX:
			a.aead, err = eax.NewEAXWithNonceAndTagSize(block, nonceSize, aeadTag)
		case packet.AEADModeOCB:
			a.aead, err = ocb.NewOCBWithNonceAndTagSize(block, nonceSize, aeadTag)
		default:
			a.aead, err = cipher.NewGCM(block)
		}
		if err != nil {
			return nil, err
		}
		if first == nil {
			if err := a.fill(); err != nil {
				return nil, err
			}
			first = bytes.Clone(a.buf[:a.filled])
		}
		copy(a.buf, first)
		a.index, a.total, a.filled, a.err = 0, 0, len(first), nil
		if a.chunk() == nil {
			return a, nil
		}
	}
	return nil, why
}

// fill reads up to a chunk and two tags. The buffer grows with what there is: a
// small message may claim large chunks.
func (a *pgpAEAD) fill() error {
	want := a.size + 2*aeadTag
	for a.filled < want {
		if a.filled == len(a.buf) {
			grown := make([]byte, min(want, max(4096, 2*len(a.buf))))
			copy(grown, a.buf)
			clear(a.buf)
			a.buf = grown
		}
		n, err := a.r.Read(a.buf[a.filled:min(len(a.buf), want)])
		a.filled += n
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// chunk decrypts what fill read: a chunk in place, and at the end the last tag.
func (a *pgpAEAD) chunk() error {
	last := a.filled < a.size+2*aeadTag
	n := a.size + aeadTag // encrypted, with its tag
	if last {
		n = a.filled - aeadTag
	}
	if n < 0 || last && n > 0 && n < aeadTag {
		return errPGPAltered
	}
	var next [aeadTag]byte
	copy(next[:], a.buf[n:n+aeadTag])
	a.start, a.end = 0, 0
	if n > 0 {
		plain, err := a.aead.Open(a.buf[:0], a.number(), a.buf[:n], a.associated(nil))
		if err != nil {
			return errPGPAltered
		}
		a.end = len(plain)
		a.total += uint64(len(plain))
		a.index++
	}
	if last {
		total := binary.BigEndian.AppendUint64(nil, a.total)
		if _, err := a.aead.Open(nil, a.number(), next[:], a.associated(total)); err != nil {
			return errPGPAltered
		}
		a.err = io.EOF
		return nil
	}
	// The tag belongs to the next chunk: it waits behind the plaintext.
	copy(a.buf[n:], next[:])
	a.filled = n + aeadTag
	return nil
}

// number is the nonce of the chunk.
func (a *pgpAEAD) number() []byte {
	nonce := bytes.Clone(a.nonce)
	var index [8]byte
	binary.BigEndian.PutUint64(index[:], a.index)
	subtle.XORBytes(nonce[len(nonce)-8:], nonce[len(nonce)-8:], index[:])
	return nonce
}

// associated is the data that a tag protects besides the chunk.
func (a *pgpAEAD) associated(total []byte) []byte {
	data := bytes.Clone(a.data)
	if a.old {
		data = binary.BigEndian.AppendUint64(data, a.index)
	}
	return append(data, total...)
}

func (a *pgpAEAD) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for a.start == a.end {
		if a.err != nil {
			return 0, a.err
		}
		// What was read ahead moves to the front.
		n := a.size + aeadTag
		copy(a.buf, a.buf[n:a.filled])
		clear(a.buf[a.filled-n : a.filled])
		a.filled -= n
		err := a.fill()
		if err == nil {
			err = a.chunk() // sets a.err at the end
		}
		if err != nil {
			a.err = err
			return 0, err
		}
	}
	n := copy(p, a.buf[a.start:a.end])
	clear(a.buf[a.start : a.start+n])
	a.start += n
	return n, nil
}

func (a *pgpAEAD) wipe() {
	clear(a.buf)
	a.start, a.end, a.err = 0, 0, io.EOF
}

// wipeHash makes a hash forget what was written to it last. It holds back up to
// a block, and so a seed, or two; writing octet by octet goes through that block
// wholly, and the last Sum over a copy of it, on the stack.
func wipeHash(h hash.Hash) {
	var zero [1]byte
	for range h.BlockSize() {
		h.Write(zero[:])
	}
	h.Sum(nil)
}
