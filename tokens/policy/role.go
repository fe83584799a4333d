package policy

import "strings"

// RoleScope begins the scope of an API key that was made for a role of the
// installation's own: role:night-shift.
const RoleScope = "role:"

// scopeRoles are the roles of the scopes.
var scopeRoles = map[Scope][]Role{
	ScopeAdmin:     {Superuser},
	ScopeHelpdesk:  {Helpdesk},
	ScopeVerify:    {Verifier},
	ScopeRead:      {Auditor},
	ScopeProvision: {Provisioner},
	ScopeStation:   {Enroller},
}

// Roles are the roles that who has the scope has, which nobody may change: one, or
// none where it is no key's or client's scope.
func (s Scope) Roles() []Role {
	if list, ok := scopeRoles[s]; ok {
		return list
	}
	if name, ok := strings.CutPrefix(string(s), RoleScope); ok && Role(name).Valid() && !Role(name).Known() {
		return []Role{Role(name)}
	}
	return nil
}

// maxRole bounds the name of a role.
const maxRole = 64

// Valid says whether the name is one that a role can have: lower-case letters of
// ASCII, digits and dashes, 1 to 64 of them.
func (r Role) Valid() bool {
	if r == "" || len(r) > maxRole {
		return false
	}
	for _, c := range []byte(r) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Known says whether the role is one of those that come with rights.
func (r Role) Known() bool {
	switch r {
	case Superuser, Helpdesk, Provisioner, Enroller, Auditor, Verifier:
		return true
	}
	return false
}
