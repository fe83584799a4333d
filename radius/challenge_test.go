package radius

import (
	"bytes"
	"context"
	"regexp"
	"slices"
	"strings"
	"testing"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2869"

	"watchword/tokens"
)

// asking is a core that asks every question that a user is named like, under a State of
// 253 bytes, and accepts the good code with it.
func asking(dialogues ...tokens.Dialogue) *fakeCore {
	f := oneClient()
	f.clients[0].Dialogues = dialogues
	f.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
		switch {
		case a.State == nil && len(a.Dialogues) > 0:
			return tokens.Result{Challenge: &tokens.Challenge{Question: tokens.Question(a.User), State: longState}}, nil
		case bytes.Equal(a.State, longState) && a.Code == goodCode:
			return tokens.Result{Accept: true}, nil
		}
		return tokens.Result{}, nil
	}
	return f
}

var (
	longState    = bytes.Repeat([]byte{0xA5}, 253)
	allDialogues = []tokens.Dialogue{tokens.DialogueNewPIN, tokens.DialogueNextCode, tokens.DialoguePIN}
)

func TestRadclientIsAskedAndAnswers(t *testing.T) {
	core := asking(allDialogues...)
	core.clients[0].Messages = map[string]string{"next_code": "Noch ein Code, später", "new_pin_again": ""}
	h := serve(t, core, Config{})
	const request = `,User-Password=4711,Message-Authenticator=0x00,Proxy-State=0xbeef`
	for question, want := range map[tokens.Question][]string{
		tokens.QuestionCode:        {`Reply-Message = "Enter the code that your token shows."`},
		tokens.QuestionNextCode:    {`Reply-Message = "Noch ein Code, später"`},
		tokens.QuestionNewPIN:      {`Reply-Message = "Your PIN must be changed. Enter a new PIN."`, "Prompt = No-Echo"},
		tokens.QuestionBadPIN:      {`Reply-Message = "That PIN is not allowed. Enter another new PIN."`, "Prompt = No-Echo"},
		tokens.QuestionNewPINAgain: {"Prompt = No-Echo"},
	} {
		out := radclient(t, h.address(), "auth", secret, "User-Name="+string(question)+request)
		for _, want := range append(want, "Received Access-Challenge", "State = 0x"+strings.Repeat("a5", 253), "Proxy-State = 0xbeef") {
			if !strings.Contains(out, want) {
				t.Errorf("%s: radclient did not say %q:\n%s", question, want, out)
			}
		}
		if strings.Contains(out, "failed") || strings.Count(out, "Prompt") != strings.Count(strings.Join(want, ""), "Prompt") || strings.Count(out, "Reply-Message") != len(want)-strings.Count(out, "Prompt") {
			t.Errorf("%s: radclient says\n%s", question, out)
		}
		state := regexp.MustCompile("State = (0xa5[0-9a-f]*)").FindStringSubmatch(out)
		if state == nil {
			t.Fatal(out)
		}
		answer := "User-Name=" + string(question) + ",User-Password=" + goodCode + ",Message-Authenticator=0x00,State=" + state[1]
		if out := radclient(t, h.address(), "auth", secret, answer); !strings.Contains(out, "Received Access-Accept") {
			t.Errorf("the answer to %s:\n%s", question, out)
		}
	}
	if got := h.metric(t, "watchword_radius_requests_total", "client=vpn", "code=access_request", "outcome=challenge"); got != 5 {
		t.Errorf("%v challenges counted", got)
	}
}

// A question that was lost on its way is asked again by the same packet, and the core
// hears of one attempt.
func TestARepeatedRequestIsAskedTheSameAgain(t *testing.T) {
	h := serve(t, asking(tokens.DialogueNextCode), Config{})
	n := gateway(t, "", h.address())
	request := accessRequest(t, "next_code", "000000", secret)
	n.send(request)
	first := n.receive()
	if p := authenticReply(t, first, request, secret); p.Code != layeh.CodeAccessChallenge || !bytes.Equal(rfc2865.State_Get(p), longState) {
		t.Fatalf("%v %v", p.Code, p.Attributes)
	}
	n.send(request)
	if again := n.receive(); !bytes.Equal(again, first) {
		t.Errorf("asked anew: %x", again)
	}
	if got := len(h.core.asked()); got != 1 {
		t.Errorf("the core was asked %d times", got)
	}
}

func TestTheCoreIsToldWhatTheClientLetsBegin(t *testing.T) {
	for name, c := range map[string]struct {
		set      func(*tokens.ClientOptions)
		password string
		want     tokens.Attempt
		rejected bool // without the core hearing of a code
	}{
		"nothing": {func(o *tokens.ClientOptions) {}, "1", tokens.Attempt{Code: "1"}, false},
		"dialogues": {func(o *tokens.ClientOptions) { o.Dialogues = []tokens.Dialogue{tokens.DialogueNextCode} }, "1",
			tokens.Attempt{Code: "1", Dialogues: []tokens.Dialogue{tokens.DialogueNextCode}}, false},
		"joined": {func(o *tokens.ClientOptions) { o.Joined = []tokens.Dialogue{tokens.DialogueNewPIN} }, "1",
			tokens.Attempt{Code: "1", Joined: []tokens.Dialogue{tokens.DialogueNewPIN}}, false},
		"nothing typed, and the PIN is asked for": {func(o *tokens.ClientOptions) { o.Dialogues = []tokens.Dialogue{tokens.DialoguePIN} }, "",
			tokens.Attempt{Dialogues: []tokens.Dialogue{tokens.DialoguePIN}}, false},
		"nothing typed": {func(o *tokens.ClientOptions) { o.Dialogues = []tokens.Dialogue{tokens.DialogueNextCode} }, "", tokens.Attempt{}, true},
		"noise":         {func(o *tokens.ClientOptions) { o.Dialogues = allDialogues }, "\xff\xfe", tokens.Attempt{}, true},
	} {
		core := oneClient()
		c.set(&core.clients[0].ClientOptions)
		h := serve(t, core, Config{})
		for _, state := range [][]byte{nil, []byte("state")} {
			p := unsigned(t, "alice", c.password, secret)
			want := c.want
			if state != nil {
				p.Add(rfc2865.State_Type, state)
				if !c.rejected {
					want.State = state
				}
			}
			if reply := gateway(t, "", h.address()).exchange(signed(t, p, secret), secret); reply.Code != layeh.CodeAccessReject {
				t.Errorf("%s: %v", name, reply.Code)
			}
			all := core.asked()
			got := all[len(all)-1]
			if got.Code != want.Code || !bytes.Equal(got.State, want.State) || !slices.Equal(got.Dialogues, want.Dialogues) || !slices.Equal(got.Joined, want.Joined) {
				t.Errorf("%s: the core was asked %+v", name, got)
			}
		}
	}
}

// radclient, for one, sends no User-Password where it is empty.
func TestAPasswordThatIsLeftOutIsAnEmptyOne(t *testing.T) {
	for want, dialogue := range map[string]tokens.Dialogue{"Received Access-Challenge": tokens.DialoguePIN, "Received Access-Reject": tokens.DialogueNextCode} {
		core := asking(dialogue)
		h := serve(t, core, Config{})
		if out := radclient(t, h.address(), "auth", secret, `User-Name=code,User-Password="",Message-Authenticator=0x00`); !strings.Contains(out, want) {
			t.Errorf("%s: %s", dialogue, out)
		}
		// Nothing but its Message-Authenticator proves such a request.
		if out := radclient(t, h.address(), "auth", secret, `User-Name=code`); !strings.Contains(out, "No reply") {
			t.Errorf("%s: %s", dialogue, out)
		}
		if got := core.asked(); len(got) != 1 || got[0].Code != "" {
			t.Errorf("%s: the core was asked %+v", dialogue, got)
		}
	}
}

// A question answers no CHAP and no MS-CHAP, so none of them answers a question.
func TestOnlyPAPIsAskedAnything(t *testing.T) {
	core := asking(allDialogues...)
	core.clients[0].Methods = []tokens.Method{tokens.MethodCHAP, tokens.MethodMSCHAP, tokens.MethodMSCHAPv2}
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	for method, request := range shown(t, goodCode) {
		if reply := n.exchange(request, secret); reply.Code != layeh.CodeAccessReject {
			t.Errorf("%s: %v", method, reply.Code)
		}
		p, err := layeh.Parse(request, []byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		p.Del(rfc2869.MessageAuthenticator_Type)
		p.Identifier++
		p.Add(rfc2865.State_Type, longState)
		if reply := n.exchange(signed(t, p, secret), secret); reply.Code != layeh.CodeAccessReject {
			t.Errorf("%s with a State: %v", method, reply.Code)
		}
	}
	for _, a := range core.asked() {
		if len(a.Dialogues)+len(a.State) > 0 {
			t.Errorf("the core was asked %+v", a)
		}
	}
	if h.log.lines("by another method than PAP") != 1 {
		t.Errorf("the log:\n%s", h.log)
	}
}

// What the core must not ask is a fault of its own, and a fault is silence.
func TestAQuestionThatCannotBeAskedIsNotAnswered(t *testing.T) {
	for name, c := range map[string]tokens.Challenge{
		"no State":             {Question: tokens.QuestionCode},
		"a State of 254 bytes": {Question: tokens.QuestionCode, State: make([]byte, 254)},
		"an unknown question":  {Question: "colour", State: longState},
	} {
		core := asking(tokens.DialoguePIN)
		core.verify = func(context.Context, tokens.Attempt) (tokens.Result, error) {
			return tokens.Result{Accept: true, Challenge: &c}, nil
		}
		h := serve(t, core, Config{})
		n := gateway(t, "", h.address())
		n.send(accessRequest(t, "alice", "1", secret))
		n.silence()
		if got := h.metric(t, "watchword_radius_requests_total", "outcome=fault"); got != 1 {
			t.Errorf("%s: %v faults counted", name, got)
		}
	}
}

// What a reply may have is reserved for before a code is spent.
func TestAQuestionFitsBesideEachProxyState(t *testing.T) {
	core := asking(allDialogues...)
	core.clients[0].Messages = map[string]string{"code": strings.Repeat("x", 253)}
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	const room = maxPacketSize - headerSize - 18 - 255 - 255
	with := func(bytesOfThem int) []byte {
		p := unsigned(t, "code", "1", secret)
		for left := bytesOfThem; left > 0; {
			size := min(left, 255)
			if left-size == 1 {
				size--
			}
			p.Add(rfc2865.ProxyState_Type, bytes.Repeat([]byte{'p'}, size-2))
			left -= size
		}
		return signed(t, p, secret)
	}
	if p := n.exchange(with(room), secret); p.Code != layeh.CodeAccessChallenge {
		t.Errorf("%v", p.Code)
	}
	n.send(with(room + 1))
	h.awaitDropped(t, malformed, 1)
	if got := len(core.asked()); got != 1 {
		t.Errorf("the core was asked %d times", got)
	}
}
