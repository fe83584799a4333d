package tokens

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// What an invitation may be to.
const (
	InviteFIDO = string(FIDO)
	InviteTOTP = string(TOTP)
)

// NewInvitation is an invitation to make.
type NewInvitation struct {
	Realm, User string
	Kinds       []string      // InviteFIDO, InviteTOTP; none: either
	For         time.Duration // how long it holds; zero: a day
}

// How long an invitation holds: by default, at least and at most.
const (
	inviteFor      = 24 * time.Hour
	inviteForLeast = time.Minute
	inviteForMost  = 14 * 24 * time.Hour
)

const (
	// invitePrefix begins every invitation's code, so that scanners for leaked
	// secrets know one.
	invitePrefix = "wi_"
	inviteIDSize = 8 // bytes; it is written in hex
)

// Invite makes an invitation and answers it with its code, which is shown this
// once: what is stored is a MAC. Whoever holds the code may enrol one token for
// the user until it expires, the API key of p is deleted, or p could not make it any
// more for want of a role.
func (s *Service) Invite(ctx context.Context, p Principal, n NewInvitation) (Invitation, string, error) {
	realm, key, err := p.names(n.Realm, n.User)
	if err != nil {
		return Invitation{}, "", err
	}
	kinds := slices.Sorted(slices.Values(n.Kinds))
	if len(kinds) == 0 {
		kinds = []string{InviteFIDO, InviteTOTP}
	}
	kinds = slices.Compact(kinds)
	for _, k := range kinds {
		if k != InviteFIDO && k != InviteTOTP {
			return Invitation{}, "", fmt.Errorf("%w: an invitation to a token of kind %q; it is fido or totp", ErrInvalid, k)
		}
	}
	if n.For == 0 {
		n.For = inviteFor
	}
	if n.For < inviteForLeast || n.For > inviteForMost {
		return Invitation{}, "", fmt.Errorf("%w: an invitation for %s; %s to %s are possible", ErrInvalid, n.For, inviteForLeast, inviteForMost)
	}
	var out Invitation
	var code string
	err = s.change(ctx, p, policy.InviteAdd, audit.Event{Realm: realm, User: key}, []Ref{{Realm: realm, User: key}},
		func(found []*Subject, c *Change, e *audit.Event) error {
			sub := found[0]
			if sub == nil {
				return noUser(realm, n.User)
			}
			if err := s.mayEnrol(ctx, sub); err != nil {
				return err
			}
			id, text, err := s.inviteCode()
			if err != nil {
				return err
			}
			now := s.cfg.Now().UTC().Truncate(time.Microsecond) // as databases keep it
			out = Invitation{
				ID: id, Realm: realm, UserID: sub.User.ID, User: sub.User.Key, Kinds: kinds,
				Actor: p.Actor(), Created: now, Expires: now.Add(n.For),
			}
			if out.MAC, err = s.inviteMAC(ctx, &out, sha256.Sum256([]byte(text))); err != nil {
				return err
			}
			code = text
			e.Detail = []audit.Field{
				{Name: "invitation", Value: id}, {Name: "kinds", Value: strings.Join(kinds, ",")},
				{Name: "expires", Value: out.Expires.Format(time.RFC3339)},
			}
			c.Invites = []InvitationWrite{{Invitation: out}}
			return nil
		})
	if err != nil {
		return Invitation{}, "", err
	}
	return out, code, nil
}

// inviteCode makes a new code: wi_ID_SECRET.
func (s *Service) inviteCode() (id, text string, err error) {
	random := make([]byte, inviteIDSize+32)
	defer clear(random)
	if _, err := io.ReadFull(s.cfg.Rand, random); err != nil {
		return "", "", fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	id = hex.EncodeToString(random[:inviteIDSize])
	return id, invitePrefix + id + "_" + base64.RawURLEncoding.EncodeToString(random[inviteIDSize:]), nil
}

// inviteMAC is what an invitation's row holds: a MAC under the HSM's binding key
// over the SHA-256 of its code and everything that says what it is good for.
// Whether it was used is not in it: a row that is set back lets its code be used
// again, which the audit shows.
func (s *Service) inviteMAC(ctx context.Context, i *Invitation, sum [sha256.Size]byte) (mac [sha256.Size]byte, err error) {
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, fmt.Appendf(nil, "watchword-invitation-1\x00%q %q %d %q %q %d %x",
		i.ID, i.Realm, i.UserID, i.User, i.Kinds, i.Expires.UnixMicro(), sum))
	if err != nil {
		return mac, translate(err)
	}
	copy(mac[:], macs[0])
	return mac, nil
}

// errInvitation is the same whatever is wrong with a code.
var errInvitation = fmt.Errorf("%w: no such invitation, or it was used or has expired", ErrUnknownKey)

// Invited answers the principal of an invitation's code, who may enrol a token
// for the invitation's user. The error wraps ErrUnknownKey and is the same, after
// the same work, whatever was wrong.
func (s *Service) Invited(ctx context.Context, code string) (Principal, Invitation, error) {
	id, _, _ := strings.Cut(strings.TrimPrefix(code, invitePrefix), "_")
	if b, err := hex.DecodeString(id); err != nil || len(b) != inviteIDSize || len(code) > 256 {
		id, code = "none", ""
	}
	sum := sha256.Sum256([]byte(code))
	i, err := s.invitation(ctx, id, sum)
	if err != nil {
		return Principal{}, Invitation{}, err
	}
	p := Principal{
		Kind: KindInvitation, ID: i.ID, Name: i.User, User: i.User, Realm: i.Realm,
		Scope: policy.ScopeInvite, code: sum,
	}
	i.MAC = [sha256.Size]byte{}
	return p, i, nil
}

// invitation reads an invitation anew and says whether the code with this sum is
// good for it now.
func (s *Service) invitation(ctx context.Context, id string, sum [sha256.Size]byte) (Invitation, error) {
	i, err := s.db.Invitation(ctx, id)
	if errors.Is(err, ErrNotFound) {
		// Held against one that cannot be.
		i = Invitation{ID: id, Realm: DefaultRealm, User: "nobody", Kinds: []string{InviteFIDO, InviteTOTP}, Used: s.started}
	} else if err != nil {
		return Invitation{}, unavailable(err)
	}
	mac, err := s.inviteMAC(ctx, &i, sum)
	if err != nil {
		return Invitation{}, err
	}
	same := subtle.ConstantTimeCompare(mac[:], i.MAC[:]) == 1
	if !same || !i.Used.IsZero() || !s.cfg.Now().Before(i.Expires) {
		return Invitation{}, errInvitation
	}
	if s.orphaned(&i) {
		// Unless the key is one that this node has not heard of yet.
		if err := s.reloadRegistry(ctx); err != nil {
			return Invitation{}, err
		}
		if s.orphaned(&i) {
			return Invitation{}, errInvitation
		}
	}
	return i, nil
}

// orphaned says whether who made an invitation could not make it any more: the API key
// was deleted, or the person has no role left, who may have made it for themselves; or
// the user has got a role meanwhile, and what such a one signs in with was not for
// them to hand out. Where a key has merely expired, what it made holds.
func (s *Service) orphaned(i *Invitation) bool {
	r := s.reg.Load()
	var superuser func(in string) bool
	switch kind, id, _ := strings.Cut(i.Actor, ":"); PrincipalKind(kind) {
	case KindKey:
		k := r.keys[id]
		if k == nil {
			return true
		}
		superuser = func(in string) bool {
			return slices.Contains(policy.Scope(k.Scope).Roles(), policy.Superuser) && (k.Realm == "" || k.Realm == in)
		}
	case KindAdmin:
		home, user, err := personNamed(id)
		if err != nil || len(r.roles[Ref{Realm: home, User: user}]) == 0 {
			return true
		}
		superuser = func(in string) bool { return slices.Contains(r.roles.of(home, user, in), policy.Superuser) }
	default:
		return false
	}
	return slices.ContainsFunc(r.roles[Ref{Realm: i.Realm, User: i.User}], func(g Grant) bool { return !superuser(g.Realm) })
}

// invites looks at the invitation of a principal again, before each act.
func (s *Service) invites(ctx context.Context, p Principal, action policy.Action, e audit.Event) error {
	i, err := s.invitation(ctx, p.ID, p.code)
	if err != nil {
		return err
	}
	kind := InviteTOTP
	if action == policy.KeyEnrol {
		kind = InviteFIDO
	}
	switch {
	case i.Realm != p.Realm || i.User != p.User || e.User != i.User:
		return s.deny(ctx, p, action, e, denial("the invitation is for another user"))
	case !slices.Contains(i.Kinds, kind):
		return s.deny(ctx, p, action, e, denial("the invitation is to another kind of token"))
	}
	return nil
}

// useUp is what uses up the invitation of a principal, in the change that makes
// or confirms the token; nothing for other principals.
func (p Principal) useUp(serial string, now time.Time) []InvitationWrite {
	if p.Kind != KindInvitation {
		return nil
	}
	return []InvitationWrite{{Use: true, Invitation: Invitation{ID: p.ID, Used: now.UTC(), Serial: serial}}}
}

// Invitations lists a realm's invitations, newest first; of one user if one is
// named, or ErrNotFound if there is none. Those that ended unused with the API key
// that made them are gone, as if each had been taken back.
func (s *Service) Invitations(ctx context.Context, p Principal, realm, user string) ([]Invitation, error) {
	realm, err := p.realm(realm)
	if err != nil {
		return nil, err
	}
	if user != "" {
		if user, err = FoldName(user); err != nil {
			return nil, err
		}
	}
	e := audit.Event{Realm: realm, User: user}
	if err := s.authorise(ctx, p, policy.InviteList, &e); err != nil {
		return nil, err
	}
	if user != "" {
		view, err := s.db.Load(ctx, []Ref{{Realm: realm, User: user}})
		if err != nil {
			return nil, unavailable(err)
		}
		if view.Subjects[0] == nil {
			return nil, s.refuse(ctx, p, policy.InviteList, e, noUser(realm, user))
		}
	}
	list, err := s.db.Invitations(ctx, realm, user, 1000)
	if err != nil {
		return nil, unavailable(err)
	}
	list = slices.DeleteFunc(list, func(i Invitation) bool { return i.Used.IsZero() && s.orphaned(&i) })
	for i := range list {
		list[i].MAC = [sha256.Size]byte{}
	}
	return list, s.record(ctx, p, policy.InviteList, e)
}

// Uninvite takes an invitation back: its code is good for nothing from then on.
func (s *Service) Uninvite(ctx context.Context, p Principal, id string) error {
	e := audit.Event{Realm: p.Realm}
	var found Invitation
	missing := fmt.Errorf("%w: no invitation with this id", ErrNotFound)
	if b, err := hex.DecodeString(id); err == nil && len(b) == inviteIDSize { // and not a whole code, taken for an id
		e.Detail = []audit.Field{{Name: "invitation", Value: id}}
		i, err := s.db.Invitation(ctx, id)
		switch {
		case err == nil && (p.Realm == "" || p.Realm == i.Realm):
			found, missing = i, nil
			e.Realm, e.User = i.Realm, i.User
		case err != nil && !errors.Is(err, ErrNotFound):
			return unavailable(err)
		}
	}
	if err := s.authorise(ctx, p, policy.InviteDelete, &e); err != nil {
		return err
	}
	if missing != nil {
		return s.refuse(ctx, p, policy.InviteDelete, e, missing)
	}
	c := Change{Invites: []InvitationWrite{{Invitation: Invitation{ID: found.ID}, Delete: true}}}
	if err := s.ledger.commit(ctx, &c, []audit.Event{s.event(p, policy.InviteDelete, e)}); err != nil {
		return s.refuse(ctx, p, policy.InviteDelete, e, err)
	}
	return nil
}
