package eap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// Why a peer is refused.
var (
	errNoMethod = errors.New("the EAP peer wants none of the methods that are offered: look at its settings, or allow what it wants; the types of EAP that it names")
	errUser     = errors.New("the EAP peer names no user, or not in UTF-8, or one that is too long")
	errForm     = errors.New("the EAP peer's answer is not of the form that the method has")
	errCode     = errors.New("the EAP peer's code is too long")
)

// move is what a method does next: one of ask, end, ignore and, when there is none of
// these, a request.
type move struct {
	kind   byte
	data   []byte
	asks   *Attempt
	ends   *Done
	ignore bool  // what came does not belong here
	fails  error // a request that is there to say why
}

func fail(err error) move     { return move{ends: &Done{Err: err}} }
func succeed(msk []byte) move { return move{ends: &Done{Accept: true, MSK: msk}} }
func say(data []byte) move    { return move{data: data} }
func ask(a *Attempt) move     { return move{asks: a} }

// speaker speaks one method. What it answers as data goes out under its type.
type speaker interface {
	// begin makes the first request.
	begin() move
	// respond takes the type data of a response.
	respond(ctx context.Context, data []byte) move
	// told takes the core's verdict on what was asked.
	told(accept bool) move
	// close wipes what the speaker holds.
	close()
}

// way is how a Method is spoken: by one type of EAP, and inside that, if it is a
// tunnel, by another.
type way struct {
	kind  byte
	speak func(c *Conversation, user string, methods []Method) speaker
}

var ways = map[Method]way{
	GTC:          {typeGTC, newGTC},
	MSCHAPv2:     {typeMSCHAPv2, newMSCHAPv2},
	TTLSPAP:      {typeTTLS, newTTLS},
	TTLSGTC:      {typeTTLS, newTTLS},
	TTLSMSCHAPv2: {typeTTLS, newTTLS},
	PEAPGTC:      {typePEAP, newPEAP},
	PEAPMSCHAPv2: {typePEAP, newPEAP},
}

// inside are those that are EAP inside a tunnel as well.
var inside = map[Method]way{
	TTLSGTC:      {typeGTC, newGTC},
	TTLSMSCHAPv2: {typeMSCHAPv2, newMSCHAPv2},
	PEAPGTC:      {typeGTC, newGTC},
	PEAPMSCHAPv2: {typeMSCHAPv2, newMSCHAPv2},
}

// offer is one type of EAP, and the methods that it serves.
type offer struct {
	way
	methods []Method
}

// offers are the types by which methods are spoken, each once, in their order.
func offers(methods []Method, ways map[Method]way) []offer {
	var all []offer
	for _, m := range methods {
		w, spoken := ways[m]
		if !spoken {
			continue
		}
		if i := slices.IndexFunc(all, func(o offer) bool { return o.kind == w.kind }); i >= 0 {
			all[i].methods = append(all[i].methods, m)
			continue
		}
		all = append(all, offer{w, []Method{m}})
	}
	return all
}

// dialogue is identity, choice of a method, and that method, which is the same inside
// a tunnel as outside.
type dialogue struct {
	c      *Conversation
	offers []offer // that the peer has not declined; the first is the one in use
	user   string
	named  bool
	// first says that the peer has not answered the method's first request yet: it may
	// still decline.
	first bool
	speak speaker
}

func newDialogue(c *Conversation, offers []offer) dialogue {
	return dialogue{c: c, offers: offers}
}

// respond takes a response to the last request.
func (d *dialogue) respond(ctx context.Context, kind byte, data []byte) move {
	switch {
	case !d.named:
		if kind != typeIdentity {
			return move{ignore: true}
		}
		if !nameable(data) {
			return fail(errUser)
		}
		d.user, d.named = string(data), true
		return d.begin()
	case kind == typeNak && d.first:
		return d.declined(data)
	case kind != d.offers[0].kind:
		return move{ignore: true}
	}
	d.first = false
	return d.mark(d.speak.respond(ctx, data))
}

// begin offers what stands first.
func (d *dialogue) begin() move {
	o := d.offers[0]
	d.speak, d.first = o.speak(d.c, d.user, o.methods), true
	return d.mark(d.speak.begin())
}

// declined goes on with the first of our methods that the peer wants (RFC 3748,
// section 5.3.1). What it does not name is not
// offered again.
func (d *dialogue) declined(wanted []byte) move {
	d.speak.close()
	left := slices.DeleteFunc(d.offers[1:], func(o offer) bool { return bytes.IndexByte(wanted, o.kind) < 0 })
	if len(left) == 0 {
		return fail(fmt.Errorf("%w: %d", errNoMethod, wanted[:min(len(wanted), 16)]))
	}
	d.offers = left
	return d.begin()
}

func (d *dialogue) told(accept bool) move {
	return d.mark(d.speak.told(accept))
}

// mark puts the type of the method on what it says.
func (d *dialogue) mark(m move) move {
	m.kind = d.offers[0].kind
	return m
}

func (d *dialogue) close() {
	if d.speak != nil {
		d.speak.close()
	}
}

// nameable says whether data can be the name of a user.
func nameable(data []byte) bool {
	return len(data) > 0 && len(data) <= maxName && utf8.Valid(data)
}
