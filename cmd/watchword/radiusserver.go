package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"watchword/api"
	"watchword/radius"
	"watchword/tokens"
)

// openRADIUS makes the RADIUS server, if there is to be one. It does not listen yet.
func (a *appliance) openRADIUS(metrics prometheus.Registerer) (err error) {
	c := &a.config.RADIUS
	if len(c.Listen) == 0 {
		return nil
	}
	a.radius, err = radius.New(a.core, radius.Config{
		Listen: c.Listen, Readers: c.Readers, Apart: c.ReusePort, MaxInWork: c.MaxInWork, Timeout: c.Timeout, ReplyLife: c.ReplyLife,
		Dictionary: a.names,
		Logger:     a.log, Registerer: metrics,
	})
	if err != nil {
		return &failure{What: "start RADIUS", Why: err.Error()}
	}
	return nil
}

// watchedRADIUS is the RADIUS server as the API shows and tries it.
type watchedRADIUS struct{ server *radius.Server }

func (w watchedRADIUS) Watch(what tokens.Watching) (api.RADIUSWatch, error) {
	sights, err := w.server.Watch(radius.Sighted{Realm: what.Realm, Client: what.Client, User: what.User})
	switch {
	case errors.Is(err, radius.ErrWatchers):
		return nil, fmt.Errorf("%w: %w; end another one first", tokens.ErrState, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", tokens.ErrUnavailable, err)
	}
	return radiusSights{sights}, nil
}

type radiusSights struct{ *radius.Watch }

func (w radiusSights) Next(ctx context.Context) (api.RadiusSight, error) {
	v, err := w.Watch.Next(ctx)
	if errors.Is(err, radius.ErrServerClosed) {
		err = io.EOF
	}
	return api.RadiusSight{
		Time: v.Time.UTC(), Client: v.Client, Address: v.Address, User: v.User, NAS: v.NAS, Method: v.Method,
		Outcome: v.Outcome, Reply: v.Reply, Cause: v.Cause, TookMs: milliseconds(v.Took), Test: v.Test, Missed: v.Missed,
	}, err
}

func (w watchedRADIUS) Try(ctx context.Context, client *tokens.RADIUSClient, t api.ClientTest) (api.ClientTested, error) {
	trial := radius.Trial{Client: client, Code: []byte(of(t.Code)), User: of(t.User), NAS: of(t.Nas), Caller: of(t.Caller), Method: tokens.Method(of(t.Method)), State: of(t.State)}
	defer clear(trial.Code)
	got, err := w.server.Try(ctx, trial)
	switch {
	case errors.Is(err, radius.ErrTrial):
		return api.ClientTested{}, fmt.Errorf("%w: %w", tokens.ErrInvalid, err)
	case err != nil:
		return api.ClientTested{}, fmt.Errorf("%w: %w", tokens.ErrUnavailable, err)
	}
	out := api.ClientTested{
		Outcome: api.ClientTestedOutcome(got.Outcome), Reply: ptr(got.Reply), Refused: ptr(got.Refused),
		Cause: ptr(got.Cause), Says: ptr(got.Says), Do: ptr(got.Do), TookMs: float32(milliseconds(got.Took)),
		Attributes: make([]api.RadiusAttribute, 0, len(got.Attributes)),
	}
	for _, a := range got.Attributes {
		out.Attributes = append(out.Attributes, api.RadiusAttribute{Name: a.Name, Value: a.Value})
	}
	if got.State != nil {
		out.State = &got.State
	}
	return out, nil
}

// milliseconds is a duration to the microsecond.
func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// of is what a pointer points to, or the zero value.
func of[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// attemptMetrics tell how attempts ended.
type attemptMetrics struct{ counts func() []tokens.AttemptCount }

var attemptsDesc = prometheus.NewDesc("watchword_attempts_total",
	"Attempts by who asked (kind, and the RADIUS client; none: one that is no more), outcome and the reason that the audit has for it.",
	[]string{"kind", "client", "outcome", "reason"}, nil)

func (m attemptMetrics) Describe(c chan<- *prometheus.Desc) { c <- attemptsDesc }

func (m attemptMetrics) Collect(c chan<- prometheus.Metric) {
	for _, n := range m.counts() {
		c <- prometheus.MustNewConstMetric(attemptsDesc, prometheus.CounterValue, float64(n.Count), string(n.Kind), n.Client, n.Outcome, string(n.Reason))
	}
}
