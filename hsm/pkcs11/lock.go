package pkcs11

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"watchword/hsm"
)

// A lock is a sealed seed as a task needs it to get at the session key: a copy,
// since the caller may leave before the task is done.
type lock struct {
	message []byte // hsm.Sealed.Message
	binding []byte
	blob    []byte // the end of message
	key     cacheKey
	hash    hsm.Hash
	kek     uint32
	mech    string
}

// lockLen is how many bytes set appends.
func lockLen(s *hsm.Sealed) int {
	return 19 + len(s.Row) + len(s.Mechanism) + len(s.Blob) + len(s.Binding)
}

// set makes l a copy of s, for a purpose. Its bytes are appended to buf, which
// has room for them.
func (l *lock) set(buf []byte, s *hsm.Sealed, p purpose) []byte {
	start := len(buf)
	buf = s.AppendMessage(buf)
	end := len(buf)
	buf = append(buf, s.Binding...)
	l.message = buf[start:end:end]
	l.binding = buf[end:len(buf):len(buf)]
	l.blob = buf[end-len(s.Blob) : end : end]
	// Message is injective and says its own length, so what follows it can only
	// be the binding.
	sum := sha256.Sum256(buf[start:])
	copy(l.key[:], sum[:])
	l.key[sha256.Size] = byte(p)
	l.hash, l.kek, l.mech = s.Hash, s.KEK, s.Mechanism
	return buf
}

func (l *lock) purpose() purpose { return purpose(l.key[sha256.Size]) }

// hold answers the session key, from the cache or unwrapped anew, in use until
// letGo.
func (l *lock) hold(c conn, g *generation) (*entry, error) {
	if e := g.cache.get(l.key); e != nil {
		return e, nil
	}
	h, err := l.open(c, g)
	if err != nil {
		return nil, err
	}
	e, doomed := g.cache.put(l.key, h)
	for _, h := range doomed {
		if err := c.destroy(h); err != nil {
			g.cache.release(e)
			return nil, err
		}
	}
	return e, nil
}

// letGo ends the use of a session key and answers err, or what went wrong now.
func letGo(c conn, g *generation, e *entry, err error) error {
	if g.cache.release(e) {
		if err2 := c.destroy(e.handle); err == nil {
			err = err2
		}
	}
	return err
}

// open proves that the wrapped seed belongs to its row, and only then unwraps
// it. Every field of l is judged after the binding: whoever edits a row learns
// nothing but that it was edited, and nothing that was edited reaches C_UnwrapKey.
func (l *lock) open(c conn, g *generation) (handle, error) {
	var mac [32]byte
	if err := c.sign(macMechanism(hsm.SHA256), g.keys.binding, l.message, mac[:]); err != nil {
		return 0, err
	}
	if subtle.ConstantTimeCompare(mac[:], l.binding) != 1 {
		return 0, hsm.ErrTampered
	}
	unwrap := c.unwrap
	switch l.purpose() {
	case toDecrypt:
		if l.hash != hsm.AES128 {
			return 0, fmt.Errorf("the seed is not an AES key but for %v, and decrypts nothing", l.hash)
		}
		if !g.profile.ecb {
			return 0, fmt.Errorf("%w: it has no CKM_AES_ECB (0x1081)", hsm.ErrUnsupported)
		}
		unwrap = c.unwrapAES
	default:
		if l.hash.Size() == 0 {
			return 0, fmt.Errorf("the seed is for an unknown digest, number %d", l.hash)
		}
	}
	mechanism, ok := g.profile.unwrapMechanism(l.mech)
	if !ok {
		return 0, fmt.Errorf("%w: the seed was wrapped by %q, this HSM unwraps %q", hsm.ErrUnsupported, l.mech, g.profile.wrapName)
	}
	kek, ok := g.keys.kek[l.kek]
	if !ok {
		return 0, fmt.Errorf("%w: the seed was wrapped under KEK version %d, which is not attached", hsm.ErrKeyMismatch, l.kek)
	}
	return g.roomFor(c, func() (handle, error) { return unwrap(mechanism, kek, l.blob) })
}

// roomFor makes a session key, if need be in the place of cached handles.
func (g *generation) roomFor(c conn, make func() (handle, error)) (handle, error) {
	h, err := make()
	if !isFull(err) {
		return h, err
	}
	for _, old := range g.cache.shrink() {
		if err := c.destroy(old); err != nil {
			return 0, err
		}
	}
	return make()
}
