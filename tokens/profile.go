package tokens

// Profile says who a user is, for people and for other systems. Nothing is decided
// by it.
type Profile struct {
	Display    string            // full name; may be empty
	Mail       string            // address; may be empty
	External   string            // id in another directory; unique in the realm, unless it is empty
	Attributes map[string]string // whatever else is to be kept; names are ASCII
}

// ProfileWrite replaces a user's profile. It goes with the user's StandingWrite.
type ProfileWrite struct {
	UserID  int64
	Profile Profile
}

// NoteWrite changes what the helpdesk notes on a token. It needs no version: what
// two people note at once is kept of both, but for the text itself, of which the
// later one stays.
type NoteWrite struct {
	TokenID int64
	Note    *string  // nil: leave it
	Add     []string // tags; one that the token has already does no harm
	Drop    []string // tags; nor does one that it has not
}
