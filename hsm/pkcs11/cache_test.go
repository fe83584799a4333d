package pkcs11

import (
	"testing"

	"pgregory.net/rapid"
)

// The cache against a model: what is in use stays, nothing is destroyed twice or
// forgotten, and unused entries never exceed the capacity.
func TestCacheLosesNoHandle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := rapid.IntRange(-1, 5).Draw(t, "capacity")
		c := newCache(capacity)
		alive := map[handle]bool{} // in the HSM
		var used []*entry          // one for each use
		next := handle(1)
		destroy := func(h handle) {
			if !alive[h] {
				t.Fatalf("handle %d is destroyed twice", h)
			}
			for _, e := range used {
				if e.handle == h {
					t.Fatalf("handle %d is destroyed while in use", h)
				}
			}
			delete(alive, h)
		}
		t.Repeat(map[string]func(*rapid.T){
			"use": func(t *rapid.T) {
				key := cacheKey{rapid.Byte().Draw(t, "key") % 10}
				e := c.get(key)
				if e == nil {
					h := next
					next++
					alive[h] = true
					var doomed []handle
					e, doomed = c.put(key, h)
					used = append(used, e)
					for _, h := range doomed {
						destroy(h)
					}
				} else {
					used = append(used, e)
				}
				if e.key != key || !alive[e.handle] {
					t.Fatalf("key %v has entry %v", key[0], e)
				}
			},
			"unwrapped by two at once": func(t *rapid.T) {
				key := cacheKey{rapid.Byte().Draw(t, "key") % 10}
				for range 2 {
					h := next
					next++
					alive[h] = true
					e, doomed := c.put(key, h)
					used = append(used, e)
					for _, h := range doomed {
						destroy(h)
					}
				}
			},
			"release": func(t *rapid.T) {
				if len(used) == 0 {
					t.Skip("nothing in use")
				}
				i := rapid.IntRange(0, len(used)-1).Draw(t, "which")
				e := used[i]
				used = append(used[:i], used[i+1:]...)
				if c.release(e) {
					destroy(e.handle)
				}
			},
			"full": func(t *rapid.T) {
				for _, h := range c.shrink() {
					destroy(h)
				}
			},
			"": func(t *rapid.T) {
				if len(c.entries) > max(capacity, 0) {
					t.Fatalf("%d entries, capacity %d", len(c.entries), capacity)
				}
				uses := map[handle]bool{}
				for _, e := range used {
					uses[e.handle] = true
				}
				for h := range alive {
					held := false
					for _, e := range c.entries {
						held = held || e.handle == h
					}
					if !held && !uses[h] {
						t.Fatalf("handle %d is forgotten", h)
					}
				}
			},
		})
		for _, e := range used {
			if c.release(e) {
				used = nil
				destroy(e.handle)
			}
		}
		used = nil
		for _, h := range c.drain() {
			destroy(h)
		}
		if len(alive) != 0 {
			t.Fatalf("%d handles are left", len(alive))
		}
	})
}

func TestCacheEvictsTheLeastRecentlyUsed(t *testing.T) {
	c := newCache(3)
	for i := range byte(3) {
		e, _ := c.put(cacheKey{i}, handle(i))
		c.release(e)
	}
	c.release(c.get(cacheKey{0}))
	e, doomed := c.put(cacheKey{9}, 9)
	c.release(e)
	if len(doomed) != 1 || doomed[0] != 1 {
		t.Errorf("evicted %v, want handle 1", doomed)
	}
}
