package main

import (
	"crypto/hmac"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"time"
)

// nas is a RADIUS client with one request under way: RFC 2865 Access-Request,
// PAP, with a Message-Authenticator first.
type nas struct {
	conn   net.Conn
	secret []byte
	id     byte
	random *rand.ChaCha8
	in     [4096]byte
}

func dialNAS(addr, secret string) (*nas, error) {
	conn, err := net.Dial("udp", addr)
	if err != nil {
		return nil, err
	}
	n := &nas{conn: conn, secret: []byte(secret)}
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], rand.Uint64())
	binary.LittleEndian.PutUint64(seed[8:], rand.Uint64())
	n.random = rand.NewChaCha8(seed)
	return n, nil
}

var errReject = errors.New("Access-Reject")

// login sends one request with the password in User-Password, and waits for the reply.
func (n *nas) login(user, password string) error { return n.ask(user, password, n.pap) }

// ask sends one request, to which shows appends what shows the code, and waits for the
// reply; a lost packet is sent again with the same bytes, as a NAS does.
func (n *nas) ask(user, code string, shows func(b []byte, user, code string) []byte) error {
	n.id++
	b := make([]byte, 20, 256)
	b[0], b[1] = 1, n.id
	n.random.Read(b[4:20])
	b = append(b, 80, 18)
	b = append(b, make([]byte, 16)...)
	b = append(b, 1, byte(2+len(user)))
	b = append(b, user...)
	b = shows(b, user, code)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	m := hmac.New(md5.New, n.secret)
	m.Write(b)
	copy(b[22:38], m.Sum(nil))
	for range 4 {
		if _, err := n.conn.Write(b); err != nil {
			return err
		}
		n.conn.SetReadDeadline(time.Now().Add(3 * time.Second))
		for {
			k, err := n.conn.Read(n.in[:])
			if err != nil {
				break
			}
			if k < 20 || n.in[1] != n.id {
				continue
			}
			switch n.in[0] {
			case 2:
				return nil
			case 3:
				return fmt.Errorf("%s: %w", user, errReject)
			}
		}
	}
	return fmt.Errorf("%s: no reply", user)
}

// pap hides the code under the shared secret (RFC 2865, section 5.2).
func (n *nas) pap(b []byte, _, code string) []byte {
	hidden := make([]byte, (len(code)+15)/16*16)
	copy(hidden, code)
	last := b[4:20]
	for i := 0; i < len(hidden); i += 16 {
		h := md5.New()
		h.Write(n.secret)
		h.Write(last)
		for j, x := range h.Sum(nil) {
			hidden[i+j] ^= x
		}
		last = hidden[i : i+16]
	}
	return append(append(b, 2, byte(2+len(hidden))), hidden...)
}
