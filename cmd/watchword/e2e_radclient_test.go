package main

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// radclient runs FreeRADIUS's client once, and answers what it saw.
func radclient(t testing.TB, n *node, kind, secret, attributes string) sight {
	t.Helper()
	cmd := exec.Command("radclient", "-x", "-r", "1", "-t", "1", n.radius, kind, secret)
	cmd.Stdin = strings.NewReader(attributes)
	out, err := cmd.CombinedOutput()
	text := string(out)
	switch {
	case strings.Contains(text, "Received Access-Accept"):
		return sawAccept
	case strings.Contains(text, "Received Access-Reject"):
		return sawReject
	case strings.Contains(text, "No reply from server"):
		return sawNothing
	}
	t.Fatalf("radclient: %v\n%s", err, text)
	return ""
}

func papAttributes(user, code string) string {
	return fmt.Sprintf("User-Name=%s,User-Password=%s", user, code)
}

const withMA = ",Message-Authenticator=0x00"

// TestRadclient speaks to the server with FreeRADIUS's own client.
func TestRadclient(t *testing.T) {
	n := startNode(t, nodeOptions{})
	list := newTokens("C", 4, true)
	n.equip(list...)
	ask := func(attributes string) sight { return radclient(t, n, "auth", n.secret, attributes) }

	t.Run("a code is accepted once", func(t *testing.T) {
		attributes := papAttributes(list[0].user, list[0].press()) + withMA
		if got := ask(attributes); got != sawAccept {
			t.Errorf("first: %s", got)
		}
		if got := ask(attributes); got != sawReject {
			t.Errorf("again: %s", got)
		}
		if last := n.lastAttempt(list[0].user); last.Reason != "replay" || last.Client != "localhost" {
			t.Errorf("the audit says %+v; want replay, from client localhost", last)
		}
	})
	t.Run("TOTP", func(t *testing.T) {
		totp := newTokens("CT", 1, false)[0]
		n.equip(totp)
		soonInStep(t, 5*time.Second)
		code, _ := totp.shown()
		if got := ask(papAttributes(totp.user, code) + withMA); got != sawAccept {
			t.Errorf("first: %s", got)
		}
		if got := ask(papAttributes(totp.user, code) + withMA); got != sawReject {
			t.Errorf("again: %s", got)
		}
	})
	t.Run("PIN and code", func(t *testing.T) {
		k := list[1]
		n.must(http.MethodPut, "/v1/users/"+k.user+"/pin", map[string]string{"pin": "s3cret"}, nil)
		for _, x := range []struct {
			typed, reason string
			want          sight
		}{
			{k.code(k.next), "pin_missing", sawReject},
			{"s3creT" + k.code(k.next), "wrong_pin", sawReject},
			{"s3cret" + k.code(k.next), "accepted", sawAccept},
			{"s3cret" + k.code(k.next), "replay", sawReject},
		} {
			if got := ask(papAttributes(k.user, x.typed) + withMA); got != x.want {
				t.Errorf("%s: %s", x.reason, got)
			}
			if last := n.lastAttempt(k.user); last.Reason != x.reason {
				t.Errorf("the audit says %s; want %s", last.Reason, x.reason)
			}
		}
	})
	t.Run("wrong and unknown look the same", func(t *testing.T) {
		for _, attributes := range []string{papAttributes(list[2].user, "12345678"), papAttributes("nobody", "12345678")} {
			if got := ask(attributes + withMA); got != sawReject {
				t.Errorf("%s: %s", attributes, got)
			}
		}
	})
	t.Run("Status-Server", func(t *testing.T) {
		if got := radclient(t, n, "status", n.secret, "Message-Authenticator=0x00"); got != sawAccept {
			t.Errorf("Status-Server: %s", got)
		}
	})
	t.Run("a wrong shared secret", func(t *testing.T) {
		if got := radclient(t, n, "auth", "wrong", papAttributes(list[3].user, list[3].code(0))+withMA); got != sawNothing {
			t.Errorf("%s; want silence", got)
		}
	})
	t.Run("without a Message-Authenticator", func(t *testing.T) {
		g := n.newGateway(t, "")
		unsigned := g.request(list[3].user, list[3].press(), false)
		if err := g.send(unsigned); err != nil {
			t.Fatal(err)
		}
		if got := g.await(unsigned, time.Second); got != sawNothing {
			t.Errorf("%s; want silence", got)
		}
		if log := n.log(); !strings.Contains(log, "Message-Authenticator") || !strings.Contains(log, "client=localhost") {
			t.Error("the log does not say which client sent no Message-Authenticator")
		}
		_, metrics := n.get("/metrics")
		if !strings.Contains(string(metrics), `client="localhost"`) || !strings.Contains(string(metrics), "missing") {
			t.Error("/metrics does not count it")
		}

		// For a gateway that cannot send one it is a setting.
		n.must(http.MethodPut, "/v1/clients/localhost", map[string]any{
			"prefix": "127.0.0.1", "secret": n.secret, "require_message_authenticator": false,
		}, nil)
		attributes := papAttributes(list[3].user, list[3].press())
		if got := ask(attributes); got != sawAccept {
			t.Errorf("after the setting: %s", got)
		}
		if got := ask(attributes); got != sawReject {
			t.Errorf("after the setting, again: %s", got)
		}
	})
	n.wantIntactAudit()
}
