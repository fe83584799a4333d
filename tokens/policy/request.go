package policy

import (
	"net/netip"
	"time"
)

// Kind is what a principal is. It is also the name of its entity type.
type Kind string

// The kinds of principals.
const (
	KindAdmin      Kind = "Admin"      // a person with a session
	KindKey        Kind = "Key"        // an API key
	KindClient     Kind = "Client"     // a RADIUS client
	KindInvitation Kind = "Invitation" // a person who was invited to enrol a token
	KindSystem     Kind = "System"     // the server itself
)

// Role is what a principal is there for. There are those named here, and those that
// an installation makes up, which may do what its own policies say and nothing else.
type Role string

// The roles that come with rights.
const (
	Superuser   Role = "superuser"   // everything
	Helpdesk    Role = "helpdesk"    // users and tokens; no imports, exports, keys, clients, roles or policies
	Provisioner Role = "provisioner" // brings tokens and users in and hands them out; takes nothing away
	Enroller    Role = "enroller"    // enrols FIDO keys, for users or as stock, and sees what is known of models
	Auditor     Role = "auditor"     // looks at everything, changes nothing
	Verifier    Role = "verifier"    // verifies codes, keys and statements, nothing else
)

// Principal is who asks. Roles are those that hold where the principal acts now.
type Principal struct {
	Kind  Kind
	ID    string // as in audit.Event.Actor, without the kind: API key id, client name; of an Admin REALM/USER
	Realm string // the one realm that it may act in; empty: all
	Roles []Role
}

// Type is what a resource is. It is also the name of its entity type.
type Type string

// The types of resources.
const (
	Installation Type = "Installation" // what belongs to no realm; there is one
	Realm        Type = "Realm"        // what belongs to a realm, and is none of the below
	User         Type = "User"
	Token        Type = "Token"
)

// Resource is what is asked about.
type Resource struct {
	Type   Type
	Realm  string   // empty: Installation
	User   string   // the user, or the token's owner; folded, empty if there is none
	Serial string   // of a Token
	Groups []string // of the user, where Set.Groups says that they are needed

	// Of a token, where it is known: verifying knows it.
	Kind     string // totp, hotp, fido, yubico, recovery, temporary
	Model    string // maker and model, or a FIDO key's model; may be empty
	AAGUID   string // of a FIDO key
	Attested bool   // a FIDO key's attestation was verified
	Unused   int64  // whole days since it was last used, or assigned if it never was
}

// Context is what else a decision may depend on.
type Context struct {
	Now    time.Time     // in the time zone of the installation
	Source netip.Addr    // where the request came from; invalid if unknown
	Path   string        // radius, http, console
	MFA    bool          // the principal proved a token: of an Admin, and of who verifies
	MFAAge time.Duration // since then
	NAS    string        // NAS-Identifier, or the name of the application; may be empty
	Caller netip.Addr    // where the person is, as the NAS says (Calling-Station-Id); invalid if unknown
}

// Query is one question.
type Query struct {
	Principal Principal
	Action    Action
	Resource  Resource
	Context   Context
}
