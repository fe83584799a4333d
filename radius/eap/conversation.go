package eap

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"time"
)

// What a conversation may cost at most. A peer that needs more is refused.
const (
	// MaxRounds is how many packets of the peer a conversation takes.
	MaxRounds = 60
	// MaxLife is how long after New a conversation takes packets.
	MaxLife = 60 * time.Second
	// maxInput is how many bytes of the peer a conversation takes.
	maxInput = 64 << 10
)

// Next is what the caller does after a step: Continue, Ask, Done or Discard.
type Next interface{ next() }

// Continue says: send out, and wait for the peer's answer (Access-Challenge).
type Continue struct {
	// Err says for the log why it can only fail from here on: out tells the peer, which
	// may well hang up without an answer, so that Done never comes. nil: it may succeed.
	Err error
}

// Ask says: put the attempt to the core, then call Told with its verdict. If there is
// no verdict the caller does nothing; the same packet makes the same Ask once more.
type Ask struct{ *Attempt }

// Done says: send out, which is an EAP-Success or EAP-Failure, and forget the
// conversation.
type Done struct {
	Accept bool
	// MSK is the 64 bytes of key that peer and server share after an accept: the first
	// half is MS-MPPE-Recv-Key, the second MS-MPPE-Send-Key (RFC 3748, section 7.10;
	// RFC 2548, section 2.4). nil: the method makes none.
	MSK []byte
	// Err says of a failure why, for the log; nil: the core said no.
	Err error
}

// Discard says: answer nothing (RFC 3748, section 4.1). The conversation is as it was.
type Discard struct{}

func (Continue) next() {}
func (Ask) next()      {}
func (Done) next()     {}
func (Discard) next()  {}

// Attempt is what a peer sent to prove a user. Either Code or Proof is set.
type Attempt struct {
	User   string // as sent, in UTF-8; the inner identity where there is a tunnel
	Code   []byte // as typed; Told and Close wipe it
	Proof  Proof
	Method Method
}

// Proof is what was computed from a code. It is as tokens.Proof.
type Proof interface {
	// Proves says whether it was computed from a code, in digits. One goroutine at a
	// time calls it. It remembers the last code that it proves.
	Proves(code []byte) bool
}

// errLife and the others say why a conversation ended without the core.
var (
	errRounds   = fmt.Errorf("the EAP peer has sent more than %d packets without an end", MaxRounds)
	errInput    = fmt.Errorf("the EAP peer has sent more than %d bytes", maxInput)
	errLife     = fmt.Errorf("the EAP conversation has lasted longer than %v", MaxLife)
	errClosed   = errors.New("the EAP conversation is closed")
	errIdentity = errors.New("the EAP identity is not what User-Name says: look at the gateway's or a proxy's rules for user names")
)

// Conversation is the server's side of one EAP authentication. One goroutine at a time
// uses it.
type Conversation struct {
	cfg     Config
	outer   string // the identity in User-Name, or nothing
	talk    dialogue
	started time.Time
	rounds  int
	input   int

	begun bool
	id    byte // of the last request
	// asked is the attempt that the core has not decided yet.
	asked *Attempt

	// What the last packet led to, to answer it again.
	seed maphash.Seed
	last uint64
	out  []byte
	next Next
}

// New begins a conversation with the peer whose User-Name is identity, which must be
// what the peer calls itself outside (RFC 3579, section 2.1); empty: it is not compared.
// Close ends it.
func New(cfg Config, identity string) (*Conversation, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	c := &Conversation{cfg: cfg, outer: identity, started: cfg.Now(), seed: maphash.MakeSeed()}
	c.talk = newDialogue(c, offers(c.cfg.Methods, ways))
	return c, nil
}

// Step takes a packet of the peer; an empty one is an EAP-Start
// (RFC 3579, section 2.1). It answers the packet to send, if there is one, and what
// comes next. A packet that repeats the last is answered as that was; one that is not
// the answer to the last request is discarded. When ctx ends before the step has, so
// does the conversation.
func (c *Conversation) Step(ctx context.Context, in []byte) (out []byte, next Next) {
	sum := maphash.Bytes(c.seed, in)
	if c.next != nil && sum == c.last {
		return c.out, c.next
	}
	if c.asked != nil || c.ended() {
		return nil, Discard{}
	}
	if len(in) == 0 && !c.begun {
		c.begun = true
		c.id = c.random()
		c.last = sum
		return c.told(move{kind: typeIdentity}, c.id)
	}
	id, kind, data, err := parse(in)
	if err != nil || c.begun && id != c.id {
		return nil, Discard{}
	}
	if !c.begun && kind != typeIdentity {
		return nil, Discard{} // the conversation that it belongs to is over
	}
	c.begun, c.id = true, id
	c.rounds++
	c.input += len(in)
	m := c.bounds(kind, data)
	if m.ends == nil {
		m = c.talk.respond(ctx, kind, data)
	}
	if m.ignore {
		return nil, Discard{}
	}
	c.last = sum
	return c.told(m, id+1)
}

// bounds says whether the peer asks for too much.
func (c *Conversation) bounds(kind byte, data []byte) move {
	switch {
	case c.rounds > MaxRounds:
		return fail(errRounds)
	case c.input > maxInput:
		return fail(errInput)
	case c.cfg.Now().Sub(c.started) > MaxLife:
		return fail(errLife)
	case !c.talk.named && kind == typeIdentity && c.outer != "" && string(data) != c.outer:
		return fail(errIdentity)
	}
	return move{}
}

// Told is the core's verdict on what Ask asked.
func (c *Conversation) Told(accept bool) (out []byte, next Next) {
	if c.asked == nil {
		return nil, Discard{}
	}
	m := c.talk.told(accept)
	clear(c.asked.Code)
	c.asked = nil
	return c.told(m, c.id+1)
}

// told makes the packet of a move, and remembers both.
func (c *Conversation) told(m move, id byte) ([]byte, Next) {
	switch {
	case m.ends != nil:
		c.talk.close()
		// The identifier is that of the response (RFC 3748, section 4.2).
		c.out, c.next = result(c.id, m.ends.Accept), *m.ends
	case m.asks != nil:
		c.asked = m.asks
		c.out, c.next = nil, Ask{m.asks}
	default:
		c.id = id
		c.out, c.next = request(id, m.kind, m.data), Continue{m.fails}
	}
	return c.out, c.next
}

// Close ends the conversation and wipes what it holds. It may be called twice.
func (c *Conversation) Close() {
	if c.asked != nil {
		clear(c.asked.Code)
		c.asked = nil
	}
	c.talk.close()
	if !c.ended() {
		c.out, c.next = nil, Done{Err: errClosed}
		c.last = 0
	}
}

func (c *Conversation) ended() bool {
	_, over := c.next.(Done)
	return over
}

// random is an identifier to begin with.
func (c *Conversation) random() byte {
	var b [1]byte
	// Nothing rests on it: it keeps conversations apart a little better.
	_, _ = c.cfg.Rand.Read(b[:])
	return b[0]
}
