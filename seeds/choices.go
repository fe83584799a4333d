package seeds

import (
	"cmp"
	"errors"
	"fmt"
	"strings"

	"watchword/hsm"
	"watchword/tokens"
)

// settle fills in what the file left open of r, whose seed is read: what was
// chosen, else what the format's silence means. What neither says is in the
// error, with the flags that say it.
//
// A hash is never told from a seed's length unless the format has it so:
// privacyIDEA takes a seed of 32 bytes in a table for SHA-256 and one of 64 for
// SHA-512 (of 28 and 48 for SHA-224 and SHA-384), multiOTP and Entra take any for
// SHA-1. A seed of another length is for SHA-1 to all of them.
func (r *Record) settle(chosen, silence Choices) error {
	var open []string
	if r.Type == "" {
		if r.Type = cmp.Or(chosen.Type, silence.Type); r.Type == "" {
			open = append(open, "whether this is a TOTP or an HOTP token (--type totp or --type hotp)")
		}
	}
	if r.Type != tokens.HOTP && r.Period == 0 {
		if r.Period = cmp.Or(chosen.Period, silence.Period); r.Period == 0 {
			what := "how long the time step is (--period, in seconds: 30 or 60 as a rule)"
			if r.Type == "" {
				what = "if it is TOTP, " + what
			}
			open = append(open, what)
		}
	}
	if r.Digits == 0 {
		if r.Digits = cmp.Or(chosen.Digits, silence.Digits); r.Digits == 0 {
			open = append(open, "how many digits a code has (--digits)")
		}
	}
	if r.Algorithm == 0 {
		r.Algorithm = cmp.Or(chosen.Hash, silence.Hash)
		if r.Algorithm == 0 && likelyHash(len(r.Seed)) != "" {
			open = append(open, fmt.Sprintf("the hash: a seed of %d bytes is for %s to some products and for SHA-1 to others (--hash)", len(r.Seed), likelyHash(len(r.Seed))))
		} else if r.Algorithm == 0 {
			r.Algorithm = hsm.SHA1
		}
	}
	if len(open) > 0 {
		return errors.New("the file does not say " + strings.Join(open, ", nor "))
	}
	return nil
}

// likelyHash names the hash whose output has the length of a seed; empty for
// SHA-1 and where there is none.
func likelyHash(n int) string {
	switch n {
	case 28:
		return "SHA-224"
	case 32:
		return "SHA-256"
	case 48:
		return "SHA-384"
	case 64:
		return "SHA-512"
	}
	return ""
}

// ParseHash reads the value of --hash: sha1, sha256 or sha512; empty is no choice.
// The error wraps tokens.ErrInvalid.
func ParseHash(name string) (hsm.Hash, error) {
	for _, h := range []hsm.Hash{hsm.SHA1, hsm.SHA256, hsm.SHA512} {
		if name == h.String() {
			return h, nil
		}
	}
	if name == "" {
		return 0, nil
	}
	return 0, fmt.Errorf("%w: unknown hash; it is one of sha1, sha256 and sha512", tokens.ErrInvalid)
}
