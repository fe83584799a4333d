package pkcs11

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// A keyset holds the handles of the long-lived keys, good for one generation.
type keyset struct {
	kek        map[uint32]handle // all versions: old rows are unwrapped with theirs
	kekVersion uint32            // the newest, which wraps
	binding    handle
	pin        handle
	secrets    map[uint32]handle
	secretsNow uint32
	audit      handle
	auditKey   *ecdsa.PublicKey
	transport  []*transportKey // those that vendors may have encrypted to, the newest first; mostly none
	pgp        []*pgpKey       // the same of PGP keys
	statements statementHandles
	copies     []handle // session objects, see useCopies
}

// oidP256 names the curve P-256 in CKA_EC_PARAMS.
var oidP256 = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}

// alone runs f with the module to itself, on the anchor session, for the
// Provisioner's methods. It leaves when ctx is done; f may run on.
func (k *Keystore) alone(ctx context.Context, f func(g *generation) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	done := make(chan error, 1)
	go func() {
		k.m.inside.Lock()
		defer k.m.inside.Unlock()
		g := k.gen.Load()
		if g == nil {
			done <- k.why()
			return
		}
		var err error
		if k.m.epoch != g.epoch {
			err = unavailable(fmt.Errorf("the PKCS#11 module was started anew"))
		} else if err = f(g); !isLost(err) {
			done <- err
			return
		}
		k.lost(g, err)
		done <- unavailable(err)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Create makes a long-lived key: private, sensitive, not extractable, and able
// to do one thing.
func (k *Keystore) Create(ctx context.Context, name hsm.KeyName, version uint32) (hsm.KeyRecord, error) {
	return k.create(ctx, name, version, hsm.TransportBits)
}

func (k *Keystore) create(ctx context.Context, name hsm.KeyName, version uint32, bits int) (hsm.KeyRecord, error) {
	var record hsm.KeyRecord
	err := k.alone(ctx, func(g *generation) error {
		id := make([]byte, 16)
		rand.Read(id)
		if name == hsm.KeyPGP {
			hsm.DatePGP(id, time.Now(), k.PGPKeys())
		}
		r := hsm.KeyRecord{Name: name, Version: version, ID: id}
		err := generate(g.anchor, r, bits)
		if err != nil {
			return err
		}
		if r.Check, _, err = prove(g.anchor, g.profile, r); err != nil {
			return err
		}
		record = r
		return nil
	})
	if err != nil {
		return hsm.KeyRecord{}, fmt.Errorf("make HSM key %s version %d: %w", name, version, err)
	}
	return record, nil
}

// label is the CKA_LABEL of r's key: for people.
func label(r hsm.KeyRecord) string { return fmt.Sprintf("watchword %s %d", r.Name, r.Version) }

// generate makes the key of r; bits is the size of an RSA key.
func generate(c conn, r hsm.KeyRecord, bits int) error {
	attributes := func(class uint, private bool, more ...*pkcs11.Attribute) []*pkcs11.Attribute {
		return append([]*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
			pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, private),
			pkcs11.NewAttribute(pkcs11.CKA_ID, r.ID),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label(r)),
		}, more...)
	}
	secret := func(mechanism uint, keyType uint, may ...uint) error {
		t := attributes(pkcs11.CKO_SECRET_KEY, true,
			pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, keyType),
			pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false))
		for _, use := range []uint{
			pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT,
			pkcs11.CKA_SIGN, pkcs11.CKA_VERIFY, pkcs11.CKA_DERIVE,
		} {
			allowed := false
			for _, m := range may {
				allowed = allowed || m == use
			}
			t = append(t, pkcs11.NewAttribute(use, allowed))
		}
		_, err := c.m.p11.GenerateKey(c.h, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)}, t)
		if err != nil {
			return opError("C_GenerateKey", err)
		}
		return nil
	}
	switch r.Name {
	case hsm.KeyKEK:
		return secret(pkcs11.CKM_AES_KEY_GEN, pkcs11.CKK_AES, pkcs11.CKA_WRAP, pkcs11.CKA_UNWRAP)
	case hsm.KeySecrets:
		return secret(pkcs11.CKM_AES_KEY_GEN, pkcs11.CKK_AES, pkcs11.CKA_ENCRYPT, pkcs11.CKA_DECRYPT)
	case hsm.KeyBinding, hsm.KeyPIN:
		return secret(pkcs11.CKM_GENERIC_SECRET_KEY_GEN, pkcs11.CKK_GENERIC_SECRET, pkcs11.CKA_SIGN)
	case hsm.KeyAudit, hsm.KeyStatement:
		curve, err := asn1.Marshal(oidP256)
		if err != nil {
			return err
		}
		_, _, err = c.m.p11.GenerateKeyPair(c.h,
			[]*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)},
			attributes(pkcs11.CKO_PUBLIC_KEY, false,
				pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
				pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, curve),
				pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true)),
			attributes(pkcs11.CKO_PRIVATE_KEY, true,
				pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_EC),
				pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
				pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
				pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
				pkcs11.NewAttribute(pkcs11.CKA_SIGN_RECOVER, false),
				pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, false),
				pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
				pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false)))
		if err != nil {
			return opError("C_GenerateKeyPair", err)
		}
		return nil
	case hsm.KeyTransport, hsm.KeyPGP:
		unwraps := r.Name == hsm.KeyTransport // and the other decrypts
		_, _, err := c.m.p11.GenerateKeyPair(c.h,
			[]*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN, nil)},
			attributes(pkcs11.CKO_PUBLIC_KEY, false,
				pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
				pkcs11.NewAttribute(pkcs11.CKA_MODULUS_BITS, bits),
				pkcs11.NewAttribute(pkcs11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}),
				pkcs11.NewAttribute(pkcs11.CKA_WRAP, unwraps),
				pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, !unwraps),
				pkcs11.NewAttribute(pkcs11.CKA_VERIFY, false),
				pkcs11.NewAttribute(pkcs11.CKA_VERIFY_RECOVER, false)),
			attributes(pkcs11.CKO_PRIVATE_KEY, true,
				pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_RSA),
				pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
				pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
				pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, unwraps),
				pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, !unwraps),
				pkcs11.NewAttribute(pkcs11.CKA_SIGN, false),
				pkcs11.NewAttribute(pkcs11.CKA_SIGN_RECOVER, false),
				pkcs11.NewAttribute(pkcs11.CKA_DERIVE, false)))
		if err != nil {
			return opError("C_GenerateKeyPair", err)
		}
		return nil
	}
	return fmt.Errorf("there is no HSM key named %q", r.Name)
}

// Attach finds the recorded keys and proves them. Where it fails, the keys
// attached before stay in use.
func (k *Keystore) Attach(ctx context.Context, keys []hsm.KeyRecord) error {
	records := cloneRecords(keys)
	return k.alone(ctx, func(g *generation) error {
		found, err := attach(g.anchor, g.profile, records)
		if err != nil {
			return err
		}
		// A new generation on the same sessions: seeds unwrapped under the
		// keys of before are not used with these.
		next := *g
		next.keys = found
		next.down = make(chan struct{})
		next.cache = newCache(k.config.Handles)
		for _, e := range g.cache.drain() {
			_ = g.anchor.destroy(e)
		}
		if g.keys != nil {
			for _, h := range g.keys.copies {
				_ = g.anchor.destroy(h)
			}
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.closed {
			return errClosed
		}
		if k.gen.Load() != g {
			return unavailable(k.cause)
		}
		k.number++
		next.number = k.number
		k.records = records
		k.public = found.auditKey
		k.transport = found.transportKeys()
		k.pgp = found.pgpKeys()
		k.cause = nil
		k.gen.Store(&next)
		close(g.down)
		return nil
	})
}

func cloneRecords(keys []hsm.KeyRecord) []hsm.KeyRecord {
	records := make([]hsm.KeyRecord, len(keys))
	for i, r := range keys {
		records[i] = hsm.KeyRecord{Name: r.Name, Version: r.Version, ID: bytes.Clone(r.ID), Check: bytes.Clone(r.Check)}
	}
	return records
}

// proven finds a recorded key and compares its check value. The error is that of
// a lost HSM, or hsm.ErrKeyMismatch.
func proven(c conn, p *profile, r hsm.KeyRecord) (foundKey, error) {
	check, found, err := prove(c, p, r)
	if err != nil {
		if isLost(err) && !isOtherKey(err) {
			return foundKey{}, err
		}
		return foundKey{}, fmt.Errorf("%w: key %s version %d (CKA_ID %x): %w", hsm.ErrKeyMismatch, r.Name, r.Version, r.ID, err)
	}
	if !bytes.Equal(check, r.Check) {
		return foundKey{}, fmt.Errorf("%w: key %s version %d (CKA_ID %x) has another value: is this the HSM that the database was made with?",
			hsm.ErrKeyMismatch, r.Name, r.Version, r.ID)
	}
	return found, nil
}

// attach finds each recorded key and proves it.
func attach(c conn, p *profile, records []hsm.KeyRecord) (*keyset, error) {
	ks := &keyset{kek: map[uint32]handle{}, secrets: map[uint32]handle{}}
	newest := map[hsm.KeyName]uint32{}
	seen := map[hsm.KeyName]bool{}
	for _, r := range records {
		found, err := proven(c, p, r)
		if err != nil {
			return nil, err
		}
		latest := !seen[r.Name] || r.Version >= newest[r.Name]
		if latest {
			newest[r.Name] = r.Version
		}
		seen[r.Name] = true
		switch r.Name {
		case hsm.KeyKEK:
			ks.kek[r.Version] = found.key
			ks.kekVersion = newest[r.Name]
		case hsm.KeySecrets:
			ks.secrets[r.Version] = found.key
			ks.secretsNow = newest[r.Name]
		case hsm.KeyBinding:
			if latest {
				ks.binding = found.key
			}
		case hsm.KeyPIN:
			if latest {
				ks.pin = found.key
			}
		case hsm.KeyAudit:
			if latest {
				ks.audit, ks.auditKey = found.key, found.public
			}
		case hsm.KeyTransport:
			ks.transport = append(ks.transport, found.transport)
		case hsm.KeyPGP:
			ks.pgp = append(ks.pgp, found.pgp)
		case hsm.KeyStatement:
			return nil, fmt.Errorf("%w: key %s version %d is attached in another way", hsm.ErrKeyMismatch, r.Name, r.Version)
		}
	}
	for _, name := range hsm.KeyNames() {
		if !seen[name] {
			return nil, fmt.Errorf("%w: the database records no key %s", hsm.ErrKeyMismatch, name)
		}
	}
	slices.SortFunc(ks.transport, func(a, b *transportKey) int { return cmp.Compare(b.version, a.version) })
	slices.SortFunc(ks.pgp, func(a, b *pgpKey) int { return cmp.Compare(b.version, a.version) })
	ks.useCopies(c)
	return ks, nil
}

type foundKey struct {
	key    handle
	public *ecdsa.PublicKey // of the audit key or a statement key

	transport *transportKey // of a transport key
	pgp       *pgpKey       // of a PGP key
}

// prove finds the key of r and computes its check value: something that only
// this key makes, hashed.
func prove(c conn, p *profile, r hsm.KeyRecord) ([]byte, foundKey, error) {
	class := uint(pkcs11.CKO_SECRET_KEY)
	switch r.Name {
	case hsm.KeyAudit, hsm.KeyStatement, hsm.KeyTransport, hsm.KeyPGP:
		class = pkcs11.CKO_PRIVATE_KEY
	}
	key, err := find(c, class, r.ID)
	if err != nil {
		return nil, foundKey{}, err
	}
	found := foundKey{key: key}
	if err := guarded(c, key); err != nil {
		return nil, found, err
	}
	var proof []byte
	switch r.Name {
	case hsm.KeyKEK:
		// KWP is deterministic, and the KEK can do nothing but wrap.
		out := make([]byte, 64)
		proof, err = c.wrap(p.wrap, key, []byte("watchword key check, 32 bytes..."), out)
	case hsm.KeyBinding, hsm.KeyPIN:
		proof = make([]byte, 32)
		err = c.sign(pkcs11.CKM_SHA256_HMAC, key, []byte("watchword key check"), proof)
	case hsm.KeySecrets:
		// The nonce of zeros is used for this one plaintext only: Seal never
		// uses it.
		iv := make([]byte, gcmNonce)
		if proof, _, err = c.gcm(true, key, iv, []byte("watchword key check"), make([]byte, 16), make([]byte, 16+gcmTag)); err == nil && !allZero(iv) {
			// This HSM makes the nonce itself, so the ciphertext differs each
			// time: what stays is that the key opens what it sealed.
			proof, err = []byte("the module chooses its nonces"), nil
		}
	case hsm.KeyAudit, hsm.KeyStatement:
		if found.public, err = publicKey(c, r.ID); err != nil {
			return nil, found, err
		}
		digest := make([]byte, 32)
		rand.Read(digest)
		signature := make([]byte, 64)
		if err = c.sign(pkcs11.CKM_ECDSA, key, digest, signature); err == nil {
			if !verify(found.public, digest, signature) {
				return nil, found, fmt.Errorf("its public key does not belong to it")
			}
			proof, err = found.public.Bytes()
		}
	case hsm.KeyTransport:
		if found.transport, err = proveTransport(c, p, key, r); err == nil {
			proof, err = x509.MarshalPKIXPublicKey(found.transport.public)
		}
	case hsm.KeyPGP:
		if found.pgp, err = provePGP(c, p, key, r); err == nil {
			proof, err = x509.MarshalPKIXPublicKey(found.pgp.public)
		}
	default:
		return nil, found, fmt.Errorf("there is no HSM key named %q", r.Name)
	}
	if err != nil {
		return nil, found, err
	}
	sum := sha256.Sum256(append([]byte("watchword check "+string(r.Name)+"\x00"), proof...))
	return sum[:16], found, nil
}

// find finds the one object of a class with a CKA_ID.
func find(c conn, class uint, id []byte) (handle, error) {
	objects, err := findAll(c, class, id)
	if err != nil {
		return 0, err
	}
	switch len(objects) {
	case 0:
		return 0, fmt.Errorf("it is not in the HSM")
	case 1:
		return objects[0], nil
	}
	return 0, fmt.Errorf("the HSM holds more than one")
}

// findAll finds the objects of a class with a CKA_ID; two are too many.
func findAll(c conn, class uint, id []byte) ([]handle, error) {
	c.tick()
	if err := c.m.p11.FindObjectsInit(c.h, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class),
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	}); err != nil {
		return nil, opError("C_FindObjectsInit", err)
	}
	objects, _, err := c.m.p11.FindObjects(c.h, 2)
	if err2 := c.m.p11.FindObjectsFinal(c.h); err == nil {
		err = err2
	}
	if err != nil {
		return nil, opError("C_FindObjects", err)
	}
	handles := make([]handle, len(objects))
	for i, o := range objects {
		handles[i] = handle(o)
	}
	return handles, nil
}

// guarded checks that the HSM guards a key as Create asked.
func guarded(c conn, key handle) error {
	got, err := c.m.p11.GetAttributeValue(c.h, pkcs11.ObjectHandle(key), []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, nil),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil),
		pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil),
	})
	if err != nil {
		return opError("C_GetAttributeValue", err)
	}
	yes := func(a *pkcs11.Attribute) bool { return len(a.Value) == 1 && a.Value[0] != 0 }
	if !yes(got[0]) || !yes(got[1]) || yes(got[2]) {
		return fmt.Errorf("it is not private, sensitive and non-extractable")
	}
	return nil
}

// publicKey reads the public key of the audit key or a statement key.
func publicKey(c conn, id []byte) (*ecdsa.PublicKey, error) {
	object, err := find(c, pkcs11.CKO_PUBLIC_KEY, id)
	if err != nil {
		return nil, fmt.Errorf("its public key: %w", err)
	}
	got, err := c.m.p11.GetAttributeValue(c.h, pkcs11.ObjectHandle(object), []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil),
	})
	if err != nil {
		return nil, opError("C_GetAttributeValue", err)
	}
	// CKA_EC_POINT is a DER OCTET STRING around the point; some modules omit
	// the DER.
	point := got[0].Value
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, fmt.Errorf("its public key is no point of P-256")
	}
	return key, nil
}

func verify(key *ecdsa.PublicKey, digest, signature []byte) bool {
	r, s := new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])
	return ecdsa.Verify(key, digest, r, s)
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
