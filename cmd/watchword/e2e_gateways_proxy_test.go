package main

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// radsecproxy starts Debian's radsecproxy as a proxy over UDP, with a secret of its own on
// each side, and answers where it listens.
func radsecproxy(t *testing.T, server, serverSecret, clientSecret string) (at string) {
	t.Helper()
	wantProgram(t, "radsecproxy", "/usr/sbin/radsecproxy")
	at = freeUDP(t)
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		t.Fatal(err)
	}
	conf := testFile(t, t.TempDir(), "radsecproxy.conf", fmt.Sprintf(`ListenUDP %s
LogLevel 3
client gateway {
	host 127.0.0.1
	type udp
	secret %s
}
server watchword {
	host %s
	port %s
	type udp
	secret %s
	StatusServer minimal
}
realm * {
	server watchword
}
`, at, clientSecret, host, port, serverSecret))
	runBeside(t, "", "/usr/sbin/radsecproxy", "-f", "-c", conf).prints("listening for udp on", 10*time.Second)
	return at
}

// TestRadsecproxy has Debian's radsecproxy pass on what radclient asks.
func TestRadsecproxy(t *testing.T) {
	n := startNode(t, nodeOptions{})
	list := newTokens("PX", 3, true)
	n.equip(list...)
	p := newTap(t, n, nil)
	const secret = "the-gateways-own-secret"
	at := radsecproxy(t, p.addr, n.secret, secret)
	ask := func(attributes string) string {
		t.Helper()
		cmd := exec.Command("radclient", "-x", "-r", "1", "-t", "2", at, "auth", secret)
		cmd.Stdin = strings.NewReader(attributes)
		out, _ := cmd.CombinedOutput() // which fails for a reject, too
		return string(out)
	}
	const twoStates = ",Proxy-State=0x0102,Proxy-State=0xfffe"

	t.Run("a code is accepted once", func(t *testing.T) {
		attributes := papAttributes(list[0].user, list[0].press()) + twoStates + withMA
		for _, x := range []struct {
			reply string
			code  byte
		}{{"Received Access-Accept", accessAccept}, {"Received Access-Reject", accessReject}} {
			out := ask(attributes)
			_, reply, found := strings.Cut(out, x.reply)
			if !found {
				t.Fatalf("want %s:\n%s", x.reply, out)
			}
			// Each Proxy-State comes back, in its order, behind a Message-Authenticator
			// (RFC 2865, section 5.33).
			ma, one, two := strings.Index(reply, "Message-Authenticator"), strings.Index(reply, "Proxy-State = 0x0102"), strings.Index(reply, "Proxy-State = 0xfffe")
			if ma < 0 || one < ma || two < one {
				t.Errorf("what radclient sees of the reply:\n%s", reply)
			}
			packets := p.wantCodes(t, accessRequest, x.code)
			for _, k := range packets {
				if states := k.all(attrProxyState); len(states) != 2 || string(states[0]) != "\x01\x02" || string(states[1]) != "\xff\xfe" {
					t.Errorf("%v: the Proxy-States are not those of the gateway", k)
				}
			}
			if reply := packets[1]; reply[20] != attrMessageAuthenticator {
				t.Errorf("%v: the Message-Authenticator is not the first attribute", reply)
			}
		}
		n.wantReason(list[0].user, "replay")
	})
	t.Run("a challenge and its answer", func(t *testing.T) {
		k := list[2]
		n.setPIN(k.user, "82905", false)
		n.setClient(map[string]any{"require_message_authenticator": true, "dialogues": []string{"pin"}})
		_, reply, found := strings.Cut(ask(papAttributes(k.user, "82905")+twoStates+withMA), "Received Access-Challenge")
		if !found {
			t.Fatal("no challenge came through")
		}
		_, state, _ := strings.Cut(reply, "\tState = 0x")
		state, _, _ = strings.Cut(state, "\n")
		if out := ask(papAttributes(k.user, k.press()) + ",State=0x" + state + twoStates + withMA); !strings.Contains(out, "Received Access-Accept") {
			t.Errorf("the answer:\n%s", out)
		}
		p.wantChallenged(t, 1, accessAccept)
	})
	t.Run("what nobody signed is not heard", func(t *testing.T) {
		unsigned := papAttributes(list[1].user, list[1].press()) + twoStates
		allow := func(proxyState bool) {
			n.setClient(map[string]any{"allow_unsigned_proxy_state": proxyState})
		}
		allow(false)
		out := ask(unsigned)
		if p.take()[0].has(attrMessageAuthenticator) {
			t.Log("the proxy signs what the gateway did not sign") // as those since 2024 do
			if !strings.Contains(out, "Received Access-Accept") {
				t.Errorf("signed by the proxy:\n%s", out)
			}
			return
		}
		if !strings.Contains(out, "No reply from server") {
			t.Errorf("no Message-Authenticator, and a Proxy-State: want silence:\n%s", out)
		}
		if _, metrics := n.get("/metrics"); !strings.Contains(string(metrics), "unsigned_proxy_state") {
			t.Error("/metrics does not count it")
		}
		allow(true)
		if out := ask(unsigned); !strings.Contains(out, "Received Access-Accept") {
			t.Errorf("where it is allowed:\n%s", out)
		}
	})
	n.wantIntactAudit()
}
