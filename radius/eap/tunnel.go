package eap

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
)

// tunnel is what TTLS and PEAP share: TLS, in fragments, with something inside.
type tunnel struct {
	kind   byte
	c      *Conversation
	frames fragments
	tls    *channel
	inner  speaker // what speaks inside; its data is plain text
	begun  bool    // it has
	msk    []byte
	ends   *Done // once the peer has seen why TLS failed
	label  string
}

// newTunnel makes the tunnel of one type. label is that of its keys up to TLS 1.2.
func newTunnel(c *Conversation, kind byte, label string) *tunnel {
	return &tunnel{kind: kind, c: c, label: label, frames: fragments{size: c.cfg.FragmentSize}, tls: newChannel(tls.Server, c.cfg.TLS())}
}

func (t *tunnel) begin() move { return say([]byte{flagStart}) }

func (t *tunnel) respond(ctx context.Context, data []byte) move {
	message, whole, err := t.frames.take(data)
	switch {
	case err != nil:
		return fail(err)
	case t.frames.waiting():
		if !whole || len(message) > 0 {
			return fail(errAck)
		}
		return say(t.frames.next())
	case !whole:
		return say(acknowledgement)
	case t.ends != nil:
		return move{ends: t.ends}
	case len(message) == 0 && !t.tls.ready:
		return fail(errForm)
	case len(message) == 0:
		return t.enter(ctx, nil)
	}
	open := t.tls.ready
	t.tls.step(ctx, message)
	if err := t.tls.err; err != nil {
		if says := plainAlert(message); !open && says != nil {
			return fail(says)
		}
		alert := t.tls.records()
		if open || len(alert) == 0 {
			return fail(err)
		}
		t.ends = &Done{Err: err}
		return move{data: t.frames.send(alert), fails: err}
	}
	if !t.tls.ready {
		return say(t.frames.send(t.tls.records()))
	}
	if !open {
		if err := t.keys(); err != nil {
			return fail(err)
		}
		// Up to TLS 1.2 ours was the last word, which the peer acknowledges, or answers at
		// once with what belongs inside.
		if len(t.tls.out) > 0 && len(t.tls.plain) == 0 {
			return say(t.frames.send(t.tls.records()))
		}
	}
	plain := t.tls.plain
	t.tls.plain = plain[:0]
	defer clear(plain)
	return t.enter(ctx, plain)
}

// plainAlert is the alert that a message is, if it is not encrypted. OpenSSL says so
// that it does not trust a certificate, in TLS 1.3 too, where crypto/tls takes it for a
// record that cannot be decrypted (RFC 8446, section 6, leaves it open).
func plainAlert(message []byte) error {
	if len(message) != 7 || message[0] != 21 || message[3] != 0 || message[4] != 2 {
		return nil
	}
	return fmt.Errorf("TLS with the EAP peer: remote error: %w", tls.AlertError(message[6]))
}

// keys makes the MSK: from here on peer and server share it (RFC 5216, section 2.3;
// RFC 5281, section 8; RFC 9427, section 2).
func (t *tunnel) keys() (err error) {
	if t.tls.state.Version >= tls.VersionTLS13 {
		t.msk, err = t.tls.export("EXPORTER_EAP_TLS_Key_Material", []byte{t.kind}, 2*mskSize)
	} else {
		t.msk, err = t.tls.export(t.label, nil, 2*mskSize)
	}
	if err != nil {
		return err
	}
	// The second half is the EMSK, which has no use here.
	clear(t.msk[mskSize:])
	t.msk = t.msk[:mskSize:mskSize]
	return nil
}

// enter takes what the peer said inside; nothing: it acknowledged.
func (t *tunnel) enter(ctx context.Context, plain []byte) move {
	if len(plain) == 0 && !t.begun {
		t.begun = true
		return t.leave(t.inner.begin())
	}
	t.begun = true
	return t.leave(t.inner.respond(ctx, plain))
}

func (t *tunnel) told(accept bool) move { return t.leave(t.inner.told(accept)) }

// leave sends what is said inside.
func (t *tunnel) leave(m move) move {
	switch {
	case m.ends != nil && m.ends.Accept:
		return succeed(bytes.Clone(t.msk))
	case m.ends != nil, m.asks != nil:
		return m
	case m.ignore:
		return fail(errForm)
	}
	if len(m.data) > 0 {
		if err := t.tls.say(m.data); err != nil {
			return fail(err)
		}
	}
	return say(t.frames.send(t.tls.records()))
}

func (t *tunnel) close() {
	t.inner.close()
	t.tls.close()
	clear(t.msk)
}
