package radius

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"sync"
	"testing"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
)

// outbox is where replies go in tests without a socket.
type outbox struct {
	fail error // nil: sending works
	mu   sync.Mutex
	sent [][]byte
}

func (o *outbox) send(reply []byte, _ *path) error {
	if o.fail != nil {
		return o.fail
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent = append(o.sent, bytes.Clone(reply))
	return nil
}

// deliver hands a datagram to the server as if it had been read from a socket,
// and waits until it is dealt with.
func (s *Server) deliver(r *request, datagram []byte, out *outbox) {
	n := copy(r.buf[:], datagram)
	r.path = path{via: out, peer: netip.MustParseAddrPort("127.0.0.1:50000")}
	if s.receive(r, n) {
		s.work.Wait()
	}
}

func TestMalformedPacketsAreDropped(t *testing.T) {
	header := func(length int, rest ...byte) []byte {
		b := binary.BigEndian.AppendUint16([]byte{1, 7}, uint16(length))
		return append(append(b, make([]byte, 16)...), rest...)
	}
	long := unsigned(t, "alice", goodCode, secret)
	long.Attributes = nil
	long.Add(rfc2865.UserPassword_Type, nil)
	for range 15 {
		long.Add(rfc2865.ProxyState_Type, make([]byte, 253))
	}
	long.Add(rfc2865.ProxyState_Type, make([]byte, 247))
	twice := func(kind layeh.Type, value []byte) []byte {
		p := unsigned(t, "alice", goodCode, secret)
		p.Add(kind, value)
		p.Add(kind, value)
		return encoded(t, p)
	}
	both := unsigned(t, "alice", goodCode, secret)
	both.Add(rfc2865.CHAPPassword_Type, make([]byte, 17))
	eap := unsigned(t, "alice", goodCode, secret)
	eap.Add(layeh.Type(attrEAPMessage), []byte{2, 1, 0, 4})
	h := serve(t, laxClient(), Config{})
	n := gateway(t, "", h.address())
	tests := map[string][]byte{
		"empty":                             {},
		"one byte":                          {1},
		"19 bytes":                          header(19)[:19],
		"length under the header":           header(19),
		"length beyond the datagram":        header(21),
		"length of 65535":                   header(65535),
		"length beyond 4096":                header(4097, make([]byte, 4077)...),
		"attribute of one byte":             header(21, 1),
		"attribute length 0":                header(22, 1, 0),
		"attribute length 1":                header(22, 1, 1),
		"attribute beyond the packet":       header(23, 1, 4, 'a'),
		"attribute beyond it, in padding":   header(23, 1, 4, 'a', 'b'),
		"Message-Authenticator of 15 bytes": header(37, append([]byte{80, 17}, make([]byte, 15)...)...),
		"two names":                         twice(rfc2865.UserName_Type, []byte("bob")),
		"two passwords":                     twice(rfc2865.UserPassword_Type, make([]byte, 16)),
		"two CHAP passwords":                twice(rfc2865.CHAPPassword_Type, make([]byte, 17)),
		"two States":                        twice(rfc2865.State_Type, []byte("a")),
		"an empty State":                    header(22, 24, 2),
		"PAP and CHAP":                      encoded(t, both),
		"PAP and EAP":                       encoded(t, eap),
		"Proxy-State that cannot come back": encoded(t, long),
	}
	for name, datagram := range tests {
		before := h.dropped(t, malformed)
		n.send(datagram)
		eventually(t, name+" is counted as malformed", func() bool { return h.dropped(t, malformed) == before+1 })
	}
	n.silence()
	if len(h.core.asked()) != 0 {
		t.Errorf("the core was asked %v", h.core.asked())
	}
	if h.log.lines("cause=malformed", "client=vpn") != 1 {
		t.Errorf("the log:\n%s", h.log)
	}
}

func TestPaddingIsIgnored(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	n := gateway(t, "", h.address())
	request := accessRequest(t, "alice", goodCode, secret)
	n.send(append(bytes.Clone(request), strings.Repeat("\x01\x00", 2500)...)) // 5,000 bytes, and malformed if it were read
	first := n.receive()
	authenticReply(t, first, request, secret)
	// Without the padding it is the same request.
	n.send(request)
	if again := n.receive(); !bytes.Equal(first, again) {
		t.Errorf("%x, then %x", first, again)
	}
	if len(h.core.asked()) != 1 {
		t.Errorf("the core was asked %d times", len(h.core.asked()))
	}
}

func TestOtherCodesAreDropped(t *testing.T) {
	h := serve(t, laxClient(), Config{})
	r, out := newRequest(), &outbox{}
	for code := range 256 {
		if code == 1 || code == 12 {
			continue
		}
		p := unsigned(t, "alice", goodCode, secret)
		p.Code = layeh.CodeAccessRequest
		b := signed(t, p, secret)
		b[0] = byte(code)
		h.deliver(r, b, out)
	}
	if h.dropped(t, unsupportedCode) != 254 || len(out.sent) != 0 {
		t.Errorf("%v dropped, %d answered", h.dropped(t, unsupportedCode), len(out.sent))
	}
}

func TestLargestPacketIsAnswered(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	n := gateway(t, "", h.address())
	p := unsigned(t, "alice", goodCode, secret)
	// 20 header, 7 name, 18 password, 18 Message-Authenticator: 4033 are left.
	for range 15 {
		p.Add(rfc2865.ProxyState_Type, make([]byte, 253))
	}
	p.Add(rfc2865.ProxyState_Type, make([]byte, 4033-15*255-2))
	request := signed(t, p, secret)
	if len(request) != maxPacketSize {
		t.Fatalf("the request has %d bytes", len(request))
	}
	if reply := n.exchange(request, secret); len(reply.Attributes) != 17 {
		t.Errorf("%d attributes came back", len(reply.Attributes))
	}
}

// FuzzParse: our parser and the codec's agree on what is well formed, and on
// the attributes; ours refuses more, but only for reasons of its own.
func FuzzParse(f *testing.F) {
	f.Add(accessRequest(f, "alice", goodCode, secret))
	f.Add(signed(f, layeh.New(layeh.CodeStatusServer, []byte(secret)), secret))
	f.Add(append(accessRequest(f, "", "", secret), 0, 0, 0))
	f.Add(bytes.Repeat([]byte{0}, 20))
	f.Add([]byte{1, 0, 0, 24, 19: 0, 20: 33, 21: 2, 22: 33, 23: 2})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		var p packet
		c := p.parse(datagram)
		theirs, err := layeh.Parse(datagram, []byte(secret))
		if err != nil {
			if c == 0 {
				t.Fatalf("we take what the codec refuses: %v", err)
			}
			return
		}
		if c != 0 {
			count := map[layeh.Type]int{}
			states, msCHAP, badMA := 0, 0, false
			for _, a := range theirs.Attributes {
				count[a.Type]++
				switch byte(a.Type) {
				case attrProxyState:
					states += 2 + len(a.Attribute)
				case attrMessageAuthenticator:
					badMA = badMA || len(a.Attribute) != 16
				case attrVendorSpecific:
					vendor, value, err := layeh.VendorSpecific(a.Attribute)
					if err == nil && vendor == 311 && len(value) >= 2 && (value[0] == 1 || value[0] == 25) {
						msCHAP = 1
					}
				}
			}
			ours := badMA || count[80] > 1 || count[1] > 1 || count[2] > 1 || count[3] > 1 ||
				states > 4096-38 || min(count[2], 1)+min(count[3], 1)+min(count[79], 1)+msCHAP > 1
			if !ours {
				t.Fatalf("we refuse %x, which is well formed, as %s", datagram, remedies[c].label)
			}
			return
		}
		i := 0
		for kind, value := range p.attributes() {
			if i >= len(theirs.Attributes) || byte(theirs.Attributes[i].Type) != kind || !bytes.Equal(theirs.Attributes[i].Attribute, value) {
				t.Fatalf("attribute %d differs", i)
			}
			i++
		}
		if i != len(theirs.Attributes) {
			t.Fatalf("we see %d attributes, the codec %d", i, len(theirs.Attributes))
		}
		if p.code() != byte(theirs.Code) || p.identifier() != theirs.Identifier || !bytes.Equal(p.authenticator(), theirs.Authenticator[:]) {
			t.Fatal("the header differs")
		}
		if !bytes.Equal(p.userName, theirs.Get(1)) || !bytes.Equal(p.userPassword, theirs.Get(2)) || !bytes.Equal(p.chapPassword, theirs.Get(3)) {
			t.Fatal("name or password differ")
		}
		if p.ma != 0 && !bytes.Equal(p.wire[p.ma:p.ma+16], theirs.Get(80)) {
			t.Fatal("Message-Authenticator differs")
		}
	})
}
