package tokens

import (
	"encoding/binary"
	"testing"
)

// What is remembered as proven is bounded, and what is asked for stays.
func TestProofsAreBounded(t *testing.T) {
	var p rowProofs
	number := func(n int) (k rowProofKey) {
		binary.BigEndian.PutUint64(k[:], uint64(n))
		return k
	}
	for n := range 5 * maxRowProofs {
		p.add(number(n))
		if n%1000 == 0 && !p.has(number(0)) {
			t.Fatalf("what is asked for all the time is forgotten after %d", n)
		}
	}
	if most := len(p.young) + len(p.old); most > 2*maxRowProofs {
		t.Errorf("%d are remembered", most)
	}
	if !p.has(number(5*maxRowProofs-1)) || p.has(number(1)) || p.has(number(5*maxRowProofs)) {
		t.Error("the last is forgotten, or the first is not")
	}
}

// A MAC is remembered for what it is over, and nothing else.
func TestAProofIsOfOneMessageAndOneMAC(t *testing.T) {
	pairs := [][2]string{{"row", "mac"}, {"row", "mad"}, {"rowm", "ac"}, {"", "rowmac"}, {"rowmac", ""}, {"ro", "wmac"}}
	met := map[rowProofKey][2]string{}
	for _, x := range pairs {
		k := rowProofOf([]byte(x[0]), []byte(x[1]))
		if other, ok := met[k]; ok {
			t.Errorf("%q and %q are the same", x, other)
		}
		met[k] = x
	}
}
