package tokens

import (
	"crypto/sha256"
	"time"

	"watchword/tokens/policy"
)

// PrincipalKind says how a principal proved who it is.
type PrincipalKind string

// The kinds of principals.
const (
	KindKey    PrincipalKind = "key"    // an API key
	KindClient PrincipalKind = "client" // a RADIUS client, by source address and shared secret
	KindSystem PrincipalKind = "system" // the server itself, at start

	KindInvitation PrincipalKind = "invitation" // a person who was invited to enrol a token
	KindAdmin      PrincipalKind = "admin"      // a person with a session
)

// Principal is who asks for something. It comes from Authenticate, from Invited or
// from a RADIUSClient, and is looked at again in the core for each act.
//
// Of KindAdmin, ID is policy.ID of the user, REALM/USER, and Realm where the session
// acts.
type Principal struct {
	Kind   PrincipalKind
	ID     string // API key id, invitation id, or RADIUS client name
	Name   string
	User   string       // KindInvitation: the one user whom it may act for, folded
	Realm  string       // the one realm it may act in; empty: all
	Scope  policy.Scope // of a key, a client, an invitation; a person has Roles
	Source string       // network address it came from

	Roles   []policy.Role // KindAdmin: those that hold where the session acts
	MFA     time.Time     // when a token last proved who it is; zero: never
	Session string        // KindAdmin: the session's ID

	home string            // KindAdmin: the realm that User is in
	code [sha256.Size]byte // SHA-256 of an invitation's code, or a session's text
}

// From is the principal with the network address that it came from.
func (p Principal) From(source string) Principal {
	p.Source = source
	return p
}

// Actor is how the audit names the principal.
func (p Principal) Actor() string {
	if p.Kind == KindSystem {
		return string(KindSystem)
	}
	return string(p.Kind) + ":" + p.ID
}

// plain says whether it is by an application's session: see Session.plain. Who acts
// by a session of their own has roles, which live and stays see to.
func (p Principal) plain() bool { return p.Kind == KindAdmin && len(p.Roles) == 0 }

// roles are the roles that the principal has where it acts.
func (p Principal) roles() []policy.Role {
	if p.Kind == KindAdmin {
		return p.Roles
	}
	return p.Scope.Roles()
}

// reaches says whether there can be anything in a realm for the principal. What is
// elsewhere is like what there is not.
func (p Principal) reaches(realm string) bool { return p.Realm == "" || p.Realm == realm }

// realm is the realm that a request of this principal means when it says
// asked: folded, and the principal's own or the default one if it says none.
func (p Principal) realm(asked string) (string, error) {
	if asked == "" && p.Realm != "" {
		return p.Realm, nil
	}
	return ParseRealm(asked)
}

// token is the realm of a token that this principal names by serial. What
// cannot be a serial is no token's, and never reaches database or audit.
func (p Principal) token(realm, serial string) (string, error) {
	if ValidSerial(serial) != nil {
		return "", errNoToken
	}
	return p.realm(realm)
}
