package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// macMechanisms are the module's HMACs of the digests that a vendor's MAC may have.
var macMechanisms = map[crypto.Hash]uint{
	crypto.SHA1:   pkcs11.CKM_SHA_1_HMAC,
	crypto.SHA224: pkcs11.CKM_SHA224_HMAC,
	crypto.SHA256: pkcs11.CKM_SHA256_HMAC,
	crypto.SHA384: pkcs11.CKM_SHA384_HMAC,
	crypto.SHA512: pkcs11.CKM_SHA512_HMAC,
}

// A macKey is the key of MACs in the HSM, for the length of one task: as a rule
// all seeds of a file have the same, and an RSA operation is what costs.
type macKey struct {
	in         rsaWrap
	ciphertext []byte // nil: none was unwrapped
	object     handle
	there      bool  // object is to be destroyed
	err        error // why there is no key to compute with
}

// is says whether k came, or would have come, out of a ciphertext.
func (k *macKey) is(in rsaWrap, ciphertext []byte) bool {
	return k.ciphertext != nil && bytes.Equal(k.ciphertext, ciphertext) &&
		k.in.hash == in.hash && k.in.mgf == in.mgf && bytes.Equal(k.in.label, in.label)
}

// drop destroys the key, as dropped does.
func (k *macKey) drop(c conn, err error) error {
	if k.there {
		err = dropped(c, k.object, err)
	}
	*k = macKey{}
	return err
}

// errMACLen: the length of a MAC's key is not known.
var errMACLen = errors.New("it does not tell how long the MAC key is")

// verify proves the MAC of item, before anything of its seed is unwrapped, and
// says whether the MAC's key had to travel through this process's memory. What
// the vendor says the MAC is never goes to the HSM: the HSM makes the right one,
// and they are compared in constant time, in full.
//
// A MAC key's ciphertext is whoever's made the file, as that of a seed is. What
// came of it is told only as one and the same error as that of a wrong MAC, so
// that it is no way to ask about RSA ciphertexts (Bleichenbacher, Manger); that
// of RSA-1_5 is made one with all its others by one.
func (r *rewrapping) verify(c conn, g *generation, t *transportKey, in rsaWrap, item *hsm.Transported) (host bool, err error) {
	m := item.MAC
	if !t.fits(m.Key) {
		return false, hsm.ErrTransportMAC
	}
	if !r.mac.is(in, m.Key) {
		if err := r.mac.drop(c, nil); err != nil {
			return false, err
		}
		r.mac = r.takeMAC(c, g, t, in, m.Key)
	}
	sum := make([]byte, m.Hash.Size())
	if err = r.mac.err; err == nil {
		if err = c.sign(macMechanisms[m.Hash], r.mac.object, item.Ciphertext, sum); err != nil && !unable(err) {
			return false, ill(err)
		}
	} else if err != errMACLen {
		return false, err
	}
	if err != nil {
		if !r.options.AllowHost {
			return false, fmt.Errorf("%w: it cannot compute HMAC-%v with the MAC key of this file, as a rule because that is shorter than the digest (%v); %w", hsm.ErrUnsupported, m.Hash, err, hsm.ErrNeedsHost)
		}
		host = true
		if sum, err = r.outsideMAC(c, g, t, in, item); err != nil {
			return false, err
		}
	}
	if !hmac.Equal(sum, m.Value) {
		return false, hsm.ErrTransportMAC
	}
	return host, nil
}

// takeMAC unwraps a MAC's key into the HSM.
func (r *rewrapping) takeMAC(c conn, g *generation, t *transportKey, in rsaWrap, ciphertext []byte) macKey {
	k := macKey{in: in, ciphertext: ciphertext}
	if k.object, k.err = r.take(c, g, t, in, ciphertext, false); k.err != nil {
		k.err = wrongMAC(k.err)
		return k
	}
	k.there = true
	n, err := seedLen(c, k.object, t.public.Size())
	switch {
	case isLost(err):
		k.err = err
	case err != nil:
		k.err = errMACLen
	case n < hsm.MinTransportMAC:
		k.err = hsm.ErrTransportMAC
	}
	return k
}

// outsideMAC computes the MAC through this process's memory.
func (r *rewrapping) outsideMAC(c conn, g *generation, t *transportKey, in rsaWrap, item *hsm.Transported) ([]byte, error) {
	room := make([]byte, t.public.Size())
	defer clear(room)
	key, err := r.read(c, g, t, in, item.MAC.Key, room)
	if err != nil {
		return nil, wrongMAC(err)
	}
	if len(key) < hsm.MinTransportMAC {
		return nil, hsm.ErrTransportMAC
	}
	return wipedHMAC(item.MAC.Hash, key, item.Ciphertext), nil
}

// wrongMAC is the error of a MAC's key that does not come out of its ciphertext.
func wrongMAC(err error) error {
	if errors.Is(err, hsm.ErrTransport) {
		return hsm.ErrTransportMAC
	}
	return err
}

// wipedHMAC is HMAC (RFC 2104). crypto/hmac keeps the key, in a form, until its
// memory is collected; here it stands in one block that is wiped. A digest keeps
// what does not fill a block, so the one of a key longer than that is overwritten.
func wipedHMAC(hash crypto.Hash, key, message []byte) []byte {
	inner, outer := hash.New(), hash.New()
	block := make([]byte, inner.BlockSize())
	defer clear(block)
	if len(key) > len(block) {
		long := hash.New()
		long.Write(key)
		long.Sum(block[:0])
		long.Write(make([]byte, len(block)))
	} else {
		copy(block, key)
	}
	for i := range block {
		block[i] ^= 0x36
	}
	inner.Write(block)
	for i := range block {
		block[i] ^= 0x36 ^ 0x5c
	}
	outer.Write(block)
	inner.Write(message)
	outer.Write(inner.Sum(nil))
	return outer.Sum(nil)
}
