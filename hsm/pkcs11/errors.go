package pkcs11

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// opError says which PKCS#11 function failed with what.
func opError(op string, err error) error {
	return fmt.Errorf("%s: %w", op, err)
}

// isRV says whether err is one of the return values.
func isRV(err error, codes ...pkcs11.Error) bool {
	var e pkcs11.Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e == c {
			return true
		}
	}
	return false
}

// isPIN says whether the HSM refused the PIN. Trying again would lock it.
func isPIN(err error) bool {
	return isRV(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE,
		pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_LOCKED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED)
}

// isFull says whether the HSM has no room for another session key.
func isFull(err error) bool {
	return isRV(err, pkcs11.CKR_DEVICE_MEMORY, pkcs11.CKR_HOST_MEMORY)
}

// isOtherKey says that a handle names a key of another kind than expected. Of a
// key that was proven, that puts all handles in doubt.
func isOtherKey(err error) bool {
	return isRV(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED, pkcs11.CKR_KEY_TYPE_INCONSISTENT,
		pkcs11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT, pkcs11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT)
}

// isLost says whether err puts the sessions and handles in doubt. The list is
// of what does not: return values that are about the call's arguments. All
// others, the vendors' own among them, are taken for a lost HSM, because a pool
// that is rebuilt without need costs milliseconds and a stale handle costs an
// answer with another token's codes.
func isLost(err error) bool {
	var e pkcs11.Error
	if !errors.As(err, &e) || errors.Is(err, hsm.ErrKeyMismatch) || errors.Is(err, hsm.ErrUnsupported) {
		return false
	}
	switch e {
	case pkcs11.CKR_ARGUMENTS_BAD,
		pkcs11.CKR_ATTRIBUTE_READ_ONLY,
		pkcs11.CKR_ATTRIBUTE_SENSITIVE,
		pkcs11.CKR_ATTRIBUTE_TYPE_INVALID,
		pkcs11.CKR_ATTRIBUTE_VALUE_INVALID,
		pkcs11.CKR_BUFFER_TOO_SMALL,
		pkcs11.CKR_DATA_INVALID,
		pkcs11.CKR_DATA_LEN_RANGE,
		pkcs11.CKR_DEVICE_MEMORY,
		pkcs11.CKR_ENCRYPTED_DATA_INVALID,
		pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE,
		pkcs11.CKR_HOST_MEMORY,
		pkcs11.CKR_KEY_NOT_WRAPPABLE,
		pkcs11.CKR_KEY_SIZE_RANGE,
		pkcs11.CKR_KEY_UNEXTRACTABLE,
		pkcs11.CKR_MECHANISM_INVALID,
		pkcs11.CKR_MECHANISM_PARAM_INVALID,
		pkcs11.CKR_SIGNATURE_INVALID,
		pkcs11.CKR_SIGNATURE_LEN_RANGE,
		pkcs11.CKR_TEMPLATE_INCOMPLETE,
		pkcs11.CKR_TEMPLATE_INCONSISTENT,
		pkcs11.CKR_UNWRAPPING_KEY_SIZE_RANGE,
		pkcs11.CKR_WRAPPED_KEY_INVALID,
		pkcs11.CKR_WRAPPED_KEY_LEN_RANGE,
		pkcs11.CKR_WRAPPING_KEY_SIZE_RANGE:
		return false
	}
	return true
}

// unable says that err is about what the module can do with a key, and about
// nothing that may pass. Return values that otherwise put handles in doubt may
// be named beside.
func unable(err error, beside ...pkcs11.Error) bool {
	return isRV(err, beside...) || !isLost(err) && !isFull(err)
}

// ill makes sure that an error after which the HSM is not to be trusted counts
// as a loss of it.
func ill(err error) error {
	if isLost(err) {
		return err
	}
	return fmt.Errorf("the HSM does not do what it did before (%v): %w", err, pkcs11.Error(pkcs11.CKR_KEY_CHANGED))
}

// unavailable is what callers get while the HSM cannot answer.
func unavailable(cause error) error {
	if cause == nil {
		return hsm.ErrUnavailable
	}
	if errors.Is(cause, hsm.ErrUnavailable) {
		return cause
	}
	return fmt.Errorf("%w: %w", hsm.ErrUnavailable, cause)
}
