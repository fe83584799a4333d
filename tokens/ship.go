package tokens

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// How the audit is told to sinks.
//
// Each node has a goroutine for each sink, and of these one at a time holds the
// sink's lease in the database. It reads what was not told, chain by chain in order,
// hands it over, and, once that is safe at the other end, notes how far it came.
// Whatever ends in between, the next one begins where it was noted: a record may be
// told twice, and none is left out. Nothing here is waited for by anybody who verifies.

const (
	shipPage = 500 // records that are read and sent at once
	// shipGather is the least time between two rounds that told all there was, so
	// that under load many commits make one round.
	shipGather = 250 * time.Millisecond
	// alarmAfter is how long a sink fails before that is an event of its own.
	alarmAfter = time.Minute

	longestWait        = 30 * time.Second // between two tries
	longestWebhookWait = time.Hour
)

// shipping is what this node does for all sinks.
type shipping struct {
	holder string
	wake   chan struct{} // holds an element when this node committed something

	mu      sync.Mutex
	running map[string]*carrier // by the sink's ID
	counts  map[string]*shipped // the same; stays when a sink is changed
}

// shipped is what became of a sink on this node.
type shipped struct {
	telling  bool
	failures int64
	err      string
	at       time.Time // of err
	since    time.Time // when the first of these failures in a row was
	alarmed  bool
}

// carrier tells one sink.
type carrier struct {
	s     *Service
	sink  Sink
	way   Delivery
	stop  context.CancelFunc
	kick  chan struct{} // something may be to tell
	retry chan struct{} // and it is worth trying at once
	held  time.Time     // when the lease was last had; zero: it is not

	sent   map[int64]int64 // how far each chain was handed over; nil: as far as is noted
	noted  map[int64]int64 // how far of that is noted
	failed int             // times in a row
	gaps   map[int64]bool  // chains of which records were found missing
}

// Clock is what waits for sinks that fail, and says how long they do.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time // as time.After
}

// wallClock is the time that it is.
type wallClock struct{}

func (wallClock) Now() time.Time                         { return time.Now() }
func (wallClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// errNotOurs is a sink that another node tells.
var errNotOurs = errors.New("another server tells this sink")

// ship tells the sinks until ctx ends.
func (s *Service) ship(ctx context.Context) {
	var carriers sync.WaitGroup
	defer carriers.Wait()
	var known sinkList
	var faulty string
	look := time.NewTicker(min(time.Second, s.cfg.SinkPause))
	defer look.Stop()
	for first := true; ; first = false {
		if !first {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
			case <-s.shipping.wake:
				s.shipping.kick()
				select { // what else is committed meanwhile makes no further round
				case <-ctx.Done():
					return
				case <-time.After(min(shipGather, s.cfg.SinkPause)):
				}
			}
		}
		list, err := s.sinks(ctx)
		if err == nil && list.Version < known.Version {
			err = fmt.Errorf("%w (document %s: it was removed, or an old one was put back)", ErrTampered, sinksDocument)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			// The sinks that are known go on: whoever spoils the list must not stop them.
			if isTampered(err) && faulty != err.Error() {
				s.log.Error("the list of sinks was altered outside Watchword; those known before are told still. Restore the database, or remove the document from it, add the sinks anew and start all servers anew", "error", err)
				faulty = err.Error()
			}
		default:
			known, faulty = list, ""
		}
		s.shipping.arrange(ctx, s, known.Sinks, &carriers)
	}
}

// arrange starts and ends carriers, so that each sink has one.
func (h *shipping) arrange(ctx context.Context, s *Service, list []Sink, carriers *sync.WaitGroup) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, c := range h.running {
		if !slices.ContainsFunc(list, func(k Sink) bool { return k.ID == id && k.Revision == c.sink.Revision && k.Stopped == "" }) {
			c.stop()
			delete(h.running, id)
		}
	}
	for _, k := range list {
		if h.running[k.ID] != nil || k.Stopped != "" {
			continue
		}
		run, stop := context.WithCancel(ctx)
		c := &carrier{s: s, sink: k, stop: stop, kick: make(chan struct{}, 1), retry: make(chan struct{}, 1), gaps: map[int64]bool{}}
		h.running[k.ID] = c
		if h.counts[k.ID] == nil {
			h.counts[k.ID] = &shipped{}
		}
		if k.Plain() {
			s.log.Warn("the audit is told without encryption: whoever stands between can read and change it", "sink", k.Name, "address", k.Address)
		}
		carriers.Go(func() { c.run(run) })
	}
	for id := range h.counts {
		if !slices.ContainsFunc(list, func(k Sink) bool { return k.ID == id }) {
			delete(h.counts, id)
		}
	}
}

// kick has every carrier look whether there is something to tell.
func (h *shipping) kick() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.running {
		ring(c.kick)
	}
}

// nudge has a sink's carrier try at once, however long it would wait.
func (h *shipping) nudge(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.running[id]; c != nil {
		ring(c.retry)
	}
}

// ring never waits.
func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// describe adds what this node knows to a sink's state.
func (h *shipping) describe(state *SinkState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := h.counts[state.ID]; n != nil {
		state.Telling, state.Failures, state.LastError, state.FailedAt = n.telling, n.failures, n.err, n.at
	}
}

// note changes what this node knows of a sink.
func (c *carrier) note(f func(n *shipped)) {
	c.s.shipping.mu.Lock()
	defer c.s.shipping.mu.Unlock()
	if n := c.s.shipping.counts[c.sink.ID]; n != nil {
		f(n)
	}
}

// run tells the sink until ctx ends, or it wants no more.
func (c *carrier) run(ctx context.Context) {
	defer c.end()
	for ctx.Err() == nil {
		more, err := c.round(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errNotOurs):
			c.letGo()
			c.rest(ctx, c.s.cfg.SinkLease/4, nil)
		case errors.Is(err, ErrSinkGone):
			if c.halt(ctx, err) {
				return
			}
			c.rest(ctx, c.wait(), c.retry)
		case err != nil:
			c.failure(ctx, err)
			// Perhaps another node has a way there.
			c.release(ctx)
			c.rest(ctx, c.wait(), c.retry)
		case more:
		default:
			c.rest(ctx, c.s.cfg.SinkPause, c.kick)
		}
	}
}

// rest waits for so long, or until the bell rings.
func (c *carrier) rest(ctx context.Context, d time.Duration, bell <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-c.s.cfg.SinkClock.After(d):
	case <-bell:
	}
}

// wait is how long a try is waited for after so many failures: twice as long each
// time, and never quite the same, so that nodes do not go hand in hand.
func (c *carrier) wait() time.Duration {
	longest := longestWait
	if c.sink.Kind == SinkWebhook {
		longest = longestWebhookWait
	}
	d := min(c.s.cfg.SinkPause<<min(max(c.failed-1, 0), 20), longest)
	return d - d/8 + rand.N(d/4+1)
}

// round tells a page of each chain that has something to tell, and answers whether
// there is more.
func (c *carrier) round(ctx context.Context) (more bool, err error) {
	if err := c.lease(ctx); err != nil {
		return false, err
	}
	if c.sent == nil {
		told, err := c.s.db.Told(ctx, c.sink.ID)
		if err != nil {
			return false, err
		}
		c.sent, c.noted = told, maps.Clone(told)
	}
	heads, err := c.s.db.Heads(ctx)
	if err != nil {
		return false, err
	}
	for _, h := range heads {
		from := c.sink.from(c.sent, h.Chain)
		if h.Seq <= from {
			continue
		}
		n, err := c.page(ctx, h.Chain, from)
		if err != nil {
			return false, err
		}
		more = more || n == shipPage
	}
	return more, c.settle(ctx)
}

// page hands over the records of a chain after seq, and answers how many there were.
func (c *carrier) page(ctx context.Context, chain, seq int64) (int, error) {
	if err := c.lease(ctx); err != nil {
		return 0, err
	}
	page, err := c.s.db.After(ctx, chain, seq, shipPage)
	if err != nil || len(page) == 0 {
		return 0, err
	}
	if page[0].Seq != seq+1 && !c.gaps[chain] {
		c.gaps[chain] = true
		c.s.log.Error("records of the audit are missing: they were cut off by retention before the sink was there, or removed outside Watchword; see 'watchword audit verify'",
			"sink", c.sink.Name, "chain", chain, "after", seq, "next", page[0].Seq)
	}
	if c.way == nil {
		if c.way, err = c.s.delivery(ctx, &c.sink); err != nil {
			return 0, err
		}
	}
	// It ends before the lease does, so that no two send at once.
	sending, cancel := context.WithTimeout(ctx, c.s.cfg.SinkLease*2/3)
	defer cancel()
	n, err := c.way.Send(sending, page)
	if n > 0 {
		c.sent[chain] = page[n-1].Seq
		if serr := c.settle(ctx); serr != nil {
			return 0, serr
		}
	}
	if err != nil && n > 0 && sending.Err() != nil && ctx.Err() == nil {
		return n, nil // it is slow, and gets on
	}
	return n, err
}

// settle notes how far what was handed over is safe.
func (c *carrier) settle(ctx context.Context) error {
	if c.way == nil {
		return nil
	}
	safe, err := c.way.Safe()
	news := map[int64]int64{}
	for chain, seq := range safe {
		if seq > c.noted[chain] {
			news[chain] = seq
		}
	}
	if len(news) == 0 {
		return err
	}
	// Noted even where we are ending: what is noted is not told again.
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	terr := c.s.db.Tell(noting, c.sink.ID, c.s.shipping.holder, news)
	switch {
	case errors.Is(terr, ErrState):
		return errNotOurs
	case terr != nil:
		return terr
	}
	maps.Copy(c.noted, news)
	if err == nil {
		c.success(ctx)
	}
	return err
}

// lease sees that this node is the one who tells the sink, for longer than a page
// takes.
func (c *carrier) lease(ctx context.Context) error {
	if !c.held.IsZero() && time.Since(c.held) < c.s.cfg.SinkLease/4 {
		return nil
	}
	at := time.Now()
	ours, err := c.s.db.Carry(ctx, c.sink.ID, c.s.shipping.holder, c.s.cfg.SinkLease)
	if err != nil {
		return err
	}
	if !ours {
		return errNotOurs
	}
	c.held = at
	c.note(func(n *shipped) { n.telling = true })
	return nil
}

// letGo notes that another node tells the sink, and closes the way to it.
func (c *carrier) letGo() {
	c.held, c.sent, c.noted = time.Time{}, nil, nil
	c.note(func(n *shipped) { n.telling = false })
	c.shut()
}

func (c *carrier) shut() {
	if c.way == nil {
		return
	}
	if err := c.way.Close(); err != nil {
		c.s.log.Warn("the way to a sink could not be closed", "sink", c.sink.Name, "error", err)
	}
	c.way = nil
}

// release lets others tell the sink.
func (c *carrier) release(ctx context.Context) {
	held := !c.held.IsZero()
	c.letGo()
	if !held {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if _, err := c.s.db.Carry(ctx, c.sink.ID, c.s.shipping.holder, 0); err != nil {
		c.s.log.Debug("a sink's lease could not be given back; it ends by itself", "sink", c.sink.Name, "error", err)
	}
}

func (c *carrier) end() {
	c.release(context.Background())
}

// failure notes that the sink could not be told.
func (c *carrier) failure(ctx context.Context, why error) {
	c.failed++
	now, alarm := c.s.cfg.SinkClock.Now(), false
	c.note(func(n *shipped) {
		n.failures++
		n.err, n.at = sinkError(why), now
		if n.since.IsZero() {
			n.since = now
		}
		alarm = !n.alarmed && now.Sub(n.since) >= c.s.cfg.SinkAlarm
		n.alarmed = n.alarmed || alarm
	})
	if c.failed == 1 {
		c.s.log.Warn("a sink could not be told; it is tried again", "sink", c.sink.Name, "error", sinkError(why))
	}
	if alarm {
		c.s.log.Error("a sink has not been told for some time; nothing is lost, but look after it", "sink", c.sink.Name, "error", sinkError(why))
		c.announce(ctx, "error", sinkError(why))
	}
}

// success notes that the sink could be told.
func (c *carrier) success(ctx context.Context) {
	if c.failed > 0 {
		c.s.log.Info("a sink is told again", "sink", c.sink.Name)
	}
	c.failed = 0
	alarmed := false
	c.note(func(n *shipped) {
		alarmed = n.alarmed
		n.err, n.at, n.since, n.alarmed = "", time.Time{}, time.Time{}, false
	})
	if alarmed {
		c.announce(ctx, "ok", "")
	}
}

// announce has the audit, and so the other sinks, know that a sink fails, or does no
// longer.
func (c *carrier) announce(ctx context.Context, outcome, why string) {
	e := sinkEvent(c.sink.Name)
	e.Outcome = outcome
	if why != "" {
		e.Detail = append(e.Detail, audit.Field{Name: "why", Value: fileName(why)})
	}
	if err := c.s.record(ctx, systemPrincipal(), policy.SinkFailing, e); err != nil {
		c.s.log.Warn("the audit could not be told that a sink fails", "sink", c.sink.Name, "error", err)
	}
}

// halt notes for all nodes, and for good, that the sink wants no more. It answers
// whether that is noted.
func (c *carrier) halt(ctx context.Context, why error) bool {
	c.failure(ctx, why)
	c.s.log.Error("a sink wants no more, and is told nothing from now on; put it anew to go on, or delete it", "sink", c.sink.Name, "error", sinkError(why))
	list, err := c.s.sinks(ctx)
	if err == nil {
		i := list.find(c.sink.Name)
		if i < 0 || list.Sinks[i].ID != c.sink.ID || list.Sinks[i].Revision != c.sink.Revision {
			return true // it was changed meanwhile, and has another carrier
		}
		list.Sinks = slices.Clone(list.Sinks)
		list.Sinks[i].Stopped = sinkError(why)
		err = c.s.haltSink(ctx, list, c.sink.Name, why)
	}
	if err != nil {
		c.s.log.Warn("that a sink wants no more could not be noted yet", "sink", c.sink.Name, "error", err)
		return false
	}
	return true
}

// haltSink commits the list with one sink stopped. Its record says error: what the
// administrators wanted ended.
func (s *Service) haltSink(ctx context.Context, list sinkList, name string, why error) error {
	w, err := list.next()
	if err != nil {
		return err
	}
	if w.Data, err = s.sealed(ctx, w.Name, w.Data); err != nil {
		return err
	}
	w.Updated = s.cfg.Now().UTC()
	e := sinkEvent(name)
	e.Outcome = "error"
	e.Detail = append(e.Detail, audit.Field{Name: "why", Value: fileName(sinkError(why))})
	if err := s.ledger.commit(ctx, &Change{Documents: []DocumentWrite{w}}, []audit.Event{s.event(systemPrincipal(), policy.SinkStop, e)}); err != nil {
		return err
	}
	s.takeUp(ctx)
	return nil
}

// sinkError is an error in words, of no more than a line.
func sinkError(err error) string {
	text := err.Error()
	if len(text) > 300 {
		text = text[:300]
	}
	return fileName(text)
}

// newShipping names this node among those who tell sinks.
func (s *Service) newShipping() error {
	id, err := s.random(8)
	if err != nil {
		return fmt.Errorf("name this server: %w", err)
	}
	s.shipping = &shipping{
		holder: hex.EncodeToString(id), wake: make(chan struct{}, 1), running: map[string]*carrier{}, counts: map[string]*shipped{},
	}
	return nil
}
