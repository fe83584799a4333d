package api

import (
	"encoding/hex"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// ListAudit is GET /v1/audit.
func (s *Server) ListAudit(c echo.Context, params ListAuditParams) error {
	p, err := pageOf(params.Cursor, params.Limit)
	if err != nil {
		return err
	}
	rows, next, err := s.cfg.Core.Records(c.Request().Context(), who(c), tokens.RecordQuery{
		Realm: value(params.Realm), User: value(params.User), Serial: value(params.Serial),
		Action: value(params.Action), Outcome: value(params.Outcome), Actor: value(params.Actor), Policy: value(params.Policy),
		Since: value(params.Since), Until: value(params.Until), Before: p.mark, Limit: p.limit,
	})
	return reply(c, AuditPage{Items: views(rows, auditView), Next: cursorOf(next)}, err)
}

// VerifyAudit is GET /v1/audit/verify.
func (s *Server) VerifyAudit(c echo.Context) error {
	r, err := s.cfg.Core.VerifyAudit(c.Request().Context(), who(c))
	s.hasten(c)
	if r.Problems == nil {
		r.Problems = []string{}
	}
	return reply(c, AuditReport{
		Intact: r.Intact, Records: r.Records, Chains: r.Chains, Checkpoints: r.Checkpoints, Cuts: r.Cuts, Unremoved: r.Unremoved, Problems: r.Problems,
	}, err)
}

func auditView(r *audit.Record) AuditItem {
	return AuditItem{
		Time: instant(r.Time), Action: r.Action, Outcome: r.Outcome, Realm: r.Realm, User: r.User, Serial: r.Serial,
		Actor: r.Actor, Client: r.Client, Source: r.Source, Reason: r.Reason,
		Detail: views(r.Detail, func(f *audit.Field) AuditField { return AuditField{Name: f.Name, Value: f.Value} }),
		Chain:  r.Chain, Seq: r.Seq, Hash: hex.EncodeToString(r.Hash[:]),
	}
}

func explanationView(x *tokens.Explanation) Explanation {
	r := &x.Record
	return Explanation{
		Time: instant(r.Time), Action: r.Action, Outcome: r.Outcome, Realm: r.Realm, User: r.User, Serial: r.Serial,
		Actor: r.Actor, Client: r.Client, Source: r.Source, Reason: r.Reason, Words: x.Words, Advice: x.Advice,
	}
}
