package api

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics count requests by route and status. A path or method that is none of
// ours counts as "other", so that nobody can make up labels.
type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(reg *prometheus.Registry, s *Server) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_http_requests_total",
			Help: "HTTP requests answered, by method, route and status code.",
		}, []string{"method", "route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "watchword_http_request_seconds",
			Help:    "Time from a request's header to its answer, by method and route.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"method", "route"}),
	}
	open := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "watchword_http_requests_open",
		Help: "HTTP requests under way.",
	}, func() float64 { return float64(s.open.Load()) })
	for _, c := range []prometheus.Collector{m.requests, m.seconds, open} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the HTTP metrics: %w", err)
		}
	}
	return m, nil
}

// observe counts one request that was answered.
func (m *metrics) observe(c echo.Context, to *route, started time.Time) {
	method, path := "other", "other"
	if to != nil {
		method, path = c.Request().Method, c.Path()
	}
	took := time.Since(started).Seconds()
	status := c.Response().Status
	if status != http.StatusOK || to == nil {
		m.requests.WithLabelValues(method, path, strconv.Itoa(status)).Inc()
		m.seconds.WithLabelValues(method, path).Observe(took)
		return
	}
	series := to.series.Load()
	if series == nil {
		series = &routeSeries{m.requests.WithLabelValues(method, path, "200"), m.seconds.WithLabelValues(method, path)}
		to.series.Store(series)
	}
	series.requests.Inc()
	series.seconds.Observe(took)
}

// routeSeries are the two series of a route's good answers: to look them up by their
// labels each time costs more than to count.
type routeSeries struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}
