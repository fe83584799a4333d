package webauthn

import (
	"crypto/sha256"
	"sync"
)

// maxBegun bounds how many challenges begun remembers of late, and as many again of
// those before: some 10 MB in all.
const maxBegun = 1 << 16

// begun remembers the challenges of ceremonies that began on this node and are not
// finished, so that most need no second MAC of the HSM. It is nothing but what the HSM
// said of a state: a ceremony that began elsewhere, before a restart or long ago is
// resumed all the same, and that a challenge is answered once is not found here.
type begun struct {
	mu         sync.Mutex
	young, old map[[sha256.Size]byte][sha256.Size]byte // challenges, by the hash of the state
}

func (b *begun) put(state, challenge []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.young) >= maxBegun {
		b.old, b.young = b.young, nil
	}
	if b.young == nil {
		b.young = make(map[[sha256.Size]byte][sha256.Size]byte)
	}
	b.young[sha256.Sum256(state)] = [sha256.Size]byte(challenge)
}

// take answers the challenge of a state, and forgets it; nil if it is not known.
func (b *begun) take(state []byte) []byte {
	key := sha256.Sum256(state)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range []map[[sha256.Size]byte][sha256.Size]byte{b.young, b.old} {
		if c, ok := m[key]; ok {
			delete(m, key)
			return c[:]
		}
	}
	return nil
}
