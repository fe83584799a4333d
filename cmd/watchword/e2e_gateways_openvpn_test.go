package main

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wantTun skips the test, aloud, unless tunnels can be made here.
func wantTun(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("NOT TESTED: no tunnel can be made here: %v", err)
	}
	f.Close()
}

// An openvpn is Debian's OpenVPN server in a namespace.
type openvpn struct {
	client  *netns
	port    string
	ca      string
	process *process
}

// newOpenVPN starts a server at a port, whose end of the tunnel is the first address of
// 10.x.0.0/24, with a plugin that says who may; plugin answers its line for a
// configuration file.
func newOpenVPN(t *testing.T, server, client *netns, port, x string, plugin func(conf string) string) *openvpn {
	t.Helper()
	wantProgram(t, "openvpn", "/usr/sbin/openvpn")
	wantTun(t)
	dir := t.TempDir()
	cert, key := selfSigned(t, dir)
	ccd := filepath.Join(dir, "ccd")
	if err := os.Mkdir(ccd, 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "server.conf")
	testFile(t, dir, "server.conf", `local 10.9.0.1
port `+port+`
proto udp
dev tun
topology subnet
server 10.`+x+`.0.0 255.255.255.0
ca `+cert+`
cert `+cert+`
key `+key+`
dh none
verify-client-cert none
username-as-common-name
auth-gen-token 3600 120
reneg-sec 3
client-config-dir `+ccd+`
status `+filepath.Join(dir, "status")+` 1
tmp-dir `+dir+`
plugin `+plugin(conf)+`
verb 3
`)
	o := &openvpn{client: client, port: port, ca: cert}
	o.process = server.run(t, "", "openvpn", "--config", conf)
	o.process.prints("Initialization Sequence Completed", 20*time.Second)
	return o
}

// authRadius is openvpn-auth-radius, which asks at port 1812 of its loopback and tells
// port 1813 of whom it let in.
func authRadius(t *testing.T, secret string) func(conf string) string {
	t.Helper()
	const object = "/usr/lib/openvpn/radiusplugin.so"
	wantProgram(t, "openvpn-auth-radius", object)
	return func(conf string) string {
		return object + " " + testFile(t, t.TempDir(), "radiusplugin.cnf", `NAS-Identifier=openvpn
Service-Type=5
Framed-Protocol=1
NAS-Port-Type=5
NAS-IP-Address=10.9.0.1
OpenVPNConfig=`+conf+`
subnet=255.255.255.0
overwriteccfiles=true
server
{
	acctport=1813
	authport=1812
	name=127.0.0.1
	retry=3
	wait=1
	sharedsecret=`+secret+`
}
`)
	}
}

// dial has a client dial in, and answers its process and what came of it.
func (o *openvpn) dial(t *testing.T, user, password string) (*process, sight) {
	t.Helper()
	login := testFile(t, t.TempDir(), "login", user+"\n"+password+"\n")
	p := o.client.run(t, "", "openvpn", "--client", "--dev", "tun", "--proto", "udp", "--remote", "10.9.0.1", o.port, "--nobind",
		"--ca", o.ca, "--auth-user-pass", login, "--auth-retry", "none", "--connect-retry-max", "1", "--verb", "3")
	switch p.printsOneOf(30*time.Second, "Initialization Sequence Completed", "AUTH_FAILED") {
	case "AUTH_FAILED":
		return p, sawReject
	default:
		return p, sawAccept
	}
}

// acctServer starts Debian's FreeRADIUS in a namespace, for accounting alone, at port 1813
// of its loopback.
func acctServer(t *testing.T, s *netns, secret string) (records string) {
	t.Helper()
	wantProgram(t, "freeradius", "/usr/sbin/freeradius")
	dir := t.TempDir()
	records = filepath.Join(dir, "records")
	testFile(t, dir, "radiusd.conf", `libdir = /usr/lib/freeradius
logdir = `+dir+`
raddbdir = `+dir+`
pidfile = `+dir+`/pid
security {
	require_message_authenticator = no
}
client openvpn {
	ipaddr = 127.0.0.1
	secret = `+secret+`
}
modules {
	detail {
		filename = `+records+`
	}
}
server accounting {
	listen {
		type = acct
		ipaddr = 127.0.0.1
		port = 1813
	}
	accounting {
		detail
	}
}
`)
	s.run(t, "", "freeradius", "-f", "-d", dir, "-n", "radiusd", "-l", "stdout").prints("Ready to process requests", 20*time.Second)
	return records
}

// TestOpenVPN brings up a tunnel between two network namespaces, through Debian's OpenVPN
// with openvpn-auth-radius.
func TestOpenVPN(t *testing.T) {
	server, client := newNetns(t), newNetns(t)
	wire(server, client)
	n := startNode(t, nodeOptions{})
	list := newTokens("OV", 6, true)
	n.equip(list...)
	p := newTap(t, n, server)
	records := acctServer(t, server, n.secret)
	o := newOpenVPN(t, server, client, "1194", "8", authRadius(t, n.secret))
	n.setClient(nil)
	reach := func() error { return client.reach("10.8.0.1") }

	code := list[0].press()
	t.Run("a code brings a tunnel up, and keeps it up", func(t *testing.T) {
		if reach() == nil {
			t.Fatal("the other end can be reached without a tunnel: this proves nothing")
		}
		c, got := o.dial(t, list[0].user, code)
		if got != sawAccept {
			t.Fatalf("%s:\n%s", got, c.printed())
		}
		if err := reach(); err != nil {
			t.Errorf("through the tunnel: %v", err)
		}
		asked := p.wantCodes(t, accessRequest, accessAccept)[0]
		if id, from := asked.one(attrNASIdentifier), asked.one(attrCallingStationID); id != "openvpn" || from != "10.9.0.2" {
			t.Errorf("NAS-Identifier %q, Calling-Station-Id %q", id, from)
		}
		t.Logf("it signs its requests: %v", asked.has(attrMessageAuthenticator))
		if text, err := os.ReadFile(records); err != nil || !strings.Contains(string(text), list[0].user) {
			t.Errorf("the accounting server has no record of the tunnel: %v", err)
		}
		// New keys are agreed on after three seconds: the token that the server gave the
		// client stands for the code, which is spent.
		eventually(t, 20*time.Second, "new keys", func() bool {
			return strings.Count(c.printed(), "Control Channel: TLS") >= 2
		})
		if err := reach(); err != nil {
			t.Errorf("with new keys: %v", err)
		}
		p.wantCodes(t)
		c.end()
	})
	t.Run("the code is accepted once", func(t *testing.T) {
		if _, got := o.dial(t, list[0].user, code); got != sawReject {
			t.Errorf("again: %s", got)
		}
		n.wantReason(list[0].user, "replay")
		if reach() == nil {
			t.Error("there is a tunnel")
		}
	})
	t.Run("PIN and code", func(t *testing.T) {
		k := list[1]
		n.setPIN(k.user, "82905", false)
		if _, got := o.dial(t, k.user, k.code(k.next)); got != sawReject {
			t.Errorf("without the PIN: %s", got)
		}
		n.wantReason(k.user, "pin_missing")
		c, got := o.dial(t, k.user, "82905"+k.press())
		if got != sawAccept {
			t.Errorf("with it: %s", got)
		}
		c.end()
	})
	t.Run("a code whose reply is lost is not accepted again", func(t *testing.T) {
		p.take()
		p.loseReplies(1)
		c, got := o.dial(t, list[2].user, list[2].press())
		packets := p.take()
		if len(packets) != 4 || packets[1][0] != accessAccept {
			t.Fatalf("want a lost accept, and a second try:\n%v", packets)
		}
		// A second try is the first again (RFC 2865, section 2.5), and is answered so;
		// openvpn-auth-radius 2.1 makes it another, which shows a spent code.
		again := bytes.Equal(packets[0], packets[2])
		t.Logf("it sends the same packet again: %v", again)
		if again != (got == sawAccept) || again != (packets[3][0] == accessAccept) {
			t.Errorf("%s:\n%v", got, packets)
		}
		if !again {
			n.wantReason(list[2].user, "replay")
		}
		c.end()
	})
	t.Run("it takes no challenge", func(t *testing.T) {
		k := list[3]
		n.setPIN(k.user, "82905", false)
		n.setClient(map[string]any{"dialogues": []string{"pin"}})
		p.take()
		if _, got := o.dial(t, k.user, "82905"); got != sawReject {
			t.Errorf("%s; want a reject", got)
		}
		p.wantCodes(t, accessRequest, accessChallenge)
	})
	t.Run("so what follows is typed at once", func(t *testing.T) {
		n.setClient(map[string]any{"joined": []string{"next_code", "new_pin"}})
		k := list[4]
		k.next += 30 // it was played with
		c, got := o.dial(t, k.user, k.press()+k.press())
		if got != sawAccept {
			t.Errorf("two codes: %s, %+v", got, n.lastAttempt(k.user))
		}
		c.end()
		n.setPIN(k.user, "82905", true)
		for _, typed := range []string{"82905" + k.press() + "7391473914", "73914" + k.press()} {
			c, got := o.dial(t, k.user, typed)
			if got != sawAccept {
				t.Errorf("a new PIN: %s, %+v", got, n.lastAttempt(k.user))
			}
			c.end()
		}
	})
	t.Run("a group has addresses of its own", func(t *testing.T) {
		n.setClient(reply("staff", "Framed-IP-Address", "10.8.0.77"))
		n.must(http.MethodPut, "/v1/users/"+list[5].user+"/groups", map[string]any{"groups": []string{"staff"}}, nil)
		for user, want := range map[*hardToken]bool{list[5]: true, list[0]: false} {
			c, got := o.dial(t, user.user, user.press())
			if its := strings.Contains(c.printed(), "10.8.0.77"); got != sawAccept || its != want {
				t.Errorf("%s: %s, and the group's address: %v; want %v", user.user, got, its, want)
			}
			c.end()
		}
	})
	n.wantIntactAudit()
}

// TestOpenVPNByPAM has OpenVPN's own plugin ask through pam_radius, which takes challenges:
// the client asks for PIN and code before it dials, and the plugin answers with them.
func TestOpenVPNByPAM(t *testing.T) {
	server, client := newNetns(t), newNetns(t)
	wire(server, client)
	n := startNode(t, nodeOptions{})
	k := newTokens("OP", 1, true)[0]
	n.equip(k)
	n.setPIN(k.user, "82905", false)
	n.setClient(map[string]any{"dialogues": []string{"pin"}})
	p := newTap(t, n, server)
	pam := newPAMService(t, p.addr, n.secret, "")
	const object = "/usr/lib/openvpn/openvpn-plugin-auth-pam.so"
	wantProgram(t, "openvpn", object)
	o := newOpenVPN(t, server, client, "1194", "8", func(string) string {
		return object + ` "` + pam.name + ` login USERNAME password PASSWORD enter OTP"` + "\nsetenv deferred_auth_pam 1"
	})
	connect := func(pin, code string) sight {
		// This is what a client with "static-challenge" sends; it asks only on a terminal.
		b64 := base64.StdEncoding.EncodeToString
		c, got := o.dial(t, k.user, "SCRV1:"+b64([]byte(pin))+":"+b64([]byte(code)))
		if got == sawAccept {
			if out, err := client.try("ping", "-c", "1", "-W", "5", "10.8.0.1"); err != nil {
				t.Errorf("through the tunnel: %v: %s", err, out)
			}
		}
		c.end()
		return got
	}
	if got := connect("82906", k.press()); got != sawReject {
		t.Errorf("a wrong PIN: %s", got)
	}
	p.wantChallenged(t, 1, accessReject)
	n.wantReason(k.user, "wrong_pin")
	if got := connect("82905", k.press()); got != sawAccept {
		t.Errorf("PIN and code: %s", got)
	}
	p.wantChallenged(t, 1, accessAccept)
}
