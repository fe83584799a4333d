package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An ocserv is Debian's OpenConnect server in a namespace, which asks through radcli.
type ocserv struct {
	server, client *netns
	pin            string // of its certificate, for openconnect
	script         string
	process        *process
}

// newOcserv starts a server that asks at port 1812 of its loopback.
func newOcserv(t *testing.T, server, client *netns, secret string) *ocserv {
	t.Helper()
	wantProgram(t, "ocserv", "/usr/sbin/ocserv")
	wantProgram(t, "openconnect", "/usr/sbin/openconnect")
	wantTun(t)
	dir := t.TempDir()
	cert, key := selfSigned(t, dir)
	// Its workers, who may do little, reach the process that asks by a socket.
	sockets, err := os.MkdirTemp("", "watchword-ocserv-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	if err := os.Chmod(sockets, 0o711); err != nil {
		t.Fatal(err)
	}
	servers := testFile(t, dir, "servers", "127.0.0.1 "+secret+"\n")
	radcli := testFile(t, dir, "radiusclient.conf", `nas-identifier ocserv
authserver 127.0.0.1:1812
acctserver 127.0.0.1:1813
servers `+servers+`
dictionary /etc/radcli/dictionary
default_realm
radius_timeout 2
radius_retries 3
bindaddr *
`)
	conf := testFile(t, dir, "ocserv.conf", `auth = "radius[config=`+radcli+`,groupconfig=true]"
listen-host = 10.9.0.1
tcp-port = 443
run-as-user = nobody
run-as-group = daemon
socket-file = `+filepath.Join(sockets, "socket")+`
pid-file = `+filepath.Join(dir, "pid")+`
server-cert = `+cert+`
server-key = `+key+`
isolate-workers = true
max-clients = 8
max-same-clients = 2
keepalive = 300
auth-timeout = 120
cookie-timeout = 60
device = vpns
ipv4-network = 10.10.0.0
ipv4-netmask = 255.255.255.0
use-occtl = false
cisco-client-compat = true
dtls-legacy = false
`)
	o := &ocserv{server: server, client: client, pin: certificatePin(t, cert)}
	o.script = testFile(t, dir, "script", `[ "$reason" = connect ] || exit 0
ip link set dev "$TUNDEV" up mtu 1300
ip address add "$INTERNAL_IP4_ADDRESS/24" dev "$TUNDEV"
`)
	o.process = server.run(t, "", "ocserv", "--foreground", "--config", conf, "--debug", "3")
	o.process.prints("initialized ocserv", 20*time.Second)
	return o
}

// certificatePin is what openconnect calls pin-sha256 of a certificate's key.
func certificatePin(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return "pin-sha256:" + base64.StdEncoding.EncodeToString(sum[:])
}

// dial has a client dial in whose user types these lines, and answers its process and
// what came of it: what is typed last is the last that is asked for.
func (o *ocserv) dial(t *testing.T, user string, typed ...string) (*process, sight) {
	t.Helper()
	p := o.client.run(t, strings.Join(typed, "\n")+"\n", "openconnect", "--verbose", "--protocol", "anyconnect", "--no-dtls",
		"--servercert", o.pin, "--user", user, "--script", "sh "+o.script, "https://10.9.0.1")
	switch p.printsOneOf(30*time.Second, "Configured as", "Failed to complete authentication", "User input required") {
	case "Configured as":
		return p, sawAccept
	default:
		return p, sawReject
	}
}

// TestOcserv brings up a tunnel between two network namespaces, through Debian's ocserv and
// openconnect, which speak the protocol of Cisco's AnyConnect.
func TestOcserv(t *testing.T) {
	server, client := newNetns(t), newNetns(t)
	wire(server, client)
	n := startNode(t, nodeOptions{})
	list := newTokens("OC", 6, true)
	n.equip(list...)
	p := newTap(t, n, server)
	o := newOcserv(t, server, client, n.secret)
	n.setClient(nil)
	reach := func() error { return client.reach("10.10.0.1") }

	code := list[0].press()
	t.Run("a code brings a tunnel up", func(t *testing.T) {
		if reach() == nil {
			t.Fatal("the other end can be reached without a tunnel: this proves nothing")
		}
		c, got := o.dial(t, list[0].user, code)
		if got != sawAccept {
			t.Fatalf("%s:\n%s", got, c.printed())
		}
		eventually(t, 10*time.Second, "the other end is reached", func() bool { return reach() == nil })
		asked := p.wantCodes(t, accessRequest, accessAccept)[0]
		if id, from := asked.one(attrNASIdentifier), asked.one(attrCallingStationID); id != "ocserv" || from != "10.9.0.2" {
			t.Errorf("NAS-Identifier %q, Calling-Station-Id %q", id, from)
		}
		t.Logf("it signs its requests: %v", asked.has(attrMessageAuthenticator))
		c.end()
	})
	t.Run("the code is accepted once, and the next is asked for at once", func(t *testing.T) {
		c, got := o.dial(t, list[0].user, code, list[0].press())
		if got != sawAccept || !strings.Contains(c.printed(), "Login failed") {
			t.Errorf("%s:\n%s", got, c.printed())
		}
		p.wantCodes(t, accessRequest, accessReject, accessRequest, accessAccept)
		c.end()
	})
	t.Run("PIN and code", func(t *testing.T) {
		k := list[1]
		n.setPIN(k.user, "82905", false)
		c, got := o.dial(t, k.user, "82905"+k.press())
		if got != sawAccept {
			t.Errorf("%s:\n%s", got, c.printed())
		}
		c.end()
	})
	t.Run("a lost reply is sent again", func(t *testing.T) {
		p.take()
		p.loseReplies(1)
		c, got := o.dial(t, list[2].user, list[2].press())
		if got != sawAccept {
			t.Errorf("%s:\n%s", got, c.printed())
		}
		packets := p.wantCodes(t, accessRequest, accessAccept, accessRequest, accessAccept)
		if !bytes.Equal(packets[0], packets[2]) || !bytes.Equal(packets[1], packets[3]) {
			t.Errorf("the second request or its reply is another than the first:\n%v", packets)
		}
		c.end()
	})
	p.take()
	n.setClient(map[string]any{"dialogues": []string{"pin", "next_code", "new_pin"}})
	t.Run("the PIN first, then the code", func(t *testing.T) {
		k := list[3]
		n.setPIN(k.user, "82905", false)
		c, got := o.dial(t, k.user, "82905", k.press())
		if got != sawAccept || !strings.Contains(c.printed(), "Enter the code that your token shows.") {
			t.Errorf("%s:\n%s", got, c.printed())
		}
		p.wantChallenged(t, 1, accessAccept)
		c.end()
		c, got = o.dial(t, k.user, "82906", k.press())
		if got == sawAccept {
			t.Error("a wrong PIN, and the right code: accepted")
		}
		p.wantChallenged(t, 1, accessReject)
		n.wantReason(k.user, "wrong_pin")
		c.end()
	})
	t.Run("a code far ahead, and the next one", func(t *testing.T) {
		k := list[4]
		k.next += 30 // it was played with
		c, got := o.dial(t, k.user, k.press(), k.press())
		if got != sawAccept || !strings.Contains(c.printed(), "enter that") {
			t.Errorf("%s:\n%s", got, c.printed())
		}
		p.wantChallenged(t, 1, accessAccept)
		c.end()
	})
	t.Run("a PIN that is due is changed", func(t *testing.T) {
		k := list[5]
		n.setPIN(k.user, "82905", true)
		c, got := o.dial(t, k.user, "82905"+k.press(), "82905", "73914", "73914")
		if got != sawAccept || !strings.Contains(c.printed(), "That PIN is not allowed.") {
			t.Errorf("%s:\n%s", got, c.printed())
		}
		p.wantChallenged(t, 3, accessAccept)
		c.end()
		c, got = o.dial(t, k.user, "73914"+k.press())
		if got != sawAccept {
			t.Errorf("with the new PIN: %s", got)
		}
		c.end()
	})
	t.Run("a group has addresses of its own", func(t *testing.T) {
		k := list[0]
		n.setClient(reply("staff", "Framed-IP-Address", "10.10.0.77"))
		n.must(http.MethodPut, "/v1/users/"+k.user+"/groups", map[string]any{"groups": []string{"staff"}}, nil)
		c, got := o.dial(t, k.user, k.press())
		if got != sawAccept || !strings.Contains(c.printed(), "Configured as 10.10.0.77") {
			t.Errorf("%s:\n%s", got, c.printed())
		}
		c.end()
	})
	n.wantIntactAudit()
}
