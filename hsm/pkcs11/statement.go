package pkcs11

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/miekg/pkcs11"

	"watchword/hsm"
)

// A statement key is attached to the Keystore, not to a generation: its handle is
// found when it is first needed in one, so that keys come and go without a new
// generation, and a key that is gone keeps no HSM from coming back.

// attachedStatement is a statement key that was attached.
type attachedStatement struct {
	hsm.KeyRecord
	public *ecdsa.PublicKey
}

// statementHandles are the statement keys found in one generation, by CKA_ID.
type statementHandles struct {
	mu    sync.Mutex
	found map[string]foundStatement
}

type foundStatement struct {
	foundKey
	check []byte
}

// find answers a statement key's handle in this generation; the first time it
// looks for the key and proves it.
func (s *statementHandles) find(c conn, p *profile, r hsm.KeyRecord) (foundKey, error) {
	s.mu.Lock()
	known, ok := s.found[string(r.ID)]
	s.mu.Unlock()
	if ok && bytes.Equal(known.check, r.Check) {
		return known.foundKey, nil
	}
	found, err := proven(c, p, r)
	if err != nil {
		return foundKey{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found == nil {
		s.found = map[string]foundStatement{}
	}
	s.found[string(r.ID)] = foundStatement{found, r.Check}
	return found, nil
}

func (s *statementHandles) forget(id []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.found, string(id))
}

// CreateStatement makes a statement key.
func (k *Keystore) CreateStatement(ctx context.Context, version uint32) (hsm.KeyRecord, error) {
	return k.create(ctx, hsm.KeyStatement, version, 0)
}

// AttachStatement finds the recorded statement keys and proves them.
func (k *Keystore) AttachStatement(ctx context.Context, keys []hsm.KeyRecord) error {
	fail := func(err error) error { return fmt.Errorf("attach the statement keys: %w", err) }
	g, err := k.current(ctx)
	if err != nil {
		return fail(err)
	}
	records := cloneRecords(keys)
	for i, r := range records {
		if r.Name != hsm.KeyStatement {
			return fail(fmt.Errorf("%w: key %s version %d is no statement key", hsm.ErrKeyMismatch, r.Name, r.Version))
		}
		if slices.ContainsFunc(records[:i], func(other hsm.KeyRecord) bool { return other.Version == r.Version }) {
			return fail(fmt.Errorf("%w: version %d is recorded twice", hsm.ErrKeyMismatch, r.Version))
		}
	}
	var attached []attachedStatement
	var missing []error
	if _, err := k.do(ctx, g, func(c conn, g *generation) error {
		for _, r := range records {
			switch found, err := g.keys.statements.find(c, g.profile, r); {
			case err == nil:
				attached = append(attached, attachedStatement{r, found.public})
			case errors.Is(err, hsm.ErrKeyMismatch):
				missing = append(missing, err)
			default:
				return err
			}
		}
		return nil
	}); err != nil {
		return fail(err)
	}
	slices.SortFunc(attached, func(a, b attachedStatement) int { return cmp.Compare(b.Version, a.Version) })
	k.mu.Lock()
	k.statements = attached
	k.mu.Unlock()
	if len(missing) > 0 {
		return fail(errors.Join(missing...))
	}
	return nil
}

// StatementKeys are the statement keys as attached, whether or not the HSM
// answers.
func (k *Keystore) StatementKeys() []hsm.StatementKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	var keys []hsm.StatementKey
	for _, a := range k.statements {
		keys = append(keys, hsm.StatementKey{Version: a.Version, Public: a.public})
	}
	return keys
}

// SignStatement signs a SHA-256 digest with a statement key.
func (k *Keystore) SignStatement(ctx context.Context, version uint32, digest []byte) ([]byte, error) {
	if len(digest) != 32 {
		return nil, fmt.Errorf("sign a statement: a digest of %d bytes, not SHA-256's 32", len(digest))
	}
	fail := func(err error) ([]byte, error) { return nil, fmt.Errorf("sign a statement: %w", err) }
	g, err := k.current(ctx)
	if err != nil {
		return fail(err)
	}
	k.mu.Lock()
	i := slices.IndexFunc(k.statements, func(a attachedStatement) bool { return a.Version == version })
	var key attachedStatement
	if i >= 0 {
		key = k.statements[i]
	}
	k.mu.Unlock()
	if i < 0 {
		return fail(fmt.Errorf("%w: no statement key version %d is attached", hsm.ErrKeyMismatch, version))
	}
	digest = bytes.Clone(digest)
	signature := make([]byte, 64)
	if _, err := k.do(ctx, g, func(c conn, g *generation) error {
		found, err := g.keys.statements.find(c, g.profile, key.KeyRecord)
		if err != nil {
			return err
		}
		if err := c.sign(pkcs11.CKM_ECDSA, found.key, digest, signature); err != nil {
			return err
		}
		if !verify(key.public, digest, signature) {
			return ill(fmt.Errorf("a signature of key %s version %d does not verify", key.Name, key.Version))
		}
		return nil
	}); err != nil {
		return fail(err)
	}
	return signature, nil
}

// DestroyStatement destroys a statement key.
func (k *Keystore) DestroyStatement(ctx context.Context, r hsm.KeyRecord) error {
	id := bytes.Clone(r.ID)
	fail := func(err error) error {
		return fmt.Errorf("destroy HSM key %s version %d: %w", r.Name, r.Version, err)
	}
	if r.Name != hsm.KeyStatement || len(id) == 0 {
		return fail(errors.New("it is no statement key"))
	}
	if err := k.alone(ctx, func(g *generation) error {
		// The private half first: if the other stays, it does no harm, and is found
		// when this is called again.
		var objects []handle
		for _, class := range []uint{pkcs11.CKO_PRIVATE_KEY, pkcs11.CKO_PUBLIC_KEY} {
			found, err := findLabelled(g.anchor, class, id, label(r))
			if err != nil {
				return err
			}
			objects = append(objects, found...)
		}
		// From here on its handle means nothing.
		k.mu.Lock()
		k.statements = slices.DeleteFunc(slices.Clone(k.statements), func(a attachedStatement) bool { return bytes.Equal(a.ID, id) })
		k.mu.Unlock()
		if g.keys != nil {
			g.keys.statements.forget(id)
		}
		for _, object := range objects {
			if err := g.anchor.destroy(object); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fail(err)
	}
	return nil
}

// findLabelled finds the objects of a class with a CKA_ID. It fails if one has not
// the label that we gave it: nothing else in the HSM may come to harm.
func findLabelled(c conn, class uint, id []byte, label string) ([]handle, error) {
	objects, err := findAll(c, class, id)
	if err != nil {
		return nil, err
	}
	for _, object := range objects {
		got, err := c.m.p11.GetAttributeValue(c.h, pkcs11.ObjectHandle(object), []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, nil),
		})
		if err != nil {
			return nil, opError("C_GetAttributeValue", err)
		}
		if string(got[0].Value) != label {
			return nil, errors.New("what the HSM holds under its CKA_ID has another label")
		}
	}
	return objects, nil
}
