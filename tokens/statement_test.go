package tokens_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"watchword/hsm/hsmtest"
	"watchword/tokens"
	"watchword/tokens/storetest"
)

const audience = "https://wiki.example.com"

// published is what an application knows of JWKS: the keys by name.
type published map[string]*ecdsa.PublicKey

func readJWKS(t testing.TB, text []byte) published {
	t.Helper()
	var set struct {
		Keys []struct{ Kty, Crv, Use, Alg, Kid, X, Y string }
	}
	if err := json.Unmarshal(text, &set); err != nil {
		t.Fatal(err)
	}
	keys := published{}
	for _, k := range set.Keys {
		x, err1 := base64.RawURLEncoding.DecodeString(k.X)
		y, err2 := base64.RawURLEncoding.DecodeString(k.Y)
		public, err3 := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err := errors.Join(err1, err2, err3); err != nil || k.Kty != "EC" || k.Crv != "P-256" || k.Use != "sig" || k.Alg != "ES256" || keys[k.Kid] != nil {
			t.Fatalf("published: %+v, %v", k, err)
		}
		keys[k.Kid] = public
	}
	return keys
}

// reads proves a statement as an application does (RFC 7515, section 5.2), and
// answers what it says.
func (p published) reads(t testing.TB, jwt string) (map[string]any, bool) {
	t.Helper()
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		t.Fatalf("%d parts", len(parts))
	}
	var header, claims map[string]any
	for i, v := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(header) != 3 || header["alg"] != "ES256" || header["typ"] != "JWT" {
		t.Fatalf("header: %v", header)
	}
	key := p[header["kid"].(string)]
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(signature) != 64 {
		t.Fatalf("a signature of %d bytes, %v", len(signature), err)
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	return claims, key != nil && ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
}

func (h *house) jwks(s *tokens.Service) published {
	h.Helper()
	text, err := s.JWKS(ctx)
	if err != nil {
		h.Fatal(err)
	}
	return readJWKS(h, text)
}

// accepted gives alice the HOTP token S1 and answers what proves one accept after
// another, and the statement of it.
func (h *house) accepted() func(s *tokens.Service, ttl time.Duration) (string, error) {
	h.Helper()
	d := hotp("S1")
	d.Model = "Card"
	h.give("alice", d)
	factor := int64(0)
	return func(s *tokens.Service, ttl time.Duration) (string, error) {
		h.Helper()
		r, err := s.Verify(ctx, h.vpn, tokens.Attempt{User: "alice", Code: d.at(factor)})
		if err != nil || !r.Accept {
			h.Fatalf("code %d: %+v, %v", factor, r, err)
		}
		factor++
		return s.Statement(ctx, h.vpn, tokens.StatementRequest{Audience: audience, TTL: ttl}, tokens.Verified{User: "Alice", Serial: r.Serial})
	}
}

// jose runs Debian's jose program.
func jose(t testing.TB, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("jose", args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("jose is not installed: install the package jose: %v", err)
	}
	return string(out), err
}

// An independent implementation verifies what the HSM signed against what is
// published, before, while and after the keys are rotated; and does not when they
// are published no more, or a word was changed.
func TestJOSEVerifiesStatementsBeforeAndAfterARotation(t *testing.T) {
	k, _ := hsmtest.SoftHSM(t)
	h := &house{TB: t, mem: storetest.NewMemory(t), keys: &meter{Keystore: k}, clock: &clock{}, log: &lockedBuffer{}}
	h.db = &editor{Memory: h.mem}
	h.clock.set(start)
	h.open()
	again := h.accepted()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	give := func() string {
		t.Helper()
		jwt, err := again(h.Service, tokens.MaxStatementTTL)
		if err != nil {
			t.Fatal(err)
		}
		return jwt
	}
	set := func() string {
		t.Helper()
		text, err := h.JWKS(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	verifies := func(what, jwt, jwks string, want bool) {
		t.Helper()
		out, err := jose(t, "jws", "ver", "-i", file("jwt", jwt), "-k", file("jwks", jwks), "-O-")
		if (err == nil) != want {
			t.Errorf("%s: jose says %v (%s), want %v", what, err, out, want)
		}
		if want {
			var claims tokens.StatementClaims
			if err := json.Unmarshal([]byte(out), &claims); err != nil || claims.Subject != "alice" || claims.Audience != audience {
				t.Errorf("%s: jose reads %+v, %v", what, claims, err)
			}
		}
	}

	before, cached := give(), set()
	verifies("a statement", before, cached, true)
	parts := strings.Split(before, ".")
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	forged := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(body), "alice", "admin", 1)))
	verifies("a statement that was changed", parts[0]+"."+forged+"."+parts[2], cached, false)

	// jose names the keys as we do.
	var keys struct{ Keys []map[string]any }
	if err := json.Unmarshal([]byte(cached), &keys); err != nil || len(keys.Keys) != 2 {
		t.Fatalf("%d keys are published, %v", len(keys.Keys), err)
	}
	for _, key := range keys.Keys {
		text, err := json.Marshal(key)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := jose(t, "jwk", "thp", "-a", "S256", "-i", file("jwk", string(text))); err != nil || strings.TrimSpace(out) != key["kid"] {
			t.Errorf("jose calls key %v %q (%v)", key["kid"], out, err)
		}
	}

	h.clock.forward(30 * time.Minute) // the next key is known by now
	h.must(h.RotateStatementKey(ctx, h.admin, false))
	after := give()
	if header(after) == header(before) {
		t.Error("the key is the same after a rotation")
	}
	verifies("a statement of before", before, set(), true)
	verifies("a statement of after", after, set(), true)
	verifies("a statement of after, for whom kept the keys of before", after, cached, true)
	h.clock.forward(tokens.MaxStatementTTL + 6*time.Minute) // the first has expired
	verifies("a statement of before, later", before, set(), false)
	verifies("a statement of after, later", after, set(), true)
	h.must(h.RotateStatementKey(ctx, h.admin, true))
	verifies("a statement of a key that is not trusted any more", after, set(), false)
	verifies("a statement of the key in its place", give(), set(), true)
	h.intact()
}

// header is a statement's.
func header(jwt string) string {
	part, _, _ := strings.Cut(jwt, ".")
	return part
}

func TestAStatementSaysWhatWasVerified(t *testing.T) {
	h := newHouse(t, func(c *tokens.Config) { c.Issuer = "https://otp.example.com" })
	card, key, passkey := hotp("S1"), newSeckey("key"), newSeckey("passkey")
	card.Model = "Card <1>"
	passkey.synced = true
	h.give("alice", card)
	h.enrol("alice", key, passkey)
	at := h.clock.now()
	asked := tokens.StatementRequest{Audience: audience, Nonce: "n-0S6_WzA2Mj", TTL: 90 * time.Second}

	claims := func(v tokens.Verified) map[string]any {
		t.Helper()
		jwt, err := h.Statement(ctx, h.vpn, asked, v)
		if err != nil {
			t.Fatal(err)
		}
		said, ok := h.jwks(h.Service).reads(t, jwt)
		if !ok {
			t.Error("it does not verify")
		}
		checked, err := h.CheckStatement(ctx, h.admin, jwt, audience, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(checked)
		if err != nil {
			t.Fatal(err)
		}
		var again map[string]any
		if err := json.Unmarshal(text, &again); err != nil || fmt.Sprint(again) != fmt.Sprint(said) {
			t.Errorf("CheckStatement answers %v of %v (%v)", again, said, err)
		}
		if realm, user := checked.User(); realm != tokens.DefaultRealm || user != "alice" {
			t.Errorf("it is about %s in %s", user, realm)
		}
		r := h.records("statement.give", "ok")[0]
		if r.User != "alice" || r.Serial != v.Serial || r.Actor != h.vpn.Actor() || !strings.Contains(fmt.Sprint(r.Detail), said["jti"].(string)) {
			t.Errorf("audited as %+v", r)
		}
		if strings.Contains(fmt.Sprint(r), strings.Split(jwt, ".")[2]) {
			t.Error("the audit holds a statement")
		}
		return said
	}
	same := func(what string, got map[string]any, want map[string]any) {
		t.Helper()
		id, err := base64.RawURLEncoding.DecodeString(got["jti"].(string))
		if err != nil || len(id) != 16 {
			t.Errorf("%s: jti %v", what, got["jti"])
		}
		delete(got, "jti")
		for name, value := range map[string]any{
			"iss": "https://otp.example.com", "sub": "alice", "realm": "default", "aud": audience, "azp": "client:localhost", "nonce": asked.Nonce,
			"iat": at.Unix(), "exp": at.Unix() + 90, "auth_time": at.Unix(),
		} {
			want[name] = value
		}
		a, err1 := json.Marshal(got)
		b, err2 := json.Marshal(want)
		if err1 != nil || err2 != nil || string(a) != string(b) {
			t.Errorf("%s:\n%s\n%s", what, a, b)
		}
	}

	if !h.try("alice", card.at(0)) {
		t.Fatal("rejected")
	}
	of := map[string]any{"serial": "S1", "type": "hotp", "model": "Card <1>"}
	same("a code", claims(tokens.Verified{User: "ALICE", Serial: "S1", At: at}), map[string]any{"amr": []string{"otp"}, "token": of})
	h.must(h.SetPIN(ctx, h.admin, "", "alice", "4711", false))
	if !h.try("alice", "4711"+card.at(1)) {
		t.Fatal("rejected")
	}
	same("a code with a PIN", claims(tokens.Verified{User: "alice", Serial: "S1"}), map[string]any{"amr": []string{"otp", "pin", "mfa"}, "token": of})

	// A code of a sheet is good once; a temporary passcode is a password, and with a
	// PIN a second one.
	h.allow()
	sheet, codes := h.recovery("alice")
	temporary, passcode := h.temporary("alice", tokens.TemporaryRequest{})
	if !h.try("alice", "4711"+codes[0]) || !h.try("alice", "4711"+passcode) {
		t.Fatal("rejected")
	}
	same("a recovery code", claims(tokens.Verified{User: "alice", Serial: sheet.Serial}), map[string]any{
		"amr": []string{"otp", "pin", "mfa"}, "token": map[string]any{"serial": sheet.Serial, "type": "recovery", "model": "recovery codes"}})
	same("a temporary passcode", claims(tokens.Verified{User: "alice", Serial: temporary.Serial}), map[string]any{
		"amr": []string{"pwd", "pin"}, "token": map[string]any{"serial": temporary.Serial, "type": "temporary", "model": "temporary passcode"}})

	for _, c := range []struct {
		name    string
		key     *seckey
		context string
		methods []string
	}{
		{"an attested key", key, "phrh", []string{"hwk", "user", "mfa"}},
		{"a synced passkey", passkey, "phr", []string{"pop", "user", "mfa"}},
	} {
		r := h.concludes(h.shows("alice", c.key), true, tokens.ReasonAccepted)
		same(c.name, claims(r.Verified()), map[string]any{"amr": c.methods, "acr": c.context, "token": map[string]any{
			"serial": c.key.serial, "type": "fido", "model": "Test key", "aaguid": "01020304-0000-0000-0000-000000000000", "attestation": "basic",
		}})
	}
	// That the accept was earlier is said; that it were later is not believed.
	h.clock.forward(time.Minute)
	for _, said := range []time.Time{{}, at, h.clock.now(), h.clock.now().Add(time.Hour)} {
		jwt, err := h.Statement(ctx, h.vpn, tokens.StatementRequest{Audience: audience}, tokens.Verified{User: "alice", Serial: key.serial, At: said})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := h.jwks(h.Service).reads(t, jwt); int64(got["auth_time"].(float64)) != at.Unix() || got["exp"].(float64)-got["iat"].(float64) != 300 {
			t.Errorf("accepted at %v, said to be %v: %v", at.Unix(), said.Unix(), got)
		}
	}
	h.intact()
}

// Whatever a transport says, there is no statement without an accept a moment ago,
// by a token that is still good.
func TestThereIsNoStatementWithoutAnAccept(t *testing.T) {
	d := hotp("S1")
	asked := tokens.StatementRequest{Audience: audience}
	v := tokens.Verified{User: "alice", Serial: "S1"}
	for name, c := range map[string]struct {
		meanwhile func(h *house)
		v         tokens.Verified
		want      error
	}{
		"expired since":           {func(h *house) { h.expire("S1", h.clock.now()) }, v, tokens.ErrState},
		"an accept long ago":      {func(h *house) { h.clock.forward(3 * time.Minute) }, v, tokens.ErrState},
		"no accept":               {nil, tokens.Verified{User: "alice", Serial: "S2"}, tokens.ErrState},
		"another's token":         {nil, tokens.Verified{User: "alice", Serial: "S3"}, tokens.ErrNotFound},
		"another user":            {nil, tokens.Verified{User: "bob", Serial: "S1"}, tokens.ErrNotFound},
		"an unknown user":         {nil, tokens.Verified{User: "mallory", Serial: "S1"}, tokens.ErrNotFound},
		"another realm":           {nil, tokens.Verified{Realm: "lab", User: "alice", Serial: "S1"}, tokens.ErrForbidden},
		"no serial":               {nil, tokens.Verified{User: "alice"}, tokens.ErrInvalid},
		"no user":                 {nil, tokens.Verified{Serial: "S1"}, tokens.ErrInvalid},
		"a method that is none":   {nil, tokens.Verified{User: "alice", Serial: "S1", Methods: []string{"otp", "magic"}}, tokens.ErrInvalid},
		"a token lost since":      {func(h *house) { h.must(h.MarkLost(ctx, h.admin, "", "S1", "")) }, v, tokens.ErrState},
		"a token suspended since": {func(h *house) { h.must(h.Suspend(ctx, h.admin, "", "S1", "")) }, v, tokens.ErrState},
		"a token revoked since":   {func(h *house) { h.must(h.Revoke(ctx, h.admin, "", "S1", "")) }, v, tokens.ErrNotFound},
		"a token taken away":      {func(h *house) { h.must(h.Unassign(ctx, h.admin, "", "S1", "")) }, v, tokens.ErrNotFound},
		"a user disabled since": {func(h *house) {
			h.must(h.SetUserState(ctx, h.admin, "", "alice", tokens.UserDisabled))
		}, v, tokens.ErrState},
		"a row that was altered": {func(h *house) {
			h.db.edit(func(e *editor) { e.token = func(t *tokens.Token) { t.Binding = slices.Repeat([]byte{1}, 32) } })
		}, v, tokens.ErrTampered},
		"clocks that differ": {func(h *house) {
			h.db.edit(func(e *editor) { e.clock = func() time.Time { return h.clock.now().Add(time.Minute) } })
		}, v, tokens.ErrUnavailable},
		"no HSM":      {func(h *house) { h.keys.memory().Fail(errors.New("gone")) }, v, tokens.ErrUnavailable},
		"no database": {func(h *house) { h.mem.Inject(storetest.Failed) }, v, tokens.ErrUnavailable},
		"an audit that may have failed": {func(h *house) { h.mem.Inject(storetest.FailedButPersisted) },
			v, tokens.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.give("alice", d, totp("S2"))
			h.give("bob", totp("S3"))
			if !h.try("alice", d.at(0)) {
				t.Fatal("rejected")
			}
			if _, err := h.Statement(ctx, h.vpn, asked, v); err != nil {
				t.Fatal(err)
			}
			if c.meanwhile != nil {
				c.meanwhile(h)
			}
			if jwt, err := h.Statement(ctx, h.vpn, asked, c.v); !errors.Is(err, c.want) || jwt != "" {
				t.Errorf("a statement of %d bytes, %v; want %v", len(jwt), err, c.want)
			}
			h.keys.memory().Heal()
			if given, refused := h.records("statement.give", "ok"), h.records("statement.give", "refused"); len(given) > 2 ||
				len(given) > 1 && c.want != tokens.ErrUnavailable || len(refused) != map[error]int{tokens.ErrState: 1, tokens.ErrNotFound: 1, tokens.ErrTampered: 1}[c.want] {
				t.Errorf("%d given and %d refused in the audit", len(given), len(refused))
			}
		})
	}
}

func TestARequestForAStatementIsLimited(t *testing.T) {
	h := newHouse(t)
	give := h.accepted()
	h.must(give(h.Service, 0))
	for name, r := range map[string]tokens.StatementRequest{
		"no audience":          {},
		"a long audience":      {Audience: strings.Repeat("x", 256)},
		"an audience in lines": {Audience: "a\nb"},
		"no text":              {Audience: "\xff"},
		"a long nonce":         {Audience: "a", Nonce: strings.Repeat("x", 256)},
		"a nonce in lines":     {Audience: "a", Nonce: "\x00"},
		"a long time":          {Audience: "a", TTL: tokens.MaxStatementTTL + time.Second},
		"no time":              {Audience: "a", TTL: -time.Second},
		"half a second":        {Audience: "a", TTL: 1500 * time.Millisecond},
	} {
		if _, err := h.Statement(ctx, h.vpn, r, tokens.Verified{User: "alice", Serial: "S1"}); !errors.Is(err, tokens.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := tokens.StatementRequest{Audience: strings.Repeat("x", 255), Nonce: strings.Repeat("ü", 127), TTL: tokens.MaxStatementTTL}
	h.must(h.Statement(ctx, h.vpn, r, tokens.Verified{User: "alice", Serial: "S1"}))
	for _, scope := range []string{"admin", "helpdesk", "verify", "read"} {
		if _, err := h.Statement(ctx, h.key("", scope), r, tokens.Verified{User: "alice", Serial: "S1"}); (err == nil) != (scope != "read") || scope == "read" && !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("for scope %s: %v", scope, err)
		}
		if _, err := h.Statement(ctx, h.key("lab", scope), r, tokens.Verified{Realm: "default", User: "alice", Serial: "S1"}); !errors.Is(err, tokens.ErrForbidden) {
			t.Errorf("for scope %s of another realm: %v", scope, err)
		}
	}
}

// No two users have the same subject, whatever applications look at beside it.
func TestEachUserHasASubjectOfTheirOwn(t *testing.T) {
	for _, c := range []struct{ realm, key, want string }{
		{"default", "alice", "alice"}, {"corp", "alice", "corp/alice"}, {"default", "corp/alice", "corp%2Falice"},
		{"a/b", "c", "a%2Fb/c"}, {"a", "b/c", "a/b%2Fc"}, {"default", "100%", "100%25"}, {"default", "alice@corp", "alice@corp"},
	} {
		if got := tokens.SubjectOf(c.realm, c.key); got != c.want {
			t.Errorf("%s in %s is %q, want %q", c.key, c.realm, got, c.want)
		}
	}
	seen := map[string][2]string{}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-c/%@ 2F5]{1,6}`)
		user := [2]string{rapid.OneOf(rapid.Just("default"), name).Draw(t, "realm"), name.Draw(t, "key")}
		sub := tokens.SubjectOf(user[0], user[1])
		if other, ok := seen[sub]; ok && other != user {
			t.Fatalf("%q and %q are both %q", user, other, sub)
		}
		seen[sub] = user
		c := tokens.StatementClaims{Subject: sub, Realm: user[0]}
		if realm, key := c.User(); realm != user[0] || key != user[1] {
			t.Fatalf("%q is read as %q, %q", sub, realm, key)
		}
		if _, err := url.PathUnescape(sub); err != nil {
			t.Fatal(err)
		}
	})
}
