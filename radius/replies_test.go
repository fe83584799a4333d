package radius

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"

	"watchword/tokens"
)

// given is a core whose client has reply attributes; its users are members of the groups
// that their names say, divided by +.
func given(replies ...tokens.Reply) *fakeCore {
	f := oneClient()
	f.clients[0].Replies = replies
	f.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
		r := tokens.Result{Accept: a.Code == goodCode}
		if r.Accept && a.Groups {
			r.Groups = strings.Split(a.User, "+")
			slices.Sort(r.Groups)
		}
		return r, nil
	}
	return f
}

func replyFor(group string, pairs ...string) tokens.Reply {
	r := tokens.Reply{Group: group}
	for i := 0; i < len(pairs); i += 2 {
		r.Attributes = append(r.Attributes, tokens.ReplyAttribute{Name: pairs[i], Value: pairs[i+1]})
	}
	return r
}

func TestRadclientIsGivenTheAttributesOfTheUsersGroups(t *testing.T) {
	core := given(
		replyFor("staff", "Class", "staff", "Session-Timeout", "3600", "Cisco-AVPair", "shell:priv-lvl=15"),
		replyFor("vpn", "Class", "vpn", "Tunnel-Type:1", "VLAN", "Tunnel-Medium-Type:1", "IEEE-802", "Tunnel-Private-Group-Id:1", "42"),
		replyFor("", "Session-Timeout", "600", "Service-Type", "Framed-User", "Framed-IPv6-Prefix", "2001:db8::/48"),
	)
	core.clients[0].Messages = map[string]string{"accept": "Welcome.", "reject": "Ask the helpdesk."}
	h := serve(t, core, Config{})
	everybody := []string{`Reply-Message = "Welcome."`, "Service-Type = Framed-User", "Framed-IPv6-Prefix = 2001:db8::/48"}
	for user, want := range map[string][]string{
		"nobody":    append([]string{"Session-Timeout = 600"}, everybody...),
		"staff":     append([]string{"Class = 0x7374616666", "Session-Timeout = 3600", `Cisco-AVPair = "shell:priv-lvl=15"`}, everybody...),
		"vpn+staff": append([]string{"Class = 0x7374616666", "Class = 0x76706e", "Session-Timeout = 3600", `Cisco-AVPair = "shell:priv-lvl=15"`, "Tunnel-Type:1 = VLAN", "Tunnel-Medium-Type:1 = IEEE-802", `Tunnel-Private-Group-Id:1 = "42"`}, everybody...),
	} {
		out := radclient(t, h.address(), "auth", secret, "User-Name="+user+",User-Password="+goodCode+",Message-Authenticator=0x00,Proxy-State=0xbeef")
		_, reply, ok := strings.Cut(out, "Received Access-Accept")
		if !ok {
			t.Fatalf("%s: %s", user, out)
		}
		for _, attribute := range append(want, "Proxy-State = 0xbeef") {
			if !strings.Contains(reply, "\t"+attribute+"\n") {
				t.Errorf("%s: there is no %s in\n%s", user, attribute, reply)
			}
		}
		if n := strings.Count(reply, "\t"); n != len(want)+2 { // and Message-Authenticator
			t.Errorf("%s: %d attributes in\n%s", user, n, reply)
		}
	}
	out := radclient(t, h.address(), "auth", secret, "User-Name=staff,User-Password=000000,Message-Authenticator=0x00")
	_, reply, _ := strings.Cut(out, "Received Access-Reject")
	if !strings.Contains(reply, `Reply-Message = "Ask the helpdesk."`) || strings.Count(reply, "\t") != 2 {
		t.Errorf("a reject is %s", out)
	}
}

// The groups are read for clients that need them alone.
func TestGroupsAreAskedForWhereRepliesDependOnThem(t *testing.T) {
	for want, replies := range map[bool][]tokens.Reply{
		false: {replyFor("", "Class", "x")},
		true:  {replyFor("", "Class", "x"), replyFor("staff", "Class", "y")},
	} {
		core := given(replies...)
		core.clients[0].Methods = []tokens.Method{tokens.MethodPAP, tokens.MethodCHAP, tokens.MethodMSCHAP, tokens.MethodMSCHAPv2}
		h := serve(t, core, Config{})
		n := gateway(t, "", h.address())
		for _, request := range shown(t, goodCode) {
			n.exchange(request, secret)
		}
		for _, a := range core.asked() {
			if a.Groups != want {
				t.Errorf("%v: %+v", replies, a)
			}
		}
	}
}

// What an attacker or a user without a code would learn is nothing: all rejects are one.
func TestAllRejectsOfAClientAreAlike(t *testing.T) {
	core := given(replyFor("", "Class", "x"), replyFor("staff", "Session-Timeout", "1"))
	core.clients[0].Messages = map[string]string{"accept": "Welcome.", "reject": "No."}
	core.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
		switch a.User {
		case "staff":
			return tokens.Result{Groups: []string{"staff"}}, nil
		case "forbidden":
			return tokens.Result{}, tokens.ErrForbidden
		}
		return tokens.Result{}, nil
	}
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	for _, user := range []string{"staff", "forbidden", "nobody", ""} {
		p := n.exchange(accessRequest(t, user, "000000", secret), secret)
		if p.Code != layeh.CodeAccessReject || len(p.Attributes) != 2 || rfc2865.ReplyMessage_GetString(p) != "No." {
			t.Errorf("%q: %v %v", user, p.Code, p.Attributes)
		}
	}
}

// A change counts from the next packet on, also where a retransmission is answered with
// what was right then.
func TestAChangedClientIsGivenOtherAttributes(t *testing.T) {
	core := given(replyFor("", "Class", "old"))
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	first := accessRequest(t, "alice", goodCode, secret)
	if p := n.exchange(first, secret); string(rfc2865.Class_Get(p)) != "old" {
		t.Errorf("%v", p.Attributes)
	}
	next := *core.clients[0]
	next.Replies = []tokens.Reply{replyFor("", "Class", "new")}
	core.changed.Store(&next)
	if p := n.exchange(accessRequest(t, "alice", goodCode, secret), secret); string(rfc2865.Class_Get(p)) != "new" {
		t.Errorf("%v", p.Attributes)
	}
	if p := n.exchange(first, secret); string(rfc2865.Class_Get(p)) != "old" {
		t.Errorf("a retransmission: %v", p.Attributes)
	}
}

// A user is not let in without the attributes that keep them in bounds: a node that
// cannot make them answers nothing, and the gateway asks another.
func TestAClientWhoseAttributesCannotBeMadeIsNotAnswered(t *testing.T) {
	h := serve(t, given(replyFor("staff", "Our-Own-Limit", "1")), Config{})
	n := gateway(t, "", h.address())
	n.send(accessRequest(t, "alice", goodCode, secret))
	n.silence()
	n.send(signed(t, layeh.New(layeh.CodeStatusServer, []byte(secret)), secret))
	h.awaitDropped(t, badReplies, 2)
	if len(h.core.asked()) != 0 {
		t.Error("the core was asked")
	}
	if h.log.lines("cannot be made", "Our-Own-Limit", "client=vpn") != 1 {
		t.Errorf("the log:\n%s", h.log)
	}
}

// As much as settings can hold is one packet, with MS-CHAPv2 and every Proxy-State that
// still fits; a request with more is refused before its code is spent.
func TestTheLongestReplyIsOnePacket(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	core := given(replyFor("a", "Class", long(253), "Class", long(253), "Class", long(253), "Class", long(253)),
		replyFor("b", "Class", long(253), "Class", long(253), "Class", long(253), "Class", long(253-2)), replyFor("", "Class", long(8)))
	core.clients[0].Methods = []tokens.Method{tokens.MethodPAP, tokens.MethodMSCHAPv2}
	core.clients[0].Messages = map[string]string{"accept": long(253)}
	core.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
		if a.Proof != nil && !a.Proof.Proves([]byte(goodCode)) {
			return tokens.Result{}, nil
		}
		return tokens.Result{Accept: true, Groups: []string{"a", "b"}}, nil
	}
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	for method, room := range map[tokens.Method]int{
		tokens.MethodPAP:      maxPacketSize - headerSize - 18 - 255 - maxReplies,
		tokens.MethodMSCHAPv2: maxPacketSize - headerSize - 18 - 255 - maxReplies - maxExtra,
	} {
		with := func(room int) []byte {
			p, err := layeh.Parse(shown(t, goodCode)[method], []byte(secret))
			if err != nil {
				t.Fatal(err)
			}
			p.Del(80)
			p.Identifier++
			for left := room; left > 0; {
				size := min(left, 255)
				if left-size == 1 {
					size--
				}
				p.Add(rfc2865.ProxyState_Type, bytes.Repeat([]byte{'p'}, size-2))
				left -= size
			}
			return signed(t, p, secret)
		}
		p := n.exchange(with(room), secret)
		classes, err := rfc2865.Class_Gets(p)
		if p.Code != layeh.CodeAccessAccept || err != nil || len(classes) != 9 || len(rfc2865.ReplyMessage_GetString(p)) != 253 {
			t.Errorf("%s: %v with %d of Class, %v", method, p.Code, len(classes), err)
		}
		before := len(core.asked())
		dropped := h.dropped(t, malformed)
		n.send(with(room + 1))
		h.awaitDropped(t, malformed, dropped+1)
		if len(core.asked()) != before {
			t.Errorf("%s: the core was asked about what cannot be answered", method)
		}
	}
}
