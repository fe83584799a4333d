package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// everything says for each operation who may do it, by the first letter of the
// scope: admin, helpdesk, verify, read, invite. The server itself may do all.
var everything = map[Action]string{
	Verify:  "ahv",
	UserAdd: "ahp", UserShow: "ahrp", UserList: "ahrp", UserWhy: "ahr", UserEnable: "ah", UserDisable: "ah", UserUnlock: "ah", UserPIN: "ah",
	TokenShow: "ahrp", TokenList: "ahrp", TokenAssign: "ahp", TokenUnassign: "ah", TokenResync: "ah", TokenSuspend: "ah", TokenResume: "ah",
	TokenLost: "ah", TokenRevoke: "ah",
	ImportBegin: "ap", ImportPublish: "ap", ImportDiscard: "ap", ImportList: "ahrp",
	ClientList: "ar", ClientPut: "a", ClientDelete: "a",
	KeyList: "ar", KeyAdd: "a", KeyDelete: "a",
	AuditList: "ahr", AuditVerify: "ar",
	ImportShow: "ahrp", ImportUndo: "a",
	ImportTransport: "a", ImportPGP: "a", HSMTransportKey: "a", HSMPGPKey: "a",
	KeyEnrol: "ahip", TokenEnrol: "ahip", TokenConfirm: "a",
	InviteAdd: "ahp", InviteList: "ahrp", InviteDelete: "ahp",
	UserGroups: "ahp", FIDOShow: "ahr", FIDOImport: "a", FIDORules: "a",
	StatementCheck: "av", StatementRotate: "a", StatementList: "ar", StatementGive: "a", StatementDestroy: "a",
	UserEdit: "ahp", UserImport: "ap", UserExport: "ar", UserPINChange: "av", UserStory: "ahr",
	TokenActivate: "ahip", TokenExpire: "ahp", TokenNote: "ahp", TokenReplace: "ah", TokenBulk: "ah", TokenDrift: "ahr", TokenStory: "ahr",
	RecoveryAdd: "ah", TemporaryAdd: "ah", ReportShow: "ahr",
	RealmList: "ahr", RealmShow: "ahr", RealmRules: "a",
	KeyRotate: "a", AuditExport: "ar", AuditCut: "a",
	PolicyList: "ar", PolicyShow: "ar", PolicySimulate: "ar", PolicyPut: "a", PolicyDelete: "a", PolicyRollBack: "a",
	PolicyTemplatePut: "a", PolicyTemplateDelete: "a", PolicyLinkPut: "a", PolicyLinkDelete: "a",
	RoleList: "ar", RoleGrant: "a", RoleRevoke: "a",
	SessionStart: "av", SessionRenew: "av", SessionEnd: "ahv", SessionCheck: "av", SessionList: "ahr",
	SinkList: "ar", SinkPut: "a", SinkDelete: "a", SinkTest: "a",
	ServerStart: "a", ServerStop: "a", Checkpoint: "a",
}

// Each operation that the package names is one that the tests here know.
func TestEveryOperationIsInTheTable(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "action.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	known := map[Action]bool{}
	for a := range everything {
		known[a] = true
	}
	named := map[Action]bool{}
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if id, ok := v.Type.(*ast.Ident); !ok || id.Name != "Action" {
			return true
		}
		text, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if named[Action(text)] {
			t.Errorf("two operations are called %s", text)
		}
		named[Action(text)] = true
		if !known[Action(text)] {
			t.Errorf("who may do %s (%s)?", text, v.Names[0].Name)
		}
		return true
	})
	if len(named) != len(everything) {
		t.Errorf("the package names %d operations, the table %d", len(named), len(everything))
	}
}

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
