package store_test

import (
	"bytes"
	"net/netip"
	"time"

	"watchword/hsm"
	"watchword/tokens"
	"watchword/tokens/audit"
)

// sampleToken is a token as an import stages it.
func sampleToken(serial string) tokens.Token {
	return tokens.Token{
		Realm: "default", Serial: serial, Type: tokens.TOTP, Algorithm: hsm.SHA1, Digits: 6, Period: 30,
		State: tokens.Imported, Created: time.Now(),
		Wrapped: hsm.Wrapped{Mechanism: "aes-kwp", KEK: 1, Hash: hsm.SHA1, SeedLen: 20, Blob: bytes.Repeat([]byte(serial[:1]), 32)},
		Binding: bytes.Repeat([]byte{7}, 32),
		Motion:  tokens.Motion{Last: -1},
	}
}

// prefixes are addresses that clients come from, two of them the same.
var prefixes = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.9/24"), netip.MustParsePrefix("2001:db8::/32"),
}

func event(action string) audit.Event { return audit.Event{Action: action, Realm: "default"} }
