package seeds

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
)

// The bounds of what is unpacked: a seed file shrinks to a third, and one of
// which nearly all is the same to a fiftieth.
const (
	maxRatio   = 200     // bytes unpacked for each packed one,
	ratioSlack = 1 << 20 // beyond this many
)

var (
	errBomb   = errors.New("it unpacks to more than a seed file may have")
	errBroken = errors.New("its compressed data is damaged")
)

// byteReader is what can be read without a buffer of somebody else's.
type byteReader interface {
	io.Reader
	io.ByteReader
}

// window reads a source through one buffer that is wiped.
type window struct {
	r          io.Reader
	buf        []byte
	start, end int
	n          int64 // bytes handed out
	err        error // what r ended with
}

func newWindow(r io.Reader) *window { return &window{r: r, buf: make([]byte, 32<<10)} }

func (w *window) fill() error {
	if w.start < w.end {
		return nil
	}
	if w.err != nil {
		return w.err
	}
	clear(w.buf[:w.end])
	w.start, w.end = 0, 0
	for range 100 {
		n, err := w.r.Read(w.buf)
		w.end, w.err = n, err
		if n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	w.err = io.ErrNoProgress
	return w.err
}

func (w *window) ReadByte() (byte, error) {
	if w.start == w.end {
		if err := w.fill(); err != nil {
			return 0, err
		}
	}
	b := w.buf[w.start]
	w.start++
	w.n++
	return b, nil
}

func (w *window) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := w.fill(); err != nil {
		return 0, err
	}
	n := copy(p, w.buf[w.start:w.end])
	w.start += n
	w.n += int64(n)
	return n, nil
}

// take reads exactly as much as p holds; the end before that is
// io.ErrUnexpectedEOF.
func (w *window) take(p []byte) error {
	_, err := io.ReadFull(w, p)
	if err == io.EOF && len(p) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// skip reads n bytes and forgets them.
func (w *window) skip(n int64) error {
	for n > 0 {
		if err := w.fill(); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		k := min(n, int64(w.end-w.start))
		w.start += int(k)
		w.n += k
		n -= k
	}
	return nil
}

// failed answers what the source itself failed with, nil if it did not.
func (w *window) failed() error {
	if w.err == io.EOF {
		return nil
	}
	return w.err
}

func (w *window) wipe() {
	clear(w.buf)
	w.start, w.end, w.err = 0, 0, io.EOF
}

// bytewise makes a byteReader of one that is read a byte at a time.
type bytewise struct{ io.ByteReader }

func (b bytewise) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if p[n], err = b.ReadByte(); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// part is the next so many bytes of a source; the source's end before that is
// io.ErrUnexpectedEOF. With left negative it is all that follows.
type part struct {
	r    byteReader
	left int64
	n    int64 // bytes handed out
}

func (p *part) ReadByte() (byte, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	b, err := p.r.ReadByte()
	if err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	p.n++
	if p.left > 0 {
		p.left--
	}
	return b, nil
}

func (p *part) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	if p.left > 0 && int64(len(b)) > p.left {
		b = b[:p.left]
	}
	n, err := p.r.Read(b)
	p.n += int64(n)
	if p.left > 0 {
		p.left -= int64(n)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// inflater undoes DEFLATE (RFC 1951), within bounds. It reads no byte beyond the
// end of the compressed data.
type inflater struct {
	in  *counter
	z   io.ReadCloser
	out int64
}

// counter counts the bytes that the decompressor takes.
type counter struct {
	byteReader
	n int64
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.byteReader.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.byteReader.Read(p)
	c.n += int64(n)
	return n, err
}

func newInflater(r byteReader) *inflater {
	c := &counter{byteReader: r}
	return &inflater{in: c, z: flate.NewReader(c)}
}

func (i *inflater) Read(p []byte) (int, error) {
	n, err := i.z.Read(p)
	if i.out += int64(n); i.out > MaxBytes || i.out > ratioSlack+maxRatio*i.in.n {
		return 0, errBomb
	}
	var corrupt flate.CorruptInputError
	if errors.As(err, &corrupt) {
		err = errBroken
	}
	return n, err
}

// wipe clears the last 32 KB that were unpacked, which the decompressor keeps:
// a new beginning with so many zeros before it is written over them.
func (i *inflater) wipe() {
	i.z.(flate.Resetter).Reset(bytes.NewReader(nil), make([]byte, 32<<10))
}
