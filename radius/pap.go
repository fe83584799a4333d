package radius

import (
	"bytes"
	"slices"
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
		case len(password) == 0 && !r.mayBeEmpty():
			return errEmpty
		case !utf8.Valid(password):
			return errNoise
		}
		a.Code = string(password)
		r.converse(a)
		return nil
	},
}

// converse says what may begin with the attempt, and what it answers.
func (r *request) converse(a *tokens.Attempt) {
	a.Dialogues, a.Joined = r.client.Dialogues, r.client.Joined
	a.State = bytes.Clone(r.packet.state)
}

// mayBeEmpty says whether nothing typed is an attempt: where the PIN is asked for, and
// then the code, the gateway may begin with nothing to have the first question.
func (r *request) mayBeEmpty() bool {
	return slices.Contains(r.client.Dialogues, tokens.DialoguePIN)
}
