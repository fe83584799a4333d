package radius

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// receiveBuffer is what the operating system is asked to hold of what was not
// read yet, in bytes: some 10,000 requests.
const receiveBuffer = 4 << 20

// sender sends a reply the way back.
type sender interface {
	send(reply []byte, to *path) error
}

// path is the way that a datagram came and its reply goes.
type path struct {
	via     sender
	peer    netip.AddrPort
	control [64]byte // names our address that was asked, on a wildcard socket
	n       int      // bytes of control in use
}

// socket is one socket of a listen address.
type socket struct {
	conn     *net.UDPConn
	wildcard bool // replies must name the address that was asked
	readers  int  // how many goroutines read it
}

// listen opens an address for several readers: one socket that they share or, with
// apart, one for each, among which the operating system divides the gateways. An IPv4
// or IPv6 address, the unspecified one too, gets sockets of that family only; an
// address without a host both.
//
// The first socket is bound as if it were the only one, so that a second server on the
// address is refused, whichever way it binds; what lets others share the address is
// said of it after that.
func listen(address string, readers int, apart bool) ([]*socket, error) {
	first, err := bind(address, false)
	if err != nil {
		return nil, err
	}
	all := []*socket{first}
	if !apart || readers == 1 {
		first.readers = readers
		return all, nil
	}
	err = first.share()
	for len(all) < readers && err == nil {
		var next *socket
		if next, err = bind(first.named(address), true); err == nil {
			all = append(all, next)
		}
	}
	if err != nil {
		for _, k := range all {
			k.conn.Close()
		}
		return nil, fmt.Errorf("RADIUS: a socket for each reader (SO_REUSEPORT): %w", err)
	}
	return all, nil
}

// named is the address that was asked for with the port that it got.
func (s *socket) named(address string) string {
	host, _, _ := net.SplitHostPort(address)
	return net.JoinHostPort(host, strconv.Itoa(int(s.address().Port())))
}

// share lets other sockets of the same user be bound to the same address.
func (s *socket) share() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var bad error
	if err := raw.Control(func(fd uintptr) {
		bad = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}); err != nil {
		return err
	}
	return bad
}

// bind opens one socket.
func bind(address string, shared bool) (*socket, error) {
	network := "udp"
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("RADIUS listen address %q: %w; it is host:port, such as 127.0.0.1:1812 or [::1]:1812", address, err)
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Is4() {
			network = "udp4"
		} else {
			network = "udp6"
		}
	}
	config := net.ListenConfig{Control: control}
	if shared {
		config.Control = controlShared
	}
	conn, err := config.ListenPacket(context.Background(), network, address)
	if err != nil {
		return nil, fmt.Errorf("RADIUS listen address %q: %w", address, err)
	}
	s := &socket{conn: conn.(*net.UDPConn), readers: 1}
	s.wildcard = s.address().Addr().IsUnspecified()
	return s, nil
}

// controlShared is control for a socket that shares its address.
func controlShared(network, address string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) }); e != nil {
		return e
	}
	if err != nil {
		return err
	}
	return control(network, address, c)
}

// control sets options before the socket is bound, so that they hold for the
// first datagram too.
func control(network, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		s := int(fd)
		// Beyond the system's limit as root, else up to it: a small buffer
		// loses bursts but works.
		if syscall.SetsockoptInt(s, syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = syscall.SetsockoptInt(s, syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer)
		}
		if network != "udp6" {
			err = syscall.SetsockoptInt(s, syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1)
		}
		if network != "udp4" && err == nil {
			err = syscall.SetsockoptInt(s, syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1)
		}
	}); e != nil {
		return e
	}
	return err
}

func (s *socket) address() netip.AddrPort {
	return s.conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// receive reads one datagram into r. What is longer than a RADIUS packet can
// be is cut off: it would be padding.
func (s *socket) receive(r *request) (n int, err error) {
	r.path.via, r.path.n = s, 0
	if !s.wildcard {
		n, r.path.peer, err = s.conn.ReadFromUDPAddrPort(r.buf[:])
		return n, err
	}
	var control int
	n, control, _, r.path.peer, err = s.conn.ReadMsgUDPAddrPort(r.buf[:], r.path.control[:])
	if err == nil {
		r.path.n = answerable(r.path.control[:control])
	}
	return n, err
}

func (s *socket) send(reply []byte, to *path) error {
	if to.n == 0 {
		_, err := s.conn.WriteToUDPAddrPort(reply, to.peer)
		return err
	}
	_, _, err := s.conn.WriteMsgUDPAddrPort(reply, to.control[:to.n], to.peer)
	return err
}

// answerable turns the control message that a datagram came with into one that
// sends the reply from the same address, by whatever interface leads to the
// peer, and answers how many bytes of it to use; 0 leaves the choice of the
// address to the operating system.
func answerable(control []byte) int {
	const header = syscall.SizeofCmsghdr
	if len(control) < header+syscall.SizeofInet4Pktinfo {
		return 0
	}
	level := int32(binary.NativeEndian.Uint32(control[header-8:]))
	kind := int32(binary.NativeEndian.Uint32(control[header-4:]))
	info := control[header:]
	switch {
	case level == syscall.IPPROTO_IP && kind == syscall.IP_PKTINFO:
		clear(info[:4]) // interface; the local address, next, stays
		return syscall.CmsgSpace(syscall.SizeofInet4Pktinfo)
	case level == syscall.IPPROTO_IPV6 && kind == syscall.IPV6_PKTINFO && len(info) >= syscall.SizeofInet6Pktinfo:
		address := netip.AddrFrom16([16]byte(info[:16]))
		if address.IsMulticast() {
			return 0
		}
		if !address.IsLinkLocalUnicast() { // else the address means nothing without its interface
			clear(info[16:20])
		}
		return syscall.CmsgSpace(syscall.SizeofInet6Pktinfo)
	}
	return 0
}
