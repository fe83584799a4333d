package tokens

import (
	"context"
	"fmt"
	"time"

	"watchword/hsm"
	"watchword/tokens/audit"
)

// Ref asks for a subject: by user name, by a token's serial, or by a FIDO
// token's credential.
type Ref struct {
	Realm      string // folded
	User       string // folded; or
	Serial     string // or
	Credential string // Credential.Key
}

// Subject is what a decision is taken on: a user with all tokens, or an
// unassigned token alone.
type Subject struct {
	User     *User // nil: Tokens holds one token that has no owner
	Standing       // the user's; zero for an unassigned token, whose Motion has its version
	Tokens   []Token
}

// View is one consistent reading for a batch.
type View struct {
	Subjects   []*Subject // parallel to the refs; nil where there is none. The same subject is the same pointer
	Generation int64      // of what nodes cache: API keys and clients
	Clock      time.Time  // the database's; zero if it shares ours
	Recalled   uint64     // for Change.Recalled; zero if all of it was read, and nothing recalled
	Read       uint64     // for Change.Read; zero if what was read stays
}

// Store is the hot path: batches of attempts, and every change. All methods
// may be called concurrently. An error that is none of those named wraps
// ErrUnavailable.
type Store interface {
	// Load reads the subjects of all refs in one round trip. Tokens of a user
	// come in order of ID; tokens of a batch that is still staging and revoked
	// tokens do not belong to any user, and a staging token is not found. Hints are
	// not read. A credential is found in the realm that its Ref names only.
	Load(ctx context.Context, refs []Ref) (View, error)

	// Recall is Load for attempts, whose outcome goes to Commit, or to Confirm where
	// there is nothing to commit: it may answer what was so a moment ago, as long as
	// those then wrap ErrConflict where the outcome depends on it. After that it answers
	// what is so. What it answers is not to be changed, but for the subjects' standings
	// and their tokens' states, bindings and motions.
	Recall(ctx context.Context, refs []Ref) (View, error)

	// Confirm wraps ErrConflict where Commit would for the change's Recalled and Basis.
	// It looks at nothing else of the change, and makes nothing of it.
	Confirm(ctx context.Context, c *Change) error

	// Commit applies the change in one transaction, all or nothing, and answers
	// nil only when it is durable. It wraps ErrChainMoved when a record does not
	// continue its chain, whatever else is wrong; ErrConflict, as
	// *ConflictError, when a version had moved; ErrSpent when something was used
	// before, as *SpentError where it is a Spend; ErrExists when a name, external id,
	// serial or credential is taken; ErrState when a batch to publish is no longer staging;
	// ErrNotFound when there is nothing to delete, or to note on; ErrInvalid when the change
	// contradicts itself: without a record, a user or token in it twice, a user
	// or an owned token without the user's StandingWrite, a text that is not
	// UTF-8 or holds a NUL. In all of these nothing was changed. After any other
	// error it is unknown whether the change was made: the caller asks
	// Journal.Heads.
	Commit(ctx context.Context, c *Change) error

	Close() error
}

// Change is a set of writes that happen together, with their audit records.
type Change struct {
	NewUsers  []NewUser
	NewTokens []*Token // that were enrolled rather than imported: Batch is zero. An owned one goes with a StandingWrite, and was Assigned when it was Created, unless it says otherwise. ID is set by Commit
	Users     []User   // rows that changed (State, PIN, PINDue), by ID; each goes with a StandingWrite
	Standings []StandingWrite
	Tokens    []TokenWrite
	Motions   []MotionWrite
	Clients   []ClientWrite // each raises the generation
	Keys      []KeyWrite    // each raises the generation
	Grants    []GrantWrite  // each raises the generation
	Sessions  []SessionWrite
	Documents []DocumentWrite // each raises the generation; ErrConflict if the version had moved
	Groups    []GroupsWrite
	Profiles  []ProfileWrite // each goes with the user's StandingWrite
	Notes     []NoteWrite
	Invites   []InvitationWrite
	Spends    []Spend // each can be spent once, whatever else this or any other change holds
	Publish   []Batch // staging batches that become visible, by ID, with their final counts and what Batcher.Grant noted
	Records   []audit.Record

	// Recalled is that of the View that it was decided on. Commit wraps ErrConflict
	// where what was recalled then may have been another program's to change since.
	Recalled uint64
	// Read is that of the View that it was decided on. Commit wraps ErrConflict where
	// what was read then may have been undone since: it was not durable, perhaps, and
	// versions may be given again.
	Read  uint64
	Basis Basis // of what was recalled; nothing of it is looked at where that is zero

	// Made, if not nil, is called by a Store that makes changes durable several
	// at a time: once, from within Commit, when this one is made, Load and Heads
	// answer what it left, and only durability is still waited for. A further
	// Commit may follow; it is durable only if this one is. When Commit fails
	// after it called Made, the change may be undone or not. If it is undone, so is
	// all that followed, and every later Commit fails, with ErrChainMoved or until the
	// Store is opened anew.
	Made func()
}

// Basis is what a batch of attempts was decided on besides the standings that it
// moves. A Store that recalls what other nodes may change holds it against what is so
// when it commits.
type Basis struct {
	Generation  int64     // of what the node caches
	From, Until time.Time // between which the database's clock must stand
	Users       []Seen    // who do not move
	Strangers   []Ref     // by name, who were nobody
}

// Seen is a user's version that was decided on.
type Seen struct {
	UserID  int64
	Version int64
}

// NewUser is a user to insert, with profile and version 1. ID is set by Commit.
// ErrExists where the name, or the external id, is taken.
type NewUser struct {
	User   *User
	Groups []string // sorted, each once
}

// StandingWrite replaces a user's standing if its version is still Expect.
// Next.Version is Expect+1.
type StandingWrite struct {
	UserID int64
	Expect int64
	Next   Standing
}

// TokenWrite replaces a token's lifecycle columns (State, OwnerID, Wrapped,
// Binding, Expires, Passcodes, Uses) if its own version is still Expect; the version
// becomes Expect+1. It leaves Last, Drift and UsedAt as they are.
type TokenWrite struct {
	Token    Token
	Expect   int64
	Assigned *time.Time // when the owner got it; nil: leave that. There is none without an owner
}

// MotionWrite moves a token forward. A Last below the stored one is refused
// with ErrConflict, whatever the versions say. An owned token's own version
// stays; an unassigned token's becomes Expect+1, if it is still Expect. A
// TokenWrite of the same token in the same change takes Expect's place.
type MotionWrite struct {
	TokenID int64
	UserID  int64 // the owner whose StandingWrite goes with it; zero for an unassigned token
	Expect  int64 // the version of an unassigned token; else zero
	Last    int64
	Drift   int
	UsedAt  int64
}

// ConflictError names the users (and unassigned tokens) whose version had
// moved. It may name only some of them.
type ConflictError struct {
	UserIDs  []int64
	TokenIDs []int64
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%v: %d users, %d tokens", ErrConflict, len(e.UserIDs), len(e.TokenIDs))
}

func (e *ConflictError) Unwrap() error { return ErrConflict }

// Directory answers what is listed and searched, and what nodes cache.
type Directory interface {
	// Users lists in order of realm and key, with profiles; tokens of a staging batch
	// never show. next is After of the next page, zero where there is none: a page
	// may be short, or empty, though there is another, since no page looks at more
	// than a bounded number of rows.
	Users(ctx context.Context, q UserQuery) (page []UserEntry, next int64, err error)
	// Tokens lists in order of ID, with what only listings have. next is as for Users.
	Tokens(ctx context.Context, q TokenQuery) (page []Token, next int64, err error)
	// Batches lists the published ones, newest first.
	Batches(ctx context.Context, q BatchQuery) ([]Batch, error)
	// Registry reads clients and API keys with the generation they belong to.
	Registry(ctx context.Context) (Registry, error)
	// TouchKeys notes the last use of API keys, by key id. Without audit: it is
	// bookkeeping, at most once a minute.
	TouchKeys(ctx context.Context, used map[string]time.Time) error
}

// UserQuery selects users; empty fields select all. Limit is 1 to 1000.
type UserQuery struct {
	Realm string // exact
	Key   string // exact, folded
	Q     string // part of the name, case-insensitive; the beginning of it, if it has fewer than three characters
	After int64  // next of the page before
	Limit int

	External string // exact
	Group    string // folded: who belongs to it
}

// UserEntry is a user as listed.
type UserEntry struct {
	User
	Standing
	Tokens int      // that the user holds
	Groups []string // sorted
}

// TokenQuery selects tokens; empty fields select all. Limit is 1 to 1000.
type TokenQuery struct {
	Realm  string
	Serial string // exact
	Owner  string // exact, folded
	State  State
	Type   Type
	Q      string // part of the serial or of the owner's key, case-insensitive; their beginning, if it has fewer than three characters
	Tag    string // exact
	Batch  int64
	After  int64 // next of the page before
	Limit  int
}

// BatchQuery selects batches.
type BatchQuery struct {
	ID     int64  // exact; zero for all
	Realm  string // exact; empty for all
	Before int64  // ID of the last row of the page before; zero for the first page
	Limit  int
}

// Cabinet keeps what is neither a user nor a token.
type Cabinet interface {
	// Document reads a document; ErrNotFound.
	Document(ctx context.Context, name string) (Document, error)
	// Invitation reads an invitation by ID, used and expired ones too; ErrNotFound.
	Invitation(ctx context.Context, id string) (Invitation, error)
	// Invitations lists a realm's, newest first; of one user if the key is not
	// empty. Limit is 1 to 1000.
	Invitations(ctx context.Context, realm, user string, limit int) ([]Invitation, error)
	// Groups answers the groups that a user belongs to, sorted; none for a user
	// whom there is not.
	Groups(ctx context.Context, userID int64) ([]string, error)
	// Expire forgets what was spent and expired before a time, and the invitations
	// that expired thirty days before it, and answers how many there were.
	Expire(ctx context.Context, before time.Time) (int, error)
}

// Presence says whether a realm has a serial.
type Presence struct {
	There   bool
	Staging int64 // the import that has it, if that is not published: it may yet be discarded
}

// Stager holds the tokens of an import until they are published by a Change.
// Nothing else sees them. Each method is one short transaction.
type Stager interface {
	// Begin makes a batch in state staging and answers its ID.
	Begin(ctx context.Context, b Batch) (int64, error)
	// Stage inserts tokens into a staging batch and answers for each whether it
	// was created; false means that the realm has the serial already, published
	// or in another staging batch. It fails with ErrState if the batch is no
	// longer staging.
	Stage(ctx context.Context, batch int64, tokens []Token) ([]bool, error)
	// Present answers which of the serials a realm has already, in their order.
	Present(ctx context.Context, realm string, serials []string) ([]Presence, error)
	// Discard removes a staging batch and its tokens, in several transactions.
	Discard(ctx context.Context, batch int64) error
	// Sweep discards the staging batches that nothing was staged into since
	// before, and answers how many.
	Sweep(ctx context.Context, before time.Time) (int, error)
}

// Batch is one import.
type Batch struct {
	ID        int64
	Realm     string
	Name      string // the file's name as the administrator gave it
	Format    string // oath-csv, pskc
	SHA256    string // of the file, hex; known when published
	Actor     string
	Created   time.Time
	Published time.Time // zero while staging
	Tokens    int
	Rejected  int
	Duplicate int
	Undone    time.Time // when it was first undone; zero if never
	Removed   int       // tokens that were removed by undoing it
}

// Batcher does what concerns an import as a whole.
type Batcher interface {
	// Reserve answers n user IDs that no other user has or will get.
	Reserve(ctx context.Context, n int) ([]int64, error)

	// Grant notes what publishing a staging batch does beside, in the same
	// transaction: users are made, enabled, each with an ID that was reserved, with
	// version 1; and the batch's tokens that list names by Realm and Serial get
	// State (active or pending), OwnerID and Binding of list and version 2. The change that
	// publishes holds the StandingWrite of each owner who was there before, and
	// fails with an error of no kind if a name was taken since. It replaces what
	// was noted before; Discard forgets it. It fails with ErrState if the batch is
	// not staging, and with ErrNotFound if it does not hold a token.
	Grant(ctx context.Context, batch int64, users []User, list []Token) error

	// Tally counts the tokens of a published batch that are there.
	Tally(ctx context.Context, batch int64) (Tally, error)

	// Remove looks at up to limit tokens of a published batch, those with the lowest
	// IDs above after, and removes the ones that are as they came: imported, and
	// never changed in any way. One that is being changed just now may stay. It adds
	// them up in the batch, which it marks as undone at that time, and answers how
	// many it removed, and the last ID that it looked at: zero if there was none.
	Remove(ctx context.Context, batch, after int64, limit int, at time.Time) (removed int, last int64, err error)
}

// Tally is what is there of an import.
type Tally struct {
	States map[State]int // tokens by state; no zeros
	Fresh  int           // of those imported: never changed in any way, so that undoing removes them
	Models []ModelCount  // the most frequent first, ten at most
}

// ModelCount is how many tokens of an import are of a model.
type ModelCount struct {
	Model  string // as the file names maker and model; may be empty
	Tokens int
}

// Journal reads the audit and begins chains.
type Journal interface {
	// MintChain makes a chain id never used before and answers the heads of all
	// others.
	MintChain(ctx context.Context) (int64, []audit.Head, error)
	// Heads answers the head of each chain that has records, in order of chain.
	Heads(ctx context.Context) ([]audit.Head, error)
	// Records lists, newest first (by ID). next is Before of the next page, zero where
	// there is none: a page may be short, or empty, though there is another, since
	// no page looks at more than a bounded number of records.
	Records(ctx context.Context, q RecordQuery) (page []audit.Record, next int64, err error)
	// Walk calls f for each record of a chain in order of Seq, whatever that is,
	// reading in pages, and stops at f's first error, which it returns.
	Walk(ctx context.Context, chain int64, f func(*audit.Record) error) error
	// Chains answers every chain id that was ever minted or that a record has, in
	// order.
	Chains(ctx context.Context) ([]int64, error)
}

// RecordQuery selects audit records; empty fields select all.
type RecordQuery struct {
	Realm, User, Serial string // exact, User folded
	Action, Outcome     string
	Actor               string    // exact: who asked. Verifications are among them only where Action says so
	Policy              string    // one of the policies that decided, by id
	Since, Until        time.Time // from then on; before then. The clocks of the servers are taken to be within ClockDisorder
	Before              int64     // next of the page before; zero for the first page
	Limit               int       // 1 to 1000
}

// ClockDisorder is the most that an audit record may be older than one with a lower ID,
// so that both are found by time: nodes have clocks of their own.
const ClockDisorder = 10 * time.Minute

// Archive reads the audit from its beginning.
type Archive interface {
	// Onward reads records in order of ID, those after an ID, as far as they are durable.
	// next is after of the next page, zero where there is none: a page may be short, or
	// empty, though there is another. Of records that are committed just now it may
	// leave some out.
	Onward(ctx context.Context, q RecordQuery, after int64) (page []audit.Record, next int64, err error)
	// Cut looks at up to limit records, those with the lowest IDs above after and up to
	// last, and removes, in one transaction, the ones at or before the place that heads
	// names in their chain. It answers how many, and the last ID that it looked at: zero
	// if there was none. The chains' heads stay.
	Cut(ctx context.Context, heads []audit.Head, after, last int64, limit int) (removed int, end int64, err error)
}

// Sessions reads the sessions of people who signed in.
type Sessions interface {
	// Session reads a session by ID, ended and expired ones too; ErrNotFound.
	Session(ctx context.Context, id string) (Session, error)
	// OpenSessions lists those of a user that have neither ended nor expired by then,
	// newest first; of everybody in a home realm if the user is zero, of all if that
	// is empty too. Limit is 1 to 1000.
	OpenSessions(ctx context.Context, home string, userID int64, at time.Time, limit int) ([]Session, error)
	// DropSessions forgets those that expired before, and answers how many.
	DropSessions(ctx context.Context, before time.Time) (int, error)
}

// Courier remembers how far the audit was told to each sink, so that every record is
// told at least once, whatever ends in between.
type Courier interface {
	// Carry makes holder the one who tells a sink for so long from now, at most an hour,
	// if nobody else is by the clock of the database; who is may go on, and lets go
	// with zero. It answers whether it is.
	Carry(ctx context.Context, sink, holder string, until time.Duration) (bool, error)
	// Told answers the last record of each chain that a sink was told.
	Told(ctx context.Context, sink string) (map[int64]int64, error)
	// Tell notes, durably, the last records that were told; never fewer than before.
	// ErrState if holder is not the one who tells the sink.
	Tell(ctx context.Context, sink, holder string, told map[int64]int64) error
	// After reads the records of a chain after seq, in order, as far as they are durable.
	// Limit is 1 to 1000.
	After(ctx context.Context, chain, seq int64, limit int) ([]audit.Record, error)
	// Forget drops what is known of a sink.
	Forget(ctx context.Context, sink string) error
}

// Setup prepares a database, under its lock.
type Setup interface {
	// Lock takes the migration lock, which one process holds at a time over all
	// nodes. It waits as long as ctx allows.
	Lock(ctx context.Context) (unlock func() error, err error)
	// Migrate brings the schema up to date. A schema newer than this program's
	// is refused.
	Migrate(ctx context.Context) error
	// HSMKeys answers the recorded HSM keys; none in a new database.
	HSMKeys(ctx context.Context) ([]hsm.KeyRecord, error)
	// AddHSMKeys records HSM keys that were just made.
	AddHSMKeys(ctx context.Context, keys []hsm.KeyRecord) error
	// Durability says what about the database's own settings weakens "an accept
	// is durable before anyone is told", one sentence each; none is well. sync
	// says whether a synchronous standby confirms each commit.
	Durability(ctx context.Context) (warnings []string, sync bool, err error)
}

// Database is all of it: what tokens/store implements.
type Database interface {
	Store
	Directory
	Stager
	Batcher
	Journal
	Archive
	Courier
	Cabinet
	Sessions
	Reporter
	Setup
}
