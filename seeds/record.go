package seeds

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"watchword/hsm"
	"watchword/tokens"
)

// The lengths of seed that are imported, in bytes. RFC 4226, section 4 wants
// 16 at least (R6), but tokens with 10-byte seeds are common; a shorter one can
// be searched, and is more likely a mistake than a seed.
const (
	MinSeed = 10
	MaxSeed = 128
)

// MaxDrift is the largest clock drift that a file may state, in time steps to
// either side: a day of the usual 30 s steps.
const MaxDrift = 2880

// Record is one token of a seed file.
type Record struct {
	Line int // line that it stands on, from 1; zero where the format has no lines of its own
	Key  int // number of its key package in the file, from 1; zero where the format has none

	Serial    string
	Type      tokens.Type
	Algorithm hsm.Hash
	Digits    int
	Period    int    // TOTP: seconds of a time step; else zero
	Counter   uint64 // HOTP: next counter expected; else zero
	Drift     int    // TOTP: time steps that the token's clock is ahead
	Origin    int64  // TOTP: Unix time that its time steps count from, on a multiple of Period; zero as RFC 6238 has it
	Model     string // what the file says of manufacturer and model; may be empty

	// Expires is when the file says that the token's key is not to be used any more;
	// zero: never.
	Expires time.Time

	// User is whom the file names as the owner, and UserRealm where; they are a
	// hint, and bind nobody unless the import is asked to.
	User, UserRealm string

	// PublicID is what a YubiKey types before each Yubico OTP, in modhex, and
	// PrivateID what the OTP holds encrypted: 6 bytes in the clear, wiped with
	// the seed. Both are empty for other kinds of token.
	PublicID  string
	PrivateID []byte

	Seed []byte // in the clear; nil if Err is set

	// Transported is the seed as the vendor encrypted it to the transport key,
	// instead of Seed; only where OpenOptions allow it. Its length is not known
	// before it is in the HSM.
	Transported *hsm.Transported

	// Err says why this record cannot be imported, in words for people and
	// without any secret. The other fields are then what could be read.
	Err error
}

// Reader reads the records of one file. It is not safe for concurrent use.
type Reader interface {
	// Next answers the next record, or io.EOF after the last one. The record
	// and its seed are valid until the next call, which wipes the seed. Any
	// other error ends the file: a *FileError, or what the source failed with.
	Next() (*Record, error)
	// Close wipes what the reader still holds. It does not close the source.
	Close()
}

// FileError is what is wrong with a whole file, and where. It wraps
// tokens.ErrInvalid.
type FileError struct {
	Line   int    // from 1; zero if the place is not known
	Reason string // a sentence without any secret
}

// Error says the place and the reason.
func (e *FileError) Error() string {
	if e.Line == 0 {
		return e.Reason
	}
	return "line " + strconv.Itoa(e.Line) + ": " + e.Reason
}

// Unwrap makes a FileError an invalid input.
func (e *FileError) Unwrap() error { return tokens.ErrInvalid }

// reset empties r for the next record and wipes its seed.
func (r *Record) reset() {
	clear(r.Seed)
	clear(r.PrivateID)
	*r = Record{Seed: r.Seed[:0], PrivateID: r.PrivateID[:0]}
}

// fail makes r a bad record.
func (r *Record) fail(format string, args ...any) {
	clear(r.Seed)
	clear(r.PrivateID)
	r.Seed, r.PrivateID, r.Transported = r.Seed[:0], r.PrivateID[:0], nil
	r.Err = fmt.Errorf(format, args...)
}

// check says what is wrong with the values of r, or nil.
func (r *Record) check() error {
	if err := tokens.ValidSerial(r.Serial); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), tokens.ErrInvalid.Error()+": "))
	}
	switch {
	case r.Type == tokens.YubicoOTP:
		return r.checkYubico()
	case r.Type != tokens.TOTP && r.Type != tokens.HOTP:
		return errors.New("the type is neither totp nor hotp")
	case r.Algorithm.Size() == 0:
		return errors.New("the hash is not one of sha1, sha256 and sha512")
	case r.Digits < 6 || r.Digits > 8:
		return fmt.Errorf("codes of %d digits; 6, 7 and 8 are possible", r.Digits)
	case r.Type == tokens.TOTP && (r.Period < 1 || r.Period > 86400):
		return fmt.Errorf("a time step of %d s; 1 to 86400 are possible", r.Period)
	case r.Type == tokens.HOTP && r.Period != 0:
		return errors.New("an HOTP token with a time step")
	case r.Type == tokens.TOTP && r.Counter != 0:
		return errors.New("a TOTP token with a counter")
	case r.Counter > maxCounter:
		return fmt.Errorf("a counter greater than %d", uint64(maxCounter))
	case r.Type == tokens.HOTP && r.Drift != 0:
		return errors.New("an HOTP token with a clock drift")
	case r.Drift < -MaxDrift || r.Drift > MaxDrift:
		return fmt.Errorf("a clock drift of %d time steps; at most %d are possible", r.Drift, MaxDrift)
	case r.Origin != 0 && (r.Type != tokens.TOTP || r.Origin%int64(r.Period) != 0):
		return errors.New("a time origin that is not one of a TOTP token, or not on the beginning of a time step")
	case r.Origin < -maxOrigin || r.Origin > maxOrigin || r.Origin/int64(max(r.Period, 1)) > maxSteps || r.Origin/int64(max(r.Period, 1)) < -maxSteps:
		return errors.New("a time origin that is too far from 1970")
	case r.Transported != nil && len(r.Seed) == 0:
		return nil
	case len(r.Seed) < MinSeed:
		return fmt.Errorf("a seed of %d bytes; %d are the least (RFC 4226 wants 16 or more)", len(r.Seed), MinSeed)
	case len(r.Seed) > MaxSeed:
		return fmt.Errorf("a seed of %d bytes; %d are the most", len(r.Seed), MaxSeed)
	}
	return nil
}

// checkYubico is check for a token that makes Yubico OTPs.
func (r *Record) checkYubico() error {
	switch {
	case r.Transported != nil:
		return errors.New("the AES key is encrypted to a public key; only the seeds of HOTP and TOTP tokens are taken over from one")
	case len(r.Seed) != 16:
		return fmt.Errorf("an AES key of %d bytes; that of a Yubico OTP has 16", len(r.Seed))
	case len(r.PrivateID) != 6:
		return fmt.Errorf("a private id of %d bytes; that of a Yubico OTP has 6", len(r.PrivateID))
	case tokens.ValidPublicID(r.PublicID) != nil:
		return errors.New("the public id is not modhex of up to 32 characters")
	case r.Algorithm != hsm.AES128 || r.Digits != 0 || r.Period != 0 || r.Drift != 0 || r.Origin != 0 || r.Counter != 0:
		return errors.New("a Yubico OTP key with digits, a time step or a counter, which it does not have")
	}
	return nil
}

// deviceName is how a file names the kind of device by its maker and model, either
// of which may be empty: text in one line, of up to 255 bytes, which is what a
// token can have.
func deviceName(maker, model string) string {
	s := strings.TrimSpace(strings.TrimSpace(maker) + " " + strings.TrimSpace(model))
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 255 {
		s = strings.ToValidUTF8(s[:255], "")
	}
	return s
}

// identities are what a token that makes Yubico OTPs has besides its key, and
// nothing for others. The private id is copied to the end of arena.
func (r *Record) identities(arena *[]byte) (public string, private []byte) {
	if r.Type != tokens.YubicoOTP {
		return "", nil
	}
	start := len(*arena)
	*arena = append(*arena, r.PrivateID...)
	return r.PublicID, (*arena)[start:len(*arena):len(*arena)]
}

// drift is how many time steps the token's clock is ahead of one that counts
// from 1970.
func (r *Record) drift() int {
	if r.Origin == 0 {
		return r.Drift
	}
	return r.Drift - int(r.Origin/int64(r.Period))
}

// The farthest that a time origin may be from 1970: seconds (to 2106), and what
// the core takes as a drift, in time steps.
const (
	maxOrigin = 1 << 32
	maxSteps  = 999_000_000
)

// maxCounter leaves room for look-ahead below the largest signed number.
const maxCounter = 1<<62 - 1

// parseHash reads the name of an HMAC's digest in the spellings that vendors
// use: any letter case, sha1 or sha-1, with or without hmac before it. What it
// does not know is never taken for SHA-1.
func parseHash(name string) (hsm.Hash, bool) {
	s := strings.ToLower(strings.TrimSpace(name))
	s = strings.TrimLeft(strings.TrimPrefix(s, "hmac"), "-_")
	switch s {
	case "sha1", "sha-1":
		return hsm.SHA1, true
	case "sha256", "sha-256":
		return hsm.SHA256, true
	case "sha512", "sha-512":
		return hsm.SHA512, true
	}
	return 0, false
}

var bom = []byte("\xef\xbb\xbf")
