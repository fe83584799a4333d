package api

import "net"

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
