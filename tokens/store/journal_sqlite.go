package store

import (
	"errors"
	"slices"

	"watchword/tokens/audit"
)

// threaded lists a user's records, newest first, by following the threads of
// the users of that name (one in each realm), together with the records of
// when there was no such user. It reads one more than a page has, and answers the
// last one that it looked at, if it has looked at enough and there are others.
func threaded(s *session, q *sought) (found []audit.Record, last int64, err error) {
	users, err := s.named("users", "key", q.Realm, q.User)
	if err != nil {
		return nil, 0, err
	}
	var standings filter
	standings.where(s.among("user_id", users))
	rows, err := s.query(`SELECT tail FROM standings`+standings.String(), standings.args...)
	ends, err := list(rows, err, 1, (*fields).int) // the newest of each thread that was not looked at
	if err != nil {
		return nil, 0, err
	}
	if q.Before != 0 {
		// The page before ended there, so most of that thread can be skipped.
		at, err := follow(s, q.Before)
		if err != nil {
			return nil, 0, err
		}
		if at != nil && at.linked && at.User == q.User && len(ends) == 1 && (q.Realm == "" || at.Realm == q.Realm) {
			ends[0] = at.prev
		}
	}
	other, err := unthreaded(s, q)
	if err != nil {
		return nil, 0, err
	}

	seen := 0
	for limit := int(limited(q.Limit)) + 1; len(found) < limit; {
		end := -1
		for i, id := range ends {
			if id != 0 && (end < 0 || id > ends[end]) {
				end = i
			}
		}
		if len(other) > 0 && (end < 0 || other[0].ID > ends[end]) {
			found, other = append(found, other[0]), other[1:]
			continue
		}
		if end < 0 {
			break
		}
		r, err := follow(s, ends[end])
		if err != nil {
			return nil, 0, err
		}
		if r == nil {
			// A signed cut removes from the first record on.
			var first int64
			if err := s.one(`SELECT coalesce(min(id), 0) FROM audit`, nil, &first); err != nil {
				return nil, 0, err
			}
			if ends[end] < first {
				ends[end] = 0
				continue
			}
		}
		if r == nil || !r.linked {
			return nil, 0, errors.New("a user's audit records are not all there")
		}
		ends[end] = r.prev
		if r.ID < q.low {
			ends[end] = 0
			continue
		}
		if r.ID < q.high && q.Selects(&r.Record) {
			found = append(found, r.Record)
		}
		if seen++; seen == allFollowed && len(found) <= int(limited(q.Limit)) {
			return found, r.ID, nil
		}
	}
	return found, 0, nil
}

// allFollowed is how many records of a thread a page looks at.
const allFollowed = 2000

// threadedRecord is a record with the id of the user's one before it.
type threadedRecord struct {
	audit.Record
	prev   int64
	linked bool
}

// follow reads a record by its id; nil if there is none.
func follow(s *session, id int64) (*threadedRecord, error) {
	rows, err := s.query(`SELECT `+recordColumns+`, prev, prev IS NOT NULL FROM audit WHERE id = ?`, id)
	found, err := list(rows, err, recordWidth+2, func(f *fields) threadedRecord {
		return threadedRecord{Record: f.record(), prev: f.int(), linked: f.bool()}
	})
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}

// unthreaded lists the records of a name from when it was no user's.
func unthreaded(s *session, q *sought) ([]audit.Record, error) {
	var f filter
	f.where("user_key = ? AND user_key <> '' AND prev IS NULL", q.User)
	f.where("id >= ? AND id < ?", q.low, q.high)
	f.equal("realm", q.Realm)
	f.equal("serial", q.Serial)
	f.equal("action", q.Action)
	f.equal("outcome", q.Outcome)
	f.equal("+actor", q.Actor)
	if q.Actor != "" && q.Action == "" {
		f.where("+action <> 'verify'")
	}
	s.unindexed(&f, q)
	rows, err := s.query(`SELECT `+recordColumns+` FROM audit`+f.String()+` ORDER BY id DESC LIMIT ?`,
		append(slices.Clip(f.args), limited(q.Limit)+1)...)
	return list(rows, err, recordWidth, (*fields).record)
}
