package policy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// everything says for each operation who may do it, by the first letter of the scope
// that an API key has: admin, helpdesk, verify, read, provision, station; and invite. The
// server itself may do all.
var everything = map[Action]string{
	Verify:  "ahv",
	UserAdd: "ahp", UserShow: "ahrp", UserList: "ahrp", UserWhy: "ahr", UserEnable: "ah", UserDisable: "ah", UserUnlock: "ah", UserPIN: "ah",
	TokenShow: "ahrp", TokenList: "ahrp", TokenAssign: "ahp", TokenUnassign: "ah", TokenResync: "ah", TokenSuspend: "ah", TokenResume: "ah",
	TokenLost: "ah", TokenRevoke: "ah",
	ImportBegin: "ap", ImportPublish: "ap", ImportDiscard: "ap", ImportList: "ahrp",
	ClientList: "ar", ClientPut: "a", ClientDelete: "a", ClientWatch: "ar", ClientTest: "a",
	KeyList: "ar", KeyAdd: "a", KeyDelete: "a",
	AuditList: "ahr", AuditVerify: "ar",
	ImportShow: "ahrp", ImportUndo: "a",
	ImportTransport: "a", ImportPGP: "a", HSMTransportKey: "a", HSMPGPKey: "a",
	KeyEnrol: "ahips", KeyStock: "aps", TokenEnrol: "ahip", TokenConfirm: "a",
	InviteAdd: "ahp", InviteList: "ahrp", InviteDelete: "ahp",
	UserGroups: "ahp", FIDOShow: "ahrs", FIDOImport: "a", FIDORules: "a",
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
	SinkList: "ar", SinkPut: "a", SinkDelete: "a", SinkTest: "a", SinkFailing: "a", SinkStop: "a",
	KeyUse: "a", ServerStart: "a", ServerStop: "a", Checkpoint: "a",
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

// roleOf is the role that the scope of a letter is.
var roleOf = map[byte]Role{'a': Superuser, 'h': Helpdesk, 'v': Verifier, 'r': Auditor, 'p': Provisioner, 's': Enroller}

// protected are the operations for which a person proves a token anew.
var protected = []Action{
	TokenRevoke, TokenReplace, ImportBegin, ImportPublish, ImportDiscard, ImportUndo, UserImport, UserExport, AuditExport, AuditCut,
	PolicyPut, PolicyDelete, PolicyRollBack, PolicyTemplatePut, PolicyTemplateDelete, PolicyLinkPut, PolicyLinkDelete,
	RoleGrant, RoleRevoke, KeyAdd, KeyDelete, KeyRotate, FIDOImport, FIDORules, RealmRules, ClientPut, ClientDelete, ClientTest,
	StatementRotate, SinkPut, SinkDelete,
}

// at is a question in the realm "default", of what has all rights but by its roles.
func at(kind Kind, action Action, roles ...Role) *Query {
	return &Query{
		Principal: Principal{Kind: kind, ID: "default/ann", Realm: "default", Roles: roles}, Action: action,
		Resource: Resource{Type: Realm, Realm: "default"}, Context: Context{Now: time.Now()},
	}
}

func TestTheSchemaKnowsEachOperationAndNoOther(t *testing.T) {
	for action := range everything {
		if words().actions[action] == nil {
			t.Errorf("the schema does not know %s", action)
		}
	}
	for _, rule := range words().ordered {
		if _, ok := everything[rule.action]; !ok {
			t.Errorf("the schema knows %s, and nothing is called that", rule.action)
		}
		if !slices.Contains(rule.parents, actionUID("all")) {
			t.Errorf("%s is not in all", rule.action)
		}
		if is := slices.Contains(rule.parents, actionUID("protected")); is != slices.Contains(protected, rule.action) {
			t.Errorf("%s is protected: %v", rule.action, is)
		}
	}
}

func TestTheBuiltInPoliciesGiveKeysWhatTheirScopesGave(t *testing.T) {
	for action, who := range everything {
		for _, kind := range []Kind{KindKey, KindClient, KindInvitation, KindSystem} {
			for letter, role := range roleOf {
				want := strings.Contains(who, string(letter)) || kind == KindInvitation && strings.Contains(who, "i")
				d := Builtin().Decide(at(kind, action, role))
				if d.Allow != want || d.Allow == (d.Reason != "") || d.Allow == (len(d.Policies) == 0) || len(d.Faults) > 0 || d.MFA {
					t.Errorf("%s %s, %s: %+v, want %v", kind, role, action, d, want)
				}
			}
			for _, roles := range [][]Role{nil, {"made-up"}, {"Superuser"}, {""}} {
				want := kind == KindInvitation && strings.Contains(who, "i")
				if d := Builtin().Decide(at(kind, action, roles...)); d.Allow != want {
					t.Errorf("%s with roles %q, %s: %+v, want %v", kind, roles, action, d, want)
				}
			}
		}
	}
}

func TestAnInvitationWithoutARealmGivesNothing(t *testing.T) {
	for action := range everything {
		for _, in := range []string{"", "default"} {
			q := at(KindInvitation, action)
			q.Principal.Realm, q.Resource.Realm = "", in
			if d := Builtin().Decide(q); d.Allow {
				t.Errorf("it allows %s in %q", action, in)
			}
		}
	}
}

// A person with a role may do what a key with it may, and what is protected only with
// a token that was proved less than five minutes ago.
func TestPeopleProveATokenForWhatCannotBeTakenBack(t *testing.T) {
	for action, who := range everything {
		for letter, role := range roleOf {
			for _, c := range []struct {
				mfa   bool
				age   time.Duration
				young bool
			}{
				{false, 0, false}, {true, 0, true}, {true, 5*time.Minute - time.Millisecond, true}, {true, 5 * time.Minute, false},
				{true, 24 * time.Hour, false}, {true, -time.Minute, true},
			} {
				q := at(KindAdmin, action, role)
				q.Context.MFA, q.Context.MFAAge = c.mfa, c.age
				d := Builtin().Decide(q)
				may := strings.Contains(who, string(letter))
				lacks := may && slices.Contains(protected, action) && !c.young
				if d.Allow != (may && !lacks) || d.MFA != lacks || lacks && (!slices.Equal(d.Policies, []string{"builtin.mfa"}) || !strings.Contains(d.Reason, "proved")) {
					t.Errorf("%s, %s, %+v: %+v", role, action, c, d)
				}
			}
		}
	}
}

func TestPeopleSeeAndEndTheirOwnSessions(t *testing.T) {
	for action := range everything {
		for id, own := range map[string]bool{"default/ann": true, "default/ben": false, "lab/ann": false, "ann": false} {
			q := at(KindAdmin, action, "made-up")
			q.Principal.ID, q.Principal.Realm = id, ""
			q.Resource = Resource{Type: User, Realm: "default", User: "ann"}
			want := own && (action == SessionList || action == SessionRenew || action == SessionEnd)
			if d := Builtin().Decide(q); d.Allow != want {
				t.Errorf("%s, %s of ann: %+v", id, action, d)
			}
		}
	}
}

func TestWhatHasNoNameIsAllowedToNobody(t *testing.T) {
	for _, kind := range []Kind{KindAdmin, KindKey, KindSystem, "", "admin", "Role", "User"} {
		for _, action := range []Action{"", "users", "user.delete", "VERIFY", "all", "read", "protected"} {
			q := at(kind, action, Superuser)
			q.Context.MFA = true
			if d := Builtin().Decide(q); d.Allow || d.Reason == "" {
				t.Errorf("%s may do %q: %+v", kind, action, d)
			}
		}
	}
	for action := range everything {
		for _, kind := range []Kind{"", "admin", "key", "Role"} {
			if d := Builtin().Decide(at(kind, action, Superuser)); d.Allow || d.Reason == "" {
				t.Errorf("%q may do %s: %+v", kind, action, d)
			}
		}
	}
}
