package seeds

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Encoding is how a file writes its seeds as text.
type Encoding string

// The encodings of seeds. Empty where none was chosen or told.
const (
	Hex    Encoding = "hex"    // two digits a byte, either case
	Base32 Encoding = "base32" // RFC 4648, section 6; either case, padded or not
)

// ParseEncoding reads the value of --encoding; empty is no choice. The error is
// a *FileError.
func ParseEncoding(s string) (Encoding, error) {
	switch e := Encoding(strings.ToLower(s)); e {
	case "", Hex, Base32:
		return e, nil
	}
	return "", &FileError{Reason: "unknown encoding of seeds; --encoding is hex or base32"}
}

// seedText says in which encodings a text is a whole seed of a possible length.
// A text of A to F and 2 to 7 alone may be one in both.
func seedText(text []byte) (inHex, inBase32 bool) {
	inHex = len(text)%2 == 0 && len(text) >= 2*MinSeed && len(text) <= 2*MaxSeed
	for _, b := range text {
		if !isHex(b) {
			inHex = false
			break
		}
	}
	digits, err := base32Digits(text)
	if err != nil {
		return inHex, false
	}
	n := len(digits) * 5 / 8
	return inHex, n >= MinSeed && n <= MaxSeed
}

// decode reads a seed into rec. Its errors say where, never what.
func (e Encoding) decode(rec *Record, text []byte) error {
	if e == Base32 {
		return decodeBase32(rec, text)
	}
	return decodeHex(rec, text)
}

func decodeHex(rec *Record, digits []byte) error {
	for i, b := range digits {
		if !isHex(b) {
			return fmt.Errorf("character %d is not a hex digit; the seed must be in hex, without blanks", i+1)
		}
	}
	if len(digits)%2 != 0 {
		return errors.New("the seed has an odd number of hex digits")
	}
	n := len(digits) / 2
	if err := seedLength(n); err != nil {
		return err
	}
	rec.Seed = rec.Seed[:n]
	_, err := hex.Decode(rec.Seed, digits)
	return err
}

// decodeBase32 does what encoding/base32 would, which leaves copies of the seed
// behind.
func decodeBase32(rec *Record, text []byte) error {
	digits, err := base32Digits(text)
	if err != nil {
		return err
	}
	n := len(digits) * 5 / 8
	if err := seedLength(n); err != nil {
		return err
	}
	rec.Seed = rec.Seed[:0]
	var bits uint
	count := 0
	for _, b := range digits {
		v, _ := base32Value(b)
		bits = bits<<5 | uint(v)
		if count += 5; count >= 8 {
			count -= 8
			rec.Seed = append(rec.Seed, byte(bits>>count)) // within its capacity: n is
		}
	}
	return nil
}

// base32Digits takes the padding off a text in base32 and checks the rest. The
// bits that fill the last digit up may be anything: random text is a common seed.
func base32Digits(text []byte) ([]byte, error) {
	end := len(text)
	for end > 0 && text[end-1] == '=' {
		end--
	}
	for i, b := range text[:end] {
		if _, ok := base32Value(b); !ok {
			return nil, fmt.Errorf("character %d is not a base32 digit (A to Z and 2 to 7); the seed must be in base32, without blanks", i+1)
		}
	}
	if rest := end % 8; rest == 1 || rest == 3 || rest == 6 || len(text) > end && len(text)%8 != 0 || len(text)-end > 6 {
		return nil, errors.New("the seed has a number of base32 digits that none can have; something of it is missing")
	}
	return text[:end], nil
}

func base32Value(b byte) (byte, bool) {
	switch {
	case b >= 'A' && b <= 'Z':
		return b - 'A', true
	case b >= 'a' && b <= 'z':
		return b - 'a', true
	case b >= '2' && b <= '7':
		return b - '2' + 26, true
	}
	return 0, false
}

func isHex(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F'
}

func seedLength(n int) error {
	switch {
	case n < MinSeed:
		return fmt.Errorf("a seed of %d bytes; %d are the least (RFC 4226 wants 16 or more)", n, MinSeed)
	case n > MaxSeed:
		return fmt.Errorf("a seed of %d bytes; %d are the most", n, MaxSeed)
	}
	return nil
}

// mayBeSeed says whether a text in the serial's column could hold a seed in
// hex, base32 or base64: where columns are swapped or wrongly separated, no
// report may show it.
func mayBeSeed(s string) bool {
	run := 0
	for _, r := range s {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '+' || r == '/' {
			if run++; run == 16 {
				return true
			}
		} else {
			run = 0
		}
	}
	return false
}

// swapped says whether serial and seed seem to have changed places: the serial
// is a key in hex and no shorter than the seed.
func swapped(serial string, seed []byte) bool {
	return len(serial) >= 32 && len(serial) >= 2*len(seed) && strings.IndexFunc(serial, func(r rune) bool { return r > 0x7f || !isHex(byte(r)) }) < 0
}
