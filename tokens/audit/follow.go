package audit

import "fmt"

// Follower checks records as a receiver gets them: each chain in order, whole,
// unaltered. What was told before may be told again. The zero value is ready.
type Follower struct {
	heads map[int64]Head
}

// Next takes the next record of its chain. It answers whether it was new, and an
// error if the chain does not go on with it; the record is then not taken.
func (f *Follower) Next(r *Record) (fresh bool, err error) {
	head := f.heads[r.Chain]
	switch {
	case r.Seq == head.Seq && r.Seq > 0:
		if r.Hash != head.Hash {
			return false, fmt.Errorf("chain %d: record %d was told twice, and differs", r.Chain, r.Seq)
		}
		return false, nil
	case r.Seq <= head.Seq:
		return false, nil // which was checked when it came first
	case r.Seq > head.Seq+1:
		return false, fmt.Errorf("chain %d: records %d to %d are missing", r.Chain, head.Seq+1, r.Seq-1)
	case Sum(head.Hash, r.Chain, r.Seq, &r.Event) != r.Hash:
		return false, fmt.Errorf("chain %d: record %d was altered, or the one before it", r.Chain, r.Seq)
	}
	if f.heads == nil {
		f.heads = map[int64]Head{}
	}
	f.heads[r.Chain] = Head{Chain: r.Chain, Seq: r.Seq, Hash: r.Hash}
	return true, nil
}

// Heads are where the chains end that were followed, by chain.
func (f *Follower) Heads() map[int64]Head { return f.heads }
