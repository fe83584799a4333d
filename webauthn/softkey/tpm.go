package softkey

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"slices"
)

// Constants of the TPM 2.0 Library, Part 2.
const (
	tpmGenerated     = 0xff544347 // TPM_GENERATED_VALUE
	tpmAttestCertify = 0x8017     // TPM_ST_ATTEST_CERTIFY
	tpmRSA           = 0x0001     // TPM_ALG_RSA
	tpmSHA256        = 0x000b     // TPM_ALG_SHA256
	tpmNull          = 0x0010     // TPM_ALG_NULL
	tpmECC           = 0x0023     // TPM_ALG_ECC
	tpmP256          = 0x0003     // TPM_ECC_NIST_P256
	tpmP384          = 0x0004     // TPM_ECC_NIST_P384

	// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, sign
	tpmAttributes = 1<<1 | 1<<4 | 1<<5 | 1<<6 | 1<<18
	tpmFirmware   = 0x0001_0000_0000_0001
)

// attestTPM has a TPM's attestation key certify the credential's key (WebAuthn
// §8.3).
func (k *Key) attestTPM(f *Faults, b batch, c *credential, authData, clientDataHash []byte) (map[string]any, error) {
	a, err := k.vendor.attester(b, f.Leaf)
	if err != nil {
		return nil, err
	}
	pubArea, err := tpmPublic(c)
	if err != nil {
		return nil, err
	}
	if f.PubArea != nil {
		pubArea = f.PubArea(pubArea)
	}
	extra := sha256.Sum256(slices.Concat(authData, clientDataHash))
	certInfo := tpmCertify(pubArea, extra[:], b.aaguid)
	if f.CertInfo != nil {
		certInfo = f.CertInfo(certInfo)
	}
	sig, err := a.alg.sign(a.key, certInfo)
	return map[string]any{
		"ver": "2.0", "alg": int(a.alg), "x5c": a.chain, "sig": sig, "certInfo": certInfo, "pubArea": pubArea,
	}, err
}

// tpmPublic writes a TPMT_PUBLIC (Part 2, 12.2.4):
//
//	type (2) || nameAlg (2) || objectAttributes (4) || authPolicy (2 + 0) ||
//	symmetric (2) || scheme (2) ||
//	    RSA: keyBits (2) || exponent (4) || modulus (2 + n)
//	    ECC: curve (2) || kdf (2) || x (2 + n) || y (2 + n)
func tpmPublic(c *credential) ([]byte, error) {
	be := binary.BigEndian
	head := func(kind uint16) []byte {
		out := be.AppendUint16(nil, kind)
		out = be.AppendUint16(out, tpmSHA256)
		out = be.AppendUint32(out, tpmAttributes)
		out = be.AppendUint16(out, 0)
		out = be.AppendUint16(out, tpmNull)
		return be.AppendUint16(out, tpmNull)
	}
	switch public := c.signer.Public().(type) {
	case *rsa.PublicKey:
		out := be.AppendUint16(head(tpmRSA), rsaBits)
		out = be.AppendUint32(out, 0) // the default exponent, 65537
		return appendTPM(out, public.N.Bytes()), nil
	case *ecdsa.PublicKey:
		x, y, err := coordinates(public)
		if err != nil {
			return nil, err
		}
		curve := uint16(tpmP256)
		if c.alg == ES384 {
			curve = tpmP384
		}
		out := be.AppendUint16(head(tpmECC), curve)
		out = be.AppendUint16(out, tpmNull)
		return appendTPM(appendTPM(out, x), y), nil
	}
	return nil, fmt.Errorf("a TPM 2.0 has no %v", c.alg)
}

// tpmCertify writes a TPMS_ATTEST that certifies an object (Part 2, 10.12.8):
//
//	magic (4) || type (2) || qualifiedSigner (2 + n) || extraData (2 + n) ||
//	clock (8) || resetCount (4) || restartCount (4) || safe (1) || firmwareVersion (8) ||
//	name (2 + n) || qualifiedName (2 + n)
func tpmCertify(pubArea, extra []byte, model [16]byte) []byte {
	be := binary.BigEndian
	signer := tpmName(model[:])
	name := tpmName(pubArea)
	out := be.AppendUint32(nil, tpmGenerated)
	out = be.AppendUint16(out, tpmAttestCertify)
	out = appendTPM(out, signer)
	out = appendTPM(out, extra)
	out = be.AppendUint64(out, 1)
	out = be.AppendUint32(out, 1)
	out = be.AppendUint32(out, 0)
	out = append(out, 1)
	out = be.AppendUint64(out, tpmFirmware)
	out = appendTPM(out, name)
	return appendTPM(out, tpmName(slices.Concat(signer, name)))
}

// tpmName is nameAlg || SHA-256 (Part 1, 16).
func tpmName(of []byte) []byte {
	sum := sha256.Sum256(of)
	return append(binary.BigEndian.AppendUint16(nil, tpmSHA256), sum[:]...)
}

func appendTPM(out, b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(out, uint16(len(b))), b...)
}

var (
	oidSubjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidTPMManufacturer = asn1.ObjectIdentifier{2, 23, 133, 2, 1}
	oidTPMModel        = asn1.ObjectIdentifier{2, 23, 133, 2, 2}
	oidTPMVersion      = asn1.ObjectIdentifier{2, 23, 133, 2, 3}
	oidTPMAIK          = asn1.ObjectIdentifier{2, 23, 133, 8, 3}
)

// tpmTestMaker is the manufacturer that is nobody's: FIDO's conformance tests
// use it.
const tpmTestMaker = "id:FFFFF1D0"

// aikCertificate is what WebAuthn §8.3.1 asks of an attestation key's
// certificate: no subject, and the TPM's maker, model and version in a critical
// alternative name.
func aikCertificate(aaguid [16]byte) (*x509.Certificate, error) {
	names, err := asn1.Marshal(pkix.RDNSequence{
		{{Type: oidTPMManufacturer, Value: tpmTestMaker}},
		{{Type: oidTPMModel, Value: "Watchword softkey"}},
		{{Type: oidTPMVersion, Value: "id:00010001"}},
	})
	if err != nil {
		return nil, err
	}
	directory, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: names})
	if err != nil {
		return nil, err
	}
	alternative, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: directory})
	if err != nil {
		return nil, err
	}
	model, err := aaguidExtension(aaguid)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		BasicConstraintsValid: true,
		UnknownExtKeyUsage:    []asn1.ObjectIdentifier{oidTPMAIK},
		ExtraExtensions:       []pkix.Extension{{Id: oidSubjectAltName, Critical: true, Value: alternative}, model},
	}, nil
}
