package api

import (
	"bytes"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// driftWidth is how wide the text of a drift history is, in characters.
const driftWidth = 78

// ShowDrift is GET /v1/tokens/{serial}/drift.
func (s *Server) ShowDrift(c echo.Context, serial Serial, params ShowDriftParams) error {
	if params.Format != nil && !params.Format.Valid() {
		return fmt.Errorf("%w: format is json, svg or text", tokens.ErrInvalid)
	}
	h, err := s.cfg.Core.Drift(c.Request().Context(), who(c), value(params.Realm), serial)
	if err != nil {
		return err
	}
	switch value(params.Format) {
	case ShowDriftParamsFormatSvg:
		var svg bytes.Buffer
		if err := h.SVG(&svg); err != nil {
			return fmt.Errorf("draw the drift of a token: %w", err)
		}
		// Its colours for light and dark are a style sheet inside of it.
		c.Response().Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		return c.Blob(http.StatusOK, "image/svg+xml", svg.Bytes())
	case ShowDriftParamsFormatText:
		return c.Blob(http.StatusOK, "text/plain; charset=utf-8", []byte(h.Text(driftWidth)))
	}
	return reply(c, Drift{
		Token: tokenView(&h.Token), Ppm: h.PPM, Verdict: string(h.Verdict), Says: h.Says,
		Points: views(h.Points, func(p *tokens.DriftPoint) DriftPoint {
			return DriftPoint{Time: instant(p.Time), Seconds: p.Seconds, Steps: p.Steps, Resync: p.Resync}
		}),
	}, nil)
}
