package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"watchword/webauthn/softkey"
)

// joseVerify has Debian's jose check a statement by what is published, and answers
// its claims.
func joseVerify(t *testing.T, n *node, jwt string) (claims map[string]any, err error) {
	t.Helper()
	status, jwks := n.get("/.well-known/jwks.json")
	if status != http.StatusOK {
		t.Fatalf("the keys are not published: %d", status)
	}
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, jwks, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("jose"); err != nil {
		t.Fatalf("%v (package jose)", err)
	}
	cmd := exec.Command("jose", "jws", "ver", "-i", "-", "-k", file, "-O", "-")
	cmd.Stdin = strings.NewReader(jwt)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(out.Bytes(), &claims); err != nil {
		t.Fatalf("what was signed is no JSON: %v", err)
	}
	return claims, nil
}

// kidOf is the key that a statement says it is signed with.
func kidOf(t *testing.T, jwt string) string {
	t.Helper()
	head, _, _ := strings.Cut(jwt, ".")
	text, err := base64.RawURLEncoding.DecodeString(head)
	var header struct{ Alg, Kid string }
	if err == nil {
		err = json.Unmarshal(text, &header)
	}
	if err != nil || header.Alg != "ES256" || header.Kid == "" {
		t.Fatalf("a statement's header is %s: %v", text, err)
	}
	return header.Kid
}

func TestJoseChecksStatementsBeforeAndAfterARotation(t *testing.T) {
	a, b := twoKeyNodes(t)
	const audience = "https://wiki.example.org"
	k := a.equipKeys(softkey.Options{UserVerification: true}, "alice")[0]
	code := newTokens("J", 1, true)[0]
	a.equip(code)
	wanted := map[string]any{"audience": audience, "nonce": "n-0S6_WzA2Mj"}

	byKey := func(n *node) string {
		t.Helper()
		as := n.mustTouch(k)
		as.body["statement"] = wanted
		var got struct{ Result, Statement string }
		n.must(http.MethodPost, "/v1/webauthn/login/finish", as.body, &got)
		if got.Result != "accept" || got.Statement == "" {
			t.Fatalf("%+v", got)
		}
		return got.Statement
	}
	byCode := func(n *node) string {
		t.Helper()
		var got struct{ Result, Statement string }
		n.must(http.MethodPost, "/v1/verify", map[string]any{"user": code.user, "code": code.press(), "statement": wanted}, &got)
		if got.Result != "accept" || got.Statement == "" {
			t.Fatalf("%+v", got)
		}
		return got.Statement
	}
	check := func(n *node, jwt, user, serial string, methods ...string) {
		t.Helper()
		claims, err := joseVerify(t, n, jwt)
		if err != nil {
			t.Fatalf("jose refuses it: %v", err)
		}
		token, _ := claims["token"].(map[string]any)
		if claims["sub"] != user || claims["aud"] != audience || claims["nonce"] != wanted["nonce"] || claims["iss"] != "watchword" || token["serial"] != serial {
			t.Errorf("it says %v", claims)
		}
		at, _ := claims["auth_time"].(float64)
		if age := time.Since(time.Unix(int64(at), 0)); age < -time.Minute || age > time.Minute {
			t.Errorf("it says that the user was verified %v ago", age)
		}
		amr, _ := claims["amr"].([]any)
		for _, m := range methods {
			if !slices.Contains(amr, any(m)) {
				t.Errorf("amr is %v, without %s", amr, m)
			}
		}
		// One letter of it changed, and it is nobody's.
		parts := strings.Split(jwt, ".")
		forged := parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"root","aud":"`+audience+`"}`)) + "." + parts[2]
		if _, err := joseVerify(t, n, forged); err == nil {
			t.Error("jose takes a forged statement")
		}
	}
	good := func(n *node, jwt string) bool {
		t.Helper()
		var v struct {
			Active bool
			Reason string
		}
		n.must(http.MethodPost, "/v1/statements/check", map[string]any{"statement": jwt, "audience": audience, "max_age": 600}, &v)
		if !v.Active && v.Reason == "" {
			t.Error("it does not say why")
		}
		return v.Active
	}

	first, second := byKey(a), byCode(b)
	check(b, first, "alice", k.serial, "hwk", "user")
	check(a, second, code.user, code.serial, "otp")
	if kidOf(t, first) != kidOf(t, second) {
		t.Error("two nodes sign with two keys")
	}

	// A rotation: what was signed before is still good, and what is signed after,
	// with whichever key, is good on every node at once.
	a.must(http.MethodPost, "/v1/statements/keys", nil, nil)
	check(a, first, "alice", k.serial)
	check(b, first, "alice", k.serial)
	check(b, byKey(b), "alice", k.serial)
	check(a, byCode(b), code.user, code.serial)
	if !good(a, first) || !good(b, second) {
		t.Error("what was signed before a rotation is worth nothing")
	}

	// The key is no longer trusted: the next one signs at once, on both nodes, and
	// nobody can check what the old one signed.
	a.must(http.MethodPost, "/v1/statements/keys", map[string]bool{"now": true}, nil)
	for _, n := range []*node{a, b} {
		jwt := byKey(n)
		if kidOf(t, jwt) == kidOf(t, first) {
			t.Error("the old key still signs")
		}
		check(a, jwt, "alice", k.serial)
		check(b, jwt, "alice", k.serial)
		if !good(a, jwt) || !good(b, jwt) {
			t.Error("what the new key signed is not good")
		}
		if good(n, first) {
			t.Error("what the old key signed is good")
		}
		eventually(t, 15*time.Second, "the old key is published no more", func() bool {
			_, err := joseVerify(t, n, first)
			return err != nil
		})
	}
	a.wantIntactAudit()
}
