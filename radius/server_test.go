package radius

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"

	"watchword/tokens"
)

func TestRadclientIsAcceptedAndRejected(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	for _, test := range []struct{ name, attributes, want string }{
		{"right code", `User-Name=alice,User-Password=` + goodCode + `,Message-Authenticator=0x00`, "Received Access-Accept"},
		{"wrong code", `User-Name=alice,User-Password=000000,Message-Authenticator=0x00`, "Received Access-Reject"},
		{"password of 128 bytes", `User-Name=alice,User-Password=` + strings.Repeat("7", 128) + `,Message-Authenticator=0x00`, "Received Access-Reject"},
		{"empty password", `User-Name=alice,User-Password="",Message-Authenticator=0x00`, "Received Access-Reject"},
		{"CHAP", `User-Name=alice,CHAP-Password=` + goodCode + `,Message-Authenticator=0x00`, "Received Access-Reject"},
		{"no password", `User-Name=alice,Message-Authenticator=0x00`, "Received Access-Reject"},
		{"no user", `User-Password=` + goodCode + `,Message-Authenticator=0x00`, "Received Access-Reject"},
		{"no Message-Authenticator", `User-Name=alice,User-Password=` + goodCode, "No reply"},
		{"Proxy-State", `User-Name=alice,User-Password=` + goodCode + `,Message-Authenticator=0x00,Proxy-State=0xbeef`, "Proxy-State = 0xbeef"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			out := radclient(t, h.address(), "auth", secret, test.attributes)
			if !strings.Contains(out, test.want) {
				t.Errorf("radclient did not say %q:\n%s", test.want, out)
			}
			// radclient checks Message-Authenticator and Response Authenticator, and says so on failure.
			if strings.Contains(out, "rror") || strings.Contains(out, "failed") {
				t.Errorf("radclient complains:\n%s", out)
			}
		})
	}
}

func TestRadclientWithAnotherSecretGetsNoReply(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	out := radclient(t, h.address(), "auth", "another secret", "User-Name=alice,User-Password="+goodCode+",Message-Authenticator=0x00")
	if !strings.Contains(out, "No reply") {
		t.Errorf("radclient got a reply:\n%s", out)
	}
	if len(h.core.asked()) != 0 {
		t.Error("the core was asked")
	}
}

func TestCoreIsAskedWhatTheGatewaySent(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	n := gateway(t, "127.0.0.3:0", h.address())
	if p := n.exchange(accessRequest(t, "Älice@corp", goodCode, secret), secret); p.Code != layeh.CodeAccessAccept {
		t.Errorf("%v", p.Code)
	}
	asked := h.core.asked()
	if len(asked) != 1 || asked[0].User != "Älice@corp" || asked[0].Code != goodCode || asked[0].Transport != "radius" {
		t.Errorf("the core was asked %+v", asked)
	}
	if h.core.sources[0] != "127.0.0.3" {
		t.Errorf("source %q", h.core.sources[0])
	}
}

func TestRejectSaysNothingButReject(t *testing.T) {
	core := oneClient()
	core.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
		if a.Code == "" {
			return tokens.Result{Accept: true}, nil // must not matter without a code
		}
		switch a.User {
		case "forbidden":
			return tokens.Result{}, fmt.Errorf("%w: not for this client", tokens.ErrForbidden)
		case "invalid":
			return tokens.Result{}, fmt.Errorf("%w: no such name can be", tokens.ErrInvalid)
		}
		return tokens.Result{Serial: "must not matter"}, nil
	}
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	latin1 := unsigned(t, "x", goodCode, secret)
	latin1.Set(rfc2865.UserName_Type, []byte("m\xfcller"))
	noise := unsigned(t, "x", goodCode, "another secret") // hidden under another secret, signed with the right one
	noise.Secret = []byte(secret)
	chap := unsigned(t, "x", goodCode, secret)
	chap.Del(rfc2865.UserPassword_Type)
	chap.Set(rfc2865.CHAPPassword_Type, make([]byte, 17))
	mschap := unsigned(t, "x", goodCode, secret)
	mschap.Del(rfc2865.UserPassword_Type)
	mschap.Set(rfc2865.VendorSpecific_Type, append([]byte{0, 0, 1, 0x37, msCHAP2Response, 52}, make([]byte, 50)...))
	eap := unsigned(t, "x", goodCode, secret)
	eap.Del(rfc2865.UserPassword_Type)
	eap.Set(layeh.Type(attrEAPMessage), []byte{2, 1, 0, 10, 1, 'a', 'l', 'i', 'c', 'e'})
	short := unsigned(t, "x", goodCode, secret)
	short.Set(rfc2865.UserPassword_Type, make([]byte, 15))

	for name, request := range map[string][]byte{
		"wrong code":               accessRequest(t, "alice", "000000", secret),
		"forbidden":                accessRequest(t, "forbidden", goodCode, secret),
		"invalid":                  accessRequest(t, "invalid", goodCode, secret),
		"empty password":           accessRequest(t, "alice", "", secret),
		"name not UTF-8":           signed(t, latin1, secret),
		"password is noise":        signed(t, noise, secret),
		"CHAP":                     signed(t, chap, secret),
		"MS-CHAPv2":                signed(t, mschap, secret),
		"EAP":                      signed(t, eap, secret),
		"password of a wrong size": signed(t, short, secret),
	} {
		p := n.exchange(request, secret)
		if p.Code != layeh.CodeAccessReject {
			t.Errorf("%s: %v", name, p.Code)
		}
		if len(p.Attributes) != 1 {
			t.Errorf("%s: a reject tells more: %v", name, p.Attributes)
		}
	}
	if got := h.metric(t, "watchword_radius_requests_total", "client=vpn", "code=access_request", "outcome=reject"); got != 10 {
		t.Errorf("%v rejects counted", got)
	}
	// Without a code the core is told, for the audit, but has nothing to count:
	// a gateway with a wrong secret must not lock its users out.
	var codes, named int
	for _, a := range h.core.asked() {
		if a.Code != "" {
			codes++
		}
		if a.User != "" {
			named++
		}
		if a.Transport != "radius" || !utf8.ValidString(a.User) {
			t.Errorf("the core was asked about %+v", a)
		}
	}
	if codes != 3 || named != 9 || len(h.core.asked()) != 10 {
		t.Errorf("%d codes, %d names in %+v", codes, named, h.core.asked())
	}
	for _, hint := range []string{"set the gateway to PAP", "shared secret differs", "set the gateway to UTF-8", "password is empty", "User-Password is not"} {
		if h.log.lines("WARN", "rejected", "client=vpn", hint) != 1 {
			t.Errorf("the log does not say once that %q:\n%s", hint, h.log)
		}
	}
}

func TestFaultOfTheCoreIsNeverAnswered(t *testing.T) {
	core := oneClient()
	var fault error
	var mu sync.Mutex
	core.verify = func(context.Context, tokens.Attempt) (tokens.Result, error) {
		mu.Lock()
		defer mu.Unlock()
		return tokens.Result{Accept: true}, fault // an error wins over whatever else is there
	}
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	request := accessRequest(t, "alice", goodCode, secret)
	for _, test := range []struct {
		err     error
		outcome string
	}{{errFault, "fault"}, {fmt.Errorf("batch: %w", tokens.ErrOverloaded), "shed"}, {context.DeadlineExceeded, "fault"}} {
		mu.Lock()
		fault = test.err
		mu.Unlock()
		before := h.metric(t, "watchword_radius_requests_total", "outcome="+test.outcome)
		n.send(request)
		eventually(t, fmt.Sprintf("%v is counted as %s", test.err, test.outcome), func() bool {
			return h.metric(t, "watchword_radius_requests_total", "outcome="+test.outcome) == before+1 &&
				h.metric(t, "watchword_radius_in_work") == 0
		})
		n.silence()
	}
	// The same bytes, once the core is well: the fault was not cached.
	mu.Lock()
	fault = nil
	mu.Unlock()
	if p := n.exchange(request, secret); p.Code != layeh.CodeAccessAccept {
		t.Errorf("after the fault: %v", p.Code)
	}
	if got := len(h.core.asked()); got != 4 {
		t.Errorf("the core was asked %d times", got)
	}
	if h.log.lines("ERROR", "not answered", "client=vpn", errFault.Error()) != 1 {
		t.Errorf("the log:\n%s", h.log)
	}
}

func TestSlowCoreIsGivenUp(t *testing.T) {
	core := oneClient()
	core.verify = func(ctx context.Context, _ tokens.Attempt) (tokens.Result, error) {
		<-ctx.Done()
		return tokens.Result{}, ctx.Err()
	}
	h := serve(t, core, Config{Timeout: 50 * time.Millisecond})
	n := gateway(t, "", h.address())
	n.send(accessRequest(t, "alice", goodCode, secret))
	eventually(t, "the request is given up", func() bool {
		return h.metric(t, "watchword_radius_requests_total", "outcome=fault") == 1 && h.metric(t, "watchword_radius_in_work") == 0
	})
	n.silence()
}

func TestAnAnswerThatComesTooLateIsNotHeard(t *testing.T) {
	core := oneClient()
	late, said := make(chan struct{}), make(chan struct{})
	core.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
		if a.User == "alice" {
			<-late
			defer close(said)
		}
		return tokens.Result{Accept: true}, nil
	}
	h := serve(t, core, Config{Timeout: 50 * time.Millisecond})
	n, other := gateway(t, "", h.address()), gateway(t, "", h.address())
	n.send(accessRequest(t, "alice", goodCode, secret))
	eventually(t, "the request is given up", func() bool {
		return h.metric(t, "watchword_radius_requests_total", "outcome=fault") == 1 && h.metric(t, "watchword_radius_in_work") == 0
	})
	close(late)
	<-said
	for range 3 { // what one request leaves behind is used for others
		if p := other.exchange(accessRequest(t, "bob", goodCode, secret), secret); p.Code != layeh.CodeAccessAccept {
			t.Errorf("%v", p.Code)
		}
	}
	n.silence()
	if got := h.metric(t, "watchword_radius_requests_total", "outcome=accept"); got != 3 {
		t.Errorf("%v requests were accepted, want 3", got)
	}
}

func TestSeveralAddressesAndFamilies(t *testing.T) {
	core := oneClient()
	core.clients = append(core.clients,
		newClient("six", "::1/128", "secret of six", true),
		newClient("special", "127.0.0.8/29", "secret of eight", true))
	h := serve(t, core, Config{Listen: []string{"127.0.0.1:0", "[::1]:0", "127.0.0.2:0"}})
	if len(h.Listening()) != 3 {
		t.Fatalf("listening on %v", h.Listening())
	}
	for _, test := range []struct{ from, secret string }{
		{"127.0.0.1:0", secret},
		{"127.0.0.7:0", secret},
		{"127.0.0.8:0", "secret of eight"}, // the most specific prefix
		{"127.0.0.15:0", "secret of eight"},
		{"127.0.0.16:0", secret},
		{"[::1]:0", "secret of six"},
	} {
		for _, to := range h.Listening() {
			if to.Addr().Is6() != strings.HasPrefix(test.from, "[") {
				continue
			}
			n := gateway(t, test.from, to)
			if p := n.exchange(accessRequest(t, "alice", goodCode, test.secret), test.secret); p.Code != layeh.CodeAccessAccept {
				t.Errorf("%s to %s: %v", test.from, to, p.Code)
			}
		}
	}
	out := radclient(t, h.Listening()[1], "auth", "secret of six", "User-Name=alice,User-Password="+goodCode+",Message-Authenticator=0x00")
	if !strings.Contains(out, "Received Access-Accept") {
		t.Errorf("radclient over IPv6:\n%s", out)
	}
}

func TestWildcardSocketAnswersFromTheAddressThatWasAsked(t *testing.T) {
	core := oneClient()
	core.clients = append(core.clients, newClient("six", "::1/128", secret, true))
	for _, listen := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		h := serve(t, core, Config{Listen: []string{listen}})
		port := h.address().Port()
		ask := []string{"127.0.0.1", "127.0.0.2", "127.1.2.3", "::1"}
		switch listen {
		case "0.0.0.0:0":
			ask = ask[:3]
		case "[::]:0":
			ask = ask[3:]
		}
		for _, address := range ask {
			// A connected socket hears only the address that it asked.
			n := gateway(t, "", netip.AddrPortFrom(netip.MustParseAddr(address), port))
			if p := n.exchange(accessRequest(t, "alice", goodCode, secret), secret); p.Code != layeh.CodeAccessAccept {
				t.Errorf("%s asked at %s: %v", listen, address, p.Code)
			}
		}
	}
}

func TestUnknownAddressIsDroppedAndLoggedOnce(t *testing.T) {
	core := &fakeCore{clients: []*tokens.RADIUSClient{newClient("vpn", "127.0.0.1/32", secret, true)}}
	h := serve(t, core, Config{})
	stranger := gateway(t, "127.0.0.66:0", h.address())
	for range 20 {
		stranger.send(accessRequest(t, "alice", goodCode, secret))
	}
	other := gateway(t, "127.0.0.67:0", h.address())
	other.send([]byte("not even RADIUS"))
	h.awaitDropped(t, unknownClient, 21)
	stranger.silence()
	if n := h.log.lines("WARN", "127.0.0.66", "watchword client add"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, h.log)
	}
	if n := h.log.lines("WARN", "127.0.0.67"); n != 1 {
		t.Errorf("the other address was logged %d times", n)
	}
	if len(core.asked()) != 0 {
		t.Error("the core was asked")
	}
}

func TestOverloadShedsTheNewest(t *testing.T) {
	const room = 8
	core := oneClient()
	release := make(chan struct{})
	core.verify = func(context.Context, tokens.Attempt) (tokens.Result, error) {
		<-release
		return tokens.Result{Accept: true}, nil
	}
	h := serve(t, core, Config{MaxInWork: room})
	n := gateway(t, "", h.address())
	var first [][]byte
	for range room {
		first = append(first, accessRequest(t, "alice", goodCode, secret))
		n.send(first[len(first)-1])
	}
	eventually(t, "all room is taken", func() bool { return h.metric(t, "watchword_radius_in_work") == room })
	late := accessRequest(t, "late", goodCode, secret)
	n.send(late)
	n.send(late)
	h.awaitDropped(t, overload, 2)
	// A retransmission needs no room.
	n.send(first[0])
	eventually(t, "a retransmission is attached", func() bool {
		return h.metric(t, "watchword_radius_retransmissions_total", "answer=attached") == 1
	})
	close(release)
	for range room {
		if b := n.receive(); layeh.Code(b[0]) != layeh.CodeAccessAccept {
			t.Errorf("%v", layeh.Code(b[0]))
		}
	}
	n.silence()
	if h.log.lines("too many requests", "client=vpn") != 1 {
		t.Errorf("the log:\n%s", h.log)
	}
	// Shed is not remembered: sent again, it is answered.
	if p := n.exchange(late, secret); p.Code != layeh.CodeAccessAccept {
		t.Errorf("sent again: %v", p.Code)
	}
}

func TestShutdownAnswersWhatWasTakenAndTakesNoMore(t *testing.T) {
	core := oneClient()
	release := make(chan struct{})
	core.verify = func(context.Context, tokens.Attempt) (tokens.Result, error) {
		<-release
		return tokens.Result{Accept: true}, nil
	}
	h := serve(t, core, Config{Listen: []string{"127.0.0.1:0", "127.0.0.2:0"}})
	n := gateway(t, "", h.address())
	const taken = 20
	for range taken {
		n.send(accessRequest(t, "alice", goodCode, secret))
	}
	eventually(t, "all are in work", func() bool { return h.metric(t, "watchword_radius_in_work") == taken })
	to := h.address()
	down := make(chan error, 1)
	go func() { down <- h.Shutdown(context.Background()) }()
	eventually(t, "reading stops", h.stopping)
	time.Sleep(200 * time.Millisecond) // the readers wake and leave
	late := gateway(t, "", to)
	late.send(accessRequest(t, "late", goodCode, secret))
	select {
	case err := <-down:
		t.Fatalf("Shutdown came back with requests in work: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	for i := range taken {
		if b := n.receive(); layeh.Code(b[0]) != layeh.CodeAccessAccept {
			t.Errorf("reply %d: %v", i, layeh.Code(b[0]))
		}
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	if err := <-h.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	for _, a := range core.asked() {
		if a.User == "late" {
			t.Error("new work was taken while draining")
		}
	}
	if len(h.Listening()) != 0 {
		t.Errorf("still listening on %v", h.Listening())
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Errorf("the address is still taken: %v", err)
	} else {
		conn.Close()
	}
}

func TestShutdownCancelsWhatTakesTooLong(t *testing.T) {
	core := oneClient()
	core.verify = func(ctx context.Context, _ tokens.Attempt) (tokens.Result, error) {
		<-ctx.Done()
		return tokens.Result{}, ctx.Err()
	}
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	n.send(accessRequest(t, "alice", goodCode, secret))
	eventually(t, "it is in work", func() bool { return h.metric(t, "watchword_radius_in_work") == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := h.Shutdown(ctx); err != context.DeadlineExceeded {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-h.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	n.conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if size, err := n.conn.Read(make([]byte, 100)); err == nil {
		t.Errorf("a cancelled request was answered with %d bytes", size)
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	s, err := New(oneClient(), Config{Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- s.Serve(ctx) }()
	eventually(t, "it listens", func() bool { return len(s.Listening()) == 1 })
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := s.Serve(context.Background()); err == nil {
		t.Error("Serve after Shutdown does not complain")
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	for name, config := range map[string]Config{
		"no port":      {Listen: []string{"127.0.0.1"}},
		"taken":        {Listen: []string{"127.0.0.1:0", h.address().String()}},
		"no address":   {Listen: []string{"192.0.2.1:0"}},
		"readers":      {Readers: -1},
		"life":         {ReplyLife: -1},
		"metrics name": {Registerer: h.registry},
	} {
		s, err := New(oneClient(), config)
		if err == nil {
			err = s.Listen()
			s.Shutdown(context.Background())
		}
		if err == nil {
			t.Errorf("%s was taken", name)
		} else if !strings.Contains(err.Error(), "RADIUS") {
			t.Errorf("%s: the error does not say where: %v", name, err)
		}
	}
}

func TestEachRequestOfManyIsAnsweredOnce(t *testing.T) {
	core := oneClient()
	core.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
		time.Sleep(time.Millisecond)
		return tokens.Result{Accept: strings.HasSuffix(a.User, "0")}, nil
	}
	h := serve(t, core, Config{Listen: []string{"127.0.0.1:0", "127.0.0.2:0"}})
	var gateways sync.WaitGroup
	for g := range 8 {
		gateways.Go(func() {
			n := gateway(t, "", h.Listening()[g%2])
			requests := map[byte][]byte{}
			want := map[byte]layeh.Code{}
			for i := range 100 {
				p := unsigned(t, fmt.Sprintf("user%d", i), goodCode, secret)
				p.Identifier = byte(i)
				rfc2865.ProxyState_Add(p, []byte{byte(g), byte(i)})
				requests[byte(i)], want[byte(i)] = signed(t, p, secret), layeh.CodeAccessReject
				if i%10 == 0 {
					want[byte(i)] = layeh.CodeAccessAccept
				}
				n.send(requests[byte(i)])
			}
			for range 100 {
				b, err := n.next(5 * time.Second)
				if err != nil {
					t.Errorf("a reply is missing: %v", err)
					return
				}
				request := requests[b[1]]
				if request == nil {
					t.Errorf("identifier %d was answered twice", b[1])
					return
				}
				delete(requests, b[1])
				p := authenticReply(t, b, request, secret)
				if state := rfc2865.ProxyState_Get(p); p.Code != want[b[1]] || len(state) != 2 || state[0] != byte(g) || state[1] != b[1] {
					t.Errorf("identifier %d: %v, Proxy-State %x", b[1], p.Code, state)
				}
			}
		})
	}
	gateways.Wait()
	if got := h.metric(t, "watchword_radius_request_seconds"); got != 800 {
		t.Errorf("%v requests measured", got)
	}
}
