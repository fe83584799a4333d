package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"watchword/tokens"
)

// newMetrics is the registry that /metrics shows: the process, the runtime, and
// whether the server can do its work. The transports add their own.
func newMetrics(ready func() []tokens.Problem, searchBehind func() bool) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "watchword_ready",
			Help: "1 if HSM, database, clocks and listeners work, as /readyz says.",
		}, func() float64 {
			if len(ready()) > 0 {
				return 0
			}
			return 1
		}),
		problems{ready},
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "watchword_search_behind",
			Help: "1 if imports could not be prepared for searches, which are right and slow until then: see the log.",
		}, func() float64 {
			if searchBehind() {
				return 1
			}
			return 0
		}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "watchword_build_info",
			Help:        "Always 1; the label says the version.",
			ConstLabels: prometheus.Labels{"version": versionName()},
		}, func() float64 { return 1 }),
	)
	return r
}

// problems tells the parts that do not work.
type problems struct{ ready func() []tokens.Problem }

var problemDesc = prometheus.NewDesc("watchword_problem", "1 for each part that does not work.", []string{"part"}, nil)

func (p problems) Describe(c chan<- *prometheus.Desc) { c <- problemDesc }

func (p problems) Collect(c chan<- prometheus.Metric) {
	seen := map[string]bool{}
	for _, part := range []string{"hsm", "database", "clock", "server"} {
		seen[part] = false
	}
	for _, problem := range p.ready() {
		seen[problem.Part] = true
	}
	for part, broken := range seen {
		value := 0.0
		if broken {
			value = 1
		}
		c <- prometheus.MustNewConstMetric(problemDesc, prometheus.GaugeValue, value, part)
	}
}

// sinkMetrics tell how far the audit was told to each sink. What cannot be found out
// is not told.
type sinkMetrics struct {
	states func(ctx context.Context) ([]tokens.SinkState, error)
}

var (
	sinkLagDesc      = prometheus.NewDesc("watchword_sink_lag_records", "Records of the audit that a sink was not told yet.", []string{"sink"}, nil)
	sinkBehindDesc   = prometheus.NewDesc("watchword_sink_lag_seconds", "Age of the oldest record that a sink was not told yet.", []string{"sink"}, nil)
	sinkStoppedDesc  = prometheus.NewDesc("watchword_sink_stopped", "1 for a sink that wants no more.", []string{"sink"}, nil)
	sinkTellingDesc  = prometheus.NewDesc("watchword_sink_telling", "1 if this server is the one who tells the sink.", []string{"sink"}, nil)
	sinkFailuresDesc = prometheus.NewDesc("watchword_sink_failures_total", "How often this server could not tell a sink.", []string{"sink"}, nil)
)

func (m sinkMetrics) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sinkLagDesc, sinkBehindDesc, sinkStoppedDesc, sinkTellingDesc, sinkFailuresDesc} {
		c <- d
	}
}

func (m sinkMetrics) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	states, err := m.states(ctx)
	if err != nil {
		return // watchword_problem says so
	}
	one := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	for _, k := range states {
		behind := 0.0
		if !k.Behind.IsZero() {
			behind = max(0, time.Since(k.Behind).Seconds())
		}
		c <- prometheus.MustNewConstMetric(sinkLagDesc, prometheus.GaugeValue, float64(k.Lag), k.Name)
		c <- prometheus.MustNewConstMetric(sinkBehindDesc, prometheus.GaugeValue, behind, k.Name)
		c <- prometheus.MustNewConstMetric(sinkStoppedDesc, prometheus.GaugeValue, one(k.Stopped != ""), k.Name)
		c <- prometheus.MustNewConstMetric(sinkTellingDesc, prometheus.GaugeValue, one(k.Telling), k.Name)
		c <- prometheus.MustNewConstMetric(sinkFailuresDesc, prometheus.CounterValue, float64(k.Failures), k.Name)
	}
}
