package softkey

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultAAGUID is the model that a Key says it is unless told otherwise: the
// letters "watchwordsoftkey".
const DefaultAAGUID = "77617463-6877-6f72-6473-6f66746b6579"

// Format is how a Key attests its credentials (WebAuthn §8).
type Format string

const (
	Packed     Format = "packed"      // by the vendor's batch key, with its chain
	Self       Format = "self"        // packed, signed by the credential itself
	U2F        Format = "fido-u2f"    // by the vendor's batch key; ES256 only
	TPM        Format = "tpm"         // a TPM 2.0 certify statement; not with EdDSA
	AndroidKey Format = "android-key" // a certificate for the credential, as Android's key store makes it
	Apple      Format = "apple"       // a certificate for the credential that holds the nonce
	None       Format = "none"        // not at all
)

// Options say what a Key is like. The zero value is a key with an increasing
// counter, packed attestation of a vendor of its own, no user verification and
// whatever algorithm the relying party likes best.
type Options struct {
	// AAGUID is the model, as a UUID. Empty: DefaultAAGUID, or zeros with the
	// format fido-u2f, as U2F has none.
	AAGUID string
	// Algorithm is that of its credentials. 0: the first of those that the
	// relying party offers and the Key knows.
	Algorithm Algorithm
	// Format is how credentials are attested. Empty: Packed.
	Format Format
	// Vendor made the key. Nil: one of its own. Keys that share one are made
	// much faster.
	Vendor *Vendor
	// Serial is the serial number that enterprise attestation tells, when the
	// relying party asks for it. Empty: the key has no enterprise attestation.
	Serial string
	// UserVerification: the key verifies its user by itself, as with a finger,
	// whenever that is not discouraged.
	UserVerification bool
	// Resident credentials are made also where the relying party prefers them,
	// not only where it requires them.
	Resident bool
	// Capacity is how many resident credentials there is room for. 0: 100.
	Capacity int
	// MaxListed is how many credentials may be in one allow or exclude list. 0: 64.
	MaxListed int
	// PINRetries is how many wrong PINs in all block the key, 1 to 8. 0: 8.
	PINRetries int
	// MinPINLength is how many characters a PIN must have, 4 to 63, until a
	// setting asks for more. 0: 4.
	MinPINLength int
	// ResetWithin is how long after it was plugged in the key takes a reset; it
	// is ten seconds where a real key has no display. 0: always.
	ResetWithin time.Duration
	// BackupEligible sets BE: its credentials can leave the key. BackedUp sets
	// BS; without BE that is a contradiction, and made all the same.
	BackupEligible bool
	BackedUp       bool
	// ZeroCounter: the key does not count signatures, it always answers 0.
	ZeroCounter bool
	// Transports are what registration reports. Nil: "usb".
	Transports []string
	// CTAP20: to libfido2 the key is an older one, that speaks CTAP 2.0: PIN
	// protocol 1, tokens without permissions, a PIN asked for whatever is made,
	// no settings. Otherwise it speaks CTAP 2.1.
	CTAP20 bool
	// Related are origins at which the browser lets any relying party be used: as
	// if each party's /.well-known/webauthn listed them.
	Related []string
	// Touch waits until the user touches the key: true once they did, false if
	// they declined. It returns when its context ends. Nil: the
	// user is quick.
	Touch func(context.Context) bool
}

// Key is a FIDO authenticator in software. All methods can be used by several
// goroutines at once.
type Key struct {
	o        Options
	aaguid   [16]byte
	vendor   *Vendor
	capacity int

	counter  atomic.Uint32
	backedUp atomic.Bool
	faults   atomic.Pointer[Faults]
	waiting  atomic.Bool // for the user's touch

	command sync.Mutex // held by the CTAP2 command that runs
	device  device

	mu       sync.RWMutex
	wrapping *wrapping
	resident map[string]*credential // by ID
	made     uint64                 // resident credentials so far
}

// New makes a key. Its error says which options do not go together.
func New(o Options) (*Key, error) {
	k := &Key{o: o, vendor: o.Vendor, capacity: o.Capacity, resident: make(map[string]*credential)}
	if k.o.Format == "" {
		k.o.Format = Packed
	}
	if k.capacity == 0 {
		k.capacity = 100
	}
	if k.o.MaxListed == 0 {
		k.o.MaxListed = 64
	}
	if k.o.PINRetries == 0 {
		k.o.PINRetries = pinRetries
	}
	if k.o.MinPINLength == 0 {
		k.o.MinPINLength = pinLeast
	}
	k.device.pin = k.newPINState()
	k.device.session.since = time.Now()
	if k.o.Transports == nil {
		k.o.Transports = []string{"usb"}
	}
	switch k.o.Format {
	case Packed, Self, AndroidKey, Apple, None, TPM:
	case U2F:
		if o.Algorithm == 0 {
			k.o.Algorithm = ES256
		}
	default:
		return nil, fmt.Errorf("softkey: %q is no attestation format that a key can make", o.Format)
	}
	known := k.o.Algorithm == 0
	for _, a := range algorithms {
		known = known || a == k.o.Algorithm
	}
	switch {
	case !known:
		return nil, fmt.Errorf("softkey: %v is not supported", o.Algorithm)
	case k.o.Format == U2F && k.o.Algorithm != ES256:
		return nil, fmt.Errorf("softkey: fido-u2f attests ES256 only, not %v", o.Algorithm)
	case k.o.Format == TPM && k.o.Algorithm == EdDSA:
		return nil, errors.New("softkey: a TPM 2.0 has no EdDSA")
	case k.o.Serial != "" && k.o.Format != Packed:
		return nil, fmt.Errorf("softkey: enterprise attestation is packed, not %s", k.o.Format)
	case k.o.PINRetries < 1 || k.o.PINRetries > pinRetries:
		return nil, fmt.Errorf("softkey: %d PIN retries: want 1 to %d", o.PINRetries, pinRetries)
	case k.o.MinPINLength < pinLeast || k.o.MinPINLength > pinMost:
		return nil, fmt.Errorf("softkey: a PIN of at least %d characters: want %d to %d", o.MinPINLength, pinLeast, pinMost)
	case k.o.MaxListed < 1 || k.o.MaxListed > mostElements:
		return nil, fmt.Errorf("softkey: %d credentials in a list: want 1 to %d", o.MaxListed, mostElements)
	case k.capacity < 0 || k.o.ResetWithin < 0:
		return nil, errors.New("softkey: neither the capacity nor the time for a reset can be negative")
	}
	switch {
	case o.AAGUID != "":
		if err := parseAAGUID(&k.aaguid, o.AAGUID); err != nil {
			return nil, err
		}
	case k.o.Format != U2F:
		if err := parseAAGUID(&k.aaguid, DefaultAAGUID); err != nil {
			return nil, err
		}
	}
	var err error
	if k.vendor == nil {
		if k.vendor, err = NewVendor("Watchword Software Keys"); err != nil {
			return nil, err
		}
	}
	if k.wrapping, err = newWrapping(); err != nil {
		return nil, err
	}
	k.backedUp.Store(o.BackedUp)
	return k, nil
}

func parseAAGUID(to *[16]byte, s string) error {
	digits := strings.ReplaceAll(s, "-", "")
	if n, err := hex.Decode(to[:], []byte(digits[:min(len(digits), 32)])); err != nil || n != len(to) || len(digits) != 32 {
		return fmt.Errorf("softkey: %q is no AAGUID: want a UUID of 32 hexadecimal digits", s)
	}
	return nil
}

// AAGUID is the model as a UUID.
func (k *Key) AAGUID() string {
	h := hex.EncodeToString(k.aaguid[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// Root is the certificate that the key's attestation chains to.
func (k *Key) Root() *x509.Certificate { return k.vendor.Root() }

// RootPEM is Root in PEM.
func (k *Key) RootPEM() []byte { return k.vendor.RootPEM() }

// Vendor is who made the key.
func (k *Key) Vendor() *Vendor { return k.vendor }

// SetCounter has the key answer n at its next signature, and count on from
// there: what a copy does that was used less than the original.
func (k *Key) SetCounter(n uint32) { k.counter.Store(n - 1) }

// SetBackedUp changes BS, as when a synced credential is backed up later.
func (k *Key) SetBackedUp(b bool) { k.backedUp.Store(b) }

// Clone is a copy of the key as it is now, with the same credentials, that
// counts on its own from here: what a counter is there to find.
func (k *Key) Clone() *Key {
	k.command.Lock()
	defer k.command.Unlock()
	k.mu.RLock()
	defer k.mu.RUnlock()
	c := &Key{o: k.o, aaguid: k.aaguid, vendor: k.vendor, capacity: k.capacity, wrapping: k.wrapping, made: k.made}
	c.device.pin = k.device.pin
	c.resident = make(map[string]*credential, len(k.resident))
	for id, r := range k.resident {
		c.resident[id] = r
	}
	c.counter.Store(k.counter.Load())
	c.backedUp.Store(k.backedUp.Load())
	return c
}

func (k *Key) count() uint32 {
	if k.o.ZeroCounter {
		return 0
	}
	return k.counter.Add(1)
}
