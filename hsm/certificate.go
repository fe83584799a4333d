package hsm

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"
)

// Vendors want the transport key as an X.509 certificate, and a certificate
// wants a signature. The key cannot sign its own: to do so it would need
// CKA_SIGN, and a key that signs by raw RSA also decrypts what was encrypted to
// it. So the audit key, which is there to sign, signs for it as a certification
// authority of one certificate. What it signs here is DER, which begins with
// 0x30, and what it signs of the audit begins with a text: neither passes for
// the other.
//
// A certificate does not become valid by what it says about itself. The vendor
// compares the fingerprint with one that came another way.

// TransportCertificate is a certificate of a transport key and that of its
// issuer, both in DER.
type TransportCertificate struct {
	Certificate []byte // of the transport key; keyEncipherment only
	Issuer      []byte // of the audit key, signed by itself

	// Fingerprint is SHA-256 of the transport key's SubjectPublicKeyInfo: the
	// same in every certificate of the key.
	Fingerprint [sha256.Size]byte
}

// maxIssuerName is what X.520 leaves of 64 characters.
const maxIssuerName = 40

// IssueTransport makes a certificate for a transport key, signed by the audit
// key, good from one time until another. name, of 1 to 40 printable ASCII
// characters, is how its owner calls the installation; it is for people. Each
// call makes another certificate for the same key.
func IssueTransport(ctx context.Context, signer Signer, key TransportKey, name string, from, until time.Time) (TransportCertificate, error) {
	var c TransportCertificate
	fail := func(err error) (TransportCertificate, error) {
		return TransportCertificate{}, fmt.Errorf("certify transport key %d: %w", key.Version, err)
	}
	if err := CheckIssuerName(name); err != nil {
		return fail(err)
	}
	if !until.After(from) {
		return fail(errors.New("it would end before it begins"))
	}
	audit, ok := signer.PublicKey().(*ecdsa.PublicKey)
	if !ok {
		return fail(fmt.Errorf("%w: no audit key is attached", ErrUnavailable))
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public)
	if err != nil {
		return fail(err)
	}
	c.Fingerprint = sha256.Sum256(spki)
	s := certSigner{ctx, signer}
	issuer, err := template(name+" audit key", from, until)
	if err != nil {
		return fail(err)
	}
	issuer.IsCA, issuer.MaxPathLenZero = true, true
	issuer.KeyUsage = x509.KeyUsageCertSign
	if c.Issuer, err = x509.CreateCertificate(rand.Reader, issuer, issuer, audit, s); err != nil {
		return fail(err)
	}
	if issuer, err = x509.ParseCertificate(c.Issuer); err != nil {
		return fail(err)
	}
	leaf, err := template(fmt.Sprintf("%s transport key %d", name, key.Version), from, until)
	if err != nil {
		return fail(err)
	}
	leaf.KeyUsage = x509.KeyUsageKeyEncipherment
	leaf.SubjectKeyId = c.Fingerprint[:20]
	if c.Certificate, err = x509.CreateCertificate(rand.Reader, leaf, issuer, key.Public, s); err != nil {
		return fail(err)
	}
	return c, nil
}

// CheckIssuerName says what keeps name from being one for IssueTransport.
func CheckIssuerName(name string) error {
	if len(name) < 1 || len(name) > maxIssuerName {
		return fmt.Errorf("its name has %d characters; 1 to %d are possible", len(name), maxIssuerName)
	}
	for _, r := range name {
		if r < ' ' || r > '~' {
			return errors.New("its name has a character that is not printable ASCII")
		}
	}
	return nil
}

func template(name string, from, until time.Time) (*x509.Certificate, error) {
	serial := make([]byte, 16) // RFC 5280, section 4.1.2.2: positive, at most 20 bytes
	if _, err := rand.Read(serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7F | 0x40
	return &x509.Certificate{
		SerialNumber:          new(big.Int).SetBytes(serial),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             from.UTC().Truncate(time.Second),
		NotAfter:              until.UTC().Truncate(time.Second),
		BasicConstraintsValid: true,
		SignatureAlgorithm:    x509.ECDSAWithSHA256,
	}, nil
}

// CryptoSigner is s as the standard library wants a signer of SHA-256 digests.
func CryptoSigner(ctx context.Context, s Signer) crypto.Signer { return certSigner{ctx, s} }

// certSigner is a Signer as crypto/x509 wants it.
type certSigner struct {
	ctx context.Context
	Signer
}

func (s certSigner) Public() crypto.PublicKey { return s.PublicKey() }

func (s certSigner) Sign(_ io.Reader, digest []byte, _ crypto.SignerOpts) ([]byte, error) {
	raw, err := s.Signer.Sign(s.ctx, digest)
	if err != nil {
		return nil, err
	}
	if len(raw) != 64 {
		return nil, fmt.Errorf("a signature of %d bytes", len(raw))
	}
	// RFC 3279, section 2.2.3.
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])})
}
