package station

import (
	"errors"
	"fmt"
	"io"
)

// RandomPIN makes a PIN of digits, each as likely as any other, that is none of those
// which keys refuse or people guess first: all alike, or one up or down from digit to
// digit.
func RandomPIN(random io.Reader, digits int) (*Secret, error) {
	if digits < 4 || digits > maxPIN {
		return nil, fmt.Errorf("a PIN of %d digits; 4 to %d are possible", digits, maxPIN)
	}
	s, err := newSecret()
	if err != nil {
		return nil, err
	}
	for range 100 { // one in thousands is thrown away
		s.n = 0
		for range 100 * digits { // and one digit in forty
			if s.n == digits {
				break
			}
			// The byte is drawn into the PIN's own memory.
			at := s.page[s.n : s.n+1]
			if _, err := io.ReadFull(random, at); err != nil {
				s.Wipe()
				return nil, fmt.Errorf("random digits: %w", err)
			}
			if at[0] < 250 { // a multiple of ten, so that no digit is likelier
				at[0] = '0' + at[0]%10
				s.n++
			}
		}
		s.page[s.n] = 0
		if s.n == digits && !trivial(s.Bytes()) {
			return s, nil
		}
	}
	s.Wipe()
	return nil, errors.New("random digits: they are always the same")
}

// trivial says whether each digit follows from the one before in the same way.
func trivial(pin []byte) bool {
	for i := 2; i < len(pin); i++ {
		if (pin[i]+10-pin[i-1])%10 != (pin[1]+10-pin[0])%10 {
			return false
		}
	}
	step := (pin[1] + 10 - pin[0]) % 10
	return step == 0 || step == 1 || step == 9
}
