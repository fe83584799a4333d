package pkcs11_test

import (
	"context"
	"testing"

	"watchword/hsm/hsmtest"
)

func TestSoftHSMPassesSelfTest(t *testing.T) {
	k, _ := hsmtest.SoftHSM(t)
	if err := k.SelfTest(context.Background()); err != nil {
		t.Fatal(err)
	}
}
