// Package policy decides who may do what. It knows nothing of the rest of the
// program: a Request is flat, and Decide a pure function of it.
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

// Action is an operation as the audit names it.
type Action string

// The operations.
const (
	Verify        Action = "verify"
	UserAdd       Action = "user.add"
	UserShow      Action = "user.show"
	UserList      Action = "user.list"
	UserWhy       Action = "user.why"
	UserEnable    Action = "user.enable"
	UserDisable   Action = "user.disable"
	UserUnlock    Action = "user.unlock"
	UserPIN       Action = "user.pin"
	TokenShow     Action = "token.show"
	TokenList     Action = "token.list"
	TokenAssign   Action = "token.assign"
	TokenUnassign Action = "token.unassign"
	TokenResync   Action = "token.resync"
	TokenSuspend  Action = "token.suspend"
	TokenResume   Action = "token.resume"
	TokenLost     Action = "token.lost"
	TokenRevoke   Action = "token.revoke"
	ImportBegin   Action = "import.begin"
	ImportPublish Action = "import.publish"
	ImportDiscard Action = "import.discard"
	ImportList    Action = "import.list"
	ImportShow    Action = "import.show"
	ImportUndo    Action = "import.undo"
	ClientList    Action = "client.list"
	ClientPut     Action = "client.put"
	ClientDelete  Action = "client.delete"
	KeyList       Action = "key.list"
	KeyAdd        Action = "key.add"
	KeyDelete     Action = "key.delete"
	AuditList     Action = "audit.list"
	AuditVerify   Action = "audit.verify"
	KeyEnrol      Action = "key.enrol"     // a FIDO key
	TokenEnrol    Action = "token.enrol"   // a software token
	TokenConfirm  Action = "token.confirm" // its first code: in old records only, before TokenActivate
	InviteAdd     Action = "invitation.add"
	InviteList    Action = "invitation.list"
	InviteDelete  Action = "invitation.delete"
	UserGroups    Action = "user.groups"
	UserEdit      Action = "user.edit" // the profile
	UserImport    Action = "user.import"
	UserExport    Action = "user.export"
	UserPINChange Action = "user.pin.change" // by the user, with a code
	TokenActivate Action = "token.activate"  // two codes of a token that was pending
	TokenExpire   Action = "token.expire"    // when it is to expire
	TokenNote     Action = "token.note"      // note and tags
	TokenReplace  Action = "token.replace"
	TokenBulk     Action = "token.bulk" // a selection; each act has a record of its own
	TokenDrift    Action = "token.drift"
	TokenStory    Action = "token.story"
	UserStory     Action = "user.story"
	RecoveryAdd   Action = "recovery.add"  // a sheet of recovery codes was made
	TemporaryAdd  Action = "temporary.add" // a temporary passcode was made
	ReportShow    Action = "report.show"
	RealmList     Action = "realm.list"
	RealmShow     Action = "realm.show" // its rules
	RealmRules    Action = "realm.rules.put"
	FIDOShow      Action = "fido.show"
	FIDOImport    Action = "fido.mds.import"
	FIDORules     Action = "fido.rules.put"

	StatementCheck  Action = "statement.check"
	StatementRotate Action = "statement.rotate"
	StatementList   Action = "statement.list"

	// What the server does by itself, or as part of another operation.
	HSMTransportKey Action = "hsm.transport-key" // a transport key was made
	HSMPGPKey       Action = "hsm.pgp-key"       // a PGP key was made
	ImportTransport Action = "import.transport"  // a transported seed was refused: so an attack on the transport key would look
	ImportPGP       Action = "import.pgp"        // a PGP session key was refused: so an attack on the PGP key would look

	StatementGive    Action = "statement.give"    // whoever may verify got a signed statement
	StatementDestroy Action = "statement.destroy" // a key that signs no more was destroyed

	ServerStart Action = "server.start"
	ServerStop  Action = "server.stop"
	Checkpoint  Action = "audit.checkpoint"
)

var reads = map[Action]bool{
	UserShow: true, UserList: true, UserWhy: true, TokenShow: true, TokenList: true,
	ImportList: true, ImportShow: true, ClientList: true, KeyList: true, AuditList: true, AuditVerify: true,
	InviteList: true, FIDOShow: true, StatementList: true,
	UserExport: true, TokenDrift: true, TokenStory: true, UserStory: true, ReportShow: true,
	RealmList: true, RealmShow: true,
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
}

var invited = map[Action]bool{KeyEnrol: true, TokenEnrol: true, TokenActivate: true}

// Request is one question: may this principal do this here?
type Request struct {
	Scope  Scope
	Realm  string // the principal's one realm; empty: all
	Action Action
	In     string // realm of the object; empty if the object belongs to none
}

// Decision is the answer, with a sentence for the audit when it is no.
type Decision struct {
	Allow  bool
	Reason string
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
		ok = r.Action == Verify || r.Action == UserPINChange || r.Action == StatementCheck
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
