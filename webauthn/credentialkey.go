package webauthn

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"math/big"
	"slices"
	"sync"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
)

// algorithms are those that registrations offer, best first: ES256, EdDSA,
// ES384, ES512, and RS256 for TPMs (section 5.8.5, RFC 9053).
var algorithms = []int64{
	int64(webauthncose.AlgES256), int64(webauthncose.AlgEdDSA), int64(webauthncose.AlgES384),
	int64(webauthncose.AlgES512), int64(webauthncose.AlgRS256),
}

// publicKey is a credential's key, checked. The value is one of webauthncose's
// types, which verifies signatures.
type publicKey struct {
	algorithm int64
	cose      any
	ec        *ecdsa.PublicKey // the same of a key for ECDSA
}

// parseKey reads a COSE_Key (RFC 9052, section 7): exactly the parameters that
// its type has, an algorithm that is offered, and a size that is safe.
func parseKey(encoded []byte) (*publicKey, error) {
	var labels map[int64]cbor.RawMessage
	if err := strict.Unmarshal(encoded, &labels); err != nil {
		return nil, refuse(reasonMalformed, "the credential's public key is not a COSE key")
	}
	k := new(publicKey)
	if raw, ok := labels[3]; !ok || strict.Unmarshal(raw, &k.algorithm) != nil {
		return nil, refuse(reasonMalformed, "the credential's public key does not say for which algorithm it is")
	}
	if !slices.Contains(algorithms, k.algorithm) {
		return nil, refuse(reasonAttestation, "the credential signs with algorithm %d, which was not offered", k.algorithm)
	}
	parsed, err := webauthncose.ParsePublicKey(encoded)
	if err != nil {
		return nil, refuse(reasonMalformed, "the credential's public key is not a good one: %s", libraryError(err))
	}
	want := []int64{1, 3, -1, -2}
	switch key := parsed.(type) {
	case webauthncose.EC2PublicKeyData:
		want = append(want, -3)
	case webauthncose.OKPPublicKeyData:
	case webauthncose.RSAPublicKeyData:
		n := new(big.Int).SetBytes(key.Modulus)
		e, err := webauthncose.ParseRSAPublicKeyDataExponent(&key)
		if err != nil || n.BitLen() < 2048 || n.BitLen() > maxRSA || n.Bit(0) == 0 || e < 3 || e%2 == 0 || e > 1<<31-1 {
			return nil, refuse(reasonMalformed, "the credential's RSA key has %d bits, or an exponent that is not safe; 2048 to 8192 bits are possible", n.BitLen())
		}
	default:
		return nil, refuse(reasonMalformed, "the credential's public key is of a kind that is not understood")
	}
	for _, label := range want {
		if labels[label] == nil {
			return nil, refuse(reasonMalformed, "the credential's public key lacks parameter %d", label)
		}
	}
	if len(labels) != len(want) {
		return nil, refuse(reasonMalformed, "the credential's public key has parameters that do not belong there")
	}
	k.cose = parsed
	k.ec, _ = k.standard().(*ecdsa.PublicKey)
	return k, nil
}

// maxRead bounds how many keys are remembered as read, and as many again of those
// before: some 10 MB in all.
const maxRead = 1 << 13

// readKeys remembers what parseKey made of keys of late. What a key's bytes say is
// always the same; whether they are what was enrolled is for the core to prove.
type readKeys struct {
	mu         sync.Mutex
	young, old map[string]*publicKey // by their encoding
}

// parse is parseKey.
func (r *readKeys) parse(encoded []byte) (*publicKey, error) {
	if k := r.get(encoded); k != nil {
		return k, nil
	}
	k, err := parseKey(encoded)
	if err == nil {
		r.put(string(encoded), k)
	}
	return k, err
}

func (r *readKeys) get(encoded []byte) *publicKey {
	r.mu.Lock()
	defer r.mu.Unlock()
	return cmp.Or(r.young[string(encoded)], r.old[string(encoded)])
}

func (r *readKeys) put(encoded string, k *publicKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.young) >= maxRead {
		r.old, r.young = r.young, nil
	}
	if r.young == nil {
		r.young = make(map[string]*publicKey)
	}
	r.young[encoded] = k
}

// verify says whether the signature is one over the message.
func (k *publicKey) verify(message, signature []byte) bool {
	if k.ec != nil {
		// As strict about the encoding as go-webauthn, and a third faster.
		h, ok := webauthncose.HasherFromCOSEAlg(webauthncose.COSEAlgorithmIdentifier(k.algorithm))
		if !ok {
			return false
		}
		h.Write(message)
		return ecdsa.VerifyASN1(k.ec, h.Sum(nil), signature)
	}
	ok, err := webauthncose.VerifySignature(k.cose, message, signature)
	return ok && err == nil
}

// standard is the key as the standard library has it.
func (k *publicKey) standard() crypto.PublicKey {
	switch key := k.cose.(type) {
	case webauthncose.EC2PublicKeyData:
		if ec, err := key.ToECDSA(); err == nil {
			return ec
		}
	case webauthncose.RSAPublicKeyData:
		if e, err := webauthncose.ParseRSAPublicKeyDataExponent(&key); err == nil {
			return &rsa.PublicKey{N: new(big.Int).SetBytes(key.Modulus), E: e}
		}
	case webauthncose.OKPPublicKeyData:
		return ed25519.PublicKey(key.XCoord)
	}
	return nil
}

// equal says whether a certificate certifies the same key.
func (k *publicKey) equal(other crypto.PublicKey) bool {
	mine, ok := k.standard().(interface{ Equal(crypto.PublicKey) bool })
	return ok && mine.Equal(other)
}
