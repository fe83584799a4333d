package radius

import (
	"unicode/utf8"

	"watchword/tokens"
)

// pap is the password in User-Password, hidden under the shared secret (RFC
// 2865, section 5.2): the code, or PIN and code.
var pap = method{
	name:   tokens.MethodPAP,
	speaks: func(p *packet) bool { return p.userPassword != nil },
	read: func(r *request, a *tokens.Attempt) error {
		password, err := r.digest.unhidePassword(r.client.Plain, r.packet.userPassword, r.packet.authenticator())
		switch {
		case err != nil:
			return err // a reject: RFC 2865, section 5
		case len(password) == 0:
			return errEmpty
		case !utf8.Valid(password):
			return errNoise
		}
		a.Code = string(password)
		return nil
	},
}
