package api

import (
	"crypto/tls"
	"encoding/binary"
	"net"
)

// wipingListener hands out connections that forget what was read from them.
//
// net/http reads each connection through a buffer of its own, which keeps the
// last bytes of an import until they are overwritten, and so seeds. Each Read
// gives that whole buffer away again, also while the connection is idle: what
// it holds then was used up, and may be wiped.
type wipingListener struct{ net.Listener }

func (l wipingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return &wipingConn{tcp}, err
	}
	return c, err
}

// wipingConn wipes the buffer that it is to read into before it waits. By
// io.Reader's contract all of it is scratch space.
type wipingConn struct{ *net.TCPConn }

func (c *wipingConn) Read(p []byte) (int, error) {
	clear(p)
	return c.TCPConn.Read(p)
}

// tlsListener does the same for TLS, and wipes the buffers of TLS itself. It is
// net/http's HTTP/1.1 that comes out of it: what HTTP/2 keeps cannot be wiped.
type tlsListener struct {
	net.Listener
	config *tls.Config
}

func (l tlsListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wipingTLS{tls.Server(&recordConn{Conn: c}, l.config)}, nil
}

// wipingTLS is wipingConn over TLS. The handshake happens with the first Read,
// under the deadline that net/http sets for a request's header.
type wipingTLS struct{ *tls.Conn }

func (c *wipingTLS) Read(p []byte) (int, error) {
	clear(p)
	return c.Conn.Read(p)
}

// recordConn stands between TLS and its connection, and hands out one TLS
// record after another (RFC 8446, section 5.1), however they arrive. TLS
// decrypts a record where it read it, and asks for the next one when it has
// given away all of the last; so when it does, what it read into before holds
// nothing but a plaintext that was used up, and is wiped.
type recordConn struct {
	net.Conn
	ahead  []byte // ciphertext that was read and not yet handed out
	buffer [16 << 10]byte
	header [recordHeader]byte
	got    int      // bytes of header handed out
	body   int      // bytes of the record's body still to be handed out
	lent   [][]byte // where TLS has the record
}

const recordHeader = 5

func (c *recordConn) Read(p []byte) (int, error) {
	if c.got == recordHeader && c.body == 0 {
		for _, b := range c.lent {
			clear(b)
		}
		c.lent, c.got = c.lent[:0], 0
	}
	if len(c.ahead) == 0 {
		n, err := c.Conn.Read(c.buffer[:])
		if n == 0 {
			return 0, err
		}
		c.ahead = c.buffer[:n]
	}
	if c.got < recordHeader {
		n := copy(c.header[c.got:], c.ahead)
		n = copy(p, c.ahead[:n])
		c.ahead = c.ahead[n:]
		if c.got += n; c.got == recordHeader {
			c.body = int(binary.BigEndian.Uint16(c.header[3:]))
		}
		return n, nil
	}
	n := copy(p[:min(len(p), c.body)], c.ahead)
	c.ahead = c.ahead[n:]
	c.body -= n
	c.lent = append(c.lent, p[:n:n])
	return n, nil
}
