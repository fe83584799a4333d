package api

import (
	"fmt"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// ListSinks is GET /v1/sinks.
func (s *Server) ListSinks(c echo.Context) error {
	list, err := s.cfg.Core.Sinks(c.Request().Context(), who(c))
	return reply(c, SinkPage{Items: views(list, sinkView)}, err)
}

// ShowSink is GET /v1/sinks/{name}.
func (s *Server) ShowSink(c echo.Context, name string) error {
	k, err := s.cfg.Core.Sink(c.Request().Context(), who(c), name)
	return reply(c, sinkView(&k), err)
}

// PutSink is PUT /v1/sinks/{name}. Its answer is the only place where a webhook's
// secret is shown.
func (s *Server) PutSink(c echo.Context, name string, params PutSinkParams) error {
	in, err := decode[SinkSettings](c, "kind")
	if err != nil {
		return err
	}
	n := tokens.NewSink{
		Name: name, Kind: tokens.SinkKind(in.Kind),
		Format: value(in.Format), MaxBytes: value(in.MaxBytes), Keep: value(in.Keep),
		Address: value(in.Address), AllowPlaintext: value(in.AllowPlaintext), ServerName: value(in.ServerName),
		CA: value(in.Ca), Certificate: value(in.Certificate), Key: []byte(value(in.Key)),
		URL: value(in.Url), Events: value(in.Events), NewSecret: value(in.NewSecret),
		Secret: []byte(value(in.Secret)),
	}
	if in.Secret != nil && *in.Secret == "" {
		return fmt.Errorf("%w: secret is empty; leave it out to keep the one that there is", tokens.ErrInvalid)
	}
	switch from := value(in.From); from {
	case "":
	case "now", "start":
		now := from == "now"
		n.FromNow = &now
	default:
		return fmt.Errorf("%w: from is start or now", tokens.ErrInvalid)
	}
	if value(params.DryRun) {
		would, changes, err := s.cfg.Core.CompareSink(c.Request().Context(), who(c), n)
		v := sinkView(&would)
		if changes == nil {
			changes = []string{}
		}
		v.Changes = &changes
		return reply(c, v, err)
	}
	k, secret, err := s.cfg.Core.PutSink(c.Request().Context(), who(c), n)
	out := sinkView(&k)
	if secret != "" {
		out.Secret = &secret
	}
	return reply(c, out, err)
}

// DeleteSink is DELETE /v1/sinks/{name}.
func (s *Server) DeleteSink(c echo.Context, name string) error {
	return gone(c, s.cfg.Core.DeleteSink(c.Request().Context(), who(c), name))
}

// TestSink is POST /v1/sinks/{name}/test.
func (s *Server) TestSink(c echo.Context, name string) error {
	return gone(c, s.cfg.Core.TestSink(c.Request().Context(), who(c), name))
}

func sinkView(k *tokens.SinkState) Sink {
	v := Sink{
		Name: k.Name, Kind: SinkKind(k.Kind), Plaintext: k.Plain(), Created: instant(k.Created), Updated: instant(k.Updated),
		Format: unlessEmpty(k.Format), Address: unlessEmpty(k.Address), ServerName: unlessEmpty(k.ServerName), Ca: unlessEmpty(k.CA),
		Certificate: unlessEmpty(k.Certificate), Url: unlessEmpty(k.URL), Stopped: unlessEmpty(k.Stopped),
		Lag: k.Lag, Behind: unlessZero(k.Behind), Telling: k.Telling, Failures: k.Failures,
		LastError: unlessEmpty(k.LastError), FailedAt: unlessZero(k.FailedAt),
	}
	if k.Kind == tokens.SinkFile {
		v.MaxBytes, v.Keep = &k.MaxBytes, &k.Keep
	}
	if k.Kind == tokens.SinkWebhook && len(k.Events) > 0 {
		v.Events = &k.Events
	}
	return v
}
