package radius

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"encoding/binary"
	"log/slog"
	"testing"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"

	"watchword/tokens"
)

// FuzzPacket drives arbitrary datagrams through everything but the socket: it
// must not panic, must answer only what authenticates, and accept only what
// the core accepted. With sign, the datagram gets the right
// Message-Authenticator where it has one, so that what lies behind is reached.
func FuzzPacket(f *testing.F) {
	good := accessRequest(f, "alice", goodCode, secret)
	f.Add(good, true, false)
	f.Add(good, false, true)
	f.Add(encoded(f, unsigned(f, "alice", goodCode, secret)), false, false)
	f.Add(signed(f, layeh.New(layeh.CodeStatusServer, []byte(secret)), secret), true, true)
	proxied := unsigned(f, "CORP\\alice", goodCode, secret)
	proxied.Add(rfc2865.ProxyState_Type, []byte("state"))
	proxied.Add(rfc2865.ProxyState_Type, nil)
	f.Add(append(signed(f, proxied, secret), 0, 0, 0), true, true)
	eap := unsigned(f, "alice", "", secret)
	eap.Del(rfc2865.UserPassword_Type)
	eap.Add(rfc2869.EAPMessage_Type, []byte{2, 1, 0, 4})
	f.Add(signed(f, eap, secret), true, true)

	f.Fuzz(func(t *testing.T, datagram []byte, require, sign bool) {
		if len(datagram) > maxPacketSize {
			datagram = datagram[:maxPacketSize] // as the socket does
		}
		if sign {
			datagram = bytes.Clone(datagram)
			resign(datagram)
		}
		core := &fakeCore{clients: []*tokens.RADIUSClient{newClient("vpn", "127.0.0.0/8", secret, require)}}
		accepts := 0
		core.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
			if a.Code == "" { // as the core does: audited, and refused
				return tokens.Result{}, tokens.ErrInvalid
			}
			if a.User == "" {
				t.Error("the core is asked about a code for nobody")
			}
			if a.Code != goodCode {
				return tokens.Result{}, nil
			}
			accepts++
			return tokens.Result{Accept: true}, nil
		}
		s, err := New(core, Config{MaxReplies: 16, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Shutdown(context.Background())
		go s.answers() // as Serve does
		defer close(s.decided)
		out := &outbox{}
		s.deliver(newRequest(), datagram, out)
		if len(out.sent) == 0 {
			if accepts > 0 {
				t.Fatal("an accept was not answered")
			}
			return
		}
		if len(out.sent) > 1 {
			t.Fatalf("%d replies to one packet", len(out.sent))
		}
		request := authenticRequest(t, datagram, require)
		reply := authenticReply(t, out.sent[0], request, secret)
		switch {
		case reply.Code == layeh.CodeAccessReject && request[0] == codeAccessRequest && accepts == 0:
		case reply.Code == layeh.CodeAccessAccept && request[0] == codeAccessRequest && accepts == 1:
		case reply.Code == layeh.CodeAccessAccept && request[0] == codeStatusServer && len(core.asked()) == 0:
		default:
			t.Fatalf("code %d is answered with %v after %d accepts", request[0], reply.Code, accepts)
		}
		if request[0] == codeAccessRequest {
			again := &outbox{}
			s.deliver(newRequest(), datagram, again)
			if len(again.sent) != 1 || !bytes.Equal(again.sent[0], out.sent[0]) || len(core.asked()) > 1 {
				t.Fatalf("a retransmission is answered with %x", again.sent)
			}
		}
	})
}

// resign puts the right value into a datagram's first Message-Authenticator.
func resign(datagram []byte) {
	if len(datagram) < 20 {
		return
	}
	n := int(binary.BigEndian.Uint16(datagram[2:]))
	if n < 20 || n > len(datagram) {
		return
	}
	for at := 20; at+18 <= n && datagram[at+1] >= 2; at += int(datagram[at+1]) {
		if datagram[at] == 80 && datagram[at+1] == 18 {
			clear(datagram[at+2 : at+18])
			mac := hmac.New(md5.New, []byte(secret))
			mac.Write(datagram[:n])
			copy(datagram[at+2:], mac.Sum(nil))
			return
		}
	}
}

// authenticRequest proves by the independent codec and crypto/hmac that a
// packet that was answered should have been. It answers the packet without
// padding.
func authenticRequest(t *testing.T, datagram []byte, require bool) []byte {
	t.Helper()
	p, err := layeh.Parse(datagram, []byte(secret))
	if err != nil {
		t.Fatalf("a malformed packet was answered: %v", err)
	}
	request := datagram[:binary.BigEndian.Uint16(datagram[2:])]
	at, seen, pos := 20, 0, 0
	for _, a := range p.Attributes {
		if a.Type == rfc2869.MessageAuthenticator_Type {
			seen, pos = seen+1, at+2
		}
		at += 2 + len(a.Attribute)
	}
	switch {
	case p.Code != layeh.CodeAccessRequest && p.Code != layeh.CodeStatusServer:
		t.Fatalf("code %d was answered", p.Code)
	case seen > 1:
		t.Fatal("two Message-Authenticators were answered")
	case seen == 0 && (require || p.Code == layeh.CodeStatusServer || p.Get(rfc2869.EAPMessage_Type) != nil):
		t.Fatal("a packet without Message-Authenticator was answered")
	case seen == 1:
		zeroed := bytes.Clone(request)
		clear(zeroed[pos : pos+16])
		mac := hmac.New(md5.New, []byte(secret))
		mac.Write(zeroed)
		if !hmac.Equal(mac.Sum(nil), request[pos:pos+16]) {
			t.Fatal("a wrong Message-Authenticator was answered")
		}
	}
	return request
}
