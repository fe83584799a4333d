package tokens

import (
	"context"
	"errors"
	"fmt"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// removeChunk is how many tokens one transaction of an undoing looks at.
const removeChunk = 1000

// ShowBatch answers a published import and what is there of it.
func (s *Service) ShowBatch(ctx context.Context, p Principal, id int64) (Batch, Tally, error) {
	e := audit.Event{Realm: p.Realm, Detail: []audit.Field{{Name: "batch", Value: itoa(id)}}}
	if err := s.authorise(ctx, p, policy.ImportShow, &e); err != nil {
		return Batch{}, Tally{}, err
	}
	b, err := s.batch(ctx, p, id)
	if err != nil {
		return Batch{}, Tally{}, s.refuse(ctx, p, policy.ImportShow, e, err)
	}
	tally, err := s.db.Tally(ctx, id)
	if err != nil {
		return Batch{}, Tally{}, unavailable(err)
	}
	e.Realm = b.Realm
	return b, tally, s.record(ctx, p, policy.ImportShow, e)
}

// batch finds a published import that p may know of.
func (s *Service) batch(ctx context.Context, p Principal, id int64) (Batch, error) {
	notFound := fmt.Errorf("%w: no import %d", ErrNotFound, id)
	if id < 1 {
		return Batch{}, notFound
	}
	list, err := s.db.Batches(ctx, BatchQuery{ID: id, Realm: p.Realm, Limit: 1})
	if err != nil {
		return Batch{}, unavailable(err)
	}
	if len(list) == 0 {
		return Batch{}, notFound
	}
	return list[0], nil
}

// Undo removes those tokens of a published import that are as they came, with
// their seeds: never assigned, nor changed in any other way. It keeps the others,
// and answers what is there then. The serials of those that were removed are
// free.
//
// It works in short transactions, so that nobody waits for it: an audit record
// first says that it begins, and another one at the end what it did. If it is cut
// off between, it may be called again, as it may be at any time. A token that is
// assigned at the same moment is either kept, or was not there any more.
func (s *Service) Undo(ctx context.Context, p Principal, id int64) (Batch, Tally, error) {
	e := audit.Event{Realm: p.Realm, Detail: []audit.Field{{Name: "batch", Value: itoa(id)}}}
	if err := s.authorise(ctx, p, policy.ImportUndo, &e); err != nil {
		return Batch{}, Tally{}, err
	}
	b, err := s.batch(ctx, p, id)
	if err != nil {
		return Batch{}, Tally{}, s.refuse(ctx, p, policy.ImportUndo, e, err)
	}
	e.Realm = b.Realm
	e.Detail = append(e.Detail, audit.Field{Name: "file", Value: b.Name}, audit.Field{Name: "sha256", Value: b.SHA256})
	begun := e
	begun.Reason = "begun"
	if err := s.record(ctx, p, policy.ImportUndo, begun); err != nil {
		return Batch{}, Tally{}, err
	}
	removed, err := s.removeAll(ctx, id)
	// What was done is audited, however it ended.
	after := context.WithoutCancel(ctx)
	tally, terr := s.db.Tally(after, id)
	e.Reason, e.Detail = "done", append(e.Detail, audit.Field{Name: "removed", Value: itoa(removed)})
	if err = errors.Join(err, unavailable(terr)); err != nil {
		e.Outcome, e.Reason = "error", "interrupted"
	} else {
		e.Detail = append(e.Detail, audit.Field{Name: "kept", Value: itoa(int64(tally.Tokens()))})
	}
	if err = errors.Join(err, s.record(after, p, policy.ImportUndo, e)); err != nil {
		return Batch{}, Tally{}, err
	}
	if b, err = s.batch(after, p, id); err != nil {
		return Batch{}, Tally{}, err
	}
	return b, tally, nil
}

// removeAll removes an import's tokens, chunk by chunk.
func (s *Service) removeAll(ctx context.Context, id int64) (int64, error) {
	var removed, last int64
	for {
		if ctx.Err() != nil {
			return removed, fmt.Errorf("%w: interrupted: %w", ErrUnavailable, context.Cause(ctx))
		}
		n, upTo, err := s.db.Remove(ctx, id, last, removeChunk, s.cfg.Now().UTC())
		removed += int64(n)
		if err != nil {
			return removed, unavailable(err)
		}
		if last = upTo; last == 0 {
			return removed, nil
		}
	}
}

// Tokens is how many tokens are there.
func (t *Tally) Tokens() int {
	n := 0
	for _, of := range t.States {
		n += of
	}
	return n
}
