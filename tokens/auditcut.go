package tokens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// CutReport is what CutAudit did, or would do.
type CutReport struct {
	DryRun  bool
	Records int64         // that are older, and go
	Heads   []audit.Head  // the last of them in each chain
	Oldest  time.Time     // of what stays; zero if that is nothing but the cut
	Removed int64         // that went
	Cut     *audit.Record // the signed cut; nil if there was nothing to remove, or nothing was done
}

// cutChunk is how many records are removed in one transaction: short, so that no
// attempt waits for it.
const cutChunk = 500

// CutAudit removes the records from before a time, which is at least Config.AuditKeep
// ago: the oldest ones up to the first, in order of ID, that is not older. It looks at
// each of them first, and refuses with ErrState if one was altered or is missing, or if
// a sink was not told it yet. What it removes it names before, signed, so that the
// audit is proven from there on; a removal that was broken off is gone on with by any
// server.
func (s *Service) CutAudit(ctx context.Context, p Principal, before time.Time, dryRun bool) (CutReport, error) {
	e := audit.Event{Detail: []audit.Field{{Name: fieldSince, Value: before.UTC().Format(time.RFC3339)}}}
	if dryRun {
		e.Detail = append(e.Detail, audit.Field{Name: "dry_run", Value: "true"})
	}
	if err := s.authorise(ctx, p, policy.AuditCut, &e); err != nil {
		return CutReport{}, err
	}
	if keep := s.cfg.AuditKeep; before.After(s.cfg.Now().Add(-keep)) {
		return CutReport{}, s.refuse(ctx, p, policy.AuditCut, e, fmt.Errorf("%w: records stay for at least %d days: name an earlier day", ErrInvalid, int(keep/(24*time.Hour))))
	}
	report, c, last, err := s.planCut(ctx, before)
	report.DryRun = dryRun
	if err == nil && len(report.Heads) > 0 {
		err = s.awaited(ctx, report.Heads)
	}
	switch {
	case errors.Is(err, ErrState):
		return report, s.refuse(ctx, p, policy.AuditCut, e, err)
	case err != nil:
		return report, err
	case dryRun || report.Records == 0:
		e.Detail = append(e.Detail, audit.Field{Name: "records", Value: itoa(report.Records)})
		if err := s.record(ctx, p, policy.AuditCut, e); err != nil || dryRun {
			return report, err
		}
		report.Removed, err = s.finishCuts(ctx, p) // of one that was broken off
		return report, err
	}
	// What went before is named again: the records of older cuts may go with this one.
	for _, h := range report.Heads {
		c.heads[h.Chain] = h
	}
	heads := slices.SortedFunc(maps.Values(c.heads), func(a, b audit.Head) int { return cmp.Compare(a.Chain, b.Chain) })
	fields, _, err := s.signHeads(ctx, audit.CutDigest(heads, last), heads)
	if err != nil {
		return report, err
	}
	e.Detail = append(append(e.Detail, fields...),
		audit.Field{Name: fieldLast, Value: itoa(last)}, audit.Field{Name: "records", Value: itoa(report.Records)})
	change := Change{}
	if err := s.ledger.commit(ctx, &change, []audit.Event{s.event(p, policy.AuditCut, e)}); err != nil {
		return report, err
	}
	report.Cut = &change.Records[0]
	report.Removed, err = s.finishCuts(ctx, p)
	return report, err
}

// planCut finds what is older than a time, and proves it as it goes. c are the cuts
// before, and last is the ID of the last record that is to go.
func (s *Service) planCut(ctx context.Context, before time.Time) (report CutReport, c cuts, last int64, err error) {
	c, contradictions, err := s.readCuts(ctx)
	if err != nil {
		return report, c, 0, err
	}
	if len(contradictions) > 0 {
		return report, c, 0, fmt.Errorf("%w: %s; nothing was removed: see 'watchword audit verify'", ErrState, contradictions[0])
	}
	ends := maps.Clone(c.heads)
	moved := map[int64]bool{}
	for after := int64(0); ; {
		page, next, err := s.db.Onward(ctx, RecordQuery{Limit: 1000}, after)
		if err != nil {
			return report, c, 0, unavailable(err)
		}
		for i := range page {
			r := &page[i]
			head := ends[r.Chain]
			if r.Seq <= c.heads[r.Chain].Seq {
				continue // an older cut is not through
			}
			if !r.Time.Before(before) {
				report.Oldest = r.Time
				next = 0
				break
			}
			if r.Seq != head.Seq+1 || audit.Sum(head.Hash, r.Chain, r.Seq, &r.Event) != r.Hash {
				return report, c, 0, fmt.Errorf("%w: chain %d: record %d was altered, or the one before it is not there; nothing was removed: see 'watchword audit verify'", ErrState, r.Chain, r.Seq)
			}
			ends[r.Chain], moved[r.Chain], last = audit.Head{Chain: r.Chain, Seq: r.Seq, Hash: r.Hash}, true, r.ID
			report.Records++
		}
		if err := ctx.Err(); err != nil {
			return report, c, 0, err
		}
		if next == 0 {
			break
		}
		after = next
	}
	for _, chain := range slices.Sorted(maps.Keys(moved)) {
		report.Heads = append(report.Heads, ends[chain])
	}
	return report, c, last, nil
}

// awaited refuses to remove what a sink was not told yet.
func (s *Service) awaited(ctx context.Context, heads []audit.Head) error {
	list, err := s.sinks(ctx)
	if err != nil {
		return err
	}
	var waiting []string
	for _, k := range list.Sinks {
		told, err := s.db.Told(ctx, k.ID)
		if err != nil {
			return unavailable(err)
		}
		if slices.ContainsFunc(heads, func(h audit.Head) bool { return k.from(told, h.Chain) < h.Seq }) {
			waiting = append(waiting, k.Name)
		}
	}
	if len(waiting) > 0 {
		return fmt.Errorf("%w: not everything that is older was told to %s yet; nothing was removed: see 'watchword sink list', and delete sinks that are no more", ErrState, strings.Join(waiting, ", "))
	}
	return nil
}

// finishCuts removes what signed cuts name and is still there, and notes that it is
// through. Two servers may do so at once.
func (s *Service) finishCuts(ctx context.Context, p Principal) (removed int64, err error) {
	c, _, err := s.readCuts(ctx)
	if err != nil {
		return 0, err
	}
	for _, cut := range slices.Backward(c.pending) { // the oldest first
		n := int64(0)
		for after := int64(0); ; {
			some, last, err := s.db.Cut(ctx, cut.heads, after, cut.last, cutChunk)
			n += int64(some)
			if err != nil {
				return removed + n, unavailable(err)
			}
			if err := ctx.Err(); err != nil {
				return removed + n, err
			}
			if last == 0 {
				break
			}
			after = last
		}
		removed += n
		e := audit.Event{Detail: []audit.Field{{Name: fieldEnds, Value: cut.name}, {Name: "removed", Value: itoa(n)}}}
		if err := s.record(ctx, p, policy.AuditCut, e); err != nil {
			return removed, err
		}
	}
	return removed, nil
}
