package hsm

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
)

// KeyTransport is an RSA key pair that vendors encrypt seeds to. It is made only
// when an administrator asks for one, so unlike KeyNames it may be missing from
// the records that Attach gets. Its private half is private, sensitive and
// non-extractable and can do nothing but unwrap keys: it neither decrypts nor
// signs, not even its own certificate (see IssueTransport).
const KeyTransport KeyName = "transport"

// The sizes of a transport key in bits.
const (
	TransportBits    = 3072 // where none is asked for
	MinTransportBits = 2048
	MaxTransportBits = 4096
)

// TransportMechanism says how a seed was encrypted to the transport key.
type TransportMechanism string

// The ways to encrypt to the transport key.
const (
	TransportOAEP  TransportMechanism = "rsa-oaep" // RSAES-OAEP (RFC 8017, section 7.1)
	TransportPKCS1 TransportMechanism = "rsa-1_5"  // RSAES-PKCS1-v1_5 (RFC 8017, section 7.2)
)

// Transported is a seed that its vendor encrypted to the transport key.
type Transported struct {
	Mechanism TransportMechanism

	// OAEPHash and MGFHash are OAEP's digest and that of its mask generation
	// function, and Label its label (OAEPparams). A zero OAEPHash or MGFHash is
	// SHA-1, as in XML Encryption. RSA-1_5 has none of the three.
	OAEPHash, MGFHash crypto.Hash
	Label             []byte

	Hash       Hash   // the HMAC that the seed is for; it decides the padding
	Ciphertext []byte // as long as the transport key's modulus

	// MAC authenticates Ciphertext. Nil: nothing does.
	MAC *TransportMAC
}

// TransportMAC is a MAC over the ciphertext of a seed. Its key is encrypted to
// the same transport key as the seed, by the same mechanism. Whoever has the
// public key can make one, so it proves that nothing was altered or damaged on
// its way, and not who made it.
type TransportMAC struct {
	// How Key is encrypted, where the mechanism is OAEP; as in Transported.
	OAEPHash, MGFHash crypto.Hash
	Label             []byte

	Key   []byte      // ciphertext, as long as the transport key's modulus
	Hash  crypto.Hash // of the HMAC: SHA-1, SHA-224, SHA-256, SHA-384 or SHA-512
	Value []byte      // HMAC of Transported.Ciphertext in full: one that was cut short is wrong
}

// MinTransportMAC is the shortest key of a TransportMAC that is believed, in
// bytes: a shorter one could be guessed, and a right guess would tell of an
// RSA-1_5 ciphertext what it holds.
const MinTransportMAC = 10

// TransportPath says which way a seed went from the vendor's file to the KEK.
type TransportPath string

// The ways of a seed.
const (
	PathHSM  TransportPath = "hsm"  // unwrapped and wrapped inside the HSM
	PathHost TransportPath = "host" // it, or its MAC's key, through this process's memory, wiped at once
)

// TransportOptions say what Rewrap may do.
type TransportOptions struct {
	// To is the public key that the seeds were encrypted to, as the vendor's
	// file names it. Nil: the newest transport key.
	To *rsa.PublicKey

	// AllowHost lets a seed that this HSM cannot pad inside, and a MAC's key that
	// it cannot compute with, travel through the memory of this process. Without
	// it such a seed is refused.
	AllowHost bool

	// AllowPKCS1 lets RSA-1_5 be used. Every answer about such a ciphertext, if
	// only that it failed, helps to decrypt others (Bleichenbacher's attack).
	AllowPKCS1 bool
}

// Rewrapped is what became of a Transported.
type Rewrapped struct {
	Wrapped               // as Keystore.Wrap would have made it; empty with Err
	Path    TransportPath // how the seed travelled; empty with Err
	Err     error         // why it could not be taken over
}

// TransportKey is a transport key that is attached.
type TransportKey struct {
	Version uint32
	Public  *rsa.PublicKey
}

// Transporter takes over seeds that were encrypted to a key pair made in the
// HSM. A Keystore may be one. All methods may be called concurrently, but
// CreateTransport, which belongs to the time before the server serves.
type Transporter interface {
	// CreateTransport makes a transport key of so many bits (2048 to 4096, a
	// multiple of 1024; 0 is TransportBits) with a new random CKA_ID and says
	// what to remember. It is in use once Attach was called with its record too.
	CreateTransport(ctx context.Context, version uint32, bits int) (KeyRecord, error)

	// TransportKeys are the transport keys that were attached, the newest first;
	// none if none was, which is no error.
	TransportKeys() []TransportKey

	// Rewrap unwraps each seed into the HSM and wraps it under the newest KEK
	// there. It answers in the order of items, each with a Wrapped of its own or
	// an Err of its own. What was wrapped inside the HSM was proven to compute the
	// same HMAC as the seed that came out of the ciphertext, and no byte of that
	// seed was in this process's memory outside the HSM's module. Nothing of a
	// seed stays in the HSM: temporary objects are destroyed, however it ends.
	// Where a seed has a MAC, the MAC's key is unwrapped into the HSM too, and no
	// seed is unwrapped before its MAC was right.
	//
	// An Err wraps ErrTransport if the ciphertext does not give a seed,
	// ErrTransportMAC if its MAC is wrong, ErrUnsupported if the HSM cannot do what
	// the seed or its MAC needs (and ErrNeedsHost if AllowHost would help), ErrPKCS1
	// without AllowPKCS1, and ErrTransportLimit if too many RSA-1_5 ciphertexts were
	// wrong. For RSA-1_5 every failure that depends on the ciphertext, on the MAC or
	// on its key is the same ErrTransport, answered after a time that does not tell
	// one from another, and counts as one wrong ciphertext; and a seed is only one
	// of 10, 16, 20, 24, 32, 48 or 64 bytes: HSMs that resist the attack answer a
	// wrong ciphertext with random bytes of random length, never with an error. So
	// an RSA-1_5 seed without a MAC over it may still be one that nobody has.
	//
	// Rewrap fails as a whole, with nothing to be used, with ErrUnavailable, with
	// ErrNoTransportKey, or with ErrKeyMismatch if To is not a key that is
	// attached. Work under Bulk(ctx) gives way to other work.
	Rewrap(ctx context.Context, items []Transported, options TransportOptions) ([]Rewrapped, error)
}

// The errors of a Transporter.
var (
	// ErrTransport: a ciphertext does not give a seed under the transport key.
	// It is one and the same for all reasons, none of which may be told.
	ErrTransport = errors.New("it cannot be unwrapped: it was encrypted to another key or in another way, was altered, or does not hold a seed that this HSM can take over")
	// ErrTransportMAC: the MAC of a seed is wrong. It is the same for a MAC that
	// does not fit and for a MAC key that does not come out of its ciphertext.
	ErrTransportMAC = errors.New("its MAC is wrong: the seed, its MAC or the MAC key was altered or damaged, or the MAC key was encrypted to another key or in another way")
	// ErrTransportLimit: too many RSA-1_5 ciphertexts were wrong, of seeds or of
	// the session keys of PGP messages.
	ErrTransportLimit = errors.New("too much that is encrypted with RSA-1_5 could not be opened")
	// ErrPKCS1: RSA-1_5 was not allowed.
	ErrPKCS1 = errors.New("it was encrypted with RSA-1_5, which is off unless it is asked for by name: ask the vendor for RSA-OAEP")
	// ErrNeedsHost: with AllowHost the seed could be taken over. It comes with
	// ErrUnsupported.
	ErrNeedsHost = errors.New("it could only travel through this server's memory, if that is allowed")
	// ErrNoTransportKey: no transport key was made or attached.
	ErrNoTransportKey = errors.New("there is no transport key in the HSM")
)
