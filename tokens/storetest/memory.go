// Package storetest holds what tests need of a database: a conformance suite
// for every tokens.Database, an in-memory one that accuses its caller, and
// throw-away PostgreSQL servers.
package storetest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"watchword/hsm"
	"watchword/tokens"
	"watchword/tokens/audit"
)

// Memory is a tokens.Database in memory that fails the test when its caller
// does what must never happen: moves a time step or counter back, skips a
// version, changes something without an audit record, breaks the audit chain,
// or hands over a plaintext seed that was given to Watch. It injects faults:
// see Inject.
type Memory struct {
	t testing.TB

	migration chan struct{} // holds one element while the migration lock is taken

	mu     sync.Mutex
	quiet  bool
	seeds  []pattern
	faults []func(*tokens.Change) Fault
	slow   time.Duration
	loads  int // that fail

	users      map[int64]*person
	names      map[name]*person
	tokens     map[int64]*tokens.Token
	serials    map[name]*tokens.Token
	holds      map[int64]map[int64]bool // by user: the tokens, by ID, that the user owns
	batches    map[int64]*batch
	records    []audit.Record
	heads      map[int64]audit.Head // of every chain minted
	clients    map[string]tokens.Client
	keys       map[string]tokens.APIKey
	hsmKeys    []hsm.KeyRecord
	generation int64
	lastID     int64
	warnings   []string
	sync       bool

	credentials map[string]*tokens.Token // by Credential.Key
	spent       map[[32]byte]time.Time   // until when
	documents   map[string]tokens.Document
	couriers    map[string]*carried // by sink
	invitations map[string]tokens.Invitation
	roles       map[role]tokens.Grant
	sessions    map[string]tokens.Session
	groups      map[int64][]string
	externals   map[name]int64 // by realm and external id: whose it is
	noted       map[int64]bool // tokens that somebody noted something on
	most        int            // tokens that a user may hold
}

type person struct {
	tokens.User
	tokens.Standing
}

// name is a user's key or a token's serial in its realm.
type name struct{ realm, name string }

type batch struct {
	tokens.Batch
	published bool
	touched   time.Time
	newcomers []tokens.User  // that publishing makes
	grants    []tokens.Token // that publishing hands out
}

var _ tokens.Database = (*Memory)(nil)

// NewMemory makes an empty database whose accusations fail t.
func NewMemory(t testing.TB) *Memory {
	return &Memory{
		t:          t,
		migration:  make(chan struct{}, 1),
		users:      make(map[int64]*person),
		names:      make(map[name]*person),
		tokens:     make(map[int64]*tokens.Token),
		serials:    make(map[name]*tokens.Token),
		holds:      make(map[int64]map[int64]bool),
		batches:    make(map[int64]*batch),
		heads:      make(map[int64]audit.Head),
		clients:    make(map[string]tokens.Client),
		keys:       make(map[string]tokens.APIKey),
		generation: 1,

		credentials: make(map[string]*tokens.Token),
		spent:       make(map[[32]byte]time.Time),
		documents:   make(map[string]tokens.Document),
		couriers:    make(map[string]*carried),
		invitations: make(map[string]tokens.Invitation),
		roles:       make(map[role]tokens.Grant),
		sessions:    make(map[string]tokens.Session),
		groups:      make(map[int64][]string),
		externals:   make(map[name]int64),
		noted:       make(map[int64]bool),
		most:        tokens.MaxTokensPerUser,
	}
}

func (m *Memory) id() int64 {
	m.lastID++
	return m.lastID
}

// Close implements tokens.Store. What was stored stays.
func (m *Memory) Close() error { return nil }

// Recall implements tokens.Store.
func (m *Memory) Recall(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	return m.Load(ctx, refs)
}

// Confirm implements tokens.Store: nothing is recalled.
func (m *Memory) Confirm(context.Context, *tokens.Change) error { return nil }

// Load implements tokens.Store.
func (m *Memory) Load(ctx context.Context, refs []tokens.Ref) (tokens.View, error) {
	if err := m.wait(ctx); err != nil {
		return tokens.View{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.loads > 0 {
		m.loads--
		return tokens.View{}, unavailable("an injected fault")
	}
	view := tokens.View{Subjects: make([]*tokens.Subject, len(refs)), Generation: m.generation}
	users := make(map[int64]*tokens.Subject)
	alone := make(map[int64]*tokens.Subject)
	for i, ref := range refs {
		var t *tokens.Token
		switch {
		case ref.Serial != "":
			t = m.bySerial(ref.Realm, ref.Serial)
		case ref.Credential != "":
			if t = m.credentials[ref.Credential]; t != nil && t.Realm != ref.Realm {
				t = nil
			}
		default:
			if p := m.find(ref.Realm, ref.User); p != nil {
				view.Subjects[i] = m.subject(users, p)
			}
		}
		switch {
		case t == nil || !m.visible(t):
		case t.OwnerID != 0 && t.State != tokens.Revoked:
			view.Subjects[i] = m.subject(users, m.users[t.OwnerID])
		default:
			if alone[t.ID] == nil {
				alone[t.ID] = &tokens.Subject{Tokens: []tokens.Token{loaded(t)}}
			}
			view.Subjects[i] = alone[t.ID]
		}
	}
	return view, nil
}

func (m *Memory) subject(known map[int64]*tokens.Subject, p *person) *tokens.Subject {
	if s := known[p.ID]; s != nil {
		return s
	}
	u := cloneUser(&p.User)
	u.Profile = tokens.Profile{}
	s := &tokens.Subject{User: &u, Standing: cloneStanding(p.Standing)}
	for _, t := range m.held(p.ID) {
		s.Tokens = append(s.Tokens, loaded(t))
	}
	known[p.ID] = s
	return s
}

// held are a user's tokens, in order of ID.
func (m *Memory) held(user int64) []*tokens.Token {
	var list []*tokens.Token
	for _, id := range slices.Sorted(maps.Keys(m.holds[user])) {
		if t := m.tokens[id]; t.State != tokens.Revoked {
			list = append(list, t)
		}
	}
	return list
}

func (m *Memory) find(realm, key string) *person { return m.names[name{realm, key}] }

func (m *Memory) bySerial(realm, serial string) *tokens.Token { return m.serials[name{realm, serial}] }

// Lock implements tokens.Setup.
func (m *Memory) Lock(ctx context.Context) (func() error, error) {
	select {
	case m.migration <- struct{}{}:
	case <-ctx.Done():
		return nil, unavailable("another holds the lock")
	}
	var once sync.Once
	return func() error {
		once.Do(func() { <-m.migration })
		return nil
	}, nil
}

// Migrate implements tokens.Setup: there is nothing to do.
func (m *Memory) Migrate(context.Context) error { return nil }

// HSMKeys implements tokens.Setup.
func (m *Memory) HSMKeys(context.Context) ([]hsm.KeyRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []hsm.KeyRecord
	for _, k := range m.hsmKeys {
		k.ID, k.Check = slices.Clone(k.ID), slices.Clone(k.Check)
		keys = append(keys, k)
	}
	return keys, nil
}

// AddHSMKeys implements tokens.Setup.
func (m *Memory) AddHSMKeys(_ context.Context, keys []hsm.KeyRecord) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.Clone(m.hsmKeys)
	for _, k := range keys {
		if slices.ContainsFunc(all, func(o hsm.KeyRecord) bool { return o.Name == k.Name && o.Version == k.Version }) {
			return exists("HSM key %s", k.Name)
		}
		k.ID, k.Check = slices.Clone(k.ID), slices.Clone(k.Check)
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b hsm.KeyRecord) int {
		if a.Name != b.Name {
			if a.Name < b.Name {
				return -1
			}
			return 1
		}
		return int(a.Version) - int(b.Version)
	})
	m.hsmKeys = all
	return nil
}

// Durability implements tokens.Setup: it answers what SetDurability was given.
func (m *Memory) Durability(context.Context) ([]string, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.warnings), m.sync, nil
}

// SetMost is how many tokens a user may hold from now on: MaxTokensPerUser until it
// is called. To give one more is an accusation.
func (m *Memory) SetMost(tokens int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.most = tokens
}

// SetDurability is what Durability answers from now on.
func (m *Memory) SetDurability(warnings []string, sync bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.warnings, m.sync = warnings, sync
}

func cloneUser(u *tokens.User) tokens.User {
	c := *u
	c.PINSalt, c.PINMAC, c.Profile = bytesOrNil(u.PINSalt), bytesOrNil(u.PINMAC), cloneProfile(u.Profile)
	return c
}

func cloneStanding(s tokens.Standing) tokens.Standing {
	if len(s.Throttle) == 0 {
		s.Throttle = nil
	}
	s.Throttle = slices.Clone(s.Throttle)
	return s
}

func cloneToken(t *tokens.Token) tokens.Token {
	c := *t
	c.Wrapped.Blob, c.Binding, c.PrivateMAC = bytesOrNil(t.Wrapped.Blob), bytesOrNil(t.Binding), bytesOrNil(t.PrivateMAC)
	c.Credential, c.Passcodes = cloneCredential(t.Credential), clonePasscodes(t)
	c.Tags = append([]string(nil), t.Tags...)
	return c
}

// loaded is a token as Load answers it.
func loaded(t *tokens.Token) tokens.Token {
	c := cloneToken(t)
	c.Hint, c.Assigned, c.Note, c.Tags = "", time.Time{}, "", nil
	return c
}

func cloneRecord(r audit.Record) audit.Record {
	if len(r.Detail) == 0 {
		r.Detail = nil
	}
	r.Detail = slices.Clone(r.Detail)
	return r
}

func bytesOrNil(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return slices.Clone(b)
}

// stored is a time as a database answers it.
func stored(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}
