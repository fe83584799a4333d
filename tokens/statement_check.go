package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// maxStatement bounds a statement that is checked, in bytes.
const maxStatement = 16 << 10

// StatementError says why a statement proves nothing. It is an ErrInvalid.
type StatementError struct {
	Reason string // malformed, unknown_key, bad_signature, wrong_issuer, wrong_audience, wrong_realm, not_yet, expired, too_old
	Why    string // for people
}

func (e *StatementError) Error() string { return "the statement proves nothing: " + e.Why }

// Unwrap makes it an ErrInvalid.
func (e *StatementError) Unwrap() error { return ErrInvalid }

// CheckStatement answers what a statement says, for applications that cannot check
// it themselves, if it is ours, for this audience and valid, and if the user was
// verified no longer than maxAge ago (zero: whenever). It fails with
// *StatementError if not. A principal of one realm is told of its users alone.
func (s *Service) CheckStatement(ctx context.Context, p Principal, jwt, audience string, maxAge time.Duration) (StatementClaims, error) {
	if audience == "" || maxAge < 0 {
		return StatementClaims{}, fmt.Errorf("%w: a statement is checked for an audience, and an age that is not negative", ErrInvalid)
	}
	e := audit.Event{Realm: p.Realm}
	if err := s.authorise(ctx, p, policy.StatementCheck, &e); err != nil {
		return StatementClaims{}, err
	}
	state, err := s.statementState(ctx)
	if err != nil {
		return StatementClaims{}, err
	}
	now := s.cfg.Now()
	c, bad := state.read(jwt, now)
	if bad == nil { // it is ours: what it says may be audited
		e.Detail = []audit.Field{{Name: "audience", Value: c.Audience}, {Name: "jti", Value: c.ID}}
		bad = s.believable(c, p, audience, maxAge, now)
		if p.Realm == "" || c.Realm == p.Realm {
			e.Realm = c.Realm
			_, e.User = c.User()
			e.Serial = c.Token.Serial
		}
	}
	if bad == nil {
		return *c, s.record(ctx, p, policy.StatementCheck, e)
	}
	e = s.event(p, policy.StatementCheck, e)
	e.Outcome, e.Reason = "refused", bad.Reason
	if s.crowd.admit(&e, e.Time) {
		if err := s.ledger.commit(ctx, &Change{}, []audit.Event{e}); err != nil {
			return StatementClaims{}, err
		}
	}
	return StatementClaims{}, bad
}

// read proves a statement's signature and answers what it says (RFC 7515, section
// 5.2). What is not written as we write it is not read any further.
func (s *statementState) read(jwt string, now time.Time) (*StatementClaims, *StatementError) {
	malformed := &StatementError{"malformed", "it is no JWT such as this server signs"}
	parts := strings.Split(jwt, ".")
	if len(jwt) > maxStatement || len(parts) != 3 || strings.ContainsAny(jwt, "\r\n") { // which the decoder would skip
		return nil, malformed
	}
	var raw [3][]byte
	for i, part := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return nil, malformed
		}
	}
	var h statementHeader
	strict := json.NewDecoder(strings.NewReader(string(raw[0])))
	strict.DisallowUnknownFields() // "crit" among them
	if err := strict.Decode(&h); err != nil || strict.More() || h.Algorithm != "ES256" || h.Type != "JWT" {
		return nil, malformed
	}
	var key *statementKey
	for i := range s.Keys {
		if k := &s.Keys[i]; k.KID == h.KeyID && k.live(now) {
			key = k
		}
	}
	if key == nil {
		return nil, &StatementError{"unknown_key", "it was signed with a key that is not published, or not any more"}
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if !key.verifies(digest[:], raw[2]) {
		return nil, &StatementError{"bad_signature", "its signature is wrong"}
	}
	var c StatementClaims
	if err := json.Unmarshal(raw[1], &c); err != nil {
		return nil, malformed
	}
	return &c, nil
}

// believable says why claims that we signed prove nothing to this audience now, or
// nil.
func (s *Service) believable(c *StatementClaims, p Principal, audience string, maxAge time.Duration, now time.Time) *StatementError {
	issued, expires, verified := time.Unix(c.IssuedAt, 0), time.Unix(c.Expires, 0), time.Unix(c.AuthTime, 0)
	switch {
	case c.Issuer != s.cfg.Issuer:
		return &StatementError{"wrong_issuer", "it is from another issuer"}
	case c.Audience != audience:
		return &StatementError{"wrong_audience", "it is for another audience"}
	case p.Realm != "" && c.Realm != p.Realm:
		return &StatementError{"wrong_realm", "it is about a user of another realm"}
	case !now.Before(expires):
		return &StatementError{"expired", "it has expired"}
	case issued.Sub(now) > s.cfg.ClockSkew:
		return &StatementError{"not_yet", "it was given in the future: the clocks of the servers differ"}
	case maxAge > 0 && now.Sub(verified) > maxAge:
		return &StatementError{"too_old", fmt.Sprintf("the user was verified %s ago, and may have been %s ago at most: verify again", now.Sub(verified).Truncate(time.Second), maxAge)}
	}
	return nil
}
