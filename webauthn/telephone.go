package webauthn

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/asn1"
	"slices"

	"github.com/go-webauthn/webauthn/protocol/webauthncose"
)

// The extensions by which telephones attest.
var (
	oidAndroidKey = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 1, 17}
	oidAppleNonce = asn1.ObjectIdentifier{1, 2, 840, 113635, 100, 8, 2}
)

// proveAndroid verifies an Android key attestation (section 8.4). Only what the
// trusted execution environment enforces counts.
func (s *statement) proveAndroid(members map[string]any, hash []byte) error {
	alg, isInt := members["alg"].(int64)
	sig, isBytes := members["sig"].([]byte)
	if !isInt || !isBytes {
		return refuse(reasonMalformed, "alg or sig of the android-key attestation statement is of the wrong type")
	}
	leaf := s.chain[0]
	kind := webauthncose.SigAlgFromCOSEAlg(webauthncose.COSEAlgorithmIdentifier(alg))
	if !slices.Contains(algorithms, alg) || kind == x509.UnknownSignatureAlgorithm || alg != s.auth.key.algorithm {
		return refuse(reasonAttestation, "the android-key attestation statement is signed with algorithm %d, which is not the credential's", alg)
	}
	message := slices.Concat(s.auth.raw, hash)
	if err := leaf.CheckSignature(kind, message, sig); err != nil {
		return refuse(reasonAttestation, "the signature of the android-key attestation statement is wrong")
	}
	if !s.auth.key.equal(leaf.PublicKey) {
		return refuse(reasonAttestation, "the android-key attestation certificate is for another key than the credential's")
	}
	raw, err := onlyExtension(leaf, oidAndroidKey, "android-key")
	if err != nil {
		return err
	}
	// KeyDescription, in Android's documentation of its key attestation.
	var d struct {
		Version       int
		Security      asn1.Enumerated
		MintVersion   int
		MintSecurity  asn1.Enumerated
		Challenge     []byte
		UniqueID      []byte
		Software, TEE asn1.RawValue
	}
	if rest, err := asn1.Unmarshal(raw, &d); err != nil || len(rest) != 0 {
		return refuse(reasonAttestation, "the description of the key in the android-key attestation certificate cannot be read")
	}
	if subtle.ConstantTimeCompare(d.Challenge, hash) != 1 {
		return refuse(reasonAttestation, "the android-key attestation certificate was made for another registration")
	}
	software, err := authorizations(d.Software)
	if err != nil {
		return err
	}
	tee, err := authorizations(d.TEE)
	if err != nil {
		return err
	}
	const purpose, allApplications, origin = 1, 600, 702
	if software[allApplications] != nil || tee[allApplications] != nil {
		return refuse(reasonAttestation, "the android-key attestation says that all applications may use the key")
	}
	var from int
	if raw := tee[origin]; raw == nil || !only(asn1.Unmarshal(raw, &from)) || from != 0 { // KM_ORIGIN_GENERATED
		return refuse(reasonAttestation, "the android-key attestation does not say that the key was made within the trusted execution environment")
	}
	var purposes []int
	const sign, verify = 2, 3 // KM_PURPOSE_SIGN, KM_PURPOSE_VERIFY
	if raw := tee[purpose]; raw == nil || !only(asn1.UnmarshalWithParams(raw, &purposes, "set")) || !slices.Contains(purposes, sign) ||
		slices.ContainsFunc(purposes, func(p int) bool { return p != sign && p != verify }) {
		return refuse(reasonAttestation, "the android-key attestation does not say that the key is for signing alone")
	}
	return nil
}

// authorizations reads an AuthorizationList: explicitly tagged values by tag.
func authorizations(list asn1.RawValue) (map[int][]byte, error) {
	bad := refuse(reasonAttestation, "a list of authorizations in the android-key attestation certificate cannot be read")
	if list.Class != asn1.ClassUniversal || list.Tag != asn1.TagSequence || !list.IsCompound {
		return nil, bad
	}
	found := make(map[int][]byte)
	for rest := list.Bytes; len(rest) > 0; {
		var v asn1.RawValue
		var err error
		if rest, err = asn1.Unmarshal(rest, &v); err != nil || v.Class != asn1.ClassContextSpecific || !v.IsCompound || found[v.Tag] != nil {
			return nil, bad
		}
		found[v.Tag] = append([]byte{}, v.Bytes...) // not nil, as the tag is there
	}
	return found, nil
}

// only says whether ASN.1 was read, and nothing followed it.
func only(rest []byte, err error) bool { return err == nil && len(rest) == 0 }

// proveApple verifies an Apple anonymous attestation (section 8.8).
func (s *statement) proveApple(hash []byte) error {
	leaf := s.chain[0]
	raw, err := onlyExtension(leaf, oidAppleNonce, "apple")
	if err != nil {
		return err
	}
	var value struct {
		Nonce []byte `asn1:"tag:1,explicit"`
	}
	if rest, err := asn1.Unmarshal(raw, &value); err != nil || len(rest) != 0 {
		return refuse(reasonAttestation, "the nonce in the apple attestation certificate cannot be read")
	}
	want := sha256.Sum256(slices.Concat(s.auth.raw, hash))
	if subtle.ConstantTimeCompare(value.Nonce, want[:]) != 1 {
		return refuse(reasonAttestation, "the apple attestation certificate was made for another registration")
	}
	if !s.auth.key.equal(leaf.PublicKey) {
		return refuse(reasonAttestation, "the apple attestation certificate is for another key than the credential's")
	}
	return nil
}

// onlyExtension is the value of an extension that a certificate must have, once.
func onlyExtension(c *x509.Certificate, oid asn1.ObjectIdentifier, format string) ([]byte, error) {
	var value []byte
	for _, e := range c.Extensions {
		if e.Id.Equal(oid) {
			if value != nil {
				return nil, refuse(reasonAttestation, "the %s attestation certificate has extension %v twice", format, oid)
			}
			value = e.Value
		}
	}
	if len(value) == 0 {
		return nil, refuse(reasonAttestation, "the %s attestation certificate has no extension %v", format, oid)
	}
	return value, nil
}
