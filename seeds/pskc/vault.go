package pskc

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
)

// The bounds of what a file may ask for.
const (
	maxIterations = 10_000_000 // of PBKDF2; a few seconds
	maxSalt       = 1024       // bytes
	maxCipher     = 4 << 10    // bytes of one encrypted value
	minMACKey     = 10         // bytes
)

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

// ciphers are the key lengths, in bytes, of what values are encrypted with.
var ciphers = map[string]int{
	nsXEnc + "aes128-cbc": 16,
	nsXEnc + "aes192-cbc": 24,
	nsXEnc + "aes256-cbc": 32,
}

// vault is what opens the encrypted values of one file.
type vault struct {
	given    Options
	declared bool     // there is an EncryptionKey
	keyName  string   // of the pre-shared key; may be empty
	derive   *kdf     // set if the key comes from a password
	key      []byte   // the encryption key, once it was needed
	mac      *macInfo // nil if the file has no MACMethod
	macKey   []byte   // once it was needed
	proven   bool     // a MAC was right, so the key is
	scratch  [maxCipher]byte
}

// macInfo is a MACMethod: the hash, and the MAC key as it is encrypted.
type macInfo struct {
	hash   func() hash.Hash
	cipher string // URI; empty: the MAC key is the encryption key
	value  []byte
}

// readEncryptionKey reads the element that names the encryption key (RFC 6030,
// section 6).
func (v *vault) readEncryptionKey(n *node) error {
	v.declared = true
	for _, k := range n.kids {
		switch {
		case k.is("KeyName", nsDS, nsPSKC):
			v.keyName = string(bytes.TrimSpace(k.text))
		case k.is("DerivedKey", nsXEnc11, nsXEnc, nsPSKC):
			if v.derive != nil {
				return errors.New("there are two DerivedKey elements")
			}
			var err error
			if v.derive, err = readDerivedKey(k); err != nil {
				return err
			}
		case k.is("X509Data", nsDS), k.is("KeyValue", nsDS), k.is("EncryptedKey", nsXEnc), k.is("RetrievalMethod", nsDS):
			return fmt.Errorf("the encryption key is given by %s, so the seeds are encrypted to a public key; a pre-shared key or a password is needed: ask the vendor for one of these", k.name.Local)
		default:
			return fmt.Errorf("the encryption key is given by %s, which is not known here", quoted(k.name.Local))
		}
	}
	return nil
}

// readMACMethod reads the element of that name (RFC 6030, section 6.1.1).
func (v *vault) readMACMethod(n *node) error {
	uri := n.attr("Algorithm")
	m := &macInfo{hash: hashes[fragment(uri)]}
	if m.hash == nil {
		return fmt.Errorf("the MAC is made by %s; HMAC with SHA-1 or SHA-2 can be read", quoted(uri))
	}
	key, err := n.one("MACKey", nsPSKC)
	if err != nil {
		return err
	}
	if key != nil {
		buf := make([]byte, maxCipher)
		if m.cipher, m.value, err = readEncrypted(key, buf); err != nil {
			return fmt.Errorf("the MAC key %w", err)
		}
	} else if ref, err := n.one("MACKeyReference", nsPSKC); err != nil {
		return err
	} else if ref != nil {
		return errors.New("the MAC key is only named, not held, by this file; ask the vendor for a file with a MACKey")
	}
	v.mac = m
	return nil
}

// readEncrypted reads an element of XML encryption's EncryptedDataType: the
// URI of its cipher, and IV and ciphertext into buf. Its errors continue a
// sentence.
func readEncrypted(n *node, buf []byte) (uri string, value []byte, err error) {
	method, err := n.one("EncryptionMethod", nsXEnc)
	if err != nil {
		return "", nil, fmt.Errorf("cannot be read: %w", err)
	}
	if uri = method.attr("Algorithm"); uri == "" {
		return "", nil, errors.New("does not say how it is encrypted")
	}
	if ciphers[uri] == 0 {
		return "", nil, fmt.Errorf("is encrypted by %s; AES in CBC mode can be read", quoted(uri))
	}
	data, err := n.one("CipherData", nsXEnc)
	if err != nil {
		return "", nil, fmt.Errorf("cannot be read: %w", err)
	}
	text, err := data.one("CipherValue", nsXEnc)
	if err != nil {
		return "", nil, fmt.Errorf("cannot be read: %w", err)
	}
	if text == nil {
		return "", nil, errors.New("has no CipherValue")
	}
	if value, err = decodeBase64(buf, text); err != nil {
		return "", nil, err
	}
	// The IV is the first block (XML Encryption 1.0, section 5.2).
	if len(value) < 2*aes.BlockSize || len(value)%aes.BlockSize != 0 {
		return "", nil, errors.New("is not whole blocks of AES")
	}
	return uri, value, nil
}

// unlock sets the encryption key. Its error is for the whole file.
func (v *vault) unlock(uri string) error {
	if v.key == nil {
		switch {
		case !v.declared:
			return errors.New("there are encrypted values, but no EncryptionKey that says under which key")
		case v.derive != nil && v.given.Password == nil:
			return errors.New("the seeds are encrypted under a password; give it with --password-file")
		case v.derive != nil:
			key, err := v.derive.key(v.given.Password)
			if err != nil {
				return fmt.Errorf("deriving the key: %w", err)
			}
			v.key = key
		case v.given.Key == nil && v.keyName != "":
			return fmt.Errorf("the seeds are encrypted under a pre-shared key, which the file calls %s; give it with --psk-file", quoted(v.keyName))
		case v.given.Key == nil:
			return errors.New("the seeds are encrypted under a pre-shared key; give it with --psk-file")
		default:
			v.key = bytes.Clone(v.given.Key)
		}
	}
	if want := ciphers[uri]; len(v.key) != want {
		source := "the one in --psk-file"
		if v.derive != nil {
			source = "the one derived from the password"
		}
		return fmt.Errorf("the encryption is AES with a key of %d bits, but %s has %d", 8*want, source, 8*len(v.key))
	}
	return nil
}

// unlockMAC sets the MAC key. Its error is for the whole file.
func (v *vault) unlockMAC() error {
	if v.macKey != nil {
		return nil
	}
	switch {
	case v.mac == nil:
		return errors.New("the values are encrypted in CBC mode, but there is no MACMethod; RFC 6030, section 6.1.1, requires a MAC, and without one an altered seed would go unnoticed")
	case v.mac.cipher == "":
		v.macKey = v.key
		return nil
	}
	if err := v.unlock(v.mac.cipher); err != nil {
		return err
	}
	key, ok := decryptCBC(v.key, v.mac.value)
	if !ok || len(key) < minMACKey {
		return errors.New(errWrongKey)
	}
	v.macKey = key
	return nil
}

// A fatal error ends the file, not only the record.
type fatal struct{ error }

// open checks the MAC of an encrypted value, and only if it is right decrypts
// the value, into a buffer that the next call uses again. what names the value
// in errors.
func (v *vault) open(what string, n, mac *node) ([]byte, error) {
	uri, value, err := readEncrypted(n, v.scratch[:])
	if err != nil {
		return nil, fmt.Errorf("%s %w", what, err)
	}
	if err := v.unlock(uri); err != nil {
		return nil, fatal{err}
	}
	if err := v.unlockMAC(); err != nil {
		return nil, fatal{err}
	}
	if mac == nil {
		return nil, fmt.Errorf("%s is encrypted but has no ValueMAC, which RFC 6030, section 6.1.1, requires", what)
	}
	var buf [maxMAC]byte
	given, err := decodeBase64(buf[:], mac)
	if err != nil {
		return nil, fmt.Errorf("the MAC of %s %w", what, err)
	}
	// Over IV and ciphertext, before anything is decrypted (section 6.1.1).
	h := hmac.New(v.mac.hash, v.macKey)
	h.Write(value)
	if !hmac.Equal(h.Sum(nil), given) {
		if !v.proven {
			return nil, fatal{fmt.Errorf("the MAC of %s is wrong: %s", what, errWrongKey)}
		}
		return nil, fmt.Errorf("the MAC of %s is wrong: it was altered or damaged, and is not decrypted", what)
	}
	v.proven = true
	plain, ok := decryptCBC(v.key, value)
	if !ok {
		return nil, fmt.Errorf("%s has a right MAC but is not padded as XML encryption has it", what)
	}
	return plain, nil
}

// maxMAC is room for the longest MAC, in bytes.
const maxMAC = sha512.Size + 3

// decryptCBC decrypts IV and ciphertext in place and takes the padding off: the
// last byte counts it, the others may be anything (XML Encryption 1.0, section
// 5.2).
func decryptCBC(key, value []byte) ([]byte, bool) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, false
	}
	iv, text := value[:aes.BlockSize], value[aes.BlockSize:]
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(text, text)
	pad := int(text[len(text)-1])
	if pad < 1 || pad > aes.BlockSize {
		return nil, false
	}
	return text[:len(text)-pad], true
}

func (v *vault) wipe() {
	clear(v.scratch[:])
	clear(v.key)
	clear(v.macKey)
}

// decodeBase64 decodes an element's text, with white space anywhere, into buf.
// The text is overwritten. Its errors continue a sentence.
func decodeBase64(buf []byte, n *node) ([]byte, error) {
	text := n.text[:0]
	for _, b := range n.text {
		switch b {
		case ' ', '\t', '\r', '\n':
		default:
			text = append(text, b)
		}
	}
	if len(text) == 0 || len(n.kids) > 0 {
		return nil, errors.New("is empty")
	}
	if base64.StdEncoding.DecodedLen(len(text)) > len(buf) {
		return nil, fmt.Errorf("is longer than %d bytes", len(buf)-3)
	}
	k, err := base64.StdEncoding.Decode(buf, text)
	clear(text)
	if err != nil {
		clear(buf[:k])
		return nil, errors.New("is not base64")
	}
	return buf[:k], nil
}

// fragment is what follows the # of a URI, in lower case.
func fragment(uri string) string {
	return strings.ToLower(uri[strings.LastIndexByte(uri, '#')+1:])
}

// quoted shows a name out of the file, shortened.
func quoted(s string) string {
	if s == "" {
		return "an algorithm without a name"
	}
	if len(s) > 80 {
		s = s[:80] + "..."
	}
	return strconv.Quote(s)
}
