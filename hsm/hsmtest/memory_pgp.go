package hsmtest

import (
	"context"
	"crypto/rsa"
	"fmt"
	"time"

	"watchword/hsm"
)

// memoryPGP is a PGP key that is attached.
type memoryPGP struct {
	version uint32
	key     *rsa.PrivateKey
	made    time.Time
}

// CreatePGP makes a PGP key.
func (m *Memory) CreatePGP(ctx context.Context, version uint32, bits int) (hsm.KeyRecord, error) {
	switch bits {
	case 0:
		bits = hsm.TransportBits
	case 2048, 3072, 4096:
	default:
		return hsm.KeyRecord{}, fmt.Errorf("a PGP key of %d bits", bits)
	}
	return m.create(ctx, hsm.KeyPGP, version, bits)
}

// PGPKeys are those attached.
func (m *Memory) PGPKeys() []hsm.PGPKey {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []hsm.PGPKey
	if m.keys != nil {
		for _, t := range m.keys.pgp {
			all = append(all, hsm.PGPKey{Version: t.version, Public: &t.key.PublicKey, Made: t.made})
		}
	}
	return all
}

// OpenPGP decrypts a session key.
func (m *Memory) OpenPGP(ctx context.Context, version uint32, ciphertext []byte) ([]byte, error) {
	keys, err := m.use(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.pgpAttempts.Begin(); err != nil {
		return nil, err
	}
	plain, err := openPGP(keys, version, ciphertext)
	m.pgpAttempts.End(err == hsm.ErrPGPSession)
	return plain, err
}

func openPGP(keys *memoryKeys, version uint32, ciphertext []byte) ([]byte, error) {
	for _, t := range keys.pgp {
		if t.version != version {
			continue
		}
		if plain := openPKCS1(t.key, ciphertext); hsm.IsPGPSession(plain) {
			return plain, nil
		}
		return nil, hsm.ErrPGPSession
	}
	return nil, fmt.Errorf("%w: no PGP key version %d", hsm.ErrKeyMismatch, version)
}
