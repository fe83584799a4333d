package webauthn

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"watchword/tokens"
)

// The kinds of ceremonies.
const (
	kindRegister = "webauthn.create" // as the client data's type says it
	kindLogin    = "webauthn.get"
)

// session is the state of a ceremony. The caller keeps it between begin and
// finish; no node does. It needs no secrecy and no seal: the challenge is a MAC
// over it that only this installation can make, so an authenticator that signed
// the challenge signed the state too, and an altered state has another challenge.
type session struct {
	_            struct{} `cbor:",toarray"`
	Version      int      // 1
	Kind         string
	Realm        string // folded
	User         string // as typed; empty for a passkey, and for a key of stock
	UserID       int64  // of whom a key is made for; zero for stock, and at login, where it would tell that the user exists
	RPID         string
	Verification string       // required, preferred or discouraged
	Discoverable bool         // registration: the credential must be one that is found without a user name
	Allowed      [][]byte     // login: allowDigest of each credential that was offered; none for a passkey
	Expires      int64        // Unix seconds
	Nonce        [16]byte     // makes each challenge one of its own
	encoded      []byte       // as the caller has it
	challenge    []byte       // CeremonyMAC of encoded
	spend        tokens.Spend // of the challenge
}

// maxSession bounds what a caller may hand back.
const maxSession = 8 << 10

// strict is how CBOR from outside is read: one item and nothing after it, no
// duplicate keys, no indefinite lengths, no tags, no invalid text, names in their
// exact case.
var strict = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxNestedLevels:   8,
		MaxArrayElements:  1024,
		MaxMapPairs:       1024,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// canonical writes CBOR as authenticators do (CTAP 2.1, section 8).
var canonical = func() cbor.EncMode {
	mode, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

var sessionEncoding = base64.RawURLEncoding.Strict()

// draw makes a session's nonce.
func (s *Service) draw(st *session) error {
	if _, err := io.ReadFull(s.cfg.Rand, st.Nonce[:]); err != nil {
		return fmt.Errorf("%w: no randomness for a challenge: %w", tokens.ErrUnavailable, err)
	}
	return nil
}

// stock says that a key is to be enrolled for nobody in particular.
func (st *session) stock() bool { return st.Kind == kindRegister && st.User == "" && st.UserID == 0 }

// begin seals a new session whose nonce was drawn: its expiry and challenge.
func (s *Service) begin(ctx context.Context, st *session) error {
	st.Version, st.Expires = 1, s.cfg.Now().Add(s.cfg.TTL).Unix()
	var err error
	if st.encoded, err = canonical.Marshal(st); err != nil {
		return fmt.Errorf("encode a ceremony's state: %w", err)
	}
	if len(st.encoded) > sessionEncoding.DecodedLen(maxSession) {
		return fmt.Errorf("%w: the user has more credentials than fit into one ceremony", tokens.ErrInvalid)
	}
	if err := s.seal(ctx, st); err != nil {
		return err
	}
	s.begun.put(st.encoded, st.challenge)
	return nil
}

// seal computes what follows from a session's encoding.
func (s *Service) seal(ctx context.Context, st *session) error {
	mac, err := s.core.CeremonyMAC(ctx, st.encoded)
	if err != nil {
		return err
	}
	st.challenged(mac[:])
	return nil
}

// challenged says what a session's challenge is.
func (st *session) challenged(challenge []byte) {
	st.challenge = challenge
	st.spend = tokens.Spend{Hash: sha256.Sum256(challenge), Expires: st.expires()}
}

// resume reads a session that the caller hands back. Whether it is one that was
// begun here shows only when an answer to its challenge is there.
func (s *Service) resume(ctx context.Context, text, kind string) (*session, error) {
	raw, ok := sessionBytes(text)
	if !ok {
		return nil, errSession
	}
	challenge := s.begun.take(raw)
	st, err := readSession(raw, challenge == nil)
	if err != nil {
		return nil, err
	}
	if st.Kind != kind {
		return nil, fmt.Errorf("%w: the session is of a ceremony of the other kind: register with register, log in with login", tokens.ErrInvalid)
	}
	if _, err := s.party(st.RPID); err != nil {
		return nil, err
	}
	if challenge != nil {
		st.challenged(challenge)
		return st, nil
	}
	return st, s.seal(ctx, st)
}

var errSession = fmt.Errorf("%w: the session is not one of this server; hand it back as it was given, or begin again", tokens.ErrInvalid)

// sessionBytes are a session's bytes, as the caller has them.
func sessionBytes(text string) ([]byte, bool) {
	if len(text) > maxSession {
		return nil, false
	}
	return decodeBase64(text)
}

// readSession reads a session. One that a stranger may have written must be as this
// server would write it.
func readSession(raw []byte, stranger bool) (*session, error) {
	st := new(session)
	if err := strict.Unmarshal(raw, st); err != nil {
		return nil, errSession
	}
	if stranger {
		if again, err := canonical.Marshal(st); err != nil || string(again) != string(raw) {
			return nil, errSession
		}
	}
	if st.Version != 1 || st.RPID == "" || st.Expires < 0 || st.Expires > 1<<40 ||
		st.Kind != kindRegister && st.Kind != kindLogin || verificationRank(st.Verification) < 0 {
		return nil, errSession
	}
	st.encoded = raw
	return st, nil
}

// text is what the caller keeps.
func (st *session) text() string { return sessionEncoding.EncodeToString(st.encoded) }

func (st *session) expires() time.Time { return time.Unix(st.Expires, 0).UTC() }

// allows says whether the credential is one of those that were offered (section
// 7.2, step 5). To a passkey login all are.
func (st *session) allows(id []byte) bool {
	return len(st.Allowed) == 0 && st.User == "" ||
		slices.ContainsFunc(st.Allowed, func(d []byte) bool { return string(d) == string(allowDigest(id)) })
}

// allowDigest stands for a credential id in a session: 16 bytes of its SHA-256.
func allowDigest(id []byte) []byte {
	sum := sha256.Sum256(id)
	return sum[:16]
}

// decodeBase64 reads base64url without padding, and nothing that Go's decoder
// would overlook: no line breaks, no bits after the last byte.
func decodeBase64(text string) ([]byte, bool) {
	for i := range len(text) {
		if text[i] == '\r' || text[i] == '\n' {
			return nil, false
		}
	}
	b, err := sessionEncoding.DecodeString(text)
	return b, err == nil
}
