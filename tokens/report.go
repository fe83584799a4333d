package tokens

import (
	"context"
	"time"
)

// Reporter answers what is counted and reported. Each method is a few queries that
// follow an index; none reads a whole table at once.
type Reporter interface {
	// Credentials lists a page of the credential report.
	Credentials(ctx context.Context, q CredentialQuery) ([]CredentialRow, error)
	// Realms lists the realms in which there is anything, in order of name; of one
	// realm only, if realm is not empty. At most 1000. Of each it looks at
	// MostCounted users and MostCounted tokens, no more.
	Realms(ctx context.Context, realm string) ([]RealmEntry, error)
	// Drifts answers the clocks of up to limit TOTP tokens of an import that were
	// accepted at least once, in order of ID. It looks at the first MostCounted
	// tokens of the import, no more.
	Drifts(ctx context.Context, batch int64, limit int) ([]DriftSample, error)
}

// CredentialQuery selects a page of the credential report: of the users of a realm,
// or of all realms, in order of ID, each with all tokens that the user holds; or,
// where Unowned says so, of the imported tokens that nobody holds, in
// order of ID. Limit is how many users, or tokens, 1 to 1000.
type CredentialQuery struct {
	Realm   string
	Unowned bool  // tokens that nobody holds, rather than users
	After   int64 // ID of the last user, or token, of the page before
	Limit   int
}

// CredentialRow is a user with all tokens that the user holds, with their hints,
// notes and tags; or a token that nobody holds.
type CredentialRow struct {
	User   *UserEntry // nil: the token has no owner; with its profile
	Tokens []Token
}

// MostCounted is how many rows are looked at to count what a realm holds, or to
// compare the clocks of an import: however much there is, it takes no longer.
const MostCounted = 10_000

// RealmEntry is a realm with what it holds.
type RealmEntry struct {
	Name    string
	Users   int
	Tokens  int // revoked ones left out
	Clients int
	Keys    int

	MoreUsers  bool // there may be more users than that: not all were counted
	MoreTokens bool // and tokens
}

// DriftSample is the clock of one token, when it was last accepted.
type DriftSample struct {
	TokenID int64
	Serial  string
	Period  int
	Drift   int // steps that it was ahead of ours
	Created time.Time
	UsedAt  int64 // Unix seconds
}
