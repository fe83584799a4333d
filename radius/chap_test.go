package radius

import (
	"bytes"
	"context"
	"crypto/md5"
	"testing"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2759"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/vendors/microsoft"

	"watchword/tokens"
)

// The vectors of RFC 2433, appendix B.2, RFC 2759, section 9.2, and RFC 3079, section
// 3.5.3.
func TestAnNTResponseProvesTheCodeItWasMadeFrom(t *testing.T) {
	first := &msProof{
		challenge: [8]byte(unhex(t, "102DB5DF085D3041")),
		response:  [24]byte(unhex(t, "4E9D3C8F9CFD385D5BF4D3246791956CA4C351AB409A3D61")),
	}
	if !first.Proves([]byte("MyPw")) || first.Proves([]byte("MyPW")) {
		t.Error("the response of RFC 2433 does not prove MyPw alone")
	}
	second := &msProof{
		ident: 7, second: true,
		ours: unhex(t, "5B5D7C7D7B3F2F3E3C2C602132262628"), peer: unhex(t, "21402324255E262A28295F2B3A337C7E"), name: []byte("User"),
		response: [24]byte(unhex(t, "82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF")),
	}
	copy(second.challenge[:], rfc2759.ChallengeHash(second.peer, second.ours, second.name))
	if second.Proves([]byte("clientpass")) || !second.Proves([]byte("clientPass")) {
		t.Fatal("the response of RFC 2759 does not prove clientPass alone")
	}
	request := layeh.New(layeh.CodeAccessRequest, []byte(secret))
	r := newRequest()
	r.client = newClient("vpn", "127.0.0.0/8", secret, true)
	copy(r.buf[4:], request.Authenticator[:])
	r.packet.wire = r.buf[:headerSize]
	answerMSCHAP(r, &tokens.Attempt{Proof: second}, true)
	reply, err := layeh.Parse(append([]byte{2, 1, 0, byte(headerSize + len(r.extra)), 19: 0}, r.extra...), []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	if got := microsoft.MSCHAP2Success_Get(reply); string(got) != "\x07S=407A5589115FD0D6209F510FE9C04566932CDA56" {
		t.Errorf("MS-CHAP2-Success is %q", got)
	}
	reply.Authenticator = request.Authenticator
	if got := microsoft.MSMPPESendKey_Get(reply, request); !bytes.Equal(got, unhex(t, "8B7CDC149B993A1BA118CB153F56DCCB")) {
		t.Errorf("MS-MPPE-Send-Key is %x", got)
	}
	if got := microsoft.MSMPPERecvKey_Get(reply, request); len(got) != 16 {
		t.Errorf("MS-MPPE-Recv-Key is %x", got)
	}
}

// proven is a core that accepts one code, by whatever method it is shown.
func proven(methods ...tokens.Method) *fakeCore {
	f := oneClient()
	f.clients[0].Methods = methods
	f.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
		if a.Proof != nil {
			return tokens.Result{Accept: a.Proof.Proves([]byte("755224"))}, nil
		}
		return tokens.Result{Accept: a.Code == "755224"}, nil
	}
	return f
}

// shown are requests that show a code by each method.
func shown(t testing.TB, code string) map[tokens.Method][]byte {
	t.Helper()
	with := func(add func(p *layeh.Packet)) []byte {
		p := unsigned(t, "CORP\\alice", "x", secret)
		p.Del(rfc2865.UserPassword_Type)
		add(p)
		return signed(t, p, secret)
	}
	plain := unsigned(t, "CORP\\alice", code, secret)
	vendor := func(p *layeh.Packet, kind byte, value []byte) {
		p.Add(rfc2865.VendorSpecific_Type, append([]byte{0, 0, 1, 0x37, kind, byte(2 + len(value))}, value...))
	}
	wide, err := rfc2759.ToUTF16([]byte(code))
	if err != nil {
		t.Fatal(err)
	}
	challenge, peer := bytes.Repeat([]byte{0xC1}, 16), bytes.Repeat([]byte{0xC2}, 16)
	return map[tokens.Method][]byte{
		tokens.MethodPAP: signed(t, plain, secret),
		tokens.MethodCHAP: with(func(p *layeh.Packet) {
			sum := md5.Sum(append(append([]byte{9}, code...), challenge...))
			p.Add(rfc2865.CHAPPassword_Type, append([]byte{9}, sum[:]...))
			p.Add(rfc2865.CHAPChallenge_Type, challenge)
		}),
		tokens.MethodMSCHAP: with(func(p *layeh.Packet) {
			response := append([]byte{9, 1}, make([]byte, 24)...)
			vendor(p, msCHAPChallenge, challenge[:8])
			vendor(p, msCHAPResponse, append(response, rfc2759.ChallengeResponse(challenge[:8], rfc2759.NTPasswordHash(wide))...))
		}),
		tokens.MethodMSCHAPv2: with(func(p *layeh.Packet) {
			response, err := rfc2759.GenerateNTResponse(challenge, peer, []byte("alice"), []byte(code))
			if err != nil {
				t.Fatal(err)
			}
			vendor(p, msCHAPChallenge, challenge)
			vendor(p, msCHAP2Response, append(append(append([]byte{9, 0}, peer...), make([]byte, 8)...), response...))
		}),
	}
}

func TestEachMethodShowsACodeWhereTheClientMayUseIt(t *testing.T) {
	all := []tokens.Method{tokens.MethodPAP, tokens.MethodCHAP, tokens.MethodMSCHAP, tokens.MethodMSCHAPv2}
	for _, allowed := range append([][]tokens.Method{nil, all}, []tokens.Method{tokens.MethodCHAP}, []tokens.Method{tokens.MethodMSCHAPv2}) {
		core := proven(allowed...)
		h := serve(t, core, Config{})
		n := gateway(t, "", h.address())
		for _, code := range []string{"755224", "287082"} {
			for method, request := range shown(t, code) {
				want := layeh.CodeAccessReject
				if code == "755224" && core.clients[0].Uses(method) {
					want = layeh.CodeAccessAccept
				}
				reply := n.exchange(request, secret)
				if reply.Code != want {
					t.Errorf("%v allowed: %s %s: %v", allowed, method, code, reply.Code)
				}
				ms := core.clients[0].Uses(method) && (method == tokens.MethodMSCHAP || method == tokens.MethodMSCHAPv2)
				if got := len(microsoft.MSCHAPError_Get(reply)) > 0; got != (ms && want == layeh.CodeAccessReject) {
					t.Errorf("%s %s: MS-CHAP-Error is there: %v", method, code, got)
				}
				if got := len(microsoft.MSCHAP2Success_Get(reply)) == 43; got != (want == layeh.CodeAccessAccept && method == tokens.MethodMSCHAPv2) {
					t.Errorf("%s %s: MS-CHAP2-Success is there: %v", method, code, got)
				}
			}
		}
		for _, a := range core.asked() {
			if a.Proof == nil && a.Code != "" && !core.clients[0].Uses(tokens.MethodPAP) {
				t.Errorf("%v allowed, and the core was asked by PAP", allowed)
			}
		}
	}
}

// What is not of the form that it must have never proves anything, and is audited as
// an attempt without a code.
func TestAProofOfAnotherFormIsRejected(t *testing.T) {
	core := proven(tokens.MethodCHAP, tokens.MethodMSCHAP, tokens.MethodMSCHAPv2)
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	vendor := func(pairs ...[]byte) *layeh.Packet {
		p := unsigned(t, "alice", "x", secret)
		p.Del(rfc2865.UserPassword_Type)
		for _, v := range pairs {
			p.Add(rfc2865.VendorSpecific_Type, append([]byte{0, 0, 1, 0x37, v[0], byte(1 + len(v))}, v[1:]...))
		}
		return p
	}
	chap := vendor()
	chap.Add(rfc2865.CHAPPassword_Type, make([]byte, 16))
	none := vendor()
	none.Add(rfc2865.CHAPPassword_Type, make([]byte, 17))
	none.Add(rfc2865.CHAPChallenge_Type, nil)
	lm := make([]byte, 51)
	lm[0] = msCHAPResponse
	for name, p := range map[string]*layeh.Packet{
		"CHAP of 16 bytes":             chap,
		"CHAP without a challenge":     none,
		"LAN Manager's response alone": vendor(append([]byte{msCHAPChallenge}, make([]byte, 8)...), lm),
		"MS-CHAP without a challenge":  vendor(lm),
		"a short response":             vendor(append([]byte{msCHAPChallenge}, make([]byte, 16)...), append([]byte{msCHAP2Response}, make([]byte, 49)...)),
		"a challenge of 8 for MS-CHAPv2": vendor(append([]byte{msCHAPChallenge}, make([]byte, 8)...),
			append([]byte{msCHAP2Response}, make([]byte, 50)...)),
	} {
		if reply := n.exchange(signed(t, p, secret), secret); reply.Code != layeh.CodeAccessReject || len(reply.Attributes) != 1 {
			t.Errorf("%s: %v with %d attributes", name, reply.Code, len(reply.Attributes))
		}
	}
	for _, a := range core.asked() {
		if a.Code != "" || a.Proof != nil {
			t.Errorf("the core was asked about %+v", a)
		}
	}
}

// The attack of CVE-2024-3596 needs a Proxy-State of the attacker's in a request that
// nothing signs.
func TestAProxyStateThatNothingSignsIsDropped(t *testing.T) {
	core := laxClient()
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	p := unsigned(t, "alice", goodCode, secret)
	p.Add(rfc2865.ProxyState_Type, []byte("x"))
	n.send(encoded(t, p))
	eventually(t, "it is counted", func() bool { return h.dropped(t, unsignedProxyState) == 1 })
	if reply := n.exchange(signed(t, p, secret), secret); reply.Code != layeh.CodeAccessAccept {
		t.Errorf("signed: %v", reply.Code)
	}
	core = laxClient()
	core.clients[0].UnsignedProxyState = true
	n = gateway(t, "", serve(t, core, Config{}).address())
	p = unsigned(t, "alice", goodCode, secret)
	p.Add(rfc2865.ProxyState_Type, []byte("x"))
	if reply := n.exchange(encoded(t, p), secret); reply.Code != layeh.CodeAccessAccept {
		t.Errorf("where it is allowed by name: %v", reply.Code)
	}
}
