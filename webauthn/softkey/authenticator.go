package softkey

import (
	"crypto/sha256"
	"encoding/binary"
)

// Flags of the authenticator data (WebAuthn §6.1).
const (
	flagUP = 0x01
	flagUV = 0x04
	flagBE = 0x08
	flagBS = 0x10
	flagAT = 0x40
	flagED = 0x80
)

// creation is what a credential is made from, once the request was checked and
// the user agreed.
type creation struct {
	clientDataHash []byte
	rpID           string
	user           User
	alg            Algorithm
	resident       bool
	verified       bool
	enterprise     bool // enterprise attestation is asked for
	protect        byte // credProtect level; 0: none was asked for
	extensions     []byte
}

// created is a new credential and how it is attested.
type created struct {
	credential *credential
	authData   []byte
	format     string
	statement  map[string]any
	enterprise bool
}

// create makes a credential and attests it (WebAuthn §6.3.2, CTAP 2.1 §6.1.2
// from step 16). It answers nil when there is no room for a resident one.
func (k *Key) create(c creation) (*created, error) {
	f := k.wrong()
	rpIDHash := sha256.Sum256([]byte(c.rpID))
	protect := c.protect
	if protect == 0 {
		protect = 1
	}
	k.mu.RLock()
	w := k.wrapping
	k.mu.RUnlock()
	cred, err := w.create(c.alg, rpIDHash, protect, c.resident)
	if err != nil {
		return nil, err
	}
	if c.resident {
		cred.rpID, cred.user = c.rpID, c.user
		if !k.keep(cred, w) {
			return nil, nil
		}
	}
	w.remember(cred)
	attested := make([]byte, 0, 18+len(cred.id)+len(cred.public))
	attested = append(attested, k.aaguid[:]...)
	attested = binary.BigEndian.AppendUint16(attested, uint16(len(cred.id)))
	attested = append(attested, cred.id...)
	attested = append(attested, cred.public...)
	made := &created{credential: cred, authData: k.authData(f, rpIDHash, c.verified, true, attested, c.extensions)}
	made.enterprise = c.enterprise && k.o.Serial != ""
	made.format, made.statement, err = k.attest(f, cred, made.authData, c.clientDataHash, made.enterprise)
	if err != nil {
		return nil, err
	}
	return made, nil
}

// assert signs with a credential: the authenticator data and the signature
// (WebAuthn §6.3.3).
func (k *Key) assert(c *credential, clientDataHash []byte, present, verified bool, extensions []byte) (authData, signature []byte, err error) {
	f := k.wrong()
	authData = k.authData(f, c.rpIDHash, verified, present, nil, extensions)
	signature, err = c.alg.sign(c.signer, authData, clientDataHash)
	if err != nil {
		return nil, nil, err
	}
	if f.Signature != nil {
		signature = f.Signature(signature)
	}
	return authData, signature, nil
}

// authData writes the authenticator data, with the attested credential data or
// the extensions' CBOR map if there are any.
func (k *Key) authData(f *Faults, rpIDHash [32]byte, verified, present bool, attested, extensions []byte) []byte {
	if f.RPID != "" {
		rpIDHash = sha256.Sum256([]byte(f.RPID))
	}
	var flags byte
	if present && !f.Absent {
		flags |= flagUP
	}
	if verified && !f.Unverified {
		flags |= flagUV
	}
	if k.o.BackupEligible {
		flags |= flagBE
	}
	if k.backedUp.Load() {
		flags |= flagBS
	}
	if attested != nil {
		flags |= flagAT
	}
	if extensions != nil {
		flags |= flagED
	}
	out := make([]byte, 0, 37+len(attested)+len(extensions))
	out = append(out, rpIDHash[:]...)
	out = append(out, flags)
	out = binary.BigEndian.AppendUint32(out, k.count())
	out = append(out, attested...)
	out = append(out, extensions...)
	if f.AuthData != nil {
		out = f.AuthData(out)
	}
	return out
}
