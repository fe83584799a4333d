package pkcs11_test

import (
	"crypto"
	"testing"

	"watchword/hsm"
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

// softokn unwraps by OAEP in every form, pads inside and takes short keys, so all
// seeds travel inside it. It answers a wrong RSA-1_5 ciphertext with random bytes.
func TestNSSTransportConforms(t *testing.T) {
	hsmtest.RunTransporter(t, func(t *testing.T) hsmtest.TransporterUnderTest {
		k, records := hsmtest.OpenNew(t, hsmtest.NSSToken(t))
		return hsmtest.TransporterUnderTest{
			TransportKeystore: k, Records: records, Resists: true,
			Inside: func(hsm.Hash, int) bool { return true },
			OAEP:   func(crypto.Hash, crypto.Hash, bool) bool { return true },
		}
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
