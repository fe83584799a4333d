package softkey

import (
	"crypto/sha256"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// Subcommands of credentialManagement (CTAP 2.1 §6.8).
const (
	subMetadata    = 0x01
	subParties     = 0x02
	subPartiesNext = 0x03
	subList        = 0x04
	subListNext    = 0x05
	subDelete      = 0x06
	subUpdate      = 0x07
)

type manageRequest struct {
	Subcommand int             `cbor:"1,keyasint"`
	Parameters cbor.RawMessage `cbor:"2,keyasint"`
	Protocol   int             `cbor:"3,keyasint"`
	Param      []byte          `cbor:"4,keyasint"`
}

type manageParameters struct {
	RPIDHash   []byte                `cbor:"1,keyasint"`
	Credential *credentialDescriptor `cbor:"2,keyasint"`
	User       *userEntity           `cbor:"3,keyasint"`
}

// manage is authenticatorCredentialManagement: it lists and deletes resident
// credentials, for who has a token that permits it.
func (k *Key) manage(parameters []byte) (any, error) {
	var r manageRequest
	if err := decode(parameters, &r); err != nil {
		return nil, err
	}
	s := &k.device.session
	switch r.Subcommand {
	case 0:
		return nil, statusMissingParameter
	case subPartiesNext:
		return k.nextParty()
	case subListNext:
		return k.nextListed()
	case subMetadata, subParties, subList, subDelete, subUpdate:
	default:
		return nil, statusInvalidSubcommand
	}
	s.parties, s.listed = nil, nil
	if r.Param == nil {
		return nil, statusPUATRequired
	}
	var p manageParameters
	if r.Subcommand == subList || r.Subcommand == subDelete || r.Subcommand == subUpdate {
		if r.Parameters == nil {
			return nil, statusMissingParameter
		}
		if err := decode(r.Parameters, &p); err != nil {
			return nil, err
		}
	}
	if err := s.use(r.Protocol, r.Param, permitManage, "", []byte{byte(r.Subcommand)}, r.Parameters); err != nil {
		return nil, err
	}
	switch r.Subcommand {
	case subMetadata:
		k.mu.RLock()
		defer k.mu.RUnlock()
		return map[int]any{1: len(k.resident), 2: k.capacity - len(k.resident)}, nil
	case subParties:
		return k.listParties()
	case subList:
		if len(p.RPIDHash) != sha256.Size {
			return nil, statusMissingParameter
		}
		return k.list([32]byte(p.RPIDHash))
	case subDelete:
		if p.Credential == nil {
			return nil, statusMissingParameter
		}
		return nil, k.remove(p.Credential.ID)
	}
	if p.Credential == nil || p.User == nil {
		return nil, statusMissingParameter
	}
	return nil, k.rename(p.Credential.ID, p.User)
}

// all are the resident credentials that the token may see, in the order in
// which they were made.
func (k *Key) all() []*credential {
	k.mu.RLock()
	defer k.mu.RUnlock()
	out := make([]*credential, 0, len(k.resident))
	for _, c := range k.resident {
		if k.device.session.sees(c) {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b *credential) int { return int(a.number) - int(b.number) })
	return out
}

// sees says whether the token reaches a credential: any, or those of the relying
// party that it is for.
func (s *session) sees(c *credential) bool {
	return s.token.rpID == "" || s.token.rpID == c.rpID
}

func (k *Key) listParties() (any, error) {
	s := &k.device.session
	known := map[[32]byte]bool{}
	for _, c := range k.all() {
		if !known[c.rpIDHash] {
			known[c.rpIDHash] = true
			s.parties = append(s.parties, c)
		}
	}
	total := len(s.parties)
	if total == 0 {
		return nil, statusNoCredentials
	}
	answer, err := k.nextParty()
	if err == nil {
		answer[5] = total
	}
	return answer, err
}

func (k *Key) nextParty() (map[int]any, error) {
	s := &k.device.session
	if len(s.parties) == 0 {
		return nil, statusNotAllowed
	}
	c := s.parties[0]
	s.parties = s.parties[1:]
	return map[int]any{3: map[string]any{"id": c.rpID}, 4: c.rpIDHash[:]}, nil
}

func (k *Key) list(rpIDHash [32]byte) (any, error) {
	s := &k.device.session
	for _, c := range k.all() {
		if c.rpIDHash == rpIDHash {
			s.listed = append(s.listed, c)
		}
	}
	total := len(s.listed)
	if total == 0 {
		return nil, statusNoCredentials
	}
	answer, err := k.nextListed()
	if err == nil {
		answer[9] = total
	}
	return answer, err
}

func (k *Key) nextListed() (map[int]any, error) {
	s := &k.device.session
	if len(s.listed) == 0 {
		return nil, statusNotAllowed
	}
	c := s.listed[0]
	s.listed = s.listed[1:]
	return map[int]any{
		6:    userEntity{ID: c.user.ID, Name: c.user.Name, DisplayName: c.user.DisplayName},
		7:    credentialDescriptor{ID: c.id, Type: "public-key"},
		8:    cbor.RawMessage(c.public),
		0x0a: c.protect,
	}, nil
}

func (k *Key) remove(id []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.resident[string(id)]
	if c == nil || !k.device.session.sees(c) {
		return statusNoCredentials
	}
	delete(k.resident, string(id))
	return nil
}

// rename gives a credential's user other names.
func (k *Key) rename(id []byte, user *userEntity) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.resident[string(id)]
	switch {
	case c == nil || !k.device.session.sees(c):
		return statusNoCredentials
	case !slices.Equal(c.user.ID, user.ID):
		return statusInvalidParameter
	}
	renamed := *c
	renamed.user.Name, renamed.user.DisplayName = shorten(user.Name), shorten(user.DisplayName)
	k.resident[string(id)] = &renamed
	return nil
}

// Subcommands of config (CTAP 2.1 §6.11).
const (
	subEnterprise = 0x01
	subAlwaysUV   = 0x02
	subLeastPIN   = 0x03
)

type configParameters struct {
	Least    *int     `cbor:"1,keyasint"`
	Informed []string `cbor:"2,keyasint"`
	Change   bool     `cbor:"3,keyasint"`
}

// configure is authenticatorConfig: settings of the key, for who has a token
// that permits it, or of a key without a PIN.
func (k *Key) configure(parameters []byte) error {
	var r manageRequest
	if err := decode(parameters, &r); err != nil {
		return err
	}
	pin := &k.device.pin
	switch r.Subcommand {
	case 0:
		return statusMissingParameter
	case subEnterprise, subAlwaysUV, subLeastPIN:
	default:
		return statusInvalidSubcommand
	}
	if pin.set || k.o.UserVerification || r.Param != nil {
		if r.Param == nil {
			return statusPUATRequired
		}
		prefix := make([]byte, 32, 34)
		for i := range prefix {
			prefix[i] = 0xff
		}
		prefix = append(prefix, cmdConfig, byte(r.Subcommand))
		if err := k.device.session.use(r.Protocol, r.Param, permitConfig, "", prefix, r.Parameters); err != nil {
			return err
		}
	}
	switch r.Subcommand {
	case subEnterprise:
		if k.o.Serial == "" {
			return statusInvalidSubcommand
		}
		pin.enterprise = true
		return nil
	case subAlwaysUV:
		pin.alwaysUV = !pin.alwaysUV
		return nil
	}
	var p configParameters
	if r.Parameters != nil {
		if err := decode(r.Parameters, &p); err != nil {
			return err
		}
	}
	return k.setLeastPIN(&p)
}

// setLeastPIN is setMinPINLength (CTAP 2.1 §6.11.4): all of it, or nothing.
func (k *Key) setLeastPIN(p *configParameters) error {
	pin := &k.device.pin
	least := pin.least
	if p.Least != nil {
		least = *p.Least
	}
	switch {
	case least < pin.least || least > pinMost:
		return statusPINPolicyViolation
	case p.Change && !pin.set:
		return statusPINNotSet
	case len(p.Informed) > maxInformed:
		return statusKeyStoreFull
	}
	pin.least = least
	if p.Informed != nil {
		pin.informed = p.Informed
	}
	if pin.set && (p.Change || pin.length < least) {
		pin.change = true
		k.device.session.token = token{}
	}
	return nil
}
