package tokens

import (
	"crypto/sha256"
	"net/netip"
	"time"
)

// Registry is what each node caches: the RADIUS clients and the API keys.
type Registry struct {
	Generation int64
	Clients    []Client
	Keys       []APIKey
	Grants     []Grant // in order of user, role and realm
}

// NameRule says what a client's user names look like.
type NameRule string

// The rules for DOMAIN\alice and alice@corp.
const (
	NamePlain NameRule = "plain" // taken as they stand, in the client's realm
	NameStrip NameRule = "strip" // the domain is dropped; the client's realm counts
	NameRealm NameRule = "realm" // the domain is the realm; without one, the client's
)

// Client is a RADIUS client (NAS), known by its source address.
type Client struct {
	Name       string // unique, folded
	Prefix     netip.Prefix
	Realm      string
	Secret     []byte // sealed by the HSM, bound to the name; never leaves the core unsealed but to the RADIUS server
	RequireMA  bool   // drop an Access-Request without Message-Authenticator (RFC 3579, section 3.2)
	NameRule   NameRule
	Created    time.Time
	SecretSize int    // length of the secret in bytes, for warnings
	Options    string // ClientOptions in JSON; empty: none differs from its default
}

// ClientWrite inserts, replaces or deletes a client by name. Two clients may
// not have the same prefix: ErrExists.
type ClientWrite struct {
	Client  Client
	Delete  bool
	Replace bool // else the name must be new: ErrExists

	// Expect, if it is not nil, is the sealed secret that the client to replace must
	// still have: ErrConflict.
	Expect []byte
}

// APIKey is a key to the HTTP API. The key itself is shown once, when made.
type APIKey struct {
	ID       string // public part
	Name     string
	Realm    string            // the one realm that it may act in; empty: all
	Scope    string            // admin, helpdesk, provision, station, verify, read, role:NAME
	MAC      [sha256.Size]byte // under the HSM's binding key, over the key's SHA-256, the columns above, Expires, Sources and Successor
	Created  time.Time
	Expires  time.Time // zero: never
	LastUsed time.Time // to the minute

	Sources   []netip.Prefix // the networks that it is good from; none: any
	Successor string         // the ID of the key that takes its place, while both are good; in a row an @ follows, and when this one expired before, in Unix microseconds
}

// KeyWrite inserts or deletes an API key by ID, or replaces MAC, Expires and Successor
// of one that is there and has no successor yet: ErrNotFound.
type KeyWrite struct {
	Key     APIKey
	Delete  bool
	Replace bool
}

// Grant is a role that a person has.
type Grant struct {
	UserID  int64
	User    string // folded, and
	Home    string // the realm that the user is in; read only
	Role    string
	Realm   string            // where; empty: in all
	MAC     [sha256.Size]byte // under the HSM's binding key, over the four
	Actor   string            // who gave it
	Created time.Time
}

// GrantWrite inserts or deletes a grant by UserID, Role and Realm: ErrExists,
// ErrNotFound.
type GrantWrite struct {
	Grant  Grant
	Delete bool
}

// Session is that of a person who signed in.
type Session struct {
	ID            string // public part
	UserID        int64
	Home, User    string            // the user's realm and folded name
	Realm         string            // where it acts; empty: in all
	Serial        string            // of the token that was used last
	Method        string            // authentication methods (RFC 8176, section 2), divided by commas
	Bound         string            // the network address that it is good from; empty: any
	Through       string            // the actor that it began through; empty: none
	MAC           [sha256.Size]byte // under the HSM's binding key, over the session's SHA-256 and all but Ended
	Created       time.Time
	Authenticated time.Time // when the token last proved its holder
	Expires       time.Time
	Ended         time.Time // zero while it is open
}

// SessionWrite inserts a session by ID, or replaces Serial, Method, Authenticated,
// Expires, MAC and Ended of one that is there and not ended: ErrNotFound.
type SessionWrite struct {
	Session Session
	Replace bool
}
