package pkcs11

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// A pgpKey is a PGP key in one generation.
type pgpKey struct {
	version uint32
	key     handle
	public  *rsa.PublicKey
	made    time.Time

	// canary is proof encrypted to the key: what the HSM decrypts as long as it
	// is well.
	canary, proof []byte
}

// CreatePGP makes a PGP key.
func (k *Keystore) CreatePGP(ctx context.Context, version uint32, bits int) (hsm.KeyRecord, error) {
	if bits == 0 {
		bits = hsm.TransportBits
	}
	if bits < hsm.MinTransportBits || bits > hsm.MaxTransportBits || bits%1024 != 0 {
		return hsm.KeyRecord{}, fmt.Errorf("a PGP key has %d, 3072 or %d bits, not %d", hsm.MinTransportBits, hsm.MaxTransportBits, bits)
	}
	return k.create(ctx, hsm.KeyPGP, version, bits)
}

// PGPKeys are the PGP keys as attached, whether or not the HSM answers.
func (k *Keystore) PGPKeys() []hsm.PGPKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]hsm.PGPKey(nil), k.pgp...)
}

func (ks *keyset) pgpKeys() []hsm.PGPKey {
	var keys []hsm.PGPKey
	for _, t := range ks.pgp {
		keys = append(keys, hsm.PGPKey{Version: t.version, Public: t.public, Made: t.made})
	}
	return keys
}

// provePGP proves that key can decrypt and nothing else, and that it is the
// private half of the public key under the same CKA_ID.
func provePGP(c conn, p *profile, key handle, r hsm.KeyRecord) (*pgpKey, error) {
	if !p.pkcs1 {
		return nil, fmt.Errorf("%w: it has no CKM_RSA_PKCS", hsm.ErrUnsupported)
	}
	got, err := c.m.p11.GetAttributeValue(c.h, pkcs11.ObjectHandle(key), []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, nil),
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, nil),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, nil),
	})
	if err != nil {
		return nil, opError("C_GetAttributeValue", err)
	}
	yes := func(a *pkcs11.Attribute) bool { return len(a.Value) == 1 && a.Value[0] != 0 }
	if !yes(got[0]) || yes(got[1]) || yes(got[2]) {
		return nil, fmt.Errorf("it can do more than decrypt, or not even that")
	}
	t := &pgpKey{version: r.Version, key: key, made: hsm.PGPMade(r.ID), proof: make([]byte, 32)}
	if t.public, err = rsaPublicKey(c, r.ID); err != nil {
		return nil, err
	}
	rand.Read(t.proof)
	t.canary = encryptPKCS1(t.public, t.proof)
	if err = t.well(c); err == nil {
		return t, nil
	}
	// Modules call a wrong ciphertext what they call a fault of their own; one
	// that still answers is not at fault.
	if _, err2 := c.m.p11.GetSessionInfo(c.h); err2 == nil {
		return nil, fmt.Errorf("its public key does not belong to it, or it does not decrypt by CKM_RSA_PKCS (%v)", err)
	}
	return nil, err
}

// encryptPKCS1 encrypts a short message by RSAES-PKCS1-v1_5 (RFC 8017, section
// 7.2.1).
func encryptPKCS1(public *rsa.PublicKey, message []byte) []byte {
	em := make([]byte, public.Size())
	em[1] = 2
	padding := em[2 : len(em)-len(message)-1]
	rand.Read(padding)
	for i := range padding {
		padding[i] |= 1 // none may be zero, and nothing here rests on their being random
	}
	copy(em[len(em)-len(message):], message)
	c := new(big.Int).SetBytes(em)
	return c.Exp(c, big.NewInt(int64(public.E)), public.N).FillBytes(em)
}

// well has the HSM decrypt the canary. If that fails, the HSM is not well.
func (t *pgpKey) well(c conn) error {
	out := make([]byte, t.public.Size())
	got, _, err := c.decryptRSA(t.key, t.canary, out)
	if err == nil && !bytes.Equal(got, t.proof) {
		err = fmt.Errorf("what was encrypted to the PGP key is decrypted to something else: %w", pkcs11.Error(pkcs11.CKR_KEY_CHANGED))
	}
	return err
}

// A pgpOpening is the work of one OpenPGP call. It holds copies, since the caller
// may leave before it is done.
type pgpOpening struct {
	version uint32
	in      []byte
	session []byte
}

// OpenPGP decrypts a session key.
func (k *Keystore) OpenPGP(ctx context.Context, version uint32, ciphertext []byte) ([]byte, error) {
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("open a PGP session key: %w", err) }
	g, err := k.current(ctx)
	if err != nil {
		return fail(err)
	}
	if err := k.pgpAttempts.Begin(); err != nil {
		return nil, err
	}
	began := time.Now()
	o := &pgpOpening{version: version, in: bytes.Clone(ciphertext)}
	started, err := k.do(ctx, g, o.do)
	wrong := errors.Is(err, hsm.ErrPGPSession)
	// Who leaves before the answer counts as wrong, or leaving would be free; a
	// fault of the HSM tells nothing of the ciphertext.
	k.pgpAttempts.End(wrong || err != nil && started && ctx.Err() != nil)
	if wrong {
		if err := k.roundUp(ctx, began); err != nil {
			return fail(err)
		}
	}
	if err != nil {
		return fail(err)
	}
	return o.session, nil
}

func (o *pgpOpening) do(c conn, g *generation) error {
	var t *pgpKey
	for _, attached := range g.keys.pgp {
		if attached.version == o.version {
			t = attached
		}
	}
	if t == nil {
		return fmt.Errorf("%w: there is no PGP key version %d", hsm.ErrKeyMismatch, o.version)
	}
	if len(o.in) != t.public.Size() || new(big.Int).SetBytes(o.in).Cmp(t.public.N) >= 0 {
		return hsm.ErrPGPSession
	}
	out := make([]byte, t.public.Size())
	for attempt := 1; ; attempt++ {
		plain, begun, err := c.decryptRSA(t.key, o.in, out)
		if err == nil && hsm.IsPGPSession(plain) {
			o.session = plain
			return nil
		}
		clear(out)
		if !begun {
			return ill(err)
		}
		// Whatever the module says, or gives in place of what it will not say: the
		// ciphertext is to blame if the HSM is well, and only if it fails again
		// then. Otherwise the HSM is lost.
		if err := t.well(c); err != nil {
			return ill(err)
		}
		if attempt == 2 {
			return hsm.ErrPGPSession
		}
	}
}
