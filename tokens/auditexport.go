package tokens

import (
	"context"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// ExportAudit calls f for each record that a query selects, the oldest first and each
// chain in its order, and stops at f's first error, which it returns. Before and Limit
// mean nothing. It goes as far as the chains were when it began. f must not keep the
// record.
func (s *Service) ExportAudit(ctx context.Context, p Principal, q RecordQuery, f func(*audit.Record) error) error {
	if err := q.valid(p); err != nil {
		return err
	}
	e := audit.Event{Realm: q.Realm}
	if err := s.authorise(ctx, p, policy.AuditExport, &e); err != nil {
		return err
	}
	n, err := s.exportRecords(ctx, q, f)
	e.Detail = []audit.Field{{Name: "records", Value: itoa(n)}}
	if err != nil {
		e.Outcome, e.Reason = "refused", refusal(err)
	}
	if rerr := s.record(ctx, p, policy.AuditExport, e); rerr != nil {
		return rerr
	}
	return err
}

func (s *Service) exportRecords(ctx context.Context, q RecordQuery, f func(*audit.Record) error) (n int64, err error) {
	heads, err := s.db.Heads(ctx)
	if err != nil {
		return 0, unavailable(err)
	}
	// What is behind them is being committed just now, and may come in any order.
	ends := make(map[int64]int64, len(heads))
	for _, h := range heads {
		ends[h.Chain] = h.Seq
	}
	q.Before, q.Limit = 0, 1000
	last, err := s.newest(ctx)
	if err != nil {
		return 0, err
	}
	for after := int64(0); after < last; {
		page, next, err := s.db.Onward(ctx, q, after)
		if err != nil {
			return n, unavailable(err)
		}
		for i := range page {
			r := &page[i]
			if end, known := ends[r.Chain]; r.ID > last || known && r.Seq > end {
				continue
			}
			n++
			if err := f(r); err != nil {
				return n, err
			}
		}
		if err := ctx.Err(); err != nil || next == 0 {
			return n, err
		}
		after = next
	}
	return n, nil
}

// newest is the ID of the last record.
func (s *Service) newest(ctx context.Context) (int64, error) {
	page, _, err := s.db.Records(ctx, RecordQuery{Limit: 1})
	if err != nil || len(page) == 0 {
		return 0, unavailable(err)
	}
	return page[0].ID, nil
}
