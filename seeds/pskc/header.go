package pskc

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

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
		case k.is("X509Data", nsDS), k.is("KeyValue", nsDS):
			if v.recipient == nil {
				v.recipient = new(Recipient)
			}
			if err := v.recipient.read(k); err != nil {
				return err
			}
		case k.is("EncryptedKey", nsXEnc), k.is("RetrievalMethod", nsDS):
			return fmt.Errorf("the encryption key is given by %s, which is not supported: ask the vendor for seeds encrypted to your certificate itself, or under a pre-shared key or a password", k.name.Local)
		default:
			return fmt.Errorf("the encryption key is given by %s, which is not known here", quoted(k.name.Local))
		}
	}
	if v.recipient != nil {
		v.recipient.KeyName = v.keyName
		if v.derive != nil {
			return errors.New("the encryption key is given both by a password and by a public key")
		}
	}
	return nil
}

// readEncryptionMethod reads the element of that name, by which the early
// drafts say how every Value is encrypted.
func (v *vault) readEncryptionMethod(n *node) error {
	uri := n.attr("Algorithm", "algorithm")
	if strings.EqualFold(uri, "none") {
		return nil
	}
	v.declared = true
	name, password := uri, false
	if len(uri) > 4 && strings.EqualFold(uri[:4], "pbe-") {
		name, password = uri[4:], true
	}
	if v.legacy = algorithmNamed(name); v.legacy == nil || v.legacy.mode == rsaWrap {
		return fmt.Errorf("the seeds are encrypted by %s, which is not known here", quoted(uri))
	}
	for _, k := range n.kids {
		var err error
		switch {
		case k.is("KeyName", nsDS, nsPSKC):
			v.keyName = string(bytes.TrimSpace(k.text))
		case k.is("IV", nsPSKC, nsXEnc):
			if v.iv != nil {
				return errors.New("there are two IV elements")
			}
			if v.iv, err = decodeBase64(make([]byte, 64), k); err != nil {
				return fmt.Errorf("the IV %w", err)
			}
		case password && (k.is("PBESalt", kdfSpaces...) || k.is("PBEIterationCount", kdfSpaces...)):
		default:
			return fmt.Errorf("the encryption has a parameter %s, which is not known here", quoted(k.name.Local))
		}
	}
	if password {
		if v.derive != nil {
			return errors.New("the encryption key is given by a password in two ways")
		}
		var err error
		if v.derive, err = readPBE(n); err != nil {
			return err
		}
	}
	return nil
}

// readMACMethod reads the element of that name (RFC 6030, section 6.1.1), or
// the DigestMethod or MACAlgorithm of a draft.
func (v *vault) readMACMethod(n *node) error {
	uri := n.attr("Algorithm", "algorithm")
	if n.name.Local == "MACAlgorithm" {
		uri = n.uri()
	}
	if uri == "" {
		// As pskc-utils writes it beside key wrap. A value that has a MAC, or
		// needs one, is refused when it comes.
		v.unnamed = true
		return nil
	}
	m := &macInfo{hash: hashNamed(uri), named: hashName(uri)}
	if m.hash == nil {
		return fmt.Errorf("the MAC is made by %s; HMAC with SHA-1 or SHA-2 can be read", quoted(uri))
	}
	key, err := n.one("MACKey", nsPSKC)
	if err != nil {
		return err
	}
	if key != nil {
		if m.to, err = v.toKey("the MAC key", key); err != nil {
			return err
		}
		if m.to == nil {
			if m.by, m.value, err = v.readEncrypted(key, make([]byte, maxCipher)); err != nil {
				return fmt.Errorf("the MAC key %w", err)
			}
			if m.by.mode == rsaWrap {
				return errors.New("the MAC key is encrypted to a public key in a way that is not understood")
			}
		}
	} else if ref, err := n.one("MACKeyReference", nsPSKC); err != nil {
		return err
	} else if ref != nil {
		return errors.New("the MAC key is only named, not held, by this file; ask the vendor for a file with a MACKey")
	}
	v.mac = m
	return nil
}
