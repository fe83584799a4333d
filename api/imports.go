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
		PSK: up.psk, Password: up.password, PGPKey: up.pgpKey, PGPSigner: up.pgpSigner, Signer: up.signer,
		Partial: value(params.Partial), DryRun: value(params.DryRun), All: value(params.All),
		AllowRSA15: value(params.AllowRsa15), AllowHost: value(params.AllowHostUnwrap),
		Assign: value(params.Assign), Create: value(params.CreateUsers),
	}
	if o.Choices, err = choicesOf(&params); err != nil {
		return err
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

// choicesOf reads what was chosen of what a file may leave open.
func choicesOf(p *ImportSeedsParams) (c seeds.Choices, err error) {
	if p.Type != nil && !p.Type.Valid() {
		return c, fmt.Errorf("%w: type is totp or hotp", tokens.ErrInvalid)
	}
	c.Type = tokens.Type(value(p.Type))
	if c.Hash, err = seeds.ParseHash(string(value(p.Hash))); err != nil {
		return c, err
	}
	if c.Digits = value(p.Digits); p.Digits != nil && (c.Digits < 6 || c.Digits > 8) {
		return c, fmt.Errorf("%w: digits is 6, 7 or 8", tokens.ErrInvalid)
	}
	if c.Period = value(p.Period); p.Period != nil && (c.Period < 1 || c.Period > 86400) {
		return c, fmt.Errorf("%w: period is 1 to 86400 seconds", tokens.ErrInvalid)
	}
	if c.Encoding, err = seeds.ParseEncoding(string(value(p.Encoding))); err != nil {
		return c, err
	}
	c.TimeOrigin = value(p.TimeOrigin)
	return c, nil
}

// ShowImport is GET /v1/imports/{id}.
func (s *Server) ShowImport(c echo.Context, id ImportId) error {
	b, tally, err := s.cfg.Core.ShowBatch(c.Request().Context(), who(c), id)
	return reply(c, importDetail(&b, &tally), err)
}

// UndoImport is POST /v1/imports/{id}/undo.
func (s *Server) UndoImport(c echo.Context, id ImportId) error {
	b, tally, err := s.cfg.Core.Undo(c.Request().Context(), who(c), id)
	return reply(c, importDetail(&b, &tally), err)
}

func importDetail(b *tokens.Batch, tally *tokens.Tally) ImportDetail {
	d := ImportDetail{Import: importView(b), States: map[string]int{}, Fresh: tally.Fresh}
	for state, n := range tally.States {
		d.States[string(state)] = n
	}
	d.Models = views(tally.Models, func(m *tokens.ModelCount) ModelCount { return ModelCount{Model: m.Model, Tokens: m.Tokens} })
	return d
}

// importRefused is an import that was refused for its bad records.
type importRefused struct{ report *seeds.Report }

func (e *importRefused) Error() string { return e.report.Message }
func (e *importRefused) Unwrap() error { return errRecords }

// problem is the answer: the error with the report's members.
func (e *importRefused) problem(p Problem) any {
	r := reportView(e.report)
	return ImportProblem{
		Type: p.Type, Title: p.Title, Status: p.Status, Detail: p.Detail, Instance: p.Instance,
		Published: r.Published, DryRun: r.DryRun, Partial: r.Partial, Batch: r.Batch, Name: r.Name, Format: r.Format,
		Detected: r.Detected, Sha256: r.Sha256, Bytes: r.Bytes, Message: r.Message, Created: r.Created,
		Duplicate: r.Duplicate, Rejected: r.Rejected, ThroughHsm: r.ThroughHsm, ThroughHost: r.ThroughHost, Records: r.Records, Omitted: r.Omitted, Notes: r.Notes,
	}
}

func importView(b *tokens.Batch) Import {
	v := Import{
		Id: b.ID, Realm: b.Realm, Name: b.Name, Format: b.Format, Sha256: b.SHA256, Actor: b.Actor,
		Created: instant(b.Created), Published: instant(b.Published), Tokens: b.Tokens, Duplicate: b.Duplicate, Rejected: b.Rejected,
	}
	if !b.Undone.IsZero() {
		undone := instant(b.Undone)
		v.Undone, v.Removed = &undone, &b.Removed
	}
	return v
}

func reportView(r *seeds.Report) ImportReport {
	v := ImportReport{
		Published: r.Published, DryRun: r.DryRun, Partial: r.Partial, Name: r.Name, Format: r.Format, Detected: r.Detected,
		Sha256: r.SHA256, Bytes: r.Bytes, Message: r.Message, Created: r.Created, Duplicate: r.Duplicate, Rejected: r.Rejected,
		ThroughHsm: r.ThroughHSM, ThroughHost: r.ThroughHost, Records: views(r.Records, recordView), Omitted: r.Omitted,
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
	if o.User != "" {
		v.User = &o.User
	}
	if o.Path != "" {
		path := ImportRecordPath(o.Path)
		v.Path = &path
	}
	return v
}
