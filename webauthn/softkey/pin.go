package softkey

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"time"
	"unicode/utf8"
)

// pinState is what the key keeps about its PIN, and its settings, over power
// cycles.
type pinState struct {
	set        bool
	hash       [16]byte // the first half of SHA-256
	length     int      // in code points
	retries    int
	least      int      // code points that a new PIN must have
	informed   []string // relying parties that may know least; replaced as a whole
	change     bool     // the PIN is good for nothing but changing it
	alwaysUV   bool
	enterprise bool // enterprise attestation is enabled
}

const (
	pinRetries    = 8
	pinLeast      = 4
	pinMost       = 63
	pinMismatches = 3 // in a row, before a power cycle is needed
	uvRetries     = 3

	maxInformed = 8 // relying parties that may know the least length of a PIN
)

// newPINState is that of a key as it was delivered.
func (k *Key) newPINState() pinState {
	return pinState{retries: k.o.PINRetries, least: k.o.MinPINLength}
}

// Permissions of a PIN token (CTAP 2.1 §6.5.5.7).
const (
	permitMake   = 0x01
	permitAssert = 0x02
	permitManage = 0x04
	permitConfig = 0x20
	permitAny    = permitMake | permitAssert | permitManage | permitConfig

	permitFinger = 0x08 // enrol fingerprints: not here
	permitBlobs  = 0x10 // write large blobs: not here
)

// token is the pinUvAuthToken in use. There is one at a time.
type token struct {
	protocol    int // 0: none
	key         [32]byte
	permissions byte
	rpID        string // "": of any relying party, until first used
	until       time.Time
	used        bool
}

// A token ends some time after it was given out, and before, if it is not used
// soon (CTAP 2.1 §6.5.2.1).
const (
	tokenLife  = 10 * time.Minute
	tokenFirst = 30 * time.Second
)

// use checks a pinUvAuthParam over the parts against the token. The permission
// must be there, and the relying party the one the token is for; without one
// it is bound to the given one from now on.
func (s *session) use(protocol int, param []byte, permission byte, rpID string, parts ...[]byte) error {
	t := &s.token
	switch {
	case protocol == 0:
		return statusMissingParameter
	case protocol != 1 && protocol != 2:
		return statusInvalidParameter
	case t.protocol != protocol, time.Now().After(t.until), !authenticated(protocol, t.key[:], param, parts...):
		return statusPINAuthInvalid
	case t.permissions&permission == 0, rpID != "" && t.rpID != "" && rpID != t.rpID:
		return statusPINAuthInvalid
	}
	if t.rpID == "" {
		t.rpID = rpID
	}
	if !t.used {
		t.used, t.until = true, t.until.Add(tokenLife-tokenFirst)
	}
	return nil
}

// spent takes back what a token permits once the user's touch was used with it
// (CTAP 2.1 §6.5.2.1).
func (s *session) spent() { s.token.permissions = 0 }

// Subcommands of clientPIN (CTAP 2.1 §6.5.5).
const (
	subPINRetries   = 0x01
	subKeyAgreement = 0x02
	subSetPIN       = 0x03
	subChangePIN    = 0x04
	subPINToken     = 0x05
	subTokenByUV    = 0x06
	subUVRetries    = 0x07
	subTokenByPIN   = 0x09
)

type pinRequest struct {
	Protocol     int            `cbor:"1,keyasint"`
	Subcommand   int            `cbor:"2,keyasint"`
	KeyAgreement *coseAgreement `cbor:"3,keyasint"`
	Param        []byte         `cbor:"4,keyasint"`
	NewPIN       []byte         `cbor:"5,keyasint"`
	PINHash      []byte         `cbor:"6,keyasint"`
	Permissions  *uint8         `cbor:"9,keyasint"`
	RPID         string         `cbor:"10,keyasint"`
}

// clientPIN is authenticatorClientPIN.
func (k *Key) clientPIN(ctx context.Context, parameters []byte) (any, error) {
	var r pinRequest
	if err := decode(parameters, &r); err != nil {
		return nil, err
	}
	s := &k.device.session
	switch r.Subcommand {
	case 0:
		return nil, statusMissingParameter
	case subPINRetries:
		return map[int]any{3: k.device.pin.retries, 4: s.mismatches >= pinMismatches}, nil
	case subUVRetries:
		if !k.o.UserVerification {
			return nil, statusInvalidSubcommand
		}
		return map[int]any{5: uvRetries}, nil
	case subKeyAgreement, subSetPIN, subChangePIN, subPINToken, subTokenByUV, subTokenByPIN:
	default:
		return nil, statusInvalidSubcommand
	}
	if k.o.CTAP20 && r.Subcommand > subPINToken {
		return nil, statusInvalidSubcommand
	}
	switch {
	case r.Protocol == 0:
		return nil, statusMissingParameter
	case r.Protocol != 1 && (r.Protocol != 2 || k.o.CTAP20):
		return nil, statusInvalidParameter
	}
	a := s.agreement[r.Protocol]
	if a == nil {
		var err error
		if a, err = newAgreement(r.Protocol); err != nil {
			return nil, err
		}
		s.agreement[r.Protocol] = a
	}
	if r.Subcommand == subKeyAgreement {
		return map[int]any{1: a.publicCOSE()}, nil
	}
	if r.KeyAgreement == nil {
		return nil, statusMissingParameter
	}
	keys, err := a.agree(r.KeyAgreement)
	if err != nil {
		return nil, err
	}
	switch r.Subcommand {
	case subSetPIN:
		return nil, k.setPIN(&r, keys)
	case subChangePIN:
		return nil, k.changePIN(&r, keys)
	case subTokenByUV:
		return k.tokenByUV(ctx, &r, keys)
	}
	return k.tokenByPIN(&r, keys)
}

func (k *Key) setPIN(r *pinRequest, keys *shared) error {
	switch {
	case r.Param == nil || r.NewPIN == nil:
		return statusMissingParameter
	case k.device.pin.set, !keys.verify(r.Param, r.NewPIN):
		return statusPINAuthInvalid
	}
	return k.storePIN(r.NewPIN, keys)
}

func (k *Key) changePIN(r *pinRequest, keys *shared) error {
	pin := &k.device.pin
	switch {
	case r.Param == nil || r.NewPIN == nil || r.PINHash == nil:
		return statusMissingParameter
	case !pin.set:
		return statusPINNotSet
	case pin.retries == 0:
		return statusPINBlocked
	case k.device.session.mismatches >= pinMismatches:
		return statusPINAuthBlocked
	case !keys.verify(r.Param, r.NewPIN, r.PINHash):
		return statusPINAuthInvalid
	}
	if err := k.checkPIN(r.PINHash, keys); err != nil {
		return err
	}
	return k.storePIN(r.NewPIN, keys)
}

// storePIN takes a new PIN. Tokens of the old one end.
func (k *Key) storePIN(encrypted []byte, keys *shared) error {
	padded, err := keys.decrypt(encrypted)
	if err != nil {
		return statusPINAuthInvalid
	}
	defer clear(padded)
	new, err := unpad(padded)
	if err != nil {
		return err
	}
	pin := &k.device.pin
	sum := sha256.Sum256(new)
	length := utf8.RuneCount(new)
	if length < pin.least || !utf8.Valid(new) || pin.change && subtle.ConstantTimeCompare(sum[:16], pin.hash[:]) == 1 {
		return statusPINPolicyViolation
	}
	pin.set, pin.change, pin.retries, pin.length = true, false, k.o.PINRetries, length
	copy(pin.hash[:], sum[:])
	k.device.session.mismatches = 0
	k.device.session.token = token{}
	return nil
}

// checkPIN compares a PIN's encrypted hash. A wrong one costs a retry, and the
// key agreement: the next guess needs a new one (CTAP 2.1 §6.5.5.6).
func (k *Key) checkPIN(encrypted []byte, keys *shared) error {
	pin, s := &k.device.pin, &k.device.session
	switch {
	case !pin.set:
		return statusPINNotSet
	case pin.retries == 0:
		return statusPINBlocked
	case s.mismatches >= pinMismatches:
		return statusPINAuthBlocked
	}
	pin.retries--
	hash, err := keys.decrypt(encrypted)
	if err == nil && len(hash) == len(pin.hash) && subtle.ConstantTimeCompare(hash, pin.hash[:]) == 1 {
		pin.retries = k.o.PINRetries
		s.mismatches = 0
		return nil
	}
	s.agreement[keys.protocol] = nil
	s.mismatches++
	switch {
	case pin.retries == 0:
		return statusPINBlocked
	case s.mismatches >= pinMismatches:
		return statusPINAuthBlocked
	}
	return statusPINInvalid
}

// tokenByPIN answers a token for the PIN, with permissions (0x09) or as CTAP
// 2.0 has it (0x05): for making and asserting.
func (k *Key) tokenByPIN(r *pinRequest, keys *shared) (any, error) {
	if r.PINHash == nil {
		return nil, statusMissingParameter
	}
	permissions := byte(permitMake | permitAssert)
	if r.Subcommand == subPINToken {
		if r.Permissions != nil || r.RPID != "" {
			return nil, statusInvalidParameter
		}
		if k.o.CTAP20 {
			permissions = permitAny
		}
	} else {
		if err := permitted(r); err != nil {
			return nil, err
		}
		permissions = *r.Permissions
	}
	if err := k.checkPIN(r.PINHash, keys); err != nil {
		return nil, err
	}
	switch {
	case k.device.pin.change && r.Subcommand == subPINToken:
		return nil, statusPINInvalid // older clients know no other word for it
	case k.device.pin.change:
		return nil, statusPINPolicyViolation
	}
	return k.newToken(keys, permissions, r.RPID)
}

func (k *Key) tokenByUV(ctx context.Context, r *pinRequest, keys *shared) (any, error) {
	if err := permitted(r); err != nil {
		return nil, err
	}
	if !k.o.UserVerification {
		return nil, statusNotAllowed
	}
	if err := k.touch(ctx); err != nil {
		return nil, err
	}
	return k.newToken(keys, *r.Permissions, r.RPID)
}

func permitted(r *pinRequest) error {
	switch {
	case r.Permissions == nil:
		return statusMissingParameter
	case *r.Permissions == 0:
		return statusInvalidParameter
	case *r.Permissions&(permitFinger|permitBlobs) != 0:
		return statusUnauthorizedPermission
	case *r.Permissions&(permitMake|permitAssert) != 0 && r.RPID == "":
		return statusMissingParameter
	}
	return nil
}

func (k *Key) newToken(keys *shared, permissions byte, rpID string) (any, error) {
	t := token{protocol: keys.protocol, permissions: permissions & permitAny, rpID: rpID, until: time.Now().Add(tokenFirst)}
	rand.Read(t.key[:])
	k.device.session.token = t
	encrypted, err := keys.encrypt(t.key[:])
	return map[int]any{2: encrypted}, err
}
