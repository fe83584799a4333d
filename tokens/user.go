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

// MaxTokensPerUser is how many tokens a user may hold at once, where the realm's
// rules do not say otherwise.
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
	PINDue  bool   // the PIN must be changed by its user before anything is accepted
	Created time.Time

	Profile Profile // only listings have it
}

// HasPIN says whether a code must be preceded by a PIN.
func (u *User) HasPIN() bool { return len(u.PINMAC) > 0 }

// mustChangePIN says whether nothing that the user's PIN goes before is accepted
// until the user has chosen another.
func (u *User) mustChangePIN() bool { return u.PINDue && u.HasPIN() }

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

// FoldName brings a name to the form that is compared: NFC, case-folded, without
// joiners and variation selectors. It refuses what cannot be a name; see visible.
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
	composed := norm.NFC.String(name)
	shown, err := visible(composed)
	if err != nil {
		return "", err
	}
	// Folding can leave a form that is not NFC, hence NFC on both sides.
	key := norm.NFC.String(strings.Map(foldCherokee, cases.Fold().String(norm.NFC.String(shown))))
	if len(key) > 255 { // one character can fold to three
		return "", fmt.Errorf("%w: a name is longer than 255 bytes", ErrInvalid)
	}
	return key, nil
}

// The two characters that say how the letters beside them join.
const (
	zwnj = '\u200c' // ZERO WIDTH NON-JOINER
	zwj  = '\u200d' // ZERO WIDTH JOINER
)

// cursive are the scripts whose letters join, so that spelling may ask for two
// that do not.
var cursive = []*unicode.RangeTable{unicode.Arabic, unicode.Syriac, unicode.Mandaic, unicode.Nko, unicode.Mongolian, unicode.Adlam, unicode.Hanifi_Rohingya}

// visible takes out of a name in NFC what does not show but belongs to how some
// languages are spelt, so that with and without it is one name, and refuses what
// does not show and belongs to none: two names that differ in nothing else look
// the same to the helpdesk. Those are the controls of direction, which can even
// show one name as another, the spaces without width, and all other characters
// of format and fillers.
//
// The joiners are kept in names where RFC 5892, appendices A.1 and A.2, has them:
// either one after a virama (Sinhala writes Sri with it, and Malayalam ends names
// in it), and the non-joiner between two letters of a script that joins them
// (Persian compounds). Elsewhere, as between Latin letters or in emoji, they are
// refused. Variation selectors choose a form of the character before them
// (Japanese family names).
func visible(name string) (string, error) {
	var b strings.Builder
	b.Grow(len(name))
	var last, base rune // the one before, and the last one that is no mark
	for i, r := range name {
		switch {
		case r == zwnj || r == zwj:
			next, _ := utf8.DecodeRuneInString(name[i+utf8.RuneLen(r):])
			between := r == zwnj && unicode.In(base, cursive...) && unicode.IsLetter(base) && unicode.In(next, cursive...) && unicode.IsLetter(next)
			if !between && !virama(last) {
				return "", fmt.Errorf("%w: a name holds a joiner (%U) where no spelling has one", ErrInvalid, r)
			}
		case unicode.Is(unicode.Variation_Selector, r):
		case hidden(r):
			return "", fmt.Errorf("%w: a name holds %U, which does not show but makes it another name than the one it looks like", ErrInvalid, r)
		default:
			b.WriteRune(r)
		}
		if last = r; !unicode.IsMark(r) {
			base = r
		}
	}
	shown := b.String()
	if shown == "" || strings.TrimSpace(shown) != shown {
		return "", fmt.Errorf("%w: a name begins or ends with a space, or has nothing that shows", ErrInvalid)
	}
	return shown, nil
}

// hidden says whether a character is one of format, or a filler: it does not show.
func hidden(r rune) bool {
	return unicode.Is(unicode.Cf, r) && !unicode.Is(unicode.Prepended_Concatenation_Mark, r) ||
		unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r)
}

// virama says whether r is the sign that takes a letter's vowel away.
func virama(r rune) bool { return norm.NFC.PropertiesString(string(r)).CCC() == 9 }

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
