package pkcs11

/*
#cgo linux LDFLAGS: -ldl
#cgo noescape ck_login
#cgo nocallback ck_login
#cgo noescape ck_sign
#cgo nocallback ck_sign
#cgo noescape ck_wrap
#cgo nocallback ck_wrap
#cgo noescape ck_unwrap
#cgo nocallback ck_unwrap
#cgo noescape ck_destroy
#cgo nocallback ck_destroy
#cgo noescape ck_take
#cgo nocallback ck_take
#cgo noescape ck_concatenate
#cgo nocallback ck_concatenate
#cgo noescape ck_wrap_object
#cgo nocallback ck_wrap_object
#cgo noescape ck_generate
#cgo nocallback ck_generate
#cgo noescape ck_random
#cgo nocallback ck_random
#cgo noescape ck_value_len
#cgo nocallback ck_value_len
#cgo noescape ck_value
#cgo nocallback ck_value
#cgo noescape ck_digest_key
#cgo nocallback ck_digest_key
#cgo noescape ck_gcm
#cgo nocallback ck_gcm
#include <stdlib.h>
#include "cryptoki.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// A module is a PKCS#11 library in this process. PKCS#11 knows one C_Initialize
// and one login per process, whatever the number of Keystores on top, so
// modules are shared: the first Keystore initialises, the last one finalises,
// and one that must start the module anew does so for all.
type module struct {
	path string
	args string // library parameters of C_Initialize, for modules that take any

	p11 *pkcs11.Ctx     // all calls that are not hot
	fn  *C.ck_functions // the same module's table, for cryptoki.c

	// inside is held for reading around every call into the module and for
	// writing while handles may lose their meaning: C_Initialize, C_Finalize,
	// opening and closing sessions, making token objects. So no operation runs
	// while C_Finalize does, no session is opened while another closes, and no
	// token object appears during a search.
	inside sync.RWMutex

	// epoch, guarded by inside, counts how often all handles lost their
	// meaning. A handle is used only in the epoch that it was made in: a module
	// that starts anew gives the same numbers to other keys.
	epoch uint64

	// made counts the session objects made since C_Initialize.
	made atomic.Int64

	// Changed only with both modules and inside held.
	users       int
	initialized bool
	foreign     bool // another part of the process had initialised it; never finalised by us
	leaks       bool // it keeps something of each session object until C_Finalize
}

// modules are all that were ever loaded, by path. They are never unloaded.
var modules = struct {
	sync.Mutex
	byPath map[string]*module
}{byPath: map[string]*module{}}

// acquireModule loads and initialises the module, or shares it. Each
// acquireModule asks for one release.
func acquireModule(path, args string) (*module, error) {
	if path == "" {
		return nil, errors.New("no PKCS#11 module is configured")
	}
	if abs, err := filepath.Abs(path); err == nil && filepath.Base(path) != path {
		path = abs
	}
	modules.Lock()
	defer modules.Unlock()
	m := modules.byPath[path]
	if m == nil {
		m = &module{path: path, args: args}
		cpath := C.CString(path)
		defer C.free(unsafe.Pointer(cpath))
		var why *C.char
		if m.fn = C.ck_load(cpath, &why); m.fn == nil {
			return nil, fmt.Errorf("load PKCS#11 module %s: %s", path, C.GoString(why))
		}
		if other := sameLibrary(m.fn); other != nil {
			m = other
		} else if m.p11 = pkcs11.New(path); m.p11 == nil {
			return nil, fmt.Errorf("load PKCS#11 module %s: it cannot be opened", path)
		}
		modules.byPath[path] = m
	}
	if m.args != args && m.users > 0 {
		return nil, fmt.Errorf("PKCS#11 module %s is in use with other library parameters", path)
	}
	m.args = args
	m.inside.Lock()
	defer m.inside.Unlock()
	if !m.initialized {
		if err := m.initialize(); err != nil {
			return nil, err
		}
		m.epoch++
		m.initialized = true
		info, err := m.p11.GetInfo()
		m.leaks = err == nil && strings.HasPrefix(info.ManufacturerID, "SoftHSM")
	}
	m.users++
	return m, nil
}

// sameLibrary finds the module that was loaded by another path to the same file.
// modules is locked.
func sameLibrary(fn *C.ck_functions) *module {
	for _, m := range modules.byPath {
		if m.fn == fn {
			return m
		}
	}
	return nil
}

// release finalises the module when its last user is gone. The caller's
// sessions are closed.
func (m *module) release() {
	modules.Lock()
	defer modules.Unlock()
	m.inside.Lock()
	defer m.inside.Unlock()
	m.users--
	if m.users > 0 || m.foreign {
		return
	}
	m.epoch++
	m.initialized = false
	// An error here would be about a module that nobody uses.
	_ = m.p11.Finalize()
}

// initialize calls C_Initialize. inside is held for writing.
func (m *module) initialize() error {
	var opts []pkcs11.InitializeOption
	if m.args != "" {
		// NSS reads a string where the specification has pReserved.
		p := C.CString(m.args)
		defer C.free(unsafe.Pointer(p))
		opts = append(opts, pkcs11.InitializeWithReserved(unsafe.Pointer(p)))
	}
	err := m.p11.Initialize(opts...)
	if isRV(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		m.foreign = !m.initialized
		return nil
	}
	if err != nil {
		return opError("C_Initialize", err)
	}
	m.foreign = false
	m.made.Store(0)
	return nil
}

// reset finalises and initialises the module anew. All handles of all
// Keystores on it lose their meaning. inside is held for writing.
func (m *module) reset() error {
	m.epoch++
	if m.foreign {
		return nil
	}
	// C_Finalize of a module that is already down fails, and that is fine.
	_ = m.p11.Finalize()
	return m.initialize()
}

// invalidate declares all handles of epoch void, unless that happened already.
// inside is held for writing.
func (m *module) invalidate(epoch uint64) (first bool) {
	if m.epoch != epoch {
		return false
	}
	m.epoch++
	return true
}
