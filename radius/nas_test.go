package radius

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"
)

// nas is a gateway: one UDP socket that sends what a test says.
type nas struct {
	t    testing.TB
	conn *net.UDPConn
}

// gateway opens a socket to the server; from may be empty.
func gateway(t testing.TB, from string, to netip.AddrPort) *nas {
	t.Helper()
	var local *net.UDPAddr
	if from != "" {
		local = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
	}
	conn, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &nas{t, conn}
}

// accessRequest is a PAP request with a Message-Authenticator, made by the
// independent codec and crypto/hmac.
func accessRequest(t testing.TB, user, password, secret string) []byte {
	t.Helper()
	p := unsigned(t, user, password, secret)
	return signed(t, p, secret)
}

// unsigned is the same as a packet of the codec, without Message-Authenticator.
func unsigned(t testing.TB, user, password, secret string) *layeh.Packet {
	t.Helper()
	p := layeh.New(layeh.CodeAccessRequest, []byte(secret))
	if err := rfc2865.UserName_SetString(p, user); err != nil {
		t.Fatal(err)
	}
	if err := rfc2865.UserPassword_SetString(p, password); err != nil {
		t.Fatal(err)
	}
	return p
}

// signed adds a Message-Authenticator at the end, as older gateways do, and
// encodes the packet.
func signed(t testing.TB, p *layeh.Packet, secret string) []byte {
	t.Helper()
	if err := rfc2869.MessageAuthenticator_Set(p, make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	b := encoded(t, p)
	mac := hmac.New(md5.New, []byte(secret))
	mac.Write(b)
	copy(b[len(b)-16:], mac.Sum(nil))
	return b
}

func encoded(t testing.TB, p *layeh.Packet) []byte {
	t.Helper()
	b, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (n *nas) send(packet []byte) {
	n.t.Helper()
	if _, err := n.conn.Write(packet); err != nil {
		n.t.Fatal(err)
	}
}

// receive waits for the next packet.
func (n *nas) receive() []byte {
	n.t.Helper()
	b, err := n.next(5 * time.Second)
	if err != nil {
		n.t.Fatalf("no reply: %v", err)
	}
	return b
}

func (n *nas) next(wait time.Duration) ([]byte, error) {
	b := make([]byte, maxPacketSize)
	_ = n.conn.SetReadDeadline(time.Now().Add(wait))
	size, err := n.conn.Read(b)
	return b[:size], err
}

// silence makes sure that nothing comes.
func (n *nas) silence() {
	n.t.Helper()
	if b, err := n.next(100 * time.Millisecond); err == nil {
		n.t.Fatalf("a reply where there should be none: %x", b)
	}
}

// exchange sends a request and answers the reply, proven authentic.
func (n *nas) exchange(request []byte, secret string) *layeh.Packet {
	n.t.Helper()
	n.send(request)
	return authenticReply(n.t, n.receive(), request, secret)
}

// authenticReply proves a reply by the independent codec and crypto/hmac, and
// that its first attribute is Message-Authenticator.
func authenticReply(t testing.TB, reply, request []byte, secret string) *layeh.Packet {
	t.Helper()
	p, err := layeh.Parse(reply, []byte(secret))
	if err != nil {
		t.Fatalf("reply %x: %v", reply, err)
	}
	if reply[1] != request[1] {
		t.Errorf("reply to identifier %d has %d", request[1], reply[1])
	}
	if !layeh.IsAuthenticResponse(reply, request, []byte(secret)) {
		t.Errorf("the Response Authenticator is wrong: %x", reply)
	}
	if len(p.Attributes) == 0 || p.Attributes[0].Type != rfc2869.MessageAuthenticator_Type {
		t.Fatalf("Message-Authenticator is not the first attribute: %x", reply)
	}
	b := bytes.Clone(reply)
	copy(b[4:20], request[4:20])
	clear(b[22:38])
	mac := hmac.New(md5.New, []byte(secret))
	mac.Write(b)
	if !hmac.Equal(mac.Sum(nil), reply[22:38]) {
		t.Errorf("the Message-Authenticator is wrong: %x", reply)
	}
	return p
}

// radclient runs FreeRADIUS's client: attributes as it reads them. It answers
// what it printed.
func radclient(t testing.TB, to netip.AddrPort, kind, secret, attributes string) string {
	t.Helper()
	program, err := exec.LookPath("radclient")
	if err != nil {
		t.Fatalf("%v; it is in the package freeradius-utils", err)
	}
	cmd := exec.Command(program, "-x", "-r", "1", "-t", "2", to.String(), kind, secret)
	cmd.Stdin = strings.NewReader(attributes + "\n")
	out, _ := cmd.CombinedOutput() // it fails where a test wants a reject or silence
	return string(out)
}
