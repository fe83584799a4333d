package tokens

import (
	"context"
	"fmt"
	"time"
)

const (
	// expireLook is the time between two looks at whether audit records are too old.
	expireLook = time.Hour
	// expireLeast is how much there is at least to remove: a signed cut a day is enough.
	expireLeast = 24 * time.Hour
)

// expire removes, until ctx ends, the audit records that are older than Config.AuditKeep,
// by a signed cut about once a day. Every node does; where one has cut, there is nothing
// left for the others, and if two cut at once they name the same records.
func (s *Service) expire(ctx context.Context) {
	look := time.NewTicker(expireLook)
	defer look.Stop()
	for {
		if err := s.expireAudit(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("audit records that are older than audit.keep could not be removed; it is tried again in an hour", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// expireAudit cuts what is too old, if that is a day's records or more. A refusal, such
// as that a sink was not told of them yet, is in the audit.
// Nor is it done by a clock that the database's contradicts: what is too old by it may be
// all that there is, and what was removed does not come back.
func (s *Service) expireAudit(ctx context.Context) error {
	if _, err := s.current(ctx, systemPrincipal(), nil); err != nil { // it reads the database's clock
		return err
	}
	if s.skewed.Load() {
		return fmt.Errorf("%w: the clocks of server and database differ", ErrUnavailable)
	}
	before := s.cfg.Now().Add(-s.cfg.AuditKeep)
	first, _, err := s.db.Onward(ctx, RecordQuery{Limit: 1}, 0)
	if err != nil {
		return unavailable(err)
	}
	if len(first) == 0 || first[0].Time.After(before.Add(-expireLeast)) {
		return nil
	}
	report, err := s.CutAudit(ctx, systemPrincipal(), before, false)
	if err == nil && report.Removed > 0 {
		s.log.Info("audit records that are older than audit.keep were removed, after a signed cut", "records", report.Removed, "before", before.UTC().Format(time.RFC3339))
	}
	return err
}
