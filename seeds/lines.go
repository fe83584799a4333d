package seeds

import (
	"bytes"
	"fmt"
	"io"
)

// maxLine is the longest line of a text format, in bytes without its end.
const maxLine = 4096

// lines reads a text line by line out of one buffer that it wipes behind
// itself.
type lines struct {
	r          io.Reader
	buf        []byte
	start, end int   // what is read and not yet handed out
	given      int   // start of the line that was handed out last
	n          int   // number of that line
	err        error // what r ended with
}

func newLines(r io.Reader) *lines {
	return &lines{r: r, buf: make([]byte, 16*maxLine)}
}

// next answers the next line without its end (LF or CRLF), and whether it had
// one. The line may be written to; it is wiped by the next call. At the end of
// the text the error is io.EOF; a line that is too long is a *FileError.
func (l *lines) next() (line []byte, ended bool, err error) {
	clear(l.buf[l.given:l.start])
	l.given = l.start
	for searched := 0; ; {
		if i := bytes.IndexByte(l.buf[l.start+searched:l.end], '\n'); i >= 0 {
			line, ended = l.buf[l.start:l.start+searched+i], true
			l.start += searched + i + 1
			break
		}
		searched = l.end - l.start
		if searched > maxLine+1 {
			break
		}
		if l.err != nil {
			if l.err != io.EOF {
				return nil, false, fmt.Errorf("reading after line %d: %w", l.n, l.err)
			}
			if searched == 0 {
				return nil, false, io.EOF
			}
			line = l.buf[l.start:l.end]
			l.start = l.end
			break
		}
		l.fill()
	}
	l.n++
	if ended && len(line) > 0 && line[len(line)-1] == '\r' {
		line = line[:len(line)-1]
	}
	if line == nil || len(line) > maxLine {
		return nil, false, &FileError{Line: l.n, Reason: fmt.Sprintf("longer than %d bytes; is this a text file with one token a line?", maxLine)}
	}
	if l.n == 1 {
		line = bytes.TrimPrefix(line, bom)
	}
	return line, ended, nil
}

// fill moves what is left to the front and reads more.
func (l *lines) fill() {
	if l.start > 0 {
		n := copy(l.buf, l.buf[l.start:l.end])
		clear(l.buf[n:l.end])
		l.start, l.end, l.given = 0, n, 0
	}
	l.more()
}

// ahead answers what follows the line handed out last, as far as the buffer has
// room for it; the last line of it may lack its end. It is not to be written to,
// and is valid until the next call of next.
func (l *lines) ahead() []byte {
	for l.err == nil && l.end < len(l.buf) {
		l.more()
	}
	return l.buf[l.start:l.end]
}

// more reads on, behind what is there.
func (l *lines) more() {
	for tries := 0; tries < 100; tries++ {
		n, err := l.r.Read(l.buf[l.end:])
		l.end += n
		if err != nil {
			l.err = err
			return
		}
		if n > 0 {
			return
		}
	}
	l.err = io.ErrNoProgress
}

func (l *lines) wipe() {
	clear(l.buf)
	l.start, l.end, l.given, l.err = 0, 0, 0, io.EOF
}
