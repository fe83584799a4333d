package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// pamService is a PAM service that asks a server through pam_radius_auth.
type pamService struct {
	t    *testing.T
	name string
}

// newPAMService writes the service's file where libpam looks for it, and nowhere else; it
// goes with the test.
func newPAMService(t *testing.T, at, secret, options string) *pamService {
	t.Helper()
	wantProgram(t, "libpam-radius-auth", "/lib/x86_64-linux-gnu/security/pam_radius_auth.so", "/lib/aarch64-linux-gnu/security/pam_radius_auth.so")
	wantProgram(t, "pamtester", "/usr/bin/pamtester")
	wantRoot(t, "write to /etc/pam.d")
	conf := testFile(t, t.TempDir(), "pam_radius_auth.conf", fmt.Sprintf("%s %s 1\n", at, secret))
	f, err := os.CreateTemp("/etc/pam.d", "watchword-test-*")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(f.Name()) })
	_, err = fmt.Fprintf(f, "auth required pam_radius_auth.so conf=%s %s\naccount required pam_permit.so\n", conf, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return &pamService{t: t, name: filepath.Base(f.Name())}
}

// login has pamtester log a user in who types these lines, and answers what it printed.
func (s *pamService) login(user string, typed ...string) (sight, string) {
	s.t.Helper()
	cmd := exec.Command("pamtester", "-v", s.name, user, "authenticate", "acct_mgmt")
	cmd.Stdin = strings.NewReader(strings.Join(typed, "\n") + "\n")
	out, err := cmd.CombinedOutput()
	text := string(out)
	switch {
	case err == nil && strings.Contains(text, "successfully authenticated"):
		return sawAccept, text
	case strings.Contains(text, "Authentication service cannot retrieve authentication info"):
		return sawNothing, text
	case strings.Contains(text, "Authentication failure"):
		return sawReject, text
	}
	s.t.Fatalf("pamtester: %v\n%s", err, text)
	return "", ""
}

// TestPamRadius logs people in through Debian's pam_radius.
func TestPamRadius(t *testing.T) {
	wantRoot(t, "write to /etc/pam.d")
	n := startNode(t, nodeOptions{})
	list := newTokens("PAM", 6, true)
	n.equip(list...)
	p := newTap(t, n, nil)
	pam := newPAMService(t, p.addr, n.secret, "prompt=Code retry=0 prompt_attribute")
	login := func(user string, want sight, typed ...string) string {
		t.Helper()
		got, printed := pam.login(user, typed...)
		if got != want {
			t.Fatalf("%s; want %s:\n%s", got, want, printed)
		}
		return printed
	}

	t.Run("it is heard if it signs", func(t *testing.T) {
		got, printed := pam.login(list[0].user, list[0].press())
		asked := p.take()[0]
		t.Logf("it signs its requests: %v", asked.has(attrMessageAuthenticator))
		want := sawAccept
		if !asked.has(attrMessageAuthenticator) {
			want = sawNothing
			if log := n.log(); !strings.Contains(log, "missing_message_authenticator") {
				t.Error("the log does not say why it is not heard")
			}
		}
		if got != want {
			t.Errorf("%s; want %s:\n%s", got, want, printed)
		}
	})
	n.setClient(nil)

	t.Run("a code is accepted once", func(t *testing.T) {
		code := list[0].press()
		if printed := login(list[0].user, sawAccept, code); !strings.Contains(printed, "Code: ") {
			t.Errorf("the prompt is not the one that was set:\n%s", printed)
		}
		packets := p.wantCodes(t, accessRequest, accessAccept)
		if id := packets[0].one(attrNASIdentifier); id != pam.name {
			t.Errorf("NAS-Identifier is %q; want the name of the service", id)
		}
		login(list[0].user, sawReject, code)
		n.wantReason(list[0].user, "replay")
		login("nobody", sawReject, code)
	})
	t.Run("PIN and code", func(t *testing.T) {
		k := list[1]
		n.setPIN(k.user, "82905", false)
		login(k.user, sawReject, k.code(0))
		n.wantReason(k.user, "pin_missing")
		login(k.user, sawAccept, "82905"+k.press())
	})
	t.Run("a lost reply is sent again", func(t *testing.T) {
		again := newPAMService(t, p.addr, n.secret, "retry=2")
		p.take()
		p.loseReplies(1)
		if got, printed := again.login(list[2].user, list[2].press()); got != sawAccept {
			t.Errorf("%s:\n%s", got, printed)
		}
		p.wantCodes(t, accessRequest, accessAccept, accessRequest, accessAccept)
	})
	p.take()
	n.setClient(map[string]any{"dialogues": []string{"pin", "next_code", "new_pin"}, "messages": map[string]string{"next_code": "And the next one: "}})
	t.Run("the PIN first, then the code", func(t *testing.T) {
		k := list[3]
		n.setPIN(k.user, "82905", false)
		const question = "Enter the code that your token shows."
		for _, x := range []struct {
			first, reason string
			want          sight
			last          byte
		}{{"82906", "wrong_pin", sawReject, accessReject}, {"82905", "accepted", sawAccept, accessAccept}} {
			code := k.press()
			if printed := login(k.user, x.want, x.first, code); !strings.Contains(printed, question) {
				t.Errorf("the question is not shown:\n%s", printed)
			}
			p.wantChallenged(t, 1, x.last)
			n.wantReason(k.user, x.reason)
		}
		// Whoever knows both types them at once.
		login(k.user, sawAccept, "82905"+k.press())
		p.wantCodes(t, accessRequest, accessAccept)
	})
	t.Run("a code far ahead, and the next one", func(t *testing.T) {
		k := list[4]
		k.next += 30 // it was played with
		first := k.press()
		if printed := login(k.user, sawReject, first, k.code(k.next+1)); !strings.Contains(printed, "And the next one: ") {
			t.Errorf("the question is not shown:\n%s", printed)
		}
		p.wantChallenged(t, 1, accessReject)
		login(k.user, sawAccept, k.press(), k.press())
		p.wantChallenged(t, 1, accessAccept)
		login(k.user, sawAccept, k.press())
		p.wantCodes(t, accessRequest, accessAccept)
	})
	t.Run("a PIN that is due is changed", func(t *testing.T) {
		k := list[5]
		n.setPIN(k.user, "82905", true)
		printed := login(k.user, sawAccept, "82905"+k.press(), "82905", "73914", "73914")
		for _, question := range []string{"Your PIN must be changed.", "That PIN is not allowed.", "Enter the new PIN again."} {
			if !strings.Contains(printed, question) {
				t.Errorf("%q is not shown:\n%s", question, printed)
			}
		}
		for i, k := range p.wantChallenged(t, 3, accessAccept) {
			if k[0] == accessChallenge && k.one(attrPrompt) != "\x00\x00\x00\x00" { // No Echo: RFC 2869, section 5.10
				t.Errorf("packet %d, %v: it lets a PIN be echoed", i, k)
			}
		}
		login(k.user, sawAccept, "73914"+k.press())
	})
	n.wantIntactAudit()
}
