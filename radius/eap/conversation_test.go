package eap_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"watchword/radius/eap"
)

// response is a response of EAP.
func response(id, kind byte, data string) []byte {
	b := []byte{2, id, 0, 0, kind}
	b = append(b, data...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func newTalk(t *testing.T, cfg eap.Config, name string) *eap.Conversation {
	t.Helper()
	if cfg.Methods == nil {
		cfg.Methods = []eap.Method{eap.GTC, eap.MSCHAPv2}
	}
	c, err := eap.New(cfg, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// step expects a request, and answers its identifier, type and data.
func step(t *testing.T, c *eap.Conversation, in []byte) (id, kind byte, data []byte) {
	t.Helper()
	out, next := c.Step(context.Background(), in)
	if _, ok := next.(eap.Continue); !ok || len(out) < 5 || out[0] != 1 || int(binary.BigEndian.Uint16(out[2:])) != len(out) {
		t.Fatalf("%x is answered with %x, %#v", in, out, next)
	}
	return out[1], out[4], out[5:]
}

// end expects a Success or Failure to the response id.
func end(t *testing.T, out []byte, next eap.Next, id byte, accept bool) eap.Done {
	t.Helper()
	done, ok := next.(eap.Done)
	code := byte(4)
	if accept {
		code = 3
	}
	if !ok || done.Accept != accept || !bytes.Equal(out, []byte{code, id, 0, 4}) {
		t.Fatalf("the end is %x, %#v", out, next)
	}
	return done
}

func discards(t *testing.T, c *eap.Conversation, in []byte) {
	t.Helper()
	if out, next := c.Step(context.Background(), in); out != nil || next != (eap.Discard{}) {
		t.Fatalf("%x is answered with %x, %#v", in, out, next)
	}
}

func TestAStartIsAnsweredWithARequestForTheIdentity(t *testing.T) {
	c := newTalk(t, eap.Config{}, "")
	id, kind, data := step(t, c, nil)
	if kind != 1 || len(data) != 0 {
		t.Fatalf("the first request is of type %d with %q", kind, data)
	}
	if again, _, _ := step(t, c, nil); again != id {
		t.Fatal("a repeated start is answered anew")
	}
	next, kind, data := step(t, c, response(id, 1, "alice"))
	if next != id+1 || kind != 6 || string(data) != "Enter your code." {
		t.Fatalf("the method begins with id %d, type %d, %q", next, kind, data)
	}
	discards(t, c, nil) // a start in the middle
}

func TestACodeIsAskedOnceAndWipedWhenItIsDecided(t *testing.T) {
	c := newTalk(t, eap.Config{}, "alice")
	id, _, _ := step(t, c, response(7, 1, "alice"))
	if id != 8 {
		t.Fatalf("the request after response 7 is %d", id)
	}
	answer := response(id, 6, goodCode)
	_, next := c.Step(context.Background(), answer)
	asked := next.(eap.Ask)
	if asked.User != "alice" || string(asked.Code) != goodCode || asked.Method != eap.GTC {
		t.Fatalf("the core is asked %+v", asked.Attempt)
	}
	clear(answer[5:]) // the attempt does not share the packet's memory
	answer = response(id, 6, goodCode)
	if string(asked.Code) != goodCode {
		t.Fatal("the code lies in the packet")
	}
	// The core gave no verdict, and the gateway tries again: the same attempt.
	if _, again := c.Step(context.Background(), answer); again.(eap.Ask).Attempt != asked.Attempt {
		t.Fatal("a repeated packet is another attempt")
	}
	discards(t, c, response(id, 6, "000000"))
	out, next := c.Told(true)
	end(t, out, next, id, true)
	if !bytes.Equal(asked.Code, make([]byte, len(goodCode))) {
		t.Fatal("the code was not wiped")
	}
	// The reply was lost.
	again, same := c.Step(context.Background(), answer)
	end(t, again, same, id, true)
	discards(t, c, response(id, 6, "000000"))
	if out, next := c.Told(true); out != nil || next != (eap.Discard{}) {
		t.Fatal("a second verdict is taken")
	}
}

func TestCloseWipesAnAttemptAndEndsTheConversation(t *testing.T) {
	c := newTalk(t, eap.Config{}, "")
	id, _, _ := step(t, c, response(0, 1, "alice"))
	_, next := c.Step(context.Background(), response(id, 6, goodCode))
	c.Close()
	if code := next.(eap.Ask).Code; !bytes.Equal(code, make([]byte, len(goodCode))) {
		t.Fatal("the code was not wiped")
	}
	if out, next := c.Told(true); out != nil || next != (eap.Discard{}) {
		t.Fatalf("a verdict after the end leads to %x, %v", out, next)
	}
	discards(t, c, response(id, 6, goodCode))
	c.Close()
}

func TestWhatIsNotTheAnswerIsDiscarded(t *testing.T) {
	c := newTalk(t, eap.Config{}, "")
	for name, in := range map[string][]byte{
		"a request":             {1, 7, 0, 5, 1},
		"a success":             {3, 7, 0, 4},
		"no type":               {2, 7, 0, 4},
		"two bytes":             {2, 7},
		"longer than it is":     {2, 7, 0, 9, 1, 'a'},
		"shorter than a header": {2, 7, 0, 3, 1, 'a'},
		"another type first":    response(7, 6, goodCode),
		"a Nak first":           response(7, 3, "\x06"),
	} {
		t.Run(name, func(t *testing.T) { discards(t, c, in) })
	}
	id, _, _ := step(t, c, response(7, 1, "alice"))
	for name, in := range map[string][]byte{
		"an older identifier": response(id-2, 6, goodCode),
		"a later identifier":  response(id+1, 6, goodCode),
		"another type":        response(id, 26, goodCode),
		"an identity":         response(id, 1, "bob"),
		"an expanded Nak":     response(id, 254, "\x00\x00\x00\x00\x00\x00\x03"),
		"a notification":      response(id, 2, ""),
	} {
		t.Run(name, func(t *testing.T) { discards(t, c, in) })
	}
	// It stands where it stood, and padding behind a packet is none of it.
	_, next := c.Step(context.Background(), append(response(id, 6, goodCode), 0, 0, 0))
	if asked, ok := next.(eap.Ask); !ok || asked.User != "alice" || string(asked.Code) != goodCode {
		t.Fatalf("the answer leads to %#v", next)
	}
}

func TestAMethodIsDeclinedBeforeItsFirstAnswerAlone(t *testing.T) {
	c := newTalk(t, eap.Config{Methods: []eap.Method{eap.MSCHAPv2, eap.GTC}}, "")
	id, kind, data := step(t, c, response(0, 1, "alice"))
	if kind != 26 || len(data) != 4+1+16+len("watchword") {
		t.Fatalf("the first method begins with type %d, %x", kind, data)
	}
	id, kind, _ = step(t, c, response(id, 3, "\x04\x06\x1a"))
	if kind != 6 {
		t.Fatalf("after the Nak type %d is offered", kind)
	}
	// What was declined is not offered again.
	out, next := c.Step(context.Background(), response(id, 3, "\x1a"))
	if done := end(t, out, next, id, false); done.Err == nil {
		t.Fatal("the log is told nothing")
	}

	c = newTalk(t, eap.Config{Methods: []eap.Method{eap.MSCHAPv2, eap.GTC}}, "")
	id, _, data = step(t, c, response(0, 1, "alice"))
	answer := append([]byte{2, data[1], 0, 54 + 5, 49}, make([]byte, 49)...)
	if _, next := c.Step(context.Background(), response(id, 26, string(answer)+"alice")); next.(eap.Ask).Proof.Proves([]byte(goodCode)) {
		t.Fatal("zeros prove a code")
	}
	out, next = c.Told(false)
	if _, ok := next.(eap.Continue); !ok || !strings.HasPrefix(string(out[9:]), "E=691 R=0 C=") {
		t.Fatalf("the peer is told %q, %v", out, next)
	}
	discards(t, c, response(out[1], 3, "\x06"))
}

func TestAnAcceptWithoutAProvenCodeIsAFailure(t *testing.T) {
	c := newTalk(t, eap.Config{Methods: []eap.Method{eap.MSCHAPv2}}, "")
	id, _, data := step(t, c, response(0, 1, "alice"))
	answer := append([]byte{2, data[1], 0, 54 + 5, 49}, make([]byte, 49)...)
	c.Step(context.Background(), response(id, 26, string(answer)+"alice"))
	out, next := c.Told(true)
	if done := end(t, out, next, id, false); done.Err == nil {
		t.Fatal("the log is told nothing")
	}
}

func TestAnMSCHAPv2AnswerOfAnotherFormIsRefused(t *testing.T) {
	good := append([]byte{2, 0, 0, 54 + 5, 49}, make([]byte, 49)...)
	good = append(good, "alice"...)
	for name, edit := range map[string]func(b []byte) []byte{
		"empty":             func(b []byte) []byte { return nil },
		"cut off":           func(b []byte) []byte { return b[:53] },
		"another operation": func(b []byte) []byte { b[0] = 3; return b },
		"another id":        func(b []byte) []byte { b[1]++; return b },
		"another length":    func(b []byte) []byte { b[3]--; return b },
		"another size":      func(b []byte) []byte { b[4] = 48; return b },
		"an endless name":   func(b []byte) []byte { b[2], b[3] = 1, 54+44; return append(b, make([]byte, 300-5)...) },
		"as it should be":   nil,
	} {
		t.Run(name, func(t *testing.T) {
			c := newTalk(t, eap.Config{Methods: []eap.Method{eap.MSCHAPv2}}, "")
			id, _, data := step(t, c, response(0, 1, "alice"))
			b := bytes.Clone(good)
			b[1] = data[1]
			if edit == nil {
				if _, next := c.Step(context.Background(), response(id, 26, string(b))); next.(eap.Ask).User != "alice" {
					t.Fatalf("it leads to %#v", next)
				}
				return
			}
			out, next := c.Step(context.Background(), response(id, 26, string(edit(b))))
			if done := end(t, out, next, id, false); done.Err == nil {
				t.Fatal("the log is told nothing")
			}
		})
	}
}

func TestAnIdentityMustBeAUsersName(t *testing.T) {
	for name, c := range map[string]struct{ userName, identity string }{
		"none":                 {"", ""},
		"not UTF-8":            {"", "al\xffce"},
		"too long":             {"", strings.Repeat("a", 254)},
		"another than outside": {"bob", "alice"},
	} {
		t.Run(name, func(t *testing.T) {
			talk := newTalk(t, eap.Config{}, c.userName)
			out, next := talk.Step(context.Background(), response(3, 1, c.identity))
			if done := end(t, out, next, 3, false); done.Err == nil {
				t.Fatal("the log is told nothing")
			}
		})
	}
}

func TestAConversationEnds(t *testing.T) {
	now := time.Unix(1e9, 0)
	cfg := eap.Config{Now: func() time.Time { return now }}
	t.Run("after its life", func(t *testing.T) {
		c := newTalk(t, cfg, "")
		id, _, _ := step(t, c, response(0, 1, "alice"))
		now = now.Add(eap.MaxLife + 1)
		out, next := c.Step(context.Background(), response(id, 6, goodCode))
		if done := end(t, out, next, id, false); done.Err == nil {
			t.Fatal("the log is told nothing")
		}
	})
	t.Run("after its rounds", func(t *testing.T) {
		c := newTalk(t, cfg, "")
		id, _, _ := step(t, c, response(0, 1, "alice"))
		for range eap.MaxRounds - 1 {
			discards(t, c, response(id, 2, ""))
		}
		out, next := c.Step(context.Background(), response(id, 2, ""))
		end(t, out, next, id, false)
	})
	t.Run("after its bytes", func(t *testing.T) {
		c := newTalk(t, cfg, "")
		id, _, _ := step(t, c, response(0, 1, "alice"))
		for range 16 {
			discards(t, c, response(id, 2, strings.Repeat("x", 4090)))
		}
		out, next := c.Step(context.Background(), response(id, 2, strings.Repeat("x", 4090)))
		end(t, out, next, id, false)
	})
	t.Run("with a code that is too long", func(t *testing.T) {
		c := newTalk(t, cfg, "")
		id, _, _ := step(t, c, response(0, 1, "alice"))
		out, next := c.Step(context.Background(), response(id, 6, strings.Repeat("1", 254)))
		end(t, out, next, id, false)
	})
	t.Run("without random numbers", func(t *testing.T) {
		c := newTalk(t, eap.Config{Methods: []eap.Method{eap.MSCHAPv2}, Rand: iotest.ErrReader(errors.New("no entropy"))}, "")
		out, next := c.Step(context.Background(), response(0, 1, "alice"))
		if done := end(t, out, next, 0, false); done.Err == nil {
			t.Fatal("the log is told nothing")
		}
	})
}

func TestAConfigurationThatMakesNoSenseIsRefused(t *testing.T) {
	for name, cfg := range map[string]eap.Config{
		"no method":      {},
		"unknown method": {Methods: []eap.Method{"eap-md5"}},
		"a method twice": {Methods: []eap.Method{eap.GTC, eap.MSCHAPv2, eap.GTC}},
		"a long prompt":  {Methods: []eap.Method{eap.GTC}, Prompt: strings.Repeat("p", 254)},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := eap.New(cfg, ""); err == nil {
				t.Fatal("it is taken")
			}
		})
	}
}
