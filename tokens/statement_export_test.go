package tokens

import (
	"context"
	"time"
)

// DropStatements does what the housekeeping does about keys that are retired.
func (s *Service) DropStatements(ctx context.Context, now time.Time) error {
	return s.dropStatements(ctx, now)
}

// SubjectOf is how statements name a user.
var SubjectOf = subjectOf
