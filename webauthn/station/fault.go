package station

import (
	"encoding/hex"
	"errors"
	"strings"
)

// KeyError is what a key refused, or could not do.
type KeyError struct {
	Doing string // in words
	Why   string // in words
	Code  int    // of CTAP (CTAP 2.1, section 8.2), or libfido2's own, which are negative
}

func (e *KeyError) Error() string { return e.Doing + ": " + e.Why }

// The codes that are looked at.
const (
	codeTimeout       = 0x05
	codeExcluded      = 0x19
	codeKeepAlive     = 0x2d
	codeActionTimeout = 0x2f
	codeNotAllowed    = 0x30
	codePINInvalid    = 0x31
	codeTX            = -1
	codeRX            = -2
	codeInternal      = -9
)

// faults are the codes in words, where those of libfido2 are not for people.
var faults = map[int]string{
	codeTimeout:       "it did not answer in time",
	0x06:              "another program uses it",
	codeExcluded:      "it holds a credential of this user already",
	0x27:              "it was told not to, by hand",
	0x28:              "it has no room for another credential",
	0x2b:              "it cannot do that",
	codeKeepAlive:     "it was broken off",
	0x2e:              "there is no such credential on it",
	codeActionTimeout: "nobody touched it in time",
	codeNotAllowed:    "it does not allow that now; a reset must come within seconds of being plugged in",
	codePINInvalid:    "the PIN is wrong",
	0x32:              "its PIN is blocked: only a reset helps",
	0x33:              "the PIN is wrong",
	0x34:              "the PIN was wrong too often in a row: pull the key out and plug it in again",
	0x35:              "it has no PIN",
	0x36:              "it wants its PIN, which is not known here",
	0x37:              "its rules forbid this PIN: it may be too short, too simple, or the same as before",
	0x3a:              "nobody touched it in time",
	codeTX:            "it is gone: it was pulled out, or it does not work",
	codeRX:            "it is gone: it was pulled out, or it does not work",
	codeInternal:      "it cannot be opened: it is gone, another program uses it, or you may not (are you in the group plugdev?)",
	-5:                "it answers what is not allowed",
}

// Gone says whether an error means that the key was pulled out.
func Gone(err error) bool {
	var e *KeyError
	return errors.As(err, &e) && (e.Code == codeTX || e.Code == codeRX)
}

// formatAAGUID writes an AAGUID as the FIDO metadata does.
func formatAAGUID(id [16]byte) string {
	h := hex.EncodeToString(id[:])
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}
