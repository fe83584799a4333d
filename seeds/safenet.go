package seeds

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"watchword/hsm"
	"watchword/seeds/xmlinput"
	"watchword/tokens"
)

// safenetXML is what SafeNet, and Aladdin before it, ship with eToken PASS and
// other tokens:
//
//	<Tokens>
//	  <Token serial="...">
//	    <CaseModel>, <Model>, <ProductionDate>, <ProductName>
//	    <Applications><Application ConnectorID="{...}">
//	      <Seed>hex</Seed> <MovingFactor>next counter</MovingFactor>
//	    </Application></Applications>
//	  </Token>
//	</Tokens>
//
// It does not say how long the codes are (these tokens show 6 digits, which is
// taken unless another length is chosen), and never which hash: other products
// take a seed of 32 bytes for one of HMAC-SHA-256, so that such a seed wants a
// choice; all others are SHA-1 unless chosen.
var safenetXML = Format{Name: "safenet-xml", Title: "SafeNet XML", Detect: detectSafeNet, Open: openSafeNet}

type safenetReader struct {
	x       *xmlinput.Reader
	rec     Record
	o       Choices
	text    []byte // of one value
	begun   bool
	number  int // of the token
	assumed int // tokens taken for 6 digits
	// What the token under way was seen to have.
	seeds, factors int
	bad            error
}

func openSafeNet(r io.Reader, o OpenOptions) Reader {
	return &safenetReader{x: xmlinput.New(r), o: o.Choices, text: make([]byte, 0, 4096), rec: Record{Seed: make([]byte, 0, MaxSeed)}}
}

func (s *safenetReader) Close() {
	s.rec.reset()
	s.forget()
	s.x.Wipe()
}

// Notes says what else the file shows.
func (s *safenetReader) Notes() []string {
	if s.assumed == 0 {
		return nil
	}
	return []string{fmt.Sprintf("The file does not say how long the codes are. Tokens that were taken for 6 digits, for want of --digits: %d.", s.assumed)}
}

func (s *safenetReader) Next() (*Record, error) {
	s.rec.reset()
	found, err := s.next()
	if err != nil {
		var bad *xmlinput.Error
		switch {
		case errors.As(err, &bad):
			return nil, &FileError{Line: bad.Line, Reason: bad.Reason}
		case err == io.EOF:
			return nil, err
		}
		return nil, fmt.Errorf("reading the file: %w", err)
	}
	if !found {
		return nil, io.EOF
	}
	if err := s.judge(); err != nil {
		if tokens.ValidSerial(s.rec.Serial) != nil || mayBeSeed(s.rec.Serial) {
			s.rec.Serial = ""
		}
		s.rec.fail("%w", err)
	}
	return &s.rec, nil
}

// next reads to the end of the next token, and says whether there was one.
func (s *safenetReader) next() (bool, error) {
	for {
		t, err := s.x.Token()
		if err == io.EOF && !s.begun {
			return false, s.x.Errorf("there is no Tokens element in the file")
		}
		if err == io.EOF && s.x.Depth() == 0 {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		switch t := t.(type) {
		case xml.CharData:
			if err := s.blank(t); err != nil {
				return false, err
			}
		case xml.StartElement:
			switch {
			case s.x.Depth() == 1 && s.begun:
				return false, s.x.Errorf("something follows the end of the Tokens element")
			case s.x.Depth() == 1 && t.Name.Local != "Tokens":
				return false, s.x.Errorf("the root element is %.40q, not Tokens", t.Name.Local)
			case s.x.Depth() == 1:
				s.begun = true
			case t.Name.Local != "Token":
				return false, s.x.Errorf("the Tokens element has a child %.40q, which is not known; if it is encrypted, ask for another kind of file", t.Name.Local)
			default:
				return true, s.token(t)
			}
		}
	}
}

// blank refuses text between elements, and forgets it.
func (s *safenetReader) blank(t xml.CharData) error {
	blank := len(bytes.TrimSpace(t)) == 0
	clear(t)
	if !blank {
		return s.x.Errorf("there is text between the elements")
	}
	return nil
}

// token reads a Token element into s.rec. What keeps the token from being
// imported goes to s.bad; the error ends the file.
func (s *safenetReader) token(start xml.StartElement) error {
	rec := &s.rec
	s.number++
	rec.Line, rec.Key = s.x.Line(), s.number
	s.seeds, s.factors, s.bad = 0, 0, nil
	rec.Type, rec.Algorithm, rec.Digits = tokens.HOTP, hsm.SHA1, 6
	for _, a := range start.Attr {
		if strings.EqualFold(a.Name.Local, "serial") {
			rec.Serial = strings.TrimSpace(a.Value)
		}
	}
	application := 0 // depth of the Application element; zero outside
	for depth := s.x.Depth() - 1; s.x.Depth() > depth; {
		t, err := s.x.Token()
		if err != nil {
			return err
		}
		switch t := t.(type) {
		case xml.CharData:
			if err := s.blank(t); err != nil {
				return err
			}
		case xml.EndElement:
			if s.x.Depth() < application {
				application = 0
			}
		case xml.StartElement:
			name := strings.ToLower(t.Name.Local)
			switch {
			case application > 0:
				err = s.value(t.Name.Local)
			case name == "applications":
			case name == "application":
				application = s.x.Depth()
			case name == "productname":
				if err = s.read(); err == nil {
					rec.Model = deviceName("SafeNet", string(bytes.TrimSpace(s.text)))
				}
			default:
				err = s.x.Skip()
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// read reads a value into s.text.
func (s *safenetReader) read() (err error) {
	s.forget()
	s.text, err = s.x.Text(s.text)
	return err
}

// forget wipes the value read last.
func (s *safenetReader) forget() {
	clear(s.text)
	s.text = s.text[:0]
}

// value reads an element of an application.
func (s *safenetReader) value(name string) error {
	switch strings.ToLower(name) {
	case "seed":
		if err := s.read(); err != nil {
			return err
		}
		if s.seeds++; s.seeds == 1 {
			s.rec.Seed = s.rec.Seed[:0]
			if err := decodeHex(&s.rec, bytes.TrimSpace(s.text)); err != nil {
				s.fault(fmt.Errorf("the Seed element: %w", err))
			}
		}
		s.forget()
	case "movingfactor", "counter":
		if err := s.read(); err != nil {
			return err
		}
		if s.factors++; s.factors == 1 {
			n, err := strconv.ParseUint(string(bytes.TrimSpace(s.text)), 10, 64)
			if err != nil {
				s.fault(errors.New("the moving factor is not a number"))
			}
			s.rec.Counter = n
		}
	default:
		s.fault(fmt.Errorf("its application has an element %.40q, which is not understood", name))
		return s.x.Skip()
	}
	return nil
}

// fault keeps the first thing that is wrong with a token.
func (s *safenetReader) fault(err error) {
	if s.bad == nil {
		s.bad = err
	}
}

// judge says what is wrong with the token that was read, after the choices.
func (s *safenetReader) judge() error {
	rec := &s.rec
	switch {
	case rec.Serial == "":
		return errors.New("the token has no serial")
	case s.bad != nil:
		return s.bad
	case s.seeds == 0:
		return errors.New("there is no seed")
	case s.seeds > 1 || s.factors > 1:
		return errors.New("there are several seeds or moving factors, and none says which is the token's")
	case s.factors == 0 && s.o.Type == "":
		return errors.New("the file names no moving factor, and so leaves open whether the token counts or follows the clock (--type)")
	case s.factors > 0 && s.o.Type == tokens.TOTP:
		return errors.New("--type says totp, but the file names a moving factor, which a token that follows the clock does not have")
	case len(rec.Seed) == 32 && s.o.Hash == 0:
		return errors.New("the file does not say whether this seed of 32 bytes is for SHA-1 or, as some products take it, for SHA-256 (--hash)")
	}
	if s.factors == 0 && s.o.Type == tokens.TOTP {
		rec.Type, rec.Period = tokens.TOTP, 30
		if s.o.Period != 0 {
			rec.Period = s.o.Period
		}
	}
	if s.o.Hash != 0 {
		rec.Algorithm = s.o.Hash
	}
	if s.o.Digits != 0 {
		rec.Digits = s.o.Digits
	}
	if err := rec.check(); err != nil {
		return err
	}
	if s.o.Digits == 0 {
		s.assumed++
	}
	return nil
}

func detectSafeNet(prefix []byte, _ bool) (bool, string) {
	root, child, why := xmlRoot(prefix)
	switch {
	case why != "":
		return false, why
	case root != "Tokens":
		return false, fmt.Sprintf("its root element is %.40q, not Tokens", root)
	case child != "" && child != "Token":
		return false, fmt.Sprintf("its root element is Tokens, but the first one in it is %.40q, not Token", child)
	}
	return true, "root element Tokens"
}

// xmlRoot answers the names of the root element of an XML file and of the first
// element in it (empty if there is none within the prefix), or why there are
// none.
func xmlRoot(prefix []byte) (root, child, why string) {
	if !bytes.HasPrefix(bytes.TrimSpace(prefix), []byte("<")) {
		return "", "", "it is not XML"
	}
	x := xmlinput.New(bytes.NewReader(prefix))
	defer x.Wipe()
	for {
		t, err := x.Token()
		if err != nil {
			if root != "" {
				return root, "", ""
			}
			return "", "", "it is XML, but no root element is found in its first 8 KB"
		}
		switch t := t.(type) {
		case xml.CharData:
			clear(t)
		case xml.StartElement:
			if root != "" {
				return root, t.Name.Local, ""
			}
			root = t.Name.Local
		case xml.EndElement:
			return root, "", ""
		}
	}
}
