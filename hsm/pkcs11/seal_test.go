package pkcs11_test

import (
	"errors"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"watchword/hsm"
)

// A module that fails before it has seen a secret does not say that the secret was
// altered.
func TestAFaultBeforeASecretIsOpenedIsNotTheSecrets(t *testing.T) {
	for name, rv := range map[string]uint{
		"CKR_GENERAL_ERROR":   p11.CKR_GENERAL_ERROR,
		"CKR_FUNCTION_FAILED": p11.CKR_FUNCTION_FAILED,
		"CKR_DATA_INVALID":    p11.CKR_DATA_INVALID,
	} {
		t.Run(name, func(t *testing.T) {
			k, control := open(t, nil)
			sealed, err := k.Seal(t.Context(), []byte("secret"), []byte("row"))
			if err != nil {
				t.Fatal(err)
			}
			control.Fail(rv, "C_DecryptInit")
			if plain, err := k.Open(t.Context(), sealed, []byte("row")); !errors.Is(err, hsm.ErrUnavailable) || errors.Is(err, hsm.ErrTampered) || plain != nil {
				t.Errorf("%q, %v", plain, err)
			}
			control.Clear()
			for deadline := time.Now().Add(time.Minute); k.Ready() != nil; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal(k.Ready())
				}
			}
			if plain, err := k.Open(t.Context(), sealed, []byte("row")); err != nil || string(plain) != "secret" {
				t.Errorf("when it is back: %q, %v", plain, err)
			}
			if _, err := k.Open(t.Context(), sealed, []byte("another row")); !errors.Is(err, hsm.ErrTampered) {
				t.Errorf("in another row: %v", err)
			}
		})
	}
}
