package pkcs11_test

import (
	"context"
	"errors"
	"testing"
	"time"

	p11 "github.com/miekg/pkcs11"

	"watchword/hsm"
	"watchword/hsm/hsmtest"
	"watchword/hsm/pkcs11"
)

// TestOpenWaitsOutWhatPasses: SoftHSM fails for a moment while another process
// logs in to the same token; a start must not.
func TestOpenWaitsOutWhatPasses(t *testing.T) {
	for _, f := range []struct {
		function string
		rv       uint
	}{
		{"C_GetTokenInfo", p11.CKR_GENERAL_ERROR},
		{"C_OpenSession", p11.CKR_TOKEN_NOT_RECOGNIZED},
		{"C_Login", p11.CKR_GENERAL_ERROR},
	} {
		t.Run(f.function, func(t *testing.T) {
			config, control := hsmtest.ShimToken(t)
			control.Fail(f.rv, f.function)
			timer := time.AfterFunc(100*time.Millisecond, control.Clear)
			defer timer.Stop()
			k, err := pkcs11.Open(context.Background(), config)
			if err != nil {
				t.Fatal(err)
			}
			k.Close()
		})
	}
	t.Run("but not for ever", func(t *testing.T) {
		config, control := hsmtest.ShimToken(t)
		control.Fail(p11.CKR_GENERAL_ERROR, "C_OpenSession")
		if k, err := pkcs11.Open(context.Background(), config); err == nil {
			k.Close()
			t.Error("an HSM that fails was opened")
		}
	})
	t.Run("and never a PIN", func(t *testing.T) {
		config, control := hsmtest.ShimToken(t)
		config.PIN = pkcs11.FixedPIN([]byte("not the PIN"))
		before := control.Logins()
		if _, err := pkcs11.Open(context.Background(), config); !errors.Is(err, hsm.ErrPIN) {
			t.Errorf("a wrong PIN: %v", err)
		}
		if n := control.Logins() - before; n != 1 {
			t.Errorf("a wrong PIN was tried %d times", n)
		}
	})
}
