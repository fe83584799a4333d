package tokens

import (
	"bytes"
	"testing"
)

// What was proven once is known again, and nothing else with it.
func TestAProofIsOfOneMessageAndOneMAC(t *testing.T) {
	var p proofs
	right, wrong := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	prove := func(message string, mac []byte) (answer, asked bool) {
		list := p.look(nil, []byte(message), mac, &answer)
		for i := range list {
			list[i].settle(&p, right)
		}
		return answer, len(list) > 0
	}
	for _, c := range []struct {
		message string
		mac     []byte
		want    bool
		asked   bool
	}{
		{"row", right, true, true}, {"row", right, true, false},
		{"row", wrong, false, true}, {"row", wrong, false, false}, {"row", right, true, false},
		{"rowx", right, true, true}, {"ro", append([]byte("w"), right...), false, true},
		{"row", right[:31], false, true}, {"row", nil, false, true}, {"", right, true, true},
	} {
		if got, asked := prove(c.message, c.mac); got != c.want || asked != c.asked {
			t.Errorf("%q, MAC of %d bytes: %v, asked %v; want %v, %v", c.message, len(c.mac), got, asked, c.want, c.asked)
		}
	}
}

func TestProofsAreBounded(t *testing.T) {
	var p proofs
	mac := make([]byte, 32)
	for i := range maxProofs + 100 {
		var right bool
		for _, c := range p.look(nil, []byte(itoa(int64(i))), mac, &right) {
			c.settle(&p, mac)
		}
	}
	if len(p.at) != maxProofs || len(p.ring) != maxProofs {
		t.Fatalf("%d are known, %d in order", len(p.at), len(p.ring))
	}
	var right bool
	if len(p.look(nil, []byte("99"), mac, &right)) != 1 || len(p.look(nil, []byte("100"), mac, &right)) != 0 || !right {
		t.Error("the oldest is not the one that was forgotten")
	}
}
