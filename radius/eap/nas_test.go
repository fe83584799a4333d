package eap_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"
	"layeh.com/radius/vendors/microsoft"

	"watchword/radius/eap"
)

const (
	secret   = "s3cr3t"
	goodUser = "alice"
	goodCode = "755224"
)

// server is as much RADIUS as carries EAP to a program that speaks it.
type server struct {
	t      *testing.T
	cfg    eap.Config
	conn   net.PacketConn
	done   sync.WaitGroup
	repeat bool
	silent atomic.Int32 // after so many requests nothing is answered any more; 0: never

	mu    sync.Mutex
	talks map[string]*eap.Conversation
	asked []eap.Attempt // without codes
	ended []eap.Done
	sizes []int // of the packets of EAP that went out
}

// serve starts a server that accepts goodUser with goodCode.
func serve(t *testing.T, cfg eap.Config) *server { return serveTwice(t, cfg, false) }

// serveTwice may handle each request twice, as if the gateway had sent it again.
func serveTwice(t *testing.T, cfg eap.Config, repeat bool) *server {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, cfg: cfg, conn: conn, repeat: repeat, talks: map[string]*eap.Conversation{}}
	s.done.Go(s.run)
	t.Cleanup(func() {
		conn.Close()
		s.done.Wait()
		for _, c := range s.talks {
			c.Close()
		}
	})
	return s
}

func (s *server) run() {
	b := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFrom(b)
		if err != nil {
			return
		}
		p, err := radius.Parse(b[:n], []byte(secret))
		if err != nil {
			s.t.Errorf("a packet of the peer does not parse: %v", err)
			return
		}
		if s.silent.Load() > 0 && s.silent.Add(-1) == 0 {
			return
		}
		reply := s.answer(p)
		if reply == nil {
			continue
		}
		if _, err := s.conn.WriteTo(sign(s.t, reply), from); err != nil {
			return
		}
	}
}

// answer is the reply to a request; none: it is dropped.
func (s *server) answer(p *radius.Packet) *radius.Packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := rfc2865.State_Get(p)
	c := s.talks[string(state)]
	if c == nil {
		var err error
		if c, err = eap.New(s.cfg, rfc2865.UserName_GetString(p)); err != nil {
			s.t.Errorf("no conversation: %v", err)
			return nil
		}
		state = fmt.Appendf(nil, "conversation %d", len(s.talks))
		s.talks[string(state)] = c
	}
	in, err := rfc2869.EAPMessage_Lookup(p)
	if err != nil {
		s.t.Error(err)
		return nil
	}
	out, next := s.step(c, in)
	if s.repeat {
		again, same := s.step(c, in)
		if !bytes.Equal(again, out) || fmt.Sprint(same) != fmt.Sprint(next) {
			s.t.Errorf("a repeated packet is answered with %x, the first was with %x", again, out)
		}
	}
	var reply *radius.Packet
	switch next := next.(type) {
	case eap.Discard:
		return nil
	case eap.Continue:
		if next.Err != nil {
			s.ended = append(s.ended, eap.Done{Err: next.Err})
		}
		s.sizes = append(s.sizes, len(out))
		reply = p.Response(radius.CodeAccessChallenge)
		rfc2865.State_Set(reply, state)
	case eap.Done:
		if s.ended = append(s.ended, next); next.Accept {
			reply = p.Response(radius.CodeAccessAccept)
			if next.MSK != nil {
				microsoft.MSMPPERecvKey_Set(reply, next.MSK[:32])
				microsoft.MSMPPESendKey_Set(reply, next.MSK[32:])
			}
		} else {
			reply = p.Response(radius.CodeAccessReject)
		}
		c.Close()
	}
	rfc2869.EAPMessage_Set(reply, out)
	return reply
}

// step does what the caller of a conversation does.
func (s *server) step(c *eap.Conversation, in []byte) ([]byte, eap.Next) {
	out, next := c.Step(context.Background(), in)
	if a, ok := next.(eap.Ask); ok {
		accept := verdict(a.Attempt)
		s.asked = append(s.asked, eap.Attempt{User: a.User, Proof: a.Proof, Method: a.Method})
		out, next = c.Told(accept)
	}
	return out, next
}

// verdict is the core's.
func verdict(a *eap.Attempt) bool {
	if a.User != goodUser {
		return false
	}
	if a.Proof != nil {
		return a.Proof.Proves([]byte("999999")) || a.Proof.Proves([]byte(goodCode))
	}
	return string(a.Code) == goodCode
}

// sign encodes a reply with its Message-Authenticator (RFC 3579, section 3.2).
func sign(t *testing.T, p *radius.Packet) []byte {
	rfc2869.MessageAuthenticator_Set(p, make([]byte, 16))
	request := p.Authenticator
	b, err := p.MarshalBinary()
	if err != nil {
		t.Errorf("a reply does not encode: %v", err)
		return nil
	}
	mac := hmac.New(md5.New, []byte(secret))
	mac.Write(b)
	rfc2869.MessageAuthenticator_Set(p, mac.Sum(nil))
	p.Authenticator = request
	if b, err = p.Encode(); err != nil {
		t.Errorf("a reply does not encode: %v", err)
	}
	return b
}

// eapolTest lets eapol_test, which speaks EAP as wpa_supplicant does, authenticate with
// the settings of one network. It answers its exit and what it said.
func (s *server) eapolTest(network string, args ...string) (ok bool, said string) {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "network.conf")
	if err := os.WriteFile(file, []byte("network={\nkey_mgmt=WPA-EAP\n"+network+"\n}\n"), 0o600); err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	_, port, err := net.SplitHostPort(s.conn.LocalAddr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "eapol_test", append([]string{"-c", file, "-a", "127.0.0.1", "-A", "127.0.0.1", "-p", port, "-s", secret, "-t", "30"}, args...)...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		s.t.Fatalf("eapol_test (package eapoltest) does not run: %v", err)
	}
	lines := strings.TrimSpace(string(out))
	if (err == nil) != strings.HasSuffix(lines, "SUCCESS") {
		s.t.Fatalf("eapol_test ends with %v and says\n%s", err, lines)
	}
	return err == nil, lines
}

// last is how the last conversation ended, and the last attempt.
func (s *server) last() (eap.Done, eap.Attempt) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ended) == 0 {
		s.t.Fatal("no conversation has ended")
	}
	var a eap.Attempt
	if len(s.asked) > 0 {
		a = s.asked[len(s.asked)-1]
	}
	return s.ended[len(s.ended)-1], a
}

// asks is how often the core was asked.
func (s *server) asks() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// packets are the sizes of what went out.
func (s *server) packets() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sizes)
}

// has says whether eapol_test said that it derived this key.
func has(said string, key []byte) bool {
	return strings.Contains(strings.ReplaceAll(said, " ", ""), hex.EncodeToString(key))
}
