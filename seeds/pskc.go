package seeds

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"watchword/hsm"
	"watchword/seeds/pskc"
	"watchword/tokens"
)

// pskcXML is the Portable Symmetric Key Container of RFC 6030.
var pskcXML = Format{Name: "pskc", Title: "PSKC", Detect: detectPSKC, Open: openPSKC}

type pskcReader struct {
	r           *pskc.Reader
	hash        hsm.Hash // chosen, for keys that name none; zero: SHA-1
	transported bool
	rec         Record
}

func openPSKC(r io.Reader, o OpenOptions) Reader {
	return &pskcReader{
		r: pskc.NewReader(r, pskc.Options{
			Key: o.Key, Password: o.Password, Now: o.Now, Digits: o.Choices.Digits, Interval: o.Choices.Period,
			Signer: o.Signer, AllowExpired: o.AllowExpired, AllowRSA15: o.AllowRSA15,
		}),
		hash: o.Choices.Hash, transported: o.Transported,
	}
}

func (p *pskcReader) Close() { p.r.Close() }

// TransportKey is the public key that the file names for its seeds; nil if it
// names none, or no record was read yet.
func (p *pskcReader) TransportKey() *rsa.PublicKey {
	if r := p.r.Recipient(); r != nil {
		return r.PublicKey
	}
	return nil
}

// Notes says what else the container shows.
func (p *pskcReader) Notes() []string { return p.r.Notes() }

func (p *pskcReader) Next() (*Record, error) {
	k, err := p.r.Next()
	if err != nil {
		var bad *pskc.Error
		if errors.As(err, &bad) {
			return nil, &FileError{Line: bad.Line, Reason: bad.Reason}
		}
		if err == io.EOF {
			return nil, err
		}
		return nil, fmt.Errorf("reading the file: %w", err)
	}
	rec := &p.rec
	*rec = Record{Line: k.Line, Key: k.Number, Serial: k.Serial, Model: deviceName(k.Manufacturer, k.Model), User: k.User, Expires: k.Expires, Err: k.Err}
	if k.Err == nil {
		p.fill(k)
	}
	if rec.Err != nil && tokens.ValidSerial(rec.Serial) != nil {
		rec.Serial = ""
	}
	return rec, nil
}

// fill takes over what a usable key says, as far as a token can have it.
func (p *pskcReader) fill(k *pskc.Key) {
	rec := &p.rec
	rec.Digits, rec.Counter, rec.Period, rec.Drift, rec.Seed = k.Digits, k.Counter, k.Interval, k.Drift, k.Secret
	rec.Type, rec.Algorithm = tokens.TOTP, hsm.SHA1
	switch k.Algorithm {
	case pskc.HOTP:
		rec.Type = tokens.HOTP
	case pskc.YubiKeyAES:
		p.yubico(k)
		return
	}
	if k.Suite == "" && p.hash != 0 {
		rec.Algorithm = p.hash
	}
	if k.Suite != "" {
		hash, ok := parseHash(k.Suite[strings.LastIndexAny(k.Suite, "#:")+1:])
		if !ok {
			rec.fail("the suite %.40q names no hash that is known: SHA1, SHA256 and SHA512 are", k.Suite)
			return
		}
		rec.Algorithm = hash
	}
	if e := k.Encrypted; e != nil {
		rec.Transported = transported(e, rec.Algorithm)
	}
	if err := rec.check(); err != nil {
		rec.fail("%w", err)
	} else if rec.Transported != nil && !p.transported {
		rec.fail("the seed is encrypted to a public key, and there is no transport key here that it could be taken over with")
	}
}

// yubico fills p.rec from the key of a YubiKey. What the RFC has for codes of digits
// means nothing for it.
func (p *pskcReader) yubico(k *pskc.Key) {
	rec := &p.rec
	rec.Type, rec.Algorithm, rec.Digits, rec.Period, rec.Drift = tokens.YubicoOTP, hsm.AES128, 0, 0, 0
	rec.PublicID, rec.PrivateID = strings.ToLower(k.PublicID), k.PrivateID[:]
	if k.Encrypted != nil {
		rec.Transported = transported(k.Encrypted, rec.Algorithm)
	}
	if err := rec.check(); err != nil {
		rec.fail("%w", err)
	}
}

// transported is a seed as the HSM takes it over.
func transported(e *pskc.Encrypted, hash hsm.Hash) *hsm.Transported {
	t := &hsm.Transported{Mechanism: hsm.TransportOAEP, OAEPHash: e.OAEPHash, MGFHash: e.MGFHash, Label: e.Label, Hash: hash, Ciphertext: e.Ciphertext}
	if e.PKCS1 {
		t.Mechanism = hsm.TransportPKCS1
	}
	if m := e.MAC; m != nil {
		k := m.Key // encrypted by the same mechanism: package pskc sees to that
		t.MAC = &hsm.TransportMAC{OAEPHash: k.OAEPHash, MGFHash: k.MGFHash, Label: k.Label, Key: k.Ciphertext, Hash: m.Hash, Value: m.Value}
	}
	return t
}

// ParseSignerFile reads the certificate whose signature a file must carry: in
// PEM or in DER. The error wraps tokens.ErrInvalid.
func ParseSignerFile(file []byte) (*x509.Certificate, error) {
	der := file
	if block, _ := pem.Decode(file); block != nil {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%w: the signer's file has a PEM block %.40q, not a CERTIFICATE", tokens.ErrInvalid, block.Type)
		}
		der = block.Bytes
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%w: the signer's file is not an X.509 certificate in PEM or DER", tokens.ErrInvalid)
	}
	return cert, nil
}

// detectPSKC looks for the root element. What stands before it is not judged
// here.
func detectPSKC(prefix []byte, _ bool) (bool, string) {
	if !bytes.HasPrefix(bytes.TrimSpace(prefix), []byte("<")) {
		return false, "it is not XML"
	}
	dec := xml.NewDecoder(bytes.NewReader(prefix))
	dec.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	for {
		t, err := dec.Token()
		if err != nil {
			return false, "it is XML, but no root element is found in its first 8 KB"
		}
		switch t := t.(type) {
		case xml.Directive:
			return false, "it is XML with a document type declaration (DTD), which no seed file needs"
		case xml.StartElement:
			is, draft := pskc.Root(t.Name)
			switch {
			case is && draft:
				return true, "root element " + t.Name.Local + " in the namespace of a draft of RFC 6030"
			case is:
				return true, "root element KeyContainer in the namespace of RFC 6030"
			case t.Name.Local != "KeyContainer":
				return false, fmt.Sprintf("it is XML, but its root element is %.40q, not KeyContainer", t.Name.Local)
			}
			return false, fmt.Sprintf("its KeyContainer is in the namespace %.80q, not in that of RFC 6030 or of a draft", t.Name.Space)
		}
	}
}
