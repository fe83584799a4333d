package api

import (
	_ "embed"
	"net/http"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

//go:embed openapi.yaml
var contract []byte

// Contract is GET /openapi.yaml.
func (s *Server) Contract(c echo.Context) error {
	return c.Blob(http.StatusOK, "application/yaml", contract)
}

// Healthz is GET /healthz.
func (s *Server) Healthz(c echo.Context) error {
	return reply(c, Health{Status: "ok"}, nil)
}

// Readyz is GET /readyz.
func (s *Server) Readyz(c echo.Context) error {
	problems := s.cfg.Ready()
	out := Readiness{Ready: len(problems) == 0, Problems: views(problems, func(p *tokens.Problem) ReadinessProblem {
		return ReadinessProblem{Part: p.Part, Says: p.Says}
	})}
	if out.Ready {
		return reply(c, out, nil)
	}
	c.Response().Header().Set("Retry-After", retryAfter)
	return writeJSON(c, http.StatusServiceUnavailable, "application/json", out)
}

// Metrics is GET /metrics.
func (s *Server) Metrics(c echo.Context) error {
	s.scrape.ServeHTTP(c.Response(), c.Request())
	return nil
}
