package softkey

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
)

// attest makes the attestation statement for a new credential, in the key's
// format (WebAuthn §6.5.3).
func (k *Key) attest(f *Faults, c *credential, authData, clientDataHash []byte, enterprise bool) (format string, statement map[string]any, err error) {
	b := batch{format: k.o.Format, aaguid: k.aaguid}
	if enterprise {
		b.serial = k.o.Serial
	}
	format = string(k.o.Format)
	switch k.o.Format {
	case Packed:
		statement, err = k.attestPacked(f, b, authData, clientDataHash)
	case Self:
		format = string(Packed)
		statement, err = selfStatement(c, authData, clientDataHash)
	case U2F:
		statement, err = k.attestU2F(f, b, c, clientDataHash)
	case TPM:
		statement, err = k.attestTPM(f, b, c, authData, clientDataHash)
	case AndroidKey:
		statement, err = k.attestAndroid(f, c, authData, clientDataHash)
	case Apple:
		statement, err = k.attestApple(f, c, authData, clientDataHash)
	case None:
		statement = map[string]any{}
	}
	if err != nil {
		return "", nil, fmt.Errorf("softkey: attest as %s: %w", k.o.Format, err)
	}
	if f.Statement != nil {
		format, statement = f.Statement(format, statement)
	}
	return format, statement, nil
}

// attestationObject is the CBOR of WebAuthn §6.5.4.
func attestationObject(format string, authData []byte, statement map[string]any) ([]byte, error) {
	s, err := encode(statement)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, 40+len(format)+len(s)+len(authData))
	out = appendHead(out, majorMap, 3)
	out = appendText(appendText(out, "fmt"), format)
	out = append(appendText(out, "attStmt"), s...)
	return appendBytes(appendText(out, "authData"), authData), nil
}

// attestPacked signs with the batch key (WebAuthn §8.2).
func (k *Key) attestPacked(f *Faults, b batch, authData, clientDataHash []byte) (map[string]any, error) {
	a, err := k.vendor.attester(b, f.Leaf)
	if err != nil {
		return nil, err
	}
	sig, err := a.alg.sign(a.key, authData, clientDataHash)
	return map[string]any{"alg": int(a.alg), "sig": sig, "x5c": a.chain}, err
}

// selfStatement is signed with the credential's own key: packed without x5c.
func selfStatement(c *credential, authData, clientDataHash []byte) (map[string]any, error) {
	sig, err := c.alg.sign(c.signer, authData, clientDataHash)
	return map[string]any{"alg": int(c.alg), "sig": sig}, err
}

// attestU2F signs what a U2F registration signs (WebAuthn §8.6).
func (k *Key) attestU2F(f *Faults, b batch, c *credential, clientDataHash []byte) (map[string]any, error) {
	a, err := k.vendor.attester(b, f.Leaf)
	if err != nil {
		return nil, err
	}
	public, ok := c.signer.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("a key that is not ES256")
	}
	point, err := public.Bytes()
	if err != nil {
		return nil, err
	}
	rpIDHash := c.rpIDHash
	if f.RPID != "" {
		rpIDHash = sha256.Sum256([]byte(f.RPID))
	}
	sig, err := a.alg.sign(a.key, []byte{0}, rpIDHash[:], clientDataHash, c.id, point)
	return map[string]any{"sig": sig, "x5c": a.chain}, err
}

var (
	oidAndroidKey = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 1, 17}
	oidAppleNonce = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 8, 2}
)

// keyDescription is the extension by which Android's key store tells of a key,
// as far as WebAuthn §8.4 looks at it.
type keyDescription struct {
	AttestationVersion       int
	AttestationSecurityLevel asn1.Enumerated
	KeymasterVersion         int
	KeymasterSecurityLevel   asn1.Enumerated
	AttestationChallenge     []byte
	UniqueID                 []byte
	SoftwareEnforced         struct{}
	TEEEnforced              authorizations
}

type authorizations struct {
	Purpose        []int         `asn1:"tag:1,explicit,set"`
	Algorithm      int           `asn1:"tag:2,explicit"`
	KeySize        int           `asn1:"tag:3,explicit"`
	NoAuthRequired asn1.RawValue // [503], explicit
	Origin         int           `asn1:"tag:702,explicit"` // 0: generated in the key store
}

// Values of Android's key store.
const (
	androidVersion      = 3
	androidTrusted      = 1 // trusted execution environment
	androidPurposeSign  = 2
	androidAlgorithmRSA = 1
	androidAlgorithmEC  = 3
)

// attestAndroid certifies the credential's key as Android's key store does
// (WebAuthn §8.4).
func (k *Key) attestAndroid(f *Faults, c *credential, authData, clientDataHash []byte) (map[string]any, error) {
	enforced := authorizations{
		Purpose:        []int{androidPurposeSign},
		Algorithm:      androidAlgorithmEC,
		KeySize:        256,
		NoAuthRequired: asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 503, IsCompound: true, Bytes: asn1.NullBytes},
	}
	switch c.alg {
	case RS256:
		enforced.Algorithm, enforced.KeySize = androidAlgorithmRSA, rsaBits
	case ES384:
		enforced.KeySize = 384
	}
	description, err := asn1.Marshal(keyDescription{
		AttestationVersion:       androidVersion,
		AttestationSecurityLevel: androidTrusted,
		KeymasterVersion:         androidVersion + 1,
		KeymasterSecurityLevel:   androidTrusted,
		AttestationChallenge:     clientDataHash,
		UniqueID:                 []byte{},
		TEEEnforced:              enforced,
	})
	if err != nil {
		return nil, err
	}
	chain, err := k.vendor.leaf(AndroidKey, &x509.Certificate{
		SerialNumber:    big.NewInt(1),
		Subject:         pkix.Name{CommonName: "Android Keystore Key"},
		KeyUsage:        x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: oidAndroidKey, Value: description}},
	}, c.signer.Public(), f.Leaf)
	if err != nil {
		return nil, err
	}
	sig, err := c.alg.sign(c.signer, authData, clientDataHash)
	return map[string]any{"alg": int(c.alg), "sig": sig, "x5c": chain}, err
}

// attestApple certifies the credential's key together with the ceremony
// (WebAuthn §8.8).
func (k *Key) attestApple(f *Faults, c *credential, authData, clientDataHash []byte) (map[string]any, error) {
	nonce := sha256.New()
	nonce.Write(authData)
	nonce.Write(clientDataHash)
	value, err := asn1.Marshal(struct {
		Nonce []byte `asn1:"tag:1,explicit"`
	}{nonce.Sum(nil)})
	if err != nil {
		return nil, err
	}
	chain, err := k.vendor.leaf(Apple, &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Software Authenticator Credential", OrganizationalUnit: []string{"AAA Certification"}},
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		ExtraExtensions:       []pkix.Extension{{Id: oidAppleNonce, Value: value}},
	}, c.signer.Public(), f.Leaf)
	return map[string]any{"x5c": chain}, err
}
