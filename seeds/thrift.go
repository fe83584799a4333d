package seeds

import (
	"runtime/debug"
	"sync"
)

// An import makes much that is soon of no use. While one is under way the
// collector lets the heap grow by less, so that a million tokens take the server
// no more memory than a few thousand do.
const thriftPercent = 50

// thrift is how many imports of this process are under way.
var thrift struct {
	mu    sync.Mutex
	users int
	was   int // the percentage before the first of them
}

// beThrifty is called when an import begins, and what it answers when it ends.
func beThrifty() (end func()) {
	thrift.mu.Lock()
	defer thrift.mu.Unlock()
	if thrift.users++; thrift.users == 1 {
		thrift.was = debug.SetGCPercent(thriftPercent)
		if thrift.was >= 0 && thrift.was < thriftPercent { // somebody wants it more so
			debug.SetGCPercent(thrift.was)
		}
	}
	return func() {
		thrift.mu.Lock()
		defer thrift.mu.Unlock()
		if thrift.users--; thrift.users == 0 {
			debug.SetGCPercent(thrift.was)
		}
	}
}
