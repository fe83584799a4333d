package radius

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2759"
	"layeh.com/radius/rfc3079"

	"watchword/tokens"
)

// The attributes of replies (RFC 2548), and sizes in bytes.
const (
	msCHAPError            = 2
	msMPPEEncryptionPolicy = 7
	msMPPEEncryptionTypes  = 8
	msCHAPMPPEKeys         = 12
	msMPPESendKey          = 16
	msMPPERecvKey          = 17
	msCHAP2Success         = 26

	msChallengeSize  = 8  // of MS-CHAP
	ms2ChallengeSize = 16 // of MS-CHAPv2
	msResponseSize   = 50 // of both, as RADIUS carries them
	ntResponseSize   = 24
)

// msCHAP is the DES of a challenge under the MD4 of the code (RFC 2433; RFC 2548,
// section 2.1). A response of the LAN Manager kind alone is not taken.
var msCHAP = method{
	name:   tokens.MethodMSCHAP,
	speaks: func(p *packet) bool { return p.msVersion == 1 },
	read: func(r *request, a *tokens.Attempt) error {
		p := &r.packet
		// Identifier, flags, LM response, NT response; the flag says that the latter
		// counts.
		if len(p.msResponse) != msResponseSize || len(p.msChallenge) != msChallengeSize || p.msResponse[1] != 1 {
			return errProof
		}
		proof := &msProof{ident: p.msResponse[0]}
		copy(proof.challenge[:], p.msChallenge)
		copy(proof.response[:], p.msResponse[2+24:])
		a.Proof, a.Method = proof, string(tokens.MethodMSCHAP)
		return nil
	},
	answer: answerMSCHAP,
}

// msCHAPv2 is the same over a challenge that both sides made (RFC 2759; RFC 2548,
// section 2.3), and the reply to an accept proves that the server knew the code.
var msCHAPv2 = method{
	name:   tokens.MethodMSCHAPv2,
	speaks: func(p *packet) bool { return p.msVersion == 2 },
	read: func(r *request, a *tokens.Attempt) error {
		p := &r.packet
		// Identifier, flags, the peer's challenge, eight zeros, NT response.
		if len(p.msResponse) != msResponseSize || len(p.msChallenge) != ms2ChallengeSize {
			return errProof
		}
		proof := &msProof{
			ident: p.msResponse[0], second: true,
			ours: bytes.Clone(p.msChallenge), peer: bytes.Clone(p.msResponse[2 : 2+ms2ChallengeSize]), name: bytes.Clone(undomained(p.userName)),
		}
		copy(proof.challenge[:], rfc2759.ChallengeHash(proof.peer, proof.ours, proof.name))
		copy(proof.response[:], p.msResponse[2+24:])
		a.Proof, a.Method = proof, string(tokens.MethodMSCHAPv2)
		return nil
	},
	answer: answerMSCHAP,
}

// undomained is a user name without the Windows domain before it, which the hash of
// MS-CHAPv2 leaves out (RFC 2759, section 4).
func undomained(name []byte) []byte {
	return name[bytes.IndexByte(name, '\\')+1:]
}

// msProof is an NT response to a challenge. It holds copies: the core may look at it
// when the request is over.
type msProof struct {
	ident     byte
	second    bool // it is MS-CHAPv2
	challenge [msChallengeSize]byte
	response  [ntResponseSize]byte
	code      []byte // that it proves

	ours, peer, name []byte // with MS-CHAPv2: what challenge is made of
}

// Proves implements tokens.Proof.
func (m *msProof) Proves(code []byte) bool {
	wide := make([]byte, 0, 16) // UTF-16, little endian
	for _, c := range code {
		wide = append(wide, c, 0)
	}
	hash := rfc2759.NTPasswordHash(wide)
	if subtle.ConstantTimeCompare(rfc2759.ChallengeResponse(m.challenge[:], hash), m.response[:]) != 1 {
		return false
	}
	m.code = bytes.Clone(code)
	return true
}

// answerMSCHAP adds to the reply what RFC 2548 wants there: of an accept the keys of
// MPPE, with MS-CHAPv2 the proof that the server knew the code, and of a reject the
// error, which is always the same.
func answerMSCHAP(r *request, a *tokens.Attempt, accepted bool) {
	m, ok := a.Proof.(*msProof)
	if !ok {
		return
	}
	if !accepted {
		// ERROR_AUTHENTICATION_FAILURE, and no retry under the same challenge.
		r.microsoft(msCHAPError, append([]byte{m.ident}, "E=691 R=0 V=3"...))
		return
	}
	var length [4]byte
	number := func(kind byte, n uint32) {
		binary.BigEndian.PutUint32(length[:], n)
		r.microsoft(kind, length[:])
	}
	if err := r.msKeys(m); err != nil {
		// Without them the gateway has nothing to encrypt with; it still knows that
		// the code was right.
		r.extra = r.extra[:0]
		return
	}
	number(msMPPEEncryptionPolicy, 1) // allowed
	number(msMPPEEncryptionTypes, 4)  // 128 bits alone
}

// msKeys adds what an accept has.
func (r *request) msKeys(m *msProof) error {
	if m.second {
		success, err := rfc2759.GenerateAuthenticatorResponse(m.ours, m.peer, m.response[:], m.name, m.code)
		if err != nil {
			return err
		}
		r.microsoft(msCHAP2Success, append([]byte{m.ident}, success...))
		return r.mppeKeys(m)
	}
	// Eight zeros for the LM key, the NT key, and padding: hidden as a User-Password is
	// (RFC 2548, section 2.4.1). What is called the NT key there is the hash of the
	// hash in all that is in use.
	wide, err := rfc2759.ToUTF16(m.code)
	if err != nil {
		return err
	}
	keys := make([]byte, 32)
	copy(keys[8:], rfc2759.NTPasswordHash(rfc2759.NTPasswordHash(wide)))
	hidden, err := layeh.NewUserPassword(keys, r.client.Plain, r.packet.authenticator())
	if err != nil {
		return err
	}
	r.microsoft(msCHAPMPPEKeys, hidden)
	return nil
}

// mppeKeys adds the keys that the gateway encrypts and decrypts with (RFC 3079,
// section 3), hidden with a salt of their own (RFC 2548, section 2.4.2).
func (r *request) mppeKeys(m *msProof) error {
	var salts [2]byte
	if _, err := rand.Read(salts[:]); err != nil {
		return err
	}
	for i, k := range []struct {
		kind byte
		send bool
	}{{msMPPESendKey, true}, {msMPPERecvKey, false}} {
		key, err := rfc3079.MakeKey(m.response[:], m.code, k.send)
		if err != nil {
			return err
		}
		// The highest bit is set, and the two salts of a packet differ.
		salt := []byte{salts[0] | 0x80, salts[1]&^1 | byte(i)}
		hidden, err := layeh.NewTunnelPassword(key, salt, r.client.Plain, r.packet.authenticator())
		if err != nil {
			return err
		}
		r.microsoft(k.kind, hidden)
	}
	return nil
}

// microsoft adds one of the vendor's attributes to the reply.
func (r *request) microsoft(kind byte, value []byte) {
	r.extra = append(r.extra, attrVendorSpecific, byte(8+len(value)))
	r.extra = binary.BigEndian.AppendUint32(r.extra, vendorMicrosoft)
	r.extra = append(append(r.extra, kind, byte(2+len(value))), value...)
}
