package tokens

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"slices"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// current reads the subjects of refs, and says whether p is still who it was. What
// nodes cache is brought up to date first.
func (s *Service) current(ctx context.Context, p Principal, refs []Ref) (View, error) {
	before, asked := s.cfg.Now(), len(refs)
	if p.Kind == KindAdmin {
		refs = append(slices.Clip(refs), p.self())
	}
	view, err := s.db.Load(ctx, refs)
	s.noteDatabase(err)
	if err != nil {
		return View{}, unavailable(err)
	}
	s.noteClock(view.Clock, before)
	if view.Generation != s.reg.Load().generation {
		if err := s.reloadRegistry(ctx); err != nil {
			return View{}, unavailable(err)
		}
	}
	if !s.live(p) {
		return View{}, fmt.Errorf("%w: it was deleted, or has expired", ErrUnknownKey)
	}
	if p.Kind == KindAdmin {
		if _, err := s.stays(ctx, &p, view.Subjects[asked]); err != nil {
			return View{}, err
		}
		view.Subjects = view.Subjects[:asked]
	}
	return view, nil
}

// event fills in who asked, when and from where; the outcome is ok.
func (s *Service) event(p Principal, action policy.Action, e audit.Event) audit.Event {
	e.Time, e.Action, e.Actor, e.Client, e.Source = s.cfg.Now(), string(action), p.Actor(), p.client(), p.Source
	if e.Outcome == "" {
		e.Outcome = "ok"
	}
	return e
}

// record audits a use case that changes nothing.
func (s *Service) record(ctx context.Context, p Principal, action policy.Action, e audit.Event) error {
	return s.ledger.commit(ctx, &Change{}, []audit.Event{s.event(p, action, e)})
}

// refuse audits a use case that was allowed, and refused for a reason of its
// own, and answers that reason. A fault is none.
func (s *Service) refuse(ctx context.Context, p Principal, action policy.Action, e audit.Event, why error) error {
	switch {
	case errors.Is(why, ErrUnavailable):
		return why
	case errors.Is(why, ErrConflict): // two nodes were in each other's way
		return unavailable(why)
	}
	e.Outcome, e.Reason = "refused", refusal(why)
	e.Detail = append(e.Detail[:len(e.Detail):len(e.Detail)], rulesBroken(why)...)
	if err := s.record(ctx, p, action, e); err != nil {
		return err
	}
	return why
}

// persistence bounds how long a use case is tried again after someone else changed
// the same user or token. It is generous: while somebody tries codes on another node
// as fast as they are answered, one try in twenty comes between, and it is just
// then that a token must be lost at once.
const persistence = 10 * time.Second

// conflicts bounds the same for what is changed rarely.
const conflicts = 50

// change runs one use case on the subjects of refs: it authorises, loads, lets
// decide fill in the change, and commits it with the event; all of it again if
// a version had moved. An error of decide's is audited too.
func (s *Service) change(ctx context.Context, p Principal, action policy.Action, e audit.Event, refs []Ref,
	decide func(found []*Subject, c *Change, e *audit.Event) error,
) error {
	return s.changes(ctx, p, action, e, refs, func(found []*Subject, c *Change, e *audit.Event) ([]audit.Event, error) {
		return nil, decide(found, c, e)
	})
}

// changes is change for a use case that has more to tell the audit: decide answers
// the records of what it does beside, which go with the change.
func (s *Service) changes(ctx context.Context, p Principal, action policy.Action, e audit.Event, refs []Ref,
	decide func(found []*Subject, c *Change, e *audit.Event) (beside []audit.Event, err error),
) error {
	load := refs
	if named := about(&e); !covers(refs, named) {
		load = append(refs[:len(refs):len(refs)], named...)
	}
	for begin := time.Now(); time.Since(begin) < persistence && ctx.Err() == nil; {
		view, err := s.current(ctx, p, load)
		if err != nil {
			return err
		}
		// What is allowed is allowed on what is read here: if that moves before it is
		// done, both are decided anew.
		if err := s.allow(ctx, p, action, &e, view.Subjects); err != nil {
			return err
		}
		var c Change
		done := s.event(p, action, e)
		beside, refused := decide(view.Subjects[:len(refs)], &c, &done)
		for i := range beside {
			if beside[i].Policy == "" {
				beside[i].Policy = e.Policy
			}
		}
		if refused != nil {
			if errors.Is(refused, ErrUnavailable) {
				return refused
			}
			beside = nil
			done.Outcome = "refused"
			if done.Reason == "" {
				done.Reason = refusal(refused)
			}
			done.Detail = append(done.Detail[:len(done.Detail):len(done.Detail)], rulesBroken(refused)...)
		}
		err = s.ledger.commit(ctx, &c, append([]audit.Event{done}, beside...))
		if errors.Is(err, ErrConflict) {
			continue
		}
		switch {
		case errors.Is(err, ErrExists), errors.Is(err, ErrSpent), errors.Is(err, ErrNotFound): // so it was the commit that found out
			return s.refuse(ctx, p, action, e, err)
		case err != nil:
			return err
		}
		return refused
	}
	return fmt.Errorf("%w: it is changed elsewhere all the time", ErrUnavailable)
}

// refusal is how the audit names an error.
func refusal(err error) string {
	if len(rulesBroken(err)) > 0 {
		return string(ReasonRule)
	}
	for _, k := range []struct {
		is   error
		name string
	}{
		{ErrNotFound, "not_found"}, {ErrExists, "exists"}, {ErrState, "state"}, {ErrInvalid, "invalid"},
		{ErrWrongCode, "wrong_code"}, {ErrTampered, "tampered"}, {ErrForbidden, string(ReasonForbidden)}, {ErrSpent, string(ReasonReplay)},
	} {
		if errors.Is(err, k.is) {
			return k.name
		}
	}
	return "error"
}

// bind makes the bindings of tokens for an owner's PIN MAC. The tokens hold
// their new columns already.
func (s *Service) bind(ctx context.Context, list []*Token, pinMAC []byte) error {
	messages := make([][]byte, len(list))
	for i, t := range list {
		messages[i] = t.Sealed(pinMAC).Message()
	}
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, messages...)
	if err != nil {
		return translate(err)
	}
	for i, t := range list {
		t.Binding = macs[i]
	}
	return nil
}

// intact says whether a token's binding is right, so that a row that was
// altered is never bound anew.
func (s *Service) intact(ctx context.Context, t *Token, pinMAC []byte) (bool, error) {
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, t.Sealed(pinMAC).Message())
	if err != nil {
		return false, translate(err)
	}
	return hmac.Equal(macs[0], t.Binding), nil
}
