package tokens

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// KeyHolder is whom a ceremony is for.
type KeyHolder struct {
	Realm  string // folded
	User   string // the user's key
	UserID int64
	Handle []byte // see UserHandle
	Name   string // as entered
	Groups []string

	Credentials []HeldKey // for the relying party
}

// HeldKey is a credential that a ceremony names.
type HeldKey struct {
	ID         []byte
	Transports []string
}

// KeyHolder answers the user for whom a key is to be enrolled, with all
// credentials for the relying party that the user has, active or not. It writes
// nothing unless it is refused; ErrNotFound, or ErrState where EnrolKey would say
// so, too.
func (s *Service) KeyHolder(ctx context.Context, p Principal, realm, user, rpID string) (KeyHolder, error) {
	realm, key, err := p.names(realm, user)
	if err != nil {
		return KeyHolder{}, err
	}
	e := audit.Event{Realm: realm, User: key}
	if err := s.authorise(ctx, p, policy.KeyEnrol, &e); err != nil {
		return KeyHolder{}, err
	}
	view, err := s.db.Load(ctx, []Ref{{Realm: realm, User: key}})
	if err != nil {
		return KeyHolder{}, unavailable(err)
	}
	sub := view.Subjects[0]
	if sub == nil {
		err = noUser(realm, user)
	} else {
		err = s.mayEnrol(ctx, sub)
	}
	if err != nil {
		return KeyHolder{}, s.refuse(ctx, p, policy.KeyEnrol, e, err)
	}
	h := KeyHolder{Realm: realm, User: sub.User.Key, UserID: sub.User.ID, Name: sub.User.Name}
	if h.Groups, err = s.db.Groups(ctx, sub.User.ID); err != nil {
		return KeyHolder{}, unavailable(err)
	}
	if h.Handle, err = s.UserHandle(ctx, sub.User.ID); err != nil {
		return KeyHolder{}, err
	}
	h.Credentials = sub.credentials(rpID, false, s.cfg.Now())
	return h, nil
}

// mayEnrol says why a user can get no token more, or nil.
func (s *Service) mayEnrol(ctx context.Context, sub *Subject) error {
	rules, err := s.rulesOf(ctx, sub.User.Realm)
	switch {
	case err != nil:
		return err
	case sub.User.State != UserEnabled:
		return saying(sayDisabled, fmt.Errorf("%w: user %s is disabled", ErrState, sub.User.Name))
	}
	if err := sub.mayHold(&rules, 1); err != nil {
		return fmt.Errorf("%w; revoke one first", err)
	}
	return nil
}

// credentials are a user's for a relying party.
func (s *Subject) credentials(rpID string, active bool, now time.Time) []HeldKey {
	var list []HeldKey
	for i := range s.Tokens {
		t := &s.Tokens[i]
		if c := t.Credential; t.Type == FIDO && c != nil && c.RPID == rpID && (!active || (t.State == Active || t.waits()) && !t.expired(now)) {
			// In the order of those that are made up, which would show otherwise.
			list = append(list, HeldKey{ID: c.ID, Transports: slices.Sorted(slices.Values(c.Transports))})
		}
	}
	return list
}

// LoginHolder answers the credentials with which a user may sign in: the active
// ones for the relying party, and those of stock that wait for it. For a user who has none, and for one whom there is
// not, it answers credentials that were made up (Web Authentication, section
// 14.6.2): always the same for a name, on every node. So all of them look alike,
// and cost the same; whose Realm, User and Credentials are set, and nothing else.
// It writes nothing unless it is refused.
func (s *Service) LoginHolder(ctx context.Context, p Principal, realm, user, rpID string) (KeyHolder, error) {
	realm, err := p.realm(realm)
	if err != nil {
		return KeyHolder{}, err
	}
	if user == "" || len(user) > 4096 {
		return KeyHolder{}, fmt.Errorf("%w: a user is needed, whose name is not longer than 4096 bytes", ErrInvalid)
	}
	// No such user can be if the name cannot; this is told to nobody.
	ref := Ref{Realm: realm}
	key, err := FoldName(user)
	if err != nil {
		key = user
	} else {
		ref.User = key
	}
	view, err := s.current(ctx, p, []Ref{ref})
	if err != nil {
		return KeyHolder{}, err
	}
	e := audit.Event{Realm: realm}
	if err := s.allow(ctx, p, policy.Verify, &e, nil); err != nil {
		return KeyHolder{}, err
	}
	decoys, err := s.decoyKeys(ctx, realm, key, rpID)
	if err != nil {
		return KeyHolder{}, err
	}
	h := KeyHolder{Realm: realm, User: key}
	if sub := view.Subjects[0]; sub != nil && sub.User != nil {
		h.Credentials = sub.credentials(rpID, true, s.cfg.Now())
	}
	if len(h.Credentials) == 0 {
		h.Credentials = decoys
	}
	return h, nil
}

// decoyKind is what a credential looks like.
type decoyKind struct {
	upTo       int
	size       int
	transports []string
}

// decoyKinds are what credentials look like that people have: those of security
// keys, most of all, and of platforms. The first byte of a MAC takes one, so often.
// Transports are sorted, like those of credentials that there are.
var decoyKinds = []decoyKind{
	{96, 64, []string{"nfc", "usb"}},
	{144, 64, []string{"usb"}},
	{208, 48, []string{"nfc", "usb"}},
	{240, 32, []string{"internal"}},
	{256, 32, []string{"hybrid", "internal"}},
}

// rareKinds are what few credentials look like: one in twenty. Some browsers do not
// say how they reach a key.
var rareKinds = []decoyKind{
	{3, 64, nil},
	{5, 48, nil},
	{7, 32, nil},
	{9, 20, []string{"hybrid", "internal"}},
	{11, 16, []string{"hybrid", "internal"}},
	{13, 32, []string{"usb"}},
}

// decoyMore says of how many names that have n credentials some have one more:
// so many of 256. Most people have one key; nobody has more than eight tokens.
var decoyMore = [...]byte{1: 32, 2: 72, 3: 72, 4: 64, 5: 64, 6: 64, 7: 64}

// decoyKeys are the credentials of a user who has none: one, for one in eight names
// two, and for a few more, up to eight. Each number and each kind is one that people
// have, too, so that none of them shows that somebody is there. How often they
// occur is fixed, and is not that of the installation: the same stranger who asks
// again when it has changed would see which names are made up. The HSM makes one
// secret of the name, from which they are expanded as HKDF does (RFC 5869, section
// 2.3).
func (s *Service) decoyKeys(ctx context.Context, realm, user, rpID string) ([]HeldKey, error) {
	b := []byte("watchword-decoy-1\x00")
	for _, text := range []string{realm, user, rpID} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
		b = append(b, text...)
	}
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, b)
	if err != nil {
		return nil, translate(err)
	}
	expand := func(info string, size int) (made []byte) {
		if err == nil {
			made, err = hkdf.Expand(sha256.New, macs[0], info, size)
		}
		return made
	}
	// Two kinds, whether there are two, and two ids; then what is rare.
	made := expand("credentials", 3+2*64+2+6)
	var more []byte // of each further one a kind, what is rare, an id
	n := 1
	if err == nil && made[2] < decoyMore[1] {
		for n = 2; n < len(decoyMore) && made[3+2*64+n] < decoyMore[n]; {
			n++
		}
	}
	if n > 2 {
		more = expand("more credentials", (n-2)*(2+64))
	}
	if err != nil {
		return nil, fmt.Errorf("make up credentials: %w", err)
	}
	list := make([]HeldKey, 0, n)
	for i := range n {
		if i < 2 {
			list = append(list, decoyCredential(made[i], made[3+2*64+i], made[3+64*i:3+64*i+64]))
		} else {
			list = append(list, decoyCredential(more[0], more[1], more[2:66]))
			more = more[66:]
		}
	}
	return list, nil
}

// decoyCredential is a made-up credential: of a rare kind, or of a usual one.
func decoyCredential(usual, rare byte, id []byte) HeldKey {
	kinds, choice := decoyKinds, int(usual)
	if int(rare) < rareKinds[len(rareKinds)-1].upTo {
		kinds, choice = rareKinds, int(rare)
	}
	i := slices.IndexFunc(kinds, func(k decoyKind) bool { return choice < k.upTo })
	return HeldKey{ID: id[:kinds[i].size:kinds[i].size], Transports: kinds[i].transports}
}

// EachKey calls f with every FIDO token that there is, in order of ID, and ends
// with f's first error. It is for the server's own use.
func (s *Service) EachKey(ctx context.Context, f func(*Token) error) error {
	q := TokenQuery{Type: FIDO, Limit: 1000}
	for {
		list, next, err := s.db.Tokens(ctx, q)
		if err != nil {
			return unavailable(err)
		}
		for i := range list {
			if err := f(&list[i]); err != nil {
				return err
			}
		}
		if next == 0 {
			return nil
		}
		q.After = next
	}
}

// SuspendKey suspends a FIDO token by the server itself, because of what became
// known of its model. One that is suspended already stays as it is.
func (s *Service) SuspendKey(ctx context.Context, serial, realm, reason string) (Token, error) {
	p := Principal{Kind: KindSystem, Scope: policy.ScopeSystem}
	return s.move(ctx, p, policy.TokenSuspend, realm, serial, reason, func(t, next *Token, _ string) error {
		if t.Type != FIDO || t.State != Active && t.State != Suspended {
			return fmt.Errorf("%w: token %s is no FIDO key that is active", ErrState, t.Serial)
		}
		next.State = Suspended
		return nil
	})
}
