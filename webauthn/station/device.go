package station

/*
#cgo pkg-config: libfido2
#include <fido.h>
#include <fido/config.h>
#include <fido/credman.h>
#include <stdlib.h>
#include "hid.h"

static const fido_dev_io_t reports = {hid_open, hid_close, hid_read, hid_write};

static int device_open(fido_dev_t *dev, const char *path) {
	int r = fido_dev_set_io_functions(dev, &reports);
	return r == FIDO_OK ? fido_dev_open(dev, path) : r;
}

static const char *list_at(char **list, size_t i) { return list[i]; }
static bool option_at(const bool *list, size_t i) { return list[i]; }
*/
import "C"

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"
)

var initOnce sync.Once

// Device is a key that is open. It is used by one goroutine at a time.
type Device struct {
	dev  *C.fido_dev_t
	path string
}

// Open opens the key at a device's path. Nobody else can use it meanwhile, as long as
// they lock it as libfido2 does.
func Open(path string) (*Device, error) {
	initOnce.Do(func() { C.fido_init(0) })
	dev := C.fido_dev_new()
	if dev == nil {
		return nil, fault("open the key", int(C.FIDO_ERR_INTERNAL))
	}
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if r := C.device_open(dev, name); r != C.FIDO_OK {
		C.fido_dev_free(&dev)
		return nil, fault("open the key at "+path, int(r))
	}
	d := &Device{dev: dev, path: path}
	d.patience(answerTimeout)
	return d, nil
}

// Close lets the key go. It may be called again.
func (d *Device) Close() {
	if d.dev != nil {
		C.fido_dev_close(d.dev)
		C.fido_dev_free(&d.dev)
	}
}

// Info is what a key says of itself (authenticatorGetInfo, CTAP 2.1, section 6.4).
type Info struct {
	AAGUID     [16]byte        `json:"-"`
	Model      string          `json:"aaguid"`             // the AAGUID, 8-4-4-4-12
	Versions   []string        `json:"versions"`           // FIDO_2_0, FIDO_2_1, U2F_V2, ...
	Extensions []string        `json:"extensions"`         // credProtect, ...
	Options    map[string]bool `json:"options"`            // clientPin, ep, alwaysUv, ...
	Transports []string        `json:"transports"`         // usb, nfc, ...; none: it does not say
	MinPIN     int             `json:"min_pin"`            // characters
	Firmware   uint64          `json:"firmware,omitempty"` // as the maker counts
	PINDue     bool            `json:"pin_due"`            // it must be changed before it is good for anything
	Retries    int             `json:"pin_retries"`        // left, before the PIN is blocked; -1: there is no PIN
}

// Has says whether the key names an option at all, On whether it is on.
func (i *Info) Has(option string) bool { _, ok := i.Options[option]; return ok }

// On says whether an option is there and on.
func (i *Info) On(option string) bool { return i.Options[option] }

// Info asks the key what it is.
func (d *Device) Info() (*Info, error) {
	const doing = "ask the key what it is"
	if !bool(C.fido_dev_is_fido2(d.dev)) {
		return nil, &KeyError{Doing: doing, Why: "it speaks U2F only, which knows no PIN and no users", Code: int(C.FIDO_ERR_INVALID_COMMAND)}
	}
	ci := C.fido_cbor_info_new()
	defer C.fido_cbor_info_free(&ci)
	if r := C.fido_dev_get_cbor_info(d.dev, ci); r != C.FIDO_OK {
		return nil, fault(doing, int(r))
	}
	i := &Info{Options: map[string]bool{}, Retries: -1}
	if copy(i.AAGUID[:], octets(C.fido_cbor_info_aaguid_ptr(ci), C.fido_cbor_info_aaguid_len(ci))) != len(i.AAGUID) {
		return nil, &KeyError{Doing: doing, Why: "its AAGUID is not one", Code: int(C.FIDO_ERR_RX_INVALID_CBOR)}
	}
	i.Model = formatAAGUID(i.AAGUID)
	for n := range C.fido_cbor_info_versions_len(ci) {
		i.Versions = append(i.Versions, C.GoString(C.list_at(C.fido_cbor_info_versions_ptr(ci), n)))
	}
	for n := range C.fido_cbor_info_extensions_len(ci) {
		i.Extensions = append(i.Extensions, C.GoString(C.list_at(C.fido_cbor_info_extensions_ptr(ci), n)))
	}
	for n := range C.fido_cbor_info_transports_len(ci) {
		i.Transports = append(i.Transports, C.GoString(C.list_at(C.fido_cbor_info_transports_ptr(ci), n)))
	}
	for n := range C.fido_cbor_info_options_len(ci) {
		name := C.GoString(C.list_at(C.fido_cbor_info_options_name_ptr(ci), n))
		i.Options[name] = bool(C.option_at(C.fido_cbor_info_options_value_ptr(ci), n))
	}
	i.MinPIN = max(int(C.fido_cbor_info_minpinlen(ci)), 4)
	i.Firmware = uint64(C.fido_cbor_info_fwversion(ci))
	i.PINDue = bool(C.fido_cbor_info_new_pin_required(ci))
	if i.On("clientPin") {
		var left C.int
		if r := C.fido_dev_get_retry_count(d.dev, &left); r != C.FIDO_OK {
			return nil, fault("ask how often the PIN can be tried", int(r))
		}
		i.Retries = int(left)
	}
	return i, nil
}

// SetPIN gives the key its first PIN, or where old is not nil another one.
func (d *Device) SetPIN(pin, old *Secret) error {
	r := C.fido_dev_set_pin(d.dev, pin.c(), old.c())
	runtime.KeepAlive(pin)
	runtime.KeepAlive(old)
	return fault("set the PIN", int(r))
}

// ForcePINChange has the key accept nothing with its PIN but another PIN.
func (d *Device) ForcePINChange(pin *Secret) error {
	defer runtime.KeepAlive(pin)
	return fault("have the PIN changed at first use", int(C.fido_dev_force_pin_change(d.dev, pin.c())))
}

// SetMinPIN sets the least length of PINs, which can only grow.
func (d *Device) SetMinPIN(n int, pin *Secret) error {
	defer runtime.KeepAlive(pin)
	return fault("set the least length of PINs", int(C.fido_dev_set_pin_minlen(d.dev, C.size_t(n), pin.c())))
}

// EnableEnterprise lets the key tell its serial number to relying parties that its
// vendor named.
func (d *Device) EnableEnterprise(pin *Secret) error {
	defer runtime.KeepAlive(pin)
	return fault("enable enterprise attestation", int(C.fido_dev_enable_entattest(d.dev, pin.c())))
}

// ToggleAlwaysUV has the key ask for its PIN whatever it is used for, or no longer.
func (d *Device) ToggleAlwaysUV(pin *Secret) error {
	defer runtime.KeepAlive(pin)
	return fault("have the PIN always asked for", int(C.fido_dev_toggle_always_uv(d.dev, pin.c())))
}

// Reset makes the key as it left the factory: all credentials and the PIN go. Keys
// allow it within seconds of being plugged in, and want to be touched.
func (d *Device) Reset(ctx context.Context) error {
	d.patience(touchTimeout)
	defer d.patience(answerTimeout)
	defer d.cancels(ctx)()
	return fault("reset the key", int(C.fido_dev_reset(d.dev)))
}

// Held is a resident credential on a key.
type Held struct {
	RPID string `json:"rp_id"`
	ID   []byte `json:"id"`
	User string `json:"user"`
}

// Credentials lists the resident credentials, of one relying party or with an empty
// name of all.
func (d *Device) Credentials(pin *Secret, rpID string) ([]Held, error) {
	const doing = "list the key's credentials"
	defer runtime.KeepAlive(pin)
	parties := []string{rpID}
	if rpID == "" {
		rp := C.fido_credman_rp_new()
		defer C.fido_credman_rp_free(&rp)
		if r := C.fido_credman_get_dev_rp(d.dev, rp, pin.c()); r == C.FIDO_ERR_NO_CREDENTIALS {
			return nil, nil
		} else if r != C.FIDO_OK {
			return nil, fault(doing, int(r))
		}
		parties = nil
		for i := range C.fido_credman_rp_count(rp) {
			parties = append(parties, C.GoString(C.fido_credman_rp_id(rp, i)))
		}
	}
	var list []Held
	for _, name := range parties {
		err := func() error {
			rk := C.fido_credman_rk_new()
			defer C.fido_credman_rk_free(&rk)
			id := C.CString(name)
			defer C.free(unsafe.Pointer(id))
			if r := C.fido_credman_get_dev_rk(d.dev, id, rk, pin.c()); r == C.FIDO_ERR_NO_CREDENTIALS {
				return nil
			} else if r != C.FIDO_OK {
				return fault(doing, int(r))
			}
			for i := range C.fido_credman_rk_count(rk) {
				c := C.fido_credman_rk(rk, i)
				list = append(list, Held{
					RPID: name, User: C.GoString(C.fido_cred_user_name(c)),
					ID: slices.Clone(octets(C.fido_cred_id_ptr(c), C.fido_cred_id_len(c))),
				})
			}
			return nil
		}()
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Delete deletes a resident credential.
func (d *Device) Delete(id []byte, pin *Secret) error {
	const doing = "delete the credential"
	if len(id) == 0 {
		return fault(doing, int(C.FIDO_ERR_INVALID_ARGUMENT))
	}
	defer runtime.KeepAlive(pin)
	return fault(doing, int(C.fido_credman_del_dev_rk(d.dev, (*C.uchar)(&id[0]), C.size_t(len(id)), pin.c())))
}

// Creation is what a credential is made by.
type Creation struct {
	RPID, RPName      string
	UserID            []byte
	UserName, Display string
	ClientDataHash    [32]byte
	Algorithms        []int // COSE, best first: the first that libfido2 knows is asked for
	Exclude           [][]byte
	Resident          bool
	Protect           int // level of credProtect, zero for none
	Enterprise        bool
}

// Created is a new credential with its attestation.
type Created struct {
	ID        []byte
	Format    string
	AuthData  []byte // as it was signed
	Statement []byte // CBOR, as the key said it
}

// How long is waited for a key: to answer, and to be touched.
const (
	answerTimeout = 10 * time.Second
	touchTimeout  = time.Minute
)

func (d *Device) patience(t time.Duration) { C.fido_dev_set_timeout(d.dev, C.int(t.Milliseconds())) }

// MakeCredential makes a credential. The key wants to be touched.
func (d *Device) MakeCredential(ctx context.Context, m *Creation, pin *Secret) (*Created, error) {
	const doing = "make a credential"
	cred := C.fido_cred_new()
	if cred == nil {
		return nil, fault(doing, int(C.FIDO_ERR_INTERNAL))
	}
	defer C.fido_cred_free(&cred)
	var strings []*C.char
	text := func(s string) *C.char {
		c := C.CString(s)
		strings = append(strings, c)
		return c
	}
	defer func() {
		for _, c := range strings {
			C.free(unsafe.Pointer(c))
		}
	}()
	resident := C.fido_opt_t(C.FIDO_OPT_FALSE)
	if m.Resident {
		resident = C.FIDO_OPT_TRUE
	}
	if len(m.UserID) == 0 {
		return nil, fault(doing, int(C.FIDO_ERR_INVALID_ARGUMENT))
	}
	r := C.int(C.FIDO_ERR_UNSUPPORTED_ALGORITHM)
	for _, alg := range m.Algorithms {
		if r = C.fido_cred_set_type(cred, C.int(alg)); r == C.FIDO_OK {
			break
		}
	}
	for _, step := range []func() C.int{
		func() C.int { return r },
		func() C.int { return C.fido_cred_set_rp(cred, text(m.RPID), text(m.RPName)) },
		func() C.int {
			return C.fido_cred_set_user(cred, (*C.uchar)(&m.UserID[0]), C.size_t(len(m.UserID)), text(m.UserName), text(m.Display), nil)
		},
		func() C.int {
			return C.fido_cred_set_clientdata_hash(cred, (*C.uchar)(&m.ClientDataHash[0]), C.size_t(len(m.ClientDataHash)))
		},
		func() C.int { return C.fido_cred_set_rk(cred, resident) },
		func() C.int {
			if m.Protect == 0 {
				return C.FIDO_OK
			}
			if r := C.fido_cred_set_extensions(cred, C.FIDO_EXT_CRED_PROTECT); r != C.FIDO_OK {
				return r
			}
			return C.fido_cred_set_prot(cred, C.int(m.Protect))
		},
	} {
		if r := step(); r != C.FIDO_OK {
			return nil, fault(doing, int(r))
		}
	}
	for _, id := range m.Exclude {
		if len(id) > 0 {
			if r := C.fido_cred_exclude(cred, (*C.uchar)(&id[0]), C.size_t(len(id))); r != C.FIDO_OK {
				return nil, fault(doing, int(r))
			}
		}
	}
	level := C.int(0)
	if m.Enterprise {
		level = 1
	}
	C.hid_enterprise(C.fido_dev_io_handle(d.dev), level)
	d.patience(touchTimeout)
	defer d.patience(answerTimeout)
	defer d.cancels(ctx)()
	r = C.fido_dev_make_cred(d.dev, cred, pin.c())
	runtime.KeepAlive(pin)
	if r != C.FIDO_OK {
		return nil, fault(doing, int(r))
	}
	made := &Created{
		Format:    C.GoString(C.fido_cred_fmt(cred)),
		ID:        slices.Clone(octets(C.fido_cred_id_ptr(cred), C.fido_cred_id_len(cred))),
		AuthData:  slices.Clone(octets(C.fido_cred_authdata_raw_ptr(cred), C.fido_cred_authdata_raw_len(cred))),
		Statement: slices.Clone(octets(C.fido_cred_attstmt_ptr(cred), C.fido_cred_attstmt_len(cred))),
	}
	if len(made.Statement) == 0 { // of format none
		made.Statement = []byte{0xa0}
	}
	return made, nil
}

// cancels tells the key that nobody waits any more once ctx ends, until the answer is
// called.
func (d *Device) cancels(ctx context.Context) (stop func()) {
	done := make(chan struct{})
	after := context.AfterFunc(ctx, func() {
		C.fido_dev_cancel(d.dev)
		close(done)
	})
	return func() {
		if !after() {
			<-done
		}
	}
}

// octets are bytes of libfido2's, as long as it keeps them.
func octets(p *C.uchar, n C.size_t) []byte {
	if p == nil || n == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(p), int(n))
}

// c is the PIN for C; nil for none.
func (s *Secret) c() *C.char {
	if s == nil || s.page == nil {
		return nil
	}
	return (*C.char)(unsafe.Pointer(&s.page[0]))
}

// Keys lists the keys on USB.
func Keys() ([]Key, error) {
	initOnce.Do(func() { C.fido_init(0) })
	const most = 64
	list := C.fido_dev_info_new(most)
	if list == nil {
		return nil, fault("list the keys", int(C.FIDO_ERR_INTERNAL))
	}
	defer C.fido_dev_info_free(&list, most)
	var n C.size_t
	if r := C.fido_dev_info_manifest(list, most, &n); r != C.FIDO_OK {
		return nil, fault("list the keys", int(r))
	}
	keys := make([]Key, 0, n)
	for i := range n {
		k := C.fido_dev_info_ptr(list, i)
		keys = append(keys, Key{
			Path:  C.GoString(C.fido_dev_info_path(k)),
			Maker: C.GoString(C.fido_dev_info_manufacturer_string(k)),
			Name:  C.GoString(C.fido_dev_info_product_string(k)),
			USB:   fmt.Sprintf("%04x:%04x", uint16(C.fido_dev_info_vendor(k)), uint16(C.fido_dev_info_product(k))),
		})
	}
	return keys, nil
}

// fault is the error of a code that libfido2 answered; nil for none.
func fault(doing string, code int) error {
	if code == C.FIDO_OK {
		return nil
	}
	e := &KeyError{Doing: doing, Code: code, Why: C.GoString(C.fido_strerr(C.int(code)))}
	if why, ok := faults[code]; ok {
		e.Why = why
	}
	return e
}
