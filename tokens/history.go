package tokens

import (
	"context"
	"strconv"

	"watchword/tokens/audit"
)

// eachRecord calls f for the audit records that q selects, newest first, at most so
// many.
func (s *Service) eachRecord(ctx context.Context, q RecordQuery, most int, f func(*audit.Record)) error {
	for looked := 0; looked < most; {
		q.Limit = min(most-looked, 1000)
		list, next, err := s.db.Records(ctx, q)
		if err != nil {
			return unavailable(err)
		}
		for i := range list {
			f(&list[i])
		}
		if next == 0 {
			return nil
		}
		q.Before = next
		looked += max(len(list), 100) // a page that found nothing looked at much
	}
	return nil
}

// detail is a field of a record; empty if it has none of that name.
func detail(r *audit.Record, name string) string {
	for _, f := range r.Detail {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// detailNumber is a field of a record that is a number.
func detailNumber(r *audit.Record, name string) (int64, bool) {
	n, err := strconv.ParseInt(detail(r, name), 10, 64)
	return n, err == nil
}
