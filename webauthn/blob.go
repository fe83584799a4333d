package webauthn

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strings"
	"time"

	_ "crypto/sha256" // the hashes that a blob can be signed with
	_ "crypto/sha512"
)

// The limits of a metadata blob. A real one has some 300 entries and 7 MB, most
// of it icons.
const (
	MaxMetadata    = 64 << 20 // bytes
	maxBlobHeader  = 256 << 10
	maxBlobChain   = 10
	maxBlobEntries = 100_000
)

// blobPayload is what a metadata blob says of itself (FIDO Metadata Service 3.1,
// section 3.1.6), and its entries, reduced to what is used.
type blobPayload struct {
	number     int64
	issued     time.Time // zero: it does not say
	nextUpdate time.Time // midnight UTC of the day
	models     modelIndex
}

// expired says whether the day by which the next blob was promised is over.
func (b *blobPayload) expired(now time.Time) bool {
	return !now.Before(b.nextUpdate.Add(24 * time.Hour))
}

// blobHeader is the JOSE header of a blob (RFC 7515, section 4.1).
type blobHeader struct {
	Algorithm string          `json:"alg"`
	Chain     []string        `json:"x5c"`
	ChainURL  json.RawMessage `json:"x5u"`
	Critical  json.RawMessage `json:"crit"`
	Issued    *int64          `json:"iat"`
}

// blobAlgorithms are the signatures that are understood (RFC 7518, section 3.1).
// Nothing is signed with a shared secret, or not at all.
var blobAlgorithms = map[string]struct {
	hash  crypto.Hash
	pss   bool
	curve int // bits of the one curve that ES* allows; zero: RSA
}{
	"RS256": {hash: crypto.SHA256}, "RS384": {hash: crypto.SHA384}, "RS512": {hash: crypto.SHA512},
	"PS256": {hash: crypto.SHA256, pss: true}, "PS384": {hash: crypto.SHA384, pss: true}, "PS512": {hash: crypto.SHA512, pss: true},
	"ES256": {hash: crypto.SHA256, curve: 256}, "ES384": {hash: crypto.SHA384, curve: 384}, "ES512": {hash: crypto.SHA512, curve: 521},
}

// openBlob proves a blob against the anchors as of a moment, and reads it. It
// keeps no part of raw, and needs little memory beyond it: entries are read one
// after another.
func openBlob(raw []byte, anchors blobAnchors, at time.Time) (*blobPayload, error) {
	raw = bytes.TrimSpace(raw)
	if len(raw) > MaxMetadata {
		return nil, fmt.Errorf("it has %d bytes; up to %d are read", len(raw), MaxMetadata)
	}
	last := bytes.LastIndexByte(raw, '.')
	first := bytes.IndexByte(raw, '.')
	if first < 0 || first == last || bytes.IndexByte(raw[first+1:last], '.') >= 0 {
		return nil, errors.New("it is no signed metadata blob: three parts with dots between are expected, as FIDO publishes it")
	}
	head, payload, signature := raw[:first], raw[first+1:last], raw[last+1:]
	header, err := readBlobHeader(head)
	if err != nil {
		return nil, err
	}
	signer, err := anchors.signer(header.Chain, at)
	if err != nil {
		return nil, err
	}
	if err := checkBlobSignature(header.Algorithm, signer, raw[:last], signature); err != nil {
		return nil, err
	}
	if bytes.ContainsAny(payload, "\r\n") {
		return nil, errors.New("there is a line break in its payload")
	}
	b, err := readBlobPayload(base64.NewDecoder(base64.RawURLEncoding.Strict(), bytes.NewReader(payload)))
	if err != nil {
		return nil, err
	}
	if header.Issued != nil {
		b.issued = time.Unix(*header.Issued, 0).UTC()
		if b.nextUpdate.IsZero() {
			// Version 3.1.1 discourages nextUpdate and says when the blob was issued
			// instead; a new one comes each month.
			b.nextUpdate = b.issued.Add(blobLife).Truncate(24 * time.Hour)
		}
	}
	if b.nextUpdate.IsZero() {
		return nil, errors.New("it says neither when the next one is due (nextUpdate) nor when it was issued (iat): its age cannot be judged")
	}
	return b, nil
}

// blobLife is how long a blob that names no next update is taken to be current.
const blobLife = 31 * 24 * time.Hour

func readBlobHeader(part []byte) (*blobHeader, error) {
	if len(part) > maxBlobHeader {
		return nil, fmt.Errorf("its header has %d bytes; up to %d are read", len(part), maxBlobHeader)
	}
	text, err := decodeSegment(part)
	if err != nil {
		return nil, fmt.Errorf("its header is not base64url: %w", err)
	}
	var h blobHeader
	if err := json.Unmarshal(text, &h); err != nil {
		return nil, fmt.Errorf("its header is not understood: %w", err)
	}
	switch _, known := blobAlgorithms[h.Algorithm]; {
	case !known:
		return nil, fmt.Errorf("it is signed with the algorithm %.20q; RS, PS and ES with 256, 384 and 512 are trusted", h.Algorithm)
	case len(h.Critical) != 0: // RFC 7515, section 4.1.11
		return nil, errors.New("its header has critical extensions, which are not understood")
	case len(h.ChainURL) != 0:
		return nil, errors.New("its header names its certificates by a URL (x5u); they must be in it (x5c)")
	case len(h.Chain) == 0:
		return nil, errors.New("its header has no certificates (x5c), so nothing says who signed it")
	case len(h.Chain) > maxBlobChain:
		return nil, fmt.Errorf("its header has %d certificates; up to %d are read", len(h.Chain), maxBlobChain)
	}
	return &h, nil
}

// decodeSegment decodes a part of a compact JWS (RFC 7515, section 2: base64url
// without padding, line breaks or anything else).
func decodeSegment(part []byte) ([]byte, error) {
	if bytes.ContainsAny(part, "\r\n") {
		return nil, errors.New("there is a line break in it")
	}
	out := make([]byte, base64.RawURLEncoding.DecodedLen(len(part)))
	n, err := base64.RawURLEncoding.Strict().Decode(out, part)
	return out[:n], err
}

// checkBlobSignature proves the signature over the blob's first two parts as they
// stand (RFC 7515, section 5.2).
func checkBlobSignature(algorithm string, signer *x509.Certificate, signed, part []byte) error {
	alg := blobAlgorithms[algorithm]
	sig, err := decodeSegment(part)
	if err != nil {
		return fmt.Errorf("its signature is not base64url: %w", err)
	}
	wrong := fmt.Errorf("its signature (%s) is wrong: it was altered, or cut off", algorithm)
	h := alg.hash.New()
	h.Write(signed)
	digest := h.Sum(nil)
	switch key := signer.PublicKey.(type) {
	case *rsa.PublicKey:
		if alg.curve != 0 {
			return fmt.Errorf("it claims to be signed with %s, and its certificate holds an RSA key", algorithm)
		}
		if key.Size() < 256 {
			return fmt.Errorf("it is signed with an RSA key of %d bits; 2048 is the least", key.N.BitLen())
		}
		if alg.pss {
			err = rsa.VerifyPSS(key, alg.hash, digest, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: alg.hash})
		} else {
			err = rsa.VerifyPKCS1v15(key, alg.hash, digest, sig)
		}
		if err != nil {
			return wrong
		}
	case *ecdsa.PublicKey:
		bits := key.Curve.Params().BitSize
		if alg.curve != bits { // RFC 7518, section 3.4: each has its one curve
			return fmt.Errorf("it claims to be signed with %s, and its certificate holds an elliptic curve key of %d bits", algorithm, bits)
		}
		size := (bits + 7) / 8
		if len(sig) != 2*size {
			return wrong
		}
		r, s := new(big.Int).SetBytes(sig[:size]), new(big.Int).SetBytes(sig[size:])
		if !ecdsa.Verify(key, digest, r, s) {
			return wrong
		}
	default:
		return fmt.Errorf("its certificate holds a key of type %T, which no known signature goes with", key)
	}
	return nil
}

// readBlobPayload reads the payload member by member, so that never more than
// one entry is in memory as it came.
func readBlobPayload(r io.Reader) (*blobPayload, error) {
	var b blobPayload
	d := json.NewDecoder(r)
	if err := expect(d, json.Delim('{')); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("its payload is not understood: %w", err)
		}
		name, _ := t.(string)
		if seen[name] {
			return nil, fmt.Errorf("its payload has %.40q twice", name)
		}
		seen[name] = true
		switch name {
		case "no":
			err = d.Decode(&b.number)
		case "nextUpdate":
			var day string
			if err = d.Decode(&day); err == nil {
				b.nextUpdate, err = time.Parse(time.DateOnly, day)
			}
		case "entries":
			err = b.readEntries(d)
		default:
			var skip json.RawMessage
			err = d.Decode(&skip)
		}
		if err != nil {
			return nil, fmt.Errorf("its payload's %.40q is not understood: %w", name, err)
		}
	}
	if err := expect(d, json.Delim('}')); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows its payload")
	}
	b.models.finish()
	if !seen["no"] || !seen["entries"] || b.number < 1 {
		return nil, errors.New("its payload lacks a number (no) or the entries")
	}
	return &b, nil
}

func (b *blobPayload) readEntries(d *json.Decoder) error {
	if err := expect(d, json.Delim('[')); err != nil {
		return err
	}
	for n := 0; d.More(); n++ {
		if n == maxBlobEntries {
			return fmt.Errorf("it has more than %d entries", maxBlobEntries)
		}
		var e blobEntry
		err := d.Decode(&e)
		var typed *json.UnmarshalTypeError
		if err != nil && !errors.As(err, &typed) {
			return fmt.Errorf("entry %d: %w", n, err)
		}
		if err := b.models.add(&e, typed); err != nil {
			return fmt.Errorf("entry %d: %w", n, err)
		}
	}
	return expect(d, json.Delim(']'))
}

func expect(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err != nil {
		return fmt.Errorf("its payload is not understood: %w", err)
	}
	if t != want {
		return fmt.Errorf("its payload is not understood: %v where %v is expected", strings.ToValidUTF8(fmt.Sprintf("%.40v", t), "?"), want)
	}
	return nil
}
