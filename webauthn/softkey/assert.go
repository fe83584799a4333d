package softkey

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"time"
)

type assertRequest struct {
	RPID           *string                `cbor:"1,keyasint"`
	ClientDataHash []byte                 `cbor:"2,keyasint"`
	Allow          []credentialDescriptor `cbor:"3,keyasint"`
	Extensions     struct {
		HMACSecret *secretRequest `cbor:"hmac-secret"`
	} `cbor:"4,keyasint"`
	Options  commandOptions `cbor:"5,keyasint"`
	Param    []byte         `cbor:"6,keyasint"`
	Protocol int            `cbor:"7,keyasint"`
}

// secretRequest is the input of hmac-secret (CTAP 2.1 §12.5).
type secretRequest struct {
	KeyAgreement *coseAgreement `cbor:"1,keyasint"`
	Salts        []byte         `cbor:"2,keyasint"`
	Param        []byte         `cbor:"3,keyasint"`
	Protocol     int            `cbor:"4,keyasint"`
}

// nextAssertions are those that getNextAssertion answers.
type nextAssertions struct {
	left     []*credential
	count    int
	hash     []byte
	present  bool
	verified bool
	secrets  *secrets
	until    time.Time
}

// secrets are the salts of hmac-secret, once they were checked.
type secrets struct {
	keys  *shared
	salts []byte
}

// getAssertion is authenticatorGetAssertion (CTAP 2.1 §6.2.2).
func (k *Key) getAssertion(ctx context.Context, parameters []byte) (any, error) {
	var r assertRequest
	if err := decode(parameters, &r); err != nil {
		return nil, err
	}
	switch {
	case r.RPID == nil, r.ClientDataHash == nil:
		return nil, statusMissingParameter
	case len(r.ClientDataHash) != sha256.Size:
		return nil, statusInvalidLength
	case len(r.Allow) > k.o.MaxListed:
		return nil, statusLimitExceeded
	case r.Param != nil && len(r.Param) == 0:
		return nil, k.probed(ctx)
	case r.Options.RK != nil:
		return nil, statusUnsupportedOption
	}
	present := r.Options.UP == nil || *r.Options.UP
	verified, err := k.verifyUser(r.Options.UV, r.Param, r.Protocol, permitAssert, *r.RPID, r.ClientDataHash)
	if err != nil {
		return nil, err
	}
	if !verified && present && k.device.pin.alwaysUV {
		return nil, statusPUATRequired
	}
	rpIDHash := sha256.Sum256([]byte(*r.RPID))
	held, err := k.answerable(&rpIDHash, r.Allow, verified)
	if err != nil {
		return nil, err
	}
	n := &nextAssertions{count: len(held), hash: r.ClientDataHash, present: present, verified: verified}
	if r.Extensions.HMACSecret != nil {
		if !present {
			return nil, statusUnsupportedOption
		}
		if n.secrets, err = k.secrets(r.Extensions.HMACSecret); err != nil {
			return nil, err
		}
	}
	if len(held) == 0 {
		if present { // nobody learns without the user that a key holds nothing
			if err := k.touch(ctx); err != nil {
				return nil, err
			}
		}
		return nil, statusNoCredentials
	}
	if present {
		if err := k.touch(ctx); err != nil {
			return nil, err
		}
		k.device.session.spent()
	}
	if len(r.Allow) > 0 {
		held, n.count = held[:1], 1
	}
	answer, err := k.answer(held[0], n)
	if err != nil {
		return nil, err
	}
	if n.count > 1 {
		answer[5] = n.count
		n.left, n.until = held[1:], time.Now().Add(nextTimeout)
		k.device.session.next = n
	}
	return answer, nil
}

// getNextAssertion is authenticatorGetNextAssertion (CTAP 2.1 §6.3).
func (k *Key) getNextAssertion() (any, error) {
	n := k.device.session.next
	if n == nil || len(n.left) == 0 || time.Now().After(n.until) {
		k.device.session.next = nil
		return nil, statusNotAllowed
	}
	c := n.left[0]
	n.left, n.until = n.left[1:], time.Now().Add(nextTimeout)
	return k.answer(c, n)
}

// answerable are the credentials that may answer: those of the allow list, or
// the resident ones, as far as their protection lets them (CTAP 2.1 §12.1).
func (k *Key) answerable(rpIDHash *[32]byte, allow []credentialDescriptor, verified bool) ([]*credential, error) {
	var held []*credential
	if len(allow) == 0 {
		for _, c := range k.residents(rpIDHash) {
			if c.protect == 1 || verified {
				held = append(held, c)
			}
		}
		return held, nil
	}
	for _, d := range publicKeys(allow) {
		c, err := k.find(d.ID, rpIDHash)
		if err != nil {
			return nil, err
		}
		if c != nil && (c.protect != 3 || verified) {
			held = append(held, c)
		}
	}
	return held, nil
}

// answer signs with one credential.
func (k *Key) answer(c *credential, n *nextAssertions) (map[int]any, error) {
	var extensions []byte
	if n.secrets != nil {
		output, err := k.hmacSecret(c, n.secrets, n.verified)
		if err != nil {
			return nil, err
		}
		if extensions, err = encode(map[string]any{"hmac-secret": output}); err != nil {
			return nil, err
		}
	}
	authData, signature, err := k.assert(c, n.hash, n.present, n.verified, extensions)
	if err != nil {
		return nil, err
	}
	answer := map[int]any{
		1: credentialDescriptor{ID: c.id, Type: "public-key"},
		2: authData,
		3: signature,
	}
	if c.resident {
		user := userEntity{ID: c.user.ID}
		if n.verified && n.count > 1 { // names are the user's own business
			user.Name, user.DisplayName = c.user.Name, c.user.DisplayName
		}
		answer[4] = user
	}
	return answer, nil
}

// secrets opens the salts: one or two of 32 bytes.
func (k *Key) secrets(r *secretRequest) (*secrets, error) {
	protocol := r.Protocol
	if protocol == 0 {
		protocol = 1
	}
	if r.KeyAgreement == nil || r.Salts == nil || r.Param == nil {
		return nil, statusMissingParameter
	}
	if protocol != 1 && protocol != 2 || k.device.session.agreement[protocol] == nil {
		return nil, statusInvalidParameter
	}
	keys, err := k.device.session.agreement[protocol].agree(r.KeyAgreement)
	if err != nil {
		return nil, err
	}
	if !keys.verify(r.Param, r.Salts) {
		return nil, statusPINAuthInvalid
	}
	salts, err := keys.decrypt(r.Salts)
	if err != nil {
		return nil, err
	}
	if len(salts) != 32 && len(salts) != 64 {
		return nil, statusInvalidParameter
	}
	return &secrets{keys: keys, salts: salts}, nil
}

// hmacSecret is the output of hmac-secret: an HMAC of each salt under a secret of
// the credential, one with and another without user verification.
func (k *Key) hmacSecret(c *credential, s *secrets, verified bool) ([]byte, error) {
	k.mu.RLock()
	secret := k.wrapping.secret
	k.mu.RUnlock()
	of := hmac.New(sha256.New, secret[:])
	of.Write([]byte("hmac-secret"))
	if verified {
		of.Write([]byte{1})
	} else {
		of.Write([]byte{0})
	}
	of.Write(c.id)
	own := of.Sum(nil)
	var out []byte
	for salts := s.salts; len(salts) > 0; salts = salts[32:] {
		mac := hmac.New(sha256.New, own)
		mac.Write(salts[:32])
		out = mac.Sum(out)
	}
	return s.keys.encrypt(out)
}
