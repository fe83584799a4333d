package tokens

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"watchword/hsm"
	"watchword/tokens/policy"
)

// registry is what this node caches of clients and API keys. It is replaced
// whole, never changed.
type registry struct {
	generation int64
	keys       map[string]*heldKey
	clients    []*RADIUSClient // longest prefix first
	exact      map[netip.Addr]*RADIUSClient
	names      map[string]*RADIUSClient
	roles      granted
	documents  documents
	policies   *liveSet
}

// RADIUSClient is a client with its shared secret, as the RADIUS server needs
// it. It is read only.
type RADIUSClient struct {
	Client
	ClientOptions
	Plain []byte
}

// Principal is the client as one who asks for verifications: in its realm, or
// in all of them where the users' names say which.
func (c *RADIUSClient) Principal() Principal {
	p := Principal{Kind: KindClient, ID: c.Name, Name: c.Name, Realm: c.Realm, Scope: policy.ScopeVerify}
	if c.NameRule == NameRealm {
		p.Realm = ""
	}
	return p
}

// SplitName makes realm and user name of what the NAS sent, by the client's
// rule: DOMAIN\alice and alice@corp.
func (c *RADIUSClient) SplitName(name string) (realm, user string) {
	if c.NameRule != NameStrip && c.NameRule != NameRealm {
		return c.Realm, name
	}
	domain, user := "", name
	if i := strings.IndexByte(name, '\\'); i >= 0 {
		domain, user = name[:i], name[i+1:]
	} else if i := strings.LastIndexByte(name, '@'); i >= 0 {
		domain, user = name[i+1:], name[:i]
	}
	if c.NameRule == NameRealm && domain != "" {
		return domain, user
	}
	return c.Realm, user
}

// ClientFor answers the client with the most specific prefix that holds the
// address.
func (s *Service) ClientFor(addr netip.Addr) (*RADIUSClient, bool) {
	r := s.reg.Load()
	addr = addr.Unmap()
	if c, ok := r.exact[addr]; ok {
		return c, true
	}
	addr = addr.WithZone("")
	for _, c := range r.clients {
		if c.Prefix.Contains(addr) {
			return c, true
		}
	}
	return nil, false
}

// reloadRegistry reads clients and API keys anew.
func (s *Service) reloadRegistry(ctx context.Context) error {
	s.regMu.Lock()
	defer s.regMu.Unlock()
	read, err := s.db.Registry(ctx)
	if err != nil {
		return fmt.Errorf("read clients and API keys: %w", unavailable(err))
	}
	now := s.reg.Load()
	if now != nil && now.generation == read.Generation {
		return nil
	}
	r := &registry{
		generation: read.Generation,
		keys:       make(map[string]*heldKey, len(read.Keys)),
		exact:      map[netip.Addr]*RADIUSClient{},
		names:      map[string]*RADIUSClient{},
	}
	var known granted
	var was *liveSet
	if now != nil {
		known, was = now.roles, now.policies
	}
	if r.roles, err = s.honest(ctx, read.Grants, known); err != nil {
		return fmt.Errorf("look at the roles that people have: %w", err)
	}
	if r.policies, err = s.readPolicies(ctx, was); err != nil {
		return fmt.Errorf("read the policies: %w", err)
	}
	for i := range read.Keys {
		r.keys[read.Keys[i].ID] = &heldKey{APIKey: read.Keys[i]}
	}
	for i := range read.Clients {
		c := &RADIUSClient{Client: read.Clients[i]}
		if c.ClientOptions, err = ParseClientOptions(c.Options); err != nil {
			s.log.Error("the row of a RADIUS client was altered outside Watchword, or written by a later version; the client is ignored", "client", c.Name)
			continue
		}
		if c.Plain, err = s.custody.Open(ctx, c.Secret, clientContext(&c.Client)); err != nil {
			// One altered row must not stop the others; a fault must.
			if terr := translate(err); !isTampered(terr) {
				return fmt.Errorf("open the shared secret of client %s: %w", c.Name, terr)
			}
			s.log.Error("the row of a RADIUS client was altered outside Watchword; the client is ignored", "client", c.Name)
			continue
		}
		r.names[c.Name] = c
		r.clients = append(r.clients, c)
		if c.Prefix.IsSingleIP() {
			r.exact[c.Prefix.Addr()] = c
		}
	}
	sort.SliceStable(r.clients, func(i, j int) bool { return r.clients[i].Prefix.Bits() > r.clients[j].Prefix.Bits() })
	s.reg.Store(r)
	s.notePolicies(was, r.policies)
	return nil
}

// clientContext is what a client's secret is sealed with: everything in the
// row that decides who may use it and how.
func clientContext(c *Client) []byte {
	if c.Options != "" { // a version that knows none opens nothing then
		return fmt.Appendf(nil, "watchword-client-2\x00%q %q %q %v %q %q", c.Name, c.Prefix, c.Realm, c.RequireMA, c.NameRule, c.Options)
	}
	return fmt.Appendf(nil, "watchword-client-1\x00%q %q %q %v %q", c.Name, c.Prefix, c.Realm, c.RequireMA, c.NameRule)
}

// live looks at a principal again: a key or client that was deleted, or made
// anew with other rights, is no longer who it was.
func (s *Service) live(p Principal) bool {
	r := s.reg.Load()
	switch p.Kind {
	case KindSystem:
		return true
	case KindInvitation:
		return p.Scope == policy.ScopeInvite && p.User != "" && p.Realm != "" // the rest is for invites to say
	case KindClient:
		c, ok := r.names[p.ID]
		return ok && c.Principal().Realm == p.Realm && p.Scope == policy.ScopeVerify
	case KindKey:
		k, ok := r.keys[p.ID]
		if !ok || (!k.Expires.IsZero() && !s.cfg.Now().Before(k.Expires)) {
			return false
		}
		return string(p.Scope) == k.Scope && p.Realm == k.Realm && k.goodFrom(p.Source)
	case KindAdmin: // the rest is for stays to say
		return p.Session != "" && (len(p.Roles) == 0 || slices.Equal(p.Roles, r.roles.of(p.self().Realm, p.User, p.Realm)))
	}
	return false
}

// keyPrefix begins every API key, so that scanners for leaked secrets know one.
const keyPrefix = "ww_"

// newKeyText is an API key as it is shown: ww_ID_SECRET.
func newKeyText(id string, secret []byte) string {
	return keyPrefix + id + "_" + base64.RawURLEncoding.EncodeToString(secret)
}

// lookAgain is how often, at most, an unknown API key makes a node read the
// registry anew, on its own clock: strangers must not make the database busy.
const lookAgain = 250 * time.Millisecond

// found answers the API key of an id. One that another node has just made may
// be unknown here: then the registry is read anew.
func (s *Service) found(ctx context.Context, id string) *heldKey {
	if k := s.reg.Load().keys[id]; k != nil {
		return k
	}
	now, last := time.Since(s.regEpoch), s.regLooked.Load()
	if now < time.Duration(last)+lookAgain || !s.regLooked.CompareAndSwap(last, int64(now)) {
		return nil
	}
	if err := s.reloadRegistry(ctx); err != nil {
		s.log.Debug("clients and API keys could not be read anew", "error", err)
	}
	return s.reg.Load().keys[id]
}

// Authenticate answers the principal of an API key, without a round trip if
// the key is known here. The error wraps ErrUnknownKey and is the same whatever
// was wrong.
func (s *Service) Authenticate(ctx context.Context, key string) (Principal, error) {
	id, _, ok := strings.Cut(strings.TrimPrefix(key, keyPrefix), "_")
	if !ok || !strings.HasPrefix(key, keyPrefix) {
		return Principal{}, ErrUnknownKey
	}
	k := s.found(ctx, id)
	if k == nil {
		return Principal{}, ErrUnknownKey
	}
	if right, err := s.proves(ctx, k, key); err != nil {
		return Principal{}, err
	} else if !right {
		return Principal{}, ErrUnknownKey
	}
	now := s.cfg.Now()
	if !k.Expires.IsZero() && !now.Before(k.Expires) {
		return Principal{}, ErrUnknownKey
	}
	s.keyUse.note(id, now)
	return Principal{Kind: KindKey, ID: id, Name: k.Name, Realm: k.Realm, Scope: policy.Scope(k.Scope)}, nil
}

// heldKey is an API key's row, and once the key was shown and proven, its
// SHA-256.
type heldKey struct {
	APIKey
	proven atomic.Pointer[[sha256.Size]byte]
}

// proves says whether key is the one that the row was made for. The first time
// the HSM says so; from then on, until the registry is read anew, memory does.
func (s *Service) proves(ctx context.Context, k *heldKey, key string) (bool, error) {
	sum := sha256.Sum256([]byte(key))
	if known := k.proven.Load(); known != nil {
		return subtle.ConstantTimeCompare(sum[:], known[:]) == 1, nil
	}
	mac, err := s.keyMAC(ctx, &k.APIKey, sum)
	if err != nil {
		return false, err
	}
	if subtle.ConstantTimeCompare(mac[:], k.MAC[:]) != 1 {
		return false, nil
	}
	k.proven.Store(&sum)
	return true, nil
}

// keyMAC is what an API key's row holds: a MAC under the HSM's binding key over
// the SHA-256 of the key and everything that says what it may do. So a row that
// was made or changed in the database opens nothing. A key that is good from some
// networks only has another message than one that is not, so that a program that does
// not know of networks refuses it.
//
// A key that has a successor has a MAC over the MAC that it had before: when it is
// given one, nobody shows its text.
func (s *Service) keyMAC(ctx context.Context, k *APIKey, sum [sha256.Size]byte) (mac [sha256.Size]byte, err error) {
	next, was := k.succession()
	message := fmt.Appendf(nil, "watchword-key-1\x00%q %q %q %d %x", k.ID, k.Realm, k.Scope, micros(was), sum)
	if len(k.Sources) > 0 {
		message = fmt.Appendf(nil, "watchword-key-2\x00%q %q %q %d %q %x", k.ID, k.Realm, k.Scope, micros(was), k.Sources, sum)
	}
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, message)
	if err != nil {
		return mac, translate(err)
	}
	copy(mac[:], macs[0])
	if next == "" {
		return mac, nil
	}
	return s.succeededMAC(ctx, k, mac)
}

// succeededMAC is the MAC of a key that has a successor, which had another one before.
func (s *Service) succeededMAC(ctx context.Context, k *APIKey, before [sha256.Size]byte) (mac [sha256.Size]byte, err error) {
	macs, err := s.custody.MAC(ctx, hsm.KeyBinding, fmt.Appendf(nil, "watchword-key-3\x00%q %q %d %x", k.ID, k.Successor, micros(k.Expires), before))
	if err != nil {
		return mac, translate(err)
	}
	copy(mac[:], macs[0])
	return mac, nil
}

// micros is a time in a message: Unix microseconds, zero for none.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// succession is the ID of a key's successor, empty if there is none, and when the key
// expired before it had one.
func (k *APIKey) succession() (next string, expired time.Time) {
	next, at, ok := strings.Cut(k.Successor, "@")
	if !ok {
		return next, k.Expires
	}
	if us, err := strconv.ParseInt(at, 10, 64); err == nil && us != 0 {
		expired = time.UnixMicro(us).UTC()
	}
	return next, expired
}

// keyUse remembers when API keys were last used, to the minute.
type keyUse struct {
	last sync.Map // key id -> Unix minute (int64)
	mu   sync.Mutex
	sent map[string]int64
}

func (u *keyUse) note(id string, now time.Time) {
	minute := now.Unix() / 60
	if was, ok := u.last.Load(id); !ok || was.(int64) != minute {
		u.last.Store(id, minute)
	}
}

// flushKeyUse writes the last use of the API keys used since the last call.
func (s *Service) flushKeyUse(ctx context.Context) {
	u := &s.keyUse
	u.mu.Lock()
	defer u.mu.Unlock()
	used := map[string]time.Time{}
	u.last.Range(func(id, minute any) bool {
		if u.sent[id.(string)] != minute.(int64) {
			used[id.(string)] = time.Unix(minute.(int64)*60, 0).UTC()
		}
		return true
	})
	if len(used) == 0 {
		return
	}
	if err := s.db.TouchKeys(ctx, used); err != nil {
		s.log.Warn("the last use of API keys could not be noted", "error", err)
		return
	}
	if u.sent == nil {
		u.sent = map[string]int64{}
	}
	for id, t := range used {
		u.sent[id] = t.Unix() / 60
	}
}

func isTampered(err error) bool {
	return errors.Is(err, hsm.ErrTampered) || errors.Is(err, ErrTampered)
}
