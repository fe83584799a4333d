package console

import (
	"net/netip"
	"sync"
	"time"
)

// What one address may ask for, pages and answers to them alike: a burst, and then
// so many a second. An enrolment takes four. Many people may stand behind one
// address, all of them where a proxy stands before this server; guessing is
// hopeless anyway, so this only bounds the work.
const (
	limitBurst = 120
	limitEach  = 100 * time.Millisecond
	limitTable = 4096 // addresses remembered at most
)

// limiter bounds how often an address is answered. For each it keeps when the
// address will have used up nothing; one for which that is past is forgotten.
type limiter struct {
	mu   sync.Mutex
	full map[netip.Prefix]time.Time
}

// take says whether an address may ask for one thing more now.
func (l *limiter) take(source string, now time.Time) bool {
	key := prefixOf(source)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.full == nil {
		l.full = make(map[netip.Prefix]time.Time)
	}
	at, known := l.full[key]
	if !known && len(l.full) >= limitTable {
		l.forget(now)
	}
	if at.Before(now) {
		at = now
	}
	if at.Add(limitEach).Sub(now) > limitBurst*limitEach {
		return false
	}
	l.full[key] = at.Add(limitEach)
	return true
}

// forget makes room: it drops all that used up nothing, and else the one that used
// up least.
func (l *limiter) forget(now time.Time) {
	var least netip.Prefix
	var first time.Time
	for key, at := range l.full {
		if !at.After(now) {
			delete(l.full, key)
		} else if first.IsZero() || at.Before(first) {
			least, first = key, at
		}
	}
	if len(l.full) >= limitTable {
		delete(l.full, least)
	}
}

// prefixOf is the address, or for IPv6 the network of 64 bits that one customer
// has. What is no address counts as one.
func prefixOf(source string) netip.Prefix {
	addr, err := netip.ParseAddr(source)
	if err != nil {
		if with, err := netip.ParseAddrPort(source); err == nil {
			addr = with.Addr()
		}
	}
	addr = addr.Unmap().WithZone("")
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // the zero Prefix for what is no address
	return p
}
