package eap

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
)

// ttls is what RADIUS would carry, inside a tunnel: PAP, MS-CHAPv2, or EAP (EAP-TTLS
// version 0, RFC 5281). The peer speaks first.
type ttls struct {
	c       *Conversation
	tunnel  *tunnel
	methods []Method

	talk  *dialogue // with EAP inside
	id    byte      // of its last request, or what is to come back with the proof
	proof *msProof  // with MS-CHAPv2
	asked bool
	ends  *Done // when the peer has acknowledged our proof
}

// errInner is told with what the peer wanted.
var errInner = errors.New("the EAP peer wants a method inside TTLS that is not offered: look at its settings, or allow what it wants")

func newTTLS(c *Conversation, _ string, methods []Method) speaker {
	t := newTunnel(c, typeTTLS, "ttls keying material")
	t.inner = &ttls{c: c, tunnel: t, methods: methods}
	return t
}

// begin lets the peer speak.
func (t *ttls) begin() move { return say(nil) }

func (t *ttls) respond(ctx context.Context, plain []byte) move {
	if t.ends != nil {
		if len(plain) > 0 {
			return fail(errForm)
		}
		return move{ends: t.ends}
	}
	s, err := read(plain)
	defer clear(s.packet)
	switch {
	case err != nil:
		return fail(err)
	case s.packet != nil && s.password == nil && s.answer == nil:
		return t.packet(ctx, s.packet)
	case s.packet != nil, t.asked, t.talk != nil:
		return fail(errForm)
	case !nameable(s.user):
		return fail(errUser)
	case s.password != nil:
		return t.pap(&s)
	case s.answer != nil:
		return t.mschapv2(&s)
	}
	return fail(fmt.Errorf("%w: neither PAP, nor MS-CHAPv2, nor EAP", errInner))
}

// said is what the peer said at once; what is missing is nil.
type said struct {
	user, password, challenge, answer, packet []byte
}

// read finds out. Each AVP stands once, but for those that EAP is cut into, and what we
// do not know is not mandatory (RFC 5281, section 10.1).
func read(plain []byte) (s said, err error) {
	for a, err := range avps(plain) {
		if err != nil {
			return s, err
		}
		var to *[]byte
		switch {
		case a.vendor == 0 && a.code == avpUserName:
			to = &s.user
		case a.vendor == 0 && a.code == avpUserPassword:
			to = &s.password
		case a.vendor == 0 && a.code == avpEAPMessage:
			s.packet = append(s.packet, a.value...)
			continue
		case a.vendor == vendorMicrosoft && a.code == avpMSChallenge:
			to = &s.challenge
		case a.vendor == vendorMicrosoft && a.code == avpMSCHAP2Answer:
			to = &s.answer
		case a.mandatory:
			return s, fmt.Errorf("%w: AVP %d of vendor %d", errInner, a.code, a.vendor)
		default:
			continue
		}
		if *to != nil {
			return s, errForm
		}
		*to = a.value
	}
	return s, nil
}

// pap takes a code, which may be padded with zeros to hide its length (section 11.2.5).
func (t *ttls) pap(s *said) move {
	if !slices.Contains(t.methods, TTLSPAP) {
		return fail(fmt.Errorf("%w: PAP", errInner))
	}
	code := bytes.TrimRight(s.password, "\x00")
	if len(code) > maxCode {
		return fail(errCode)
	}
	t.asked = true
	return ask(&Attempt{User: string(s.user), Code: bytes.Clone(code), Method: TTLSPAP})
}

// mschapv2 takes a proof. The challenge is not the peer's choice: both sides make it
// from the tunnel (section 11.1), so that it is worth nothing in another one.
func (t *ttls) mschapv2(s *said) move {
	if !slices.Contains(t.methods, TTLSMSCHAPv2) {
		return fail(fmt.Errorf("%w: MS-CHAPv2", errInner))
	}
	implicit, err := t.tunnel.tls.export("ttls challenge", nil, challengeSize+1)
	if err != nil {
		return fail(err)
	}
	// Identifier, flags, the peer's challenge, eight zeros, NT response.
	if len(s.answer) != 2+challengeSize+8+ntResponseSize {
		return fail(errForm)
	}
	if subtle.ConstantTimeCompare(s.challenge, implicit[:challengeSize]) != 1 || s.answer[0] != implicit[challengeSize] {
		return fail(errForm)
	}
	t.asked, t.id = true, s.answer[0]
	t.proof = newMSProof(s.challenge, s.answer[2:2+challengeSize], s.answer[2+ntResponseAt:], s.user)
	return ask(&Attempt{User: string(s.user), Proof: t.proof, Method: TTLSMSCHAPv2})
}

// packet takes one of EAP.
func (t *ttls) packet(ctx context.Context, packet []byte) move {
	if t.talk == nil {
		offers := offers(t.methods, inside)
		if t.asked || len(offers) == 0 {
			return fail(fmt.Errorf("%w: EAP", errInner))
		}
		talk := newDialogue(t.c, offers)
		t.talk = &talk
	}
	id, kind, data, err := parse(packet)
	if err != nil || t.talk.named && id != t.id {
		return fail(errForm)
	}
	t.id = id
	return t.say(t.talk.respond(ctx, kind, data))
}

func (t *ttls) told(accept bool) move {
	switch {
	case t.talk != nil:
		return t.say(t.talk.told(accept))
	case !accept:
		return fail(nil)
	case t.proof == nil:
		return succeed(nil)
	}
	success, err := t.proof.success()
	if err != nil {
		return fail(err)
	}
	t.proof.wipe()
	t.ends = &Done{Accept: true}
	proof := avp{vendorMicrosoft, avpMSCHAP2Proof, true, append([]byte{t.id}, success...)}
	return say(proof.append(nil))
}

// say puts a packet of EAP into AVPs. Its end needs none: that of the outside says so.
func (t *ttls) say(m move) move {
	if m.ends != nil || m.asks != nil || m.ignore {
		return m
	}
	t.id++
	return say(avp{0, avpEAPMessage, true, request(t.id, m.kind, m.data)}.append(nil))
}

func (t *ttls) close() {
	if t.talk != nil {
		t.talk.close()
	}
	if t.proof != nil {
		t.proof.wipe()
	}
}
