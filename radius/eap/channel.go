package eap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// maxPlain is how many bytes a peer may say in a tunnel at once.
const maxPlain = maxMessage

var (
	errPlain = errors.New("the EAP peer says more in its tunnel than it may")
	errKeys  = errors.New("the EAP peer's TLS is too old to make keys from: it speaks TLS 1.2 without the extended master secret (RFC 7627); update it, or let it speak TLS 1.3")
)

// channel is the server's end of TLS whose records arrive by hand. crypto/tls wants to
// wait for them, so it runs in a goroutine that has the floor while step runs, and
// waits in pipe.Read otherwise: nothing here needs a lock. The goroutine ends with
// close, or when the longest conversation is over.
type channel struct {
	conn  *tls.Conn
	out   []byte // records for the peer
	plain []byte // what the peer said
	ready bool   // the handshake is over, and state holds
	state tls.ConnectionState
	err   error // why there is no more

	in      []byte // of the peer, that crypto/tls has not read yet
	running bool
	feed    chan []byte
	hungry  chan struct{} // crypto/tls has read everything
	done    chan struct{} // the goroutine is over
	closed  chan struct{}
	once    sync.Once
	timer   *time.Timer
}

// newChannel makes one end, tls.Server but in tests.
func newChannel(end func(net.Conn, *tls.Config) *tls.Conn, cfg *tls.Config) *channel {
	if cfg = cfg.Clone(); cfg == nil {
		cfg = &tls.Config{} // the handshake says that there is no certificate
	}
	// Whoever resumes a session has not shown a code, so there is nothing to resume.
	cfg.SessionTicketsDisabled = true
	cfg.MinVersion = max(cfg.MinVersion, tls.VersionTLS12)
	// It would have other settings than these.
	cfg.GetConfigForClient = nil
	c := &channel{
		plain: make([]byte, 0, 1024),
		feed:  make(chan []byte), hungry: make(chan struct{}), done: make(chan struct{}), closed: make(chan struct{}),
	}
	c.conn = end(pipe{c}, cfg)
	c.timer = time.AfterFunc(MaxLife, c.hangUp)
	return c
}

// step gives crypto/tls what came from the peer and waits until it wants more. in is
// the caller's again afterwards. out and plain grow; err, once set, stays.
func (c *channel) step(ctx context.Context, in []byte) {
	defer func() {
		if c.err == nil && c.over() {
			c.err = errClosed
		}
	}()
	if !c.running {
		c.running, c.in = true, in
		go c.run()
	} else {
		select {
		case c.feed <- in:
		case <-c.done:
			return
		}
	}
	select {
	case <-c.hungry:
	case <-c.done:
	case <-ctx.Done():
		c.hangUp()
		<-c.done // it computes for milliseconds at most
		if c.err == nil {
			c.err = context.Cause(ctx)
		}
	}
}

// run is the goroutine. Once the channel is closed it touches nothing: it may have been
// woken while it did not have the floor.
func (c *channel) run() {
	defer close(c.done)
	if err := c.conn.Handshake(); c.over() {
		return
	} else if err != nil {
		c.err = fmt.Errorf("TLS with the EAP peer: %w", err)
		return
	}
	c.state, c.ready = c.conn.ConnectionState(), true
	b := make([]byte, 1024)
	for {
		n, err := c.conn.Read(b)
		if c.over() {
			return
		}
		if len(c.plain)+n > maxPlain {
			err = errPlain
		} else {
			c.plain = append(c.plain, b[:n]...)
		}
		clear(b[:n])
		if err != nil {
			c.err = fmt.Errorf("in the EAP peer's tunnel: %w", err)
			return
		}
	}
}

// say encrypts.
func (c *channel) say(plain []byte) error {
	_, err := c.conn.Write(plain)
	return err
}

// records takes what is there for the peer.
func (c *channel) records() []byte {
	out := c.out
	c.out = nil
	return out
}

// export makes keys that only the two ends know (RFC 5705; RFC 8446, section 7.5).
func (c *channel) export(label string, context []byte, n int) ([]byte, error) {
	keys, err := c.state.ExportKeyingMaterial(label, context, n)
	if err != nil && c.state.Version < tls.VersionTLS13 {
		return nil, errKeys
	}
	return keys, err
}

// over says whether it is to end.
func (c *channel) over() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// hangUp lets the goroutine end. Anyone may call it at any time.
func (c *channel) hangUp() {
	c.once.Do(func() { close(c.closed) })
}

// close ends the channel and wipes what the peer said.
func (c *channel) close() {
	c.timer.Stop()
	c.hangUp()
	if c.running {
		<-c.done
	}
	clear(c.plain[:cap(c.plain)])
	c.plain, c.in = nil, nil
	if c.err == nil {
		c.err = errClosed
	}
}

// pipe is what crypto/tls takes for a connection.
type pipe struct{ *channel }

func (p pipe) Read(b []byte) (int, error) {
	for len(p.in) == 0 {
		select {
		case p.hungry <- struct{}{}:
		case <-p.closed:
			return 0, io.EOF
		}
		select {
		case p.in = <-p.feed:
		case <-p.closed:
			return 0, io.EOF
		}
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	return n, nil
}

func (p pipe) Write(b []byte) (int, error) {
	if p.over() {
		return 0, net.ErrClosed
	}
	p.out = append(p.out, b...)
	return len(b), nil
}

func (p pipe) Close() error                     { p.hangUp(); return nil }
func (p pipe) LocalAddr() net.Addr              { return nowhere{} }
func (p pipe) RemoteAddr() net.Addr             { return nowhere{} }
func (p pipe) SetDeadline(time.Time) error      { return nil }
func (p pipe) SetReadDeadline(time.Time) error  { return nil }
func (p pipe) SetWriteDeadline(time.Time) error { return nil }

type nowhere struct{}

func (nowhere) Network() string { return "eap" }
func (nowhere) String() string  { return "eap" }
