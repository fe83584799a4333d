package radius

import (
	"unicode/utf8"

	"watchword/tokens"
)

// pap is the password in User-Password, hidden under the shared secret (RFC
// 2865, section 5.2): the code, or PIN and code.
var pap = method{
	name:   "PAP",
	speaks: func(p *packet) bool { return p.userPassword != nil },
	attempt: func(r *request) (tokens.Attempt, error) {
		realm, user, err := r.user()
		if err != nil {
			return tokens.Attempt{}, err
		}
		password, err := r.digest.unhidePassword(r.client.Plain, r.packet.userPassword, r.packet.authenticator())
		if err != nil {
			return tokens.Attempt{}, err // a reject: RFC 2865, section 5
		}
		if len(password) == 0 {
			return tokens.Attempt{}, errEmpty
		}
		if !utf8.Valid(password) {
			return tokens.Attempt{}, errNoise
		}
		return tokens.Attempt{Realm: realm, User: user, Code: string(password), Transport: transport}, nil
	},
}

// user is the realm and name in User-Name, by the client's rule.
func (r *request) user() (realm, name string, err error) {
	if len(r.packet.userName) == 0 {
		return "", "", errNoUser
	}
	if !utf8.Valid(r.packet.userName) {
		return "", "", errUser
	}
	realm, name = r.client.SplitName(string(r.packet.userName))
	return realm, name, nil
}
