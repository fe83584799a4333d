package tokens

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// DefaultRealm is the realm of whoever names none.
const DefaultRealm = "default"

// MaxTokensPerUser is how many tokens a user may hold at once.
const MaxTokensPerUser = 8

// UserState says whether a user may be verified at all.
type UserState string

// The states of a user. Locked is apart from them: see Standing.
const (
	UserEnabled  UserState = "enabled"
	UserDisabled UserState = "disabled"
)

// User is a person who holds tokens.
type User struct {
	ID      int64  // given by the store; zero for one not stored yet
	Realm   string // folded
	Name    string // as entered, NFC
	Key     string // Name folded: unique in the realm
	State   UserState
	PINSalt []byte // 16 random bytes; empty if the user has no PIN
	PINMAC  []byte // HMAC under the HSM's PIN key; empty if the user has no PIN
	Created time.Time
}

// HasPIN says whether a code must be preceded by a PIN.
func (u *User) HasPIN() bool { return len(u.PINMAC) > 0 }

// Standing is the part of a user that each attempt may move. Version is what
// every change to the user or to one of the user's tokens is conditional on.
type Standing struct {
	Version  int64
	Failures int  // consecutive, over all clients, since the last accept
	Locked   bool // until the helpdesk unlocks
	Throttle []ClientFailures
}

// ClientFailures counts consecutive failures that came through one client.
type ClientFailures struct {
	Client   string `json:"c"`
	Failures int    `json:"n"`
	Last     int64  `json:"t"` // time of the last counted failure, Unix milliseconds
}

// FoldName brings a name to the form that is compared: NFC, case-folded. It
// refuses what cannot be a name.
func FoldName(name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("%w: a name is empty", ErrInvalid)
	}
	if !utf8.ValidString(name) {
		return "", fmt.Errorf("%w: a name is not valid UTF-8", ErrInvalid)
	}
	if len(name) > 255 {
		return "", fmt.Errorf("%w: a name is longer than 255 bytes", ErrInvalid)
	}
	if strings.TrimSpace(name) != name {
		return "", fmt.Errorf("%w: a name begins or ends with a space", ErrInvalid)
	}
	ascii := true
	for _, r := range name {
		if unicode.IsControl(r) {
			return "", fmt.Errorf("%w: a name holds a control character", ErrInvalid)
		}
		ascii = ascii && r < utf8.RuneSelf
	}
	if ascii {
		return strings.ToLower(name), nil
	}
	// Folding can leave a form that is not NFC, hence NFC on both sides.
	key := norm.NFC.String(strings.Map(foldCherokee, cases.Fold().String(norm.NFC.String(name))))
	if len(key) > 255 { // one character can fold to three
		return "", fmt.Errorf("%w: a name is longer than 255 bytes", ErrInvalid)
	}
	return key, nil
}

// foldCherokee folds small Cherokee letters to the capitals (CaseFolding.txt);
// package cases exchanges the two, so that both forms stay apart.
func foldCherokee(r rune) rune {
	switch {
	case r >= 0xAB70 && r <= 0xABBF:
		return r - 0xAB70 + 0x13A0
	case r >= 0x13F8 && r <= 0x13FD:
		return r - 8
	}
	return r
}

// ParseRealm folds a realm's name; empty is DefaultRealm.
func ParseRealm(realm string) (string, error) {
	if realm == "" {
		return DefaultRealm, nil
	}
	return FoldName(realm)
}
