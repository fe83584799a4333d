package webauthn

import (
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/go-webauthn/webauthn/metadata"
	"github.com/go-webauthn/webauthn/protocol"

	"watchword/tokens"
)

// What an attestation proved (section 6.5.4), as tokens.Credential has it.
const (
	attestedBasic  = "basic"  // by a key that all authenticators of the batch share
	attestedAttCA  = "attca"  // by a key that a CA certified for this authenticator
	attestedAnonCA = "anonca" // by a certificate that a CA made for this credential alone
	attestedSelf   = "self"   // by the credential's own key, or by a key that nobody vouches for: nothing about the model
	attestedNone   = "none"
)

// statement is an attestation statement whose signature holds. Who vouches for
// the key that made it is another question (vouch).
type statement struct {
	format  string
	kind    string // one of attested*, before anybody vouched
	auth    *authenticator
	aaguid  [16]byte            // zeros where the statement does not cover it
	chain   []*x509.Certificate // attestation certificate first; nil for self and none
	keyID   string              // SHA-1 key identifier of the attestation key, hex; empty without chain
	serial  string              // of the authenticator, by enterprise attestation; empty if it does not say
	trusted *x509.Certificate   // the root that vouches for the chain; nil: nobody does
}

// formats are the members that a statement of each format may have; those with a
// question mark may be missing (section 8).
var formats = map[string][]string{
	"none":        {},
	"packed":      {"alg", "sig", "x5c?"},
	"fido-u2f":    {"sig", "x5c"},
	"tpm":         {"ver", "alg", "x5c", "sig", "certInfo", "pubArea"},
	"android-key": {"alg", "sig", "x5c"},
	"apple":       {"x5c"},
}

// What a statement may have at most, so that none costs much to verify: certificates
// (telephones have four), and bits of an RSA key.
const (
	maxChain = 8
	maxRSA   = 8192
)

// attest reads an attestation object and proves its statement: that whoever
// holds the attestation key signed these authenticator data for this client data,
// with certificates that are valid at the time.
func attest(a *answer, st *session, now time.Time) (*statement, error) {
	var object map[string]cbor.RawMessage
	if err := strict.Unmarshal(a.attestation, &object); err != nil {
		return nil, refuse(reasonMalformed, "the attestation object is not a CBOR map of names, or something follows it")
	}
	if len(object) != 3 || object["fmt"] == nil || object["authData"] == nil || object["attStmt"] == nil {
		return nil, refuse(reasonMalformed, "the attestation object has other members than fmt, authData and attStmt")
	}
	s := new(statement)
	var raw []byte
	if strict.Unmarshal(object["fmt"], &s.format) != nil || strict.Unmarshal(object["authData"], &raw) != nil {
		return nil, refuse(reasonMalformed, "fmt or authData of the attestation object is of the wrong type")
	}
	var err error
	if s.auth, err = parseAuthenticator(raw, st); err != nil {
		return nil, err
	}
	if err := s.auth.checkNew(a); err != nil {
		return nil, err
	}
	members, err := s.members(object["attStmt"])
	if err != nil {
		return nil, err
	}
	for i, c := range s.chain {
		switch {
		case now.After(c.NotAfter):
			return nil, refuse(reasonAttestation, "certificate %d of the attestation expired on %s", i+1, c.NotAfter.UTC().Format(time.DateOnly))
		case now.Before(c.NotBefore):
			return nil, refuse(reasonAttestation, "certificate %d of the attestation is valid only from %s on", i+1, c.NotBefore.UTC().Format(time.DateOnly))
		}
	}
	if err := s.read(); err != nil {
		return nil, err
	}
	return s, s.prove(members, a.hash[:])
}

// members reads the statement and makes sure that it has those members that its
// format has, and no others: go-webauthn passes over what it does not expect, and
// takes a packed statement whose x5c is no list for self attestation.
func (s *statement) members(raw cbor.RawMessage) (map[string]any, error) {
	want, known := formats[s.format]
	switch {
	case s.format == "android-safetynet":
		return nil, refuse(reasonAttestation, "attestation by SafetyNet is not accepted: Google ended that service, and nobody vouches for its answers any more")
	case !known:
		return nil, refuse(reasonAttestation, "attestation format %s is not understood", printable(s.format))
	}
	var found map[string]any
	if err := strict.Unmarshal(raw, &found); err != nil {
		return nil, refuse(reasonMalformed, "the %s attestation statement is not a CBOR map of names", s.format)
	}
	left := len(found)
	for _, name := range want {
		name, optional := strings.CutSuffix(name, "?")
		value, there := found[name]
		switch {
		case there:
			left--
		case !optional:
			return nil, refuse(reasonMalformed, "the %s attestation statement has no %s", s.format, name)
		default:
			continue
		}
		if name == "x5c" {
			if err := s.readChain(value); err != nil {
				return nil, err
			}
		}
	}
	if left != 0 {
		return nil, refuse(reasonMalformed, "the %s attestation statement has members that do not belong there", s.format)
	}
	if s.format == "none" && len(raw) != 1 {
		return nil, refuse(reasonMalformed, "a statement of format none is not empty")
	}
	return found, nil
}

func (s *statement) readChain(value any) error {
	list, ok := value.([]any)
	if !ok || len(list) < 1 || len(list) > maxChain {
		return refuse(reasonMalformed, "x5c of the %s attestation statement is not a list of 1 to %d certificates", s.format, maxChain)
	}
	for i, item := range list {
		der, _ := item.([]byte)
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return refuse(reasonAttestation, "certificate %d of the attestation cannot be read: %s", i+1, printable(err.Error()))
		}
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
			return refuse(reasonAttestation, "certificate %d of the attestation has an RSA key of %d bits; up to %d are possible", i+1, key.N.BitLen(), maxRSA)
		}
		s.chain = append(s.chain, c)
	}
	// Each was issued by the next. Otherwise there could be anything behind the leaf.
	for i, c := range s.chain[1:] {
		if err := s.chain[i].CheckSignatureFrom(c); err != nil {
			return refuse(reasonAttestation, "certificate %d of the attestation was not issued by certificate %d: %s", i+1, i+2, printable(err.Error()))
		}
	}
	if last := s.chain[len(s.chain)-1]; len(s.chain) > 1 && string(last.RawSubject) == string(last.RawIssuer) {
		if err := last.CheckSignatureFrom(last); err != nil {
			return refuse(reasonAttestation, "the last certificate of the attestation names itself as its issuer, and is not: %s", printable(err.Error()))
		}
	}
	return nil
}

// prove verifies the statement by its format's procedure (section 8). Android's
// and Apple's are done here because go-webauthn accepts only its own roots for
// them, and expired certificates.
func (s *statement) prove(members map[string]any, hash []byte) error {
	switch s.format {
	case "android-key":
		s.kind = attestedBasic
		return s.proveAndroid(members, hash)
	case "apple":
		s.kind = attestedAnonCA
		return s.proveApple(hash)
	}
	object := protocol.AttestationObject{AuthData: s.auth.AuthenticatorData, RawAuthData: s.auth.raw, Format: s.format, AttStatement: members}
	if err := object.VerifyAttestation(hash, nil, protocol.AttestationPolicy{}, protocol.SignaturePolicy{}); err != nil {
		return refuse(reasonAttestation, "the %s attestation statement does not hold: %s", s.format, libraryError(err))
	}
	switch metadata.AuthenticatorAttestationType(object.Type) {
	case metadata.BasicFull:
		s.kind = attestedBasic
	case metadata.BasicSurrogate:
		s.kind = attestedSelf
	case metadata.AttCA:
		s.kind = attestedAttCA
	case metadata.None:
		s.kind = attestedNone
	}
	if s.kind == "" || (s.chain == nil) != (s.kind == attestedSelf || s.kind == attestedNone) {
		return refuse(reasonAttestation, "the %s attestation statement proves something that is not understood", s.format)
	}
	return nil
}

// The extensions of attestation certificates (FIDO Alliance, 45724).
var (
	oidAAGUID       = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 4} // id-fido-gen-ce-aaguid
	oidSerialNumber = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 45724, 1, 1, 2} // id-fido-gen-ce-sernum
)

// read takes from the statement what it says of the authenticator.
func (s *statement) read() error {
	s.aaguid = [16]byte(s.auth.AttData.AAGUID)
	if s.format == "fido-u2f" {
		// A U2F signature covers neither AAGUID nor flags (section 8.6), and U2F
		// cannot verify its user.
		s.aaguid, s.auth.verified = [16]byte{}, false
	}
	if s.chain == nil {
		return nil
	}
	leaf := s.chain[0]
	var err error
	if s.keyID, err = keyIdentifier(leaf); err != nil {
		return err
	}
	named, there, err := octets(leaf, oidAAGUID, "AAGUID")
	switch {
	case err != nil:
		return err
	case there && s.format == "fido-u2f" && len(named) == 16:
		// U2F's own certificates may name the model that speaks FIDO2 too.
	case there && string(named) != string(s.auth.AttData.AAGUID):
		return refuse(reasonAttestation, "the attestation certificate is for another model (AAGUID %s) than the authenticator says it is (%s)",
			hex.EncodeToString(named), tokens.FormatAAGUID([16]byte(s.auth.AttData.AAGUID)))
	}
	number, there, err := octets(leaf, oidSerialNumber, "serial number")
	if err != nil {
		return err
	}
	if there && s.format == "packed" {
		if len(number) < 1 || len(number) > 32 {
			return refuse(reasonAttestation, "the attestation certificate names a serial number of %d bytes; 1 to 32 are possible", len(number))
		}
		s.serial = deviceSerial(number)
	}
	return nil
}

// octets reads a certificate's extension that holds an OCTET STRING and is not
// critical (sections 8.2.1 and 8.2.2).
func octets(c *x509.Certificate, oid asn1.ObjectIdentifier, what string) (value []byte, there bool, err error) {
	for _, e := range c.Extensions {
		if !e.Id.Equal(oid) {
			continue
		}
		if there {
			return nil, true, refuse(reasonAttestation, "the attestation certificate names its %s twice", what)
		}
		there = true
		rest, err := asn1.Unmarshal(e.Value, &value)
		if err != nil || len(rest) != 0 || e.Critical {
			return nil, true, refuse(reasonAttestation, "the attestation certificate's extension for its %s is not as it must be: one OCTET STRING, not critical", what)
		}
	}
	return value, there, nil
}

// deviceSerial writes an authenticator's serial number. It is octets to the
// standard: vendors put text or a number there. Letters and digits are written as
// they are, anything else in hex.
func deviceSerial(number []byte) string {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"
	if len(number) > 4 && strings.Trim(string(number), plain) == "" {
		return string(number)
	}
	return hex.EncodeToString(number)
}

// keyIdentifier is the SHA-1 of a certificate's public key, as the metadata names
// the attestation keys of models without AAGUID (RFC 5280, section 4.2.1.2, method 1).
func keyIdentifier(c *x509.Certificate) (string, error) {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &info); err != nil || len(rest) != 0 {
		return "", refuse(reasonAttestation, "the attestation certificate's public key cannot be read")
	}
	sum := sha1.Sum(info.Key.RightAlign())
	return hex.EncodeToString(sum[:]), nil
}

// vouch looks for the root that vouches for the chain, at the time. It answers an
// error that says why none does.
func (s *statement) vouch(roots []*x509.Certificate, now time.Time) error {
	leaf := s.chain[0]
	if s.format == "tpm" {
		// The name of an AIK is in a critical extension that crypto/x509 does not
		// know; go-webauthn has checked it (section 8.3.1).
		known := *leaf
		known.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions), func(id asn1.ObjectIdentifier) bool {
			return id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17})
		})
		leaf = &known
	}
	options := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	for _, c := range roots {
		options.Roots.AddCert(c)
	}
	for _, c := range s.chain[1:] {
		options.Intermediates.AddCert(c)
	}
	paths, err := leaf.Verify(options)
	if err == nil {
		path := paths[0]
		s.trusted = path[len(path)-1]
		return nil
	}
	var expired x509.CertificateInvalidError
	if errors.As(err, &expired) && expired.Reason == x509.Expired {
		return refuse(reasonAttestation, "the root that the attestation leads to is expired, or not valid yet")
	}
	if unknown := (x509.UnknownAuthorityError{}); errors.As(err, &unknown) {
		return refuse(reasonAttestation, "the attestation certificate leads to no root that is trusted for this model (its issuer is %s)", printable(s.chain[len(s.chain)-1].Issuer.String()))
	}
	return refuse(reasonAttestation, "the attestation certificate does not lead to a trusted root: %s", printable(err.Error()))
}

// libraryError is go-webauthn's explanation. What it says for programmers may
// hold the values it compared, so it stays out.
func libraryError(err error) string {
	var e *protocol.Error
	if errors.As(err, &e) && e.Details != "" {
		return printable(e.Details)
	}
	return "it is not as the standard wants it"
}
