package pskc

import (
	"bytes"
	"io"
	"strings"
)

// maxToken is the most that one XML token may have: a tag with its attributes,
// a run of text, a comment. In bytes.
const maxToken = 64 << 10

// prelude is read before the file: a comment that makes the decoder's buffer
// large enough for any seed at once. A buffer that grew later would leave a
// piece of a seed behind in memory, where it cannot be wiped.
var prelude = []byte("<!--" + strings.Repeat(" ", 8<<10) + "-->")

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

func newInput(r io.Reader) *input {
	in := &input{r: r, buf: make([]byte, 64<<10)}
	in.end = copy(in.buf, prelude)
	return in
}

// ReadByte makes input what the decoder reads from without a buffer between.
func (in *input) ReadByte() (byte, error) {
	if in.start == in.end {
		if err := in.fill(); err != nil {
			return 0, err
		}
	}
	if in.given++; in.given > maxToken {
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

func (in *input) wipe() {
	clear(in.buf)
	in.start, in.end, in.err = 0, 0, io.EOF
}
