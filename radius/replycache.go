package radius

import (
	"bytes"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// replyCache remembers requests, so that one that a gateway sends again is not
// decided again (RFC 5080, section 2.2.2). A request is known by its source
// address and port, identifier and authenticator, and is the same only where
// all its bytes are, of which a SHA-256 is kept.
//
// Another packet under the same key is never answered while the first is
// remembered: its authenticator is not unique, and the reply to the one would
// pass as the reply to the other (RFC 2865, section 3).
//
// A request in work is held until answered or abandoned. A reply is held for
// life; beyond the bounds the oldest goes first. All methods may be called
// concurrently.
type replyCache struct {
	life   time.Duration
	start  time.Time
	seed   maphash.Seed
	shards []cacheShard
}

type cacheShard struct {
	mu sync.Mutex

	work map[cacheKey]*request

	// The answered ones lie in a ring, in the order of their answers: the answers
	// number oldest to next-1, each at its number modulo the ring's length. Neither
	// the ring nor places holds a pointer: of a hundred thousand replies the garbage
	// collector has nothing to look through.
	places map[cacheKey]uint64
	ring   []answered
	oldest uint64
	next   uint64
	long   map[uint64][]byte // replies that are longer than their place

	size       int // of the answered ones, bytes
	maxEntries int
	maxSize    int
	_          [32]byte // apart from the next shard's lock
}

// cacheKey is address, port, identifier and authenticator.
type cacheKey [16 + 2 + 1 + authSize]byte

// answered is a request that was answered.
type answered struct {
	until  time.Duration // since the cache's start
	sum    [32]byte      // SHA-256 of the packet
	key    cacheKey
	length uint16 // of the reply
	reply  [64]byte
}

// entryOverhead is what an answered entry takes beside its reply, in bytes:
// its place in the ring and in the map.
const entryOverhead = 256

// standing is what the cache knows about a packet.
type standing int

const (
	isNew       standing = iota // never seen; now in work
	isInWork                    // a retransmission: the answer will go where it came from
	isAnswered                  // a retransmission: here is its reply
	isImpostor                  // another packet under the same key
	isUnwelcome                 // never seen, and there was no room
)

// newReplyCache makes a cache that holds at most about maxEntries replies of
// maxSize bytes, all together.
func newReplyCache(life time.Duration, maxEntries, maxSize int) *replyCache {
	n := 64
	if maxEntries < n*16 {
		n = 1 // so that small bounds are exact
	}
	c := &replyCache{life: life, start: time.Now(), seed: maphash.MakeSeed(), shards: make([]cacheShard, n)}
	for i := range c.shards {
		c.shards[i].work = make(map[cacheKey]*request)
		c.shards[i].places = make(map[cacheKey]uint64)
		c.shards[i].long = make(map[uint64][]byte)
		c.shards[i].maxEntries = maxEntries / n
		c.shards[i].maxSize = maxSize / n
	}
	return c
}

func (k *cacheKey) set(peer netip.AddrPort, p *packet) {
	address := peer.Addr().As16()
	copy(k[:], address[:])
	k[16], k[17] = byte(peer.Port()>>8), byte(peer.Port())
	k[18] = p.identifier()
	copy(k[19:], p.authenticator())
}

func (c *replyCache) shard(k *cacheKey) *cacheShard {
	return &c.shards[maphash.Bytes(c.seed, k[:])%uint64(len(c.shards))]
}

// begin looks a request up by r.key and r.sum. A new one is put in work if there is
// room. Where the first is in work, its answer goes the way that r came from then
// on, as that is where the gateway listens.
func (c *replyCache) begin(r *request, room bool, now time.Time) (standing, []byte) {
	s := c.shard(&r.key)
	at := now.Sub(c.start)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(at)
	if first := s.work[r.key]; first != nil {
		if first.sum != r.sum {
			return isImpostor, nil
		}
		first.path = r.path
		return isInWork, nil
	}
	if n, ok := s.places[r.key]; ok {
		switch a := s.place(n); {
		case a.until <= at: // now went back since it was answered: it is too old all the same
		case a.sum != r.sum:
			return isImpostor, nil
		default:
			return isAnswered, bytes.Clone(s.reply(n, a))
		}
	}
	if !room {
		return isUnwelcome, nil
	}
	s.work[r.key] = r
	return isNew, nil
}

// finish notes a copy of the reply to a request in work and answers where to send
// it.
func (c *replyCache) finish(r *request, reply []byte, now time.Time) path {
	s := c.shard(&r.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	to := r.path
	delete(s.work, r.key)
	if s.next-s.oldest == uint64(len(s.ring)) {
		s.grow()
	}
	a := s.place(s.next)
	a.key, a.sum, a.until, a.length = r.key, r.sum, now.Sub(c.start)+c.life, uint16(len(reply))
	if copy(a.reply[:], reply) < len(reply) {
		s.long[s.next] = bytes.Clone(reply)
	}
	s.places[r.key] = s.next
	s.next++
	s.size += entryOverhead + len(reply)
	for s.next-s.oldest > uint64(s.maxEntries) || s.size > s.maxSize {
		s.forget()
	}
	return to
}

// abandon forgets a request in work: sent again, it will be new.
func (c *replyCache) abandon(r *request) {
	s := c.shard(&r.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.work, r.key)
}

func (s *cacheShard) place(n uint64) *answered { return &s.ring[n%uint64(len(s.ring))] }

func (s *cacheShard) reply(n uint64, a *answered) []byte {
	if int(a.length) > len(a.reply) {
		return s.long[n]
	}
	return a.reply[:a.length]
}

// grow makes the ring larger, up to one place more than may stay held.
func (s *cacheShard) grow() {
	ring := make([]answered, min(max(2*len(s.ring), 16), s.maxEntries+1))
	for n := s.oldest; n < s.next; n++ {
		ring[n%uint64(len(ring))] = *s.place(n)
	}
	s.ring = ring
}

// expire forgets the replies that are too old.
func (s *cacheShard) expire(at time.Duration) {
	for s.oldest < s.next && s.place(s.oldest).until <= at {
		s.forget()
	}
}

// forget drops the oldest reply.
func (s *cacheShard) forget() {
	a := s.place(s.oldest)
	s.size -= entryOverhead + int(a.length)
	if s.places[a.key] == s.oldest { // else it had expired and the key was used anew
		delete(s.places, a.key)
	}
	if int(a.length) > len(a.reply) {
		delete(s.long, s.oldest)
	}
	s.oldest++
}

// sweep forgets what is too old everywhere.
func (c *replyCache) sweep(now time.Time) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.expire(now.Sub(c.start))
		s.mu.Unlock()
	}
}

// held counts the replies held and their size in bytes.
func (c *replyCache) held() (replies, size int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		replies += int(s.next - s.oldest)
		size += s.size
		s.mu.Unlock()
	}
	return replies, size
}
