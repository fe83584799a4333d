package radius

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	layeh "layeh.com/radius"
)

func TestASecondServerOnTheSameAddressIsRefused(t *testing.T) {
	for _, first := range []Config{{}, {Apart: true, Readers: 1}, {Apart: true, Readers: 3}} {
		for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0", ":0", "[::1]:0"} {
			first.Listen = []string{at}
			h := serve(t, oneClient(), first)
			host, _, _ := net.SplitHostPort(at)
			port := fmt.Sprint(h.address().Port())
			for _, second := range []Config{{}, {Apart: true}} {
				for _, again := range []string{at, "0.0.0.0:0", ":0"} {
					if host == "::1" && again == "0.0.0.0:0" {
						continue // they do not overlap
					}
					host, _, _ := net.SplitHostPort(again)
					second.Listen = []string{net.JoinHostPort(host, port)}
					s, err := New(oneClient(), second)
					if err != nil {
						t.Fatal(err)
					}
					if err = s.Listen(); err == nil || !strings.Contains(err.Error(), "in use") {
						t.Errorf("with %s taken (sockets of their own: %v), %s was opened (%v): %v", at, first.Apart, second.Listen, second.Apart, err)
					}
					s.Shutdown(context.Background())
				}
			}
		}
	}
}

// A program that shares the address from the beginning is no reason to share it.
func TestAnAddressThatSomebodyElseSharesIsRefused(t *testing.T) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
	}}
	taken, err := lc.ListenPacket(context.Background(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, apart := range []bool{false, true} {
		s, err := New(oneClient(), Config{Listen: []string{taken.LocalAddr().String()}, Apart: apart})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Listen(); err == nil {
			t.Errorf("the address was opened (sockets of their own: %v)", apart)
		}
		s.Shutdown(context.Background())
	}
}

// Many gateways are read by all sockets, one gateway's retransmission is known
// whichever reads it, and each reply comes from the address that was asked.
func TestEachReaderWithASocketOfItsOwn(t *testing.T) {
	core := oneClient()
	core.clients = append(core.clients, newClient("six", "::1/128", secret, true))
	h := serve(t, core, Config{Listen: []string{":0"}, Readers: 4, Apart: true})
	if n := len(h.Server.sockets); n != 4 {
		t.Fatalf("%d sockets", n)
	}
	if n := len(h.Listening()); n != 1 {
		t.Fatalf("listening on %v", h.Listening())
	}
	port := h.address().Port()
	requests := 0
	for i := range 64 {
		to := []string{"127.0.0.1", "127.0.0.2", "127.1.2.3", "::1"}[i%4]
		n := gateway(t, "", netip.AddrPortFrom(netip.MustParseAddr(to), port)) // hears only the address that it asked
		request := accessRequest(t, "alice", goodCode, secret)
		requests++
		for range 3 {
			if p := n.exchange(request, secret); p.Code != layeh.CodeAccessAccept {
				t.Errorf("%s: %v", to, p.Code)
			}
		}
	}
	if asked := len(core.asked()); asked != requests {
		t.Errorf("the core was asked %d times about %d requests", asked, requests)
	}
	if err := h.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	again := serve(t, oneClient(), Config{Listen: []string{fmt.Sprintf("0.0.0.0:%d", port)}})
	if again.address().Port() != port {
		t.Error("the address is not free after the end")
	}
}
