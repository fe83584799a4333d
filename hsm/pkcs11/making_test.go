package pkcs11

import "testing"

// The seed of a caller that left is wiped, whoever comes last.
func TestTheSeedOfACallerThatLeftIsWiped(t *testing.T) {
	m := &making{seed: []byte{1, 2, 3}}
	m.end()
	if m.seed[0] != 1 {
		t.Error("wiped by the first, beside the other")
	}
	m.end()
	if m.seed[0] != 0 {
		t.Error("not wiped by the second")
	}
}
