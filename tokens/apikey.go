package tokens

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/unicode/norm"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// keyIDSize is the length of an API key's id in bytes; it is written in hex.
const keyIDSize = 8

// NewKey is an API key to make.
type NewKey struct {
	Name    string
	Realm   string    // the one realm that it may act in; empty: all
	Scope   string    // see policy.Scope: admin, helpdesk, provision, station, verify, read, role:NAME
	Expires time.Time // zero: never

	Sources []netip.Prefix // the networks that it is good from; none: any
}

// maxSources is how many networks a key can be good from.
const maxSources = 64

// Keys lists the API keys.
func (s *Service) Keys(ctx context.Context, p Principal) ([]APIKey, error) {
	e := audit.Event{Realm: p.Realm}
	if err := s.authorise(ctx, p, policy.KeyList, &e); err != nil {
		return nil, err
	}
	read, err := s.db.Registry(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	list := make([]APIKey, 0, len(read.Keys))
	for _, k := range read.Keys {
		if p.Realm == "" || k.Realm == p.Realm {
			k.Successor, _ = k.succession()
			list = append(list, k)
		}
	}
	return list, s.record(ctx, p, policy.KeyList, e)
}

// AddKey makes an API key and answers it with its text, which is shown this
// once: what is stored is a MAC over its SHA-256.
func (s *Service) AddKey(ctx context.Context, p Principal, n NewKey) (APIKey, string, error) {
	k, text, err := s.makeKey(ctx, p, n)
	if err != nil {
		return APIKey{}, "", err
	}
	e := audit.Event{Realm: k.Realm, Detail: k.detail()}
	if err := s.authorise(ctx, p, policy.KeyAdd, &e); err != nil {
		return APIKey{}, "", err
	}
	if why := p.mayLet(&k); why != "" {
		return APIKey{}, "", s.deny(ctx, p, policy.KeyAdd, e, denial(why))
	}
	w := Change{Keys: []KeyWrite{{Key: k}}}
	if err := s.ledger.commit(ctx, &w, []audit.Event{s.event(p, policy.KeyAdd, e)}); err != nil {
		return APIKey{}, "", s.refuse(ctx, p, policy.KeyAdd, e, err)
	}
	s.takeUp(ctx)
	return k, text, nil
}

// detail says in the audit what key is made.
func (k *APIKey) detail() []audit.Field {
	list := []audit.Field{{Name: "key", Value: k.ID}, {Name: "name", Value: k.Name}, {Name: "scope", Value: k.Scope}}
	if len(k.Sources) > 0 {
		text := make([]string, len(k.Sources))
		for i, n := range k.Sources {
			text[i] = n.String()
		}
		list = append(list, audit.Field{Name: "sources", Value: strings.Join(text, ",")})
	}
	return list
}

// mayLet says why a principal cannot hand out what a key lets do, or "".
func (p Principal) mayLet(k *APIKey) string {
	for _, role := range policy.Scope(k.Scope).Roles() {
		if why := p.mayGive(role, k.Realm); why != "" {
			return why
		}
	}
	return ""
}

// networks are the networks that a key is to be good from, as they are kept: each
// once, as IPv4 where they are, and without what the mask hides.
func networks(list []netip.Prefix) ([]netip.Prefix, error) {
	if len(list) > maxSources {
		return nil, fmt.Errorf("%w: a key that is good from %d networks; %d are possible", ErrInvalid, len(list), maxSources)
	}
	var out []netip.Prefix
	for _, n := range list {
		if !n.IsValid() {
			return nil, fmt.Errorf("%w: a network is written like 192.0.2.0/24 or 2001:db8::/48", ErrInvalid)
		}
		n = n.Masked()
		if a := n.Addr(); a.Is4In6() && n.Bits() >= 96 {
			n = netip.PrefixFrom(a.Unmap(), n.Bits()-96)
		}
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out, nil
}

func (s *Service) makeKey(ctx context.Context, p Principal, n NewKey) (APIKey, string, error) {
	name, err := FoldName(n.Name)
	if err != nil {
		return APIKey{}, "", fmt.Errorf("the name of the key: %w", err)
	}
	realm, err := p.listed(n.Realm)
	if err != nil {
		return APIKey{}, "", err
	}
	now := s.cfg.Now().UTC()
	switch {
	case len(policy.Scope(n.Scope).Roles()) == 0:
		return APIKey{}, "", fmt.Errorf("%w: scope %q; it is admin, helpdesk, provision, station, verify, read, or role: and the name of a role of your own", ErrInvalid, n.Scope)
	case !n.Expires.IsZero() && !n.Expires.After(now):
		return APIKey{}, "", fmt.Errorf("%w: the key would have expired before it was made", ErrInvalid)
	}
	sources, err := networks(n.Sources)
	if err != nil {
		return APIKey{}, "", err
	}
	random := make([]byte, keyIDSize+32)
	if _, err := io.ReadFull(s.cfg.Rand, random); err != nil {
		return APIKey{}, "", fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	id := hex.EncodeToString(random[:keyIDSize])
	text := newKeyText(id, random[keyIDSize:])
	clear(random)
	k := APIKey{ID: id, Name: norm.NFC.String(name), Realm: realm, Scope: n.Scope, Created: now, Sources: sources}
	if !n.Expires.IsZero() {
		k.Expires = n.Expires.UTC().Truncate(time.Microsecond) // as databases keep it
	}
	if k.MAC, err = s.keyMAC(ctx, &k, sha256.Sum256([]byte(text))); err != nil {
		return APIKey{}, "", err
	}
	return k, text, nil
}

// DeleteKey removes an API key: it opens nothing from then on, on any node.
func (s *Service) DeleteKey(ctx context.Context, p Principal, id string) error {
	read, err := s.db.Registry(ctx)
	if err != nil {
		return unavailable(err)
	}
	e := audit.Event{Realm: p.Realm}
	if b, err := hex.DecodeString(id); err == nil && len(b) == keyIDSize { // and not a whole key, taken for an id
		e.Detail = []audit.Field{{Name: "key", Value: id}}
	}
	var found *APIKey
	admins := 0
	for i := range read.Keys {
		if k := &read.Keys[i]; k.ID == id && p.reaches(k.Realm) {
			found, e.Realm = k, k.Realm
		}
		if isAdmin(&read.Keys[i]) {
			admins++
		}
	}
	if err := s.authorise(ctx, p, policy.KeyDelete, &e); err != nil {
		return err
	}
	switch {
	case found == nil:
		return s.refuse(ctx, p, policy.KeyDelete, e, fmt.Errorf("%w: no API key with this id", ErrNotFound))
	case isAdmin(found) && admins == 1:
		return s.refuse(ctx, p, policy.KeyDelete, e, fmt.Errorf("%w: this is the last admin key; make another one first", ErrState))
	}
	w := Change{Keys: []KeyWrite{{Key: *found, Delete: true}}}
	if err := s.ledger.commit(ctx, &w, []audit.Event{s.event(p, policy.KeyDelete, e)}); err != nil {
		return s.refuse(ctx, p, policy.KeyDelete, e, err)
	}
	s.takeUp(ctx)
	return nil
}

// isAdmin says whether a key may do everything, everywhere and for good.
func isAdmin(k *APIKey) bool {
	return policy.Scope(k.Scope) == policy.ScopeAdmin && k.Realm == "" && k.Expires.IsZero()
}

// LongestOverlap is how long a key and its successor can both be good.
const LongestOverlap = 30 * 24 * time.Hour

// RotateKey makes a key that takes another's place, with the same name, realm, scope
// and networks, that lasts as long as that was made for, and answers it with its text,
// which is shown this once. The old one is good as long as overlap says, if it does not
// expire before, so that whoever uses it can change over. A key is rotated once:
// after that, its successor is.
func (s *Service) RotateKey(ctx context.Context, p Principal, id string, overlap time.Duration) (APIKey, string, error) {
	if overlap < 0 || overlap > LongestOverlap {
		return APIKey{}, "", fmt.Errorf("%w: an overlap of %s; up to %s is possible", ErrInvalid, overlap, LongestOverlap)
	}
	read, err := s.db.Registry(ctx)
	if err != nil {
		return APIKey{}, "", unavailable(err)
	}
	e := audit.Event{Realm: p.Realm}
	if b, err := hex.DecodeString(id); err == nil && len(b) == keyIDSize { // and not a whole key, taken for an id
		e.Detail = []audit.Field{{Name: "key", Value: id}}
	}
	i := slices.IndexFunc(read.Keys, func(k APIKey) bool { return k.ID == id && p.reaches(k.Realm) })
	if i >= 0 {
		e.Realm = read.Keys[i].Realm
	}
	if err := s.authorise(ctx, p, policy.KeyRotate, &e); err != nil {
		return APIKey{}, "", err
	}
	now := s.cfg.Now().UTC().Truncate(time.Microsecond)
	refuse := func(err error) (APIKey, string, error) {
		return APIKey{}, "", s.refuse(ctx, p, policy.KeyRotate, e, err)
	}
	if i < 0 {
		return refuse(fmt.Errorf("%w: no API key with this id", ErrNotFound))
	}
	old := read.Keys[i]
	if why := p.mayLet(&old); why != "" {
		return APIKey{}, "", s.deny(ctx, p, policy.KeyRotate, e, denial(why))
	}
	switch {
	case old.Successor != "":
		next, _ := old.succession()
		return refuse(fmt.Errorf("%w: key %s has a successor, %s; rotate that one, or if nobody has its text, delete it and make a new key", ErrState, id, next))
	case !old.Expires.IsZero() && !now.Before(old.Expires):
		return refuse(fmt.Errorf("%w: key %s has expired; make a new one", ErrState, id))
	}
	n := NewKey{Name: old.Name, Realm: old.Realm, Scope: old.Scope, Sources: old.Sources}
	if !old.Expires.IsZero() {
		n.Expires = now.Add(old.Expires.Sub(old.Created))
	}
	next, text, err := s.makeKey(ctx, systemPrincipal(), n)
	if err != nil {
		return APIKey{}, "", err
	}
	before, ends := old.MAC, now.Add(overlap)
	old.Successor = fmt.Sprintf("%s@%d", next.ID, micros(old.Expires))
	if old.Expires.IsZero() || ends.Before(old.Expires) {
		old.Expires = ends
	}
	if old.MAC, err = s.succeededMAC(ctx, &old, before); err != nil {
		return APIKey{}, "", err
	}
	e.Detail = append(e.Detail, audit.Field{Name: "successor", Value: next.ID}, audit.Field{Name: "name", Value: next.Name},
		audit.Field{Name: "scope", Value: next.Scope}, audit.Field{Name: "until", Value: old.Expires.Format(time.RFC3339)})
	w := Change{Keys: []KeyWrite{{Key: old, Replace: true}, {Key: next}}}
	err = s.ledger.commit(ctx, &w, []audit.Event{s.event(p, policy.KeyRotate, e)})
	switch {
	case errors.Is(err, ErrNotFound):
		return refuse(fmt.Errorf("%w: key %s was deleted or rotated meanwhile", ErrState, id))
	case err != nil:
		return refuse(err)
	}
	s.takeUp(ctx)
	return next, text, nil
}
