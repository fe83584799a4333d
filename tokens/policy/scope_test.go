package policy

import (
	"testing"

	"pgregory.net/rapid"
)

// everything says for each operation who may do it, by the first letter of the
// scope: admin, helpdesk, verify, read. The server itself may do all.
var everything = map[Action]string{
	Verify:  "ahv",
	UserAdd: "ah", UserShow: "ahr", UserList: "ahr", UserWhy: "ahr", UserEnable: "ah", UserDisable: "ah", UserUnlock: "ah", UserPIN: "ah",
	TokenShow: "ahr", TokenList: "ahr", TokenAssign: "ah", TokenUnassign: "ah", TokenResync: "ah", TokenSuspend: "ah", TokenResume: "ah",
	TokenLost: "ah", TokenRevoke: "ah",
	ImportBegin: "a", ImportPublish: "a", ImportDiscard: "a", ImportList: "ahr",
	ClientList: "ar", ClientPut: "a", ClientDelete: "a",
	KeyList: "ar", KeyAdd: "a", KeyDelete: "a",
	AuditList: "ahr", AuditVerify: "ar",
	ServerStart: "a", ServerStop: "a", Checkpoint: "a",
}

func TestEachScopeMayDoWhatItWasMadeFor(t *testing.T) {
	for action, who := range everything {
		for _, scope := range []Scope{ScopeAdmin, ScopeHelpdesk, ScopeVerify, ScopeRead, ScopeSystem} {
			want := scope == ScopeSystem
			for _, w := range who {
				want = want || byte(w) == scope[0]
			}
			d := Decide(Request{Scope: scope, Action: action, In: "default"})
			if d.Allow != want || d.Allow == (d.Reason != "") {
				t.Errorf("%s, %s: %+v, want %v", scope, action, d, want)
			}
		}
	}
}

func TestWhatHasNoNameIsForbidden(t *testing.T) {
	for _, scope := range []Scope{ScopeHelpdesk, ScopeVerify, ScopeRead, "", "Admin", "root", "administrator", "admin "} {
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
	for _, scope := range []Scope{ScopeSystem, "", "Admin", "root"} {
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
			Scope:  rapid.SampledFrom([]Scope{ScopeAdmin, ScopeHelpdesk, ScopeVerify, ScopeRead, ScopeSystem}).Draw(t, "scope"),
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
		if r.In == r.Realm && d.Allow != Decide(free).Allow {
			t.Fatalf("in its own realm %+v is %v, without a realm it is %v", r, d, Decide(free))
		}
	})
}
