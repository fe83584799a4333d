package tokens_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/tokens"
)

// forge makes a JWT of a header and claims, signed by sign.
func forge(t *testing.T, header, claims any, sign func(input string) []byte) string {
	t.Helper()
	var parts []string
	for _, v := range []any{header, claims} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, base64.RawURLEncoding.EncodeToString(text))
	}
	input := strings.Join(parts, ".")
	return input + "." + base64.RawURLEncoding.EncodeToString(sign(input))
}

func TestCheckStatementSaysWhyAStatementProvesNothing(t *testing.T) {
	h := newHouse(t)
	give := h.accepted()
	jwt, err := give(h.Service, 10*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	good, err := h.CheckStatement(ctx, h.admin, jwt, audience, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if r := h.last(); r.Action != "statement.check" || r.Outcome != "ok" || r.User != "alice" || r.Serial != "S1" {
		t.Errorf("audited as %+v", r)
	}
	var head map[string]any
	text, err := base64.RawURLEncoding.DecodeString(header(jwt))
	if err == nil {
		err = json.Unmarshal(text, &head)
	}
	if err != nil {
		t.Fatal(err)
	}
	// ours signs anything with the key in the HSM: it must not be enough.
	ours := func(input string) []byte {
		digest := sha256.Sum256([]byte(input))
		signature, err := h.keys.SignStatement(ctx, 1, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
	with := func(name string, value any) map[string]any {
		changed := map[string]any{}
		for k, v := range head {
			changed[k] = v
		}
		if changed[name] = value; value == nil {
			delete(changed, name)
		}
		return changed
	}
	claims := func(change func(*tokens.StatementClaims)) string {
		c := good
		change(&c)
		return forge(t, head, c, ours)
	}
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.CheckStatement(ctx, h.admin, forge(t, head, good, ours), audience, 0); err != nil {
		t.Fatalf("what is made here as the server makes it: %v", err)
	}
	parts := strings.Split(jwt, ".")
	other := "A"
	if parts[2][10] == 'A' {
		other = "B"
	}
	for name, c := range map[string]struct {
		jwt, audience string
		age           time.Duration
		reason        string
	}{
		"nothing":             {"", audience, 0, "malformed"},
		"two parts":           {parts[0] + "." + parts[1], audience, 0, "malformed"},
		"four parts":          {jwt + ".", audience, 0, "malformed"},
		"padding":             {jwt + "=", audience, 0, "malformed"},
		"a line end":          {jwt + "\n", audience, 0, "malformed"},
		"too long":            {jwt + strings.Repeat("A", 20000), audience, 0, "malformed"},
		"no JSON":             {"AAAA." + parts[1] + "." + parts[2], audience, 0, "malformed"},
		"no signature":        {parts[0] + "." + parts[1] + ".", audience, 0, "bad_signature"},
		"another signature":   {parts[0] + "." + parts[1] + "." + parts[2][:10] + other + parts[2][11:], audience, 0, "bad_signature"},
		"other claims":        {parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"admin"}`)) + "." + parts[2], audience, 0, "bad_signature"},
		"alg none":            {forge(t, with("alg", "none"), good, func(string) []byte { return nil }), audience, 0, "malformed"},
		"alg none, signed":    {forge(t, with("alg", "none"), good, ours), audience, 0, "malformed"},
		"no alg":              {forge(t, with("alg", nil), good, ours), audience, 0, "malformed"},
		"alg HS256":           {forge(t, with("alg", "HS256"), good, hs256), audience, 0, "malformed"},
		"another typ":         {forge(t, with("typ", "at+jwt"), good, ours), audience, 0, "malformed"},
		"crit":                {forge(t, with("crit", []string{"exp"}), good, ours), audience, 0, "malformed"},
		"a key of its own":    {forge(t, with("jwk", map[string]string{"kty": "EC"}), good, ours), audience, 0, "malformed"},
		"no kid":              {forge(t, with("kid", nil), good, ours), audience, 0, "unknown_key"},
		"another kid":         {forge(t, with("kid", "x"), good, ours), audience, 0, "unknown_key"},
		"an unknown key":      {forge(t, head, good, func(input string) []byte { return es256(t, stranger, input) }), audience, 0, "bad_signature"},
		"the audit key":       {forge(t, head, good, func(input string) []byte { return auditSigned(t, h, input) }), audience, 0, "bad_signature"},
		"another issuer":      {claims(func(c *tokens.StatementClaims) { c.Issuer = "https://evil.example.com" }), audience, 0, "wrong_issuer"},
		"no issuer":           {claims(func(c *tokens.StatementClaims) { c.Issuer = "" }), audience, 0, "wrong_issuer"},
		"another audience":    {jwt, "https://mail.example.com", 0, "wrong_audience"},
		"part of an audience": {jwt, audience + "/", 0, "wrong_audience"},
		"expired":             {claims(func(c *tokens.StatementClaims) { c.Expires = h.clock.now().Unix() }), audience, 0, "expired"},
		"never expires":       {claims(func(c *tokens.StatementClaims) { c.Expires = 0 }), audience, 0, "expired"},
		"of the future":       {claims(func(c *tokens.StatementClaims) { c.IssuedAt += 60 }), audience, 0, "not_yet"},
		"verified long ago":   {claims(func(c *tokens.StatementClaims) { c.AuthTime -= 61 }), audience, time.Minute, "too_old"},
	} {
		got, err := h.CheckStatement(ctx, h.admin, c.jwt, c.audience, c.age)
		if !isStatement(err, c.reason) || got.Subject != "" {
			t.Errorf("%s: %+v, %v; want %s", name, got, err, c.reason)
		}
	}
	for _, bad := range []struct {
		audience string
		age      time.Duration
	}{{"", 0}, {audience, -time.Second}} {
		var why *tokens.StatementError
		if _, err := h.CheckStatement(ctx, h.admin, jwt, bad.audience, bad.age); !errors.Is(err, tokens.ErrInvalid) || errors.As(err, &why) {
			t.Errorf("checked for %q and %v: %v", bad.audience, bad.age, err)
		}
	}
	// The age that an application asks for, to the second; and the end.
	h.clock.forward(5 * time.Minute)
	for age, want := range map[time.Duration]string{0: "", 5 * time.Minute: "", 5*time.Minute - time.Second: "too_old"} {
		if _, err := h.CheckStatement(ctx, h.admin, jwt, audience, age); (err == nil) != (want == "") || want != "" && !isStatement(err, want) {
			t.Errorf("verified five minutes ago, for %v: %v", age, err)
		}
	}
	h.clock.forward(5*time.Minute - time.Second)
	h.must(h.CheckStatement(ctx, h.admin, jwt, audience, 0))
	h.clock.forward(time.Second)
	if _, err := h.CheckStatement(ctx, h.admin, jwt, audience, 0); !isStatement(err, "expired") {
		t.Errorf("at its end: %v", err)
	}
	h.intact()
}

func hs256(input string) []byte {
	m := hmac.New(sha256.New, []byte("the public key, for whoever takes it for a secret"))
	m.Write([]byte(input))
	return m.Sum(nil)
}

func es256(t *testing.T, key *ecdsa.PrivateKey, input string) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte(input))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
}

func auditSigned(t *testing.T, h *house, input string) []byte {
	t.Helper()
	digest := sha256.Sum256([]byte(input))
	signature, err := hsm.Signer(h.keys).Sign(ctx, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// A realm's application learns nothing of another realm's users, and who floods the
// check with nonsense is counted rather than recorded.
func TestWhoMayCheckStatements(t *testing.T) {
	h := newHouse(t)
	give := h.accepted()
	jwt, err := give(h.Service, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		realm, scope string
		want         string
	}{
		{"", "admin", ""}, {"", "verify", ""}, {"default", "verify", ""}, {"lab", "verify", "wrong_realm"},
		{"", "read", "forbidden"}, {"", "helpdesk", "forbidden"}, {"default", "read", "forbidden"},
	} {
		got, err := h.CheckStatement(ctx, h.key(c.realm, c.scope), jwt, audience, 0)
		switch {
		case c.want == "" && (err != nil || got.Subject != "alice"),
			c.want == "forbidden" && !errors.Is(err, tokens.ErrForbidden),
			c.want == "wrong_realm" && !isStatement(err, c.want):
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
		if r := h.last(); c.want == "wrong_realm" && (r.Realm != "lab" || r.User != "" || r.Serial != "") {
			t.Errorf("audited as %+v", r)
		}
	}
	before := len(h.records("statement.check", "refused"))
	p := h.key("", "verify")
	for range 500 {
		if _, err := h.CheckStatement(ctx, p, "x.y.z", audience, 0); !isStatement(err, "malformed") {
			t.Fatal(err)
		}
	}
	if n := len(h.records("statement.check", "refused")) - before; n > 20 {
		t.Errorf("500 checks of nonsense are %d records", n)
	}
}

func TestOnlyAdministratorsRotate(t *testing.T) {
	h := newHouse(t)
	for _, now := range []bool{false, true} {
		for _, p := range []tokens.Principal{h.key("", "helpdesk"), h.key("", "verify"), h.key("", "read"), h.key("default", "admin"), h.vpn} {
			if _, err := h.RotateStatementKey(ctx, p, now); !errors.Is(err, tokens.ErrForbidden) {
				t.Errorf("%s in %q: %v", p.Scope, p.Realm, err)
			}
		}
	}
	h.must(h.StatementKeys(ctx, h.key("", "read")))
	for _, p := range []tokens.Principal{h.key("", "verify"), h.key("default", "admin")} {
		if _, err := h.StatementKeys(ctx, p); !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("%s in %q lists: %v", p.Scope, p.Realm, err)
		}
	}
	if got := h.states(h.Service); got != "next current" {
		t.Errorf("the keys are %s", got)
	}
}
