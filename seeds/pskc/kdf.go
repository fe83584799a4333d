package pskc

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strconv"
)

// kdf is PBKDF2 (RFC 8018) with its parameters.
type kdf struct {
	prf        func() hash.Hash
	salt       []byte
	iterations int
	length     int // of the key, in bytes; zero if the file leaves it to the cipher
}

// key derives a key of n bytes (RFC 8018, section 5.2). The standard library's
// PBKDF2 takes the password as a string, which nobody can wipe.
func (d *kdf) key(password []byte, n int) []byte {
	mac := hmac.New(d.prf, password)
	size := mac.Size()
	key := make([]byte, 0, (n+size-1)/size*size)
	u := make([]byte, size)
	for block := uint32(1); len(key) < n; block++ {
		mac.Reset()
		mac.Write(d.salt)
		mac.Write(binary.BigEndian.AppendUint32(nil, block))
		u = mac.Sum(u[:0])
		key = append(key, u...)
		t := key[len(key)-size:]
		for range d.iterations - 1 {
			mac.Reset()
			mac.Write(u)
			u = mac.Sum(u[:0])
			subtle.XORBytes(t, t, u)
		}
	}
	clear(u)
	clear(key[n:])
	return key[:n:n]
}

// kdfSpaces are where PBKDF2's parameters stand: in the namespace of PKCS #5,
// in XML encryption 1.1's, or, as pskc-utils writes them and the RFC's own
// figure 7 has it, in none.
var kdfSpaces = []string{nsPKCS5, nsXEnc11, nsXEnc, nsPSKC, ""}

// readDerivedKey reads PBKDF2's parameters (RFC 6030, section 6.2).
func readDerivedKey(n *node) (*kdf, error) {
	spaces := kdfSpaces
	method, err := n.one("KeyDerivationMethod", spaces...)
	if err != nil {
		return nil, err
	}
	switch uri := method.attr("Algorithm"); uri {
	case nsPKCS5 + "pbkdf2", nsXEnc11 + "pbkdf2":
	default:
		return nil, fmt.Errorf("the key is derived by %s; PBKDF2 is what can be read", quoted(uri))
	}
	params, err := method.one("PBKDF2-params", spaces...)
	if err != nil {
		return nil, err
	}
	if params == nil {
		return nil, errors.New("PBKDF2 has no parameters")
	}
	d := &kdf{prf: sha1.New} // RFC 8018, appendix A.2: the default
	if prf, err := params.one("PRF", spaces...); err != nil {
		return nil, err
	} else if uri := prf.uri(); uri != "" {
		if d.prf = hashNamed(uri); d.prf == nil {
			return nil, fmt.Errorf("PBKDF2 uses %s; HMAC with SHA-1 or SHA-2 can be read", quoted(uri))
		}
	}
	if d.iterations, err = iterations(params, "IterationCount", spaces); err != nil {
		return nil, err
	}
	length, err := params.one("KeyLength", spaces...) // optional: RFC 8018, appendix A.2
	if err != nil {
		return nil, err
	}
	if length != nil {
		if d.length, err = number(params, "KeyLength", spaces); err != nil {
			return nil, err
		}
		if d.length != 16 && d.length != 24 && d.length != 32 {
			return nil, fmt.Errorf("PBKDF2 asks for a key of %d bytes; 16, 24 and 32 are possible", d.length)
		}
	}
	salt, err := params.one("Salt", spaces...)
	if err != nil {
		return nil, err
	}
	specified, err := salt.one("Specified", spaces...)
	if err != nil {
		return nil, err
	}
	if specified == nil {
		return nil, errors.New("PBKDF2 has no salt")
	}
	if d.salt, err = decodeBase64(make([]byte, maxSalt), specified); err != nil {
		return nil, fmt.Errorf("the salt of PBKDF2 %w", err)
	}
	return d, nil
}

// readPBE reads the parameters of a key derived from a password as the drafts
// have them; n is the container's EncryptionMethod. The key is as long as the
// cipher wants it.
func readPBE(n *node) (*kdf, error) {
	d := &kdf{prf: sha1.New}
	var err error
	if d.iterations, err = iterations(n, "PBEIterationCount", kdfSpaces); err != nil {
		return nil, err
	}
	salt, err := n.one("PBESalt", kdfSpaces...)
	if err != nil {
		return nil, err
	}
	if salt == nil {
		return nil, errors.New("PBKDF2 has no salt")
	}
	if d.salt, err = decodeBase64(make([]byte, maxSalt), salt); err != nil {
		return nil, fmt.Errorf("the salt of PBKDF2 %w", err)
	}
	return d, nil
}

// iterations reads how often PBKDF2 is to iterate, and bounds it.
func iterations(n *node, local string, spaces []string) (int, error) {
	i, err := number(n, local, spaces)
	if err != nil {
		return 0, err
	}
	if i < 1 || i > maxIterations {
		return 0, fmt.Errorf("PBKDF2 asks for %d iterations; 1 to %d are possible", i, maxIterations)
	}
	return i, nil
}

// uri is the algorithm that an element names by its attribute, or in its text,
// as pskc-utils writes it.
func (n *node) uri() string {
	if n == nil {
		return ""
	}
	if uri := n.attr("Algorithm"); uri != "" {
		return uri
	}
	return string(bytes.TrimSpace(n.text))
}

// number reads a whole number out of a child's text.
func number(n *node, local string, spaces []string) (int, error) {
	k, err := n.one(local, spaces...)
	if err != nil {
		return 0, err
	}
	if k == nil {
		return 0, fmt.Errorf("PBKDF2 has no %s", local)
	}
	i, err := strconv.Atoi(string(bytes.TrimSpace(k.text)))
	if err != nil {
		return 0, fmt.Errorf("%s of PBKDF2 is not a number", local)
	}
	return i, nil
}
