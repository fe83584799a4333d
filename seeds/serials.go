package seeds

import "hash/maphash"

// serials remembers which serials a file has shown, in 8 to 16 bytes each
// however long they are: a million fit into 16 MB. It keeps a keyed 64-bit hash
// of each, so two different serials are taken for one with a chance of one in
// thirty million in a file of a million tokens; that record is then rejected,
// never a token lost or overwritten, and the next try draws another key.
type serials struct {
	seed   maphash.Seed
	shards [256]shard // grow one after another, not all at once
}

// shard is a hash table with open addressing; zero marks an empty slot.
type shard struct {
	slots []uint64
	used  int
}

func newSerials() *serials { return &serials{seed: maphash.MakeSeed()} }

// add remembers a serial and answers whether it is new.
func (s *serials) add(serial string) bool {
	h := maphash.String(s.seed, serial) | 1
	return s.shards[h>>56].add(h)
}

func (s *shard) add(h uint64) bool {
	if 4*(s.used+1) > 3*len(s.slots) {
		old := s.slots
		s.slots = make([]uint64, max(16, 2*len(old)))
		for _, o := range old {
			if o != 0 {
				s.put(o)
			}
		}
	}
	if !s.put(h) {
		return false
	}
	s.used++
	return true
}

func (s *shard) put(h uint64) bool {
	mask := uint64(len(s.slots) - 1)
	for i := (h >> 1) & mask; ; i = (i + 1) & mask {
		switch s.slots[i] {
		case h:
			return false
		case 0:
			s.slots[i] = h
			return true
		}
	}
}
