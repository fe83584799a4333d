package policy

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
	ClientWatch   Action = "client.watch" // somebody watches what they ask, as it comes
	ClientTest    Action = "client.test"  // an attempt in a client's place
	KeyList       Action = "key.list"
	KeyAdd        Action = "key.add"
	KeyDelete     Action = "key.delete"
	KeyUse        Action = "key.use"    // a key, or a session, was shown from an address that it is not good from
	KeyRotate     Action = "key.rotate" // an API key got a successor, and is good for a while yet
	AuditList     Action = "audit.list"
	AuditVerify   Action = "audit.verify"
	AuditExport   Action = "audit.export"
	AuditCut      Action = "audit.cut"     // old records were removed behind a signed cut
	KeyEnrol      Action = "key.enrol"     // a FIDO key
	KeyStock      Action = "key.stock"     // a FIDO key that is nobody's yet
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

	PolicyList           Action = "policy.list" // the versions too
	PolicyShow           Action = "policy.show"
	PolicyPut            Action = "policy.put"
	PolicyDelete         Action = "policy.delete"
	PolicyTemplatePut    Action = "policy.template.put"
	PolicyTemplateDelete Action = "policy.template.delete"
	PolicyLinkPut        Action = "policy.link.put"
	PolicyLinkDelete     Action = "policy.link.delete"
	PolicyRollBack       Action = "policy.rollback"
	PolicySimulate       Action = "policy.simulate"

	RoleList   Action = "role.list"
	RoleGrant  Action = "role.grant"
	RoleRevoke Action = "role.revoke"

	SessionStart Action = "session.start" // a person signed in; through a key, or by being who has a role
	SessionRenew Action = "session.renew" // proved a token again
	SessionEnd   Action = "session.end"
	SessionCheck Action = "session.check" // an application asked whose it is
	SessionList  Action = "session.list"

	SinkList   Action = "sink.list"
	SinkPut    Action = "sink.put"
	SinkDelete Action = "sink.delete"
	SinkTest   Action = "sink.test"

	// What the server does by itself, or as part of another operation.
	HSMTransportKey Action = "hsm.transport-key" // a transport key was made
	HSMPGPKey       Action = "hsm.pgp-key"       // a PGP key was made
	ImportTransport Action = "import.transport"  // a transported seed was refused: so an attack on the transport key would look
	ImportPGP       Action = "import.pgp"        // a PGP session key was refused: so an attack on the PGP key would look

	StatementGive    Action = "statement.give"    // whoever may verify got a signed statement
	StatementDestroy Action = "statement.destroy" // a key that signs no more was destroyed

	SinkFailing Action = "sink.failing" // a sink cannot be told for some time; outcome ok: it can again
	SinkStop    Action = "sink.stop"    // a sink wants no more

	ServerStart Action = "server.start"
	ServerStop  Action = "server.stop"
	Checkpoint  Action = "audit.checkpoint"
)
