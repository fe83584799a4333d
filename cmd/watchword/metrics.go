package main

import (
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
