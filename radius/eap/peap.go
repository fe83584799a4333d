package eap

import (
	"bytes"
	"context"
	"encoding/binary"
)

// peap is EAP inside a tunnel, without the headers of its packets (PEAP version 0;
// draft-kamath-pppext-peapv0). What ends it is a result that both sides say inside.
type peap struct {
	c    *Conversation
	talk dialogue
	ends *Done // when the peer has said the same
}

func newPEAP(c *Conversation, _ string, methods []Method) speaker {
	t := newTunnel(c, typePEAP, "client EAP encryption")
	t.inner = &peap{c: c, talk: newDialogue(c, offers(methods, inside))}
	return t
}

func (p *peap) begin() move { return say([]byte{typeIdentity}) }

func (p *peap) respond(ctx context.Context, plain []byte) move {
	if p.ends != nil {
		return p.concluded(plain)
	}
	// Some peers leave the header on. It cannot be mistaken: no response is of the type
	// that its code would be.
	if _, kind, data, err := parse(plain); err == nil {
		return p.say(p.talk.respond(ctx, kind, data))
	}
	if len(plain) == 0 {
		return fail(errForm)
	}
	return p.say(p.talk.respond(ctx, plain[0], plain[1:]))
}

func (p *peap) told(accept bool) move { return p.say(p.talk.told(accept)) }

func (p *peap) say(m move) move {
	switch {
	case m.ends != nil:
		p.ends = m.ends
		return say(request(p.c.id+1, typeExtensions, outcome(m.ends.Accept)))
	case m.asks != nil, m.ignore:
		return m
	}
	return say(append([]byte{m.kind}, m.data...))
}

// outcome is the Result TLV, which is mandatory, of two bytes: 1 is success, 2 is
// failure.
func outcome(accept bool) []byte {
	b := []byte{0x80, 3, 0, 2, 0, 2}
	if accept {
		b[5] = 1
	}
	return b
}

// concluded takes the peer's result. Only if both are success is there one. Other TLVs
// may stand beside it.
func (p *peap) concluded(plain []byte) move {
	_, kind, data, err := parse(plain)
	if !p.ends.Accept {
		return move{ends: p.ends}
	}
	if err != nil || kind != typeExtensions {
		return fail(errForm)
	}
	success := false
	for len(data) > 0 {
		if len(data) < 4 || int(binary.BigEndian.Uint16(data[2:])) > len(data)-4 {
			return fail(errForm)
		}
		n := 4 + int(binary.BigEndian.Uint16(data[2:]))
		if data[0]&0x3f == 0 && data[1] == 3 {
			if !bytes.Equal(data[4:n], []byte{0, 1}) {
				return fail(errDisbelief)
			}
			success = true
		}
		data = data[n:]
	}
	if !success {
		return fail(errForm)
	}
	return move{ends: p.ends}
}

func (p *peap) close() { p.talk.close() }
