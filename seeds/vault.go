package seeds

import (
	"context"
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"watchword/hsm"
	"watchword/tokens"
)

// PGPCore is a Core whose HSM may hold PGP keys; what is encrypted to one of them
// is opened without any key given. *tokens.Service is one.
type PGPCore interface {
	PGPKeys() []hsm.PGPKey
	// OpenPGP decrypts a session key, for p, who imports into realm. Its error
	// wraps hsm.ErrPGPSession if the ciphertext is wrong, hsm.ErrTransportLimit
	// if there were too many of these, or else is about the core.
	OpenPGP(ctx context.Context, p tokens.Principal, realm string, version uint32, ciphertext []byte) ([]byte, error)
}

// vault opens session keys with the PGP keys in the HSM, for one import.
type vault struct {
	ctx    context.Context // of the import: a container is opened without one
	p      tokens.Principal
	realm  string
	core   PGPCore
	keys   []hsm.PGPKey
	opened string // which key opened the message, for people
}

// vault is what the core's HSM can open, nil if that is nothing.
func (im *Importer) vault(ctx context.Context, p tokens.Principal, realm string) *vault {
	core, ok := im.core.(PGPCore)
	if !ok {
		return nil
	}
	keys := core.PGPKeys()
	if len(keys) == 0 {
		return nil
	}
	return &vault{ctx: ctx, p: p, realm: realm, core: core, keys: keys}
}

// vaultError is an error that is about the core or its HSM, and not about the
// file.
type vaultError struct{ error }

func (e *vaultError) Unwrap() error { return e.error }

// open decrypts the session key that is encrypted to a key in the HSM; nil if
// there is none, or it is wrong. fit says that the message names such a key.
//
// Each wrong ciphertext counts towards a limit that an attack would run into. So
// each key is tried with one packet of a message only, and with none that hides
// its recipient, most of which are for others.
func (v *vault) open(list []*packet.EncryptedKey) (session *pgpSession, fit bool, err error) {
	for _, k := range v.keys {
		public := packet.NewRSAPublicKey(k.Made, k.Public)
		for _, e := range list {
			if e.KeyId != public.KeyId || e.Algo != packet.PubKeyAlgoRSA {
				continue
			}
			fit = true
			d := &vaultKey{v: v, key: k}
			err := e.Decrypt(&packet.PrivateKey{PublicKey: *public, PrivateKey: d}, nil)
			switch {
			case err == nil:
				v.opened = fmt.Sprintf("version %d, subkey %016X", k.Version, public.KeyId)
				return &pgpSession{e.CipherFunc, e.Key}, true, nil
			case d.err == nil:
				clear(d.plain) // of a cipher that the library lacks
			case errors.Is(d.err, hsm.ErrTransportLimit):
				return nil, true, errors.New(strings.TrimPrefix(d.err.Error(), tokens.ErrInvalid.Error()+": "))
			case !errors.Is(d.err, hsm.ErrPGPSession):
				return nil, true, &vaultError{d.err}
			}
			break
		}
	}
	return nil, fit, nil
}

// none says, where keys are in the HSM, that the message is for none of them.
func (v *vault) none(list []*packet.EncryptedKey) string {
	if v == nil {
		return ""
	}
	hidden := 0
	for _, e := range list {
		if e.KeyId == 0 {
			hidden++
		}
	}
	if hidden > 0 {
		return ", and keys in the HSM are tried only where they are named (gpg without --throw-keyids)"
	}
	return ", which is no key in the HSM"
}

// used says whether a key in the HSM opened the message.
func (v *vault) used() bool { return v != nil && v.opened != "" }

// vaultKey is a private key in the HSM as the library wants one.
type vaultKey struct {
	v   *vault
	key hsm.PGPKey

	plain []byte // what the core answered
	err   error
}

func (d *vaultKey) Public() crypto.PublicKey { return d.key.Public }

func (d *vaultKey) Decrypt(_ io.Reader, ciphertext []byte, _ crypto.DecrypterOpts) ([]byte, error) {
	if len(ciphertext) != d.key.Public.Size() {
		return nil, rsa.ErrDecryption
	}
	d.plain, d.err = d.v.core.OpenPGP(d.v.ctx, d.v.p, d.v.realm, d.key.Version, ciphertext)
	return d.plain, d.err
}
