package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"watchword/api"
	"watchword/courier"
	"watchword/hsm/pkcs11"
	"watchword/radius"
	"watchword/seeds"
	"watchword/tokens"
	"watchword/tokens/store"
	"watchword/webauthn"
)

// drainTime bounds how long what was accepted may take at the end.
const drainTime = 30 * time.Second

func serveCommand() *cobra.Command {
	var f serverFlags
	var printOnly bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the server",
		Long: `Runs the server: RADIUS and HTTP on one database and one HSM.

A data directory without watchword.json is initialised: it gets a SoftHSM token,
unless an HSM is configured, and the first administrator's API key in admin.key
and the RADIUS secret of client 127.0.0.1 in radius.secret.

SIGTERM drains: no new work is taken, everything accepted is answered. A second
one ends at once. SIGHUP reads the TLS certificate anew.`,
		Example: "  watchword serve\n  watchword serve --config /etc/watchword.yaml\n  watchword serve --data-dir /var/lib/watchword --http 127.0.0.1:8080 --radius 0.0.0.0:1812",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config, all, err := f.load(c)
			if err != nil {
				return err
			}
			if printOnly {
				return printConfig(c.OutOrStdout(), all, false)
			}
			if err := stopPreemption(); err != nil {
				return fmt.Errorf("start the server without preemption by signals: %w", err)
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return serve(ctx, config, strangeVariables(os.Environ(), all))
		},
	}
	f.add(c)
	c.Flags().BoolVar(&printOnly, "print-config", false, "print the configuration in effect, and end")
	return c
}

// appliance is all that runs.
type appliance struct {
	config  *Config
	log     *slog.Logger
	dir     *dataDir
	keys    *pkcs11.Keystore
	db      *store.DB
	core    *tokens.Service
	fido    *webauthn.Service // nil: no relying party is configured
	http    *api.Server
	names   *radius.Dictionary
	radius  *radius.Server
	sockets []net.Listener
	ending  atomic.Bool
}

// serve runs the server until ctx ends, or until a part of it fails.
func serve(ctx context.Context, c *Config, strange []string) (err error) {
	// A core dump would hold RADIUS secrets and the PIN.
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("switch core dumps off: %w", err)
	}
	tune(c)
	a := &appliance{config: c, log: newLog(&c.Log)}
	slog.SetDefault(a.log)
	for _, name := range strange {
		a.log.Warn("a variable means nothing to us; is it misspelt?", "variable", name)
	}
	defer func() { err = firstOf(err, a.closeInTime()) }()
	if err := a.open(ctx); err != nil {
		if ctx.Err() != nil {
			return &failure{What: "start the server", Why: "it was told to stop before it was ready"}
		}
		return err
	}
	a.warn(ctx)
	return a.run(ctx)
}

func newLog(c *LogConfig) *slog.Logger {
	var level slog.Level
	// Checked before: it is one of the four.
	_ = level.UnmarshalText([]byte(c.Level))
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

// open opens everything, from the data directory to the sockets.
func (a *appliance) open(ctx context.Context) error {
	if err := a.openCore(ctx); err != nil {
		return err
	}
	return a.listen(ctx)
}

// openCore opens data directory, HSM and database, and starts the core on them.
func (a *appliance) openCore(ctx context.Context) (err error) {
	c := a.config
	if a.dir, err = openDataDir(c.DataDir, c.sqlite()); err != nil {
		return err
	}
	if c.sqlite() {
		if err := a.dir.lockDatabase(strings.TrimPrefix(c.Database, "sqlite:")); err != nil {
			return err
		}
	}
	if a.keys, err = openHSM(ctx, c, a.dir, a.log); err != nil {
		return err
	}
	a.db, err = store.Open(ctx, c.Database, store.Options{Connections: c.DatabaseConnections})
	if err != nil {
		return a.databaseFailure(err)
	}
	if err := a.checkDurability(ctx); err != nil {
		return err
	}
	if a.names, err = radius.NewDictionary(c.RADIUS.Dictionaries...); err != nil {
		return &failure{What: "start RADIUS", Why: err.Error(), Do: "see radius.dictionaries"}
	}
	a.core, err = tokens.Open(ctx, tokens.Config{
		Database: a.db, Custody: a.keys, Exclusive: c.sqlite(), Issuer: c.Statements.Issuer,
		Windows: c.windows(), Throttle: c.throttle(), Sessions: c.sessions(), Queue: c.Verify.Queue, ClockSkew: c.Verify.ClockSkew,
		Deliver:  &courier.Courier{Dir: filepath.Join(a.dir.path, "audit"), Version: versionName()},
		Location: c.location(), Log: a.log, AuditKeep: c.Audit.Keep, AuditExpire: c.Audit.Keep > 0,
		CheckReplies: a.names.Check,
	}, a.keys, a.dir)
	if err != nil {
		return a.coreFailure(err)
	}
	if c.HSM.Module == "" {
		if err := a.dir.sync(); err != nil { // SoftHSM leaves what it writes to the system
			return err
		}
	}
	return nil
}

func (a *appliance) databaseFailure(err error) error {
	f := &failure{What: "open the database " + redactURL(a.config.Database), Why: err.Error()}
	if !a.config.sqlite() {
		f.Do = "see that PostgreSQL runs and takes this user and password"
	}
	return f
}

// coreFailure says what to do about what kept the core from starting.
func (a *appliance) coreFailure(err error) error {
	f := hsmFailure("start the server", err)
	var known *failure
	if errors.As(f, &known) && known.Do == "" && errors.Is(err, tokens.ErrUnavailable) {
		return a.databaseFailure(err)
	}
	return f
}

// checkDurability warns of, or under require_sync refuses, a database that
// could lose an accept that was given out.
func (a *appliance) checkDurability(ctx context.Context) error {
	warnings, sync, err := a.db.Durability(ctx)
	if err != nil {
		return a.databaseFailure(err)
	}
	for _, w := range warnings {
		a.log.Warn("the database's settings weaken durability: " + w)
	}
	if a.config.RequireSync && !sync {
		return &failure{
			What: "start the server", Why: "require_sync is set, and no synchronous standby confirms PostgreSQL's commits",
			Do: "set synchronous_standby_names on the primary, or unset require_sync and accept that a code may be taken twice after a failover",
		}
	}
	if !sync && !a.config.sqlite() {
		a.log.Warn("no synchronous standby confirms PostgreSQL's commits: after a failover a code may be accepted a second time; set synchronous_standby_names, and require_sync to insist on it")
	}
	return nil
}

// listen makes the transports and opens their sockets.
func (a *appliance) listen(ctx context.Context) (err error) {
	c := a.config
	metrics := newMetrics(a.ready, a.db.SearchBehind)
	metrics.MustRegister(sinkMetrics{a.core.SinkStates}, attemptMetrics{a.core.AttemptCounts})
	if err := a.openFIDO(ctx, metrics); err != nil {
		return err
	}
	if err := a.openRADIUS(metrics); err != nil {
		return err
	}
	if len(c.HTTP.Listen) > 0 {
		config := api.Config{
			Core: a.core, Importer: seeds.NewImporter(seeds.Service(a.core)), Ready: a.ready, Metrics: metrics, Log: a.log,
			Certificate: c.HTTP.TLSCert, Key: c.HTTP.TLSKey, AllowPlaintext: c.HTTP.AllowPlaintext,
			Timeout: c.HTTP.Timeout, Drain: drainTime, Name: c.HTTP.Name, Address: c.HTTP.PublicURL,
		}
		if a.fido != nil { // a nil pointer in the interface is not nil
			config.FIDO = a.fido
		}
		if a.radius != nil {
			config.RADIUS = watchedRADIUS{a.radius}
		}
		a.http, err = api.New(config)
		if err != nil {
			return &failure{What: "start HTTP", Why: err.Error(), Do: "see http.tls_cert and http.tls_key"}
		}
	}
	if a.radius != nil {
		if err := a.radius.Listen(); err != nil {
			return &failure{What: "start RADIUS", Why: err.Error(), Do: "name another address with --radius, or stop what uses it"}
		}
	}
	for _, address := range c.HTTP.Listen {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", address)
		if err != nil {
			return &failure{What: "listen for HTTP", Why: err.Error(), Do: "name another address with --http, or stop what uses it"}
		}
		a.sockets = append(a.sockets, l)
	}
	return nil
}

// ready says what keeps the server from doing its work.
func (a *appliance) ready() []tokens.Problem {
	if a.ending.Load() {
		return []tokens.Problem{{Part: "server", Says: "it is ending and takes no new work"}}
	}
	return a.core.Ready()
}

// run serves until ctx ends or a listener fails, and then drains.
func (a *appliance) run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	failed := make(chan error, len(a.sockets)+1)
	var listeners sync.WaitGroup
	for _, l := range a.sockets {
		listeners.Go(func() {
			if err := a.http.Serve(work, l); err != nil {
				failed <- &failure{What: "serve HTTP", Why: err.Error()}
			}
		})
	}
	if a.radius != nil {
		listeners.Go(func() {
			if err := a.radius.Serve(work); err != nil && !errors.Is(err, radius.ErrServerClosed) {
				failed <- &failure{What: "serve RADIUS", Why: err.Error()}
			}
		})
	}
	if a.fido != nil {
		listeners.Go(func() { a.fido.Run(work) })
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)

	a.log.Info("watchword serves", "http", a.urls(), "radius", a.radiusAddresses(), "data", a.dir.path,
		"database", redactURL(a.config.Database), "pid", os.Getpid(), "version", versionName())
	var err error
	for waiting := true; waiting; {
		select {
		case <-ctx.Done():
			waiting = false
		case err = <-failed:
			waiting = false
		case <-hup:
			a.reload()
		}
	}
	again := make(chan os.Signal, 1)
	signal.Notify(again, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(again)
	a.ending.Store(true)
	a.log.Info("no new work is taken; what was accepted is being answered")
	stop()
	drained := make(chan struct{})
	go func() { listeners.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-again:
		return &failure{What: "drain", Why: "a second signal came: what was still under way was not answered"}
	case <-time.After(drainTime + 5*time.Second):
		return &failure{What: "drain", Why: "what was accepted could not all be answered in time"}
	}
	if err == nil {
		select {
		case err = <-failed:
		default:
		}
	}
	return err
}

// urls are where HTTP is served.
func (a *appliance) urls() []string {
	scheme := "http://"
	if a.config.HTTP.TLSCert != "" {
		scheme = "https://"
	}
	var urls []string
	for _, l := range a.sockets {
		urls = append(urls, scheme+l.Addr().String())
	}
	return urls
}

// radiusAddresses are where RADIUS is served.
func (a *appliance) radiusAddresses() []string {
	var addresses []string
	if a.radius != nil {
		for _, at := range a.radius.Listening() {
			addresses = append(addresses, at.String())
		}
	}
	return addresses
}

// reload takes up a changed certificate.
func (a *appliance) reload() {
	if a.http == nil {
		return
	}
	if err := a.http.Reload(); err != nil {
		a.log.Error("the TLS certificate could not be read anew; the old one stays in use", "error", err)
		return
	}
	a.log.Info("SIGHUP: the TLS certificate was read anew")
}

// closeInTime is close, but that an HSM or a database that hangs cannot hold up
// the end: what was decided is durable already.
func (a *appliance) closeInTime() error {
	closed := make(chan error, 1)
	go func() { closed <- a.close() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(drainTime + 5*time.Second):
		return &failure{What: "end the server", Why: "HSM or database did not let go in time"}
	}
}

// close ends everything that was opened, in the other order.
func (a *appliance) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	var errs []error
	end := func(what string, err error) {
		if err != nil {
			errs = append(errs, &failure{What: what, Why: err.Error()})
		}
	}
	if a.radius != nil {
		end("end RADIUS", a.radius.Shutdown(ctx))
	}
	for _, l := range a.sockets {
		_ = l.Close() // closed before, if it was served
	}
	if a.core != nil {
		end("end the core", a.core.Close(ctx))
	}
	if a.keys != nil {
		end("close the HSM", a.keys.Close())
	}
	if a.db != nil {
		end("close the database", a.db.Close())
	}
	if a.dir != nil {
		end("leave the data directory", a.dir.close())
	}
	if a.core != nil {
		a.log.Info("watchword ended")
	}
	return firstOf(errs...)
}
