package seeds

import (
	"runtime/debug"
	"testing"
)

// Whatever imports begin and end at the same time, the collector is left as it was.
func TestTheCollectorIsLeftAsItWasBeforeTheFirstImport(t *testing.T) {
	now := func() int {
		percent := debug.SetGCPercent(100)
		debug.SetGCPercent(percent)
		return percent
	}
	defer debug.SetGCPercent(debug.SetGCPercent(123))
	first := beThrifty()
	second := beThrifty()
	first()
	if got := now(); got != thriftPercent {
		t.Errorf("while an import is under way it is %d", got)
	}
	third := beThrifty()
	second()
	third()
	if got := now(); got != 123 {
		t.Errorf("afterwards it is %d", got)
	}
	debug.SetGCPercent(20)
	end := beThrifty()
	if got := now(); got != 20 {
		t.Errorf("who wanted 20 has %d", got)
	}
	end()
	if got := now(); got != 20 {
		t.Errorf("who wanted 20 is left with %d", got)
	}
}
