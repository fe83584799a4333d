package hsmtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"
	"testing"

	"watchword/hsm"
)

// Memory is a Keystore without an HSM, for tests that need thousands of them.
// It does the real arithmetic with real keys, and it accuses: the test fails if
// a seed that was wrapped shows up in a row, a message, a secret or a context
// that it is given later. What it gives to Job.Stop is overwritten afterwards,
// so that a Stop that keeps it is found out.
type Memory struct {
	t testing.TB

	mu      sync.Mutex
	made    []memoryKey // by Create
	keys    *memoryKeys // by Attach
	failure error
	closed  bool
	seeds   map[[8]byte][][]byte // what must not be seen, by its first bytes
	hmacs   int

	statements []memoryStatement // by AttachStatement; the newest first

	attempts    hsm.Attempts // at RSA-1_5 with the transport keys
	pgpAttempts hsm.Attempts // with the PGP keys
}

type memoryKey struct {
	record hsm.KeyRecord
	bytes  []byte            // of a secret key
	signer *ecdsa.PrivateKey // of the audit key or a statement key
	rsa    *rsa.PrivateKey   // of a transport key or a PGP key
}

type memoryKeys struct {
	kek, secrets       map[uint32][]byte
	newKEK, newSecrets uint32
	binding, pin       []byte
	newBinding, newPIN uint32
	audit              *ecdsa.PrivateKey
	newAudit           uint32
	attached           map[hsm.KeyName]bool
	transport          []memoryTransport // the newest first
	pgp                []memoryPGP       // the newest first
}

var (
	_ Keystore        = (*Memory)(nil)
	_ hsm.Transporter = (*Memory)(nil)
	_ hsm.PGPHolder   = (*Memory)(nil)
)

// NewMemory makes a Memory with all keys made and attached.
func NewMemory(t testing.TB) *Memory {
	m := &Memory{t: t, seeds: map[[8]byte][][]byte{}}
	Provision(t, m)
	return m
}

// Records are the records of the keys that are in it.
func (m *Memory) Records() []hsm.KeyRecord {
	m.mu.Lock()
	defer m.mu.Unlock()
	var records []hsm.KeyRecord
	for _, k := range m.made {
		records = append(records, k.record)
	}
	return records
}

// Fail makes all calls fail with hsm.ErrUnavailable until Heal.
func (m *Memory) Fail(cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failure = fmt.Errorf("%w: %w", hsm.ErrUnavailable, cause)
}

// Heal ends Fail.
func (m *Memory) Heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failure = nil
}

// HMACs says how many HMACs were computed so far.
func (m *Memory) HMACs() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hmacs
}

// Ready answers nil unless Fail or Close was called.
func (m *Memory) Ready() error {
	_, err := m.use(context.Background())
	return err
}

// Close makes all later calls fail.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func (m *Memory) use(ctx context.Context) (*memoryKeys, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, fmt.Errorf("%w: the keystore is closed", hsm.ErrUnavailable)
	case m.failure != nil:
		return nil, m.failure
	case m.keys == nil:
		return nil, fmt.Errorf("%w: no keys are attached", hsm.ErrUnavailable)
	}
	return m.keys, nil
}

// Wrap wraps seeds.
func (m *Memory) Wrap(ctx context.Context, seeds []hsm.Seed) ([]hsm.Wrapped, error) {
	keys, err := m.use(ctx)
	if err != nil {
		return nil, err
	}
	wrapped := make([]hsm.Wrapped, 0, len(seeds))
	for _, s := range seeds {
		if s.Hash == hsm.AES128 {
			if len(s.Bytes) != 16 {
				return nil, fmt.Errorf("wrap: an AES-128 key of %d bytes", len(s.Bytes))
			}
		} else if s.Hash.Size() == 0 || len(s.Bytes) < 1 || len(s.Bytes) > 1024 {
			return nil, fmt.Errorf("wrap: a seed of %d bytes for digest %d", len(s.Bytes), s.Hash)
		}
		wrapped = append(wrapped, m.wrap(keys, s))
	}
	return wrapped, nil
}

func (m *Memory) wrap(keys *memoryKeys, s hsm.Seed) hsm.Wrapped {
	key := bytes.Clone(s.Bytes)
	if s.Hash != hsm.AES128 && len(key) > s.Hash.BlockSize() {
		h := hasher(s.Hash)()
		h.Write(key)
		key = h.Sum(nil)
	}
	for len(key) < s.Hash.Size() || len(key)%8 != 0 {
		key = append(key, 0)
	}
	m.remember(s.Bytes)
	return hsm.Wrapped{
		Mechanism: "aes-kwp", KEK: keys.newKEK, Hash: s.Hash, SeedLen: uint16(len(s.Bytes)),
		Blob: kwpWrap(keys.kek[keys.newKEK], key),
	}
}

// HMAC runs the jobs.
func (m *Memory) HMAC(ctx context.Context, jobs []*hsm.Job) error {
	for _, j := range jobs {
		j.MACs, j.Err = nil, nil
	}
	keys, err := m.use(ctx)
	if err != nil {
		for _, j := range jobs {
			j.Err = err
		}
		return err
	}
	for _, j := range jobs {
		if j.MACs, j.Err = m.job(keys, j); j.Err != nil {
			j.MACs = nil
		}
		// Fail may have come between two jobs, as an HSM may be lost there.
		if _, err := m.use(context.WithoutCancel(ctx)); err != nil {
			j.MACs, j.Err = nil, err
		}
	}
	return nil
}

func (m *Memory) job(keys *memoryKeys, j *hsm.Job) ([][]byte, error) {
	key, err := m.unwrap(keys, j.Key, j.Key.Hash.Size() != 0)
	if err != nil {
		return nil, err
	}
	macs := [][]byte{}
	for i, f := range j.Factors {
		sum := mac(hasher(j.Key.Hash), key, binary.BigEndian.AppendUint64(nil, f))
		macs = append(macs, sum)
		m.mu.Lock()
		m.hmacs++
		m.mu.Unlock()
		if j.Stop != nil {
			lent := bytes.Clone(sum)
			stop := j.Stop(i, lent)
			if !bytes.Equal(lent, sum) {
				m.t.Errorf("hsmtest: Job.Stop changed the MAC that it was shown")
			}
			for i := range lent {
				lent[i] = 0xEE
			}
			if stop {
				break
			}
		}
	}
	return macs, nil
}

// unwrap proves the binding and unwraps the key, if it is of the right kind.
func (m *Memory) unwrap(keys *memoryKeys, s *hsm.Sealed, kind bool) ([]byte, error) {
	m.accuse("row", s.Row)
	if !hmac.Equal(mac(sha256.New, keys.binding, s.Message()), s.Binding) {
		return nil, hsm.ErrTampered
	}
	kek := keys.kek[s.KEK]
	switch {
	case !kind:
		return nil, fmt.Errorf("the seed is for another use, number %d", s.Hash)
	case s.Mechanism != "aes-kwp":
		return nil, fmt.Errorf("%w: the seed was wrapped by %q", hsm.ErrUnsupported, s.Mechanism)
	case kek == nil:
		return nil, fmt.Errorf("%w: the seed was wrapped under KEK version %d, which is not attached", hsm.ErrKeyMismatch, s.KEK)
	}
	key, ok := kwpUnwrap(kek, s.Blob)
	if !ok {
		return nil, errors.New("the wrapped seed cannot be unwrapped")
	}
	return key, nil
}

// Decrypt runs the jobs.
func (m *Memory) Decrypt(ctx context.Context, jobs []*hsm.DecryptJob) error {
	keys, err := m.use(ctx)
	for _, j := range jobs {
		j.Plain, j.Err = [16]byte{}, err
	}
	if err != nil {
		return err
	}
	for _, j := range jobs {
		key, err := m.unwrap(keys, j.Key, j.Key.Hash == hsm.AES128)
		if err == nil {
			var block cipher.Block
			if block, err = aes.NewCipher(key); err == nil {
				block.Decrypt(j.Plain[:], j.Block[:])
			}
		}
		// Fail may have come between two jobs, as an HSM may be lost there.
		if _, lost := m.use(context.WithoutCancel(ctx)); lost != nil {
			j.Plain, err = [16]byte{}, lost
		}
		j.Err = err
	}
	return nil
}

// MAC computes HMAC-SHA256.
func (m *Memory) MAC(ctx context.Context, name hsm.KeyName, messages ...[]byte) ([][]byte, error) {
	keys, err := m.use(ctx)
	if err != nil {
		return nil, err
	}
	key := keys.binding
	switch name {
	case hsm.KeyBinding:
	case hsm.KeyPIN:
		key = keys.pin
	default:
		return nil, fmt.Errorf("the HSM key %q makes no MACs", name)
	}
	macs := make([][]byte, 0, len(messages))
	for _, msg := range messages {
		m.accuse("message", msg)
		macs = append(macs, mac(sha256.New, key, msg))
	}
	return macs, nil
}

// Seal encrypts.
func (m *Memory) Seal(ctx context.Context, plaintext, context []byte) ([]byte, error) {
	keys, err := m.use(ctx)
	if err != nil {
		return nil, err
	}
	m.accuse("secret", plaintext)
	m.accuse("context", context)
	sealed := binary.BigEndian.AppendUint32(nil, keys.newSecrets)
	nonce := make([]byte, 12)
	rand.Read(nonce)
	sealed = append(sealed, nonce...)
	return gcm(keys.secrets[keys.newSecrets]).Seal(sealed, nonce, plaintext, append(bytes.Clone(sealed[:4]), context...)), nil
}

// Open decrypts.
func (m *Memory) Open(ctx context.Context, sealed, context []byte) ([]byte, error) {
	keys, err := m.use(ctx)
	if err != nil {
		return nil, err
	}
	if len(sealed) < 32 || keys.secrets[binary.BigEndian.Uint32(sealed)] == nil {
		return nil, hsm.ErrTampered
	}
	key := keys.secrets[binary.BigEndian.Uint32(sealed)]
	plaintext, err := gcm(key).Open(nil, sealed[4:16], sealed[16:], append(bytes.Clone(sealed[:4]), context...))
	if err != nil {
		return nil, hsm.ErrTampered
	}
	return plaintext, nil
}

// Sign signs a digest.
func (m *Memory) Sign(ctx context.Context, digest []byte) ([]byte, error) {
	if len(digest) != 32 {
		return nil, fmt.Errorf("sign: a digest of %d bytes", len(digest))
	}
	keys, err := m.use(ctx)
	if err != nil {
		return nil, err
	}
	return signDigest(keys.audit, digest)
}

// PublicKey is KeyAudit's.
func (m *Memory) PublicKey() crypto.PublicKey {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.keys == nil {
		return nil
	}
	return &m.keys.audit.PublicKey
}

// SelfTest wraps one seed of RFC 4226 and computes its first code.
func (m *Memory) SelfTest(ctx context.Context) error {
	s, err := seal(ctx, m, hsm.SHA1, []byte("12345678901234567890"), []byte("self-test"))
	if err != nil {
		return err
	}
	j := &hsm.Job{Key: s, Factors: []uint64{0}}
	if err := m.HMAC(ctx, []*hsm.Job{j}); err != nil {
		return err
	}
	if j.Err != nil {
		return j.Err
	}
	if hex.EncodeToString(j.MACs[0]) != "cc93cf18508d94934c64b65d8ba7667fb7cde4b0" {
		return errors.New("the HMAC of RFC 4226, appendix D, is another")
	}
	return nil
}

// remember notes a seed, raw and in hex, as something never to be seen again.
// Seeds shorter than ten bytes are too likely to be seen by chance.
func (m *Memory) remember(seed []byte) {
	if len(seed) < 10 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	low := []byte(hex.EncodeToString(seed))
	for _, form := range [][]byte{bytes.Clone(seed), low, bytes.ToUpper(low)} {
		m.seeds[[8]byte(form)] = append(m.seeds[[8]byte(form)], form)
	}
}

// accuse fails the test if there is a seed in b.
func (m *Memory) accuse(what string, b []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := 0; i+8 <= len(b); i++ {
		for _, seed := range m.seeds[[8]byte(b[i:])] {
			if bytes.HasPrefix(b[i:], seed) {
				m.t.Errorf("hsmtest: a seed in plaintext is part of a %s of %d bytes, at byte %d", what, len(b), i)
				return
			}
		}
	}
}

func hasher(h hsm.Hash) func() hash.Hash {
	switch h {
	case hsm.SHA1:
		return sha1.New
	case hsm.SHA256:
		return sha256.New
	case hsm.SHA512:
		return sha512.New
	}
	return nil
}

func mac(h func() hash.Hash, key, message []byte) []byte {
	m := hmac.New(h, key)
	m.Write(message)
	return m.Sum(nil)
}

func gcm(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}
