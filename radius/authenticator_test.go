package radius

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"
	"pgregory.net/rapid"

	"watchword/tokens"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The example of RFC 2865, section 7.1: nemo logs in with arctangent.
func TestPasswordOfRFC2865(t *testing.T) {
	var p packet
	if c := p.parse(unhex(t, `01 00 00 38 0f 40 3f 94 73 97 80 57 bd 83 d5 cb 98 f4 22 7a 01 06 6e 65 6d 6f
		02 12 0d be 70 8d 93 d4 13 ce 31 96 e4 3f 78 2a 0a ee 04 06 c0 a8 01 10 05 06 00 00 00 03`)); c != 0 {
		t.Fatal(remedies[c].label)
	}
	got, err := newDigester().unhidePassword([]byte("xyzzy5461"), p.userPassword, p.authenticator())
	if err != nil || string(got) != "arctangent" || string(p.userName) != "nemo" {
		t.Errorf("%q, %q, %v", p.userName, got, err)
	}
}

// The example of RFC 5997, section 6.1.
func TestMessageAuthenticatorOfRFC5997(t *testing.T) {
	var p packet
	if c := p.parse(unhex(t, `0c da 00 26 8a 54 f4 68 6f b3 94 c5 28 66 e3 02 18 5d 06 23 50 12 5a 66 5e 2e
		1e 84 11 f3 e2 43 82 20 97 c8 4f a3`)); c != 0 {
		t.Fatal(remedies[c].label)
	}
	if !newDigester().authentic([]byte("xyzzy5461"), &p) {
		t.Error("the RFC's own example is not authentic")
	}
}

func TestDigestsAgreeWithIndependentOnes(t *testing.T) {
	d := newDigester() // used again and again, as by the server
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "secret")
		wire := rapid.SliceOfN(rapid.Byte(), 20+18, 300).Draw(t, "packet")
		ma := rapid.IntRange(22, len(wire)-16).Draw(t, "position")

		zeroed := bytes.Clone(wire)
		clear(zeroed[ma : ma+16])
		mac := hmac.New(md5.New, key)
		mac.Write(zeroed)
		if got := d.messageAuthenticator(key, wire, ma); !bytes.Equal(got, mac.Sum(nil)) {
			t.Fatalf("HMAC-MD5: %x, crypto/hmac says %x", got, mac.Sum(nil))
		}

		authenticator := wire[4:20]
		password := rapid.SliceOfN(rapid.ByteRange(1, 255), 0, 128).Draw(t, "password")
		hidden, err := layeh.NewUserPassword(password, key, authenticator)
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.unhidePassword(key, hidden, authenticator)
		if err != nil || !bytes.Equal(got, password) {
			t.Fatalf("password %x became %x (%v)", password, got, err)
		}
	})
}

func TestUserPasswordOfWrongSizeIsRefused(t *testing.T) {
	d := newDigester()
	for _, size := range []int{0, 1, 15, 17, 31, 127, 129, 144, 253} {
		if got, err := d.unhidePassword([]byte(secret), make([]byte, size), make([]byte, 16)); err == nil {
			t.Errorf("%d bytes became %x", size, got)
		}
	}
}

func TestMessageAuthenticatorIsRequired(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	n := gateway(t, "", h.address())
	for range 5 {
		n.send(encoded(t, unsigned(t, "alice", goodCode, secret)))
	}
	h.awaitDropped(t, missingMA, 5)
	n.silence()
	if got := h.log.lines("WARN", "client=vpn", "cause=missing_message_authenticator", "remedy=", "docs/vpn.md"); got != 1 {
		t.Errorf("logged %d times:\n%s", got, h.log)
	}
	if len(h.core.asked()) != 0 {
		t.Error("the core was asked")
	}
}

func TestMessageAuthenticatorIsCheckedWhereItIsNotRequired(t *testing.T) {
	h := serve(t, laxClient(), Config{})
	n := gateway(t, "", h.address())
	if p := n.exchange(encoded(t, unsigned(t, "alice", goodCode, secret)), secret); p.Code != layeh.CodeAccessAccept {
		t.Errorf("without: %v", p.Code)
	}
	if p := n.exchange(accessRequest(t, "alice", goodCode, secret), secret); p.Code != layeh.CodeAccessAccept {
		t.Errorf("with: %v", p.Code)
	}
	wrong := accessRequest(t, "alice", goodCode, secret)
	wrong[len(wrong)-1] ^= 1
	n.send(wrong)
	h.awaitDropped(t, wrongMA, 1)
	n.silence()
	if len(h.core.asked()) != 2 {
		t.Errorf("the core was asked %d times", len(h.core.asked()))
	}
}

// Whatever single bit of a signed request is changed, there is no reply. This
// includes Message-Authenticator's own type, which makes it a missing one.
func TestAlteredRequestIsDropped(t *testing.T) {
	core := oneClient()
	h := serve(t, core, Config{})
	r := newRequest()
	out := &outbox{}
	good := accessRequest(t, "alice", goodCode, secret)
	for bit := range len(good) * 8 {
		altered := bytes.Clone(good)
		altered[bit/8] ^= 1 << (bit % 8)
		h.deliver(r, altered, out)
	}
	if len(out.sent) != 0 || len(core.asked()) != 0 {
		t.Errorf("%d replies, core asked %d times", len(out.sent), len(core.asked()))
	}
	if h.log.lines("cause=wrong_message_authenticator", "shared secret differs") != 1 {
		t.Errorf("the log:\n%s", h.log)
	}
	if h.deliver(r, good, out); len(out.sent) != 1 {
		t.Error("and the unaltered one is not answered")
	}
}

func TestSecondMessageAuthenticatorIsDropped(t *testing.T) {
	h := serve(t, laxClient(), Config{})
	n := gateway(t, "", h.address())
	p := unsigned(t, "alice", goodCode, secret)
	p.Add(rfc2869.MessageAuthenticator_Type, make([]byte, 16))
	p.Add(rfc2869.MessageAuthenticator_Type, make([]byte, 16))
	b := encoded(t, p)
	mac := hmac.New(md5.New, []byte(secret))
	mac.Write(b)
	copy(b[len(b)-16:], mac.Sum(nil)) // right by one reading of the RFC
	n.send(b)
	h.awaitDropped(t, duplicateMA, 1)
	n.silence()
}

func TestRequestWithoutPasswordNeedsMessageAuthenticatorAlways(t *testing.T) {
	h := serve(t, laxClient(), Config{})
	n := gateway(t, "", h.address())
	for _, kind := range []byte{0, attrEAPMessage} {
		p := unsigned(t, "alice", goodCode, secret)
		p.Del(rfc2865.UserPassword_Type)
		if kind != 0 {
			p.Add(layeh.Type(kind), []byte{2, 1, 0, 4})
		}
		n.send(encoded(t, p))
	}
	h.awaitDropped(t, missingMA, 2)
	n.silence()
}

func TestProxyStatesComeBackInOrder(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	n := gateway(t, "", h.address())
	p := unsigned(t, "alice", goodCode, secret)
	var want [][]byte
	for _, state := range []string{"first", "", "second", "first", strings.Repeat("x", 253)} {
		want = append(want, []byte(state))
		p.Add(rfc2865.ProxyState_Type, []byte(state))
		p.Add(rfc2865.NASPort_Type, []byte{0, 0, 0, 1}) // something between
	}
	reply := n.exchange(signed(t, p, secret), secret)
	got, err := rfc2865.ProxyState_Gets(reply)
	if err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
		t.Errorf("%q came back, %v", got, err)
	}
	if len(reply.Attributes) != 1+len(want) {
		t.Errorf("the reply has other attributes: %v", reply.Attributes)
	}
}

func TestClientWithoutSecretIsDropped(t *testing.T) {
	core := &fakeCore{clients: []*tokens.RADIUSClient{newClient("empty", "127.0.0.0/8", "", false)}}
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	mac := hmac.New(md5.New, nil)
	p := unsigned(t, "alice", "", secret)
	p.Add(rfc2869.MessageAuthenticator_Type, make([]byte, 16))
	b := encoded(t, p)
	mac.Write(b)
	copy(b[len(b)-16:], mac.Sum(nil))
	n.send(b)
	h.awaitDropped(t, noSecret, 1)
	n.silence()
	if h.log.lines("no shared secret", "client=empty") != 1 {
		t.Errorf("the log:\n%s", h.log)
	}
}
