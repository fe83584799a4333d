package hsmtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"math/big"
	"slices"

	"watchword/hsm"
)

// memoryTransport is a transport key that is attached.
type memoryTransport struct {
	version uint32
	key     *rsa.PrivateKey
}

// CreateTransport makes a transport key.
func (m *Memory) CreateTransport(ctx context.Context, version uint32, bits int) (hsm.KeyRecord, error) {
	switch bits {
	case 0:
		bits = hsm.TransportBits
	case 2048, 3072, 4096:
	default:
		return hsm.KeyRecord{}, fmt.Errorf("a transport key of %d bits", bits)
	}
	return m.create(ctx, hsm.KeyTransport, version, bits)
}

// TransportKeys are those attached.
func (m *Memory) TransportKeys() []hsm.TransportKey {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []hsm.TransportKey
	if m.keys != nil {
		for _, t := range m.keys.transport {
			all = append(all, hsm.TransportKey{Version: t.version, Public: &t.key.PublicKey})
		}
	}
	return all
}

// Rewrap takes seeds over. Like SoftHSM it cannot do so inside with one that is
// shorter than its digest, or longer than a block and no multiple of eight bytes,
// and with no MAC whose key is shorter than its digest.
func (m *Memory) Rewrap(ctx context.Context, items []hsm.Transported, options hsm.TransportOptions) ([]hsm.Rewrapped, error) {
	keys, err := m.use(ctx)
	if err != nil {
		return nil, err
	}
	if len(keys.transport) == 0 {
		return nil, hsm.ErrNoTransportKey
	}
	key := keys.transport[0].key
	if options.To != nil {
		i := slices.IndexFunc(keys.transport, func(t memoryTransport) bool { return t.key.PublicKey.Equal(options.To) })
		if i < 0 {
			return nil, fmt.Errorf("%w: encrypted to another key", hsm.ErrKeyMismatch)
		}
		key = keys.transport[i].key
	}
	var all []hsm.Rewrapped
	for i := range items {
		w, path, err := m.rewrap(keys, key, &items[i], options)
		if err != nil {
			w, path = hsm.Wrapped{}, ""
		}
		all = append(all, hsm.Rewrapped{Wrapped: w, Path: path, Err: err})
		// Fail may have come between two seeds, as an HSM may be lost there.
		if _, err := m.use(ctx); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (m *Memory) rewrap(keys *memoryKeys, key *rsa.PrivateKey, item *hsm.Transported, options hsm.TransportOptions) (w hsm.Wrapped, path hsm.TransportPath, err error) {
	if item.Hash.Size() == 0 {
		return w, "", fmt.Errorf("unknown digest %d", item.Hash)
	}
	auth := item.MAC
	if auth != nil && !slices.Contains(macHashes, auth.Hash) {
		return w, "", fmt.Errorf("%w: MAC by digest %d", hsm.ErrUnsupported, auth.Hash)
	}
	var open func(ciphertext []byte, hash, mgf crypto.Hash, label []byte) []byte
	switch item.Mechanism {
	case hsm.TransportOAEP:
		if err := memoryOAEP(item.OAEPHash, item.MGFHash); err != nil {
			return w, "", err
		}
		if auth != nil {
			if err := memoryOAEP(auth.OAEPHash, auth.MGFHash); err != nil {
				return w, "", err
			}
		}
		open = func(ciphertext []byte, hash, mgf crypto.Hash, label []byte) []byte {
			o := &rsa.OAEPOptions{Hash: orSHA1(hash), MGFHash: orSHA1(mgf), Label: label}
			plain, err := key.Decrypt(rand.Reader, ciphertext, o)
			if err != nil {
				return nil
			}
			return plain
		}
	case hsm.TransportPKCS1:
		if !options.AllowPKCS1 {
			return w, "", hsm.ErrPKCS1
		}
		if err := m.attempts.Begin(); err != nil {
			return w, "", err
		}
		defer func() {
			m.attempts.End(err != nil)
			if err != nil {
				err = hsm.ErrTransport
			}
		}()
		open = func(ciphertext []byte, _, _ crypto.Hash, _ []byte) []byte { return openPKCS1(key, ciphertext) }
	default:
		return w, "", fmt.Errorf("%w: %q", hsm.ErrUnsupported, string(item.Mechanism))
	}
	path = hsm.PathHSM
	if auth != nil {
		k := open(auth.Key, auth.OAEPHash, auth.MGFHash, auth.Label)
		if len(k) < hsm.MinTransportMAC {
			return w, "", hsm.ErrTransportMAC
		}
		if len(k) < auth.Hash.Size() {
			if path = hsm.PathHost; !options.AllowHost {
				return w, "", fmt.Errorf("%w: it takes no MAC key of %d bytes; %w", hsm.ErrUnsupported, len(k), hsm.ErrNeedsHost)
			}
		}
		mac := hmac.New(auth.Hash.New, k)
		mac.Write(item.Ciphertext)
		if !hmac.Equal(mac.Sum(nil), auth.Value) {
			return w, "", hsm.ErrTransportMAC
		}
	}
	seed := open(item.Ciphertext, item.OAEPHash, item.MGFHash, item.Label)
	if len(seed) == 0 || item.Mechanism == hsm.TransportPKCS1 && !slices.Contains([]int{10, 16, 20, 24, 32, 48, 64}, len(seed)) {
		return w, "", hsm.ErrTransport
	}
	if n := len(seed); n < item.Hash.Size() || n > item.Hash.BlockSize() && n%8 != 0 {
		if path = hsm.PathHost; !options.AllowHost {
			return w, "", fmt.Errorf("%w: it cannot pad a seed of %d bytes; %w", hsm.ErrUnsupported, n, hsm.ErrNeedsHost)
		}
	}
	return m.wrap(keys, hsm.Seed{Hash: item.Hash, Bytes: seed}), path, nil
}

// macHashes are the digests that a vendor's MAC may have.
var macHashes = []crypto.Hash{crypto.SHA1, crypto.SHA224, crypto.SHA256, crypto.SHA384, crypto.SHA512}

// memoryOAEP says whether there is OAEP with two digests.
func memoryOAEP(hash, mgf crypto.Hash) error {
	if !orSHA1(hash).Available() || !orSHA1(mgf).Available() {
		return fmt.Errorf("%w: OAEP with %d and %d", hsm.ErrUnsupported, hash, mgf)
	}
	return nil
}

func orSHA1(h crypto.Hash) crypto.Hash {
	if h == 0 {
		return crypto.SHA1
	}
	return h
}

// openPKCS1 is RSAES-PKCS1-v1_5 (RFC 8017, section 7.2.2), for tests: the time
// that it takes tells all. It answers nil for a wrong ciphertext.
func openPKCS1(key *rsa.PrivateKey, ciphertext []byte) []byte {
	c := new(big.Int).SetBytes(ciphertext)
	if len(ciphertext) != key.Size() || c.Cmp(key.N) >= 0 {
		return nil
	}
	em := c.Exp(c, key.D, key.N).FillBytes(make([]byte, key.Size()))
	if em[0] != 0 || em[1] != 2 {
		return nil
	}
	end := bytes.IndexByte(em[2:], 0)
	if end < 8 {
		return nil
	}
	return em[2+end+1:]
}
