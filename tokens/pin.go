package tokens

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"watchword/tokens/audit"
	"watchword/tokens/policy"
)

// The length of any PIN, in characters. The rules of a realm lie within.
const (
	minPIN = 4
	maxPIN = 32
)

// maxPINBytes is what the longest PIN has.
const maxPINBytes = 96

// plausiblePIN refuses what is no PIN under any rules.
func plausiblePIN(pin string) error {
	if n := utf8.RuneCountInString(pin); !utf8.ValidString(pin) || n < minPIN || n > maxPIN || len(pin) > maxPINBytes {
		return fmt.Errorf("%w: a PIN has %d to %d characters", ErrInvalid, minPIN, maxPIN)
	}
	for _, r := range pin {
		if unicode.IsControl(r) {
			return fmt.Errorf("%w: a PIN holds a control character", ErrInvalid)
		}
	}
	return nil
}

// check says which rule a PIN breaks that a user is to have, or nil. user is the
// user's key.
func (r *PINRules) check(pin, user string) error {
	if err := plausiblePIN(pin); err != nil {
		return err
	}
	if n := utf8.RuneCountInString(pin); n < r.Min || n > r.Max {
		rule := "pin.min"
		if n > r.Max {
			rule = "pin.max"
		}
		return &ruled{fmt.Errorf("%w: a PIN has %d to %d characters here", ErrInvalid, r.Min, r.Max), rule}
	}
	if r.Sequences {
		return nil
	}
	folded, err := FoldName(pin)
	if err != nil { // it is like no name
		folded = strings.ToLower(pin)
	}
	list, name := []rune(folded), []rune(user)
	switch {
	case run(list):
		return &ruled{fmt.Errorf("%w: a PIN whose characters are all the same, or follow one another up or down (1111, 1234, dcba), is guessed first", ErrInvalid), "pin.sequences"}
	case repeats(list):
		return &ruled{fmt.Errorf("%w: a PIN that is a part of it, repeated (1212, 123123), is guessed first", ErrInvalid), "pin.sequences"}
	case slices.Equal(list, name):
		return &ruled{fmt.Errorf("%w: the user's name is no PIN", ErrInvalid), "pin.sequences"}
	}
	slices.Reverse(name)
	if slices.Equal(list, name) {
		return &ruled{fmt.Errorf("%w: the user's name backwards is no PIN", ErrInvalid), "pin.sequences"}
	}
	return nil
}

// run says whether each character is as far from the one before: by nothing, or
// one up or down among digits or letters. After 9 comes 0, as on a keypad.
func run(pin []rune) bool {
	step := func(a, b rune) (int, bool) {
		letters := unicode.IsLetter(a) && unicode.IsLetter(b) // of any script
		digits := unicode.IsDigit(a) && unicode.IsDigit(b)
		switch {
		case a == b:
			return 0, true
		case letters && b == a+1, digits && b == a+1, a == '9' && b == '0':
			return 1, true
		case letters && b == a-1, digits && b == a-1, a == '0' && b == '9':
			return -1, true
		}
		return 0, false
	}
	if len(pin) < 2 { // folding can leave less than was typed
		return true
	}
	first, ok := step(pin[0], pin[1])
	for i := 2; ok && i < len(pin); i++ {
		var next int
		if next, ok = step(pin[i-1], pin[i]); next != first {
			return false
		}
	}
	return ok
}

// repeats says whether the PIN is a block of at least two characters, two or more
// times.
func repeats(pin []rune) bool {
	for n := 2; n <= len(pin)/2; n++ {
		if len(pin)%n == 0 && slices.Equal(pin[n:], pin[:len(pin)-n]) {
			return true
		}
	}
	return false
}

// SetPIN sets the PIN that goes before each of the user's codes; an empty one
// removes it. It must keep to the rules of the realm. With due, or if the rules say
// so of each PIN that somebody else has set, nothing is accepted of the user until
// ChangePIN has replaced it. The user's tokens are bound to it, so all of them are
// bound anew.
func (s *Service) SetPIN(ctx context.Context, p Principal, realm, name, pin string, due bool) (UserEntry, error) {
	if pin != "" {
		if err := plausiblePIN(pin); err != nil {
			return UserEntry{}, err
		}
	}
	return s.changeUser(ctx, p, policy.UserPIN, realm, name, func(sub *Subject, c *Change, e *audit.Event) error {
		next := *sub.User
		next.PINSalt, next.PINMAC, next.PINDue = nil, nil, false
		change := "removed"
		if pin != "" {
			rules, err := s.rulesOf(ctx, sub.User.Realm)
			if err != nil {
				return err
			}
			if err := rules.PIN.check(pin, sub.User.Key); err != nil {
				return err
			}
			if err := s.newPIN(ctx, &next, pin); err != nil {
				return err
			}
			next.PINDue = due || rules.PIN.Change
			change = "set"
		}
		e.Detail = []audit.Field{{Name: "pin", Value: change}}
		if next.PINDue {
			e.Detail = append(e.Detail, audit.Field{Name: "due", Value: "true"})
		}
		var err error
		if c.Tokens, err = s.rebindAll(ctx, sub, next.PINMAC); err != nil {
			return err
		}
		c.Users = []User{next}
		c.Standings = []StandingWrite{sub.touch()}
		sub.User = &next // not in place: a database may remember what it has loaded
		return nil
	})
}

// newPIN gives a user a new salt, and the MAC of a PIN with it.
func (s *Service) newPIN(ctx context.Context, u *User, pin string) error {
	u.PINSalt = make([]byte, 16)
	if _, err := io.ReadFull(s.cfg.Rand, u.PINSalt); err != nil {
		return fmt.Errorf("%w: random bytes: %w", ErrUnavailable, err)
	}
	var err error
	u.PINMAC, err = s.pinMAC(ctx, u, pin)
	return err
}

// rebindAll binds all of a user's tokens to another PIN MAC.
func (s *Service) rebindAll(ctx context.Context, sub *Subject, pinMAC []byte) ([]TokenWrite, error) {
	var list []TokenWrite
	for i := range sub.Tokens {
		t := sub.Tokens[i]
		if err := s.rebind(ctx, &sub.Tokens[i], sub.User.PINMAC, &t, pinMAC); err != nil {
			return nil, err
		}
		list = append(list, TokenWrite{Token: t, Expect: t.Version})
	}
	return list, nil
}
