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
	SecretSize int // length of the secret in bytes, for warnings
}

// ClientWrite inserts, replaces or deletes a client by name. Two clients may
// not have the same prefix: ErrExists.
type ClientWrite struct {
	Client  Client
	Delete  bool
	Replace bool // else the name must be new: ErrExists
}

// APIKey is a key to the HTTP API. The key itself is shown once, when made.
type APIKey struct {
	ID       string // public part
	Name     string
	Realm    string            // the one realm that it may act in; empty: all
	Scope    string            // admin, helpdesk, verify, read
	MAC      [sha256.Size]byte // under the HSM's binding key, over the key's SHA-256 and the columns above and Expires
	Created  time.Time
	Expires  time.Time // zero: never
	LastUsed time.Time // to the minute
}

// KeyWrite inserts or deletes an API key by ID.
type KeyWrite struct {
	Key    APIKey
	Delete bool
}
