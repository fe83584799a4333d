package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"watchword/hsm"
)

// KeyAttempt is one try at being let in with a FIDO key.
type KeyAttempt struct {
	Realm      string // empty: the principal's, or the default one
	User       string // as typed when the ceremony began; empty: whoever holds the credential
	RPID       string
	Credential []byte    // its id, as the answer names it
	Handle     []byte    // the user handle in the answer, see UserHandle; empty if there is none
	Spend      Spend     // the challenge: one answer to it is accepted, ever
	Expires    time.Time // of the challenge
	Transport  string    // http, console

	// Check proves the answer's signature, and all else that is known without the
	// database. It is pure: it may run more than once, and at the same time as
	// others. A refusal is a *CheckError; any other error is a fault, and gives no
	// verdict. For a credential that there is not it is asked about one that was
	// made up, so that this takes as long; what it says is then ignored.
	Check func(c *Credential, owner *User) (Assertion, error)
}

// Assertion is what a proven answer says (Web Authentication, section 6.1).
type Assertion struct {
	SignCount    uint32
	UserVerified bool
	Synced       bool // backup eligible
	BackedUp     bool
}

// CheckError refuses an answer. Why goes into the audit: it holds no secret, and
// only as much of the answer as may be kept.
type CheckError struct {
	Reason Reason
	Why    string
}

func (e *CheckError) Error() string { return string(e.Reason) + ": " + e.Why }

// KeyResult is the answer to a KeyAttempt. What follows Result is set on accept
// only.
type KeyResult struct {
	Result
	Token        Token
	User         string // the owner's key
	Realm        string
	At           time.Time
	UserVerified bool
}

// ceremony is what precedes the data of CeremonyMAC, and handle a user's id in
// UserHandle. No other message under KeyBinding begins like them.
const (
	ceremony = "watchword-ceremony-1\x00"
	handle   = "watchword-handle-1\x00"
)

// CeremonyMAC authenticates the state of a ceremony, so that no node has to keep
// it: an HMAC that only this installation can make, under the HSM's binding key.
func (s *Service) CeremonyMAC(ctx context.Context, data []byte) (sum [sha256.Size]byte, err error) {
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, append([]byte(ceremony), data...))
	if err != nil {
		return sum, translate(err)
	}
	copy(sum[:], macs[0])
	return sum, nil
}

// UserHandle is the user handle that a user's credentials are made with (Web
// Authentication, section 14.6.1): 32 bytes that say nothing of the user, and
// always the same.
func (s *Service) UserHandle(ctx context.Context, userID int64) ([]byte, error) {
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, handleMessage(userID))
	if err != nil {
		return nil, translate(err)
	}
	return macs[0], nil
}

func handleMessage(userID int64) []byte {
	return binary.BigEndian.AppendUint64([]byte(handle), uint64(userID))
}
