package api

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"unsafe"

	"github.com/labstack/echo/v4"
)

// wipingListener hands out connections that forget what was read from them.
type wipingListener struct{ net.Listener }

func (l wipingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if tcp, ok := c.(*net.TCPConn); ok {
		return &wipingConn{TCPConn: tcp}, err
	}
	return c, err
}

// scrap knows the buffer through which net/http reads a connection. It keeps
// what it last held of an import, and so seeds, until it is overwritten, and it
// goes back to a pool as it is when the connection ends.
type scrap struct {
	mu    sync.Mutex
	whole []byte
}

// reading wipes what a Read is to fill, by io.Reader's contract all of it
// scratch space. The first one shows net/http's whole buffer. When a later one
// goes elsewhere (but for the single byte by which net/http watches an idle
// connection), the buffer was used up and net/http reads past it: it is wiped.
func (s *scrap) reading(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.whole == nil:
		s.whole = p[:cap(p)]
	case len(p) > 1 && !within(p, s.whole):
		clear(s.whole)
	}
	clear(p)
}

// forget wipes the buffer. Nothing that was sent behind the present request is
// understood after it, so it is for the last request of a connection.
func (s *scrap) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.whole)
}

// within says whether p begins inside of whole.
func within(p, whole []byte) bool {
	at, from := uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(unsafe.Pointer(unsafe.SliceData(whole)))
	return from <= at && at < from+uintptr(cap(whole))
}

type scrapKey struct{}

// connContext lets handlers find the scrap of their connection.
func connContext(ctx context.Context, c net.Conn) context.Context {
	switch c := c.(type) {
	case *wipingConn:
		return context.WithValue(ctx, scrapKey{}, &c.scrap)
	case *wipingTLS:
		return context.WithValue(ctx, scrapKey{}, &c.scrap)
	}
	return ctx
}

// maxDrain is how much of a body that nobody wanted is read and wiped. What is
// left of a larger one net/http reads on for a while, so that the client hears
// the answer, through a buffer whose last 8 KiB stay until they are used again.
const maxDrain = 8 << 20

// leaveNothing ends a request that carried seeds, the last one of its
// connection: what is left of the body is read and wiped, and with it what
// net/http's buffer holds.
func leaveNothing(c echo.Context) {
	r := c.Request()
	if r.Header.Get("Expect") == "" {
		buf := make([]byte, 16<<10)
		for left := maxDrain; left > 0; {
			n, err := r.Body.Read(buf)
			clear(buf[:n])
			if left -= n; err != nil {
				break
			}
		}
	}
	if s, ok := r.Context().Value(scrapKey{}).(*scrap); ok {
		s.forget()
	}
}

// wipingConn is a connection over which HTTP is spoken in the clear.
type wipingConn struct {
	*net.TCPConn
	scrap scrap
}

func (c *wipingConn) Read(p []byte) (int, error) {
	c.scrap.reading(p)
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
	return &wipingTLS{Conn: tls.Server(&recordConn{Conn: c}, l.config)}, nil
}

// wipingTLS is wipingConn over TLS. The handshake happens with the first Read,
// under the deadline that net/http sets for a request's header.
type wipingTLS struct {
	*tls.Conn
	scrap scrap
}

func (c *wipingTLS) Read(p []byte) (int, error) {
	c.scrap.reading(p)
	n, err := c.Conn.Read(p)
	var odd tls.RecordHeaderError
	if errors.As(err, &odd) && odd.Conn != nil && speaksHTTP(odd.RecordHeader) {
		// Said in the clear, as it was asked; the connection ends with err.
		_, _ = io.WriteString(odd.Conn, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
	return n, err
}

// speaksHTTP says whether what came in place of a TLS record begins an HTTP
// request.
func speaksHTTP(header [recordHeader]byte) bool {
	switch string(header[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "DELET", "OPTIO", "PATCH":
		return true
	}
	return false
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
