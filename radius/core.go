package radius

import (
	"context"
	"errors"
	"net/netip"
)

// Core is what the RADIUS server asks of tokens.Service. All methods may be
// called concurrently.
type Core interface {
	// ClientFor answers the client whose prefix holds addr, the most specific
	// one. It is called for every datagram and never blocks.
	ClientFor(addr netip.Addr) (*RADIUSClient, bool)

	// Verify decides an attempt and returns when the decision is durable. A
	// reject is the zero Result and no error.
	Verify(ctx context.Context, p Principal, a Attempt) (Result, error)

	// Ready says what keeps the server from answering; nothing: it can.
	Ready() []Problem
}

var (
	errInvalid    = errors.New("invalid input")
	errForbidden  = errors.New("not allowed")
	errOverloaded = errors.New("too much at once")
)

type RADIUSClient struct {
	Name      string
	Prefix    netip.Prefix
	Realm     string
	RequireMA bool
	Plain     []byte
}

func (c *RADIUSClient) Principal() Principal {
	return Principal{ID: c.Name, Name: c.Name, Realm: c.Realm}
}
func (c *RADIUSClient) SplitName(name string) (string, string) { return c.Realm, name }

type Principal struct{ ID, Name, Realm, Source string }

func (p Principal) From(source string) Principal { p.Source = source; return p }

type Attempt struct{ Realm, User, Code, Transport string }

type Result struct {
	Accept bool
	Serial string
}

type Problem struct{ Part, Says string }
