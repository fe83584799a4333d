package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestAScopeIsARole(t *testing.T) {
	for scope, want := range map[Scope][]Role{
		ScopeAdmin: {Superuser}, ScopeHelpdesk: {Helpdesk}, ScopeVerify: {Verifier}, ScopeRead: {Auditor}, ScopeProvision: {Provisioner},
		ScopeSystem: nil, ScopeInvite: nil, "": nil, "Admin": nil, "superuser": nil,
		"role:night-shift": {"night-shift"}, "role:": nil, "role:Night": nil, "role: x": nil, "role:a/b": nil,
		"role:superuser": nil, "role:verifier": nil,
		Scope("role:" + strings.Repeat("a", 64)): {Role(strings.Repeat("a", 64))},
		Scope("role:" + strings.Repeat("a", 65)): nil,
	} {
		if got := scope.Roles(); !slices.Equal(got, want) {
			t.Errorf("scope %q is %q, want %q", scope, got, want)
		}
	}
}

func TestOnlyPlainNamesAreRoles(t *testing.T) {
	for name, want := range map[Role]bool{
		"helpdesk": true, "night-shift": true, "7": true, "-": true,
		"": false, "Helpdesk": false, "night shift": false, "é": false, "a.b": false, "a\n": false, "a\"": false,
	} {
		if name.Valid() != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}
