package pkcs11

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"

	"watchword/hsm"
)

// Wrap wraps seeds under the newest KEK.
func (k *Keystore) Wrap(ctx context.Context, seeds []hsm.Seed) ([]hsm.Wrapped, error) {
	for i, s := range seeds {
		if s.Hash == hsm.AES128 {
			if len(s.Bytes) != aesKey {
				return nil, fmt.Errorf("wrap seed %d: an AES-128 key of %d bytes; it has %d", i, len(s.Bytes), aesKey)
			}
			continue
		}
		if s.Hash.Size() == 0 {
			return nil, fmt.Errorf("wrap seed %d: unknown digest %d", i, s.Hash)
		}
		if len(s.Bytes) < 1 || len(s.Bytes) > 1024 {
			return nil, fmt.Errorf("wrap seed %d: it has %d bytes; 1 to 1024 are possible", i, len(s.Bytes))
		}
	}
	g, err := k.current(ctx)
	if err != nil {
		return nil, err
	}
	wrapped := make([]hsm.Wrapped, 0, len(seeds))
	for len(seeds) > 0 {
		n := min(len(seeds), slice)
		if wrapped, err = k.wrapSlice(ctx, g, seeds[:n], wrapped); err != nil {
			return nil, fmt.Errorf("wrap seeds: %w", err)
		}
		seeds = seeds[n:]
	}
	return wrapped, nil
}

// wrapSlice appends the wrapped seeds to wrapped. The seeds' bytes are copied
// first, so that the caller may wipe them even if it leaves before the HSM has
// answered; the copies are wiped here.
func (k *Keystore) wrapSlice(ctx context.Context, g *generation, seeds []hsm.Seed, wrapped []hsm.Wrapped) ([]hsm.Wrapped, error) {
	type item struct{ from, to int }
	items := make([]item, len(seeds))
	size := 0
	for i, s := range seeds {
		items[i].from = size
		size += keyLen(s)
		items[i].to = size
	}
	keys := make([]byte, size)
	for i, s := range seeds {
		hmacKey(keys[items[i].from:items[i].to], s)
	}
	blobs := make([][]byte, len(seeds))
	var version uint32
	var mechanism string
	started, err := k.do(ctx, g, func(c conn, g *generation) error {
		defer clear(keys)
		version, mechanism = g.keys.kekVersion, g.profile.wrapName
		// KWP adds eight bytes and pads to eight; another mechanism may add
		// a little more.
		room := make([]byte, size+32*len(items))
		for i, it := range items {
			n := it.to - it.from + 32
			blob, err := c.wrap(g.profile.wrap, g.keys.kek[version], keys[it.from:it.to], room[:n:n])
			if err != nil {
				return err
			}
			blobs[i] = blob
			room = room[len(blob):]
		}
		return nil
	})
	if !started {
		clear(keys)
	}
	if err != nil {
		return nil, err
	}
	for i, s := range seeds {
		wrapped = append(wrapped, hsm.Wrapped{
			Mechanism: mechanism,
			KEK:       version,
			Hash:      s.Hash,
			SeedLen:   uint16(len(s.Bytes)),
			Blob:      blobs[i],
		})
	}
	return wrapped, nil
}

// aesKey is the length of an AES-128 key in bytes.
const aesKey = 16

// keyLen is the length of the HMAC key that a seed becomes: at least the
// digest's, because modules refuse shorter ones, and a multiple of eight, on
// which all that call themselves key wrap with padding agree.
func keyLen(s hsm.Seed) int {
	n := len(s.Bytes)
	if s.Hash == hsm.AES128 {
		return n
	}
	if n > s.Hash.BlockSize() {
		n = s.Hash.Size()
	}
	return paddedLen(s.Hash, n)
}

// paddedLen is how long a key of n bytes is once it was padded.
func paddedLen(h hsm.Hash, n int) int {
	return (max(n, h.Size()) + 7) &^ 7
}

// hmacKey writes the HMAC key of s to key, which is keyLen long and zero: the
// seed padded with zeros, or hashed if it is longer than a block. HMAC does both
// with its key anyway (RFC 2104, section 2).
func hmacKey(key []byte, s hsm.Seed) {
	if s.Hash == hsm.AES128 || len(s.Bytes) <= s.Hash.BlockSize() {
		copy(key, s.Bytes)
		return
	}
	var sum [64]byte
	defer clear(sum[:])
	switch s.Hash {
	case hsm.SHA1:
		h := sha1.Sum(s.Bytes)
		copy(sum[:], h[:])
		clear(h[:])
	case hsm.SHA256:
		h := sha256.Sum256(s.Bytes)
		copy(sum[:], h[:])
		clear(h[:])
	case hsm.SHA512:
		h := sha512.Sum512(s.Bytes)
		copy(sum[:], h[:])
		clear(h[:])
	}
	copy(key, sum[:])
}
