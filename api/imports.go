package api

import (
	"fmt"

	"github.com/labstack/echo/v4"

	"watchword/seeds"
	"watchword/tokens"
)

// ListImports is GET /v1/imports.
func (s *Server) ListImports(c echo.Context, params ListImportsParams) error {
	p, err := pageOf(params.Cursor, params.Limit)
	if err != nil {
		return err
	}
	rows, err := s.cfg.Core.Batches(c.Request().Context(), who(c), tokens.BatchQuery{
		Realm: value(params.Realm), Before: p.mark, Limit: p.limit + 1,
	})
	items, next := pageItems(p, rows, func(b *tokens.Batch) int64 { return b.ID }, importView)
	return reply(c, ImportPage{Items: items, Next: next}, err)
}

// maxName is the length of the longest name of a file, in bytes.
const maxName = 255

// ImportSeeds is POST /v1/imports. The file goes from the connection to the
// importer and nowhere else.
func (s *Server) ImportSeeds(c echo.Context, params ImportSeedsParams) error {
	up, err := s.receive(c)
	if err != nil {
		return err
	}
	defer up.wipe()
	o := seeds.Options{
		Realm: value(params.Realm), Name: value(params.Name), Format: value(params.Format),
		PSK: up.psk, Password: up.password,
		Partial: value(params.Partial), DryRun: value(params.DryRun), All: value(params.All),
	}
	if o.Name == "" {
		o.Name = up.name
	}
	if len(o.Name) > maxName || !isText(o.Name) {
		return fmt.Errorf("%w: the file's name is longer than %d bytes or no text in one line", tokens.ErrInvalid, maxName)
	}
	report, err := s.cfg.Importer.Import(c.Request().Context(), who(c), o, up)
	if err != nil {
		return up.explain(err)
	}
	if report.Rejected > 0 && !report.DryRun && !report.Partial {
		return &importRefused{report}
	}
	s.hasten(c)
	return reply(c, reportView(report), nil)
}

// importRefused is an import that was refused for its bad records.
type importRefused struct{ report *seeds.Report }

func (e *importRefused) Error() string { return e.report.Message }
func (e *importRefused) Unwrap() error { return errRecords }

// problem is the answer: the error with the report's members.
func (e *importRefused) problem(p Problem) ImportProblem {
	r := reportView(e.report)
	return ImportProblem{
		Type: p.Type, Title: p.Title, Status: p.Status, Detail: p.Detail, Instance: p.Instance,
		Published: r.Published, DryRun: r.DryRun, Partial: r.Partial, Batch: r.Batch, Name: r.Name, Format: r.Format,
		Detected: r.Detected, Sha256: r.Sha256, Bytes: r.Bytes, Message: r.Message, Created: r.Created,
		Duplicate: r.Duplicate, Rejected: r.Rejected, Records: r.Records, Omitted: r.Omitted, Notes: r.Notes,
	}
}

func importView(b *tokens.Batch) Import {
	return Import{
		Id: b.ID, Realm: b.Realm, Name: b.Name, Format: b.Format, Sha256: b.SHA256, Actor: b.Actor,
		Created: instant(b.Created), Published: instant(b.Published), Tokens: b.Tokens, Duplicate: b.Duplicate, Rejected: b.Rejected,
	}
}

func reportView(r *seeds.Report) ImportReport {
	v := ImportReport{
		Published: r.Published, DryRun: r.DryRun, Partial: r.Partial, Name: r.Name, Format: r.Format, Detected: r.Detected,
		Sha256: r.SHA256, Bytes: r.Bytes, Message: r.Message, Created: r.Created, Duplicate: r.Duplicate, Rejected: r.Rejected,
		Records: views(r.Records, recordView), Omitted: r.Omitted,
	}
	if r.Batch != 0 {
		v.Batch = &r.Batch
	}
	if len(r.Notes) > 0 {
		v.Notes = &r.Notes
	}
	return v
}

func recordView(o *seeds.Outcome) ImportRecord {
	v := ImportRecord{Line: o.Line, Serial: o.Serial, Outcome: ImportRecordOutcome(o.Outcome), Reason: o.Reason}
	if o.Key != 0 {
		v.Key = &o.Key
	}
	return v
}
