package hsmtest

import (
	"context"
	"crypto/rand"
	"fmt"

	"watchword/hsm"
)

// Generate makes a seed and wraps it.
func (m *Memory) Generate(ctx context.Context, hash hsm.Hash) (hsm.Wrapped, []byte, error) {
	if hash.Size() == 0 {
		return hsm.Wrapped{}, nil, fmt.Errorf("generate a seed: unknown digest %d", hash)
	}
	keys, err := m.use(ctx)
	if err != nil {
		return hsm.Wrapped{}, nil, err
	}
	seed := make([]byte, hash.Size())
	rand.Read(seed)
	return m.wrap(keys, hsm.Seed{Hash: hash, Bytes: seed}), seed, nil
}
