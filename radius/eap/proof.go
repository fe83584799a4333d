package eap

import (
	"bytes"
	"crypto/subtle"
	"errors"

	"layeh.com/radius/rfc2759"
	"layeh.com/radius/rfc3079"
)

const (
	challengeSize  = 16 // of either side
	ntResponseSize = 24
	mskSize        = 64
)

// errUnproven is the core's fault.
var errUnproven = errors.New("the core accepted an MS-CHAPv2 response that it held against no code")

// msProof is an NT response to the challenges of both sides (RFC 2759). It holds
// copies: the core may look at it when the packet is gone.
type msProof struct {
	ours, peer, name []byte
	challenge        []byte // made of these
	response         []byte
	code             []byte // that it proves
}

func newMSProof(ours, peer, response, name []byte) *msProof {
	p := &msProof{ours: bytes.Clone(ours), peer: bytes.Clone(peer), response: bytes.Clone(response)}
	// The hash leaves out the Windows domain (RFC 2759, section 4).
	p.name = bytes.Clone(name[bytes.IndexByte(name, '\\')+1:])
	p.challenge = rfc2759.ChallengeHash(p.peer, p.ours, p.name)
	return p
}

// Proves implements Proof.
func (p *msProof) Proves(code []byte) bool {
	wide := make([]byte, 0, 2*len(code)) // UTF-16, little endian
	for _, c := range code {
		wide = append(wide, c, 0)
	}
	hash := rfc2759.NTPasswordHash(wide)
	clear(wide)
	if subtle.ConstantTimeCompare(rfc2759.ChallengeResponse(p.challenge, hash), p.response) != 1 {
		return false
	}
	clear(p.code)
	p.code = bytes.Clone(code)
	return true
}

// success proves to the peer that the server knew the code: "S=" and 40 hex digits.
func (p *msProof) success() ([]byte, error) {
	if p.code == nil {
		return nil, errUnproven
	}
	s, err := rfc2759.GenerateAuthenticatorResponse(p.ours, p.peer, p.response, p.name, p.code)
	return []byte(s), err
}

// keys are the MSK of EAP-MSCHAPv2: what the server receives with, what it sends with
// (RFC 3079, section 3.3), and zeros.
func (p *msProof) keys() ([]byte, error) {
	if p.code == nil {
		return nil, errUnproven
	}
	receive, err := rfc3079.MakeKey(p.response, p.code, false)
	if err != nil {
		return nil, err
	}
	send, err := rfc3079.MakeKey(p.response, p.code, true)
	if err != nil {
		return nil, err
	}
	msk := make([]byte, mskSize)
	copy(msk[copy(msk, receive):], send)
	return msk, nil
}

// wipe forgets the code.
func (p *msProof) wipe() {
	clear(p.code)
	p.code = nil
}
