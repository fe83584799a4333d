package softkey

import (
	"context"
	"crypto/sha256"
	"slices"
	"unicode/utf8"
)

type partyEntity struct {
	ID *string `cbor:"id"`
}

type userEntity struct {
	ID          []byte `cbor:"id"`
	Name        string `cbor:"name,omitempty"`
	DisplayName string `cbor:"displayName,omitempty"`
}

type credentialDescriptor struct {
	ID   []byte `cbor:"id"`
	Type string `cbor:"type"`
}

// publicKeys are the descriptors of the one type of credential that there is;
// others are passed over (CTAP 2.1 §6.1.2, WebAuthn §5.8.3).
func publicKeys(all []credentialDescriptor) []credentialDescriptor {
	return slices.DeleteFunc(all, func(d credentialDescriptor) bool { return d.Type != "public-key" })
}

type commandOptions struct {
	RK *bool `cbor:"rk"`
	UP *bool `cbor:"up"`
	UV *bool `cbor:"uv"`
}

type makeRequest struct {
	ClientDataHash []byte       `cbor:"1,keyasint"`
	RP             *partyEntity `cbor:"2,keyasint"`
	User           *userEntity  `cbor:"3,keyasint"`
	Parameters     []struct {
		Alg  Algorithm `cbor:"alg"`
		Type string    `cbor:"type"`
	} `cbor:"4,keyasint"`
	Exclude    []credentialDescriptor `cbor:"5,keyasint"`
	Extensions struct {
		CredProtect *uint8 `cbor:"credProtect"`
		HMACSecret  bool   `cbor:"hmac-secret"`
		MinPIN      bool   `cbor:"minPinLength"`
	} `cbor:"6,keyasint"`
	Options    commandOptions `cbor:"7,keyasint"`
	Param      []byte         `cbor:"8,keyasint"`
	Protocol   int            `cbor:"9,keyasint"`
	Enterprise int            `cbor:"10,keyasint"`
}

// makeCredential is authenticatorMakeCredential (CTAP 2.1 §6.1.2).
func (k *Key) makeCredential(ctx context.Context, parameters []byte) (any, error) {
	var r makeRequest
	if err := decode(parameters, &r); err != nil {
		return nil, err
	}
	switch {
	case r.ClientDataHash == nil, r.RP == nil, r.RP != nil && r.RP.ID == nil, r.User == nil, r.Parameters == nil:
		return nil, statusMissingParameter
	case len(r.ClientDataHash) != sha256.Size, len(r.User.ID) < 1, len(r.User.ID) > 64:
		return nil, statusInvalidLength
	case len(r.Exclude) > k.o.MaxListed:
		return nil, statusLimitExceeded
	}
	rpID := *r.RP.ID
	if r.Param != nil && len(r.Param) == 0 {
		return nil, k.probed(ctx)
	}
	offered := make([]Algorithm, 0, len(r.Parameters))
	for _, p := range r.Parameters {
		if p.Type == "public-key" {
			offered = append(offered, p.Alg)
		}
	}
	alg, ok := k.choose(offered)
	if !ok {
		return nil, statusUnsupportedAlgorithm
	}
	if up := r.Options.UP; up != nil && !*up {
		return nil, statusInvalidOption
	}
	resident := r.Options.RK != nil && *r.Options.RK
	pin := &k.device.pin
	switch r.Enterprise {
	case 0:
	case 1, 2:
		if !pin.enterprise {
			return nil, statusInvalidParameter
		}
	default:
		return nil, statusInvalidOption
	}
	if level := r.Extensions.CredProtect; level != nil && (*level < 1 || *level > 3) {
		return nil, statusInvalidOption
	}

	verified, err := k.verifyUser(r.Options.UV, r.Param, r.Protocol, permitMake, rpID, r.ClientDataHash)
	if err != nil {
		return nil, err
	}
	// makeCredUvNotRqd: what is not resident needs no PIN, unless always.
	if !verified && (pin.alwaysUV || (resident || k.o.CTAP20) && (pin.set || k.o.UserVerification)) {
		return nil, statusPUATRequired
	}
	rpIDHash := sha256.Sum256([]byte(rpID))
	for _, d := range publicKeys(r.Exclude) {
		c, err := k.find(d.ID, &rpIDHash)
		if err != nil {
			return nil, err
		}
		if c != nil && (c.protect != 3 || verified) {
			if err := k.touch(ctx); err != nil {
				return nil, err
			}
			return nil, statusCredentialExcluded
		}
	}
	if err := k.touch(ctx); err != nil {
		return nil, err
	}
	k.device.session.spent()

	c := creation{
		clientDataHash: r.ClientDataHash,
		rpID:           rpID,
		user:           User{ID: r.User.ID, Name: shorten(r.User.Name), DisplayName: shorten(r.User.DisplayName)},
		alg:            alg,
		resident:       resident,
		verified:       verified,
		enterprise:     r.Enterprise != 0,
	}
	extensions := map[string]any{}
	if level := r.Extensions.CredProtect; level != nil {
		c.protect = *level
		extensions["credProtect"] = *level
	}
	if r.Extensions.HMACSecret {
		extensions["hmac-secret"] = true
	}
	if r.Extensions.MinPIN && slices.Contains(pin.informed, rpID) {
		extensions["minPinLength"] = pin.least
	}
	if len(extensions) > 0 {
		if c.extensions, err = encode(extensions); err != nil {
			return nil, err
		}
	}
	made, err := k.create(c)
	if err != nil {
		return nil, err
	}
	if made == nil {
		return nil, statusKeyStoreFull
	}
	answer := map[int]any{1: made.format, 2: made.authData, 3: made.statement}
	if made.enterprise {
		answer[4] = true
	}
	return answer, nil
}

// probed is how a platform finds out which of several keys the user touches: an
// empty pinUvAuthParam.
func (k *Key) probed(ctx context.Context) error {
	if err := k.touch(ctx); err != nil {
		return err
	}
	if k.device.pin.set {
		return statusPINInvalid
	}
	return statusPINNotSet
}

// verifyUser says whether the user is verified, by a PIN token or by the key
// itself. An error ends the command.
func (k *Key) verifyUser(uv *bool, param []byte, protocol int, permission byte, rpID string, hash []byte) (bool, error) {
	switch {
	case param != nil:
		return true, k.device.session.use(protocol, param, permission, rpID, hash)
	case uv != nil && *uv && !k.o.UserVerification:
		return false, statusInvalidOption
	}
	return k.o.UserVerification && (uv != nil && *uv || k.device.pin.alwaysUV), nil
}

// shorten cuts a name to what a key stores, at the end of a character (CTAP 2.1
// §6.1.2).
func shorten(s string) string {
	if len(s) <= mostNameBytes {
		return s
	}
	n := mostNameBytes
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
