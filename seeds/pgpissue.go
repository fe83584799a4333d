package seeds

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"watchword/hsm"
)

// An OpenPGP key is a primary key that certifies, and here a subkey that files
// are encrypted to. The PGP key in the HSM cannot be the primary: a key that signs
// by raw RSA also decrypts what was encrypted to it. So, as for the transport
// key's certificate, the audit key certifies, and is the primary key of each
// version's OpenPGP key.
//
// What it signs here begins with 0x99, the first octet of what a version 4
// signature over a key hashes (RFC 9580, section 5.2.4). What it signs of the audit
// begins with a text, and certificates begin with 0x30: none passes for another.
// Of version 6, which hashes a salt first, nothing is signed.

// PGPPublicKey is an OpenPGP public key to send to vendors.
type PGPPublicKey struct {
	Armoured    []byte // the key, with its user id, subkey and their signatures
	Fingerprint []byte // of the primary key, 20 bytes: the same in every copy of the key
}

// IssuePGP writes the OpenPGP public key of a PGP key, certified by the audit key
// now, or when the key was made if that is later. name, of 1 to 40 printable ASCII
// characters without parentheses and angle brackets, is how its owner calls the installation; it is for people. Each call
// makes other signatures of the same key.
func IssuePGP(ctx context.Context, signer hsm.Signer, key hsm.PGPKey, name string, now time.Time) (PGPPublicKey, error) {
	fail := func(err error) (PGPPublicKey, error) {
		return PGPPublicKey{}, fmt.Errorf("certify PGP key %d: %w", key.Version, err)
	}
	if err := CheckPGPName(name); err != nil {
		return fail(err)
	}
	uid := packet.NewUserId(name, fmt.Sprintf("Watchword seeds %d", key.Version), "")
	if now.Before(key.Made) {
		now = key.Made
	}
	audit, ok := signer.PublicKey().(*ecdsa.PublicKey)
	if !ok {
		return fail(fmt.Errorf("%w: no audit key is attached", hsm.ErrUnavailable))
	}
	public, err := pgpP256(audit, key.Made)
	if err != nil {
		return fail(err)
	}
	primary := &packet.PrivateKey{PublicKey: *public, PrivateKey: hsm.CryptoSigner(ctx, signer)}
	subkey := packet.NewRSAPublicKey(key.Made, key.Public)
	subkey.IsSubkey = true
	config := &packet.Config{
		DefaultHash: crypto.SHA256, Time: func() time.Time { return now },
		NonDeterministicSignaturesViaNotation: new(bool), // the HSM sees to that
	}

	self := pgpSelfSignature(packet.SigTypePositiveCert, public, now)
	self.IsPrimaryId = new(bool)
	*self.IsPrimaryId = true
	self.FlagCertify = true
	// What the reader of messages takes: no BZIP2, and integrity by MDC, which is
	// what every program has.
	self.SEIPDv1 = true
	self.PreferredSymmetric = []uint8{uint8(packet.CipherAES256), uint8(packet.CipherAES128)}
	self.PreferredHash = []uint8{8, 9, 10} // SHA-256, SHA-384, SHA-512
	self.PreferredCompression = []uint8{uint8(packet.CompressionZLIB), uint8(packet.CompressionZIP), uint8(packet.CompressionNone)}
	if err := self.SignUserId(uid.Id, &primary.PublicKey, primary, config); err != nil {
		return fail(err)
	}
	bind := pgpSelfSignature(packet.SigTypeSubkeyBinding, public, now)
	bind.FlagEncryptCommunications, bind.FlagEncryptStorage = true, true
	if err := bind.SignKey(subkey, primary, config); err != nil {
		return fail(err)
	}
	var out bytes.Buffer
	w, err := armor.Encode(&out, "PGP PUBLIC KEY BLOCK", nil)
	if err != nil {
		return fail(err)
	}
	for _, p := range []interface{ Serialize(io.Writer) error }{&primary.PublicKey, uid, self, subkey, bind} {
		if err := p.Serialize(w); err != nil {
			return fail(err)
		}
	}
	if err := w.Close(); err != nil {
		return fail(err)
	}
	return PGPPublicKey{Armoured: append(out.Bytes(), '\n'), Fingerprint: primary.Fingerprint}, nil
}

// CheckPGPName says what keeps name from being one for IssuePGP.
func CheckPGPName(name string) error {
	if err := hsm.CheckIssuerName(name); err != nil {
		return err
	}
	if strings.ContainsAny(name, "()<>") { // which set a comment and an address apart
		return errors.New("its name has a parenthesis or an angle bracket")
	}
	return nil
}

// pgpSelfSignature is a signature of the audit key's, to be filled in.
func pgpSelfSignature(kind packet.SignatureType, signer *packet.PublicKey, now time.Time) *packet.Signature {
	return &packet.Signature{
		Version: 4, SigType: kind, PubKeyAlgo: packet.PubKeyAlgoECDSA, Hash: crypto.SHA256,
		CreationTime: now, IssuerKeyId: &signer.KeyId, FlagsValid: true,
	}
}

// pgpP256 is a public key on P-256 as a version 4 key for ECDSA (RFC 9580,
// sections 5.5.2.2 and 5.5.5.4).
func pgpP256(key *ecdsa.PublicKey, made time.Time) (*packet.PublicKey, error) {
	point, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	body := binary.BigEndian.AppendUint32([]byte{4}, uint32(made.Unix()))
	body = append(body, byte(packet.PubKeyAlgoECDSA), 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07)
	// As a number, whose length is in bits: the point begins with 4.
	body = append(binary.BigEndian.AppendUint16(body, uint16(8*len(point)-5)), point...)
	public, ok := libraryPacket(pgpPublicKey, body).(*packet.PublicKey)
	if !ok {
		return nil, errors.New("the audit key is no key of OpenPGP's")
	}
	return public, nil
}
