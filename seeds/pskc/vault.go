package pskc

import (
	"bytes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// The bounds of what a file may ask for.
const (
	maxSalt   = 1024    // bytes
	maxCipher = 4 << 10 // bytes of one encrypted value
	minMACKey = 10      // bytes
)

// maxIterations is how often PBKDF2 may be asked to iterate: a few seconds. A
// variable for tests.
var maxIterations = 10_000_000

// errWrongKey cannot tell a wrong key from a damaged file, and must not.
const errWrongKey = "the key or password is not the one that this file was encrypted with, or the file was altered or damaged"

// hashes are the digests of MACs and PBKDF2, by what follows the # of their URI.
var hashes = map[string]func() hash.Hash{
	"hmac-sha1":   sha1.New,
	"hmac-sha224": sha256.New224,
	"hmac-sha256": sha256.New,
	"hmac-sha384": sha512.New384,
	"hmac-sha512": sha512.New,
}

// hashNamed finds the digest of an HMAC by the URI, or the bare name, of that;
// nil if it is not known.
func hashNamed(uri string) func() hash.Hash { return hashes[hashName(uri)] }

// hashName is the key in hashes of an HMAC's URI or bare name.
func hashName(uri string) string { return strings.Replace(fragment(uri), "sha-", "sha", 1) }

// vault is what opens the encrypted values of one file.
type vault struct {
	given     Options
	declared  bool       // the file says under which key its values are encrypted
	keyName   string     // of the pre-shared key; may be empty
	derive    *kdf       // set if the key comes from a password
	recipient *Recipient // set if the values are encrypted to a public key
	legacy    *algorithm // drafts: how every Value is encrypted; nil if in clear
	iv        []byte     // drafts: the IV of every value; nil if each has its own
	key       []byte     // the encryption key, once it was needed
	mac       *macInfo   // nil if the file has no MACMethod that says anything
	unnamed   bool       // the MACMethod names no algorithm
	macKey    []byte     // once it was needed
	hmac      hash.Hash  // under macKey
	proven    bool       // a MAC or the check of a key wrap was right, so the key is
	overPlain int        // values whose MAC is over the plaintext
	blocks    map[*algorithm]cipher.Block
	scratch   [maxCipher]byte
	trial     [maxCipher]byte
}

// macInfo is a MACMethod: the hash, and the MAC key as it is encrypted.
type macInfo struct {
	hash  func() hash.Hash
	by    *algorithm // how the MAC key is encrypted; nil, and to too: it is the encryption key
	value []byte
	named string     // the hash, by what follows the # of its URI
	to    *Encrypted // instead of by and value: the MAC key is encrypted to a public key
}

// readEncrypted reads an element of XML encryption's EncryptedDataType: how it
// is encrypted, and IV and ciphertext into buf. Its errors continue a sentence.
func (v *vault) readEncrypted(n *node, buf []byte) (by *algorithm, value []byte, err error) {
	method, err := n.one("EncryptionMethod", nsXEnc, nsPSKC)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot be read: %w", err)
	}
	uri := method.attr("Algorithm")
	// PKCS #5's PBES2 names the cipher one level deeper.
	if scheme, err := method.one("EncryptionScheme", kdfSpaces...); err != nil {
		return nil, nil, fmt.Errorf("cannot be read: %w", err)
	} else if scheme != nil {
		uri = scheme.attr("Algorithm")
	}
	if uri == "" {
		return nil, nil, errors.New("does not say how it is encrypted")
	}
	if by = algorithmNamed(uri); by == nil {
		return nil, nil, fmt.Errorf("is encrypted by %s; AES, 3DES and Camellia, in CBC mode or as key wrap, and RSA can be read", quoted(uri))
	}
	data, err := n.one("CipherData", nsXEnc, nsPSKC)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot be read: %w", err)
	}
	text, err := data.one("CipherValue", nsXEnc, nsPSKC)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot be read: %w", err)
	}
	if text == nil {
		return nil, nil, errors.New("has no CipherValue")
	}
	value, err = v.ciphertext(by, text, buf)
	return by, value, err
}

// ciphertext reads IV and ciphertext into buf. The IV is the first block (XML
// Encryption 1.0, section 5.2), unless a draft's file has one for all values.
func (v *vault) ciphertext(by *algorithm, text *node, buf []byte) ([]byte, error) {
	n := 0
	if by.mode == cbc && v.iv != nil {
		n = copy(buf, v.iv)
	}
	value, err := decodeBase64(buf[n:], text)
	if err != nil {
		return nil, err
	}
	if !by.whole(n + len(value)) {
		return nil, fmt.Errorf("is not whole blocks of %s", by.name)
	}
	return buf[:n+len(value)], nil
}

// unlock sets the encryption key and answers the cipher with it. Its error is
// for the whole file.
func (v *vault) unlock(by *algorithm) (cipher.Block, error) {
	if block := v.blocks[by]; block != nil {
		return block, nil
	}
	if v.key == nil {
		switch {
		case !v.declared:
			return nil, errors.New("there are encrypted values, but no EncryptionKey that says under which key")
		case v.derive != nil && v.given.Password == nil:
			return nil, errors.New("the seeds are encrypted under a password; give it with --password-file")
		case v.derive != nil:
			length := v.derive.length
			if length == 0 {
				length = by.keys[0]
			}
			v.key = v.derive.key(v.given.Password, length)
		case v.recipient != nil:
			return nil, errors.New("the file names a public key, but its values are encrypted by a symmetric cipher, under a key that it does not hold")
		case v.given.Key == nil && v.keyName != "":
			return nil, fmt.Errorf("the seeds are encrypted under a pre-shared key, which the file calls %s; give it with --psk-file", quoted(v.keyName))
		case v.given.Key == nil:
			return nil, errors.New("the seeds are encrypted under a pre-shared key; give it with --psk-file")
		default:
			v.key = bytes.Clone(v.given.Key)
		}
	}
	if !by.fits(v.key) {
		source := "the one in --psk-file"
		if v.derive != nil {
			source = "the one derived from the password"
		}
		want := strconv.Itoa(8 * by.keys[0])
		if len(by.keys) > 1 {
			want += " or " + strconv.Itoa(8*by.keys[1])
		}
		return nil, fmt.Errorf("the encryption is %s, with a key of %s bits, but %s has %d", by.name, want, source, 8*len(v.key))
	}
	block, err := by.block(v.key)
	if err != nil {
		return nil, fmt.Errorf("the key cannot be used: %w", err)
	}
	if v.blocks == nil {
		v.blocks = make(map[*algorithm]cipher.Block)
	}
	v.blocks[by] = block
	return block, nil
}

// unlockMAC sets the MAC key. Its error is for the whole file.
func (v *vault) unlockMAC() error {
	if v.macKey != nil {
		return nil
	}
	if v.mac.by == nil {
		v.macKey = v.key
	} else {
		block, err := v.unlock(v.mac.by)
		if err != nil {
			return err
		}
		key, ok := v.mac.by.open(block, v.mac.value)
		if !ok || len(key) < minMACKey {
			return errors.New(errWrongKey)
		}
		v.macKey = key
	}
	v.hmac = hmac.New(v.mac.hash, v.macKey)
	return nil
}

// A fatal error ends the file, not only the record.
type fatal struct{ error }

// open checks and decrypts an encrypted value, into a buffer that the next call
// uses again. what names the value in errors.
func (v *vault) open(what string, n, mac *node) ([]byte, error) {
	by, value, err := v.readEncrypted(n, v.scratch[:])
	if err != nil {
		return nil, fmt.Errorf("%s %w", what, err)
	}
	return v.decrypt(what, by, value, mac)
}

// openLegacy is open for the Value of a draft.
func (v *vault) openLegacy(what string, text, mac *node) ([]byte, error) {
	value, err := v.ciphertext(v.legacy, text, v.scratch[:])
	if err != nil {
		return nil, fmt.Errorf("%s %w", what, err)
	}
	return v.decrypt(what, v.legacy, value, mac)
}

// decrypt checks the MAC of IV and ciphertext, and only if it is right decrypts
// them (RFC 6030, section 6.1.1). Where the MAC is not right for them it may be
// one over the plaintext, as the drafts had it. Key wrap has a check of its own
// and needs no MAC.
func (v *vault) decrypt(what string, by *algorithm, value []byte, mac *node) ([]byte, error) {
	if by.mode == rsaWrap {
		return nil, fmt.Errorf("%s is encrypted to a public key, which only a seed can be", what)
	}
	if v.mac != nil && v.mac.to != nil && (mac != nil || by.mode == cbc) {
		return nil, fatal{errMixed}
	}
	block, err := v.unlock(by)
	if err != nil {
		return nil, fatal{err}
	}
	if by.mode == cbc && v.mac == nil {
		why := "there is no MACMethod"
		if v.unnamed {
			why = "the MACMethod names no algorithm"
		}
		return nil, fatal{errors.New("the values are encrypted in CBC mode, but " + why + "; RFC 6030, section 6.1.1, requires a MAC, and without one an altered seed would go unnoticed")}
	}
	var buf, trial []byte
	switch {
	case mac != nil && v.mac == nil:
		return nil, fmt.Errorf("%s has a MAC, but no MACMethod says how to check it", what)
	case mac != nil:
		if err := v.unlockMAC(); err != nil {
			return nil, fatal{err}
		}
		var given [maxMAC]byte
		if buf, err = decodeBase64(given[:], mac); err != nil {
			return nil, fmt.Errorf("the MAC of %s %w", what, err)
		}
		sealed := value
		if by.mode == cbc && v.iv != nil {
			sealed = value[len(v.iv):]
		}
		if !v.verify(sealed, buf) {
			trial = append(v.trial[:0], value...)
			defer clear(trial)
			plain, ok := by.open(block, trial)
			if !ok || !v.verify(plain, buf) {
				return nil, v.wrong("the MAC of "+what+" is wrong", what+" was altered or damaged, and is not imported")
			}
			v.overPlain++
		}
		v.proven = true
	case by.mode == cbc:
		return nil, fmt.Errorf("%s is encrypted but has no ValueMAC, which RFC 6030, section 6.1.1, requires", what)
	}
	plain, ok := by.open(block, value)
	switch {
	case ok:
		v.proven = true
		return plain, nil
	case by.mode == cbc:
		return nil, fmt.Errorf("%s has a right MAC but is not padded as XML encryption has it", what)
	}
	return nil, v.wrong("the check of "+what+" is wrong", what+" was altered or damaged, and is not imported")
}

// wrong is the error of a MAC, or of a key wrap's check, that is not right.
// Before anything was right it is the file's, as the key may be the wrong one;
// afterwards it is only that value's.
func (v *vault) wrong(finding, otherwise string) error {
	if !v.proven {
		return fatal{errors.New(finding + ": " + errWrongKey)}
	}
	return errors.New(finding + ": " + otherwise)
}

// verify says whether mac is the MAC of data.
func (v *vault) verify(data, mac []byte) bool {
	var sum [sha512.Size]byte
	v.hmac.Reset()
	v.hmac.Write(data)
	return hmac.Equal(v.hmac.Sum(sum[:0]), mac)
}

// maxMAC is room for the longest MAC, in bytes.
const maxMAC = sha512.Size + 3

func (v *vault) wipe() {
	clear(v.scratch[:])
	clear(v.trial[:])
	clear(v.key)
	clear(v.macKey)
	if v.mac != nil {
		clear(v.mac.value)
	}
	if v.hmac != nil { // a hash holds back what it was given last
		var zero [sha512.BlockSize]byte
		v.hmac.Reset()
		v.hmac.Write(zero[:])
	}
}
