package radius

import (
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
	mu         sync.Mutex
	entries    map[cacheKey]*cacheEntry
	oldest     *cacheEntry // of the answered ones, in the order of their answers
	newest     *cacheEntry
	answered   int
	size       int // of the answered ones, bytes
	maxEntries int
	maxSize    int
	_          [32]byte // apart from the next shard's lock
}

// cacheKey is address, port, identifier and authenticator.
type cacheKey [16 + 2 + 1 + authSize]byte

type cacheEntry struct {
	key   cacheKey
	sum   [32]byte      // SHA-256 of the packet
	work  *request      // nil once answered
	reply []byte        // nil until answered
	until time.Duration // since the cache's start
	next  *cacheEntry
}

// entryOverhead is what an answered entry takes beside its reply, in bytes:
// itself, its place in the map, and the allocator's rounding.
const entryOverhead = 256

func (e *cacheEntry) size() int { return entryOverhead + len(e.reply) }

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
		c.shards[i].entries = make(map[cacheKey]*cacheEntry)
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

// begin looks a request up. A new one is put in work if there is room, and its
// r.entry is set. Where the first is in work, its answer goes the way that r
// came from then on, as that is where the gateway listens.
func (c *replyCache) begin(k *cacheKey, sum *[32]byte, r *request, room bool, now time.Time) (standing, []byte) {
	s := c.shard(k)
	at := now.Sub(c.start)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(at)
	if e := s.entries[*k]; e != nil && (e.work != nil || e.until > at) {
		switch {
		case e.sum != *sum:
			return isImpostor, nil
		case e.work != nil:
			e.work.path = r.path
			return isInWork, nil
		default:
			return isAnswered, e.reply
		}
	}
	if !room {
		return isUnwelcome, nil
	}
	e := &cacheEntry{key: *k, sum: *sum, work: r}
	s.entries[*k] = e
	r.entry = e
	return isNew, nil
}

// finish notes the reply to a request in work and answers where to send it.
func (c *replyCache) finish(e *cacheEntry, reply []byte, now time.Time) path {
	s := c.shard(&e.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	to := e.work.path
	e.work, e.reply, e.until = nil, reply, now.Sub(c.start)+c.life
	if s.newest == nil {
		s.oldest = e
	} else {
		s.newest.next = e
	}
	s.newest = e
	s.answered++
	s.size += e.size()
	for s.answered > s.maxEntries || s.size > s.maxSize {
		s.forget()
	}
	return to
}

// abandon forgets a request in work: sent again, it will be new.
func (c *replyCache) abandon(e *cacheEntry) {
	s := c.shard(&e.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e.work = nil
	delete(s.entries, e.key)
}

// expire forgets the replies that are too old.
func (s *cacheShard) expire(at time.Duration) {
	for s.oldest != nil && s.oldest.until <= at {
		s.forget()
	}
}

// forget drops the oldest reply.
func (s *cacheShard) forget() {
	e := s.oldest
	s.oldest, e.next = e.next, nil
	if s.oldest == nil {
		s.newest = nil
	}
	s.answered--
	s.size -= e.size()
	if s.entries[e.key] == e { // else it had expired and the key was used anew
		delete(s.entries, e.key)
	}
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
		replies += s.answered
		size += s.size
		s.mu.Unlock()
	}
	return replies, size
}
