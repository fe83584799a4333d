package eap

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"sync"
	"testing"
	"time"
)

// peer is the other side, for what a real one does not do.
type peer struct {
	t      testing.TB
	c      *Conversation
	kind   byte
	id     byte
	tls    *channel
	frames fragments
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	now := time.Now()
	cert := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"example.org"}, NotBefore: now.AddDate(-50, 0, 0), NotAfter: now.AddDate(50, 0, 0)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func serverTLS() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{certificate()}} }

// meet begins a conversation by one method, up to the start of its tunnel.
func meet(t testing.TB, version uint16, methods ...Method) *peer {
	c, err := New(Config{Methods: methods, TLS: serverTLS, FragmentSize: 400}, "anonymous")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, c: c, kind: ways[methods[0]].kind, frames: fragments{size: 300}}
	p.tls = newChannel(tls.Client, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
	t.Cleanup(func() { c.Close(); p.tls.close() })
	out, _ := c.Step(context.Background(), respond(1, typeIdentity, []byte("anonymous")))
	if len(out) != 6 || out[4] != p.kind || out[5] != flagStart {
		t.Fatalf("the tunnel starts with %x", out)
	}
	p.id = out[1]
	return p
}

func respond(id, kind byte, data []byte) []byte {
	b := request(id, kind, data)
	b[0] = codeResponse
	return b
}

// send sends one packet and answers the type data that comes back, if any does.
func (p *peer) send(data []byte) ([]byte, Next) {
	out, next := p.c.Step(context.Background(), respond(p.id, p.kind, data))
	return p.got(out), next
}

func (p *peer) got(out []byte) []byte {
	if len(out) <= dataAt {
		return nil
	}
	if len(out) > p.c.cfg.FragmentSize {
		p.t.Fatalf("a packet has %d bytes", len(out))
	}
	p.id = out[1]
	return out[dataAt:]
}

// exchange sends a whole message, and takes a whole one.
func (p *peer) exchange(message []byte) ([]byte, Next) {
	data, next := p.send(p.frames.send(message))
	for p.frames.waiting() {
		if !bytes.Equal(data, acknowledgement) {
			return nil, next
		}
		data, next = p.send(p.frames.next())
	}
	return p.whole(data, next)
}

func (p *peer) whole(data []byte, next Next) ([]byte, Next) {
	for len(data) > 0 {
		reply, whole, err := p.frames.take(data)
		if err != nil {
			p.t.Fatalf("the server's fragments: %v", err)
		}
		if whole {
			return reply, next
		}
		data, next = p.send(acknowledgement)
	}
	return nil, next
}

// handshake opens the tunnel, and leaves at the first thing said in it.
func (p *peer) handshake() {
	p.t.Helper()
	p.tls.step(context.Background(), nil)
	for range 8 {
		reply, next := p.exchange(p.tls.records())
		if _, ok := next.(Continue); !ok {
			p.t.Fatalf("the handshake ends with %#v", next)
		}
		if len(reply) > 0 {
			p.tls.step(context.Background(), reply)
		}
		if p.tls.err != nil {
			p.t.Fatal(p.tls.err)
		}
		if p.tls.ready && len(p.tls.out) == 0 {
			return
		}
	}
	p.t.Fatal("the handshake does not end")
}

// say says something in the tunnel and answers what is said there.
func (p *peer) say(plain []byte) ([]byte, Next) {
	if err := p.tls.say(plain); err != nil {
		p.t.Fatal(err)
	}
	return p.heard(p.exchange(p.tls.records()))
}

// heard decrypts.
func (p *peer) heard(reply []byte, next Next) ([]byte, Next) {
	if len(reply) > 0 {
		p.tls.step(context.Background(), reply)
	}
	plain := bytes.Clone(p.tls.plain)
	p.tls.plain = nil
	return plain, next
}

// told gives the core's verdict.
func (p *peer) told(accept bool) ([]byte, Next) {
	out, next := p.c.Told(accept)
	return p.heard(p.whole(p.got(out), next))
}

// listen takes what the server says first, in PEAP: with TLS 1.3 it has done so.
func (p *peer) listen() {
	p.t.Helper()
	plain := p.tls.plain
	p.tls.plain = nil
	if len(plain) == 0 {
		plain, _ = p.heard(p.exchange(nil))
	}
	if !bytes.Equal(plain, []byte{typeIdentity}) {
		p.t.Fatalf("the server begins with %x", plain)
	}
}
