package radius

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"
	"time"

	layeh "layeh.com/radius"
	"layeh.com/radius/rfc2865"
	"layeh.com/radius/rfc2866"
	"layeh.com/radius/rfc2869"

	"watchword/tokens"
)

// mutants is how many packets of each kind are tried.
const mutants = 10_000

// originals are packets of each kind, right ones where there is such a thing.
func originals(t *testing.T) map[string][]byte {
	all := map[string][]byte{}
	for method, packet := range shown(t, goodCode) {
		all[string(method)] = packet
	}
	eap := unsigned(t, "alice", "x", secret)
	eap.Del(rfc2865.UserPassword_Type)
	eap.Add(rfc2869.EAPMessage_Type, append([]byte{2, 1, 0, 10, 1}, "alice"...))
	all["EAP"] = signed(t, eap, secret)
	answer := unsigned(t, "alice", goodCode, secret)
	answer.Add(rfc2865.State_Type, longState)
	answer.Add(rfc2865.ProxyState_Type, []byte("one"))
	answer.Add(rfc2865.ProxyState_Type, []byte("two"))
	all["answer to a challenge, by a proxy"] = signed(t, answer, secret)
	for name, code := range map[string]layeh.Code{
		"Status-Server": layeh.CodeStatusServer, "Accounting-Request": layeh.CodeAccountingRequest, "CoA-Request": layeh.CodeCoARequest,
		"Disconnect-Request": layeh.CodeDisconnectRequest, "Access-Accept": layeh.CodeAccessAccept, "Access-Challenge": layeh.CodeAccessChallenge,
	} {
		p := layeh.New(code, []byte(secret))
		if err := rfc2865.UserName_SetString(p, "alice"); err != nil {
			t.Fatal(err)
		}
		if code == layeh.CodeAccountingRequest {
			p.Add(rfc2866.AcctSessionID_Type, []byte("17"))
		}
		all[name] = signed(t, p, secret)
	}
	return all
}

// mutate changes a packet in one to four places: octets, sizes, attributes that are
// lost, twice, swapped or made up, a tail that is cut off or too long.
func mutate(r *rand.Rand, packet []byte) []byte {
	b := bytes.Clone(packet)
	attribute := func() (from, to int) { // one of them, as far as they can be told apart
		var starts []int
		at := headerSize
		for at+2 <= len(b) && int(b[at+1]) >= 2 && at+int(b[at+1]) <= len(b) {
			starts = append(starts, at)
			at += int(b[at+1])
		}
		if len(starts) == 0 {
			return len(b), len(b)
		}
		from = starts[r.IntN(len(starts))]
		return from, from + int(b[from+1])
	}
	for range 1 + r.IntN(4) {
		if len(b) == 0 {
			break
		}
		switch from, to := attribute(); r.IntN(10) {
		case 0:
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		case 1:
			b[r.IntN(len(b))] = byte(r.Uint32())
		case 2: // a size, of the packet or of an attribute
			if from < len(b) && r.IntN(2) == 0 {
				b[from+1] = byte(r.Uint32())
			} else if len(b) >= 4 {
				binary.BigEndian.PutUint16(b[2:], uint16(r.IntN(2*maxPacketSize)))
			}
		case 3:
			b = b[:r.IntN(len(b)+1)]
		case 4:
			tail := make([]byte, r.IntN(64))
			for i := range tail {
				tail[i] = byte(r.Uint32())
			}
			b = append(b, tail...)
		case 5: // lost
			b = append(b[:from], b[to:]...)
		case 6: // twice
			b = append(b, b[from:to]...)
		case 7: // of another kind
			if from < len(b) {
				b[from] = []byte{attrUserName, attrUserPassword, attrCHAPPassword, attrCHAPChallenge, attrState, attrVendorSpecific, attrProxyState, attrEAPMessage, attrMessageAuthenticator, 0, 255}[r.IntN(11)]
			}
		case 8: // the last before the first
			if from > headerSize && len(b) > headerSize {
				moved := bytes.Clone(b[from:to])
				rest := append(bytes.Clone(b[headerSize:from]), b[to:]...)
				b = append(append(b[:headerSize], moved...), rest...)
			}
		case 9: // another kind of packet
			b[0] = byte(r.IntN(60))
		}
	}
	if len(b) >= 4 && r.IntN(2) == 0 { // so that it is not the size alone
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	}
	if r.IntN(2) == 0 { // and not the signature alone
		resign(b)
	}
	return b[:min(len(b), maxPacketSize)]
}

func TestTenThousandMutantsOfEachPacketAreSurvived(t *testing.T) {
	for _, require := range []bool{true, false} {
		core := asking(tokens.DialoguePIN)
		core.silent = true
		core.clients[0].RequireMA, core.clients[0].Methods = require, everyMethod
		core.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
			switch {
			case a.Proof != nil:
				return tokens.Result{Accept: a.Proof.Proves([]byte(goodCode))}, nil
			case len(a.Code) == 6:
				return tokens.Result{Challenge: &tokens.Challenge{Question: tokens.QuestionCode, State: longState}}, nil
			}
			return tokens.Result{Accept: a.Code == goodCode}, nil
		}
		s, err := New(core, Config{MaxReplies: 256, ReplyLife: time.Nanosecond, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		go s.answers()
		w, err := s.Watch(Sighted{}) // who looks on survives it as well
		if err != nil {
			t.Fatal(err)
		}
		round := func(seed uint64) (answered int) {
			random := rand.New(rand.NewPCG(seed, 3596))
			r := newRequest()
			for name, packet := range originals(t) {
				for i := range mutants {
					datagram := mutate(random, packet)
					out := &outbox{}
					n := copy(r.buf[:], datagram)
					r.path = path{via: out, peer: netip.MustParseAddrPort("127.0.0.1:50000")}
					if s.receive(r, n) {
						s.work.Wait()
						r = s.requests.Get().(*request)
					}
					switch len(out.sent) {
					case 0:
					case 1:
						answered++
						q := authenticRequest(t, datagram, require)
						if reply := authenticReply(t, out.sent[0], q, secret); q[0] == codeStatusServer && reply.Code != layeh.CodeAccessAccept {
							t.Fatalf("%s, mutant %d: %v", name, i, reply.Code)
						}
					default:
						t.Fatalf("%s, mutant %d: %d replies to %x", name, i, len(out.sent), datagram)
					}
				}
			}
			return answered
		}
		if n := round(1); n < mutants {
			t.Errorf("%d were answered: they are too badly changed to show anything", n)
		}
		goroutines, memory := runtime.NumGoroutine(), live()
		round(2)
		time.Sleep(10 * time.Millisecond)
		if n := runtime.NumGoroutine(); n > goroutines {
			t.Errorf("%d goroutines, and %d before", n, goroutines)
		}
		if grown := live() - memory; grown > 2<<20 {
			t.Errorf("%d bytes more are held than before", grown)
		}
		w.Close()
		s.Shutdown(context.Background())
		close(s.decided)
	}
}

// live is how many bytes are held.
func live() int64 {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
