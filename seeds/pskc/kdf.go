package pskc

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha1"
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
	length     int
}

// key derives the key.
func (d *kdf) key(password []byte) ([]byte, error) {
	return pbkdf2.Key(d.prf, string(password), d.salt, d.iterations, d.length)
}

// readDerivedKey reads PBKDF2's parameters (RFC 6030, section 6.2). They stand
// in the namespace of PKCS #5, in XML encryption 1.1's, or, as pskc-utils
// writes them and the RFC's own figure 7 has it, in none.
func readDerivedKey(n *node) (*kdf, error) {
	spaces := []string{nsPKCS5, nsXEnc11, nsXEnc, nsPSKC, ""}
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
		if d.prf = hashes[fragment(uri)]; d.prf == nil {
			return nil, fmt.Errorf("PBKDF2 uses %s; HMAC with SHA-1 or SHA-2 can be read", quoted(uri))
		}
	}
	if d.iterations, err = number(params, "IterationCount", spaces); err != nil {
		return nil, err
	}
	if d.iterations < 1 || d.iterations > maxIterations {
		return nil, fmt.Errorf("PBKDF2 asks for %d iterations; 1 to %d are possible", d.iterations, maxIterations)
	}
	if d.length, err = number(params, "KeyLength", spaces); err != nil {
		return nil, err
	}
	if d.length != 16 && d.length != 24 && d.length != 32 {
		return nil, fmt.Errorf("PBKDF2 asks for a key of %d bytes; 16, 24 and 32 are possible", d.length)
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
	d.salt = make([]byte, maxSalt)
	if d.salt, err = decodeBase64(d.salt, specified); err != nil {
		return nil, fmt.Errorf("the salt of PBKDF2 %w", err)
	}
	return d, nil
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
