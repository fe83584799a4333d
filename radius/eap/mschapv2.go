package eap

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
)

// The operations of EAP-MSCHAPv2 (draft-kamath-pppext-eap-mschapv2, section 2), and
// sizes in bytes.
const (
	msChallenge = 1
	msResponse  = 2
	msSuccess   = 3
	msFailure   = 4

	msHeaderSize   = 4  // operation, id, length
	msResponseSize = 49 // the peer's challenge, 8 zeros, NT response, flags
	ntResponseAt   = challengeSize + 8
)

// msName is what the server calls itself in its challenge.
const msName = "watchword"

// errDisbelief is what a peer makes of a server that answers without the core.
var errDisbelief = errors.New("the EAP peer does not believe that the server knows the code")

// mschapv2 challenges, takes a proof, and proves that the server knew the code too. The
// name in the response is part of the proof and nothing else: the user is the identity.
type mschapv2 struct {
	method Method
	c      *Conversation
	user   string
	id     byte
	ours   [challengeSize]byte
	proof  *msProof // none: the challenge is not answered yet
	ends   *Done    // when the peer has taken note of the result
}

func newMSCHAPv2(c *Conversation, user string, methods []Method) speaker {
	return &mschapv2{method: methods[0], c: c, user: user}
}

func (m *mschapv2) begin() move {
	if _, err := io.ReadFull(m.c.cfg.Rand, m.ours[:]); err != nil {
		return fail(err)
	}
	m.id = m.c.id + 1 // that of the packet, as peers are used to
	value := append([]byte{challengeSize}, m.ours[:]...)
	return say(m.message(msChallenge, append(value, msName...)))
}

func (m *mschapv2) respond(_ context.Context, data []byte) move {
	switch {
	case m.ends != nil:
		// A peer that does not believe our proof answers a success with a failure, and
		// then there is none. Nothing else can follow a failure.
		if len(data) == 0 || data[0] != msSuccess && data[0] != msFailure {
			return fail(errForm)
		}
		if m.ends.Accept && data[0] != msSuccess {
			return fail(errDisbelief)
		}
		return move{ends: m.ends}
	case m.proof != nil, len(data) < msHeaderSize+1+msResponseSize:
		return fail(errForm)
	case data[0] != msResponse, data[1] != m.id, data[msHeaderSize] != msResponseSize:
		return fail(errForm)
	case int(binary.BigEndian.Uint16(data[2:])) != len(data):
		return fail(errForm)
	}
	value := data[msHeaderSize+1:]
	name := value[msResponseSize:]
	if len(name) > maxName {
		return fail(errUser)
	}
	m.proof = newMSProof(m.ours[:], value[:challengeSize], value[ntResponseAt:][:ntResponseSize], name)
	return ask(&Attempt{User: m.user, Proof: m.proof, Method: m.method})
}

func (m *mschapv2) told(accept bool) move {
	if !accept {
		m.ends = &Done{}
		// ERROR_AUTHENTICATION_FAILURE, and no retry under this challenge (section 2.5).
		text := append([]byte("E=691 R=0 C="), hex.AppendEncode(nil, m.ours[:])...)
		return say(m.message(msFailure, append(text, " V=3 M=Rejected"...)))
	}
	success, err := m.proof.success()
	if err != nil {
		return fail(err)
	}
	msk, err := m.proof.keys()
	if err != nil {
		return fail(err)
	}
	m.proof.wipe()
	m.ends = &Done{Accept: true, MSK: msk}
	return say(m.message(msSuccess, append(success, " M=Accepted"...)))
}

func (m *mschapv2) close() {
	if m.proof != nil {
		m.proof.wipe()
	}
}

// message is one of the operations that have a length.
func (m *mschapv2) message(op byte, value []byte) []byte {
	b := []byte{op, m.id}
	b = binary.BigEndian.AppendUint16(b, uint16(msHeaderSize+len(value)))
	return append(b, value...)
}
