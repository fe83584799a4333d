package eap

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// FuzzPackets drives a conversation with arbitrary packets, each with a byte of length
// before it. With match they have the right identifier. Nothing must be accepted but
// what the core accepts, and everything that goes out must be EAP.
func FuzzPackets(f *testing.F) {
	join := func(packets ...[]byte) (b []byte) {
		for _, p := range packets {
			b = append(append(b, byte(len(p))), p...)
		}
		return b
	}
	identity := respond(0, typeIdentity, []byte("alice"))
	f.Add(join(identity, respond(0, typeGTC, []byte("755224"))), true, false)
	f.Add(join(identity, respond(0, typeNak, []byte{typeMSCHAPv2}), respond(0, typeMSCHAPv2, append([]byte{2, 0, 0, 59, 49}, make([]byte, 54)...)), respond(0, typeMSCHAPv2, []byte{3})), true, true)
	f.Add(join(nil, identity, respond(0, typeNak, []byte{typePEAP}), respond(0, typePEAP, []byte{flagLength | flagMore, 0, 0, 0, 9, 22, 3, 1})), true, true)
	f.Add(join(identity, respond(0, typeNak, []byte{typeTTLS}), respond(0, typeTTLS, []byte{0, 21, 3, 1, 0, 2, 2, 48})), true, true)
	f.Fuzz(func(t *testing.T, packets []byte, match, accept bool) {
		c, err := New(Config{Methods: []Method{GTC, MSCHAPv2, PEAPGTC, TTLSPAP}, TLS: serverTLS}, "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		told := false
		for len(packets) > 0 {
			n := min(int(packets[0]), len(packets)-1)
			in := bytes.Clone(packets[1 : 1+n])
			packets = packets[1+n:]
			if match && len(in) > 1 {
				in[1] = c.id
			}
			out, next := c.Step(context.Background(), in)
			check(t, out, next, told)
			again, same := c.Step(context.Background(), in)
			if !bytes.Equal(out, again) || reflect.TypeOf(same) != reflect.TypeOf(next) {
				t.Fatalf("%x is answered with %x, and then with %x", in, out, again)
			}
			if a, ok := next.(Ask); ok {
				if a.Proof != nil {
					accept = a.Proof.Proves([]byte("755224"))
				}
				told = accept
				out, next = c.Told(accept)
				check(t, out, next, told)
			}
		}
	})
}

// check holds what goes out against what comes next.
func check(t *testing.T, out []byte, next Next, told bool) {
	t.Helper()
	ok := false
	switch next := next.(type) {
	case Continue:
		ok = len(out) >= dataAt && out[0] == codeRequest && int(binary.BigEndian.Uint16(out[2:])) == len(out)
	case Done:
		ok = len(out) == headerSize && next.Accept == (out[0] == codeSuccess) && (!next.Accept || told) && (next.MSK == nil || next.Accept)
	case Ask, Discard:
		ok = out == nil
	}
	if !ok {
		t.Fatalf("%x goes out, %#v is next, told %t", out, next, told)
	}
}

// FuzzTLS gives a tunnel arbitrary fragments, whole or cut, at its start or behind a
// real handshake: nothing of it can be a code.
func FuzzTLS(f *testing.F) {
	f.Add([]byte{22, 3, 1, 0, 5, 1, 0, 0, 1, 0}, byte(3), false)
	f.Add([]byte{23, 3, 3, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}, byte(0), true)
	f.Add([]byte{21, 3, 3, 0, 2, 1, 0}, byte(0), true)
	hello := newChannel(tls.Client, &tls.Config{InsecureSkipVerify: true})
	hello.step(context.Background(), nil)
	f.Add(hello.records(), byte(200), false)
	hello.close()
	f.Fuzz(func(t *testing.T, message []byte, size byte, open bool) {
		p := meet(t, tls.VersionTLS13, TTLSPAP)
		if open {
			p.handshake()
		}
		p.frames.size = minFragment + int(size)
		p.frames.out, p.frames.cut = message, false
		data := p.frames.next()
		for range MaxRounds {
			out, next := p.c.Step(context.Background(), respond(p.id, p.kind, data))
			check(t, out, next, false)
			if _, asks := next.(Ask); asks {
				t.Fatal("a code came out of nothing")
			}
			if _, goesOn := next.(Continue); !goesOn || !p.frames.waiting() {
				return
			}
			p.got(out)
			data = p.frames.next()
		}
	})
}

// FuzzInside gives arbitrary bytes to what speaks in the tunnels.
func FuzzInside(f *testing.F) {
	f.Add(pap("alice", "755224"), true)
	f.Add(avp{0, avpEAPMessage, true, respond(0, typeIdentity, []byte("alice"))}.append(nil), true)
	f.Add(avp{vendorMicrosoft, avpMSCHAP2Answer, true, make([]byte, 50)}.append(nil), true)
	f.Add([]byte("\x01alice"), false)
	f.Add(respond(1, typeIdentity, []byte("alice")), false)
	f.Fuzz(func(t *testing.T, plain []byte, ttlsInside bool) {
		c, err := New(Config{Methods: []Method{TTLSPAP, TTLSGTC, PEAPGTC, PEAPMSCHAPv2}, TLS: serverTLS}, "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var s speaker = &ttls{c: c, methods: []Method{TTLSPAP, TTLSGTC}}
		if !ttlsInside {
			s = &peap{c: c, talk: newDialogue(c, offers([]Method{PEAPGTC, PEAPMSCHAPv2}, inside))}
			s.begin()
		}
		for range 3 {
			m := s.respond(context.Background(), plain)
			if m.asks != nil && (m.asks.User == "" || !nameable([]byte(m.asks.User)) || len(m.asks.Code) > maxCode) {
				t.Fatalf("the core is asked about %q", m.asks.User)
			}
			if m.ends != nil && m.ends.Accept {
				t.Fatal("it is accepted without a question")
			}
			if m.ends != nil || m.asks != nil || m.ignore {
				return
			}
		}
		for a, err := range avps(plain) {
			if err == nil && len(a.value) > len(plain)-8 {
				t.Fatalf("an AVP of %d bytes in %d", len(a.value), len(plain))
			}
		}
	})
}

// TestWhatIsCutIsPutTogetherAgain holds the two halves of fragments against each other.
func TestWhatIsCutIsPutTogetherAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cuts := fragments{size: rapid.IntRange(minFragment, maxFragment).Draw(t, "size")}
		var joins fragments
		for _, message := range rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 3000), 1, 4).Draw(t, "messages") {
			data := cuts.send(message)
			for {
				if len(data)+dataAt > cuts.size {
					t.Fatalf("a packet of %d bytes", len(data)+dataAt)
				}
				got, whole, err := joins.take(data)
				if err != nil {
					t.Fatal(err)
				}
				if whole != !cuts.waiting() {
					t.Fatal("the ends differ")
				}
				if whole {
					if !bytes.Equal(got, message) {
						t.Fatalf("%d bytes became %d", len(message), len(got))
					}
					break
				}
				data = cuts.next()
			}
		}
	})
}

func TestAVPsAreReadAsTheyAreWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) avp {
			return avp{rapid.Uint32().Draw(t, "vendor"), rapid.Uint32().Draw(t, "code"), rapid.Bool().Draw(t, "mandatory"), rapid.SliceOf(rapid.Byte()).Draw(t, "value")}
		}), 0, 5).Draw(t, "avps")
		var b []byte
		for _, a := range all {
			b = a.append(b)
		}
		if len(b)%4 != 0 {
			t.Fatalf("%d bytes", len(b))
		}
		i := 0
		for a, err := range avps(b) {
			if err != nil {
				t.Fatal(err)
			}
			if w := all[i]; a.vendor != w.vendor || a.code != w.code || a.mandatory != w.mandatory || !bytes.Equal(a.value, w.value) {
				t.Fatalf("%+v is read as %+v", w, a)
			}
			i++
		}
		if i != len(all) {
			t.Fatalf("%d of %d are read", i, len(all))
		}
	})
}
