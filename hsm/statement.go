package hsm

import (
	"context"
	"crypto/ecdsa"
)

// KeyStatement is an ECDSA P-256 key pair that signs statements for applications.
// There are several versions at a time, since applications must know the next one
// before it signs and the last one after it did; so unlike KeyNames they come and
// go while the server serves, and Provisioner.Attach does not take them. The
// private half is private, sensitive and non-extractable and can do nothing but
// sign.
const KeyStatement KeyName = "statement"

// StatementKey is a statement key that is attached.
type StatementKey struct {
	Version uint32
	Public  *ecdsa.PublicKey
}

// StatementKeys makes statement keys and signs with them. A signature proves that
// this HSM made it: nobody else can, whatever they read of the database, a backup
// or this process's memory. When a statement key signs, and how long it is
// believed, is up to the caller.
//
// All methods may be called concurrently, with each other and with those of
// Keystore, once Attach was called; what other calls have under way goes on, and
// no cached handle is given up. They fail with ErrUnavailable while the HSM cannot
// answer. Keys that are attached stay so when the HSM was lost and is back, and
// when Attach is called again.
type StatementKeys interface {
	// CreateStatement makes a key with a new random CKA_ID and says what to
	// remember. Other calls may wait meanwhile. It signs once AttachStatement was
	// called with its record.
	CreateStatement(ctx context.Context, version uint32) (KeyRecord, error)

	// AttachStatement finds the recorded keys in the HSM and proves them by their
	// check values: from then on these are attached, and no others. If one is
	// missing or is another, the rest are attached all the same, and the error
	// wraps ErrKeyMismatch and names it; after any other error those attached
	// before are. No two records have the same version.
	AttachStatement(ctx context.Context, keys []KeyRecord) error

	// StatementKeys are the keys that are attached, the newest first.
	StatementKeys() []StatementKey

	// SignStatement signs a SHA-256 digest; the signature is r and s, 32 bytes
	// each (RFC 7518, section 3.4). It is proven under the public key before it is
	// answered. It fails with ErrKeyMismatch if no such version is attached.
	SignStatement(ctx context.Context, version uint32, digest []byte) ([]byte, error)

	// DestroyStatement destroys a key for good; it is attached no more. Destroying
	// one that is not there is no error, so that it may be called again.
	DestroyStatement(ctx context.Context, key KeyRecord) error
}
