package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
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
	Origin     Origin

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

	proof *proof // for a session
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

// VerifyKey checks the answer of a FIDO key. Like Verify, it answers when the
// outcome is durable: one answer to a challenge is accepted, whatever happens. The
// user's PIN is not asked for. Errors are those of Verify.
func (s *Service) VerifyKey(ctx context.Context, p Principal, a KeyAttempt) (KeyResult, error) {
	realm, err := p.realm(a.Realm)
	if len(a.Credential) == 0 || len(a.Credential) > maxCredentialID || a.RPID == "" || a.Check == nil || err != nil {
		return KeyResult{}, s.malformed(ctx, p, realm, a.User, a.Transport, "the answer of a key is needed", err)
	}
	e := audit.Event{Realm: realm}
	if err := s.allow(ctx, p, policy.Verify, &e, nil); err != nil {
		return KeyResult{}, err
	}
	// What must be remembered as spent until nobody would take it any more.
	if a.Spend.Expires.Before(a.Expires) {
		a.Spend.Expires = a.Expires
	}
	x := &pending{principal: p, client: p.client(), key: &a, transport: a.Transport, policy: e.Policy}
	x.origin(a.Origin)
	x.ref.Realm = realm
	if a.User == "" {
		x.ref.Credential = CredentialKey(a.RPID, a.Credential)
	} else if key, err := FoldName(a.User); err == nil {
		x.ref.User = key
	} else {
		x.impossible = true
	}
	got, err := s.await(ctx, x)
	if err != nil || got.key == nil {
		return KeyResult{}, err
	}
	return *got.key, nil
}

// RefuseLogin audits the answer of a key that is refused before it can be
// verified: one to a challenge that is none of ours, or that cannot be read. The
// user is the one that the ceremony named, if any. Who floods is counted.
func (s *Service) RefuseLogin(ctx context.Context, p Principal, realm, user string, reason Reason, why, transport string) error {
	realm, err := p.realm(realm)
	if err != nil {
		return err
	}
	e := audit.Event{Realm: realm, Detail: sound([]audit.Field{{Name: "transport", Value: transport}, {Name: fieldWhy, Value: why}})}
	if key, bad := FoldName(user); bad == nil {
		e.User = key
	}
	if err := s.authorise(ctx, p, policy.Verify, &e); err != nil {
		return err
	}
	e.Outcome, e.Reason = "reject", string(reason)
	e = s.event(p, policy.Verify, e)
	if !s.crowd.admit(&e, e.Time) {
		return nil
	}
	return s.ledger.commit(ctx, &Change{}, []audit.Event{e})
}

// fieldChallenge names the detail that every answer of a key has, and no code.
const fieldChallenge = "challenge"

// detail is what the audit holds of an answer beside what it holds of all
// attempts.
func (a *KeyAttempt) detail(v *verdict) []audit.Field {
	list := []audit.Field{{Name: fieldChallenge, Value: hex.EncodeToString(a.Spend.Hash[:16])}}
	if v.accept {
		list = append(list, audit.Field{Name: "user_verified", Value: strconv.FormatBool(v.verified)})
		if v.factor > 0 { // many keys do not count
			list = append(list, audit.Field{Name: "factor", Value: itoa(int64(v.factor))})
		}
	}
	if v.why != "" {
		list = append(list, audit.Field{Name: fieldWhy, Value: fileName(v.why)})
	}
	return list
}

// accepted is the answer to an accepted key. The token is as the accept leaves it.
func accepted(v *verdict, owner *User, now time.Time) *KeyResult {
	r := &KeyResult{
		Result: Result{Accept: true, Serial: v.token.Serial},
		Token:  *v.token, User: owner.Key, Realm: owner.Realm, At: now, UserVerified: v.verified,
	}
	r.proof = proofOf(v.token, owner, r, now)
	return r
}
