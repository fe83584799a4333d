package radius

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"

	"watchword/tokens"
)

// The attack of CVE-2024-3596 (BlastRADIUS), as these tests take it. Somebody on the path
// sees a request and does not know the secret. They want the server's Access-Reject to
// have the same Response Authenticator as an Access-Accept of theirs. For that they
//
//  1. change the request: they put a Proxy-State into it, as the server sends that
//     back, so that a part of the reply is of their choice;
//  2. compute, while the gateway waits, two prefixes with one MD5, one of each packet,
//     for which they must know every octet of the reply up to and with their own; and
//  3. give the gateway their Access-Accept with the authenticator of the reject.
//
// Each step has a test. That the collision is found is taken for granted: where one is
// needed, the tests make it with the secret.

// insert puts an attribute before the others of a packet, as somebody does who has no
// secret: nothing is signed anew.
func insert(packet []byte, kind byte, value []byte) []byte {
	b := slices.Concat(packet[:headerSize], []byte{kind, byte(2 + len(value))}, value, packet[headerSize:])
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// without is a packet without its attributes of a kind.
func without(packet []byte, kind byte) []byte {
	b := bytes.Clone(packet[:headerSize])
	for rest := packet[headerSize:]; len(rest) > 0; rest = rest[rest[1]:] {
		if rest[0] != kind {
			b = append(b, rest[:rest[1]]...)
		}
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// Step 1, with the defaults and with each of them taken back.
func TestARequestThatSomebodyOnThePathChangedIsNotAnswered(t *testing.T) {
	gibberish := bytes.Repeat([]byte{0xA7}, 200) // as the attack has it
	unsignedOne := encoded(t, unsigned(t, "alice", "000000", secret))
	signedOne := accessRequest(t, "alice", "000000", secret)
	for _, client := range []struct {
		name              string
		requireMA, unsafe bool
		answered          []string
	}{
		{"require_message_authenticator and limit_proxy_state, the defaults", true, false, nil},
		{"limit_proxy_state alone", false, false, []string{"unsigned"}},
		{"neither", false, true, []string{"unsigned", "unsigned, with Proxy-State", "stripped, with Proxy-State", "stripped"}},
	} {
		c := newClient("vpn", "127.0.0.0/8", secret, client.requireMA)
		c.UnsignedProxyState = client.unsafe
		for name, request := range map[string][]byte{
			"unsigned":                     unsignedOne,
			"unsigned, with Proxy-State":   insert(unsignedOne, attrProxyState, gibberish),
			"stripped":                     without(signedOne, attrMessageAuthenticator),
			"stripped, with Proxy-State":   insert(without(signedOne, attrMessageAuthenticator), attrProxyState, gibberish),
			"signed, and Proxy-State put":  insert(signedOne, attrProxyState, gibberish),
			"signed, and a signature more": insert(signedOne, attrMessageAuthenticator, make([]byte, 16)),
			"signed, and shortened":        insert(insert(without(signedOne, attrMessageAuthenticator), attrMessageAuthenticator, make([]byte, 15)), attrProxyState, gibberish),
			"signed, the code turned":      func() []byte { b := bytes.Clone(signedOne); b[0] = codeStatusServer; return b }(),
		} {
			s, err := New(&fakeCore{clients: []*tokens.RADIUSClient{c}, silent: true}, Config{Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			go s.answers()
			out := &outbox{}
			s.deliver(newRequest(), request, out)
			s.Shutdown(context.Background())
			close(s.decided)
			want := slices.Contains(client.answered, name) || name == "stripped" && !client.requireMA // it is an unsigned one then
			if got := len(out.sent) > 0; got != want {
				t.Errorf("%s: %s: answered: %v", client.name, name, got)
			}
		}
	}
}

// Step 2: between the head of a reply, which can be foretold, and the first octet that
// came from the request there are sixteen that nobody foretells without the secret, in
// every kind of reply.
func TestNobodyForetellsAReplyUpToWhatTheyChose(t *testing.T) {
	marker := bytes.Repeat([]byte("chosen"), 20)
	core := asking(tokens.DialogueNextCode)
	core.clients[0].RequireMA, core.clients[0].UnsignedProxyState = false, true // the worst that can be set
	core.clients[0].Methods = everyMethod
	core.clients[0].Messages = map[string]string{"accept": "welcome", "reject": "no"}
	h := serve(t, core, Config{})
	ask := func(name string, request func() []byte) {
		n := gateway(t, "", h.address())
		var signatures [][]byte
		for range 2 {
			q := request()
			n.send(q)
			reply := n.receive()
			if at := bytes.Index(reply, marker); at < headerSize+2+authSize {
				t.Errorf("%s: what was chosen begins at %d", name, at)
			}
			if reply[headerSize] != attrMessageAuthenticator || reply[headerSize+1] != 2+authSize {
				t.Errorf("%s: the first attribute is %d", name, reply[headerSize])
			}
			signatures = append(signatures, reply[headerSize+2:headerSize+2+authSize])
		}
		if bytes.Equal(signatures[0], signatures[1]) || bytes.Equal(signatures[0], zeros[:]) {
			t.Errorf("%s: the signature of one reply tells that of the next", name)
		}
	}
	for name, code := range map[string]string{"reject": "000000", "accept": goodCode, "challenge": "000000"} {
		for _, sign := range []bool{false, true} {
			ask(fmt.Sprint(name, ", signed: ", sign), func() []byte {
				p := unsigned(t, map[bool]string{true: "next_code", false: "alice"}[name == "challenge"], code, secret)
				if name != "challenge" {
					p.Add(rfc2865.State_Type, longState)
				}
				p.Add(rfc2865.ProxyState_Type, marker)
				if sign {
					return signed(t, p, secret)
				}
				return encoded(t, p)
			})
		}
	}
	ask("Status-Server", func() []byte {
		p := layeh.New(layeh.CodeStatusServer, []byte(secret))
		p.Add(rfc2865.ProxyState_Type, marker)
		return signed(t, p, secret)
	})
}

// Step 3: with the collision in hand a correct client still takes no Accept, as nobody
// without the secret signs one.
func TestAnAcceptUnderTheAuthenticatorOfARejectIsRefused(t *testing.T) {
	h := serve(t, laxClient(), Config{})
	n := gateway(t, "", h.address())
	request := accessRequest(t, "alice", "000000", secret)
	n.send(request)
	reject := n.receive()
	if reject[0] != codeAccessReject || refuse(reject, request, []byte(secret)) != nil {
		t.Fatalf("%x", reject)
	}
	// collide gives a packet the Response Authenticator that a collision would give it.
	collide := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[0] = codeAccessAccept
		copy(b[4:], request[4:headerSize])
		sum := md5.Sum(slices.Concat(b, []byte(secret)))
		copy(b[4:], sum[:])
		return b
	}
	padding := bytes.Repeat([]byte{0xA7}, 64)
	bare := without(reject, attrMessageAuthenticator)
	signature := bytes.Clone(reject[headerSize+2 : headerSize+2+authSize])
	for name, c := range map[string]struct {
		forged []byte
		want   error
	}{
		"the reject, turned":        {collide(reject), errReplyMA},
		"no signature":              {collide(bare), errReplyNoMA},
		"no signature, Proxy-State": {collide(insert(bare, attrProxyState, padding)), errReplyNoMA},
		"the reject's, moved":       {collide(insert(reject, attrProxyState, padding)), errReplyMAPlace},
		"one of nothing":            {collide(insert(bare, attrMessageAuthenticator, zeros[:])), errReplyMA},
		"the request's":             {collide(insert(bare, attrMessageAuthenticator, request[len(request)-16:])), errReplyMA},
		"the reject's, twice":       {collide(insert(reject, attrMessageAuthenticator, signature)), errReplyMAPlace},
		"hidden in a Proxy-State":   {collide(insert(bare, attrProxyState, slices.Concat([]byte{attrMessageAuthenticator, 18}, signature))), errReplyNoMA},
		"too short":                 {collide(insert(bare, attrMessageAuthenticator, signature[:15])), errReplyForm},
	} {
		if !layeh.IsAuthenticResponse(c.forged, request, []byte(secret)) {
			t.Fatalf("%s: the collision is none", name)
		}
		if err := refuse(c.forged, request, []byte(secret)); err != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What a client without these checks takes for an Accept is just that: this is why
	// it is the gateway, too, that has to be new.
	if !layeh.IsAuthenticResponse(collide(bare), request, []byte(secret)) {
		t.Error("the attack would not work anywhere, so the test shows nothing")
	}
}

// A reply holds of the request what must come back, and nothing else: neither what the
// user or the gateway said nor an attribute that nobody knows.
func TestAReplyRepeatsNothingOfTheRequestButProxyState(t *testing.T) {
	core := asking(tokens.DialogueNextCode)
	core.clients[0].Methods = everyMethod
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	for user, want := range map[string]layeh.Code{"next_code": layeh.CodeAccessChallenge, "alice": layeh.CodeAccessReject, "accept": layeh.CodeAccessAccept} {
		code := "000000"
		if user == "accept" {
			code = goodCode
		}
		p := unsigned(t, user, code, secret)
		for kind := 3; kind < 256; kind++ {
			switch byte(kind) {
			case attrCHAPPassword, attrEAPMessage, attrMessageAuthenticator, attrProxyState, attrState:
				continue // they mean something else, or come below
			}
			p.Add(layeh.Type(kind), fmt.Appendf(nil, "echo-%03d", kind))
		}
		if user != "next_code" {
			p.Add(rfc2865.State_Type, longState)
		}
		p.Add(rfc2865.ProxyState_Type, []byte("first"))
		p.Add(rfc2865.ProxyState_Type, []byte("second"))
		reply := n.exchange(signed(t, p, secret), secret)
		if reply.Code != want {
			t.Errorf("%s: %v", user, reply.Code)
		}
		var states []string
		for _, a := range reply.Attributes {
			switch a.Type {
			case rfc2869.MessageAuthenticator_Type:
			case rfc2865.ProxyState_Type:
				states = append(states, string(a.Attribute))
			case rfc2865.State_Type, rfc2865.ReplyMessage_Type:
				if want != layeh.CodeAccessChallenge {
					t.Errorf("%s: attribute %d", user, a.Type)
				}
			default:
				t.Errorf("%s: attribute %d: %q", user, a.Type, a.Attribute)
			}
			if bytes.Contains(a.Attribute, []byte("echo-")) || bytes.Contains(a.Attribute, []byte(user)) {
				t.Errorf("%s: attribute %d repeats %q", user, a.Type, a.Attribute)
			}
		}
		if !slices.Equal(states, []string{"first", "second"}) {
			t.Errorf("%s: Proxy-State %q", user, states)
		}
	}
}
