package policy

// Scope is what an API key was made for.
type Scope string

// The scopes. Verifier is also what a RADIUS client has; System is the server
// itself at start.
const (
	ScopeAdmin     Scope = "admin"     // everything
	ScopeHelpdesk  Scope = "helpdesk"  // users and tokens, no imports, keys or clients
	ScopeVerify    Scope = "verify"    // verify codes, keys and statements, nothing else
	ScopeRead      Scope = "read"      // look at everything, change nothing
	ScopeProvision Scope = "provision" // bring tokens and users in and hand them out
	ScopeSystem    Scope = "system"    // the server itself
	ScopeInvite    Scope = "invite"    // enrol one token for oneself; whom it is for, the core looks at
)

// Valid says whether a key can have the scope.
func (s Scope) Valid() bool {
	switch s {
	case ScopeAdmin, ScopeHelpdesk, ScopeVerify, ScopeRead:
		return true
	}
	return false
}

var reads = map[Action]bool{
	UserShow: true, UserList: true, UserWhy: true, TokenShow: true, TokenList: true,
	ImportList: true, ImportShow: true, ClientList: true, KeyList: true, AuditList: true, AuditVerify: true,
	InviteList: true, FIDOShow: true, StatementList: true,
	UserExport: true, TokenDrift: true, TokenStory: true, UserStory: true, ReportShow: true,
	RealmList: true, RealmShow: true,
	AuditExport: true, PolicyList: true, PolicyShow: true, PolicySimulate: true, RoleList: true, SessionList: true, SinkList: true,
}

var helpdesk = map[Action]bool{
	Verify:  true,
	UserAdd: true, UserShow: true, UserList: true, UserWhy: true, UserEnable: true,
	UserDisable: true, UserUnlock: true, UserPIN: true,
	TokenShow: true, TokenList: true, TokenAssign: true, TokenUnassign: true, TokenResync: true,
	TokenSuspend: true, TokenResume: true, TokenLost: true, TokenRevoke: true,
	ImportList: true, ImportShow: true, AuditList: true,
	KeyEnrol: true, TokenEnrol: true, InviteAdd: true, InviteList: true, InviteDelete: true,
	UserGroups: true, FIDOShow: true,
	UserEdit: true, TokenActivate: true, TokenExpire: true, TokenNote: true, TokenReplace: true, TokenBulk: true,
	TokenDrift: true, TokenStory: true, UserStory: true, RecoveryAdd: true, TemporaryAdd: true,
	ReportShow: true, RealmList: true, RealmShow: true,
	SessionList: true, SessionEnd: true,
}

var verifies = map[Action]bool{
	Verify: true, UserPINChange: true, StatementCheck: true,
	SessionStart: true, SessionRenew: true, SessionEnd: true, SessionCheck: true,
}

var invited = map[Action]bool{KeyEnrol: true, TokenEnrol: true, TokenActivate: true}

// Request is one question: may this principal do this here?
type Request struct {
	Scope  Scope
	Realm  string // the principal's one realm; empty: all
	Action Action
	In     string // realm of the object; empty if the object belongs to none
}

// Decide answers a request. What is not allowed by name is forbidden.
func Decide(r Request) Decision {
	if r.Realm != "" && r.In != r.Realm {
		return Decision{Reason: "the key is for another realm"}
	}
	var ok bool
	switch r.Scope {
	case ScopeSystem, ScopeAdmin:
		ok = true
	case ScopeHelpdesk:
		ok = helpdesk[r.Action]
	case ScopeVerify:
		ok = verifies[r.Action]
	case ScopeRead:
		ok = reads[r.Action]
	case ScopeInvite:
		ok = r.Realm != "" && invited[r.Action]
	}
	if !ok {
		return Decision{Reason: "the scope does not allow it"}
	}
	return Decision{Allow: true}
}
