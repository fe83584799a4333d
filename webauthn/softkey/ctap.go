package softkey

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// status is the first byte of a CTAP2 response (CTAP 2.1 §8.2).
type status byte

const (
	statusOK                     status = 0x00
	statusInvalidCommand         status = 0x01
	statusInvalidParameter       status = 0x02
	statusInvalidLength          status = 0x03
	statusCBORUnexpectedType     status = 0x11
	statusInvalidCBOR            status = 0x12
	statusMissingParameter       status = 0x14
	statusLimitExceeded          status = 0x15
	statusCredentialExcluded     status = 0x19
	statusUnsupportedAlgorithm   status = 0x26
	statusOperationDenied        status = 0x27
	statusKeyStoreFull           status = 0x28
	statusUnsupportedOption      status = 0x2b
	statusInvalidOption          status = 0x2c
	statusKeepaliveCancel        status = 0x2d
	statusNoCredentials          status = 0x2e
	statusUserActionTimeout      status = 0x2f
	statusNotAllowed             status = 0x30
	statusPINInvalid             status = 0x31
	statusPINBlocked             status = 0x32
	statusPINAuthInvalid         status = 0x33
	statusPINAuthBlocked         status = 0x34
	statusPINNotSet              status = 0x35
	statusPUATRequired           status = 0x36
	statusPINPolicyViolation     status = 0x37
	statusInvalidSubcommand      status = 0x3e
	statusUnauthorizedPermission status = 0x40
	statusOther                  status = 0x7f
)

func (s status) Error() string { return fmt.Sprintf("softkey: CTAP2 status 0x%02x", byte(s)) }

// Commands (CTAP 2.1 §6).
const (
	cmdMakeCredential       = 0x01
	cmdGetAssertion         = 0x02
	cmdGetInfo              = 0x04
	cmdClientPIN            = 0x06
	cmdReset                = 0x07
	cmdGetNextAssertion     = 0x08
	cmdCredentialManagement = 0x0a
	cmdSelection            = 0x0b
	cmdConfig               = 0x0d
	cmdManagementPreview    = 0x41 // credentialManagement before CTAP 2.1
)

// Bounds of a message and of what is in it.
const (
	maxMessage    = 57 + 128*59 // what CTAPHID can carry: 7609
	maxIDLength   = 512
	touchTimeout  = 30 * time.Second
	nextTimeout   = 30 * time.Second
	mostNameBytes = 64
)

// device is the state of a Key as a CTAP2 device. One command runs at a time;
// Key.command guards all of it.
type device struct {
	pin     pinState
	session session
}

// session is what a power cycle forgets.
type session struct {
	since      time.Time     // plugged in
	agreement  [3]*agreement // by PIN protocol, 1 and 2; made when asked for
	token      token
	mismatches int // wrong PINs in a row
	next       *nextAssertions
	parties    []*credential // still to enumerate: one of each relying party
	listed     []*credential // still to enumerate: of one relying party
}

// PowerCycle is what pulling the key out and plugging it in again does: PIN
// tokens end, and three wrong PINs in a row may be followed by others. It waits
// for a command that is under way.
func (k *Key) PowerCycle() {
	k.command.Lock()
	defer k.command.Unlock()
	k.device.session = session{since: time.Now()}
}

// Command runs a CTAP2 command: the command's byte and its CBOR parameters, to
// a status byte and the CBOR response (CTAP 2.1 §6). One runs at a time. A
// command whose context is cancelled while it waits for the user answers
// CTAP2_ERR_KEEPALIVE_CANCEL.
func (k *Key) Command(ctx context.Context, request []byte) (response []byte) {
	k.command.Lock()
	defer k.command.Unlock()
	answer, err := k.dispatch(ctx, request)
	if err != nil {
		var s status
		if !errors.As(err, &s) {
			s = statusOther
		}
		return []byte{byte(s)}
	}
	if answer == nil {
		return []byte{byte(statusOK)}
	}
	body, err := encode(answer)
	if err != nil || 1+len(body) > maxMessage {
		return []byte{byte(statusOther)}
	}
	return append([]byte{byte(statusOK)}, body...)
}

func (k *Key) dispatch(ctx context.Context, request []byte) (any, error) {
	switch {
	case len(request) == 0:
		return nil, statusInvalidLength
	case len(request) > maxMessage:
		return nil, statusInvalidLength
	}
	parameters := request[1:]
	// What one command leaves for the next is gone when another comes between.
	if request[0] != cmdGetNextAssertion {
		k.device.session.next = nil
	}
	if request[0] != cmdCredentialManagement && request[0] != cmdManagementPreview {
		k.device.session.parties, k.device.session.listed = nil, nil
	}
	if k.o.CTAP20 && slices.Contains([]byte{cmdCredentialManagement, cmdConfig, cmdSelection}, request[0]) {
		return nil, statusInvalidCommand
	}
	switch request[0] {
	case cmdMakeCredential:
		return k.makeCredential(ctx, parameters)
	case cmdGetAssertion:
		return k.getAssertion(ctx, parameters)
	case cmdGetNextAssertion:
		return k.getNextAssertion()
	case cmdGetInfo:
		return k.info(), nil
	case cmdClientPIN:
		return k.clientPIN(ctx, parameters)
	case cmdCredentialManagement, cmdManagementPreview:
		return k.manage(parameters)
	case cmdConfig:
		return nil, k.configure(parameters)
	case cmdSelection:
		return nil, k.touch(ctx)
	case cmdReset:
		if k.o.ResetWithin > 0 && time.Since(k.device.session.since) > k.o.ResetWithin {
			return nil, statusNotAllowed
		}
		if err := k.touch(ctx); err != nil {
			return nil, err
		}
		return nil, k.forget()
	}
	return nil, statusInvalidCommand
}

// decode reads a command's parameters.
func decode(parameters []byte, to any) error {
	err := decoding.Unmarshal(parameters, to)
	var kind *cbor.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &kind):
		return statusCBORUnexpectedType
	}
	return statusInvalidCBOR
}

// touch waits for the user.
func (k *Key) touch(ctx context.Context) error {
	if k.o.Touch == nil {
		return nil
	}
	k.waiting.Store(true)
	defer k.waiting.Store(false)
	ctx, cancel := context.WithTimeout(ctx, touchTimeout)
	defer cancel()
	touched := k.o.Touch(ctx)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return statusUserActionTimeout
	case ctx.Err() != nil:
		return statusKeepaliveCancel
	case !touched:
		return statusOperationDenied
	}
	return nil
}

// forget is a factory reset: every credential, also those that are not
// resident, and the PIN are gone. The counter goes on.
func (k *Key) forget() error {
	w, err := newWrapping()
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wrapping = w
	clear(k.resident)
	k.device = device{pin: k.newPINState(), session: session{since: k.device.session.since}}
	return nil
}

// info answers authenticatorGetInfo (CTAP 2.1 §6.4).
func (k *Key) info() any {
	k.mu.RLock()
	free := k.capacity - len(k.resident)
	k.mu.RUnlock()
	pin := &k.device.pin
	options := map[string]bool{"plat": false, "rk": true, "up": true, "clientPin": pin.set}
	if k.o.UserVerification {
		options["uv"] = true
	}
	if k.o.CTAP20 {
		options["credentialMgmtPreview"] = true
		return map[int]any{
			0x01: []string{"FIDO_2_0"},
			0x02: []string{"hmac-secret"},
			0x03: k.aaguid[:],
			0x04: options,
			0x05: maxMessage,
			0x06: []int{1},
		}
	}
	options["pinUvAuthToken"] = true
	options["makeCredUvNotRqd"] = !pin.alwaysUV
	options["credMgmt"] = true
	options["authnrCfg"] = true
	options["setMinPINLength"] = true
	options["alwaysUv"] = pin.alwaysUV
	if k.o.Serial != "" {
		options["ep"] = pin.enterprise
	}
	type parameter struct {
		Alg  Algorithm `cbor:"alg"`
		Type string    `cbor:"type"`
	}
	var makes []parameter
	for _, a := range algorithms {
		if _, ok := k.choose([]Algorithm{a}); ok {
			makes = append(makes, parameter{a, "public-key"})
		}
	}
	return map[int]any{
		0x01: []string{"FIDO_2_0", "FIDO_2_1"},
		0x02: []string{"credProtect", "hmac-secret", "minPinLength"},
		0x03: k.aaguid[:],
		0x04: options,
		0x05: maxMessage,
		0x06: []int{2, 1},
		0x07: k.o.MaxListed,
		0x08: maxIDLength,
		0x09: k.o.Transports,
		0x0a: makes,
		0x0c: pin.change,
		0x0d: pin.least,
		0x0e: firmware,
		0x10: maxInformed,
		0x14: free,
	}
}

// firmware is the version that getInfo and CTAPHID_INIT tell.
const firmware = 1
