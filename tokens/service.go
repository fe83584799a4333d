package tokens

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// Custody is what the core needs of the HSM.
type Custody interface {
	hsm.Keystore
	hsm.Sealer
	hsm.Signer
	hsm.Decrypter
	hsm.StatementKeys
	hsm.Generator
}

// Config is what a Service is made of. Only Database and Custody are required.
type Config struct {
	Database  Database
	Custody   Custody
	Exclusive bool   // no other server uses this database: what is staged at start is abandoned
	Issuer    string // who gives signed statements, the same on all nodes: a URL as a rule; empty: "watchword"

	Sessions   SessionRules  // of people who sign in
	Windows    Windows       // zero: DefaultWindows
	Throttle   Throttle      // zero: DefaultThrottle
	BatchSize  int           // attempts in one batch at most; zero: 256
	Queue      int           // attempts waiting at most, beyond it ErrOverloaded; zero: 8192
	ClockSkew  time.Duration // the most that our clock and the database's may differ; zero: 5 s
	Checkpoint time.Duration // between signed checkpoints of the audit; zero: 1 min
	AuditKeep  time.Duration // how long audit records stay at least; zero: 30 days

	AuditExpire bool // what is older than AuditKeep is removed, by a signed cut about once a day

	Deliver   Deliverer        // the ways to sinks; nil: the audit is told to nobody
	SinkLease time.Duration    // how long a server that is gone keeps a sink from others; zero: 30 s
	SinkPause time.Duration    // between two looks at what is to tell, and before what failed is tried again; zero: 1 s
	Answer    time.Duration    // how long a question of a dialogue may be answered; zero: 2 min
	SinkAlarm time.Duration    // how long a sink fails before the audit says so; zero: 1 min
	SinkClock Clock            // by which sinks are waited for; nil: the time that it is
	Location  *time.Location   // in which policies see hours and days; nil: UTC
	Now       func() time.Time // nil: time.Now
	Rand      io.Reader        // nil: crypto/rand
	Log       *slog.Logger     // nil: discarded

	// CheckReplies says what is wrong with the reply attributes of a RADIUS client, by
	// the dictionary of the RADIUS server, as ErrInvalid; nil: there can be none.
	CheckReplies func([]Reply) error
}

// Service is the core: every use case is one of its methods. All may be called
// concurrently.
type Service struct {
	cfg      Config
	db       Database
	custody  Custody
	log      *slog.Logger
	ledger   ledger
	reg      atomic.Pointer[registry]
	compiled atomic.Pointer[compiledSet]
	regMu    sync.Mutex // held while the registry is read anew
	// When an unknown key last made us read it, since an epoch just before start.
	regEpoch  time.Time
	regLooked atomic.Int64

	engine     *engine
	crowd      *crowd
	decoy      Token    // what unknown users are held against
	decoy2     *Token   // the same where a Yubico OTP was typed; nil if the HSM decrypts none
	decoy3     Token    // the same where a key answered
	decoyPass  [2]Token // the same where a passcode was typed: a recovery sheet, a temporary one
	skewed     atomic.Bool
	dbDown     atomic.Bool // the last batch could not be read or committed
	spent      spent
	counts     attemptCounts
	rowProofs  rowProofs
	forgot     atomic.Int64 // what expired before this, Unix nanoseconds, may be forgotten as spent
	keyUse     keyUse
	accused    sync.Map // grants that were altered, and told of
	signins    signins
	named      named
	statements statements
	shipping   *shipping
	stop       context.CancelFunc
	done       sync.WaitGroup
	started    time.Time
}

// New starts the core on a database that is migrated and an HSM whose keys are
// attached. It begins an audit chain. Close ends it.
func New(ctx context.Context, cfg Config) (*Service, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Sessions.Valid(); err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, crowd: newCrowd(), db: cfg.Database, custody: cfg.Custody, log: cfg.Log, started: cfg.Now(), regEpoch: time.Now().Add(-lookAgain)}
	if err := s.sweep(ctx, true); err != nil {
		return nil, err
	}
	if err := s.reloadRegistry(ctx); err != nil {
		return nil, err
	}
	if err := s.makeDecoys(ctx); err != nil {
		return nil, err
	}
	chain, others, err := s.db.MintChain(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin an audit chain: %w", err)
	}
	if err := s.newShipping(); err != nil {
		return nil, err
	}
	s.ledger = ledger{store: s.db, journal: s.db, head: audit.Head{Chain: chain}}
	if cfg.Deliver != nil {
		s.ledger.wake = s.shipping.wake
	}
	first, err := s.startEvent(others)
	if err != nil {
		return nil, err
	}
	if err := s.ledger.commit(ctx, &Change{}, []audit.Event{first}); err != nil {
		return nil, fmt.Errorf("begin audit chain %d: %w", chain, err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = cancel
	s.engine = newEngine(s)
	s.done.Go(func() { s.engine.run(run) })
	s.done.Go(func() { s.housekeep(run) })
	if cfg.Deliver != nil {
		s.done.Go(func() { s.ship(run) })
	}
	if cfg.AuditExpire {
		s.done.Go(func() { s.expire(run) })
	}
	return s, nil
}

func (c Config) withDefaults() Config {
	c.Sessions = c.Sessions.withDefaults()
	if c.Windows == (Windows{}) {
		c.Windows = DefaultWindows()
	}
	if c.Throttle == (Throttle{}) {
		c.Throttle = DefaultThrottle()
	}
	if c.Issuer == "" {
		c.Issuer = "watchword"
	}
	if c.BatchSize == 0 {
		c.BatchSize = 256
	}
	if c.Queue == 0 {
		c.Queue = 8192
	}
	if c.ClockSkew == 0 {
		c.ClockSkew = 5 * time.Second
	}
	if c.Checkpoint == 0 {
		c.Checkpoint = time.Minute
	}
	if c.AuditKeep == 0 {
		c.AuditKeep = 30 * 24 * time.Hour
	}
	if c.SinkLease == 0 {
		c.SinkLease = 30 * time.Second
	}
	if c.SinkPause == 0 {
		c.SinkPause = time.Second
	}
	if c.SinkAlarm == 0 {
		c.SinkAlarm = alarmAfter
	}
	if c.SinkClock == nil {
		c.SinkClock = wallClock{}
	}
	if c.Answer == 0 {
		c.Answer = 2 * time.Minute
	}
	if c.Location == nil {
		c.Location = time.UTC
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Close answers every attempt that was taken on, writes what is still to be
// audited and a last checkpoint, and stops. The database and the HSM stay open.
func (s *Service) Close(ctx context.Context) error {
	s.engine.close()
	s.stop()
	s.done.Wait()
	var errs []error
	if events := s.crowd.flush(s.cfg.Now(), true); len(events) > 0 {
		errs = append(errs, s.ledger.commit(ctx, &Change{}, events))
	}
	errs = append(errs, s.checkpoint(ctx, policy.ServerStop))
	s.flushKeyUse(ctx)
	return errors.Join(errs...)
}

// housekeep does what is due from time to time: aggregated audit records,
// checkpoints, abandoned imports, what was spent and has expired, API keys' last use.
func (s *Service) housekeep(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	lastCheckpoint, lastMinute := s.cfg.Now(), s.cfg.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := s.cfg.Now()
		if events := s.crowd.flush(now, false); len(events) > 0 {
			if err := s.ledger.commit(ctx, &Change{}, events); err != nil {
				s.crowd.restore(events)
				s.log.Warn("aggregated audit records could not be written yet", "error", err)
			}
		}
		if now.Sub(lastCheckpoint) >= s.cfg.Checkpoint {
			lastCheckpoint = now
			if err := s.checkpoint(ctx, policy.Checkpoint); err != nil {
				s.log.Warn("no audit checkpoint could be written", "error", err)
			}
		}
		if now.Sub(lastMinute) >= time.Minute {
			lastMinute = now
			s.flushKeyUse(ctx)
			if err := s.sweep(ctx, false); err != nil {
				s.log.Warn("abandoned imports could not be removed yet", "error", err)
			}
			if err := s.dropStatements(ctx, now); err != nil {
				s.log.Warn("keys that sign statements no more could not be destroyed yet", "error", err)
			}
			if err := s.forget(ctx, now); err != nil {
				s.log.Warn("what was spent and has expired could not be removed yet", "error", err)
			}
			if _, err := s.finishCuts(ctx, systemPrincipal()); err != nil {
				s.log.Warn("old audit records could not all be removed yet", "error", err)
			}
			if err := s.dropSessions(ctx, now); err != nil {
				s.log.Warn("sessions that expired long ago could not be removed yet", "error", err)
			}
		}
		s.refresh(ctx)
	}
}

// ping is a message whose MAC is asked for to see whether the HSM answers.
const ping = "watchword-ping"

// refresh asks the HSM and the database, while nobody else does, whether they
// answer, what the clock says and whether the registry changed.
func (s *Service) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := s.custody.MAC(ctx, hsm.KeyBinding, []byte(ping)); err != nil && s.custody.Ready() == nil {
		s.log.Warn("the HSM did not answer in time", "error", err)
	}
	before := s.cfg.Now()
	view, err := s.db.Load(ctx, nil)
	if ctx.Err() != nil && err == nil {
		return
	}
	s.noteDatabase(err)
	if err != nil {
		return
	}
	s.noteClock(view.Clock, before)
	if view.Generation != s.reg.Load().generation {
		if err := s.reloadRegistry(ctx); err != nil {
			s.log.Warn("clients and API keys could not be read anew", "error", err)
		}
	}
	s.retryPolicies(ctx)
}

func (s *Service) noteDatabase(err error) {
	down := err != nil
	if s.dbDown.Swap(down) == down {
		return
	}
	if down {
		s.log.Error("the database does not answer", "error", err)
	} else {
		s.log.Info("the database answers again")
	}
}

// noteClock compares our clock with the database's, read between before and
// now.
func (s *Service) noteClock(clock, before time.Time) {
	if clock.IsZero() {
		return
	}
	skew := s.cfg.ClockSkew
	off := clock.Before(before.Add(-skew)) || clock.After(s.cfg.Now().Add(skew))
	if s.skewed.Swap(off) == off {
		return
	}
	if off {
		s.log.Error("our clock and the database's differ: TOTP codes are refused until they agree",
			"database", clock, "here", before, "limit", skew)
	} else {
		s.log.Info("our clock and the database's agree again")
	}
}

// sweep removes abandoned imports.
func (s *Service) sweep(ctx context.Context, start bool) error {
	before := s.cfg.Now().Add(-10 * time.Minute)
	if start && s.cfg.Exclusive {
		before = s.cfg.Now().Add(time.Hour)
	}
	n, err := s.db.Sweep(ctx, before)
	if err != nil {
		return fmt.Errorf("remove abandoned imports: %w", err)
	}
	if n > 0 {
		s.log.Info("abandoned imports were removed", "batches", n)
	}
	return nil
}

// Problem is one reason why the server is not ready.
type Problem struct {
	Part string `json:"part"` // hsm, database, clock, policies
	Says string `json:"says"`
}

// Ready says what keeps the core from verifying; nothing means that it can.
func (s *Service) Ready() []Problem {
	var problems []Problem
	if err := s.custody.Ready(); err != nil {
		problems = append(problems, Problem{"hsm", err.Error()})
	}
	if s.dbDown.Load() {
		problems = append(problems, Problem{"database", "the database does not answer"})
	}
	if s.skewed.Load() {
		problems = append(problems, Problem{"clock", "our clock and the database's differ by more than " + s.cfg.ClockSkew.String() + ": set the clocks (NTP); TOTP codes are refused meanwhile"})
	}
	if live := s.reg.Load().policies; live.fault != nil {
		problems = append(problems, Problem{"policies", "the policies cannot be read, and everything is refused but to put them right, with an admin key for all realms: watchword policy rollback VERSION (" + live.fault.Error() + ")"})
	}
	return problems
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
