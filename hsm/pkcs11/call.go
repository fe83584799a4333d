package pkcs11

/*
#include "cryptoki.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/miekg/pkcs11"
)

// A handle names an object inside the HSM, in one epoch of the module.
type handle = C.ck_ulong

// A conn is one PKCS#11 session. PKCS#11 runs one operation a session, so a
// conn is used by one goroutine at a time, which holds module.inside. Its
// methods fail with an opError and draw no conclusion from it.
type conn struct {
	m *module
	h pkcs11.SessionHandle
	w *worker // counts the calls, so that one that hangs is noticed; may be nil
}

func (c conn) session() C.ck_ulong { return C.ck_ulong(c.h) }

func (c conn) tick() {
	if c.w != nil {
		c.w.calls.Add(1)
	}
}

// rv turns what a module returned into an error.
func rv(op string, code C.ck_ulong) error {
	if code == 0 {
		return nil
	}
	return opError(op, pkcs11.Error(code))
}

// login logs the user in. The token's login is the whole process's: where
// another Keystore on the token is logged in already, the PIN is not looked at.
func (c conn) login(pin []byte) error {
	code := C.ck_login(c.m.fn, c.session(), ptr(pin), C.ck_ulong(len(pin)))
	if code == pkcs11.CKR_USER_ALREADY_LOGGED_IN {
		return nil
	}
	return rv("C_Login", code)
}

// sign writes key's MAC or signature of in to out, which must be exactly as
// long as the mechanism's.
func (c conn) sign(mechanism uint, key handle, in, out []byte) error {
	c.tick()
	n := C.ck_ulong(len(out))
	if err := rv("C_Sign", C.ck_sign(c.m.fn, c.session(), C.ck_ulong(mechanism), key,
		ptr(in), C.ck_ulong(len(in)), ptr(out), &n)); err != nil {
		return err
	}
	if int(n) != len(out) {
		return fmt.Errorf("C_Sign: mechanism %#x made %d bytes instead of %d", mechanism, n, len(out))
	}
	return nil
}

// wrap wraps value as a generic secret under kek and answers the part of out
// that it used.
func (c conn) wrap(mechanism uint, kek handle, value, out []byte) ([]byte, error) {
	c.tick()
	c.m.made.Add(1)
	n := C.ck_ulong(len(out))
	if err := rv("C_WrapKey", C.ck_wrap(c.m.fn, c.session(), C.ck_ulong(mechanism), kek,
		ptr(value), C.ck_ulong(len(value)), ptr(out), &n)); err != nil {
		return nil, err
	}
	return out[:n:n], nil
}

// unwrap unwraps blob to a session key that is sensitive, private, not
// extractable, and can only sign.
func (c conn) unwrap(mechanism uint, kek handle, blob []byte) (handle, error) {
	c.tick()
	c.m.made.Add(1)
	var key handle
	err := rv("C_UnwrapKey", C.ck_unwrap(c.m.fn, c.session(), C.ck_ulong(mechanism), kek,
		ptr(blob), C.ck_ulong(len(blob)), &key))
	return key, err
}

// unwrapAES unwraps blob to an AES session key that is sensitive, private, not
// extractable, and can only decrypt.
func (c conn) unwrapAES(mechanism uint, kek handle, blob []byte) (handle, error) {
	c.tick()
	c.m.made.Add(1)
	var key handle
	err := rv("C_UnwrapKey", C.ck_unwrap_aes(c.m.fn, c.session(), C.ck_ulong(mechanism), kek,
		ptr(blob), C.ck_ulong(len(blob)), &key))
	return key, err
}

// decrypt writes the one block in, decrypted under key by AES-ECB, to out.
func (c conn) decrypt(key handle, in, out *[16]byte) error {
	c.tick()
	n := C.ck_ulong(len(out))
	if err := rv("C_Decrypt", C.ck_decrypt(c.m.fn, c.session(), key,
		ptr(in[:]), C.ck_ulong(len(in)), ptr(out[:]), &n)); err != nil {
		return err
	}
	if int(n) != len(out) {
		return fmt.Errorf("C_Decrypt: AES-ECB made %d bytes of %d", n, len(in))
	}
	return nil
}

// decryptRSA decrypts in by CKM_RSA_PKCS and answers the part of out that it
// used; out is as long as the modulus, which modules ask for. begun says whether
// an error may be about in.
func (c conn) decryptRSA(key handle, in, out []byte) (plain []byte, begun bool, err error) {
	c.tick()
	n, b := C.ck_ulong(len(out)), C.int(0)
	if err := rv("C_Decrypt", C.ck_decrypt_rsa(c.m.fn, c.session(), key,
		ptr(in), C.ck_ulong(len(in)), ptr(out), &n, &b)); err != nil {
		return nil, b != 0, err
	}
	if uint64(n) > uint64(len(out)) {
		return nil, true, fmt.Errorf("C_Decrypt: %d bytes in the place of %d", n, len(out))
	}
	return out[:n:n], true, nil
}

// take unwraps what was encrypted to an RSA key to a session key that can be
// wrapped again. It is sensitive unless readable. How it was encrypted says in.
func (c conn) take(in rsaWrap, key handle, ciphertext []byte, readable bool) (handle, error) {
	c.tick()
	c.m.made.Add(1)
	var object handle
	open := C.int(0)
	if readable {
		open = 1
	}
	err := rv("C_UnwrapKey", C.ck_take(c.m.fn, c.session(), key, C.ck_ulong(in.hash), C.ck_ulong(in.mgf),
		ptr(in.label), C.ck_ulong(len(in.label)), ptr(ciphertext), C.ck_ulong(len(ciphertext)), open, &object))
	return object, err
}

// concatenate makes a session key of object's value and then data.
func (c conn) concatenate(object handle, data []byte) (handle, error) {
	c.tick()
	c.m.made.Add(1)
	var longer handle
	err := rv("C_DeriveKey", C.ck_concatenate(c.m.fn, c.session(), object, ptr(data), C.ck_ulong(len(data)), &longer))
	return longer, err
}

// wrapObject wraps object under kek and answers the part of out that it used.
func (c conn) wrapObject(mechanism uint, kek, object handle, out []byte) ([]byte, error) {
	c.tick()
	n := C.ck_ulong(len(out))
	if err := rv("C_WrapKey", C.ck_wrap_object(c.m.fn, c.session(), C.ck_ulong(mechanism), kek, object, ptr(out), &n)); err != nil {
		return nil, err
	}
	if int(n) > len(out) {
		return nil, fmt.Errorf("C_WrapKey: %d bytes in the place of %d", n, len(out))
	}
	return out[:n:n], nil
}

// generate makes a generic secret of n random bytes, as a session key that can be
// read and wrapped.
func (c conn) generate(n int) (handle, error) {
	c.tick()
	c.m.made.Add(1)
	var object handle
	err := rv("C_GenerateKey", C.ck_generate(c.m.fn, c.session(), C.ck_ulong(n), &object))
	return object, err
}

// random fills out with random bytes of the module's.
func (c conn) random(out []byte) error {
	c.tick()
	return rv("C_GenerateRandom", C.ck_random(c.m.fn, c.session(), ptr(out), C.ck_ulong(len(out))))
}

// valueLen is object's CKA_VALUE_LEN; SoftHSM 2.6 says 0 of a key that was
// unwrapped.
func (c conn) valueLen(object handle) (int, error) {
	c.tick()
	var n C.ck_ulong
	err := rv("C_GetAttributeValue", C.ck_value_len(c.m.fn, c.session(), object, &n))
	return int(n), err
}

// value reads the value of an object that is not sensitive and answers the part
// of out that it used.
func (c conn) value(object handle, out []byte) ([]byte, error) {
	c.tick()
	n := C.ck_ulong(len(out))
	if err := rv("C_GetAttributeValue", C.ck_value(c.m.fn, c.session(), object, ptr(out), &n)); err != nil {
		return nil, err
	}
	if uint64(n) > uint64(len(out)) {
		return nil, fmt.Errorf("C_GetAttributeValue: a value longer than %d bytes", len(out))
	}
	return out[:n:n], nil
}

// digestKey writes SHA-256 of object's value and then data to out.
func (c conn) digestKey(object handle, data []byte, out *[32]byte) error {
	c.tick()
	n := C.ck_ulong(len(out))
	if err := rv("C_DigestKey", C.ck_digest_key(c.m.fn, c.session(), pkcs11.CKM_SHA256, object,
		ptr(data), C.ck_ulong(len(data)), ptr(out[:]), &n)); err != nil {
		return err
	}
	if int(n) != len(out) {
		return fmt.Errorf("C_DigestFinal: SHA-256 made %d bytes", n)
	}
	return nil
}

// destroy destroys an object.
func (c conn) destroy(object handle) error {
	c.tick()
	return rv("C_DestroyObject", C.ck_destroy(c.m.fn, c.session(), object))
}

// gcm encrypts or decrypts in to out and answers the part of out that it used.
// A module that insists on its own IV writes it to iv. begun says whether an error
// may be about in.
func (c conn) gcm(encrypt bool, key handle, iv, aad, in, out []byte) (used []byte, begun bool, err error) {
	c.tick()
	op, enc := "C_Decrypt", C.int(0)
	if encrypt {
		op, enc = "C_Encrypt", 1
	}
	n, b := C.ck_ulong(len(out)), C.int(0)
	if err := rv(op, C.ck_gcm(c.m.fn, c.session(), key, enc, ptr(iv), C.ck_ulong(len(iv)),
		ptr(aad), C.ck_ulong(len(aad)), ptr(in), C.ck_ulong(len(in)), ptr(out), &n, &b)); err != nil {
		return nil, b != 0, err
	}
	return out[:n:n], true, nil
}

// zero is what ptr points at for an empty slice: some modules refuse NULL.
var zero [1]byte

func ptr(b []byte) *C.uchar {
	if len(b) == 0 {
		return (*C.uchar)(unsafe.Pointer(&zero[0]))
	}
	return (*C.uchar)(unsafe.Pointer(&b[0]))
}
