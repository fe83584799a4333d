package radius

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"testing"

	layeh "layeh.com/radius"

	"watchword/tokens"
)

// BenchmarkServer measures the loop alone, with a core that answers at once:
// real sockets, signed PAP requests, each of them new, replies checked for
// their code. The load generator is in the same process, without allocating.
func BenchmarkServer(b *testing.B) {
	for _, outstanding := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("outstanding=%d", outstanding), func(b *testing.B) {
			h := serve(b, &fakeCore{clients: oneClient().clients, verify: instant, silent: true}, Config{})
			sockets := min(4, outstanding)
			loads := make([]*load, sockets)
			for i := range loads {
				loads[i] = newLoad(b, h, outstanding/sockets)
			}
			b.ReportAllocs()
			b.ResetTimer()
			var done sync.WaitGroup
			for i, l := range loads {
				n := b.N / sockets
				if i == 0 {
					n += b.N % sockets
				}
				done.Go(func() { l.run(b, n) })
			}
			done.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "packets/s")
		})
	}
}

func instant(context.Context, tokens.Attempt) (tokens.Result, error) {
	return tokens.Result{Accept: true}, nil
}

// load sends requests from one socket.
type load struct {
	conn    *net.UDPConn
	window  int
	request *renewable
	reply   [maxPacketSize]byte
}

func newLoad(b *testing.B, h *house, window int) *load {
	l := &load{conn: gateway(b, "", h.address()).conn, window: window, request: newRenewable(b)}
	_ = l.conn.SetReadBuffer(receiveBuffer)
	return l
}

// renewable is a signed PAP request that becomes another one cheaply.
type renewable struct {
	wire   []byte
	view   packet
	count  uint64
	digest *digester
}

func newRenewable(b *testing.B) *renewable {
	r := &renewable{wire: accessRequest(b, "alice", goodCode, secret), digest: newDigester()}
	if c := r.view.parse(r.wire); c != 0 {
		b.Fatal(remedies[c].label)
	}
	return r
}

// renew gives the request another identifier and authenticator, hides the
// password under it, and signs.
func (r *renewable) renew() []byte {
	p, d := &r.view, r.digest
	r.count++
	r.wire[1] = byte(r.count)
	binary.BigEndian.PutUint64(r.wire[4:], r.count)
	clear(p.userPassword)
	copy(p.userPassword, goodCode)
	noise, _ := d.unhidePassword([]byte(secret), p.userPassword, p.authenticator()) // it is its own inverse for one block
	copy(p.userPassword, noise)
	copy(p.wire[p.ma:], d.messageAuthenticator([]byte(secret), p.wire, p.ma))
	return r.wire
}

func (l *load) run(b *testing.B, n int) {
	sent := 0
	for received := 0; received < n; received++ {
		for sent < n && sent-received < l.window {
			if _, err := l.conn.Write(l.request.renew()); err != nil {
				b.Error(err)
				return
			}
			sent++
		}
		if _, err := l.conn.Read(l.reply[:]); err != nil {
			b.Error(err)
			return
		}
		if layeh.Code(l.reply[0]) != layeh.CodeAccessAccept {
			b.Errorf("%v", layeh.Code(l.reply[0]))
			return
		}
	}
}

// BenchmarkReceive measures the way of one packet without sockets.
func BenchmarkReceive(b *testing.B) {
	for _, kind := range []string{"accept", "retransmission", "wrong secret", "unknown address"} {
		b.Run(kind, func(b *testing.B) {
			core := &fakeCore{clients: oneClient().clients, verify: instant, silent: true}
			if kind == "unknown address" {
				core.clients = nil
			}
			h := serve(b, core, Config{})
			r, again, from := newRequest(), newRenewable(b), h.address()
			ma := again.view.ma
			b.ReportAllocs()
			for i := range uint64(b.N) {
				if kind == "accept" {
					again.renew()
				} else if kind == "wrong secret" {
					again.wire[ma] ^= 1 << (i % 8)
				}
				n := copy(r.buf[:], again.wire)
				r.path = path{via: nowhere{}, peer: from}
				if h.receive(r, n) {
					h.work.Wait()
					r = h.requests.Get().(*request)
				}
			}
		})
	}
}

type nowhere struct{}

func (nowhere) send([]byte, *path) error { return nil }
