package pkcs11

import (
	"crypto/sha256"
	"sync"
)

// cacheKey is the hash of everything that a seed is bound to: the row, every
// field of the wrapped seed, and the binding MAC. A row that changed in any of
// them is another entry, so the cache can never be used around the binding. The
// last byte is the purpose that the key was unwrapped for.
type cacheKey [sha256.Size + 1]byte

// A purpose is what a session key is unwrapped for, and can do.
type purpose byte

const (
	toSign    purpose = iota // HMAC, and nothing else
	toDecrypt                // AES-ECB, and nothing else
)

// A cache maps bound rows to their seeds' session keys, within one generation.
// Entries in use are never evicted; of the others the least recently used goes
// first. The cache makes no calls into the module: whoever gets a handle back
// from it destroys it.
type cache struct {
	capacity int

	mu      sync.Mutex
	entries map[cacheKey]*entry
	// The ring of entries: root.next was used last.
	root entry
}

type entry struct {
	key        cacheKey
	handle     handle
	users      int  // those that work with handle now
	held       bool // in the cache; otherwise the last user destroys it
	prev, next *entry
}

func newCache(capacity int) *cache {
	c := &cache{capacity: max(capacity, 0), entries: map[cacheKey]*entry{}}
	c.root.prev, c.root.next = &c.root, &c.root
	return c
}

// get takes the entry for key into use, or answers nil.
func (c *cache) get(key cacheKey) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[key]
	if e != nil {
		e.users++
		if c.root.next != e {
			e.unlink()
			c.front(e)
		}
	}
	return e
}

// put makes an entry, in use, for a handle just unwrapped. The handles in
// doomed are to be destroyed: those evicted, or h itself if another worker was
// faster.
func (c *cache) put(key cacheKey, h handle) (e *entry, doomed []handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		e.users++
		return e, []handle{h}
	}
	e = &entry{key: key, handle: h, users: 1}
	if len(c.entries) >= c.capacity {
		doomed = c.evict(len(c.entries) - c.capacity + 1)
	}
	if len(c.entries) < c.capacity {
		e.held = true
		c.entries[key] = e
		c.front(e)
	}
	return e, doomed
}

// release ends one use. If destroy, the handle is to be destroyed.
func (c *cache) release(e *entry) (destroy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	return e.users == 0 && !e.held
}

// len is how many handles the cache holds.
func (c *cache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// thin evicts up to n entries.
func (c *cache) thin(n int) (doomed []handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.evict(n)
}

// shrink evicts a quarter of the entries, because the HSM is full.
func (c *cache) shrink() (doomed []handle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.evict(max(len(c.entries)/4, 1))
}

// drain empties the cache; nobody uses it any more.
func (c *cache) drain() []handle {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.evict(len(c.entries))
}

// evict removes up to n unused entries, the least recently used first.
func (c *cache) evict(n int) (doomed []handle) {
	for e := c.root.prev; n > 0 && e != &c.root; {
		before := e.prev
		if e.users == 0 {
			e.unlink()
			delete(c.entries, e.key)
			e.held = false
			doomed = append(doomed, e.handle)
			n--
		}
		e = before
	}
	return doomed
}

func (c *cache) front(e *entry) {
	e.prev, e.next = &c.root, c.root.next
	e.prev.next, e.next.prev = e, e
}

func (e *entry) unlink() {
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next = nil, nil
}
