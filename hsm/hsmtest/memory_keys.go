package hsmtest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"watchword/hsm"
)

// Create makes a key.
func (m *Memory) Create(ctx context.Context, name hsm.KeyName, version uint32) (hsm.KeyRecord, error) {
	return m.create(ctx, name, version, hsm.TransportBits)
}

func (m *Memory) create(ctx context.Context, name hsm.KeyName, version uint32, bits int) (hsm.KeyRecord, error) {
	if ctx.Err() != nil {
		return hsm.KeyRecord{}, context.Cause(ctx)
	}
	k := memoryKey{record: hsm.KeyRecord{Name: name, Version: version, ID: make([]byte, 16)}}
	rand.Read(k.record.ID)
	switch name {
	case hsm.KeyKEK, hsm.KeyBinding, hsm.KeyPIN, hsm.KeySecrets:
		k.bytes = make([]byte, 32)
		rand.Read(k.bytes)
		k.record.Check = mac(sha256.New, k.bytes, []byte("check"))[:16]
	case hsm.KeyAudit, hsm.KeyStatement:
		var err error
		if k.signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return hsm.KeyRecord{}, err
		}
		public, err := k.signer.PublicKey.Bytes()
		if err != nil {
			return hsm.KeyRecord{}, err
		}
		sum := sha256.Sum256(public)
		k.record.Check = sum[:16]
	case hsm.KeyTransport, hsm.KeyPGP:
		if name == hsm.KeyPGP {
			hsm.DatePGP(k.record.ID, time.Now(), m.PGPKeys())
		}
		var err error
		if k.rsa, err = rsa.GenerateKey(rand.Reader, bits); err != nil {
			return hsm.KeyRecord{}, err
		}
		sum := sha256.Sum256(k.rsa.N.Bytes())
		k.record.Check = sum[:16]
	default:
		return hsm.KeyRecord{}, fmt.Errorf("there is no HSM key named %q", name)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.made = append(m.made, k)
	r := k.record
	r.ID, r.Check = bytes.Clone(r.ID), bytes.Clone(r.Check)
	return r, nil
}

// Attach finds the keys.
func (m *Memory) Attach(ctx context.Context, records []hsm.KeyRecord) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	keys := &memoryKeys{kek: map[uint32][]byte{}, secrets: map[uint32][]byte{}, attached: map[hsm.KeyName]bool{}}
	for _, r := range records {
		var found *memoryKey
		for i := range m.made {
			if k := &m.made[i]; bytes.Equal(k.record.ID, r.ID) && k.record.Name == r.Name && bytes.Equal(k.record.Check, r.Check) {
				found = k
			}
		}
		if found == nil {
			return fmt.Errorf("%w: key %s version %d", hsm.ErrKeyMismatch, r.Name, r.Version)
		}
		keys.attached[r.Name] = true
		switch r.Name {
		case hsm.KeyStatement:
			return fmt.Errorf("%w: key %s version %d is attached in another way", hsm.ErrKeyMismatch, r.Name, r.Version)
		case hsm.KeyKEK:
			keys.kek[r.Version] = found.bytes
			keys.newKEK = max(keys.newKEK, r.Version)
		case hsm.KeySecrets:
			keys.secrets[r.Version] = found.bytes
			keys.newSecrets = max(keys.newSecrets, r.Version)
		case hsm.KeyBinding:
			if r.Version >= keys.newBinding {
				keys.binding, keys.newBinding = found.bytes, r.Version
			}
		case hsm.KeyPIN:
			if r.Version >= keys.newPIN {
				keys.pin, keys.newPIN = found.bytes, r.Version
			}
		case hsm.KeyAudit:
			if r.Version >= keys.newAudit {
				keys.audit, keys.newAudit = found.signer, r.Version
			}
		case hsm.KeyTransport:
			keys.transport = append(keys.transport, memoryTransport{r.Version, found.rsa})
		case hsm.KeyPGP:
			keys.pgp = append(keys.pgp, memoryPGP{r.Version, found.rsa, hsm.PGPMade(r.ID)})
		}
	}
	for _, name := range hsm.KeyNames() {
		if !keys.attached[name] {
			return fmt.Errorf("%w: the database records no key %s", hsm.ErrKeyMismatch, name)
		}
	}
	slices.SortFunc(keys.transport, func(a, b memoryTransport) int { return cmp.Compare(b.version, a.version) })
	slices.SortFunc(keys.pgp, func(a, b memoryPGP) int { return cmp.Compare(b.version, a.version) })
	m.keys = keys
	return nil
}
