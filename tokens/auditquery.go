package tokens

import (
	"fmt"
	"slices"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// valid brings a query into its form, for a principal of the realm that it may ask
// for.
func (q *RecordQuery) valid(p Principal) (err error) {
	if q.Realm, err = p.listed(q.Realm); err != nil {
		return err
	}
	if q.User != "" {
		if q.User, err = FoldName(q.User); err != nil {
			return err
		}
	}
	for _, check := range []func(...string) error{askable, searchable} {
		if err := check(q.Serial, q.Action, q.Outcome, q.Actor, q.Policy); err != nil {
			return err
		}
	}
	if !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until) {
		return fmt.Errorf("%w: since is not before until: nothing is between them", ErrInvalid)
	}
	return nil
}

// Selects says whether the query, but for Before and Limit, selects a record.
func (q *RecordQuery) Selects(r *audit.Record) bool {
	for _, want := range [...][2]string{
		{q.Realm, r.Realm}, {q.User, r.User}, {q.Serial, r.Serial}, {q.Action, r.Action}, {q.Outcome, r.Outcome}, {q.Actor, r.Actor},
	} {
		if want[0] != "" && want[0] != want[1] {
			return false
		}
	}
	return (q.Actor == "" || q.Action != "" || r.Action != string(policy.Verify)) &&
		(q.Policy == "" || slices.Contains(r.Policies(), q.Policy)) &&
		(q.Since.IsZero() || !r.Time.Before(q.Since)) && (q.Until.IsZero() || r.Time.Before(q.Until))
}
