package radius

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// outcome is how a request that was taken ended.
type outcome int

const (
	accepted   outcome = iota
	rejected           // by the core, or as it could not be an attempt at all
	challenged         // with a question
	unanswered         // the core could not decide: silence, never an Accept
	shed               // the core had too much at once: silence
	outcomes           // how many there are
)

var outcomeLabels = [outcomes]string{accepted: "accept", rejected: "reject", challenged: "challenge", unanswered: "fault", shed: "shed"}

// metrics are the server's. Client names are those of known clients only, so
// that no sender can make up labels.
type metrics struct {
	requests  *prometheus.CounterVec
	dropped   *prometheus.CounterVec
	repeated  *prometheus.CounterVec
	seconds   prometheus.Histogram
	unsent    prometheus.Counter
	unknown   prometheus.Counter // dropped for an unknown address
	cached    prometheus.Counter // retransmissions answered from the cache
	attached  prometheus.Counter // retransmissions while the first was in work
	collected []prometheus.Collector

	tallies sync.Map // client name -> *tally
}

// tally is the counters of one client, looked up once.
type tally struct {
	replies atomic.Pointer[replies] // made when they were asked for last
	access  [outcomes]prometheus.Counter
	status  prometheus.Counter
	dropped [causes]prometheus.Counter

	signed, unsigned bucket // what the client may send
}

func newMetrics(inWork *gate, cache *replyCache, watchers *hub) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_radius_requests_total",
			Help: "RADIUS requests taken, by client, packet code and outcome (fault and shed: not answered).",
		}, []string{"client", "code", "outcome"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_radius_dropped_total",
			Help: "RADIUS packets dropped without an answer, by client (empty: unknown address) and cause.",
		}, []string{"client", "cause"}),
		repeated: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_radius_retransmissions_total",
			Help: "RADIUS retransmissions recognised: answered from the reply cache, or attached to the request in work.",
		}, []string{"answer"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "watchword_radius_request_seconds",
			Help:    "Time from reading an Access-Request until its reply is ready to send.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		unsent: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_radius_unsent_replies_total",
			Help: "RADIUS replies that the operating system refused to send.",
		}),
	}
	m.unknown = m.dropped.WithLabelValues("", remedies[unknownClient].label)
	m.cached = m.repeated.WithLabelValues("cached")
	m.attached = m.repeated.WithLabelValues("attached")
	m.collected = []prometheus.Collector{
		m.requests, m.dropped, m.repeated, m.seconds, m.unsent,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "watchword_radius_in_work",
			Help: "RADIUS requests in work.",
		}, func() float64 { return float64(inWork.in.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "watchword_radius_watchers",
			Help: "Who watches requests as they come.",
		}, func() float64 { return float64(watchers.watched.Load()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "watchword_radius_reply_cache_entries",
			Help: "Replies held for retransmissions.",
		}, func() float64 { n, _ := cache.held(); return float64(n) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "watchword_radius_reply_cache_bytes",
			Help: "Memory that the replies held take, about.",
		}, func() float64 { _, size := cache.held(); return float64(size) }),
	}
	return m
}

// register makes the metrics visible, all or none.
func (m *metrics) register(to prometheus.Registerer) error {
	for i, c := range m.collected {
		if err := to.Register(c); err != nil {
			for _, done := range m.collected[:i] {
				to.Unregister(done)
			}
			return err
		}
	}
	return nil
}

// client answers the counters of a known client.
func (m *metrics) client(name string) *tally {
	if t, ok := m.tallies.Load(name); ok {
		return t.(*tally)
	}
	t := &tally{status: m.requests.WithLabelValues(name, "status_server", outcomeLabels[accepted])}
	for o := range outcomes {
		t.access[o] = m.requests.WithLabelValues(name, "access_request", outcomeLabels[o])
	}
	for c := noSecret; c < causes; c++ {
		t.dropped[c] = m.dropped.WithLabelValues(name, remedies[c].label)
	}
	kept, _ := m.tallies.LoadOrStore(name, t)
	return kept.(*tally)
}
