package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"
)

// A gateway is a RADIUS client with a socket of its own: RFC 2865
// Access-Request with PAP, by hand, so that the tests decide over each byte.
type gateway struct {
	conn   *net.UDPConn
	secret []byte
	id     byte
}

// The codes of RFC 2865, section 3.
const (
	accessRequest = 1
	accessAccept  = 2
	accessReject  = 3
)

// newGateway opens a socket to a node. from is the address to send from, or
// empty.
func (n *node) newGateway(t testing.TB, from string) *gateway {
	t.Helper()
	return dialGateway(t, n.radius, from, n.secret)
}

func dialGateway(t testing.TB, server, from, secret string) *gateway {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	var local *net.UDPAddr
	if from != "" {
		local = &net.UDPAddr{IP: net.ParseIP(from)}
	}
	conn, err := net.DialUDP("udp", local, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &gateway{conn: conn, secret: []byte(secret)}
}

// request makes an Access-Request with a User-Password, and with a
// Message-Authenticator (RFC 3579, section 3.2) if signed.
func (g *gateway) request(user, password string, signed bool) []byte {
	return g.build(user, signed, func(authenticator []byte) []byte {
		hidden := make([]byte, max(1, (len(password)+15)/16)*16)
		copy(hidden, password)
		last := authenticator
		for i := 0; i < len(hidden); i += 16 {
			sum := md5.Sum(append(append([]byte(nil), g.secret...), last...))
			for j, x := range sum {
				hidden[i+j] ^= x
			}
			last = hidden[i : i+16]
		}
		return append([]byte{2, byte(2 + len(hidden))}, hidden...)
	})
}

// build makes an Access-Request with the attributes that show the code.
func (g *gateway) build(user string, signed bool, shows func(authenticator []byte) []byte) []byte {
	g.id++
	b := make([]byte, 20, 256)
	b[0], b[1] = accessRequest, g.id
	rand.Read(b[4:20])
	if signed {
		b = append(b, 80, 18)
		b = append(b, make([]byte, 16)...)
	}
	b = append(b, 1, byte(2+len(user)))
	b = append(b, user...)
	b = append(b, shows(bytes.Clone(b[4:20]))...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	if signed {
		m := hmac.New(md5.New, g.secret)
		m.Write(b)
		copy(b[22:38], m.Sum(nil))
	}
	return b
}

func (g *gateway) send(packet []byte) error {
	_, err := g.conn.Write(packet)
	return err
}

// receive waits for the reply to a request and proves it; nil is none.
func (g *gateway) receive(request []byte, within time.Duration) ([]byte, error) {
	buf := make([]byte, 4096)
	if err := g.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	for {
		n, err := g.conn.Read(buf)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			return nil, nil
		}
		if err != nil {
			return nil, nil // the port is closed: nobody answers
		}
		if n < 20 || buf[1] != request[1] {
			continue // late, to a request before
		}
		reply := append([]byte(nil), buf[:n]...)
		return reply, g.prove(request, reply)
	}
}

// prove checks the Response Authenticator (RFC 2865, section 3) and the
// Message-Authenticator, which is the first attribute of every reply.
func (g *gateway) prove(request, reply []byte) error {
	h := md5.New()
	h.Write(reply[:4])
	h.Write(request[4:20])
	h.Write(reply[20:])
	h.Write(g.secret)
	if !hmac.Equal(h.Sum(nil), reply[4:20]) {
		return fmt.Errorf("a reply has a wrong Response Authenticator")
	}
	if len(reply) < 38 || reply[20] != 80 || reply[21] != 18 {
		return fmt.Errorf("a reply does not begin with a Message-Authenticator")
	}
	m := hmac.New(md5.New, g.secret)
	m.Write(reply[:4])
	m.Write(request[4:20])
	m.Write(reply[20:22])
	m.Write(make([]byte, 16))
	m.Write(reply[38:])
	if !bytes.Equal(m.Sum(nil), reply[22:38]) {
		return fmt.Errorf("a reply has a wrong Message-Authenticator")
	}
	return nil
}

// login sends one request once, and says what came of it.
func (g *gateway) login(user, code string, within time.Duration) sight {
	request := g.request(user, code, true)
	if err := g.send(request); err != nil {
		return sawNothing
	}
	return g.await(request, within)
}

// await is what came of a request that was sent.
func (g *gateway) await(request []byte, within time.Duration) sight {
	reply, err := g.receive(request, within)
	switch {
	case err != nil:
		return sight(err.Error())
	case reply == nil:
		return sawNothing
	case reply[0] == accessAccept:
		return sawAccept
	case reply[0] == accessReject:
		return sawReject
	}
	return sight(fmt.Sprintf("RADIUS code %d", reply[0]))
}
