package softkey

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
)

// User is for whom a credential was made, as the relying party said.
type User struct {
	ID          []byte // the user handle, 1 to 64 bytes
	Name        string
	DisplayName string
}

// credential is one key pair, bound to one relying party. It is never changed
// after it was made: another takes its place when its user's names change.
type credential struct {
	id       []byte
	alg      Algorithm
	signer   crypto.Signer
	public   []byte // COSE_Key
	rpIDHash [32]byte
	protect  byte // credProtect level, 1 to 3 (CTAP 2.1 §12.1)
	resident bool

	// Of resident credentials only.
	rpID   string
	user   User
	number uint64 // the order in which they were made
}

// A credential ID holds the private key itself, under a key that only the Key
// has, so that a Key has room for any number of credentials that are not resident:
//
//	nonce (12) || AES-256-GCM(algorithm (1) || flags (1) || private key) || tag (16)
//
// The SHA-256 of the relying party's ID is authenticated with it: for another
// party the ID is not known. With ES256 it is 62 bytes long.
const (
	flagProtect  = 0x03
	flagResident = 0x80
	wrapNonce    = 12
)

// wrapping opens and closes credential IDs, and remembers those it opened last.
// It can be used by several goroutines at once.
type wrapping struct {
	secret [32]byte
	aead   cipher.AEAD

	mu     sync.RWMutex
	opened map[string]*credential
}

// mostOpened bounds what wrapping remembers.
const mostOpened = 4096

func newWrapping() (*wrapping, error) {
	w := &wrapping{opened: make(map[string]*credential)}
	rand.Read(w.secret[:])
	block, err := aes.NewCipher(w.secret[:])
	if err != nil {
		return nil, err
	}
	w.aead, err = cipher.NewGCM(block)
	return w, err
}

// create makes a credential and its ID.
func (w *wrapping) create(alg Algorithm, rpIDHash [32]byte, protect byte, resident bool) (*credential, error) {
	signer, err := alg.generate()
	if err != nil {
		return nil, err
	}
	material, err := alg.material(signer)
	if err != nil {
		return nil, err
	}
	flags := protect & flagProtect
	if resident {
		flags |= flagResident
	}
	plain := append([]byte{byte(slices.Index(algorithms, alg)), flags}, material...)
	id := make([]byte, wrapNonce, wrapNonce+len(plain)+w.aead.Overhead())
	rand.Read(id)
	id = w.aead.Seal(id, id[:wrapNonce], plain, rpIDHash[:])
	public, err := alg.coseKey(signer.Public())
	if err != nil {
		return nil, err
	}
	return &credential{id: id, alg: alg, signer: signer, public: public, rpIDHash: rpIDHash, protect: protect, resident: resident}, nil
}

// open is the credential of an ID; nil if the ID was not made here for this
// relying party.
func (w *wrapping) open(id []byte, rpIDHash *[32]byte) (*credential, error) {
	w.mu.RLock()
	c := w.opened[string(id)]
	w.mu.RUnlock()
	if c != nil {
		if c.rpIDHash != *rpIDHash {
			return nil, nil
		}
		return c, nil
	}
	if len(id) <= wrapNonce {
		return nil, nil
	}
	plain, err := w.aead.Open(nil, id[:wrapNonce], id[wrapNonce:], rpIDHash[:])
	if err != nil {
		return nil, nil
	}
	if len(plain) < 2 || int(plain[0]) >= len(algorithms) {
		return nil, fmt.Errorf("softkey: a credential ID of an unknown kind")
	}
	alg := algorithms[plain[0]]
	signer, err := alg.restore(plain[2:])
	if err != nil {
		return nil, err
	}
	public, err := alg.coseKey(signer.Public())
	if err != nil {
		return nil, err
	}
	c = &credential{
		id: bytes.Clone(id), alg: alg, signer: signer, public: public, rpIDHash: *rpIDHash,
		protect: plain[1] & flagProtect, resident: plain[1]&flagResident != 0,
	}
	w.remember(c)
	return c, nil
}

func (w *wrapping) remember(c *credential) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.opened) >= mostOpened {
		for id := range w.opened { // any one will do
			delete(w.opened, id)
			break
		}
	}
	w.opened[string(c.id)] = c
}

// find is the credential that an ID names and the Key still holds; nil if there
// is none.
func (k *Key) find(id []byte, rpIDHash *[32]byte) (*credential, error) {
	k.mu.RLock()
	w := k.wrapping
	k.mu.RUnlock()
	c, err := w.open(id, rpIDHash)
	if c == nil || err != nil || !c.resident {
		return c, err
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.resident[string(id)], nil
}

// residents are the resident credentials of a relying party, the newest first.
func (k *Key) residents(rpIDHash *[32]byte) []*credential {
	k.mu.RLock()
	defer k.mu.RUnlock()
	var found []*credential
	for _, c := range k.resident {
		if c.rpIDHash == *rpIDHash {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b *credential) int {
		if a.number > b.number {
			return -1
		}
		return 1
	})
	return found
}

// keep holds a resident credential; it takes the place of an earlier one for
// the same user of the same relying party (CTAP 2.1 §6.1.2 step 17). It answers
// false when there is no room, or a reset came between.
func (k *Key) keep(c *credential, by *wrapping) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.wrapping != by {
		return false
	}
	for id, old := range k.resident {
		if old.rpIDHash == c.rpIDHash && bytes.Equal(old.user.ID, c.user.ID) {
			delete(k.resident, id)
		}
	}
	if len(k.resident) >= k.capacity {
		return false
	}
	k.made++
	c.number = k.made
	k.resident[string(c.id)] = c
	return true
}
