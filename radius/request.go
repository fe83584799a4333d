package radius

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"time"

	"watchword/tokens"
)

// These name this room in attempts and audit: what comes from the network, and trials.
const (
	transport      = "radius"
	transportTrial = "radius-test"
)

// request is one datagram and what is known about it. It is used again.
type request struct {
	buf      [maxPacketSize]byte
	packet   packet // a view of buf
	path     path   // while in the cache's work, under the lock of its shard
	client   *tokens.RADIUSClient
	source   string // the peer's address
	from     netip.Addr
	tally    *tally
	replies  *replies
	key      cacheKey
	sum      [sha256.Size]byte // of the packet
	received time.Time
	test     *trial // nil: it came from the network
	digest   *digester
	extra    []byte // attributes of the reply, beside those that each has
	out      []byte // the reply

	asked         tokens.Attempt
	by            *method // by which it was read
	unread        error   // why there is no code in asked
	outcome       outcome // once it is decided, and
	result        tokens.Result
	before, after *request // that wait as well, in the hands of their deadline
}

func newRequest() *request { return &request{digest: newDigester()} }

// receive looks at a datagram of n bytes in r.buf and answers whether r was
// taken: the caller must not touch it any more. What is not taken is answered
// already, or dropped and counted.
func (s *Server) receive(r *request, n int) (taken bool) {
	now := time.Now()
	r.received = now
	if from := r.path.peer.Addr().Unmap(); from != r.from {
		r.from = from
		r.source = from.String()
	}
	client, ok := r.test.of()
	if !ok {
		client, ok = s.core.ClientFor(r.from.WithZone(""))
	}
	if !ok {
		r.client, r.packet = nil, packet{} // of the one before
		s.drops.fromUnknown(r, now)
		return false
	}
	r.client = client
	r.tally = s.metrics.client(client.Name)
	r.replies = s.repliesTo(client, r.tally)
	if c := r.inspect(n); c != 0 {
		s.drops.fromClient(r, c, now)
		return false
	}
	if r.packet.code() == codeStatusServer {
		s.status(r, now)
		return false
	}

	r.key.set(r.path.peer, &r.packet)
	r.sum = sha256.Sum256(r.packet.wire)
	limit := r.bucket()
	welcome := limit == nil || limit.take(now.Sub(s.cache.start), r.client.Rate)
	room := welcome && s.gate.enter()
	standing, reply := s.cache.begin(r, room, now)
	if standing == isNew {
		s.work.Add(1)
		s.ask(r)
		return true
	}
	if room {
		s.gate.leave()
	}
	if limit != nil && welcome { // what is sent again is not limited: it costs the core nothing
		limit.back(r.client.Rate)
	}
	switch standing {
	case isAnswered:
		s.metrics.cached.Inc()
		s.hub.ended(r, sightRepeated, reply[0], time.Since(now))
		s.send(reply, &r.path)
	case isInWork:
		s.metrics.attached.Inc()
		s.hub.ended(r, sightAttached, 0, 0)
	case isImpostor:
		s.drops.fromClient(r, reusedAuthenticator, now)
	case isUnwelcome:
		if !welcome {
			s.drops.fromClient(r, rateLimited, now)
			break
		}
		s.drops.fromClient(r, overload, now)
	}
	return false
}

// inspect checks a datagram as far as it can be without state, and proves that
// it came from the client where it carries a proof. It answers the cause to
// drop it, or none.
func (r *request) inspect(n int) cause {
	p := &r.packet
	if c := p.parse(r.buf[:n]); c != 0 {
		return c
	}
	switch {
	case len(r.client.Plain) == 0:
		return noSecret // anyone could sign
	case r.replies.broken:
		return badReplies
	case !p.answerable(r.replies.longest):
		return malformed
	}
	required := r.client.RequireMA
	switch p.code() {
	case codeAccessRequest:
		// With an EAP-Message it is always required, and where there is no
		// password of any kind nothing else ties the packet to the secret (RFC
		// 3579, section 3.3, note 1).
		if p.eap || p.msVersion == 0 && p.userPassword == nil && p.chapPassword == nil {
			required = true
		}
	case codeStatusServer:
		required = true // RFC 5997, section 3
	default:
		return unsupportedCode
	}
	if p.ma == 0 {
		switch {
		case required:
			return missingMA
		case p.proxyState > 0 && !r.client.UnsignedProxyState:
			return unsignedProxyState
		}
		return 0
	}
	if !r.digest.authentic(r.client.Plain, p) {
		return wrongMA
	}
	return 0
}

// ask puts a request that was taken to the core. What the core answers goes to
// whoever answers requests: it comes for a batch at once, and neither a goroutine for
// each is woken for it nor is the core kept.
func (s *Server) ask(r *request) {
	s.attempt(r)
	d := s.deadlines.at(r.received)
	if !d.enter(r) {
		s.giveUp(r, d.ctx.Err())
		return
	}
	// If it is given up meanwhile r stays as it is.
	s.core.Ask(d.ctx, r.client.Principal().From(r.source), r.asked, func(result tokens.Result, err error) {
		if d.leave(r) {
			r.outcome, r.result = s.outcome(r, result, err), result
			s.decided <- r
		}
	})
}

// giveUp ends the work on a request that the core has not answered in time. What
// the core says of it later is not heard; so r is not used again.
func (s *Server) giveUp(r *request, why error) {
	s.fault(r, why)
	r.tally.access[unanswered].Inc()
	s.hub.ended(r, outcomeLabels[unanswered], 0, time.Since(r.received))
	s.cache.abandon(r)
	s.gate.leave()
	s.work.Done()
}

// answers answers what the core has decided, until no more comes.
func (s *Server) answers() {
	for r := range s.decided {
		s.answer(r)
	}
}

// answer sends the reply to a request that was decided.
func (s *Server) answer(r *request) {
	defer s.work.Done()
	defer s.gate.leave()
	r.extra = r.extra[:0]
	r.tally.access[r.outcome].Inc()
	switch r.outcome {
	case accepted:
		r.answers(true)
		r.extra = r.replies.accept(r.extra, r.result.Groups)
		s.conclude(r, codeAccessAccept)
	case rejected:
		r.answers(false)
		r.extra = r.replies.reject(r.extra)
		s.conclude(r, codeAccessReject)
	case challenged:
		r.extra = r.replies.challenge(r.extra, r.result.Challenge)
		s.conclude(r, codeChallenge)
	default:
		s.hub.ended(r, outcomeLabels[r.outcome], 0, time.Since(r.received))
		s.cache.abandon(r)
	}
	s.recycle(r)
}

// conclude remembers the reply, so that a retransmission gets it too, and sends it.
func (s *Server) conclude(r *request, code byte) {
	reply := r.reply(code)
	now := time.Now()
	to := s.cache.finish(r, reply, now)
	s.metrics.seconds.Observe(now.Sub(r.received).Seconds())
	s.hub.ended(r, outcomeLabels[r.outcome], code, now.Sub(r.received))
	s.send(reply, &to)
}

func (s *Server) recycle(r *request) {
	r.client, r.tally, r.replies, r.packet = nil, nil, nil, packet{}
	r.asked, r.by, r.unread, r.result, r.test = tokens.Attempt{}, nil, nil, tokens.Result{}, nil
	s.requests.Put(r)
}

// send sends a reply. A refusal is counted, and the gateway's retransmission
// gets the reply from the cache.
func (s *Server) send(reply []byte, to *path) {
	if err := to.via.send(reply, to); err != nil {
		s.metrics.unsent.Inc()
		if speak, unsaid := s.unsent.may(to.peer.Addr(), time.Now()); speak {
			s.log.LogAttrs(context.Background(), slog.LevelWarn, "RADIUS reply could not be sent; see routes and packet filters",
				slog.String("address", to.peer.Addr().String()), slog.Any("error", err), slog.Int64("since_last", unsaid))
		}
	}
}
