package tokens

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
	if err := s.authorise(ctx, p, policy.StatementList, audit.Event{}); err != nil {
		return nil, err
	}
	state, err := s.statementState(ctx)
	if err != nil {
		return nil, err
	}
	return state.list(s.cfg.Now()), s.record(ctx, p, policy.StatementList, audit.Event{})
}

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
	if err := s.authorise(ctx, p, policy.StatementRotate, e); err != nil {
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
			return nil, s.refuse(ctx, p, policy.StatementRotate, audit.Event{}, err)
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

// jwk is a public key as JSON Web Key (RFC 7517; RFC 7518, section 6.2). The fields
// that RFC 7638 hashes come first, in its order.
type jwk struct {
	Curve string `json:"crv"`
	Type  string `json:"kty"`
	X     string `json:"x"`
	Y     string `json:"y"`
	KID   string `json:"kid,omitempty"`
	Use   string `json:"use,omitempty"`
	Alg   string `json:"alg,omitempty"`
}

func (k *statementKey) jwk() *jwk {
	return &jwk{
		Curve: "P-256", Type: "EC",
		X: base64.RawURLEncoding.EncodeToString(k.Point[1:33]), Y: base64.RawURLEncoding.EncodeToString(k.Point[33:]),
	}
}

// thumbprint names a key by what it is (RFC 7638, section 3).
func (j *jwk) thumbprint() string {
	// None of the four values has a character that JSON would escape.
	var b strings.Builder
	fmt.Fprintf(&b, `{"crv":"%s","kty":"%s","x":"%s","y":"%s"}`, j.Curve, j.Type, j.X, j.Y)
	sum := sha256.Sum256([]byte(b.String()))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// JWKS is the JWK set (RFC 7517, section 5) of the keys that are published: by it
// anybody can verify statements, and may keep it for JWKSMaxAge. It tells nothing
// that is secret and asks nobody who they are.
func (s *Service) JWKS(ctx context.Context) ([]byte, error) {
	if now, last := time.Since(s.regEpoch), s.statements.looked.Load(); last == 0 || now > time.Duration(last)+jwksLook {
		if _, err := s.current(ctx, Principal{Kind: KindSystem, Scope: policy.ScopeSystem}, nil); err != nil {
			return nil, err
		}
		s.statements.looked.Store(int64(now))
	}
	state, err := s.statementState(ctx)
	if err != nil {
		return nil, err
	}
	set := struct {
		Keys []*jwk `json:"keys"`
	}{Keys: []*jwk{}}
	now := s.cfg.Now()
	for i := range state.Keys {
		if k := &state.Keys[i]; k.live(now) {
			j := k.jwk()
			j.KID, j.Use, j.Alg = k.KID, "sig", "ES256"
			set.Keys = append(set.Keys, j)
		}
	}
	return json.Marshal(set)
}
