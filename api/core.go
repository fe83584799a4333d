package api

import (
	"context"
	"io"
	"time"

	"watchword/api/console"
	"watchword/seeds"
	"watchword/tokens"
	"watchword/tokens/audit"
	"watchword/tokens/policy"
	"watchword/webauthn"
)

// Core is what the handlers consume of tokens.Service, noun by noun. Every
// method authorises and audits by itself, may be called concurrently, and
// answers errors that wrap the kinds of tokens/errors.go.
type Core interface {
	Keys
	Roles
	SignIns
	Sessions
	Verifier
	Users
	Helpdesk
	Tokens
	Lifecycle
	Clients
	Watchers
	Journal
	Archive
	Sinks
	Imports
	Invitations
	Memberships
	Profiles
	PINs
	Realms
	Policies
	Bench
	Passcodes
	Care
	Histories
	Reports
	Statements
	console.Enroller
}

// Keys are the API keys, and what they prove.
type Keys interface {
	// Admit answers whose key it is, from memory, or whose session, if it is good from
	// this address; else ErrUnknownKey.
	Admit(ctx context.Context, shown, source string) (tokens.Principal, error)
	Keys(ctx context.Context, p tokens.Principal) ([]tokens.APIKey, error)
	AddKey(ctx context.Context, p tokens.Principal, k tokens.NewKey) (tokens.APIKey, string, error)
	DeleteKey(ctx context.Context, p tokens.Principal, id string) error
	// RotateKey answers the key's successor with its text.
	RotateKey(ctx context.Context, p tokens.Principal, id string, overlap time.Duration) (tokens.APIKey, string, error)
}

// Roles are what people may do here.
type Roles interface {
	Grants(ctx context.Context, p tokens.Principal, realm string) ([]tokens.Grant, error)
	GrantRole(ctx context.Context, p tokens.Principal, r tokens.RoleRequest) (tokens.Grant, error)
	RevokeRole(ctx context.Context, p tokens.Principal, r tokens.RoleRequest) error
}

// SignIns open sessions, and prove their holders anew. What is nil without an error was
// rejected.
type SignIns interface {
	SignIn(ctx context.Context, p tokens.Principal, r tokens.SignInRequest) (*tokens.SignedIn, error)
	SignInKey(ctx context.Context, p tokens.Principal, r tokens.SignInRequest, k tokens.KeyResult) (*tokens.SignedIn, error)
	StepUp(ctx context.Context, p tokens.Principal, code, transport string) (*tokens.SignedIn, error)
	StepUpKey(ctx context.Context, p tokens.Principal, k tokens.KeyResult) (*tokens.SignedIn, error)
}

// Sessions are those of people who signed in.
type Sessions interface {
	Me(ctx context.Context, p tokens.Principal) (*tokens.SignedIn, error)
	SignOut(ctx context.Context, p tokens.Principal) error
	Sessions(ctx context.Context, p tokens.Principal, realm, user string) ([]tokens.Session, error)
	EndSession(ctx context.Context, p tokens.Principal, id string) error
	CheckSession(ctx context.Context, p tokens.Principal, text string) (tokens.Checked, error)
}

// Verifier checks codes. A reject is a Result without an error.
type Verifier interface {
	Verify(ctx context.Context, p tokens.Principal, a tokens.Attempt) (tokens.Result, error)
}

// Users are the people who hold tokens.
type Users interface {
	ShowUser(ctx context.Context, p tokens.Principal, realm, name string) (tokens.UserEntry, []tokens.Token, error)
	Users(ctx context.Context, p tokens.Principal, q tokens.UserQuery) (page []tokens.UserEntry, next int64, err error)
	SetUserState(ctx context.Context, p tokens.Principal, realm, name string, st tokens.UserState) (tokens.UserEntry, error)
}

// Helpdesk helps a user who cannot get in.
type Helpdesk interface {
	UnlockUser(ctx context.Context, p tokens.Principal, realm, name string) (tokens.UserEntry, error)
	UnlockOwner(ctx context.Context, p tokens.Principal, realm, serial string) (tokens.UserEntry, error)
	Why(ctx context.Context, p tokens.Principal, realm, name string, limit int) ([]tokens.Explanation, error)
}

// Tokens are shown, listed, handed out and set right.
type Tokens interface {
	ShowToken(ctx context.Context, p tokens.Principal, realm, serial string) (tokens.Token, error)
	Tokens(ctx context.Context, p tokens.Principal, q tokens.TokenQuery) (page []tokens.Token, next int64, err error)
	Assign(ctx context.Context, p tokens.Principal, realm, serial, user string) (tokens.Token, error)
	Unassign(ctx context.Context, p tokens.Principal, realm, serial, reason string) (tokens.Token, error)
	Resync(ctx context.Context, p tokens.Principal, realm, serial, code1, code2 string) (tokens.Token, error)
}

// Lifecycle takes tokens out of use and back.
type Lifecycle interface {
	Suspend(ctx context.Context, p tokens.Principal, realm, serial, reason string) (tokens.Token, error)
	Resume(ctx context.Context, p tokens.Principal, realm, serial, reason string) (tokens.Token, error)
	// Lose makes a temporary passcode for the owner in the same act, if t is not nil,
	// and answers its code, which the caller wipes.
	Lose(ctx context.Context, p tokens.Principal, realm, serial, reason string, t *tokens.TemporaryRequest) (lost tokens.Token, temporary *tokens.Token, code []byte, err error)
	Revoke(ctx context.Context, p tokens.Principal, realm, serial, reason string) (tokens.Token, error)
}

// Profiles say who users are, one by one and in lists.
type Profiles interface {
	CreateUser(ctx context.Context, p tokens.Principal, r tokens.NewUserRequest) (tokens.UserEntry, error)
	EditUser(ctx context.Context, p tokens.Principal, realm, name string, e tokens.ProfileEdit) (tokens.UserEntry, error)
	// ImportUsers reads CSV to its end. A report with rejected records means that
	// nothing was written.
	ImportUsers(ctx context.Context, p tokens.Principal, i tokens.UserImport, r io.Reader) (tokens.UserReport, error)
	// ExportUsersCSV writes the same, as it is read.
	ExportUsersCSV(ctx context.Context, p tokens.Principal, realm string, w io.Writer) error
}

// PINs are what users type before their codes.
type PINs interface {
	SetPIN(ctx context.Context, p tokens.Principal, realm, name, pin string, due bool) (tokens.UserEntry, error)
	// ChangePIN judges an attempt as Verify does, and sets the PIN where it accepts.
	ChangePIN(ctx context.Context, p tokens.Principal, a tokens.Attempt, pin string) (tokens.Result, error)
}

// Realms are listed, and have rules.
type Realms interface {
	Realms(ctx context.Context, p tokens.Principal) ([]tokens.RealmEntry, error)
	Rules(ctx context.Context, p tokens.Principal, realm string) (tokens.RealmRules, error)
	SetRules(ctx context.Context, p tokens.Principal, realm string, expect int64, r tokens.Rules) (tokens.RealmRules, error)
	DropRules(ctx context.Context, p tokens.Principal, realm string) (tokens.RealmRules, error)
}

// Policies say who may do what.
type Policies interface {
	Policies(ctx context.Context, p tokens.Principal) (tokens.PolicySet, error)
	PutPolicies(ctx context.Context, p tokens.Principal, expect int64, edit tokens.PolicyEdit) (tokens.PolicySet, error)
	PolicyVersions(ctx context.Context, p tokens.Principal, n int) ([]tokens.PolicyVersion, error)
	RollBackPolicies(ctx context.Context, p tokens.Principal, version int64) (tokens.PolicySet, error)
	CheckPolicies(ctx context.Context, p tokens.Principal, src policy.Source) error
}

// Bench is where policies are tried out.
type Bench interface {
	Simulate(ctx context.Context, p tokens.Principal, list []tokens.SimQuery, draft *policy.Source) ([]tokens.SimResult, error)
	Replay(ctx context.Context, p tokens.Principal, draft policy.Source, last int) (tokens.ReplayReport, error)
	ApplyingPolicies(ctx context.Context, p tokens.Principal, principal, resource string) ([]policy.Applied, error)
	PolicySchema(ctx context.Context, p tokens.Principal) (string, error)
}

// Passcodes are written down. Their codes are answered once, and the caller wipes
// them.
type Passcodes interface {
	IssueRecovery(ctx context.Context, p tokens.Principal, realm, user string) (tokens.Token, [][]byte, error)
	IssueTemporary(ctx context.Context, p tokens.Principal, realm, user string, r tokens.TemporaryRequest) (tokens.Token, []byte, error)
}

// Care is what else the helpdesk does with tokens.
type Care interface {
	SetExpiry(ctx context.Context, p tokens.Principal, realm, serial string, at time.Time) (tokens.Token, error)
	Annotate(ctx context.Context, p tokens.Principal, realm, serial string, e tokens.NoteEdit) (tokens.Token, error)
	Replace(ctx context.Context, p tokens.Principal, realm, serial, by, reason string) (old, next tokens.Token, err error)
	// Bulk calls f with what became of each token, as it is done, and stops at its
	// first error.
	Bulk(ctx context.Context, p tokens.Principal, r tokens.BulkRequest, f func(tokens.BulkItem) error) (tokens.BulkReport, error)
}

// Histories tell what has become of a token or a user.
type Histories interface {
	Drift(ctx context.Context, p tokens.Principal, realm, serial string) (tokens.DriftHistory, error)
	// TokenStory and UserStory answer a page of what happened before a place, zero for
	// the newest, and the place before it, zero if there is nothing.
	TokenStory(ctx context.Context, p tokens.Principal, realm, serial string, before int64, limit int) (page []tokens.StoryItem, next int64, err error)
	UserStory(ctx context.Context, p tokens.Principal, realm, name string, before int64, limit int) (page []tokens.StoryItem, next int64, err error)
}

// Reports tell of all users and tokens at once.
type Reports interface {
	// Report calls f with each row as it is read, and stops at its first error.
	Report(ctx context.Context, p tokens.Principal, q tokens.ReportQuery, f func(tokens.ReportRow) error) error
	Summary(ctx context.Context, p tokens.Principal, realm string, unused time.Duration) (tokens.Summary, error)
}

// Clients are the RADIUS clients.
type Clients interface {
	Clients(ctx context.Context, p tokens.Principal) ([]tokens.Client, error)
	PutClient(ctx context.Context, p tokens.Principal, c tokens.NewClient, replace bool) (tokens.Client, error)
	CompareClient(ctx context.Context, p tokens.Principal, c tokens.NewClient) (would tokens.Client, changes []string, err error)
	DeleteClient(ctx context.Context, p tokens.Principal, name string) error
}

// Watchers see what RADIUS clients ask, and try it out.
type Watchers interface {
	// WatchClients answers what the watcher may be shown.
	WatchClients(ctx context.Context, p tokens.Principal, w tokens.Watching) (tokens.Watching, error)
	// MayWatch fails once that is over.
	MayWatch(ctx context.Context, p tokens.Principal, w tokens.Watching) error
	TestClient(ctx context.Context, p tokens.Principal, t tokens.ClientTest) (*tokens.RADIUSClient, error)
}

// Journal says what happened.
type Journal interface {
	Records(ctx context.Context, p tokens.Principal, q tokens.RecordQuery) (page []audit.Record, next int64, err error)
	VerifyAudit(ctx context.Context, p tokens.Principal) (tokens.AuditReport, error)
}

// Archive is the audit as it leaves the house, or comes back.
type Archive interface {
	// ExportAudit calls f with each record as it is read, and stops at its first error.
	ExportAudit(ctx context.Context, p tokens.Principal, q tokens.RecordQuery, f func(*audit.Record) error) error
	// CompareAudit calls next until it answers nil, or an error.
	CompareAudit(ctx context.Context, p tokens.Principal, next func() (*audit.Record, error)) (tokens.AgainstReport, error)
	CheckpointAudit(ctx context.Context, p tokens.Principal) (tokens.SignedHeads, error)
	CutAudit(ctx context.Context, p tokens.Principal, before time.Time, dryRun bool) (tokens.CutReport, error)
}

// Sinks are where the audit is told to.
type Sinks interface {
	Sinks(ctx context.Context, p tokens.Principal) ([]tokens.SinkState, error)
	Sink(ctx context.Context, p tokens.Principal, name string) (tokens.SinkState, error)
	// PutSink answers a webhook's secret where one was made, this once.
	PutSink(ctx context.Context, p tokens.Principal, n tokens.NewSink) (tokens.SinkState, string, error)
	CompareSink(ctx context.Context, p tokens.Principal, n tokens.NewSink) (would tokens.SinkState, changes []string, err error)
	DeleteSink(ctx context.Context, p tokens.Principal, name string) error
	TestSink(ctx context.Context, p tokens.Principal, name string) error
}

// Imports are what became of seed files.
type Imports interface {
	Batches(ctx context.Context, p tokens.Principal, q tokens.BatchQuery) ([]tokens.Batch, error)
	ShowBatch(ctx context.Context, p tokens.Principal, id int64) (tokens.Batch, tokens.Tally, error)
	Undo(ctx context.Context, p tokens.Principal, id int64) (tokens.Batch, tokens.Tally, error)
}

// Importer reads a seed file to its end and imports it wholly or, where the
// options say so, in part. It must not publish when r fails. A report may come
// with an error: it says which records were bad.
type Importer interface {
	Import(ctx context.Context, p tokens.Principal, opts seeds.Options, r io.Reader) (*seeds.Report, error)
}

// Invitations let people enrol a token by themselves.
type Invitations interface {
	// Invite answers the code that the invitation's link holds, this once.
	Invite(ctx context.Context, p tokens.Principal, n tokens.NewInvitation) (tokens.Invitation, string, error)
	Invitations(ctx context.Context, p tokens.Principal, realm, user string) ([]tokens.Invitation, error)
	Uninvite(ctx context.Context, p tokens.Principal, id string) error
}

// Memberships are the groups of a user.
type Memberships interface {
	SetGroups(ctx context.Context, p tokens.Principal, realm, user string, groups []string) ([]string, error)
	UserGroups(ctx context.Context, p tokens.Principal, realm, user string) ([]string, error)
}

// Statements are proof for applications, signed in the HSM.
type Statements interface {
	// Statement answers the signed statement of an accept.
	Statement(ctx context.Context, p tokens.Principal, r tokens.StatementRequest, v tokens.Verified) (string, error)
	// CheckStatement fails with *tokens.StatementError where a statement proves nothing.
	CheckStatement(ctx context.Context, p tokens.Principal, jwt, audience string, maxAge time.Duration) (tokens.StatementClaims, error)
	JWKS(ctx context.Context) ([]byte, error) // JSON, for everybody
	StatementKeys(ctx context.Context, p tokens.Principal) ([]tokens.StatementKey, error)
	RotateStatementKey(ctx context.Context, p tokens.Principal, now bool) ([]tokens.StatementKey, error)
}

// FIDO is what the handlers consume of webauthn.Service. Like the core's, its
// methods authorise and audit by themselves.
type FIDO interface {
	console.Ceremonies
	Models
	Trust
}

// Models are the models of FIDO keys that the metadata knows.
type Models interface {
	Metadata(ctx context.Context, p tokens.Principal) (webauthn.MetadataInfo, error)
	MayImportMetadata(ctx context.Context, p tokens.Principal) error
	ImportMetadata(ctx context.Context, p tokens.Principal, blob []byte) (webauthn.MetadataInfo, error)
	Models(ctx context.Context, p tokens.Principal, q webauthn.ModelQuery) ([]webauthn.Model, error)
	Concerns(ctx context.Context, p tokens.Principal) ([]webauthn.Concern, error)
}

// Trust says which keys may be enrolled.
type Trust interface {
	Allowed(ctx context.Context, p tokens.Principal, realm string, groups []string, aaguid string) (webauthn.Verdict, error)
	Rules(ctx context.Context, p tokens.Principal) (webauthn.RuleSet, int64, error)
	SetRules(ctx context.Context, p tokens.Principal, r webauthn.RuleSet, expect int64) error
	Roots(ctx context.Context, p tokens.Principal) ([]webauthn.RootInfo, error)
	SetRoots(ctx context.Context, p tokens.Principal, pem []byte) error
}
