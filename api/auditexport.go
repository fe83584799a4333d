package api

import (
	"bufio"
	"encoding/base64"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// The media type of JSON lines.
const jsonLines = "application/x-ndjson"

// ExportAudit is GET /v1/audit/export. Records go out as they are read.
func (s *Server) ExportAudit(c echo.Context, params ExportAuditParams) error {
	if params.Format != nil && !params.Format.Valid() {
		return fmt.Errorf("%w: format is jsonl or csv", tokens.ErrInvalid)
	}
	q := tokens.RecordQuery{
		Realm: value(params.Realm), User: value(params.User), Serial: value(params.Serial), Action: value(params.Action),
		Outcome: value(params.Outcome), Actor: value(params.Actor), Policy: value(params.Policy),
		Since: value(params.Since), Until: value(params.Until),
	}
	if value(params.Format) == ExportAuditParamsFormatCsv {
		return s.stream(c, "text/csv; charset=utf-8", func(w io.Writer) error { return s.auditCSV(c, q, w) })
	}
	return s.stream(c, jsonLines, func(w io.Writer) error {
		var line []byte
		return s.cfg.Core.ExportAudit(c.Request().Context(), who(c), q, func(r *audit.Record) error {
			line = append(r.AppendJSON(line[:0]), '\n')
			_, err := w.Write(line)
			return err
		})
	})
}

// auditCSV writes the audit with a header row. What is further known stands in one
// cell, as JSON.
func (s *Server) auditCSV(c echo.Context, q tokens.RecordQuery, w io.Writer) error {
	out := csv.NewWriter(w)
	if err := out.Write([]string{"time", "action", "outcome", "realm", "user", "serial", "actor", "client", "source", "reason", "detail", "chain", "seq", "hash"}); err != nil {
		return err
	}
	err := s.cfg.Core.ExportAudit(c.Request().Context(), who(c), q, func(r *audit.Record) error {
		detail, err := json.Marshal(append([]audit.Field{}, r.Detail...))
		if err != nil {
			return fmt.Errorf("write an answer: %w", err)
		}
		return out.Write([]string{
			r.Time.UTC().Format(time.RFC3339Nano), inert(r.Action), inert(r.Outcome), inert(r.Realm), inert(r.User), inert(r.Serial),
			inert(r.Actor), inert(r.Client), inert(r.Source), inert(r.Reason), string(detail),
			strconv.FormatInt(r.Chain, 10), strconv.FormatInt(r.Seq, 10), hex.EncodeToString(r.Hash[:]),
		})
	})
	if err != nil {
		return err
	}
	out.Flush()
	return out.Error()
}

// maxLine bounds a line of what was kept elsewhere, in bytes.
const maxLine = 4 << 20

// CompareAudit is POST /v1/audit/verify. The lines go from the connection to the core
// and nowhere else.
func (s *Server) CompareAudit(c echo.Context) error {
	r := c.Request()
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != jsonLines {
		return fmt.Errorf("%w: send JSON lines, with 'Content-Type: %s'", errMediaType, jsonLines)
	}
	up := &upload{file: r.Body, control: http.NewResponseController(c.Response()), stall: s.cfg.Stall}
	lines := bufio.NewScanner(up)
	lines.Buffer(make([]byte, 0, 64<<10), maxLine)
	n := 0
	got, err := s.cfg.Core.CompareAudit(r.Context(), who(c), func() (*audit.Record, error) {
		for lines.Scan() {
			n++
			if len(lines.Bytes()) == 0 {
				continue
			}
			record, err := audit.ParseJSON(lines.Bytes())
			if err != nil {
				return nil, fmt.Errorf("%w: line %d: it is no record of the audit, as sinks and exports write them", tokens.ErrInvalid, n)
			}
			return &record, nil
		}
		switch err := lines.Err(); {
		case err == bufio.ErrTooLong:
			return nil, fmt.Errorf("%w: line %d is longer than %d bytes", tokens.ErrInvalid, n+1, maxLine)
		default:
			return nil, err
		}
	})
	s.hasten(c)
	return reply(c, AuditComparison{
		Intact: got.Intact, Records: got.Records, Chains: got.Chains, Checkpoints: got.Checkpoints, Cuts: got.Cuts, Unremoved: got.Unremoved,
		Compared: got.Compared, Removed: got.Removed, Problems: append([]string{}, got.Problems...),
	}, err)
}

// CheckpointAudit is POST /v1/audit/checkpoint.
func (s *Server) CheckpointAudit(c echo.Context) error {
	k, err := s.cfg.Core.CheckpointAudit(c.Request().Context(), who(c))
	return reply(c, AuditCheckpoint{
		Chain: k.Record.Chain, Seq: k.Record.Seq, Time: instant(k.Record.Time), Hash: hex.EncodeToString(k.Record.Hash[:]),
		Heads: views(k.Heads, headView), Signature: base64.StdEncoding.EncodeToString(k.Signature), Key: base64.StdEncoding.EncodeToString(k.Key),
	}, err)
}

// CutAudit is POST /v1/audit/cut.
func (s *Server) CutAudit(c echo.Context) error {
	in, err := decode[AuditCutRequest](c, "before")
	if err != nil {
		return err
	}
	got, err := s.cfg.Core.CutAudit(c.Request().Context(), who(c), in.Before, value(in.DryRun))
	s.hasten(c)
	out := AuditCut{DryRun: got.DryRun, Records: got.Records, Removed: got.Removed, Oldest: unlessZero(got.Oldest), Heads: views(got.Heads, headView)}
	if got.Cut != nil {
		out.Chain, out.Seq = &got.Cut.Chain, &got.Cut.Seq
	}
	return reply(c, out, err)
}

func headView(h *audit.Head) AuditHead {
	return AuditHead{Chain: h.Chain, Seq: h.Seq, Hash: hex.EncodeToString(h.Hash[:])}
}
