package api

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
)

// ImportUsers is POST /v1/users/import. The file goes from the connection to the
// core and nowhere else.
func (s *Server) ImportUsers(c echo.Context, params ImportUsersParams) error {
	r := c.Request()
	media, content, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset, named := content["charset"]; err != nil || media != "text/csv" || named && !strings.EqualFold(charset, "utf-8") {
		return fmt.Errorf("%w: send CSV in UTF-8, with 'Content-Type: text/csv'", errMediaType)
	}
	up := &upload{file: r.Body, control: http.NewResponseController(c.Response()), stall: s.cfg.Stall}
	i := tokens.UserImport{Realm: value(params.Realm), DryRun: value(params.DryRun), Update: value(params.Update)}
	got, err := s.cfg.Core.ImportUsers(r.Context(), who(c), i, up)
	s.hasten(c)
	if err != nil {
		return err
	}
	report := userReportView(&got, i.DryRun)
	if got.Rejected > 0 && !i.DryRun {
		return &usersRefused{report}
	}
	return reply(c, report, nil)
}

// maxOutcomes is how many records a report names at most.
const maxOutcomes = 10_000

func userReportView(r *tokens.UserReport, dryRun bool) UserImportReport {
	v := UserImportReport{
		DryRun: dryRun, Created: r.Created, Updated: r.Updated, Unchanged: r.Unchanged, Rejected: r.Rejected,
		Omitted: max(0, len(r.Records)-maxOutcomes),
	}
	list := r.Records
	if v.Omitted > 0 {
		bad := func(o tokens.UserOutcome) int {
			if o.Outcome == tokens.UserRejected {
				return 0
			}
			return 1
		}
		list = slices.SortedStableFunc(slices.Values(list), func(a, b tokens.UserOutcome) int { return bad(a) - bad(b) })[:maxOutcomes]
	}
	v.Records = views(list, func(o *tokens.UserOutcome) UserImportRecord {
		return UserImportRecord{Line: o.Line, Name: o.Name, Outcome: o.Outcome, Reason: o.Reason}
	})
	return v
}

// usersRefused is a list of users that was refused for its bad records.
type usersRefused struct{ report UserImportReport }

func (e *usersRefused) Error() string {
	if e.report.Rejected == 1 {
		return "1 record is bad; nothing was written"
	}
	return fmt.Sprintf("%d records are bad; nothing was written", e.report.Rejected)
}

func (e *usersRefused) Unwrap() error { return errRecords }

// problem is the answer: the error with the report's members.
func (e *usersRefused) problem(p Problem) any {
	r := &e.report
	return UserImportProblem{
		Type: p.Type, Title: p.Title, Status: p.Status, Detail: p.Detail, Instance: p.Instance,
		DryRun: r.DryRun, Created: r.Created, Updated: r.Updated, Unchanged: r.Unchanged, Rejected: r.Rejected,
		Records: r.Records, Omitted: r.Omitted,
	}
}

// ExportUsers is GET /v1/users/export.
func (s *Server) ExportUsers(c echo.Context, params ExportUsersParams) error {
	return s.stream(c, "text/csv; charset=utf-8", func(w io.Writer) error {
		return s.cfg.Core.ExportUsersCSV(c.Request().Context(), who(c), value(params.Realm), w)
	})
}
