package webauthn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"watchword/tokens"
)

// LoginRequest begins a login with a FIDO key.
type LoginRequest struct {
	Realm string // empty: the principal's, or the default one
	User  string // empty: whoever has a passkey
	RPID  string // relying party; empty: the default one
	// UserVerification is required, preferred or discouraged, and at least as
	// strict as the setting. Empty: as the setting says.
	UserVerification string
}

// requestOptions is PublicKeyCredentialRequestOptionsJSON (section 5.1.9).
type requestOptions struct {
	Challenge    string       `json:"challenge"`
	Timeout      int64        `json:"timeout"` // ms
	RPID         string       `json:"rpId"`
	Allow        []descriptor `json:"allowCredentials"`
	Verification string       `json:"userVerification"`
}

// BeginLogin begins a login. It writes nothing, and answers the same for users
// that there are and that there are not.
func (s *Service) BeginLogin(ctx context.Context, p tokens.Principal, r LoginRequest) (Ceremony, error) {
	party, err := s.party(r.RPID)
	if err != nil {
		return Ceremony{}, err
	}
	verification, err := s.verification(r.UserVerification)
	if err != nil {
		return Ceremony{}, err
	}
	// Without a name it is asked about nobody in particular: whether the principal
	// may is decided either way.
	const nobody = "passkey"
	holder, err := s.core.LoginHolder(ctx, p, r.Realm, cmp.Or(r.User, nobody), party.ID)
	if err != nil {
		return Ceremony{}, err
	}
	st := &session{Kind: kindLogin, Realm: holder.Realm, RPID: party.ID, Verification: verification}
	o := requestOptions{Timeout: s.cfg.TTL.Milliseconds(), RPID: party.ID, Verification: verification, Allow: []descriptor{}}
	if r.User != "" {
		st.User = holder.User
		o.Allow = descriptors(holder.Credentials)
		for _, k := range holder.Credentials {
			st.Allowed = append(st.Allowed, allowDigest(k.ID))
		}
	}
	if err := s.draw(st); err != nil {
		return Ceremony{}, err
	}
	if err := s.begin(ctx, st); err != nil {
		return Ceremony{}, err
	}
	o.Challenge = sessionEncoding.EncodeToString(st.challenge)
	return st.ceremony(o)
}

// verification is what a ceremony asks of user verification: the setting, or what is
// stricter.
func (s *Service) verification(asked string) (string, error) {
	verification := cmp.Or(asked, s.cfg.UserVerification)
	switch rank := verificationRank(verification); {
	case rank < 0:
		return "", fmt.Errorf("%w: user verification is %s; it can be required, preferred or discouraged", tokens.ErrInvalid, printable(verification))
	case rank < verificationRank(s.cfg.UserVerification):
		return "", fmt.Errorf("%w: user verification is %s by setting, and can only be made stricter", tokens.ErrInvalid, s.cfg.UserVerification)
	}
	return verification, nil
}

// FinishLogin judges the answer to a login. It accepts one answer to a challenge,
// whatever happens. An answer that cannot be read is an error that wraps
// tokens.ErrInvalid; any other that is not good enough is a result that does not
// accept, and why is in the audit only. transport is how the answer came: http or
// console.
func (s *Service) FinishLogin(ctx context.Context, p tokens.Principal, sessionText string, response []byte, transport string) (tokens.KeyResult, error) {
	st, err := s.resume(ctx, sessionText, kindLogin)
	if err != nil {
		return tokens.KeyResult{}, err
	}
	a, err := parseAnswer(response, kindLogin)
	if r := (*refusal)(nil); errors.As(err, &r) {
		if err := s.core.RefuseLogin(ctx, p, st.Realm, st.User, r.reason, r.why, transport); err != nil {
			return tokens.KeyResult{}, err
		}
		return tokens.KeyResult{}, fmt.Errorf("%w: %s", tokens.ErrInvalid, r.why)
	} else if err != nil {
		return tokens.KeyResult{}, err
	}
	l := s.login(st, a)
	return s.core.VerifyKey(ctx, p, tokens.KeyAttempt{
		Origin: tokens.Origin{NAS: st.RPID},
		Realm:  st.Realm, User: st.User, RPID: st.RPID, Credential: a.id, Handle: a.handle,
		Spend: st.spend, Expires: st.expires(), Transport: transport, Check: l.check,
	})
}

// login is an answer as far as it can be judged without knowing the credential.
type login struct {
	keys      *readKeys
	signed    []byte // what the signature is over
	signature []byte
	refused   *refusal // whatever the signature says; nil: nothing is wrong so far
	says      tokens.Assertion
}

// login makes the checks of section 7.2 that need no credential: steps 5, 6, 10
// to 19 and the format.
func (s *Service) login(st *session, a *answer) *login {
	l := &login{keys: &s.keys, signed: slices.Concat(a.authData, a.hash[:]), signature: a.signature}
	auth, err := s.unsigned(st, a)
	if err == nil {
		l.says = tokens.Assertion{SignCount: auth.Counter, UserVerified: auth.verified, Synced: auth.synced, BackedUp: auth.backedUp}
	} else if !errors.As(err, &l.refused) {
		l.refused = &refusal{reasonMalformed, "the answer cannot be judged"}
	}
	return l
}

// unsigned judges what an answer says, apart from its signature.
func (s *Service) unsigned(st *session, a *answer) (*authenticator, error) {
	if err := a.checkClient(st, s.parties[st.RPID]); err != nil {
		return nil, err
	}
	auth, err := parseAuthenticator(a.authData, st)
	if err != nil {
		return nil, err
	}
	if auth.Flags.HasAttestedCredentialData() {
		return nil, refuse(reasonMalformed, "the authenticator data are those of a registration")
	}
	if err := a.checkExtensions(); err != nil {
		return nil, err
	}
	if err := auth.checkExtensions(); err != nil {
		return nil, err
	}
	if !st.allows(a.id) {
		return nil, refuse(reasonUnknown, "the credential is none of those that were offered")
	}
	if st.User == "" && len(a.handle) == 0 {
		return nil, refuse(reasonMalformed, "the answer does not say whose passkey it is")
	}
	return auth, nil
}

// check proves the signature with the credential's key (section 7.2, step 21). The
// signature comes first: what an unsigned answer says of its origin and the like
// is worth nothing, not even as a reason. The row binding vouches for the
// credential; that it is the relying party's is looked at all the same.
func (l *login) check(c *tokens.Credential, _ *tokens.User) (tokens.Assertion, error) {
	key, err := l.keys.parse(c.PublicKey)
	if err != nil {
		return tokens.Assertion{}, fmt.Errorf("the public key of credential %s: %w", tokens.CredentialSerial(c.ID), err)
	}
	switch {
	case !key.verify(l.signed, l.signature):
		return tokens.Assertion{}, &tokens.CheckError{Reason: reasonSignature, Why: "the signature is not one that this key made over the answer"}
	case l.refused != nil:
		return tokens.Assertion{}, &tokens.CheckError{Reason: l.refused.reason, Why: l.refused.why}
	}
	return l.says, nil
}
