package tokens_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// rp is the relying party of the tests.
const rp = "login.example.org"

// seckey is a FIDO key as its owner holds it, or who copied it.
type seckey struct {
	id      []byte
	private *ecdsa.PrivateKey
	count   uint32
	synced  bool
	serial  string
}

func newSeckey(name string) *seckey {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	id := sha256.Sum256([]byte("credential id of " + name))
	return &seckey{id: id[:], private: private, serial: tokens.CredentialSerial(id[:])}
}

// challenges counts them.
var challenges atomic.Uint64

// challenge is one that was never used, good for five minutes.
func (h *house) challenge() tokens.Spend {
	n := challenges.Add(1)
	return tokens.Spend{
		Hash:    sha256.Sum256(binary.BigEndian.AppendUint64([]byte("challenge"), n)),
		Expires: h.clock.now().Add(5 * time.Minute),
	}
}

// credential is what the key would be enrolled as.
func (k *seckey) credential(owner int64) tokens.Credential {
	public, err := k.private.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return tokens.Credential{
		ID: k.id, RPID: rp, UserID: owner, PublicKey: public, AAGUID: [16]byte{1, 2, 3, 4},
		Format: "packed", Attestation: "basic", Transports: []string{"nfc", "usb"}, UserVerified: true, Synced: k.synced,
	}
}

// userID is a user's, from the database.
func (h *house) userID(user string) int64 {
	h.Helper()
	v, err := h.mem.Load(ctx, []tokens.Ref{{Realm: tokens.DefaultRealm, User: user}})
	if err != nil || v.Subjects[0] == nil {
		h.Fatalf("user %s: %v", user, err)
	}
	return v.Subjects[0].User.ID
}

func (h *house) newFIDO(user string, k *seckey) tokens.NewFIDO {
	h.Helper()
	return tokens.NewFIDO{
		User: user, Credential: k.credential(h.userID(user)), Model: "Test key", SignCount: k.count, Spend: h.challenge(),
		Detail: []audit.Field{{Name: "aaguid", Value: "01020304"}},
	}
}

// enrol makes a user, if need be, and gives the user keys.
func (h *house) enrol(user string, list ...*seckey) {
	h.Helper()
	h.user(user)
	for _, k := range list {
		h.must(h.EnrolKey(ctx, h.admin, h.newFIDO(user, k)))
	}
}

// assertion is an answer of the key to a challenge: what it says, signed.
type assertion struct {
	challenge [32]byte
	said      tokens.Assertion
	signature []byte
}

func (a *assertion) digest() []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%x %+v", a.challenge, a.said))
	return sum[:]
}

// answers makes the key's answer to a challenge. Its counter goes on by one, if
// it counts at all.
func (k *seckey) answers(challenge [32]byte) *assertion {
	if k.count > 0 {
		k.count++
	}
	a := &assertion{challenge: challenge, said: tokens.Assertion{SignCount: k.count, UserVerified: true, Synced: k.synced}}
	a.sign(k)
	return a
}

func (a *assertion) sign(k *seckey) {
	signature, err := ecdsa.SignASN1(rand.Reader, k.private, a.digest())
	if err != nil {
		panic(err)
	}
	a.signature = signature
}

// check is what webauthn does: it proves the signature by the credential's key.
func (a *assertion) check(c *tokens.Credential, _ *tokens.User) (tokens.Assertion, error) {
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), c.PublicKey)
	if err != nil || !ecdsa.VerifyASN1(public, a.digest(), a.signature) {
		return tokens.Assertion{}, &tokens.CheckError{Reason: tokens.ReasonBadSignature, Why: "the signature is wrong"}
	}
	return a.said, nil
}

// shows is an attempt with the key by whoever is named, on a new challenge.
func (h *house) shows(user string, k *seckey) tokens.KeyAttempt {
	c := h.challenge()
	return h.attempt(user, k, c, k.answers(c.Hash))
}

func (h *house) attempt(user string, k *seckey, c tokens.Spend, a *assertion) tokens.KeyAttempt {
	return tokens.KeyAttempt{
		User: user, RPID: rp, Credential: k.id, Spend: c, Expires: c.Expires, Transport: "http", Check: a.check,
	}
}

// concludes says that an attempt with a key is accepted or rejected, and for
// which reason the audit says so.
func (h *house) concludes(a tokens.KeyAttempt, accept bool, reason tokens.Reason) tokens.KeyResult {
	h.Helper()
	r, err := h.VerifyKey(ctx, h.vpn, a)
	if err != nil {
		h.Fatalf("verify a key of %q: %v", a.User, err)
	}
	outcome := map[bool]string{true: "accept", false: "reject"}[accept]
	list, _, err := h.mem.Records(ctx, tokens.RecordQuery{Action: "verify", Limit: 1})
	if err != nil || len(list) == 0 {
		h.Fatalf("no audit: %v", err)
	}
	if last := list[0]; r.Accept != accept || last.Outcome != outcome || last.Reason != string(reason) {
		h.Errorf("a key of %q: accept %v, audited as %s, %s; want %s, %s", a.User, r.Accept, last.Outcome, last.Reason, outcome, reason)
	}
	return r
}
