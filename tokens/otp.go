package tokens

import (
	"crypto/subtle"
	"encoding/binary"
)

// noCode is a value that no truncated MAC has: what cannot be a code is given
// this value and goes the same way as a wrong one.
const noCode = ^uint32(0)

var powers = [...]uint32{6: 1_000_000, 7: 10_000_000, 8: 100_000_000}

// truncate makes the HOTP value of a MAC: dynamic truncation (RFC 4226,
// section 5.3), also with longer MACs (RFC 6238, section 1.2).
func truncate(mac []byte, digits int) uint32 {
	offset := mac[len(mac)-1] & 0xf
	return binary.BigEndian.Uint32(mac[offset:]) & 0x7fffffff % powers[digits]
}

// matches says, in constant time, whether a MAC has the code.
func matches(mac []byte, digits int, code uint32) bool {
	return subtle.ConstantTimeEq(int32(truncate(mac, digits)), int32(code)) == 1
}

// appendCode appends a code as it is typed, with its leading zeros.
func appendCode(b []byte, code uint32, digits int) []byte {
	n := len(b)
	b = append(b, "00000000"[:digits]...)
	for i := n + digits - 1; i >= n; i-- {
		b[i] = byte('0' + code%10)
		code /= 10
	}
	return b
}

// parseCode is the value of a code of exactly so many decimal digits, and
// noCode for everything else.
func parseCode(s string, digits int) uint32 {
	if len(s) != digits {
		return noCode
	}
	var v uint32
	for i := range len(s) {
		c := s[i] - '0'
		if c > 9 {
			return noCode
		}
		v = v*10 + uint32(c)
	}
	return v
}

// split takes what was typed apart: a PIN, then a code of so many digits.
func split(typed string, digits int) (pin string, code uint32) {
	if len(typed) < digits {
		return "", noCode
	}
	n := len(typed) - digits
	return typed[:n], parseCode(typed[n:], digits)
}
