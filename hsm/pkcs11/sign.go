package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"fmt"

	"github.com/miekg/pkcs11"
)

// Sign signs a SHA-256 digest with KeyAudit; the signature is r and s, 32 bytes
// each.
func (k *Keystore) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	if len(digest) != 32 {
		return nil, fmt.Errorf("sign: a digest of %d bytes, not SHA-256's 32", len(digest))
	}
	g, err := k.current(ctx)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	digest = bytes.Clone(digest)
	signature := make([]byte, 64)
	if _, err := k.do(ctx, g, func(c conn, g *generation) error {
		return c.sign(pkcs11.CKM_ECDSA, g.keys.audit, digest, signature)
	}); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return signature, nil
}

// PublicKey is KeyAudit's public key as it was attached, an *ecdsa.PublicKey,
// whether or not the HSM answers; nil until keys were attached.
func (k *Keystore) PublicKey() crypto.PublicKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.public == nil {
		return nil
	}
	return k.public
}
