package tokens

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"watchword/hsm"
)

// Type is the kind of a token.
type Type string

// The types of tokens that show or type codes.
const (
	TOTP      Type = "totp"   // RFC 6238
	HOTP      Type = "hotp"   // RFC 4226
	YubicoOTP Type = "yubico" // a YubiKey's own codes, encrypted by AES
)

// The types of tokens that are written down: passcodes.
const (
	Recovery  Type = "recovery"  // a sheet of codes, each good once
	Temporary Type = "temporary" // one code in the place of a lost token, good for a while and for some uses
)

// State is where a token stands in its life.
type State string

// The states of a token, and how it moves between them:
//
//	imported -> active             by assigning, or in the place of a token that is replaced
//	imported -> pending            the same where the rules ask for two codes first; a software token begins here
//	pending  -> active             by two consecutive codes
//	active  <-> suspended          suspend, resume
//	active, suspended -> lost      lost; back to active by resume with a reason
//	pending, active, suspended, lost -> imported  by unassigning; not a software token or a passcode
//	any      -> revoked            by revoking, or by being replaced: final, the wrapped seed and the passcodes are destroyed
//
// Passcodes begin active; a temporary one is revoked when its owner has a token again
// that works. A token that has expired stays in its state, and nothing of it is accepted.
const (
	Imported  State = "imported"
	Pending   State = "pending" // it has an owner, who has not shown yet that it works
	Active    State = "active"
	Suspended State = "suspended"
	Lost      State = "lost"
	Revoked   State = "revoked"
)

// Token is a hardware token as the database knows it.
type Token struct {
	ID        int64  // given by the store; zero for one not stored yet
	Realm     string // folded
	Serial    string // unique in the realm, as the vendor wrote it
	Type      Type
	Algorithm hsm.Hash // hsm.AES128 for YubicoOTP
	Digits    int      // 6 to 8; zero for YubicoOTP
	Period    int      // length of a time step in seconds; zero unless TOTP
	State     State
	OwnerID   int64  // zero if unassigned
	Owner     string // the owner's User.Key; empty if unassigned
	Model     string // what the vendor's file says; may be empty
	Hint      string // whom the vendor's file names; only listings have it, and nothing is decided by it
	Batch     int64  // the import that it came with; zero if it was enrolled
	Created   time.Time
	Expires   time.Time // from then on nothing of it is accepted; zero: never. It is bound

	Assigned time.Time // when its owner got it; only listings have it
	Note     string    // of the helpdesk's; only listings have it
	Tags     []string  // sorted; only listings have them
	Ended    []string  // the owner's temporary passcodes that ended because this works (again); only an act's answer has them

	Passcodes [][]byte // Recovery, Temporary: the MAC of each code, 32 bytes, see passcodeMessage; none once revoked
	Uses      int      // Temporary: how often its code is good in all; else zero

	Credential *Credential // FIDO; nil for any other

	PublicID   string // YubicoOTP: what it types before each code, in modhex; may be empty
	PrivateMAC []byte // YubicoOTP: MAC of its private id, see privateMessage

	Wrapped hsm.Wrapped // the seed; Blob is empty once revoked
	Binding []byte      // see hsm.Sealed
	Motion
}

// Motion is the part of a token that an accept moves. It never moves back.
type Motion struct {
	Version int64 // the token's own; changes are conditional on it while it has no owner
	Last    int64 // TOTP: last time step accepted, -1 if none; FIDO: last signature counter; else the next factor expected: HOTP's counter, YubicoOTP's session<<8|use; Recovery: a bit for each code that was used; Temporary: how often it was used
	Drift   int   // TOTP: steps that the token's clock is ahead of ours; else zero
	UsedAt  int64 // time of the last accept, Unix seconds; zero if never
}

// Row is the canonical encoding of the columns that the seed is bound to:
// each preceded by its length. pinMAC is the owner's, empty if there is none. Type
// says whether what is a YubicoOTP token's alone is there, or what is a passcode's;
// the expiry is there if there is one, in Unix microseconds.
func (t *Token) Row(pinMAC []byte) []byte {
	b := make([]byte, 0, 160+len(pinMAC)+40*len(t.Passcodes))
	put := func(s string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	put("watchword-row-1")
	put(t.Realm)
	put(t.Serial)
	put(string(t.Type))
	b = append(b, byte(t.Algorithm))
	b = binary.BigEndian.AppendUint32(b, uint32(t.Digits))
	b = binary.BigEndian.AppendUint32(b, uint32(t.Period))
	b = binary.BigEndian.AppendUint64(b, uint64(t.OwnerID))
	put(t.Owner)
	put(string(t.State))
	put(string(pinMAC))
	if t.Type == YubicoOTP {
		put(t.PublicID)
		put(string(t.PrivateMAC))
	}
	if t.Type == FIDO && t.Credential != nil {
		put(string(t.Credential.Encode()))
	}
	if t.passcode() {
		b = binary.BigEndian.AppendUint32(b, uint32(len(t.Passcodes)))
		for _, mac := range t.Passcodes {
			b = binary.BigEndian.AppendUint32(b, uint32(len(mac)))
			b = append(b, mac...)
		}
		b = binary.BigEndian.AppendUint64(b, uint64(t.Uses))
	}
	if !t.Expires.IsZero() {
		put("expires")
		b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.UnixMicro()))
	}
	return b
}

// Sealed is the token's seed with the row that it is bound to.
func (t *Token) Sealed(pinMAC []byte) *hsm.Sealed {
	return &hsm.Sealed{Wrapped: t.Wrapped, Row: t.Row(pinMAC), Binding: t.Binding}
}

// maxFactor bounds counters and time steps: all arithmetic with them stays far
// from what overflows.
const maxFactor = 1 << 60

// Valid says what is wrong with a token's parameters, or nil.
func (t *Token) Valid() error {
	switch {
	case t.Type == YubicoOTP:
		if err := t.validOTP(); err != nil {
			return err
		}
		return ValidSerial(t.Serial)
	case t.Type == FIDO:
		if err := t.validKey(); err != nil {
			return err
		}
		return ValidSerial(t.Serial)
	case t.passcode():
		if err := t.validPasscodes(); err != nil {
			return err
		}
		return ValidSerial(t.Serial)
	case t.Type != TOTP && t.Type != HOTP:
		return fmt.Errorf("%w: token type %q; it is totp, hotp, yubico, fido, recovery or temporary", ErrInvalid, t.Type)
	case t.Algorithm.Size() == 0:
		return fmt.Errorf("%w: unknown hash; it is sha1, sha256 or sha512", ErrInvalid)
	case t.Digits < 6 || t.Digits > 8:
		return fmt.Errorf("%w: %d digits; 6, 7 or 8 are possible", ErrInvalid, t.Digits)
	case t.Type == TOTP && (t.Period < 1 || t.Period > 86400):
		return fmt.Errorf("%w: a time step of %d s; 1 to 86400 are possible", ErrInvalid, t.Period)
	case t.Type == HOTP && t.Period != 0:
		return fmt.Errorf("%w: an HOTP token has no time step", ErrInvalid)
	case t.Type == HOTP && t.Last < 0:
		return fmt.Errorf("%w: a negative counter", ErrInvalid)
	case t.Last < -1 || t.Last > maxFactor || t.Drift < -maxFactor || t.Drift > maxFactor:
		return fmt.Errorf("%w: a counter, time step or drift is out of range", ErrInvalid)
	}
	return ValidSerial(t.Serial)
}

// ValidSerial refuses what cannot be a serial: empty, longer than 64 bytes, or
// anything but printable ASCII without a space, a slash or a quote.
func ValidSerial(serial string) error {
	if serial == "" {
		return fmt.Errorf("%w: a serial is empty", ErrInvalid)
	}
	if len(serial) > 64 {
		return fmt.Errorf("%w: a serial is longer than 64 characters", ErrInvalid)
	}
	if i := strings.IndexFunc(serial, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`/\"'`, r)
	}); i >= 0 {
		return fmt.Errorf("%w: character %d of a serial is not allowed (printable ASCII without space, slash and quotes)", ErrInvalid, i+1)
	}
	return nil
}
