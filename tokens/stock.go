package tokens

import (
	"bytes"
	"context"
	"fmt"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// A FIDO key of stock is enrolled before anybody knows who will hold it. Its token is
// imported, like one of a seed file, and is assigned like that. Then it waits: the
// first answer of the key that its owner gives turns it on (decideKey). Until then it
// proves nothing of anybody, and whoever it was assigned to by mistake has shown nothing.

// stockMessage is what the user handle of a key of stock is a MAC over. No other
// message under KeyBinding begins like it.
const stockMessage = "watchword-stock-1\x00"

// enrols is the operation that enrols a key for a user, or where none is named, as
// stock, with what is to be enrolled in: folded.
func (p Principal) enrols(realm, user string) (action policy.Action, in, key string, err error) {
	if user == "" {
		in, err = p.realm(realm)
		return policy.KeyStock, in, "", err
	}
	in, key, err = p.names(realm, user)
	return policy.KeyEnrol, in, key, err
}

// KeyStock answers for whom a key of stock is to be enrolled, which is nobody: a realm,
// and the user handle that follows from nonce, 32 bytes that are another's for each
// key. It writes nothing unless it is refused.
func (s *Service) KeyStock(ctx context.Context, p Principal, realm string, nonce []byte) (KeyHolder, error) {
	realm, err := p.realm(realm)
	if err != nil {
		return KeyHolder{}, err
	}
	e := audit.Event{Realm: realm}
	if err := s.authorise(ctx, p, policy.KeyStock, &e); err != nil {
		return KeyHolder{}, err
	}
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, append([]byte(stockMessage), nonce...))
	if err != nil {
		return KeyHolder{}, translate(err)
	}
	return KeyHolder{Realm: realm, Handle: macs[0]}, nil
}

// StockKey enrols a FIDO key that is nobody's yet: its token is imported, and is given
// out by Assign. It wraps ErrExists where the credential, or the serial in this realm,
// is known already, and ErrState where the challenge was answered before or has expired.
func (s *Service) StockKey(ctx context.Context, p Principal, n NewFIDO) (Token, error) {
	realm, err := p.realm(n.Realm)
	if err != nil {
		return Token{}, err
	}
	if err := n.name(); err != nil {
		return Token{}, err
	}
	if n.User != "" || !n.Credential.stock() {
		return Token{}, fmt.Errorf("%w: the registration was begun for a user, and not for stock", ErrState)
	}
	var made Token
	e := audit.Event{Realm: realm, Serial: n.Serial, Detail: sound(n.Detail)}
	err = s.change(ctx, p, policy.KeyStock, e, nil, func(_ []*Subject, c *Change, e *audit.Event) error {
		now := s.cfg.Now().UTC()
		if s.stale(n.Spend, now) {
			e.Reason = string(ReasonExpired)
			return fmt.Errorf("%w: the registration took too long; begin it again", ErrState)
		}
		credential := n.Credential
		made = Token{
			Realm: realm, Serial: n.Serial, Type: FIDO, State: Imported, Model: fileName(n.Model), Created: now,
			Credential: &credential, Motion: Motion{Version: 1, Last: int64(n.SignCount)},
		}
		if err := made.Valid(); err != nil {
			return err
		}
		if err := s.bind(ctx, []*Token{&made}, nil); err != nil {
			return err
		}
		c.NewTokens, c.Spends = []*Token{&made}, []Spend{n.Spend}
		return nil
	})
	if err != nil {
		return Token{}, spentAs(err, "this registration was finished before; begin another one")
	}
	return made, nil
}

// EnrolledBefore names what a registration enrolled, if it did.
type EnrolledBefore struct {
	Realm, User  string // as of NewFIDO
	RPID         string
	ID           []byte // of the credential
	PublicKey    []byte
	UserID       int64
	Discoverable bool
}

// enrolled is what whoever enrolled a token may know of it: nothing of what its owner did
// with it since, nor, where it was stock, who that is, which takes the right to see tokens.
func (t *Token) enrolled() Token {
	made := Token{
		ID: t.ID, Realm: t.Realm, Serial: t.Serial, Type: t.Type, State: t.State, OwnerID: t.OwnerID, Owner: t.Owner,
		Model: t.Model, Created: t.Created, Credential: t.Credential, Motion: Motion{Version: t.Version},
	}
	if t.Credential.stock() {
		made.State, made.OwnerID, made.Owner = Imported, 0, ""
	}
	return made
}

// Enrolled answers the token that a registration enrolled before, so that whoever did
// not hear what became of it can ask again; one of stock as it was then. ErrNotFound
// where there is none. It changes nothing, and is audited as that.
func (s *Service) Enrolled(ctx context.Context, p Principal, n EnrolledBefore) (Token, error) {
	action, realm, key, err := p.enrols(n.Realm, n.User)
	if err != nil {
		return Token{}, err
	}
	e := audit.Event{Realm: realm, User: key}
	if err := s.authorise(ctx, p, action, &e); err != nil {
		return Token{}, err
	}
	view, err := s.db.Load(ctx, []Ref{{Realm: realm, Credential: CredentialKey(n.RPID, n.ID)}})
	if err != nil {
		return Token{}, unavailable(err)
	}
	if sub := view.Subjects[0]; sub != nil {
		for i := range sub.Tokens {
			t := &sub.Tokens[i]
			c := t.Credential
			// No two answers have the same: a key makes a new pair for each registration.
			if t.Realm == realm && c != nil && c.RPID == n.RPID && bytes.Equal(c.ID, n.ID) &&
				bytes.Equal(c.PublicKey, n.PublicKey) && c.UserID == n.UserID && c.Discoverable == n.Discoverable {
				e.Serial, e.Reason = t.Serial, string(ReasonUnchanged)
				return t.enrolled(), s.record(ctx, p, action, e)
			}
		}
	}
	return Token{}, errNoToken
}
