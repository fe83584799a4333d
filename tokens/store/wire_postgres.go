package store

import (
	"database/sql/driver"
	"encoding/binary"
)

// wire makes PostgreSQL's arrays in the binary form of its protocol, which costs
// both sides less than text. An array whose elements are all the same may be cut to
// the first of them, where the statement knows what that stands for.
type wire struct{ values []driver.NamedValue }

func (w *wire) add(v driver.Value) {
	w.values = append(w.values, driver.NamedValue{Ordinal: len(w.values) + 1, Value: v})
}

// The types of elements, as pg_type numbers them.
const (
	oidBool  = 16
	oidBytea = 17
	oidInt8  = 20
	oidText  = 25
)

// begun is the beginning of an array of n elements that take about so many bytes each.
func begun(oid uint32, n, width int) []byte {
	b := make([]byte, 0, 20+n*(4+width))
	dimensions := uint32(min(n, 1))
	b = binary.BigEndian.AppendUint32(b, dimensions)
	b = binary.BigEndian.AppendUint32(b, 0) // no NULL
	b = binary.BigEndian.AppendUint32(b, oid)
	if n > 0 {
		b = binary.BigEndian.AppendUint32(b, uint32(n))
		b = binary.BigEndian.AppendUint32(b, 1) // the first index
	}
	return b
}

func (w *wire) ints(n int, of func(i int) int64) {
	b := begun(oidInt8, n, 8)
	for i := range n {
		b = binary.BigEndian.AppendUint32(b, 8)
		b = binary.BigEndian.AppendUint64(b, uint64(of(i)))
	}
	w.add(b)
}

func (w *wire) bools(n int, of func(i int) bool) {
	b := begun(oidBool, n, 1)
	for i := range n {
		b = binary.BigEndian.AppendUint32(b, 1)
		if of(i) {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	w.add(b)
}

func (w *wire) texts(n int, of func(i int) string) {
	b := begun(oidText, n, 24)
	for i := range n {
		s := of(i)
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	w.add(b)
}

func (w *wire) blobs(n int, of func(i int) []byte) {
	b := begun(oidBytea, n, 32)
	for i := range n {
		s := of(i)
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	w.add(b)
}

func (w *wire) sameInts(n int, of func(i int) int64)   { w.ints(same(n, of), of) }
func (w *wire) sameBools(n int, of func(i int) bool)   { w.bools(same(n, of), of) }
func (w *wire) sameTexts(n int, of func(i int) string) { w.texts(same(n, of), of) }

// same answers 1 where all of n elements are the same, else n.
func same[T comparable](n int, of func(i int) T) int {
	for i := 1; i < n; i++ {
		if of(i) != of(0) {
			return n
		}
	}
	return min(n, 1)
}
