package pkcs11_test

import (
	"testing"

	"watchword/hsm/hsmtest"
)

// NSS's softokn (3.87 of Debian 12 and later) has all that is needed under the
// numbers of the specification: CKM_AES_KEY_WRAP_KWP (0x210B), the three HMACs,
// AES-GCM and ECDSA. So the whole suite must pass on it.
func TestNSSConforms(t *testing.T) {
	hsmtest.Run(t, func(t *testing.T) hsmtest.KeystoreUnderTest {
		k, records := hsmtest.OpenNew(t, hsmtest.NSSToken(t))
		return hsmtest.KeystoreUnderTest{Keystore: k, Records: records}
	})
}

func TestNSSWrapsByTheStandardNumber(t *testing.T) {
	k, _ := hsmtest.OpenNew(t, hsmtest.NSSToken(t))
	token, err := k.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if token.Wrapping != 0x210B || token.WrappingName != "aes-kwp" {
		t.Errorf("NSS wraps by %#x, called %q", token.Wrapping, token.WrappingName)
	}
	t.Logf("%+v", token)
}
