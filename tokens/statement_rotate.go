package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// RotateStatementKey lets the next key sign, as soon as it was published long
// enough for applications to know it, and makes a new next one. The key that signed
// before stays published until its last statement has expired. It fails with
// ErrState if the rotation before is not complete.
//
// With now, which is for keys that are lost or no longer trusted, the next key
// signs at once, and none of those before is published any more: statements that
// they signed are worth nothing from then on, but for applications that keep an
// older answer of JWKS. It does so, too, if the keys' document was altered or the
// HSM has lost them.
//
// All nodes act on it with the next statement; their JWKS a second later at the
// latest.
func (s *Service) RotateStatementKey(ctx context.Context, p Principal, now bool) ([]StatementKey, error) {
	e := audit.Event{Reason: "planned"}
	if now {
		e.Reason = "now"
	}
	if err := s.authorise(ctx, p, policy.StatementRotate, &e); err != nil {
		return nil, err
	}
	if s.skewed.Load() {
		return nil, fmt.Errorf("%w: our clock and the database's differ, and keys have their times", ErrUnavailable)
	}
	s.statements.mu.Lock()
	defer s.statements.mu.Unlock()
	for range conflicts {
		list, err := s.rotateStatement(ctx, p, now, e)
		if errors.Is(err, ErrConflict) { // another node was first: what is left to do?
			if err := s.reloadRegistry(ctx); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, s.refuse(ctx, p, policy.StatementRotate, audit.Event{Policy: e.Policy}, err)
		}
		return list, nil
	}
	return nil, fmt.Errorf("%w: it is changed elsewhere all the time", ErrUnavailable)
}

// rotateStatement is one attempt at a rotation. statements.mu is held.
func (s *Service) rotateStatement(ctx context.Context, p Principal, now bool, e audit.Event) ([]StatementKey, error) {
	state, version, err := s.readStatements(ctx)
	switch {
	case now && (errors.Is(err, errStatementsAltered) || errors.Is(err, errNoStatements)):
		state = &statementState{} // nothing of it can be believed, or there is nothing
	case err != nil:
		return nil, err
	}
	state = state.clone()
	at := s.cfg.Now().UTC()
	old := len(state.Keys)
	next := state.next()
	if next != nil && now && !s.held(next) {
		next = nil // it is lost
	}
	if !now {
		for i := range state.Keys {
			if k := &state.Keys[i]; k.live(at) && k.Signs.After(at) {
				return nil, fmt.Errorf("%w: a rotation is under way: key version %d signs from %s on", ErrState, k.Version, k.Signs.Format(time.RFC3339))
			}
		}
	}
	if next == nil {
		if err := s.makeStatement(ctx, state, at); err != nil {
			return nil, err
		}
		next = &state.Keys[len(state.Keys)-1]
	}
	heir := next.Version
	if err := s.makeStatement(ctx, state, at); err != nil { // it may move the keys
		s.destroyStatements(ctx, state.Keys[old:])
		return nil, err
	}
	var signs, until time.Time
	for i := range state.Keys {
		if k := &state.Keys[i]; k.Version == heir {
			if signs = at; !now && k.Published.Add(statementLead).After(at) {
				signs = k.Published.Add(statementLead)
			}
			k.Signs = signs
		}
	}
	if until = signs.Add(MaxStatementTTL + statementSlack); now {
		until = at
	}
	for i := range state.Keys {
		k := &state.Keys[i]
		if k.Version < heir && (k.Until.IsZero() || now && k.Until.After(until)) {
			k.Until = until
		}
	}
	if err := s.putStatements(ctx, p, state, version, policy.StatementRotate, e); err != nil {
		if errors.Is(err, ErrConflict) {
			s.destroyStatements(ctx, state.Keys[old:])
		}
		return nil, err
	}
	return state.list(at), nil
}

// makeStatement adds a new key to a state, published from now on. statements.mu is
// held.
func (s *Service) makeStatement(ctx context.Context, state *statementState, now time.Time) error {
	r, err := s.custody.CreateStatement(ctx, state.Last+1)
	if err != nil {
		return unavailable(fmt.Errorf("make a statement key in the HSM: %w", err))
	}
	k := statementKey{Version: r.Version, ID: r.ID, Check: r.Check, Published: now}
	if err := s.custody.AttachStatement(ctx, append(state.records(now), r)); err != nil && !errors.Is(err, hsm.ErrKeyMismatch) {
		return unavailable(err)
	}
	for _, a := range s.custody.StatementKeys() {
		if a.Version == r.Version {
			k.public = a.Public
		}
	}
	if k.public == nil {
		return fmt.Errorf("%w: the HSM has not got the statement key that it just made", ErrUnavailable)
	}
	if k.Point, err = k.public.Bytes(); err != nil {
		return fmt.Errorf("%w: the public half of a statement key: %w", ErrUnavailable, err)
	}
	k.KID = k.jwk().thumbprint()
	state.Last = r.Version
	state.Keys = append(state.Keys, k)
	return nil
}

// destroyStatements destroys keys that were made and are of no use.
func (s *Service) destroyStatements(ctx context.Context, keys []statementKey) {
	for i := range keys {
		if err := s.custody.DestroyStatement(ctx, keys[i].record()); err != nil {
			s.log.Warn("a statement key that is of no use stays in the HSM", "version", keys[i].Version, "error", err)
		}
	}
}

// putStatements writes a state in the place of the one of a version.
// statements.mu is held.
func (s *Service) putStatements(ctx context.Context, p Principal, state *statementState, expect int64, action policy.Action, e audit.Event) error {
	data, err := s.sealStatements(ctx, state)
	if err != nil {
		return err
	}
	for i := range state.Keys {
		k := &state.Keys[i]
		e.Detail = append(e.Detail, audit.Field{Name: "key " + strconv.FormatUint(uint64(k.Version), 10), Value: k.times()})
	}
	c := Change{Documents: []DocumentWrite{{Name: statementDocument, Expect: expect, Updated: s.cfg.Now().UTC(), Data: data}}}
	if err := s.ledger.commit(ctx, &c, []audit.Event{s.event(p, action, e)}); err != nil {
		return err
	}
	s.takeUp(ctx)
	return nil
}

// times says for the audit what a key does when.
func (k *statementKey) times() string {
	at := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("kid=%s published=%s signs=%s until=%s", k.KID, at(k.Published), at(k.Signs), at(k.Until))
}

// held says whether the HSM has the key.
func (s *Service) held(k *statementKey) bool {
	return slices.ContainsFunc(s.custody.StatementKeys(), func(a hsm.StatementKey) bool {
		return a.Version == k.Version && a.Public.Equal(k.public)
	})
}

// dropStatements destroys the keys that are retired for long enough. The HSM
// first: what is destroyed there and listed here is destroyed again, to no effect;
// the other way round nobody would know of it.
func (s *Service) dropStatements(ctx context.Context, now time.Time) error {
	if s.skewed.Load() {
		return nil
	}
	s.statements.mu.Lock()
	defer s.statements.mu.Unlock()
	state, version, err := s.readStatements(ctx)
	if errors.Is(err, errNoStatements) || errors.Is(err, errStatementsAltered) { // which was said at start, and is to whoever asks
		return nil
	}
	if err != nil {
		return err
	}
	due := func(k statementKey) bool { return !k.Until.IsZero() && now.Sub(k.Until) > statementRest }
	if !slices.ContainsFunc(state.Keys, due) {
		return nil
	}
	e := audit.Event{}
	for _, k := range state.Keys {
		if !due(k) {
			continue
		}
		err := s.custody.DestroyStatement(ctx, k.record())
		switch {
		case errors.Is(err, hsm.ErrUnavailable) || ctx.Err() != nil:
			return unavailable(err)
		case err != nil:
			s.log.Error("a statement key that is of no more use cannot be destroyed, and is forgotten", "version", k.Version, "error", err)
			e.Outcome, e.Reason = "error", "not_destroyed"
		}
		e.Detail = append(e.Detail, audit.Field{Name: "destroyed", Value: strconv.FormatUint(uint64(k.Version), 10)})
	}
	left := state.clone()
	left.Keys = slices.DeleteFunc(left.Keys, due)
	p := Principal{Kind: KindSystem, Scope: policy.ScopeSystem}
	if err := s.putStatements(ctx, p, left, version, policy.StatementDestroy, e); !errors.Is(err, ErrConflict) {
		return err
	}
	return nil // another node did it, or rotated the keys: next time
}
