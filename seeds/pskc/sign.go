package pskc

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
)

// minRSA is the shortest RSA key whose signature counts, in bits.
const minRSA = 2048

// The digests of signatures, by what follows the # of a DigestMethod or, after
// rsa- or ecdsa-, of a SignatureMethod (RFC 6931). SHA-1 is not among them: a
// signature by it can be forged.
var signatureHashes = map[string]crypto.Hash{
	"sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512,
}

// verify reads the file whole, checks that it carries a signature of the given
// certificate over all of it, and lets the reader read on from memory. So the
// octets that are read are the ones that were signed.
func (r *Reader) verify() error {
	if err := r.readWhole(); err != nil {
		return err
	}
	whole := bytes.TrimPrefix(r.whole, []byte("\xef\xbb\xbf"))
	whole = normalise(whole)
	s := signature{whole: whole, by: r.vault.given.Signer}
	if err := s.check(); err != nil {
		return err
	}
	r.signer = fmt.Sprintf("%s (certificate with the SHA-256 thumbprint %x)", quoted(s.by.Subject.String()), sha256.Sum256(s.by.Raw))
	if r.vault.given.Now.After(s.by.NotAfter) {
		r.signer += ", whose certificate expired on " + s.by.NotAfter.Format("2006-01-02")
	}
	r.p = newParser(bytes.NewReader(whole))
	return nil
}

// signature is an enveloped XML signature over a whole container (RFC 6030,
// section 7; XML Signature, second edition).
type signature struct {
	whole []byte
	by    *x509.Certificate

	at     int64 // where the Signature element begins
	line   int
	rooted bool
	root   int64    // where the root element begins
	ids    []string // what the root element can be referred to by
	info   int64    // where the SignedInfo begins
	c14n   form     // of the SignedInfo
	made   *signatureMethod
	value  []byte
	data   form // of the container
	sum    []byte
	hash   crypto.Hash // of sum
	all    bool        // the reference is to the document, not to its root element
}

// form is a canonical form of XML, with its parameter.
type form struct {
	exclusive bool
	prefixes  []string
}

type signatureMethod struct {
	rsa  bool
	hash crypto.Hash
}

func (s *signature) errorf(format string, args ...any) error {
	return &Error{Line: max(s.line, 1), Reason: fmt.Sprintf(format, args...)}
}

// check finds the signature and says what is wrong with it, or nil.
func (s *signature) check() error {
	if err := s.find(); err != nil {
		return err
	}
	sum, err := s.digest(s.hash, canon{exclusive: s.data.exclusive, prefixes: s.data.prefixes, document: s.all, from: s.root, without: s.at})
	if err != nil {
		return err
	}
	if !hmac.Equal(sum, s.sum) {
		return s.errorf("the signature does not fit the file, which was altered after it was signed")
	}
	sum, err = s.digest(s.made.hash, canon{exclusive: s.c14n.exclusive, prefixes: s.c14n.prefixes, from: s.info, without: -1})
	if err != nil {
		return err
	}
	return s.verify(sum)
}

// find reads the file and its one signature, which is a child of the container.
func (s *signature) find() error {
	p := newParser(bytes.NewReader(s.whole))
	defer p.in.wipe()
	defer p.wipe()
	found := false
	for {
		t, err := p.token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.CharData:
			blank := len(bytes.TrimSpace(t)) == 0
			clear(t)
			if p.depth == 0 && !blank {
				return p.errorf("there is text outside of the KeyContainer")
			}
		case xml.StartElement:
			if p.depth == 1 {
				if s.rooted {
					return p.errorf("something follows the end of the KeyContainer")
				}
				s.rooted = true
				s.root = p.at
				for _, a := range t.Attr {
					if strings.EqualFold(a.Name.Local, "id") {
						s.ids = append(s.ids, a.Value)
					}
				}
			}
			if p.depth != 2 || t.Name.Local != "Signature" || t.Name.Space != nsDS {
				break
			}
			if found {
				return p.errorf("there are two signatures; one is what can be checked")
			}
			found = true
			s.line, s.at = p.line(), p.at
			n, err := p.tree(t)
			if err != nil {
				return err
			}
			if err := s.read(n); err != nil {
				return s.errorf("the signature %s", err)
			}
		}
	}
	if !found {
		return &Error{Line: 1, Reason: "the file carries no XML signature, but the certificate of its signer is given; ask the vendor for the signed file, or import it without the certificate"}
	}
	return nil
}

// read takes over what the Signature element says. Its errors continue a
// sentence.
func (s *signature) read(n *node) error {
	info, err := n.one("SignedInfo", nsDS)
	if err != nil {
		return err
	}
	value, err := n.one("SignatureValue", nsDS)
	if err != nil {
		return err
	}
	if info == nil || value == nil {
		return errors.New("has no SignedInfo or no SignatureValue")
	}
	s.info = info.at
	if s.value, err = decodeBase64(make([]byte, 2100), value); err != nil {
		return fmt.Errorf("has a value that %w", err)
	}
	var reference *node
	for _, k := range info.kids {
		switch {
		case k.is("CanonicalizationMethod", nsDS):
			s.c14n, err = readForm(k)
		case k.is("SignatureMethod", nsDS):
			err = s.method(k)
		case k.is("Reference", nsDS) && reference == nil:
			reference = k
			err = s.reference(k)
		case k.is("Reference", nsDS):
			err = errors.New("has several references; one to the whole file is what can be checked")
		default:
			err = fmt.Errorf("has the element %s, which is not known here", quoted(k.name.Local))
		}
		if err != nil {
			return err
		}
	}
	if reference == nil || s.made == nil {
		return errors.New("does not say what it signs, or how")
	}
	return nil
}

// readForm reads which canonical form of XML an element asks for.
func readForm(n *node) (f form, err error) {
	uri := n.attr("Algorithm")
	known, ok := canonicalForms[uri]
	if !ok {
		return f, fmt.Errorf("is over a form of XML, %s, that is not known here", quoted(uri))
	}
	f.exclusive = known.exclusive
	for _, k := range n.kids {
		if !k.is("InclusiveNamespaces", nsExcC14N) || !f.exclusive {
			return f, fmt.Errorf("is over a form of XML with the parameter %s, which is not known here", quoted(k.name.Local))
		}
		for _, prefix := range strings.Fields(k.attr("PrefixList")) {
			if prefix == "#default" {
				prefix = ""
			}
			f.prefixes = append(f.prefixes, prefix)
		}
	}
	return f, nil
}

// errSHA1 is why a signature by SHA-1 does not count.
var errSHA1 = errors.New("is made with SHA-1, by which signatures can be forged; ask the vendor for one with SHA-256, or import the file without the signer's certificate")

func (s *signature) method(n *node) error {
	uri := n.attr("Algorithm")
	name := fragment(uri)
	kind, hash, _ := strings.Cut(name, "-")
	s.made = &signatureMethod{rsa: kind == "rsa", hash: signatureHashes[hash]}
	switch {
	case hash == "sha1":
		return errSHA1
	case kind != "rsa" && kind != "ecdsa" || s.made.hash == 0 || len(n.kids) > 0:
		return fmt.Errorf("is made by %s; RSA (PKCS #1 v1.5) and ECDSA with SHA-2 can be checked", quoted(uri))
	}
	return nil
}

// reference reads what is signed: the document or its root element, without the
// signature itself.
func (s *signature) reference(n *node) error {
	uri := n.attr("URI")
	switch id, ok := strings.CutPrefix(uri, "#"); {
	case uri == "":
		s.all = true
	case !ok || !slices.Contains(s.ids, id):
		return fmt.Errorf("covers %s and not the whole file", quoted(uri))
	}
	enveloped, formed := false, false
	for _, k := range n.kids {
		var err error
		switch {
		case k.is("Transforms", nsDS):
			for _, t := range k.kids {
				switch uri := t.attr("Algorithm"); {
				case !t.is("Transform", nsDS):
					err = errors.New("has transforms that are not known here")
				case uri == nsDS+"enveloped-signature" && !enveloped && !formed:
					enveloped = true
				case formed:
					err = errors.New("is over a form of XML that is made twice")
				default:
					formed = true
					s.data, err = readForm(t)
				}
				if err != nil {
					return err
				}
			}
		case k.is("DigestMethod", nsDS):
			name := fragment(k.attr("Algorithm"))
			if name == "sha1" {
				return errSHA1
			}
			if s.hash = signatureHashes[name]; s.hash == 0 {
				return fmt.Errorf("has a digest by %s, which is not known here; SHA-2 is", quoted(k.attr("Algorithm")))
			}
		case k.is("DigestValue", nsDS):
			if s.sum, err = decodeBase64(make([]byte, 100), k); err != nil {
				return fmt.Errorf("has a digest that %w", err)
			}
		default:
			return fmt.Errorf("has the element %s, which is not known here", quoted(k.name.Local))
		}
	}
	switch {
	case !enveloped:
		return errors.New("does not leave itself out of what it signs, so it cannot be right")
	case s.hash == 0 || s.sum == nil:
		return errors.New("has no digest")
	}
	return nil
}

// digest is the hash of the canonical form that c writes.
func (s *signature) digest(h crypto.Hash, c canon) ([]byte, error) {
	p := newParser(bytes.NewReader(s.whole))
	defer p.in.wipe()
	sum := h.New()
	defer func() { // a hash holds back what it was given last
		var zero [256]byte
		sum.Write(zero[:sum.BlockSize()])
	}()
	c.w = sum
	for {
		p.in.given = 0
		at := p.dec.InputOffset() - int64(len(prelude))
		t, err := p.dec.RawToken()
		if err == io.EOF {
			return sum.Sum(nil), nil
		}
		if err != nil {
			return nil, p.wrong(err)
		}
		if err := c.token(t, at); err != nil {
			return nil, s.errorf("the signature cannot be checked: %v", err)
		}
	}
}

// verify checks the signature over a digest.
func (s *signature) verify(sum []byte) error {
	ok := false
	switch key := s.by.PublicKey.(type) {
	case *rsa.PublicKey:
		if !s.made.rsa {
			return s.errorf("the signature is by ECDSA, but the key of the given certificate (%s) is for RSA", quoted(s.by.Subject.String()))
		}
		if key.N.BitLen() < minRSA {
			return s.errorf("the key of the given certificate has %d bits; signatures of RSA keys from %d bits on are trusted", key.N.BitLen(), minRSA)
		}
		ok = rsa.VerifyPKCS1v15(key, s.made.hash, sum, s.value) == nil
	case *ecdsa.PublicKey:
		if s.made.rsa {
			return s.errorf("the signature is by RSA, but the key of the given certificate (%s) is for ECDSA", quoted(s.by.Subject.String()))
		}
		// RFC 6931, section 2.3.6: both numbers, as long as the key.
		if n := (key.Curve.Params().BitSize + 7) / 8; len(s.value) == 2*n {
			ok = ecdsa.Verify(key, sum, new(big.Int).SetBytes(s.value[:n]), new(big.Int).SetBytes(s.value[n:]))
		}
	default:
		return s.errorf("the given certificate is for a key that is neither RSA nor ECDSA")
	}
	if !ok {
		return s.errorf("the signature was not made with the key of the given certificate (%s), or was altered", quoted(s.by.Subject.String()))
	}
	return nil
}
