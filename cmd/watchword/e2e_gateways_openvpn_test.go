package main

import (
	"fmt"
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

// An openvpn is Debian's OpenVPN server in a namespace, which asks by openvpn-auth-radius.
type openvpn struct {
	t              *testing.T
	server, client *netns
	ca             string
	process        *process
}

// newOpenVPN starts a server that asks at a port of its loopback.
func newOpenVPN(t *testing.T, server, client *netns, port, secret string) *openvpn {
	t.Helper()
	wantProgram(t, "openvpn", "/usr/sbin/openvpn")
	wantProgram(t, "openvpn-auth-radius", "/usr/lib/openvpn/radiusplugin.so")
	wantTun(t)
	dir := t.TempDir()
	cert, key := selfSigned(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "ccd"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(dir, "server.conf")
	plugin := testFile(t, dir, "radiusplugin.cnf", `NAS-Identifier=openvpn
Service-Type=5
Framed-Protocol=1
NAS-Port-Type=5
NAS-IP-Address=10.9.0.1
OpenVPNConfig=`+conf+`
subnet=255.255.255.0
overwriteccfiles=true
nonfatalaccounting=true
server
{
	acctport=`+port+`
	authport=`+port+`
	name=127.0.0.1
	retry=1
	wait=1
	sharedsecret=`+secret+`
}
`)
	testFile(t, dir, "server.conf", `local 10.9.0.1
port 1194
proto udp
dev tun
topology subnet
server 10.8.0.0 255.255.255.0
ca `+cert+`
cert `+cert+`
key `+key+`
dh none
verify-client-cert none
username-as-common-name
client-config-dir `+filepath.Join(dir, "ccd")+`
status `+filepath.Join(dir, "status")+` 1
tmp-dir `+dir+`
plugin /usr/lib/openvpn/radiusplugin.so `+plugin+`
verb 4
`)
	o := &openvpn{t: t, server: server, client: client, ca: cert}
	o.process = server.run(t, "", "openvpn", "--config", conf)
	o.process.prints("Initialization Sequence Completed", 20*time.Second)
	return o
}

// dial has a client dial in, and answers its process and what came of it.
func (o *openvpn) dial(user, password string) (*process, sight) {
	o.t.Helper()
	login := testFile(o.t, o.t.TempDir(), "login", user+"\n"+password+"\n")
	p := o.client.run(o.t, "", "openvpn", "--client", "--dev", "tun", "--proto", "udp", "--remote", "10.9.0.1", "1194", "--nobind",
		"--ca", o.ca, "--auth-user-pass", login, "--auth-retry", "none", "--connect-retry-max", "1", "--verb", "3")
	switch p.printsOneOf(30*time.Second, "Initialization Sequence Completed", "AUTH_FAILED") {
	case "AUTH_FAILED":
		return p, sawReject
	default:
		return p, sawAccept
	}
}

// TestOpenVPN brings up a tunnel between two network namespaces, through Debian's OpenVPN
// with openvpn-auth-radius.
func TestOpenVPN(t *testing.T) {
	server, client := newNetns(t), newNetns(t)
	wire(server, client)
	n := startNode(t, nodeOptions{})
	list := newTokens("OV", 3, true)
	n.equip(list...)
	p := newTap(t, n, server)
	n.setClient(map[string]any{"require_message_authenticator": false})
	o := newOpenVPN(t, server, client, p.port(), n.secret)
	began := time.Now()
	c, got := o.dial(list[0].user, list[0].press())
	t.Log(got, time.Since(began))
	t.Log(client.try("ping", "-c", "1", "-W", "5", "10.8.0.1"))
	t.Log(p.take())
	c.end()
	began = time.Now()
	_, got = o.dial(list[0].user, list[0].code(0))
	t.Log(got, time.Since(began))
	t.Log(p.take())
	o.process.end()
	t.Log(strings.TrimSpace(o.process.printed()))
	fmt.Println()
}
