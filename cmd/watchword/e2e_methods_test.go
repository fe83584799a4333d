package main

import (
	"bytes"
	"crypto/des"
	"crypto/md5"
	"crypto/sha1"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"golang.org/x/crypto/md4" //lint:ignore SA1019 MS-CHAP is made of it
)

// microsoft is a Vendor-Specific attribute of Microsoft's (RFC 2548).
func microsoft(kind byte, value []byte) []byte {
	return append([]byte{26, byte(8 + len(value)), 0, 0, 1, 0x37, kind, byte(2 + len(value))}, value...)
}

// ntResponse is the response of RFC 2433, appendix A.5: a challenge of eight bytes
// under three DES keys out of the code's MD4.
func ntResponse(challenge []byte, code string) []byte {
	h := md4.New()
	for i := range len(code) {
		h.Write([]byte{code[i], 0})
	}
	hash := append(h.Sum(nil), make([]byte, 5)...)
	var out []byte
	for i := 0; i < 21; i += 7 {
		var key [8]byte
		for j := range key { // seven bits of the hash to a byte; the eighth, parity, is not looked at
			for bit := range 7 {
				at := 7*j + bit
				if hash[i+at/8]&(0x80>>(at%8)) != 0 {
					key[j] |= 0x80 >> bit
				}
			}
		}
		c, err := des.NewCipher(key[:])
		if err != nil {
			panic(err)
		}
		block := make([]byte, 8)
		c.Encrypt(block, challenge)
		out = append(out, block...)
	}
	return out
}

// by makes a request that shows the code by a method.
func (g *gateway) by(method, user, code string) []byte {
	switch method {
	case "pap":
		return g.request(user, code, true)
	case "chap":
		return g.build(user, true, func(authenticator []byte) []byte { // which is the challenge
			sum := md5.Sum(append(append([]byte{7}, code...), authenticator...))
			return append([]byte{3, 19, 7}, sum[:]...)
		})
	case "mschap":
		challenge := []byte("8 bytes.")
		return g.build(user, true, func([]byte) []byte {
			response := append([]byte{7, 1}, make([]byte, 24)...)
			return append(microsoft(11, challenge), microsoft(1, append(response, ntResponse(challenge, code)...))...)
		})
	case "mschapv2":
		ours, peer := bytes.Repeat([]byte{0xA5}, 16), bytes.Repeat([]byte{0x5A}, 16)
		challenge := sha1.Sum(append(append(bytes.Clone(peer), ours...), user...))
		return g.build(user, true, func([]byte) []byte {
			response := append(append([]byte{7, 0}, peer...), make([]byte, 8)...)
			return append(microsoft(11, ours), microsoft(25, append(response, ntResponse(challenge[:8], code)...))...)
		})
	}
	panic(method)
}

var everyMethod = []string{"pap", "chap", "mschap", "mschapv2"}

// anyMethod lets the client of 127.0.0.1 use every method.
func (n *node) anyMethod() {
	n.must(http.MethodPut, "/v1/clients/localhost", map[string]any{"prefix": "127.0.0.1/32", "secret": n.secret, "methods": everyMethod}, nil)
}

// TestOneCodeByEveryMethodAtOnceIsAcceptedOnce: PAP, CHAP, MS-CHAP, MS-CHAPv2 and HTTP,
// at the same moment, many times over.
func TestOneCodeByEveryMethodAtOnceIsAcceptedOnce(t *testing.T) {
	a, b := twoNodes(t, false)
	a.anyMethod()
	const each = 16
	list := newTokens("MA", 3, true)
	a.equip(list...)
	for _, k := range list {
		code := k.press()
		var attempts []func() sight
		for i := range each {
			n := []*node{a, b}[i%2]
			for _, method := range everyMethod {
				g := n.newGateway(t, "")
				request := g.by(method, k.user, code)
				attempts = append(attempts, func() sight {
					if err := g.send(request); err != nil {
						return sight(err.Error())
					}
					return g.await(request, 20*time.Second)
				})
			}
			attempts = append(attempts, func() sight { return n.verify(k.user, code) })
		}
		seen := atOnce(len(attempts), func(i int) sight { return attempts[i]() })
		if seen[sawAccept] != 1 || seen[sawReject] != len(attempts)-1 {
			t.Errorf("%s: %v", k.serial, seen)
		}
		if accepts := a.audit(url.Values{"action": {"verify"}, "outcome": {"accept"}, "user": {k.user}}); len(accepts) != 1 {
			t.Errorf("%s: the audit has %d accepts", k.serial, len(accepts))
		}
	}
	a.wantIntactAudit()
}

// TestEachMethodByRadclient: FreeRADIUS's own client makes the requests that it can,
// and reads the replies.
func TestEachMethodByRadclient(t *testing.T) {
	n := startNode(t, nodeOptions{})
	list := newTokens("MR", 5, true)
	n.equip(list...)
	shows := func(method string, k *hardToken, code string) string {
		switch method {
		case "pap":
			return papAttributes(k.user, code) + withMA
		case "chap":
			return fmt.Sprintf("User-Name=%s,CHAP-Password=%s", k.user, code) + withMA
		case "mschap":
			return fmt.Sprintf("User-Name=%s,MS-CHAP-Password=%s", k.user, code) + withMA
		}
		ours, peer := bytes.Repeat([]byte{0xA5}, 16), bytes.Repeat([]byte{0x5A}, 16)
		challenge := sha1.Sum(append(append(bytes.Clone(peer), ours...), k.user...))
		response := append(append(append([]byte{7, 0}, peer...), make([]byte, 8)...), ntResponse(challenge[:8], code)...)
		return fmt.Sprintf("User-Name=%s,MS-CHAP-Challenge=0x%x,MS-CHAP2-Response=0x%x", k.user, ours, response) + withMA
	}
	ask := func(method string, k *hardToken, code string) sight {
		return radclient(t, n, "auth", n.secret, shows(method, k, code))
	}
	for i, method := range everyMethod[1:] {
		if got := ask(method, list[i], list[i].code(list[i].next)); got != sawReject {
			t.Errorf("%s is not allowed: %s", method, got)
		}
	}
	n.anyMethod()
	for i, method := range everyMethod {
		k := list[i]
		code := k.press()
		if got := ask(method, k, "00000000"); got != sawReject {
			t.Errorf("%s, a wrong code: %s", method, got)
		}
		if got := ask(method, k, code); got != sawAccept {
			t.Errorf("%s: %s (%+v)", method, got, n.lastAttempt(k.user))
		}
		if got := ask(method, k, code); got != sawReject {
			t.Errorf("%s, again: %s", method, got)
		}
		if last := n.lastAttempt(k.user); last.Reason != "replay" {
			t.Errorf("%s: the audit says %s", method, last.Reason)
		}
	}
	// Nobody has the PIN back, so nobody can hold it against a hash.
	k := list[4]
	n.must(http.MethodPut, "/v1/users/"+k.user+"/pin", map[string]string{"pin": "s3cret"}, nil)
	for _, method := range everyMethod[1:] {
		if got := ask(method, k, k.code(k.next)); got != sawReject {
			t.Errorf("%s with a PIN: %s", method, got)
		}
		if last := n.lastAttempt(k.user); last.Reason != "pin_with_method" {
			t.Errorf("%s with a PIN: the audit says %s", method, last.Reason)
		}
	}
}
