package seeds

import (
	"bytes"
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
	r   *pskc.Reader
	rec Record
}

func openPSKC(r io.Reader, o OpenOptions) Reader {
	return &pskcReader{r: pskc.NewReader(r, pskc.Options{Key: o.Key, Password: o.Password, Now: o.Now})}
}

func (p *pskcReader) Close() { p.r.Close() }

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
	*rec = Record{Line: k.Line, Key: k.Number, Serial: k.Serial, Model: model(k), Err: k.Err}
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
	if k.Algorithm == pskc.HOTP {
		rec.Type = tokens.HOTP
	}
	if k.Suite != "" {
		hash, ok := parseHash(k.Suite[strings.LastIndexAny(k.Suite, "#:")+1:])
		if !ok {
			rec.fail("the suite %.40q names no hash that is known: SHA1, SHA256 and SHA512 are", k.Suite)
			return
		}
		rec.Algorithm = hash
	}
	if err := rec.check(); err != nil {
		rec.fail("%w", err)
	}
}

// model is how a container names the kind of device, within 255 bytes.
func model(k *pskc.Key) string {
	s := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.TrimSpace(k.Manufacturer+" "+k.Model))
	if len(s) > 255 {
		s = strings.ToValidUTF8(s[:255], "")
	}
	return s
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
			switch {
			case t.Name.Local != "KeyContainer":
				return false, fmt.Sprintf("it is XML, but its root element is %.40q, not KeyContainer", t.Name.Local)
			case t.Name.Space != pskc.Namespace:
				return false, fmt.Sprintf("its KeyContainer is in the namespace %.80q, not in that of RFC 6030", t.Name.Space)
			}
			return true, "root element KeyContainer in the namespace of RFC 6030"
		}
	}
}
