package radius

import (
	"context"
	"net/netip"

	"watchword/tokens"
)

// Core is what the RADIUS server asks of tokens.Service. All methods may be
// called concurrently.
type Core interface {
	// ClientFor answers the client whose prefix holds addr, the most specific
	// one. It is called for every datagram and never blocks.
	ClientFor(addr netip.Addr) (*tokens.RADIUSClient, bool)

	// Ask decides an attempt and calls done, once, when the decision is durable. A
	// reject is the zero Result and no error. It does not wait for that itself, and
	// done keeps nobody waiting. When ctx ends nobody listens any more.
	Ask(ctx context.Context, p tokens.Principal, a tokens.Attempt, done func(tokens.Result, error))

	// Ready says what keeps the core from verifying; nothing: it can.
	Ready() []tokens.Problem
}

var _ Core = (*tokens.Service)(nil)
