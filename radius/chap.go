package radius

import (
	"crypto/md5"
	"crypto/subtle"

	"watchword/tokens"
)

// chap is an MD5 over an identifier, the code and a challenge (RFC 2865, section 5.3,
// and RFC 1994): CHAP-Password holds the identifier and the MD5; the challenge is in
// CHAP-Challenge, or else it is the request's authenticator.
//
// Who sees such a request tries a million codes in a moment. What protects a code is
// that it is good once, and for a minute.
var chap = method{
	name:   tokens.MethodCHAP,
	speaks: func(p *packet) bool { return p.chapPassword != nil },
	read: func(r *request, a *tokens.Attempt) error {
		p := &r.packet
		if len(p.chapPassword) != 1+md5.Size {
			return errProof
		}
		challenge := p.chapChallenge
		if challenge == nil {
			challenge = p.authenticator()
		}
		if len(challenge) == 0 {
			return errProof
		}
		proof := &chapProof{before: [1]byte{p.chapPassword[0]}, challenge: append([]byte(nil), challenge...)}
		copy(proof.response[:], p.chapPassword[1:])
		a.Proof, a.Method = proof, string(tokens.MethodCHAP)
		return nil
	},
}

// chapProof is a response to a challenge. It holds copies: the core may look at it when
// the request is over.
type chapProof struct {
	before    [1]byte // the identifier
	challenge []byte
	response  [md5.Size]byte
}

// Proves implements tokens.Proof.
func (c *chapProof) Proves(code []byte) bool {
	text := make([]byte, 0, 64)
	text = append(text, c.before[:]...)
	text = append(text, code...)
	text = append(text, c.challenge...)
	sum := md5.Sum(text)
	return subtle.ConstantTimeCompare(sum[:], c.response[:]) == 1
}
