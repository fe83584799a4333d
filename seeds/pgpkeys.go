package seeds

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// GnuPG 2.3 and later encrypt in a format of their own, the passwords of which
// are in packets of version 5. The library reads these only if it is told to.
func init() { packet.V5Disabled = false }

// pgpKeys are the keys and the password that an import was given.
type pgpKeys struct {
	private  []*packet.PrivateKey
	vault    *vault             // nil if there is none
	signers  openpgp.EntityList // nil if none was given
	password []byte
}

// readPGPKeys parses the keys that o holds. Its errors hold nothing of them.
func readPGPKeys(o *OpenOptions) (*pgpKeys, error) {
	k := &pgpKeys{vault: o.vault, password: o.Password}
	if o.PGPKey != nil {
		list, err := readKeyRing(o.PGPKey)
		if err != nil {
			return nil, errors.New("the file given with --pgp-key-file is no PGP key that can be read")
		}
		for _, e := range list {
			if e.PrivateKey != nil {
				k.private = append(k.private, e.PrivateKey)
			}
			for _, s := range e.Subkeys {
				if s.PrivateKey != nil {
					k.private = append(k.private, s.PrivateKey)
				}
			}
		}
		if len(k.private) == 0 {
			return nil, errors.New("the file given with --pgp-key-file holds a public key; the private one is needed (gpg --export-secret-keys)")
		}
	}
	if o.PGPSigner != nil {
		var err error
		if k.signers, err = readKeyRing(o.PGPSigner); err != nil {
			return nil, errors.New("the file given with --pgp-signer-file is no PGP key that can be read")
		}
	}
	return k, nil
}

// readKeyRing reads keys, armoured or binary.
func readKeyRing(file []byte) (list openpgp.EntityList, err error) {
	if bytes.HasPrefix(bytes.TrimSpace(file), []byte("-----BEGIN")) {
		list, err = openpgp.ReadArmoredKeyRing(bytes.NewReader(file))
	} else {
		list, err = openpgp.ReadKeyRing(bytes.NewReader(file))
	}
	if err == nil && len(list) == 0 {
		err = errors.New("there is no key")
	}
	return list, err
}

// unlock decrypts a private key if it is protected by a passphrase.
func (k *pgpKeys) unlock(key *packet.PrivateKey) error {
	switch {
	case key.Dummy():
		return errors.New("the private key that it is encrypted to is not in the file given with --pgp-key-file, only a hint that it is kept elsewhere (on a smart card)")
	case !key.Encrypted:
		return nil
	case len(k.password) == 0:
		return errors.New("the private key is protected by a passphrase; give it with --password-file")
	case key.Decrypt(k.password) != nil:
		return errors.New("the passphrase of the private key is not the one given with --password-file")
	}
	return nil
}

// pgpSigning is what a message shows of signatures. They are checked if signers
// are given, and then one must be good.
type pgpSigning struct {
	signers openpgp.EntityList
	now     time.Time
	list    []pgpSignatureState // in the order of their beginning
	ended   int                 // signatures that came behind the file
}

// pgpSignatureState is a signature, from its announcement to its check.
type pgpSignatureState struct {
	keyID   uint64
	kind    packet.SignatureType
	hash    crypto.Hash
	direct  hash.Hash // nil if it is not to be checked
	wrapped hash.Hash // what the file is written to
	early   bool      // the signature itself came before the file
	sig     *packet.Signature
}

func (s *pgpSigning) signed() bool { return len(s.list) > 0 }

// begin reads a packet that announces a signature, or, as PGP 2 wrote it, is one.
func (s *pgpSigning) begin(tag int, body *pgpBody) error {
	text, err := body.all()
	if err != nil {
		return err
	}
	if len(s.list) == maxPGPSigs {
		return fmt.Errorf("it has more than %d signatures", maxPGPSigs)
	}
	var state pgpSignatureState
	switch p := libraryPacket(tag, text).(type) {
	case *packet.OnePassSignature:
		state = pgpSignatureState{keyID: p.KeyId, kind: p.SigType, hash: p.Hash}
		s.listen(&state, p.Salt)
	case *packet.Signature:
		state = pgpSignatureState{kind: p.SigType, hash: p.Hash, early: true, sig: p}
		if p.IssuerKeyId != nil {
			state.keyID = *p.IssuerKeyId
		}
		s.listen(&state, p.Salt())
	default:
		if s.signers != nil {
			return errors.New("it has a signature of a kind that is not known")
		}
	}
	s.list = append(s.list, state)
	return nil
}

// listen prepares a signature's hash if its key is among the signers'. Hashes
// that can be forged are not listened to.
func (s *pgpSigning) listen(state *pgpSignatureState, salt []byte) {
	if len(s.signers.KeysByIdUsage(state.keyID, packet.KeyFlagSign)) == 0 || !state.hash.Available() {
		return
	}
	switch state.hash {
	case crypto.SHA256, crypto.SHA384, crypto.SHA512, crypto.SHA224, crypto.SHA3_256, crypto.SHA3_512:
	default:
		return
	}
	state.direct = state.hash.New()
	state.direct.Write(salt)
	switch state.wrapped = state.direct; state.kind {
	case packet.SigTypeBinary:
	case packet.SigTypeText:
		state.wrapped = openpgp.NewCanonicalTextHash(state.direct)
	default:
		state.direct = nil
	}
}

// write takes a piece of the file.
func (s *pgpSigning) write(b []byte) {
	for i := range s.list {
		if s.list[i].direct != nil {
			s.list[i].wrapped.Write(b)
		}
	}
}

// end reads a signature behind the file. The last that was announced comes
// first (RFC 9580, section 10.3).
func (s *pgpSigning) end(body *pgpBody) error {
	text, err := body.all()
	if err != nil {
		return err
	}
	for i := len(s.list) - 1 - s.ended; i >= 0; i-- {
		state := &s.list[i]
		s.ended++
		if state.early {
			continue
		}
		if sig, ok := libraryPacket(pgpSignature, text).(*packet.Signature); ok {
			state.sig = sig
		}
		return nil
	}
	return errPGPOrder
}

// verify checks the signatures if it is asked to.
func (s *pgpSigning) verify() error {
	if s.signers == nil {
		return nil
	}
	for i := range s.list {
		if s.good(&s.list[i]) {
			return nil
		}
	}
	return errors.New("it carries no good signature of the key given with --pgp-signer-file: it was signed by another one, or not as it is, or with a hash that can be forged")
}

func (s *pgpSigning) good(state *pgpSignatureState) bool {
	sig := state.sig
	if state.direct == nil || sig == nil || sig.SigType != state.kind || sig.Hash != state.hash || sig.IssuerKeyId == nil || *sig.IssuerKeyId != state.keyID || sig.SigExpired(s.now) {
		return false
	}
	for _, n := range sig.Notations {
		if n.IsCritical {
			return false
		}
	}
	for _, k := range s.signers.KeysByIdUsage(state.keyID, packet.KeyFlagSign) {
		// A key that has expired since then was good when it signed; one that was
		// revoked is none.
		expired := k.PublicKey.KeyExpired(k.SelfSignature, sig.CreationTime)
		primary, _ := k.Entity.PrimarySelfSignature()
		if primary != nil {
			expired = expired || k.Entity.PrimaryKey.KeyExpired(primary, sig.CreationTime)
		}
		if expired || k.Revoked(s.now) || k.Entity.Revoked(s.now) || sig.CreationTime.Before(k.PublicKey.CreationTime) {
			continue
		}
		if k.PublicKey.VerifySignature(state.direct, sig) == nil {
			return true
		}
	}
	return false
}

// notes says what became of the signatures.
func (s *pgpSigning) notes() []string {
	switch {
	case !s.signed():
		return nil
	case s.signers != nil:
		return []string{"The PGP message carries a good signature of the key given."}
	}
	return []string{fmt.Sprintf("The PGP message is signed by key %016X; the signature was not checked, for want of --pgp-signer-file.", s.list[0].keyID)}
}

func (s *pgpSigning) wipe() {
	for i := range s.list {
		if s.list[i].direct != nil {
			wipeHash(s.list[i].direct)
		}
	}
}
