package api

import (
	"fmt"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// ListRealms is GET /v1/realms.
func (s *Server) ListRealms(c echo.Context) error {
	list, err := s.cfg.Core.Realms(c.Request().Context(), who(c))
	return reply(c, RealmPage{Items: views(list, func(r *tokens.RealmEntry) RealmEntry {
		entry := RealmEntry{Name: r.Name, Users: r.Users, Tokens: r.Tokens, Clients: r.Clients, Keys: r.Keys}
		if more := r.MoreUsers || r.MoreTokens; more {
			entry.More, entry.MoreUsers, entry.MoreTokens = &more, &r.MoreUsers, &r.MoreTokens
		}
		return entry
	})}, err)
}

// ShowRealmRules is GET /v1/realms/{realm}/rules.
func (s *Server) ShowRealmRules(c echo.Context, realm string) error {
	r, err := s.cfg.Core.Rules(c.Request().Context(), who(c), realm)
	return reply(c, rulesView(&r), err)
}

// SetRealmRules is PUT /v1/realms/{realm}/rules.
func (s *Server) SetRealmRules(c echo.Context, realm string) error {
	in, err := decode[NewRealmRules](c, "rules")
	if err != nil {
		return err
	}
	expect := int64(-1) // whatever there is
	if in.Version != nil {
		if expect = *in.Version; expect < 0 {
			return fmt.Errorf("%w: version is that of the rules to replace; zero for none", tokens.ErrInvalid)
		}
	}
	r := &in.Rules
	got, err := s.cfg.Core.SetRules(c.Request().Context(), who(c), realm, expect, tokens.Rules{
		MaxTokens:  r.MaxTokens,
		Activation: tokens.Activation(r.Activation),
		PIN:        tokens.PINRules{Min: r.Pin.Min, Max: r.Pin.Max, Sequences: r.Pin.Sequences, Change: r.Pin.Change},
		Recovery:   tokens.RecoveryRules{Allow: r.Recovery.Allow, Codes: r.Recovery.Codes},
		Temporary: tokens.TemporaryRules{
			Allow: r.Temporary.Allow, Valid: times(r.Temporary.ValidHours, time.Hour), Uses: r.Temporary.Uses,
		},
	})
	return reply(c, rulesView(&got), err)
}

// DropRealmRules is DELETE /v1/realms/{realm}/rules.
func (s *Server) DropRealmRules(c echo.Context, realm string) error {
	r, err := s.cfg.Core.DropRules(c.Request().Context(), who(c), realm)
	return reply(c, rulesView(&r), err)
}

// times is n units, bounded so that it cannot overflow.
func times(n int, unit time.Duration) time.Duration {
	return time.Duration(min(max(n, -1), 1<<20)) * unit
}

func rulesView(r *tokens.RealmRules) RealmRules {
	return RealmRules{Realm: r.Realm, Version: r.Version, Own: r.Own, Rules: Rules{
		MaxTokens:  r.Rules.MaxTokens,
		Activation: RulesActivation(r.Rules.Activation),
		Pin:        PinRules{Min: r.Rules.PIN.Min, Max: r.Rules.PIN.Max, Sequences: r.Rules.PIN.Sequences, Change: r.Rules.PIN.Change},
		Recovery:   RecoveryRules{Allow: r.Rules.Recovery.Allow, Codes: r.Rules.Recovery.Codes},
		Temporary: TemporaryRules{
			Allow: r.Rules.Temporary.Allow, ValidHours: int(r.Rules.Temporary.Valid / time.Hour), Uses: r.Rules.Temporary.Uses,
		},
	}}
}
