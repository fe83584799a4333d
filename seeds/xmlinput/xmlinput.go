// Package xmlinput reads XML that holds secrets: as a stream of tokens, bounded
// in every direction, out of buffers that are wiped.
//
//	file -> one buffer of ours, wiped by Wipe -> xml.Decoder -> Token
//
// The decoder keeps text in a buffer of its own; whoever takes character data
// clears it (it is that very buffer) before asking for the next token. Document
// types, and so entities, are refused; so are nesting, attributes and tokens
// beyond what any seed file has, and encodings other than UTF-8.
package xmlinput

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The bounds of a file.
const (
	MaxToken = 64 << 10 // bytes of one token: a tag with its attributes, a run of text, a comment
	MaxDepth = 24       // elements within each other
	MaxAttrs = 32       // attributes of an element
)

// Error is what is wrong with a file as a whole.
type Error struct {
	Line   int    // from 1
	Reason string // a sentence without any secret
}

// Error says the place and the reason.
func (e *Error) Error() string { return "line " + strconv.Itoa(e.Line) + ": " + e.Reason }

// Reader reads one file. It is not safe for concurrent use.
type Reader struct {
	in    input
	dec   *xml.Decoder
	depth int
}

// prelude is read before the file: a comment that makes the decoder's buffer
// large enough for any seed at once. A buffer that grew later would leave a
// piece of a seed behind in memory, where it cannot be wiped.
var prelude = []byte("<!--" + strings.Repeat(" ", 8<<10) + "-->")

// New begins to read a file; nothing is read from r yet.
func New(r io.Reader) *Reader {
	x := &Reader{in: input{r: r, buf: make([]byte, 64<<10)}}
	x.in.end = copy(x.in.buf, prelude)
	x.dec = xml.NewDecoder(&x.in)
	x.dec.CharsetReader = charset
	return x
}

// Token answers the next token, or io.EOF after the root element's end. Any
// other error ends the file: an *Error, or what the source failed with.
func (x *Reader) Token() (xml.Token, error) {
	x.in.given = 0
	t, err := x.dec.Token()
	if err != nil {
		return nil, x.wrong(err)
	}
	switch t := t.(type) {
	case xml.Directive:
		return nil, x.Errorf("the file has a document type declaration (DTD); no seed file needs one, and it is refused")
	case xml.StartElement:
		if x.depth++; x.depth > MaxDepth {
			return nil, x.Errorf("elements are nested more than %d deep", MaxDepth)
		}
		if len(t.Attr) > MaxAttrs {
			return nil, x.Errorf("an element has more than %d attributes", MaxAttrs)
		}
		for i, a := range t.Attr {
			for _, b := range t.Attr[:i] {
				if a.Name == b.Name {
					return nil, x.Errorf("an element has the same attribute twice")
				}
			}
		}
	case xml.EndElement:
		x.depth--
	}
	return t, nil
}

// Depth is how many elements are open.
func (x *Reader) Depth() int { return x.depth }

// Line is where the token answered last ends.
func (x *Reader) Line() int {
	line, _ := x.dec.InputPos()
	return line
}

// Errorf makes an Error at the present line.
func (x *Reader) Errorf(format string, args ...any) error {
	return &Error{Line: x.Line(), Reason: fmt.Sprintf(format, args...)}
}

// Skip reads to the end of the element that was just begun, keeping nothing.
func (x *Reader) Skip() error {
	for depth := x.depth - 1; x.depth > depth; {
		t, err := x.Token()
		if err != nil {
			return err
		}
		if text, ok := t.(xml.CharData); ok {
			clear(text)
		}
	}
	return nil
}

// Text appends the text of the element that was just begun to buf, within its
// capacity, and reads to the element's end. An element inside it, or more text
// than there is room for, is an *Error.
func (x *Reader) Text(buf []byte) ([]byte, error) {
	for {
		t, err := x.Token()
		if err != nil {
			return buf, err
		}
		switch t := t.(type) {
		case xml.CharData:
			room := len(t) <= cap(buf)-len(buf)
			if room {
				buf = append(buf, t...)
			}
			clear(t)
			if !room {
				return buf, x.Errorf("the text of an element is longer than any seed file has it")
			}
		case xml.StartElement:
			return buf, x.Errorf("an element that holds a value has elements in it")
		case xml.EndElement:
			return buf, nil
		}
	}
}

// Wipe clears what is kept of the file's bytes. Nothing can be read any more.
func (x *Reader) Wipe() {
	clear(x.in.buf)
	x.in.start, x.in.end, x.in.err = 0, 0, io.EOF
}

// wrong makes an error of the decoder or of the file one with its place.
func (x *Reader) wrong(err error) error {
	var bad *Error
	var syntax *xml.SyntaxError
	switch {
	case err == io.EOF:
		return io.EOF
	case errors.As(err, &bad):
		return &Error{Line: x.Line(), Reason: bad.Reason}
	case errors.As(err, &syntax):
		if strings.Contains(syntax.Msg, "unexpected EOF") {
			return &Error{Line: syntax.Line, Reason: "the file ends in the middle of an element; it was cut off"}
		}
		// The decoder's words may quote the file, and so a seed.
		return &Error{Line: syntax.Line, Reason: "this is not well-formed XML"}
	case x.in.err == nil || x.in.err == io.EOF:
		// Not the source's: the decoder does not like the XML declaration.
		return x.Errorf("the XML declaration is of a kind that is not understood")
	}
	return err
}

// charset admits the encodings that are the same as UTF-8 in what a seed file
// needs.
func charset(name string, r io.Reader) (io.Reader, error) {
	switch strings.ToLower(name) {
	case "us-ascii", "ascii", "iso-8859-1", "windows-1252":
		return &asciiOnly{r}, nil
	}
	return nil, &Error{Reason: "the XML declares an encoding other than UTF-8; convert the file to UTF-8 first"}
}

// asciiOnly refuses what would mean something else in UTF-8.
type asciiOnly struct{ r io.Reader }

// Read reads byte by byte: nothing is buffered here.
func (a *asciiOnly) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1]
	}
	n, err := a.r.Read(p)
	if n == 1 && p[0] >= 0x80 {
		return 0, &Error{Reason: "the XML declares an encoding other than UTF-8 and uses it; convert the file to UTF-8 first"}
	}
	return n, err
}

func (a *asciiOnly) ReadByte() (byte, error) {
	var p [1]byte
	if _, err := a.Read(p[:]); err != nil {
		return 0, err
	}
	return p[0], nil
}

// input is the file as the decoder reads it. It has no copy of what was read
// but in its one buffer.
type input struct {
	r          io.Reader
	buf        []byte
	start, end int
	given      int // of the token under way
	begun      bool
	err        error
}

// ReadByte makes input what the decoder reads from without a buffer between.
func (in *input) ReadByte() (byte, error) {
	if in.start == in.end {
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	if in.given++; in.given > MaxToken {
		return 0, &Error{Reason: "an element, a text or a comment is larger than 64 KB"}
	}
	b := in.buf[in.start]
	in.start++
	return b, nil
}

// Read is there because the decoder asks for an io.Reader; it uses ReadByte.
func (in *input) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b, err := in.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = b
	return 1, nil
}

func (in *input) fill() error {
	if in.err != nil {
		return in.err
	}
	in.start, in.end = 0, 0
	for tries := 0; in.end == 0 || !in.begun && in.end < 4; tries++ {
		if tries == 100 {
			in.err = io.ErrNoProgress
			break
		}
		var n int
		if n, in.err = in.r.Read(in.buf[in.end:]); in.err != nil {
			in.end += n
			break
		}
		in.end += n
	}
	if !in.begun {
		in.begun = true
		if bytes.HasPrefix(in.buf[:in.end], []byte("\xef\xbb\xbf")) {
			in.start = 3
		}
		if text := bytes.TrimLeft(in.buf[in.start:in.end], " \t\r\n"); len(text) > 0 && text[0] != '<' {
			in.err = &Error{Reason: "this is not XML"}
			return in.err
		}
	}
	if in.start == in.end {
		return in.err
	}
	return nil
}
