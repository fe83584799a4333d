package tokens

import (
	"bytes"
	"context"
	"fmt"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// AgainstReport is what CompareAudit found.
type AgainstReport struct {
	AuditReport
	Compared int64 // records that were kept elsewhere
	Removed  int64 // of these, removed behind a signed cut
}

// CompareAudit verifies the audit as VerifyAudit does, and holds it against records
// that were kept elsewhere: next answers one after another, in any order, and nil at
// their end. Each must be there as it was, and what its checkpoints signed as well,
// unless a signed cut removed it: so a chain whose end was taken away is found. An
// error of next's ends it.
func (s *Service) CompareAudit(ctx context.Context, p Principal, next func() (*audit.Record, error)) (AgainstReport, error) {
	e := audit.Event{Realm: p.Realm}
	if err := s.authorise(ctx, p, policy.AuditVerify, &e); err != nil {
		return AgainstReport{}, err
	}
	report := AgainstReport{AuditReport: AuditReport{Intact: true, Problems: []string{}}}
	v := s.verification(&report.AuditReport)
	if err := v.readCuts(ctx); err != nil {
		return report, err
	}
	if err := v.against(ctx, &report, next); err != nil {
		return report, err
	}
	report.Checkpoints = 0 // those of the file
	if err := v.all(ctx); err != nil {
		return report, err
	}
	e.Detail = append(report.fields(), audit.Field{Name: "compared", Value: itoa(report.Compared)})
	return report, s.record(ctx, p, policy.AuditVerify, e)
}

func (v *verification) against(ctx context.Context, report *AgainstReport, next func() (*audit.Record, error)) error {
	look := lookup{s: v.s, windows: map[int64]*glimpse{}}
	for {
		kept, err := next()
		if err != nil || kept == nil {
			return err
		}
		report.Compared++
		if kept.Seq < 1 {
			report.problem("the file: chain %d: record %d has no place in a chain", kept.Chain, kept.Seq)
			continue
		}
		heads, _, _ := v.signedHeads(kept, "the file: ")
		for _, h := range heads {
			if err := v.held(ctx, &look, report, h, fmt.Sprintf("a checkpoint in the file, record %d of chain %d, signed", kept.Seq, kept.Chain)); err != nil {
				return err
			}
		}
		there, err := look.record(ctx, kept.Chain, kept.Seq)
		if err != nil {
			return err
		}
		if there != nil && there.Hash == kept.Hash {
			if !bytes.Equal(there.AppendJSON(nil), kept.AppendJSON(nil)) {
				report.problem("chain %d: record %d is not what the file holds, under the same hash: one of them was altered", kept.Chain, kept.Seq)
			}
			continue
		}
		removed, err := v.judge(ctx, there, audit.Head{Chain: kept.Chain, Seq: kept.Seq, Hash: kept.Hash}, "the file holds")
		if err != nil {
			return err
		}
		if removed {
			report.Removed++
		}
	}
}

// held sees that a record is there that somebody knows by its hash.
func (v *verification) held(ctx context.Context, look *lookup, report *AgainstReport, h audit.Head, by string) error {
	if h.Seq < 1 {
		return nil
	}
	there, err := look.record(ctx, h.Chain, h.Seq)
	if err != nil || there != nil && there.Hash == h.Hash {
		return err
	}
	_, err = v.judge(ctx, there, h, by)
	return err
}

// judge says what is wrong about a record that is not the one that somebody knows:
// nothing, if it was removed behind a signed cut.
func (v *verification) judge(ctx context.Context, there *audit.Record, h audit.Head, by string) (removed bool, err error) {
	if there != nil {
		v.report.problem("chain %d: record %d is not the one that %s", h.Chain, h.Seq, by)
		return false, nil
	}
	cut, err := v.cut(ctx, h.Chain, h.Seq)
	if err != nil {
		return false, err
	}
	switch {
	case h.Seq < cut.Seq, h.Seq == cut.Seq && h.Hash == cut.Hash:
		return true, nil
	case h.Seq == cut.Seq:
		v.report.problem("chain %d: record %d, which %s, was not the one that a signed cut removed", h.Chain, h.Seq, by)
	default:
		v.report.problem("chain %d: record %d, which %s, is missing", h.Chain, h.Seq, by)
	}
	return false, nil
}

// lookup reads records of which the next one asked for is mostly the one behind the
// last.
type lookup struct {
	s       *Service
	windows map[int64]*glimpse // by chain
}

// glimpse are records of a chain, without a gap but where there is one.
type glimpse struct {
	from, to int64 // places that were looked at
	records  []audit.Record
}

// The chains that are looked at by turns, and how many records of each are read at once.
const (
	mostWindows = 16
	firstWindow = 8
	mostWindow  = 1000
)

// record answers a record, or nil.
func (l *lookup) record(ctx context.Context, chain, seq int64) (*audit.Record, error) {
	w := l.windows[chain]
	if w == nil || seq < w.from || seq > w.to {
		size := int64(firstWindow)
		if w != nil && seq > w.to && seq-w.to <= firstWindow {
			size = min(2*(w.to-w.from+1), mostWindow)
		}
		if w == nil && len(l.windows) >= mostWindows {
			clear(l.windows)
		}
		page, err := l.s.db.After(ctx, chain, seq-1, int(size))
		if err != nil {
			return nil, unavailable(err)
		}
		w = &glimpse{from: seq, to: seq, records: page}
		if len(page) > 0 {
			w.to = page[len(page)-1].Seq // the chain may have gone on since
		}
		l.windows[chain] = w
	}
	for i := max(0, min(int(seq-w.from), len(w.records)-1)); i >= 0 && i < len(w.records); i-- {
		if w.records[i].Seq == seq {
			return &w.records[i], nil
		}
	}
	return nil, nil
}
