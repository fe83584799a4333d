package radius

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config is the server's settings. The zero value of each field is its default.
type Config struct {
	// Listen is the addresses to listen on, as host:port. Several are possible,
	// of IPv4 and IPv6. ":1812" is every address of both; replies then come from
	// the address that was asked. Default: 127.0.0.1:1812.
	Listen []string

	// Readers is how many goroutines read each address. Default: 2.
	Readers int

	// Apart gives each reader a socket of its own (SO_REUSEPORT), in the place of one
	// that they share. The operating system divides the gateways among them, by
	// address and port: a single gateway is read by one reader then.
	Apart bool

	// MaxInWork is how many requests may be in work at once, over all
	// addresses. Beyond it the newest are dropped and counted. Default: 4096.
	MaxInWork int

	// Timeout is how long the core may take for one request, after which it is
	// not answered; gateways stop waiting earlier. Default: 10 s.
	Timeout time.Duration

	// ReplyLife is how long a reply is held for retransmissions. Default: 30 s.
	ReplyLife time.Duration

	// MaxReplies and MaxReplyBytes bound the replies held, by number and by the
	// memory they take; the oldest goes first. Defaults: 131,072 and 64 MiB.
	MaxReplies    int
	MaxReplyBytes int

	// Dictionary knows the attributes that clients have in replies. Default: what
	// NewDictionary knows without files.
	Dictionary *Dictionary

	Logger     *slog.Logger          // default: slog.Default()
	Registerer prometheus.Registerer // where metrics are registered; default: nowhere
}

func (c Config) withDefaults() (Config, error) {
	if len(c.Listen) == 0 {
		c.Listen = []string{"127.0.0.1:1812"}
	}
	for _, n := range []struct {
		value *int
		name  string
		or    int
	}{
		{&c.Readers, "readers", 2},
		{&c.MaxInWork, "requests in work", 4096},
		{&c.MaxReplies, "replies held", 1 << 17},
		{&c.MaxReplyBytes, "bytes of replies held", 64 << 20},
	} {
		if *n.value == 0 {
			*n.value = n.or
		}
		if *n.value < 0 {
			return c, fmt.Errorf("RADIUS: %d %s; it must be positive", *n.value, n.name)
		}
	}
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	if c.ReplyLife == 0 {
		c.ReplyLife = 30 * time.Second
	}
	if c.Timeout < 0 || c.ReplyLife < 0 {
		return c, errors.New("RADIUS: a negative time limit")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Dictionary == nil {
		d, err := NewDictionary()
		if err != nil {
			return c, err
		}
		c.Dictionary = d
	}
	return c, nil
}

// Server answers RADIUS requests on all its addresses. Make it with New; then
// Listen, if the addresses are wanted early, Serve, and Shutdown.
type Server struct {
	core   Core
	config Config
	log    *slog.Logger

	gate      gate
	cache     *replyCache
	deadlines deadlines
	metrics   *metrics
	drops     *drops
	hub       hub
	faults    quiet[string]
	refusals  quiet[refusal]
	unsent    quiet[netip.Addr]
	unread    quiet[netip.AddrPort]
	requests  sync.Pool
	decided   chan *request  // to be answered, with room for all that may be in work; closed when no more come
	work      sync.WaitGroup // requests taken and not done
	trying    sync.RWMutex   // held for reading while a test's request is received
	cancel    context.CancelFunc

	mu      sync.Mutex
	sockets []*socket
	started bool
	stop    chan struct{} // closed when no more is to be read
	stopped sync.Once
	done    chan struct{} // closed when Serve has answered all and closed its sockets
}

// ErrServerClosed is Serve's and Listen's word after Shutdown.
var ErrServerClosed = errors.New("the RADIUS server was shut down")

// New makes a server. It does not listen yet.
func New(core Core, config Config) (*Server, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Server{
		core:     core,
		config:   config,
		log:      config.Logger,
		gate:     gate{max: int64(config.MaxInWork)},
		cache:    newReplyCache(config.ReplyLife, config.MaxReplies, config.MaxReplyBytes),
		faults:   quiet[string]{period: quietPeriod, max: quietClients},
		refusals: quiet[refusal]{period: quietPeriod, max: quietClients},
		unsent:   quiet[netip.Addr]{period: quietPeriod, max: quietUnknowns},
		unread:   quiet[netip.AddrPort]{period: quietPeriod, max: quietUnknowns},
		requests: sync.Pool{New: func() any { return newRequest() }},
		decided:  make(chan *request, config.MaxInWork),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
	}
	s.deadlines.timeout, s.deadlines.giveUp = config.Timeout, s.giveUp
	s.deadlines.base, s.cancel = context.WithCancel(context.Background())
	s.metrics = newMetrics(&s.gate, s.cache, &s.hub)
	s.drops = newDrops(s.log, s.metrics, &s.hub)
	if config.Registerer != nil {
		if err := s.metrics.register(config.Registerer); err != nil {
			return nil, fmt.Errorf("RADIUS metrics: %w", err)
		}
	}
	return s, nil
}

// Listen opens all addresses, or none. What arrives waits until Serve. Serve
// calls it if nobody did.
func (s *Server) Listen() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping() {
		return ErrServerClosed
	}
	if len(s.sockets) > 0 {
		return nil
	}
	var sockets []*socket
	for _, address := range s.config.Listen {
		some, err := listen(address, s.config.Readers, s.config.Apart)
		if err != nil {
			for _, open := range sockets {
				open.conn.Close()
			}
			return err
		}
		sockets = append(sockets, some...)
	}
	s.sockets = sockets
	return nil
}

// Listening is the addresses that are open, with the ports that the system
// gave where 0 was asked for; none before Listen and after Shutdown.
func (s *Server) Listening() []netip.AddrPort {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []netip.AddrPort
	for _, k := range s.sockets {
		if at := k.address(); !slices.Contains(all, at) { // one address may have several
			all = append(all, at)
		}
	}
	return all
}

// Serve reads and answers until ctx ends or Shutdown is called. Then it reads
// no more, answers what it has taken, which the timeout bounds, closes its
// sockets and answers nil. It can be called once.
func (s *Server) Serve(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.started {
		s.mu.Unlock()
		return errors.New("RADIUS: Serve was called twice")
	}
	s.started = true
	sockets := s.sockets
	s.mu.Unlock()

	for range s.config.Readers {
		go s.answers()
	}
	failed := make(chan error, len(sockets)*s.config.Readers)
	for _, at := range s.Listening() {
		s.log.Info("RADIUS listening", "address", at.String())
	}
	var readers sync.WaitGroup
	for _, k := range sockets {
		for range k.readers {
			readers.Go(func() {
				if err := s.read(k); err != nil {
					failed <- fmt.Errorf("RADIUS: reading from %s: %w", k.address(), err)
				}
			})
		}
	}
	err := s.wait(ctx, failed)

	s.trying.Lock() // whoever still begins a trial is waited for, and nobody begins one after that
	s.stopReading()
	s.trying.Unlock()
	for _, k := range sockets {
		// Wakes the readers; what was taken is still answered by the socket.
		_ = k.conn.SetReadDeadline(time.Unix(1, 0))
	}
	readers.Wait()
	s.work.Wait()
	close(s.decided)
	s.hub.close()
	s.cancel()
	s.closeSockets()
	close(s.done)
	return err
}

// wait lets the server run until it is to stop or a socket fails.
func (s *Server) wait(ctx context.Context, failed <-chan error) error {
	sweep := time.NewTicker(time.Second)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.stop:
			return nil
		case err := <-failed:
			return err
		case now := <-sweep.C:
			s.cache.sweep(now)
		}
	}
}

// read takes datagrams from a socket until reading is to stop.
func (s *Server) read(k *socket) error {
	r := s.requests.Get().(*request)
	for !s.stopping() {
		n, err := k.receive(r)
		if err != nil {
			if s.stopping() {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Such as no memory for the moment.
			if speak, unsaid := s.unread.may(k.address(), time.Now()); speak {
				s.log.Error("RADIUS: reading failed; trying again", "address", k.address().String(), "error", err, "since_last", unsaid)
			}
			select {
			case <-s.stop:
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if s.receive(r, n) {
			r = s.requests.Get().(*request)
		}
	}
	return nil
}

func (s *Server) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

func (s *Server) stopReading() { s.stopped.Do(func() { close(s.stop) }) }

func (s *Server) closeSockets() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.sockets {
		k.conn.Close()
	}
	s.sockets = nil
}

// Shutdown stops reading and waits until everything taken is answered. When
// ctx ends first, what is still in work is cancelled and stays unanswered, and
// ctx's error is the answer.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopReading()
	started := s.started
	s.mu.Unlock()
	if !started {
		s.hub.close()
		s.cancel()
		s.closeSockets()
		return nil
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		s.cancel()
		return ctx.Err()
	}
}
