package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"watchword/tokens"
)

// Config is what a Server is made of. Core and Importer are required.
type Config struct {
	Core     Core
	Importer Importer

	// FIDO serves FIDO keys. Nil: no relying party is configured. (A nil pointer in
	// it is not nil.)
	FIDO FIDO

	// RADIUS is the RADIUS server of this node. Nil: it is switched off. (A nil pointer
	// in it is not nil.)
	RADIUS RADIUS

	// Name is what pages and authenticator apps call this installation. Empty: the
	// name of the first relying party, or else Watchword.
	Name string

	// Address is where people reach the pages, such as https://login.example.com,
	// for the links of invitations. Empty: the first origin of the first relying
	// party.
	Address string

	// Ready says what keeps the server from doing its work; nothing means that
	// it can. It must be quick and may be called concurrently. Nil: always.
	Ready func() []tokens.Problem

	// Metrics is where the HTTP metrics are registered and what /metrics shows.
	// Nil: a registry of its own.
	Metrics *prometheus.Registry

	Log *slog.Logger // nil: discarded

	// Certificate and Key name PEM files: the chain, leaf first, and its private
	// key. Both or neither; with neither the server speaks plain HTTP. Changed
	// files are taken up by themselves within ten seconds, and by Reload.
	Certificate, Key string

	// AllowPlaintext lets plain HTTP be served on an address that others than
	// this machine can reach. API keys, codes and PINs are then open on the
	// wire, unless something in front of the server does TLS.
	AllowPlaintext bool

	Timeout time.Duration // for a request, but for imports and audit verification; zero: 30 s
	Stall   time.Duration // how long an upload may stand still; zero: 60 s
	Drain   time.Duration // how long Serve waits at its end for requests under way; zero: 30 s
}

// Server serves the API. Handler alone is enough for a test.
type Server struct {
	cfg     Config
	name    string // of the installation, as people see it
	log     *slog.Logger
	echo    *echo.Echo
	routes  map[routeKey]*route
	metrics *metrics
	scrape  http.Handler
	cert    *certificate // nil: plain HTTP
	blobs   sync.Mutex   // held while FIDO metadata is received
	quota   quota
	http    *http.Server
	open    atomic.Int64 // requests under way
}

// New makes a server. It fails when the certificate cannot be read.
func New(cfg Config) (*Server, error) {
	if cfg.Core == nil || cfg.Importer == nil {
		return nil, errors.New("api: a core and an importer are needed")
	}
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, log: cfg.Log}
	if cfg.Certificate != "" || cfg.Key != "" {
		cert, err := newCertificate(cfg.Certificate, cfg.Key, cfg.Log)
		if err != nil {
			return nil, err
		}
		s.cert = cert
	}
	s.echo = echo.New()
	s.echo.Logger.SetOutput(io.Discard)
	s.echo.IPExtractor = echo.ExtractIPDirect() // X-Forwarded-For is whatever the client likes
	s.echo.HTTPErrorHandler = func(err error, c echo.Context) { s.fail(c, err) }
	s.echo.Use(s.around)
	RegisterHandlers(s.echo, s)
	if err := s.addPages(); err != nil {
		return nil, err
	}
	s.routes = routesOf(s.echo.Routes())

	m, err := newMetrics(cfg.Metrics, s)
	if err != nil {
		return nil, err
	}
	s.metrics = m
	s.scrape = promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{Registry: cfg.Metrics})
	s.http = &http.Server{
		Handler:           s.Handler(),
		ConnContext:       connContext,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       cfg.Timeout,
		WriteTimeout:      2 * cfg.Timeout, // the wait for the core is part of it
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	if c.Ready == nil {
		c.Ready = func() []tokens.Problem { return nil }
	}
	if c.Metrics == nil {
		c.Metrics = prometheus.NewRegistry()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Stall == 0 {
		c.Stall = time.Minute
	}
	if c.Drain == 0 {
		c.Drain = 30 * time.Second
	}
	return c
}

// Handler serves the API, whatever carries it.
func (s *Server) Handler() http.Handler { return s.echo }

// Serve serves a listener until ctx ends, then drains: no new request is taken,
// and those under way are answered within Config.Drain. It closes the listener
// in every case. Several listeners may be served at once; they end together.
// It refuses plain HTTP where others than this machine can reach it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if s.cert == nil && !s.cfg.AllowPlaintext && !local(l.Addr()) {
		l.Close()
		return fmt.Errorf("plain HTTP on %s would show API keys and codes to the network: configure a certificate, or set http.allow_plaintext if something in front does TLS", l.Addr())
	}
	if s.cert != nil {
		watch, stop := context.WithCancel(ctx)
		defer stop()
		go s.cert.watch(watch)
	}
	if s.cert != nil {
		l = tlsListener{l, s.cert.config()}
	} else {
		l = wipingListener{l}
	}
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(l) }()
	select {
	case err := <-served:
		if !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
		}
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer cancel()
	return s.Shutdown(drain)
}

// Shutdown takes no new request, waits until those under way are answered, and
// when ctx ends before that breaks them off and says how many. Serve does this
// by itself.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err == nil {
		return nil
	}
	left := s.open.Load()
	s.http.Close()
	return fmt.Errorf("drain HTTP: %d requests were broken off: %w", left, err)
}

// Reload reads certificate and key anew, at once. When they are broken the old
// ones stay in use.
func (s *Server) Reload() error {
	if s.cert == nil {
		return nil
	}
	return s.cert.reload()
}

// local says whether only this machine can reach an address.
func local(addr net.Addr) bool {
	switch a := addr.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}
