package pskc

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Encrypted is a secret that is encrypted to a public key. This package does
// not decrypt it: whoever holds the private key does, in an HSM.
type Encrypted struct {
	PKCS1 bool // RSAES-PKCS1-v1_5; otherwise RSAES-OAEP (RFC 8017, section 7)

	// OAEP's digest, that of its mask generation function MGF1, and its label.
	OAEPHash, MGFHash crypto.Hash
	Label             []byte

	Ciphertext []byte

	// MAC authenticates Ciphertext; nil if the file has no MACs.
	MAC *EncryptedMAC
}

// EncryptedMAC is a MAC whose key is encrypted to the public key, too. Whoever
// holds the private key checks it before the secret is decrypted.
type EncryptedMAC struct {
	Key   *Encrypted  // the same for all keys of a file
	Hash  crypto.Hash // of the HMAC
	Value []byte      // over the secret's Ciphertext
}

// Recipient is what a container says of the public key that its secrets are
// encrypted to. What the file does not say is zero.
type Recipient struct {
	KeyName    string
	Subject    string         // distinguished name, as the file writes it
	Issuer     string         // distinguished name, as the file writes it
	Serial     *big.Int       // of the certificate, by its issuer
	SKI        []byte         // subject key identifier
	Thumbprint []byte         // SHA-256 of the certificate
	PublicKey  *rsa.PublicKey // out of a certificate or a KeyValue
}

// read takes over an X509Data or KeyValue element (XML Signature, section 4.4).
func (r *Recipient) read(n *node) error {
	for _, k := range n.kids {
		var err error
		switch {
		case k.is("X509Certificate", nsDS):
			err = r.certificate(k)
		case k.is("X509IssuerSerial", nsDS):
			err = r.issuerSerial(k)
		case k.is("X509SubjectName", nsDS):
			r.Subject, err = k.content()
		case k.is("X509SKI", nsDS):
			r.SKI, err = decodeBase64(make([]byte, 256), k)
		case k.is("X509Digest", nsDS11):
			if strings.HasSuffix(k.attr("Algorithm"), "#sha256") {
				r.Thumbprint, err = decodeBase64(make([]byte, 64), k)
			}
		case k.is("RSAKeyValue", nsDS):
			err = r.keyValue(k)
		case k.is("X509CRL", nsDS):
		default:
			return fmt.Errorf("the key that the seeds are encrypted to is given by %s, which is not known here; RSA keys are", quoted(k.name.Local))
		}
		if err != nil {
			return fmt.Errorf("the %s of the key that the seeds are encrypted to %w", k.name.Local, err)
		}
	}
	return nil
}

func (r *Recipient) certificate(n *node) error {
	der, err := decodeBase64(make([]byte, maxText), n)
	if err != nil {
		return err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return errors.New("cannot be read")
	}
	public, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return errors.New("is not for an RSA key")
	}
	if err := r.setKey(public); err != nil {
		return err
	}
	sum := crypto.SHA256.New()
	sum.Write(der)
	r.Thumbprint = sum.Sum(nil)
	r.Subject, r.Issuer, r.Serial, r.SKI = cert.Subject.String(), cert.Issuer.String(), cert.SerialNumber, cert.SubjectKeyId
	return nil
}

func (r *Recipient) issuerSerial(n *node) error {
	for _, k := range n.kids {
		text, err := k.content()
		if err != nil {
			return err
		}
		switch {
		case k.is("X509IssuerName", nsDS):
			r.Issuer = text
		case k.is("X509SerialNumber", nsDS):
			serial, ok := new(big.Int), len(text) <= 50
			if ok {
				serial, ok = serial.SetString(text, 10)
			}
			if !ok {
				return errors.New("has no number")
			}
			r.Serial = serial
		}
	}
	return nil
}

func (r *Recipient) keyValue(n *node) error {
	number := func(local string) (*big.Int, error) {
		k, err := n.one(local, nsDS)
		if err != nil {
			return nil, err
		}
		if k == nil {
			return nil, errors.New("is not whole")
		}
		octets, err := decodeBase64(make([]byte, 2100), k)
		return new(big.Int).SetBytes(octets), err
	}
	modulus, err := number("Modulus")
	if err != nil {
		return err
	}
	exponent, err := number("Exponent")
	if err != nil {
		return err
	}
	if !exponent.IsInt64() || exponent.Int64() > 1<<31-1 || exponent.Int64() < 3 {
		return errors.New("has an exponent that is not usual")
	}
	return r.setKey(&rsa.PublicKey{N: modulus, E: int(exponent.Int64())})
}

func (r *Recipient) setKey(k *rsa.PublicKey) error {
	if r.PublicKey != nil && !r.PublicKey.Equal(k) {
		return errors.New("is not the only one: the file names two keys")
	}
	r.PublicKey = k
	return nil
}

// The digests of OAEP and of its mask generation function, by what follows the
// # of their URI.
var oaepHashes = map[string]crypto.Hash{
	"sha1": crypto.SHA1, "sha224": crypto.SHA224, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512,
	"mgf1sha1": crypto.SHA1, "mgf1sha224": crypto.SHA224, "mgf1sha256": crypto.SHA256, "mgf1sha384": crypto.SHA384, "mgf1sha512": crypto.SHA512,
}

// macHashes are the digests of MACs by their keys in hashes.
var macHashes = map[string]crypto.Hash{
	"hmac-sha1": crypto.SHA1, "hmac-sha224": crypto.SHA224, "hmac-sha256": crypto.SHA256, "hmac-sha384": crypto.SHA384, "hmac-sha512": crypto.SHA512,
}

// errMixed: RFC 6030, section 6.1.1, has the MAC key under the same key as the
// values.
var errMixed = errors.New("the MAC key is encrypted to a public key, but the values under a symmetric key; RFC 6030, section 6.1.1, has both under the same: ask the vendor for one or the other")

// transported reads a secret that is encrypted to a public key, if n is one;
// nil if it is not. The answer has buffers of its own, but for the MAC key, which
// all have in common. A fatal error is for the file.
func (v *vault) transported(n, mac *node) (*Encrypted, error) {
	e, err := v.toKey("the seed", n)
	if e == nil || err != nil {
		return nil, err
	}
	if v.recipient == nil {
		v.recipient = &Recipient{KeyName: v.keyName}
	}
	if v.mac == nil {
		if mac != nil {
			why := "no MACMethod says how to check it"
			if v.unnamed {
				why = "the MACMethod names no algorithm"
			}
			return nil, fmt.Errorf("the seed has a MAC, but %s", why)
		}
		return e, nil
	}
	switch to := v.mac.to; {
	case v.mac.by == nil && to == nil:
		return nil, fatal{errors.New("the seeds are encrypted to a public key and the file has a MACMethod, but no MACKey in it; under a public key there is no other that the MACs could be made with")}
	case to == nil:
		return nil, fatal{errors.New("the seeds are encrypted to a public key, but the MAC key under a symmetric key; RFC 6030, section 6.1.1, has both under the same: ask the vendor for one or the other")}
	case to.PKCS1 != e.PKCS1:
		return nil, fatal{errors.New("of the seeds and the MAC key one is encrypted by RSA-1_5, the other by RSA-OAEP; ask the vendor for RSA-OAEP in both")}
	case mac == nil:
		return nil, errors.New("the file has a MACMethod, but the seed has no ValueMAC")
	}
	value, err := decodeBase64(make([]byte, maxMAC), mac)
	if err != nil {
		return nil, fmt.Errorf("the MAC of the seed %w", err)
	}
	e.MAC = &EncryptedMAC{Key: v.mac.to, Hash: macHashes[v.mac.named], Value: value}
	if want := e.MAC.Hash.Size(); len(value) != want {
		return nil, fmt.Errorf("the MAC of the seed has %d bytes; %s makes %d", len(value), strings.ToUpper(v.mac.named), want)
	}
	return e, nil
}

// toKey reads what is encrypted to a public key, if n is; nil if it is not. what
// names it in errors. A fatal error is for the file.
func (v *vault) toKey(what string, n *node) (*Encrypted, error) {
	method, err := n.one("EncryptionMethod", nsXEnc, nsPSKC)
	if err != nil {
		return nil, err
	}
	uri := method.attr("Algorithm")
	if by := algorithmNamed(uri); by == nil || by.mode != rsaWrap {
		return nil, nil
	}
	if v.recipient == nil && v.derive != nil {
		return nil, fmt.Errorf("%s is encrypted to a public key in a file whose key comes from a password", what)
	}
	e := new(Encrypted)
	switch name := fragment(uri); {
	case !strings.HasPrefix(name, "rsa-oaep"):
		if e.PKCS1 = true; !v.given.AllowRSA15 {
			return nil, fatal{errors.New("the seeds are encrypted to a public key by RSA-1_5 (PKCS #1 v1.5), which is off because answers about it help to decrypt other seeds; ask the vendor for RSA-OAEP, or allow it with --allow-rsa-1-5")}
		}
	default:
		if err := e.oaep(method, name == "rsa-oaep"); err != nil {
			return nil, fmt.Errorf("%s is encrypted by RSA-OAEP, %w", what, err)
		}
	}
	_, value, err := v.readEncrypted(n, make([]byte, maxCipher))
	if err != nil {
		return nil, fmt.Errorf("%s %w", what, err)
	}
	if len(value) < 128 || len(value) > 1024 || v.recipient != nil && v.recipient.PublicKey != nil && len(value) != v.recipient.PublicKey.Size() {
		return nil, fmt.Errorf("%s is encrypted by RSA into %d bytes, which is not the length of the key", what, len(value))
	}
	e.Ciphertext = value
	return e, nil
}

// oaep reads OAEP's parameters: rsa-oaep-mgf1p has MGF1 with SHA-1 (XML
// Encryption 1.0, section 5.4.2), rsa-oaep may name another (1.1, section
// 5.5.2). The digest is SHA-1 unless it is named.
func (e *Encrypted) oaep(method *node, free bool) error {
	e.OAEPHash, e.MGFHash = crypto.SHA1, crypto.SHA1
	for _, k := range method.kids {
		uri := k.attr("Algorithm")
		hash := oaepHashes[fragment(uri)]
		switch {
		case k.is("DigestMethod", nsDS):
			if hash == 0 || strings.HasPrefix(fragment(uri), "mgf1") {
				return fmt.Errorf("with the digest %s, which is not known here", quoted(uri))
			}
			e.OAEPHash = hash
		case k.is("MGF", nsXEnc11) && free:
			if hash == 0 || !strings.HasPrefix(fragment(uri), "mgf1") {
				return fmt.Errorf("with the mask generation function %s, which is not known here", quoted(uri))
			}
			e.MGFHash = hash
		case k.is("OAEPparams", nsXEnc):
			var err error
			if e.Label, err = decodeBase64(make([]byte, 1024), k); err != nil {
				return fmt.Errorf("whose OAEPparams %w", err)
			}
		case k.is("KeySize", nsXEnc):
		default:
			return fmt.Errorf("with a parameter %s, which is not known here", quoted(k.name.Local))
		}
	}
	return nil
}
