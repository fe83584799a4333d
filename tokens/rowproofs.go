package tokens

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// maxRowProofs bounds how many rowProofs a node remembers of late, and as many again of
// those before: some 10 MB in all.
const maxRowProofs = 1 << 16

// rowProofs remembers which MACs under the binding key the HSM has found right, so
// that it need not make the same one at each login of a user. What it remembers is
// a hash of the MAC and of all that it is over: a row that was edited, or given
// another row's MAC, is not the one that was proven. That a MAC was wrong is not
// remembered.
type rowProofs struct {
	mu         sync.Mutex
	young, old map[rowProofKey]struct{}
}

type rowProofKey [sha256.Size]byte

// rowProofOf is what is remembered of a message and its MAC.
func rowProofOf(message, mac []byte) (k rowProofKey) {
	h := sha256.New()
	var size [8]byte
	binary.BigEndian.PutUint64(size[:], uint64(len(message)))
	h.Write(size[:])
	h.Write(message)
	h.Write(mac)
	h.Sum(k[:0])
	return k
}

func (p *rowProofs) has(k rowProofKey) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.young[k]; ok {
		return true
	}
	_, ok := p.old[k]
	if ok {
		p.put(k)
	}
	return ok
}

func (p *rowProofs) add(k rowProofKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(k)
}

// put is add; mu is held. Once the young ones are many, they are the old ones, and
// what nobody has asked for since they were is forgotten.
func (p *rowProofs) put(k rowProofKey) {
	if len(p.young) >= maxRowProofs {
		p.old, p.young = p.young, nil
	}
	if p.young == nil {
		p.young = make(map[rowProofKey]struct{})
	}
	p.young[k] = struct{}{}
}
