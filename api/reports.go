package api

import (
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// ReportCredentials is GET /v1/reports/credentials. Rows go out as they are read.
func (s *Server) ReportCredentials(c echo.Context, params ReportCredentialsParams) error {
	q := tokens.ReportQuery{Realm: value(params.Realm), Unowned: value(params.Unowned), Find: tokens.Finding(value(params.Find))}
	var err error
	switch q.Unused, err = unusedFor(params.UnusedDays); {
	case err != nil:
		return err
	case params.Find != nil && !params.Find.Valid():
		names := fmt.Sprint(tokens.Findings()) // in brackets
		return fmt.Errorf("%w: there is no such finding; there are %s", tokens.ErrInvalid, strings.ReplaceAll(strings.Trim(names, "[]"), " ", ", "))
	case params.Format != nil && !params.Format.Valid():
		return fmt.Errorf("%w: format is json or csv", tokens.ErrInvalid)
	case value(params.Format) == ReportCredentialsParamsFormatCsv:
		return s.credentialsCSV(c, q)
	}
	return s.stream(c, "application/json", func(w io.Writer) error {
		list := items{w: w}
		err := s.cfg.Core.Report(c.Request().Context(), who(c), q, func(r tokens.ReportRow) error {
			return list.add(credentialView(&r))
		})
		if err != nil {
			return err
		}
		return list.end("")
	})
}

// unusedFor is how long a token is not used that counts as unused; zero if nothing
// is said.
func unusedFor(days *int) (time.Duration, error) {
	if days != nil && (*days < 1 || *days > 36500) {
		return 0, fmt.Errorf("%w: unused_days is 1 to 36500", tokens.ErrInvalid)
	}
	return times(value(days), 24*time.Hour), nil
}

func credentialView(r *tokens.ReportRow) CredentialRow {
	v := CredentialRow{
		Realm: r.Realm, User: r.User, Display: r.Display, UserState: string(r.UserState), Locked: r.Locked, Failures: r.Failures,
		Pin: r.PIN, Serial: r.Serial, Type: string(r.Type), Algorithm: r.Algorithm, Digits: r.Digits, Period: r.Period,
		State: string(r.State), Assigned: unlessZero(r.Assigned), LastUsed: unlessZero(r.LastUsed), DriftSeconds: r.DriftSeconds,
		Expires: unlessZero(r.Expires), Attestation: r.Attestation, Model: r.Model,
		Tags: append([]string{}, r.Tags...), Findings: make([]string, len(r.Findings)),
	}
	if r.Batch != 0 {
		v.Batch = &r.Batch
	}
	for i, f := range r.Findings {
		v.Findings[i] = string(f)
	}
	return v
}

// credentialColumns are the columns of the report as CSV, and what stands in them.
var credentialColumns = []struct {
	name string
	cell func(*CredentialRow) string
}{
	{"realm", func(r *CredentialRow) string { return inert(r.Realm) }},
	{"user", func(r *CredentialRow) string { return inert(r.User) }},
	{"display", func(r *CredentialRow) string { return inert(r.Display) }},
	{"user_state", func(r *CredentialRow) string { return r.UserState }},
	{"locked", func(r *CredentialRow) string { return strconv.FormatBool(r.Locked) }},
	{"failures", func(r *CredentialRow) string { return strconv.Itoa(r.Failures) }},
	{"pin", func(r *CredentialRow) string { return r.Pin }},
	{"serial", func(r *CredentialRow) string { return inert(r.Serial) }},
	{"type", func(r *CredentialRow) string { return r.Type }},
	{"algorithm", func(r *CredentialRow) string { return r.Algorithm }},
	{"digits", func(r *CredentialRow) string { return unlessNone(r.Digits) }},
	{"period", func(r *CredentialRow) string { return unlessNone(r.Period) }},
	{"state", func(r *CredentialRow) string { return r.State }},
	{"assigned", func(r *CredentialRow) string { return written(r.Assigned) }},
	{"last_used", func(r *CredentialRow) string { return written(r.LastUsed) }},
	{"drift_seconds", func(r *CredentialRow) string {
		if r.DriftSeconds == nil {
			return ""
		}
		return strconv.Itoa(*r.DriftSeconds)
	}},
	{"expires", func(r *CredentialRow) string { return written(r.Expires) }},
	{"attestation", func(r *CredentialRow) string { return inert(r.Attestation) }},
	{"model", func(r *CredentialRow) string { return inert(r.Model) }},
	{"batch", func(r *CredentialRow) string {
		if r.Batch == nil {
			return ""
		}
		return strconv.FormatInt(*r.Batch, 10)
	}},
	{"tags", func(r *CredentialRow) string { return inert(strings.Join(r.Tags, " ")) }},
	{"findings", func(r *CredentialRow) string { return strings.Join(r.Findings, " ") }},
}

func (s *Server) credentialsCSV(c echo.Context, q tokens.ReportQuery) error {
	return s.stream(c, "text/csv; charset=utf-8", func(w io.Writer) error {
		out := csv.NewWriter(w)
		cells := make([]string, len(credentialColumns))
		for i, column := range credentialColumns {
			cells[i] = column.name
		}
		if err := out.Write(cells); err != nil {
			return err
		}
		err := s.cfg.Core.Report(c.Request().Context(), who(c), q, func(r tokens.ReportRow) error {
			v := credentialView(&r)
			for i, column := range credentialColumns {
				cells[i] = column.cell(&v)
			}
			return out.Write(cells)
		})
		if err != nil {
			return err
		}
		out.Flush()
		return out.Error()
	})
}

// inert is a text as it stands in a cell: no spreadsheet takes it for a formula, for
// which some look behind blanks, and take full-width signs for the usual ones.
func inert(text string) string {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(text, " \u00a0"))
	if strings.ContainsRune("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20", first) {
		return "'" + text
	}
	return text
}

// unlessNone is a number as it stands in a cell; empty for zero, which is none.
func unlessNone(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// written is a time as every answer has it; empty for none.
func written(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}

// ReportSummary is GET /v1/reports/summary.
func (s *Server) ReportSummary(c echo.Context, params ReportSummaryParams) error {
	unused, err := unusedFor(params.UnusedDays)
	if err != nil {
		return err
	}
	got, err := s.cfg.Core.Summary(c.Request().Context(), who(c), value(params.Realm), unused)
	s.hasten(c)
	return reply(c, Summary{
		Time: instant(got.Time), Realm: got.Realm, Users: got.Users, Disabled: got.Disabled, Unowned: got.Unowned,
		Tokens: views(got.Tokens, func(n *tokens.TokenCount) TokenCount {
			return TokenCount{Type: TokenType(n.Type), State: TokenState(n.State), Count: n.Count}
		}),
		Findings: views(got.Findings, func(n *tokens.FindingCount) FindingCount {
			return FindingCount{Finding: Finding(n.Finding), Count: n.Count}
		}),
		Resyncs: views(got.Resyncs, func(n *tokens.ResyncCount) ResyncCount {
			return ResyncCount{Batch: n.Batch, Name: n.Name, Tokens: n.Tokens, Resyncs: n.Resyncs}
		}),
	}, err)
}
