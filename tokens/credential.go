package tokens

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// FIDO is the type of a token that signs instead of showing codes: a security
// key or a passkey (Web Authentication Level 3). It has no seed.
const FIDO Type = "fido"

// Credential is what a FIDO token is apart from what all tokens have. It is bound
// in the row like a seed, and never changes. One of stock was made for nobody in
// particular: it belongs to whom its token is assigned to.
type Credential struct {
	ID        []byte // as the authenticator chose it, 1 to 1023 bytes
	RPID      string // relying party id, a domain name
	UserID    int64  // whom it was made for: nobody else can ever be given it; zero: stock
	Handle    []byte // stock: the user handle that it was made with, 32 bytes; otherwise none, see UserHandle
	PublicKey []byte // COSE_Key (RFC 9052, section 7), at most 2048 bytes

	AAGUID      [16]byte // the model; zeros where the authenticator does not say
	Format      string   // attestation statement format: packed, tpm, android-key, apple, fido-u2f, none
	Attestation string   // what the statement proved: basic, attca, anonca, self, none
	Attester    string   // for a model without AAGUID: SHA-1 key identifier of the attestation key, hex; may be empty

	Transports   []string // how it is reached: usb, nfc, ble, hybrid, internal; hints only
	Discoverable bool     // it can be found without a user name (a passkey)
	UserVerified bool     // it verified its user when it was enrolled
	Synced       bool     // backup eligible: it may live on several devices (section 6.1.3)
}

// The longest that the fields of a Credential may be.
const (
	maxCredentialID = 1023
	maxPublicKey    = 2048
)

// handleSize is the length of the user handles that Watchword makes.
const handleSize = sha256.Size

// stock says that it was made for nobody in particular.
func (c *Credential) stock() bool { return c != nil && c.UserID == 0 && len(c.Handle) == handleSize }

// waits says that a FIDO token of stock has an owner, whose first answer with it turns
// it on.
func (t *Token) waits() bool { return t.Type == FIDO && t.State == Pending && t.Credential.stock() }

// Key is what a credential is looked for by: SHA-256 of the relying party id and
// the credential id. No two tokens have the same.
func (c *Credential) Key() string { return CredentialKey(c.RPID, c.ID) }

// CredentialKey is the Key of the credential with this id.
func CredentialKey(rpID string, id []byte) string {
	h := sha256.New()
	h.Write([]byte("watchword-credential-1\x00"))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(rpID))))
	h.Write([]byte(rpID))
	h.Write(id)
	return string(h.Sum(nil))
}

// FormatAAGUID writes an AAGUID as FIDO metadata does: 8-4-4-4-12 hex digits.
func FormatAAGUID(id [16]byte) string {
	h := hex.EncodeToString(id[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// CredentialSerial is the serial of a FIDO token whose attestation supplies
// none: F- and 16 hex digits of SHA-256 of its credential id.
func CredentialSerial(id []byte) string {
	sum := sha256.Sum256(id)
	return "F-" + hex.EncodeToString(sum[:8])
}

// Valid says what is wrong with a credential, or nil.
func (c *Credential) Valid() error {
	switch {
	case len(c.ID) < 1 || len(c.ID) > maxCredentialID:
		return fmt.Errorf("%w: a credential id of %d bytes; 1 to %d are possible", ErrInvalid, len(c.ID), maxCredentialID)
	case c.RPID == "" || len(c.RPID) > 253:
		return fmt.Errorf("%w: a relying party id of %d characters; 1 to 253 are possible", ErrInvalid, len(c.RPID))
	case len(c.PublicKey) < 1 || len(c.PublicKey) > maxPublicKey:
		return fmt.Errorf("%w: a public key of %d bytes; 1 to %d are possible", ErrInvalid, len(c.PublicKey), maxPublicKey)
	case c.UserID < 0 || c.UserID == 0 && len(c.Handle) != handleSize || c.UserID > 0 && len(c.Handle) != 0:
		return fmt.Errorf("%w: a credential that was made for nobody", ErrInvalid)
	}
	for _, s := range append([]string{c.Format, c.Attestation, c.Attester, c.RPID}, c.Transports...) {
		if len(s) > 253 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ',' }) {
			return fmt.Errorf("%w: a credential's format, attestation, transport or relying party id is not plain ASCII", ErrInvalid)
		}
	}
	if len(c.Transports) > 16 {
		return fmt.Errorf("%w: %d transports; up to 16 are possible", ErrInvalid, len(c.Transports))
	}
	return nil
}

// validKey is Valid for a FIDO token.
func (t *Token) validKey() error {
	switch {
	case t.Credential == nil:
		return fmt.Errorf("%w: a FIDO token without a credential", ErrInvalid)
	case t.Algorithm != 0 || t.Digits != 0 || t.Period != 0 || t.Drift != 0 || len(t.Wrapped.Blob) != 0:
		return fmt.Errorf("%w: a FIDO token has neither a seed nor digits nor time steps", ErrInvalid)
	case t.Last < 0 || t.Last > math.MaxUint32:
		return fmt.Errorf("%w: a signature counter is out of range", ErrInvalid)
	}
	return t.Credential.Valid()
}

// Encode is the credential's canonical encoding, for the store and for the row
// that is bound.
func (c *Credential) Encode() []byte {
	b := make([]byte, 0, 160+len(c.ID)+len(c.PublicKey))
	put := func(s []byte) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	version := byte(1)
	if len(c.Handle) > 0 {
		version = 2 // ends in the handle
	}
	b = append(b, version)
	put(c.ID)
	put([]byte(c.RPID))
	b = binary.BigEndian.AppendUint64(b, uint64(c.UserID))
	put(c.PublicKey)
	b = append(b, c.AAGUID[:]...)
	put([]byte(c.Format))
	put([]byte(c.Attestation))
	put([]byte(c.Attester))
	put([]byte(strings.Join(c.Transports, ",")))
	var flags byte
	for i, on := range []bool{c.Discoverable, c.UserVerified, c.Synced} {
		if on {
			flags |= 1 << i
		}
	}
	b = append(b, flags)
	if len(c.Handle) > 0 {
		put(c.Handle)
	}
	return b
}

var errCredential = errors.New("the encoding of a credential is damaged")

// DecodeCredential reads what Encode wrote. It keeps no part of b.
func DecodeCredential(b []byte) (*Credential, error) {
	var c Credential
	bad := len(b) < 1 || b[0] != 1 && b[0] != 2
	long := !bad && b[0] == 2
	take := func(n int) []byte {
		if bad || n < 0 || n > len(b) {
			bad = true
			return nil
		}
		part := b[:n]
		b = b[n:]
		return part
	}
	take(1)
	get := func() []byte {
		if n := take(4); n != nil {
			return append([]byte(nil), take(int(binary.BigEndian.Uint32(n)))...)
		}
		return nil
	}
	c.ID = get()
	c.RPID = string(get())
	if id := take(8); id != nil {
		c.UserID = int64(binary.BigEndian.Uint64(id))
	}
	c.PublicKey = get()
	copy(c.AAGUID[:], take(16))
	c.Format, c.Attestation, c.Attester = string(get()), string(get()), string(get())
	if t := string(get()); t != "" {
		c.Transports = strings.Split(t, ",")
	}
	if f := take(1); f != nil {
		c.Discoverable, c.UserVerified, c.Synced = f[0]&1 != 0, f[0]&2 != 0, f[0]&4 != 0
		bad = bad || f[0] > 7
	}
	if long {
		c.Handle = get()
		bad = bad || len(c.Handle) == 0
	}
	if bad || len(b) != 0 {
		return nil, errCredential
	}
	return &c, nil
}

// Spend is something that can be used once, such as a challenge that was
// answered.
type Spend struct {
	Hash    [sha256.Size]byte // of the thing
	Expires time.Time         // from when on it is of no use anyway, and need not be remembered
}

// SpentError names what had been spent before.
type SpentError struct{ Hashes [][sha256.Size]byte }

func (e *SpentError) Error() string { return fmt.Sprintf("%v: %d", ErrSpent, len(e.Hashes)) }

// Unwrap makes it an ErrSpent.
func (e *SpentError) Unwrap() error { return ErrSpent }

// Document is a setting or a file that all nodes share, such as the FIDO
// metadata.
type Document struct {
	Name    string // fido.mds, fido.rules, ...
	Version int64  // 1 for the first
	Updated time.Time
	Data    []byte
}

// DocumentWrite replaces a document if its version is still Expect, zero for
// none. Data is nil to delete it.
type DocumentWrite struct {
	Name    string
	Expect  int64
	Updated time.Time
	Data    []byte
}

// Invitation lets a person enrol a token without an API key: whoever holds its
// code acts for its user, once, until it expires.
type Invitation struct {
	ID      string // public part
	Realm   string
	UserID  int64
	User    string            // the user's key
	Kinds   []string          // what may be enrolled: fido, totp
	MAC     [sha256.Size]byte // under the HSM's binding key, over the code and the columns above and Expires
	Actor   string            // who invited
	Created time.Time
	Expires time.Time
	Used    time.Time // zero: not yet
	Serial  string    // of the token that was enrolled with it
}

// InvitationWrite inserts an invitation, or marks one as used.
type InvitationWrite struct {
	Invitation Invitation // new; or only ID, Used and Serial
	Use        bool       // it must be there and not used: else ErrSpent
	Delete     bool       // it must be there: else ErrNotFound
}

// GroupsWrite replaces the groups that a user belongs to. It goes with the
// user's StandingWrite.
type GroupsWrite struct {
	UserID int64
	Groups []string // folded, sorted, each once
}
