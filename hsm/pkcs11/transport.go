package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // the digests of OAEP
	"crypto/sha256"
	_ "crypto/sha512"
	"fmt"
	"math/big"
	"sync"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// What was measured of the transport key on SoftHSM 2.6.1 and NSS's softokn
// 3.87, both of Debian 12:
//
//	                                      SoftHSM              softokn
//	C_UnwrapKey by RSA-OAEP               SHA-1, no label      any digest, MGF1 and label
//	wrong OAEP ciphertext                 CKR_GENERAL_ERROR    CKR_WRAPPED_KEY_INVALID
//	wrong RSA-1_5 ciphertext              CKR_GENERAL_ERROR    random bytes of random length
//	empty seed                            a key of no bytes    a key of no bytes
//	CKA_VALUE_LEN of what was unwrapped   0                    the length
//	C_DigestKey of it                     yes                  yes
//	HMAC with less than a digest          CKR_KEY_SIZE_RANGE   yes
//	CKM_CONCATENATE_BASE_AND_DATA         no                   yes, but not listed
//	C_WrapKey of 20 bytes by KWP          fills up to 24       20 bytes, RFC 5649
//	CKA_VALUE_LEN in the template         refused              ignored
//	CKA_WRAP_WITH_TRUSTED                 then no KEK of       unknown
//	                                      ours may wrap it
//	C_CopyObject to not sensitive         refused              refused
//	C_UnwrapKey by CKM_RSA_X_509          unknown              refused
//	one C_UnwrapKey, 3072 bits            2.6 ms               5 ms
//
// A KEK becomes CKA_TRUSTED only in the hands of the security officer, so
// CKA_WRAP_WITH_TRUSTED is not used: for the length of one task a seed is
// extractable by whoever has this process's session, as any that Wrap wraps.
//
// SoftHSM's filling up is what makes 20-byte seeds travel inside it: 24 bytes,
// the seed and four zeros, are exactly what Wrap wraps. It goes up to the next
// multiple of eight and no further, so a seed of 10 or 16 bytes for SHA-1, with
// which SoftHSM computes no HMAC, cannot.

// A transportKey is a transport key in one generation.
type transportKey struct {
	version uint32
	key     handle
	public  *rsa.PublicKey

	// canary is something encrypted to the key and proof the MAC under it: what
	// the HSM unwraps as long as it is well.
	in     rsaWrap
	canary []byte
	proof  []byte

	mu  sync.Mutex
	can map[oaepKind]bool // OAEP's parameters that were tried
}

// rsaWrap says how something was encrypted to an RSA key, in PKCS#11's numbers.
// With hash 0 it is RSA-1_5.
type rsaWrap struct {
	hash, mgf uint
	label     []byte
}

// oaepKind are the parameters of OAEP that a module may have or lack.
type oaepKind struct {
	hash, mgf crypto.Hash
	labelled  bool
}

func (o oaepKind) String() string {
	s := fmt.Sprintf("RSA-OAEP with %v and MGF1 with %v", o.hash, o.mgf)
	if o.labelled {
		s += " and a label"
	}
	return s
}

// oaepNumbers are CKM_ and CKG_ numbers of digests.
var oaepNumbers = map[crypto.Hash]struct{ hash, mgf uint }{
	crypto.SHA1:   {pkcs11.CKM_SHA_1, pkcs11.CKG_MGF1_SHA1},
	crypto.SHA224: {pkcs11.CKM_SHA224, pkcs11.CKG_MGF1_SHA224},
	crypto.SHA256: {pkcs11.CKM_SHA256, pkcs11.CKG_MGF1_SHA256},
	crypto.SHA384: {pkcs11.CKM_SHA384, pkcs11.CKG_MGF1_SHA384},
	crypto.SHA512: {pkcs11.CKM_SHA512, pkcs11.CKG_MGF1_SHA512},
}

// CreateTransport makes a transport key.
func (k *Keystore) CreateTransport(ctx context.Context, version uint32, bits int) (hsm.KeyRecord, error) {
	if bits == 0 {
		bits = hsm.TransportBits
	}
	if bits < hsm.MinTransportBits || bits > hsm.MaxTransportBits || bits%1024 != 0 {
		return hsm.KeyRecord{}, fmt.Errorf("a transport key has %d, 3072 or %d bits, not %d", hsm.MinTransportBits, hsm.MaxTransportBits, bits)
	}
	return k.create(ctx, hsm.KeyTransport, version, bits)
}

// TransportKeys are the transport keys as attached, whether or not the HSM
// answers.
func (k *Keystore) TransportKeys() []hsm.TransportKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]hsm.TransportKey(nil), k.transport...)
}

func (ks *keyset) transportKeys() []hsm.TransportKey {
	var keys []hsm.TransportKey
	for _, t := range ks.transport {
		keys = append(keys, hsm.TransportKey{Version: t.version, Public: t.public})
	}
	return keys
}

// transportVersion finds the transport key with a version.
func (ks *keyset) transportVersion(version uint32) (*transportKey, bool) {
	for _, t := range ks.transport {
		if t.version == version {
			return t, true
		}
	}
	return nil, false
}

// proveTransport proves that key can unwrap and nothing else, and that it is the
// private half of the public key under the same CKA_ID.
func proveTransport(c conn, p *profile, key handle, r hsm.KeyRecord) (*transportKey, error) {
	if !p.oaep {
		return nil, fmt.Errorf("%w: it has no CKM_RSA_PKCS_OAEP", hsm.ErrUnsupported)
	}
	got, err := c.m.p11.GetAttributeValue(c.h, pkcs11.ObjectHandle(key), []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, nil),
		pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, nil),
		pkcs11.NewAttribute(pkcs11.CKA_SIGN, nil),
	})
	if err != nil {
		return nil, opError("C_GetAttributeValue", err)
	}
	yes := func(a *pkcs11.Attribute) bool { return len(a.Value) == 1 && a.Value[0] != 0 }
	if !yes(got[0]) || yes(got[1]) || yes(got[2]) {
		return nil, fmt.Errorf("it can do more than unwrap, or not even that")
	}
	t := &transportKey{version: r.Version, key: key, can: map[oaepKind]bool{}}
	if t.public, err = rsaPublicKey(c, r.ID); err != nil {
		return nil, err
	}
	// FIPS modules have no SHA-1.
	for _, kind := range []oaepKind{{crypto.SHA1, crypto.SHA1, false}, {crypto.SHA256, crypto.SHA256, false}} {
		if err = t.makeCanary(kind); err != nil {
			return nil, err
		}
		if err = t.well(c); err == nil {
			t.can[kind] = true
			return t, nil
		}
	}
	// Modules call a wrong ciphertext what they call a fault of their own; one
	// that still answers is not at fault.
	if _, err2 := c.m.p11.GetSessionInfo(c.h); err2 == nil {
		return nil, fmt.Errorf("its public key does not belong to it (%v)", err)
	}
	return nil, err
}

// rsaPublicKey reads the public key of the transport key.
func rsaPublicKey(c conn, id []byte) (*rsa.PublicKey, error) {
	object, err := find(c, pkcs11.CKO_PUBLIC_KEY, id)
	if err != nil {
		return nil, fmt.Errorf("its public key: %w", err)
	}
	got, err := c.m.p11.GetAttributeValue(c.h, pkcs11.ObjectHandle(object), []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_MODULUS, nil),
		pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, nil),
	})
	if err != nil {
		return nil, opError("C_GetAttributeValue", err)
	}
	n, e := new(big.Int).SetBytes(got[0].Value), new(big.Int).SetBytes(got[1].Value)
	if n.BitLen() < hsm.MinTransportBits || n.BitLen() > hsm.MaxTransportBits || e.BitLen() > 31 || e.Int64() < 3 || e.Bit(0) == 0 {
		return nil, fmt.Errorf("its public key is no RSA key of %d to %d bits", hsm.MinTransportBits, hsm.MaxTransportBits)
	}
	return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
}

// wrapOf says in PKCS#11's numbers what kind says; ok if there are any.
func (o oaepKind) wrapOf(label []byte) (in rsaWrap, ok bool) {
	h, ok1 := oaepNumbers[o.hash]
	m, ok2 := oaepNumbers[o.mgf]
	return rsaWrap{hash: h.hash, mgf: m.mgf, label: label}, ok1 && ok2
}

// makeCanary encrypts something new to the key.
func (t *transportKey) makeCanary(kind oaepKind) (err error) {
	t.in, t.canary, t.proof, err = t.encrypt(kind)
	return err
}

// encrypt encrypts a random key to t and answers its MAC of canaryText.
func (t *transportKey) encrypt(kind oaepKind) (in rsaWrap, ciphertext, proof []byte, err error) {
	var label []byte
	if kind.labelled {
		label = []byte("watchword")
	}
	in, ok := kind.wrapOf(label)
	if !ok {
		return in, nil, nil, fmt.Errorf("%v is unknown", kind)
	}
	key := make([]byte, 32)
	rand.Read(key)
	mac := hmac.New(sha256.New, key)
	mac.Write(canaryText)
	ciphertext, err = rsa.EncryptOAEPWithOptions(rand.Reader, t.public, key, &rsa.OAEPOptions{Hash: kind.hash, MGFHash: kind.mgf, Label: label})
	return in, ciphertext, mac.Sum(nil), err
}

var canaryText = []byte("watchword transport check")

// well has the HSM unwrap the canary. If that fails, the HSM is not well.
func (t *transportKey) well(c conn) error {
	_, err := t.try(c, t.in, t.canary, t.proof)
	return err
}

// try has the HSM unwrap what encrypt made; unwrapped says whether it did, if
// only to something else.
func (t *transportKey) try(c conn, in rsaWrap, ciphertext, proof []byte) (unwrapped bool, err error) {
	object, err := c.take(in, t.key, ciphertext, false)
	if err != nil {
		return false, err
	}
	var mac [32]byte
	err = c.sign(pkcs11.CKM_SHA256_HMAC, object, canaryText, mac[:])
	err = dropped(c, object, err)
	if err == nil && !bytes.Equal(mac[:], proof) {
		err = fmt.Errorf("what was encrypted to the transport key is unwrapped to something else: %w", pkcs11.Error(pkcs11.CKR_KEY_CHANGED))
	}
	return true, err
}

// supports says whether the HSM unwraps by OAEP of this kind. That is tried out
// with something of our own: what a vendor's ciphertext meets says nothing about
// the module, and what the module lacks says nothing about a ciphertext.
func (t *transportKey) supports(c conn, kind oaepKind) (bool, error) {
	t.mu.Lock()
	can, known := t.can[kind]
	t.mu.Unlock()
	if known {
		return can, nil
	}
	in, ciphertext, proof, err := t.encrypt(kind)
	if err != nil {
		return false, nil // a digest that nobody knows, or too long for the key
	}
	// Twice, so that a fault that passed is not remembered.
	for range 2 {
		var unwrapped bool
		if unwrapped, err = t.try(c, in, ciphertext, proof); err == nil {
			break
		}
		if unwrapped {
			return false, ill(err)
		}
		if err := t.well(c); err != nil {
			return false, ill(err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.can[kind] = err == nil
	return err == nil, nil
}
