package radius

import "unicode/utf8"

// pap is the password in User-Password, hidden under the shared secret (RFC
// 2865, section 5.2): the code, or PIN and code.
var pap = method{
	speaks: func(p *packet) bool { return p.userPassword != nil },
	code: func(r *request) (string, error) {
		password, err := r.digest.unhidePassword(r.client.Plain, r.packet.userPassword, r.packet.authenticator())
		switch {
		case err != nil:
			return "", err // a reject: RFC 2865, section 5
		case len(password) == 0:
			return "", errEmpty
		case !utf8.Valid(password):
			return "", errNoise
		}
		return string(password), nil
	},
}
