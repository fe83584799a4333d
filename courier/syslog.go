package courier

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"watchword/tokens"
	"watchword/tokens/audit"
)

const (
	dialTimeout = 10 * time.Second
	// maxDatagram is what fits into a datagram of UDP over IPv4.
	maxDatagram = 65507
	// linger is how long a connection is listened to, after the last write, for word
	// that the receiver is gone.
	linger = 20 * time.Millisecond
)

// syslog speaks RFC 5424 to a syslog server: over TLS (RFC 5425), TCP with octet
// counting (RFC 6587) or UDP (RFC 5426).
//
// Syslog has no acknowledgement. Over TCP what was sent counts as safe when the
// other system has acknowledged it and the connection has held for some time after, in
// which the receiver has read it. When the connection breaks, what is not safe is
// sent again.
type syslog struct {
	host    string
	network string
	address string
	tls     *tls.Config // nil: none
	settle  time.Duration

	conn   net.Conn
	broken chan error // what reading ended with: syslog servers say nothing

	waiting []sent // oldest first
	safe    map[int64]int64
}

// sent is what one Send has written.
type sent struct {
	at         time.Time
	chain, seq int64
	bytes      int
}

// settleTime is how long a receiver may take to read what its system has.
const settleTime = 5 * time.Second

// userTimeout is how long what was sent may wait for the other system's
// acknowledgement before the connection is given up, in milliseconds.
const userTimeout = 30_000

func newSyslog(k *tokens.Sink, secrets *tokens.SinkSecrets, host string) (*syslog, error) {
	u, err := url.Parse(k.Address)
	if err != nil {
		return nil, fmt.Errorf("%w: the address of sink %s is no URL", tokens.ErrInvalid, k.Name)
	}
	s := &syslog{host: host, network: "tcp", address: u.Host, settle: settleTime, safe: map[int64]int64{}}
	switch u.Scheme {
	case "udp":
		s.network = "udp"
	case "tls":
		name := k.ServerName
		if name == "" {
			name = u.Hostname()
		}
		s.tls = &tls.Config{ServerName: name, MinVersion: tls.VersionTLS12}
		if s.tls.RootCAs, err = authorities(k.CA); err != nil {
			return nil, fmt.Errorf("sink %s: %w", k.Name, err)
		}
		if k.Certificate != "" {
			pair, err := tls.X509KeyPair([]byte(k.Certificate), secrets.Key)
			if err != nil {
				// Its words may hold what was given.
				return nil, fmt.Errorf("%w: sink %s: the certificate and the key are not PEM, or not of each other", tokens.ErrInvalid, k.Name)
			}
			s.tls.Certificates = []tls.Certificate{pair}
		}
	}
	return s, nil
}

// authorities are those of PEM text; nil, the system's, if that is empty.
func authorities(pem string) (*x509.CertPool, error) {
	if pem == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return nil, fmt.Errorf("%w: ca holds no certificate in PEM", tokens.ErrInvalid)
	}
	return pool, nil
}

// Send implements tokens.Delivery.
func (s *syslog) Send(ctx context.Context, records []audit.Record) (int, error) {
	var frames []byte
	for i := range records {
		message := records[i].AppendSyslog(nil, s.host)
		if s.network == "udp" {
			if err := s.datagram(ctx, message); err != nil {
				return i, err
			}
			continue
		}
		frames = audit.AppendFrame(frames, message)
	}
	last := records[len(records)-1]
	if s.network == "udp" {
		s.safe[last.Chain] = last.Seq // as safe as it gets
		return len(records), nil
	}
	if err := s.connect(ctx); err != nil {
		return 0, err
	}
	if err := s.write(ctx, frames); err != nil {
		s.drop()
		return 0, fmt.Errorf("the connection to the syslog server broke: %w", err)
	}
	s.waiting = append(s.waiting, sent{time.Now(), last.Chain, last.Seq, len(frames)})
	return len(records), nil
}

// Safe implements tokens.Delivery.
func (s *syslog) Safe() (map[int64]int64, error) {
	if len(s.waiting) == 0 {
		return s.safe, nil
	}
	if err := s.gone(); err != nil {
		return s.safe, err
	}
	unread, err := s.unacknowledged()
	if err != nil {
		s.drop()
		return s.safe, fmt.Errorf("ask how much the syslog server's system has: %w", err)
	}
	// From the newest back: TLS makes more bytes of what was written, never fewer.
	n := len(s.waiting)
	for ; n > 0 && unread > 0; n-- {
		unread -= s.waiting[n-1].bytes
	}
	settled := 0
	for ; settled < n && time.Since(s.waiting[settled].at) >= s.settle; settled++ {
		s.safe[s.waiting[settled].chain] = s.waiting[settled].seq
	}
	s.waiting = slices.Delete(s.waiting, 0, settled)
	return s.safe, nil
}

// gone says why the connection is of no more use; nil if it is, as far as is known.
func (s *syslog) gone() error {
	if s.conn == nil {
		return errors.New("the connection to the syslog server broke")
	}
	select {
	case err := <-s.broken:
		s.drop()
		if errors.Is(err, io.EOF) {
			err = errors.New("it was closed at the other end")
		}
		return fmt.Errorf("the connection to the syslog server broke: %w", err)
	default:
		return nil
	}
}

// unacknowledged is how many bytes of the connection the other system has not
// acknowledged.
func (s *syslog) unacknowledged() (n int, err error) {
	conn := s.conn
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	cerr := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	return n, errors.Join(cerr, err)
}

func (s *syslog) datagram(ctx context.Context, message []byte) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	// RFC 5424 section 6.1: what is too long is cut off, not left out.
	if len(message) > maxDatagram {
		message = message[:maxDatagram]
	}
	if _, err := s.conn.Write(message); err != nil {
		s.drop()
		return fmt.Errorf("the syslog server cannot be reached: %w", err)
	}
	return nil
}

// connect opens the connection, unless there is one that works. While what was sent
// on one that broke is not safe it fails: that comes first, again.
func (s *syslog) connect(ctx context.Context) error {
	if s.conn != nil {
		err := s.gone()
		if err == nil {
			return nil
		}
		if len(s.waiting) > 0 {
			return err
		}
	}
	s.waiting = nil
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var (
		conn net.Conn
		err  error
	)
	dialer := &net.Dialer{ControlContext: impatient}
	if s.tls != nil {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: s.tls}).DialContext(ctx, s.network, s.address)
	} else {
		conn, err = dialer.DialContext(ctx, s.network, s.address)
	}
	if err != nil {
		return fmt.Errorf("reach the syslog server: %w", err)
	}
	s.conn = conn
	if s.network == "udp" {
		s.broken = make(chan error)
		return nil
	}
	broken := make(chan error, 1)
	s.broken = broken
	go func() {
		_, err := io.Copy(io.Discard, conn)
		if err == nil {
			err = io.EOF
		}
		broken <- err
	}()
	return nil
}

// impatient has the system give a connection up whose other end is silent.
func impatient(_ context.Context, network, _ string, raw syscall.RawConn) (err error) {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeout)
	})
	return errors.Join(cerr, err)
}

// write writes frames, and listens a moment for word that nobody reads them.
func (s *syslog) write(ctx context.Context, frames []byte) error {
	until, ok := ctx.Deadline()
	if !ok {
		until = time.Now().Add(dialTimeout)
	}
	if err := s.conn.SetWriteDeadline(until); err != nil {
		return err
	}
	// What ends ctx ends the write.
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := s.conn.Write(frames); err != nil {
		return err
	}
	select {
	case err := <-s.broken:
		if errors.Is(err, io.EOF) {
			err = errors.New("it was closed at the other end")
		}
		return err
	case <-time.After(linger):
		return nil
	}
}

func (s *syslog) drop() {
	if s.conn != nil {
		_ = s.conn.Close() // it is of no more use
	}
	s.conn = nil
}

// Test implements tokens.Delivery: can the server be reached, and is it the one?
func (s *syslog) Test(ctx context.Context) error {
	if err := s.connect(ctx); err != nil {
		return err
	}
	if s.network == "udp" {
		return nil
	}
	// TLS 1.3 refuses our certificate only after the handshake.
	select {
	case err := <-s.broken:
		s.drop()
		return fmt.Errorf("the syslog server closed the connection at once: %w", err)
	case <-time.After(10 * linger):
		return nil
	}
}

// Close implements tokens.Delivery.
func (s *syslog) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close() // TLS says that nothing was cut off
	s.conn = nil
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
