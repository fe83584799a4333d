package webauthn

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	_ "embed" // roots.pem
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"watchword/tokens"
	"watchword/tokens/audit"
)

// fidoRootsPEM are the roots that FIDO's own metadata chains to: GlobalSign Root
// R46 (since August 2026) and GlobalSign Root CA - R3 (before; until 2029 the
// newer root comes with it, cross-signed). Both are in Debian's
// ca-certificates; a test holds them against their published fingerprints.
//
//go:embed roots.pem
var fidoRootsPEM []byte

// fidoSigner is the name that must stand in the certificate that FIDO signs with.
// Its roots are those of a public authority, which certifies all the world: that
// a blob chains to them says nothing without the name.
const fidoSigner = "mds.fidoalliance.org"

// blobAnchors say whom a metadata blob may be signed by.
type blobAnchors struct {
	roots *x509.CertPool
	name  string // DNS name that the signing certificate must have; empty: any, the roots are for metadata alone
}

// fidoAnchors are FIDO's, or if there are own roots, these.
func fidoAnchors(own *x509.CertPool) (blobAnchors, error) {
	if own != nil {
		return blobAnchors{roots: own}, nil
	}
	certs, err := parseRoots(fidoRootsPEM)
	if err != nil {
		return blobAnchors{}, err
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return blobAnchors{roots: pool, name: fidoSigner}, nil
}

// signer proves a chain (RFC 7515, section 4.1.6: base64 of DER, the signing
// certificate first) as of a moment, and answers the signing certificate.
func (a blobAnchors) signer(chain []string, at time.Time) (*x509.Certificate, error) {
	var leaf *x509.Certificate
	between := x509.NewCertPool()
	for i, text := range chain {
		der, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of its chain is not base64: %w", i+1, err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("certificate %d of its chain is not understood: %w", i+1, err)
		}
		if key, ok := c.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
			return nil, fmt.Errorf("certificate %d of its chain has an RSA key of %d bits; up to %d are possible", i+1, key.N.BitLen(), maxRSA)
		}
		if i == 0 {
			leaf = c
		} else {
			between.AddCert(c)
		}
	}
	// Not the whole subject, behind which the audit would cut off the reason.
	who := fmt.Sprintf("its signing certificate (%s, valid from %s until %s)", printable(leaf.Subject.CommonName),
		leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly))
	if a.name != "" {
		if err := leaf.VerifyHostname(a.name); err != nil {
			return nil, fmt.Errorf("%s is not FIDO's: it is not made out to %s", who, a.name)
		}
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return nil, fmt.Errorf("%s may not sign (key usage)", who)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.roots, Intermediates: between, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("%s chains to no trusted root: %w", who, err)
	}
	return leaf, nil
}

// The limits of own roots.
const (
	maxRootsSize = 1 << 20
	maxRoots     = 200
)

// loadedRoots is one version of the own roots.
type loadedRoots struct {
	version int64
	certs   []*x509.Certificate
	err     error
}

// parseRoots reads certificates in PEM, and nothing else. Text between them, as
// 'openssl x509 -text' writes it, is passed over.
func parseRoots(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxRootsSize {
		return nil, fmt.Errorf("%d bytes are more than roots have; up to %d are read", len(text), maxRootsSize)
	}
	var certs []*x509.Certificate
	seen := map[[sha256.Size]byte]bool{}
	for n := 1; ; n++ {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("block %d is no certificate (its type is %s)", n, printable(block.Type))
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d is not understood: %w", n, err)
		}
		if sum := sha256.Sum256(c.Raw); !seen[sum] {
			seen[sum] = true
			certs = append(certs, c)
		}
		if len(certs) > maxRoots {
			return nil, fmt.Errorf("there are more than %d certificates", maxRoots)
		}
	}
	if strings.Contains(string(text), "-----BEGIN") {
		return nil, errors.New("what follows the last certificate that was read is damaged PEM")
	}
	return certs, nil
}

// RootInfo is one of the own roots.
type RootInfo struct {
	Subject string    `json:"subject"`
	Until   time.Time `json:"until"`  // valid until
	SHA256  string    `json:"sha256"` // fingerprint, hex
	PEM     string    `json:"pem"`
}

// SetRoots replaces the own roots: trust anchors, in PEM, of keys whose model no
// metadata has. An anchor may be a root, an intermediate or an attestation
// certificate itself. Empty PEM leaves none. A certificate that expired is
// refused with ErrInvalid, as is anything that is none.
func (s *Service) SetRoots(ctx context.Context, p tokens.Principal, text []byte) error {
	detail := []audit.Field{{Name: "document", Value: rootsDocument}}
	// They are of all realms, and so are those that there are not.
	if err := s.core.May(ctx, p, actRules, ""); err != nil {
		return err
	}
	now := s.cfg.Now()
	certs, err := parseRoots(text)
	if err == nil && len(certs) == 0 && strings.TrimSpace(string(text)) != "" {
		err = errors.New("there is no certificate in PEM in it")
	}
	for _, c := range certs {
		if err == nil && now.After(c.NotAfter) {
			err = fmt.Errorf("%s expired on %s", printable(c.Subject.String()), c.NotAfter.UTC().Format(time.DateOnly))
		}
		sum := sha256.Sum256(c.Raw)
		detail = append(detail, audit.Field{Name: "sha256", Value: hex.EncodeToString(sum[:])})
	}
	if err != nil {
		return s.refuseDocument(ctx, p, actRules, err, detail[:1])
	}
	var plain []byte // nil: there are to be none
	for _, c := range certs {
		plain = append(plain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	for range documentAttempts {
		expect := int64(0)
		doc, err := s.core.Document(ctx, rootsDocument)
		switch {
		case err == nil:
			expect = doc.Version
		case !errors.Is(err, tokens.ErrNotFound):
			return err
		case plain == nil: // none before, none now
			return s.core.Allow(ctx, p, actRules, audit.Event{Detail: detail})
		}
		_, err = s.core.PutSealed(ctx, p, actRules, "", tokens.DocumentWrite{
			Name: rootsDocument, Expect: expect, Updated: now, Data: plain,
		}, detail)
		if !moved(err) {
			return err
		}
	}
	return fmt.Errorf("%w: the roots are changed elsewhere all the time", tokens.ErrUnavailable)
}

// Roots lists the own roots.
func (s *Service) Roots(ctx context.Context, p tokens.Principal) ([]RootInfo, error) {
	e := audit.Event{Realm: p.Realm, Detail: []audit.Field{{Name: "of", Value: "roots"}}}
	if err := s.core.Allow(ctx, p, actShow, e); err != nil {
		return nil, err
	}
	certs, err := s.ownRoots(ctx)
	if err != nil {
		return nil, err
	}
	list := []RootInfo{}
	for _, c := range certs {
		sum := sha256.Sum256(c.Raw)
		list = append(list, RootInfo{Subject: c.Subject.String(), Until: c.NotAfter, SHA256: hex.EncodeToString(sum[:]), PEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))})
	}
	return list, nil
}

// ownRoots are the own roots; nil if there are none. Nothing in them may be
// changed.
func (s *Service) ownRoots(ctx context.Context) ([]*x509.Certificate, error) {
	doc, err := s.core.SealedDocument(ctx, rootsDocument)
	switch {
	case errors.Is(err, tokens.ErrNotFound):
		return nil, nil
	case err != nil && !errors.Is(err, tokens.ErrTampered):
		return nil, err // the HSM's trouble is not the document's
	}
	s.meta.mu.Lock()
	r := s.meta.roots
	s.meta.mu.Unlock()
	if r == nil || r.version != doc.Version {
		r = &loadedRoots{version: doc.Version}
		if err == nil {
			r.certs, err = parseRoots(doc.Data)
		}
		if err != nil {
			r.err = fmt.Errorf("own roots: %w", err)
			s.log.Error("the own roots that are stored cannot be used; set them anew", "reason", err)
		}
		s.meta.mu.Lock()
		s.meta.roots = r
		s.meta.mu.Unlock()
	}
	return r.certs, r.err
}

// moved says whether a write of a document met another node's.
func moved(err error) bool { return errors.Is(err, tokens.ErrState) }
