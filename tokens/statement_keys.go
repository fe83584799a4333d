package tokens

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// The life of a statement key. When it does what is written down in a document
// that all nodes read, so that they agree and none has to remember anything:
//
//	next      published, so that applications know it before it signs
//	current   signs, from a time on that leaves their caches statementLead
//	previous  published, until the last statement that it signed has expired
//	retired   neither; some time later it is destroyed in the HSM
const (
	// JWKSMaxAge is how long applications may keep the answer of JWKS.
	JWKSMaxAge = 5 * time.Minute

	// statementLead is how long a key is published before it signs: as long as an
	// answer of JWKS may be kept, by applications and perhaps a cache before them.
	statementLead = 2 * JWKSMaxAge

	// statementSlack is how long a key stays published after its last statement has
	// expired: for clocks that differ.
	statementSlack = 5 * time.Minute

	// statementRest is how long a key stays in the HSM when it is not published any
	// more: for calls that are still under way somewhere.
	statementRest = 10 * time.Minute

	// statementDocument holds the keys' public halves and times. It is a JSON object
	// with a MAC over the state, so that who can write to the database cannot have a
	// key of their own published.
	statementDocument = "statement.keys"

	// statementMAC precedes the state in the MAC. No other message under KeyBinding
	// begins like it.
	statementMAC = "watchword-statement-keys-1\x00"

	// jwksLook is how often JWKS asks the database for changes at most, and
	// attachLook how often keys are looked for in the HSM that are not there:
	// strangers must not make them busy.
	jwksLook   = time.Second
	attachLook = 10 * time.Second
)

// statementState is the document's.
type statementState struct {
	Last uint32         `json:"last"` // the highest version that was ever made
	Keys []statementKey `json:"keys"` // the oldest first
}

// statementKey is a statement key in the document.
type statementKey struct {
	Version   uint32    `json:"version"`
	KID       string    `json:"kid"`   // RFC 7638 thumbprint
	ID        []byte    `json:"id"`    // CKA_ID
	Check     []byte    `json:"check"` // see hsm.KeyRecord
	Point     []byte    `json:"point"` // of the public key, uncompressed
	Published time.Time `json:"published"`
	Signs     time.Time `json:"signs"` // from when on; zero: not before a rotation says so
	Until     time.Time `json:"until"` // from when on it is not published; zero: not before a rotation says so

	public *ecdsa.PublicKey
}

func (k *statementKey) record() hsm.KeyRecord {
	return hsm.KeyRecord{Name: hsm.KeyStatement, Version: k.Version, ID: k.ID, Check: k.Check}
}

// live says whether the key is published at a time.
func (k *statementKey) live(now time.Time) bool { return k.Until.IsZero() || now.Before(k.Until) }

// signing is the key that signs at a time; nil if there is none. A clock that is
// behind the one of whoever rotated finds the key that is about to.
func (s *statementState) signing(now time.Time) (key *statementKey) {
	for i := range s.Keys {
		if k := &s.Keys[i]; k.live(now) && !k.Signs.IsZero() && (key == nil || !now.Before(k.Signs)) {
			key = k
		}
	}
	return key
}

// next is the key that a rotation makes the current one; nil if there is none.
func (s *statementState) next() *statementKey {
	for i := range s.Keys {
		if k := &s.Keys[i]; k.Signs.IsZero() && k.Until.IsZero() {
			return k
		}
	}
	return nil
}

// records are those of the keys that are published, or still may sign.
func (s *statementState) records(now time.Time) []hsm.KeyRecord {
	var list []hsm.KeyRecord
	for i := range s.Keys {
		if s.Keys[i].live(now) {
			list = append(list, s.Keys[i].record())
		}
	}
	return list
}

func (s *statementState) clone() *statementState {
	return &statementState{Last: s.Last, Keys: slices.Clone(s.Keys)}
}

// statements is what this node knows of the statement keys.
type statements struct {
	mu      sync.Mutex // held while keys are read, made or attached
	version int64      // of the document that known is from
	data    []byte
	known   *statementState // proven; replaced whole, never changed

	looked   atomic.Int64 // when JWKS last asked the database, since regEpoch
	attached atomic.Int64 // when a key that was missing was last looked for, since regEpoch
}

// sealedStatements is the document.
type sealedStatements struct {
	State json.RawMessage `json:"state"`
	MAC   []byte          `json:"mac"`
}

// statementState answers the keys as this node last knew them, without a round
// trip, after it has attached those that are new. It fails with ErrTampered if
// somebody else wrote them.
func (s *Service) statementState(ctx context.Context) (*statementState, error) {
	s.statements.mu.Lock()
	defer s.statements.mu.Unlock()
	state, _, err := s.readStatements(ctx)
	return state, err
}

// readStatements is statementState with the document's version. statements.mu is
// held.
func (s *Service) readStatements(ctx context.Context) (*statementState, int64, error) {
	d, err := s.Document(ctx, statementDocument)
	if errors.Is(err, ErrNotFound) {
		return nil, 0, errNoStatements
	}
	if err != nil {
		return nil, 0, err
	}
	m := &s.statements
	if m.known != nil && m.version == d.Version && bytes.Equal(m.data, d.Data) {
		return m.known, d.Version, nil
	}
	state, err := s.openStatements(ctx, d.Data)
	if err != nil {
		return nil, d.Version, err
	}
	switch err := s.custody.AttachStatement(ctx, state.records(s.cfg.Now())); {
	case errors.Is(err, hsm.ErrKeyMismatch):
		s.log.Error("the HSM has not got all keys that sign statements; if they are lost, rotate the keys at once", "error", err)
	case err != nil:
		return nil, d.Version, unavailable(err)
	}
	m.version, m.data, m.known = d.Version, d.Data, state
	return state, d.Version, nil
}

// attachAgain looks for keys in the HSM that were not there; not too often.
func (s *Service) attachAgain(ctx context.Context, state *statementState) bool {
	now, last := time.Since(s.regEpoch), s.statements.attached.Load()
	if last != 0 && now < time.Duration(last)+attachLook || !s.statements.attached.CompareAndSwap(last, int64(now)) {
		return false
	}
	s.statements.mu.Lock()
	defer s.statements.mu.Unlock()
	if s.statements.known != state { // and so they were looked for meanwhile
		return true
	}
	if err := s.custody.AttachStatement(ctx, state.records(s.cfg.Now())); err != nil {
		s.log.Error("the HSM has still not got all keys that sign statements", "error", err)
	}
	return true
}

// errNoStatements: there is no document.
var errNoStatements = fmt.Errorf("%w: there are no keys to sign statements with; they are made when a server starts", ErrUnavailable)

// errStatementsAltered: the document is not as it was written.
var errStatementsAltered = fmt.Errorf("%w: the document %s, which says what keys sign statements; no statement is given until they are rotated at once", ErrTampered, statementDocument)

// openStatements proves and reads the document.
func (s *Service) openStatements(ctx context.Context, data []byte) (*statementState, error) {
	var sealed sealedStatements
	var state statementState
	if err := json.Unmarshal(data, &sealed); err != nil {
		return nil, errStatementsAltered
	}
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, append([]byte(statementMAC), sealed.State...))
	if err != nil {
		return nil, translate(err)
	}
	if !hmac.Equal(macs[0], sealed.MAC) {
		return nil, errStatementsAltered
	}
	if err := json.Unmarshal(sealed.State, &state); err != nil {
		return nil, errStatementsAltered
	}
	for i := range state.Keys {
		k := &state.Keys[i]
		if k.public, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), k.Point); err != nil {
			return nil, errStatementsAltered
		}
	}
	return &state, nil
}

// sealStatements is the document of a state.
func (s *Service) sealStatements(ctx context.Context, state *statementState) ([]byte, error) {
	text, err := json.Marshal(state)
	if err != nil {
		return nil, err
	}
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, append([]byte(statementMAC), text...))
	if err != nil {
		return nil, translate(err)
	}
	return json.Marshal(sealedStatements{State: text, MAC: macs[0]})
}

// startStatements makes the first keys, if the database knows of none, and
// attaches them. It is called under the database's lock. A server can do without
// them: that they are lost or were altered is said, and stops nothing else.
func (s *Service) startStatements(ctx context.Context) error {
	s.statements.mu.Lock()
	defer s.statements.mu.Unlock()
	switch _, _, err := s.readStatements(ctx); {
	case errors.Is(err, errStatementsAltered):
		s.log.Error("no statements are given", "error", err)
		return nil
	case !errors.Is(err, errNoStatements):
		return err
	}
	now := s.cfg.Now().UTC()
	state := &statementState{}
	for range 2 {
		if err := s.makeStatement(ctx, state, now); err != nil {
			return err
		}
	}
	state.Keys[0].Signs = now
	p := Principal{Kind: KindSystem, Scope: policy.ScopeSystem}
	err := s.putStatements(ctx, p, state, 0, policy.StatementRotate, audit.Event{Reason: "first"})
	if err != nil {
		return fmt.Errorf("record the keys that sign statements: %w", err)
	}
	return nil
}

// StatementKey is a key that signs statements.
type StatementKey struct {
	Version uint32
	KID     string // its name in statements and in the answer of JWKS
	State   string // next, current, previous, retired
	Created time.Time
	Signs   time.Time // from when on; zero: after the next rotation
	Until   time.Time // from when on it is not published; zero: some time after the next rotation but one
}

// list is what StatementKeys answers: the newest first.
func (s *statementState) list(now time.Time) []StatementKey {
	var list []StatementKey
	signing := s.signing(now)
	for i := range s.Keys {
		k := &s.Keys[i]
		out := StatementKey{Version: k.Version, KID: k.KID, State: "next", Created: k.Published, Signs: k.Signs, Until: k.Until}
		switch {
		case !k.live(now):
			out.State = "retired"
		case k == signing:
			out.State = "current"
		case !k.Signs.IsZero() && !now.Before(k.Signs):
			out.State = "previous"
		}
		list = append(list, out)
	}
	slices.Reverse(list)
	return list
}

// StatementKeys lists the keys that sign statements, the newest first.
func (s *Service) StatementKeys(ctx context.Context, p Principal) ([]StatementKey, error) {
	var e audit.Event
	if err := s.authorise(ctx, p, policy.StatementList, &e); err != nil {
		return nil, err
	}
	state, err := s.statementState(ctx)
	if err != nil {
		return nil, err
	}
	return state.list(s.cfg.Now()), s.record(ctx, p, policy.StatementList, e)
}
