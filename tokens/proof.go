package tokens

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// maxProofs bounds what a node remembers as proven or disproven.
const maxProofs = 1 << 16

// proofs remembers which MACs under the binding key are right, and which are
// wrong, so that the HSM is asked once for each. That a MAC is right is no secret,
// and a claim is known by its hash: nothing that was altered passes for it.
type proofs struct {
	mu   sync.Mutex
	at   map[[sha256.Size]byte]bool // whether it is right
	ring [][sha256.Size]byte
	next int // place to be taken next, once the ring is full
}

// claim is a MAC that was said to be a message's, and is yet to be looked at.
type claim struct {
	hash    [sha256.Size]byte
	message []byte
	mac     []byte
	right   *bool
}

// look sets right if it is known what there is to the claim; otherwise it adds it
// to list.
func (p *proofs) look(list []claim, message, mac []byte, right *bool) []claim {
	h := sha256.New()
	var size [8]byte
	h.Write(binary.BigEndian.AppendUint64(size[:0], uint64(len(message))))
	h.Write(message)
	h.Write(mac)
	c := claim{message: message, mac: mac, right: right}
	h.Sum(c.hash[:0])
	p.mu.Lock()
	known, ok := p.at[c.hash]
	p.mu.Unlock()
	if ok {
		*right = known
		return list
	}
	return append(list, c)
}

// settle notes what the HSM says to a claim.
func (c *claim) settle(p *proofs, mac []byte) {
	*c.right = hmac.Equal(mac, c.mac)
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.at[c.hash]; ok {
		return
	}
	if p.at == nil {
		p.at = map[[sha256.Size]byte]bool{}
	}
	p.at[c.hash] = *c.right
	if len(p.ring) < maxProofs {
		p.ring = append(p.ring, c.hash)
		return
	}
	delete(p.at, p.ring[p.next])
	p.ring[p.next] = c.hash
	p.next = (p.next + 1) % maxProofs
}
