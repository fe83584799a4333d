package softkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/big"
	"slices"
)

// Algorithm is a COSE algorithm identifier (RFC 9053, IANA COSE Algorithms).
type Algorithm int

const (
	ES256 Algorithm = -7   // ECDSA with SHA-256 on P-256
	EdDSA Algorithm = -8   // Ed25519
	ES384 Algorithm = -35  // ECDSA with SHA-384 on P-384
	RS256 Algorithm = -257 // RSASSA-PKCS1-v1_5 with SHA-256, 2048 bits
)

// algorithms are those a Key can make credentials of, the likeliest first. The
// place of one in this list is what a credential ID holds: only append.
var algorithms = []Algorithm{ES256, EdDSA, ES384, RS256}

func (a Algorithm) String() string {
	switch a {
	case ES256:
		return "ES256"
	case EdDSA:
		return "EdDSA"
	case ES384:
		return "ES384"
	case RS256:
		return "RS256"
	}
	return fmt.Sprintf("COSE algorithm %d", int(a))
}

const (
	rsaBits     = 2048
	rsaExponent = 65537
)

// generate makes a private key.
func (a Algorithm) generate() (crypto.Signer, error) {
	switch a {
	case ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ES384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case EdDSA:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case RS256:
		return rsa.GenerateKey(rand.Reader, rsaBits)
	}
	return nil, fmt.Errorf("softkey: make a key: %v is not supported", a)
}

// material is the least of a private key from which restore makes it again: the
// scalar, the Ed25519 seed or the two primes.
func (a Algorithm) material(key crypto.Signer) ([]byte, error) {
	switch key := key.(type) {
	case *ecdsa.PrivateKey:
		return key.Bytes()
	case ed25519.PrivateKey:
		return key.Seed(), nil
	case *rsa.PrivateKey:
		half := rsaBits / 16
		out := make([]byte, 2*half)
		key.Primes[0].FillBytes(out[:half])
		key.Primes[1].FillBytes(out[half:])
		return out, nil
	}
	return nil, fmt.Errorf("softkey: a private key of type %T", key)
}

func (a Algorithm) restore(material []byte) (crypto.Signer, error) {
	switch a {
	case ES256:
		return ecdsa.ParseRawPrivateKey(elliptic.P256(), material)
	case ES384:
		return ecdsa.ParseRawPrivateKey(elliptic.P384(), material)
	case EdDSA:
		if len(material) != ed25519.SeedSize {
			return nil, errors.New("softkey: an Ed25519 seed of the wrong length")
		}
		return ed25519.NewKeyFromSeed(material), nil
	case RS256:
		if len(material) != rsaBits/8 {
			return nil, errors.New("softkey: RSA primes of the wrong length")
		}
		p := new(big.Int).SetBytes(material[:len(material)/2])
		q := new(big.Int).SetBytes(material[len(material)/2:])
		one := big.NewInt(1)
		phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
		key := &rsa.PrivateKey{
			PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: rsaExponent},
			D:         new(big.Int).ModInverse(big.NewInt(rsaExponent), phi),
			Primes:    []*big.Int{p, q},
		}
		if key.D == nil {
			return nil, errors.New("softkey: RSA primes that fit no key")
		}
		key.Precompute()
		return key, key.Validate()
	}
	return nil, fmt.Errorf("softkey: restore a key: %v is not supported", a)
}

// sign signs the concatenation of the parts. ECDSA signatures are in ASN.1 DER
// (WebAuthn §6.5.5).
func (a Algorithm) sign(key crypto.Signer, parts ...[]byte) ([]byte, error) {
	switch a {
	case EdDSA:
		return key.Sign(nil, slices.Concat(parts...), crypto.Hash(0))
	case ES384:
		h := sha512.New384()
		for _, p := range parts {
			h.Write(p)
		}
		return key.Sign(rand.Reader, h.Sum(nil), crypto.SHA384)
	default:
		h := sha256.New()
		for _, p := range parts {
			h.Write(p)
		}
		return key.Sign(rand.Reader, h.Sum(make([]byte, 0, sha256.Size)), crypto.SHA256)
	}
}

// coseKey is the public key as COSE_Key in CTAP2's canonical CBOR (WebAuthn
// §6.5.1.1, RFC 9053 §7, RFC 8230 §4).
func (a Algorithm) coseKey(public crypto.PublicKey) ([]byte, error) {
	switch public := public.(type) {
	case *ecdsa.PublicKey:
		curve := 1
		if public.Curve == elliptic.P384() {
			curve = 2
		}
		x, y, err := coordinates(public)
		if err != nil {
			return nil, err
		}
		out := appendHead(nil, majorMap, 5)
		out = appendInt(appendInt(out, 1), 2)
		out = appendInt(appendInt(out, 3), int(a))
		out = appendInt(appendInt(out, -1), curve)
		out = appendBytes(appendInt(out, -2), x)
		return appendBytes(appendInt(out, -3), y), nil
	case ed25519.PublicKey:
		out := appendHead(nil, majorMap, 4)
		out = appendInt(appendInt(out, 1), 1)
		out = appendInt(appendInt(out, 3), int(a))
		out = appendInt(appendInt(out, -1), 6)
		return appendBytes(appendInt(out, -2), public), nil
	case *rsa.PublicKey:
		out := appendHead(nil, majorMap, 4)
		out = appendInt(appendInt(out, 1), 3)
		out = appendInt(appendInt(out, 3), int(a))
		out = appendBytes(appendInt(out, -1), public.N.Bytes())
		return appendBytes(appendInt(out, -2), big.NewInt(int64(public.E)).Bytes()), nil
	}
	return nil, fmt.Errorf("softkey: a public key of type %T", public)
}

// coordinates are x and y of a point, each as long as the curve's field.
func coordinates(public *ecdsa.PublicKey) (x, y []byte, err error) {
	point, err := public.Bytes() // 0x04 || x || y
	if err != nil {
		return nil, nil, err
	}
	half := len(point) / 2
	return point[1 : 1+half], point[1+half:], nil
}
