package tokens

import (
	"context"
	"errors"
	"fmt"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// NewFIDO is a FIDO key to enrol, as a proven registration says.
type NewFIDO struct {
	Realm, User string
	Credential  Credential // whose UserID is whom the ceremony began for
	Serial      string     // what the attestation supplies; empty: CredentialSerial
	Model       string
	SignCount   uint32
	Spend       Spend         // the challenge
	Detail      []audit.Field // what the attestation proved
}

// name gives the key the serial of its credential, where the attestation gave none.
func (n *NewFIDO) name() error {
	if n.Serial == "" {
		n.Serial = CredentialSerial(n.Credential.ID)
	}
	return ValidSerial(n.Serial)
}

// EnrolKey gives a user a FIDO key, which is active at once. It counts like any
// other token. It wraps ErrExists where the credential, or the serial in this
// realm, is known already, and ErrState where the challenge was answered before or
// has expired, or the user is disabled or holds too many tokens. For an invited
// principal it uses up the invitation.
func (s *Service) EnrolKey(ctx context.Context, p Principal, n NewFIDO) (Token, error) {
	realm, key, err := p.names(n.Realm, n.User)
	if err != nil {
		return Token{}, err
	}
	if err := n.name(); err != nil {
		return Token{}, err
	}
	var made *Token
	e := audit.Event{Realm: realm, User: key, Serial: n.Serial, Detail: sound(n.Detail)}
	err = s.change(ctx, p, policy.KeyEnrol, e, []Ref{{Realm: realm, User: key}},
		func(found []*Subject, c *Change, e *audit.Event) error {
			sub := found[0]
			if sub == nil {
				return noUser(realm, n.User)
			}
			if err := s.mayEnrol(ctx, sub); err != nil {
				return err
			}
			now := s.cfg.Now().UTC()
			if s.stale(n.Spend, now) {
				e.Reason = string(ReasonExpired)
				return fmt.Errorf("%w: the registration took too long; begin it again", ErrState)
			}
			credential := n.Credential
			t := &Token{
				Realm: realm, Serial: n.Serial, Type: FIDO, State: Active, OwnerID: sub.User.ID, Owner: sub.User.Key,
				Model: fileName(n.Model), Created: now, Credential: &credential,
				Motion: Motion{Version: 1, Last: int64(n.SignCount)},
			}
			if err := t.Valid(); err != nil {
				return err
			}
			if credential.UserID != sub.User.ID {
				return fmt.Errorf("%w: the registration was begun for another user", ErrState)
			}
			if err := s.bind(ctx, []*Token{t}, sub.User.PINMAC); err != nil {
				return err
			}
			c.NewTokens = []*Token{t}
			c.Standings = []StandingWrite{sub.touch()}
			c.Spends = []Spend{n.Spend}
			c.Invites = p.useUp(t.Serial, now)
			made = t
			return nil
		})
	if err != nil {
		return Token{}, spentAs(err, "this registration was finished before; begin another one")
	}
	return *made, nil
}

// spentAs says what was used before: the challenge, or else the invitation.
func spentAs(err error, why string) error {
	var spent *SpentError
	switch {
	case errors.As(err, &spent):
		return fmt.Errorf("%w: %s", ErrState, why)
	case errors.Is(err, ErrSpent):
		return errInvitation
	}
	return err
}

// RefuseKey audits a registration that is refused for what the authenticator
// said or is, and answers an error that wraps ErrInvalid and says why. Without a user
// it was one of a key for stock.
func (s *Service) RefuseKey(ctx context.Context, p Principal, realm, user string, reason Reason, why string, detail []audit.Field) error {
	action, realm, key, err := p.enrols(realm, user)
	if err != nil {
		return err
	}
	e := audit.Event{Realm: realm, User: key}
	if err := s.authorise(ctx, p, action, &e); err != nil {
		return err
	}
	e.Outcome, e.Reason = "refused", string(reason)
	e.Detail = sound(append([]audit.Field{{Name: fieldWhy, Value: why}}, detail...))
	if err := s.record(ctx, p, action, e); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", ErrInvalid, why)
}

// fieldWhy names the detail that says in words why something was refused.
const fieldWhy = "why"
