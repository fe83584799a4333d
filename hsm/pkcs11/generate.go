package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// A making is the work of one Generate call. It has the seed's only buffer: the
// caller gets it, or it is wiped.
type making struct {
	hash    hsm.Hash
	seed    []byte // as long as the digest
	wrapped hsm.Wrapped
	over    atomic.Bool // the task has ended, or the caller has left
}

// Generate makes a seed in the HSM.
func (k *Keystore) Generate(ctx context.Context, hash hsm.Hash) (hsm.Wrapped, []byte, error) {
	if hash.Size() == 0 {
		return hsm.Wrapped{}, nil, fmt.Errorf("generate a seed: unknown digest %d", hash)
	}
	g, err := k.current(ctx)
	if err != nil {
		return hsm.Wrapped{}, nil, fmt.Errorf("generate a seed: %w", err)
	}
	m := &making{hash: hash, seed: make([]byte, hash.Size())}
	if _, err := k.do(ctx, g, m.do); err != nil {
		m.end()
		return hsm.Wrapped{}, nil, fmt.Errorf("generate a seed: %w", err)
	}
	return m.wrapped, m.seed, nil
}

// end is called when the task has ended and when the caller leaves without the
// seed. Whoever is the second wipes it: before that the other may be at it.
func (m *making) end() {
	if m.over.Swap(true) {
		clear(m.seed)
	}
}

// do makes the seed on one session.
func (m *making) do(c conn, g *generation) (err error) {
	defer m.end()
	defer func() {
		if err != nil {
			clear(m.seed)
		}
	}()
	err = m.inside(c, g)
	if err == nil || isLost(err) || isFull(err) {
		return err
	}
	// The module makes no such key, does not let it out or does not wrap it. Its
	// random bytes are as good, and go the way of any seed.
	if err2 := m.outside(c, g); err2 != nil {
		if isLost(err2) || isFull(err2) {
			return err2
		}
		return fmt.Errorf("%w: it makes no seed (%v), nor the random bytes for one (%v)", hsm.ErrUnsupported, err, err2)
	}
	return nil
}

// inside makes the seed as an object of the HSM, wraps that there and reads it.
func (m *making) inside(c conn, g *generation) (err error) {
	object, err := m.object(c, g)
	if err != nil {
		return err
	}
	defer func() { err = dropped(c, object, err) }()
	value, err := c.value(object, m.seed)
	if err != nil {
		return err
	}
	if err := m.judge(len(value)); err != nil {
		return err
	}
	m.wrapped, err = wrapInside(c, g, object, m.hash, len(m.seed))
	return err
}

// object makes the seed's object, if need be in the place of cached handles.
func (m *making) object(c conn, g *generation) (handle, error) {
	object, err := g.roomFor(c, func() (handle, error) { return c.generate(len(m.seed)) })
	if isRV(err, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		return 0, errors.New("it has no C_GenerateKey")
	}
	return object, err
}

// outside has the HSM make the bytes of the seed, and wraps them as Wrap does.
func (m *making) outside(c conn, g *generation) error {
	err := c.random(m.seed)
	if isRV(err, pkcs11.CKR_RANDOM_NO_RNG, pkcs11.CKR_FUNCTION_NOT_SUPPORTED) {
		return errors.New("it has no C_GenerateRandom")
	}
	if err != nil {
		return err
	}
	if err := m.judge(len(m.seed)); err != nil {
		return err
	}
	seed := hsm.Seed{Hash: m.hash, Bytes: m.seed}
	key := make([]byte, keyLen(seed))
	defer clear(key)
	hmacKey(key, seed)
	version := g.keys.kekVersion
	blob, err := c.wrap(g.profile.wrap, g.keys.kek[version], key, make([]byte, len(key)+32))
	if err != nil {
		return err
	}
	m.wrapped = hsm.Wrapped{Mechanism: g.profile.wrapName, KEK: version, Hash: m.hash, SeedLen: uint16(len(m.seed)), Blob: blob}
	return nil
}

// judge refuses what can be no seed: all tokens would have the same codes where a
// module says that it filled the buffer and did not.
func (m *making) judge(n int) error {
	if n != len(m.seed) {
		return fmt.Errorf("it made %d bytes instead of %d", n, len(m.seed))
	}
	for _, b := range m.seed {
		if b != 0 {
			return nil
		}
	}
	return fmt.Errorf("it made %d zeros", n)
}
