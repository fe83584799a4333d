package hsm

import (
	"context"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"time"
)

// KeyPGP is an RSA key pair that vendors encrypt whole files to, by OpenPGP. Like
// KeyTransport it is made only when an administrator asks for one. Its private
// half is private, sensitive and non-extractable and can do nothing but decrypt:
// OpenPGP knows only RSAES-PKCS1-v1_5 (RFC 9580, section 5.1.3), whose result is
// the session key of one file.
//
// The last four bytes of its CKA_ID are when it was made, in seconds since 1970,
// big-endian: OpenPGP hashes that time into a key's fingerprint, so it must be
// known as long as the key is.
const KeyPGP KeyName = "pgp"

// PGPKey is a PGP key that is attached.
type PGPKey struct {
	Version uint32
	Public  *rsa.PublicKey
	Made    time.Time // whole seconds, UTC
}

// PGPHolder opens what was encrypted to PGP keys. A Keystore may be one. All
// methods may be called concurrently, but CreatePGP, which belongs to the time
// before the server serves.
type PGPHolder interface {
	// CreatePGP makes a PGP key of so many bits (2048 to 4096, a multiple of
	// 1024; 0 is TransportBits) and says what to remember. It is in use once
	// Attach was called with its record too.
	CreatePGP(ctx context.Context, version uint32, bits int) (KeyRecord, error)

	// PGPKeys are the PGP keys that were attached, the newest first; none if
	// none was, which is no error.
	PGPKeys() []PGPKey

	// OpenPGP decrypts an encrypted session key, as long as the modulus, and
	// answers what IsPGPSession is true of; the caller wipes it. It fails with
	// ErrPGPSession, the same for every ciphertext that does not hold such a
	// thing, answered after a time that does not tell why; with ErrTransportLimit,
	// before anything is tried, if too many were wrong (see Attempts); with
	// ErrKeyMismatch if no such version is attached; and with ErrUnavailable.
	OpenPGP(ctx context.Context, version uint32, ciphertext []byte) ([]byte, error)
}

// ErrPGPSession: a ciphertext does not hold a session key. It is one and the same
// for all reasons, none of which may be told.
var ErrPGPSession = errors.New("it does not hold a session key that this PGP key opens")

// DatePGP writes into a CKA_ID when its PGP key was made. A vendor's clock that
// is a little behind must not refuse the key, so that is an hour before now; and
// it is after the time of each older key, since nothing else may tell the primary
// keys of two versions apart.
func DatePGP(id []byte, now time.Time, older []PGPKey) {
	made := now.Add(-time.Hour).Unix()
	for _, k := range older {
		made = max(made, k.Made.Unix()+1)
	}
	binary.BigEndian.PutUint32(id[len(id)-4:], uint32(made))
}

// PGPMade is when the PGP key with a CKA_ID was made.
func PGPMade(id []byte) time.Time {
	if len(id) < 4 {
		return time.Unix(0, 0).UTC()
	}
	return time.Unix(int64(binary.BigEndian.Uint32(id[len(id)-4:])), 0).UTC()
}

// pgpCiphers are the key lengths of OpenPGP's ciphers in bytes (RFC 9580, section
// 9.3).
var pgpCiphers = map[byte]int{2: 24, 3: 16, 4: 16, 7: 16, 8: 24, 9: 32, 10: 32, 11: 16, 12: 24, 13: 32}

// IsPGPSession says whether plain is a session key as OpenPGP encrypts it to RSA
// keys (RFC 9580, sections 5.1.1 and 5.1.2): the octet of a cipher, from version 6
// on omitted, a key, and the sum of the key's octets in two.
func IsPGPSession(plain []byte) bool {
	switch len(plain) {
	case 18, 26, 34:
		return sumsUp(plain)
	case 19, 27, 35:
		return pgpCiphers[plain[0]] == len(plain)-3 && sumsUp(plain[1:])
	}
	return false
}

func sumsUp(b []byte) bool {
	n := len(b) - 2
	var sum uint16
	for _, x := range b[:n] {
		sum += uint16(x)
	}
	return binary.BigEndian.Uint16(b[n:]) == sum
}
