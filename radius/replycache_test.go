package radius

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	layeh "layeh.com/radius"
	"pgregory.net/rapid"

	"watchword/tokens"
)

func TestRetransmissionGetsTheSameReply(t *testing.T) {
	core := oneClient()
	used := false
	core.verify = func(context.Context, tokens.Attempt) (tokens.Result, error) {
		defer func() { used = true }()
		return tokens.Result{Accept: !used}, nil // single use, as the real core
	}
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	request := accessRequest(t, "alice", goodCode, secret)
	n.send(request)
	first := n.receive()
	if layeh.Code(first[0]) != layeh.CodeAccessAccept {
		t.Fatalf("%v", layeh.Code(first[0]))
	}
	for range 3 {
		n.send(request)
		if again := n.receive(); !bytes.Equal(first, again) {
			t.Fatalf("%x, then %x", first, again)
		}
	}
	if len(core.asked()) != 1 {
		t.Errorf("the core was asked %d times", len(core.asked()))
	}
	if got := h.metric(t, "watchword_radius_retransmissions_total", "answer=cached"); got != 3 {
		t.Errorf("%v counted", got)
	}
	// Retransmissions, however many, take no room from others.
	eventually(t, "nothing is in work", func() bool { return h.metric(t, "watchword_radius_in_work") == 0 })
	// From another port it is another request.
	other := gateway(t, "", h.address())
	if p := other.exchange(request, secret); p.Code != layeh.CodeAccessReject {
		t.Errorf("from another port: %v", p.Code)
	}
}

func TestRetransmissionWhileTheFirstIsInWorkIsAttached(t *testing.T) {
	core := oneClient()
	release := make(chan struct{})
	core.verify = func(context.Context, tokens.Attempt) (tokens.Result, error) {
		<-release
		return tokens.Result{Accept: true}, nil
	}
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	request := accessRequest(t, "alice", goodCode, secret)
	for range 4 {
		n.send(request)
	}
	eventually(t, "three are attached", func() bool {
		return h.metric(t, "watchword_radius_retransmissions_total", "answer=attached") == 3
	})
	n.silence()
	close(release)
	first := n.receive()
	if authenticReply(t, first, request, secret).Code != layeh.CodeAccessAccept {
		t.Errorf("%x", first)
	}
	n.silence() // one request, one reply
	eventually(t, "nothing is in work", func() bool { return h.metric(t, "watchword_radius_in_work") == 0 })
	n.send(request)
	if again := n.receive(); !bytes.Equal(first, again) {
		t.Errorf("%x, then %x", first, again)
	}
	if len(core.asked()) != 1 {
		t.Errorf("the core was asked %d times", len(core.asked()))
	}
}

func TestOtherPacketUnderAUsedAuthenticatorIsDropped(t *testing.T) {
	core := oneClient()
	release := make(chan struct{})
	core.verify = func(_ context.Context, a tokens.Attempt) (tokens.Result, error) {
		<-release
		return tokens.Result{Accept: a.User == "mallory"}, nil
	}
	h := serve(t, core, Config{})
	n := gateway(t, "", h.address())
	victim := unsigned(t, "victim", "000000", secret)
	mallory := unsigned(t, "mallory", goodCode, secret)
	mallory.Identifier, mallory.Authenticator = victim.Identifier, victim.Authenticator
	request, forged := signed(t, victim, secret), signed(t, mallory, secret)
	n.send(request)
	eventually(t, "it is in work", func() bool { return h.metric(t, "watchword_radius_in_work") == 1 })
	n.send(forged) // in work
	h.awaitDropped(t, reusedAuthenticator, 1)
	close(release)
	if p := authenticReply(t, n.receive(), request, secret); p.Code != layeh.CodeAccessReject {
		t.Errorf("%v", p.Code)
	}
	n.send(forged) // answered
	h.awaitDropped(t, reusedAuthenticator, 2)
	n.silence()
	if len(core.asked()) != 1 {
		t.Errorf("the core was asked %d times", len(core.asked()))
	}
	if h.log.lines("cause=reused_authenticator", "client=vpn", "update its software") != 1 {
		t.Errorf("the log:\n%s", h.log)
	}
}

func TestReplyThatCouldNotBeSentIsKept(t *testing.T) {
	h := serve(t, oneClient(), Config{})
	request := accessRequest(t, "alice", goodCode, secret)
	for range 3 {
		h.deliver(newRequest(), request, &outbox{fail: errors.New("no route to host")})
	}
	if h.metric(t, "watchword_radius_unsent_replies_total") != 3 || h.log.lines("WARN", "could not be sent", "no route to host") != 1 {
		t.Errorf("the log:\n%s", h.log)
	}
	out := &outbox{}
	h.deliver(newRequest(), request, out)
	if len(out.sent) != 1 || layeh.Code(out.sent[0][0]) != layeh.CodeAccessAccept || len(h.core.asked()) != 1 {
		t.Errorf("then %x, the core was asked %d times", out.sent, len(h.core.asked()))
	}
}

func TestReplyIsForgottenAfterItsLife(t *testing.T) {
	h := serve(t, oneClient(), Config{ReplyLife: 60 * time.Millisecond})
	n := gateway(t, "", h.address())
	request := accessRequest(t, "alice", goodCode, secret)
	n.exchange(request, secret)
	time.Sleep(80 * time.Millisecond)
	n.exchange(request, secret)
	if len(h.core.asked()) != 2 {
		t.Errorf("the core was asked %d times", len(h.core.asked()))
	}
	// Memory comes back without further traffic too.
	eventually(t, "nothing is held", func() bool { return h.metric(t, "watchword_radius_reply_cache_entries") == 0 })
}

func TestReplyCacheIsBounded(t *testing.T) {
	h := serve(t, oneClient(), Config{MaxReplies: 10})
	r, out := newRequest(), &outbox{}
	var requests [][]byte
	for range 25 {
		requests = append(requests, accessRequest(t, "alice", goodCode, secret))
		h.deliver(r, requests[len(requests)-1], out)
		r = newRequest()
	}
	if n, size := h.cache.held(); n != 10 || size != 10*(entryOverhead+38) {
		t.Errorf("%d replies of %d bytes are held", n, size)
	}
	h.deliver(r, requests[24], out) // held
	if len(h.core.asked()) != 25 {
		t.Error("the newest was forgotten")
	}
	h.deliver(r, requests[14], out) // not held any more
	if len(h.core.asked()) != 26 {
		t.Error("the oldest was kept")
	}
	if len(out.sent) != 27 {
		t.Errorf("%d replies", len(out.sent))
	}
}

// The cache behaves as a plain model of what was promised.
func TestReplyCacheKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const life = 30 * time.Second
		maxEntries := rapid.IntRange(1, 6).Draw(t, "bound")
		maxSize := rapid.IntRange(1, 8).Draw(t, "size bound") * (entryOverhead + 30)
		c := newReplyCache(life, maxEntries, maxSize)
		now := c.start

		type known struct {
			sum   [32]byte
			work  *request
			reply []byte
			until time.Time
		}
		model := map[cacheKey]*known{}
		var order []cacheKey // of the answered, oldest first
		forget := func() { delete(model, order[0]); order = order[1:] }
		size := func() (n int) {
			for _, k := range order {
				n += entryOverhead + len(model[k].reply)
			}
			return n
		}
		key := func() cacheKey {
			var k cacheKey
			k[0] = byte(rapid.IntRange(0, 8).Draw(t, "key"))
			return k
		}
		inWork := func() []cacheKey {
			var keys []cacheKey
			for i := range 9 {
				var k cacheKey
				k[0] = byte(i)
				if m := model[k]; m != nil && m.work != nil {
					keys = append(keys, k)
				}
			}
			return keys
		}
		pathOf := func(n int) path {
			return path{peer: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(n))}
		}
		arrivals := 0

		t.Repeat(map[string]func(*rapid.T){
			"arrive": func(t *rapid.T) {
				k := key()
				var sum [32]byte
				sum[0] = byte(rapid.IntRange(0, 1).Draw(t, "body"))
				room := rapid.IntRange(0, 4).Draw(t, "room") > 0
				arrivals++
				r := &request{path: pathOf(arrivals), key: k, sum: sum}
				want := isNew
				var wantReply []byte
				switch m := model[k]; {
				case m == nil && !room:
					want = isUnwelcome
				case m == nil:
					model[k] = &known{sum: sum, work: r}
				case m.sum != sum:
					want = isImpostor
				case m.work != nil:
					want = isInWork
				default:
					want, wantReply = isAnswered, m.reply
				}
				got, reply := c.begin(r, room, now)
				if got != want || !bytes.Equal(reply, wantReply) {
					t.Fatalf("standing %d with %q, want %d with %q", got, reply, want, wantReply)
				}
				if want == isInWork && model[k].work.path != r.path {
					t.Fatal("the answer does not go where it is waited for")
				}
			},
			"finish": func(t *rapid.T) {
				keys := inWork()
				if len(keys) == 0 {
					t.Skip("nothing in work")
				}
				k := rapid.SampledFrom(keys).Draw(t, "finished")
				m := model[k]
				r := m.work
				reply := bytes.Repeat([]byte{byte(arrivals)}, rapid.IntRange(20, 100).Draw(t, "size"))
				if to := c.finish(r, reply, now); to != r.path {
					t.Fatal("the reply is sent elsewhere")
				}
				m.work, m.reply, m.until = nil, reply, now.Add(life)
				order = append(order, k)
				for len(order) > maxEntries || size() > maxSize {
					forget()
				}
			},
			"abandon": func(t *rapid.T) {
				keys := inWork()
				if len(keys) == 0 {
					t.Skip("nothing in work")
				}
				k := rapid.SampledFrom(keys).Draw(t, "abandoned")
				c.abandon(model[k].work)
				delete(model, k)
			},
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 20).Draw(t, "seconds")) * time.Second)
				for len(order) > 0 && !model[order[0]].until.After(now) {
					forget()
				}
				if rapid.Bool().Draw(t, "sweep") {
					c.sweep(now)
				}
			},
			"": func(t *rapid.T) {
				c.sweep(now)
				if n, s := c.held(); n != len(order) || s != size() || n > maxEntries || s > maxSize {
					t.Fatalf("%d replies of %d bytes held, want %d of %d", n, s, len(order), size())
				}
				shard := &c.shards[0]
				if got, want := len(shard.work)+len(shard.places), len(model); got != want {
					t.Fatalf("%d entries, want %d", got, want)
				}
				if len(shard.long) > len(order) || len(shard.ring) > maxEntries+1 {
					t.Fatalf("%d long replies and a ring of %d for %d entries", len(shard.long), len(shard.ring), len(order))
				}
			},
		})
	})
}

func TestCacheKeyTellsRequestsApart(t *testing.T) {
	wire := func(id byte, authenticator byte) *packet {
		b := make([]byte, 20)
		b[0], b[1], b[4] = 1, id, authenticator
		binary.BigEndian.PutUint16(b[2:], 20)
		return &packet{wire: b}
	}
	seen := map[cacheKey]string{}
	for _, from := range []string{"192.0.2.1:1", "192.0.2.1:256", "192.0.2.2:1", "[2001:db8::1]:1"} {
		for id := range byte(2) {
			for a := range byte(2) {
				var k cacheKey
				k.set(netip.MustParseAddrPort(from), wire(id, a))
				name := fmt.Sprint(from, id, a)
				if other, ok := seen[k]; ok {
					t.Errorf("%s and %s have the same key", name, other)
				}
				seen[k] = name
			}
		}
	}
}
