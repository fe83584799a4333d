package store

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"watchword/tokens"
)

// checkNewTokens looks at the tokens to insert by themselves.
func (p *plan) checkNewTokens() error {
	for i, t := range p.NewTokens {
		switch {
		case t == nil || t.ID != 0 || t.Batch != 0:
			return refused("new token %d is nil, or has an ID or an import already", i)
		case (t.Type == tokens.FIDO) != (t.Credential != nil):
			return refused("new token %d is a FIDO token without a credential, or another with one", i)
		case t.OwnerID != 0 && !p.moves(t.OwnerID):
			return refused("new token %d is given without a standing of its owner", i)
		}
		if err := checkPasscodes(t); err != nil {
			return err
		}
		if err := text(t.Realm, t.Serial, string(t.Type), string(t.State), t.Model, t.Hint, t.Wrapped.Mechanism, t.PublicID); err != nil {
			return err
		}
	}
	return nil
}

// sortSpends puts what is spent in the order in which rows are locked.
func (p *plan) sortSpends() error {
	p.spends = p.Spends
	byHash := func(a, b tokens.Spend) int { return bytes.Compare(a.Hash[:], b.Hash[:]) }
	if !slices.IsSortedFunc(p.spends, byHash) {
		p.spends = slices.SortedFunc(slices.Values(p.spends), byHash)
	}
	for i := range p.spends {
		if p.spends[i].Expires.IsZero() {
			return refused("something is spent that never expires")
		}
		if i > 0 && p.spends[i].Hash == p.spends[i-1].Hash {
			return refused("something is spent twice")
		}
	}
	return nil
}

// insertTokens adds tokens that belong to no import, each with its motion.
func (p *plan) insertTokens(s *session) error {
	for _, t := range p.NewTokens {
		var credential, key []byte
		if t.Credential != nil {
			credential, key = t.Credential.Encode(), []byte(t.Credential.Key())
		}
		var id int64
		err := s.one(`INSERT INTO tokens (`+stageColumns+`, owner_id, credential, credential_key, assigned, passcodes, uses)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT DO NOTHING RETURNING id`,
			[]any{int64(0), t.Realm, t.Serial, string(t.Type), int64(t.Algorithm),
				int64(t.Digits), int64(t.Period), string(t.State), t.Model, micros(t.Created), t.Wrapped.Mechanism,
				int64(t.Wrapped.KEK), int64(t.Wrapped.Hash), int64(t.Wrapped.SeedLen), nullBytes(t.Wrapped.Blob),
				nullBytes(t.Binding), t.Last, int64(t.Drift), t.Hint, nullText(t.PublicID), nullBytes(t.PrivateMAC),
				micros(t.Expires), nullID(t.OwnerID), nullBytes(credential), nullBytes(key), micros(handedOver(t)),
				encodePasscodes(t), int64(t.Uses)}, &id)
		if errors.Is(err, sql.ErrNoRows) {
			return occupied(s, t)
		}
		if err != nil {
			return err
		}
		if _, err := s.exec(`INSERT INTO motions (token_id, version, last, drift, used_at) VALUES (?, 1, ?, ?, ?)`,
			id, t.Last, int64(t.Drift), t.UsedAt); err != nil {
			return err
		}
		p.tokenIDs = append(p.tokenIDs, id)
	}
	return nil
}

// handedOver is when the owner of a new token got it: as it was made, if nothing
// else is said.
func handedOver(t *tokens.Token) time.Time {
	switch {
	case t.OwnerID == 0:
		return time.Time{}
	case t.Assigned.IsZero():
		return t.Created
	}
	return t.Assigned
}

// occupied says what of a token, which could not be inserted, is taken.
func occupied(s *session, t *tokens.Token) error {
	var one int64
	err := s.one(`SELECT 1 FROM tokens WHERE realm = ? AND serial = ?`, []any{t.Realm, t.Serial}, &one)
	switch {
	case err == nil:
		return fmt.Errorf("%w: there is a token with the serial %s", tokens.ErrExists, t.Serial)
	case !errors.Is(err, sql.ErrNoRows):
		return err
	case t.Credential != nil:
		return fmt.Errorf("%w: there is a token with this credential", tokens.ErrExists)
	}
	return &tokens.ConflictError{} // an import had the serial, and was discarded since
}
