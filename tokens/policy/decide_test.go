package policy

import (
	"slices"
	"testing"
	"time"
)

// who may do each operation, by the first letter of the role: superuser (a key's scope
// "admin"), helpdesk, verifier, auditor ("read"), provisioner, and i for an invitation.
var roleOf = map[byte]Role{'a': Superuser, 'h': Helpdesk, 'v': Verifier, 'r': Auditor, 'p': Provisioner}

func TestTheBuiltInPoliciesGiveKeysWhatTheirScopesGave(t *testing.T) {
	set := Builtin()
	for action, who := range everything {
		for letter, role := range roleOf {
			want := slices.Contains([]byte(who), letter)
			for _, kind := range kinds {
				q := Query{
					Principal: Principal{Kind: kind, ID: "x", Realm: "default", Roles: []Role{role}}, Action: action,
					Resource: Resource{Type: Realm, Realm: "default"}, Context: Context{Now: time.Now(), MFA: true},
				}
				d := set.Decide(&q)
				invited := kind == KindInvitation && slices.Contains([]byte(who), 'i')
				if d.Allow != (want || invited) || d.Allow == (d.Reason != "") || d.Allow == (len(d.Policies) == 0) || len(d.Faults) > 0 {
					t.Errorf("%s %s, %s: %+v, want %v", kind, role, action, d, want)
				}
			}
		}
	}
}
