package policy

import (
	"testing"

	"pgregory.net/rapid"
)

func TestEachScopeMayDoWhatItWasMadeFor(t *testing.T) {
	for action, who := range everything {
		for _, scope := range []Scope{ScopeAdmin, ScopeHelpdesk, ScopeVerify, ScopeRead, ScopeSystem, ScopeInvite} {
			want := scope == ScopeSystem
			for _, w := range who {
				want = want || byte(w) == scope[0]
			}
			d := Decide(Request{Scope: scope, Realm: "default", Action: action, In: "default"})
			if d.Allow != want || d.Allow == (d.Reason != "") {
				t.Errorf("%s, %s: %+v, want %v", scope, action, d, want)
			}
		}
	}
}

// An invitation is to one realm: what has none, or is for all of them, is none.
func TestAnInvitationWithoutARealmAllowsNothing(t *testing.T) {
	for action := range everything {
		for _, in := range []string{"", "default"} {
			if Decide(Request{Scope: ScopeInvite, Action: action, In: in}).Allow {
				t.Errorf("it allows %s in %q", action, in)
			}
		}
	}
}

func TestWhatHasNoNameIsForbidden(t *testing.T) {
	for _, scope := range []Scope{ScopeHelpdesk, ScopeVerify, ScopeRead, ScopeInvite, "", "Admin", "root", "administrator", "admin "} {
		for _, action := range []Action{"", "users", "user.delete", "VERIFY"} {
			if Decide(Request{Scope: scope, Action: action}).Allow {
				t.Errorf("%q may do %q", scope, action)
			}
		}
	}
	for action := range everything {
		for _, scope := range []Scope{"", "Admin", "root", "admin ", "verify,admin"} {
			if Decide(Request{Scope: scope, Action: action}).Allow {
				t.Errorf("scope %q may do %s", scope, action)
			}
		}
	}
	for _, scope := range []Scope{ScopeSystem, ScopeInvite, "", "Admin", "root"} {
		if scope.Valid() {
			t.Errorf("a key can have scope %q", scope)
		}
	}
	for _, scope := range []Scope{ScopeAdmin, ScopeHelpdesk, ScopeVerify, ScopeRead} {
		if !scope.Valid() {
			t.Errorf("no key can have scope %q", scope)
		}
	}
}

// Whatever the scope and the operation, one realm's principal acts in no other,
// and not on what belongs to no realm.
func TestOneRealmsPrincipalActsInNoOther(t *testing.T) {
	var actions []Action
	for a := range everything {
		actions = append(actions, a)
	}
	rapid.Check(t, func(t *rapid.T) {
		r := Request{
			Scope:  rapid.SampledFrom([]Scope{ScopeAdmin, ScopeHelpdesk, ScopeVerify, ScopeRead, ScopeSystem, ScopeInvite}).Draw(t, "scope"),
			Realm:  rapid.SampledFrom([]string{"corp", "corp2", "default"}).Draw(t, "realm"),
			Action: rapid.SampledFrom(actions).Draw(t, "action"),
			In:     rapid.SampledFrom([]string{"", "corp", "corp2", "default", "CORP"}).Draw(t, "in"),
		}
		d := Decide(r)
		if d.Allow && r.In != r.Realm {
			t.Fatalf("%+v is allowed", r)
		}
		free := r
		free.Realm = ""
		if r.In == r.Realm && r.Scope != ScopeInvite && d.Allow != Decide(free).Allow {
			t.Fatalf("in its own realm %+v is %v, without a realm it is %v", r, d, Decide(free))
		}
	})
}
