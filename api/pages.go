package api

import (
	"context"
	"strings"

	"github.com/labstack/echo/v4"

	"watchword/api/console"
)

// addPages makes the pages that people see, and routes to them. They are no part
// of the contract: what they send and are answered is between them and us.
func (s *Server) addPages() error {
	cfg := console.Config{Core: s.cfg.Core, Name: s.cfg.Name, Source: source, Log: s.cfg.Log}
	if s.cfg.FIDO != nil {
		cfg.Keys = s.cfg.FIDO
	}
	pages, err := console.New(cfg)
	if err != nil {
		return err
	}
	s.name = pages.Name()
	for _, p := range pages.Paths() {
		path := p[1]
		if strings.HasSuffix(path, "/") {
			path += "*"
		}
		s.echo.Add(p[0], path, func(c echo.Context) error {
			ctx, cancel := context.WithTimeout(c.Request().Context(), s.cfg.Timeout)
			defer cancel()
			pages.ServeHTTP(c.Response(), c.Request().WithContext(ctx))
			return nil
		})
	}
	return nil
}
