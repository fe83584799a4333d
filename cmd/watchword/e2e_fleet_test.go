package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// A hardToken is one that somebody carries: the tests know its seed, the
// server must not.
type hardToken struct {
	serial string
	user   string
	seed   []byte
	hotp   bool
	period int64  // TOTP: seconds
	next   uint64 // HOTP: the counter that its button shows next
}

// digits is how long the codes are: so long that none is right by chance.
const digits = 8

// code is the code of a moving factor (RFC 4226, section 5.3).
func (k *hardToken) code(factor uint64) string {
	m := hmac.New(sha1.New, k.seed)
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], factor)
	m.Write(b[:])
	sum := m.Sum(nil)
	v := binary.BigEndian.Uint32(sum[sum[19]&15:]) & 0x7fffffff
	return fmt.Sprintf("%0*d", digits, v%100_000_000)
}

// press is the next code of a HOTP token.
func (k *hardToken) press() string {
	k.next++
	return k.code(k.next - 1)
}

// shown is the code that a TOTP token shows now, and its time step.
func (k *hardToken) shown() (code string, step uint64) {
	step = uint64(time.Now().Unix() / k.period)
	return k.code(step), step
}

// newTokens makes n tokens called like prefix, of HOTP or of 30-second TOTP,
// and their owners' names.
func newTokens(prefix string, n int, hotp bool) []*hardToken {
	list := make([]*hardToken, n)
	for i := range list {
		seed := make([]byte, 20)
		rand.Read(seed)
		list[i] = &hardToken{
			serial: fmt.Sprintf("%s%04d", prefix, i), user: strings.ToLower(fmt.Sprintf("%s-user%04d", prefix, i)),
			seed: seed, hotp: hotp, period: 30,
		}
	}
	return list
}

// shipment is the vendor's file for tokens: OATH CSV.
func shipment(list []*hardToken) io.Reader {
	var b bytes.Buffer
	for _, k := range list {
		if k.hotp {
			fmt.Fprintf(&b, "%s,%s,hotp,%d,%d\n", k.serial, hex.EncodeToString(k.seed), digits, k.next)
		} else {
			fmt.Fprintf(&b, "%s,%s,totp,%d,%d\n", k.serial, hex.EncodeToString(k.seed), digits, k.period)
		}
	}
	return &b
}

// importFile imports a file, all of whose n tokens must be created.
func (n *node) importFile(file io.Reader, tokens int) {
	n.t.Helper()
	var report struct{ Created int }
	n.must(http.MethodPost, "/v1/imports", file, &report)
	if report.Created != tokens {
		n.t.Fatalf("%d of %d tokens were created", report.Created, tokens)
	}
}

// equip imports tokens and gives each to its user.
func (n *node) equip(list ...*hardToken) {
	n.t.Helper()
	n.importFile(shipment(list), len(list))
	n.assign(list...)
}

// assign makes the users of tokens and gives them their tokens.
func (n *node) assign(list ...*hardToken) {
	n.t.Helper()
	work := make(chan *hardToken)
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for k := range work {
				_, err := n.call(n.key, http.MethodPost, "/v1/users", map[string]string{"name": k.user}, nil)
				if err == nil {
					_, err = n.call(n.key, http.MethodPost, "/v1/tokens/"+k.serial+"/assign", map[string]string{"user": k.user}, nil)
				}
				if err != nil {
					n.t.Error(err)
				}
			}
		})
	}
	for _, k := range list {
		work <- k
	}
	close(work)
	workers.Wait()
	if n.t.Failed() {
		n.t.FailNow()
	}
}

// soonInStep waits, if need be, until a TOTP step of 30 s has at least so much
// left of it.
func soonInStep(t testing.TB, left time.Duration) {
	t.Helper()
	const step = 30 * time.Second
	if rest := step - time.Duration(time.Now().UnixNano())%step; rest < left {
		time.Sleep(rest + 100*time.Millisecond)
	}
}
