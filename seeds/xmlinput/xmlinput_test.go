package xmlinput

import (
	"bytes"
	"encoding/xml"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const secret = "3132333435363738393031323334353637383930"

// No copy of a text stays behind: not in the input's buffer, not in the decoder's.
func TestTextIsWiped(t *testing.T) {
	x := New(iotest.OneByteReader(strings.NewReader("\xef\xbb\xbf<a><b>" + secret + "</b>" + secret + "</a>")))
	var seen int
	var given []byte // the decoder's own buffer
	for {
		tok, err := x.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if tok.Name.Local == "b" {
				text, err := x.Text(make([]byte, 0, 64))
				if err != nil || string(text) != secret {
					t.Fatal(string(text), err)
				}
				seen++
			}
		case xml.CharData:
			if string(tok) == secret {
				seen++
			}
			given = tok[:cap(tok)]
			clear(tok)
		}
	}
	x.Wipe()
	if seen != 2 || bytes.Contains(given, []byte("3132")) || bytes.Contains(x.in.buf, []byte("3132")) {
		t.Errorf("seen %d times; a text stays behind", seen)
	}
	if _, err := x.Token(); err != io.EOF {
		t.Error(err)
	}
}

func TestSkipKeepsNothing(t *testing.T) {
	x := New(strings.NewReader("<a><b><c>" + secret + "</c></b><d/></a>"))
	for _, name := range []string{"a", "b", "d"} {
		for {
			tok, err := x.Token()
			if err != nil {
				t.Fatal(name, err)
			}
			start, ok := tok.(xml.StartElement)
			if !ok {
				continue
			}
			if start.Name.Local != name {
				t.Fatalf("%s, not %s", start.Name.Local, name)
			}
			if name == "b" {
				if err := x.Skip(); err != nil || x.Depth() != 1 {
					t.Fatal(x.Depth(), err)
				}
			}
			break
		}
	}
}

func FuzzXML(f *testing.F) {
	for _, file := range []string{"", "<a/>", "<a>x</a>", "<?xml version='1.0' encoding='ascii'?><a>\xff</a>", "<!DOCTYPE a>", "<a b='c' b='d'/>", strings.Repeat("<a>", 30)} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		x := New(bytes.NewReader(file))
		defer x.Wipe()
		for {
			if _, err := x.Token(); err != nil {
				return
			}
			if x.Depth() > MaxDepth {
				t.Fatal(x.Depth())
			}
		}
	})
}
