package hsm

import (
	"context"
	"crypto"
	"encoding/binary"
	"errors"
)

// Hash names the digest of an HMAC (RFC 2104): SHA-1 for HOTP and the usual
// TOTP, SHA-256 and SHA-512 for TOTP (RFC 6238, section 1.2).
type Hash uint8

// The digests. Their numbers are stored and bound: they never change.
const (
	SHA1   Hash = 1
	SHA256 Hash = 2
	SHA512 Hash = 3
)

// AES128 stands in a digest's place where the seed is no HMAC key but an AES-128
// key, for Decrypter. It has no size, so nothing is ever hashed with such a seed;
// and since it is bound like a digest, no HMAC key can be made to decrypt.
const AES128 Hash = 16

// Size is the digest's length in bytes, and so the length of the HMAC; zero
// for an unknown digest.
func (h Hash) Size() int {
	switch h {
	case SHA1:
		return 20
	case SHA256:
		return 32
	case SHA512:
		return 64
	}
	return 0
}

// BlockSize is the digest's block length in bytes: the longest HMAC key that
// is used as it stands (RFC 2104, section 2); zero for an unknown digest.
func (h Hash) BlockSize() int {
	switch h {
	case SHA1, SHA256:
		return 64
	case SHA512:
		return 128
	}
	return 0
}

// String is the digest's usual name: sha1, sha256, sha512; or aes128.
func (h Hash) String() string {
	switch h {
	case SHA1:
		return "sha1"
	case SHA256:
		return "sha256"
	case SHA512:
		return "sha512"
	case AES128:
		return "aes128"
	}
	return "unknown"
}

// Seed is a plaintext seed on its way into the HSM, during import and nowhere
// else. The caller wipes Bytes after Wrap has returned.
type Seed struct {
	Hash  Hash   // the HMAC that the seed is for; it decides the padding. Or AES128
	Bytes []byte // 1 to 1024 bytes, not padded; 16 for AES128
}

// Wrapped is a seed wrapped under a KEK, as the database stores it.
type Wrapped struct {
	Mechanism string // how it was wrapped; "aes-kwp" is AES Key Wrap with Padding (RFC 5649)
	KEK       uint32 // version of the KEK
	Hash      Hash   // the HMAC that the seed was padded for, or AES128
	SeedLen   uint16 // true length in bytes, before padding
	Blob      []byte // the wrapped bytes
}

// Sealed is a wrapped seed together with the database row that it belongs to.
// A Keystore opens it only if Binding is right, so a row that was edited, or a
// seed that was moved to another row, is refused.
type Sealed struct {
	Wrapped
	Row     []byte // the canonical encoding of the bound columns
	Binding []byte // MAC(KeyBinding, Message())
}

// Message is what Binding is computed over: the row and every field of
// Wrapped, each preceded by its length.
func (s *Sealed) Message() []byte {
	return s.AppendMessage(make([]byte, 0, len(s.Row)+len(s.Mechanism)+len(s.Blob)+32))
}

// AppendMessage appends Message to b.
func (s *Sealed) AppendMessage(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Row)))
	b = append(b, s.Row...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Mechanism)))
	b = append(b, s.Mechanism...)
	b = binary.BigEndian.AppendUint32(b, s.KEK)
	b = append(b, byte(s.Hash))
	b = binary.BigEndian.AppendUint16(b, s.SeedLen)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.Blob)))
	return append(b, s.Blob...)
}

// Job asks for HMACs of several moving factors under one sealed seed.
type Job struct {
	Key     *Sealed
	Factors []uint64 // each is hashed as 8 bytes, big-endian (RFC 4226, section 5.1), in this order

	// Stop, if not nil, is asked after each HMAC; when it answers true the
	// remaining factors are skipped. It must be quick, must not keep mac, and
	// judges nothing: only MACs of a job without Err may be judged.
	Stop func(i int, mac []byte) bool

	MACs [][]byte // set by HMAC: one for each factor computed, in order
	Err  error    // set by HMAC: why this job has no MACs (ErrTampered, ErrUnavailable, ...)
}

// KeyName names one of the HSM's long-lived keys by what it is for.
type KeyName string

// The HSM's long-lived keys. All are private, sensitive and non-extractable.
const (
	KeyKEK     KeyName = "kek"     // AES-256; wraps and unwraps seeds, nothing else
	KeyBinding KeyName = "binding" // HMAC-SHA256; binds a wrapped seed to its row
	KeyPIN     KeyName = "pin"     // HMAC-SHA256; PINs, and what else is too short to be left with a plain hash
	KeySecrets KeyName = "secrets" // AES-256-GCM; RADIUS and webhook secrets
	KeyAudit   KeyName = "audit"   // ECDSA P-256; signs audit checkpoints
)

// KeyNames lists the long-lived keys that a server needs.
func KeyNames() []KeyName {
	return []KeyName{KeyKEK, KeyBinding, KeyPIN, KeySecrets, KeyAudit}
}

// KeyRecord is what the database remembers of an HSM key, so that a module
// that was pointed elsewhere is noticed and never quietly gets new keys.
type KeyRecord struct {
	Name    KeyName
	Version uint32
	ID      []byte // CKA_ID
	Check   []byte // check value: depends on the key's bytes, does not reveal them
}

// Keystore keeps seeds in an HSM. All methods may be called concurrently.
//
// Every method fails with an error that wraps ErrUnavailable while the HSM
// cannot answer; the Keystore recovers by itself, and the call may be made
// again. A wrong or locked PIN wraps ErrPIN and is never retried by itself.
type Keystore interface {
	// Wrap wraps seeds under the newest KEK and answers in their order, all or
	// nothing. A seed is padded with zeros first, to its digest's length and to
	// a multiple of eight bytes, one longer than its block hashed before: HMAC
	// does the same with its key (RFC 2104, section 2), so the codes are those
	// of the seed. An AES128 seed is wrapped as it stands. Work under Bulk(ctx)
	// gives way to other work.
	Wrap(ctx context.Context, seeds []Seed) ([]Wrapped, error)

	// HMAC runs the jobs and sets MACs or Err of each: ErrTampered if Binding
	// does not belong to Row and Wrapped, ErrUnavailable if the HSM failed, also
	// when it failed between two HMACs. It returns an error only if nothing was
	// done at all; then every job's Err is that error. An HMAC that was computed
	// with a handle of before a recovery never reaches MACs.
	HMAC(ctx context.Context, jobs []*Job) error

	// MAC computes HMAC-SHA256 of each message under KeyBinding or KeyPIN.
	MAC(ctx context.Context, key KeyName, messages ...[]byte) ([][]byte, error)

	// Ready answers nil if the HSM answered last time and is not in recovery.
	// It costs no round trip.
	Ready() error

	// Close ends all sessions. Calls under way finish first.
	Close() error
}

// Sealer encrypts small secrets that the server must have back, under
// KeySecrets (AES-256-GCM, random nonce). What was sealed with one context
// cannot be opened with another; ErrTampered says so.
type Sealer interface {
	Seal(ctx context.Context, plaintext, context []byte) ([]byte, error)
	Open(ctx context.Context, sealed, context []byte) ([]byte, error)
}

// Signer signs with KeyAudit: ECDSA P-256 over a SHA-256 digest, signature as
// r and s of 32 bytes each.
type Signer interface {
	Sign(ctx context.Context, digest []byte) ([]byte, error)
	PublicKey() crypto.PublicKey
}

// Provisioner makes and finds the long-lived keys. It is used once at start,
// under the database's migration lock, before any other method.
type Provisioner interface {
	// Create makes a key with a new random CKA_ID and says what to remember.
	Create(ctx context.Context, name KeyName, version uint32) (KeyRecord, error)

	// Attach finds each recorded key and proves it by its check value; it must
	// be called with the full set. It fails with ErrKeyMismatch, naming the key,
	// if one is missing or is another; nothing is ever made here.
	Attach(ctx context.Context, keys []KeyRecord) error

	// SelfTest runs the RFC 4226 and RFC 6238 vectors with all three digests
	// through Wrap and HMAC, one of FIPS 197 through Decrypt if the HSM has AES,
	// and an altered binding that must be refused.
	SelfTest(ctx context.Context) error
}

// The errors that callers tell apart, with errors.Is.
var (
	// ErrUnavailable: the HSM cannot answer now; trying again later is right.
	ErrUnavailable = errors.New("the HSM does not answer")
	// ErrTampered: a sealed seed or secret does not belong to its row.
	ErrTampered = errors.New("the wrapped seed does not belong to this row")
	// ErrPIN: the HSM refused the PIN, or has locked it. Never retried.
	ErrPIN = errors.New("the HSM refused the PIN")
	// ErrKeyMismatch: a recorded key is not in the HSM, or is another one.
	ErrKeyMismatch = errors.New("the HSM does not hold the keys of this database")
	// ErrUnsupported: the HSM lacks a mechanism that is needed.
	ErrUnsupported = errors.New("the HSM lacks a mechanism")
)

type bulkKey struct{}

// Bulk marks the work done under ctx as bulk work, such as an import's: it
// gives way to all other work on the HSM.
func Bulk(ctx context.Context) context.Context {
	return context.WithValue(ctx, bulkKey{}, true)
}

// IsBulk says whether ctx was marked by Bulk.
func IsBulk(ctx context.Context) bool {
	v, _ := ctx.Value(bulkKey{}).(bool)
	return v
}
