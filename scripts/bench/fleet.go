package main

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// fleet is the shipment: HOTP tokens, so that each can be used as often as the
// measurement lasts, and the counters of the people who hold them.
type fleet struct {
	seeds    [][20]byte
	counters []uint64
	next     atomic.Int64
}

func newFleet(n int) *fleet {
	f := &fleet{seeds: make([][20]byte, n), counters: make([]uint64, n)}
	random := rand.NewChaCha8([32]byte{'b', 'e', 'n', 'c', 'h'})
	for i := range f.seeds {
		random.Read(f.seeds[i][:])
	}
	return f
}

func (f *fleet) reset() {
	clear(f.counters)
	f.next.Store(0)
}

// pick answers the next user, round and round: nobody is asked twice at once
// while there are more users than requests under way.
func (f *fleet) pick(users int) int { return int((f.next.Add(1) - 1) % int64(users)) }

func userName(i int) string { return fmt.Sprintf("user%06d", i) }
func serial(i int) string   { return fmt.Sprintf("BENCH%06d", i) }

// hotp is the next code of a token.
func (f *fleet) hotp(i int) string {
	return code(f.seeds[i][:], f.counters[i])
}

func totpNow(seed []byte) string { return code(seed, uint64(time.Now().Unix()/30)) }

func code(seed []byte, factor uint64) string {
	m := hmac.New(sha1.New, seed)
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], factor)
	m.Write(b[:])
	sum := m.Sum(nil)
	v := binary.BigEndian.Uint32(sum[sum[19]&15:]) & 0x7fffffff % 1_000_000
	return fmt.Sprintf("%06d", v)
}

func (f *fleet) csv(w io.Writer) error {
	b := bufio.NewWriter(w)
	for i := range f.seeds {
		fmt.Fprintf(b, "%s,%s,hotp,6,0\n", serial(i), hex.EncodeToString(f.seeds[i][:]))
	}
	return b.Flush()
}
