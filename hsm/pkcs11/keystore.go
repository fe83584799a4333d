// Package pkcs11 keeps seeds in any PKCS#11 module: the adapter behind
// hsm.Keystore.
//
// # Who owns what
//
//	process    modules       one *module for each library path; C_Initialize, C_Finalize, epoch
//	Keystore   *generation   slot, sessions, key handles, handle cache: all that a lost HSM takes along
//	           worker 0..n-1 one goroutine and one session of the generation each; only it uses that session
//	           anchor        a session that nothing works on; it keeps the login alive
//	           recovery      at most one goroutine; makes the next generation
//	           turnover      at most one goroutine; puts a new generation in the place of one that is well
//
// Work reaches the HSM as tasks. A task belongs to the generation in which it
// was submitted, or the one that a turnover puts in its place, and is run by a worker, which holds module.inside meanwhile. The
// caller waits for the task, for its own context, and for the end of the
// generation, whichever comes first, so a call that hangs in the HSM holds up
// nobody but its worker. A task whose caller has left writes only to memory of
// its own.
package pkcs11

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// Config says which HSM to use and how.
type Config struct {
	// Module is the path of the PKCS#11 library. FindSoftHSM finds SoftHSM's.
	Module string

	// InitArgs are library parameters passed to C_Initialize where the
	// specification has pReserved. Only NSS is known to want any.
	InitArgs string

	// TokenLabel, Serial and Slot choose the token; those that are set must all
	// fit exactly one. Slot numbers may change when a module starts anew: prefer
	// the others.
	TokenLabel string
	Serial     string
	Slot       *uint

	// PIN supplies the user PIN at each login; the slice is wiped after use.
	// FixedPIN makes one. Nil for a token that asks for no login.
	PIN func() ([]byte, error)

	// Sessions is how many sessions work, and so how many operations run at
	// once. The last one does the bulk work, and other work only with Spread or
	// if it is the only one. Default 2, which suits SoftHSM: it computes 64,000
	// HMACs a second in one session and 46,000 in two. An HSM on the network
	// gains from more, up to what it allows.
	Sessions int

	// Spread divides the jobs of one HMAC call among the sessions. It helps
	// where the round trip to the HSM is what costs, and hurts with SoftHSM.
	Spread bool

	// Handles is how many unwrapped seeds stay in the HSM as session keys.
	// Default 100,000; real HSMs hold fewer, and SoftHSM takes about 9 KB of
	// this process's memory for each. Negative: none.
	Handles int

	// Mechanism is how seeds are wrapped: "auto" (or empty), "aes-kwp" (only
	// 0x210B, CKM_AES_KEY_WRAP_KWP), or a mechanism's number such as
	// "0x8000016f", for modules with a number of their own.
	Mechanism string

	// StuckAfter is how long one call into the HSM may take before Ready
	// reports it and other callers are told that the HSM does not answer.
	// Default 5 s.
	StuckAfter time.Duration

	// Probe is how often the HSM is asked for a MAC while nothing else is asked
	// of it, so that Ready knows of an HSM that was lost in a quiet night.
	// Default 10 s; negative: never.
	Probe time.Duration

	// Turnover is after how many session keys made and destroyed the module is
	// finalised and initialised anew, which gives back the memory that SoftHSM
	// keeps of each (some 200 bytes of this process). Calls wait meanwhile, 20 to
	// 40 ms and up to a quarter of a second with 100,000 cached handles, which are
	// forgotten; so it is put off until twice as many keys were destroyed as
	// handles are cached, and while another Keystore in the process uses the
	// module. Default 50,000 with SoftHSM and never with other modules; negative:
	// never.
	Turnover int

	// Turning, if not nil, is called before a turnover while calls still go on,
	// and what it answers when the turnover has ended, well or not. If it fails
	// the turnover is put off.
	Turning func() (turned func(), err error)

	// Logger hears of losses and recoveries. Default slog.Default().
	Logger *slog.Logger
}

// FixedPIN is a Config.PIN that always answers a copy of pin.
func FixedPIN(pin []byte) func() ([]byte, error) {
	pin = append([]byte(nil), pin...)
	return func() ([]byte, error) { return append([]byte(nil), pin...), nil }
}

func (c *Config) setDefaults() {
	if c.Sessions <= 0 {
		c.Sessions = 2
	}
	if c.Handles == 0 {
		c.Handles = 100_000
	}
	if c.StuckAfter <= 0 {
		c.StuckAfter = 5 * time.Second
	}
	if c.Probe == 0 {
		c.Probe = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
}

// A Keystore is an hsm.Keystore, hsm.Decrypter, hsm.Generator, hsm.Sealer,
// hsm.Signer, hsm.Provisioner, hsm.StatementKeys, hsm.Transporter and hsm.PGPHolder on
// a PKCS#11 token.
type Keystore struct {
	config Config
	log    *slog.Logger
	m      *module

	urgent  chan *task
	bulk    chan *task
	waiting atomic.Int64  // urgent tasks submitted and not done
	idle    chan struct{} // hint that waiting became zero
	stop    chan struct{} // closed by Close
	workers []*worker
	wg      sync.WaitGroup // workers, watchdog, recovery

	gen atomic.Pointer[generation] // nil while the HSM is lost, and after Close

	attempts    hsm.Attempts // at RSA-1_5 with the transport keys
	pgpAttempts hsm.Attempts // with the PGP keys

	mu         sync.Mutex          // guards what follows, and changes of gen
	records    []hsm.KeyRecord     // as attached
	public     *ecdsa.PublicKey    // of the audit key, as attached
	transport  []hsm.TransportKey  // as attached
	pgp        []hsm.PGPKey        // as attached
	statements []attachedStatement // the newest first; replaced whole
	cause      error               // why gen is nil
	closed     bool
	number     uint64
	rebuilt    time.Time // when the last recovery ended
	turning    bool      // a turnover is under way
	putOff     time.Time // no turnover before
}

// A generation is everything that is lost when the HSM or its connection is:
// handles are used only within the generation that they were made in.
type generation struct {
	number   uint64
	epoch    uint64 // the module's
	slot     uint
	anchor   conn
	sessions []conn
	profile  *profile
	keys     *keyset // nil until keys were attached
	cache    *cache
	down     chan struct{} // closed when the generation is lost; a turnover hands it on
}

// errClosed is what calls after Close get.
var errClosed = fmt.Errorf("%w: the keystore is closed", hsm.ErrUnavailable)

// Open loads the module, finds the token, logs in and finds out which
// mechanisms to use. Keys are attached afterwards. It fails with hsm.ErrPIN if
// the HSM refuses the PIN, and hsm.ErrUnsupported if it lacks a mechanism.
func Open(ctx context.Context, config Config) (*Keystore, error) {
	config.setDefaults()
	k := &Keystore{
		config: config,
		log:    config.Logger,
		urgent: make(chan *task),
		bulk:   make(chan *task),
		idle:   make(chan struct{}, 1),
		stop:   make(chan struct{}),
	}
	for i := range config.Sessions {
		w := &worker{k: k, index: i, urgent: k.urgent}
		if i == config.Sessions-1 {
			w.bulk = k.bulk
			if i > 0 && !config.Spread {
				w.urgent = nil
			}
		}
		k.workers = append(k.workers, w)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("open PKCS#11 token: %w", context.Cause(ctx))
	}
	opened := make(chan error, 1)
	go func() { opened <- k.open() }()
	select {
	case err := <-opened:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		// The HSM may answer yet; what it opens then is closed again.
		go func() {
			if err := <-opened; err == nil {
				k.m.inside.Lock()
				if g := k.gen.Load(); g.epoch == k.m.epoch {
					g.close()
				}
				k.m.inside.Unlock()
				k.m.release()
			}
		}()
		return nil, fmt.Errorf("open PKCS#11 token: %w", context.Cause(ctx))
	}
	for _, w := range k.workers {
		k.wg.Go(w.work)
	}
	k.wg.Go(k.watch)
	if config.Probe > 0 {
		k.wg.Go(k.probe)
	}
	return k, nil
}

// open makes the first generation.
func (k *Keystore) open() error {
	m, err := acquireModule(k.config.Module, k.config.InitArgs)
	if err != nil {
		return err
	}
	k.m = m
	g, err := k.first()
	if err != nil {
		m.release()
		return err
	}
	k.gen.Store(g)
	return nil
}

// firstAttempts is how often a passing error is met at start before it is
// believed.
const firstAttempts = 8

// first makes the first generation. Errors that pass by themselves are waited
// out: SoftHSM answers so while another process, such as a second node on the
// same token, logs in and writes the token's file. If it reads that file half
// written when it is initialised, it has no such token until it is initialised
// again. A PIN is never tried twice.
func (k *Keystore) first() (g *generation, err error) {
	for attempt := 1; ; attempt++ {
		k.m.inside.Lock()
		g, err = k.build(nil)
		missing := errors.Is(err, errNoToken)
		if missing && k.m.users == 1 && attempt < firstAttempts {
			if failed := k.m.reset(); failed != nil {
				err = failed
			}
		}
		k.m.inside.Unlock()
		if attempt == firstAttempts || errors.Is(err, hsm.ErrPIN) ||
			!missing && !isRV(err, pkcs11.CKR_GENERAL_ERROR, pkcs11.CKR_TOKEN_NOT_RECOGNIZED) {
			return g, err
		}
		k.log.Warn("hsm: not open yet; trying again", "cause", err, "attempt", attempt)
		time.Sleep(time.Duration(attempt) * firstRetry)
	}
}

// Ready answers nil if keys are attached, the HSM answered last time, no call
// hangs and no recovery is under way.
func (k *Keystore) Ready() error {
	g := k.gen.Load()
	if g == nil {
		return k.why()
	}
	if g.keys == nil {
		return unavailable(errNotAttached)
	}
	return nil
}

var errNotAttached = errors.New("no keys are attached")

// why says why there is no generation.
func (k *Keystore) why() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return errClosed
	}
	return unavailable(k.cause)
}

// Close ends all sessions. Calls under way finish first, in the HSM too; later
// ones fail.
func (k *Keystore) Close() error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return nil
	}
	k.closed = true
	k.mu.Unlock()
	close(k.stop)
	k.wg.Wait()
	k.m.inside.Lock()
	if g := k.gen.Swap(nil); g != nil {
		if g.epoch == k.m.epoch {
			g.close()
		}
		close(g.down)
	}
	k.m.inside.Unlock()
	k.m.release()
	return nil
}
