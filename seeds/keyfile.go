package seeds

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"

	"watchword/tokens"
)

// ParseKeyFile reads a pre-shared key as --psk-file holds it: in hex, or raw if
// it has exactly 16, 24 or 32 bytes. A newline at the end of either is ignored.
// Hex is tried first, so 32 hex digits are a key of 16 bytes.
//
// The key is a copy; the error wraps tokens.ErrInvalid and holds nothing of it.
func ParseKeyFile(file []byte) ([]byte, error) {
	trimmed := trimNewline(file)
	switch len(trimmed) {
	case 32, 48, 64:
		key := make([]byte, len(trimmed)/2)
		if _, err := hex.Decode(key, trimmed); err == nil {
			return key, nil
		}
		clear(key)
	}
	// A raw key may end in a byte that looks like a newline.
	for _, raw := range [][]byte{file, trimmed} {
		switch len(raw) {
		case 16, 24, 32:
			return bytes.Clone(raw), nil
		}
	}
	return nil, fmt.Errorf("%w: the key file (--psk-file) has %d bytes; it is either 32, 48 or 64 hex digits, or 16, 24 or 32 raw bytes",
		tokens.ErrInvalid, len(file))
}

// ParsePasswordFile reads a password as --password-file holds it: all of it
// but a newline at the end. The password is a copy.
func ParsePasswordFile(file []byte) ([]byte, error) {
	password := bytes.Clone(trimNewline(file))
	if len(password) == 0 {
		return nil, fmt.Errorf("%w: %w", tokens.ErrInvalid, errEmptyPassword)
	}
	return password, nil
}

var errEmptyPassword = errors.New("the password file (--password-file) is empty")

// trimNewline cuts one LF or CRLF off the end.
func trimNewline(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
		if n > 1 && b[n-2] == '\r' {
			b = b[:n-2]
		}
	}
	return b
}
