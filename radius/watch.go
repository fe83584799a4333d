package radius

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	layeh "layeh.com/radius"

	"watchword/tokens"
)

// Sight is what a watcher is shown of one request. Nothing secret is in it: neither a
// password nor a proof, no State and no shared secret. User and NAS are as the gateway
// sent them, and may hold anything that is UTF-8; of a packet that was dropped nothing
// proves that the gateway sent it at all.
type Sight struct {
	Time    time.Time
	Client  string // empty: no client has the address
	Address string
	User    string // empty: the request names none, or was not read so far
	NAS     string
	Method  string        // pap, chap, mschap, mschapv2, eap, status; empty: none, or not read so far
	Outcome string        // as in watchword_radius_requests_total, or dropped, repeated, attached
	Reply   string        // the name of the reply's code; empty: there is none
	Cause   string        // why it was dropped, as in watchword_radius_dropped_total
	Took    time.Duration // from reading the request until its reply was ready to send
	Test    bool          // an administrator's test, and no gateway's request
	Missed  int64         // how many the watcher was not shown before it, as it was too slow
}

// The outcomes of sights that requests in metrics do not have.
const (
	sightDropped  = "dropped"
	sightRepeated = "repeated" // a retransmission, answered as the first was
	sightAttached = "attached" // a retransmission of what is in work
)

// Sighted selects what a watcher is shown. The zero value selects all.
type Sighted struct {
	Realm  string // of clients, and of the users of one whose users' names say the realm; empty: all, and addresses of no client
	Client string // its name
	User   string // as sent, or without the realm by the client's rule; upper and lower case are one
}

// A watcher who reads too slowly is not shown what comes beyond watchBuffer.
const (
	maxWatchers = 16
	watchBuffer = 256
)

// ErrWatchers is Watch's word when there are too many watchers.
var ErrWatchers = errors.New("as many watch as can at once")

// hub shows what happens to requests to who watches. While nobody does, it costs one
// look at a number for each.
type hub struct {
	watched atomic.Int32

	mu     sync.Mutex
	all    map[*Watch]struct{}
	closed bool
}

// Watch is one who watches. Close ends it.
type Watch struct {
	hub    *hub
	what   Sighted
	sights chan Sight
	missed int64 // under the hub's lock
}

// Watch shows requests as they come, until the Watch is closed or the server reads no
// more. What comes before is not shown.
func (s *Server) Watch(what Sighted) (*Watch, error) {
	h := &s.hub
	if what.User != "" {
		what.User = folded(what.User)
	}
	w := &Watch{hub: h, what: what, sights: make(chan Sight, watchBuffer)}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed:
		return nil, ErrServerClosed
	case len(h.all) >= maxWatchers:
		return nil, ErrWatchers
	}
	if h.all == nil {
		h.all = map[*Watch]struct{}{}
	}
	h.all[w] = struct{}{}
	h.watched.Store(int32(len(h.all)))
	return w, nil
}

// Next waits for the next request. It fails with ErrServerClosed at the end, and with
// ctx's error when that ends first.
func (w *Watch) Next(ctx context.Context) (Sight, error) {
	select {
	case v, open := <-w.sights:
		if !open {
			return Sight{}, ErrServerClosed
		}
		return v, nil
	case <-ctx.Done():
		return Sight{}, ctx.Err()
	}
}

// Close ends watching. It may be called more than once.
func (w *Watch) Close() {
	h := w.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.all, w)
	h.watched.Store(int32(len(h.all)))
}

// close ends the watching of all: no more comes.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for w := range h.all {
		close(w.sights)
	}
	h.all = nil
	h.watched.Store(0)
}

// dropped shows a packet of a client that was dropped.
func (h *hub) dropped(r *request, c cause) {
	r.test.unanswered(sightDropped, c)
	if h.watched.Load() != 0 {
		h.show(r, Sight{Outcome: sightDropped, Cause: remedies[c].label})
	}
}

// ended shows a request that was decided, or is a retransmission. Without a code it
// stays unanswered.
func (h *hub) ended(r *request, outcome string, code byte, took time.Duration) {
	if code == 0 {
		r.test.unanswered(outcome, 0)
	}
	if h.watched.Load() == 0 {
		return
	}
	v := Sight{Outcome: outcome, Took: took}
	if code != 0 {
		v.Reply = layeh.Code(code).String()
	}
	h.show(r, v)
}

// show completes a sight and shows it to those who selected it.
func (h *hub) show(r *request, v Sight) {
	v.Time, v.Address = r.received, r.source
	v.Test = r.test != nil
	p := &r.packet
	v.Method = p.method()
	v.User = strings.ToValidUTF8(string(p.userName), "\ufffd")
	v.NAS = strings.ToValidUTF8(r.origin().NAS, "\ufffd")
	own, user := "", ""
	if r.client != nil {
		v.Client, own = r.client.Name, r.client.Realm
		_, user = r.client.SplitName(v.User)
	}
	realm := own
	if r.client != nil && r.client.NameRule == tokens.NameRealm {
		said, _ := r.client.SplitName(v.User)
		realm, _ = tokens.ParseRealm(said) // with an error none, which nobody of one realm is shown
	}
	raw, user := folded(v.User), folded(user)
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.all {
		switch {
		case w.what.Realm != "" && (w.what.Realm != own || w.what.Realm != realm),
			w.what.Client != "" && w.what.Client != v.Client,
			w.what.User != "" && w.what.User != raw && w.what.User != user:
			continue
		}
		v.Missed = w.missed
		select {
		case w.sights <- v:
			w.missed = 0
		default:
			w.missed++
		}
	}
}

// folded is a name as names are compared, or itself where it can be none.
func folded(name string) string {
	if key, err := tokens.FoldName(name); err == nil {
		return key
	}
	return name
}

// method is how the packet proves a user, as far as it was read.
func (p *packet) method() string {
	for i := range methods {
		if methods[i].speaks(p) {
			return string(methods[i].name)
		}
	}
	switch {
	case p.eap:
		return "eap"
	case len(p.wire) > 0 && p.code() == codeStatusServer:
		return "status"
	}
	return ""
}
