package pkcs11

import (
	"bytes"
	"fmt"

	"github.com/miekg/pkcs11"
)

// SoftHSM 2.6.1 opens, locks and reads files at each use of a token object, a dozen
// times; of a session object it does none of that. So MACs are computed there with
// copies of their keys that live as long as their generation, and are as private,
// sensitive and not extractable as what they are copies of. HSMs of other makers
// are spared that: to them both are the same.

// useCopies puts session copies in the place of the keys that make MACs. One that
// cannot be had, or that does not do what its original does, is done without.
func (ks *keyset) useCopies(c conn) {
	if !c.m.leaks {
		return
	}
	for _, key := range []*handle{&ks.binding, &ks.pin} {
		if made, err := copyMAC(c, *key); err == nil {
			*key = made
			ks.copies = append(ks.copies, made)
		}
	}
}

// copyMAC makes a session copy of a key that makes MACs, and proves it.
func copyMAC(c conn, key handle) (handle, error) {
	c.tick()
	c.m.made.Add(1)
	object, err := c.m.p11.CopyObject(c.h, pkcs11.ObjectHandle(key), []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, false)})
	if err != nil {
		return 0, opError("C_CopyObject", err)
	}
	made := handle(object)
	if err := provenCopy(c, key, made); err != nil {
		_ = c.destroy(made)
		return 0, err
	}
	return made, nil
}

// provenCopy refuses a copy that does not do what its original does, or is not
// guarded like it.
func provenCopy(c conn, key, made handle) error {
	if err := guarded(c, made); err != nil {
		return err
	}
	var macs [2][32]byte
	for i, h := range []handle{key, made} {
		if err := c.sign(pkcs11.CKM_SHA256_HMAC, h, []byte("watchword key copy"), macs[i][:]); err != nil {
			return err
		}
	}
	if !bytes.Equal(macs[0][:], macs[1][:]) {
		return fmt.Errorf("C_CopyObject: the copy is another key")
	}
	return nil
}
