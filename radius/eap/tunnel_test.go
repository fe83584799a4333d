package eap

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"layeh.com/radius/rfc2759"
)

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

// refused expects an end without a question.
func refused(t *testing.T, next Next) {
	t.Helper()
	if done, ok := next.(Done); !ok || done.Accept || done.MSK != nil || done.Err == nil {
		t.Fatalf("it leads to %#v", next)
	}
}

func pap(user, code string) []byte {
	return avp{0, avpUserPassword, true, []byte(code)}.append(avp{0, avpUserName, true, []byte(user)}.append(nil))
}

func TestBothEndsOfATunnelHaveTheSameKeys(t *testing.T) {
	for _, version := range versions {
		p := meet(t, version, TTLSPAP)
		p.handshake()
		_, next := p.say(pap("alice", "755224\x00\x00"))
		asked, ok := next.(Ask)
		if !ok || asked.User != "alice" || string(asked.Code) != "755224" || asked.Method != TTLSPAP {
			t.Fatalf("it leads to %#v", next)
		}
		tunnel := p.c.talk.speak.(*tunnel)
		if b := tunnel.tls.plain; cap(b) == 0 || bytes.Contains(b[:cap(b)], []byte("755224")) {
			t.Fatal("what the peer said still lies there")
		}
		_, next = p.told(true)
		label, context := "ttls keying material", []byte(nil)
		if version == tls.VersionTLS13 {
			label, context = "EXPORTER_EAP_TLS_Key_Material", []byte{21}
		}
		keys, err := p.tls.export(label, context, 128)
		if err != nil {
			t.Fatal(err)
		}
		if done := next.(Done); !done.Accept || !bytes.Equal(done.MSK, keys[:64]) {
			t.Fatalf("%s: the keys differ", tls.VersionName(version))
		}
		if !bytes.Equal(asked.Code, make([]byte, 6)) {
			t.Fatal("the code was not wiped")
		}
	}
}

func TestATTLSPeerThatSaysNothingOfUseIsRefused(t *testing.T) {
	name := avp{0, avpUserName, true, []byte("alice")}.append(nil)
	eapIdentity := avp{0, avpEAPMessage, true, respond(0, typeIdentity, []byte("alice"))}.append(nil)
	for what, plain := range map[string][]byte{
		"a name alone":            name,
		"a code alone":            avp{0, avpUserPassword, true, []byte("755224")}.append(nil),
		"no name":                 pap("", "755224"),
		"a name in no UTF-8":      pap("al\xffce", "755224"),
		"a long name":             pap(strings.Repeat("a", 254), "755224"),
		"a long code":             pap("alice", strings.Repeat("1", 254)),
		"two names":               append(pap("alice", "755224"), name...),
		"an unknown AVP to obey":  avp{0, 99, true, nil}.append(pap("alice", "755224")),
		"a cut-off AVP":           pap("alice", "755224")[:20],
		"a short AVP":             {0, 0, 0, 1, 0x40, 0, 0, 7},
		"a cut-off vendor":        {0, 0, 0, 1, 0xc0, 0, 0, 8},
		"noise":                   bytes.Repeat([]byte{0xa5}, 500),
		"EAP and PAP at once":     append(bytes.Clone(eapIdentity), pap("alice", "755224")...),
		"EAP that is a request":   avp{0, avpEAPMessage, true, request(0, typeIdentity, []byte("alice"))}.append(nil),
		"EAP without an identity": avp{0, avpEAPMessage, true, respond(0, typeGTC, []byte("755224"))}.append(nil),
		"EAP of nobody":           avp{0, avpEAPMessage, true, respond(0, typeIdentity, nil)}.append(nil),
	} {
		t.Run(what, func(t *testing.T) {
			p := meet(t, tls.VersionTLS13, TTLSPAP, TTLSGTC, TTLSMSCHAPv2)
			p.handshake()
			_, next := p.say(plain)
			refused(t, next)
		})
	}
	t.Run("EAP that answers something else", func(t *testing.T) {
		p := meet(t, tls.VersionTLS13, TTLSGTC)
		p.handshake()
		plain, next := p.say(eapIdentity)
		if next != (Continue{}) || len(plain) < 14 || plain[8] != codeRequest || plain[12] != typeGTC {
			t.Fatalf("EAP leads to %x, %#v", plain, next)
		}
		_, next = p.say(avp{0, avpEAPMessage, true, respond(plain[9]+1, typeGTC, []byte("755224"))}.append(nil))
		refused(t, next)
	})
	t.Run("PAP after EAP", func(t *testing.T) {
		p := meet(t, tls.VersionTLS13, TTLSPAP, TTLSGTC)
		p.handshake()
		if plain, next := p.say(eapIdentity); next != (Continue{}) || len(plain) == 0 {
			t.Fatalf("EAP leads to %x, %#v", plain, next)
		}
		_, next := p.say(pap("alice", "755224"))
		refused(t, next)
	})
	t.Run("what is unknown, but need not be obeyed", func(t *testing.T) {
		p := meet(t, tls.VersionTLS13, TTLSPAP)
		p.handshake()
		if _, next := p.say(avp{9, 99, false, []byte("x")}.append(pap("alice", "755224"))); next.(Ask).User != "alice" {
			t.Fatalf("it leads to %#v", next)
		}
	})
}

// msAnswer is what a peer of TTLS with MS-CHAPv2 says, over the challenge of the
// tunnel, but for the byte that it chooses.
func (p *peer) msAnswer(code string, choose int) []byte {
	implicit, err := p.tls.export("ttls challenge", nil, 17)
	if err != nil {
		p.t.Fatal(err)
	}
	if choose >= 0 {
		implicit[choose] ^= 1
	}
	theirs := bytes.Repeat([]byte{7}, 16)
	nt, err := rfc2759.GenerateNTResponse(implicit[:16], theirs, []byte("alice"), []byte(code))
	if err != nil {
		p.t.Fatal(err)
	}
	answer := append(append([]byte{implicit[16], 0}, theirs...), make([]byte, 8)...)
	b := avp{0, avpUserName, true, []byte("alice")}.append(nil)
	b = avp{vendorMicrosoft, avpMSChallenge, true, implicit[:16]}.append(b)
	return avp{vendorMicrosoft, avpMSCHAP2Answer, true, append(answer, nt...)}.append(b)
}

func TestAnMSCHAPv2ProofIsWorthNothingOutsideItsTunnel(t *testing.T) {
	for _, version := range versions {
		for _, choose := range []int{0, 15, 16} { // the last is the identifier
			p := meet(t, version, TTLSMSCHAPv2)
			p.handshake()
			_, next := p.say(p.msAnswer("755224", choose))
			refused(t, next)
		}

		p := meet(t, version, TTLSMSCHAPv2)
		p.handshake()
		_, next := p.say(p.msAnswer("755224", -1))
		if proof := next.(Ask).Proof; proof.Proves([]byte("755225")) || !proof.Proves([]byte("755224")) {
			t.Fatal("it proves another code")
		}
		plain, next := p.told(true)
		if next != (Continue{}) || !bytes.Contains(plain, []byte("S=")) {
			t.Fatalf("the server proves %q, %v", plain, next)
		}
		_, next = p.send(acknowledgement)
		if done := next.(Done); !done.Accept {
			t.Fatalf("it ends with %v", done.Err)
		}
	}
}

func TestAPEAPSuccessNeedsBothSides(t *testing.T) {
	success := respond(9, typeExtensions, []byte{0x80, 3, 0, 2, 0, 1})
	for what, c := range map[string]struct {
		accept bool
		says   []byte
		ends   bool
	}{
		"both accept":           {true, success, true},
		"with more beside":      {true, respond(9, typeExtensions, []byte{0, 9, 0, 1, 5, 0x80, 3, 0, 2, 0, 1}), true},
		"the peer does not":     {true, respond(9, typeExtensions, []byte{0x80, 3, 0, 2, 0, 2}), false},
		"the server does not":   {false, success, false},
		"the peer says nothing": {true, respond(9, typeExtensions, nil), false},
		"a cut-off result":      {true, respond(9, typeExtensions, []byte{0x80, 3, 0, 2, 0}), false},
		"no extension":          {true, respond(9, typeGTC, []byte{0x80, 3, 0, 2, 0, 1}), false},
		"noise":                 {true, []byte{0xa5}, false},
	} {
		t.Run(what, func(t *testing.T) {
			for _, version := range versions {
				p := meet(t, version, PEAPGTC)
				p.handshake()
				p.listen()
				if plain, _ := p.say([]byte("\x01alice")); len(plain) < 2 || plain[0] != typeGTC {
					t.Fatalf("after the identity comes %x", plain)
				}
				_, next := p.say([]byte("\x06755224"))
				if a := next.(Ask); a.User != "alice" || string(a.Code) != "755224" || a.Method != PEAPGTC {
					t.Fatalf("the core is asked %+v", a.Attempt)
				}
				plain, _ := p.told(c.accept)
				if want := map[bool]byte{true: 1, false: 2}[c.accept]; len(plain) != 11 || plain[10] != want {
					t.Fatalf("the server's result is %x", plain)
				}
				_, next = p.say(c.says)
				if done := next.(Done); done.Accept != c.ends || (done.MSK != nil) != c.ends {
					t.Fatalf("it ends with %#v", done)
				}
			}
		})
	}
}

func TestAPEAPPeerThatSaysNothingOfUseIsRefused(t *testing.T) {
	for what, plain := range map[string]string{
		"no identity": "\x06755224",
		"nobody":      "\x01",
		"noise":       strings.Repeat("\xa5", 300),
	} {
		t.Run(what, func(t *testing.T) {
			p := meet(t, tls.VersionTLS12, PEAPGTC)
			p.handshake()
			p.listen()
			_, next := p.say([]byte(plain))
			if _, goesOn := next.(Continue); goesOn { // the server's result is failure
				_, next = p.send(acknowledgement)
			}
			refused(t, next)
		})
	}
}

func TestFragmentsOfAnotherFormAreRefused(t *testing.T) {
	long := binary.BigEndian.AppendUint32([]byte{flagLength | flagMore}, maxMessage+1)
	for what, packets := range map[string][][]byte{
		"no flags":                 {{}},
		"a start":                  {{flagStart}},
		"nothing":                  {{0}},
		"another version":          {{1, 22, 3, 1}},
		"a cut-off length":         {{flagLength, 0, 0, 1}},
		"too much":                 {append(long, 1)},
		"another length":           {{flagLength, 0, 0, 0, 9, 22, 3, 1}},
		"another length later":     {{flagLength | flagMore, 0, 0, 0, 9, 22, 3, 1}, {flagLength, 0, 0, 0, 8, 22, 3, 1, 4, 5}},
		"more of nothing":          {{flagMore}},
		"more than was named":      {{flagLength | flagMore, 0, 0, 0, 2, 22, 3, 1}, {0, 4}},
		"no TLS":                   {append([]byte{0}, "GET / HTTP/1.1\r\n\r\n"...)},
		"a handshake's middle":     {{0, 20, 3, 3, 0, 1, 1}},
		"an alert instead of this": {{0, 21, 3, 3, 0, 2, 2, 48}},
	} {
		t.Run(what, func(t *testing.T) {
			p := meet(t, tls.VersionTLS13, PEAPGTC)
			var next Next
			for _, data := range packets {
				_, next = p.send(data)
			}
			if c, goesOn := next.(Continue); goesOn && c.Err != nil { // an alert went out
				_, next = p.send(acknowledgement)
			}
			refused(t, next)
		})
	}
	t.Run("data instead of an acknowledgement", func(t *testing.T) {
		p := meet(t, tls.VersionTLS13, PEAPGTC)
		p.tls.step(context.Background(), nil)
		hello := p.tls.records()
		p.frames.size = maxFragment
		if data, _ := p.send(p.frames.send(hello)); data[0]&flagMore == 0 {
			t.Fatal("the server's answer is not cut")
		}
		_, next := p.send([]byte{0, 22, 3, 1})
		refused(t, next)
	})
	t.Run("more than a message has, without its length", func(t *testing.T) {
		p := meet(t, tls.VersionTLS13, PEAPGTC)
		more := append([]byte{flagMore}, make([]byte, 4000)...)
		for range maxMessage / 4000 {
			if _, next := p.send(more); next != (Continue{}) {
				t.Fatalf("it is refused early: %#v", next)
			}
		}
		_, next := p.send(more)
		refused(t, next)
	})
}

// TestAPeerThatIsCutOffLeavesNothing ends conversations after each of their packets, by
// Close and by time alone. synctest fails when a goroutine is left.
func TestAPeerThatIsCutOffLeavesNothing(t *testing.T) {
	certificate() // outside: it takes its time
	for _, version := range versions {
		for _, closed := range []bool{true, false} {
			for packets := range 9 {
				synctest.Test(t, func(t *testing.T) {
					c, err := New(Config{Methods: []Method{PEAPGTC}, TLS: serverTLS, FragmentSize: 400}, "")
					if err != nil {
						t.Fatal(err)
					}
					p := &peer{t: t, c: c, kind: typePEAP, frames: fragments{size: 300}}
					p.tls = newChannel(tls.Client, &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
					defer p.tls.close()
					out, next := c.Step(t.Context(), respond(1, typeIdentity, []byte("alice")))
					p.id = out[1]
					p.tls.step(t.Context(), nil)
					data := p.frames.send(p.tls.records())
					for range packets {
						if len(p.tls.plain) > 0 {
							break // the tunnel is open, and the server has spoken in it
						}
						data, next = p.send(data)
						if p.frames.waiting() {
							data = p.frames.next()
						} else if message, whole, err := p.frames.take(data); err != nil {
							t.Fatal(err)
						} else if whole {
							p.tls.step(t.Context(), message)
							data = p.frames.send(p.tls.records())
						} else {
							data = acknowledgement
						}
					}
					if _, ok := next.(Continue); !ok {
						t.Fatalf("after %d packets: %#v", packets, next)
					}
					if closed {
						c.Close()
					} else {
						time.Sleep(MaxLife + 1)
						synctest.Wait()
						if tunnel := c.talk.speak.(*tunnel); tunnel.tls.running {
							select {
							case <-tunnel.tls.done:
							default:
								t.Fatalf("after %d packets and %v the tunnel still waits", packets, MaxLife)
							}
						}
						_, next = p.send(data)
						refused(t, next)
					}
				})
			}
		}
	}
}

func TestAStepWhoseContextEndsIsAFailure(t *testing.T) {
	p := meet(t, tls.VersionTLS13, PEAPGTC)
	p.tls.step(context.Background(), nil)
	p.frames.size = maxFragment
	gone := errors.New("the request is gone")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(gone)
	for range 20 { // the answer may be there before anybody looks at ctx
		out, next := p.c.Step(ctx, respond(p.id, typePEAP, p.frames.send(p.tls.records())))
		if done, ok := next.(Done); ok {
			if !bytes.Equal(out, []byte{codeFailure, p.id, 0, 4}) || !errors.Is(done.Err, gone) {
				t.Fatalf("it ends with %x, %v", out, done.Err)
			}
			return
		}
		p = meet(t, tls.VersionTLS13, PEAPGTC)
		p.tls.step(context.Background(), nil)
		p.frames.size = maxFragment
	}
	t.Fatal("nothing ended with its context")
}

func TestAPeerMayLeaveTheHeaderOnInsidePEAP(t *testing.T) {
	p := meet(t, tls.VersionTLS12, PEAPGTC)
	p.handshake()
	p.listen()
	p.say(respond(9, typeIdentity, []byte("alice")))
	if _, next := p.say(respond(10, typeGTC, []byte("755224"))); next.(Ask).User != "alice" {
		t.Fatalf("it leads to %#v", next)
	}
}

func TestASuccessThatThePeerDoesNotBelieveIsNone(t *testing.T) {
	for says, accept := range map[string]bool{"\x03": true, "\x04": false, "": false, "\x02": false} {
		c, err := New(Config{Methods: []Method{MSCHAPv2}}, "")
		if err != nil {
			t.Fatal(err)
		}
		out, _ := c.Step(t.Context(), respond(1, typeIdentity, []byte(`CORP\alice`)))
		theirs := bytes.Repeat([]byte{7}, 16)
		nt, err := rfc2759.GenerateNTResponse(out[10:26], theirs, []byte("alice"), []byte("755224"))
		if err != nil {
			t.Fatal(err)
		}
		answer := append(append([]byte{2, out[6], 0, 54 + 10, 49}, theirs...), make([]byte, 8)...)
		answer = append(append(append(answer, nt...), 0), `CORP\alice`...)
		_, next := c.Step(t.Context(), respond(out[1], typeMSCHAPv2, answer))
		if !next.(Ask).Proof.Proves([]byte("755224")) {
			t.Fatal("the domain is part of the proof")
		}
		out, _ = c.Told(true)
		_, next = c.Step(t.Context(), respond(out[1], typeMSCHAPv2, []byte(says)))
		if done := next.(Done); done.Accept != accept || (len(done.MSK) == 64) != accept {
			t.Fatalf("%q leads to %#v", says, done)
		}
	}
}

// TestTheCallersSettingsDoNotWeakenATunnel has a configuration that would resume
// sessions, speak what is old, and be replaced.
func TestTheCallersSettingsDoNotWeakenATunnel(t *testing.T) {
	weak := serverTLS()
	weak.MinVersion = tls.VersionTLS10
	weak.SetSessionTicketKeys([][32]byte{{1}})
	weak.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		t.Error("the settings are replaced")
		return nil, nil
	}
	cache := tls.NewLRUClientSessionCache(2)
	open := func(version uint16) *peer {
		p := meet(t, version, TTLSPAP)
		p.c.talk.speak.(*tunnel).tls = newChannel(tls.Server, weak)
		p.tls = newChannel(tls.Client, &tls.Config{})
		p.tls.conn = tls.Client(pipe{p.tls}, &tls.Config{InsecureSkipVerify: true, ServerName: "example.org", MinVersion: version, MaxVersion: version, ClientSessionCache: cache})
		return p
	}
	for _, version := range versions {
		for range 2 {
			p := open(version)
			p.handshake()
			p.say(pap("alice", "755224")) // a ticket would come first
			if p.tls.state.DidResume {
				t.Fatalf("a session of %s is resumed", tls.VersionName(version))
			}
		}
	}
	p := open(tls.VersionTLS11)
	p.tls.step(t.Context(), nil)
	_, next := p.exchange(p.tls.records())
	if c, ok := next.(Continue); !ok || c.Err == nil || !strings.Contains(c.Err.Error(), "versions") {
		t.Fatalf("TLS 1.1 leads to %#v", next)
	}
}
