package softkey

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// Vendor is who made keys: a root certificate, an intermediate one, and the
// batch certificates that keys of one model share. Keys of one Vendor chain to
// one root. It can be used by several goroutines at once.
type Vendor struct {
	name         string
	root         *x509.Certificate
	intermediate *x509.Certificate
	rootKey      *ecdsa.PrivateKey
	key          *ecdsa.PrivateKey // the intermediate's

	mu      sync.Mutex
	batches map[batch]*attester
	aik     crypto.Signer // of TPMs; made when first needed, it is slow to make
}

// batch is what one attestation certificate is for.
type batch struct {
	format Format
	aaguid [16]byte
	serial string // of enterprise attestation
}

// attester signs attestation statements.
type attester struct {
	alg   Algorithm
	key   crypto.Signer
	chain [][]byte // DER, the leaf first, without the root
}

// mostBatches bounds the certificates that a Vendor remembers.
const mostBatches = 1024

// Certificates of softkeys are valid between these, so that a test's clock does
// not matter.
var (
	validFrom  = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	validUntil = time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC)
)

// NewVendor makes a vendor with a root certificate of its own. The name is the
// organisation in its certificates.
func NewVendor(name string) (*Vendor, error) {
	v := &Vendor{name: name, batches: make(map[batch]*attester)}
	var err error
	if v.rootKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("softkey: a vendor's root key: %w", err)
	}
	if v.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("softkey: a vendor's intermediate key: %w", err)
	}
	root := v.authority("Software Authenticator Root")
	root.MaxPathLen = 1
	if v.root, err = issue(root, root, v.rootKey.Public(), v.rootKey); err != nil {
		return nil, err
	}
	if v.intermediate, err = issue(v.authority("Software Authenticator CA 1"), v.root, v.key.Public(), v.rootKey); err != nil {
		return nil, err
	}
	return v, nil
}

// Root is the vendor's root certificate: the trust anchor for its keys'
// attestation.
func (v *Vendor) Root() *x509.Certificate { return v.root }

// Intermediate is the certificate under the root that issues batch certificates.
func (v *Vendor) Intermediate() *x509.Certificate { return v.intermediate }

// RootPEM is the root certificate in PEM.
func (v *Vendor) RootPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: v.root.Raw})
}

func (v *Vendor) authority(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{Country: []string{"AQ"}, Organization: []string{v.name}, CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// issue signs a certificate; template and parent are the same for a root.
func issue(template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) (*x509.Certificate, error) {
	if template.SerialNumber == nil {
		serial := make([]byte, 16)
		rand.Read(serial)
		serial[0] = serial[0]&0x7f | 0x40 // positive, and always 16 bytes
		template.SerialNumber = new(big.Int).SetBytes(serial)
	}
	if template.NotBefore.IsZero() {
		template.NotBefore = validFrom
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = validUntil
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		return nil, fmt.Errorf("softkey: issue a certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("softkey: read an issued certificate: %w", err)
	}
	return cert, nil
}

// leaf issues an attestation certificate; change, if there is one, alters it
// before it is signed. A U2F statement has room for one certificate only, so
// its leaf is the root's.
func (v *Vendor) leaf(format Format, template *x509.Certificate, public crypto.PublicKey, change func(*x509.Certificate)) ([][]byte, error) {
	if change != nil {
		change(template)
	}
	if format == U2F {
		cert, err := issue(template, v.root, public, v.rootKey)
		if err != nil {
			return nil, err
		}
		return [][]byte{cert.Raw}, nil
	}
	cert, err := issue(template, v.intermediate, public, v.key)
	if err != nil {
		return nil, err
	}
	return [][]byte{cert.Raw, v.intermediate.Raw}, nil
}

// attester answers the batch's attester: the one that signed before, unless its
// certificate is to be changed.
func (v *Vendor) attester(b batch, change func(*x509.Certificate)) (*attester, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if a := v.batches[b]; a != nil && change == nil {
		return a, nil
	}
	a := &attester{alg: ES256}
	var template *x509.Certificate
	var err error
	if b.format == TPM {
		if v.aik == nil {
			if v.aik, err = RS256.generate(); err != nil {
				return nil, fmt.Errorf("softkey: a TPM's attestation key: %w", err)
			}
		}
		a.alg, a.key = RS256, v.aik
		template, err = aikCertificate(b.aaguid)
	} else {
		if a.key, err = ES256.generate(); err != nil {
			return nil, fmt.Errorf("softkey: a batch's attestation key: %w", err)
		}
		template, err = v.batchCertificate(b)
	}
	if err != nil {
		return nil, err
	}
	if a.chain, err = v.leaf(b.format, template, a.key.Public(), change); err != nil {
		return nil, err
	}
	if change == nil {
		if len(v.batches) >= mostBatches {
			clear(v.batches)
		}
		v.batches[b] = a
	}
	return a, nil
}

// OIDs of FIDO's certificate extensions (WebAuthn §8.2.1 and §8.2.2).
var (
	oidAAGUID       = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 4}
	oidSerialNumber = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 2}
)

// batchCertificate is what WebAuthn §8.2.1 asks of a packed attestation
// certificate. U2F has no AAGUIDs, so its certificate names none.
func (v *Vendor) batchCertificate(b batch) (*x509.Certificate, error) {
	c := &x509.Certificate{
		Subject: pkix.Name{
			Country:            []string{"AQ"},
			Organization:       []string{v.name},
			OrganizationalUnit: []string{"Authenticator Attestation"},
			CommonName:         "Software Authenticator Batch 1",
		},
		BasicConstraintsValid: true,
	}
	if b.format != U2F {
		ext, err := aaguidExtension(b.aaguid)
		if err != nil {
			return nil, err
		}
		c.ExtraExtensions = append(c.ExtraExtensions, ext)
	}
	if b.serial != "" {
		c.Subject.CommonName = "Software Authenticator " + b.serial
		value, err := asn1.Marshal([]byte(b.serial))
		if err != nil {
			return nil, err
		}
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oidSerialNumber, Value: value})
	}
	return c, nil
}

func aaguidExtension(aaguid [16]byte) (pkix.Extension, error) {
	value, err := asn1.Marshal(aaguid[:])
	return pkix.Extension{Id: oidAAGUID, Value: value}, err
}
