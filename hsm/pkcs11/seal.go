package pkcs11

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// A sealed secret is
//
//	1 byte    format, 1
//	4 bytes   version of the key "secrets", big-endian
//	12 bytes  nonce
//	n bytes   AES-256-GCM ciphertext
//	16 bytes  tag
//
// where the associated data is the first five bytes and then the context.
const (
	sealFormat = 1
	sealHeader = 5
	gcmNonce   = 12
	gcmTag     = 16
)

// Seal encrypts plaintext; what it answers is 33 bytes longer.
func (k *Keystore) Seal(ctx context.Context, plaintext, context []byte) ([]byte, error) {
	g, err := k.current(ctx)
	if err != nil {
		return nil, fmt.Errorf("seal a secret: %w", err)
	}
	version := g.keys.secretsNow
	header := binary.BigEndian.AppendUint32([]byte{sealFormat}, version)
	aad := append(bytes.Clone(header), context...)
	in := bytes.Clone(plaintext)
	nonce := make([]byte, gcmNonce)
	for allZero(nonce) {
		rand.Read(nonce)
	}
	var sealed []byte
	started, err := k.do(ctx, g, func(c conn, g *generation) error {
		defer clear(in)
		out, _, err := c.gcm(true, g.keys.secrets[version], nonce, aad, in, make([]byte, len(in)+gcmTag))
		if err != nil {
			return err
		}
		if len(out) != len(in)+gcmTag {
			return fmt.Errorf("C_Encrypt: AES-GCM made %d bytes of %d", len(out), len(in))
		}
		// The nonce is read after the call: an HSM may have put its own there.
		sealed = append(append(bytes.Clone(header), nonce...), out...)
		return nil
	})
	if !started {
		clear(in)
	}
	if err != nil {
		return nil, fmt.Errorf("seal a secret: %w", err)
	}
	return sealed, nil
}

// Open decrypts what Seal made with the same context, or fails with
// hsm.ErrTampered.
func (k *Keystore) Open(ctx context.Context, sealed, context []byte) ([]byte, error) {
	g, err := k.current(ctx)
	if err != nil {
		return nil, fmt.Errorf("open a secret: %w", err)
	}
	if len(sealed) < sealHeader+gcmNonce+gcmTag || sealed[0] != sealFormat {
		return nil, fmt.Errorf("open a secret: %w", hsm.ErrTampered)
	}
	version := binary.BigEndian.Uint32(sealed[1:])
	if _, ok := g.keys.secrets[version]; !ok {
		return nil, fmt.Errorf("open a secret: sealed under version %d of the key, which is not attached: %w", version, hsm.ErrTampered)
	}
	aad := append(bytes.Clone(sealed[:sealHeader]), context...)
	nonce := bytes.Clone(sealed[sealHeader : sealHeader+gcmNonce])
	in := bytes.Clone(sealed[sealHeader+gcmNonce:])
	var plaintext []byte
	_, err = k.do(ctx, g, func(c conn, g *generation) error {
		key := g.keys.secrets[version]
		for attempt := 1; ; attempt++ {
			out := make([]byte, len(in))
			opened, begun, err := c.gcm(false, key, nonce, aad, in, out)
			if err == nil {
				plaintext = opened
				return nil
			}
			clear(out)
			if !begun {
				// It has not seen the ciphertext yet, which is not to blame.
				return ill(err)
			}
			if !isRV(err, wrongTag...) {
				return err
			}
			if attempt == 2 {
				return hsm.ErrTampered
			}
			// Modules do not agree on how a wrong tag is called; SoftHSM's
			// word for it is also that for a failure. So ask for something
			// that must work, and once more: the ciphertext is to blame only
			// if the HSM is well.
			var mac [32]byte
			if err := c.sign(pkcs11.CKM_SHA256_HMAC, g.keys.binding, []byte("watchword probe"), mac[:]); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("open a secret: %w", err)
	}
	return plaintext, nil
}

// wrongTag are the return values by which modules say that a ciphertext does
// not have the right tag.
var wrongTag = []pkcs11.Error{
	pkcs11.CKR_ENCRYPTED_DATA_INVALID,
	pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE,
	pkcs11.CKR_DATA_INVALID,
	pkcs11.CKR_SIGNATURE_INVALID,
	pkcs11.CKR_GENERAL_ERROR,
	pkcs11.CKR_FUNCTION_FAILED,
	0x35, // CKR_AEAD_DECRYPT_FAILED of PKCS#11 v3.0
}
