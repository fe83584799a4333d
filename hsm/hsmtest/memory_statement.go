package hsmtest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	"watchword/hsm"
)

// memoryStatement is a statement key that is attached.
type memoryStatement struct {
	version uint32
	key     *ecdsa.PrivateKey
}

// CreateStatement makes a statement key.
func (m *Memory) CreateStatement(ctx context.Context, version uint32) (hsm.KeyRecord, error) {
	if _, err := m.use(ctx); err != nil {
		return hsm.KeyRecord{}, err
	}
	return m.create(ctx, hsm.KeyStatement, version, 0)
}

// AttachStatement finds the keys.
func (m *Memory) AttachStatement(ctx context.Context, records []hsm.KeyRecord) error {
	if _, err := m.use(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var attached []memoryStatement
	var missing []error
	for i, r := range records {
		if r.Name != hsm.KeyStatement || slices.ContainsFunc(records[:i], func(other hsm.KeyRecord) bool { return other.Version == r.Version }) {
			return fmt.Errorf("%w: key %s version %d is no statement key, or is recorded twice", hsm.ErrKeyMismatch, r.Name, r.Version)
		}
		j := slices.IndexFunc(m.made, func(k memoryKey) bool {
			return bytes.Equal(k.record.ID, r.ID) && k.record.Name == r.Name && bytes.Equal(k.record.Check, r.Check)
		})
		if j < 0 {
			missing = append(missing, fmt.Errorf("%w: key %s version %d", hsm.ErrKeyMismatch, r.Name, r.Version))
			continue
		}
		attached = append(attached, memoryStatement{r.Version, m.made[j].signer})
	}
	slices.SortFunc(attached, func(a, b memoryStatement) int { return cmp.Compare(b.version, a.version) })
	m.statements = attached
	return errors.Join(missing...)
}

// StatementKeys are those attached.
func (m *Memory) StatementKeys() []hsm.StatementKey {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []hsm.StatementKey
	for _, s := range m.statements {
		all = append(all, hsm.StatementKey{Version: s.version, Public: &s.key.PublicKey})
	}
	return all
}

// SignStatement signs a digest.
func (m *Memory) SignStatement(ctx context.Context, version uint32, digest []byte) ([]byte, error) {
	if len(digest) != 32 {
		return nil, fmt.Errorf("sign a statement: a digest of %d bytes", len(digest))
	}
	if _, err := m.use(ctx); err != nil {
		return nil, err
	}
	m.mu.Lock()
	i := slices.IndexFunc(m.statements, func(s memoryStatement) bool { return s.version == version })
	var key *ecdsa.PrivateKey
	if i >= 0 {
		key = m.statements[i].key
	}
	m.mu.Unlock()
	if key == nil {
		return nil, fmt.Errorf("%w: no statement key version %d", hsm.ErrKeyMismatch, version)
	}
	return signDigest(key, digest)
}

// DestroyStatement forgets a key.
func (m *Memory) DestroyStatement(ctx context.Context, r hsm.KeyRecord) error {
	if r.Name != hsm.KeyStatement {
		return fmt.Errorf("destroy HSM key %s version %d: it is no statement key", r.Name, r.Version)
	}
	if _, err := m.use(ctx); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.made, func(k memoryKey) bool { return bytes.Equal(k.record.ID, r.ID) })
	if i < 0 {
		return nil
	}
	if m.made[i].record.Name != r.Name || m.made[i].record.Version != r.Version {
		return fmt.Errorf("destroy HSM key %s version %d: its CKA_ID is another key's", r.Name, r.Version)
	}
	gone := m.made[i].signer
	m.made = slices.Delete(slices.Clone(m.made), i, i+1)
	m.statements = slices.DeleteFunc(slices.Clone(m.statements), func(s memoryStatement) bool { return s.key == gone })
	return nil
}

func signDigest(key *ecdsa.PrivateKey, digest []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, key, digest)
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signature, nil
}
